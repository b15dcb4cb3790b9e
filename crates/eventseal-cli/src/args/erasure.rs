//! The arguments of the commands that come before a shred: holds, schedules and the sweep.

use super::{Cause, Copying, Database, MasterKey, Progress, Scope};
use crate::when;
use clap::Args;
use eventseal::erasure::ShredMode;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

#[derive(Debug, Args)]
#[command(after_help = "\
While a hold is in force, the scope can't be shredded: not at once, and not when a scheduled shred comes due. Appends \
and reads go on. A scope may have several holds.

Examples:
  eventseal hold Customer cust_42 --reason 'case 12/2026' --keyring /etc/shop/keyring
  eventseal hold Customer cust_42 --reason 'audit of 2026' --until 2027-07-01 --keyring /etc/shop/keyring")]
pub(crate) struct Hold {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// When the hold ends by itself: a date (its first moment in UTC), or a time as in RFC 3339. By default never
    #[arg(long, value_name = "TIME", value_parser = when::time)]
    pub(crate) until: Option<OffsetDateTime>,
    #[command(flatten)]
    pub(crate) cause: Cause,
    /// Hold a scope for which nothing was ever sealed
    #[arg(long)]
    pub(crate) allow_unknown: bool,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  eventseal holds --keyring /etc/shop/keyring
  eventseal release Customer cust_42 0199d5d0-7a3e-7c11-9f3c-1d2e3f405162 --reason 'case 12/2026 closed' \
--keyring /etc/shop/keyring")]
pub(crate) struct Release {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// The id of the hold, as holds and hold show it
    #[arg(value_name = "HOLD")]
    pub(crate) hold: Uuid,
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
Reads the entries of the shred log and checks that they are authentic, so it needs the master key. Ends with exit \
code 1 if some are not.

Examples:
  eventseal holds --keyring /etc/shop/keyring
  eventseal holds --keyring /etc/shop/keyring --json | jq '.holds[] | select(.until == null)'")]
pub(crate) struct Holds {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The shred is done by the first sweep from then on, and can be cancelled until it is done.

Examples:
  eventseal schedule-shred Customer cust_42 --in 30d --mode redact --reason 'request 118' --keyring /etc/shop/keyring
  eventseal schedule-shred Customer cust_42 --due 2027-01-31T12:00:00+01:00 --mode keep-working \
--reason 'end of contract 7' --keyring /etc/shop/keyring")]
pub(crate) struct ScheduleShred {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// When the shred comes due: a date (its first moment in UTC), or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::time, required_unless_present = "within")]
    #[arg(conflicts_with = "within")]
    pub(crate) due: Option<OffsetDateTime>,
    /// How long from now the shred comes due, such as 12h, 30d or 4w
    #[arg(long = "in", value_name = "DURATION", value_parser = when::duration)]
    pub(crate) within: Option<Duration>,
    /// What happens to appends and reads until then
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Mode,
    #[command(flatten)]
    pub(crate) cause: Cause,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// They go on
    KeepWorking,
    /// Both are errors
    Disable,
    /// Readers get stand-ins, as after a shred, and appends are errors
    Redact,
}

impl Mode {
    pub(crate) fn of(mode: ShredMode) -> Self {
        match mode {
            ShredMode::KeepWorking => Self::KeepWorking,
            ShredMode::Disable => Self::Disable,
            ShredMode::Redact => Self::Redact,
        }
    }

    pub(crate) fn in_library(self) -> ShredMode {
        match self {
            Self::KeepWorking => ShredMode::KeepWorking,
            Self::Disable => ShredMode::Disable,
            Self::Redact => ShredMode::Redact,
        }
    }

    /// The word of `--mode`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::KeepWorking => "keep-working",
            Self::Disable => "disable",
            Self::Redact => "redact",
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
If the schedule had disabled or redacted the scope, its keys can be used again.

Examples:
  eventseal cancel-shred Customer cust_42 --reason 'request 118 withdrawn' --keyring /etc/shop/keyring")]
pub(crate) struct CancelShred {
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
Reads the entries of the shred log and checks that they are authentic, so it needs the master key. Ends with exit \
code 1 if some are not.

Examples:
  eventseal schedules --keyring /etc/shop/keyring
  eventseal schedules --keyring /etc/shop/keyring --json | jq -r '.schedules[].due'")]
pub(crate) struct Schedules {
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Run it from a timer. Each scope is shredded in a transaction of its own. Can be interrupted and run again at any time, \
and run by several processes at once: each scope is shredded once. A scope that is held stays scheduled, and is named \
(exit code 5). A scope at which something fails is named too (exit code 1), and does not stop the others. Exit code 3 \
means that others had locked some for too long.

Consumers of erasures run in the application only: where there are some, let the application sweep.

Examples:
  eventseal sweep --keyring /etc/shop/keyring
  eventseal sweep --append-to /mnt/elsewhere/shop.shredlog --keyring /etc/shop/keyring
  eventseal sweep --aws-kms-key alias/eventseal --json")]
pub(crate) struct Sweep {
    /// Who does this. Kept for good. By default the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub(crate) actor: Option<String>,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}
