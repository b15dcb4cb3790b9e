//! What is appended while a stream is read, and what was removed before.

use super::{events_of, pages_of, placed, schemas};
use eventseal::{AggregateRef, EventFilter, EventStoreExt, GlobalPosition, NewEvent, PersistedEvent, aggregate};
use futures::TryStreamExt;
use support::backend::{Backend, insert};
use support::on_every_database;

on_every_database! {
    i8_an_aggregate_that_grows_is_read_without_gaps,
    i8_the_log_is_read_to_its_end_while_it_grows,
    i8_nothing_after_a_hole_is_lost,
}

fn versions(events: &[PersistedEvent]) -> Vec<i64> {
    events.iter().map(|event| event.aggregate_version.get()).collect()
}

/// Somebody appends after each event, and then no more.
async fn i8_an_aggregate_that_grows_is_read_without_gaps<B: Backend>() {
    for size in [1, 2, 3, 5, 500] {
        let db = B::make().await;
        let store = db.prepared(schemas()).await;
        db.append(&store, "1", &[placed(1), placed(2), placed(3)]).await;
        let mut connection = db.connect().await.unwrap();
        let tx = db.connection(&mut connection);
        let mut events = store.aggregate_events(tx, &aggregate("Order", "1"), (..).into(), pages_of(size));
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await.unwrap() {
            seen.push(event);
            if seen.len() <= 6 {
                db.append(&store, "1", &[placed(seen.len() + 3)]).await;
            }
        }
        drop(events);
        let found = versions(&seen);
        assert_eq!(found, (1..=i64::try_from(found.len()).unwrap()).collect::<Vec<_>>(), "pages of {size}");
        // A page of 500 has three of them. The statement that looks for the end finds what was appended meanwhile.
        let most = if size < 4 { 9 } else { 6 };
        assert_eq!(found.len(), most, "pages of {size}");
        assert_eq!(seen, db.read(&store, "1").await.unwrap()[..most], "pages of {size}");
    }
}

async fn i8_the_log_is_read_to_its_end_while_it_grows<B: Backend>() {
    for size in [1, 2, 3] {
        let db = B::make().await;
        let store = db.prepared(schemas()).await;
        db.append(&store, "1", &[placed(1), placed(2), placed(3)]).await;
        let mut connection = db.connect().await.unwrap();
        let tx = db.connection(&mut connection);
        let mut events = store.log_events(tx, GlobalPosition::START, pages_of(size), &EventFilter::default());
        let mut seen = Vec::new();
        while let Some(event) = events.try_next().await.unwrap() {
            seen.push(event);
            if seen.len() <= 6 {
                db.append(&store, &seen.len().to_string(), &[placed(seen.len() + 3)]).await;
            }
        }
        drop(events);
        assert_eq!(seen, db.read_log(&store).await.unwrap(), "pages of {size}");
        assert_eq!(seen.len(), 9);
    }
}

fn stored(order: &AggregateRef, position: i64, version: i64) -> PersistedEvent {
    let event = NewEvent::raw("Counted", 2, "{}");
    PersistedEvent::from_new(order.clone(), version.try_into().unwrap(), position.try_into().unwrap(), event)
}

/// Versions have no gaps, but somebody may have moved old events into an archive, or removed rows. What is left must
/// not look like an aggregate that has ended, or has never begun.
async fn i8_nothing_after_a_hole_is_lost<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let order = aggregate("Order", "1");
    let left = [3, 4, 8, 9, 10, 21, 1_000];
    for (position, version) in (1..).zip(left) {
        insert(&db, stored(&order, position, version)).await;
    }
    for size in [1, 2, 3, 4, 7, 8, 500, 2_000] {
        assert_eq!(versions(&events_of(&db, &store, (..).into(), size).await.unwrap()), left, "pages of {size}");
        let some = events_of(&db, &store, (4..=9).into(), size).await.unwrap();
        assert_eq!(versions(&some), [4, 8, 9], "pages of {size}");
        let mut connection = db.connect().await.unwrap();
        let tx = db.connection(&mut connection);
        let whole = store.read_stream(tx, &order).await.unwrap();
        let pages: Vec<_> = store.aggregate_pages(tx, &order, (..).into(), pages_of(size)).try_collect().await.unwrap();
        assert_eq!(pages.last().unwrap().last_version, whole.last_version, "pages of {size}");
    }
}
