//! The arguments of `census`.

use super::{Database, Progress};
use crate::connect::EventNames;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key and no key tables, because it opens nothing: an event counts as sealed if its payload begins with \
a header. Counts range by range, each in a statement of its own, so that nothing else has to wait. Events that are \
appended meanwhile may not be counted.

With --schemas, it says which steps stored events need, and which steps they do not need any more. Pass the file that \
belongs to the code that reads this database: for other code, the answer is wrong.

Examples:
  eventseal census
  eventseal census --schemas schemas.json
  eventseal census --schemas schemas.json --payloads=all --check
  eventseal census --after 12000000 --json | jq '.types[] | select(.without_header > 0)'")]
pub(crate) struct Census {
    /// A schema lock of eventseal-testing: which types are registered and protected, and where steps lead
    #[arg(long, value_name = "FILE")]
    pub(crate) schemas: Option<PathBuf>,
    /// Look for plaintext in the payloads of protected versions: in those without a header, or in all
    #[arg(long, value_name = "WHICH", requires = "schemas")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "without-header")]
    pub(crate) payloads: Option<Payloads>,
    /// End with exit code 5 if events can't be read, or if --payloads finds protected values in the clear
    #[arg(long, requires = "schemas")]
    pub(crate) check: bool,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) after: i64,
    /// Only events up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) up_to: Option<i64>,
    /// How many positions are counted in one statement
    #[arg(long, value_name = "POSITIONS", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch: u64,
    /// Another name for the table of events
    #[arg(long, value_name = "NAME")]
    pub(crate) events_table: Option<String>,
    /// The columns are named as eventsalsa/store does since 0.1: stream_* (PostgreSQL)
    #[arg(long)]
    pub(crate) streams: bool,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Which payloads are looked into. The variants have no doc comments, because clap would then print a longer help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Payloads {
    WithoutHeader,
    All,
}

impl Census {
    pub(crate) fn names(&self) -> EventNames<'_> {
        EventNames {
            events: self.events_table.as_deref(),
            heads: None,
            seals: None,
            streams: self.streams,
            heads_first: false,
        }
    }
}
