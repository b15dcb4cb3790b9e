//! A sealed document that was written, and whether it opens to what it must.

use crate::json::number::is_same_value;
use crate::seal::opening::Opened;
use crate::seal::plan::Plan;
use crate::seal::sealing::Draft;
use std::collections::HashSet;

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
pub(super) fn is_same_json(a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    match (a, b) {
        (Some(a), Some(b)) => a == b || json(a).is_some_and(|a| json(b).is_some_and(|b| is_same_value(&a, &b))),
        (a, b) => a == b,
    }
}
