//! The sealed places of an event that was read, and whose they are.

use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{Changes, NewEvent, Owner, PersistedEvent, Schemas, Sensitive, event, subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::world::World;

fn guest() -> Owner {
    subject("Guest", "/guests/*/id")
}

fn met(pointers: &[&str], owner: Owner) -> EventSchema {
    event("Met").version(1).protect(pointers, owner)
}

/// Each place with the kind and id of its owner. Places that are redacted end with `!`.
fn places(event: &PersistedEvent) -> Vec<String> {
    let places = event.sealed_places();
    places
        .iter()
        .map(|sealed| format!("{} {}{}", sealed.place.as_str(), sealed.scope, if sealed.redacted { "!" } else { "" }))
        .collect()
}

async fn one(old: EventSchema, payload: &str, shredded: &[(&str, &str)], new: Vec<EventSchema>) -> Vec<String> {
    let events = World::after(old, payload, shredded, new).await;
    assert_eq!(events.len(), 1);
    places(&events[0])
}

const TWO: &str =
    r#"{"id":7,"name":"Ada","guests":[{"id":"a","name":"X"},{"id":"b","name":null},{"id":"c","name":"Y"}]}"#;

#[tokio::test]
async fn an_event_says_which_places_are_sealed_and_whose_they_are() {
    let old = || met(&["/guests/*/name"], guest()).protect(&["/name"], subject("Host", "/id"));
    let live = one(old(), TWO, &[], vec![old()]).await;
    assert_eq!(live, ["/guests/0/name Guest a", "/guests/1/name Guest b", "/guests/2/name Guest c", "/name Host 7"]);
    let erased = one(old(), TWO, &[("Guest", "c")], vec![old()]).await;
    assert_eq!(erased, ["/guests/0/name Guest a", "/guests/1/name Guest b", "/guests/2/name Guest c!", "/name Host 7"]);
    let whole = || event("Met").version(1).protect_whole(Owner::Aggregate);
    assert_eq!(one(whole(), TWO, &[], vec![whole()]).await, [" Order 1"]);
    assert_eq!(one(whole(), TWO, &[("Order", "1")], vec![whole()]).await, [" Order 1!"]);
    // Nothing is sealed.
    assert!(one(old(), r#"{"id":7}"#, &[], vec![old()]).await.is_empty());
    // What was appended is in the clear, and is the same event as the one that is read.
    let world = World::new();
    let store = world.store(Schemas::new([old()]).unwrap()).await;
    world.append(&store, "1", &[NewEvent::raw("Met", 1, TWO)]).await;
    let read = world.read(&store, "1").await.unwrap();
    let copy = read[0].clone();
    assert_eq!((places(&copy).len(), &copy), (4, &read[0]));
}

#[tokio::test]
async fn sealed_places_go_where_declarative_steps_put_the_values() {
    let old = || met(&["/guests/*/name"], guest()).protect(&["/name"], subject("Host", "/id"));
    let protected = &["/host", "/copy", "/people/*/name", "/people/*/host"];
    let new = || {
        old().version(2).protect(protected, subject("Host", "/id")).change(
            1,
            Changes::new()
                .move_value("/name", "/host")
                .copy_value("/host", "/copy")
                .move_value("/guests", "/people")
                .copy_value("/host", "/people/*/host")
                .set_default("/copy", "unused"),
        )
    };
    let expected = [
        "/copy Host 7",
        "/host Host 7",
        "/people/0/host Host 7",
        "/people/0/name Guest a",
        "/people/1/host Host 7",
        "/people/1/name Guest b",
        "/people/2/host Host 7",
        "/people/2/name Guest c",
    ];
    assert_eq!(one(old(), TWO, &[], vec![new()]).await, expected);
    // The same places are redacted after a shred, and are still the host's.
    let erased: Vec<String> =
        expected.iter().map(|place| format!("{place}{}", if place.contains("Host") { "!" } else { "" })).collect();
    assert_eq!(one(old(), TWO, &[("Host", "7")], vec![new()]).await, erased);

    // A part of a sealed value belongs to the same owner, live and erased.
    let old = || met(&["/name"], subject("Host", "/id"));
    let new = || {
        let moved = Changes::new().move_value("/name/last", "/last");
        old().version(2).protect(&["/name", "/last"], subject("Host", "/id")).change(1, moved)
    };
    let payload = r#"{"id":7,"name":{"first":"Ada","last":"Lovelace"}}"#;
    assert_eq!(one(old(), payload, &[], vec![new()]).await, ["/last Host 7", "/name Host 7"]);
    assert_eq!(one(old(), payload, &[("Host", "7")], vec![new()]).await, ["/last Host 7!", "/name Host 7!"]);
    let removed = || old().version(2).unprotected("no name").change(1, Changes::new().remove("/name"));
    assert!(one(old(), payload, &[], vec![removed()]).await.is_empty());
}

#[tokio::test]
async fn functions_keep_sealed_places_by_declaration_or_by_evidence() {
    let old = || met(&["/guests/*/name"], guest()).protect(&["/name"], subject("Host", "/id"));
    let step = |change: fn(&mut Value)| {
        move |mut value: Value| {
            change(&mut value);
            Ok::<_, Infallible>(value)
        }
    };
    let new = || old().version(2).protect(&["/host"], subject("Host", "/id")).protect(&["/guests/*/name"], guest());
    // The new version and the payload say whose it is, wherever it went.
    let moved = new().upcast(
        1,
        step(|value| {
            value["host"] = value["name"].take();
            value["guests"].as_array_mut().unwrap().reverse();
        }),
    );
    let expected = ["/guests/0/name Guest c", "/guests/2/name Guest a", "/host Host 7"];
    assert_eq!(one(old(), TWO, &[], vec![moved]).await, expected);
    // A redacted value that was moved is still its owner's.
    let moved = || new().upcast(1, step(|value| value["host"] = value["name"].take()));
    let erased = one(old(), TWO, &[("Host", "7"), ("Guest", "a")], vec![moved()]).await;
    assert_eq!(erased, ["/guests/0/name Guest a!", "/guests/2/name Guest c", "/host Host 7!"]);
    // The owner is no longer named: what has not moved is known by its place and value.
    let nameless = |change: fn(&mut Value)| {
        let new = old().version(2).protect(&["/name"], subject("Host", "/host_id"));
        vec![new.protect(&["/guests/*/name"], subject("Guest", "/guests/*/guest_id")).upcast(1, step(change))]
    };
    assert_eq!(one(old(), TWO, &[], nameless(|_| {})).await, ["/name Host 7"], "guests may have changed places");
    assert!(one(old(), TWO, &[], nameless(|value| value["name"] = "Bob".into())).await.is_empty());
    // A place that no version protects any more, but that the function left alone.
    let open = old().version(2).unprotected("for a test").upcast(1, step(|_| {}));
    assert_eq!(one(old(), TWO, &[], vec![open]).await, ["/name Host 7"]);
    // What stood in the clear before is not sealed, though the new version protects it.
    let wider = old().version(2).protect(&["/name", "/phone"], subject("Host", "/id")).upcast(1, step(|_| {}));
    let payload = r#"{"id":7,"name":"Ada","phone":"1"}"#;
    assert_eq!(one(old(), payload, &[], vec![wider]).await, ["/name Host 7"]);
}

#[tokio::test]
async fn typed_steps_keep_sealed_places() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        id: u32,
        name: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize)]
    struct New {
        id: u32,
        host: Sensitive<String>,
    }
    let old = || met(&["/name"], subject("Host", "/id"));
    let step = |old: Old| Ok::<_, Infallible>(New { id: old.id, host: old.name });
    let new = || old().version(2).protect(&["/host"], subject("Host", "/id")).upcast(1, step);
    let payload = r#"{"id":7,"name":"Ada"}"#;
    assert_eq!(one(old(), payload, &[], vec![new()]).await, ["/host Host 7"]);
    assert_eq!(one(old(), payload, &[("Host", "7")], vec![new()]).await, ["/host Host 7!"]);
}

#[tokio::test]
async fn parts_of_a_split_have_the_places_whose_owner_they_name() {
    let old = || met(&["/guests/*/name"], guest()).protect(&["/name"], subject("Host", "/id"));
    let schemas = vec![
        old().split(1, &[("Guest", 1), ("Hosted", 1)], |old: Value, _| {
            let guests = old["guests"].as_array().unwrap().iter();
            let mut parts: Vec<_> = guests.map(|guest| SplitPart::new("Guest", 1, guest.clone())).collect();
            parts.push(SplitPart::new("Hosted", 1, json!({"name": old["name"]})));
            Ok::<_, Infallible>(parts)
        }),
        event("Guest").version(1).protect(&["/name"], subject("Guest", "/id")),
        event("Hosted").version(1).protect(&["/name"], subject("Host", "/id")),
    ];
    let events = World::after(old(), TWO, &[("Guest", "c")], schemas).await;
    let found: Vec<_> = events.iter().map(places).collect();
    // The last part does not name its owner, and its place may have been another one before.
    assert_eq!(found, [vec!["/name Guest a"], vec![], vec!["/name Guest c!"], vec![]]);
}
