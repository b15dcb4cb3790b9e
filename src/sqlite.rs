//! What the SQLite adapters share: errors, times, migrations.

mod events;
mod keys;
pub(crate) mod own_transaction;

pub use events::SqliteStore;
pub use keys::SqliteKeys;

use crate::error::{BoxError, Error, Failure, Result};
use crate::sql::{database, newest, newest_migrations, not_beyond, say_if_newer};
use sqlx::error::DatabaseError;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteError, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Row, SqlSafeStr, Sqlite, SqliteConnection, Type};
use std::borrow::Cow;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

/// What a result code means.
pub(crate) fn failure(error: &SqliteError) -> Failure {
    let code: Option<u32> = error.code().and_then(|code| code.parse().ok());
    // The low byte is the primary code.
    match code.map(|code| code & 0xff) {
        // SQLITE_BUSY (517 is its BUSY_SNAPSHOT), SQLITE_LOCKED
        Some(5 | 6) => Failure::Collision,
        // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
        Some(10 | 13 | 14) => Failure::Outage,
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_AUTH
        Some(3 | 8 | 23) => Failure::Permission,
        // SQLITE_ERROR is everything that is wrong with a statement: the message alone tells, and is never translated.
        Some(1) if error.message().starts_with("no such table") => Failure::MissingTable,
        Some(1)
            if error.message().starts_with("no such column") || error.message().contains(" has no column named ") =>
        {
            Failure::MissingColumn
        }
        _ => Failure::Other,
    }
}

/// A message, without the values that a trigger of somebody else's may quote.
pub(crate) fn shown(error: &SqliteError) -> String {
    const OWN_TRIGGERS: &[&str] = &[
        include_str!("../migrations/sqlite/events/0001_events.sql"),
        include_str!("../migrations/sqlite/keys/0001_keys.sql"),
        include_str!("../migrations/sqlite/keys/0002_rewrap.sql"),
        include_str!("../migrations/sqlite/keys/0003_actor.sql"),
        include_str!("../migrations/sqlite/keys/0004_keks.sql"),
    ];
    // SQLITE_CONSTRAINT_TRIGGER
    let raised = error.code().as_deref() == Some("1811");
    if raised && !OWN_TRIGGERS.iter().any(|sql| sql.contains(&format!("'{}'", error.message()))) {
        return "a trigger of the database raised an error".to_owned();
    }
    error.message().to_owned()
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
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    // Neither fails for times that are read from here or pass `check_append`: they are in UTC, of years 0 to 9999.
    at.checked_to_offset(UtcOffset::UTC).unwrap_or(at).format(FORMAT).unwrap_or_default()
}

/// In UTC. A time of the years 0 to 9999 may be none in UTC (`9999-12-31T23:59:59-01:00`), and others that take it for
/// one would panic.
pub(crate) fn from_text(text: &str, what: &'static str) -> Result<OffsetDateTime> {
    let invalid = |problem| Error::InvalidRow { what, problem };
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| invalid("is not a time"))?;
    let at = at.checked_to_offset(UtcOffset::UTC).filter(|at| (0..=9999).contains(&at.year()));
    at.ok_or_else(|| invalid("is a time of a year that is not 0 to 9999 in UTC"))
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
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    bookkeeping: String,
    migrations: Vec<Migration>,
) -> Result<()> {
    own_transaction::outside(connection, "migrating").await?;
    let known = newest(&migrations);
    let applied = applied_migration(connection, &format!("\"{bookkeeping}\""), known).await?;
    say_if_newer(applied, known);
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(bookkeeping);
    // Migrations add, so that older code goes on during a deployment. Those that don't are marked, see above.
    migrator.set_ignore_missing(true);
    // Readers and the writer do not block one another. The mode stays with the file.
    sqlx::query("PRAGMA journal_mode = WAL")
        .execute(&mut *connection)
        .await
        .map_err(database("switching to write-ahead logging"))?;
    let run = |error: MigrateError| match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => database("migrating")(source),
        other => Error::database("migrating", BoxError::from(other)),
    };
    run_all(&migrator, connection).await.map_err(run)
}

/// The newest migration that was run; `None` if there is no bookkeeping.
pub(crate) async fn applied_migration(
    connection: &mut SqliteConnection,
    bookkeeping: &str,
    known: u32,
) -> Result<Option<u32>> {
    let sql = AssertSqlSafe(newest_migrations(bookkeeping));
    let found = sqlx::query_as::<_, (Option<i64>, Option<i64>)>(sql).fetch_one(connection).await;
    match found {
        Ok((newest, breaking)) => not_beyond(newest, breaking, known),
        Err(error) if Failure::from(&error) == Failure::MissingTable => Ok(None),
        Err(error) => Err(database("reading which migrations were run")(error)),
    }
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

    #[test]
    fn times_that_are_none_in_utc_are_refused() {
        for text in [
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59.999999-00:01",
            "0000-01-01T00:00:00+00:01",
            "",
            "infinity",
            "0",
        ] {
            assert!(
                matches!(from_text(text, "created_at"), Err(Error::InvalidRow { what: "created_at", .. })),
                "{text}"
            );
        }
        for (text, written) in [
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("9999-12-31T23:59:59+00:01", "9999-12-31T23:58:59.000000Z"),
            ("0000-01-01T00:00:00-00:01", "0000-01-01T00:01:00.000000Z"),
        ] {
            let at = from_text(text, "created_at").unwrap();
            assert_eq!((to_text(at).as_str(), at.offset()), (written, UtcOffset::UTC));
        }
    }
}
