//! Pages that are opened on several threads.

use super::Subject;
use crate::bench::{Bench, way};
use crate::fixture::{self, TYPE};
use crate::measured::{Measured, Report};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::schema::EventSchema;
use eventseal::{
    AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Schemas, Sealer, aggregate,
};
use serde_json::Value;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

pub(super) const SUBJECT: Subject = Subject {
    name: "page",
    title: "Pages on several threads",
    about: "`Sealer` opens a page of events with three protected strings of one customer, whose key is in memory and \
        was used before, on as many threads as there are cores. Beside it, it opens the same page on the thread that \
        reads it. The function over `Value` adds a member. Small pages are opened on one thread in both ways. Times \
        are for one page.",
    run,
};

fn run(bench: &Bench) -> Report {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let (small, large) = (fixture::order(), fixture::large(16_384));
    let many = bench.pick(50, 500, 500);
    let plain = || fixture::placed();
    let upcast = || {
        let add = |mut old: Value| {
            old["added"] = 1.into();
            Ok::<_, Infallible>(old)
        };
        fixture::placed().version(2).protect_same_as(1).upcast(1, add)
    };
    type Row<'r> = (String, &'r str, usize, &'r dyn Fn() -> EventSchema, Option<f64>);
    let rows: [Row<'_>; 5] = [
        (format!("{many} events of 1 KiB"), &small, many, &plain, Some(1.5)),
        (format!("{many} events of 16 KiB"), &large, many, &plain, Some(1.5)),
        (format!("{many} events of 1 KiB, a function over Value"), &small, many, &upcast, Some(1.5)),
        ("100 events of 1 KiB".to_owned(), &small, bench.pick(10, 100, 100), &plain, None),
        ("10 events of 1 KiB".to_owned(), &small, 10, &plain, None),
    ];
    Report::of(rows.map(|(what, payload, count, schema, reach)| {
        let page = Page::of(payload, count, schema);
        let ways = [&page.alone, &page.together].map(|sealer| way(|| page.open(&runtime, sealer)));
        let [alone, together] = bench.compare(&what, bench.pick(1, 100, 300), 1, ways);
        Measured::speed(what, &together, "one thread", &alone).reach_if(reach)
    }))
}

struct Page {
    db: MemoryDb,
    alone: Sealer<MemoryTx>,
    together: Sealer<MemoryTx>,
    stored: Vec<PersistedEvent>,
}

impl Page {
    fn of(payload: &str, count: usize, schema: &dyn Fn() -> EventSchema) -> Self {
        let db = MemoryDb::new(Namespace::new("bench").unwrap());
        let keyring = Arc::new(Keyring::generate("main").unwrap());
        let sealer = || {
            let schemas = Schemas::new([schema()]).unwrap().with_older_appends();
            Sealer::new(MemoryKeys::new(), Arc::clone(&keyring), schemas)
        };
        let (alone, together) = (sealer().open_on_threads(1), sealer());
        let order = aggregate("Order", "ord_123");
        let events: Vec<NewEvent> = (0..count).map(|_| NewEvent::raw(TYPE, 1, payload)).collect();
        let sealed = futures::executor::block_on(async {
            alone.keys().prepare(&mut db.begin()).await.unwrap();
            let mut tx = db.begin();
            let sealed = alone.seal(&mut tx, &order, &events).await.unwrap().into_owned();
            tx.commit().unwrap();
            sealed
        });
        let (version, position) = (AggregateVersion::FIRST, GlobalPosition::START);
        let stored =
            sealed.into_iter().map(|event| PersistedEvent::from_new(order.clone(), version, position, event)).collect();
        Self { db, alone, together, stored }
    }

    /// The copy that opening consumes is not counted.
    fn open(&self, runtime: &Runtime, sealer: &Sealer<MemoryTx>) -> Duration {
        let events = self.stored.clone();
        let mut tx = self.db.begin();
        runtime.block_on(async {
            let start = Instant::now();
            let opened = sealer.open(&mut tx, events).await.unwrap();
            let took = start.elapsed();
            drop(black_box(opened));
            took
        })
    }
}
