//! What a certificate says beside its counts.

use serde::Serialize;
use std::fmt;

/// Something that a certificate says in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertificateFinding {
    /// What it is about, for programs.
    pub kind: CertificateFindingKind,
    /// The sentence, for people. It may change.
    pub text: String,
}

impl CertificateFinding {
    pub(super) fn new(kind: CertificateFindingKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for CertificateFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a [`CertificateFinding`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CertificateFindingKind {
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
    /// The chain of the shred log contradicts an entry of the scope, or lacks it.
    ChainDisagrees,
    /// A copy of the shred log has an entry of the scope that the log does not have: the key table was restored.
    CopyDisagrees,
    // ---- what else the reader should know
    /// The scope is erased, and no copy proves it.
    NotProved,
    /// The chain of the shred log is not what was written, somewhere. It proves nothing until that is explained.
    ChainAltered,
    /// The copy that was given is altered, is of another log, or is not the beginning of this one.
    CopyUnusable,
    /// The shred is older than the shred log. Nothing vouches for it but that its entry was adopted later.
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
