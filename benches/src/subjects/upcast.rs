//! The cost of upcasting events.

use super::Subject;
use crate::bench::{Bench, Way, time, way};
use crate::fixture::{self, TYPE};
use crate::measured::{Measured, Report};
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::schema::EventSchema;
use eventseal::{
    AggregateVersion, Changes, GlobalPosition, Keyring, Namespace, PersistedEvent, Schemas, Sealer, aggregate, event,
};
use futures::executor::block_on;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::convert::Infallible;
use std::hint::black_box;

pub(super) const SUBJECT: Subject = Subject {
    name: "upcast",
    title: "Upcasting",
    about: "A hundred events of 1 KiB, of which nothing is protected, are brought up to date in memory. Each \
        declarative step adds or moves one member. A typed step reads the payload into a struct, changes one field, \
        and writes it. Beside it, `serde_json` parses each payload into a `Value`, moves one member, and prints it, \
        once. Times are for one event.",
    run,
};

const EVENTS: usize = 100;

fn run(bench: &Bench) -> Report {
    let stored = stored();
    let opened = |event: EventSchema| opener(Schemas::new([event]).unwrap(), &stored);
    let moved = Changes::new().move_value("/email", "/contact_email");
    let many = (0..1_000)
        .map(|number| if number == 500 { placed() } else { event(format!("OrderPlaced{number}")).version(1) });
    let among = opener(Schemas::new(many).unwrap(), &stored);
    let tree = way(|| time(|| stored.iter().for_each(edit)));
    let ways = [
        tree,
        opened(placed()),
        among,
        opened(placed().version(2).change(1, moved)),
        opened(chain(1)),
        opened(chain(10)),
        opened(typed(1)),
        opened(typed(10)),
        opened(values(1)),
        opened(values(10)),
    ];
    let [tree, current, among, moved, one, ten, one_typed, ten_typed, one_value, ten_values] =
        bench.compare("100 events", bench.pick(1, 150, 400), EVENTS, ways);
    let beside = |what: &str, took| Measured::time(what, took, "parse, move and print", &tree);
    Report::of([
        beside("1 declarative step", &one).reach(0.4),
        beside("1 declarative step that moves a member", &moved).reach(0.4),
        beside("10 declarative steps", &ten).reach(0.9),
        beside("1 typed step", &one_typed).reach(0.6),
        beside("1 typed step of 10", &ten_typed.part(10)).reach(0.6),
        beside("1 function over Value", &one_value),
        beside("10 functions over Value", &ten_values),
        beside("no step", &current),
        beside("no step, among 1,000 types", &among),
    ])
}

fn stored() -> Vec<PersistedEvent> {
    let stored = |event| {
        let order = aggregate("Order", "1");
        PersistedEvent::from_new(order, AggregateVersion::FIRST, GlobalPosition::START, event)
    };
    fixture::events("cust_0000000042", EVENTS).into_iter().map(stored).collect()
}

/// Opens the events. The copy that opening consumes is not counted.
fn opener(schemas: Schemas, stored: &[PersistedEvent]) -> Way<'_> {
    let db = MemoryDb::new(Namespace::new("bench").unwrap());
    let newest = stored.len();
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    block_on(sealer.keys().prepare(&mut db.begin())).unwrap();
    way(move || {
        let events = stored.to_vec();
        let mut tx = db.begin();
        time(|| assert_eq!(black_box(block_on(sealer.open(&mut tx, events)).unwrap()).len(), newest))
    })
}

fn edit(event: &PersistedEvent) {
    let mut value: Value = serde_json::from_slice(&event.payload).unwrap();
    let email = value.as_object_mut().unwrap().remove("email").unwrap();
    value["contact_email"] = email;
    black_box(serde_json::to_vec(&value).unwrap());
}

fn placed() -> EventSchema {
    event(TYPE).version(1)
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

fn typed(count: u32) -> EventSchema {
    (1..=count).fold(placed(), |event, from| {
        event
            .version(from + 1)
            .upcast(from, |old: Order| Ok::<_, Infallible>(Order { amount_0: old.amount_0 + 1, ..old }))
    })
}

#[derive(Serialize, Deserialize)]
struct Line {
    sku: String,
    count: u32,
}

#[derive(Serialize, Deserialize)]
struct Flags {
    gift: bool,
    note: Option<String>,
}

/// The payload of the events, all of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    customer_id: String,
    name: String,
    email: String,
    address: String,
    amount_0: u64,
    lines_1: Vec<Line>,
    description_2: String,
    flags_3: Flags,
    amount_4: u64,
    lines_5: Vec<Line>,
    description_6: String,
    flags_7: Flags,
    amount_8: u64,
    lines_9: Vec<Line>,
    description_10: String,
    flags_11: Flags,
    amount_12: u64,
    lines_13: Vec<Line>,
    description_14: String,
    flags_15: Flags,
    amount_16: u64,
    lines_17: Vec<Line>,
    description_18: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_does_what_it_says() {
        let stored = stored();
        let newest = |event: EventSchema| {
            let sealer =
                Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), Schemas::new([event]).unwrap());
            let db = MemoryDb::new(Namespace::new("bench").unwrap());
            block_on(sealer.open(&mut db.begin(), stored.clone())).unwrap().remove(0)
        };
        let payload = |event: &PersistedEvent| serde_json::from_slice::<Value>(&event.payload).unwrap();
        for event in [chain(10), values(10)].map(newest) {
            assert_eq!((event.event_version.get(), &payload(&event)["added_10"]), (11, &Value::from(10)));
        }
        assert_eq!(payload(&newest(typed(10)))["amount_0"], 12_345 + 10);
        assert_eq!(newest(placed()).payload, fixture::order().as_bytes());
    }
}
