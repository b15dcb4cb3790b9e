//! What is done to a store as a whole, beside the application: counted, sealed after the fact, copied.
//!
//! Works on the rows of a store through [`EventTable`](crate::store::EventTable), never through
//! [`EventStore`](crate::EventStore), and needs the keys only where something is sealed or opened.

mod backfill;
mod census;
mod look;
mod pace;
mod rewrite;

pub use backfill::{BackfillOptions, BackfillProgress, Backfilled, Skipped};
pub use census::{Answer, Census, CensusOptions, CensusProgress, CensusRow, Protection, Registration};
pub use rewrite::{Kept, KeptBecause, RewriteOptions, RewriteProgress, Rewritten};
