//! Pins the auto traits of public types, and the object safety of the ports.

use eventseal::keys::{KeyManager, KeyStore, KeyTable};
use eventseal::kms::{Kms, SecretKey};
use eventseal::maintenance::{BackfillOptions, Backfilled, Census, CensusOptions, RewriteOptions, Rewritten};
use eventseal::memory::{MemoryDb, MemoryKeys, MemorySnapshots, MemoryStore, MemoryTx};
use eventseal::snapshots::{Rebuilt, SealedSnapshots};
#[cfg(feature = "databases")]
use eventseal::sqlite::SqliteStore;
use eventseal::store::{EventTable, SnapshotStore};
use eventseal::{
    Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, Keyring, Namespace, NewEvent, PageSize,
    PersistedEvent, Schemas, SealedStore, Sealer, Sensitive, aggregate,
};
use futures::TryStreamExt;
use std::sync::Arc;

fn is_send_sync_unpin<T: Send + Sync + Unpin>() {}

#[test]
fn public_types_are_send_sync_and_unpin() {
    is_send_sync_unpin::<SealedStore<MemoryStore>>();
    is_send_sync_unpin::<SealedStore<Arc<dyn EventStore<Tx = MemoryTx>>>>();
    is_send_sync_unpin::<Sealer<MemoryTx>>();
    is_send_sync_unpin::<KeyManager<MemoryTx>>();
    is_send_sync_unpin::<Schemas>();
    is_send_sync_unpin::<Keyring>();
    is_send_sync_unpin::<MemoryDb>();
    is_send_sync_unpin::<MemoryTx>();
    is_send_sync_unpin::<NewEvent>();
    is_send_sync_unpin::<PersistedEvent>();
    is_send_sync_unpin::<Error>();
    is_send_sync_unpin::<Sensitive<String>>();
    is_send_sync_unpin::<SealedSnapshots<MemorySnapshots>>();
    is_send_sync_unpin::<SealedSnapshots<Arc<dyn SnapshotStore<Tx = MemoryTx>>>>();
    is_send_sync_unpin::<Rebuilt<String>>();
    is_send_sync_unpin::<Census>();
    is_send_sync_unpin::<Backfilled>();
    is_send_sync_unpin::<Rewritten>();
    is_send_sync_unpin::<SecretKey>();
    #[cfg(feature = "databases")]
    is_send_sync_unpin::<SealedStore<SqliteStore>>();
}

/// The ports can be trait objects, and calls on them can be spawned.
#[test]
fn ports_are_dyn_compatible_and_their_futures_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let store: Arc<dyn EventStore<Tx = MemoryTx>> = Arc::new(MemoryStore::new());
    let _keys: Arc<dyn KeyStore<Tx = MemoryTx>> = Arc::new(MemoryKeys::new());
    let _keys: Arc<dyn KeyTable<Tx = MemoryTx>> = Arc::new(MemoryKeys::new());
    let _kms: Arc<dyn Kms> = Arc::new(Keyring::generate("main").unwrap());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let (events, keys) = (db.clone(), MemoryKeys::new());
    let _future = is_send(async move { store.read_stream(&mut events.begin(), &aggregate("A", "1")).await.map(drop) });
    let table: Arc<dyn EventTable<Tx = MemoryTx>> = Arc::new(MemoryStore::new());
    let sealed =
        SealedStore::new(MemoryStore::new(), keys, Keyring::generate("main").unwrap(), Schemas::new([]).unwrap());
    let _future = is_send(async move {
        let (mut tx, mut other, mut told) = (db.begin(), db.begin(), 0);
        sealed.census(&mut tx, &CensusOptions::default(), &mut |_| {}).await?;
        sealed.backfill(&mut tx, &BackfillOptions::default(), &mut |_| told += 1).await?;
        sealed.rewrite(&mut tx, &*table, &mut other, &RewriteOptions::default(), &mut |_| {}).await.map(drop)
    });
}

/// Any store gives out streams of events: one behind a pointer, one whose type is not known, and a sealed one. Their
/// streams need not be pinned, and tasks can be spawned with them. What they are told may be gone before they are read.
#[tokio::test]
async fn every_store_gives_out_streams_that_can_be_spawned() {
    async fn number_of<S: EventStore<Tx = MemoryTx> + ?Sized>(store: &S, tx: &mut MemoryTx) -> usize {
        let page = PageSize::default();
        let mut events = store.log_events(tx, GlobalPosition::START, page, &EventFilter::default());
        let mut number = 0;
        while events.try_next().await.unwrap().is_some() {
            number += 1;
        }
        drop(events);
        let events = store.aggregate_events(tx, &aggregate("A", "1"), (..).into(), page);
        number + events.try_collect::<Vec<_>>().await.unwrap().len()
    }
    let store: Arc<dyn EventStore<Tx = MemoryTx>> = Arc::new(MemoryStore::new());
    let sealed = SealedStore::new(
        Arc::clone(&store),
        MemoryKeys::new(),
        Keyring::generate("main").unwrap(),
        Schemas::builder([]).allow_unknown_types().build().unwrap(),
    );
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let mut tx = db.begin();
    sealed.keys().prepare(&mut db.begin()).await.unwrap();
    let events = [NewEvent::raw("E", 1, "{}"), NewEvent::raw("E", 1, "{}")];
    sealed.append(&mut tx, &aggregate("A", "1"), eventseal::ExpectedVersion::Any, &events).await.unwrap();
    assert_eq!(number_of(&store, &mut tx).await, 4);
    assert_eq!(number_of(&*store, &mut tx).await, 4);
    assert_eq!(tokio::spawn(async move { number_of(&sealed, &mut tx).await }).await.unwrap(), 4);
}
