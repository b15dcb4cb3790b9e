//! Appends on SQLite.

use super::Subject;
use crate::bench::{Bench, way};
use crate::database::Sqlite;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::ExpectedVersion::NoStream;
use eventseal::{EventStore, NewEvent, aggregate};
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const SUBJECT: Subject = Subject {
    name: "sqlite",
    title: "Append on SQLite",
    about: "As on PostgreSQL, on a file with a write-ahead log that waits for the disk at each commit \
        (`synchronous = FULL`), on one connection. Times are for one event.",
    run,
};

type Store = Arc<dyn EventStore<Tx = SqliteConnection>>;

const CUSTOMERS: usize = 1_000;

fn run(bench: &Bench) -> Report {
    let db = Sqlite::new();
    let bare: Store = Arc::new(db.bare("bare"));
    let sealed: Store = Arc::new(db.sealed("wrapped", fixture::schemas()));
    let mut customers = (0..CUSTOMERS).cycle();
    let mut events = |count: usize| fixture::events(&fixture::customer(customers.next().unwrap()), count);
    let mut connection = db.connection();
    bench.say("keys of a thousand customers");
    let first = (0..bench.pick(10, CUSTOMERS, CUSTOMERS)).map(|_| events(1)).collect();
    append(&db, &mut connection, &sealed, first);
    let mut rows = Vec::new();
    for count in [1, 100] {
        let transactions = if count == 1 { bench.pick(2, 50, 50) } else { bench.pick(2, 4, 4) };
        let what = if count == 1 { "1 event a transaction" } else { "100 events a transaction" };
        let shared = std::cell::RefCell::new((&mut connection, &mut events));
        let ways = [&bare, &sealed].map(|store| {
            let (shared, db) = (&shared, &db);
            way(move || {
                let (connection, events) = &mut *shared.borrow_mut();
                let batches = (0..transactions).map(|_| events(count)).collect();
                append(db, connection, store, batches)
            })
        });
        let [bare, sealed] = bench.compare(what, bench.pick(1, 40, 100), transactions * count, ways);
        rows.push(Measured::speed(what, &sealed, "bare store", &bare).reach(0.85));
    }
    Report::of(rows)
}

fn append(db: &Sqlite, connection: &mut SqliteConnection, store: &Store, batches: Vec<Vec<NewEvent>>) -> Duration {
    db.block_on(async {
        let start = Instant::now();
        for batch in &batches {
            let order = aggregate("Order", batch[0].event_id.to_string());
            let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
            store.append(&mut tx, &order, NoStream, batch).await.unwrap();
            tx.commit().await.unwrap();
        }
        start.elapsed()
    })
}
