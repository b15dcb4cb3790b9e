//! Hits and misses of the caches, over a sequence of calls whose keys are known.

use super::*;
use eventseal::ExpectedVersion::Any;
use eventseal::keys::KeyManager;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::{EventStore, EventStoreExt, Namespace, SealedStore, aggregate};
use std::sync::Arc;
use std::time::Duration;
use support::KEYRING;

/// Hits and misses of data keys, then of key-encryption keys.
fn caches(recorded: &Recorded) -> [u64; 4] {
    let names = ["data_key_cache_hits", "data_key_cache_misses", "kek_cache_hits", "kek_cache_misses"];
    names.map(|name| recorded.count(&format!("eventseal_{name}_total"), &[]))
}

/// What a call added.
async fn during(recorded: &Recorded, call: impl Future<Output = ()>) -> [u64; 4] {
    let before = caches(recorded);
    call.await;
    let after = caches(recorded);
    std::array::from_fn(|index| after[index] - before[index])
}

async fn append(db: &MemoryDb, store: &SealedStore<MemoryStore>, customer: &str) {
    let mut tx = db.begin();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed(customer)]).await.unwrap();
    tx.commit().unwrap();
}

async fn read(db: &MemoryDb, store: &SealedStore<MemoryStore>) {
    store.read_stream(&mut db.begin(), &aggregate("Order", "1")).await.unwrap();
}

fn process() -> SealedStore<MemoryStore> {
    SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), old_schemas())
}

#[tokio::test]
async fn hits_and_misses_are_those_of_the_keys_that_calls_need() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = process();
    // The KMS opens the first key-encryption key, and that opens the integrity key.
    let prepared = during(&recorded, async { store.keys().prepare(&mut db.begin()).await.unwrap() }).await;
    assert_eq!(prepared, [0, 1, 1, 1]);
    // The integrity key is there, and a new key is not.
    assert_eq!(during(&recorded, append(&db, &store, "42")).await[..2], [1, 1]);
    // Both keys are there. No key-encryption key is needed.
    assert_eq!(during(&recorded, append(&db, &store, "42")).await, [2, 0, 0, 0]);
    assert_eq!(during(&recorded, read(&db, &store)).await, [2, 0, 0, 0]);
    // Another process has neither data key, and asks the KMS once for the key that opens both.
    let other = process();
    assert_eq!(during(&recorded, read(&db, &other)).await, [0, 2, 0, 1]);
    assert_eq!(during(&recorded, read(&db, &other)).await, [2, 0, 0, 0]);
    // A third customer's key is opened under a key that is open.
    append(&db, &store, "43").await;
    assert_eq!(during(&recorded, read(&db, &other)).await, [2, 1, 1, 0]);
}

/// Without a cache, every call misses, and the KMS is asked each time.
#[tokio::test]
async fn without_a_cache_there_are_no_hits() {
    let recorded = Recorded::default();
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let keys = KeyManager::builder(MemoryKeys::new(), Arc::clone(&KEYRING)).kek_cache_period(Duration::ZERO);
    let store = SealedStore::with_keys(MemoryStore::new(), keys.build(), old_schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    append(&db, &store, "42").await;
    let _listening = recorded.listen();
    for _ in 0..3 {
        assert_eq!(during(&recorded, read(&db, &store)).await, [0, 2, 0, 1]);
    }
    let asked = [("operation", "unwrap_kek"), ("outcome", "ok")];
    assert_eq!(recorded.count("eventseal_kms_requests_total", &asked), 3);
}
