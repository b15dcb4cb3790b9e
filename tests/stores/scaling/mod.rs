//! Beyond one machine: what `docs/scaling.md` says, on a real primary and its standbys, on partitioned tables, and on
//! keys that lie in several tables.

mod failover;
mod locks;
mod page;
mod partitions;
mod servers;
mod shards;
mod standby;
mod strict;
mod tenants;

use eventseal::ExpectedVersion::Any;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{EventStore, EventStoreExt, NewEvent, Result, Schemas, SealedStore, aggregate, event};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use support::{KEYRING, contains, customer, customer_scope};

type Store = SealedStore<PostgresStore>;

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

fn placed(id: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{id}","name":"Ada"}}"#))
}

/// A process: its caches are empty.
fn process() -> Store {
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas())
}

/// Appends an order of this customer, and commits.
async fn append(connection: &mut PgConnection, store: &impl EventStore<Tx = PgConnection>, id: &str) -> Result<()> {
    let mut tx = connection.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", id), Any, &[placed(id)]).await?;
    tx.commit().await.unwrap();
    Ok(())
}

async fn shred(connection: &mut PgConnection, store: &Store, id: &str) -> Result<()> {
    let mut tx = connection.begin().await.unwrap();
    store.keys().shred(&mut tx, &customer_scope(id), "request 118").await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// Does the order of this customer show the name?
async fn shows(connection: &mut PgConnection, store: &Store, id: &str) -> Result<bool> {
    let events = store.read_stream(connection, &aggregate("Order", id)).await?.events;
    assert_eq!(events.len(), 1);
    let shown = contains(&events[0].payload, "Ada");
    assert_eq!(shown, !events[0].is_redacted());
    Ok(shown)
}
