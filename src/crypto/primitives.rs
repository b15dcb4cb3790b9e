//! The primitives of the sealed format, each by its formula. `docs/format.md` has the whole of it.

use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::error::{Error, Result};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a header's tag.
pub(crate) const TAG: usize = 16;
/// Bytes of a commitment to a key.
pub(crate) const COMMITMENT: usize = 32;

/// Bytes that GCM adds to a plaintext.
pub(crate) const GCM_TAG: usize = 16;

/// Field plaintexts are padded to a multiple of this many bytes, or more if the schema says so.
pub(crate) const PAD: usize = 32;

/// A data key, ready for use. Wiped when dropped; can't be printed, copied or written anywhere.
pub(crate) struct DataKey {
    /// The key is uniform, so it is HKDF's pseudorandom key as it is (RFC 5869, section 3.3).
    hkdf: Hkdf<Sha256>,
    /// Used of integrity keys only.
    mac: Hmac<Sha256>,
}

impl DataKey {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        // Neither can fail: HMAC takes keys of any length, and 32 bytes are a whole pseudorandom key.
        let hkdf = Hkdf::from_prk(key).map_err(|_| Error::Cryptography)?;
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|_| Error::Cryptography)?;
        Ok(Self { hkdf, mac })
    }

    /// `enc_i ‖ commit_i = HKDF-Expand-SHA256(DEK_i, "eventseal/v1/seal" ‖ T ‖ i, 64)`
    pub(crate) fn event_key(&self, transcript: &Transcript, index: u16) -> Result<EventKey> {
        let mut okm = Zeroizing::new([0; 64]);
        self.hkdf
            .expand_multi_info(&[b"eventseal/v1/seal", &transcript.0, &index.to_be_bytes()], &mut *okm)
            .map_err(|_| Error::Cryptography)?;
        let (enc, commit) = okm.split_at(32);
        let mut commitment = [0; COMMITMENT];
        commitment.copy_from_slice(commit);
        let cipher = Aes256Gcm::new_from_slice(enc).map_err(|_| Error::Cryptography)?;
        Ok(EventKey { cipher, commitment })
    }

    /// `tag = HMAC-SHA256(K_int, "eventseal/v1/header" ‖ T)[..16]`
    pub(crate) fn header_tag(&self, transcript: &Transcript) -> [u8; TAG] {
        let mut mac = self.mac.clone();
        mac.update(b"eventseal/v1/header");
        mac.update(&transcript.0);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&full[..TAG]);
        tag
    }

    pub(crate) fn header_tag_is(&self, transcript: &Transcript, tag: &[u8]) -> bool {
        self.header_tag(transcript).ct_eq(tag).into()
    }
}

/// What one data key seals in one event, and in no other.
pub(crate) struct EventKey {
    cipher: Aes256Gcm,
    commitment: [u8; COMMITMENT],
}

impl EventKey {
    /// Published beside the ciphertexts, so that they open under this one key only.
    pub(crate) fn commitment(&self) -> &[u8; COMMITMENT] {
        &self.commitment
    }

    pub(crate) fn commitment_is(&self, commitment: &[u8]) -> bool {
        self.commitment.ct_eq(commitment).into()
    }

    /// `AES-256-GCM(enc_i, nonce = index as 96 bits, aad = pointer, value ‖ 0x80 ‖ 0x00…)`, into `buffer`.
    ///
    /// A nonce can't repeat: the key belongs to one event, and every entry of it has an index of its own.
    pub(crate) fn seal(&self, index: u16, pointer: &str, value: &[u8], pad: usize, buffer: &mut Vec<u8>) -> Result<()> {
        let padded = (value.len() + 1).next_multiple_of(pad.max(PAD));
        buffer.clear();
        buffer.reserve_exact(padded + GCM_TAG);
        buffer.extend_from_slice(value);
        buffer.push(0x80);
        buffer.resize(padded, 0);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(index), pointer.as_bytes(), buffer.as_mut_slice().into())
            .map_err(|_| Error::Cryptography)?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// The inverse of [`seal`](Self::seal), in place; the value's length, or `None` if it is not authentic.
    pub(crate) fn open(&self, index: u16, pointer: &str, buffer: &mut [u8]) -> Option<usize> {
        let (text, tag) = buffer.split_at_mut(buffer.len().checked_sub(GCM_TAG)?);
        if text.is_empty() || !text.len().is_multiple_of(PAD) {
            return None;
        }
        let tag: &[u8; GCM_TAG] = (&*tag).try_into().ok()?;
        self.cipher.decrypt_inout_detached(&nonce(index), pointer.as_bytes(), (&mut *text).into(), tag.into()).ok()?;
        // ISO/IEC 7816-4: the last byte that is not zero is 0x80.
        let end = text.iter().rposition(|byte| *byte != 0)?;
        (text[end] == 0x80).then_some(end)
    }
}

fn nonce(index: u16) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[10..].copy_from_slice(&index.to_be_bytes());
    nonce.into()
}

/// `T = SHA-256(each item behind its length in 4 bytes)`: everything that a seal is bound to.
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn of(items: &[&[u8]]) -> Self {
        // One update: the hash's own buffering costs more than the copy.
        let length = items.iter().map(|item| item.len() + 4).sum();
        let mut text = Vec::with_capacity(length);
        for item in items {
            #[allow(clippy::cast_possible_truncation, reason = "every item is bounded far below 4 GiB")]
            text.extend_from_slice(&(item.len() as u32).to_be_bytes());
            text.extend_from_slice(item);
        }
        Self(Sha256::digest(&text).into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Salts for the events of one call: fresh for every call, retries included.
///
/// One draw from the operating system. A single salt is the draw itself; more are expanded from it:
/// `salt_n = HKDF-Expand-SHA256(draw, "eventseal/v1/salt" ‖ n, 16)`.
pub(crate) struct Salts {
    draw: SecretKey,
    expand: Option<Hkdf<Sha256>>,
    next: u64,
}

impl Salts {
    pub(crate) fn draw(events: usize) -> Result<Self> {
        let draw = random::key()?;
        let expand =
            if events > 1 { Some(Hkdf::from_prk(draw.expose()).map_err(|_| Error::Cryptography)?) } else { None };
        Ok(Self { draw, expand, next: 0 })
    }

    pub(crate) fn next(&mut self) -> Result<[u8; 16]> {
        let mut salt = [0; 16];
        match &self.expand {
            Some(hkdf) => {
                let info: [&[u8]; 2] = [b"eventseal/v1/salt", &self.next.to_be_bytes()];
                hkdf.expand_multi_info(&info, &mut salt).map_err(|_| Error::Cryptography)?;
            }
            // A second salt from one unexpanded draw would repeat the first.
            None if self.next > 0 => return Err(Error::Random),
            None => salt.copy_from_slice(&self.draw.expose()[..16]),
        }
        self.next += 1;
        Ok(salt)
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
        let mut many = Salts::draw(3).unwrap();
        let mut salts = vec![many.next().unwrap(), many.next().unwrap(), many.next().unwrap()];
        let mut one = Salts::draw(1).unwrap();
        salts.push(one.next().unwrap());
        salts.push(Salts::draw(1).unwrap().next().unwrap());
        let distinct: std::collections::HashSet<_> = salts.iter().collect();
        assert_eq!(distinct.len(), 5);
        assert!(one.next().is_err(), "one unexpanded draw must not be used twice");
    }
}
