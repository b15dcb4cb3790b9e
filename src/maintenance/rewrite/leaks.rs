//! Guards the sealed values of an event that is written anew: none of them may be stored in the clear, or for another
//! owner.
//!
//! Steps are code of the application, so nothing says where a value went. So every sealed string and number is searched
//! for in the new event: as a whole and, from four bytes on, as a part of other texts. The search is one pass over all
//! texts as they are spelled. It is bounded: if it would take longer, the event is not written anew.

use crate::error::{Error, EventFault, Result};
use crate::event::EventRef;
use crate::json::number::{canonical, respelled};
use crate::json::scan::Span;
use crate::json::scan::{locate, unescape};
use crate::keys::names::KeyScope;
use crate::maintenance::rewrite::KeptBecause;
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::{Draft, Owned, Voids};
use crate::sealer::Coverage;
use aho_corasick::AhoCorasick;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Shorter strings are searched for as a whole only, because they are parts of too many texts.
const PART: usize = 4;
/// How many bytes of a value are searched for before the rest is compared.
const START: usize = 32;
/// How many bytes all searched starts may have together.
const MAX_STARTS: usize = 1 << 20;
/// How many bytes may be compared where a value seems to begin.
const MAX_COMPARED: usize = 1 << 26;

/// The sealed strings and numbers of an event, without those that it also shows in the clear.
#[derive(Default)]
pub(super) struct Secrets {
    /// The owners of each value. One value may be sealed for several.
    owners: HashMap<String, HashSet<KeyScope>>,
    /// The values that are searched for as parts, in the order of `finder`'s patterns.
    parts: Vec<String>,
    finder: Option<AhoCorasick>,
    /// The scopes that have live values in the event.
    scopes: HashSet<KeyScope>,
    /// The texts that the event shows in the clear.
    clear: HashSet<String>,
}

/// The search would take too long, or the payload can't be read.
pub(super) struct TooMuch;

impl Secrets {
    pub(super) fn of(opened: Option<&Opened>, coverage: &Coverage) -> Result<Self, TooMuch> {
        let Some(opened) = opened.filter(|_| !coverage.owners.is_empty()) else {
            return Ok(Self::default());
        };
        let payload = &opened.text[..];
        let places: Vec<&str> = coverage.places.iter().map(String::as_str).collect();
        let spans = match places.as_slice() {
            // The payload is protected whole, so all of it is one value.
            [""] => vec![Span { start: 0, end: payload.len() }],
            places => locate(payload, places).ok_or(TooMuch)?,
        };
        let mut secrets = Self { scopes: coverage.owners.values().cloned().collect(), ..Self::default() };
        for (place, span) in places.iter().zip(&spans) {
            let Some(owner) = coverage.owners.get(*place) else { continue };
            leaves(span.of(payload), |kind, text| {
                // The names of members are not searched for: they say which fields an object has, and nothing about its
                // owner.
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

    /// Calls `each` with every secret in a text, until it returns `true`.
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

    /// The reason why an event must not be stored as this draft says, if there is one.
    ///
    /// A value that was sealed for one owner must not go to another one. A new owner, who has no live value in the
    /// stored event, may receive only values that the stored event shows in the clear, unchanged: a value that a step
    /// computed could be made of any other value.
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

    /// As [`refuse`](Self::refuse), for the other document of the event, which has owners of its own.
    pub(super) fn refuse_beside(&self, text: &[u8], draft: Option<&Draft<'_>>) -> Option<KeptBecause> {
        if self.scopes.is_empty() {
            return None;
        }
        if self.shows(text, draft).unwrap_or(true) {
            return Some(KeptBecause::InTheClear);
        }
        let (mut compared, mut moved) = (0, Ok(false));
        for Owned { span, scope, .. } in draft.iter().flat_map(|draft| draft.owned()) {
            leaves(span.of(text), |_, leaf| {
                if matches!(moved, Ok(false)) {
                    let of_another =
                        |secret: &str| self.owners.get(secret).is_some_and(|owners| !owners.contains(scope));
                    moved = self.in_text(&leaf, &mut compared, of_another);
                }
            });
        }
        moved.unwrap_or(true).then_some(KeptBecause::OtherOwner)
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

/// Fails if the stored event itself names other owners than those for which its values are sealed. The ids that name
/// owners are not authenticated, so no decision can rely on what its steps make of them.
pub(super) fn check_owners(
    plan: &Plan,
    stored: EventRef<'_>,
    opened: Option<&Opened>,
    coverage: &Coverage,
) -> Result<()> {
    let Some(opened) = opened.filter(|_| !coverage.owners.is_empty()) else { return Ok(()) };
    let voids: Voids = opened.redacted.iter().map(|redacted| (redacted.place.clone(), redacted.key_id)).collect();
    let draft = Draft::with_voids(plan, stored.with_text(&opened.text), &voids)?;
    match draft.and_then(|draft| draft.moved_to_another(&coverage.owners)) {
        Some(pointer) => Err(Error::Event { event_id: stored.event_id, fault: EventFault::OtherOwner { pointer } }),
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

/// Calls `each` with every text that a payload shows in the clear once the values at the `sealed` places are sealed.
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

/// Calls `each` with the strings, numbers and booleans in a value; with its whole text if it is not JSON.
fn leaves(value: &[u8], each: impl FnMut(Kind, Cow<'_, str>)) {
    in_the_clear(value, Vec::new(), each);
}

/// Calls `each` with the texts of valid JSON, or of valid JSON from which values were cut out. A number is passed as it
/// is spelled, as programs spell it that have read it, and in a canonical form.
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
                // The canonical form begins with a mark, so that no other text looks like it.
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

/// The length of the string that begins here, quotes included.
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
            clear.push(text.into_owned());
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
