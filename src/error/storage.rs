//! Rows that this crate did not write, changes that had no effect, and stores that break their contract.

use crate::error::ErrorKind;
use crate::event::GlobalPosition;

/// A store holds something that it should not hold, or did something that it should not do: see
/// [`Error::Storage`](crate::Error::Storage).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageFault {
    /// The database accepted a change of keys or events, but did not make all of it. Do not rely on any part of the
    /// change: a shred that ends with this error has not certainly destroyed anything.
    #[error(
        "{operation} had no effect: the database accepted the change, and {table} is not as it should be; roll the \
         transaction back, look at the row-level policies, triggers and rules of {table}, and at what this role may \
         change"
    )]
    NoEffect {
        /// The change that was to be made.
        operation: &'static str,
        /// The table that did not change, without prefix.
        table: &'static str,
    },
    /// A row of the store or the key table holds what this crate never writes there. Restore it.
    #[error("{what} in the database is invalid: it {problem}; restore the row from a backup")]
    InvalidRow {
        /// Which column of which table.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The row of a stored event holds what no event store of this crate writes there.
    #[error(
        "the event at position {position} is invalid: its {what} {problem}; correct the row, or restore it from a \
         backup"
    )]
    InvalidEvent {
        /// The position.
        position: GlobalPosition,
        /// Which column.
        what: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// The wrapped store does not keep the contract of [`EventStore`](crate::EventStore). Run it through the
    /// conformance suite.
    #[error("the wrapped store broke its contract: {problem}; run it through the conformance suite")]
    Contract {
        /// What it did.
        problem: &'static str,
    },
}

impl StorageFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoEffect { .. } => ErrorKind::NoEffect,
            Self::InvalidRow { .. } | Self::InvalidEvent { .. } => ErrorKind::InvalidRow,
            Self::Contract { .. } => ErrorKind::Misuse,
        }
    }
}
