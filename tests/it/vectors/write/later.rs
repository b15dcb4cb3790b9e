//! The cases of the second vector files of format version 1: questions of two readers of the format's page, and a plan
//! that can never seal. The files are frozen like the first.

use super::making::{CUSTOMER, ORDER, customer, order};
use crate::vectors::case::Status::Shredded;
use crate::vectors::case::{Case, Vectors};

pub(in crate::vectors) fn pass() -> Vectors {
    vectors("payloads that open", [sealers(), readers()].concat())
}

pub(in crate::vectors) fn fail() -> Vectors {
    vectors("payloads that must not open", [plans(), headers()].concat())
}

fn vectors(of: &str, cases: Vec<Case>) -> Vectors {
    let about = format!("eventseal, sealed payload format version 1: more {of}. Frozen: see docs/format.md.");
    Vectors { about, format: 1, cases, wrapped_keys: Vec::new() }
}

/// Whose keys a value is sealed under, and which `null`s are left alone.
fn sealers() -> Vec<Case> {
    let owned = |name| {
        let case = order(name).protect("/card").protect_for("/name", "Customer", "/customer_id").protect_for(
            "/nick",
            "Customer",
            "/customer_id",
        );
        case.key(CUSTOMER, "Customer", "cust_42")
    };
    let unnamed = |name| {
        order(name).protect_for("/name", "Customer", "/customer_id").protect_for("/nick", "Customer", "/customer_id")
    };
    vec![
        owned("nulls-of-an-owner-who-is-named-are-sealed")
            .seals(concat!(r#"{"name":null,"customer_id":"cust_42","#, r#""nick":"Ada","card":null}"#)),
        owned("nulls-of-an-owner-who-is-not-named-stay").seals(r#"{"name":null,"nick":null,"card":null}"#),
        owned("nulls-of-an-owner-whose-id-is-null-stay")
            .seals(concat!(r#"{"customer_id":null,"name":null,"#, r#""card":1,"nick":null}"#)),
        unnamed("nothing-but-such-nulls-needs-no-header").seals(r#"{"customer_id":null,"name":null,"nick" : null }"#),
        order("a-star-in-a-scope-pointer-is-that-of-its-field")
            .key("guest 1", "Guest", "1")
            .key("guest 2", "Guest", "2")
            .protect_for("/rooms/*/guests/*/name", "Guest", "/rooms/*/guests/*/id")
            .protect_for("/rooms/*/guests/*/bill", "Guest", "/rooms/*/payer")
            .protect_for("/rooms/*/minibar", "Guest", "/payers/0")
            .seals(concat!(
                r#"{"rooms":[{"payer":2,"guests":[{"id":1,"name":"Ada","bill":3},"#,
                r#"{"id":2,"name":"Grace"}],"minibar":true},"#,
                r#"{"guests":[{"name":"Ada","id":1,"bill":null}]}],"payers":[2,1]}"#
            )),
        order("ids-are-what-strings-say-and-how-integers-are-spelled")
            .key("guest 1", "Guest", "-12")
            .key("guest 2", "Guest", "1234567890123456789012345")
            .protect_for("/guests/*/name", "Guest", "/guests/*/id")
            .seals(concat!(
                r#"{"guests":[{"id":-12,"name":"Ada"},{"id":"-1\u0032","name":"Ada"},"#,
                r#"{"id":1234567890123456789012345,"name":"Grace"},"#,
                r#"{"id":"1234567890123456789012345","name":"Grace"}]}"#
            )),
        order("the-owner-s-id-may-be-sealed-itself")
            .key(CUSTOMER, "Customer", "cust_42")
            .protect_for("/customer_id", "Customer", "/customer_id")
            .protect_for("/name", "Customer", "/customer_id")
            .seals(r#"{"customer_id":"cust_42","name":"Ada"}"#)
            .with(CUSTOMER, Shredded)
            .opens(r#"{"customer_id":null,"name":null}"#, &["/customer_id", "/name"]),
    ]
}

/// Payloads that a reader hands out unchanged.
fn readers() -> Vec<Case> {
    vec![
        customer("no-plan-and-no-json").stored_bytes(b"\xff\x00"),
        customer("no-plan-and-no-bytes").stored_bytes(b""),
        customer("no-plan-and-an-object-that-does-not-end").stored(r#"{"name":"Ada""#),
        customer("no-plan-and-nested-too-deep").stored(&format!("{}{}", "[".repeat(129), "]".repeat(129))),
        customer("a-star-at-the-root-of-an-array-of-nulls").protect("/*").stored("[null, null]"),
        customer("a-star-at-the-root-of-an-array-of-accepted-plaintext")
            .protect("/*/name")
            .accepting()
            .stored(r#"[{"name":"Ada"}]"#),
    ]
}

/// A plan whose first step is a `*` means the elements of an array, and no payload with a header is one.
fn plans() -> Vec<Case> {
    let sealed = |name| order(name).protect("/name").seals(r#"{"name":"Ada","0":"Grace"}"#);
    let star = |mut case: Case, pointer: &str| {
        case.plan[0].pointer = pointer.into();
        case
    };
    vec![
        customer("a-star-at-the-root-of-an-object")
            .protect("/*")
            .stored(r#"{"name":"Ada"}"#)
            .fails("ShapeMismatch", ""),
        customer("a-star-at-the-root-of-an-empty-object").protect("/*").stored("{}").fails("ShapeMismatch", ""),
        customer("a-star-as-the-first-step")
            .protect("/*/name")
            .stored(r#"{"customer":{"name":"Ada"}}"#)
            .fails("ShapeMismatch", ""),
        customer("a-star-at-the-root-of-an-object-though-plaintext-is-accepted")
            .protect("/*")
            .accepting()
            .stored(r#"{"name":"Ada"}"#)
            .fails("ShapeMismatch", ""),
        star(sealed("a-star-at-the-root-of-a-sealed-payload"), "/*").fails("ShapeMismatch", ""),
        star(sealed("a-star-at-the-root-of-a-payload-whose-key-is-shredded").with(ORDER, Shredded), "/*")
            .fails("ShapeMismatch", ""),
        customer("a-star-at-the-root-of-an-array").protect("/*").stored(r#"[null,"Ada"]"#).fails("Unsealed", "/1"),
        customer("a-star-at-the-root-of-a-number").protect("/*").stored("42").fails("ShapeMismatch", ""),
        customer("a-name-that-is-no-index-at-the-root-of-an-array")
            .protect("/00")
            .stored(r#"["Ada"]"#)
            .fails("ShapeMismatch", ""),
    ]
}

/// The bytes are read from the first to the last: what is wrong first is what is said.
fn headers() -> Vec<Case> {
    let one = |name, change: fn(&mut Vec<u8>)| {
        customer(name).protect("/name").seals(r#"{"name":"Ada"}"#).header_changed(change)
    };
    vec![
        one("metadata-of-an-unknown-mode", |header| header[2..4].copy_from_slice(&[1, 9])).tampered("header-layout"),
        one("a-snapshot-of-an-unknown-mode", |header| header[2..4].copy_from_slice(&[2, 0x80]))
            .tampered("header-layout"),
        one("an-unknown-part-of-an-unknown-mode", |header| header[2..4].copy_from_slice(&[3, 9]))
            .fails("Unsupported", "part"),
        one("an-unknown-suite-of-an-unknown-part", |header| header[1..3].copy_from_slice(&[2, 9]))
            .fails("Unsupported", "suite"),
        one("an-unknown-format-and-nothing-else", |header| *header = vec![2]).fails("Unsupported", "format"),
        one("an-unknown-mode-and-nothing-behind-it", |header| *header = vec![1, 1, 0, 2]).fails("Unsupported", "mode"),
        one("a-header-that-ends-before-the-mode", |header| header.truncate(3)).tampered("header-layout"),
        one("metadata-and-nothing-behind-it", |header| *header = vec![1, 1, 1]).tampered("header-layout"),
    ]
}
