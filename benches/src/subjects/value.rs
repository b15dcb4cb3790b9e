//! Sealing beside an edit with `serde_json`, which does no cryptography.

use super::Subject;
use crate::bench::Bench;
use crate::fixture::{self, PLACES, TYPE};
use crate::measured::{Measured, Report};
use eventseal::internals::Engine;
use eventseal::{NewEvent, aggregate};
use serde_json::Value;
use std::hint::black_box;

pub(super) const SUBJECT: Subject = Subject {
    name: "value",
    title: "Beside an edit with serde_json",
    about: "The engine seals and opens an event of 1 KiB with three protected strings. Beside it, `serde_json` parses \
        the same payload into a `Value`, replaces the three strings, and prints it: no key, no cipher.",
    run,
};

fn run(bench: &Bench) -> Report {
    let payload = fixture::order();
    let new = NewEvent::raw(TYPE, 1, payload.clone());
    let engine = Engine::new(fixture::placed(), aggregate("Order", "ord_123"), new).unwrap();
    let sealed = engine.seal().unwrap();
    let (plain_values, sealed_values) = (values(payload.as_bytes()), values(&sealed));
    let [seal_edit, seal, open_edit, open] = bench.compare_short(
        "values",
        bench.pick(1, 201, 501),
        [
            &|| edit(payload.as_bytes(), &sealed_values),
            &|| drop(black_box(engine.seal().unwrap())),
            &|| edit(&sealed, &plain_values),
            &|| drop(black_box(engine.open(black_box(&sealed)).unwrap())),
        ],
    );
    Report::of([
        Measured::speed("seal 1 KiB, 3 fields", &seal, "parse, edit and print", &seal_edit).reach(2.0),
        Measured::speed("open 1 KiB, 3 fields", &open, "parse, edit and print", &open_edit).reach(2.0),
    ])
}

fn values(payload: &[u8]) -> [String; 3] {
    let value: Value = serde_json::from_slice(payload).unwrap();
    PLACES.map(|place| value.pointer(place).unwrap().as_str().unwrap().to_owned())
}

fn edit(payload: &[u8], values: &[String; 3]) {
    let mut value: Value = serde_json::from_slice(black_box(payload)).unwrap();
    for (place, new) in PLACES.iter().zip(values) {
        *value.pointer_mut(place).unwrap() = Value::from(new.as_str());
    }
    black_box(serde_json::to_vec(&value).unwrap());
}
