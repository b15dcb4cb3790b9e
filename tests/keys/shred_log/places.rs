//! Places where a copy of the shred log is kept, each test's own.

use async_trait::async_trait;
use eventseal::erasure::{FileCopy, ShredLogCopy};
use eventseal::postgres::PostgresCopy;
use eventseal::sqlite::SqliteCopy;
use sqlx::{AssertSqlSafe, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Postgres, Sqlite};
use tempfile::TempDir;

#[async_trait]
pub(crate) trait Place: Send + Sync + Sized + 'static {
    type Copy: ShredLogCopy + Clone + 'static;

    async fn make() -> Self;

    /// The copy, as a process that has just started opens it.
    async fn copy(&self) -> Self::Copy;

    /// Puts these lines in place of all that there are, as somebody does who can write to the place.
    async fn write(&self, lines: &[String]);

    /// Adds a row, as somebody does who may add rows.
    async fn insert(&self, _number: i64, _line: &str) -> Result<(), sqlx::Error> {
        Ok(())
    }

    /// The same, by somebody who may do anything, and switches triggers off.
    async fn force(&self, _number: i64, _line: &str) {}

    /// Fills the disk up, for handles that are opened from now on.
    async fn fill_up(&self) {}

    /// Makes room again.
    async fn make_room(&self) {}
}

pub(crate) struct InFile(TempDir);

/// A file of which a process holds the path.
#[derive(Clone)]
pub(crate) struct Handle(Arc<FileCopy>);

#[async_trait]
impl ShredLogCopy for Handle {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, eventseal::error::BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, eventseal::error::BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), eventseal::error::BoxError> {
        self.0.append(last, lines).await
    }
}

#[async_trait]
impl Place for InFile {
    type Copy = Handle;

    async fn make() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn copy(&self) -> Handle {
        Handle(Arc::new(FileCopy::new(self.0.path().join("log"))))
    }

    async fn write(&self, lines: &[String]) {
        let text: String = lines.iter().map(|line| line.clone() + "\n").collect();
        std::fs::write(self.0.path().join("log"), text).unwrap();
    }
}

/// A database, and whether its file must not grow.
pub(crate) struct InSqlite(pub(crate) Sqlite, AtomicBool);

#[async_trait]
impl Place for InSqlite {
    type Copy = SqliteCopy;

    async fn make() -> Self {
        Self(Sqlite::empty().await, AtomicBool::new(false))
    }

    async fn copy(&self) -> SqliteCopy {
        let mut options = (*self.0.pool.connect_options()).clone();
        if self.1.load(Ordering::SeqCst) {
            // No page more than there are.
            options = options.pragma("max_page_count", "1");
        }
        SqliteCopy::new(sqlx::sqlite::SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options))
    }

    async fn write(&self, lines: &[String]) {
        let mut tx = self.0.pool.begin().await.unwrap();
        tx.execute("DROP TRIGGER shred_log_copy_stays; DELETE FROM shred_log_copy").await.unwrap();
        for (number, line) in (1_i64..).zip(lines) {
            sqlx::query("INSERT INTO shred_log_copy VALUES (?, ?)")
                .bind(number)
                .bind(line)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        let stays = "CREATE TRIGGER shred_log_copy_stays BEFORE DELETE ON shred_log_copy
            BEGIN SELECT raise(ABORT, 'stays'); END";
        tx.execute(stays).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn insert(&self, number: i64, line: &str) -> Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO shred_log_copy VALUES (?, ?)").bind(number).bind(line);
        insert.execute(&self.0.pool).await.map(drop)
    }

    async fn force(&self, number: i64, line: &str) {
        self.0.pool.execute("DROP TRIGGER IF EXISTS shred_log_copy_has_no_gaps").await.unwrap();
        self.insert(number, line).await.unwrap();
    }

    async fn fill_up(&self) {
        self.1.store(true, Ordering::SeqCst);
    }

    async fn make_room(&self) {
        self.1.store(false, Ordering::SeqCst);
    }
}

pub(crate) struct InPostgres(pub(crate) Postgres);

#[async_trait]
impl Place for InPostgres {
    type Copy = PostgresCopy;

    async fn make() -> Self {
        Self(Postgres::empty().await)
    }

    async fn copy(&self) -> PostgresCopy {
        let pool = sqlx::postgres::PgPoolOptions::new().max_connections(2);
        PostgresCopy::new(pool.connect_lazy_with(self.0.options.clone()))
    }

    async fn write(&self, lines: &[String]) {
        let mut tx = self.0.pool.begin().await.unwrap();
        tx.execute("SET LOCAL session_replication_role = replica").await.unwrap();
        tx.execute("DELETE FROM shred_log_copy").await.unwrap();
        for (number, line) in (1_i64..).zip(lines) {
            sqlx::query("INSERT INTO shred_log_copy VALUES ($1, $2)")
                .bind(number)
                .bind(line)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn insert(&self, number: i64, line: &str) -> Result<(), sqlx::Error> {
        let insert = sqlx::query("INSERT INTO shred_log_copy VALUES ($1, $2)").bind(number).bind(line);
        insert.execute(&self.0.pool).await.map(drop)
    }

    async fn force(&self, number: i64, line: &str) {
        let mut tx = self.0.pool.begin().await.unwrap();
        tx.execute("SET LOCAL session_replication_role = replica").await.unwrap();
        let insert = sqlx::query("INSERT INTO shred_log_copy VALUES ($1, $2)").bind(number).bind(line);
        insert.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The server's own error for a full disk, at the second row.
    async fn fill_up(&self) {
        let full = "CREATE FUNCTION disk_is_full() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF NEW.line % 2 = 0 THEN
                    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER disk_is_full BEFORE INSERT ON shred_log_copy FOR EACH ROW EXECUTE FUNCTION disk_is_full()";
        self.0.pool.execute(AssertSqlSafe(full)).await.unwrap();
    }

    async fn make_room(&self) {
        self.0.pool.execute("DROP TRIGGER disk_is_full ON shred_log_copy").await.unwrap();
    }
}

/// Runs tests of functions that are generic over the database of the keys and the place of the copy.
macro_rules! with_every_copy {
    ($($name:ident,)*) => {
        $crate::shred_log::places::with_copies!(in_a_file, support::Memory, InFile, $($name,)*);
        $crate::shred_log::places::with_tables!($($name,)*);
    };
}

/// The same for copies in tables, where the keys are in a database of the same kind.
macro_rules! with_tables {
    ($($name:ident,)*) => {
        $crate::shred_log::places::with_copies!(in_sqlite, support::Sqlite, InSqlite, $($name,)*);
        $crate::shred_log::places::with_copies!(in_postgres, support::Postgres, InPostgres, $($name,)*);
    };
}

macro_rules! with_copies {
    ($module:ident, $database:ty, $place:ident, $($name:ident,)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name::<$database, $crate::shred_log::places::$place>().await;
                }
            )*
        }
    };
}

pub(crate) use {with_copies, with_every_copy, with_tables};
