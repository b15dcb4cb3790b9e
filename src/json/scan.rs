//! Finds protected places in a JSON text without building a tree of it.
//!
//! One pass over the bytes checks that they are JSON ([RFC 8259]), and notes where the values at the wanted places
//! begin and end. So the values can be replaced where they stand, and everything else stays the same, byte for byte.
//! This module knows nothing of keys or encryption.
//!
//! [RFC 8259]: https://www.rfc-editor.org/rfc/rfc8259

mod children;
mod cursor;
mod grammar;
mod locate;
mod members;
mod strings;

pub(crate) use locate::locate;
pub(crate) use strings::unescape;

use crate::error::{Error, EventFault};
use crate::json::pointer::{Bound, JsonPointer, Pattern, array_index};
use crate::json::scan::children::{Seen, find};
use crate::json::scan::cursor::{Cursor, Read};
use crate::json::wanted::{Node, Target, Wanted};
use std::collections::HashSet;
use uuid::Uuid;

/// The name of the member that holds the header, in the root object of a sealed payload.
pub(crate) const SEAL_MEMBER: &str = "$seal";

/// The name of the member that holds the ciphertext, if the payload is sealed as a whole.
pub(crate) const WHOLE_MEMBER: &str = "$sealed";

/// How many hits a scan notes before it gives up. So a document can't make it use memory without limit.
pub(crate) const MAX_HITS: usize = 65_536;

/// How deep arrays and objects may nest: a constant of the format. It is the limit of serde_json too, which steps use.
pub(crate) const MAX_DEPTH: usize = 128;

/// A range of bytes in a text: `start` is included, `end` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    /// The bytes of `text` in this range.
    pub(crate) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.end]
    }

    pub(crate) fn length(self) -> usize {
        self.end - self.start
    }
}

/// A wanted place that the document has.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) target: Target,
    /// What the `*` and the names in braces on the way stood for.
    pub(crate) bound: Vec<Bound>,
    /// Where the value stands.
    pub(crate) span: Span,
}

/// Where the member with the header stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SealMember {
    /// What must be cut out to remove the member: the member, with one comma beside it.
    pub(crate) cut: Span,
    /// Where the value of the member stands.
    pub(crate) value: Span,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The wanted places, in the order of the document.
    pub(crate) hits: Vec<Hit>,
    pub(crate) seal: Option<SealMember>,
    /// Where the value of the root's last member `$sealed` stands.
    pub(crate) whole: Option<Span>,
    /// The position just behind the opening brace of the root. `None` if the root is not an object.
    pub(crate) body: Option<usize>,
    /// How many members the root has, the one with the header included.
    pub(crate) members: usize,
}

/// Why a scan failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    Syntax { offset: usize, problem: &'static str },
    TooDeep,
    TooMany,
    Duplicate { place: String },
    Shape { place: String, expected: &'static str },
}

impl ScanError {
    /// This failure as an error about the event whose payload was scanned.
    pub(crate) fn in_event(self, event_id: Uuid) -> Error {
        match self {
            Self::Syntax { offset, problem } => {
                Error::Event { event_id, fault: EventFault::InvalidPayload { offset, problem } }
            }
            Self::TooDeep => Error::Event {
                event_id,
                fault: EventFault::LimitExceeded { what: "the payload's nesting", limit: MAX_DEPTH },
            },
            Self::TooMany => Error::Event {
                event_id,
                fault: EventFault::LimitExceeded {
                    what: "the number of protected values and of their owners",
                    limit: MAX_HITS,
                },
            },
            Self::Duplicate { place } => Error::Event {
                event_id,
                fault: EventFault::DuplicateMember { pointer: JsonPointer::new_unchecked(place) },
            },
            Self::Shape { place, expected } => Error::Event {
                event_id,
                fault: EventFault::ShapeMismatch { pointer: JsonPointer::new_unchecked(place), expected },
            },
        }
    }
}

/// Scans a whole JSON text.
pub(crate) fn scan(text: &[u8], wanted: &Wanted) -> Result<Scan, ScanError> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(ScanError::Syntax { offset: error.valid_up_to(), problem: "not UTF-8" });
    }
    let mut scanner = Scanner::new(text, wanted);
    match scanner.document() {
        Ok(()) => Ok(scanner.found),
        Err(error) => Err(*error),
    }
}

struct Scanner<'a> {
    here: Cursor<'a>,
    depth: usize,
    wanted: &'a Wanted,
    bound: Vec<Bound>,
    found: Scan,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8], wanted: &'a Wanted) -> Self {
        Self { here: Cursor::new(text), depth: 0, wanted, bound: Vec::new(), found: Scan::default() }
    }

    fn document(&mut self) -> Read {
        let first = self.here.space();
        match (self.wanted.nodes.is_empty(), first) {
            (true, b'{') => self.object(None, true)?,
            (true, _) => self.skip_value()?,
            (false, _) => self.node(0, true)?,
        }
        self.here.space();
        if self.here.is_at_end() { Ok(()) } else { self.here.fail("something follows the document") }
    }

    /// Reads a value. `node` says what is wanted at or below it.
    fn value(&mut self, node: Option<usize>) -> Read {
        match node {
            Some(id) => self.node(id, false),
            None => self.skip_value(),
        }
    }

    /// Reads a value at which, or below which, something is wanted. Checks that its shape allows the wanted fields
    /// below it.
    fn node(&mut self, id: usize, is_root: bool) -> Read {
        let wanted: &'a Wanted = self.wanted;
        let node = &wanted.nodes[id];
        let start = self.here.at();
        let hit = self.found.hits.len();
        let mut mark = |target| {
            self.found.hits.push(Hit { target, bound: self.bound.clone(), span: Span { start, end: start } });
        };
        if let Some(index) = node.field {
            mark(Target::Field(index));
        }
        if let Some(index) = node.capture {
            mark(Target::Capture(index));
        }
        let marked = self.found.hits.len();
        if marked > MAX_HITS {
            return Err(ScanError::TooMany.into());
        }
        if node.children.is_empty() && node.each.is_none() && node.member.is_none() {
            self.skip_value()?;
        } else {
            match self.here.peek() {
                b'{' => {
                    if node.each.is_some_and(|each| wanted.nodes[each].leads_to_field) {
                        return self.misshapen(node, "an array");
                    }
                    self.object(Some(id), is_root)?;
                }
                b'[' => {
                    let named = |(name, child): &(Box<str>, usize)| {
                        wanted.nodes[*child].leads_to_field && array_index(name).is_none()
                    };
                    let any_member = node.member.is_some_and(|member| wanted.nodes[member].leads_to_field);
                    if any_member || node.children.iter().any(named) {
                        return self.misshapen(node, "an object");
                    }
                    self.array(Some(id))?;
                }
                b'n' => self.skip_value()?,
                _ => {
                    self.skip_value()?;
                    let below =
                        node.each.into_iter().chain(node.member).chain(node.children.iter().map(|(_, child)| *child));
                    if below.into_iter().any(|child| wanted.nodes[child].leads_to_field) {
                        return self.misshapen(
                            node,
                            if node.each.is_some() { "an array or null" } else { "an object or null" },
                        );
                    }
                }
            }
        }
        let end = self.here.at();
        for hit in &mut self.found.hits[hit..marked] {
            hit.span.end = end;
        }
        Ok(())
    }

    fn object(&mut self, node: Option<usize>, is_root: bool) -> Read {
        self.enter()?;
        if is_root {
            self.found.body = Some(self.here.at());
        }
        let wanted: &'a Wanted = self.wanted;
        let node = node.map(|id| &wanted.nodes[id]);
        let any_member = node.and_then(|node| node.member);
        let mut seen = Seen::new(node.map_or(0, |node| node.children.len()));
        let mut names = None;
        let mut comma_before = None;
        if self.here.space() == b'}' {
            return self.leave();
        }
        loop {
            let start = self.here.at();
            let name = self.member()?.plain();
            let value_start = self.here.at();
            let is_seal = is_root && name.as_deref() == Some(SEAL_MEMBER.as_bytes());
            if is_seal && self.found.seal.is_some() {
                return Err(ScanError::Duplicate { place: format!("/{SEAL_MEMBER}") }.into());
            }
            match (node.zip(name.as_deref()).and_then(|(node, name)| find(node, name)), any_member) {
                (Some((index, child)), _) => {
                    if !seen.insert(index) {
                        return Err(ScanError::Duplicate { place: self.place(&wanted.nodes[child]) }.into());
                    }
                    self.value(Some(child))?;
                }
                (None, Some(member)) => {
                    self.any_member(start, name.as_deref(), member, names.get_or_insert_with(HashSet::new))?;
                }
                (None, None) => self.skip_value()?,
            }
            let value = Span { start: value_start, end: self.here.at() };
            let next = self.here.space();
            if is_root {
                self.found.members += 1;
                if is_seal {
                    self.found.seal = Some(SealMember { cut: self.cut(start, value, comma_before), value });
                } else if name.as_deref() == Some(WHOLE_MEMBER.as_bytes()) {
                    self.found.whole = Some(value);
                }
            }
            match next {
                b',' => {
                    comma_before = Some(self.here.at());
                    self.here.pass();
                    self.here.space();
                }
                b'}' => return self.leave(),
                _ => return self.here.fail("',' or '}' is expected"),
            }
        }
    }

    /// What must be cut out to remove the member that begins at `start`, at whose end the scanner is.
    fn cut(&self, start: usize, value: Span, comma_before: Option<usize>) -> Span {
        match (self.here.peek(), comma_before) {
            (b',', _) => Span { start, end: self.here.at() + 1 },
            (_, Some(before)) => Span { start: before, end: value.end },
            (_, None) => Span { start, end: value.end },
        }
    }

    fn array(&mut self, node: Option<usize>) -> Read {
        self.enter()?;
        let wanted: &'a Wanted = self.wanted;
        let node = node.map(|id| &wanted.nodes[id]);
        if self.here.space() == b']' {
            return self.leave();
        }
        let mut index = 0_u32;
        loop {
            let each = node.and_then(|node| node.each);
            let named = node.and_then(|node| {
                let at = node.elements.binary_search_by_key(&index, |(index, _)| *index).ok()?;
                Some(node.elements[at].1)
            });
            match (each, named) {
                (Some(each), _) => {
                    self.bound.push(Bound::Index(index));
                    self.value(Some(each))?;
                    self.bound.pop();
                }
                (None, child) => self.value(child)?,
            }
            index = index.saturating_add(1);
            match self.here.space() {
                b',' => {
                    self.here.pass();
                    self.here.space();
                }
                b']' => return self.leave(),
                _ => return self.here.fail("',' or ']' is expected"),
            }
        }
    }

    /// The error for a value whose shape does not allow the wanted fields below it.
    fn misshapen(&self, node: &Node, expected: &'static str) -> Read {
        Err(ScanError::Shape { place: self.place(node), expected }.into())
    }

    /// The place of a node, in the elements and members that are being read.
    fn place(&self, node: &Node) -> String {
        let mut way = Vec::new();
        let mut came = &node.came;
        while let Some((parent, step)) = came {
            way.push(step.clone());
            came = &self.wanted.nodes[*parent].came;
        }
        way.reverse();
        Pattern::from_tokens(way).at(&self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fields: &[&str]) -> Wanted {
        let mut wanted = Wanted::default();
        for (index, field) in fields.iter().enumerate() {
            wanted.add(&Pattern::parse(field).unwrap(), Target::Field(index));
        }
        wanted
    }

    fn found(text: &str, fields: &[&str]) -> Result<Vec<String>, ScanError> {
        let scan = scan(text.as_bytes(), &wanted(fields))?;
        Ok(scan.hits.iter().map(|hit| text[hit.span.start..hit.span.end].to_owned()).collect())
    }

    #[test]
    fn places_are_found_whatever_their_spelling() {
        let text = " {\"a\" :\t[ {\"b\":1.0} , {\"b\" : [ ] },{\"c\":2}], \"\\u0078\" :{\"~/*\":\"v\"}}\n";
        assert_eq!(found(text, &["/a/*/b", "/x/~0~1~2"]).unwrap(), ["1.0", "[ ]", "\"v\""]);
        assert_eq!(found(text, &["/a/1"]).unwrap(), ["{\"b\" : [ ] }"]);
    }

    #[test]
    fn absent_and_null_ancestors_hold_nothing_but_a_scalar_is_refused() {
        assert_eq!(found("{\"a\":null}", &["/a/b"]).unwrap(), Vec::<String>::new());
        assert_eq!(found("{}", &["/a/b"]).unwrap(), Vec::<String>::new());
        for (text, fields, place) in [
            (r#"{"a":"bob"}"#, &["/a/b"][..], "/a"),
            (r#"{"a":[]}"#, &["/a/b"], "/a"),
            (r#"{"a":{}}"#, &["/a/*"], "/a"),
            (r#"{"a":[{"b":1}]}"#, &["/a/*/b/c"], "/a/0/b"),
            (r#"{"a":1}"#, &["/*"], ""),
            (r#"{"a":{"b":1}}"#, &["/*/b"], ""),
            ("{}", &["/*"], ""),
            ("[{}]", &["/a"], ""),
            ("1", &["/*"], ""),
        ] {
            assert!(
                matches!(found(text, fields), Err(ScanError::Shape { place: found, .. }) if found == place),
                "{text}"
            );
        }
        assert_eq!(found("[1,[2]]", &["/*"]).unwrap(), ["1", "[2]"]);
        assert_eq!(found("null", &["/*", "/a"]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn duplicates_matter_on_wanted_paths_only() {
        assert_eq!(found(r#"{"x":1,"x":2,"a":3}"#, &["/a"]).unwrap(), ["3"]);
        assert_eq!(found(r#"{"a":1,"\u0061":2}"#, &["/a"]), Err(ScanError::Duplicate { place: "/a".into() }));
        assert_eq!(found(r#"{"a":{"b":1},"a":null}"#, &["/a/b"]), Err(ScanError::Duplicate { place: "/a".into() }));
    }

    #[test]
    fn what_serde_json_refuses_is_refused_and_the_other_way_round() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "01",
            "-",
            "1.",
            "1e",
            "1e+",
            ".5",
            "+1",
            "tru",
            "nul",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\u{1}\"",
            "\"abc",
            "{a:1}",
            "[1 2]",
            "1 2",
            "[}",
            "{]",
            "\"a\tb\"",
            "nullx",
            "{\"a\":1 \"b\":2}",
            "[,1]",
            "\u{feff}1",
        ] {
            assert!(scan(text.as_bytes(), &Wanted::default()).is_err(), "accepted {text:?}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(text).is_err(), "{text:?}");
        }
        for text in [
            "0",
            "-0",
            "1.0e+5",
            "[]",
            "{}",
            " [ ] ",
            "\"\\ud800\"",
            "\"é😀\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
            "[[],{},[{\"a\":[]}]]",
            "1e400",
            "true",
            "null",
        ] {
            assert!(scan(text.as_bytes(), &Wanted::default()).is_ok(), "refused {text:?}");
        }
        assert!(scan(b"\"\xff\"", &Wanted::default()).is_err());
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(scan(nested(MAX_DEPTH).as_bytes(), &Wanted::default()).is_ok());
        assert!(matches!(scan(nested(MAX_DEPTH + 1).as_bytes(), &Wanted::default()), Err(ScanError::TooDeep)));
        assert!(matches!(scan("[".repeat(1_000_000).as_bytes(), &Wanted::default()), Err(ScanError::TooDeep)));
    }

    #[test]
    fn the_header_is_found_and_cut_at_any_position() {
        for (text, rest) in [
            (r#"{"$seal":"x","a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"$seal":"x"}"#, r#"{"a":1}"#),
            (r#"{"a":1, "\u0024seal": "x" , "b":2}"#, r#"{"a":1,  "b":2}"#),
            (r#"{"$seal":"x"}"#, "{}"),
        ] {
            let seal = scan(text.as_bytes(), &Wanted::default()).unwrap().seal.unwrap();
            assert_eq!(format!("{}{}", &text[..seal.cut.start], &text[seal.cut.end..]), rest);
            assert_eq!(&text[seal.value.start..seal.value.end], "\"x\"");
        }
        assert!(scan(br#"{"a":{"$seal":1}}"#, &Wanted::default()).unwrap().seal.is_none());
        assert!(scan(br#"{"$seal":1,"$seal":2}"#, &Wanted::default()).is_err());
    }
}
