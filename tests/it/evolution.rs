//! Reads by type name, policies, metadata, limits, and followers of the log over all of it.

mod versions;

use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::consumer::{Consumer, run_consumers};
use eventseal::error::{BoxError, EventFault};
use eventseal::memory::{MemoryKeys, MemoryStore, MemoryTx};
use eventseal::schema::{EventSchema, SchemaErrors, SplitPart, StepContext};
use eventseal::{
    AggregateVersion, Changes, Error, EventFilter, EventStore, EventStoreExt, EventVersion, GlobalPosition, NewEvent,
    PersistedEvent, Result, Schemas, SealedStore, Sealer, aggregate, event, subject,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Mutex;
use support::keeps_spellings;
use support::world::{World, json_of};

fn names(types: &[&str]) -> EventFilter {
    EventFilter { event_types: types.iter().map(|name| (*name).to_owned()).collect(), ..EventFilter::default() }
}

/// `OrderCreated` was renamed, `AddressChanged` is split, `Noise` is dropped; `Signup` becomes an `OrderCreated` among
/// others.
fn evolved() -> Schemas {
    let part = |name: &str, payload: &Value| SplitPart::new(name.to_owned(), 1, payload.clone());
    Schemas::builder([
        event("OrderCreated").version(1).change(1, Changes::new().rename_type("OrderPlaced", 1)),
        event("OrderPlaced").version(1).version(2).change(1, Changes::new().set_default("/currency", "EUR")),
        event("AddressChanged").version(1).split(1, &[("Moved", 1), ("Called", 1)], move |old, _| {
            Ok::<_, Infallible>(vec![part("Moved", &old), part("Called", &old), part("Moved", &old)])
        }),
        event("Moved").version(1),
        event("Called").version(1),
        event("Noise").version(1).drop_from(1),
        event("Signup").version(1).split(1, &[("OrderCreated", 1), ("Called", 1)], move |old, _| {
            Ok::<_, Infallible>(vec![part("OrderCreated", &old), part("Called", &old)])
        }),
    ])
    .allow_unknown_types()
    .build()
    .unwrap()
}

const STORED: [&str; 9] = [
    "OrderCreated",
    "Noise",
    "AddressChanged",
    "Called",
    "OrderPlaced",
    "Noise",
    "Unregistered",
    "Signup",
    "AddressChanged",
];

async fn evolved_world() -> (World, SealedStore<MemoryStore>) {
    let world = World::new();
    for (number, event_type) in STORED.iter().enumerate() {
        world
            .append(
                &MemoryStore::new(),
                &format!("{}", number % 3),
                &[NewEvent::raw(*event_type, 1, format!(r#"{{"n":{number}}}"#))],
            )
            .await;
    }
    let store = world.store(evolved()).await;
    (world, store)
}

fn seen(events: &[PersistedEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}.{}", event.event_type, event.global_position, event.part.index)).collect()
}

#[tokio::test]
async fn a_read_by_type_finds_what_was_stored_under_another_name() {
    let (world, store) = evolved_world().await;
    let read = async |types: &[&str]| {
        store.read_events(&mut world.db.begin(), GlobalPosition::START, 100, &names(types)).await.unwrap()
    };
    let placed = read(&["OrderPlaced"]).await;
    assert_eq!(seen(&placed.events), ["OrderPlaced 1.0", "OrderPlaced 5.0", "OrderPlaced 8.0"]);
    assert_eq!((placed.scanned, placed.next.get()), (3, 8), "three stored types were looked at");
    assert!(placed.events.iter().all(|event| json_of(event)["currency"] == "EUR"));
    assert_eq!(seen(&read(&["Moved"]).await.events), ["Moved 3.0", "Moved 3.2", "Moved 9.0", "Moved 9.2"]);
    assert_eq!(
        seen(&read(&["Called", "Unregistered"]).await.events),
        ["Called 3.1", "Called 4.0", "Unregistered 7.0", "Called 8.1", "Called 9.1"]
    );
    assert_eq!(seen(&read(&["OrderCreated"]).await.events), [""; 0], "nobody sees that name any more");
    assert_eq!(seen(&read(&["Noise"]).await.events), [""; 0]);
    assert_eq!(read(&["Noise"]).await.scanned, 2);
    assert_eq!(read(&[]).await.events.len(), 3 * 2 + 1 + 1 + 1 + 1 + 2);
    let stored = store
        .inner()
        .read_events(&mut world.db.begin(), GlobalPosition::START, 100, &names(&["OrderPlaced"]))
        .await
        .unwrap();
    assert_eq!(seen(&stored.events), ["OrderPlaced 5.0"], "a plain store knows stored types only");

    let each =
        store.read_events_each(&mut world.db.begin(), GlobalPosition::START, 100, &names(&["Moved"])).await.unwrap();
    let each: Vec<PersistedEvent> = each.events.into_iter().flat_map(std::result::Result::unwrap).collect();
    assert_eq!(seen(&each), ["Moved 3.0", "Moved 3.2", "Moved 9.0", "Moved 9.2"]);
}

// ---- I8: followers

/// A read model and its checkpoint, changed in one transaction.
#[derive(Default)]
struct Projection {
    checkpoint: GlobalPosition,
    handled: Vec<String>,
}

struct Overview<'p> {
    staged: &'p Mutex<Vec<String>>,
    /// Fails when this many were handled.
    fails_after: Mutex<usize>,
    types: Option<&'static [&'static str]>,
}

#[async_trait]
impl Consumer<MemoryTx> for Overview<'_> {
    fn name(&self) -> &'static str {
        "overview"
    }

    fn event_types(&self) -> Option<&[&str]> {
        self.types
    }

    async fn handle(&self, _: &mut MemoryTx, event: &PersistedEvent) -> std::result::Result<(), BoxError> {
        let mut left = self.fails_after.lock().unwrap();
        *left = left.checked_sub(1).ok_or("the process was stopped")?;
        self.staged.lock().unwrap().push(format!(
            "{} {}.{} of {}",
            event.event_type, event.global_position, event.part.index, event.part.count
        ));
        Ok(())
    }
}

/// Follows the log in pages until its end or until the consumer fails; what was handled counts only with its
/// checkpoint.
async fn follow(
    (world, store): &(World, SealedStore<MemoryStore>),
    projection: &mut Projection,
    (limit, stop_after, types): (u32, usize, Option<&'static [&'static str]>),
) -> bool {
    let staged = Mutex::new(Vec::new());
    let consumer = Overview { staged: &staged, fails_after: Mutex::new(stop_after), types };
    let filter = names(types.unwrap_or_default());
    loop {
        let mut tx = world.db.begin();
        let page = store.read_events(&mut tx, projection.checkpoint, limit, &filter).await.unwrap();
        if run_consumers(&mut tx, &page.events, &[&consumer]).await.is_err() {
            return false; // rolled back, what was staged is forgotten
        }
        projection.handled.append(&mut staged.lock().unwrap());
        assert!(page.scanned == 0 || page.next > projection.checkpoint);
        projection.checkpoint = page.next;
        if page.scanned < limit {
            return true;
        }
    }
}

#[tokio::test]
async fn i8_a_consumer_that_stops_after_any_event_and_resumes_sees_everything_exactly_once() {
    let world = evolved_world().await;
    for types in [None, Some(&["Moved", "Called"][..]), Some(&["OrderPlaced"][..]), Some(&["Noise"][..])] {
        let mut whole = Projection::default();
        assert!(follow(&world, &mut whole, (100, usize::MAX, types)).await);
        assert_eq!(whole.handled.is_empty(), types == Some(&["Noise"][..]));
        for limit in 1..=10 {
            for stop_after in 0..=whole.handled.len() {
                let mut projection = Projection::default();
                let finished = follow(&world, &mut projection, (limit, stop_after, types)).await;
                assert_eq!(finished, stop_after == whole.handled.len());
                let parts_are_together = projection.handled.iter().rev().take(1).all(|last| {
                    let (index, count) = last.rsplit_once('.').unwrap().1.split_once(" of ").unwrap();
                    types.is_some() || index.parse::<u32>().unwrap() + 1 == count.parse::<u32>().unwrap()
                });
                assert!(
                    parts_are_together,
                    "a checkpoint stands between the parts of a stored event: {:?}",
                    projection.handled
                );
                assert!(follow(&world, &mut projection, (limit, usize::MAX, types)).await);
                assert_eq!(projection.handled, whole.handled, "pages of {limit}, stopped after {stop_after}");
                assert_eq!(projection.checkpoint, whole.checkpoint);
            }
        }
    }
}

#[tokio::test]
async fn an_inline_consumer_is_shown_the_types_that_it_asks_for() {
    let (world, store) = evolved_world().await;
    let staged = Mutex::new(Vec::new());
    let consumer = Overview { staged: &staged, fails_after: Mutex::new(9), types: Some(&["Moved"]) };
    let new = [NewEvent::raw("Moved", 1, "{}"), NewEvent::raw("Called", 1, "{}")];
    store.append_and_consume(&mut world.db.begin(), &aggregate("Order", "x"), Any, &new, &[&consumer]).await.unwrap();
    assert_eq!(*staged.lock().unwrap(), ["Moved 10.0 of 1"]);
}

// ---- what steps know, and metadata

#[tokio::test]
async fn a_step_knows_its_event() {
    let world = World::new();
    let at = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    let new = NewEvent::raw("Old", 1, r#"{"customer":"42","name":"Ada"}"#)
        .with_metadata(r#"{"user":"u1"}"#)
        .with_created_at(at);
    let old = || event("Old").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let writer = world.store(Schemas::new([old(), event("Other").version(1)]).unwrap()).await;
    world.append(&writer, "7", &[NewEvent::raw("Other", 1, "{}"), new.clone()]).await;
    world.shred(&writer, "42").await;
    let id = new.event_id;
    let schemas = Schemas::new([
        event("Other").version(1),
        old().change(1, Changes::new().rename_type("New", 4)),
        event("New")
            .version(4)
            .protect_name()
            .version(5)
            .protect(&["/name"], subject("Customer", "/customer"))
            .upcast_with(4, move |mut payload: Value, context| {
                assert_eq!(
                    (context.event_id, context.aggregate, context.aggregate_version.get()),
                    (id, &aggregate("Order", "7"), 2)
                );
                assert_eq!(
                    (context.stored_type.as_str(), context.stored_version.get(), context.created_at),
                    ("Old", 1, at)
                );
                assert_eq!(context.metadata(), Some(&json!({"user": "u1"})));
                assert!(
                    context.is_redacted("/name")
                        && context.is_redacted("/name/first")
                        && !context.is_redacted("/customer")
                );
                assert!(!format!("{context:?}").contains("u1"), "metadata does not print");
                payload["by"] = context.metadata().unwrap()["user"].clone();
                Ok::<_, Infallible>(payload)
            }),
    ]);
    let read = world.read(&world.store(schemas.unwrap()).await, "7").await.unwrap();
    assert_eq!(json_of(&read[1]), json!({"customer": "42", "name": null, "by": "u1"}));
    assert_eq!(read[1].metadata.as_deref(), Some(&br#"{"user":"u1"}"#[..]), "untouched");
}

trait ProtectName {
    fn protect_name(self) -> Self;
}

impl ProtectName for EventSchema {
    fn protect_name(self) -> Self {
        self.protect(&["/name"], subject("Customer", "/customer"))
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one event, step by step")]
async fn metadata_comes_up_to_date_with_the_payload() {
    let add = |name: &'static str| {
        move |metadata: Option<Value>, context: &StepContext<'_>| {
            let before = context.metadata().cloned();
            assert_eq!(metadata, before, "the payload's step sees what this one starts from");
            let mut metadata = metadata.unwrap_or_else(|| json!({}));
            metadata[name] = json!(metadata.as_object().unwrap().len());
            Ok::<_, Infallible>(Some(metadata))
        }
    };
    let schemas = || {
        let split = |old: Value, context: &StepContext<'_>| {
            assert!(context.metadata().unwrap().get("two").is_none());
            Ok::<_, Infallible>(vec![SplitPart::new("F", 1, old.clone()), SplitPart::new("F", 1, old)])
        };
        let e = event("E").version(1).version(2).change(1, Changes::new()).upcast_metadata(1, add("one"));
        let e = e.split(2, &[("F", 1)], split).upcast_metadata(2, add("two"));
        Schemas::new([
            e,
            event("F").version(1),
            event("Gone")
                .version(1)
                .version(2)
                .change(1, Changes::new())
                .upcast_metadata(1, |_, _| Ok::<_, Infallible>(None)),
        ])
    };
    let world = World::new();
    let stored = [
        NewEvent::raw("E", 1, "{}"),
        NewEvent::raw("E", 1, "{}").with_metadata(r#"{"kept": 1e2}"#),
        NewEvent::raw("F", 1, "{}").with_metadata(r#"{ "spelled":1.0 }"#),
        NewEvent::raw("Gone", 1, "{}").with_metadata("{}"),
    ];
    world.append(&MemoryStore::new(), "1", &stored).await;
    let read = world.read(&world.store(schemas().unwrap()).await, "1").await.unwrap();
    let metadata: Vec<Option<Value>> =
        read.iter().map(|event| event.metadata.as_ref().map(|text| serde_json::from_slice(text).unwrap())).collect();
    let kept: Value = serde_json::from_str("1e2").unwrap(); // as this build spells it
    let (one, two) = (json!({"one": 0, "two": 1}), json!({"kept": kept, "one": 1, "two": 2}));
    assert_eq!(
        metadata,
        [Some(one.clone()), Some(one), Some(two.clone()), Some(two), Some(json!({"spelled": 1.0})), None]
    );
    assert_eq!(read[4].metadata.as_deref(), Some(&br#"{ "spelled":1.0 }"#[..]), "untouched where nothing changes it");

    let fails = |step: fn(Option<Value>) -> std::result::Result<Option<Value>, BoxError>| {
        Schemas::new([event("E")
            .version(1)
            .version(2)
            .change(1, Changes::new())
            .upcast_metadata(1, move |metadata, _| step(metadata))])
        .unwrap()
    };
    for (schemas, problem) in [
        (fails(|_| Err("no".into())), "the metadata: it returned an error"),
        (fails(|_| panic!("SECRET")), "the metadata: it panicked"),
    ] {
        let error = world.read(&world.store(schemas).await, "1").await.unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(&format!("the step from E version 1 (declarative, to E version 2) failed: {problem}")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_event_that_a_step_fails_for_does_not_hold_up_the_others() {
    let world = World::new();
    let plain = MemoryStore::new();
    for (id, total) in [("1", "1"), ("2", "\"SECRET\""), ("3", "3")] {
        world.append(&plain, id, &[NewEvent::raw("Paid", 1, format!(r#"{{"total":{total}}}"#))]).await;
    }
    let schemas = Schemas::new([event("Paid")
        .version(1)
        .version(2)
        .change(1, Changes::new().map_value("/total", |total: u64| total * 100))]);
    let store = world.store(schemas.unwrap()).await;
    assert_eq!(json_of(&world.read(&store, "3").await.unwrap()[0])["total"], 300);
    let error = world.read(&store, "2").await.unwrap_err();
    let Error::Event { fault: EventFault::Upcast { event_type, from, step, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((event_type.as_str(), from.get(), step.as_str()), ("Paid", 1, "declarative, to Paid version 2"));
    let page =
        store.read_events_each(&mut world.db.begin(), GlobalPosition::START, 9, &EventFilter::default()).await.unwrap();
    assert_eq!(page.events.iter().map(std::result::Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test]
async fn functions_read_what_is_left_of_odd_payloads() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Wide {
        n: u128,
    }
    let world = World::new();
    let odd = r#"{"n":340282366920938463463374607431768211455,"ignored":1e400}"#;
    world.append(&MemoryStore::new(), "1", &[NewEvent::raw("E", 1, odd)]).await;
    let typed = Schemas::new([event("E")
        .version(1)
        .version(2)
        .upcast(1, |old: Wide| Ok::<_, Infallible>(json!({"digits": old.n.to_string().len()})))]);
    let read = world.read(&world.store(typed.unwrap()).await, "1").await.unwrap();
    assert_eq!(json_of(&read[0]), json!({"digits": 39}), "what is not read need not fit");
    let value = Schemas::new([event("E").version(1).version(2).upcast(1, |old: Value| Ok::<_, Infallible>(old))]);
    let read = world.read(&world.store(value.unwrap()).await, "1").await;
    if keeps_spellings() {
        let expected: Value = serde_json::from_str(odd).unwrap();
        assert_eq!(json_of(&read.unwrap()[0]), expected, "all of it fits");
        return;
    }
    let error = read.unwrap_err().to_string();
    assert!(
        error.ends_with("(value, to E version 2) failed: the payload is not JSON that serde_json can hold"),
        "{error}"
    );
}
