//! Names, migrations, and rows that somebody altered.

use super::{append, placed, schemas, store};
use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::error::{InputFault, KeyFault, SetUpFault, StorageFault, TransactionFault};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{Error, EventStore, EventStoreExt, Namespace, SealedStore, aggregate};
use sqlx::{AssertSqlSafe, Executor};
use std::sync::Arc;
use support::backend::Backend;
use support::customer_scope;
use support::{KEYRING, Postgres};

#[tokio::test]
async fn a_head_that_is_behind_its_events_is_named_as_the_problem() {
    let db = Postgres::new().await;
    append(&db, &PostgresStore::new(), "1", placed("42")).await.unwrap();
    db.pool.execute("DELETE FROM aggregate_heads").await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    for expected in [Any, NoStream] {
        let error = PostgresStore::new()
            .append(&mut tx, &aggregate("Order", "1"), expected, &[placed("42")])
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Storage(StorageFault::InvalidRow { .. })) && !error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn migrating_is_idempotent_and_the_namespace_is_immutable() {
    let db = Postgres::empty().await;
    let (here, elsewhere) = (Namespace::new("conformance").unwrap(), Namespace::new("elsewhere").unwrap());
    // Processes that start at the same time.
    let migrate = || async {
        let mut connection = db.pool.acquire().await.unwrap();
        PostgresStore::new().migrate(&mut connection).await.unwrap();
        PostgresKeys::new().migrate(&mut connection, &here).await.unwrap();
    };
    tokio::join!(migrate(), migrate(), migrate());
    let mut connection = db.pool.acquire().await.unwrap();
    let error = PostgresKeys::new().migrate(&mut connection, &elsewhere).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::NamespaceMismatch { .. })), "{error:?}");
    let store = store(&db).await;
    append(&db, &store, "1", placed("42")).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    store.keys().shred(&mut tx, &customer_scope("42"), "request").await.unwrap();
    tx.commit().await.unwrap();
    for sql in [
        "UPDATE key_namespace SET namespace = 'elsewhere'",
        "DELETE FROM key_namespace",
        "DELETE FROM key_scopes",
        "DELETE FROM data_keys",
        "TRUNCATE key_scopes CASCADE",
        "TRUNCATE data_keys",
        "UPDATE data_keys SET wrapped_key = '\\x00', state = 'live', shredded_at = NULL WHERE scope_kind = 'Customer'",
    ] {
        let error = connection.execute(sql).await.unwrap_err();
        assert_eq!(
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(),
            Some("23001"),
            "{sql}"
        );
    }
    let mut tx = db.pool.begin().await.unwrap();
    assert!(matches!(
        PostgresStore::new().migrate(&mut tx).await,
        Err(Error::Transaction(TransactionFault::InTransaction { .. }))
    ));
}

#[tokio::test]
async fn tables_that_were_made_otherwise_are_not_touched() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    // The printed SQL, as a team's own migration tool runs it.
    let namespace = Namespace::new("it's").unwrap();
    let printed = [PostgresStore::new().migration_sql(), PostgresKeys::new().migration_sql(&namespace)];
    for sql in printed {
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let error = PostgresStore::new().migrate(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::TablesExist { .. })), "{error:?}");
    let store = db.process_over(db.keys().for_namespace(namespace), schemas());
    store.keys().prepare(&mut connection).await.unwrap();
    append(&db, &store, "1", placed("42")).await.unwrap();
    assert_eq!(
        store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap().events[0].payload,
        placed("42").payload()
    );
}

#[tokio::test]
async fn tables_that_were_not_migrated_are_named_as_the_problem() {
    let db = Postgres::empty().await;
    for keys in [PostgresKeys::new(), PostgresKeys::new().in_schema("nowhere").unwrap()] {
        let store = SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas());
        let error = store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::SetUp(SetUpFault::NotMigrated)), "{error:?}");
    }
}

#[test]
fn names_can_not_smuggle_sql() {
    let tables: [fn(&str) -> PostgresTables; 7] = [
        |name| PostgresTables::new().events(name),
        |name| PostgresTables::new().heads(name),
        |name| PostgresTables::new().in_schema(name),
        |name| PostgresTables::new().notify(name),
        |name| PostgresTables::new().columns(name, "b", "c"),
        |name| PostgresTables::new().columns("a", name, "c"),
        |name| PostgresTables::new().columns("a", "b", name),
    ];
    for bad in ["", "a\"b", "x; DROP TABLE events", "a'b", "{events}", "ä", "1a", "a\0"] {
        for tables in &tables {
            assert!(
                matches!(PostgresStore::with_tables(tables(bad)), Err(Error::Input(InputFault::InvalidText { .. }))),
                "{bad}"
            );
        }
        assert!(PostgresKeys::new().in_schema(bad).is_err() && PostgresKeys::new().with_prefix(bad).is_err(), "{bad}");
    }
    assert!(PostgresStore::with_tables(PostgresTables::new().heads("events")).is_err(), "one name for two tables");
}

#[tokio::test]
async fn i3_swapped_or_altered_key_rows_are_wrong_keys() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42"), placed("43")]).await.unwrap();
    tx.commit().await.unwrap();
    for sql in [
        "UPDATE data_keys SET wrapped_key = (SELECT wrapped_key FROM data_keys WHERE scope_id = '43') WHERE scope_id = \
         '42'",
        "UPDATE data_keys SET wrapped_key = decode(repeat('ab', 65), 'hex') WHERE scope_id = '42'",
        "UPDATE data_keys SET wrapped_key = '' WHERE scope_id = '42'",
        "UPDATE data_keys SET version = 7 WHERE scope_id = '42'",
    ] {
        let mut tx = db.pool.begin().await.unwrap();
        tx.execute(sql).await.unwrap();
        // A process that has the key cached, and one that does not.
        let cold = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
        for process in [&store, &cold] {
            let error = process.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap_err();
            assert!(matches!(error, Error::Keys(KeyFault::WrongKey { .. })), "{sql}: {error:?}");
        }
    }
}
