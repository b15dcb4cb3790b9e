//! The arguments of `export`.

use super::seals::SealTables;
use super::{Database, MasterKey, Progress, Scope};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
For a request of access or portability. Writes lines of JSON: who it is about, one line for each event with sealed \
values of this owner, and a last line that says whether all are there. A file without the last line was cut off. \
Protected values of others are never opened, and are left out; what is stored in the clear is not. Changes nothing.

An event that can't be read is named, and the command then ends with exit code 1. Without --out, the lines go to \
standard output.

Examples:
  eventseal export Customer cust_42 --out cust_42.jsonl --keyring /etc/shop/keyring
  eventseal export Customer cust_42 --aws-kms-key alias/eventseal | jq -c 'select(.stored) | .stored.payload'")]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Write into this new file, which only its owner may read. It gets its name once it is complete
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Leave metadata out: it is stored in the clear, and nothing says whose data is in it
    #[arg(long)]
    pub(crate) no_metadata: bool,
    /// Only events after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) after: i64,
    /// Only events up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) up_to: Option<i64>,
    /// Read the whole log, also if there is an index of seals: the check of what it says
    #[arg(long)]
    pub(crate) scan: bool,
    #[command(flatten)]
    pub(crate) tables: SealTables,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}
