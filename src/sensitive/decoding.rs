//! Reading a payload, of which it is known what is redacted, into a Rust type.

use crate::error::describe_without_values;
use crate::json::pointer::{JsonPointer, Places};
use crate::json::raw;
use crate::sensitive::buffered::Reading;
use crate::sensitive::redactable::Redactable;
use crate::sensitive::{Mode, Seen, in_mode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Why a payload can't be read into a type.
#[derive(Debug)]
pub(crate) enum Undecodable {
    Json(serde_json::Error),
    /// A member has a name that serde_json keeps for itself.
    Private(JsonPointer),
    /// It can't be told whether a `Sensitive` is redacted.
    Unclear,
}

impl From<serde_json::Error> for Undecodable {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl Undecodable {
    /// Without values.
    pub(crate) fn describe(&self, payload: &[u8]) -> String {
        match self {
            Self::Json(error) => describe_without_values(error, payload),
            Self::Private(place) => private_name(place),
            Self::Unclear => {
                "a Sensitive went through a buffer (of a Deserialize of your own, or of a tagged or untagged enum), \
                 and holds what may be a value or stand in for one that was erased: read it without one, or let null \
                 stand in for it"
                    .to_owned()
            }
        }
    }
}

/// What there is to say of a member whose name serde_json keeps for itself.
fn private_name(place: &JsonPointer) -> String {
    format!(
        "the name of the member {place} is one that serde_json keeps for itself: move or remove it with a declarative \
         step before"
    )
}

/// Reads a payload in which exactly these places are redacted.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8], redacted: &[JsonPointer]) -> Result<T, Undecodable> {
    decode_watched(payload, redacted).map(|(value, _)| value)
}

/// Reads a payload in which exactly these places are redacted. The flag says whether every redaction is known to
/// the value: each of these places was read by a `Sensitive`, or not at all.
///
/// Of members that are repeated the last one counts, as it does for a `serde_json::Value`: what serde derives refuses
/// them, and then it is asked again.
pub(crate) fn decode_watched<T: DeserializeOwned>(
    payload: &[u8],
    redacted: &[JsonPointer],
) -> Result<(T, bool), Undecodable> {
    if let Some(place) = raw::private_member(payload) {
        // Nobody knows here what was protected.
        return Err(Undecodable::Private(raw::without_names(&place, 0)));
    }
    read(payload, redacted).or_else(|error| match std::str::from_utf8(payload).ok().and_then(raw::without_repeated) {
        Some(payload) => read(payload.as_bytes(), redacted),
        None => Err(error),
    })
}

fn read<T: DeserializeOwned>(payload: &[u8], redacted: &[JsonPointer]) -> Result<(T, bool), Undecodable> {
    if redacted.is_empty() {
        return Ok((in_mode(Mode::Exact, || serde_json::from_slice(payload))?, true));
    }
    let document: &RawValue = serde_json::from_slice(payload)?;
    let places = Places::of(redacted);
    let attempt = |reading: Reading| {
        let seen = Cell::new(Seen::AsSensitive);
        let root = Redactable { raw: document.get(), places: Some(&places), seen: &seen, is_part: false };
        let (value, reading) = reading.run(|| T::deserialize(root));
        (value, seen.get(), reading)
    };
    let (value, seen, reading) = attempt(Reading::default());
    match seen {
        Seen::Buffered => read_again(value, &reading, |reading| {
            let (value, _, reading) = attempt(reading);
            (value, reading)
        })
        .map(|value| (value, false)),
        seen => Ok((value?, seen == Seen::AsSensitive)),
    }
}

/// How many values that a mark may be for are looked at one by one.
const MAX_DOUBTS: usize = 16;

/// Something redacted went into a buffer of serde's. Where what came out of it leaves a doubt, marks say what is
/// redacted.
fn read_again<T>(
    value: Result<T, serde_json::Error>,
    reading: &Reading,
    attempt: impl Fn(Reading) -> (Result<T, serde_json::Error>, Rc<Reading>),
) -> Result<T, Undecodable> {
    if reading.is_lost() {
        return Err(Undecodable::Unclear);
    }
    if !reading.is_doubtful() && !reading.has_null() {
        return Ok(value?);
    }
    // A `null` has no doubt in it, but an `Option<Sensitive<T>>` would take it for `None`.
    let open = reading.open();
    let (marked, again) = attempt(Reading::marking(reading.outermost(&open), false));
    if let (Ok(value), true, false, false) = (marked, again.all_marks_were_read(), again.is_doubtful(), again.is_lost())
    {
        return Ok(value);
    }
    if !reading.is_doubtful() {
        return Ok(value?);
    }
    // Some are read by types that do not know of redactions.
    if open.len() > MAX_DOUBTS {
        return Err(Undecodable::Unclear);
    }
    let mut known = BTreeSet::new();
    for start in open {
        let tried: BTreeSet<usize> = known.iter().copied().chain([start]).collect();
        let (marked, again) = attempt(Reading::marking(tried.clone(), false));
        if marked.is_ok() && again.all_marks_were_read() {
            known = tried;
        }
    }
    let (value, last) = attempt(Reading::marking(known, true));
    if last.is_lost() || !last.all_marks_were_read() {
        return Err(Undecodable::Unclear);
    }
    Ok(value?)
}

/// Reads a value in which nothing is redacted.
pub(crate) fn decode_value<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, serde_json::Error> {
    in_mode(Mode::Exact, || T::deserialize(value))
}
