//! `status`: shows the key-encryption keys, how many data keys each one wraps, and what is due.

use crate::args::Status;
use crate::certificate::describe_horizon;
use crate::connect::{AnyDb, Backend, Db, connect, postgres_store, sqlite_store};
use crate::keks::{is_needed, usage_json};
use crate::output::{Exit, Failure, Report, count, number, shown, table, time};
use eventseal::erasure::{DueScope, Horizon};
use eventseal::error::SetUpFault;
use eventseal::keys::{KekState, KekUsage, KeyTable};
use eventseal::store::EventTable;
use eventseal::{Error, Namespace};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use time::{Duration, OffsetDateTime};

pub(crate) async fn status(args: Status) -> Result<Report, Failure> {
    match connect(&args.database).await? {
        AnyDb::Sqlite(mut db) => {
            let store = sqlite_store(&args.names())?;
            look(&mut db, &store, &args).await
        }
        AnyDb::Postgres(mut db) => {
            let store = postgres_store(&args.database, &args.names())?;
            look(&mut db, &store, &args).await
        }
    }
}

async fn look<C: Backend, S: EventTable<Tx = C>>(db: &mut Db<C>, store: &S, args: &Status) -> Result<Report, Failure> {
    let namespace = db.namespace().await?;
    let usage = db.keys.kek_usage(&mut db.connection).await?;
    let now = OffsetDateTime::now_utc();
    let overdue = db.keys.due_scopes(&mut db.connection, Some(now), None, OVERDUE).await?;
    let mut report = report(&namespace, &db.place, &usage, &overdue, args, now);
    let index = match store.seal_index() {
        Some(index) => match index.state(&mut db.connection).await {
            // An operator of keys need not see the events.
            Err(Error::SetUp(SetUpFault::PermissionDenied { .. })) => None,
            state => state?,
        },
        None => None,
    };
    if let Some(index) = index {
        let _ = writeln!(report.text, "\nIndex of seals: complete up to position {}", index.complete_up_to);
    }
    report.json["seal_index"] = index.map(|index| json!({ "complete_up_to": index.complete_up_to.get() })).into();
    Ok(report)
}

/// How many scopes that are due are counted.
const OVERDUE: u32 = 10_000;

fn report(
    namespace: &Namespace,
    place: &str,
    usage: &[KekUsage],
    overdue: &[DueScope],
    args: &Status,
    now: OffsetDateTime,
) -> Report {
    let (due, unfinished, overdue) = (due(usage, args.max_age, now), unfinished(usage), unswept(overdue));
    let mut text = format!("Namespace {}\n{}\n", shown(namespace.as_str()), shown(place));
    let partitions: BTreeSet<&str> = usage.iter().map(|usage| usage.kek.partition.as_str()).collect();
    for partition in partitions {
        let rows = usage.iter().filter(|usage| usage.kek.partition == partition).map(|usage| {
            let wrapped = usage
                .oldest_wrap
                .map(|at| format!("{}, {} d", at.to_offset(time::UtcOffset::UTC).date(), age(at, now)));
            vec![
                usage.kek.kek_id.to_string(),
                usage.kek.state.as_str().to_owned(),
                number(usage.live_keys),
                wrapped.unwrap_or_default(),
            ]
        });
        let keks = table(&["KEY-ENCRYPTION KEY", "STATE", ">DATA KEYS", "OLDEST WRAP"], rows);
        let _ = writeln!(text, "\nPartition {}\n{keks}", shown(partition));
    }
    let masters = masters(usage.iter());
    let rows = masters.iter().map(|((provider, id), keks)| vec![shown(provider), shown(id), keks.to_string()]);
    if masters.is_empty() {
        text.push_str("\nThere is no key-encryption key yet: eventseal prepare makes the first.\n");
    } else {
        let _ = writeln!(text, "\nMaster keys\n{}", table(&["PROVIDER", "ID", ">KEYS"], rows));
    }
    for (heading, items) in [("Rotation due", &due), ("Unfinished", &unfinished), ("Shreds overdue", &overdue)] {
        let _ = writeln!(text, "\n{heading}{}", if items.is_empty() { ": nothing" } else { "" });
        for (problem, remedy) in items {
            let _ = writeln!(text, "  {}\n    {}", shown(problem), shown(remedy));
        }
    }
    let horizon = Horizon::of(&args.copies.retention(), now);
    describe_horizon(&mut text, "Horizon of everything shredded until now", "it", &horizon);
    let list = |items: &[(String, String)]| {
        items.iter().map(|(problem, remedy)| json!({ "problem": problem, "remedy": remedy })).collect::<Vec<_>>()
    };
    let json = json!({
        "keks": usage.iter().map(usage_json).collect::<Vec<_>>(),
        "rotation_due": list(&due),
        "unfinished": list(&unfinished),
        "overdue": list(&overdue),
        "horizon": horizon,
    });
    let is_done = due.is_empty() && unfinished.is_empty() && overdue.is_empty();
    let exit = if args.check && !is_done { Exit::Problems } else { Exit::Done };
    Report::new(text, json).of(namespace, place).ending(exit)
}

/// Active keys that are older than `max_age` days, each with what to do.
fn due(usage: &[KekUsage], max_age: u32, now: OffsetDateTime) -> Vec<(String, String)> {
    let active = usage.iter().map(|usage| &usage.kek).filter(|kek| kek.state == KekState::Active);
    let old = active.filter(|kek| now - kek.created_at >= Duration::days(max_age.into()));
    old.map(|kek| {
        let partition = shown(&kek.partition);
        let problem =
            format!("partition {partition}: its active key is {} old", count(age(kek.created_at, now), "day"));
        (problem, format!("eventseal rotate-kek --partition {partition}, then eventseal rewrap"))
    })
    .collect()
}

/// Scheduled shreds that are due, and were not swept.
fn unswept(overdue: &[DueScope]) -> Vec<(String, String)> {
    let Some(first) = overdue.first() else { return Vec::new() };
    let number = overdue.len() as u64;
    let least = if number == u64::from(OVERDUE) { "at least " } else { "" };
    let are = if number == 1 { "is" } else { "are" };
    let problem = format!("{least}{} {are} due, the first since {}", count(number, "scheduled shred"), time(first.due));
    vec![(problem, "eventseal sweep, which names those that are held".to_owned())]
}

/// Rotations and moves that were begun and not finished, each with what to do.
fn unfinished(usage: &[KekUsage]) -> Vec<(String, String)> {
    let mut items = Vec::new();
    let unfinished = |usage: &&KekUsage| match usage.kek.state {
        KekState::Active => false,
        KekState::DecryptOnly => true,
        KekState::Retired => usage.live_keys > 0,
    };
    for KekUsage { kek, live_keys, .. } in usage.iter().filter(unfinished) {
        items.push(if *live_keys > 0 {
            let problem = format!("{} wraps {} still", kek.kek_id, count(*live_keys, "data key"));
            (problem, format!("eventseal rewrap --partition {}", shown(&kek.partition)))
        } else {
            (format!("{} wraps nothing any more", kek.kek_id), format!("eventseal retire-kek {}", kek.kek_id))
        });
    }
    // A retired key stays under its master key: moved to the new one, it would open old backups.
    let masters = masters(usage.iter().filter(|usage| is_needed(usage)));
    if masters.len() > 1 {
        let problem = format!("{} master keys are in use", masters.len());
        items.push((problem, "eventseal move-master-key, to the one that shall stay".to_owned()));
    }
    items
}

/// Each master key by provider and id, with the number of key-encryption keys that it wraps.
fn masters<'a>(usage: impl Iterator<Item = &'a KekUsage>) -> BTreeMap<(&'a str, &'a str), usize> {
    let mut masters = BTreeMap::new();
    for KekUsage { kek, .. } in usage {
        *masters.entry((kek.provider.as_str(), kek.wrapped.master_key_id.as_str())).or_default() += 1;
    }
    masters
}

fn age(at: OffsetDateTime, now: OffsetDateTime) -> u64 {
    (now - at).whole_days().max(0).unsigned_abs()
}
