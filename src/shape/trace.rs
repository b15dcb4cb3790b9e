//! Tracing: what a `Deserialize` implementation asks for, found out by answering it.
//!
//! One question at a time: a path leads through the type to one place, and what is asked for there ends the attempt.
//! So no value has to be made up on the way (but for the elements before one of a tuple), and a field that refuses
//! what it gets hides no other.

use crate::sensitive;
use crate::shape::fill::{Fill, Filling};
use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use std::any::type_name;
use std::cell::RefCell;
use std::fmt;

/// One step further into a type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Hop {
    /// Of an `Option`, a newtype, a `Sensitive`.
    Inner,
    Element,
    Index(usize),
    Key,
    MapValue,
    Field(&'static str),
    Variant(&'static str),
}

/// What a type asked for. Types by their names, to find them again inside themselves.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    Leaf(&'static str),
    /// Whatever comes.
    Any,
    /// Whatever comes, and decides by that what it is.
    Looks,
    Option,
    Sensitive,
    Newtype(&'static str),
    List,
    Tuple(usize),
    Map,
    /// The name of a member, which only types with `#[serde(flatten)]` ask a map for.
    Identifier,
    Struct(&'static str, &'static [&'static str]),
    Enum(&'static str, &'static [&'static str]),
}

/// What `T` asks for at the end of a path; `None` if it does not get there.
pub(super) fn ask<'de, T: Deserialize<'de>>(path: &[Hop]) -> Option<Asked> {
    let filling = Filling::lean();
    filling.attempts(|filling| {
        let answer = RefCell::new(None);
        let stop = T::deserialize(At { path, end: End::Ask(&answer), filling }).err().unwrap_or(Stop::Other);
        answer.into_inner().ok_or(stop)
    })
}

/// Fills the struct at the end of a path, and says how it took that.
pub(super) fn fill_struct<'de, T: Deserialize<'de>>(path: &[Hop], filling: &Filling) -> Result<(), Stop> {
    let result = RefCell::new(Err(Stop::Other));
    let _ = T::deserialize(At { path, end: End::Fill(&result), filling });
    result.into_inner()
}

/// Does the struct at the end of a path refuse members that it does not know?
pub(super) fn refuses_others<'de, T: Deserialize<'de>>(path: &[Hop]) -> bool {
    const OTHER: &str = "$eventseal::other";
    // Whoever does not, skips its value, or asks for it.
    ask::<T>(&[path, &[Hop::Field(OTHER)]].concat()).is_none()
}

/// The end of an attempt, or a refusal.
#[derive(Debug)]
pub(super) enum Stop {
    MissingField(&'static str),
    DuplicateField(&'static str),
    Other,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::DuplicateField(field)
    }
}

#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a [Hop],
    end: End<'a>,
    filling: &'a Filling,
}

/// What is done at the end of the path.
#[derive(Clone, Copy)]
enum End<'a> {
    /// What is asked for is noted down.
    Ask(&'a RefCell<Option<Asked>>),
    /// The struct that is there is filled.
    Fill(&'a RefCell<Result<(), Stop>>),
}

impl<'a> At<'a> {
    /// The next hop and what comes behind it, or the end: what is asked for here is the answer.
    fn next(self, asked: Asked) -> Result<(&'a Hop, Self), Stop> {
        match self.path.split_first() {
            Some((hop, path)) => Ok((hop, Self { path, ..self })),
            None => {
                if let End::Ask(answer) = self.end {
                    *answer.borrow_mut() = Some(asked);
                }
                Err(Stop::Other)
            }
        }
    }

    fn fill(self) -> Fill<'a> {
        self.filling.at_the_side()
    }

    fn members<'de, V: Visitor<'de>>(self, name: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        if let (End::Fill(result), []) = (self.end, self.path) {
            *result.borrow_mut() = self.filling.start().members(fields, visitor).map(drop);
            return Err(Stop::Other);
        }
        let (hop, at) = self.next(Asked::Struct(name, fields))?;
        visitor.visit_map(Entry { hop, at: Some(at), fill: self.fill() })
    }
}

macro_rules! leaves {
    ($($method:ident $name:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
            self.next(Asked::Leaf($name))?;
            Err(Stop::Other)
        }
    )*};
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Stop;

    leaves! {
        deserialize_bool "bool" deserialize_char "char" deserialize_str "string" deserialize_string "string"
        deserialize_bytes "bytes" deserialize_byte_buf "bytes" deserialize_unit "null" deserialize_ignored_any "ignored"
        deserialize_i8 "i8" deserialize_i16 "i16" deserialize_i32 "i32" deserialize_i64 "i64" deserialize_i128 "i128"
        deserialize_u8 "u8" deserialize_u16 "u16" deserialize_u32 "u32" deserialize_u64 "u64" deserialize_u128 "u128"
        deserialize_f32 "f32" deserialize_f64 "f64"
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.next(if type_name::<V::Value>() == VALUE { Asked::Any } else { Asked::Looks })?;
        Err(Stop::Other)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.next(Asked::Identifier)?;
        Err(Stop::Other)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self.next(Asked::Option)?.1)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        if name == sensitive::TOKEN {
            return visitor.visit_some(self.next(Asked::Sensitive)?.1);
        }
        // A RawValue.
        let asked = if name.starts_with("$serde_json::") { Asked::Any } else { Asked::Newtype(type_name::<V::Value>()) };
        visitor.visit_newtype_struct(self.next(asked)?.1)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_seq(Elements { left: 0, at: Some(self.next(Asked::List)?.1), fill: self.fill() })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stop> {
        let (Hop::Index(left), at) = self.next(Asked::Tuple(length))? else { return Err(Stop::Other) };
        visitor.visit_seq(Elements { left: *left, at: Some(at), fill: self.fill() })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, length: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let (hop, at) = self.next(Asked::Map)?;
        visitor.visit_map(Entry { hop, at: Some(at), fill: self.fill() })
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.members(type_name::<V::Value>(), fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, variants: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        let (Hop::Variant(variant), at) = self.next(Asked::Enum(type_name::<V::Value>(), variants))? else { return Err(Stop::Other) };
        visitor.visit_enum(Variant { variant, at })
    }
}

/// What `serde_json::Value` is called.
const VALUE: &str = "serde_json::value::Value";

/// Elements that are made up, then the one that matters.
struct Elements<'a> {
    left: usize,
    at: Option<At<'a>>,
    fill: Fill<'a>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.left > 0 {
            self.left -= 1;
            return seed.deserialize(self.fill.index(self.left)).map(Some);
        }
        self.at.take().map(|at| seed.deserialize(at)).transpose()
    }
}

/// The one member of a map or a struct that matters.
struct Entry<'a> {
    hop: &'a Hop,
    at: Option<At<'a>>,
    fill: Fill<'a>,
}

impl<'de> MapAccess<'de> for Entry<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        match (self.hop, self.at) {
            (Hop::Field(name), Some(_)) => seed.deserialize(StrDeserializer::new(name)).map(Some),
            (Hop::Key, Some(at)) => seed.deserialize(at).map(Some),
            (Hop::MapValue, Some(_)) => seed.deserialize(self.fill.index(0)).map(Some),
            _ => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        seed.deserialize(self.at.take().ok_or(Stop::Other)?)
    }
}

struct Variant<'a> {
    variant: &'static str,
    at: At<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Stop;
    type Variant = At<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, At<'a>), Stop> {
        Ok((seed.deserialize(StrDeserializer::<Stop>::new(self.variant))?, self.at))
    }
}

impl<'de> VariantAccess<'de> for At<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.next(Asked::Leaf("null")).map(drop)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        // No type of its own.
        self.members("", fields, visitor)
    }
}
