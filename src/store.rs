//! The port to the rows of an event table, for maintenance, and the checks that every store makes. For implementers of
//! stores.
//!
//! [`EventStore`] is the port that appends and reads; [`EventTable`] is the port for census, backfill and
//! rewrite, and [`SealIndex`] the one to an index of seals beside the table. [`BesideKeys`] is what a store may do
//! besides if its events are in the database of the keys. [`SnapshotStore`] is the port to
//! [snapshots](crate::snapshots).

pub(crate) mod beside_keys;
pub(crate) mod event_store;
pub(crate) mod event_table;
pub(crate) mod ext;
mod paging;
pub(crate) mod seal_index;
pub(crate) mod snapshot_store;

pub use crate::event::check_append;
pub use beside_keys::BesideKeys;
pub(crate) use event_store::EventStore;
pub(crate) use event_table::check_apart;
pub use event_table::{
    EventTable, MetadataReplacement, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableLocation,
    TableWork, holds_header, starts_with_header,
};
pub use seal_index::{IndexedSeal, SealIndex, SealIndexState, UNREADABLE_SEAL};
pub use snapshot_store::{SnapshotStore, StoredSnapshot};
