//! The contracts of the ports, on everything that implements them: {memory, SQLite, PostgreSQL} × {bare, sealed,
//! sealed and upcasting, sealed over `Arc<dyn EventStore>`}, and a store written by hand.

use async_trait::async_trait;
use eventseal::conformance::{self, Database, EVENT_TYPE, EVENT_VERSION};
use eventseal::keys::KeyTable;
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::store::check_append;
use eventseal::{
    AggregateRef, AggregateVersion, Appended, Error, EventFilter, EventPage, EventStore, ExpectedVersion,
    GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Result, Schemas, SealedStore, Stream, VersionRange,
    aggregate, event, subject,
};
use serde_json::Value;
use sqlx::{Row, SqliteConnection};
use std::sync::Arc;
use support::{Memory, Postgres, Sqlite, contains};

fn sealed_schemas() -> Schemas {
    Schemas::new([event(EVENT_TYPE).version(EVENT_VERSION).protect(&["/text"], subject("Owner", "/owner"))]).unwrap()
}

/// The suite's version is an older one: every read upcasts, to a payload that is equal as JSON.
fn upcasting_schemas() -> Schemas {
    let event = event(EVENT_TYPE)
        .version(1)
        .protect(&["/text"], subject("Owner", "/owner"))
        .version(2)
        .protect_same_as(1)
        .upcast(1, Ok::<Value, std::convert::Infallible>);
    Schemas::builder([event]).allow_older_appends().build().unwrap()
}

/// Runs the suite on a store as it is, and wrapped in every way.
async fn every_way<D, S, K>(db: &D, store: S, keys: K)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + Clone + 'static,
    K: KeyTable<Tx = D::Tx> + Clone + 'static,
{
    conformance::event_store(db, &store).await;
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let prepared = |store: SealedStore<Arc<dyn EventStore<Tx = D::Tx>>>| async {
        let mut connection = db.connect().await.unwrap();
        store.keys().prepare(db.connection(&mut connection)).await.unwrap();
        store
    };
    let sealed = SealedStore::new(store.clone(), keys.clone(), Arc::clone(&keyring), sealed_schemas());
    sealed.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    conformance::event_store(db, &sealed).await;
    let upcasting = SealedStore::new(store.clone(), keys.clone(), Arc::clone(&keyring), upcasting_schemas());
    upcasting.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    conformance::event_store(db, &upcasting).await;
    let dynamic: Arc<dyn EventStore<Tx = D::Tx>> = Arc::new(store.clone());
    let over_dyn = prepared(SealedStore::new(dynamic, keys, keyring, sealed_schemas())).await;
    let over_dyn: Arc<dyn EventStore<Tx = D::Tx>> = Arc::new(over_dyn);
    conformance::event_store(db, &over_dyn).await;

    // I2: what the inner store holds of all that never contains a protected text.
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let page = store.read_events(tx, GlobalPosition::START, u32::MAX, &EventFilter::default()).await.unwrap();
    let (bare, sealed): (Vec<_>, Vec<_>) = page.events.iter().partition(|event| !contains(&event.payload, "$seal"));
    assert!(bare.iter().all(|event| contains(&event.payload, "text ")) && !bare.is_empty());
    assert!(sealed.iter().all(|event| !contains(&event.payload, "text ")) && sealed.len() > 2 * bare.len());
}

#[tokio::test]
async fn memory_stores_keep_the_contract() {
    every_way(&Memory::new(), MemoryStore::new(), MemoryKeys::new()).await;
}

#[tokio::test]
async fn sqlite_stores_keep_the_contract() {
    let db = Sqlite::new().await;
    every_way(&db, SqliteStore::new(), SqliteKeys::new()).await;
}

#[tokio::test]
async fn sqlite_stores_with_names_of_their_own_keep_the_contract() {
    let (store, keys) =
        (SqliteStore::with_tables("shop_events", "shop_heads").unwrap(), SqliteKeys::with_prefix("shop_").unwrap());
    let db = Sqlite::empty().await;
    let mut connection = db.connect().await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    keys.migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    drop(connection);
    every_way(&db, store, keys).await;
}

#[tokio::test]
async fn postgres_stores_keep_the_contract() {
    every_way(&Postgres::new().await, PostgresStore::new(), PostgresKeys::new()).await;
}

/// The newest spelling of eventsalsa, in a schema, with notifications; keys elsewhere, behind a prefix.
#[tokio::test]
async fn postgres_stores_with_names_of_their_own_keep_the_contract() {
    let tables = PostgresTables::streams().in_schema("Shop").events("shop_Events").notify("Shop_events");
    let store = PostgresStore::with_tables(tables).unwrap();
    let keys = PostgresKeys::new().in_schema("keys").unwrap().with_prefix("Shop_").unwrap();
    let keys = keys.lock_timeout(std::time::Duration::from_secs(20));
    let db = Postgres::empty().await;
    let mut connection = db.connect().await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    keys.migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    drop(connection);
    every_way(&db, store, keys).await;
}

/// Tables as the newest eventsalsa makes them, with events that are partitioned by position.
#[tokio::test]
async fn postgres_stores_over_partitions_keep_the_contract() {
    let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(PostgresTables::streams()).unwrap());
    db.partitioned(&[(1, 20), (20, 3_000), (3_000, 7_000)]).await;
    PostgresKeys::new()
        .migrate(&mut db.connect().await.unwrap(), &Namespace::new("conformance").unwrap())
        .await
        .unwrap();
    every_way(&db, store, PostgresKeys::new()).await;
}

#[tokio::test]
async fn postgres_tables_of_partitions_keep_the_contract() {
    let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(PostgresTables::streams()).unwrap());
    db.partitioned(&[(1, 10), (10, 100)]).await;
    conformance::event_table(&db, &store).await;
}

#[tokio::test]
async fn memory_tables_keep_the_contract() {
    conformance::event_table(&Memory::new(), &MemoryStore::new()).await;
}

#[tokio::test]
async fn sqlite_tables_keep_the_contract() {
    conformance::event_table(&Sqlite::new().await, &SqliteStore::new()).await;
    let (db, store) = (Sqlite::empty().await, SqliteStore::with_tables("shop_events", "shop_heads").unwrap());
    store.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::event_table(&db, &Arc::new(store)).await;
}

#[tokio::test]
async fn postgres_tables_keep_the_contract() {
    conformance::event_table(&Postgres::new().await, &PostgresStore::new()).await;
    let tables = PostgresTables::streams().in_schema("Shop").events("shop_Events").notify("Shop_events");
    let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(tables).unwrap());
    store.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::event_table(&db, &store).await;
}

/// Both contracts, and through an `Arc`, also of a trait object.
async fn key_tables_keep_the_contract<D: Database, K: KeyTable<Tx = D::Tx> + 'static>(db: &D, keys: K) {
    let keys: Arc<dyn KeyTable<Tx = D::Tx>> = Arc::new(keys);
    conformance::key_table(db, &keys).await;
    conformance::key_store(db, &keys).await;
}

#[tokio::test]
async fn memory_keys_keep_the_contract() {
    key_tables_keep_the_contract(&Memory::new(), MemoryKeys::new()).await;
}

#[tokio::test]
async fn sqlite_keys_keep_the_contract() {
    key_tables_keep_the_contract(&Sqlite::new().await, SqliteKeys::new()).await;
}

#[tokio::test]
async fn postgres_keys_keep_the_contract() {
    key_tables_keep_the_contract(&Postgres::new().await, PostgresKeys::new()).await;
    let impatient = PostgresKeys::new().lock_timeout(std::time::Duration::from_secs(20));
    key_tables_keep_the_contract(&Postgres::new().await, impatient).await;
}

#[tokio::test]
async fn the_keyring_keeps_the_contract_of_a_kms() {
    conformance::kms(&Keyring::generate("main").unwrap()).await;
}

// ---- any `EventStore`: one log table, JSON re-printed as a JSONB column would, nothing shared with SqliteStore

#[derive(Clone)]
struct HandWritten;

const LOG: &str = "CREATE TABLE log (position INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT, id TEXT, version INTEGER, \
    event TEXT, UNIQUE (at, id, version))";

impl HandWritten {
    async fn read(
        &self,
        tx: &mut SqliteConnection,
        sql: &'static str,
        args: [String; 4],
    ) -> Result<Vec<PersistedEvent>> {
        let [a, b, c, d] = args;
        let failed = |source: sqlx::Error| Error::Database { operation: "reading", source: source.into() };
        let rows = sqlx::query(sql).bind(a).bind(b).bind(c).bind(d).fetch_all(tx).await.map_err(failed)?;
        rows.iter()
            .map(|row| {
                let e: Value = serde_json::from_str(row.get("event")).unwrap();
                let text = |name: &str| e[name].as_str().map(str::to_owned);
                let mut new = NewEvent::raw(
                    e["type"].as_str().unwrap(),
                    u32::try_from(e["v"].as_u64().unwrap()).unwrap(),
                    e["payload"].to_string(),
                );
                new.event_id = e["id"].as_str().unwrap().parse().unwrap();
                new.metadata = (!e["metadata"].is_null()).then(|| e["metadata"].to_string().into_bytes());
                (new.trace_id, new.correlation_id, new.causation_id) =
                    (text("trace"), text("correlation"), text("causation"));
                new.created_at =
                    time::OffsetDateTime::from_unix_timestamp_nanos(e["us"].as_i64().unwrap() as i128 * 1000).unwrap();
                let of = aggregate(row.get::<String, _>("at"), row.get::<String, _>("id"));
                Ok(PersistedEvent::from_new(
                    of,
                    row.get::<i64, _>("version").try_into()?,
                    row.get::<i64, _>("position").try_into()?,
                    new,
                ))
            })
            .collect()
    }
}

#[async_trait]
impl EventStore for HandWritten {
    type Tx = SqliteConnection;

    async fn append(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        check_append(aggregate, events)?;
        let actual = self.read_aggregate_stream(tx, aggregate, (..).into()).await?.last_version;
        if !expected.accepts(actual) {
            return Err(Error::VersionConflict { aggregate: aggregate.clone(), expected, actual });
        }
        for event in events {
            let known = sqlx::query("SELECT 1 FROM log WHERE event ->> 'id' = ?1")
                .bind(event.event_id.to_string())
                .fetch_optional(&mut *tx)
                .await
                .unwrap();
            if known.is_some() {
                return Err(Error::DuplicateEventId { event_id: event.event_id });
            }
        }
        let mut version = actual.map_or(AggregateVersion::FIRST, AggregateVersion::next);
        let mut appended = Vec::new();
        for event in events {
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            let row = serde_json::json!({
                "id": event.event_id.to_string(), "type": event.event_type.as_str(), "v": event.event_version.get(),
                "payload": json(event.payload()), "metadata": event.metadata.as_deref().map(json),
                "trace": event.trace_id, "correlation": event.correlation_id, "causation": event.causation_id,
                "us": (event.created_at.unix_timestamp_nanos() / 1000) as i64
            });
            let done = sqlx::query("INSERT INTO log (at, id, version, event) VALUES (?1, ?2, ?3, ?4)")
                .bind(aggregate.aggregate_type())
                .bind(aggregate.aggregate_id())
                .bind(version.get())
                .bind(row.to_string())
                .execute(&mut *tx)
                .await;
            let done = done.map_err(|source| Error::Collision { source: Some(source.into()) })?;
            appended.push(PersistedEvent::from_new(
                aggregate.clone(),
                version,
                done.last_insert_rowid().try_into()?,
                event.clone(),
            ));
            version = version.next();
        }
        Ok(Appended { events: appended })
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let sql =
            "SELECT * FROM log WHERE at = ?1 AND id = ?2 AND version >= ?3 + 0 AND version <= ?4 + 0 ORDER BY version";
        let (from, to) = (range.from.unwrap_or(0).to_string(), range.to.unwrap_or(i64::MAX).to_string());
        let events =
            self.read(tx, sql, [aggregate.aggregate_type().into(), aggregate.aggregate_id().into(), from, to]).await?;
        let last_version = events.last().map(|event| event.aggregate_version);
        Ok(Stream { aggregate: aggregate.clone(), events, last_version })
    }

    async fn read_events(
        &self,
        tx: &mut SqliteConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let sql = "SELECT * FROM log WHERE position > ?1 + 0 AND (?2 = '[]' OR at IN (SELECT value FROM \
            json_each(?2))) AND (?3 = '[]' OR event ->> 'type' IN (SELECT value FROM json_each(?3))) ORDER BY position \
            LIMIT ?4 + 0";
        let list = |names: &[String]| serde_json::to_string(names).unwrap();
        let events = self
            .read(
                tx,
                sql,
                [after.get().to_string(), list(&filter.aggregate_types), list(&filter.event_types), limit.to_string()],
            )
            .await?;
        let next = events.last().map_or(after, |event| event.global_position);
        Ok(EventPage { scanned: events.len() as u32, events, next })
    }

    async fn latest_global_position(&self, tx: &mut SqliteConnection) -> Result<GlobalPosition> {
        sqlx::query_scalar::<_, i64>("SELECT coalesce(max(position), 0) FROM log")
            .fetch_one(tx)
            .await
            .unwrap()
            .try_into()
    }
}

/// A store that re-spaces and re-orders payloads does not keep bytes, so it is run sealed and upcasting.
#[tokio::test]
async fn any_event_store_can_be_wrapped() {
    let db = Sqlite::new().await;
    sqlx::query(LOG).execute(&mut *db.connect().await.unwrap()).await.unwrap();
    let store =
        SealedStore::new(HandWritten, SqliteKeys::new(), Keyring::generate("main").unwrap(), upcasting_schemas());
    store.keys().prepare(&mut *db.connect().await.unwrap()).await.unwrap();
    conformance::event_store(&db, &store).await;
    let mut transaction = db.begin().await.unwrap();
    let log: Vec<String> = sqlx::query_scalar("SELECT event FROM log").fetch_all(&mut *transaction).await.unwrap();
    assert!(log.len() > 2_000 && log.iter().all(|event| event.contains("$seal") && !event.contains("text 1")));
}
