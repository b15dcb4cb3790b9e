//! What a verification finds.

use crate::error::{Error, EventFault, KeyFault};
use crate::event::{GlobalPosition, PersistedEvent};
use crate::keys::names::{KekId, KeyId, KeyScope};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// A kind of fault that a verification finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum VerifyFindingKind {
    /// A sealed event is not what was written: somebody altered it or moved it here. Restore it, and find out who could
    /// write it.
    AlteredSeal,
    /// A header has a format, suite or part that this version does not know.
    UnsupportedSeal,
    /// A place that a registered version protects is in the clear. A backfill seals it.
    Plaintext,
    /// A stored payload can't be looked into: it is not JSON, or has not the shape that its version protects.
    UnreadablePayload,
    /// A seal names a key that has no row in the key table. A loss is no erasure: restore the key table.
    MissingKey,
    /// The row of a data key is in a state that no operation leaves, or the key does not open under its key-encryption
    /// key.
    DataKey,
    /// A key-encryption key has no row, or the KMS does not open it.
    Kek,
    /// A scope and its keys do not agree.
    Scope,
    /// A shredded scope has a key left, or a destroyed key came back: a restore that went wrong, or a shred that was
    /// cut short. Shred the scope again.
    NotErased,
    /// The entries of a scope in the shred log are not authentic, or say something else than the scope's row.
    ShredLog,
    /// A key that a shred destroyed has no row, so what it sealed is an error and not redacted. A replay of a copy
    /// makes the tombstone anew.
    NoTombstone,
    /// The chain of the shred log does not hold: an entry of it was altered, dropped, moved or invented.
    Chain,
    /// The copy of the shred log is altered, is of another log, or is not the beginning of this one.
    Copy,
}

impl VerifyFindingKind {
    /// The kind in one stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlteredSeal => "altered_seal",
            Self::UnsupportedSeal => "unsupported_seal",
            Self::Plaintext => "plaintext",
            Self::UnreadablePayload => "unreadable_payload",
            Self::MissingKey => "missing_key",
            Self::DataKey => "data_key",
            Self::Kek => "kek",
            Self::Scope => "scope",
            Self::NotErased => "not_erased",
            Self::ShredLog => "shred_log",
            Self::NoTombstone => "no_tombstone",
            Self::Chain => "chain",
            Self::Copy => "copy",
        }
    }
}

/// The place of a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundAt {
    /// A stored event.
    Event {
        /// Its position.
        position: GlobalPosition,
        /// Its id.
        event_id: Uuid,
    },
    /// A key scope.
    Scope(KeyScope),
    /// A data key.
    Key {
        /// The key.
        key_id: KeyId,
        /// Its owner.
        scope: KeyScope,
    },
    /// A key-encryption key.
    Kek(KekId),
    /// An entry of the shred log.
    LogEntry {
        /// Its number in the chain.
        seq: u64,
    },
    /// The shred log or its copy, as a whole.
    ShredLog,
}

impl fmt::Display for FoundAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { position, event_id } => write!(f, "event {event_id} at position {position}"),
            Self::Scope(scope) => write!(f, "{scope}"),
            Self::Key { key_id, scope } => write!(f, "data key {key_id} of {scope}"),
            Self::Kek(kek_id) => write!(f, "key-encryption key {kek_id}"),
            Self::LogEntry { seq } => write!(f, "entry {seq} of the shred log"),
            Self::ShredLog => f.write_str("the shred log"),
        }
    }
}

/// A fault that a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyFinding {
    /// The kind of fault.
    pub kind: VerifyFindingKind,
    /// How often it was found.
    pub count: u64,
    /// Where it was found first.
    pub first: FoundAt,
    /// What is wrong there.
    pub problem: String,
}

/// The findings so far, by kind.
#[derive(Default)]
pub(super) struct Findings(BTreeMap<VerifyFindingKind, VerifyFinding>);

impl Findings {
    pub(super) fn add(&mut self, kind: VerifyFindingKind, at: FoundAt, problem: impl Into<String>) {
        self.0.entry(kind).and_modify(|finding| finding.count += 1).or_insert_with(|| VerifyFinding {
            kind,
            count: 1,
            first: at,
            problem: problem.into(),
        });
    }

    pub(super) fn into_vec(self) -> Vec<VerifyFinding> {
        self.0.into_values().collect()
    }
}

/// What an error says about the event in which it occurred. `None` if it says nothing about what is stored.
pub(super) fn kind_of(error: &Error) -> Option<VerifyFindingKind> {
    Some(match error {
        Error::Event { fault, .. } => match fault.bare() {
            EventFault::Tampered { .. } => VerifyFindingKind::AlteredSeal,
            EventFault::Unsupported { .. } => VerifyFindingKind::UnsupportedSeal,
            EventFault::Unsealed { .. } => VerifyFindingKind::Plaintext,
            EventFault::MissingKey { .. } => VerifyFindingKind::MissingKey,
            _ => VerifyFindingKind::UnreadablePayload,
        },
        Error::Keys(KeyFault::MissingKek { .. }) | Error::Kms(_) => VerifyFindingKind::Kek,
        Error::Keys(_) | Error::Storage(_) => VerifyFindingKind::DataKey,
        _ => return None,
    })
}

pub(super) fn at(event: &PersistedEvent) -> FoundAt {
    FoundAt::Event { position: event.global_position, event_id: event.event_id }
}
