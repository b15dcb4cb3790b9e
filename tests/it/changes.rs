//! Declarative steps: their effect on payloads, and on protection and redactions.

mod building;
mod redactions;

use eventseal::error::EventFault;
use eventseal::memory::MemoryStore;
use eventseal::schema::EventSchema;
use eventseal::{Changes, Error, NewEvent, Owner, Result, Schemas, event, subject};
use serde_json::{Value, json};
use support::customer;
use support::world::{World, json_of, pointers};

/// A payload of an unprotected type, after these changes.
async fn changed(payload: &str, changes: Changes) -> Result<String> {
    let world = World::new();
    world.append(&MemoryStore::new(), "1", &[NewEvent::raw("E", 1, payload)]).await;
    let schemas = Schemas::new([event("E").version(1).version(2).change(1, changes)]).unwrap();
    let mut events = world.read(&world.store(schemas).await, "1").await?;
    assert_eq!((events.len(), events[0].event_version.get(), events[0].stored_version.get()), (1, 2, 1));
    Ok(String::from_utf8(events.remove(0).payload).unwrap())
}

fn moved(from: &str, to: &str) -> Changes {
    Changes::new().move_value(from, to)
}

#[tokio::test]
async fn every_change_does_what_it_says() {
    let new = Changes::new;
    for (payload, changes, expected) in [
        (r#"{"a":1,"b":2}"#, moved("/a", "/c"), r#"{"b":2,"c":1}"#),
        (r#"{"a":1}"#, moved("/a", "/x/y/z"), r#"{"x":{"y":{"z":1}}}"#),
        (r#"{"a":1,"x":null}"#, moved("/a", "/x/y"), r#"{"x":{"y":1}}"#),
        (r#"{"a":1,"x":null}"#, moved("/a", "/x"), r#"{"x":1}"#),
        (r#"{"b":2}"#, moved("/a", "/c"), r#"{"b":2}"#),
        (r#"{"a":null}"#, moved("/a", "/c"), r#"{"c":null}"#),
        (r#"{"l":[{"a":1},{},{"a":{"d":[3]}}]}"#, moved("/l/*/a", "/l/*/b"), r#"{"l":[{"b":1},{},{"b":{"d":[3]}}]}"#),
        (
            r#"{"l":[{"m":[{"a":1},{"a":2}]},{"m":[]}]}"#,
            moved("/l/*/m/*/a", "/l/*/m/*/b/c"),
            r#"{"l":[{"m":[{"b":{"c":1}},{"b":{"c":2}}]},{"m":[]}]}"#,
        ),
        (r#"{"l":{"a":1}}"#, moved("/l/*/a", "/l/*/b"), r#"{"l":{"a":1}}"#),
        (r#"{"a":{"b":1}}"#, new().copy_value("/a/b", "/c"), r#"{"a":{"b":1},"c":1}"#),
        (r#"{"a":1,"l":[{},{"x":2}]}"#, new().copy_value("/a", "/l/*/a"), r#"{"a":1,"l":[{"a":1},{"x":2,"a":1}]}"#),
        (
            r#"{"o":[{"id":1,"l":[{},{}]},{"id":2,"l":[{}]}]}"#,
            new().copy_value("/o/*/id", "/o/*/l/*/order"),
            r#"{"o":[{"id":1,"l":[{"order":1},{"order":1}]},{"id":2,"l":[{"order":2}]}]}"#,
        ),
        (r#"{"a":1}"#, new().set_default("/b", "EUR"), r#"{"a":1,"b":"EUR"}"#),
        (r#"{"b":null}"#, new().set_default("/b", "EUR"), r#"{"b":null}"#),
        (r#"{"b":false}"#, new().set_default("/b", true), r#"{"b":false}"#),
        (r#"{}"#, new().set_default("/a/b", json!({"c": [1]})), r#"{"a":{"b":{"c":[1]}}}"#),
        (r#"{"a":null}"#, new().set_default("/a/b", 1), r#"{"a":null}"#),
        (r#"{"l":[{},{"b":2}]}"#, new().set_default("/l/*/b", 1), r#"{"l":[{"b":1},{"b":2}]}"#),
        (r#"{"a":1,"b":2,"a":3}"#, new().remove("/a"), r#"{"b":2}"#),
        (r#"{"l":[{"a":1},{"a":2,"b":3}]}"#, new().remove("/l/*/a"), r#"{"l":[{},{"b":3}]}"#),
        (r#"{"a":{"b":1}}"#, new().remove("/a/b/c").remove("/x/y"), r#"{"a":{"b":1}}"#),
        (r#"{"total":12.5}"#, new().map_value("/total", |euros: f64| (euros * 100.0) as u64), r#"{"total":1250}"#),
        (r#"{"a":null}"#, new().map_value("/a", |old: Option<u8>| old.unwrap_or(7)), r#"{"a":7}"#),
        (r#"{"l":["a","b"]}"#, new().map_value("/l/*", |old: String| old.to_uppercase()), r#"{"l":["A","B"]}"#),
        (r#"{"a":{"b":1}}"#, new().map_value("/a", |old: Value| json!([old])), r#"{"a":[{"b":1}]}"#),
        (r#"{"a":1}"#, new(), r#"{"a":1}"#),
        // Changes are made one after the other.
        (r#"{"a":1,"b":2}"#, moved("/a", "/t").move_value("/b", "/a").move_value("/t", "/b"), r#"{"a":2,"b":1}"#),
        (
            r#"{"a":1}"#,
            moved("/a", "/b").copy_value("/b", "/c").map_value("/c", |n: u8| n + 1).remove("/b"),
            r#"{"c":2}"#,
        ),
        // Names that have to be escaped.
        (r#"{"a/b":1}"#, moved("/a~1b", "/~2/~0\""), r#"{"*":{"~\"":1}}"#),
    ] {
        let what = format!("{payload} {changes:?}");
        assert_eq!(changed(payload, changes).await.unwrap(), expected, "{what}");
    }
}

#[tokio::test]
async fn what_no_change_names_keeps_its_spelling() {
    let odd = concat!(
        r#"{"z":1e400,"a":1.0,"n":12345678901234567890.12345678901234567890,"s":"\ud800 \u0041","#,
        r#""o":{ "k" : [ 1 ,2 ] },"a":2}"#
    );
    let expected = odd.replace(r#""s":"\ud800 \u0041","#, "").replace(r#""a":2}"#, r#""a":2,"t":"\ud800 \u0041"}"#);
    assert_eq!(changed(odd, moved("/s", "/t")).await.unwrap(), expected);
    let renamed = Changes::new();
    assert_eq!(
        changed(&format!(" {odd}\n"), renamed).await.unwrap(),
        format!(" {odd}\n"),
        "nothing to do is nothing done"
    );
}

#[tokio::test]
async fn a_change_that_can_not_be_made_names_the_place_and_no_value() {
    let long =
        |place: &str| format!("event {{id}}: the step from E version 1 (declarative, to E version 2) failed: {place}");
    for (payload, changes, problem) in [
        (
            r#"{"a":"SECRET","b":"SECRET"}"#,
            moved("/a", "/b"),
            "there is a value at /b already, which /a would overwrite: remove it first",
        ),
        (r#"{"a":"SECRET","b":"SECRET"}"#, moved("/a", "/b/c"), "/b is neither an object nor an array"),
        (r#"{"a":"SECRET","b":[]}"#, moved("/a", "/b/0"), "/b/0 is not an element of its array"),
        (
            r#"{"a":["SECRET"]}"#,
            Changes::new().remove("/a/0"),
            "/a/0 is an element of an array, which can't be taken out",
        ),
        (
            r#"{"a":"SECRET"}"#,
            Changes::new().map_value("/a", |n: u8| n),
            "/a: the value does not decode into u8: invalid type, expected u8",
        ),
        (
            r#"{"a":1}"#,
            Changes::new().try_map_value("/a", |_: u8| Err::<u8, _>("no such rate")),
            "/a: it returned an error",
        ),
        (r#"{"a":1}"#, Changes::new().map_value("/a", |_: u8| -> u8 { panic!("SECRET") }), "it panicked"),
        (r#"["SECRET"]"#, Changes::new(), "it did not return a JSON object"),
        (r#"{"a":"SECRET"#, moved("/a", "/b"), "the payload is not JSON"),
    ] {
        let error = changed(payload, changes).await.unwrap_err();
        let Error::Event { event_id, fault: EventFault::Upcast { .. } } = &error else { panic!("{error}") };
        assert_eq!(error.to_string(), long(problem).replace("{id}", &event_id.to_string()));
        assert!(!format!("{error:?}").contains("SECRET"));
    }
    let nothing = changed("\u{0}", Changes::new()).await.unwrap_err();
    assert!(nothing.to_string().contains("JSON object"), "{nothing}");
}

#[tokio::test]
async fn no_payload_makes_a_step_large_or_long() {
    let big = format!(r#"{{"a":"{}","l":[{}{{}}]}}"#, "x".repeat(1 << 20), "{},".repeat(99));
    for changes in
        [Changes::new().copy_value("/a", "/l/*/a"), Changes::new().set_default("/l/*/b", "x".repeat(1 << 20))]
    {
        let error = changed(&big, changes).await.unwrap_err().to_string();
        assert!(error.ends_with("failed: the payload would grow by more than 64 MiB"), "{error}");
    }
    // The payload has many members beside many elements. All elements are found in one pass through the document.
    let members: String = (0..100_000).map(|n| format!(r#""m{n}":{n},"#)).collect();
    let wide = format!(r#"{{{members}"a":1,"l":[{}{{"b":2}}]}}"#, r#"{"b":1},"#.repeat(99_999));
    let changes = Changes::new()
        .move_value("/l/*/b", "/l/*/c")
        .copy_value("/a", "/l/*/a")
        .set_default("/l/*/d", 4)
        .remove("/l/*/none");
    let wide = changed(&wide, changes.map_value("/l/*/c", |c: u8| c)).await.unwrap();
    assert!(wide.ends_with(r#",{"c":2,"a":1,"d":4}]}"#));
}

#[tokio::test]
async fn names_that_are_no_unicode_are_handed_on() {
    let odd = r#"{"\ud800":1,"a":{"\udfff":[2],"\u0062":3}}"#;
    assert_eq!(changed(odd, moved("/a/b", "/c")).await.unwrap(), r#"{"\ud800":1,"a":{"\udfff":[2]},"c":3}"#);
    let error = changed(odd, Changes::new().map_value("/a", |a: Value| a)).await.unwrap_err().to_string();
    assert!(error.ends_with("/a: the value is not JSON that serde_json can hold"), "{error}");
}

#[tokio::test]
async fn what_is_no_text_is_renamed_and_dropped() {
    let whole = |name: &str| event(name.to_owned()).version(1).protect_whole(Owner::Aggregate);
    let read = async |old: EventSchema, others: Vec<EventSchema>| {
        let world = World::new();
        let writer = world.store(Schemas::new([whole("Met")]).unwrap()).await;
        world.append(&writer, "1", &[NewEvent::raw("Met", 1, &b"\xff\xfe"[..])]).await;
        let schemas = Schemas::new(others.into_iter().chain([old])).unwrap();
        world.read(&world.store(schemas).await, "1").await
    };
    let renamed =
        read(whole("Met").change(1, Changes::new().rename_type("Seen", 1)), vec![whole("Seen")]).await.unwrap();
    assert_eq!((renamed[0].event_type.as_str(), &renamed[0].payload[..]), ("Seen", &b"\xff\xfe"[..]));
    assert!(read(whole("Met").drop_from(1), vec![]).await.unwrap().is_empty());
    for looked_into in [Changes::new().remove("/a"), Changes::new().map_value("/a", |a: Value| a)] {
        let error = read(whole("Met").version(2).protect_same_as(1).change(1, looked_into), vec![])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("failed: the payload is not JSON"), "{error}");
    }
    let typed =
        whole("Met").version(2).protect_same_as(1).upcast(1, |old: Value| Ok::<_, std::convert::Infallible>(old));
    assert!(matches!(read(typed, vec![]).await.unwrap_err(), Error::Event { fault: EventFault::Upcast { .. }, .. }));
}
