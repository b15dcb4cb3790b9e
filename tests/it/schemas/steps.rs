//! Steps: what closures and typed steps see of what is redacted.

use super::{PlacedV1, V1, v1_schemas};
use eventseal::schema::EventSchema;
use eventseal::{NewEvent, Schemas, Sensitive, event, subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::customer;
use support::world::{World, json_of, pointers};

#[derive(Serialize, Deserialize)]
struct PlacedV2 {
    customer: String,
    contact: Contact,
}

#[derive(Serialize, Deserialize)]
struct Contact {
    names: Vec<Sensitive<String>>,
    email: Sensitive<String>,
    phone: Sensitive<Option<String>>,
}

#[tokio::test]
async fn i7_typed_steps_carry_redactions_with_sensitive_fields() {
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world.append(&writer, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    let schemas = Schemas::new([event("Placed")
        .version(1)
        .protect(&["/name", "/email"], customer())
        .version(2)
        .protect(&["/contact/names/*", "/contact/email", "/contact/phone"], customer())
        .redact_as("/contact/email", "erased@invalid")
        .upcast(1, |old: PlacedV1| {
            let contact = Contact { names: vec![old.name], email: old.email, phone: Sensitive::Present(None) };
            Ok::<_, Infallible>(PlacedV2 { customer: old.customer, contact })
        })])
    .unwrap();
    let store = world.store(schemas).await;
    let live = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(
        json_of(&live),
        json!({"customer":"42","contact":{"names":["Ada Lovelace"],"email":"ada@x","phone":null}})
    );
    assert_eq!((live.stored_version.get(), live.event_version.get(), live.is_redacted()), (1, 2, false));
    assert!(
        matches!(live.decode::<PlacedV2>().unwrap().contact.phone, Sensitive::Present(None)),
        "null is a value where nothing was shredded"
    );
    world.shred(&store, "42").await;
    let erased = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(
        json_of(&erased),
        json!({"customer":"42","contact":{"names":[null],"email":"erased@invalid","phone":null}})
    );
    assert_eq!(pointers(&erased), ["/contact/email", "/contact/names/0"]);
    let placed: PlacedV2 = erased.decode().unwrap();
    assert!(placed.contact.names[0].is_redacted() && placed.contact.email.is_redacted());
    assert_eq!(placed.contact.phone, Sensitive::Present(None), "the step says that the phone was never known");
}

#[tokio::test]
async fn i7_closures_see_plaintext_or_redactions_and_never_ciphertext() {
    let world = World::new();
    let writer = world.store(v1_schemas()).await;
    world.append(&writer, "1", &[NewEvent::raw("Placed", 1, V1)]).await;
    let schemas = Schemas::new([event("Placed")
        .version(1)
        .protect(&["/name", "/email"], customer())
        .redact_as("/name", "[erased]")
        .version(2)
        .protect(&["/full_name", "/contact/email"], customer())
        .redact_as("/full_name", "[gone]")
        .version(3)
        .protect(&["/full_name", "/mail"], customer())
        .upcast_with(1, |mut old: Value, step| {
            assert!(old.get("$seal").is_none());
            let (name, email) = (old["name"].take(), old["email"].take());
            if step.redacted.is_empty() {
                assert_eq!((name.as_str(), email.as_str()), (Some("Ada Lovelace"), Some("ada@x")));
            } else {
                assert_eq!((name.as_str(), &email), (Some("[erased]"), &Value::Null));
                assert!(step.is_redacted("/name") && step.is_redacted("/email/local") && !step.is_redacted("/names"));
            }
            let name = if step.is_redacted("/name") { Value::Null } else { name };
            Ok::<_, Infallible>(json!({"customer": old["customer"], "full_name": name, "contact": {"email": email}}))
        })
        .upcast(2, |old: Value| {
            Ok::<_, Infallible>(
                json!({"customer": old["customer"], "full_name": old["full_name"], "mail": old["contact"]["email"]}),
            )
        })])
    .unwrap();
    let store = world.store(schemas).await;
    assert_eq!(
        json_of(&world.read(&store, "1").await.unwrap()[0]),
        json!({"customer":"42","full_name":"Ada Lovelace","mail":"ada@x"})
    );
    world.shred(&store, "42").await;
    let erased = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(pointers(&erased), ["/full_name", "/mail"], "redaction follows through two closures");
    assert_eq!(json_of(&erased)["mail"], Value::Null);
}

#[tokio::test]
async fn i7_only_places_of_shredded_owners_count_as_redacted() {
    let world = World::new();
    let schemas = |upcasting: bool| {
        let v1 = event("Met").version(1).protect(&["/people/*/name"], subject("Customer", "/people/*/id"));
        let v2 = |event: EventSchema| {
            event.version(2).protect(&["/guests/*/called"], subject("Customer", "/guests/*/id")).upcast(
                1,
                |old: Value| {
                    let guests: Vec<Value> = old["people"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|one| json!({"id": one["id"], "called": one["name"]}))
                        .collect();
                    Ok::<_, Infallible>(json!({ "guests": guests }))
                },
            )
        };
        Schemas::new([if upcasting { v2(v1) } else { v1 }]).unwrap()
    };
    let writer = world.store(schemas(false)).await;
    let people = r#"{"people":[{"id":1,"name":"A"},{"id":"2","name":null},{"id":3,"name":"C"}]}"#;
    world.append(&writer, "1", &[NewEvent::raw("Met", 1, people)]).await;
    let store = world.store(schemas(true)).await;
    world.shred(&store, "3").await;
    let event = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(
        json_of(&event),
        json!({"guests":[{"id":1,"called":"A"},{"id":"2","called":null},{"id":3,"called":null}]})
    );
    assert_eq!(pointers(&event), ["/guests/2/called"], "a null of a live owner is a value");
}
