//! The schema lock: what it lets pass, and the mistakes that it catches.

mod caught;

use eventseal::schema::EventSchema;
use eventseal::{
    Event, EventVersion, NewEvent, Normalize, Owner, Result, Schemas, Sensitive, aggregate, event, subject,
};
use eventseal_testing::{ChangeKind, GoldenCorpus, GuardError, Locked, SchemaChange, SchemaLock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct OrderPlacedV1 {
    customer_id: String,
    email: Sensitive<String>,
    total: u32,
    note: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    customer_id: String,
    contact: Contact,
    total: u32,
}

#[derive(Serialize, Deserialize)]
struct Contact {
    email: Sensitive<String>,
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 2;
}

#[derive(Serialize, Deserialize)]
struct OrderShipped {
    carrier: String,
}

impl Event for OrderShipped {
    const TYPE: &'static str = "OrderShipped";
    const VERSION: u32 = 1;
}

#[derive(eventseal::Events)]
enum OrderEvent {
    Placed(OrderPlaced),
    Shipped(OrderShipped),
}

fn customer() -> Owner {
    subject("Customer", "/customer_id")
}

fn placed() -> EventSchema {
    event("OrderPlaced").version(1).protect(&["/email"], customer()).version(2).protect(&["/contact/email"], customer())
}

/// With whatever version 1 is read into.
fn placed_from<A: serde::de::DeserializeOwned + 'static>() -> EventSchema {
    placed().upcast(1, |_: A| Err::<OrderPlaced, _>("not in this test"))
}

fn shipped() -> EventSchema {
    event("OrderShipped").version(1)
}

fn schemas(events: impl IntoIterator<Item = EventSchema>) -> Schemas {
    Schemas::builder(events).decodes::<OrderEvent>().build().unwrap()
}

struct Recorded {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

/// A file in which the schemas above are recorded.
fn recorded() -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks/schemas.json");
    let locked = SchemaLock::new(&path, &schemas([placed_from::<OrderPlacedV1>(), shipped()]))
        .deny_not_traced()
        .record()
        .unwrap();
    assert!(locked.written && locked.versions == 3 && locked.not_traced.is_empty());
    Recorded { _folder: folder, path }
}

fn changes(result: Result<Locked, GuardError>) -> Vec<SchemaChange> {
    match result {
        Err(GuardError::Schema { changes }) => changes,
        other => panic!("{other:?}"),
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_file_says_what_every_version_looks_like() {
    let recorded = recorded();
    let file: Value = serde_json::from_str(&text(&recorded.path)).unwrap();
    let email = json!({ "sensitive": "string" });
    assert_eq!(
        file,
        json!({
            "eventseal_schemas": 1,
            "types": {
                "OrderPlaced": { "versions": {
                    "1": {
                        "protected": { "/email": "Customer at /customer_id" },
                        "shape": { "struct": {
                            "customer_id": "string", "email": email, "total": "u32", "note": { "option": "string" },
                        } },
                        "step": { "kind": "typed", "to": [{ "type": "OrderPlaced", "version": 2 }] }
                    },
                    "2": {
                        "protected": { "/contact/email": "Customer at /customer_id" },
                        "shape": { "struct": {
                            "customer_id": "string", "contact": { "struct": { "email": email } }, "total": "u32",
                        } },
                        "step": null
                    }
                } },
                "OrderShipped": { "versions": {
                    "1": { "protected": {}, "shape": { "struct": { "carrier": "string" } }, "step": null }
                } }
            }
        })
    );
    let before = text(&recorded.path);
    let same = schemas([shipped(), placed_from::<OrderPlacedV1>()]);
    let lock = SchemaLock::new(&recorded.path, &same);
    for result in [lock.check(), lock.record(), lock.accept()] {
        assert!(!result.unwrap().written);
    }
    assert_eq!(text(&recorded.path), before);
}

#[test]
fn nothing_is_recorded_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let found = changes(SchemaLock::new(&path, &schemas([placed_from::<OrderPlacedV1>(), shipped()])).check());
    assert!(found.len() == 3 && found.iter().all(|found| found.change == ChangeKind::NotRecorded), "{found:?}");
    assert!(!path.exists());
}

#[test]
fn a_new_version_is_recorded_and_changes_nothing_else() {
    #[derive(Serialize, Deserialize)]
    struct OrderShippedV2 {
        carrier: String,
        parcels: u8,
    }
    impl Event for OrderShippedV2 {
        const TYPE: &'static str = "OrderShipped";
        const VERSION: u32 = 2;
    }
    let recorded = recorded();
    let shipped = shipped().version(2).upcast(1, |_: OrderShipped| Err::<OrderShippedV2, _>("not in this test"));
    let schemas = Schemas::builder([placed_from::<OrderPlacedV1>(), shipped])
        .decodes::<OrderPlaced>()
        .decodes::<OrderShippedV2>()
        .build()
        .unwrap();
    let lock = SchemaLock::new(&recorded.path, &schemas).deny_not_traced();
    let found = changes(lock.check());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(matches!(found[0].change, ChangeKind::Step { was: None, .. }), "{found:?}");
    assert_eq!((found[1].event_version.get(), &found[1].change), (2, &ChangeKind::NotRecorded));
    let before: Value = serde_json::from_str(&text(&recorded.path)).unwrap();
    assert!(lock.record().unwrap().written);
    lock.check().unwrap();
    let mut after: Value = serde_json::from_str(&text(&recorded.path)).unwrap();
    let versions = after["types"]["OrderShipped"]["versions"].as_object_mut().unwrap();
    assert_eq!(versions.remove("2").unwrap()["shape"], json!({ "struct": { "carrier": "string", "parcels": "u8" } }));
    assert_eq!(
        versions["1"]["step"].take(),
        json!({ "kind": "typed", "to": [{ "type": "OrderShipped", "version": 2 }] })
    );
    assert_eq!(before, after);
}

#[test]
fn types_that_exist_as_json_only_are_known_by_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let schemas = || {
        let v1 = event("Noted").version(1).version(2);
        Schemas::new([v1.upcast(1, |note: Value| Ok::<_, std::fmt::Error>(note))]).unwrap()
    };
    let untyped = schemas();
    let lock = || SchemaLock::new(&path, &untyped);
    let locked = lock().record().unwrap();
    assert_eq!(locked.not_traced, [("Noted".into(), EventVersion::new(1)), ("Noted".into(), EventVersion::new(2))]);
    let found = changes(lock().deny_not_traced().check());
    assert!(
        found
            .iter()
            .all(|found| matches!(&found.change, ChangeKind::NotTraced { why, .. } if why.contains("shape_of"))),
        "{found:?}"
    );

    let sampled =
        || lock().sample("Noted", 1, json!({ "text": "a" })).sample("Noted", 2, json!({ "text": "a", "by": 7 }));
    let news = changes(sampled().check());
    assert!(news.len() == 2 && news.iter().all(|found| found.change == ChangeKind::ShapeNotRecorded), "{news:?}");
    assert!(
        news[0].to_string().starts_with("Noted version 1: its shape was not known, and now is: record it"),
        "{news:?}"
    );
    assert!(sampled().record().unwrap().not_traced.is_empty());
    sampled().deny_not_traced().check().unwrap();
    let other = lock().sample("Noted", 1, json!({ "text": "a" })).sample("Noted", 2, json!({ "text": "a", "by": "x" }));
    let found = changes(other.record());
    assert_eq!(
        found.iter().map(|found| found.change.clone()).collect::<Vec<_>>(),
        [ChangeKind::Shape { pointer: "/struct/by".into(), was: Some("integer".into()), is: Some("string".into()) }]
    );
    let found = changes(sampled().sample("Notted", 1, json!({})).check());
    assert_eq!((found.len(), &found[0].change), (1, &ChangeKind::NotRegistered));

    let corpus = GoldenCorpus::open(folder.path().join("golden"), schemas()).unwrap();
    let note = |version, payload: &str| NewEvent::raw("Noted", version, payload);
    let note_1 = aggregate("Note", "1");
    let corpus =
        corpus.case("v1", &note_1, note(1, r#"{"text":"x"}"#)).case("v2", &note_1, note(2, r#"{"text":"x","by":1}"#));
    corpus.record().unwrap();
    let corpus = GoldenCorpus::open(folder.path().join("golden"), schemas()).unwrap();
    lock().samples_of(&corpus).deny_not_traced().check().unwrap();
}

#[test]
fn a_file_that_is_no_lock_is_refused() {
    let recorded = recorded();
    let schemas = schemas([placed_from::<OrderPlacedV1>(), shipped()]);
    for content in ["", "{}", r#"{"eventseal_schemas":2,"types":{}}"#, r#"{"eventseal_schemas":1,"types":{},"x":1}"#] {
        std::fs::write(&recorded.path, content).unwrap();
        for result in
            [SchemaLock::new(&recorded.path, &schemas).check(), SchemaLock::new(&recorded.path, &schemas).accept()]
        {
            assert!(matches!(result, Err(GuardError::File { .. })), "{content}");
        }
        assert_eq!(text(&recorded.path), content);
    }
}

/// The part of the next test that runs in a process of its own, with another environment.
#[test]
#[ignore = "run by the next one"]
fn check_the_file_of_the_environment() {
    let schemas = schemas([placed_from::<OrderPlacedV1>(), shipped()]);
    SchemaLock::new(std::env::var("LOCK_FILE").unwrap(), &schemas).check().unwrap();
}

#[test]
fn the_environment_says_whether_to_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let run = |variable: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "guards::lock::check_the_file_of_the_environment"]);
        command.env("LOCK_FILE", &path).env_remove("EVENTSEAL_SCHEMAS").env("EVENTSEAL_GOLDEN", "accept");
        command.envs(variable.map(|value| ("EVENTSEAL_SCHEMAS", value)));
        command.output().unwrap().status.success()
    };
    assert!(!run(None) && !run(Some("accept all")) && !path.exists());
    assert!(run(Some("record")) && run(None));
    let changed = text(&path).replace("\"u32\"", "\"u64\"");
    std::fs::write(&path, &changed).unwrap();
    assert!(!run(None) && !run(Some("record")));
    assert_eq!(text(&path), changed);
    assert!(run(Some("accept")) && run(None));
}
