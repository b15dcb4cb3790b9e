//! Brings together what types declare by their derives and what is declared by hand.

use crate::event::EventType;
use crate::schema::declare::{EventSchema, FieldDecl, Owner, StandInDecl, VersionDecl};
use crate::schema::problem::SchemaProblem;
use serde_json::Value;
use std::collections::BTreeMap;

/// One declaration for each event type: a type with a derive, its old versions and what is declared by hand join. Two
/// declarations by hand stay two, which is a problem that the check reports.
pub(crate) fn merged(events: Vec<EventSchema>) -> Vec<EventSchema> {
    let is_derived = |event: &EventSchema| event.versions.iter().any(|version| version.derived.is_some());
    let mut merged: Vec<EventSchema> = Vec::new();
    let (derived, by_hand): (Vec<_>, Vec<_>) = events.into_iter().partition(is_derived);
    let mut at: BTreeMap<EventType, usize> = BTreeMap::new();
    for event in derived {
        match at.get(&event.name) {
            Some(known) => join(&mut merged[*known], event),
            None => {
                at.insert(event.name.clone(), merged.len());
                merged.push(event);
            }
        }
    }
    // The first declaration by hand joins; a second one is one too many.
    for event in by_hand {
        match at.remove(&event.name) {
            Some(known) => join(&mut merged[known], event),
            None => merged.push(event),
        }
    }
    merged
}

fn join(into: &mut EventSchema, event: EventSchema) {
    into.versions.extend(event.versions);
    into.steps.extend(event.steps);
    into.metadata_steps.extend(event.metadata_steps);
    into.legacy.extend(event.legacy);
    into.misplaced |= event.misplaced;
}

/// The declaration of a version, if it is to replace the one that is known. What is wrong with the two is reported.
pub(super) fn joined(
    known: Option<&VersionDecl>,
    version: VersionDecl,
    mut add: impl FnMut(SchemaProblem),
) -> Option<VersionDecl> {
    let Some(known) = known else { return Some(version) };
    let metadata = match (&known.metadata, &version.metadata) {
        (Some(one), Some(other)) if !one.says_the_same_as(other) => {
            add(SchemaProblem::VersionTwice);
            return None;
        }
        (Some(one), _) => Some(one.clone()),
        (None, other) => other.clone(),
    };
    // What is said by hand of metadata alone says nothing of the payload.
    let is_beside = |by_hand: &VersionDecl| by_hand.metadata.is_some() && !by_hand.is_about_payloads();
    match (known.derived, version.derived) {
        (None, None) => {
            add(SchemaProblem::VersionTwice);
            None
        }
        (Some(one), Some(other)) if one != other => {
            add(SchemaProblem::ClaimedTwice(one.name, other.name));
            None
        }
        (Some(_), Some(_)) => Some(VersionDecl { metadata, ..known.clone() }),
        (Some(by), None) => {
            if let Some(difference) = difference(known, &version).filter(|_| !is_beside(&version)) {
                add(SchemaProblem::DeclaredOtherwise(by.name, difference));
            }
            Some(VersionDecl { metadata, ..known.clone() })
        }
        (None, Some(by)) => {
            if let Some(difference) = difference(&version, known).filter(|_| !is_beside(known)) {
                add(SchemaProblem::DeclaredOtherwise(by.name, difference));
            }
            Some(VersionDecl { metadata, ..version })
        }
    }
}

/// How a declaration by hand differs from that of a type, in words.
fn difference(derived: &VersionDecl, by_hand: &VersionDecl) -> Option<String> {
    let (type_has, hand_has) = (said(derived), said(by_hand));
    for (pointer, said) in &type_has {
        let shown = if pointer.is_empty() { "the whole payload".to_owned() } else { format!("{pointer:?}") };
        match hand_has.get(pointer) {
            None => return Some(format!("{shown} is Sensitive in the type, and not protected in event(…)")),
            Some(other) if other.owner != said.owner => return Some(format!("{shown} has two owners")),
            Some(other) if other.stand_in != said.stand_in => return Some(format!("{shown} has two stand-ins")),
            Some(other) if other.pad != said.pad => return Some(format!("{shown} has two paddings")),
            Some(_) => {}
        }
    }
    let only = hand_has.keys().find(|pointer| !type_has.contains_key(*pointer))?;
    Some(format!("{only:?} is protected in event(…), and not Sensitive in the type"))
}

/// What is said of a protected place.
#[derive(PartialEq)]
struct Said<'d> {
    owner: &'d Owner,
    stand_in: Option<&'d StandInDecl>,
    pad: Option<usize>,
}

/// The stand-in that holds if none is declared.
const NULL: StandInDecl = StandInDecl::Value(Value::Null);

fn said(version: &VersionDecl) -> BTreeMap<&str, Said<'_>> {
    let of = |field: &FieldDecl| {
        let stand_in = version.stand_ins.iter().rev().find(|(pointer, _)| *pointer == field.pointer);
        let pad = version.pads.iter().rev().find(|(pointer, _)| *pointer == field.pointer);
        (stand_in.map(|(_, stand_in)| stand_in).filter(|stand_in| **stand_in != NULL), pad.map(|(_, pad)| *pad))
    };
    let all = version.fields.iter().chain(&version.whole);
    all.map(|field| {
        let (stand_in, pad) = of(field);
        (field.pointer.as_str(), Said { owner: &field.owner, stand_in, pad })
    })
    .collect()
}
