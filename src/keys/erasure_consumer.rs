//! The port to code that is called when something is decided about a scope.

use crate::error::BoxError;
use crate::keys::LogEntry;
use async_trait::async_trait;

/// A consumer of erasures: code that is called in the transaction of a shred, so that projections in the same database
/// lose their copies together with the keys.
///
/// It is called for every [entry](LogEntry): shreds, and also holds, reopenings and the others. Most consumers look at
/// [`action`](LogEntry::action) first:
///
/// ```
/// # use eventseal::erasure::ErasureConsumer;
/// # use eventseal::keys::{LogEntry, ScopeAction};
/// # type Tx = eventseal::memory::MemoryTx;
/// # async fn delete_customer(tx: &mut Tx, id: &str) -> Result<(), std::io::Error> { Ok(()) }
/// struct CustomerOverview;
///
/// #[async_trait::async_trait]
/// impl ErasureConsumer<Tx> for CustomerOverview {
///     fn name(&self) -> &str {
///         "customer_overview"
///     }
///
///     async fn handle(
///         &self,
///         tx: &mut Tx,
///         entry: &LogEntry,
///     ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///         if entry.action == ScopeAction::Shred && entry.scope.kind() == "Customer" {
///             delete_customer(tx, entry.scope.id()).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// It is registered with [`KeyManagerBuilder::erasure_consumer`](crate::keys::KeyManagerBuilder::erasure_consumer). The
/// command `eventseal` knows nothing of it: consumers that must not miss a shred of an operator follow the shred log by
/// its sequence instead.
#[async_trait]
pub trait ErasureConsumer<Tx: Send>: Send + Sync {
    /// A name for errors, such as `customer_overview`.
    fn name(&self) -> &str;

    /// Handles one entry. It must never commit or roll back. An entry whose transaction is repeated is delivered again.
    ///
    /// # Errors
    /// Any error fails the change: the caller rolls back, and nothing is shredded.
    async fn handle(&self, tx: &mut Tx, entry: &LogEntry) -> Result<(), BoxError>;
}
