//! Arguments that are refused for a reason that is not one event's payload or schema.

use crate::error::ErrorKind;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A caller passed an argument that is refused: see [`Error::Input`](crate::Error::Input). Correct the call.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputFault {
    /// Append was called without events.
    #[error("no events to append: pass at least one")]
    EmptyAppend,
    /// A name or id is empty, holds a NUL character or is too long.
    #[error("{what} {problem}")]
    InvalidText {
        /// Which name or id.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A number, such as an aggregate version, a global position or a year, is outside the range that exists.
    #[error("{what} {value} does not exist: {hint}")]
    OutOfRange {
        /// What kind of number it is.
        what: &'static str,
        /// The number.
        value: i64,
        /// Which numbers exist.
        hint: &'static str,
    },
    /// A time has passed, or is beyond the year 9999 and can't be stored: the time until which a scope is held, or at
    /// which it is to be shredded.
    #[error("{what} is {}: name a time that is to come, before the year 10000", when(.at))]
    Time {
        /// Which time.
        what: &'static str,
        /// The time.
        at: OffsetDateTime,
    },
    /// The aggregate's type can be confused with a scope kind that the schemas declare. The type is the kind of the
    /// aggregate's own scope.
    #[error(
        "aggregate type {aggregate_type:?} owns protected values, and differs from the scope kind {declared:?} of the \
         schemas by case, white space or one letter: a shred of one does not reach the other; write them the same, \
         give the owner a name with Owner::Aggregate.scope_kind(…), or build the schemas with \
         distinct_kinds({aggregate_type:?}, {declared:?})"
    )]
    SimilarKind {
        /// The aggregate's type.
        aggregate_type: String,
        /// The kind that the schemas declare.
        declared: String,
    },
    /// A Rust value could not be written as JSON.
    #[error("{target} can't be written as JSON: {problem}")]
    Encode {
        /// The Rust type.
        target: &'static str,
        /// Why, without values.
        problem: String,
    },
}

/// A time, and why it is refused.
fn when(at: &OffsetDateTime) -> String {
    // Times of databases are in UTC, within the years that RFC 3339 has.
    let utc = at.checked_to_offset(UtcOffset::UTC).filter(|at| (0..=9999).contains(&at.year()));
    match utc.and_then(|at| at.format(&Rfc3339).ok()) {
        Some(text) => format!("{text}, which has passed"),
        None if at.year() < 9999 => format!("{at}, which has passed"),
        None => format!("{at}, which is beyond the year 9999"),
    }
}

impl InputFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::EmptyAppend
            | Self::OutOfRange { .. }
            | Self::Time { .. }
            | Self::SimilarKind { .. }
            | Self::Encode { .. } => ErrorKind::InvalidInput,
            Self::InvalidText { .. } => ErrorKind::InvalidText,
        }
    }
}
