//! [`Sealer`]: seals new events and opens stored ones, and looks up the keys for that.

mod blind_index;
mod for_owner;
mod reading;
mod snapshots;
mod stored;
mod subject;
mod threads;
mod values;

pub(crate) use blind_index::hashes;
pub(crate) use for_owner::OpenedForOwner;
pub(crate) use reading::{Accepts, Coverage, OpenedRow, Reader, upcast};
use reading::{readable, upcast_all, upcast_each};
pub(crate) use snapshots::UsedKeys;
pub(crate) use stored::seal_draft;
use subject::with_subjects;
use threads::Threads;

use crate::crypto::primitives::{DataKey, Salts};
use crate::error::{Error, InputFault, KeyFault, Result};
use crate::event::{AggregateRef, EventRef, NewEvent, PersistedEvent, Unreadable, check_new};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyManager, KeyStore, KeyTable, ReadKeys, SealingKeys};
use crate::kms::Kms;
use crate::schema::Schemas;
use crate::seal::clear::check_sensitive;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, SealingKey, check_unprotected};
use crate::telemetry::{self, Call, Tally};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Seals and opens events for a store that can't be an [`EventStore`](crate::EventStore), such as the repository of
/// another framework. [`SealedStore`](crate::SealedStore) uses it too.
///
/// `Tx` is the type of a connection to the key table. Store the events that [`seal`](Self::seal) returned in the same
/// transaction that was passed to `seal`. Then no event is committed without its keys. Use one `Sealer` for each
/// database, as with `SealedStore`.
///
/// Some frameworks begin and commit by themselves, and so have no transaction to share. Use `Sealer<SplitTx<(), K>>`
/// for those, as [`SplitTx`](crate::split::SplitTx) shows.
///
/// ```
/// # use eventseal::{
/// #     AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, Owner, PersistedEvent, Result, Schemas,
/// #     Sealer, aggregate, event,
/// # };
/// # use eventseal::memory::{MemoryDb, MemoryKeys};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("demo")?, schemas);
/// let db = MemoryDb::new(Namespace::new("demo")?);
/// sealer.keys().prepare(&mut db.begin()).await?;
///
/// let customer = aggregate("Customer", "42");
/// let new = [NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#)];
/// let mut tx = db.begin();
/// let sealed = sealer.seal(&mut tx, &customer, &new).await?;
/// assert!(!String::from_utf8_lossy(sealed[0].payload()).contains("Ada"));
/// // … store them, read them again …
/// let version = AggregateVersion::FIRST;
/// let stored = PersistedEvent::from_new(customer, version, GlobalPosition::START, sealed[0].clone());
/// let opened = sealer.open(&mut tx, vec![stored]).await?;
/// assert_eq!(opened[0].payload, new[0].payload());
/// # Ok(())
/// # }
/// ```
pub struct Sealer<Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    keys: KeyManager<Tx, K>,
    schemas: Arc<Schemas>,
    threads: Threads,
}

impl<Tx: Send + 'static> Sealer<Tx> {
    /// Makes a sealer of a key table, a KMS and the registry of schemas, with the default settings for the keys. Reads
    /// and writes nothing.
    #[must_use]
    pub fn new(keys: impl KeyTable<Tx = Tx> + 'static, kms: impl Kms + 'static, schemas: Schemas) -> Self {
        Self::with_keys(KeyManager::new(keys, kms), schemas)
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// Makes a sealer with settings for the keys that you choose: see [`KeyManager::builder`]. Reads and writes
    /// nothing.
    #[must_use]
    pub fn with_keys(keys: KeyManager<Tx, K>, schemas: Schemas) -> Self {
        Self { keys, schemas: Arc::new(schemas), threads: Threads::new(None) }
    }

    /// The most threads on which a page of stored events is opened and upcast. By default, as many as there are cores
    /// for this process, and at most eight. With 1, a page is opened on the thread that reads it.
    ///
    /// Only a large page is opened on more than one thread, from about 128 events of 1 KiB on, or 16 of 16 KiB. Its
    /// keys are looked up as for a small page, in one query. Then the task that reads the page opens a part of it after
    /// the other, and yields to its runtime in between. Up to `threads - 1` helpers do the same, on the threads that
    /// Tokio keeps for blocking work. All pages that are read at the same time share these helpers. If all threads for
    /// blocking work are busy, or if there is no Tokio runtime, the page is opened without helpers.
    ///
    /// The result does not depend on this. Upcasters and other functions of yours may run at the same time for events
    /// of one page, in any order, and also for events after one that can't be read. What they log belongs to the span
    /// of the reader.
    #[must_use]
    pub fn open_on_threads(self, threads: usize) -> Self {
        Self { threads: Threads::new(Some(threads)), ..self }
    }

    /// The keys: to prepare them at startup, to shred, rotate and disable them.
    #[must_use]
    pub fn keys(&self) -> &KeyManager<Tx, K> {
        &self.keys
    }

    /// The registry of schemas.
    #[must_use]
    pub fn schemas(&self) -> &Schemas {
        &self.schemas
    }

    /// Seals the protected fields of events of one aggregate. Creates the data keys that are missing, and locks all the
    /// keys that it uses against a shred until the transaction ends.
    ///
    /// The ids of the subjects that the events [are for](NewEvent::for_subject) are in the metadata of the result.
    /// Borrows the events if nothing in them is protected, and they are for no subject. Every call draws new salts. So
    /// never store the same sealed event twice: call `seal` again for a retry.
    ///
    /// # Locks and the KMS
    /// If the KMS must be asked, it is asked before this call locks anything. Locks that the transaction held before
    /// stay held while the KMS answers.
    ///
    /// Another process may rotate a key between the question to the KMS and the lock. On SQLite this also counts from
    /// the last look at the keys. Then the call fails with [`Error::Collision`](crate::Error::Collision), and the next
    /// attempt opens the new key first.
    ///
    /// # Errors
    /// For what the caller passed, before anything is written: those of [`check_append`](crate::store::check_append);
    /// [`Error::Event`] for an event that can't be sealed, or is of a type or version that the schemas do not let be
    /// appended ([`EventFault`] lists the reasons); [`InputFault::SimilarKind`].
    ///
    /// For the keys: [`Error::Shredded`], [`Error::Disabled`], [`KeyFault::NoActiveKek`], [`KeyFault::WrongKey`],
    /// [`StorageFault::InvalidRow`] if the active key is not the scope's own; errors of the KMS.
    ///
    /// For the database: [`SetUpFault::NotMigrated`], [`TransactionFault::NotInTransaction`], [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    ///
    /// [`EventFault`]: crate::error::EventFault
    /// [`SetUpFault::NotMigrated`]: crate::error::SetUpFault::NotMigrated
    /// [`StorageFault::InvalidRow`]: crate::error::StorageFault::InvalidRow
    /// [`TransactionFault::NotInTransaction`]: crate::error::TransactionFault::NotInTransaction
    pub async fn seal<'e>(
        &self,
        tx: &mut Tx,
        aggregate: &AggregateRef,
        events: &'e [NewEvent],
    ) -> Result<Cow<'e, [NewEvent]>> {
        let call = telemetry::seal(self.keys.known_namespace(), aggregate, events.len());
        call.run(|| self.seal_events(tx, aggregate, events, &call)).await
    }

    async fn seal_events<'e>(
        &self,
        tx: &mut Tx,
        aggregate: &AggregateRef,
        events: &'e [NewEvent],
        call: &Call,
    ) -> Result<Cow<'e, [NewEvent]>> {
        let named = self.with_subjects(aggregate, events)?;
        let Some(drafted) = self.draft(aggregate, &named)? else {
            call.sealed(0, events.len());
            return Ok(named);
        };
        let keys = self.keys.sealing_keys(tx, &drafted.scopes).await?;
        let sealed = drafted.seal(&keys)?;
        call.sealed(drafted.sealed_events(), events.len());
        drop(drafted);
        Ok(Cow::Owned(sealed))
    }

    /// The events, checked, with the subjects that their caller names in their metadata.
    pub(crate) fn with_subjects<'e>(
        &self,
        aggregate: &AggregateRef,
        events: &'e [NewEvent],
    ) -> Result<Cow<'e, [NewEvent]>> {
        check_new(aggregate, events)?;
        if events.iter().all(|event| event.subjects().is_empty()) {
            return Ok(Cow::Borrowed(events));
        }
        let named = |event| Ok(with_subjects(self.schemas.for_append(event)?, event)?.into_owned());
        events.iter().map(named).collect::<Result<Vec<_>>>().map(Cow::Owned)
    }

    /// What must be sealed of these events; `None` if nothing in them is protected.
    pub(crate) fn draft<'e>(
        &'e self,
        aggregate: &'e AggregateRef,
        events: &'e [NewEvent],
    ) -> Result<Option<Drafted<'e>>> {
        let drafts = events.iter().map(|event| Drafts::new(&self.schemas, aggregate, event));
        let drafts: Vec<Drafts<'_>> = drafts.collect::<Result<_>>()?;
        let scopes: HashSet<&KeyScope> = drafts.iter().flat_map(Drafts::iter).flat_map(|draft| &draft.scopes).collect();
        // The schemas do not know aggregate types. So the kind of an aggregate's own scope can only be checked here.
        let own = aggregate.aggregate_type();
        if scopes.iter().any(|scope| scope.kind() == own)
            && let Some(declared) = self.schemas.similar_kind(own)
        {
            return Err(Error::Input(InputFault::SimilarKind {
                aggregate_type: own.to_owned(),
                declared: declared.to_owned(),
            }));
        }
        let scopes: Vec<KeyScope> = scopes.into_iter().cloned().collect();
        let is_empty = drafts.iter().all(|drafts| drafts.iter().next().is_none());
        Ok(if is_empty { None } else { Some(Drafted { events, drafts, scopes }) })
    }

    /// Opens stored events at their stored type and version, then upcasts them to the current ones. One stored event
    /// may become several, or none.
    ///
    /// The events may belong to several aggregates. Pass their payloads as they are stored. The call makes one query of
    /// the key table, or none if no event is sealed.
    ///
    /// # Errors
    /// [`Error::Event`] for an event that can't be read: [`EventFault`] lists the reasons, such as
    /// [`Tampered`](crate::error::EventFault::Tampered), [`MissingKey`](crate::error::EventFault::MissingKey) and
    /// [`NewerVersion`](crate::error::EventFault::NewerVersion). Those that append refuses are among them
    /// ([`ShapeMismatch`](crate::error::EventFault::ShapeMismatch)) if what is stored is not what the schema protects.
    ///
    /// [`Error::Disabled`], [`KeyFault::WrongKey`], [`KeyFault::MissingKek`] and [`StorageFault::InvalidRow`] for the
    /// keys of an event; errors of the KMS and of the database.
    ///
    /// A shredded key is not an error: its fields are redacted. The first event that can't be read fails the call: see
    /// [`open_each`](Self::open_each).
    ///
    /// [`EventFault`]: crate::error::EventFault
    /// [`StorageFault::InvalidRow`]: crate::error::StorageFault::InvalidRow
    pub async fn open(&self, tx: &mut Tx, events: Vec<PersistedEvent>) -> Result<Vec<PersistedEvent>> {
        let call = telemetry::open(self.keys.known_namespace());
        Ok(call.run(|| self.open_stream(tx, events, None, &call)).await?.0)
    }

    /// As [`open`](Self::open), with the rows of keys that were read with the events. Returns also the keys that the
    /// events are sealed under.
    pub(crate) async fn open_stream(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        read: Option<&ReadKeys>,
        call: &Call,
    ) -> Result<(Vec<PersistedEvent>, HashSet<KeyId>)> {
        let reader = Reader::User(read);
        let (opened, keys) = self.open_page(tx, events, Accepts::AsDeclared, reader, Some(call), upcast_all).await?;
        Ok((opened.map_err(|unread| unread.into_error())?, keys))
    }

    /// As [`open`](Self::open), but an event that can't be read does not fail the others. Returns one result for each
    /// stored event, in their order.
    ///
    /// # Errors
    /// Those that are not about one event: errors of the KMS and of the database, and
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated).
    pub async fn open_each(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
    ) -> Result<Vec<Result<Vec<PersistedEvent>, Box<Unreadable>>>> {
        let call = telemetry::open(self.keys.known_namespace());
        call.run(|| self.open_all_of(tx, events, &call)).await
    }

    /// As [`open_each`](Self::open_each), as a part of a call.
    pub(crate) async fn open_all_of(
        &self,
        tx: &mut Tx,
        events: Vec<PersistedEvent>,
        call: &Call,
    ) -> Result<Vec<Result<Vec<PersistedEvent>, Box<Unreadable>>>> {
        let reader = Reader::User(None);
        Ok(self.open_page(tx, events, Accepts::AsDeclared, reader, Some(call), upcast_each).await?.0)
    }

    /// Opens stored events and leaves them at their stored type and version: the result is what was appended, not what
    /// readers get. For audits, exports and tests of steps.
    ///
    /// # Errors
    /// As [`open`](Self::open), except for the errors of steps.
    pub async fn open_as_stored(&self, tx: &mut Tx, events: Vec<PersistedEvent>) -> Result<Vec<PersistedEvent>> {
        let leave = |schemas: &Schemas, events: Vec<PersistedEvent>, rows: Vec<Result<OpenedRow<'_>>>, _: &Tally| {
            let opened = events.into_iter().zip(rows);
            opened
                .map(|(event, row)| Ok(readable(event, row?, schemas.normalizers()).event))
                .collect::<Result<Vec<_>>>()
        };
        let call = telemetry::open(self.keys.known_namespace());
        call.run(|| async {
            self.open_page(tx, events, Accepts::AsDeclared, Reader::User(None), Some(&call), leave).await?.0
        })
        .await
    }

    /// The key scopes under whose keys an event of this aggregate would be sealed, each once. They tell whose data is
    /// in the event. Empty if nothing in it is protected.
    ///
    /// # Errors
    /// Those of [`seal`](Self::seal) that concern the schemas and the payload.
    pub fn scopes_of(&self, aggregate: &AggregateRef, event: &NewEvent) -> Result<Vec<KeyScope>> {
        let event = with_subjects(self.schemas.for_append(event)?, event)?;
        let drafts = Drafts::new(&self.schemas, aggregate, &event)?;
        let mut scopes = Vec::new();
        for scope in drafts.iter().flat_map(|draft| &draft.scopes) {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        Ok(scopes)
    }
}

/// Events that are to be appended, with what must be sealed of them.
pub(crate) struct Drafted<'e> {
    events: &'e [NewEvent],
    drafts: Vec<Drafts<'e>>,
    /// The scopes under whose keys they are to be sealed, each once.
    pub(crate) scopes: Vec<KeyScope>,
}

impl Drafted<'_> {
    /// Of how many events something is sealed.
    pub(crate) fn sealed_events(&self) -> usize {
        self.drafts.iter().filter(|drafts| drafts.iter().next().is_some()).count()
    }

    /// Seals the events. The keys are those of the scopes, in their order.
    pub(crate) fn seal(&self, keys: &SealingKeys) -> Result<Vec<NewEvent>> {
        let by_scope: HashMap<&KeyScope, &(KeyId, Arc<DataKey>)> = self.scopes.iter().zip(&keys.keys).collect();
        let integrity = SealingKey { id: keys.integrity.0, key: &keys.integrity.1 };
        let mut salts = Salts::draw(self.drafts.iter().flat_map(Drafts::iter).count())?;
        let mut seal = |draft: &Draft<'_>, sealed_under: &mut Vec<KeyId>| {
            let draft_keys = draft.scopes.iter().map(|scope| key_of(&by_scope, scope)).collect::<Result<Vec<_>>>()?;
            let new = draft_keys.iter().map(|key| key.id).filter(|id| !sealed_under.contains(id)).collect::<Vec<_>>();
            sealed_under.extend(new);
            draft.seal(&keys.namespace, &draft_keys, &integrity, &salts.next()?)
        };
        let mut sealed = Vec::with_capacity(self.events.len());
        for (event, drafts) in self.events.iter().zip(&self.drafts) {
            let mut under = Vec::new();
            let payload = drafts.payload.as_ref().map(|draft| seal(draft, &mut under)).transpose()?;
            let metadata = drafts.metadata.as_ref().map(|draft| seal(draft, &mut under)).transpose()?;
            sealed.push(event.sealed(payload, metadata, under));
        }
        Ok(sealed)
    }
}

/// What must be sealed of an event that is to be appended.
struct Drafts<'e> {
    payload: Option<Draft<'e>>,
    metadata: Option<Draft<'e>>,
}

impl<'e> Drafts<'e> {
    fn new(schemas: &'e Schemas, aggregate: &'e AggregateRef, event: &'e NewEvent) -> Result<Self> {
        let schema = schemas.for_append(event)?;
        check_sensitive(&schema.plan, event)?;
        let draft = |plan: &'e Plan, document: EventRef<'e>| match plan.protects() {
            true => Draft::new(plan, document),
            false => check_unprotected(document).map(|()| None),
        };
        let payload = draft(&schema.plan, event.to_store(aggregate))?;
        let metadata = event.metadata_to_store(aggregate).map(|stored| draft(&schema.metadata_plan, stored));
        Ok(Self { payload, metadata: metadata.transpose().map_err(Error::in_metadata)?.flatten() })
    }

    fn iter(&self) -> impl Iterator<Item = &Draft<'e>> {
        self.payload.iter().chain(&self.metadata)
    }
}

/// The key of a scope. A scope without a key is an error. If it were left out instead, the following keys would move
/// up, and values would be sealed under the keys of other scopes.
fn key_of<'k>(by_scope: &HashMap<&KeyScope, &'k (KeyId, Arc<DataKey>)>, scope: &KeyScope) -> Result<SealingKey<'k>> {
    match by_scope.get(scope) {
        Some((id, key)) => Ok(SealingKey { id: *id, key }),
        None => Err(Error::Keys(KeyFault::ScopeState {
            scope: scope.clone(),
            problem: "has no key, though one was asked for: this is a bug, please report it",
        })),
    }
}

impl<Tx, K: ?Sized> fmt::Debug for Sealer<Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("keys", &self.keys).field("schemas", &self.schemas).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn i3_a_scope_without_a_key_is_an_error_and_moves_no_other() {
        let scopes = ["1", "2", "3"].map(|id| KeyScope::new("Customer", id));
        let keys: Vec<_> = (1..=3_u8)
            .map(|key| (KeyId(Uuid::from_u128(key.into())), Arc::new(DataKey::new(&[key; 32]).unwrap())))
            .collect();
        let mut by_scope: HashMap<&KeyScope, &(KeyId, Arc<DataKey>)> = scopes.iter().zip(&keys).collect();
        assert!(key_of(&by_scope, &scopes[1]).is_ok_and(|key| key.id == keys[1].0));
        by_scope.remove(&scopes[0]);
        let found = scopes.iter().map(|scope| key_of(&by_scope, scope)).collect::<Result<Vec<_>>>();
        assert!(matches!(found, Err(Error::Keys(KeyFault::ScopeState { scope, .. })) if scope == scopes[0]));
    }
}
