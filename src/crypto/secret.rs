//! The bytes of a key in memory.

use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A key of 32 secret bytes. It is wiped when it is dropped, and can't be printed, cloned or serialized.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Makes a key of these bytes. The caller must wipe the buffer from which they were copied.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be passed to a cipher. Do not store, print or log them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(***)")
    }
}
