//! No path leads past a hold (invariant I12).

use super::{Noting, commit, in_a_year, is_scope_state, placed, reads, schemas, soon, sweep, until};
use eventseal::erasure::{Hold, ShredMode};
use eventseal::error::{InputFault, KeyFault};
use eventseal::keys::ScopeAction;
use eventseal::{Error, Result};
use std::time::Duration;
use support::backend::Backend;
use support::{customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    i12_a_held_scope_cant_be_shredded_by_any_path,
    i12_an_old_snapshot_does_not_lead_past_a_hold,
    holds_end_by_themselves_and_are_listed,
    holds_that_make_no_sense_are_refused,
}

/// The ids of the holds that refused it.
fn held_by<T: std::fmt::Debug>(result: Result<T>) -> Vec<uuid::Uuid> {
    match result {
        Err(Error::Keys(KeyFault::Held { holds, .. })) => holds.into_iter().map(|hold| hold.id).collect(),
        other => panic!("not refused for a hold: {other:?}"),
    }
}

async fn i12_a_held_scope_cant_be_shredded_by_any_path<B: Backend>() {
    let db = B::make().await;
    let noting = Noting::default();
    let store = db.process_over(db.keys().erasure_consumer(noting.clone()), schemas());
    db.prepare(&store).await;
    db.append(&store, "1", &[placed("1")]).await;
    let one = customer_scope("1");
    let first = commit!(db, store, hold(&one, "case 1", None)).unwrap();
    let second = commit!(db, store, hold(&one, "case 2", Some(in_a_year()))).unwrap();
    let due = soon();
    commit!(db, store, schedule_shred(&one, due, ShredMode::KeepWorking, "request 1")).unwrap();

    // At once, by a process that knows nothing of it, and after the keys were disabled.
    let other = db.process(schemas());
    for process in [&store, &other] {
        assert_eq!(held_by(commit!(db, process, shred(&one, "request 1"))), [first.id, second.id]);
    }
    commit!(db, store, disable(&one, "incident")).unwrap();
    assert_eq!(held_by(commit!(db, store, shred(&one, "request 1"))).len(), 2);
    commit!(db, store, enable(&one, "over")).unwrap();
    // When the schedule comes due.
    until(due).await;
    for _ in 0..2 {
        let swept = sweep(&db, &store).await.unwrap();
        assert_eq!((swept.shredded, swept.failed.len(), swept.held.len()), (0, 0, 1));
        assert_eq!(swept.held[0].holds, [first.clone(), second.clone()]);
    }
    assert_eq!(reads(&db, &store, "1").await.unwrap(), "values");
    db.append(&store, "1", &[placed("1")]).await;
    let history = db.history(&store, "1").await.unwrap();
    assert!(history.keys.iter().all(|key| key.shredded_at.is_none()) && history.due.is_some());
    assert_eq!(noting.told(ScopeAction::Shred), [""; 0]);

    // A scope that never had keys, and one that is held in the same transaction.
    let stranger = customer_scope("stranger");
    commit!(db, store, hold(&stranger, "case 3", None)).unwrap();
    assert_eq!(held_by(commit!(db, store, shred(&stranger, "request 2"))).len(), 1);
    db.append(&store, "3", &[placed("stranger")]).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().hold(tx, &customer_scope("4"), "case 4", None).await.unwrap();
    assert_eq!(held_by(store.keys().shred(tx, &customer_scope("4"), "request 4").await).len(), 1);
    drop(transaction);
    commit!(db, store, shred(&customer_scope("4"), "request 4")).expect("a hold that was rolled back holds nothing");

    // The last release lets it through.
    commit!(db, store, release(&first, "case 1 closed")).unwrap();
    assert_eq!(held_by(commit!(db, store, shred(&one, "request 1"))), [second.id]);
    commit!(db, store, release(&second, "case 2 closed")).unwrap();
    assert_eq!(sweep(&db, &store).await.unwrap().shredded, 1);
    assert_eq!(reads(&db, &store, "1").await.unwrap(), "stand-ins");
    assert_eq!(noting.told(ScopeAction::Shred), ["4", "1"]);
}

/// A transaction whose snapshot is older than the hold either sees the hold or has to be tried again.
async fn i12_an_old_snapshot_does_not_lead_past_a_hold<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let mut transaction = db.begin_snapshot().await;
    let tx = db.tx(&mut transaction);
    drop(store.keys().key_history(tx, &customer_scope("1")).await.unwrap());
    commit!(db, store, hold(&customer_scope("1"), "case 1", None)).unwrap();
    let refused = store.keys().shred(tx, &customer_scope("1"), "request 1").await.map(drop);
    let held = matches!(refused, Err(Error::Keys(KeyFault::Held { .. }) | Error::Collision { .. }));
    // A database in memory finds out when the transaction is committed.
    let refused = if refused.is_ok() { db.commit(transaction).await } else { refused };
    assert!(held || matches!(refused, Err(Error::Collision { .. })), "{refused:?}");
    assert_eq!(reads(&db, &store, "1").await.unwrap(), "values");
}

async fn holds_end_by_themselves_and_are_listed<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let keys = store.keys();
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let (one, ends) = (customer_scope("1"), soon());
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let short = keys.acting_as("clerk 7").hold(tx, &one, "case 1", Some(ends)).await.unwrap();
    let long = keys.hold(tx, &customer_scope("2"), "case 2", None).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(short.actor.as_deref(), Some("clerk 7"));
    assert!(short.until.is_some_and(|until| ends - until < Duration::from_micros(1)));
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = keys.holds(connection, after.as_ref(), 1).await.unwrap();
        assert!(page.holds.len() <= 1 && page.failed.is_empty());
        listed.extend(page.holds);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if short.is_in_force(OffsetDateTime::now_utc()) {
        assert_eq!(listed, [short.clone(), long.clone()]);
    }
    until(ends).await;
    assert_eq!(keys.holds_of(connection, &one).await.unwrap(), []);
    assert_eq!(keys.holds(connection, None, 10).await.unwrap().holds, [long]);
    // It stays in the history, and can be released all the same.
    commit!(db, store, release(&short, "closed")).unwrap();
    commit!(db, store, shred(&one, "request 1")).unwrap();
    let actions: Vec<_> = db.history(&store, "1").await.unwrap().entries.iter().map(|entry| entry.action).collect();
    assert_eq!(actions, [ScopeAction::Hold, ScopeAction::Release, ScopeAction::Shred]);
}

async fn holds_that_make_no_sense_are_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let one = customer_scope("1");
    for past in [OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc() - Duration::from_millis(1)] {
        let refused = commit!(db, store, hold(&one, "r", Some(past)));
        assert!(matches!(refused, Err(Error::Input(InputFault::Time { at, .. })) if at == past), "{refused:?}");
    }
    let reserved = eventseal::KeyScope::new("$eventseal", "integrity");
    assert!(is_scope_state(commit!(db, store, hold(&reserved, "r", None))));
    assert!(matches!(commit!(db, store, hold(&one, "", None)), Err(Error::Input(InputFault::InvalidText { .. }))));
    let hold = commit!(db, store, hold(&one, "r", None)).unwrap();
    // A hold is one of its own scope, and is released once.
    let elsewhere = Hold { scope: customer_scope("2"), ..hold.clone() };
    assert!(is_scope_state(commit!(db, store, release(&elsewhere, "r"))));
    commit!(db, store, release(&hold, "r")).unwrap();
    assert!(is_scope_state(commit!(db, store, release(&hold, "r"))));
    commit!(db, store, shred(&one, "r")).unwrap();
    assert!(is_scope_state(commit!(db, store, hold(&one, "r", None))), "nothing is left to be held");
    let history = db.history(&store, "1").await.unwrap();
    assert_eq!(history.entries.len(), 3, "what was refused left something");
}

#[test]
fn a_hold_ends_at_the_very_time_that_it_names() {
    let ends = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(10);
    let hold = Hold {
        id: uuid::Uuid::nil(),
        scope: customer_scope("1"),
        reason: String::new(),
        actor: None,
        since: OffsetDateTime::UNIX_EPOCH,
        until: Some(ends),
    };
    assert!(hold.is_in_force(ends - Duration::from_micros(1)));
    assert!(!hold.is_in_force(ends));
    assert!(Hold { until: None, ..hold }.is_in_force(ends));
}
