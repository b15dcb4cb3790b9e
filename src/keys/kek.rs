//! The rows of key-encryption keys as records.

use crate::error::{Error, Result, StorageFault};
use crate::keys::names::KekId;
use crate::kms::WrappedKek;
use time::OffsetDateTime;

/// The state of a key-encryption key. It says what the key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KekState {
    /// It wraps new data keys of its partition, and opens those that it wrapped.
    Active,
    /// It opens the data keys that it wrapped, until a rewrap has moved them to the active one.
    DecryptOnly,
    /// It wraps no data key any more.
    Retired,
}

impl KekState {
    /// The word that key tables hold: `active`, `decrypt_only` or `retired`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::DecryptOnly => "decrypt_only",
            Self::Retired => "retired",
        }
    }

    /// Reads the word that a key table holds.
    ///
    /// # Errors
    /// [`StorageFault::InvalidRow`] if it is another one.
    pub fn parse(word: &str) -> Result<Self> {
        let known = [Self::Active, Self::DecryptOnly, Self::Retired].into_iter().find(|state| state.as_str() == word);
        known.ok_or(Error::Storage(StorageFault::InvalidRow {
            what: "the state of a key-encryption key",
            problem: "is unknown",
        }))
    }
}

/// A row of the table of key-encryption keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekRecord {
    /// The key.
    pub kek_id: KekId,
    /// The partition whose data keys it wraps. Each partition has one active key.
    pub partition: String,
    /// The name of the KMS that wrapped it.
    pub provider: String,
    /// The wrapped key.
    pub wrapped: WrappedKek,
    /// The key's state.
    pub state: KekState,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last wrapped by a master key.
    pub wrapped_at: OffsetDateTime,
}

/// A key-encryption key, and how many data keys it wraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekUsage {
    /// The key.
    pub kek: KekRecord,
    /// How many live data keys it wraps.
    pub live_keys: u64,
    /// When the oldest of them was wrapped.
    pub oldest_wrap: Option<OffsetDateTime>,
}
