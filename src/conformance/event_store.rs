//! The contract of an event store.

use crate::conformance::{Database, must, must_be_refused, same_bytes, same_json, text, until_idle};
use crate::error::{Error, EventFault, Result, TransactionFault};
use crate::event::{
    AggregateRef, AggregateVersion, EventFilter, ExpectedVersion, GlobalPosition, NewEvent, PersistedEvent,
    VersionRange, aggregate,
};
use crate::store::EventStore;
use crate::store::ext::EventStoreExt;
use serde_json::Value;
use uuid::Uuid;

/// The type of the events that the suite appends. Their payloads are objects with the members `number`
/// (an integer), `owner` (a string) and `text` (a string).
pub const EVENT_TYPE: &str = "ConformanceEvent";

/// The version of the events that the suite appends. A store may upcast them if their payloads stay equal as JSON.
pub const EVENT_VERSION: u32 = 1;

/// Runs the whole suite.
pub async fn event_store<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    appends_assign_versions_and_positions(db, store).await;
    expected_versions_are_checked(db, store).await;
    everything_appended_is_read(db, store).await;
    payloads_are_kept_as_they_are_spelled(db, store).await;
    uncommitted_appends_are_seen_by_nobody_else(db, store).await;
    streams_have_inclusive_bounds(db, store).await;
    the_log_is_read_in_pages(db, store).await;
    rolled_back_appends_leave_nothing(db, store).await;
    appends_need_a_transaction(db, store).await;
    bad_appends_write_nothing(db, store).await;
    large_batches_keep_their_order(db, store).await;
    one_of_two_concurrent_appends_wins(db, store).await;
    an_append_beside_one_that_is_not_committed_waits_or_loses(db, store).await;
}

fn new_event(number: u32) -> NewEvent {
    // No printer of JSON spells this like that, so the suite notices a store that prints payloads anew.
    let payload =
        format!("{{ \"text\":\"text {number} \\u00E9\u{1f600}\",\n \"owner\" :\"owner-1\",\"number\":  {number}}}");
    NewEvent::raw(EVENT_TYPE, EVENT_VERSION, payload)
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

/// Checks that versions begin with 1 and have no gaps, that positions ascend, and that the result holds the events as
/// passed, in their order.
pub async fn appends_assign_versions_and_positions<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("versions");
    let first = append(db, store, &aggregate, ExpectedVersion::NoStream, &new_events(0..3)).await;
    let mut transaction = must(db.begin().await, "begin");
    let more = new_events(3..5);
    let second = must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Any, &more).await,
        "append at any version",
    );
    for (appended, passed) in second.events.iter().zip(&more) {
        assert_eq!(
            appended.event_id, passed.event_id,
            "the result holds the events in the order in which they were passed"
        );
        same_bytes("the result holds payloads as they were passed", &appended.payload, passed.payload());
    }
    assert_eq!(second.last_version().get(), 5, "versions are consecutive, from 1 on");
    let ascend = second.events.is_sorted_by(|a, b| a.global_position < b.global_position);
    assert!(ascend, "positions ascend within and between appends");
    let within = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    let ascend = within.events.is_sorted_by(|a, b| a.aggregate_version < b.aggregate_version);
    assert!(ascend, "a stream's versions ascend");
    assert_eq!(within.last_version.map(AggregateVersion::get), Some(5), "a transaction sees what it appended");
    let latest = must(store.latest_global_position(db.tx(&mut transaction)).await, "latest position");
    assert_eq!(
        latest,
        second.last_position(),
        "the latest position is that of the last event visible to the transaction"
    );
    must(db.commit(transaction).await, "commit");
    let all: Vec<PersistedEvent> = first.into_iter().chain(second.events).collect();
    let consecutive = all.iter().zip(1..).all(|(event, version)| event.aggregate_version.get() == version);
    assert!(consecutive, "versions are consecutive, from 1 on");
    assert!(
        all.is_sorted_by(|a, b| a.global_position < b.global_position),
        "positions ascend within and between appends"
    );
}

/// Checks every mode of optimistic concurrency, and that a conflict leaves the transaction usable.
pub async fn expected_versions_are_checked<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("expected");
    let version = |number: i64| must(AggregateVersion::try_from(number), "a version");
    let mut transaction = must(db.begin().await, "begin");
    let conflict =
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Exact(version(1)), &new_events(0..1)).await;
    assert!(
        matches!(conflict, Err(Error::VersionConflict { actual: None, .. })),
        "the expected version is checked against the aggregate's last event: {conflict:?}"
    );
    must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &new_events(0..2)).await,
        "append after a conflict, which writes nothing and leaves the transaction usable,",
    );
    for wrong in [ExpectedVersion::NoStream, ExpectedVersion::Exact(version(1)), ExpectedVersion::Exact(version(3))] {
        let conflict = store.append(db.tx(&mut transaction), &aggregate, wrong, &new_events(9..10)).await;
        assert!(
            matches!(
                &conflict,
                Err(error @ Error::VersionConflict { actual, .. })
                    if error.is_conflict() && !error.is_retryable() && *actual == Some(version(2))
            ),
            "the expected version is checked against the aggregate's last event: {wrong} gave {conflict:?}"
        );
    }
    must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Exact(version(2)), &new_events(2..3)).await,
        "append at the right version",
    );
    must(db.commit(transaction).await, "commit after conflicts");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(stream.events.iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2], "a refused append writes nothing");
}

/// Checks that every column is read as it was appended: payloads byte for byte unless they were upcast, metadata as
/// JSON.
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
    assert_eq!(read.event_id, full.event_id, "event ids are kept");
    assert_eq!((read.stored_type.as_str(), read.stored_version.get()), (EVENT_TYPE, EVENT_VERSION));
    same_payload(db, read, full.payload());
    assert_eq!(read.metadata.as_deref().map(json), full.metadata.as_deref().map(json), "metadata is kept as JSON");
    let ids = (&read.trace_id, &read.correlation_id, &read.causation_id);
    assert_eq!(
        ids,
        (&full.trace_id, &full.correlation_id, &full.causation_id),
        "trace, correlation and causation ids are kept"
    );
    assert_eq!(read.created_at, full.created_at, "times are kept in microseconds");
    let nothing = bare.metadata.is_none()
        && bare.trace_id.is_none()
        && bare.correlation_id.is_none()
        && bare.causation_id.is_none();
    assert!(nothing, "what was not given is not there");
    assert_eq!((read.part.index, read.part.count), (0, 1));
    assert!(read.redacted.is_empty());
}

/// Is a payload what was appended? Byte for byte, unless it was upcast, or the database prints JSON anew and says so.
fn same_payload<D: Database>(db: &D, read: &PersistedEvent, appended: &[u8]) {
    const RULE: &str = "payloads are kept byte for byte";
    if read.event_version == read.stored_version && !db.respells_json() {
        return same_bytes(RULE, &read.payload, appended);
    }
    let equal = match (serde_json::from_slice(&read.payload), serde_json::from_slice(appended)) {
        (Ok(read), Ok(appended)) => same_json(&read, &appended),
        _ => read.payload == appended,
    };
    assert!(equal, "payloads stay equal as JSON: {} was appended, {} is read", text(appended), text(&read.payload));
}

/// Checks that white space, spellings of numbers, the order of members, members that come twice, escapes and bytes that
/// are not JSON are kept as they are, or are refused at append. A store may refuse a payload that it can't keep. It may
/// not change one.
///
/// If [`respells_json`](Database::respells_json) is `true`, only the value of JSON has to be kept, and the last of
/// members that come twice.
pub async fn payloads_are_kept_as_they_are_spelled<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let (first, second) = (r#""owner":"owner-1","text":"text 7""#, r#""number":1"#);
    let payloads: [Vec<u8>; 7] = [
        format!("\r\n\t {{ {first} ,\t{second} }} \n").into(),
        format!(r#"{{"number":1.50E+02,"small":1e-7,"zero":-0.0,{first}}}"#).into(),
        format!(r#"{{"zz":1,"a":2,{second},"$":[],{first}}}"#).into(),
        format!(r#"{{{second},{first},"escapes":"\u0041\/\u00e9\ud83d\ude00 é"}}"#).into(),
        format!(r#"{{{second},{first},"twice":1,"twice":2}}"#).into(),
        br#"{"number":1,"text": "text "#.to_vec(),
        b"\x00\xff text that is no JSON".to_vec(),
    ];
    for (index, payload) in payloads.iter().enumerate() {
        let aggregate = fresh("spelling");
        let mut transaction = must(db.begin().await, "begin");
        let event = NewEvent::raw(EVENT_TYPE, EVENT_VERSION, payload.clone());
        let appended = store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::Any, &[event]).await;
        match appended {
            Ok(_) => must(db.commit(transaction).await, "commit"),
            // Every store must hold the first four, which are plain JSON.
            Err(error) if index < 4 => {
                panic!("payloads are kept byte for byte: {} was refused: {error}", text(payload))
            }
            Err(_) => continue,
        }
        let mut transaction = must(db.begin().await, "begin");
        let stream = store.read_stream(db.tx(&mut transaction), &aggregate).await;
        let stream = match stream {
            Ok(stream) => stream,
            // A store that upcasts has to read payloads, and some of these can't be read.
            Err(_) if index >= 4 => continue,
            Err(error) => panic!("payloads are kept byte for byte: {} can't be read again: {error}", text(payload)),
        };
        same_payload(db, &stream.events[0], payload);
    }
}

/// Checks that others see the events of a transaction once it is committed, and not before.
pub async fn uncommitted_appends_are_seen_by_nobody_else<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    const RULE: &str = "what was appended is visible to others once the caller commits, and not before";
    let aggregate = fresh("uncommitted");
    let mut other = must(db.connect().await, "connect");
    let mut transaction = must(db.begin().await, "begin");
    must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &new_events(0..1)).await,
        "append",
    );
    let seen = must(store.read_stream(db.connection(&mut other), &aggregate).await, "read").events.len();
    assert_eq!(seen, 0, "{RULE}");
    must(db.commit(transaction).await, "commit");
    let mut other = must(db.connect().await, "connect");
    let seen = must(store.read_stream(db.connection(&mut other), &aggregate).await, "read").events.len();
    assert_eq!(seen, 1, "{RULE}");
}

/// Checks that both bounds of a range are inclusive, and that an empty range is an empty stream.
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
        assert_eq!(
            stream.events.iter().map(number_of).collect::<Vec<_>>(),
            expected,
            "bounds are inclusive, versions ascend: {range:?}"
        );
        assert_eq!(stream.last_version.map(|version| version.get().unsigned_abs()), expected.last().copied());
    }
    let unknown = must(store.read_stream(db.tx(&mut transaction), &fresh("unknown")).await, "read");
    assert!(
        unknown.events.is_empty() && unknown.last_version.is_none(),
        "an aggregate without events is an empty stream"
    );
}

/// Checks that a reader of the log sees every event once, with pages of any size, and that filters and limits count
/// stored events.
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
            let page =
                must(store.read_events(db.tx(&mut transaction), after, limit, &EventFilter::default()).await, "read");
            let within =
                page.events.iter().all(|event| event.global_position > after && event.global_position <= page.next);
            assert!(within, "a page begins after the position it was asked for, and ends at `next`");
            assert_eq!(page.scanned as usize, page.events.len(), "`scanned` counts the stored events that match");
            assert!(page.scanned <= limit, "a page holds no more than its limit");
            assert_eq!(page.next > after, page.scanned > 0, "a follower would stand still");
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
        assert_eq!(
            page.events.iter().map(number_of).collect::<Vec<_>>(),
            expected,
            "a filter lets its types through: {filter:?}"
        );
        assert_eq!(page.scanned as usize, expected.len(), "`scanned` counts the stored events that match");
    }
    let nothing = must(store.read_events(db.tx(&mut transaction), start, 0, &EventFilter::default()).await, "read");
    assert_eq!((nothing.events.len(), nothing.scanned, nothing.next), (0, 0, start), "a limit of 0 scans nothing");
    let latest = must(store.latest_global_position(db.tx(&mut transaction)).await, "latest position");
    let end = must(store.read_events(db.tx(&mut transaction), latest, 10, &EventFilter::default()).await, "read");
    assert_eq!((end.scanned, end.next), (0, latest), "after the end, next stays where it was");
    let beyond = must(GlobalPosition::try_from(i64::MAX), "a position");
    assert_eq!(
        must(store.read_events(db.tx(&mut transaction), beyond, 10, &EventFilter::default()).await, "read").scanned,
        0
    );
}

/// Checks that dropping a transaction forgets its appends, and that their versions are assigned again.
pub async fn rolled_back_appends_leave_nothing<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("rollback");
    let events = new_events(0..2);
    let mut transaction = must(db.begin().await, "begin");
    must(store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &events).await, "append");
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let left = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read").events.len();
    assert_eq!(left, 0, "a transaction that was rolled back leaves nothing");
    drop(transaction);
    let appended = append(db, store, &aggregate, ExpectedVersion::NoStream, &events).await;
    assert_eq!(
        appended[0].aggregate_version,
        AggregateVersion::FIRST,
        "versions of a transaction that was rolled back are given again"
    );
}

/// Checks that an append on a connection that is not in a transaction is refused. The database in memory has no such
/// connections: it must forget the append when the connection is dropped.
pub async fn appends_need_a_transaction<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("outside");
    let mut outside = must(db.connect().await, "connect");
    let refused = store.append(db.connection(&mut outside), &aggregate, ExpectedVersion::Any, &new_events(0..1)).await;
    drop(outside);
    let is_refused = matches!(refused, Ok(_) | Err(Error::Transaction(TransactionFault::NotInTransaction { .. })));
    assert!(is_refused, "an append outside of a transaction is refused with NotInTransaction, not {refused:?}");
    let mut transaction = must(db.begin().await, "begin");
    let left = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read").events.len();
    assert_eq!(left, 0, "an append outside of a transaction is refused");
}

/// Checks that bad appends are refused before anything is written.
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
        must_be_refused(refused, expected, "what must be refused is refused");
    }
    // A store without schemas does not know where to write the subject down; one with schemas may refuse the kind.
    let unwritten = [new_event(1).for_subject(crate::KeyScope::new("Customer", "1"))];
    let refused = store.append(db.tx(&mut transaction), &good, ExpectedVersion::Any, &unwritten).await;
    let is_refused = matches!(
        refused,
        Err(Error::Event { fault: EventFault::SubjectNotWritten | EventFault::NotFromCaller { .. }, .. })
    );
    assert!(is_refused, "a subject that is not written down is refused, and not forgotten: {refused:?}");
    must(
        store
            .append(db.tx(&mut transaction), &good, ExpectedVersion::Exact(AggregateVersion::FIRST), &new_events(1..2))
            .await,
        "append after refusals",
    );
    must(db.commit(transaction).await, "commit after refusals");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &good).await, "read");
    assert_eq!(stream.events.iter().map(number_of).collect::<Vec<_>>(), [0, 1], "a refused append writes nothing");
}

/// Checks that 2,000 events in one append have ascending versions and positions, in the order in which they were
/// passed.
pub async fn large_batches_keep_their_order<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("large");
    let appended = append(db, store, &aggregate, ExpectedVersion::NoStream, &new_events(0..2_000)).await;
    assert!(
        appended
            .is_sorted_by(|a, b| a.global_position < b.global_position && a.aggregate_version < b.aggregate_version)
    );
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert!(stream.events.iter().map(number_of).eq(0..2_000));
}

/// Checks that exactly one of two transactions commits that append to one aggregate at the same version.
pub async fn one_of_two_concurrent_appends_wins<D: Database, S: EventStore<Tx = D::Tx>>(db: &D, store: &S) {
    let aggregate = fresh("race");
    let (a, b) =
        super::key_store::join(begin_the_stream(db, store, &aggregate, 1), begin_the_stream(db, store, &aggregate, 2))
            .await;
    for lost in [&a, &b].into_iter().filter_map(|result| result.as_ref().err()) {
        assert!(lost.is_conflict() || lost.is_retryable(), "the loser must learn what happened: {lost:?}");
    }
    assert!(a.is_ok() != b.is_ok() || (a.is_err() && b.is_err()), "both appended at the same version");
    let mut transaction = must(db.begin().await, "begin");
    let stream = must(store.read_stream(db.tx(&mut transaction), &aggregate).await, "read");
    assert_eq!(stream.events.len(), usize::from(a.is_ok()) + usize::from(b.is_ok()));
}

async fn begin_the_stream<D: Database, S: EventStore<Tx = D::Tx>>(
    db: &D,
    store: &S,
    aggregate: &AggregateRef,
    number: u32,
) -> Result<()> {
    let mut transaction = db.begin().await?;
    store
        .append(db.tx(&mut transaction), aggregate, ExpectedVersion::NoStream, &new_events(number..number + 1))
        .await?;
    db.commit(transaction).await
}

/// Checks an append at a version that another open transaction has taken. That one may still roll back. So the second
/// append has to wait, or one of the two transactions has to fail at its commit.
pub async fn an_append_beside_one_that_is_not_committed_waits_or_loses<D: Database, S: EventStore<Tx = D::Tx>>(
    db: &D,
    store: &S,
) {
    let aggregate = fresh("beside");
    let mut transaction = must(db.begin().await, "begin");
    must(
        store.append(db.tx(&mut transaction), &aggregate, ExpectedVersion::NoStream, &new_events(1..2)).await,
        "append",
    );
    let mut second = Box::pin(begin_the_stream(db, store, &aggregate, 2));
    let ended = until_idle(second.as_mut()).await;
    let first = db.commit(transaction).await;
    let second = match ended {
        Some(ended) => ended,
        None => second.await,
    };
    for lost in [&first, &second].into_iter().filter_map(|result| result.as_ref().err()) {
        assert!(lost.is_conflict() || lost.is_retryable(), "the loser must learn what happened: {lost:?}");
    }
    assert!(first.is_err() || second.is_err(), "both appended at the same version");
    assert!(first.is_ok() || second.is_ok(), "of two appends at the same version one wins");
}
