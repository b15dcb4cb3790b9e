//! The arguments of `shred-log`.

use super::shared::copy;
use super::{Cause, Copying, Database, MasterKey, Progress};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum ShredLog {
    /// Add to a copy of the shred log what the copy does not have
    Export(ExportLog),
    /// Check the shred log, the keys that it speaks of, and a copy
    Verify(VerifyLog),
    /// After a restore: put the entries of a copy back, and destroy again what they say was destroyed
    Replay(ReplayLog),
    /// Once, after a migration: take what was changed before there was a log for true
    Adopt(AdoptLog),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Keep the copy where a restore of the key database does not reach: a file, or a table in another database, which a URL \
names. The table is shred_log_copy, or the one after a #. The copy names scopes, so keep it private. Run this often: \
what was shredded since the last export may come back with a restore.

Examples:
  eventseal shred-log export --append /mnt/elsewhere/shop.shredlog --keyring /etc/shop/keyring
  eventseal shred-log export --append postgres://copier@elsewhere/logs --keyring /etc/shop/keyring
  eventseal shred-log export --append sqlite:///mnt/logs.db#shop --keyring /etc/shop/keyring
  eventseal shred-log export --append shop.shredlog --aws-kms-key alias/eventseal --json")]
pub(crate) struct ExportLog {
    /// The copy: a file, or the URL of a database. It is begun if it does not exist
    #[arg(long, value_name = "COPY", value_parser = copy())]
    pub(crate) append: PathBuf,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Ends with exit code 5 if it finds something, and if a copy does not exist, is empty or lacks entries. Without a copy \
it can't see that the last entries were dropped, or that everything was restored.

Examples:
  eventseal shred-log verify --keyring /etc/shop/keyring
  eventseal shred-log verify /mnt/elsewhere/shop.shredlog --keyring /etc/shop/keyring --json
  eventseal shred-log verify shop.shredlog postgres://reader@elsewhere/logs --keyring /etc/shop/keyring")]
pub(crate) struct VerifyLog {
    /// Copies: files, or URLs of databases as for export. Each must be the beginning of the longest
    #[arg(value_name = "COPY", value_parser = copy())]
    pub(crate) copies: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Checks every copy first, and changes nothing if a line is wrong. Of several copies, each must be the beginning of the \
longest, which is replayed. Destroys exactly the keys that shreds name. Can be interrupted and run again at any time. \
Ends with exit code 5 if something is left for you to decide: scopes that were put on hold since the restore, and \
shredded scopes for which something was sealed since.

Examples:
  eventseal shred-log replay /mnt/elsewhere/shop.shredlog --dry-run --keyring /etc/shop/keyring
  eventseal shred-log replay /mnt/elsewhere/shop.shredlog --keyring /etc/shop/keyring")]
pub(crate) struct ReplayLog {
    /// Copies: files, or URLs of databases as for export
    #[arg(value_name = "COPY", required = true, value_parser = copy())]
    pub(crate) copies: Vec<PathBuf>,
    /// Only show what is missing, and what would become of each scope
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
Changes of scopes from before there was a shred log were carried over without anything that authenticates them. \
Nothing tells them from changes that somebody invented who can write to the key table. So their scopes can't be \
changed until they are adopted. Look at them first: 'shred-log verify' lists the scopes, 'keys show' shows what was \
done.

This can be done once: afterwards, an entry without a MAC is never adopted. Run it on a new key table too. Ends with \
exit code 5 if it leaves scopes alone: their rows say something else than their entries.

Examples:
  eventseal shred-log verify --keyring /etc/shop/keyring
  eventseal shred-log adopt --reason 'upgrade, change 77' --keyring /etc/shop/keyring")]
pub(crate) struct AdoptLog {
    #[command(flatten)]
    pub(crate) cause: Cause,
    #[command(flatten)]
    pub(crate) copying: Copying,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}
