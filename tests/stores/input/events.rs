//! Types, versions, names, ids and metadata.

use super::{Shop, assert_silent, declared, good, order, placed, strict};
use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::error::{EventFault, InputFault};
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{AggregateVersion, Error, Keyring, Namespace, NewEvent, Sealer, aggregate};

#[tokio::test]
async fn i2_i9_only_declared_current_versions_are_appended() {
    let payload = r#"{"customer_id":"cust-new","email":"c4n4ry"}"#;
    let shop = Shop::new(declared()).await;
    for (event_type, version, advice) in [
        ("Placed", 2, "declare this one, or append version 1"),
        ("Evolved", 1, "declare this one, or append version 3"),
        ("Evolved", 2, "allow_older_appends()"),
        ("Evolved", 4, "versions 2 to 3 are declared"),
        ("Open", 2, "declare this one, or append version 1"),
    ] {
        let what = format!("{event_type} {version}");
        let error = shop.refuses(&what, &order(), Any, &[good(), NewEvent::raw(event_type, version, payload)]).await;
        assert!(
            matches!(
                &error,
                Error::Event { fault: EventFault::UndeclaredVersion { event_version, .. }, .. }
                    if event_version.get() == version
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains(advice), "{error}");
    }
    // Version 0 and those beyond the column's type don't exist at all.
    for version in [0, 1 << 31, u32::MAX] {
        for event_type in ["Placed", "Open", "Unknown"] {
            let error =
                shop.refuses("no version", &order(), Any, &[good(), NewEvent::raw(event_type, version, payload)]).await;
            assert!(
                matches!(
                    error,
                    Error::Input(InputFault::OutOfRange { what: "event version", value, .. })
                        if value == i64::from(version)
                ),
                "{error:?}"
            );
            assert!(error.to_string().contains("event versions are 1 to 2147483647"), "{error}");
        }
    }
    let older = Shop::new(declared().allow_older_appends()).await;
    older.append(&order(), Any, &[NewEvent::raw("Evolved", 2, payload)]).await.unwrap();
    let error = older.refuses("undeclared", &order(), Any, &[NewEvent::raw("Evolved", 1, payload)]).await;
    assert!(matches!(error, Error::Event { fault: EventFault::UndeclaredVersion { .. }, .. }), "{error:?}");
    older.recorder.assert_clean("an older version is sealed too");

    let shop = Shop::new(strict()).await;
    let error = shop.refuses("unknown", &order(), Any, &[good(), NewEvent::raw("Unknown", 1, payload)]).await;
    assert!(matches!(error, Error::Event { fault: EventFault::UnknownType { .. }, .. }), "{error:?}");
    assert!(error.to_string().contains("add event(\"Unknown\") to the schemas"), "{error}");
}

/// The sealer has no store below it that would check, so it has to be safe by itself.
#[tokio::test]
async fn i2_the_sealer_alone_refuses_what_it_can_not_protect() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), declared().build().unwrap());
    sealer.keys().prepare(&mut db.begin()).await.unwrap();
    let payload = r#"{"text":"c4n4ry","email":"c4n4ry"}"#;
    for (version, exists) in [(0, false), (2, true), (u32::MAX, false)] {
        let events = [NewEvent::raw("Noted", version, payload)];
        let error = sealer.seal(&mut db.begin(), &order(), &events).await.unwrap_err();
        assert!(
            if exists {
                matches!(error, Error::Event { fault: EventFault::UndeclaredVersion { .. }, .. })
            } else {
                matches!(error, Error::Input(InputFault::OutOfRange { .. }))
            },
            "{error:?}"
        );
    }
    for bad in [
        aggregate("Order", ""),
        aggregate("", "ord-1"),
        aggregate("Order", "a\0"),
        aggregate("$eventseal", "integrity"),
    ] {
        let events = [NewEvent::raw("Noted", 1, payload)];
        let result = sealer.seal(&mut db.begin(), &bad, &events).await;
        assert!(matches!(result, Err(Error::Input(InputFault::InvalidText { .. }))), "{bad}: {result:?}");
        assert_silent("sealer", &result.unwrap_err());
    }
}

#[tokio::test]
async fn i2_i9_names_and_ids_are_text() {
    let shop = Shop::new(declared()).await;
    let long = "n".repeat(1_025);
    for (what, name, advice) in
        [("empty", "", "name it"), ("NUL", "a\0c", "remove it"), ("long", long.as_str(), "shorten it")]
    {
        for bad in [aggregate(name, "ord-1"), aggregate("Order", name)] {
            let error = shop.refuses(what, &bad, Any, &[good()]).await;
            assert!(
                matches!(
                    &error,
                    Error::Input(InputFault::InvalidText { what, .. })
                        if what.starts_with("the aggregate")
                ),
                "{error:?}"
            );
            assert!(error.to_string().contains(advice), "{error}");
        }
        let error = shop.refuses(what, &order(), Any, &[good(), NewEvent::raw(name, 1, r#"{"x":"c4n4ry"}"#)]).await;
        assert!(matches!(error, Error::Input(InputFault::InvalidText { what: "the event type", .. })), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
    }
    for (what, event) in [
        ("the trace id", good().with_trace_id("a\0")),
        ("the correlation id", good().with_correlation_id("a\0")),
        ("the causation id", good().with_causation_id("a\0")),
    ] {
        let error = shop.refuses(what, &order(), Any, &[event]).await;
        assert!(
            matches!(error, Error::Input(InputFault::InvalidText { what: found, .. }) if found == what),
            "{error:?}"
        );
        assert!(error.to_string().contains("remove it"), "{error}");
    }
    // A scope of this crate's own can't be had by naming an aggregate like it.
    let reserved = aggregate("$eventseal", "integrity");
    let error = shop.refuses("reserved", &reserved, Any, &[NewEvent::raw("Noted", 1, r#"{"text":"c4n4ry"}"#)]).await;
    assert!(matches!(error, Error::Input(InputFault::InvalidText { .. })), "{error:?}");
    assert!(error.to_string().contains("scope_kind()"), "{error}");
}

#[tokio::test]
async fn i2_i9_batches_have_events_of_different_ids_and_json_metadata() {
    let shop = Shop::new(declared()).await;
    let error = shop.refuses("empty", &order(), Any, &[]).await;
    assert!(matches!(error, Error::Input(InputFault::EmptyAppend)), "{error:?}");
    assert!(error.to_string().contains("pass at least one"), "{error}");
    let first = good();
    let error = shop.refuses("twice", &order(), Any, &[first.clone(), good(), good().with_id(first.event_id)]).await;
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == first.event_id), "{error:?}");
    assert!(error.is_conflict() && error.to_string().contains("an id of its own"), "{error}");
    for metadata in ["", "c4n4ry", "{\"x\":\"c4n4ry\"", "{\"x\":\"c4n4ry\"} 1", "\u{feff}{}"] {
        let error = shop.refuses(metadata, &order(), Any, &[good(), good().with_metadata(metadata)]).await;
        assert!(matches!(error, Error::Event { fault: EventFault::InvalidMetadata { .. }, .. }), "{error:?}");
        assert!(error.to_string().contains("pass a valid JSON document"), "{error}");
    }
    assert!(shop.recorder.given.lock().unwrap().is_empty(), "all of it is found before the inner store is asked");
}

#[tokio::test]
async fn i2_i9_a_wrong_expected_version_writes_no_event() {
    for number in [0, -1, i64::MIN] {
        let error = AggregateVersion::try_from(number).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Input(InputFault::OutOfRange { what: "aggregate version", value, .. })
                    if value == number
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("ExpectedVersion::NoStream"), "{error}");
    }
    let version = |number: i64| AggregateVersion::try_from(number).unwrap();
    let shop = Shop::new(declared()).await;
    let known = placed(r#"{"customer_id":"cust-1","email":"c4n4ry"}"#);
    let again = || placed(r#"{"customer_id":"cust-1","email":"c4n4ry-again"}"#);
    shop.append(&order(), NoStream, &[known.clone(), again()]).await.unwrap();
    for expected in [NoStream, Exact(version(1)), Exact(version(3))] {
        let error = shop.refuses("wrong version", &order(), expected, &[again()]).await;
        assert!(matches!(&error, Error::VersionConflict { actual, .. } if *actual == Some(version(2))), "{error:?}");
        assert!(error.is_conflict() && error.to_string().contains("read it again and decide anew"), "{error}");
    }
    let error = shop.refuses("stored id", &order(), Any, &[again(), again().with_id(known.event_id)]).await;
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == known.event_id), "{error:?}");
    // A key that was made before the conflict showed is harmless; the event is what must not be there.
    let before = shop.number_of_events().await;
    let error = shop.append(&order(), NoStream, &[good()]).await.unwrap_err();
    assert!(error.is_conflict());
    assert_silent("conflict", &error);
    assert_eq!(shop.number_of_events().await, before);
    shop.recorder.assert_clean("conflicts");
    // And the right version still goes through.
    shop.append(&order(), Exact(version(2)), &[good()]).await.unwrap();
    shop.recorder.assert_clean("success");
}
