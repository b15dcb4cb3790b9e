//! Opens the master key: a keyring or AWS KMS, named by flags or by environment variables.

use crate::args;
use crate::output::{Failure, shown};
use async_trait::async_trait;
use eventseal::error::KmsFault;
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::{Error, Keyring, Result as Sealed};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TEXT: &str = "EVENTSEAL_KEYRING";
const FILE: &str = "EVENTSEAL_KEYRING_FILE";
const AWS: &str = "EVENTSEAL_AWS_KMS_KEY";
/// The variable with other keys in AWS KMS that may open key-encryption keys, separated by commas.
const AWS_ALSO: &str = "EVENTSEAL_AWS_KMS_ALSO_OPENS";

/// The master key that a command works with. Flags win over environment variables.
pub(crate) async fn open(args: &args::MasterKey) -> Result<Arc<dyn Kms>, Failure> {
    open_beside(args, None).await
}

/// The master key to which keys are moved. Within AWS KMS, it also opens keys under the master key from which they are
/// moved.
pub(crate) async fn open_target(args: &args::MoveMasterKey) -> Result<Arc<dyn Kms>, Failure> {
    open_beside(&args.master_key, args.from_aws_kms_key.as_deref()).await
}

async fn open_beside(args: &args::MasterKey, also: Option<&str>) -> Result<Arc<dyn Kms>, Failure> {
    if let Some(path) = &args.keyring {
        return keyring(path, "--keyring");
    }
    if let Some(key) = &args.aws_kms_key {
        return aws(key, also).await;
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (set(TEXT).is_some(), set(FILE), set(AWS)) {
        (true, None, None) => from_text(),
        (false, Some(path), None) => keyring(&PathBuf::from(path), FILE),
        (false, None, Some(key)) => aws(&key.to_string_lossy(), also).await,
        (false, None, None) => Err(Failure::Usage(format!(
            "no master key: pass --keyring FILE or --aws-kms-key KEY, or set {FILE}, {TEXT} (the keyring's text) or \
             {AWS}"
        ))),
        _ => Err(Failure::Usage(format!(
            "more than one of {TEXT}, {FILE} and {AWS} is set: leave one, or pass --keyring or --aws-kms-key"
        ))),
    }
}

/// The provider from which keys are moved, if the command names one.
pub(crate) async fn open_from(args: &args::MoveMasterKey) -> Result<Option<Arc<dyn Kms>>, Failure> {
    match (&args.from_keyring, &args.from_aws_kms_key) {
        (Some(path), _) => keyring(path, "--from-keyring").map(Some),
        (None, Some(key)) => aws(key, None).await.map(Some),
        (None, None) => Ok(None),
    }
}

fn keyring(path: &Path, named_by: &str) -> Result<Arc<dyn Kms>, Failure> {
    // The path is not repeated if it may be a key that was passed instead of a file.
    if path.as_os_str().len() > 4_096 || (is_key(path) && matches!(path.try_exists(), Ok(false))) {
        return Err(Failure::Usage(format!(
            "the keyring's file, named by {named_by}, does not exist. That is a keyring's text, and others can read a \
             command line: give it new keys, and put them into {TEXT}"
        )));
    }
    if matches!(path.try_exists(), Ok(false)) {
        let file = if is_plain(path) { format!(" {}", shown(&path.to_string_lossy())) } else { String::new() };
        return Err(Failure::Usage(format!(
            "the keyring's file{file}, named by {named_by}, does not exist: correct it. Only for a new key database: \
             make it with (umask 077; echo \"main:$(openssl rand -base64 32)\" > FILE)"
        )));
    }
    Ok(Arc::new(Keyring::from_file(path)?))
}

/// Can no part of this path be a key, not even one that was cut short? Errors repeat only such a path.
fn is_plain(path: &Path) -> bool {
    path.to_string_lossy().split('/').all(|part| part.len() < 32 && !part.contains([':', '=', ',', ' ', '\n']))
}

/// Does this path look like the text of a keyring, with a key of 32 bytes in it? A path in a folder that exists does
/// not.
fn is_key(path: &Path) -> bool {
    let in_folder = path.parent().is_some_and(|folder| folder.components().count() > 1 && folder.is_dir());
    let bytes = |text: &str| {
        let hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let text = text.trim_end_matches('=');
        let base64 = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte));
        // 32 bytes are 43 characters of base64.
        hex || (text.len() == 43 && base64)
    };
    !in_folder && path.to_string_lossy().split([':', ',', '\n', ' ']).any(bytes)
}

fn from_text() -> Result<Arc<dyn Kms>, Failure> {
    match Keyring::from_env(TEXT) {
        Ok(ring) => Ok(Arc::new(ring)),
        Err(Error::Kms(KmsFault::Keyring { problem })) => Err(Error::Kms(KmsFault::Keyring {
            problem: format!("{TEXT} holds a keyring's text, {FILE} the name of a file; {problem}"),
        })
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// AWS KMS, with region and credentials from AWS's own variables and files.
#[cfg(feature = "aws-kms")]
async fn aws(key: &str, also: Option<&str>) -> Result<Arc<dyn Kms>, Failure> {
    let configured = std::env::var(AWS_ALSO).unwrap_or_default();
    let also = configured.split(',').map(str::trim).filter(|name| !name.is_empty()).chain(also);
    Ok(Arc::new(also.fold(eventseal::kms::AwsKms::from_env(key).await, eventseal::kms::AwsKms::also_opens)))
}

#[cfg(not(feature = "aws-kms"))]
#[allow(clippy::unused_async, reason = "the other one awaits")]
async fn aws(_key: &str, _also: Option<&str>) -> Result<Arc<dyn Kms>, Failure> {
    let problem = "this eventseal was built without AWS KMS: install it with its default features";
    Err(Failure::Usage(problem.into()))
}

/// Stands in for a master key in commands that need none.
pub(crate) struct NoMasterKey;

fn none<T>() -> Sealed<T> {
    Err(Error::Kms(KmsFault::Keyring { problem: "this command was not given a master key; please report this".into() }))
}

#[async_trait]
impl Kms for NoMasterKey {
    fn provider(&self) -> &str {
        "none"
    }

    async fn master_key_id(&self) -> Sealed<String> {
        none()
    }

    async fn generate_kek(&self, _: &KekContext) -> Sealed<WrappedKek> {
        none()
    }

    async fn unwrap_kek(&self, _: &WrappedKek, _: &KekContext) -> Sealed<SecretKey> {
        none()
    }

    async fn wrap_kek(&self, _: &SecretKey, _: &KekContext) -> Sealed<WrappedKek> {
        none()
    }

    async fn rewrap_kek(&self, _: &WrappedKek, _: &KekContext) -> Sealed<WrappedKek> {
        none()
    }
}
