//! Events that pass unchanged, events that are refused, and the texts of errors.

use super::{PlacedV1, V1, same, v1_schemas};
use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::memory::MemoryStore;
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{Error, EventStore, NewEvent, Owner, Schemas, aggregate, event};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use support::world::{World, json_of};
use support::{customer, keeps_spellings, whole};

#[tokio::test]
async fn what_needs_neither_opening_nor_upcasting_is_handed_out_as_the_stored_bytes() {
    let world = World::new();
    let store = world.store(Schemas::builder([event("Noted").version(1)]).allow_unknown_types().build().unwrap()).await;
    let odd = " {\"text\" : 1.0, \"text\":\t1e400 }\n";
    world
        .append(&store, "1", &[NewEvent::raw("Noted", 1, odd), NewEvent::raw("Unknown", 9, &b"\xff not JSON"[..])])
        .await;
    let read = world.read(&store, "1").await.unwrap();
    assert_eq!(read[0].payload, odd.as_bytes());
    assert_eq!(read[1].payload, b"\xff not JSON");
}

#[tokio::test]
async fn versions_and_types_the_process_does_not_know_follow_the_policy() {
    let world = World::new();
    let v2 =
        || event("Placed").version(1).unprotected("was").version(2).protect(&["/name"], customer()).upcast(1, same);
    let newer = world.store(Schemas::new([v2()]).unwrap()).await;
    world.append(&newer, "1", &[NewEvent::raw("Placed", 2, r#"{"customer":"42","name":"Ada"}"#)]).await;
    world.append(&MemoryStore::new(), "2", &[NewEvent::raw("Unheard", 1, "{}")]).await;
    world.append(&MemoryStore::new(), "3", &[NewEvent::raw("Later", 1, "{}")]).await;

    let older = || event("Placed").version(1);
    let strict = world.store(Schemas::new([older()]).unwrap()).await;
    let refused = world.read(&strict, "1").await.unwrap_err();
    assert!(
        matches!(&refused, Error::Event { fault: EventFault::NewerVersion { known, .. }, .. } if known.get() == 1),
        "{refused:?}"
    );
    assert!(matches!(world.read(&strict, "2").await, Err(Error::Event { fault: EventFault::UnknownType { .. }, .. })));
    let mut tx = world.db.begin();
    let refused = strict.append(&mut tx, &aggregate("Order", "1"), Any, &[NewEvent::raw("Unheard", 1, "{}")]).await;
    assert!(matches!(refused, Err(Error::Event { fault: EventFault::UnknownType { .. }, .. })));

    let passing =
        world.store(Schemas::builder([older()]).pass_through_newer().allow_unknown_types().build().unwrap()).await;
    let opened = world.read(&passing, "1").await.unwrap().remove(0);
    assert_eq!(
        (opened.event_version.get(), json_of(&opened)["name"].clone()),
        (2, json!("Ada")),
        "opened, but not understood"
    );
    assert_eq!(world.read(&passing, "2").await.unwrap()[0].payload, b"{}");

    let only_later = world.store(Schemas::new([event("Later").version(2)]).unwrap()).await;
    assert!(matches!(
        world.read(&only_later, "3").await,
        Err(Error::Event { fault: EventFault::UnknownVersion { .. }, .. })
    ));
}

#[tokio::test]
async fn only_current_versions_are_appended_unless_the_builder_says_so() {
    let world = World::new();
    let schema =
        || event("Placed").version(1).protect(&["/name"], customer()).version(2).protect_same_as(1).upcast(1, same);
    let store = world.store(Schemas::new([schema(), event("Old").version(1).drop_from(1)]).unwrap()).await;
    let mut tx = world.db.begin();
    for (event_type, version, hint) in
        [("Placed", 1, "current version is 2"), ("Placed", 3, "versions 1 to 2"), ("Old", 1, "lives on in other types")]
    {
        let refused = store
            .append(&mut tx, &aggregate("Order", "1"), Any, &[NewEvent::raw(event_type, version, V1)])
            .await
            .unwrap_err();
        assert!(
            matches!(refused, Error::Event { fault: EventFault::UndeclaredVersion { .. }, .. })
                && refused.to_string().contains(hint),
            "{refused}"
        );
    }
    drop(tx);
    let lenient = world.store(Schemas::builder([schema()]).allow_older_appends().build().unwrap()).await;
    world.append(&lenient, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    let event = world.read(&lenient, "1").await.unwrap().remove(0);
    assert_eq!((event.stored_version.get(), event.event_version.get()), (1, 2));
}

#[tokio::test]
async fn i4_plaintext_at_a_protected_place_is_refused_unless_it_is_accepted() {
    let world = World::new();
    world
        .append(
            &MemoryStore::new(),
            "1",
            &[NewEvent::raw("Placed", 1, V1), NewEvent::raw("Placed", 1, r#"{"customer":"42"}"#)],
        )
        .await;
    let strict = world.store(v1_schemas()).await;
    let error = world.read(&strict, "1").await.unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. }
                if pointer.as_str() == "/name"
        ) && error.is_tampered(),
        "{error:?}"
    );
    assert!(error.to_string().contains("accept_plaintext(\"Placed\")"), "{error}");
    let absent =
        strict.read_aggregate_stream(&mut world.db.begin(), &aggregate("Order", "1"), (2..).into()).await.unwrap();
    assert_eq!(
        absent.events[0].payload, br#"{"customer":"42"}"#,
        "where nothing protected is present, no seal is needed"
    );
    let lenient = Schemas::builder([event("Placed").version(1).protect(&["/name", "/email"], customer())])
        .accept_plaintext("Placed")
        .build()
        .unwrap();
    let lenient = world.store(lenient).await;
    world.append(&lenient, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    assert_eq!(world.read(&lenient, "1").await.unwrap()[0].payload, V1.as_bytes());
    world.shred(&lenient, "42").await;
    let events = world.read(&lenient, "1").await.unwrap();
    assert!(!events[0].is_redacted() && events[2].is_redacted(), "plaintext from before can't be shredded");
}

#[tokio::test]
async fn what_was_sealed_is_opened_even_where_the_schema_no_longer_protects_it() {
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world.append(&writer, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    for schemas in [
        Schemas::new([event("Placed").version(1)]).unwrap(),
        Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap(),
        Schemas::new([event("Placed").version(1).unprotected("not any more").version(2).upcast(1, same)]).unwrap(),
    ] {
        let store = world.store(schemas).await;
        assert_eq!(json_of(&world.read(&store, "1").await.unwrap()[0]), serde_json::from_str::<Value>(V1).unwrap());
    }
    let more = Schemas::new([event("Placed").version(1).protect(&["/name", "/email", "/customer"], Owner::Aggregate)])
        .unwrap();
    let more = world.store(more).await;
    assert!(matches!(
        world.read(&more, "1").await,
        Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. })
            if pointer.as_str() == "/customer"
    ));
}

#[tokio::test]
async fn what_no_step_could_read_is_refused_at_append_if_the_builder_says_so() {
    let world = World::new();
    let schema = || event("Placed").version(1).protect(&["/name"], customer());
    let stepping = || schema().version(2).protect_same_as(1).upcast(1, same);
    let (lenient, reader) =
        (world.store(Schemas::new([schema()]).unwrap()).await, world.store(Schemas::new([stepping()]).unwrap()).await);
    let strict = world.store(Schemas::builder([schema()]).deny_unreadable_payloads().build().unwrap()).await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    // With the root, 127 and 128 deep.
    let payloads =
        ["1e300", &nested(126), "\"\\ud83d\\ude00\"", "1e400", "\"\\ud800\"", "{\"\\ud800\":1}", &nested(127)];
    for (index, value) in payloads.into_iter().enumerate() {
        // The fourth is beyond every f64, and read where serde_json keeps numbers as they are spelled.
        let (id, readable) = (index.to_string(), index < 3 || index == 3 && keeps_spellings());
        let payload = format!("{{\"customer\":\"42\",\"name\":\"Ada\",\"x\":{value}}}");
        let new = [NewEvent::raw("Placed", 1, payload)];
        world.append(&lenient, &id, &new).await;
        assert_eq!(
            world.read(&lenient, &id).await.unwrap()[0].payload,
            new[0].payload(),
            "without a step, all of them are read"
        );
        assert_eq!(world.read(&reader, &id).await.is_ok(), readable, "{value}");
        let again = [NewEvent::raw("Placed", 1, new[0].payload().to_vec())];
        let appended = strict.append(&mut world.db.begin(), &aggregate("Order", id), Any, &again).await;
        match appended {
            Ok(_) => assert!(readable, "{value}"),
            Err(error) => assert!(
                !readable && matches!(error, Error::Event { fault: EventFault::UnreadablePayload { .. }, .. }),
                "{value}: {error:?}"
            ),
        }
    }
}

#[tokio::test]
async fn i9_a_failing_step_names_the_event_and_the_step_but_no_value() {
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world
        .append(
            &writer,
            "1",
            &[NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"SECRET","email":{"not":"SECRET"}}"#)],
        )
        .await;
    let v2 = |step: EventSchema| Schemas::new([step.version(2).protect_same_as(1)]).unwrap();
    let v1 = || event("Placed").version(1).protect(&["/name", "/email"], customer());
    for (schemas, problem) in [
        (
            v2(v1().upcast(1, |_: PlacedV1| Ok::<_, Infallible>(json!({})))),
            "does not decode into it::schemas::PlacedV1: invalid type",
        ),
        (v2(v1().upcast_with(1, |_: Value, _| Err::<Value, _>("no"))), "it returned an error"),
        (v2(v1().upcast_with(1, |_: Value, _| -> Result<Value, Infallible> { panic!("SECRET") })), "it panicked"),
        (v2(v1().upcast_with(1, |_: Value, _| Ok::<_, Infallible>(json!(["SECRET"])))), "did not return a JSON object"),
        (
            v2(v1()
                .split(1, &[("Placed", 2)], |_, _| Ok::<_, Infallible>(vec![SplitPart::new("Other", 1, json!({}))]))),
            "not among its declared targets",
        ),
        (
            v2(v1().split(1, &[("Placed", 2)], |old, _| {
                Ok::<_, Infallible>(vec![SplitPart::new("Placed", 2, old); 1_001])
            })),
            "one event became more than 1000",
        ),
    ] {
        let store = world.store(schemas).await;
        let error = world.read(&store, "1").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(problem) && !format!("{error} {error:?}").contains("SECRET"), "{text}");
        assert!(
            text.contains("the step from Placed version 1 (") && text.contains("to Placed version 2) failed: "),
            "{text}"
        );
    }
}

#[tokio::test]
async fn i9_what_serde_json_says_inside_a_step_shows_no_value() {
    #[derive(Debug)]
    struct Wrapping(serde_json::Error);
    impl std::fmt::Display for Wrapping {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "could not read: {}", self.0)
        }
    }
    impl std::error::Error for Wrapping {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world.append(&writer, "1", &[NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"SECRET"}"#)]).await;
    let v1 = || event("Placed").version(1).protect(&["/name", "/email"], customer());
    let read = |old: &Value| serde_json::from_value::<u8>(old["name"].clone());
    for step in [
        v1().upcast_with(1, move |old: Value, _| read(&old).map(|_| old)),
        v1().upcast_with(1, move |old: Value, _| read(&old).map(|_| old).map_err(Wrapping)),
        v1().upcast(1, move |old: Value| read(&old).map(|_| old)),
        v1().split(1, &[("Placed", 2)], move |old: Value, _| read(&old).map(|_| vec![]).map_err(Wrapping)),
    ] {
        let store = world.store(Schemas::new([step.version(2).protect_same_as(1)]).unwrap()).await;
        let error = world.read(&store, "1").await.unwrap_err();
        assert!(!whole(&error).contains("SECRET"), "{}", whole(&error));
        assert!(error.to_string().ends_with("it returned an error: invalid type, expected u8"), "{error}");
    }
}

#[tokio::test]
async fn i9_the_error_of_a_step_is_the_source_and_stays_out_of_debug() {
    #[derive(Debug)]
    struct Own(Value);
    impl std::fmt::Display for Own {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("the name is too long")
        }
    }
    impl std::error::Error for Own {}
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world.append(&writer, "1", &[NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"SECRET"}"#)]).await;
    let schemas = event("Placed").version(1).protect(&["/name"], customer()).version(2).protect_same_as(1);
    let store = world.store(Schemas::new([schemas.upcast(1, |old: Value| Err::<Value, _>(Own(old)))]).unwrap()).await;
    let error = world.read(&store, "1").await.unwrap_err();
    assert!(!format!("{error} {error:?} {error:#?}").contains("SECRET"), "{error:?}");
    let own = std::error::Error::source(&error).unwrap().downcast_ref::<Own>().unwrap();
    assert_eq!(own.0["name"], "SECRET", "the application gets its own error back");
}

#[tokio::test]
async fn i9_a_payload_that_does_not_decode_shows_no_value() {
    let world = World::new();
    let store = world.store(v1_schemas()).await;
    world.append(&store, "1", &[NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"SECRET"}"#)]).await;
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Wrong {
        name: u8,
    }
    let event = world.read(&store, "1").await.unwrap().remove(0);
    let error = event.decode::<Wrong>().unwrap_err();
    assert!(error.to_string().contains("expected u8") && !format!("{error} {error:?}").contains("SECRET"), "{error:?}");
    assert!(!format!("{event:?}").contains("SECRET"));
}
