//! The contract of an event store.

use crate::conformance::{Database, must};
use crate::error::Error;
use crate::event::{
    AggregateRef, AggregateVersion, EventFilter, ExpectedVersion, GlobalPosition, NewEvent, PersistedEvent, VersionRange, aggregate,
};
use crate::store::{EventStore, EventStoreExt};
use serde_json::{Value, json};
use uuid::Uuid;

/// The type of the events that the suite appends. Their payloads are objects with the members `number`
/// (an integer), `owner` (a string) and `text` (a string).
pub const EVENT_TYPE: &str = "ConformanceEvent";

/// The version that the suite appends. A store may upcast it, so long as the payload stays equal as JSON.
pub const EVENT_VERSION: u32 = 1;

/// Runs all of the suite.
pub async fn event_store<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    appends_assign_versions_and_positions(db, store).await;
    expected_versions_are_checked(db, store).await;
    everything_appended_is_read(db, store).await;
    streams_have_inclusive_bounds(db, store).await;
    the_log_is_read_in_pages(db, store).await;
    rolled_back_appends_leave_nothing(db, store).await;
    bad_appends_write_nothing(db, store).await;
    large_batches_keep_their_order(db, store).await;
    one_of_two_concurrent_appends_wins(db, store).await;
}

fn new_event(number: u32) -> NewEvent {
    let payload = json!({ "number": number, "owner": "owner-1", "text": format!("text {number} \u{e9}\u{1f600}") });
    NewEvent::raw(EVENT_TYPE, EVENT_VERSION, payload.to_string())
}

fn new_events(numbers: std::ops::Range<u32>) -> Vec<NewEvent> {
    numbers.map(new_event).collect()
}

fn number_of(event: &PersistedEvent) -> u64 {
    let payload: Value = serde_json::from_slice(&event.payload).unwrap_or_default();
    payload["number"].as_u64().unwrap_or(u64::MAX)
}

fn fresh(name: &str) -> AggregateRef {
    aggregate("Conformance", format!("{name}-{}", Uuid::now_v7()))
}

async fn append<D: Database, S: EventStore<Tx = D::Tx>>(
    db: &D,
    store: &S,
    aggregate: &AggregateRef,
    expected: ExpectedVersion,
    events: &[NewEvent],
) -> Vec<PersistedEvent> {
    let mut transaction = must(db.begin().await, "begin");
    let appended = must(store.append(db.tx(&mut transaction), aggregate, expected, events).await, "append");
    must(db.commit(transaction).await, "commit");
    appended.events
}

/// Versions start at 1 without gaps, positions ascend, and the result is what was passed, in its order.
pub async fn appends_assign_versions_and_positions<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("versions");
    let first = append(db, store, &aggregate, ExpectedVersion::NoStream, &new_events(0..3)).await;
    let mut transaction = must(db.begin().await, "begin");
    let more = new_events(3..5);
    let second = must(store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Any, &more).await, "append");
    assert_eq!(second.last_version().get(), 5);
    assert_eq!(second.events[1].payload, more[1].payload, "the result holds the payload as it was passed");
    assert_eq!(second.events[1].event_id, more[1].event_id);
    let within = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(within.last_version.map(AggregateVersion::get), Some(5), "a transaction sees what it appended");
    let latest = must(store.latest_global_position(db.tx(&mut transaction)).await, "latest position");
    assert_eq!(latest, second.last_position());
    must(db.commit(transaction).await, "commit");
    let all: Vec<PersistedEvent> = first.into_iter().chain(second.events).collect();
    assert!(all.iter().zip(1..).all(|(event, version)| event.aggregate_version.get() == version));
    assert!(all.is_sorted_by(|a, b| a.global_position < b.global_position), "positions ascend within and between appends");
}

/// Every mode of optimistic concurrency, and that a conflict leaves the transaction usable.
pub async fn expected_versions_are_checked<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("expected");
    let version = |number: i64| must(AggregateVersion::try_from(number), "a version");
    let mut transaction = must(db.begin().await, "begin");
    let conflict = store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Exact(version(1)), &new_events(0..1)).await;
    assert!(matches!(conflict, Err(Error::VersionConflict { actual: None, .. })), "{conflict:?}");
    must(store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &new_events(0..2)).await, "append after a conflict");
    for wrong in [ExpectedVersion::NoStream, ExpectedVersion::Exact(version(1)), ExpectedVersion::Exact(version(3))] {
        let conflict = store.append(db.tx(&mut transaction), &aggregate, wrong, &new_events(9..10)).await;
        assert!(
            matches!(&conflict, Err(error @ Error::VersionConflict { actual, .. }) if error.is_conflict() && !error.is_retryable() && *actual == Some(version(2))),
            "{conflict:?}"
        );
    }
    must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Exact(version(2)), &new_events(2..3)).await,
        "append at the right version",
    );
    must(db.commit(transaction).await, "commit after conflicts");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(stream.events.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2], "a refused append wrote something");
}

/// Every column survives; payloads byte for byte where nothing is upcast, metadata as JSON.
pub async fn everything_appended_is_read<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("columns \u{1f600} '\"\\");
    let full = new_event(1)
        .with_metadata(r#"{ "b": 1, "a": [null, "\u00e9"] }"#)
        .with_trace_id("trace")
        .with_correlation_id("correlation")
        .with_causation_id("it's \"quoted\"");
    let events = [full.clone(), new_event(2)];
    append(db, store, &aggregate, ExpectedVersion::NoStream, &events).await;
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(stream.aggregate, aggregate);
    let (read, bare) = (&stream.events[0], &stream.events[1]);
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    assert_eq!(read.aggregate, aggregate);
    assert_eq!(read.event_id, full.event_id);
    assert_eq!((read.stored_type.as_str(), read.stored_version.get()), (EVENT_TYPE, EVENT_VERSION));
    if read.event_version == read.stored_version {
        assert_eq!(read.payload, full.payload);
    } else {
        assert_eq!(json(&read.payload), json(&full.payload));
    }
    assert_eq!(read.metadata.as_deref().map(json), full.metadata.as_deref().map(json));
    assert_eq!((&read.trace_id, &read.correlation_id, &read.causation_id), (&full.trace_id, &full.correlation_id, &full.causation_id));
    assert_eq!(read.created_at, full.created_at, "times are kept in microseconds");
    assert!(bare.metadata.is_none() && bare.trace_id.is_none() && bare.correlation_id.is_none() && bare.causation_id.is_none());
    assert_eq!((read.part.index, read.part.count), (0, 1));
    assert!(read.redacted.is_empty());
}

/// Both bounds are inclusive, and empty ranges are empty streams.
pub async fn streams_have_inclusive_bounds<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("bounds");
    append(db, store, &aggregate, ExpectedVersion::NoStream, &new_events(1..6)).await;
    let mut transaction = must(db.begin().await, "begin");
    for (range, expected) in [
        ((..).into(), vec![1, 2, 3, 4, 5]),
        ((2..=4).into(), vec![2, 3, 4]),
        ((4..).into(), vec![4, 5]),
        ((..=2).into(), vec![1, 2]),
        ((3..=3).into(), vec![3]),
        ((0..=1).into(), vec![1]),
        ((6..).into(), vec![]),
        (VersionRange { from: Some(4), to: Some(2) }, vec![]),
    ] {
        let stream = must(store.read_aggregate_stream(db.tx(&mut transaction), &aggregate, range).await, "read");
        assert_eq!(stream.events.iter().map(number_of).collect::<Vec<_>>(), expected, "{range:?}");
        assert_eq!(stream.last_version.map(|version| version.get().unsigned_abs()), expected.last().copied());
    }
    let unknown = must(store.read_stream(db.tx(&mut transaction), &fresh("unknown")).await, "read");
    assert!(unknown.events.is_empty() && unknown.last_version.is_none());
}

/// Following the log in pages of any size sees everything once; filters and limits count stored events.
pub async fn the_log_is_read_in_pages<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let mut transaction = must(db.begin().await, "begin");
    let start = must(store.latest_global_position(db.tx(&mut transaction)).await, "latest position");
    drop(transaction);
    let (mine, other) = (fresh("pages"), aggregate("OtherConformance", fresh("pages").aggregate_id()));
    for number in 0..3 {
        append(db, store, &mine, ExpectedVersion::Any, &new_events(number * 2..number * 2 + 2)).await;
        append(db, store, &other, ExpectedVersion::Any, &new_events(100 + number..101 + number)).await;
    }
    let mut transaction = must(db.begin().await, "begin");
    for limit in [1, 2, 4, 9, 100] {
        let (mut after, mut seen) = (start, Vec::new());
        loop {
            let page = must(store.read_events(db.tx(&mut transaction), after, limit, &EventFilter::default()).await, "read");
            assert!(page.scanned <= limit && (page.next > after) == (page.scanned > 0), "a follower would stand still");
            assert!(page.events.iter().all(|event| event.global_position > after && event.global_position <= page.next));
            seen.extend(page.events.iter().map(number_of));
            after = page.next;
            if page.scanned < limit {
                break;
            }
        }
        assert_eq!(seen, [0, 1, 100, 2, 3, 101, 4, 5, 102], "pages of {limit}");
    }
    let filter = |types: &[&str], events: &[&str]| EventFilter {
        aggregate_types: types.iter().map(ToString::to_string).collect(),
        event_types: events.iter().map(ToString::to_string).collect(),
    };
    for (filter, expected) in [
        (filter(&["OtherConformance"], &[]), vec![100, 101, 102]),
        (filter(&["Conformance", "OtherConformance"], &[EVENT_TYPE]), vec![0, 1, 100, 2, 3, 101, 4, 5, 102]),
        (filter(&["Conformance' OR 1=1 --"], &[]), vec![]),
        (filter(&[], &["Unknown"]), vec![]),
    ] {
        let page = must(store.read_events(db.tx(&mut transaction), start, 100, &filter).await, "read");
        assert_eq!(page.events.iter().map(number_of).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(page.scanned as usize, expected.len());
    }
    let nothing = must(store.read_events(db.tx(&mut transaction), start, 0, &EventFilter::default()).await, "read");
    assert_eq!((nothing.events.len(), nothing.scanned, nothing.next), (0, 0, start));
    let latest = must(store.latest_global_position(db.tx(&mut transaction)).await, "latest position");
    let end = must(store.read_events(db.tx(&mut transaction), latest, 10, &EventFilter::default()).await, "read");
    assert_eq!((end.scanned, end.next), (0, latest), "after the end, next stays where it was");
    let beyond = must(GlobalPosition::try_from(i64::MAX), "a position");
    assert_eq!(must(store.read_events(db.tx(&mut transaction), beyond, 10, &EventFilter::default()).await, "read").scanned, 0);
}

/// Dropping a transaction forgets its appends, and the versions are given again.
pub async fn rolled_back_appends_leave_nothing<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("rollback");
    let events = new_events(0..2);
    let mut transaction = must(db.begin().await, "begin");
    must(store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &events).await, "append");
    drop(transaction);
    let appended = append(db, store, &aggregate, ExpectedVersion::NoStream, &events).await;
    assert_eq!(appended[0].aggregate_version, AggregateVersion::FIRST);
}

/// What must be refused is refused before anything is written.
pub async fn bad_appends_write_nothing<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let good = fresh("bad");
    let known = append(db, store, &good, ExpectedVersion::NoStream, &new_events(0..1)).await.remove(0);
    let twice = new_event(7);
    let changed = |change: &dyn Fn(&mut NewEvent)| {
        let mut event = new_event(1);
        change(&mut event);
        vec![new_event(0), event]
    };
    let mut transaction = must(db.begin().await, "begin");
    let mut cases: Vec<(AggregateRef, Vec<NewEvent>, &str)> = vec![
        (good.clone(), vec![], "EmptyAppend"),
        (aggregate("", "1"), new_events(0..1), "InvalidText"),
        (aggregate("A", ""), new_events(0..1), "InvalidText"),
        (aggregate("A\0", "1"), new_events(0..1), "InvalidText"),
        (aggregate("A", "1\0"), new_events(0..1), "InvalidText"),
        (good.clone(), vec![twice.clone(), twice], "DuplicateEventId"),
        (good.clone(), vec![new_event(0), new_event(1).with_id(known.event_id)], "DuplicateEventId"),
        (good.clone(), changed(&|event| event.event_type = "".into()), "InvalidText"),
        (good.clone(), changed(&|event| event.event_version = crate::EventVersion::new(0)), "OutOfRange"),
        (good.clone(), changed(&|event| event.event_version = crate::EventVersion::new(u32::MAX)), "OutOfRange"),
        (good.clone(), changed(&|event| event.created_at = time::Date::MIN.midnight().assume_utc()), "OutOfRange"),
        (good.clone(), changed(&|event| event.trace_id = Some("\0".into())), "InvalidText"),
        (good.clone(), changed(&|event| event.metadata = Some(b"{".to_vec())), "InvalidMetadata"),
    ];
    for (aggregate, events, expected) in cases.drain(..) {
        let refused = store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Any, &events).await;
        let kind = refused.map_or_else(|error| format!("{error:?}"), |_| "Ok".to_owned());
        assert!(kind.starts_with(expected), "expected {expected}, got {kind}");
    }
    must(
        store.append(db.tx(&mut transaction), &good, ExpectedVersion::Exact(AggregateVersion::FIRST), &new_events(1..2)).await,
        "append after refusals",
    );
    must(db.commit(transaction).await, "commit after refusals");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &good).await, "read");
    assert_eq!(stream.events.iter().map(number_of).collect::<Vec<_>>(), [0, 1]);
}

/// 2,000 events in one append have ascending versions and positions in the order in which they were passed.
pub async fn large_batches_keep_their_order<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("large");
    let appended = append(db, store, &aggregate, ExpectedVersion::NoStream, &new_events(0..2_000)).await;
    assert!(appended.is_sorted_by(|a, b| a.global_position < b.global_position && a.aggregate_version < b.aggregate_version));
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert!(stream.events.iter().map(number_of).eq(0..2_000));
}

/// Of two transactions that append to one aggregate at the same version, one commits.
pub async fn one_of_two_concurrent_appends_wins<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("race");
    let attempt = |number: u32| {
        let aggregate = &aggregate;
        async move {
            let mut transaction = db.begin().await?;
            store.append(db.tx(&mut transaction), aggregate, ExpectedVersion::NoStream, &new_events(number..number + 1)).await?;
            db.commit(transaction).await
        }
    };
    let (a, b) = super::key_store::join(attempt(1), attempt(2)).await;
    for lost in [&a, &b].into_iter().filter_map(|result| result.as_ref().err()) {
        assert!(lost.is_conflict() || lost.is_retryable(), "the loser must learn what happened: {lost:?}");
    }
    assert!(a.is_ok() != b.is_ok() || (a.is_err() && b.is_err()), "both appended at the same version");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(stream.events.len(), usize::from(a.is_ok()) + usize::from(b.is_ok()));
}
