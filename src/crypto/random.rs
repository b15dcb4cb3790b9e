//! Random bytes from the operating system. With the feature `aws-lc-rs`, AWS-LC's generator adds its own to them.

use crate::crypto::backend;
use crate::crypto::secret::SecretKey;
use crate::error::{Error, KeyFault, Result};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Fills `bytes`, or fails: there is no fallback to a weaker source.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|_| Error::Keys(KeyFault::Random))?;
    backend::add_random(bytes)
}

/// A new 256-bit key.
pub(crate) fn key() -> Result<SecretKey> {
    let mut key = Zeroizing::new([0; 32]);
    fill(&mut *key)?;
    Ok(SecretKey::new(*key))
}

/// A random UUID, version 4 (RFC 9562, 122 random bits).
pub(crate) fn uuid() -> Result<Uuid> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}
