//! Documents that are rearranged around their seals.

use super::{PLACED, STATES, State, edited, in_state, protected, tampered, text, token};
use eventseal::error::EventFault;
use eventseal::{Error, PersistedEvent, Result};
use serde_json::{Value, json};
use support::sealing::{SealerWorld, holds_canary, with_payload};

fn replaced(from: &'static str, to: &'static str) -> impl Fn(&str) -> String {
    move |text| {
        assert!(text.contains(from), "{from} is not in {text}");
        text.replacen(from, to, 1)
    }
}

#[test]
fn i3_i4_a_document_can_not_be_rearranged_around_its_seal() {
    for state in STATES {
        let (world, events) = in_state(state);
        let stored = &events[0];
        let (before, seal) = (world.open(stored).unwrap(), token(stored, "/$seal").unwrap());
        let at = Event { state, world: &world, stored, before, seal };
        header_gone(&at);
        no_header(&at);
        other_fields(&at);
        other_shapes(&at);
        other_documents(&at);
    }
}

/// A stored event, and what it opens to.
struct Event<'a> {
    state: State,
    world: &'a SealerWorld,
    stored: &'a PersistedEvent,
    before: PersistedEvent,
    seal: String,
}

impl Event<'_> {
    fn by_value(&self, edit: &dyn Fn(&mut Value)) -> Result<PersistedEvent> {
        self.world.open(&edited(self.stored, edit))
    }

    fn by_text(&self, edit: &dyn Fn(&str) -> String) -> Result<PersistedEvent> {
        self.world.open(&with_payload(self.stored, edit(text(self.stored))))
    }
}

fn unsealed_at(result: &Result<PersistedEvent>, place: &str) -> bool {
    matches!(result, Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. }) if pointer.as_str() == place)
}

fn misshapen_at(result: &Result<PersistedEvent>, place: &str) -> bool {
    matches!(
        result,
        Err(Error::Event { fault: EventFault::ShapeMismatch { pointer, .. }, .. })
            if pointer.as_str() == place
    )
}

/// The header is gone.
fn header_gone(at: &Event<'_>) {
    let world = at.world;
    let stored = at.stored;
    let seal = at.seal.as_str();
    assert!(unsealed_at(&at.by_text(&|text| text.replacen(&format!("\"$seal\":\"{seal}\","), "", 1)), "/email"));
    assert!(unsealed_at(&world.open(&with_payload(stored, PLACED)), "/email"));
    // Everything moved down: nothing protected is left at its place, and nothing is opened.
    let moved_down = at.by_value(&|value| *value = json!({ "inner": value.take() })).unwrap();
    assert!(!holds_canary(&moved_down.payload) && !moved_down.is_redacted());
    // In the text, so that the places stay in their order, of which the first is named.
    let header = format!("\"$seal\":\"{seal}\",");
    let inside = at.by_text(&|text| {
        text.replacen(&header, "", 1).replacen("\"courier\":{", &format!("\"courier\":{{{header}"), 1)
    });
    assert!(unsealed_at(&inside, "/email"), "{inside:?}");
    assert!(unsealed_at(&at.by_text(&replaced("\"$seal\"", "\"$Seal\"")), "/email"));
    // Without header and without values, an event says nothing; it does not say that something was erased.
    let emptied = at.by_value(&|value| {
        value.as_object_mut().unwrap().remove("$seal");
        value["email"] = Value::Null;
        value.as_object_mut().unwrap().remove("courier");
    });
    assert!(emptied.is_ok_and(|opened| opened.redacted.is_empty() && !holds_canary(&opened.payload)));
}

/// The header is no header.
fn no_header(at: &Event<'_>) {
    let state = at.state;
    let before = &at.before;
    let seal = at.seal.as_str();
    for other in [
        json!(null),
        json!(5),
        json!(true),
        json!([seal]),
        json!({ "x": seal }),
        json!(""),
        json!("AQ"),
        json!(format!("{seal}=")),
        json!(format!("{seal}A")),
    ] {
        assert!(tampered(&at.by_value(&|value| value["$seal"] = other.clone())), "{state:?} {other}");
    }
    assert!(
        tampered(&at.by_text(&|text| text.replacen(
            seal,
            &format!("\\u00{:02x}{}", seal.as_bytes()[0], &seal[1..]),
            1
        ))),
        "a token has one spelling"
    );
    assert!(tampered(&at.by_text(&|text| text.replacen('{', &format!("{{\"$seal\":\"{seal}\","), 1))));
    assert!(tampered(&at.by_text(&|text| text.replacen('{', &format!("{{\"\\u0024seal\":\"{seal}\","), 1))));
    assert!(tampered(&at.by_text(&|text| text.replacen('{', "{\"$seal\":null,", 1))));
    // A name has several spellings, and they are one.
    assert_eq!(at.by_text(&replaced("\"$seal\"", "\"\\u0024se\\u0061l\"")).unwrap(), *before);
}

/// A field is not what was sealed.
fn other_fields(at: &Event<'_>) {
    let state = at.state;
    for other in [json!("c4n4ry-eve@example.org"), json!(null), json!(1), json!(true), json!({}), json!([]), json!("")]
    {
        assert!(tampered(&at.by_value(&|value| value["email"] = other.clone())), "{state:?} {other}");
        assert!(tampered(&at.by_value(&|value| value["courier"]["phone"] = other.clone())), "{state:?} {other}");
    }
    assert!(tampered(&at.by_value(&|value| drop(value.as_object_mut().unwrap().remove("email")))));
    assert!(tampered(&at.by_value(&|value| drop(value["courier"].as_object_mut().unwrap().remove("phone")))));
    assert!(tampered(&at.by_value(&|value| drop(value.as_object_mut().unwrap().remove("courier")))));
    assert!(tampered(&at.by_value(&|value| value["courier"] = json!({}))));
    assert!(tampered(&at.by_value(&|value| value["courier"] = Value::Null)));
    assert!(tampered(&at.by_value(&|value| {
        let email = value["email"].take();
        value.as_object_mut().unwrap().remove("email");
        value["Email"] = email;
    })));
}

/// Something else stands on the way to it, or it stands there twice.
fn other_shapes(at: &Event<'_>) {
    let stored = at.stored;
    let state = at.state;
    for other in [
        json!("Bob, c4n4ry-555"),
        json!(5),
        json!(false),
        json!([]),
        json!([{ "phone": token(stored, "/courier/phone") }]),
    ] {
        assert!(misshapen_at(&at.by_value(&|value| value["courier"] = other.clone()), "/courier"), "{state:?} {other}");
    }
    assert!(misshapen_at(&at.by_text(&|text| format!("[{text}]")), ""));
    assert!(misshapen_at(&at.by_text(&|text| serde_json::to_string(text).unwrap()), ""));

    // It stands there twice.
    for twice in [
        replaced("\"email\":", "\"email\":\"c4n4ry\",\"email\":"),
        replaced("\"email\":", "\"email\":null,\"email\":"),
        replaced("\"email\":", "\"\\u0065mail\":\"c4n4ry\",\"email\":"),
        replaced("\"courier\":", "\"courier\":{\"phone\":\"c4n4ry\"},\"courier\":"),
        replaced("\"courier\":", "\"courier\":null,\"courier\":"),
        replaced("\"phone\":", "\"ph\\u006fne\":1,\"phone\":"),
    ] {
        assert!(tampered(&at.by_text(&twice)), "{state:?}");
    }
}

/// It is no JSON any more, or something that is not protected is another.
fn other_documents(at: &Event<'_>) {
    let world = at.world;
    let stored = at.stored;
    let before = &at.before;
    for cut in [0, 1, 10, stored.payload.len() - 1] {
        assert!(matches!(
            world.open(&with_payload(stored, &stored.payload[..cut])),
            Err(Error::Event { fault: EventFault::InvalidPayload { .. }, .. })
        ));
    }
    assert!(matches!(
        at.by_text(&|text| format!("{text},")),
        Err(Error::Event { fault: EventFault::InvalidPayload { .. }, .. })
    ));
    assert!(matches!(
        at.by_text(&|text| format!("{text}{text}")),
        Err(Error::Event { fault: EventFault::InvalidPayload { .. }, .. })
    ));
    let deep = at.by_text(&|text| text.replacen("12.50", &format!("{}{}", "[".repeat(200), "]".repeat(200)), 1));
    assert!(matches!(deep, Err(Error::Event { fault: EventFault::LimitExceeded { .. }, .. })));

    // Values that are not protected may change, appear and go.
    let changed = at
        .by_value(&|value| {
            value["total"] = json!([1, 2]);
            value["customer_id"] = json!("cust-2");
            value["new"] = json!({ "email": "x" });
            value.as_object_mut().unwrap().remove("order_id");
        })
        .unwrap();
    assert_eq!(protected(&changed.payload), protected(&before.payload));
    assert_eq!(changed.redacted.len(), before.redacted.len());
}

#[test]
fn i3_i4_elements_can_not_be_moved_added_or_taken_away() {
    for state in STATES {
        let (world, events) = in_state(state);
        let stored = &events[1];
        let by_value = |edit: &dyn Fn(&mut Vec<Value>)| {
            world.open(&edited(stored, |value| edit(value["lines"].as_array_mut().unwrap())))
        };
        let before = world.open(stored).unwrap();
        let swapped = by_value(&|lines| lines.swap(0, 1));
        if state == State::Shredded {
            // Ciphertexts of destroyed keys are alike; nothing is read from them.
            assert_eq!(swapped.unwrap().redacted.len(), before.redacted.len());
        } else {
            assert!(tampered(&swapped), "{state:?} {swapped:?}");
        }
        assert!(tampered(&by_value(&|lines| lines.insert(0, json!({ "to": "x" })))));
        assert!(tampered(&by_value(&|lines| lines.insert(0, json!(null)))));
        assert!(tampered(&by_value(&|lines| drop(lines.remove(0)))));
        assert!(tampered(&by_value(&|lines| lines.truncate(1))));
        assert!(tampered(&by_value(&Vec::clear)));
        for note in [json!("c4n4ry"), json!(1), json!(token(stored, "/lines/0/note"))] {
            let added = by_value(&|lines| lines.push(json!({ "to": "rec-1", "note": note })));
            assert!(
                matches!(
                    &added,
                    Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. })
                        if pointer.as_str() == "/lines/3/note"
                ),
                "{added:?}"
            );
            let filled = by_value(&|lines| lines[2]["note"] = note.clone());
            assert!(
                matches!(
                    &filled,
                    Err(Error::Event { fault: EventFault::Unsealed { pointer, .. }, .. })
                        if pointer.as_str() == "/lines/2/note"
                ),
                "{filled:?}"
            );
        }
        for lines in [json!({ "0": { "note": token(stored, "/lines/0/note") } }), json!("x"), json!(1)] {
            let result = world.open(&edited(stored, |value| value["lines"] = lines.clone()));
            assert!(
                matches!(
                    &result,
                    Err(Error::Event { fault: EventFault::ShapeMismatch { pointer, .. }, .. })
                        if pointer.as_str() == "/lines"
                ),
                "{result:?}"
            );
        }
        assert!(tampered(&world.open(&edited(stored, |value| value["lines"] = Value::Null))));
        // An element without a note has no protected value.
        let added = by_value(&|lines| lines.push(json!({ "to": "rec-1" }))).unwrap();
        assert_eq!(protected(&added.payload), protected(&before.payload));
    }
}
