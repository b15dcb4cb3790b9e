//! What is particular to PostgreSQL: its locks, isolation levels, plans, names and migrations.

use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::*;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgListener};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake};
use std::time::Duration;
use support::{KEYRING, Postgres};
use uuid::Uuid;

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn customer() -> KeyScope {
    KeyScope::new("Customer", "42")
}

async fn store(db: &Postgres) -> SealedStore<PostgresStore> {
    with_keys(db, PostgresKeys::new()).await
}

async fn with_keys(db: &Postgres, keys: PostgresKeys) -> SealedStore<PostgresStore> {
    let store = SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    store
}

async fn append(db: &Postgres, store: &impl EventStore<Tx = PgConnection>, id: &str, event: NewEvent) -> Result<Appended> {
    let mut tx = db.pool.begin().await.unwrap();
    let appended = store.append(&mut tx, &aggregate("Order", id), Any, &[event]).await?;
    tx.commit().await.unwrap();
    Ok(appended)
}

/// Waits until a connection waits for a lock.
async fn waits(db: &Postgres) {
    let mut connection = db.pool.acquire().await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *connection).await.unwrap() == 0 {}
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
            store.keys().shred(&mut connection, &customer(), "r").await.map(drop),
            store.keys().rotate_data_key(&mut connection, &customer()).await.map(drop),
            store.keys().reopen(&mut connection, &customer(), "r").await.map(drop),
            store.keys().disable(&mut connection, &customer(), "r").await.map(drop),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Err(Error::NotInTransaction { .. })), "{refusal:?}");
        }
        if raw_begin {
            connection.execute("ROLLBACK").await.unwrap();
        }
    }
    let mut tx = connection.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    store.append(&mut tx, &order, NoStream, &[placed("42")]).await.unwrap();
    assert!(matches!(store.keys().prepare(&mut tx).await, Ok(()) | Err(Error::InTransaction { .. })));
    tx.commit().await.unwrap();
    assert_eq!(store.read_stream(&mut connection, &order).await.unwrap().events.len(), 1, "reading needs none");
}

#[tokio::test]
async fn i5_what_a_transaction_sees_of_a_shred_depends_on_its_isolation_level_but_never_what_it_may_append() {
    for (level, sees_it) in [("READ COMMITTED", true), ("REPEATABLE READ", false), ("SERIALIZABLE", false)] {
        let db = Postgres::new().await;
        let store = store(&db).await;
        append(&db, &store, "1", placed("42")).await.unwrap();
        let mut open = db.pool.begin_with(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"))).await.unwrap();
        let before = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
        assert_eq!(before.events[0].payload, placed("42").payload);
        let mut tx = db.pool.begin().await.unwrap();
        store.keys().shred(&mut tx, &customer(), "request").await.unwrap();
        tx.commit().await.unwrap();
        let after = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
        assert_eq!(after.events[0].is_redacted(), sees_it, "{level}");
        let refused = store.append(&mut open, &aggregate("Order", "2"), Any, &[placed("42")]).await.unwrap_err();
        assert_eq!((refused.is_shredded(), refused.is_retryable()), (sees_it, !sees_it), "{level}: {refused:?}");
        drop(open);
        let mut connection = db.pool.acquire().await.unwrap();
        assert!(store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap().events[0].is_redacted());
    }
}

/// The statement that locks a scope sees its row as another transaction has just committed it, but not yet the key
/// that this one made.
#[tokio::test]
async fn i5_an_append_that_waited_for_a_rotation_uses_the_new_key() {
    let db = Arc::new(Postgres::new().await);
    let store = store(&db).await;
    append(&db, &store, "1", placed("42")).await.unwrap();
    let mut rotating = db.pool.begin().await.unwrap();
    let rotated = store.keys().rotate_data_key(&mut rotating, &customer()).await.unwrap();
    let waiting = tokio::spawn({
        let db = Arc::clone(&db);
        async move {
            let mut tx = db.pool.begin().await.unwrap();
            PostgresKeys::new().scopes(&mut tx, &[customer()], ScopeLock::Share).await.unwrap().remove(0)
        }
    });
    waits(&db).await;
    rotating.commit().await.unwrap();
    let record = waiting.await.unwrap();
    assert_eq!((record.last_version, record.active.map(|key| key.key_id)), (2, Some(rotated.key_id)));
}

/// Notes that an answer has come.
#[derive(Default)]
struct Answered(AtomicBool);

impl Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs a call in a transaction until the server has done its statement that contains this text, and no further.
async fn until<T>(db: &Postgres, pid: i32, text: &str, call: &mut (impl Future<Output = T> + Unpin)) {
    let answered = Arc::new(Answered::default());
    loop {
        // Looked at before the call is polled: whoever polls may let it send its next statement.
        let (state, query): (String, String) =
            sqlx::query_as("SELECT state, query FROM pg_stat_activity WHERE pid = $1").bind(pid).fetch_one(&db.pool).await.unwrap();
        if state != "idle in transaction" {
            continue;
        }
        if query.contains(text) {
            return;
        }
        answered.0.store(false, Ordering::SeqCst);
        let polled = std::pin::Pin::new(&mut *call).poll(&mut Context::from_waker(&Arc::clone(&answered).into()));
        assert!(polled.is_pending(), "the call came to its end");
        // Until the server has answered, it may not have begun with the statement, and would still show the one before.
        while !answered.0.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}

async fn pid(tx: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(tx).await.unwrap()
}

#[tokio::test]
async fn i5_a_scope_that_appears_between_lock_and_look_is_locked_too() {
    let (db, keys) = (Postgres::new().await, PostgresKeys::new());
    let scope = [customer()];
    let mut locking = db.pool.begin().await.unwrap();
    // The statements are prepared, so that each is one round trip from here on.
    keys.scopes(&mut locking, &scope, ScopeLock::Update).await.unwrap();
    let pid = pid(&mut locking).await;
    let records = {
        let mut call = Box::pin(keys.scopes(&mut locking, &scope, ScopeLock::Update));
        until(&db, pid, "FOR UPDATE", &mut call).await;
        let mut other = db.pool.begin().await.unwrap();
        keys.create_scopes(&mut other, &scope).await.unwrap();
        other.commit().await.unwrap();
        call.await.unwrap()
    };
    assert_eq!(records.len(), 1);
    let mut third = db.pool.begin().await.unwrap();
    third.execute("SET LOCAL lock_timeout = '100ms'").await.unwrap();
    assert!(keys.scopes(&mut third, &scope, ScopeLock::Update).await.is_err(), "a record was returned that nobody has locked");
}

#[tokio::test]
async fn i5_an_append_sees_no_scope_that_it_has_not_locked() {
    let db = Postgres::new().await;
    let (store, keys) = (store(&db).await, PostgresKeys::new());
    append(&db, &store, "1", placed("42")).await.unwrap();
    let scopes = [customer(), KeyScope::new("Customer", "43")];
    let mut appending = db.pool.begin().await.unwrap();
    keys.scopes(&mut appending, &scopes, ScopeLock::Share).await.unwrap();
    appending.rollback().await.unwrap();
    let mut appending = db.pool.begin().await.unwrap();
    let pid = pid(&mut appending).await;
    let mut rotating = db.pool.begin().await.unwrap();
    store.keys().rotate_data_key(&mut rotating, &customer()).await.unwrap();
    let mut call = Box::pin(keys.scopes(&mut appending, &scopes, ScopeLock::Share));
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    waits(&db).await;
    rotating.commit().await.unwrap();
    until(&db, pid, "FOR SHARE", &mut call).await;
    append(&db, &store, "2", placed("43")).await.unwrap();
    let records = call.await.unwrap();
    assert!(records.iter().all(|record| record.scope == customer()), "a scope that nobody has locked: {records:?}");
    assert_eq!(records[0].last_version, 2, "the key that was waited for");
}

/// Whatever the database's default isolation level is.
#[tokio::test]
async fn i11_a_key_that_came_into_use_while_it_was_to_be_retired_is_not() {
    for level in ["read committed", "repeatable read", "serializable"] {
        let db = Arc::new(Postgres::new().await);
        let store = Arc::new(store(&db).await);
        let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&db.pool).await.unwrap();
        db.pool.execute(AssertSqlSafe(format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'"))).await.unwrap();
        let mut operator = PgConnection::connect_with(&db.options).await.unwrap();
        let old = store.keys().kek_usage(&mut operator).await.unwrap().remove(0).kek;
        // An append that has looked up the key before it was rotated, and has not committed.
        let mut appending = db.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
        store.append(&mut appending, &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
        store.keys().rotate_kek(&mut operator, "default").await.unwrap();
        store.keys().rewrap(&mut operator, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
        let retiring = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.keys().retire_kek(&mut operator, old.kek_id).await }
        });
        waits(&db).await;
        appending.commit().await.unwrap();
        let refused = retiring.await.unwrap().unwrap_err();
        assert!(matches!(refused, Error::KekInUse { .. }), "{level}: {refused:?}");
    }
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
        assert!(matches!(stream, Error::InvalidEvent { what: "created_at", problem: "is out of range", .. }), "{stream:?}");
        assert!(matches!(census, Error::InvalidRow { what: "events.created_at", problem: "is out of range" }), "{census:?}");
        set("events", &mut connection, "2026-11-21").await;
        set("data_keys", &mut connection, at).await;
        let keys = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap_err();
        assert!(matches!(keys, Error::InvalidRow { what: "data_keys.created_at", .. }), "{keys:?}");
    }
}

#[tokio::test]
async fn a_shred_does_not_wait_longer_than_its_timeout() {
    let db = Postgres::new().await;
    let patient = store(&db).await;
    let impatient = with_keys(&db, PostgresKeys::new().lock_timeout(Duration::from_millis(30))).await;
    append(&db, &patient, "1", placed("42")).await.unwrap();
    // An existing scope, and one whose first key is being made.
    for customer in ["42", "43"] {
        let scope = KeyScope::new("Customer", customer);
        let mut appending = db.pool.begin().await.unwrap();
        patient.append(&mut appending, &aggregate("Order", "2"), Any, &[placed(customer)]).await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let refused = impatient.keys().shred(&mut tx, &scope, "request").await.unwrap_err();
        assert!(refused.is_retryable(), "{refused:?}");
        drop(tx);
        appending.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        tx.execute("SET LOCAL lock_timeout = '7s'").await.unwrap();
        assert_eq!(impatient.keys().shred(&mut tx, &scope, "request").await.unwrap().destroyed.len(), 1);
        let timeout: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(timeout, "7s", "the caller's setting is put back");
        tx.commit().await.unwrap();
    }
    let mut connection = db.pool.acquire().await.unwrap();
    let timeout: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(timeout, "0", "a setting of the transaction alone");
}

#[tokio::test]
async fn what_jsonb_can_not_hold_is_refused_before_the_database_sees_it() {
    let db = Postgres::new().await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    for metadata in [r#"{"a":"\u0000"}"#, r#"{"\u0000":1}"#, r#"[["\ud800"]]"#] {
        let refused = PostgresStore::new().append(&mut tx, &order, Any, &[placed("42").with_metadata(metadata)]).await.unwrap_err();
        assert!(matches!(refused, Error::InvalidMetadata { .. }), "{metadata}: {refused:?}");
    }
    let kept = r#"{"a":"\\u0000 \u00e9"}"#;
    PostgresStore::new().append(&mut tx, &order, Any, &[placed("42").with_metadata(kept)]).await.unwrap();
    let stream = PostgresStore::new().read_stream(&mut tx, &order).await.unwrap();
    let read: Value = serde_json::from_slice(stream.events[0].metadata.as_ref().unwrap()).unwrap();
    assert_eq!(read, serde_json::from_str::<Value>(kept).unwrap());
}

#[tokio::test]
async fn an_event_id_that_another_transaction_is_about_to_commit_is_a_collision_and_then_a_duplicate() {
    let db = Arc::new(Postgres::new().await);
    let event = placed("42");
    let mut first = db.pool.begin().await.unwrap();
    PostgresStore::new().append(&mut first, &aggregate("Order", "1"), Any, std::slice::from_ref(&event)).await.unwrap();
    let second = tokio::spawn({
        let (db, event) = (Arc::clone(&db), event.clone());
        async move { append(&db, &PostgresStore::new(), "2", event).await }
    });
    waits(&db).await;
    first.commit().await.unwrap();
    assert!(second.await.unwrap().unwrap_err().is_retryable());
    let error = append(&db, &PostgresStore::new(), "2", event.clone()).await.unwrap_err();
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == event.event_id), "{error:?}");
}

#[tokio::test]
async fn a_head_that_is_behind_its_events_is_named_as_the_problem() {
    let db = Postgres::new().await;
    append(&db, &PostgresStore::new(), "1", placed("42")).await.unwrap();
    db.pool.execute("DELETE FROM aggregate_heads").await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    for expected in [Any, NoStream] {
        let error = PostgresStore::new().append(&mut tx, &aggregate("Order", "1"), expected, &[placed("42")]).await.unwrap_err();
        assert!(matches!(error, Error::InvalidRow { .. }) && !error.is_retryable(), "{error:?}");
    }
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
    assert_eq!(listener.recv().await.unwrap().payload(), appended.last_position().get().to_string());
    assert_eq!(listener.recv().await.unwrap().payload(), "end", "one notification an append, none for what was not appended");
}

#[tokio::test]
async fn statements_are_prepared_once() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    let mut connection = db.pool.acquire().await.unwrap();
    let mut counts = Vec::new();
    for round in 0..30 {
        let mut tx = connection.begin().await.unwrap();
        let order = aggregate("Order", "1");
        let expected = if round == 0 { NoStream } else { Exact(AggregateVersion::try_from(round).unwrap()) };
        store.append(&mut tx, &order, expected, &[placed("42")]).await.unwrap();
        store.read_stream(&mut tx, &order).await.unwrap();
        tx.commit().await.unwrap();
        counts.push(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_prepared_statements").fetch_one(&mut *connection).await.unwrap());
    }
    assert_eq!(counts[1], counts[29], "{counts:?}");
    let planned_anew: i64 = sqlx::query_scalar("SELECT max(custom_plans) FROM pg_prepared_statements WHERE statement LIKE '%UNNEST%'")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    assert!(planned_anew <= 5, "a statement is planned anew each time");
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
    assert!(matches!(error, Error::NamespaceMismatch { .. }), "{error:?}");
    let store = store(&db).await;
    append(&db, &store, "1", placed("42")).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    store.keys().shred(&mut tx, &customer(), "request").await.unwrap();
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
        assert_eq!(error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref(), Some("23001"), "{sql}");
    }
    let mut tx = db.pool.begin().await.unwrap();
    assert!(matches!(PostgresStore::new().migrate(&mut tx).await, Err(Error::InTransaction { .. })));
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
    assert!(matches!(error, Error::TablesExist { .. }), "{error:?}");
    let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas()).for_namespace(namespace);
    store.keys().prepare(&mut connection).await.unwrap();
    append(&db, &store, "1", placed("42")).await.unwrap();
    assert_eq!(store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap().events[0].payload, placed("42").payload);
}

#[tokio::test]
async fn tables_that_were_not_migrated_are_named_as_the_problem() {
    let db = Postgres::empty().await;
    for keys in [PostgresKeys::new(), PostgresKeys::new().in_schema("nowhere").unwrap()] {
        let store = SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas());
        let error = store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap_err();
        assert!(matches!(error, Error::NotMigrated), "{error:?}");
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
            assert!(matches!(PostgresStore::with_tables(tables(bad)), Err(Error::InvalidText { .. })), "{bad}");
        }
        assert!(PostgresKeys::new().in_schema(bad).is_err() && PostgresKeys::new().with_prefix(bad).is_err(), "{bad}");
    }
    assert!(PostgresStore::with_tables(PostgresTables::new().heads("events")).is_err(), "one name for two tables");
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

#[tokio::test]
async fn i3_swapped_or_altered_key_rows_are_wrong_keys() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42"), placed("43")]).await.unwrap();
    tx.commit().await.unwrap();
    for sql in [
        "UPDATE data_keys SET wrapped_key = (SELECT wrapped_key FROM data_keys WHERE scope_id = '43') WHERE scope_id = '42'",
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
            assert!(matches!(error, Error::WrongKey { .. }), "{sql}: {error:?}");
        }
    }
}

/// Every look into a key table of a million rows goes through an index, whether PostgreSQL plans for these values or for
/// any.
#[tokio::test]
async fn statements_on_a_million_keys_use_indexes() {
    const ROWS: i64 = 1_000_000;
    let db = Postgres::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    connection
        .execute(AssertSqlSafe(format!(
            "BEGIN;
             INSERT INTO key_encryption_keys VALUES (md5('kek')::uuid, 'default', 'local', 'main', '\\x00', 'active', now());
             ALTER TABLE data_keys DISABLE TRIGGER ALL;
             ALTER TABLE key_scope_changes DISABLE TRIGGER ALL;
             INSERT INTO key_scopes SELECT 'Customer', 'c' || i, 'live', 1, md5(i::text)::uuid FROM generate_series(1, {ROWS}) AS i;
             INSERT INTO data_keys SELECT md5(i::text)::uuid, 'Customer', 'c' || i, 1, decode(repeat('ab', 65), 'hex'), md5('kek')::uuid,
                 'live', now() FROM generate_series(1, {ROWS}) AS i;
             INSERT INTO key_scope_changes (scope_kind, scope_id, action, state, generation, reason, changed_at)
                 SELECT 'Customer', 'c' || i, 'disable', 'disabled', 1, 'plan', now() FROM generate_series(1, {ROWS}) AS i;
             ALTER TABLE data_keys ENABLE TRIGGER ALL;
             ALTER TABLE key_scope_changes ENABLE TRIGGER ALL;
             COMMIT;
             ANALYZE;"
        )))
        .await
        .unwrap();
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT key_id FROM data_keys LIMIT 100").fetch_all(&mut *connection).await.unwrap();
    let list = |count: usize, of: &dyn Fn(usize) -> String| format!("'{{{}}}'", (0..count).map(of).collect::<Vec<_>>().join(","));
    let statements = internals::statements_of(&PostgresKeys::new());
    assert!(statements.len() >= 15);
    // Reports for operators, which count every row.
    let counts = ["kek_usage", "count_keys_of_kek"];
    for (name, sql) in statements.into_iter().filter(|(name, _)| !counts.contains(name)) {
        connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).await.unwrap();
        let types: Vec<String> = sqlx::query_scalar("SELECT unnest(parameter_types)::text FROM pg_prepared_statements WHERE name = $1")
            .bind(name)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        for (mode, count) in [("force_generic_plan", 1), ("force_custom_plan", 1), ("force_custom_plan", 100)] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            let kinds = list(count, &|_| "Customer".to_owned());
            let scopes = list(count, &|index| format!("c{}", 1 + index * 997));
            let mut texts = [&kinds, &scopes].into_iter().cycle();
            let mut words = ["'Customer'", "'c77'", "'shred'", "'shredded'", "'reason'", "'actor'"].into_iter().cycle();
            let values = types.iter().map(|kind| match kind.as_str() {
                "text[]" => texts.next().unwrap().clone(),
                "uuid[]" => list(count, &|index| ids[index].to_string()),
                "text" => words.next().unwrap().to_owned(),
                "bigint[]" => list(count, &|_| "2".to_owned()),
                "bytea[]" => list(count, &|_| r"\\x00".to_owned()),
                "timestamp with time zone[]" => list(count, &|_| "2026-01-01".to_owned()),
                "bigint" => "2".to_owned(),
                "uuid" => format!("'{}'", ids[0]),
                "bytea" => r"'\x00'".to_owned(),
                "timestamp with time zone" => "'2026-01-01'".to_owned(),
                other => panic!("{name} has a parameter of type {other}"),
            });
            let values = values.collect::<Vec<_>>().join(", ");
            let arguments = if values.is_empty() { String::new() } else { format!("({values})") };
            let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {name}{arguments}"));
            let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
            let mut scans = Vec::new();
            collect_scans(&plan, &mut scans);
            for (node, relation) in &scans {
                // These two have a handful of rows.
                let small = ["key_namespace", "key_encryption_keys"].contains(&relation.as_str());
                assert!(small || node.contains("Index"), "{name} ({mode}): {node} on {relation}\n{plan:#}");
            }
            let writes_only = ["set_namespace", "install_kek", "promote_kek", "create_scopes"];
            assert!(!scans.is_empty() || writes_only.contains(&name), "{name}: the plan was not understood\n{plan:#}");
        }
    }
}

/// The nodes of a plan that read a table.
fn collect_scans(plan: &Value, scans: &mut Vec<(String, String)>) {
    match plan {
        Value::Array(plans) => plans.iter().for_each(|plan| collect_scans(plan, scans)),
        Value::Object(members) => {
            if let (Some(node), Some(relation)) = (members.get("Node Type"), members.get("Relation Name"))
                && node != "ModifyTable"
            {
                scans.push((node.as_str().unwrap().to_owned(), relation.as_str().unwrap().to_owned()));
            }
            members.values().for_each(|member| collect_scans(member, scans));
        }
        _ => {}
    }
}
