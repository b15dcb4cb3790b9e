//! The cost of sealing on PostgreSQL: the wrapped store compared with the bare one.
//!
//! `EVENTSEAL_DURABLE=on cargo bench --bench postgres --features postgres`
//!
//! It runs on a temporary cluster, or on `DATABASE_URL`. With `EVENTSEAL_DURABLE=on` the cluster waits for the disk at
//! each commit, as PostgreSQL does by default. Without it, commits are cheap, and the share of sealing is as large as
//! it can get. Bare and sealed runs take turns within one run, so look at the ratios. The payloads are those of
//! `benches/seal.rs`: 1 KiB, 23 members, 3 of them protected.

#![allow(missing_docs, reason = "a benchmark")]

#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
#[path = "../tests/support/cluster.rs"]
mod cluster;
mod common;

use eventseal::ExpectedVersion::NoStream;
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{
    AggregateRef, EventStore, EventStoreExt, Keyring, Namespace, NewEvent, Schemas, SealedStore, aggregate, event,
    subject,
};
use sqlx::PgConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Store = Arc<dyn EventStore<Tx = PgConnection>>;

const ROUNDS: usize = 60;

fn schemas() -> Schemas {
    Schemas::new([event("OrderPlaced")
        .version(1)
        .protect(&["/name", "/email", "/address"], subject("Customer", "/customer_id"))])
    .unwrap()
}

async fn tables(pool: &PgPool, name: &str) -> PostgresStore {
    let tables = PostgresTables::new().events(format!("{name}_events")).heads(format!("{name}_heads"));
    let store = PostgresStore::with_tables(tables).unwrap();
    store.migrate(&mut pool.acquire().await.unwrap()).await.unwrap();
    store
}

const CUSTOMERS: usize = 1_000;

/// Events of one of a thousand customers, whose keys exist and are cached.
fn events(count: usize) -> Vec<NewEvent> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let customer = format!("cust_{:010}", NEXT.fetch_add(1, Ordering::Relaxed) % CUSTOMERS);
    let payload = common::payload().replace("cust_0000000042", &customer);
    (0..count).map(|_| NewEvent::raw("OrderPlaced", 1, payload.clone())).collect()
}

/// Appends `transactions` transactions of `count` events each, on each of `connections` connections at once.
async fn append(pool: &PgPool, store: &Store, connections: usize, transactions: usize, count: usize) -> Duration {
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push((pool.acquire().await.unwrap(), (0..transactions).map(|_| events(count)).collect::<Vec<_>>()));
    }
    let start = Instant::now();
    let tasks = held.into_iter().map(|(mut connection, batches)| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            for batch in batches {
                let order = aggregate("Order", batch[0].event_id.to_string());
                let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
                store.append(&mut tx, &order, NoStream, &batch).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    start.elapsed()
}

async fn read(pool: &PgPool, store: &Store, stream: &AggregateRef, times: usize, count: usize) -> Duration {
    let mut connection = pool.acquire().await.unwrap();
    let start = Instant::now();
    for _ in 0..times {
        assert_eq!(store.read_stream(&mut connection, stream).await.unwrap().events.len(), count);
    }
    start.elapsed()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints events per second of bare and sealed runs of the same work, and the ratio.
fn report(what: &str, events: usize, bare: &[Duration], sealed: &[Duration]) {
    let rate = |times: &[Duration]| {
        median(&mut times.iter().map(|time| events as f64 / time.as_secs_f64()).collect::<Vec<_>>())
    };
    let ratio = median(
        &mut bare
            .iter()
            .zip(sealed)
            .map(|(bare, sealed)| bare.as_secs_f64() / sealed.as_secs_f64())
            .collect::<Vec<_>>(),
    );
    println!("{what:<48}{:>12.0}{:>12.0}{ratio:>10.2}", rate(bare), rate(sealed));
}

#[tokio::main]
#[expect(clippy::too_many_lines, reason = "a list of measurements")]
async fn main() {
    let admin = PgPoolOptions::new().max_connections(1).connect_with(cluster::server()).await.unwrap();
    let name = format!("eventseal_bench_{}", std::process::id());
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .min_connections(8)
        .connect_with(cluster::server().database(&name))
        .await
        .unwrap();
    let (bare, wrapped) = (tables(&pool, "bare").await, tables(&pool, "sealed").await);
    PostgresKeys::new().migrate(&mut pool.acquire().await.unwrap(), &Namespace::new("bench").unwrap()).await.unwrap();
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let sealed = SealedStore::new(wrapped, PostgresKeys::new(), Arc::clone(&keyring), schemas());
    sealed.keys().prepare(&mut pool.acquire().await.unwrap()).await.unwrap();
    let keys = KeyManager::builder(PostgresKeys::new(), keyring).reads_may_lag(Duration::from_secs(3_600)).build();
    let lagging: Store = Arc::new(SealedStore::with_keys(tables(&pool, "sealed").await, keys, schemas()));
    let (bare, sealed): (Store, Store) = (Arc::new(bare), Arc::new(sealed));

    for _ in 0..2 {
        append(&pool, &sealed, 1, CUSTOMERS, 1).await;
        append(&pool, &bare, 1, CUSTOMERS, 1).await;
    }
    println!("medians of {ROUNDS} rounds, events per second");
    println!("{:<48}{:>12}{:>12}{:>10}", "", "bare", "sealed", "ratio");
    for connections in [1, 8] {
        for count in [1, 10, 100] {
            let transactions = (400 / count).clamp(4, 60);
            let (mut of_bare, mut of_sealed) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS + 5 {
                let times = [
                    append(&pool, &bare, connections, transactions, count).await,
                    append(&pool, &sealed, connections, transactions, count).await,
                ];
                if round >= 5 {
                    of_bare.push(times[0]);
                    of_sealed.push(times[1]);
                }
            }
            let what = format!("append, {count} events a transaction, {connections} connections");
            report(&what, connections * transactions * count, &of_bare, &of_sealed);
        }
    }
    for count in [10, 1_000] {
        let stream = aggregate("Stream", count.to_string());
        for store in [&bare, &sealed] {
            let mut tx = pool.begin().await.unwrap();
            store.append(&mut tx, &stream, NoStream, &events(count)).await.unwrap();
            tx.commit().await.unwrap();
        }
        let times = 4_000 / count;
        let (mut of_bare, mut of_sealed, mut of_lagging) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS + 5 {
            for (store, times_of) in [(&bare, &mut of_bare), (&sealed, &mut of_sealed), (&lagging, &mut of_lagging)] {
                let took = read(&pool, store, &stream, times, count).await;
                if round >= 5 {
                    times_of.push(took);
                }
            }
        }
        report(&format!("read a stream of {count}, warm"), times * count, &of_bare, &of_sealed);
        report(&format!("read a stream of {count}, warm, reads_may_lag"), times * count, &of_bare, &of_lagging);
    }
    pool.close().await;
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).execute(&admin).await.unwrap();
}
