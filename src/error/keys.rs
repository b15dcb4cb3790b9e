//! What is wrong with keys, or with the primitives that use them.

use crate::error::driver::{Failure, meaning};
use crate::error::{ErrorKind, StepError};
use crate::keys::hold::Hold;
use crate::keys::names::{KekId, KeyId, KeyScope};

/// What is wrong with keys: see [`Error::Keys`](crate::Error::Keys). If the key of one event is missing, the error is
/// [`EventFault::MissingKey`](crate::error::EventFault::MissingKey).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The operation does not apply to the scope as it is, such as a reopen of one that is not shredded.
    #[error("{scope} {problem}")]
    ScopeState {
        /// The scope.
        scope: KeyScope,
        /// Why not, and what would be possible.
        problem: &'static str,
    },
    /// Holds are in force, so the scope can't be shredded.
    #[error("{scope} is held, so it can't be shredded: release {} first", list(.holds))]
    Held {
        /// The scope.
        scope: KeyScope,
        /// The holds in force.
        holds: Vec<Hold>,
    },
    /// The entries of a scope in the shred log are not those that were written: one was altered, dropped, moved or
    /// invented. Nothing is changed on their word.
    #[error(
        "entry {entry} of {scope} in the shred log {problem}; find out who can write to the key table, and compare it \
         with a copy of the log: eventseal shred-log verify"
    )]
    LogAltered {
        /// The scope.
        scope: KeyScope,
        /// The number of the entry among those of its scope.
        entry: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The chain of the shred log is not the one that was written: a row was altered, dropped, moved or invented.
    #[error(
        "entry {seq} of the shred log {problem}; find out who can write to the key table, and compare it with a copy \
         of \
         the log: eventseal shred-log verify"
    )]
    ChainAltered {
        /// The number of the entry in the chain.
        seq: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key table does not agree with its shred log, or the log not with the required copy. Nothing is opened or
    /// sealed until they agree: what was shredded may have come back, for instance with a restore.
    #[error(
        "the key table and its shred log are behind: {problem}; nothing is opened or sealed until that is repaired: \
         eventseal shred-log replay {copy}"
    )]
    ShredLogBehind {
        /// The copy, as it names itself.
        copy: String,
        /// What was found.
        problem: String,
    },
    /// A copy of the shred log can't be used: it is empty, altered or of another namespace, or can't be read or
    /// written.
    #[error("the copy of the shred log {copy}{} {problem}", at_line(.line))]
    LogCopy {
        /// The copy, as it names itself.
        copy: String,
        /// The line, from 1 on.
        line: Option<u64>,
        /// What is wrong, and what to do.
        problem: String,
        /// The error of the copy, if it failed.
        source: Option<StepError>,
    },
    /// What was decided is committed, and stays; but a copy of the shred log that every decision goes into does not
    /// have it yet. Don't do it again: export.
    #[error(
        "what was decided is committed and stays, but the copy of the shred log {copy} does not have it yet: see \
         the cause, and then run eventseal shred-log export --append {copy}, or call copy_log again"
    )]
    NotCopied {
        /// The copy, as it names itself.
        copy: String,
        /// Why not: an error of this crate.
        source: StepError,
    },
    /// Two copies of the shred log are not of one log: one is not the beginning of the other. Nothing was done.
    #[error(
        "the copies of the shred log {first} and {second} differ at entry {seq}, so nothing was done: look which of \
         them this key database was exported to last, and leave out the other, which is of a log that was replayed as \
         a fork, or of another restore"
    )]
    CopiesDiffer {
        /// A copy, as it names itself.
        first: String,
        /// Another copy.
        second: String,
        /// The number of the first entry in which they differ.
        seq: u64,
    },
    /// A consumer of erasures failed, so the change must not be committed: roll back.
    #[error("consumer of erasures {consumer} failed at {scope}: roll the transaction back")]
    Consumer {
        /// The consumer's name.
        consumer: String,
        /// The scope.
        scope: KeyScope,
        /// The error that the consumer returned.
        source: StepError,
    },
    /// A wrapped data key does not open under its key-encryption key: its row was altered. Restore it.
    #[error(
        "data key {key_id} does not open under its key-encryption key {kek_id}: its row was altered or belongs to \
         another namespace, restore it from a backup"
    )]
    WrongKey {
        /// The key.
        key_id: KeyId,
        /// The key-encryption key.
        kek_id: KekId,
    },
    /// The key table names a key-encryption key that it does not hold. Restore the table.
    #[error("key-encryption key {kek_id} is not in the key table: restore the table from a backup")]
    MissingKek {
        /// The key-encryption key.
        kek_id: KekId,
    },
    /// No key-encryption key can wrap new data keys: the partition was never prepared.
    #[error(
        "no active key-encryption key in partition {partition:?}: call keys().prepare() once at startup, and \
         keys().create_kek() for each partition of your own, on a connection that is not in a transaction"
    )]
    NoActiveKek {
        /// The partition.
        partition: String,
    },
    /// The key-encryption key can't be retired: it is active, wraps data keys, or does not exist.
    #[error("key-encryption key {kek_id} {problem}")]
    KekInUse {
        /// The key-encryption key.
        kek_id: KekId,
        /// Why not, and what to do first.
        problem: String,
    },
    /// A cipher or hash refused its input. No input that this crate makes should cause that: please report it.
    #[error("a cryptographic primitive refused its input: nothing was sealed or opened; please report this")]
    Cryptography,
    /// The operating system gave no random bytes.
    #[error("the operating system's random generator failed: nothing was sealed")]
    Random,
}

impl KeyFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::ScopeState { .. } => ErrorKind::ScopeState,
            Self::Held { .. } => ErrorKind::Held,
            Self::LogAltered { .. } | Self::ChainAltered { .. } => ErrorKind::LogAltered,
            Self::ShredLogBehind { .. } => ErrorKind::ShredLogBehind,
            Self::LogCopy { .. } => ErrorKind::LogCopy,
            Self::NotCopied { .. } => ErrorKind::NotCopied,
            Self::CopiesDiffer { .. } => ErrorKind::CopiesDiffer,
            Self::Consumer { source, .. } => match meaning(&**source) {
                Failure::Collision => ErrorKind::Collision,
                Failure::Outage => ErrorKind::DatabaseUnavailable,
                _ => ErrorKind::Application,
            },
            Self::WrongKey { .. } => ErrorKind::WrongKey,
            Self::MissingKek { .. } => ErrorKind::MissingKek,
            Self::NoActiveKek { .. } => ErrorKind::NoActiveKek,
            Self::KekInUse { .. } => ErrorKind::KekInUse,
            Self::Cryptography | Self::Random => ErrorKind::Other,
        }
    }
}

fn at_line(line: &Option<u64>) -> String {
    line.map(|line| format!(", line {line},")).unwrap_or_default()
}

/// The holds, for a sentence.
fn list(holds: &[Hold]) -> String {
    holds.iter().map(Hold::to_string).collect::<Vec<_>>().join(", ")
}
