//! Upcasting: brings an opened event up to date, and keeps track of what is redacted in it.
//!
//! A payload is parsed once on its way through the steps, no deeper than they look into it, and is printed once.

pub(crate) mod changes;
mod metadata;
pub(crate) mod redaction;
mod sealed;
pub(in crate::schema) mod step;

use crate::error::{Error, EventFault, Result};
use crate::event::{EventRef, Part, PersistedEvent, Sealed};
use crate::json::document::Node;
use crate::json::pointer::{JsonPointer, Pattern, Places};
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::changes::Change;
use crate::schema::upcast::metadata::Metadata;
use crate::schema::upcast::redaction::{Before, Beside, Owners};
use crate::schema::upcast::sealed::{AfterStep, BeforeStep, SealedBy, outermost};
use crate::schema::upcast::step::{Failure, Function, MetadataFn, SplitFn, Step, StepContext, Stepped};
use crate::schema::{ReadAs, Schemas, VersionSchema};
use crate::seal::in_the_clear::Hidden;
use crate::seal::plan::Plan;
use crate::seal::stand_in::StandIns;
use serde_json::Value;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

/// An event whose payload is plaintext, or redacted.
pub(crate) struct Readable {
    /// The event as stored, except for the payload and `redacted`.
    pub(crate) event: PersistedEvent,
    /// The owners whose keys it was sealed under.
    pub(crate) owners: Owners,
}

/// What happened to an event on the way to its current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journey {
    /// It is still one event: it was neither split nor dropped.
    pub(crate) is_whole: bool,
    /// Every step knew exactly which places are redacted, so no redaction can have got lost.
    pub(crate) is_exact: bool,
    /// No step was a function, so none can have copied what it saw in the metadata.
    pub(crate) is_declared: bool,
}

impl Journey {
    /// No step was taken.
    pub(crate) const UNCHANGED: Self = Self { is_whole: true, is_exact: true, is_declared: true };
}

/// A payload on its way through the steps.
#[derive(Clone)]
struct Moving<'a> {
    at: TypeVersion,
    payload: Node<'a>,
    /// Sorted.
    redacted: Vec<JsonPointer>,
    sealed: SealedBy,
    /// Where something was sealed before steps that can't say where they put it.
    lost: Vec<JsonPointer>,
    metadata: Rc<Metadata<'a>>,
    /// So far, every step knew exactly which places are redacted.
    is_exact: bool,
}

impl Schemas {
    /// Runs the chain of steps from `version` on. This is the stored version, or the one as which an event without a
    /// version is read.
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
        let stored_metadata = Rc::clone(&start.metadata);
        let metadata_clear = OnceCell::new();
        let beside = Beside {
            aggregate: &event.aggregate,
            metadata: &stored_metadata,
            metadata_plan: &schema.metadata_plan,
            metadata_clear: &metadata_clear,
            clear: None,
        };
        let known = OfEvent { owners: &readable.owners, beside };
        let mut done: Vec<Moving<'_>> = Vec::new();
        // The last one is the next to be taken, so that parts stay in order.
        let mut open = vec![start];
        while let Some(moving) = open.pop() {
            match self.step_of(&moving) {
                None => done.push(moving),
                Some((schema, step)) => {
                    journey.is_whole &= !matches!(step, Step::Split(..) | Step::Drop);
                    journey.is_declared &= matches!(step, Step::Change(..));
                    let from = moving.at.clone();
                    self.steps_taken.add(&schema.taken);
                    let next = self.take_step(step, schema.metadata.as_ref(), moving, &event, known)?;
                    let parts = done.len() + open.len() + next.len();
                    if parts > self.max_parts {
                        let problem = format!(
                            "one event became more than {}: split it into fewer, or raise max_parts",
                            self.max_parts
                        );
                        return Err(failed(&event, &from, step, Failure::new(problem)));
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
            moved.metadata.mark(&stored_metadata, &mut part);
            out.push(moved.into_event(part, Part { index, count }));
        }
        Ok(journey)
    }

    /// Takes one step with an event whose payload is plaintext. It is for tests of a step. `None` if the event is of a
    /// current version, or of a version that is not registered.
    ///
    /// No keys are read, so the owners of redacted values are not known. If a function over values moves a redacted
    /// value, it therefore comes out as a live value more often than when a stored event is read.
    ///
    /// ```
    /// # use eventseal::{
    /// #     AggregateVersion, Changes, GlobalPosition, NewEvent, PersistedEvent, Schemas, aggregate, event,
    /// # };
    /// let moved = Changes::new().move_value("/email", "/contact");
    /// let schemas = Schemas::new([event("OrderPlaced").version(1).version(2).change(1, moved)])?;
    /// let (order, version) = (aggregate("Order", "1"), AggregateVersion::FIRST);
    /// let stored = NewEvent::raw("OrderPlaced", 1, r#"{"email":"ada@example.org"}"#);
    /// let stored = PersistedEvent::from_new(order, version, GlobalPosition::START, stored);
    /// let after = schemas.step_once(&stored)?.unwrap();
    /// assert_eq!(after[0].payload, br#"{"contact":"ada@example.org"}"#);
    /// assert!(schemas.step_once(&after[0])?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`EventFault::StillSealed`] if the payload is sealed: no step sees ciphertext. [`EventFault::Upcast`] if the
    /// step fails.
    pub fn step_once(&self, event: &PersistedEvent) -> Result<Option<Vec<PersistedEvent>>> {
        let still_sealed = || EventFault::StillSealed { event_type: event.event_type.clone() };
        let event_id = event.event_id;
        if event.is_sealed() {
            return Err(Error::Event { event_id, fault: still_sealed() });
        }
        if event.has_sealed_metadata() {
            return Err(Error::Event { event_id, fault: still_sealed().in_metadata() });
        }
        let mut stored = event.clone();
        let (payload, metadata) = (std::mem::take(&mut stored.payload), stored.metadata.take());
        let start = Moving::start(&mut stored, &payload, metadata.as_deref());
        let Some((schema, step)) = self.step_of(&start) else { return Ok(None) };
        let stored_metadata = Rc::clone(&start.metadata);
        let metadata_clear = OnceCell::new();
        let beside = Beside {
            aggregate: &stored.aggregate,
            metadata: &stored_metadata,
            metadata_plan: &schema.metadata_plan,
            metadata_clear: &metadata_clear,
            clear: None,
        };
        let known = OfEvent { owners: &Owners::default(), beside };
        let moved = self.take_step(step, schema.metadata.as_ref(), start, &stored, known)?;
        let count = u32::try_from(moved.len()).unwrap_or(u32::MAX);
        let parts = (0..count).zip(moved).map(|(index, moved)| {
            let mut part = stored.clone();
            part.metadata = moved.metadata.new_bytes().unwrap_or_else(|| metadata.clone());
            moved.metadata.mark(&stored_metadata, &mut part);
            moved.into_event(part, Part { index, count })
        });
        Ok(Some(parts.collect()))
    }

    fn plan_of(&self, moving: &Moving<'_>) -> Option<&Plan> {
        moving.at.find(&self.types).map(|schema| &schema.plan)
    }

    /// The next step, if there is one that can be taken.
    fn step_of(&self, moving: &Moving<'_>) -> Option<(&VersionSchema, &Step)> {
        let schema = moving.at.find(&self.types)?;
        match schema.step.as_ref()? {
            // The payload is erased, so nothing says which parts there were.
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
        known: OfEvent<'_>,
    ) -> Result<Vec<Moving<'a>>> {
        let payload = std::mem::replace(&mut moving.payload, Node::Text("null"));
        let fail = |failure: Failure| failed(event, &moving.at, step, failure);
        let context = StepContext {
            event_id: event.event_id,
            aggregate: &event.aggregate,
            aggregate_version: event.aggregate_version,
            stored_type: &event.stored_type,
            stored_version: event.stored_version,
            created_at: event.created_at,
            redacted: &moving.redacted,
            redacted_metadata: &event.redacted_metadata,
            metadata: &moving.metadata,
        };
        let metadata = match metadata_step {
            Some(step) => Rc::new(change_metadata(step, &context).map_err(fail)?),
            None => Rc::clone(&moving.metadata),
        };
        let OfEvent { owners, beside } = known;
        let transit = Transit { schemas: self, from: &moving, metadata, context: &context, owners, beside };
        let next = match step {
            Step::Drop => return Ok(Vec::new()),
            Step::Next(..) | Step::Change(..) if moving.is_erased() => return Ok(vec![transit.erased(step, payload)]),
            Step::Next(function) => transit.next(function, payload).map(|moved| vec![moved]),
            Step::Change(target, changes) => transit.change(target.as_ref(), changes, payload).map(|moved| vec![moved]),
            Step::Split(targets, function) => transit.split(targets, function, payload),
        };
        let mut next = next.map_err(fail)?;
        for moved in &mut next {
            let Some(schema) = moved.at.find(&self.types) else { continue };
            if schema.plan.whole.is_none() && !moved.payload.is_object() {
                return Err(fail(Failure::new("it did not return a JSON object")));
            }
            moved.put_stand_ins(schema, event);
        }
        Ok(next)
    }
}

/// What is known of a stored event beside its payload.
#[derive(Clone, Copy)]
struct OfEvent<'t> {
    /// The owners whose keys it was sealed under.
    owners: &'t Owners,
    beside: Beside<'t>,
}

/// A step that is being taken.
struct Transit<'t, 'a> {
    schemas: &'a Schemas,
    /// The event before the step, without its payload.
    from: &'t Moving<'a>,
    /// The metadata after the step.
    metadata: Rc<Metadata<'a>>,
    context: &'t StepContext<'t>,
    owners: &'t Owners,
    beside: Beside<'t>,
}

impl<'a> Transit<'_, 'a> {
    /// A payload at the version `at`. Its redacted places are not known yet.
    fn to(&self, at: TypeVersion, payload: Node<'a>) -> Moving<'a> {
        Moving {
            at,
            payload,
            redacted: Vec::new(),
            sealed: SealedBy::new(),
            lost: self.from.lost.clone(),
            metadata: Rc::clone(&self.metadata),
            is_exact: self.from.is_exact,
        }
    }

    /// Takes a payload that is erased as a whole to the next version. The step is not called, because nothing is left
    /// that it could work on.
    fn erased(&self, step: &Step, payload: Node<'a>) -> Moving<'a> {
        let target = step.targets(&self.from.at).pop().unwrap_or_else(|| self.from.at.clone());
        let mut moved = self.to(target, payload);
        moved.redacted.clone_from(&self.from.redacted);
        moved.sealed.clone_from(&self.from.sealed);
        if let Some(whole) = self.schemas.plan_of(&moved).and_then(|plan| plan.whole.as_ref()) {
            moved.payload = Node::Text(&whole.stand_in);
        }
        moved
    }

    fn next(&self, function: &Function, payload: Node<'a>) -> Result<Moving<'a>, Failure> {
        let kept = (!self.from.redacted.is_empty()).then(|| payload.clone());
        let mut before = self.before(&payload);
        let Stepped { payload, redacted, is_exact } = guarded(|| (function.run)(payload, self.context))?;
        let mut moved = self.to(self.from.at.next(), Node::NULL);
        moved.redacted = redacted;
        moved.redacted.sort_unstable();
        if let Some(kept) = kept.filter(|_| !is_exact) {
            let before = Before::new(kept.into_value().map_err(|_| Failure::unreadable())?, &self.from.redacted);
            self.find_redacted(&mut moved, &payload, &before, false);
        }
        self.find_sealed(&mut moved, &payload, before.as_mut(), false);
        moved.payload = Node::Parsed(payload);
        Ok(moved)
    }

    fn change(
        &self,
        target: Option<&TypeVersion>,
        changes: &'a [Change<Pattern>],
        payload: Node<'a>,
    ) -> Result<Moving<'a>, Failure> {
        let mut moved = self.to(target.cloned().unwrap_or_else(|| self.from.at.next()), payload);
        moved.redacted.clone_from(&self.from.redacted);
        moved.sealed.clone_from(&self.from.sealed);
        guarded(|| changes::make(changes, &mut moved.payload, &mut moved.redacted, &mut moved.sealed))?;
        Ok(moved)
    }

    fn split(
        &self,
        targets: &[TypeVersion],
        function: &SplitFn,
        payload: Node<'a>,
    ) -> Result<Vec<Moving<'a>>, Failure> {
        let mut before_parts = self.before(&payload);
        let payload = payload.into_value().map_err(|_| Failure::unreadable())?;
        let before = (!self.from.redacted.is_empty()).then(|| Before::new(payload.clone(), &self.from.redacted));
        let mut next = Vec::new();
        for part in guarded(|| function(payload, self.context))? {
            let target = TypeVersion::new(part.event_type, part.event_version);
            if !targets.contains(&target) {
                let TypeVersion { event_type, event_version } = target;
                let problem = format!(
                    "it returned {event_type} version {event_version}, which is not among its declared targets"
                );
                return Err(Failure::new(problem));
            }
            let mut moved = self.to(target, Node::NULL);
            if let Some(before) = &before {
                self.find_redacted(&mut moved, &part.payload, before, true);
            }
            self.find_sealed(&mut moved, &part.payload, before_parts.as_mut(), true);
            moved.payload = Node::Parsed(part.payload);
            next.push(moved);
        }
        Ok(next)
    }

    /// The event before the step, to find its sealed values again after it; `None` if it has none.
    fn before(&self, payload: &Node<'a>) -> Option<BeforeStep<'_, 'a>> {
        let Moving { sealed, redacted, .. } = self.from;
        (!sealed.is_empty()).then(|| BeforeStep { payload: payload.clone(), sealed, redacted })
    }

    /// Finds out where sealed values are after a function. `moved` has its redacted places already.
    fn find_sealed(
        &self,
        moved: &mut Moving<'_>,
        payload: &Value,
        before: Option<&mut BeforeStep<'_, 'a>>,
        is_part: bool,
    ) {
        let Some(before) = before else { return };
        let after = AfterStep { payload, redacted: &moved.redacted, plan: self.schemas.plan_of(moved), is_part };
        moved.sealed = before.sealed_after(&after, self.owners, self.beside);
    }

    /// Finds out which places are redacted after a function that can't say so itself.
    fn find_redacted(&self, moved: &mut Moving<'_>, payload: &Value, before: &Before<'_>, is_split: bool) {
        moved.is_exact = false;
        moved.lost.extend(self.from.sealed_places().cloned());
        let Some(plan) = self.schemas.plan_of(moved) else { return };
        let mut found = before.redacted_after(payload, plan, self.owners, self.beside, is_split);
        // A step may read a `Sensitive` with plain serde, which takes a live null for a redaction.
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
            at: TypeVersion { event_type: event.event_type.clone(), event_version: event.event_version },
            payload: std::str::from_utf8(payload).map_or(Node::Opaque(payload), Node::Text),
            redacted,
            sealed: std::mem::take(&mut event.sealed).places().into_iter().collect(),
            lost: Vec::new(),
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
        event.event_type = self.at.event_type;
        event.event_version = self.at.event_version;
        event.redacted = self.redacted;
        event.sealed = match self.sealed.is_empty() {
            true => Sealed::default(),
            false => Sealed::by(Arc::new(outermost(self.sealed))),
        };
        event.part = part;
        event
    }

    /// Puts the stand-ins of this version at the redacted places that it protects.
    fn put_stand_ins(&mut self, schema: &'a VersionSchema, event: &PersistedEvent) {
        if self.redacted.is_empty() {
            return;
        }
        let plan = &schema.plan;
        // Functions see the payload as it is now, so that they see the same in a copy that is rewritten like this.
        let before = plan.computes_stand_ins().then(|| (self.payload.bytes(), self.metadata.bytes()));
        let stand_ins = before.as_ref().map(|(payload, metadata)| {
            let metadata = metadata.as_deref().filter(|_| !self.metadata.may_hide(event));
            let now = EventRef { text: payload, beside: metadata, ..event.as_stored() };
            StandIns::hiding(plan, now, self.hidden(event))
        });
        let stand_in = |place: &JsonPointer| {
            let field = plan.field_at(place)?;
            let computed = stand_ins.as_ref().zip(field.stand_in_by.as_ref());
            Some(match computed {
                Some((stand_ins, function)) => Node::Parsed(stand_ins.computed_by(function)),
                None => Node::Text(&field.stand_in),
            })
        };
        self.payload.stand_in(&Places::of(&self.redacted), &mut String::new(), &stand_in);
    }

    /// Where something is sealed, or was and is erased.
    fn sealed_places(&self) -> impl Iterator<Item = &JsonPointer> {
        self.redacted.iter().chain(self.sealed.keys())
    }

    /// What functions must not see: places that are or were sealed, whatever this version protects.
    fn hidden(&self, event: &PersistedEvent) -> Hidden {
        let sealed_metadata = event.sealed_metadata.places().into_iter().map(|(place, _)| place);
        Hidden {
            here: self.sealed_places().chain(&self.lost).cloned().collect(),
            beside: event.redacted_metadata.iter().cloned().chain(sealed_metadata).collect(),
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

/// Runs a step of the application. If it panics, that is a failure of the step, and the process goes on.
fn guarded<T>(step: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(Failure::new("it panicked")))
}

fn failed(event: &PersistedEvent, from: &TypeVersion, step: &Step, failure: Failure) -> Error {
    Error::Event {
        event_id: event.event_id,
        fault: EventFault::Upcast {
            step: step.describe(from),
            event_type: from.event_type.clone(),
            from: from.event_version,
            problem: failure.problem,
            source: failure.source,
        },
    }
}
