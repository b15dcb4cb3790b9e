//! The shred log: what authenticates an entry, and what the entries of a scope come to.
//!
//! ```text
//! T_e    = SHA-256(each item length-prefixed: "eventseal/v1/entry", namespace, entry id, kind, id, number, time,
//!          action, state, generation, keys, until, about, reason, actor, integrity key id, digest of the scope's entry
//!          before)
//! mac    = HMAC-SHA256(K_log, "eventseal/v1/entry" ‖ T_e)
//! digest = SHA-256(each item length-prefixed: "eventseal/v1/entry-digest", T_e, mac)
//!
//! hash   = SHA-256(each item length-prefixed: "eventseal/v1/log", namespace, number in the chain, hash of the row
//!          before, digest of the entry)
//! mac    = HMAC-SHA256(K_log, "eventseal/v1/log" ‖ hash)
//! ```
//!
//! Numbers are 8 bytes, big-endian; times are microseconds since 1970. What is absent is an empty item, and what is
//! present begins with a byte 1. The first entry of a scope has an empty digest before it. The first row of the chain
//! has 32 zero bytes as the hash before it.

use crate::crypto::primitives::{LogKey, Transcript};
use crate::error::{Error, KeyFault, Result};
use crate::keys::entry::microseconds;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{DestroyedKey, EntryMac, Hold, LogEntry, LogRow, Schedule, ScopeAction, ScopeState, ShredMode};
use std::collections::HashMap;
use time::OffsetDateTime;
use uuid::Uuid;

const ENTRY: &[u8] = b"eventseal/v1/entry";
const DIGEST: &[u8] = b"eventseal/v1/entry-digest";
const ROW: &[u8] = b"eventseal/v1/log";

/// A digest of an entry, which the next entry of the scope and the chain cover.
pub(crate) type Digest = [u8; 32];

/// The keys of the log that were opened, by the integrity key that each is derived from.
pub(crate) type LogKeys = HashMap<KeyId, LogKey>;

/// An entry as it is authenticated: `T_e`.
fn transcript(namespace: &Namespace, entry: &LogEntry, previous: Option<&Digest>) -> Transcript {
    let present = |bytes: &[u8]| [&[1], bytes].concat();
    let time = |at: OffsetDateTime| microseconds(at).to_be_bytes();
    let keys: Vec<u8> = entry
        .keys
        .iter()
        .flat_map(|key| {
            let (key_id, kek_id) = (key.key_id.0.into_bytes(), key.kek_id.0.into_bytes());
            [&key_id[..], &u64::from(key.version).to_be_bytes(), &kek_id[..], &time(key.created_at)].concat()
        })
        .collect();
    Transcript::of(&[
        ENTRY,
        namespace.as_str().as_bytes(),
        entry.entry_id.as_bytes(),
        entry.scope.kind().as_bytes(),
        entry.scope.id().as_bytes(),
        &u64::from(entry.scope_seq).to_be_bytes(),
        &time(entry.at),
        entry.action.as_str().as_bytes(),
        entry.state.as_str().as_bytes(),
        &u64::from(entry.generation).to_be_bytes(),
        &keys,
        &entry.until.map(|until| present(&time(until))).unwrap_or_default(),
        &entry.about.map(|about| present(about.as_bytes())).unwrap_or_default(),
        entry.reason.as_bytes(),
        &entry.actor.as_ref().map(|actor| present(actor.as_bytes())).unwrap_or_default(),
        &entry.mac.map(|mac| present(mac.key_id.0.as_bytes())).unwrap_or_default(),
        previous.map_or(&[][..], |previous| previous),
    ])
}

/// The digest of an entry, whose MAC must be set.
pub(crate) fn digest(namespace: &Namespace, entry: &LogEntry, previous: Option<&Digest>) -> Digest {
    let mac = entry.mac.map(|mac| mac.mac);
    let transcript = transcript(namespace, entry, previous);
    *Transcript::of(&[DIGEST, transcript.as_bytes(), mac.as_ref().map_or(&[][..], |mac| mac)]).as_bytes()
}

/// The MAC of an entry whose [`EntryMac`](crate::keys::EntryMac) names the integrity key already.
pub(crate) fn mac(namespace: &Namespace, key: &LogKey, entry: &LogEntry, previous: Option<&Digest>) -> [u8; 32] {
    key.mac(ENTRY, &transcript(namespace, entry, previous))
}

/// The hash of a row of the chain.
fn row_hash(namespace: &Namespace, seq: u64, previous: &Digest, entry: &Digest) -> Transcript {
    Transcript::of(&[ROW, namespace.as_str().as_bytes(), &seq.to_be_bytes(), previous, entry])
}

/// The row that gives an entry its number. `previous` is the hash of the row before, `digest` that of the entry.
pub(crate) fn row(
    namespace: &Namespace,
    (key_id, key): (KeyId, &LogKey),
    (seq, previous): (u64, Digest),
    (entry_id, digest): (Uuid, &Digest),
) -> LogRow {
    let hash = row_hash(namespace, seq, &previous, digest);
    let mac = EntryMac { key_id, mac: key.mac(ROW, &hash) };
    LogRow { seq, entry_id, previous_hash: previous, hash: *hash.as_bytes(), mac }
}

/// What is wrong with a row of the chain. `end` is the number and hash of the row before.
pub(crate) fn problem_of_row(
    namespace: &Namespace,
    keys: &LogKeys,
    row: &LogRow,
    end: (u64, Digest),
    digest: &Digest,
) -> Option<&'static str> {
    if row.seq != end.0 + 1 {
        return Some("is not the next one: a row before it was dropped or moved");
    }
    if row.previous_hash != end.1 {
        return Some("does not follow from the row before");
    }
    let hash = row_hash(namespace, row.seq, &row.previous_hash, digest);
    if *hash.as_bytes() != row.hash {
        return Some("is not that of its entry: the row or the entry was altered");
    }
    let Some(key) = keys.get(&row.mac.key_id) else { return Some("names no integrity key of this key table") };
    (!key.mac_is(ROW, &hash, &row.mac.mac)).then_some("is not authentic: it was altered or invented")
}

/// The entries of one scope, as they are checked one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checked {
    /// The number of the last entry.
    pub(crate) entries: u32,
    /// Its digest.
    pub(crate) last: Option<Digest>,
    authenticated: bool,
}

/// What is wrong with entries without a MAC if no entry behind them covers them.
pub(crate) const NOT_ADOPTED: &str = "has no MAC: either it was invented, or it is from before there was a log and was \
    not adopted (eventseal shred-log adopt)";

impl Checked {
    /// Is every entry covered by a MAC?
    pub(crate) fn is_authentic(&self) -> bool {
        self.entries == 0 || self.authenticated
    }

    /// Checks the next entry. Returns what is wrong with it.
    pub(crate) fn next(&mut self, namespace: &Namespace, keys: &LogKeys, entry: &LogEntry) -> Option<&'static str> {
        if Some(entry.scope_seq) != self.entries.checked_add(1) {
            return Some("is not the next one of its scope: one was dropped or moved");
        }
        match entry.mac {
            Some(mac) => {
                let Some(key) = keys.get(&mac.key_id) else { return Some("names no integrity key of this key table") };
                if !key.mac_is(ENTRY, &transcript(namespace, entry, self.last.as_ref()), &mac.mac) {
                    return Some("is not authentic: it was altered, moved or invented");
                }
                self.authenticated = true;
            }
            None if self.authenticated || !is_from_before(entry) => {
                return Some("has no MAC: it was altered or invented");
            }
            None => {}
        }
        self.accept(namespace, entry);
        None
    }

    /// Goes on as if this entry were right.
    pub(crate) fn accept(&mut self, namespace: &Namespace, entry: &LogEntry) {
        self.entries = entry.scope_seq;
        self.last = Some(digest(namespace, entry, self.last.as_ref()));
    }
}

/// What the entries of a scope come to.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub(crate) state: ScopeState,
    pub(crate) generation: u32,
    /// The holds that were not released, expired ones too.
    pub(crate) holds: Vec<Hold>,
    /// The scheduled shred that is outstanding.
    pub(crate) schedule: Option<Schedule>,
    /// The state before the schedule, if the schedule changed it and nothing has changed it since.
    pub(crate) before_schedule: Option<ScopeState>,
    /// Every key that was destroyed.
    pub(crate) destroyed: Vec<DestroyedKey>,
    /// The number of entries.
    pub(crate) entries: u32,
    /// The digest of the last one.
    pub(crate) last: Option<Digest>,
}

impl Fold {
    pub(crate) fn empty() -> Self {
        Self {
            state: ScopeState::Live,
            generation: 1,
            holds: Vec::new(),
            schedule: None,
            before_schedule: None,
            destroyed: Vec::new(),
            entries: 0,
            last: None,
        }
    }

    /// Checks the entries of a scope, and folds them. They must be all entries of the scope, in order.
    pub(crate) fn of(namespace: &Namespace, keys: &LogKeys, scope: &KeyScope, entries: &[LogEntry]) -> Result<Self> {
        let (fold, checked) = Self::of_carried(namespace, keys, scope, entries)?;
        match entries.first() {
            Some(first) if !checked.is_authentic() => Err(altered(first, NOT_ADOPTED)),
            _ => Ok(fold),
        }
    }

    /// The same, but no entry needs to be authentic if none has a MAC. It is for their adoption alone.
    pub(crate) fn of_carried(
        namespace: &Namespace,
        keys: &LogKeys,
        scope: &KeyScope,
        entries: &[LogEntry],
    ) -> Result<(Self, Checked)> {
        let (mut fold, mut checked) = (Self::empty(), Checked::default());
        for entry in entries {
            let problem = if entry.scope == *scope {
                checked.next(namespace, keys, entry)
            } else {
                Some("is not the next one of its scope: one was dropped or moved")
            };
            if let Some(problem) = problem {
                return Err(altered(entry, problem));
            }
            fold.add(entry);
            fold.last = checked.last;
        }
        Ok((fold, checked))
    }

    fn add(&mut self, entry: &LogEntry) {
        match entry.action {
            ScopeAction::Hold => self.holds.push(Hold {
                id: entry.entry_id,
                scope: entry.scope.clone(),
                reason: entry.reason.clone(),
                actor: entry.actor.clone(),
                since: entry.at,
                until: entry.until,
            }),
            ScopeAction::Release => self.holds.retain(|hold| Some(hold.id) != entry.about),
            // A replay puts it behind a shred that it did not know: nothing is left to be shredded.
            ScopeAction::Schedule if entry.state == ScopeState::Shredded => {
                (self.schedule, self.before_schedule) = (None, None);
            }
            ScopeAction::Schedule => {
                self.before_schedule = (entry.state != self.state).then_some(self.state);
                self.schedule = Some(Schedule {
                    id: entry.entry_id,
                    scope: entry.scope.clone(),
                    due: entry.until.unwrap_or(entry.at),
                    mode: match (entry.state, self.before_schedule) {
                        (ScopeState::Withheld, _) => ShredMode::Redact,
                        (ScopeState::Disabled, Some(_)) => ShredMode::Disable,
                        _ => ShredMode::KeepWorking,
                    },
                    reason: entry.reason.clone(),
                    actor: entry.actor.clone(),
                    since: entry.at,
                });
            }
            ScopeAction::Cancel => (self.schedule, self.before_schedule) = (None, None),
            ScopeAction::Shred => {
                self.destroyed.extend(entry.keys.iter().cloned());
                (self.schedule, self.before_schedule) = (None, None);
            }
            ScopeAction::Reopen => (self.schedule, self.before_schedule) = (None, None),
            ScopeAction::Disable | ScopeAction::Enable => self.before_schedule = None,
            ScopeAction::Adopt => self.destroyed.extend(entry.keys.iter().cloned()),
            ScopeAction::Fork => {}
        }
        (self.state, self.generation, self.entries) = (entry.state, entry.generation, entry.scope_seq);
    }

    /// When the scheduled shred comes due.
    pub(crate) fn due(&self) -> Option<OffsetDateTime> {
        self.schedule.as_ref().map(|schedule| schedule.due)
    }

    /// The holds that are in force at this time.
    pub(crate) fn holds_at(&self, at: OffsetDateTime) -> Vec<Hold> {
        self.holds.iter().filter(|hold| hold.is_in_force(at)).cloned().collect()
    }
}

/// The error for an entry that is not what was written.
pub(crate) fn altered(entry: &LogEntry, problem: &'static str) -> Error {
    Error::Keys(KeyFault::LogAltered { scope: entry.scope.clone(), entry: entry.scope_seq, problem })
}

/// May an entry be without a MAC? Only these actions were there before the log was.
fn is_from_before(entry: &LogEntry) -> bool {
    let action =
        matches!(entry.action, ScopeAction::Shred | ScopeAction::Reopen | ScopeAction::Disable | ScopeAction::Enable);
    action && entry.keys.is_empty() && entry.until.is_none() && entry.about.is_none()
}
