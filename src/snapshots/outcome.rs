//! What became of a snapshot: why one was discarded, and whether one was saved. Neither is an error, because an
//! aggregate is rebuilt without one.

use crate::keys::names::KeyId;
use std::fmt;

/// Why a stored snapshot was not used. The state was folded from all events instead, as if there were none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discarded {
    /// It was made by other code: the schemas, the version of the state, the name of its Rust type or the
    /// [code version](crate::snapshots::SealedSnapshots::code_version) differ.
    OtherCode,
    /// The stream does not have the event up to which it was folded: one of the two was restored from a backup.
    NotInStream,
    /// A key is not as it was when the snapshot was made: it was destroyed, is disabled or withheld, has no row or does
    /// not open; or a key that was destroyed has come back.
    KeyChanged {
        /// The key.
        key_id: KeyId,
    },
    /// The seal does not hold, or the row is damaged: the snapshot was altered, or belongs to another aggregate,
    /// version or namespace.
    Altered {
        /// What does not hold.
        problem: &'static str,
    },
    /// The seal uses a format, suite, part or mode that this version does not know.
    Unsupported {
        /// Format, suite, part or mode.
        what: &'static str,
        /// The number that the seal has there.
        value: u8,
    },
    /// The Rust type does not read what it wrote.
    Undecodable,
}

impl Discarded {
    /// The word for it: stable, of lower-case letters and `_`, such as `key_changed`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::OtherCode => "other_code",
            Self::NotInStream => "not_in_stream",
            Self::KeyChanged { .. } => "key_changed",
            Self::Altered { .. } => "altered",
            Self::Unsupported { .. } => "unsupported",
            Self::Undecodable => "undecodable",
        }
    }
}

/// The word, and what is known besides. No data of the aggregate is in it.
impl fmt::Display for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyChanged { key_id } => write!(f, "{}: {key_id}", self.as_str()),
            Self::Altered { problem } => write!(f, "{}: {problem}", self.as_str()),
            Self::Unsupported { what, value } => write!(f, "{}: {what} {value}", self.as_str()),
            Self::OtherCode | Self::NotInStream | Self::Undecodable => f.write_str(self.as_str()),
        }
    }
}

/// What became of a request to save a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveOutcome {
    /// It is in the store, and stays there if the transaction commits.
    Saved,
    /// Too few events were folded since the last one.
    NotDue,
    /// The store has a newer one, which stays.
    Outdated,
    /// A key that sealed what was folded is not as it was when the events were read: somebody destroyed, disabled or
    /// withheld it meanwhile. Nothing of its owner is kept. Load the aggregate again.
    KeyChanged,
    /// An event has a value in the clear that the schemas protect, so no key says whose it is. Such events exist where
    /// [`accept_plaintext`](crate::schema::SchemasBuilder::accept_plaintext) was called: a backfill seals them. They
    /// also exist where the current version protects a value that the stored one does not: a rewrite seals them.
    ///
    /// A step that is a function can hide whose a value is. Then it counts as one in the clear: see
    /// [`sealed_places`](crate::PersistedEvent::sealed_places).
    InTheClear,
    /// The state is larger than 64 MiB, or holds data of more than 1,024 owners.
    TooLarge,
    /// The state can't be written as JSON. The log says why.
    Unwritable,
}

impl SaveOutcome {
    /// Was it saved?
    #[must_use]
    pub const fn is_saved(self) -> bool {
        matches!(self, Self::Saved)
    }
}
