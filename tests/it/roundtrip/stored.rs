//! Round trips through a store.

use super::{check, order, schemas, template};
use eventseal::ExpectedVersion::NoStream;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::{
    EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, Keyring, Namespace, NewEvent, SealedStore,
};
use futures::executor::block_on;
use serde_json::Value;
use support::sealing::{CANARY, SealerWorld, holds_canary};

#[tokio::test]
async fn i1_a_batch_of_all_kinds_comes_back_byte_for_byte() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    let payloads: [(&str, &[u8]); 7] = [
        ("Fields", br#"{"customer_id":"a","email":"c4n4ry"}"#),
        ("Fields", br#"{"customer_id":"a","email":"c4n4ry"}"#),
        ("Whole", b"c4n4ry \xff"),
        ("Open", b"\xff not JSON"),
        ("Unknown", b"{\"email\": 1.0}"),
        ("WholeOfSubject", br#"{"customer":{"id":"a"}}"#),
        ("Fields", b"{ }"),
    ];
    let events: Vec<NewEvent> =
        payloads.iter().map(|(event_type, payload)| NewEvent::raw(*event_type, 1, *payload)).collect();
    let mut tx = db.begin();
    let appended = store.append(&mut tx, &order(), NoStream, &events).await.unwrap();
    tx.commit().unwrap();
    let read = store.read_stream(&mut db.begin(), &order()).await.unwrap();
    let page = store.read_events(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    let inner = store.inner().read_stream(&mut db.begin(), &order()).await.unwrap();
    for (index, (_, payload)) in payloads.iter().enumerate() {
        assert_eq!(appended.events[index].payload, *payload);
        assert_eq!(read.events[index].payload, *payload);
        assert_eq!(page.events[index].payload, *payload);
    }
    assert!(inner.events.iter().all(|event| !holds_canary(&event.payload)));
    assert_ne!(inner.events[0].payload, inner.events[1].payload, "every event is sealed under keys of its own");
    assert_eq!(inner.events[3].payload, payloads[3].1);
    assert_eq!(inner.events[4].payload, payloads[4].1);
}

/// Padding hides lengths: `true` and `false` must look alike even after an erasure.
#[test]
fn sealed_values_of_one_padded_length_have_one_length() {
    let world = SealerWorld::new(schemas());
    let length = |value: &str| {
        let event = NewEvent::raw("Fields", 1, format!("{{\"customer_id\":1,\"email\":{value},\"a/b\":{value}}}"));
        let sealed = world.seal(&order(), event).unwrap();
        let sealed: Value = serde_json::from_slice(&sealed.payload).unwrap();
        (sealed["email"].as_str().unwrap().len(), sealed["a/b"].as_str().unwrap().len())
    };
    let short = length("true");
    assert_eq!(short, length("false"));
    assert_eq!(short, length("\"c4n4ry6789012345678901234567\""), "30 and 31 bytes still fit");
    assert_eq!(short.0, length(&format!("\"{}\"", "x".repeat(250))).0, "padded to 256 bytes");
    assert!(short.1 < length(&format!("\"{}\"", "x".repeat(32))).1);
}

/// Every key is made once, whatever the spelling of the ids.
#[test]
fn scope_ids_are_decoded_strings_and_spelled_integers() {
    let world = SealerWorld::new(schemas());
    for (id, name) in
        [(r#""cust-1""#, "cust-1"), (r#""cust\u002d1""#, "cust-1"), ("7", "7"), (r#""7""#, "7"), ("-7", "-7")]
    {
        check(&world, &template(&format!("{{\"customer_id\":{id},\"email\":«\"{CANARY}\"»}}")));
        let history =
            block_on(world.sealer.keys().key_history(&mut world.db.begin(), &KeyScope::new("Customer", name))).unwrap();
        assert_eq!(history.unwrap().keys.len(), 1, "{id}");
    }
}
