//! Shreds of many scopes: those of a list, and those of a partition.

use eventseal::error::{InputFault, KeyFault, TransactionFault};
use eventseal::keys::{KeyManager, ScopeAction, ScopeQuery, ScopeState, ShredRequest};
use eventseal::{Error, KeyScope, NewEvent, PersistedEvent, Schemas, SealedStore, event, subject};
use std::sync::Arc;
use support::backend::Backend;
use support::{KEYRING, customer_scope, on_every_database};

on_every_database! {
    a_list_is_shredded_once_and_what_is_held_is_skipped,
    a_list_with_a_mistake_shreds_nothing,
    a_partition_is_shredded_while_scopes_are_added,
}

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Ada"}}"#))
}

fn requests(ids: &[&str]) -> Vec<ShredRequest> {
    ids.iter().map(|id| ShredRequest { scope: customer_scope(id), reason: format!("request {id}") }).collect()
}

/// The states of the customers, and how many shreds are in the log of each.
async fn states<B: Backend>(db: &B, store: &SealedStore<B::Store>, ids: &[&str]) -> Vec<(ScopeState, usize)> {
    let mut states = Vec::new();
    for id in ids {
        let history = db.history(store, id).await.unwrap();
        let shreds = history.entries.iter().filter(|entry| entry.action == ScopeAction::Shred);
        states.push((history.state, shreds.count()));
    }
    states
}

async fn a_list_is_shredded_once_and_what_is_held_is_skipped<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let all = ["1", "2", "3", "4", "5"];
    db.append(&store, "1", &all.map(placed)).await;
    db.shred(&store, "2").await;
    db.disable(&store, "4").await;
    let mut transaction = db.begin().await.unwrap();
    let hold = store.keys().hold(db.tx(&mut transaction), &customer_scope("3"), "case 12", None).await.unwrap();
    db.commit(transaction).await.unwrap();

    let mut connection = db.connect().await.unwrap();
    let mut told = Vec::new();
    let clerk = store.keys().acting_as("clerk 7");
    let list = requests(&["1", "2", "3", "1", "4", "new"]);
    let done = clerk
        .shred_many(db.connection(&mut connection), &list, &mut |progress| {
            told.push((progress.scopes, progress.shredded));
        })
        .await
        .unwrap();
    assert_eq!((done.shredded, done.destroyed, done.already, done.is_complete), (3, 2, 2, true));
    assert_eq!(told, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 3)]);
    let [skipped] = &done.skipped[..] else { panic!("{done:?}") };
    assert_eq!(skipped.scope, customer_scope("3"));
    let is_held = matches!(&skipped.error, Error::Keys(KeyFault::Held { holds, .. }) if holds[..] == [hold.clone()]);
    assert!(is_held, "I12: {:?}", skipped.error);
    let (live, shredded) = (ScopeState::Live, ScopeState::Shredded);
    let all = ["1", "2", "3", "4", "5", "new"];
    let expected = [(shredded, 1), (shredded, 1), (live, 0), (shredded, 1), (live, 0), (shredded, 1)];
    assert_eq!(states(&db, &store, &all).await, expected);
    let history = db.history(&store, "1").await.unwrap();
    let last = history.entries.last().unwrap();
    assert_eq!((&last.reason[..], last.actor.as_deref()), ("request 1", Some("clerk 7")));
    let redacted: Vec<bool> = db.read(&store, "1").await.unwrap().iter().map(PersistedEvent::is_redacted).collect();
    assert_eq!(redacted, [true, true, false, true, false]);

    // Again: nothing is done twice.
    let again = clerk.shred_many(db.connection(&mut connection), &list, &mut |_| {}).await.unwrap();
    assert_eq!((again.shredded, again.destroyed, again.already, again.skipped.len()), (0, 0, 5, 1));
    assert_eq!(states(&db, &store, &all).await, expected);
    let mut transaction = db.begin().await.unwrap();
    store.keys().release(db.tx(&mut transaction), &hold, "closed").await.unwrap();
    db.commit(transaction).await.unwrap();
    let last = store.keys().shred_many(db.connection(&mut connection), &list, &mut |_| {}).await.unwrap();
    assert_eq!((last.shredded, last.already, last.skipped.len()), (1, 5, 0));
}

async fn a_list_with_a_mistake_shreds_nothing<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &["1", "2"].map(placed)).await;
    let mut connection = db.connect().await.unwrap();
    let mut wrong = requests(&["1", "2"]);
    wrong[1].reason = String::new();
    let refused = store.keys().shred_many(db.connection(&mut connection), &wrong, &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    wrong[1] = ShredRequest { scope: KeyScope::integrity(), reason: "r".to_owned() };
    let refused = store.keys().shred_many(db.connection(&mut connection), &wrong, &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ScopeState { .. }))), "{refused:?}");
    let operator = store.keys().acting_as("");
    let refused = operator.shred_many(db.connection(&mut connection), &requests(&["1"]), &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    let refused = operator.shred_partition(db.connection(&mut connection), "default", "r", &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    let refused = store.keys().shred_partition(db.connection(&mut connection), "elsewhere", "r", &mut |_| {}).await;
    let named = matches!(&refused, Err(Error::Keys(KeyFault::NoActiveKek { partition })) if partition == "elsewhere");
    assert!(named, "a misspelled partition must not look like an erasure: {refused:?}");
    // In a transaction of the caller, nothing could be committed one by one.
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().hold(tx, &customer_scope("9"), "in a transaction", None).await.unwrap();
    let refused = store.keys().shred_many(tx, &requests(&["1"]), &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
    drop(transaction);
    assert_eq!(states(&db, &store, &["1", "2"]).await, [(ScopeState::Live, 0), (ScopeState::Live, 0)]);
    let none = store.keys().shred_many(db.connection(&mut connection), &[], &mut |_| {}).await.unwrap();
    assert_eq!((none.shredded, none.is_complete), (0, true));
}

fn tenant(scope: &KeyScope) -> String {
    scope.id().split_once(':').map_or("default", |(tenant, _)| tenant).to_owned()
}

async fn a_partition_is_shredded_while_scopes_are_added<B: Backend>() {
    let db = B::make().await;
    let keys = || KeyManager::builder(B::Keys::default(), Arc::clone(&KEYRING)).kek_partition(tenant);
    let store = db.process_over(keys(), schemas());
    db.prepare(&store).await;
    let mut connection = db.connect().await.unwrap();
    for partition in ["seven", "eight"] {
        store.keys().create_kek(db.connection(&mut connection), partition).await.unwrap();
    }
    db.append(&store, "1", &["eight:1", "other", "seven:1", "seven:2", "seven:3", "seven:4"].map(placed)).await;
    db.shred(&store, "seven:2").await;
    db.disable(&store, "seven:3").await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().hold(db.tx(&mut transaction), &customer_scope("seven:4"), "case 12", None).await.unwrap();
    db.commit(transaction).await.unwrap();

    // The tenant's service goes on for a moment: it makes a scope before those that were gone through already.
    let appending = db.process_over(keys(), schemas());
    let mut is_first = true;
    let mut append_once = |_| {
        if std::mem::take(&mut is_first) {
            let events = [placed("seven:0")];
            let append = db.append(&appending, "2", &events);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(append));
        }
    };
    let clerk = store.keys().acting_as("clerk 7");
    let done = clerk
        .shred_partition(db.connection(&mut connection), "seven", "contract ended", &mut append_once)
        .await
        .unwrap();
    assert_eq!((done.shredded, done.destroyed, done.already, done.is_complete), (3, 3, 0, true), "{done:?}");
    assert_eq!(done.skipped.iter().map(|skipped| skipped.scope.id()).collect::<Vec<_>>(), ["seven:4"], "I12");

    let mut query = ScopeQuery::default();
    query.state = Some(ScopeState::Live);
    let mut connection = db.connect().await.unwrap();
    let live = store.keys().scopes(db.connection(&mut connection), &query).await.unwrap();
    let live: Vec<&str> = live.scopes.iter().map(|info| info.scope.id()).collect();
    assert_eq!(live, ["eight:1", "other", "seven:4"], "nobody else's scopes are touched");
    let again = store.keys().shred_partition(db.connection(&mut connection), "seven", "r", &mut |_| {}).await.unwrap();
    assert_eq!((again.shredded, again.already, again.skipped.len()), (0, 0, 1));
    assert_eq!(states(&db, &store, &["seven:1", "seven:2"]).await, [(ScopeState::Shredded, 1); 2]);
}
