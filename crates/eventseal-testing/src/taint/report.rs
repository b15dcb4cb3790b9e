//! What a taint check finds.

use eventseal::{EventType, EventVersion};
use std::fmt;

pub(crate) const ADVICE: &str =
    "A protected value belongs to protected places: protect the place in the target version, or keep the value out of it.
Otherwise it reaches readers, projections and rewritten stores in the clear, and stays there after a shred.";

/// What is wrong with one step, or why it could not be checked.
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
    /// A protected value is at a place that the target does not protect.
    Leak {
        /// The type that the step leads to.
        target_type: EventType,
        /// The version that the step leads to.
        target_version: EventVersion,
        /// Where the value is, in `payload` or `metadata`: `payload/contact/name`.
        pointer: String,
        /// Where the version that the step starts from protects it.
        protected: String,
    },
    /// The step fails on every payload that was tried.
    NotRun {
        /// How it failed at first.
        error: String,
    },
    /// No payload that the step takes has a value at a protected place.
    NoValue {
        /// The protected pointer.
        pointer: String,
    },
    /// The test gives a sample of a version that is not registered.
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
