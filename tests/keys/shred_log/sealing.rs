//! Entries get their numbers.

use super::{Intruder, chain, schemas, seal, shop};
use eventseal::Error;
use eventseal::erasure::{ShredMode, SweepOptions};
use eventseal::error::KeyFault;
use eventseal::keys::{ScopeAction, ShredRequest};
use std::time::Duration;
use support::backend::Backend;
use support::deadline::Deadline;
use time::OffsetDateTime;

async fn entries_are_numbered_in_one_chain<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    assert_eq!(seal(&db, &store).await.unwrap().seq, 0, "nothing was decided yet");
    db.shred(&store, "3").await;
    db.disable(&store, "1").await;
    assert!(chain(&db).await.is_empty(), "a change itself takes no lock but its scope's");
    let head = seal(&db, &store).await.unwrap();
    assert_eq!((head.seq, head.unsealed), (2, false));
    db.reopen(&store, "3").await;
    db.enable(&store, "1").await;
    db.shred(&store, "1").await;
    // Other processes may seal at any time, and at once; preparing is enough.
    let other = db.process(schemas());
    db.prepare(&other).await;
    let (a, b) = tokio::join!(seal(&db, &store), seal(&db, &other));
    for sealed in [a, b] {
        assert!(sealed.is_ok_and(|head| head.seq == 5), "everything was sealed");
    }
    let chain = chain(&db).await;
    let numbers: Vec<u64> = chain.iter().map(|sealed| sealed.row.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(chain[0].row.previous_hash, [0; 32]);
    for pair in chain.windows(2) {
        assert_eq!(pair[1].row.previous_hash, pair[0].row.hash);
    }
    for id in ["1", "3"] {
        let of_scope = chain.iter().map(|sealed| &sealed.entry).filter(|entry| entry.scope.id() == id);
        let numbers: Vec<u32> = of_scope.map(|entry| entry.scope_seq).collect();
        assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>(), "in the scope's order");
    }
}

/// What the library itself commits is numbered at once, so that an export can have it.
async fn a_sweep_and_a_shred_of_many_seal_what_they_did<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    let one = [ShredRequest { scope: support::customer_scope("1"), reason: "request 1".to_owned() }];
    assert_eq!(store.keys().shred_many(tx, &one, &mut |_| {}).await.unwrap().shredded, 1);
    drop(connection);
    assert_eq!(chain(&db).await.len(), 1);
    let due = OffsetDateTime::now_utc() + Duration::from_secs(2);
    let mut transaction = db.begin().await.unwrap();
    let scope = support::customer_scope("2");
    let keys = store.keys();
    keys.schedule_shred(db.tx(&mut transaction), &scope, due, ShredMode::KeepWorking, "request 2").await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let deadline = Deadline::of("for the sweep");
    while keys.sweep(db.connection(&mut connection), &SweepOptions::default(), &mut |_| {}).await.unwrap().shredded == 0
    {
        deadline.look_again().await;
    }
    drop(connection);
    let actions: Vec<ScopeAction> = chain(&db).await.iter().map(|sealed| sealed.entry.action).collect();
    assert_eq!(actions, [ScopeAction::Shred, ScopeAction::Schedule, ScopeAction::Shred]);
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    assert_eq!(keys.shred_partition(tx, "default", "the tenant left", &mut |_| {}).await.unwrap().shredded, 1);
    drop(connection);
    assert_eq!(chain(&db).await.len(), 4, "and so does a shred of a partition");
}

/// A transaction that is rolled back leaves no gap.
async fn a_rollback_leaves_no_gap<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &support::customer_scope("1"), "never").await.unwrap();
    drop(transaction);
    db.shred(&store, "2").await;
    assert_eq!(seal(&db, &store).await.unwrap().seq, 1);
    assert_eq!(chain(&db).await[0].entry.scope, support::customer_scope("2"));
}

async fn i14_an_entry_that_was_altered_is_never_sealed<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    for id in ["1", "2", "3"] {
        db.disable(&store, id).await;
    }
    db.write("UPDATE shred_entries SET reason = 'another' WHERE scope_id = '2'").await;
    let refused = seal(&db, &store).await;
    assert!(
        matches!(&refused, Err(Error::Keys(KeyFault::LogAltered { scope, entry: 1, .. })) if scope.id() == "2"),
        "{refused:?}"
    );
    let sealed: Vec<String> = chain(&db).await.iter().map(|sealed| sealed.entry.scope.id().to_owned()).collect();
    assert_eq!(sealed, ["1", "3"], "the others are sealed all the same");
    // A process that starts is not kept from its work.
    db.prepare(&db.process(schemas())).await;
}

async fn i14_an_invented_entry_without_a_mac_is_not_sealed<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    db.disable(&store, "1").await;
    seal(&db, &store).await.unwrap();
    db.write(
        "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state, generation,
             reason)
         SELECT '00000000-0000-4000-8000-000000000001', scope_kind, '2', 1, decided_at, 'disable', 'disabled', 1, 'no'
         FROM shred_entries",
    )
    .await;
    let refused = seal(&db, &store).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::LogAltered { .. }))), "{refused:?}");
    assert_eq!(chain(&db).await.len(), 1);
}

support::on_every_database! {
    entries_are_numbered_in_one_chain,
    a_sweep_and_a_shred_of_many_seal_what_they_did,
    a_rollback_leaves_no_gap,
}

mod of_tables {
    use super::{i14_an_entry_that_was_altered_is_never_sealed, i14_an_invented_entry_without_a_mac_is_not_sealed};

    support::on_sqlite_and_postgres! {
        i14_an_entry_that_was_altered_is_never_sealed,
        i14_an_invented_entry_without_a_mac_is_not_sealed,
    }
}
