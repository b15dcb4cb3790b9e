//! What a check of a required copy locks on SQLite, which has one lock for all writers and none for readers.

use super::{copy_in, export, placed, schemas, shop};
use async_trait::async_trait;
use eventseal::erasure::{FileCopy, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::{Error, EventStoreExt as _, aggregate};
use sqlx::{Executor as _, SqlitePool};
use std::time::Duration;
use support::backend::Backend as _;
use support::{Sqlite, contains, customer_scope};

/// A copy that answers once another connection has written to the key database.
struct Far(FileCopy, SqlitePool);

#[async_trait]
impl ShredLogCopy for Far {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        let mut other = self.1.begin_with("BEGIN IMMEDIATE").await?;
        other.execute("CREATE TABLE IF NOT EXISTS others (id INTEGER)").await?;
        other.execute("INSERT INTO others VALUES (1)").await?;
        other.commit().await?;
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}

/// Others write while a copy that is far away is looked at, whatever the check is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_the_answer_of_a_copy() {
    let (db, store) = shop::<Sqlite>(&["1", "2"]).await;
    let (copy, _folder) = copy_in();
    db.shred(&store, "2").await;
    export(&db, &store, &copy).await.unwrap();
    let keys = db.keys().require_shred_log(Far(FileCopy::new(copy.path()), db.pool.clone()), Duration::ZERO);
    let process = db.process_over(keys, schemas());
    assert!(contains(&db.read(&process, "1").await.unwrap()[0].payload, "Ada"));
    db.append(&process, "1", &[placed("1")]).await;
    db.disable(&process, "1").await;
    db.enable(&process, "1").await;
    db.shred(&process, "1").await;
    let others: i64 = sqlx::query_scalar("SELECT count(*) FROM others").fetch_one(&db.pool).await.unwrap();
    assert!(others >= 5, "each call has looked: {others}");
}

/// A reader neither waits for a writer nor becomes one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_checks_takes_no_lock() {
    let (db, store) = shop::<Sqlite>(&["1", "2"]).await;
    let (copy, _folder) = copy_in();
    db.shred(&store, "2").await;
    export(&db, &store, &copy).await.unwrap();
    let keys = db.keys().require_shred_log(FileCopy::new(copy.path()), Duration::ZERO);
    let process = db.process_over(keys, schemas());
    let mut writer = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    writer.execute("CREATE TABLE others (id INTEGER)").await.unwrap();
    assert!(contains(&db.read(&process, "1").await.unwrap()[0].payload, "Ada"));
    writer.commit().await.unwrap();
    let options = (*db.pool.connect_options()).clone().read_only(true);
    let mut reader = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let mut tx = sqlx::Connection::begin(&mut reader).await.unwrap();
    let read = process.read_stream(&mut tx, &aggregate("Order", "1")).await.unwrap();
    assert!(contains(&read.events[0].payload, "Ada"));
}

/// A transaction that has read sees the state of then. A copy that is ahead of that state, and not of the log, is no
/// sign of a restore: the call fails, and its repetition succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_state_is_no_restore() {
    let (db, store) = shop::<Sqlite>(&["1", "2"]).await;
    let (copy, _folder) = copy_in();
    db.disable(&store, "2").await;
    export(&db, &store, &copy).await.unwrap();
    let keys = db.keys().require_shred_log(FileCopy::new(copy.path()), Duration::ZERO);
    let process = db.process_over(keys, schemas());
    let mut tx = db.pool.begin().await.unwrap();
    tx.execute("SELECT count(*) FROM events").await.unwrap();
    db.shred(&store, "2").await;
    export(&db, &store, &copy).await.unwrap();
    let stale = process.read_stream(&mut tx, &aggregate("Order", "1")).await;
    assert!(matches!(stale, Err(Error::Collision { .. })), "{stale:?}");
    tx.rollback().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    tx.execute("SELECT count(*) FROM events").await.unwrap();
    assert!(process.read_stream(&mut tx, &aggregate("Order", "1")).await.is_ok());
    tx.rollback().await.unwrap();
    // A restore is told from it, in a transaction that has read as in one that has not.
    super::Intruder::write(&db, "DELETE FROM shred_log WHERE seq = 2; UPDATE shred_log_head SET seq = 1").await;
    for has_read in [false, true] {
        let mut tx = db.pool.begin().await.unwrap();
        if has_read {
            tx.execute("SELECT count(*) FROM events").await.unwrap();
        }
        let behind = process.read_stream(&mut tx, &aggregate("Order", "1")).await;
        assert!(matches!(behind, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{behind:?}");
        let behind = process.keys().shred(&mut tx, &customer_scope("1"), "request").await;
        assert!(matches!(behind, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{behind:?}");
        tx.rollback().await.unwrap();
    }
}
