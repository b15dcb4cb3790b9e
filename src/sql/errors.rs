//! Finds out what the driver's errors mean, and makes their texts, in which no value of a row is quoted.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use crate::error::{DriverError, Error, Failure, SetUpFault, TransactionFault};

/// An error of a statement that uses no table of this crate.
pub(crate) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::database(operation, source)
}

/// An error of a `COMMIT` that this crate sends.
pub(crate) fn committing(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::committing(operation, source)
}

/// An error that comes after a commit. It is never retryable: what was committed would be done twice.
pub(crate) fn after_commit(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Collision { source: Some(source) } => Error::Database { operation, source },
        Error::Database { source, .. } if source.is_outage() => {
            TransactionFault::OutcomeUnknown { operation, source }.into()
        }
        error => error,
    }
}

/// An error of a statement on the key tables.
pub(crate) fn key_database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        if Failure::from(&source) == Failure::MissingTable {
            Error::SetUp(SetUpFault::NotMigrated)
        } else {
            Error::database(operation, source)
        }
    }
}

/// An error of a statement on a table of blind indexes.
pub(crate) fn blind_index_database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        if Failure::from(&source) == Failure::MissingTable {
            Error::SetUp(SetUpFault::NoBlindIndex)
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
        // Only the message says which table is missing. It says nothing else.
        let message = source.as_database_error().map_or("", sqlx::error::DatabaseError::message);
        let quoted = message.split('"').nth(1).or_else(|| message.strip_prefix("no such table: "));
        Error::SetUp(SetUpFault::NoEventTables { of: "database", table: quoted.unwrap_or("events").to_owned() })
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
        Self::with_code(failure, &shown, [code.as_deref(), table.as_deref(), constraint.as_deref()], error.into())
    }
}

impl From<&sqlx::Error> for Failure {
    fn from(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => Self::Outage,
            // The server went away in the middle of the handshake.
            sqlx::Error::Tls(source) if source.downcast_ref::<std::io::Error>().is_some() => Self::Outage,
            sqlx::Error::Database(error) => of_database(&**error),
            _ => Self::Other,
        }
    }
}

fn of_database(error: &dyn sqlx::error::DatabaseError) -> Failure {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return postgres::failure(error);
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        return sqlite::failure(error);
    }
    let _ = error;
    Failure::Other
}

/// The message of a database, without values.
fn shown(error: &dyn sqlx::error::DatabaseError) -> String {
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
        return postgres::shown(error);
    }
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        return sqlite::shown(error);
    }
    let _ = error;
    "the database refused".to_owned()
}

/// The message of an error that the driver itself found, without values.
fn about(error: &sqlx::Error) -> String {
    match error {
        // An error about types that don't fit together quotes no value. An error of a type's decoder may quote one.
        sqlx::Error::ColumnDecode { index, source } if is_about_types(&**source) => format!("column {index}: {source}"),
        sqlx::Error::Decode(source) | sqlx::Error::Encode(source) if is_about_types(&**source) => source.to_string(),
        sqlx::Error::ColumnDecode { index, .. } => format!("column {index} can't be decoded"),
        sqlx::Error::Decode(_) => "a value can't be decoded".to_owned(),
        sqlx::Error::Encode(_) => "a value can't be encoded".to_owned(),
        // The driver's text may hold a password.
        sqlx::Error::Configuration(_) => "the connection is configured wrongly".to_owned(),
        error => error.to_string(),
    }
}

fn is_about_types(source: &(dyn std::error::Error + 'static)) -> bool {
    source.is::<sqlx::error::UnexpectedNullError>() || source.to_string().starts_with("mismatched types; ")
}
