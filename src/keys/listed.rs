//! The row of a key scope in a list.

use crate::keys::ScopeState;
use crate::keys::names::{KekId, KeyScope};

/// The row of a key scope in a list, with what its newest data key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedScope {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The scope's state.
    pub state: ScopeState,
    /// 1 at first, and one more after each reopening.
    pub generation: u32,
    /// The highest version of a data key that the scope ever had; `None` if it never had one.
    pub last_version: Option<u32>,
    /// The key-encryption key that wraps that data key, or did before it was destroyed.
    pub kek_id: Option<KekId>,
}
