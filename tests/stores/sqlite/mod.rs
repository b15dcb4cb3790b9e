//! Tests of SQLite alone: its one writer, its transactions, its files.

mod events;
mod keys;
mod locks;

use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{NewEvent, Schemas, SealedStore, event, subject};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use std::time::Duration;
use support::{KEYRING, Sqlite};

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

/// A process that has nothing cached.
fn cold() -> SealedStore<SqliteStore> {
    SealedStore::new(SqliteStore::new(), SqliteKeys::new(), Arc::clone(&KEYRING), schemas())
}

async fn store(db: &Sqlite) -> SealedStore<SqliteStore> {
    let store = cold();
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    store
}

/// A connection that gives up at once when the database is locked.
async fn impatient(db: &Sqlite) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(db.folder.path().join("test.db")).busy_timeout(Duration::ZERO);
    SqliteConnection::connect_with(&options).await.unwrap()
}
