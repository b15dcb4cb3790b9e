//! Stored cases: copies, plaintext, altered events, old formats.

use super::{corpus, differences, files, order, order_schemas, recorded, right_step};
use eventseal::schema::{SplitPart, StepContext};
use eventseal::{
    AggregateVersion, GlobalPosition, NewEvent, Owner, PersistedEvent, Schemas, aggregate, event, subject,
};
use eventseal_testing::{GoldenCorpus, GuardError, Mismatch, Run};
use serde_json::{Value, json};
use std::convert::Infallible;

#[test]
fn a_copy_in_the_stored_payload_or_metadata_is_caught() {
    for (payload, metadata, place) in [
        (
            r#"{"customer_id":"c","email":"ada@example.org","search":"by ada@example.org","guests":[]}"#,
            "{}",
            "/0/payload/search",
        ),
        (
            r#"{"customer_id":"c","email":"ada@example.org","guests":[]}"#,
            r#"{"to":["ada@example.org"]}"#,
            "/0/metadata/to/0",
        ),
        (
            r#"{"customer_id":"c","email":12345678,"by_id":{"12345678":1},"guests":[]}"#,
            "{}",
            "/0/payload/by_id/12345678",
        ),
        (r#"{"customer_id":"c","email":12345678,"other":12345678,"guests":[]}"#, "{}", "/0/payload/other"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let copied = NewEvent::raw("OrderPlaced", 1, payload).with_metadata(metadata);
        let corpus =
            GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().case("copied", &order(), copied);
        let found = differences(corpus.record());
        let survives = Mismatch::Survives { pointer: place.into(), protected: "/email".into() };
        assert_eq!(found, differences(corpus.accept()));
        assert!(found.len() == 1 && found[0].mismatch == survives, "{found:?}");
        assert!(files(folder.path()).is_empty(), "it can't be accepted");
    }
}

#[test]
fn what_was_stored_in_plaintext_is_redacted_too() {
    let schemas = |fails: bool| {
        let step = move |mut old: Value| {
            if fails && old["name"].is_null() {
                return Err("a customer has a name");
            }
            Ok(json!({ "person": { "name": old["name"].take() } }))
        };
        let registered = event("Registered")
            .version(1)
            .protect(&["/name"], Owner::Aggregate)
            .version(2)
            .protect(&["/person/name"], Owner::Aggregate)
            .upcast(1, step);
        Schemas::builder([registered]).accept_plaintext("Registered").build().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let stored = PersistedEvent::from_new(
        aggregate("Customer", "7"),
        AggregateVersion::FIRST,
        GlobalPosition::START,
        NewEvent::raw("Registered", 1, r#"{"name":"Ada Lovelace"}"#),
    );
    let corpus =
        |fails| GoldenCorpus::open(folder.path(), schemas(fails)).unwrap().stored_case("plain", stored.clone());
    corpus(false).record().unwrap();
    let case: Value = serde_json::from_str(&files(folder.path())[0].1).unwrap();
    assert_eq!(case["stored"]["payload"], r#"{"name":"Ada Lovelace"}"#, "it stays as it is");
    assert_eq!(case["expected"]["redacted"][0]["redacted"], json!(["/person/name"]));
    corpus(false).check().unwrap();
    let found = differences(corpus(true).check());
    assert!(found.len() == 1 && found[0].run == Run::Redacted, "{found:?}");
}

#[test]
fn an_event_that_no_service_could_append_is_reported() {
    let folder = recorded();
    for (event, problem) in [
        (NewEvent::raw("OrderPlaced", 3, "{}"), "can't be appended"),
        (NewEvent::raw("OrderPlaced", 1, "not JSON"), "not valid JSON"),
        (NewEvent::raw("OrderPlaced", 1, r#"{"email":"x"}"#), "absent or null"),
    ] {
        let corpus =
            GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().case("other", &order(), event);
        for result in [corpus.check(), corpus.record()] {
            let found = differences(result);
            assert!(found.len() == 1 && found[0].case == "other", "{found:?}");
            assert!(matches!(&found[0].mismatch, Mismatch::NotSealed(error) if error.contains(problem)), "{found:?}");
        }
    }
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn a_case_is_one_event_for_good() {
    let folder = recorded();
    let other = NewEvent::raw("OrderPlaced", 1, r#"{"customer_id":"c","email":"x","guests":[]}"#)
        .with_metadata(r#"{"source":"web"}"#);
    let with_other = || {
        GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().case("placed_v1", &order(), other.clone())
    };
    let found = differences(with_other().record());
    assert_eq!(found[0].mismatch, Mismatch::OtherEvent { what: "payload" });
    let expected = "placed_v1: the test names another payload than the recorded one: put it back (use literal JSON), \
        or choose another name";
    assert!(found.len() == 1 && found[0].to_string().starts_with(expected), "{found:?}");
    with_other().accept().unwrap();
    with_other().check().unwrap();
    for name in ["", "../x", "a/b", "test-keys", ".x"] {
        let corpus =
            GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().case(name, &order(), other.clone());
        assert!(matches!(corpus.record(), Err(GuardError::File { .. })), "{name}");
    }
}

#[test]
fn altered_events_and_lost_keys_are_reported() {
    let folder = recorded();
    let path = folder.path().join("placed_v1.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"event_version\": 1", "\"event_version\": 2", 1)).unwrap();
    let found = differences(GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().check());
    assert!(
        matches!(&found[0].mismatch, Mismatch::Unreadable(error) if error.contains("the seal does not hold")),
        "{found:?}"
    );
    std::fs::write(&path, text).unwrap();
    std::fs::remove_file(folder.path().join("test-keys.json")).unwrap();
    let lost = GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap_err().to_string();
    assert!(lost.contains("placed_v1.json: is sealed, but there is no test-keys.json"), "{lost}");
    let other = recorded();
    std::fs::copy(other.path().join("test-keys.json"), folder.path().join("test-keys.json")).unwrap();
    let found = differences(GoldenCorpus::open(folder.path(), order_schemas(right_step)).unwrap().check());
    assert_eq!(found[0].mismatch, Mismatch::KeyLost);
    let named = corpus(folder.path(), order_schemas(right_step));
    for result in [named.check(), named.record(), named.accept()] {
        let report = result.unwrap_err().to_string();
        assert!(
            report.contains("- placed_v1: test-keys.json is missing or lacks the key of this case: restore it"),
            "{report}"
        );
        assert!(
            !report.contains("another") && !report.contains("EVENTSEAL_GOLDEN"),
            "one thing, which nobody can accept: {report}"
        );
    }
    std::fs::write(&path, "{}").unwrap();
    assert!(matches!(GoldenCorpus::open(folder.path(), order_schemas(right_step)), Err(GuardError::File { .. })));
}

#[test]
fn a_version_that_is_not_registered_any_more_is_not_taken_for_another_event() {
    let folder = recorded();
    let later = event("OrderPlaced").version(2).protect(&["/contact/email"], subject("Customer", "/customer_id"));
    let found = differences(corpus(folder.path(), Schemas::new([later]).unwrap()).check());
    assert!(found.len() == 1 && matches!(&found[0].mismatch, Mismatch::Unreadable(_)), "{found:?}");
}

#[test]
fn a_case_of_a_protected_version_has_something_sealed() {
    let misspelt = || Schemas::new([event("Registered").version(1).protect(&["/emial"], Owner::Aggregate)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let registered = || NewEvent::raw("Registered", 1, r#"{"email":"ada@example.org"}"#);
    let corpus = || GoldenCorpus::open(folder.path(), misspelt()).unwrap();
    let case = || corpus().case("registered", &aggregate("Customer", "1"), registered());
    for result in [case().check(), case().record(), case().accept()] {
        let report = result.unwrap_err().to_string();
        assert!(
            report.contains("- registered: its version protects something, but nothing of it is sealed"),
            "{report}"
        );
        assert!(!report.contains("EVENTSEAL_GOLDEN"), "{report}");
    }
    assert!(files(folder.path()).iter().all(|(name, _)| name == "test-keys.json"), "it is not recorded");
    corpus().case_without_protected("registered", &aggregate("Customer", "1"), registered()).record().unwrap();
    assert_eq!(differences(case().check())[0].mismatch, Mismatch::NothingSealed, "recorded or not");
}

/// This crate's own corpus: what format version 1 sealed opens for ever. No change may edit it.
#[test]
fn what_was_sealed_once_opens_for_ever() {
    let guest = || subject("Guest", "/guests/*/id");
    let schemas = Schemas::builder([
        event("OrderPlaced")
            .version(1)
            .protect(&["/email", "/paid/amount"], subject("Customer", "/customer_id"))
            .protect(&["/guests/*/name"], guest())
            .version(2)
            .protect(&["/contact/email", "/paid/amount"], subject("Customer", "/customer_id"))
            .protect(&["/guests/*/name"], guest())
            .redact_as("/contact/email", "erased@invalid")
            .upcast_with(1, right_step),
        event("Registered").version(1).protect(&["/name", "/mail"], Owner::Aggregate).split(
            1,
            &[("Named", 1), ("Subscribed", 1)],
            |mut old, _| {
                let named = SplitPart::new("Named", 1, json!({ "name": old["name"].take() }));
                Ok::<_, Infallible>(vec![named, SplitPart::new("Subscribed", 1, json!({ "mail": old["mail"].take() }))])
            },
        ),
        event("Named").version(1).protect(&["/name"], Owner::Aggregate),
        event("Subscribed").version(1).protect(&["/mail"], Owner::Aggregate),
        event("Scanned").version(1).protect_whole(Owner::Aggregate),
        event("Pinged").version(1).drop_from(1),
        event("Noted").version(1),
    ])
    .accept_plaintext("Registered")
    .build()
    .unwrap();
    let customer = aggregate("Customer", "cust_42");
    let registered = r#"{"name":"Ada Lovelace","mail":"ada@example.org"}"#;
    let plain = PersistedEvent::from_new(
        customer.clone(),
        AggregateVersion::FIRST,
        GlobalPosition::START,
        NewEvent::raw("Registered", 1, registered),
    );
    let paid = r#"{ "customer_id":"cust_42","email":"ada@example.org","paid":{"amount":9900.50,"currency":"EUR"},
        "guests":[{"id":"g1","name":"Grace Hopper"},{"id":2,"name":null}] }"#;
    let checked = GoldenCorpus::open("it/guards/format-v1", schemas)
        .unwrap()
        .case("order_placed_v1", &order(), NewEvent::raw("OrderPlaced", 1, paid).with_metadata(r#"{"source":"web"}"#))
        .case(
            "order_placed_v2",
            &order(),
            NewEvent::raw("OrderPlaced", 2, r#"{"customer_id":"c","contact":{"email":"ada@example.org"}}"#),
        )
        .case("registered_v1", &customer, NewEvent::raw("Registered", 1, registered))
        .stored_case("registered_v1_plaintext", plain)
        .case("scanned_bytes", &customer, NewEvent::raw("Scanned", 1, *b"\xff\x00 passport of Ada"))
        .case("scanned_text", &customer, NewEvent::raw("Scanned", 1, "[ \"Ada Lovelace\", 1e400 ]"))
        .case("pinged", &customer, NewEvent::raw("Pinged", 1, "{}"))
        .case("noted", &customer, NewEvent::raw("Noted", 1, r#"{"wide":18446744073709551616,"text":"as it is"}"#))
        .check()
        .unwrap();
    assert_eq!(checked.cases, 8);
}

/// One build records, another checks: serde_json may keep numbers as they are spelled in one of them only.
#[test]
fn a_corpus_is_the_same_whichever_way_serde_json_spells_numbers() {
    let schemas = |step: fn(f64) -> Value| {
        let paid = event("Paid").version(1).protect(&["/amount"], Owner::Aggregate).version(2).protect_same_as(1);
        let step = move |mut old: Value| {
            if let Some(list) = old["list"].as_array_mut() {
                list.iter_mut().for_each(|one| *one = step(one.as_f64().unwrap()));
            }
            Ok::<_, Infallible>(old)
        };
        Schemas::new([paid.upcast(1, step)]).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let case = |schemas| {
        let new = NewEvent::raw(
            "Paid",
            1,
            r#"{"amount":9900.50,"rate":1e2,"list":[1.50,2.5e0],"wide":0.10000000000000000000000001}"#,
        );
        GoldenCorpus::open(folder.path(), schemas).unwrap().case("paid", &order(), new.with_metadata(r#"{"at":1.50}"#))
    };
    case(schemas(Value::from)).record().unwrap();
    let path = folder.path().join("paid.json");
    let recorded = std::fs::read_to_string(&path).unwrap();
    let expected = &recorded[recorded.find("\"expected\"").unwrap()..];
    for spelled in ["9900.5", "100.0", "1.5", "2.5", "0.1"] {
        assert!(expected.contains(&format!(" {spelled}")), "{spelled}: {expected}");
    }
    // As it was recorded by a build that keeps spellings, before there was one spelling for all.
    let kept = expected.replace("9900.5", "9900.50").replace("100.0", "1e+2").replace("1.5", "1.50");
    assert_ne!(kept, expected);
    std::fs::write(&path, recorded.replace(expected, &kept)).unwrap();
    case(schemas(Value::from)).check().unwrap();
    let found = differences(case(schemas(|one| Value::from(one + 0.25))).check());
    assert!(
        found.iter().any(|found| matches!(found.mismatch, Mismatch::Differs { .. })),
        "another value is another: {found:?}"
    );
}

#[test]
fn what_was_stored_without_a_version_is_read_as_the_one_it_stands_for() {
    let schemas = || {
        let named = event("Named")
            .version(1)
            .protect(&["/name"], Owner::Aggregate)
            .version(2)
            .protect_same_as(1)
            .legacy_version(1);
        let step =
            |old: Value, _: &StepContext<'_>| if old["name"].is_null() { Err("a name, please") } else { Ok(old) };
        Schemas::builder([named.upcast_with(1, step)]).accept_plaintext("Named").build().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let stored = NewEvent::raw("Named", 0, r#"{"name":"Ada Lovelace"}"#);
    let stored =
        PersistedEvent::from_new(aggregate("Customer", "7"), AggregateVersion::FIRST, GlobalPosition::START, stored);
    let found = differences(GoldenCorpus::open(folder.path(), schemas()).unwrap().stored_case("v0", stored).record());
    assert!(found.len() == 1 && found[0].run == Run::Redacted, "{found:?}");
    assert!(matches!(&found[0].mismatch, Mismatch::Unreadable(error) if error.contains("a name, please")), "{found:?}");
}
