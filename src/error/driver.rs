//! What the driver of a database says, without the rows that it quotes.
//!
//! PostgreSQL puts rows into the DETAIL of an error, and values into some messages. Both would reach logs through
//! `Debug` and `Display`. So the error is kept as it came, for those who ask for it, and what is shown of it is chosen
//! here. Knows no driver: each adapter says what its driver's errors mean.

use crate::error::{BoxError, Error, SetUpFault, TransactionFault};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What an error of a driver means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "what no driver is there to say")
)]
pub(crate) enum Failure {
    /// Another transaction was in the way.
    Collision,
    /// The database is away, or does not take what it takes at other times.
    Outage,
    /// This user may not do it.
    Permission,
    /// A table or its schema is not there.
    MissingTable,
    /// A table is there, and one of its columns is not.
    MissingColumn,
    /// A prepared statement is not where it was prepared.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only PostgreSQL has statements of a session"))]
    LostStatement,
    Other,
}

/// What the driver of a database said.
///
/// It is the [`source`](std::error::Error::source) of [`Error::Database`] and its relatives. `Debug` and `Display` show
/// the code, the message and the names of table and constraint. They show no row and no value, and escape control
/// characters. Its own `source` is `None`, for the same reason: [`driver`](Self::driver) has everything that the driver
/// said.
// Behind a pointer: errors are returned everywhere, and this one is rare. A shared one, so that errors can be cloned.
#[derive(Clone)]
pub struct DriverError(Arc<Said>);

struct Said {
    failure: Failure,
    code: Option<String>,
    table: Option<String>,
    constraint: Option<String>,
    message: String,
    driver: BoxError,
}

impl DriverError {
    /// `message` is shown as it is: it must quote no values.
    pub(crate) fn new(failure: Failure, message: &str, driver: BoxError) -> Self {
        Self(Arc::new(Said { failure, code: None, table: None, constraint: None, message: printable(message), driver }))
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn with_code(
        failure: Failure,
        message: &str,
        [code, table, constraint]: [Option<&str>; 3],
        driver: BoxError,
    ) -> Self {
        let (code, table, constraint) = (code.map(printable), table.map(printable), constraint.map(printable));
        Self(Arc::new(Said { failure, code, table, constraint, message: printable(message), driver }))
    }

    /// PostgreSQL's SQLSTATE, or SQLite's extended result code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The table that the database names.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    /// The constraint that the database names.
    #[must_use]
    pub fn constraint(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    /// Is the database away, or does it not take what it takes at other times? See [`Error::is_outage`].
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.0.failure == Failure::Outage
    }

    /// The error as the driver made it, such as a `sqlx::Error` to downcast to.
    ///
    /// **Its `Debug` may show rows of the table**, wrapped keys and payloads among them: put it into no log.
    #[must_use]
    pub fn driver(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.0.driver
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.0.code.as_ref().map_or(Ok(()), |code| write!(f, " (code {code})"))
    }
}

impl fmt::Debug for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverError")
            .field("failure", &self.0.failure)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("table", &self.0.table)
            .field("constraint", &self.0.constraint)
            .finish_non_exhaustive()
    }
}

impl StdError for DriverError {}

/// For stores of your own: shows the error's `Display`, and neither its `Debug` nor its sources.
impl From<BoxError> for DriverError {
    fn from(error: BoxError) -> Self {
        #[cfg(any(feature = "postgres", feature = "sqlite"))]
        let error = match error.downcast::<sqlx::Error>() {
            Ok(error) => return Self::from(*error),
            Err(error) => error,
        };
        match error.downcast::<std::io::Error>() {
            Ok(error) => Self::from(*error),
            Err(error) => Self::new(Failure::Other, &error.to_string(), error),
        }
    }
}

impl From<std::io::Error> for DriverError {
    fn from(error: std::io::Error) -> Self {
        Self::new(Failure::Outage, &error.to_string(), error.into())
    }
}

impl From<serde_json::Error> for DriverError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(Failure::Other, &super::describe_without_values(&error, b""), error.into())
    }
}

impl From<&str> for DriverError {
    fn from(message: &str) -> Self {
        Self::new(Failure::Other, message, message.into())
    }
}

impl From<String> for DriverError {
    fn from(message: String) -> Self {
        Self::new(Failure::Other, &message, message.clone().into())
    }
}

impl Error {
    /// What a driver said while doing `operation`, as the error that it means: [`Collision`](Self::Collision),
    /// [`PermissionDenied`](SetUpFault::PermissionDenied), [`OutdatedTables`](SetUpFault::OutdatedTables),
    /// [`PooledStatements`](SetUpFault::PooledStatements), or else [`Database`](Self::Database).
    ///
    /// For a transaction of your own: `pool.begin().await.map_err(|error| Error::database("beginning", error))`.
    #[must_use]
    pub fn database(operation: &'static str, source: impl Into<DriverError>) -> Self {
        let source = source.into();
        match source.0.failure {
            Failure::Collision => Self::Collision { source: Some(source) },
            Failure::Permission => SetUpFault::PermissionDenied { operation, source }.into(),
            Failure::MissingColumn => SetUpFault::OutdatedTables { operation, source }.into(),
            Failure::LostStatement => SetUpFault::PooledStatements { operation, source }.into(),
            Failure::Outage | Failure::MissingTable | Failure::Other => Self::Database { operation, source },
        }
    }

    /// As [`database`](Self::database), of a `COMMIT`: after an outage, nobody knows whether it was done, so that is
    /// [`OutcomeUnknown`](TransactionFault::OutcomeUnknown) and not retryable.
    #[must_use]
    pub fn committing(operation: &'static str, source: impl Into<DriverError>) -> Self {
        match Self::database(operation, source) {
            Self::Database { source, .. } if source.is_outage() => {
                TransactionFault::OutcomeUnknown { operation, source }.into()
            }
            error => error,
        }
    }
}

/// What an error of the application's own code means, if that is one of this crate or of a driver.
pub(crate) fn meaning(error: &(dyn StdError + Send + Sync + 'static)) -> Failure {
    if let Some(error) = error.downcast_ref::<Error>() {
        return match error {
            error if error.is_outage() && error.is_retryable() => Failure::Outage,
            error if error.is_retryable() => Failure::Collision,
            _ => Failure::Other,
        };
    }
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    if let Some(error) = error.downcast_ref::<sqlx::Error>() {
        return Failure::from(error);
    }
    error.downcast_ref::<DriverError>().map_or(Failure::Other, |error| error.0.failure)
}

/// What to do about a failure of the database, as far as it can be told.
pub(crate) fn remedy(source: &DriverError) -> &'static str {
    if source.is_outage() {
        ": it is away, or takes no writes now; roll back, and run the transaction again when it does"
    } else {
        ""
    }
}

/// Without characters that could forge a line of a log or move a cursor, and not without end.
fn printable(text: &str) -> String {
    const LONGEST: usize = 500;
    let plain = |c: char| {
        !c.is_control()
            && !matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    };
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for c in text.trim_end().chars() {
        if shown.len() >= LONGEST {
            shown.push('…');
            break;
        }
        if plain(c) { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i9_a_driver_error_is_shown_without_what_it_hides() {
        #[derive(Debug)]
        struct Foreign;
        impl fmt::Display for Foreign {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("it\n\u{1b}[2Jbroke\u{202e}")
            }
        }
        impl StdError for Foreign {}
        let error = DriverError::from(BoxError::from(Foreign));
        assert_eq!(error.to_string(), r"it\u{a}\u{1b}[2Jbroke\u{202e}");
        assert!(!format!("{error:?}").contains("Foreign") && error.source().is_none());
        assert!(error.driver().downcast_ref::<Foreign>().is_some());
        assert_eq!(DriverError::from("x".repeat(9_999)).to_string().chars().count(), 501);
    }

    #[test]
    fn an_outage_can_be_told_and_is_retryable_unless_a_commit_was_on_its_way() {
        let gone = || std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let during = Error::database("reading", gone());
        assert!(during.is_outage() && during.is_retryable(), "{during:?}");
        let commit = Error::committing("shredding", gone());
        assert!(
            matches!(commit, Error::Transaction(TransactionFault::OutcomeUnknown { .. }))
                && commit.is_outage()
                && !commit.is_retryable(),
            "{commit:?}"
        );
        let other = Error::committing("shredding", "no");
        assert!(matches!(other, Error::Database { .. }) && !other.is_outage() && !other.is_retryable(), "{other:?}");
    }
}
