//! Why the KMS or the keyring did not do what it was asked for.

use crate::error::{ErrorKind, SharedError};
use crate::keys::names::KekId;

/// Why the KMS or the keyring did not do what it was asked for: see [`Error::Kms`](crate::Error::Kms). A
/// [`Kms`](crate::kms::Kms) of your own returns these too.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KmsFault {
    /// The KMS did not answer. Nothing is known about the key: this is an outage, not an erasure.
    #[error("the KMS is unavailable ({}): retry when it answers again", failure.as_str())]
    Unavailable {
        /// Why.
        failure: KmsFailure,
        /// What its client said.
        #[source]
        source: SharedError,
    },
    /// The KMS refused: the master key may not be used, or does not open this key-encryption key. Look at the master
    /// key's policy and state.
    #[error("the KMS refused key-encryption key {kek_id} ({}): {problem}", failure.as_str())]
    Refused {
        /// The key-encryption key.
        kek_id: KekId,
        /// Why.
        failure: KmsFailure,
        /// What to do.
        problem: String,
    },
    /// A keyring can't be read, or one of its entries is invalid. The text never repeats a key.
    #[error("keyring: {problem}")]
    Keyring {
        /// Why, and what to do.
        problem: String,
    },
}

impl KmsFault {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } => ErrorKind::KmsUnavailable,
            Self::Refused { .. } => ErrorKind::KmsRefused,
            Self::Keyring { .. } => ErrorKind::Keyring,
        }
    }

    /// Why, if a KMS was asked.
    pub(crate) fn failure(&self) -> Option<KmsFailure> {
        match self {
            Self::Unavailable { failure, .. } | Self::Refused { failure, .. } => Some(*failure),
            Self::Keyring { .. } => None,
        }
    }
}

/// Why a KMS did not do what it was asked for.
///
/// A failure that is marked as retryable is an outage. Any other failure is a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KmsFailure {
    /// This process may not make the call.
    AccessDenied,
    /// The master key does not exist.
    KeyNotFound,
    /// The master key is disabled.
    KeyDisabled,
    /// The master key is pending deletion, or in another state in which it can't be used.
    KeyPendingDeletion,
    /// The ciphertext was altered, or belongs to another context: another namespace, another key-encryption key.
    WrongContext,
    /// Another master key wrapped the key-encryption key, or the master key is of the wrong kind.
    WrongKey,
    /// The credentials are missing or not accepted.
    Credentials,
    /// The service throttles calls. Retryable.
    Throttled,
    /// The service did not answer in time. Retryable.
    TimedOut,
    /// The service can't be reached, or is down. Retryable.
    Unreachable,
    /// The answer could not be understood. Retryable.
    MalformedAnswer,
    /// Any other refusal.
    Other,
}

impl KmsFailure {
    /// The failure in a few words, for error texts.
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
