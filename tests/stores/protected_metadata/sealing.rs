//! Appending and reading: the invariants of payloads, for metadata.

use super::{AGENT, IP, is_hidden, login, metadata_of, schema, schemas, seen};
use eventseal::error::{ErrorKind, EventFault};
use eventseal::keys::ScopeState;
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::{
    Error, EventFilter, EventStore, ExpectedVersion, GlobalPosition, KeyScope, NewEvent, Owner, PersistedEvent,
    Schemas, Sealer, aggregate, caller, event, subject,
};
use serde_json::{Value, json};
use std::sync::Arc;
use support::backend::Backend;
use support::world::World;
use support::{contains, on_every_database};

on_every_database! {
    i1_i2_i17_metadata_are_sealed_and_come_back,
    i5_i17_a_shred_redacts_metadata_and_no_append_seals_under_it,
    i17_the_caller_may_name_the_owner_of_metadata,
    i4_i17_a_disabled_owner_of_metadata_is_no_erasure,
    i17_metadata_of_types_that_are_not_registered_are_protected_too,
}

async fn i1_i2_i17_metadata_are_sealed_and_come_back<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let given = login("1", "ada");
    let appended = db.append(&store, "1", std::slice::from_ref(&given)).await;
    assert_eq!(appended[0].metadata, given.metadata, "an append returns what it was given");
    assert_eq!(appended[0].payload, given.payload());
    assert!(is_hidden(&db).await, "I2");
    let read = db.read(&store, "1").await.unwrap();
    let expected: Value = serde_json::from_str(&metadata_of("ada")).unwrap();
    assert_eq!((seen(&read[0]), &read[0].payload[..]), ((expected, vec![]), given.payload()), "I1");
    let scopes: Vec<String> =
        read[0].sealed_metadata_places().iter().map(|at| format!("{} {}", at.place, at.scope)).collect();
    assert_eq!(scopes, ["/ip Customer ada", "/seen/0/agent Customer ada"]);
    assert_eq!(read[0].sealed_places().len(), 1, "places of the payload are told apart");
    // A value of any type, spelled in any way, comes back as it was, also from a column of JSONB.
    let odd = r#"{"actor":{"id":"ada"},"ip":{"b": 1.50, "a":[1e2 ,"\u0000\ud800"]},"seen":[]}"#;
    let given = NewEvent::raw("LoggedIn", 1, r#"{"name":null}"#).with_metadata(odd);
    db.append(&store, "2", &[given]).await;
    let read = db.read(&store, "2").await.unwrap();
    assert!(contains(read[0].metadata.as_ref().unwrap(), r#"{"b": 1.50, "a":[1e2 ,"\u0000\ud800"]}"#), "I1");
}

async fn i5_i17_a_shred_redacts_metadata_and_no_append_seals_under_it<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[login("1", "ada"), login("ada", "eve")]).await;
    db.shred(&store, "ada").await;
    let read = db.read(&store, "1").await.unwrap();
    let (metadata, redacted) = seen(&read[0]);
    assert_eq!(redacted, ["/ip", "/seen/0/agent"]);
    let erased = json!({ "seen": [{ "agent": null, "n": 1 }, { "n": 2 }], "ip": "unknown", "actor": { "id": "ada" } });
    assert_eq!(metadata, erased);
    assert!(!read[0].is_redacted(), "the payload belongs to somebody else");
    assert_eq!(read[1].redacted[0].as_str(), "/name");
    assert_eq!(seen(&read[1]), (serde_json::from_str(&metadata_of("eve")).unwrap(), vec![]));
    let refused = db.try_append(&store, "2", &[login("1", "ada")]).await;
    assert!(matches!(refused, Err(Error::Shredded { .. })), "{refused:?}");
    assert!(db.stored().await.len() == 2, "I5: nothing was written");
}

async fn i17_the_caller_may_name_the_owner_of_metadata<B: Backend>() {
    let by_caller = event("Seen").version(1).protect_metadata(&["/ip"], caller("Customer"));
    let db = B::make().await;
    let store = db.prepared(Schemas::new([by_caller]).unwrap()).await;
    let seen_by = NewEvent::raw("Seen", 1, "{}").with_metadata(format!(r#"{{"ip":"{IP}"}}"#));
    let refused = db.try_append(&store, "1", std::slice::from_ref(&seen_by)).await.unwrap_err();
    assert!(refused.to_string().contains("in the metadata") && !refused.to_string().contains(IP), "{refused}");
    let appended = db.append(&store, "1", &[seen_by.for_subject(KeyScope::new("Customer", "ada"))]).await;
    assert_eq!(seen(&appended[0]).0, json!({ "ip": IP, "subject": "ada" }));
    assert!(is_hidden(&db).await, "I2");
    db.shred(&store, "ada").await;
    assert_eq!(seen(&db.read(&store, "1").await.unwrap()[0]), (json!({ "ip": null, "subject": "ada" }), vec!["/ip"]));
}

async fn i4_i17_a_disabled_owner_of_metadata_is_no_erasure<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[login("1", "ada")]).await;
    let ada = KeyScope::new("Customer", "ada");
    let mut transaction = db.begin().await.unwrap();
    store.keys().disable(db.tx(&mut transaction), &ada, "a dispute").await.unwrap();
    db.commit(transaction).await.unwrap();
    let refused = db.read(&store, "1").await.unwrap_err();
    assert!(matches!(&refused, Error::Disabled { scope } if *scope == ada), "{refused:?}");
    let mut transaction = db.begin().await.unwrap();
    store.keys().enable(db.tx(&mut transaction), &ada, "settled").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert!(seen(&db.read(&store, "1").await.unwrap()[0]).1.is_empty());
    let mut connection = db.connect().await.unwrap();
    let history = store.keys().key_history(db.connection(&mut connection), &ada).await.unwrap().unwrap();
    assert_eq!(history.state, ScopeState::Live);
}

async fn i17_metadata_of_types_that_are_not_registered_are_protected_too<B: Backend>() {
    let of_all = || {
        let known = [event("LoggedIn").version(1), event("Told").version(1).metadata_in_the_clear("none of a person")];
        Schemas::builder(known)
            .protect_metadata(&["/ip", "/seen/*/agent"], super::actor())
            .allow_unknown_types()
            .build()
            .unwrap()
    };
    let db = B::make().await;
    let store = db.prepared(of_all()).await;
    let named = |name: &str| NewEvent::raw(name, 1, "{}").with_metadata(metadata_of("ada"));
    db.append(&store, "1", &[named("LoggedIn"), named("Foreign")]).await;
    assert!(is_hidden(&db).await, "I2");
    db.append(&store, "1", &[named("Told")]).await;
    let read = db.read(&store, "1").await.unwrap();
    assert!(read.iter().all(|event| seen(event).0 == serde_json::from_str::<Value>(&metadata_of("ada")).unwrap()));
    db.shred(&store, "ada").await;
    let read = db.read(&store, "1").await.unwrap();
    let redacted: Vec<usize> = read.iter().map(|event| event.redacted_metadata.len()).collect();
    assert_eq!(redacted, [2, 2, 0]);
    // Who does not know the schemas is not given ciphertext for metadata.
    let stranger = db.process(Schemas::builder([]).allow_unknown_types().build().unwrap());
    let read = db.read(&stranger, "1").await;
    assert!(read.is_ok_and(|read| read[1].redacted_metadata.len() == 2), "a header is opened whoever knows of it");
}

/// The stored events of a world, as they are.
async fn stored(world: &World) -> Vec<PersistedEvent> {
    let mut tx = world.db.begin();
    let page = MemoryStore::new().read_events(&mut tx, GlobalPosition::START, 10, &EventFilter::default()).await;
    page.unwrap().events
}

#[tokio::test]
async fn i3_i17_a_seal_of_metadata_opens_nowhere_else() {
    let world = World::new();
    let store = world.store(schemas()).await;
    world.append(&store, "1", &[login("1", "ada"), login("1", "ada")]).await;
    let stored = stored(&world).await;
    let sealer = Sealer::new(MemoryKeys::new(), Arc::clone(&world.keyring), schemas());
    let open = async |event: PersistedEvent| sealer.open(&mut world.db.begin(), vec![event]).await;
    assert!(open(stored[0].clone()).await.is_ok());
    let text = |event: &PersistedEvent| String::from_utf8(event.metadata.clone().unwrap()).unwrap();
    let changed = |change: &dyn Fn(&mut PersistedEvent)| {
        let mut event = stored[0].clone();
        change(&mut event);
        event
    };
    let with = |metadata: String| changed(&|event| event.metadata = Some(metadata.clone().into_bytes()));
    let sealed: Value = serde_json::from_str(&text(&stored[0])).unwrap();
    let mut swapped = sealed.clone();
    swapped["ip"] = sealed["seen"][0]["agent"].clone();
    let mut header_of_payload = sealed.clone();
    let payload: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    header_of_payload["$seal"] = payload["$seal"].clone();
    let mut in_the_clear = sealed.clone();
    in_the_clear["ip"] = IP.into();
    let mut cut = sealed.clone();
    cut.as_object_mut().unwrap().remove("ip");
    for (what, moved) in [
        ("another event's", with(text(&stored[1]))),
        ("another aggregate's", changed(&|event| event.aggregate = aggregate("Order", "2"))),
        ("another field's", with(swapped.to_string())),
        ("the payload's", with(header_of_payload.to_string())),
        ("as a payload", changed(&|event| event.payload = text(&stored[0]).into_bytes())),
        ("a value in the clear", with(in_the_clear.to_string())),
        ("a value that is gone", with(cut.to_string())),
    ] {
        let error = open(moved).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Tampered, "{what}: {error}");
        assert!(!error.to_string().contains(IP), "I9: {error}");
    }
    let bare = with(metadata_of("ada"));
    let error = open(bare).await.unwrap_err();
    let Error::Event { fault: EventFault::InMetadata(fault), .. } = &error else { panic!("{error:?}") };
    assert!(matches!(&**fault, EventFault::Unsealed { pointer, .. } if pointer.as_str() == "/seen/0/agent"));
}

#[tokio::test]
async fn i4_i17_only_a_tombstone_with_a_valid_tag_redacts_metadata() {
    let world = World::new();
    let store = world.store(schemas()).await;
    world.append(&store, "1", &[login("1", "ada")]).await;
    let stored = stored(&world).await.remove(0);
    world.shred(&store, "ada").await;
    let sealer = Sealer::new(MemoryKeys::new(), Arc::clone(&world.keyring), schemas());
    let mut metadata: Value = serde_json::from_slice(stored.metadata.as_ref().unwrap()).unwrap();
    let mut header = metadata["$seal"].as_str().unwrap().as_bytes().to_vec();
    // The last bytes of the header are the commitment; the tag stands before it.
    let at = header.len() - 60;
    header[at] = if header[at] == b'A' { b'B' } else { b'A' };
    metadata["$seal"] = String::from_utf8(header).unwrap().into();
    let mut forged = stored.clone();
    forged.metadata = Some(metadata.to_string().into_bytes());
    let error = sealer.open(&mut world.db.begin(), vec![forged]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tampered, "{error}");
    let opened = sealer.open(&mut world.db.begin(), vec![stored]).await.unwrap();
    assert_eq!(opened[0].redacted_metadata.len(), 2);
}

#[tokio::test]
async fn i2_what_cannot_be_sealed_in_the_metadata_is_refused() {
    let world = World::new();
    let store = world.store(schemas()).await;
    let with = |metadata: &str| login("1", "ada").with_metadata(metadata);
    for (metadata, said) in [
        (r#"{"ip":"192.0.2.77"}"#, "/actor/id in the metadata"),
        (r#"{"ip":"192.0.2.77","actor":{"id":1.5}}"#, "/actor/id in the metadata"),
        (r#"["192.0.2.77"]"#, "in the metadata"),
        (r#"{"ip":"x","ip":"192.0.2.77","actor":{"id":"a"}}"#, "/ip"),
        (r#"{"seen":"192.0.2.77","actor":{"id":"a"}}"#, "/seen"),
        (r#"{"$seal":"192.0.2.77","actor":{"id":"a"}}"#, "$seal"),
    ] {
        let error = world.try_append(&store, "1", &[with(metadata)]).await.unwrap_err();
        let Error::Event { fault: EventFault::InMetadata(_), .. } = &error else { panic!("{metadata}: {error:?}") };
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains(said) && !text.contains(IP), "{metadata}: {text}");
    }
    // The name is reserved in all metadata, so that nothing is mistaken for a seal.
    let plain = world.store(Schemas::new([event("Plain").version(1)]).unwrap()).await;
    let reserved = NewEvent::raw("Plain", 1, "{}").with_metadata(r#"{"$s\u0065al":1}"#);
    assert!(world.try_append(&plain, "1", &[reserved]).await.is_err());
    assert!(stored(&world).await.is_empty());
}

#[tokio::test]
async fn i9_nothing_of_the_metadata_is_in_debug() {
    let world = World::new();
    let store = world.store(schemas()).await;
    let given = login("1", "ada");
    let appended = world.append(&store, "1", std::slice::from_ref(&given)).await;
    let read = world.read(&store, "1").await.unwrap();
    let shown = format!("{given:?} {appended:?} {read:?} {:?} {store:?}", read[0].sealed_metadata_places());
    assert!(!shown.contains(IP) && !shown.contains(AGENT), "{shown}");
}

#[tokio::test]
async fn i6_i10_keys_of_both_documents_are_made_and_read_at_once() {
    let world = World::new();
    let store = world.store(schemas()).await;
    let mut tx = world.db.begin();
    let events = [login("1", "ada"), login("ada", "ada"), login("eve", "1")];
    let of = aggregate("Order", "1");
    store.append(&mut tx, &of, ExpectedVersion::NoStream, &events).await.unwrap();
    let sealed = MemoryStore::new().read_events(&mut tx, GlobalPosition::START, 10, &EventFilter::default()).await;
    assert_eq!(sealed.unwrap().events.len(), 3);
    tx.commit().unwrap();
    let sealer = Sealer::new(MemoryKeys::new(), Arc::clone(&world.keyring), schemas());
    let mut tx = world.db.begin();
    let sealed = sealer.seal(&mut tx, &of, &events).await.unwrap();
    let keys: Vec<usize> = sealed.iter().map(|event| event.sealed_under().len()).collect();
    assert_eq!(keys, [2, 1, 2], "each key once, for an index of seals");
    assert_eq!(sealer.scopes_of(&of, &events[1]).unwrap(), [KeyScope::new("Customer", "ada")]);
}

#[tokio::test]
async fn owners_of_metadata_are_named_by_the_payload_the_aggregate_and_functions() {
    let function = Owner::by("Customer", "who-v1", |event| {
        assert!(event.metadata().is_none_or(|metadata| metadata["of_function"].is_null() && metadata["ip"].is_null()));
        assert!(event.payload()["name"].is_null() && event.payload().get("$seal").is_none());
        Some(event.payload()["who"].as_str()?.to_owned() + event.metadata()?["suffix"].as_str()?)
    });
    let schema = schema()
        .protect_metadata(&["/of_payload"], subject("Customer", "/customer"))
        .protect_metadata(&["/of_order"], Owner::Aggregate)
        .protect_metadata(&["/of_function"], function.clone())
        .protect(&["/more"], function);
    let world = World::new();
    let store = world.store(Schemas::new([schema]).unwrap()).await;
    let metadata = r#"{"of_payload":1,"of_order":2,"of_function":3,"suffix":"-x","ip":4,"actor":{"id":"ada"}}"#;
    let payload = r#"{"customer":"c","name":"Ada","who":"f","more":[1]}"#;
    let given = NewEvent::raw("LoggedIn", 1, payload).with_metadata(metadata);
    world.append(&store, "1", std::slice::from_ref(&given)).await;
    let read = world.read(&store, "1").await.unwrap();
    assert_eq!((read[0].metadata.as_deref(), &read[0].payload[..]), (given.metadata.as_deref(), given.payload()));
    let owners: Vec<String> =
        read[0].sealed_metadata_places().iter().map(|at| format!("{} {}", at.place, at.scope)).collect();
    let expected = ["/ip Customer ada", "/of_function Customer f-x", "/of_order Order 1", "/of_payload Customer c"];
    assert_eq!(owners, expected);
    assert_eq!(read[0].sealed_places()[0].scope, KeyScope::new("Customer", "f-x"));
}
