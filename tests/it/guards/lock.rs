//! The schema lock: what it lets pass, and the mistakes that it catches.

use eventseal::schema::EventSchema;
use eventseal::{
    EventPayload, EventVersion, NewEvent, Owner, Result, Schemas, Sensitive, aggregate, event, events, subject,
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

impl EventPayload for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 2;
}

#[derive(Serialize, Deserialize)]
struct OrderShipped {
    carrier: String,
}

impl EventPayload for OrderShipped {
    const TYPE: &'static str = "OrderShipped";
    const VERSION: u32 = 1;
}

events! {
    enum OrderEvent {
        Placed(OrderPlaced),
        Shipped(OrderShipped),
    }
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
                        "shape": { "struct": { "customer_id": "string", "email": email, "total": "u32", "note": { "option": "string" } } },
                        "step": { "kind": "typed", "to": [{ "type": "OrderPlaced", "version": 2 }] }
                    },
                    "2": {
                        "protected": { "/contact/email": "Customer at /customer_id" },
                        "shape": { "struct": { "customer_id": "string", "contact": { "struct": { "email": email } }, "total": "u32" } },
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

/// Checks, records, and says what was found both times; the file must stay as it is. Then accepts, unless protection
/// and types contradict each other now, which `protection.rs` is about.
fn caught(schemas: &Schemas) -> Vec<SchemaChange> {
    let recorded = recorded();
    let before = text(&recorded.path);
    let lock = SchemaLock::new(&recorded.path, schemas);
    let found = changes(lock.check());
    assert_eq!(found, changes(lock.record()));
    assert_eq!(text(&recorded.path), before, "nothing is overwritten");
    let (contradictions, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| {
        matches!(
            found.change,
            ChangeKind::SensitiveInTheClear { .. }
                | ChangeKind::NoSuchMember { .. }
                | ChangeKind::UnreadableOnceErased { .. }
        )
    });
    if contradictions.is_empty() {
        assert!(lock.accept().unwrap().written);
        assert!(!lock.check().unwrap().written);
    } else {
        assert_eq!(changes(lock.accept()), contradictions);
        assert_eq!(text(&recorded.path), before, "nothing is accepted");
    }
    found
}

#[test]
fn a_renamed_field_is_caught() {
    #[derive(Serialize, Deserialize)]
    struct Renamed {
        customer_id: String,
        mail: Sensitive<String>,
        total: u32,
        note: Option<String>,
    }
    let found = caught(&schemas([placed_from::<Renamed>(), shipped()]));
    let shape =
        |pointer: &str, was: Option<Value>, is: Option<Value>| ChangeKind::Shape { pointer: pointer.into(), was, is };
    let email = json!({ "sensitive": "string" });
    let kinds: Vec<_> = found.iter().map(|found| found.change.clone()).collect();
    assert_eq!(kinds, [shape("/struct/email", Some(email.clone()), None), shape("/struct/mail", None, Some(email))]);
    let report = GuardError::Schema { changes: found }.to_string();
    assert!(
        report.contains(
            r#"- OrderPlaced version 1: member /email changed: was {"sensitive":"string"}, is absent; put it back, stored events"#
        ),
        "{report}"
    );
    assert!(report.contains("EVENTSEAL_SCHEMAS=accept"), "{report}");
}

#[test]
fn a_changed_current_type_is_caught() {
    #[derive(Serialize, Deserialize)]
    struct Changed {
        carrier: String,
        #[serde(default)]
        parcels: Vec<u8>,
    }
    impl EventPayload for Changed {
        const TYPE: &'static str = "OrderShipped";
        const VERSION: u32 = 1;
    }
    events! {
        enum ChangedEvent {
            Placed(OrderPlaced),
            Shipped(Changed),
        }
    }
    let changed =
        Schemas::builder([placed_from::<OrderPlacedV1>(), shipped()]).decodes::<ChangedEvent>().build().unwrap();
    let found = caught(&changed);
    let added = json!({ "default": { "list": "u8" } });
    assert_eq!(found[0].change, ChangeKind::Shape { pointer: "/struct/parcels".into(), was: None, is: Some(added) });
    let message = found[0].to_string();
    assert!(
        found.len() == 1 && message.contains("stored events lack it, which this type allows: accept it"),
        "{message}"
    );
    assert!(message.ends_with("add version 2 and a step from 1 to 2"), "{message}");
}

#[test]
fn changed_types_of_fields_are_caught() {
    macro_rules! caught_at {
        ($pointer:literal, $($field:ident: $type:ty),*) => {{
            #[derive(Serialize, Deserialize)]
            struct Changed { $($field: $type),* }
            let found = caught(&schemas([placed_from::<Changed>(), shipped()]));
            assert!(found.len() == 1, "{found:?}");
            assert!(matches!(&found[0].change, ChangeKind::Shape { pointer, .. } if pointer == $pointer), "{found:?}");
        }};
    }
    caught_at!("/struct/total", customer_id: String, email: Sensitive<String>, total: String, note: Option<String>);
    caught_at!("/struct/total", customer_id: String, email: Sensitive<String>, total: u64, note: Option<String>);
    caught_at!("/struct/total", customer_id: String, email: Sensitive<String>, total: Option<u32>, note: Option<String>);
    caught_at!("/struct/note", customer_id: String, email: Sensitive<String>, total: u32, note: String);
    caught_at!("/struct/email", customer_id: String, email: String, total: u32, note: Option<String>);
    caught_at!("/struct/email/sensitive", customer_id: String, email: Sensitive<Contact>, total: u32, note: Option<String>);
}

#[test]
fn a_struct_that_refuses_other_members_from_now_on_is_caught() {
    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Closed {
        customer_id: String,
        email: Sensitive<String>,
        total: u32,
        note: Option<String>,
    }
    let found = caught(&schemas([placed_from::<Closed>(), shipped()]));
    let expected = ChangeKind::Shape { pointer: "/deny_unknown_fields".into(), was: None, is: Some(json!(true)) };
    assert_eq!(found.iter().map(|found| &found.change).collect::<Vec<_>>(), [&expected]);
}

#[test]
fn another_name_of_a_field_that_goes_is_caught() {
    #[derive(Serialize, Deserialize)]
    struct Named {
        customer_id: String,
        #[serde(alias = "mail", alias = "e_mail")]
        email: Sensitive<String>,
        total: u32,
        note: Option<String>,
    }
    let found = caught(&schemas([placed_from::<Named>(), shipped()]));
    assert_eq!(found.len(), 2, "{found:?}");
    let alias = || Some(json!({ "alias of": "email" }));
    assert_eq!(found[0].change, ChangeKind::Shape { pointer: "/struct/e_mail".into(), was: None, is: alias() });
    let recorded = recorded();
    let (with, without) =
        (schemas([placed_from::<Named>(), shipped()]), schemas([placed_from::<OrderPlacedV1>(), shipped()]));
    SchemaLock::new(&recorded.path, &with).accept().unwrap();
    let found = changes(SchemaLock::new(&recorded.path, &without).check());
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1].change, ChangeKind::Shape { pointer: "/struct/mail".into(), was: alias(), is: None });
    assert!(
        found[1].to_string().ends_with("put it back, stored events of this version are as they were"),
        "{}",
        found[1]
    );
}

#[test]
fn another_stand_in_is_caught() {
    let with = |stand_in: Value| {
        let v1 = event("OrderPlaced").version(1).protect(&["/email"], customer()).redact_as("/email", stand_in);
        v1.version(2)
            .protect(&["/contact/email"], customer())
            .upcast(1, |_: OrderPlacedV1| Err::<OrderPlaced, _>("not in this test"))
    };
    let found = caught(&schemas([with(json!("erased")), shipped()]));
    let expected = ChangeKind::StandIn { pointer: "/email".into(), was: Value::Null, is: json!("erased") };
    assert_eq!(found.iter().map(|found| &found.change).collect::<Vec<_>>(), [&expected]);
    let recorded = recorded();
    SchemaLock::new(&recorded.path, &schemas([with(json!({ "b": 1, "a": 2 })), shipped()])).accept().unwrap();
    SchemaLock::new(&recorded.path, &schemas([with(json!({ "a": 2, "b": 1 })), shipped()])).check().unwrap();
    let found = changes(SchemaLock::new(&recorded.path, &schemas([with(Value::Null), shipped()])).check());
    assert!(
        matches!(found[..], [SchemaChange { change: ChangeKind::StandIn { is: Value::Null, .. }, .. }]),
        "{found:?}"
    );
    assert!(
        found[0].to_string().contains(r#"for "/email" once it is erased was {"a":2,"b":1}, is null"#),
        "{}",
        found[0]
    );
}

#[test]
fn protection_that_is_taken_away_added_or_given_to_others_is_caught() {
    let upcast = |schema: EventSchema| schema.upcast(1, |_: OrderPlacedV1| Err::<OrderPlaced, _>("not in this test"));
    let v2 = |schema: EventSchema| upcast(schema.version(2).protect(&["/contact/email"], customer()));
    let v1 = || event("OrderPlaced").version(1);
    let customer_text = || Some("Customer at /customer_id".to_owned());
    for (schema, pointer, was, is) in [
        (v2(v1().unprotected("oops")), "/email", customer_text(), None),
        (v2(v1().protect(&["/email", "/note"], customer())), "/note", None, customer_text()),
        (v2(v1().protect(&["/email"], Owner::Aggregate)), "/email", customer_text(), Some("the aggregate".to_owned())),
        (
            v2(v1().protect(&["/email"], Owner::Aggregate.scope_kind("Person"))),
            "/email",
            customer_text(),
            Some("the aggregate as Person".to_owned()),
        ),
        (upcast(placed().protect(&["/total"], customer())), "/total", None, customer_text()),
    ] {
        let found = caught(&schemas([schema, shipped()]));
        assert_eq!(found.len(), 1, "{found:?}");
        let what_to_do = [
            "put it back, stored events of this version are as they were",
            "leave version 2 as it was, and add version 3",
        ];
        assert!(
            found[0].to_string().contains(what_to_do[usize::from(found[0].event_version.get() == 2)]),
            "{}",
            found[0]
        );
        assert_eq!(found[0].change, ChangeKind::Protection { pointer: pointer.into(), was, is });
    }
}

#[test]
fn places_of_shapes_are_shown_as_those_of_payloads() {
    for (pointer, shown) in [
        ("", "the payload"),
        ("/struct/carrier", "member /carrier"),
        ("/struct/struct/option/struct/list/list/struct/a~1b/default", "member /struct/list/*/a~1b"),
        ("/enum/Sent/tuple/0/map", "member /Sent/0/*"),
        ("/struct/map/key", "the keys of member /map"),
        ("/struct/contact/deny_unknown_fields", "deny_unknown_fields of member /contact"),
    ] {
        let change = ChangeKind::Shape { pointer: pointer.into(), was: Some("string".into()), is: None };
        assert_eq!(change.to_string(), format!("{shown} changed: was \"string\", is absent"));
    }
    let change = ChangeKind::NotTraced { pointer: "/struct/carrier".into(), why: "because".into() };
    assert_eq!(change.to_string(), "the shape of member /carrier is not known: because");
}

#[test]
fn a_removed_version_or_type_is_caught() {
    let without_v1 = event("OrderPlaced").version(2).protect(&["/contact/email"], customer());
    let found = caught(&schemas([without_v1, shipped()]));
    assert_eq!(
        (found.len(), found[0].event_version.get(), &found[0].change),
        (1, 1, &ChangeKind::Removed),
        "{found:?}"
    );
    let found = caught(&Schemas::new([placed_from::<OrderPlacedV1>()]).unwrap());
    let removed = found.iter().find(|found| found.event_type == "OrderShipped").unwrap();
    assert_eq!((removed.current, &removed.change), (None, &ChangeKind::Removed));
    assert!(removed.to_string().contains("unless a census finds none"), "{removed}");
}

#[test]
fn a_type_that_is_no_longer_known_is_caught() {
    let found = caught(&Schemas::new([placed_from::<OrderPlacedV1>(), shipped()]).unwrap());
    assert_eq!(found.len(), 2, "nobody says any more into what the current versions are decoded: {found:?}");
    assert!(
        found.iter().all(|found| matches!(&found.change, ChangeKind::Shape { pointer, .. } if pointer.is_empty())),
        "{found:?}"
    );
}

#[test]
fn another_version_for_what_is_stored_without_one_is_caught() {
    let with = |version| placed_from::<OrderPlacedV1>().legacy_version(version);
    let recorded = recorded();
    let first = schemas([with(1), shipped()]);
    let lock = SchemaLock::new(&recorded.path, &first);
    let found = changes(lock.check());
    assert_eq!((found.len(), found[0].event_version.get()), (1, 0), "{found:?}");
    assert_eq!(found[0].change, ChangeKind::LegacyVersion { was: None, is: Some(EventVersion::new(1)) });
    assert!(found[0].to_string().contains("EVENTSEAL_SCHEMAS=record"), "{}", found[0]);
    assert!(lock.record().unwrap().written && !lock.check().unwrap().written);
    assert!(text(&recorded.path).contains(r#""legacy_version": 1"#), "{}", text(&recorded.path));

    let before = text(&recorded.path);
    for other in [with(2), placed_from::<OrderPlacedV1>()] {
        let schemas = schemas([other, shipped()]);
        let lock = SchemaLock::new(&recorded.path, &schemas);
        for found in [changes(lock.check()), changes(lock.record())] {
            assert!(
                matches!(found[..], [SchemaChange { change: ChangeKind::LegacyVersion { was: Some(_), .. }, .. }]),
                "{found:?}"
            );
            assert!(found[0].to_string().contains("was read as version 1, is as "), "{}", found[0]);
        }
        assert_eq!(text(&recorded.path), before);
        assert!(lock.accept().unwrap().written && !lock.check().unwrap().written);
        std::fs::write(&recorded.path, &before).unwrap();
    }
}

#[test]
fn a_step_that_leads_elsewhere_is_caught() {
    let split = placed().split(1, &[("OrderShipped", 1)], |_, _| Ok::<_, std::fmt::Error>(Vec::new()));
    let recorded = recorded();
    let schemas = schemas([split, shipped()]);
    let lock = SchemaLock::new(&recorded.path, &schemas).shape_of::<OrderPlacedV1>("OrderPlaced", 1);
    let found = changes(lock.record());
    let step = |text: &str| Some(text.to_owned());
    let expected =
        ChangeKind::Step { was: step("typed to OrderPlaced version 2"), is: step("split to OrderShipped version 1") };
    assert_eq!(found.iter().map(|found| &found.change).collect::<Vec<_>>(), [&expected]);
    lock.accept().unwrap();
}

#[test]
fn a_new_version_is_recorded_and_changes_nothing_else() {
    #[derive(Serialize, Deserialize)]
    struct OrderShippedV2 {
        carrier: String,
        parcels: u8,
    }
    impl EventPayload for OrderShippedV2 {
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

/// What a test does in the environment that the next one gives it.
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
