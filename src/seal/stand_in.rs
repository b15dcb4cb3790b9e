//! What stands in for erased values: a text of the schema, or what a function computes from what is in the clear.

use crate::event::EventRef;
use crate::json::pointer::JsonPointer;
use crate::seal::in_the_clear::{Clear, Hidden, InTheClear};
use crate::seal::plan::Plan;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use uuid::Uuid;

/// The stand-ins for the erased values of one event. Each function is called once, when its stand-in is asked for.
pub(crate) struct StandIns<'e> {
    plan: &'e Plan,
    event: EventRef<'e>,
    hidden: Hidden,
    clear: OnceCell<Option<Clear<'e>>>,
    /// What the functions that were called have computed.
    computed: RefCell<Vec<(StandInFn, Value)>>,
}

impl<'e> StandIns<'e> {
    /// Those of a stored document, or of one that is to be stored.
    pub(crate) fn new(plan: &'e Plan, event: EventRef<'e>) -> Self {
        Self::hiding(plan, event, Hidden::default())
    }

    /// As [`new`](Self::new), of a document after a step: functions must not see what was sealed before it.
    pub(crate) fn hiding(plan: &'e Plan, event: EventRef<'e>, hidden: Hidden) -> Self {
        Self { plan, event, hidden, clear: OnceCell::new(), computed: RefCell::default() }
    }

    /// The stand-in at a place, as JSON text: `null` if the plan does not protect the place.
    pub(crate) fn at(&self, place: &JsonPointer) -> Cow<'e, str> {
        match self.plan.field_at(place) {
            None => "null".into(),
            Some(field) => match &field.stand_in_by {
                None => Cow::Borrowed(&field.stand_in),
                Some(function) => self.computed_by(function).to_string().into(),
            },
        }
    }

    /// What a function computes. `null` if it can't: an erased event must stay readable.
    pub(crate) fn computed_by(&self, function: &StandInFn) -> Value {
        if let Some((_, value)) = self.computed.borrow().iter().find(|(known, _)| known == function) {
            return value.clone();
        }
        let clear = self.clear.get_or_init(|| Clear::of(self.plan, self.event, &self.hidden));
        let value = match clear {
            Some(clear) => function.value(&clear.seen(), self.event.event_id),
            None => {
                let (function, event_id) = (function.name(), self.event.event_id);
                tracing::warn!(function, %event_id, "a stand-in is null: serde_json can't hold what is in the clear");
                Value::Null
            }
        };
        self.computed.borrow_mut().push((function.clone(), value.clone()));
        value
    }
}

/// Computes a stand-in.
type Compute = dyn Fn(&InTheClear<'_>) -> Value + Send + Sync;

/// A named function that computes a stand-in: see
/// [`redact_with`](crate::schema::EventSchema::redact_with). Two of them are equal if their names are.
#[derive(Clone)]
pub struct StandInFn {
    name: Arc<str>,
    function: Arc<Compute>,
}

impl StandInFn {
    pub(crate) fn new(
        name: impl Into<Arc<str>>,
        function: impl Fn(&InTheClear<'_>) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), function: Arc::new(function) }
    }

    /// The function's name, which stands for it in the schema lock.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn value(&self, seen: &InTheClear<'_>, event_id: Uuid) -> Value {
        catch_unwind(AssertUnwindSafe(|| (self.function)(seen))).unwrap_or_else(|_| {
            tracing::warn!(function = self.name(), %event_id, "a stand-in is null: the function for it panicked");
            Value::Null
        })
    }
}

impl PartialEq for StandInFn {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for StandInFn {}

impl fmt::Debug for StandInFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StandInFn").field(&self.name).finish()
    }
}
