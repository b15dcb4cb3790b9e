//! A shred in the middle of a stream.

use super::{pages_of, placed, schemas};
use eventseal::postgres::PostgresStore;
use eventseal::{EventFilter, EventStoreExt, GlobalPosition, PersistedEvent, SealedStore, aggregate};
use futures::stream::{BoxStream, TryStreamExt};
use support::backend::Backend;
use support::{Postgres, contains, on_every_database};

on_every_database! {
    i5_a_page_that_is_asked_for_after_a_shred_is_redacted,
}

type Events<'e> = BoxStream<'e, eventseal::Result<PersistedEvent>>;

/// Is the name in the payload? It must be, or be redacted.
async fn next_is_plain(events: &mut Events<'_>) -> Option<bool> {
    let event = events.try_next().await.unwrap()?;
    let is_plain = contains(&event.payload, "Ada");
    assert_eq!(is_plain, event.redacted.is_empty(), "{event:?}");
    Some(is_plain)
}

/// The process that reads has the key in its cache, and has read the stream before, so it expects the key.
async fn i5_a_page_that_is_asked_for_after_a_shred_is_redacted<B: Backend>() {
    for of_log in [false, true] {
        for (size, shred_after) in [(1, 1_usize), (2, 2), (2, 3), (3, 1), (4, 6), (500, 2)] {
            let db = B::make().await;
            let (store, operator) = (db.prepared(schemas()).await, db.process(schemas()));
            db.append(&store, "1", &(1..=7).map(placed).collect::<Vec<_>>()).await;
            assert_eq!(db.read(&store, "1").await.unwrap().len(), 7);
            let mut connection = db.connect().await.unwrap();
            let tx = db.connection(&mut connection);
            let mut events = match of_log {
                true => store.log_events(tx, GlobalPosition::START, pages_of(size), &EventFilter::default()),
                false => store.aggregate_events(tx, &aggregate("Order", "1"), (..).into(), pages_of(size)),
            };
            let mut plain = Vec::new();
            for _ in 0..shred_after {
                plain.push(next_is_plain(&mut events).await.unwrap());
            }
            db.shred(&operator, "1").await;
            while let Some(is_plain) = next_is_plain(&mut events).await {
                plain.push(is_plain);
            }
            // The rest of the page that was read before the shred is given out as it was read.
            let read_before = usize::try_from(size).unwrap() * shred_after.div_ceil(size as usize);
            let expected: Vec<bool> = (0..7).map(|event| event < read_before).collect();
            assert_eq!(plain, expected, "pages of {size}, a shred after {shred_after}, of the log: {of_log}");
        }
    }
}

/// A transaction with a snapshot keeps its state, as it does for any read.
#[tokio::test]
async fn i5_all_pages_are_as_old_as_the_snapshot_of_their_transaction() {
    let db = Postgres::make().await;
    let (store, operator): (SealedStore<PostgresStore>, _) = (db.prepared(schemas()).await, db.process(schemas()));
    db.append(&store, "1", &(1..=5).map(placed).collect::<Vec<_>>()).await;
    let mut transaction = db.begin_snapshot().await;
    let mut events = store.aggregate_events(&mut transaction, &aggregate("Order", "1"), (..).into(), pages_of(2));
    assert_eq!(next_is_plain(&mut events).await, Some(true));
    db.append(&store, "1", &[placed(6)]).await;
    db.shred(&operator, "1").await;
    let mut plain = 1;
    while let Some(is_plain) = next_is_plain(&mut events).await {
        assert!(is_plain);
        plain += 1;
    }
    assert_eq!(plain, 5, "neither the shred nor the append is in the snapshot");
}
