//! Runs a payload with canaries through a chain of steps, and looks at the result of each step.

use crate::error::{GuardError, chain};
use crate::json::{Leaf, each_leaf, places_of};
use crate::taint::Tainted;
use crate::taint::canary::{Canary, Form, Spot, found};
use crate::taint::report::{TaintFinding, TaintProblem};
use eventseal::schema::{ProtectedPlace, SchemaVersion};
use eventseal::{EventType, EventVersion, PersistedEvent, Schemas};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Version = (EventType, EventVersion);

/// Runs chains, and collects what was found.
pub(super) struct Runner<'a> {
    schemas: &'a Schemas,
    versions: &'a BTreeMap<Version, &'a SchemaVersion>,
    findings: Vec<TaintFinding>,
    /// The versions whose step was taken with canaries.
    taken: BTreeSet<Version>,
    /// The first error of each step that failed.
    failed: BTreeMap<Version, String>,
    /// The protected places that held a canary when the step of their version was taken.
    tainted: BTreeSet<(Version, String)>,
    /// The protected places that held any value when the step of their version was taken.
    reached: BTreeSet<(Version, String)>,
}

/// A document of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    Payload,
    Metadata,
}

impl Document {
    pub(super) const BOTH: [Self; 2] = [Self::Payload, Self::Metadata];

    fn name(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Metadata => "metadata",
        }
    }

    /// The document as JSON; `null` if it is none.
    pub(super) fn of(self, event: &PersistedEvent) -> Value {
        let text = match self {
            Self::Payload => Some(&event.payload),
            Self::Metadata => event.metadata.as_ref(),
        };
        text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default()
    }

    /// The same event with another document.
    pub(super) fn put(self, event: &PersistedEvent, document: &Value) -> PersistedEvent {
        let (mut event, text) = (event.clone(), document.to_string().into_bytes());
        match self {
            Self::Payload => event.payload = text,
            Self::Metadata => event.metadata = Some(text),
        }
        event
    }

    /// The places that a version protects in it.
    pub(super) fn protected(self, version: &SchemaVersion) -> &[ProtectedPlace] {
        match self {
            Self::Payload => &version.protected,
            Self::Metadata => &version.protected_metadata,
        }
    }

    /// A protected pointer, as findings show it.
    pub(super) fn shown(self, pointer: &str) -> String {
        match self {
            Self::Payload => pointer.to_owned(),
            Self::Metadata => format!("{pointer} in the metadata"),
        }
    }
}

/// A step that was taken.
struct Taken {
    from: Version,
    before: PersistedEvent,
    after: Vec<PersistedEvent>,
}

/// How far a payload came on its chain.
struct Journey {
    taken: Vec<Taken>,
    failed: Option<(Version, String)>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(schemas: &'a Schemas, versions: &'a BTreeMap<Version, &'a SchemaVersion>) -> Self {
        Self {
            schemas,
            versions,
            findings: Vec::new(),
            taken: BTreeSet::new(),
            failed: BTreeMap::new(),
            tainted: BTreeSet::new(),
            reached: BTreeSet::new(),
        }
    }

    pub(super) fn find(&mut self, step: &Version, problem: TaintProblem) {
        let finding = TaintFinding { event_type: step.0.clone(), event_version: step.1, problem };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Did the step from this version get a canary at this protected place?
    pub(super) fn has_tainted(&self, version: &Version, pointer: &str) -> bool {
        self.tainted.contains(&(version.clone(), pointer.to_owned()))
    }

    /// Sends a payload with canaries through all steps from its version on.
    pub(super) fn run(&mut self, start: &Version, sample: &PersistedEvent) {
        let Some(version) = self.versions.get(start) else { return };
        if version.step.is_none() {
            return;
        }
        if serde_json::from_slice::<Value>(&sample.payload).is_err() {
            return;
        }
        for document in Document::BOTH {
            let protected = document.protected(version);
            if document == Document::Payload || !protected.is_empty() {
                self.run_document(sample, document, protected);
            }
        }
    }

    fn run_document(&mut self, sample: &PersistedEvent, document: Document, protected: &[ProtectedPlace]) {
        let content = document.of(sample);
        let mut spots = Vec::new();
        let mut number = 0;
        for protected in protected {
            for place in places_of(&content, &protected.pointer) {
                let shown = document.shown(&protected.pointer);
                spots.extend(Spot::all(&content, &shown, &place, &mut number));
            }
        }
        let forms = self.forms(sample, document, &spots);
        let (tainted, canaries) = taint(sample, document, &spots, &forms);
        let journey = self.travel(&tainted);
        if let Some((step, error)) = journey.failed {
            self.failed.entry(step).or_insert(error);
        }
        let mut leaked: Vec<Canary> = Vec::new();
        for taken in journey.taken {
            self.look_at(&taken, &canaries, &mut leaked);
        }
    }

    /// Chooses, for each spot, the form that differs most from the sample and that all steps still accept.
    fn forms(&self, sample: &PersistedEvent, document: Document, spots: &[Spot]) -> Vec<Form> {
        let reach = |forms: &[Form]| {
            let journey = self.travel(&taint(sample, document, spots, forms).0);
            (journey.failed.is_none(), journey.taken.len())
        };
        let all = vec![Form::Words; spots.len()];
        if reach(&all).0 {
            return all;
        }
        let mut forms = vec![Form::Own; spots.len()];
        let own = reach(&forms);
        for index in 0..spots.len() {
            for form in [Form::Words, Form::Letters] {
                let before = std::mem::replace(&mut forms[index], form);
                if reach(&forms) >= own {
                    break;
                }
                forms[index] = before;
            }
        }
        forms
    }

    /// Takes every step that can be taken.
    fn travel(&self, start: &PersistedEvent) -> Journey {
        let mut journey = Journey { taken: Vec::new(), failed: None };
        let mut open = vec![start.clone()];
        while let Some(event) = open.pop() {
            let from = (event.event_type.clone(), event.event_version);
            match self.schemas.step_once(&event) {
                Ok(None) => {}
                Ok(Some(after)) => {
                    open.extend(after.iter().cloned());
                    journey.taken.push(Taken { from, before: event, after });
                }
                Err(error) => drop(journey.failed.get_or_insert((from, chain(&error)))),
            }
        }
        journey
    }

    /// Looks for canaries at unprotected places in the result of a step.
    fn look_at(&mut self, taken: &Taken, canaries: &[Canary], leaked: &mut Vec<Canary>) {
        let Taken { from, before, after } = taken;
        self.taken.insert(from.clone());
        let protected_here = self.protected_here(from, before, canaries);
        let mut leaks: Vec<(Version, String, Canary)> = Vec::new();
        for event in after {
            let target = (event.event_type.clone(), event.event_version);
            for document in Document::BOTH {
                let content = document.of(event);
                let protected = self.versions.get(&target).map(|version| document.protected(version));
                let protected: Vec<String> =
                    protected.into_iter().flatten().flat_map(|place| places_of(&content, &place.pointer)).collect();
                each_leaf(&content, &mut |place, leaf| {
                    if protected.iter().any(|protected| is_within(place, leaf, protected)) {
                        return;
                    }
                    for canary in found(leaf, canaries).filter(|canary| !leaked.contains(canary)) {
                        leaks.push((target.clone(), format!("{}{place}", document.name()), canary.clone()));
                    }
                });
            }
        }
        for (target, pointer, canary) in leaks {
            let (target_type, target_version) = target;
            let here = protected_here.iter().find(|(text, _)| *text == canary.text).map(|(_, place)| place);
            let protected = here.unwrap_or(&canary.protected).clone();
            self.find(from, TaintProblem::Leak { target_type, target_version, pointer, protected });
            // A leak is reported once: the steps that follow do not cause it.
            leaked.push(canary);
        }
    }

    /// The places at which this version protects the canaries. They may have come from an earlier version with other
    /// places.
    fn protected_here(
        &mut self,
        from: &Version,
        before: &PersistedEvent,
        canaries: &[Canary],
    ) -> Vec<(String, String)> {
        let mut protected_here: Vec<(String, String)> = Vec::new();
        let Some(version) = self.versions.get(from) else { return protected_here };
        for document in Document::BOTH {
            let content = document.of(before);
            for protected in document.protected(version) {
                let shown = document.shown(&protected.pointer);
                let key = (from.clone(), shown.clone());
                for place in places_of(&content, &protected.pointer) {
                    let Some(value) = content.pointer(&place).filter(|value| !value.is_null()) else { continue };
                    each_leaf(value, &mut |_, leaf| {
                        if !matches!(leaf, Leaf::Value(_)) {
                            return;
                        }
                        for canary in found(leaf, canaries) {
                            self.tainted.insert(key.clone());
                            protected_here.push((canary.text.clone(), shown.clone()));
                        }
                    });
                    self.reached.insert(key.clone());
                }
            }
        }
        protected_here
    }

    /// Reports if the step from a version was never run, or never run with a value at this place.
    pub(super) fn look_for_gaps(&mut self, version: &Version, pointer: &str) {
        if !self.taken.contains(version) {
            let error =
                self.failed.get(version).cloned().unwrap_or_else(|| "no payload of this version is JSON".to_owned());
            self.find(version, TaintProblem::NotRun { error });
        } else if !self.reached.contains(&(version.clone(), pointer.to_owned())) {
            self.find(version, TaintProblem::NoValue { pointer: pointer.to_owned() });
        }
    }

    pub(super) fn finish(self) -> Result<Tainted, GuardError> {
        if !self.findings.is_empty() {
            return Err(GuardError::Taint { findings: self.findings });
        }
        let not_tainted = self
            .reached
            .difference(&self.tainted)
            .map(|(version, place)| (version.0.clone(), version.1, place.clone()));
        let steps = self.tainted.iter().map(|(version, _)| version).collect::<BTreeSet<_>>().len();
        Ok(Tainted { steps, not_tainted: not_tainted.collect() })
    }
}

/// Is this a value at or inside the protected place, or the name of a member inside it?
fn is_within(place: &str, leaf: Leaf<'_>, protected: &str) -> bool {
    let Some(below) = place.strip_prefix(protected) else { return false };
    below.starts_with('/') || below.is_empty() && matches!(leaf, Leaf::Value(_))
}

/// Puts the canaries into the event, each spot in its form. Returns the event and the texts to look for.
fn taint(sample: &PersistedEvent, document: Document, spots: &[Spot], forms: &[Form]) -> (PersistedEvent, Vec<Canary>) {
    let mut content = document.of(sample);
    let mut canaries = Vec::new();
    let mut own = Vec::new();
    for (spot, form) in spots.iter().zip(forms) {
        let (value, texts) = spot.value(*form);
        if let Some(place) = content.pointer_mut(&spot.place) {
            *place = value;
        }
        let list = if *form == Form::Own { &mut own } else { &mut canaries };
        list.extend(
            texts.into_iter().map(|text| Canary { text: text.to_lowercase(), protected: spot.protected.clone() }),
        );
    }
    // A value of the sample can't serve as a canary if it appears elsewhere too.
    let tainted = if spots.is_empty() { sample.clone() } else { document.put(sample, &content) };
    for of in Document::BOTH {
        each_leaf(&of.of(&tainted), &mut |place, leaf| {
            let may_be_spot = of == document;
            let is_spot = may_be_spot && matches!(leaf, Leaf::Value(_)) && spots.iter().any(|spot| spot.place == place);
            if !is_spot {
                own.retain(|canary| found(leaf, std::slice::from_ref(canary)).next().is_none());
            }
        });
    }
    canaries.extend(own);
    (tainted, canaries)
}
