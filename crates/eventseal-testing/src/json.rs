//! Compares two JSON values, and visits the values in one.

use crate::pattern::{Pattern, Token, array_index, push_escaped};
use serde_json::Value;

/// One place where two values differ. `None` means that one of them has no value there.
pub(super) struct Differs {
    pub(super) pointer: String,
    pub(super) expected: Option<Value>,
    pub(super) actual: Option<Value>,
}

/// Every place where two values differ. The places are as deep in the values as possible.
pub(super) fn differences(expected: &Value, actual: &Value) -> Vec<Differs> {
    let mut found = Vec::new();
    compare(Some(expected), Some(actual), &mut String::new(), &mut found);
    found
}

fn compare(expected: Option<&Value>, actual: Option<&Value>, place: &mut String, found: &mut Vec<Differs>) {
    match (expected, actual) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let mut names: Vec<&String> =
                before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))).collect();
            names.sort_unstable();
            for name in names {
                at(place, name, |place| compare(before.get(name), after.get(name), place, found));
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for index in 0..before.len().max(after.len()) {
                at(place, &index.to_string(), |place| compare(before.get(index), after.get(index), place, found));
            }
        }
        (expected, actual) if expected != actual => {
            found.push(Differs { pointer: place.clone(), expected: expected.cloned(), actual: actual.cloned() });
        }
        _ => {}
    }
}

/// Visits every value that is not an object or array, and the name of every member, each with its place.
pub(super) fn each_leaf<'v>(value: &'v Value, visit: &mut dyn FnMut(&str, Leaf<'v>)) {
    leaves(value, &mut String::new(), visit);
}

/// A part of a JSON value that can hold a text.
#[derive(Clone, Copy)]
pub(super) enum Leaf<'v> {
    Name(&'v str),
    Value(&'v Value),
}

fn leaves<'v>(value: &'v Value, place: &mut String, visit: &mut dyn FnMut(&str, Leaf<'v>)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                at(place, name, |place| {
                    visit(place, Leaf::Name(name));
                    leaves(member, place, visit);
                });
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                at(place, &index.to_string(), |place| leaves(element, place, visit));
            }
        }
        other => visit(place, Leaf::Value(other)),
    }
}

/// The places in a value that a pattern means.
fn places(value: &Value, pattern: &Pattern) -> Vec<String> {
    fn walk(value: &Value, tokens: &[Token], place: &mut String, found: &mut Vec<String>) {
        match (tokens, value) {
            ([], _) => found.push(place.clone()),
            ([Token::Name(name), rest @ ..], Value::Object(members)) => {
                if let Some(member) = members.get(name) {
                    at(place, name, |place| walk(member, rest, place, found));
                }
            }
            ([Token::Name(name), rest @ ..], Value::Array(elements)) => {
                if let Some(element) = array_index(name).and_then(|index| elements.get(index)) {
                    at(place, name, |place| walk(element, rest, place, found));
                }
            }
            ([Token::Each, rest @ ..], Value::Array(elements)) => {
                for (index, element) in elements.iter().enumerate() {
                    at(place, &index.to_string(), |place| walk(element, rest, place, found));
                }
            }
            ([Token::Member, rest @ ..], Value::Object(members)) => {
                for (name, member) in members {
                    at(place, name, |place| walk(member, rest, place, found));
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, pattern.tokens(), &mut String::new(), &mut found);
    found
}

/// The places in a value that a registry's pointer means. `""` means the whole value.
pub(super) fn places_of(value: &Value, pointer: &str) -> Vec<String> {
    match Pattern::parse(pointer) {
        Some(pattern) => places(value, &pattern),
        None => vec![String::new()],
    }
}

fn at<T>(place: &mut String, token: &str, inside: impl FnOnce(&mut String) -> T) -> T {
    let length = place.len();
    place.push('/');
    push_escaped(place, token);
    let result = inside(place);
    place.truncate(length);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named_where_they_are() {
        let differ =
            |a: Value, b: Value| differences(&a, &b).into_iter().map(|differs| differs.pointer).collect::<Vec<_>>();
        assert_eq!(differ(json!({"a":{"b":1},"c":[1,2]}), json!({"c":[1,2],"a":{"b":1}})), [""; 0]);
        assert_eq!(
            differ(json!({"a":{"b":1},"c":[1,2]}), json!({"a":{"b":2},"c":[1],"d/e":0})),
            ["/a/b", "/c/1", "/d~1e"]
        );
        assert_eq!(differ(json!([]), json!({})), [""]);
        assert_eq!(differ(json!({"a":null}), json!({})), ["/a"], "an absent member is not null");
    }
}
