//! The cost of rewrapping data keys on PostgreSQL, compared with a lower bound.
//!
//! `cargo bench --bench rewrap --features postgres`
//!
//! It rewraps 100,000 data keys (the variable `KEYS` sets another number), in batches of 500. `floor` is the lower
//! bound: it writes as many bytes to the same rows in the same batches, with one `UPDATE … FROM UNNEST` in a
//! transaction for each batch. It does not read, unwrap, wrap or check any key. Both take turns within one run, so look
//! at the ratio.

#![allow(missing_docs, reason = "a benchmark")]

#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
#[path = "../tests/support/cluster.rs"]
mod cluster;

use async_trait::async_trait;
use eventseal::keys::{KekId, RewrapOptions};
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    EventStore, ExpectedVersion, Keyring, Namespace, NewEvent, Result, Schemas, SealedStore, aggregate, event, subject,
};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

const ROUNDS: usize = 5;
const BATCH: usize = 500;

/// A keyring that counts calls.
struct Counting(Keyring, AtomicUsize);

#[async_trait]
impl Kms for Counting {
    fn provider(&self) -> &str {
        self.0.provider()
    }

    async fn master_key_id(&self) -> Result<String> {
        self.0.master_key_id().await
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.0.wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.0.rewrap_kek(wrapped, context).await
    }
}

/// Writes each wrapped key back under the id of another key-encryption key. The ids are restored afterwards.
async fn floor(connection: &mut PgConnection, other: KekId) -> Duration {
    let rows: Vec<(Uuid, Vec<u8>, Uuid)> =
        sqlx::query_as("SELECT key_id, wrapped_key, kek_id FROM data_keys ORDER BY key_id")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let start = Instant::now();
    for batch in rows.chunks(BATCH) {
        let mut tx = connection.begin().await.unwrap();
        sqlx::query(
            "UPDATE data_keys AS k SET wrapped_key = n.new, kek_id = $3, wrapped_at = now()
             FROM UNNEST((SELECT $1::uuid[]), (SELECT $2::bytea[])) AS n (key_id, new) WHERE k.key_id = n.key_id",
        )
        .bind(batch.iter().map(|row| row.0).collect::<Vec<_>>())
        .bind(batch.iter().map(|row| row.1.as_slice()).collect::<Vec<_>>())
        .bind(other.0)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
    let took = start.elapsed();
    sqlx::query("UPDATE data_keys SET kek_id = $1").bind(rows[0].2).execute(connection).await.unwrap();
    took
}

async fn fill(pool: &PgPool, store: &SealedStore<PostgresStore>, keys: usize) {
    for first in (0..keys).step_by(1_000) {
        let placed = |customer: usize| NewEvent::raw("Placed", 1, format!(r#"{{"customer":{customer},"name":"Ada"}}"#));
        let events: Vec<NewEvent> = (first..keys.min(first + 1_000)).map(placed).collect();
        let mut tx = pool.begin().await.unwrap();
        store.append(&mut tx, &aggregate("Order", first.to_string()), ExpectedVersion::Any, &events).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    let keys = std::env::var("KEYS").map_or(100_000, |keys| keys.parse().expect("KEYS is a number"));
    let admin = PgPoolOptions::new().max_connections(1).connect_with(cluster::server()).await.unwrap();
    let name = format!("eventseal_rewrap_{}", std::process::id());
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect_with(cluster::server().database(&name)).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    PostgresStore::new().migrate(&mut connection).await.unwrap();
    PostgresKeys::new().migrate(&mut connection, &Namespace::new("bench").unwrap()).await.unwrap();
    let schemas =
        Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap();
    let kms = Arc::new(Counting(Keyring::generate("main").unwrap(), AtomicUsize::new(0)));
    let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&kms), schemas);
    store.keys().prepare(&mut connection).await.unwrap();
    fill(&pool, &store, keys).await;

    let (mut floors, mut rewraps, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        connection.execute("VACUUM FULL ANALYZE data_keys").await.unwrap();
        let to = store.keys().rotate_kek(&mut connection, "default").await.unwrap();
        let bare = floor(&mut connection, to.kek_id).await;
        connection.execute("VACUUM FULL ANALYZE data_keys").await.unwrap();
        let calls = kms.1.load(Ordering::Relaxed);
        let start = Instant::now();
        let done = store.keys().rewrap(&mut connection, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
        let took = start.elapsed();
        assert_eq!((done.rewrapped as usize, done.remaining), (keys + 1, 0));
        assert!(kms.1.load(Ordering::Relaxed) - calls <= 2, "the KMS was asked too often");
        floors.push(keys as f64 / bare.as_secs_f64());
        rewraps.push(keys as f64 / took.as_secs_f64());
        ratios.push(bare.as_secs_f64() / took.as_secs_f64());
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("{keys} data keys, batches of {BATCH}; medians of {ROUNDS} rounds, keys per second");
    println!("floor   {:>10.0}", median(&mut floors));
    println!("rewrap  {:>10.0}   {:.2} of the floor", median(&mut rewraps), median(&mut ratios));
    drop(connection);
    pool.close().await;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
}
