//! One step of a chain: from the payload of one version to the next.

use crate::error::{BoxError, StepError, describe_without_values};
use crate::event::{AggregateRef, AggregateVersion, EventType, EventVersion};
use crate::pointer::JsonPointer;
use crate::schema::describe::StepKind;
use crate::sensitive;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;

/// What a step may know of the event besides its payload.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StepContext<'a> {
    /// The event's aggregate.
    pub aggregate: &'a AggregateRef,
    /// The event's version in its aggregate.
    pub aggregate_version: AggregateVersion,
    /// The type under which the event is stored.
    pub stored_type: &'a EventType,
    /// The version under which the event is stored.
    pub stored_version: EventVersion,
    /// When it happened.
    pub created_at: OffsetDateTime,
    /// The places in the payload whose keys were shredded, and that hold a stand-in. Sorted.
    pub redacted: &'a [JsonPointer],
}

impl StepContext<'_> {
    /// Is this place, or one around it, redacted?
    #[must_use]
    pub fn is_redacted(&self, pointer: &str) -> bool {
        let ends = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]);
        ends.into_iter().any(|end| self.redacted.binary_search_by(|place| place.as_str().cmp(&pointer[..end])).is_ok())
    }
}

/// One of the events that a stored event is split into.
#[derive(Clone)]
pub struct SplitPart {
    pub(super) event_type: EventType,
    pub(super) event_version: u32,
    pub(super) payload: Value,
}

impl SplitPart {
    /// An event of this type and version. Both must be among the targets that the split declares.
    #[must_use]
    pub fn new(event_type: impl Into<EventType>, event_version: u32, payload: Value) -> Self {
        Self { event_type: event_type.into(), event_version, payload }
    }
}

/// Leaves the payload out.
impl std::fmt::Debug for SplitPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SplitPart({} version {})", self.event_type, self.event_version)
    }
}

/// A registered step.
pub(super) enum Step {
    /// To the next version of the same type.
    Next(StepKind, NextFn),
    /// To events of these types and versions.
    Split(Vec<(EventType, u32)>, SplitFn),
    /// To nothing.
    Drop,
}

type NextFn = Box<dyn Fn(Value, &StepContext<'_>) -> Result<Stepped, Failure> + Send + Sync>;
type SplitFn = Box<dyn Fn(Value, &StepContext<'_>) -> Result<Vec<SplitPart>, Failure> + Send + Sync>;

/// A payload after a step.
pub(super) struct Stepped {
    pub(super) payload: Value,
    /// Places that the step itself knows to be redacted.
    pub(super) redacted: Vec<JsonPointer>,
    /// These are all: every redaction went through a `Sensitive`.
    pub(super) is_exact: bool,
}

/// Why a step could not be taken.
pub(super) struct Failure {
    pub(super) problem: String,
    pub(super) source: Option<StepError>,
}

impl Failure {
    fn returned(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        // An error of serde_json quotes the value that does not fit, and so does one that was made from it.
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(one) = next {
            if let Some(json) = one.downcast_ref::<serde_json::Error>() {
                let problem = format!("the step returned an error: {}", describe_without_values(json, b""));
                return Self { problem, source: None };
            }
            next = one.source();
        }
        Self { problem: "the step returned an error".to_owned(), source: Some(StepError(error)) }
    }
}

impl Step {
    pub(super) fn typed<A, B, E, F>(step: F) -> Self
    where
        A: DeserializeOwned,
        B: Serialize,
        E: Into<BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        Self::Next(
            StepKind::Typed,
            Box::new(move |payload, context| {
                // Through text, because places are redacted in text; without numbers losing digits in between.
                let text = payload.to_string();
                let (old, is_exact): (A, bool) = sensitive::decode_watched(text.as_bytes(), context.redacted).map_err(|error| Failure {
                    problem: format!(
                        "the payload does not decode into {}: {}",
                        std::any::type_name::<A>(),
                        describe_without_values(&error, text.as_bytes())
                    ),
                    source: None,
                })?;
                let new = step(old).map_err(Failure::returned)?;
                let (payload, redacted) = sensitive::encode(&new).map_err(|error| Failure { problem: error.to_string(), source: None })?;
                Ok(Stepped { payload, redacted, is_exact })
            }),
        )
    }

    pub(super) fn value<E, F>(step: F) -> Self
    where
        E: Into<BoxError>,
        F: Fn(Value, &StepContext<'_>) -> Result<Value, E> + Send + Sync + 'static,
    {
        Self::Next(
            StepKind::Value,
            Box::new(move |payload, context| {
                let payload = step(payload, context).map_err(Failure::returned)?;
                Ok(Stepped { payload, redacted: Vec::new(), is_exact: false })
            }),
        )
    }

    pub(super) fn split<E, F>(targets: Vec<(EventType, u32)>, step: F) -> Self
    where
        E: Into<BoxError>,
        F: Fn(Value, &StepContext<'_>) -> Result<Vec<SplitPart>, E> + Send + Sync + 'static,
    {
        Self::Split(targets, Box::new(move |payload, context| step(payload, context).map_err(Failure::returned)))
    }

    pub(super) fn kind(&self) -> StepKind {
        match self {
            Self::Next(kind, _) => *kind,
            Self::Split(..) => StepKind::Split,
            Self::Drop => StepKind::Drop,
        }
    }

    /// Where the step leads, for a step of this type from this version.
    pub(super) fn targets(&self, event_type: &EventType, from: u32) -> Vec<(EventType, u32)> {
        match self {
            Self::Next(..) => vec![(event_type.clone(), from.saturating_add(1))],
            Self::Split(targets, _) => targets.clone(),
            Self::Drop => Vec::new(),
        }
    }
}
