//! Sealing and opening in memory, beside the least that any scheme with a ciphertext for each field must do.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::fixture::{self, PLACES, TYPE};
use crate::measured::{Measured, Report};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::internals::Engine;
use eventseal::{NewEvent, Owner, aggregate, event, subject};
use serde_json::Value;
use std::hint::black_box;

pub(super) const SUBJECT: Subject = Subject {
    name: "seal",
    title: "Sealing and opening",
    about: "One event, its keys at hand, without a store. The floor is one copy of the payload, and AES-256-GCM of the \
        protected values under a ready key: less can't be done. The first rows are of a payload of 1 KiB with 23 \
        members, of which three are protected strings of 20 bytes.",
    run,
};

/// A payload, and what of it is protected.
struct Case {
    what: &'static str,
    payload: String,
    /// `None` for all of it.
    places: Option<Vec<String>>,
    reach: Option<f64>,
}

fn run(bench: &Bench) -> Report {
    let mut rows = Vec::new();
    for case in cases() {
        rows.extend(measure(bench, &case));
    }
    rows.push(unprotected(bench));
    rows.push(hostile(bench));
    Report::of(rows)
}

fn cases() -> Vec<Case> {
    let three = || Some(PLACES.map(str::to_owned).to_vec());
    let case =
        |what, (payload, places): (String, Vec<String>)| Case { what, payload, places: Some(places), reach: None };
    let whole = |what, bytes| Case { what, payload: fixture::large(bytes), places: None, reach: Some(2.0) };
    vec![
        Case { what: "1 KiB, 3 fields", payload: fixture::order(), places: three(), reach: Some(3.5) },
        case("1 field", fixture::with_fields(1)),
        case("10 fields", fixture::with_fields(10)),
        case("100 fields", fixture::with_fields(100)),
        Case { what: "16 KiB, 3 fields", payload: fixture::large(16_384), places: three(), reach: None },
        Case { what: "1 MiB, 3 fields", payload: fixture::large(1_048_576), places: three(), reach: None },
        case("64 levels deep, 3 fields", fixture::deep(64)),
        whole("64 KiB, whole payload", 65_536),
        whole("1 MiB, whole payload", 1_048_576),
    ]
}

fn measure(bench: &Bench, case: &Case) -> [Measured; 2] {
    let schema = event(TYPE).version(1);
    let owner = if case.what.contains("deep") { Owner::Aggregate } else { subject("Customer", "/customer_id") };
    let schema = match &case.places {
        Some(places) => schema.protect(&places.iter().map(String::as_str).collect::<Vec<_>>(), owner),
        None => schema.protect_whole(Owner::Aggregate),
    };
    let new = NewEvent::raw(TYPE, 1, case.payload.clone());
    let engine = Engine::new(schema, aggregate("Order", "ord_123"), new).unwrap();
    let sealed = engine.seal().unwrap();
    assert_eq!(engine.open(&sealed).unwrap().unwrap(), case.payload.as_bytes());
    let floor = Floor::of(case);
    let rounds = bench.pick(1, 101, 301);
    let [seal_floor, seal, open_floor, open] = bench.compare_short(
        case.what,
        rounds,
        [&|| floor.seal(), &|| drop(black_box(engine.seal().unwrap())), &|| floor.open(), &|| {
            drop(black_box(engine.open(black_box(&sealed)).unwrap()));
        }],
    );
    [
        Measured::time(format!("seal {}", case.what), &seal, "floor", &seal_floor).reach_if(case.reach),
        Measured::time(format!("open {}", case.what), &open, "floor", &open_floor).reach_if(case.reach),
    ]
}

/// The least that must be done.
struct Floor {
    cipher: Aes256Gcm,
    payload: Vec<u8>,
    values: Vec<Vec<u8>>,
    sealed: Vec<(Vec<u8>, Tag)>,
}

impl Floor {
    fn of(case: &Case) -> Self {
        let cipher = Aes256Gcm::new(&[7; 32].into());
        let payload = case.payload.clone().into_bytes();
        let values = match &case.places {
            None => vec![payload.clone()],
            Some(places) => {
                let value: Value = serde_json::from_str(&case.payload).unwrap();
                places.iter().map(|place| value.pointer(place).unwrap().to_string().into_bytes()).collect()
            }
        };
        let mut floor = Self { cipher, payload, values, sealed: Vec::new() };
        floor.sealed = (0..).zip(&floor.values).map(|(index, value)| floor.encrypt(index, value.clone())).collect();
        floor
    }

    fn nonce(index: u8) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0; 12];
        nonce[11] = index;
        Nonce::from(nonce)
    }

    fn encrypt(&self, index: u8, mut value: Vec<u8>) -> (Vec<u8>, Tag) {
        let tag = self.cipher.encrypt_inout_detached(&Self::nonce(index), b"/email", value.as_mut_slice().into());
        (value, tag.unwrap())
    }

    fn seal(&self) {
        black_box(black_box(&self.payload).clone());
        for (index, value) in (0..).zip(&self.values) {
            black_box(self.encrypt(index, value.clone()));
        }
    }

    fn open(&self) {
        black_box(black_box(&self.payload).clone());
        for (index, (value, tag)) in (0..).zip(&self.sealed) {
            let mut value = value.clone();
            let nonce = Self::nonce(index);
            self.cipher.decrypt_inout_detached(&nonce, b"/email", value.as_mut_slice().into(), tag).unwrap();
            black_box(value);
        }
    }
}

/// An event of which nothing is protected, and nothing is to be done.
fn unprotected(bench: &Bench) -> Measured {
    let payload = fixture::order();
    let new = NewEvent::raw(TYPE, 1, payload.clone());
    let engine = Engine::new(event(TYPE).version(1), aggregate("Order", "ord_123"), new).unwrap();
    let [copy, open] = bench.compare_short(
        "unprotected",
        bench.pick(1, 101, 301),
        [&|| drop(black_box(black_box(payload.as_bytes()).to_vec())), &|| {
            drop(black_box(engine.open(black_box(payload.as_bytes())).unwrap()));
        }],
    );
    Measured::time("open 1 KiB, nothing protected", &open, "one copy", &copy)
}

/// The cost of refusing a forged payload, whose header can't be authenticated before its places are found. The header
/// has the largest number of pointers, of nearly the largest length, over many members that none of them names. It is
/// compared with the same bytes with a malformed header, which is refused before any place is looked for.
fn hostile(bench: &Bench) -> Measured {
    const POINTERS: u16 = 4_096;
    let schema = event(TYPE).version(1).protect(&PLACES, subject("Customer", "/customer_id"));
    let new = NewEvent::raw(TYPE, 1, fixture::order());
    let engine = Engine::new(schema, aggregate("Order", "ord_123"), new).unwrap();
    let members = ",\"y\":0".repeat(1_000_000);
    let payload = |last: u16| {
        let mut header = [&[1, 1, 0, 0][..], &[7; 32], &[0, 1], &[4; 16], &POINTERS.to_be_bytes()].concat();
        for number in 1..=POINTERS {
            let pointer = format!("/{}{:04x}", "x".repeat(4_080), if number == POINTERS { last } else { number });
            header.extend_from_slice(&[0, 0, 0]);
            header.extend_from_slice(&u16::try_from(pointer.len()).unwrap().to_be_bytes());
            header.extend_from_slice(pointer.as_bytes());
        }
        header.extend_from_slice(&[9; 48]);
        format!("{{\"$seal\":\"{}\"{members}}}", URL_SAFE_NO_PAD.encode(header)).into_bytes()
    };
    // The last pointer repeats that of another entry, so the header is malformed.
    let payloads = [payload(1), payload(POINTERS)];
    let ways = [0, 1].map(|which: usize| {
        let (engine, payload) = (&engine, &payloads[which]);
        way(move || {
            time(|| {
                black_box(engine.open(black_box(payload)).unwrap_err());
            })
        })
    });
    let [malformed, hostile] = bench.compare("forged header", bench.pick(1, 9, 21), 1, ways);
    let megabytes = payloads[1].len() / 1_000_000;
    let workload = format!("refuse a forged header ({megabytes} MB, {POINTERS} places)");
    Measured::time(workload, &hostile, "refuse it unread", &malformed)
}
