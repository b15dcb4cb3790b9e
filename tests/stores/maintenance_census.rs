//! The census and the rows it counts, on every database.

use eventseal::error::StorageFault;
use eventseal::maintenance::{
    Answer, BackfillOptions, Census, CensusOptions, CensusProgress, CensusRow, Protection, Registration,
};
use eventseal::postgres::PostgresStore;
use eventseal::store::EventTable;
use eventseal::{
    AggregateVersion, Error, EventStore, EventVersion, ExpectedVersion, GlobalPosition, NewEvent, Owner,
    PersistedEvent, Result, Schemas, aggregate, event,
};
use serde_json::Value;
use std::convert::Infallible;
use support::Deadline;
use support::backend::{Backend, insert};
use support::{Postgres, Sqlite, customer, on_every_database};

on_every_database! {
    a_census_counts_and_says_what_is_needed,
    what_is_stored_without_a_version_is_of_the_one_that_it_is_read_as,
    a_value_that_looks_like_a_header_hides_nothing,
    protection_that_grew_is_found_in_every_payload,
    a_census_in_ranges_has_the_same_numbers,
    a_census_without_a_registry_counts,
    a_census_in_ranges_skips_what_is_empty,
}

fn step(value: Value) -> Result<Value, Infallible> {
    Ok(value)
}

/// `Placed` 1 → 2 → 3; `Old` 1 is split into `Placed` 2 and `Other` 1; `Gone` 1 is dropped.
fn schemas() -> Schemas {
    Schemas::builder([
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .version(2)
            .protect_same_as(1)
            .version(3)
            .protect_same_as(1)
            .upcast(1, step)
            .upcast(2, step),
        event("Other").version(1),
        event("Old").version(1).split(1, &[("Placed", 2), ("Other", 1)], |_, _| Ok::<_, Infallible>(Vec::new())),
        event("Gone").version(1).drop_from(1),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("Never").version(4).protect(&["/name"], customer()).version(5).protect_same_as(4).upcast(4, step),
    ])
    .accept_plaintext("Placed")
    .allow_older_appends()
    .build()
    .unwrap()
}

fn named(version: u32) -> NewEvent {
    NewEvent::raw("Placed", version, r#"{"customer":"ada","name":"Ada"}"#)
}

fn row<'c>(census: &'c Census, name: &str, version: u32) -> &'c CensusRow {
    census.rows.iter().find(|row| row.event_type == name && row.event_version.get() == version).unwrap()
}

fn numbers(protection: Option<Protection>) -> Option<[u64; 5]> {
    protection.map(|p| [p.sealed, p.partly_sealed, p.plaintext, p.nothing_to_protect, p.unreadable])
}

fn steps(row: &CensusRow) -> Vec<(&str, u32)> {
    row.steps.iter().map(|(name, version)| (name.as_str(), version.get())).collect()
}

fn every() -> CensusOptions {
    let mut options = CensusOptions::default();
    options.every_payload = true;
    options
}

async fn a_census_counts_and_says_what_is_needed<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let empty = db.census(&store, &every()).await;
    assert!(
        empty.rows.is_empty()
            && empty.may_refuse_plaintext("Placed").is_yes()
            && empty.may_delete_step("Placed", 1).is_yes()
    );

    let plain = [
        named(1),
        NewEvent::raw("Placed", 1, r#"{"customer":"ada","name":null}"#),
        NewEvent::raw("Placed", 1, r#"{"customer":"ada"}"#),
        NewEvent::raw("Placed", 1, "no JSON"),
        NewEvent::raw("Placed", 3, "[]"),
        NewEvent::raw("Stranger", 7, "{}"),
        NewEvent::raw("Old", 1, "{}"),
        NewEvent::raw("Gone", 1, "{}"),
        NewEvent::raw("Whole", 1, "any bytes"),
    ];
    let before = db.append_bare("plain", &plain).await;
    db.append(&store, "sealed", &[named(3), named(3), NewEvent::raw("Whole", 1, "any bytes")]).await;
    let known = db.census(&store, &every()).await;
    assert_eq!(known.may_delete_step("Never", 4), Answer::Yes);
    assert_eq!(known.unneeded_steps(), [("Never".into(), EventVersion::new(4))]);

    // These events are of versions that this code does not know, so nobody knows which steps they need.
    db.append_bare("unknown", &[NewEvent::raw("Placed", 9, "{}"), NewEvent::raw("Never", 2, "{}")]).await;
    let census = db.census(&store, &every()).await;
    assert!(matches!(census.may_delete_step("Never", 4), Answer::Unknown { .. }) && census.unneeded_steps().is_empty());
    let placed = row(&census, "Placed", 1);
    assert_eq!((placed.events, placed.with_header, placed.without_header()), (4, 0, 4));
    assert_eq!(placed.positions, (before[0].global_position, before[3].global_position));
    assert_eq!(placed.registration, Some(Registration::Outdated));
    assert_eq!(steps(placed), [("Placed", 1), ("Placed", 2)]);
    assert_eq!(numbers(placed.protection), Some([0, 0, 1, 2, 1]));
    assert_eq!(placed.protection.unwrap().first_open, Some((before[0].global_position, before[0].event_id)));
    let current = row(&census, "Placed", 3);
    assert_eq!((current.events, current.with_header, current.registration), (3, 2, Some(Registration::Current)));
    assert_eq!(numbers(current.protection), Some([2, 0, 0, 0, 1]), "an array where an object is needed");
    assert_eq!(row(&census, "Placed", 9).registration, Some(Registration::Newer(EventVersion::new(3))));
    assert_eq!(row(&census, "Never", 2).registration, Some(Registration::Missing(EventVersion::new(4))));
    assert_eq!(row(&census, "Stranger", 7).registration, Some(Registration::UnknownType));
    assert!(row(&census, "Placed", 9).steps.is_empty() && row(&census, "Placed", 9).protection.is_none());
    assert_eq!(steps(row(&census, "Old", 1)), [("Old", 1), ("Placed", 2)]);
    assert_eq!(steps(row(&census, "Gone", 1)), [("Gone", 1)]);
    assert_eq!(numbers(row(&census, "Whole", 1).protection), Some([1, 0, 1, 0, 0]));
    assert_eq!(numbers(row(&census, "Old", 1).protection), None);

    it_says_what_is_needed(&census);

    // A part of the log proves nothing about the rest, but disproves.
    let mut part = every();
    part.range.after = before[4].global_position;
    let part = db.census(&store, &part).await;
    assert!(
        matches!(part.may_delete_step("Placed", 1), Answer::Unknown { .. })
            && matches!(part.may_delete_step("Placed", 2), Answer::No { .. })
    );
    assert!(part.unneeded_steps().is_empty());
    let mut part = every();
    part.range.up_to = Some(before[2].global_position);
    assert!(matches!(db.census(&store, &part).await.may_delete_step("Never", 4), Answer::Unknown { .. }));
}

fn it_says_what_is_needed(census: &Census) {
    let needs = |name: &str, version| census.may_delete_step(name, version);
    assert!(
        matches!(needs("Placed", 1), Answer::No { because } if because.starts_with("4 stored events of Placed version \
            1"))
    );
    assert!(matches!(needs("Placed", 2), Answer::No { .. }));
    assert!(
        matches!(needs("Placed", 3), Answer::Unknown { .. }) && matches!(needs("Stranger", 7), Answer::Unknown { .. })
    );
    let not_stored: Vec<String> =
        census.not_stored().iter().map(|(name, version)| format!("{name} {version}")).collect();
    assert_eq!(not_stored, ["Never 4", "Never 5", "Other 1", "Placed 2"]);
    assert!(
        matches!(census.may_refuse_plaintext("Placed"), Answer::No { because } if because.contains("1 stored events \
            are plaintext"))
    );
    assert!(
        matches!(census.may_refuse_plaintext("Never"), Answer::No { because } if because.contains("not registered"))
    );
}

async fn what_is_stored_without_a_version_is_of_the_one_that_it_is_read_as<B: Backend>() {
    let db = B::make().await;
    let placed = || event("Placed").version(1).version(2).upcast(1, step);
    let store = db.prepared(Schemas::new([placed().legacy_version(2)]).unwrap()).await;
    let position = GlobalPosition::try_from(1).unwrap();
    let old = NewEvent::raw("Placed", 0, "{}");
    insert(&db, PersistedEvent::from_new(aggregate("Order", "old"), AggregateVersion::FIRST, position, old)).await;
    let census = db.census(&store, &every()).await;
    assert_eq!(census.not_stored(), [("Placed".into(), EventVersion::new(1))]);
    assert_eq!(census.may_delete_step("Placed", 1), Answer::Yes);
    let nobody_says = db.census(&db.process(Schemas::new([placed()]).unwrap()), &every()).await;
    assert_eq!(nobody_says.not_stored().len(), 2);
    assert!(matches!(nobody_says.may_delete_step("Placed", 1), Answer::Unknown { .. }));
}

async fn a_value_that_looks_like_a_header_hides_nothing<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let hiding = [
        r#"{"customer":"ada","name":"Ada","x":{"$seal":"AQEAAAAA"}}"#,
        r#"{"customer":"ada","name":"{\"$seal\":\"AQEAAAAA\"}"}"#,
        r#"{"customer":"ada","name":"$seal","$seal2":"AQEAAAAA"}"#,
    ];
    db.append_bare("plain", &hiding.map(|payload| NewEvent::raw("Placed", 3, payload))).await;
    for options in [CensusOptions::default(), every()] {
        let census = db.census(&store, &options).await;
        assert_eq!(numbers(row(&census, "Placed", 3).protection), Some([0, 0, 3, 0, 0]));
    }
    // A header of somebody else's making.
    db.append_bare("forged", &[NewEvent::raw("Placed", 3, r#"{"$seal":"AQEAAAAA","customer":"ada","name":"Ada"}"#)])
        .await;
    let census = db.census(&store, &CensusOptions::default()).await;
    assert_eq!(
        numbers(row(&census, "Placed", 3).protection),
        Some([1, 0, 3, 0, 0]),
        "as far as the start of a payload says"
    );
    assert_eq!(numbers(row(&db.census(&store, &every()).await, "Placed", 3).protection), Some([0, 0, 3, 0, 1]));
}

async fn protection_that_grew_is_found_in_every_payload<B: Backend>() {
    let db = B::make().await;
    let before = Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap();
    let sealed = NewEvent::raw("Placed", 1, r#"{"customer":"ada","name":"Ada","email":"ada@example.org"}"#);
    db.append(&db.prepared(before).await, "1", &[sealed]).await;
    let now = Schemas::builder([event("Placed").version(1).protect(&["/name", "/email"], customer())]);
    let store = db.process(now.accept_plaintext("Placed").build().unwrap());
    let cheap = db.census(&store, &CensusOptions::default()).await;
    assert_eq!(numbers(row(&cheap, "Placed", 1).protection), Some([1, 0, 0, 0, 0]));
    assert!(
        matches!(cheap.may_refuse_plaintext("Placed"), Answer::Unknown { .. }),
        "the cheap census must not call it proven"
    );
    let census = db.census(&store, &every()).await;
    assert_eq!(numbers(row(&census, "Placed", 1).protection), Some([0, 1, 0, 0, 0]));
    assert!(matches!(census.may_refuse_plaintext("Placed"), Answer::No { .. }));
}

async fn a_census_in_ranges_has_the_same_numbers<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for round in 0..5 {
        db.append_bare("plain", &[named(1), named(2), NewEvent::raw("Placed", 1, format!(r#"{{"n":{round}}}"#))]).await;
        db.append(&store, "sealed", &[named(3)]).await;
    }
    let whole = db.census(&store, &CensusOptions::default()).await;
    let mut options = CensusOptions::default();
    (options.positions_per_scan, options.batch) = (Some(3), 2);
    let (mut connection, mut told) = (db.connect().await.unwrap(), Vec::new());
    let census =
        store.census(db.connection(&mut connection), &options, &mut |progress| told.push(progress)).await.unwrap();
    assert_eq!(census.rows, whole.rows);
    assert!(told.len() > 10 && told.is_sorted_by_key(|progress| (progress.counted_to, progress.looked_at)));
    let last = told.last().unwrap();
    assert_eq!((last.counted_to, last.looked_at, last.to_look_at), (last.last, 15, 15));
}

/// One event far behind all others takes no more scans than any other.
async fn a_census_in_ranges_skips_what_is_empty<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let near = db.append(&store, "1", &[named(2)]).await.remove(0);
    let mut far = Vec::new();
    for (id, position) in [("far", i64::MAX / 2), ("farther", i64::MAX - 1)] {
        let mut event = db.stored().await.remove(0);
        event.aggregate = aggregate("Order", id);
        event.event_id = uuid::Uuid::now_v7();
        event.global_position = GlobalPosition::try_from(position).unwrap();
        far.push(event);
    }
    let mut transaction = db.begin().await.unwrap();
    store.inner().insert_events(db.tx(&mut transaction), &far).await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut options = CensusOptions::default();
    options.positions_per_scan = Some(100);
    let (mut connection, mut scans) = (db.connect().await.unwrap(), Vec::new());
    let mut told = |progress: CensusProgress| {
        scans.push(progress.counted_to);
        assert!(scans.len() < 10, "three events, and still counting at {scans:?}");
    };
    let census = store.census(db.connection(&mut connection), &options, &mut told).await.unwrap();
    assert!(scans.is_sorted());
    let row = row(&census, "Placed", 2);
    assert_eq!((row.events, row.positions), (3, (near.global_position, far[1].global_position)));
}

async fn a_census_without_a_registry_counts<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append_bare("plain", &[named(1)]).await;
    db.append(&store, "sealed", &[named(3)]).await;
    let mut connection = db.connect().await.unwrap();
    let census = Census::take(store.inner(), db.connection(&mut connection), &CensusOptions::default(), &mut |_| {})
        .await
        .unwrap();
    let rows: Vec<_> = census
        .rows
        .iter()
        .map(|row| (row.event_version.get(), row.events, row.with_header, row.registration))
        .collect();
    assert_eq!(rows, [(1, 1, 0, None), (3, 1, 1, None)]);
    assert!(matches!(census.may_delete_step("Never", 4), Answer::Unknown { .. }));
    assert!(matches!(census.may_refuse_plaintext("Never"), Answer::Unknown { .. }));
    assert!(census.unneeded_steps().is_empty() && census.not_stored().is_empty());
}

/// A version that no store of this crate wrote stops a census. It says where.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_makes_no_sense_is_named() {
    let census = async |result: Result<Census>| {
        let Err(Error::Storage(StorageFault::InvalidEvent { position, what, .. })) = result else {
            panic!("{result:?}")
        };
        assert_eq!((position.get(), what), (2, "event_version"));
    };
    let (options, none) = (CensusOptions::default(), &mut |_: CensusProgress| {});
    let sql = "UPDATE events SET event_version = -1 WHERE global_position = 2";
    let (postgres, sqlite) = (Postgres::new().await, Sqlite::new().await);
    let store = postgres.prepared(schemas()).await;
    postgres.append(&store, "1", &[named(2), named(2), named(2)]).await;
    sqlx::query(sql).execute(&postgres.pool).await.unwrap();
    census(store.census(&mut *postgres.pool.acquire().await.unwrap(), &options, none).await).await;
    let read = postgres.read_log(&store).await;
    assert!(
        matches!(read, Err(Error::Storage(StorageFault::InvalidEvent { position, .. })) if position.get() == 2),
        "{read:?}"
    );
    let store = sqlite.prepared(schemas()).await;
    sqlite.append(&store, "1", &[named(2), named(2), named(2)]).await;
    sqlx::query(sql).execute(&sqlite.pool).await.unwrap();
    census(store.census(&mut *sqlite.pool.acquire().await.unwrap(), &options, none).await).await;
    let read = sqlite.read_log(&store).await;
    assert!(
        matches!(read, Err(Error::Storage(StorageFault::InvalidEvent { position, .. })) if position.get() == 2),
        "{read:?}"
    );
}

/// Events of a transaction in flight may be committed before `accept_plaintext` is removed, so the proof has to include
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_what_is_in_flight_is_part_of_the_proof() {
    let db = Postgres::new().await;
    let schemas = || {
        Schemas::builder([event("Met").version(1).protect(&["/name"], customer())])
            .accept_plaintext("Met")
            .build()
            .unwrap()
    };
    let store = db.prepared(schemas()).await;
    let met = |who: &str| NewEvent::raw("Met", 1, format!(r#"{{"customer":"{who}","name":"{who}"}}"#));
    let mut open = db.pool.begin().await.unwrap();
    PostgresStore::new()
        .append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[met("ada")])
        .await
        .unwrap();
    db.append(&store, "1", &[met("eve")]).await;
    let census = db.census(&store, &every()).await;
    assert!(!census.is_settled && census.rows[0].events == 1);
    let answer = census.may_refuse_plaintext("Met");
    assert!(matches!(answer, Answer::Unknown { because } if because.contains("in flight")), "{answer:?}");
    open.commit().await.unwrap();
    let census = db.census(&store, &every()).await;
    assert!(census.is_settled && matches!(census.may_refuse_plaintext("Met"), Answer::No { .. }));
    db.backfill(&store, &BackfillOptions::default()).await.unwrap();
    assert!(db.census(&store, &every()).await.may_refuse_plaintext("Met").is_yes());
    // If the lock can't be taken, the census counts the committed events.
    let mut transaction = db.pool.begin().await.unwrap();
    let census = store.census(&mut transaction, &every(), &mut |_| {}).await.unwrap();
    assert!(!census.is_settled && census.rows[0].events == 2 && !census.may_refuse_plaintext("Met").is_yes());
}

/// A position in flight keeps the positions after it from being settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_a_position_in_flight_is_not_settled() {
    let db = Postgres::new().await;
    let store = PostgresStore::new();
    for (commits, expected) in [(true, 1), (false, 0)] {
        let before = db.stored().await.len();
        let mut open = db.pool.begin().await.unwrap();
        let pending =
            store.append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[named(1)]).await.unwrap();
        let visible = db.append_bare(&format!("done {commits}"), &[named(1)]).await;
        assert!(pending.last_position() < visible[0].global_position);
        let (pool, waiting) = (db.pool.clone(), store.clone());
        let settling = tokio::spawn(async move { waiting.settled_position(&mut *pool.acquire().await.unwrap()).await });
        let waits =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND relation = 'events'::regclass";
        let deadline = Deadline::of("for somebody to wait for a lock");
        while sqlx::query_scalar::<_, i64>(waits).fetch_one(&db.pool).await.unwrap() == 0 {
            deadline.look_again().await;
            assert!(!settling.is_finished(), "it did not wait: {:?}", settling.await);
        }
        if commits {
            open.commit().await.unwrap();
        } else {
            open.rollback().await.unwrap();
        }
        assert_eq!(settling.await.unwrap().unwrap(), visible[0].global_position);
        assert_eq!(
            db.stored().await.len(),
            before + 1 + expected,
            "and what it had waited for is there, or never will be"
        );
    }
    // It never keeps others waiting for long.
    let mut open = db.pool.begin().await.unwrap();
    store.append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[named(1)]).await.unwrap();
    let gave_up = store.settled_position(&mut *db.pool.acquire().await.unwrap()).await;
    assert!(matches!(&gave_up, Err(error) if error.is_retryable()), "{gave_up:?}");
}
