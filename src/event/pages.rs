//! What stores hand back.

use crate::error::Error;
use crate::event::{AggregateRef, AggregateVersion, ExpectedVersion, GlobalPosition, PersistedEvent};
use uuid::Uuid;

/// What an append did: the events as the caller passed them, with what the store assigned.
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
    /// Whose history.
    pub aggregate: AggregateRef,
    /// The events, after upcasting: one stored event may appear as several, or as none.
    pub events: Vec<PersistedEvent>,
    /// The version of the last *stored* event in the range; `None` if there is none.
    pub last_version: Option<AggregateVersion>,
}

impl Stream {
    /// What to expect when appending to this aggregate next, if the whole stream was read.
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
    /// Where to go on: the position of the last stored event scanned, or `after` if there was none.
    pub next: GlobalPosition,
}

/// One page of the store's log, whose events were opened one by one.
#[derive(Debug)]
pub struct OpenedPage {
    /// What became of each stored event that was scanned: the events it was upcast to (mostly one, or none), or
    /// why it can't be read.
    pub events: Vec<Result<Vec<PersistedEvent>, Box<Unreadable>>>,
    /// As in [`EventPage`].
    pub scanned: u32,
    /// As in [`EventPage`].
    pub next: GlobalPosition,
}

/// A stored event that can't be read: where it is, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{aggregate} version {aggregate_version} (event {event_id}, position {global_position}) can't be read")]
#[non_exhaustive]
pub struct Unreadable {
    /// Whose event.
    pub aggregate: AggregateRef,
    /// Its version.
    pub aggregate_version: AggregateVersion,
    /// Its position.
    pub global_position: GlobalPosition,
    /// Its id.
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
    /// Only of these event types: of a plain store as they are stored, of a [`SealedStore`](crate::SealedStore) as
    /// readers see them.
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
