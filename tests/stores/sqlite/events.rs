//! Filtered reads, and events that the database did not store.

use super::{cold, placed, store};
use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::error::{EventFault, KeyFault, StorageFault};
use eventseal::sqlite::SqliteStore;
use eventseal::store::EventTable;
use eventseal::{Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, NewEvent, aggregate};
use sqlx::{Connection, Executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Sqlite, fault};

/// A page of the log costs what it holds, however much the log has of other types: with and without statistics.
#[tokio::test]
async fn filtered_reads_use_indexes() {
    let (db, store) = (Sqlite::new().await, SqliteStore::new());
    let mut connection = db.pool.acquire().await.unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
        INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload, created_at)
        SELECT CASE WHEN i % 50000 = 0 THEN 'Rare' ELSE 'Order' END, 'o' || (i / 10), i % 10 + 1,
            printf('00000000-0000-4000-8000-%012d', i), CASE WHEN i % 30000 = 0 THEN 'Seldom' ELSE 'Placed' END,
                x'7b7d', '2026-01-01T00:00:00Z'
        FROM n";
    connection.execute(fill).await.unwrap();
    let filter = |aggregates: &[&str], events: &[&str]| EventFilter {
        aggregate_types: aggregates.iter().map(ToString::to_string).collect(),
        event_types: events.iter().map(ToString::to_string).collect(),
    };
    for statistics in [false, true] {
        if statistics {
            connection.execute("ANALYZE").await.unwrap();
        }
        for (after, filter, expected) in [
            (1, filter(&[], &[]), vec![2, 3, 4]),
            (1, filter(&[], &["Seldom"]), vec![30_000, 60_000, 90_000]),
            (1, filter(&["Rare", "Rare", "None"], &[]), vec![50_000, 100_000]),
            (1, filter(&["Order"], &["Seldom", "None"]), vec![30_000, 60_000, 90_000]),
            (1, filter(&["Rare", "Order"], &["Placed", "Seldom", "Placed"]), vec![2, 3, 4]),
            (1, filter(&[], &["None"]), vec![]),
            (119_990, filter(&["Order"], &["Placed"]), vec![119_991, 119_992, 119_993]),
            (119_990, filter(&["Order"], &[]), vec![119_991, 119_992, 119_993]),
        ] {
            let steps = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&steps);
            let count = move || counted.fetch_add(1, Ordering::SeqCst) < usize::MAX;
            connection.lock_handle().await.unwrap().set_progress_handler(1, count);
            let page = store.read_events(&mut connection, after.try_into().unwrap(), 3, &filter).await.unwrap();
            connection.lock_handle().await.unwrap().remove_progress_handler();
            let found: Vec<_> = page.events.iter().map(|event| event.global_position.get()).collect();
            assert_eq!((found, page.scanned as usize), (expected.clone(), expected.len()), "{filter:?}");
            // These are steps of SQLite's virtual machine. A walk over the table takes some for each row.
            let steps = steps.load(Ordering::SeqCst);
            assert!(steps > 0 && steps < 1_000, "{filter:?}, statistics: {statistics}: {steps} steps");
        }
    }
}

/// The tables of the first release candidate have no indexes for it: a filtered read is right all the same, and the
/// next migration adds them.
#[tokio::test]
async fn filtered_reads_work_before_the_indexes_are_there() {
    let (db, store) = (Sqlite::empty().await, SqliteStore::new());
    let mut connection = db.pool.acquire().await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name";
    let indexes: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut *connection).await.unwrap();
    assert_eq!(indexes, ["idx_events_event_type", "idx_events_type_position"]);
    connection.execute("DROP INDEX idx_events_event_type; DROP INDEX idx_events_type_position").await.unwrap();
    connection.execute("DELETE FROM _events_migrations WHERE version = 2").await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store
        .append(&mut tx, &aggregate("Order", "1"), Any, &[placed("42"), NewEvent::raw("Noted", 1, "{}"), placed("43")])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let read = EventFilter { aggregate_types: vec!["Order".to_owned()], event_types: vec!["Placed".to_owned()] };
    for _ in 0..2 {
        let page = store.read_events(&mut connection, GlobalPosition::START, 10, &read).await.unwrap();
        assert_eq!(page.events.iter().map(|event| event.global_position.get()).collect::<Vec<_>>(), [1, 3]);
        store.migrate(&mut connection).await.unwrap();
    }
    assert_eq!(sqlx::query_scalar::<_, String>(names).fetch_all(&mut *connection).await.unwrap(), indexes);
}

/// A trigger of somebody else's may leave a row out and say nothing.
#[tokio::test]
async fn an_event_that_the_database_did_not_store_is_not_reported_as_appended() {
    let (db, store) = (Sqlite::new().await, SqliteStore::new());
    let events = [placed("42"), NewEvent::raw("Left", 1, "{}"), placed("42")];
    let mut tx = db.pool.begin().await.unwrap();
    let stored = store.append(&mut tx, &aggregate("Order", "1"), Any, &events).await.unwrap().events;
    tx.rollback().await.unwrap();
    let trigger = "CREATE TRIGGER leaves_out BEFORE INSERT ON events WHEN new.event_type = 'Left' BEGIN SELECT \
        raise(IGNORE); END";
    sqlx::query(trigger).execute(&db.pool).await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append(&mut tx, &aggregate("Order", "1"), Any, &events).await.unwrap_err();
    assert!(
        matches!(error, Error::Storage(StorageFault::NoEffect { table: "events", .. })) && !error.is_retryable(),
        "{error:?}"
    );
    tx.rollback().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.insert_events(&mut tx, &stored).await.unwrap_err();
    assert!(matches!(error, Error::Storage(StorageFault::NoEffect { table: "events", .. })), "a copy: {error:?}");
    tx.rollback().await.unwrap();
    // Nor is it a conflict where nothing at all was stored.
    let mut tx = db.pool.begin().await.unwrap();
    for expected in [Any, NoStream] {
        let error = store.append(&mut tx, &aggregate("Order", "1"), expected, &events[1..2]).await.unwrap_err();
        assert!(
            matches!(error, Error::Storage(StorageFault::NoEffect { table: "events", .. })),
            "{expected:?}: {error:?}"
        );
    }
    let error =
        store.append(&mut tx, &aggregate("Order", "1"), Exact(1.try_into().unwrap()), &events[1..2]).await.unwrap_err();
    assert!(matches!(error, Error::VersionConflict { .. }), "a conflict stays one: {error:?}");
}

/// A reader of the log can get past an event that can't be read, knows its position, and never sees it as redacted.
#[tokio::test]
async fn i4_i8_one_unreadable_event_does_not_hold_up_the_others() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let customers = ["live", "disabled", "tampered", "shredded", "wrong", "lost", "live"];
    let mut tx = db.pool.begin().await.unwrap();
    for customer in customers {
        store.append(&mut tx, &aggregate("Order", customer), Any, &[placed(customer)]).await.unwrap();
    }
    store.keys().disable(&mut tx, &KeyScope::new("Customer", "disabled"), "r").await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Customer", "shredded"), "r").await.unwrap();
    sqlx::raw_sql(
        "UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '$seal', 'seal') AS BLOB)
            WHERE aggregate_id = 'tampered';
         UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = 'wrong';
         DROP TRIGGER data_keys_stay; DELETE FROM data_keys WHERE scope_id = 'lost'",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    for process in [&store, &cold()] {
        let mut tx = db.pool.begin().await.unwrap();
        let all = EventFilter::default();
        let failed = process.read_events(&mut tx, GlobalPosition::START, 100, &all).await;
        assert!(matches!(failed, Err(Error::Disabled { .. })), "{failed:?}");
        let page = process.read_events_each(&mut tx, GlobalPosition::START, 100, &all).await.unwrap();
        assert_eq!((page.scanned, page.next.get(), page.events.len()), (7, 7, 7));
        for ((position, customer), result) in (1..).zip(customers).zip(page.events) {
            match (customer, result) {
                ("live", Ok(events)) => assert_eq!(events[0].payload, placed("live").payload()),
                ("shredded", Ok(events)) => assert!(events[0].is_redacted()),
                (customer, Err(unreadable)) => {
                    let expected = match customer {
                        "disabled" => matches!(unreadable.error, Error::Disabled { .. }),
                        "tampered" => unreadable.error.is_tampered(),
                        "wrong" => matches!(unreadable.error, Error::Keys(KeyFault::WrongKey { .. })),
                        _ => matches!(unreadable.error, Error::Event { fault: EventFault::MissingKey { .. }, .. }),
                    };
                    assert!(expected, "{customer}: {:?}", unreadable.error);
                    assert_eq!(
                        (unreadable.global_position.get(), unreadable.aggregate.aggregate_id()),
                        (position, customer)
                    );
                    let id: String = sqlx::query_scalar("SELECT event_id FROM events WHERE global_position = ?")
                        .bind(position)
                        .fetch_one(&mut *tx)
                        .await
                        .unwrap();
                    assert_eq!(id, unreadable.event_id.to_string());
                    assert!(unreadable.to_string().contains(&id), "{unreadable}");
                }
                (customer, Ok(events)) => panic!("{customer} was read: {events:?}"),
            }
        }
        let page = process.read_events_each(&mut tx, page.next, 100, &all).await.unwrap();
        assert_eq!((page.scanned, page.next.get(), page.events.len()), (0, 7, 0));
    }
}

#[tokio::test]
async fn rows_that_were_never_written_are_errors_and_not_panics() {
    let db = Sqlite::new().await;
    let store = store(&db).await;
    let order = aggregate("Order", "1");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order, Any, &[placed("42")]).await.unwrap();
    tx.commit().await.unwrap();
    for (sql, expected) in [
        ("UPDATE events SET event_id = 'x'", "InvalidRow"),
        (
            "UPDATE events SET created_at = 'yesterday'",
            "InvalidEvent { position: GlobalPosition(1), what: \"created_at\"",
        ),
        ("UPDATE events SET event_version = -1", "InvalidEvent { position: GlobalPosition(1), what: \"event_version\""),
        ("UPDATE events SET event_version = 0", "UnknownVersion"),
        ("UPDATE events SET event_version = 2", "NewerVersion"),
        ("UPDATE events SET payload = x''", "InvalidPayload"),
        ("UPDATE events SET payload = x'ff00'", "InvalidPayload"),
        ("UPDATE events SET payload = x'7b7d00'", "InvalidPayload"),
        ("UPDATE events SET payload = x'226122'", "ShapeMismatch"),
        ("UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '$seal', 'seal') AS BLOB)", "Unsealed"),
        ("UPDATE data_keys SET created_at = ''", "InvalidRow"),
        ("UPDATE data_keys SET key_id = 'x' WHERE scope_id = '42'", "MissingKey"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE key_scopes SET state = 'lost'", "InvalidRow"),
        // A blob that was lost is no erasure, and a tombstone that holds a key is none either.
        ("PRAGMA ignore_check_constraints = ON; UPDATE data_keys SET wrapped_key = NULL", "InvalidRow"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE data_keys SET shredded_at = created_at", "InvalidRow"),
        // A value whose scope is shredded is never shown, even if its key still exists.
        ("UPDATE key_scopes SET state = 'shredded' WHERE scope_id = '42'", "InvalidRow"),
    ] {
        let mut connection = db.pool.acquire().await.unwrap();
        let mut tx = connection.begin().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
        let error = store.read_stream(&mut tx, &order).await.map(drop).unwrap_err();
        assert!(fault(&error).starts_with(expected), "{sql}: {error:?}");
        drop(tx);
        connection.close().await.unwrap();
    }
}
