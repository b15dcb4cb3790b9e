//! One step of a chain: from the payload of one version to the next.

use crate::error::{BoxError, StepError, describe_without_values};
use crate::event::{AggregateRef, AggregateVersion, EventType, EventVersion, PayloadType};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Pattern};
use crate::json::raw;
use crate::schema::report::StepKind;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::changes::Change;
use crate::schema::upcast::metadata::Metadata;
use crate::sensitive;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::any::{Any, TypeId};
use time::OffsetDateTime;
use uuid::Uuid;

/// The event that a step works on, without its payload.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct StepContext<'a> {
    /// The event.
    pub event_id: Uuid,
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
    /// The places in the stored metadata whose keys were shredded, and that hold a stand-in.
    pub redacted_metadata: &'a [JsonPointer],
    pub(crate) metadata: &'a Metadata<'a>,
}

impl StepContext<'_> {
    /// The event's metadata, upcast to the version that the payload has before this step. `None` if it has none, or if
    /// it is not JSON.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata.value()
    }

    /// Is this place redacted, or a place around it?
    #[must_use]
    pub fn is_redacted(&self, pointer: &str) -> bool {
        let ends = pointer.match_indices('/').map(|(at, _)| at).chain([pointer.len()]);
        ends.into_iter().any(|end| self.redacted.binary_search_by(|place| place.as_str().cmp(&pointer[..end])).is_ok())
    }
}

/// One of the events that a stored event is split into.
#[derive(Clone)]
pub struct SplitPart {
    pub(crate) event_type: EventType,
    pub(crate) event_version: u32,
    pub(crate) payload: Value,
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
pub(crate) enum Step {
    /// A function to the next version of the same type.
    Next(Function),
    /// Checked changes to the next version, or to this version of another type.
    Change(Option<TypeVersion>, Vec<Change<Pattern>>),
    /// A function to events of these types and versions.
    Split(Vec<TypeVersion>, SplitFn),
    /// The event is dropped.
    Drop,
}

/// A step that is a function.
pub(crate) struct Function {
    kind: StepKind,
    pub(crate) run: NextFn,
    /// The Rust type that it reads.
    reads: PayloadType,
}

type NextFn = Box<dyn Fn(Node<'_>, &StepContext<'_>) -> Result<Stepped, Failure> + Send + Sync>;
pub(crate) type SplitFn = Box<dyn Fn(Value, &StepContext<'_>) -> Result<Vec<SplitPart>, Failure> + Send + Sync>;
pub(crate) type MetadataFn =
    Box<dyn Fn(Option<Value>, &StepContext<'_>) -> Result<Option<Value>, Failure> + Send + Sync>;

/// The result of a function.
pub(crate) struct Stepped {
    pub(crate) payload: Value,
    /// The places that the function itself says are redacted.
    pub(crate) redacted: Vec<JsonPointer>,
    /// Are these all redacted places? They are if every redaction went through a `Sensitive`.
    pub(crate) is_exact: bool,
}

/// Why a step could not be taken.
pub(crate) struct Failure {
    pub(crate) problem: String,
    pub(crate) source: Option<StepError>,
}

impl Failure {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), source: None }
    }

    pub(crate) fn unreadable() -> Self {
        Self::new("the payload is not JSON that serde_json can hold")
    }

    /// This failure, with the place in the payload, or the metadata, at which it happened.
    pub(crate) fn of(self, what: &str) -> Self {
        Self { problem: format!("{what}: {}", self.problem), ..self }
    }

    fn returned(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        // An error of serde_json quotes the value that does not fit. So may an error that has one as its source.
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(one) = next {
            if let Some(json) = one.downcast_ref::<serde_json::Error>() {
                let problem = format!("it returned an error: {}", describe_without_values(json, b""));
                return Self::new(problem);
            }
            next = one.source();
        }
        Self { problem: "it returned an error".to_owned(), source: Some(StepError::new(error)) }
    }
}

impl Step {
    pub(crate) fn function<A, B, E, F>(step: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<BoxError>,
        F: Fn(A, &StepContext<'_>) -> Result<B, E> + Send + Sync + 'static,
    {
        let kind = if TypeId::of::<A>() == TypeId::of::<Value>() { StepKind::Value } else { StepKind::Typed };
        Self::Next(Function {
            kind,
            run: Box::new(move |payload, context| {
                let (old, is_exact) = decode::<A>(payload, context.redacted)?;
                let new = step(old, context).map_err(Failure::returned)?;
                let (payload, redacted) = encode(new)?;
                Ok(Stepped { payload, redacted, is_exact })
            }),
            reads: PayloadType::of::<A>(),
        })
    }

    pub(crate) fn split<E, F>(targets: Vec<TypeVersion>, step: F) -> Self
    where
        E: Into<BoxError>,
        F: Fn(Value, &StepContext<'_>) -> Result<Vec<SplitPart>, E> + Send + Sync + 'static,
    {
        Self::Split(targets, Box::new(move |payload, context| step(payload, context).map_err(Failure::returned)))
    }

    pub(crate) fn kind(&self) -> StepKind {
        match self {
            Self::Next(function) => function.kind,
            Self::Change(..) => StepKind::Declarative,
            Self::Split(..) => StepKind::Split,
            Self::Drop => StepKind::Drop,
        }
    }

    /// The Rust type that the step reads; `None` if it is not a function from one type.
    pub(crate) fn reads(&self) -> Option<PayloadType> {
        match self {
            Self::Next(function) => Some(function.reads),
            _ => None,
        }
    }

    /// The kind and the target of a step from this version, such as `typed, to Order version 2`.
    pub(crate) fn describe(&self, from: &TypeVersion) -> String {
        let targets: Vec<String> = self
            .targets(from)
            .iter()
            .map(|target| format!("{} version {}", target.event_type, target.event_version))
            .collect();
        match targets.as_slice() {
            [] => self.kind().as_str().to_owned(),
            targets => format!("{}, to {}", self.kind().as_str(), targets.join(" and ")),
        }
    }

    /// The targets of a step from this version.
    pub(crate) fn targets(&self, from: &TypeVersion) -> Vec<TypeVersion> {
        match self {
            Self::Next(..) | Self::Change(None, _) => vec![from.next()],
            Self::Change(Some(target), _) => vec![target.clone()],
            Self::Split(targets, _) => targets.clone(),
            Self::Drop => Vec::new(),
        }
    }
}

pub(crate) fn metadata_step<E, F>(step: F) -> MetadataFn
where
    E: Into<BoxError>,
    F: Fn(Option<Value>, &StepContext<'_>) -> Result<Option<Value>, E> + Send + Sync + 'static,
{
    Box::new(move |metadata, context| step(metadata, context).map_err(Failure::returned))
}

/// A function for a single value.
pub(crate) struct Mapping(MapFn);

type MapFn = Box<dyn Fn(Node<'_>) -> Result<Value, Failure> + Send + Sync>;

impl Mapping {
    pub(crate) fn new<A, B, E, F>(map: F) -> Self
    where
        A: DeserializeOwned + 'static,
        B: Serialize + 'static,
        E: Into<BoxError>,
        F: Fn(A) -> Result<B, E> + Send + Sync + 'static,
    {
        Self(Box::new(move |value| {
            // The description must not say where in the value the problem is: that would tell how long the value is.
            let cut = |failure: Failure| {
                Failure::new(
                    failure
                        .problem
                        .replacen("the payload", "the value", 1)
                        .split(" at line ")
                        .next()
                        .unwrap_or_default(),
                )
            };
            let (old, _) = decode::<A>(value, &[]).map_err(cut)?;
            match encode(map(old).map_err(Failure::returned)?)? {
                (value, redacted) if redacted.is_empty() => Ok(value),
                _ => Err(Failure::new("the function returned a shredded Sensitive")),
            }
        }))
    }

    pub(crate) fn map<'a>(&self, value: Node<'a>) -> Result<Node<'a>, Failure> {
        (self.0)(value).map(Node::Parsed)
    }
}

/// Reads a value, and says whether every redaction in it was seen.
fn decode<A: DeserializeOwned + 'static>(payload: Node<'_>, redacted: &[JsonPointer]) -> Result<(A, bool), Failure> {
    let mut same: Option<A> = None;
    let any: &mut dyn Any = &mut same;
    if let Some(value) = any.downcast_mut::<Option<Value>>() {
        *value = Some(payload.into_value().map_err(|_| Failure::unreadable())?);
        return same.map(|value| (value, false)).ok_or_else(|| Failure::new("the payload is gone"));
    }
    // A parsed value is decoded without printing it first. If that fails, the attempt on the printed text below gives a
    // better error.
    if let (Node::Parsed(value), []) = (&payload, redacted)
        && !has_private_name(value)
        && let Ok(decoded) = sensitive::decode_value(value)
    {
        return Ok((decoded, true));
    }
    let text = payload.bytes();
    sensitive::decode_watched(&text, redacted).map_err(|error| {
        let problem = error.describe(&text);
        Failure::new(format!("the payload does not decode into {}: {problem}", std::any::type_name::<A>()))
    })
}

/// Does it have a member whose name serde_json keeps for itself?
fn has_private_name(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().any(|(name, member)| name.starts_with(raw::PRIVATE) || has_private_name(member))
        }
        Value::Array(elements) => elements.iter().any(has_private_name),
        _ => false,
    }
}

/// Writes a value, and returns the places of the shredded fields in it.
fn encode<B: Serialize + 'static>(new: B) -> Result<(Value, Vec<JsonPointer>), Failure> {
    let mut new = Some(new);
    let any: &mut dyn Any = &mut new;
    if let Some(value) = any.downcast_mut::<Option<Value>>() {
        return Ok((value.take().unwrap_or_default(), Vec::new()));
    }
    let new = new.ok_or_else(|| Failure::new("the value is gone"))?;
    sensitive::encode(&new).map_err(|error| Failure::new(error.to_string()))
}
