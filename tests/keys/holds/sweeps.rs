//! The sweep, by several processes, with scopes that go wrong.

use super::{Noting, commit, placed, reads, schemas, scopes, soon, sweep, until};
use eventseal::Error;
use eventseal::erasure::{ShredMode, SweepOptions, SweepProgress};
use eventseal::error::{KeyFault, TransactionFault};
use eventseal::keys::ScopeAction;
use std::sync::Arc;
use support::backend::Backend;
use support::{customer_scope, on_every_database};

on_every_database! {
    each_scope_is_shredded_once_however_many_sweep,
    one_bad_scope_does_not_stop_the_others,
    a_sweep_needs_a_connection_of_its_own,
}

async fn each_scope_is_shredded_once_however_many_sweep<B: Backend>() {
    let db = Arc::new(B::make().await);
    let store = db.prepared(schemas()).await;
    let ids: Vec<String> = (0..12).map(|id| format!("c{id}")).collect();
    for id in &ids {
        db.append(&store, id, &[placed(id)]).await;
    }
    let due = soon();
    let mut transaction = db.begin().await.unwrap();
    for id in &ids {
        let (tx, scope) = (db.tx(&mut transaction), customer_scope(id));
        store.keys().schedule_shred(tx, &scope, due, ShredMode::KeepWorking, "request").await.unwrap();
    }
    db.commit(transaction).await.unwrap();
    until(due).await;
    let mut sweeps = Vec::new();
    for _ in 0..3 {
        let db = Arc::clone(&db);
        sweeps.push(tokio::spawn(async move {
            let store = db.process(schemas());
            let mut connection = db.connect().await.unwrap();
            let mut options = SweepOptions::default();
            options.batch = 2;
            let mut seen = Vec::new();
            let mut note = |progress: SweepProgress| seen.push((progress.done, progress.found));
            let keys = store.keys().acting_as("timer");
            let swept = keys.sweep(db.connection(&mut connection), &options, &mut note).await.unwrap();
            assert!(seen.iter().all(|(done, found)| done <= found) && swept.held.is_empty(), "{seen:?}");
            assert!(swept.failed.is_empty(), "{swept:?}");
            swept.shredded
        }));
    }
    let mut shredded = 0;
    for one in sweeps {
        shredded += one.await.unwrap();
    }
    // Whoever gave up waiting for others has said so, and a later sweep does the rest.
    shredded += sweep(&*db, &store).await.unwrap().shredded;
    assert_eq!(shredded, 12, "a scope was shredded twice, or not at all");
    for id in &ids {
        assert_eq!(reads(&*db, &store, id).await.unwrap(), "stand-ins");
        let history = db.history(&store, id).await.unwrap();
        let actions: Vec<_> = history.entries.iter().map(|entry| entry.action).collect();
        assert_eq!(actions, [ScopeAction::Schedule, ScopeAction::Shred]);
    }
    let again = sweep(&*db, &store).await.unwrap();
    assert_eq!((again.shredded, again.keys, again.held.len(), again.failed.len()), (0, 0, 0, 0));
}

async fn one_bad_scope_does_not_stop_the_others<B: Backend>() {
    let db = B::make().await;
    let noting = Noting { fails_at: Some("bad"), ..Noting::default() };
    let store = db.process_over(db.keys().erasure_consumer(noting.clone()), schemas());
    db.prepare(&store).await;
    for id in ["a", "bad", "c", "held"] {
        db.append(&store, id, &[placed(id)]).await;
    }
    let due = soon();
    for id in ["a", "bad", "c", "held"] {
        commit!(db, store, schedule_shred(&customer_scope(id), due, ShredMode::KeepWorking, "request")).unwrap();
    }
    commit!(db, store, hold(&customer_scope("held"), "case", None)).unwrap();
    until(due).await;
    let swept = sweep(&db, &store).await.unwrap();
    assert_eq!((swept.shredded, swept.keys, swept.busy.len()), (2, 2, 0));
    assert_eq!(swept.failed.iter().map(|failed| failed.scope.clone()).collect::<Vec<_>>(), scopes(&["bad"]));
    assert!(matches!(&swept.failed[0].error, Error::Keys(KeyFault::Consumer { consumer, .. }) if consumer == "noting"));
    assert_eq!(swept.held.iter().map(|held| held.scope.clone()).collect::<Vec<_>>(), scopes(&["held"]));
    assert_eq!(noting.told(ScopeAction::Shred), ["a", "c"]);
    for (id, seen) in [("a", "stand-ins"), ("bad", "values"), ("c", "stand-ins"), ("held", "values")] {
        assert_eq!(reads(&db, &store, id).await.unwrap(), seen, "{id}");
    }
    let mut connection = db.connect().await.unwrap();
    let left = store.keys().schedules(db.connection(&mut connection), None, 10).await.unwrap();
    let left: Vec<_> = left.schedules.into_iter().map(|schedule| schedule.scope).collect();
    assert_eq!(left, scopes(&["bad", "held"]), "what failed or is held stays scheduled");
    // The consumer works again.
    let mended = db.process(schemas());
    assert_eq!(sweep(&db, &mended).await.unwrap().shredded, 1);
    assert_eq!(reads(&db, &store, "bad").await.unwrap(), "stand-ins");
}

async fn a_sweep_needs_a_connection_of_its_own<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let due = soon();
    commit!(db, store, schedule_shred(&customer_scope("1"), due, ShredMode::KeepWorking, "request")).unwrap();
    until(due).await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().hold(tx, &customer_scope("2"), "r", None).await.unwrap();
    let refused = store.keys().sweep(tx, &SweepOptions::default(), &mut |_| {}).await;
    assert!(
        matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { operation: "sweeping" }))),
        "{refused:?}"
    );
}
