//! Access for this crate's own benchmarks and tests: the sealing engine without key look-ups, the sealed format, the
//! SQL of the key tables, and parts whose properties are tested with any input. It is not part of the public API, and
//! may change or go at any time.

pub mod format;

use crate::crypto::primitives::{DataKey, Salts};
use crate::crypto::random;
use crate::error::{InputFault, Result};
use crate::event::{AggregateRef, EventRef, NewEvent};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Pattern, Token};
use crate::json::scan::{locate, scan};
use crate::json::wanted::{Target, Wanted};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::schema::check::protection::check_change;
use crate::schema::upcast::changes::{Change, Changes, make};
use crate::schema::{EventSchema, Schemas};
use crate::seal::detect::may_hold_header;
use crate::seal::opening::{KeyStatus, Keys, inspect};
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, SealingKey};
use crate::telemetry::{self, AppendPath, EventsRead, Reporting, Tally};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// One event with its schema and its keys, which can be sealed and opened repeatedly.
#[allow(missing_debug_implementations, reason = "holds keys")]
pub struct Engine {
    schemas: Schemas,
    namespace: Namespace,
    aggregate: AggregateRef,
    event: NewEvent,
    keys: Vec<(KeyId, Arc<DataKey>)>,
    integrity: (KeyId, Arc<DataKey>),
    statuses: Keys,
}

impl Engine {
    /// # Errors
    /// Errors of the schema, and of the keys' creation.
    pub fn new(schema: EventSchema, aggregate: AggregateRef, event: NewEvent) -> Result<Self> {
        let new_key =
            || Ok::<_, crate::Error>((KeyId(random::uuid()?), Arc::new(DataKey::new(random::key()?.expose())?)));
        let schemas = Schemas::new([schema])?;
        let draft = Draft::new(&schemas.for_append(&event)?.plan, event.to_store(&aggregate))?;
        let scopes = draft.map(|draft| draft.scopes).unwrap_or_default();
        let mut keys = Vec::new();
        let mut statuses = Keys::new();
        for scope in scopes {
            let (id, key) = new_key()?;
            statuses.insert(id, KeyStatus::Live { scope, key: Arc::clone(&key) });
            keys.push((id, key));
        }
        let integrity = new_key()?;
        statuses.insert(integrity.0, KeyStatus::Live { scope: KeyScope::integrity(), key: Arc::clone(&integrity.1) });
        Ok(Self { schemas, namespace: Namespace::new("bench")?, aggregate, event, keys, integrity, statuses })
    }

    fn plan(&self) -> Result<&Plan> {
        let schema = self.schemas.for_read(self.event.event_id, &self.event.event_type, self.event.event_version)?;
        schema.map(|known| &known.schema.plan).ok_or(crate::Error::Input(InputFault::EmptyAppend))
    }

    fn event(&self) -> EventRef<'_> {
        self.event.to_store(&self.aggregate)
    }

    /// Seals the event, as an append does once it has the keys. It draws a salt.
    ///
    /// # Errors
    /// Those of sealing.
    pub fn seal(&self) -> Result<Vec<u8>> {
        let Some(draft) = Draft::new(self.plan()?, self.event())? else { return Ok(self.event.payload().to_vec()) };
        let keys: Vec<SealingKey<'_>> = self.keys.iter().map(|(id, key)| SealingKey { id: *id, key }).collect();
        let integrity = SealingKey { id: self.integrity.0, key: &self.integrity.1 };
        draft.seal(&self.namespace, &keys, &integrity, &Salts::draw(1)?.next()?)
    }

    /// Opens a stored payload, as a read does once it has the keys. `None` if the stored bytes are handed out
    /// unchanged.
    ///
    /// # Errors
    /// Those of opening.
    pub fn open(&self, stored: &[u8]) -> Result<Option<Vec<u8>>> {
        let plan = self.plan()?;
        if !plan.protects() && !may_hold_header(stored) {
            return Ok(None);
        }
        let document = self.event().with_text(stored);
        let Some(closed) = inspect(plan, document, false)? else { return Ok(None) };
        Ok(Some(closed.open(document, plan, &self.namespace, &self.statuses)?.text))
    }
}

/// Where ciphers and hashes are: `RustCrypto` or `AWS-LC`.
#[must_use]
pub const fn backend() -> &'static str {
    crate::crypto::backend::NAME
}

/// What an append of sealed events tells of itself, without the append: its span and its counters.
///
/// # Errors
/// None.
pub async fn told_of_an_append(aggregate: &AggregateRef, events: usize) -> Result<()> {
    let call = telemetry::append(None, aggregate, events);
    call.run(|| async {
        telemetry::data_keys_needed(2, 0);
        telemetry::appended(AppendPath::OneStatement);
        call.sealed(events, events);
        Ok(())
    })
    .await
}

/// What a read of a stream tells of itself, without the read.
///
/// # Errors
/// None.
pub async fn told_of_a_read(schemas: &Schemas, aggregate: &AggregateRef, events: u64) -> Result<()> {
    let call = telemetry::read_stream(None, aggregate);
    call.run(|| async {
        telemetry::data_keys_needed(2, 0);
        let tally = Tally::default();
        let _reporting = Reporting::new(Some(&call), &tally);
        tally.add(EventsRead { opened: events, ..EventsRead::default() });
        drop(schemas.reporting_steps());
        Ok(())
    })
    .await
}

/// Every statement on the key tables, by name.
#[cfg(feature = "postgres")]
#[must_use]
pub fn statements_of(keys: &crate::postgres::PostgresKeys) -> Vec<(&'static str, Arc<str>)> {
    keys.statements()
}

/// Every statement of an event store, by name.
#[cfg(feature = "postgres")]
#[must_use]
pub fn event_statements_of(store: &crate::postgres::PostgresStore) -> Vec<(&'static str, Arc<str>)> {
    store.statements()
}

/// The statements of an event store that also check or read keys, by name.
#[cfg(feature = "postgres")]
#[must_use]
pub fn statements_beside(
    store: &crate::postgres::PostgresStore,
    keys: &crate::postgres::PostgresKeys,
) -> Vec<(&'static str, Arc<str>)> {
    crate::keys::KeyStore::table_names(keys).map(|names| store.statements_beside_by_name(names)).unwrap_or_default()
}

/// The statement that finds entries of a blind index in PostgreSQL.
#[cfg(feature = "postgres")]
#[must_use]
pub fn statement_of_postgres_look_up(table: &crate::postgres::PostgresBlindIndex) -> Arc<str> {
    table.statement_of_find()
}

/// The statement that finds entries of a blind index in SQLite.
#[cfg(feature = "sqlite")]
#[must_use]
pub fn statement_of_sqlite_look_up(table: &crate::sqlite::SqliteBlindIndex) -> Arc<str> {
    table.statement_of_find()
}

/// Places with their owners.
pub type OwnedPlaces = Vec<(JsonPointer, KeyScope)>;

/// Declarative changes that schemas would accept, ready to be made in any document.
#[allow(missing_debug_implementations, reason = "holds functions")]
pub struct AcceptedChanges(Vec<Change<Pattern>>);

impl AcceptedChanges {
    /// Leaves out each change that schemas refuse.
    #[must_use]
    pub fn of(changes: Vec<Changes>) -> Self {
        let changes = changes.into_iter().flat_map(|changes| changes.changes);
        let parsed = changes.filter_map(|change| change.try_map(|place| Pattern::parse(&place)).ok());
        Self(parsed.filter(|change| check_change(change).is_none()).collect())
    }

    /// The document with the changes made, and where redactions are then. `None` if a change fails.
    #[must_use]
    pub fn make(&self, document: &str, mut redacted: Vec<JsonPointer>) -> Option<(Vec<u8>, Vec<JsonPointer>)> {
        let mut node = Node::Text(document);
        make(&self.0, &mut node, &mut redacted, &mut BTreeMap::new()).ok()?;
        Some((node.bytes().into_owned(), redacted))
    }

    /// The document with the changes made, and where its sealed values are then. `None` if a change fails.
    #[must_use]
    pub fn carry(
        &self,
        document: &str,
        mut redacted: Vec<JsonPointer>,
        sealed: OwnedPlaces,
    ) -> Option<(Vec<u8>, OwnedPlaces)> {
        let mut node = Node::Text(document);
        let mut sealed = sealed.into_iter().collect();
        make(&self.0, &mut node, &mut redacted, &mut sealed).ok()?;
        Some((node.bytes().into_owned(), sealed.into_iter().collect()))
    }
}

/// The text without those members of its objects that a later one of their name repeats; `None` if there are none.
#[must_use]
pub fn without_repeated(text: &str) -> Option<String> {
    crate::json::raw::without_repeated(text)
}

/// Where the values of pointers stand, as opening finds the places of a header.
#[must_use]
pub fn places_of_a_header(text: &str, pointers: &[&str]) -> Option<Vec<Range<usize>>> {
    Some(locate(text.as_bytes(), pointers)?.into_iter().map(|span| span.start..span.end).collect())
}

/// Where the values of pointers stand, as sealing finds the places of a schema.
#[must_use]
pub fn places_of_a_schema(text: &str, pointers: &[JsonPointer]) -> Option<Vec<Range<usize>>> {
    let mut wanted = Wanted::default();
    for (index, pointer) in pointers.iter().enumerate() {
        let tokens = pointer.tokens().map(Token::Name).collect();
        wanted.add(&Pattern::from_tokens(tokens), Target::Field(index));
    }
    let mut places = vec![None; pointers.len()];
    for hit in scan(text.as_bytes(), &wanted).ok()?.hits {
        if let Target::Field(index) = hit.target {
            places[index] = Some(hit.span.start..hit.span.end);
        }
    }
    places.into_iter().collect()
}
