//! Do the Rust types that events are decoded into fit the schemas?

use crate::error::Result;
use crate::event::{
    AggregateVersion, EventType, GlobalPosition, NewEvent, PayloadType, PersistedEvent, TypedEvent, aggregate,
};
use crate::json::pointer::JsonPointer;
use crate::schema::TypeSchema;
use crate::schema::check::Found;
use crate::schema::problem::SchemaProblem;
use crate::schema::type_version::TypeVersion;
use crate::schema::upcast::step::Step;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What a Rust type says that it decodes.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    target: &'static str,
    arms: &'static [(&'static str, u32)],
    has_catch_all: bool,
    can_decode: fn(&PersistedEvent) -> Result<()>,
    /// Of the arms, in their order, if they are known.
    payload_types: Vec<PayloadType>,
}

impl Decoder {
    pub(crate) fn of<E: TypedEvent>() -> Self {
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

/// What each type decodes is what readers see.
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
            // A type without versions is a problem of its own.
            let Some(last) = schema.versions.last() else { continue };
            let current = schema.last().get();
            // A last step within the type leads to a version that is missing, which is a problem of its own too.
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

/// The versions that are split, and at which redacted events arrive of which nothing is left to split: those that were
/// protected whole, here or where they come from. Readers see them as they are.
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

/// As what events that are protected whole come once they are erased: where their ways end, with the stand-in. No step
/// is called for them; they pass through, and take the stand-in of what is protected whole there.
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
            // A split does not happen.
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

/// What readers get of it.
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
