//! I5 for values: a seal and a shred that meet, on PostgreSQL and SQLite. Whoever locks the scope first wins, and no
//! value is ever sealed under a destroyed key.

use super::{EMAIL, exposed, open, schemas, seal};
use eventseal::Error;
use eventseal::values::SealedValue;
use std::sync::Arc;
use support::backend::Backend;
use support::{Deadline, Postgres, customer_scope, on_sqlite_and_postgres};

on_sqlite_and_postgres! {
    i5_seals_opens_and_a_shred_that_run_at_once,
}

/// Waits until a session waits for a lock.
async fn until_somebody_waits(db: &Postgres) {
    let deadline = Deadline::of("for a session to wait for a lock");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&db.pool).await.unwrap() == 0 {
        deadline.look_again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_shred_waits_for_a_seal_and_erases_its_value() {
    let db = Arc::new(Postgres::new().await);
    let store = db.prepared(schemas()).await;
    for id in ["known", "new"] {
        if id == "known" {
            seal(&*db, &store, id, b"before").await.unwrap();
        }
        let mut sealing = db.pool.begin().await.unwrap();
        let value = store.seal_value(&mut sealing, &customer_scope(id), EMAIL, "Ada").await.unwrap();
        let shredding = tokio::spawn({
            let db = Arc::clone(&db);
            async move { db.try_shred(&db.prepared(schemas()).await, id).await }
        });
        until_somebody_waits(&db).await;
        sealing.commit().await.unwrap();
        assert_eq!(shredding.await.unwrap().unwrap().destroyed.len(), 1);
        assert!(open(&*db, &store, id, &value).await.unwrap().is_redacted(), "{id}: the value outlived the shred");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_seal_that_waited_for_a_shred_is_refused() {
    let db = Arc::new(Postgres::new().await);
    let store = db.prepared(schemas()).await;
    for (id, commits) in [("1", true), ("2", false)] {
        seal(&*db, &store, id, b"before").await.unwrap();
        let mut shredding = db.pool.begin().await.unwrap();
        store.keys().shred(&mut shredding, &customer_scope(id), "request").await.unwrap();
        let sealing = tokio::spawn({
            let db = Arc::clone(&db);
            async move { seal(&*db, &db.prepared(schemas()).await, id, b"Ada").await }
        });
        until_somebody_waits(&db).await;
        if commits {
            shredding.commit().await.unwrap();
            let refused = sealing.await.unwrap();
            assert!(refused.as_ref().is_err_and(Error::is_shredded), "{refused:?}");
        } else {
            shredding.rollback().await.unwrap();
            assert_eq!(exposed(&*db, &store, id, &sealing.await.unwrap().unwrap()).await, b"Ada");
        }
    }
}

/// Four tasks seal and open while a fifth shreds. Afterwards nothing opens, and nothing that was committed is lost.
async fn i5_seals_opens_and_a_shred_that_run_at_once<B: Backend>() {
    let db = Arc::new(B::make().await);
    let store = db.prepared(schemas()).await;
    for round in 0..5 {
        let id = format!("customer {round}");
        let first = seal(&*db, &store, &id, b"Ada").await.unwrap();
        let tasks = (0..4).map(|_| {
            let (db, id, first) = (Arc::clone(&db), id.clone(), first.clone());
            tokio::spawn(async move { seal_until_shredded(&*db, &id, &first).await })
        });
        let tasks: Vec<_> = tasks.collect();
        let deadline = Deadline::of("for a shred to get its turn");
        while let Err(error) = db.try_shred(&store, &id).await {
            assert!(error.is_retryable(), "{error:?}");
            deadline.look_again().await;
        }
        let mut sealed = vec![first];
        for task in tasks {
            sealed.extend(task.await.unwrap());
        }
        for value in &sealed {
            assert!(open(&*db, &store, &id, value).await.unwrap().is_redacted(), "a value outlived the shred");
        }
    }
}

/// Seals values until the scope is shredded, and returns those that were committed. What a reader sees of the first
/// goes one way: from the value to its redaction.
async fn seal_until_shredded<B: Backend>(db: &B, id: &str, first: &SealedValue) -> Vec<SealedValue> {
    let store = db.process(schemas());
    let deadline = Deadline::of("for the shred");
    let (mut sealed, mut erased) = (Vec::new(), false);
    loop {
        deadline.check();
        match open(db, &store, id, first).await {
            Ok(opened) => {
                assert!(opened.is_redacted() || !erased, "the value came back");
                erased = opened.is_redacted();
                assert!(erased || opened.into_exposed().unwrap() == b"Ada");
            }
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        match seal(db, &store, id, b"Ada").await {
            Ok(value) => {
                assert!(!erased, "a value was sealed after the shred");
                sealed.push(value);
            }
            Err(error) if error.is_shredded() => return sealed,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
}
