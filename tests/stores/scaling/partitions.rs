//! Events that are partitioned by the hash of their stream, and keys by the hash of their scope: the page's SQL, and
//! the contracts of all ports on the tables that it makes.

use super::page;
use super::{append, process, shows, shred};
use eventseal::conformance::{self, Database, EVENT_TYPE, EVENT_VERSION};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{
    Error, EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Schemas, SealedStore, aggregate, event,
    internals, subject,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::sync::Arc;
use support::{Deadline, Postgres};
use uuid::Uuid;

const EVENTS: &str = "-- Events by the hash of their stream";
const KEYS: &str = "-- Keys by the hash of their scope";

/// Tables as `migrate` makes them, and then what the page says.
async fn partitioned(tables: &[PostgresTables]) -> Postgres {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    for tables in tables {
        let store = PostgresStore::with_tables(tables.clone()).unwrap();
        store.migrate(&mut connection).await.unwrap();
    }
    PostgresKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.unwrap();
    for begins in [EVENTS, KEYS] {
        connection.execute(AssertSqlSafe(page::sql(begins))).await.unwrap();
    }
    drop(connection);
    db
}

/// How many rows are in each partition.
async fn rows(connection: &mut PgConnection, table: &str) -> Vec<i64> {
    let sql = format!("SELECT count(*) FROM {table} GROUP BY tableoid ORDER BY 1");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn event_stores_over_hash_partitions_keep_the_contract() {
    let heads_first = PostgresTables::new().heads_first();
    let db = partitioned(std::slice::from_ref(&heads_first)).await;
    conformance::event_store(&db, &PostgresStore::with_tables(heads_first).unwrap()).await;
    // Events first, bare and sealed.
    let db = partitioned(&[PostgresTables::new()]).await;
    conformance::event_store(&db, &PostgresStore::new()).await;
    let schemas = event(EVENT_TYPE).version(EVENT_VERSION).protect(&["/text"], subject("Owner", "/owner"));
    let schemas = Schemas::new([schemas]).unwrap();
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let sealed = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), keyring, schemas);
    sealed.keys().prepare(&mut db.connect().await.unwrap()).await.unwrap();
    conformance::event_store(&db, &sealed).await;
    let rows = rows(&mut db.connect().await.unwrap(), "events").await;
    assert!(rows.len() == 4 && rows[0] > 0, "events are in every partition: {rows:?}");
}

#[tokio::test]
async fn event_tables_over_hash_partitions_keep_the_contract() {
    let db = partitioned(&[PostgresTables::new()]).await;
    conformance::event_table(&db, &PostgresStore::new()).await;
}

#[tokio::test]
async fn key_stores_over_hash_partitions_keep_the_contract() {
    let db = partitioned(&[PostgresTables::new()]).await;
    process().keys().prepare(&mut db.connect().await.unwrap()).await.unwrap();
    conformance::key_store(&db, &PostgresKeys::new()).await;
}

#[tokio::test]
async fn key_tables_over_hash_partitions_keep_the_contract() {
    conformance::key_table(&partitioned(&[PostgresTables::new()]).await, &PostgresKeys::new()).await;
}

#[tokio::test]
async fn stores_beside_keys_over_hash_partitions_keep_the_contract() {
    let db = partitioned(&[PostgresTables::new()]).await;
    process().keys().prepare(&mut db.connect().await.unwrap()).await.unwrap();
    conformance::beside_keys(&db, &PostgresStore::new(), &PostgresKeys::new()).await;
}

/// What the constraints do on hash partitions: those of a stream and of a scope hold, and others are gone.
#[tokio::test]
async fn the_constraints_of_hash_partitions_are_those_that_the_page_names() {
    let db = partitioned(&[PostgresTables::new()]).await;
    let mut connection = db.connect().await.unwrap();
    let sql = "SELECT conrelid::regclass || ': ' || pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype IN ('p', 'u') AND conrelid IN ('events'::regclass, 'key_scopes'::regclass, 'data_keys'::regclass)
        ORDER BY 1";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.unwrap();
    let expected = [
        "data_keys: PRIMARY KEY (key_id, scope_kind, scope_id)",
        "data_keys: UNIQUE (scope_kind, scope_id, version)",
        "events: UNIQUE (aggregate_type, aggregate_id, aggregate_version)",
        "key_scopes: PRIMARY KEY (scope_kind, scope_id)",
    ];
    assert_eq!(found, expected);
    let store = PostgresStore::new();
    let twice = NewEvent::raw("Placed", 1, "{}");
    let mut tx = connection.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, std::slice::from_ref(&twice)).await.unwrap();
    tx.commit().await.unwrap();
    // One after the other: found, whatever the stream. At once, in two streams: nothing finds it.
    for id in ["1", "2"] {
        let mut tx = connection.begin().await.unwrap();
        let again =
            store.append(&mut tx, &aggregate("Order", id), ExpectedVersion::Any, std::slice::from_ref(&twice)).await;
        assert!(matches!(again, Err(Error::DuplicateEventId { .. })), "{again:?}");
    }
    let twice = twice.with_id(Uuid::now_v7());
    let mut other = db.connect().await.unwrap();
    let (mut first, mut second) = (connection.begin().await.unwrap(), other.begin().await.unwrap());
    store
        .append(&mut first, &aggregate("Order", "3"), ExpectedVersion::Any, std::slice::from_ref(&twice))
        .await
        .unwrap();
    store.append(&mut second, &aggregate("Order", "4"), ExpectedVersion::Any, &[twice]).await.unwrap();
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    // At once, in one stream: the second waits, and is refused.
    let twice = NewEvent::raw("Placed", 1, "{}");
    let (mut first, mut second) = (connection.begin().await.unwrap(), other.begin().await.unwrap());
    let order = aggregate("Order", "5");
    store.append(&mut first, &order, ExpectedVersion::Any, std::slice::from_ref(&twice)).await.unwrap();
    let events = [twice];
    let waiting = store.append(&mut second, &order, ExpectedVersion::Any, &events);
    let meanwhile = async {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Deadline::of("for the second append to wait");
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&db.pool).await.unwrap() == 0 {
            deadline.look_again().await;
        }
        first.commit().await.unwrap();
    };
    let (again, ()) = tokio::join!(waiting, meanwhile);
    assert!(matches!(again, Err(Error::DuplicateEventId { .. })), "{again:?}");
}

/// A life of keys on partitions: everything that operators do works on the whole table.
#[tokio::test]
async fn keys_in_hash_partitions_are_shredded_rotated_and_listed() {
    let db = partitioned(&[PostgresTables::new()]).await;
    let mut connection = db.connect().await.unwrap();
    let store = process();
    let keys = store.keys();
    keys.prepare(&mut connection).await.unwrap();
    let ids: Vec<String> = (0..20).map(|id| id.to_string()).collect();
    for id in &ids {
        append(&mut connection, &store, id).await.unwrap();
    }
    assert_eq!(rows(&mut connection, "data_keys").await.len(), 4);
    for id in &ids[..5] {
        shred(&mut connection, &store, id).await.unwrap();
    }
    let old = keys.kek_usage(&mut connection).await.unwrap()[0].kek.kek_id;
    keys.rotate_kek(&mut connection, "default").await.unwrap();
    let rewrapped =
        keys.rewrap(&mut connection, &eventseal::keys::RewrapOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(rewrapped.rewrapped, 16, "15 customers and the integrity key");
    keys.retire_kek(&mut connection, old).await.unwrap();
    for (at, id) in ids.iter().enumerate() {
        assert_eq!(shows(&mut connection, &process(), id).await.unwrap(), at >= 5, "{id}");
    }
    assert!(keys.verify_log(&mut connection, &[], &mut |_| {}).await.unwrap().is_sound());
    // The triggers guard the partitions too.
    for sql in [
        "DELETE FROM data_keys",
        "UPDATE data_keys SET wrapped_key = '\\x00', state = 'live', shredded_at = NULL WHERE wrapped_key IS NULL",
        "TRUNCATE key_scopes CASCADE",
    ] {
        let refused = connection.execute(sql).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "23001", "{sql}");
    }
    // One that names a partition passes by the triggers for statements.
    let mut tx = connection.begin().await.unwrap();
    assert!(tx.execute("DELETE FROM data_keys_0").await.unwrap().rows_affected() > 0);
    tx.rollback().await.unwrap();
    let scope = KeyScope::new("Customer", "7");
    assert!(keys.key_history(&mut connection, &scope).await.unwrap().is_some());
}

/// The plan of a statement for any values, as a prepared statement keeps it.
async fn plan(connection: &mut PgConnection, sql: &str, arguments: &str) -> String {
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    connection.execute(AssertSqlSafe(format!("PREPARE planned AS {sql}"))).await.unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE planned({arguments})");
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap();
    connection.execute("DEALLOCATE planned").await.unwrap();
    lines.join("\n")
}

#[tokio::test]
async fn a_stream_is_read_from_one_partition_and_the_log_from_all_in_order() {
    let db = partitioned(&[PostgresTables::new()]).await;
    let mut connection = db.connect().await.unwrap();
    let fill = "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload)
        SELECT 'Order', (n / 10)::text, n % 10 + 1, gen_random_uuid(), 'Placed', '{}'
        FROM generate_series(0, 19999) AS n";
    connection.execute(fill).await.unwrap();
    connection.execute("ANALYZE events").await.unwrap();
    let statements = internals::event_statements_of(&PostgresStore::new());
    let sql = |name: &str| statements.iter().find(|(known, _)| *known == name).unwrap().1.to_string();
    let stream = plan(&mut connection, &sql("read_stream"), "'Order', '7', 1, 100").await;
    assert!(stream.contains("Subplans Removed: 3") && !stream.contains("Seq Scan"), "{stream}");
    let log = plan(&mut connection, &sql("read_log"), "100, 50").await;
    assert!(log.contains("Merge Append") && !log.contains("Seq Scan"), "{log}");
    assert_eq!(log.matches("global_position_idx").count(), 4, "{log}");
    let known = plan(&mut connection, &sql("known_id"), "'{00000000-0000-0000-0000-000000000001}'").await;
    assert_eq!(known.matches("event_id_idx").count(), 4, "each partition is asked: {known}");
}
