//! The index of seals: what it costs an append, and what it saves a search.

use crate::common;
use crate::farm::{Farm, report};
use eventseal::maintenance::{EventsOfOptions, IndexSealsOptions, index_seals};
use eventseal::postgres::{PostgresStore, PostgresTables};
use eventseal::{EventStore, EventStoreExt, ExpectedVersion, KeyScope, NewEvent, SealedStore, aggregate};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use std::time::{Duration, Instant};

const ROUNDS: usize = 60;
const WARM_UP: usize = 5;
const CUSTOMERS: usize = 1_000;

fn events(customer: usize, count: usize) -> Vec<NewEvent> {
    let payload = common::payload().replace("cust_0000000042", &format!("cust_{:010}", customer % CUSTOMERS));
    (0..count).map(|_| NewEvent::raw("OrderPlaced", 1, payload.clone())).collect()
}

async fn transactions(
    pool: &PgPool,
    store: &SealedStore<PostgresStore>,
    first: usize,
    batches: Vec<Vec<NewEvent>>,
) -> Duration {
    let mut connection = pool.acquire().await.unwrap();
    let start = Instant::now();
    for (number, batch) in batches.iter().enumerate() {
        let order = aggregate("Order", format!("{first}-{number}"));
        let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
        store.append(&mut tx, &order, ExpectedVersion::NoStream, batch).await.unwrap();
        tx.commit().await.unwrap();
    }
    start.elapsed()
}

/// Appends that keep the index, beside appends that do not. The goal is 0.85 at 10 events a transaction.
pub(crate) async fn append(farm: &Farm) {
    let without = farm.store(PostgresTables::new().events("plain_events").heads("plain_heads")).await;
    let with = farm.store(PostgresTables::new().events("indexed_events").heads("indexed_heads").index_seals()).await;
    for store in [&without, &with] {
        let batches = (0..CUSTOMERS).map(|customer| events(customer, 1)).collect();
        transactions(&farm.pool, store, usize::MAX, batches).await;
    }
    for count in [1, 10, 100] {
        let many = (400 / count).clamp(4, 60);
        let (mut plain, mut indexed) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS + WARM_UP {
            let first = count * 1_000_000 + round;
            let batches = || (0..many).map(|number| events(round * many + number, count)).collect();
            let times = [
                transactions(&farm.pool, &without, first, batches()).await,
                transactions(&farm.pool, &with, first, batches()).await,
            ];
            if round >= WARM_UP {
                plain.push(times[0]);
                indexed.push(times[1]);
            }
        }
        report(&format!("an event, {count} a transaction: without index, with it"), many * count, &plain, &indexed);
    }
}

/// Searches for the 20 events of a person among a million, beside reads of the same 20 events by their stream. The goal
/// is a ratio above 0.05.
pub(crate) async fn events_of(farm: &Farm) {
    let all: usize = std::env::var("EVENTS").map_or(1_000_000, |all| all.parse().unwrap());
    let store = farm.store(PostgresTables::new()).await;
    transactions(&farm.pool, &store, 0, (0..CUSTOMERS).map(|customer| events(customer, 1)).collect()).await;
    let person = "cust_of_20_events";
    let stream = aggregate("Person", "1");
    let payload = common::payload().replace("cust_0000000042", person);
    // The others are copies of a thousand events, under other ids and in other streams. Their seals name real keys.
    let copies = format!(
        "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version,
             payload, created_at)
         SELECT aggregate_type, aggregate_id || '-' || $1 || '-' || n, 1, gen_random_uuid(), event_type, event_version,
             payload, created_at
         FROM generate_series(1, {}) AS n CROSS JOIN events WHERE global_position <= {CUSTOMERS}",
        all.div_ceil(20 * CUSTOMERS)
    );
    let mut connection = farm.pool.acquire().await.unwrap();
    for number in 0..20 {
        let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
        store
            .append(&mut tx, &stream, ExpectedVersion::Any, &[NewEvent::raw("OrderPlaced", 1, payload.clone())])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        sqlx::query(AssertSqlSafe(copies.clone())).bind(number.to_string()).execute(&mut *connection).await.unwrap();
    }
    sqlx::query("VACUUM ANALYZE events").execute(&mut *connection).await.unwrap();

    let scope = KeyScope::new("Customer", person);
    let mut scan = EventsOfOptions::default();
    scan.use_index = false;
    let scanned = search(&store, &mut connection, &scope, &scan).await;
    println!("without the index: {:.1} s for {all} events", scanned.as_secs_f64());
    let start = Instant::now();
    let done = index_seals(store.inner(), &mut connection, &IndexSealsOptions::default(), &mut |_| {}).await.unwrap();
    println!("the index was made: {:.1} s for {} events", start.elapsed().as_secs_f64(), done.looked_at);
    sqlx::query("VACUUM ANALYZE sealed_events").execute(&mut *connection).await.unwrap();

    let (mut by_stream, mut opened, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + WARM_UP {
        let start = Instant::now();
        let read = store.inner().read_stream(&mut *connection, &stream).await.unwrap();
        let bare = start.elapsed();
        assert_eq!(read.events.len(), 20);
        let start = Instant::now();
        store.read_stream(&mut *connection, &stream).await.unwrap();
        let sealed = start.elapsed();
        let took = search(&store, &mut connection, &scope, &EventsOfOptions::default()).await;
        if round >= WARM_UP {
            by_stream.push(bare);
            opened.push(sealed);
            found.push(took);
        }
    }
    report("20 events: read by stream as stored, events_of", 1, &by_stream, &found);
    report("20 events: read by stream and opened, events_of", 1, &opened, &found);
}

async fn search(
    store: &SealedStore<PostgresStore>,
    connection: &mut sqlx::PgConnection,
    scope: &KeyScope,
    options: &EventsOfOptions,
) -> Duration {
    let start = Instant::now();
    let mut search = store.events_of(connection, scope, options).await.unwrap();
    while search.next(connection).await.unwrap().is_some() {}
    assert_eq!((search.progress().found, search.uses_index()), (20, options.use_index));
    start.elapsed()
}
