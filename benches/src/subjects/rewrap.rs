//! Rewraps of data keys on PostgreSQL.

use super::Subject;
use super::first::Counting;
use crate::bench::{Bench, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::keys::RewrapOptions;
use eventseal::postgres::PostgresStore;
use eventseal::{EventStore, ExpectedVersion, Keyring, NewEvent, SealedStore, aggregate};
use sqlx::{Connection, Executor, PgConnection};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

pub(super) const SUBJECT: Subject = Subject {
    name: "rewrap",
    title: "Rewrap data keys",
    about: "All data keys are wrapped under another key-encryption key, in batches of 500. Beside it, one \
        `UPDATE … FROM UNNEST` for each batch writes as many bytes to the same rows: it reads, unwraps, wraps and \
        checks no key. Times are for one key.",
    run,
};

const BATCH: usize = 500;

fn run(bench: &Bench) -> Report {
    let db = Postgres::new("rewrap");
    let kms = Arc::new(Counting { inner: Keyring::generate("main").unwrap(), calls: AtomicUsize::new(0) });
    let store = db.sealed_with(db.tables("wrapped"), Arc::clone(&kms), fixture::schemas());
    let keys = bench.pick(600, 20_000, 100_000);
    bench.say("filling the key table");
    fill(&db, &store, keys);
    let connection = RefCell::new(db.connection());
    let rotate = || {
        db.block_on(store.keys().rotate_kek(&mut connection.borrow_mut(), "default")).unwrap();
    };
    // The floor needs another key-encryption key to name.
    rotate();
    let floor = way(|| db.block_on(floor(&mut connection.borrow_mut())));
    let rewrap = way(|| {
        rotate();
        let calls = kms.calls.load(Ordering::Relaxed);
        let connection = &mut *connection.borrow_mut();
        db.block_on(async {
            connection.execute("VACUUM FULL ANALYZE data_keys").await.unwrap();
            let start = Instant::now();
            let done = store.keys().rewrap(connection, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
            let took = start.elapsed();
            assert_eq!((usize::try_from(done.rewrapped).unwrap(), done.remaining), (keys + 1, 0));
            assert!(kms.calls.load(Ordering::Relaxed) - calls <= 2, "the KMS was asked too often");
            took
        })
    });
    let [of_floor, of_rewrap] = bench.compare(&format!("{keys} keys"), bench.pick(1, 9, 9), keys, [floor, rewrap]);
    Report::of([Measured::speed(format!("rewrap {keys} keys"), &of_rewrap, "writing the rows", &of_floor)])
}

fn fill(db: &Postgres, store: &SealedStore<PostgresStore>, keys: usize) {
    for first in (0..keys).step_by(1_000) {
        let event = |number| NewEvent::raw(fixture::TYPE, 1, fixture::order_of(&fixture::customer(number)));
        let events: Vec<NewEvent> = (first..keys.min(first + 1_000)).map(event).collect();
        db.block_on(async {
            let mut tx = db.pool.begin().await.unwrap();
            store.append(&mut tx, &aggregate("Order", first.to_string()), ExpectedVersion::Any, &events).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
}

/// Writes each wrapped key back under the id of another key-encryption key. The ids are restored afterwards.
async fn floor(connection: &mut PgConnection) -> Duration {
    connection.execute("VACUUM FULL ANALYZE data_keys").await.unwrap();
    let rows: Vec<(Uuid, Vec<u8>, Uuid)> =
        sqlx::query_as("SELECT key_id, wrapped_key, kek_id FROM data_keys ORDER BY key_id")
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    let other: Uuid = sqlx::query_scalar("SELECT kek_id FROM key_encryption_keys WHERE kek_id <> $1 LIMIT 1")
        .bind(rows[0].2)
        .fetch_one(&mut *connection)
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
        .bind(other)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }
    let took = start.elapsed();
    sqlx::query("UPDATE data_keys SET kek_id = $1").bind(rows[0].2).execute(connection).await.unwrap();
    took
}
