//! The write lock, transactions that collide, and calls that are dropped.

use super::{impatient, placed, schemas, store};
use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::error::{StorageFault, TransactionFault};
use eventseal::keys::KeyStore;
use eventseal::keys::{ScopeLock, ScopeState};
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    AggregateVersion, Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, Keyring, Namespace,
    NewEvent, Result, SealedStore, aggregate,
};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::Sqlite;
use support::faults::{Faulty, KmsFaults};
use tokio::sync::Notify;

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
            assert!(
                matches!(refusal, Err(Error::Transaction(TransactionFault::NotInTransaction { .. }))),
                "{refusal:?}"
            );
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

/// A transaction that writes must write before it reads. Otherwise it would fail at once instead of waiting for another
/// writer.
#[tokio::test]
async fn a_prepared_process_waits_for_its_turn_to_write() {
    let db = Sqlite::new().await;
    for operation in ["append", "rotate", "reopen", "shred"] {
        let store = store(&db).await;
        let mut other = db.pool.begin().await.unwrap();
        SqliteStore::new()
            .append(&mut other, &aggregate("Order", "other"), Any, &[NewEvent::raw("Noted", 1, "{}")])
            .await
            .unwrap();
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
    let kms = Arc::new(Faulty(Hanging {
        keyring: Keyring::generate("main").unwrap(),
        hangs: false.into(),
        asked: Notify::new(),
    }));
    let process = || Arc::new(SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&kms), schemas()));
    // It has the integrity key at hand, which authenticates its shreds.
    let eraser = process();
    eraser.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
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
        // Somebody else, without patience, erases meanwhile.
        let mut other = impatient(&db).await;
        let mut tx = other.begin().await.unwrap();
        eraser.keys().shred(&mut tx, &scope, "r").await.expect("a shred waits for no KMS");
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

/// A process that was not prepared asks the KMS first, and may have to try its append again.
#[tokio::test]
async fn a_cold_append_that_was_overtaken_is_retryable_and_then_warm() {
    let db = Sqlite::new().await;
    let kms = Arc::new(Faulty(Hanging {
        keyring: Keyring::generate("main").unwrap(),
        hangs: false.into(),
        asked: Notify::new(),
    }));
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
        let customer = serde_json::from_slice::<serde_json::Value>(&event.payload).unwrap()["customer"]
            .as_str()
            .unwrap()
            .to_owned();
        let history =
            store.keys().key_history(&mut connection, &KeyScope::new("Customer", customer)).await.unwrap().unwrap();
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
                let polled =
                    std::future::poll_fn(|context| std::task::Poll::Ready(append.as_mut().poll(context))).await;
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
        let head: Option<i64> = sqlx::query_scalar("SELECT max(aggregate_version) FROM aggregate_heads")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        assert_eq!(head, stream.last_version.map(AggregateVersion::get), "the head is not where the events are");
    }
    let appended = |pair: &[usize]| pair[0] < pair[1];
    assert!(
        done.windows(2).any(appended) && !done.windows(2).all(appended),
        "appends must have been cut short, and completed: {done:?}"
    );
}

/// The shred's future is dropped, as by a time-out around `shred()` whose error is ignored.
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
                if std::future::poll_fn(|context| std::task::Poll::Ready(shred.as_mut().poll(context))).await.is_ready()
                {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let history = store.keys().key_history(&mut tx, &scope).await.unwrap().unwrap();
        let destroyed = history.keys.iter().all(|key| key.shredded_at.is_some());
        assert_eq!(
            store.read_stream(&mut tx, &order).await.unwrap().events[0].is_redacted(),
            destroyed,
            "after {polls} polls"
        );
        if history.state == ScopeState::Shredded {
            assert!(destroyed, "after {polls} polls, a key outlived what is said to be its shred");
            done += 1;
        } else if destroyed {
            half += 1;
            let refused = store.append(&mut tx, &order, Any, &[placed(&polls.to_string())]).await;
            assert!(matches!(refused, Err(Error::Storage(StorageFault::InvalidRow { .. }))), "{refused:?}");
        }
        store.keys().shred(&mut tx, &scope, "again").await.unwrap();
        store.keys().reopen(&mut tx, &scope, "back").await.unwrap();
        assert!(store.read_stream(&mut tx, &order).await.unwrap().events[0].is_redacted());
    }
    assert!(done > 0 && done + half < 60, "shreds must have been cut short, and completed: {done} {half}");
}

#[tokio::test]
async fn a_pool_of_one_connection_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("one.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options)
        .await
        .unwrap();
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
