//! A hold and a shred that meet: whoever locks the scope first wins, and never do both succeed.

use super::{commit, is_scope_state, placed, reads, schemas, soon, sweep, until};
use eventseal::Error;
use eventseal::conformance::Database;
use eventseal::erasure::ShredMode;
use eventseal::error::KeyFault;
use std::sync::Arc;
use support::backend::Backend;
use support::{Deadline, Postgres, customer_scope};

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
async fn i12_a_hold_that_comes_while_a_shred_waits_wins_if_it_locked_first() {
    let db = Arc::new(Postgres::new().await);
    let store = db.prepared(schemas()).await;
    for (id, commits) in [("1", true), ("2", false)] {
        db.append(&store, id, &[placed(id)]).await;
        let mut transaction = db.pool.begin().await.unwrap();
        let hold = store.keys().hold(&mut transaction, &customer_scope(id), "case", None).await.unwrap();
        let shredding = tokio::spawn({
            let db = Arc::clone(&db);
            async move {
                let store = db.prepared(schemas()).await;
                db.try_shred(&store, id).await
            }
        });
        until_somebody_waits(&db).await;
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let shredded = shredding.await.unwrap();
        if commits {
            assert!(
                matches!(&shredded, Err(Error::Keys(KeyFault::Held { holds, .. })) if holds[0].id == hold.id),
                "{shredded:?}"
            );
        } else {
            assert_eq!(shredded.unwrap().destroyed.len(), 1);
        }
        assert_eq!(reads(&*db, &store, id).await.unwrap(), if commits { "values" } else { "stand-ins" });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_hold_that_waits_for_a_shred_is_refused() {
    let db = Arc::new(Postgres::new().await);
    let store = db.prepared(schemas()).await;
    for (id, commits) in [("1", true), ("2", false)] {
        db.append(&store, id, &[placed(id)]).await;
        let mut transaction = db.pool.begin().await.unwrap();
        store.keys().shred(&mut transaction, &customer_scope(id), "request").await.unwrap();
        let holding = tokio::spawn({
            let db = Arc::clone(&db);
            async move {
                let store = db.prepared(schemas()).await;
                commit!(db, store, hold(&customer_scope(id), "case", None))
            }
        });
        until_somebody_waits(&db).await;
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        let held = holding.await.unwrap();
        if commits { assert!(is_scope_state(held)) } else { assert!(held.is_ok(), "{held:?}") }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_sweep_that_waits_for_a_hold_leaves_the_scope() {
    let db = Arc::new(Postgres::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let due = soon();
    commit!(db, store, schedule_shred(&customer_scope("1"), due, ShredMode::KeepWorking, "request")).unwrap();
    until(due).await;
    let mut transaction = db.pool.begin().await.unwrap();
    store.keys().hold(&mut transaction, &customer_scope("1"), "case", None).await.unwrap();
    let sweeping = tokio::spawn({
        let db = Arc::clone(&db);
        async move { sweep(&*db, &db.prepared(schemas()).await).await.unwrap() }
    });
    until_somebody_waits(&db).await;
    transaction.commit().await.unwrap();
    let swept = sweeping.await.unwrap();
    assert_eq!((swept.shredded, swept.held.len(), swept.failed.len()), (0, 1, 0));
    assert_eq!(reads(&*db, &store, "1").await.unwrap(), "values");
}
