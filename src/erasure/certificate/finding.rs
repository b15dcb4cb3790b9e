//! What a certificate says beside its counts.

use serde::Serialize;
use std::fmt;

/// Something that a certificate says in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about, for programs.
    pub kind: FindingKind,
    /// The sentence, for people. It may change.
    pub text: String,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a [`Finding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    // ---- why a scope is not erased
    /// The scope was never shredded.
    NeverShredded,
    /// The scope was reopened after its last shred.
    Reopened,
    /// Keys are left that open values.
    LiveKeys,
    /// The scope is shredded, and keys are there: they have come back.
    KeysCameBack,
    /// An entry of the scope in the shred log is not what was written.
    LogAltered,
    /// The scope is not in the state that its entries say.
    StateDisagrees,
    /// A key has no row, and no shred named it: it was lost, and not destroyed.
    KeyLost,
    /// The row of a key is in a state that no operation leaves.
    KeyAltered,
    // ---- what else the reader should know
    /// No copy of the shred log was looked at that has the entry of the shred.
    NotProved,
    /// The shred is older than the shred log, so nothing vouches for its entry.
    NotAuthenticated,
    /// A key that a shred destroyed has no tombstone any more.
    NoTombstone,
    /// No authentic entry names a destroyed key.
    NotNamed,
    /// There are events with a header that can't be read.
    MalformedSeals,
    /// There are events that name a key without a row.
    UnknownKeys,
    /// A hold is in force.
    Held,
    /// A shred is scheduled.
    Scheduled,
}
