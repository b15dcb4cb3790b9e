//! A deserializer that knows which places of a JSON text are redacted.
//!
//! Where nothing is redacted it hands over to serde_json; on the way to a redacted place it splits the
//! text into raw members and elements, so that every other value is read as it is spelled.

use crate::sensitive::{Mode, TOKEN, in_mode};
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Redacted places as a tree of their steps. A node without steps is a redacted place.
#[derive(Default)]
pub(super) struct Places {
    steps: BTreeMap<String, Self>,
}

impl Places {
    pub(super) fn add(&mut self, tokens: impl Iterator<Item = String>) {
        let mut node = self;
        for token in tokens {
            node = node.steps.entry(token).or_default();
        }
    }
}

/// A JSON value that knows which places in it are redacted.
pub(super) struct Redactable<'de, 'p> {
    pub(super) raw: &'de str,
    /// `None`: nothing is redacted here or below.
    pub(super) places: Option<&'p Places>,
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
