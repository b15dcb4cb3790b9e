//! What is protected and how payloads evolve, for every event type and version: declared, checked, run.
//!
//! [`Schemas`] is built once at startup and reports every contradiction at once, so that a gap in a chain is
//! found at deployment and not in production. Declarations begin with [`event`](crate::event()).

pub(crate) mod check;
pub(crate) mod declare;
mod lock_file;
mod problem;
pub(crate) mod registry;
mod report;
mod type_version;
pub(crate) mod upcast;

pub use crate::event::{Answers, Asked, Given, Parts, PayloadType, Question, Refusal};
pub use declare::{EventSchema, SchemasBuilder};
pub use lock_file::{LockFile, LockedStep, LockedTarget, LockedType, LockedVersion};
pub use problem::{SchemaError, SchemaErrors, SchemaProblem};
pub(crate) use registry::{ReadAs, Schemas, TypeSchema, VersionSchema};
pub use report::{ProtectedPlace, SchemaVersion, StepInfo, StepKind};
pub(crate) use upcast::redaction::Owners;
pub use upcast::step::{SplitPart, StepContext};
pub(crate) use upcast::{Journey, Readable};
