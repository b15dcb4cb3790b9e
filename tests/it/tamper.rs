//! I3 and I4: whoever can write to the store can break events, but can't move, replace or forge what is
//! sealed, and can't make anything look erased.
//!
//! Every alteration here is made to what the store holds, in three worlds: one whose keys are live, one
//! in which a scope was shredded, and one in which all were. Where an alteration goes unnoticed (the
//! header's tag while all keys are live; commitments and ciphertexts of shredded keys), the test says so,
//! and that it changes nothing that a reader sees.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::*;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use support::faults::{Faulty, KeyFaults};
use support::sealing::{SealerWorld, holds_canary, with_payload};

// ---- what is altered

/// Two fields of two scopes.
const PLACED: &str =
    r#"{"order_id":"ord-1","customer_id":"cust-1","email":"c4n4ry-ada@example.org","courier":{"id":7,"phone":"c4n4ry-555"},"total":12.50}"#;

/// The same of two other scopes.
const PLACED_BY_OTHERS: &str =
    r#"{"order_id":"ord-2","customer_id":"cust-2","email":"c4n4ry-bob@example.org","courier":{"id":8,"phone":"c4n4ry-556"},"total":1}"#;

/// Wildcards: three scopes, one of them the aggregate's.
const GIFTS: &str = r#"{"lines":[{"to":"rec-1","note":"c4n4ry-one","sku":1},{"to":"rec-2","note":["c4n4ry-two",2]},{"to":"rec-1","sku":3}],"memo":27182818284590452353}"#;

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
        event("Gifts").version(1).protect(&["/lines/*/note"], subject("Recipient", "/lines/*/to")).protect(&["/memo"], Owner::Aggregate),
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

/// What a byte of a header belongs to.
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

    /// What each byte belongs to.
    fn map(&self) -> Vec<Part> {
        self.parts().into_iter().flat_map(|(part, bytes)| vec![part; bytes.len()]).collect()
    }
}

fn tampered(result: &Result<PersistedEvent>) -> bool {
    matches!(result, Err(error @ Error::Tampered { .. }) if error.is_tampered())
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Tampered { .. } => "Tampered",
        Error::Unsealed { .. } => "Unsealed",
        Error::Unsupported { .. } => "Unsupported",
        Error::MissingKey { .. } => "MissingKey",
        Error::InvalidPayload { .. } => "InvalidPayload",
        Error::ShapeMismatch { .. } => "ShapeMismatch",
        Error::LimitExceeded { .. } => "LimitExceeded",
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
            Self::Half => [("Customer", "cust-1"), ("Recipient", "rec-1")].iter().for_each(|(kind, id)| world.shred(kind, id)),
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

// ---- bits

#[test]
fn i3_i4_no_bit_of_a_header_can_be_flipped() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            assert_eq!(before.is_redacted(), state != State::Live);
            let header = Header::of(stored);
            let bytes = header.bytes();
            let map = header.map();
            // In the half-shredded world, the first key of each event is gone.
            let is_dead = |key: usize| state == State::Shredded || state == State::Half && key == 0;
            let any_live = (0..header.keys.len()).any(|key| !is_dead(key));
            for (at, part) in map.iter().enumerate() {
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    let value = flipped[at];
                    let result = world.open(&with_header(stored, &flipped));
                    let context = || format!("{state:?}, {}, byte {at} ({part:?}), bit {bit}: {result:?}", stored.event_type);
                    let unsupported = |name: &str| matches!(&result, Err(Error::Unsupported { what, value: found, .. }) if *what == name && *found == value);
                    let unchanged = || matches!(&result, Ok(opened) if *opened == before);
                    let right = match part {
                        Part::Format => unsupported("format"),
                        Part::Suite => unsupported("suite"),
                        Part::Document if value > 2 => unsupported("part"),
                        Part::Mode if value > 1 => unsupported("mode"),
                        // Then there is neither a commitment nor a tag that could say that the id is wrong. But
                        // the key that is named has no row, and that is no erasure.
                        Part::IntegrityKey if !any_live => matches!(result, Err(Error::MissingKey { .. })),
                        // Nothing is redacted, so the tag says nothing.
                        Part::Tag if state == State::Live => unchanged(),
                        // A destroyed key commits to nothing any more.
                        Part::Commitment(key) if is_dead(*key) => unchanged(),
                        _ => tampered(&result),
                    };
                    assert!(right, "{}", context());
                }
            }
        }
    }
}

#[test]
fn i3_i4_no_bit_of_a_sealed_value_can_be_flipped() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            for (place, token) in tokens(stored) {
                let is_dead = before.redacted.iter().any(|redacted| redacted.as_str() == place);
                let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
                let open = |bytes: &[u8]| world.open(&with_token(stored, place, &URL_SAFE_NO_PAD.encode(bytes)));
                for at in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[at / 8] ^= 1 << (at % 8);
                    let result = open(&flipped);
                    // Nobody can tell any more what a destroyed key sealed; that it is gone is all there is to say.
                    let right = if is_dead { matches!(&result, Ok(opened) if same_reading(opened, &before)) } else { tampered(&result) };
                    assert!(right, "{state:?}, {place}, bit {at}: {result:?}");
                }
                // Lengths that no sealed value has, whatever the key's state.
                for length in [0, 1, 15, 16, 17, 47, bytes.len() - 1] {
                    assert!(tampered(&open(&bytes[..length])), "{state:?}, {place}, {length} bytes");
                }
                assert!(tampered(&open(&[&bytes[..], &[0]].concat())));
                for spelling in
                    [format!("{token}="), format!("{token}=="), format!(" {token}"), token.replace(['A', '-', '_'], "+"), String::new()]
                {
                    let altered = with_token(stored, place, &spelling);
                    if altered.payload != edited(stored, |_| {}).payload {
                        assert!(tampered(&world.open(&altered)), "{state:?}, {place}, {spelling:?}");
                    }
                }
            }
        }
    }
}

/// Equal but for the order of members.
fn same_reading(a: &PersistedEvent, b: &PersistedEvent) -> bool {
    let value = |event: &PersistedEvent| serde_json::from_slice::<Value>(&event.payload).unwrap();
    let mut places = [a.redacted.clone(), b.redacted.clone()];
    places.iter_mut().for_each(|places| places.sort_unstable());
    value(a) == value(b) && places[0] == places[1]
}

/// What a byte of a stored payload belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    /// Braces, brackets, colons, commas, quotes.
    Structure,
    SealName,
    Header,
    /// A name on the way to a protected place.
    ProtectedName,
    Token,
    /// Names and values that are not protected.
    Open,
}

fn regions(text: &str) -> Vec<Region> {
    let mut regions = vec![Region::Structure; text.len()];
    let mut at = 0;
    let mut last = "";
    while at < text.len() {
        let rest = &text[at..];
        if let Some(inner) = rest.strip_prefix('"') {
            let length = inner.find('"').unwrap();
            let string = &inner[..length];
            let is_name = inner[length + 1..].starts_with(':');
            let region = match string {
                "$seal" => Region::SealName,
                "email" | "courier" | "phone" | "lines" | "note" | "memo" if is_name => Region::ProtectedName,
                _ if !is_name && last == "$seal" => Region::Header,
                _ if !is_name && length > 60 => Region::Token,
                _ => Region::Open,
            };
            regions[at + 1..=at + length].fill(region);
            last = string;
            at += length + 2;
        } else {
            let length = rest.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(rest.len());
            regions[at..at + length].fill(Region::Open);
            at += length.max(1);
        }
    }
    regions
}

#[test]
fn i3_i4_no_bit_of_a_stored_payload_changes_what_is_protected() {
    for state in STATES {
        let (world, events) = in_state(state);
        for stored in &events {
            let before = world.open(stored).unwrap();
            let secrets = protected(&before.payload);
            let header = Header::of(stored);
            let map = header.map();
            let regions = regions(text(stored));
            for region in [Region::SealName, Region::Header, Region::ProtectedName, Region::Token, Region::Open] {
                assert!(regions.contains(&region), "the test has lost sight of {region:?}");
            }
            // With no live key to vouch for it, the integrity key's id could be another.
            let key_may_be_missing = state == State::Shredded || state == State::Half && header.keys.len() == 1;
            for (at, region) in regions.iter().enumerate() {
                for bit in 0..8 {
                    let mut payload = stored.payload.clone();
                    payload[at] ^= 1 << bit;
                    let altered = with_payload(stored, payload);
                    let result = world.open(&altered);
                    let context = || format!("{state:?}, {}, byte {at} ({region:?}), bit {bit}: {result:?}", stored.event_type);
                    match &result {
                        Err(error) => {
                            let allowed: &[&str] = match region {
                                Region::Structure => &["InvalidPayload", "ShapeMismatch"],
                                Region::SealName => &["InvalidPayload", "Unsealed"],
                                Region::Header if key_may_be_missing => &["InvalidPayload", "Tampered", "Unsupported", "MissingKey"],
                                Region::Header => &["InvalidPayload", "Tampered", "Unsupported"],
                                Region::ProtectedName | Region::Token => &["InvalidPayload", "Tampered"],
                                Region::Open => &["InvalidPayload"],
                            };
                            assert!(allowed.contains(&kind(error)), "{}", context());
                        }
                        Ok(opened) => {
                            assert_eq!(opened.redacted, before.redacted, "{}", context());
                            assert_eq!(protected(&opened.payload), secrets, "{}", context());
                            match region {
                                Region::Open => {}
                                // As with the decoded header: what is not looked at changes nothing.
                                Region::Header => {
                                    assert_eq!(opened.payload, before.payload);
                                    let now = URL_SAFE_NO_PAD.decode(token(&altered, "/$seal").unwrap()).unwrap();
                                    let differs = |(index, part): (usize, &Part)| (now[index] != header.bytes()[index]).then_some(*part);
                                    let parts: Vec<Part> = map.iter().enumerate().filter_map(differs).collect();
                                    let unread = |part: &Part| match part {
                                        Part::Tag => state == State::Live,
                                        Part::Commitment(key) => state == State::Shredded || state == State::Half && *key == 0,
                                        _ => false,
                                    };
                                    assert!(parts.iter().all(unread), "{parts:?} {}", context());
                                }
                                Region::Token => {
                                    assert!(state != State::Live, "{}", context());
                                    assert_eq!(opened.payload, before.payload, "{}", context());
                                }
                                _ => panic!("{}", context()),
                            }
                        }
                    }
                }
            }
        }
    }
}

// ---- moves

/// Events that differ from the first in one respect each, and of other shapes.
fn neighbours(world: &SealerWorld) -> Vec<PersistedEvent> {
    let elsewhere = world.seal(&aggregate("Order", "ord-2"), NewEvent::raw("Placed", 1, PLACED)).unwrap();
    vec![
        seal(world, "Placed", PLACED),
        seal(world, "Placed", PLACED),
        elsewhere,
        seal(world, "Moved", PLACED),
        seal(world, "Placed", PLACED_BY_OTHERS),
        seal(world, "Gifts", GIFTS),
        seal(world, "Joined", JOINED),
        seal(world, "Pair", PAIR),
    ]
}

#[test]
fn i3_i4_no_sealed_value_can_stand_in_another_place() {
    for state in STATES {
        let world = world();
        let events = neighbours(&world);
        state.bring_about(&world);
        for (target, event) in events.iter().enumerate() {
            let before = world.open(event).unwrap();
            for (place, _) in tokens(event) {
                let is_dead = before.redacted.iter().any(|redacted| redacted.as_str() == place);
                for (source, other) in events.iter().enumerate() {
                    for (origin, token) in tokens(other) {
                        let result = world.open(&with_token(event, place, &token));
                        let right = if (source, origin) == (target, place) || is_dead {
                            matches!(&result, Ok(opened) if same_reading(opened, &before))
                        } else {
                            tampered(&result)
                        };
                        assert!(right, "{state:?}: {origin} of event {source} at {place} of event {target}: {result:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn i3_i4_no_header_and_no_payload_can_be_given_to_another_event() {
    for state in STATES {
        let world = world();
        let events = neighbours(&world);
        state.bring_about(&world);
        for (target, event) in events.iter().enumerate() {
            for (source, other) in events.iter().enumerate().filter(|(source, _)| *source != target) {
                let context = format!("{state:?}: of event {source} on event {target}");
                let here: Vec<&str> = tokens(event).iter().map(|(place, _)| *place).collect();
                let there: Vec<&str> = tokens(other).iter().map(|(place, _)| *place).collect();
                let header = world.open(&with_header(event, &Header::of(other).bytes()));
                // A header that covers less than there is leaves the rest uncovered.
                if there.iter().all(|place| here.contains(place)) && there.len() < here.len() {
                    assert!(matches!(header, Err(Error::Unsealed { .. })), "header {context}: {header:?}");
                } else {
                    assert!(tampered(&header), "header {context}: {header:?}");
                }
                // The payload as a whole fits the other's schema or not, but it is never opened.
                let payload = world.open(&with_payload(event, other.payload.clone()));
                assert!(tampered(&payload), "payload {context}: {payload:?}");
            }
        }
    }
}

#[test]
fn i3_i4_an_event_is_bound_to_what_names_it() {
    for state in STATES {
        let world = world();
        let placed = seal(&world, "Placed", PLACED);
        let mut evolved = seal(&world, "Evolved", PLACED);
        state.bring_about(&world);
        let before = world.open(&placed).unwrap();
        let altered = |alter: &dyn Fn(&mut PersistedEvent)| {
            let mut event = placed.clone();
            alter(&mut event);
            world.open(&event)
        };
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Order", "ord-2"))));
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Basket", "ord-1"))));
        assert!(tampered(&altered(&|event| event.aggregate = aggregate("Ord", "erord-1"))));
        assert!(tampered(&altered(&|event| event.event_id = uuid::Uuid::now_v7())));
        assert!(tampered(&altered(&|event| event.stored_type = "Moved".into())));
        // An unprotected type may have been protected once, so its headers are opened too.
        assert!(tampered(&altered(&|event| event.stored_type = "Open".into())));
        let unknown = altered(&|event| event.stored_type = "Unknown".into());
        assert!(matches!(unknown, Err(Error::StillSealed { .. })), "an unknown type passes through, but not sealed");
        assert!(matches!(altered(&|event| event.stored_version = EventVersion::new(2)), Err(Error::NewerVersion { .. })));
        assert!(matches!(altered(&|event| event.stored_version = EventVersion::new(0)), Err(Error::UnknownVersion { .. })));
        evolved.stored_version = EventVersion::new(2);
        assert!(tampered(&world.open(&evolved)), "a version of the same protection is another one nevertheless");
        // What only the store knows, and only after the append, is not bound.
        let renumbered = altered(&|event| {
            event.aggregate_version = AggregateVersion::FIRST.next();
            event.global_position = 99.try_into().unwrap();
        });
        assert_eq!(renumbered.unwrap().payload, before.payload);
    }
}

const KEYRING: &str = "main:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A key table under the name of another namespace, or with rows that were lost.
struct Broken {
    inner: MemoryKeys,
    namespace: &'static str,
    lost: Vec<KeyId>,
}

impl Broken {
    fn renamed() -> Self {
        Self { inner: MemoryKeys::new(), namespace: "other", lost: Vec::new() }
    }

    fn without(lost: Vec<KeyId>) -> Self {
        Self { inner: MemoryKeys::new(), namespace: "test", lost }
    }
}

#[async_trait]
impl KeyFaults for Broken {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.inner
    }

    async fn namespace(&self, _: &mut MemoryTx) -> Result<Option<Namespace>> {
        Namespace::new(self.namespace).map(Some)
    }

    async fn data_keys(&self, tx: &mut MemoryTx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let mut rows = self.inner.data_keys(tx, key_ids).await?;
        rows.retain(|row| !self.lost.contains(&row.key_id));
        Ok(rows)
    }
}

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

/// A row that is not there is an outage or a mistake, whatever else is in order. It is no erasure.
#[test]
fn i4_a_lost_key_row_is_missing_and_not_shredded() {
    for state in STATES {
        let world = SealerWorld::with_keyring(Keyring::parse(KEYRING).unwrap(), schemas());
        let events =
            [seal(&world, "Placed", PLACED), seal(&world, "Gifts", GIFTS), seal(&world, "Joined", JOINED), seal(&world, "Whole", PLACED)];
        state.bring_about(&world);
        for stored in &events {
            let header = Header::of(stored);
            let before = world.open(stored).unwrap();
            let ids: Vec<KeyId> = header.keys.iter().map(|key| KeyId(uuid::Uuid::from_bytes(*key))).collect();
            let integrity = KeyId(uuid::Uuid::from_bytes(header.integrity_key));
            // One row, some rows, with and without the integrity key's.
            for lost in 1_usize..1 << (ids.len() + 1) {
                let lost: Vec<KeyId> =
                    ids.iter().chain([&integrity]).enumerate().filter(|(bit, _)| lost >> bit & 1 == 1).map(|(_, id)| *id).collect();
                let sealer = Sealer::new(Faulty(Broken::without(lost.clone())), Keyring::parse(KEYRING).unwrap(), schemas());
                let result = futures::executor::block_on(sealer.open(&mut world.db.begin(), vec![stored.clone()]));
                match result {
                    Err(Error::MissingKey { key_id, .. }) => assert!(lost.contains(&key_id)),
                    // Where nothing is redacted, nobody asks for the integrity key.
                    Ok(opened) => assert!(lost == [integrity] && !before.is_redacted() && opened == std::slice::from_ref(&before)),
                    Err(error) => panic!("{state:?}, {}: {error:?}", stored.event_type),
                }
            }
        }
    }
}

/// A namespace separates three times: by its rows, by the KMS, and by what data keys are wrapped with.
#[test]
fn i3_i4_a_seal_does_not_open_in_another_namespace() {
    let here = SealerWorld::with_keyring(Keyring::parse(KEYRING).unwrap(), schemas());
    let stored = seal(&here, "Placed", PLACED);
    // The same master key, another database: its keys are not there.
    let there =
        SealerWorld::over(MemoryDb::new(Namespace::new("other").unwrap()), MemoryKeys::new(), Keyring::parse(KEYRING).unwrap(), schemas());
    assert!(matches!(there.open(&stored), Err(Error::MissingKey { .. })));
    // Not even if the scopes of the same names were shredded there.
    shred_all(&there);
    assert!(matches!(there.open(&stored), Err(Error::MissingKey { .. })));
    // The same rows under another name: the KMS refuses.
    let renamed = |kms: Box<dyn Kms>| Sealer::new(Faulty(Broken::renamed()), Arc::<dyn Kms>::from(kms), schemas());
    let open = |sealer: &Sealer<MemoryTx>, world: &SealerWorld, stored: &PersistedEvent| {
        futures::executor::block_on(sealer.open(&mut world.db.begin(), vec![stored.clone()]))
    };
    let refused = open(&renamed(Box::new(Keyring::parse(KEYRING).unwrap())), &here, &stored);
    assert!(matches!(refused, Err(Error::KmsRefused { .. })), "{refused:?}");
    // And if the KMS does not care, the wrapped keys do.
    let careless = SealerWorld::over(MemoryDb::new(Namespace::new("test").unwrap()), MemoryKeys::new(), Careless, schemas());
    let stored = seal(&careless, "Placed", PLACED);
    let refused = open(&renamed(Box::new(Careless)), &careless, &stored);
    assert!(matches!(refused, Err(Error::WrongKey { .. })), "{refused:?}");
    // Tombstones have no wrapped key, so there it is the integrity key that says no.
    shred_all(&careless);
    let refused = open(&renamed(Box::new(Careless)), &careless, &stored);
    assert!(matches!(refused, Err(Error::WrongKey { .. })), "{refused:?}");
}

// ---- forged headers

/// An alteration of a header, and of the document to go with it.
type Forgery<'a> = (&'static str, Box<dyn Fn(&mut Header) + 'a>, Box<dyn Fn(&mut Value) + 'a>);

#[test]
fn i3_i4_a_manifest_can_not_be_rewritten() {
    for state in STATES {
        let world = world();
        let stored = seal(&world, "Placed", PLACED);
        // A scope that is shredded in all three worlds, and its key.
        let gone = world.seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-3"))).unwrap();
        let live = world.seal(&aggregate("Order", "ord-3"), NewEvent::raw("Joined", 1, JOINED.replace("cust-1", "cust-4"))).unwrap();
        world.shred("Customer", "cust-3");
        state.bring_about(&world);
        let gone_key = Header::of(&gone).keys[0];
        let live_key = Header::of(&live).keys[0];
        let nothing = || Box::new(|_: &mut Value| {});
        let forgeries: Vec<Forgery<'_>> = vec![
            (
                "the second field taken away, its key with it",
                Box::new(|header| {
                    header.entries.pop();
                    header.keys.pop();
                    header.commitments.pop();
                }),
                Box::new(|value| drop(value["courier"].as_object_mut().unwrap().remove("phone"))),
            ),
            (
                "the first field taken away, its key with it",
                Box::new(|header| {
                    header.entries.remove(0);
                    header.entries[0].0 = 0;
                    header.keys.remove(0);
                    header.commitments.remove(0);
                }),
                Box::new(|value| drop(value.as_object_mut().unwrap().remove("email"))),
            ),
            ("fields exchanged", Box::new(|header| header.entries.swap(0, 1)), nothing()),
            (
                "pointers and values exchanged",
                Box::new(|header| {
                    let first = header.entries[0].2.clone();
                    header.entries[0].2 = std::mem::replace(&mut header.entries[1].2, first);
                }),
                Box::new(|value| {
                    let email = value["email"].take();
                    value["email"] = std::mem::replace(&mut value["courier"]["phone"], email);
                }),
            ),
            ("keys exchanged", Box::new(|header| header.keys.swap(0, 1)), nothing()),
            (
                "keys exchanged with their commitments",
                Box::new(|header| {
                    header.keys.swap(0, 1);
                    header.commitments.swap(0, 1);
                }),
                nothing(),
            ),
            ("the first key is a shredded one", Box::new(move |header| header.keys[0] = gone_key), nothing()),
            ("the second key is a shredded one", Box::new(move |header| header.keys[1] = gone_key), nothing()),
            ("the first key is a live one", Box::new(move |header| header.keys[0] = live_key), nothing()),
            ("the first key is the integrity key", Box::new(|header| header.keys[0] = header.integrity_key), nothing()),
            ("the integrity key is a live data key", Box::new(move |header| header.integrity_key = live_key), nothing()),
            ("the integrity key is a shredded data key", Box::new(move |header| header.integrity_key = gone_key), nothing()),
            (
                "a void entry of a shredded key is added",
                Box::new(move |header| {
                    header.keys.push(gone_key);
                    header.entries.push((2, 1, "/total".to_owned()));
                }),
                Box::new(|value| value["total"] = Value::Null),
            ),
            (
                "a sealed entry of a shredded key is added",
                Box::new(move |header| {
                    header.keys.push(gone_key);
                    header.commitments.push([0; 32]);
                    header.entries.push((2, 0, "/total".to_owned()));
                }),
                Box::new(|value| value["total"] = value["email"].clone()),
            ),
            (
                "the first entry is void",
                Box::new(|header| {
                    header.entries[0].1 = 1;
                    header.commitments.remove(0);
                }),
                Box::new(|value| value["email"] = Value::Null),
            ),
            (
                "all entries are void, of a shredded key",
                Box::new(move |header| {
                    header.keys = vec![gone_key];
                    header.commitments.clear();
                    header.entries.iter_mut().for_each(|entry| (entry.0, entry.1) = (0, 1));
                }),
                Box::new(|value| {
                    value["email"] = Value::Null;
                    value["courier"]["phone"] = Value::Null;
                }),
            ),
            (
                "all entries are void, of their own keys",
                Box::new(|header| {
                    header.commitments.clear();
                    header.entries.iter_mut().for_each(|entry| entry.1 = 1);
                }),
                Box::new(|value| {
                    value["email"] = Value::Null;
                    value["courier"]["phone"] = Value::Null;
                }),
            ),
            ("a tag of zeros, an altered salt", Box::new(|header| (header.tag, header.salt) = ([0; 16], [0; 16])), nothing()),
            ("an entry at the root", Box::new(|header| header.entries[0].2.clear()), nothing()),
            ("an entry that is no pointer", Box::new(|header| "email".clone_into(&mut header.entries[0].2)), nothing()),
            ("an entry with a bad escape", Box::new(|header| "/~2".clone_into(&mut header.entries[0].2)), nothing()),
            (
                "an entry of the header itself",
                Box::new(|header| "/$seal".clone_into(&mut header.entries[0].2)),
                Box::new(|value| value["email"] = Value::Null),
            ),
            ("an entry very deep down", Box::new(|header| header.entries[0].2 = "/a".repeat(200)), nothing()),
            ("an entry very long", Box::new(|header| header.entries[0].2 = format!("/{}", "a".repeat(5_000))), nothing()),
            ("entries twice", Box::new(|header| header.entries.push(header.entries[0].clone())), nothing()),
            ("no entries", Box::new(|header| header.entries.clear()), nothing()),
            ("no keys", Box::new(|header| (header.keys, header.commitments) = (Vec::new(), Vec::new())), nothing()),
            ("whole mode", Box::new(|header| header.fixed[3] = 1), nothing()),
        ];
        for (what, forge, edit) in &forgeries {
            let mut header = Header::of(&stored);
            forge(&mut header);
            let forged = with_header(&edited(&stored, edit), &header.bytes());
            let result = world.open(&forged);
            assert!(tampered(&result), "{state:?}, {what}: {result:?}");
        }
        // A shortened manifest beside the field that it no longer covers.
        let mut header = Header::of(&stored);
        header.entries.pop();
        header.keys.pop();
        header.commitments.pop();
        for phone in [json!("c4n4ry"), json!(token(&stored, "/courier/phone"))] {
            let forged = with_header(&edited(&stored, |value| value["courier"]["phone"] = phone), &header.bytes());
            let result = world.open(&forged);
            assert!(matches!(&result, Err(Error::Unsealed { pointer, .. }) if pointer.as_str() == "/courier/phone"), "{result:?}");
        }
        let forged = with_header(&edited(&stored, |value| value["courier"]["phone"] = Value::Null), &header.bytes());
        assert!(tampered(&world.open(&forged)));
    }
}

/// The one key of an event exchanged for one that is shredded: nothing live could object.
#[test]
fn i4_a_shredded_key_in_a_live_header_redacts_nothing() {
    let world = world();
    let mine = seal(&world, "Joined", JOINED);
    let gone = seal(&world, "Joined", &JOINED.replace("cust-1", "cust-2"));
    world.shred("Customer", "cust-2");
    let (of_mine, of_gone) = (Header::of(&mine), Header::of(&gone));
    for (tag, salt) in [(of_mine.tag, of_mine.salt), (of_gone.tag, of_mine.salt), (of_gone.tag, of_gone.salt)] {
        for kind in [0, 1] {
            let mut header = of_mine.clone();
            (header.keys, header.tag, header.salt) = (of_gone.keys.clone(), tag, salt);
            header.entries[0].1 = kind;
            if kind == 1 {
                header.commitments.clear();
            }
            let forged = edited(&mine, |value| {
                if kind == 1 {
                    value["email"] = Value::Null;
                }
            });
            assert!(tampered(&world.open(&with_header(&forged, &header.bytes()))));
        }
    }
    // The shredded event's header, and its payload, on the live event; and the other way round.
    assert!(tampered(&world.open(&with_header(&mine, &of_gone.bytes()))));
    assert!(tampered(&world.open(&with_payload(&mine, gone.payload.clone()))));
    assert!(tampered(&world.open(&with_header(&gone, &of_mine.bytes()))));
    assert!(tampered(&world.open(&with_payload(&gone, mine.payload.clone()))));
    let mut header = of_gone.clone();
    header.keys = of_mine.keys.clone();
    assert!(tampered(&world.open(&with_header(&gone, &header.bytes()))), "a live key in a shredded header");
    assert_eq!(world.open(&mine).unwrap().payload, JOINED.as_bytes());
    assert_eq!(world.open(&gone).unwrap().redacted, [JsonPointer::parse("/email").unwrap()]);
}

/// A reopened scope seals anew; its old key still redacts, and can't be given to a new event.
#[test]
fn i4_generations_of_one_scope_do_not_mix() {
    let world = world();
    let old = seal(&world, "Joined", JOINED);
    world.shred("Customer", "cust-1");
    let mut tx = world.db.begin();
    futures::executor::block_on(world.sealer.keys().reopen(&mut tx, &KeyScope::new("Customer", "cust-1"), "came back")).unwrap();
    tx.commit().unwrap();
    let new = seal(&world, "Joined", JOINED);
    assert_eq!(world.open(&new).unwrap().payload, JOINED.as_bytes());
    assert!(world.open(&old).unwrap().is_redacted());
    let mut header = Header::of(&new);
    header.keys = Header::of(&old).keys;
    assert!(tampered(&world.open(&with_header(&new, &header.bytes()))));
    assert!(tampered(&world.open(&with_payload(&new, old.payload.clone()))));
    assert!(tampered(&world.open(&with_payload(&old, new.payload.clone()))));
}

// ---- altered documents

fn replaced(from: &'static str, to: &'static str) -> impl Fn(&str) -> String {
    move |text| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replacen(from, to, 1)
    }
}

#[test]
fn i3_i4_a_document_can_not_be_rearranged_around_its_seal() {
    for state in STATES {
        let (world, events) = in_state(state);
        let stored = &events[0];
        let before = world.open(stored).unwrap();
        let seal = token(stored, "/$seal").unwrap();
        let by_value = |edit: &dyn Fn(&mut Value)| world.open(&edited(stored, edit));
        let by_text = |edit: &dyn Fn(&str) -> String| world.open(&with_payload(stored, edit(text(stored))));
        let unsealed_at = |result: &Result<PersistedEvent>, place: &str| matches!(result, Err(Error::Unsealed { pointer, .. }) if pointer.as_str() == place);
        let misshapen_at = |result: &Result<PersistedEvent>, place: &str| matches!(result, Err(Error::ShapeMismatch { pointer, .. }) if pointer.as_str() == place);

        // The header is gone.
        assert!(unsealed_at(&by_text(&|text| text.replacen(&format!("\"$seal\":\"{seal}\","), "", 1)), "/email"));
        assert!(unsealed_at(&world.open(&with_payload(stored, PLACED)), "/email"));
        // Everything moved down: nothing protected is left at its place, and nothing is opened.
        let moved_down = by_value(&|value| *value = json!({ "inner": value.take() })).unwrap();
        assert!(!holds_canary(&moved_down.payload) && !moved_down.is_redacted());
        // In the text, so that the places stay in their order, of which the first is named.
        let header = format!("\"$seal\":\"{seal}\",");
        let inside = by_text(&|text| text.replacen(&header, "", 1).replacen("\"courier\":{", &format!("\"courier\":{{{header}"), 1));
        assert!(unsealed_at(&inside, "/email"), "{inside:?}");
        assert!(unsealed_at(&by_text(&replaced("\"$seal\"", "\"$Seal\"")), "/email"));
        // Without header and without values, an event says nothing; it does not say that something was erased.
        let emptied = by_value(&|value| {
            value.as_object_mut().unwrap().remove("$seal");
            value["email"] = Value::Null;
            value.as_object_mut().unwrap().remove("courier");
        });
        assert!(emptied.is_ok_and(|opened| opened.redacted.is_empty() && !holds_canary(&opened.payload)));

        // The header is no header.
        for other in [
            json!(null),
            json!(5),
            json!(true),
            json!([seal]),
            json!({ "x": seal }),
            json!(""),
            json!("AQ"),
            json!(format!("{seal}=")),
            json!(format!("{seal}A")),
        ] {
            assert!(tampered(&by_value(&|value| value["$seal"] = other.clone())), "{state:?} {other}");
        }
        assert!(
            tampered(&by_text(&|text| text.replacen(&seal, &format!("\\u00{:02x}{}", seal.as_bytes()[0], &seal[1..]), 1))),
            "a token has one spelling"
        );
        assert!(tampered(&by_text(&|text| text.replacen('{', &format!("{{\"$seal\":\"{seal}\","), 1))));
        assert!(tampered(&by_text(&|text| text.replacen('{', &format!("{{\"\\u0024seal\":\"{seal}\","), 1))));
        assert!(tampered(&by_text(&|text| text.replacen('{', "{\"$seal\":null,", 1))));
        // A name has several spellings, and they are one.
        assert_eq!(by_text(&replaced("\"$seal\"", "\"\\u0024se\\u0061l\"")).unwrap(), before);

        // A field is not what was sealed.
        for other in [json!("c4n4ry-eve@example.org"), json!(null), json!(1), json!(true), json!({}), json!([]), json!("")] {
            assert!(tampered(&by_value(&|value| value["email"] = other.clone())), "{state:?} {other}");
            assert!(tampered(&by_value(&|value| value["courier"]["phone"] = other.clone())), "{state:?} {other}");
        }
        assert!(tampered(&by_value(&|value| drop(value.as_object_mut().unwrap().remove("email")))));
        assert!(tampered(&by_value(&|value| drop(value["courier"].as_object_mut().unwrap().remove("phone")))));
        assert!(tampered(&by_value(&|value| drop(value.as_object_mut().unwrap().remove("courier")))));
        assert!(tampered(&by_value(&|value| value["courier"] = json!({}))));
        assert!(tampered(&by_value(&|value| value["courier"] = Value::Null)));
        assert!(tampered(&by_value(&|value| {
            let email = value["email"].take();
            value.as_object_mut().unwrap().remove("email");
            value["Email"] = email;
        })));

        // Something else stands on the way to it.
        for other in [json!("Bob, c4n4ry-555"), json!(5), json!(false), json!([]), json!([{ "phone": token(stored, "/courier/phone") }])] {
            assert!(misshapen_at(&by_value(&|value| value["courier"] = other.clone()), "/courier"), "{state:?} {other}");
        }
        assert!(misshapen_at(&by_text(&|text| format!("[{text}]")), ""));
        assert!(misshapen_at(&by_text(&|text| serde_json::to_string(text).unwrap()), ""));

        // It stands there twice.
        for twice in [
            replaced("\"email\":", "\"email\":\"c4n4ry\",\"email\":"),
            replaced("\"email\":", "\"email\":null,\"email\":"),
            replaced("\"email\":", "\"\\u0065mail\":\"c4n4ry\",\"email\":"),
            replaced("\"courier\":", "\"courier\":{\"phone\":\"c4n4ry\"},\"courier\":"),
            replaced("\"courier\":", "\"courier\":null,\"courier\":"),
            replaced("\"phone\":", "\"ph\\u006fne\":1,\"phone\":"),
        ] {
            assert!(tampered(&by_text(&twice)), "{state:?}");
        }

        // It is no JSON any more.
        for cut in [0, 1, 10, stored.payload.len() - 1] {
            assert!(matches!(world.open(&with_payload(stored, &stored.payload[..cut])), Err(Error::InvalidPayload { .. })));
        }
        assert!(matches!(by_text(&|text| format!("{text},")), Err(Error::InvalidPayload { .. })));
        assert!(matches!(by_text(&|text| format!("{text}{text}")), Err(Error::InvalidPayload { .. })));
        let deep = by_text(&|text| text.replacen("12.50", &format!("{}{}", "[".repeat(200), "]".repeat(200)), 1));
        assert!(matches!(deep, Err(Error::LimitExceeded { .. })));

        // What is not protected may change, appear and go.
        let changed = by_value(&|value| {
            value["total"] = json!([1, 2]);
            value["customer_id"] = json!("cust-2");
            value["new"] = json!({ "email": "x" });
            value.as_object_mut().unwrap().remove("order_id");
        })
        .unwrap();
        assert_eq!(protected(&changed.payload), protected(&before.payload));
        assert_eq!(changed.redacted.len(), before.redacted.len());
    }
}

#[test]
fn i3_i4_elements_can_not_be_moved_added_or_taken_away() {
    for state in STATES {
        let (world, events) = in_state(state);
        let stored = &events[1];
        let by_value = |edit: &dyn Fn(&mut Vec<Value>)| world.open(&edited(stored, |value| edit(value["lines"].as_array_mut().unwrap())));
        let before = world.open(stored).unwrap();
        let swapped = by_value(&|lines| lines.swap(0, 1));
        if state == State::Shredded {
            // Ciphertexts of destroyed keys are alike; nothing is read from them.
            assert_eq!(swapped.unwrap().redacted.len(), before.redacted.len());
        } else {
            assert!(tampered(&swapped), "{state:?} {swapped:?}");
        }
        assert!(tampered(&by_value(&|lines| lines.insert(0, json!({ "to": "x" })))));
        assert!(tampered(&by_value(&|lines| lines.insert(0, json!(null)))));
        assert!(tampered(&by_value(&|lines| drop(lines.remove(0)))));
        assert!(tampered(&by_value(&|lines| lines.truncate(1))));
        assert!(tampered(&by_value(&Vec::clear)));
        for note in [json!("c4n4ry"), json!(1), json!(token(stored, "/lines/0/note"))] {
            let added = by_value(&|lines| lines.push(json!({ "to": "rec-1", "note": note })));
            assert!(matches!(&added, Err(Error::Unsealed { pointer, .. }) if pointer.as_str() == "/lines/3/note"), "{added:?}");
            let filled = by_value(&|lines| lines[2]["note"] = note.clone());
            assert!(matches!(&filled, Err(Error::Unsealed { pointer, .. }) if pointer.as_str() == "/lines/2/note"), "{filled:?}");
        }
        for lines in [json!({ "0": { "note": token(stored, "/lines/0/note") } }), json!("x"), json!(1)] {
            let result = world.open(&edited(stored, |value| value["lines"] = lines.clone()));
            assert!(matches!(&result, Err(Error::ShapeMismatch { pointer, .. }) if pointer.as_str() == "/lines"), "{result:?}");
        }
        assert!(tampered(&world.open(&edited(stored, |value| value["lines"] = Value::Null))));
        // An element without a note is nobody's secret.
        let added = by_value(&|lines| lines.push(json!({ "to": "rec-1" }))).unwrap();
        assert_eq!(protected(&added.payload), protected(&before.payload));
    }
}

#[test]
fn i3_i4_a_whole_document_can_not_be_altered() {
    for shredded in [false, true] {
        let world = world();
        let stored = seal(&world, "Whole", "c4n4ry, and no JSON");
        let other = seal(&world, "Whole", "c4n4ry, and no JSON either");
        let fields = seal(&world, "Joined", JOINED);
        if shredded {
            shred_all(&world);
        }
        let before = world.open(&stored).unwrap();
        assert_eq!(before.redacted.len(), usize::from(shredded));
        assert_eq!(before.payload, if shredded { &b"null"[..] } else { b"c4n4ry, and no JSON" });
        let by_value = |edit: &dyn Fn(&mut Value)| world.open(&edited(&stored, edit));
        assert!(tampered(&by_value(&|value| value["x"] = json!(1))));
        assert!(tampered(&by_value(&|value| value["$Seal"] = json!(1))));
        assert!(tampered(&by_value(&|value| drop(value.as_object_mut().unwrap().remove("$sealed")))));
        assert!(tampered(&by_value(&|value| {
            value["sealed"] = value["$sealed"].take();
            value.as_object_mut().unwrap().remove("$sealed");
        })));
        for value_there in [json!(null), json!(1), json!("c4n4ry"), json!({}), json!("")] {
            assert!(tampered(&by_value(&|value| value["$sealed"] = value_there.clone())), "{value_there}");
        }
        let twice = text(&stored).replacen("\"$sealed\"", "\"$sealed\":\"x\",\"$sealed\"", 1);
        assert!(tampered(&world.open(&with_payload(&stored, twice))));
        let spaced = text(&stored).replace(':', " :\n").replace("$sealed", "\\u0024sealed");
        assert_eq!(world.open(&with_payload(&stored, spaced)).unwrap(), before);

        // The header is gone: plaintext is not accepted, whatever it is.
        for plain in [&b"c4n4ry"[..], b"", b"\xff", b"null", b"{}", b"{\"$sealed\":\"x\"}", b"[1]"] {
            assert!(
                matches!(&world.open(&with_payload(&stored, plain)), Err(Error::Unsealed { pointer, .. }) if pointer.as_str().is_empty())
            );
        }
        assert!(matches!(&by_value(&|value| drop(value.as_object_mut().unwrap().remove("$seal"))), Err(Error::Unsealed { .. })));
        // A header of fields does not do for the whole.
        let result = world.open(&with_payload(&stored, fields.payload.clone()));
        assert!(matches!(result, Err(Error::Unsealed { .. })), "{result:?}");
        // Others' headers, values and documents.
        assert!(tampered(&world.open(&with_header(&stored, &Header::of(&other).bytes()))));
        assert!(tampered(&world.open(&with_payload(&stored, other.payload.clone()))));
        assert!(tampered(&world.open(&with_payload(&fields, stored.payload.clone()))));
        let swapped = by_value(&|value| value["$sealed"] = json!(token(&other, "/$sealed")));
        assert!(if shredded { swapped.unwrap() == before } else { tampered(&swapped) });

        let header = Header::of(&stored);
        for (at, part) in header.map().iter().enumerate() {
            for bit in 0..8 {
                let mut flipped = header.bytes();
                flipped[at] ^= 1 << bit;
                let result = world.open(&with_header(&stored, &flipped));
                let right = match (part, &result) {
                    (Part::Tag, Ok(opened)) => !shredded && *opened == before,
                    (Part::Commitment(_), Ok(opened)) => shredded && *opened == before,
                    // Mode 0 is a header of fields with an entry at the root: no such thing.
                    (Part::Format | Part::Suite | Part::Document | Part::Mode, Err(Error::Unsupported { .. })) => true,
                    (Part::Document | Part::Mode, Err(Error::Tampered { .. })) => flipped[at] <= 2,
                    (Part::IntegrityKey, Err(Error::MissingKey { .. })) => shredded,
                    (
                        Part::Salt | Part::IntegrityKey | Part::Key | Part::Counts | Part::Entry | Part::Tag | Part::Commitment(_),
                        result,
                    ) => {
                        matches!(result, Err(Error::Tampered { .. }))
                    }
                    _ => false,
                };
                assert!(right, "shredded: {shredded}, {part:?}, bit {bit}: {result:?}");
            }
        }
        let bytes = URL_SAFE_NO_PAD.decode(token(&stored, "/$sealed").unwrap()).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let result = by_value(&|value| value["$sealed"] = json!(URL_SAFE_NO_PAD.encode(&flipped)));
            assert!(if shredded { result.unwrap() == before } else { tampered(&result) });
        }
    }
}

// ---- disabled keys, plaintext, other versions

#[test]
fn i4_a_disabled_scope_is_an_error_whatever_is_altered() {
    let world = world();
    let stored = seal(&world, "Placed", PLACED);
    let single = seal(&world, "Joined", JOINED);
    world.disable("Customer", "cust-1");
    for event in [&stored, &single] {
        let result = world.open(event);
        assert!(matches!(&result, Err(Error::Disabled { scope }) if *scope == KeyScope::new("Customer", "cust-1")), "{result:?}");
        let header = Header::of(event);
        for (at, part) in header.map().iter().enumerate() {
            for bit in 0..8 {
                let mut flipped = header.bytes();
                flipped[at] ^= 1 << bit;
                let result = world.open(&with_header(event, &flipped));
                let right = match (part, &result) {
                    // The state of a key never explains an altered header, as long as something can tell.
                    (Part::Format | Part::Suite | Part::Document | Part::Mode, Err(Error::Unsupported { .. })) => true,
                    (Part::Commitment(0), result) => matches!(result, Err(Error::Disabled { .. })),
                    (Part::IntegrityKey, Err(Error::Disabled { .. })) => header.keys.len() == 1,
                    (_, result) => tampered(result),
                };
                assert!(right, "{part:?}, bit {bit}: {result:?}");
            }
        }
    }
    // With the other scope shredded, a redaction waits for the disabled one all the same.
    world.shred("Courier", "7");
    assert!(matches!(world.open(&stored), Err(Error::Disabled { .. })));
    world.enable("Customer", "cust-1");
    assert_eq!(world.open(&single).unwrap().payload, JOINED.as_bytes());
    let half = world.open(&stored).unwrap();
    assert_eq!(half.redacted, [JsonPointer::parse("/courier/phone").unwrap()]);
    assert_eq!(String::from_utf8(half.payload).unwrap(), PLACED.replace("\"c4n4ry-555\"", "null"));
    // A disabled scope can still be shredded, and is redacted then.
    world.disable("Customer", "cust-1");
    world.shred("Customer", "cust-1");
    assert_eq!(world.open(&single).unwrap().redacted.len(), 1);
}

#[test]
fn i3_accepting_plaintext_does_not_accept_broken_seals() {
    let schemas = || Schemas::builder(declared(&Seen::default())).accept_plaintext("Placed").accept_plaintext("Whole").build().unwrap();
    for shredded in [false, true] {
        let world = SealerWorld::new(schemas());
        let stored = seal(&world, "Placed", PLACED);
        let other = seal(&world, "Placed", PLACED);
        let whole = seal(&world, "Whole", PLACED);
        if shredded {
            shred_all(&world);
        }
        let plain = world.open(&with_payload(&stored, PLACED)).unwrap();
        assert_eq!((plain.payload.as_slice(), plain.redacted.len()), (PLACED.as_bytes(), 0));
        for bytes in [&b"\xff"[..], b"{}", b"{\"a\":1}"] {
            assert_eq!(world.open(&with_payload(&whole, bytes)).unwrap().payload, bytes);
        }
        assert!(tampered(&world.open(&with_payload(&stored, other.payload.clone()))));
        assert!(tampered(&world.open(&with_header(&stored, &Header::of(&other).bytes()))));
        assert!(tampered(&world.open(&edited(&stored, |value| value["email"] = json!("c4n4ry")))));
        assert!(tampered(&world.open(&edited(&stored, |value| value["$seal"] = json!(5)))));
        assert!(tampered(&world.open(&edited(&whole, |value| value["x"] = json!(5)))));
        let header = Header::of(&stored);
        for at in 0..header.bytes().len() * 8 {
            let mut flipped = header.bytes();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(opened) = world.open(&with_header(&stored, &flipped)) {
                assert!(matches!(header.map()[at / 8], Part::Tag | Part::Commitment(_)));
                assert_eq!(opened.redacted.len(), if shredded { 2 } else { 0 });
            }
        }
    }
}

/// I7: what an upcaster is shown is plaintext or a stand-in, however the store was altered.
#[test]
fn i7_an_upcaster_is_never_shown_what_could_not_be_opened() {
    let seen = Seen::default();
    let world = SealerWorld::new(Schemas::builder(declared(&seen)).allow_older_appends().build().unwrap());
    let stored = seal(&world, "Evolved", PLACED);
    let open_all_flipped = || {
        for at in 0..stored.payload.len() * 8 {
            let mut payload = stored.payload.clone();
            payload[at / 8] ^= 1 << (at % 8);
            let _ = world.open(&with_payload(&stored, payload));
        }
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let shown = open_all_flipped();
    assert!(!shown.is_empty());
    let plaintext = protected(PLACED.as_bytes());
    for payload in shown {
        assert_eq!(protected(payload.as_bytes()), plaintext, "{payload}");
        assert!(!payload.contains("$seal"));
    }
    shred_all(&world);
    for payload in open_all_flipped() {
        assert_eq!(protected(payload.as_bytes())[..2], [Some(Value::Null), Some(Value::Null)], "{payload}");
        assert!(!payload.contains("$seal"));
    }
}

/// A reader that does not know the version yet opens by the header alone, and is told what is redacted.
#[test]
fn i4_versions_that_are_not_known_yet_are_refused_or_opened_by_their_header() {
    let newer = |declared: EventSchema| Schemas::builder([declared]).pass_through_newer().build().unwrap();
    let world = SealerWorld::new(schemas());
    let stored = seal(&world, "Evolved", PLACED);
    let mut stored_v2 = world.seal(&order(), NewEvent::raw("Evolved", 2, PLACED)).unwrap();
    assert_eq!(world.open(&stored).unwrap().event_version.get(), 2);
    let reader = Sealer::new(MemoryKeys::new(), Careless, newer(placed("Evolved")));
    let result = futures::executor::block_on(reader.open(&mut world.db.begin(), vec![stored_v2.clone()]));
    assert!(matches!(result, Err(Error::KmsRefused { .. })), "another KMS is no erasure: {result:?}");
    let keyring = || Keyring::parse(KEYRING).unwrap();
    let writer = SealerWorld::with_keyring(keyring(), schemas());
    stored_v2 = writer.seal(&order(), NewEvent::raw("Evolved", 2, PLACED)).unwrap();
    let reader = SealerWorld::over(writer.db.clone(), MemoryKeys::new(), keyring(), newer(placed("Evolved")));
    assert_eq!(reader.open(&stored_v2).unwrap().payload, PLACED.as_bytes());
    let altered = edited(&stored_v2, |value| value["email"] = json!("c4n4ry"));
    assert!(tampered(&reader.open(&altered)));
    shred_all(&writer);
    assert_eq!(reader.open(&stored_v2).unwrap().redacted.len(), 2);
    assert!(tampered(&reader.open(&altered)));
}

// ---- chance

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What must hold of anything that a store could hand back.
fn check_anything(world: &SealerWorld, template: &PersistedEvent, payload: Vec<u8>) {
    let original = match template.stored_type.as_str() {
        "Gifts" => GIFTS,
        "Joined" => JOINED,
        _ => PLACED,
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
            for place in PLACES {
                let found = found.pointer(place).filter(|value| !value.is_null());
                assert!(found.is_none() || found == expected.pointer(place), "{place} of {}: {found:?}", text(&stored));
            }
        }
    }
}

fn fuzzed(world: &SealerWorld) -> Vec<PersistedEvent> {
    let mut events: Vec<PersistedEvent> = [("Placed", PLACED), ("Placed", PLACED), ("Gifts", GIFTS), ("Joined", JOINED), ("Whole", PLACED)]
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
        (at(), 0..300_usize, at(), 0..5_usize).prop_map(|(at, length, from, event)| Mutation::Splice { at, length, from, event }),
        (at(), prop::sample::select(vec!["null", "{}", "[]", "\"c4n4ry\"", "1", "\"email\":\"c4n4ry\"", "\"$seal\":null", "{\"note\":1}"]))
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
