//! Key wrapping: encrypts a 32-byte key under another key, with associated data that says what the key is for.
//!
//! ```text
//! A       = SHA-256(length ‖ item for each item of the associated data, then for the salt)
//! key     = HKDF-Expand-SHA256(wrapping key, "eventseal/v1/wrap" ‖ A, 32)
//! wrapped = 1 ‖ salt (16) ‖ AES-256-GCM(key, nonce = 0, aad = A, key to wrap)
//! ```
//!
//! Every wrap draws a new salt, so every derived key is new. So the nonce can be constant, and the number of keys under
//! one wrapping key is not limited by random nonces (NIST SP 800-38D, section 8.3).

use crate::crypto::backend::{Cipher, Hkdf};
use crate::crypto::primitives::Transcript;
use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::error::Result;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const SALT: usize = 16;
const SEALED: usize = 32 + 16;
const WRAPPED: usize = 1 + SALT + SEALED;
/// Each derived key is used once.
const NONCE: [u8; 12] = [0; 12];

/// Wraps `key` under `wrapping`. Every call gives another result.
pub(crate) fn wrap_key(wrapping: &SecretKey, associated_data: &[&[u8]], key: &SecretKey) -> Result<Vec<u8>> {
    let mut salt = [0; SALT];
    random::fill(&mut salt)?;
    wrap_with_salt(wrapping, associated_data, &salt, key)
}

/// As [`wrap_key`], with a salt that the caller chooses. The salt must be new. Only [`wrap_key`] and the frozen test
/// vectors call this.
pub(crate) fn wrap_with_salt(
    wrapping: &SecretKey,
    associated_data: &[&[u8]],
    salt: &[u8; SALT],
    key: &SecretKey,
) -> Result<Vec<u8>> {
    let (cipher, bound) = cipher(wrapping, associated_data, salt)?;
    let mut wrapped = Vec::with_capacity(WRAPPED);
    wrapped.push(VERSION);
    wrapped.extend_from_slice(salt);
    wrapped.extend_from_slice(key.expose());
    let tag = cipher.seal(NONCE, bound.as_bytes(), &mut wrapped[1 + SALT..])?;
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

/// The inverse of [`wrap_key`]. Returns `None` if `wrapped` was not made under this wrapping key and for this
/// associated data.
pub(crate) fn unwrap_key(wrapping: &SecretKey, associated_data: &[&[u8]], wrapped: &[u8]) -> Option<SecretKey> {
    let wrapped: &[u8; WRAPPED] = wrapped.try_into().ok()?;
    let [VERSION, rest @ ..] = wrapped else { return None };
    let (salt, rest) = rest.split_first_chunk::<SALT>()?;
    let sealed: &[u8; SEALED] = rest.try_into().ok()?;
    let (cipher, bound) = cipher(wrapping, associated_data, salt).ok()?;
    let mut opened = Zeroizing::new(*sealed);
    let key: &[u8; 32] = (&*cipher.open(NONCE, bound.as_bytes(), &mut *opened)?).try_into().ok()?;
    Some(SecretKey::new(*key))
}

fn cipher(wrapping: &SecretKey, associated_data: &[&[u8]], salt: &[u8; SALT]) -> Result<(Cipher, Transcript)> {
    let mut items = associated_data.to_vec();
    items.push(salt);
    let bound = Transcript::of(&items);
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::new(wrapping.expose())?.expand(&[b"eventseal/v1/wrap", bound.as_bytes()], &mut *key)?;
    Ok((Cipher::new(&key)?, bound))
}

/// What a wrapped data key is bound to. So the wrapped keys of two rows of the key table can't be exchanged.
pub(crate) struct BoundKey<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) key_id: KeyId,
    pub(crate) scope: &'a KeyScope,
    pub(crate) version: u32,
    pub(crate) kek_id: KekId,
}

impl BoundKey<'_> {
    /// Calls `use_it` with these fields as associated data.
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&[&[u8]]) -> T) -> T {
        use_it(&[
            b"eventseal/v1/dek",
            self.namespace.as_str().as_bytes(),
            self.key_id.0.as_bytes(),
            self.scope.kind().as_bytes(),
            self.scope.id().as_bytes(),
            &self.version.to_be_bytes(),
            self.kek_id.0.as_bytes(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::new([byte; 32])
    }

    #[test]
    fn a_key_opens_under_its_own_wrapping_key_and_binding_only() {
        let wrapped = wrap_key(&key(1), &[b"a", b"b"], &key(2)).unwrap();
        assert_eq!(unwrap_key(&key(1), &[b"a", b"b"], &wrapped).unwrap().expose(), &[2; 32]);
        assert!(unwrap_key(&key(3), &[b"a", b"b"], &wrapped).is_none());
        assert!(unwrap_key(&key(1), &[b"ab", b""], &wrapped).is_none());
        for bit in 0..wrapped.len() * 8 {
            let mut altered = wrapped.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(unwrap_key(&key(1), &[b"a", b"b"], &altered).is_none(), "bit {bit}");
        }
        assert!(unwrap_key(&key(1), &[b"a", b"b"], &wrapped[1..]).is_none());
        assert_ne!(wrapped, wrap_key(&key(1), &[b"a", b"b"], &key(2)).unwrap());
    }
}
