//! A stream that is dropped at any point leaves its transaction as good as it was.

use super::{pages_of, placed, schemas};
use eventseal::{
    EventFilter, EventStore, EventStoreExt, ExpectedVersion, GlobalPosition, PersistedEvent, Result, aggregate,
};
use futures::stream::{BoxStream, TryStreamExt};
use std::future::poll_fn;
use std::task::Poll;
use support::backend::Backend;
use support::{Deadline, Postgres, on_every_database};

on_every_database! {
    a_transaction_goes_on_after_its_stream_was_dropped,
    an_item_whose_future_was_dropped_is_not_lost,
}

/// Asks once, and does not wait for the answer.
async fn ask(events: &mut BoxStream<'_, Result<PersistedEvent>>) -> Poll<Option<PersistedEvent>> {
    poll_fn(|context| match events.try_poll_next_unpin(context) {
        Poll::Ready(item) => Poll::Ready(Poll::Ready(item.map(Result::unwrap))),
        Poll::Pending => Poll::Ready(Poll::Pending),
    })
    .await
}

async fn a_transaction_goes_on_after_its_stream_was_dropped<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let order = aggregate("Order", "1");
    db.append(&store, "1", &(1..=5).map(placed).collect::<Vec<_>>()).await;
    let mut version = 5;
    // After so many events in pages of two, and perhaps in the middle of a statement.
    for given in 0..=5 {
        for is_asked in [false, true] {
            for of_log in [false, true] {
                let mut transaction = db.begin().await.unwrap();
                let tx = db.tx(&mut transaction);
                let before = [placed(100)];
                store.append(tx, &order, ExpectedVersion::Exact(version.try_into().unwrap()), &before).await.unwrap();
                let mut events = match of_log {
                    true => store.log_events(tx, GlobalPosition::START, pages_of(2), &EventFilter::default()),
                    false => store.aggregate_events(tx, &order, (..).into(), pages_of(2)),
                };
                for _ in 0..given {
                    events.try_next().await.unwrap().unwrap();
                }
                if is_asked {
                    let _ = ask(&mut events).await;
                }
                drop(events);
                let after = [placed(101)];
                let expected = ExpectedVersion::Exact((version + 1).try_into().unwrap());
                store.append(tx, &order, expected, &after).await.unwrap();
                let stream = store.read_stream(tx, &order).await.unwrap();
                assert_eq!(stream.events.len(), usize::try_from(version).unwrap() + 2);
                db.commit(transaction).await.unwrap();
                version += 2;
            }
        }
    }
    let events = db.read(&store, "1").await.unwrap();
    assert_eq!(events.len(), 5 + 2 * 24, "what was written before and after each stream is there");
}

async fn an_item_whose_future_was_dropped_is_not_lost<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &(1..=7).map(placed).collect::<Vec<_>>()).await;
    let whole = db.read(&store, "1").await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    for size in [1, 2, 500] {
        for of_log in [false, true] {
            let mut events = match of_log {
                true => store.log_events(tx, GlobalPosition::START, pages_of(size), &EventFilter::default()),
                false => store.aggregate_events(tx, &aggregate("Order", "1"), (..).into(), pages_of(size)),
            };
            let mut seen = Vec::new();
            loop {
                match ask(&mut events).await {
                    Poll::Ready(Some(event)) => seen.push(event),
                    Poll::Ready(None) => break,
                    // Somebody waited for a moment only, and asks again.
                    Poll::Pending => match events.try_next().await.unwrap() {
                        Some(event) => seen.push(event),
                        None => break,
                    },
                }
            }
            assert_eq!(seen, whole, "pages of {size}, of the log: {of_log}");
        }
    }
}

/// The statement is under way for certain: it waits for a lock.
#[tokio::test]
async fn a_transaction_goes_on_after_its_stream_was_dropped_in_the_middle_of_a_statement() {
    let db = Postgres::make().await;
    let store = db.prepared(schemas()).await;
    let order = aggregate("Order", "1");
    db.append(&store, "1", &(1..=5).map(placed).collect::<Vec<_>>()).await;
    for of_log in [false, true] {
        let mut tx = db.pool.begin().await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.unwrap();
        let mut lock = db.pool.begin().await.unwrap();
        sqlx::query("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
        let mut events = match of_log {
            true => store.log_events(&mut tx, GlobalPosition::START, pages_of(2), &EventFilter::default()),
            false => store.aggregate_events(&mut tx, &order, (..).into(), pages_of(2)),
        };
        let deadline = Deadline::of("for a read to wait for the lock");
        let waits = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1";
        while sqlx::query_scalar::<_, Option<bool>>(waits).bind(pid).fetch_one(&db.pool).await.unwrap() != Some(true) {
            assert!(ask(&mut events).await.is_pending());
            deadline.look_again().await;
        }
        drop(events);
        lock.rollback().await.unwrap();
        let before = store.read_stream(&mut tx, &order).await.unwrap();
        store.append(&mut tx, &order, before.expected_version(), &[placed(6)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(db.read(&store, "1").await.unwrap().len(), before.events.len() + 1);
    }
}
