//! Reads after a shred, by several processes.

use super::{ERASED, append, placed, read, schemas, shop, shred};
use eventseal::ExpectedVersion::Any;
use eventseal::error::KmsFault;
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::{Error, EventStore, EventStoreExt, JsonPointer, Keyring, SealedStore, aggregate};
use std::sync::Arc;
use support::KEYRING;
use support::customer_scope;

#[tokio::test]
async fn i5_after_a_committed_shred_no_statement_sees_plaintext_nor_seals() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    // Another process, with a warm cache of its own, and one with another keyring.
    let other = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    assert_eq!(read(&db, &other).await.unwrap()[0].payload, placed().payload());
    let foreign =
        SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    assert!(
        matches!(read(&db, &foreign).await, Err(Error::Kms(KmsFault::Refused { .. }))),
        "another keyring opens nothing"
    );

    let mut open = db.begin();
    let before = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
    assert_eq!(before.events[0].payload, placed().payload());
    let mut uncommitted = db.begin();
    store.keys().shred(&mut uncommitted, &customer_scope("42"), "request 1").await.unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload(), "not committed yet");
    uncommitted.rollback();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload(), "a rolled-back shred destroys nothing");

    let shredding = shred(&db, &store).await;
    assert_eq!(shredding.destroyed.len(), 1);
    let after = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
    assert_eq!(after.events[0].payload, ERASED, "a transaction that began before sees it at its next statement");
    assert_eq!(after.events[0].redacted, [JsonPointer::parse("/name").unwrap()]);
    assert_eq!(read(&db, &other).await.unwrap()[0].payload, ERASED, "another process's cache does not outlive the row");
    for process in [&store, &other] {
        let refused = append(&db, process, placed()).await.unwrap_err();
        assert!(refused.is_shredded() && !refused.is_retryable(), "{refused:?}");
    }
    assert_eq!(read(&db, &store).await.unwrap().len(), 1, "nothing was written");
    assert_eq!(shred(&db, &store).await.destroyed, [], "a second shred destroys nothing");
}

#[tokio::test]
async fn i5_an_append_that_looked_before_the_shred_does_not_commit_after_it() {
    for existing_key in [true, false] {
        let (db, store) = shop().await;
        if existing_key {
            append(&db, &store, placed()).await.unwrap();
        }
        let mut appending = db.begin();
        store.append(&mut appending, &aggregate("Order", "2"), Any, &[placed()]).await.unwrap();
        shred(&db, &store).await;
        assert!(appending.commit().unwrap_err().is_retryable());
        let mut shredding = db.begin();
        store.keys().shred(&mut shredding, &customer_scope("42"), "again").await.unwrap();
        let history = store.keys().key_history(&mut db.begin(), &customer_scope("42")).await.unwrap().unwrap();
        assert_eq!(history.keys.len(), usize::from(existing_key), "the key of the append that lost was not committed");
        assert!(history.keys.iter().all(|key| key.shredded_at.is_some()));
        assert!(store.read_stream(&mut db.begin(), &aggregate("Order", "2")).await.unwrap().events.is_empty());
    }
}

#[tokio::test]
async fn i6_an_event_and_its_new_key_are_committed_together_or_not_at_all() {
    let (db, store) = shop().await;
    let mut tx = db.begin();
    store.append(&mut tx, &aggregate("Order", "1"), Any, &[placed()]).await.unwrap();
    drop(tx);
    assert!(store.keys().key_history(&mut db.begin(), &customer_scope("42")).await.unwrap().is_none());
    // The rolled-back key is in the cache; it must not be used again.
    append(&db, &store, placed()).await.unwrap();
    let fresh = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    assert_eq!(
        read(&db, &fresh).await.unwrap()[0].payload,
        placed().payload(),
        "a process without a cache finds the key"
    );
    let history = store.keys().key_history(&mut db.begin(), &customer_scope("42")).await.unwrap().unwrap();
    assert_eq!((history.keys.len(), history.keys[0].version), (1, 1));
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload());
}
