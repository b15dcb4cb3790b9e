//! Functions that name owners, and what they see of an event: what is stored in the clear, and nothing else.

use crate::event::AggregateRef;
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Places};
use serde_json::Value;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a [function that names an owner](crate::Owner::by) sees of an event: what is stored in the clear.
///
/// It is the same at the append and at any time later, also once values are erased. So the function comes to the same
/// owner.
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

    /// The metadata as it is stored, before steps; `None` if there is none.
    #[must_use]
    pub fn metadata(&self) -> Option<&Value> {
        self.metadata
    }

    /// The payload without its protected places: members are gone, and elements of arrays are `null`. It is `null` if
    /// the whole payload is protected.
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
        let seen = InTheClear { aggregate, metadata, payload };
        let id = catch_unwind(AssertUnwindSafe(|| (self.function)(&seen)));
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
