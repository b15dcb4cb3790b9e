//! Makes up values for the taint check, and completes samples with them.

use crate::pattern::{Pattern, Token};
use crate::taint::chain::Document;
use eventseal::Owner;
use eventseal::schema::SchemaVersion;
use serde_json::{Map, Value, json};

/// A text that steps can split at spaces, dots and an `@`.
const TEXT: &str = "some text@example.org";
const ID: &str = "id-1";

/// Puts a text at each protected place without a value, and an id where the owner's id is missing.
pub(super) fn complete(content: &mut Value, version: &SchemaVersion, document: Document) {
    for place in document.protected(version) {
        let id = match (&place.owner, document) {
            (Owner::Subject { id, .. }, Document::Payload)
            | (Owner::Metadata { id, .. } | Owner::Caller { id, .. }, Document::Metadata) => Pattern::parse(id),
            _ => None,
        };
        if let Some(pattern) = id {
            put(content, pattern.tokens(), &json!(ID));
        }
        match Pattern::parse(&place.pointer) {
            Some(pattern) => put(content, pattern.tokens(), &json!(TEXT)),
            // The whole payload.
            None if content.as_object().is_some_and(Map::is_empty) => *content = json!({ "text": TEXT }),
            None => {}
        }
    }
}

/// Puts a value at a place, unless it has one. A payload that has no room for it stays as it is.
fn put(at: &mut Value, tokens: &[Token], value: &Value) {
    match (tokens, at) {
        ([], at @ Value::Null) => *at = value.clone(),
        ([Token::Name(name), rest @ ..], at @ (Value::Null | Value::Object(_))) => {
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
            if let Value::Object(members) = at {
                put(members.entry(name.clone()).or_insert(Value::Null), rest, value);
            }
        }
        ([Token::Each, rest @ ..], at @ (Value::Null | Value::Array(_))) => {
            if at.is_null() || at.as_array().is_some_and(Vec::is_empty) {
                *at = json!([null]);
            }
            if let Value::Array(elements) = at {
                elements.iter_mut().for_each(|element| put(element, rest, value));
            }
        }
        ([Token::Member, rest @ ..], at @ (Value::Null | Value::Object(_))) => {
            if at.is_null() || at.as_object().is_some_and(Map::is_empty) {
                *at = json!({ ID: null });
            }
            if let Value::Object(members) = at {
                members.values_mut().for_each(|member| put(member, rest, value));
            }
        }
        _ => {}
    }
}
