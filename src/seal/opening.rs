//! Opening: turns a stored payload into the payload that was appended, with redactions where keys were shredded.
//!
//! It takes two steps, because keys are looked up in between. [`inspect`] reads the header and finds the values that it
//! covers. [`Closed::open`] authenticates the header and decrypts the values.
//!
//! A stored payload may have been altered by anybody who can write to the store. So nothing here panics, and nothing is
//! trusted before it is authenticated. Only a tombstone together with a valid tag becomes a redaction (invariant I4).

use crate::crypto::primitives::Transcript;
use crate::crypto::primitives::{DataKey, EventKey, GCM_TAG, PAD};
use crate::error::{Error, EventFault, Result};
use crate::event::EventRef;
use crate::json::pointer::JsonPointer;
use crate::json::scan::Span;
use crate::json::scan::{Scan, ScanError, SealMember, locate, scan};
use crate::json::wanted::Target;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::seal::binding::Binding;
use crate::seal::detect::{begins_sealed, may_hold_header};
use crate::seal::format::{EntryKind, Header, MAX_STORED, Mode};
use crate::seal::named::read_header;
use crate::seal::places::{KeyOwner, SealedPlaces};
use crate::seal::plan::Plan;
use crate::seal::stand_in::StandIns;
use crate::seal::token::read_token;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// The state of a data key, according to the key table.
#[derive(Clone)]
pub(crate) enum KeyStatus {
    Live { scope: KeyScope, key: Arc<DataKey> },
    Disabled { scope: KeyScope },
    Shredded { scope: KeyScope },
    Faulty(Error),
}

/// The states of the keys that a page of events needs. A key that has no row in the key table is not in the map.
pub(crate) type Keys = HashMap<KeyId, KeyStatus>;

/// A sealed payload, or sealed metadata, whose header was parsed and whose values were found. Nothing of it is
/// authentic yet. It borrows nothing of the event, so that both can go to another thread. The methods take the event
/// that was inspected.
pub(crate) struct Closed {
    header: Arc<Header>,
    /// What must be cut out to remove the member with the header.
    cut: Span,
    /// Where the value of each entry stands, in the order of the entries.
    values: Vec<Span>,
    /// True if the entries are exactly the places that the plan protects.
    covers_plan: bool,
}

/// A document whose seal was opened.
pub(crate) struct Opened {
    /// The payload, or the metadata.
    pub(crate) text: Vec<u8>,
    /// The redacted places, in the order of the document.
    pub(crate) redacted: Vec<Redacted>,
    /// All places that the seal covers, with their owners.
    pub(crate) places: SealedPlaces,
}

/// A place whose key is shredded.
pub(crate) struct Redacted {
    pub(crate) place: JsonPointer,
    pub(crate) scope: KeyScope,
    /// The destroyed key.
    pub(crate) key_id: KeyId,
}

/// Parses the header of a stored payload. Returns `None` if the payload is not sealed and need not be. With
/// `accept_plaintext`, protected values may be in the clear.
pub(crate) fn inspect(plan: &Plan, event: EventRef<'_>, accept_plaintext: bool) -> Result<Option<Closed>> {
    let EventRef { event_id, text: payload, .. } = event;
    let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
    let unsealed = |pointer| Error::Event {
        event_id,
        fault: EventFault::Unsealed { event_type: event.event_type.clone(), pointer },
    };
    if payload.len() > MAX_STORED {
        return Err(Error::Event {
            event_id,
            fault: EventFault::LimitExceeded { what: "the stored payload's size in bytes", limit: MAX_STORED },
        });
    }
    let found = match scan(payload, &plan.to_open) {
        Ok(found) => found,
        Err(ScanError::Duplicate { .. }) => return Err(tampered("a member on a protected path occurs twice")),
        // Bytes that are not JSON are not sealed. If the whole payload is protected, its plaintext may be any bytes.
        Err(_) if plan.whole.is_some() && accept_plaintext => return Ok(None),
        Err(_) if plan.whole.is_some() => return Err(unsealed(JsonPointer::root())),
        // A payload of an unprotected type may be any bytes. An error is left for bytes that look like a damaged seal.
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

/// The protected places that hold a value in the clear or sealed. A `null` does not count: it has nothing to protect,
/// and a `null` in place of a sealed value is found because the header's entry has no value.
fn plaintext_places<'a>(plan: &'a Plan, payload: &'a [u8], found: &'a Scan) -> impl Iterator<Item = JsonPointer> + 'a {
    found.hits.iter().filter_map(|hit| match hit.target {
        Target::Field(index) if hit.span.of(payload) != b"null" => Some(plan.fields[index].place(&hit.bound)),
        _ => None,
    })
}

impl Closed {
    fn read(plan: &Plan, event: EventRef<'_>, found: &Scan, seal: SealMember) -> Result<Self> {
        let EventRef { event_id, text: payload, .. } = event;
        let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
        let header = read_header(event, seal.value.of(payload))?;
        let as_planned = if header.mode == Mode::Fields { in_order(plan, &header, found) } else { None };
        let covers_plan = as_planned.is_some();
        let values = match header.mode {
            Mode::Fields => as_planned.or_else(|| {
                let pointers: Vec<&str> = header.entries.iter().map(|entry| header.pointer(*entry)).collect();
                locate(payload, &pointers)
            }),
            Mode::Whole if found.members == 2 => found.whole.map(|value| vec![value]),
            Mode::Whole => None,
        };
        let values = values.ok_or_else(|| tampered("a sealed value is missing"))?;
        Ok(Self { header: Arc::new(header), cut: seal.cut, values, covers_plan })
    }

    /// The ids of the data keys and of the integrity key.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.header.keys.iter().copied().chain([self.header.integrity_key])
    }

    /// The id of the integrity key.
    pub(crate) fn integrity_key(&self) -> KeyId {
        self.header.integrity_key
    }

    /// The places that have an entry in the header.
    pub(crate) fn covered(&self) -> HashSet<&str> {
        self.header.entries.iter().map(|entry| self.header.pointer(*entry)).collect()
    }

    /// The places that have an entry in the header, each with the id of its key.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, KeyId)> {
        self.header.entries.iter().map(|entry| (self.header.pointer(*entry), self.header.keys[usize::from(entry.key)]))
    }

    /// Authenticates the header, decrypts the values with live keys, and redacts those with shredded keys.
    pub(crate) fn open(&self, event: EventRef<'_>, plan: &Plan, namespace: &Namespace, keys: &Keys) -> Result<Opened> {
        let authentic = self.authenticate(event, namespace, keys)?;
        let EventRef { event_id, text, .. } = event;
        let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        if !self.values.is_sorted() {
            order.sort_unstable_by_key(|entry| self.values[*entry]);
        }
        let mut out = Vec::with_capacity(text.len());
        let mut redacted = Vec::new();
        let mut copied = 0;
        let whole = self.header.mode == Mode::Whole;
        let stand_ins = StandIns::new(plan, event);
        for index in order {
            let entry = self.header.entries[index];
            let pointer = self.header.pointer(entry);
            let span = self.values[index];
            if !whole {
                self.copy_between(text, &mut out, copied, span.start);
            }
            copied = span.end;
            let value = span.of(text);
            let key = usize::from(entry.key);
            let owner = &authentic.owners[key];
            match (&authentic.keys[key], owner.is_shredded, entry.kind) {
                (Some(event_key), _, EntryKind::Sealed) => {
                    let start = out.len();
                    read_token(value, &mut out).ok_or_else(|| tampered("a sealed value is not base64url"))?;
                    #[allow(clippy::cast_possible_truncation, reason = "below MAX_ENTRIES")]
                    let length = event_key
                        .open(index as u16, pointer, &mut out[start..])
                        .ok_or_else(|| tampered("a sealed value is not authentic"))?;
                    out.truncate(start + length);
                    continue;
                }
                (None, true, EntryKind::Sealed) => {
                    if !is_shaped(value) {
                        return Err(tampered("a sealed value is malformed"));
                    }
                }
                (None, true, EntryKind::Void) if value == b"null" => {}
                (None, true, EntryKind::Void) => return Err(tampered("a void place holds a value")),
                _ => return Err(tampered("a void entry names a key that is not shredded")),
            }
            let pointer = JsonPointer::new_unchecked(pointer);
            out.extend_from_slice(stand_ins.at(&pointer).as_bytes());
            redacted.push(Redacted { place: pointer, scope: owner.scope.clone(), key_id: self.header.keys[key] });
        }
        if !whole {
            self.copy_between(text, &mut out, copied, text.len());
        }
        let places = SealedPlaces { header: Arc::clone(&self.header), owners: authentic.owners };
        Ok(Opened { text: out, redacted, places })
    }

    /// Copies the bytes between two values, without the member that holds the header.
    fn copy_between(&self, text: &[u8], out: &mut Vec<u8>, from: usize, to: usize) {
        let mut copy = |from: usize, to: usize| out.extend_from_slice(text.get(from..to).unwrap_or_default());
        if from <= self.cut.start && self.cut.end <= to {
            copy(from, self.cut.start);
            copy(self.cut.end, to);
        } else {
            copy(from, to);
        }
    }

    /// Checks that this header belongs to this event, before anything is decrypted.
    ///
    /// The header is authenticated before the states of its keys are reported. Otherwise a forged header could name a
    /// shredded or disabled key, and the error would speak of that key instead of the forgery.
    fn authenticate(&self, event: EventRef<'_>, namespace: &Namespace, keys: &Keys) -> Result<Authentic> {
        let EventRef { event_id, .. } = event;
        let transcript = Binding::of(namespace, event).transcript(self.header.core());
        let statuses: Vec<Option<&KeyStatus>> = self.header.keys.iter().map(|key_id| keys.get(key_id)).collect();
        let event_keys = self.check_commitments(event_id, &transcript, &statuses)?;
        // Commitments of live keys authenticate the whole header. If a key is not live, the tag must, if the integrity
        // key is at hand.
        let all_live = statuses.iter().all(|status| matches!(status, Some(KeyStatus::Live { .. })));
        if !all_live && !tag_holds(&self.header, &transcript, keys) {
            return Err(Error::Event {
                event_id,
                fault: EventFault::Tampered { problem: "the header's tag is not authentic" },
            });
        }
        Ok(Authentic { keys: event_keys, owners: self.check_states(event_id, &statuses, keys)? })
    }

    /// Checks the header's tag, even if all keys are live and their commitments authenticate the header. Otherwise a
    /// wrong tag would be found only after a shred.
    pub(crate) fn check_tag(&self, event: EventRef<'_>, namespace: &Namespace, keys: &Keys) -> Result<()> {
        let EventRef { event_id, .. } = event;
        let key_id = self.header.integrity_key;
        match keys.get(&key_id) {
            None => return Err(Error::Event { event_id, fault: EventFault::MissingKey { key_id } }),
            Some(KeyStatus::Faulty(error)) => return Err(error.clone()),
            Some(_) => {}
        }
        let transcript = Binding::of(namespace, event).transcript(self.header.core());
        match tag_holds(&self.header, &transcript, keys) {
            true => Ok(()),
            false => Err(Error::Event {
                event_id,
                fault: EventFault::Tampered { problem: "the header's tag is not authentic" },
            }),
        }
    }

    /// The event keys of the live keys under which something is sealed. Each one is checked against its commitment in
    /// this header.
    fn check_commitments(
        &self,
        event_id: Uuid,
        transcript: &Transcript,
        statuses: &[Option<&KeyStatus>],
    ) -> Result<Vec<Option<EventKey>>> {
        let tampered = |problem| Error::Event { event_id, fault: EventFault::Tampered { problem } };
        let mut event_keys: Vec<Option<EventKey>> = (0..self.header.keys.len()).map(|_| None).collect();
        for (index, commitment) in self.header.commitments() {
            if let Some(KeyStatus::Live { scope, key }) = statuses[index] {
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

    /// For each key of the header: the scope that it belongs to, and whether it is live or shredded. Any other state is
    /// an error.
    fn check_states(&self, event_id: Uuid, statuses: &[Option<&KeyStatus>], keys: &Keys) -> Result<Vec<KeyOwner>> {
        let mut owners = Vec::with_capacity(statuses.len());
        for (key_id, status) in self.header.keys.iter().zip(statuses) {
            let (scope, is_shredded) = match status {
                None => return Err(Error::Event { event_id, fault: EventFault::MissingKey { key_id: *key_id } }),
                Some(KeyStatus::Faulty(error)) => return Err(error.clone()),
                Some(KeyStatus::Disabled { scope }) => return Err(Error::Disabled { scope: scope.clone() }),
                Some(KeyStatus::Live { scope, .. }) => (scope, false),
                Some(KeyStatus::Shredded { scope }) => (scope, true),
            };
            owners.push(KeyOwner { scope: scope.clone(), is_shredded });
        }
        if owners.iter().any(|owner| owner.is_shredded) {
            // A header whose tag could not be checked must not lead to a redaction.
            match keys.get(&self.header.integrity_key) {
                None => {
                    return Err(Error::Event {
                        event_id,
                        fault: EventFault::MissingKey { key_id: self.header.integrity_key },
                    });
                }
                Some(KeyStatus::Disabled { scope }) => return Err(Error::Disabled { scope: scope.clone() }),
                Some(KeyStatus::Faulty(error)) => return Err(error.clone()),
                Some(_) => {}
            }
        }
        Ok(owners)
    }
}

/// Can this be a sealed value? It can't be authenticated any more.
fn is_shaped(value: &[u8]) -> bool {
    let mut ciphertext = Vec::new();
    read_token(value, &mut ciphertext).is_some()
        && ciphertext.len() > GCM_TAG
        && (ciphertext.len() - GCM_TAG).is_multiple_of(PAD)
}

/// Is the tag right, as far as this can be told? If the integrity key is not at hand, the answer is yes, and whoever
/// redacts must refuse to.
pub(super) fn tag_holds(header: &Header, transcript: &Transcript, keys: &Keys) -> bool {
    match keys.get(&header.integrity_key) {
        Some(KeyStatus::Live { scope, key }) => {
            *scope == KeyScope::integrity() && key.header_tag_is(transcript, header.tag())
        }
        Some(KeyStatus::Disabled { scope }) => *scope == KeyScope::integrity(),
        Some(KeyStatus::Shredded { .. }) => false,
        Some(KeyStatus::Faulty(_)) | None => true,
    }
}

/// The keys of an authentic header, in the order of the header.
struct Authentic {
    /// The event key, if the key is live and something is sealed under it.
    keys: Vec<Option<EventKey>>,
    /// The scope that the key belongs to, and whether it was shredded.
    owners: Vec<KeyOwner>,
}

/// The values of the entries, if the scan found exactly these places in this order. This is the usual case, and needs
/// no second pass.
fn in_order(plan: &Plan, header: &Header, found: &Scan) -> Option<Vec<Span>> {
    if found.hits.len() != header.entries.len() {
        return None;
    }
    let pairs = found.hits.iter().zip(&header.entries);
    pairs
        .map(|(hit, entry)| {
            let Target::Field(index) = hit.target else { return None };
            let field = &plan.fields[index];
            let same = field.place_text(&hit.bound) == header.pointer(*entry);
            same.then_some(hit.span)
        })
        .collect()
}
