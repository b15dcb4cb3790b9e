//! The tables of eventsalsa/store 0.1 and later: the head row first, and events that may be partitioned by position.
//! `tests/races` has the tests in which both writers meet.

mod plans;

use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::error::{SetUpFault, StorageFault};
use eventseal::maintenance::{BackfillOptions, CensusOptions, CensusRow, RewriteOptions};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::store::EventTable;
use eventseal::store::TableWork;
use eventseal::{
    AggregateVersion, Appended, Changes, Error, EventFilter, EventStore, EventStoreExt, Namespace, NewEvent,
    PersistedEvent, Result, Schemas, SealedStore, aggregate, event, internals, subject,
};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};
use std::sync::Arc;
use support::{Deadline, KEYRING, Postgres, fault, in_time};

fn schemas() -> Schemas {
    let placed = event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"));
    let placed = placed.version(2).protect(&["/contact/name"], subject("Customer", "/customer"));
    let placed = placed.change(1, Changes::new().move_value("/name", "/contact/name"));
    Schemas::builder([placed]).allow_older_appends().build().unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn bare() -> PostgresStore {
    PostgresStore::with_tables(PostgresTables::streams()).unwrap()
}

/// Partitions of a few events, so that a stream lies in several.
async fn partitioned() -> Postgres {
    let db = Postgres::empty().await;
    db.partitioned(&[(1, 4), (4, 9), (9, 1_000)]).await;
    PostgresKeys::new()
        .migrate(&mut db.pool.acquire().await.unwrap(), &Namespace::new("streams").unwrap())
        .await
        .unwrap();
    db
}

async fn sealed(db: &Postgres, store: PostgresStore) -> SealedStore<PostgresStore> {
    let store = SealedStore::new(store, PostgresKeys::new(), Arc::clone(&KEYRING), schemas());
    store.keys().prepare(&mut *db.pool.acquire().await.unwrap()).await.unwrap();
    store
}

async fn append(
    db: &Postgres,
    store: &impl EventStore<Tx = PgConnection>,
    id: &str,
    events: &[NewEvent],
) -> Result<Appended> {
    let mut tx = db.pool.begin().await.unwrap();
    let appended = store.append(&mut tx, &aggregate("Order", id), Any, events).await?;
    tx.commit().await.unwrap();
    Ok(appended)
}

async fn count(db: &Postgres, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&db.pool).await.unwrap()
}

#[tokio::test]
async fn an_append_in_the_order_of_0_0_to_partitions_says_what_to_configure() {
    let db = partitioned().await;
    let store = PostgresStore::with_tables(PostgresTables::streams().events_first()).unwrap();
    let error = append(&db, &store, "1", &[placed("42")]).await.unwrap_err();
    assert!(
        matches!(&error, Error::SetUp(SetUpFault::NoUniqueVersion { table, .. }) if table == "events"),
        "{error:?}"
    );
    assert!(error.to_string().contains("heads_first()") && !error.is_retryable(), "{error}");
    append(&db, &bare(), "1", &[placed("42")]).await.unwrap();
}

#[tokio::test]
async fn conflicts_on_partitions_leave_the_transaction_usable() {
    let db = partitioned().await;
    let (store, order) = (bare(), aggregate("Order", "1"));
    let known = placed("42");
    append(&db, &store, "2", std::slice::from_ref(&known)).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, NoStream, &[placed("42"), placed("43"), placed("44"), placed("45")]).await.unwrap();
    for expected in [NoStream, Exact(AggregateVersion::FIRST)] {
        let conflict = store.append(&mut tx, &order, expected, &[placed("42")]).await.unwrap_err();
        assert!(
            matches!(conflict, Error::VersionConflict { actual: Some(version), .. } if version.get() == 4),
            "{conflict:?}"
        );
    }
    for id in ["1", "3"] {
        let again = [placed("42"), known.clone()];
        let duplicate = store.append(&mut tx, &aggregate("Order", id), Any, &again).await.unwrap_err();
        assert!(
            matches!(duplicate, Error::DuplicateEventId { event_id } if event_id == known.event_id),
            "{duplicate:?}"
        );
    }
    store.append(&mut tx, &order, Exact(4.try_into().unwrap()), &[placed("46")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM events").await, 6);
    assert_eq!(count(&db, "SELECT count(*) FROM stream_heads").await, 2, "a refused append left a head");
    assert_eq!(
        count(&db, "SELECT count(DISTINCT tableoid) FROM events WHERE stream_id = '1'").await,
        2,
        "in several partitions"
    );
}

/// The one that waits for the head looks for ids in a snapshot from before: it must look again.
#[tokio::test]
async fn an_id_that_is_appended_twice_to_one_stream_at_the_same_time_is_a_duplicate_on_partitions() {
    let db = Arc::new(partitioned().await);
    for begun in [false, true] {
        let id = if begun { "begun" } else { "new" };
        if begun {
            append(&db, &bare(), id, &[placed("42")]).await.unwrap();
        }
        let event = placed("42");
        let mut first = db.pool.begin().await.unwrap();
        bare().append(&mut first, &aggregate("Order", id), Any, std::slice::from_ref(&event)).await.unwrap();
        let second = tokio::spawn({
            let (db, event) = (Arc::clone(&db), event.clone());
            async move { append(&db, &bare(), id, &[event]).await }
        });
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Deadline::of("for somebody to wait for a lock");
        while count(&db, waiting).await == 0 {
            deadline.look_again().await;
        }
        first.commit().await.unwrap();
        let error = second.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == event.event_id), "{error:?}");
    }
}

/// No constraint would refuse the version.
#[tokio::test]
async fn a_head_that_is_behind_its_events_is_named_as_the_problem_on_partitions() {
    let db = partitioned().await;
    append(&db, &bare(), "1", &[placed("42"), placed("42")]).await.unwrap();
    for sql in ["UPDATE stream_heads SET stream_version = 1", "DELETE FROM stream_heads"] {
        db.pool.execute(sql).await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        for expected in [Any, NoStream, Exact(AggregateVersion::FIRST)] {
            let error = bare().append(&mut tx, &aggregate("Order", "1"), expected, &[placed("42")]).await.unwrap_err();
            assert!(
                matches!(error, Error::Storage(StorageFault::InvalidRow { .. })) && !error.is_retryable(),
                "{sql}: {error:?}"
            );
        }
        assert_eq!(count(&db, "SELECT count(*) FROM events").await, 2);
    }
}

/// None of the appended events is stored. No other writer took the version, so trying again changes nothing.
#[tokio::test]
async fn an_append_of_which_nothing_is_stored_is_no_conflict() {
    let leave_out = "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
    let triggered = |table: &str| {
        format!("CREATE TRIGGER leaves_out BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION leave_out()")
    };
    for (tables, table, named) in [
        (PostgresTables::new(), "events", "events"),
        (PostgresTables::new().notify("told"), "events", "events"),
        (PostgresTables::streams(), "events", "events"),
        (PostgresTables::streams().notify("told"), "events", "events"),
        (PostgresTables::streams(), "stream_heads", "heads"),
    ] {
        let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(tables).unwrap());
        store.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
        append(&db, &store, "there", &[placed("42")]).await.unwrap();
        db.pool.execute(leave_out).await.unwrap();
        db.pool.execute(AssertSqlSafe(triggered(table))).await.unwrap();
        for (id, expected) in
            [("new", Any), ("new", NoStream), ("there", Any), ("there", Exact(AggregateVersion::FIRST))]
        {
            let mut tx = db.pool.begin().await.unwrap();
            let error = store
                .append(&mut tx, &aggregate("Order", id), expected, &[placed("42"), placed("43")])
                .await
                .unwrap_err();
            assert!(
                matches!(error, Error::Storage(StorageFault::NoEffect { table, .. }) if table == named),
                "{table}, {id}, {expected:?}: {error:?}"
            );
            assert!(!error.is_retryable() && !error.is_conflict(), "{error:?}");
        }
        let mut tx = db.pool.begin().await.unwrap();
        let error = store.append(&mut tx, &aggregate("Order", "there"), NoStream, &[placed("42")]).await.unwrap_err();
        assert!(matches!(error, Error::VersionConflict { .. }), "a conflict stays one: {error:?}");
    }
}

/// A trigger of somebody else's may leave a row out and say nothing.
#[tokio::test]
async fn an_event_that_the_database_did_not_store_is_not_reported_as_appended() {
    for tables in [PostgresTables::new(), PostgresTables::streams()] {
        let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(tables).unwrap());
        store.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
        let events = [placed("42"), NewEvent::raw("Left", 1, "{}"), placed("42")];
        let mut tx = db.pool.begin().await.unwrap();
        let stored = store.append(&mut tx, &aggregate("Order", "1"), Any, &events).await.unwrap().events;
        tx.rollback().await.unwrap();
        db.pool
            .execute("CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
            .await
            .unwrap();
        let trigger = "CREATE TRIGGER leaves_out BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_type = 'Left') \
            EXECUTE FUNCTION leave_out()";
        db.pool.execute(trigger).await.unwrap();
        let error = append(&db, &store, "1", &events).await.unwrap_err();
        assert!(
            matches!(error, Error::Storage(StorageFault::NoEffect { table: "events", .. })) && !error.is_retryable(),
            "{error:?}"
        );
        let mut tx = db.pool.begin().await.unwrap();
        let error = store.insert_events(&mut tx, &stored).await.unwrap_err();
        assert!(matches!(error, Error::Storage(StorageFault::NoEffect { table: "events", .. })), "a copy: {error:?}");
    }
}

#[tokio::test]
async fn a_notification_is_sent_for_an_append_to_partitions() {
    let db = partitioned().await;
    let store = PostgresStore::with_tables(PostgresTables::streams().notify("told")).unwrap();
    let mut listener = sqlx::postgres::PgListener::connect_with(&db.pool).await.unwrap();
    listener.listen("told").await.unwrap();
    let appended = append(&db, &store, "1", &[placed("42"), placed("42")]).await.unwrap();
    let told = in_time("for a notification", listener.recv()).await.unwrap();
    assert_eq!(told.payload(), appended.last_position().get().to_string());
}

/// Plaintext in partitions is counted, sealed where it lies, and carried into a store that is partitioned too.
#[tokio::test]
async fn i1_i8_partitions_are_counted_backfilled_and_rewritten() {
    let db = partitioned().await;
    for number in 0..12 {
        append(&db, &bare(), &format!("{}", number % 3), &[placed("42")]).await.unwrap();
    }
    let store = sealed(&db, bare()).await;
    let mut connection = db.pool.acquire().await.unwrap();
    let census = store.census(&mut connection, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(census.rows.iter().map(CensusRow::without_header).sum::<u64>(), 12);
    store.backfill(&mut connection, &BackfillOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(
        count(&db, r#"SELECT count(*) FROM events WHERE convert_from(payload, 'UTF8') LIKE '{"$seal":%'"#).await,
        12
    );
    assert_eq!(count(&db, "SELECT count(*) FROM events WHERE convert_from(payload, 'UTF8') LIKE '%Ada%'").await, 0);
    let before = store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap();
    assert!(before.events.iter().all(|event| String::from_utf8_lossy(&event.payload).contains("Ada")));

    let target_db = partitioned().await;
    let mut target = target_db.pool.acquire().await.unwrap();
    store.rewrite(&mut connection, &bare(), &mut target, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(count(&target_db, "SELECT count(*) FROM events WHERE event_version = 2").await, 12);
    // Positions go on after the copied ones, though the sequence is not the column's own.
    let more = append(&target_db, &bare(), "1", &[placed("42")]).await.unwrap();
    assert_eq!((more.last_version().get(), more.last_position().get()), (5, 13));
}

/// If the table has a copied event's id or version, nothing is inserted, although no constraint refuses it.
#[tokio::test]
async fn nothing_is_inserted_twice_into_partitions() {
    struct Insert(Vec<PersistedEvent>);
    #[async_trait::async_trait]
    impl TableWork<PgConnection> for Insert {
        async fn run(&mut self, tx: &mut PgConnection) -> Result<()> {
            bare().insert_events(tx, &self.0).await
        }
    }
    let db = partitioned().await;
    let known = append(&db, &bare(), "1", &[placed("42")]).await.unwrap().events.remove(0);
    let mut connection = db.pool.acquire().await.unwrap();
    let at = |position: i64, version: i64, event: NewEvent| {
        PersistedEvent::from_new(
            known.aggregate.clone(),
            version.try_into().unwrap(),
            position.try_into().unwrap(),
            event,
        )
    };
    let new = || placed("42");
    for (events, expected) in [
        (vec![at(7, 2, new().with_id(known.event_id))], "DuplicateEventId"),
        (vec![at(7, 2, new()), at(8, 1, new())], "InvalidRow"),
        (vec![at(7, 2, new()), at(8, 2, new())], "InvalidRow"),
    ] {
        let refused = fault(&bare().in_transaction(&mut connection, &mut Insert(events)).await.unwrap_err());
        assert!(refused.starts_with(expected), "{refused}");
    }
    bare().in_transaction(&mut connection, &mut Insert(vec![at(7, 2, new()), at(8, 3, new())])).await.unwrap();
    assert_eq!(append(&db, &bare(), "1", &[placed("42")]).await.unwrap().last_position().get(), 9);
}

/// A writer that takes heads first holds one when events are locked: inserting must not wait for him who waits for it.
#[tokio::test]
async fn inserting_meets_no_writer_half_way() {
    struct Insert(Vec<PersistedEvent>);
    #[async_trait::async_trait]
    impl TableWork<PgConnection> for Insert {
        async fn run(&mut self, tx: &mut PgConnection) -> Result<()> {
            bare().insert_events(tx, &self.0).await
        }
    }
    let db = Arc::new(partitioned().await);
    append(&db, &bare(), "1", &[placed("42")]).await.unwrap();
    let mut writer = db.pool.begin().await.unwrap();
    writer.execute("UPDATE stream_heads SET stream_version = 2").await.unwrap();
    let event = PersistedEvent::from_new(
        aggregate("Order", "other"),
        AggregateVersion::FIRST,
        50.try_into().unwrap(),
        placed("42"),
    );
    let inserting = tokio::spawn({
        let db = Arc::clone(&db);
        async move { bare().in_transaction(&mut *db.pool.acquire().await.unwrap(), &mut Insert(vec![event])).await }
    });
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Deadline::of("for somebody to wait for a lock");
    while count(&db, waiting).await == 0 {
        deadline.look_again().await;
    }
    let insert = "INSERT INTO events (stream_type, stream_id, stream_version, event_id, event_type, payload)
        VALUES ('Order', '1', 2, gen_random_uuid(), 'Noted', '{}')";
    writer.execute(insert).await.unwrap();
    writer.commit().await.unwrap();
    inserting.await.unwrap().unwrap();
}

/// pg_partman does more than make partitions: it moves rows from the default partition into a new one, and detaches old
/// partitions.
#[tokio::test]
async fn partitions_that_are_made_and_detached_meanwhile_change_nothing_else() {
    let db = Postgres::empty().await;
    db.partitioned(&[(1, 4)]).await;
    PostgresKeys::new()
        .migrate(&mut db.pool.acquire().await.unwrap(), &Namespace::new("streams").unwrap())
        .await
        .unwrap();
    let store = sealed(&db, bare()).await;
    for _ in 0..6 {
        append(&db, &store, "1", &[placed("42")]).await.unwrap();
    }
    let read = async || {
        let events =
            store.read_stream(&mut db.pool.acquire().await.unwrap(), &aggregate("Order", "1")).await.unwrap().events;
        events.into_iter().map(|event| (event.global_position.get(), event.payload)).collect::<Vec<_>>()
    };
    let before = read().await;
    assert_eq!(count(&db, "SELECT count(*) FROM events_default").await, 3);
    let make = "BEGIN; CREATE TEMP TABLE moved ON COMMIT DROP AS SELECT * FROM events_default;
        DELETE FROM events_default; CREATE TABLE events_p4 PARTITION OF events FOR VALUES FROM (4) TO (100);
        INSERT INTO events SELECT * FROM moved; COMMIT";
    db.pool.execute(make).await.unwrap();
    assert_eq!(count(&db, "SELECT count(*) FROM events_p4").await, 3);
    assert_eq!(read().await, before);
    assert_eq!(append(&db, &store, "1", &[placed("42")]).await.unwrap().last_version().get(), 7);
    // The head knows how far the stream was, whatever became of its events.
    db.pool
        .execute("ALTER TABLE events DETACH PARTITION events_p1; ALTER TABLE events DETACH PARTITION events_p4")
        .await
        .unwrap();
    assert_eq!(append(&db, &store, "1", &[placed("42")]).await.unwrap().last_version().get(), 8);
    assert_eq!(read().await.len(), 1);
}
