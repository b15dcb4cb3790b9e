//! Redactions in declarative steps: they go where values go.

use super::*;

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
    let payload = json!({
        "customer": "42", "email": "a@x", "lines": [{"note": "n0"}, {}, {"note": "n2"}], "address": {"street": "S"}
    });
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
    let expected = json!({
        "customer": "42", "contact": {"email": "a@x"}, "items": [{"text": "n0"}, {}, {"text": "n2"}],
        "address": {"street": "S"}
    });
    assert_eq!((live, redacted), (expected, vec![]));
    let (erased, redacted) = after(v1(), payload.clone(), &all, v2(changes())).await;
    let expected = json!({
        "customer": "42", "contact": {"email": "erased@x"}, "items": [{"text": null}, {}, {"text": null}],
        "address": null
    });
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

    // A value inside an erased value was erased with it.
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
            .redact_as("/tags/*", "erased, as the law has it, ".repeat(40))
    };
    let v2 = |changes| {
        let protected = &["/contact", "/tags/*", "/info/email", "/people/0/email", "/items/*/tags/*"];
        vec![v1().version(2).protect(protected, customer()).change(1, changes)]
    };
    let payload = json!({
        "customer": "42", "contact": {"phone": "1"}, "info": "none", "people": [], "tags": vec![1; 100],
        "items": vec![json!({}); 1_000]
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
