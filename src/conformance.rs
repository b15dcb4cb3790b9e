//! The contracts of the ports as functions. Run your own [`EventStore`](crate::EventStore),
//! [`EventTable`](crate::store::EventTable), [`SnapshotStore`](crate::store::SnapshotStore),
//! [`KeyStore`](crate::keys::KeyStore), [`Kms`](crate::kms::Kms), [`ShredLogCopy`](crate::erasure::ShredLogCopy) or
//! [`BlindIndexTable`](crate::blind_index::BlindIndexTable) through them.
//!
//! They need the feature `conformance`. Each function panics if an implementation breaks its contract. Give each call a
//! database of its own: the functions assume that nothing else uses it.
//!
//! ```
//! use eventseal::conformance::{self, Database};
//! use eventseal::{Namespace, Result};
//! use eventseal::memory::{MemoryDb, MemoryStore, MemoryTx};
//!
//! struct Mine(MemoryDb);
//!
//! #[async_trait::async_trait]
//! impl Database for Mine {
//!     type Tx = MemoryTx;
//!     type Transaction = MemoryTx;
//!     type Connection = MemoryTx;
//!     async fn connect(&self) -> Result<MemoryTx> { Ok(self.0.begin()) }
//!     fn connection<'c>(&self, connection: &'c mut MemoryTx) -> &'c mut MemoryTx { connection }
//!     async fn begin(&self) -> Result<MemoryTx> { Ok(self.0.begin()) }
//!     fn tx<'t>(&self, transaction: &'t mut MemoryTx) -> &'t mut MemoryTx { transaction }
//!     async fn commit(&self, transaction: MemoryTx) -> Result<()> { transaction.commit() }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! conformance::event_store(&Mine(MemoryDb::new(Namespace::new("test")?)), &MemoryStore::new()).await;
//! # Ok(())
//! # }
//! ```

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a test suite: panics are its verdicts")]

mod beside_keys;
mod blind_index_table;
mod event_store;
mod event_table;
mod key_rows;
mod key_store;
mod key_table;
mod kms;
mod log_rows;
mod scheduled;
mod seal_index;
mod shred_log_copy;
mod snapshot_store;

pub use beside_keys::*;
pub use blind_index_table::*;
pub use event_store::*;
pub use event_table::*;
pub use key_rows::*;
pub use key_store::*;
pub use key_table::*;
pub use kms::*;
pub use log_rows::*;
pub use scheduled::*;
pub use shred_log_copy::*;
pub use snapshot_store::*;

use crate::error::Result;
use async_trait::async_trait;
use serde_json::Value;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The database that an implementation is tested on: how to begin and commit a transaction.
#[async_trait]
pub trait Database: Send + Sync {
    /// The connection that the port's methods take.
    type Tx: Send + 'static;
    /// A transaction. Dropping it rolls it back.
    type Transaction: Send;
    /// A connection that is not in a transaction.
    type Connection: Send;

    /// Connects.
    ///
    /// # Errors
    /// Those of the database; the suite panics on them.
    async fn connect(&self) -> Result<Self::Connection>;

    /// The connection that the port's methods take, outside a transaction.
    fn connection<'c>(&self, connection: &'c mut Self::Connection) -> &'c mut Self::Tx;

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// Those of the database; the suite panics on them.
    async fn begin(&self) -> Result<Self::Transaction>;

    /// The connection in a transaction.
    fn tx<'t>(&self, transaction: &'t mut Self::Transaction) -> &'t mut Self::Tx;

    /// Does the store print JSON anew, as a JSONB column does? It may then lose white space, spellings of numbers, the
    /// order of members and members that come twice, and nothing else: see [`EventStore`](crate::EventStore). With
    /// `false` (the default, for a store of bytes), payloads are compared byte for byte.
    fn respells_json(&self) -> bool {
        false
    }

    /// Commits a transaction.
    ///
    /// # Errors
    /// [`Error::Collision`](crate::Error::Collision) if another transaction got in the way.
    async fn commit(&self, transaction: Self::Transaction) -> Result<()>;
}

/// Asserts that a call was refused, with this variant of [`Error`](crate::Error) or of a type inside it.
#[track_caller]
fn must_be_refused<T>(result: Result<T>, variant: &str, rule: &str) {
    let found = result.map_or_else(|error| format!("{error:?}"), |_| "Ok".to_owned());
    let is_it = found.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == variant);
    assert!(is_it, "{rule}: expected {variant}, got {found}");
}

/// The value of a result; panics if it is an error.
fn must<T>(result: Result<T>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what} failed: {error} ({error:?})"),
    }
}

/// Runs a future until it is done, or until it makes no progress because it waits for something. The databases answer
/// within a second.
async fn until_idle<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    let began = Instant::now();
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if began.elapsed() > Duration::from_secs(1) => Poll::Ready(None),
        Poll::Pending => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Bytes as a readable text, for messages.
fn text(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn same_bytes(rule: &str, found: &[u8], expected: &[u8]) {
    assert!(found == expected, "{rule}: {} was passed, {} came back", text(expected), text(found));
}

/// Numbers are equal whatever their spelling.
fn same_json(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.to_bits() == b.to_bits())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_json(a, b)))
        }
        _ => a == b,
    }
}
