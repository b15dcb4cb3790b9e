//! The port to a table of the entries of blind indexes.

use crate::error::Result;
use crate::keys::names::{KeyId, KeyScope};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

/// A table of the entries of blind indexes. One table holds the entries of any number of indexes.
///
/// # What an implementation does
/// It reads and writes rows in the caller's transaction, and returns what it found. It decides nothing. An entry has a
/// *place*, which holds one entry. The place of a [`unique`](BlindEntry::unique) entry is its index, key and hash. That
/// of another one is these and its scope. [`find`](Self::find) is one look into a database index for each hash, and
/// [`drop_scope`](Self::drop_scope) one for the scope.
///
/// # Uniqueness
/// Two transactions may add unique entries at one place at the same time. Only one of them may commit. The other one
/// waits and then finds the entry of the first, or fails with the retryable
/// [`Error::Collision`](crate::Error::Collision).
///
/// # Effect
/// A method that changes rows reads afterwards whether they are as they should be, and fails with
/// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect) if not. For [`add`](Self::add), the caller does.
///
/// # Errors
/// Every method fails with [`Error::Database`](crate::Error::Database) if the database does, and with
/// [`SetUpFault::NoBlindIndex`](crate::error::SetUpFault::NoBlindIndex) if there is no table. Those that write refuse a
/// connection that is not in a transaction with
/// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
///
/// `conformance::blind_index_table` (feature `conformance`) checks an implementation against all of this.
#[async_trait]
pub trait BlindIndexTable: Send + Sync {
    /// A connection, as the key table on the same database has it.
    type Tx: Send + 'static;

    /// Adds the entries whose places are free, in ascending order. Returns the entries that are at these places
    /// afterwards, read after they were added.
    async fn add(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>>;

    /// The entries of an index that have one of these hashes: for each hash the first `limit`, in ascending order of
    /// scope.
    async fn find(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>>;

    /// Removes those of these entries that the table has. An entry of another scope or another generation stays, though
    /// it is at the same place. The generation is compared when the row is removed, not before: a transaction that has
    /// committed meanwhile may have put a newer entry there.
    async fn remove(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<()>;

    /// Removes all entries of a scope in an index, but for those with one of these hashes.
    async fn keep_only(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()>;

    /// Removes all entries of a scope, in every index, that are of an earlier generation than `before`; all of them if
    /// it is `None`. Returns how many there were.
    async fn drop_scope(&self, tx: &mut Self::Tx, scope: &KeyScope, before: Option<u32>) -> Result<u64>;

    /// The first `limit` scopes that have entries, each once, in ascending order of kind and then id, byte by byte, and
    /// after `after`.
    async fn scopes_after(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>>;

    /// An index and a scope that has more entries in it under one of the keys `older` than under the key `active`;
    /// `None` if there are none. The table may be read from end to end.
    async fn unfinished(&self, tx: &mut Self::Tx, active: KeyId, older: &[KeyId])
    -> Result<Option<(String, KeyScope)>>;

    /// Removes up to `limit` entries that are under one of these keys. Returns how many.
    async fn drop_keys(&self, tx: &mut Self::Tx, keys: &[KeyId], limit: u32) -> Result<u64>;
}

/// An entry of a blind index: a row of a [`BlindIndexTable`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlindEntry {
    /// The name of the index.
    pub index: Arc<str>,
    /// The key under which the value was hashed.
    pub key_id: KeyId,
    /// The hash, 4 to 32 bytes.
    pub hash: Vec<u8>,
    /// Whose value it is.
    pub scope: KeyScope,
    /// May no other scope have an entry of this index, key and hash?
    pub unique: bool,
    /// The generation of the scope when the entry was added. An entry of an earlier one was erased. It is not a part of
    /// the place.
    pub generation: u32,
}

/// Leaves the hash out.
impl fmt::Debug for BlindEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlindEntry")
            .field("index", &self.index)
            .field("key_id", &self.key_id)
            .field("scope", &self.scope)
            .field("unique", &self.unique)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: BlindIndexTable + ?Sized> BlindIndexTable for Arc<T> {
    type Tx = T::Tx;

    async fn add(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        (**self).add(tx, entries).await
    }

    async fn find(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        (**self).find(tx, index, hashes, limit).await
    }

    async fn remove(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<()> {
        (**self).remove(tx, entries).await
    }

    async fn keep_only(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        (**self).keep_only(tx, index, scope, hashes).await
    }

    async fn drop_scope(&self, tx: &mut Self::Tx, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        (**self).drop_scope(tx, scope, before).await
    }

    async fn scopes_after(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        (**self).scopes_after(tx, after, limit).await
    }

    async fn unfinished(
        &self,
        tx: &mut Self::Tx,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        (**self).unfinished(tx, active, older).await
    }

    async fn drop_keys(&self, tx: &mut Self::Tx, keys: &[KeyId], limit: u32) -> Result<u64> {
        (**self).drop_keys(tx, keys, limit).await
    }
}
