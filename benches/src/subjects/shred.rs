//! Shreds among few keys and among many.

use super::Subject;
use super::keys::{copy, fill};
use crate::bench::{Bench, time, way};
use crate::database::Postgres;
use crate::measured::{Measured, Report};
use eventseal::postgres::PostgresStore;
use eventseal::{KeyScope, SealedStore};
use sqlx::{Connection, Executor, PgConnection};
use std::cell::RefCell;
use std::time::Duration;

pub(super) const SUBJECT: Subject = Subject {
    name: "shred",
    title: "Shred",
    about: "One scope with one key is shredded, in a transaction of its own, among 10, 1,000 and many keys. Beside it, \
        an `UPDATE` of one row of a table is committed. The server waits for the disk at each commit. The goal of \
        sameness is a ratio of 1.1 at most: runs of the same code differ by as much.",
    run,
};

fn run(bench: &Bench) -> Report {
    let many = bench.pick(100, 1_000_000, 1_000_000);
    let tables = [10, bench.pick(50, 1_000, 1_000), many].map(|keys| Table::with(bench, keys));
    let update = &tables[0];
    let mut connection = update.db.connection();
    update.db.block_on(connection.execute("CREATE TABLE plain (id BIGINT PRIMARY KEY, state TEXT NOT NULL)")).unwrap();
    update.db.block_on(connection.execute("INSERT INTO plain SELECT n, 'live' FROM generate_series(1, 10) n")).unwrap();
    let update = way(|| {
        time(|| {
            update.db.block_on(async {
                let mut tx = connection.begin().await.unwrap();
                let sql = "UPDATE plain SET state = 'shredded' WHERE id = $1";
                assert_eq!(sqlx::query(sql).bind(7_i64).execute(&mut *tx).await.unwrap().rows_affected(), 1);
                tx.commit().await.unwrap();
            });
        })
    });
    let [few, some, all] = [0, 1, 2].map(|which: usize| {
        let table = &tables[which];
        way(move || table.shred())
    });
    let [of_update, few, some, all] = bench.compare("shreds", bench.pick(1, 200, 300), 1, [update, few, some, all]);
    let name = |keys: &str| format!("shred among {keys} keys");
    let large = if many == 1_000_000 { "1,000,000" } else { "100" };
    Report::of([
        Measured::time(name("10"), &few, "an UPDATE with commit", &of_update).reach(4.0),
        Measured::time(name(large), &all, "an UPDATE with commit", &of_update).reach(4.0),
        Measured::time(name("1,000"), &some, "among 10", &few).reach(1.1),
        Measured::time(name(large), &all, "among 10", &few).reach(1.1),
    ])
}

/// A database with this many keys, each of a scope of its own.
struct Table {
    db: Postgres,
    store: SealedStore<PostgresStore>,
    connection: RefCell<PgConnection>,
    round: RefCell<usize>,
}

impl Table {
    fn with(bench: &Bench, keys: usize) -> Self {
        bench.say("filling the key table");
        let db = Postgres::new(&format!("shred_{keys}"));
        let mut connection = db.connection();
        let store = fill(&db, &mut connection, keys);
        Self { db, store, connection: RefCell::new(connection), round: RefCell::new(0) }
    }

    /// Shreds a scope that is there already, in a transaction of its own.
    fn shred(&self) -> Duration {
        let mut connection = self.connection.borrow_mut();
        let round = self.round.replace_with(|round| *round + 1);
        let name = format!("round-{round}");
        self.db.block_on(copy(&mut connection, &name, 1));
        let scope = KeyScope::new("Customer", format!("{name}-1"));
        time(|| {
            self.db.block_on(async {
                let mut tx = connection.begin().await.unwrap();
                let shredding = self.store.keys().shred(&mut tx, &scope, "request 118").await.unwrap();
                tx.commit().await.unwrap();
                assert_eq!(shredding.destroyed.len(), 1);
            });
        })
    }
}
