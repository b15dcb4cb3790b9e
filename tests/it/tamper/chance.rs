//! Bytes and mutations by chance.

use super::{GIFTS, JOINED, PLACED, seal, shred_all, text, world};
use eventseal::{JsonPointer, PersistedEvent};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use support::sealing::{SealerWorld, with_payload};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Checks the rules that hold for any payload that a store could return.
fn check_anything(world: &SealerWorld, template: &PersistedEvent, payload: Vec<u8>) {
    // What the type does not protect may say anything: nothing authenticates it. A mutation can put a place of another
    // type there.
    let (original, places): (&str, &[&str]) = match template.stored_type.as_str() {
        "Gifts" => (GIFTS, &["/lines/0/note", "/lines/1/note", "/memo"]),
        "Joined" => (JOINED, &["/email"]),
        _ => (PLACED, &["/email", "/courier/phone"]),
    };
    let stored = with_payload(template, payload);
    let Ok(opened) = world.open(&stored) else { return };
    assert!(opened.redacted.is_empty(), "nothing was shredded, so nothing is redacted");
    match template.stored_type.as_str() {
        "Open" | "Unknown" => assert_eq!(opened.payload, stored.payload),
        "Whole" => assert_eq!(opened.payload, original.as_bytes()),
        _ => {
            let found: Value = serde_json::from_slice(&opened.payload).expect("what is opened is JSON");
            let expected: Value = serde_json::from_str(original).unwrap();
            for place in places {
                let found = found.pointer(place).filter(|value| !value.is_null());
                assert!(found.is_none() || found == expected.pointer(place), "{place} of {}: {found:?}", text(&stored));
            }
        }
    }
}

fn fuzzed(world: &SealerWorld) -> Vec<PersistedEvent> {
    let mut events: Vec<PersistedEvent> =
        [("Placed", PLACED), ("Placed", PLACED), ("Gifts", GIFTS), ("Joined", JOINED), ("Whole", PLACED)]
            .map(|(name, payload)| seal(world, name, payload))
            .into();
    for name in ["Open", "Unknown"] {
        let mut renamed = events[0].clone();
        (renamed.stored_type, renamed.event_type) = (name.into(), name.into());
        events.push(renamed);
    }
    events
}

#[test]
fn i4_arbitrary_bytes_are_never_opened_and_never_redacted() {
    let world = world();
    let events = fuzzed(&world);
    proptest!(config(1_500), |(payload in prop_oneof![
        vec(any::<u8>(), 0..200),
        vec(prop::sample::select(b"{}[]\":,\\u0$seal email null 1e-".to_vec()), 0..60),
        "\\{\"\\$seal\":\"[A-Za-z0-9_-]{0,200}\",\"email\":\"[A-Za-z0-9_-]{0,90}\"\\}".prop_map(String::into_bytes),
    ])| {
        for event in &events {
            check_anything(&world, event, payload.clone());
        }
    });
}

#[derive(Clone, Debug)]
enum Mutation {
    Insert(usize, Vec<u8>),
    Delete(usize, usize),
    Replace(usize, Vec<u8>),
    /// A piece of another sealed payload.
    Splice {
        at: usize,
        length: usize,
        from: usize,
        event: usize,
    },
    /// A JSON value somewhere inside the text, between two structural characters.
    Structure(usize, &'static str),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0..2_000_usize;
    prop_oneof![
        (at(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at(), 1..40_usize).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (at(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Mutation::Replace(at, bytes)),
        (at(), 0..300_usize, at(), 0..5_usize).prop_map(|(at, length, from, event)| Mutation::Splice {
            at,
            length,
            from,
            event
        }),
        (
            at(),
            prop::sample::select(vec![
                "null",
                "{}",
                "[]",
                "\"c4n4ry\"",
                "1",
                "\"email\":\"c4n4ry\"",
                "\"$seal\":null",
                "{\"note\":1}"
            ])
        )
            .prop_map(|(at, text)| Mutation::Structure(at, text)),
    ]
}

impl Mutation {
    fn apply(&self, payload: &mut Vec<u8>, events: &[PersistedEvent]) {
        let clamp = |at: usize| at % (payload.len() + 1);
        match self {
            Self::Insert(at, bytes) => {
                let at = clamp(*at);
                payload.splice(at..at, bytes.iter().copied());
            }
            Self::Delete(at, length) => {
                let at = clamp(*at);
                payload.drain(at..(at + length).min(payload.len()));
            }
            Self::Replace(at, bytes) => {
                let at = clamp(*at);
                payload.splice(at..(at + bytes.len()).min(payload.len()), bytes.iter().copied());
            }
            Self::Splice { at, length, from, event } => {
                let at = clamp(*at);
                let source = &events[*event].payload;
                let from = from % source.len();
                let piece = source[from..(from + length).min(source.len())].to_vec();
                payload.splice(at..(at + length).min(payload.len()), piece);
            }
            Self::Structure(at, text) => {
                // From one comma, colon or bracket to the next.
                let borders: Vec<usize> = (0..payload.len()).filter(|at| b",:{}[]".contains(&payload[*at])).collect();
                if borders.len() < 2 {
                    return;
                }
                let index = at % (borders.len() - 1);
                payload.splice(borders[index] + 1..borders[index + 1], text.bytes());
            }
        }
    }
}

#[test]
fn i3_i4_mutations_of_sealed_payloads_never_open_to_something_else() {
    let world = world();
    let events = fuzzed(&world);
    proptest!(config(4_000), |(index in 0..7_usize, mutations in vec(mutation(), 1..4))| {
        let mut payload = events[index].payload.clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut payload, &events));
        check_anything(&world, &events[index], payload);
    });
}

/// After an erasure, an altered event reads as what it was, or as an error: no other place is redacted.
#[test]
fn i4_mutations_of_shredded_payloads_never_redact_anything_else() {
    let world = world();
    let events = fuzzed(&world);
    shred_all(&world);
    let redacted: Vec<Vec<JsonPointer>> =
        events.iter().map(|event| world.open(event).map(|opened| opened.redacted).unwrap_or_default()).collect();
    proptest!(config(4_000), |(index in 0..7_usize, mutations in vec(mutation(), 1..4))| {
        let mut payload = events[index].payload.clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut payload, &events));
        if let Ok(opened) = world.open(&with_payload(&events[index], payload)) {
            prop_assert!(opened.redacted.is_empty() || opened.redacted == redacted[index]);
        }
    });
}
