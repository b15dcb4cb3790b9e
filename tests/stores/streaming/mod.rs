//! Streams of events, page by page: they give out what one read gives out, whatever the size of a page, and never hold
//! more than a page. On every database, through the sealed store and through the one below it.

mod ahead;
mod dropped;
mod meanwhile;
mod shreds;

use eventseal::error::InputFault;
use eventseal::schema::SplitPart;
use eventseal::{
    AggregateVersion, Error, EventFilter, EventStore, EventStoreExt, ExpectedVersion, GlobalPosition, NewEvent,
    PageSize, PersistedEvent, Result, Schemas, VersionRange, aggregate, event,
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use std::convert::Infallible;
use support::backend::Backend;
use support::{customer, fault, on_every_database};

on_every_database! {
    i8_every_page_size_gives_out_what_one_read_gives_out,
    i8_the_place_to_go_on_from_is_known_if_the_last_events_were_dropped,
    i8_what_ends_anywhere_goes_on_there,
    an_error_comes_after_the_pages_before_it_and_ends_the_stream,
}

/// Of a stored `Counted`, a reader sees as many parts as its number says.
fn schemas() -> Schemas {
    let counted = event("Counted").version(1).version(2).split(1, &[("Counted", 2)], |old: Value, _| {
        let parts = 0..old["parts"].as_u64().unwrap();
        Ok::<_, Infallible>(parts.map(|part| SplitPart::new("Counted", 2, json!({ "part": part }))).collect::<Vec<_>>())
    });
    let placed = event("Placed").version(1).protect(&["/name"], customer());
    Schemas::builder([placed, counted]).allow_older_appends().build().unwrap()
}

/// An event of customer 1.
fn placed(number: usize) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"1","name":"Ada {number}"}}"#))
}

fn counted(parts: u32) -> NewEvent {
    NewEvent::raw("Counted", 1, format!(r#"{{"parts":{parts}}}"#))
}

fn pages_of(events: u32) -> PageSize {
    events.try_into().unwrap()
}

/// The events of an order, one by one, each with what a reader sees of its name.
async fn events_of<B: Backend, S: EventStore<Tx = B::Tx> + ?Sized>(
    db: &B,
    store: &S,
    range: VersionRange,
    size: u32,
) -> Result<Vec<PersistedEvent>> {
    let mut connection = db.connect().await.unwrap();
    let events =
        store.aggregate_events(db.connection(&mut connection), &aggregate("Order", "1"), range, pages_of(size));
    events.try_collect().await
}

#[test]
fn a_page_has_at_least_one_event() {
    let error = PageSize::try_from(0).unwrap_err();
    assert!(matches!(error, Error::Input(InputFault::OutOfRange { what: "page size", value: 0, .. })), "{error:?}");
    assert_eq!(pages_of(u32::MAX).get(), u32::MAX);
    assert_eq!(PageSize::default().get(), 500);
}

const SIZES: [u32; 7] = [1, 2, 3, 8, 9, 500, u32::MAX];

/// Both bounds, and what lies beyond them.
fn ranges() -> Vec<VersionRange> {
    let of = |from, to| VersionRange { from, to };
    vec![
        (..).into(),
        (1..=1).into(),
        (2..=4).into(),
        (3..).into(),
        (..=5).into(),
        (8..=8).into(),
        (8..=9).into(),
        (9..).into(),
        (1_000..).into(),
        (0..=0).into(),
        (i64::MIN..=i64::MAX).into(),
        (i64::MAX..).into(),
        (i64::MAX..=i64::MAX).into(),
        of(Some(-5), Some(3)),
        of(Some(4), Some(2)),
        of(None, Some(i64::MIN)),
    ]
}

fn filters() -> Vec<EventFilter> {
    let of = |aggregate_types: &[&str], event_types: &[&str]| EventFilter {
        aggregate_types: aggregate_types.iter().map(ToString::to_string).collect(),
        event_types: event_types.iter().map(ToString::to_string).collect(),
    };
    vec![of(&[], &[]), of(&[], &["Counted"]), of(&["Order"], &["Placed"]), of(&["Nothing"], &[])]
}

/// Order 1 has eight stored events, and order 2 three, between those of order 1. Some are dropped, one at the end.
async fn fill<B: Backend, S: EventStore<Tx = B::Tx>>(db: &B, store: &S) {
    db.append(store, "1", &[placed(1), counted(0), counted(3)]).await;
    db.append(store, "2", &[placed(2), counted(0)]).await;
    db.append(store, "1", &[counted(0), counted(0), placed(3)]).await;
    db.append(store, "2", &[counted(1)]).await;
    db.append(store, "1", &[counted(2), counted(0)]).await;
}

async fn i8_every_page_size_gives_out_what_one_read_gives_out<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    fill(&db, &store).await;
    gives_out_what_one_read_gives_out(&db, &store).await;
    gives_out_what_one_read_gives_out(&db, store.inner()).await;
}

async fn gives_out_what_one_read_gives_out<B: Backend, S: EventStore<Tx = B::Tx>>(db: &B, store: &S) {
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    let order = aggregate("Order", "1");
    let mut seen = 0;
    for range in ranges() {
        let whole = store.read_aggregate_stream(tx, &order, range).await.unwrap();
        for size in SIZES {
            let case = format!("{range:?} in pages of {size}");
            let events: Vec<_> = store.aggregate_events(tx, &order, range, pages_of(size)).try_collect().await.unwrap();
            assert_eq!(events, whole.events, "{case}");
            let pages: Vec<_> = store.aggregate_pages(tx, &order, range, pages_of(size)).try_collect().await.unwrap();
            assert!(pages.iter().all(|page| page.aggregate == order && page.last_version.is_some()), "{case}");
            assert!(pages.is_sorted_by(|a, b| a.last_version < b.last_version), "{case}");
            assert_eq!(pages.last().and_then(|page| page.last_version), whole.last_version, "{case}");
            assert_eq!(pages.into_iter().flatten().collect::<Vec<_>>(), whole.events, "{case}");
            seen += events.len();
        }
    }
    assert!(seen > 100, "there was nothing to compare");
    for (filter, after) in filters().iter().flat_map(|filter| [0, 1, 5, 10, 11, i64::MAX].map(|after| (filter, after)))
    {
        let after = GlobalPosition::try_from(after).unwrap();
        let whole = store.read_events(tx, after, 1_000, filter).await.unwrap();
        for size in SIZES {
            let case = format!("{filter:?} after {after} in pages of {size}");
            let events: Vec<_> = store.log_events(tx, after, pages_of(size), filter).try_collect().await.unwrap();
            assert_eq!(events, whole.events, "{case}");
            let pages: Vec<_> = store.log_pages(tx, after, pages_of(size), filter).try_collect().await.unwrap();
            assert!(pages.iter().all(|page| (1..=size).contains(&page.scanned)), "{case}");
            assert_eq!(pages.iter().map(|page| page.scanned).sum::<u32>(), whole.scanned, "{case}");
            assert_eq!(pages.last().map_or(after, |page| page.next), whole.next, "{case}");
            assert_eq!(pages.into_iter().flat_map(|page| page.events).collect::<Vec<_>>(), whole.events, "{case}");
        }
    }
}

/// Somebody who appends at the version of the last event that he saw would be refused for ever.
async fn i8_the_place_to_go_on_from_is_known_if_the_last_events_were_dropped<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let order = aggregate("Order", "1");
    for size in [1, 2, 3, 500] {
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        let (mut expected, mut visible) = (ExpectedVersion::NoStream, 0);
        let mut pages = store.aggregate_pages(tx, &order, (..).into(), pages_of(size));
        while let Some(page) = pages.try_next().await.unwrap() {
            (expected, visible) = (page.expected_version(), visible + page.events.len());
        }
        drop(pages);
        let before = match expected {
            ExpectedVersion::Exact(version) => version.get(),
            _ => 0,
        };
        assert_eq!(i64::try_from(visible).unwrap(), before / 3, "a third is visible");
        let appended = store.append(tx, &order, expected, &[placed(1), counted(0), counted(0)]).await.unwrap();
        assert_eq!(appended.last_version().get(), before + 3);

        let mut next = GlobalPosition::START;
        let mut pages = store.log_pages(tx, next, pages_of(size), &EventFilter::default());
        while let Some(page) = pages.try_next().await.unwrap() {
            assert!(page.next > next, "a follower would stand still");
            next = page.next;
        }
        drop(pages);
        assert_eq!(next, store.latest_global_position(tx).await.unwrap());
        let nothing: Vec<_> =
            store.log_pages(tx, next, pages_of(size), &EventFilter::default()).try_collect().await.unwrap();
        assert!(nothing.is_empty(), "a page without a stored event");
        db.commit(transaction).await.unwrap();
    }
}

/// A follower that is stopped after any page goes on from its position with pages of another size.
async fn i8_what_ends_anywhere_goes_on_there<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    fill(&db, &store).await;
    let whole = db.read_log(&store).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    for (first, then) in [(1, 1), (1, 3), (3, 2), (5, 500)] {
        for stops_after in 0..=11 {
            let (mut seen, mut after) = (Vec::new(), GlobalPosition::START);
            let mut pages = store.log_pages(tx, after, pages_of(first), &EventFilter::default());
            for _ in 0..stops_after {
                let Some(page) = pages.try_next().await.unwrap() else { break };
                after = page.next;
                seen.extend(page.events);
            }
            drop(pages);
            let rest = store.log_events(tx, after, pages_of(then), &EventFilter::default());
            seen.extend(rest.try_collect::<Vec<_>>().await.unwrap());
            assert_eq!(seen, whole, "{stops_after} pages of {first}, then pages of {then}");
        }
    }
}

/// The sixth of seven events holds a value that no seal covers.
async fn an_error_comes_after_the_pages_before_it_and_ends_the_stream<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &(1..=5).map(placed).collect::<Vec<_>>()).await;
    let bad = db.append_bare("1", &[placed(6)]).await.remove(0).event_id;
    db.append(&store, "1", &[placed(7)]).await;
    let order = aggregate("Order", "1");
    for (size, before) in [(1, 5), (2, 4), (3, 3), (4, 4), (5, 5), (6, 0), (500, 0), (u32::MAX, 0)] {
        for of_log in [false, true] {
            let mut transaction = db.begin().await.unwrap();
            let tx = db.tx(&mut transaction);
            let mut events = match of_log {
                true => store.log_events(tx, GlobalPosition::START, pages_of(size), &EventFilter::default()),
                false => store.aggregate_events(tx, &order, (..).into(), pages_of(size)),
            };
            let mut versions = Vec::new();
            let error = loop {
                match events.try_next().await {
                    Ok(Some(event)) => versions.push(event.aggregate_version.get()),
                    Ok(None) => panic!("it ended without the error"),
                    Err(error) => break error,
                }
            };
            assert_eq!(versions, (1..=before).collect::<Vec<i64>>(), "pages of {size}: none of the page that failed");
            assert!(fault(&error).starts_with("Unsealed") && error.event_id() == Some(bad), "{error:?}");
            for _ in 0..3 {
                assert!(matches!(events.try_next().await, Ok(None)), "it goes on after an error");
            }
            drop(events);
            // The transaction is as good as before.
            let stored = store.inner().read_stream(tx, &order).await.unwrap();
            assert_eq!(stored.last_version.map(AggregateVersion::get), Some(7));
            db.roll_back(transaction).await;
        }
    }
}

/// The other library that consumes streams.
#[tokio::test]
async fn tokio_stream_consumes_them_too() {
    use tokio_stream::StreamExt;
    let db = support::Memory::make().await;
    let store = db.prepared(schemas()).await;
    fill(&db, &store).await;
    let (mut tx, mut seen) = (db.0.begin(), Vec::new());
    let mut events = store.log_events(&mut tx, GlobalPosition::START, pages_of(2), &EventFilter::default());
    while let Some(event) = events.next().await {
        seen.push(event.unwrap());
    }
    drop(events);
    assert_eq!(seen, db.read_log(&store).await.unwrap());
    assert_eq!(events_of(&db, &store, (2..=3).into(), 1).await.unwrap().len(), 3);
}
