//! The index of seals: what it costs an append, and what it saves a search.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report, time_of};
use eventseal::maintenance::{EventsOfOptions, IndexSealsOptions, index_seals};
use eventseal::postgres::PostgresStore;
use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, NewEvent, SealedStore, aggregate};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::cell::Cell;
use std::time::{Duration, Instant};

pub(super) const SUBJECT: Subject = Subject {
    name: "index",
    title: "Index of seals",
    about: "The first rows append to two sealed stores, of which one keeps the index of seals. Times are for one \
        event. The last rows search for the 20 events of a person among many, and read the same events by their \
        stream. Times are for one search.",
    run,
};

const CUSTOMERS: usize = 1_000;
/// The events of the searches.
const TABLE: &str = "log_events";
const PERSON: &str = "cust_of_20_events";

fn run(bench: &Bench) -> Report {
    let mut rows = append(bench);
    let (searches, note) = events_of(bench);
    rows.extend(searches);
    Report { rows, notes: vec![note], ..Report::default() }
}

/// Appends that keep the index, beside appends that do not.
fn append(bench: &Bench) -> Vec<Measured> {
    let db = Postgres::new("index_append");
    let without = db.sealed(db.tables("plain"), fixture::schemas());
    let with = db.sealed(db.tables("indexed").index_seals(), fixture::schemas());
    let next = Cell::new(0);
    let (mut first, mut second) = (db.connection(), db.connection());
    let customers = bench.pick(10, CUSTOMERS, CUSTOMERS);
    transactions(&db, &mut first, &without, &next, customers, 1);
    transactions(&db, &mut second, &with, &next, customers, 1);
    let mut rows = Vec::new();
    for count in [1, 10, 100] {
        let many = if bench.pick(1, 0, 0) == 1 { 2 } else { (300 / count).clamp(4, 30) };
        let ways = [
            way(|| transactions(&db, &mut first, &without, &next, many, count)),
            way(|| transactions(&db, &mut second, &with, &next, many, count)),
        ];
        let events = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
        let what = format!("append {events} with the index");
        let [without, with] = bench.compare(&what, bench.pick(1, 30, 60), many * count, ways);
        rows.push(Measured::speed(what, &with, "without it", &without).reach_if((count == 10).then_some(0.85)));
    }
    rows
}

fn transactions(
    db: &Postgres,
    connection: &mut PgConnection,
    store: &SealedStore<PostgresStore>,
    next: &Cell<usize>,
    many: usize,
    count: usize,
) -> Duration {
    let batches: Vec<(usize, Vec<NewEvent>)> = (0..many)
        .map(|_| {
            let number = next.replace(next.get() + 1);
            (number, fixture::events(&fixture::customer(number % CUSTOMERS), count))
        })
        .collect();
    db.block_on(async {
        let start = Instant::now();
        for (number, batch) in &batches {
            let order = aggregate("Order", number.to_string());
            let mut tx = connection.begin().await.unwrap();
            store.append(&mut tx, &order, ExpectedVersion::NoStream, batch).await.unwrap();
            tx.commit().await.unwrap();
        }
        start.elapsed()
    })
}

/// Searches for the 20 events of a person among many, beside reads of the same 20 events by their stream.
fn events_of(bench: &Bench) -> ([Measured; 2], String) {
    let all = bench.pick(1_000, 100_000, 1_000_000);
    let db = Postgres::new("index_search");
    let store = db.sealed(db.tables("log"), fixture::schemas());
    let mut connection = db.connection();
    bench.say("filling the log");
    fill(&db, &store, &mut connection, bench.pick(50, CUSTOMERS, CUSTOMERS), all);
    let scope = KeyScope::new("Customer", PERSON);
    let mut scan = EventsOfOptions::default();
    scan.use_index = false;
    let scanned = db.block_on(search(&store, &mut connection, &scope, &scan));
    let made = time(|| {
        db.block_on(async {
            let options = IndexSealsOptions::default();
            index_seals(store.inner(), &mut connection, &options, &mut |_| {}).await.unwrap();
        });
    });
    db.execute("VACUUM ANALYZE sealed_events");
    let stream = aggregate("Person", "1");
    let (mut first, mut second) = (db.connection(), db.connection());
    let ways = [
        way(|| time(|| db.block_on(read(store.inner(), &mut first, &stream)))),
        way(|| time(|| db.block_on(read(&store, &mut second, &stream)))),
        way(|| db.block_on(search(&store, &mut connection, &scope, &EventsOfOptions::default()))),
    ];
    let [stored, opened, found] = bench.compare("search", bench.pick(1, 60, 60), 1, ways);
    let what = format!("find 20 events of {all}");
    let note = format!(
        "Without the index, the search took {}, once. Making the index took {}.",
        time_of(scanned.as_secs_f64()),
        time_of(made.as_secs_f64())
    );
    let rows = [
        Measured::time(what.clone(), &found, "read them by stream, as stored", &stored).reach(20.0),
        Measured::time(what, &found, "read them by stream, opened", &opened),
    ];
    (rows, note)
}

async fn read<S: EventStore<Tx = PgConnection>>(
    store: &S,
    connection: &mut PgConnection,
    stream: &eventseal::AggregateRef,
) {
    assert_eq!(store.read_stream(connection, stream).await.unwrap().events.len(), 20);
}

/// The 20 events of the person, with as many others between them as the log needs. The others are copies of a few
/// events under other ids and in other streams: nobody opens them, and their seals name real keys.
fn fill(
    db: &Postgres,
    store: &SealedStore<PostgresStore>,
    connection: &mut PgConnection,
    customers: usize,
    all: usize,
) {
    transactions(db, connection, store, &Cell::new(0), customers, 1);
    let stream = aggregate("Person", "1");
    let copies = format!(
        "INSERT INTO {TABLE} (aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
             event_version, payload, created_at)
         SELECT aggregate_type, aggregate_id || '-' || $1 || '-' || n, 1, gen_random_uuid(), event_type, event_version,
             payload, created_at
         FROM generate_series(1, {}) AS n CROSS JOIN {TABLE} WHERE global_position <= {customers}",
        all.div_ceil(20 * customers)
    );
    for number in 0..20 {
        db.block_on(async {
            let mut tx = connection.begin().await.unwrap();
            let events = fixture::events(PERSON, 1);
            store.append(&mut tx, &stream, ExpectedVersion::Any, &events).await.unwrap();
            tx.commit().await.unwrap();
            let copies = sqlx::query(AssertSqlSafe(copies.clone())).bind(number.to_string());
            copies.execute(&mut *connection).await.unwrap();
        });
    }
    db.execute(format!("VACUUM ANALYZE {TABLE}"));
}

async fn search(
    store: &SealedStore<PostgresStore>,
    connection: &mut PgConnection,
    scope: &KeyScope,
    options: &EventsOfOptions,
) -> Duration {
    let start = Instant::now();
    let mut search = store.events_of(connection, scope, options).await.unwrap();
    while search.next(connection).await.unwrap().is_some() {}
    assert_eq!((search.progress().found, search.uses_index()), (20, options.use_index));
    start.elapsed()
}
