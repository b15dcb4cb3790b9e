//! The port to a key management service: it keeps the master key, and sees key-encryption keys only.

#[cfg(feature = "aws-kms")]
mod aws;
pub(crate) mod keyring;

pub use crate::crypto::secret::SecretKey;
#[cfg(feature = "aws-kms")]
pub use aws::AwsKms;

use crate::error::Result;
use crate::keys::names::{KekId, Namespace};
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

/// Why a KMS did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KmsFailure {
    /// This process may not make the call.
    AccessDenied,
    /// There is no such master key.
    KeyNotFound,
    /// The master key is disabled.
    KeyDisabled,
    /// The master key is about to be deleted, or not usable for another reason of its state.
    KeyPendingDeletion,
    /// The ciphertext was altered, or belongs to another context: another namespace, another key-encryption key.
    WrongContext,
    /// Another master key wrapped it, or the master key is of the wrong kind.
    WrongKey,
    /// The credentials are missing or not accepted.
    Credentials,
    /// Too many calls. Retryable.
    Throttled,
    /// No answer in time. Retryable.
    TimedOut,
    /// No connection, or the service is down. Retryable.
    Unreachable,
    /// An answer that makes no sense. Retryable.
    MalformedAnswer,
    /// Something else.
    Other,
}

impl KmsFailure {
    /// In a few words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessDenied => "access denied",
            Self::KeyNotFound => "master key not found",
            Self::KeyDisabled => "master key disabled",
            Self::KeyPendingDeletion => "master key pending deletion",
            Self::WrongContext => "wrong context or ciphertext",
            Self::WrongKey => "wrong master key",
            Self::Credentials => "credentials not accepted",
            Self::Throttled => "throttled",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::MalformedAnswer => "malformed answer",
            Self::Other => "refused",
        }
    }
}

/// A key management service.
///
/// # Contract
/// - `unwrap_kek(wrapped, context)` opens what `generate_kek(context)`, `wrap_kek(…, context)` or `rewrap_kek(…,
///   context)` returned, always to the same key, from any process that has the same master key, for as long as that
///   key exists.
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

    /// The id of the active master key, as [`WrappedKek::master_key_id`] has it for what it wraps.
    async fn master_key_id(&self) -> Result<String>;

    /// May new data keys be made under a key-encryption key that this master key holds? Asked of the active one, after
    /// [`unwrap_kek`](Self::unwrap_kek) has opened it. `false` for a master key that is configured for opening only. A
    /// decorator passes it on.
    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        let _ = master_key_id;
        true
    }

    /// Makes a key-encryption key, 32 bytes from a cryptographic generator, and hands it out wrapped by the active
    /// master key.
    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek>;

    /// Opens a wrapped key-encryption key.
    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey>;

    /// Wraps a key-encryption key that another provider has opened, by the active master key.
    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek>;

    /// Moves a key-encryption key that this provider wrapped to the active master key; inside the KMS, if it can.
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
