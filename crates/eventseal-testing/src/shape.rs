//! [`Shape`]: the JSON that a Rust type reads, described in JSON that people can compare.

mod fill;
mod places;
mod presence;
mod samples;
mod trace;

use eventseal::schema::PayloadType;
pub(crate) use places::{At, may_hold, touches, written};
use presence::{Presence, presence};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use trace::{Asked, Hop, ask, refuses_others};

/// The shape of a payload: its members, and the types of their values.
///
/// The shape of a Rust type is found by running its `Deserialize` implementation with made-up values. So serde's
/// attributes count, and Rust's names of types do not. A shape is shown as JSON:
///
/// | | |
/// |---|---|
/// | `"string"`, `"u64"`, `"bool"`, `"null"`, … | a value of this type |
/// | `"any"` | any JSON, such as a `serde_json::Value` |
/// | `{"struct": {"name": …}}` | an object with these members |
/// | `{"default": …}` in a struct | a member that may be absent, though it is not an `Option` |
/// | `{"alias of": "name"}` in a struct | another name of the member `name` |
/// | `"deny_unknown_fields": true` beside `"struct"` | an object with other members is refused |
/// | `{"option": …}`, `{"sensitive": …}` | an `Option`, a [`Sensitive`](eventseal::Sensitive) |
/// | `{"list": …}`, `{"tuple": […]}` | an array of any length, an array of a fixed length |
/// | `{"map": …}`, with `"key"` if the keys are not texts | an object with any members |
/// | `{"enum": {"Variant": …}}` | one of these variants; a variant without content is `"null"` |
/// | `{"same as": "/place"}` | a type that contains itself: the shape is that of the place |
/// | `{"one of": […]}` | values of different kinds, which only samples show |
/// | `{"not traced": "why"}` | serde does not tell the shape |
///
/// A type is not traced if it looks at the value before it decides what to read: untagged and internally tagged enums,
/// and structs with `#[serde(flatten)]`. A type that is read from a text, such as a date, has the shape `"string"`.
///
/// ```
/// use eventseal_testing::Shape;
///
/// #[derive(serde::Deserialize)]
/// struct Registered { name: eventseal::Sensitive<String>, age: Option<u8>, #[serde(default)] tags: Vec<String> }
///
/// let tags = r#"{"default":{"list":"string"}}"#;
/// let shape = format!(r#"{{"struct":{{"age":{{"option":"u8"}},"name":{{"sensitive":"string"}},"tags":{tags}}}}}"#);
/// assert_eq!(Shape::of::<Registered>().to_string(), shape);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Shape(Value);

/// The member that stands for a shape that is not known.
const NOT_TRACED: &str = "not traced";

impl Shape {
    /// The shape of a Rust type.
    #[must_use]
    pub fn of<T: DeserializeOwned>() -> Self {
        Self::of_type(PayloadType::of::<T>())
    }

    /// The shape of a Rust type that a registry names.
    #[must_use]
    pub fn of_type(of: PayloadType) -> Self {
        Self(sorted(Tracing { of, path: Vec::new(), around: Vec::new() }.shape()))
    }

    /// The shape that these payloads have in common, for events that no Rust type reads. A member that some of them
    /// lack may be absent. A number is `"integer"` or `"float"`.
    #[must_use]
    pub fn of_samples<'v>(samples: impl IntoIterator<Item = &'v Value>) -> Self {
        Self(sorted(samples::shape_of(samples)))
    }

    pub(crate) fn unknown(why: &str) -> Self {
        Self(not_traced(why))
    }

    pub(crate) fn read(json: Value) -> Self {
        Self(json)
    }

    pub(crate) fn json(&self) -> &Value {
        &self.0
    }

    /// Is every JSON value allowed?
    pub(crate) fn is_any(&self) -> bool {
        self.0 == "any"
    }

    /// Is nothing known of this shape?
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_any() || self.0.get(NOT_TRACED).is_some()
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A JSON value that the type reads, if one can be made up.
pub(crate) fn sample_of(of: PayloadType) -> Option<Value> {
    fill::sample(of)
}

/// The same value with members in order of name. serde_json's own order depends on its feature `preserve_order`.
pub(crate) fn sorted(value: Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(sorted).collect()),
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> =
                members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members.into_iter().collect())
        }
        other => other,
    }
}

/// The places of a shape that are not known, each with the reason.
pub(crate) fn not_traced_in(shape: &Shape) -> Vec<(String, String)> {
    fn look(shape: &Value, place: &str, found: &mut Vec<(String, String)>) {
        match shape {
            Value::Object(members) => {
                if let (Some(Value::String(why)), 1) = (members.get(NOT_TRACED), members.len()) {
                    return found.push((place.to_owned(), why.clone()));
                }
                members.iter().for_each(|(name, member)| look(member, &format!("{place}/{name}"), found));
            }
            Value::Array(elements) => {
                elements
                    .iter()
                    .enumerate()
                    .for_each(|(index, element)| look(element, &format!("{place}/{index}"), found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    look(&shape.0, "", &mut found);
    found
}

fn not_traced(why: &str) -> Value {
    json!({ NOT_TRACED: why })
}

struct Tracing {
    of: PayloadType,
    path: Vec<Hop>,
    /// The types around this place, each with the place at which it begins.
    around: Vec<(&'static str, String)>,
}

impl Tracing {
    fn shape(&mut self) -> Value {
        let Some(asked) = ask(self.of, &self.path) else {
            return not_traced("what is read before it refuses every value that was tried");
        };
        match asked {
            Asked::Leaf("ignored") | Asked::Any => "any".into(),
            Asked::Leaf(name) => name.into(),
            Asked::Looks => {
                not_traced("it looks at the value first, such as an enum that is untagged or internally tagged")
            }
            Asked::Identifier => not_traced("it has #[serde(flatten)]"),
            Asked::Option => json!({ "option": self.at(Hop::Inner) }),
            Asked::Sensitive => json!({ "sensitive": self.at(Hop::Inner) }),
            Asked::Newtype(name) => self.within(name, |tracing| tracing.at(Hop::Inner)),
            Asked::List => json!({ "list": self.at(Hop::Element) }),
            Asked::Tuple(length) => {
                json!({ "tuple": (0..length).map(|index| self.at(Hop::Index(index))).collect::<Vec<_>>() })
            }
            Asked::Map => {
                let key = self.at(Hop::Key);
                if key.get(NOT_TRACED).is_some() {
                    return key;
                }
                let value = self.at(Hop::MapValue);
                if key == "string" { json!({ "map": value }) } else { json!({ "map": value, "key": key }) }
            }
            Asked::Struct(name, fields) => self.within(name, |tracing| {
                let members: Map<_, _> =
                    fields.iter().map(|field| ((*field).to_owned(), tracing.member(field))).collect();
                if refuses_others(tracing.of, &tracing.path) {
                    json!({ "struct": members, "deny_unknown_fields": true })
                } else {
                    json!({ "struct": members })
                }
            }),
            Asked::Enum(name, variants) => self.within(name, |tracing| {
                let variants =
                    variants.iter().map(|variant| ((*variant).to_owned(), tracing.at(Hop::Variant(variant))));
                json!({ "enum": variants.collect::<Map<_, _>>() })
            }),
        }
    }

    fn at(&mut self, hop: Hop) -> Value {
        self.path.push(hop);
        let shape = self.shape();
        self.path.pop();
        shape
    }

    fn member(&mut self, name: &'static str) -> Value {
        let shape = self.at(Hop::Field(name));
        match presence(self.of, &self.path, name) {
            Presence::Alias(of) => json!({ "alias of": of }),
            Presence::MayBeAbsent if shape.get("option").is_none() => json!({ "default": shape }),
            _ => shape,
        }
    }

    /// Traces a type, unless this place is inside the same type already.
    fn within(&mut self, name: &'static str, inside: impl FnOnce(&mut Self) -> Value) -> Value {
        if name.is_empty() {
            return inside(self);
        }
        if let Some((_, place)) = self.around.iter().find(|(around, _)| *around == name) {
            return json!({ "same as": place });
        }
        let place = text(&self.path);
        self.around.push((name, place));
        let shape = inside(self);
        self.around.pop();
        shape
    }
}

/// A path as a readable place.
fn text(path: &[Hop]) -> String {
    let mut text = String::new();
    for hop in path {
        match hop {
            Hop::Inner => {}
            Hop::Element | Hop::MapValue => text.push_str("/*"),
            Hop::Index(index) => text.push_str(&format!("/{index}")),
            Hop::Key => text.push_str("/{key}"),
            Hop::Field(name) | Hop::Variant(name) => {
                text.push('/');
                text.push_str(name);
            }
        }
    }
    text
}
