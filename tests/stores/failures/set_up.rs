//! Tables, columns and permissions that are missing, and migrations.

use super::{on_postgres, on_sqlite, order, placed, postgres, sqlite};
use eventseal::ExpectedVersion::Any;
use eventseal::error::SetUpFault;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Error, EventStore, EventStoreExt, KeyScope, Namespace};
use sqlx::{AssertSqlSafe, Connection, Executor};
use support::{Postgres, Sqlite};

#[tokio::test]
async fn missing_tables_columns_and_permissions_are_errors_of_their_own() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    PostgresKeys::new().migrate(&mut connection, &Namespace::new("shop").unwrap()).await.unwrap();
    on_postgres().keys().prepare(&mut connection).await.unwrap();
    for read in [false, true] {
        let mut tx = connection.begin().await.unwrap();
        let error = match read {
            true => on_postgres().read_stream(&mut tx, &order()).await.unwrap_err(),
            false => on_postgres().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err(),
        };
        assert!(
            matches!(
                &error,
                Error::SetUp(SetUpFault::NoEventTables { table, .. })
                    if table.contains("events") || table.contains("heads")
            ),
            "{error:?}"
        );
        assert!(!error.is_retryable() && !error.is_outage());
    }
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    let role = format!("reader_{}", uuid::Uuid::now_v7().simple());
    connection
        .execute(AssertSqlSafe(format!("CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")))
        .await
        .unwrap();
    let mut tx = connection.begin().await.unwrap();
    tx.execute(AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.unwrap();
    let error = on_postgres().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(
        matches!(&error, Error::SetUp(SetUpFault::PermissionDenied { source, .. }) if source.code() == Some("42501")),
        "{error:?}"
    );
    drop(tx);
    connection.execute(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"))).await.unwrap();
    connection.execute("ALTER TABLE events RENAME COLUMN event_version TO version").await.unwrap();
    let error = on_postgres().read_stream(&mut connection, &order()).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::OutdatedTables { .. })), "{error:?}");
    connection.execute("DROP TABLE data_keys CASCADE").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_postgres().keys().key_history(&mut tx, &KeyScope::new("Customer", "42")).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::NotMigrated)), "{error:?}");
}

#[tokio::test]
async fn missing_tables_columns_and_permissions_are_errors_of_their_own_on_sqlite() {
    let db = Sqlite::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("shop").unwrap()).await.unwrap();
    on_sqlite().keys().prepare(&mut connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_sqlite().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::SetUp(SetUpFault::NoEventTables { table, .. })
                if table == "events" || table == "aggregate_heads"
        ),
        "{error:?}"
    );
    tx.rollback().await.unwrap();
    SqliteStore::new().migrate(&mut connection).await.unwrap();
    connection.execute("PRAGMA query_only = ON").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    let error = on_sqlite().append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::PermissionDenied { .. })), "{error:?}");
    tx.rollback().await.unwrap();
    connection.execute("PRAGMA query_only = OFF").await.unwrap();
    connection.execute("ALTER TABLE events RENAME COLUMN event_version TO version").await.unwrap();
    let error = on_sqlite().read_stream(&mut connection, &order()).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::OutdatedTables { .. })), "{error:?}");
}

/// A migration that this version does not know, as a newer one writes it down.
fn newer(bookkeeping: &str, description: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(format!(
        "INSERT INTO {bookkeeping} (version, description, installed_on, success, checksum, execution_time)
         SELECT 90, '{description}', installed_on, success, checksum, execution_time
             FROM {bookkeeping} WHERE version = 1"
    ))
}

#[tokio::test]
async fn a_newer_migration_does_not_stop_older_code_unless_it_is_marked() {
    let namespace = Namespace::new("conformance").unwrap();
    let (db, store) = postgres().await;
    let mut connection = db.pool.acquire().await.unwrap();
    for table in ["_keys_migrations", "_events_migrations"] {
        connection.execute(newer(table, "additive")).await.unwrap();
    }
    PostgresKeys::new().migrate(&mut connection, &namespace).await.unwrap();
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    assert_eq!(PostgresKeys::new().applied_migration(&mut connection).await.unwrap(), Some(90));
    store.keys().prepare(&mut connection).await.unwrap();
    for table in ["_keys_migrations", "_events_migrations"] {
        connection
            .execute(AssertSqlSafe(format!("UPDATE {table} SET description = 'breaking: x' WHERE version = 90")))
            .await
            .unwrap();
    }
    for error in [
        PostgresKeys::new().migrate(&mut connection, &namespace).await.unwrap_err(),
        PostgresStore::new().migrate(&mut connection).await.unwrap_err(),
        PostgresKeys::new().applied_migration(&mut connection).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::SetUp(SetUpFault::NewerTables { found: 90, .. })), "{error:?}");
    }
    let (db, store) = sqlite().await;
    let mut connection = db.pool.acquire().await.unwrap();
    connection.execute(newer("_keys_migrations", "additive")).await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &namespace).await.unwrap();
    store.keys().prepare(&mut connection).await.unwrap();
    connection.execute("UPDATE _keys_migrations SET description = 'breaking' WHERE version = 90").await.unwrap();
    let error = SqliteKeys::new().migrate(&mut connection, &namespace).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::NewerTables { found: 90, .. })), "{error:?}");
}

#[tokio::test]
async fn a_migration_that_fails_holds_up_nobody_elses() {
    let db = Postgres::empty().await;
    let mut connection = db.pool.acquire().await.unwrap();
    connection.execute("CREATE TABLE events (x INT)").await.unwrap();
    let error = PostgresStore::new().migrate(&mut connection).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::TablesExist { .. })), "{error:?}");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database \
        WHERE datname = current_database())";
    let held: i64 = sqlx::query_scalar(held).fetch_one(&mut *connection).await.unwrap();
    assert_eq!(held, 0, "the session still has the lock that others wait for");
}
