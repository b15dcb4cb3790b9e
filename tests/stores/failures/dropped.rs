//! Appends whose futures were dropped.

use super::{placed, postgres, sqlite};
use eventseal::ExpectedVersion::Any;
use eventseal::{EventStore, EventStoreExt, aggregate};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Polls a future for so long, and drops it. Did it end?
async fn poll<F: Future>(future: F, time: Duration) -> bool {
    let mut future = Box::pin(future);
    let start = Instant::now();
    while start.elapsed() < time {
        if std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

#[tokio::test]
async fn of_an_append_that_was_dropped_all_or_nothing_is_in_the_transaction() {
    let (db, store) = postgres().await;
    let (mut all, mut nothing) = (0, 0);
    let mut whole = Duration::from_millis(1);
    for times in 0..90 {
        let order = aggregate("Order", times.to_string());
        let mut tx = db.pool.begin().await.unwrap();
        let events = [placed(&format!("{times}a")), placed(&format!("{times}b")), placed(&format!("{times}c"))];
        let done = poll(store.append(&mut tx, &order, Any, &events), whole * (times % 30) / 20).await;
        // If the transaction is committed all the same, the stream is intact.
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let read = store.read_stream(&mut tx, &order).await.unwrap().events.len();
        assert!(read == 3 || read == 0 && !done, "{read} of 3 events, of an append that was dropped");
        let start = Instant::now();
        let next = store.append(&mut tx, &order, Any, &[placed(&format!("{times}d"))]).await.unwrap().events.remove(0);
        whole = start.elapsed();
        assert_eq!(next.aggregate_version.get(), i64::try_from(read).unwrap() + 1);
        tx.commit().await.unwrap();
        if read == 3 {
            all += 1;
        } else {
            nothing += 1;
        }
    }
    assert!(all > 0 && nothing > 0, "{all} times all, {nothing} times nothing");
}

#[tokio::test]
async fn of_an_append_that_was_dropped_all_or_nothing_is_in_the_transaction_on_sqlite() {
    let (db, store) = sqlite().await;
    let (mut all, mut nothing) = (0, 0);
    let mut whole = Duration::from_millis(1);
    for times in 0..90 {
        let order = aggregate("Order", times.to_string());
        let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let events = [placed(&format!("{times}a")), placed(&format!("{times}b")), placed(&format!("{times}c"))];
        let done = poll(store.append(&mut tx, &order, Any, &events), whole * (times % 30) / 20).await;
        tx.commit().await.unwrap();
        let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let read = store.read_stream(&mut tx, &order).await.unwrap().events.len();
        assert!(read == 3 || read == 0 && !done, "{read} of 3 events, of an append that was dropped");
        let start = Instant::now();
        let next = store.append(&mut tx, &order, Any, &[placed(&format!("{times}d"))]).await.unwrap().events.remove(0);
        whole = start.elapsed();
        assert_eq!(next.aggregate_version.get(), i64::try_from(read).unwrap() + 1);
        tx.commit().await.unwrap();
        if read == 3 {
            all += 1;
        } else {
            nothing += 1;
        }
    }
    assert!(all > 0 && nothing > 0, "{all} times all, {nothing} times nothing");
}
