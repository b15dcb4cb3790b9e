//! AES-256-GCM, HKDF, HMAC and SHA-256 of AWS-LC, through the crate `aws-lc-rs`. [`rust_crypto`](super) has the same
//! names, and gives the same bytes.
//!
//! What is wiped, and what is not, as `aws-lc-rs` 1.19.0 and `aws-lc-sys` 0.47.0 have it:
//!
//! - A [`Cipher`] is a `LessSafeKey`, which holds an `LcPtr<EVP_AEAD_CTX>`. Its `ManagedPointer::drop` calls
//!   `EVP_AEAD_CTX_free`, and that calls `OPENSSL_free`, which wipes all that it frees (`OPENSSL_cleanse`). The
//!   schedule of the key is within that memory, and never moves.
//! - [`Hkdf`] is a `Prk`: `Prk::drop` wipes the bytes of its key. `HKDF_expand` and `HKDF` wipe their blocks.
//!   `Salt::extract` wipes its copy of the secrets (`ZeroizeBoxSlice::drop`).
//! - [`Hmac`] is a `hmac::Key`: `LcHmacCtx::drop` calls `HMAC_CTX_cleanup`, which wipes the states.
//! - `SHA256` wipes its state, and `rand_bytes_core` its seeds.
//! - `aead_aes_gcm_seal_scatter_impl` and `aead_aes_gcm_open_gather_impl` do not wipe their `GCM128_CONTEXT`: GHASH's
//!   key and its multiples, of a key for one event, stay on the stack until that memory is used again.
//! - `HMAC_CTX` and the bytes of a `Prk` lie within the values here. Where the compiler moves such a value, it may
//!   leave a copy, as with all keys of the library.
//!
//! The constructors of `Hmac` and the hashes panic where AWS-LC can't make a state. For SHA-256, no state is allocated,
//! so there is nothing that could fail.

use crate::error::{Error, KeyFault, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

/// What tests call this backend.
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "for tests"))]
pub(crate) const NAME: &str = "AWS-LC";

const TAG: usize = 16;

/// A key of AES-256-GCM.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(refused)?)))
    }

    /// Encrypts in place, and returns the tag. A nonce must not be used twice.
    pub(crate) fn seal(&self, nonce: [u8; 12], associated_data: &[u8], text: &mut [u8]) -> Result<[u8; TAG]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated_data), text).map_err(refused)?;
        tag.as_ref().try_into().map_err(|_| Error::Keys(KeyFault::Cryptography))
    }

    /// Decrypts a ciphertext with its tag behind it, in place. Returns the plaintext, or `None` if it is not authentic:
    /// nothing may be read from the buffer then.
    ///
    /// `open_in_place` is what AWS-LC's service indicator calls approved. `open_in_place_separate_tag` is not.
    pub(crate) fn open<'t>(
        &self,
        nonce: [u8; 12],
        associated_data: &[u8],
        sealed: &'t mut [u8],
    ) -> Option<&'t mut [u8]> {
        self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated_data), sealed).ok()
    }
}

/// HKDF-SHA256 under a key that is uniformly random.
pub(crate) struct Hkdf(Prk);

impl Hkdf {
    #[allow(clippy::unnecessary_wraps, reason = "that of the other backend can fail")]
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self(Prk::new_less_safe(HKDF_SHA256, key)))
    }

    /// HKDF-Expand. The info is in pieces.
    pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<()> {
        expand(&self.0, info, out)
    }
}

/// HKDF-SHA256, with HKDF-Extract over these secrets, one behind the other.
pub(crate) fn extract_and_expand(salt: &[u8; 32], secrets: &[&[u8; 32]], info: &[u8], out: &mut [u8]) -> Result<()> {
    let mut secret = Zeroizing::new(Vec::with_capacity(secrets.len() * 32));
    secrets.iter().for_each(|part| secret.extend_from_slice(*part));
    expand(&Salt::new(HKDF_SHA256, salt).extract(&secret), &[info], out)
}

fn expand(key: &Prk, info: &[&[u8]], out: &mut [u8]) -> Result<()> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    key.expand(info, Length(out.len())).and_then(|expanded| expanded.fill(out)).map_err(refused)
}

/// A key of HMAC-SHA256.
#[derive(Clone)]
pub(crate) struct Hmac(Key);

impl Hmac {
    #[allow(clippy::unnecessary_wraps, reason = "that of the other backend can fail")]
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self(Key::new(HMAC_SHA256, key)))
    }

    /// The MAC of these pieces, one behind the other.
    pub(crate) fn mac(&self, pieces: &[&[u8]]) -> [u8; 32] {
        let mut mac = Context::with_key(&self.0);
        pieces.iter().for_each(|piece| mac.update(piece));
        first_32(mac.sign().as_ref())
    }
}

pub(crate) fn sha256(text: &[u8]) -> [u8; 32] {
    first_32(digest::digest(&digest::SHA256, text).as_ref())
}

/// The output of SHA-256 and HMAC-SHA256, which has 32 bytes.
fn first_32(output: &[u8]) -> [u8; 32] {
    let mut first = [0; 32];
    first.copy_from_slice(&output[..32]);
    first
}

/// Adds randomness of this backend to bytes that are random already: `U ⊕ V`, where `U` is the output of AWS-LC's
/// generator (CTR_DRBG), and `V` is independent of it (NIST SP 800-133, revision 2, section 4).
///
/// AWS-LC's generator has a state that outlives a call. Where nothing tells it that the machine was copied, both copies
/// would draw the same bytes. Those of the operating system differ.
pub(crate) fn add_random(bytes: &mut [u8]) -> Result<()> {
    add(bytes, |drawn| rand::fill(drawn).map_err(|_| Error::Keys(KeyFault::Random)))
}

pub(super) fn add(bytes: &mut [u8], draw: impl Fn(&mut [u8]) -> Result<()>) -> Result<()> {
    let mut drawn = Zeroizing::new([0; 64]);
    for piece in bytes.chunks_mut(drawn.len()) {
        let drawn = &mut drawn[..piece.len()];
        draw(drawn)?;
        piece.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte ^= *drawn);
    }
    Ok(())
}

/// No input that the library makes is refused.
fn refused(_: Unspecified) -> Error {
    Error::Keys(KeyFault::Cryptography)
}
