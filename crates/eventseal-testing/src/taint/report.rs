//! The report of a taint check.

use eventseal::{EventType, EventVersion};
use std::fmt;

pub(crate) const ADVICE: &str = "A protected value belongs to protected places: \
    protect the place in the target version, or keep the value out of it.\n\
    Otherwise it reaches readers, projections and rewritten stores in the clear, and stays there after a shred.";

/// A problem of one step: what is wrong with it, or why it could not be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaintFinding {
    /// The type that the step starts from.
    pub event_type: EventType,
    /// The version that the step starts from.
    pub event_version: EventVersion,
    /// What is wrong.
    pub problem: TaintProblem,
}

/// What is wrong with a step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaintProblem {
    /// The step copies a protected value to a place that the target version does not protect.
    Leak {
        /// The type that the step leads to.
        target_type: EventType,
        /// The version that the step leads to.
        target_version: EventVersion,
        /// The place of the copy, in the payload or the metadata, such as `payload/contact/name`.
        pointer: String,
        /// The pointer by which the version that the step starts from protects the value.
        protected: String,
    },
    /// The step failed on every payload that was tried.
    NotRun {
        /// The text of its first error.
        error: String,
    },
    /// No payload that the step accepts has a value at a protected place.
    NoValue {
        /// The protected pointer.
        pointer: String,
    },
    /// The test gives a sample for a version that is not registered.
    NotRegistered,
}

impl fmt::Display for TaintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event_type, event_version, problem } = self;
        match problem {
            TaintProblem::Leak { target_type, target_version, pointer, protected } => write!(
                f,
                "the step from {event_type} version {event_version} to {target_type} version {target_version} copies \
                 what is protected at {protected:?} to {pointer:?}, which is not protected"
            ),
            TaintProblem::NotRun { error } => write!(
                f,
                "the step from {event_type} version {event_version} could not be run: give a sample that it takes, \
                 with .sample({:?}, {event_version}, json!(…)): {error}",
                event_type.as_str()
            ),
            TaintProblem::NoValue { pointer } => write!(
                f,
                "the step from {event_type} version {event_version} was never run with a value at {pointer:?}: give a \
                 sample that has one, with .sample({:?}, {event_version}, json!(…))",
                event_type.as_str()
            ),
            TaintProblem::NotRegistered => {
                write!(
                    f,
                    "there is a sample of {event_type} version {event_version}, which is not registered: correct its \
                     type or version"
                )
            }
        }
    }
}
