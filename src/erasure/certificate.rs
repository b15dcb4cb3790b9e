//! Certificates: what was looked at after a shred, and what was found.

mod finding;
mod found;
mod issue;
mod log;
mod many;
mod sentences;

pub use finding::{CertificateFinding, CertificateFindingKind};
pub use many::{CertificateProgress, Certified};

use crate::erasure::horizon::{Horizon, Retention};
use crate::erasure::json;
use crate::event::{EventType, EventVersion, GlobalPosition};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::shred_log::CopyReport;
use crate::keys::{ScopeAction, ScopeState};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// The options of a [`Certificate`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateOptions {
    /// How long copies of the keys are kept, for the [horizon](Certificate::horizon). Nothing is known by default.
    pub retention: Retention,
    /// How many stored events are looked at at a time; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// Uses the [index of seals](crate::store::SealIndex) if there is one; `true` by default. Without it, every event
    /// is read, and events whose key has no row are [found](Certificate::unknown_keys) as well.
    pub use_index: bool,
}

impl Default for CertificateOptions {
    fn default() -> Self {
        Self { retention: Retention::default(), batch: 500, use_index: true }
    }
}

/// What a look at the keys, the shred log and the stored events of a scope found. It states what was looked at, and
/// [what was not](Self::not_looked_at).
///
/// [`SealedStore::certificate`](crate::SealedStore::certificate) issues one. It holds no payload, no key, and no data
/// of the person but the id of the scope and the reasons that somebody gave. It implements [`Serialize`]: the names of
/// its members in JSON are those of the fields, and stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Certificate {
    /// The scope.
    #[serde(serialize_with = "json::scope")]
    pub scope: KeyScope,
    /// Are all keys of the scope destroyed, by a shred that the shred log has? If not,
    /// [`why_not`](Self::why_not) says why.
    pub erased: bool,
    /// Is it erased, and does a copy of the shred log have the authentic entry of its last shred? Without a copy,
    /// somebody who can write to the database, or a restore, could still undo the shred without a trace. `false` if
    /// anything is wrong with the chain of the log or with the copy, even if it is about others.
    pub proved: bool,
    /// Why it is not erased. Empty if it is.
    pub why_not: Vec<CertificateFinding>,
    /// What else the reader should know.
    pub remarks: Vec<CertificateFinding>,
    /// The scope's state.
    #[serde(serialize_with = "json::state")]
    pub state: ScopeState,
    /// The scope's generation: 1 at first, and one more after each reopening.
    pub generation: u32,
    /// How many keys are left that open values.
    pub live_keys: u64,
    /// Every key that the scope ever had, as far as its rows and its log tell, by version.
    pub keys: Vec<CertifiedKey>,
    /// The stored events that these keys seal.
    pub events: EventCounts,
    /// The same by type and version, in ascending order.
    pub event_types: Vec<CertifiedType>,
    /// Events with a header that can't be read. Nobody knows whose keys it names. They are in no other count.
    pub malformed_seals: Doubtful,
    /// Events that name a key which has no row in the key table. Nobody knows whose it was. A loss is no erasure. They
    /// are in no other count, unless another key of theirs is the scope's. An index of seals does not lead to them.
    pub unknown_keys: Doubtful,
    /// The holds of the scope, past ones too, oldest first.
    pub holds: Vec<CertifiedHold>,
    /// The scheduled shred that is outstanding.
    pub schedule: Option<CertifiedSchedule>,
    /// The entries of the scope in the shred log, oldest first.
    pub entries: Vec<CertifiedEntry>,
    /// The shred log as a whole, and its copies.
    pub log: CertifiedLog,
    /// By when no copy of the keys opens what the last shred destroyed. `None` if there was none. It begins anew if
    /// keys came back and were destroyed again, as after a restore and a replay.
    pub horizon: Option<Horizon>,
    /// What of the stored events was looked at.
    pub scan: CertificateScan,
    /// What was not looked at, one sentence each.
    pub not_looked_at: Vec<String>,
    /// The namespace of the key database.
    #[serde(serialize_with = "json::namespace")]
    pub namespace: Namespace,
    /// When it was issued.
    #[serde(serialize_with = "json::time")]
    pub issued_at: OffsetDateTime,
    /// The version of this library.
    pub library: String,
}

impl Certificate {
    /// The entry of the last shred; `None` if the scope was never shredded.
    #[must_use]
    pub fn last_shred(&self) -> Option<&CertifiedEntry> {
        self.entries.iter().rev().find(|entry| entry.action == ScopeAction::Shred)
    }
}

/// A key of the scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedKey {
    /// The key. `None` if all that is known of it is that the scope had a key of this version.
    #[serde(serialize_with = "json::optional_text")]
    pub key_id: Option<KeyId>,
    /// Its version within the scope.
    pub version: u32,
    /// What became of it.
    pub standing: KeyStanding,
    /// When it was made, if that is known.
    #[serde(serialize_with = "json::optional_time")]
    pub created_at: Option<OffsetDateTime>,
    /// When it was destroyed, as its tombstone says.
    #[serde(serialize_with = "json::optional_time")]
    pub destroyed_at: Option<OffsetDateTime>,
    /// The entry of the shred log that says so, if it is authentic.
    #[serde(serialize_with = "json::optional_text")]
    pub entry: Option<Uuid>,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyStanding {
    /// It is destroyed: its row is a tombstone.
    Destroyed,
    /// It is there, and opens values.
    Live,
    /// It has no row in the key table.
    Missing,
    /// Its row is in a state that no operation leaves, or belongs to another scope: somebody wrote to the table.
    Altered,
}

/// How many stored events and fields the keys of a scope seal. A payload that is sealed as a whole counts as one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EventCounts {
    /// The events.
    pub events: u64,
    /// The events of which no field of the scope can be read, because all keys of these fields are destroyed.
    pub unreadable_events: u64,
    /// The events of which a field of the scope can still be read.
    pub readable_events: u64,
    /// The other events: no field of the scope can be read, but a key was lost and not destroyed.
    pub lost_events: u64,
    /// The fields that can't be read because their key is destroyed.
    pub unreadable_fields: u64,
    /// The fields that were erased when their event was sealed, because the scope was shredded by then. They are not
    /// among the others.
    pub void_fields: u64,
    /// The fields that can still be read.
    pub readable_fields: u64,
    /// The fields whose key has no row, or a row that was altered.
    pub lost_fields: u64,
}

/// The events of one type and version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedType {
    /// The type as stored.
    #[serde(rename = "type", serialize_with = "json::text")]
    pub event_type: EventType,
    /// The version as stored.
    #[serde(rename = "version", serialize_with = "json::event_version")]
    pub event_version: EventVersion,
    /// How many events and fields.
    #[serde(flatten)]
    pub counts: EventCounts,
}

/// Events of which nobody knows whether they are the scope's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Doubtful {
    /// How many.
    pub events: u64,
    /// The first of them, at most 10.
    pub first: Vec<DoubtfulEvent>,
}

/// One of these events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DoubtfulEvent {
    /// Its position.
    #[serde(serialize_with = "json::position")]
    pub position: GlobalPosition,
    /// Its id.
    #[serde(serialize_with = "json::text")]
    pub event: Uuid,
}

/// A hold of the scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedHold {
    /// The hold's id: that of its entry.
    #[serde(serialize_with = "json::text")]
    pub hold: Uuid,
    /// The reason that was given.
    pub reason: String,
    /// Who placed it.
    pub actor: Option<String>,
    /// When it was placed.
    #[serde(serialize_with = "json::time")]
    pub since: OffsetDateTime,
    /// When it ends by itself; `None` if it holds until it is released.
    #[serde(serialize_with = "json::optional_time")]
    pub until: Option<OffsetDateTime>,
    /// When it was released.
    #[serde(serialize_with = "json::optional_time")]
    pub released_at: Option<OffsetDateTime>,
    /// Was it in force when the certificate was issued?
    pub in_force: bool,
}

/// A scheduled shred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedSchedule {
    /// Its id: that of its entry.
    #[serde(serialize_with = "json::text")]
    pub schedule: Uuid,
    /// When it comes due.
    #[serde(serialize_with = "json::time")]
    pub due: OffsetDateTime,
    /// The reason that was given.
    pub reason: String,
    /// Who scheduled it.
    pub actor: Option<String>,
    /// When it was scheduled.
    #[serde(serialize_with = "json::time")]
    pub since: OffsetDateTime,
}

/// An entry of the scope in the shred log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedEntry {
    /// Its id.
    #[serde(serialize_with = "json::text")]
    pub entry: Uuid,
    /// Its number among those of the scope.
    pub number: u32,
    /// When it was decided.
    #[serde(serialize_with = "json::time")]
    pub at: OffsetDateTime,
    /// What was decided.
    #[serde(serialize_with = "json::action")]
    pub action: ScopeAction,
    /// The scope's generation from then on.
    pub generation: u32,
    /// The reason that was given.
    pub reason: String,
    /// Who decided it.
    pub actor: Option<String>,
    /// The keys that it destroyed.
    #[serde(serialize_with = "json::texts")]
    pub keys: Vec<KeyId>,
    /// Is it what was written?
    pub authenticity: Authenticity,
    /// SHA-256 over the entry and all entries of the scope before it: see `docs/format.md`.
    #[serde(serialize_with = "json::hash")]
    pub digest: [u8; 32],
    /// Where it is in the chain of all entries.
    pub log: LogStanding,
}

/// Is an entry what was written?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Authenticity {
    /// Its message authentication code was checked: nobody altered, moved or invented it.
    Verified,
    /// It was written before there was a shred log, and has no code. Nothing vouches for it but that somebody
    /// [adopted](crate::keys::KeyManager::adopt_entries) it.
    BeforeTheLog,
    /// The code of this entry, or of one before it, is wrong.
    NotVerified,
}

/// Where an entry is in the chain of all entries of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogStanding {
    /// It is not in the chain: it has no number yet.
    Unsealed,
    /// The chain has it under this number, and contradicts it: the entry or the chain was altered.
    Altered {
        /// Its number in the chain.
        seq: u64,
    },
    /// It is in the chain, and not in a copy that was looked at. A restore of the database could drop it without a
    /// trace.
    Sealed {
        /// Its number in the chain.
        seq: u64,
        /// The hash of its row.
        #[serde(serialize_with = "json::hash")]
        hash: [u8; 32],
    },
    /// It is in the chain, and the copy that was looked at has it.
    InCopy {
        /// Its number in the chain.
        seq: u64,
        /// The hash of its row.
        #[serde(serialize_with = "json::hash")]
        hash: [u8; 32],
    },
}

/// The shred log as a whole. It was read from its first entry to its last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertifiedLog {
    /// The number of the last entry of the chain.
    pub seq: u64,
    /// The hash of its row.
    #[serde(serialize_with = "json::hash")]
    pub hash: [u8; 32],
    /// Is every entry what was written, and is none of them missing between the first and the last? If not, a
    /// [remark](Certificate::remarks) says what was found.
    pub sound: bool,
    /// The copies that were looked at. Those are missing of which a remark says why they can't be used.
    #[serde(serialize_with = "json::copies")]
    pub copies: Vec<CopyReport>,
}

/// What of the stored events was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CertificateScan {
    /// The events after this position.
    #[serde(serialize_with = "json::position")]
    pub after: GlobalPosition,
    /// The events up to this position: the last one of the store when the look began.
    #[serde(serialize_with = "json::position")]
    pub up_to: GlobalPosition,
    /// How many events were read.
    pub looked_at: u64,
    /// Did an [index of seals](crate::store::SealIndex) lead to the events, so that the others were not read?
    pub index_used: bool,
}
