//! The cost of upcasting events, compared with reading them as they are stored.
//!
//! `cargo bench --bench upcast`
//!
//! It reads pages of 100 events of 1 KiB in memory. All rows are measured in turns within one run, so that changes of
//! the machine's speed affect all of them alike. Look at the ratios. `value` parses the payload into a
//! `serde_json::Value`, moves one member and prints it again: the cost of a step that works on a tree.

#![allow(missing_docs, reason = "a benchmark")]

mod common;

use eventseal::ExpectedVersion::Any;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::schema::EventSchema;
use eventseal::{
    Changes, EventFilter, EventStore, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Schemas,
    SealedStore, aggregate, event,
};
use futures::executor::block_on;
use serde_json::Value;
use std::convert::Infallible;
use std::hint::black_box;
use std::time::Instant;

const ROUNDS: usize = 200;
const EVENTS: u32 = 100;

fn store(schemas: Schemas) -> SealedStore<MemoryStore> {
    SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas)
}

fn filled() -> MemoryDb {
    let db = MemoryDb::new(Namespace::new("bench").unwrap());
    let mut tx = db.begin();
    let events: Vec<NewEvent> = (0..EVENTS).map(|_| NewEvent::raw("OrderPlaced", 1, common::payload())).collect();
    block_on(MemoryStore::new().append(&mut tx, &aggregate("Order", "1"), Any, &events)).unwrap();
    tx.commit().unwrap();
    db
}

fn read<S: EventStore<Tx = MemoryTx>>(store: &S, db: &MemoryDb) -> Vec<PersistedEvent> {
    block_on(store.read_events(&mut db.begin(), GlobalPosition::START, EVENTS, &EventFilter::default())).unwrap().events
}

fn placed() -> EventSchema {
    event("OrderPlaced").version(1)
}

/// `count` steps, each of which adds a member.
fn chain(count: u32) -> EventSchema {
    (1..=count).fold(placed(), |event, from| {
        event.version(from + 1).change(from, Changes::new().set_default(format!("/added_{from}"), from))
    })
}

fn values(count: u32) -> EventSchema {
    (1..=count).fold(placed(), |event, from| {
        event.version(from + 1).upcast(from, move |mut old: Value| {
            old[format!("added_{from}")] = from.into();
            Ok::<_, Infallible>(old)
        })
    })
}

fn main() {
    let db = filled();
    let one = |event: EventSchema| store(Schemas::new([event]).unwrap());
    let moved = Changes::new().move_value("/email", "/contact_email");
    let bare = MemoryStore::new();
    let current = one(placed());
    let many = (0..1_000)
        .map(|number| if number == 500 { placed() } else { event(format!("OrderPlaced{number}")).version(1) });
    let among = store(Schemas::new(many).unwrap());
    let move_one = one(placed().version(2).change(1, moved));
    let (one_step, ten_steps, one_value, ten_values) = (one(chain(1)), one(chain(10)), one(values(1)), one(values(10)));
    let stored = read(&bare, &db);
    assert_eq!(read(&current, &db), stored);
    assert!(read(&ten_steps, &db).iter().all(|event| event.event_version.get() == 11));
    let tree = || {
        for event in read(&bare, &db) {
            let mut value: Value = serde_json::from_slice(&event.payload).unwrap();
            let email = value.as_object_mut().unwrap().remove("email").unwrap();
            value["contact_email"] = email;
            black_box(value.to_string());
        }
    };
    let rows: [(&str, &dyn Fn()); 9] = [
        ("bare store", &|| drop(black_box(read(&bare, &db)))),
        ("current and unprotected", &|| drop(black_box(read(&current, &db)))),
        ("  among 1,000 types", &|| drop(black_box(read(&among, &db)))),
        ("value: one member moved", &tree),
        ("one declarative move", &|| drop(black_box(read(&move_one, &db)))),
        ("1 declarative step", &|| drop(black_box(read(&one_step, &db)))),
        ("10 declarative steps", &|| drop(black_box(read(&ten_steps, &db)))),
        ("1 function over Value", &|| drop(black_box(read(&one_value, &db)))),
        ("10 functions over Value", &|| drop(black_box(read(&ten_values, &db)))),
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); rows.len()];
    for round in 0..ROUNDS + 20 {
        for (row, (_, run)) in rows.iter().enumerate() {
            let start = Instant::now();
            run();
            if round >= 20 {
                times[row].push(start.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS));
            }
        }
    }
    println!("payload {} bytes; medians of {ROUNDS} rounds, per event", common::payload().len());
    println!("{:<28}{:>8}{:>10}{:>14}", "", "ns", "× bare", "ns over bare");
    let mut bare = 0.0;
    for ((name, _), times) in rows.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        if *name == "bare store" {
            bare = median;
        }
        println!("{name:<28}{median:>8.0}{:>10.2}{:>14.0}", median / bare, median - bare);
    }
}
