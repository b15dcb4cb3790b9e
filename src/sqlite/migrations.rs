//! The parts of [migrations](crate::sql::migrations) that are SQLite's own.

use crate::error::Result;
use crate::sql::database;
use crate::sql::migrations::Migrating;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};

#[async_trait]
impl Migrating for Sqlite {
    /// Switches to write-ahead logging, in which readers and the writer do not block one another. The file keeps the
    /// mode.
    async fn prepare(connection: &mut SqliteConnection, _: Option<&str>) -> Result<()> {
        let switched = sqlx::query("PRAGMA journal_mode = WAL").execute(connection).await;
        switched.map(drop).map_err(database("switching to write-ahead logging"))
    }

    /// SQLite has no result code for this.
    fn table_exists(_: &sqlx::Error) -> bool {
        false
    }

    async fn two_numbers(connection: &mut SqliteConnection, sql: String) -> sqlx::Result<(Option<i64>, Option<i64>)> {
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await
    }
}
