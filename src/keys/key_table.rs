//! The port to the rows of a key table that operators change: key-encryption keys, and what wraps each data key.

use crate::error::Result;
use crate::keys::kek::{KekRecord, KekState, KekUsage};
use crate::keys::key_store::KeyStore;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::restored::RestoredScopes;
use crate::keys::{DataKeyRecord, NewDataKey, ScopeRecord};
use crate::kms::WrappedKek;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;

/// A key table, as operators need it: to make the first keys, to rotate, move and retire key-encryption keys, to wrap
/// data keys anew, and to look at the table as a whole. Applications append, read and shred through
/// [`KeyStore`] alone.
///
/// # What an implementation does
/// It begins a transaction, hands its rows to the work, and commits. The rows are a type of its own: see [`KeyRows`].
/// Which key may be replaced or retired, what must be looked at again before a commit, and what is refused is decided
/// by the [`KeyManager`](crate::keys::KeyManager), the same for every implementation.
///
/// ```
/// # use eventseal::{Error, Result};
/// # use eventseal::keys::{KeyRows, KeyWork};
/// # struct Connection;
/// # impl Connection { async fn begin(&mut self, _: &'static str) -> Result<Transaction> { Ok(Transaction) } }
/// # struct Transaction;
/// # impl Transaction { async fn commit(self) -> Result<()> { Ok(()) } }
/// # struct Rows<'t>(&'t mut Transaction);
/// # async fn in_transaction(connection: &mut Connection, operation: &'static str, work: &mut dyn KeyWork) -> Result<()>
/// # where for<'t> Rows<'t>: KeyRows {
/// let mut transaction = connection.begin(operation).await?;
/// work.run(&mut Rows(&mut transaction)).await?;
/// transaction.commit().await
/// # }
/// ```
///
/// # Errors
/// Those of [`KeyStore`].
///
/// `conformance::key_table` (feature `conformance`) checks an implementation against all of this.
#[async_trait]
pub trait KeyTable: KeyStore {
    /// Does some work in a transaction of its own, and commits it if the work succeeds; if it fails, or if the future
    /// is dropped, nothing of it is left. The transaction may write from its start on, and its statements see what was
    /// committed before each of them.
    ///
    /// Committed when it returns, so that it outlasts a crash of the database, whatever its settings are: a
    /// key-encryption key that is used before it is committed would lose data on a rollback.
    ///
    /// A connection in a transaction is refused with
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), which names the `operation`.
    async fn in_transaction(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()>;

    /// All key-encryption keys, oldest first, with what they wrap. Counts every live data key.
    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>>;

    /// The scopes that have a row under one of these ids, whatever their kind, in any order and without locks. One look
    /// into the index for each kind and id: it must not read every scope.
    async fn scopes_with_ids(&self, tx: &mut Self::Tx, ids: &[String]) -> Result<Vec<KeyScope>>;

    /// The scopes that have live keys, though the last thing that is recorded of them is that these were destroyed: how
    /// many there are, and the first `limit` of them, at least one. The tables may be read from end to end.
    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes>;
}

/// Work to be done in a transaction: see [`KeyTable::in_transaction`].
#[async_trait]
pub trait KeyWork: Send {
    /// Does it.
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()>;
}

/// The rows of a key table within a transaction of its own: read, locked and written one at a time.
///
/// Every method does one thing to rows, and says what came of it. None of them decides whether it should be done.
/// A method that changes rows changes those that are as it was told, and reports the others by leaving them out.
#[async_trait]
pub trait KeyRows: Send {
    /// The active key-encryption key of a partition, without a lock.
    async fn active_kek(&mut self, partition: &str) -> Result<Option<KekRecord>>;

    /// The row of a key-encryption key, without a lock.
    async fn kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>>;

    /// The row of a key-encryption key, locked until the transaction ends: this waits for those who have inserted a
    /// data key under it, and keeps out those who are about to.
    async fn lock_kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>>;

    /// Inserts a key-encryption key as the active one of its partition, unless that has one. Was it inserted?
    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool>;

    /// Changes the state of a key-encryption key that is in the state `from`. Was it?
    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool>;

    /// Exchanges how a key-encryption key is wrapped, and by which provider and when, if it is wrapped as in `old`. Was
    /// it?
    async fn change_kek_wrapping(
        &mut self,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool>;

    /// How many live data keys a key-encryption key wraps.
    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64>;

    /// The live data keys that one of these key-encryption keys wraps, in ascending order of id, from the first after
    /// `after` on, at most `limit`. They are locked until the transaction ends, and those that others hold are left
    /// out. The state of their scopes is not looked at: [`scope_state`](DataKeyRecord::scope_state) may be any.
    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>>;

    /// Exchanges how data keys are wrapped, each only if it is live and its row still is what it was when it was read,
    /// and none if `to` was retired. Returns the rows that were written, as the table has them now, in any order.
    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>>;

    /// Inserts a scope with its first key, which is the active one, unless the scope is there. Was it inserted? Of two
    /// transactions that do it at once, one waits for the other.
    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool>;

    /// The row of a scope, without a lock.
    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>>;
}

/// A data key that is to be wrapped anew.
#[derive(Clone, Debug)]
pub struct KeyRewrap {
    /// The row as it was read.
    pub key: DataKeyRecord,
    /// How it is to be wrapped.
    pub new: KeyWrapping,
}

/// How a data key is wrapped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyWrapping {
    /// The key.
    pub key_id: KeyId,
    /// The wrapped key.
    pub wrapped_key: Vec<u8>,
}

/// Leaves the wrapped key out.
impl fmt::Debug for KeyWrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyWrapping").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<K: KeyTable + ?Sized> KeyTable for Arc<K> {
    async fn in_transaction(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()> {
        (**self).in_transaction(connection, operation, work).await
    }

    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>> {
        (**self).kek_usage(tx).await
    }

    async fn scopes_with_ids(&self, tx: &mut Self::Tx, ids: &[String]) -> Result<Vec<KeyScope>> {
        (**self).scopes_with_ids(tx, ids).await
    }

    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes> {
        (**self).restored_scopes(tx, limit).await
    }
}
