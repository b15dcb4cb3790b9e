//! [`Sensitive`]: a field that may have been erased, and how payloads are decoded around it.

use crate::error::{Error, Result};
use crate::pointer::JsonPointer;
use crate::random;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// A protected field in a payload type: its value, or the fact that it was shredded.
///
/// Prints as `Sensitive(***)`. Written as the value itself, or as `null` if it was shredded.
///
/// [`PersistedEvent::decode`](crate::PersistedEvent::decode) knows what is redacted, so it tells a
/// shredded field from a `null` that was written. Plain serde does not know, and reads any `null` as
/// redacted; so does `decode` below `#[serde(flatten)]` and in tagged or untagged enums, where serde
/// loses track of places.
///
/// ```
/// use eventseal::Sensitive;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Customer { name: Sensitive<String> }
///
/// let customer = Customer { name: "Ada".into() };
/// assert_eq!(customer.name.expose().map(String::as_str), Some("Ada"));
/// assert_eq!(format!("{:?}", customer.name), "Sensitive(***)");
/// let erased: Customer = serde_json::from_str(r#"{"name":null}"#).unwrap();
/// assert!(erased.name.is_redacted());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sensitive<T> {
    /// The value.
    Present(T),
    /// It was shredded.
    Redacted,
}

impl<T> Sensitive<T> {
    /// The value, or `None` if it was shredded.
    pub fn expose(&self) -> Option<&T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// The value, or `None` if it was shredded.
    pub fn into_exposed(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Redacted => None,
        }
    }

    /// Was it shredded?
    pub fn is_redacted(&self) -> bool {
        matches!(self, Self::Redacted)
    }

    /// Another value in its place; what was shredded stays so.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sensitive<U> {
        match self {
            Self::Present(value) => Sensitive::Present(change(value)),
            Self::Redacted => Sensitive::Redacted,
        }
    }
}

impl<T> From<T> for Sensitive<T> {
    fn from(value: T) -> Self {
        Self::Present(value)
    }
}

impl From<&str> for Sensitive<String> {
    fn from(value: &str) -> Self {
        Self::Present(value.to_owned())
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_redacted() { "Sensitive(redacted)" } else { "Sensitive(***)" })
    }
}

// ---- how decode and the type talk to each other

const TOKEN: &str = "$eventseal::Sensitive";

/// What this thread's serde calls of `Sensitive` mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nobody knows what is redacted: `null` is.
    Plain,
    /// Nothing is redacted here: `null` is a value.
    Exact,
    /// Redacted values are written as the marker, so that they can be found again.
    Marking,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Plain) };
}

fn in_mode<T>(mode: Mode, run: impl FnOnce() -> T) -> T {
    struct Restore(Mode);
    impl Drop for Restore {
        fn drop(&mut self) {
            MODE.set(self.0);
        }
    }
    let _restore = Restore(MODE.replace(mode));
    run()
}

impl<T: Serialize> Serialize for Sensitive<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Present(value) => value.serialize(serializer),
            Self::Redacted => match marker() {
                Ok(marker) if MODE.get() == Mode::Marking => serializer.serialize_str(marker),
                _ => serializer.serialize_unit(),
            },
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sensitive<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Read<T> {
            type Value = Sensitive<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                if MODE.get() == Mode::Exact {
                    T::deserialize(deserializer).map(Sensitive::Present)
                } else {
                    Ok(Option::<T>::deserialize(deserializer)?.map_or(Sensitive::Redacted, Sensitive::Present))
                }
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                T::deserialize(deserializer).map(Sensitive::Present)
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(Sensitive::Redacted)
            }
        }
        deserializer.deserialize_newtype_struct(TOKEN, Read(PhantomData))
    }
}

/// Reads a payload in which exactly these places are redacted.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8], redacted: &[JsonPointer]) -> Result<T, serde_json::Error> {
    if redacted.is_empty() {
        return in_mode(Mode::Exact, || serde_json::from_slice(payload));
    }
    let document: &RawValue = serde_json::from_slice(payload)?;
    let mut places = Places::default();
    for pointer in redacted {
        places.add(pointer.tokens());
    }
    in_mode(Mode::Plain, || T::deserialize(Redactable { raw: document.get(), places: Some(&places) }))
}

/// Writes a value as JSON, and says where in it shredded fields are. `null` stands in for them.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<(Value, Vec<JsonPointer>)> {
    let marker = marker()?;
    let written = in_mode(Mode::Marking, || serde_json::to_value(value));
    let mut value = written
        .map_err(|error| Error::Encode { target: std::any::type_name::<T>(), problem: crate::error::describe_without_values(&error) })?;
    let mut found = Vec::new();
    take_markers(&mut value, marker, &mut String::new(), &mut found);
    Ok((value, found))
}

/// Text that no payload holds: drawn once in each process and never written anywhere.
fn marker() -> Result<&'static str> {
    static MARKER: OnceLock<String> = OnceLock::new();
    if let Some(marker) = MARKER.get() {
        return Ok(marker);
    }
    let drawn = format!("\0$eventseal redacted {}", random::uuid()?);
    Ok(MARKER.get_or_init(|| drawn))
}

fn take_markers(value: &mut Value, marker: &str, place: &mut String, found: &mut Vec<JsonPointer>) {
    let length = place.len();
    match value {
        Value::String(text) if text == marker => {
            found.push(JsonPointer::new_unchecked(place.as_str()));
            *value = Value::Null;
        }
        Value::Object(members) => {
            for (name, member) in members {
                place.push('/');
                crate::pointer::push_escaped(place, name);
                take_markers(member, marker, place, found);
                place.truncate(length);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                place.push('/');
                place.push_str(&index.to_string());
                take_markers(element, marker, place, found);
                place.truncate(length);
            }
        }
        _ => {}
    }
}

/// Redacted places as a tree of their steps. A node without steps is a redacted place.
#[derive(Default)]
struct Places {
    steps: BTreeMap<String, Self>,
}

impl Places {
    fn add(&mut self, tokens: impl Iterator<Item = String>) {
        let mut node = self;
        for token in tokens {
            node = node.steps.entry(token).or_default();
        }
    }
}

/// A JSON value that knows which places in it are redacted.
struct Redactable<'de, 'p> {
    raw: &'de str,
    /// `None`: nothing is redacted here or below.
    places: Option<&'p Places>,
}

impl<'de, 'p> Redactable<'de, 'p> {
    fn child(raw: &'de RawValue, places: &'p Places, step: &str) -> Self {
        Redactable { raw: raw.get(), places: places.steps.get(step) }
    }

    fn json(&self) -> serde_json::Deserializer<serde_json::de::StrRead<'de>> {
        serde_json::Deserializer::from_str(self.raw)
    }

    fn is_redacted(&self) -> bool {
        self.places.is_some_and(|places| places.steps.is_empty())
    }
}

impl<'de> Deserializer<'de> for Redactable<'de, '_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let Some(places) = self.places else {
            return in_mode(Mode::Exact, || self.json().deserialize_any(visitor));
        };
        match self.raw.as_bytes().first() {
            Some(b'{') if !places.steps.is_empty() => visitor.visit_map(Members { members: split_object(self.raw)?, places, value: None }),
            Some(b'[') if !places.steps.is_empty() => visitor.visit_seq(Elements { elements: split_array(self.raw)?, places, index: 0 }),
            _ => self.json().deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Self::Error> {
        if name == TOKEN {
            return if self.is_redacted() { visitor.visit_unit() } else { visitor.visit_some(self) };
        }
        if self.places.is_none() {
            return in_mode(Mode::Exact, || self.json().deserialize_newtype_struct(name, visitor));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.raw == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.places {
            None => in_mode(Mode::Exact, || self.json().deserialize_enum(name, variants, visitor)),
            Some(places) if self.raw.starts_with('{') && !places.steps.is_empty() => {
                let mut members = split_object(self.raw)?;
                match (members.next(), members.next()) {
                    (Some((variant, value)), None) => {
                        visitor.visit_enum(Variant { value: Redactable::child(value, places, &variant), variant })
                    }
                    _ => Err(de::Error::custom("a variant is an object of one member")),
                }
            }
            Some(_) => self.json().deserialize_enum(name, variants, visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

type Split<'de> = std::vec::IntoIter<(String, &'de RawValue)>;

fn split_object(raw: &str) -> Result<Split<'_>, serde_json::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(raw).deserialize_map(Pairs).map(Vec::into_iter)
}

fn split_array(raw: &str) -> Result<std::vec::IntoIter<&RawValue>, serde_json::Error> {
    serde_json::from_str::<Vec<&RawValue>>(raw).map(Vec::into_iter)
}

struct Members<'de, 'p> {
    members: Split<'de>,
    places: &'p Places,
    value: Option<Redactable<'de, 'p>>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        self.value = Some(Redactable::child(value, self.places, &name));
        // As a JSON document of its own, so that numeric and enum keys work as serde_json has them.
        let key = serde_json::Map::from_iter([(name, Value::Null)]);
        let mut keys = KeyOf(Some(seed), PhantomData);
        keys.read(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(de::Error::custom("a value was asked for before its name")),
        }
    }
}

/// Reads the name of a one-member map with somebody else's seed.
struct KeyOf<'de, K: DeserializeSeed<'de>>(Option<K>, PhantomData<&'de ()>);

impl<'de, K: DeserializeSeed<'de>> KeyOf<'de, K> {
    fn read(&mut self, map: serde_json::Map<String, Value>) -> Result<K::Value, serde_json::Error> {
        struct First<'s, 'de, K: DeserializeSeed<'de>>(&'s mut KeyOf<'de, K>);
        impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for First<'_, 'de, K> {
            type Value = K::Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let seed = self.0.0.take().ok_or_else(|| de::Error::custom("a name is read once"))?;
                let key = map.next_key_seed(seed)?.ok_or_else(|| de::Error::custom("a name is missing"))?;
                map.next_value::<de::IgnoredAny>()?;
                Ok(key)
            }
        }
        map.deserialize_any(First(self))
    }
}

struct Elements<'de, 'p> {
    elements: std::vec::IntoIter<&'de RawValue>,
    places: &'p Places,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        let Some(raw) = self.elements.next() else { return Ok(None) };
        let element = Redactable::child(raw, self.places, &self.index.to_string());
        self.index += 1;
        seed.deserialize(element).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

struct Variant<'de, 'p> {
    variant: String,
    value: Redactable<'de, 'p>,
}

impl<'de, 'p> EnumAccess<'de> for Variant<'de, 'p> {
    type Error = serde_json::Error;
    type Variant = VariantValue<'de, 'p>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), Self::Error> {
        let name: StrDeserializer<'_, Self::Error> = self.variant.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, VariantValue(self.value)))
    }
}

struct VariantValue<'de, 'p>(Redactable<'de, 'p>);

impl<'de> VariantAccess<'de> for VariantValue<'de, '_> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        <()>::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        name: Sensitive<String>,
        note: Sensitive<Option<String>>,
        plain: String,
        lines: Vec<Line>,
        by_number: BTreeMap<u32, Sensitive<u8>>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        to: Sensitive<String>,
        count: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Gift { from: Sensitive<String> },
        Own,
    }

    const PAYLOAD: &str = r#"{"name":"n","note":null,"plain":"[erased]","lines":[{"to":"a","count":18446744073709551615},{"to":"[erased]","count":2}],"by_number":{"7":1,"8":0},"kind":{"Gift":{"from":"[erased]"}}}"#;

    fn pointers(list: &[&str]) -> Vec<JsonPointer> {
        list.iter().map(|text| JsonPointer::parse(text).unwrap()).collect()
    }

    #[test]
    fn decode_redacts_exactly_the_listed_places() {
        let order: Order =
            decode(PAYLOAD.as_bytes(), &pointers(&["/name", "/lines/1/to", "/by_number/8", "/kind/Gift/from", "/plain"])).unwrap();
        assert_eq!(order.name, Sensitive::Redacted);
        assert_eq!(order.note, Sensitive::Present(None), "a null that was written is a value");
        assert_eq!(order.plain, "[erased]", "a plain field reads the stand-in");
        assert_eq!(order.lines[0], Line { to: "a".into(), count: u64::MAX });
        assert_eq!(order.lines[1].to, Sensitive::Redacted);
        assert_eq!(order.by_number[&7], Sensitive::Present(1));
        assert_eq!(order.by_number[&8], Sensitive::Redacted);
        assert_eq!(order.kind, Kind::Gift { from: Sensitive::Redacted });
    }

    #[test]
    fn without_redactions_a_null_is_a_value_in_decode_and_redacted_in_plain_serde() {
        let order: Order = decode(PAYLOAD.as_bytes(), &[]).unwrap();
        assert_eq!(order.note, Sensitive::Present(None));
        assert_eq!(order.lines[1].to, Sensitive::Present("[erased]".into()));
        let plain: Order = serde_json::from_str(PAYLOAD).unwrap();
        assert_eq!(plain.note, Sensitive::Redacted);
    }

    #[test]
    fn encode_tells_where_redactions_went() {
        let line = |to| Line { to, count: 1 };
        let (value, found) = encode(&vec![line("x".into()), line(Sensitive::Redacted)]).unwrap();
        assert_eq!(value, serde_json::json!([{"to":"x","count":1},{"to":null,"count":1}]));
        assert_eq!(found, pointers(&["/1/to"]));
        assert_eq!(serde_json::to_string(&line(Sensitive::Redacted)).unwrap(), r#"{"to":null,"count":1}"#);
    }

    #[test]
    fn a_redacted_document_decodes_as_a_whole() {
        assert_eq!(decode::<Sensitive<Line>>(b"null", &[JsonPointer::root()]).unwrap(), Sensitive::Redacted);
    }

    #[test]
    fn i9_sensitive_values_do_not_print() {
        let line = Line { to: "SECRET".into(), count: 1 };
        assert_eq!(format!("{line:?}"), "Line { to: Sensitive(***), count: 1 }");
    }
}
