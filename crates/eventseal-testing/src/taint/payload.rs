//! Makes up payloads for the taint check, and completes samples.

use crate::pattern::{Pattern, Token};
use eventseal::Owner;
use eventseal::schema::SchemaVersion;
use serde_json::{Map, Value, json};

/// A text that steps can split at spaces, dots and an `@`.
const TEXT: &str = "some text@example.org";
const ID: &str = "id-1";

/// A payload with nothing but the protected places and the ids of their owners. Steps over `serde_json::Value` often
/// accept it.
pub(super) fn minimal(version: &SchemaVersion) -> Value {
    let mut payload = Value::Object(Map::new());
    complete(&mut payload, version);
    payload
}

/// Puts a text at each protected place without a value, and an id where the owner's id is missing.
pub(super) fn complete(payload: &mut Value, version: &SchemaVersion) {
    for place in &version.protected {
        if let Owner::Subject { id, .. } = &place.owner
            && let Some(pattern) = Pattern::parse(id)
        {
            put(payload, pattern.tokens(), &json!(ID));
        }
        match Pattern::parse(&place.pointer) {
            Some(pattern) => put(payload, pattern.tokens(), &json!(TEXT)),
            // The whole payload.
            None if payload.as_object().is_some_and(Map::is_empty) => *payload = json!({ "text": TEXT }),
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
