//! What the rows of a key table say. The ports to the table are [`KeyStore`] and [`KeyTable`].

mod ahead;
pub(crate) mod effect;
mod kek;
mod kek_cache;
pub(crate) mod kek_changes;
mod keks;
mod key_cache;
mod key_store;
mod key_table;
mod manager;
mod master_key;
mod material;
pub(crate) mod names;
mod operator;
mod prepare;
pub(crate) mod restored;
mod rewrap;
mod settings;
mod similar;
mod sweeper;
mod usable;

pub(crate) use ahead::Pinned;
pub use kek::{KekRecord, KekState, KekUsage};
pub use key_store::KeyStore;
pub use key_table::{KeyRewrap, KeyRows, KeyTable, KeyWork, KeyWrapping};
pub use manager::{KeyManager, Shredding};
pub use master_key::KekMoves;
pub use names::{KekId, KeyId};
pub use operator::KeyOperator;
pub use restored::RestoredScopes;
pub use rewrap::{RewrapOptions, RewrapProgress, Rewrapped};
pub use settings::KeyManagerBuilder;
pub(crate) use usable::UsableKeys;

use crate::error::{Error, Result, StorageFault};
use crate::keys::names::KeyScope;
use std::fmt;
use time::OffsetDateTime;

/// What may be done with the keys of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeState {
    /// Everything.
    Live,
    /// Nothing, until an operator enables the scope again. Nothing is redacted.
    Disabled,
    /// Nothing any more: the keys are destroyed, and a tombstone says so.
    Shredded,
}

impl ScopeState {
    /// The word for it in key tables: `live`, `disabled`, `shredded`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Disabled => "disabled",
            Self::Shredded => "shredded",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// [`StorageFault::InvalidRow`] if it is another one.
    pub fn parse(word: &str) -> Result<Self> {
        let known = [Self::Live, Self::Disabled, Self::Shredded].into_iter().find(|state| state.as_str() == word);
        known
            .ok_or(Error::Storage(StorageFault::InvalidRow { what: "the state of a key scope", problem: "is unknown" }))
    }
}

/// A lock on the rows of scopes that lasts until the caller's transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeLock {
    /// None: a look.
    None,
    /// Nobody may change the scopes meanwhile; others may hold this lock too.
    Share,
    /// Nobody else may lock or change the scopes meanwhile.
    Update,
}

/// A row of the scope table, with its active key.
#[derive(Clone, Debug)]
pub struct ScopeRecord {
    /// Whose keys.
    pub scope: KeyScope,
    /// What may be done with them.
    pub state: ScopeState,
    /// 1 at first, one more with every reopening.
    pub generation: u32,
    /// The highest version of a data key that the scope ever had, whether it is active or not; `None` if it never had
    /// one.
    pub last_version: Option<u32>,
    /// The key for sealing; `None` while there is none.
    pub active: Option<DataKeyRecord>,
}

/// A row of the data key table, with the state of its scope.
#[derive(Clone)]
pub struct DataKeyRecord {
    /// The key.
    pub key_id: KeyId,
    /// Whose it is.
    pub scope: KeyScope,
    /// From 1 on within its scope.
    pub version: u32,
    /// Which key-encryption key wraps it.
    pub kek_id: KekId,
    /// The wrapped key; `None` once it was shredded: the row is then a tombstone. A row that has neither
    /// this nor [`shredded_at`](Self::shredded_at), or both, is [`StorageFault::InvalidRow`] to readers.
    pub wrapped_key: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was destroyed.
    pub shredded_at: Option<OffsetDateTime>,
    /// What may be done with it now.
    pub scope_state: ScopeState,
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
    /// Whose it is.
    pub scope: KeyScope,
    /// One more than the scope's last version.
    pub version: u32,
    /// Which key-encryption key wraps it.
    pub kek_id: KekId,
    /// The wrapped key.
    pub wrapped_key: Vec<u8>,
    /// Now.
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

/// What was done to a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeAction {
    /// Its keys were destroyed.
    Shred,
    /// A new generation was begun after a shred.
    Reopen,
    /// Its keys were put out of use.
    Disable,
    /// Its keys were put into use again.
    Enable,
}

impl ScopeAction {
    /// The word for it in key tables: `shred`, `reopen`, `disable`, `enable`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shred => "shred",
            Self::Reopen => "reopen",
            Self::Disable => "disable",
            Self::Enable => "enable",
        }
    }

    /// Reads the word.
    ///
    /// # Errors
    /// [`StorageFault::InvalidRow`] if it is another one.
    pub fn parse(word: &str) -> Result<Self> {
        let known =
            [Self::Shred, Self::Reopen, Self::Disable, Self::Enable].into_iter().find(|action| action.as_str() == word);
        known.ok_or(Error::Storage(StorageFault::InvalidRow {
            what: "the action of a scope change",
            problem: "is unknown",
        }))
    }
}

/// A change of a scope: to be made, or recorded in its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeChange {
    /// Whose keys.
    pub scope: KeyScope,
    /// What is done.
    pub action: ScopeAction,
    /// The scope's state from then on.
    pub state: ScopeState,
    /// The scope's generation from then on.
    pub generation: u32,
    /// Why, in the caller's words.
    pub reason: String,
    /// Who, as the caller said it; `None` if nobody said, or if it was recorded before actors were.
    pub actor: Option<String>,
    /// When.
    pub at: OffsetDateTime,
}

/// One data key in a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key_id: KeyId,
    /// Its version within the scope.
    pub version: u32,
    /// Which key-encryption key wraps it, or did.
    pub kek_id: KekId,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was destroyed, if it was.
    pub shredded_at: Option<OffsetDateTime>,
}

/// All that is known of a scope's keys: what to show as proof of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHistory {
    /// Whose keys.
    pub scope: KeyScope,
    /// What may be done with them now.
    pub state: ScopeState,
    /// The current generation.
    pub generation: u32,
    /// The key for sealing.
    pub active_key: Option<KeyId>,
    /// Every key there ever was, oldest first.
    pub keys: Vec<KeyInfo>,
    /// What was done to the scope and why, oldest first.
    pub changes: Vec<ScopeChange>,
}
