//! Outages, collisions, and runs that end in the middle.

use super::{accepting, in_transaction, placed, small, strict};
use eventseal::error::{KmsFault, MaintenanceFault, TransactionFault};
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::maintenance::{BackfillOptions, BackfillProgress, Backfilled};
use eventseal::{Error, KeyScope, Result, SealedStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::Deadline;
use support::backend::Backend;
use support::faults::{Faulty, KmsFaults};
use support::meddler::{Meddler, Trouble};
use support::sealing::CANARY;
use support::{KEYRING, contains, on_every_database, whole};

on_every_database! {
    an_outage_stops_and_a_collision_does_not,
    i11_nothing_that_does_not_open_is_committed,
    i11_whatever_ends_in_the_middle_is_completed,
}

/// A KMS that is down, or answers only so often.
struct Down(AtomicBool, AtomicUsize);

#[async_trait::async_trait]
impl KmsFaults for Down {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let spent = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if self.0.load(Ordering::SeqCst) || spent {
            return Err(Error::Kms(KmsFault::Unavailable { failure: KmsFailure::Unreachable, source: "down".into() }));
        }
        KEYRING.unwrap_kek(wrapped, context).await
    }
}

async fn an_outage_stops_and_a_collision_does_not<B: Backend>() {
    let db = B::make().await;
    drop(db.prepared(accepting()).await);
    db.append_bare("1", &[placed("ada"), placed("eve"), placed("kim")]).await;
    let before = db.stored().await;
    let kms = Arc::new(Faulty(Down(AtomicBool::new(true), AtomicUsize::new(100))));
    let store = SealedStore::new(B::Store::default(), B::Keys::default(), Arc::clone(&kms), accepting());
    let stopped = db.backfill(&store, &small()).await;
    assert!(matches!(stopped, Err(Error::Kms(KmsFault::Unavailable { .. }))), "{stopped:?}");
    assert!(db.stored().await == before, "an outage says nothing about an event");
    kms.0.0.store(false, Ordering::SeqCst);
    assert_eq!(after_the_outage(&db, &store).await.sealed, 3);

    // In the middle of a batch: for a key that only some of its events need.
    let partition = |scope: &KeyScope| if scope.id() == "far" { "far".to_owned() } else { "default".to_owned() };
    let far = db.process(accepting());
    far.keys().create_kek(db.connection(&mut db.connect().await.unwrap()), "far").await.unwrap();
    db.append_bare("far", &[placed("ada"), placed("ada"), placed("near"), placed("far"), placed("eve")]).await;
    let before = db.stored().await;
    let kms = Arc::new(Faulty(Down(AtomicBool::new(false), AtomicUsize::new(1))));
    let store = db.process_over(db.keys_of(&kms).kek_partition(partition), accepting());
    let stopped = db.backfill(&store, &small()).await;
    assert!(matches!(stopped, Err(Error::Kms(KmsFault::Unavailable { .. }))), "{stopped:?}");
    let sealed = before.iter().zip(&db.stored().await).filter(|(before, after)| before != after).count();
    assert_eq!(sealed, 2, "the batch before it stays, and of its own nothing does");
    kms.0.1.store(100, Ordering::SeqCst);
    let done = after_the_outage(&db, &store).await;
    assert_eq!((done.sealed, done.skipped), (3, 0));

    let (store, meddler) = db.meddling(accepting());
    let refused = store.backfill(db.tx(&mut in_transaction(&db).await), &small(), &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
    for call in 0..6 {
        db.append_bare("2", &[placed("ada"), placed("eve")]).await;
        meddler.trouble(call, Trouble::Collides);
        let done = db.backfill(&store, &small()).await;
        match call {
            // The first looks around. They lock nothing, so nobody has to try again for them.
            1 | 2 => assert!(done.unwrap_err().is_retryable()),
            _ => assert_eq!(done.unwrap().sealed, 2 + if call == 3 { 4 } else { 0 }, "call {call}"),
        }
        assert!(meddler.calls() > call);
    }
}

/// Tries again until the KMS is asked again: that it was down is remembered for a second.
async fn after_the_outage<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Backfilled {
    let deadline = Deadline::of("for the recovery from an outage");
    loop {
        deadline.look_again().await;
        match db.backfill(store, &small()).await {
            Ok(done) => return done,
            Err(error) => assert!(error.is_outage() && error.is_retryable(), "{error:?}"),
        }
    }
}

async fn i11_nothing_that_does_not_open_is_committed<B: Backend>() {
    let db = B::make().await;
    drop(db.prepared(accepting()).await);
    db.append_bare("1", &[placed("ada"), placed("ada"), placed("eve")]).await;
    let before = db.stored().await;
    let (store, meddler) = db.meddling(accepting());
    let last = |payload: &mut Vec<u8>| payload.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
    type Change = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;
    let changes: [(&str, Change); 6] = [
        ("nothing", Box::new(Vec::clear)),
        ("the plaintext", Box::new(|payload| *payload = placed("ada").into_payload())),
        ("another header", Box::new(|payload| payload[30] ^= 1)),
        (
            "another value",
            Box::new(move |payload| {
                let at = last(payload);
                payload[at] ^= 2;
            }),
        ),
        (
            "another member in the clear",
            Box::new(|payload| {
                let at = payload.windows(3).position(|w| w == b"1.0").unwrap();
                payload[at] = b'2';
            }),
        ),
        ("one more byte", Box::new(|payload| payload.push(b' '))),
    ];
    for (what, change) in changes {
        meddler.writes(change);
        let refused = db.backfill(&store, &BackfillOptions::default()).await;
        assert!(
            matches!(refused, Err(Error::Maintenance(MaintenanceFault::NotVerified { .. }))),
            "{what}: {refused:?}"
        );
        assert!(!whole(&refused.unwrap_err()).contains(CANARY));
        assert!(db.stored().await == before, "{what}: something was committed");
    }
    meddler.peace();
    assert_eq!(db.backfill(&store, &BackfillOptions::default()).await.unwrap().sealed, 3);
}

async fn i11_whatever_ends_in_the_middle_is_completed<B: Backend>() {
    let calls = {
        let db = B::make().await;
        drop(db.prepared(accepting()).await);
        db.append_bare("1", &[placed("ada"), placed("eve"), placed("ada")]).await;
        let (store, meddler) = db.meddling(accepting());
        assert_eq!(db.backfill(&store, &small()).await.unwrap().sealed, 3);
        meddler.calls()
    };
    assert!(calls > 8, "{calls}");
    let db = B::make().await;
    drop(db.prepared(accepting()).await);
    let mut stopped = 0;
    for call in 0..calls {
        for trouble in [Trouble::Fails, Trouble::FailsDone, Trouble::Hangs, Trouble::HangsDone] {
            let id = format!("{call} {trouble:?}");
            db.append_bare(&id, &[placed("ada"), placed(&id), placed("ada")]).await;
            let read = db.read_log(&db.process(accepting())).await.unwrap();
            let (store, meddler) = db.meddling(accepting());
            meddler.trouble(call, trouble);
            let mut connection = db.connect().await.unwrap();
            let mut report = |_: BackfillProgress<'_>| {};
            let ended =
                until_idle(&meddler, store.backfill(db.connection(&mut connection), &small(), &mut report)).await;
            assert!(ended.is_none_or(|result| result.is_err()), "{id}: it went on");
            drop(connection);
            assert!(db.read_log(&db.process(accepting())).await.unwrap() == read, "{id}: I11: every event is readable");
            meddler.peace();
            let done = db.backfill(&store, &small()).await.unwrap();
            assert!(done.sealed <= 3 && done.skipped == 0);
            assert!(
                db.stored().await.iter().all(|event| !contains(&event.payload, CANARY)),
                "{id}: running it again completes it"
            );
            assert!(db.read_log(&db.process(strict())).await.unwrap() == read);
            stopped += 1;
        }
    }
    assert_eq!(stopped, calls * 4);
}

/// Runs a backfill until it ends, or hangs where it was told to.
async fn until_idle<S, T>(meddler: &Meddler<S>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let deadline = Deadline::of("for a backfill to end or to hang");
    loop {
        tokio::select! {
            result = &mut future => return Some(result),
            () = deadline.look_again() => {
                if meddler.hangs() {
                    return None;
                }
            }
        }
    }
}
