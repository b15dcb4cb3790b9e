//! The arguments of all commands. Help, completions and the man page are made from these types.

mod census;
mod certificate;
mod erasure;
mod export;
#[cfg(test)]
mod guides;
mod list;
mod seals;
mod secrets;
mod shared;
mod shred;
mod shred_log;
mod verify;

pub(crate) use census::{Census, Payloads};
pub(crate) use certificate::{Certificate, Copies};
pub(crate) use erasure::{CancelShred, Hold, Holds, Mode, Release, ScheduleShred, Schedules, Sweep};
pub(crate) use export::Export;
pub(crate) use list::List;
pub(crate) use seals::{EventsOf, IndexSeals};
pub(crate) use secrets::{check_secrets, has_password};
pub(crate) use shared::{Cause, Copying, Database, MasterKey, Progress, Scope};
pub(crate) use shred::{Shred, Shredded};
pub(crate) use shred_log::{AdoptLog, ExportLog, ReplayLog, ShredLog, VerifyLog};
pub(crate) use verify::Verify;

use crate::connect::EventNames;
use clap::{Args, Parser, Subcommand};
use eventseal::Namespace;
use std::path::PathBuf;
use uuid::Uuid;

/// The environment variable that holds the database's URL.
const DATABASE_URL: &str = "DATABASE_URL";

const AFTER: &str = "\
Exit codes:
  0  done
  1  failed, and will fail again
  2  the arguments make no sense
  3  the same command may succeed later as it is (a lock, an outage)
  4  nothing was done: not confirmed, or the keys are in a state that does not allow it
  5  doctor, verify, events-of, index-seals, shred-log verify, or status or census with --check,
     found something; sweep left what is held; certificate: the log or its copy is no proof
  6  certificate: the scope is not erased
  130  interrupted by Ctrl-C (143: by SIGTERM); the message says what was done before, and is kept

Environment:
  DATABASE_URL            the database; the only place for a URL with a password
  PGPASSWORD, ~/.pgpass   PostgreSQL's password, if the URL has none
  EVENTSEAL_KEYRING       the text of a keyring
  EVENTSEAL_KEYRING_FILE  the file of a keyring
  EVENTSEAL_AWS_KMS_KEY   a key in AWS KMS, with AWS's own variables for region and credentials

With --json, the result is one document on standard output. A failure is one on standard error:
{\"error\": {\"kind\", \"message\", \"retryable\", \"exit_code\", \"causes\", \"help\"}}.

Examples:
  eventseal migrate --namespace shop --database sqlite://shop.db
  eventseal status
  eventseal shred Customer cust_42 --reason 'request 118'
  eventseal certificate Customer cust_42 --html erasure-118.html
  eventseal rotate-kek && eventseal rewrap";

/// Keys of sealed event stores: set-up, rotation, erasure.
///
/// Never shows key material, and takes no secrets on the command line.
#[derive(Debug, Parser)]
#[command(name = "eventseal", version, max_term_width = 100, after_help = AFTER)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create the key tables, or bring them up to date
    Migrate(Migrate),
    /// Create the first key-encryption key of a partition, and check that keys work
    Prepare(Prepare),
    /// Show the key-encryption keys, how many data keys each one wraps, and what is due
    Status(Status),
    /// Count the stored events of each type and version, and say which upcasting steps they need
    Census(Census),
    /// List the stored events that the keys of a scope seal
    EventsOf(EventsOf),
    /// Make and complete the index that leads from keys to their events
    IndexSeals(IndexSeals),
    /// Check everything that keys need, and say what to fix
    Doctor(Doctor),
    /// Verify every seal, every key and every scope
    Verify(Verify),
    /// Show the keys of a scope, or list scopes
    #[command(subcommand)]
    Keys(Keys),
    /// Write the data of one person as lines of JSON, without that of others
    Export(Export),
    /// Destroy the keys of a scope for good, or those of many
    Shred(Shred),
    /// Say what is left of a scope, as a certificate of its erasure
    Certificate(Certificate),
    /// Put a scope on hold: it can't be shredded meanwhile
    Hold(Hold),
    /// Release a hold
    Release(Release),
    /// List the holds that are in force
    Holds(Holds),
    /// Schedule the shred of a scope for a later time
    ScheduleShred(ScheduleShred),
    /// Cancel the scheduled shred of a scope
    CancelShred(CancelShred),
    /// List the scheduled shreds
    Schedules(Schedules),
    /// Shred the scopes whose scheduled shred has come due
    Sweep(Sweep),
    /// The shred log: its check, its copy, and its replay after a restore
    #[command(subcommand)]
    ShredLog(ShredLog),
    /// Begin a new generation of keys for a shredded scope
    Reopen(Reopen),
    /// Stop the use of a scope's keys until they are enabled again
    Disable(Change),
    /// Allow the use of a disabled scope's keys again
    Enable(Change),
    /// Give a scope a new data key
    RotateDataKey(RotateDataKey),
    /// Give a partition a new key-encryption key
    RotateKek(RotateKek),
    /// Wrap the data keys of old key-encryption keys anew, by the active ones
    Rewrap(Rewrap),
    /// Retire a key-encryption key that wraps nothing any more
    RetireKek(RetireKek),
    /// Move all key-encryption keys to another master key, or from one provider to another
    MoveMasterKey(MoveMasterKey),
    /// Print completions for a shell
    #[command(after_help = "Examples:\n  eventseal completions bash > /etc/bash_completion.d/eventseal")]
    Completions {
        /// The shell to print completions for
        shell: clap_complete::Shell,
    },
    /// Print the man page
    #[command(
        after_help = "Examples:\n  eventseal man | man -l -\n  eventseal man --directory /usr/local/share/man/man1"
    )]
    Man {
        /// Write a page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Show the keys of a scope: when each was made and destroyed, and every change with its reason
    Show(Show),
    /// List scopes by kind, partition and state, in pages
    List(List),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  eventseal migrate --namespace shop --database sqlite://shop.db
  eventseal migrate --namespace shop --schema keys --prefix shop_
  eventseal migrate --namespace shop --print=postgres > 0042_eventseal.sql
  eventseal migrate --namespace shop --events --streams")]
pub(crate) struct Migrate {
    /// The name of this key database. It is chosen once, bound into every seal, and never changed
    #[arg(long, value_name = "NAME", value_parser = namespace)]
    pub(crate) namespace: Namespace,
    /// Print the SQL instead of running it: for the kind of --database, or for the kind named here
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "database")]
    pub(crate) print: Option<Dialect>,
    /// Create the tables of events too. An event store that exists needs only the key tables
    #[arg(long)]
    pub(crate) events: bool,
    /// Another name for the table of events
    #[arg(long, value_name = "NAME", requires = "events")]
    pub(crate) events_table: Option<String>,
    /// Another name for the table of heads
    #[arg(long, value_name = "NAME", requires = "events")]
    pub(crate) heads_table: Option<String>,
    /// Name columns and heads as eventsalsa/store does since 0.1: stream_* (PostgreSQL)
    #[arg(long, requires = "events")]
    pub(crate) streams: bool,
    #[command(flatten)]
    pub(crate) database: Database,
}

impl Migrate {
    pub(crate) fn names(&self) -> EventNames<'_> {
        EventNames {
            events: self.events_table.as_deref(),
            heads: self.heads_table.as_deref(),
            seals: None,
            streams: self.streams,
            heads_first: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dialect {
    /// The kind of --database
    Database,
    Sqlite,
    Postgres,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Does nothing if the key is there already. Applications do this for the default partition when they start.

Examples:
  eventseal prepare --keyring /etc/shop/keyring
  eventseal prepare --partition tenant_7 --aws-kms-key alias/eventseal")]
pub(crate) struct Prepare {
    /// The partition of the data keys
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) partition: String,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key. Counts all live data keys, which takes a while if there are millions.

Examples:
  eventseal status
  eventseal status --max-age 90 --check || page-somebody
  eventseal status --retention backups=35d,archives=none,replicas=1h
  eventseal status --json | jq '.keks[] | select(.state == \"active\")'")]
pub(crate) struct Status {
    /// Report an active key-encryption key that is older as due for rotation
    #[arg(long, value_name = "DAYS", default_value_t = 365)]
    pub(crate) max_age: u32,
    /// End with exit code 5 if something is due, overdue or unfinished
    #[arg(long)]
    pub(crate) check: bool,
    /// Another name for the table of the index of seals
    #[arg(long, value_name = "NAME")]
    pub(crate) seals_table: Option<String>,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) database: Database,
}

impl Status {
    pub(crate) fn names(&self) -> EventNames<'_> {
        let seals = self.seals_table.as_deref();
        EventNames { events: None, heads: None, seals, streams: false, heads_first: false }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing: the writes that it tries are rolled back. Ends with exit code 5 if it finds a problem.

Examples:
  eventseal doctor --keyring /etc/shop/keyring
  eventseal doctor --aws-kms-key alias/eventseal --json")]
pub(crate) struct Doctor {
    /// Another name for the table of events
    #[arg(long, value_name = "NAME")]
    pub(crate) events_table: Option<String>,
    /// Another name for the table of heads
    #[arg(long, value_name = "NAME")]
    pub(crate) heads_table: Option<String>,
    /// Another name for the table of the index of seals
    #[arg(long, value_name = "NAME")]
    pub(crate) seals_table: Option<String>,
    /// The application writes the head row first (heads_first of PostgresTables). Implied by stream_* columns
    #[arg(long)]
    pub(crate) heads_first: bool,
    /// Columns and heads are named as eventsalsa/store does since 0.1: stream_* (PostgreSQL)
    #[arg(long)]
    pub(crate) streams: bool,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

impl Doctor {
    pub(crate) fn names(&self) -> EventNames<'_> {
        EventNames {
            events: self.events_table.as_deref(),
            heads: self.heads_table.as_deref(),
            seals: self.seals_table.as_deref(),
            streams: self.streams,
            heads_first: self.heads_first,
        }
    }

    /// Did the user say that there are events?
    pub(crate) fn names_events(&self) -> bool {
        self.events_table.is_some() || self.heads_table.is_some() || self.streams || self.heads_first
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key, and shows no key material. So it checks no entry of the shred log: what proves an erasure is \
eventseal certificate.

Examples:
  eventseal keys show Customer cust_42
  eventseal keys show Customer cust_42 --schemas schemas.json
  eventseal keys show Customer cust_42 --json | jq '.changes[] | {action, reason, at}'")]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// A schema lock of eventseal-testing, to check that the application knows this kind
    #[arg(long, value_name = "FILE")]
    pub(crate) schemas: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The destroyed keys stay destroyed: old values stay redacted, and only new events can be sealed.

Examples:
  eventseal reopen Customer cust_42 --reason 'came back, order 7' --keyring /etc/shop/keyring")]
pub(crate) struct Reopen {
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) cause: Cause,
    /// The partition whose key-encryption key wraps the new key. By default that of the scope's newest key
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Reads and appends of a disabled scope fail. Nothing is shown as redacted. What a scheduled shred disables or withholds \
is not enabled: cancel-shred ends that.

Examples:
  eventseal disable Customer cust_42 --reason 'incident 3' --keyring /etc/shop/keyring
  eventseal enable Customer cust_42 --reason 'incident 3 is over' --keyring /etc/shop/keyring")]
pub(crate) struct Change {
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) cause: Cause,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The scope's older keys still open what was sealed under them.

Examples:
  eventseal rotate-data-key Customer cust_42 --keyring /etc/shop/keyring")]
pub(crate) struct RotateDataKey {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// The partition whose key-encryption key wraps the new key. By default that of the scope's newest key
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The old key still opens the data keys that it wrapped. Rewrap moves them to the new key, and retire-kek then ends the \
old one.

Examples:
  eventseal rotate-kek --keyring /etc/shop/keyring
  eventseal rotate-kek --partition tenant_7 --aws-kms-key alias/eventseal")]
pub(crate) struct RotateKek {
    /// The partition of the data keys
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) partition: String,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Can be interrupted and run again at any time, and run by several processes at once: each key is wrapped once. \
Appends, reads and shreds go on meanwhile. A data key that does not open is reported and left as it is (exit code 1).

Examples:
  eventseal rewrap --keyring /etc/shop/keyring
  eventseal rewrap --dry-run
  eventseal rewrap --partition tenant_7 --batch 2000 --aws-kms-key alias/eventseal --json")]
pub(crate) struct Rewrap {
    /// Only the data keys of this partition
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    /// How many data keys are wrapped in one transaction
    #[arg(long, value_name = "KEYS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Only show how many data keys there are. Needs no master key
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key. Refused if a live data key still needs the key. The row of the key stays.

Examples:
  eventseal retire-kek 0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11")]
pub(crate) struct RetireKek {
    /// The id of the key-encryption key, as status shows it
    #[arg(value_name = "KEK")]
    pub(crate) kek: Uuid,
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Within one provider, the new master key is the first entry of the keyring, or the key that --aws-kms-key names. The \
keyring still needs the old entry. Can be interrupted and run again at any time. Data keys and events do not change.

Examples:
  eventseal move-master-key --keyring /etc/shop/keyring --dry-run
  eventseal move-master-key --from-aws-kms-key alias/shop-2026 --aws-kms-key alias/shop-2027
  eventseal move-master-key --from-keyring /etc/shop/keyring --aws-kms-key alias/eventseal
  eventseal move-master-key --from-aws-kms-key alias/eventseal --keyring /etc/shop/keyring")]
pub(crate) struct MoveMasterKey {
    /// The file of the keyring from which keys are moved
    #[arg(long, value_name = "FILE", help_heading = "Master key")]
    pub(crate) from_keyring: Option<PathBuf>,
    /// The key in AWS KMS from which keys are moved
    #[arg(long, value_name = "KEY", conflicts_with = "from_keyring", help_heading = "Master key")]
    pub(crate) from_aws_kms_key: Option<String>,
    /// Only show what would be moved
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

fn namespace(name: &str) -> Result<Namespace, String> {
    Namespace::new(name).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_themselves() {
        Cli::command().debug_assert();
    }
}
