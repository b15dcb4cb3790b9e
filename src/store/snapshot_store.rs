//! The port to a store of snapshots. For implementers of stores.

use crate::error::Result;
use crate::event::{AggregateRef, AggregateVersion};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// A sealed snapshot as it is stored: see [`SnapshotStore`].
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// The aggregate.
    pub aggregate: AggregateRef,
    /// The name of the state: 1 to 255 bytes.
    pub state: String,
    /// The version of the last event that was folded.
    pub version: AggregateVersion,
    /// The id of that event.
    pub last_event: Uuid,
    /// Stands for the code that folded the events.
    pub fingerprint: [u8; 32],
    /// The sealed state.
    pub sealed: Vec<u8>,
    /// When it was made, in microseconds.
    pub created_at: OffsetDateTime,
}

/// Shows where it belongs, and no contents.
impl fmt::Debug for StoredSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSnapshot")
            .field("aggregate", &self.aggregate)
            .field("state", &self.state)
            .field("version", &self.version.get())
            .field("sealed", &format_args!("{} bytes", self.sealed.len()))
            .finish_non_exhaustive()
    }
}

/// A store of snapshots: for each aggregate and each name of a state, the newest one.
///
/// It keeps bytes. [`SealedSnapshots`](crate::snapshots::SealedSnapshots) seals them, and discards what does not open.
/// So an implementation checks nothing of what it reads, and may lose snapshots at any time.
///
/// The caller owns the transaction: an implementation never begins, commits or rolls back one.
///
/// # Errors
/// Every method fails with [`Error::Database`](crate::Error::Database) if the database does, with the retryable
/// [`Error::Collision`](crate::Error::Collision) if another transaction is in the way, and with
/// [`SetUpFault::NoSnapshotTable`](crate::error::SetUpFault::NoSnapshotTable) if the table was not made. Those that
/// write refuse a connection that is not in a transaction with
/// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
///
/// `conformance::snapshot_store` (feature `conformance`) checks an implementation against all of this.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// A connection in a transaction, as the event store on the same database has it.
    type Tx: Send + 'static;

    /// Keeps a snapshot in place of the one of this aggregate and state, unless that one is of a newer version. Returns
    /// whether it is kept.
    async fn save(&self, tx: &mut Self::Tx, snapshot: &StoredSnapshot) -> Result<bool>;

    /// The snapshot of this aggregate and state; `None` if there is none.
    async fn load(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: &str) -> Result<Option<StoredSnapshot>>;

    /// Deletes the snapshots of an aggregate, of this state or of all. Returns how many there were.
    async fn delete(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64>;
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: SnapshotStore + ?Sized> SnapshotStore for Arc<S> {
    type Tx = S::Tx;

    async fn save(&self, tx: &mut Self::Tx, snapshot: &StoredSnapshot) -> Result<bool> {
        (**self).save(tx, snapshot).await
    }

    async fn load(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: &str) -> Result<Option<StoredSnapshot>> {
        (**self).load(tx, aggregate, state).await
    }

    async fn delete(&self, tx: &mut Self::Tx, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64> {
        (**self).delete(tx, aggregate, state).await
    }
}
