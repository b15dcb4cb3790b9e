//! Checks that the Rust types that events are decoded into fit the schemas.

use crate::error::Result;
use crate::event::{AggregateVersion, EventType, GlobalPosition, NewEvent, PayloadType, PersistedEvent, aggregate};
use crate::json::pointer::JsonPointer;
use crate::schema::TypeSchema;
use crate::schema::check::Found;
use crate::schema::problem::SchemaProblem;
use crate::schema::type_version::TypeVersion;
use crate::schema::typed::Events;
use crate::schema::upcast::step::Step;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The types and versions that a Rust type declares to decode.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    target: &'static str,
    arms: &'static [(&'static str, u32)],
    has_catch_all: bool,
    can_decode: fn(&PersistedEvent) -> Result<()>,
    /// The payload types of the arms, in their order; empty if they are not known.
    payload_types: Vec<PayloadType>,
}

impl Decoder {
    pub(crate) fn of<E: Events>() -> Self {
        Self {
            target: std::any::type_name::<E>(),
            arms: E::DECODES,
            has_catch_all: E::HAS_CATCH_ALL,
            can_decode: |event| E::decode(event).map(drop),
            payload_types: E::payload_types(),
        }
    }

    fn decodes(&self, event_type: &EventType) -> bool {
        self.arms.iter().any(|(name, _)| *name == event_type.as_str())
    }
}

/// The Rust types that events are decoded into, by type and version.
pub(crate) fn decoded_into(decoders: &[Decoder]) -> HashMap<TypeVersion, Vec<PayloadType>> {
    let mut all: HashMap<TypeVersion, Vec<PayloadType>> = HashMap::new();
    for decoder in decoders {
        for (&(event_type, version), payload_type) in decoder.arms.iter().zip(&decoder.payload_types) {
            all.entry(TypeVersion::new(event_type.into(), version)).or_default().push(*payload_type);
        }
    }
    all
}

/// Checks that each Rust type decodes types and versions that readers see.
pub(crate) fn check_decoders(decoders: &[Decoder], types: &HashMap<EventType, TypeSchema>, found: &mut Found) {
    let (unsplittable, erased) = (unsplittable_once_erased(types), erased_wholes(types));
    for decoder in decoders {
        let mut seen = HashSet::new();
        for &(name, version) in decoder.arms {
            let event_type = EventType::from(name);
            if !seen.insert(name) {
                found.add(&event_type, None, SchemaProblem::DecodedTwice(decoder.target));
                continue;
            }
            let Some(schema) = types.get(&event_type) else {
                found.add(&event_type, None, SchemaProblem::NotRegistered(decoder.target));
                continue;
            };
            // A type without versions is reported as a problem of its own.
            let Some(last) = schema.versions.last() else { continue };
            let current = schema.last().get();
            // If the last step stays within the type, it leads to a version that is missing. That is reported as a
            // problem of its own too.
            let at = TypeVersion { event_type: event_type.clone(), event_version: schema.last() };
            let leads_elsewhere = |step: &Step| step.targets(&at).iter().all(|target| target.event_type != event_type);
            if last.step.as_ref().is_some_and(leads_elsewhere) {
                found.add(&event_type, Some(current), SchemaProblem::NeverSeen(decoder.target));
            } else if version != current {
                found.add(&event_type, Some(version), SchemaProblem::NotCurrent(decoder.target, current));
            } else {
                for (_, stand_in) in erased.iter().filter(|(end, _)| *end == at) {
                    if (decoder.can_decode)(&erased_event(name, version, stand_in)).is_err() {
                        found.add(
                            &event_type,
                            Some(version),
                            SchemaProblem::UndecodableOnceErased(decoder.target, stand_in.to_string()),
                        );
                    }
                }
            }
        }
        if !decoder.has_catch_all {
            for (at, targets) in &unsplittable {
                if leads_to_decoded(targets, types, decoder) {
                    found.add(&at.event_type, Some(at.number()), SchemaProblem::NeedsCatchAll(decoder.target));
                }
            }
        }
    }
}

/// The versions that are split, and that erased events can reach which can't be split: events that were protected
/// whole, in this version or in an earlier one. Readers see those events unchanged. Each version comes with the targets
/// of its split.
fn unsplittable_once_erased(types: &HashMap<EventType, TypeSchema>) -> BTreeMap<TypeVersion, &Vec<TypeVersion>> {
    let all = types.iter().flat_map(|(name, schema)| schema.numbered(name));
    let mut open: Vec<TypeVersion> =
        all.filter(|(_, version)| version.plan.whole.is_some()).map(|(at, _)| at).collect();
    let (mut found, mut seen) = (BTreeMap::new(), HashSet::new());
    while let Some(at) = open.pop() {
        let Some(step) = at.find(types).and_then(|schema| schema.step.as_ref()) else { continue };
        if !seen.insert(at.clone()) {
            continue;
        }
        match step {
            Step::Split(targets, _) => {
                found.insert(at, targets);
            }
            step => open.extend(step.targets(&at)),
        }
    }
    found
}

/// The final type and version of each event that is protected whole and then erased, and the stand-in that it carries
/// there. No step is called for such an event. It takes the stand-in of every version on its way that is protected
/// whole.
fn erased_wholes(types: &HashMap<EventType, TypeSchema>) -> BTreeSet<(TypeVersion, Arc<str>)> {
    let whole_at = |at: &TypeVersion| at.find(types).and_then(|schema| schema.plan.whole.as_ref());
    let all = types.iter().flat_map(|(name, schema)| schema.numbered(name));
    let mut open: Vec<_> = all
        .filter_map(|(at, version)| version.plan.whole.as_ref().map(|whole| (at, Arc::clone(&whole.stand_in))))
        .collect();
    let (mut found, mut seen) = (BTreeSet::new(), HashSet::new());
    while let Some((at, stand_in)) = open.pop() {
        if !seen.insert((at.clone(), Arc::clone(&stand_in))) {
            continue;
        }
        match at.find(types).map(|schema| schema.step.as_ref()) {
            Some(None) => drop(found.insert((at, stand_in))),
            // An erased event is not split.
            None | Some(Some(Step::Split(..))) => {}
            Some(Some(step)) => open.extend(step.targets(&at).into_iter().map(|target| {
                let stand_in =
                    whole_at(&target).map_or_else(|| Arc::clone(&stand_in), |whole| Arc::clone(&whole.stand_in));
                (target, stand_in)
            })),
        }
    }
    found
}

/// The event that readers get once it is erased.
fn erased_event(event_type: &str, version: u32, stand_in: &str) -> PersistedEvent {
    let event = NewEvent::raw(event_type, version, stand_in);
    let event =
        PersistedEvent::from_new(aggregate("Erased", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    PersistedEvent { redacted: vec![JsonPointer::root()], ..event }
}

fn leads_to_decoded(targets: &[TypeVersion], types: &HashMap<EventType, TypeSchema>, decoder: &Decoder) -> bool {
    let mut open: Vec<TypeVersion> = targets.to_vec();
    let mut seen = HashSet::new();
    while let Some(target) = open.pop() {
        if decoder.decodes(&target.event_type) {
            return true;
        }
        if let Some(step) = target.find(types).and_then(|schema| schema.step.as_ref())
            && !seen.contains(&target)
        {
            open.extend(step.targets(&target));
            seen.insert(target);
        }
    }
    false
}
