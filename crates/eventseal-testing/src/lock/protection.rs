//! Checks that the protection of a version fits the Rust types into which its payloads are read.
//!
//! A misspelt pointer protects nothing, and nothing else notices it: the value is stored in the clear.

use crate::json::places_of;
use crate::lock::report::ChangeKind;
use crate::pattern::Pattern;
use crate::shape::{At, Shape, may_hold, sample_of, touches, written};
use eventseal::schema::{PayloadType, ProtectedPlace, SchemaVersion};
use eventseal::{AggregateVersion, GlobalPosition, JsonPointer, NewEvent, Owner, PersistedEvent, aggregate};
use serde_json::Value;

/// A type and its shape.
struct Traced {
    reads: PayloadType,
    shape: Shape,
}

/// Where protection and types contradict each other. A type whose shape is not known is only tried with the samples.
pub(super) fn contradictions(
    version: &SchemaVersion,
    types: impl Iterator<Item = PayloadType>,
    samples: &[Value],
) -> Vec<ChangeKind> {
    let types = types.map(|reads| Traced { shape: Shape::of_type(reads), reads });
    let (unknown, types): (Vec<Traced>, Vec<Traced>) = types.partition(|traced| traced.shape.is_unknown());
    let mut found = Vec::new();
    let mut add = |change: ChangeKind| {
        if !found.contains(&change) {
            found.push(change);
        }
    };
    let patterns: Vec<Option<Pattern>> = version.protected.iter().map(|place| Pattern::parse(&place.pointer)).collect();
    for traced in &types {
        for way in traced.shape.sensitives() {
            // `None` stands for the whole payload, which is around every place.
            let is_protected =
                patterns.iter().any(|pattern| pattern.as_ref().is_none_or(|pattern| touches(pattern.tokens(), &way)));
            if !is_protected {
                add(ChangeKind::SensitiveInTheClear { pointer: written(&way), target: traced.reads.name() });
            }
        }
    }
    for (place, pattern) in version.protected.iter().zip(&patterns) {
        if let Some(target) = pattern.as_ref().and_then(|pattern| type_without(&types, pattern)) {
            add(ChangeKind::NoSuchMember { pointer: place.pointer.clone(), target });
            continue;
        }
        if let Owner::Subject { id, .. } = &place.owner
            && let Some(target) = Pattern::parse(id).and_then(|pattern| type_without(&types, &pattern))
        {
            add(ChangeKind::NoSuchOwner { pointer: place.pointer.clone(), id: id.clone(), target });
        }
        // What a function computes is not known here.
        let Some(pattern) = pattern.as_ref().filter(|_| place.stand_in_by.is_none()) else { continue };
        let fails = |traced: &Traced| samples.iter().any(|sample| by_trying(traced, place, sample) == Some(false));
        let of_known = types.iter().filter(|traced| !can_be_erased(traced, place, pattern) || fails(traced));
        for traced in of_known.chain(unknown.iter().filter(|traced| fails(traced))) {
            let (pointer, stand_in) = (place.pointer.clone(), place.stand_in.clone());
            add(ChangeKind::UnreadableOnceErased { pointer, stand_in, target: traced.reads.name() });
        }
    }
    found
}

/// The name of the first type, if none of the types has this place. One type that has it is enough: types of read
/// models often leave out what they do not need.
fn type_without(types: &[Traced], pattern: &Pattern) -> Option<&'static str> {
    let is_absent = |traced: &Traced| traced.shape.at(pattern.tokens()) == At::Absent;
    types.iter().all(is_absent).then(|| types.first().map(|traced| traced.reads.name())).flatten()
}

/// Can this type still read a payload once the place is erased? It is tried with a payload that is made up. If none can
/// be made up, the shape decides.
fn can_be_erased(traced: &Traced, place: &ProtectedPlace, pattern: &Pattern) -> bool {
    let made_up = sample_of(traced.reads).and_then(|sample| by_trying(traced, place, &sample));
    made_up.unwrap_or_else(|| match traced.shape.at(pattern.tokens()) {
        At::Known(shape) => may_hold(shape, &place.stand_in),
        At::Absent | At::Unknown => true,
    })
}

/// Can this type still read the sample once the place is erased? `None` if it does not read the sample before, or if
/// the sample has no value there.
fn by_trying(traced: &Traced, place: &ProtectedPlace, sample: &Value) -> Option<bool> {
    let mut payload = sample.clone();
    traced.reads.read(&event(&payload, Vec::new())).ok()?;
    let places = places_of(&payload, &place.pointer);
    for place_of_it in &places {
        *payload.pointer_mut(place_of_it)? = place.stand_in.clone();
    }
    let redacted: Vec<JsonPointer> = places.iter().filter_map(|place| JsonPointer::parse(place)).collect();
    (!redacted.is_empty()).then(|| traced.reads.read(&event(&payload, redacted)).is_ok())
}

fn event(payload: &Value, redacted: Vec<JsonPointer>) -> PersistedEvent {
    let event = NewEvent::raw("Sample", 1, payload.to_string());
    let mut event =
        PersistedEvent::from_new(aggregate("Sample", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    event.redacted = redacted;
    event
}
