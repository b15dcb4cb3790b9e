//! Rows of keys, migrations and what is left in the file.

use super::{cold, placed, schemas, store};
use eventseal::ExpectedVersion::Any;
use eventseal::error::{EventFault, KeyFault, SetUpFault, StorageFault, TransactionFault};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Error, EventStore, EventStoreExt, KeyScope, Keyring, Namespace, SealedStore, aggregate};
use sqlx::Connection;
use support::Sqlite;

#[tokio::test]
async fn i5_a_shredded_scope_with_a_key_left_is_not_reopened() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (order, scope) = (aggregate("Order", "1"), KeyScope::new("Customer", "42"));
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
    sqlx::query("UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = '42'")
        .execute(&mut *tx)
        .await
        .unwrap();
    let error = store.keys().reopen(&mut tx, &scope, "r").await.unwrap_err();
    assert!(
        matches!(&error, Error::Keys(KeyFault::ScopeState { .. })) && error.to_string().contains("shred it again"),
        "{error:?}"
    );
    assert_eq!(store.keys().shred(&mut tx, &scope, "r").await.unwrap().destroyed.len(), 1);
    store.keys().reopen(&mut tx, &scope, "r").await.unwrap();
    assert!(store.read_stream(&mut tx, &order).await.unwrap().events[0].is_redacted());
}

#[tokio::test]
async fn numbers_in_key_rows_that_can_not_grow_are_errors_and_not_panics() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (order, scope) = (aggregate("Order", "1"), KeyScope::new("Customer", "42"));
    for operation in ["reopen", "rotate", "append"] {
        let mut tx = db.pool.begin().await.unwrap();
        store.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
        let sql = if operation == "reopen" {
            store.keys().shred(&mut tx, &scope, "r").await.unwrap();
            "UPDATE key_scopes SET generation = 4294967295"
        } else {
            "UPDATE data_keys SET version = 4294967295 WHERE scope_id = '42'"
        };
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
        let error = match operation {
            "reopen" => store.keys().reopen(&mut tx, &scope, "r").await.map(drop),
            "rotate" => store.keys().rotate_data_key(&mut tx, &scope).await.map(drop),
            _ => {
                sqlx::query("UPDATE key_scopes SET active_key_id = NULL WHERE scope_id = '42'")
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                store.append(&mut tx, &order, Any, &[placed("42")]).await.map(drop)
            }
        };
        assert!(matches!(error, Err(Error::Storage(StorageFault::InvalidRow { .. }))), "{operation}: {error:?}");
    }
}

#[tokio::test]
async fn migrating_is_idempotent_and_the_namespace_is_immutable() {
    let db = Sqlite::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let (here, elsewhere) = (Namespace::new("conformance").unwrap(), Namespace::new("elsewhere").unwrap());
    SqliteStore::new().migrate(&mut connection).await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &here).await.unwrap();
    let error = SqliteKeys::new().migrate(&mut connection, &elsewhere).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::NamespaceMismatch { .. })), "{error:?}");
    assert!(sqlx::query("UPDATE key_namespace SET namespace = 'elsewhere'").execute(&mut *connection).await.is_err());
    store(&db).await;
    for table in ["key_namespace", "key_scopes", "data_keys"] {
        let sql = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        assert!(sqlx::query(sql).execute(&mut *connection).await.is_err(), "{table} let rows be deleted");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(mode, "wal");
    let mut tx = db.pool.begin().await.unwrap();
    assert!(matches!(
        SqliteStore::new().migrate(&mut tx).await,
        Err(Error::Transaction(TransactionFault::InTransaction { .. }))
    ));
    assert!(SqliteStore::with_tables("events\"; DROP TABLE events; --", "heads").is_err());
    assert!(SqliteKeys::with_prefix("a b").is_err());
}

/// REPLACE deletes what is in its way without firing delete triggers. The guards are against mistakes, such
/// as a careless restore; whoever may drop them can do as they like.
#[tokio::test]
async fn i5_shredded_keys_scopes_and_namespaces_can_not_be_replaced() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42"), placed("43")]).await.unwrap();
    sqlx::raw_sql("CREATE TABLE loot AS SELECT * FROM data_keys; CREATE TABLE scopes AS SELECT * FROM key_scopes")
        .execute(&mut *tx)
        .await
        .unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "42"), "r").await.unwrap();
    tx.commit().await.unwrap();
    let other_id = "'00000000-0000-4000-8000-000000000000', scope_kind, scope_id, version, wrapped_key, kek_id, state, \
        created_at, shredded_at, NULL";
    for sql in [
        "REPLACE INTO data_keys SELECT * FROM loot WHERE scope_id = '42'",
        &format!("REPLACE INTO data_keys SELECT {other_id} FROM loot WHERE scope_id = '42'"),
        "INSERT INTO data_keys SELECT * FROM loot WHERE scope_id = '42' ON CONFLICT DO UPDATE SET wrapped_key = \
         excluded.wrapped_key",
        "UPDATE data_keys SET wrapped_key = x'00', state = 'live', shredded_at = NULL WHERE scope_id = '42'",
        "UPDATE OR REPLACE data_keys SET key_id = (SELECT key_id FROM loot WHERE scope_id = '42') WHERE scope_id = \
         '43'",
        "UPDATE OR REPLACE data_keys SET scope_id = '42' WHERE scope_id = '43'",
        "REPLACE INTO key_scopes SELECT * FROM scopes WHERE scope_id = '42'",
        "UPDATE OR REPLACE key_scopes SET scope_id = '42' WHERE scope_id = '43'",
        "REPLACE INTO key_namespace VALUES (1, 'other', '2026-01-01T00:00:00Z')",
    ] {
        let mut connection = db.pool.acquire().await.unwrap();
        // Whatever refuses it, it must not be a foreign key: not every tool switches these on.
        sqlx::query("PRAGMA foreign_keys = OFF").execute(&mut *connection).await.unwrap();
        let refused = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
        let refused = refused.expect_err(sql).to_string();
        assert!(["never", "stays shredded"].iter().any(|word| refused.contains(word)), "{sql}: {refused}");
        assert!(store.read_stream(&mut connection, &order).await.unwrap().events[0].is_redacted(), "{sql}");
        connection.close().await.unwrap();
    }
    let mut connection = db.pool.acquire().await.unwrap();
    SqliteKeys::new()
        .migrate(&mut connection, &Namespace::new("conformance").unwrap())
        .await
        .expect("migrating stays idempotent");
}

#[tokio::test]
async fn tables_that_were_not_migrated_are_named_as_the_problem() {
    let db = Sqlite::empty().await;
    let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas());
    let error = store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::SetUp(SetUpFault::NotMigrated)), "{error:?}");
}

/// A wrapped key that was destroyed is not left in the file for whoever has a key-encryption key.
#[tokio::test]
async fn shredded_keys_are_overwritten_in_the_file() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (erased, kept) = (KeyScope::new("Customer", "42"), KeyScope::new("Customer", "43"));
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42"), placed("43")]).await.unwrap();
    // Rows of both, so that some lie where nothing else overwrites them by chance.
    for _ in 0..20 {
        store.keys().rotate_data_key(&mut tx, &erased).await.unwrap();
        store.keys().rotate_data_key(&mut tx, &kept).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    let wrapped: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT scope_id, wrapped_key FROM data_keys WHERE scope_kind = 'Customer'")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    assert_eq!(wrapped.len(), 42);
    let mut tx = db.pool.begin().await.unwrap();
    assert_eq!(store.keys().shred(&mut tx, &erased, "request").await.unwrap().destroyed.len(), 21);
    tx.commit().await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_all(&mut *connection).await.unwrap();
    let file = std::fs::read(db.folder.path().join("test.db")).unwrap();
    let holds = |bytes: &[u8]| file.windows(bytes.len()).any(|window| window == bytes);
    for (scope, key) in &wrapped {
        match scope.as_str() {
            "42" => assert!(!key.chunks(12).any(holds), "parts of a destroyed key are still in the file"),
            _ => assert!(holds(key), "a live key is gone"),
        }
    }
}

#[tokio::test]
async fn i3_swapped_or_altered_key_rows_are_wrong_keys() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42"), placed("43")]).await.unwrap();
    tx.commit().await.unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    for sql in [
        "UPDATE data_keys SET wrapped_key = (SELECT wrapped_key FROM data_keys WHERE scope_id = '43') WHERE scope_id = \
         '42'",
        "UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = '42'",
        "UPDATE data_keys SET wrapped_key = x'' WHERE scope_id = '42'",
        "UPDATE data_keys SET version = 7 WHERE scope_id = '42'",
        "INSERT INTO key_scopes (scope_kind, scope_id, state, generation) VALUES ('Customer', '44', 'live', 1);
         UPDATE data_keys SET scope_id = '44' WHERE scope_id = '42'",
    ] {
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        for process in [&store, &cold()] {
            let error = process.read_stream(&mut tx, &order).await.unwrap_err();
            assert!(
                matches!(error, Error::Keys(KeyFault::WrongKey { .. })) && !error.is_retryable(),
                "{sql}: {error:?}"
            );
        }
    }
    let mut tx = connection.begin().await.unwrap();
    assert_eq!(store.read_stream(&mut tx, &order).await.unwrap().events.len(), 2);
    sqlx::raw_sql("DROP TRIGGER data_keys_stay; DELETE FROM data_keys WHERE scope_id = '42'")
        .execute(&mut *tx)
        .await
        .unwrap();
    let error = store.read_stream(&mut tx, &order).await.unwrap_err();
    assert!(
        matches!(error, Error::Event { fault: EventFault::MissingKey { .. }, .. }) && !error.is_shredded(),
        "a lost row is not an erasure: {error:?}"
    );
}

/// Somebody who can write to the key table, and has no key, points a scope at a key that is not its own.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of redirections")]
async fn i5_a_redirected_active_key_seals_nothing() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let (alice, own) = (KeyScope::new("Customer", "alice"), "SELECT active_key_id FROM key_scopes WHERE scope_id");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("alice"), placed("mallory"), placed("gone")]).await.unwrap();
    tx.commit().await.unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    let shredded: String =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{own} = 'gone'"))).fetch_one(&mut *connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "gone"), "r").await.unwrap();
    tx.commit().await.unwrap();
    for (sql, hint) in [
        (
            format!("UPDATE key_scopes SET active_key_id = ({own} = 'mallory') WHERE scope_id = 'alice'"),
            "another scope",
        ),
        (
            format!("UPDATE key_scopes SET active_key_id = ({own} = 'integrity') WHERE scope_id = 'alice'"),
            "another scope",
        ),
        (
            format!("UPDATE key_scopes SET active_key_id = ({own} = 'alice') WHERE scope_id = 'integrity'"),
            "another scope",
        ),
        (
            format!(
                "UPDATE key_scopes SET active_key_id = '{shredded}', state = 'live' WHERE scope_id IN ('alice', 'gone')"
            ),
            "key",
        ),
        (
            "UPDATE data_keys SET wrapped_key = NULL, state = 'shredded', shredded_at = '2026-01-01T00:00:00Z' WHERE \
             scope_id = 'alice'"
                .to_owned(),
            "destroyed",
        ),
    ] {
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *tx).await.unwrap();
        for process in [&store, &cold()] {
            let error = process.append(&mut tx, &order, Any, &[placed("alice")]).await.map(drop).unwrap_err();
            assert!(
                matches!(error, Error::Storage(StorageFault::InvalidRow { what: "key_scopes.active_key_id", .. })),
                "{sql}: {error:?}"
            );
            assert!(error.to_string().contains(hint), "{error}");
        }
        let integrity = sql.ends_with("'integrity'");
        let rotated =
            store.keys().rotate_data_key(&mut tx, &if integrity { KeyScope::integrity() } else { alice.clone() }).await;
        assert!(matches!(rotated, Err(Error::Storage(StorageFault::InvalidRow { .. }))), "{sql}: {rotated:?}");
        let prepared = cold().keys().prepare(&mut tx).await;
        assert_eq!(
            matches!(prepared, Err(Error::Storage(StorageFault::InvalidRow { .. }))),
            integrity,
            "{sql}: {prepared:?}"
        );
    }
    // A key that was rotated away stays so.
    let mut tx = connection.begin().await.unwrap();
    let first: String =
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{own} = 'alice'"))).fetch_one(&mut *tx).await.unwrap();
    store.keys().rotate_data_key(&mut tx, &alice).await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("alice")]).await.unwrap();
    sqlx::query("UPDATE key_scopes SET active_key_id = ? WHERE scope_id = 'alice'")
        .bind(first)
        .execute(&mut *tx)
        .await
        .unwrap();
    let error = store.append(&mut tx, &order, Any, &[placed("alice")]).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("newest"), "{error:?}");
}
