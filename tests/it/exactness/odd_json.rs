//! Names that serde_json keeps for itself, and members that come twice.

use super::{customer, object, redacted, try_append};
use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::memory::MemoryStore;
use eventseal::schema::{EventSchema, StepContext};
use eventseal::{
    Changes, Error, EventStore, NewEvent, Owner, PersistedEvent, Result, Schemas, Sensitive, aggregate, event,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use support::world::*;

const RAW: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    note: Value,
}

/// An event that was stored before the store was wrapped.
async fn stored(world: &World, payload: &str) {
    let mut tx = world.db.begin();
    let new = NewEvent::raw("Noted", 1, payload).with_metadata(payload);
    MemoryStore::new().append(&mut tx, &aggregate("Order", "1"), Any, &[new]).await.unwrap();
    tx.commit().unwrap();
}

/// The one event of the stream, read under this schema.
async fn read_with(world: &World, schema: EventSchema) -> Result<PersistedEvent> {
    let store = world.store(Schemas::new([schema]).unwrap()).await;
    world.read(&store, "1").await.map(|mut events| events.remove(0))
}

#[tokio::test]
async fn a_name_that_serde_json_keeps_for_itself_is_refused_at_append() {
    let deep = format!(r#"{{"customer_id":"42","list":[{{"{RAW}":"{{\"email\":\"live@example\"}}"}}]}}"#);
    let spelled = r#"{"contact":{"\u0024serde_json::private::\u004eumber":"12"}}"#;
    let mut object = serde_json::Map::new();
    object.insert(RAW.to_owned(), json!("no json"));
    let world = World::new();
    for is_protected in [false, true] {
        for is_strict in [false, true] {
            let schema = event("Noted").version(1);
            let schema = if is_protected { schema.protect(&["/list/*/email"], customer()) } else { schema };
            let schemas = Schemas::builder([schema]);
            let store = world
                .store(if is_strict { schemas.deny_unreadable_payloads() } else { schemas }.build().unwrap())
                .await;
            for (new, place) in [
                (NewEvent::raw("Noted", 1, deep.as_str()), format!("/list/0/{RAW}")),
                (NewEvent::raw("Noted", 1, spelled), format!("/contact/{NUMBER}")),
                (
                    NewEvent::json("Noted", 1, &Note { note: Value::Object(object.clone()) }).unwrap(),
                    format!("/note/{RAW}"),
                ),
            ] {
                let error = try_append(&world, &store, "1", new).await.unwrap_err();
                assert!(
                    matches!(
                        &error,
                        Error::Event { fault: EventFault::PrivateMember { pointer }, .. }
                            if pointer.as_str() == place
                    ),
                    "{error:?}"
                );
            }
            // As a value it is a text like any other.
            try_append(&world, &store, "2", NewEvent::raw("Noted", 1, format!(r#"{{"note":"{RAW}"}}"#))).await.unwrap();
        }
    }
}

/// A payload that `decode` could not read is not stored, wherever the fault is. The error shows nothing that is
/// protected, including names.
#[tokio::test]
async fn i9_a_private_name_in_a_protected_value_is_refused_and_nothing_around_it_is_shown() {
    #[derive(Serialize, Deserialize)]
    struct Whole {
        contacts: Sensitive<BTreeMap<String, Value>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        contacts: BTreeMap<String, Sensitive<Value>>,
    }
    #[derive(Serialize, Deserialize)]
    struct Parts {
        contacts: Sensitive<Vec<BTreeMap<String, Value>>>,
    }
    let secret = "ada@example.org";
    let value = |name: &str| json!({ name: "12" });
    let contact = |name: &str| BTreeMap::from([(secret.to_owned(), value(name))]);
    let customer = || Owner::Aggregate;
    for name in [RAW, NUMBER, "$serde_json::private::ada@example.org"] {
        let last = if name.contains(secret) { "$serde_json::private::***" } else { name };
        let typed = |value: &dyn Fn() -> Result<NewEvent>| value().unwrap();
        let whole = typed(&|| NewEvent::json("Noted", 1, &Whole { contacts: contact(name).into() }));
        let flat = typed(&|| NewEvent::json("Noted", 1, &Flat { contacts: object("a", value(name).into()) }));
        let parts = typed(&|| {
            NewEvent::json(
                "Noted",
                1,
                &Parts { contacts: vec![object("a", json!(1)), object("b", json!([contact(name)]))].into() },
            )
        });
        let clear = NewEvent::raw("Noted", 1, json!({ "a": "x", "open": contact(name) }).to_string());
        let protecting = |pointers: &[&str]| event("Noted").version(1).protect(pointers, customer());
        for (new, schema, place) in [
            (whole.clone(), protecting(&["/contacts"]), format!("/contacts/***/{last}")),
            (whole, event("Noted").version(1).protect_whole(customer()), format!("/***/***/{last}")),
            (flat, protecting(&["/a"]), format!("/a/{last}")),
            (parts, protecting(&["/contacts/*/a", "/contacts/*/b"]), format!("/contacts/1/b/***/***/{last}")),
            (clear, protecting(&["/a"]), format!("/open/{secret}/{name}")),
        ] {
            let world = World::new();
            let store = world.store(Schemas::new([schema]).unwrap()).await;
            let payload = new.payload().to_vec();
            let error = try_append(&world, &store, "1", new).await.unwrap_err();
            assert!(
                matches!(
                    &error,
                    Error::Event { fault: EventFault::PrivateMember { pointer }, .. }
                        if pointer.as_str() == place
                ),
                "{place}: {error:?}"
            );
            // Decode shows the name, because it does not know what was protected.
            let error = redacted(std::str::from_utf8(&payload).unwrap(), &[]).decode::<Value>().unwrap_err();
            let hidden = matches!(
                &error,
                Error::Event { fault: EventFault::PrivateMember { pointer }, .. }
                    if pointer.as_str().ends_with(&format!("/***/{last}")) || pointer.as_str() == format!("/***/{last}")
            );
            assert!(hidden && !format!("{error} {error:?}").contains(secret), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_stored_name_that_serde_json_keeps_for_itself_is_read_as_it_is_or_named() {
    for (name, text) in
        [(RAW, r#""{\"email\":\"a@x\"}""#), (RAW, r#""no json""#), (NUMBER, r#""12""#), (NUMBER, "[]"), (RAW, "1")]
    {
        let world = World::new();
        let payload = format!(r#"{{"note":{{"{name}":{text}}},"n":1.5}}"#);
        stored(&world, &payload).await;
        let noted = || event("Noted").version(1);
        // The event needs no step, so the read does not look into the payload.
        let read = read_with(&world, noted()).await.unwrap();
        assert_eq!(String::from_utf8(read.payload.clone()).unwrap(), payload);
        // It may have been protected, and its names with it.
        let (place, shown) = (format!("/note/{name}"), format!("/***/{name}"));
        for error in [
            read.decode::<Value>().unwrap_err(),
            read.decode::<BTreeMap<String, serde::de::IgnoredAny>>().map(drop).unwrap_err(),
        ] {
            assert!(
                matches!(
                    &error,
                    Error::Event { fault: EventFault::PrivateMember { pointer }, .. }
                        if pointer.as_str() == shown
                ),
                "{error:?}"
            );
        }
        // Declarative steps work on the text, and steps over the value get what is there.
        let changed =
            read_with(&world, noted().version(2).change(1, Changes::new().set_default("/x", 1))).await.unwrap();
        assert_eq!(String::from_utf8(changed.payload).unwrap(), payload.replace("1.5}", r#"1.5,"x":1}"#));
        let content: Value = serde_json::from_str(text).unwrap();
        let expected = content.clone();
        let over_value = || {
            let expected = expected.clone();
            noted().version(2).upcast_with(1, move |value: Value, context: &StepContext<'_>| {
                assert_eq!(
                    value["note"].as_object().unwrap().iter().collect::<Vec<_>>(),
                    [(&name.to_owned(), &expected)]
                );
                assert_eq!(context.metadata(), Some(&value));
                Ok::<_, Infallible>(value)
            })
        };
        let same = read_with(&world, over_value()).await.unwrap();
        assert!(String::from_utf8(same.payload).unwrap().contains(&format!(r#"{{"{name}":{text}}}"#)));
        // Types may have a Value in them, which would read something else.
        let typed =
            |schema: EventSchema, from| schema.version(from + 1).upcast(from, |note: Note| Ok::<_, Infallible>(note));
        for schema in [typed(noted(), 1), typed(over_value(), 2)] {
            let error = read_with(&world, schema).await.unwrap_err();
            assert!(
                matches!(
                    &error,
                    Error::Event { fault: EventFault::Upcast { problem, .. }, .. }
                        if problem.contains(&shown) && problem.contains("keeps for itself")
                ),
                "{error:?}"
            );
        }
        // The way out that the errors name.
        let moved = noted().version(2).change(1, Changes::new().move_value(place, "/note/raw"));
        let note = read_with(&world, typed(moved, 2)).await.unwrap().decode::<Note>().unwrap();
        assert_eq!(note, Note { note: json!({ "raw": content }) });
    }
}

mod repeated {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        a: Option<Value>,
        b: Option<Inner>,
        c: Option<Vec<Inner>>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        x: Option<u8>,
        y: Option<BTreeMap<String, u8>>,
    }

    fn object(members: Vec<(&'static str, String)>) -> String {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    fn inner() -> impl Strategy<Value = String> {
        let number = || prop::sample::select(vec!["1", "2", "3"]).prop_map(str::to_owned);
        let map =
            prop::collection::vec((prop::sample::select(vec!["p", "q", "\\u0070"]), number()), 0..3).prop_map(object);
        let member = prop_oneof![
            number().prop_map(|x| ("x", x)),
            number().prop_map(|x| ("\\u0078", x)),
            map.prop_map(|y| ("y", y))
        ];
        prop::collection::vec(member, 0..4).prop_map(object)
    }

    fn order() -> impl Strategy<Value = String> {
        let list = prop::collection::vec(inner(), 0..3).prop_map(|list| format!("[{}]", list.join(",")));
        let member = prop_oneof![
            inner().prop_map(|a| ("a", a)),
            inner().prop_map(|b| ("b", b)),
            inner().prop_map(|b| ("\\u0062", b)),
            list.prop_map(|c| ("c", c)),
        ];
        prop::collection::vec(member, 0..5).prop_map(object)
    }

    fn read(payload: &str, schema: EventSchema, is_strict: bool) -> PersistedEvent {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let first = Schemas::builder([event("Noted").version(1)]);
            let writer =
                world.store(if is_strict { first.deny_unreadable_payloads() } else { first }.build().unwrap()).await;
            world.append(&writer, "1", &[NewEvent::raw("Noted", 1, payload)]).await;
            read_with(&world, schema).await.unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever kind of step it takes, and none: of members that are repeated, the last one is read.
        #[test]
        fn all_kinds_of_steps_read_the_last_one(payload in order(), is_strict: bool) {
            let expected: Value = serde_json::from_str(&payload).unwrap();
            let expected: Order = serde_json::from_value(expected).unwrap();
            let noted = || event("Noted").version(1);
            let to_next = |changes| noted().version(2).change(1, changes);
            for schema in [
                noted(),
                noted().version(2).upcast(1, |order: Order| Ok::<_, Infallible>(order)),
                noted().version(2).upcast(1, |order: Value| Ok::<_, Infallible>(order)),
                to_next(Changes::new().set_default("/other", 1)),
                to_next(Changes::new().move_value("/a", "/moved").move_value("/moved", "/a")),
                to_next(Changes::new().map_value("/b", |inner: Option<Inner>| inner)),
                to_next(Changes::new().set_default("/other", 1))
                    .version(3)
                    .upcast(2, |order: Order| Ok::<_, Infallible>(order)),
            ] {
                let event = read(&payload, schema, is_strict);
                prop_assert_eq!(event.decode::<Order>().unwrap(), expected.clone());
                let value = event.decode::<Value>().unwrap();
                prop_assert_eq!(serde_json::from_value::<Order>(value).unwrap(), expected.clone());
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_serde_json_keeps_for_itself_costs_no_more_the_deeper_it_is() {
    let schema = || event("Noted").version(1).version(2).upcast(1, |old: Value| Ok::<_, Infallible>(old));
    let deep = |name: &str| {
        let inner = format!(r#"{{"n":[{}0],"{name}":1}}"#, "0,".repeat(100_000));
        format!("{}{inner}{}", r#"{"a":"#.repeat(120), "}".repeat(120))
    };
    let mut took = Vec::new();
    for name in ["any", "$serde_json::private::RawValue"] {
        let world = World::new();
        stored(&world, &deep(name)).await;
        let start = std::time::Instant::now();
        let read = read_with(&world, schema()).await.unwrap();
        took.push(start.elapsed());
        assert!(String::from_utf8_lossy(&read.payload).contains(&format!("\"{name}\":1")), "{name}");
    }
    assert!(took[1] < took[0] * 12, "{took:?}");
}
