//! Tests of PostgreSQL alone: locks, isolation levels, plans, names and migrations.

mod locks;
mod plans;
mod tables;

use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::error::{EventFault, StorageFault, TransactionFault};
use eventseal::maintenance::CensusOptions;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{
    Appended, Error, EventStore, EventStoreExt, NewEvent, Result, Schemas, SealedStore, aggregate, event, subject,
};
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgListener};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use support::customer_scope;
use support::{Deadline, in_time};
use support::{KEYRING, Postgres};

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

async fn store(db: &Postgres) -> SealedStore<PostgresStore> {
    with_keys(db, PostgresKeys::new()).await
}

async fn with_keys(db: &Postgres, keys: PostgresKeys) -> SealedStore<PostgresStore> {
    let store = SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    store
}

async fn append(
    db: &Postgres,
    store: &impl EventStore<Tx = PgConnection>,
    id: &str,
    event: NewEvent,
) -> Result<Appended> {
    let mut tx = db.pool.begin().await.unwrap();
    let appended = store.append(&mut tx, &aggregate("Order", id), Any, &[event]).await?;
    tx.commit().await.unwrap();
    Ok(appended)
}

/// Waits until a connection waits for a lock.
async fn waits(db: &Postgres) {
    let mut connection = db.pool.acquire().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Deadline::of("for somebody to wait for a lock");
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await.unwrap() == 0 {
        deadline.look_again().await;
    }
}

#[tokio::test]
async fn an_append_or_shred_needs_a_transaction_that_the_driver_knows() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut connection = db.pool.acquire().await.unwrap();
    for raw_begin in [false, true] {
        if raw_begin {
            connection.execute("BEGIN").await.unwrap();
        }
        let refusals = [
            store.append(&mut connection, &order, Any, &[placed("42")]).await.map(drop),
            PostgresStore::new().append(&mut connection, &order, Any, &[placed("42")]).await.map(drop),
            store.keys().shred(&mut connection, &customer_scope("42"), "r").await.map(drop),
            store.keys().rotate_data_key(&mut connection, &customer_scope("42")).await.map(drop),
            store.keys().reopen(&mut connection, &customer_scope("42"), "r").await.map(drop),
            store.keys().disable(&mut connection, &customer_scope("42"), "r").await.map(drop),
        ];
        for refusal in refusals {
            assert!(
                matches!(refusal, Err(Error::Transaction(TransactionFault::NotInTransaction { .. }))),
                "{refusal:?}"
            );
        }
        if raw_begin {
            connection.execute("ROLLBACK").await.unwrap();
        }
    }
    let mut tx = connection.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    store.append(&mut tx, &order, NoStream, &[placed("42")]).await.unwrap();
    assert!(matches!(
        store.keys().prepare(&mut tx).await,
        Ok(()) | Err(Error::Transaction(TransactionFault::InTransaction { .. }))
    ));
    tx.commit().await.unwrap();
    assert_eq!(store.read_stream(&mut connection, &order).await.unwrap().events.len(), 1, "reading needs none");
}

/// Waits until the server has done the statement with this text. The call that sent it is not polled meanwhile, so it
/// sends no more.
async fn has_done(db: &Postgres, pid: i32, text: &str) {
    let sql =
        "SELECT state = 'idle in transaction' AND query LIKE '%' || $2 || '%' FROM pg_stat_activity WHERE pid = $1";
    let deadline = Deadline::of("for the server to do a statement");
    while !sqlx::query_scalar::<_, bool>(sql).bind(pid).bind(text).fetch_one(&db.pool).await.unwrap() {
        deadline.look_again().await;
    }
}

async fn pid(tx: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(tx).await.unwrap()
}

#[tokio::test]
async fn times_that_there_are_not_are_errors_and_no_panics() {
    for at in ["infinity", "-infinity", "20000-01-01"] {
        let db = Postgres::new().await;
        let store = store(&db).await;
        append(&db, &store, "1", placed("42")).await.unwrap();
        let mut connection = db.pool.acquire().await.unwrap();
        let set = async |table: &str, connection: &mut PgConnection, at: &str| {
            let sql = format!("UPDATE {table} SET created_at = $1::text::timestamptz");
            sqlx::query(AssertSqlSafe(sql)).bind(at).execute(connection).await.unwrap();
        };
        set("events", &mut connection, at).await;
        let stream = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap_err();
        let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap_err();
        assert!(
            matches!(
                stream,
                Error::Storage(StorageFault::InvalidEvent { what: "created_at", problem: "is out of range", .. })
            ),
            "{stream:?}"
        );
        assert!(
            matches!(
                census,
                Error::Storage(StorageFault::InvalidRow { what: "events.created_at", problem: "is out of range" })
            ),
            "{census:?}"
        );
        set("events", &mut connection, "2026-11-21").await;
        set("data_keys", &mut connection, at).await;
        let keys = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap_err();
        assert!(
            matches!(keys, Error::Storage(StorageFault::InvalidRow { what: "data_keys.created_at", .. })),
            "{keys:?}"
        );
    }
}

#[tokio::test]
async fn what_jsonb_can_not_hold_is_refused_before_the_database_sees_it() {
    let db = Postgres::new().await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    for metadata in [r#"{"a":"\u0000"}"#, r#"{"\u0000":1}"#, r#"[["\ud800"]]"#] {
        let refused = PostgresStore::new()
            .append(&mut tx, &order, Any, &[placed("42").with_metadata(metadata)])
            .await
            .unwrap_err();
        assert!(
            matches!(refused, Error::Event { fault: EventFault::InvalidMetadata { .. }, .. }),
            "{metadata}: {refused:?}"
        );
    }
    let kept = r#"{"a":"\\u0000 \u00e9"}"#;
    PostgresStore::new().append(&mut tx, &order, Any, &[placed("42").with_metadata(kept)]).await.unwrap();
    let stream = PostgresStore::new().read_stream(&mut tx, &order).await.unwrap();
    let read: Value = serde_json::from_slice(stream.events[0].metadata.as_ref().unwrap()).unwrap();
    assert_eq!(read, serde_json::from_str::<Value>(kept).unwrap());
}

#[tokio::test]
async fn a_notification_is_sent_when_the_append_commits() {
    let db = Postgres::new().await;
    let store = PostgresStore::with_tables(PostgresTables::new().notify("events_appended")).unwrap();
    let mut listener = PgListener::connect_with(&db.pool).await.unwrap();
    listener.listen("events_appended").await.unwrap();
    let order = aggregate("Order", "1");
    let mut rolled_back = db.pool.begin().await.unwrap();
    store.append(&mut rolled_back, &order, NoStream, &[placed("42")]).await.unwrap();
    rolled_back.rollback().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let appended = store.append(&mut tx, &order, NoStream, &[placed("42"), placed("42"), placed("42")]).await.unwrap();
    let conflict = store.append(&mut tx, &order, NoStream, &[placed("42")]).await.unwrap_err();
    assert!(conflict.is_conflict());
    tx.commit().await.unwrap();
    db.pool.execute("NOTIFY events_appended, 'end'").await.unwrap();
    let mut told = async || in_time("for a notification", listener.recv()).await.unwrap().payload().to_owned();
    assert_eq!(told().await, appended.last_position().get().to_string());
    assert_eq!(told().await, "end", "one notification an append, none for what was not appended");
}

#[tokio::test]
async fn i4_a_connection_that_was_lost_is_an_error_and_never_an_erasure() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    append(&db, &store, "1", placed("42")).await.unwrap();
    let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1)").bind(pid).execute(&db.pool).await.unwrap();
    let error = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    let mut aborted = db.pool.begin().await.unwrap();
    aborted.execute("SELECT 1 / 0").await.unwrap_err();
    let error = store.read_stream(&mut aborted, &aggregate("Order", "1")).await.unwrap_err();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
}
