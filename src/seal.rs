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

/// Could a document have a header? `false` is certain, short of a header's name spelled with escapes.
pub(crate) fn may_hold_header(document: &[u8]) -> bool {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(scan::SEAL_MEMBER));
    NAME.find(document).is_some()
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
    fn numbers_are_written_as_text() {
        let mut digits = [0; 10];
        assert_eq!(decimal(0, &mut digits), b"0");
        assert_eq!(decimal(u32::MAX, &mut digits), b"4294967295");
    }
}
