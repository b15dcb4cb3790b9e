//! Schemas: what each event type and version protects, and how its payloads evolve. They are declared, checked and run
//! here.
//!
//! [`Schemas`] is built once, at startup. Building it reports every contradiction at once, so that a gap in a chain of
//! steps is found at deployment and not in production. Declarations begin with [`event`](crate::event()).

mod builder;
pub(crate) mod check;
pub(crate) mod declare;
mod fingerprint;
pub(crate) mod layout;
mod lock_file;
mod problem;
pub(crate) mod registry;
mod report;
pub(crate) mod scope;
mod type_version;
pub(crate) mod typed;
pub(crate) mod upcast;

pub use crate::event::{Answers, Asked, Given, Parts, PayloadType, Question, Refusal};
pub use crate::seal::in_the_clear::{InTheClear, OwnerFn};
pub use crate::seal::normalize::NormalizeFn;
pub use crate::seal::stand_in::StandInFn;
pub use builder::SchemasBuilder;
pub use declare::EventSchema;
pub use layout::{IsId, Layout, NoId, OwnerId};
pub use lock_file::{LockFile, LockedMetadata, LockedStep, LockedTarget, LockedType, LockedVersion};
pub use problem::{SchemaError, SchemaErrors, SchemaProblem};
pub(crate) use registry::{ReadAs, Schemas, TypeSchema, VersionSchema};
pub use report::{ProtectedPlace, SchemaVersion, StepInfo, StepKind};
pub(crate) use upcast::redaction::Owners;
pub use upcast::step::{SplitPart, StepContext};
pub(crate) use upcast::{Journey, Readable};
