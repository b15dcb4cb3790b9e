//! I1: a sealed payload opens to the very bytes that were appended.
//!
//! Documents are made as texts, not as values: what a JSON library would normalise away is what must
//! survive. Each is a list of segments, so that the tests know what must be hidden and what must not
//! change, without relying on the scanner that they test.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

mod dice;
mod documents;
mod stored;
mod whole;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dice::Dice;
use eventseal::{AggregateRef, NewEvent, Owner, PersistedEvent, Schemas, aggregate, event, subject};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use support::sealing::{CANARY, SealerWorld, holds_canary};

fn schemas() -> Schemas {
    Schemas::builder([
        event("Fields")
            .version(1)
            .protect(&["/email", "/customer/name"], subject("Customer", "/customer_id"))
            .protect(&["/lines/*/note"], subject("Recipient", "/lines/*/to"))
            .protect(&["/owner/id", "/owner/tax"], subject("Owner", "/owner/id"))
            .protect(&["/a~1b", "/~02", "/~2", "/", "/grid/*/*"], Owner::Aggregate)
            .pad_to("/email", 256),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("WholeOfSubject").version(1).protect_whole(subject("Customer", "/customer/id")),
        event("Open").version(1),
    ])
    .allow_unknown_types()
    .build()
    .unwrap()
}

/// The unescaped names of the protected members, by the object that they are in.
const ROOT: &[&str] = &["email", "customer", "customer_id", "lines", "owner", "a/b", "~2", "*", "", "grid", "$seal"];
const CUSTOMER: &[&str] = &["name"];
const LINE: &[&str] = &["note", "to"];
const OWNER: &[&str] = &["id", "tax"];

#[derive(Clone)]
enum Segment {
    /// Stays as it is.
    Plain(String),
    /// The text of a protected value.
    Secret(String),
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(text) => write!(f, "«{text}»"),
        }
    }
}

type Document = Vec<Segment>;

fn text_of(document: &[Segment]) -> String {
    document.iter().map(|(Segment::Plain(text) | Segment::Secret(text))| text.as_str()).collect()
}

fn secrets_of(document: &[Segment]) -> Vec<&str> {
    document
        .iter()
        .filter_map(|segment| if let Segment::Secret(text) = segment { Some(text.as_str()) } else { None })
        .collect()
}

/// A document written with its protected values in «guillemets».
fn template(text: &str) -> Document {
    let mut document = Vec::new();
    for (index, part) in text.split(['«', '»']).enumerate() {
        document.push(if index % 2 == 0 { Segment::Plain(part.to_owned()) } else { Segment::Secret(part.to_owned()) });
    }
    document
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn order() -> AggregateRef {
    aggregate("Order", "ord-1")
}

/// The sealed text without its header.
fn without_header(sealed: &str) -> String {
    let start = sealed.find("\"$seal\":\"").expect("a header");
    let value = start + "\"$seal\":\"".len();
    let end = value + sealed[value..].find('"').unwrap() + 1;
    assert!(is_base64url(&sealed[value..end - 1]));
    assert_eq!(&sealed[end..=end], ",", "something protected follows the header");
    format!("{}{}", &sealed[..start], &sealed[end + 1..])
}

fn is_base64url(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The text in place of each secret, if everything else is unchanged.
fn tokens(bare: &str, document: &[Segment]) -> Vec<String> {
    let mut rest = bare;
    let mut tokens = Vec::new();
    for segment in document {
        match segment {
            Segment::Plain(text) => {
                rest = rest
                    .strip_prefix(text.as_str())
                    .unwrap_or_else(|| panic!("something unprotected changed: {text:?} became {rest:?}"));
            }
            Segment::Secret(_) => {
                let inner = rest.strip_prefix('"').expect("a string in place of a protected value");
                let end = inner.find('"').unwrap();
                assert!(is_base64url(&inner[..end]), "{inner}");
                tokens.push(inner[..end].to_owned());
                rest = &inner[end + 1..];
            }
        }
    }
    assert_eq!(rest, "");
    tokens
}

/// The invariant, and what must hold of the stored text on the way. Returns that text and its tokens.
fn check(world: &SealerWorld, document: &[Segment]) -> (PersistedEvent, Vec<String>) {
    let payload = text_of(document);
    assert!(is_json(payload.as_bytes()), "the test made no JSON: {payload}");
    let stored = world.seal(&order(), NewEvent::raw("Fields", 1, payload.as_str())).unwrap();
    let sealed = std::str::from_utf8(&stored.payload).unwrap();
    let secrets = secrets_of(document);
    let mut found = Vec::new();
    if secrets.is_empty() {
        assert_eq!(sealed, payload, "nothing to protect: nothing changes");
    } else {
        assert!(is_json(sealed.as_bytes()), "{sealed}");
        assert!(!holds_canary(sealed.as_bytes()), "plaintext leaked: {sealed}");
        found = tokens(&without_header(sealed), document);
        // Without the tags: two equal values under one key and one nonce would differ in those alone.
        let bodies = found
            .iter()
            .map(|token| URL_SAFE_NO_PAD.decode(token).unwrap())
            .map(|token| token[..token.len() - 16].to_vec());
        let distinct: std::collections::HashSet<Vec<u8>> = bodies.collect();
        assert_eq!(distinct.len(), found.len(), "equal values must not look equal");
    }
    let opened = world.open(&stored).unwrap();
    assert_eq!(String::from_utf8(opened.payload).unwrap(), payload);
    assert!(opened.redacted.is_empty());
    (stored, found)
}

fn documents(tame: bool) -> impl Strategy<Value = Document> {
    vec(any::<u8>(), 0..600).prop_map(move |bytes| Dice { bytes: &bytes, tame }.document())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

/// Another printer: members sorted up or down, with or without spaces.
fn print(value: &Value, reverse: bool, spaces: bool) -> String {
    let space = if spaces { " " } else { "" };
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().map(|(name, value)| (Value::from(name.as_str()).to_string(), value)).collect();
            members.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if reverse {
                members.reverse();
            }
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{name}{space}:{space}{}", print(value, reverse, spaces)))
                .collect();
            format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| print(item, reverse, spaces)).collect();
            format!("[{}]", items.join(&format!("{space},{space}")))
        }
        scalar => scalar.to_string(),
    }
}
