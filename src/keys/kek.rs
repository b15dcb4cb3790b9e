//! What key tables say of key-encryption keys.

use crate::error::{Error, Result, StorageFault};
use crate::keys::names::KekId;
use crate::kms::WrappedKek;
use time::OffsetDateTime;

/// What a key-encryption key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KekState {
    /// It wraps new data keys of its partition, and opens what it wrapped.
    Active,
    /// It opens what it wrapped, until that is wrapped by the active one.
    DecryptOnly,
    /// It wraps no data key any more.
    Retired,
}

impl KekState {
    /// The word for it in key tables: `active`, `decrypt_only`, `retired`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::DecryptOnly => "decrypt_only",
            Self::Retired => "retired",
        }
    }

    /// Reads the word.
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
    /// Which part of the data keys it wraps. One key is active in each partition.
    pub partition: String,
    /// Which KMS wrapped it.
    pub provider: String,
    /// The wrapped key.
    pub wrapped: WrappedKek,
    /// What it is used for.
    pub state: KekState,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When the master key that holds it now wrapped it.
    pub wrapped_at: OffsetDateTime,
}

/// A key-encryption key, and what it wraps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekUsage {
    /// The key.
    pub kek: KekRecord,
    /// How many live data keys it wraps.
    pub live_keys: u64,
    /// When the oldest of them was wrapped.
    pub oldest_wrap: Option<OffsetDateTime>,
}
