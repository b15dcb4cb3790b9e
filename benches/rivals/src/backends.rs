//! The library on AWS-LC, beside itself on RustCrypto.

use eventseal_bench::fixture::{self, PLACES, TYPE};
use eventseal_bench::{Bench, Measured, Report, Subject};
use std::hint::black_box;

pub(crate) const SUBJECT: Subject = Subject {
    name: "backends",
    title: "Beside RustCrypto: the feature aws-lc-rs",
    about: "The engine with the feature `aws-lc-rs`, whose ciphers, hashes and random generator are those of AWS-LC, \
        beside the engine without it. Both are in one program, and do all that sealing and opening an event takes, its \
        keys at hand. The first row is of the key of one event alone: derived from the bytes of a data key, and made \
        ready. A speed below 1 means that AWS-LC is slower.",
    run,
};

/// A payload, and whether all of it is protected, or three of its members.
struct Case {
    what: &'static str,
    payload: String,
    whole: bool,
}

fn cases() -> [Case; 5] {
    let fields = |what, payload| Case { what, payload, whole: false };
    let whole = |what, bytes| Case { what, payload: fixture::large(bytes), whole: true };
    [
        fields("1 KiB, 3 fields", fixture::order()),
        fields("16 KiB, 3 fields", fixture::large(16_384)),
        whole("16 KiB, whole payload", 16_384),
        whole("64 KiB, whole payload", 65_536),
        whole("1 MiB, whole payload", 1_048_576),
    ]
}

/// The engine of one of the two libraries. Their types have the same names, and nothing else in common.
macro_rules! engine {
    ($library:ident, $backend:literal, $case:expr) => {{
        use $library::{NewEvent, Owner, aggregate, event, internals, subject};
        assert_eq!(internals::backend(), $backend);
        let Case { payload, whole, .. } = $case;
        let schema = event(TYPE).version(1);
        let schema = match whole {
            true => schema.protect_whole(Owner::Aggregate),
            false => schema.protect(&PLACES, subject("Customer", "/customer_id")),
        };
        let new = NewEvent::raw(TYPE, 1, payload.clone());
        let engine = internals::Engine::new(schema, aggregate("Order", "ord_123"), new).unwrap();
        let sealed = engine.seal().unwrap();
        assert_eq!(engine.open(&sealed).unwrap().unwrap(), payload.as_bytes());
        (engine, sealed)
    }};
}

fn run(bench: &Bench) -> Report {
    let mut rows = vec![key_of_an_event(bench)];
    rows.extend(cases().iter().flat_map(|case| measure(bench, case)));
    Report::of(rows)
}

fn measure(bench: &Bench, case: &Case) -> [Measured; 2] {
    let (rust, by_rust) = engine!(eventseal, "RustCrypto", case);
    let (lc, by_lc) = engine!(eventseal_aws_lc, "AWS-LC", case);
    let [rust_seal, lc_seal, rust_open, lc_open] = bench.compare_short(
        case.what,
        bench.pick(1, 201, 501),
        [
            &|| drop(black_box(rust.seal().unwrap())),
            &|| drop(black_box(lc.seal().unwrap())),
            &|| drop(black_box(rust.open(black_box(&by_rust)).unwrap())),
            &|| drop(black_box(lc.open(black_box(&by_lc)).unwrap())),
        ],
    );
    [
        Measured::speed(format!("seal {}", case.what), &lc_seal, "RustCrypto", &rust_seal),
        Measured::speed(format!("open {}", case.what), &lc_open, "RustCrypto", &rust_open),
    ]
}

/// A transcript of one of the two libraries, whose key is derived.
macro_rules! transcript {
    ($library:ident) => {{
        use $library::internals::format::Transcript;
        use $library::{Namespace, NewEvent, aggregate};
        let event = NewEvent::raw(TYPE, 1, fixture::order());
        Transcript::of(&Namespace::new("bench").unwrap(), &aggregate("Order", "ord_123"), &event, &[7; 100])
    }};
}

fn key_of_an_event(bench: &Bench) -> Measured {
    let (rust, lc) = (transcript!(eventseal), transcript!(eventseal_aws_lc));
    let [rust, lc] = bench.compare_short(
        "the key of an event",
        bench.pick(1, 201, 501),
        [&|| drop(black_box(rust.event_key(black_box(&[7; 32]), 0).unwrap())), &|| {
            drop(black_box(lc.event_key(black_box(&[7; 32]), 0).unwrap()));
        }],
    );
    Measured::speed("the key of an event, from a data key's bytes", &lc, "RustCrypto", &rust)
}
