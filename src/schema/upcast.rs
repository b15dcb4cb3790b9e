//! Bringing an opened event up to date, and keeping track of what is redacted in it.

use crate::error::{Error, Result};
use crate::event::{EventType, EventVersion, Part, PersistedEvent};
use crate::key::KeyScope;
use crate::pointer::{JsonPointer, Pattern, Token, array_index};
use crate::schema::step::{Failure, Step, StepContext, Stepped};
use crate::schema::{Schemas, VersionSchema};
use crate::seal::plan::{Field, FieldOwner, Plan};
use serde_json::Value;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many events one stored event may become.
const MAX_PARTS: usize = 1_000;

/// An event whose payload is plaintext, or redacted.
pub(crate) struct Readable {
    /// As stored, but for the payload and `redacted`.
    pub(crate) event: PersistedEvent,
    /// Whose keys were shredded.
    pub(crate) shredded: HashSet<KeyScope>,
}

/// A payload on its way.
#[derive(Clone)]
struct Moving {
    event_type: EventType,
    event_version: EventVersion,
    payload: Value,
    redacted: Vec<JsonPointer>,
}

impl Schemas {
    /// Runs the chain from the stored version on. `schema` is that of the stored version.
    pub(crate) fn upcast(&self, schema: &VersionSchema, readable: Readable, out: &mut Vec<PersistedEvent>) -> Result<()> {
        if schema.step.is_none() {
            out.push(readable.event);
            return Ok(());
        }
        let mut event = readable.event;
        let payload = std::mem::take(&mut event.payload);
        let redacted = std::mem::take(&mut event.redacted);
        let parsed = serde_json::from_slice(&payload)
            .map_err(|_| Failure { problem: "the payload is not JSON that serde_json can hold".to_owned(), source: None });
        let start = Moving { event_type: event.event_type.clone(), event_version: event.event_version, payload: Value::Null, redacted };
        let payload = parsed.map_err(|error| failed(&event, &start, error))?;
        let mut done: Vec<Moving> = Vec::new();
        // The last one is the next to be looked at, so that parts stay in order.
        let mut open = vec![Moving { payload, ..start.clone() }];
        while let Some(moving) = open.pop() {
            match self.step_of(&moving) {
                None => done.push(moving),
                Some(step) => {
                    let next = self.take_step(step, moving, &event, &readable.shredded)?;
                    open.extend(next.into_iter().rev());
                }
            }
            if done.len() + open.len() > MAX_PARTS {
                let problem = format!("one event became more than {MAX_PARTS}: split it into fewer");
                return Err(failed(&event, &start, Failure { problem, source: None }));
            }
        }
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        for (index, moved) in (0..count).zip(done) {
            let mut part = event.clone();
            // Writing a Value as JSON does not fail: its keys are strings.
            part.payload = moved.payload.to_string().into_bytes();
            part.event_type = moved.event_type;
            part.event_version = moved.event_version;
            part.redacted = moved.redacted;
            part.part = Part { index, count };
            out.push(part);
        }
        Ok(())
    }

    fn schema_of(&self, event_type: &EventType, version: EventVersion) -> Option<&VersionSchema> {
        self.types.get(event_type)?.version(version)
    }

    fn step_of(&self, moving: &Moving) -> Option<&Step> {
        self.schema_of(&moving.event_type, moving.event_version)?.step.as_ref()
    }

    fn take_step(&self, step: &Step, mut moving: Moving, event: &PersistedEvent, shredded: &HashSet<KeyScope>) -> Result<Vec<Moving>> {
        let payload = std::mem::take(&mut moving.payload);
        let context = StepContext {
            aggregate: &event.aggregate,
            aggregate_version: event.aggregate_version,
            stored_type: &event.stored_type,
            stored_version: event.stored_version,
            created_at: event.created_at,
            redacted: &moving.redacted,
        };
        let mut next = match step {
            Step::Drop => Vec::new(),
            Step::Next(step) => {
                let Stepped { payload, redacted } = guarded(|| step(payload, &context)).map_err(|error| failed(event, &moving, error))?;
                let event_version = EventVersion::new(moving.event_version.get().saturating_add(1));
                vec![Moving { event_type: moving.event_type.clone(), event_version, payload, redacted }]
            }
            Step::Split(targets, step) => {
                let parts = guarded(|| step(payload, &context)).map_err(|error| failed(event, &moving, error))?;
                let mut next = Vec::with_capacity(parts.len());
                for part in parts {
                    let target = (part.event_type, part.event_version);
                    if !targets.contains(&target) {
                        let problem =
                            format!("the step returned {} version {}, which is not among its declared targets", target.0, target.1);
                        return Err(failed(event, &moving, Failure { problem, source: None }));
                    }
                    let event_version = EventVersion::new(target.1);
                    next.push(Moving { event_type: target.0, event_version, payload: part.payload, redacted: Vec::new() });
                }
                next
            }
        };
        for target in &mut next {
            if !target.payload.is_object() {
                let problem = "the step did not return a JSON object".to_owned();
                return Err(failed(event, &moving, Failure { problem, source: None }));
            }
            if !moving.redacted.is_empty() {
                self.carry_redactions(&moving, target, event, shredded);
            }
        }
        Ok(next)
    }

    /// Which places of a payload are redacted after a step:
    ///
    /// - those that the step says are (typed steps know it of their `Sensitive` fields);
    /// - those that were, and still hold what stood there;
    /// - protected places whose owner was shredded, and that hold a stand-in or `null`.
    fn carry_redactions(&self, before: &Moving, after: &mut Moving, event: &PersistedEvent, shredded: &HashSet<KeyScope>) {
        let plan_before = self.schema_of(&before.event_type, before.event_version).map(|schema| &schema.plan);
        let Some(plan) = self.schema_of(&after.event_type, after.event_version).map(|schema| &schema.plan) else { return };
        let mut found: HashSet<JsonPointer> = after.redacted.drain(..).collect();
        for pointer in &before.redacted {
            let stand_in = plan_before.map_or("null", |plan| plan.stand_in(pointer));
            if after.payload.pointer(pointer.as_str()).is_some_and(|value| is_json(value, stand_in)) {
                found.insert(pointer.clone());
            }
        }
        for field in &plan.fields {
            let Some(pattern) = &field.pattern else { continue };
            for (place, indexes) in places(&after.payload, pattern) {
                let holds_nothing =
                    after.payload.pointer(place.as_str()).is_some_and(|value| value.is_null() || is_json(value, &field.stand_in));
                if holds_nothing && may_be_shredded(plan, field, &indexes, &after.payload, event, shredded) {
                    found.insert(place);
                }
            }
        }
        let mut found: Vec<JsonPointer> = found.into_iter().collect();
        found.sort_unstable();
        for pointer in &found {
            // What the new version says stands in for it, unless it has nothing to say there.
            let covered = plan.fields.iter().any(|field| field.pattern.as_ref().is_some_and(|pattern| pattern.matches(pointer)));
            if let (true, Some(value)) = (covered, after.payload.pointer_mut(pointer.as_str())) {
                *value = serde_json::from_str(plan.stand_in(pointer)).unwrap_or_default();
            }
        }
        after.redacted = found;
    }
}

/// Runs a step of the application. A panic is its failure, not that of the whole process.
fn guarded<T>(step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(Failure { problem: "the step panicked".to_owned(), source: None }))
}

fn failed(event: &PersistedEvent, at: &Moving, failure: Failure) -> Error {
    Error::Upcast {
        event_id: event.event_id,
        event_type: at.event_type.clone(),
        from: at.event_version,
        problem: failure.problem,
        source: failure.source,
    }
}

/// Could the field's owner be among the shredded ones? An owner that can't be told counts by its kind.
fn may_be_shredded(
    plan: &Plan,
    field: &Field,
    indexes: &[u32],
    payload: &Value,
    event: &PersistedEvent,
    shredded: &HashSet<KeyScope>,
) -> bool {
    match &field.owner {
        FieldOwner::Aggregate { kind } => {
            let kind = kind.as_deref().unwrap_or_else(|| event.aggregate.aggregate_type());
            shredded.contains(&KeyScope::new(kind, event.aggregate.aggregate_id()))
        }
        FieldOwner::Subject { kind, capture } => {
            let id = plan.captures.get(*capture).and_then(|pattern| payload.pointer(&pattern.at(indexes)));
            match id {
                Some(Value::String(id)) => shredded.contains(&KeyScope::new(kind.clone(), id.as_str())),
                Some(Value::Number(id)) => shredded.contains(&KeyScope::new(kind.clone(), id.to_string())),
                _ => shredded.iter().any(|scope| scope.kind() == &**kind),
            }
        }
    }
}

/// Is the value what this JSON text says?
fn is_json(value: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|said| said == *value)
}

/// The places in a value that a pattern means, each with the array elements on its way.
fn places(value: &Value, pattern: &Pattern) -> Vec<(JsonPointer, Vec<u32>)> {
    fn walk(value: &Value, pattern: &Pattern, tokens: &[Token], indexes: &mut Vec<u32>, found: &mut Vec<(JsonPointer, Vec<u32>)>) {
        match (tokens, value) {
            ([], _) => found.push((JsonPointer::new_unchecked(pattern.at(indexes)), indexes.clone())),
            ([Token::Name(name), rest @ ..], Value::Object(members)) => {
                if let Some(member) = members.get(name) {
                    walk(member, pattern, rest, indexes, found);
                }
            }
            ([Token::Name(name), rest @ ..], Value::Array(elements)) => {
                if let Some(element) = array_index(name).and_then(|index| elements.get(usize::try_from(index).ok()?)) {
                    walk(element, pattern, rest, indexes, found);
                }
            }
            ([Token::Each, rest @ ..], Value::Array(elements)) => {
                for (index, element) in (0..).zip(elements) {
                    indexes.push(index);
                    walk(element, pattern, rest, indexes, found);
                    indexes.pop();
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, pattern, pattern.tokens(), &mut Vec::new(), &mut found);
    found
}
