//! Altered values.

use super::making::Kind::{Sealed, Void};
use super::making::{CUSTOMER, Mode, customer, member, order};
use crate::vectors::case::Case;
use crate::vectors::case::Status::Shredded;
use eventseal::internals::format::{bytes_of_token, token};

pub(super) fn all() -> Vec<Case> {
    [tokens(), spellings(), missing()].concat()
}

fn pair(name: &str) -> Case {
    customer(name).protect("/name").protect("/nick").seals(r#"{"name":"Augusta Ada","nick":"Ada","city":"London"}"#)
}

fn lines(name: &str) -> Case {
    order(name).protect("/lines/*/note").seals(r#"{"lines":[{"note":"a"},{"note":"b"}]}"#)
}

fn tokens() -> Vec<Case> {
    let changed = |name, change: fn(&mut Vec<u8>)| {
        pair(name).stored_as(|sealed| {
            let old = member(sealed, "name");
            let mut bytes = bytes_of_token(&old).unwrap();
            change(&mut bytes);
            sealed.replace(&old, &token(&bytes))
        })
    };
    vec![
        changed("flipped-token", |token| token[0] ^= 1).tampered("token"),
        changed("flipped-tag-of-a-token", |token| *token.last_mut().unwrap() ^= 1).tampered("token"),
        changed("truncated-token", |token| token.truncate(15)).tampered("token"),
        changed("empty-token", Vec::clear).tampered("token"),
        pair("token-of-another-field")
            .stored_as(|sealed| {
                let (name, nick) = (member(sealed, "name"), member(sealed, "nick"));
                sealed.replace(&name, "?").replace(&nick, &name).replace('?', &nick)
            })
            .tampered("token"),
        lines("tokens-exchanged-in-an-array")
            .stored_as(|sealed| {
                let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
                let [a, b] = [0, 1].map(|line| value["lines"][line]["note"].to_string());
                sealed.replace(&a, "?").replace(&b, &a).replace('?', &b)
            })
            .tampered("token"),
    ]
}

/// Values other than a token at a protected place.
fn spellings() -> Vec<Case> {
    let replaced = |name, with: &str| pair(name).stored_as(|sealed| sealed.replace(&member(sealed, "name"), with));
    let shredded = |name, with: &str| replaced(name, with).with(CUSTOMER, Shredded);
    let void = |name, value: &str| {
        let case = customer(name).protect("/name").with(CUSTOMER, Shredded);
        let (header, _) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Void, "/name")]);
        case.stored(&format!(r#"{{"$seal":{},"name":{value}}}"#, token(&header)))
    };
    let unpadded = |name, padded: &[u8]| {
        let case = customer(name).protect("/name");
        let (header, keys) = case.header(Mode::Fields, &[CUSTOMER], &[(0, Sealed, "/name")]);
        let name = token(&keys[0].encrypt(0, "/name", padded));
        case.stored(&format!(r#"{{"$seal":{},"name":{name}}}"#, token(&header)))
    };
    vec![
        replaced("plaintext-in-place-of-a-token", "\"Eve!\"").tampered("token-encoding"),
        replaced("null-in-place-of-a-token", "null").tampered("token-encoding"),
        replaced("token-with-padding", "\"AA==\"").tampered("token-encoding"),
        replaced("token-of-the-standard-alphabet", "\"++//\"").tampered("token-encoding"),
        replaced("token-with-trailing-bits", "\"AB\"").tampered("token-encoding"),
        pair("token-with-an-escape")
            .stored_as(|sealed| {
                let name = member(sealed, "name");
                sealed.replace(&name, &format!("\"\\u{:04x}{}", name.as_bytes()[1], &name[2..]))
            })
            .tampered("token-encoding"),
        unpadded("value-without-padding", b"\"Ada\"").tampered("token"),
        unpadded("value-of-zeros", &[0; 32]).tampered("token"),
        shredded("malformed-token-under-a-shredded-key", "\"Eve!\"").tampered("token-shape"),
        shredded("null-under-a-shredded-key", "null").tampered("token-shape"),
        shredded("short-token-under-a-shredded-key", &token(&[0; 16])).tampered("token-shape"),
        shredded("token-of-a-wrong-length-under-a-shredded-key", &token(&[0; 47])).tampered("token-shape"),
        void("void-place-holding-a-value", "\"Eve\"").tampered("void-value"),
        void("void-place-holding-a-token", &token(&[0; 48])).tampered("void-value"),
    ]
}

/// Values that are not there, or twice.
fn missing() -> Vec<Case> {
    vec![
        pair("missing-value")
            .stored_as(|sealed| sealed.replace(&format!("\"name\":{},", member(sealed, "name")), ""))
            .tampered("values"),
        lines("missing-element")
            .stored_as(|sealed| {
                let value: serde_json::Value = serde_json::from_str(sealed).unwrap();
                sealed.replace(&format!(",{}", value["lines"][1]), "")
            })
            .tampered("values"),
        pair("a-sealed-member-twice")
            .stored_as(|sealed| sealed.replace(r#""city""#, r#""n\u0061me""#))
            .tampered("duplicate"),
        {
            let mut case = pair("a-sealed-member-twice-for-a-reader-that-does-not-protect-it")
                .stored_as(|sealed| sealed.replace(r#""city""#, r#""n\u0061me""#));
            case.plan.remove(0);
            case.tampered("values")
        },
    ]
}
