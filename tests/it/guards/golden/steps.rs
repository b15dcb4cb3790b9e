//! Steps that are wrong are caught.

use super::{corpus, differences, files, order, order_schemas, recorded, right_step};
use eventseal::error::BoxError;
use eventseal::schema::StepContext;
use eventseal::{Event, Events, KeyScope, NewEvent, Owner, Result, Schemas, Sensitive, aggregate, event};
use eventseal_testing::{Checked, GoldenCorpus, GuardError, Mismatch, Run};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_renamed_field_is_caught_and_accepted_only_on_purpose() {
    let folder = recorded();
    let renamed = || {
        order_schemas(|order, context| {
            let mut order = right_step(order, context)?;
            order["sum"] = order["total"].take();
            order.as_object_mut().unwrap().remove("total");
            Ok::<_, Infallible>(order)
        })
    };
    let before = files(folder.path());
    for result in [corpus(folder.path(), renamed()).check(), corpus(folder.path(), renamed()).record()] {
        let error = result.unwrap_err();
        let report = format!("{error:?}");
        assert!(report.contains("- placed_v1: /0/payload/total was 990, is absent"), "{report}");
        assert!(report.contains("- placed_v1, redacted: /0/payload/sum was absent, is 990"), "{report}");
        assert!(report.contains("EVENTSEAL_GOLDEN=accept"), "{report}");
        assert_eq!(before, files(folder.path()), "nothing is overwritten");
    }
    assert_eq!(corpus(folder.path(), renamed()).accept().unwrap().written, ["placed_v1"]);
    corpus(folder.path(), renamed()).check().unwrap();
    let after = files(folder.path());
    let stored = |files: &[(String, String)]| serde_json::from_str::<Value>(&files[0].1).unwrap()["stored"].clone();
    assert_eq!(stored(&before), stored(&after), "the event itself stays");
}

#[test]
fn a_changed_type_is_caught() {
    let folder = recorded();
    let as_text = order_schemas(|order, context| {
        let mut order = right_step(order, context)?;
        order["total"] = order["total"].to_string().into();
        Ok::<_, Infallible>(order)
    });
    let found = differences(corpus(folder.path(), as_text).check());
    let expected = Mismatch::Differs {
        pointer: "/0/payload/total".into(),
        expected: Some(json!(990)),
        actual: Some(json!("990")),
    };
    assert!(found.iter().any(|difference| difference.run == Run::Live && difference.mismatch == expected), "{found:?}");
}

#[test]
fn a_step_that_fails_on_redaction_is_caught() {
    let folder = recorded();
    let fails = order_schemas(|order, context| {
        let lowercase = order["email"].as_str().ok_or("the e-mail address is no text")?.to_lowercase();
        let mut order = order;
        order["email"] = lowercase.into();
        Ok::<_, BoxError>(right_step(order, context)?)
    });
    let found = differences(corpus(folder.path(), fails).check());
    assert!(!found.is_empty() && found.iter().all(|difference| difference.run == Run::Redacted), "{found:?}");
    assert!(
        matches!(&found[0].mismatch, Mismatch::Unreadable(error) if error.contains("the e-mail address is no text")),
        "{found:?}"
    );
}

#[test]
fn a_step_that_fails_on_a_half_redacted_event_is_caught() {
    let folder = recorded();
    let fails = order_schemas(|order, context| {
        let names =
            order["guests"].as_array().map(|guests| guests.iter().filter(|guest| guest["name"].is_null()).count());
        if names == Some(1) {
            return Err(BoxError::from("all guests have names, or none"));
        }
        Ok(right_step(order, context)?)
    });
    let found = differences(corpus(folder.path(), fails).check());
    let runs: Vec<_> = found.iter().map(|difference| difference.run.clone()).collect();
    assert_eq!(runs, [Run::RedactedFor(KeyScope::new("Guest", "g1")), Run::RedactedFor(KeyScope::new("Guest", "g2"))]);
}

#[test]
fn steps_that_are_not_deterministic_are_caught() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let folder = recorded();
    type Step = fn(Value, &StepContext<'_>) -> Result<Value, Infallible>;
    let steps: [Step; 3] = [
        |order, context| {
            let mut order = right_step(order, context)?;
            order["migrated_at"] = time::OffsetDateTime::now_utc().unix_timestamp_nanos().to_string().into();
            Ok(order)
        },
        |order, context| {
            let mut order = right_step(order, context)?;
            order["reference"] = uuid::Uuid::now_v7().to_string().into();
            Ok(order)
        },
        |order, context| {
            let mut order = right_step(order, context)?;
            order["number"] = CALLS.fetch_add(1, Ordering::Relaxed).into();
            Ok(order)
        },
    ];
    for (step, place) in steps.into_iter().zip(["migrated_at", "reference", "number"]) {
        for result in
            [corpus(folder.path(), order_schemas(step)).check(), corpus(folder.path(), order_schemas(step)).accept()]
        {
            let found = differences(result);
            let place = format!("/0/payload/{place}");
            assert!(
                found.iter().all(|difference| match &difference.mismatch {
                    Mismatch::NotDeterministic { pointer, .. } => *pointer == place,
                    _ => false,
                }),
                "{found:?}"
            );
            for run in [Run::Live, Run::Redacted, Run::RedactedFor(KeyScope::new("Guest", "g1"))] {
                assert!(found.iter().any(|difference| difference.run == run), "{run:?}: {found:?}");
            }
        }
    }
}

#[test]
fn a_step_that_remembers_what_was_shredded_is_caught() {
    static LAST: std::sync::Mutex<Option<Value>> = std::sync::Mutex::new(None);
    let folder = recorded();
    let remembers = order_schemas(|order, context| {
        let mut last = LAST.lock().unwrap();
        if order["email"].is_string() {
            *last = Some(order["email"].clone());
        }
        let mut order = right_step(order, context)?;
        order["search"] = format!("mail: {}", last.as_ref().unwrap()).into();
        Ok::<_, Infallible>(order)
    });
    let found = differences(corpus(folder.path(), remembers).check());
    let survives = Mismatch::Survives { pointer: "/0/payload/search".into(), protected: "/email".into() };
    assert!(
        found.iter().any(|difference| difference.run == Run::Redacted && difference.mismatch == survives),
        "{found:?}"
    );
}

/// A step that spells what was shredded otherwise has kept it.
#[test]
fn a_shredded_number_in_another_spelling_is_caught() {
    static KEPT: AtomicU64 = AtomicU64::new(0);
    let step = |mut old: Value| {
        if let Some(amount) = old["amount"].as_f64() {
            KEPT.store(amount.to_bits(), Ordering::SeqCst);
        }
        old["note"] = f64::from_bits(KEPT.load(Ordering::SeqCst)).into();
        Ok::<_, Infallible>(old)
    };
    let paid =
        event("Paid").version(1).protect(&["/amount"], Owner::Aggregate).version(2).protect_same_as(1).upcast(1, step);
    let folder = tempfile::tempdir().unwrap();
    let new = NewEvent::raw("Paid", 1, r#"{"amount":9900.50}"#);
    let found = differences(
        GoldenCorpus::open(folder.path(), Schemas::new([paid]).unwrap()).unwrap().case("paid", &order(), new).record(),
    );
    assert!(
        found
            .iter()
            .any(|found| matches!(&found.mismatch, Mismatch::Survives { pointer, .. } if pointer == "/0/payload/note")),
        "{found:?}"
    );
}

#[test]
fn a_type_that_can_not_be_decoded_once_redacted_is_caught() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Registered<T> {
        name: T,
    }
    impl Event for Registered<String> {
        const TYPE: &'static str = "Registered";
        const VERSION: u32 = 1;
    }
    impl Event for Registered<Sensitive<String>> {
        const TYPE: &'static str = "Registered";
        const VERSION: u32 = 1;
    }
    fn checked<T: Events>() -> Result<Checked, GuardError> {
        let registered = event("Registered").version(1).protect(&["/name"], Owner::Aggregate);
        let schemas = Schemas::builder([registered]).decodes::<T>().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let event = NewEvent::raw("Registered", 1, r#"{"name":"Ada Lovelace"}"#);
        GoldenCorpus::open(folder.path(), schemas)
            .unwrap()
            .case("registered", &aggregate("Customer", "7"), event)
            .record()
    }
    checked::<Registered<Sensitive<String>>>().unwrap();
    let found = differences(checked::<Registered<String>>());
    assert!(found.len() == 1 && found[0].run == Run::Redacted, "{found:?}");
    assert!(
        matches!(&found[0].mismatch, Mismatch::Unreadable(error) if error.contains("does not decode into")),
        "{found:?}"
    );
}
