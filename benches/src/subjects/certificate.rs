//! A certificate of an erasure without an index of seals.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::erasure::CertificateOptions;
use eventseal::postgres::PostgresStore;
use eventseal::store::{EventTable, StoredQuery};
use eventseal::{EventStore, ExpectedVersion, KeyScope, SealedStore, aggregate};
use sqlx::{AssertSqlSafe, Connection};
use std::cell::Cell;

pub(super) const SUBJECT: Subject = Subject {
    name: "certificate",
    title: "Certificate of an erasure",
    about: "The erasure of one of many customers is certified without an index of seals, so that the whole log is \
        looked at. Beside it, the same events are read as they are stored. Times are for one event of the log.",
    run,
};

fn run(bench: &Bench) -> Report {
    let (customers, all) = (bench.pick(20, 1_000, 1_000), bench.pick(100, 50_000, 100_000));
    let each = all / customers;
    let db = Postgres::new("certificate");
    let store = db.sealed(db.tables("log"), fixture::schemas());
    bench.say("filling the log");
    fill(&db, &store, customers, each);
    let scope = KeyScope::new("Customer", fixture::customer(7));
    db.block_on(async {
        let mut tx = db.pool.begin().await.unwrap();
        store.keys().shred(&mut tx, &scope, "request 118").await.unwrap();
        tx.commit().await.unwrap();
    });
    let (mut first, mut second) = (db.connection(), db.connection());
    let read = Cell::new(0);
    let scan = way(|| {
        read.set(0);
        time(|| {
            db.block_on(async {
                let mut query = StoredQuery::default();
                loop {
                    let page = store.inner().stored_events(&mut first, &query).await.unwrap();
                    let Some(last) = page.last() else { break };
                    query.range.after = last.global_position;
                    read.set(read.get() + page.len());
                }
            });
        })
    });
    let certify = way(|| {
        time(|| {
            let options = CertificateOptions::default();
            let certificate = db
                .block_on(async { store.certificate(&mut second, &scope, &[], &options, &mut |_| {}).await.unwrap() });
            assert!(certificate.erased && !certificate.scan.index_used);
            assert_eq!(usize::try_from(certificate.events.events).unwrap(), each);
            assert_eq!(usize::try_from(certificate.scan.looked_at).unwrap(), customers * each);
        })
    });
    let what = format!("certificate over {} events", customers * each);
    let [scan, certify] = bench.compare(&what, bench.pick(1, 11, 15), customers * each, [scan, certify]);
    assert_eq!(read.get(), customers * each);
    Report::of([Measured::speed(what, &certify, "reading them as stored", &scan).reach(0.5)])
}

/// An event of each customer, and copies of it under other ids and in other streams: nobody opens them.
fn fill(db: &Postgres, store: &SealedStore<PostgresStore>, customers: usize, each: usize) {
    let mut connection = db.connection();
    db.block_on(async {
        for number in 0..customers {
            let events = fixture::events(&fixture::customer(number), 1);
            let order = aggregate("Order", number.to_string());
            let mut tx = connection.begin().await.unwrap();
            store.append(&mut tx, &order, ExpectedVersion::NoStream, &events).await.unwrap();
            tx.commit().await.unwrap();
        }
        let copies = format!(
            "INSERT INTO log_events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
                 event_version, payload, created_at)
             SELECT aggregate_type, aggregate_id || '-' || n, 1, gen_random_uuid(), event_type, event_version, payload,
                 created_at
             FROM generate_series(2, {each}) AS n CROSS JOIN log_events"
        );
        sqlx::query(AssertSqlSafe(copies)).execute(&mut connection).await.unwrap();
        sqlx::query("VACUUM ANALYZE log_events").execute(&mut connection).await.unwrap();
    });
}
