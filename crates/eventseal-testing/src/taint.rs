//! [`TaintCheck`]: no step may copy a protected value to an unprotected place.

mod canary;
mod chain;
mod payload;
mod report;

pub(super) use report::ADVICE;
pub use report::{TaintFinding, TaintProblem};

use crate::error::GuardError;
use crate::golden::GoldenCorpus;
use crate::shape::sample_of;
use chain::{Document, Runner, Version};
use eventseal::schema::SchemaVersion;
use eventseal::{
    AggregateVersion, EventType, EventVersion, GlobalPosition, NewEvent, PersistedEvent, Schemas, aggregate,
};
use payload::complete;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// Sends canaries through every chain of steps, and looks where they come out.
///
/// A canary is a value that appears nowhere else. It replaces a value at a protected place of a sample payload. After
/// every step, no canary may be at a place that the target version does not protect: not as a value, not inside a
/// longer text or a member's name, not in the metadata, and in no part of a split.
///
/// # Samples
/// Payloads come from [`sample`](Self::sample) and [`samples_of`](Self::samples_of), and from the steps before. If a
/// version has none, one is made up: from what the step's Rust type reads, or from the protected places and the ids of
/// their owners. If a step accepts none of these, the check fails and asks for a sample. It also fails if no payload
/// has a value at a protected place.
///
/// A step may check texts, such as dates, ids and codes. Then the canary has the form of the sample's value. If the
/// step refuses that too, the sample's own value is the canary. So choose values that appear nowhere else: not
/// elsewhere in the sample, and not in what steps add. This also holds for their parts: numbers, such as a year, and
/// words of six letters or more.
///
/// # What it can't see
/// - Booleans and `null`s. Texts shorter than four characters and numbers shorter than four digits, if the step accepts
///   no other value. The shorter parts of a date or an id that the step checks.
/// - Values that a step encodes, hashes, takes apart within a word, or calculates with (an amount in other units, an
///   age).
/// - What a step does with other payloads than these.
///
/// [`Tainted::not_tainted`] names the places where nothing could be seen.
///
/// ```
/// use eventseal_testing::{GuardError, TaintCheck};
/// use serde_json::json;
/// # use eventseal::{Owner, Schemas, event};
/// # use serde_json::{Map, Value};
/// # fn schemas() -> Result<Schemas, eventseal::schema::SchemaErrors> {
/// #     let registered = event("Registered").version(1).protect(&["/name"], Owner::Aggregate);
/// #     let registered = registered.version(2).protect(&["/person/name"], Owner::Aggregate);
/// #     let step = |mut old: Value| Ok::<_, std::fmt::Error>(json!({ "person": { "name": old["name"].take() } }));
/// #     Schemas::new([registered.upcast(1, step)])
/// # }
///
/// # /*
/// #[test]
/// # */
/// fn no_step_copies_what_is_protected() -> Result<(), GuardError> {
///     TaintCheck::new(&schemas()?)
///         .sample("Registered", 1, json!({ "name": "Ada Lovelace", "plan": "basic" }))
///         .check()
///         .map(drop)
/// }
/// # no_step_copies_what_is_protected()?;
/// # Ok::<(), GuardError>(())
/// ```
#[must_use = "check() it"]
pub struct TaintCheck<'s> {
    schemas: &'s Schemas,
    samples: BTreeMap<(EventType, EventVersion), Vec<PersistedEvent>>,
}

/// A summary of a taint check that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tainted {
    /// How many steps were run with canaries.
    pub steps: usize,
    /// Protected places, each with its type and version, whose values could not be told apart from others. A copy of
    /// such a value would not have been found.
    pub not_tainted: Vec<(EventType, EventVersion, String)>,
}

impl<'s> TaintCheck<'s> {
    /// A check of the service's registry of schemas.
    pub fn new(schemas: &'s Schemas) -> Self {
        Self { schemas, samples: BTreeMap::new() }
    }

    /// Gives a sample payload of a version. It should have a value at each protected place.
    #[allow(clippy::needless_pass_by_value, reason = "reads as a payload at the call site")]
    pub fn sample(mut self, event_type: impl Into<EventType>, version: u32, payload: Value) -> Self {
        let event = sample_event(event_type.into(), EventVersion::new(version), &payload);
        self.samples.entry((event.event_type.clone(), event.event_version)).or_default().push(event);
        self
    }

    /// Takes all events of a corpus as samples.
    pub fn samples_of(mut self, corpus: &GoldenCorpus) -> Self {
        for event in corpus.plain_events() {
            self.samples.entry((event.stored_type.clone(), event.event_version)).or_default().push(event);
        }
        self
    }

    /// Runs every step with canaries.
    ///
    /// # Errors
    /// [`GuardError::Taint`] names every place to which a step copied a protected value, and every step that could not
    /// be run.
    pub fn check(&self) -> Result<Tainted, GuardError> {
        let versions = self.schemas.versions();
        let by_name: BTreeMap<Version, &SchemaVersion> =
            versions.iter().map(|version| ((version.event_type.clone(), version.event_version), version)).collect();
        let mut runner = Runner::new(self.schemas, &by_name);
        for name in self.samples.keys().filter(|name| !by_name.contains_key(*name)) {
            runner.find(name, TaintProblem::NotRegistered);
        }
        for (name, samples) in &self.samples {
            samples.iter().for_each(|sample| runner.run(name, sample));
        }
        let protects = |version: &SchemaVersion| Document::BOTH.iter().any(|of| !of.protected(version).is_empty());
        let with_steps = |(_, version): &(&Version, &&SchemaVersion)| version.step.is_some() && protects(version);
        // In the order of versions, so that the result of one step is a sample for the next.
        for (name, version) in by_name.iter().filter(with_steps) {
            for start in self.made_up(name, version, &runner) {
                runner.run(name, &start);
            }
        }
        for (name, version) in by_name.iter().filter(with_steps) {
            for place in protected_places(version) {
                runner.look_for_gaps(name, &place);
            }
        }
        runner.finish()
    }

    /// Makes up payloads, if there are protected places that no payload has brought a canary to so far.
    fn made_up(&self, name: &Version, version: &SchemaVersion, runner: &Runner<'_>) -> Vec<PersistedEvent> {
        if protected_places(version).all(|place| runner.has_tainted(name, &place)) {
            return Vec::new();
        }
        let mut made_up: Vec<PersistedEvent> = Vec::new();
        for sample in self.samples.get(name).into_iter().flatten() {
            if serde_json::from_slice::<Value>(&sample.payload).is_ok() {
                made_up.push(completed(sample.clone(), version));
            }
        }
        let by_step = version.step.as_ref().and_then(|step| step.reads);
        let read = by_step.or(version.decoded_into.first().copied()).and_then(sample_of);
        for payload in read.filter(Value::is_object).into_iter().chain([Value::Object(Map::new())]) {
            made_up.push(completed(sample_event(name.0.clone(), name.1, &payload), version));
        }
        made_up
    }
}

/// The protected places of both documents.
fn protected_places(version: &SchemaVersion) -> impl Iterator<Item = String> {
    let of = |document: Document| document.protected(version).iter().map(move |place| document.shown(&place.pointer));
    Document::BOTH.into_iter().flat_map(of)
}

/// The event with a value at every protected place.
fn completed(event: PersistedEvent, version: &SchemaVersion) -> PersistedEvent {
    Document::BOTH.into_iter().filter(|document| !document.protected(version).is_empty()).fold(
        event,
        |event, document| {
            let mut content = document.of(&event);
            complete(&mut content, version, document);
            document.put(&event, &content)
        },
    )
}

fn sample_event(event_type: EventType, version: EventVersion, payload: &Value) -> PersistedEvent {
    // A fixed id, so that it can't contain the digits of a canary by chance.
    let event = NewEvent::raw(event_type, version.get(), payload.to_string()).with_id(Uuid::nil());
    let event = event.with_created_at(OffsetDateTime::UNIX_EPOCH);
    PersistedEvent::from_new(aggregate("Sample", "sample-1"), AggregateVersion::FIRST, GlobalPosition::START, event)
}

impl fmt::Debug for TaintCheck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaintCheck").field("schemas", &self.schemas).field("samples", &self.samples.keys()).finish()
    }
}
