//! The parts of an [`Error`]: the inner types of its variants, the word for its meaning, and errors of other people's
//! code.
//!
//! - [`EventFault`]: one event can't be appended, opened, upcast or decoded. [`Error::Event`] says which one.
//! - [`ValueFault`]: one value outside of events can't be sealed or opened. [`Error::Value`] says which one.
//! - [`BlindIndexFault`]: an entry of a blind index, or the index. [`Error::BlindIndex`] says which one.
//! - [`InputFault`]: something else that a caller passed.
//! - [`KeyFault`], [`KmsFault`]: keys, and what wraps them.
//! - [`SetUpFault`], [`TransactionFault`], [`StorageFault`]: what the database lacks, how it is used, what it holds.
//! - [`MaintenanceFault`]: a backfill or a rewrite.
//! - [`ErrorKind`]: the meaning of any error in one word, for logs, metrics and statuses.

mod blind_index;
mod describe;
mod driver;
mod event;
#[cfg(test)]
mod every;
mod foreign;
mod input;
mod keys;
mod kind;
pub(crate) mod kms;
mod maintenance;
mod set_up;
mod storage;
mod transaction;
mod value;
pub(crate) mod variants;

pub use blind_index::BlindIndexFault;
pub(crate) use describe::describe_without_values;
pub use driver::DriverError;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use driver::Failure;
pub use event::EventFault;
pub use foreign::{BoxError, SharedError, StepError};
pub use input::InputFault;
pub use keys::KeyFault;
pub use kind::ErrorKind;
pub use kms::KmsFault;
pub use maintenance::MaintenanceFault;
pub use set_up::SetUpFault;
pub use storage::StorageFault;
pub use transaction::TransactionFault;
pub use value::ValueFault;
pub(crate) use variants::{Error, Result};

/// A change that did nothing to a table: the database accepted it, and a policy, a trigger or a rule kept it away.
pub(crate) fn no_effect(operation: &'static str, table: &'static str) -> Error {
    Error::Storage(StorageFault::NoEffect { operation, table })
}
