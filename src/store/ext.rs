//! Conveniences on top of the port that appends and reads events.

use crate::consumer::{Consumer, run_consumers};
use crate::error::Result;
use crate::event::{AggregateRef, Appended, ExpectedVersion, NewEvent, Stream};
use crate::store::EventStore;
use async_trait::async_trait;

/// Conveniences that most code calls on an [`EventStore`]. Implemented for every event store.
#[async_trait]
pub trait EventStoreExt: EventStore {
    /// Reads an aggregate's whole stream.
    ///
    /// # Errors
    /// Those of [`EventStore::read_aggregate_stream`].
    async fn read_stream(&self, tx: &mut Self::Tx, aggregate: &AggregateRef) -> Result<Stream> {
        self.read_aggregate_stream(tx, aggregate, (..).into()).await
    }

    /// Appends events and hands them to inline consumers in the same transaction: the consumers' writes are committed
    /// or rolled back with the events.
    ///
    /// # Errors
    /// Those of [`EventStore::append`]; [`Error::Consumer`](crate::Error::Consumer) if a consumer fails. The events are
    /// written then, so the caller must roll back. The caller must roll back too if the future is dropped before it is
    /// done, because consumers may have handled some events and not others.
    async fn append_and_consume(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
        consumers: &[&dyn Consumer<Self::Tx>],
    ) -> Result<Appended> {
        let appended = self.append(tx, aggregate, expected, events).await?;
        run_consumers(tx, &appended.events, consumers).await?;
        Ok(appended)
    }
}

impl<S: EventStore + ?Sized> EventStoreExt for S {}
