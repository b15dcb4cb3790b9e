//! Maintenance of a store as a whole, beside the application: a census counts events, a search finds the events of a
//! scope, a backfill seals events that were stored in the clear, a rewrite copies a store.
//!
//! Maintenance works on the rows of a store through [`EventTable`](crate::store::EventTable), never through
//! [`EventStore`](crate::EventStore). It needs keys only to seal and to open.

mod backfill;
mod census;
mod events_of;
mod index_seals;
mod look;
mod pace;
mod rewrite;
mod written;

pub use backfill::{BackfillOptions, BackfillProgress, Backfilled, Skipped};
pub use census::{Answer, Census, CensusOptions, CensusProgress, CensusRow, Protection, Registration};
pub(crate) use events_of::OtherKeys;
pub use events_of::{EventOf, EventsOf, EventsOfOptions, EventsOfPage, EventsOfProgress, PlaceOf};
pub use index_seals::{IndexSealsOptions, IndexSealsProgress, SealsIndexed, index_seals};
pub(crate) use look::{Look, look_at_both, read_as};
pub(crate) use pace::PAGE_BYTES;
pub use rewrite::{Kept, KeptBecause, RewriteOptions, RewriteProgress, Rewritten};
