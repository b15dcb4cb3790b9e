//! Events that are split into several or dropped.

use super::{V1, v1_schemas};
use eventseal::memory::MemoryStore;
use eventseal::schema::SplitPart;
use eventseal::{
    AggregateVersion, EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, NewEvent, PersistedEvent,
    Schemas, SealedStore, Sensitive, aggregate, event,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use support::customer;
use support::world::{World, json_of, pointers};

fn split_schemas() -> Schemas {
    Schemas::new([
        event("Imported").version(1).protect(&["/name"], customer()).split(
            1,
            &[("Placed", 1), ("Noted", 1)],
            |old: Value, _| {
                let mut parts =
                    vec![SplitPart::new("Placed", 1, json!({"customer": old["customer"], "name": old["name"]}))];
                parts.extend(
                    old["notes"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|note| SplitPart::new("Noted", 1, json!({ "text": note }))),
                );
                Ok::<_, Infallible>(parts)
            },
        ),
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect(&["/who"], customer())
            .upcast(1, |old: Value| Ok::<_, Infallible>(json!({"customer": old["customer"], "who": old["name"]}))),
        event("Noted").version(1),
        event("Pinged").version(1).drop_from(1),
    ])
    .unwrap()
}

async fn written_world() -> (World, SealedStore<MemoryStore>) {
    let world = World::new();
    let old = Schemas::new([
        event("Imported").version(1).protect(&["/name"], customer()),
        event("Pinged").version(1),
        event("Noted").version(1),
    ]);
    let writer = world.store(old.unwrap()).await;
    for number in 0..12 {
        let notes: Vec<String> = (0..number % 4).map(|note| format!("{number}.{note}")).collect();
        let event = match number % 3 {
            0 => NewEvent::raw("Pinged", 1, "{}"),
            1 => NewEvent::raw("Imported", 1, json!({"customer":"42","name":"Ada","notes":notes}).to_string()),
            _ => NewEvent::raw("Noted", 1, json!({"text": number.to_string()}).to_string()),
        };
        world.append(&writer, "1", &[event]).await;
    }
    let store = world.store(split_schemas()).await;
    (world, store)
}

#[tokio::test]
async fn i8_splits_and_drops_change_no_position_and_no_version() {
    let (world, store) = written_world().await;
    let stored = MemoryStore::new().read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap().events;
    let stream = store.read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap();
    assert_eq!(stream.last_version.unwrap().get(), 12);
    for event in &stream {
        let origin = &stored[usize::try_from(event.aggregate_version.get()).unwrap() - 1];
        assert_eq!((event.event_id, event.global_position), (origin.event_id, origin.global_position));
        assert_eq!((&event.stored_type, event.stored_version), (&origin.event_type, origin.event_version));
    }
    let second: Vec<_> = stream.events.iter().filter(|event| event.aggregate_version.get() == 11).collect();
    let parts: Vec<_> = second
        .iter()
        .map(|event| (event.event_type.as_str(), event.event_version.get(), event.part.index, event.part.count))
        .collect();
    assert_eq!(
        parts,
        [("Placed", 2, 0, 3), ("Noted", 1, 1, 3), ("Noted", 1, 2, 3)],
        "a part goes on through its own chain"
    );
    assert_eq!(json_of(second[0])["who"], "Ada");
    let dropped =
        store.read_aggregate_stream(&mut world.db.begin(), &aggregate("Order", "1"), (1..=1).into()).await.unwrap();
    assert!(dropped.events.is_empty() && dropped.last_version == Some(AggregateVersion::FIRST));
    world.shred(&store, "42").await;
    let stream = store.read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap();
    for event in stream.events.iter().filter(|event| event.event_type == "Placed") {
        assert_eq!((json_of(event)["who"].clone(), pointers(event)), (Value::Null, vec!["/who"]));
    }
}

#[tokio::test]
async fn i8_a_follower_that_stops_anywhere_sees_everything_once() {
    let (world, store) = written_world().await;
    let filter = EventFilter::default();
    let mark = |event: &PersistedEvent| {
        (event.global_position, event.part.index, event.event_type.clone(), event.payload.clone())
    };
    let all = store.read_events(&mut world.db.begin(), GlobalPosition::START, 100, &filter).await.unwrap();
    let all: Vec<_> = all.events.iter().map(mark).collect();
    assert!(all.len() > 12);
    for first in 0..=12 {
        for then in 1..=12 {
            let (mut after, mut seen, mut limit) = (GlobalPosition::START, Vec::new(), first);
            loop {
                let page = store.read_events(&mut world.db.begin(), after, limit, &filter).await.unwrap();
                seen.extend(page.events.iter().map(mark));
                assert!(page.scanned == 0 || page.next > after, "a follower would stand still at {after}");
                after = page.next;
                if limit > 0 && page.scanned < limit {
                    break;
                }
                limit = then;
            }
            assert_eq!(seen, all, "stopping after {first}, then pages of {then}");
        }
    }
}

#[tokio::test]
async fn a_payload_that_an_erasure_made_unreadable_says_so() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Careless {
        name: String,
        #[serde(default)]
        nick: Sensitive<Option<String>>,
    }
    let world = World::new();
    let store = world.store(v1_schemas()).await;
    world.append(&store, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    let live: Careless = world.read(&store, "1").await.unwrap()[0].decode().unwrap();
    assert_eq!(live.nick, Sensitive::Present(None), "missing is not erased");
    world.shred(&store, "42").await;
    let error = world.read(&store, "1").await.unwrap()[0].decode::<Careless>().unwrap_err().to_string();
    assert!(
        error.ends_with("; /name and 1 more is redacted in it: read what can be erased as a Sensitive<T>"),
        "{error}"
    );
    assert_eq!(KeyScope::from(&aggregate("Order", "1")), KeyScope::new("Order", "1"));
}
