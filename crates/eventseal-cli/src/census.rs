//! `census`: counts the stored events of each type and version, and says which steps they need.
//!
//! It shows the result of the library's [`Census`]. It has no registry in code. The schema lock of the application can
//! take its place.

mod findings;

use crate::args::{self, Payloads};
use crate::connect::{AnyDb, Backend, connect, postgres_store, sqlite_store};
use crate::master_key::NoMasterKey;
use crate::output::{Exit, Failure, Progress, Report, count, exact_time, number, shown, table};
use crate::registered::Registered;
use eventseal::error::SetUpFault;
use eventseal::maintenance::{Census, CensusOptions, CensusProgress, CensusRow};
use eventseal::store::{EventTable, PositionRange};
use eventseal::{Error, EventStore, GlobalPosition, SealedStore};
use findings::Findings;
use serde_json::{Value, json};
use std::fmt::Write as _;
use time::OffsetDateTime;

pub(crate) async fn census(args: args::Census, json: bool) -> Result<Report, Failure> {
    let registered = args.schemas.as_deref().map(Registered::read).transpose()?;
    let mut bar = Progress::new(json, args.progress.progress_every, "positions");
    let (place, census) = match connect(&args.database).await? {
        AnyDb::Sqlite(mut db) => {
            let store = sqlite_store(&args.names())?;
            (db.place, take(store, db.keys, &mut db.connection, registered.as_ref(), &args, &mut bar).await?)
        }
        AnyDb::Postgres(mut db) => {
            let store = postgres_store(&args.database, &args.names())?;
            (db.place, take(store, db.keys, &mut db.connection, registered.as_ref(), &args, &mut bar).await?)
        }
    };
    bar.finish();
    Ok(report(&place, &census, registered.as_ref(), &args))
}

async fn take<C: Backend, S>(
    store: S,
    keys: C::Keys,
    connection: &mut C,
    registered: Option<&Registered>,
    args: &args::Census,
    bar: &mut Progress,
) -> Result<Census, Failure>
where
    S: EventStore<Tx = C> + EventTable<Tx = C>,
{
    let mut options = CensusOptions::default();
    options.range =
        PositionRange { after: args.after.try_into()?, up_to: args.up_to.map(GlobalPosition::try_from).transpose()? };
    options.positions_per_scan = Some(args.batch);
    options.every_payload = args.payloads == Some(Payloads::All);
    let after = args.after;
    let mut show = |progress: CensusProgress| show(bar, after, progress);
    let taken = match registered {
        None => Census::take(&store, connection, &options, &mut show).await,
        Some(registered) => {
            let schemas = registered.schemas(args.payloads.is_some())?;
            // A census uses neither keys nor the KMS.
            SealedStore::new(store, keys, NoMasterKey, schemas).census(connection, &options, &mut show).await
        }
    };
    taken.map_err(no_table)
}

fn show(bar: &mut Progress, after: i64, progress: CensusProgress) {
    let (done, all, unit) = if progress.looked_at > 0 {
        (progress.looked_at, progress.to_look_at, "payloads")
    } else {
        let from_start = |position: GlobalPosition| position.get().saturating_sub(after).unsigned_abs();
        (from_start(progress.counted_to), from_start(progress.last), "positions")
    };
    bar.count_in(unit);
    bar.at(done, all);
}

/// Adds a remedy to an error that the tables of events are missing or have other names.
pub(crate) fn no_table(error: Error) -> Failure {
    let what = match &error {
        Error::SetUp(SetUpFault::NoEventTables { table, .. }) => {
            format!("there is no table of events {}", shown(table))
        }
        Error::SetUp(SetUpFault::OutdatedTables { .. }) => {
            "the columns of the table of events have other names".to_owned()
        }
        _ => return error.into(),
    };
    let remedy = "look whether --database, --schema, --events-table and --streams are right; eventseal migrate \
        --namespace NAME --events makes the tables where there are none";
    Failure::failed("no_events", format!("{what}: {remedy}"))
}

fn report(place: &str, census: &Census, registered: Option<&Registered>, args: &args::Census) -> Report {
    let events = census.rows.iter().map(|row| row.events).sum();
    let mut text = format!("{}\n{}", shown(place), count(events, "event"));
    let up_to = census.range.up_to.map_or(0, GlobalPosition::get);
    if args.after > 0 || args.up_to.is_some() {
        let _ = write!(text, " after position {}, up to {up_to}", args.after);
    }
    text.push('\n');
    if !census.rows.is_empty() {
        let _ = writeln!(text, "\n{}", counts(&census.rows));
    }
    let mut json = json!({
        "database": place,
        "events": events,
        "after": census.range.after.get(),
        "up_to": up_to,
        "types": census.rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    let mut exit = Exit::Done;
    if let Some(registered) = registered {
        let findings = Findings::of(census, registered, args.payloads);
        findings.write(&mut text);
        findings.add_to(&mut json);
        if args.check && findings.is_bad() {
            exit = Exit::Problems;
        }
    }
    Report::new(text, json).ending(exit)
}

/// The length of the longest bar, in characters.
const BAR: u64 = 12;

fn counts(rows: &[CensusRow]) -> String {
    let most = rows.iter().map(|row| row.events).max().unwrap_or_default();
    let date = |at: OffsetDateTime| at.to_offset(time::UtcOffset::UTC).date().to_string();
    let rows = rows.iter().map(|row| {
        let (first, last) = row.created_at;
        let version = row.event_version.to_string();
        let sealed = number(row.with_header);
        vec![
            shown(row.event_type.as_str()),
            version,
            number(row.events),
            bar(row.with_header, row.without_header(), most),
            sealed,
            date(first),
            date(last),
        ]
    });
    table(&["EVENT TYPE", ">VERSION", ">EVENTS", "█ SEALED ░ NOT", ">SEALED", "FIRST", "LAST"], rows)
}

/// A bar of sealed and other events. Each kind that occurs gets at least one mark, even one event among millions.
fn bar(sealed: u64, others: u64, most: u64) -> String {
    let cells = |events: u64| {
        let cells = (u128::from(events) * u128::from(BAR)).div_ceil(u128::from(most.max(1)));
        usize::try_from(cells).unwrap_or_default()
    };
    let (has_sealed, has_others) = (usize::from(sealed > 0), usize::from(others > 0));
    let all = cells(sealed.saturating_add(others)).max(has_sealed + has_others);
    let sealed = cells(sealed).min(all - has_others);
    "█".repeat(sealed) + &"░".repeat(all - sealed)
}

fn row_json(row: &CensusRow) -> Value {
    let at = |position: GlobalPosition, time| json!({ "position": position.get(), "created_at": exact_time(time) });
    json!({
        "type": row.event_type.as_str(),
        "version": row.event_version.get(),
        "events": row.events,
        "sealed": row.with_header,
        "without_header": row.without_header(),
        "first": at(row.positions.0, row.created_at.0),
        "last": at(row.positions.1, row.created_at.1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_whatever_is_there() {
        for (sealed, others, most, expected) in [
            (0, 0, 0, ""),
            (12, 0, 12, "████████████"),
            (6, 6, 12, "██████░░░░░░"),
            (1, 0, 1_000_000, "█"),
            (1, 1, 1_000_000, "█░"),
            (1, 999_999, 1_000_000, "█░░░░░░░░░░░"),
            (999_999, 1, 1_000_000, "███████████░"),
            (u64::MAX, 0, u64::MAX, "████████████"),
        ] {
            assert_eq!(bar(sealed, others, most), expected, "{sealed} {others} {most}");
        }
    }
}
