//! The port to an index of seals, which leads from a key to the events that it seals.

use crate::error::Result;
use crate::event::{GlobalPosition, PersistedEvent};
use crate::keys::names::KeyId;
use crate::store::event_table::{PositionRange, StoredQuery};
use async_trait::async_trait;
use uuid::Uuid;

/// An index of seals beside a table of events: a row names a key, and the position of an event that is sealed under it.
/// With it, a [search](crate::maintenance::EventsOf) for the events of a scope costs what that scope's events cost, and
/// not what the log costs. [`EventTable::seal_index`](crate::store::EventTable::seal_index) gives it out.
///
/// # Who keeps it
/// All rows of an event are written in one statement, so an event that has a row has all of them.
/// - Appends write the rows of their events if the store is configured to keep the index.
/// - [`backfill`](crate::SealedStore::backfill) and [`rewrite`](crate::SealedStore::rewrite) write them wherever an
///   index was made.
/// - [`index_seals`](crate::maintenance::index_seals) writes those of all other events, and moves the mark.
///
/// # What is relied on
/// Up to its [mark](SealIndexState::complete_up_to), every event that has a header has its rows, and no event will
/// appear there later. Behind the mark, a search reads each event itself that has no row: it has no header, or was
/// written by somebody who does not keep the index. A row is never taken as proof: an event is found if its header
/// names the key.
///
/// `conformance::event_table` (feature `conformance`) checks an implementation against this contract.
///
/// # Errors
/// Those of [`EventTable`](crate::store::EventTable).
#[async_trait]
pub trait SealIndex: Send + Sync {
    /// A connection: see [`EventTable::Tx`](crate::store::EventTable::Tx).
    type Tx: Send + 'static;

    /// The state of the index; `None` if it was not made. The connection need not be in a transaction.
    async fn state(&self, connection: &mut Self::Tx) -> Result<Option<SealIndexState>>;

    /// Makes the index if there is none: empty, and complete up to the start. The connection must not be in a
    /// transaction.
    async fn make(&self, connection: &mut Self::Tx) -> Result<()>;

    /// Takes all rows out that are visible, moves the mark to the start, and draws another id. In a transaction.
    async fn empty(&self, tx: &mut Self::Tx) -> Result<()>;

    /// Adds rows, and leaves those that exist. Does nothing if the index was not made. Rows are inserted in ascending
    /// order, so that two such calls don't wait for each other in a circle. In a transaction.
    async fn add(&self, tx: &mut Self::Tx, seals: &[IndexedSeal]) -> Result<()>;

    /// Moves the mark forward, and notes the event at its position. Returns `false` and does nothing if the index has
    /// another id, or if the mark is beyond. In a transaction.
    async fn complete(&self, tx: &mut Self::Tx, id: Uuid, up_to: GlobalPosition, last_event: Uuid) -> Result<bool>;

    /// The positions in the rows of these keys, each once, in ascending order: the first `limit` of them, or all if
    /// there are fewer.
    async fn positions(
        &self,
        tx: &mut Self::Tx,
        keys: &[KeyId],
        range: PositionRange,
        limit: u32,
    ) -> Result<Vec<GlobalPosition>>;

    /// As [`stored_events`](crate::store::EventTable::stored_events), but without the events that have a row. Of a
    /// query, only the range, the limit and the sizes count.
    async fn events_without(&self, tx: &mut Self::Tx, query: &StoredQuery) -> Result<Vec<PersistedEvent>>;
}

/// The state of an [index of seals](SealIndex).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealIndexState {
    /// Drawn when the index was made or emptied. Two looks that see the same id see the same index.
    pub id: Uuid,
    /// The mark: the position up to which the index is complete. [`GlobalPosition::START`] for an index that is new or
    /// was emptied.
    pub complete_up_to: GlobalPosition,
    /// The id of the event at that position; `None` at the start. If the table has another event there, the index does
    /// not belong to these events: one was restored without the other.
    pub last_event: Option<Uuid>,
}

/// The rows of one event in an [index of seals](SealIndex).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedSeal {
    /// The event's position.
    pub position: GlobalPosition,
    /// The keys that its header names, or [`UNREADABLE_SEAL`] alone.
    pub keys: Vec<KeyId>,
}

/// What stands in an [index of seals](SealIndex) for the keys of an event whose header can't be read. It is not the id
/// of any key, because those are random. Every search reads these events and reports them.
pub const UNREADABLE_SEAL: KeyId = KeyId(Uuid::nil());
