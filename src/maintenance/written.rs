//! A sealed document that was written, and whether it opens to what it must.

use crate::json::number::canonical;
use crate::json::raw;
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::Draft;
use std::collections::{BTreeMap, HashSet};

/// A sealed document, and what it must open to.
pub(super) struct Written {
    pub(super) text: Vec<u8>,
    opens_to: Vec<u8>,
    redacted: HashSet<String>,
}

impl Written {
    /// The document that was sealed as this draft says.
    pub(super) fn of(draft: &Draft<'_>, plan: &Plan, text: Vec<u8>) -> Self {
        let (opens_to, redacted) = draft.opens_to(plan);
        let redacted = redacted.iter().map(|place| place.as_str().to_owned()).collect();
        Self { text, opens_to, redacted }
    }
}

/// Compares a payload that was written with what it opens to.
pub(super) fn check_payload(written: Option<&Written>, opened: Option<&Opened>) -> Result<(), &'static str> {
    check(written, opened, |opened, expected| opened == expected)
}

/// As [`check_payload`], for metadata. A database may keep them as JSON, and spell them anew.
pub(super) fn check_metadata(written: Option<&Written>, opened: Option<&Opened>) -> Result<(), &'static str> {
    check(written, opened, |opened, expected| is_same_json(Some(opened), Some(expected)))
}

fn check(
    written: Option<&Written>,
    opened: Option<&Opened>,
    is_same: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), &'static str> {
    let Some(written) = written else { return Ok(()) };
    let opened = opened.ok_or("it is not sealed")?;
    if !is_same(&opened.text, &written.opens_to) {
        return Err("it opens to something else");
    }
    let places: HashSet<&str> = opened.redacted.iter().map(|redacted| redacted.place.as_str()).collect();
    let is_expected = |place: &String| places.contains(place.as_str());
    match places.len() == written.redacted.len() && written.redacted.iter().all(is_expected) {
        true => Ok(()),
        false => Err("something else is redacted in it"),
    }
}

/// Are these equal as JSON? A database may change the white space, the order and the spelling of numbers of metadata.
/// Numbers that serde_json can't hold are compared too.
pub(super) fn is_same_json(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) if a == b => true,
        (Some(a), Some(b)) => match (std::str::from_utf8(a), std::str::from_utf8(b)) {
            (Ok(a), Ok(b)) => is_same(a.trim(), b.trim()),
            _ => false,
        },
        (a, b) => a == b,
    }
}

fn is_same(a: &str, b: &str) -> bool {
    match a.as_bytes().first() {
        Some(b'{') => match (members(a), members(b)) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|b| is_same(value, b)))
            }
            _ => false,
        },
        Some(b'[') => match (raw::elements(a), raw::elements(b)) {
            (Ok(a), Ok(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| is_same(a.get(), b.get())),
            _ => false,
        },
        Some(b'"') => a == b || raw::name(a).is_ok_and(|a| raw::name(b).is_ok_and(|b| a == b)),
        Some(b'-' | b'0'..=b'9') => canonical(a).is_some_and(|a| canonical(b) == Some(a)),
        _ => a == b,
    }
}

/// The members of an object by their names. The last of several of one name counts.
fn members(text: &str) -> Option<BTreeMap<String, &str>> {
    let members = raw::members(text).ok()?.into_iter();
    members.map(|(name, value)| Some((raw::name(name).ok()?.into_owned(), value.get()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compared_by_what_it_says() {
        let same = |a: &str, b: &str| is_same_json(Some(a.as_bytes()), Some(b.as_bytes()));
        for (a, b) in [
            (r#"{"a":1,"b":[1e400, "\u0061"]}"#, r#" {"b": [1e400,"a"], "a": 1.0} "#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            ("12345678901234567890123456789", "12345678901234567890123456789"),
            ("null", " null"),
        ] {
            assert!(same(a, b) && same(b, a), "{a} {b}");
        }
        for (a, b) in [
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            ("[1,2]", "[2,1]"),
            ("1e400", "1e401"),
            ("12345678901234567890123456789", "12345678901234567890123456788"),
            (r#""a""#, r#""b""#),
            ("{}", "[]"),
            ("true", "false"),
        ] {
            assert!(!same(a, b) && !same(b, a), "{a} {b}");
        }
        assert!(!is_same_json(None, Some(b"{}")) && is_same_json(None, None));
    }
}
