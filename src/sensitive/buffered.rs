//! Reads a `Sensitive` out of a buffer of serde. Such a buffer does not know where in the payload its values stood.
//!
//! Serde keeps values that it can't place yet in a buffer: below `#[serde(flatten)]`, and in internally tagged and
//! untagged enums. A redacted value must be recognised when it comes out of the buffer. At the same time, a type that
//! does not know of redactions must still find the stand-in there. So the kinds of stand-ins are put into the buffer in
//! different ways:
//!
//! - `null` goes in as a `None`, which serde_json never makes. Most types read a `None` as they read `null`.
//! - A text goes in as a reference into the payload, and comes out as the same reference.
//! - Any other value may look like a live one. If one of them is doubtful, the payload is read again with marks in the
//!   doubtful places. A mark is a value that only a `Sensitive` understands.
//!
//! Buffers of the application, such as a `serde_json::Value`, lose these distinctions. A value that comes out of such a
//! buffer and can't be told from a redaction is refused.

use crate::json::pointer::Places;
use crate::json::raw;
use crate::sensitive::tree::{Buffered, OfSerde, Plant, Tree};
use crate::sensitive::{Mode, Sensitive, in_mode};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;
use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How a mark begins. No text begins like this, because it is not UTF-8.
const MARK: &[u8] = b"\xff$eventseal::erased\xff";

/// What was observed in one reading of a payload. Values are identified by their address in the payload's text.
#[derive(Default)]
pub(super) struct Reading {
    /// Redacted values that went into a buffer of serde, and their parts, by the address at which they begin.
    shown: RefCell<BTreeMap<usize, Shown>>,
    /// The stand-ins that went to another type that takes any value, such as a buffer of the application.
    shown_elsewhere: RefCell<Vec<Value>>,
    /// Redacted values that a `Sensitive` has read, by address.
    claimed: RefCell<BTreeSet<usize>>,
    /// Values that are shown as marks in this reading, by address.
    marked: BTreeSet<usize>,
    /// A value came out of a buffer, and could be live or redacted.
    is_doubtful: Cell<bool>,
    /// As `is_doubtful`, and a reading with marks can't settle it.
    is_lost: Cell<bool>,
    /// The marks are known to be complete: every value without a mark is live.
    is_settled: bool,
    /// A redacted `null` went into a buffer of serde.
    has_null: Cell<bool>,
}

struct Shown {
    end: usize,
    /// The address of the redacted value that this one is a part of.
    around: Option<usize>,
    stand_in: Value,
}

thread_local! {
    static READING: RefCell<Option<Rc<Reading>>> = const { RefCell::new(None) };
}

impl Reading {
    pub(super) fn marking(marked: BTreeSet<usize>, is_settled: bool) -> Self {
        Self { marked, is_settled, ..Self::default() }
    }

    /// Runs `read`, and returns its result and what was observed.
    pub(super) fn run<T>(self, read: impl FnOnce() -> T) -> (T, Rc<Self>) {
        struct Restore(Option<Rc<Reading>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                READING.set(self.0.take());
            }
        }
        let reading = Rc::new(self);
        let _restore = Restore(READING.replace(Some(Rc::clone(&reading))));
        (in_mode(Mode::Watching, read), reading)
    }

    /// Notes a stand-in and all its parts, because a buffer may be read part by part.
    fn note_elsewhere(&self, stand_in: Value) {
        match &stand_in {
            Value::Object(members) => members.values().for_each(|it| self.note_elsewhere(it.clone())),
            Value::Array(elements) => elements.iter().for_each(|it| self.note_elsewhere(it.clone())),
            _ => {}
        }
        let mut known = self.shown_elsewhere.borrow_mut();
        if !known.contains(&stand_in) {
            known.push(stand_in);
        }
    }

    /// The redacted values that may belong to a `Sensitive`, but were not recognised by one. Containers come before
    /// their parts.
    pub(super) fn open(&self) -> BTreeSet<usize> {
        let (shown, claimed) = (self.shown.borrow(), self.claimed.borrow());
        let is_open = |start: &usize| enclosing(&shown, *start).all(|(start, _)| !claimed.contains(&start));
        shown.keys().copied().filter(is_open).collect()
    }

    /// Of the values in `open`, those that are not parts of other ones.
    pub(super) fn outermost(&self, open: &BTreeSet<usize>) -> BTreeSet<usize> {
        let shown = self.shown.borrow();
        open.iter()
            .copied()
            .filter(|start| enclosing(&shown, *start).skip(1).all(|(start, _)| !open.contains(&start)))
            .collect()
    }

    /// Was every mark read by a `Sensitive`?
    pub(super) fn all_marks_were_read(&self) -> bool {
        self.marked.is_subset(&self.claimed.borrow())
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.is_doubtful.get()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    pub(super) fn has_null(&self) -> bool {
        self.has_null.get()
    }
}

/// How a redacted value is presented to a visitor.
pub(super) enum Show {
    Mark(Vec<u8>),
    None,
    /// Each member or element is presented as a redacted value of its own.
    Parts,
    AsItIs,
}

/// Decides how a redacted value is presented to a visitor that takes any value.
pub(super) fn show<'de, V: Visitor<'de>>(raw: &'de str) -> Show {
    let Some(reading) = READING.with_borrow(Option::clone) else { return Show::AsItIs };
    // A value that is nested too deep is refused by serde_json later.
    let Ok(stand_in) = serde_json::from_str::<Value>(raw) else { return Show::AsItIs };
    if !is_buffer::<V::Value>() {
        reading.note_elsewhere(stand_in);
        return Show::AsItIs;
    }
    let (start, end) = (raw.as_ptr() as usize, raw.as_ptr() as usize + raw.len());
    let is_container = stand_in.is_object() || stand_in.is_array();
    let mut shown = reading.shown.borrow_mut();
    let around =
        innermost(&shown, start).find(|(around, it)| *around != start && end <= it.end).map(|(around, _)| around);
    shown.entry(start).or_insert(Shown { end, around, stand_in });
    drop(shown);
    if reading.marked.contains(&start) {
        return Show::Mark([MARK, &start.to_ne_bytes()].concat());
    }
    if raw == "null" {
        reading.has_null.set(true);
        return Show::None;
    }
    if is_container { Show::Parts } else { Show::AsItIs }
}

/// The redacted values that contain this address, from the inside to the outside.
fn innermost(shown: &BTreeMap<usize, Shown>, address: usize) -> impl Iterator<Item = (usize, &Shown)> {
    let nearest = shown.range(..=address).next_back().map(|(start, _)| *start);
    nearest.into_iter().flat_map(|start| enclosing(shown, start)).filter(move |(_, it)| address < it.end)
}

/// A redacted value, and then those that it is a part of, from the inside to the outside.
fn enclosing(shown: &BTreeMap<usize, Shown>, start: usize) -> impl Iterator<Item = (usize, &Shown)> {
    let of = |start: usize| shown.get(&start).map(|it| (start, it));
    std::iter::successors(of(start), move |(_, it)| of(it.around?))
}

/// Notes the stand-ins in a JSON text that a type keeps as text (a `RawValue`) and may read later.
pub(super) fn show_text(raw: &str, places: &Places) {
    let Some(reading) = READING.with_borrow(Option::clone) else { return };
    if places.is_place() {
        let (stand_in, mut known) =
            (serde_json::from_str(raw).unwrap_or_default(), reading.shown_elsewhere.borrow_mut());
        if !known.contains(&stand_in) {
            known.push(stand_in);
        }
    } else if raw.starts_with('{') {
        for (name, value) in raw::members(raw).unwrap_or_default() {
            if let Some(places) = raw::name(name).ok().and_then(|name| places.step(&name)) {
                show_text(value.get(), places);
            }
        }
    } else if raw.starts_with('[') {
        for (index, value) in raw::elements(raw).unwrap_or_default().into_iter().enumerate() {
            if let Some(places) = places.step(&index.to_string()) {
                show_text(value.get(), places);
            }
        }
    }
}

/// What a `Sensitive` is read from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// JSON text, or something that can't be redacted: the name of a member, or the members around a flattened struct.
    Direct,
    /// A buffer of serde.
    Serde,
    /// Any other deserializer, perhaps a buffer of the application.
    Unknown,
}

/// Recognises a deserializer by its type's name. Rust does not guarantee these names. If a name is not recognised,
/// doubtful values are refused instead of guessed.
fn source_of<D>() -> Source {
    let name = type_name::<D>().trim_start_matches("&mut ").split('<').next().unwrap_or_default();
    let of_serde = |ending| is_of_serde(name) && name.ends_with(ending);
    if of_serde("::FlatMapDeserializer") || name.starts_with("serde_json::") && name.ends_with("::MapKeyDeserializer") {
        Source::Direct
    } else if type_name::<OfSerde<'_, ()>>().starts_with(&format!("{name}<"))
        || of_serde("::ContentDeserializer")
        || of_serde("::ContentRefDeserializer")
    {
        Source::Serde
    } else {
        Source::Unknown
    }
}

/// Is this visitor's result a buffer of serde, alone or beside a tag?
fn is_buffer<V>() -> bool {
    type_name::<V>()
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .any(|name| is_of_serde(name) && name.ends_with("Content"))
}

fn is_of_serde(name: &str) -> bool {
    #[cfg(test)]
    if tests::RENAMED.get().is_some_and(|renamed| name.ends_with(renamed)) {
        return false;
    }
    name.starts_with("serde::") || name.starts_with("serde_core::")
}

/// Reads a `Sensitive` that may have been in a buffer.
pub(super) fn read<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Sensitive<T>, D::Error> {
    let mut source = source_of::<D>();
    let Some(reading) = READING.with_borrow(Option::clone).filter(|_| source != Source::Direct) else {
        return T::deserialize(deserializer).map(Sensitive::Present);
    };
    // If only unknown types have taken redacted values, they may be serde's own buffers under names that are not known
    // here.
    if reading.shown.borrow().is_empty() && !reading.shown_elsewhere.borrow().is_empty() {
        source = Source::Unknown;
    }
    let tree = deserializer.deserialize_any(Plant)?;
    match (reading.judge(&tree, source), source) {
        (Verdict::Redacted, _) => Ok(Sensitive::Redacted),
        (Verdict::Doubtful, Source::Unknown) => {
            let before = (reading.is_doubtful.get(), reading.is_lost.get());
            match T::deserialize(Buffered::<D::Error>::new(tree)) {
                Ok(value) => {
                    reading.is_lost.set(true);
                    Ok(Sensitive::Present(value))
                }
                // Had the value been live, its type would have accepted it. So it is a stand-in.
                Err(_) => {
                    reading.is_doubtful.set(before.0);
                    reading.is_lost.set(before.1);
                    Ok(Sensitive::Redacted)
                }
            }
        }
        (verdict, source) => {
            if verdict == Verdict::Doubtful {
                reading.is_doubtful.set(true);
                // The result does not matter: the payload is read again with marks.
                return Ok(Sensitive::Redacted);
            }
            match source {
                Source::Serde => T::deserialize(OfSerde::<D::Error>(Buffered::new(tree))),
                _ => T::deserialize(Buffered::<D::Error>::new(tree)),
            }
            .map(Sensitive::Present)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Redacted,
    Live,
    Doubtful,
}

impl Reading {
    fn judge(&self, tree: &Tree<'_>, source: Source) -> Verdict {
        match tree {
            Tree::Bytes(bytes) => {
                let start =
                    bytes.strip_prefix(MARK).and_then(|start| Some(usize::from_ne_bytes(start.try_into().ok()?)));
                return match start.filter(|start| self.marked.contains(start)) {
                    Some(start) => self.claim(start),
                    None => Verdict::Live,
                };
            }
            Tree::None if source == Source::Serde => return Verdict::Redacted,
            _ => {}
        }
        let shown = self.shown.borrow();
        if let Some((address, is_in_list)) = tree.address()
            && let Some((start, _)) = innermost(&shown, address).find(|(_, it)| !is_in_list || tree.is(&it.stand_in))
        {
            return self.claim(start);
        }
        // A redacted text would have been found by its address, and a redacted null would be a `None`. So out of a
        // buffer of serde, these are live.
        if source == Source::Serde && (self.is_settled || matches!(tree, Tree::Unit | Tree::Str(_))) {
            return Verdict::Live;
        }
        let elsewhere = self.shown_elsewhere.borrow();
        let elsewhere = if source == Source::Unknown { elsewhere.as_slice() } else { &[] };
        let marked = |start: &usize| self.marked.contains(start);
        let mut candidates =
            shown.iter().filter(|(start, _)| !marked(start)).map(|(_, it)| &it.stand_in).chain(elsewhere);
        if candidates.any(|stand_in| tree.is(stand_in)) { Verdict::Doubtful } else { Verdict::Live }
    }

    fn claim(&self, start: usize) -> Verdict {
        self.claimed.borrow_mut().insert(start);
        Verdict::Redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::pointer::JsonPointer;
    use crate::sensitive::decode;
    use serde::Deserialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    thread_local! {
        /// Types of serde whose names end like this are treated as unknown.
        pub(super) static RENAMED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    #[derive(Deserialize)]
    struct Pair {
        a: Sensitive<Value>,
        b: Sensitive<Value>,
    }

    #[derive(Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        Card(Pair),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Card(Pair),
    }

    #[derive(Deserialize)]
    struct Flat {
        #[serde(flatten)]
        pair: Pair,
    }

    /// Decodes all pairs of these values with all choices of erased ones. Returns how many could be decoded; each of
    /// those must be right.
    fn read<T: DeserializeOwned>(values: &[Value], pair_of: fn(T) -> Pair) -> usize {
        let mut count = 0;
        for (a, b) in values.iter().flat_map(|a| values.iter().map(move |b| (a, b))) {
            for erased in [&["/a"][..], &["/b"], &["/a", "/b"]] {
                let payload = json!({"a": a, "b": b, "kind": "Card"}).to_string();
                let places: Vec<_> = erased.iter().map(|place| JsonPointer::parse(place).unwrap()).collect();
                let Ok(value) = decode::<T>(payload.as_bytes(), &places) else { continue };
                let pair = pair_of(value);
                for (place, written, read) in [("/a", a, pair.a), ("/b", b, pair.b)] {
                    let expected = if erased.contains(&place) { None } else { Some(written) };
                    assert_eq!(read.expose(), expected, "{place} {payload} {erased:?} {:?}", RENAMED.get());
                }
                count += 1;
            }
        }
        count
    }

    /// If a future serde renames its types, doubtful values are refused.
    #[test]
    fn i4_a_serde_whose_buffers_have_other_names_leads_to_no_guess() {
        let values = [
            json!(null),
            json!(true),
            json!(5),
            json!(0.5),
            json!("e"),
            json!("\n"),
            json!([]),
            json!([0]),
            json!({"x": 5}),
        ];
        let count = values.len() * values.len() * 3;
        for renamed in [None, Some("Content"), Some("Deserializer"), Some("")] {
            RENAMED.set(renamed);
            let counts = [
                read(&values, |Tagged::Card(pair)| pair),
                read(&values, |Untagged::Card(pair)| pair),
                read(&values, |Flat { pair }| pair),
            ];
            RENAMED.set(None);
            assert_eq!(counts == [count; 3], renamed.is_none(), "{renamed:?} {counts:?}");
        }
    }
}
