//! Stores and processes that do not fit together.

use super::{append, placed, read, schemas, shop, shred};
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::error::{KeyFault, SetUpFault, StorageFault, TransactionFault};
use eventseal::keys::KeyManager;
use eventseal::kms::SecretKey;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::{
    AggregateRef, Appended, Error, EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, PersistedEvent,
    Result, SealedStore, aggregate,
};
use std::sync::{Arc, Mutex};
use support::KEYRING;
use support::customer_scope;
use support::faults::{Faulty, StoreFaults};

/// A store that hands back what it appended in another order, or something else.
struct Misordered {
    inner: MemoryStore,
    misorder: fn(&mut Vec<PersistedEvent>),
}

#[async_trait]
impl StoreFaults for Misordered {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.inner
    }

    async fn append(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        let mut appended = self.inner.append(tx, aggregate, expected, events).await?;
        (self.misorder)(&mut appended.events);
        Ok(appended)
    }
}

#[tokio::test]
async fn i3_no_appended_event_gets_the_payload_of_another_one() {
    let misorders: [fn(&mut Vec<PersistedEvent>); 4] = [
        |events| events.reverse(),
        |events| drop(events.pop()),
        |events| events[0].event_id = uuid::Uuid::nil(),
        |events| {
            let first = events[0].clone();
            events[1] = first;
        },
    ];
    for (number, misorder) in misorders.into_iter().enumerate() {
        let db = MemoryDb::new(Namespace::new("test").unwrap());
        let inner = Faulty(Misordered { inner: MemoryStore::new(), misorder });
        let store = SealedStore::new(inner, MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
        store.keys().prepare(&mut db.begin()).await.unwrap();
        let appended = store.append(&mut db.begin(), &aggregate("Order", "1"), Any, &[placed(), placed()]).await;
        assert!(matches!(appended, Err(Error::Storage(StorageFault::Contract { .. }))), "{number}: {appended:?}");
    }
}

#[tokio::test]
async fn an_append_before_prepare_names_the_remedy() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    let error = append(&db, &store, placed()).await.unwrap_err();
    assert!(
        matches!(error, Error::Keys(KeyFault::NoActiveKek { .. })) && error.to_string().contains("prepare()"),
        "{error}"
    );
    append(&db, &store, NewEvent::raw("Noted", 1, "{}")).await.unwrap();
}

#[tokio::test]
async fn a_key_database_of_another_namespace_is_refused_at_startup() {
    let (db, _) = shop().await;
    let keys = KeyManager::builder(MemoryKeys::new(), Keyring::generate("main").unwrap())
        .for_namespace(Namespace::new("production").unwrap());
    let store = SealedStore::with_keys(MemoryStore::new(), keys.build(), schemas());
    let error = store.keys().prepare(&mut db.begin()).await.unwrap_err();
    assert!(matches!(
        &error,
        Error::SetUp(SetUpFault::NamespaceMismatch { configured, found })
            if configured.as_str() == "production" && found.as_str() == "test"
    ));
}

/// If a key were wrapped for the namespace of another database, this process could use it, but only until it restarts.
#[tokio::test]
async fn i6_one_store_makes_and_changes_keys_in_one_database_only() {
    let cold = || SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    let mismatch = |result: Result<()>| {
        let expected = matches!(&result, Err(Error::SetUp(SetUpFault::NamespaceMismatch { configured, found }))
            if configured.as_str() == "tenant-a" && found.as_str() == "tenant-b");
        assert!(expected, "{result:?}");
    };
    for guarded in [false, true] {
        let (a, b, tenant) = (
            Namespace::new("tenant-a").unwrap(),
            Namespace::new("tenant-b").unwrap(),
            KeyScope::new("Customer", "new"),
        );
        let (a, b) = (MemoryDb::new(a), MemoryDb::new(b));
        let keys = KeyManager::builder(MemoryKeys::new(), Arc::clone(&KEYRING));
        let keys = if guarded { keys.for_namespace(Namespace::new("tenant-a").unwrap()) } else { keys };
        let store = SealedStore::with_keys(MemoryStore::new(), keys.build(), schemas());
        store.keys().prepare(&mut a.begin()).await.unwrap();
        append(&a, &store, placed()).await.unwrap();
        mismatch(store.keys().prepare(&mut b.begin()).await);
        let other = cold();
        other.keys().prepare(&mut b.begin()).await.unwrap();
        mismatch(append(&b, &store, placed()).await);
        append(&b, &other, placed()).await.unwrap();
        for scope in [customer_scope("42"), tenant] {
            let mut tx = b.begin();
            mismatch(store.keys().rotate_data_key(&mut tx, &scope).await.map(drop));
            mismatch(store.keys().shred(&mut tx, &scope, "r").await.map(drop));
            mismatch(store.keys().reopen(&mut tx, &scope, "r").await.map(drop));
            mismatch(store.keys().disable(&mut tx, &scope, "r").await);
        }
        mismatch(append(&b, &store, placed()).await);
        for (db, process) in [(&a, cold()), (&b, cold())] {
            assert_eq!(read(db, &process).await.unwrap()[0].payload, placed().payload(), "a restart opens everything");
        }
    }
}

#[tokio::test]
async fn preparing_twice_or_from_two_processes_changes_nothing() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let one = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    let two = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    for store in [&one, &two, &one] {
        store.keys().prepare(&mut db.begin()).await.unwrap();
    }
    append(&db, &one, placed()).await.unwrap();
    assert_eq!(read(&db, &two).await.unwrap()[0].payload, placed().payload());
    let integrity = one.keys().key_history(&mut db.begin(), &KeyScope::integrity()).await.unwrap().unwrap();
    assert_eq!(integrity.keys.len(), 1);
    let mut writing = db.begin();
    one.append(&mut writing, &aggregate("Order", "9"), Any, &[placed()]).await.unwrap();
    let third = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    third.keys().prepare(&mut writing).await.expect("nothing has to be installed");
    let fresh = MemoryDb::new(Namespace::new("test").unwrap());
    let mut writing = fresh.begin();
    let plain = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    plain.append(&mut writing, &aggregate("Order", "9"), Any, &[NewEvent::raw("Noted", 1, "{}")]).await.unwrap();
    assert!(matches!(
        plain.keys().prepare(&mut writing).await,
        Err(Error::Transaction(TransactionFault::InTransaction { .. }))
    ));
}

#[tokio::test]
async fn i9_logs_and_debug_output_hold_no_secrets() {
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::FmtSpan;
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }
    let log = Log::default();
    let subscriber = || tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // If there is one subscriber only, the first thread that comes by a place decides whether that is logged, and other
    // tests have none.
    let _second = tracing::Dispatch::new(subscriber().with_writer(std::io::sink).finish());
    // Spans are written with all their fields, when they begin and when they end.
    let with_spans = subscriber().with_span_events(FmtSpan::NEW | FmtSpan::CLOSE).with_ansi(false);
    let guard = tracing::subscriber::set_default(with_spans.with_writer(log.clone()).finish());
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let events = read(&db, &store).await.unwrap();
    shred(&db, &store).await;
    read(&db, &store).await.unwrap();
    append(&db, &store, placed()).await.unwrap_err();
    drop(guard);
    let keyring = Keyring::parse("main:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("shredded") && logged.contains("key-encryption key"), "{logged}");
    for seen in
        ["eventseal.append{", "aggregate_type=\"Order\"", "redacted=1", "eventseal.kms{", "error_kind=\"shredded\""]
    {
        assert!(logged.contains(seen), "{seen} is not in {logged}");
    }
    let shown = format!(
        "{logged} {store:?} {:?} {events:?} {:?} {keyring:?} {:?}",
        store.keys(),
        placed(),
        SecretKey::new(*b"0123456789012345678901234567890A")
    );
    for secret in ["Ada", "MDEy", "0123456789012345678901234567890", "48, 49, 50"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
