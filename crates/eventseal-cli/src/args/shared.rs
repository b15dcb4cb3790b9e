//! Arguments that several commands take.

use super::DATABASE_URL;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use eventseal::KeyScope;
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variable that names a copy of the shred log which every command requires.
const REQUIRE_SHRED_LOG: &str = "EVENTSEAL_REQUIRE_SHRED_LOG";
/// The environment variable that names a copy which every decision goes into.
const APPEND_TO: &str = "EVENTSEAL_APPEND_TO";

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Database")]
pub(crate) struct Database {
    /// sqlite://FILE or postgres://USER@HOST/NAME. A URL with a password goes into the environment
    #[arg(long, value_name = "URL", env = DATABASE_URL, hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// The schema of the tables (PostgreSQL)
    #[arg(long, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// The prefix of the names of the key tables
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// How long to wait for locks that others hold
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) lock_timeout: u32,
    /// Decide and open nothing while the key tables do not agree with this copy of the shred log, as after a restore: a
    /// file, or the URL of a database as for shred-log export. May be named several times
    #[arg(long, value_name = "COPY", env = REQUIRE_SHRED_LOG, hide_env_values = true, value_parser = required_copy())]
    pub(crate) require_shred_log: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Master key")]
pub(crate) struct MasterKey {
    /// The file of a keyring. The text of a keyring is a secret, and goes into EVENTSEAL_KEYRING
    /// [env: EVENTSEAL_KEYRING_FILE]
    // clap does not read the variables of these two, because a flag must win over a variable that names another
    // provider.
    #[arg(long, value_name = "FILE")]
    pub(crate) keyring: Option<PathBuf>,
    /// The key in AWS KMS: id, ARN or alias/… [env: EVENTSEAL_AWS_KMS_KEY]
    #[arg(long, value_name = "KEY", conflicts_with = "keyring")]
    pub(crate) aws_kms_key: Option<String>,
}

/// The copies of the shred log that a decision goes into at once.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Copies of the shred log")]
pub(crate) struct Copying {
    /// Add the decision to this copy of the shred log in the same run: a file, or the URL of a database. The copy must
    /// exist: shred-log export begins it. May be named several times
    #[arg(long, value_name = "COPY", env = APPEND_TO, hide_env_values = true, value_parser = appended_copy())]
    pub(crate) append_to: Vec<PathBuf>,
}

/// The flags of commands that run long.
#[derive(Clone, Debug, Args)]
pub(crate) struct Progress {
    /// Without a terminal, print the progress this often (0: at every step). Never with --json
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) progress_every: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// The kind of scope, such as Customer
    #[arg(value_name = "KIND")]
    kind: String,
    /// The id of the scope, such as cust_42
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: String,
}

impl Scope {
    pub(crate) fn key_scope(&self) -> KeyScope {
        KeyScope::new(self.kind.as_str(), self.id.as_str())
    }
}

/// What the key history keeps about a change.
#[derive(Clone, Debug, Args)]
pub(crate) struct Cause {
    /// Why you do this. Kept for good: name the request, not the person
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who does this. Kept for good. By default the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
}

/// Takes the name of a copy. An empty one comes from a variable that is not set as it was meant to be.
pub(crate) fn copy() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|name| named(name, "name a file, or the URL of a database".to_owned()))
}

fn required_copy() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|name| {
        let what = "name the file or the URL of the copy with which the key tables must agree; unset";
        named(name, format!("{what} {REQUIRE_SHRED_LOG} if none is required"))
    })
}

fn appended_copy() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|name| {
        named(name, format!("name a file, or the URL of a database; unset {APPEND_TO} if decisions are not copied"))
    })
}

fn named(name: OsString, what_to_do: String) -> Result<PathBuf, String> {
    let is_blank = name.to_str().is_some_and(|name| name.trim().is_empty());
    if is_blank { Err(format!("the name of the copy is empty: {what_to_do}")) } else { Ok(name.into()) }
}
