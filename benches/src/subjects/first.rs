//! The first events of new aggregates.

use super::Subject;
use crate::bench::{Bench, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use async_trait::async_trait;
use eventseal::ExpectedVersion::NoStream;
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::{EventStore, Keyring, Result, aggregate};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) const SUBJECT: Subject = Subject {
    name: "first",
    title: "First events of new aggregates",
    about: "Each transaction appends to a new stream, for a customer who has no key yet: a key scope, a data key and \
        the events are stored. Events are of 1 KiB with three protected strings. Beside it, the same events go to the \
        same store without `SealedStore`. The server waits for the disk at each commit. Times are for one transaction.",
    run,
};

fn run(bench: &Bench) -> Report {
    let db = Postgres::new("first");
    let kms = Arc::new(Counting { inner: Keyring::generate("main").unwrap(), calls: AtomicUsize::new(0) });
    let bare = db.bare(db.tables("bare"));
    let sealed = db.sealed_with(db.tables("wrapped"), Arc::clone(&kms), fixture::schemas());
    let next = AtomicUsize::new(0);
    let (rounds, each) = (bench.pick(1, 25, 100), bench.pick(2, 60, 1_000));
    let mut rows = Vec::new();
    let calls = kms.calls.load(Ordering::Relaxed);
    for count in [1, 10] {
        let (mut first, mut second) = (db.connection(), db.connection());
        let ways = [
            way(|| db.block_on(append(&bare, &mut first, &next, each, count))),
            way(|| db.block_on(append(&sealed, &mut second, &next, each, count))),
        ];
        let what = if count == 1 { "first event" } else { "first 10 events" };
        // The second row is of interest, and not among the goals: it need not be repeated as often.
        let rounds = if count == 1 { rounds } else { rounds.min(25) };
        let [of_bare, of_sealed] = bench.compare(what, rounds, each, ways);
        let reach = (count == 1).then_some(0.6);
        rows.push(Measured::speed(what, &of_sealed, "bare store", &of_bare).reach_if(reach));
    }
    let calls = kms.calls.load(Ordering::Relaxed) - calls;
    let aggregates = next.load(Ordering::Relaxed) / 2;
    let mut report = Report::of(rows);
    report.notes.push(format!("The KMS was called {calls} times for {aggregates} new customers."));
    report
}

/// Transactions of `count` events each, of new customers.
async fn append<S: EventStore<Tx = PgConnection>>(
    store: &S,
    connection: &mut PgConnection,
    next: &AtomicUsize,
    transactions: usize,
    count: usize,
) -> Duration {
    let batches: Vec<_> = (0..transactions)
        .map(|_| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            (aggregate("Order", number.to_string()), fixture::events(&fixture::customer(number), count))
        })
        .collect();
    let start = Instant::now();
    for (order, events) in &batches {
        let mut tx = connection.begin().await.unwrap();
        store.append(&mut tx, order, NoStream, events).await.unwrap();
        tx.commit().await.unwrap();
    }
    start.elapsed()
}

/// A keyring that counts calls.
pub(super) struct Counting {
    pub(super) inner: Keyring,
    pub(super) calls: AtomicUsize,
}

impl Counting {
    fn counted(&self) -> &Keyring {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

#[async_trait]
impl Kms for Counting {
    fn provider(&self) -> &str {
        self.inner.provider()
    }

    async fn master_key_id(&self) -> Result<String> {
        self.inner.master_key_id().await
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.counted().generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.counted().unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.counted().wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.counted().rewrap_kek(wrapped, context).await
    }
}
