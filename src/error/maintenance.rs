//! What stops a backfill, a rewrite or the job that fills the index of seals.

use crate::error::{ErrorKind, StepError};
use crate::event::{GlobalPosition, Unreadable};
use uuid::Uuid;

/// What stops a backfill, a rewrite or [`index_seals`](crate::maintenance::index_seals): see
/// [`Error::Maintenance`](crate::Error::Maintenance). Batches that were committed before it remain.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceFault {
    /// Maintenance met an event that can't be read, and can't go on. The [`Unreadable`] says which event, why, and what
    /// to do.
    #[error(transparent)]
    Unreadable(Box<Unreadable>),
    /// The target of a rewrite holds events that are not those of the source: rewrite into an empty store.
    #[error(
        "at position {position}, the target holds another event than the source, or the source none: rewrite into an \
         empty store, or go on with the one that an earlier call began"
    )]
    ForeignTarget {
        /// The last position of the target.
        position: GlobalPosition,
    },
    /// Source and target are the same table: a store can't be rewritten into itself.
    #[error("source and target are the same table of events: rewrite into other tables, or into another database")]
    TargetIsSource,
    /// The target of a rewrite is in a file that the lock on the source locks as well, so nothing can be written to it.
    #[error(
        "source and target are in the same SQLite file, in which only one connection can write (or one connection has \
         the other's file attached, or both are in memory, where that can't be told): rewrite into another file"
    )]
    TargetInSameFile,
    /// The target of a rewrite has more or fewer events than the source.
    #[error(
        "up to position {up_to}, the target holds {copied} events and the source {events}: somebody else wrote to the \
         target; rewrite into an empty store"
    )]
    IncompleteTarget {
        /// Up to where events were counted.
        up_to: GlobalPosition,
        /// How many the source has.
        events: u64,
        /// How many the target has.
        copied: u64,
    },
    /// Maintenance wrote an event and read it back, and it does not open to what it was made of. Nothing of the batch
    /// was committed.
    #[error(
        "event {event_id}: what was written does not open to what it was made of ({problem}): nothing of the batch \
         was committed; run the store through the conformance suite"
    )]
    NotVerified {
        /// The event.
        event_id: Uuid,
        /// What differs.
        problem: &'static str,
    },
    /// This kind of table can't have an index of seals. Searches work without one: they read all events.
    #[error("this kind of event table can't have an index of seals: search without one, which reads all events")]
    NoSealIndex,
    /// The index of seals is not that of these events: at the position of its mark, the table has another event than
    /// the index notes, or none. Searches do not use such an index.
    #[error(
        "the index of seals does not belong to these events: at position {position}, it knows another one; one of them \
         was restored without the other, or the event was removed; build the index anew"
    )]
    ForeignSealIndex {
        /// The position of the mark.
        position: GlobalPosition,
    },
    /// The sink of an [export](crate::SealedStore::export) failed: the export is cut off there.
    #[error("what was exported could not be written, so the export is not complete: export again")]
    Sink(#[source] StepError),
}

impl MaintenanceFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreadable(unreadable) => unreadable.error.kind(),
            Self::ForeignTarget { .. }
            | Self::TargetIsSource
            | Self::TargetInSameFile
            | Self::IncompleteTarget { .. }
            | Self::NotVerified { .. }
            | Self::NoSealIndex
            | Self::ForeignSealIndex { .. } => ErrorKind::Misuse,
            Self::Sink(_) => ErrorKind::Application,
        }
    }
}
