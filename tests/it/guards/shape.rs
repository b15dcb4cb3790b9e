//! Shapes: what serde reads into a type.

use eventseal::Sensitive;
use eventseal_testing::Shape;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

fn shape<T: for<'de> Deserialize<'de>>() -> Value {
    serde_json::from_str(&Shape::of::<T>().to_string()).unwrap()
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Everything {
    yes: bool,
    small: u8,
    wide: i128,
    half: f32,
    letter: char,
    text: String,
    nothing: (),
    maybe: Option<u32>,
    secret: Sensitive<String>,
    maybe_secret: Sensitive<Option<String>>,
    list: Vec<BTreeSet<u16>>,
    pair: (String, Option<u8>),
    array: [u8; 2],
    by_name: BTreeMap<String, Newtype>,
    by_number: BTreeMap<u32, bool>,
    any: Value,
    raw: Box<serde_json::value::RawValue>,
    kind: Kind,
    boxed: Box<Inner>,
    #[serde(rename = "type")]
    renamed: u64,
    #[serde(skip)]
    skipped: u64,
    #[serde(default)]
    with_default: u64,
    #[serde(alias = "alter", alias = "z")]
    named: u64,
    id: Uuid,
    after_the_id: i8,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Newtype(Sensitive<u64>);

#[derive(Deserialize)]
#[allow(dead_code)]
struct Inner {
    name: String,
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Empty,
    OneValue(Inner),
    TwoValues(u8, Sensitive<String>),
    Struct {
        name: String,
        note: Option<String>,
        #[serde(default)]
        late: bool,
    },
}

#[test]
fn everything_is_traced() {
    assert_eq!(
        shape::<Everything>(),
        json!({ "struct": {
            "yes": "bool",
            "small": "u8",
            "wide": "i128",
            "half": "f32",
            "letter": "char",
            "text": "string",
            "nothing": "null",
            "maybe": { "option": "u32" },
            "secret": { "sensitive": "string" },
            "maybe_secret": { "sensitive": { "option": "string" } },
            "list": { "list": { "list": "u16" } },
            "pair": { "tuple": ["string", { "option": "u8" }] },
            "array": { "tuple": ["u8", "u8"] },
            "by_name": { "map": { "sensitive": "u64" } },
            "by_number": { "map": "bool", "key": "u32" },
            "any": "any",
            "raw": "any",
            "kind": { "enum": {
                "empty": "null",
                "one_value": { "struct": { "name": "string" } },
                "two_values": { "tuple": ["u8", { "sensitive": "string" }] },
                "struct": { "struct": {
                    "name": "string", "note": { "option": "string" }, "late": { "default": "bool" },
                } },
            } },
            "boxed": { "struct": { "name": "string" } },
            "type": "u64",
            "with_default": { "default": "u64" },
            "named": "u64",
            "alter": { "alias of": "named" },
            "z": { "alias of": "named" },
            "id": "string",
            "after_the_id": "i8",
        } })
    );
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Node {
    name: String,
    children: Vec<Self>,
    parent: Option<Box<Self>>,
    formula: Formula,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Formula {
    Add(Box<Self>, Box<Self>),
    Number(i64),
}

#[test]
fn types_inside_themselves_come_to_an_end() {
    let same = |place: &str| json!({ "same as": place });
    assert_eq!(
        shape::<Node>(),
        json!({ "struct": {
            "name": "string",
            "children": { "list": same("") },
            "parent": { "option": same("") },
            "formula": { "enum": { "Add": { "tuple": [same("/formula"), same("/formula")] }, "Number": "i64" } },
        } })
    );
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(deny_unknown_fields)]
struct Closed {
    id: Uuid,
    open: Inner,
    kind: ClosedKind,
    list: Vec<ClosedInner>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(deny_unknown_fields)]
enum ClosedKind {
    Struct { name: String },
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(deny_unknown_fields)]
struct ClosedInner {}

#[test]
fn structs_that_refuse_other_members_say_so() {
    assert_eq!(
        shape::<Closed>(),
        json!({ "deny_unknown_fields": true, "struct": {
            "id": "string",
            "open": { "struct": { "name": "string" } },
            "kind": { "enum": { "Struct": { "struct": { "name": "string" }, "deny_unknown_fields": true } } },
            "list": { "list": { "struct": {}, "deny_unknown_fields": true } },
        } })
    );
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Hard {
    before: u8,
    tagged: Tagged,
    untagged: Untagged,
    flat: Flat,
    strict: Strict,
    after: (Strict, u8),
    twice: (Uuid, OnlyTwo, String),
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(tag = "type")]
enum Tagged {
    A { x: u8 },
}

#[derive(Deserialize)]
#[allow(dead_code)]
#[serde(untagged)]
enum Untagged {
    A(u8),
    B(String),
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Flat {
    own: u8,
    #[serde(flatten)]
    rest: Inner,
}

/// Refuses every text.
#[allow(dead_code)]
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?;
        Err(serde::de::Error::custom("no"))
    }
}

#[allow(dead_code)]
struct OnlyTwo;

impl<'de> Deserialize<'de> for OnlyTwo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if u8::deserialize(deserializer)? == 2 { Ok(Self) } else { Err(serde::de::Error::custom("not two")) }
    }
}

#[test]
fn what_can_not_be_traced_is_said_and_hides_nothing_else() {
    let shape = shape::<Hard>();
    let field = |name: &str| shape["struct"][name].clone();
    assert_eq!((field("before"), field("strict")), (json!("u8"), json!("string")));
    for name in ["tagged", "untagged"] {
        assert!(field(name)["not traced"].as_str().unwrap().starts_with("it looks at the value first"), "{shape}");
    }
    assert_eq!(field("flat"), json!({ "not traced": "it has #[serde(flatten)]" }));
    assert_eq!(field("after")["tuple"][0], "string");
    assert!(field("after")["tuple"][1]["not traced"].as_str().unwrap().contains("refuses every value"), "{shape}");
    assert_eq!(field("twice"), json!({ "tuple": ["string", "u8", "string"] }));
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Around {
    strict: Option<Strict>,
    #[serde(default)]
    late: u8,
    inner: Option<InnerOfAround>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct InnerOfAround {
    strict: Option<Vec<Strict>>,
    #[serde(default)]
    late: u8,
}

#[test]
fn an_option_that_can_not_be_filled_is_left_empty() {
    let late = json!({ "default": "u8" });
    assert_eq!(
        shape::<Around>(),
        json!({ "struct": {
            "strict": { "option": "string" },
            "late": late,
            "inner": { "option": { "struct": { "strict": { "option": { "list": "string" } }, "late": late } } },
        } })
    );
}

#[test]
fn samples_have_a_shape_in_common() {
    let samples = [
        json!({ "id": 1, "total": 2, "note": null,
            "lines": [{ "count": 1 }, { "count": 2, "name": "x" }], "to": "a", "tags": [] }),
        json!({ "id": 2, "total": 2.5, "note": "x", "lines": [], "to": 7, "late": true, "tags": [] }),
    ];
    let shape: Value = serde_json::from_str(&Shape::of_samples(&samples).to_string()).unwrap();
    assert_eq!(
        shape,
        json!({ "struct": {
            "id": "integer",
            "total": "float",
            "note": { "option": "string" },
            "lines": { "list": { "struct": { "count": "integer", "name": { "default": "string" } } } },
            "to": { "one of": ["integer", "string"] },
            "late": { "default": "bool" },
            "tags": { "list": "any" },
        } })
    );
}
