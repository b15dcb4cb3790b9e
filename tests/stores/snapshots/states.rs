//! The states of keys, as snapshots meet them: erased, disabled, withheld, rotated, missing, come back, behind an
//! outage.

use super::{
    Order, SaveOutcome, Snapshots, counted, keep, load, order, placed, put, save, schemas, stored, try_load, world,
};
use async_trait::async_trait;
use eventseal::erasure::ShredMode;
use eventseal::error::KmsFault;
use eventseal::keys::{DataKeyRecord, KeyId, KeyStore, KeyTable, RewrapOptions};
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::snapshots::{Discarded, Rebuilt, SealedSnapshots};
use eventseal::store::SnapshotStore;
use eventseal::{Error, EventStore, ExpectedVersion, Owner, Result, Schemas, SealedStore, Sensitive, event};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults, KeyTx, KmsFaults};
use support::{Deadline, KEYRING, Memory, customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    i4_an_outage_is_an_error_and_discards_nothing,
    i4_a_disabled_owner_discards_a_snapshot_for_as_long_as_it_lasts,
    i4_a_withheld_owner_leaves_no_stale_redaction,
    i4_a_key_that_came_back_discards_a_snapshot_with_its_redaction,
    i5_a_shred_of_any_owner_takes_the_snapshot,
    i5_a_rolled_back_shred_leaves_the_snapshot,
    i5_what_was_erased_stays_erased_when_its_owner_comes_back,
    i6_a_snapshot_without_its_keys_is_discarded,
    i11_snapshots_stay_usable_through_rotations,
    an_aggregate_whose_owner_was_shredded_goes_on,
}

fn redacted(rebuilt: &Rebuilt<Order>) -> Vec<bool> {
    rebuilt.state().names.iter().map(Sensitive::is_redacted).collect()
}

fn key_changed(rebuilt: &Rebuilt<Order>) -> bool {
    matches!(rebuilt.discarded(), Some(Discarded::KeyChanged { .. })) && rebuilt.snapshot().is_none()
}

/// A KMS that can be down.
struct Down(Arc<AtomicBool>);

#[async_trait]
impl KmsFaults for Down {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        if self.0.load(Ordering::SeqCst) {
            return Err(Error::Kms(KmsFault::Unavailable { failure: KmsFailure::Unreachable, source: "down".into() }));
        }
        KEYRING.unwrap_kek(wrapped, context).await
    }
}

async fn i4_an_outage_is_an_error_and_discards_nothing<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), counted()]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let down = Arc::new(AtomicBool::new(true));
    let cold = db.process_with(B::Keys::default(), Faulty(Down(Arc::clone(&down))), schemas());
    let error = try_load::<B, Order>(&db, &cold, &snapshots, "1").await.unwrap_err();
    assert!(error.is_outage() && error.is_retryable(), "{error:?}");
    let warm = load(&db, &store, &snapshots, "1").await;
    let error = save(&db, &cold, &snapshots, &warm).await.unwrap_err();
    assert!(error.is_outage(), "{error:?}");
    down.store(false, Ordering::SeqCst);
    let deadline = Deadline::of("for the recovery from an outage");
    let rebuilt = loop {
        deadline.look_again().await;
        match try_load::<B, Order>(&db, &cold, &snapshots, "1").await {
            Ok(rebuilt) => break rebuilt,
            Err(error) => assert!(error.is_outage(), "{error:?}"),
        }
    };
    assert_eq!((rebuilt.state(), rebuilt.folded(), rebuilt.discarded()), (&state, 0, None));
}

async fn i4_a_disabled_owner_discards_a_snapshot_for_as_long_as_it_lasts<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let before = load(&db, &store, &snapshots, "1").await;
    db.disable(&store, "1").await;
    for process in [&store, &db.process(schemas())] {
        let refused = try_load::<B, Order>(&db, process, &snapshots, "1").await;
        assert!(matches!(&refused, Err(Error::Disabled { scope }) if *scope == customer_scope("1")), "{refused:?}");
    }
    assert_eq!(save(&db, &store, &snapshots, &before).await.unwrap(), SaveOutcome::KeyChanged);
    db.enable(&store, "1").await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0), "it can be used again");
    assert!(save(&db, &store, &snapshots, &before).await.unwrap().is_saved());
}

/// While values are withheld, readers see redactions. A snapshot with these would be stale once the schedule is
/// cancelled.
async fn i4_a_withheld_owner_leaves_no_stale_redaction<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let due = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let scheduled =
        store.keys().schedule_shred(tx, &customer_scope("1"), due, ShredMode::Redact, "request").await.map(drop);
    db.end(transaction, scheduled).await.unwrap();
    let withheld = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&withheld) && redacted(&withheld) == [true, false], "{withheld:?}");
    assert_eq!(save(&db, &store, &snapshots, &withheld).await.unwrap(), SaveOutcome::KeyChanged);
    let mut transaction = db.begin().await.unwrap();
    let cancelled = store.keys().cancel(db.tx(&mut transaction), &customer_scope("1"), "withdrawn").await.map(drop);
    db.end(transaction, cancelled).await.unwrap();
    assert_eq!(save(&db, &store, &snapshots, &withheld).await.unwrap(), SaveOutcome::KeyChanged, "it is stale now");
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0), "the one from before can be used again");
}

/// A key table that still has rows as they were, as after a restore of the keys alone.
struct Restored<K>(K, Arc<Mutex<Vec<DataKeyRecord>>>);

#[async_trait]
impl<K: KeyTable> KeyFaults for Restored<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.0
    }

    async fn data_keys(&self, tx: &mut KeyTx<Self>, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let mut rows = self.0.data_keys(tx, key_ids).await?;
        for row in &mut rows {
            if let Some(old) = self.1.lock().unwrap().iter().find(|old| old.key_id == row.key_id) {
                *row = old.clone();
            }
        }
        Ok(rows)
    }
}

async fn i4_a_key_that_came_back_discards_a_snapshot_with_its_redaction<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let key_id = db.history(&store, "1").await.unwrap().keys[0].key_id;
    let mut transaction = db.begin().await.unwrap();
    let rows = B::Keys::default().data_keys(db.tx(&mut transaction), &[key_id]).await.unwrap();
    db.roll_back(transaction).await;
    db.shred(&store, "1").await;
    let kept = keep(&db, &store, &snapshots, "1").await;
    assert!(kept.names[0].is_redacted() && !kept.names[1].is_redacted());
    let tombstoned = load(&db, &store, &snapshots, "1").await;
    assert_eq!(tombstoned.folded(), 0);
    let old = Arc::new(Mutex::new(rows));
    let restored = db.process_with(Faulty(Restored(B::Keys::default(), old)), Arc::clone(&KEYRING), schemas());
    let rebuilt = load(&db, &restored, &snapshots, "1").await;
    assert!(matches!(rebuilt.discarded(), Some(Discarded::KeyChanged { key_id: id }) if *id == key_id), "{rebuilt:?}");
    assert_eq!(redacted(&rebuilt), [false, false], "as a read of the events");
    assert_eq!(save(&db, &restored, &snapshots, &tombstoned).await.unwrap(), SaveOutcome::KeyChanged);
}

async fn i5_a_shred_of_any_owner_takes_the_snapshot<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let other = db.process(schemas());
    db.append(&store, "1", &[placed("a"), placed("b"), counted(), placed("c")]).await;
    for (erased, expected) in [("b", [false, true, false]), ("a", [true, true, false]), ("c", [true, true, true])] {
        keep(&db, &store, &snapshots, "1").await;
        assert_eq!(load(&db, &other, &snapshots, "1").await.folded(), 0, "the other process has the keys cached");
        let before = stored(&db, &snapshots, "1").await;
        db.shred(&store, erased).await;
        for process in [&store, &other] {
            let rebuilt = load(&db, process, &snapshots, "1").await;
            assert!(key_changed(&rebuilt), "{erased}: {rebuilt:?}");
            assert_eq!((redacted(&rebuilt).as_slice(), rebuilt.folded()), (&expected[..], 4), "{erased}");
        }
        assert_eq!(stored(&db, &snapshots, "1").await, before, "a load writes nothing");
    }
    let last = keep(&db, &store, &snapshots, "1").await;
    let rebuilt = load(&db, &other, &snapshots, "1").await;
    assert_eq!((rebuilt.state(), rebuilt.folded()), (&last, 0), "a state without owners is kept too");
}

async fn i5_a_rolled_back_shred_leaves_the_snapshot<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1")]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().shred(tx, &customer_scope("1"), "request").await.unwrap();
    let within = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
    assert!(key_changed(&within) && redacted(&within) == [true], "the transaction itself sees it");
    db.roll_back(transaction).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0));
}

async fn i5_what_was_erased_stays_erased_when_its_owner_comes_back<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &snapshots, "1").await;
    let old = stored(&db, &snapshots, "1").await.unwrap();
    db.shred(&store, "1").await;
    db.reopen(&store, "1").await;
    db.append(&store, "1", &[placed("1")]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&rebuilt) && redacted(&rebuilt) == [true, false], "{rebuilt:?}");
    let kept = keep(&db, &store, &snapshots, "1").await;
    assert_eq!(*load(&db, &store, &snapshots, "1").await.state(), kept);
    put(&db, &snapshots, &[old]).await;
    assert!(key_changed(&load(&db, &store, &snapshots, "1").await), "the snapshot of the erased generation");
    keep(&db, &store, &snapshots, "1").await;
    db.shred(&store, "1").await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&rebuilt) && redacted(&rebuilt) == [true, true], "{rebuilt:?}");
}

/// A snapshot was kept elsewhere, and the transaction that made its keys was rolled back.
async fn i6_a_snapshot_without_its_keys_is_discarded<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let new = placed("new");
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.append(tx, &order("1"), ExpectedVersion::NoStream, std::slice::from_ref(&new)).await.unwrap();
    let rebuilt = snapshots.load::<Order>(tx, &store, &order("1")).await.unwrap();
    snapshots.save(tx, &store, &rebuilt).await.unwrap();
    let lost = snapshots.inner().load(tx, &order("1"), "order").await.unwrap().unwrap();
    db.roll_back(transaction).await;
    db.append(&store, "1", &[new]).await;
    put(&db, &snapshots, &[lost]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&rebuilt) && redacted(&rebuilt) == [false], "{rebuilt:?}");
}

async fn i11_snapshots_stay_usable_through_rotations<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    db.append(&store, "1", &[placed("1")]).await;
    let state = keep(&db, &store, &snapshots, "1").await;
    let read_before = load(&db, &store, &snapshots, "1").await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("1")).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 0, "an old key still opens");
    assert!(save(&db, &store, &snapshots, &read_before).await.unwrap().is_saved(), "sealed under the new key");
    let mut connection = db.connect().await.unwrap();
    let old = store.keys().kek_usage(db.connection(&mut connection)).await.unwrap().remove(0).kek;
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
    store.keys().rewrap(db.connection(&mut connection), &RewrapOptions::default(), &mut |_| {}).await.unwrap();
    store.keys().retire_kek(db.connection(&mut connection), old.kek_id).await.unwrap();
    drop(connection);
    for process in [&store, &db.process(schemas())] {
        let rebuilt = load(&db, process, &snapshots, "1").await;
        assert_eq!((rebuilt.state(), rebuilt.folded()), (&state, 0));
    }
    db.append(&store, "1", &[placed("1")]).await;
    keep(&db, &store, &snapshots, "1").await;
    db.shred(&store, "1").await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&rebuilt) && redacted(&rebuilt) == [true, true], "a shred destroys all versions");
}

/// The aggregate is the owner.
async fn an_aggregate_whose_owner_was_shredded_goes_on<B: Backend>() {
    let db = B::make().await;
    let snapshots: Snapshots<B> = SealedSnapshots::new(db.make_snapshots().await);
    let own = || {
        let placed = event("Placed").version(1).protect(&["/name"], Owner::Aggregate.scope_kind("Customer"));
        Schemas::new([placed, event("Counted").version(1)]).unwrap()
    };
    let store: SealedStore<B::Store> = db.prepared(own()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let before = load(&db, &store, &snapshots, "1").await;
    keep(&db, &store, &snapshots, "1").await;
    db.shred(&store, "1").await;
    assert_eq!(save(&db, &store, &snapshots, &before).await.unwrap(), SaveOutcome::KeyChanged);
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert!(key_changed(&rebuilt) && redacted(&rebuilt) == [true], "{rebuilt:?}");
    assert!(save(&db, &store, &snapshots, &rebuilt).await.unwrap().is_saved(), "of the redactions");
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((redacted(&rebuilt), rebuilt.folded()), (vec![true], 0));
    db.append(&store, "1", &[counted()]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!((rebuilt.state().largest, rebuilt.folded()), (Some(u64::MAX), 1), "events without values of the owner");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_more_owners_than_the_format_has_keys_is_not_saved() {
    let (db, store, snapshots) = world::<Memory>().await;
    let placed: Vec<_> = (0..1_024).map(|customer| placed(&customer.to_string())).collect();
    db.append(&store, "1", &placed).await;
    keep(&db, &store, &snapshots, "1").await;
    assert_eq!(load(&db, &store, &snapshots, "1").await.folded(), 0);
    db.append(&store, "1", &[super::placed("one more")]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!(save(&db, &store, &snapshots, &rebuilt).await.unwrap(), SaveOutcome::TooLarge);
}
