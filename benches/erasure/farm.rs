//! A database with keys, and how its measurements are told.

use crate::cluster;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{Keyring, Namespace, Schemas, SealedStore, event, subject};
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::time::Duration;

/// A database of its own, with key tables and a keyring.
pub(crate) struct Farm {
    admin: PgPool,
    name: String,
    pub(crate) pool: PgPool,
    keyring: Arc<Keyring>,
}

impl Farm {
    pub(crate) async fn new(what: &str) -> Self {
        let admin = PgPoolOptions::new().max_connections(1).connect_with(cluster::server()).await.unwrap();
        let name = format!("eventseal_bench_{}_{what}", std::process::id());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
        let options = cluster::server().database(&name);
        let pool = PgPoolOptions::new().max_connections(4).min_connections(4).connect_with(options).await.unwrap();
        let keys = PostgresKeys::new();
        keys.migrate(&mut pool.acquire().await.unwrap(), &Namespace::new("bench").unwrap()).await.unwrap();
        println!("\n{what}\n{:<60}{:>12}{:>12}{:>8}", "medians", "one", "other", "ratio");
        Self { admin, name, pool, keyring: Arc::new(Keyring::generate("main").unwrap()) }
    }

    /// A sealed store over tables of its own.
    pub(crate) async fn store(&self, tables: PostgresTables) -> SealedStore<PostgresStore> {
        let store = PostgresStore::with_tables(tables).unwrap();
        let mut connection = self.pool.acquire().await.unwrap();
        store.migrate(&mut connection).await.unwrap();
        let placed = event("OrderPlaced").version(1);
        let placed = placed.protect(&["/name", "/email", "/address"], subject("Customer", "/customer_id"));
        let schemas = Schemas::new([placed]).unwrap();
        let sealed = SealedStore::new(store, PostgresKeys::new(), Arc::clone(&self.keyring), schemas);
        sealed.keys().prepare(&mut connection).await.unwrap();
        sealed
    }

    pub(crate) async fn close(self) {
        self.pool.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(drop)).execute(&self.admin).await.unwrap();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the medians of two series of the same work in microseconds for one piece of it, and the median of the ratios
/// of the runs beside each other: how many times as fast the other one is.
pub(crate) fn report(what: &str, pieces: usize, one: &[Duration], other: &[Duration]) {
    let each = |times: &[Duration]| median(times.iter().map(|time| time.as_secs_f64() * 1e6 / pieces as f64).collect());
    let ratio = median(one.iter().zip(other).map(|(one, other)| one.as_secs_f64() / other.as_secs_f64()).collect());
    println!("{what:<60}{:>9.1} µs{:>9.1} µs{ratio:>8.2}", each(one), each(other));
}
