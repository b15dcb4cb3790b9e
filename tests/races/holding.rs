//! Holds, shreds and sweeps (invariant I12).

use super::running::race;
use super::{Allowed, Expect, Op, Start, Writer, append, shuffled};
use eventseal::ExpectedVersion::Any;
use eventseal::erasure::{ShredMode, SweepOptions};
use eventseal::error::KeyFault;
use eventseal::keys::ScopeAction;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStore, KeyScope, NewEvent, Result, SealedStore, aggregate};
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, Postgres};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_holds_race_shreds_and_appends() {
    race(Writer::EventsFirst, Start::Anywhere, Allowed::Nothing, |random| {
        let more = random.pick(&[append(Expect::Any, 0, &[0]), Op::Hold(0), Op::Reopen(0), Op::Disable(0)]);
        let ops = vec![random.pick(&[Op::Hold(0), Op::Release(0)]), Op::Shred(0), more];
        shuffled(random, ops)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_holds_race_shreds_of_scopes_that_were_never_seen() {
    race(Writer::EventsFirst, Start::Fresh, Allowed::Nothing, |random| {
        let ops = vec![Op::Hold(0), Op::Shred(0), append(Expect::Any, 0, &[0])];
        shuffled(random, ops)
    })
    .await;
}

/// They take their locks in one order, so none of them has to be tried again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_i12_two_shreds_in_one_transaction_race_one_and_an_append_after_a_shred() {
    race(Writer::EventsFirst, Start::Fresh, Allowed::Nothing, |random| {
        let third = random.pick(&[Op::Shred(1), Op::Hold(1), Op::Shreds(vec![0, 1]), Op::Hold(0)]);
        let ops = vec![Op::Shreds(vec![0, 1]), Op::ShredThenAppend(0, 0, 1), third];
        shuffled(random, ops)
    })
    .await;
}

fn store(_: &Postgres) -> SealedStore<PostgresStore> {
    let placed = eventseal::event("Placed").version(1).protect(&["/name"], eventseal::subject("Customer", "/customer"));
    let schemas = eventseal::Schemas::new([placed]).unwrap();
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas)
}

async fn place(db: &Postgres, store: &SealedStore<PostgresStore>, id: &str) -> Result<()> {
    let mut tx = db.pool.begin().await.unwrap();
    let placed = NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{id}","name":"Ada"}}"#));
    store.append(&mut tx, &aggregate("Order", id), Any, &[placed]).await?;
    tx.commit().await.unwrap();
    Ok(())
}

/// Two sweeps, a hold, a shred and an append for a scope that is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_sweeps_race_a_hold_a_shred_and_an_append() {
    let rounds = std::env::var("RACES").ok().map_or(200, |value| value.parse::<usize>().expect("a number") / 10 + 1);
    let db = Arc::new(Postgres::new().await);
    let stores: Vec<_> = (0..3).map(|_| Arc::new(store(&db))).collect();
    for store in &stores {
        db.prepare(store).await;
    }
    let mut outcomes = [0; 2];
    for round in 0..rounds {
        let id = format!("c{round}");
        let scope = KeyScope::new("Customer", &*id);
        place(&db, &stores[0], &id).await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let due = time::OffsetDateTime::now_utc() + std::time::Duration::from_millis(2);
        stores[0].keys().schedule_shred(&mut tx, &scope, due, ShredMode::KeepWorking, "race").await.unwrap();
        tx.commit().await.unwrap();
        support::deadline::passed(due).await;
        let mut running = Vec::new();
        for (index, what) in ["sweep", "hold", "sweep", "append", "shred"].into_iter().enumerate() {
            let (db, store, scope, id) = (Arc::clone(&db), Arc::clone(&stores[index % 3]), scope.clone(), id.clone());
            running.push(tokio::spawn(async move { (what, contend(&db, &store, what, &scope, &id).await) }));
        }
        for one in running {
            let (what, result) = one.await.unwrap();
            let refused = matches!(
                result,
                Ok(()) | Err(Error::Keys(KeyFault::Held { .. } | KeyFault::ScopeState { .. }) | Error::Shredded { .. })
            );
            assert!(refused, "{what}: {result:?}");
        }
        let mut connection = db.pool.acquire().await.unwrap();
        let keys = stores[0].keys();
        let history = keys.key_history(&mut connection, &scope).await.unwrap().unwrap();
        let actions: Vec<ScopeAction> = history.entries.iter().map(|entry| entry.action).collect();
        let held = actions.contains(&ScopeAction::Hold);
        let shredded = actions.iter().filter(|action| **action == ScopeAction::Shred).count();
        assert_eq!(shredded, usize::from(!held), "I12: {actions:?}");
        assert!(history.keys.iter().all(|key| key.shredded_at.is_some() != held));
        // The entries are authentic, and agree with the row.
        assert_eq!(keys.schedule_of(&mut connection, &scope).await.unwrap().is_some(), held);
        assert_eq!(keys.holds_of(&mut connection, &scope).await.unwrap().len(), usize::from(held));
        outcomes[usize::from(held)] += 1;
        if held {
            // What stays due would come up in every later sweep.
            let hold = keys.holds_of(&mut connection, &scope).await.unwrap().remove(0);
            let mut tx = db.pool.begin().await.unwrap();
            keys.release(&mut tx, &hold, "race").await.unwrap();
            keys.shred(&mut tx, &scope, "race").await.unwrap();
            tx.commit().await.unwrap();
        }
    }
    println!("{rounds} rounds: {} ended with a shred, {} with a hold", outcomes[0], outcomes[1]);
}

async fn contend(
    db: &Postgres,
    store: &SealedStore<PostgresStore>,
    what: &str,
    scope: &KeyScope,
    id: &str,
) -> Result<()> {
    let keys = store.keys();
    if what == "append" {
        return place(db, store, id).await;
    }
    let mut connection = db.pool.acquire().await.unwrap();
    if what == "sweep" {
        let swept = keys.sweep(&mut connection, &SweepOptions::default(), &mut |_| {}).await?;
        assert!(swept.failed.is_empty() && swept.busy.is_empty(), "{swept:?}");
        return Ok(());
    }
    let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
    match what {
        "hold" => keys.hold(&mut tx, scope, "race", None).await.map(drop)?,
        _ => keys.shred(&mut tx, scope, "race").await.map(drop)?,
    }
    tx.commit().await.unwrap();
    Ok(())
}
