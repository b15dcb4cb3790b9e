//! Databases of all kinds, and stores on them, for the tests of maintenance.

mod meddler;

pub use crate::{Memory, Postgres, Sqlite};
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::conformance::Database;
use eventseal::*;
pub use meddler::{Meddler, Trouble};
use std::sync::{Arc, LazyLock};

pub static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::generate("main").unwrap()));

#[async_trait]
pub trait Backend: Database<Tx: Send> + Sized {
    type Store: EventStore<Tx = Self::Tx> + EventTable<Tx = Self::Tx> + Clone + Default + 'static;
    type Keys: KeyStore<Tx = Self::Tx> + Clone + Default + 'static;

    async fn make() -> Self;

    /// One without events in its place; keys may be left.
    async fn again(self) -> Self {
        Self::make().await
    }

    /// As if nobody had migrated it. `false` where that can't be.
    async fn drop_events(&self) -> bool {
        false
    }

    /// A process, with caches of its own.
    fn process(&self, schemas: Schemas) -> SealedStore<Self::Store> {
        SealedStore::new(Self::Store::default(), Self::Keys::default(), Arc::clone(&KEYRING), schemas)
    }

    /// A process whose store gets into trouble when it is told to.
    fn meddling(&self, schemas: Schemas) -> (SealedStore<Meddler<Self::Store>>, Meddler<Self::Store>) {
        let meddler = Meddler::default();
        (SealedStore::new(meddler.clone(), Self::Keys::default(), Arc::clone(&KEYRING), schemas), meddler)
    }

    async fn prepared(&self, schemas: Schemas) -> SealedStore<Self::Store> {
        let store = self.process(schemas);
        store.keys().prepare(self.connection(&mut self.connect().await.unwrap())).await.unwrap();
        store
    }

    async fn append<S: EventStore<Tx = Self::Tx>>(&self, store: &S, id: &str, events: &[NewEvent]) -> Vec<PersistedEvent> {
        let mut transaction = self.begin().await.unwrap();
        let appended = store.append(self.tx(&mut transaction), &aggregate("Order", id), Any, events).await.unwrap();
        self.commit(transaction).await.unwrap();
        appended.events
    }

    /// As an application did that knew nothing of sealing.
    async fn append_bare(&self, id: &str, events: &[NewEvent]) -> Vec<PersistedEvent> {
        self.append(&Self::Store::default(), id, events).await
    }

    async fn read<S: EventStore<Tx = Self::Tx>>(&self, store: &S) -> Result<Vec<PersistedEvent>> {
        let mut transaction = self.begin().await.unwrap();
        Ok(store.read_events(self.tx(&mut transaction), GlobalPosition::START, 100_000, &EventFilter::default()).await?.events)
    }

    async fn stored(&self) -> Vec<PersistedEvent> {
        self.read(&Self::Store::default()).await.unwrap()
    }

    async fn shred(&self, store: &SealedStore<Self::Store>, id: &str) -> Shredding {
        let mut transaction = self.begin().await.unwrap();
        let shredding = store.keys().shred(self.tx(&mut transaction), &KeyScope::new("Customer", id), "request").await.unwrap();
        self.commit(transaction).await.unwrap();
        shredding
    }

    async fn disable(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().disable(self.tx(&mut transaction), &KeyScope::new("Customer", id), "stop").await.unwrap();
        self.commit(transaction).await.unwrap();
    }

    async fn enable(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().enable(self.tx(&mut transaction), &KeyScope::new("Customer", id), "go on").await.unwrap();
        self.commit(transaction).await.unwrap();
    }

    async fn reopen(&self, store: &SealedStore<Self::Store>, id: &str) {
        let mut transaction = self.begin().await.unwrap();
        store.keys().reopen(self.tx(&mut transaction), &KeyScope::new("Customer", id), "back").await.unwrap();
        self.commit(transaction).await.unwrap();
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

    async fn make() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for Sqlite {
    type Store = SqliteStore;
    type Keys = SqliteKeys;

    async fn make() -> Self {
        Self::new().await
    }

    async fn drop_events(&self) -> bool {
        sqlx::raw_sql("DROP TABLE events; DROP TABLE aggregate_heads").execute(&self.pool).await.is_ok()
    }
}

#[async_trait]
impl Backend for Postgres {
    type Store = PostgresStore;
    type Keys = PostgresKeys;

    async fn make() -> Self {
        Self::new().await
    }

    async fn drop_events(&self) -> bool {
        sqlx::raw_sql("DROP TABLE events, aggregate_heads").execute(&self.pool).await.is_ok()
    }

    /// Making a database takes longer than all that is done in it. Rows of keys can't be deleted.
    async fn again(self) -> Self {
        sqlx::query("TRUNCATE events, aggregate_heads RESTART IDENTITY").execute(&self.pool).await.unwrap();
        self
    }
}

#[macro_export]
macro_rules! on_every_database {
    ($($name:ident,)*) => {
        mod on_memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name::<super::Memory>().await; })* }
        mod on_sqlite { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name::<super::Sqlite>().await; })* }
        mod on_postgres { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)] async fn $name() { super::$name::<super::Postgres>().await; })* }
    };
}

pub fn customer() -> Owner {
    subject("Customer", "/customer")
}

pub fn contains(payload: &[u8], text: &str) -> bool {
    payload.windows(text.len()).any(|window| window == text.as_bytes())
}

/// An error with everything that it was caused by, as a log shows it.
pub fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source} {source:?}");
        next = source.source();
    }
    text
}

/// Every payload as its readers see it, whatever else changes.
pub fn payloads(events: &[PersistedEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{} {:?}", String::from_utf8_lossy(&event.payload), event.redacted)).collect()
}

/// As a store did that an event came from.
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
