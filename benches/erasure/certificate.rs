//! A certificate without an index of seals, beside a bare scan of the same events.

use crate::common;
use crate::farm::{Farm, report};
use eventseal::erasure::CertificateOptions;
use eventseal::postgres::PostgresTables;
use eventseal::store::{EventTable, StoredQuery};
use eventseal::{EventStore, ExpectedVersion, KeyScope, NewEvent, aggregate};
use sqlx::AssertSqlSafe;
use std::time::Instant;

const CUSTOMERS: usize = 1_000;
const ROUNDS: usize = 15;

/// Certifies an erasure among `EVENTS` events of a thousand customers. The goal is a ratio of 0.5.
pub(crate) async fn certificate(farm: &Farm) {
    let all: usize = std::env::var("EVENTS").map_or(100_000, |all| all.parse().unwrap());
    let store = farm.store(PostgresTables::new()).await;
    let mut connection = farm.pool.acquire().await.unwrap();
    for customer in 0..CUSTOMERS {
        let payload = common::payload().replace("cust_0000000042", &format!("cust_{customer:010}"));
        let event = NewEvent::raw("OrderPlaced", 1, payload);
        let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
        let order = aggregate("Order", customer.to_string());
        store.append(&mut tx, &order, ExpectedVersion::NoStream, &[event]).await.unwrap();
        tx.commit().await.unwrap();
    }
    let copies = format!(
        "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version,
             payload, created_at)
         SELECT aggregate_type, aggregate_id || '-' || n, 1, gen_random_uuid(), event_type, event_version, payload,
             created_at
         FROM generate_series(2, {}) AS n CROSS JOIN events",
        all.div_ceil(CUSTOMERS)
    );
    sqlx::query(AssertSqlSafe(copies)).execute(&mut *connection).await.unwrap();
    sqlx::query("VACUUM ANALYZE events").execute(&mut *connection).await.unwrap();
    let scope = KeyScope::new("Customer", "cust_0000000007");
    let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
    store.keys().shred(&mut tx, &scope, "request 118").await.unwrap();
    tx.commit().await.unwrap();

    let (mut bare, mut certified, mut events) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        let start = Instant::now();
        let (mut query, mut read) = (StoredQuery::default(), 0);
        loop {
            let page = store.inner().stored_events(&mut connection, &query).await.unwrap();
            let Some(last) = page.last() else { break };
            query.range.after = last.global_position;
            read += page.len();
        }
        let scan = start.elapsed();
        let start = Instant::now();
        let options = CertificateOptions::default();
        let certificate = store.certificate(&mut connection, &scope, &[], &options, &mut |_| {}).await.unwrap();
        let took = start.elapsed();
        assert!(certificate.erased && certificate.events.events as usize == all.div_ceil(CUSTOMERS));
        assert_eq!((certificate.scan.looked_at as usize, certificate.scan.index_used), (read, false));
        events = read;
        if round > 0 {
            bare.push(scan);
            certified.push(took);
        }
    }
    report(&format!("an event of {events}: bare scan, certificate"), events, &bare, &certified);
}
