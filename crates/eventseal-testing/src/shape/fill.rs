//! Fills a type: makes up a value and its JSON, from what the type's `Deserialize` implementation asks for.
//!
//! A type may check its texts and numbers. So there is a list of candidates, which are tried one after the other.

use crate::shape::trace::Give;
use eventseal::Sensitive;
use eventseal::schema::{Answers, Asked, Given, Parts, PayloadType, Question, Refusal};
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

const TEXTS: [&str; 12] = [
    "text",
    "6f2c1a52-8d3b-4c55-9a54-0b1f3c2d4e5f",
    // A year that is unlikely to appear in a step.
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
/// The depth from which options and lists are left empty, so that recursive types come to an end.
const RICH: usize = 10;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 10_000;

/// What was tried so far, over all attempts. A place is a text, such as `/contact/name`.
pub(super) struct Filling {
    /// Options and lists get a value, unless they are too deep.
    is_rich: bool,
    /// The index of the candidate for each place.
    choices: RefCell<BTreeMap<String, usize>>,
    /// The place that got a candidate last, and how many candidates it has.
    last: RefCell<Option<(String, usize)>>,
    /// For each option: does it get a value?
    options: RefCell<BTreeMap<String, bool>>,
    /// The member that was named last.
    last_field: RefCell<Option<(String, &'static str)>>,
    /// Members with aliases. They are given before others, so that the alias is the duplicate.
    first: RefCell<BTreeSet<(String, &'static str)>>,
    /// The aliases that were found, each with its member.
    aliases: RefCell<BTreeMap<(String, &'static str), &'static str>>,
    /// The member that is left out.
    omit: Option<(String, &'static str)>,
    was_omitted: Cell<bool>,
    /// How many places were filled in this attempt.
    nodes: Cell<usize>,
    /// The JSON that was made up.
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

    /// From now on, leaves a member of the outermost struct out.
    pub(super) fn omit(&mut self, name: &'static str) {
        self.omit = Some((String::new(), name));
    }

    pub(super) fn was_omitted(&self) -> bool {
        self.was_omitted.get()
    }

    /// The member of the outermost struct of which `name` is an alias, if it is one.
    pub(super) fn alias_of(&self, name: &'static str) -> Option<&'static str> {
        self.aliases.borrow().get(&(String::new(), name)).copied()
    }

    /// Runs `run` with other candidates until it succeeds. `None` if it never does.
    pub(super) fn attempts<T>(&self, mut run: impl FnMut(&Self) -> Result<T, Refusal>) -> Option<T> {
        for _ in 0..MAX_ATTEMPTS {
            *self.last.borrow_mut() = None;
            self.nodes.set(0);
            match catch_unwind(AssertUnwindSafe(|| run(self))) {
                Ok(Ok(value)) => return Some(value),
                // serde reports names and aliases in one list. It tells that two mean the same member only when both
                // are given.
                Ok(Err(Refusal::DuplicateField(name))) => {
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
                        // No candidate works here. Leave the innermost option around it empty.
                        let mut options = self.options.borrow_mut();
                        let around = options
                            .iter_mut()
                            .filter(|(option, is_some)| **is_some && place.starts_with(option.as_str()));
                        *around.max_by_key(|(option, _)| option.len())?.1 = false;
                    }
                }
            }
        }
        None
    }

    /// The index of the candidate for a place.
    fn choose(&self, place: &str, candidates: usize) -> usize {
        *self.last.borrow_mut() = Some((place.to_owned(), candidates));
        self.choices.borrow().get(place).copied().unwrap_or_default()
    }

    /// Fills values that are not part of the result.
    pub(super) fn at_the_side(&self) -> Fill<'_> {
        Fill { place: "aside".to_owned(), ..self.start() }
    }

    pub(super) fn start(&self) -> Fill<'_> {
        Fill { filling: self, place: String::new(), depth: 0, enums: 0, out: &self.out }
    }
}

/// A JSON value that the type reads, with a value in every option and list. `None` if none can be made up.
pub(super) fn sample(of: PayloadType) -> Option<Value> {
    Filling::rich().attempts(|filling| {
        of.ask(&filling.start())?;
        Ok(filling.out.take())
    })
}

/// A place that is being filled.
#[derive(Clone)]
pub(super) struct Fill<'a> {
    filling: &'a Filling,
    place: String,
    depth: usize,
    /// How many enums are around this place.
    enums: usize,
    out: &'a RefCell<Value>,
}

impl<'a> Fill<'a> {
    /// Another element, beside this place.
    pub(super) fn index(&self, index: usize) -> Self {
        Self { place: format!("{}/{index}", self.place), ..self.clone() }
    }

    fn child<'b>(&self, name: &str, out: &'b RefCell<Value>) -> Fill<'b>
    where
        'a: 'b,
    {
        Fill {
            filling: self.filling,
            place: format!("{}/{name}", self.place),
            depth: self.depth + 1,
            enums: self.enums,
            out,
        }
    }

    fn put(&self, value: impl Into<Value>) {
        *self.out.borrow_mut() = value.into();
    }

    fn is_rich(&self) -> bool {
        self.filling.is_rich && self.depth < RICH
    }

    fn deeper(&self) -> Result<(), Refusal> {
        let nodes = &self.filling.nodes;
        nodes.set(nodes.get() + 1);
        if self.depth < MAX_DEPTH && nodes.get() < MAX_NODES { Ok(()) } else { Err(Refusal::Other) }
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

    fn list(&self, length: usize, name: Option<&'static str>, give: Give<'_>) -> Result<(), Refusal> {
        self.deeper()?;
        self.put(json!([]));
        give(Given::List(&mut Elements { index: 0, length, name, fill: self }))
    }

    pub(super) fn members(&self, fields: &'static [&'static str], give: Give<'_>) -> Result<(), Refusal> {
        self.deeper()?;
        self.put(Value::Object(Map::new()));
        let member = |name: &&'static str| (self.place.clone(), *name);
        let (first, aliases) = (self.filling.first.borrow().clone(), self.filling.aliases.borrow().clone());
        let mut fields: Vec<&'static str> =
            fields.iter().copied().filter(|name| !aliases.contains_key(&member(name))).collect();
        fields.sort_by_key(|name| !first.contains(&member(name)));
        give(Given::Map(&mut Members { fields: fields.into_iter(), named: None, fill: self }))
    }

    fn variant(&self, variants: &'static [&'static str], give: Give<'_>) -> Result<(), Refusal> {
        self.deeper()?;
        // Each enum starts with another variant than the enum around it, so that a recursive enum comes to an end.
        let choice = self.enums + self.filling.choose(&self.place, variants.len());
        let variant = variants.get(choice % variants.len().max(1)).ok_or(Refusal::Other)?;
        let inner = RefCell::new(Value::Null);
        give(Given::Variant(variant, &Fill { enums: self.enums + 1, ..self.child(variant, &inner) }))?;
        let inner = inner.into_inner();
        self.put(if inner == json!({ UNIT: null }) { Value::from(*variant) } else { json!({ *variant: inner }) });
        Ok(())
    }

    fn any(&self, give: Give<'_>) -> Result<(), Refusal> {
        match self.filling.choose(&self.place, 3) {
            0 => {
                self.put(TEXTS[0]);
                give(Given::Text(TEXTS[0]))
            }
            1 => {
                self.put(1);
                give(Given::Integer(1))
            }
            _ => self.put_and_give(true, Given::Bool(true), give),
        }
    }

    fn newtype(&self, name: &'static str, give: Give<'_>) -> Result<(), Refusal> {
        self.deeper()?;
        if name.starts_with("$serde_json::") {
            // A RawValue.
            self.put(1);
            return give(Given::Map(&mut Raw(vec!["1", name])));
        }
        let inner = Self { depth: self.depth + 1, ..self.clone() };
        give(if name == Sensitive::NAME { Given::Some(&inner) } else { Given::Newtype(&inner) })
    }

    fn put_and_give(&self, value: impl Into<Value>, given: Given<'_>, give: Give<'_>) -> Result<(), Refusal> {
        self.put(value);
        give(given)
    }
}

impl Answers for Fill<'_> {
    fn answer(&self, question: &Question, give: Give<'_>) -> Result<(), Refusal> {
        match question.asked {
            Asked::Text => give(Given::Text(self.text())),
            Asked::Number("f32" | "f64") => self.put_and_give(1.5, Given::Float(1.5), give),
            Asked::Number(_) => give(Given::Integer(self.number())),
            Asked::Bool => self.put_and_give(true, Given::Bool(true), give),
            Asked::Char => self.put_and_give("x", Given::Char('x'), give),
            Asked::Bytes => self.put_and_give(json!([1]), Given::Bytes(&[1]), give),
            Asked::Unit | Asked::Ignored => self.put_and_give((), Given::Unit, give),
            Asked::Any => self.any(give),
            Asked::Identifier => self.put_and_give("key", Given::Text("key"), give),
            Asked::Option => {
                if self.is_rich() && *self.filling.options.borrow_mut().entry(self.place.clone()).or_insert(true) {
                    return give(Given::Some(&Self { depth: self.depth + 1, ..self.clone() }));
                }
                self.put_and_give((), Given::None, give)
            }
            Asked::Newtype(name) => self.newtype(name, give),
            Asked::List => self.list(usize::from(self.is_rich()), Some("*"), give),
            Asked::Tuple(length) => self.list(length, None, give),
            Asked::Map => {
                self.deeper()?;
                self.put(Value::Object(Map::new()));
                let left = usize::from(self.is_rich());
                give(Given::Map(&mut Entries { left, key: None, fill: self }))
            }
            Asked::Struct(fields) => self.members(fields, give),
            Asked::Enum(variants) => self.variant(variants, give),
            Asked::UnitVariant => self.put_and_give(json!({ UNIT: null }), Given::Unit, give),
            _ => Err(Refusal::Other),
        }
    }
}

/// A marker for the content of a variant without content.
const UNIT: &str = "$eventseal::unit";

/// Answers every question with this text.
pub(super) struct Text<'a>(pub(super) &'a str);

impl Answers for Text<'_> {
    fn answer(&self, _: &Question, give: Give<'_>) -> Result<(), Refusal> {
        give(Given::Text(self.0))
    }
}

/// The parts of a raw value, which is a map with one member: texts, given from the last to the first.
struct Raw(Vec<&'static str>);

impl Parts for Raw {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        match self.0.pop() {
            Some(text) => read(&Text(text)).map(|()| true),
            None => Ok(false),
        }
    }
}

struct Elements<'a> {
    index: usize,
    length: usize,
    name: Option<&'static str>,
    fill: &'a Fill<'a>,
}

impl Parts for Elements<'_> {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        if self.index == self.length {
            return Ok(false);
        }
        let slot = RefCell::new(Value::Null);
        let name = self.name.map_or_else(|| self.index.to_string(), str::to_owned);
        read(&self.fill.child(&name, &slot))?;
        if let Value::Array(elements) = &mut *self.fill.out.borrow_mut() {
            elements.push(slot.into_inner());
        }
        self.index += 1;
        Ok(true)
    }
}

struct Members<'a> {
    fields: std::vec::IntoIter<&'static str>,
    /// The member whose value is next.
    named: Option<&'static str>,
    fill: &'a Fill<'a>,
}

impl Parts for Members<'_> {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        if let Some(name) = self.named.take() {
            let slot = RefCell::new(Value::Null);
            read(&self.fill.child(name, &slot))?;
            if let Value::Object(members) = &mut *self.fill.out.borrow_mut() {
                members.insert(name.to_owned(), slot.into_inner());
            }
            return Ok(true);
        }
        let filling = self.fill.filling;
        for name in self.fields.by_ref() {
            let member = (self.fill.place.clone(), name);
            if filling.omit.as_ref() == Some(&member) {
                filling.was_omitted.set(true);
                continue;
            }
            self.named = Some(name);
            *filling.last_field.borrow_mut() = Some(member);
            return read(&Text(name)).map(|()| true);
        }
        Ok(false)
    }
}

struct Entries<'a> {
    left: usize,
    /// The name of the member whose value is next.
    key: Option<String>,
    fill: &'a Fill<'a>,
}

impl Parts for Entries<'_> {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        let slot = RefCell::new(Value::Null);
        if let Some(key) = self.key.take() {
            read(&self.fill.child("*", &slot))?;
            if let Value::Object(members) = &mut *self.fill.out.borrow_mut() {
                members.insert(key, slot.into_inner());
            }
            return Ok(true);
        }
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        read(&self.fill.child("{key}", &slot))?;
        self.key = Some(match slot.into_inner() {
            Value::String(key) => key,
            other => other.to_string(),
        });
        Ok(true)
    }
}
