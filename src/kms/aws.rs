//! [`AwsKms`]: the master key is held by AWS KMS.
//!
//! This module makes, opens and moves key-encryption keys. It knows nothing of data keys, key scopes or events.

mod meaning;

use self::meaning::{Meaning, meaning};
use crate::crypto::secret::SecretKey;
use crate::error::{Error, KeyFault, KmsFault, Result};
use crate::keys::names::KekId;
use crate::kms::{KekContext, Kms, KmsFailure, WrappedKek};
use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use zeroize::{Zeroize, Zeroizing};

/// The time limit of one attempt, if the client sets no limits. The SDK's default is to wait for an answer for ever,
/// and an append would wait with it.
const TRY: Duration = Duration::from_secs(5);
/// The time limit of a call with all its attempts, if the client sets no limits.
const CALL: Duration = Duration::from_secs(20);
/// How many characters of a message of AWS an error repeats.
const SAID: usize = 300;

/// A symmetric key in AWS KMS that wraps key-encryption keys.
///
/// ```no_run
/// # use eventseal::Result;
/// # use eventseal::kms::AwsKms;
/// # async fn kms(config: &aws_sdk_kms::Config) -> Result<()> {
/// // In a service: Client::new(&aws_config::load_defaults(BehaviorVersion::latest()).await).
/// let client = aws_sdk_kms::Client::from_conf(config.clone());
/// let kms = AwsKms::new(client, "alias/eventseal"); // or AwsKms::from_env, with feature `aws-config`
/// # Ok(())
/// # }
/// ```
///
/// # Which key is used
/// Name the key by id, ARN or alias. The key table stores, beside each key-encryption key, the ARN of the master key
/// that wrapped it.
///
/// A row in a database is not trusted to choose a master key. So only configured keys are asked to open a
/// key-encryption key: this one, and those that [`also_opens`](Self::also_opens) names. Point an alias at another key
/// only after the key-encryption keys were moved to that key, or name the old key with `also_opens`.
///
/// New data keys are made only under a key-encryption key that this key wrapped. A key that `also_opens` names is for
/// opening only.
///
/// If a [multi-region key](https://docs.aws.amazon.com/kms/latest/developerguide/multi-region-keys-overview.html)
/// (`mrk-…`) is named, the replica in the client's region is used, whichever region an ARN names. Each replica opens
/// what the others wrapped.
///
/// # Calls and permissions
/// Every call has an [encryption context](https://docs.aws.amazon.com/kms/latest/developerguide/encrypt_context.html)
/// of two opaque ids, `eventseal-namespace` and `eventseal-kek`. AWS writes it to the audit trail in the clear, so a
/// namespace must not name a person.
///
/// | call | when | needs |
/// |---|---|---|
/// | `GenerateDataKeyWithoutPlaintext` | a key-encryption key is made | `kms:GenerateDataKeyWithoutPlaintext` |
/// | `Decrypt` | a key-encryption key is opened: once for each key, process and cache period | `kms:Decrypt` |
/// | `ReEncrypt` | a key-encryption key is moved to another master key in AWS | `kms:ReEncryptFrom`, `kms:ReEncryptTo`
/// |
/// | `DescribeKey` | a key-encryption key is moved, and the master key is named by id or alias | `kms:DescribeKey` |
/// | `Encrypt` | a key-encryption key is moved here from another provider | `kms:Encrypt` |
///
/// # Time limits
/// Retries and time-outs are those of the client. If the client sets no time-out except that of connecting, an attempt
/// may take 5 seconds, and a call with its retries 20.
///
/// # Keys in memory
/// An opened key is copied into memory that is wiped when it is dropped. The buffers of the SDK and of its connection
/// are not wiped. Logs of the SDK are off for the two calls that carry a key in the clear, `Decrypt` and `Encrypt`,
/// whatever the SDK is told to log.
pub struct AwsKms {
    client: Client,
    key: String,
    also: Vec<String>,
    /// The ARN behind `key`, if that is an alias or id: as the KMS reported it when it last opened something under
    /// `key`.
    means: Mutex<Option<String>>,
}

impl AwsKms {
    /// Uses `key` as the master key: an id, an ARN, `alias/…`, or the ARN of an alias. Sends nothing.
    #[must_use]
    pub fn new(client: Client, key: impl Into<String>) -> Self {
        let mut limits = client.config().timeout_config().cloned().unwrap_or_else(|| TimeoutConfig::builder().build());
        let bounds = [limits.operation_timeout(), limits.operation_attempt_timeout(), limits.read_timeout()];
        let client = if bounds.iter().any(Option::is_some) {
            client
        } else {
            // Limits that the client has disabled stay disabled.
            limits.take_defaults_from(
                &TimeoutConfig::builder().operation_attempt_timeout(TRY).operation_timeout(CALL).build(),
            );
            Client::from_conf(client.config().to_builder().timeout_config(limits).build())
        };
        let key = here(&client, &key.into());
        Self { client, key, also: Vec::new(), means: Mutex::default() }
    }

    /// Names another master key that may open key-encryption keys, so that they can be used and moved. No new data keys
    /// are made under them. May be called several times.
    ///
    /// Use it for the old key, in a process that is configured for the new one. Use it for the new key, in a process
    /// that is still configured for the old one. Best name the key by its full ARN: an alias or id may cost another
    /// call.
    ///
    /// Without it, a row that names another key than the configured one fails with [`KmsFault::Refused`] and
    /// [`KmsFailure::WrongKey`]. Otherwise anybody who can write to the key table could have this process use keys that
    /// he made.
    #[must_use]
    pub fn also_opens(mut self, key: impl Into<String>) -> Self {
        self.also.push(here(&self.client, &key.into()));
        self
    }

    /// The configured names under which the KMS is asked to open this row's key.
    ///
    /// If the row's ARN is configured, by ARN or id, it is that name. Otherwise it may be any of the configured
    /// aliases, and the KMS says which one is right. Only configured names are returned: the row's own ARN could lead
    /// to another account.
    fn names_for(&self, wrapped: &WrappedKek, kek_id: KekId) -> Result<Vec<String>> {
        let arn = here(&self.client, &wrapped.master_key_id);
        if is_key_arn(&arn) {
            if same_key(&self.key, &arn) {
                return Ok(vec![self.key.clone()]);
            }
            // The alias of the configured key comes first: if it opens the row, new keys may be made under it.
            let mut names: Vec<String> = Some(&self.key).filter(|name| is_alias(name)).into_iter().cloned().collect();
            match self.also.iter().find(|name| same_key(name, &arn)) {
                Some(name) => names.push(name.clone()),
                None => names.extend(self.also.iter().filter(|name| is_alias(name)).cloned()),
            }
            if !names.is_empty() {
                return Ok(names);
            }
        }
        let problem = format!(
            "the row names master key {:?}, under which this process is not configured to open: if that is yours, name \
             it with also_opens(); if not, somebody else wrote the row",
            wrapped.master_key_id
        );
        Err(Error::Kms(KmsFault::Refused { kek_id, failure: KmsFailure::WrongKey, problem }))
    }

    /// Checks that the key which the KMS used under `name` is the one that the row names. An alias can point to another
    /// key than the row's, and an id can be that of a key in another account or region.
    fn check_used(&self, name: &str, wrapped: &WrappedKek, used: Option<&str>, kek_id: KekId) -> Result<()> {
        if is_key_arn(name) {
            return Ok(());
        }
        let Some(used) = used.filter(|used| is_key_arn(used)).map(|used| here(&self.client, used)) else {
            return Err(unavailable(KmsFailure::MalformedAnswer, "an answer without the ARN of the key"));
        };
        let right = used == here(&self.client, &wrapped.master_key_id);
        if name == self.key {
            *lock(&self.means) = Some(used);
        }
        if right {
            return Ok(());
        }
        let problem =
            "the row names another master key than the one that wrapped it: restore it from a backup".to_owned();
        Err(Error::Kms(KmsFault::Refused { kek_id, failure: KmsFailure::WrongKey, problem }))
    }

    /// Handles a failed attempt under `name`. A refusal of an alias is kept, and the next name is tried, because the
    /// alias may point to another key than the row's. Any other failure is returned.
    fn keep_trying(&self, name: &str, wrapped: &WrappedKek, failure: Error, refusal: &mut Option<Error>) -> Result<()> {
        if !is_alias(name) || !matches!(failure, Error::Kms(KmsFault::Refused { .. })) {
            return Err(failure);
        }
        let mut means = lock(&self.means);
        if name == self.key && means.as_deref() == Some(&*here(&self.client, &wrapped.master_key_id)) {
            *means = None;
        }
        refusal.get_or_insert(failure);
        Ok(())
    }

    /// Makes a client that is configured as AWS's own tools are: by the environment (`AWS_REGION`, `AWS_PROFILE`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_KMS`, `AWS_MAX_ATTEMPTS`, …), `~/.aws/config`,
    /// `~/.aws/credentials`, single sign-on, and the role of the container or machine. It connects with the SDK's TLS
    /// client.
    ///
    /// Nothing is sent to the KMS yet, so missing settings appear as errors of the first call. An attempt may take 5
    /// seconds, and a call with its retries 20. For other limits, build the client yourself and use [`new`](Self::new).
    #[cfg(feature = "aws-config")]
    pub async fn from_env(key: impl Into<String>) -> Self {
        let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
        Self::new(Client::new(&config), key)
    }

    /// Sorts an error of the client, following AWS's documentation of each operation and of the [common
    /// errors](https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html).
    fn failure<E: ProvideErrorMetadata>(&self, kek_id: KekId, key: &str, error: &SdkError<E>) -> Error {
        let refused = |failure, problem| Error::Kms(KmsFault::Refused { kek_id, failure, problem });
        match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                match meaning(answer.err().code(), status) {
                    Meaning::Refusal(failure, remedy) => {
                        let code = answer.err().code().unwrap_or_default();
                        let said: String = answer.err().message().unwrap_or("no details").chars().take(SAID).collect();
                        refused(failure, format!("{code} for {key}: {remedy} (AWS said: {said})"))
                    }
                    // The text of a parser's error is left out, because it may quote the body.
                    Meaning::Outage(failure) => unavailable(
                        failure,
                        format!("status {status}, {}", answer.err().code().unwrap_or("no error code")),
                    ),
                }
            }
            SdkError::TimeoutError(_) => unavailable(KmsFailure::TimedOut, "no answer within the client's time-outs"),
            SdkError::DispatchFailure(dispatch) => match dispatch.as_connector_error() {
                Some(error) => self.not_sent(kek_id, error),
                None => unavailable(KmsFailure::Unreachable, "not sent"),
            },
            SdkError::ResponseError(answer) => unavailable(
                KmsFailure::MalformedAnswer,
                format!("status {}, and a body that breaks off", answer.raw().status().as_u16()),
            ),
            _ => refused(
                KmsFailure::Other,
                format!("nothing was sent: check the configuration of the client, and the name of the key, {key:?}"),
            ),
        }
    }

    /// Sorts an error that occurred before anything was sent: no connection, no credentials or no region. Its text may
    /// be shown, because it can't quote an answer.
    fn not_sent(&self, kek_id: KekId, error: &ConnectorError) -> Error {
        let refused = |problem| Error::Kms(KmsFault::Refused { kek_id, failure: KmsFailure::Credentials, problem });
        let said = words(error);
        if error.is_timeout() {
            return unavailable(KmsFailure::TimedOut, said);
        }
        match causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
            Some(CredentialsError::ProviderTimedOut(_)) => unavailable(KmsFailure::TimedOut, said),
            // For example, a service for credentials has answered with an error. The next attempt may succeed.
            Some(CredentialsError::ProviderError(_) | CredentialsError::Unhandled(_)) => {
                unavailable(KmsFailure::Unreachable, said)
            }
            Some(_) => refused(format!("no credentials: set them in the environment, in ~/.aws or by a role ({said})")),
            None if self.client.config().region().is_none() => {
                refused(format!("no region: set AWS_REGION, or the client's region ({said})"))
            }
            None => unavailable(KmsFailure::Unreachable, said),
        }
    }
}

/// Shows the names of the keys, not the client's credentials.
impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("key", &self.key).field("also_opens", &self.also).finish_non_exhaustive()
    }
}

#[async_trait]
impl Kms for AwsKms {
    fn provider(&self) -> &str {
        "aws-kms"
    }

    async fn master_key_id(&self) -> Result<String> {
        if is_key_arn(&self.key) {
            return Ok(self.key.clone());
        }
        let described = self.client.describe_key().key_id(&self.key).send().await;
        let described = described.map_err(|error| self.failure(KekId(uuid::Uuid::nil()), &self.key, &error))?;
        let arn = described.key_metadata.and_then(|key| key.arn).filter(|arn| !arn.is_empty());
        arn.ok_or_else(|| unavailable(KmsFailure::MalformedAnswer, "DescribeKey did not return an ARN"))
    }

    fn makes_keys_under(&self, master_key_id: &str) -> bool {
        let arn = here(&self.client, master_key_id);
        same_key(&self.key, &arn) || lock(&self.means).as_deref() == Some(&*arn)
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

    // Nothing may be logged here and in `wrap_kek`. With `LOG_SENSITIVE_BODIES` and `LOG_SIGNABLE_BODY`, which may have
    // been set for another client of the process, the SDK would log the key.
    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let names = self.names_for(wrapped, context.kek_id)?;
        let mut refusal = None;
        let (opened, name) = 'opened: {
            for name in &names {
                let sent = self
                    .client
                    .decrypt()
                    .key_id(name)
                    .ciphertext_blob(Blob::new(wrapped.ciphertext.clone()))
                    .set_encryption_context(Some(bound_to(context)))
                    .send()
                    .with_subscriber(NoSubscriber::default())
                    .await;
                match sent {
                    Ok(opened) => break 'opened (opened, name),
                    Err(error) => {
                        self.keep_trying(name, wrapped, self.failure(context.kek_id, name, &error), &mut refusal)?;
                    }
                }
            }
            return Err(refusal.unwrap_or(Error::Keys(KeyFault::Cryptography)));
        };
        self.check_used(name, wrapped, opened.key_id.as_deref(), context.kek_id)?;
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
        let names = self.names_for(old, context.kek_id)?;
        let mut refusal = None;
        let (moved, name) = 'moved: {
            for name in &names {
                let sent = self
                    .client
                    .re_encrypt()
                    .source_key_id(name)
                    .ciphertext_blob(Blob::new(old.ciphertext.clone()))
                    .set_source_encryption_context(Some(bound_to(context)))
                    .destination_key_id(&self.key)
                    .set_destination_encryption_context(Some(bound_to(context)))
                    .send()
                    .await;
                match sent {
                    Ok(moved) => break 'moved (moved, name),
                    Err(error) => {
                        let failure = self.failure(context.kek_id, &format!("{name} or {}", self.key), &error);
                        self.keep_trying(name, old, failure, &mut refusal)?;
                    }
                }
            }
            return Err(refusal.unwrap_or(Error::Keys(KeyFault::Cryptography)));
        };
        self.check_used(name, old, moved.source_key_id.as_deref(), context.kek_id)?;
        wrapped(moved.key_id, moved.ciphertext_blob)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_key_arn(name: &str) -> bool {
    name.starts_with("arn:") && name.contains(":key/")
}

fn is_alias(name: &str) -> bool {
    name.starts_with("alias/") || name.contains(":alias/")
}

/// Does `name`, an ARN or id, mean the key with this ARN? An id means a key in the client's account and region. The KMS
/// checks these.
fn same_key(name: &str, arn: &str) -> bool {
    if is_key_arn(name) {
        name == arn
    } else {
        !is_alias(name) && arn.rsplit_once(":key/").is_some_and(|(_, id)| id == name)
    }
}

/// For the ARN of a multi-region key, the ARN of the replica in the client's region. Any other name is returned
/// unchanged.
fn here(client: &Client, name: &str) -> String {
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    match (parts.as_slice(), client.config().region()) {
        ([arn, partition, service, _, account, resource], Some(region)) if resource.starts_with("key/mrk-") => {
            format!("{arn}:{partition}:{service}:{region}:{account}:{resource}")
        }
        _ => name.to_owned(),
    }
}

/// The encryption context. It consists of opaque ids only, because AWS logs it.
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

/// Makes an outage whose source is a text. The client's own error must not be the source, because it holds the whole
/// answer: for `Decrypt`, the key.
fn unavailable(failure: KmsFailure, said: impl Into<String>) -> Error {
    Error::Kms(KmsFault::Unavailable { failure, source: said.into().into() })
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn words(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
