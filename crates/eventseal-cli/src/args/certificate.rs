//! The arguments of `certificate`, and what it and `status` are told about copies of the keys.

use super::seals::SealTables;
use super::shared::copy;
use super::{Database, MasterKey, Progress};
use clap::Args;
use eventseal::KeyScope;
use eventseal::erasure::Retention;
use std::path::PathBuf;
use std::time::Duration;
use time::format_description::well_known::Rfc3339;
use time::{Date, OffsetDateTime};

#[derive(Debug, Args)]
#[command(after_help = "\
Says what is left of a scope: its keys, its stored events by type, its holds, its entries in the shred log, and from \
when on no copy of the keys opens anything. It opens no event. It checks the whole shred log, and with --shred-log a \
copy of it: once the copy has the entry of the shred, the erasure is proved. It states only what was looked at, and \
names the rest.

Ends with exit code 6 if the scope is not erased: the certificate then says why not. Ends with 5 if it is erased, and \
something is wrong with the shred log, or the copy does not prove it.

The page of --html is for people: it opens without a network, and prints on A4. It says what the JSON says.

With --from, the shred log, its copies and the stored events are read once for all scopes. The result has every \
certificate, and the scopes without one, such as one that is misspelled. The exit code is that of the worst: 6 if a \
scope is not erased or has no certificate.

Examples:
  eventseal certificate Customer cust_42 --shred-log /mnt/elsewhere/shop.shredlog --keyring /etc/shop/keyring
  eventseal certificate Customer cust_42 --html erasure-118.html --json > erasure-118.json
  eventseal certificate --from requests.jsonl --shred-log /mnt/elsewhere/shop.shredlog --json > requests.json
  eventseal certificate Customer cust_42 --retention backups=35d,archives=none,replicas=1h")]
pub(crate) struct Certificate {
    /// The kind of scope, such as Customer
    #[arg(value_name = "KIND", required_unless_present = "from", requires = "id")]
    kind: Option<String>,
    /// The id of the scope, such as cust_42
    #[arg(value_name = "ID", allow_hyphen_values = true)]
    id: Option<String>,
    /// Issue the certificates of all scopes of a file, or of standard input (-): JSON lines with kind and id, as for
    /// shred --from. A reason is not looked at
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "id", "html"])]
    pub(crate) from: Option<PathBuf>,
    /// Write the certificate as an HTML page into this file too. The file must not be there yet
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// A copy of the shred log, which proves the erasure: a file, or the URL of a database as for shred-log export. May
    /// be named several times
    #[arg(long, value_name = "COPY", value_parser = copy())]
    pub(crate) shred_log: Vec<PathBuf>,
    /// How many events are read at a time
    #[arg(long, value_name = "EVENTS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Read the whole log, also if there is an index of seals: the check of what it says
    #[arg(long)]
    pub(crate) scan: bool,
    #[command(flatten)]
    pub(crate) tables: SealTables,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) progress: Progress,
    #[command(flatten)]
    pub(crate) database: Database,
    #[command(flatten)]
    pub(crate) master_key: MasterKey,
}

impl Certificate {
    /// The scope that is named by itself.
    pub(crate) fn scope(&self) -> Option<KeyScope> {
        Some(KeyScope::new(self.kind.as_deref()?, self.id.as_deref()?))
    }
}

/// What is known about copies of the keys. It is a text and not a file, so that one variable in the environment of a
/// host serves every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Copies of the keys")]
pub(crate) struct Copies {
    /// How long copies of the key database are kept: backups=35d,archives=none,replicas=1h, and how long the KMS waits
    /// before it deletes a master key: kms=30d (m, h, d, w; none: there are no such copies)
    #[arg(long, value_name = "TEXT", env = "EVENTSEAL_RETENTION", value_parser = retention)]
    retention: Option<Retention>,
    /// When the KMS was asked to delete the master key of all these copies: a date, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    master_key_deletion: Option<OffsetDateTime>,
}

impl Copies {
    pub(crate) fn retention(&self) -> Retention {
        let mut retention = self.retention.unwrap_or_default();
        retention.master_key_deletion = self.master_key_deletion;
        retention
    }
}

fn retention(text: &str) -> Result<Retention, String> {
    let mut retention = Retention::default();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or("write backups=35d,archives=none,replicas=1h,kms=30d")?;
        let kept = match name.trim() {
            "backups" => &mut retention.backups,
            "archives" => &mut retention.archives,
            "replicas" => &mut retention.replicas,
            "kms" => &mut retention.kms_waiting_period,
            other => return Err(format!("there is no {other:?}: name backups, archives, replicas and kms")),
        };
        if kept.is_some() {
            return Err(format!("{name} is there twice"));
        }
        *kept = Some(duration(value.trim())?);
    }
    Ok(retention)
}

fn duration(text: &str) -> Result<Duration, String> {
    if text == "none" {
        return Ok(Duration::ZERO);
    }
    let problem = || format!("{text:?} is no duration: write 35d, 12h, 30m or 2w, or none");
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(problem()),
    };
    let number: u32 = number.parse().map_err(|_| problem())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(at);
    }
    let date = Date::parse(text, time::macros::format_description!("[year]-[month]-[day]"));
    let problem = || format!("{text:?} is no time: write 2026-12-31, or 2026-12-31T23:59:59Z");
    Ok(date.map_err(|_| problem())?.midnight().assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_read() {
        let read = retention("backups=35d, archives=none,replicas=90m,kms=2w").unwrap();
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!((read.backups, read.archives, read.kms_waiting_period), (days(35), days(0), days(14)));
        assert_eq!(read.replicas, Some(Duration::from_secs(5_400)));
        assert_eq!(retention("backups=1h").unwrap().archives, None);
        for text in ["", "35d", "backups", "backups=", "backups=35", "backups=d", "backups=1y", "backups=-1d"] {
            assert!(retention(text).is_err(), "{text}");
        }
        assert!(retention("backups=1d,backups=2d").unwrap_err().contains("twice"));
        assert!(retention("tapes=1d").unwrap_err().contains("backups, archives, replicas"));
    }

    #[test]
    fn times_are_dates_or_exact() {
        assert_eq!(moment("2026-12-31").unwrap(), moment("2026-12-31T01:00:00+01:00").unwrap());
        for text in ["", "2026-13-01", "tomorrow", "2026-12-31T00:00:00"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
