//! The sealing engine: bytes and keys in, bytes out. Pure and synchronous.
//!
//! [`plan`] says what is protected, [`scan`] finds it, [`sealing`] and [`opening`] replace it where it
//! stands, [`format`](mod@format) is the header, [`crypto`] the primitives.

pub(crate) mod clear;
pub(crate) mod crypto;
pub(crate) mod format;
pub(crate) mod opening;
pub(crate) mod plan;
pub(crate) mod scan;
pub(crate) mod sealing;
#[cfg(test)]
mod vectors;
mod wanted;

use crate::event::{AggregateRef, EventType, EventVersion};
use crate::key::Namespace;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crypto::Transcript;
use memchr::memmem::Finder;
use std::sync::LazyLock;
use uuid::Uuid;

/// The member that holds the ciphertext of a wholly sealed document.
pub(crate) const WHOLE_MEMBER: &str = "$sealed";

/// Where a document belongs: what its seal is bound to besides the header.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) aggregate: &'a AggregateRef,
    pub(crate) event_id: Uuid,
    pub(crate) event_type: &'a EventType,
    pub(crate) event_version: EventVersion,
}

impl Place<'_> {
    pub(crate) fn transcript(&self, core: &[u8]) -> Transcript {
        let mut digits = [0; 10];
        Transcript::of(&[
            b"eventseal/v1",
            self.namespace.as_str().as_bytes(),
            self.aggregate.aggregate_type().as_bytes(),
            self.aggregate.aggregate_id().as_bytes(),
            self.event_id.as_bytes(),
            self.event_type.as_str().as_bytes(),
            decimal(self.event_version.get(), &mut digits),
            core,
        ])
    }
}

fn decimal(mut number: u32, digits: &mut [u8; 10]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        #[allow(clippy::cast_possible_truncation, reason = "a digit")]
        {
            digits[at] = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// Could a document have a header? `false` is certain, and costs a search.
pub(crate) fn may_hold_header(document: &[u8]) -> bool {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(scan::SEAL_MEMBER));
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r"\u00"));
    let of_name = |start: usize| {
        let digits = document.get(start + 4..start + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        escaped.is_some_and(|byte| scan::SEAL_MEMBER.as_bytes().contains(&byte))
    };
    // Whoever spells the name otherwise writes one of its characters as an escape.
    NAME.find(document).is_some() || ESCAPE.find_iter(document).any(of_name)
}

/// Is this a sealed payload? The name of the header's member is reserved, so that the root has one is proof.
///
/// A `$seal` deeper down or in a string is none. Bytes that are no JSON, or no JSON any more, are taken for a sealed payload if
/// they begin like one.
///
/// # Errors
/// [`ScanError::TooDeep`](scan::ScanError::TooDeep): what can't be looked through can't be told from a sealed payload.
pub(crate) fn is_sealed(document: &[u8]) -> Result<bool, scan::ScanError> {
    if !may_hold_header(document) {
        return Ok(false);
    }
    match scan::scan(document, &wanted::Wanted::default()) {
        Ok(found) => Ok(found.seal.is_some()),
        Err(scan::ScanError::Duplicate { .. }) => Ok(true),
        Err(error @ scan::ScanError::TooDeep) => Err(error),
        Err(_) => Ok(begins_sealed(document)),
    }
}

/// Do the bytes begin as every payload does that was sealed here?
pub(crate) fn begins_sealed(document: &[u8]) -> bool {
    document.trim_ascii_start().starts_with(br#"{"$seal":""#)
}

/// Appends `bytes` to `out` as a JSON string of base64url without padding (RFC 4648, section 5).
pub(crate) fn push_token(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len() + 1;
    let length = token_length(bytes.len());
    out.push(b'"');
    out.resize(start + length - 2, 0);
    // The room is exact, so this does not fail.
    let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[start..]);
    out.push(b'"');
}

/// How many bytes [`push_token`] appends.
pub(crate) fn token_length(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3) + 2
}

/// The bytes of a token, into `buffer`; `None` if `text` is not exactly what [`push_token`] writes.
pub(crate) fn read_token(text: &[u8], buffer: &mut Vec<u8>) -> Option<()> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    buffer.clear();
    buffer.resize(inner.len() * 3 / 4, 0);
    // The decoder refuses padding, foreign characters and stray trailing bits: one spelling per token.
    let length = URL_SAFE_NO_PAD.decode_slice(inner, buffer).ok()?;
    buffer.truncate(length);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_one_spelling() {
        let mut buffer = Vec::new();
        for length in 0..50 {
            let bytes: Vec<u8> = (0..length).collect();
            let mut token = Vec::new();
            push_token(&mut token, &bytes);
            assert_eq!(token.len(), token_length(bytes.len()));
            assert_eq!(read_token(&token, &mut buffer), Some(()));
            assert_eq!(buffer, bytes);
        }
        for wrong in ["", "\"", "AA", "\"AA==\"", "\"AB\"", "\"A+\"", "\"A\\u0041\"", "\"A\"", "null"] {
            assert_eq!(read_token(wrong.as_bytes(), &mut buffer), None, "{wrong}");
        }
    }

    #[test]
    fn what_has_the_reserved_member_in_its_root_is_sealed_however_that_is_spelled() {
        for sealed in [
            r#"{"$seal":"AQ","a":1}"#,
            r#"{"a": {"b": 1}, "$seal": "AQ"}"#,
            r#"{"a":1,"\u0024seal":"AQ"}"#,
            r#"{"$s\u0065al":"AQ"}"#,
            r#"{"$sea\u006C":"AQ"}"#,
            r#"{"$sea\u006c" : null}"#,
            r#"{"$seal":"AQ","\u0024seal":"AQ"}"#,
            " {\"$seal\":\"AQ\",\"cut off",
        ] {
            assert_eq!(is_sealed(sealed.as_bytes()), Ok(true), "{sealed}");
        }
        for plain in [
            "",
            "null",
            r#""$seal""#,
            r#"["$seal"]"#,
            r#"{"a":{"$seal":"AQ"}}"#,
            r#"{"a":[{"\u0024seal":"AQ"}],"note":"$seal"}"#,
            r#"{"a$seal":1,"$seal ":2,"$Seal":3}"#,
            r#"{"\\u0024seal":1}"#,
            r#"{"note":"\u00e4\u0061\u00"#,
            r#"no JSON, but {"$seal":"AQ"}"#,
        ] {
            assert_eq!(is_sealed(plain.as_bytes()), Ok(false), "{plain}");
        }
        let deep = |inner: &str| format!(r#"{{"a":{}{inner}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(is_sealed(deep("1").as_bytes()), Ok(false));
        assert_eq!(is_sealed(deep(r#""$seal""#).as_bytes()), Err(scan::ScanError::TooDeep));
    }

    #[test]
    fn numbers_are_written_as_text() {
        let mut digits = [0; 10];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(u32::MAX, &mut digits), b"4294967295");
    }
}
