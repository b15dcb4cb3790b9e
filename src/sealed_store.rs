//! [`SealedStore`], the decorator around an event store: the type that most users work with.

mod stream_keys;

use crate::blind_index::{BlindHash, BlindIndex, BlindLookup, Lookup};
use crate::error::{Error, Result, StorageFault};
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, OpenedPage,
    PersistedEvent, Stream, VersionRange,
};
use crate::keys::names::KeyScope;
use crate::keys::{ExpectedKeys, KeyManager, KeyStore, KeyTable, KeyTableNames, ReadKeys};
use crate::kms::Kms;
use crate::schema::Schemas;
use crate::sealer::{Drafted, Sealer};
use crate::sensitive::Sensitive;
use crate::store::{BesideKeys, EventStore};
use crate::telemetry::{self, AppendPath, Call};
use crate::values::{NewValue, SealedValue, StoredValue, ValueContext};
use async_trait::async_trait;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use stream_keys::StreamKeys;

/// A decorator around an event store that encrypts sensitive fields and upcasts events.
///
/// It is an [`EventStore`] itself, so the rest of a service keeps talking to an `EventStore`. On append it seals the
/// protected fields under the keys of their owners. On read it opens them, puts stand-ins where keys were shredded, and
/// upcasts old versions to the current ones.
///
/// Keys and events are written in the same transaction, which the caller passes. So keys on another type of database do
/// not compile.
///
/// Use one `SealedStore` for each database: its caches belong to the first database on which it is used. A service with
/// many databases, such as one for each tenant, has as many of them. They may share the inner store and the [`Kms`]
/// through an `Arc`.
///
/// See the [crate documentation](crate) for a whole example.
pub struct SealedStore<S: EventStore, K: ?Sized = dyn KeyTable<Tx = <S as EventStore>::Tx>> {
    inner: S,
    sealer: Sealer<S::Tx, K>,
    stream_keys: StreamKeys,
}

impl<S: EventStore> SealedStore<S> {
    /// Wraps a store, with the default settings for the keys. Reads and writes nothing.
    ///
    /// Before the first append, run the migrations and call [`keys().prepare(…)`](KeyManager::prepare) once at startup.
    #[must_use]
    pub fn new(store: S, keys: impl KeyTable<Tx = S::Tx> + 'static, kms: impl Kms + 'static, schemas: Schemas) -> Self {
        Self::with_keys(store, KeyManager::new(keys, kms), schemas)
    }
}

impl<S: EventStore, K: KeyStore<Tx = S::Tx> + ?Sized> SealedStore<S, K> {
    /// Wraps a store, with settings for the keys that you choose: see [`KeyManager::builder`]. Reads and writes
    /// nothing.
    ///
    /// Configure the inner store before you wrap it. The [`Schemas`] say what is protected, and which events may pass.
    /// The only other setting is [`open_on_threads`](Self::open_on_threads).
    #[must_use]
    pub fn with_keys(store: S, keys: KeyManager<S::Tx, K>, schemas: Schemas) -> Self {
        Self { inner: store, sealer: Sealer::with_keys(keys, schemas), stream_keys: StreamKeys::new() }
    }

    /// The most threads on which a large page of stored events is opened: see [`Sealer::open_on_threads`]. By default,
    /// as many as there are cores, and at most eight. With 1, a page is opened on the thread that reads it.
    ///
    /// ```
    /// # use eventseal::{Keyring, SealedStore, Schemas};
    /// # use eventseal::memory::{MemoryKeys, MemoryStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (keyring, schemas) = (Keyring::generate("main")?, Schemas::new([])?);
    /// let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), keyring, schemas).open_on_threads(2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn open_on_threads(self, threads: usize) -> Self {
        Self { sealer: self.sealer.open_on_threads(threads), ..self }
    }

    /// The keys: to prepare them at startup, to shred, rotate and disable them.
    #[must_use]
    pub fn keys(&self) -> &KeyManager<S::Tx, K> {
        self.sealer.keys()
    }

    /// The registry of schemas.
    #[must_use]
    pub fn schemas(&self) -> &Schemas {
        self.sealer.schemas()
    }

    /// As [`read_events`](EventStore::read_events), but an event that can't be read does not fail the page. It becomes
    /// an error beside its position, and the other events of the page are there.
    ///
    /// `read_events` fails every page that has one event of a disabled scope, or one event that somebody tampered with.
    /// So a follower of the log can't get past it. With this method the follower decides: to stop, to skip, or to note
    /// what is missing. Never show an unreadable event as redacted, because it may become readable again.
    ///
    /// ```
    /// # use eventseal::{Error, EventFilter, GlobalPosition, Result, SealedStore};
    /// # use eventseal::memory::{MemoryStore, MemoryTx};
    /// # async fn follow(
    /// #     store: &SealedStore<MemoryStore>, tx: &mut MemoryTx, mut after: GlobalPosition,
    /// # ) -> Result<()> {
    /// let page = store.read_events_each(tx, after, 100, &EventFilter::default()).await?;
    /// for result in page.events {
    ///     match result {
    ///         Ok(events) => for event in events { /* handle it */ },
    ///         Err(unreadable) if matches!(unreadable.error, Error::Disabled { .. }) => {
    ///             eprintln!("skipped: {unreadable}");
    ///         }
    ///         Err(unreadable) => return Err(unreadable.error),
    ///     }
    /// }
    /// after = page.next;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those that are not about one event: errors of the wrapped store, of the KMS and of the key table.
    pub async fn read_events_each(
        &self,
        tx: &mut S::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<OpenedPage> {
        let call = telemetry::read_page(self.keys().known_namespace(), limit);
        call.run(|| self.read_page_each(tx, after, limit, filter, &call)).await
    }

    async fn read_page_each(
        &self,
        tx: &mut S::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
        call: &Call,
    ) -> Result<OpenedPage> {
        let EventPage { events, scanned, next } =
            self.inner.read_events(tx, after, limit, &self.stored(filter)).await?;
        let mut events = self.sealer.open_all_of(tx, events, call).await?;
        for parts in events.iter_mut().flatten() {
            keep_wanted(parts, filter);
        }
        Ok(OpenedPage { events, scanned, next })
    }

    /// Seals a value outside of events, such as a column of a read model: see [`values`](crate::values). Write it in
    /// the same transaction, so that it is not committed without its key.
    ///
    /// # Errors
    /// Those of [`Sealer::seal_values`].
    pub async fn seal_value(
        &self,
        tx: &mut S::Tx,
        scope: &KeyScope,
        context: impl Into<ValueContext>,
        value: impl AsRef<[u8]>,
    ) -> Result<SealedValue> {
        self.sealer.seal_value(tx, scope, context, value).await
    }

    /// Seals several values outside of events: see [`Sealer::seal_values`].
    ///
    /// # Errors
    /// Those of [`Sealer::seal_values`].
    pub async fn seal_values(&self, tx: &mut S::Tx, values: &[NewValue<'_>]) -> Result<Vec<SealedValue>> {
        self.sealer.seal_values(tx, values).await
    }

    /// Opens a value that was sealed for this scope and this context. It is [`Redacted`](Sensitive::Redacted) if its
    /// key was shredded. To open many, use [`open_values`](Self::open_values).
    ///
    /// # Errors
    /// Those of [`Sealer::open_values`], the errors of a single value included.
    pub async fn open_value(
        &self,
        tx: &mut S::Tx,
        scope: &KeyScope,
        context: impl Into<ValueContext>,
        value: &SealedValue,
    ) -> Result<Sensitive<Vec<u8>>> {
        self.sealer.open_value(tx, scope, context, value).await
    }

    /// Opens the values of a page of rows, with one query of the key table. Returns one result for each value: see
    /// [`Sealer::open_values`].
    ///
    /// # Errors
    /// Those of [`Sealer::open_values`].
    pub async fn open_values(
        &self,
        tx: &mut S::Tx,
        values: &[StoredValue<'_>],
    ) -> Result<Vec<Result<Sensitive<Vec<u8>>>>> {
        self.sealer.open_values(tx, values).await
    }

    /// The entries of a blind index: add, find and remove them through this. See [`blind_index`](crate::blind_index).
    #[must_use]
    pub fn lookup<'s>(&'s self, lookup: &'s BlindLookup<S::Tx>) -> Lookup<'s, S::Tx, K> {
        self.sealer.lookup(lookup)
    }

    /// The hashes of a value, to look for it in a table of your own: see [`Sealer::blind_hashes`].
    ///
    /// # Errors
    /// Those of [`Sealer::blind_hashes`].
    pub async fn blind_hashes(&self, tx: &mut S::Tx, index: &BlindIndex, value: &str) -> Result<Vec<BlindHash>> {
        self.sealer.blind_hashes(tx, index, value).await
    }

    /// The hashes of a value, to store it for this owner in a table of your own: see
    /// [`Sealer::blind_hashes_to_store`].
    ///
    /// # Errors
    /// Those of [`Sealer::blind_hashes_to_store`].
    pub async fn blind_hashes_to_store(
        &self,
        tx: &mut S::Tx,
        scope: &KeyScope,
        index: &BlindIndex,
        value: &str,
    ) -> Result<Vec<BlindHash>> {
        self.sealer.blind_hashes_to_store(tx, scope, index, value).await
    }

    /// The filter for the wrapped store, which knows events by their stored types only.
    fn stored<'f>(&self, filter: &'f EventFilter) -> Cow<'f, EventFilter> {
        if filter.event_types.is_empty() {
            return Cow::Borrowed(filter);
        }
        let event_types = self.sealer.schemas().stored_types(&filter.event_types);
        Cow::Owned(EventFilter { event_types, ..filter.clone() })
    }

    /// The wrapped store and the names of the key tables, if the store can use these in its own statements.
    fn beside(&self) -> Option<(&dyn BesideKeys<Tx = S::Tx>, &KeyTableNames)> {
        self.inner.beside_keys().zip(self.keys().store.table_names())
    }

    /// Seals events, and appends them. It takes one statement if the store can do that and the keys are cached: the
    /// statement compares them with their rows, and writes nothing if one of them is not the active key any more.
    async fn append_drafted(
        &self,
        tx: &mut S::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        drafted: &Drafted<'_>,
    ) -> Result<(Appended, AppendPath)> {
        let keys = self.keys();
        let expected_keys = match self.beside() {
            Some(beside) => keys.expected_keys(tx, &drafted.scopes).await?.map(|expected| (beside, expected)),
            None => None,
        };
        let (keys, path) = match expected_keys {
            Some(((store, names), ExpectedKeys { keys: sealing, rows })) => {
                let sealed = drafted.seal(&sealing)?;
                if let Some(appended) = store.append_under(tx, names, &rows, aggregate, expected, &sealed).await? {
                    return Ok((appended, AppendPath::OneStatement));
                }
                (keys.unexpected_keys(tx, &drafted.scopes).await?, AppendPath::FellBack)
            }
            None => (keys.sealing_keys(tx, &drafted.scopes).await?, AppendPath::TwoSteps),
        };
        let appended = self.inner.append(tx, aggregate, expected, &drafted.seal(&keys)?).await?;
        Ok((appended, path))
    }

    async fn append_sealed(
        &self,
        tx: &mut S::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
        call: &Call,
    ) -> Result<Appended> {
        let named = self.sealer.with_subjects(aggregate, events)?;
        let drafted = self.sealer.draft(aggregate, &named)?;
        let (mut appended, path) = match &drafted {
            None => (self.inner.append(tx, aggregate, expected, &named).await?, AppendPath::Plain),
            Some(drafted) => self.append_drafted(tx, aggregate, expected, drafted).await?,
        };
        telemetry::appended(path);
        call.sealed(drafted.as_ref().map_or(0, Drafted::sealed_events), events.len());
        // The payloads are put back by position, so the order must be the caller's.
        let ids_of_appended = appended.events.iter().map(|event| event.event_id);
        if !ids_of_appended.eq(events.iter().map(|event| event.event_id)) {
            return Err(Error::Storage(StorageFault::Contract {
                problem: "append did not return the events that it was given, in their order",
            }));
        }
        for (appended, event) in appended.events.iter_mut().zip(named.iter()) {
            appended.payload = event.payload().to_vec();
            if appended.metadata != event.metadata {
                appended.metadata.clone_from(&event.metadata);
            }
        }
        Ok(appended)
    }

    async fn read_stream(
        &self,
        tx: &mut S::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
        call: &Call,
    ) -> Result<Stream> {
        let expected = self.stream_keys.expected(aggregate);
        let (stream, read) = match (self.beside(), &expected) {
            (Some((store, names)), Some(asked)) if !self.keys().are_seen(asked) => {
                self.keys().check_log_to_read(tx).await?;
                let seen = self.keys().sees_committed(tx);
                let (stream, rows) = store.read_stream_and_keys(tx, names, asked, aggregate, range).await?;
                (stream, Some(ReadKeys { asked: Arc::clone(asked), rows, seen }))
            }
            _ => (self.inner.read_aggregate_stream(tx, aggregate, range).await?, None),
        };
        let (events, needed) = self.sealer.open_stream(tx, stream.events, read.as_ref(), call).await?;
        // A range without events says nothing about the keys of its stream.
        if self.beside().is_some() && stream.last_version.is_some() {
            self.stream_keys.note(aggregate, expected.as_deref(), &needed);
        }
        Ok(Stream { events, ..stream })
    }

    async fn read_page(
        &self,
        tx: &mut S::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
        call: &Call,
    ) -> Result<EventPage> {
        let page = self.inner.read_events(tx, after, limit, &self.stored(filter)).await?;
        let (mut events, _) = self.sealer.open_stream(tx, page.events, None, call).await?;
        keep_wanted(&mut events, filter);
        Ok(EventPage { events, ..page })
    }

    /// The sealer, for maintenance of the store as a whole.
    pub(crate) fn sealer(&self) -> &Sealer<S::Tx, K> {
        &self.sealer
    }

    /// The wrapped store, which holds and returns sealed payloads.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: EventStore, K: KeyStore<Tx = S::Tx> + ?Sized> EventStore for SealedStore<S, K> {
    type Tx = S::Tx;

    /// Seals the events, and appends them to the wrapped store. The result holds the payloads and the protected
    /// metadata as the caller passed them.
    ///
    /// [`StorageFault::Contract`] means that the wrapped store has broken its contract after it wrote the events: roll
    /// back.
    ///
    /// If the future is dropped before it is done, roll back, as [`EventStore::append`] says. The transaction may then
    /// hold new keys without their events, which does no harm.
    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        let call = telemetry::append(self.keys().known_namespace(), aggregate, events.len());
        call.run(|| self.append_sealed(tx, aggregate, expected, events, &call)).await
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let call = telemetry::read_stream(self.keys().known_namespace(), aggregate);
        call.run(|| self.read_stream(tx, aggregate, range, &call)).await
    }

    /// Reads a page of the wrapped store's log, opened and upcast. `filter` names event types as readers see them. So
    /// an event that is stored under another type is found if it becomes one of these types. Parts of a split that have
    /// other types are left out. `scanned` counts all events that were looked at.
    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let call = telemetry::read_page(self.keys().known_namespace(), limit);
        call.run(|| self.read_page(tx, after, limit, filter, &call)).await
    }

    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        self.inner.latest_global_position(tx).await
    }

    /// This is the layer that uses it, and no second one may be around it.
    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = Self::Tx>> {
        None
    }
}

fn keep_wanted(events: &mut Vec<PersistedEvent>, filter: &EventFilter) {
    if !filter.event_types.is_empty() {
        events.retain(|event| filter.event_types.iter().any(|wanted| event.event_type == **wanted));
    }
}

impl<S: EventStore, K: ?Sized> fmt::Debug for SealedStore<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStore").field("sealer", &self.sealer).finish_non_exhaustive()
    }
}
