//! AWS KMS as the keeper of the master key.
//!
//! Knows nothing of data keys, scopes or events: it makes, opens and moves key-encryption keys.

use crate::error::{BoxError, Error, Result};
use crate::key::KekId;
use crate::kms::{KekContext, Kms, KmsFailure, WrappedKek};
use crate::secret::SecretKey;
use async_trait::async_trait;
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use std::collections::HashMap;
use std::fmt;
use zeroize::Zeroizing;

/// A symmetric key in AWS KMS that wraps key-encryption keys.
///
/// ```no_run
/// # use eventseal::*;
/// # async fn kms(config: &aws_sdk_kms::Config) -> Result<()> {
/// // `Client::new(&aws_config::load_from_env().await)` in a service; retries and time-outs are the client's.
/// let client = aws_sdk_kms::Client::from_conf(config.clone());
/// let kms = AwsKms::new(client, "alias/eventseal");
/// # Ok(())
/// # }
/// ```
///
/// The key may be named by id, ARN or alias. What is stored beside each key-encryption key, and named when it is opened,
/// is the ARN of the key that wrapped it: an alias that is pointed elsewhere changes what wraps new keys, and nothing else.
///
/// Every call carries an encryption context of two opaque ids, `eventseal-namespace` and `eventseal-kek`. It is in the
/// audit trail in the clear, so a namespace must not name a person.
///
/// | call | when | needs |
/// |---|---|---|
/// | `GenerateDataKeyWithoutPlaintext` | a key-encryption key is made | `kms:GenerateDataKeyWithoutPlaintext` |
/// | `Decrypt` | one is opened: once for each key, process and cache period | `kms:Decrypt` |
/// | `ReEncrypt` | one is moved to another master key | `kms:ReEncryptFrom`, `kms:ReEncryptTo` |
/// | `DescribeKey` | one is moved, and the key is named by id or alias | `kms:DescribeKey` |
/// | `Encrypt` | one is moved here from another provider | `kms:Encrypt` |
pub struct AwsKms {
    client: Client,
    key: String,
}

impl AwsKms {
    /// Wraps new key-encryption keys under this key: an id, an ARN, `alias/…` or an alias's ARN.
    #[must_use]
    pub fn new(client: Client, key: impl Into<String>) -> Self {
        Self { client, key: key.into() }
    }
}

/// Names the key, not the client's credentials.
impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("key", &self.key).finish_non_exhaustive()
    }
}

#[async_trait]
impl Kms for AwsKms {
    fn provider(&self) -> &str {
        "aws-kms"
    }

    async fn master_key_id(&self) -> Result<String> {
        if self.key.starts_with("arn:") && self.key.contains(":key/") {
            return Ok(self.key.clone());
        }
        let described = self.client.describe_key().key_id(&self.key).send().await;
        let described = described.map_err(|error| failure(KekId(uuid::Uuid::nil()), &self.key, error))?;
        described.key_metadata.and_then(|key| key.arn).ok_or_else(|| malformed("DescribeKey did not return an ARN"))
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        let made = self
            .client
            .generate_data_key_without_plaintext()
            .key_id(&self.key)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(bound_to(context)))
            .send()
            .await
            .map_err(|error| failure(context.kek_id, &self.key, error))?;
        wrapped(made.key_id, made.ciphertext_blob)
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let opened = self
            .client
            .decrypt()
            .key_id(&wrapped.master_key_id)
            .ciphertext_blob(Blob::new(wrapped.ciphertext.clone()))
            .set_encryption_context(Some(bound_to(context)))
            .send()
            .await
            .map_err(|error| failure(context.kek_id, &wrapped.master_key_id, error))?;
        // The client's own buffers are ordinary memory; this copy is wiped.
        let plaintext = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
        let key = Zeroizing::new(<[u8; 32]>::try_from(plaintext.as_slice()).map_err(|_| malformed("Decrypt did not return 32 bytes"))?);
        Ok(SecretKey::new(*key))
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        let made = self
            .client
            .encrypt()
            .key_id(&self.key)
            .plaintext(Blob::new(kek.expose().as_slice()))
            .set_encryption_context(Some(bound_to(context)))
            .send()
            .await
            .map_err(|error| failure(context.kek_id, &self.key, error))?;
        wrapped(made.key_id, made.ciphertext_blob)
    }

    async fn rewrap_kek(&self, old: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        let moved = self
            .client
            .re_encrypt()
            .source_key_id(&old.master_key_id)
            .ciphertext_blob(Blob::new(old.ciphertext.clone()))
            .set_source_encryption_context(Some(bound_to(context)))
            .destination_key_id(&self.key)
            .set_destination_encryption_context(Some(bound_to(context)))
            .send()
            .await
            .map_err(|error| failure(context.kek_id, &format!("{} or {}", old.master_key_id, self.key), error))?;
        wrapped(moved.key_id, moved.ciphertext_blob)
    }
}

/// Opaque ids only.
fn bound_to(context: &KekContext) -> HashMap<String, String> {
    HashMap::from([
        ("eventseal-namespace".to_owned(), context.namespace.as_str().to_owned()),
        ("eventseal-kek".to_owned(), context.kek_id.to_string()),
    ])
}

fn wrapped(arn: Option<String>, ciphertext: Option<Blob>) -> Result<WrappedKek> {
    match (arn, ciphertext) {
        (Some(master_key_id), Some(ciphertext)) => Ok(WrappedKek { master_key_id, ciphertext: ciphertext.into_inner() }),
        _ => Err(malformed("an answer without key or ciphertext")),
    }
}

fn malformed(what: &'static str) -> Error {
    Error::KmsUnavailable { failure: KmsFailure::MalformedAnswer, source: what.into() }
}

/// What an error of the client means, by AWS's documentation of the operations and of the common errors.
fn failure<E>(kek_id: KekId, key: &str, error: SdkError<E>) -> Error
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let unavailable = |failure, source: BoxError| Error::KmsUnavailable { failure, source };
    match &error {
        SdkError::ServiceError(answer) => {
            let Some(code) = answer.err().code() else { return unavailable(KmsFailure::MalformedAnswer, error.into()) };
            let said = answer.err().message().unwrap_or_default();
            let (failure, remedy) = match code {
                "AccessDeniedException" | "AccessDenied" => {
                    (KmsFailure::AccessDenied, "allow the call for this role and key, with the encryption context of eventseal")
                }
                "NotFoundException" => (KmsFailure::KeyNotFound, "check region, account and alias; a deleted key is lost for good"),
                "DisabledException" => (KmsFailure::KeyDisabled, "enable the key again"),
                "KMSInvalidStateException" | "KmsInvalidStateException" => {
                    (KmsFailure::KeyPendingDeletion, "the key is pending deletion or import: cancel its deletion, and enable it")
                }
                "InvalidCiphertextException" => {
                    (KmsFailure::WrongContext, "the row was altered, or belongs to another namespace: restore it from a backup")
                }
                "IncorrectKeyException" => (KmsFailure::WrongKey, "the row names another master key than the one that wrapped it"),
                "InvalidKeyUsageException" => (KmsFailure::WrongKey, "use a symmetric key for encryption and decryption"),
                "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "SignatureDoesNotMatch"
                | "ExpiredTokenException"
                | "ExpiredToken"
                | "MissingAuthenticationToken"
                | "IncompleteSignature" => (KmsFailure::Credentials, "AWS does not accept the credentials: renew them"),
                "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "LimitExceededException" | "RequestLimitExceeded" => {
                    return unavailable(KmsFailure::Throttled, error.into());
                }
                "DependencyTimeoutException" | "RequestTimeout" | "RequestTimeoutException" => {
                    return unavailable(KmsFailure::TimedOut, error.into());
                }
                "KeyUnavailableException"
                | "KMSInternalException"
                | "KmsInternalException"
                | "InternalFailure"
                | "ServiceUnavailable"
                | "ServiceUnavailableException" => return unavailable(KmsFailure::Unreachable, error.into()),
                _ if answer.raw().status().as_u16() >= 500 => return unavailable(KmsFailure::Unreachable, error.into()),
                _ => (KmsFailure::Other, "see the code in AWS's documentation"),
            };
            Error::KmsRefused { kek_id, failure, problem: format!("{code} for {key}: {remedy} ({said})") }
        }
        SdkError::TimeoutError(_) => unavailable(KmsFailure::TimedOut, error.into()),
        SdkError::DispatchFailure(dispatch) if dispatch.is_timeout() => unavailable(KmsFailure::TimedOut, error.into()),
        SdkError::DispatchFailure(_) => unavailable(KmsFailure::Unreachable, error.into()),
        SdkError::ResponseError(_) => unavailable(KmsFailure::MalformedAnswer, error.into()),
        // Nothing was sent: no credentials, no region.
        _ => Error::KmsRefused {
            kek_id,
            failure: KmsFailure::Credentials,
            problem: "the client is not configured: give it credentials and a region".to_owned(),
        },
    }
}
