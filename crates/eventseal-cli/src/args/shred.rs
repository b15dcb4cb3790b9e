//! The arguments of `shred`.

use super::{Cause, Copying, Database, MasterKey, Progress};
use clap::Args;
use eventseal::KeyScope;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
Shows what would be destroyed, and asks for the scope's id, or for the number of scopes. Without a terminal, --yes is \
needed. Backups of the key table still hold the keys: let them expire. Other scopes with this id, or with another \
spelling of it, are named and not touched.

With --from or --partition, each scope is shredded in a transaction of its own. The command can be interrupted and run \
again at any time: what was shredded before is left as it is. A scope that can't be shredded, such as one on hold, is \
skipped and named (exit code 5; 3 if others only held it locked). All lines of a file are checked before anything is \
done. Stop the appends of a partition first: scopes that are made after the last look are not shredded, until you run \
it again.

With --append-to, the copy of the shred log has the shred before it is reported. If the copy can't be reached, nothing \
is begun. If it is lost meanwhile, the shred stays, and the command says so and ends with exit code 1.

Examples:
  eventseal shred Customer cust_42 --reason 'request 118' --append-to /mnt/elsewhere/shop.shredlog
  eventseal shred Customer cust_42 --reason 'request 118' --yes --json
  eventseal shred --from requests.jsonl --reason 'erasures of May' --append-to /mnt/elsewhere/shop.shredlog
  echo '{\"kind\": \"Customer\", \"id\": \"cust_42\", \"reason\": \"request 118\"}' | eventseal shred --from - --yes
  eventseal shred --partition tenant_7 --reason 'contract 12 ended'")]
pub(crate) struct Shred {
    /// The kind of scope, such as Customer
    #[arg(value_name = "KIND", required_unless_present_any = ["from", "partition"], requires = "id")]
    kind: Option<String>,
    /// The id of the scope, such as cust_42
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Shred the scopes of a file, or of standard input (-): JSON lines with kind, id and, if it is not that of
    /// --reason, reason
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "id", "partition", "schemas"])]
    from: Option<PathBuf>,
    /// Shred all scopes whose newest data key belongs to this partition
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kind", "id", "schemas", "allow_unknown"])]
    partition: Option<String>,
    /// Why you do this. Kept for good: name the request, not the person
    #[arg(long, value_name = "TEXT", required_unless_present = "from")]
    reason: Option<String>,
    /// Who does this. Kept for good. By default the user of the operating system
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// A schema lock of eventseal-testing, to check that the application knows this kind
    #[arg(long, value_name = "FILE")]
    pub(crate) schemas: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Shred a scope for which nothing was ever sealed, so that nothing ever will be
    #[arg(long)]
    pub(crate) allow_unknown: bool,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

/// What is to be shredded.
pub(crate) enum Shredded<'a> {
    One(KeyScope),
    List(&'a PathBuf),
    Partition(&'a str),
}

impl Shred {
    pub(crate) fn what(&self) -> Shredded<'_> {
        match (&self.from, &self.partition) {
            (Some(file), _) => Shredded::List(file),
            (None, Some(partition)) => Shredded::Partition(partition),
            // clap demands both of them.
            (None, None) => {
                let [kind, id] = [&self.kind, &self.id].map(|name| name.as_deref().unwrap_or_default());
                Shredded::One(KeyScope::new(kind, id))
            }
        }
    }

    /// The reason is empty if each line of a file must have its own.
    pub(crate) fn cause(&self) -> Cause {
        Cause { reason: self.reason.clone().unwrap_or_default(), actor: self.actor.clone() }
    }
}
