//! Values that the stored version of an event has in the clear, and its current version protects.

use super::{Order, SaveOutcome, load, save, stored};
use eventseal::maintenance::RewriteOptions;
use eventseal::postgres::{PostgresStore, PostgresTables};
use eventseal::snapshots::SealedSnapshots;
use eventseal::{Changes, Error, EventStoreExt, NewEvent, Owner, Schemas, SealedStore, event, metadata, subject};
use serde_json::Value;
use support::backend::Backend;
use support::{Postgres, customer, customer_scope, on_every_database};

on_every_database! {
    i5_values_that_a_later_version_protects_are_not_kept,
    i5_values_that_were_protected_before_are_kept,
}

/// Each type has a value that its first version does not protect.
fn protected_later() -> Schemas {
    let plain = |name: &str| event(name).version(1).unprotected("a test").version(2);
    let moved = || Changes::new().move_value("/text", "/note/text");
    Schemas::builder([
        plain("Placed").protect(&["/name", "/note"], customer()).change(1, Changes::new()),
        plain("Moved").protect(&["/note"], customer()).change(1, moved()),
        plain("Stepped").protect(&["/note"], customer()).upcast(1, Ok::<Value, Error>),
        plain("Whole").protect_whole(Owner::Aggregate).change(1, Changes::new()),
        event("Logged")
            .version(1)
            .metadata_in_the_clear("a test")
            .version(2)
            .protect_metadata(&["/ip"], metadata("Customer", "/who"))
            .change(1, Changes::new()),
        // A part of what is protected is sealed, and another part is not.
        event("Partly")
            .version(1)
            .protect(&["/note/sealed"], customer())
            .version(2)
            .protect(&["/note"], customer())
            .change(1, Changes::new()),
        event("Beside")
            .version(1)
            .protect(&["/note"], customer())
            .version(2)
            .protect(&["/note"], customer())
            .protect(&["/lines/*/text"], subject("Customer", "/lines/*/of"))
            .change(1, Changes::new()),
    ])
    .allow_older_appends()
    .build()
    .unwrap()
}

async fn i5_values_that_a_later_version_protects_are_not_kept<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(protected_later()).await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let plain = |name: &str, text: &str| NewEvent::raw(name, 1, text.to_owned());
    let logged = |metadata: &str| plain("Logged", "{}").with_metadata(metadata.to_owned());
    let (no, yes) = (SaveOutcome::InTheClear, SaveOutcome::Saved);
    let cases = [
        (no, plain("Placed", r#"{"customer":"c","name":"n","note":null}"#)),
        (no, plain("Moved", r#"{"customer":"c","text":"n"}"#)),
        (yes, plain("Moved", r#"{"customer":"c"}"#)),
        (no, plain("Stepped", r#"{"customer":"c","note":"n"}"#)),
        (yes, plain("Stepped", r#"{"customer":"c","note":null}"#)),
        (no, plain("Whole", r#"{"a":1}"#)),
        (no, logged(r#"{"who":"c","ip":"192.0.2.1"}"#)),
        (yes, logged(r#"{"who":"c"}"#)),
        (no, plain("Partly", r#"{"customer":"c","note":{"sealed":"n","clear":1}}"#)),
        (yes, plain("Partly", r#"{"customer":"c","note":{"sealed":"n","clear":null}}"#)),
        (no, plain("Beside", r#"{"customer":"c","note":"n","lines":[{"of":"c","text":null},{"of":"d","text":0}]}"#)),
        (yes, plain("Beside", r#"{"customer":"c","note":"n","lines":[{"of":"d","text":null}]}"#)),
    ];
    for (number, (outcome, event)) in cases.into_iter().enumerate() {
        let id = number.to_string();
        db.append(&store, &id, &[event]).await;
        let rebuilt = load(&db, &store, &snapshots, &id).await;
        assert_eq!(save(&db, &store, &snapshots, &rebuilt).await.unwrap(), outcome, "number {number}");
        assert_eq!(stored(&db, &snapshots, &id).await.is_some(), outcome.is_saved(), "number {number}");
    }
}

/// The ordinary steps of what was always protected raise no false alarm, erased or not.
async fn i5_values_that_were_protected_before_are_kept<B: Backend>() {
    let db = B::make().await;
    let was = |name: &str| event(name).version(1).protect(&["/text"], customer()).version(2);
    let schemas = Schemas::builder([
        was("Moved").protect(&["/note/text"], customer()).change(1, Changes::new().move_value("/text", "/note/text")),
        was("Around").protect(&["/note"], customer()).change(1, Changes::new().move_value("/text", "/note/text")),
        was("Stepped").protect(&["/note"], customer()).upcast(1, |mut payload: Value| {
            payload["note"] = payload["text"].take();
            Ok::<_, Error>(payload)
        }),
        was("Kept").protect(&["/text"], customer()).upcast(1, Ok::<Value, Error>),
    ]);
    let store = db.prepared(schemas.allow_older_appends().build().unwrap()).await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    for name in ["Moved", "Around", "Stepped", "Kept"] {
        let of = |id: &str| NewEvent::raw(name, 1, format!(r#"{{"customer":"{name} {id}","text":"n"}}"#));
        db.append(&store, name, &[of("erased"), of("live")]).await;
        for _ in 0..2 {
            let rebuilt = load(&db, &store, &snapshots, name).await;
            let saved = save(&db, &store, &snapshots, &rebuilt).await.unwrap();
            assert_eq!(saved, SaveOutcome::Saved, "{name}: {rebuilt:?}");
            db.shred(&store, &format!("{name} erased")).await;
        }
    }
}

/// What a rewrite seals, and a shred then erases, is in no snapshot.
#[tokio::test]
async fn i5_nothing_survives_a_rewrite_and_a_shred() {
    let db = Postgres::make().await;
    let store = db.prepared(protected_later()).await;
    let snapshots = SealedSnapshots::new(db.make_snapshots().await);
    let old = NewEvent::raw("Placed", 1, r#"{"customer":"c","name":"n","note":"of c"}"#);
    db.append(&store, "1", &[old]).await;
    let rebuilt = load(&db, &store, &snapshots, "1").await;
    assert_eq!(save(&db, &store, &snapshots, &rebuilt).await.unwrap(), SaveOutcome::InTheClear);

    let copy = PostgresStore::with_tables(PostgresTables::new().events("events2").heads("heads2")).unwrap();
    let (mut from, mut to) = (db.pool.acquire().await.unwrap(), db.pool.acquire().await.unwrap());
    copy.migrate(&mut to).await.unwrap();
    let done = store.rewrite(&mut from, &copy, &mut to, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!((done.rewritten, done.kept.len()), (1, 0), "{done:?}");
    let moved = SealedStore::with_keys(copy, db.keys().build(), protected_later());
    let order = super::order("1");
    let mut tx = db.pool.begin().await.unwrap();
    let rebuilt = snapshots.load::<Order>(&mut tx, &moved, &order).await.unwrap();
    assert!(!rebuilt.state().names[0].is_redacted());
    assert_eq!(snapshots.save(&mut tx, &moved, &rebuilt).await.unwrap(), SaveOutcome::Saved, "now its owner is known");
    tx.commit().await.unwrap();
    let mut tx = db.pool.begin().await.unwrap();
    moved.keys().shred(&mut tx, &customer_scope("c"), "request").await.unwrap();
    tx.commit().await.unwrap();
    let after = snapshots.load::<Order>(&mut from, &moved, &order).await.unwrap();
    assert!(after.state().names[0].is_redacted() && after.discarded().is_some(), "{after:?}");
    assert_eq!(moved.read_stream(&mut from, &order).await.unwrap().events[0].redacted.len(), 2);
}
