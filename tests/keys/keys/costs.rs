//! Outages of the KMS, and the number of calls to the KMS and of queries of the key table.

use super::{append, placed, read, schemas};
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::error::KmsFault;
use eventseal::keys::KeyStore;
use eventseal::keys::{ScopeLock, ScopeRecord};
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::{
    Error, EventFilter, EventStore, GlobalPosition, KeyScope, Keyring, Namespace, NewEvent, Result, SealedStore,
    aggregate,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::Deadline;
use support::KEYRING;
use support::customer_scope;
use support::faults::{Faulty, KeyFaults, KmsFaults};

/// A KMS that counts its calls, and can be down.
struct CountingKms {
    inner: Arc<Keyring>,
    unwraps: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl CountingKms {
    fn over(inner: Arc<Keyring>) -> Self {
        Self { inner, unwraps: Arc::default(), down: Arc::default() }
    }

    fn fail_if_down(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) {
            Err(Error::Kms(KmsFault::Unavailable {
                failure: KmsFailure::Unreachable,
                source: "connection refused".into(),
            }))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl KmsFaults for CountingKms {
    fn inner(&self) -> &dyn Kms {
        &self.inner
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.fail_if_down()?;
        self.inner.generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        // Let others in, as a network call would.
        tokio::task::yield_now().await;
        self.fail_if_down()?;
        self.inner.unwrap_kek(wrapped, context).await
    }
}

#[tokio::test]
async fn i4_an_outage_of_the_kms_is_an_error_and_never_an_erasure() {
    let (db, kms) = (MemoryDb::new(Namespace::new("test").unwrap()), Faulty(CountingKms::over(Arc::clone(&KEYRING))));
    let down = Arc::clone(&kms.down);
    let writer = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    writer.keys().prepare(&mut db.begin()).await.unwrap();
    append(&db, &writer, placed()).await.unwrap();

    down.store(true, Ordering::SeqCst);
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), kms, schemas());
    assert!(store.keys().prepare(&mut db.begin()).await.unwrap_err().is_retryable());
    for result in [read(&db, &store).await.map(|_| ()), append(&db, &store, placed()).await] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Kms(KmsFault::Unavailable { .. })) && error.is_retryable() && !error.is_shredded(),
            "{error:?}"
        );
    }
    // A shred needs the integrity key, which authenticates its entry in the log. Nobody has opened it here.
    let scope = KeyScope::new("Customer", "43");
    let mut tx = db.begin();
    let error = store.keys().shred(&mut tx, &scope, "during the outage").await.unwrap_err();
    assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. })) && error.is_retryable(), "{error:?}");
    tx.commit().unwrap();
    assert_eq!(store.keys().key_history(&mut db.begin(), &scope).await.unwrap(), None, "it changed something");
    down.store(false, Ordering::SeqCst);
    // It recovers without a restart, when the failure is forgotten.
    let deadline = Deadline::of("for the recovery from an outage");
    let events = loop {
        deadline.look_again().await;
        match read(&db, &store).await {
            Ok(events) => break events,
            Err(error) => assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. }))),
        }
    };
    assert_eq!(events[0].payload, placed().payload());
    append(&db, &store, placed()).await.unwrap();
    down.store(true, Ordering::SeqCst);
    assert_eq!(read(&db, &store).await.unwrap().len(), 2, "what is cached goes on during an outage");
    append(&db, &store, placed()).await.unwrap();
    let mut tx = db.begin();
    store.keys().shred(&mut tx, &scope, "during the outage").await.expect("the integrity key is cached");
    tx.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_thousand_readers_ask_the_kms_once() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let kms = Faulty(CountingKms::over(Arc::clone(&KEYRING)));
    let unwraps = Arc::clone(&kms.unwraps);
    let writer = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    writer.keys().prepare(&mut db.begin()).await.unwrap();
    append(&db, &writer, placed()).await.unwrap();
    let reader = Arc::new(SealedStore::new(MemoryStore::new(), MemoryKeys::new(), kms, schemas()));
    let readers: Vec<_> = (0..1_000)
        .map(|_| {
            let (db, reader) = (db.clone(), Arc::clone(&reader));
            tokio::spawn(async move { read(&db, &reader).await.unwrap()[0].payload.clone() })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), placed().payload());
    }
    assert_eq!(unwraps.load(Ordering::SeqCst), 1);
}

/// A key table that writes down what it is asked.
#[derive(Clone, Default)]
struct RecordingKeys {
    inner: MemoryKeys,
    calls: Arc<Mutex<Vec<String>>>,
}

impl RecordingKeys {
    fn note(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

#[async_trait]
impl KeyFaults for RecordingKeys {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.inner
    }

    fn before(&self, call: &'static str) -> Result<()> {
        if call != "scopes" {
            self.note(call);
        }
        Ok(())
    }

    async fn scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        assert!(scopes.is_sorted(), "scopes are locked in ascending order");
        self.note(format!("scopes {lock:?}"));
        self.inner.scopes(tx, scopes, lock).await
    }

    async fn create_scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope]) -> Result<()> {
        assert!(scopes.is_sorted(), "scopes are created in ascending order");
        self.inner.create_scopes(tx, scopes).await
    }
}

#[tokio::test]
async fn i10_a_page_costs_one_key_query_and_an_append_one_locking_query() {
    let keys = Faulty(RecordingKeys::default());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), keys.clone(), Keyring::generate("main").unwrap(), schemas());
    store.keys().prepare(&mut db.begin()).await.unwrap();
    keys.take();
    let orders: Vec<NewEvent> = (0..50)
        .map(|number| NewEvent::raw("Placed", 1, format!(r#"{{"customer":{},"name":"n"}}"#, number % 7)))
        .collect();
    append_all(&db, &store, &orders).await;
    assert_eq!(
        keys.take(),
        ["scopes None", "namespace", "active_kek", "create_scopes", "scopes Share", "insert_keys"],
        "first keys of 7 scopes: a look, and what the KMS may be needed for, before anything is locked"
    );
    append_all(
        &db,
        &store,
        &orders.iter().map(|event| event.clone().with_id(uuid::Uuid::now_v7())).collect::<Vec<_>>(),
    )
    .await;
    assert_eq!(keys.take(), ["scopes Share"]);
    assert_eq!(read(&db, &store).await.unwrap().len(), 100);
    assert_eq!(keys.take(), ["data_keys"]);
    store.read_events(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    assert_eq!(keys.take(), ["data_keys"]);
    store.read_events_each(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    assert_eq!(keys.take(), ["data_keys"], "one by one, but not with a query each");
    append(&db, &store, NewEvent::raw("Noted", 1, "{}")).await.unwrap();
    let from_101 =
        store.read_aggregate_stream(&mut db.begin(), &aggregate("Order", "1"), (101..).into()).await.unwrap();
    assert_eq!((from_101.events.len(), keys.take()), (1, vec![]), "what is not sealed costs no key query");
    let mut tx = db.begin();
    let locked = ["announce_writing", "namespace", "scopes Update"];
    let shredded = ["history", "scopes None", "destroy_keys", "change_scope", "history", "data_keys"];
    store.keys().shred(&mut tx, &customer_scope("3"), "request").await.unwrap();
    assert_eq!(
        keys.take(),
        [&locked[..], &shredded].concat(),
        "the scope row is locked first, then its entries are checked, keys change in a later statement, only then is \
         it said, and then it is looked at"
    );
    store.keys().shred(&mut tx, &customer_scope("42"), "request").await.unwrap();
    let created = ["create_scopes", "scopes Update"];
    assert_eq!(keys.take(), [&locked[..], &created, &shredded].concat(), "a scope that is not there is made");
}

async fn append_all<S: EventStore<Tx = MemoryTx>>(db: &MemoryDb, store: &S, events: &[NewEvent]) {
    let mut tx = db.begin();
    store.append(&mut tx, &aggregate("Order", "1"), Any, events).await.unwrap();
    tx.commit().unwrap();
}
