//! The port that appends and reads events.

use crate::error::Result;
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, Stream, VersionRange,
};
use crate::store::BesideKeys;
use async_trait::async_trait;
use std::sync::Arc;

/// An append-only store of events. Append and read follow [eventsalsa/store].
///
/// The caller owns the transaction: no method begins, commits or rolls back one, sets a savepoint or
/// changes an isolation level. `&mut tx` of a `sqlx::Transaction` coerces to the connection that the
/// methods take.
///
/// Payloads are bytes. A store returns them as they were appended, or refuses the append. There is one exception: a
/// store that prints JSON anew, as a column of type JSONB does, keeps the value only. It may change the order of
/// members, white space and the spelling of numbers, and keeps the last of members that come twice. Sealed values
/// survive that, because a seal is a string. The header may move to another place in the payload. Such a store refuses
/// payloads that are not JSON, and tells the conformance suite with `conformance::Database::respells_json`.
///
/// [`EventStoreExt`](crate::EventStoreExt) has conveniences on top of these four methods. So a decorator that
/// implements the four decorates everything. The fifth is optional, and not for decorators.
///
/// `conformance::event_store` (feature `conformance`) checks an implementation against this contract.
///
/// [eventsalsa/store]: https://github.com/eventsalsa/store
#[async_trait]
pub trait EventStore: Send + Sync {
    /// A connection in a transaction: `PgConnection`, `SqliteConnection`, [`MemoryTx`](crate::memory::MemoryTx), `()`.
    type Tx: Send + 'static;

    /// Appends events to one aggregate: all of them or, on an error, none.
    ///
    /// The store assigns consecutive aggregate versions, from 1 on and without gaps, and ascending global
    /// positions. The expected version is checked against the aggregate's last stored event:
    ///
    /// - [`ExpectedVersion::Any`]: not at all;
    /// - [`ExpectedVersion::NoStream`]: the aggregate must have no events;
    /// - [`ExpectedVersion::Exact`]: the last event must have this version.
    ///
    /// The events are visible to later statements of the same transaction, and to other transactions once the caller
    /// commits. The result holds the events as the caller passed them, in that order.
    ///
    /// # Errors
    /// Before anything is written: those of [`check_append`](crate::store::check_append);
    /// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
    /// [`Error::VersionConflict`](crate::Error::VersionConflict) if the aggregate is elsewhere,
    /// [`Error::DuplicateEventId`](crate::Error::DuplicateEventId) if the store has the event: nothing was written, and
    /// the caller's transaction can go on. [`Error::Collision`](crate::Error::Collision) if another transaction is in
    /// the way: roll back and try again. [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect) if the
    /// database took the events and did not store all of them. [`Error::Database`](crate::Error::Database) for all
    /// else: roll back.
    ///
    /// # Cancellation
    /// If the future is dropped before it is done, for instance by a time-out around it, the database may carry the
    /// statement out all the same. Afterwards, either all of the events are in the caller's transaction or none, and
    /// nothing says which. So roll back. A caller that commits instead stores whole appends only, and perhaps this one.
    /// (PostgreSQL, SQLite and memory keep to this. An implementation of several statements must, too.)
    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended>;

    /// Reads one aggregate's events in ascending order of version. Both bounds are inclusive.
    ///
    /// An aggregate without events, or a range without any, is an empty stream and not an error. The result holds all
    /// of the events. To read a long stream page by page, use
    /// [`aggregate_events`](crate::EventStoreExt::aggregate_events).
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database),
    /// [`StorageFault::InvalidRow`](crate::error::StorageFault::InvalidRow); of a decorator, its own.
    async fn read_aggregate_stream(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream>;

    /// Reads up to `limit` stored events that match `filter`, in ascending order of position, from the
    /// first after `after` on.
    ///
    /// `scanned < limit` means that the end was reached; an empty `events` does not, since upcasters may
    /// have dropped all of them. Go on from `next`. A `limit` of 0 scans nothing.
    /// [`log_events`](crate::EventStoreExt::log_events) and [`log_pages`](crate::EventStoreExt::log_pages) go on to the
    /// end of the log.
    ///
    /// **Positions of concurrent transactions.** Where positions come from a sequence (PostgreSQL), they
    /// are given out in the order of insertion, not of commit: a lower position may become visible after a
    /// higher one. A follower of the log must not pass a position that is still in flight. Stores with
    /// one writer at a time (memory, SQLite) have no such gaps.
    ///
    /// # Errors
    /// Those of [`read_aggregate_stream`](Self::read_aggregate_stream).
    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage>;

    /// The position of the last event visible to the transaction; [`GlobalPosition::START`] if there is none. It is not
    /// a safe position for a reader to go on from if positions may be in flight.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition>;

    /// This store, if it can check and read keys in its own statements. `None`, the default, is always right. What is
    /// done through this passes by [`append`](Self::append) and
    /// [`read_aggregate_stream`](Self::read_aggregate_stream), so a decorator that changes or counts events must not
    /// pass on what the inner store returns.
    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = Self::Tx>> {
        None
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: EventStore + ?Sized> EventStore for Arc<S> {
    type Tx = S::Tx;

    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        (**self).append(tx, aggregate, expected, events).await
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        (**self).read_aggregate_stream(tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        (**self).read_events(tx, after, limit, filter).await
    }

    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        (**self).latest_global_position(tx).await
    }

    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = Self::Tx>> {
        (**self).beside_keys()
    }
}
