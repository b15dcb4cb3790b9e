//! I5 for reads that may lag.

use super::{Counting, Flaky, placed, schemas};
use eventseal::keys::{KeyManager, KeyManagerBuilder};
use eventseal::{Error, EventStoreExt, KeyScope, PersistedEvent, SealedStore, aggregate};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::Deadline;
use support::backend::Backend;
use support::faults::Faulty;
use support::{KEYRING, Memory, on_every_database};

on_every_database! {
    i5_reads_that_may_lag_do_so_and_appends_do_not,
    i5_an_older_tombstone_is_not_taken_for_a_shred_that_is_under_way,
    i5_an_old_snapshot_renews_nothing_for_readers_that_lag,
    i5_what_a_process_shreds_itself_it_never_shows_again,
}

/// A process whose reads may lag.
async fn prepared<B: Backend>(db: &B, lag: Duration) -> SealedStore<B::Store> {
    let process = db.process_over(db.keys().reads_may_lag(lag), schemas());
    db.prepare(&process).await;
    process
}

/// A report that takes its time, in one snapshot from before a shred, keeps nobody from seeing it.
async fn i5_an_old_snapshot_renews_nothing_for_readers_that_lag<B: Backend>() {
    let db = B::make().await;
    let lag = Duration::from_millis(300);
    let lagging = prepared(&db, lag).await;
    let operator = db.process(schemas());
    db.append(&lagging, "1", &[placed("1")]).await;
    let mut report = db.begin_snapshot().await;
    let in_report = async |report: &mut B::Transaction| {
        let stream = lagging.read_stream(db.tx(report), &aggregate("Order", "1")).await;
        stream.unwrap().events[0].is_redacted()
    };
    let mut connection = db.connect().await.unwrap();
    let mut shows_it = async || {
        let stream = lagging.read_stream(db.connection(&mut connection), &aggregate("Order", "1")).await.unwrap();
        !stream.events[0].is_redacted()
    };
    assert!(!in_report(&mut report).await && shows_it().await);
    db.shred(&operator, "1").await;
    let shredded = std::time::Instant::now();
    let deadline = Deadline::of("for a shred to be seen");
    loop {
        deadline.look_again().await;
        // By the time before the read: the lag is of statements that begin.
        let begins = shredded.elapsed();
        if !shows_it().await {
            break;
        }
        assert!(begins <= lag, "a statement that began {begins:?} after the shred saw plaintext");
        if std::any::type_name::<B>() != std::any::type_name::<Memory>() {
            assert!(!in_report(&mut report).await, "the snapshot is from before the shred");
        }
    }
}

/// Also where a read of another connection comes between the shred and its commit, and puts the key back.
async fn i5_what_a_process_shreds_itself_it_never_shows_again<B: Backend>() {
    let db = B::make().await;
    let hour = Duration::from_secs(3_600);
    let lagging = prepared(&db, hour).await;
    db.append(&lagging, "1", &[placed("1"), placed("2"), placed("3")]).await;
    let mut other = db.connect().await.unwrap();
    let mut read = async || {
        let stream = lagging.read_stream(db.connection(&mut other), &aggregate("Order", "1")).await?;
        Ok::<_, Error>(stream.events.iter().map(PersistedEvent::is_redacted).collect::<Vec<_>>())
    };
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().shred(db.tx(&mut transaction), &KeyScope::new("Customer", "1"), "request").await.unwrap();
    let own = lagging.read_stream(db.tx(&mut transaction), &aggregate("Order", "1")).await.unwrap();
    assert!(own.events[0].is_redacted(), "the transaction sees what it did");
    for _ in 0..2 {
        assert_eq!(read().await.unwrap(), [false; 3], "it is not committed");
    }
    db.commit(transaction).await.unwrap();
    assert_eq!(read().await.unwrap(), [true, false, false]);
    // A stop, and its end.
    let scope = KeyScope::new("Customer", "2");
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().disable(db.tx(&mut transaction), &scope, "stop").await.unwrap();
    assert_eq!(read().await.unwrap(), [true, false, false]);
    db.commit(transaction).await.unwrap();
    assert!(matches!(read().await, Err(Error::Disabled { .. })));
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().enable(db.tx(&mut transaction), &scope, "go").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(read().await.unwrap(), [true, false, false]);
    // A change that is rolled back has no effect.
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().shred(db.tx(&mut transaction), &KeyScope::new("Customer", "3"), "request").await.unwrap();
    drop(transaction);
    assert_eq!(read().await.unwrap(), [true, false, false]);
}

/// The scope was shredded and reopened before: what is left of that says nothing of the shred that is not committed
/// yet.
async fn i5_an_older_tombstone_is_not_taken_for_a_shred_that_is_under_way<B: Backend>() {
    let db = B::make().await;
    let lag = Duration::from_millis(500);
    let lagging = prepared(&db, lag).await;
    let (operator, scope) = (db.process(schemas()), KeyScope::new("Customer", "1"));
    operator.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    db.append(&lagging, "old", &[placed("1")]).await;
    db.shred(&operator, "1").await;
    let mut transaction = db.begin().await.unwrap();
    operator.keys().reopen(db.tx(&mut transaction), &scope, "came back").await.unwrap();
    db.commit(transaction).await.unwrap();
    db.append(&lagging, "new", &[placed("1")]).await;
    let mut other = db.connect().await.unwrap();
    let mut is_redacted = async |id| {
        let stream = lagging.read_stream(db.connection(&mut other), &aggregate("Order", id)).await.unwrap();
        stream.events[0].is_redacted()
    };
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().shred(db.tx(&mut transaction), &scope, "request").await.unwrap();
    assert!(is_redacted("old").await && !is_redacted("new").await, "it is not committed");
    let looked = std::time::Instant::now();
    while looked.elapsed() <= lag {
        assert!(!is_redacted("new").await);
    }
    db.commit(transaction).await.unwrap();
    assert!(is_redacted("new").await, "the process that shredded it shows it once more");
}

async fn i5_reads_that_may_lag_do_so_and_appends_do_not<B: Backend>() {
    let db = B::make().await;
    let counts = Arc::<[AtomicUsize; 3]>::default();
    let take = || [0, 1, 2].map(|what| counts[what].swap(0, Ordering::SeqCst));
    let keys = || Faulty(Counting(B::Keys::default(), Arc::clone(&counts)));
    let hour = Duration::from_secs(3_600);
    let process = |keys: KeyManagerBuilder<B::Tx>, lag| db.process_over(keys.reads_may_lag(lag), schemas());
    let lagging = process(KeyManager::builder(keys(), Arc::clone(&KEYRING)), hour);
    lagging.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    let strict = process(KeyManager::builder(keys(), Arc::clone(&KEYRING)), Duration::ZERO);
    db.append(&strict, "1", &[placed("1"), placed("2"), placed("3")]).await;
    let read_outside = async |process: &SealedStore<B::Store>| {
        let mut connection = db.connect().await.unwrap();
        process.read_stream(db.connection(&mut connection), &aggregate("Order", "1")).await
    };
    for process in [&lagging, &strict] {
        read_outside(process).await.unwrap();
    }
    take();
    db.read(&lagging, "1").await.unwrap();
    read_outside(&lagging).await.unwrap();
    assert_eq!(take(), [0, 0, 0], "the keys were looked at less than an hour ago");
    db.read(&strict, "1").await.unwrap();
    assert_eq!(take(), [1, 0, 0]);
    // The lag is counted from before the look, however long the KMS took after it.
    let lag = Duration::from_millis(100);
    let slow = Faulty(Flaky(Arc::default(), Arc::default(), lag * 2));
    let slow = process(KeyManager::builder(keys(), slow), lag);
    read_outside(&slow).await.unwrap();
    take();
    read_outside(&slow).await.unwrap();
    assert_eq!(take(), [1, 0, 0]);
    // Another process shreds: a read may lag, an append does not.
    db.shred(&strict, "1").await;
    assert!(
        !db.read(&lagging, "1").await.unwrap()[0].is_redacted()
            && db.read(&strict, "1").await.unwrap()[0].is_redacted()
    );
    assert!(db.try_append(&lagging, "1", &[placed("1")]).await.unwrap_err().is_shredded());
    // The process knows its own changes. They make it look at all rows of the page again.
    db.shred(&lagging, "2").await;
    let read = db.read(&lagging, "1").await.unwrap();
    assert!(read[0].is_redacted() && read[1].is_redacted() && !read[2].is_redacted());
    let mut transaction = db.begin().await.unwrap();
    lagging.keys().disable(db.tx(&mut transaction), &KeyScope::new("Customer", "3"), "stop").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert!(matches!(db.read(&lagging, "1").await, Err(Error::Disabled { .. })));
}
