//! Compares two shapes: structs and enums member by member, everything else as a whole.

use crate::json::Differs;
use crate::pattern::push_escaped;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Every place where two shapes differ.
pub(super) fn differences(was: &Value, is: &Value) -> Vec<Differs> {
    let mut found = Vec::new();
    compare(was, is, "", &mut found);
    found
}

fn compare(was: &Value, is: &Value, place: &str, found: &mut Vec<Differs>) {
    match (was, is) {
        // Two structs are compared by their members even if only one of them has `deny_unknown_fields`.
        (Value::Object(before), Value::Object(after))
            if is_struct(before) && is_struct(after) || have_same_members(before, after) =>
        {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let place = format!("{place}/{key}");
                match (key.as_str(), before.get(key), after.get(key)) {
                    ("struct" | "enum", Some(Value::Object(before)), Some(Value::Object(after))) => {
                        members(before, after, &place, found);
                    }
                    (_, Some(before), Some(after)) => compare(before, after, &place, found),
                    (_, before, after) => {
                        found.push(Differs { pointer: place, expected: before.cloned(), actual: after.cloned() });
                    }
                }
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(before, after, &format!("{place}/{index}"), found);
            }
        }
        _ if was != is => {
            found.push(Differs { pointer: place.to_owned(), expected: Some(was.clone()), actual: Some(is.clone()) });
        }
        _ => {}
    }
}

fn is_struct(shape: &Map<String, Value>) -> bool {
    shape.contains_key("struct")
}

fn have_same_members(was: &Map<String, Value>, is: &Map<String, Value>) -> bool {
    was.len() == is.len() && was.keys().all(|key| is.contains_key(key))
}

fn members(was: &Map<String, Value>, is: &Map<String, Value>, place: &str, found: &mut Vec<Differs>) {
    let mut names: Vec<&String> = was.keys().chain(is.keys().filter(|name| !was.contains_key(*name))).collect();
    names.sort_unstable();
    for name in names {
        let mut place = format!("{place}/");
        push_escaped(&mut place, name);
        match (was.get(name), is.get(name)) {
            (Some(before), Some(after)) => compare(before, after, &place, found),
            (before, after) => {
                found.push(Differs { pointer: place, expected: before.cloned(), actual: after.cloned() });
            }
        }
    }
}
