//! The places that count as redacted after a step.

use super::seen;
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{Owner, Sensitive, event, subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use support::keeps_spellings;
use support::world::{World, json_of, pointers};

fn guest() -> Owner {
    subject("Guest", "/guests/*/id")
}

fn met(pointers: &[&str], owner: Owner) -> EventSchema {
    event("Met").version(1).protect(pointers, owner)
}

const GUESTS: &str = r#"{"guests":[{"id":"a","name":"Ada"},{"id":"b","name":null}]}"#;

fn reversed(mut value: Value) -> Value {
    value["guests"].as_array_mut().unwrap().reverse();
    value
}

fn without_ids(mut value: Value) -> Value {
    value["guests"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|guest| drop(guest.as_object_mut().unwrap().remove("id")));
    value
}

#[tokio::test]
async fn i4_typed_steps_redact_what_they_say_and_nothing_else() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        guests: Vec<OldGuest>,
    }
    #[derive(Serialize, Deserialize)]
    struct OldGuest {
        id: String,
        name: Sensitive<Option<String>>,
    }
    #[derive(Serialize, Deserialize)]
    struct New {
        guests: Vec<NewGuest>,
    }
    #[derive(Serialize, Deserialize)]
    struct NewGuest {
        name: Sensitive<Option<String>>,
    }
    let old = || met(&["/guests/*/name"], guest());
    let new = old().version(2).protect(&["/guests/*/name"], guest()).redact_as("/guests/*/name", "(erased)");
    let new = new.upcast(1, |old: Old| {
        Ok::<_, Infallible>(New { guests: old.guests.into_iter().map(|guest| NewGuest { name: guest.name }).collect() })
    });
    let events = World::after(old(), GUESTS, &[("Guest", "a")], vec![new]).await;
    assert_eq!(seen(&events), (json!({"guests":[{"name":"(erased)"},{"name":null}]}), vec!["/guests/0/name"]));
    let guests = events[0].decode::<New>().unwrap().guests;
    assert_eq!((guests[0].name.clone(), guests[1].name.clone()), (Sensitive::Redacted, Sensitive::Present(None)));
}

#[tokio::test]
async fn i7_typed_steps_without_sensitive_keep_redactions_as_closures_do() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        name: Option<String>,
        email: Sensitive<String>,
    }
    #[derive(Serialize, Deserialize)]
    struct New {
        called: Option<String>,
        email: Sensitive<String>,
    }
    let old = || met(&["/name", "/email"], Owner::Aggregate);
    let new = old().version(2).protect(&["/called", "/email"], Owner::Aggregate);
    let new = new.upcast(1, |old: Old| Ok::<_, Infallible>(New { called: old.name, email: old.email }));
    let events = World::after(old(), r#"{"name":"Ada","email":"a@b"}"#, &[("Order", "1")], vec![new]).await;
    assert_eq!(seen(&events), (json!({"called":null,"email":null}), vec!["/called", "/email"]));
}

#[tokio::test]
async fn i4_a_live_null_next_to_a_redaction_below_flatten_is_not_redacted_by_a_step() {
    #[derive(Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: Rest,
    }
    #[derive(Serialize, Deserialize)]
    struct Rest {
        name: Sensitive<Option<String>>,
        note: Sensitive<Option<String>>,
    }
    let old = || met(&["/name"], Owner::Aggregate).protect(&["/note"], subject("Guest", "/id"));
    let new = old().version(2).protect_same_as(1).upcast(1, |old: Flat| Ok::<_, Infallible>(old));
    let events = World::after(old(), r#"{"id":"b","name":"Ada","note":null}"#, &[("Order", "1")], vec![new]).await;
    assert_eq!(seen(&events), (json!({"name":null,"note":null}), vec!["/name"]));
}

#[tokio::test]
async fn i7_an_optional_sensitive_field_carries_its_redaction_through_a_typed_step() {
    #[derive(Serialize, Deserialize)]
    struct Old {
        email: Option<Sensitive<String>>,
        phone: Option<Sensitive<String>>,
    }
    let old = || met(&["/email", "/phone"], Owner::Aggregate);
    let new = old().version(2).protect(&["/mail"], Owner::Aggregate);
    let new = new.upcast(1, |old: Old| {
        Ok::<_, Infallible>(json!({ "had_mail": old.email.is_some(), "had_phone": old.phone.is_some() }))
    });
    let events = World::after(old(), r#"{"email":"a@b"}"#, &[("Order", "1")], vec![new]).await;
    assert_eq!(json_of(&events[0]), json!({"had_mail": true, "had_phone": false}));
}

#[tokio::test]
async fn i4_no_live_value_counts_as_redacted_after_a_closure() {
    type Case<'a> = (&'a dyn Fn() -> EventSchema, &'a str, fn(Value) -> Value);
    let old = || met(&["/guests/*/name"], guest());
    let unknown = || old().redact_as("/guests/*/name", "unknown");
    let called_unknown = r#"{"guests":[{"id":"a","name":"Ada"},{"id":"b","name":"unknown"}]}"#;
    let cases: [Case<'_>; 4] = [
        // The order of the array changes: a's redaction moves along, b's null stays a value.
        (&old, GUESTS, reversed),
        // The ids are gone: nobody can tell whose names these are.
        (&old, GUESTS, without_ids),
        (&unknown, called_unknown, without_ids),
        // A live value is what stands in for others.
        (&unknown, called_unknown, |value| value),
    ];
    let mut found = Vec::new();
    for (old, payload, change) in cases {
        let new = old().version(2).protect_same_as(1).upcast(1, move |old: Value| Ok::<_, Infallible>(change(old)));
        let events = World::after(old(), payload, &[("Guest", "a")], vec![new]).await;
        found.push(pointers(&events[0]).join(" "));
    }
    assert_eq!(found, ["/guests/1/name", "", "", "/guests/0/name"]);
}

#[tokio::test]
async fn i4_a_live_value_that_a_closure_leaves_alone_stays_live() {
    // A place that was not protected before was not redacted either.
    let old = || met(&["/guests/*/name"], guest());
    let payload = r#"{"host":null,"guests":[{"id":"a","name":"Ada","phone":null}]}"#;
    let new =
        old().version(2).protect(&["/guests/*/name", "/guests/*/phone"], guest()).protect(&["/host"], Owner::Aggregate);
    let new = new.upcast(1, |old: Value| Ok::<_, Infallible>(old));
    assert_eq!(seen(&World::after(old(), payload, &[("Guest", "a")], vec![new]).await).1, ["/guests/0/name"]);
    // A live null changes places with a redacted one: that of the live owner stays live.
    let old = || met(&["/a"], subject("Guest", "/a_id")).protect(&["/b"], subject("Guest", "/b_id"));
    let new = old().version(2).protect(&["/a"], subject("Guest", "/b_id")).protect(&["/b"], subject("Guest", "/a_id"));
    let new = new.upcast(1, |mut old: Value| {
        let a = old["a"].take();
        old["a"] = old["b"].take();
        old["b"] = a;
        Ok::<_, Infallible>(old)
    });
    let events =
        World::after(old(), r#"{"a":"Ada","a_id":"a","b":null,"b_id":"b"}"#, &[("Guest", "a")], vec![new]).await;
    assert_eq!(
        pointers(&events[0]),
        [""; 0],
        "and nobody can tell that the other is not the null that stood there before"
    );
}

#[tokio::test]
async fn i4_no_live_value_of_another_part_counts_as_redacted() {
    let note = |owner| move |name| event(name).version(1).protect(&["/note"], owner);
    let old = || met(&["/note"], Owner::Aggregate).protect(&["/guests/*/note"], guest());
    let schemas = vec![
        old().split(1, &[("Kept", 1), ("Plain", 1), ("Guest", 1), ("Remark", 1)], |old: Value, _| {
            Ok::<_, Infallible>(vec![
                SplitPart::new("Kept", 1, json!({"note": old["note"]})),
                SplitPart::new("Plain", 1, json!({"note": null})),
                SplitPart::new("Guest", 1, old["guests"][0].clone()),
                SplitPart::new("Guest", 1, json!({"id": "nobody", "note": null})),
                SplitPart::new("Remark", 1, json!({"remark": old["remark"]})),
            ])
        }),
        note(Owner::Aggregate)("Kept"),
        event("Plain").version(1),
        note(subject("Guest", "/id"))("Guest"),
        event("Remark").version(1).protect(&["/remark"], Owner::Aggregate),
    ];
    let payload = r#"{"note":"Ada","remark":null,"guests":[{"id":"b","note":null}]}"#;
    let events = World::after(old(), payload, &[("Order", "1")], schemas).await;
    let redacted: Vec<_> = events.iter().map(|event| (event.event_type.as_str(), pointers(event))).collect();
    assert_eq!(
        redacted,
        [("Kept", vec!["/note"]), ("Plain", vec![]), ("Guest", vec![]), ("Guest", vec![]), ("Remark", vec![])]
    );
}

#[tokio::test]
async fn i7_redactions_follow_into_parts_that_name_the_owner() {
    let old = || met(&["/guests/*/note"], guest());
    let schemas = vec![
        old().split(1, &[("Guest", 1)], |old: Value, _| {
            Ok::<_, Infallible>(
                old["guests"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|guest| SplitPart::new("Guest", 1, guest.clone()))
                    .collect(),
            )
        }),
        event("Guest").version(1).protect(&["/note"], subject("Guest", "/id")),
    ];
    // The whole has an id and a note of its own, at the places that the parts have theirs.
    let payload = r#"{"id":"m1","note":null,"guests":[{"id":"a","note":"x"},{"id":"b","note":null}]}"#;
    let events = World::after(old(), payload, &[("Guest", "a")], schemas).await;
    assert_eq!(events.iter().map(pointers).collect::<Vec<_>>(), [vec!["/note"], vec![]]);
}

#[tokio::test]
async fn i7_redactions_follow_stand_ins_that_a_closure_moves_or_leaves() {
    let moved = |from: &'static str, to: &'static str| {
        move |mut old: Value| {
            old[to] = old[from].take();
            old.as_object_mut().unwrap().remove(from);
            Ok::<_, Infallible>(old)
        }
    };
    // The old version's stand-in counts as redacted, and is replaced by the new version's.
    let old = || met(&["/email"], Owner::Aggregate).redact_as("/email", "erased@invalid");
    let new = |stand_in: Value| old().version(2).protect(&["/mail"], Owner::Aggregate).redact_as("/mail", stand_in);
    for stand_in in [Value::Null, json!("gone")] {
        let new = new(stand_in.clone()).upcast(1, moved("email", "mail"));
        let events = World::after(old(), r#"{"email":"a@b"}"#, &[("Order", "1")], vec![new]).await;
        assert_eq!(seen(&events), (json!({ "mail": stand_in }), vec!["/mail"]));
    }
    // Ids that serde_json rounds unless it keeps spellings, of two owners: here one number for both, so neither is
    // known, there two. A step that reads them into an f64 rounds them in any build.
    let near = ["123456789012345678901234567890", "123456789012345678901234567891"];
    let far = ["123456789012345678901234567890", "223456789012345678901234567890"];
    for (ids, expected, exact) in [(far, 1, 1), (near, 0, 1)] {
        let people = || subject("Guest", "/people/*/id");
        let old = || met(&["/people/*/name"], people());
        let new = || old().version(2).protect(&["/people/*/called"], people());
        let rename = |old: &mut Value, respelled: bool| {
            for one in old["people"].as_array_mut().unwrap() {
                one["called"] = one["name"].take();
                if respelled {
                    one["id"] = one["id"].as_f64().unwrap().into();
                }
            }
        };
        let step = move |respelled| {
            new().upcast(1, move |mut old: Value| {
                rename(&mut old, respelled);
                Ok::<_, Infallible>(old)
            })
        };
        let payload = format!(r#"{{"people":[{{"id":{},"name":"A"}},{{"id":{},"name":null}}]}}"#, ids[0], ids[1]);
        for (step, expected) in
            [(step(false), if keeps_spellings() { exact } else { expected }), (step(true), expected)]
        {
            let events = World::after(old(), &payload, &[("Guest", ids[0])], vec![step]).await;
            assert_eq!(pointers(&events[0]), &["/people/0/called"][..expected], "{ids:?}");
        }
    }
    // If nothing names the owner any more, a redacted place that the step did not change is still redacted.
    let same = |old: Value| Ok::<_, Infallible>(old);
    let old = || met(&["/id", "/name"], subject("Guest", "/id"));
    let new = old().version(2).protect_same_as(1).redact_as("/name", "gone").upcast(1, same);
    let new = new.version(3).protect(&["/id", "/name"], Owner::Aggregate.scope_kind("Meeting")).upcast(2, same);
    let events = World::after(old(), r#"{"id":"a","name":"Ada"}"#, &[("Guest", "a")], vec![new]).await;
    assert_eq!(seen(&events), (json!({"id":null,"name":null}), vec!["/id", "/name"]));
    let old = || met(&["/names/*"], Owner::Aggregate);
    let new = old().version(2).protect(&["/names"], Owner::Aggregate).upcast(1, same);
    let new = new.version(3).protect_whole(Owner::Aggregate).upcast(2, same);
    let events = World::after(old(), r#"{"names":["Ada","Bob"]}"#, &[("Order", "1")], vec![new]).await;
    assert_eq!(pointers(&events[0]), ["/names/0", "/names/1"], "inside what the later versions protect");
    // In an array of which not all is redacted, elements may have changed places.
    #[derive(Serialize, Deserialize)]
    struct Guests {
        guests: Vec<Value>,
    }
    let old = || met(&["/guests/*/id", "/guests/*/name"], guest());
    for (shredded, expected) in [(&[("Guest", "a")][..], 0), (&[("Guest", "a"), ("Guest", "b")], 4)] {
        let new = old().version(2).protect_same_as(1).upcast(1, |old: Guests| Ok::<_, Infallible>(old));
        assert_eq!(pointers(&World::after(old(), GUESTS, shredded, vec![new]).await[0]).len(), expected);
    }
}

/// A step that reads a number and writes it again left it alone, though it spells it otherwise.
#[tokio::test]
async fn i4_a_live_number_that_a_step_spells_otherwise_stays_live() {
    for amount in ["100", "1e2", "100.00", "100.0"] {
        let old = || met(&["/email"], Owner::Aggregate);
        let new = old().version(2).protect(&["/email", "/amount"], Owner::Aggregate).redact_as("/amount", 100.0);
        let step = new.upcast(1, |old: Value| {
            let amount = old["amount"].as_f64().unwrap();
            Ok::<_, Infallible>(json!({"email": old["email"], "amount": amount}))
        });
        let events =
            World::after(old(), &format!(r#"{{"email":"a@b","amount":{amount}}}"#), &[("Order", "1")], vec![step])
                .await;
        assert_eq!(pointers(&events[0]), ["/email"], "{amount}");
    }
    // An erased number stays erased, too.
    for stand_in in ["0", "0.0", "0.00", "0e2"] {
        let stand_in: Value = serde_json::from_str(stand_in).unwrap();
        let old = || met(&["/amount"], Owner::Aggregate).redact_as("/amount", stand_in.clone());
        let new = old().version(2).protect_same_as(1).redact_as("/amount", stand_in.clone());
        let step = new.upcast(1, |old: Value| Ok::<_, Infallible>(json!({"amount": old["amount"].as_f64().unwrap()})));
        let events = World::after(old(), r#"{"amount":7.5}"#, &[("Order", "1")], vec![step]).await;
        assert_eq!(pointers(&events[0]), ["/amount"], "{stand_in}");
    }
}
