//! The life of key-encryption keys on every database (invariants I5, I10 and I11): rotated, followed by the data keys,
//! retired, moved to other master keys, and what is cached of them. No event is touched by any of it.

mod masters;
mod runs;

use async_trait::async_trait;
use eventseal::error::{KeyFault, KmsFault, TransactionFault};

use eventseal::keys::{KekId, KekRecord, KekState, KekUsage, RewrapOptions, RewrapProgress, Rewrapped};
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::memory::MemoryTx;
use eventseal::{Error, KeyScope, Keyring, NewEvent, PersistedEvent, Result, Schemas, SealedStore, event, subject};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use support::Deadline;
use support::backend::Backend;
use support::faults::{Faulty, KmsFaults};
use support::{Memory, Postgres, Sqlite, on_every_database};

on_every_database! {
    data_keys_follow_a_rotated_key_and_the_old_one_is_retired,
    i11_a_rewrap_that_was_cut_short_is_completed_by_the_next,
    a_bad_key_is_reported_and_keeps_nobody_from_their_turn,
    i10_the_kms_is_asked_once_for_each_key_and_cache_period,
    i4_an_outage_stops_only_what_needs_a_key_that_is_not_cached,
    partitions_have_keys_of_their_own,
}

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn keyring(text: &str) -> Keyring {
    Keyring::parse(text).unwrap()
}

static KEYRING: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(keyring(OLD)));

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn batches_of(batch: u32) -> RewrapOptions {
    let mut options = RewrapOptions::default();
    options.batch = batch;
    options
}

#[async_trait]
trait Rotated: Backend {
    fn with_kms(&self, kms: impl Kms + 'static) -> SealedStore<Self::Store> {
        self.process_with(Self::Keys::default(), kms, schemas())
    }

    async fn prepared_with(&self, kms: impl Kms + 'static) -> SealedStore<Self::Store> {
        let store = self.with_kms(kms);
        self.prepare(&store).await;
        store
    }

    /// Appends as applications do: tries once more if something was in the way, such as a rotated key that is not open
    /// yet.
    async fn place(&self, store: &SealedStore<Self::Store>, id: &str, customers: std::ops::Range<usize>) -> Result<()> {
        let deadline = Deadline::of("for an append that collides with nobody");
        loop {
            deadline.check();
            match self.try_to_place(store, id, customers.clone()).await {
                Err(Error::Collision { .. }) => {}
                other => return other,
            }
        }
    }

    async fn try_to_place(
        &self,
        store: &SealedStore<Self::Store>,
        id: &str,
        customers: std::ops::Range<usize>,
    ) -> Result<()> {
        let events: Vec<NewEvent> = customers.map(|customer| placed(&customer.to_string())).collect();
        self.try_append(store, id, &events).await.map(drop)
    }

    /// Reads until the KMS answers again, and its failure is forgotten.
    async fn recovered(&self, store: &SealedStore<Self::Store>, id: &str) -> Vec<PersistedEvent> {
        let deadline = Deadline::of("for the recovery from an outage");
        loop {
            deadline.look_again().await;
            match self.read(store, id).await {
                Ok(events) => return events,
                Err(error) => assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. })), "{error:?}"),
            }
        }
    }

    async fn usage(&self, store: &SealedStore<Self::Store>) -> Vec<KekUsage> {
        let mut connection = self.connect().await.unwrap();
        store.keys().kek_usage(self.connection(&mut connection)).await.unwrap()
    }

    async fn rotate(&self, store: &SealedStore<Self::Store>) -> KekRecord {
        store.keys().rotate_kek(self.connection(&mut self.connect().await.unwrap()), "default").await.unwrap()
    }

    async fn rewrap(&self, store: &SealedStore<Self::Store>, options: &RewrapOptions) -> Result<Rewrapped> {
        store.keys().rewrap(self.connection(&mut self.connect().await.unwrap()), options, &mut |_| {}).await
    }

    async fn retire(&self, store: &SealedStore<Self::Store>, kek_id: KekId) -> Result<()> {
        store.keys().retire_kek(self.connection(&mut self.connect().await.unwrap()), kek_id).await
    }

    /// Puts other bytes into a data key's row, as a bad disk or a bad restore would.
    async fn spoil(&self, customer: &str);

    /// Closes a connection that is not to be used again.
    fn discard(connection: Self::Connection);
}

#[async_trait]
impl Rotated for Memory {
    async fn spoil(&self, _: &str) {}

    fn discard(_: MemoryTx) {}
}

#[async_trait]
impl Rotated for Sqlite {
    async fn spoil(&self, customer: &str) {
        let sql = "UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = ?1";
        sqlx::query(sql).bind(customer).execute(&self.pool).await.unwrap();
    }

    fn discard(mut connection: Self::Connection) {
        connection.close_on_drop();
    }
}

#[async_trait]
impl Rotated for Postgres {
    async fn spoil(&self, customer: &str) {
        let sql = "UPDATE data_keys SET wrapped_key = decode(repeat('01', 65), 'hex') WHERE scope_id = $1";
        sqlx::query(sql).bind(customer).execute(&self.pool).await.unwrap();
    }

    fn discard(mut connection: Self::Connection) {
        connection.close_on_drop();
    }
}

async fn data_keys_follow_a_rotated_key_and_the_old_one_is_retired<B: Rotated>() {
    let db = B::make().await;
    let store = db.prepared_with(Arc::clone(&KEYRING)).await;
    let other = db.prepared_with(Arc::clone(&KEYRING)).await;
    db.place(&store, "1", 0..25).await.unwrap();
    db.shred(&store, "3").await;
    let before = db.read(&other, "1").await.unwrap();
    let old = db.usage(&store).await.remove(0).kek;
    let new = db.rotate(&store).await;
    assert!(
        matches!(db.retire(&store, old.kek_id).await, Err(Error::Keys(KeyFault::KekInUse { .. }))),
        "24 keys and the integrity key need it"
    );
    assert!(
        matches!(db.retire(&store, new.kek_id).await, Err(Error::Keys(KeyFault::KekInUse { .. }))),
        "the active key is not retired"
    );
    db.place(&other, "2", 24..27).await.unwrap();
    let mut dry = batches_of(10);
    dry.dry_run = true;
    let would = db.rewrap(&store, &dry).await.unwrap();
    assert_eq!((would.rewrapped, would.remaining), (25, 25));
    let mut told = Vec::new();
    let done = {
        let mut connection = db.connect().await.unwrap();
        store
            .keys()
            .rewrap(db.connection(&mut connection), &batches_of(10), &mut |progress| told.push(progress))
            .await
            .unwrap()
    };
    assert_eq!((done.rewrapped, done.remaining, done.bad.len()), (25, 0, 0));
    let counts: Vec<u64> = told.iter().map(|progress| progress.rewrapped).collect();
    assert_eq!((counts, told[0].total), (vec![0, 10, 20, 25], 25));
    let usage = db.usage(&store).await;
    assert_eq!(
        usage.iter().map(|usage| (usage.kek.state, usage.live_keys)).collect::<Vec<_>>(),
        [(KekState::DecryptOnly, 0), (KekState::Active, 27)]
    );
    assert!(usage[1].oldest_wrap.is_some_and(|at| at >= usage[1].kek.created_at));
    db.retire(&store, old.kek_id).await.unwrap();
    db.retire(&store, old.kek_id).await.expect("retiring twice changes nothing");
    assert_eq!(db.rewrap(&store, &RewrapOptions::default()).await.unwrap().rewrapped, 0, "there is nothing to do");
    for process in [&store, &other, &db.with_kms(Arc::clone(&KEYRING))] {
        let after = db.read(process, "1").await.unwrap();
        assert!(
            after
                .iter()
                .zip(&before)
                .all(|(after, before)| (&after.payload, &after.redacted) == (&before.payload, &before.redacted))
        );
        assert!(after[3].is_redacted(), "no shredded key comes back");
    }
}

async fn i11_a_rewrap_that_was_cut_short_is_completed_by_the_next<B: Rotated>() {
    let db = B::make().await;
    let store = db.prepared_with(Arc::clone(&KEYRING)).await;
    db.place(&store, "1", 0..30).await.unwrap();
    db.rotate(&store).await;
    // The rewrap is dropped while it works, later in each round. Its committed part stays, and is not done again.
    let (mut total, mut rounds) = (0, 0);
    for polls in (0_u32..).map(|round| 1 + round + (1 << (round / 4).min(20))) {
        let mut done = 0;
        let finished = {
            let mut connection = db.connect().await.unwrap();
            let mut progress = |progress: RewrapProgress| done = progress.rewrapped;
            let options = batches_of(4);
            let mut rewrap = Box::pin(store.keys().rewrap(db.connection(&mut connection), &options, &mut progress));
            let mut ended = None;
            for _ in 0..polls {
                let polled =
                    std::future::poll_fn(|context| std::task::Poll::Ready(rewrap.as_mut().poll(context))).await;
                if let std::task::Poll::Ready(result) = polled {
                    ended = Some(result);
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(rewrap);
            match ended {
                // The round before was cut short in the BEGIN. The driver does not know of it, and keeps the
                // connection.
                Some(Err(Error::Transaction(TransactionFault::InTransaction { .. }))) => {
                    B::discard(connection);
                    false
                }
                Some(ended) => ended.unwrap().remaining == 0,
                None => false,
            }
        };
        total += done;
        rounds += 1;
        let cold = db.with_kms(Arc::clone(&KEYRING));
        assert!(
            db.read(&cold, "1").await.unwrap().iter().all(|event| event.payload.ends_with(br#""name":"Ada"}"#)),
            "every key opens"
        );
        if finished {
            break;
        }
    }
    let usage = db.usage(&store).await;
    assert_eq!((usage[0].live_keys, usage[1].live_keys), (0, 31), "after {rounds} attempts");
    assert!(total <= 31, "{total} of 31 keys were rewrapped: some were done twice");
}

async fn a_bad_key_is_reported_and_keeps_nobody_from_their_turn<B: Rotated>() {
    let db = B::make().await;
    let store = db.prepared_with(Arc::clone(&KEYRING)).await;
    db.place(&store, "1", 0..9).await.unwrap();
    db.spoil("4").await;
    let spoilt = u64::from(std::any::type_name::<B>() != std::any::type_name::<Memory>());
    let old = db.usage(&store).await.remove(0).kek;
    db.rotate(&store).await;
    let done = db.rewrap(&store, &batches_of(3)).await.unwrap();
    assert_eq!((done.rewrapped, done.bad.len() as u64, done.remaining), (10 - spoilt, spoilt, spoilt));
    assert_eq!(
        db.retire(&store, old.kek_id).await.is_err(),
        spoilt == 1,
        "what may be saved from a backup still needs the old key"
    );
}

/// A keyring that counts its calls, and can be down.
struct Counting {
    keyring: Keyring,
    unwraps: AtomicUsize,
    down: AtomicBool,
    /// How many more calls it answers.
    answers: Mutex<Option<usize>>,
}

impl Counting {
    fn new(text: &str) -> Arc<Faulty<Self>> {
        let (unwraps, down) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Faulty(Self { keyring: keyring(text), unwraps, down, answers: Mutex::default() }))
    }

    async fn answer(&self) -> Result<()> {
        // Let others in, as a network call would.
        tokio::task::yield_now().await;
        let mut answers = self.answers.lock().unwrap();
        let tired = answers.as_mut().is_some_and(|left| match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                false
            }
            None => true,
        });
        if tired || self.down.load(Ordering::SeqCst) {
            return Err(Error::Kms(KmsFault::Unavailable {
                failure: KmsFailure::Unreachable,
                source: "connection refused".into(),
            }));
        }
        Ok(())
    }
}

#[async_trait]
impl KmsFaults for Counting {
    fn inner(&self) -> &dyn Kms {
        &self.keyring
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.answer().await?;
        self.keyring.generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        self.answer().await?;
        self.keyring.unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.answer().await?;
        self.keyring.wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.answer().await?;
        self.keyring.rewrap_kek(wrapped, context).await
    }
}

async fn i10_the_kms_is_asked_once_for_each_key_and_cache_period<B: Rotated>() {
    let db = Arc::new(B::make().await);
    let writer = db.prepared_with(Arc::clone(&KEYRING)).await;
    db.place(&writer, "1", 0..50).await.unwrap();
    let kms = Counting::new(OLD);
    let store = Arc::new(db.with_kms(Arc::clone(&kms)));
    let readers = (0..1_000).map(|_| {
        let (db, store) = (Arc::clone(&db), Arc::clone(&store));
        tokio::spawn(async move { db.read(&store, "1").await.map(|events| events.len()) })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await.unwrap().unwrap(), 50);
    }
    assert_eq!(kms.unwraps.load(Ordering::SeqCst), 1, "a thousand readers of fifty data keys, one call");
    db.rotate(&writer).await;
    db.place(&writer, "2", 50..60).await.unwrap();
    assert_eq!(db.read(&store, "2").await.unwrap().len(), 10);
    assert_eq!(kms.unwraps.load(Ordering::SeqCst), 2, "one call for each key-encryption key");
    // Nothing is kept: every new data key needs a call.
    let kms = Counting::new(OLD);
    let forgetful = db.process_over(db.keys_of(&kms).kek_cache_period(Duration::ZERO), schemas());
    for customer in 100..103 {
        db.place(&forgetful, "3", customer..customer + 1).await.unwrap();
    }
    assert!(kms.unwraps.load(Ordering::SeqCst) >= 3);
}

async fn i4_an_outage_stops_only_what_needs_a_key_that_is_not_cached<B: Rotated>() {
    let db = B::make().await;
    let kms = Counting::new(OLD);
    let store = db.prepared_with(Arc::clone(&kms)).await;
    db.place(&store, "1", 0..3).await.unwrap();
    kms.down.store(true, Ordering::SeqCst);
    db.place(&store, "1", 0..3).await.expect("the keys are cached");
    db.place(&store, "2", 3..6).await.expect("a new data key is wrapped by the cached key-encryption key");
    db.try_shred(&store, "5").await.expect("a shred needs no KMS");
    assert!(db.read(&store, "2").await.unwrap()[2].is_redacted());
    let cold = db.with_kms(Arc::clone(&kms));
    for error in [db.read(&cold, "1").await.map(drop).unwrap_err(), db.place(&cold, "1", 0..1).await.unwrap_err()] {
        assert!(error.is_retryable() && matches!(error, Error::Kms(KmsFault::Unavailable { .. })), "{error:?}");
    }
    let mut connection = db.connect().await.unwrap();
    let rotated = store.keys().rotate_kek(db.connection(&mut connection), "default").await;
    assert!(rotated.unwrap_err().is_retryable());
    drop(connection);
    assert_eq!(db.usage(&store).await.len(), 1, "a rotation that failed left no key");
    kms.down.store(false, Ordering::SeqCst);
    assert_eq!(db.recovered(&cold, "1").await.len(), 6, "it recovers without a restart");
    db.place(&cold, "1", 0..1).await.unwrap();
    db.rotate(&store).await;
}

#[expect(clippy::too_many_lines, reason = "one life of two partitions")]
async fn partitions_have_keys_of_their_own<B: Rotated>() {
    let db = B::make().await;
    let of_tenant =
        |scope: &KeyScope| if scope.id().starts_with('1') { "tenant-1".to_owned() } else { "tenant-2".to_owned() };
    let store = db.process_over(db.keys_of(&KEYRING).kek_partition(of_tenant), schemas());
    let mut connection = db.connect().await.unwrap();
    store.keys().prepare(db.connection(&mut connection)).await.unwrap();
    store.keys().create_kek(db.connection(&mut connection), "tenant-1").await.unwrap();
    let error = db.place(&store, "1", 1..3).await.unwrap_err();
    assert!(
        matches!(&error, Error::Keys(KeyFault::NoActiveKek { partition }) if partition == "tenant-2"),
        "an append makes no key-encryption key: {error:?}"
    );
    let kek = store.keys().create_kek(db.connection(&mut connection), "tenant-2").await.unwrap();
    assert_eq!(
        store.keys().create_kek(db.connection(&mut connection), "tenant-2").await.unwrap().kek_id,
        kek.kek_id,
        "idempotent"
    );
    db.place(&store, "1", 1..5).await.unwrap();
    let live = |usage: &[KekUsage]| {
        let mut live: Vec<(String, KekState, u64)> =
            usage.iter().map(|u| (u.kek.partition.clone(), u.kek.state, u.live_keys)).collect();
        live.sort_by_key(|(partition, state, _)| (partition.clone(), state.as_str()));
        live
    };
    let before =
        [("default", KekState::Active, 1), ("tenant-1", KekState::Active, 1), ("tenant-2", KekState::Active, 3)];
    assert_eq!(
        live(&db.usage(&store).await),
        before.map(|(partition, state, keys)| (partition.to_owned(), state, keys))
    );
    for partition in ["tenant-1", "tenant-2"] {
        store.keys().rotate_kek(db.connection(&mut connection), partition).await.unwrap();
    }
    let mut only = RewrapOptions::default();
    only.partition = Some("tenant-2".to_owned());
    assert_eq!(store.keys().rewrap(db.connection(&mut connection), &only, &mut |_| {}).await.unwrap().rewrapped, 3);
    let after = [
        ("default", KekState::Active, 1),
        ("tenant-1", KekState::Active, 0),
        ("tenant-1", KekState::DecryptOnly, 1),
        ("tenant-2", KekState::Active, 3),
        ("tenant-2", KekState::DecryptOnly, 0),
    ];
    assert_eq!(
        live(&db.usage(&store).await),
        after.map(|(partition, state, keys)| (partition.to_owned(), state, keys))
    );
    assert_eq!(
        store
            .keys()
            .rewrap(db.connection(&mut connection), &RewrapOptions::default(), &mut |_| {})
            .await
            .unwrap()
            .rewrapped,
        1
    );
    drop(connection);
    assert_eq!(
        db.read(&db.with_kms(Arc::clone(&KEYRING)), "1").await.unwrap().len(),
        4,
        "a reader needs to know of no partition"
    );
}
