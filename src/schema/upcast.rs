//! Bringing an opened event up to date, and keeping track of what is redacted in it.
//!
//! A payload is parsed once on its way, and no further than its steps look into it, and printed once.

use crate::error::{Error, Result};
use crate::event::{EventType, EventVersion, Part, PersistedEvent};
use crate::pointer::{JsonPointer, Places};
use crate::schema::changes;
use crate::schema::document::Node;
use crate::schema::metadata::Metadata;
use crate::schema::redaction::{Before, Owners};
use crate::schema::step::{Failure, MetadataFn, Step, StepContext, Stepped};
use crate::schema::{ReadAs, Schemas, VersionSchema};
use crate::seal::plan::Plan;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

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

impl Journey {
    /// No step was taken.
    pub(crate) const UNCHANGED: Self = Self { is_whole: true, is_exact: true };
}

/// A payload on its way.
#[derive(Clone)]
struct Moving<'a> {
    event_type: EventType,
    event_version: EventVersion,
    payload: Node<'a>,
    /// Sorted.
    redacted: Vec<JsonPointer>,
    metadata: Rc<Metadata<'a>>,
    /// So far, every step knew what is redacted.
    is_exact: bool,
}

impl Schemas {
    /// Runs the chain from `version` on, whose schema this is: the stored version, or the one that it stands for.
    pub(crate) fn upcast(
        &self,
        ReadAs { schema, version }: ReadAs<'_>,
        readable: Readable,
        out: &mut Vec<PersistedEvent>,
    ) -> Result<Journey> {
        let mut journey = Journey::UNCHANGED;
        let mut event = readable.event;
        event.event_version = version;
        if schema.step.is_none() {
            out.push(event);
            return Ok(journey);
        }
        let (payload, metadata) = (std::mem::take(&mut event.payload), event.metadata.take());
        let start = Moving::start(&mut event, &payload, metadata.as_deref());
        let mut done: Vec<Moving<'_>> = Vec::new();
        // The last one is the next to be looked at, so that parts stay in order.
        let mut open = vec![start];
        while let Some(moving) = open.pop() {
            match self.step_of(&moving) {
                None => done.push(moving),
                Some((schema, step)) => {
                    journey.is_whole &= !matches!(step, Step::Split(..) | Step::Drop);
                    let from = (moving.event_type.clone(), moving.event_version);
                    let next = self.take_step(step, schema.metadata.as_ref(), moving, &event, &readable.owners)?;
                    let parts = done.len() + open.len() + next.len();
                    if parts > self.max_parts {
                        let problem = format!("one event became more than {}: split it into fewer, or raise max_parts", self.max_parts);
                        return Err(failed(&event, from, step, Failure::new(problem)));
                    }
                    open.extend(next.into_iter().rev());
                }
            }
        }
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        for (index, moved) in (0..count).zip(done) {
            journey.is_exact &= moved.is_exact;
            let mut part = event.clone();
            part.metadata = moved.metadata.new_bytes().unwrap_or_else(|| metadata.clone());
            out.push(moved.into_event(part, Part { index, count }));
        }
        Ok(journey)
    }

    /// Takes one step with a readable event, as if it were stored as it is; `None` if it is of a current version.
    #[cfg(feature = "testing")]
    pub(crate) fn step_once(&self, event: &PersistedEvent) -> Result<Option<Vec<PersistedEvent>>> {
        let mut stored = event.clone();
        let (payload, metadata) = (std::mem::take(&mut stored.payload), stored.metadata.take());
        let start = Moving::start(&mut stored, &payload, metadata.as_deref());
        let Some((schema, step)) = self.step_of(&start) else { return Ok(None) };
        let moved = self.take_step(step, schema.metadata.as_ref(), start, &stored, &Owners::default())?;
        let count = u32::try_from(moved.len()).unwrap_or(u32::MAX);
        let parts = (0..count).zip(moved).map(|(index, moved)| {
            let mut part = stored.clone();
            part.metadata = moved.metadata.new_bytes().unwrap_or_else(|| metadata.clone());
            moved.into_event(part, Part { index, count })
        });
        Ok(Some(parts.collect()))
    }

    fn schema_of(&self, event_type: &EventType, version: EventVersion) -> Option<&VersionSchema> {
        self.types.get(event_type)?.version(version)
    }

    fn plan_of(&self, moving: &Moving<'_>) -> Option<&Plan> {
        self.schema_of(&moving.event_type, moving.event_version).map(|schema| &schema.plan)
    }

    /// The next step, if there is one that can be taken.
    fn step_of(&self, moving: &Moving<'_>) -> Option<(&VersionSchema, &Step)> {
        let schema = self.schema_of(&moving.event_type, moving.event_version)?;
        match schema.step.as_ref()? {
            // Nothing is left that says which parts there were.
            Step::Split(..) if moving.is_erased() => None,
            step => Some((schema, step)),
        }
    }

    fn take_step<'a>(
        &'a self,
        step: &'a Step,
        metadata_step: Option<&MetadataFn>,
        mut moving: Moving<'a>,
        event: &PersistedEvent,
        owners: &Owners,
    ) -> Result<Vec<Moving<'a>>> {
        let from = (moving.event_type.clone(), moving.event_version);
        let fail = |failure: Failure| failed(event, from.clone(), step, failure);
        let is_erased = moving.is_erased();
        let payload = std::mem::replace(&mut moving.payload, Node::Text("null"));
        let context = StepContext {
            event_id: event.event_id,
            aggregate: &event.aggregate,
            aggregate_version: event.aggregate_version,
            stored_type: &event.stored_type,
            stored_version: event.stored_version,
            created_at: event.created_at,
            redacted: &moving.redacted,
            metadata: &moving.metadata,
        };
        let metadata = match metadata_step {
            Some(step) => Rc::new(change_metadata(step, &context).map_err(fail)?),
            None => Rc::clone(&moving.metadata),
        };
        let is_exact = moving.is_exact;
        let to = |(event_type, version): (EventType, u32), payload| Moving {
            event_type,
            event_version: EventVersion::new(version),
            payload,
            redacted: Vec::new(),
            metadata: Rc::clone(&metadata),
            is_exact,
        };
        let mut next = match step {
            Step::Drop => return Ok(Vec::new()),
            Step::Next(..) | Step::Change(..) if is_erased => {
                // A payload of which nothing is left has nothing that a step could work on.
                let target = step.targets(&from.0, from.1.get()).pop().unwrap_or_else(|| (from.0.clone(), from.1.get()));
                let mut moved = to(target, payload);
                moved.redacted.clone_from(&moving.redacted);
                if let Some(whole) = self.plan_of(&moved).and_then(|plan| plan.whole.as_ref()) {
                    moved.payload = Node::Text(&whole.stand_in);
                }
                return Ok(vec![moved]);
            }
            Step::Next(function) => {
                let kept = (!moving.redacted.is_empty()).then(|| payload.clone());
                let Stepped { payload, redacted, is_exact } = guarded(|| (function.run)(payload, &context)).map_err(fail)?;
                let target = (from.0.clone(), from.1.get().saturating_add(1));
                let mut moved = to(target, Node::NULL);
                moved.redacted = redacted;
                moved.redacted.sort_unstable();
                if let Some(kept) = kept.filter(|_| !is_exact) {
                    let before = Before::new(kept.into_value().map_err(|_| fail(Failure::unreadable()))?, &moving.redacted);
                    self.find_redacted(&mut moved, &payload, &before, owners, event, false);
                }
                moved.payload = Node::Parsed(payload);
                vec![moved]
            }
            Step::Change(target, changes) => {
                let target = target.clone().unwrap_or_else(|| (from.0.clone(), from.1.get().saturating_add(1)));
                let mut moved = to(target, payload);
                moved.redacted.clone_from(&moving.redacted);
                guarded(|| changes::make(changes, &mut moved.payload, &mut moved.redacted)).map_err(fail)?;
                vec![moved]
            }
            Step::Split(targets, function) => {
                let payload = payload.into_value().map_err(|_| fail(Failure::unreadable()))?;
                let before = (!moving.redacted.is_empty()).then(|| Before::new(payload.clone(), &moving.redacted));
                let mut next = Vec::new();
                for part in guarded(|| function(payload, &context)).map_err(fail)? {
                    let target = (part.event_type, part.event_version);
                    if !targets.contains(&target) {
                        let problem = format!("it returned {} version {}, which is not among its declared targets", target.0, target.1);
                        return Err(fail(Failure::new(problem)));
                    }
                    let mut moved = to(target, Node::NULL);
                    if let Some(before) = &before {
                        self.find_redacted(&mut moved, &part.payload, before, owners, event, true);
                    }
                    moved.payload = Node::Parsed(part.payload);
                    next.push(moved);
                }
                next
            }
        };
        for moved in &mut next {
            let Some(plan) = self.plan_of(moved) else { continue };
            if plan.whole.is_none() && !moved.payload.is_object() {
                return Err(fail(Failure::new("it did not return a JSON object")));
            }
            moved.put_stand_ins(plan);
        }
        Ok(next)
    }
    /// Looks for what is redacted after a function that can't say so itself.
    fn find_redacted(
        &self,
        moved: &mut Moving<'_>,
        payload: &Value,
        before: &Before<'_>,
        owners: &Owners,
        event: &PersistedEvent,
        is_split: bool,
    ) {
        moved.is_exact = false;
        let Some(plan) = self.plan_of(moved) else { return };
        let mut found = before.redacted_after(payload, plan, owners, &event.aggregate, is_split);
        // Plain serde, which a step may call, takes a live null for a redaction.
        found.extend(moved.redacted.drain(..).filter(|place| !before.held_live_null(place)));
        moved.redacted = found.into_iter().collect();
        moved.redacted.sort_unstable();
    }
}

impl<'a> Moving<'a> {
    fn start(event: &mut PersistedEvent, payload: &'a [u8], metadata: Option<&'a [u8]>) -> Self {
        let mut redacted = std::mem::take(&mut event.redacted);
        redacted.sort_unstable();
        Moving {
            event_type: event.event_type.clone(),
            event_version: event.event_version,
            payload: std::str::from_utf8(payload).map_or(Node::Opaque(payload), Node::Text),
            redacted,
            metadata: Rc::new(Metadata::stored(metadata)),
            is_exact: true,
        }
    }

    /// Is the payload redacted as a whole?
    fn is_erased(&self) -> bool {
        self.redacted.iter().any(|place| place.as_str().is_empty())
    }

    /// `event` has everything but the payload.
    fn into_event(self, mut event: PersistedEvent, part: Part) -> PersistedEvent {
        event.payload = self.payload.bytes().into_owned();
        event.event_type = self.event_type;
        event.event_version = self.event_version;
        event.redacted = self.redacted;
        event.part = part;
        event
    }

    /// Puts what the plan says in the redacted places, unless it has nothing to say there.
    fn put_stand_ins(&mut self, plan: &'a Plan) {
        if !self.redacted.is_empty() {
            let stand_in = |place: &JsonPointer| plan.field_at(place).map(|field| &*field.stand_in);
            self.payload.stand_in(&Places::of(&self.redacted), &mut String::new(), &stand_in);
        }
    }
}

fn change_metadata(step: &MetadataFn, context: &StepContext<'_>) -> Result<Metadata<'static>, Failure> {
    if context.metadata.is_unreadable() {
        return Err(Failure::new("the metadata is not JSON"));
    }
    let before = context.metadata().cloned();
    guarded(|| step(before, context)).map(Metadata::changed).map_err(|failure| failure.of("the metadata"))
}

/// Runs a step of the application. A panic is its failure, not that of the whole process.
fn guarded<T>(step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(Failure::new("it panicked")))
}

fn failed(event: &PersistedEvent, from: (EventType, EventVersion), step: &Step, failure: Failure) -> Error {
    Error::Upcast {
        event_id: event.event_id,
        step: step.describe(&from.0, from.1.get()),
        event_type: from.0,
        from: from.1,
        problem: failure.problem,
        source: failure.source,
    }
}
