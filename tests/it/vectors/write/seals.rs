//! Seals that are missing, doubled or no seals, and payloads that are not what a reader protects.

use super::making::{CUSTOMER, customer, member};
use crate::vectors::case::Case;
use crate::vectors::case::Status::Shredded;

pub(super) fn all() -> Vec<Case> {
    [stripped(), spellings(), doubled(), syntax(), shapes()].concat()
}

fn one(name: &str) -> Case {
    customer(name).protect("/name").seals(r#"{"name":"Ada","city":"London"}"#)
}

fn whole(name: &str) -> Case {
    customer(name).protect("").seals(r#"{"name":"Ada"}"#)
}

fn stripped() -> Vec<Case> {
    vec![
        one("stripped-seal")
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", "/name"),
        customer("plaintext-without-a-seal")
            .protect("/a/*/b")
            .stored(r#"{"a":[{"b":null},{},{"b":false}]}"#)
            .fails("Unsealed", "/a/2/b"),
        one("stripped-seal-under-a-shredded-key")
            .with(CUSTOMER, Shredded)
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", "/name"),
        one("plaintext-beside-a-seal")
            .protect("/nick")
            .stored_as(|sealed| sealed.replace("city", "nick"))
            .fails("Unsealed", "/nick"),
        whole("stripped-seal-of-a-whole")
            .stored_as(|sealed| sealed.replace(&format!("\"$seal\":{},", member(sealed, "$seal")), ""))
            .fails("Unsealed", ""),
        customer("no-json-where-the-whole-is-protected").protect("").stored_bytes(b"\xff\x00").fails("Unsealed", ""),
        {
            let mut case = one("fields-sealed-where-the-whole-is-protected");
            case.plan[0].pointer = String::new();
            case.fails("Unsealed", "")
        },
    ]
}

/// Headers that are no base64url.
fn spellings() -> Vec<Case> {
    let seal = |name, value: &str| one(name).stored_as(|sealed| sealed.replace(&member(sealed, "$seal"), value));
    // A header of a length that leaves unused bits in the last character.
    let uneven = |name| customer(name).protect("/nickname").seals(r#"{"nickname":"A"}"#);
    let last_changed = |name, change: fn(char) -> String| {
        uneven(name).stored_as(|sealed| {
            let header = member(sealed, "$seal");
            let (rest, last) = header.split_at(header.len() - 2);
            sealed.replace(&header, &format!("{rest}{}\"", change(char::from(last.as_bytes()[0]))))
        })
    };
    vec![
        seal("seal-is-null", "null").tampered("header-encoding"),
        seal("seal-is-a-number", "1").tampered("header-encoding"),
        seal("seal-is-an-object", "{}").tampered("header-encoding"),
        seal("seal-is-not-base64url", "\"AQEA AAA\"").tampered("header-encoding"),
        seal("seal-of-an-impossible-length", "\"AQEAA\"").tampered("header-encoding"),
        last_changed("seal-with-padding", |last| format!("{last}==")).tampered("header-encoding"),
        last_changed("seal-with-trailing-bits", |last| char::from(last as u8 + 1).to_string())
            .tampered("header-encoding"),
        one("seal-with-an-escape")
            .stored_as(|sealed| sealed.replace("\"$seal\":\"A", "\"$seal\":\"\\u0041"))
            .tampered("header-encoding"),
    ]
}

/// Two seals, and members that a sealed whole does not have.
fn doubled() -> Vec<Case> {
    vec![
        one("two-seals").stored_as(|sealed| sealed.replacen('{', r#"{"$seal":"","#, 1)).tampered("duplicate"),
        one("two-seals-one-escaped")
            .stored_as(|sealed| {
                sealed.replace(r#""city":"London""#, &format!("\"\\u0024seal\":{}", member(sealed, "$seal")))
            })
            .tampered("duplicate"),
        whole("extra-member-beside-a-whole")
            .stored_as(|sealed| sealed.replacen('{', r#"{"x":1,"#, 1))
            .tampered("values"),
        whole("missing-whole")
            .stored_as(|sealed| format!("{{\"$seal\":{}}}", member(sealed, "$seal")))
            .tampered("values"),
        whole("other-member-in-place-of-a-whole")
            .stored_as(|sealed| sealed.replace("$sealed", "$sealer"))
            .tampered("values"),
        whole("two-wholes")
            .stored_as(|sealed| sealed.replacen('{', &format!("{{\"$sealed\":{},", member(sealed, "$sealed")), 1))
            .tampered("values"),
    ]
}

/// Payloads that are not JSON.
fn syntax() -> Vec<Case> {
    let syntax = |name, members: &str| {
        one(name).stored_as(|sealed| sealed.replace(r#""city":"London""#, members)).fails("InvalidPayload", "")
    };
    vec![
        one("no-json").stored_as(|sealed| sealed.replace('}', "")).fails("InvalidPayload", ""),
        one("no-utf-8").stored_bytes(b"{\"name\":\"\xff\"}").fails("InvalidPayload", ""),
        syntax("no-comma", r#""x":1 "y":2"#),
        syntax("a-comma-too-many", r#""x":1,"#),
        syntax("no-colon", r#""x" 1"#),
        syntax("no-name", "x:1"),
        syntax("no-comma-in-an-array", r#""x":[1 2]"#),
        syntax("an-array-ended-like-an-object", r#""x":[1}"#),
        syntax("no-value", r#""x":"#),
        syntax("a-leading-zero", r#""x":01"#),
        syntax("a-number-without-digits", r#""x":1.e5"#),
        syntax("no-literal", r#""x":True"#),
        syntax("an-unknown-escape", r#""x":"\x41""#),
        syntax("an-escape-of-three-digits", r#""x":"\u041""#),
        syntax("a-control-character", "\"x\":\"\t\""),
        syntax("white-space-of-another-kind", "\"x\":\u{a0}1"),
        one("a-byte-order-mark").stored_as(|sealed| format!("\u{feff}{sealed}")).fails("InvalidPayload", ""),
        one("something-behind-the-document").stored_as(|sealed| format!("{sealed} x")).fails("InvalidPayload", ""),
    ]
}

/// JSON that is not of the shape that is protected.
fn shapes() -> Vec<Case> {
    vec![
        one("nested-too-deep")
            .stored_as(|sealed| sealed.replace("\"London\"", &format!("{}{}", "[".repeat(128), "]".repeat(128))))
            .fails("LimitExceeded", ""),
        customer("a-scalar-on-the-way")
            .protect("/contact/email")
            .stored(r#"{"contact":"ada@example.org"}"#)
            .fails("ShapeMismatch", "/contact"),
        customer("an-object-where-an-array-is-protected")
            .protect("/a/*")
            .stored(r#"{"a":{"b":1}}"#)
            .fails("ShapeMismatch", "/a"),
        customer("an-array-where-an-object-is-protected")
            .protect("/a/*/b")
            .stored(r#"{"a":[{},[1]]}"#)
            .fails("ShapeMismatch", "/a/1"),
        customer("a-root-that-is-no-object").protect("/name").stored(r#""Ada""#).fails("ShapeMismatch", ""),
    ]
}
