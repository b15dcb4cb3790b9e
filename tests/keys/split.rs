//! Keys in another database than the events: an event is never committed before its key, and no shred slips in between.

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::conformance::{self, Database, EVENT_TYPE, EVENT_VERSION};
use eventseal::error::TransactionFault;
use eventseal::keys::{KeyStore, KeyTable, NewDataKey, ScopeLock, ScopeRecord, Shredding};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::SqliteKeys;
use eventseal::{
    Appended, Error, EventStore, EventStoreExt, KeyScope, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    aggregate, event, subject,
};
use sqlx::{PgConnection, Pool, Transaction};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use support::Deadline;
use support::customer_scope;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, Postgres, Sqlite};

type Tx<E, K> = SplitTx<Transaction<'static, E>, K>;
type Pg = sqlx::Postgres;

struct Split<E: sqlx::Database, K: sqlx::Database> {
    events: Pool<E>,
    keys: Pool<K>,
}

#[async_trait]
impl<E: sqlx::Database, K: sqlx::Database> Database for Split<E, K> {
    type Tx = Tx<E, K>;
    type Transaction = Tx<E, K>;
    type Connection = Tx<E, K>;

    async fn connect(&self) -> Result<Tx<E, K>> {
        SplitTx::begin(&self.events, &self.keys).await
    }

    fn connection<'c>(&self, connection: &'c mut Tx<E, K>) -> &'c mut Tx<E, K> {
        connection
    }

    async fn begin(&self) -> Result<Tx<E, K>> {
        SplitTx::begin(&self.events, &self.keys).await
    }

    fn tx<'t>(&self, transaction: &'t mut Tx<E, K>) -> &'t mut Tx<E, K> {
        transaction
    }

    async fn commit(&self, transaction: Tx<E, K>) -> Result<()> {
        transaction.commit().await
    }
}

fn schemas() -> Schemas {
    Schemas::new([
        event(EVENT_TYPE).version(EVENT_VERSION).protect(&["/text"], subject("Owner", "/owner")),
        event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer")),
    ])
    .unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

#[tokio::test]
async fn keys_on_another_database_keep_the_contract_of_key_stores() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    let db = Split { events: events.pool.clone(), keys: keys.pool.clone() };
    let tables = SplitKeys::new(PostgresKeys::new());
    conformance::key_table(&db, &tables).await;
    conformance::key_store(&db, &tables).await;
    let (events, keys) = (Sqlite::new().await, Sqlite::new().await);
    let db = Split { events: events.pool.clone(), keys: keys.pool.clone() };
    let tables = SplitKeys::new(SqliteKeys::new());
    conformance::key_table(&db, &tables).await;
    conformance::key_store(&db, &tables).await;
}

#[tokio::test]
async fn sealed_stores_with_keys_on_another_database_keep_the_contract() {
    let shop = Shop::new(PostgresKeys::new()).await;
    conformance::event_store(&shop.db, &shop.store).await;
    // Another kind of database for the keys.
    let (events, keys) = (Postgres::new().await, Sqlite::new().await);
    let db = Split { events: events.pool.clone(), keys: keys.pool.clone() };
    let store = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(SqliteKeys::new()),
        Arc::clone(&KEYRING),
        schemas(),
    );
    store.keys().prepare(&mut db.begin().await.unwrap()).await.unwrap();
    conformance::event_store(&db, &store).await;
}

/// Events in one database of PostgreSQL, keys in another.
struct Shop {
    db: Split<Pg, Pg>,
    store: SealedStore<SplitStore<PostgresStore, Transaction<'static, Pg>, Pg>>,
    /// The keys alone, as an operator has them.
    operator: SealedStore<PostgresStore>,
    databases: [Postgres; 2],
}

impl Shop {
    async fn new(keys: impl KeyTable<Tx = PgConnection> + Clone + 'static) -> Self {
        let databases = [Postgres::new().await, Postgres::new().await];
        let db = Split { events: databases[0].pool.clone(), keys: databases[1].pool.clone() };
        let store = SealedStore::new(
            SplitStore::new(PostgresStore::new()),
            SplitKeys::new(keys),
            Arc::clone(&KEYRING),
            schemas(),
        );
        store.keys().prepare(&mut db.begin().await.unwrap()).await.unwrap();
        let operator = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
        Self { db, store, operator, databases }
    }

    async fn append(&self, tx: &mut Tx<Pg, Pg>, event: NewEvent) -> Result<Appended> {
        self.store.append(tx, &aggregate("Order", "1"), Any, &[event]).await
    }

    async fn read(&self) -> Vec<PersistedEvent> {
        self.store.read_stream(&mut self.db.begin().await.unwrap(), &aggregate("Order", "1")).await.unwrap().events
    }

    async fn shred(&self) -> Result<Shredding> {
        let mut tx = self.db.keys.begin().await.unwrap();
        let shredding = self.operator.keys().shred(&mut tx, &customer_scope("42"), "request").await?;
        tx.commit().await.unwrap();
        Ok(shredding)
    }

    /// How many data keys of customers are committed.
    async fn keys(&self) -> i64 {
        sqlx::query_scalar("SELECT count(wrapped_key) FROM data_keys WHERE scope_kind = 'Customer'")
            .fetch_one(&self.db.keys)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn i6_a_key_is_committed_before_the_event_that_needs_it() {
    let shop = Shop::new(PostgresKeys::new()).await;
    let mut tx = shop.db.begin().await.unwrap();
    shop.append(&mut tx, placed("42")).await.unwrap();
    assert_eq!((shop.keys().await, shop.read().await.len()), (1, 0), "the key is there, the event not yet");
    drop(tx);
    assert_eq!((shop.keys().await, shop.read().await.len()), (1, 0), "a key without an event does no harm");
    let mut tx = shop.db.begin().await.unwrap();
    shop.append(&mut tx, placed("42")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!((shop.keys().await, shop.read().await.len()), (1, 1), "the key that was left is used");
    assert_eq!(shop.read().await[0].payload, placed("42").payload());
}

#[tokio::test]
async fn i5_a_shred_waits_until_the_outcome_of_the_append_is_known() {
    for first_key in [true, false] {
        let shop = Arc::new(Shop::new(PostgresKeys::new()).await);
        if !first_key {
            let mut tx = shop.db.begin().await.unwrap();
            shop.append(&mut tx, placed("42")).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut tx = shop.db.begin().await.unwrap();
        shop.append(&mut tx, placed("42")).await.unwrap();
        let shredding = tokio::spawn({
            let shop = Arc::clone(&shop);
            async move { shop.shred().await }
        });
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Deadline::of("for somebody to wait for a lock");
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&shop.databases[1].pool).await.unwrap() == 0 {
            deadline.look_again().await;
            assert!(!shredding.is_finished(), "the shred did not wait");
        }
        tx.commit().await.unwrap();
        assert_eq!(shredding.await.unwrap().unwrap().destroyed.len(), 1);
        assert!(shop.read().await.iter().all(PersistedEvent::is_redacted));
        let refused = shop.append(&mut shop.db.begin().await.unwrap(), placed("42")).await.unwrap_err();
        assert!(refused.is_shredded(), "{refused:?}");
    }
}

/// Runs something when a scope is locked again after a new key was committed.
#[derive(Clone)]
struct Meddling {
    inner: PostgresKeys,
    armed: Arc<AtomicBool>,
    meddle: Arc<Mutex<Option<String>>>,
    pool: Arc<Mutex<Option<Pool<Pg>>>>,
}

#[async_trait]
impl KeyFaults for Meddling {
    type Inner = PostgresKeys;

    fn inner(&self) -> &PostgresKeys {
        &self.inner
    }

    async fn scopes(&self, tx: &mut PgConnection, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        if self.armed.swap(false, Ordering::SeqCst) {
            let (pool, what) =
                (self.pool.lock().unwrap().clone().unwrap(), self.meddle.lock().unwrap().clone().unwrap());
            let operator = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
            let mut tx = pool.begin().await.unwrap();
            operator.keys().shred(&mut tx, &customer_scope("42"), "between").await?;
            if what == "shred and reopen" {
                operator.keys().reopen(&mut tx, &customer_scope("42"), "between").await?;
            }
            tx.commit().await.unwrap();
        }
        self.inner.scopes(tx, scopes, lock).await
    }

    async fn insert_keys(&self, tx: &mut PgConnection, keys: &[NewDataKey]) -> Result<()> {
        self.inner.insert_keys(tx, keys).await?;
        // The next look at the scopes comes after the commit.
        self.armed.store(self.meddle.lock().unwrap().is_some(), Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn i5_a_shred_between_the_commit_of_a_key_and_the_next_lock_is_noticed() {
    for what in ["shred", "shred and reopen"] {
        let keys = Meddling {
            inner: PostgresKeys::new(),
            armed: Arc::default(),
            meddle: Arc::default(),
            pool: Arc::default(),
        };
        let shop = Shop::new(Faulty(keys.clone())).await;
        // A key of another customer, that the same transaction used before, is locked again as well.
        let mut tx = shop.db.begin().await.unwrap();
        shop.append(&mut tx, placed("7")).await.unwrap();
        *keys.pool.lock().unwrap() = Some(shop.db.keys.clone());
        *keys.meddle.lock().unwrap() = Some(what.to_owned());
        let refused = shop.append(&mut tx, placed("42")).await.unwrap_err();
        assert!(refused.is_retryable(), "{what}: {refused:?}");
        drop(tx);
        assert!(shop.read().await.is_empty(), "{what}: an event was sealed under a destroyed key");
        *keys.meddle.lock().unwrap() = None;
        let again = shop.append(&mut shop.db.begin().await.unwrap(), placed("42")).await;
        assert_eq!(again.is_ok(), what == "shred and reopen", "{again:?}");
    }
}

#[tokio::test]
async fn events_do_not_depend_on_changes_of_keys_that_are_committed_after_them() {
    let shop = Shop::new(PostgresKeys::new()).await;
    let mut tx = shop.db.begin().await.unwrap();
    shop.append(&mut tx, placed("42")).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = shop.db.begin().await.unwrap();
    shop.store.keys().rotate_data_key(&mut tx, &customer_scope("42")).await.unwrap();
    let refused = shop.append(&mut tx, placed("42")).await.unwrap_err();
    assert!(matches!(refused, Error::Transaction(TransactionFault::SplitChange)), "{refused:?}");
    drop(tx);
    assert_eq!(shop.keys().await, 1, "a rotation that was not committed left nothing");
    let mut tx = shop.db.begin().await.unwrap();
    shop.append(&mut tx, placed("42")).await.unwrap();
    shop.store.keys().shred(&mut tx, &customer_scope("42"), "request").await.unwrap();
    let within = shop.store.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap();
    assert!(
        within.events.len() == 2 && within.events.iter().all(PersistedEvent::is_redacted),
        "a transaction sees its own shred"
    );
    tx.commit().await.unwrap();
    assert!(shop.read().await.len() == 2 && shop.read().await.iter().all(PersistedEvent::is_redacted));
    let (events, side) = {
        let mut tx = shop.db.begin().await.unwrap();
        shop.append(&mut tx, placed("43")).await.unwrap();
        tx.into_parts()
    };
    events.commit().await.unwrap();
    side.commit().await.unwrap();
    let version = shop.read().await.len();
    let mut tx = shop.db.begin().await.unwrap();
    let conflict = shop.store.append(&mut tx, &aggregate("Order", "1"), NoStream, &[placed("43")]).await.unwrap_err();
    assert!(conflict.is_conflict());
    shop.append(&mut tx, placed("43")).await.expect("the loser's transaction stays usable");
    tx.commit().await.unwrap();
    assert_eq!(shop.read().await.len(), version + 1);
}

/// This is the situation of a service whose framework takes its connections from the same pool.
#[tokio::test]
async fn a_shared_pool_must_be_larger_than_the_number_of_transactions_at_once() {
    let db = Postgres::new().await;
    let pool = |connections: u32| {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(connections).min_connections(0);
        options.acquire_timeout(std::time::Duration::from_millis(300)).connect_lazy_with(db.options.clone())
    };
    let store = || {
        let (events, keys) = (SplitStore::new(PostgresStore::new()), SplitKeys::new(PostgresKeys::new()));
        SealedStore::<_>::new(events, keys, Arc::clone(&KEYRING), schemas())
    };
    let order = aggregate("Order", "1");

    // One connection is not enough for one transaction: what must be acquired is held by the one that waits.
    let one = pool(1);
    let alone = store();
    let mut tx: Tx<Pg, Pg> = SplitTx::begin(&one, &one).await.unwrap();
    let error = alone.append(&mut tx, &order, Any, &[placed("1")]).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("keys"), "{error:?}");
    drop(tx);

    // Two are, whatever it does.
    let two = pool(2);
    let store = store();
    store.keys().prepare(&mut SplitTx::begin(&two, &two).await.unwrap()).await.unwrap();
    for _ in 0..2 {
        let mut tx: Tx<Pg, Pg> = SplitTx::begin(&two, &two).await.unwrap();
        store.append(&mut tx, &order, Any, &[placed("1"), placed("42")]).await.unwrap();
        store.read_stream(&mut tx, &order).await.unwrap();
        store.append(&mut tx, &order, Any, &[placed("3")]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tx: Tx<Pg, Pg> = SplitTx::begin(&two, &two).await.unwrap();
    store.keys().rotate_data_key(&mut tx, &customer_scope("42")).await.unwrap();
    store.keys().shred(&mut tx, &customer_scope("42"), "request").await.unwrap();
    store.keys().reopen(&mut tx, &customer_scope("42"), "came back").await.unwrap();
    tx.commit().await.unwrap();

    // With three transactions at once, three connections leave all of them waiting. With a fourth, they end one after
    // the other.
    for (connections, works) in [(3, false), (4, true)] {
        let pool = pool(connections);
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(SplitTx::begin(&pool, &pool).await.unwrap());
        }
        let append = |index: usize, mut tx: Tx<Pg, Pg>| {
            let store = &store;
            async move {
                store
                    .append(&mut tx, &aggregate("Order", index.to_string()), Any, &[placed(&index.to_string())])
                    .await?;
                tx.commit().await
            }
        };
        let all =
            futures::future::join_all(waiting.into_iter().enumerate().map(|(index, tx)| append(index + 10, tx))).await;
        assert_eq!(all.iter().all(Result::is_ok), works, "{connections}: {all:?}");
    }
}
