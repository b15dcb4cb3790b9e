//! What the SQLite adapters share: errors, times, migrations.

use crate::error::{Error, Result};
use crate::sql::not_in_transaction;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Decode, Row, SqlSafeStr, Sqlite, SqliteConnection, Type};
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use uuid::Uuid;

/// Tells a collision, which can be tried again, from everything else.
pub(crate) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        // The low byte is the primary code: 5 is SQLITE_BUSY (517 its BUSY_SNAPSHOT), 6 is SQLITE_LOCKED.
        let collided = matches!(result_code(&source).map(|code| code & 0xff), Some(5 | 6));
        if collided { Error::Collision { source: Some(source.into()) } } else { Error::Database { operation, source: source.into() } }
    }
}

/// SQLite's extended result code.
fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// `SQLITE_CONSTRAINT_UNIQUE`
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    result_code(error) == Some(2067)
}

/// As text that sorts by time: UTC, microseconds.
pub(crate) fn to_text(at: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    // Formatting a time into a String fails for years beyond 9999 only.
    at.to_offset(time::UtcOffset::UTC).format(FORMAT).unwrap_or_default()
}

pub(crate) fn from_text(text: &str, what: &'static str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Error::InvalidRow { what, problem: "is not a time" })
}

pub(crate) fn column<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(row: &'r SqliteRow, index: usize) -> Result<T> {
    row.try_get(index).map_err(database("reading a column"))
}

pub(crate) fn uuid(text: &str) -> Result<Uuid> {
    Uuid::try_parse(text).map_err(|_| Error::InvalidRow { what: "an id", problem: "is not a UUID" })
}

/// A migration file with its names filled in.
pub(crate) fn migration(version: i64, description: &'static str, sql: String) -> Migration {
    Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), false)
}

/// Runs migrations under a bookkeeping table of their own. Idempotent.
pub(crate) async fn migrate(connection: &mut SqliteConnection, bookkeeping: String, migrations: Vec<Migration>) -> Result<()> {
    not_in_transaction(connection, "migrating")?;
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(bookkeeping);
    // Readers and the writer do not block one another. The mode stays with the file.
    sqlx::query("PRAGMA journal_mode = WAL").execute(&mut *connection).await.map_err(database("switching to write-ahead logging"))?;
    let run = |error: MigrateError| match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => database("migrating")(source),
        other => Error::Database { operation: "migrating", source: other.into() },
    };
    run_all(&migrator, connection).await.map_err(run)
}

async fn run_all<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<(), MigrateError> {
    migrator.run_direct(None, connection, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_as_text_and_sort() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_000_001_000).unwrap();
        assert_eq!(to_text(at), "2023-11-14T22:13:20.000001Z");
        assert_eq!(from_text(&to_text(at), "created_at").unwrap(), at);
        assert!(from_text("yesterday", "created_at").is_err());
    }
}
