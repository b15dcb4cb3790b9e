//! Rewrites beside appends, shreds and another rewrite.

use super::{ordered, placed, read_copy, rewrite, schemas, seen, small, with};
use eventseal::error::MaintenanceFault;
use eventseal::maintenance::CensusOptions;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{
    Error, EventFilter, EventStore, ExpectedVersion, GlobalPosition, KeyScope, NewEvent, SealedStore, aggregate,
};
use std::time::Duration;
use support::Deadline;
use support::backend::{Backend, Meddled};
use support::sealing::CANARY;
use support::{KEYRING, Postgres, contains, on_every_database};

on_every_database! {
    i5_others_go_on_meanwhile,
    i5_readers_may_lag_and_a_copy_does_not,
}

#[expect(clippy::too_many_lines, reason = "what happens between two batches, in its order")]
async fn i5_others_go_on_meanwhile<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let people: Vec<String> = (0..10).map(|number| format!("p{number}")).collect();
    for round in 0..12 {
        let events: Vec<NewEvent> =
            people.iter().map(|name| if round % 3 == 0 { ordered(name) } else { placed(name) }).collect();
        if round % 4 == 1 {
            db.append_bare(&format!("plain {round}"), &events).await;
        } else {
            db.append(&store, &format!("sealed {round}"), &events).await;
        }
    }
    let target = B::Store::default();
    let options = with(small(), |options| options.batch = 7);
    let copying = async {
        let mut rewritten = 0;
        for _ in 0..4 {
            rewritten += loop {
                match rewrite(&db, &store, &copy, &target, &options).await {
                    Err(error) if error.is_retryable() => {}
                    done => break done.unwrap().rewritten,
                }
            };
        }
        rewritten
    };
    let meanwhile = async {
        let other = db.process(schemas());
        for (number, name) in people.iter().enumerate() {
            loop {
                let mut transaction = db.begin().await.unwrap();
                let tx = db.tx(&mut transaction);
                let mut done = other
                    .append(tx, &aggregate("Order", "meanwhile"), ExpectedVersion::Any, &[placed("new")])
                    .await
                    .map(drop);
                if done.is_ok() && number % 2 == 0 {
                    done = other.keys().shred(tx, &KeyScope::new("Customer", name.as_str()), "request").await.map(drop);
                }
                match if done.is_ok() { db.commit(transaction).await } else { done } {
                    Ok(()) => break,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let (rewritten, ()) = tokio::join!(copying, meanwhile);
    assert!(rewritten > 50, "{rewritten}");
    rewrite(&db, &store, &copy, &target, &options).await.unwrap();
    let (now, source) = (read_copy(&db, &copy).await.unwrap(), db.read_log(&store).await.unwrap());
    assert_eq!((now.len(), source.len()), (130, 130));
    for event in now.iter().filter(|event| !event.aggregate.aggregate_id().starts_with("plain")) {
        let gone = people.iter().step_by(2).any(|gone| contains(&event.payload, &format!("\"{gone}\"")));
        assert_eq!(
            (event.is_redacted(), contains(&event.payload, CANARY)),
            (gone, !gone),
            "I5: no value outlives its shred in the copy"
        );
    }
}

async fn i5_readers_may_lag_and_a_copy_does_not<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    drop(db.prepared(schemas()).await);
    let store = db.process_over(db.keys().reads_may_lag(Duration::from_secs(3_600)), schemas());
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    // Not in a transaction: what that sees may be old, and makes nobody lag.
    let first = async || {
        let mut connection = db.connect().await.unwrap();
        let page = store
            .read_events(db.connection(&mut connection), GlobalPosition::START, 1, &EventFilter::default())
            .await
            .unwrap();
        page.events.into_iter().next().unwrap()
    };
    assert!(contains(&first().await.payload, CANARY));
    db.shred(&db.process(schemas()), "ada").await;
    assert!(contains(&first().await.payload, CANARY), "its readers lag");
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    assert_eq!((done.rewritten, done.with_voids), (2, 1));
    assert!(read_copy(&db, &copy).await.unwrap()[0].is_redacted());
}

/// Into other tables of the same database: a release can switch from one to the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_other_tables_of_the_same_database_and_what_is_in_flight() {
    let db = Postgres::new().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    db.shred(&store, "eve").await;
    let target = PostgresStore::with_tables(PostgresTables::new().events("events_2").heads("heads_2")).unwrap();
    target.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    // A position that is given out and not committed: the copy must not pass it.
    let mut open = db.pool.begin().await.unwrap();
    store.append(&mut open, &aggregate("Order", "open"), ExpectedVersion::Any, &[placed("ada")]).await.unwrap();
    db.append(&store, "2", &[ordered("kim")]).await;
    let (pool, copying) = (db.pool.clone(), target.clone());
    let store = std::sync::Arc::new(store);
    let (rewriting, source) = (std::sync::Arc::clone(&store), db.pool.clone());
    let running = tokio::spawn(async move {
        let (mut connection, mut other) = (source.acquire().await.unwrap(), pool.acquire().await.unwrap());
        rewriting.rewrite(&mut connection, &copying, &mut other, &small(), &mut |_| {}).await
    });
    let waits =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'ShareLock' AND relation = 'events'::regclass";
    let deadline = Deadline::of("for somebody to wait for a lock");
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&db.pool).await.unwrap() == 0 {
        deadline.look_again().await;
        assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
    }
    open.commit().await.unwrap();
    let done = running.await.unwrap().unwrap();
    assert_eq!((done.copied, done.rewritten, done.up_to.get()), (1, 3, 4));
    let copied = SealedStore::new(target, PostgresKeys::new(), std::sync::Arc::clone(&*KEYRING), schemas());
    assert!(seen(db.read_log(&copied).await.unwrap()) == seen(db.read_log(&*store).await.unwrap()));
    let appended = db.append(&copied, "1", &[ordered("ada")]).await;
    assert_eq!((appended[0].aggregate_version.get(), appended[0].global_position.get()), (3, 5));
    let mut connection = db.pool.acquire().await.unwrap();
    let options = CensusOptions::default();
    let census = copied.census(&mut connection, &options, &mut |_| {}).await.unwrap();
    assert!(
        census.may_delete_step("Placed", 1).is_yes() && census.may_delete_step("Placed", 2).is_yes(),
        "its steps can go"
    );
}

/// How many sessions wait for a lock that another one has.
async fn waiting(db: &Postgres) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).fetch_one(&db.pool).await.unwrap()
}

/// A subject is shredded, and reopened, between the moment at which its values are read and the one at which they are
/// locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_what_is_shredded_before_the_lock_is_had_is_void() {
    for reopens in [true, false] {
        let (db, copy) = (Postgres::new().await, Postgres::new().await);
        let store = std::sync::Arc::new(db.prepared(schemas()).await);
        db.append(&*store, "1", &[placed("ada"), placed("eve")]).await;
        let mut shredding = db.pool.begin().await.unwrap();
        let ada = KeyScope::new("Customer", "ada");
        store.keys().shred(&mut shredding, &ada, "request").await.unwrap();
        if reopens {
            store.keys().reopen(&mut shredding, &ada, "back").await.unwrap();
        }
        // A process with caches of its own, which still sees the key.
        let other = db.process(schemas());
        let (from, to) = (db.pool.clone(), copy.pool.clone());
        let running = tokio::spawn(async move {
            let (mut connection, mut target) = (from.acquire().await.unwrap(), to.acquire().await.unwrap());
            other.rewrite(&mut connection, &PostgresStore::new(), &mut target, &small(), &mut |_| {}).await
        });
        let deadline = Deadline::of("for somebody to wait for a lock");
        while waiting(&db).await == 0 {
            deadline.look_again().await;
            assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
        }
        shredding.commit().await.unwrap();
        let done = running.await.unwrap().unwrap();
        assert_eq!((done.rewritten, done.with_voids), (2, 1), "the page was done again");
        let now = read_copy(&db, &copy).await.unwrap();
        assert!(now[0].is_redacted() && !contains(&now[0].payload, CANARY) && contains(&now[1].payload, CANARY));
    }
}

/// A second call writes less than the first one has read, and stops or goes on, while the first one waits for a lock
/// that it then gets in vain: what the second one wrote must not be taken for the whole page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i8_two_at_once_lose_nothing() {
    for goes_on in [false, true] {
        let (db, copy) = (Postgres::new().await, Postgres::new().await);
        let store = std::sync::Arc::new(db.prepared(schemas()).await);
        let events: Vec<NewEvent> = ["ada", "eve", "kim", "bob", "pat", "sue"].into_iter().map(placed).collect();
        db.append(&*store, "1", &events).await;
        let mut shredding = db.pool.begin().await.unwrap();
        store.keys().shred(&mut shredding, &KeyScope::new("Customer", "kim"), "request").await.unwrap();
        let run = |batch: u32| {
            let (other, from, to) = (db.process(schemas()), db.pool.clone(), copy.pool.clone());
            tokio::spawn(async move {
                let (mut connection, mut target) = (from.acquire().await.unwrap(), to.acquire().await.unwrap());
                let options = with(small(), |options| options.batch = batch);
                other.rewrite(&mut connection, &PostgresStore::new(), &mut target, &options, &mut |_| {}).await
            })
        };
        let first = run(4);
        let deadline = Deadline::of("for somebody to wait for a lock");
        while waiting(&db).await < 1 {
            deadline.look_again().await;
            assert!(!first.is_finished(), "it did not wait: {:?}", first.await);
        }
        let second = run(1);
        let deadline = Deadline::of("for somebody to wait for a lock");
        while waiting(&db).await < 2 {
            deadline.look_again().await;
            assert!(!second.is_finished(), "it did not wait: {:?}", second.await);
        }
        assert_eq!(copy.stored().await.len(), 2);
        if !goes_on {
            second.abort();
        }
        shredding.commit().await.unwrap();
        let done = first.await.unwrap().unwrap();
        if goes_on {
            assert_eq!(second.await.unwrap().unwrap().up_to.get(), 6);
        }
        let now = seen(read_copy(&db, &copy).await.unwrap());
        assert!(now == seen(db.read_log(&*store).await.unwrap()), "{} of 6, and it says {done:?}", now.len());
    }
}

/// A shred waits until the target has committed, and then holds for what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_a_shred_waits_until_the_copy_is_committed() {
    let (db, copy) = (std::sync::Arc::new(Postgres::new().await), Postgres::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    let target = Meddled::<Postgres>::default();
    let (shredder, (told, shredded)) = (std::sync::Arc::clone(&db), std::sync::mpsc::channel());
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let (db, told) = (std::sync::Arc::clone(&shredder), told.clone());
        Box::pin(async move {
            let other = std::sync::Arc::clone(&db);
            let shredding = tokio::spawn(async move { other.shred(&other.process(schemas()), "ada").await });
            let deadline = Deadline::of("for somebody to wait for a lock");
            while waiting(&db).await == 0 {
                deadline.look_again().await;
                assert!(!shredding.is_finished(), "I5: a shred went past the locks");
            }
            told.send(shredding).unwrap();
        })
    }));
    assert_eq!(rewrite(&*db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
    assert_eq!(shredded.recv().unwrap().await.unwrap().destroyed.len(), 1);
    let now = read_copy(&*db, &copy).await.unwrap();
    assert!(now[0].is_redacted() && !contains(&now[0].payload, CANARY) && contains(&now[1].payload, CANARY));
}

/// Written events are verified with the keys as they are in the table then, whatever this process has cached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_what_was_written_is_opened_with_the_keys_that_are_there() {
    let (db, copy) = (std::sync::Arc::new(Postgres::new().await), Postgres::new().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve")]).await;
    let target = Meddled::<Postgres>::default();
    let vandal = std::sync::Arc::clone(&db);
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let db = std::sync::Arc::clone(&vandal);
        Box::pin(async move {
            let mut connection = db.pool.acquire().await.unwrap();
            // Past the guards of the table.
            sqlx::query("SET session_replication_role = replica").execute(&mut *connection).await.unwrap();
            let sql = "UPDATE data_keys SET wrapped_key = set_byte(wrapped_key, 40, get_byte(wrapped_key, 40) # 1) \
                WHERE scope_id = 'ada'";
            assert_eq!(sqlx::query(sql).execute(&mut *connection).await.unwrap().rows_affected(), 1);
            sqlx::query("RESET session_replication_role").execute(&mut *connection).await.unwrap();
        })
    }));
    let refused = rewrite(&*db, &store, &copy, &target, &small()).await;
    assert!(matches!(refused, Err(Error::Maintenance(MaintenanceFault::NotVerified { .. }))), "{refused:?}");
    assert!(copy.stored().await.is_empty());
}
