//! Errors of real databases that fail, refuse or can't be reached, and their meaning to the caller.

mod dropped;
mod metadata;
mod outages;
mod positions;
mod set_up;
mod shown;

use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{AggregateRef, NewEvent, Schemas, SealedStore, aggregate, event, subject};
use std::sync::Arc;
use support::{KEYRING, Postgres, Sqlite};

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn order() -> AggregateRef {
    aggregate("Order", "1")
}

fn on_postgres() -> SealedStore<PostgresStore> {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas())
}

fn on_sqlite() -> SealedStore<SqliteStore> {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&KEYRING), schemas())
}

async fn postgres() -> (Postgres, SealedStore<PostgresStore>) {
    let (db, store) = (Postgres::new().await, on_postgres());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    (db, store)
}

async fn sqlite() -> (Sqlite, SealedStore<SqliteStore>) {
    let (db, store) = (Sqlite::new().await, on_sqlite());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    (db, store)
}
