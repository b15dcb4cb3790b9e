//! Keys in another database than the events.
//!
//! Two databases commit one after the other, and a process can die in between. A key without an event is harmless, an
//! event without its key is lost; so a key that an append makes is committed before the events are. A shred must still
//! not slip in between; so the locks on the scopes are taken again at once, what they protect is looked at again, and
//! they are held until the caller says how the events' transaction ended. A connection can be lost meanwhile, and the
//! locks with it; so they are looked at right before the events are committed.

use crate::error::{Error, Result};
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, Stream, VersionRange,
};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, KekRecord, KekUsage, KeyHistory, KeyStore, NewDataKey, Retirement, RewrapBatch, RewrappedBatch,
    Rewrapper, ScopeChange, ScopeLock, ScopeRecord, ScopeState,
};
use crate::kms::WrappedKek;
use crate::sql::{committing, database};
use crate::store::EventStore;
use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool, Transaction};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::ops::DerefMut;
use std::sync::Arc;
use time::OffsetDateTime;

/// A transaction on events in one database, and what goes with it in the database of the keys.
///
/// `T` is the events' transaction, such as `sqlx::Transaction<'static, Postgres>`, or `()` for a
/// [`Sealer`](crate::Sealer) beside a store that is not reached through this crate; `K` is the kind of database of the
/// keys. Dropping it rolls both back.
///
/// It needs two connections at a time: that of the events, and one of the keys, which holds locks until the commit.
/// Where both are taken from one pool, the pool must be larger than the number of transactions that run at once: when
/// each holds its first connection, and none is left, all of them wait until the pool's time-out ends it. Twice as
/// many, and nobody waits.
///
/// ```
/// # use eventseal::{EventStore, EventStoreExt, ExpectedVersion, Keyring, Namespace, NewEvent, Owner, Schemas, SealedStore, aggregate, event};
/// # use eventseal::split::{SplitKeys, SplitStore, SplitTx};
/// # use eventseal::sqlite::{SqliteKeys, SqliteStore};
/// # #[cfg(feature = "sqlite")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # use sqlx::SqlitePool;
/// # let folder = tempfile::tempdir()?;
/// # let pool = |name: &str| SqlitePool::connect_lazy(&format!("sqlite://{}/{name}.db?mode=rwc", folder.path().display()));
/// # let (events, keys) = (pool("events")?, pool("keys")?);
/// SqliteStore::new().migrate(&mut *events.acquire().await?).await?;
/// SqliteKeys::new().migrate(&mut *keys.acquire().await?, &Namespace::new("shop")?).await?;
///
/// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// let store = SealedStore::new(SplitStore::new(SqliteStore::new()), SplitKeys::new(SqliteKeys::new()), Keyring::generate("main")?, schemas);
/// store.keys().prepare(&mut SplitTx::begin(&events, &keys).await?).await?;
///
/// let ada = aggregate("Customer", "42");
/// let mut tx = SplitTx::begin(&events, &keys).await?;
/// store.append(&mut tx, &ada, ExpectedVersion::NoStream, &[NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#)]).await?;
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
/// The repositories of cqrs-es and others like it begin and commit inside a call, so nothing can join their
/// transaction. Seal before that call, and let go of the locks after it. The keys that it needs are committed then, and
/// no shred slips in between. The framework's database, its driver and the version of sqlx it is built on do not
/// matter: events are bytes here.
///
/// ```
/// # use eventseal::{AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, Owner, PersistedEvent, Schemas, Sealer, aggregate, event};
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
/// /// What the framework has: each call is a transaction of its own.
/// #[derive(Default)]
/// struct Repository {
///     rows: Mutex<Vec<(uuid::Uuid, Vec<u8>)>>,
/// }
///
/// impl Repository {
///     async fn persist(&self, events: &[NewEvent]) {
///         self.rows.lock().unwrap().extend(events.iter().map(|event| (event.event_id, event.payload.clone())));
///     }
/// }
///
/// let sealer: Sealer<SplitTx<(), Sqlite>> = Sealer::new(SplitKeys::new(SqliteKeys::new()), Keyring::generate("main")?, schemas);
/// sealer.keys().prepare(&mut SplitTx::new((), &keys)).await?;
/// let repository = Repository::default();
///
/// // Wherever the framework is about to persist:
/// let ada = aggregate("Customer", "42");
/// let events = [NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#)];
/// let mut tx = SplitTx::new((), &keys);
/// let sealed = sealer.seal(&mut tx, &ada, &events).await?;
/// repository.persist(&sealed).await;
/// let ((), locks) = tx.into_parts();
/// locks.commit().await?; // dropped where persisting failed: nothing is lost
///
/// // Wherever it has loaded:
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
    /// Begins a transaction on the events. The database of the keys is asked when it is needed.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn begin(events: &Pool<E>, keys: &Pool<K>) -> Result<Self> {
        let events = events.begin().await.map_err(database("beginning a transaction on the events"))?;
        Ok(Self::new(events, keys))
    }

    /// Looks whether the locks on the keys are still [held](KeySide::confirm), commits the events, then what was
    /// changed in the database of the keys, and lets go of the locks.
    ///
    /// # Errors
    /// The retryable [`Error::Collision`] if the locks were lost: nothing is committed. [`Error::Database`],
    /// [`Error::Collision`], [`Error::OutcomeUnknown`]: if it names the keys, the events are committed, and a shred,
    /// reopening, rotation or stop in this transaction is not, or nobody knows: do it again.
    pub async fn commit(self) -> Result<()> {
        let (events, mut keys) = self.into_parts();
        keys.confirm().await?;
        events.commit().await.map_err(committing("the events"))?;
        keys.commit().await
    }
}

impl<T, K: Database> SplitTx<T, K> {
    /// Around a transaction on the events that was begun already.
    pub fn new(events: T, keys: &Pool<K>) -> Self {
        let (shared, updated) = (HashMap::new(), HashSet::new());
        let keys = KeySide { pool: keys.clone(), tables: None, held: None, shared, updated, changed: false };
        Self { events, keys }
    }

    /// The events' transaction: to write projections in it.
    pub fn events(&mut self) -> &mut T {
        &mut self.events
    }

    /// Both sides, for those who commit themselves: [`confirm`](KeySide::confirm) the keys, commit the events, then the
    /// keys. Keep the keys until then.
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

/// What a [`SplitTx`] does in the database of the keys: holds locks, and changes that are not committed yet. Dropping
/// it lets go of both.
pub struct KeySide<K: Database> {
    pool: Pool<K>,
    /// What the locks were taken with.
    tables: Option<Arc<dyn KeyStore<Tx = K::Connection>>>,
    /// Has the locks.
    held: Option<Transaction<'static, K>>,
    /// The scopes that appends share a lock on, with the key that they seal under.
    shared: HashMap<KeyScope, Option<KeyId>>,
    /// The scopes that are locked to be changed.
    updated: HashSet<KeyScope>,
    /// Were keys changed, and not committed yet?
    changed: bool,
}

impl<K: Database> KeySide<K> {
    /// Looks whether the keys that events were sealed under are still locked, and as they were. Right before the events
    /// are committed: a connection that was lost has lost its locks, and a shred may have come in between.
    ///
    /// What is left is the moment between this and the commit of the events.
    ///
    /// # Errors
    /// The retryable [`Error::Collision`] if they are not: roll the events back, and do all of it again.
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

    /// Are these all scopes that events were sealed for, with the keys they had? What this transaction has changed
    /// itself is locked for nobody else.
    fn are_unchanged(&self, records: &[ScopeRecord]) -> bool {
        let unchanged = records.iter().filter(|record| {
            let active = record.active.as_ref().map(|key| key.key_id);
            let as_before = record.state == ScopeState::Live
                && self.shared.get(&record.scope).is_some_and(|expected| *expected == active);
            as_before || self.updated.contains(&record.scope)
        });
        unchanged.count() == self.shared.len()
    }

    /// Commits what was changed, and lets go of the locks.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn commit(self) -> Result<()> {
        match self.held {
            Some(held) => held.commit().await.map_err(committing("the keys")),
            None => Ok(()),
        }
    }

    /// The transaction that has the locks, begun if need be.
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

/// An event store in a [`SplitTx`].
pub struct SplitStore<S, T, K> {
    inner: S,
    tx: PhantomData<fn(T, K)>,
}

impl<S, T, K> SplitStore<S, T, K> {
    /// The events are in this store.
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
}

/// Key tables in a [`SplitTx`].
///
/// A first key that an append makes is committed at once. After shred, reopen, rotate, disable or enable, the same
/// `SplitTx` takes no more appends ([`Error::SplitChange`]): commit it, and begin another.
pub struct SplitKeys<Ks, T, K> {
    inner: Arc<Ks>,
    tx: PhantomData<fn(T, K)>,
}

impl<Ks, T, K> SplitKeys<Ks, T, K> {
    /// The keys are in these tables.
    pub fn new(keys: Ks) -> Self {
        Self { inner: Arc::new(keys), tx: PhantomData }
    }
}

impl<Ks, T, K> Clone for SplitKeys<Ks, T, K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tx: PhantomData }
    }
}

impl<Ks: fmt::Debug, T, K> fmt::Debug for SplitKeys<Ks, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SplitKeys").field(&self.inner).finish()
    }
}

impl<Ks, T, K> SplitKeys<Ks, T, K>
where
    Ks: KeyStore<Tx = K::Connection> + 'static,
    T: Send + 'static,
    K: Database,
{
    /// Commits keys that an append made, before the events that need them, and takes the locks again.
    async fn insert_and_commit(&self, side: &mut KeySide<K>, keys: &[NewDataKey]) -> Result<()> {
        if side.changed {
            return Err(Error::SplitChange);
        }
        let held = side.hold().await?;
        // Events that outlast a crash must not have lost their key in it.
        self.inner.commit_durably(held).await?;
        self.inner.insert_keys(held, keys).await?;
        if let Some(held) = side.held.take() {
            held.commit().await.map_err(database("committing new keys"))?;
        }
        for key in keys {
            side.shared.insert(key.scope.clone(), Some(key.key_id));
        }
        // For a moment nothing was locked. Whatever this transaction seals under must be as it was.
        let scopes: Vec<KeyScope> = side.shared.keys().cloned().collect();
        let records = self.inner.scopes(side.hold().await?, &scopes, ScopeLock::Share).await?;
        if side.are_unchanged(&records) { Ok(()) } else { Err(Error::Collision { source: None }) }
    }
}

/// Runs a call where this transaction sees its own changes; if it has none, on a connection of its own, which sees what
/// is committed when it starts.
macro_rules! read {
    ($tx:ident, |$connection:ident| $call:expr) => {
        match &mut $tx.keys.held {
            Some(held) => {
                let $connection: &mut K::Connection = &mut *held;
                $call.await
            }
            None => {
                let mut own = $tx.keys.connect().await?;
                let $connection: &mut K::Connection = &mut own;
                $call.await
            }
        }
    };
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Ks, T, K> KeyStore for SplitKeys<Ks, T, K>
where
    Ks: KeyStore<Tx = K::Connection> + 'static,
    T: Send + 'static,
    K: Database,
{
    type Tx = SplitTx<T, K>;

    fn can_look_first(&self) -> bool {
        self.inner.can_look_first()
    }

    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        tx.keys.held.is_some()
    }

    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>> {
        read!(tx, |connection| self.inner.namespace(connection))
    }

    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>> {
        read!(tx, |connection| self.inner.active_kek(connection, partition))
    }

    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        read!(tx, |connection| self.inner.keks(connection, kek_ids))
    }

    async fn install_kek(&self, tx: &mut Self::Tx, kek: &KekRecord) -> Result<()> {
        read!(tx, |connection| self.inner.install_kek(connection, kek))
    }

    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>> {
        read!(tx, |connection| self.inner.kek_usage(connection))
    }

    async fn replace_kek(&self, tx: &mut Self::Tx, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        read!(tx, |connection| self.inner.replace_kek(connection, replaced, kek))
    }

    async fn move_kek(
        &self,
        tx: &mut Self::Tx,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        read!(tx, |connection| self.inner.move_kek(connection, old, provider, wrapped, at))
    }

    async fn retire_kek(&self, tx: &mut Self::Tx, kek_id: KekId) -> Result<Retirement> {
        read!(tx, |connection| self.inner.retire_kek(connection, kek_id))
    }

    async fn rewrap_batch(&self, tx: &mut Self::Tx, batch: &RewrapBatch, by: &dyn Rewrapper) -> Result<RewrappedBatch> {
        read!(tx, |connection| self.inner.rewrap_batch(connection, batch, by))
    }

    async fn install_key(&self, tx: &mut Self::Tx, key: &NewDataKey) -> Result<()> {
        read!(tx, |connection| self.inner.install_key(connection, key))
    }

    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        let side = &mut tx.keys;
        match lock {
            ScopeLock::None => return read!(tx, |connection| self.inner.scopes(connection, scopes, lock)),
            // Events are committed before these changes are, so they must not depend on them.
            ScopeLock::Share if side.changed && !scopes.is_empty() => return Err(Error::SplitChange),
            _ => {}
        }
        let records = self.inner.scopes(side.hold().await?, scopes, lock).await?;
        if lock == ScopeLock::Share {
            let tables: Arc<dyn KeyStore<Tx = K::Connection>> = Arc::<Ks>::clone(&self.inner);
            side.tables = Some(tables);
            let shared = records.iter().filter(|record| !record.scope.is_reserved());
            side.shared
                .extend(shared.map(|record| (record.scope.clone(), record.active.as_ref().map(|key| key.key_id))));
        } else {
            side.updated.extend(scopes.iter().cloned());
        }
        Ok(records)
    }

    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()> {
        self.inner.create_scopes(tx.keys.hold().await?, scopes).await
    }

    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()> {
        let side = &mut tx.keys;
        if keys.iter().any(|key| side.shared.contains_key(&key.scope) && !side.updated.contains(&key.scope)) {
            return self.insert_and_commit(side, keys).await;
        }
        side.changed = true;
        self.inner.insert_keys(side.hold().await?, keys).await
    }

    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()> {
        self.inner.commit_durably(tx.keys.hold().await?).await
    }

    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        read!(tx, |connection| self.inner.data_keys(connection, key_ids))
    }

    async fn change_scope(&self, tx: &mut Self::Tx, change: &ScopeChange) -> Result<()> {
        tx.keys.changed = true;
        self.inner.change_scope(tx.keys.hold().await?, change).await
    }

    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>> {
        tx.keys.changed = true;
        self.inner.destroy_keys(tx.keys.hold().await?, scope, at).await
    }

    async fn scopes_with_ids(&self, tx: &mut Self::Tx, ids: &[String]) -> Result<Vec<KeyScope>> {
        read!(tx, |connection| self.inner.scopes_with_ids(connection, ids))
    }

    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        read!(tx, |connection| self.inner.history(connection, scope))
    }
}
