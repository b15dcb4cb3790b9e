//! I5 for snapshots: a save and a shred that meet. Whoever locks the scope first wins, and no snapshot keeps what was
//! erased.

use super::{Order, SaveOutcome, Snapshots, keep, load, order, placed, save, schemas, stored, try_load, world};
use eventseal::SealedStore;
use eventseal::snapshots::{Rebuilt, SealedSnapshots};
use std::sync::Arc;
use support::backend::Backend;
use support::{Deadline, Postgres, customer_scope, on_every_database, on_sqlite_and_postgres};

mod everywhere {
    use super::*;

    on_every_database! {
        i5_what_was_read_before_a_shred_is_not_kept_after_it,
    }

    use super::i5_what_was_read_before_a_shred_is_not_kept_after_it;
}

on_sqlite_and_postgres! {
    i5_saves_loads_and_a_shred_that_run_at_once,
}

/// Events are read. Another process shreds the owner and opens the scope anew. A snapshot under the key of the new
/// generation would keep what was erased.
async fn i5_what_was_read_before_a_shred_is_not_kept_after_it<B: Backend>() {
    for (number, changes) in ["s", "sr", "sra", "d", "sr sr", "t"].into_iter().enumerate() {
        let (db, store, snapshots) = world::<B>().await;
        let other = db.process(schemas());
        db.append(&store, "1", &[placed("1"), placed("2")]).await;
        if number % 2 == 1 {
            keep(&db, &store, &snapshots, "1").await;
        }
        let before = stored(&db, &snapshots, "1").await;
        // From a snapshot, or from events: both bring their keys along.
        let rebuilt = load(&db, &store, &snapshots, "1").await;
        assert_eq!(rebuilt.folded() == 0, number % 2 == 1);
        for change in changes.chars() {
            match change {
                's' => drop(db.shred(&other, "1").await),
                'r' => db.reopen(&other, "1").await,
                'a' => drop(db.append(&other, "1", &[placed("1")]).await),
                'd' => db.disable(&other, "1").await,
                't' => {
                    db.disable(&other, "2").await;
                    db.shred(&other, "2").await;
                }
                _ => {}
            }
        }
        for process in [&store, &other, &db.process(schemas())] {
            let outcome = save(&db, process, &snapshots, &rebuilt).await.unwrap();
            assert_eq!(outcome, SaveOutcome::KeyChanged, "after {changes}");
            assert_eq!(stored(&db, &snapshots, "1").await, before, "after {changes}");
        }
    }
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
async fn i5_a_save_that_waited_for_a_shred_keeps_nothing() {
    let (db, store, snapshots) = world::<Postgres>().await;
    let db = Arc::new(db);
    for (id, commits, reopens) in [("1", true, false), ("2", false, false), ("3", true, true)] {
        db.append(&store, id, &[placed(id)]).await;
        let rebuilt = load(&*db, &store, &snapshots, id).await;
        let mut shredding = db.pool.begin().await.unwrap();
        store.keys().shred(&mut shredding, &customer_scope(id), "request").await.unwrap();
        if reopens {
            store.keys().reopen(&mut shredding, &customer_scope(id), "back").await.unwrap();
        }
        let saving = tokio::spawn({
            let (db, snapshots) = (Arc::clone(&db), snapshots.clone());
            async move { save(&*db, &db.prepared(schemas()).await, &snapshots, &rebuilt).await }
        });
        until_somebody_waits(&db).await;
        if commits {
            shredding.commit().await.unwrap();
            assert_eq!(saving.await.unwrap().unwrap(), SaveOutcome::KeyChanged);
            assert_eq!(stored(&*db, &snapshots, id).await, None);
        } else {
            shredding.rollback().await.unwrap();
            assert_eq!(saving.await.unwrap().unwrap(), SaveOutcome::Saved);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_shred_waits_for_a_save_and_takes_its_snapshot() {
    let (db, store, snapshots) = world::<Postgres>().await;
    let db = Arc::new(db);
    db.append(&store, "1", &[placed("1")]).await;
    let mut saving = db.pool.begin().await.unwrap();
    let rebuilt = snapshots.load::<Order>(&mut saving, &store, &order("1")).await.unwrap();
    assert!(snapshots.save(&mut saving, &store, &rebuilt).await.unwrap().is_saved());
    let shredding = tokio::spawn({
        let db = Arc::clone(&db);
        async move { db.try_shred(&db.prepared(schemas()).await, "1").await }
    });
    until_somebody_waits(&db).await;
    saving.commit().await.unwrap();
    assert_eq!(shredding.await.unwrap().unwrap().destroyed.len(), 1);
    let rebuilt = load(&*db, &store, &snapshots, "1").await;
    assert!(rebuilt.state().names[0].is_redacted() && rebuilt.discarded().is_some(), "the snapshot outlived the shred");
}

/// Under REPEATABLE READ, a transaction sees the keys of its first read. What it read is kept by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_transaction_with_an_old_snapshot_keeps_nothing() {
    let (db, store, snapshots) = world::<Postgres>().await;
    db.append(&store, "1", &[placed("1")]).await;
    for reopens in [false, true] {
        let mut old = db.begin_snapshot().await;
        let rebuilt = snapshots.load::<Order>(&mut old, &store, &order("1")).await.unwrap();
        db.shred(&store, "1").await;
        if reopens {
            db.reopen(&store, "1").await;
        }
        let refused = snapshots.save(&mut old, &store, &rebuilt).await;
        assert!(refused.as_ref().is_err_and(eventseal::Error::is_retryable), "{refused:?}");
        db.roll_back(old).await;
        assert_eq!(stored(&db, &snapshots, "1").await, None);
        if !reopens {
            db.reopen(&store, "1").await;
            db.append(&store, "1", &[placed("1")]).await;
        }
    }
}

/// Three tasks load and save while a fourth shreds. What they see goes one way: from the name to its redaction.
async fn i5_saves_loads_and_a_shred_that_run_at_once<B: Backend>() {
    let (db, store, snapshots) = world::<B>().await;
    let db = Arc::new(db);
    for round in 0..5 {
        let id = format!("{round}");
        db.append(&store, &id, &[placed(&id), placed("somebody else")]).await;
        let tasks = (0..3).map(|_| {
            let (db, snapshots, id) = (Arc::clone(&db), snapshots.clone(), id.clone());
            tokio::spawn(async move { save_until_shredded(&*db, &db.process(schemas()), &snapshots, &id).await })
        });
        let tasks: Vec<_> = tasks.collect();
        let deadline = Deadline::of("for a snapshot to be saved");
        while stored(&*db, &snapshots, &id).await.is_none() {
            deadline.look_again().await;
        }
        let deadline = Deadline::of("for a shred to get its turn");
        while let Err(error) = db.try_shred(&store, &id).await {
            assert!(error.is_retryable(), "{error:?}");
            deadline.look_again().await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let rebuilt = load(&*db, &store, &snapshots, &id).await;
        assert!(rebuilt.state().names[0].is_redacted(), "a name outlived the shred: {rebuilt:?}");
    }
}

async fn save_until_shredded<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    snapshots: &SealedSnapshots<B::Snapshots>,
    id: &str,
) where
    Snapshots<B>: Clone,
{
    let deadline = Deadline::of("for the shred");
    let mut erased = false;
    loop {
        deadline.check();
        let rebuilt: Rebuilt<Order> = match try_load(db, store, snapshots, id).await {
            Ok(rebuilt) => rebuilt,
            Err(error) if error.is_retryable() => continue,
            Err(error) => panic!("{error:?}"),
        };
        let is_redacted = rebuilt.state().names[0].is_redacted();
        assert!(is_redacted || !erased, "the name came back: {rebuilt:?}");
        erased = is_redacted;
        match save(db, store, snapshots, &rebuilt).await {
            Ok(SaveOutcome::Saved) if erased => return,
            Ok(SaveOutcome::Saved | SaveOutcome::KeyChanged) => {}
            Err(error) if error.is_retryable() => {}
            outcome => panic!("{outcome:?}"),
        }
    }
}
