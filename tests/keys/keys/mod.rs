//! Keys: reads after a shred, outages, and the number of queries of the key table.

mod costs;
mod history;
mod life;
mod shreds;
mod stores;

use eventseal::ExpectedVersion::Any;
use eventseal::keys::Shredding;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::{
    EventStore, EventStoreExt, Namespace, NewEvent, Owner, PersistedEvent, Result, Schemas, SealedStore, aggregate,
    event, subject,
};
use std::sync::Arc;
use support::KEYRING;
use support::customer_scope;

type Store = SealedStore<MemoryStore>;

fn schemas() -> Schemas {
    Schemas::new([
        event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer")),
        event("Registered").version(1).protect(&["/name"], Owner::Aggregate.scope_kind("Customer")),
        event("Noted").version(1),
    ])
    .unwrap()
}

fn placed() -> NewEvent {
    NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"Ada"}"#)
}

const ERASED: &[u8] = br#"{"customer":"42","name":null}"#;

async fn shop() -> (MemoryDb, Store) {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    (db, store)
}

async fn append(db: &MemoryDb, store: &Store, event: NewEvent) -> Result<()> {
    let mut tx = db.begin();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[event]).await?;
    tx.commit()
}

async fn read(db: &MemoryDb, store: &Store) -> Result<Vec<PersistedEvent>> {
    Ok(store.read_stream(&mut db.begin(), &aggregate("Order", "1")).await?.events)
}

async fn shred(db: &MemoryDb, store: &Store) -> Shredding {
    let mut tx = db.begin();
    let shredding = store.keys().shred(&mut tx, &customer_scope("42"), "request 1").await.unwrap();
    tx.commit().unwrap();
    shredding
}
