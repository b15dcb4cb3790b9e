//! What is inside an [`Error`].

mod describe;
mod driver;
#[cfg(test)]
mod every;
mod kind;
pub(crate) mod variants;

pub(crate) use describe::describe_without_values;
pub use driver::DriverError;
pub(crate) use driver::Failure;
pub use kind::ErrorKind;
pub use variants::{BoxError, StepError};
pub(crate) use variants::{Error, Result};

/// A change that did nothing to a table: the database accepted it, and a policy, a trigger or a rule kept it away.
pub(crate) fn no_effect(operation: &'static str, table: &'static str) -> Error {
    Error::NoEffect { operation, table }
}
