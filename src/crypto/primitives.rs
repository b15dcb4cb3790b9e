//! The primitives of the sealed format, each with its formula. `docs/format.md` is the specification.

use crate::crypto::backend::{Cipher, Hkdf, Hmac, extract_and_expand, sha256};
use crate::crypto::random;
use crate::error::Result;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The length of a header's tag, in bytes.
pub(crate) const TAG: usize = 16;
/// The length of a commitment to a key, in bytes.
pub(crate) const COMMITMENT: usize = 32;

/// The length of the tag that AES-GCM adds to a plaintext, in bytes.
pub(crate) const GCM_TAG: usize = 16;

/// The plaintext of a field is padded to a multiple of this many bytes, or of more if the schema says so.
pub(crate) const PAD: usize = 32;

/// A data key, ready for use. It is wiped when it is dropped, and can't be printed, cloned or serialized.
pub(crate) struct DataKey {
    /// The key is uniformly random, so HKDF's extract step is not needed (RFC 5869, section 3.3).
    hkdf: Hkdf,
    /// Only used if this is an integrity key, which authenticates headers.
    mac: Hmac,
}

impl DataKey {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self { hkdf: Hkdf::new(key)?, mac: Hmac::new(key)? })
    }

    /// `enc_i ‖ commit_i = HKDF-Expand-SHA256(DEK_i, "eventseal/v1/seal" ‖ T ‖ i, 64)`
    pub(crate) fn event_key(&self, transcript: &Transcript, index: u16) -> Result<EventKey> {
        let part = self.key_part(transcript, index)?;
        Ok(EventKey { cipher: Cipher::new(part.enc())?, commitment: *part.commitment() })
    }

    /// `enc_i` and `commit_i` as for an [`event_key`](Self::event_key), where `enc_i` is a part of a [`JointKey`].
    pub(crate) fn key_part(&self, transcript: &Transcript, index: u16) -> Result<KeyPart> {
        const LABEL: &[u8; 17] = b"eventseal/v1/seal";
        // One text for the hash: each further piece of it would cost a call for each of the two blocks.
        let mut info = [0; LABEL.len() + 32 + 2];
        let (label, rest) = info.split_at_mut(LABEL.len());
        label.copy_from_slice(LABEL);
        rest[..32].copy_from_slice(&transcript.0);
        rest[32..].copy_from_slice(&index.to_be_bytes());
        let mut okm = Zeroizing::new([[0; 32]; 2]);
        self.hkdf.expand(&[&info], okm.as_flattened_mut())?;
        Ok(KeyPart { okm })
    }

    /// The key that needs this integrity key and all of these parts:
    /// `enc_int = HKDF-Expand-SHA256(K_int, "eventseal/v1/snapshot" ‖ T, 32)`,
    /// `enc = HKDF-SHA256(salt = T, IKM = enc_int ‖ enc_0 ‖ enc_1 …, info = "eventseal/v1/snapshot", 32)`.
    ///
    /// Joining the parts before they are extracted is how NIST SP 800-56C (revision 2, section 2) makes one key of
    /// several secrets: who lacks any of them knows nothing of it.
    pub(crate) fn joint_key<'p>(
        &self,
        transcript: &Transcript,
        parts: impl Iterator<Item = &'p KeyPart>,
    ) -> Result<JointKey> {
        const LABEL: &[u8] = b"eventseal/v1/snapshot";
        let mut enc_int = Zeroizing::new([0; 32]);
        self.hkdf.expand(&[LABEL, &transcript.0], &mut *enc_int)?;
        let mut secrets = vec![&*enc_int];
        parts.for_each(|part| secrets.push(part.enc()));
        let mut enc = Zeroizing::new([0; 32]);
        extract_and_expand(&transcript.0, &secrets, LABEL, &mut *enc)?;
        Ok(JointKey { cipher: Cipher::new(&enc)? })
    }

    /// `tag = HMAC-SHA256(K_int, "eventseal/v1/header" ‖ T)[..16]`
    pub(crate) fn header_tag(&self, transcript: &Transcript) -> [u8; TAG] {
        let full = self.mac.mac(&[b"eventseal/v1/header", &transcript.0]);
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full[..TAG]);
        tag
    }

    /// `K_log = HKDF-Expand-SHA256(K_int, "eventseal/v1/log", 32)`, if this is an integrity key.
    pub(crate) fn log_key(&self) -> Result<LogKey> {
        let mut key = Zeroizing::new([0; 32]);
        self.hkdf.expand(&[b"eventseal/v1/log"], &mut *key)?;
        Ok(LogKey { mac: Hmac::new(&key)? })
    }

    /// `K_index = HKDF-Expand-SHA256(DEK, "eventseal/v1/index", 32)`, if this is a key of the blind indexes.
    pub(crate) fn index_key(&self) -> Result<IndexKey> {
        let mut key = Zeroizing::new([0; 32]);
        self.hkdf.expand(&[b"eventseal/v1/index"], &mut *key)?;
        Ok(IndexKey { mac: Hmac::new(&key)? })
    }

    pub(crate) fn header_tag_is(&self, transcript: &Transcript, tag: &[u8]) -> bool {
        self.header_tag(transcript).ct_eq(tag).into()
    }
}

/// The key that authenticates the shred log. It is wiped when it is dropped.
#[derive(Clone)]
pub(crate) struct LogKey {
    mac: Hmac,
}

impl LogKey {
    /// `HMAC-SHA256(K_log, label ‖ T)`
    pub(crate) fn mac(&self, label: &[u8], transcript: &Transcript) -> [u8; 32] {
        self.mac.mac(&[label, &transcript.0])
    }

    pub(crate) fn mac_is(&self, label: &[u8], transcript: &Transcript, mac: &[u8; 32]) -> bool {
        self.mac(label, transcript).ct_eq(mac).into()
    }
}

/// The key that makes the hashes of the blind indexes. It is wiped when it is dropped.
pub(crate) struct IndexKey {
    mac: Hmac,
}

impl IndexKey {
    /// The first `bits` of `HMAC-SHA256(K_index, lp(index) ‖ lp(value))`. The bits that are left of the last byte are
    /// zero.
    pub(crate) fn hash(&self, index: &str, value: &str, bits: u16) -> Vec<u8> {
        #[allow(clippy::cast_possible_truncation, reason = "every item is bounded far below 4 GiB")]
        let [of_index, of_value] = [index, value].map(|item| (item.len() as u32).to_be_bytes());
        let mut hash = self.mac.mac(&[&of_index, index.as_bytes(), &of_value, value.as_bytes()]).to_vec();
        hash.truncate(usize::from(bits).div_ceil(8));
        if let Some(last) = hash.last_mut().filter(|_| !bits.is_multiple_of(8)) {
            *last &= 0xff << (8 - bits % 8);
        }
        hash
    }
}

/// The key for the values of one event that belong to one data key. It is used for no other event.
pub(crate) struct EventKey {
    cipher: Cipher,
    commitment: [u8; COMMITMENT],
}

impl EventKey {
    /// The commitment to this key, stored in the header. It makes sure that the ciphertexts open under no other key,
    /// which AES-GCM alone does not.
    pub(crate) fn commitment(&self) -> &[u8; COMMITMENT] {
        &self.commitment
    }

    pub(crate) fn commitment_is(&self, commitment: &[u8]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }

    /// `AES-256-GCM(enc_i, nonce = index as 96 bits, aad = pointer, value ‖ 0x80 ‖ 0x00…)`, into `buffer`.
    ///
    /// No nonce is used twice under one key: the key belongs to one event, and each entry of the event has an index of
    /// its own.
    pub(crate) fn seal(&self, index: u16, pointer: &str, value: &[u8], pad: usize, buffer: &mut Vec<u8>) -> Result<()> {
        seal_padded(&self.cipher, index, pointer, value, pad, buffer)
    }

    /// The inverse of [`seal`](Self::seal), in place. Returns the length of the value, or `None` if the ciphertext is
    /// not authentic.
    pub(crate) fn open(&self, index: u16, pointer: &str, buffer: &mut [u8]) -> Option<usize> {
        open_padded(&self.cipher, index, pointer, buffer)
    }
}

/// What a data key adds to a [`JointKey`], and the commitment to it.
pub(crate) struct KeyPart {
    /// `enc_i ‖ commit_i`
    okm: Zeroizing<[[u8; 32]; 2]>,
}

impl KeyPart {
    fn enc(&self) -> &[u8; 32] {
        &self.okm[0]
    }

    pub(crate) fn commitment(&self) -> &[u8; COMMITMENT] {
        &self.okm[1]
    }

    pub(crate) fn commitment_is(&self, commitment: &[u8]) -> bool {
        self.commitment().ct_eq(commitment).into()
    }
}

/// The key of one document that nobody can read without all of its data keys. It is used once.
pub(crate) struct JointKey {
    cipher: Cipher,
}

impl JointKey {
    /// `AES-256-GCM(enc, nonce = 0, aad = nothing, value ‖ 0x80 ‖ 0x00…)`
    pub(crate) fn seal(&self, value: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        seal_padded(&self.cipher, 0, "", value, PAD, &mut sealed)?;
        Ok(sealed)
    }

    /// The inverse of [`seal`](Self::seal). `None` if the ciphertext is not authentic.
    pub(crate) fn open(&self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut value = ciphertext.to_vec();
        let length = open_padded(&self.cipher, 0, "", &mut value)?;
        value.truncate(length);
        Some(value)
    }
}

fn seal_padded(
    cipher: &Cipher,
    index: u16,
    pointer: &str,
    value: &[u8],
    pad: usize,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let padded = (value.len() + 1).next_multiple_of(pad.max(PAD));
    buffer.clear();
    buffer.reserve_exact(padded + GCM_TAG);
    buffer.extend_from_slice(value);
    buffer.push(0x80);
    buffer.resize(padded, 0);
    let tag = cipher.seal(nonce(index), pointer.as_bytes(), buffer)?;
    buffer.extend_from_slice(&tag);
    Ok(())
}

fn open_padded(cipher: &Cipher, index: u16, pointer: &str, buffer: &mut [u8]) -> Option<usize> {
    let length = buffer.len().checked_sub(GCM_TAG)?;
    if length == 0 || !length.is_multiple_of(PAD) {
        return None;
    }
    let text = cipher.open(nonce(index), pointer.as_bytes(), buffer)?;
    // The padding of ISO/IEC 7816-4: the last byte that is not zero is 0x80, and the value ends before it.
    let end = text.iter().rposition(|byte| *byte != 0)?;
    (text[end] == 0x80).then_some(end)
}

fn nonce(index: u16) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[10..].copy_from_slice(&index.to_be_bytes());
    nonce
}

/// A hash of everything that a seal is bound to: `T = SHA-256(length_1 ‖ item_1 ‖ length_2 ‖ item_2 …)`, with lengths
/// of 4 bytes, big-endian.
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn of(items: &[&[u8]]) -> Self {
        // One buffer, hashed at once: many small updates of the hash cost more than this copy.
        let length = items.iter().map(|item| item.len() + 4).sum();
        let mut text = Vec::with_capacity(length);
        for item in items {
            #[allow(clippy::cast_possible_truncation, reason = "every item is bounded far below 4 GiB")]
            text.extend_from_slice(&(item.len() as u32).to_be_bytes());
            text.extend_from_slice(item);
        }
        Self(sha256(&text))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The salts for the documents of one call. Every call draws new ones from the operating system, retries included: all
/// of them in one draw, because a draw costs as much as sealing a value.
pub(crate) struct Salts {
    left: Vec<[u8; 16]>,
}

impl Salts {
    pub(crate) fn draw(documents: usize) -> Result<Self> {
        let mut left = vec![[0; 16]; documents];
        random::fill(left.as_flattened_mut())?;
        Ok(Self { left })
    }

    /// A salt that was not used before. If there are more documents than the caller said, it is drawn now.
    pub(crate) fn next(&mut self) -> Result<[u8; 16]> {
        match self.left.pop() {
            Some(salt) => Ok(salt),
            None => {
                let mut salt = [0; 16];
                random::fill(&mut salt)?;
                Ok(salt)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> EventKey {
        DataKey::new(&[byte; 32]).unwrap().event_key(&Transcript::of(&[b"t"]), 0).unwrap()
    }

    #[test]
    fn a_value_opens_under_its_own_key_index_and_pointer_only() {
        let mut sealed = Vec::new();
        for length in [0, 1, 30, 31, 32, 33, 1000] {
            let value = vec![0x80; length];
            key(1).seal(3, "/a", &value, PAD, &mut sealed).unwrap();
            assert_eq!(sealed.len(), (length + 1).next_multiple_of(32) + 16);
            let opened = key(1).open(3, "/a", &mut sealed.clone());
            assert_eq!(opened, Some(length));
            assert_eq!(key(2).open(3, "/a", &mut sealed.clone()), None);
            assert_eq!(key(1).open(4, "/a", &mut sealed.clone()), None);
            assert_eq!(key(1).open(3, "/b", &mut sealed.clone()), None);
            assert_eq!(key(1).open(3, "/a", &mut sealed.clone()[1..]), None);
        }
        assert_eq!(key(1).open(0, "", &mut []), None);
    }

    #[test]
    fn transcripts_do_not_confuse_where_items_end() {
        assert_ne!(Transcript::of(&[b"ab", b"c"]).as_bytes(), Transcript::of(&[b"a", b"bc"]).as_bytes());
    }

    #[test]
    fn salts_differ_within_a_call_and_between_calls() {
        let mut distinct = std::collections::HashSet::from([[0; 16]]);
        for documents in [0, 1, 3, 1_000] {
            let mut salts = Salts::draw(documents).unwrap();
            // More than were asked for: none is used twice, and none is what a buffer is filled with.
            for _ in 0..documents + 2 {
                assert!(distinct.insert(salts.next().unwrap()));
            }
        }
    }
}
