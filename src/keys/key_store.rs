//! The port to a key table, as append, read and shred need it.

use crate::error::Result;
use crate::keys::kek::KekRecord;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{DataKeyRecord, DestroyedKey, KeyHistory, LogEntry, NewDataKey, ScopeLock, ScopeRecord};
use async_trait::async_trait;
use std::sync::Arc;
use time::OffsetDateTime;

/// A key table, as append, read and shred need it. The operations that operators need besides are in
/// [`KeyTable`](crate::keys::KeyTable).
///
/// The rows of scopes decide what may be appended. The rows of data keys decide what is redacted. No row is ever
/// deleted. The caller owns the transaction: an implementation never begins, commits or rolls back one.
///
/// # What an implementation does
/// It reads, writes and locks rows, and returns what it found. It decides nothing. The
/// [`KeyManager`](crate::keys::KeyManager) decides, in the same way for every implementation, whether a scope may be
/// sealed for, which key is the right one, and whether a shred is complete.
///
/// # The race between an append and a shred
/// An append holds [`ScopeLock::Share`] on its scopes from before it seals until its transaction ends; a
/// shred holds [`ScopeLock::Update`] and destroys keys in a later statement. So one of them waits for the
/// other or fails with a retryable [`Error::Collision`](crate::Error::Collision), and no event is
/// committed under a destroyed key. A database with one writer at a time may use its write lock for both.
///
/// # Effect
/// A database may accept a change and not make it, because of a row-level policy, a trigger or a rule. Every method
/// that changes something has to notice that, from the rows that were changed or by reading them again, and fails with
/// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect).
///
/// # Errors
/// Every method fails with [`Error::Database`](crate::Error::Database) if the database does, and with the
/// retryable [`Error::Collision`](crate::Error::Collision) if another transaction is in the way. Those that
/// write or lock refuse a connection that is not in a transaction with
/// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
///
/// `conformance::key_store` (feature `conformance`) checks an implementation against all of this.
#[async_trait]
pub trait KeyStore: Send + Sync {
    /// A connection in a transaction, as the event store on the same database has it.
    type Tx: Send + 'static;

    /// May a transaction read rows before it locks them? If so, an append whose keys are not cached reads its scopes
    /// first, so that it can ask the KMS while nothing is locked. `false` for a database such as SQLite, in which a
    /// transaction that has read can't write any more once another one wrote. There, an append reads first only if it
    /// knows that the KMS must be asked.
    fn can_look_first(&self) -> bool {
        true
    }

    /// Is this connection in a transaction, so that its statements may see an old state, or changes that are not
    /// committed? Reads that may lag do not rely on such statements later. `true` (the default) is always safe, but
    /// such reads then save no round trips.
    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        let _ = tx;
        true
    }

    /// Will the next statements on this connection see everything that is committed when they start? A transaction with
    /// a snapshot does not, such as one of `REPEATABLE READ`, or one of SQLite that has not written. What such a
    /// transaction finds is not kept for others. The default says `true` only outside a transaction.
    async fn sees_newest_state(&self, tx: &mut Self::Tx) -> Result<bool> {
        Ok(!self.is_in_transaction(tx))
    }

    /// The names of the tables, if they are those of this crate's migrations, in the database to which the connection
    /// leads. An event store that is [`BesideKeys`](crate::store::BesideKeys) then locks and reads their rows in its
    /// own statements. `None`, the default, is always right. A decorator that has to see every access returns `None`.
    fn table_names(&self) -> Option<&KeyTableNames> {
        None
    }

    /// The namespace that was set when the tables were created; `None` if they hold none.
    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>>;

    /// The key-encryption key that wraps new data keys of a partition.
    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>>;

    /// The rows of these key-encryption keys, in any order. Unknown ids are left out.
    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>>;

    /// Announces that this transaction is going to write, before it reads anything. A database with one writer at a
    /// time takes its write lock, so that a read does not prevent the later write. Other databases do nothing.
    async fn announce_writing(&self, tx: &mut Self::Tx) -> Result<()>;

    /// The rows of these scopes with their active keys, in any order, in one statement. Unknown scopes
    /// are left out.
    ///
    /// With a lock, the rows are locked in ascending order of scope, and a connection that is not in a transaction is
    /// refused with [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
    /// [`ScopeLock::Share`] does not lock the scope of the [integrity key](KeyScope::integrity): every append reads it.
    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>>;

    /// Does [`create_if_new`](Self::create_if_new) do its work? `false`, the default, is always right.
    fn creates_at_once(&self) -> bool {
        false
    }

    /// Reads these scopes as [`scopes`](Self::scopes) does without locks, and creates those that own the keys, with
    /// their keys, in the same statement. It creates all of them or none: all if
    /// - the table has none of the scopes that own the keys, no key of them, and the integrity key's scope,
    /// - the namespace is this one,
    /// - and each of the key-encryption keys is the active one of its partition, with this provider, master key and
    ///   wrapped key.
    ///
    /// If a scope appears meanwhile, in another transaction, some of the others may have been created. Then this
    /// returns that nothing was.
    ///
    /// It is called only if [`creates_at_once`](Self::creates_at_once) says so. The default creates nothing.
    async fn create_if_new(&self, tx: &mut Self::Tx, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        let known = self.scopes(tx, first.scopes, ScopeLock::None).await?;
        Ok(FirstKeysCreated { created: false, locked: false, known })
    }

    /// Inserts live scopes of generation 1 without keys, in ascending order. Scopes that exist are left as they are.
    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()>;

    /// Inserts data keys, and makes each the active one of its scope. The scopes must exist, be live, and be locked;
    /// otherwise this fails with [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState). It fails with
    /// [`Error::Collision`](crate::Error::Collision) if the key-encryption key was retired meanwhile.
    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()>;

    /// Makes the commit of this transaction outlast a crash of the database, whatever the settings are. It is called
    /// for keys that are committed before the events that need them, in another database. Changes of scopes do this by
    /// themselves.
    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()>;

    /// The rows of these data keys, in any order, in one statement without locks. Unknown ids are left out.
    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>>;

    /// Sets the state and the generation of a locked scope, and adds the entry to the shred log as it is. A shredded
    /// scope has no active key afterwards. A [schedule](crate::keys::ScopeAction::Schedule) sets the time at which the
    /// scope is due; a cancel, a shred or a reopen takes it away. If the scope does
    /// not exist, or has an entry of that number, this fails.
    async fn change_scope(&self, tx: &mut Self::Tx, entry: &LogEntry) -> Result<()>;

    /// Destroys every wrapped key of a locked scope, and sets the time in the rows. Returns the keys that were not
    /// destroyed before, by version, as their rows say now. If a key is left nevertheless, this fails with
    /// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect).
    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>>;

    /// Everything that the table says about a scope, all of it from one state of the database. `None` if the scope does
    /// not exist.
    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>>;
}

/// The first keys of scopes, and what must be so for them to be created: see [`KeyStore::create_if_new`].
#[derive(Clone, Copy, Debug)]
pub struct FirstKeys<'k> {
    /// The namespace for which the keys are wrapped.
    pub namespace: &'k Namespace,
    /// The scopes to read: those that own the keys, and that of the [integrity key](KeyScope::integrity).
    pub scopes: &'k [KeyScope],
    /// The keys, one for each scope.
    pub keys: &'k [NewDataKey],
    /// The key-encryption keys that wrap them.
    pub keks: &'k [KekRecord],
}

/// What [`KeyStore::create_if_new`] did.
#[derive(Debug)]
pub struct FirstKeysCreated {
    /// Have all scopes their keys now?
    pub created: bool,
    /// If not: may this have locked or created something nevertheless? Then no KMS is asked before the transaction
    /// ends.
    pub locked: bool,
    /// The rows of those scopes that were there before.
    pub known: Vec<ScopeRecord>,
}

/// The names of the tables of scopes and data keys, as SQL texts of the same connection write them: quoted, and with
/// their schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyTableNames {
    key_scopes: Arc<str>,
    data_keys: Arc<str>,
}

impl KeyTableNames {
    #[cfg(feature = "postgres")]
    pub(crate) fn new(key_scopes: String, data_keys: String) -> Self {
        Self { key_scopes: key_scopes.into(), data_keys: data_keys.into() }
    }

    /// The table of scopes. Its columns are those of this crate's migrations.
    #[must_use]
    pub fn key_scopes(&self) -> &str {
        &self.key_scopes
    }

    /// The table of data keys. Its columns are those of this crate's migrations.
    #[must_use]
    pub fn data_keys(&self) -> &str {
        &self.data_keys
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<K: KeyStore + ?Sized> KeyStore for Arc<K> {
    type Tx = K::Tx;

    fn can_look_first(&self) -> bool {
        (**self).can_look_first()
    }

    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        (**self).is_in_transaction(tx)
    }

    async fn sees_newest_state(&self, tx: &mut Self::Tx) -> Result<bool> {
        (**self).sees_newest_state(tx).await
    }

    fn table_names(&self) -> Option<&KeyTableNames> {
        (**self).table_names()
    }

    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>> {
        (**self).namespace(tx).await
    }

    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>> {
        (**self).active_kek(tx, partition).await
    }

    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        (**self).keks(tx, kek_ids).await
    }

    async fn announce_writing(&self, tx: &mut Self::Tx) -> Result<()> {
        (**self).announce_writing(tx).await
    }

    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        (**self).scopes(tx, scopes, lock).await
    }

    fn creates_at_once(&self) -> bool {
        (**self).creates_at_once()
    }

    async fn create_if_new(&self, tx: &mut Self::Tx, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        (**self).create_if_new(tx, first).await
    }

    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()> {
        (**self).create_scopes(tx, scopes).await
    }

    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()> {
        (**self).insert_keys(tx, keys).await
    }

    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()> {
        (**self).commit_durably(tx).await
    }

    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        (**self).data_keys(tx, key_ids).await
    }

    async fn change_scope(&self, tx: &mut Self::Tx, entry: &LogEntry) -> Result<()> {
        (**self).change_scope(tx, entry).await
    }

    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>> {
        (**self).destroy_keys(tx, scope, at).await
    }

    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        (**self).history(tx, scope).await
    }
}
