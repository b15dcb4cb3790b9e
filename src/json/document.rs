//! A JSON document that is parsed only as far as its users look into it.
//!
//! A chain of steps parses and prints a payload once. A part that no step looks at is never parsed and keeps its
//! spelling. So declarative steps keep numbers of any size, and the order of members.

mod leave_out;

use crate::json::pointer::{JsonPointer, Places, Token, array_index, push_escaped};
use crate::json::raw;
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A JSON value that is parsed as far as necessary.
#[derive(Clone, Debug)]
pub(crate) enum Node<'a> {
    /// Text that nobody has looked into so far.
    Text(&'a str),
    /// A value that a function of the application returned.
    Parsed(Value),
    Object(Vec<(Name<'a>, Node<'a>)>),
    Array(Vec<Node<'a>>),
    /// Bytes that are not UTF-8. They can only be passed on.
    Opaque(&'a [u8]),
}

/// The name of a member.
#[derive(Clone, Debug)]
pub(crate) enum Name<'a> {
    /// With its quotes and escapes, as in the text.
    Spelled(&'a str),
    /// Without quotes and escapes.
    Plain(String),
}

impl Name<'_> {
    /// The name without quotes and escapes. An error if it is not Unicode; then no pointer can name it.
    fn plain(&self) -> Result<Cow<'_, str>, serde_json::Error> {
        match self {
            Self::Spelled(spelled) => raw::name(spelled),
            Self::Plain(plain) => Ok(Cow::Borrowed(plain)),
        }
    }

    fn is(&self, name: &str) -> bool {
        match self {
            Self::Plain(plain) => plain == name,
            // An escape is longer than the character that it stands for, so the lengths tell most names apart.
            Self::Spelled(spelled) => match spelled.len().cmp(&(name.len() + 2)) {
                Ordering::Less => false,
                Ordering::Equal => spelled.get(1..=name.len()) == Some(name) && !name.contains('\\'),
                Ordering::Greater => spelled.contains('\\') && raw::name(spelled).is_ok_and(|plain| plain == name),
            },
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Spelled(spelled) => out.push_str(spelled),
            Self::Plain(plain) => push_string(out, plain),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Spelled(spelled) => spelled.len(),
            Self::Plain(plain) => plain.len() + 2,
        }
    }
}

/// Why an operation on a document failed. Holds places, never values.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The text is not JSON.
    NotJson,
    /// A value on the way to a place is neither an object nor an array.
    NoContainer(String),
    /// The array has no such element. Elements are not created.
    NoElement(String),
    /// The place is an element of an array, which can't be taken out.
    IsElement(String),
}

impl Problem {
    /// Describes the problem. `around` is a JSON Pointer that is put in front of the place.
    pub(crate) fn describe(&self, around: &str) -> String {
        match self {
            Self::NotJson => "the payload is not JSON".to_owned(),
            Self::NoContainer(place) if around.is_empty() && place.is_empty() => {
                "the root is neither an object nor an array".to_owned()
            }
            Self::NoContainer(place) => format!("{around}{place} is neither an object nor an array"),
            Self::NoElement(place) => format!("{around}{place} is not an element of its array"),
            Self::IsElement(place) => format!("{around}{place} is an element of an array, which can't be taken out"),
        }
    }
}

/// One name or index on the way to a place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'p>(&'p str);

/// The way that these tokens describe. None of them may be a `*`.
pub(crate) fn way(tokens: &[Token]) -> Vec<Step<'_>> {
    tokens.iter().filter_map(|token| if let Token::Name(name) = token { Some(Step(name)) } else { None }).collect()
}

impl<'a> Node<'a> {
    pub(crate) const NULL: Self = Self::Text("null");

    pub(crate) fn is_object(&self) -> bool {
        match self {
            Self::Text(text) => text.trim_ascii_start().starts_with('{'),
            Self::Parsed(value) => value.is_object(),
            Self::Object(_) => true,
            Self::Array(_) | Self::Opaque(_) => false,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        match self {
            Self::Text(text) => text.trim_ascii() == "null",
            Self::Parsed(value) => value.is_null(),
            Self::Object(_) | Self::Array(_) | Self::Opaque(_) => false,
        }
    }

    /// The value at a place, if there is one.
    pub(crate) fn get(&mut self, way: &[Step<'_>]) -> Result<Option<&mut Self>, Problem> {
        let mut node = self;
        for step in way {
            match node.child(*step)? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Replaces the values at `places` by what `stand_in` returns for each of them, in one pass through the document.
    /// `place` is the pointer of this node.
    pub(crate) fn stand_in(
        &mut self,
        places: &Places,
        place: &mut String,
        stand_in: &dyn Fn(&JsonPointer) -> Option<Self>,
    ) {
        if places.is_place()
            && let Some(node) = stand_in(&JsonPointer::new_unchecked(place.as_str()))
        {
            *self = node;
            return;
        }
        if !places.leads_on() || self.expand().is_err() {
            return;
        }
        let length = place.len();
        let mut below = |name: &str, value: &mut Self| {
            if let Some(places) = places.step(name) {
                place.push('/');
                push_escaped(place, name);
                value.stand_in(places, place, stand_in);
                place.truncate(length);
            }
        };
        match self {
            Self::Object(members) => members.iter_mut().for_each(|(name, value)| {
                if let Ok(name) = name.plain() {
                    below(&name, value);
                }
            }),
            Self::Array(elements) => {
                elements.iter_mut().enumerate().for_each(|(index, value)| below(&index.to_string(), value));
            }
            _ => {}
        }
    }

    /// Removes the member at a place from its object, and returns its value.
    pub(crate) fn take(&mut self, way: &[Step<'_>]) -> Result<Option<Self>, Problem> {
        let Some((last, before)) = way.split_last() else { return Ok(None) };
        let Some(parent) = self.get(before)? else { return Ok(None) };
        parent.expand()?;
        match (parent, last) {
            (Self::Object(members), Step(name)) => {
                let mut taken = None;
                members.retain_mut(|(known, value)| {
                    let is_it = known.is(name);
                    if is_it {
                        taken = Some(std::mem::replace(value, Self::NULL));
                    }
                    !is_it
                });
                Ok(taken)
            }
            (Self::Array(_), _) => Err(Problem::IsElement(pointer_of(way))),
            _ => Ok(None),
        }
    }

    /// Puts a value at a place. An object on the way that is missing or `null` is created.
    pub(crate) fn put(&mut self, way: &[Step<'_>], value: Self) -> Result<(), Problem> {
        let mut node = self;
        for (at, step) in way.iter().enumerate() {
            if node.is_null() {
                *node = Self::Object(Vec::new());
            }
            node.expand()?;
            node = match (node, step) {
                (Self::Object(members), Step(name)) => {
                    let known = members.iter().rposition(|(known, _)| known.is(name));
                    let index = known.unwrap_or(members.len());
                    if known.is_none() {
                        members.push((Name::Plain((*name).to_owned()), Self::NULL));
                    }
                    &mut members[index].1
                }
                (Self::Array(elements), step) => {
                    let element = step.index().and_then(|index| elements.get_mut(index));
                    element.ok_or_else(|| Problem::NoElement(pointer_of(&way[..=at])))?
                }
                _ => return Err(Problem::NoContainer(pointer_of(&way[..at]))),
            };
        }
        *node = value;
        Ok(())
    }

    /// The elements of an array. Any other value has none.
    pub(crate) fn elements(&mut self) -> Result<&mut [Self], Problem> {
        self.expand()?;
        Ok(match self {
            Self::Array(elements) => elements,
            _ => &mut [],
        })
    }

    fn child(&mut self, step: Step<'_>) -> Result<Option<&mut Self>, Problem> {
        self.expand()?;
        Ok(match (self, step) {
            // If a name is repeated, the last member counts, as in serde_json.
            (Self::Object(members), Step(name)) => {
                members.iter_mut().rfind(|(known, _)| known.is(name)).map(|(_, value)| value)
            }
            (Self::Array(elements), step) => step.index().and_then(|index| elements.get_mut(index)),
            _ => None,
        })
    }

    /// Splits an object or array into its members or elements, one level deep.
    fn expand(&mut self) -> Result<(), Problem> {
        match self {
            Self::Text(text) => {
                let text: &'a str = text;
                match text.trim_ascii_start().as_bytes().first() {
                    Some(b'{') => {
                        let members = raw::members(text).map_err(|_| Problem::NotJson)?;
                        *self = Self::Object(
                            members
                                .into_iter()
                                .map(|(name, value)| (Name::Spelled(name), Self::Text(value.get())))
                                .collect(),
                        );
                    }
                    Some(b'[') => {
                        let elements = raw::elements(text).map_err(|_| Problem::NotJson)?;
                        *self = Self::Array(elements.into_iter().map(|value| Self::Text(value.get())).collect());
                    }
                    _ => {}
                }
            }
            Self::Parsed(Value::Object(members)) => {
                let members = std::mem::take(members).into_iter();
                *self = Self::Object(members.map(|(name, value)| (Name::Plain(name), Self::Parsed(value))).collect());
            }
            Self::Parsed(Value::Array(elements)) => {
                *self = Self::Array(std::mem::take(elements).into_iter().map(Self::Parsed).collect());
            }
            Self::Parsed(_) | Self::Object(_) | Self::Array(_) => {}
            Self::Opaque(_) => return Err(Problem::NotJson),
        }
        Ok(())
    }

    /// The node as a value of serde_json. An error if serde_json can't hold it, such as a number that is too large.
    pub(crate) fn into_value(self) -> Result<Value, serde_json::Error> {
        match self {
            // A name that serde_json reserves for its own use is hidden from it.
            Self::Text(text) => match raw::hide_private(text) {
                Some(hidden) => serde_json::from_str(&hidden).map(raw::show_private),
                None => serde_json::from_str(text),
            },
            Self::Parsed(value) => Ok(value),
            Self::Object(members) => {
                let members =
                    members.into_iter().map(|(name, node)| Ok((name.plain()?.into_owned(), node.into_value()?)));
                members.collect::<Result<_, _>>().map(Value::Object)
            }
            Self::Array(elements) => {
                elements.into_iter().map(Self::into_value).collect::<Result<_, _>>().map(Value::Array)
            }
            Self::Opaque(bytes) => serde_json::from_slice(bytes),
        }
    }

    /// The approximate length of the node as JSON text, in bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Parsed(value) => value.to_string().len(),
            Self::Object(members) => {
                members.iter().map(|(name, value)| name.length() + value.length() + 2).sum::<usize>() + 2
            }
            Self::Array(elements) => elements.iter().map(|value| value.length() + 1).sum::<usize>() + 2,
            Self::Opaque(bytes) => bytes.len(),
        }
    }

    /// The node as JSON text. Empty for bytes that are not UTF-8.
    fn text(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            other => {
                let mut out = String::new();
                other.write(&mut out);
                Cow::Owned(out)
            }
        }
    }

    /// The node as the bytes of a payload.
    pub(crate) fn bytes(&self) -> Cow<'a, [u8]> {
        match self {
            Self::Opaque(bytes) => Cow::Borrowed(bytes),
            other => match other.text() {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            },
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Parsed(value) => out.push_str(&value.to_string()),
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    name.write(out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
            Self::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Self::Opaque(_) => {}
        }
    }
}

impl Step<'_> {
    fn index(self) -> Option<usize> {
        array_index(self.0).and_then(|index| usize::try_from(index).ok())
    }
}

/// The JSON Pointer that this way is.
pub(crate) fn pointer_of(way: &[Step<'_>]) -> String {
    let mut place = String::new();
    for step in way {
        place.push('/');
        push_escaped(&mut place, step.0);
    }
    place
}

fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::pointer::Pattern;

    fn steps(place: &str) -> Vec<Token> {
        Pattern::parse(place).unwrap().tokens().to_vec()
    }

    fn put(document: &str, place: &str) -> Result<String, Problem> {
        let mut node = Node::Text(document);
        node.put(&way(&steps(place)), Node::Text("7")).map(|()| node.text().into_owned())
    }

    #[test]
    fn what_nobody_looks_at_keeps_its_spelling() {
        let mut node =
            Node::Text(r#" { "a" : 1e400, "b\n":{"x":[ 1.0 ]}, "c":9007199254740993.0, "z":1, "z":"\ud800" } "#);
        assert!(node.get(&way(&steps("/missing"))).unwrap().is_none());
        assert_eq!(node.text(), r#"{"a":1e400,"b\n":{"x":[ 1.0 ]},"c":9007199254740993.0,"z":1,"z":"\ud800"}"#);
        assert!(node.length().abs_diff(node.text().len()) < 5);
        assert_eq!(node.take(&way(&steps("/z"))).unwrap().unwrap().text(), r#""\ud800""#, "the last one counts");
        assert_eq!(node.text(), r#"{"a":1e400,"b\n":{"x":[ 1.0 ]},"c":9007199254740993.0}"#, "all are gone");
    }

    #[test]
    fn values_are_put_where_a_pointer_leads() {
        assert_eq!(put(r#"{"a":1}"#, "/b/c").unwrap(), r#"{"a":1,"b":{"c":7}}"#);
        assert_eq!(put(r#"{"a":null}"#, "/a/b").unwrap(), r#"{"a":{"b":7}}"#);
        assert_eq!(put(r#"{"a":[1,2]}"#, "/a/1").unwrap(), r#"{"a":[1,7]}"#);
        assert_eq!(put(r#"{"a":1}"#, "/a~1\"~0").unwrap(), r#"{"a":1,"a/\"~":7}"#);
        assert_eq!(put(r#"{"a":[1]}"#, "/a/1").unwrap_err(), Problem::NoElement("/a/1".into()));
        assert_eq!(put(r#"{"a":"x"}"#, "/a/b").unwrap_err(), Problem::NoContainer("/a".into()));
        assert_eq!(put("[", "/a").unwrap_err(), Problem::NotJson);
        assert_eq!(put("{} {}", "/a").unwrap_err(), Problem::NotJson);
        assert_eq!(put("7", "/a").unwrap_err(), Problem::NoContainer(String::new()));
        assert_eq!(Node::Text("[1]").take(&way(&steps("/0"))).unwrap_err(), Problem::IsElement("/0".into()));
        assert_eq!(Node::Text(r#"{"0":[1]}"#).elements().unwrap().len(), 0, "an object has no elements");
    }

    #[test]
    fn a_name_is_what_it_says_however_it_is_spelled() {
        for (spelled, name, expected) in [
            (r#""ab""#, "ab", true),
            (r#""ab""#, "abc", false),
            (r#""abc""#, "ab", false),
            (r#""a\u0062""#, "ab", true),
            (r#""a\u0062""#, "a\\u0062", false),
            (r#""a\\b""#, "a\\b", true),
            (r#""a\\b""#, "a\\\\b", false),
            (r#""\ud800""#, "x", false),
            (r#""""#, "", true),
        ] {
            assert_eq!(Name::Spelled(spelled).is(name), expected, "{spelled} {name}");
            assert!(Name::Plain(name.to_owned()).is(name));
        }
    }

    #[test]
    fn a_document_becomes_a_value_piece_by_piece() {
        let mut node = Node::Text(r#"{"b":[1,{"c":2}],"a":"x"}"#);
        node.put(&way(&steps("/b/0")), Node::Parsed(serde_json::json!({"d": [3]}))).unwrap();
        node.put(&way(&steps("/b/0/d/0")), Node::Text("4")).unwrap();
        let expected = serde_json::json!({"b": [{"d": [4]}, {"c": 2}], "a": "x"});
        assert_eq!(serde_json::from_str::<Value>(&node.text()).unwrap(), expected);
        assert_eq!(node.into_value().unwrap(), expected);
        // The number is too large for an f64. serde_json holds it only with its feature `arbitrary_precision`, which
        // any crate of the build may turn on.
        assert_eq!(Node::Text("1e400").into_value().is_ok(), serde_json::from_str::<Value>("1e400").is_ok());
        assert!(Node::Text("1e").into_value().is_err());
    }
}
