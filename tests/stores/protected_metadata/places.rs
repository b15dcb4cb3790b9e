//! Metadata on their way through steps: what is redacted and whose it is, afterwards.

use super::{IP, actor, login, metadata_of, schema, seen};
use eventseal::schema::StepContext;
use eventseal::{Changes, NewEvent, Schemas, event};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::world::World;

type Stepped = Result<Option<Value>, Infallible>;

#[tokio::test]
async fn i7_i17_steps_see_opened_or_redacted_metadata_and_never_ciphertext() {
    let step = |metadata: Option<Value>, _: &StepContext<'_>| -> Stepped {
        let metadata = metadata.unwrap();
        assert!(metadata.get("$seal").is_none() && [IP, "unknown"].contains(&metadata["ip"].as_str().unwrap()));
        let (ip, agent) = (metadata["ip"].clone(), metadata["seen"][0]["agent"].clone());
        Ok(Some(json!({ "ip": ip, "agent": agent, "seen": [], "actor": metadata["actor"] })))
    };
    let newer = || {
        let newer = schema().version(2).protect_same_as(1).protect_metadata(&["/agent"], actor());
        Schemas::new([newer.change(1, Changes::new()).upcast_metadata(1, step)]).unwrap()
    };
    let world = World::new();
    let writer = world.store(Schemas::new([schema()]).unwrap()).await;
    world.append(&writer, "1", &[login("1", "ada"), login("1", "eve")]).await;
    world.shred(&writer, "ada").await;
    let reader = world.store(newer()).await;
    let read = world.read(&reader, "1").await.unwrap();
    let (metadata, redacted) = seen(&read[0]);
    assert_eq!(metadata, json!({ "ip": "unknown", "agent": null, "seen": [], "actor": { "id": "ada" } }));
    assert_eq!(redacted, ["/ip"], "where a step put another one, it can't say");
    assert_eq!(read[0].sealed_metadata_places().len(), 1);
    assert_eq!((seen(&read[1]).0["ip"].as_str(), seen(&read[1]).1), (Some(IP), vec![]));
    let before = world.read(&writer, "1").await.unwrap();
    let once = reader.schemas().step_once(&before[0]).unwrap().unwrap();
    assert_eq!(seen(&once[0]).1, ["/ip"]);
}

#[tokio::test]
async fn i4_a_step_that_writes_a_value_over_a_redaction_makes_it_live() {
    let step = |_: Option<Value>, _: &StepContext<'_>| -> Stepped { Ok(Some(json!({ "ip": "0.0.0.0", "seen": [] }))) };
    let newer = schema().version(2).protect_same_as(1).change(1, Changes::new()).upcast_metadata(1, step);
    let world = World::new();
    let writer = world.store(Schemas::new([schema()]).unwrap()).await;
    world.append(&writer, "1", &[login("1", "ada")]).await;
    world.shred(&writer, "ada").await;
    let reader = world.store(Schemas::new([newer]).unwrap()).await;
    assert_eq!(seen(&world.read(&reader, "1").await.unwrap()[0]), (json!({ "ip": "0.0.0.0", "seen": [] }), vec![]));
}

#[tokio::test]
async fn i8_parts_of_a_split_and_steps_of_the_payload_keep_the_metadata() {
    let split = event("Met").version(1).protect_metadata(&["/ip"], actor()).split(
        1,
        &[("One", 1), ("Two", 1)],
        |_, context| {
            assert!(context.metadata().unwrap()["ip"] == IP || context.metadata().unwrap()["ip"].is_null());
            let part = |name| eventseal::schema::SplitPart::new(name, 1, json!({}));
            Ok::<_, Infallible>(vec![part("One"), part("Two")])
        },
    );
    let schemas = || Schemas::builder([split, event("One").version(1), event("Two").version(1)]).allow_older_appends();
    let world = World::new();
    let store = world.store(schemas().build().unwrap()).await;
    let met = NewEvent::raw("Met", 1, "{}").with_metadata(metadata_of("ada"));
    world.append(&store, "1", &[met]).await;
    world.shred(&store, "ada").await;
    let read = world.read(&store, "1").await.unwrap();
    assert_eq!(read.len(), 2);
    for part in &read {
        assert_eq!((seen(part).0["ip"].clone(), seen(part).1), (Value::Null, vec!["/ip"]));
    }
}

#[tokio::test]
async fn i4_elements_that_a_step_reverses_are_not_mixed_up() {
    let step = |metadata: Option<Value>, _: &StepContext<'_>| -> Stepped {
        let mut metadata = metadata.unwrap();
        metadata["seen"].as_array_mut().unwrap().reverse();
        Ok(Some(metadata))
    };
    let of_each = |version: eventseal::schema::EventSchema| {
        version.protect_metadata(&["/seen/*/agent"], eventseal::metadata("Customer", "/seen/*/id"))
    };
    let met = of_each(event("Met").version(1));
    let world = World::new();
    let writer = world.store(Schemas::new([met]).unwrap()).await;
    let metadata = r#"{"seen":[{"id":"ada","agent":"curl"},{"id":"eve","agent":null}]}"#;
    world.append(&writer, "1", &[NewEvent::raw("Met", 1, "{}").with_metadata(metadata)]).await;
    world.shred(&writer, "ada").await;
    let met = of_each(of_each(event("Met").version(1)).version(2));
    let met = met.change(1, Changes::new()).upcast_metadata(1, step);
    let reader = world.store(Schemas::new([met]).unwrap()).await;
    assert_eq!(seen(&world.read(&reader, "1").await.unwrap()[0]).1, Vec::<&str>::new());
}

#[tokio::test]
async fn i7_no_step_is_given_sealed_metadata() {
    let newer = schema().version(2).protect_same_as(1).change(1, Changes::new());
    let schemas = Schemas::new([newer]).unwrap();
    let sealer = eventseal::Sealer::new(
        eventseal::memory::MemoryKeys::new(),
        eventseal::Keyring::generate("main").unwrap(),
        Schemas::new([schema()]).unwrap(),
    );
    let world = World::new();
    sealer.keys().prepare(&mut world.db.begin()).await.unwrap();
    let (order, mut tx) = (eventseal::aggregate("Order", "1"), world.db.begin());
    let only_metadata = NewEvent::raw("LoggedIn", 1, "{}").with_metadata(metadata_of("ada"));
    let sealed = sealer.seal(&mut tx, &order, &[only_metadata]).await.unwrap()[0].clone();
    let (version, position) = (eventseal::AggregateVersion::FIRST, eventseal::GlobalPosition::START);
    let stored = eventseal::PersistedEvent::from_new(order, version, position, sealed);
    assert!(!stored.is_sealed() && stored.has_sealed_metadata());
    assert!(schemas.step_once(&stored).unwrap_err().to_string().contains("in the metadata"));
    assert!(stored.decode_metadata::<Value>().unwrap_err().to_string().contains("in the metadata"));
}
