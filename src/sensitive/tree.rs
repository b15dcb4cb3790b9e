//! A tree of values that were in a buffer. It is read again in the way in which serde reads its own buffers.

use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;
use std::fmt;
use std::marker::PhantomData;

/// A value that was in a buffer.
#[derive(Debug)]
pub(super) enum Tree<'de> {
    Unit,
    None,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(&'de str),
    String(String),
    Bytes(Vec<u8>),
    Seq(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

impl Tree<'_> {
    /// The address of the first text in this value, and whether that text is an element of a list. If it is, the text
    /// may have been erased without the list.
    pub(super) fn address(&self) -> Option<(usize, bool)> {
        match self {
            // Everything inside an erased value is erased, so one text speaks for the whole.
            Tree::Str(text) => Some((text.as_ptr() as usize, false)),
            Tree::Map(members) => members.iter().find_map(|(name, _)| name.address()),
            Tree::Seq(elements) => elements.iter().find_map(|element| Some((element.address()?.0, true))),
            _ => None,
        }
    }

    /// Does this value equal that JSON value?
    pub(super) fn is(&self, value: &Value) -> bool {
        match (self, value) {
            (Tree::Unit | Tree::None, Value::Null) => true,
            (Tree::Bool(it), Value::Bool(value)) => it == value,
            (Tree::I64(it), Value::Number(number)) => number.as_i64() == Some(*it),
            (Tree::U64(it), Value::Number(number)) => number.as_u64() == Some(*it),
            #[allow(clippy::float_cmp, reason = "compares for identity")]
            (Tree::F64(it), Value::Number(number)) => number.as_f64() == Some(*it),
            (Tree::Str(it), Value::String(value)) => it == value,
            (Tree::String(it), Value::String(value)) => it == value,
            (Tree::Seq(it), Value::Array(value)) => {
                it.len() == value.len() && it.iter().zip(value).all(|(it, value)| it.is(value))
            }
            (Tree::Map(it), Value::Object(value)) => {
                it.len() == value.len()
                    && it.iter().all(|(name, it)| {
                        name.text().and_then(|name| value.get(name)).is_some_and(|value| it.is(value))
                    })
            }
            // With serde_json's feature `arbitrary_precision`, numbers come as maps.
            (Tree::Map(it), Value::Number(number)) => {
                matches!(it.as_slice(), [(_, spelled)] if spelled.text() == Some(number.to_string().as_str()))
            }
            _ => false,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Tree::Str(text) => Some(text),
            Tree::String(text) => Some(text),
            _ => None,
        }
    }
}

/// A visitor that makes a [`Tree`] of any value.
pub(super) struct Plant;

impl<'de> Deserialize<'de> for Tree<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Plant)
    }
}

macro_rules! visits {
    ($($method:ident($type:ty) => $make:expr;)*) => {$(
        fn $method<E>(self, value: $type) -> Result<Tree<'de>, E> {
            Ok($make(value))
        }
    )*};
}

impl<'de> Visitor<'de> for Plant {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    visits! {
        visit_bool(bool) => Tree::Bool;
        visit_i64(i64) => Tree::I64;
        visit_u64(u64) => Tree::U64;
        visit_f64(f64) => Tree::F64;
        visit_borrowed_str(&'de str) => Tree::Str;
        visit_str(&str) => |text: &str| Tree::String(text.to_owned());
        visit_string(String) => Tree::String;
        visit_bytes(&[u8]) => |bytes: &[u8]| Tree::Bytes(bytes.to_vec());
    }

    fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Unit)
    }

    fn visit_none<E>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree<'de>, A::Error> {
        let mut seq = Vec::new();
        while let Some(element) = elements.next_element()? {
            seq.push(element);
        }
        Ok(Tree::Seq(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree<'de>, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Tree::Map(map))
    }
}

/// A deserializer that reads a tree as serde reads its buffers.
pub(super) struct Buffered<'de, E> {
    tree: Tree<'de>,
    error: PhantomData<E>,
}

/// As [`Buffered`], for a tree that came out of a buffer of serde. The type's name tells the two apart.
pub(super) struct OfSerde<'de, E>(pub(super) Buffered<'de, E>);

impl<'de, E> Buffered<'de, E> {
    pub(super) fn new(tree: Tree<'de>) -> Self {
        Self { tree, error: PhantomData }
    }
}

/// What both deserializers can do: be made of a tree, and give it back.
trait Wrap<'de, E: de::Error>: Deserializer<'de, Error = E> + IntoDeserializer<'de, E> {
    fn wrap(tree: Tree<'de>) -> Self;
    fn tree(self) -> Tree<'de>;
}

macro_rules! reads {
    ($type:ident, $wrap:expr, $tree:expr) => {
        impl<'de, E: de::Error> Wrap<'de, E> for $type<'de, E> {
            fn wrap(tree: Tree<'de>) -> Self {
                ($wrap)(Buffered::new(tree))
            }

            fn tree(self) -> Tree<'de> {
                ($tree)(self)
            }
        }

        impl<'de, E: de::Error> IntoDeserializer<'de, E> for $type<'de, E> {
            type Deserializer = Self;

            fn into_deserializer(self) -> Self {
                self
            }
        }

        impl<'de, E: de::Error> Deserializer<'de> for $type<'de, E> {
            type Error = E;

            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
                any::<Self, E, V>(self, visitor)
            }

            fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
                match self.tree() {
                    Tree::Unit => visitor.visit_unit(),
                    Tree::None => visitor.visit_none(),
                    tree => visitor.visit_some(Self::wrap(tree)),
                }
            }

            fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, E> {
                visitor.visit_newtype_struct(self)
            }

            fn deserialize_enum<V: Visitor<'de>>(
                self,
                _: &'static str,
                _: &'static [&'static str],
                visitor: V,
            ) -> Result<V::Value, E> {
                match self.tree() {
                    Tree::Map(members) if members.len() == 1 => {
                        let members = members.into_iter().map(|(name, value)| (Self::wrap(name), Self::wrap(value)));
                        visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(members)))
                    }
                    Tree::Str(text) => visitor.visit_enum(text.into_deserializer()),
                    Tree::String(text) => visitor.visit_enum(text.into_deserializer()),
                    tree => any::<Self, E, V>(Self::wrap(tree), visitor),
                }
            }

            forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
                tuple tuple_struct map struct identifier ignored_any
            }
        }
    };
}

reads!(Buffered, std::convert::identity, |it: Self| it.tree);
reads!(OfSerde, OfSerde, |it: Self| it.0.tree);

fn any<'de, W: Wrap<'de, E>, E: de::Error, V: Visitor<'de>>(from: W, visitor: V) -> Result<V::Value, E> {
    match from.tree() {
        Tree::Unit => visitor.visit_unit(),
        Tree::None => visitor.visit_none(),
        Tree::Bool(value) => visitor.visit_bool(value),
        Tree::I64(value) => visitor.visit_i64(value),
        Tree::U64(value) => visitor.visit_u64(value),
        Tree::F64(value) => visitor.visit_f64(value),
        Tree::Str(text) => visitor.visit_borrowed_str(text),
        Tree::String(text) => visitor.visit_string(text),
        Tree::Bytes(bytes) => visitor.visit_byte_buf(bytes),
        Tree::Seq(elements) => {
            let mut elements = SeqDeserializer::new(elements.into_iter().map(W::wrap));
            let value = visitor.visit_seq(&mut elements)?;
            elements.end().map(|()| value)
        }
        Tree::Map(members) => {
            let mut members =
                MapDeserializer::new(members.into_iter().map(|(name, value)| (W::wrap(name), W::wrap(value))));
            let value = visitor.visit_map(&mut members)?;
            members.end().map(|()| value)
        }
    }
}
