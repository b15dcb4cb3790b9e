//! Keys in another database than the events: [`SplitStore`], [`SplitKeys`] and [`SplitTx`].
//!
//! Two databases can't commit at the same instant, and a process can die between the two commits. Three rules follow:
//!
//! 1. A new key is committed before the events that need it. A key without an event is harmless, but an event without
//!    its key is lost.
//! 2. No shred may run between the commit of the keys and that of the events. So the locks on the key scopes are taken
//!    again after the keys were committed, the locked rows are checked again, and the locks are held until the outcome
//!    of the events' transaction is known.
//! 3. A lost connection loses its locks. So the locks are checked once more right before the events are committed.

mod keys;

pub use keys::SplitKeys;

use crate::error::{Error, Result};
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, Stream, VersionRange,
};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyStore, ScopeLock, ScopeRecord, ScopeState};
use crate::sql::{after_commit as after_the_events, committing, database};
use crate::store::{BesideKeys, EventStore, SnapshotStore, StoredSnapshot};
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool, Transaction};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::DerefMut;
use std::sync::Arc;

/// A transaction on events in one database, together with locks and changes in the database of the keys.
///
/// - `T` is the events' transaction, such as `sqlx::Transaction<'static, Postgres>`. It is `()` for a
///   [`Sealer`](crate::Sealer) beside a store that is not reached through this crate.
/// - `K` is the kind of database that holds the keys.
///
/// Dropping it rolls both sides back.
///
/// # Connections
/// It needs two connections at a time: one for the events, and one for the keys, which holds locks until the commit. If
/// both come from one pool, the pool must be larger than the number of transactions that run at once. Otherwise every
/// transaction may hold its first connection while none is left, and all wait until the pool's time-out. With twice as
/// many connections as transactions, none of them waits.
///
/// ```
/// # use eventseal::{
/// #     EventStore, EventStoreExt, ExpectedVersion, Keyring, Namespace, NewEvent, Owner, Schemas, SealedStore,
/// #     aggregate, event,
/// # };
/// # use eventseal::split::{SplitKeys, SplitStore, SplitTx};
/// # use eventseal::sqlite::{SqliteKeys, SqliteStore};
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # use sqlx::SqlitePool;
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path().display();
/// # let pool = |name: &str| SqlitePool::connect_lazy(&format!("sqlite://{folder}/{name}.db?mode=rwc"));
/// # let (events, keys) = (pool("events")?, pool("keys")?);
/// SqliteStore::new().migrate(&mut *events.acquire().await?).await?;
/// SqliteKeys::new().migrate(&mut *keys.acquire().await?, &Namespace::new("shop")?).await?;
///
/// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// let (store, key_tables) = (SplitStore::new(SqliteStore::new()), SplitKeys::new(SqliteKeys::new()));
/// let store = SealedStore::new(store, key_tables, Keyring::generate("main")?, schemas);
/// store.keys().prepare(&mut SplitTx::begin(&events, &keys).await?).await?;
///
/// let ada = aggregate("Customer", "42");
/// let mut tx = SplitTx::begin(&events, &keys).await?;
/// let registered = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
/// store.append(&mut tx, &ada, ExpectedVersion::NoStream, &[registered]).await?;
/// tx.commit().await?;
///
/// let mut tx = SplitTx::begin(&events, &keys).await?;
/// assert_eq!(store.read_stream(&mut tx, &ada).await?.events[0].payload, br#"{"name":"Ada"}"#);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
///
/// # Frameworks that own their transaction
///
/// The repository of a framework such as cqrs-es begins and commits inside one call, so nothing can join its
/// transaction. Seal before that call, and release the locks after it. Then the keys that the events need are committed
/// first, and no shred can run in between. The framework may use any database, any driver and any version of sqlx,
/// because events are only bytes here.
///
/// ```
/// # use eventseal::{
/// #     AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, Owner, PersistedEvent, Schemas, Sealer,
/// #     aggregate, event,
/// # };
/// # use eventseal::split::{SplitKeys, SplitTx};
/// # use eventseal::sqlite::SqliteKeys;
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # use sqlx::{Sqlite, SqlitePool};
/// # use std::sync::Mutex;
/// # let folder = tempfile::tempdir()?;
/// # let keys = SqlitePool::connect_lazy(&format!("sqlite://{}/keys.db?mode=rwc", folder.path().display()))?;
/// # SqliteKeys::new().migrate(&mut *keys.acquire().await?, &Namespace::new("shop")?).await?;
/// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// /// Stands for the framework's repository: each call is a transaction of its own.
/// #[derive(Default)]
/// struct Repository {
///     rows: Mutex<Vec<(uuid::Uuid, Vec<u8>)>>,
/// }
///
/// impl Repository {
///     async fn persist(&self, events: &[NewEvent]) {
///         self.rows.lock().unwrap().extend(events.iter().map(|event| (event.event_id, event.payload().to_vec())));
///     }
/// }
///
/// let key_tables = SplitKeys::new(SqliteKeys::new());
/// let sealer: Sealer<SplitTx<(), Sqlite>> = Sealer::new(key_tables, Keyring::generate("main")?, schemas);
/// sealer.keys().prepare(&mut SplitTx::new((), &keys)).await?;
/// let repository = Repository::default();
///
/// // Before the framework persists events:
/// let ada = aggregate("Customer", "42");
/// let events = [NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#)];
/// let mut tx = SplitTx::new((), &keys);
/// let sealed = sealer.seal(&mut tx, &ada, &events).await?;
/// repository.persist(&sealed).await;
/// let ((), locks) = tx.into_parts();
/// locks.commit().await?; // if persisting failed, drop the locks instead: nothing is lost
///
/// // After the framework has loaded events:
/// let (event_id, payload) = repository.rows.lock().unwrap()[0].clone();
/// assert!(!String::from_utf8_lossy(&payload).contains("Ada"));
/// let stored = NewEvent::raw("Registered", 1, payload).with_id(event_id);
/// let stored = PersistedEvent::from_new(ada, AggregateVersion::FIRST, GlobalPosition::START, stored);
/// let opened = sealer.open(&mut SplitTx::new((), &keys), vec![stored]).await?;
/// assert_eq!(opened[0].payload, br#"{"name":"Ada"}"#);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "sqlite"))]
/// # fn main() {}
/// ```
pub struct SplitTx<T, K: Database> {
    events: T,
    keys: KeySide<K>,
}

impl<E: Database, K: Database> SplitTx<Transaction<'static, E>, K> {
    /// Begins a transaction on the events. A connection to the database of the keys is taken when it is needed first.
    ///
    /// # Errors
    /// [`Error::Database`] if the transaction can't be begun.
    pub async fn begin(events: &Pool<E>, keys: &Pool<K>) -> Result<Self> {
        let events = events.begin().await.map_err(database("beginning a transaction on the events"))?;
        Ok(Self::new(events, keys))
    }

    /// [Checks](KeySide::confirm) that the locks on the keys are still held. Then commits the events, then the changes
    /// in the database of the keys, which releases the locks.
    ///
    /// # Errors
    /// - [`Error::Collision`] (retryable) if the locks were lost: nothing is committed.
    /// - [`Error::Database`], [`Error::Collision`] or
    ///   [`TransactionFault::OutcomeUnknown`](crate::error::TransactionFault::OutcomeUnknown) of one of the two
    ///   commits. [`Error::Collision`] is of the events alone, so that the whole transaction can run again. If an
    ///   error names the keys, the events are committed. A shred, reopening, rotation or stop in this
    ///   transaction is not committed, or its outcome is unknown: do it again.
    pub async fn commit(self) -> Result<()> {
        let (events, mut keys) = self.into_parts();
        keys.confirm().await?;
        events.commit().await.map_err(committing("the events"))?;
        keys.commit().await
    }
}

impl<T, K: Database> SplitTx<T, K> {
    /// Wraps a transaction on the events that was begun already.
    pub fn new(events: T, keys: &Pool<K>) -> Self {
        let (shared, updated) = (HashMap::new(), HashSet::new());
        let keys = KeySide { pool: keys.clone(), tables: None, held: None, shared, updated, changed: false };
        Self { events, keys }
    }

    /// The events' transaction, for example to write projections in it.
    pub fn events(&mut self) -> &mut T {
        &mut self.events
    }

    /// Both sides, for callers that commit by themselves: first [`confirm`](KeySide::confirm) the keys, then commit the
    /// events, then commit the keys. Do not drop the keys before: that releases the locks.
    #[must_use]
    pub fn into_parts(self) -> (T, KeySide<K>) {
        (self.events, self.keys)
    }
}

impl<T, K: Database> fmt::Debug for SplitTx<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitTx").field("keys", &self.keys).finish_non_exhaustive()
    }
}

/// The side of a [`SplitTx`] in the database of the keys: the locks that it holds, and changes that are not committed
/// yet. Dropping it releases the locks and rolls the changes back.
pub struct KeySide<K: Database> {
    pool: Pool<K>,
    /// The key store with which the locks were taken.
    tables: Option<Arc<dyn KeyStore<Tx = K::Connection>>>,
    /// The transaction that holds the locks.
    held: Option<Transaction<'static, K>>,
    /// The scopes that appends have locked (shared), each with the key under which they seal.
    shared: HashMap<KeyScope, Option<KeyId>>,
    /// The scopes that are locked for a change.
    updated: HashSet<KeyScope>,
    /// True if there are changes of keys that are not committed yet.
    changed: bool,
}

impl<K: Database> KeySide<K> {
    /// Checks that the keys under which events were sealed are still locked and unchanged. Call it right before the
    /// events are committed: a lost connection has lost its locks, and a shred may have run since.
    ///
    /// A gap remains: the moment between this check and the commit of the events.
    ///
    /// # Errors
    /// [`Error::Collision`] (retryable) if they are not: roll the events back, and run the whole transaction again.
    pub async fn confirm(&mut self) -> Result<()> {
        if self.shared.is_empty() {
            return Ok(());
        }
        let (Some(tables), Some(held)) = (&self.tables, &mut self.held) else {
            return Err(Error::Collision { source: None });
        };
        let scopes: Vec<KeyScope> = self.shared.keys().cloned().collect();
        let records = tables.scopes(held, &scopes, ScopeLock::Share).await.map_err(|error| match error {
            Error::Database { source, .. } => Error::Collision { source: Some(source) },
            error => error,
        })?;
        if self.are_unchanged(&records) { Ok(()) } else { Err(Error::Collision { source: None }) }
    }

    /// Do these records contain all scopes for which events were sealed, with the keys that they had then? A scope that
    /// this transaction has changed itself counts too, because it is locked against all others.
    fn are_unchanged(&self, records: &[ScopeRecord]) -> bool {
        let unchanged = records.iter().filter(|record| {
            let active = record.active.as_ref().map(|key| key.key_id);
            let as_before = record.state == ScopeState::Live
                && self.shared.get(&record.scope).is_some_and(|expected| *expected == active);
            as_before || self.updated.contains(&record.scope)
        });
        unchanged.count() == self.shared.len()
    }

    /// Commits the changes, which releases the locks. Commit the events before.
    ///
    /// # Errors
    /// [`Error::Database`] if the database refuses the commit, and
    /// [`TransactionFault::OutcomeUnknown`](crate::error::TransactionFault::OutcomeUnknown) if the connection is lost
    /// meanwhile. Neither is retryable: the events are committed, and an append that runs again would add them twice.
    pub async fn commit(self) -> Result<()> {
        const OPERATION: &str = "the keys";
        match self.held {
            Some(held) => held.commit().await.map_err(committing(OPERATION)).map_err(after_the_events(OPERATION)),
            None => Ok(()),
        }
    }

    /// The transaction that holds the locks. It is begun if there is none.
    async fn hold(&mut self) -> Result<&mut K::Connection> {
        let held = match self.held.take() {
            Some(held) => held,
            None => self.pool.begin().await.map_err(database("beginning a transaction on the keys"))?,
        };
        Ok(&mut *self.held.insert(held))
    }

    async fn connect(&mut self) -> Result<PoolConnection<K>> {
        self.pool.acquire().await.map_err(database("connecting to the database of the keys"))
    }
}

impl<K: Database> fmt::Debug for KeySide<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySide").field("shared", &self.shared).field("changed", &self.changed).finish_non_exhaustive()
    }
}

/// An event store whose transaction is a [`SplitTx`]: use it with [`SplitKeys`] in a
/// [`SealedStore`](crate::SealedStore). Over a store of snapshots in the database of the events, it is a
/// [`SnapshotStore`].
pub struct SplitStore<S, T, K> {
    inner: S,
    tx: PhantomData<fn(T, K)>,
}

impl<S, T, K> SplitStore<S, T, K> {
    /// Wraps the store that holds the events.
    pub fn new(store: S) -> Self {
        Self { inner: store, tx: PhantomData }
    }
}

impl<S: Clone, T, K> Clone for SplitStore<S, T, K> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S: fmt::Debug, T, K> fmt::Debug for SplitStore<S, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SplitStore").field(&self.inner).finish()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S, T, K> EventStore for SplitStore<S, T, K>
where
    S: EventStore,
    T: DerefMut<Target = S::Tx> + Send + 'static,
    K: Database,
{
    type Tx = SplitTx<T, K>;

    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        self.inner.append(&mut tx.events, aggregate, expected, events).await
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        self.inner.read_aggregate_stream(&mut tx.events, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        self.inner.read_events(&mut tx.events, after, limit, filter).await
    }

    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        self.inner.latest_global_position(&mut tx.events).await
    }

    /// The keys are in another database.
    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = Self::Tx>> {
        None
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S, T, K> SnapshotStore for SplitStore<S, T, K>
where
    S: SnapshotStore,
    T: DerefMut<Target = S::Tx> + Send + 'static,
    K: Database,
{
    type Tx = SplitTx<T, K>;

    async fn save(&self, tx: &mut Self::Tx, snapshot: &StoredSnapshot) -> Result<bool> {
        self.inner.save(&mut tx.events, snapshot).await
    }

    async fn load(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: &str) -> Result<Option<StoredSnapshot>> {
        self.inner.load(&mut tx.events, aggregate, state).await
    }

    async fn delete(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64> {
        self.inner.delete(&mut tx.events, aggregate, state).await
    }
}
