//! Durability: changes of keys are on the disk when they are committed.

use super::{OLD, Scripted, placed, schemas, scope, with_scopes};
use eventseal::ExpectedVersion::Any;
use eventseal::error::TransactionFault;
use eventseal::keys::KeyStore;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::split::{SplitKeys, SplitStore, SplitTx};
use eventseal::sqlite::SqliteKeys;
use eventseal::{Error, EventStore, Keyring, SealedStore, aggregate};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{Connection, Executor};
use support::{Postgres, Sqlite};

/// How far the log is.
async fn log(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text").fetch_one(connection).await.unwrap()
}

async fn is_flushed(db: &Postgres, end: &str) -> bool {
    sqlx::query_scalar("SELECT pg_current_wal_flush_lsn() > $1::text::pg_lsn")
        .bind(end)
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

/// The server is one that does not wait for its disk. What is committed must be there after a crash all the same.
#[tokio::test]
async fn i5_a_change_of_keys_is_on_the_disk_when_it_is_committed() {
    let db = Postgres::new().await;
    db.execute("CREATE TABLE asynchronous (name TEXT)".to_owned()).await;
    let (store, _) = with_scopes(&db).await;
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    connection.execute("SET synchronous_commit = off").await.unwrap();
    for operation in ["disable", "enable", "shred", "reopen"].into_iter().cycle().take(20) {
        let mut tx = connection.begin().await.unwrap();
        let (keys, scope) = (store.keys(), scope("live"));
        match operation {
            "disable" => keys.disable(&mut tx, &scope, "r").await.unwrap(),
            "enable" => keys.enable(&mut tx, &scope, "r").await.unwrap(),
            "shred" => drop(keys.shred(&mut tx, &scope, "r").await.unwrap()),
            _ => drop(keys.reopen(&mut tx, &scope, "r").await.unwrap()),
        }
        let end = log(&mut tx).await;
        tx.commit().await.unwrap();
        assert!(is_flushed(&db, &end).await, "{operation} was committed, and is not on the disk");
    }
    for round in 0..10 {
        let end = log(&mut connection).await;
        store.keys().create_kek(&mut connection, &format!("tenant_{round}")).await.unwrap();
        assert!(is_flushed(&db, &end).await, "a key-encryption key was made, and is not on the disk");
    }
    let kept: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, "off", "the caller's setting is his own again");
    // A stronger setting stays.
    let mut tx = connection.begin().await.unwrap();
    tx.execute("SET LOCAL synchronous_commit = remote_apply").await.unwrap();
    store.keys().disable(&mut tx, &scope("live"), "r").await.unwrap();
    let kept: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut *tx).await.unwrap();
    assert_eq!(kept, "remote_apply");
}

#[tokio::test]
async fn i6_a_key_in_another_database_is_on_the_disk_before_the_event_that_needs_it() {
    let (events, keys) = (Postgres::new().await, Postgres::new().await);
    keys.execute(
        "ALTER ROLE CURRENT_USER IN DATABASE \"$\" SET synchronous_commit = off"
            .replace('$', keys.options.get_database().unwrap()),
    )
    .await;
    let options = keys.options.clone();
    let pool = sqlx::postgres::PgPoolOptions::new().connect_with(options).await.unwrap();
    let store = SealedStore::new(
        SplitStore::new(PostgresStore::new()),
        SplitKeys::new(PostgresKeys::new()),
        Keyring::parse(OLD).unwrap(),
        schemas(),
    );
    store.keys().prepare(&mut SplitTx::begin(&events.pool, &pool).await.unwrap()).await.unwrap();
    for customer in 0..20 {
        let end = log(&mut pool.acquire().await.unwrap()).await;
        let mut tx = SplitTx::begin(&events.pool, &pool).await.unwrap();
        store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed(&customer.to_string())]).await.unwrap();
        assert!(is_flushed(&keys, &end).await, "the event can be committed, and its key be lost");
        tx.commit().await.unwrap();
    }
}

/// SQLite does not let a transaction change how durable it is: it is refused before it says more than it can hold.
#[tokio::test]
async fn i5_a_shred_that_the_power_could_take_back_is_refused() {
    let db = Sqlite::new().await;
    let (store, _) = with_scopes(&db).await;
    db.execute(
        "CREATE TABLE seen (setting INTEGER) STRICT;
         CREATE TRIGGER sees AFTER INSERT ON key_encryption_keys BEGIN
             INSERT INTO seen SELECT synchronous FROM pragma_synchronous; END"
            .to_owned(),
    )
    .await;
    for (synchronous, durable) in [
        (SqliteSynchronous::Off, false),
        (SqliteSynchronous::Normal, false),
        (SqliteSynchronous::Full, true),
        (SqliteSynchronous::Extra, true),
    ] {
        let options = SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).synchronous(synchronous);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let before: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap();
        // A call that commits on its own makes its commit durable, and restores the connection's setting.
        store.keys().create_kek(&mut connection, &format!("tenant_{before}")).await.unwrap();
        assert_eq!(
            sqlx::query_scalar::<_, i64>("PRAGMA synchronous").fetch_one(&mut connection).await.unwrap(),
            before
        );
        let within: i64 = sqlx::query_scalar("SELECT setting FROM seen ORDER BY rowid DESC")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(within, before.max(2), "a key-encryption key could be taken back by a loss of power");
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for done in [
            store.keys().shred(&mut tx, &scope("shredded"), "r").await.map(drop),
            store.keys().disable(&mut tx, &scope("live"), "r").await,
            SqliteKeys::new().commit_durably(&mut tx).await,
        ] {
            match done {
                Ok(()) => assert!(durable, "{synchronous:?}"),
                Err(error) => {
                    assert!(
                        !durable && matches!(error, Error::Transaction(TransactionFault::NotDurable { .. })),
                        "{synchronous:?}: {error:?}"
                    );
                    assert!(error.to_string().contains("synchronous = FULL"), "{error}");
                }
            }
        }
        store.append(&mut tx, &aggregate("Order", "2"), Any, &[placed("other")]).await.expect("appends go on");
    }
}
