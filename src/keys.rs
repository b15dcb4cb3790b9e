//! Keys: the rows of a key table as records, the ports to the table ([`KeyStore`] and [`KeyTable`]), and the
//! [`KeyManager`] that decides what may be done with keys.

mod ahead;
mod change;
pub(crate) mod effect;
pub(crate) mod entry;
pub(crate) mod erasure_consumer;
mod expected;
mod first_keys;
pub(crate) mod hold;
mod index_keys;
mod kek;
mod kek_cache;
pub(crate) mod kek_changes;
mod keks;
mod key_cache;
mod key_states;
mod key_store;
mod key_table;
mod listed;
pub(crate) mod log;
mod log_rows;
mod manager;
mod master_key;
mod material;
pub(crate) mod names;
mod operator;
mod prepare;
pub(crate) mod restored;
mod retention;
mod rewrap;
mod scopes;
pub(crate) mod seal_log;
mod settings;
mod shred;
pub(crate) mod shred_log;
mod shred_many;
mod similar;
pub(crate) mod sweep;
mod sweeper;
mod usable;

pub(crate) use ahead::Pinned;
pub use entry::{DestroyedKey, EntryMac, LogEntry, ScopeAction};
pub(crate) use expected::ExpectedKeys;
pub(crate) use hold::{DueScope, Hold, Schedule, ShredMode};
pub(crate) use index_keys::IndexKeyVersion;
pub use kek::{KekRecord, KekState, KekUsage};
pub(crate) use key_states::KeyState;
pub use key_store::{FirstKeys, FirstKeysCreated, KeyStore, KeyTableNames};
pub use key_table::{KeyRewrap, KeyRows, KeyTable, KeyWork, KeyWrapping};
pub use listed::ListedScope;
pub use log_rows::{LogDisagreement, LogHead, LogProblem, LogRow, LogRows, ScopeSetting, SealedEntry};
pub use manager::KeyManager;
pub use master_key::KekMoves;
pub(crate) use material::{ReadKeys, SealingKeys};
pub use names::{KekId, KeyId};
pub use operator::KeyOperator;
pub use restored::RestoredScopes;
pub use rewrap::{RewrapOptions, RewrapProgress, Rewrapped};
pub use scopes::{ScopeInfo, ScopePage, ScopeQuery};
pub use settings::KeyManagerBuilder;
pub use shred::Shredding;
pub use shred_many::{ShredProgress, ShredRequest, ShreddedMany, SkippedScope};
pub(crate) use usable::UsableKeys;

use crate::error::{Error, Result, StorageFault};
use crate::keys::names::KeyScope;
use std::fmt;
use time::OffsetDateTime;

/// The state of a scope. It says what may be done with the scope's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeState {
    /// The keys seal and open.
    Live,
    /// The keys neither seal nor open until an operator enables the scope again. Nothing is redacted.
    Disabled,
    /// As disabled, but readers get stand-ins as if the keys were destroyed: until a scheduled shred comes due, or is
    /// cancelled.
    Withheld,
    /// The keys are destroyed, and a tombstone says so. Readers get stand-ins.
    Shredded,
}

impl ScopeState {
    /// The word that key tables hold: `live`, `disabled`, `withheld` or `shredded`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Disabled => "disabled",
            Self::Withheld => "withheld",
            Self::Shredded => "shredded",
        }
    }

    /// Reads the word that a key table holds.
    ///
    /// # Errors
    /// [`StorageFault::InvalidRow`] if it is another one.
    pub fn parse(word: &str) -> Result<Self> {
        let known = [Self::Live, Self::Disabled, Self::Withheld, Self::Shredded]
            .into_iter()
            .find(|state| state.as_str() == word);
        known
            .ok_or(Error::Storage(StorageFault::InvalidRow { what: "the state of a key scope", problem: "is unknown" }))
    }
}

/// A lock on the rows of scopes that lasts until the caller's transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeLock {
    /// No lock.
    None,
    /// A shared lock: no other transaction may change the scopes meanwhile, but others may hold this lock too.
    Share,
    /// An exclusive lock: no other transaction may lock or change the scopes meanwhile.
    Update,
}

/// A row of the scope table, with its active key.
#[derive(Clone, Debug)]
pub struct ScopeRecord {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The scope's state.
    pub state: ScopeState,
    /// 1 at first, and one more after each reopening.
    pub generation: u32,
    /// The highest version of a data key that the scope ever had, whether it is active or not; `None` if it never had
    /// one.
    pub last_version: Option<u32>,
    /// When its scheduled shred comes due; `None` if none is scheduled.
    pub due: Option<OffsetDateTime>,
    /// The key for sealing; `None` while there is none.
    pub active: Option<DataKeyRecord>,
}

/// A row of the data key table, with the state of its scope.
#[derive(Clone)]
pub struct DataKeyRecord {
    /// The key.
    pub key_id: KeyId,
    /// The scope that owns it.
    pub scope: KeyScope,
    /// The key's version within its scope, from 1 on.
    pub version: u32,
    /// The key-encryption key that wraps it.
    pub kek_id: KekId,
    /// The wrapped key. `None` once it was shredded: the row is a tombstone then. A row that has neither this nor
    /// [`shredded_at`](Self::shredded_at), or that has both, makes reads fail with [`StorageFault::InvalidRow`].
    pub wrapped_key: Option<Vec<u8>>,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was destroyed.
    pub shredded_at: Option<OffsetDateTime>,
    /// The state of its scope now.
    pub scope_state: ScopeState,
}

/// The row of a key that was just inserted.
impl From<NewDataKey> for DataKeyRecord {
    fn from(key: NewDataKey) -> Self {
        Self {
            key_id: key.key_id,
            scope: key.scope,
            version: key.version,
            kek_id: key.kek_id,
            wrapped_key: Some(key.wrapped_key),
            created_at: key.created_at,
            shredded_at: None,
            scope_state: ScopeState::Live,
        }
    }
}

/// Leaves the wrapped key out.
impl fmt::Debug for DataKeyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeyRecord")
            .field("key_id", &self.key_id)
            .field("scope", &self.scope)
            .field("version", &self.version)
            .field("kek_id", &self.kek_id)
            .field("shredded", &self.wrapped_key.is_none())
            .field("scope_state", &self.scope_state)
            .finish_non_exhaustive()
    }
}

/// A data key to be inserted.
#[derive(Clone)]
pub struct NewDataKey {
    /// The key's id: random.
    pub key_id: KeyId,
    /// The scope that owns it.
    pub scope: KeyScope,
    /// One more than the scope's last version.
    pub version: u32,
    /// The key-encryption key that wraps it.
    pub kek_id: KekId,
    /// The wrapped key.
    pub wrapped_key: Vec<u8>,
    /// The current time.
    pub created_at: OffsetDateTime,
}

/// Leaves the wrapped key out.
impl fmt::Debug for NewDataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDataKey")
            .field("key_id", &self.key_id)
            .field("scope", &self.scope)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// One data key in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key_id: KeyId,
    /// Its version within the scope.
    pub version: u32,
    /// The key-encryption key that wraps it, or did before it was destroyed.
    pub kek_id: KekId,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was destroyed, if it was.
    pub shredded_at: Option<OffsetDateTime>,
}

/// Everything that the key table says about a scope's keys. Show it as proof of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHistory {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The scope's state now.
    pub state: ScopeState,
    /// The current generation.
    pub generation: u32,
    /// When its scheduled shred comes due; `None` if none is scheduled.
    pub due: Option<OffsetDateTime>,
    /// The key for sealing.
    pub active_key: Option<KeyId>,
    /// Every key that the scope ever had, oldest first.
    pub keys: Vec<KeyInfo>,
    /// The decisions about the scope and their reasons, oldest first, as the table has them. They are not checked here.
    pub entries: Vec<LogEntry>,
}
