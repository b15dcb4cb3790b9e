//! Calls whose transaction or connection does not fit, and commits that failed.

use crate::error::{DriverError, ErrorKind};

/// A call does not fit the transaction or the connection that it was given, or its commit failed: see
/// [`Error::Transaction`](crate::Error::Transaction).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionFault {
    /// The operation takes locks that must last until the caller commits: pass a transaction.
    #[error(
        "{operation} needs a transaction: pass one begun with begin() or begin_with(), not a bare connection and not \
         a raw BEGIN"
    )]
    NotInTransaction {
        /// The operation.
        operation: &'static str,
    },
    /// The operation commits on its own: pass a connection that is not in a transaction.
    ///
    /// The database is asked, not the driver. The driver does not know of a transaction that it began for a future that
    /// was dropped, nor of a raw `BEGIN`.
    #[error(
        "{operation} commits on its own: pass a connection that is not in a transaction; if you began none, a begin() \
         on it was cancelled, so close it and take another one"
    )]
    InTransaction {
        /// The operation.
        operation: &'static str,
    },
    /// A call commits on its own, and the database did not commit it, without an error.
    #[error(
        "{operation}: the database did not commit it, though it raised no error; nothing was changed, look at the \
         server's log and do it again"
    )]
    NotCommitted {
        /// The operation.
        operation: &'static str,
    },
    /// The call must outlast a loss of power, and a commit on this connection might not.
    #[error(
        "{operation} must outlast a loss of power, and commits on this connection do not: open it with PRAGMA \
         synchronous = FULL, in sqlx with SqliteConnectOptions::synchronous(SqliteSynchronous::Full)"
    )]
    NotDurable {
        /// The operation.
        operation: &'static str,
    },
    /// Keys were changed in this [`SplitTx`](crate::split::SplitTx). Events can't depend on the change before it is
    /// committed.
    #[error("keys in another database were changed in this transaction: commit it, and append in a new one")]
    SplitChange,
    /// The connection was lost while a transaction of this crate was being committed. Nobody knows whether it was
    /// committed: look before you do it again. This is an outage, and is not retryable.
    #[error(
        "the connection was lost while {operation} was being committed, so it may be done or not: look, before you do \
         it again"
    )]
    OutcomeUnknown {
        /// What was being committed.
        operation: &'static str,
        /// What the driver said.
        #[source]
        source: DriverError,
    },
}

impl TransactionFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotInTransaction { .. }
            | Self::InTransaction { .. }
            | Self::NotDurable { .. }
            | Self::SplitChange => ErrorKind::Misuse,
            Self::NotCommitted { .. } => ErrorKind::NoEffect,
            Self::OutcomeUnknown { .. } => ErrorKind::OutcomeUnknown,
        }
    }
}
