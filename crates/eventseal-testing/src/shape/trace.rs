//! Traces a type: runs its `Deserialize` implementation, answers what it asks for, and notes the questions.
//!
//! Each run finds out one place. A path leads through the type to that place, and the run ends there with the question
//! that the type asks. So values need not be made up on the way, except for the elements before one of a tuple. And a
//! field that refuses its value hides no other field.

use crate::shape::fill::{Fill, Filling, Text};
use eventseal::Sensitive;
use eventseal::schema::{Answers, Asked as Kind, Given, Parts, PayloadType, Question, Refusal};
use std::cell::{Cell, RefCell};

/// One step further into a type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Hop {
    /// Into an `Option`, a newtype or a `Sensitive`.
    Inner,
    Element,
    Index(usize),
    Key,
    MapValue,
    Field(&'static str),
    Variant(&'static str),
}

/// What a type asked for. Named types come with their names, so that a type inside itself is recognised.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    Leaf(&'static str),
    /// Any value, and it keeps the value as it is.
    Any,
    /// Any value, and it decides by the value what to read.
    Looks,
    Option,
    Sensitive,
    Newtype(&'static str),
    List,
    Tuple(usize),
    Map,
    /// The name of a member out of a map. Only types with `#[serde(flatten)]` ask for it.
    Identifier,
    Struct(&'static str, &'static [&'static str]),
    Enum(&'static str, &'static [&'static str]),
}

/// What a type asks for at the end of a path. `None` if no run gets there.
pub(super) fn ask(of: PayloadType, path: &[Hop]) -> Option<Asked> {
    let filling = Filling::lean();
    filling.attempts(|filling| {
        let answer = RefCell::new(None);
        let refusal = of.ask(&At { path, end: End::Ask(&answer), filling }).err().unwrap_or(Refusal::Other);
        answer.into_inner().ok_or(refusal)
    })
}

/// Fills the struct at the end of a path with made-up values. Returns whether it accepted them.
pub(super) fn fill_struct(of: PayloadType, path: &[Hop], filling: &Filling) -> Result<(), Refusal> {
    let result = Cell::new(Err(Refusal::Other));
    let _ = of.ask(&At { path, end: End::Fill(&result), filling });
    result.into_inner()
}

/// Does the struct at the end of a path refuse unknown members (`deny_unknown_fields`)?
pub(super) fn refuses_others(of: PayloadType, path: &[Hop]) -> bool {
    const OTHER: &str = "$eventseal::other";
    // A struct that accepts unknown members reads or skips the value, and so gets to the end of the path.
    ask(of, &[path, &[Hop::Field(OTHER)]].concat()).is_none()
}

#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a [Hop],
    end: End<'a>,
    filling: &'a Filling,
}

/// What happens at the end of the path.
#[derive(Clone, Copy)]
enum End<'a> {
    /// The question is noted.
    Ask(&'a RefCell<Option<Asked>>),
    /// The struct there is filled.
    Fill(&'a Cell<Result<(), Refusal>>),
}

/// Gives an answer to the type.
pub(super) type Give<'g> = &'g mut dyn FnMut(Given<'_>) -> Result<(), Refusal>;

impl<'a> At<'a> {
    /// The next hop and the rest of the path. At the end of the path, notes the question and ends the run.
    fn next(self, asked: Asked) -> Result<(&'a Hop, Self), Refusal> {
        match self.path.split_first() {
            Some((hop, path)) => Ok((hop, Self { path, ..self })),
            None => {
                if let End::Ask(answer) = self.end {
                    *answer.borrow_mut() = Some(asked);
                }
                Err(Refusal::Other)
            }
        }
    }

    fn leaf(self, name: &'static str) -> Result<(), Refusal> {
        self.next(Asked::Leaf(name))?;
        Err(Refusal::Other)
    }

    fn fill(self) -> Fill<'a> {
        self.filling.at_the_side()
    }

    fn members(self, name: &'static str, fields: &'static [&'static str], give: Give<'_>) -> Result<(), Refusal> {
        if let (End::Fill(result), []) = (self.end, self.path) {
            result.set(self.filling.start().members(fields, give));
            return Err(Refusal::Other);
        }
        let (hop, at) = self.next(Asked::Struct(name, fields))?;
        give(Given::Map(&mut Entry::new(hop, at)))
    }
}

impl Answers for At<'_> {
    fn answer(&self, question: &Question, give: Give<'_>) -> Result<(), Refusal> {
        match question.asked {
            Kind::Bool => self.leaf("bool"),
            Kind::Char => self.leaf("char"),
            Kind::Text => self.leaf("string"),
            Kind::Bytes => self.leaf("bytes"),
            Kind::Unit => self.leaf("null"),
            Kind::Ignored => self.leaf("ignored"),
            Kind::Number(name) => self.leaf(name),
            Kind::Any => {
                self.next(if question.for_type == VALUE { Asked::Any } else { Asked::Looks })?;
                Err(Refusal::Other)
            }
            Kind::Identifier => {
                self.next(Asked::Identifier)?;
                Err(Refusal::Other)
            }
            Kind::Option => give(Given::Some(&self.next(Asked::Option)?.1)),
            Kind::Newtype(Sensitive::NAME) => give(Given::Some(&self.next(Asked::Sensitive)?.1)),
            // A RawValue.
            Kind::Newtype(name) if name.starts_with("$serde_json::") => give(Given::Newtype(&self.next(Asked::Any)?.1)),
            Kind::Newtype(_) => give(Given::Newtype(&self.next(Asked::Newtype(question.for_type))?.1)),
            Kind::List => {
                give(Given::List(&mut Elements { left: 0, at: Some(self.next(Asked::List)?.1), fill: self.fill() }))
            }
            Kind::Tuple(length) => {
                let (Hop::Index(left), at) = self.next(Asked::Tuple(length))? else { return Err(Refusal::Other) };
                give(Given::List(&mut Elements { left: *left, at: Some(at), fill: self.fill() }))
            }
            Kind::Map => {
                let (hop, at) = self.next(Asked::Map)?;
                give(Given::Map(&mut Entry::new(hop, at)))
            }
            Kind::Struct(fields) => self.members(question.for_type, fields, give),
            Kind::Enum(variants) => {
                let (Hop::Variant(variant), at) = self.next(Asked::Enum(question.for_type, variants))? else {
                    return Err(Refusal::Other);
                };
                give(Given::Variant(variant, &at))
            }
            Kind::UnitVariant => self.next(Asked::Leaf("null")).map(drop),
            _ => Err(Refusal::Other),
        }
    }
}

/// The name of the type `serde_json::Value`.
const VALUE: &str = "serde_json::value::Value";

/// Made-up elements, then the element on the path.
struct Elements<'a> {
    left: usize,
    at: Option<At<'a>>,
    fill: Fill<'a>,
}

impl Parts for Elements<'_> {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        if self.left > 0 {
            self.left -= 1;
            return read(&self.fill.index(self.left)).map(|()| true);
        }
        match self.at.take() {
            Some(at) => read(&at).map(|()| true),
            None => Ok(false),
        }
    }
}

/// The one member of a map or struct that is on the path.
struct Entry<'a> {
    hop: &'a Hop,
    at: Option<At<'a>>,
    is_value_next: bool,
}

impl<'a> Entry<'a> {
    fn new(hop: &'a Hop, at: At<'a>) -> Self {
        Self { hop, at: Some(at), is_value_next: false }
    }
}

impl Parts for Entry<'_> {
    fn next(&mut self, read: &mut dyn FnMut(&dyn Answers) -> Result<(), Refusal>) -> Result<bool, Refusal> {
        if std::mem::take(&mut self.is_value_next) {
            let at = self.at.take().ok_or(Refusal::Other)?;
            return read(&at).map(|()| true);
        }
        let Some(at) = self.at else { return Ok(false) };
        match self.hop {
            Hop::Field(name) => read(&Text(name))?,
            Hop::Key => read(&at)?,
            Hop::MapValue => read(&at.fill().index(0))?,
            _ => return Ok(false),
        }
        self.is_value_next = true;
        Ok(true)
    }
}
