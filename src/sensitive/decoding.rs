//! Reads a payload, whose redacted places are known, into a Rust type.

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
    /// A member has a name that serde_json reserves for its own use.
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
    /// Describes the problem without values of the payload.
    pub(crate) fn describe(&self, payload: &[u8]) -> String {
        match self {
            Self::Json(error) => describe_without_values(error, payload),
            Self::Private(place) => private_name(place),
            Self::Unclear => {
                "a Sensitive went through a buffer (of a Deserialize of your own, or of a tagged or untagged enum), \
                 and it can't be told whether it holds a value or the stand-in for an erased one: read it without a \
                 buffer, or let null be the stand-in"
                    .to_owned()
            }
        }
    }
}

/// The error text for a member whose name serde_json reserves for its own use.
fn private_name(place: &JsonPointer) -> String {
    format!(
        "the name of the member {place} is one that serde_json keeps for itself: move or remove it with a declarative \
         step before"
    )
}

/// Reads a payload in which exactly the places `redacted` are redacted.
pub(crate) fn decode<T: DeserializeOwned>(payload: &[u8], redacted: &[JsonPointer]) -> Result<T, Undecodable> {
    decode_watched(payload, redacted).map(|(value, _)| value)
}

/// As [`decode`]. The flag is true if the value knows of every redaction: each redacted place was read by a
/// `Sensitive`, or not at all.
///
/// If an object has several members of one name, the last one counts, as in a `serde_json::Value`. Derived code of
/// serde refuses such objects. Then the payload is read again without the earlier members.
pub(crate) fn decode_watched<T: DeserializeOwned>(
    payload: &[u8],
    redacted: &[JsonPointer],
) -> Result<(T, bool), Undecodable> {
    if let Some(place) = raw::private_member(payload) {
        // Here it is not known which names are protected, so no name of the application is shown.
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

/// How many candidates for a mark are tried one by one. Each one costs another reading of the payload.
const MAX_DOUBTS: usize = 16;

/// Completes a reading in which a redacted value went through a buffer of serde. If what came out of the buffer leaves
/// a doubt, the payload is read again with marks in the doubtful places.
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
    // A redacted `null` leaves no doubt, but an `Option<Sensitive<T>>` would read it as `None`.
    let open = reading.open();
    let (marked, again) = attempt(Reading::marking(reading.outermost(&open), false));
    if let (Ok(value), true, false, false) = (marked, again.all_marks_were_read(), again.is_doubtful(), again.is_lost())
    {
        return Ok(value);
    }
    if !reading.is_doubtful() {
        return Ok(value?);
    }
    // Some of the marked places are read by types that are not a `Sensitive`. Find out which, one place at a time.
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

/// Reads a `serde_json::Value` in which nothing is redacted.
pub(crate) fn decode_value<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, serde_json::Error> {
    in_mode(Mode::Exact, || T::deserialize(value))
}
