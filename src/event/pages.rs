//! The results of appends and reads, and the filter of a read.

use crate::error::{Error, InputFault};
use crate::event::{AggregateRef, AggregateVersion, ExpectedVersion, GlobalPosition, PersistedEvent};
use std::num::NonZeroU32;
use uuid::Uuid;

/// The result of an append: the events as the caller passed them, with the versions and positions that the store
/// assigned.
///
/// Never empty, and in the order in which they were passed.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The events.
    pub events: Vec<PersistedEvent>,
}

impl Appended {
    /// The aggregate's version after the append: the next [`ExpectedVersion::Exact`].
    #[must_use]
    pub fn last_version(&self) -> AggregateVersion {
        self.events.last().map_or(AggregateVersion::FIRST, |event| event.aggregate_version)
    }

    /// The position of the last event.
    #[must_use]
    pub fn last_position(&self) -> GlobalPosition {
        self.events.last().map_or(GlobalPosition::START, |event| event.global_position)
    }
}

/// A part of one aggregate's history, in order of version.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The aggregate.
    pub aggregate: AggregateRef,
    /// The events, after upcasting: one stored event may appear as several, or as none.
    pub events: Vec<PersistedEvent>,
    /// The version of the last *stored* event in the range; `None` if there is none.
    pub last_version: Option<AggregateVersion>,
}

impl Stream {
    /// The expected version for the next append to this aggregate, if the whole stream was read.
    #[must_use]
    pub fn expected_version(&self) -> ExpectedVersion {
        self.last_version.map_or(ExpectedVersion::NoStream, ExpectedVersion::Exact)
    }
}

impl<'a> IntoIterator for &'a Stream {
    type Item = &'a PersistedEvent;
    type IntoIter = std::slice::Iter<'a, PersistedEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.iter()
    }
}

impl IntoIterator for Stream {
    type Item = PersistedEvent;
    type IntoIter = std::vec::IntoIter<PersistedEvent>;

    fn into_iter(self) -> Self::IntoIter {
        self.events.into_iter()
    }
}

/// One page of the store's log.
#[derive(Clone, Debug)]
pub struct EventPage {
    /// The events, after upcasting: fewer or more than were scanned.
    pub events: Vec<PersistedEvent>,
    /// How many *stored* events matched. Fewer than the limit means that the end was reached.
    pub scanned: u32,
    /// The position to pass as `after` for the next page: that of the last stored event that was scanned, or this
    /// page's `after` if none was.
    pub next: GlobalPosition,
}

/// How many stored events are read at once where events are read page by page: 500 by default.
///
/// ```
/// # use eventseal::{PageSize, Result};
/// # fn main() -> Result<()> {
/// let small = PageSize::try_from(50)?;
/// assert_eq!((small.get(), PageSize::default().get()), (50, 500));
/// assert!(PageSize::try_from(0).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageSize(NonZeroU32);

impl PageSize {
    const DEFAULT: Self = Self(NonZeroU32::new(500).unwrap());

    /// The number of stored events, 1 or more.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl TryFrom<u32> for PageSize {
    type Error = Error;

    fn try_from(events: u32) -> Result<Self, Error> {
        NonZeroU32::new(events).map(Self).ok_or(Error::Input(InputFault::OutOfRange {
            what: "page size",
            value: events.into(),
            hint: "a page has 1 event or more",
        }))
    }
}

/// One page of the store's log, whose events were opened one by one.
#[derive(Debug)]
pub struct OpenedPage {
    /// One result for each stored event that was scanned: the events that it was upcast to (one for most, none if it
    /// was dropped), or the reason why it can't be read.
    pub events: Vec<Result<Vec<PersistedEvent>, Box<Unreadable>>>,
    /// See [`EventPage`].
    pub scanned: u32,
    /// See [`EventPage`].
    pub next: GlobalPosition,
}

/// A stored event that can't be read: where it is, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{aggregate} version {aggregate_version} (event {event_id}, position {global_position}) can't be read")]
#[non_exhaustive]
pub struct Unreadable {
    /// The event's aggregate.
    pub aggregate: AggregateRef,
    /// The event's version in its aggregate.
    pub aggregate_version: AggregateVersion,
    /// The event's position.
    pub global_position: GlobalPosition,
    /// The event's id.
    pub event_id: Uuid,
    /// Why.
    #[source]
    pub error: Error,
}

/// Which events of the log are wanted. Empty lists mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only of these aggregate types.
    pub aggregate_types: Vec<String>,
    /// Only of these event types. A plain store compares the stored types; a [`SealedStore`](crate::SealedStore)
    /// compares the types that readers see after upcasting.
    pub event_types: Vec<String>,
}

impl EventFilter {
    /// Does an event of this aggregate type and stored event type match?
    #[must_use]
    pub fn matches(&self, aggregate_type: &str, event_type: &str) -> bool {
        let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|wanted| wanted == name);
        wanted(&self.aggregate_types, aggregate_type) && wanted(&self.event_types, event_type)
    }
}
