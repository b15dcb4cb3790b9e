//! What an event store may do in one statement if its events are beside the key table, in one database.

use crate::error::Result;
use crate::event::{AggregateRef, Appended, ExpectedVersion, NewEvent, Stream, VersionRange};
use crate::keys::names::KeyId;
use crate::keys::{DataKeyRecord, KeyTableNames};
use async_trait::async_trait;
use std::sync::Arc;

/// An event store that can read and lock rows of the key table in its own statements, because both are in one database.
/// [`EventStore::beside_keys`](crate::EventStore::beside_keys) gives it out.
///
/// A [`SealedStore`](crate::SealedStore) needs two statements for an append: one locks the scopes and reads their keys,
/// and one appends. It needs two for a read as well. With this, it needs one whenever it knows the keys before. It
/// seals under the keys that it has cached, and the statement that appends the events compares them with the rows. What
/// may be appended and read stays the same.
///
/// No store has to implement this. Without it, the other ports do the same in two statements.
///
/// `conformance::beside_keys` (feature `conformance`) checks an implementation against this contract.
#[async_trait]
pub trait BesideKeys: Send + Sync {
    /// A connection: see [`EventStore::Tx`](crate::EventStore::Tx).
    type Tx: Send + 'static;

    /// Appends events, as [`EventStore::append`](crate::EventStore::append) does, if each of these keys is still the
    /// active key of its scope. Otherwise this returns `None`, and has written nothing.
    ///
    /// `active` has one row for each scope, in ascending order of scope. One of them is that of the
    /// [integrity key](crate::KeyScope::integrity).
    ///
    /// # What the statement must do
    /// - It locks the rows of the scopes, in the order given, so that another transaction that wants to change one of
    ///   them waits until this transaction ends. It does not lock the scope of the integrity key: every append reads
    ///   it.
    /// - It waits for a transaction that holds such a row. Then it compares the row that this transaction left.
    /// - It compares: the scope is live and not withheld, its active key is this one, no key of the scope has a higher
    ///   version, and the row of the key has the same scope, version, key-encryption key and wrapped key, and no time
    ///   of destruction. A row that is missing is a difference.
    /// - It inserts nothing if anything differs. It compares before it looks at the aggregate's version.
    ///
    /// # Errors
    /// Those of [`EventStore::append`](crate::EventStore::append), if the keys are the active ones.
    async fn append_under(
        &self,
        tx: &mut Self::Tx,
        keys: &KeyTableNames,
        active: &[Arc<DataKeyRecord>],
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Option<Appended>>;

    /// Reads a stream, as [`EventStore::read_aggregate_stream`](crate::EventStore::read_aggregate_stream) does, and the
    /// rows of data keys, as [`KeyStore::data_keys`](crate::keys::KeyStore::data_keys) does. Both are of the same
    /// state of the database.
    ///
    /// # Errors
    /// Those of the two methods.
    async fn read_stream_and_keys(
        &self,
        tx: &mut Self::Tx,
        keys: &KeyTableNames,
        key_ids: &[KeyId],
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<(Stream, Vec<DataKeyRecord>)>;
}
