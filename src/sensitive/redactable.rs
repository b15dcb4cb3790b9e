//! A deserializer that knows which places of a JSON text are redacted.
//!
//! Where nothing is redacted, it passes the text on to serde_json. On the way to a redacted place, it splits the text
//! into its raw members or elements. So every other value is read exactly as serde_json reads it.

use crate::json::pointer::Places;
use crate::json::raw;
use crate::sensitive::buffered::Show;
use crate::sensitive::{Mode, Seen, Sensitive, TOKEN, buffered, in_mode};
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::Value;
use serde_json::value::RawValue;
use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

/// A JSON text, together with the places in it that are redacted.
pub(super) struct Redactable<'de, 'p> {
    pub(super) raw: &'de str,
    /// The redacted places at or below this value, or `None` if there are none.
    pub(super) places: Option<&'p Places>,
    /// How the redacted places of the payload were read so far.
    pub(super) seen: &'p Cell<Seen>,
    /// This value is part of a redacted value, and is presented as a redacted value of its own.
    pub(super) is_part: bool,
}

impl<'de, 'p> Redactable<'de, 'p> {
    fn child(&self, raw: &'de RawValue, places: &'p Places, step: &str) -> Self {
        let places = if self.is_redacted() { Some(places) } else { places.step(step) };
        Redactable { raw: raw.get(), places, seen: self.seen, is_part: self.is_redacted() }
    }

    fn is_redacted(&self) -> bool {
        self.is_part || self.places.is_some_and(Places::is_place)
    }

    /// The redacted places inside this value, if the value is an object or array and not redacted itself.
    fn on_the_way(&self) -> Option<&'p Places> {
        self.places.filter(|places| places.leads_on() && !self.is_redacted() && self.raw.starts_with(['{', '[']))
    }

    /// Presents each member or element as a value of its own.
    fn show_parts<V: Visitor<'de>>(self, places: &'p Places, visitor: V) -> Result<V::Value, serde_json::Error> {
        if self.raw.starts_with('{') {
            visitor.visit_map(Members { members: split_object(self.raw)?, places, of: self, value: None })
        } else {
            visitor.visit_seq(Elements { elements: split_array(self.raw)?, places, of: self, index: 0 })
        }
    }

    /// Lets serde_json read the value, exactly as it would in a payload without redactions.
    fn read<T>(
        self,
        how: Seen,
        read: impl FnOnce(&mut Json<'de>) -> Result<T, serde_json::Error>,
    ) -> Result<T, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(self.raw);
        if self.places.is_none() {
            return in_mode(Mode::Exact, || read(&mut json));
        }
        self.seen.set(self.seen.get().max(how));
        in_mode(if self.is_redacted() { Mode::Erased } else { Mode::Plain }, || read(&mut json))
    }
}

type Json<'de> = serde_json::Deserializer<serde_json::de::StrRead<'de>>;

/// Is this type an `Option<Sensitive<…>>`? Only the type's name tells, and Rust does not guarantee names. If the name
/// is spelled otherwise, the answer is no.
fn is_optional_sensitive<T>() -> bool {
    let known = type_name::<Option<Sensitive<()>>>();
    known.strip_suffix("()>>").is_some_and(|start| type_name::<T>().starts_with(start))
}

/// Makes methods that go into containers on the way to redacted places, and pass all other values to the same method of
/// serde_json. So a payload that can be read while it is live can be read after an erasure too.
macro_rules! read_by_serde_json {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Self::Error> {
            if self.on_the_way().is_some() {
                return self.deserialize_any(visitor);
            }
            self.read(Seen::AsValue, |json| json.$method($($argument,)* visitor))
        }
    )*};
}

impl<'de> Deserializer<'de> for Redactable<'de, '_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if let Some(places) = self.on_the_way() {
            return self.show_parts(places, visitor);
        }
        if let Some(places) = self.places.filter(|_| self.is_redacted()) {
            self.seen.set(Seen::Buffered);
            match buffered::show::<V>(self.raw) {
                Show::Mark(mark) => return visitor.visit_bytes(&mark),
                Show::None => return visitor.visit_none(),
                Show::Parts => return self.show_parts(places, visitor),
                Show::AsItIs => {}
            }
        }
        self.read(Seen::Buffered, |json| json.deserialize_any(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == TOKEN {
            return if self.is_redacted() { visitor.visit_unit() } else { visitor.visit_some(self) };
        }
        // serde_json makes a RawValue of its own deserializer's text only.
        if self.places.is_none() || name.starts_with("$serde_json::") {
            if let Some(places) = self.places {
                buffered::show_text(self.raw, places);
            }
            return self.read(Seen::Buffered, |json| json.deserialize_newtype_struct(name, visitor));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if self.raw != "null" || self.is_redacted() && is_optional_sensitive::<V::Value>() {
            return visitor.visit_some(self);
        }
        self.read(Seen::AsValue, |json| json.deserialize_option(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.on_the_way() {
            Some(places) if self.raw.starts_with('{') => {
                let mut members = split_object(self.raw)?;
                match (members.next(), members.next()) {
                    (Some((variant, value)), None) => {
                        let variant = raw::name(variant)?;
                        let value = self.child(value, places, &variant);
                        visitor.visit_enum(Variant { value, variant: variant.into_owned() })
                    }
                    _ => Err(de::Error::custom("a variant is an object of one member")),
                }
            }
            _ => self.read(Seen::AsValue, |json| json.deserialize_enum(name, variants, visitor)),
        }
    }

    /// Nobody looks at the value, so a redaction need not be reported.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    read_by_serde_json! {
        deserialize_bool() deserialize_char() deserialize_str() deserialize_string()
        deserialize_bytes() deserialize_byte_buf()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_identifier()
        deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_seq() deserialize_tuple(length: usize) deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map() deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }
}

type Split<'de> = std::vec::IntoIter<(&'de str, &'de RawValue)>;

fn split_object(text: &str) -> Result<Split<'_>, serde_json::Error> {
    raw::members(text).map(Vec::into_iter)
}

fn split_array(text: &str) -> Result<std::vec::IntoIter<&RawValue>, serde_json::Error> {
    raw::elements(text).map(Vec::into_iter)
}

struct Members<'de, 'p> {
    members: Split<'de>,
    places: &'p Places,
    of: Redactable<'de, 'p>,
    value: Option<Redactable<'de, 'p>>,
}

impl<'de> MapAccess<'de> for Members<'de, '_> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Self::Error> {
        let Some((spelled, value)) = self.members.next() else { return Ok(None) };
        let name = raw::name(spelled)?;
        self.value = Some(self.of.child(value, self.places, &name));
        if self.of.is_redacted() {
            // The name must stay a reference into the payload: its address tells which redacted value it belongs to.
            return seed.deserialize(&mut serde_json::Deserializer::from_str(spelled)).map(Some);
        }
        // The name is read out of a map of its own, so that numeric and enum keys work as in serde_json.
        let key = serde_json::Map::from_iter([(name.into_owned(), Value::Null)]);
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

/// Reads the name in a map of one member with the caller's seed.
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
    of: Redactable<'de, 'p>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de, '_> {
    type Error = serde_json::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Self::Error> {
        let Some(raw) = self.elements.next() else { return Ok(None) };
        let element = self.of.child(raw, self.places, &self.index.to_string());
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

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.0.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}
