//! What key tables say of key-encryption keys, and how they change.

use crate::error::{Error, Result, StorageFault};
use crate::keys::DataKeyRecord;
use crate::keys::names::{KekId, KeyId};
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

/// Which data keys are to be wrapped anew, a batch at a time.
#[derive(Clone, Debug)]
pub struct RewrapBatch {
    /// Those that these keys wrap.
    pub from: Vec<KekId>,
    /// By this key.
    pub to: KekId,
    /// Those with a higher id than this one; all if `None`.
    pub after: Option<KeyId>,
    /// At most so many.
    pub limit: u32,
    /// Now.
    pub at: OffsetDateTime,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewrappedBatch {
    /// How many data keys were found, at most as many as the limit. 0: there are none behind `after`, or others hold
    /// them all.
    pub found: u32,
    /// The last of them: where to go on.
    pub last: Option<KeyId>,
    /// How many were wrapped anew.
    pub rewrapped: u32,
    /// Those that do not open, and were left as they are.
    pub bad: Vec<KeyId>,
}

/// How a key table gets data keys wrapped anew without seeing them.
pub trait Rewrapper: Send + Sync {
    /// The key's new wrapping; `None` if it does not open.
    ///
    /// # Errors
    /// Those of the random generator.
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>>;

    /// Does what was written open to the same key? `wrapped` is what the database holds now.
    fn opens(&self, key_id: KeyId, wrapped: &[u8]) -> bool;
}

/// What became of a key-encryption key that was to be retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retirement {
    /// It is retired.
    Done,
    /// It still wraps so many live data keys.
    InUse(u64),
    /// It is the active one of its partition.
    Active,
    /// There is no such key.
    Unknown,
}
