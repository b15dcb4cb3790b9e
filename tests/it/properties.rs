//! Properties of parts that no public call reaches alone, for any input: through the feature `internals`. They are here
//! so that nobody who only runs an example builds proptest.

use eventseal::internals::{AcceptedChanges, places_of_a_header, places_of_a_schema, without_repeated};
use eventseal::{Changes, JsonPointer, KeyScope};
use proptest::prelude::*;
use serde_json::{Value, json};

const MARKER: &str = "what will be erased";

// A generated change never puts a value that may be erased at a place inside which another change looks. A look inside
// an erased value has another result than a look inside the live value.
fn inner() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/a", "/b", "/c", "/o/a", "/o/b", "/p/a", "/l/*/a", "/l/*/b", "/l/*/o/a", "/m/*/a", "/l/0/a", "/l/1/b",
    ])
}

fn outer() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["/o", "/l", "/m", "/p", "/p/q", "/l/*/o", "/l/*/p"])
}

fn change() -> impl Strategy<Value = Changes> {
    let new = Changes::new;
    let pair = || prop_oneof![3 => (inner(), inner()).boxed(), 1 => (outer(), outer()).boxed()];
    let place = || prop_oneof![3 => inner().boxed(), 1 => outer().boxed()];
    prop_oneof![
        4 => pair().prop_map(move |(from, to)| new().move_value(from, to)),
        3 => pair().prop_map(move |(from, to)| new().copy_value(from, to)),
        1 => inner().prop_map(move |at| new().set_default(at, "default")),
        2 => place().prop_map(move |at| new().remove(at)),
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![2 => Just(json!(MARKER)), 1 => Just(json!(1)), 1 => Just(Value::Null)]
}

fn members(names: &'static [&'static str], value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    prop::collection::vec((prop::sample::select(names), value), 0..4)
        .prop_map(|members| Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

fn document() -> impl Strategy<Value = Value> {
    let inner = || members(&["a", "b"], leaf());
    let element = (inner(), prop::option::of(inner())).prop_map(|(mut element, object)| {
        if let Some(object) = object {
            element["o"] = object;
        }
        element
    });
    let leaves = (members(&["a", "b", "c"], leaf()), inner(), prop::collection::vec(element, 0..3));
    leaves.prop_map(|(mut document, object, list)| {
        document["o"] = object;
        document["l"] = Value::Array(list);
        document
    })
}

/// Replaces every marker by `null`, and collects their places.
fn erase(value: &mut Value, place: &str, found: &mut Vec<JsonPointer>) {
    match value {
        Value::String(text) if text == MARKER => {
            found.push(JsonPointer::parse(place).unwrap());
            *value = Value::Null;
        }
        Value::Object(members) => {
            members.iter_mut().for_each(|(name, value)| erase(value, &format!("{place}/{name}"), found));
        }
        Value::Array(elements) => {
            elements.iter_mut().enumerate().for_each(|(index, value)| erase(value, &format!("{place}/{index}"), found));
        }
        _ => {}
    }
}

fn made(changes: &AcceptedChanges, document: &Value, redacted: Vec<JsonPointer>) -> Option<(Value, Vec<JsonPointer>)> {
    let (bytes, redacted) = changes.make(&document.to_string(), redacted)?;
    Some((serde_json::from_slice(&bytes).unwrap(), redacted))
}

/// Gives each marker a number of its own, so that it can be told from the others.
fn number(value: &mut Value, next: &mut usize) {
    match value {
        Value::String(text) if text == MARKER => {
            *text = format!("{MARKER} {next}");
            *next += 1;
        }
        Value::Object(members) => members.values_mut().for_each(|value| number(value, next)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| number(value, next)),
        _ => {}
    }
}

/// The places of numbered markers. The owner of each is its number.
fn numbered(value: &Value, place: &str, found: &mut Vec<(JsonPointer, KeyScope)>) {
    match value {
        Value::String(text) if text.starts_with(MARKER) => {
            found.push((JsonPointer::parse(place).unwrap(), KeyScope::new("Owner", text.as_str())));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| numbered(value, &format!("{place}/{name}"), found));
        }
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, value)| numbered(value, &format!("{place}/{at}"), found));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// After changes, the sealed places are where the sealed values are, and nowhere else. Each still has its owner.
    /// The same is true if the values are erased.
    #[test]
    fn i7_sealed_places_go_where_their_values_go(
        mut document in document(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let changes = AcceptedChanges::of(changes);
        number(&mut document, &mut 0);
        let mut before = Vec::new();
        numbered(&document, "", &mut before);
        if let Some((after, mut carried)) = changes.carry(&document.to_string(), Vec::new(), before.clone()) {
            let mut expected = Vec::new();
            numbered(&serde_json::from_slice(&after).unwrap(), "", &mut expected);
            expected.sort_unstable();
            carried.sort_unstable();
            prop_assert_eq!(&carried, &expected);
            let mut erased = document.clone();
            for (place, _) in &before {
                *erased.pointer_mut(place.as_str()).unwrap() = Value::Null;
            }
            let redacted = before.iter().map(|(place, _)| place.clone()).collect();
            let (_, mut carried) = changes.carry(&erased.to_string(), redacted, before).unwrap();
            carried.sort_unstable();
            prop_assert_eq!(carried, expected);
        }
    }

    /// Erasing first and changing then gives the same result as changing first and erasing then: redactions go where
    /// values go.
    #[test]
    fn i7_erasing_and_changing_commute(document in document(), changes in prop::collection::vec(change(), 1..6)) {
        let changes = AcceptedChanges::of(changes);
        // If the changes fail with live values, there is no result to compare with.
        if let Some((mut expected, none)) = made(&changes, &document, Vec::new()) {
            prop_assert!(none.is_empty());
            let (mut places, mut erased, mut before) = (Vec::new(), document.clone(), Vec::new());
            erase(&mut expected, "", &mut places);
            erase(&mut erased, "", &mut before);
            places.sort_unstable();
            let after = made(&changes, &erased, before);
            prop_assert_eq!(after, Some((expected, places)));
        }
    }
}

/// JSON whose objects repeat members.
fn repeating() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["1", "null", "\"}\"", "[]", "\"\\\\\"", "{}"]).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "\\u0061", "\\\""]);
        prop_oneof![
            prop::collection::vec((name, inner.clone()), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
                format!("{{{}}}", members.join(" , "))
            }),
            prop::collection::vec(inner, 0..3).prop_map(|elements| format!("[{}]", elements.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_left_is_what_serde_json_reads(text in repeating()) {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let left = without_repeated(&text).unwrap_or_else(|| text.clone());
        prop_assert_eq!(read(&left), read(&text));
        prop_assert_eq!(without_repeated(&left), None);
    }
}

/// JSON with names that are like one another, and one that is no text.
fn confusing() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "a!", "0", "1", "10", "~", "/", "\\u0061", "", "\\ud800"]);
    let leaf = prop::sample::select(vec!["1", "null", "\"x\"", "[]", "{}"]).prop_map(str::to_owned);
    leaf.prop_recursive(4, 30, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((name.clone(), inner), 0..4).prop_map(|items| format!(
                "{{{}}}",
                items.iter().map(|(name, item)| format!("\"{name}\": {item}")).collect::<Vec<_>>().join(",")
            )),
        ]
    })
}

fn pointer() -> impl Strategy<Value = String> {
    let step = prop::sample::select(vec!["/a", "/a!", "/0", "/1", "/10", "/~0", "/~1", "/"]);
    prop::collection::vec(step, 1..4).prop_map(|steps| steps.concat())
}

proptest! {
    /// Sealing finds the places of a schema with a tree, and opening those of a header without one. Both must find the
    /// same.
    #[test]
    fn i3_a_header_s_places_are_those_that_a_schema_would_find(
       text in confusing(),
       pointers in prop::collection::btree_set(pointer(), 1..4),
    ) {
        let of_schema: Vec<_> = pointers.iter().map(|pointer| JsonPointer::parse(pointer).unwrap()).collect();
        let of_header: Vec<&str> = pointers.iter().map(String::as_str).collect();
        prop_assert_eq!(places_of_a_header(&text, &of_header), places_of_a_schema(&text, &of_schema));
    }
}
