//! Guards what is sealed in an event that is written anew: none of it may come to lie in the clear, or with another
//! owner.
//!
//! Steps are code of the application, so nobody says where a value went. It is looked for: every sealed string and
//! number, as a whole and, from four bytes on, as a part of others. In one pass over the texts as they are spelled,
//! whatever they hold, and with a bound: what would take longer is not written anew.

use crate::error::{Error, EventFault, Result};
use crate::event::PersistedEvent;
use crate::json::number::{canonical, respelled};
use crate::json::scan::Span;
use crate::json::scan::{locate, unescape};
use crate::keys::names::KeyScope;
use crate::maintenance::rewrite::KeptBecause;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Owned, Voids};
use crate::sealer::OpenedRow;
use aho_corasick::AhoCorasick;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Shorter strings are looked for as a whole: they are part of too much.
const PART: usize = 4;
/// How much of a value is looked for before the rest is compared.
const START: usize = 32;
/// How many bytes all that is looked for may have.
const MAX_STARTS: usize = 1 << 20;
/// How many bytes may be compared where a value seems to begin.
const MAX_COMPARED: usize = 1 << 26;

/// The sealed strings and numbers of an event, as far as they are nowhere in the clear in it.
#[derive(Default)]
pub(super) struct Secrets {
    /// Whose they are. One value may be sealed for several.
    owners: HashMap<String, HashSet<KeyScope>>,
    /// Those that are looked for as parts, in the order in which `finder` knows them.
    parts: Vec<String>,
    finder: Option<AhoCorasick>,
    /// Who has live values in the event.
    scopes: HashSet<KeyScope>,
    /// What the event says in the clear.
    clear: HashSet<String>,
}

/// It would take too long to find out, or can't be read.
pub(super) struct TooMuch;

impl Secrets {
    pub(super) fn of(row: &OpenedRow<'_>) -> Result<Self, TooMuch> {
        let Some(opened) = row.opened.as_ref().filter(|_| !row.coverage.owners.is_empty()) else {
            return Ok(Self::default());
        };
        let payload = &opened.payload[..];
        let places: Vec<&str> = row.coverage.places.iter().map(String::as_str).collect();
        let spans = match places.as_slice() {
            // Of these bytes, nothing is known.
            [""] => vec![Span { start: 0, end: payload.len() }],
            places => locate(payload, places).ok_or(TooMuch)?,
        };
        let mut secrets = Self { scopes: row.coverage.owners.values().cloned().collect(), ..Self::default() };
        for (place, span) in places.iter().zip(&spans) {
            let Some(owner) = row.coverage.owners.get(*place) else { continue };
            leaves(span.of(payload), |kind, text| {
                // The names of members say what an object has, not whose it is.
                if matches!(kind, Kind::Text | Kind::Number) {
                    match secrets.owners.get_mut(&*text) {
                        Some(owners) => drop(owners.insert(owner.clone())),
                        None => drop(secrets.owners.insert(text.into_owned(), HashSet::from([owner.clone()]))),
                    }
                }
            });
        }
        in_the_clear(payload, spans, |_, text| {
            secrets.clear.insert(text.into_owned());
        });
        secrets.index()?;
        let mut known = HashSet::new();
        let mut compared = 0;
        for text in &secrets.clear {
            secrets.in_text(text, &mut compared, |secret| {
                known.insert(secret.to_owned());
                false
            })?;
        }
        if !known.is_empty() {
            secrets.owners.retain(|secret, _| !known.contains(secret));
            secrets.index()?;
        }
        Ok(secrets)
    }

    fn index(&mut self) -> Result<(), TooMuch> {
        self.parts = self.owners.keys().filter(|secret| secret.len() >= PART).cloned().collect();
        let starts: Vec<&[u8]> = self.parts.iter().map(|secret| start_of(secret)).collect();
        if starts.iter().map(|start| start.len()).sum::<usize>() > MAX_STARTS {
            return Err(TooMuch);
        }
        self.finder = if starts.is_empty() { None } else { Some(AhoCorasick::new(starts).map_err(|_| TooMuch)?) };
        Ok(())
    }

    /// Passes every secret in a text on, until told that this is enough.
    fn in_text(&self, text: &str, compared: &mut usize, mut each: impl FnMut(&str) -> bool) -> Result<bool, TooMuch> {
        if let Some((secret, _)) = self.owners.get_key_value(text)
            && each(secret)
        {
            return Ok(true);
        }
        let Some(finder) = &self.finder else { return Ok(false) };
        for found in finder.find_overlapping_iter(text) {
            let Some(secret) = self.parts.get(found.pattern().as_usize()) else { continue };
            *compared += secret.len();
            if *compared > MAX_COMPARED {
                return Err(TooMuch);
            }
            if text.as_bytes()[found.start()..].starts_with(secret.as_bytes()) && each(secret) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Why an event must not be stored as this draft would have it, if so.
    ///
    /// A value that was sealed for one owner goes to no other. To somebody who has no live value in the event as it is
    /// stored goes nothing but what it says in the clear, as it says it: a value that a step made could be made of
    /// anything.
    pub(super) fn refuse(&self, payload: &[u8], draft: Option<&Draft<'_>>) -> Option<KeptBecause> {
        if self.scopes.is_empty() {
            return None;
        }
        let shows = self.shows(payload, draft);
        if shows.unwrap_or(true) {
            return Some(KeptBecause::InTheClear);
        }
        let moves = draft.is_some_and(|draft| self.moves(payload, draft).unwrap_or(true));
        moves.then_some(KeptBecause::OtherOwner)
    }

    fn shows(&self, payload: &[u8], draft: Option<&Draft<'_>>) -> Result<bool, TooMuch> {
        let (mut compared, mut shown) = (0, Ok(false));
        in_the_clear(payload, draft.into_iter().flat_map(Draft::spans).collect(), |_, text| {
            if matches!(shown, Ok(false)) {
                shown = self.in_text(&text, &mut compared, |_| true);
            }
        });
        shown
    }

    fn moves(&self, payload: &[u8], draft: &Draft<'_>) -> Result<bool, TooMuch> {
        let (mut compared, mut moved) = (0, Ok(false));
        for Owned { span, scope, .. } in draft.owned() {
            let is_stranger = !self.scopes.contains(scope);
            leaves(span.of(payload), |kind, text| {
                if !matches!(moved, Ok(false)) {
                    return;
                }
                moved = if is_stranger && kind != Kind::Name && !self.clear.contains(&*text) {
                    Ok(true)
                } else {
                    let of_another =
                        |secret: &str| self.owners.get(secret).is_some_and(|owners| !owners.contains(scope));
                    self.in_text(&text, &mut compared, of_another)
                };
            });
        }
        moved
    }
}

/// Does the stored event itself name other owners than those that its values are sealed for? Nobody authenticates what
/// names them, so what its steps make of that is worth nothing.
pub(super) fn check_owners(plan: &Plan, event: &PersistedEvent, row: &OpenedRow<'_>) -> Result<()> {
    let Some(opened) = row.opened.as_ref().filter(|_| !row.coverage.owners.is_empty()) else { return Ok(()) };
    let voids: Voids = opened.redacted.iter().map(|redacted| (redacted.place.clone(), redacted.key_id)).collect();
    let draft = Draft::with_voids(plan, event.as_stored().with_payload(&opened.payload), &voids)?;
    match draft.and_then(|draft| draft.moved_to_another(&row.coverage.owners)) {
        Some(pointer) => Err(Error::Event { event_id: event.event_id, fault: EventFault::OtherOwner { pointer } }),
        None => Ok(()),
    }
}

fn start_of(secret: &str) -> &[u8] {
    secret.as_bytes().get(..START).unwrap_or(secret.as_bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Text,
    Number,
    Truth,
}

/// What a payload says in the clear once the values at some places are sealed.
fn in_the_clear(payload: &[u8], mut sealed: Vec<Span>, mut each: impl FnMut(Kind, Cow<'_, str>)) {
    if !sealed.is_empty() || serde_json::from_slice::<IgnoredAny>(payload).is_ok() {
        sealed.sort_unstable();
        let mut from = 0;
        for Span { start, end } in sealed {
            tokens(payload.get(from..start).unwrap_or_default(), &mut each);
            from = from.max(end);
        }
        tokens(payload.get(from..).unwrap_or_default(), &mut each);
    } else {
        each(Kind::Text, String::from_utf8_lossy(payload));
    }
}

/// The strings, numbers and truths in a value; the text itself if it is no JSON.
fn leaves(value: &[u8], each: impl FnMut(Kind, Cow<'_, str>)) {
    in_the_clear(value, Vec::new(), each);
}

/// Of valid JSON, or of such with values cut out. A number comes as it is spelled, as a program spells it that has read
/// it, and as what it is, whatever its spelling.
fn tokens(json: &[u8], each: &mut impl FnMut(Kind, Cow<'_, str>)) {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        let rest = &json[at..];
        at += match byte {
            b'"' => {
                let length = string_length(rest);
                let inner = &rest[1..length.saturating_sub(1).max(1)];
                if !inner.is_empty() {
                    let text =
                        if memchr::memchr(b'\\', inner).is_some() { unescape(inner).map(Cow::Owned) } else { None };
                    let is_name = rest[length..].trim_ascii_start().first() == Some(&b':');
                    each(
                        if is_name { Kind::Name } else { Kind::Text },
                        text.unwrap_or_else(|| String::from_utf8_lossy(inner)),
                    );
                }
                length
            }
            b'-' | b'0'..=b'9' => {
                let is_number = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = rest.iter().take_while(|byte| is_number(byte)).count();
                let number = String::from_utf8_lossy(&rest[..length]);
                // A mark in front, so that nothing but numbers looks like one.
                let value = canonical(&number);
                for spelled in respelled(&number) {
                    if let Some(rounded) = canonical(&spelled).filter(|rounded| value.as_ref() != Some(rounded)) {
                        each(Kind::Number, format!("={rounded}").into());
                    }
                    each(Kind::Number, spelled.into());
                }
                if let Some(value) = value {
                    each(Kind::Number, format!("={value}").into());
                }
                each(Kind::Number, number);
                length
            }
            b't' | b'f' => {
                each(Kind::Truth, if *byte == b't' { "true".into() } else { "false".into() });
                if *byte == b't' { 4 } else { 5 }
            }
            b'n' => 4,
            _ => 1,
        };
    }
}

/// How long the string is that begins here, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += found;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str) -> Vec<(Kind, String)> {
        let mut found = Vec::new();
        leaves(json.as_bytes(), |kind, text| found.push((kind, text.into_owned())));
        found
    }

    #[test]
    fn leaves_are_found_whatever_serde_json_makes_of_the_rest() {
        use Kind::{Name, Number, Text, Truth};
        let json = r#"{"a" : "x\"\u0079", "b":[1.50,-1e400,"",true,null, false],"\ud800":{"c":"\ud800s"}, "n":12}"#;
        let expected = [
            (Name, "a"),
            (Text, "x\"y"),
            (Name, "b"),
            (Number, "1.5"),
            (Number, "=15e-1"),
            (Number, "1.50"),
            (Number, "=-1e400"),
            (Number, "-1e400"),
            (Truth, "true"),
            (Truth, "false"),
            (Name, r"\ud800"),
            (Name, "c"),
            (Text, r"\ud800s"),
            (Name, "n"),
            (Number, "12.0"),
            (Number, "=12e0"),
            (Number, "12"),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(kind, text)| (kind, text.to_owned())).collect();
        assert_eq!(found(json), expected);
        for text in ["no JSON \"", "\"", "\"\\", "tru"] {
            assert_eq!(found(text), [(Text, text.to_owned())]);
        }
        let wide = found("1234567890123456789012345");
        for value in ["=1234567890123456789012345e0", "=12345678901234568e8"] {
            assert!(wide.contains(&(Number, value.to_owned())), "exact, and as an f64 has it: {wide:?}");
        }
        let mut clear = Vec::new();
        in_the_clear(br#"{"a":"cut","b":"c"}"#, vec![Span { start: 5, end: 10 }], |_, text| {
            clear.push(text.into_owned())
        });
        assert_eq!(clear, ["a", "b", "c"]);
    }

    #[test]
    fn what_would_take_too_long_is_given_up() {
        let secrets = |texts: Vec<String>| {
            let owners = texts.into_iter().map(|text| (text, HashSet::new())).collect();
            let mut secrets = Secrets { owners, ..Secrets::default() };
            secrets.index().map(|()| secrets)
        };
        assert!(secrets((0..100_000).map(|n| format!("{n:032}")).collect()).is_err(), "too many");
        let long = secrets(vec!["a".repeat(100_000) + "b"]).ok().unwrap();
        assert!(long.in_text(&"a".repeat(100_000), &mut 0, |_| true).is_err(), "begins too often");
        assert!(matches!(long.in_text(&("a".repeat(100_000) + "b"), &mut 0, |_| true), Ok(true)));
        assert!(matches!(long.in_text("aaaa", &mut 0, |_| true), Ok(false)));
    }
}
