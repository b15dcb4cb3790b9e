//! The port to the key table, and what its rows say.

mod ahead;
pub(crate) mod effect;
mod kek;
mod kek_cache;
mod keks;
mod key_cache;
mod manager;
mod material;
pub(crate) mod names;
mod operator;
pub(crate) mod restored;
mod settings;
mod similar;
mod sweeper;
mod usable;

pub(crate) use ahead::Pinned;
pub use kek::{KekRecord, KekState, KekUsage, Retirement, RewrapBatch, RewrappedBatch, Rewrapper};
pub use keks::{KekMoves, RewrapOptions, RewrapProgress, Rewrapped};
pub use manager::{KeyManager, Shredding};
pub use names::{KekId, KeyId};
pub use operator::KeyOperator;
pub use restored::RestoredScopes;
pub use settings::KeyManagerBuilder;
pub(crate) use usable::UsableKeys;

use crate::error::{Error, Result, StorageFault};
use crate::keys::names::{KeyScope, Namespace};
use crate::kms::WrappedKek;
use async_trait::async_trait;
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
    /// The highest version of a data key that the scope ever had, whether it is active or not; 0 for none.
    pub last_version: u32,
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

/// A key table.
///
/// The rows of scopes decide what may be appended, the rows of data keys what is redacted. Nothing is
/// ever deleted. The caller owns the transaction; an implementation never begins, commits or rolls
/// back one but in [`install_kek`](Self::install_kek) and [`install_key`](Self::install_key).
///
/// # The race between an append and a shred
/// An append holds [`ScopeLock::Share`] on its scopes from before it seals until its transaction ends; a
/// shred holds [`ScopeLock::Update`] and destroys keys in a later statement. So one of them waits for the
/// other or fails with a retryable [`Error::Collision`], and no event is
/// committed under a destroyed key. A database with one writer at a time may use its write lock for both.
///
/// # Effect
/// A database may accept a change and not make it: a row-level policy, a trigger or a rule keeps it away. Every method
/// that changes something finds that out, from the rows that were changed or by reading them again, and fails with
/// [`StorageFault::NoEffect`].
///
/// # Errors
/// Every method fails with [`Error::Database`] if the database does, and with the
/// retryable [`Error::Collision`] if another transaction is in the way. Those that
/// write or lock refuse a connection that is not in a transaction with
/// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
///
/// `conformance::key_store` (feature `conformance`) checks an implementation against all of this.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// A connection in a transaction, as the event store on the same database has it.
    type Tx: Send + 'static;

    /// May a transaction look before it locks? An append then looks at its scopes first if their keys are not at hand,
    /// so that it can ask the KMS while nothing is locked. `false` for a database in which a transaction that has read
    /// can't write any more once another one wrote, as in SQLite: there it looks only if it knows that the KMS must be
    /// asked.
    fn can_look_first(&self) -> bool {
        true
    }

    /// May statements on this connection see less than what is committed when they start, or more, because they are in
    /// a transaction? What they show is then no proof of how things are: readers that may lag do not go by it. `true`,
    /// the default, is always safe; it costs those readers what they hoped to save.
    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        let _ = tx;
        true
    }

    /// The namespace that was set when the tables were made; `None` if they hold none.
    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>>;

    /// The key-encryption key that wraps new data keys of a partition.
    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>>;

    /// The rows of these key-encryption keys, in any order. Unknown ids are left out.
    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>>;

    /// Makes `kek` the active one of its partition, unless there is one: then nothing happens.
    ///
    /// Committed when it returns: a key-encryption key that is used before it is committed would lose
    /// data on a rollback. A connection in a transaction is refused with
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction).
    async fn install_kek(&self, connection: &mut Self::Tx, kek: &KekRecord) -> Result<()>;

    /// All key-encryption keys, oldest first, with what they wrap. Counts every live data key.
    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>>;

    /// Makes `kek` the active key of its partition in place of `replaced`, which is only for opening from then on.
    /// `false` if `replaced` is not the active one. Committed when it returns, as with
    /// [`install_kek`](Self::install_kek).
    async fn replace_kek(&self, connection: &mut Self::Tx, replaced: KekId, kek: &KekRecord) -> Result<bool>;

    /// Exchanges how a key-encryption key is wrapped, and by whom. `false` if it is not wrapped as in `old`. Committed
    /// when it returns.
    async fn move_kek(
        &self,
        connection: &mut Self::Tx,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool>;

    /// Retires a key-encryption key, unless it is active or wraps a live data key. From then on no data key can be
    /// inserted under it. Committed when it returns.
    async fn retire_kek(&self, connection: &mut Self::Tx, kek_id: KekId) -> Result<Retirement>;

    /// Wraps a batch of live data keys anew: in ascending order of id, without those that others hold, and only while
    /// they are as they were read. What was written is looked at before it is committed. Never touches scopes.
    /// Committed when it returns; of a batch that fails nothing is written.
    ///
    /// [`KeyFault::WrongKey`](crate::error::KeyFault::WrongKey) if what was written does not open.
    async fn rewrap_batch(
        &self,
        connection: &mut Self::Tx,
        batch: &RewrapBatch,
        by: &dyn Rewrapper,
    ) -> Result<RewrappedBatch>;

    /// Inserts the first key of a scope and makes it active, unless the scope is known: then nothing
    /// happens. Committed when it returns, as with [`install_kek`](Self::install_kek).
    async fn install_key(&self, connection: &mut Self::Tx, key: &NewDataKey) -> Result<()>;

    /// The rows of these scopes with their active keys, in any order, in one statement. Unknown scopes
    /// are left out.
    ///
    /// With a lock, the rows are locked in ascending order of scope, and a connection that is not in a transaction is
    /// refused with [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction). Without
    /// scopes, such a call says that the transaction is going to write: a database with one writer at a time takes its
    /// write lock, so that what is read next can't get in the way. [`ScopeLock::Share`] does not lock
    /// [reserved](KeyScope::is_reserved) scopes: every append reads them.
    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>>;

    /// Inserts live scopes of generation 1 without keys, in ascending order; leaves those that exist.
    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()>;

    /// Inserts data keys and makes each the active one of its scope. The scopes exist, are live and locked:
    /// [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState) otherwise.
    /// [`Error::Collision`] if their key-encryption key was retired meanwhile.
    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()>;

    /// Says that what this transaction commits must outlast a crash of the database, whatever its settings are: keys
    /// that are committed before the events that need them, in another database. Changes of scopes see to it
    /// themselves.
    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()>;

    /// The rows of these data keys, in any order, in one statement without locks. Unknown ids are left out.
    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>>;

    /// Sets state and generation of a locked scope and adds the change to its history. A scope that is
    /// shredded has no active key afterwards. A scope that is not there is
    /// [`StorageFault::NoEffect`].
    async fn change_scope(&self, tx: &mut Self::Tx, change: &ScopeChange) -> Result<()>;

    /// Destroys every wrapped key of a locked scope, notes in the rows when, and returns the ids of those that
    /// were not destroyed before, by version. Looks whether one is left nevertheless:
    /// [`StorageFault::NoEffect`].
    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>>;

    /// The scopes that have a row under one of these ids, whatever their kind, in any order and without locks. One look
    /// into the index for each kind and id: it must not read every scope.
    async fn scopes_with_ids(&self, tx: &mut Self::Tx, ids: &[String]) -> Result<Vec<KeyScope>>;

    /// All that is known of a scope; `None` if it was never seen.
    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>>;
}
