//! The guards know what is protected in the metadata.

use super::{actor, login, metadata_of, schema, schemas};
use eventseal::schema::StepContext;
use eventseal::{Changes, NewEvent, Schemas, aggregate, event};
use eventseal_testing::{GoldenCorpus, GuardError, SchemaLock, TaintCheck};
use serde_json::{Value, json};
use std::convert::Infallible;

#[test]
fn a_step_that_copies_metadata_into_the_clear_is_found() {
    let steps = |payload: fn(Value, &StepContext<'_>) -> Value, metadata: fn(Value) -> Value| {
        let met = event("Met").version(1).protect_metadata(&["/ip"], actor());
        let met = met.version(2).protect_metadata(&["/ip"], actor());
        let met = met.upcast_with(1, move |old: Value, context| Ok::<_, Infallible>(payload(old, context)));
        let met = met
            .upcast_metadata(1, move |old: Option<Value>, _: &StepContext<'_>| Ok::<_, Infallible>(old.map(metadata)));
        Schemas::new([met]).unwrap()
    };
    let found = |schemas: &Schemas| match TaintCheck::new(schemas).sample("Met", 1, json!({ "n": 1 })).check() {
        Ok(_) => String::new(),
        Err(GuardError::Taint { findings }) => format!("{findings:?}"),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(found(&steps(|old, _| old, |metadata| metadata)), "");
    let to_payload = found(&steps(
        |mut old, context| {
            old["from"] = context.metadata().map(|metadata| metadata["ip"].clone()).unwrap_or_default();
            old
        },
        |metadata| metadata,
    ));
    assert!(to_payload.contains("payload/from") && to_payload.contains("/ip in the metadata"), "{to_payload}");
    let in_metadata = found(&steps(
        |old, _| old,
        |mut metadata| {
            metadata["copy"] = metadata["ip"].clone();
            metadata
        },
    ));
    assert!(in_metadata.contains("metadata/copy"), "{in_metadata}");
}

#[test]
fn i17_a_corpus_holds_sealed_metadata_and_sees_what_survives() {
    let folder = tempfile::tempdir().unwrap();
    let of = aggregate("Session", "1");
    let newer = |step: fn(Value) -> Value| {
        let newer = schema().version(2).protect_same_as(1).change(1, Changes::new());
        let newer =
            newer.upcast_metadata(1, move |old: Option<Value>, _: &StepContext<'_>| Ok::<_, Infallible>(old.map(step)));
        Schemas::new([newer]).unwrap()
    };
    let only_metadata = event("Seen").version(1).protect_metadata(&["/ip"], actor());
    let both = || Schemas::new([schema(), only_metadata]).unwrap();
    let seen = NewEvent::raw("Seen", 1, "{}").with_metadata(metadata_of("ada"));
    let corpus = |schemas| GoldenCorpus::open(folder.path(), schemas).unwrap();
    let both = both();
    corpus(both).case("login_v1", &of, login("1", "ada")).case("seen_v1", &of, seen).record().unwrap();
    let case = std::fs::read_to_string(folder.path().join("seen_v1.json")).unwrap();
    assert!(case.contains("$seal") && case.contains("redacted_metadata"), "{case}");
    let stored: Value = serde_json::from_str(&case).unwrap();
    assert!(!stored["stored"].to_string().contains("192.0.2.77"), "I2: {case}");
    std::fs::remove_file(folder.path().join("seen_v1.json")).unwrap();
    corpus(schemas()).case("login_v1", &of, login("1", "ada")).check().unwrap();
    let leaky = newer(|mut old| {
        // A step keeps a copy of what it saw when the event was live.
        old["ip_was"] = json!(if old["ip"] == "unknown" { json!("192.0.2.77") } else { old["ip"].clone() });
        old
    });
    let error = corpus(leaky).case("login_v1", &of, login("1", "ada")).check().unwrap_err().to_string();
    assert!(error.contains("/ip in the metadata") && error.contains("still at"), "{error}");
}

#[test]
fn the_lock_shows_a_change_of_what_is_protected_in_the_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schemas.lock.json");
    SchemaLock::new(&file, &schemas()).record().unwrap();
    SchemaLock::new(&file, &schemas()).check().unwrap();
    let less = event("LoggedIn")
        .version(1)
        .protect(&["/name"], eventseal::subject("Customer", "/customer"))
        .protect_metadata(&["/ip"], actor());
    let less = Schemas::new([less]).unwrap();
    let error = SchemaLock::new(&file, &less).check().unwrap_err().to_string();
    assert!(error.contains("/seen/*/agent in the metadata") && error.contains("/ip in the metadata"), "{error}");
}

#[test]
fn the_lock_shows_a_change_of_what_is_protected_in_the_metadata_of_all_events() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("schemas.lock.json");
    let schemas = |places: &[&str]| {
        let events = [event("Met").version(1).metadata_in_the_clear("nobody's")];
        let builder = Schemas::builder(events).allow_unknown_types();
        match places {
            [] => builder.build().unwrap(),
            places => builder.protect_metadata(places, actor()).build().unwrap(),
        }
    };
    let (none, one, two) = (schemas(&[]), schemas(&["/ip"]), schemas(&["/ip", "/agent"]));
    let said = |schemas: &Schemas| SchemaLock::new(&file, schemas).check().unwrap_err().to_string();
    assert!(said(&one).contains("all events: not recorded yet"), "{}", said(&one));
    SchemaLock::new(&file, &two).record().unwrap();
    SchemaLock::new(&file, &two).check().unwrap();
    let expected = "all events: /agent in the metadata was protected";
    assert!(said(&one).contains(expected) && !said(&one).contains("/ip"), "{}", said(&one));
    assert!(said(&none).contains(expected) && said(&none).contains("/ip in the metadata"), "{}", said(&none));
    // Recording is for what is new. Stored events are as they were.
    assert!(SchemaLock::new(&file, &one).record().is_err());
    SchemaLock::new(&file, &two).check().unwrap();
    SchemaLock::new(&file, &one).accept().unwrap();
    SchemaLock::new(&file, &one).check().unwrap();
    assert!(said(&two).contains("all events: /agent in the metadata was not protected"), "{}", said(&two));
    assert!(SchemaLock::new(&file, &two).record().is_err());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("Customer at /actor/id in the metadata"), "{text}");
}
