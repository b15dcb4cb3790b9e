//! [`MemoryStore`]: the events of a [`MemoryDb`](crate::memory::MemoryDb).

mod rows;
mod seal_index;

pub(crate) use seal_index::Seals;

use crate::error::{Error, Result};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent,
    PersistedEvent, Stream, VersionRange, check_append,
};
use crate::memory::{MemoryTx, Tables};
use crate::store::EventStore;
use async_trait::async_trait;
use std::sync::Arc;

/// An event store in a [`MemoryDb`](crate::memory::MemoryDb).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MemoryStore {
    index_seals: bool,
}

impl MemoryStore {
    /// Makes the store. It has no state of its own: the events are in the database that the transaction belongs to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends keep the [index of seals](crate::store::SealIndex). The first of them makes it, if the database has
    /// none.
    #[must_use]
    pub const fn index_seals(mut self) -> Self {
        self.index_seals = true;
        self
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    type Tx = MemoryTx;

    async fn append(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        check_append(aggregate, events)?;
        tx.lock()?;
        let tables = tx.read()?;
        let current = tables
            .streams
            .get(aggregate)
            .and_then(|stream| tables.events.get(*stream.last()?))
            .map(|last| last.aggregate_version);
        if !expected.accepts(current) {
            return Err(Error::VersionConflict { aggregate: aggregate.clone(), expected, actual: current });
        }
        if let Some(known) = events.iter().find(|event| tables.event_ids.contains(&event.event_id)) {
            return Err(Error::DuplicateEventId { event_id: known.event_id });
        }
        drop(tables);
        let tables = tx.write()?;
        let mut version = current.map_or(AggregateVersion::FIRST, AggregateVersion::next);
        let mut appended = Vec::with_capacity(events.len());
        for event in events {
            let position = last_position(&tables.events).get().saturating_add(1).try_into()?;
            let event = PersistedEvent::from_new(aggregate.clone(), version, position, event.clone());
            version = version.next();
            push(tables, event.clone());
            appended.push(event);
        }
        if self.index_seals {
            let seals = tables.seals.get_or_insert_with(Seals::new);
            for (event, appended) in events.iter().zip(&appended) {
                seals.add(appended.global_position, event.sealed_under());
            }
        }
        Ok(Appended { events: appended })
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let tables = tx.read()?;
        let stream = tables.streams.get(aggregate).map_or(&[][..], Vec::as_slice);
        let events: Vec<PersistedEvent> = stream
            .iter()
            .map(|index| &tables.events[*index])
            .filter(|event| range.contains(event.aggregate_version.get()))
            .map(|event| PersistedEvent::clone(event))
            .collect();
        let last_version = events.last().map(|event| event.aggregate_version);
        Ok(Stream { aggregate: aggregate.clone(), events, last_version })
    }

    async fn read_events(
        &self,
        tx: &mut MemoryTx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let tables = tx.read()?;
        let events: Vec<PersistedEvent> = from(&tables.events, after)
            .iter()
            .filter(|event| filter.matches(event.aggregate.aggregate_type(), event.stored_type.as_str()))
            .take(usize::try_from(limit).unwrap_or(usize::MAX))
            .map(|event| PersistedEvent::clone(event))
            .collect();
        let next = events.last().map_or(after, |event| event.global_position);
        let scanned = u32::try_from(events.len()).unwrap_or(limit);
        Ok(EventPage { events, scanned, next })
    }

    async fn latest_global_position(&self, tx: &mut MemoryTx) -> Result<GlobalPosition> {
        Ok(last_position(&tx.read()?.events))
    }
}

/// The events after a position. Positions ascend. There are gaps if events were inserted at given positions.
fn from(events: &[Arc<PersistedEvent>], after: GlobalPosition) -> &[Arc<PersistedEvent>] {
    &events[events.partition_point(|event| event.global_position <= after)..]
}

fn last_position(events: &[Arc<PersistedEvent>]) -> GlobalPosition {
    events.last().map_or(GlobalPosition::START, |event| event.global_position)
}

fn push(tables: &mut Tables, event: PersistedEvent) {
    tables.event_ids.insert(event.event_id);
    tables.streams.entry(event.aggregate.clone()).or_default().push(tables.events.len());
    tables.events.push(Arc::new(event));
}
