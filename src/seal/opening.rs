//! Opening: from what the store holds to what was appended, or to a redaction of it.
//!
//! In two steps, because keys are looked up in between: [`inspect`] reads the header and finds what it
//! covers; [`Closed::open`] authenticates and decrypts. Everything here may have been altered by
//! whoever can write to the store, so nothing panics, nothing is trusted before it is authenticated,
//! and only a tombstone together with a valid tag ever becomes a redaction (invariant I4).

use crate::crypto::primitives::Transcript;
use crate::crypto::primitives::{DataKey, EventKey, GCM_TAG, PAD};
use crate::error::{Error, Result};
use crate::event::EventRef;
use crate::json::pointer::{JsonPointer, Pattern, Token};
use crate::json::scan::Span;
use crate::json::scan::{Scan, ScanError, SealMember, WHOLE_MEMBER, locate, scan};
use crate::json::wanted::{Target, Wanted};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::seal::binding::Binding;
use crate::seal::detect::{begins_sealed, may_hold_header};
use crate::seal::format::{Document, EntryKind, Header, HeaderError, MAX_STORED, Mode};
use crate::seal::plan::Plan;
use crate::seal::token::read_token;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What the key table says of a key.
#[derive(Clone)]
pub(crate) enum KeyStatus {
    Live { scope: KeyScope, key: Arc<DataKey> },
    Disabled { scope: KeyScope },
    Shredded { scope: KeyScope },
    Faulty(KeyFault),
}

/// Why a key's row is of no use.
#[derive(Clone, Copy)]
pub(crate) enum KeyFault {
    WrongKey { kek_id: KekId },
    MissingKek { kek_id: KekId },
    InvalidRow { problem: &'static str },
}

impl KeyFault {
    pub(crate) fn error(self, key_id: KeyId) -> Error {
        match self {
            Self::WrongKey { kek_id } => Error::WrongKey { key_id, kek_id },
            Self::MissingKek { kek_id } => Error::MissingKek { kek_id },
            Self::InvalidRow { problem } => Error::InvalidRow { what: "data_keys.wrapped_key", problem },
        }
    }
}

/// What the key table says of the keys that a page of events needs. Keys without a row are missing.
pub(crate) type Keys = HashMap<KeyId, KeyStatus>;

/// A stored payload, with its header read and the places it covers found.
pub(crate) struct Closed<'a> {
    event: EventRef<'a>,
    header: Header,
    /// Where the header's member stands.
    cut: Span,
    /// Where the value of each entry stands, in the order of the entries.
    values: Vec<Span>,
    /// The entries are just the places that the plan protects.
    covers_plan: bool,
}

/// A payload whose seal was opened.
pub(crate) struct Opened {
    pub(crate) payload: Vec<u8>,
    /// In the order of the document.
    pub(crate) redacted: Vec<Redacted>,
    /// Whose keys are live, if anything is redacted.
    pub(crate) live: HashSet<KeyScope>,
}

/// A place whose key is shredded.
pub(crate) struct Redacted {
    pub(crate) place: JsonPointer,
    pub(crate) scope: KeyScope,
    /// The destroyed key.
    pub(crate) key_id: KeyId,
}

/// Reads what lies at a place in the store; `None` if there is no seal and needs none.
pub(crate) fn inspect<'a>(plan: &Plan, event: EventRef<'a>, accept_plaintext: bool) -> Result<Option<Closed<'a>>> {
    let EventRef { event_id, payload, .. } = event;
    let tampered = |problem| Error::Tampered { event_id, problem };
    let unsealed = |pointer| Error::Unsealed { event_id, event_type: event.event_type.clone(), pointer };
    if payload.len() > MAX_STORED {
        return Err(Error::LimitExceeded { event_id, what: "the stored payload's size in bytes", limit: MAX_STORED });
    }
    let found = match scan(payload, &plan.to_open) {
        Ok(found) => found,
        Err(ScanError::Duplicate { .. }) => return Err(tampered("a member on a protected path occurs twice")),
        // Bytes that are no JSON have no seal; where the whole payload is protected, any bytes may lie there.
        Err(_) if plan.whole.is_some() && accept_plaintext => return Ok(None),
        Err(_) if plan.whole.is_some() => return Err(unsealed(JsonPointer::root())),
        // Payloads of unprotected types may be any bytes, but for those that were sealed and are damaged.
        Err(_) if !plan.protects() && !may_hold_header(payload) => return Ok(None),
        Err(ScanError::Syntax { .. }) if !plan.protects() && !begins_sealed(payload) => return Ok(None),
        Err(error) => return Err(error.in_event(event_id)),
    };
    let Some(seal) = found.seal else {
        if !accept_plaintext {
            if plan.whole.is_some() {
                return Err(unsealed(JsonPointer::root()));
            }
            if let Some(place) = plaintext_places(plan, payload, &found).next() {
                return Err(unsealed(place));
            }
        }
        return Ok(None);
    };
    let closed = Closed::read(plan, event, &found, seal)?;
    if !accept_plaintext && closed.header.mode == Mode::Fields && !(closed.covers_plan && plan.whole.is_none()) {
        if plan.whole.is_some() {
            return Err(unsealed(JsonPointer::root()));
        }
        let covered = closed.covered();
        if let Some(place) = plaintext_places(plan, payload, &found).find(|place| !covered.contains(place.as_str())) {
            return Err(unsealed(place));
        }
    }
    Ok(Some(closed))
}

/// The protected places that hold a value. `null` is none: there is nothing in it to protect, and an
/// entry that it replaced is missed as such.
fn plaintext_places<'a>(plan: &'a Plan, payload: &'a [u8], found: &'a Scan) -> impl Iterator<Item = JsonPointer> + 'a {
    found.hits.iter().filter_map(|hit| match hit.target {
        Target::Field(index) if hit.span.of(payload) != b"null" => Some(plan.fields[index].place(&hit.indexes)),
        _ => None,
    })
}

impl<'a> Closed<'a> {
    fn read(plan: &Plan, event: EventRef<'a>, found: &Scan, seal: SealMember) -> Result<Self> {
        let EventRef { event_id, payload, .. } = event;
        let tampered = |problem| Error::Tampered { event_id, problem };
        let mut bytes = Vec::new();
        read_token(seal.value.of(payload), &mut bytes).ok_or_else(|| tampered("the header is not base64url"))?;
        let header = Header::parse(bytes, Document::Payload).map_err(|error| match error {
            HeaderError::Unsupported { what, value } => Error::Unsupported { event_id, what, value },
            HeaderError::Malformed => tampered("the header is malformed"),
        })?;
        let as_planned = if header.mode == Mode::Fields { in_order(plan, &header, found) } else { None };
        let covers_plan = as_planned.is_some();
        let values = match header.mode {
            Mode::Fields => as_planned.or_else(|| {
                let pointers: Vec<&str> = header.entries.iter().map(|entry| header.pointer(*entry)).collect();
                locate(payload, &pointers)
            }),
            Mode::Whole if found.members == 2 => locate_whole(payload),
            Mode::Whole => None,
        };
        let values = values.ok_or_else(|| tampered("a sealed value is missing"))?;
        Ok(Self { event, header, cut: seal.cut, values, covers_plan })
    }

    /// The data keys, and the key of the tag.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.header.keys.iter().copied().chain([self.header.integrity_key])
    }

    /// The places that have an entry.
    pub(crate) fn covered(&self) -> HashSet<&str> {
        self.header.entries.iter().map(|entry| self.header.pointer(*entry)).collect()
    }

    /// Each place that has an entry, with the key that it names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, KeyId)> {
        self.header.entries.iter().map(|entry| (self.header.pointer(*entry), self.header.keys[usize::from(entry.key)]))
    }

    /// Authenticates the header, decrypts what is live and redacts what is shredded.
    pub(crate) fn open(&self, plan: &Plan, namespace: &Namespace, keys: &Keys) -> Result<Opened> {
        let authentic = self.authenticate(namespace, keys)?;
        let event_id = self.event.event_id;
        let tampered = |problem| Error::Tampered { event_id, problem };
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        if !self.values.is_sorted() {
            order.sort_unstable_by_key(|entry| self.values[*entry]);
        }
        let mut out = Vec::with_capacity(self.event.payload.len());
        let mut buffer = Vec::new();
        let mut redacted = Vec::new();
        let mut copied = 0;
        let whole = self.header.mode == Mode::Whole;
        for index in order {
            let entry = self.header.entries[index];
            let pointer = self.header.pointer(entry);
            let span = self.values[index];
            if !whole {
                self.copy_between(&mut out, copied, span.start);
            }
            copied = span.end;
            let value = span.of(self.event.payload);
            let key = usize::from(entry.key);
            let scope = match (&authentic.keys[key], authentic.shredded[key], entry.kind) {
                (Some(event_key), _, EntryKind::Sealed) => {
                    read_token(value, &mut buffer).ok_or_else(|| tampered("a sealed value is not base64url"))?;
                    #[allow(clippy::cast_possible_truncation, reason = "below MAX_ENTRIES")]
                    let length = event_key
                        .open(index as u16, pointer, &mut buffer)
                        .ok_or_else(|| tampered("a sealed value is not authentic"))?;
                    out.extend_from_slice(&buffer[..length]);
                    continue;
                }
                (None, Some(scope), EntryKind::Sealed) => {
                    let shaped = read_token(value, &mut buffer).is_some()
                        && buffer.len() > GCM_TAG
                        && (buffer.len() - GCM_TAG).is_multiple_of(PAD);
                    if !shaped {
                        return Err(tampered("a sealed value is malformed"));
                    }
                    scope
                }
                (None, Some(scope), EntryKind::Void) if value == b"null" => scope,
                (None, Some(_), EntryKind::Void) => return Err(tampered("a void place holds a value")),
                _ => return Err(tampered("a void entry names a key that is not shredded")),
            };
            let pointer = JsonPointer::new_unchecked(pointer);
            out.extend_from_slice(plan.stand_in(&pointer).as_bytes());
            redacted.push(Redacted { place: pointer, scope: scope.clone(), key_id: self.header.keys[key] });
        }
        if !whole {
            self.copy_between(&mut out, copied, self.event.payload.len());
        }
        let live = match redacted.as_slice() {
            [] => HashSet::new(),
            _ => self.header.keys.iter().filter_map(|key_id| live_scope(keys, *key_id)).collect(),
        };
        Ok(Opened { payload: out, redacted, live })
    }

    /// Copies what was never sealed, leaving out the header.
    fn copy_between(&self, out: &mut Vec<u8>, from: usize, to: usize) {
        let mut copy =
            |from: usize, to: usize| out.extend_from_slice(self.event.payload.get(from..to).unwrap_or_default());
        if from <= self.cut.start && self.cut.end <= to {
            copy(from, self.cut.start);
            copy(self.cut.end, to);
        } else {
            copy(from, to);
        }
    }

    /// Checks everything that says that this header belongs here, before any decryption.
    ///
    /// Altered headers are told from missing, disabled and shredded keys first: what does not hold
    /// must not be explained by the state of a key that it merely names.
    fn authenticate<'k>(&self, namespace: &Namespace, keys: &'k Keys) -> Result<Authentic<'k>> {
        let transcript = Binding::of(namespace, self.event).transcript(self.header.core());
        let event_keys = self.check_commitments(&transcript, keys)?;
        // A live key vouches for the whole header. Where one is not live, the tag does, if its key is at hand.
        let all_live = self.header.keys.iter().all(|key_id| matches!(keys.get(key_id), Some(KeyStatus::Live { .. })));
        if !all_live && !self.tag_holds(&transcript, keys) {
            return Err(Error::Tampered {
                event_id: self.event.event_id,
                problem: "the header's tag is not authentic",
            });
        }
        Ok(Authentic { keys: event_keys, shredded: self.check_states(keys)? })
    }

    /// The live keys that something is sealed under, each of which has committed itself to this header.
    fn check_commitments(&self, transcript: &Transcript, keys: &Keys) -> Result<Vec<Option<EventKey>>> {
        let tampered = |problem| Error::Tampered { event_id: self.event.event_id, problem };
        let mut event_keys: Vec<Option<EventKey>> = (0..self.header.keys.len()).map(|_| None).collect();
        for (index, commitment) in self.header.commitments() {
            if let Some(KeyStatus::Live { scope, key }) = keys.get(&self.header.keys[index]) {
                if scope.is_reserved() {
                    return Err(tampered("the header names an integrity key as a data key"));
                }
                #[allow(clippy::cast_possible_truncation, reason = "below MAX_KEYS")]
                let event_key = key.event_key(transcript, index as u16)?;
                if !event_key.commitment_is(commitment) {
                    return Err(tampered("the header is not authentic"));
                }
                event_keys[index] = Some(event_key);
            }
        }
        Ok(event_keys)
    }

    /// Is the tag right, as far as that can be told? A key that is not at hand says nothing:
    /// [`check_states`](Self::check_states) sees to that.
    fn tag_holds(&self, transcript: &Transcript, keys: &Keys) -> bool {
        match keys.get(&self.header.integrity_key) {
            Some(KeyStatus::Live { scope, key }) => {
                *scope == KeyScope::integrity() && key.header_tag_is(transcript, self.header.tag())
            }
            Some(KeyStatus::Disabled { scope }) => *scope == KeyScope::integrity(),
            Some(KeyStatus::Shredded { .. }) => false,
            Some(KeyStatus::Faulty(_)) | None => true,
        }
    }

    /// Whose the shredded keys were, in the order of the keys. Every other key must be live.
    fn check_states<'k>(&self, keys: &'k Keys) -> Result<Vec<Option<&'k KeyScope>>> {
        let event_id = self.event.event_id;
        let mut shredded = Vec::with_capacity(self.header.keys.len());
        for key_id in &self.header.keys {
            shredded.push(match keys.get(key_id) {
                None => return Err(Error::MissingKey { event_id, key_id: *key_id }),
                Some(KeyStatus::Faulty(fault)) => return Err(fault.error(*key_id)),
                Some(KeyStatus::Disabled { scope }) => return Err(Error::Disabled { scope: scope.clone() }),
                Some(KeyStatus::Live { .. }) => None,
                Some(KeyStatus::Shredded { scope }) => Some(scope),
            });
        }
        if shredded.iter().any(Option::is_some) {
            // Nothing is redacted on the word of a header whose tag could not be checked.
            match keys.get(&self.header.integrity_key) {
                None => return Err(Error::MissingKey { event_id, key_id: self.header.integrity_key }),
                Some(KeyStatus::Disabled { scope }) => return Err(Error::Disabled { scope: scope.clone() }),
                Some(KeyStatus::Faulty(fault)) => return Err(fault.error(self.header.integrity_key)),
                Some(_) => {}
            }
        }
        Ok(shredded)
    }
}

fn live_scope(keys: &Keys, key_id: KeyId) -> Option<KeyScope> {
    match keys.get(&key_id) {
        Some(KeyStatus::Live { scope, .. }) => Some(scope.clone()),
        _ => None,
    }
}

/// What an authentic header's keys are, in their order.
struct Authentic<'k> {
    /// Of live keys that something is sealed under.
    keys: Vec<Option<EventKey>>,
    /// Of shredded keys: whose they were.
    shredded: Vec<Option<&'k KeyScope>>,
}

/// The values of the entries, if the schema's places are just these, in this order: the usual case.
fn in_order(plan: &Plan, header: &Header, found: &Scan) -> Option<Vec<Span>> {
    if found.hits.len() != header.entries.len() {
        return None;
    }
    let pairs = found.hits.iter().zip(&header.entries);
    pairs
        .map(|(hit, entry)| {
            let Target::Field(index) = hit.target else { return None };
            let field = &plan.fields[index];
            let same = field.place_text(&hit.indexes) == header.pointer(*entry);
            same.then_some(hit.span)
        })
        .collect()
}

fn locate_whole(payload: &[u8]) -> Option<Vec<Span>> {
    let mut wanted = Wanted::default();
    wanted.add(&Pattern::from_tokens(vec![Token::Name(WHOLE_MEMBER.to_owned())]), Target::Field(0));
    let found = scan(payload, &wanted).ok()?;
    found.hits.first().map(|hit| vec![hit.span])
}
