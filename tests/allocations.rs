//! Sealing and opening allocate their output and a few small buffers, however large the payload; steps
//! allocate in proportion to it.

use allocation_counter::measure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use eventseal::error::EventFault;
use eventseal::internals::{Engine, told_of_a_read, told_of_an_append};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{
    AggregateVersion, Error, EventFilter, EventStore, EventStoreExt, ExpectedVersion, GlobalPosition, Keyring,
    Namespace, NewEvent, Owner, PageSize, PersistedEvent, Schemas, SealedStore, aggregate, event, subject,
};
use futures::TryStreamExt;
use futures::executor::block_on;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use support::sealing::SealerWorld;
use tracing::subscriber::NoSubscriber;

#[test]
fn memory_is_the_output_and_a_few_small_buffers() {
    for size in [100, 1_000, 100_000, 10_000_000] {
        let payload =
            format!(r#"{{"customer":"42","name":"Ada Lovelace","text":"{}","email":"ada@x"}}"#, "x".repeat(size));
        let schema = event("Placed").version(1).protect(&["/name", "/email"], subject("Customer", "/customer"));
        let engine = Engine::new(schema, aggregate("Order", "1"), NewEvent::raw("Placed", 1, payload)).unwrap();
        let sealed = engine.seal().unwrap();
        let output = u64::try_from(sealed.len()).unwrap();
        for (name, cost) in [
            ("seal", measure(|| drop(engine.seal().unwrap()))),
            ("open", measure(|| drop(engine.open(&sealed).unwrap()))),
        ] {
            assert!(cost.count_total <= 24, "{name} of {size}: {cost:?}");
            assert!(cost.bytes_total <= output + 8_192, "{name} of {size}: {cost:?}");
        }
    }
}

/// As long as nobody listens, spans and counters allocate nothing.
#[test]
fn what_calls_tell_of_themselves_allocates_nothing() {
    let order = aggregate("Order", "1");
    let schemas = || Schemas::new([event("Placed").version(1).protect(&["/email"], Owner::Aggregate)]).unwrap();
    let of_steps = schemas();
    let told = || {
        block_on(told_of_an_append(&order, 3)).unwrap();
        block_on(told_of_a_read(&of_steps, &order, 3)).unwrap();
    };
    let world = SealerWorld::new(schemas());
    let placed = || NewEvent::raw("Placed", 1, r#"{"email":"ada@x"}"#);
    let stored = world.seal(&order, placed()).unwrap();
    let whole = || {
        let opened = vec![stored.clone(); 20];
        drop(block_on(world.sealer.open(&mut world.db.begin(), opened)).unwrap());
        drop(block_on(world.sealer.seal(&mut world.db.begin(), &order, &[placed()])).unwrap());
    };
    let unheard = |run: &dyn Fn()| {
        run();
        measure(run)
    };
    let listened = |run: &dyn Fn()| {
        metrics::with_local_recorder(&metrics::NoopRecorder, || {
            tracing::subscriber::with_default(NoSubscriber::new(), || unheard(run))
        })
    };
    assert_eq!((unheard(&told).count_total, listened(&told).count_total), (0, 0));
    let costs = [unheard(&whole), listened(&whole)].map(|cost| (cost.count_total, cost.bytes_total));
    assert_eq!(costs[0], costs[1]);
}

/// Anybody who can write to the store can write a header that names thousands of places, deep in a document
/// that may be long but has none of them. That must not cost many times what it takes to store.
#[test]
fn a_forged_header_costs_no_more_than_its_own_size() {
    let schema = event("Placed").version(1).protect(&["/email"], Owner::Aggregate);
    let engine =
        Engine::new(schema, aggregate("Order", "1"), NewEvent::raw("Placed", 1, r#"{"email":"ada@x"}"#)).unwrap();
    let deep: Vec<String> = (0..4_096).map(|number| format!("/{number:x}{}", "/a".repeat(127))).collect();
    let elements: Vec<String> = (0..4_096).map(|number| format!("/x/{number}{}", "/0".repeat(126))).collect();
    let long: Vec<String> =
        (0..4_096).map(|number| format!("/{}{}/{number:x}", "b/".repeat(125), "c".repeat(3_700))).collect();
    for pointers in [deep, elements, long] {
        let mut header = [&[1, 1, 0, 0][..], &[7; 16], &[8; 16], &[0, 1], &[9; 16], &4_096_u16.to_be_bytes()].concat();
        for pointer in &pointers {
            header.extend_from_slice(&[0, 0, 0]);
            header.extend_from_slice(&u16::try_from(pointer.len()).unwrap().to_be_bytes());
            header.extend_from_slice(pointer.as_bytes());
        }
        header.extend_from_slice(&[0; 16 + 32]);
        let header = URL_SAFE_NO_PAD.encode(header);
        for filler in [0, 4_000_000] {
            let stored =
                format!(r#"{{"$seal":"{header}","email":"x","x":[{}0]}}"#, "0,".repeat(filler / 2)).into_bytes();
            let mut result = None;
            let cost = measure(|| result = Some(engine.open(&stored)));
            assert!(matches!(
                result,
                Some(Err(Error::Event { fault: EventFault::Tampered { problem: "a sealed value is missing" }, .. }))
            ));
            let (most, size) = (cost.bytes_max, u64::try_from(stored.len()).unwrap());
            assert!(most <= 2 * size + 1_000_000, "{most} bytes for a payload of {size}");
        }
    }
}

/// Names are looked through wherever one may be serde_json's own, and nobody says how deep a payload is that protects
/// nothing.
#[test]
fn what_is_decoded_costs_no_more_than_a_few_times_its_own_size() {
    let (depth, escaped) = (2_000_000, r#"{"\u0061":1}"#);
    let event = |payload: String| {
        let new = NewEvent::raw("Placed", 1, payload);
        PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, new)
    };
    let arrays = format!("{}{escaped}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}{escaped}{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for payload in [format!(r#"{{"deep":{arrays}}}"#), format!(r#"{{"deep":{objects}}}"#), arrays] {
        let size = u64::try_from(payload.len()).unwrap();
        let event = event(payload);
        for is_decoded in [true, false] {
            let cost = measure(|| match is_decoded {
                // serde_json takes a byte for each level.
                true => drop(event.decode::<serde::de::IgnoredAny>()),
                // What can't be read is looked through once more, for members that are repeated.
                false => assert!(event.decode::<String>().is_err()),
            });
            assert!(cost.bytes_max <= 2 * size + 100_000, "{cost:?} for a payload of {size}");
        }
    }
}

#[test]
fn what_redactions_cost_in_a_step_grows_with_their_number_and_not_with_its_square() {
    const FIELDS: [&str; 4] = ["name", "mail", "phone", "note"];
    let guests = FIELDS.map(|field| format!("/guests/*/{field}"));
    let old =
        || event("Met").version(1).protect(&guests.each_ref().map(String::as_str), subject("Guest", "/guests/*/id"));
    let part = || {
        event("Guest")
            .version(1)
            .protect(&FIELDS.map(|field| format!("/{field}")).each_ref().map(String::as_str), subject("Guest", "/id"))
    };
    let split = || {
        let parts = |old: Value| {
            old["guests"].as_array().unwrap().iter().map(|guest| SplitPart::new("Guest", 1, guest.clone())).collect()
        };
        vec![old().split(1, &[("Guest", 1)], move |old, _| Ok::<_, Infallible>(parts(old))), part()]
    };
    let closure = || {
        vec![old().version(2).protect_same_as(1).upcast_with(1, |mut old: Value, context| {
            for (index, guest) in old["guests"].as_array_mut().unwrap().iter_mut().enumerate() {
                guest["known"] = context.is_redacted(&format!("/guests/{index}/name")).into();
            }
            Ok::<_, Infallible>(old)
        })]
    };
    let kept = || {
        vec![old().version(2).protect(&["/guests"], Owner::Aggregate).upcast(1, |old: Value| Ok::<_, Infallible>(old))]
    };
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let all: [&dyn Fn() -> Vec<EventSchema>; 3] = [&split, &closure, &kept];
    for schemas in all {
        let cost = |count: usize| {
            let db = MemoryDb::new(Namespace::new("test").unwrap());
            let world = |schemas| {
                SealerWorld::over(db.clone(), MemoryKeys::new(), Arc::clone(&keyring), Schemas::new(schemas).unwrap())
            };
            let (writer, reader) = (world(vec![old()]), world(schemas()));
            let guests: Vec<Value> =
                (0..count).map(|_| json!({"id":"a","name":"n","mail":"m","phone":"p","note":"o"})).collect();
            let stored = writer
                .seal(&aggregate("Order", "1"), NewEvent::json("Met", 1, &json!({ "guests": guests })).unwrap())
                .unwrap();
            writer.shred("Guest", "a");
            let mut redacted = 0;
            let cost = measure(|| {
                let events = block_on(reader.sealer.open(&mut db.begin(), vec![stored])).unwrap();
                redacted = events.iter().map(|event| event.redacted.len()).sum();
            });
            assert_eq!(redacted, 4 * count);
            cost.count_total
        };
        let (small, large) = (cost(100), cost(1_000));
        assert!(large < 12 * small, "{small} allocations for 100 guests, {large} for 1,000");
    }
}

/// Reads everything, and returns the peak of memory in bytes.
fn peak(stored: usize, page: u32, payload: usize, of_log: bool) -> u64 {
    let schemas = Schemas::new([event("Placed").version(1).protect(&["/name"], Owner::Aggregate)]).unwrap();
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let order = aggregate("Order", "1");
    block_on(store.keys().prepare(&mut db.begin())).unwrap();
    let events: Vec<NewEvent> = (0..stored)
        .map(|_| NewEvent::raw("Placed", 1, format!(r#"{{"name":"Ada","text":"{}"}}"#, "x".repeat(payload))))
        .collect();
    let mut tx = db.begin();
    block_on(store.append(&mut tx, &order, ExpectedVersion::NoStream, &events)).unwrap();
    tx.commit().unwrap();
    let page = PageSize::try_from(page).unwrap();
    let read = || {
        let mut tx = db.begin();
        let mut events = match of_log {
            true => store.log_events(&mut tx, GlobalPosition::START, page, &EventFilter::default()),
            false => store.aggregate_events(&mut tx, &order, (..).into(), page),
        };
        let mut read = 0;
        while let Some(event) = block_on(events.try_next()).unwrap() {
            read += usize::from(event.payload.len() > payload);
        }
        assert_eq!(read, stored);
    };
    read(); // fills the caches of keys
    measure(read).bytes_max
}

#[test]
fn a_stream_of_events_needs_the_memory_of_a_page_however_long_the_history_is() {
    const PAYLOAD: usize = 10_000;
    for of_log in [false, true] {
        let (short, long) = (peak(100, 10, PAYLOAD, of_log), peak(2_000, 10, PAYLOAD, of_log));
        assert!(long <= short + 4_096, "{short} bytes for 100 events, {long} for 2,000, of the log: {of_log}");
        // As it is stored and as it is opened, at the same time, and what a buffer has to spare.
        let page = 10 * PAYLOAD as u64;
        assert!((page..3 * page).contains(&long), "{long} bytes for a page of {page}, of the log: {of_log}");
        let larger = peak(2_000, 100, PAYLOAD, of_log);
        assert!(larger > 5 * long, "a page of ten times as many events: {larger} bytes, of the log: {of_log}");
    }
}
