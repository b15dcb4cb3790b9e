//! Consumers: code that handles events one at a time, such as a projection.

pub use crate::event::{OpenedPage, Unreadable};

use crate::error::{BoxError, Error, Result, StepError};
use crate::event::PersistedEvent;
use async_trait::async_trait;

/// Handles events: a read model (projection), a publisher, a process manager.
///
/// The contract is that of consumers in eventsalsa/store 0.0.2. `Tx` is the transaction in which events are handled.
/// What a consumer writes through it is committed together with the events (inline), or with the checkpoint (a follower
/// of the log). A consumer must never commit or roll back.
///
/// An event may be delivered more than once. All parts of a stored event are handled in one transaction. To recognise
/// an event that was handled before, compare `(aggregate_version, part.index)` for its aggregate.
#[async_trait]
pub trait Consumer<Tx: Send>: Send + Sync {
    /// A unique name that never changes, such as `order_overview_v1`. Checkpoints are stored under it.
    fn name(&self) -> &str;

    /// Only events of these aggregate types are handled. `None`, the default, means all.
    fn aggregate_types(&self) -> Option<&[&str]> {
        None
    }

    /// Only events of these types are handled. `None`, the default, means all. The types are those that readers see,
    /// after upcasting.
    ///
    /// A follower of the log passes the same names to [`EventFilter`](crate::EventFilter). The filter also finds events
    /// that are stored under an older name of the type.
    fn event_types(&self) -> Option<&[&str]> {
        None
    }

    /// Handles one event.
    ///
    /// # Errors
    /// Any error stops the processing: the caller rolls the transaction back.
    async fn handle(&self, tx: &mut Tx, event: &PersistedEvent) -> Result<(), BoxError>;
}

/// Passes events to consumers. Each event goes to all consumers, in the given order, before the next event does.
///
/// # Errors
/// [`Error::Consumer`] names the consumer that failed and the event it failed at.
pub async fn run_consumers<Tx: Send>(
    tx: &mut Tx,
    events: &[PersistedEvent],
    consumers: &[&dyn Consumer<Tx>],
) -> Result<()> {
    for event in events {
        for consumer in consumers {
            let of_type =
                consumer.aggregate_types().is_none_or(|types| types.contains(&event.aggregate.aggregate_type()));
            if of_type && consumer.event_types().is_none_or(|types| types.contains(&event.event_type.as_str())) {
                consumer.handle(tx, event).await.map_err(|source| Error::Consumer {
                    consumer: consumer.name().to_owned(),
                    aggregate: event.aggregate.clone(),
                    version: event.aggregate_version,
                    source: StepError::new(source),
                })?;
            }
        }
    }
    Ok(())
}
