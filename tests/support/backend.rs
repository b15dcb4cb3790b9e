//! The operations that tests run on any database: making a sealed store on it, appends, reads and changes of keys, each
//! in a transaction of its own. [`on_every_database!`](crate::on_every_database) runs a test on each of them.

use crate::faults::Faulty;
use crate::meddler::Meddler;
use crate::{KEYRING, Memory, Postgres, Sqlite, customer_scope};
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::conformance::Database;
use eventseal::keys::{KeyHistory, KeyManager, KeyManagerBuilder, KeyTable, Shredding};
use eventseal::kms::Kms;
use eventseal::maintenance::{BackfillOptions, Backfilled, Census, CensusOptions};
use eventseal::memory::{MemoryKeys, MemorySnapshots, MemoryStore};
use eventseal::postgres::{PostgresKeys, PostgresSnapshots, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteSnapshots, SqliteStore};
use eventseal::store::{EventTable, SnapshotStore, TableWork};
use eventseal::{
    EventFilter, EventStore, EventStoreExt, GlobalPosition, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    aggregate,
};
use std::sync::Arc;

/// The store of a database, which gets into trouble when it is told to.
pub type Meddled<B> = Faulty<Meddler<<B as Backend>::Store>>;

#[async_trait]
pub trait Backend: Database<Tx: Send> + Send + Sync + Sized + 'static {
    type Store: EventStore<Tx = Self::Tx> + EventTable<Tx = Self::Tx> + Clone + Default + 'static;
    type Keys: KeyTable<Tx = Self::Tx> + Clone + Default + 'static;
    type Snapshots: SnapshotStore<Tx = Self::Tx> + Clone + Default + 'static;

    async fn make() -> Self;

    /// Makes the table of snapshots.
    async fn make_snapshots(&self) -> Self::Snapshots {
        Self::Snapshots::default()
    }

    /// A database without events in place of this one. Keys may remain.
    async fn again(self) -> Self {
        Self::make().await
    }

    /// Drops the event tables, as if they had never been migrated. `false` if this kind of database has none.
    async fn drop_events(&self) -> bool {
        false
    }

    /// A transaction with a snapshot: it always sees the state of its first read.
    async fn begin_snapshot(&self) -> Self::Transaction {
        self.begin().await.unwrap()
    }

    /// Rolls a transaction back, as an application does at an error. One that is dropped rolls back a moment later, and
    /// holds its locks until then. SQLite lets no transaction that has read wait for them.
    async fn roll_back(&self, transaction: Self::Transaction);

    /// Commits what was done, or rolls it back.
    async fn end<T: Send>(&self, transaction: Self::Transaction, done: Result<T>) -> Result<T> {
        match done {
            Ok(done) => self.commit(transaction).await.map(|()| done),
            Err(error) => {
                self.roll_back(transaction).await;
                Err(error)
            }
        }
    }

    /// A process, with caches of its own.
    fn process(&self, schemas: Schemas) -> SealedStore<Self::Store> {
        self.process_with(Self::Keys::default(), Arc::clone(&KEYRING), schemas)
    }

    fn process_with(
        &self,
        keys: impl KeyTable<Tx = Self::Tx> + 'static,
        kms: impl Kms + 'static,
        schemas: Schemas,
    ) -> SealedStore<Self::Store> {
        SealedStore::new(Self::Store::default(), keys, kms, schemas)
    }

    /// The keys of a process, before they get settings.
    fn keys(&self) -> KeyManagerBuilder<Self::Tx> {
        KeyManager::builder(Self::Keys::default(), Arc::clone(&KEYRING))
    }

    /// The keys of a process, with another KMS.
    fn keys_of<M: Kms + 'static>(&self, kms: &Arc<M>) -> KeyManagerBuilder<Self::Tx> {
        KeyManager::builder(Self::Keys::default(), Arc::clone(kms))
    }

    /// A process whose keys have settings of their own.
    fn process_over(&self, keys: KeyManagerBuilder<Self::Tx>, schemas: Schemas) -> SealedStore<Self::Store> {
        SealedStore::with_keys(Self::Store::default(), keys.build(), schemas)
    }

    /// A process whose store gets into trouble when it is told to.
    fn meddling(&self, schemas: Schemas) -> (SealedStore<Meddled<Self>>, Meddled<Self>) {
        let meddler = Meddled::<Self>::default();
        (SealedStore::new(meddler.clone(), Self::Keys::default(), Arc::clone(&KEYRING), schemas), meddler)
    }

    async fn prepare(&self, store: &SealedStore<Self::Store>) {
        store.keys().prepare(self.connection(&mut self.connect().await.unwrap())).await.unwrap();
    }

    async fn prepared(&self, schemas: Schemas) -> SealedStore<Self::Store> {
        let store = self.process(schemas);
        self.prepare(&store).await;
        store
    }

    async fn append<S: EventStore<Tx = Self::Tx>>(
        &self,
        store: &S,
        id: &str,
        events: &[NewEvent],
    ) -> Vec<PersistedEvent> {
        self.try_append(store, id, events).await.unwrap()
    }

    /// Appends to an order. Commits, unless the append fails.
    async fn try_append<S: EventStore<Tx = Self::Tx>>(
        &self,
        store: &S,
        id: &str,
        events: &[NewEvent],
    ) -> Result<Vec<PersistedEvent>> {
        let mut transaction = self.begin().await?;
        let appended = store.append(self.tx(&mut transaction), &aggregate("Order", id), Any, events).await;
        self.end(transaction, appended.map(|appended| appended.events)).await
    }

    /// Appends without sealing, as an application did before the store was wrapped.
    async fn append_bare(&self, id: &str, events: &[NewEvent]) -> Vec<PersistedEvent> {
        self.append(&Self::Store::default(), id, events).await
    }

    /// The events of an order.
    async fn read<S: EventStore<Tx = Self::Tx>>(&self, store: &S, id: &str) -> Result<Vec<PersistedEvent>> {
        let mut transaction = self.begin().await?;
        let page = store.read_stream(self.tx(&mut transaction), &aggregate("Order", id)).await;
        self.roll_back(transaction).await;
        Ok(page?.events)
    }

    /// All events.
    async fn read_log<S: EventStore<Tx = Self::Tx>>(&self, store: &S) -> Result<Vec<PersistedEvent>> {
        let mut transaction = self.begin().await?;
        let filter = EventFilter::default();
        let page = store.read_events(self.tx(&mut transaction), GlobalPosition::START, 100_000, &filter).await;
        self.roll_back(transaction).await;
        Ok(page?.events)
    }

    /// All events as they are stored.
    async fn stored(&self) -> Vec<PersistedEvent> {
        self.read_log(&Self::Store::default()).await.unwrap()
    }

    async fn shred(&self, store: &SealedStore<Self::Store>, id: &str) -> Shredding {
        self.try_shred(store, id).await.unwrap()
    }

    /// Shreds a customer. Commits, unless the shred fails.
    async fn try_shred(&self, store: &SealedStore<Self::Store>, id: &str) -> Result<Shredding> {
        let mut transaction = self.begin().await?;
        let shredding = store.keys().shred(self.tx(&mut transaction), &customer_scope(id), "request").await;
        self.end(transaction, shredding).await
    }

    async fn disable(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().disable(self.tx(&mut transaction), &customer_scope(id), "stop").await.unwrap();
        self.commit(transaction).await.unwrap();
    }

    async fn enable(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().enable(self.tx(&mut transaction), &customer_scope(id), "go on").await.unwrap();
        self.commit(transaction).await.unwrap();
    }

    async fn reopen(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().reopen(self.tx(&mut transaction), &customer_scope(id), "back").await.unwrap();
        self.commit(transaction).await.unwrap();
    }

    async fn history(&self, store: &SealedStore<Self::Store>, id: &str) -> Option<KeyHistory> {
        let mut transaction = self.begin().await.unwrap();
        let history = store.keys().key_history(self.tx(&mut transaction), &customer_scope(id)).await;
        self.roll_back(transaction).await;
        history.unwrap()
    }

    async fn backfill<S: EventStore<Tx = Self::Tx> + EventTable<Tx = Self::Tx>>(
        &self,
        store: &SealedStore<S>,
        options: &BackfillOptions,
    ) -> Result<Backfilled> {
        let mut connection = self.connect().await.unwrap();
        store.backfill(self.connection(&mut connection), options, &mut |_| {}).await
    }

    async fn census(&self, store: &SealedStore<Self::Store>, options: &CensusOptions) -> Census {
        let mut connection = self.connect().await.unwrap();
        store.census(self.connection(&mut connection), options, &mut |_| {}).await.unwrap()
    }
}

#[async_trait]
impl Backend for Memory {
    type Store = MemoryStore;
    type Keys = MemoryKeys;
    type Snapshots = MemorySnapshots;

    async fn make() -> Self {
        Self::new()
    }

    async fn roll_back(&self, transaction: Self::Transaction) {
        drop(transaction);
    }
}

#[async_trait]
impl Backend for Sqlite {
    type Store = SqliteStore;
    type Keys = SqliteKeys;
    type Snapshots = SqliteSnapshots;

    async fn make() -> Self {
        Self::new().await
    }

    async fn make_snapshots(&self) -> SqliteSnapshots {
        let snapshots = SqliteSnapshots::new();
        snapshots.migrate(&mut self.pool.acquire().await.unwrap()).await.unwrap();
        snapshots
    }

    async fn roll_back(&self, transaction: Self::Transaction) {
        transaction.rollback().await.unwrap();
    }

    async fn drop_events(&self) -> bool {
        sqlx::raw_sql("DROP TABLE events; DROP TABLE aggregate_heads").execute(&self.pool).await.is_ok()
    }
}

#[async_trait]
impl Backend for Postgres {
    type Store = PostgresStore;
    type Keys = PostgresKeys;
    type Snapshots = PostgresSnapshots;

    async fn make() -> Self {
        Self::new().await
    }

    async fn make_snapshots(&self) -> PostgresSnapshots {
        let snapshots = PostgresSnapshots::new();
        snapshots.migrate(&mut self.pool.acquire().await.unwrap()).await.unwrap();
        snapshots
    }

    async fn roll_back(&self, transaction: Self::Transaction) {
        transaction.rollback().await.unwrap();
    }

    async fn drop_events(&self) -> bool {
        sqlx::raw_sql("DROP TABLE events, aggregate_heads").execute(&self.pool).await.is_ok()
    }

    async fn begin_snapshot(&self) -> Self::Transaction {
        self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap()
    }

    /// Making a database takes longer than all that is done in it. Rows of keys can't be deleted.
    async fn again(self) -> Self {
        sqlx::query("TRUNCATE events, aggregate_heads RESTART IDENTITY").execute(&self.pool).await.unwrap();
        self
    }
}

/// Makes tests of functions that are generic over their [`Backend`](crate::backend::Backend): one for each database.
#[macro_export]
macro_rules! on_every_database {
    ($($name:ident,)*) => {
        $crate::on_database!(on_memory, $crate::Memory, $($name,)*);
        $crate::on_sqlite_and_postgres!($($name,)*);
    };
}

/// Makes tests of generic functions, for SQLite and PostgreSQL.
#[macro_export]
macro_rules! on_sqlite_and_postgres {
    ($($name:ident,)*) => {
        $crate::on_database!(on_sqlite, $crate::Sqlite, $($name,)*);
        $crate::on_database!(on_postgres, $crate::Postgres, $($name,)*);
    };
}

/// Makes tests of generic functions for one database, in a module of this name.
#[macro_export]
macro_rules! on_database {
    ($module:ident, $database:ty, $($name:ident,)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name::<$database>().await;
                }
            )*
        }
    };
}

/// Every payload as its readers see it, whatever else changes.
pub fn payloads(events: &[PersistedEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{} {:?}", String::from_utf8_lossy(&event.payload), event.redacted)).collect()
}

/// Inserts an event into the store from which it came.
pub async fn insert<B: Backend>(db: &B, event: PersistedEvent) {
    struct Insert<S>(S, PersistedEvent);
    #[async_trait]
    impl<S: EventTable> TableWork<S::Tx> for Insert<S> {
        async fn run(&mut self, tx: &mut S::Tx) -> Result<()> {
            self.0.insert_events(tx, std::slice::from_ref(&self.1)).await
        }
    }
    let mut connection = db.connect().await.unwrap();
    let table = B::Store::default();
    table.in_transaction(db.connection(&mut connection), &mut Insert(table.clone(), event)).await.unwrap();
}
