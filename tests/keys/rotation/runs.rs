//! Rewraps beside appends, shreds and other rewraps.

use super::*;
use eventseal::error::KeyFault;

/// While keys are rotated and rewrapped again and again, appends, reads and shreds go on; two runners at once do each
/// key once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i11_a_rewrap_disturbs_nobody_and_brings_nothing_back() {
    let db = Arc::new(Postgres::new().await);
    let store = Arc::new(db.prepared_with(Arc::clone(&KEYRING)).await);
    db.place(&store, "before", 0..300).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for task in 0..3_usize {
        let (db, store, stop) = (Arc::clone(&db), Arc::clone(&store), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut rounds = 0;
            while !stop.load(Ordering::SeqCst) {
                let fresh = 1_000 + task * 100_000 + rounds;
                match task {
                    0 => {
                        db.place(&store, &format!("order-{rounds}"), fresh..fresh + 3).await.expect("an append failed");
                    }
                    1 => assert_eq!(db.read(&store, "before").await.expect("a read failed").len(), 300),
                    _ => drop(db.try_shred(&store, &(rounds % 150).to_string()).await.expect("a shred failed")),
                }
                rounds += 1;
            }
            rounds
        }));
    }
    let mut retired = Vec::new();
    for _ in 0..8 {
        let old = db.usage(&store).await.into_iter().find(|usage| usage.kek.state == KekState::Active).unwrap().kek;
        db.rotate(&store).await;
        let other = db.with_kms(Arc::clone(&KEYRING));
        let options = batches_of(20);
        let (a, b) = tokio::join!(db.rewrap(&store, &options), db.rewrap(&other, &options));
        assert!(a.unwrap().bad.is_empty() && b.unwrap().bad.is_empty());
        // An append in flight may have used the old key: it is found by the next run.
        let deadline = Deadline::of("for the end of a rewrap");
        while db.rewrap(&store, &options).await.unwrap().remaining > 0 {
            deadline.look_again().await;
        }
        while let Err(error) = db.retire(&store, old.kek_id).await {
            deadline.look_again().await;
            assert!(matches!(error, Error::Keys(KeyFault::KekInUse { .. })), "{error:?}");
            db.rewrap(&store, &options).await.unwrap();
        }
        retired.push(old.kek_id);
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        assert!(task.await.unwrap() > 3, "nothing went on meanwhile");
    }
    let cold = db.with_kms(Arc::clone(&KEYRING));
    let events = db.read(&cold, "before").await.unwrap();
    let shredded: i64 = sqlx::query_scalar("SELECT count(*) FROM key_scopes WHERE state = 'shredded'")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(events.iter().filter(|event| event.is_redacted()).count() as i64, shredded);
    let usage = db.usage(&store).await;
    assert!(usage.iter().all(|usage| (usage.kek.state == KekState::Active) == (usage.live_keys > 0)));
    assert!(
        retired.iter().all(|kek_id| usage
            .iter()
            .any(|usage| usage.kek.kek_id == *kek_id && usage.kek.state == KekState::Retired))
    );
}

/// Two runners over the same keys: each is wrapped once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_two_runners_wrap_each_key_once() {
    let db = Postgres::new().await;
    let store = db.prepared_with(Arc::clone(&KEYRING)).await;
    for thousand in 0..3 {
        db.place(&store, &thousand.to_string(), thousand * 1_000..(thousand + 1) * 1_000).await.unwrap();
    }
    db.rotate(&store).await;
    let other = db.with_kms(Arc::clone(&KEYRING));
    let options = batches_of(50);
    let (a, b) = tokio::join!(db.rewrap(&store, &options), db.rewrap(&other, &options));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.rewrapped + b.rewrapped, 3_001, "{a:?} {b:?}");
    assert!(a.rewrapped > 0 && b.rewrapped > 0, "one did all the work: {a:?} {b:?}");
    assert_eq!(db.usage(&store).await[0].live_keys, 0);
}
