//! The arguments of `verify`.

use super::shared::copy;
use super::{Database, MasterKey, Progress};
use crate::connect::EventNames;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing. Every seal must parse and be authentic, every key must open, scopes, keys and the shred log must \
agree, and the chain of the log must hold. With --schemas, no place that the schemas protect may be in the clear. \
With --shred-log, the copy must be the beginning of the log. Ends with exit code 5 if anything is found; each kind of \
finding is counted, and its first place named.

Best at rest: what others do meanwhile may be looked at half done. After an interruption, go on with --after.

Examples:
  eventseal verify --keyring /etc/shop/keyring --schemas schemas.json
  eventseal verify --aws-kms-key alias/eventseal --after 12000000
  eventseal verify --keyring /etc/shop/keyring --shred-log /mnt/elsewhere/shop.shredlog
  eventseal verify --keyring /etc/shop/keyring --json | jq '.findings[]'")]
pub(crate) struct Verify {
    /// A schema lock of eventseal-testing: which places are protected
    #[arg(long, value_name = "FILE")]
    pub(crate) schemas: Option<PathBuf>,
    /// A copy of the shred log: a file, or the URL of a database as for shred-log export. May be named several times
    #[arg(long, value_name = "COPY", value_parser = copy())]
    pub(crate) shred_log: Vec<PathBuf>,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) after: i64,
    /// Only events up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) up_to: Option<i64>,
    /// How many events are looked at in one statement
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
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
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

impl Verify {
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
