//! A KMS that is slow, down or taken away, on every database. No lock is held while it is asked, so no other call waits
//! for it. No call waits for more than one answer. Keys that it opened are not kept for ever.

use async_trait::async_trait;
use eventseal::error::{KeyFault, KmsFault};
use eventseal::keys::KekId;
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::maintenance::{BackfillOptions, RewriteOptions};
use eventseal::{
    Error, EventStore, EventStoreExt, KeyScope, NewEvent, PersistedEvent, Result, Schemas, SealedStore, aggregate,
    event, subject,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::Deadline;
use support::backend::Backend;
use support::faults::{Faulty, KmsFaults};
use support::{KEYRING, customer_scope, on_every_database};

fn schemas() -> Schemas {
    Schemas::builder([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))])
        .accept_plaintext("Placed")
        .build()
        .unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

#[async_trait]
trait Shop: Backend {
    fn with_kms(&self, kms: impl Kms + 'static) -> SealedStore<Self::Store> {
        self.process_with(Self::Keys::default(), kms, schemas())
    }

    async fn prepared_with(&self, kms: impl Kms + 'static) -> SealedStore<Self::Store> {
        let store = self.with_kms(kms);
        self.prepare(&store).await;
        store
    }

    async fn place<S: EventStore<Tx = Self::Tx>>(&self, store: &S, customer: &str) -> Result<()> {
        self.try_append(store, "1", &[placed(customer)]).await.map(drop)
    }

    /// Outside a transaction.
    async fn orders(&self, store: &SealedStore<Self::Store>) -> Result<Vec<PersistedEvent>> {
        let mut connection = self.connect().await?;
        Ok(store.read_stream(self.connection(&mut connection), &aggregate("Order", "1")).await?.events)
    }

    async fn change(&self, store: &SealedStore<Self::Store>, change: Change<'_>) -> Result<()> {
        let mut transaction = self.begin().await?;
        let (keys, tx) = (store.keys(), self.tx(&mut transaction));
        match change {
            Change::Shred(scope) => keys.shred(tx, scope, "request").await.map(drop)?,
            Change::Reopen(scope) => keys.reopen(tx, scope, "request").await.map(drop)?,
            Change::Rotate(scope) => keys.rotate_data_key(tx, scope).await.map(drop)?,
        }
        self.commit(transaction).await
    }

    async fn rotate_kek(&self, store: &SealedStore<Self::Store>) {
        store.keys().rotate_kek(self.connection(&mut self.connect().await.unwrap()), "default").await.unwrap();
    }
}

impl<B: Backend> Shop for B {}

#[derive(Clone, Copy)]
enum Change<'a> {
    Shred(&'a KeyScope),
    Reopen(&'a KeyScope),
    Rotate(&'a KeyScope),
}

on_every_database! {
    a_new_owner_gets_a_key_whichever_other_key_is_open,
    no_lock_is_held_while_the_kms_is_asked,
    no_lock_of_maintenance_is_held_while_the_kms_is_asked,
    an_outage_is_waited_for_once,
    what_was_opened_is_not_kept_longer_than_the_period,
}

/// A KMS that keeps its callers waiting while another transaction shreds the subject that the caller works on. The
/// shred waits for every lock that the caller holds, so it shows whether there is one.
struct Watching<B: Backend> {
    db: Arc<B>,
    shred: Mutex<Option<KeyScope>>,
    got_through: AtomicUsize,
}

impl<B: Backend> Watching<B> {
    fn new(db: &Arc<B>) -> Arc<Faulty<Self>> {
        Arc::new(Faulty(Self { db: Arc::clone(db), shred: Mutex::default(), got_through: AtomicUsize::new(0) }))
    }

    async fn watch(&self) {
        let Some(scope) = self.shred.lock().unwrap().take() else { return };
        let other = self.db.with_kms(Arc::clone(&KEYRING));
        let shred = self.db.change(&other, Change::Shred(&scope));
        if let Ok(shred) = tokio::time::timeout(Duration::from_secs(3), shred).await {
            shred.unwrap();
            self.got_through.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl<B: Backend> KmsFaults for Watching<B> {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.watch().await;
        KEYRING.unwrap_kek(wrapped, context).await
    }
}

/// Runs a transaction until nothing is in its way. Two more tries are enough. If the locked rows needed a key that was
/// not open, the next try opens it. If another writer was faster than that try (on SQLite), the try after it has the
/// key in its cache.
async fn tried<T>(what: &str, mut call: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    for _ in 0..3 {
        match call().await {
            Err(Error::Collision { .. }) => {}
            other => return other,
        }
    }
    panic!("{what}: the third try collides still");
}

/// A process may have opened the key of a new owner's partition, and not that of the integrity key: after a change, or
/// because the latter has expired.
async fn a_new_owner_gets_a_key_whichever_other_key_is_open<B: Backend>() {
    let db = B::make().await;
    let tenants = |scope: &KeyScope| if scope.id() == "0" { "default".to_owned() } else { "tenants".to_owned() };
    let process = || db.process_over(db.keys().kek_partition(tenants), schemas());
    let operator = process();
    db.prepare(&operator).await;
    operator.keys().create_kek(db.connection(&mut db.connect().await.unwrap()), "tenants").await.unwrap();
    db.place(&operator, "1").await.unwrap();
    let cold = process();
    let mut transaction = db.begin().await.unwrap();
    cold.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("1")).await.unwrap();
    db.commit(transaction).await.unwrap();
    tried("a new owner", async || db.place(&cold, "2").await).await.unwrap();
}

#[expect(clippy::too_many_lines, reason = "a list of calls")]
async fn no_lock_is_held_while_the_kms_is_asked<B: Backend>() {
    let db = Arc::new(B::make().await);
    let operator = db.prepared_with(Arc::clone(&KEYRING)).await;
    let tenants =
        |scope: &KeyScope| if scope.id().starts_with("tenant") { "tenants".to_owned() } else { "default".to_owned() };
    operator.keys().create_kek(db.connection(&mut db.connect().await.unwrap()), "tenants").await.unwrap();
    let kms = Watching::new(&db);
    let warm = db.process_over(db.keys_of(&kms).kek_partition(tenants), schemas());
    warm.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    db.place(&warm, "0").await.unwrap();
    let forgetful = || db.process_over(db.keys_of(&kms).kek_cache_period(Duration::ZERO), schemas());
    let asked = |scope: &KeyScope| {
        *kms.shred.lock().unwrap() = Some(scope.clone());
        kms.got_through.store(0, Ordering::SeqCst);
    };
    let checked = |what: &str| {
        assert!(kms.shred.lock().unwrap().is_none(), "{what}: the KMS was not asked, so this shows nothing");
        assert_eq!(kms.got_through.load(Ordering::SeqCst), 1, "{what}: a shred waited for the KMS");
    };

    // Appends: by a process that has opened nothing, for a subject with and without a key.
    for id in ["known to others", "new"] {
        if id != "new" {
            db.place(&operator, id).await.unwrap();
        }
        asked(&customer_scope(id));
        let cold = db.with_kms(Arc::clone(&kms));
        let result = tried(id, async || db.place(&cold, id).await).await;
        assert!(result.unwrap_err().is_shredded(), "it was shredded while the KMS was asked, so the lock shows that");
        checked(&format!("a cold process, a subject that is {id}"));
    }
    // An append by a process that keeps no keys: the keys that it opened ahead have expired when it locks.
    db.place(&operator, "expired").await.unwrap();
    asked(&customer_scope("expired"));
    let result = tried("expired", async || db.place(&forgetful(), "expired").await).await;
    assert!(result.unwrap_err().is_shredded());
    checked("an expired key");
    tried("expired, another", async || db.place(&forgetful(), "another").await).await.unwrap();
    // The first use of a partition.
    asked(&customer_scope("tenant 1"));
    let result = tried("a partition", async || db.place(&warm, "tenant 1").await).await;
    assert!(result.unwrap_err().is_shredded());
    checked("the first use of a partition");
    // After a rotation: a subject whose key another process made, and one without a key.
    for id in ["rotated, known", "rotated, new"] {
        db.rotate_kek(&operator).await;
        if id == "rotated, known" {
            db.place(&operator, id).await.unwrap();
        }
        asked(&customer_scope(id));
        let result = tried(id, async || db.place(&warm, id).await).await;
        assert!(result.unwrap_err().is_shredded(), "{id}");
        checked(id);
        tried(id, async || db.place(&warm, &format!("after {id}")).await).await.unwrap();
    }
    // A subject that this process knows, and whose key another one exchanged.
    db.place(&warm, "exchanged").await.unwrap();
    db.rotate_kek(&operator).await;
    db.change(&operator, Change::Rotate(&customer_scope("exchanged"))).await.unwrap();
    asked(&customer_scope("exchanged"));
    assert!(tried("exchanged", async || db.place(&warm, "exchanged").await).await.unwrap_err().is_shredded());
    checked("a key that was exchanged");
    // Changes that make a key.
    db.place(&operator, "kept").await.unwrap();
    db.rotate_kek(&operator).await;
    asked(&customer_scope("kept"));
    assert!(
        tried("rotating", async || db.change(&warm, Change::Rotate(&customer_scope("kept"))).await)
            .await
            .unwrap_err()
            .is_shredded()
    );
    checked("a new data key after a rotation");
    db.rotate_kek(&operator).await;
    asked(&customer_scope("kept"));
    tried("reopening", async || db.change(&warm, Change::Reopen(&customer_scope("kept"))).await).await.unwrap();
    checked("a reopening after a rotation");
}

async fn no_lock_of_maintenance_is_held_while_the_kms_is_asked<B: Backend>() {
    let db = Arc::new(B::make().await);
    let operator = db.prepared_with(Arc::clone(&KEYRING)).await;
    for id in ["1", "2"] {
        db.place(&operator, id).await.unwrap();
        // In the clear, from before the store was wrapped.
        db.place(operator.inner(), id).await.unwrap();
        db.rotate_kek(&operator).await;
    }
    let kms = Watching::new(&db);
    let forgetful = db.process_over(db.keys_of(&kms).kek_cache_period(Duration::ZERO), schemas());
    let mut connection = db.connect().await.unwrap();
    *kms.shred.lock().unwrap() = Some(customer_scope("bystander"));
    let done =
        forgetful.backfill(db.connection(&mut connection), &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (2, 0));
    assert_eq!(kms.got_through.load(Ordering::SeqCst), 1, "a shred waited for the KMS during a backfill");
    let target = B::make().await;
    *kms.shred.lock().unwrap() = Some(customer_scope("bystander"));
    let mut to = target.connect().await.unwrap();
    let copied = forgetful
        .rewrite(
            db.connection(&mut connection),
            &B::Store::default(),
            target.connection(&mut to),
            &RewriteOptions::default(),
            &mut |_| {},
        )
        .await
        .unwrap();
    assert_eq!(copied.copied + copied.rewritten, 4);
    assert_eq!(kms.got_through.load(Ordering::SeqCst), 2, "a shred waited for the KMS during a rewrite");
}

/// The error of a KMS that does not work.
type Failure = fn(KekId) -> Error;

/// A KMS that can be down, and takes its time to say so.
struct Fickle {
    failure: Mutex<Option<Failure>>,
    slow: AtomicBool,
    asked: AtomicUsize,
}

impl Fickle {
    fn new() -> Arc<Faulty<Self>> {
        Arc::new(Faulty(Self { failure: Mutex::default(), slow: AtomicBool::new(false), asked: AtomicUsize::new(0) }))
    }

    fn fail(&self, with: Option<Failure>) {
        *self.failure.lock().unwrap() = with;
    }
}

#[async_trait]
impl KmsFaults for Fickle {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.slow.load(Ordering::SeqCst) {
            #[allow(clippy::disallowed_methods, reason = "it plays a slow KMS, and waits for nothing")]
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let failure = *self.failure.lock().unwrap();
        match failure {
            Some(failure) => Err(failure(context.kek_id)),
            None => KEYRING.unwrap_kek(wrapped, context).await,
        }
    }
}

fn timed_out(_: KekId) -> Error {
    Error::Kms(KmsFault::Unavailable { failure: KmsFailure::TimedOut, source: "no answer within 20 s".into() })
}

fn denied(kek_id: KekId) -> Error {
    Error::Kms(KmsFault::Refused { kek_id, failure: KmsFailure::AccessDenied, problem: "allow the call".to_owned() })
}

async fn an_outage_is_waited_for_once<B: Backend>() {
    let db = Arc::new(B::make().await);
    let writer = db.prepared_with(Arc::clone(&KEYRING)).await;
    db.place(&writer, "1").await.unwrap();
    let kms = Fickle::new();
    kms.slow.store(true, Ordering::SeqCst);
    let cases: [(Failure, fn(Error)); 2] = [
        (timed_out, |error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            assert_eq!(source.as_deref(), Some("no answer within 20 s"));
            assert!(
                error.is_retryable()
                    && matches!(error, Error::Kms(KmsFault::Unavailable { failure: KmsFailure::TimedOut, .. })),
                "{error:?}"
            );
        }),
        (denied, |error| {
            let right = matches!(
                &error,
                Error::Kms(KmsFault::Refused { failure: KmsFailure::AccessDenied, problem, .. })
                    if problem == "allow the call"
            );
            assert!(right && !error.is_retryable(), "{error:?}");
        }),
    ];
    for (failure, check) in cases {
        kms.fail(Some(failure));
        kms.asked.store(0, Ordering::SeqCst);
        let cold = Arc::new(db.with_kms(Arc::clone(&kms)));
        let start = Instant::now();
        let readers = (0..20).map(|_| {
            let (db, cold) = (Arc::clone(&db), Arc::clone(&cold));
            tokio::spawn(async move { db.orders(&cold).await.map(drop).unwrap_err() })
        });
        for reader in readers.collect::<Vec<_>>() {
            check(reader.await.unwrap());
        }
        let (asked, took) = (kms.asked.load(Ordering::SeqCst), start.elapsed());
        // One answer is enough for those who come within a second; on a very slow machine, the last ones come later.
        assert!(asked <= 1 + took.as_secs() as usize, "the KMS was asked {asked} times in {took:?}");
        // It recovers without a restart, soon.
        kms.fail(None);
        let deadline = Deadline::of("for the recovery from an outage");
        while let Err(error) = db.orders(&cold).await {
            deadline.look_again().await;
            check(error);
        }
        assert!(kms.asked.load(Ordering::SeqCst) > asked);
    }
    // An error that is not one of the KMS belongs to the call that asked. The next call asks again, and gets the same
    // error.
    kms.slow.store(false, Ordering::SeqCst);
    kms.fail(Some(|_| Error::Keys(KeyFault::Random)));
    kms.asked.store(0, Ordering::SeqCst);
    let cold = db.with_kms(Arc::clone(&kms));
    for _ in 0..2 {
        assert!(matches!(db.orders(&cold).await, Err(Error::Keys(KeyFault::Random))));
    }
    assert_eq!(kms.asked.load(Ordering::SeqCst), 2);
}

async fn what_was_opened_is_not_kept_longer_than_the_period<B: Backend>() {
    let db = B::make().await;
    let kms = Fickle::new();
    let period = Duration::from_millis(200);
    let keys = db.keys_of(&kms).kek_cache_period(period).reads_may_lag(Duration::from_secs(3_600));
    let store = db.process_over(keys, schemas());
    store.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    db.place(&store, "1").await.unwrap();
    db.orders(&store).await.unwrap();
    // Access to the master key is taken away.
    kms.fail(Some(denied));
    let taken_away = Instant::now();
    let refused = |result: Result<()>| {
        matches!(result, Err(Error::Kms(KmsFault::Refused { failure: KmsFailure::AccessDenied, .. })))
    };
    let deadline = period + Duration::from_secs(20);
    while !refused(db.orders(&store).await.map(drop)) {
        assert!(taken_away.elapsed() < deadline, "it reads on");
        tokio::task::yield_now().await;
    }
    assert!(refused(db.place(&store, "1").await), "for a subject whose data key was opened before");
    assert!(refused(db.place(&store, "2").await));
    // And given back.
    kms.fail(None);
    let deadline = Deadline::of("for access that was given back");
    while db.orders(&store).await.is_err() {
        deadline.look_again().await;
    }
    tried("given back", async || db.place(&store, "1").await).await.unwrap();
}
