//! I3 and I4: somebody who can write to the store can break events, but can't move, replace or forge sealed values, and
//! can't make a value look erased.
//!
//! Every alteration here is made to what the store holds, in three worlds: one whose keys are live, one
//! in which a scope was shredded, and one in which all were. Where an alteration goes unnoticed (the
//! header's tag while all keys are live; commitments and ciphertexts of shredded keys), the test says so,
//! and that it changes nothing that a reader sees.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

mod bits;
mod chance;
mod document;
mod keys;
mod manifest;
mod moved;
mod policy;
mod whole;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::error::EventFault;
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::schema::{EventSchema, StepContext};
use eventseal::{AggregateRef, Error, NewEvent, Owner, PersistedEvent, Result, Schemas, aggregate, event, subject};
use serde_json::Value;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use support::sealing::{SealerWorld, holds_canary, with_payload};

/// Two fields of two scopes.
const PLACED: &str = concat!(
    r#"{"order_id":"ord-1","customer_id":"cust-1","email":"c4n4ry-ada@example.org","courier":{"id":7,"#,
    r#""phone":"c4n4ry-555"},"total":12.50}"#
);

/// Two fields of two other scopes.
const PLACED_BY_OTHERS: &str = concat!(
    r#"{"order_id":"ord-2","customer_id":"cust-2","email":"c4n4ry-bob@example.org","courier":{"id":8,"#,
    r#""phone":"c4n4ry-556"},"total":1}"#
);

/// Wildcards: three scopes, one of them the aggregate's.
const GIFTS: &str = concat!(
    r#"{"lines":[{"to":"rec-1","note":"c4n4ry-one","sku":1},{"to":"rec-2","note":["c4n4ry-two",2]},"#,
    r#"{"to":"rec-1","sku":3}],"memo":27182818284590452353}"#
);

/// One field.
const JOINED: &str = r#"{"customer_id":"cust-1","email":"c4n4ry-ada@example.org"}"#;

/// Two equal values under one key.
const PAIR: &str = r#"{"email":"c4n4ry","memo":"c4n4ry"}"#;

/// Every place that some type protects.
const PLACES: &[&str] = &["/email", "/courier/phone", "/lines/0/note", "/lines/1/note", "/memo"];

/// Every scope that seals one of them.
const SCOPES: &[(&str, &str)] = &[
    ("Customer", "cust-1"),
    ("Customer", "cust-2"),
    ("Courier", "7"),
    ("Courier", "8"),
    ("Recipient", "rec-1"),
    ("Recipient", "rec-2"),
    ("Order", "ord-1"),
];

/// The step from version 1 to 2 of `Evolved` notes here what it is shown.
type Seen = Arc<Mutex<Vec<String>>>;

fn placed(name: &str) -> EventSchema {
    event(name)
        .version(1)
        .protect(&["/email"], subject("Customer", "/customer_id"))
        .protect(&["/courier/phone"], subject("Courier", "/courier/id"))
}

fn declared(seen: &Seen) -> Vec<EventSchema> {
    let seen = Arc::clone(seen);
    vec![
        placed("Placed"),
        placed("Moved"),
        event("Gifts")
            .version(1)
            .protect(&["/lines/*/note"], subject("Recipient", "/lines/*/to"))
            .protect(&["/memo"], Owner::Aggregate),
        event("Joined").version(1).protect(&["/email"], subject("Customer", "/customer_id")),
        event("Pair").version(1).protect(&["/email", "/memo"], Owner::Aggregate),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("Open").version(1),
        placed("Evolved").version(2).protect_same_as(1).upcast_with(1, move |payload: Value, _: &StepContext<'_>| {
            seen.lock().unwrap().push(payload.to_string());
            Ok::<_, Infallible>(payload)
        }),
    ]
}

fn schemas() -> Schemas {
    Schemas::builder(declared(&Seen::default())).allow_older_appends().allow_unknown_types().build().unwrap()
}

fn world() -> SealerWorld {
    SealerWorld::new(schemas())
}

fn order() -> AggregateRef {
    aggregate("Order", "ord-1")
}

fn seal(world: &SealerWorld, event_type: &str, payload: &str) -> PersistedEvent {
    let stored = world.seal(&order(), NewEvent::raw(event_type, 1, payload)).unwrap();
    assert!(!holds_canary(&stored.payload));
    stored
}

fn shred_all(world: &SealerWorld) {
    SCOPES.iter().for_each(|(kind, id)| world.shred(kind, id));
}

fn text(event: &PersistedEvent) -> &str {
    std::str::from_utf8(&event.payload).unwrap()
}

/// Alters the document; the order of its members is nobody's business.
fn edited(event: &PersistedEvent, edit: impl FnOnce(&mut Value)) -> PersistedEvent {
    let mut value: Value = serde_json::from_slice(&event.payload).unwrap();
    edit(&mut value);
    with_payload(event, value.to_string())
}

fn token(event: &PersistedEvent, pointer: &str) -> Option<String> {
    let value: Value = serde_json::from_slice(&event.payload).unwrap();
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

fn with_token(event: &PersistedEvent, pointer: &str, token: &str) -> PersistedEvent {
    edited(event, |value| *value.pointer_mut(pointer).unwrap() = token.into())
}

/// The protected places of a sealed event, with their ciphertexts.
fn tokens(event: &PersistedEvent) -> Vec<(&'static str, String)> {
    PLACES.iter().filter_map(|place| Some((*place, token(event, place)?))).collect()
}

fn with_header(event: &PersistedEvent, header: &[u8]) -> PersistedEvent {
    let old = token(event, "/$seal").unwrap();
    with_payload(event, text(event).replacen(&old, &URL_SAFE_NO_PAD.encode(header), 1))
}

fn protected(payload: &[u8]) -> Vec<Option<Value>> {
    let value: Value = serde_json::from_slice(payload).unwrap();
    PLACES.iter().map(|place| value.pointer(place).cloned()).collect()
}

/// A header by the layout of `src/seal/format.rs`.
#[derive(Clone)]
struct Header {
    /// Format, suite, part, mode.
    fixed: [u8; 4],
    salt: [u8; 16],
    integrity_key: [u8; 16],
    keys: Vec<[u8; 16]>,
    /// Key index, kind, pointer.
    entries: Vec<(u16, u8, String)>,
    tag: [u8; 16],
    commitments: Vec<[u8; 32]>,
}

/// The part of a header to which a byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Format,
    Suite,
    Document,
    Mode,
    Salt,
    IntegrityKey,
    Counts,
    Key,
    Entry,
    Tag,
    Commitment(usize),
}

impl Header {
    fn of(event: &PersistedEvent) -> Self {
        let bytes = URL_SAFE_NO_PAD.decode(token(event, "/$seal").unwrap()).unwrap();
        let mut rest = &bytes[..];
        let mut take = |length: usize| {
            let (taken, behind) = rest.split_at(length);
            rest = behind;
            taken.to_vec()
        };
        let number = |bytes: Vec<u8>| u16::from_be_bytes(bytes.try_into().unwrap());
        let fixed = take(4).try_into().unwrap();
        let salt = take(16).try_into().unwrap();
        let integrity_key = take(16).try_into().unwrap();
        let count = number(take(2));
        let keys: Vec<[u8; 16]> = (0..count).map(|_| take(16).try_into().unwrap()).collect();
        let count = number(take(2));
        let entries = (0..count)
            .map(|_| {
                let (key, kind, length) = (number(take(2)), take(1)[0], number(take(2)));
                (key, kind, String::from_utf8(take(length.into())).unwrap())
            })
            .collect();
        let tag = take(16).try_into().unwrap();
        let commitments = keys.iter().map(|_| take(32).try_into().unwrap()).collect();
        let header = Self { fixed, salt, integrity_key, keys, entries, tag, commitments };
        assert_eq!(header.bytes(), bytes);
        header
    }

    fn parts(&self) -> Vec<(Part, Vec<u8>)> {
        let count = |length: usize| u16::try_from(length).unwrap().to_be_bytes().to_vec();
        let mut parts = vec![
            (Part::Format, vec![self.fixed[0]]),
            (Part::Suite, vec![self.fixed[1]]),
            (Part::Document, vec![self.fixed[2]]),
            (Part::Mode, vec![self.fixed[3]]),
            (Part::Salt, self.salt.to_vec()),
            (Part::IntegrityKey, self.integrity_key.to_vec()),
            (Part::Counts, count(self.keys.len())),
        ];
        parts.extend(self.keys.iter().map(|key| (Part::Key, key.to_vec())));
        parts.push((Part::Counts, count(self.entries.len())));
        parts.extend(self.entries.iter().map(|(key, kind, pointer)| {
            let entry = [&key.to_be_bytes()[..], &[*kind], &count(pointer.len()), pointer.as_bytes()].concat();
            (Part::Entry, entry)
        }));
        parts.push((Part::Tag, self.tag.to_vec()));
        parts.extend(self.commitments.iter().enumerate().map(|(key, bytes)| (Part::Commitment(key), bytes.to_vec())));
        parts
    }

    fn bytes(&self) -> Vec<u8> {
        self.parts().into_iter().flat_map(|(_, bytes)| bytes).collect()
    }

    /// The part to which each byte belongs.
    fn map(&self) -> Vec<Part> {
        self.parts().into_iter().flat_map(|(part, bytes)| vec![part; bytes.len()]).collect()
    }
}

fn tampered(result: &Result<PersistedEvent>) -> bool {
    matches!(result, Err(error @ Error::Event { fault: EventFault::Tampered { .. }, .. }) if error.is_tampered())
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Event { fault: EventFault::Tampered { .. }, .. } => "Tampered",
        Error::Event { fault: EventFault::Unsealed { .. }, .. } => "Unsealed",
        Error::Event { fault: EventFault::Unsupported { .. }, .. } => "Unsupported",
        Error::Event { fault: EventFault::MissingKey { .. }, .. } => "MissingKey",
        Error::Event { fault: EventFault::InvalidPayload { .. }, .. } => "InvalidPayload",
        Error::Event { fault: EventFault::ShapeMismatch { .. }, .. } => "ShapeMismatch",
        Error::Event { fault: EventFault::LimitExceeded { .. }, .. } => "LimitExceeded",
        Error::Disabled { .. } => "Disabled",
        _ => panic!("no alteration may end as {error:?}"),
    }
}

/// The three worlds: all live, one scope shredded, all shredded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// The first scope of each event.
    Half,
    Shredded,
}

const STATES: [State; 3] = [State::Live, State::Half, State::Shredded];

impl State {
    fn bring_about(self, world: &SealerWorld) {
        match self {
            Self::Live => {}
            Self::Half => {
                [("Customer", "cust-1"), ("Recipient", "rec-1")].iter().for_each(|(kind, id)| world.shred(kind, id));
            }
            Self::Shredded => shred_all(world),
        }
    }
}

/// Events of every protected type, sealed in one world and then brought into a state.
fn in_state(state: State) -> (SealerWorld, Vec<PersistedEvent>) {
    let world = world();
    let events = vec![seal(&world, "Placed", PLACED), seal(&world, "Gifts", GIFTS), seal(&world, "Joined", JOINED)];
    state.bring_about(&world);
    (world, events)
}

/// Equal but for the order of members.
fn same_reading(a: &PersistedEvent, b: &PersistedEvent) -> bool {
    let value = |event: &PersistedEvent| serde_json::from_slice::<Value>(&event.payload).unwrap();
    let mut places = [a.redacted.clone(), b.redacted.clone()];
    places.iter_mut().for_each(|places| places.sort_unstable());
    value(a) == value(b) && places[0] == places[1]
}

const KEYRING: &str = "main:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A careless KMS that opens keys whatever they are bound to.
struct Careless;

#[async_trait]
impl Kms for Careless {
    fn provider(&self) -> &'static str {
        "careless"
    }
    async fn master_key_id(&self) -> Result<String> {
        Ok("none".to_owned())
    }

    async fn generate_kek(&self, _: &KekContext) -> Result<WrappedKek> {
        Ok(WrappedKek { master_key_id: "none".into(), ciphertext: vec![7; 32] })
    }
    async fn wrap_kek(&self, _: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.generate_kek(context).await
    }
    async fn rewrap_kek(&self, _: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.generate_kek(context).await
    }
    async fn unwrap_kek(&self, _: &WrappedKek, _: &KekContext) -> Result<SecretKey> {
        Ok(SecretKey::new([7; 32]))
    }
}
