//! What is particular to SQLite: its one writer, its transactions, its files.

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::*;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection, Executor, SqliteConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::faults::{Faulty, KmsFaults};
use support::{KEYRING, Sqlite};
use tokio::sync::Notify;

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

/// A process that has nothing cached.
fn cold() -> SealedStore<SqliteStore> {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&KEYRING), schemas())
}

async fn store(db: &Sqlite) -> SealedStore<SqliteStore> {
    let store = cold();
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    store
}

/// A connection that gives up at once when the database is locked.
async fn impatient(db: &Sqlite) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).busy_timeout(Duration::ZERO);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// A page of the log costs what it holds, however much the log has of other types: with and without statistics.
#[tokio::test]
async fn filtered_reads_use_indexes() {
    let (db, store) = (Sqlite::new().await, SqliteStore::new());
    let mut connection = db.pool.acquire().await.unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
        INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload, created_at)
        SELECT CASE WHEN i % 50000 = 0 THEN 'Rare' ELSE 'Order' END, 'o' || (i / 10), i % 10 + 1,
            printf('00000000-0000-4000-8000-%012d', i), CASE WHEN i % 30000 = 0 THEN 'Seldom' ELSE 'Placed' END, x'7b7d', '2026-01-01T00:00:00Z'
        FROM n";
    connection.execute(fill).await.unwrap();
    let filter = |aggregates: &[&str], events: &[&str]| EventFilter {
        aggregate_types: aggregates.iter().map(ToString::to_string).collect(),
        event_types: events.iter().map(ToString::to_string).collect(),
    };
    for statistics in [false, true] {
        if statistics {
            connection.execute("ANALYZE").await.unwrap();
        }
        for (after, filter, expected) in [
            (1, filter(&[], &[]), vec![2, 3, 4]),
            (1, filter(&[], &["Seldom"]), vec![30_000, 60_000, 90_000]),
            (1, filter(&["Rare", "Rare", "None"], &[]), vec![50_000, 100_000]),
            (1, filter(&["Order"], &["Seldom", "None"]), vec![30_000, 60_000, 90_000]),
            (1, filter(&["Rare", "Order"], &["Placed", "Seldom", "Placed"]), vec![2, 3, 4]),
            (1, filter(&[], &["None"]), vec![]),
            (119_990, filter(&["Order"], &["Placed"]), vec![119_991, 119_992, 119_993]),
            (119_990, filter(&["Order"], &[]), vec![119_991, 119_992, 119_993]),
        ] {
            let steps = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&steps);
            let count = move || counted.fetch_add(1, Ordering::SeqCst) < usize::MAX;
            connection.lock_handle().await.unwrap().set_progress_handler(1, count);
            let page = store.read_events(&mut connection, after.try_into().unwrap(), 3, &filter).await.unwrap();
            connection.lock_handle().await.unwrap().remove_progress_handler();
            let found: Vec<_> = page.events.iter().map(|event| event.global_position.get()).collect();
            assert_eq!((found, page.scanned as usize), (expected.clone(), expected.len()), "{filter:?}");
            // Of SQLite's machine. A walk over the table takes some for each row.
            let steps = steps.load(Ordering::SeqCst);
            assert!(steps > 0 && steps < 1_000, "{filter:?}, statistics: {statistics}: {steps} steps");
        }
    }
}

/// The tables of the first release candidate have no indexes for it: a filtered read is right all the same, and the next
/// migration adds them.
#[tokio::test]
async fn filtered_reads_work_before_the_indexes_are_there() {
    let (db, store) = (Sqlite::empty().await, SqliteStore::new());
    let mut connection = db.pool.acquire().await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name";
    let indexes: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut *connection).await.unwrap();
    assert_eq!(indexes, ["idx_events_event_type", "idx_events_type_position"]);
    connection.execute("DROP INDEX idx_events_event_type; DROP INDEX idx_events_type_position").await.unwrap();
    connection.execute("DELETE FROM _events_migrations WHERE version = 2").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42"), NewEvent::raw("Noted", 1, "{}"), placed("43")]).await.unwrap();
    tx.commit().await.unwrap();
    let read = EventFilter { aggregate_types: vec!["Order".to_owned()], event_types: vec!["Placed".to_owned()] };
    for _ in 0..2 {
        let page = store.read_events(&mut connection, GlobalPosition::START, 10, &read).await.unwrap();
        assert_eq!(page.events.iter().map(|event| event.global_position.get()).collect::<Vec<_>>(), [1, 3]);
        store.migrate(&mut connection).await.unwrap();
    }
    assert_eq!(sqlx::query_scalar::<_, String>(names).fetch_all(&mut *connection).await.unwrap(), indexes);
}

/// A trigger of somebody else's may leave a row out and say nothing.
#[tokio::test]
async fn an_event_that_the_database_did_not_store_is_not_reported_as_appended() {
    let (db, store) = (Sqlite::new().await, SqliteStore::new());
    let events = [placed("42"), NewEvent::raw("Left", 1, "{}"), placed("42")];
    let mut tx = db.pool.begin().await.unwrap();
    let stored = store.append(&mut tx, &aggregate("Order", "1"), Any, &events).await.unwrap().events;
    tx.rollback().await.unwrap();
    let trigger = "CREATE TRIGGER leaves_out BEFORE INSERT ON events WHEN new.event_type = 'Left' BEGIN SELECT raise(IGNORE); END";
    sqlx::query(trigger).execute(&db.pool).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append(&mut tx, &aggregate("Order", "1"), Any, &events).await.unwrap_err();
    assert!(matches!(error, Error::NoEffect { table: "events", .. }) && !error.is_retryable(), "{error:?}");
    tx.rollback().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.insert_events(&mut tx, &stored).await.unwrap_err();
    assert!(matches!(error, Error::NoEffect { table: "events", .. }), "a copy: {error:?}");
    tx.rollback().await.unwrap();
    // Nor is it a conflict where nothing at all was stored.
    let mut tx = db.pool.begin().await.unwrap();
    for expected in [Any, NoStream] {
        let error = store.append(&mut tx, &aggregate("Order", "1"), expected, &events[1..2]).await.unwrap_err();
        assert!(matches!(error, Error::NoEffect { table: "events", .. }), "{expected:?}: {error:?}");
    }
    let error = store.append(&mut tx, &aggregate("Order", "1"), Exact(1.try_into().unwrap()), &events[1..2]).await.unwrap_err();
    assert!(matches!(error, Error::VersionConflict { .. }), "a conflict stays one: {error:?}");
}

#[tokio::test]
async fn an_append_or_shred_needs_a_transaction_that_the_driver_knows() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (order, scope) = (aggregate("Order", "1"), KeyScope::new("Customer", "42"));
    let mut connection = db.pool.acquire().await.unwrap();
    for raw_begin in [false, true] {
        if raw_begin {
            sqlx::query("BEGIN").execute(&mut *connection).await.unwrap();
        }
        let refusals = [
            store.append(&mut connection, &order, Any, &[placed("42")]).await.map(drop),
            SqliteStore::new().append(&mut connection, &order, Any, &[placed("42")]).await.map(drop),
            store.keys().shred(&mut connection, &scope, "r").await.map(drop),
            store.keys().rotate_data_key(&mut connection, &scope).await.map(drop),
            store.keys().reopen(&mut connection, &scope, "r").await.map(drop),
            store.keys().disable(&mut connection, &scope, "r").await.map(drop),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Err(Error::NotInTransaction { .. })), "{refusal:?}");
        }
        if raw_begin {
            sqlx::query("ROLLBACK").execute(&mut *connection).await.unwrap();
        }
    }
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    store.append(&mut tx, &order, NoStream, &[placed("42")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.read_stream(&mut connection, &order).await.unwrap().events.len(), 1, "reading needs none");
}

#[tokio::test]
async fn i5_locking_scopes_takes_the_write_lock() {
    let db = Sqlite::new().await;
    store(&db).await;
    for lock in [ScopeLock::Share, ScopeLock::Update] {
        let mut holder = db.pool.begin().await.unwrap();
        SqliteKeys::new().scopes(&mut holder, &[KeyScope::new("Customer", "42")], lock).await.unwrap();
        let mut other = impatient(&db).await;
        let mut tx = other.begin().await.unwrap();
        let refused = SqliteKeys::new().create_scopes(&mut tx, &[KeyScope::new("Customer", "42")]).await;
        assert!(refused.as_ref().is_err_and(Error::is_retryable), "{lock:?} let another writer in: {refused:?}");
        let looked = SqliteKeys::new().scopes(&mut tx, &[KeyScope::new("Customer", "42")], ScopeLock::None).await;
        assert!(looked.is_ok(), "a look waits for nobody");
    }
}

#[tokio::test]
async fn a_transaction_that_read_before_another_wrote_is_retryable() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut late = db.pool.begin().await.unwrap();
    store.read_stream(&mut late, &order).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, NoStream, &[placed("42")]).await.unwrap();
    tx.commit().await.unwrap();
    for error in [
        store.append(&mut late, &order, Any, &[placed("42")]).await.unwrap_err(),
        store.keys().shred(&mut late, &KeyScope::new("Customer", "42"), "r").await.unwrap_err(),
        SqliteStore::new().append(&mut late, &order, Any, &[placed("42")]).await.unwrap_err(),
    ] {
        assert!(error.is_retryable() && !error.is_conflict(), "SQLITE_BUSY_SNAPSHOT must be retryable: {error:?}");
    }
    drop(late);
    let mut immediate = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    store.read_stream(&mut immediate, &order).await.unwrap();
    store.append(&mut immediate, &order, Any, &[placed("42")]).await.unwrap();
}

/// What writes must write before it reads, or it would fail at once instead of waiting for another writer.
#[tokio::test]
async fn a_prepared_process_waits_for_its_turn_to_write() {
    let db = Sqlite::new().await;
    for operation in ["append", "rotate", "reopen", "shred"] {
        let store = store(&db).await;
        let mut other = db.pool.begin().await.unwrap();
        SqliteStore::new().append(&mut other, &aggregate("Order", "other"), Any, &[NewEvent::raw("Noted", 1, "{}")]).await.unwrap();
        let mut impatient = impatient(&db).await;
        let mut tx = impatient.begin().await.unwrap();
        let scope = KeyScope::new("Customer", "42");
        let refused = match operation {
            "append" => store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42")]).await.map(drop),
            "rotate" => store.keys().rotate_data_key(&mut tx, &scope).await.map(drop),
            "reopen" => store.keys().reopen(&mut tx, &scope, "r").await.map(drop),
            _ => store.keys().shred(&mut tx, &scope, "r").await.map(drop),
        };
        assert!(refused.as_ref().is_err_and(Error::is_retryable), "{operation}: {refused:?}");
        other.commit().await.unwrap();
        // Nothing was read, so there is no stale snapshot: the same transaction can go on.
        store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
    }
}

/// A KMS that does not answer while it is told to hang.
struct Hanging {
    keyring: Keyring,
    hangs: AtomicBool,
    asked: Notify,
}

#[async_trait]
impl KmsFaults for Hanging {
    fn inner(&self) -> &dyn Kms {
        &self.keyring
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        if self.hangs.load(Ordering::SeqCst) {
            self.asked.notify_one();
            std::future::pending::<()>().await;
        }
        self.keyring.unwrap_kek(wrapped, context).await
    }
}

/// SQLite's write lock is that of the whole database: nobody may hold it while waiting for a KMS.
#[tokio::test]
async fn i5_a_kms_that_hangs_keeps_no_writer_waiting() {
    let db = Sqlite::new().await;
    let kms = Arc::new(Faulty(Hanging { keyring: Keyring::generate("main").unwrap(), hangs: false.into(), asked: Notify::new() }));
    let process = || Arc::new(SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&kms), schemas()));
    process().keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let scope = KeyScope::new("Customer", "42");
    for operation in ["append", "rotate", "reopen"] {
        let cold = process();
        kms.hangs.store(true, Ordering::SeqCst);
        let (pool, store, of) = (db.pool.clone(), Arc::clone(&cold), scope.clone());
        let waiting = tokio::spawn(async move {
            let mut tx = pool.begin().await.unwrap();
            match operation {
                "append" => store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("43")]).await.map(drop),
                "rotate" => store.keys().rotate_data_key(&mut tx, &of).await.map(drop),
                _ => store.keys().reopen(&mut tx, &of, "r").await.map(drop),
            }
        });
        kms.asked.notified().await;
        // Somebody else, without patience and without any key, erases meanwhile.
        let mut other = impatient(&db).await;
        let mut tx = other.begin().await.unwrap();
        process().keys().shred(&mut tx, &scope, "r").await.expect("a shred waits for no KMS");
        tx.commit().await.unwrap();
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled(), "{operation} did not wait for the KMS");
        // The process goes on when the KMS answers again.
        kms.hangs.store(false, Ordering::SeqCst);
        let mut tx = db.pool.begin().await.unwrap();
        cold.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("43")]).await.unwrap();
        tx.commit().await.unwrap();
    }
}

/// What a process that was not prepared pays for asking the KMS first.
#[tokio::test]
async fn a_cold_append_that_was_overtaken_is_retryable_and_then_warm() {
    let db = Sqlite::new().await;
    let kms = Arc::new(Faulty(Hanging { keyring: Keyring::generate("main").unwrap(), hangs: false.into(), asked: Notify::new() }));
    let process = || SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&kms), schemas());
    let (warm, cold, order) = (process(), process(), aggregate("Order", "1"));
    warm.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    let mut other = db.pool.begin().await.unwrap();
    warm.append(&mut other, &order, Any, &[placed("42")]).await.unwrap();
    let mut impatient = impatient(&db).await;
    let mut tx = impatient.begin().await.unwrap();
    let overtaken = cold.append(&mut tx, &order, Any, &[placed("42")]).await;
    assert!(overtaken.as_ref().is_err_and(Error::is_retryable), "{overtaken:?}");
    other.commit().await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = impatient.begin().await.unwrap();
    cold.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
}

/// Appends and shreds of the same customers at the same time, from many tasks. Whatever the order: no
/// event lies under a destroyed key that is not redacted, none is lost, no key outlives its scope.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i6_appends_race_shreds() {
    let db = Arc::new(Sqlite::new().await);
    let store = Arc::new(store(&db).await);
    let mut first = db.pool.begin().await.unwrap();
    let before: Vec<NewEvent> = (0..10).map(|customer| placed(&customer.to_string())).collect();
    store.append(&mut first, &aggregate("Order", "before"), Any, &before).await.unwrap();
    first.commit().await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..8_u32 {
        let (db, store) = (Arc::clone(&db), Arc::clone(&store));
        tasks.push(tokio::spawn(async move {
            let mut committed = 0;
            for round in 0..40_u32 {
                let customer = (round / 4).to_string();
                let mut tx = db.pool.begin().await.unwrap();
                let done = if task == 0 || (task == 1 && round % 3 == 0) {
                    store.keys().shred(&mut tx, &KeyScope::new("Customer", customer), "race").await.map(|_| 0)
                } else {
                    let order = aggregate("Order", format!("{task}"));
                    store.append(&mut tx, &order, Any, &[placed(&customer)]).await.map(|_| 1)
                };
                match done {
                    Ok(events) => {
                        tx.commit().await.unwrap();
                        committed += events;
                    }
                    Err(error) => assert!(error.is_retryable() || error.is_shredded(), "{error:?}"),
                }
            }
            committed
        }));
    }
    let mut committed = 10;
    for task in tasks {
        committed += task.await.unwrap();
    }
    let mut connection = db.pool.acquire().await.unwrap();
    let page = store.read_events(&mut connection, GlobalPosition::START, 1_000, &EventFilter::default()).await.unwrap();
    assert_eq!(page.scanned, committed, "events were lost or doubled");
    let mut redacted = 0;
    for event in &page.events {
        let customer = serde_json::from_slice::<serde_json::Value>(&event.payload).unwrap()["customer"].as_str().unwrap().to_owned();
        let history = store.keys().key_history(&mut connection, &KeyScope::new("Customer", customer)).await.unwrap().unwrap();
        assert_eq!(event.is_redacted(), history.state == ScopeState::Shredded);
        assert_eq!(history.keys.iter().any(|key| key.shredded_at.is_none()), history.state == ScopeState::Live);
        redacted += usize::from(event.is_redacted());
    }
    assert!(redacted > 0, "no shred was committed");
}

#[tokio::test]
async fn a_dropped_append_leaves_nothing_half_done() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    // Polled ever more often, then dropped, then the transaction is committed as it is.
    let mut done = vec![0];
    for polls in (0..60).map(|round| round << (round / 5)) {
        let mut tx = db.pool.begin().await.unwrap();
        {
            let events = [placed(&polls.to_string()), placed("shared")];
            let mut append = std::pin::pin!(store.append(&mut tx, &order, Any, &events));
            for _ in 0..polls {
                let polled = std::future::poll_fn(|context| std::task::Poll::Ready(append.as_mut().poll(context))).await;
                if polled.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        tx.commit().await.unwrap();
        let mut connection = db.pool.acquire().await.unwrap();
        let stream = store.read_stream(&mut connection, &order).await.expect("everything committed is readable");
        done.push(stream.events.len());
        assert!(stream.events.len().is_multiple_of(2), "half an append was committed");
        let head: Option<i64> =
            sqlx::query_scalar("SELECT max(aggregate_version) FROM aggregate_heads").fetch_one(&mut *connection).await.unwrap();
        assert_eq!(head, stream.last_version.map(AggregateVersion::get), "the head is not where the events are");
    }
    let appended = |pair: &[usize]| pair[0] < pair[1];
    assert!(done.windows(2).any(appended) && !done.windows(2).all(appended), "appends must have been cut short, and completed: {done:?}");
}

/// As by a timeout around `shred()` whose error is ignored.
#[tokio::test]
async fn i5_a_dropped_shred_never_claims_more_than_it_did() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (mut done, mut half) = (0, 0);
    for polls in (0..60).map(|round| round << (round / 5)) {
        let (order, scope) = (aggregate("Order", polls.to_string()), KeyScope::new("Customer", polls.to_string()));
        let mut tx = db.pool.begin().await.unwrap();
        store.append(&mut tx, &order, Any, &[placed(&polls.to_string())]).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        {
            let mut shred = std::pin::pin!(store.keys().shred(&mut tx, &scope, "r"));
            for _ in 0..polls {
                if std::future::poll_fn(|context| std::task::Poll::Ready(shred.as_mut().poll(context))).await.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let history = store.keys().key_history(&mut tx, &scope).await.unwrap().unwrap();
        let destroyed = history.keys.iter().all(|key| key.shredded_at.is_some());
        assert_eq!(store.read_stream(&mut tx, &order).await.unwrap().events[0].is_redacted(), destroyed, "after {polls} polls");
        if history.state == ScopeState::Shredded {
            assert!(destroyed, "after {polls} polls, a key outlived what is said to be its shred");
            done += 1;
        } else if destroyed {
            half += 1;
            let refused = store.append(&mut tx, &order, Any, &[placed(&polls.to_string())]).await;
            assert!(matches!(refused, Err(Error::InvalidRow { .. })), "{refused:?}");
        }
        store.keys().shred(&mut tx, &scope, "again").await.unwrap();
        store.keys().reopen(&mut tx, &scope, "back").await.unwrap();
        assert!(store.read_stream(&mut tx, &order).await.unwrap().events[0].is_redacted());
    }
    assert!(done > 0 && done + half < 60, "shreds must have been cut short, and completed: {done} {half}");
}

#[tokio::test]
async fn i5_a_shredded_scope_with_a_key_left_is_not_reopened() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let (order, scope) = (aggregate("Order", "1"), KeyScope::new("Customer", "42"));
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
    sqlx::query("UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = '42'").execute(&mut *tx).await.unwrap();
    let error = store.keys().reopen(&mut tx, &scope, "r").await.unwrap_err();
    assert!(matches!(&error, Error::ScopeState { .. }) && error.to_string().contains("shred it again"), "{error:?}");
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
                sqlx::query("UPDATE key_scopes SET active_key_id = NULL WHERE scope_id = '42'").execute(&mut *tx).await.unwrap();
                store.append(&mut tx, &order, Any, &[placed("42")]).await.map(drop)
            }
        };
        assert!(matches!(error, Err(Error::InvalidRow { .. })), "{operation}: {error:?}");
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
    assert!(matches!(error, Error::NamespaceMismatch { .. }), "{error:?}");
    assert!(sqlx::query("UPDATE key_namespace SET namespace = 'elsewhere'").execute(&mut *connection).await.is_err());
    store(&db).await;
    for table in ["key_namespace", "key_scopes", "data_keys"] {
        let sql = sqlx::AssertSqlSafe(format!("DELETE FROM {table}"));
        assert!(sqlx::query(sql).execute(&mut *connection).await.is_err(), "{table} let rows be deleted");
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(mode, "wal");
    let mut tx = db.pool.begin().await.unwrap();
    assert!(matches!(SqliteStore::new().migrate(&mut tx).await, Err(Error::InTransaction { .. })));
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
    let other_id =
        "'00000000-0000-4000-8000-000000000000', scope_kind, scope_id, version, wrapped_key, kek_id, state, created_at, shredded_at, NULL";
    for sql in [
        "REPLACE INTO data_keys SELECT * FROM loot WHERE scope_id = '42'",
        &format!("REPLACE INTO data_keys SELECT {other_id} FROM loot WHERE scope_id = '42'"),
        "INSERT INTO data_keys SELECT * FROM loot WHERE scope_id = '42' ON CONFLICT DO UPDATE SET wrapped_key = excluded.wrapped_key",
        "UPDATE data_keys SET wrapped_key = x'00', state = 'live', shredded_at = NULL WHERE scope_id = '42'",
        "UPDATE OR REPLACE data_keys SET key_id = (SELECT key_id FROM loot WHERE scope_id = '42') WHERE scope_id = '43'",
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
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("conformance").unwrap()).await.expect("migrating stays idempotent");
}

#[tokio::test]
async fn tables_that_were_not_migrated_are_named_as_the_problem() {
    let db = Sqlite::empty().await;
    let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas());
    let error = store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::NotMigrated), "{error:?}");
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
    let wrapped: Vec<(String, Vec<u8>)> = sqlx::query_as("SELECT scope_id, wrapped_key FROM data_keys WHERE scope_kind = 'Customer'")
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
        "UPDATE data_keys SET wrapped_key = (SELECT wrapped_key FROM data_keys WHERE scope_id = '43') WHERE scope_id = '42'",
        "UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = '42'",
        "UPDATE data_keys SET wrapped_key = x'' WHERE scope_id = '42'",
        "UPDATE data_keys SET version = 7 WHERE scope_id = '42'",
        "INSERT INTO key_scopes VALUES ('Customer', '44', 'live', 1, NULL); UPDATE data_keys SET scope_id = '44' WHERE scope_id = '42'",
    ] {
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        for process in [&store, &cold()] {
            let error = process.read_stream(&mut tx, &order).await.unwrap_err();
            assert!(matches!(error, Error::WrongKey { .. }) && !error.is_retryable(), "{sql}: {error:?}");
        }
    }
    let mut tx = connection.begin().await.unwrap();
    assert_eq!(store.read_stream(&mut tx, &order).await.unwrap().events.len(), 2);
    sqlx::raw_sql("DROP TRIGGER data_keys_stay; DELETE FROM data_keys WHERE scope_id = '42'").execute(&mut *tx).await.unwrap();
    let error = store.read_stream(&mut tx, &order).await.unwrap_err();
    assert!(matches!(error, Error::MissingKey { .. }) && !error.is_shredded(), "a lost row is not an erasure: {error:?}");
}

/// Whoever can write the key table, without having any key, points a scope at a key that is not its own.
#[tokio::test]
async fn i5_a_redirected_active_key_seals_nothing() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let (alice, own) = (KeyScope::new("Customer", "alice"), "SELECT active_key_id FROM key_scopes WHERE scope_id");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("alice"), placed("mallory"), placed("gone")]).await.unwrap();
    tx.commit().await.unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    let shredded: String = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{own} = 'gone'"))).fetch_one(&mut *connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "gone"), "r").await.unwrap();
    tx.commit().await.unwrap();
    for (sql, hint) in [
        (format!("UPDATE key_scopes SET active_key_id = ({own} = 'mallory') WHERE scope_id = 'alice'"), "another scope"),
        (format!("UPDATE key_scopes SET active_key_id = ({own} = 'integrity') WHERE scope_id = 'alice'"), "another scope"),
        (format!("UPDATE key_scopes SET active_key_id = ({own} = 'alice') WHERE scope_id = 'integrity'"), "another scope"),
        (format!("UPDATE key_scopes SET active_key_id = '{shredded}', state = 'live' WHERE scope_id IN ('alice', 'gone')"), "key"),
        (
            "UPDATE data_keys SET wrapped_key = NULL, state = 'shredded', shredded_at = '2026-01-01T00:00:00Z' WHERE scope_id = 'alice'"
                .to_owned(),
            "destroyed",
        ),
    ] {
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *tx).await.unwrap();
        for process in [&store, &cold()] {
            let error = process.append(&mut tx, &order, Any, &[placed("alice")]).await.map(drop).unwrap_err();
            assert!(matches!(error, Error::InvalidRow { what: "key_scopes.active_key_id", .. }), "{sql}: {error:?}");
            assert!(error.to_string().contains(hint), "{error}");
        }
        let integrity = sql.ends_with("'integrity'");
        let rotated = store.keys().rotate_data_key(&mut tx, &if integrity { KeyScope::integrity() } else { alice.clone() }).await;
        assert!(matches!(rotated, Err(Error::InvalidRow { .. })), "{sql}: {rotated:?}");
        let prepared = cold().keys().prepare(&mut tx).await;
        assert_eq!(matches!(prepared, Err(Error::InvalidRow { .. })), integrity, "{sql}: {prepared:?}");
    }
    // A key that was rotated away stays so.
    let mut tx = connection.begin().await.unwrap();
    let first: String = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{own} = 'alice'"))).fetch_one(&mut *tx).await.unwrap();
    store.keys().rotate_data_key(&mut tx, &alice).await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("alice")]).await.unwrap();
    sqlx::query("UPDATE key_scopes SET active_key_id = ? WHERE scope_id = 'alice'").bind(first).execute(&mut *tx).await.unwrap();
    let error = store.append(&mut tx, &order, Any, &[placed("alice")]).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("newest"), "{error:?}");
}

/// Whoever follows the log can get past what can't be read, knows where it is, and never sees it as redacted.
#[tokio::test]
async fn i4_i8_one_unreadable_event_does_not_hold_up_the_others() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let customers = ["live", "disabled", "tampered", "shredded", "wrong", "lost", "live"];
    let mut tx = db.pool.begin().await.unwrap();
    for customer in customers {
        store.append(&mut tx, &aggregate("Order", customer), Any, &[placed(customer)]).await.unwrap();
    }
    store.keys().disable(&mut tx, &KeyScope::new("Customer", "disabled"), "r").await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "shredded"), "r").await.unwrap();
    sqlx::raw_sql(
        "UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '$seal', 'seal') AS BLOB) WHERE aggregate_id = 'tampered';
         UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = 'wrong';
         DROP TRIGGER data_keys_stay; DELETE FROM data_keys WHERE scope_id = 'lost'",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    for process in [&store, &cold()] {
        let mut tx = db.pool.begin().await.unwrap();
        let all = EventFilter::default();
        let failed = process.read_events(&mut tx, GlobalPosition::START, 100, &all).await;
        assert!(matches!(failed, Err(Error::Disabled { .. })), "{failed:?}");
        let page = process.read_events_each(&mut tx, GlobalPosition::START, 100, &all).await.unwrap();
        assert_eq!((page.scanned, page.next.get(), page.events.len()), (7, 7, 7));
        for ((position, customer), result) in (1..).zip(customers).zip(page.events) {
            match (customer, result) {
                ("live", Ok(events)) => assert_eq!(events[0].payload, placed("live").payload),
                ("shredded", Ok(events)) => assert!(events[0].is_redacted()),
                (customer, Err(unreadable)) => {
                    let expected = match customer {
                        "disabled" => matches!(unreadable.error, Error::Disabled { .. }),
                        "tampered" => unreadable.error.is_tampered(),
                        "wrong" => matches!(unreadable.error, Error::WrongKey { .. }),
                        _ => matches!(unreadable.error, Error::MissingKey { .. }),
                    };
                    assert!(expected, "{customer}: {:?}", unreadable.error);
                    assert_eq!((unreadable.global_position.get(), unreadable.aggregate.aggregate_id()), (position, customer));
                    let id: String = sqlx::query_scalar("SELECT event_id FROM events WHERE global_position = ?")
                        .bind(position)
                        .fetch_one(&mut *tx)
                        .await
                        .unwrap();
                    assert_eq!(id, unreadable.event_id.to_string());
                    assert!(unreadable.to_string().contains(&id), "{unreadable}");
                }
                (customer, Ok(events)) => panic!("{customer} was read: {events:?}"),
            }
        }
        let page = process.read_events_each(&mut tx, page.next, 100, &all).await.unwrap();
        assert_eq!((page.scanned, page.next.get(), page.events.len()), (0, 7, 0));
    }
}

#[tokio::test]
async fn rows_that_were_never_written_are_errors_and_not_panics() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
    tx.commit().await.unwrap();
    for (sql, expected) in [
        ("UPDATE events SET event_id = 'x'", "InvalidRow"),
        ("UPDATE events SET created_at = 'yesterday'", "InvalidRow"),
        ("UPDATE events SET event_version = -1", "InvalidEvent { position: GlobalPosition(1), what: \"event_version\""),
        ("UPDATE events SET event_version = 0", "UnknownVersion"),
        ("UPDATE events SET event_version = 2", "NewerVersion"),
        ("UPDATE events SET payload = x''", "InvalidPayload"),
        ("UPDATE events SET payload = x'ff00'", "InvalidPayload"),
        ("UPDATE events SET payload = x'7b7d00'", "InvalidPayload"),
        ("UPDATE events SET payload = x'226122'", "ShapeMismatch"),
        ("UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '$seal', 'seal') AS BLOB)", "Unsealed"),
        ("UPDATE data_keys SET created_at = ''", "InvalidRow"),
        ("UPDATE data_keys SET key_id = 'x' WHERE scope_id = '42'", "MissingKey"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE key_scopes SET state = 'lost'", "InvalidRow"),
        // A blob that was lost is no erasure, and a tombstone that holds a key is none either.
        ("PRAGMA ignore_check_constraints = ON; UPDATE data_keys SET wrapped_key = NULL", "InvalidRow"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE data_keys SET shredded_at = created_at", "InvalidRow"),
        // What is said to be shredded is never shown, even if its key is still there.
        ("UPDATE key_scopes SET state = 'shredded' WHERE scope_id = '42'", "InvalidRow"),
    ] {
        let mut connection = db.pool.acquire().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        let error = store.read_stream(&mut tx, &order).await.map(drop).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{sql}: {error:?}");
        drop(tx);
        connection.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_of_one_connection_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("one.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5)).connect_with(options).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    SqliteStore::new().migrate(&mut connection).await.unwrap();
    SqliteKeys::new().migrate(&mut connection, &Namespace::new("one").unwrap()).await.unwrap();
    let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Keyring::generate("main").unwrap(), schemas());
    store.keys().prepare(&mut connection).await.unwrap();
    drop(connection);
    let mut tx = pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "42"), "r").await.unwrap();
    let stream = store.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap();
    assert!(stream.events[0].is_redacted(), "a transaction sees its own shred");
    tx.commit().await.unwrap();
}
