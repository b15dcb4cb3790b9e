//! The contract of the rows of an event store.

use crate::conformance::seal_index::an_index_of_seals_leads_from_keys_to_events;
use crate::conformance::{Database, must, must_be_refused, same_json, text, until_idle};
use crate::error::{Error, KeyFault, Result, TransactionFault};
use crate::event::{
    AggregateVersion, EventFilter, EventVersion, ExpectedVersion, GlobalPosition, NewEvent, Part, PersistedEvent,
    aggregate, now,
};
use crate::store::{
    EventStore, EventTable, MetadataReplacement, PayloadReplacement, PositionRange, StoredQuery, TableWork,
};
use async_trait::async_trait;
use std::time::Duration;
use uuid::Uuid;

/// Runs the whole suite. The tables must be empty, and the store must not be wrapped in a `SealedStore`.
pub async fn event_table<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    a_table_is_where_it_is(db, store).await;
    stored_events_are_counted_and_read(db, store).await;
    work_is_committed_or_forgotten(db, store).await;
    payloads_are_replaced_while_they_are_what_was_read(db, store).await;
    events_are_inserted_as_they_are(db, store).await;
    nothing_is_inserted_where_it_does_not_belong(db, store).await;
    an_index_of_seals_leads_from_keys_to_events(db, store).await;
}

const SEALED: &str = r#"{"$seal":"AQEAexample","a":1}"#;
const NESTED: &str = r#"{"inner":{"$seal":"AQEAexample"},"text":"\"$seal\":\"AQEA"}"#;

fn position(number: i64) -> GlobalPosition {
    must(GlobalPosition::try_from(number), "a position")
}

fn version(number: u32) -> EventVersion {
    EventVersion::new(number)
}

/// An event with a value in every optional column.
fn stored(number: i64, id: &str, aggregate_version: i64, payload: &[u8]) -> PersistedEvent {
    let event = NewEvent::raw("Inserted", 3, payload)
        .with_metadata(r#"{"a":[1,null,"\u00e9"]}"#)
        .with_trace_id("trace")
        .with_correlation_id("correlation")
        .with_causation_id("it's \"quoted\"")
        .with_created_at(now() - Duration::from_secs(86_400));
    let aggregate_version = must(AggregateVersion::try_from(aggregate_version), "a version");
    PersistedEvent::from_new(aggregate("Inserted \u{1f600}", id), aggregate_version, position(number), event)
}

/// Checks that every connection gives the table the same location.
async fn a_table_is_where_it_is<D: Database, S: EventTable<Tx = D::Tx>>(db: &D, store: &S) {
    let (mut one, mut other) = (must(db.connect().await, "connect"), must(db.connect().await, "connect"));
    let first = must(store.location(db.connection(&mut one)).await, "location");
    let second = must(store.location(db.connection(&mut other)).await, "location");
    assert_eq!(first, second, "two connections to one database say that the table is in two places");
}

enum Does<'w> {
    Replace(&'w [PayloadReplacement]),
    Insert(&'w [PersistedEvent]),
}

/// Makes one call in a transaction. Then it succeeds, fails or never ends, as it is told.
struct Work<'w, S> {
    store: &'w S,
    does: Does<'w>,
    replaced: Vec<GlobalPosition>,
    fails: bool,
    hangs: bool,
}

#[async_trait]
impl<S: EventTable> TableWork<S::Tx> for Work<'_, S> {
    async fn run(&mut self, tx: &mut S::Tx) -> Result<()> {
        match self.does {
            Does::Replace(replacements) => self.replaced = self.store.replace_payloads(tx, replacements).await?,
            Does::Insert(events) => self.store.insert_events(tx, events).await?,
        }
        if self.hangs {
            std::future::pending::<()>().await;
        }
        if self.fails { Err(Error::Keys(KeyFault::Cryptography)) } else { Ok(()) }
    }
}

async fn work<D: Database, S: EventTable<Tx = D::Tx>>(
    db: &D,
    store: &S,
    does: Does<'_>,
    fails: bool,
) -> Result<Vec<GlobalPosition>> {
    let mut work = Work { store, does, replaced: Vec::new(), fails, hangs: false };
    let mut connection = must(db.connect().await, "connect");
    store.in_transaction(db.connection(&mut connection), &mut work).await?;
    // The transaction is committed when the call returns, and the connection can be used again.
    must(store.count_events(db.connection(&mut connection), PositionRange::default()).await, "count");
    Ok(work.replaced)
}

async fn append<D: Database, S: EventStore<Tx = D::Tx>>(
    db: &D,
    store: &S,
    id: &str,
    events: &[NewEvent],
) -> Vec<PersistedEvent> {
    let mut transaction = must(db.begin().await, "begin");
    let appended = store.append(db.tx(&mut transaction), &aggregate("Table", id), ExpectedVersion::Any, events).await;
    must(db.commit(transaction).await, "commit");
    must(appended, "append").events
}

async fn all<D: Database, S: EventTable<Tx = D::Tx>>(db: &D, store: &S) -> Vec<PersistedEvent> {
    let mut connection = must(db.connect().await, "connect");
    let query = StoredQuery { limit: 100_000, ..StoredQuery::default() };
    must(store.stored_events(db.connection(&mut connection), &query).await, "read")
}

/// Checks counts by type, version and header, pages by range, version and header, and that events are read as they are
/// stored.
pub async fn stored_events_are_counted_and_read<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let payloads = [
        ("A", 1, NESTED),
        ("A", 1, SEALED),
        ("A", 2, " \n{ \"$seal\" : \"AQ\"}"),
        ("B", 1, either(db, "\u{0}not json", r#"{"$seal":{"a":1}}"#)),
        ("A", 1, either(db, "", r#"["$seal"]"#)),
        ("A", 1, SEALED),
    ];
    let events: Vec<NewEvent> = payloads.map(|(name, version, payload)| NewEvent::raw(name, version, payload)).to_vec();
    let appended = append(db, store, "read", &events).await;
    let as_stored = all(db, store).await;
    assert_eq!(as_stored.len(), appended.len(), "a query gives what it asks for: all events");
    let ascend = as_stored.is_sorted_by(|a, b| a.global_position < b.global_position);
    assert!(ascend, "stored events come in ascending order of position");
    for (stored, appended) in as_stored.iter().zip(&appended) {
        same_but_payload("events are read as they are stored", stored, appended);
        same_payload(db, "payloads are read as they are stored", &stored.payload, &appended.payload);
    }
    // A database that prints JSON anew has these payloads.
    let appended = as_stored;
    let mut connection = must(db.connect().await, "connect");
    let connection = db.connection(&mut connection);
    let (first, last) = (appended[0].global_position, appended[5].global_position);
    counts(store, connection, &appended).await;
    pages(store, connection, &appended).await;
    let at = [last, first, last, position(i64::MAX)];
    let found = must(store.stored_events_at(connection, &at).await, "read");
    assert!(
        found == [appended[0].clone(), appended[5].clone()],
        "events at positions come in ascending order, each once"
    );
    assert_eq!(
        must(store.last_position(connection).await, "last"),
        last,
        "the last position is that of the last event"
    );
    assert_eq!(
        must(store.settled_position(connection).await, "settled"),
        last,
        "all is settled where nothing is in flight"
    );
}

/// Checks the counts of the events that [`stored_events_are_counted_and_read`] appends.
async fn counts<S: EventTable>(store: &S, connection: &mut S::Tx, appended: &[PersistedEvent]) {
    let (first, last) = (appended[0].global_position, appended[5].global_position);
    for (range, expected) in [
        (
            PositionRange::default(),
            vec![("A", 1, false, 2, 0, 4), ("A", 1, true, 2, 1, 5), ("A", 2, true, 1, 2, 2), ("B", 1, false, 1, 3, 3)],
        ),
        (
            PositionRange { after: first, up_to: Some(appended[3].global_position) },
            vec![("A", 1, true, 1, 1, 1), ("A", 2, true, 1, 2, 2), ("B", 1, false, 1, 3, 3)],
        ),
        (PositionRange { after: last, up_to: None }, vec![]),
    ] {
        let mut counts = must(store.count_events(connection, range).await, "count");
        counts.sort_by(|a, b| {
            (&a.event_type, a.event_version, a.with_header).cmp(&(&b.event_type, b.event_version, b.with_header))
        });
        let found: Vec<_> = counts
            .iter()
            .map(|count| (count.event_type.as_str(), count.event_version.get(), count.with_header, count.events))
            .collect();
        assert_eq!(
            found,
            expected.iter().map(|expected| (expected.0, expected.1, expected.2, expected.3)).collect::<Vec<_>>(),
            "events are counted by type, version and header: {range:?}"
        );
        for (count, expected) in counts.iter().zip(&expected) {
            let (from, to): (&PersistedEvent, &PersistedEvent) = (&appended[expected.4], &appended[expected.5]);
            assert_eq!(count.positions, (from.global_position, to.global_position));
            assert_eq!(count.created_at, (from.created_at.min(to.created_at), from.created_at.max(to.created_at)));
        }
    }
}

/// Checks pages of the events that [`stored_events_are_counted_and_read`] appends.
async fn pages<S: EventTable>(store: &S, connection: &mut S::Tx, appended: &[PersistedEvent]) {
    let first = appended[0].global_position;
    let two = (appended[0].payload.len() + appended[1].payload.len()) as u64;
    let of =
        |versions: &[(&str, u32)]| versions.iter().map(|(name, number)| ((*name).into(), version(*number))).collect();
    for (query, expected) in [
        (StoredQuery::default(), vec![0, 1, 2, 3, 4, 5]),
        (StoredQuery { limit: 2, ..StoredQuery::default() }, vec![0, 1]),
        (StoredQuery { limit: 0, ..StoredQuery::default() }, vec![]),
        (StoredQuery { max_bytes: 0, ..StoredQuery::default() }, vec![0]),
        (StoredQuery { max_bytes: two, ..StoredQuery::default() }, vec![0, 1]),
        (StoredQuery { max_bytes: two - 1, ..StoredQuery::default() }, vec![0]),
        (StoredQuery { max_bytes: two, limit: 1, ..StoredQuery::default() }, vec![0]),
        (StoredQuery { max_bytes: two, without_header: true, ..StoredQuery::default() }, vec![0, 3, 4]),
        (StoredQuery { max_bytes: u64::MAX, ..StoredQuery::default() }, vec![0, 1, 2, 3, 4, 5]),
        (StoredQuery { without_header: true, ..StoredQuery::default() }, vec![0, 3, 4]),
        (StoredQuery { versions: of(&[("A", 1), ("B", 2)]), ..StoredQuery::default() }, vec![0, 1, 4, 5]),
        (StoredQuery { versions: of(&[("A", 2), ("B", 1)]), without_header: true, ..StoredQuery::default() }, vec![3]),
        (StoredQuery { versions: of(&[("A' OR 1=1 --", 1)]), ..StoredQuery::default() }, vec![]),
        (
            StoredQuery {
                range: PositionRange { after: first, up_to: Some(appended[4].global_position) },
                ..StoredQuery::default()
            },
            vec![1, 2, 3, 4],
        ),
    ] {
        let found = must(store.stored_events(connection, &query).await, "read");
        assert_eq!(found.len(), expected.len(), "a query gives what it asks for: {query:?}");
        assert!(
            found.iter().zip(&expected).all(|(found, index)| found == &appended[*index]),
            "a query gives what it asks for: {query:?}"
        );
    }
}

fn empty<D: Database>(db: &D) -> &'static [u8] {
    if db.respells_json() { b"{}" } else { b"" }
}

/// Chooses the payload for a store of bytes, or the one for a store that holds JSON only.
fn either<'p, D: Database>(db: &D, bytes: &'p str, json: &'p str) -> &'p str {
    if db.respells_json() { json } else { bytes }
}

/// Compares payloads byte for byte, or as JSON if the database prints it anew.
fn same_payload<D: Database>(db: &D, rule: &str, found: &[u8], expected: &[u8]) {
    let equal = match (serde_json::from_slice(found), serde_json::from_slice(expected)) {
        (Ok(found), Ok(expected)) if db.respells_json() => same_json(&found, &expected),
        _ => found == expected,
    };
    assert!(equal, "{rule}: {} was expected, {} is there", text(expected), text(found));
}

/// Compares everything but the payload. Metadata is compared as JSON.
fn same_but_payload(rule: &str, found: &PersistedEvent, expected: &PersistedEvent) {
    let json = |bytes: &Vec<u8>| serde_json::from_slice::<serde_json::Value>(bytes).unwrap_or_default();
    assert_eq!(found.metadata.as_ref().map(json), expected.metadata.as_ref().map(json), "metadata is kept as JSON");
    let found =
        PersistedEvent { payload: expected.payload.clone(), metadata: expected.metadata.clone(), ..found.clone() };
    assert!(found == *expected, "{rule}: {found:?} is not {expected:?}");
}

/// Checks that work that succeeds is committed, and that work that fails or is dropped in the middle leaves nothing.
pub async fn work_is_committed_or_forgotten<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let appended = append(db, store, "work", &[NewEvent::raw("Work", 1, "{}")]).await.remove(0);
    let change = |old: &str, new: &str| PayloadReplacement {
        position: appended.global_position,
        event_id: appended.event_id,
        old: old.into(),
        new: new.into(),
        metadata: None,
    };
    let changes = [change("{}", "{\"a\":1}")];
    let payload = || async {
        all(db, store).await.into_iter().find(|event| event.event_id == appended.event_id).map(|event| event.payload)
    };
    let failed = work(db, store, Does::Replace(&changes), true).await;
    assert!(matches!(failed, Err(Error::Keys(KeyFault::Cryptography))), "the work's own error comes back: {failed:?}");
    assert_eq!(payload().await.as_deref(), Some(&b"{}"[..]), "what failed left something");
    {
        let mut hanging =
            Work { store, does: Does::Replace(&changes), replaced: Vec::new(), fails: false, hangs: true };
        let mut connection = must(db.connect().await, "connect");
        let hangs = store.in_transaction(db.connection(&mut connection), &mut hanging);
        // The future is dropped after the work was done, before the transaction ends.
        let reached = until_idle(std::pin::pin!(hangs)).await;
        assert!(reached.is_none(), "a transaction ended before its work did");
        assert_eq!(hanging.replaced.len(), 1, "the work was not done");
    }
    assert_eq!(payload().await.as_deref(), Some(&b"{}"[..]), "what was dropped left something");
    assert_eq!(must(work(db, store, Does::Replace(&changes), false).await, "replace"), [appended.global_position]);
    same_payload(db, "what succeeds is committed", &payload().await.unwrap_or_default(), b"{\"a\":1}");

    let mut transaction = must(db.begin().await, "begin");
    must(
        store
            .append(
                db.tx(&mut transaction),
                &aggregate("Table", "open"),
                ExpectedVersion::Any,
                &[NewEvent::raw("Work", 1, "{}")],
            )
            .await,
        "append",
    );
    let mut nothing = Work { store, does: Does::Replace(&[]), replaced: Vec::new(), fails: false, hangs: false };
    let refused = store.in_transaction(db.tx(&mut transaction), &mut nothing).await;
    assert!(
        matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))),
        "a connection in a transaction is refused: {refused:?}"
    );
    let refused = store.settled_position(db.tx(&mut transaction)).await;
    assert!(
        matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))),
        "a connection in a transaction is refused: {refused:?}"
    );
}

/// Checks that a payload and metadata are replaced only if position, id, payload and metadata are those that were read
/// (compare and swap).
pub async fn payloads_are_replaced_while_they_are_what_was_read<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let events: Vec<NewEvent> = (0..6)
        .map(|number| NewEvent::raw("Swap", 1, format!("{{\"n\":{number}}}")).with_metadata("{\"m\":1}"))
        .collect();
    let before = append(db, store, "swap", &events).await;
    let (odd, empty) = (either(db, "\u{0}\u{1f600} not json", "\"\u{1f600}\""), either(db, "", "[]"));
    let change = |index: usize, new: &str| PayloadReplacement {
        position: before[index].global_position,
        event_id: before[index].event_id,
        old: before[index].payload.clone(),
        new: new.into(),
        metadata: None,
    };
    let read = before[0].metadata.clone().unwrap_or_default();
    let metadata = |old: &[u8]| Some(MetadataReplacement { old: old.to_vec(), new: b"{\"m\":2}".to_vec() });
    let changes = [
        change(3, odd),
        PayloadReplacement { metadata: metadata(b"{\"m\":7}"), ..change(4, "\"lost\"") },
        PayloadReplacement { old: b"{\"n\":7}".to_vec(), metadata: metadata(&read), ..change(1, "\"lost\"") },
        PayloadReplacement { event_id: Uuid::now_v7(), metadata: metadata(&read), ..change(2, "\"lost\"") },
        // Only the metadata changes.
        PayloadReplacement { new: before[5].payload.clone(), metadata: metadata(&read), ..change(5, "") },
        PayloadReplacement { metadata: metadata(&read), ..change(0, empty) },
    ];
    let mut replaced = must(work(db, store, Does::Replace(&changes), false).await, "replace");
    replaced.sort_unstable();
    let fitting = [before[0].global_position, before[3].global_position, before[5].global_position];
    assert_eq!(replaced, fitting, "a payload is exchanged only while it is what was read");
    let again = must(work(db, store, Does::Replace(&changes), false).await, "replace");
    assert_eq!(again, [], "what was exchanged is no longer what was read");
    let positions: Vec<GlobalPosition> = before.iter().map(|event| event.global_position).collect();
    let mut connection = must(db.connect().await, "connect");
    let after = must(store.stored_events_at(db.connection(&mut connection), &positions).await, "read");
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let payload = match index {
            0 => empty.as_bytes(),
            3 => odd.as_bytes(),
            _ => &before.payload,
        };
        same_payload(db, "nothing but the payload and the metadata changes", &after.payload, payload);
        let metadata = if [0, 5].contains(&index) { Some(b"{\"m\":2}".to_vec()) } else { before.metadata.clone() };
        let expected = PersistedEvent { metadata, ..before.clone() };
        same_but_payload("nothing but the payload and the metadata changes", after, &expected);
    }
    let forgery = change(1, "\"forged\"");
    let mut outside = must(db.connect().await, "connect");
    let refused = store.replace_payloads(db.connection(&mut outside), std::slice::from_ref(&forgery)).await;
    drop(outside);
    // The database in memory has no connections outside of transactions. It forgets a connection's changes when the
    // connection is dropped.
    let is_refused = matches!(&refused, Err(Error::Transaction(TransactionFault::NotInTransaction { .. })))
        || refused.as_ref().is_ok_and(|done| *done == [forgery.position]);
    assert!(is_refused, "payloads are replaced in a transaction only: {refused:?}");
    let left = must(store.stored_events_at(db.connection(&mut connection), &[forgery.position]).await, "read");
    assert!(left == after[1..2], "payloads are replaced in a transaction only");
}

/// Checks that inserted events keep their positions (with gaps), versions, ids, times and everything else, and that the
/// next append goes on after them.
pub async fn events_are_inserted_as_they_are<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let last = all(db, store).await.last().map_or(0, |event| event.global_position.get());
    let bytes: &[u8] = if db.respells_json() { b"[]" } else { b"\x00\xff not even text" };
    let mut bare = stored(last + 40, "b", 1, bytes);
    (bare.metadata, bare.trace_id, bare.correlation_id, bare.causation_id) = (None, None, None, None);
    bare.stored_version = version(0);
    bare.event_version = version(0);
    let events = [
        stored(last + 5, "a", 1, b"{}"),
        stored(last + 9, "a", 2, SEALED.as_bytes()),
        bare,
        stored(last + 1_000, "a", 3, empty(db)),
    ];
    let mut outside = must(db.connect().await, "connect");
    let refused = store.insert_events(db.connection(&mut outside), &events).await;
    drop(outside);
    // The database in memory forgets this with the connection, as it does replaced payloads.
    assert!(
        matches!(refused, Ok(()) | Err(Error::Transaction(TransactionFault::NotInTransaction { .. }))),
        "events are inserted in a transaction only: {refused:?}"
    );
    let end = all(db, store).await.last().map_or(0, |event| event.global_position.get());
    assert_eq!(end, last, "events are inserted in a transaction only");
    let forgotten = work(db, store, Does::Insert(&events), true).await;
    assert!(forgotten.is_err() && all(db, store).await.last().is_none_or(|event| event.global_position.get() == last));
    must(work(db, store, Does::Insert(&events), false).await, "insert");
    let found = all(db, store).await;
    for (found, expected) in found[found.len() - 4..].iter().zip(&events) {
        same_payload(db, "events are inserted as they are", &found.payload, &expected.payload);
        same_but_payload("events are inserted as they are", found, expected);
        assert!(found.part == Part::WHOLE, "{found:?} is not {expected:?}");
    }
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let expected = ExpectedVersion::Exact(must(AggregateVersion::try_from(3), "a version"));
    let more = store.append(tx, &events[0].aggregate, expected, &[NewEvent::raw("Inserted", 3, "{}")]).await;
    let more = must(more, "append after inserts").events.remove(0);
    assert_eq!(more.aggregate_version.get(), 4);
    assert!(more.global_position.get() > last + 1_000, "positions go on after those that were inserted");
    let page = must(store.read_events(tx, position(last + 9), 2, &EventFilter::default()).await, "read");
    assert_eq!(
        page.events.iter().map(|event| event.global_position.get()).collect::<Vec<_>>(),
        [last + 40, last + 1_000]
    );
    assert_eq!(must(store.latest_global_position(tx).await, "latest"), more.global_position);
    must(db.commit(transaction).await, "commit");
}

/// Checks that positions that are not after all others, and ids that the table has, are refused.
pub async fn nothing_is_inserted_where_it_does_not_belong<D, S>(db: &D, store: &S)
where
    D: Database,
    S: EventStore<Tx = D::Tx> + EventTable<Tx = D::Tx>,
{
    let known = append(db, store, "place", &[NewEvent::raw("Place", 1, "{}")]).await.remove(0);
    let last = known.global_position.get();
    let before = all(db, store).await;
    let with_id = |mut event: PersistedEvent, id: Uuid| {
        event.event_id = id;
        event
    };
    let twice = stored(last + 2, "p", 2, empty(db));
    for (events, expected) in [
        (vec![stored(last, "p", 1, empty(db))], "OutOfRange"),
        (vec![stored(last + 2, "p", 1, empty(db)), stored(last + 1, "p", 2, empty(db))], "OutOfRange"),
        (
            vec![stored(last + 1, "p", 1, empty(db)), with_id(stored(last + 2, "p", 2, empty(db)), known.event_id)],
            "DuplicateEventId",
        ),
        (vec![with_id(stored(last + 1, "p", 1, empty(db)), twice.event_id), twice], "DuplicateEventId"),
    ] {
        let refused = work(db, store, Does::Insert(&events), false).await;
        must_be_refused(refused, expected, "what does not belong is not inserted");
        assert!(all(db, store).await == before, "{expected}: something was inserted");
    }
    must(work(db, store, Does::Insert(&[]), false).await, "insert nothing");
    let next = append(db, store, "place", &[NewEvent::raw("Place", 1, "{}")]).await.remove(0);
    assert!(next.global_position > known.global_position);
}
