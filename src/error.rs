//! What is inside an [`Error`].

mod describe;
mod driver;
mod kind;
pub(crate) mod variants;

pub(crate) use describe::describe_without_values;
pub use driver::DriverError;
pub(crate) use driver::Failure;
pub use kind::ErrorKind;
pub use variants::{BoxError, StepError};
pub(crate) use variants::{Error, Result};
