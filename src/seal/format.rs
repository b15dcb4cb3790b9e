//! The header of a sealed payload, format version 1: parses it and writes it.
//!
//! ```text
//! core   = format ‖ suite ‖ part ‖ mode ‖ salt (16) ‖ integrity key id (16)
//!        ‖ number of keys (2) ‖ key ids (16 each)
//!        ‖ number of entries (2) ‖ entries: key index (2) ‖ kind (1) ‖ pointer length (2) ‖ pointer
//! header = core ‖ tag (16) ‖ commitments (32 each, of keys with a sealed entry)
//! ```
//!
//! Lengths are in bytes. Numbers are big-endian. Each header has one spelling: this module refuses to read what it
//! would not write. `docs/format.md` is the specification.

use crate::crypto::primitives::{COMMITMENT, TAG};
use crate::event::EventDocument;
use crate::json::pointer::JsonPointer;
use crate::json::scan::SEAL_MEMBER;
use crate::json::scan::Span;
use crate::keys::names::KeyId;
use uuid::Uuid;

/// The only format version so far.
pub(crate) const FORMAT: u8 = 1;
/// The only suite of algorithms so far: HKDF-SHA256, HMAC-SHA256 and AES-256-GCM.
pub(crate) const SUITE: u8 = 1;
/// How many sealed places one event may have.
pub(crate) const MAX_ENTRIES: usize = 4_096;
/// How many data keys one event may use.
pub(crate) const MAX_KEYS: usize = 1_024;
/// How many bytes a pointer may have.
pub(crate) const MAX_POINTER: usize = 4_096;
/// How many bytes a payload may have before it is sealed.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;
/// How many bytes of padding all values of a payload may get together. Only sealing checks this limit.
pub(crate) const MAX_PADDING: usize = 16 << 20;
/// How many bytes a stored payload may have.
pub(crate) const MAX_STORED: usize = 512 << 20;
/// How many bytes a header may have, decoded.
pub(crate) const MAX_HEADER: usize = 24 << 20;

/// Which document is sealed (`part` in the header). A seal of one document does not open as that of
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    /// The event's payload.
    Payload = 0,
    /// The event's metadata.
    Metadata = 1,
    /// The state of an aggregate, folded from its events.
    Snapshot = 2,
    /// A value outside of events.
    Value = 3,
}

impl From<EventDocument> for Document {
    fn from(document: EventDocument) -> Self {
        match document {
            EventDocument::Payload => Self::Payload,
            EventDocument::Metadata => Self::Metadata,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Single values in a JSON object are sealed where they stand.
    Fields = 0,
    /// The whole document is sealed.
    Whole = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// The place holds a ciphertext.
    Sealed = 0,
    /// The place holds `null`, and opens to a redaction. It names a destroyed key.
    Void = 1,
}

/// One sealed or void place in a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The index of its key among the header's keys.
    pub(crate) key: u16,
    pub(crate) kind: EntryKind,
    /// Where the pointer stands in the header.
    pointer: Span,
}

/// What the entries of a header use a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Unused,
    /// For void places only.
    Void,
    /// Something is sealed under it, so the header has a commitment to it.
    Seals,
}

/// A parsed header.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) mode: Mode,
    pub(crate) integrity_key: KeyId,
    pub(crate) keys: Vec<KeyId>,
    pub(crate) entries: Vec<Entry>,
    /// What each key is used for.
    uses: Vec<Use>,
    /// The whole header.
    bytes: Vec<u8>,
    /// The length of the core.
    core: usize,
}

/// Why bytes can't be read as a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Unsupported { what: &'static str, value: u8 },
    Malformed,
}

impl Header {
    /// The header without its tag and commitments.
    pub(crate) fn core(&self) -> &[u8] {
        &self.bytes[..self.core]
    }

    /// The place of an entry: a concrete JSON Pointer.
    pub(crate) fn pointer(&self, entry: Entry) -> &str {
        // UTF-8 was checked when the entry was read.
        std::str::from_utf8(entry.pointer.of(&self.bytes)).unwrap_or_default()
    }

    pub(crate) fn tag(&self) -> &[u8] {
        &self.bytes[self.core..self.core + TAG]
    }

    /// The commitments, each with the index of its key.
    pub(crate) fn commitments(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let sealing = (0..self.keys.len()).filter(|key| self.uses[*key] == Use::Seals);
        sealing.zip(self.bytes[self.core + TAG..].chunks_exact(COMMITMENT))
    }

    pub(crate) fn parse(bytes: Vec<u8>, document: Document) -> Result<Self, HeaderError> {
        if bytes.len() > MAX_HEADER {
            return Err(HeaderError::Malformed);
        }
        let mut read = Reader { bytes: &bytes, at: 0 };
        let supported = |what, value: u8, known: u8| {
            if value == known { Ok(()) } else { Err(HeaderError::Unsupported { what, value }) }
        };
        supported("format", read.byte()?, FORMAT)?;
        supported("suite", read.byte()?, SUITE)?;
        match read.byte()? {
            part if part == document as u8 => {}
            0..=2 => return Err(HeaderError::Malformed),
            value => return Err(HeaderError::Unsupported { what: "part", value }),
        }
        let mode = match read.byte()? {
            0 => Mode::Fields,
            1 => Mode::Whole,
            value => return Err(HeaderError::Unsupported { what: "mode", value }),
        };
        read.take(16)?; // the salt is only used as a part of the core
        let integrity_key = read.key_id()?;
        // A state in which nothing was ever protected has no data keys. Everything else has some.
        let least = usize::from(document != Document::Snapshot);
        let key_count = usize::from(read.number()?);
        if key_count < least || key_count > MAX_KEYS {
            return Err(HeaderError::Malformed);
        }
        let keys = (0..key_count).map(|_| read.key_id()).collect::<Result<Vec<_>, _>>()?;
        let entry_count = usize::from(read.number()?);
        if entry_count < least || entry_count > MAX_ENTRIES {
            return Err(HeaderError::Malformed);
        }
        let entries = (0..entry_count).map(|_| read.entry(key_count)).collect::<Result<Vec<_>, _>>()?;
        let core = read.at;
        let pointers = || entries.iter().map(|entry| entry.pointer.of(&bytes));
        let shape_is_right = match (document, mode) {
            // One entry for each key, in the order of the keys.
            (Document::Snapshot, Mode::Whole) => {
                entries.iter().map(|entry| usize::from(entry.key)).eq(0..keys.len()) && pointers().all(<[u8]>::is_empty)
            }
            (Document::Snapshot, Mode::Fields) => false,
            (_, Mode::Whole) => pointers().eq([b""]),
            (_, Mode::Fields) => pointers().all(is_in_document) && all_distinct(pointers()),
        };
        let mut uses = vec![Use::Unused; keys.len()];
        for entry in &entries {
            let known = &mut uses[usize::from(entry.key)];
            *known = (*known).max(if entry.kind == EntryKind::Sealed { Use::Seals } else { Use::Void });
        }
        let commitments = uses.iter().filter(|known| **known == Use::Seals).count();
        if !shape_is_right
            || uses.contains(&Use::Unused)
            || !all_distinct(keys.iter())
            || bytes.len() != core + TAG + commitments * COMMITMENT
        {
            return Err(HeaderError::Malformed);
        }
        Ok(Self { mode, integrity_key, keys, entries, uses, bytes, core })
    }
}

/// Does a pointer lead to a place of the document, and not to the header or into it?
fn is_in_document(pointer: &[u8]) -> bool {
    let step = pointer.split(|byte| *byte == b'/').nth(1);
    step.is_some_and(|step| step != SEAL_MEMBER.as_bytes())
}

fn all_distinct<T: Ord>(items: impl Iterator<Item = T> + Clone) -> bool {
    const FEW: usize = 8;
    let mut rest = items.clone();
    if items.clone().nth(FEW).is_none() {
        // This needs no memory, and hardly any time.
        return items.into_iter().all(|item| {
            rest.next();
            rest.clone().all(|other| other != item)
        });
    }
    let mut items: Vec<T> = items.collect();
    items.sort_unstable();
    items.windows(2).all(|pair| pair[0] != pair[1])
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HeaderError> {
        let taken = self.bytes.get(self.at..self.at + length).ok_or(HeaderError::Malformed)?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, HeaderError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u16, HeaderError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn key_id(&mut self) -> Result<KeyId, HeaderError> {
        let bytes = self.take(16)?.try_into().map_err(|_| HeaderError::Malformed)?;
        Ok(KeyId(Uuid::from_bytes(bytes)))
    }

    fn entry(&mut self, keys: usize) -> Result<Entry, HeaderError> {
        let key = self.number()?;
        let kind = match self.byte()? {
            0 => EntryKind::Sealed,
            1 => EntryKind::Void,
            _ => return Err(HeaderError::Malformed),
        };
        let length = usize::from(self.number()?);
        let start = self.at;
        let is_pointer = std::str::from_utf8(self.take(length)?).is_ok_and(JsonPointer::is_valid);
        if is_pointer && usize::from(key) < keys && length <= MAX_POINTER {
            Ok(Entry { key, kind, pointer: Span { start, end: self.at } })
        } else {
            Err(HeaderError::Malformed)
        }
    }
}

/// Writes a core: the header without its tag and commitments.
pub(crate) fn write_core<'a>(
    document: Document,
    mode: Mode,
    salt: &[u8; 16],
    integrity_key: KeyId,
    keys: &[KeyId],
    entries: impl ExactSizeIterator<Item = (u16, EntryKind, &'a str)>,
) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, reason = "bounded by MAX_KEYS, MAX_ENTRIES and MAX_POINTER")]
    let number = |number: usize| (number as u16).to_be_bytes();
    let mut core = Vec::with_capacity(40 + keys.len() * (16 + COMMITMENT) + entries.len() * 40 + TAG);
    core.extend_from_slice(&[FORMAT, SUITE, document as u8, mode as u8]);
    core.extend_from_slice(salt);
    core.extend_from_slice(integrity_key.0.as_bytes());
    core.extend_from_slice(&number(keys.len()));
    for key in keys {
        core.extend_from_slice(key.0.as_bytes());
    }
    core.extend_from_slice(&number(entries.len()));
    for (key, kind, pointer) in entries {
        core.extend_from_slice(&key.to_be_bytes());
        core.push(kind as u8);
        core.extend_from_slice(&number(pointer.len()));
        core.extend_from_slice(pointer.as_bytes());
    }
    core
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        let keys = [KeyId(Uuid::from_u128(1)), KeyId(Uuid::from_u128(2))];
        let entries = [(0, EntryKind::Sealed, "/a"), (1, EntryKind::Void, "/b/0")];
        let mut bytes = write_core(
            Document::Payload,
            Mode::Fields,
            &[7; 16],
            KeyId(Uuid::from_u128(3)),
            &keys,
            entries.into_iter(),
        );
        bytes.extend_from_slice(&[8; TAG + COMMITMENT]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let header = Header::parse(header(), Document::Payload).unwrap();
        assert_eq!(header.keys.len(), 2);
        assert_eq!(header.pointer(header.entries[1]), "/b/0");
        assert_eq!(header.tag(), [8; TAG]);
        assert_eq!(header.commitments().map(|(key, _)| key).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn every_shorter_or_longer_header_is_refused() {
        let whole = header();
        for length in 0..whole.len() {
            assert!(Header::parse(whole[..length].to_vec(), Document::Payload).is_err(), "{length}");
        }
        assert!(Header::parse([whole, vec![0]].concat(), Document::Payload).is_err());
    }

    #[test]
    fn other_formats_suites_modes_and_parts_are_told_apart() {
        for (at, what) in [(0, "format"), (1, "suite"), (2, "part"), (3, "mode")] {
            let mut bytes = header();
            bytes[at] = 9;
            assert_eq!(
                Header::parse(bytes, Document::Payload).unwrap_err(),
                HeaderError::Unsupported { what, value: 9 }
            );
        }
        assert_eq!(Header::parse(header(), Document::Metadata).unwrap_err(), HeaderError::Malformed);
    }
}
