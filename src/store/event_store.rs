//! The port that appends and reads events.

use crate::error::Result;
use crate::event::{
    AggregateRef, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent, Stream, VersionRange,
};
use async_trait::async_trait;
use std::sync::Arc;

/// An append-only store of events. Append and read follow [eventsalsa/store].
///
/// The caller owns the transaction: no method begins, commits or rolls back one, sets a savepoint or
/// changes an isolation level. `&mut tx` of a `sqlx::Transaction` coerces to the connection that the
/// methods take.
///
/// Payloads are bytes. They come back as they were appended, or the append is refused. A store that prints JSON anew,
/// as a column of type JSONB does, keeps the value only: members in another order, other white space, numbers spelled
/// otherwise, of members that come twice the last. Sealed values survive that, since a seal is a string. The header may
/// come to lie elsewhere in the payload. Such a store refuses what is no JSON, and tells the suite by
/// `conformance::Database::respells_json`.
///
/// Conveniences are in [`EventStoreExt`](crate::EventStoreExt), written on top of these four methods, so that a
/// decorator that implements the four decorates everything.
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
    /// What was appended is visible to later statements of the same transaction, and to others once the
    /// caller commits. The result holds the events as the caller passed them, in that order.
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
    /// When the future is dropped before it is done, as a time-out around it does, the database may carry the statement
    /// out all the same. Afterwards either all of the events are in the caller's transaction or none, and nothing says
    /// which; so roll back. Whoever goes on and commits stores whole appends only, and perhaps this one. (PostgreSQL,
    /// SQLite and memory keep to this; an implementation of several statements must, too.)
    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended>;

    /// Reads one aggregate's events in ascending order of version. Both bounds are inclusive.
    ///
    /// An aggregate without events, or a range without any, is an empty stream and not an error.
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
    ///
    /// **Positions of concurrent transactions.** Where positions come from a sequence (PostgreSQL), they
    /// are given out in the order of insertion, not of commit: a lower position may become visible after a
    /// higher one. A follower of the log must not pass a position that is still in flight. Stores with
    /// one writer at a time (memory, SQLite) have no such gaps.
    ///
    /// # Errors
    /// As [`read_aggregate_stream`](Self::read_aggregate_stream).
    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage>;

    /// The position of the last event visible to the transaction; [`GlobalPosition::START`] if there is
    /// none. Not a safe place to go on from where positions may be in flight.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition>;
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
}
