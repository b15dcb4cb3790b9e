//! Checks of a required copy in transactions that see an old state: what they find counts for themselves alone.

use super::restores::{RESTORE_ALL, RESTORE_ROWS, SAVE, requiring};
use super::{Intruder, copy_in, export, schemas, shop};
use async_trait::async_trait;
use eventseal::erasure::{FileCopy, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::{Error, EventStoreExt as _, aggregate};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::backend::Backend;
use support::{Postgres, Sqlite};

const HOUR: Duration = Duration::from_secs(3_600);

/// A transaction that began before a restore does the check first. Whoever comes after it is refused all the same.
async fn hides_no_restore<B: Intruder>(begin: impl AsyncFn(&B) -> B::Transaction) {
    for restore in [RESTORE_ROWS, RESTORE_ALL] {
        let (db, store) = shop::<B>(&["1", "2", "3"]).await;
        super::seal(&db, &store).await.unwrap();
        db.write(SAVE).await;
        db.shred(&store, "1").await;
        let (copy, _folder) = copy_in();
        export(&db, &store, &copy).await.unwrap();
        let process = requiring(&db, &copy, HOUR);
        let mut old = begin(&db).await;
        db.write(restore).await;
        let seen = process.read_stream(db.tx(&mut old), &aggregate("Order", "1")).await.unwrap();
        assert!(seen.events[0].is_redacted(), "it sees what was there when it began");
        let fresh = db.read(&process, "1").await;
        assert!(matches!(fresh, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "I13: {fresh:?}");
        db.roll_back(old).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i13_an_old_snapshot_of_sqlite_hides_no_restore() {
    hides_no_restore::<Sqlite>(async |db| {
        let mut old = db.pool.begin().await.unwrap();
        old.execute("SELECT count(*) FROM events").await.unwrap();
        old
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i13_an_old_snapshot_of_postgres_hides_no_restore() {
    for begin in ["BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"] {
        hides_no_restore::<Postgres>(async |db| {
            let mut old = db.pool.begin_with(begin).await.unwrap();
            old.execute("SELECT count(*) FROM events").await.unwrap();
            old
        })
        .await;
    }
}

/// A copy that counts the looks at its end.
struct Counted(FileCopy, Arc<AtomicU32>);

#[async_trait]
impl ShredLogCopy for Counted {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}

/// What a statement with a snapshot of its own found holds for the period, whatever the default isolation level is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_saw_the_newest_state_holds_for_the_period() {
    let (db, store) = shop::<Postgres>(&["1", "2"]).await;
    db.shred(&store, "2").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let default = "ALTER DATABASE CURRENT SET default_transaction_isolation";
    let default = default.replace("CURRENT", db.options.get_database().unwrap());
    for level in ["repeatable read", "read committed"] {
        let set = sqlx::AssertSqlSafe(format!("{default} = '{level}'"));
        sqlx::raw_sql(set).execute(&db.pool).await.unwrap();
        for (begin, is_kept) in [
            (None, true),
            (Some("BEGIN ISOLATION LEVEL READ COMMITTED"), true),
            (Some("BEGIN ISOLATION LEVEL REPEATABLE READ"), false),
            (Some("BEGIN ISOLATION LEVEL SERIALIZABLE"), false),
        ] {
            let looks = Arc::new(AtomicU32::new(0));
            let counted = Counted(FileCopy::new(copy.path()), Arc::clone(&looks));
            let process = db.process_over(db.keys().require_shred_log(counted, HOUR), schemas());
            // A new connection has the new default.
            let mut connection = PgConnection::connect_with(&db.options).await.unwrap();
            if let Some(begin) = begin {
                connection.execute(begin).await.unwrap();
            }
            for _ in 0..3 {
                process.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap();
            }
            assert_eq!(looks.load(Ordering::SeqCst) == 1, is_kept, "{level}, {begin:?}: {looks:?} looks");
        }
    }
}
