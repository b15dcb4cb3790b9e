//! `events-of`: lists the stored events that the keys of a scope seal. `index-seals`: completes the index that makes
//! this quick.

use crate::args::{self, Dialect};
use crate::census::no_table;
use crate::connect::{AnyDb, Backend, Db, Target, connect, postgres_store, sqlite_store, target};
use crate::interrupt;
use crate::output::{Exit, Failure, Progress, Report, count, exact_time, number, shown, table};
use crate::scopes::unknown;
use eventseal::keys::KeyStore as _;
use eventseal::maintenance::{
    EventOf, EventsOf, EventsOfOptions, EventsOfProgress, IndexSealsOptions, IndexSealsProgress, SealsIndexed,
    index_seals,
};
use eventseal::store::{EventTable, PositionRange};
use eventseal::{GlobalPosition, KeyScope};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::num::NonZeroU32;

/// What a search of the command holds of an event: no payload.
struct Found {
    place: Vec<String>,
    json: Value,
}

/// The result of a search.
struct Search {
    found: Vec<Found>,
    unreadable: Vec<(String, Value)>,
    progress: EventsOfProgress,
    uses_index: bool,
}

pub(crate) async fn events_of(args: args::EventsOf, json: bool) -> Result<Report, Failure> {
    let scope = args.scope.key_scope();
    let mut bar = Progress::new(json, args.progress.progress_every, "positions");
    let (namespace, place, search) = match connect(&args.database).await? {
        AnyDb::Sqlite(mut db) => {
            let store = sqlite_store(&args.tables.names())?;
            (db.namespace().await?, db.place.clone(), search(&mut db, &store, &scope, &args, &mut bar).await?)
        }
        AnyDb::Postgres(mut db) => {
            let store = postgres_store(&args.database, &args.tables.names())?;
            (db.namespace().await?, db.place.clone(), search(&mut db, &store, &scope, &args, &mut bar).await?)
        }
    };
    bar.finish();
    Ok(found(&scope, search).of(&namespace, &place))
}

async fn search<C: Backend, S: EventTable<Tx = C>>(
    db: &mut Db<C>,
    store: &S,
    scope: &KeyScope,
    args: &args::EventsOf,
    bar: &mut Progress,
) -> Result<Search, Failure> {
    let history = db.keys.history(&mut db.connection, scope).await?.ok_or_else(|| unknown(scope, ""))?;
    let mut options = EventsOfOptions::default();
    options.range =
        PositionRange { after: args.after.try_into()?, up_to: args.up_to.map(GlobalPosition::try_from).transpose()? };
    (options.use_index, options.batch) = (!args.scan, args.batch);
    let keys = history.keys.iter().map(|key| key.key_id);
    let mut search = EventsOf::of_keys(store, &mut db.connection, keys, &options).await.map_err(no_table)?;
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(page) = search.next(&mut db.connection).await? {
        found.extend(page.events.iter().map(event));
        unreadable.extend(page.unreadable.iter().map(|event| {
            let json = json!({
                "position": event.global_position.get(),
                "event": event.event_id.to_string(),
                "problem": event.error.to_string(),
            });
            (format!("position {}, event {}: {}", event.global_position, event.event_id, event.error), json)
        }));
        let from_start = |position: GlobalPosition| position.get().saturating_sub(args.after).unsigned_abs();
        bar.at(from_start(page.progress.position), from_start(page.progress.last));
    }
    Ok(Search { found, unreadable, progress: search.progress(), uses_index: search.uses_index() })
}

fn event(EventOf { event, places, .. }: &EventOf) -> Found {
    let pointers = places.iter().map(|place| match place.pointer.as_str() {
        "" => "the whole payload".to_owned(),
        pointer if place.in_metadata => format!("{} in the metadata", shown(pointer)),
        pointer => shown(pointer),
    });
    let place = vec![
        event.global_position.to_string(),
        event.event_id.to_string(),
        format!("{} {}", shown(event.stored_type.as_str()), event.stored_version),
        format!("{} {}", shown(&event.aggregate.to_string()), event.aggregate_version),
        pointers.collect::<Vec<_>>().join("\n"),
    ];
    let places = places.iter().map(|place| {
        let (pointer, key) = (place.pointer.as_str(), place.key_id.to_string());
        json!({ "pointer": pointer, "in_metadata": place.in_metadata, "key": key, "void": place.is_void })
    });
    let json = json!({
        "position": event.global_position.get(),
        "event": event.event_id.to_string(),
        "type": event.stored_type.as_str(),
        "version": event.stored_version.get(),
        "aggregate_type": event.aggregate.aggregate_type(),
        "aggregate_id": event.aggregate.aggregate_id(),
        "aggregate_version": event.aggregate_version.get(),
        "created_at": exact_time(event.created_at),
        "places": places.collect::<Vec<_>>(),
    });
    Found { place, json }
}

fn found(scope: &KeyScope, search: Search) -> Report {
    let Search { found, unreadable, progress, uses_index } = search;
    let how = if uses_index { "by the index of seals" } else { "by reading the log" };
    let mut text = format!(
        "{}: {} up to position {}, {how} ({} looked at)\n",
        shown(&scope.to_string()),
        count(found.len() as u64, "event"),
        progress.last,
        number(progress.looked_at)
    );
    let (rows, events): (Vec<_>, Vec<_>) = found.into_iter().map(|found| (found.place, found.json)).unzip();
    if !rows.is_empty() {
        let _ = writeln!(text, "\n{}", table(&[">POSITION", "EVENT", "TYPE", "AGGREGATE", "PLACES"], rows));
    }
    let mut exit = Exit::Done;
    if !unreadable.is_empty() {
        exit = Exit::Problems;
        let what = "with a header that can't be read: nobody knows whose keys they name. Restore them";
        let _ = writeln!(text, "\n{} {what}:", count(unreadable.len() as u64, "event"));
        for (line, _) in &unreadable {
            let _ = writeln!(text, "  {}", shown(line));
        }
    }
    let unreadable: Vec<Value> = unreadable.into_iter().map(|(_, json)| json).collect();
    let json = json!({
        "kind": scope.kind(),
        "id": scope.id(),
        "events": events,
        "unreadable": unreadable,
        "up_to": progress.last.get(),
        "looked_at": progress.looked_at,
        "index_used": uses_index,
    });
    Report::new(text, json).ending(exit)
}

pub(crate) async fn index(args: args::IndexSeals, json: bool) -> Result<Report, Failure> {
    if let Some(dialect) = args.print {
        return print(&args, dialect);
    }
    let mut bar = Progress::new(json, args.progress.progress_every, "positions");
    let (place, done) = match connect(&args.database).await? {
        AnyDb::Sqlite(mut db) => {
            let store = sqlite_store(&args.tables.names())?;
            (db.place.clone(), fill(&mut db, &store, &args, &mut bar).await?)
        }
        AnyDb::Postgres(mut db) => {
            let store = postgres_store(&args.database, &args.tables.names())?;
            (db.place.clone(), fill(&mut db, &store, &args, &mut bar).await?)
        }
    };
    bar.finish();
    Ok(indexed(&place, &done))
}

async fn fill<C: Backend, S: EventTable<Tx = C>>(
    db: &mut Db<C>,
    store: &S,
    args: &args::IndexSeals,
    bar: &mut Progress,
) -> Result<SealsIndexed, Failure> {
    let mut options = IndexSealsOptions::default();
    (options.batch, options.anew) = (args.batch, args.anew);
    options.events_per_second = args.per_second.and_then(NonZeroU32::new);
    // The tables of the index must not be made where no events are.
    store.last_position(&mut db.connection).await.map_err(no_table)?;
    let mut show = |progress: IndexSealsProgress| {
        let position = |position: GlobalPosition| position.get().unsigned_abs();
        bar.at(position(progress.complete_up_to), position(progress.last));
        interrupt::kept(format!(
            "the index is complete up to position {}, and stays so; run it again for the rest",
            progress.complete_up_to
        ));
    };
    index_seals(store, &mut db.connection, &options, &mut show).await.map_err(no_table)
}

fn indexed(place: &str, done: &SealsIndexed) -> Report {
    let mut text = format!(
        "The index of seals is complete up to position {}.\n{}\n{} looked at, {} of them sealed.",
        done.complete_up_to,
        shown(place),
        count(done.looked_at, "event"),
        number(done.indexed)
    );
    let mut exit = Exit::Done;
    if done.unreadable > 0 {
        exit = Exit::Problems;
        let _ = writeln!(
            text,
            "\n\n{} with a header that can't be read. Every search reports them, until they are restored:",
            count(done.unreadable, "event")
        );
        for event in &done.first_unreadable {
            let line = format!("position {}, event {}: {}", event.global_position, event.event_id, event.error);
            let _ = writeln!(text, "  {}", shown(&line));
        }
    }
    let json = json!({
        "database": place,
        "complete_up_to": done.complete_up_to.get(),
        "looked_at": done.looked_at,
        "indexed": done.indexed,
        "unreadable": done.unreadable,
    });
    Report::new(text, json).ending(exit)
}

/// Prints the SQL that makes the tables of the index.
fn print(args: &args::IndexSeals, dialect: Dialect) -> Result<Report, Failure> {
    let of_sqlite = match dialect {
        Dialect::Sqlite => true,
        Dialect::Postgres => false,
        Dialect::Database => matches!(target(&args.database)?, Target::Sqlite(..)),
    };
    let sql = match of_sqlite {
        true => sqlite_store(&args.tables.names())?.seal_index_sql(),
        false => postgres_store(&args.database, &args.tables.names())?.seal_index_sql(),
    };
    Ok(Report::verbatim(sql.clone(), json!({ "sql": sql })))
}
