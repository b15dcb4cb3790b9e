//! Functions that name owners, and what functions see of an event: what is stored in the clear, and nothing else.

use crate::event::{AggregateRef, EventDocument, EventRef};
use crate::json::document::Node;
use crate::json::pointer::{Bound, JsonPointer, Places};
use crate::json::scan::{SEAL_MEMBER, scan};
use crate::json::wanted::{Target, Wanted};
use crate::seal::format::Mode;
use crate::seal::named::read_header;
use crate::seal::plan::Plan;
use serde_json::Value;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a function sees of an event that [names an owner](crate::Owner::by) or [computes a
/// stand-in](crate::schema::EventSchema::redact_with): what is stored in the clear.
///
/// It is the same at the append and at any time later, also once values are erased. So the function comes to the same
/// owner, or to the same stand-in.
pub struct InTheClear<'e> {
    aggregate: &'e AggregateRef,
    metadata: Option<&'e Value>,
    payload: &'e Value,
}

impl InTheClear<'_> {
    /// The event's aggregate.
    #[must_use]
    pub fn aggregate(&self) -> &AggregateRef {
        self.aggregate
    }

    /// The metadata as it is stored, before steps, without its protected places; `None` if there is none. A function
    /// that computes a stand-in for a later version gets it as the steps have made it.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata
    }

    /// The payload without its protected places: members are gone, and elements of arrays are `null`. It is `null` if
    /// the whole payload is protected. A function that computes a stand-in gets the payload of its own version.
    #[must_use]
    pub fn payload(&self) -> &Value {
        self.payload
    }
}

/// Shows no contents.
impl fmt::Debug for InTheClear<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InTheClear").field("aggregate", self.aggregate).finish_non_exhaustive()
    }
}

/// The parts of an event that are stored in the clear.
pub(crate) struct Clear<'e> {
    aggregate: &'e AggregateRef,
    metadata: Option<Value>,
    payload: Value,
}

/// Places that functions must not see either, whatever the plan says: what was sealed before steps.
#[derive(Default)]
pub(crate) struct Hidden {
    /// In the document.
    pub(crate) here: Vec<JsonPointer>,
    /// In the other one.
    pub(crate) beside: Vec<JsonPointer>,
}

impl<'e> Clear<'e> {
    /// What an event has in the clear: neither what the plan protects, nor what a seal covers. `None` if serde_json
    /// can't hold it.
    pub(crate) fn of(plan: &Plan, event: EventRef<'e>, hidden: &Hidden) -> Option<Self> {
        let place = |index: usize, bound: &[Bound]| Some(plan.fields.get(index)?.place(bound));
        let document = match plan.whole {
            Some(_) => Value::Null,
            None => clear_of(event, &plan.to_open, &place, &hidden.here)?,
        };
        let place = |index: usize, bound: &[Bound]| {
            Some(JsonPointer::new_unchecked(plan.protected_beside.get(index)?.at(bound)))
        };
        let beside = match event.other() {
            Some(_) if plan.beside_is_protected => Some(Value::Null),
            Some(other) => Some(clear_of(other, &plan.hidden_beside, &place, &hidden.beside)?),
            None => None,
        };
        let (metadata, payload) = match event.document {
            EventDocument::Payload => (beside, document),
            EventDocument::Metadata => (Some(document), beside.unwrap_or_default()),
        };
        Some(Self { aggregate: event.aggregate, metadata, payload })
    }

    /// As functions see it.
    pub(crate) fn seen(&self) -> InTheClear<'_> {
        InTheClear { aggregate: self.aggregate, metadata: self.metadata.as_ref(), payload: &self.payload }
    }

    /// The id that a function names.
    pub(crate) fn id(&self, function: &OwnerFn) -> Result<String, &'static str> {
        function.id(self.aggregate, self.metadata.as_ref(), &self.payload)
    }
}

/// A document without a header, without what is wanted at these places, and without what its seal covers.
fn clear_of(
    document: EventRef<'_>,
    wanted: &Wanted,
    place: &dyn Fn(usize, &[Bound]) -> Option<JsonPointer>,
    hidden: &[JsonPointer],
) -> Option<Value> {
    let found = scan(document.text, wanted).ok()?;
    let mut places = hidden.to_vec();
    places.extend(found.hits.iter().filter_map(|hit| match hit.target {
        Target::Field(index) => place(index, &hit.bound),
        Target::Capture(_) => None,
    }));
    if let Some(seal) = found.seal {
        let header = read_header(document, seal.value.of(document.text)).ok()?;
        if header.mode == Mode::Whole {
            return Some(Value::Null);
        }
        places.extend(header.entries.iter().map(|entry| JsonPointer::new_unchecked(header.pointer(*entry))));
    }
    places.push(JsonPointer::new_unchecked(format!("/{SEAL_MEMBER}")));
    without(Node::Text(std::str::from_utf8(document.text).ok()?), &places)
}

/// Finds the id of an owner.
type Find = dyn Fn(&InTheClear<'_>) -> Option<String> + Send + Sync;

/// A named function that names an owner: see [`Owner::by`](crate::Owner::by). Two of them are equal if their names are.
#[derive(Clone)]
pub struct OwnerFn {
    name: Arc<str>,
    function: Arc<Find>,
}

/// The function named nobody.
pub(crate) const NOBODY: &str = "it names nobody";

impl OwnerFn {
    pub(crate) fn new(
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), function: Arc::new(function) }
    }

    /// The function's name, which stands for it in the schema lock.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id that the function names; an error if it names none, or panics.
    pub(crate) fn id(
        &self,
        aggregate: &AggregateRef,
        metadata: Option<&Value>,
        payload: &Value,
    ) -> Result<String, &'static str> {
        let id = catch_unwind(AssertUnwindSafe(|| (self.function)(&InTheClear { aggregate, metadata, payload })));
        id.map_err(|_| "it panicked")?.ok_or(NOBODY)
    }
}

impl PartialEq for OwnerFn {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for OwnerFn {}

impl fmt::Debug for OwnerFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnerFn").field(&self.name).finish()
    }
}

/// A payload without the values at these places. `None` if serde_json can't hold what is left.
pub(crate) fn without(mut payload: Node<'_>, places: &[JsonPointer]) -> Option<Value> {
    payload.leave_out(&Places::of(places)).ok()?;
    payload.into_value().ok()
}
