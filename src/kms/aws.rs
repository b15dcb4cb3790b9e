//! AWS KMS as the keeper of the master key.
//!
//! Knows nothing of data keys, scopes or events: it makes, opens and moves key-encryption keys.

use crate::error::{Error, Result};
use crate::key::KekId;
use crate::kms::{KekContext, Kms, KmsFailure, WrappedKek};
use crate::secret::SecretKey;
use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use zeroize::{Zeroize, Zeroizing};

/// For one try and for a call with its retries, where the client sets no limits: the SDK's own default is to wait for
/// an answer for ever, and an append would wait with it.
const TRY: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(20);
/// How much of what AWS says is repeated.
const SAID: usize = 300;

/// A symmetric key in AWS KMS that wraps key-encryption keys.
///
/// ```no_run
/// # use eventseal::*;
/// # async fn kms(config: &aws_sdk_kms::Config) -> Result<()> {
/// // In a service: Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await).
/// let client = aws_sdk_kms::Client::from_conf(config.clone());
/// let kms = AwsKms::new(client, "alias/eventseal"); // or AwsKms::from_env, with feature `aws-config`
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
///
/// Retries and time-outs are those of the client. If it sets no time-out but that of connecting, a try may take 5 seconds and a
/// call 20.
///
/// An opened key is moved into memory that is wiped. The SDK's own buffers, and those of its connection, are not. The SDK does not
/// log the two calls in which a key is in the clear, `Decrypt` and `Encrypt`, whatever it is told to log.
pub struct AwsKms {
    client: Client,
    key: String,
}

impl AwsKms {
    /// Wraps new key-encryption keys under this key: an id, an ARN, `alias/…` or an alias's ARN.
    #[must_use]
    pub fn new(client: Client, key: impl Into<String>) -> Self {
        let mut limits = client.config().timeout_config().cloned().unwrap_or_else(|| TimeoutConfig::builder().build());
        let bounds = [limits.operation_timeout(), limits.operation_attempt_timeout(), limits.read_timeout()];
        let client = if bounds.iter().any(Option::is_some) {
            client
        } else {
            // What the client has disabled stays so.
            limits.take_defaults_from(&TimeoutConfig::builder().operation_attempt_timeout(TRY).operation_timeout(CALL).build());
            Client::from_conf(client.config().to_builder().timeout_config(limits).build())
        };
        Self { client, key: key.into() }
    }

    /// Takes region, credentials, endpoint and retries from where AWS's own tools have them: the environment
    /// (`AWS_REGION`, `AWS_PROFILE`, `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_KMS`,
    /// `AWS_MAX_ATTEMPTS`, …), `~/.aws/config` and `~/.aws/credentials`, single sign-on, and the role of the container or
    /// machine. Connects with the TLS client of the SDK.
    ///
    /// Nothing is sent to the KMS yet: what is missing shows in the first call. A try may take 5 seconds and a call 20; for
    /// other limits, build the client yourself.
    #[cfg(feature = "aws-config")]
    pub async fn from_env(key: impl Into<String>) -> Self {
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        Self::new(Client::new(&config), key)
    }

    /// What an error of the client means, by AWS's documentation of the operations and of the common errors.
    fn failure<E: ProvideErrorMetadata>(&self, kek_id: KekId, key: &str, error: &SdkError<E>) -> Error {
        let refused = |failure, problem| Error::KmsRefused { kek_id, failure, problem };
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                match meaning(answer.err().code(), status) {
                    Meaning::Refusal(failure, remedy) => {
                        let code = answer.err().code().unwrap_or_default();
                        let said: String = answer.err().message().unwrap_or("no details").chars().take(SAID).collect();
                        refused(failure, format!("{code} for {key}: {remedy} (AWS said: {said})"))
                    }
                    // Not what the parser says of a body that makes no sense: it may quote it.
                    Meaning::Outage(failure) => {
                        unavailable(failure, format!("status {status}, {}", answer.err().code().unwrap_or("no error code")))
                    }
                }
            }
            SdkError::TimeoutError(_) => unavailable(KmsFailure::TimedOut, "no answer within the client's time-outs"),
            SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
                Some(error) => self.not_sent(kek_id, error),
                None => unavailable(KmsFailure::Unreachable, "not sent"),
            },
            SdkError::ResponseError(answer) => {
                unavailable(KmsFailure::MalformedAnswer, format!("status {}, and a body that breaks off", answer.raw().status().as_u16()))
            }
            _ => refused(
                KmsFailure::Other,
                format!("nothing was sent: check the configuration of the client, and the name of the key, {key:?}"),
            ),
        }
    }

    /// No connection, or nothing to connect with. What is told of here is of this side: there was no answer.
    fn not_sent(&self, kek_id: KekId, error: &ConnectorError) -> Error {
        let refused = |problem| Error::KmsRefused { kek_id, failure: KmsFailure::Credentials, problem };
        let said = words(error);
        if error.is_timeout() {
            return unavailable(KmsFailure::TimedOut, said);
        }
        match causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
            Some(CredentialsError::ProviderTimedOut(_)) => unavailable(KmsFailure::TimedOut, said),
            // Such as a service for credentials that answers with an error: it may do better next time.
            Some(CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_)) => unavailable(KmsFailure::Unreachable, said),
            Some(_) => refused(format!("no credentials: set them in the environment, in ~/.aws or by a role ({said})")),
            None if self.client.config().region().is_none() => {
                refused(format!("no region: set AWS_REGION, or the client's region ({said})"))
            }
            None => unavailable(KmsFailure::Unreachable, said),
        }
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
        let described = described.map_err(|error| self.failure(KekId(uuid::Uuid::nil()), &self.key, &error))?;
        let arn = described.key_metadata.and_then(|key| key.arn).filter(|arn| !arn.is_empty());
        arn.ok_or_else(|| unavailable(KmsFailure::MalformedAnswer, "DescribeKey did not return an ARN"))
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
            .map_err(|error| self.failure(context.kek_id, &self.key, &error))?;
        wrapped(made.key_id, made.ciphertext_blob)
    }

    // Nothing is logged here, nor where a key is wrapped: `LOG_SENSITIVE_BODIES` and `LOG_SIGNABLE_BODY`, which somebody may
    // have set for another client of the process, make the SDK log the key.
    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let opened = self
            .client
            .decrypt()
            .key_id(&wrapped.master_key_id)
            .ciphertext_blob(Blob::new(wrapped.ciphertext.clone()))
            .set_encryption_context(Some(bound_to(context)))
            .send()
            .with_subscriber(NoSubscriber::default())
            .await
            .map_err(|error| self.failure(context.kek_id, &wrapped.master_key_id, &error))?;
        let plaintext = Zeroizing::new(opened.plaintext.map(Blob::into_inner).unwrap_or_default());
        let mut key = <[u8; 32]>::try_from(plaintext.as_slice())
            .map_err(|_| unavailable(KmsFailure::MalformedAnswer, "Decrypt did not return 32 bytes"))?;
        let secret = SecretKey::new(key);
        key.zeroize();
        Ok(secret)
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        let made = self
            .client
            .encrypt()
            .key_id(&self.key)
            .plaintext(Blob::new(kek.expose().as_slice()))
            .set_encryption_context(Some(bound_to(context)))
            .send()
            .with_subscriber(NoSubscriber::default())
            .await
            .map_err(|error| self.failure(context.kek_id, &self.key, &error))?;
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
            .map_err(|error| self.failure(context.kek_id, &format!("{} or {}", old.master_key_id, self.key), &error))?;
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
    match (arn, ciphertext.map(Blob::into_inner)) {
        (Some(master_key_id), Some(ciphertext)) if !master_key_id.is_empty() && !ciphertext.is_empty() => {
            Ok(WrappedKek { master_key_id, ciphertext })
        }
        _ => Err(unavailable(KmsFailure::MalformedAnswer, "an answer without key or ciphertext")),
    }
}

/// The source is words alone. The client's own errors hold the answer as it came: for `Decrypt`, with the key.
fn unavailable(failure: KmsFailure, said: impl Into<String>) -> Error {
    Error::KmsUnavailable { failure, source: said.into().into() }
}

fn causes<'a>(error: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What an answer says of the key.
enum Meaning {
    /// It is not to be had, and what to do.
    Refusal(KmsFailure, &'static str),
    /// Nothing.
    Outage(KmsFailure),
}

fn meaning(code: Option<&str>, status: u16) -> Meaning {
    use Meaning::{Outage, Refusal};
    match code {
        Some("AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired") => Refusal(
            KmsFailure::AccessDenied,
            "allow the call for this role and key, with the encryption context of eventseal; for a ciphertext of a key that \
             does not exist here, AWS says the same: check account and region",
        ),
        Some("NotFoundException" | "InvalidArnException") => {
            Refusal(KmsFailure::KeyNotFound, "check region, account and alias; a deleted key is lost for good")
        }
        Some("DisabledException") => Refusal(KmsFailure::KeyDisabled, "enable the key again"),
        Some("KMSInvalidStateException") => Refusal(
            KmsFailure::KeyPendingDeletion,
            "if the key is pending deletion, cancel the deletion at once and enable it; if it is pending import or in a key store, \
             see its state",
        ),
        Some("InvalidCiphertextException") => {
            Refusal(KmsFailure::WrongContext, "the row was altered, or belongs to another namespace: restore it from a backup")
        }
        Some("IncorrectKeyException") => {
            Refusal(KmsFailure::WrongKey, "the row names another master key than the one that wrapped it: restore it from a backup")
        }
        Some("InvalidKeyUsageException") => Refusal(KmsFailure::WrongKey, "use a symmetric key for encryption and decryption"),
        Some(
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "RequestExpired",
        ) => Refusal(KmsFailure::Credentials, "AWS does not accept the credentials: renew them, and check this machine's clock"),
        Some(
            "ThrottlingException"
            | "Throttling"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "LimitExceededException"
            | "SlowDown",
        ) => Outage(KmsFailure::Throttled),
        Some("DependencyTimeoutException" | "RequestTimeout" | "RequestTimeoutException") => Outage(KmsFailure::TimedOut),
        Some("KeyUnavailableException" | "KMSInternalException" | "InternalFailure" | "ServiceUnavailable" | "RequestAbortedException") => {
            Outage(KmsFailure::Unreachable)
        }
        // What stands between here and AWS answers too, and in its own words.
        _ if status == 429 => Outage(KmsFailure::Throttled),
        _ if status >= 500 => Outage(KmsFailure::Unreachable),
        Some(_) => Refusal(KmsFailure::Other, "look the code up in AWS's documentation"),
        None => Outage(KmsFailure::MalformedAnswer),
    }
}
