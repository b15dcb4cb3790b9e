//! A shred among few keys and among many.

use crate::common;
use crate::farm::{Farm, report};
use eventseal::postgres::{PostgresStore, PostgresTables};
use eventseal::{EventStore, ExpectedVersion, KeyScope, NewEvent, SealedStore, aggregate};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use std::time::{Duration, Instant};

const ROUNDS: usize = 300;
const WARM_UP: usize = 20;

/// A database with this many keys, each of a scope of its own.
struct Table {
    farm: Farm,
    store: SealedStore<PostgresStore>,
}

impl Table {
    async fn with(keys: i64) -> Self {
        let farm = Farm::new(&format!("shred_{keys}")).await;
        let store = farm.store(PostgresTables::new()).await;
        let mut connection = farm.pool.acquire().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        let event = NewEvent::raw("OrderPlaced", 1, common::payload());
        store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::NoStream, &[event]).await.unwrap();
        tx.commit().await.unwrap();
        copy(&mut connection, "key", keys - 1).await;
        sqlx::query("VACUUM ANALYZE key_scopes, data_keys").execute(&mut *connection).await.unwrap();
        drop(connection);
        Self { farm, store }
    }

    /// Shreds a scope that is there already, in a transaction of its own.
    async fn shred(&self, connection: &mut PgConnection, scope: &KeyScope) -> Duration {
        let start = Instant::now();
        let mut tx = connection.begin().await.unwrap();
        let shredding = self.store.keys().shred(&mut tx, scope, "request 118").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shredding.destroyed.len(), 1);
        start.elapsed()
    }
}

/// Adds scopes of this name, with a key each. A shred does not open the keys it destroys, so they are all copies.
async fn copy(connection: &mut PgConnection, name: &str, count: i64) {
    let sql = "WITH first AS (SELECT * FROM data_keys WHERE scope_kind = 'Customer' ORDER BY scope_id LIMIT 1),
        fresh AS (SELECT $1 || '-' || n AS scope_id, gen_random_uuid() AS key_id FROM generate_series(1, $2) AS n),
        scopes AS (
            INSERT INTO key_scopes (scope_kind, scope_id, state, generation, active_key_id)
            SELECT 'Customer', scope_id, 'live', 1, key_id FROM fresh)
        INSERT INTO data_keys (key_id, scope_kind, scope_id, version, wrapped_key, kek_id, state, created_at)
        SELECT fresh.key_id, 'Customer', fresh.scope_id, 1, first.wrapped_key, first.kek_id, 'live', first.created_at
        FROM fresh CROSS JOIN first";
    sqlx::query(sql).bind(name).bind(count).execute(connection).await.unwrap();
}

/// Shreds among 1,000 and among a million keys, beside shreds among 10. The goal is a ratio of 1.
pub(crate) async fn shred() {
    let (few, some) = (Table::with(10).await, Table::with(1_000).await);
    let many = Table::with(std::env::var("KEYS").map_or(1_000_000, |keys| keys.parse().unwrap())).await;
    let tables = [&few, &some, &many];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..ROUNDS + WARM_UP {
        // Each is first, second and last equally often.
        for turn in 0..3 {
            let which = (round + turn) % 3;
            let (table, times) = (tables[which], &mut times[which]);
            let mut connection = table.farm.pool.acquire().await.unwrap();
            let name = format!("round-{round}");
            let scope = KeyScope::new("Customer", format!("{name}-1"));
            copy(&mut connection, &name, 1).await;
            let took = table.shred(&mut connection, &scope).await;
            if round >= WARM_UP {
                times.push(took);
            }
        }
    }
    report("a shred: among 10 keys, among 1,000", 1, &times[0], &times[1]);
    report("a shred: among 10 keys, among 1,000,000", 1, &times[0], &times[2]);
    for table in [few, some, many] {
        drop(table.store);
        table.farm.close().await;
    }
}
