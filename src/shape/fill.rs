//! Filling: a value of a type, and the JSON that it is read from, made up from what its `Deserialize` asks for.
//!
//! Types that check their texts and numbers get one candidate after the other.

use crate::sensitive;
use crate::shape::trace::Stop;
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const TEXTS: [&str; 12] = [
    "text",
    "6f2c1a52-8d3b-4c55-9a54-0b1f3c2d4e5f",
    // Of a year that no step mentions.
    "1987-06-05T04:03:02Z",
    "1987-06-05",
    "03:04:05",
    "1",
    "ada@example.org",
    "https://example.org/",
    "127.0.0.1",
    "EUR",
    "DE",
    "+4930123456",
];
const NUMBERS: [u64; 3] = [1, 0, 2];
const MAX_ATTEMPTS: usize = 400;
/// Below, options and lists are left empty, so that types inside themselves come to an end.
const RICH: usize = 10;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 10_000;

/// What was tried so far.
pub(super) struct Filling {
    /// Options and lists hold something.
    is_rich: bool,
    /// Which candidate is given where.
    choices: RefCell<BTreeMap<String, usize>>,
    /// Where the last candidate was given, and how many there are.
    last: RefCell<Option<(String, usize)>>,
    /// Options on the way: do they hold something?
    options: RefCell<BTreeMap<String, bool>>,
    /// The member that was named last.
    last_field: RefCell<Option<(String, &'static str)>>,
    /// Members that have other names; they come first.
    first: RefCell<BTreeSet<(String, &'static str)>>,
    /// The other names, and what of.
    aliases: RefCell<BTreeMap<(String, &'static str), &'static str>>,
    /// A member that is left out.
    omit: Option<(String, &'static str)>,
    was_omitted: Cell<bool>,
    /// How many places were filled in this attempt.
    nodes: Cell<usize>,
    /// What was made up of JSON.
    out: RefCell<Value>,
}

impl Filling {
    pub(super) fn lean() -> Self {
        Self {
            is_rich: false,
            choices: RefCell::default(),
            last: RefCell::default(),
            options: RefCell::default(),
            last_field: RefCell::default(),
            first: RefCell::default(),
            aliases: RefCell::default(),
            omit: None,
            was_omitted: Cell::new(false),
            nodes: Cell::new(0),
            out: RefCell::default(),
        }
    }

    pub(super) fn rich() -> Self {
        Self { is_rich: true, ..Self::lean() }
    }

    /// Leaves a member of the outermost struct out from now on.
    pub(super) fn omit(&mut self, name: &'static str) {
        self.omit = Some((String::new(), name));
    }

    pub(super) fn was_omitted(&self) -> bool {
        self.was_omitted.get()
    }

    /// Of which member of the outermost struct is this but another name?
    pub(super) fn alias_of(&self, name: &'static str) -> Option<&'static str> {
        self.aliases.borrow().get(&(String::new(), name)).copied()
    }

    /// Tries other candidates until it works; `None` if it never does.
    pub(super) fn attempts<T>(&self, mut run: impl FnMut(&Self) -> Result<T, Stop>) -> Option<T> {
        for _ in 0..MAX_ATTEMPTS {
            *self.last.borrow_mut() = None;
            self.nodes.set(0);
            match catch_unwind(AssertUnwindSafe(|| run(self))) {
                Ok(Ok(value)) => return Some(value),
                // serde lists a member's name and its aliases in one, and tells them apart here only.
                Ok(Err(Stop::DuplicateField(name))) => {
                    let last = self.last_field.borrow_mut().take()?;
                    let is_new = if last.1 == name {
                        self.first.borrow_mut().insert(last)
                    } else {
                        self.aliases.borrow_mut().insert(last, name).is_none()
                    };
                    if !is_new {
                        return None;
                    }
                }
                _ => {
                    let (place, candidates) = self.last.borrow_mut().take()?;
                    let mut choices = self.choices.borrow_mut();
                    let choice = choices.entry(place.clone()).or_default();
                    *choice += 1;
                    if *choice >= candidates {
                        // An option around it can go without.
                        let mut options = self.options.borrow_mut();
                        let around = options.iter_mut().filter(|(option, is_some)| **is_some && place.starts_with(option.as_str()));
                        *around.max_by_key(|(option, _)| option.len())?.1 = false;
                    }
                }
            }
        }
        None
    }

    fn choose(&self, place: &str, candidates: usize) -> usize {
        *self.last.borrow_mut() = Some((place.to_owned(), candidates));
        self.choices.borrow().get(place).copied().unwrap_or_default()
    }

    /// For values that nobody looks at.
    pub(super) fn at_the_side(&self) -> Fill<'_> {
        Fill { place: "aside".to_owned(), ..self.start() }
    }

    pub(super) fn start(&self) -> Fill<'_> {
        Fill { filling: self, place: String::new(), depth: 0, enums: 0, out: &self.out }
    }
}

/// JSON that `T` can be read from, with something in every option and list; `None` if that can't be found out.
pub(super) fn sample<'de, T: Deserialize<'de>>() -> Option<Value> {
    Filling::rich().attempts(|filling| {
        T::deserialize(filling.start())?;
        Ok(filling.out.take())
    })
}

/// A place that is to be filled.
#[derive(Clone)]
pub(super) struct Fill<'a> {
    filling: &'a Filling,
    place: String,
    depth: usize,
    /// How many enums are around.
    enums: usize,
    out: &'a RefCell<Value>,
}

impl<'a> Fill<'a> {
    /// An element of a tuple at the side.
    pub(super) fn index(&self, index: usize) -> Self {
        Self { place: format!("{}/{index}", self.place), ..self.clone() }
    }

    fn child<'b>(&self, name: &str, out: &'b RefCell<Value>) -> Fill<'b>
    where
        'a: 'b,
    {
        Fill { filling: self.filling, place: format!("{}/{name}", self.place), depth: self.depth + 1, enums: self.enums, out }
    }

    fn put(&self, value: impl Into<Value>) {
        *self.out.borrow_mut() = value.into();
    }

    fn is_rich(&self) -> bool {
        self.filling.is_rich && self.depth < RICH
    }

    fn deeper(&self) -> Result<(), Stop> {
        let nodes = &self.filling.nodes;
        nodes.set(nodes.get() + 1);
        if self.depth < MAX_DEPTH && nodes.get() < MAX_NODES { Ok(()) } else { Err(Stop::Other) }
    }

    fn text(&self) -> &'static str {
        let text = TEXTS.get(self.filling.choose(&self.place, TEXTS.len())).copied().unwrap_or_default();
        self.put(text);
        text
    }

    fn number(&self) -> u64 {
        let number = NUMBERS.get(self.filling.choose(&self.place, NUMBERS.len())).copied().unwrap_or_default();
        self.put(number);
        number
    }

    fn list<'de, V: Visitor<'de>>(self, length: usize, name: Option<&'static str>, visitor: V) -> Result<V::Value, Stop> {
        self.deeper()?;
        self.put(json!([]));
        visitor.visit_seq(Elements { index: 0, length, name, fill: self })
    }

    pub(super) fn members<'de, V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.deeper()?;
        self.put(Value::Object(Map::new()));
        let member = |name: &&'static str| (self.place.clone(), *name);
        let (first, aliases) = (self.filling.first.borrow().clone(), self.filling.aliases.borrow().clone());
        let mut fields: Vec<&'static str> = fields.iter().copied().filter(|name| !aliases.contains_key(&member(name))).collect();
        fields.sort_by_key(|name| !first.contains(&member(name)));
        visitor.visit_map(Members { fields: fields.into_iter(), name: "", fill: self })
    }
}

macro_rules! leaves {
    ($($method:ident)* => $visit:ident, $value:ident) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            visitor.$visit(self.$value())
        }
    )*};
}

impl<'de> Deserializer<'de> for Fill<'_> {
    type Error = Stop;

    leaves! { deserialize_str deserialize_string => visit_str, text }
    leaves! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 => visit_u64, number
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put(true);
        visitor.visit_bool(true)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put(1.5);
        visitor.visit_f64(1.5)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_f32(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put("x");
        visitor.visit_char('x')
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put(json!([1]));
        visitor.visit_bytes(&[1])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put(());
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.filling.choose(&self.place, 3) {
            0 => {
                self.put(TEXTS[0]);
                visitor.visit_str(TEXTS[0])
            }
            1 => {
                self.put(1);
                visitor.visit_u64(1)
            }
            _ => self.deserialize_bool(visitor),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.put("key");
        visitor.visit_str("key")
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.is_rich() && *self.filling.options.borrow_mut().entry(self.place.clone()).or_insert(true) {
            return visitor.visit_some(Self { depth: self.depth + 1, ..self });
        }
        self.put(());
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deeper()?;
        if name.starts_with("$serde_json::") {
            // A RawValue.
            self.put(1);
            return visitor.visit_map(MapDeserializer::<_, Stop>::new(std::iter::once((name, "1"))));
        }
        let inner = Self { depth: self.depth + 1, ..self };
        if name == sensitive::TOKEN { visitor.visit_some(inner) } else { visitor.visit_newtype_struct(inner) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let length = usize::from(self.is_rich());
        self.list(length, Some("*"), visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stop> {
        self.list(length, None, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, length: usize, visitor: V) -> Result<V::Value, Stop> {
        self.list(length, None, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deeper()?;
        self.put(Value::Object(Map::new()));
        visitor.visit_map(Entries { left: usize::from(self.is_rich()), key: String::new(), fill: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.members(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, variants: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.deeper()?;
        // Enums inside themselves come to an end, because each begins with another variant than the one around it.
        let choice = self.enums + self.filling.choose(&self.place, variants.len());
        let variant = variants.get(choice % variants.len().max(1)).ok_or(Stop::Other)?;
        let inner = RefCell::new(Value::Null);
        let fill = Fill { enums: self.enums + 1, ..self.child(variant, &inner) };
        let value = visitor.visit_enum(Variant { variant, fill })?;
        let inner = inner.into_inner();
        self.put(if inner == json!({ UNIT: null }) { Value::from(*variant) } else { json!({ *variant: inner }) });
        Ok(value)
    }
}

/// Stands for the content of a variant that has none.
const UNIT: &str = "$eventseal::unit";

struct Elements<'a> {
    index: usize,
    length: usize,
    name: Option<&'static str>,
    fill: Fill<'a>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        if self.index == self.length {
            return Ok(None);
        }
        let slot = RefCell::new(Value::Null);
        let name = self.name.map_or_else(|| self.index.to_string(), str::to_owned);
        let value = seed.deserialize(self.fill.child(&name, &slot))?;
        if let Value::Array(elements) = &mut *self.fill.out.borrow_mut() {
            elements.push(slot.into_inner());
        }
        self.index += 1;
        Ok(Some(value))
    }
}

struct Members<'a> {
    fields: std::vec::IntoIter<&'static str>,
    name: &'static str,
    fill: Fill<'a>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let filling = self.fill.filling;
        for name in self.fields.by_ref() {
            let member = (self.fill.place.clone(), name);
            if filling.omit.as_ref() == Some(&member) {
                filling.was_omitted.set(true);
                continue;
            }
            self.name = name;
            *filling.last_field.borrow_mut() = Some(member);
            return seed.deserialize(StrDeserializer::new(name)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let slot = RefCell::new(Value::Null);
        let value = seed.deserialize(self.fill.child(self.name, &slot))?;
        if let Value::Object(members) = &mut *self.fill.out.borrow_mut() {
            members.insert(self.name.to_owned(), slot.into_inner());
        }
        Ok(value)
    }
}

struct Entries<'a> {
    left: usize,
    key: String,
    fill: Fill<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let slot = RefCell::new(Value::Null);
        let key = seed.deserialize(self.fill.child("{key}", &slot))?;
        self.key = match slot.into_inner() {
            Value::String(key) => key,
            other => other.to_string(),
        };
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let slot = RefCell::new(Value::Null);
        let value = seed.deserialize(self.fill.child("*", &slot))?;
        if let Value::Object(members) = &mut *self.fill.out.borrow_mut() {
            members.insert(self.key.clone(), slot.into_inner());
        }
        Ok(value)
    }
}

struct Variant<'a> {
    variant: &'static str,
    fill: Fill<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Stop;
    type Variant = Fill<'a>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Fill<'a>), Stop> {
        Ok((seed.deserialize(StrDeserializer::<Stop>::new(self.variant))?, self.fill))
    }
}

impl<'de> VariantAccess<'de> for Fill<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.put(json!({ UNIT: null }));
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stop> {
        self.list(length, None, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.members(fields, visitor)
    }
}
