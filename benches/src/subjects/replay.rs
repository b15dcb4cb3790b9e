//! Replays of the log on PostgreSQL.

use super::Subject;
use crate::bench::{Bench, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::ExpectedVersion::NoStream;
use eventseal::{EventFilter, EventStore, EventStoreExt, GlobalPosition, PageSize, aggregate};
use futures::TryStreamExt;
use sqlx::PgConnection;
use std::fs;
use std::time::{Duration, Instant};

pub(super) const SUBJECT: Subject = Subject {
    name: "replay",
    title: "Replay the log on PostgreSQL",
    about: "The whole log is read in pages of 500: ten events of each aggregate, each aggregate with a customer and a \
        key of its own. Each replay begins with empty caches of keys, as a new process does. Beside it, the same \
        events in the clear are read by the same store without `SealedStore`. Times are for one event.",
    run,
};

const EACH: usize = 10;

fn run(bench: &Bench) -> Report {
    let aggregates = bench.pick(20, 2_000, 100_000);
    let db = Postgres::new("replay");
    let bare = db.bare(db.tables("bare"));
    let sealed = db.sealed(db.tables("wrapped"), fixture::schemas());
    bench.say("filling the log");
    fill(&db, &bare, aggregates);
    fill(&db, &sealed, aggregates);
    drop(sealed);
    db.execute("VACUUM ANALYZE");

    let events = aggregates * EACH;
    let (mut first, mut second) = (db.connection(), db.connection());
    let ways = [
        way(|| db.block_on(replay(&bare, &mut first, events)).0),
        way(|| {
            let cold = db.sealed(db.tables("wrapped"), fixture::schemas());
            db.block_on(replay(&cold, &mut second, events)).0
        }),
    ];
    let what = format!("{} events of {} aggregates", thousands(events), thousands(aggregates));
    let [of_bare, of_sealed] = bench.compare(&what, bench.pick(1, 9, 5), events, ways);
    let row = Measured::speed(what, &of_sealed, "bare store", &of_bare).reach(0.5);
    let mut report = Report::of([row]);
    let cold = db.sealed(db.tables("wrapped"), fixture::schemas());
    forget_peak();
    let (_, memory) = db.block_on(replay(&cold, &mut second, events));
    report.notes.extend(memory.map(|memory| memory.sentence()));
    report
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let grouped: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|part| str::from_utf8(part).unwrap()).collect();
    grouped.join(",")
}

/// One append for each aggregate, a hundred in a transaction.
fn fill<S: EventStore<Tx = PgConnection>>(db: &Postgres, store: &S, aggregates: usize) {
    let all: Vec<usize> = (0..aggregates).collect();
    for some in all.chunks(100) {
        db.block_on(async {
            let mut tx = db.pool.begin().await.unwrap();
            for &number in some {
                let events = fixture::events(&fixture::customer(number), EACH);
                let order = aggregate("Order", number.to_string());
                store.append(&mut tx, &order, NoStream, &events).await.unwrap();
            }
            tx.commit().await.unwrap();
        });
    }
}

/// Reads the whole log, and looks at this process's memory on the way.
async fn replay<S: EventStore<Tx = PgConnection>>(
    store: &S,
    connection: &mut PgConnection,
    events: usize,
) -> (Duration, Option<Memory>) {
    let (mut read, mut memory) = (0, None);
    let start = Instant::now();
    let mut pages = store.log_pages(connection, GlobalPosition::START, PageSize::default(), &EventFilter::default());
    while let Some(page) = pages.try_next().await.unwrap() {
        read += page.events.len();
        // The cache of keys is as large as it gets, or a tenth is done.
        if memory.is_none() && read * 10 >= events {
            memory = peak();
        }
    }
    let took = start.elapsed();
    assert_eq!(read, events);
    (took, memory.zip(peak()).map(|(early, end)| Memory { early, end }))
}

/// The peak of memory that this process used, in MiB, when a tenth of the log was read, and at the end.
struct Memory {
    early: f64,
    end: f64,
}

impl Memory {
    fn sentence(&self) -> String {
        let Self { early, end } = self;
        format!(
            "Memory: in a sealed replay, the peak of this whole process was {early:.1} MiB after a tenth of the log, \
             and {end:.1} MiB at its end."
        )
    }
}

/// From now on, Linux counts the peak anew. Elsewhere there is no peak to read.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse();
    kibibytes.ok().map(|kibibytes: f64| kibibytes / 1_024.0)
}
