//! I5 for blind indexes, and uniqueness: adds, shreds and rotations that meet, on PostgreSQL and SQLite. Whoever locks
//! first wins, no entry outlives the shred of its scope, and no value has two owners.

use super::{Indexed, schemas, shop};
use eventseal::blind_index::BlindLookup;
use eventseal::{Error, Result, SealedStore};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::backend::Backend;
use support::{Deadline, Postgres, customer_scope, in_time, on_sqlite_and_postgres};

on_sqlite_and_postgres! {
    i5_adds_and_a_shred_that_run_at_once,
    one_of_many_that_add_a_value_at_once_has_it,
}

/// Waits until this many sessions wait for a lock.
async fn until_waiting(db: &Postgres, sessions: i64) {
    let deadline = Deadline::of("for sessions to wait for a lock");
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&db.pool).await.unwrap() < sessions {
        deadline.look_again().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_shred_waits_for_an_add_and_takes_its_entry_away() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    // The first round makes the index key, the second one meets it.
    for id in ["1", "2"] {
        let mut adding = db.pool.begin().await.unwrap();
        let value = format!("{id}@example.org");
        store.lookup(&emails).add(&mut adding, &customer_scope(id), &value).await.unwrap();
        let shredding = tokio::spawn({
            let (db, store) = (Arc::clone(&db), Arc::clone(&store));
            async move { db.try_shred(&store, id).await }
        });
        until_waiting(&db, 1).await;
        adding.commit().await.unwrap();
        in_time("for a shred", shredding).await.unwrap().unwrap();
        assert_eq!(db.owners().await, [""; 0], "the entry outlived the shred");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_an_add_that_waited_for_a_shred_is_refused() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    for (id, commits) in [("1", true), ("2", false)] {
        db.add(&store, &emails, id, &format!("{id}@old.example")).await;
        let mut shredding = db.pool.begin().await.unwrap();
        store.keys().shred(&mut shredding, &customer_scope(id), "request").await.unwrap();
        let adding = tokio::spawn({
            let (db, store, emails) = (Arc::clone(&db), Arc::clone(&store), emails.clone());
            async move { db.try_add(&store, &emails, id, &format!("{id}@new.example")).await }
        });
        until_waiting(&db, 1).await;
        if commits {
            shredding.commit().await.unwrap();
            let refused = in_time("for an add", adding).await.unwrap();
            assert!(refused.as_ref().is_err_and(Error::is_shredded), "{refused:?}");
            assert_eq!(db.owners().await, [""; 0]);
        } else {
            shredding.rollback().await.unwrap();
            in_time("for an add", adding).await.unwrap().unwrap();
            assert_eq!(db.find(&store, &emails, "2@new.example").await.as_deref(), Some("2"));
            assert_eq!(db.find(&store, &emails, "2@old.example").await.as_deref(), Some("2"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_transactions_that_add_a_value_one_has_it() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    db.add(&store, &emails, "0", "zero@example.org").await;
    for (round, commits) in [("a", true), ("b", false), ("c", true)] {
        let (first, second) = if round == "c" { ("2", "1") } else { ("1", "2") };
        let value = format!("{round}@example.org");
        let mut adding = db.pool.begin().await.unwrap();
        store.lookup(&emails).add(&mut adding, &customer_scope(first), &value).await.unwrap();
        let other = tokio::spawn({
            let (db, store, emails, value) = (Arc::clone(&db), Arc::clone(&store), emails.clone(), value.clone());
            async move { db.try_add(&store, &emails, second, &value).await }
        });
        until_waiting(&db, 1).await;
        let owner = if commits {
            adding.commit().await.unwrap();
            let taken = in_time("for an add", other).await.unwrap();
            assert!(taken.as_ref().is_err_and(Error::is_conflict), "{taken:?}");
            first
        } else {
            adding.rollback().await.unwrap();
            in_time("for an add", other).await.unwrap().unwrap();
            second
        };
        assert_eq!(db.find(&store, &emails, &value).await.as_deref(), Some(owner));
    }
}

/// An owner is reopened, and adds a value of before again, while another owner is about to take its erased entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_add_that_waited_for_a_reopening_takes_no_live_entry() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    db.add(&store, &emails, "1", "ada@example.org").await;
    db.add(&store, &emails, "2", "kim@example.org").await;
    // The consumer does not see this, so the entry stays.
    db.shred(&db.process(schemas()), "1").await;
    let mut reopening = db.pool.begin().await.unwrap();
    let owner = customer_scope("1");
    store.keys().reopen(&mut reopening, &owner, "back").await.unwrap();
    let adding = tokio::spawn({
        let (db, store, emails) = (Arc::clone(&db), Arc::clone(&store), emails.clone());
        async move { db.try_add(&store, &emails, "2", "ada@example.org").await }
    });
    until_waiting(&db, 1).await;
    store.lookup(&emails).add(&mut reopening, &owner, "ada@example.org").await.unwrap();
    reopening.commit().await.unwrap();
    let taken = in_time("for an add", adding).await.unwrap();
    assert!(taken.as_ref().is_err_and(Error::is_conflict), "{taken:?}");
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"), "its entry was taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_a_rotation_waits_for_removals() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    db.add(&store, &emails, "1", "ada@example.org").await;
    let mut removing = db.pool.begin().await.unwrap();
    store.lookup(&emails).remove(&mut removing, &customer_scope("1"), "ada@example.org").await.unwrap();
    let rotating = tokio::spawn({
        let (db, store) = (Arc::clone(&db), Arc::clone(&store));
        async move {
            let mut rotating = db.pool.begin().await.unwrap();
            store.keys().rotate_index_key(&mut rotating).await.unwrap();
            rotating.commit().await.unwrap();
        }
    });
    until_waiting(&db, 1).await;
    removing.commit().await.unwrap();
    in_time("for a rotation", rotating).await.unwrap();
    assert_eq!(db.owners().await, [""; 0]);
}

/// A transaction that has added under the old key alone is committed before the rotation is, so that whoever looks
/// after the rotation sees its entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_a_rotation_waits_for_adds_and_later_adds_wait_for_it() {
    let (db, store, emails) = shop::<Postgres>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    db.add(&store, &emails, "0", "zero@example.org").await;
    let mut adding = db.pool.begin().await.unwrap();
    store.lookup(&emails).add(&mut adding, &customer_scope("1"), "ada@example.org").await.unwrap();
    let rotating = tokio::spawn({
        let (db, store) = (Arc::clone(&db), Arc::clone(&store));
        async move {
            let mut rotating = db.pool.begin().await.unwrap();
            store.keys().rotate_index_key(&mut rotating).await.map(|_| rotating)
        }
    });
    until_waiting(&db, 1).await;
    adding.commit().await.unwrap();
    let rotating = in_time("for a rotation", rotating).await.unwrap().unwrap();
    let later = tokio::spawn({
        let (db, store, emails) = (Arc::clone(&db), Arc::clone(&store), emails.clone());
        async move { db.try_add(&store, &emails, "2", "kim@example.org").await }
    });
    until_waiting(&db, 1).await;
    rotating.commit().await.unwrap();
    in_time("for an add", later).await.unwrap().unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    let refused = store.lookup(&emails).finish_rotation(&mut connection).await.unwrap_err();
    assert!(support::fault(&refused).starts_with("RotationUnfinished"), "{refused:?}");
    for (id, value) in [("0", "zero@example.org"), ("1", "ada@example.org")] {
        db.add(&store, &emails, id, value).await;
    }
    let finished = store.lookup(&emails).finish_rotation(&mut connection).await.unwrap();
    assert_eq!(finished.removed, 3, "the later add was written under both keys");
    assert_eq!(db.find(&store, &emails, "kim@example.org").await.as_deref(), Some("2"));
}

/// Two tasks add values of a scope, and find them, while a third one shreds it. Afterwards nothing is there.
///
/// An add holds a shared lock on its scope until it commits, and PostgreSQL lets others share it while a shred waits.
/// If adds overlap without a gap, a shred gets no turn. So each task adds values of its own: tasks that add one value
/// wait for each other while they hold the lock, and so always overlap.
async fn i5_adds_and_a_shred_that_run_at_once<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let (db, store) = (Arc::new(db), Arc::new(store));
    for round in 0..5 {
        let id = format!("customer {round}");
        db.add(&store, &emails, &id, &format!("{round}@example.org")).await;
        let tasks = (0..2).map(|task| {
            let (db, id, emails) = (Arc::clone(&db), id.clone(), emails.clone());
            tokio::spawn(async move { add_until_shredded(&*db, &emails, &id, &format!("{round}-{task}")).await })
        });
        let tasks: Vec<_> = tasks.collect();
        let deadline = Deadline::of("for a shred to get its turn");
        while let Err(error) = in_time("for a shred", db.try_shred(&store, &id)).await {
            assert!(error.is_retryable(), "{error:?}");
            deadline.look_again().await;
        }
        assert!(!db.owners().await.contains(&id), "an entry outlived the shred");
        let added = Arc::new(AtomicUsize::new(0));
        for task in tasks {
            added.fetch_add(in_time("for an add", task).await.unwrap(), Ordering::Relaxed);
        }
        assert!(!db.owners().await.contains(&id), "an entry was added after the shred");
    }
}

/// Adds values until the scope is shredded, and returns how many were committed.
async fn add_until_shredded<B: Indexed>(db: &B, emails: &BlindLookup<B::Tx>, id: &str, name: &str) -> usize {
    let store = db.process(schemas());
    let deadline = Deadline::of("for the shred");
    for number in 0.. {
        deadline.check();
        let value = format!("{name}-{number}@example.org");
        match db.try_add(&store, emails, id, &value).await {
            Ok(()) => match db.try_find(&store, emails, &value).await {
                Ok(found) => assert!(found.is_none_or(|owner| owner == id)),
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            },
            Err(error) if error.is_shredded() => return number,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    0
}

/// Several processes add one value for owners of their own, before there is an index key.
async fn one_of_many_that_add_a_value_at_once_has_it<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let db = Arc::new(db);
    for round in 0..4 {
        let value = format!("{round}@example.org");
        let tasks = (0..4).map(|task| {
            let (db, emails, value) = (Arc::clone(&db), emails.clone(), value.clone());
            tokio::spawn(async move {
                let store = db.process(schemas());
                (task, add_at_last(&*db, &store, &emails, &task.to_string(), &value).await)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let mut owners = Vec::new();
        for task in tasks {
            let (task, added) = in_time("for an add", task).await.unwrap();
            match added {
                Ok(()) => owners.push(task.to_string()),
                Err(error) => assert!(error.is_conflict(), "{error:?}"),
            }
        }
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(db.find(&store, &emails, &value).await, owners.pop());
    }
}

/// Adds as applications do: again if something was in the way.
async fn add_at_last<B: Indexed>(
    db: &B,
    store: &SealedStore<B::Store>,
    emails: &BlindLookup<B::Tx>,
    id: &str,
    value: &str,
) -> Result<()> {
    let deadline = Deadline::of("for an add that collides with nobody");
    loop {
        deadline.check();
        match db.try_add(store, emails, id, value).await {
            Err(error) if error.is_retryable() => {}
            done => return done,
        }
    }
}
