//! The port to the rows of a key table that operators change: key-encryption keys, and the wrappings of data keys.

use crate::error::Result;
use crate::keys::kek::{KekRecord, KekState, KekUsage};
use crate::keys::key_store::KeyStore;
use crate::keys::listed::ListedScope;
use crate::keys::log_rows::{LogDisagreement, LogHead, LogRows, SealedEntry};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::restored::RestoredScopes;
use crate::keys::{DataKeyRecord, DueScope, NewDataKey, ScopeRecord};
use crate::kms::WrappedKek;
use crate::store::TableWork;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;

/// A key table, as operators need it: to create the first keys, to rotate, move and retire key-encryption keys, to wrap
/// data keys anew, and to examine the table as a whole. Applications append, read and shred through [`KeyStore`] alone.
///
/// # What an implementation does
/// It begins a transaction, hands its rows to the work, and commits. The rows are a type of its own: see [`KeyRows`].
/// The [`KeyManager`](crate::keys::KeyManager) decides, in the same way for every implementation, which key may be
/// replaced or retired, which rows must be read again before a commit, and what is refused.
///
/// ```
/// # use eventseal::{Error, Result};
/// # use eventseal::keys::{KeyRows, KeyWork};
/// # struct Connection;
/// # impl Connection { async fn begin(&mut self, _: &'static str) -> Result<Transaction> { Ok(Transaction) } }
/// # struct Transaction;
/// # impl Transaction { async fn commit(self) -> Result<()> { Ok(()) } }
/// # struct Rows<'t>(&'t mut Transaction);
/// # type Work<'w> = &'w mut dyn KeyWork;
/// # async fn in_transaction(connection: &mut Connection, operation: &'static str, work: Work<'_>) -> Result<()>
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
    /// Does some work in a transaction of its own, and commits it if the work succeeds. If the work fails, or if the
    /// future is dropped, nothing of it remains. The transaction may write from its start on. Each of its statements
    /// sees everything that was committed before the statement began.
    ///
    /// The commit is done when this returns, and outlasts a crash of the database, whatever its settings are. If a
    /// key-encryption key were used before it is committed, a rollback would lose data.
    ///
    /// A connection in a transaction is refused with
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), which names the `operation`.
    async fn in_transaction(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()>;

    /// As [`in_transaction`](Self::in_transaction), for work that needs the transaction itself: it calls methods of
    /// [`KeyStore`] and consumers of erasures.
    async fn transact(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn TableWork<Self::Tx>,
    ) -> Result<()>;

    /// All key-encryption keys, oldest first, with the number of live data keys that each wraps. This counts every live
    /// data key.
    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>>;

    /// The first `limit` scopes from `from` on, itself included, in ascending order of kind and then id, byte by byte,
    /// and without locks. `from` need not exist, and its kind and id may be empty. It begins with one look into the
    /// index, and must not read more scopes than it returns. Fewer than `limit` mean that there are no others.
    async fn scopes_from(&self, tx: &mut Self::Tx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>>;

    /// Finds scopes that have live keys although the last change in their history is a shred. Returns how many there
    /// are, and the first `limit` of them, at least one. The tables may be read from end to end.
    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes>;

    /// The first `limit` scopes that are due at this time or before it (at any time, if it is `None`), in their order
    /// and after `after`. An index finds them.
    async fn due_scopes(
        &self,
        tx: &mut Self::Tx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>>;

    /// The first `limit` scopes that were ever put on hold, in ascending order and after `after`. An index finds them.
    async fn held_scopes(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>>;
    /// The end of the chain of the shred log, without a lock.
    async fn log_head(&self, tx: &mut Self::Tx) -> Result<LogHead>;

    /// The entries of the shred log that the chain has, by ascending number, from the first after `after` on, at most
    /// `limit`. Whoever follows erasures reads them so, page by page: no entry ever gets a number below one that was
    /// seen. An entry whose row is missing is left out.
    async fn log_entries(&self, tx: &mut Self::Tx, after: u64, limit: u32) -> Result<Vec<SealedEntry>>;

    /// The first `limit` scopes, at least one, whose rows say something else than their entries in the shred log,
    /// ascending. The entries and the scopes may be read from end to end.
    async fn log_disagreements(&self, tx: &mut Self::Tx, limit: u32) -> Result<Vec<LogDisagreement>>;
}

/// Work that is done in a transaction: see [`KeyTable::in_transaction`].
///
/// An implementation of [`KeyTable`] may repeat a transaction that the database rolled back. So work keeps nothing of
/// an earlier run: the outcome is that of the last one.
#[async_trait]
pub trait KeyWork: Send {
    /// Does the work, from its beginning.
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()>;
}

/// The rows of a key table within a transaction of its own. They are read, locked and written.
///
/// Every method does one thing to rows, and returns the result. None of them decides whether it should be done. A
/// method that changes rows changes only rows that still are as the caller says, and returns which ones it changed.
#[async_trait]
pub trait KeyRows: LogRows {
    /// The active key-encryption key of a partition, without a lock.
    async fn active_kek(&mut self, partition: &str) -> Result<Option<KekRecord>>;

    /// The row of a key-encryption key, without a lock.
    async fn kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>>;

    /// The row of a key-encryption key, locked until the transaction ends: this waits for transactions that have
    /// inserted a data key under it, and keeps out those that are about to.
    async fn lock_kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>>;

    /// Inserts a key-encryption key as the active one of its partition, unless the partition has one. Returns whether
    /// it was inserted.
    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool>;

    /// Changes the state of a key-encryption key if it is in the state `from`. Returns whether it was changed.
    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool>;

    /// Replaces the wrapping of a key-encryption key, its provider and its time, if it is wrapped as in `old`. Returns
    /// whether it was replaced.
    async fn change_kek_wrapping(
        &mut self,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool>;

    /// The number of live data keys that a key-encryption key wraps.
    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64>;

    /// The live data keys that one of these key-encryption keys wraps, in ascending order of id, from the first after
    /// `after` on, at most `limit`. They are locked until the transaction ends. Rows that others hold are left out. The
    /// state of their scopes is not read: [`scope_state`](DataKeyRecord::scope_state) may have any value.
    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>>;

    /// Replaces the wrappings of data keys. A data key is changed only if it is live and its row has not changed since
    /// it was read. None is changed if `to` was retired. Returns the rows that were written, as the table has them now,
    /// in any order.
    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>>;

    /// Inserts a scope with its first key, which is the active one, unless the scope exists. Returns whether it was
    /// inserted. Of two transactions that do this at once, one waits for the other.
    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool>;

    /// The row of a scope, without a lock.
    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>>;
}

/// A data key that is to be wrapped anew.
#[derive(Clone, Debug)]
pub struct KeyRewrap {
    /// The row as it was read.
    pub key: DataKeyRecord,
    /// The new wrapping.
    pub new: KeyWrapping,
}

/// The wrapping of a data key.
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

    async fn transact(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn TableWork<Self::Tx>,
    ) -> Result<()> {
        (**self).transact(connection, operation, work).await
    }

    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>> {
        (**self).kek_usage(tx).await
    }

    async fn scopes_from(&self, tx: &mut Self::Tx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        (**self).scopes_from(tx, from, limit).await
    }

    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes> {
        (**self).restored_scopes(tx, limit).await
    }

    async fn due_scopes(
        &self,
        tx: &mut Self::Tx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        (**self).due_scopes(tx, by, after, limit).await
    }

    async fn held_scopes(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        (**self).held_scopes(tx, after, limit).await
    }

    async fn log_head(&self, tx: &mut Self::Tx) -> Result<LogHead> {
        (**self).log_head(tx).await
    }

    async fn log_entries(&self, tx: &mut Self::Tx, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        (**self).log_entries(tx, after, limit).await
    }

    async fn log_disagreements(&self, tx: &mut Self::Tx, limit: u32) -> Result<Vec<LogDisagreement>> {
        (**self).log_disagreements(tx, limit).await
    }
}
