//! The cases of metadata: sealed like payloads, and told apart from them by their part. The files are frozen like the
//! first.

use super::making::{CUSTOMER, ORDER, SALT, customer, member, order};
use crate::vectors::case::Status::{Disabled, Missing, Shredded};
use crate::vectors::case::{Case, Vectors};

pub(in crate::vectors) fn pass() -> Vectors {
    vectors("metadata that open", opening())
}

pub(in crate::vectors) fn fail() -> Vectors {
    vectors("metadata that must not open", refused())
}

fn vectors(of: &str, cases: Vec<Case>) -> Vectors {
    let about = format!("eventseal, sealed payload format version 1: {of}. Frozen: see docs/format.md.");
    Vectors { about, format: 1, cases, wrapped_keys: Vec::new() }
}

/// Metadata of a login: an address and agents of an actor, and a note of the aggregate.
fn login(name: &str) -> Case {
    let case = order(name).of_metadata().key(CUSTOMER, "Customer", "cust_42").protect("/note");
    case.protect_for("/ip", "Customer", "/actor/id").stand_in("\"unknown\"").pad(64).protect_for(
        "/seen/*/agent",
        "Customer",
        "/actor/id",
    )
}

fn sealed(name: &str) -> Case {
    login(name).seals(concat!(
        r#"{"actor":{"id":"cust_42"}, "ip" : "192.0.2.7","seen":[{"agent":"curl"},{"n":1.50}],"#,
        r#""note":null}"#
    ))
}

fn one(name: &str) -> Case {
    customer(name).of_metadata().protect("/ip").seals(r#"{"ip":"192.0.2.7","n":1}"#)
}

fn opening() -> Vec<Case> {
    let erased = concat!(
        r#"{"actor":{"id":"cust_42"}, "ip" : "unknown","seen":[{"agent":null},{"n":1.50}],"#,
        r#""note":null}"#
    );
    // What a database makes of it that keeps metadata as JSON: members are sorted and white space is gone.
    let moved = |sealed: &str| {
        let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
        let (seal, ip) = (member(sealed, "$seal"), member(sealed, "ip"));
        format!(r#"{{"n": {}, "ip": {ip}, "$seal": {seal}}}"#, value["n"])
    };
    vec![
        one("metadata-one-field"),
        sealed("metadata-of-two-owners"),
        sealed("metadata-of-a-shredded-owner").with(CUSTOMER, Shredded).opens(erased, &["/ip", "/seen/0/agent"]),
        one("metadata-respelled-by-a-store").stored_as(moved).read_only().opens(r#"{"n": 1, "ip": "192.0.2.7"}"#, &[]),
        login("metadata-with-nothing-to-protect").seals(r#"{"seen":[],"n":1}"#),
        customer("metadata-that-no-plan-protects-now").of_metadata().stored(r#"{"ip":"192.0.2.7"}"#),
        customer("metadata-in-the-clear-that-are-accepted")
            .of_metadata()
            .protect("/ip")
            .accepting()
            .stored(r#"{"ip":"192.0.2.7"}"#),
    ]
}

fn refused() -> Vec<Case> {
    let as_payload = |mut case: Case| {
        case.document = None;
        case
    };
    let as_metadata = |case: Case| {
        let case = customer(case.name.as_str()).protect("/ip").seals(r#"{"ip":"192.0.2.7","n":1}"#);
        case.of_metadata()
    };
    let part = |name: &str, part: u8| one(name).header_changed(move |header| header[2] = part);
    vec![
        as_payload(one("metadata-as-a-payload")).tampered("header-layout"),
        as_metadata(one("a-payload-as-metadata")).tampered("header-layout"),
        part("metadata-that-say-they-are-a-payload", 0).tampered("header-layout"),
        part("metadata-that-say-they-are-a-snapshot", 2).tampered("header-layout"),
        part("metadata-that-say-they-are-a-value", 3).fails("Unsupported", "part"),
        one("metadata-of-another-salt").header_changed(|header| header[SALT] ^= 1).tampered("commitment"),
        one("metadata-of-another-salt-and-a-shredded-owner")
            .header_changed(|header| header[SALT] ^= 1)
            .with(CUSTOMER, Shredded)
            .tampered("tag"),
        one("metadata-without-the-value")
            .stored_as(|_| r#"{"n":1}"#.into())
            .stored_as(|_| {
                one("metadata-without-the-value")
                    .text()
                    .replace(&format!("\"ip\":{},", member(&one("metadata-without-the-value").text(), "ip")), "")
            })
            .tampered("values"),
        one("metadata-of-a-missing-key").with(CUSTOMER, Missing).fails("MissingKey", &super::making::id_of(CUSTOMER)),
        sealed("metadata-of-a-disabled-owner").with(ORDER, Disabled).fails("Disabled", "Order ord_7"),
        customer("metadata-in-the-clear").of_metadata().protect("/ip").stored(r#"{"ip":1}"#).fails("Unsealed", "/ip"),
        customer("metadata-of-another-shape")
            .of_metadata()
            .protect("/seen/*/agent")
            .stored(r#"{"seen":"curl"}"#)
            .fails("ShapeMismatch", "/seen"),
    ]
}
