//! What a census can be asked for.

use super::{Database, Progress};
use crate::connect::EventNames;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key and no key tables, and opens nothing: an event counts as sealed if its payload begins with a header. \
Counts range by range, each in a statement of its own, so that nothing is held up. What is appended meanwhile may be \
missing.

With --schemas, it says what stored events need, and what they need no more. That is worth as much as the file: take the \
one of the code that reads this database.

Examples:
  eventseal census
  eventseal census --schemas schemas.json
  eventseal census --schemas schemas.json --payloads=all --check
  eventseal census --after 12000000 --json | jq '.types[] | select(.without_header > 0)'")]
pub(crate) struct Census {
    /// A schema lock of eventseal-testing: what is registered and protected, and where steps lead
    #[arg(long, value_name = "FILE")]
    pub(crate) schemas: Option<PathBuf>,
    /// Look into payloads of protected versions for what lies in the clear: those without a header, or all
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "without-header", requires = "schemas")]
    pub(crate) payloads: Option<Payloads>,
    /// End with exit code 5 if events can't be read, or if --payloads found some in the clear
    #[arg(long, requires = "schemas")]
    pub(crate) check: bool,
    /// Only what comes after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) after: i64,
    /// Only what comes up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) up_to: Option<i64>,
    /// How many positions are counted in one statement
    #[arg(long, value_name = "POSITIONS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch: u64,
    /// Another name for the table of events
    #[arg(long, value_name = "NAME")]
    pub(crate) events_table: Option<String>,
    /// The columns are named as the newest eventsalsa/store does: stream_* (PostgreSQL)
    #[arg(long)]
    pub(crate) streams: bool,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
}

/// Which payloads are looked into. (What is said here of single values would make the help a page longer.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Payloads {
    WithoutHeader,
    All,
}

impl Census {
    pub(crate) fn names(&self) -> EventNames<'_> {
        EventNames { events: self.events_table.as_deref(), heads: None, streams: self.streams, heads_first: false }
    }
}
