//! Payloads.

use super::{Shop, all_are_refused, assert_silent, case, declared, order, placed};
use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{
    AggregateVersion, Error, EventStoreExt, GlobalPosition, Keyring, Namespace, NewEvent, Owner, PersistedEvent,
    Schemas, Sealer, event,
};
use support::sealing::CANARY;

#[tokio::test]
async fn i2_i9_what_is_no_json_is_refused() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::Event { fault: EventFault::InvalidPayload { .. }, .. });
    let advice = "protect_whole() takes any bytes";
    let mut cases = vec![case("Placed", &b"{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\xff\"}"[..], is, advice)];
    for payload in [
        "",
        " ",
        "c4n4ry",
        "{",
        r#"{"customer_id":"cust-new","email":"c4n4ry""#,
        r#"{"customer_id":"cust-new","email":"c4n4ry"}}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry"} {}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry",}"#,
        r#"{"customer_id":"cust-new" "email":"c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":'c4n4ry'}"#,
        r#"{"customer_id":"cust-new",email:"c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":01}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":1.}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":.5}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":+1}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":1e}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":-}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":NaN}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":True}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":nul}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\x41"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\u00g0"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\u00"#,
        r#"{"customer_id":"cust-new","email":["c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":{"c4n4ry"}}"#,
        r#"{"customer_id":"cust-new","email":{"c4n4ry":1,}}"#,
        "{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\n\"}",
        "{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\u{0}\"}",
        "\u{feff}{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\"}",
        "{\"customer_id\":\"cust-new\",\u{a0}\"email\":\"c4n4ry\"}",
        r#"{"customer_id":"cust-new","email":"c4n4ry"} // comment"#,
    ] {
        cases.push(case("Placed", payload, is, advice));
    }
    // A subject has to be read out of the whole payload.
    cases.push(case("WholeOfSubject", "c4n4ry", is, advice));
    all_are_refused(cases).await;
}

#[tokio::test]
async fn i2_i9_the_reserved_member_is_refused_in_every_type_and_spelling() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::Event { fault: EventFault::ReservedMember, .. });
    let advice = "rename it, or look whether the payload is sealed already";
    let mut cases = Vec::new();
    for event_type in ["Placed", "Noted", "Whole", "WholeOfSubject", "Open", "Unknown"] {
        for payload in [
            r#"{"$seal":"x","customer_id":"cust-new","x":"c4n4ry"}"#,
            r#"{"customer_id":"cust-new","x":"c4n4ry","\u0024seal":null}"#,
            r#"{"customer_id":"cust-new","x":"c4n4ry" , "$s\u0065al" : 1 }"#,
            r#" {"customer_id":"cust-new","\u0024\u0073\u0065\u0061\u006c":{},"x":"c4n4ry"}"#,
            r#"{"$seal":1,"customer_id":"cust-new","x":"c4n4ry","$seal":2}"#,
            r#"{"$seal":1,"\u0024seal":2,"customer_id":"cust-new","x":"c4n4ry"}"#,
        ] {
            cases.push(case(event_type, payload, is, advice));
        }
    }
    all_are_refused(cases).await;
    // Elsewhere the name is free.
    let shop = Shop::new(declared()).await;
    for event_type in ["Open", "Unknown", "Placed", "Whole"] {
        for payload in [r#"{"a":{"$seal":1},"b":["$seal"]}"#, r#"{"$Seal":1,"seal":2,"$seal ":3,"\u0024\u0024seal":4}"#]
        {
            shop.append(&order(), Any, &[NewEvent::raw(event_type, 1, payload)]).await.unwrap();
            let read = shop.store.read_stream(&mut shop.db.begin(), &order()).await.unwrap();
            assert_eq!(read.events.last().unwrap().payload, payload.as_bytes());
        }
    }
}

#[tokio::test]
async fn i2_i9_members_on_protected_paths_are_written_once() {
    let is: fn(&Error) -> bool =
        |error| matches!(error, Error::Event { fault: EventFault::DuplicateMember { .. }, .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","email":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","\u0065mail":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","email":null,"em\u0061il":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":{"name":"c4n4ry","name":1}}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":{"name":"c4n4ry"},"customer":null}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":null,"\u0063ustomer":{"name":"c4n4ry"}}"#),
        // Two members name the subject, so it is not clear which one is meant.
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","customer_id":"cust-1"}"#),
        ("Gifts", r#"{"lines":[{"to":"rec-1","note":"c4n4ry"},{"to":"rec-1","note":"c4n4ry","n\u006fte":1}]}"#),
        ("Gifts", r#"{"lines":[{"to":"rec-1","note":"c4n4ry"}],"lines":[]}"#),
    ] {
        cases.push(case(event_type, payload, is, "write it once"));
    }
    all_are_refused(cases).await;
    let shop = Shop::new(declared()).await;
    let twice = NewEvent::raw("Gifts", 1, r#"{"lines":[null,{"to":1,"note":"c4n4ry","note":1}]}"#);
    let error = shop.refuses("a place", &order(), Any, &[twice]).await;
    assert!(error.to_string().contains("/lines/1/note"), "{error}");
}

#[tokio::test]
async fn i2_i9_values_on_the_way_to_protected_places_have_the_right_shape() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::Event { fault: EventFault::ShapeMismatch { .. }, .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"customer_id":"cust-new","customer":"Bob, c4n4ry@example.org"}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":27182818284590452353}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":true}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":[{"name":"c4n4ry"}]}"#),
        ("Placed", r#"[{"customer_id":"cust-new","email":"c4n4ry"}]"#),
        ("Placed", r#""c4n4ry""#),
        ("Placed", "27182818284590452353"),
        ("Placed", "true"),
        ("Gifts", r#"{"lines":{"to":"rec-1","note":"c4n4ry"}}"#),
        ("Gifts", r#"{"lines":"c4n4ry"}"#),
        ("Gifts", r#"{"lines":["c4n4ry"]}"#),
        ("Gifts", r#"{"lines":[[{"to":"rec-1","note":"c4n4ry"}]]}"#),
        ("Noted", r#"{"pages":"c4n4ry"}"#),
    ] {
        cases.push(case(event_type, payload, is, "correct the payload or the schema"));
    }
    all_are_refused(cases).await;
}

#[tokio::test]
async fn i2_i9_a_protected_value_needs_an_owner() {
    let missing: fn(&Error) -> bool =
        |error| matches!(error, Error::Event { fault: EventFault::MissingScopeId { .. }, .. });
    let invalid: fn(&Error) -> bool =
        |error| matches!(error, Error::Event { fault: EventFault::InvalidScopeId { .. }, .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"email":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":null,"email":"c4n4ry"}"#),
        ("Placed", r#"{"customer":{"customer_id":"cust-new","name":"c4n4ry"}}"#),
        ("Gifts", r#"{"lines":[{"note":"c4n4ry"}]}"#),
        ("Gifts", r#"{"lines":[{"to":null,"note":"c4n4ry"}]}"#),
        // Another element's subject is not this one's.
        ("Gifts", r#"{"lines":[{"to":"rec-1"},{"note":"c4n4ry"}]}"#),
        ("WholeOfSubject", r#"{"x":"c4n4ry"}"#),
        ("WholeOfSubject", r#"["c4n4ry"]"#),
    ] {
        cases.push(case(event_type, payload, missing, "set it, or leave the field out"));
    }
    let long = format!("\"{}\"", "i".repeat(1_025));
    for id in [
        "true",
        "false",
        "1.0",
        "1e3",
        "-0",
        "0.5",
        "1E2",
        "\"\"",
        "\"a\\u0000b\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "[\"c4n4ry\"]",
        "{\"id\":\"c4n4ry\"}",
        &long,
    ] {
        let advice = "scope ids are non-empty strings without NUL, or integers";
        cases.push(case("Placed", format!("{{\"customer_id\":{id},\"email\":\"c4n4ry\"}}"), invalid, advice));
        cases.push(case("WholeOfSubject", format!("{{\"customer_id\":{id},\"email\":\"c4n4ry\"}}"), invalid, advice));
    }
    // The error does not repeat an id that is refused.
    cases.push(case("Placed", r#"{"customer_id":27182818284590452353.5,"email":"c4n4ry"}"#, invalid, "integers"));
    cases.push(case(
        "Placed",
        format!("{{\"customer_id\":\"{}\",\"email\":1}}", CANARY.repeat(200)),
        invalid,
        "integers",
    ));
    all_are_refused(cases).await;
    // The longest that is allowed.
    let shop = Shop::new(declared()).await;
    let longest = placed(format!("{{\"customer_id\":\"{}\",\"email\":\"c4n4ry\"}}", "i".repeat(1_024)));
    shop.append(&order(), Any, &[longest]).await.unwrap();
}

#[tokio::test]
async fn i2_i9_payloads_have_limits() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::Event { fault: EventFault::LimitExceeded { .. }, .. });
    let advice = "make the payload smaller";
    let nested = |depth: usize| {
        format!(
            "{{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\",\"x\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let inside = |depth: usize| {
        format!("{{\"customer_id\":\"cust-new\",\"email\":{}\"c4n4ry\"{}}}", "[".repeat(depth), "]".repeat(depth))
    };
    let notes = |count: usize| {
        let lines: Vec<String> = (0..count).map(|_| r#"{"to":"rec-1","note":"c4n4ry"}"#.to_owned()).collect();
        format!("{{\"lines\":[{}]}}", lines.join(","))
    };
    let subjects = |count: usize| {
        let lines: Vec<String> = (0..count).map(|line| format!("{{\"to\":{line},\"note\":\"c4n4ry\"}}")).collect();
        format!("{{\"lines\":[{}]}}", lines.join(","))
    };
    all_are_refused(vec![
        case("Placed", nested(128), is, advice),
        case("Placed", nested(100_000), is, advice),
        case("Placed", inside(128), is, advice),
        case("Placed", "{\"x\":".repeat(200), is, advice),
        // Too deep to be told from a sealed payload.
        case("Open", format!("{{\"$seal\":{}{}}}", "[".repeat(128), "]".repeat(128)), is, advice),
        case("Unknown", format!("{{\"\\u0024seal\":{}{}}}", "[".repeat(128), "]".repeat(128)), is, advice),
        case("Gifts", format!("{{\"lines\":[{}null]}}", "{\"note\":null},".repeat(4_097)), is, advice),
        case("Gifts", notes(4_097), is, advice),
        case("Gifts", subjects(1_025), is, advice),
    ])
    .await;
    // One less of each is no problem.
    let shop = Shop::new(declared()).await;
    for event in [
        placed(nested(127)),
        placed(inside(127)),
        NewEvent::raw("Gifts", 1, notes(4_096)),
        NewEvent::raw("Gifts", 1, subjects(1_024)),
    ] {
        let payload = event.payload().to_vec();
        shop.append(&order(), Any, &[event]).await.unwrap();
        let read = shop.store.read_stream(&mut shop.db.begin(), &order()).await.unwrap();
        assert!(read.events.last().unwrap().payload == payload);
    }
    shop.recorder.assert_clean("at the limits");
}

#[tokio::test]
async fn i2_i9_a_payload_of_more_than_64_mebibytes_is_refused() {
    let shop = Shop::new(declared()).await;
    for event_type in ["Placed", "Whole"] {
        let mut payload = br#"{"customer_id":"cust-new","email":"c4n4ry"}"#.to_vec();
        payload.resize((64 << 20) + 1, b' ');
        let error = shop.refuses(event_type, &order(), Any, &[NewEvent::raw(event_type, 1, payload)]).await;
        assert!(
            matches!(error, Error::Event { fault: EventFault::LimitExceeded { limit, .. }, .. } if limit == 64 << 20),
            "{error:?}"
        );
        assert!(error.to_string().contains("make the payload smaller"), "{error}");
    }
}

/// Many small values that are padded to a lot would store many times what was passed.
#[tokio::test]
async fn i2_i9_padding_has_a_limit_for_the_event_as_a_whole() {
    let padded = event("Padded").version(1).protect(&["/values/*"], Owner::Aggregate).pad_to("/values/*", 65_536);
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), Schemas::new([padded]).unwrap());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    sealer.keys().prepare(&mut db.begin()).await.unwrap();
    let values =
        |count: usize| NewEvent::raw("Padded", 1, format!(r#"{{"values":["{CANARY}"{}]}}"#, ",1".repeat(count - 1)));
    let mut tx = db.begin();
    let event = values(256);
    let sealed = sealer.seal(&mut tx, &order(), std::slice::from_ref(&event)).await.unwrap().into_owned().remove(0);
    let stored = PersistedEvent::from_new(order(), AggregateVersion::FIRST, GlobalPosition::START, sealed);
    assert_eq!(sealer.open(&mut tx, vec![stored]).await.unwrap()[0].payload, event.payload());
    let error = sealer.seal(&mut tx, &order(), &[values(257)]).await.unwrap_err();
    assert!(
        matches!(error, Error::Event { fault: EventFault::LimitExceeded { limit, .. }, .. } if limit == 16 << 20),
        "{error:?}"
    );
    assert_silent("padding", &error);
}
