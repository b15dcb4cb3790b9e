//! Consumers: code that is shown events, one at a time.

pub use crate::event::{OpenedPage, Unreadable};

use crate::error::{BoxError, Error, Result, StepError};
use crate::event::PersistedEvent;
use async_trait::async_trait;

/// Something that handles events: a read model, a publisher, a process manager.
///
/// Follows the contract of eventsalsa/store 0.0.2. `Tx` is the transaction in which the events are
/// handled: what a consumer writes through it is committed together with the events (inline) or with the
/// checkpoint (a follower of the log). A consumer never commits or rolls back.
///
/// Deliveries can repeat. All parts of a stored event are handled in one transaction, and
/// `(aggregate_version, part.index)` tells whether an event of an aggregate was handled before.
#[async_trait]
pub trait Consumer<Tx: Send>: Send + Sync {
    /// A unique and lasting name, such as `order_overview_v1`: checkpoints are kept under it.
    fn name(&self) -> &str;

    /// Only events of these aggregate types are handled. `None`, the default, means all.
    fn aggregate_types(&self) -> Option<&[&str]> {
        None
    }

    /// Only events of these types are handled, as readers see them: after upcasting. `None`, the default, means all.
    ///
    /// A follower of the log passes the same names to [`EventFilter`](crate::EventFilter), which finds events that are
    /// stored under another name too.
    fn event_types(&self) -> Option<&[&str]> {
        None
    }

    /// Handles one event.
    ///
    /// # Errors
    /// Any error stops the processing: the caller rolls the transaction back.
    async fn handle(&self, tx: &mut Tx, event: &PersistedEvent) -> Result<(), BoxError>;
}

/// Shows events to consumers: event by event, each to the consumers in the order given.
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
                    source: StepError(source),
                })?;
            }
        }
    }
    Ok(())
}
