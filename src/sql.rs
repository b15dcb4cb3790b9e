//! What all SQL adapters share: names that can't smuggle SQL, the transaction that the driver knows of, and what the
//! driver's errors mean.

use crate::error::{DriverError, Error, Failure, Result};
use sqlx::Connection;

/// Has the table all the events that were written? A trigger of somebody else's may leave a row out and say nothing.
pub(crate) fn check_stored(stored: usize, events: usize, operation: &'static str) -> Result<()> {
    if stored == events { Ok(()) } else { Err(Error::NoEffect { operation, table: "events" }) }
}

/// Checks the name of a table, a column, a schema or a channel.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let problem = match name.as_bytes() {
        [] => "is empty: name it",
        [first, ..] if first.is_ascii_digit() => "starts with a digit: begin it with a letter",
        bytes if bytes.len() > 32 => "is longer than 32 bytes: shorten it",
        bytes if !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') => {
            "may hold letters, digits and '_' only"
        }
        _ => return Ok(()),
    };
    Err(Error::InvalidText { what, problem })
}

pub(crate) fn in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() { Ok(()) } else { Err(Error::NotInTransaction { operation }) }
}

pub(crate) fn not_in_transaction(connection: &impl Connection, operation: &'static str) -> Result<()> {
    if connection.is_in_transaction() { Err(Error::InTransaction { operation }) } else { Ok(()) }
}

/// What the description of a migration begins with that older code must not work with. Nothing has it so far:
/// migrations add what is new, so that the code of the last version goes on while the next one is deployed.
const BREAKING: &str = "breaking";

/// The newest migration that was run, and the newest breaking one.
pub(crate) fn newest_migrations(bookkeeping: &str) -> String {
    format!(
        "SELECT max(version), max(CASE WHEN description LIKE '{BREAKING}%' THEN version END) FROM {bookkeeping} WHERE \
         success"
    )
}

/// Refuses tables that a newer version has changed in a way that this one must not work with.
pub(crate) fn not_beyond(newest: Option<i64>, breaking: Option<i64>, known: u32) -> Result<Option<u32>> {
    let number = |version: i64| u32::try_from(version).unwrap_or(u32::MAX);
    match breaking.map(number) {
        Some(breaking) if breaking > known => Err(Error::NewerTables { found: newest.map_or(breaking, number), known }),
        _ => Ok(newest.map(number)),
    }
}

/// The number of the last of these migrations.
pub(crate) fn newest(migrations: &[sqlx::migrate::Migration]) -> u32 {
    migrations.iter().filter_map(|migration| u32::try_from(migration.version).ok()).max().unwrap_or(0)
}

pub(crate) fn say_if_newer(applied: Option<u32>, known: u32) {
    if let Some(applied) = applied.filter(|applied| *applied > known) {
        tracing::info!(applied, known, "the tables were migrated by a newer version: nothing to do");
    }
}

/// An error of a statement on no table of this crate's.
pub(crate) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::database(operation, source)
}

/// An error of a `COMMIT` that this crate sends.
pub(crate) fn committing(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::committing(operation, source)
}

/// An error of a statement on the key tables.
pub(crate) fn key_database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        if Failure::from(&source) == Failure::MissingTable {
            Error::NotMigrated
        } else {
            Error::database(operation, source)
        }
    }
}

/// An error of a statement on the tables of events.
pub(crate) fn event_database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        if Failure::from(&source) != Failure::MissingTable {
            return Error::database(operation, source);
        }
        // Which one can be read from the message alone. It says nothing but that.
        let message = source.as_database_error().map_or("", sqlx::error::DatabaseError::message);
        let quoted = message.split('"').nth(1).or_else(|| message.strip_prefix("no such table: "));
        Error::NoEventTables { of: "database", table: quoted.unwrap_or("events").to_owned() }
    }
}

impl From<sqlx::Error> for DriverError {
    fn from(error: sqlx::Error) -> Self {
        let failure = Failure::from(&error);
        let Some(database) = error.as_database_error() else {
            return Self::new(failure, &about(&error), error.into());
        };
        let (code, table, constraint) = (
            database.code().map(String::from),
            database.table().map(str::to_owned),
            database.constraint().map(str::to_owned),
        );
        let shown = shown(database);
        Self::new(failure, &shown, error.into()).with_code(code.as_deref(), table.as_deref(), constraint.as_deref())
    }
}

impl From<&sqlx::Error> for Failure {
    fn from(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Self::Outage,
            // A server that goes away in the middle of the handshake.
            sqlx::Error::Tls(source) if source.downcast_ref::<std::io::Error>().is_some() => Self::Outage,
            sqlx::Error::Database(error) => of_database(&**error),
            _ => Self::Other,
        }
    }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> Failure {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return crate::postgres::failure(error.code());
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        return crate::sqlite::failure(error);
    }
    let _ = error;
    Failure::Other
}

/// The message of a database, without values.
fn shown(error: &dyn sqlx::error::DatabaseError) -> String {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return crate::postgres::shown(error);
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        return crate::sqlite::shown(error);
    }
    let _ = error;
    "the database refused".to_owned()
}

/// What the driver itself found, without values.
fn about(error: &sqlx::Error) -> String {
    match error {
        // Which types don't go together is said without the value; what a decoder of a type says may quote it.
        sqlx::Error::ColumnDecode { index, source } if is_about_types(&**source) => format!("column {index}: {source}"),
        sqlx::Error::Decode(source) | sqlx::Error::Encode(source) if is_about_types(&**source) => source.to_string(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} can't be decoded"),
        sqlx::Error::Decode(_) => "a value can't be decoded".to_owned(),
        sqlx::Error::Encode(_) => "a value can't be encoded".to_owned(),
        // There may be a password in it.
        sqlx::Error::Configuration(_) => "the connection is configured wrongly".to_owned(),
        error => error.to_string(),
    }
}

fn is_about_types(source: &(dyn std::error::Error + 'static)) -> bool {
    source.is::<sqlx::error::UnexpectedNullError>() || source.to_string().starts_with("mismatched types; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_smuggle_sql() {
        assert!(check_name("the table name", "Events_2").is_ok());
        for name in ["", "1a", "a\"b", "a b", "a;--", "ä", "a\0", "{heads}", &"x".repeat(33)] {
            assert!(check_name("the table name", name).is_err(), "{name}");
        }
    }
}
