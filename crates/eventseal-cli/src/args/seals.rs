//! The arguments of `events-of` and `index-seals`.

use super::{Database, Dialect, Progress, Scope};
use crate::connect::EventNames;
use clap::Args;

/// The names of the tables that both commands read.
#[derive(Debug, Args)]
pub(crate) struct SealTables {
    /// Another name for the table of events
    #[arg(long, value_name = "NAME")]
    pub(crate) events_table: Option<String>,
    /// Another name for the table of the index of seals
    #[arg(long, value_name = "NAME")]
    pub(crate) seals_table: Option<String>,
    /// The columns are named as eventsalsa/store does since 0.1: stream_* (PostgreSQL)
    #[arg(long)]
    pub(crate) streams: bool,
}

impl SealTables {
    pub(crate) fn names(&self) -> EventNames<'_> {
        EventNames {
            events: self.events_table.as_deref(),
            heads: None,
            seals: self.seals_table.as_deref(),
            streams: self.streams,
            heads_first: false,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs no master key, because it opens nothing: each sealed event names its keys. Shows no payloads. Finds the events \
of every key that the scope ever had, destroyed ones included. With an index of seals (see index-seals), it reads \
those events and what the index does not cover. Without one, it reads the whole log.

Events whose header can't be read are listed too, whoever's they are: exit code 5. Events that were stored in the \
clear are not found: census counts them.

Examples:
  eventseal events-of Customer cust_42
  eventseal events-of Customer cust_42 --scan --json | jq '.events[].position'")]
pub(crate) struct EventsOf {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) after: i64,
    /// Only events up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) up_to: Option<i64>,
    /// Read the whole log, also if there is an index: the check of what it says
    #[arg(long)]
    pub(crate) scan: bool,
    /// How many events are read at a time
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    #[command(flatten)]
    pub(crate) tables: SealTables,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Makes the index if there is none, and completes it. It leads from a key to the events that it seals, so that \
events-of, certificates and exports need not read the log. Needs no master key. Can be interrupted and run again at \
any time. Appends and reads go on meanwhile.

Appends keep the index if the application says so (index_seals() of its store). Run this for what was stored before, \
and regularly, such as once a day: searches read what was appended since by others.

Examples:
  eventseal index-seals
  eventseal index-seals --per-second 5000
  eventseal index-seals --anew
  eventseal index-seals --print=postgres > 0043_sealed_events.sql")]
pub(crate) struct IndexSeals {
    /// Empty the index first: if somebody changed or restored events past eventseal
    #[arg(long)]
    pub(crate) anew: bool,
    /// Print the SQL that makes the tables instead: for the kind of --database, or for the kind named here
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "database")]
    pub(crate) print: Option<Dialect>,
    /// How many events are indexed in one transaction
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// How many events are looked at in a second, at most
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_second: Option<u32>,
    #[command(flatten)]
    pub(crate) tables: SealTables,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
}
