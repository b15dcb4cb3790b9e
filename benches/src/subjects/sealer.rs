//! What the look-up of keys and the collections around the engine cost, for a hundred events at once.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::fixture::{self, TYPE};
use crate::measured::{Measured, Report};
use eventseal::internals::Engine;
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Sealer, aggregate};
use futures::executor::block_on;
use std::hint::black_box;
use std::time::Duration;

pub(super) const SUBJECT: Subject = Subject {
    name: "sealer",
    title: "Sealer beside the engine",
    about: "`Sealer` seals and opens events of 1 KiB with three protected strings. Their keys are in memory and were \
        used before, and every call looks at their rows. Beside it, the engine alone does the same with keys that it \
        is given. Times are for one event.",
    run,
};

fn run(bench: &Bench) -> Report {
    Report::of([100, 1].map(|count| measure(bench, count)).concat())
}

fn measure(bench: &Bench, count: usize) -> [Measured; 2] {
    let order = aggregate("Order", "ord_123");
    let db = MemoryDb::new(Namespace::new("bench").unwrap());
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), fixture::schemas());
    block_on(sealer.keys().prepare(&mut db.begin())).unwrap();
    let events = fixture::events("cust_0000000042", count);
    let mut tx = db.begin();
    let sealed = block_on(sealer.seal(&mut tx, &order, &events)).unwrap().into_owned();
    tx.commit().unwrap();
    let stored: Vec<PersistedEvent> = sealed.into_iter().map(|event| stored(&order, event)).collect();
    let engine = Engine::new(fixture::placed(), order.clone(), NewEvent::raw(TYPE, 1, fixture::order())).unwrap();
    let by_engine = engine.seal().unwrap();

    let rounds = bench.pick(1, 201, 501);
    let mut tx = db.begin();
    let [alone, sealing, alone_opening, opening] = bench.compare(
        &format!("{count} events"),
        rounds,
        count,
        [
            way(|| time(|| (0..count).for_each(|_| drop(black_box(engine.seal().unwrap()))))),
            way(|| time(|| drop(black_box(block_on(sealer.seal(&mut tx, &order, &events)).unwrap())))),
            way(|| time(|| (0..count).for_each(|_| drop(black_box(engine.open(&by_engine).unwrap()))))),
            way(|| open(&sealer, &db, &stored)),
        ],
    );
    let reach = (count == 100).then_some(1.25);
    let events = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
    [
        Measured::time(format!("seal {events}"), &sealing, "engine", &alone).reach_if(reach),
        Measured::time(format!("open {events}"), &opening, "engine", &alone_opening).reach_if(reach),
    ]
}

fn stored(order: &eventseal::AggregateRef, event: NewEvent) -> PersistedEvent {
    PersistedEvent::from_new(order.clone(), AggregateVersion::FIRST, GlobalPosition::START, event)
}

/// The copy that `open` consumes is not counted.
fn open(sealer: &Sealer<eventseal::memory::MemoryTx>, db: &MemoryDb, stored: &[PersistedEvent]) -> Duration {
    let events = stored.to_vec();
    let mut tx = db.begin();
    time(|| drop(black_box(block_on(sealer.open(&mut tx, events)).unwrap())))
}
