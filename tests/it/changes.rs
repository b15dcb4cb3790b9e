//! Declarative steps: what they do to a payload, and that protection and redactions go with it.

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
        // One after the other.
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
    let odd = r#"{"z":1e400,"a":1.0,"n":12345678901234567890.12345678901234567890,"s":"\ud800 \u0041","o":{ "k" : [ 1 ,2 ] },"a":2}"#;
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
    // Many members beside many elements: each element is found on one way through the document.
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

/// Appended under `old`, with these scopes shredded, read under `new`: the payload and what is redacted in it.
async fn after(
    old: EventSchema,
    payload: Value,
    shredded: &[(&str, &str)],
    new: Vec<EventSchema>,
) -> (Value, Vec<String>) {
    let events = World::after(old, &payload.to_string(), shredded, new).await;
    assert_eq!(events.len(), 1);
    let seen = json_of(&events[0]);
    for pointer in &events[0].redacted {
        assert!(seen.pointer(pointer.as_str()).is_some(), "{pointer} does not exist");
    }
    (seen, pointers(&events[0]).into_iter().map(str::to_owned).collect())
}

#[tokio::test]
async fn i7_redactions_go_where_values_go() {
    let v1 = || event("Met").version(1).protect(&["/email", "/lines/*/note", "/address"], customer());
    let payload = json!({"customer": "42", "email": "a@x", "lines": [{"note": "n0"}, {}, {"note": "n2"}], "address": {"street": "S"}});
    let v2 = |changes| {
        let protected = &[
            "/contact/email",
            "/contact/copy",
            "/items/*/text",
            "/items/*/note",
            "/address",
            "/email",
            "/lines/*/note",
            "/street",
        ];
        vec![v1().version(2).protect(protected, customer()).redact_as("/contact/email", "erased@x").change(1, changes)]
    };
    let all = [("Customer", "42")];
    let changes = || {
        moved("/email", "/contact/email").move_value("/lines", "/items").move_value("/items/*/note", "/items/*/text")
    };
    let (live, redacted) = after(v1(), payload.clone(), &[], v2(changes())).await;
    let expected = json!({"customer": "42", "contact": {"email": "a@x"}, "items": [{"text": "n0"}, {}, {"text": "n2"}], "address": {"street": "S"}});
    assert_eq!((live, redacted), (expected, vec![]));
    let (erased, redacted) = after(v1(), payload.clone(), &all, v2(changes())).await;
    let expected = json!({"customer": "42", "contact": {"email": "erased@x"}, "items": [{"text": null}, {}, {"text": null}], "address": null});
    assert_eq!(erased, expected, "with the stand-in of the new version");
    assert_eq!(redacted, ["/address", "/contact/email", "/items/0/text", "/items/2/text"]);

    // A copy is redacted at both places, what is removed is gone.
    let changes = || {
        moved("/email", "/contact/email")
            .copy_value("/contact/email", "/contact/copy")
            .remove("/address")
            .remove("/lines")
    };
    let (erased, redacted) = after(v1(), payload.clone(), &all, v2(changes())).await;
    assert_eq!(erased, json!({"customer": "42", "contact": {"email": "erased@x", "copy": null}}));
    assert_eq!(redacted, ["/contact/copy", "/contact/email"]);

    // A default never fills what was erased, neither it nor something in it, and no function is called for it.
    let changes = || {
        let refuse = |_: Value| -> Value { panic!("called for an erased value") };
        Changes::new()
            .set_default("/email", "x@x")
            .set_default("/address/country", "DE")
            .map_value("/email", refuse)
            .remove("/lines")
    };
    let (erased, redacted) = after(v1(), payload.clone(), &all, v2(changes())).await;
    assert_eq!(erased, json!({"customer": "42", "email": null, "address": null}));
    assert_eq!(redacted, ["/address", "/email"]);

    // What stood inside an erased value was erased with it.
    let changes = || moved("/address/street", "/street").remove("/lines").remove("/email");
    let (live, redacted) = after(v1(), payload.clone(), &[], v2(changes())).await;
    assert_eq!((live, redacted), (json!({"customer": "42", "address": {}, "street": "S"}), vec![]));
    let (erased, redacted) = after(v1(), payload, &all, v2(changes())).await;
    assert_eq!(erased, json!({"customer": "42", "address": null, "street": null}));
    assert_eq!(redacted, ["/address", "/street"]);
}

#[tokio::test]
async fn i7_a_stand_in_is_not_looked_into() {
    let gone = || json!({"street": "gone"});
    let v1 = || event("Met").version(1).protect(&["/address"], customer()).redact_as("/address", gone());
    let payload = json!({"customer": "42", "address": {"street": "S"}});
    let refuse = |_: Value| -> Value { panic!("called for a stand-in") };
    for (changes, expected) in [
        (Changes::new().set_default("/address/country", "DE"), json!({"customer": "42", "address": gone()})),
        (Changes::new().map_value("/address/street", refuse), json!({"customer": "42", "address": gone()})),
        (Changes::new().remove("/address/street"), json!({"customer": "42", "address": gone()})),
        (moved("/address/street", "/street"), json!({"customer": "42", "address": gone(), "street": null})),
        (
            Changes::new().copy_value("/address/street", "/street"),
            json!({"customer": "42", "address": gone(), "street": null}),
        ),
    ] {
        // Protected whole, so that there is no stand-in of the new version's own.
        let (seen, redacted) = after(
            v1(),
            payload.clone(),
            &[("Customer", "42")],
            vec![v1().version(2).protect_whole(customer()).change(1, changes)],
        )
        .await;
        let places: &[&str] = if expected.get("street").is_some() { &["/address", "/street"] } else { &["/address"] };
        assert_eq!((seen, redacted), (expected, places.iter().map(|place| (*place).to_owned()).collect()));
    }
}

#[tokio::test]
async fn i4_a_shred_makes_no_change_fail() {
    let v1 = || {
        event("Met")
            .version(1)
            .protect(&["/contact", "/tags/*"], customer())
            .redact_as("/tags/*", "erased, as the law has it")
    };
    let v2 = |changes| {
        let protected = &["/contact", "/tags/*", "/info/email", "/people/0/email", "/items/*/tags/*"];
        vec![v1().version(2).protect(protected, customer()).change(1, changes)]
    };
    let payload = json!({
        "customer": "42", "contact": {"phone": "1"}, "info": "none", "people": [], "tags": vec![1; 1_000], "items": vec![json!({}); 1_000]
    });
    // There was nothing to move, and there is no room where it would have gone. Or there is less room than for what was
    // live.
    for changes in [
        || moved("/contact/email", "/info/email"),
        || Changes::new().copy_value("/contact/email", "/info/email"),
        || moved("/contact/email", "/people/0/email"),
        || Changes::new().copy_value("/tags", "/items/*/tags"),
    ] {
        let (live, redacted) = after(v1(), payload.clone(), &[], v2(changes())).await;
        assert_eq!((&live["info"], &live["people"], redacted), (&json!("none"), &json!([]), vec![]));
        let (erased, redacted) = after(v1(), payload.clone(), &[("Customer", "42")], v2(changes())).await;
        assert_eq!((&erased["info"], &erased["people"], &redacted[0][..]), (&json!("none"), &json!([]), "/contact"));
    }
}

#[tokio::test]
async fn many_redactions_among_many_members_are_found_on_one_way() {
    let v1 = || event("Met").version(1).protect(&["/notes/*/text"], customer());
    let v2 = || vec![v1().version(2).protect(&["/entries/*/text"], customer()).change(1, moved("/notes", "/entries"))];
    let mut payload = json!({"customer": "42", "notes": vec![json!({"text": "t"}); 4_000]});
    for number in 0..100_000 {
        payload[format!("padding_{number}")] = json!(number);
    }
    let (_, redacted) = after(v1(), payload, &[("Customer", "42")], v2()).await;
    assert_eq!(redacted.len(), 4_000);
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

#[tokio::test]
async fn i4_live_values_are_never_redacted_by_a_change() {
    // Two owners: one is erased, one is not.
    let owners = |event: EventSchema, guest: &str, host: &str| {
        event.protect(&[guest], subject("G", "/guest")).protect(&[host], subject("H", "/host"))
    };
    let v1 = || owners(event("Met").version(1), "/a", "/b");
    let payload = json!({"guest": "g", "host": "h", "a": "of g", "b": "of h"});
    // They change places.
    let v2 = || {
        vec![
            owners(v1().version(2), "/b", "/a")
                .change(1, moved("/a", "/t").move_value("/b", "/a").move_value("/t", "/b")),
        ]
    };
    let (seen, redacted) = after(v1(), payload.clone(), &[("G", "g")], v2()).await;
    assert_eq!((seen, redacted), (json!({"guest": "g", "host": "h", "a": "of h", "b": null}), vec!["/b".to_owned()]));
    // A live value takes the place of an erased one.
    let v2 = || vec![v1().version(2).protect(&["/a"], subject("H", "/host")).change(1, moved("/b", "/a"))];
    let (seen, redacted) = after(v1(), payload.clone(), &[("G", "g")], v2()).await;
    assert_eq!((seen, redacted), (json!({"guest": "g", "host": "h", "a": "of h"}), vec![]));
    let v2 = || {
        vec![
            v1().redact_as("/a", "gone")
                .version(2)
                .protect(&["/a"], subject("H", "/host"))
                .change(1, moved("/b", "/a")),
        ]
    };
    let (seen, redacted) = after(v1(), payload.clone(), &[("G", "g")], v2()).await;
    assert_eq!(
        (seen, redacted),
        (json!({"guest": "g", "host": "h", "a": "of h"}), vec![]),
        "whatever stood in for that"
    );
    // Nothing is erased inside a value that stayed, and what is there already stays.
    let v1 = || {
        event("Met").version(1).protect(&["/box"], subject("G", "/guest")).protect(&["/street"], subject("H", "/host"))
    };
    let v2 = || {
        let protected = event("Met")
            .version(1)
            .protect(&["/box"], subject("G", "/guest"))
            .protect(&["/street"], subject("H", "/host"));
        vec![protected.version(2).protect_same_as(1).change(1, moved("/box/street", "/street"))]
    };
    let payload = json!({"guest": "g", "host": "h", "box": {"x": 1}, "street": "live"});
    let (seen, redacted) = after(v1(), payload, &[("G", "g")], v2()).await;
    assert_eq!((seen["street"].clone(), redacted), (json!("live"), vec!["/box".to_owned()]));
}

#[tokio::test]
async fn an_erased_whole_payload_is_renamed_and_not_changed() {
    let v1 = || event("Met").version(1).protect_whole(Owner::Aggregate.scope_kind("Order"));
    let new = || {
        let met = v1().change(1, moved("/a", "/b").rename_type("Seen", 1));
        vec![
            met,
            event("Seen")
                .version(1)
                .protect_whole(Owner::Aggregate.scope_kind("Order"))
                .redact_as("", json!({"gone": true})),
        ]
    };
    let live = World::after(v1(), r#"{"a":1}"#, &[], new()).await.remove(0);
    assert_eq!((live.event_type.as_str(), json_of(&live)), ("Seen", json!({"b": 1})));
    let erased = World::after(v1(), r#"{"a":1}"#, &[("Order", "1")], new()).await.remove(0);
    assert_eq!(
        (erased.event_type.as_str(), json_of(&erased), pointers(&erased)),
        ("Seen", json!({"gone": true}), vec![""])
    );
}

// ---- what building refuses

fn problems(events: impl IntoIterator<Item = EventSchema>) -> Vec<String> {
    match Schemas::new(events) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_was_protected_must_stay_protected() {
    let v1 = || event("E").version(1).protect(&["/email", "/lines/*/note"], Owner::Aggregate);
    let v2 = |protected: &[&str], changes| {
        problems([v1().version(2).protect(protected, Owner::Aggregate).change(1, changes)])
    };
    let kept = ["/email", "/lines/*/note"];
    let none: [&str; 0] = [];
    assert_eq!(v2(&kept, Changes::new()), none);
    assert_eq!(v2(&["/contact", "/lines/*/note"], moved("/email", "/contact/email")), none, "inside what is protected");
    assert_eq!(v2(&["/email", "/items/*/note"], moved("/lines", "/items")), none);
    assert_eq!(v2(&["/email", "/items"], moved("/lines", "/items")), none);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines/*/note")), none);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines")), none);
    assert_eq!(v2(&["/lines/*/note"], moved("/email", "/x").remove("/x")), none);
    let leaves = |from: &str, to: &str| {
        format!(
            "E version 1: what is protected at {from} gets to {to} of E version 2, which does not protect it there: \
             protect it, or remove it in the step"
        )
    };
    assert_eq!(v2(&["/lines/*/note"], Changes::new()), [leaves("/email", "/email")]);
    assert_eq!(v2(&kept, moved("/email", "/mail")), [leaves("/email", "/mail")]);
    assert_eq!(v2(&kept, Changes::new().copy_value("/email", "/mail")), [leaves("/email", "/mail")]);
    assert_eq!(
        v2(&["/mail", "/lines/*/note"], Changes::new().copy_value("/email", "/mail")),
        [leaves("/email", "/email")]
    );
    assert_eq!(v2(&kept, Changes::new().copy_value("/email", "/lines/*/mail")), [leaves("/email", "/lines/*/mail")]);
    assert_eq!(v2(&kept, moved("/lines", "/items")), [leaves("/lines/*/note", "/items/*/note")]);
    assert_eq!(v2(&kept, Changes::new().copy_value("/lines/0/note", "/first")), [leaves("/lines/*/note", "/first")]);
    assert_eq!(
        v2(&kept, moved("/email/domain", "/domain")),
        [leaves("/email", "/domain")],
        "a part is as sensitive as the whole"
    );
    assert_eq!(v2(&["/email", "/lines/0/note"], Changes::new()), [leaves("/lines/*/note", "/lines/*/note")]);
    assert_eq!(v2(&["/email"], Changes::new().remove("/lines/0/note")), [leaves("/lines/*/note", "/lines/*/note")]);
    // What looks like an index may be a member of an object, which no `*` means.
    let indexed = |protected: &str| {
        problems([event("E")
            .version(1)
            .protect(&["/l/0/a"], Owner::Aggregate)
            .version(2)
            .protect(&[protected], Owner::Aggregate)
            .change(1, Changes::new())])
    };
    assert_eq!(indexed("/l/0/a"), none);
    assert_eq!(indexed("/l/*/a"), [leaves("/l/0/a", "/l/0/a")]);
    assert_eq!(v2(&kept, moved("/email", "/a/~2").remove("/b")), [leaves("/email", "/a/~2")]);
    let unprotected =
        problems([v1().version(2).unprotected("no longer holds any").change(1, Changes::new().remove("/lines"))]);
    assert_eq!(unprotected, [leaves("/email", "/email")]);
    let whole = || event("E").version(1).protect_whole(Owner::Aggregate);
    let parts = whole().version(2).protect(&["/email"], Owner::Aggregate).change(1, Changes::new());
    assert_eq!(problems([parts]), [leaves("the root", "the root")]);
    assert_eq!(
        problems([whole().version(2).protect_same_as(1).change(1, moved("/a", "/b").map_value("/c", |c: u8| c))]),
        none
    );

    // Across a rename, too.
    let renamed = |to: EventSchema| problems([v1().change(1, Changes::new().rename_type("F", 1)), to]);
    assert_eq!(renamed(event("F").version(1).protect(&kept, Owner::Aggregate)), none);
    let lost = leaves("/lines/*/note", "/lines/*/note").replace("of E version 2", "of F version 1");
    assert_eq!(renamed(event("F").version(1).protect(&["/email"], Owner::Aggregate)), [lost]);
}

#[test]
fn whose_a_value_is_stays_said() {
    let v1 = || event("E").version(1).protect(&["/email"], customer());
    let v2 = |id: &str, changes| {
        problems([v1().version(2).protect(&["/email"], subject("Customer", id)).change(1, changes)])
    };
    let new = Changes::new;
    let lost = "E version 1: the step takes /customer away, which names the owner of /email in E version 2: keep it, \
        or point the subject at where it goes";
    assert_eq!(v2("/customer", new().remove("/customer")), [lost]);
    assert_eq!(v2("/customer", moved("/customer", "/buyer/id")), [lost]);
    assert_eq!(v2("/customer", new().copy_value("/customer", "/x").remove("/customer")), [lost]);
    assert_eq!(v2("/buyer/id", new().remove("/buyer")), [lost.replace("/customer", "/buyer/id")]);
    for (id, changes) in [
        ("/buyer/id", moved("/customer", "/buyer/id")),
        ("/customer", moved("/customer", "/t").move_value("/t", "/customer")),
        ("/customer", new().remove("/customer").copy_value("/buyer", "/customer")),
        ("/customer", new().remove("/customer").set_default("/customer", "nobody")),
        ("/customer", new().remove("/customer/name")),
        ("/customer", new().map_value("/customer", |id: u64| format!("c-{id}"))),
        ("/elsewhere", new()),
    ] {
        let what = format!("{id} {changes:?}");
        assert!(v2(id, changes).is_empty(), "{what}");
    }
    let inherited = v1().version(2).protect(&["/email"], Owner::Aggregate).change(1, new().remove("/customer"));
    assert!(problems([inherited]).is_empty(), "nobody asks for it any more");
    let elements = event("E").version(1).protect(&["/l/*/a"], subject("G", "/l/*/id"));
    let elements = elements.version(2).protect_same_as(1).change(1, new().remove("/l/*/id"));
    assert!(problems([elements])[0].contains("takes /l/*/id away"));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let new = Changes::new;
    let of = |changes| {
        let found = problems([event("E")
            .version(1)
            .protect(&["/a", "/l/*/a"], Owner::Aggregate)
            .version(2)
            .protect_same_as(1)
            .change(1, changes)]);
        found
            .iter()
            .map(|problem| problem.strip_prefix("E version 1: ").unwrap().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    for (changes, problem) in [
        (moved("a", "/b"), r#"pointer "a" must start with '/'"#),
        (moved("/b", ""), r#"pointer "" is the whole payload"#),
        (new().remove("/~3"), r#"pointer "/~3" has a '~'"#),
        (new().set_default("/l/*", 1), r#"pointer "/l/*" ends in '*'"#),
        (new().remove("/l/*"), r#"pointer "/l/*" ends in '*'"#),
        (moved("/l/*", "/m/*"), r#"pointer "/l/*" ends in '*'"#),
        (new().copy_value("/b", "/l/*"), r#"pointer "/l/*" ends in '*'"#),
        (moved("/l/*/b", "/m/*/b"), r#""/l/*/b" and "/m/*/b" lie in different arrays"#),
        (moved("/l/*/b", "/b"), "lie in different arrays"),
        (moved("/b", "/l/*/b"), "lie in different arrays"),
        (new().copy_value("/l/*/b", "/b"), "lie in different arrays"),
        (moved("/b", "/b/c"), "nothing can be moved or copied into itself"),
        (moved("/b/c", "/b"), "nothing can be moved or copied into itself"),
        (new().copy_value("/b", "/b"), "nothing can be moved or copied into itself"),
        (moved("/b", "/$seal"), "is the header's own place"),
        (moved("/$seal", "/b"), "is the header's own place"),
        (new().copy_value("/b", "/$seal"), "is the header's own place"),
        (new().copy_value("/$seal", "/b"), "is the header's own place"),
        (new().set_default("/$seal", 1), "is the header's own place"),
        (new().remove("/$seal"), "is the header's own place"),
        (new().map_value("/$seal/x", |x: u8| x), "is the header's own place"),
        (moved("/b", "/a/b"), r#""/b" would get to "/a/b", into "/a", which is protected as one value"#),
        (new().copy_value("/b", "/a/b"), r#"into "/a", which is protected as one value"#),
        (
            new().map_value("/l", |l: Value| l),
            r#"the function for "/l" would see what is protected at "/l/*/a" inside of it"#,
        ),
        (new().map_value("/l/*", |l: Value| l), r#"the function for "/l/*" would see"#),
        (
            new().rename_type("F", 1).rename_type("G", 1),
            "the step renames the type twice\nits step leads to F version 1, which is not declared",
        ),
        (new().rename_type("F", 1), "its step leads to F version 1, which is not declared"),
    ] {
        let found = of(changes);
        assert!(found.contains(problem), "{problem} is not in {found}");
        assert_eq!(found.lines().count(), problem.lines().count(), "{found}");
    }
    assert_eq!(
        of(new().map_value("/a", |a: String| a).map_value("/l/*/a", |a: String| a).map_value("/l/0/b", |a: String| a)),
        ""
    );
    let back = problems([event("E").version(1).change(1, new().rename_type("E", 1))]);
    assert_eq!(back, ["E version 1: its steps lead back to itself"]);
}
