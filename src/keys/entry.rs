//! Entries of the shred log: the decisions about scopes, as the key table records them.

use crate::error::{Error, Result, StorageFault};
use crate::keys::ScopeState;
use crate::keys::names::{KekId, KeyId, KeyScope};
use time::OffsetDateTime;
use uuid::Uuid;

/// A kind of decision about a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeAction {
    /// Its keys were destroyed.
    Shred,
    /// A new generation was begun after a shred.
    Reopen,
    /// Its keys were disabled.
    Disable,
    /// Its keys were enabled again.
    Enable,
    /// It was put on hold: it can't be shredded while the hold is in force.
    Hold,
    /// A hold was released.
    Release,
    /// A shred was scheduled.
    Schedule,
    /// A scheduled shred was cancelled.
    Cancel,
    /// After a restore, entries of a copy of the log were put in. This is about the log itself, not about a scope of
    /// the application.
    Fork,
    /// Entries from before there was a log, which have no MAC, were adopted: this entry covers those of its scope.
    Adopt,
}

impl ScopeAction {
    const ALL: [Self; 10] = [
        Self::Shred,
        Self::Reopen,
        Self::Disable,
        Self::Enable,
        Self::Hold,
        Self::Release,
        Self::Schedule,
        Self::Cancel,
        Self::Fork,
        Self::Adopt,
    ];

    /// The word that key tables hold, such as `shred`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shred => "shred",
            Self::Reopen => "reopen",
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Schedule => "schedule",
            Self::Cancel => "cancel",
            Self::Fork => "fork",
            Self::Adopt => "adopt",
        }
    }

    /// Reads the word that a key table holds.
    ///
    /// # Errors
    /// [`StorageFault::InvalidRow`] if it is another one.
    pub fn parse(word: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|action| action.as_str() == word);
        known.ok_or(Error::Storage(StorageFault::InvalidRow {
            what: "the action of an entry of the shred log",
            problem: "is unknown",
        }))
    }
}

/// A decision about a scope: to be recorded, or recorded in the shred log.
///
/// The entries of a scope are numbered, and each is authenticated together with the one before it. So nobody who can
/// write to the key table can alter, move, drop or invent an entry without being noticed. What the key table alone
/// can't show is that a scope's last entries were dropped: see [`erasure`](crate::erasure).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The entry's id: random.
    pub entry_id: Uuid,
    /// The scope that it is about.
    pub scope: KeyScope,
    /// The number of the entry among those of its scope, from 1 on.
    pub scope_seq: u32,
    /// When it was decided.
    pub at: OffsetDateTime,
    /// What was decided.
    pub action: ScopeAction,
    /// The scope's state from then on.
    pub state: ScopeState,
    /// The scope's generation from then on.
    pub generation: u32,
    /// The keys that a shred destroyed, or had destroyed before its entry was adopted, by version. Empty for other
    /// actions.
    pub keys: Vec<DestroyedKey>,
    /// When a hold ends (`None`: when it is released), or a scheduled shred comes due. `None` for other actions.
    pub until: Option<OffsetDateTime>,
    /// The entry of the hold that is released, or of the schedule that is cancelled or was carried out by a
    /// sweep. `None` otherwise.
    pub about: Option<Uuid>,
    /// The reason, in the caller's words.
    pub reason: String,
    /// The actor, as the caller named it. `None` if the caller named none.
    pub actor: Option<String>,
    /// What authenticates the entry. `None` if it was recorded before there was a log: nothing acts on it until it was
    /// [adopted](ScopeAction::Adopt).
    pub mac: Option<EntryMac>,
}

/// A key that a shred destroyed. It says enough to make the key's tombstone again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestroyedKey {
    /// The key.
    pub key_id: KeyId,
    /// Its version within the scope.
    pub version: u32,
    /// The key-encryption key that wrapped it.
    pub kek_id: KekId,
    /// When it was created.
    pub created_at: OffsetDateTime,
}

/// A message authentication code of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMac {
    /// The integrity key from which the key of the code is derived.
    pub key_id: KeyId,
    /// HMAC-SHA256: see `docs/format.md`.
    pub mac: [u8; 32],
}

/// The destroyed keys as JSON, for a column of text:
/// `[["<key id>", version, "<key-encryption key>", microseconds], …]`.
#[allow(dead_code, reason = "used by the SQL adapters only")]
pub(crate) fn keys_to_text(keys: &[DestroyedKey]) -> String {
    let mut text = String::from("[");
    for (index, key) in keys.iter().enumerate() {
        use std::fmt::Write as _;
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            r#"{comma}["{}",{},"{}",{}]"#,
            key.key_id.0,
            key.version,
            key.kek_id.0,
            microseconds(key.created_at)
        );
    }
    text.push(']');
    text
}

/// The inverse of [`keys_to_text`].
#[allow(dead_code, reason = "used by the SQL adapters only")]
pub(crate) fn keys_from_text(text: &str) -> Result<Vec<DestroyedKey>> {
    let invalid = || {
        Error::Storage(StorageFault::InvalidRow { what: "shred_entries.keys", problem: "is no list of destroyed keys" })
    };
    let keys: Vec<(String, u32, String, i64)> = serde_json::from_str(text).map_err(|_| invalid())?;
    let id = |text: String| Uuid::try_parse(&text).map_err(|_| invalid());
    let key = |(key_id, version, kek_id, created_at)| {
        let created_at = from_microseconds(created_at).ok_or_else(invalid)?;
        Ok(DestroyedKey { key_id: KeyId(id(key_id)?), version, kek_id: KekId(id(kek_id)?), created_at })
    };
    keys.into_iter().map(key).collect()
}

/// A time as microseconds since 1970.
pub(crate) fn microseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// The inverse of [`microseconds`].
pub(crate) fn from_microseconds(at: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000).ok().filter(|at| (0..=9999).contains(&at.year()))
}
