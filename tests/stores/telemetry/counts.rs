//! What is counted for appends, reads and changes of keys, on every database.

use super::*;
use eventseal::EventStoreExt;
use eventseal::ExpectedVersion::{Any, Exact};
use eventseal::conformance::Database;
use eventseal::values::SealedValue;
use eventseal::{EventFilter, EventStore, GlobalPosition, Owner, aggregate};
use support::backend::Backend;
use support::{KEYRING, Postgres, customer_scope, on_every_database};

on_every_database! {
    events_are_counted_by_what_became_of_them,
    what_is_rolled_back_was_counted_all_the_same,
    keys_are_counted_when_they_are_made_and_destroyed,
    values_outside_of_events_are_counted,
    steps_are_counted_by_type_and_version,
    errors_are_counted_by_kind_and_once,
    unreadable_events_are_counted_by_kind,
}

async fn events_are_counted_by_what_became_of_them<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    db.append(&store, "1", &[placed("42"), noted(), placed("43")]).await;
    db.append(&store, "1", &[noted()]).await;
    let count = |name: &str, labels: &[(&str, &str)]| recorded.count(&format!("eventseal_{name}_total"), labels);
    assert_eq!((count("events_sealed", &[]), count("events_plain", &[("operation", "append")])), (2, 2));
    assert_eq!((count("appends", &[]), count("appends", &[("path", "plain")])), (2, 1));

    let became = || {
        let plain = count("events_plain", &[("operation", "read")]);
        (count("events_opened", &[]), count("events_redacted", &[]), plain)
    };
    assert_eq!(became(), (0, 0, 0));
    assert_eq!(db.read(&store, "1").await.unwrap().len(), 4);
    assert_eq!(became(), (2, 0, 2));
    db.shred(&store, "42").await;
    db.read(&store, "1").await.unwrap();
    assert_eq!(became(), (3, 1, 4));
    assert_eq!(db.read_log(&store).await.unwrap().len(), 4);
    assert_eq!(became(), (4, 2, 6));
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    store.read_events_each(tx, GlobalPosition::START, 10, &EventFilter::default()).await.unwrap();
    assert_eq!(became(), (5, 3, 8));
    assert_eq!((count("events_unreadable", &[]), count("errors", &[])), (0, 0));
}

async fn what_is_rolled_back_was_counted_all_the_same<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let keys = recorded.count("eventseal_data_keys_created_total", &[]);
    let mut transaction = db.begin().await.unwrap();
    store.append(db.tx(&mut transaction), &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
    db.roll_back(transaction).await;
    assert!(db.read(&store, "1").await.unwrap().is_empty());
    assert_eq!(recorded.count("eventseal_events_sealed_total", &[]), 1);
    assert_eq!(recorded.count("eventseal_data_keys_created_total", &[]), keys + 1);
}

async fn keys_are_counted_when_they_are_made_and_destroyed<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let count = |name: &str| recorded.count(&format!("eventseal_{name}_total"), &[]);
    let counts = || ["data_keys_created", "data_keys_shredded", "scopes_shredded", "keks_created"].map(count);
    // The key of the log and of redactions.
    assert_eq!(counts(), [1, 0, 0, 1]);
    db.prepare(&store).await;
    db.prepared(old_schemas()).await;
    assert_eq!(counts(), [1, 0, 0, 1], "a second process finds them");
    db.append(&store, "1", &[placed("42"), placed("43"), placed("42")]).await;
    assert_eq!(counts(), [3, 0, 0, 1]);
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("42")).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(counts(), [4, 0, 0, 1]);
    db.shred(&store, "42").await;
    assert_eq!(counts(), [4, 2, 1, 1]);
    db.shred(&store, "42").await;
    assert_eq!(counts(), [4, 2, 1, 1], "nothing was left to shred");
    db.reopen(&store, "42").await;
    assert_eq!(counts(), [5, 2, 1, 1]);
    let mut connection = db.connect().await.unwrap();
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
    store.keys().create_kek(db.connection(&mut connection), "default").await.unwrap();
    store.keys().create_kek(db.connection(&mut connection), "tenant").await.unwrap();
    assert_eq!(counts(), [5, 2, 1, 3]);
}

async fn values_outside_of_events_are_counted<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let scope = customer_scope("42");
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let sealed: SealedValue = store.seal_value(tx, &scope, ["users", "name"], NAME).await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    store.open_value(tx, &scope, ["users", "name"], &sealed).await.unwrap();
    assert!(store.open_value(tx, &scope, ["users", "other"], &sealed).await.is_err());
    drop(connection);
    db.shred(&store, "42").await;
    let mut connection = db.connect().await.unwrap();
    store.open_value(db.connection(&mut connection), &scope, ["users", "name"], &sealed).await.unwrap();
    let counts = ["sealed", "opened", "redacted"];
    let counts = counts.map(|what| recorded.count(&format!("eventseal_values_{what}_total"), &[]));
    assert_eq!(counts, [1, 1, 1]);
}

async fn steps_are_counted_by_type_and_version<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let writer = db.prepared(old_schemas()).await;
    db.append(&writer, "1", &[placed("42"), noted(), placed("42")]).await;
    db.read(&writer, "1").await.unwrap();
    let steps = |labels: &[(&str, &str)]| recorded.count("eventseal_upcast_steps_total", labels);
    assert_eq!(steps(&[]), 0, "the writer's schemas have no steps");
    let reader = db.process(schemas());
    db.read(&reader, "1").await.unwrap();
    assert_eq!(steps(&[("event_type", "Placed"), ("from_version", "1")]), 2);
    db.read_log(&reader).await.unwrap();
    assert_eq!((steps(&[("event_type", "Placed"), ("from_version", "1")]), steps(&[])), (4, 4));
}

async fn errors_are_counted_by_kind_and_once<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    let errors = |kind: &str| recorded.count("eventseal_errors_total", &[("error_kind", kind)]);
    db.append(&store, "1", &[placed("42")]).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let expected = Exact(eventseal::AggregateVersion::try_from(7).unwrap());
    store.append(tx, &aggregate("Order", "1"), expected, &[placed("42")]).await.unwrap_err();
    db.roll_back(transaction).await;
    assert_eq!((errors("conflict"), recorded.count("eventseal_events_sealed_total", &[])), (1, 1));
    db.shred(&store, "42").await;
    db.try_append(&store, "1", &[placed("42")]).await.unwrap_err();
    assert_eq!(errors("shredded"), 1);
    let mut transaction = db.begin().await.unwrap();
    store.keys().disable(db.tx(&mut transaction), &customer_scope("42"), "stop").await.unwrap_err();
    store.keys().acting_as("clerk").disable(db.tx(&mut transaction), &customer_scope("42"), "stop").await.unwrap_err();
    db.roll_back(transaction).await;
    assert_eq!(errors("scope_state"), 2);
    assert_eq!(recorded.count("eventseal_errors_total", &[]), 4);
}

async fn unreadable_events_are_counted_by_kind<B: Backend>() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = B::make().await;
    let store = db.prepared(old_schemas()).await;
    db.append(&store, "1", &[placed("42"), noted()]).await;
    db.disable(&store, "42").await;
    let counts = || {
        let kind = [("error_kind", "disabled")];
        (recorded.count("eventseal_events_unreadable_total", &kind), recorded.count("eventseal_errors_total", &kind))
    };
    db.read(&store, "1").await.unwrap_err();
    assert_eq!(counts(), (1, 1));
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    let page = store.read_events_each(tx, GlobalPosition::START, 10, &EventFilter::default()).await.unwrap();
    assert!(page.events[0].is_err() && page.events[1].is_ok());
    assert_eq!(counts(), (2, 1), "the page did not fail");
    drop(connection);
    // A step fails after its event was opened.
    db.enable(&store, "42").await;
    let fails = event("Placed").version(1).protect(&["/name"], customer()).version(2).protect(&["/name"], customer());
    let fails = fails.upcast(1, |_: serde_json::Value| Err::<serde_json::Value, _>("no"));
    let reader = db.process(Schemas::new([fails, event("Noted").version(1)]).unwrap());
    db.read(&reader, "1").await.unwrap_err();
    let kind = [("error_kind", "application")];
    assert_eq!(recorded.count("eventseal_events_unreadable_total", &kind), 1);
    assert_eq!(recorded.count("eventseal_events_opened_total", &[]), 1);
    assert_eq!(recorded.count("eventseal_upcast_steps_total", &[]), 1, "it was begun");
}

/// The four ways to append, where one statement can do it.
#[tokio::test]
async fn appends_are_counted_by_their_path() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let db = Postgres::make().await;
    let (store, other) = (db.prepared(old_schemas()).await, db.prepared(old_schemas()).await);
    let paths = || {
        let paths = ["plain", "one_statement", "two_steps", "fell_back"];
        paths.map(|path| recorded.count("eventseal_appends_total", &[("path", path)]))
    };
    db.append(&store, "1", &[noted()]).await;
    db.append(&store, "1", &[placed("42")]).await;
    assert_eq!(paths(), [1, 0, 1, 0], "the first key was made");
    db.append(&store, "1", &[placed("42"), noted()]).await;
    assert_eq!(paths(), [1, 1, 1, 0]);
    let mut transaction = db.begin().await.unwrap();
    other.keys().rotate_data_key(&mut transaction, &customer_scope("42")).await.unwrap();
    transaction.commit().await.unwrap();
    db.append(&store, "1", &[placed("42")]).await;
    assert_eq!(paths(), [1, 1, 1, 1], "another process has rotated the key");
    db.append(&store, "1", &[placed("42")]).await;
    assert_eq!(paths(), [1, 2, 1, 1]);
    assert_eq!(recorded.count("eventseal_events_sealed_total", &[]), 4);
}

/// A sealer alone counts what passes through it.
#[tokio::test]
async fn a_sealer_counts_too() {
    let recorded = Recorded::default();
    let _listening = recorded.listen();
    let world = support::sealing::SealerWorld::new(
        Schemas::new([event("Placed").version(1).protect(&["/name"], Owner::Aggregate), event("Noted").version(1)])
            .unwrap(),
    );
    let order = aggregate("Order", "1");
    let sealed = world.seal(&order, placed("42")).unwrap();
    world.seal(&order, noted()).unwrap();
    world.open(&sealed).unwrap();
    let counts = ["events_sealed", "events_plain", "events_opened", "appends"];
    let counts = counts.map(|what| recorded.count(&format!("eventseal_{what}_total"), &[]));
    assert_eq!(counts, [1, 1, 1, 0]);
    let reads = eventseal::SealedStore::new(
        eventseal::memory::MemoryStore::new(),
        eventseal::memory::MemoryKeys::new(),
        std::sync::Arc::clone(&KEYRING),
        old_schemas(),
    );
    assert!(reads.read_stream(&mut world.db.begin(), &order).await.unwrap().events.is_empty());
}
