//! An event store whose payloads are a column of type JSONB, on PostgreSQL, written by hand.
//!
//! JSONB prints JSON anew: it puts a blank behind colons, and shorter names first. So the header is not where it was
//! written, and a test of a payload's first bytes misses it.

mod store;

use async_trait::async_trait;
use eventseal::conformance::{self, Database};
use eventseal::maintenance::{BackfillOptions, CensusOptions, EventsOfOptions};
use eventseal::postgres::PostgresKeys;
use eventseal::store::{
    EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableWork, check_append,
};
use eventseal::{
    AggregateRef, AggregateVersion, Appended, Error, EventFilter, EventPage, EventStore, EventStoreExt,
    ExpectedVersion, GlobalPosition, KeyScope, Namespace, NewEvent, PersistedEvent, Result, Schemas, SealedStore,
    Stream, VersionRange, aggregate, event, subject,
};
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row, query::Query};
use std::sync::Arc;
use store::{JsonbStore, TABLE, Wrong};
use support::{KEYRING, Postgres, caught};

/// A database whose events are in such a column.
struct Jsonb(Postgres);

impl Jsonb {
    async fn new() -> Self {
        let db = Postgres::empty().await;
        sqlx::raw_sql(TABLE).execute(&db.pool).await.unwrap();
        PostgresKeys::new()
            .migrate(&mut db.pool.acquire().await.unwrap(), &Namespace::new("jsonb").unwrap())
            .await
            .unwrap();
        Self(db)
    }
}

#[async_trait]
impl Database for Jsonb {
    type Tx = PgConnection;
    type Transaction = <Postgres as Database>::Transaction;
    type Connection = <Postgres as Database>::Connection;

    async fn connect(&self) -> Result<Self::Connection> {
        self.0.connect().await
    }

    fn connection<'c>(&self, connection: &'c mut Self::Connection) -> &'c mut PgConnection {
        self.0.connection(connection)
    }

    async fn begin(&self) -> Result<Self::Transaction> {
        self.0.begin().await
    }

    fn tx<'t>(&self, transaction: &'t mut Self::Transaction) -> &'t mut PgConnection {
        self.0.tx(transaction)
    }

    fn respells_json(&self) -> bool {
        true
    }

    async fn commit(&self, transaction: Self::Transaction) -> Result<()> {
        self.0.commit(transaction).await
    }
}

async fn sealed<S: EventStore<Tx = PgConnection>>(db: &Jsonb, store: S, schemas: Schemas) -> SealedStore<S> {
    let store = SealedStore::new(store, PostgresKeys::new(), Arc::clone(&KEYRING), schemas);
    store.keys().prepare(&mut *db.0.pool.acquire().await.unwrap()).await.unwrap();
    store
}

#[tokio::test]
async fn a_store_of_jsonb_keeps_the_contract() {
    let (db, store) = (Jsonb::new().await, JsonbStore(Wrong::Nothing));
    conformance::event_store(&db, &store).await;
    let suite = event(conformance::EVENT_TYPE)
        .version(conformance::EVENT_VERSION)
        .protect(&["/text"], subject("Owner", "/owner"));
    conformance::event_store(&db, &sealed(&db, store, Schemas::new([suite]).unwrap()).await).await;
}

#[tokio::test]
async fn a_table_of_jsonb_keeps_the_contract() {
    conformance::event_table(&Jsonb::new().await, &JsonbStore(Wrong::Nothing)).await;
}

#[tokio::test]
async fn rules_that_take_a_real_database_are_checked() {
    for (wrong, rule) in [
        (Wrong::TakesNoLock, "both appended at the same version"),
        (
            Wrong::AbortsAtConflicts,
            "append after a conflict, which writes nothing and leaves the transaction usable, failed",
        ),
        (Wrong::AppendsOutsideTransactions, "an append outside of a transaction is refused"),
    ] {
        let db = Jsonb::new().await;
        // Nothing but the lock keeps a version from being given twice.
        sqlx::raw_sql("ALTER TABLE log DROP CONSTRAINT log_stream_type_stream_id_version_key")
            .execute(&db.0.pool)
            .await
            .unwrap();
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_store(&db, &JsonbStore(wrong)).await })
            .await;
    }
    for (wrong, rule) in [
        (Wrong::LooksAtTheFirstBytes, "events are counted by type, version and header"),
        (Wrong::ReplacesOutsideTransactions, "payloads are replaced in a transaction only"),
        (Wrong::InsertsOutsideTransactions, "events are inserted in a transaction only"),
    ] {
        let db = Jsonb::new().await;
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_table(&db, &JsonbStore(wrong)).await })
            .await;
    }
}

/// The customer's name is protected; `id` is a shorter name than `$seal`, so JSONB puts it first.
fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/id"))]).unwrap()
}

async fn append(db: &Jsonb, store: &impl EventStore<Tx = PgConnection>, count: usize) {
    let mut tx = db.0.pool.begin().await.unwrap();
    let events: Vec<_> = (0..count).map(|_| NewEvent::raw("Placed", 1, r#"{"name":"Ada","id":"42"}"#)).collect();
    store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, &events).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn i1_i2_events_in_jsonb_are_sealed_read_counted_backfilled_and_shredded() {
    let db = Jsonb::new().await;
    let bare = JsonbStore(Wrong::Nothing);
    let store = sealed(&db, bare, schemas()).await;
    append(&db, &store, 3).await;
    append(&db, &bare, 2).await;
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT payload::text FROM log ORDER BY position").fetch_all(&db.0.pool).await.unwrap();
    assert!(
        stored[..3]
            .iter()
            .all(|payload| payload.starts_with(r#"{"id": "42", "name": ""#) && payload.contains(r#", "$seal": ""#)),
        "{stored:?}"
    );

    let mut connection = db.0.pool.acquire().await.unwrap();
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((census.rows[0].with_header, census.rows[0].without_header()), (3, 2));
    // A table that looks at the first bytes finds none of them.
    let blind = sealed(&db, JsonbStore(Wrong::LooksAtTheFirstBytes), schemas()).await;
    let missed = blind.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((missed.rows[0].with_header, missed.rows[0].without_header()), (0, 5));

    // Those that have a header are not fetched.
    let done = store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.sealed, done.unchanged, done.skipped), (2, 0, 0));
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((census.rows[0].with_header, census.rows[0].without_header()), (5, 0));
    let names = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM log WHERE payload::text LIKE '%Ada%'")
        .fetch_one(&db.0.pool)
        .await
        .unwrap();
    assert_eq!(names, 0, "I2: plaintext is left");

    // The search finds headers wherever they are.
    let (scope, every) = (KeyScope::new("Customer", "42"), EventsOfOptions::default());
    let mut search = store.events_of(&mut connection, &scope, &every).await.unwrap();
    let page = search.next(&mut connection).await.unwrap().unwrap();
    assert_eq!((page.events.len(), page.unreadable.len()), (5, 0));

    let mut tx = db.0.pool.begin().await.unwrap();
    let stream = store.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap();
    for event in &stream.events {
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&event.payload).unwrap(),
            serde_json::json!({ "id": "42", "name": "Ada" })
        );
    }
    assert_eq!(stream.events.len(), 5);
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "42"), "asked for").await.unwrap();
    tx.commit().await.unwrap();
    let stream = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap();
    assert!(stream.events.iter().all(PersistedEvent::is_redacted));
    let done = store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.sealed, done.unchanged, done.skipped), (0, 0, 0));
}
