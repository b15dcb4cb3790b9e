//! The Rust types that payloads are read into, and what their `Deserialize` asks for.
//!
//! A type can't be stored in a registry, but functions that know the type can. There are two. One reads an event into
//! the type. The other runs the type's `Deserialize` without a payload: an [`Answers`] receives each question that it
//! asks, and makes up an answer. This is how `eventseal-testing` finds out the shapes of payloads and makes up samples.

use crate::error::Result;
use crate::event::PersistedEvent;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::any::type_name;
use std::fmt;

/// A Rust type that payloads are read into.
///
/// [`StepInfo::reads`](crate::schema::StepInfo::reads) and
/// [`SchemaVersion::decoded_into`](crate::schema::SchemaVersion::decoded_into) list the types of a registry.
///
/// # What it costs
/// The compiler instantiates the type's `Deserialize` once more, for [`ask`](Self::ask). That adds some kilobytes to
/// the program for each type. A service does not call it, so it costs no time.
#[derive(Clone, Copy)]
pub struct PayloadType {
    name: &'static str,
    read: fn(&PersistedEvent) -> Result<()>,
    ask: fn(&dyn Answers) -> Result<(), Refusal>,
}

impl PayloadType {
    /// Describes the type `T`.
    #[must_use]
    pub fn of<T: DeserializeOwned>() -> Self {
        Self {
            name: type_name::<T>(),
            read: |event| event.decode::<T>().map(drop),
            ask: |answers| T::deserialize(Questions(answers)).map(drop),
        }
    }

    /// The type's name, as [`type_name`] gives it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Checks that an event can be read into the type: reads it, and drops the value.
    ///
    /// # Errors
    /// Those of [`PersistedEvent::decode`].
    pub fn read(&self, event: &PersistedEvent) -> Result<()> {
        (self.read)(event)
    }

    /// Runs the type's `Deserialize` on answers instead of a payload: it asks `answers` for a value, and then for the
    /// value's parts.
    ///
    /// ```
    /// use eventseal::schema::{Given, Answers, Asked, PayloadType, Question, Refusal};
    /// use std::cell::Cell;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Registered { name: String, age: Option<u8> }
    ///
    /// /// Notes which members a payload has.
    /// struct Members(Cell<&'static [&'static str]>);
    /// impl Answers for Members {
    ///     fn answer(
    ///         &self,
    ///         question: &Question,
    ///         _: &mut dyn FnMut(Given<'_>) -> Result<(), Refusal>,
    ///     ) -> Result<(), Refusal> {
    ///         if let Asked::Struct(members) = question.asked {
    ///             self.0.set(members);
    ///         }
    ///         Err(Refusal::Other) // that is enough
    ///     }
    /// }
    ///
    /// let members = Members(Cell::new(&[]));
    /// assert_eq!(PayloadType::of::<Registered>().ask(&members), Err(Refusal::Other));
    /// assert_eq!(members.0.get(), ["name", "age"]);
    /// ```
    ///
    /// # Errors
    /// The [`Refusal`] that ended it, from `answers` or from the type.
    pub fn ask(&self, answers: &dyn Answers) -> Result<(), Refusal> {
        (self.ask)(answers)
    }
}

/// Compares names. Two types with one path, such as those of two versions of a crate, count as equal.
impl PartialEq for PayloadType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for PayloadType {}

impl fmt::Debug for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PayloadType").field(&self.name).finish()
    }
}

/// Answers the questions of a `Deserialize` at one place of a payload. The payload need not exist.
///
/// A place inside has answers of its own, which are passed in [`Given`].
pub trait Answers {
    /// Answers a question: calls `give` once with an answer, and returns what `give` returns.
    ///
    /// # Errors
    /// A [`Refusal`], which ends the run.
    fn answer(
        &self,
        question: &Question,
        give: &mut dyn FnMut(Given<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal>;
}

/// What a `Deserialize` asks for at a place.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Question {
    /// The kind of value that is asked for.
    pub asked: Asked,
    /// The name of the Rust type that the answer is for, as [`type_name`] has it; `""` for the content of a variant,
    /// which has no type of its own.
    pub for_type: &'static str,
}

/// The kinds of values that a `Deserialize` can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// A value of any kind.
    Any,
    /// A value of any kind, which the type ignores.
    Ignored,
    /// The name of a member or of a variant.
    Identifier,
    /// A number of this type: `u8`, `f64`, …
    Number(&'static str),
    /// A `bool`.
    Bool,
    /// A `char`.
    Char,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// `null`.
    Unit,
    /// An `Option`.
    Option,
    /// A newtype of this name. A [`Sensitive`](crate::Sensitive) is one called
    /// [`Sensitive::NAME`](crate::Sensitive::NAME).
    Newtype(&'static str),
    /// A list of any length.
    List,
    /// A list of this length.
    Tuple(usize),
    /// An object with any members.
    Map,
    /// An object with these members.
    Struct(&'static [&'static str]),
    /// One of these variants.
    Enum(&'static [&'static str]),
    /// A variant that has no content. Any answer will do.
    UnitVariant,
}

/// An answer. A type refuses an answer that it can't take.
#[non_exhaustive]
#[allow(missing_debug_implementations, reason = "holds trait objects")]
pub enum Given<'a> {
    /// `null`, where no `Option` was asked for.
    Unit,
    /// No value, for an `Option`.
    None,
    /// A value, for an `Option` or a [`Sensitive`](crate::Sensitive).
    Some(&'a dyn Answers),
    /// The content of a newtype.
    Newtype(&'a dyn Answers),
    /// A `bool`.
    Bool(bool),
    /// An integer.
    Integer(u64),
    /// A float.
    Float(f64),
    /// A `char`.
    Char(char),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// The elements of a list.
    List(&'a mut dyn Parts),
    /// The members of an object: each one's name, then its value.
    Map(&'a mut dyn Parts),
    /// A variant, and its content.
    Variant(&'a str, &'a dyn Answers),
}

/// The parts of a list or an object, one after the other.
pub trait Parts {
    /// Calls `read` with the answers for the next part, and returns `true`; `false` if there is no other part.
    ///
    /// # Errors
    /// A [`Refusal`], of `read` or of this implementation.
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal>;
}

/// Why a run of a type's `Deserialize` ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The type misses this member.
    MissingField(&'static str),
    /// The type got this member twice, or once by each of two names.
    DuplicateField(&'static str),
    /// Any other reason, such as an [`Answers`] that needs no further questions.
    Other,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingField(name) => write!(f, "the member {name} is missing"),
            Self::DuplicateField(name) => write!(f, "the member {name} is there twice"),
            Self::Other => f.write_str("an answer was refused"),
        }
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
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

/// A deserializer without a payload, which passes questions and answers on.
struct Questions<'a>(&'a dyn Answers);

impl Questions<'_> {
    fn ask<'de, V: Visitor<'de>>(self, asked: Asked, visitor: V) -> Result<V::Value, Refusal> {
        self.ask_for(type_name::<V::Value>(), asked, visitor)
    }

    fn ask_for<'de, V: Visitor<'de>>(
        self,
        for_type: &'static str,
        asked: Asked,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let (mut visitor, mut value) = (Some(visitor), None);
        self.0.answer(&Question { asked, for_type }, &mut |answer| {
            let visitor = visitor.take().ok_or(Refusal::Other)?;
            value = Some(take(visitor, answer)?);
            Ok(())
        })?;
        value.ok_or(Refusal::Other)
    }
}

fn take<'de, V: Visitor<'de>>(visitor: V, answer: Given<'_>) -> Result<V::Value, Refusal> {
    match answer {
        Given::Unit => visitor.visit_unit(),
        Given::None => visitor.visit_none(),
        Given::Some(answers) => visitor.visit_some(Questions(answers)),
        Given::Newtype(answers) => visitor.visit_newtype_struct(Questions(answers)),
        Given::Bool(value) => visitor.visit_bool(value),
        Given::Integer(value) => visitor.visit_u64(value),
        Given::Float(value) => visitor.visit_f64(value),
        Given::Char(value) => visitor.visit_char(value),
        Given::Text(value) => visitor.visit_str(value),
        Given::Bytes(value) => visitor.visit_bytes(value),
        Given::List(parts) => visitor.visit_seq(InTurn(parts)),
        Given::Map(parts) => visitor.visit_map(InTurn(parts)),
        Given::Variant(name, content) => visitor.visit_enum(Variant { name, content }),
    }
}

macro_rules! questions {
    ($($method:ident($($argument:ident: $type:ty),*) $asked:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Refusal> {
            self.ask($asked, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Questions<'_> {
    type Error = Refusal;

    questions! {
        deserialize_any() Asked::Any;
        deserialize_ignored_any() Asked::Ignored;
        deserialize_identifier() Asked::Identifier;
        deserialize_bool() Asked::Bool;
        deserialize_i8() Asked::Number("i8");
        deserialize_i16() Asked::Number("i16");
        deserialize_i32() Asked::Number("i32");
        deserialize_i64() Asked::Number("i64");
        deserialize_i128() Asked::Number("i128");
        deserialize_u8() Asked::Number("u8");
        deserialize_u16() Asked::Number("u16");
        deserialize_u32() Asked::Number("u32");
        deserialize_u64() Asked::Number("u64");
        deserialize_u128() Asked::Number("u128");
        deserialize_f32() Asked::Number("f32");
        deserialize_f64() Asked::Number("f64");
        deserialize_char() Asked::Char;
        deserialize_str() Asked::Text;
        deserialize_string() Asked::Text;
        deserialize_bytes() Asked::Bytes;
        deserialize_byte_buf() Asked::Bytes;
        deserialize_unit() Asked::Unit;
        deserialize_unit_struct(_name: &'static str) Asked::Unit;
        deserialize_option() Asked::Option;
        deserialize_newtype_struct(name: &'static str) Asked::Newtype(name);
        deserialize_seq() Asked::List;
        deserialize_tuple(length: usize) Asked::Tuple(length);
        deserialize_tuple_struct(_name: &'static str, length: usize) Asked::Tuple(length);
        deserialize_map() Asked::Map;
        deserialize_struct(_name: &'static str, fields: &'static [&'static str]) Asked::Struct(fields);
        deserialize_enum(_name: &'static str, variants: &'static [&'static str]) Asked::Enum(variants);
    }
}

/// The parts of a list or an object, as serde's traits need them.
struct InTurn<'a>(&'a mut dyn Parts);

impl InTurn<'_> {
    fn next<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let (mut seed, mut value) = (Some(seed), None);
        let is_there = self.0.next(&mut |answers| {
            let seed = seed.take().ok_or(Refusal::Other)?;
            value = Some(seed.deserialize(Questions(answers))?);
            Ok(())
        })?;
        if is_there == value.is_some() { Ok(value) } else { Err(Refusal::Other) }
    }
}

impl<'de> SeqAccess<'de> for InTurn<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for InTurn<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        self.next(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        self.next(seed)?.ok_or(Refusal::Other)
    }
}

struct Variant<'a> {
    name: &'a str,
    content: &'a dyn Answers,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Refusal;
    type Variant = Questions<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Questions<'a>), Refusal> {
        Ok((seed.deserialize(de::value::StrDeserializer::<Refusal>::new(self.name))?, Questions(self.content)))
    }
}

impl<'de> VariantAccess<'de> for Questions<'_> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        self.0.answer(&Question { asked: Asked::UnitVariant, for_type: "" }, &mut |_| Ok(()))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.ask_for("", Asked::Tuple(length), visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        self.ask_for("", Asked::Struct(fields), visitor)
    }
}
