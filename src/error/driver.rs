//! What the driver of a database says, without the rows that it quotes.
//!
//! PostgreSQL puts rows into the DETAIL of an error, and values into some messages. Both would reach logs through
//! `Debug` and `Display`. So this module keeps the driver's error whole, for callers that ask for it, and chooses what
//! is shown of it. It knows no driver: each adapter says what its driver's errors mean.

use crate::error::{BoxError, Error, SetUpFault, TransactionFault};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// What an error of a driver means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "without a driver, nothing makes these")
)]
pub(crate) enum Failure {
    /// Another transaction was in the way.
    Collision,
    /// The database can't be reached, or refuses for now what it accepts at other times.
    Outage,
    /// An outage that says where to go: the database takes no writes here, because it is a standby, or because the
    /// transaction is read-only.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only PostgreSQL has standbys"))]
    ReadOnly,
    /// The database's user lacks a permission.
    Permission,
    /// A table, or the database schema that it should be in, does not exist.
    MissingTable,
    /// A table exists, but lacks a column.
    MissingColumn,
    /// The session does not have a statement that was prepared in it.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "only PostgreSQL has statements of a session"))]
    LostStatement,
    Other,
}

/// What the driver of a database said.
///
/// It is the [`source`](std::error::Error::source) of [`Error::Database`] and of every other error that a database
/// caused. `Display` shows the message and the code; `Debug` also shows the names of the table and the constraint.
/// Neither shows a row or a value, and both escape control characters. Its own `source` is `None`, so that logs of a
/// chain of errors show no rows either: [`driver`](Self::driver) has everything that the driver said.
// A pointer keeps `Error` small: errors are returned everywhere, and this one is rare. It is shared, so that errors can
// be cloned.
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

    /// Is this an outage: can the database not be reached, or does it refuse for now what it accepts at other times?
    /// See [`Error::is_outage`].
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self.0.failure, Failure::Outage | Failure::ReadOnly)
    }

    /// Does the database take no writes here, because it is a standby or because the transaction is read-only?
    pub(crate) fn is_read_only(&self) -> bool {
        self.0.failure == Failure::ReadOnly
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

/// For stores of your own. The result shows the error's `Display`, and neither its `Debug` nor its sources: make sure
/// that its `Display` quotes no values.
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
    /// Turns what a driver said during `operation` into the error that it means: [`Collision`](Self::Collision),
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
            Failure::Outage | Failure::ReadOnly | Failure::MissingTable | Failure::Other => {
                Self::Database { operation, source }
            }
        }
    }

    /// Turns what a driver said during a `COMMIT` into the error that it means. After an outage, nobody knows whether
    /// the transaction was committed: the error is [`OutcomeUnknown`](TransactionFault::OutcomeUnknown) then, which is
    /// not retryable. Any other failure is what [`database`](Self::database) makes of it.
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

/// Finds out whether an error of the application's own code is an error of this crate or of a driver, and what that
/// means; `Other` if it is neither.
pub(crate) fn meaning(error: &(dyn StdError + Send + Sync + 'static)) -> Failure {
    match failure_of(error) {
        Failure::ReadOnly => Failure::Outage,
        failure => failure,
    }
}

fn failure_of(error: &(dyn StdError + Send + Sync + 'static)) -> Failure {
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
    if source.is_read_only() {
        ": it takes no writes here, because it is a standby or the transaction is read-only; roll back, and run the \
         transaction again on the primary"
    } else if source.is_outage() {
        ": it is away, or takes no writes now; roll back, and run the transaction again when it does"
    } else {
        ""
    }
}

/// Escapes characters that could forge a line of a log or move a cursor, and cuts texts that are too long.
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
        let standby = DriverError::new(Failure::ReadOnly, "cannot execute INSERT", "read-only".into());
        let standby = Error::database("appending", standby);
        assert!(standby.is_outage() && standby.is_retryable() && standby.to_string().contains("on the primary"));
        assert_eq!(meaning(&standby), Failure::Outage, "a caller need not tell the two apart");
        let other = Error::committing("shredding", "no");
        assert!(matches!(other, Error::Database { .. }) && !other.is_outage() && !other.is_retryable(), "{other:?}");
    }
}
