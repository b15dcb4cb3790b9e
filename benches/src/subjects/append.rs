//! Appends on PostgreSQL.

use super::Subject;
use crate::bench::{Bench, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::ExpectedVersion::NoStream;
use eventseal::{EventStore, NewEvent, aggregate};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) const SUBJECT: Subject = Subject {
    name: "append",
    title: "Append on PostgreSQL",
    about: "Events of 1 KiB with three protected strings, each transaction to a new stream. They are of a thousand \
        customers, whose keys exist and were used before. Client and server share the machine; the server waits for \
        the disk at each commit. Beside it, the same events go to the same store without `SealedStore`. Times are for \
        one event, from `BEGIN` to the end of `COMMIT`.",
    run,
};

type Store = Arc<dyn EventStore<Tx = PgConnection>>;

const CUSTOMERS: usize = 1_000;

fn run(bench: &Bench) -> Report {
    let db = Postgres::with_threads("append");
    let bare: Store = Arc::new(db.bare(db.tables("bare")));
    let sealed: Store = Arc::new(db.sealed(db.tables("wrapped"), fixture::schemas()));
    bench.say("keys of a thousand customers");
    for store in [&bare, &sealed] {
        append(&db, store, 1, bench.pick(10, CUSTOMERS, CUSTOMERS), 1);
    }
    let mut rows = Vec::new();
    for connections in [1, 8] {
        for count in [1, 10, 100] {
            let transactions = if bench.pick(1, 0, 0) == 1 { 2 } else { (300 / count).clamp(4, 30) };
            let ways = [&bare, &sealed].map(|store| {
                let db = &db;
                way(move || append(db, store, connections, transactions, count))
            });
            let events = if count == 1 { "1 event".to_owned() } else { format!("{count} events") };
            let on = if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") };
            let what = format!("{events} a transaction, {on}");
            let pieces = connections * transactions * count;
            let [bare, sealed] = bench.compare(&what, bench.pick(1, 25, 60), pieces, ways);
            let reach = if count == 100 { 0.85 } else { 0.9 };
            rows.push(Measured::speed(what, &sealed, "bare store", &bare).reach(reach));
        }
    }
    Report::of(rows)
}

/// Events of the next of a thousand customers.
fn events(count: usize) -> Vec<NewEvent> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    fixture::events(&fixture::customer(NEXT.fetch_add(1, Ordering::Relaxed) % CUSTOMERS), count)
}

/// Appends `transactions` transactions of `count` events each, on each of `connections` connections at once.
fn append(db: &Postgres, store: &Store, connections: usize, transactions: usize, count: usize) -> Duration {
    db.block_on(async {
        let mut held = Vec::new();
        for _ in 0..connections {
            held.push((db.pool.acquire().await.unwrap(), (0..transactions).map(|_| events(count)).collect::<Vec<_>>()));
        }
        let start = Instant::now();
        let tasks = held.into_iter().map(|(mut connection, batches)| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for batch in batches {
                    let order = aggregate("Order", batch[0].event_id.to_string());
                    let mut tx = connection.begin().await.unwrap();
                    store.append(&mut tx, &order, NoStream, &batch).await.unwrap();
                    tx.commit().await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        start.elapsed()
    })
}
