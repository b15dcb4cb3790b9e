//! A copy of the shred log in SQLite.

use crate::error::{BoxError, Result};
use crate::keys::shred_log::ShredLogCopy;
use crate::sql::check_name;
use crate::sql::copy::{CopyDialect, CopyTable, TABLE, in_url};
use crate::sql::migrations::Migrations;
use async_trait::async_trait;
use sqlx::sqlite::SqlitePool;
use sqlx::{Pool, Sqlite};

/// A copy of the shred log in a table of a SQLite database, [`shred_log_copy`](Self::table) if no other one is named.
///
/// **Use another file than that of the keys**, on another disk: one that is not restored together with it. The table
/// holds the copy of one key database. Rows are only ever added, which triggers guard. Any number of processes may
/// export to it at once. An append commits durably, whatever `PRAGMA synchronous` says.
///
/// The table is made when lines are first added, or by [`migrate`](Self::migrate). Without a table the copy counts as
/// empty. The pool decides whether a missing file is created. It names scopes, so let its owner alone read it.
///
/// ```
/// # use eventseal::keys::{KeyManager, KeyTable};
/// # use eventseal::sqlite::{SqliteCopy, SqliteKeys};
/// # use sqlx::sqlite::{SqliteConnection, SqlitePoolOptions};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _entered = runtime.enter();
/// # let kms = eventseal::Keyring::generate("main")?;
/// let copy = SqliteCopy::new(SqlitePoolOptions::new().connect_lazy("sqlite:///mnt/elsewhere/logs.db")?);
/// let keys: KeyManager<SqliteConnection> =
///     KeyManager::builder(SqliteKeys::new(), kms).require_shred_log(copy, Duration::from_secs(60)).build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteCopy(CopyTable<Sqlite>);

impl CopyDialect for Sqlite {
    const ADD: &'static str = "INSERT INTO {table} (line, text)
        SELECT ?1 + 1 + w.key, w.value FROM json_each(?2) AS w RETURNING line";
    const MIGRATIONS: &'static Migrations =
        &[("shred log copy", include_str!("../../migrations/sqlite/shred_log_copy/0001_shred_log_copy.sql"))];

    fn place(pool: &Pool<Self>) -> String {
        format!("sqlite://{}", in_url(&pool.connect_options().get_filename().to_string_lossy()))
    }
}

impl SqliteCopy {
    /// The copy in the table `shred_log_copy`.
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self(CopyTable::new(pool, None, TABLE.to_owned()))
    }

    /// Uses a table of this name, such as one for each key database.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn table(self, table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        Ok(Self(self.0.table(table.to_owned())))
    }

    /// Creates the table, and switches the file to write-ahead logging. It is idempotent. There is a bookkeeping table.
    ///
    /// # Errors
    /// [`Error::Collision`](crate::Error::Collision) (retryable), [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self) -> Result<()> {
        self.0.migrate().await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.0.migration_sql()
    }
}

#[async_trait]
impl ShredLogCopy for SqliteCopy {
    /// The URL of the file. After a `#` comes the table, if it is not the usual one.
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}
