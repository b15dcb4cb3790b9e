//! Finds the places that a header names.
//!
//! The header is not authentic yet at this point. It may name thousands of places deep in a document that has none of
//! them. So no tree is built: the sorted pointers serve as one, and a pointer is followed only as far as the document
//! goes.

use super::{Scanner, Span};
use crate::json::pointer::{array_index, push_escaped};
use crate::json::wanted::Wanted;
use std::cmp::Ordering;
use std::ops::Range;

/// Where the values at these places stand, in the order of `pointers`. No two pointers may be equal. `None` if a place
/// is missing, or if a member at a place or on the way to it occurs twice.
pub(crate) fn locate(text: &[u8], pointers: &[&str]) -> Option<Vec<Span>> {
    let mut order: Vec<usize> = (0..pointers.len()).collect();
    order.sort_unstable_by(|a, b| by_steps(pointers[*a], pointers[*b]));
    let sorted: Vec<&str> = order.iter().map(|index| pointers[*index]).collect();
    let nothing = Wanted::default();
    let mut locator =
        Locator { scanner: Scanner::new(text, &nothing), pointers: &sorted, spans: vec![None; sorted.len()] };
    locator.scanner.here.space();
    locator.value(0..sorted.len(), 0)?;
    let mut spans = vec![Span { start: 0, end: 0 }; sorted.len()];
    for (index, span) in order.into_iter().zip(locator.spans) {
        spans[index] = span?;
    }
    Some(spans)
}

struct Locator<'a> {
    scanner: Scanner<'a>,
    /// Sorted, so that pointers with the same first steps stand together.
    pointers: &'a [&'a str],
    spans: Vec<Option<Span>>,
}

impl<'a> Locator<'a> {
    /// Reads a value to which, or through which, the pointers in `range` lead. Their first `at` bytes are the same.
    fn value(&mut self, mut range: Range<usize>, at: usize) -> Option<()> {
        let start = self.scanner.here.at();
        let target = range.start;
        let is_target = self.pointers.get(target).is_some_and(|pointer| pointer.len() == at);
        if is_target {
            range.start += 1;
        }
        if range.is_empty() {
            self.scanner.skip_value().ok()?;
        } else {
            match self.scanner.here.peek() {
                b'{' => self.object(range, at)?,
                b'[' => self.array(range, at)?,
                _ => return None,
            }
        }
        if is_target {
            self.spans[target] = Some(Span { start, end: self.scanner.here.at() });
        }
        Some(())
    }

    fn object(&mut self, range: Range<usize>, at: usize) -> Option<()> {
        let steps = self.steps(range.clone(), at);
        self.scanner.enter().ok()?;
        let mut missing = range.len();
        if self.scanner.here.space() == b'}' {
            return None;
        }
        loop {
            let name = self.scanner.member().ok()?.plain();
            let name = name.as_deref().and_then(|name| std::str::from_utf8(name).ok());
            let wanted = name.map_or(0..0, |name| named(&steps, name));
            if wanted.is_empty() {
                self.scanner.skip_value().ok()?;
            } else if self.spans[wanted.start].is_some() {
                return None; // the member occurs twice
            } else {
                missing -= wanted.len();
                self.step(wanted, at)?;
            }
            match self.scanner.here.space() {
                b',' => self.scanner.here.pass(),
                b'}' if missing == 0 => return self.scanner.leave().ok(),
                _ => return None,
            }
            self.scanner.here.space();
        }
    }

    fn array(&mut self, range: Range<usize>, at: usize) -> Option<()> {
        let steps = self.steps(range, at).into_iter();
        let mut wanted = steps.map(|(step, group)| Some((array_index(step)?, group))).collect::<Option<Vec<_>>>()?;
        // They were sorted as text so far.
        wanted.sort_unstable_by_key(|(index, _)| *index);
        let mut wanted = wanted.into_iter().peekable();
        self.scanner.enter().ok()?;
        self.scanner.here.space();
        for index in 0_u32.. {
            match wanted.next_if(|(next, _)| *next == index) {
                Some((_, group)) => self.step(group, at)?,
                None => self.scanner.skip_value().ok()?,
            }
            match self.scanner.here.space() {
                b',' => self.scanner.here.pass(),
                b']' if wanted.peek().is_none() => return self.scanner.leave().ok(),
                _ => return None,
            }
            self.scanner.here.space();
        }
        None
    }

    /// Follows a group of pointers that have the same next step.
    fn step(&mut self, group: Range<usize>, at: usize) -> Option<()> {
        let next = at + 1 + step_at(self.pointers[group.start], at).len();
        self.value(group, next)
    }

    /// The next steps of the pointers in `range`, each with the pointers that have it. This is called once for each
    /// object and array on the way. So each pointer is read once, however many members the document has.
    fn steps(&self, range: Range<usize>, at: usize) -> Vec<(&'a str, Range<usize>)> {
        let mut steps: Vec<(&'a str, Range<usize>)> = Vec::new();
        for index in range {
            let step = step_at(self.pointers[index], at);
            match steps.last_mut() {
                Some((last, group)) if *last == step => group.end += 1,
                _ => steps.push((step, index..index + 1)),
            }
        }
        steps
    }
}

/// The pointers whose next step is the member `name`.
fn named(steps: &[(&str, Range<usize>)], name: &str) -> Range<usize> {
    let mut escaped = String::new();
    let name = if name.contains(['~', '/']) {
        push_escaped(&mut escaped, name);
        &escaped
    } else {
        name
    };
    steps.binary_search_by(|(step, _)| (*step).cmp(name)).map_or(0..0, |at| steps[at].1.clone())
}

/// The step behind the slash at byte `at`, still escaped. Each place has one spelling, so escaped steps can be
/// compared.
fn step_at(pointer: &str, at: usize) -> &str {
    let rest = pointer.get(at + 1..).unwrap_or_default();
    let step = rest.split_once('/').map_or(rest, |(step, _)| step);
    #[cfg(test)]
    tests::READ.set(tests::READ.get() + step.len());
    step
}

/// Compares pointers step by step and not byte by byte: `/a/b` comes right after `/a`, and `/a!` does not come between
/// them.
fn by_steps(a: &str, b: &str) -> Ordering {
    const BLOCK: usize = 64;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let same = blocks + a[blocks..].iter().zip(&b[blocks..]).take_while(|(a, b)| a == b).count();
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.get(same).map(rank).cmp(&b.get(same).map(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        /// How many bytes of pointers were read.
        pub(crate) static READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    fn texts<'t>(text: &'t str, pointers: &[&str]) -> Option<Vec<&'t str>> {
        Some(locate(text.as_bytes(), pointers)?.into_iter().map(|span| &text[span.start..span.end]).collect())
    }

    #[test]
    fn places_are_found_in_any_order_and_spelling() {
        let text = " {\"a\" :\t[ {\"b\":1.0} , {\"b\" : [ ] },{\"c\":2}], \"\\u0078\" :{\"~/*\":\"v\"}, \"a!\":0, \
            \"\":{\"\":5}}\n";
        assert_eq!(
            texts(text, &["/x/~0~1*", "/a/1/b", "/a!", "/a/0", "/a/0/b", "//"]).unwrap(),
            ["\"v\"", "[ ]", "0", "{\"b\":1.0}", "1.0", "5"]
        );
        assert_eq!(texts("[1,[2],3]", &["/2", "/1/0"]).unwrap(), ["3", "2"]);
        assert_eq!(texts("[0,1,2,3,4,5,6,7,8,9,10,11]", &["/11", "/2", "/10", "/1"]).unwrap(), ["11", "2", "10", "1"]);
    }

    #[test]
    fn what_is_missing_twice_or_of_another_shape_is_not_found() {
        for (text, pointer) in [
            ("{}", "/a"),
            ("[]", "/0"),
            ("{\"a\":1}", "/b"),
            ("{\"a\":null}", "/a/b"),
            ("{\"a\":\"b\"}", "/a/b"),
            ("{\"a\":[1]}", "/a/b"),
            ("{\"a\":[1]}", "/a/1"),
            ("{\"a\":[1]}", "/a/00"),
            ("{\"a\":[1]}", "/a/-"),
            ("{\"a\":1,\"\\u0061\":2}", "/a"),
            ("{\"a\":{\"b\":1},\"a\":{\"b\":1}}", "/a/b"),
            ("{\"a\":null,\"a\":{\"b\":1}}", "/a/b"),
            ("{\"\\ud800\":1}", "/\u{fffd}"),
            ("{\"a\"", "/a"),
            ("{\"a\":1", "/a"),
        ] {
            assert_eq!(texts(text, &[pointer]), None, "{text} {pointer}");
            assert_eq!(texts(text, &[pointer, "/z"]), None, "{text} {pointer}");
        }
    }

    /// As many places, and as deep, as the format allows.
    #[test]
    fn thousands_of_deep_places_are_found_if_they_are_there() {
        let (open, close) = ("{\"a\":".repeat(126), "}".repeat(126));
        let members: Vec<String> = (0..4_096).map(|number| format!("\"{number:x}\":{open}{number}{close}")).collect();
        let text = format!("{{{}}}", members.join(","));
        let pointers: Vec<String> = (0..4_096).rev().map(|number| format!("/{number:x}{}", "/a".repeat(126))).collect();
        let found = texts(&text, &pointers.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        assert!(found.into_iter().eq((0..4_096).rev().map(|number| number.to_string())));
    }

    /// A pointer is read once, and not again for every member of the document. Otherwise a forged header could make a
    /// read slow.
    #[test]
    fn members_do_not_make_pointers_be_read_again() {
        let way = "x".repeat(1_000);
        let pointers: Vec<String> = (0..4_096).map(|number| format!("/{way}/{way}{number:04x}")).collect();
        let pointers: Vec<&str> = pointers.iter().map(String::as_str).collect();
        let length: usize = pointers.iter().map(|pointer| pointer.len()).sum();
        let members = ",\"y\":0".repeat(20_000);
        for text in [format!("{{\"a\":0{members}}}"), format!("{{\"{way}\":{{\"a\":0{members}}},\"b\":0{members}}}")] {
            READ.set(0);
            assert_eq!(locate(text.as_bytes(), &pointers), None);
            assert!(READ.get() <= 2 * length, "{} bytes of pointers were read, of {length}", READ.get());
        }
    }
}
