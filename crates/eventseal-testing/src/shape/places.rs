//! Looks up places of a payload in its shape: whether they exist, which values fit there, and where a `Sensitive` is.

use crate::pattern::{Token, array_index, push_escaped};
use crate::shape::{NOT_TRACED, Shape};
use serde_json::Value;

/// What a shape says about a place.
#[derive(Debug, PartialEq)]
pub(crate) enum At<'s> {
    /// The shape does not tell what is there.
    Unknown,
    /// The type reads nothing at this place.
    Absent,
    /// The place has this shape.
    Known(&'s Value),
}

/// One step on the way to a place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    /// A member. The first name is its own, the others are aliases.
    Member(Vec<String>),
    /// Each element of a list.
    Element,
    Index(usize),
    /// Any member of a map.
    Entry,
}

impl Shape {
    /// What this shape says about a place.
    pub(crate) fn at(&self, tokens: &[Token]) -> At<'_> {
        at(self.json(), tokens)
    }

    /// The places of all `Sensitive`s, except for those inside another one and those in the repeated part of a
    /// recursive type.
    pub(crate) fn sensitives(&self) -> Vec<Vec<Way>> {
        let mut found = Vec::new();
        look_for_sensitives(self.json(), &mut Vec::new(), &mut found);
        found
    }
}

fn at<'s>(shape: &'s Value, tokens: &[Token]) -> At<'s> {
    let Some((token, rest)) = tokens.split_first() else { return At::Known(shape) };
    let Value::Object(kind) = shape else {
        return if shape == "any" || shape == "bytes" { At::Unknown } else { At::Absent };
    };
    if let Some(inner) = inside(shape) {
        return at(inner, tokens);
    }
    if let (Token::Member, Some(entry)) = (token, kind.get("map")) {
        return at(entry, rest);
    }
    let next = match (token, kind.get("struct").or_else(|| kind.get("enum")), kind.get("list"), kind.get("tuple")) {
        (Token::Name(name), Some(members), ..) => members.get(name).and_then(|member| match member.get("alias of") {
            Some(of) => members.get(of.as_str()?),
            None => Some(member),
        }),
        (Token::Name(name), _, Some(element), _) => array_index(name).map(|_| element),
        (Token::Name(name), _, _, Some(elements)) => array_index(name).and_then(|index| elements.get(index)),
        (Token::Each, _, Some(element), _) => Some(element),
        (Token::Each, Some(_), ..) | (Token::Member, None, Some(_), _) | (Token::Member, None, None, Some(_)) => None,
        // A map, a `*` in a tuple, a recursive type, or a part that is not traced.
        _ => return At::Unknown,
    };
    next.map_or(At::Absent, |next| at(next, rest))
}

/// The shape inside an `option`, `sensitive` or `default`.
fn inside(shape: &Value) -> Option<&Value> {
    ["option", "sensitive", "default"].iter().find_map(|kind| shape.get(kind))
}

/// May this value be at a place of this shape? The answer is yes if it can't be told.
pub(crate) fn may_hold(shape: &Value, value: &Value) -> bool {
    let Value::Object(kind) = shape else {
        return match shape.as_str().unwrap_or_default() {
            "string" | "char" => value.is_string(),
            "bool" => value.is_boolean(),
            "null" => value.is_null(),
            "any" | "bytes" => true,
            _ => value.is_number(),
        };
    };
    match kind.iter().next().map(|(kind, inner)| (kind.as_str(), inner)) {
        Some(("option", inner)) => value.is_null() || may_hold(inner, value),
        Some(("default", inner)) => may_hold(inner, value),
        Some(("list" | "tuple", _)) => value.is_array(),
        Some(("struct" | "map" | "key" | "deny_unknown_fields", _)) => value.is_object(),
        Some(("enum", _)) => value.is_string() || value.is_object(),
        // A `Sensitive` accepts any stand-in. Of the other kinds nothing is known.
        _ => true,
    }
}

fn look_for_sensitives(shape: &Value, way: &mut Vec<Way>, found: &mut Vec<Vec<Way>>) {
    let mut go = |step: Way, inner: &Value| {
        way.push(step);
        look_for_sensitives(inner, way, found);
        way.pop();
    };
    let Value::Object(kind) = shape else { return };
    if kind.contains_key("sensitive") {
        return found.push(way.clone());
    }
    if kind.contains_key(NOT_TRACED) {
        return;
    }
    for (kind, inner) in kind {
        match (kind.as_str(), inner) {
            ("option" | "default", inner) => return look_for_sensitives(inner, way, found),
            ("struct" | "enum", Value::Object(members)) => {
                for (name, member) in members {
                    let is_alias = |other: &Value| other.get("alias of").is_some_and(|of| of == name);
                    let aliases = members.iter().filter(|(_, other)| is_alias(other)).map(|(alias, _)| alias.clone());
                    go(Way::Member(std::iter::once(name.clone()).chain(aliases).collect()), member);
                }
            }
            ("list", element) => go(Way::Element, element),
            ("tuple", Value::Array(elements)) => {
                elements.iter().enumerate().for_each(|(index, element)| go(Way::Index(index), element));
            }
            ("map", entry) => go(Way::Entry, entry),
            _ => {}
        }
    }
}

/// May a pattern mean this place, or a place around or inside it?
pub(crate) fn touches(pattern: &[Token], way: &[Way]) -> bool {
    pattern.iter().zip(way).all(|step| match step {
        (Token::Name(name), Way::Member(names)) => names.contains(name),
        (Token::Name(name), Way::Element) => array_index(name).is_some(),
        (Token::Name(name), Way::Index(index)) => *name == index.to_string(),
        (Token::Each, Way::Member(_)) | (Token::Member, Way::Element | Way::Index(_)) => false,
        (Token::Each, Way::Element | Way::Index(_)) | (Token::Member, Way::Member(_)) | (_, Way::Entry) => true,
    })
}

/// A place as a readable pointer.
pub(crate) fn written(way: &[Way]) -> String {
    let mut text = String::new();
    for step in way {
        text.push('/');
        match step {
            Way::Member(names) => push_escaped(&mut text, names.first().map_or("", String::as_str)),
            Way::Index(index) => text.push_str(&index.to_string()),
            Way::Element | Way::Entry => text.push('*'),
        }
    }
    text
}
