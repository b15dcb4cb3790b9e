//! The port to a key management service: it keeps the master key, and sees key-encryption keys only.

mod keyring;
pub use keyring::Keyring;

use crate::error::Result;
use crate::key::{KekId, Namespace};
use crate::secret::SecretKey;
use async_trait::async_trait;
use std::fmt;

/// A key-encryption key as the master key wrapped it: what the key table keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKek {
    /// Which master key wrapped it, in the provider's words: a keyring id, a key's ARN.
    pub master_key_id: String,
    /// The provider's ciphertext.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for WrappedKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKek(by {})", self.master_key_id)
    }
}

/// What a wrapped key-encryption key is bound to. Opaque ids only: providers write it to audit logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekContext {
    /// The key database.
    pub namespace: Namespace,
    /// The key-encryption key.
    pub kek_id: KekId,
}

/// A key management service.
///
/// # Contract
/// - `unwrap_kek(wrap.1, context) == wrap.0` for what `generate_kek(context)` returned, from any process
///   that has the same master key, for as long as that key exists.
/// - Another context, another master key or an altered ciphertext is refused with
///   [`Error::KmsRefused`](crate::Error::KmsRefused).
/// - No answer, or one that says nothing about the key (throttled, timed out, unreachable), is
///   [`Error::KmsUnavailable`](crate::Error::KmsUnavailable): an outage is never a refusal.
/// - Calls may run at the same time.
///
/// `conformance::kms` (feature `conformance`) checks an implementation against this.
#[async_trait]
pub trait Kms: Send + Sync {
    /// The provider's name, kept beside each key it wrapped: `keyring`, `aws-kms`.
    fn provider(&self) -> &str;

    /// Makes a key-encryption key: 32 bytes from a cryptographic generator, and the same bytes wrapped
    /// by the active master key.
    async fn generate_kek(&self, context: &KekContext) -> Result<(SecretKey, WrappedKek)>;

    /// Opens a wrapped key-encryption key.
    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey>;
}

#[async_trait]
impl<K: Kms + ?Sized> Kms for std::sync::Arc<K> {
    fn provider(&self) -> &str {
        (**self).provider()
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<(SecretKey, WrappedKek)> {
        (**self).generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        (**self).unwrap_kek(wrapped, context).await
    }
}
