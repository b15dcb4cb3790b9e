//! Owners that a named function finds in what is stored in the clear.

use super::{live, refusal};
use eventseal::error::EventFault;
use eventseal::maintenance::BackfillOptions;
use eventseal::schema::{InTheClear, LockFile, SchemaProblem};
use eventseal::{NewEvent, Normalize, Owner, Schemas, Scope, event};
use eventseal_testing::TaintCheck;
use serde_json::{Value, json};
use std::convert::Infallible;
use support::backend::Backend;
use support::on_every_database;
use support::world::{World, pointers};

on_every_database! {
    i5_a_function_names_the_owner_at_any_time,
    i2_what_a_function_does_not_name_is_not_appended,
}

struct Customer;
impl Scope for Customer {
    const KIND: &'static str = "Customer";
    fn normalize() -> Option<Normalize> {
        Some(Normalize::LowerCase)
    }
}

/// The buyer's id, behind the aggregate's id and the metadata's tenant.
fn buyer(event: &InTheClear<'_>) -> Option<String> {
    let payload = event.payload().to_string();
    assert!(!payload.contains("Ada"), "I2: nothing that is protected is seen");
    let parties = event.payload()["parties"].as_array()?;
    let buyer = parties.iter().find(|party| party["role"] == "buyer")?["id"].as_str()?;
    let tenant = event.metadata().and_then(|metadata| metadata["tenant"].as_str()).unwrap_or("none");
    Some(format!("{}/{tenant}/{buyer}", event.aggregate().aggregate_id()))
}

fn schemas() -> Schemas {
    Schemas::builder([
        event("Signed").version(1).protect(&["/parties/*/name", "/note"], Customer::by("buyer-v1", buyer)),
        event("Whole").version(1).protect_whole(
            Owner::by("Customer", "tenant", |event| {
                assert!(event.payload().is_null());
                Some(event.metadata()?["tenant"].as_str()?.to_owned())
            })
            .normalize(Normalize::LowerCase),
        ),
        event("Odd").version(1).protect(
            &["/name"],
            Customer::by("odd", |event| match event.payload()["do"].as_str()? {
                "panic" => panic!("on purpose"),
                "long" => Some("x".repeat(1_025)),
                other => Some(other.to_owned()),
            }),
        ),
    ])
    .accept_plaintext("Signed")
    .build()
    .unwrap()
}

fn signed() -> NewEvent {
    let payload = r#"{"parties":[{"role":"seller","id":"S1","name":"Ada S"},{"role":"buyer","id":"B1","name":"Ada B"}],
        "note":["Ada"],"n":1.50}"#;
    NewEvent::raw("Signed", 1, payload).with_metadata(r#"{"tenant":"T"}"#)
}

async fn i5_a_function_names_the_owner_at_any_time<B: Backend>() {
    let db = B::make().await;
    db.append_bare("1", &[signed()]).await;
    let store = db.prepared(schemas()).await;
    assert_eq!(db.backfill(&store, &BackfillOptions::default()).await.unwrap().sealed, 1);
    db.append(&store, "1", &[signed(), NewEvent::raw("Whole", 1, "no JSON").with_metadata(r#"{"tenant":"w"}"#)]).await;
    let mut scopes = live(&db, &store).await;
    scopes.sort();
    assert_eq!(scopes, ["Customer 1/t/b1", "Customer w"], "the backfill and the append come to one owner");
    let read = db.read(&store, "1").await.unwrap();
    assert!(read[..2].iter().all(|event| event.payload == signed().payload()), "I1");
    db.shred(&store, "1/t/b1").await;
    let read = db.read(&store, "1").await.unwrap();
    for event in &read[..2] {
        assert_eq!(pointers(event), ["/parties/0/name", "/parties/1/name", "/note"]);
    }
}

async fn i2_what_a_function_does_not_name_is_not_appended<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for (name, payload, problem) in [
        ("Signed", r#"{"note":"Ada"}"#, "names nobody"),
        ("Odd", r#"{"name":"Ada"}"#, "names nobody"),
        ("Odd", r#"{"name":"Ada","do":"panic"}"#, "panicked"),
        ("Odd", r#"{"name":"Ada","do":"long"}"#, "longer"),
        ("Odd", r#"{"name":"Ada","do":""}"#, "empty"),
        ("Odd", r#"{"name":"Ada","do":"a","n":1e400}"#, "serde_json"),
    ] {
        let (fault, said) = refusal(db.try_append(&store, "1", &[NewEvent::raw(name, 1, payload)]).await);
        assert!(matches!(fault, EventFault::NotNamed { .. }), "{payload}: {fault:?}");
        assert!(said.contains(problem) && !said.contains("Ada"), "I9: {said}");
    }
    assert_eq!((db.stored().await, live(&db, &store).await), (vec![], Vec::<String>::new()), "nothing was written");
    // A null that nobody owns has nothing to protect.
    db.append(&store, "1", &[NewEvent::raw("Odd", 1, r#"{"name":null}"#)]).await;
}

#[tokio::test]
async fn i7_redactions_after_a_step_over_values_follow_the_function() {
    let by = || Owner::by("Customer", "id", |event| Some(event.payload()["id"].as_str()?.to_owned()));
    let old = || event("Met").version(1).protect(&["/name"], by());
    let new = old()
        .version(2)
        .protect(&["/called"], by())
        .upcast(1, |old: Value| Ok::<_, Infallible>(json!({ "id": old["id"], "called": old["name"] })));
    TaintCheck::new(&Schemas::new([new]).unwrap())
        .sample("Met", 1, json!({ "id": "7", "name": "Ada L" }))
        .check()
        .unwrap();
    let new = old()
        .version(2)
        .protect(&["/called"], by())
        .upcast(1, |old: Value| Ok::<_, Infallible>(json!({ "id": old["id"], "called": old["name"] })));
    let events = World::after(old(), r#"{"id":"7","name":"Ada"}"#, &[("Customer", "7")], vec![new]).await;
    assert_eq!(pointers(&events[0]), ["/called"]);
}

#[test]
fn the_lock_holds_the_name_of_the_function() {
    let schemas = schemas();
    let lock = LockFile::of(&schemas);
    assert_eq!(lock.types["Signed"].versions[&1].protected["/note"], "Customer by function buyer-v1");
    assert_eq!(Customer::by("a", |_| None), Customer::by("a", buyer), "functions are equal by name");
    let nameless = Schemas::new([event("Met").version(1).protect(&["/a"], Customer::by("", |_| None))]);
    let problems = nameless.unwrap_err().errors;
    assert!(matches!(problems[0].problem, SchemaProblem::FunctionName(_)), "{problems:?}");
}
