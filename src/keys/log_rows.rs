//! The port to the rows of the shred log: its entries, and the chain that numbers them.

use crate::error::Result;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{DataKeyRecord, DestroyedKey, EntryMac, LogEntry, ScopeRecord, ScopeState};
use async_trait::async_trait;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// The end of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// The number of the last entry, which is how many there are; 0 if the chain is empty.
    pub seq: u64,
    /// The hash of the last entry's row; 32 zero bytes if the chain is empty.
    pub hash: [u8; 32],
    /// Are there entries that the chain does not have?
    pub unsealed: bool,
}

/// A row of the chain: it gives an entry its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// The number, from 1 on and without gaps.
    pub seq: u64,
    /// The entry.
    pub entry_id: Uuid,
    /// The hash of the row before; 32 zero bytes for the first one.
    pub previous_hash: [u8; 32],
    /// SHA-256 over the number, the hash before and the entry: see `docs/format.md`.
    pub hash: [u8; 32],
    /// HMAC-SHA256 over the hash.
    pub mac: EntryMac,
}

/// An entry of the shred log that the chain has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    /// Its row of the chain.
    pub row: LogRow,
    /// The entry.
    pub entry: LogEntry,
}

/// The key table says something else than its shred log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogDisagreement {
    /// The scope.
    pub scope: KeyScope,
    /// What is wrong.
    pub problem: LogProblem,
}

/// How the rows of a scope disagree with its entries in the shred log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LogProblem {
    /// A key that a shred destroyed has a wrapped key, or a shredded scope has one that no shred names: it has come
    /// back.
    KeyCameBack,
    /// A key that a shred destroyed has no row, so its values are errors and are not redacted.
    NoTombstone,
    /// The scope is not in the state or generation that its last entry says.
    State,
    /// An entry is marked as sealed, and the chain does not have it.
    NotInChain,
}

impl LogProblem {
    /// The word for it: `key_came_back`, `no_tombstone`, `state` or `not_in_chain`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCameBack => "key_came_back",
            Self::NoTombstone => "no_tombstone",
            Self::State => "state",
            Self::NotInChain => "not_in_chain",
        }
    }

    /// Reads the word.
    #[allow(dead_code, reason = "used by the SQL adapters only")]
    pub(crate) fn parse(word: &str) -> Option<Self> {
        [Self::KeyCameBack, Self::NoTombstone, Self::State, Self::NotInChain]
            .into_iter()
            .find(|problem| problem.as_str() == word)
    }
}

impl fmt::Display for LogDisagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = &self.scope;
        match self.problem {
            LogProblem::KeyCameBack => write!(f, "a key of {scope} that was shredded is there again"),
            LogProblem::NoTombstone => write!(f, "a key of {scope} that was shredded has no tombstone"),
            LogProblem::State => write!(f, "{scope} is not in the state that its last entry says"),
            LogProblem::NotInChain => write!(f, "an entry of {scope} says that it is in the chain, and is not"),
        }
    }
}

/// The rows of the shred log within a transaction of its own: see [`KeyRows`](crate::keys::KeyRows).
///
/// As there, every method does one thing to rows, and none decides whether it should be done.
#[async_trait]
pub trait LogRows: Send {
    /// The end of the chain, locked until the transaction ends: others that add to the chain wait. It is read after the
    /// lock was taken.
    async fn lock_log_head(&mut self) -> Result<LogHead>;

    /// The entries that the chain does not have, ascending by scope and by number within the scope, from the first
    /// after `after` on, at most `limit`.
    async fn unsealed_entries(&mut self, after: Option<(&KeyScope, u32)>, limit: u32) -> Result<Vec<LogEntry>>;

    /// All entries of these scopes, ascending by scope and by number within the scope.
    async fn entries_of(&mut self, scopes: &[KeyScope]) -> Result<Vec<LogEntry>>;

    /// Adds rows to the chain, marks their entries as sealed, and moves the end of the chain from `from` to the last of
    /// them. Returns whether all of it was done. If it was not, the transaction must be rolled back.
    async fn seal_entries(&mut self, from: &LogHead, rows: &[LogRow]) -> Result<bool>;

    /// Inserts entries that the chain does not have. Their scopes stay as they are.
    async fn insert_entries(&mut self, entries: &[LogEntry]) -> Result<()>;

    /// Locks these scopes as a change does, in ascending order, and creates those that do not exist. Returns their
    /// rows, read after they were locked.
    async fn lock_scopes(&mut self, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>>;

    /// All data keys of a scope, destroyed or not, by version.
    async fn data_keys_of(&mut self, scope: &KeyScope) -> Result<Vec<DataKeyRecord>>;

    /// Destroys these data keys. Keys that were destroyed before stay as they are. Returns how many were destroyed.
    async fn destroy_by_id(&mut self, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64>;

    /// Inserts the tombstone of a key that the table does not have.
    async fn insert_tombstone(&mut self, scope: &KeyScope, key: &DestroyedKey, at: OffsetDateTime) -> Result<()>;

    /// Sets the state and generation of a scope, when its scheduled shred comes due, and its active key. Returns
    /// whether the scope was there.
    async fn set_scope(&mut self, to: &ScopeSetting<'_>) -> Result<bool>;
}

/// What [`LogRows::set_scope`] sets.
#[derive(Clone, Copy, Debug)]
pub struct ScopeSetting<'a> {
    /// The scope.
    pub scope: &'a KeyScope,
    /// Its state.
    pub state: ScopeState,
    /// Its generation.
    pub generation: u32,
    /// When its scheduled shred comes due.
    pub due: Option<OffsetDateTime>,
    /// Its active key.
    pub active: Option<KeyId>,
}
