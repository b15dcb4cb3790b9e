//! Changes that the lock tells of.

use super::*;

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
    impl Event for Changed {
        const TYPE: &'static str = "OrderShipped";
        const VERSION: u32 = 1;
    }
    #[derive(eventseal::Events)]
    enum ChangedEvent {
        Placed(OrderPlaced),
        Shipped(Changed),
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
    caught_at!("/struct/total",
        customer_id: String, email: Sensitive<String>, total: Option<u32>, note: Option<String>);
    caught_at!("/struct/note", customer_id: String, email: Sensitive<String>, total: u32, note: String);
    caught_at!("/struct/email", customer_id: String, email: String, total: u32, note: Option<String>);
    caught_at!("/struct/email/sensitive",
        customer_id: String, email: Sensitive<Contact>, total: u32, note: Option<String>);
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
fn another_spelling_of_ids_is_caught() {
    let customer = || customer().normalize(Normalize::Uuid);
    let v1 = event("OrderPlaced").version(1).protect(&["/email"], customer());
    let placed = v1.version(2).protect(&["/contact/email"], customer());
    let upcast = placed.upcast(1, |_: OrderPlacedV1| Err::<OrderPlaced, _>("not in this test"));
    let found = caught(&schemas([upcast, shipped()]));
    let expected =
        |pointer: &str| ChangeKind::Normalized { pointer: pointer.into(), was: None, is: Some("uuid".to_owned()) };
    let kinds: Vec<_> = found.iter().map(|found| found.change.clone()).collect();
    assert_eq!(kinds, [expected("/email"), expected("/contact/email")]);
    let message = found[0].to_string();
    assert!(
        message.contains("the ids of the owner of /email were normalized by nothing, are by uuid: put it"),
        "{message}"
    );
}
