//! Seals and opens the state of an aggregate: a header as payloads have it, of part 2, and one ciphertext behind it.
//!
//! The ciphertext needs the keys of all owners whose data is in the state: without one of them, nothing of it can be
//! read. A state is a cache. So one that does not open is no error here: it is [`Discarded`].

use crate::crypto::primitives::{COMMITMENT, GCM_TAG, KeyPart, PAD, TAG, Transcript};
use crate::error::{Error, Result};
use crate::event::{AggregateRef, AggregateVersion};
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::seal::format::{Document, EntryKind, Header, HeaderError, MAX_KEYS, MAX_PAYLOAD, Mode, write_core};
use crate::seal::opening::{KeyStatus, Keys};
use crate::seal::sealing::SealingKey;
use crate::snapshots::outcome::Discarded;
use uuid::Uuid;

/// How many bytes a header has before its list of keys.
const BEFORE_KEYS: usize = 38;
const KEY_ID: usize = 16;
/// How many bytes an entry has, whose pointer is empty.
const ENTRY: usize = 5;
/// The length of a header with the most keys.
const MAX_HEADER: usize = BEFORE_KEYS + 2 + TAG + MAX_KEYS * (KEY_ID + ENTRY + COMMITMENT);
/// How many bytes a state may have.
const MAX_STATE: usize = MAX_PAYLOAD;
/// How many bytes a sealed state may have.
const MAX_SEALED: usize = MAX_HEADER + (MAX_STATE + 1).next_multiple_of(PAD) + GCM_TAG;

/// Everything that a snapshot is bound to besides its header.
pub(crate) struct SnapshotBinding<'a> {
    pub(crate) aggregate: &'a AggregateRef,
    /// The version up to which events were folded.
    pub(crate) version: AggregateVersion,
    /// The event of that version.
    pub(crate) last_event: Uuid,
    /// The name of the state.
    pub(crate) state: &'a str,
    /// Stands for the code that folded the events.
    pub(crate) fingerprint: &'a [u8; 32],
}

impl SnapshotBinding<'_> {
    pub(crate) fn transcript(&self, namespace: &Namespace, core: &[u8]) -> Transcript {
        Transcript::of(&[
            b"eventseal/v1/snapshot",
            namespace.as_str().as_bytes(),
            self.aggregate.aggregate_type().as_bytes(),
            self.aggregate.aggregate_id().as_bytes(),
            self.version.get().to_string().as_bytes(),
            self.last_event.as_bytes(),
            self.state.as_bytes(),
            self.fingerprint,
            core,
        ])
    }
}

/// May a state of this length be sealed under this many keys?
pub(crate) fn fits(state: &[u8], keys: usize) -> bool {
    state.len() <= MAX_STATE && keys <= MAX_KEYS
}

/// Seals a state that [`fits`] under the keys of all owners whose data is in it. `destroyed` are the keys of those
/// whose data is redacted in it. No key is in the lists twice.
pub(crate) fn seal(
    state: &[u8],
    namespace: &Namespace,
    binding: &SnapshotBinding<'_>,
    keys: &[SealingKey<'_>],
    destroyed: &[KeyId],
    integrity: &SealingKey<'_>,
    salt: &[u8; 16],
) -> Result<Vec<u8>> {
    let kinds = keys.iter().map(|_| EntryKind::Sealed).chain(destroyed.iter().map(|_| EntryKind::Void));
    let entries: Vec<_> = (0..).zip(kinds).map(|(key, kind)| (key, kind, "")).collect();
    let key_ids: Vec<KeyId> = keys.iter().map(|key| key.id).chain(destroyed.iter().copied()).collect();
    let mut sealed = write_core(Document::Snapshot, Mode::Whole, salt, integrity.id, &key_ids, entries.into_iter());
    let transcript = binding.transcript(namespace, &sealed);
    let parts: Vec<KeyPart> =
        (0..).zip(keys).map(|(index, key)| key.key.key_part(&transcript, index)).collect::<Result<_>>()?;
    sealed.extend_from_slice(&integrity.key.header_tag(&transcript));
    parts.iter().for_each(|part| sealed.extend_from_slice(part.commitment()));
    sealed.extend_from_slice(&integrity.key.joint_key(&transcript, parts.iter())?.seal(state)?);
    Ok(sealed)
}

/// A sealed state whose header was parsed. Nothing of it is authentic yet.
pub(crate) struct ClosedSnapshot<'s> {
    header: Header,
    ciphertext: &'s [u8],
}

impl<'s> ClosedSnapshot<'s> {
    /// Parses the header, and looks at the length of what follows it.
    pub(crate) fn read(sealed: &'s [u8]) -> Result<Self, Discarded> {
        if sealed.len() > MAX_SEALED {
            return Err(Discarded::Altered { problem: "it is longer than any snapshot" });
        }
        let (header, ciphertext) = sealed.split_at(header_length(sealed).unwrap_or(sealed.len()).min(sealed.len()));
        let header = Header::parse(header.to_vec(), Document::Snapshot).map_err(|error| match error {
            HeaderError::Unsupported { what, value } => Discarded::Unsupported { what, value },
            HeaderError::Malformed => Discarded::Altered { problem: "the header is malformed" },
        })?;
        if ciphertext.len() <= GCM_TAG || !(ciphertext.len() - GCM_TAG).is_multiple_of(PAD) {
            return Err(Discarded::Altered { problem: "the ciphertext is malformed" });
        }
        Ok(Self { header, ciphertext })
    }

    /// The ids of all keys that it names.
    pub(crate) fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.header.keys.iter().copied().chain([self.header.integrity_key])
    }

    /// The ids of the keys that must be live, and of those that must be destroyed.
    pub(crate) fn needed(&self) -> impl Iterator<Item = (KeyId, EntryKind)> {
        self.header.keys.iter().copied().zip(self.header.entries.iter().map(|entry| entry.kind))
    }

    /// Authenticates the header, checks that every key is in the state in which it was when the state was sealed, and
    /// decrypts.
    ///
    /// # Errors
    /// Outages only: nothing is known of the snapshot then.
    pub(crate) fn open(
        &self,
        namespace: &Namespace,
        binding: &SnapshotBinding<'_>,
        keys: &Keys,
    ) -> Result<Result<Vec<u8>, Discarded>> {
        let altered = |problem| Ok(Err(Discarded::Altered { problem }));
        let transcript = binding.transcript(namespace, self.header.core());
        let integrity = match keys.get(&self.header.integrity_key) {
            Some(KeyStatus::Live { scope, key }) if *scope == KeyScope::integrity() => key,
            Some(KeyStatus::Live { .. }) => return altered("the header's tag is not authentic"),
            status => return unusable(self.header.integrity_key, status),
        };
        if !integrity.header_tag_is(&transcript, self.header.tag()) {
            return altered("the header's tag is not authentic");
        }
        let mut parts = Vec::with_capacity(self.header.keys.len());
        for (index, (key_id, kind)) in (0..).zip(self.needed()) {
            match (kind, keys.get(&key_id)) {
                (EntryKind::Sealed, Some(KeyStatus::Live { scope, .. })) if scope.is_reserved() => {
                    return altered("the header names an integrity key as a data key");
                }
                (EntryKind::Sealed, Some(KeyStatus::Live { key, .. })) => parts.push(key.key_part(&transcript, index)?),
                (EntryKind::Void, Some(KeyStatus::Shredded { .. })) => {}
                (_, status) => return unusable(key_id, status),
            }
        }
        let mut commitments = parts.iter().zip(self.header.commitments());
        if !commitments.all(|(part, (_, commitment))| part.commitment_is(commitment)) {
            return altered("the header is not authentic");
        }
        match integrity.joint_key(&transcript, parts.iter())?.open(self.ciphertext) {
            Some(state) => Ok(Ok(state)),
            None => altered("the ciphertext is not authentic"),
        }
    }
}

/// A key is not in the state in which it must be.
fn unusable<T>(key_id: KeyId, status: Option<&KeyStatus>) -> Result<Result<T, Discarded>> {
    match status {
        Some(KeyStatus::Faulty(error)) if error.is_outage() || error.is_retryable() => Err(Error::clone(error)),
        _ => Ok(Err(Discarded::KeyChanged { key_id })),
    }
}

/// The length of the header, as far as it can be told from its beginning. Parsing it checks everything else.
fn header_length(sealed: &[u8]) -> Option<usize> {
    let count = sealed.get(BEFORE_KEYS - 2..BEFORE_KEYS)?;
    let keys = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let entries = BEFORE_KEYS + keys * KEY_ID + 2;
    let end = entries + keys * ENTRY;
    let kinds = sealed.get(entries..end)?.chunks_exact(ENTRY).map(|entry| entry[2]);
    let sealing = kinds.filter(|kind| *kind == EntryKind::Sealed as u8).count();
    Some(end + TAG + sealing * COMMITMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_those_of_the_format() {
        assert_eq!((MAX_HEADER, MAX_STATE, MAX_SEALED), (54_328, 67_108_864, 67_163_240));
    }
}
