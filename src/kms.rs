//! Key management services (KMS), which hold the master key. A KMS wraps and opens key-encryption keys. It never sees
//! data keys or payloads.
//!
//! [`Keyring`](crate::Keyring) holds master keys in a file or an environment variable. `AwsKms` (feature `aws-kms`)
//! uses [AWS KMS](https://docs.aws.amazon.com/kms/). Implement [`Kms`] for any other service.

#[cfg(feature = "aws-kms")]
mod aws;
pub(crate) mod keyring;
pub(crate) mod observed;

pub use crate::crypto::secret::SecretKey;
pub use crate::error::kms::KmsFailure;
#[cfg(feature = "aws-kms")]
pub use aws::AwsKms;

use crate::error::Result;
use crate::keys::names::{KekId, Namespace};
use async_trait::async_trait;
use std::fmt;

/// A key-encryption key, wrapped by a master key. The key table stores it.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKek {
    /// The id of the master key that wrapped it, as the provider names it: the id of a keyring's entry, or the ARN of a
    /// key in AWS.
    pub master_key_id: String,
    /// The wrapped key, in the provider's own format.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for WrappedKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappedKek(by {})", self.master_key_id)
    }
}

/// What a wrapped key-encryption key is bound to: the associated data, which AWS calls the encryption context.
///
/// It consists of opaque ids only, because providers write it to audit logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KekContext {
    /// The namespace of the key database.
    pub namespace: Namespace,
    /// The id of the key-encryption key.
    pub kek_id: KekId,
}

/// A key management service: wraps and opens key-encryption keys with a master key.
///
/// # Contract
/// - `unwrap_kek(wrapped, context)` opens what `generate_kek(context)`, `wrap_kek(…, context)` or `rewrap_kek(…,
///   context)` returned. It always returns the same key, in any process that has the same master key, for as long as
///   the master key exists.
/// - If the context differs, the master key is another one, or the ciphertext was altered, the call is refused with
///   [`KmsFault::Refused`](crate::error::KmsFault::Refused).
/// - If there is no answer, or one that says nothing about the key (throttled, timed out, unreachable), the call fails
///   with [`KmsFault::Unavailable`](crate::error::KmsFault::Unavailable). An outage must never look like a refusal.
/// - Calls may run at the same time.
///
/// `conformance::kms` (feature `conformance`) checks an implementation against this contract.
#[async_trait]
pub trait Kms: Send + Sync {
    /// The provider's name, such as `keyring` or `aws-kms`. It is stored beside each key-encryption key that the
    /// provider wrapped.
    fn provider(&self) -> &str;

    /// The id of the active master key: the one that `generate_kek`, `wrap_kek` and `rewrap_kek` use. It has the form
    /// in which they store it in [`WrappedKek::master_key_id`].
    async fn master_key_id(&self) -> Result<String>;

    /// May new data keys be made under a key-encryption key that is wrapped by this master key?
    ///
    /// It is asked for the active key-encryption key, after [`unwrap_kek`](Self::unwrap_kek) has opened it. Return
    /// `false` for a master key that is configured for opening only. A decorator must pass the call on.
    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        let _ = master_key_id;
        true
    }

    /// Makes a key-encryption key: 32 bytes from a cryptographic random generator. Returns it wrapped by the active
    /// master key.
    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek>;

    /// Opens a wrapped key-encryption key.
    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey>;

    /// Wraps a key-encryption key by the active master key. Used for a key that another provider has opened.
    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek>;

    /// Wraps anew, by the active master key, a key-encryption key that this provider wrapped. If the KMS can, it does
    /// so inside the KMS, so that the key never leaves it.
    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek>;
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<K: Kms + ?Sized> Kms for std::sync::Arc<K> {
    fn provider(&self) -> &str {
        (**self).provider()
    }

    async fn master_key_id(&self) -> Result<String> {
        (**self).master_key_id().await
    }

    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        (**self).makes_keys_under(master_key_id)
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        (**self).generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        (**self).unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        (**self).wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        (**self).rewrap_kek(wrapped, context).await
    }
}
