//! What is wrong with an entry of a blind index, or with the index.

use crate::error::ErrorKind;
use crate::keys::names::KeyScope;

/// What is wrong in a [blind index](crate::blind_index): see [`Error::BlindIndex`](crate::Error::BlindIndex), which
/// says in which one. No value is ever part of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlindIndexFault {
    /// Another owner has this value, and the index is unique. No entry was added. Roll back what the transaction did
    /// for this value before, such as an append: it would be committed without its entry.
    #[error("the value belongs to another owner: ask for another value, or find() its owner")]
    Taken,
    /// The value can't be spelled: it is empty, too long, or no e-mail address.
    #[error("the value {problem}: correct it")]
    InvalidValue {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The index has too few or too many bits.
    #[error("{bits} bits are not possible: use {least} to 256")]
    InvalidBits {
        /// The number of bits.
        bits: u16,
        /// The least number for an index of this kind.
        least: u16,
    },
    /// The kind of the owner's scope can be confused with one that the schemas declare. A shred of one does not reach
    /// the other.
    #[error(
        "the scope kind {kind:?} differs from the scope kind {declared:?} of the schemas by case, white space or one \
         letter: a shred of one does not reach the other; write them the same, or build the schemas with \
         distinct_kinds({kind:?}, {declared:?})"
    )]
    SimilarKind {
        /// The kind of the owner's scope.
        kind: String,
        /// The kind that the schemas declare.
        declared: String,
    },
    /// The rotation of the key can't be finished: an owner has fewer entries under the newest key than under an older
    /// one. Nothing was changed. See [what stops a rotation](crate::blind_index#how-its-key-is-rotated).
    #[error(
        "an entry of {scope} is not there under the newest key: add every value again, run drop_shredded(), enable or \
         clear() owners that are disabled, and then finish the rotation"
    )]
    RotationUnfinished {
        /// Whose value it is.
        scope: KeyScope,
    },
}

impl BlindIndexFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Taken => ErrorKind::Conflict,
            Self::InvalidValue { .. } | Self::InvalidBits { .. } | Self::SimilarKind { .. } => ErrorKind::InvalidInput,
            Self::RotationUnfinished { .. } => ErrorKind::ScopeState,
        }
    }
}
