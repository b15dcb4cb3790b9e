//! Bringing an opened event up to date, and keeping track of what is redacted in it.

use crate::error::{Error, Result};
use crate::event::{EventType, EventVersion, Part, PersistedEvent};
use crate::pointer::JsonPointer;
use crate::schema::redaction::{Before, Owners};
use crate::schema::step::{Failure, Step, StepContext, Stepped};
use crate::schema::{Schemas, VersionSchema};
use crate::seal::plan::Plan;
use serde_json::Value;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many events one stored event may become.
const MAX_PARTS: usize = 1_000;

/// An event whose payload is plaintext, or redacted.
pub(crate) struct Readable {
    /// As stored, but for the payload and `redacted`.
    pub(crate) event: PersistedEvent,
    /// Whose keys it was sealed under.
    pub(crate) owners: Owners,
}

/// What became of an event on the way to its current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journey {
    /// It is still one event: it was neither split nor dropped.
    pub(crate) is_whole: bool,
    /// Every step knew what is redacted: no redaction can have got lost.
    pub(crate) is_exact: bool,
}

/// A payload on its way.
#[derive(Clone)]
struct Moving {
    event_type: EventType,
    event_version: EventVersion,
    payload: Value,
    redacted: Vec<JsonPointer>,
    /// So far, every step knew what is redacted.
    is_exact: bool,
}

impl Schemas {
    /// Runs the chain from the stored version on. `schema` is that of the stored version.
    pub(crate) fn upcast(&self, schema: &VersionSchema, readable: Readable, out: &mut Vec<PersistedEvent>) -> Result<Journey> {
        let mut journey = Journey { is_whole: true, is_exact: true };
        if schema.step.is_none() {
            out.push(readable.event);
            return Ok(journey);
        }
        let mut event = readable.event;
        let payload = std::mem::take(&mut event.payload);
        let mut redacted = std::mem::take(&mut event.redacted);
        redacted.sort_unstable();
        let parsed = serde_json::from_slice(&payload)
            .map_err(|_| Failure { problem: "the payload is not JSON that serde_json can hold".to_owned(), source: None });
        let start = Moving {
            event_type: event.event_type.clone(),
            event_version: event.event_version,
            payload: Value::Null,
            redacted,
            is_exact: true,
        };
        let payload = parsed.map_err(|error| failed(&event, &start, error))?;
        let mut done: Vec<Moving> = Vec::new();
        // The last one is the next to be looked at, so that parts stay in order.
        let mut open = vec![Moving { payload, ..start.clone() }];
        while let Some(moving) = open.pop() {
            match self.step_of(&moving) {
                None => done.push(moving),
                Some(step) => {
                    journey.is_whole &= !matches!(step, Step::Split(..) | Step::Drop);
                    let next = self.take_step(step, moving, &event, &readable.owners)?;
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
            journey.is_exact &= moved.is_exact;
            out.push(moved.into_event(&event, Part { index, count }));
        }
        Ok(journey)
    }

    /// Takes one step with a readable event, as if it were stored as it is; `None` if it is of a current version.
    #[cfg_attr(not(test), allow(dead_code, reason = "for the guards of the feature testing"))]
    pub(crate) fn step_once(&self, event: &PersistedEvent) -> Result<Option<Vec<PersistedEvent>>> {
        let mut redacted = event.redacted.clone();
        redacted.sort_unstable();
        let start = Moving {
            event_type: event.event_type.clone(),
            event_version: event.event_version,
            payload: Value::Null,
            redacted,
            is_exact: true,
        };
        let Some(step) = self.step_of(&start) else { return Ok(None) };
        let payload = serde_json::from_slice(&event.payload)
            .map_err(|_| Failure { problem: "the payload is not JSON that serde_json can hold".to_owned(), source: None })
            .map_err(|failure| failed(event, &start, failure))?;
        let moved = self.take_step(step, Moving { payload, ..start }, event, &Owners::default())?;
        let count = u32::try_from(moved.len()).unwrap_or(u32::MAX);
        Ok(Some((0..count).zip(moved).map(|(index, moved)| moved.into_event(event, Part { index, count })).collect()))
    }

    fn schema_of(&self, event_type: &EventType, version: EventVersion) -> Option<&VersionSchema> {
        self.types.get(event_type)?.version(version)
    }

    fn plan_of(&self, moving: &Moving) -> Option<&Plan> {
        self.schema_of(&moving.event_type, moving.event_version).map(|schema| &schema.plan)
    }

    /// The next step, if there is one that can be taken.
    fn step_of(&self, moving: &Moving) -> Option<&Step> {
        match self.schema_of(&moving.event_type, moving.event_version)?.step.as_ref()? {
            // Nothing is left that says which parts there were.
            Step::Split(..) if moving.is_erased() => None,
            step => Some(step),
        }
    }

    fn take_step(&self, step: &Step, mut moving: Moving, event: &PersistedEvent, owners: &Owners) -> Result<Vec<Moving>> {
        if matches!(step, Step::Next(..)) && moving.is_erased() {
            return Ok(vec![self.erased_at_next(moving)]);
        }
        let payload = std::mem::take(&mut moving.payload);
        let context = StepContext {
            aggregate: &event.aggregate,
            aggregate_version: event.aggregate_version,
            stored_type: &event.stored_type,
            stored_version: event.stored_version,
            created_at: event.created_at,
            redacted: &moving.redacted,
        };
        let before = (!moving.redacted.is_empty()).then(|| Before::new(&payload, &moving.redacted));
        // Whether the step itself knows what is redacted, and whether it made parts.
        let (mut next, is_exact, is_split) = match step {
            Step::Drop => return Ok(Vec::new()),
            Step::Next(_, step) => {
                let stepped = guarded(|| step(payload, &context)).map_err(|error| failed(event, &moving, error))?;
                let Stepped { payload, redacted, is_exact } = stepped;
                (
                    vec![Moving {
                        event_type: moving.event_type.clone(),
                        event_version: moving.next_version(),
                        payload,
                        redacted,
                        is_exact: true,
                    }],
                    is_exact,
                    false,
                )
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
                    next.push(Moving { event_type: target.0, event_version, payload: part.payload, redacted: Vec::new(), is_exact: true });
                }
                (next, false, true)
            }
        };
        for target in &mut next {
            target.is_exact = moving.is_exact && (is_exact || before.is_none());
            let Some(plan) = self.plan_of(target) else { continue };
            if !target.payload.is_object() && plan.whole.is_none() {
                let problem = "the step did not return a JSON object".to_owned();
                return Err(failed(event, &moving, Failure { problem, source: None }));
            }
            if let Some(before) = &before {
                if !is_exact {
                    let found = before.redacted_after(&target.payload, plan, owners, &event.aggregate, is_split);
                    // Where serde loses track of places, a `Sensitive` takes a live null for a redaction.
                    target.redacted.retain(|place| !before.held_live_null(place));
                    let told: HashSet<JsonPointer> = target.redacted.drain(..).collect();
                    target.redacted = found.union(&told).cloned().collect();
                }
                target.redacted.sort_unstable();
                target.put_stand_ins(plan);
            }
        }
        Ok(next)
    }

    /// A payload of which nothing is left has nothing that a step could work on: it comes to the next
    /// version as it is, with that version's stand-in if it has one for the whole.
    fn erased_at_next(&self, mut moving: Moving) -> Moving {
        moving.event_version = moving.next_version();
        if let Some(whole) = self.plan_of(&moving).and_then(|plan| plan.whole.as_ref()) {
            moving.payload = serde_json::from_str(&whole.stand_in).unwrap_or_default();
        }
        moving
    }
}

impl Moving {
    /// Is the payload redacted as a whole?
    fn is_erased(&self) -> bool {
        self.redacted.iter().any(|place| place.as_str().is_empty())
    }

    fn into_event(self, stored: &PersistedEvent, part: Part) -> PersistedEvent {
        let mut event = stored.clone();
        // Writing a Value as JSON does not fail: its keys are strings.
        event.payload = self.payload.to_string().into_bytes();
        event.event_type = self.event_type;
        event.event_version = self.event_version;
        event.redacted = self.redacted;
        event.part = part;
        event
    }

    fn next_version(&self) -> EventVersion {
        EventVersion::new(self.event_version.get().saturating_add(1))
    }

    /// Puts what the plan says in the redacted places, unless it has nothing to say there.
    fn put_stand_ins(&mut self, plan: &Plan) {
        for place in &self.redacted {
            if let (Some(field), Some(value)) = (plan.field_at(place), self.payload.pointer_mut(place.as_str())) {
                *value = serde_json::from_str(&field.stand_in).unwrap_or_default();
            }
        }
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
