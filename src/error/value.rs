//! What is wrong with one value that is sealed outside of events.

use crate::error::ErrorKind;
use crate::keys::names::KeyId;

/// What is wrong with one value: see [`Error::Value`](crate::Error::Value), which says which one.
///
/// The first group is what sealing refuses, up to [`LimitExceeded`](Self::LimitExceeded), which opening reports too.
/// The others are values that are stored and can't be opened. An erased value is no error: it opens to
/// [`Sensitive::Redacted`](crate::Sensitive::Redacted).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueFault {
    /// The context of the value has no items, or too many.
    #[error(
        "the context has {count} items: name the value with 1 to {limit}, such as the table, the column and the row"
    )]
    InvalidContext {
        /// How many items it has.
        count: usize,
        /// How many it may have.
        limit: usize,
    },
    /// The kind of the value's scope can be confused with one that the schemas declare. A shred of one does not reach
    /// the other.
    #[error(
        "the scope kind {kind:?} differs from the scope kind {declared:?} of the schemas by case, white space or one \
         letter: a shred of one does not reach the other; write them the same, or build the schemas with \
         distinct_kinds({kind:?}, {declared:?})"
    )]
    SimilarKind {
        /// The kind of the value's scope.
        kind: String,
        /// The kind that the schemas declare.
        declared: String,
    },
    /// The padding is not one that the format has.
    #[error("{multiple} is not a padding: use a multiple of 32 up to 65,536")]
    InvalidPadding {
        /// The padding.
        multiple: usize,
    },
    /// The value exceeds a limit of the sealed format.
    #[error("{what} is over the limit of {limit}: keep large content elsewhere, and seal what opens it")]
    LimitExceeded {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The sealed value is not what was written, or belongs elsewhere: to another context, another place or another
    /// namespace. Restore it, and find out who could have altered it.
    #[error(
        "the seal does not hold ({problem}): the stored value was altered, was never sealed, or belongs to another \
         context or namespace; restore it from a backup, and find out who could write it"
    )]
    Tampered {
        /// What does not hold.
        problem: &'static str,
    },
    /// The value is sealed under the key of another scope than the one that it is read for.
    #[error(
        "it is sealed for another owner than the one that it is read for: if the row is this owner's, restore the \
         value from a backup and find out who moved it; else pass the scope for which it was sealed"
    )]
    OtherOwner,
    /// The seal uses a format, suite, part or mode that this version does not know: upgrade the reader. Bytes that were
    /// never sealed look like this too.
    #[error(
        "{what} {value} of the seal is not supported by this version of eventseal: upgrade the reader, or find out who \
         wrote it if it was never sealed"
    )]
    Unsupported {
        /// Format, suite, part or mode.
        what: &'static str,
        /// The number that the seal has there.
        value: u8,
    },
    /// The key table has no row for a key that the seal names. This is not an erasure: rows of shredded keys stay.
    #[error(
        "data key {key_id} is not in the key table: restore the table from a backup, or check that the right database \
         is used"
    )]
    MissingKey {
        /// The key.
        key_id: KeyId,
    },
}

impl ValueFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidContext { .. }
            | Self::SimilarKind { .. }
            | Self::InvalidPadding { .. }
            | Self::LimitExceeded { .. } => ErrorKind::InvalidInput,
            Self::Tampered { .. } | Self::OtherOwner => ErrorKind::Tampered,
            Self::Unsupported { .. } => ErrorKind::Schemas,
            Self::MissingKey { .. } => ErrorKind::MissingKey,
        }
    }
}
