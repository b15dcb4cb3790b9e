//! AES-256-GCM, HKDF, HMAC and SHA-256 of the crates of RustCrypto. [`aws_lc`](super) has the same names, and gives the
//! same bytes.
//!
//! Keys are wiped when they are dropped, by the `zeroize` features of these crates. `hkdf` does not wipe the blocks of
//! an expansion.

use crate::error::{Error, KeyFault, Result};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::{AesGcm, Nonce};
use hkdf::HkdfExtract;
use hmac::Mac as _;
use sha2::{Digest, Sha256};

/// What tests call this backend.
#[cfg_attr(not(feature = "internals"), allow(dead_code, reason = "for tests"))]
pub(crate) const NAME: &str = "RustCrypto";

const TAG: usize = 16;

/// A key of AES-256-GCM. GCM never runs AES backwards, so only the keys for encryption are made ready.
pub(crate) struct Cipher(AesGcm<Aes256Enc, U12>);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        Ok(Self(KeyInit::new(key.into())))
    }

    /// Encrypts in place, and returns the tag. A nonce must not be used twice.
    pub(crate) fn seal(&self, nonce: [u8; 12], associated_data: &[u8], text: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = self.0.encrypt_inout_detached(&Nonce::from(nonce), associated_data, text.into());
        tag.map(Into::into).map_err(|_| refused())
    }

    /// Decrypts a ciphertext with its tag behind it, in place. Returns the plaintext, or `None` if it is not authentic:
    /// nothing may be read from the buffer then.
    pub(crate) fn open<'t>(
        &self,
        nonce: [u8; 12],
        associated_data: &[u8],
        sealed: &'t mut [u8],
    ) -> Option<&'t mut [u8]> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>()?;
        let opened =
            self.0.decrypt_inout_detached(&Nonce::from(nonce), associated_data, (&mut *text).into(), (&*tag).into());
        opened.ok().map(|()| text)
    }
}

/// HKDF-SHA256 under a key that is uniformly random.
pub(crate) struct Hkdf(hkdf::Hkdf<Sha256>);

impl Hkdf {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        hkdf::Hkdf::from_prk(key).map(Self).map_err(|_| refused())
    }

    /// HKDF-Expand. The info is in pieces: each of them costs a call for each block of the hash.
    pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) -> Result<()> {
        self.0.expand_multi_info(info, out).map_err(|_| refused())
    }
}

/// HKDF-SHA256, with HKDF-Extract over these secrets, one behind the other.
pub(crate) fn extract_and_expand(salt: &[u8; 32], secrets: &[&[u8; 32]], info: &[u8], out: &mut [u8]) -> Result<()> {
    let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
    secrets.iter().for_each(|secret| extract.input_ikm(*secret));
    let (_, hkdf) = extract.finalize();
    hkdf.expand(info, out).map_err(|_| refused())
}

/// A key of HMAC-SHA256.
#[derive(Clone)]
pub(crate) struct Hmac(hmac::Hmac<Sha256>);

impl Hmac {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        <hmac::Hmac<Sha256> as KeyInit>::new_from_slice(key).map(Self).map_err(|_| refused())
    }

    /// The MAC of these pieces, one behind the other.
    pub(crate) fn mac(&self, pieces: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        pieces.iter().for_each(|piece| mac.update(piece));
        mac.finalize().into_bytes().into()
    }
}

pub(crate) fn sha256(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Adds randomness of this backend to bytes that are random already. RustCrypto has no generator of its own here: what
/// the operating system gave is used as it is.
#[allow(clippy::unnecessary_wraps, reason = "that of the other backend can fail")]
pub(crate) fn add_random(_bytes: &mut [u8]) -> Result<()> {
    Ok(())
}

/// No input that the library makes is refused.
fn refused() -> Error {
    Error::Keys(KeyFault::Cryptography)
}
