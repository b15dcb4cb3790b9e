//! `verify`: looks at everything that is stored, and says what is not as it should be.
//!
//! It shows the result of the library's [`SealedStore::verify`]. It has no registry in code. The schema lock of the
//! application says which places are protected.

use crate::args::Verify;
use crate::connect::{AnyDb, Backend, Db, connect, postgres_store, sqlite_store};
use crate::copies;
use crate::master_key;
use crate::output::{Exit, Failure, Progress, Report, count, number, shown};
use crate::registered::Registered;
use crate::shred_log;
use eventseal::erasure::{FoundAt, Verified, VerifyFinding, VerifyOptions, VerifyProgress};
use eventseal::kms::Kms;
use eventseal::store::{EventTable, PositionRange};
use eventseal::{Error, EventStore, GlobalPosition, Schemas, SealedStore};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) async fn verify(args: Verify, json: bool) -> Result<Report, Failure> {
    let schemas = match &args.schemas {
        Some(path) => Registered::read(path)?.schemas(true)?,
        None => Schemas::new([]).map_err(Error::from)?,
    };
    let kms = master_key::open(&args.master_key).await?;
    match connect(&args.database).await? {
        AnyDb::Sqlite(db) => {
            let store = sqlite_store(&args.names())?;
            run(db, store, kms, schemas, &args, json).await
        }
        AnyDb::Postgres(db) => {
            let store = postgres_store(&args.database, &args.names())?;
            run(db, store, kms, schemas, &args, json).await
        }
    }
}

async fn run<C: Backend, S>(
    mut db: Db<C>,
    store: S,
    kms: Arc<dyn Kms>,
    schemas: Schemas,
    args: &Verify,
    json: bool,
) -> Result<Report, Failure>
where
    S: EventStore<Tx = C> + EventTable<Tx = C>,
{
    let namespace = db.namespace().await?;
    let store = SealedStore::with_keys(store, db.manager(kms), schemas);
    let mut options = VerifyOptions::default();
    options.range =
        PositionRange { after: args.after.try_into()?, up_to: args.up_to.map(GlobalPosition::try_from).transpose()? };
    options.batch = args.batch;
    let mut bar = Progress::new(json, args.progress.progress_every, "scopes");
    let after = args.after;
    let mut show = |progress: VerifyProgress| {
        let from_start = |position: GlobalPosition| position.get().saturating_sub(after).unsigned_abs();
        if progress.events == 0 && progress.entries == 0 {
            bar.at(progress.scopes, progress.scopes);
        } else if progress.events == 0 {
            bar.count_in("entries");
            bar.at(progress.entries, progress.entries);
        } else {
            bar.count_in("positions");
            bar.at(from_start(progress.position), from_start(progress.last));
            crate::interrupt::kept(format!(
                "nothing was changed; go on with --after {}, and keep what was found before",
                progress.position
            ));
        }
    };
    let copies = copies::all(&args.shred_log, &args.database)?;
    let verified = store.verify(&mut db.connection, &copies::ports(&copies), &options, &mut show).await?;
    bar.finish();
    let place = db.place.clone();
    Ok(report(&place, &verified, args).of(&namespace, &place))
}

fn report(place: &str, verified: &Verified, args: &Verify) -> Report {
    let mut text = format!("{}\n", shown(place));
    let mut line = |words: String| {
        let _ = writeln!(text, "  {words}");
    };
    line(format!(
        "{}: {} sealed, {} opened, {} redacted",
        count(verified.events, "event"),
        number(verified.sealed),
        count(verified.opened, "value"),
        number(verified.redacted)
    ));
    line(format!(
        "{}: {} open, {} destroyed; {} open",
        count(verified.scopes, "scope"),
        count(verified.live_keys, "data key"),
        number(verified.destroyed_keys),
        count(verified.keks, "key-encryption key")
    ));
    line(format!("shred log: {}", shred_log::entries(verified.log_entries)));
    for copy in &verified.copies {
        let state = shred_log::of_copy(copy.state);
        line(format!("copy {}: {}; {state}", shown(&copy.name), shred_log::entries(copy.seq)));
    }
    let apart = [
        (verified.missing_keys, "data key", "without a row: a loss is no erasure"),
        (
            verified.disabled,
            "event",
            "of a disabled or withheld scope, which can't be verified before it is enabled, or its scheduled shred \
             is cancelled",
        ),
        (verified.accepted_plaintext, "event", "with protected values in the clear, which the schemas allow"),
    ];
    for (number, what, words) in apart.into_iter().filter(|(number, ..)| *number > 0) {
        line(format!("{} {words}", count(number, what)));
    }
    match &args.schemas {
        None => line("What should be protected is not known: pass --schemas with the application's lock".to_owned()),
        Some(_) if verified.unregistered > 0 => {
            line(format!("{} of types or versions that the lock does not know", count(verified.unregistered, "event")));
        }
        Some(_) => {}
    }
    text.push('\n');
    let mut exit = Exit::Done;
    if verified.is_clean() {
        text.push_str("Everything is as it should be.");
    } else {
        exit = Exit::Problems;
        text.extend(verified.findings.iter().map(finding));
    }
    Report::new(text, as_json(verified, args)).ending(exit)
}

fn finding(finding: &VerifyFinding) -> String {
    format!(
        "✗ {}, {}: first {}\n    {}\n",
        finding.kind.as_str().replace('_', " "),
        times(finding.count),
        shown(&finding.first.to_string()),
        shown(&finding.problem)
    )
}

fn as_json(verified: &Verified, args: &Verify) -> Value {
    json!({
        "clean": verified.is_clean(),
        "after": verified.range.after.get(),
        "up_to": verified.range.up_to.map_or(0, GlobalPosition::get),
        "schemas": args.schemas.is_some(),
        "events": verified.events,
        "sealed": verified.sealed,
        "opened": verified.opened,
        "redacted": verified.redacted,
        "accepted_plaintext": verified.accepted_plaintext,
        "unregistered": verified.unregistered,
        "disabled": verified.disabled,
        "missing_keys": verified.missing_keys,
        "scopes": verified.scopes,
        "live_keys": verified.live_keys,
        "destroyed_keys": verified.destroyed_keys,
        "keks": verified.keks,
        "log_entries": verified.log_entries,
        "copies": verified.copies.iter().map(shred_log::copy_json).collect::<Vec<_>>(),
        "findings": verified.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{} times", number(count)) }
}

fn finding_json(finding: &VerifyFinding) -> Value {
    let mut json = json!({
        "kind": finding.kind.as_str(),
        "count": finding.count,
        "first": finding.first.to_string(),
        "problem": finding.problem,
    });
    if let FoundAt::Event { position, event_id } = &finding.first {
        json["position"] = position.get().into();
        json["event_id"] = event_id.to_string().into();
    }
    json
}
