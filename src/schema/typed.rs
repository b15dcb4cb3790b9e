//! Do the Rust types that events are decoded into fit the schemas?

use crate::error::Result;
use crate::event::{AggregateVersion, EventType, EventVersion, GlobalPosition, NewEvent, PersistedEvent, TypedEvent, aggregate};
#[cfg(feature = "testing")]
use crate::event::{EventPayload, VisitPayloads};
use crate::pointer::JsonPointer;
use crate::schema::TypeSchema;
use crate::schema::check::Found;
use crate::schema::problem::SchemaProblem;
use crate::schema::step::Step;
#[cfg(feature = "testing")]
use crate::schema::testing::Reads;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What a Rust type says that it decodes.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    target: &'static str,
    arms: &'static [(&'static str, u32)],
    has_catch_all: bool,
    can_decode: fn(&PersistedEvent) -> Result<()>,
    /// Into which types.
    #[cfg(feature = "testing")]
    pub(super) reads: Vec<(EventType, EventVersion, Reads)>,
}

impl Decoder {
    pub(super) fn of<E: TypedEvent>() -> Self {
        Self {
            target: std::any::type_name::<E>(),
            arms: E::DECODES,
            has_catch_all: E::HAS_CATCH_ALL,
            can_decode: |event| E::decode(event).map(drop),
            #[cfg(feature = "testing")]
            reads: reads_of::<E>(),
        }
    }

    fn decodes(&self, event_type: &EventType) -> bool {
        self.arms.iter().any(|(name, _)| *name == event_type.as_str())
    }
}

#[cfg(feature = "testing")]
fn reads_of<E: TypedEvent>() -> Vec<(EventType, EventVersion, Reads)> {
    struct Collect(Vec<(EventType, EventVersion, Reads)>);
    impl VisitPayloads for Collect {
        fn visit<T: EventPayload>(&mut self) {
            self.0.push((T::TYPE.into(), EventVersion::new(T::VERSION), Reads::of::<T>()));
        }
    }
    let mut collect = Collect(Vec::new());
    E::visit_payloads(&mut collect);
    collect.0
}

/// What each type decodes is what readers see.
pub(super) fn check_decoders(decoders: &[Decoder], types: &HashMap<EventType, TypeSchema>, found: &mut Found) {
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
            let leads_elsewhere = |step: &Step| step.targets(&event_type, current).iter().all(|(target, _)| *target != event_type);
            if last.step.as_ref().is_some_and(leads_elsewhere) {
                found.add(&event_type, Some(current), SchemaProblem::NeverSeen(decoder.target));
            } else if version != current {
                found.add(&event_type, Some(version), SchemaProblem::NotCurrent(decoder.target, current));
            } else {
                for (_, stand_in) in erased.iter().filter(|((name, number), _)| *name == event_type && *number == current) {
                    if (decoder.can_decode)(&erased_event(name, version, stand_in)).is_err() {
                        found.add(&event_type, Some(version), SchemaProblem::UndecodableOnceErased(decoder.target, stand_in.to_string()));
                    }
                }
            }
        }
        if !decoder.has_catch_all {
            for ((event_type, version), targets) in &unsplittable {
                if leads_to_decoded(targets, types, decoder) {
                    found.add(event_type, Some(*version), SchemaProblem::NeedsCatchAll(decoder.target));
                }
            }
        }
    }
}

/// The versions that are split, and at which redacted events arrive of which nothing is left to split: those that were
/// protected whole, here or where they come from. Readers see them as they are.
fn unsplittable_once_erased(types: &HashMap<EventType, TypeSchema>) -> BTreeMap<(EventType, u32), &Vec<(EventType, u32)>> {
    let numbered = |schema: &'_ TypeSchema| (schema.first..=u32::MAX).take(schema.versions.len());
    let all = types.iter().flat_map(|(name, schema)| schema.versions.iter().zip(numbered(schema)).map(move |known| (name, known)));
    let mut open: Vec<(EventType, u32)> =
        all.filter(|(_, (version, _))| version.plan.whole.is_some()).map(|(name, (_, number))| (name.clone(), number)).collect();
    let (mut found, mut seen) = (BTreeMap::new(), HashSet::new());
    while let Some(at) = open.pop() {
        let Some(step) = types.get(&at.0).and_then(|schema| schema.version(EventVersion::new(at.1))?.step.as_ref()) else { continue };
        if !seen.insert(at.clone()) {
            continue;
        }
        match step {
            Step::Split(targets, _) => {
                found.insert(at, targets);
            }
            step => open.extend(step.targets(&at.0, at.1)),
        }
    }
    found
}

/// As what events that are protected whole come once they are erased: where their ways end, with the stand-in. No step is
/// called for them; they pass through, and take the stand-in of what is protected whole there.
fn erased_wholes(types: &HashMap<EventType, TypeSchema>) -> BTreeSet<((EventType, u32), Arc<str>)> {
    let schema_of = |at: &(EventType, u32)| types.get(&at.0).and_then(|schema| schema.version(EventVersion::new(at.1)));
    let whole_at = |at: &(EventType, u32)| schema_of(at).and_then(|schema| schema.plan.whole.as_ref());
    let numbered = |schema: &TypeSchema| (schema.first..=u32::MAX).take(schema.versions.len());
    let all = types.iter().flat_map(|(name, schema)| numbered(schema).map(|number| (name.clone(), number)));
    let mut open: Vec<_> = all.filter_map(|at| whole_at(&at).map(|whole| (at.clone(), Arc::clone(&whole.stand_in)))).collect();
    let (mut found, mut seen) = (BTreeSet::new(), HashSet::new());
    while let Some((at, stand_in)) = open.pop() {
        if !seen.insert((at.clone(), Arc::clone(&stand_in))) {
            continue;
        }
        match schema_of(&at).map(|schema| schema.step.as_ref()) {
            Some(None) => drop(found.insert((at, stand_in))),
            // A split does not happen.
            None | Some(Some(Step::Split(..))) => {}
            Some(Some(step)) => open.extend(step.targets(&at.0, at.1).into_iter().map(|target| {
                let stand_in = whole_at(&target).map_or_else(|| Arc::clone(&stand_in), |whole| Arc::clone(&whole.stand_in));
                (target, stand_in)
            })),
        }
    }
    found
}

/// What readers get of it.
fn erased_event(event_type: &str, version: u32, stand_in: &str) -> PersistedEvent {
    let event = NewEvent::raw(event_type, version, stand_in);
    let event = PersistedEvent::from_new(aggregate("Erased", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    PersistedEvent { redacted: vec![JsonPointer::root()], ..event }
}

fn leads_to_decoded(targets: &[(EventType, u32)], types: &HashMap<EventType, TypeSchema>, decoder: &Decoder) -> bool {
    let mut open: Vec<(EventType, u32)> = targets.to_vec();
    let mut seen = HashSet::new();
    while let Some(target) = open.pop() {
        if decoder.decodes(&target.0) {
            return true;
        }
        let schema = types.get(&target.0).and_then(|schema| schema.version(EventVersion::new(target.1)));
        if let Some(step) = schema.and_then(|schema| schema.step.as_ref())
            && !seen.contains(&target)
        {
            open.extend(step.targets(&target.0, target.1));
            seen.insert(target);
        }
    }
    false
}
