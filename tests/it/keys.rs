//! Keys: who sees what after a shred, what an outage looks like, and what the key table may cost.

use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::KEYRING;
use support::faults::{Faulty, KeyFaults, KmsFaults, StoreFaults};

type Store = SealedStore<MemoryStore>;

fn schemas() -> Schemas {
    Schemas::new([
        event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer")),
        event("Registered").version(1).protect(&["/name"], Owner::Aggregate.scope_kind("Customer")),
        event("Noted").version(1),
    ])
    .unwrap()
}

fn customer() -> KeyScope {
    KeyScope::new("Customer", "42")
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
    let shredding = store.keys().shred(&mut tx, &customer(), "request 1").await.unwrap();
    tx.commit().unwrap();
    shredding
}

#[tokio::test]
async fn i5_after_a_committed_shred_no_statement_sees_plaintext_nor_seals() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    // Another process, with a warm cache of its own, and one with another keyring.
    let other = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    assert_eq!(read(&db, &other).await.unwrap()[0].payload, placed().payload);
    let foreign = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    assert!(matches!(read(&db, &foreign).await, Err(Error::KmsRefused { .. })), "another keyring opens nothing");

    let mut open = db.begin();
    let before = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
    assert_eq!(before.events[0].payload, placed().payload);
    let mut uncommitted = db.begin();
    store.keys().shred(&mut uncommitted, &customer(), "request 1").await.unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload, "not committed yet");
    uncommitted.rollback();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload, "a rolled-back shred destroys nothing");

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
        store.keys().shred(&mut shredding, &customer(), "again").await.unwrap();
        let history = store.keys().key_history(&mut db.begin(), &customer()).await.unwrap().unwrap();
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
    assert!(store.keys().key_history(&mut db.begin(), &customer()).await.unwrap().is_none());
    // The rolled-back key is in the cache; it must not be used again.
    append(&db, &store, placed()).await.unwrap();
    let fresh = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    assert_eq!(read(&db, &fresh).await.unwrap()[0].payload, placed().payload, "a process without a cache finds the key");
    let history = store.keys().key_history(&mut db.begin(), &customer()).await.unwrap().unwrap();
    assert_eq!((history.keys.len(), history.keys[0].version), (1, 1));
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload);
}

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
            Err(Error::KmsUnavailable { failure: KmsFailure::Unreachable, source: "connection refused".into() })
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
        assert!(matches!(error, Error::KmsUnavailable { .. }) && error.is_retryable() && !error.is_shredded(), "{error:?}");
    }
    // Shredding needs no KMS.
    let mut tx = db.begin();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "43"), "during the outage").await.unwrap();
    tx.commit().unwrap();
    down.store(false, Ordering::SeqCst);
    // It recovers without a restart, when the failure is forgotten.
    let events = loop {
        match read(&db, &store).await {
            Ok(events) => break events,
            Err(error) => assert!(matches!(error, Error::KmsUnavailable { .. })),
        }
    };
    assert_eq!(events[0].payload, placed().payload);
    append(&db, &store, placed()).await.unwrap();
    down.store(true, Ordering::SeqCst);
    assert_eq!(read(&db, &store).await.unwrap().len(), 2, "what is cached goes on during an outage");
    append(&db, &store, placed()).await.unwrap();
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
        assert_eq!(reader.await.unwrap(), placed().payload);
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
    let orders: Vec<NewEvent> =
        (0..50).map(|number| NewEvent::raw("Placed", 1, format!(r#"{{"customer":{},"name":"n"}}"#, number % 7))).collect();
    append_all(&db, &store, &orders).await;
    assert_eq!(
        keys.take(),
        ["scopes None", "namespace", "active_kek", "create_scopes", "scopes Share", "insert_keys"],
        "first keys of 7 scopes: a look, and what the KMS may be needed for, before anything is locked"
    );
    append_all(&db, &store, &orders.iter().map(|event| event.clone().with_id(uuid::Uuid::now_v7())).collect::<Vec<_>>()).await;
    assert_eq!(keys.take(), ["scopes Share"]);
    assert_eq!(read(&db, &store).await.unwrap().len(), 100);
    assert_eq!(keys.take(), ["data_keys"]);
    store.read_events(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    assert_eq!(keys.take(), ["data_keys"]);
    store.read_events_each(&mut db.begin(), GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
    assert_eq!(keys.take(), ["data_keys"], "one by one, but not with a query each");
    append(&db, &store, NewEvent::raw("Noted", 1, "{}")).await.unwrap();
    let from_101 = store.read_aggregate_stream(&mut db.begin(), &aggregate("Order", "1"), (101..).into()).await.unwrap();
    assert_eq!((from_101.events.len(), keys.take()), (1, vec![]), "what is not sealed costs no key query");
    let mut tx = db.begin();
    store.keys().shred(&mut tx, &customer(), "request").await.unwrap();
    assert_eq!(
        keys.take(),
        ["scopes Share", "namespace", "create_scopes", "scopes Update", "destroy_keys", "change_scope", "history", "data_keys"],
        "the scope row is locked first, keys change in a later statement, only then is it said, and then it is looked at"
    );
}

async fn append_all<S: EventStore<Tx = MemoryTx>>(db: &MemoryDb, store: &S, events: &[NewEvent]) {
    let mut tx = db.begin();
    store.append(&mut tx, &aggregate("Order", "1"), Any, events).await.unwrap();
    tx.commit().unwrap();
}

#[tokio::test]
async fn a_reopened_scope_seals_anew_and_keeps_its_old_events_redacted() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let mut tx = db.begin();
    let not_shredded = store.keys().reopen(&mut tx, &customer(), "by mistake").await.unwrap_err();
    assert!(matches!(not_shredded, Error::ScopeState { .. }));
    drop(tx);
    shred(&db, &store).await;
    let mut tx = db.begin();
    let key = store.keys().reopen(&mut tx, &customer(), "signed up again").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(key.version, 2);
    append(&db, &store, placed()).await.unwrap();
    let events = read(&db, &store).await.unwrap();
    assert_eq!(events.iter().map(|event| &event.payload[..]).collect::<Vec<_>>(), [ERASED, &placed().payload[..]]);
    let history = store.keys().key_history(&mut db.begin(), &customer()).await.unwrap().unwrap();
    assert_eq!((history.state, history.generation, history.active_key), (ScopeState::Live, 2, Some(key.key_id)));
    let changes: Vec<_> = history.changes.iter().map(|change| (change.action, change.reason.as_str())).collect();
    assert_eq!(changes, [(ScopeAction::Shred, "request 1"), (ScopeAction::Reopen, "signed up again")]);
    assert!(history.changes.iter().all(|change| change.actor.is_none()), "nobody said who");
    shred(&db, &store).await;
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
}

#[tokio::test]
async fn the_history_names_who_did_what() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let clerk = store.keys().acting_as("clerk 7");
    let mut tx = db.begin();
    clerk.disable(&mut tx, &customer(), "incident 3").await.unwrap();
    clerk.enable(&mut tx, &customer(), "it is over").await.unwrap();
    store.keys().acting_as(String::from("billing")).shred(&mut tx, &customer(), "request 1").await.unwrap();
    clerk.reopen(&mut tx, &customer(), "signed up again").await.unwrap();
    store.keys().disable(&mut tx, &customer(), "nobody says").await.unwrap();
    for nobody in [String::new(), "a\0b".to_owned(), "x".repeat(1_025)] {
        let keys = store.keys().acting_as(nobody);
        let refused = [
            keys.shred(&mut tx, &customer(), "r").await.map(drop),
            keys.reopen(&mut tx, &customer(), "r").await.map(drop),
            keys.disable(&mut tx, &customer(), "r").await,
            keys.enable(&mut tx, &customer(), "r").await,
        ];
        for refused in refused {
            assert!(matches!(refused, Err(Error::InvalidText { what: "the actor", .. })), "{refused:?}");
        }
    }
    let history = store.keys().key_history(&mut tx, &customer()).await.unwrap().unwrap();
    let actors: Vec<_> = history.changes.iter().map(|change| (change.action.as_str(), change.actor.as_deref())).collect();
    let clerk = Some("clerk 7");
    let expected = [("disable", clerk), ("enable", clerk), ("shred", Some("billing")), ("reopen", clerk), ("disable", None)];
    assert_eq!(actors, expected);
}

#[tokio::test]
async fn i4_a_disabled_scope_is_an_error_of_its_own_and_comes_back() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let mut tx = db.begin();
    store.keys().disable(&mut tx, &customer(), "key may have leaked").await.unwrap();
    tx.commit().unwrap();
    for result in [read(&db, &store).await.map(|_| ()), append(&db, &store, placed()).await] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Disabled { .. }) && !error.is_shredded() && !error.is_retryable(), "{error:?}");
    }
    let mut tx = db.begin();
    assert!(matches!(store.keys().rotate_data_key(&mut tx, &customer()).await, Err(Error::Disabled { .. })));
    assert!(matches!(store.keys().disable(&mut tx, &customer(), "again").await, Err(Error::ScopeState { .. })));
    store.keys().enable(&mut tx, &customer(), "false alarm").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload);
    let mut tx = db.begin();
    assert!(matches!(store.keys().enable(&mut tx, &customer(), "twice").await, Err(Error::ScopeState { .. })));
    store.keys().disable(&mut tx, &customer(), "again").await.unwrap();
    store.keys().shred(&mut tx, &customer(), "a disabled scope can be shredded").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, ERASED);
}

#[tokio::test]
async fn a_rotated_data_key_leaves_old_events_readable() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    for version in 2..4 {
        let mut tx = db.begin();
        assert_eq!(store.keys().rotate_data_key(&mut tx, &customer()).await.unwrap().version, version);
        tx.commit().unwrap();
        append(&db, &store, placed()).await.unwrap();
    }
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == placed().payload));
    assert_eq!(shred(&db, &store).await.destroyed.len(), 3);
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
    let mut tx = db.begin();
    assert!(matches!(store.keys().rotate_data_key(&mut tx, &customer()).await, Err(Error::Shredded { .. })));
    assert!(matches!(store.keys().rotate_data_key(&mut tx, &KeyScope::new("Customer", "new")).await, Err(Error::ScopeState { .. })));
    // The key that authenticates headers can be rotated too; old redactions are still verified.
    store.keys().rotate_data_key(&mut tx, &KeyScope::integrity()).await.unwrap();
    tx.commit().unwrap();
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
}

#[tokio::test]
async fn a_scope_that_was_never_seen_can_be_shredded() {
    let (db, store) = shop().await;
    assert_eq!(shred(&db, &store).await.destroyed, []);
    assert!(append(&db, &store, placed()).await.unwrap_err().is_shredded());
}

#[tokio::test]
async fn the_integrity_key_can_not_be_destroyed_or_put_out_of_use() {
    let (db, store) = shop().await;
    let mut tx = db.begin();
    let (keys, scope) = (store.keys(), KeyScope::integrity());
    assert!(matches!(keys.shred(&mut tx, &scope, "r").await, Err(Error::ScopeState { .. })));
    assert!(matches!(keys.disable(&mut tx, &scope, "r").await, Err(Error::ScopeState { .. })));
    assert!(matches!(keys.reopen(&mut tx, &scope, "r").await, Err(Error::ScopeState { .. })));
    let reserved = NewEvent::raw("Registered", 1, r#"{"name":"n"}"#);
    let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)]).unwrap();
    let other = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let refused = other.append(&mut tx, &aggregate("$eventseal", "integrity"), Any, &[reserved]).await;
    assert!(matches!(refused, Err(Error::InvalidText { .. })), "{refused:?}");
}

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
        assert!(matches!(appended, Err(Error::Contract { .. })), "{number}: {appended:?}");
    }
}

#[tokio::test]
async fn bad_scopes_and_reasons_are_refused() {
    let (db, store) = shop().await;
    let mut tx = db.begin();
    for (kind, id, reason) in [("", "1", "r"), ("K", "", "r"), ("K", "a\0", "r"), ("K", "1", ""), ("K", "1", "a\0")] {
        let refused = store.keys().shred(&mut tx, &KeyScope::new(kind, id), reason).await;
        assert!(matches!(refused, Err(Error::InvalidText { .. })), "{kind} {id} {reason}");
    }
}

#[tokio::test]
async fn an_append_before_prepare_names_the_remedy() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas());
    let error = append(&db, &store, placed()).await.unwrap_err();
    assert!(matches!(error, Error::NoActiveKek { .. }) && error.to_string().contains("prepare()"), "{error}");
    append(&db, &store, NewEvent::raw("Noted", 1, "{}")).await.unwrap();
}

#[tokio::test]
async fn a_key_database_of_another_namespace_is_refused_at_startup() {
    let (db, _) = shop().await;
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas())
        .for_namespace(Namespace::new("production").unwrap());
    let error = store.keys().prepare(&mut db.begin()).await.unwrap_err();
    assert!(
        matches!(&error, Error::NamespaceMismatch { configured, found } if configured.as_str() == "production" && found.as_str() == "test")
    );
}

/// What is wrapped for the namespace of another database could be read by this process, until it restarts.
#[tokio::test]
async fn i6_one_store_makes_and_changes_keys_in_one_database_only() {
    let cold = || SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas());
    let mismatch = |result: Result<()>| {
        let expected = matches!(&result, Err(Error::NamespaceMismatch { configured, found })
            if configured.as_str() == "tenant-a" && found.as_str() == "tenant-b");
        assert!(expected, "{result:?}");
    };
    for guarded in [false, true] {
        let (a, b, tenant) = (Namespace::new("tenant-a").unwrap(), Namespace::new("tenant-b").unwrap(), KeyScope::new("Customer", "new"));
        let (a, b) = (MemoryDb::new(a), MemoryDb::new(b));
        let store = if guarded { cold().for_namespace(Namespace::new("tenant-a").unwrap()) } else { cold() };
        store.keys().prepare(&mut a.begin()).await.unwrap();
        append(&a, &store, placed()).await.unwrap();
        mismatch(store.keys().prepare(&mut b.begin()).await);
        let other = cold();
        other.keys().prepare(&mut b.begin()).await.unwrap();
        mismatch(append(&b, &store, placed()).await);
        append(&b, &other, placed()).await.unwrap();
        for scope in [customer(), tenant] {
            let mut tx = b.begin();
            mismatch(store.keys().rotate_data_key(&mut tx, &scope).await.map(drop));
            mismatch(store.keys().shred(&mut tx, &scope, "r").await.map(drop));
            mismatch(store.keys().reopen(&mut tx, &scope, "r").await.map(drop));
            mismatch(store.keys().disable(&mut tx, &scope, "r").await);
        }
        mismatch(append(&b, &store, placed()).await);
        for (db, process) in [(&a, cold()), (&b, cold())] {
            assert_eq!(read(db, &process).await.unwrap()[0].payload, placed().payload, "a restart opens everything");
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
    assert_eq!(read(&db, &two).await.unwrap()[0].payload, placed().payload);
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
    assert!(matches!(plain.keys().prepare(&mut writing).await, Err(Error::InTransaction { .. })));
}

#[tokio::test]
async fn i9_logs_and_debug_output_hold_no_secrets() {
    use tracing_subscriber::fmt::MakeWriter;
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
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_max_level(tracing::Level::TRACE).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let events = read(&db, &store).await.unwrap();
    shred(&db, &store).await;
    drop(guard);
    let keyring = Keyring::parse("main:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("shredded") && logged.contains("key-encryption key"), "{logged}");
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
