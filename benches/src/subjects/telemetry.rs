//! What spans and metrics cost: with nobody who listens, and with somebody who does.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::fixture::{self, TYPE};
use crate::measured::{Measured, Report};
use eventseal::internals::{Engine, told_of_a_read, told_of_an_append};
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{AggregateRef, Keyring, Namespace, NewEvent, Sealer, aggregate};
use futures::executor::block_on;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::Dispatch;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

pub(super) const SUBJECT: Subject = Subject {
    name: "telemetry",
    title: "Spans and metrics",
    about: "The library is built with the feature `metrics`. The first rows are what an append and a read of a stream \
        do for their spans and counters when there is no subscriber and no recorder, beside one event of 1 KiB that \
        the engine seals or opens: an append or a read does far more than that. The others are `Sealer`, which seals \
        one such event with a subscriber and a recorder, beside the same without both.",
    run,
};

fn run(bench: &Bench) -> Report {
    let mut rows = unheard(bench).to_vec();
    rows.extend(heard(bench));
    Report::of(rows)
}

fn order() -> AggregateRef {
    aggregate("Order", "ord_123")
}

fn unheard(bench: &Bench) -> [Measured; 2] {
    let (order, schemas) = (order(), fixture::schemas());
    let new = NewEvent::raw(TYPE, 1, fixture::order());
    let engine = Engine::new(fixture::placed(), order.clone(), new).unwrap();
    let sealed = engine.seal().unwrap();
    let [seal, append, open, read] = bench.compare_short(
        "nobody listens",
        bench.pick(1, 101, 301),
        [
            &|| drop(black_box(engine.seal().unwrap())),
            &|| block_on(told_of_an_append(black_box(&order), 1)).unwrap(),
            &|| drop(black_box(engine.open(black_box(&sealed)).unwrap())),
            &|| block_on(told_of_a_read(&schemas, black_box(&order), 1)).unwrap(),
        ],
    );
    [
        Measured::time("tell of an append, nobody listens", &append, "seal 1 event", &seal).reach(0.05),
        Measured::time("tell of a read, nobody listens", &read, "open 1 event", &open).reach(0.05),
    ]
}

fn heard(bench: &Bench) -> [Measured; 2] {
    let db = MemoryDb::new(Namespace::new("bench").unwrap());
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), fixture::schemas());
    block_on(sealer.keys().prepare(&mut db.begin())).unwrap();
    let (order, events) = (order(), fixture::events("cust_0000000042", 1));
    let mut tx = db.begin();
    block_on(sealer.seal(&mut tx, &order, &events)).unwrap();
    tx.commit().unwrap();
    let seal = || {
        let mut tx = db.begin();
        time(|| drop(black_box(block_on(sealer.seal(&mut tx, &order, &events)).unwrap())))
    };
    let recorder = Counted::default();
    let listening = |level: LevelFilter| {
        let (recorder, dispatch) = (&recorder, Dispatch::new(Registry::default().with(level)));
        move || -> Duration { tracing::dispatcher::with_default(&dispatch, || with_local_recorder(recorder, seal)) }
    };
    let (at_info, at_debug) = (listening(LevelFilter::INFO), listening(LevelFilter::DEBUG));
    let rounds = bench.pick(1, 501, 2_001);
    let [alone, info, debug] = bench.compare("somebody listens", rounds, 1, [way(seal), way(at_info), way(at_debug)]);
    [
        Measured::time("seal 1 event, spans at INFO and counters", &info, "nobody listens", &alone).reach(1.25),
        Measured::time("seal 1 event, spans at DEBUG and counters", &debug, "nobody listens", &alone),
    ]
}

/// A recorder with a number for each series, as exporters have it.
#[derive(Default)]
struct Counted(Mutex<HashMap<Key, Arc<AtomicU64>>>);

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counters = self.0.lock().unwrap();
        let counter = match counters.get(key) {
            Some(counter) => Arc::clone(counter),
            None => Arc::clone(counters.entry(key.clone()).or_default()),
        };
        Counter::from_arc(counter)
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
