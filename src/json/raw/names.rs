//! Finds names of members that cause trouble: names that are repeated in an object, and names that serde_json reserves
//! for its own use.
//!
//! A search looks for them in one pass over the text, without recursion. It only runs where such a name is possible.

use crate::json::pointer::{JsonPointer, push_escaped};
use crate::json::raw;
use memchr::memmem::Finder;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The prefix of the names that serde_json reserves: it passes raw values and big numbers as objects with such a
/// member. If a payload has a member with such a name, serde_json takes the object for a raw value or a number.
pub(crate) const PRIVATE: &str = "$serde_json::private::";

/// The place of the first member, at any depth, whose name serde_json reserves. `None` if there is none, or if the text
/// is not JSON.
pub(crate) fn private_member(payload: &[u8]) -> Option<JsonPointer> {
    static PLAIN: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PRIVATE));
    // No character of the prefix has a short escape, so an escaped one begins with `\u00`.
    static ESCAPED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u00"));
    if PLAIN.find(payload).is_none() && ESCAPED.find(payload).is_none() {
        return None;
    }
    let text = std::str::from_utf8(payload).ok()?;
    let place = look(text, false).private?;
    serde_json::from_str::<IgnoredAny>(text).is_ok().then_some(place)
}

/// The same place, without tokens that may be values of the application. The tokens from index `from` on are replaced
/// by `***`. The reserved name at the end keeps the part that serde_json defines.
pub(crate) fn without_names(place: &JsonPointer, from: usize) -> JsonPointer {
    const HIDDEN: &str = "***";
    let tokens: Vec<&str> = place.as_str().split('/').skip(1).collect();
    let mut shown = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let known = token.strip_prefix(PRIVATE).filter(|_| index + 1 == tokens.len());
        shown.push('/');
        match known {
            _ if index < from => shown.push_str(token),
            Some("RawValue" | "Number") => shown.push_str(token),
            Some(_) => shown.extend([PRIVATE, HIDDEN]),
            None => shown.push_str(HIDDEN),
        }
    }
    JsonPointer::new_unchecked(shown)
}

/// The character that [`hide_private`] puts in front of each reserved name. It is also put in front of each name that
/// looks like a hidden one, so that [`show_private`] can undo it.
const HIDING: char = '~';

/// The JSON text with its reserved names hidden from serde_json. `None` if it has none, or if it is not JSON.
pub(crate) fn hide_private(text: &str) -> Option<String> {
    private_member(text.as_bytes())?;
    let names = look(text, false).hideable;
    let (mut out, mut copied) = (String::with_capacity(text.len() + names.len()), 0);
    for start in names {
        out.push_str(text.get(copied..start)?);
        out.push(HIDING);
        copied = start;
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

/// Undoes [`hide_private`] in a value that was read from its result.
pub(crate) fn show_private(value: Value) -> Value {
    let shown = |name: String| {
        if is_hideable(&name) { name.strip_prefix(HIDING).map(str::to_owned).unwrap_or(name) } else { name }
    };
    match value {
        Value::Object(members) => members.into_iter().map(|(name, value)| (shown(name), show_private(value))).collect(),
        Value::Array(elements) => elements.into_iter().map(show_private).collect(),
        other => other,
    }
}

fn is_hideable(name: &str) -> bool {
    name.trim_start_matches(HIDING).starts_with(PRIVATE)
}

/// The JSON text in which only the last of several members with one name is left. `None` if no name is repeated, or if
/// the text is not JSON.
pub(crate) fn without_repeated(text: &str) -> Option<String> {
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut cuts = look(text, true).repeated;
    if cuts.is_empty() {
        return None;
    }
    cuts.sort_unstable();
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for (start, end) in cuts {
        // A cut inside another cut is gone with it.
        if start >= copied {
            out.push_str(text.get(copied..start)?);
            copied = end;
        }
    }
    out.push_str(text.get(copied..)?);
    Some(out)
}

#[derive(Default)]
struct Look {
    /// The place of the first member with a reserved name.
    private: Option<JsonPointer>,
    /// The members that are followed by another one of the same name, from their name to behind their comma.
    repeated: Vec<(usize, usize)>,
    /// Where the names begin, behind their quotes, that [`hide_private`] must change.
    hideable: Vec<usize>,
}

/// How many levels of nesting are kept in full: as many as a protected payload may have. A deeper level costs one bit,
/// so that the author of a payload can't decide how much memory a look at it takes. serde_json reads no members that
/// deep, so repeated members there need not be removed.
const KEPT: usize = crate::json::scan::MAX_DEPTH;

/// A container that is not closed yet.
enum Open<'t> {
    /// `start`: where the current member begins. `name`: its name as it is spelled. `seen`: the members before it.
    Object {
        start: usize,
        name: Option<&'t str>,
        seen: HashMap<Cow<'t, str>, (usize, usize)>,
    },
    Array {
        index: usize,
    },
}

/// All containers that are not closed yet.
#[derive(Default)]
struct Levels<'t> {
    depth: usize,
    /// The outermost containers, up to [`KEPT`].
    kept: Vec<Open<'t>>,
    /// The deeper containers, one bit each: set for an object.
    deeper: Vec<u64>,
}

impl<'t> Levels<'t> {
    fn open(&mut self, container: Open<'t>) {
        if self.depth < KEPT {
            self.kept.push(container);
        } else {
            let (word, bit) = Self::bit(self.depth);
            if bit == 0 {
                self.deeper.push(0);
            }
            self.deeper[word] |= u64::from(matches!(container, Open::Object { .. })) << bit;
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth < KEPT {
            self.kept.pop();
            return;
        }
        let (word, bit) = Self::bit(self.depth);
        self.deeper[word] &= !(1 << bit);
        if bit == 0 {
            self.deeper.pop();
        }
    }

    fn is_in_object(&self) -> bool {
        match self.depth.checked_sub(KEPT + 1) {
            None => matches!(self.kept.last(), Some(Open::Object { .. })),
            Some(_) => {
                let (word, bit) = Self::bit(self.depth - 1);
                self.deeper[word] >> bit & 1 == 1
            }
        }
    }

    /// The innermost container, unless it is too deep to be kept.
    fn innermost(&mut self) -> Option<&mut Open<'t>> {
        if self.depth > KEPT { None } else { self.kept.last_mut() }
    }

    fn bit(level: usize) -> (usize, usize) {
        ((level - KEPT) / 64, (level - KEPT) % 64)
    }

    /// The place of the value that comes next. If it is deeper than the kept levels, the place of the innermost kept
    /// one around it.
    fn place(&self) -> JsonPointer {
        let mut place = String::new();
        for container in &self.kept {
            place.push('/');
            match container {
                Open::Object { name, .. } => {
                    push_escaped(&mut place, &name.and_then(|name| raw::name(name).ok()).unwrap_or_default());
                }
                Open::Array { index } => place.push_str(&index.to_string()),
            }
        }
        JsonPointer::new_unchecked(place)
    }
}

/// Looks through a JSON text. The result is only meaningful if the text is valid JSON, which the caller checks.
fn look(text: &str, wants_repeated: bool) -> Look {
    let (bytes, mut found, mut levels) = (text.as_bytes(), Look::default(), Levels::default());
    let (mut at, mut is_name_next) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let begin = at;
        at += 1;
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                if std::mem::take(&mut is_name_next) {
                    let spelled = text.get(begin..at).unwrap_or_default();
                    if let Some(Open::Object { start, name, .. }) = levels.innermost() {
                        (*start, *name) = (begin, Some(spelled));
                    }
                    if let Some(said) = raw::name(spelled).ok().filter(|said| is_hideable(said)) {
                        found.hideable.push(begin + 1);
                        if found.private.is_none() && said.starts_with(PRIVATE) {
                            found.private = Some(levels.place());
                        }
                    }
                }
            }
            b'{' => {
                levels.open(Open::Object { start: at, name: None, seen: HashMap::new() });
                is_name_next = true;
            }
            b'[' => {
                levels.open(Open::Array { index: 0 });
                is_name_next = false;
            }
            b',' | b'}' | b']' => {
                match levels.innermost() {
                    Some(Open::Object { start, name, seen }) => {
                        if wants_repeated
                            && let Some(said) = name.take().and_then(|spelled| raw::name(spelled).ok())
                            && let Some(before) = seen.insert(said, (*start, at))
                        {
                            found.repeated.push(before);
                        }
                    }
                    Some(Open::Array { index }) => *index += 1,
                    None => {}
                }
                if *byte == b',' {
                    is_name_next = levels.is_in_object();
                } else {
                    levels.close();
                    is_name_next = false;
                }
            }
            _ => {}
        }
    }
    found
}

/// The position just behind the closing quote of a string.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(next) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += next + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn of_members_that_are_repeated_the_last_one_stays() {
        for (text, expected) in [
            (r#" {"a":1, "a" : 2 }"#, r#" { "a" : 2 }"#),
            (
                r#"{"a":{"b":1,"b":2},"c":[{"x":"}\\\"","x":1e400}],"\u0061":[1]}"#,
                r#"{"c":[{"x":1e400}],"\u0061":[1]}"#,
            ),
            (r#"{"a":1,"a":2,"a":3,"b":{}}"#, r#"{"a":3,"b":{}}"#),
        ] {
            assert_eq!(without_repeated(text).as_deref(), Some(expected));
        }
        for none in [r#"{"a":{"a":1},"b":["a","a"]}"#, "[]", "1", "", "{\"a\":1,\"a\":}", r#"{"\ud800":1,"\ud800":2}"#]
        {
            assert_eq!(without_repeated(none), None, "{none}");
        }
    }

    #[test]
    fn names_that_serde_json_keeps_for_itself_are_found() {
        let place = |text: &str| private_member(text.as_bytes()).map(|place| place.as_str().to_owned());
        let raw = "$serde_json::private::RawValue";
        assert_eq!(place(&format!(r#"{{"{raw}":1}}"#)), Some(format!("/{raw}")));
        assert_eq!(place(&format!(r#"{{"x":0,"a/b":[0,{{"c":1,"{raw}":1}}]}}"#)), Some(format!("/a~1b/1/{raw}")));
        assert_eq!(
            place(r#"[{"\u0024serde_json::private::N\u0075mber":"1"}]"#),
            Some("/0/$serde_json::private::Number".to_owned())
        );
        for none in [
            format!(r#"{{"a":"{raw}","b":["{raw}"]}}"#),
            format!(r#"{{"x{raw}":1,"\u0000":1}}"#),
            format!(r#"{{"{raw}":}}"#),
        ] {
            assert_eq!(place(&none), None, "{none}");
        }
    }

    #[test]
    fn private_names_are_hidden_from_serde_json_and_come_back() {
        let raw = "$serde_json::private::RawValue";
        let text = format!(r#"{{"a":[{{"{raw}":"1","\u007e{raw}":2,"~~{raw}":3,"~":"{raw}"}}],"{raw}":1e2}}"#);
        let read = show_private(serde_json::from_str(&hide_private(&text).unwrap()).unwrap());
        let inner = serde_json::json!({ raw: "1", format!("~{raw}"): 2, format!("~~{raw}"): 3, "~": raw });
        assert_eq!((&read["a"][0], read[raw].as_f64()), (&inner, Some(100.0)));
        assert_eq!(hide_private(r#"{"a":1}"#), None);
    }

    #[test]
    fn names_are_found_behind_any_number_of_levels_that_cost_a_bit_each() {
        let private = "$serde_json::private::Number";
        for depth in [KEPT - 1, KEPT, KEPT + 1, KEPT + 63, KEPT + 64, KEPT + 65, KEPT + 200, 100_000] {
            let nested = |inner: &str| format!("{}{inner}{}", "{\"a\":[".repeat(depth / 2), "]}".repeat(depth / 2));
            let deep = nested(&format!(r#"0,{{"x":["{private}",{{}}],"{private}":1}}"#));
            let last = match (depth / 2 * 2).cmp(&KEPT) {
                Ordering::Less => format!("/1/{private}"),
                Ordering::Equal => "/1".to_owned(),
                Ordering::Greater => "/0".to_owned(),
            };
            let expected = format!("{}/a{last}", "/a/0".repeat(depth.min(KEPT) / 2 - 1));
            assert_eq!(private_member(deep.as_bytes()).unwrap().as_str(), expected, "{depth}");
            // Levels that are closed again leave nothing behind.
            for beside in [
                format!(r#"[{},{{"a":1,"{private}":1}}]"#, nested("")),
                format!(r#"[{},["{private}",{{}}]]"#, nested("0")),
            ] {
                let expected = beside.contains("a\":1").then(|| format!("/1/{private}"));
                assert_eq!(
                    private_member(beside.as_bytes()).map(|place| place.as_str().to_owned()),
                    expected,
                    "{depth}"
                );
            }
            let inside = nested(&format!(r#"[{{}},["{private}"],{{"b":["{private}",[]],"c":"{private}"}}]"#));
            assert_eq!(private_member(inside.as_bytes()), None, "{depth}");
        }
        let mut levels = Levels::default();
        (0..KEPT + 64_000).for_each(|_| levels.open(Open::Array { index: 0 }));
        assert_eq!((levels.kept.len(), levels.deeper.len()), (KEPT, 1_000));
        (0..KEPT + 64_000).for_each(|_| levels.close());
        assert!(levels.kept.is_empty() && levels.deeper.is_empty());
    }
}
