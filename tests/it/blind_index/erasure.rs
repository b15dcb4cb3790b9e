//! Blind indexes and erasure (I5): what a shred takes away, in every way in which a scope is shredded.

use super::{Indexed, schemas, shop};
use eventseal::blind_index::{BlindIndex, BlindLookup};
use eventseal::erasure::{ShredMode, SweepOptions, VerifyOptions};
use eventseal::error::KeyFault;
use eventseal::keys::{ScopeQuery, ShredRequest};
use eventseal::{Error, KeyScope};
use std::time::Duration;
use support::{Deadline, customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    i5_a_shred_takes_the_entries_of_its_scope_away,
    i5_a_sweep_and_a_list_of_shreds_take_entries_away,
    i5_entries_that_outlived_a_shred_are_not_found,
    i5_a_reopened_owner_keeps_new_entries,
    i4_a_scope_that_is_out_of_use_is_told_from_none,
    the_key_can_not_be_destroyed_or_put_out_of_use,
    an_index_confuses_no_report,
}

async fn i5_a_shred_takes_the_entries_of_its_scope_away<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let phones = BlindLookup::shared(B::Table::default(), BlindIndex::new("phone"));
    db.add(&store, &emails, "1", "ada@example.org").await;
    db.add(&store, &phones, "1", "0815").await;
    db.add(&store, &phones, "2", "0815").await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    store.keys().shred(tx, &customer_scope("1"), "request").await.unwrap();
    assert_eq!(store.lookup(&emails).find(tx, "ada@example.org").await.unwrap(), None, "in the same transaction");
    db.roll_back(transaction).await;
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"), "it was rolled back");
    db.shred(&store, "1").await;
    assert_eq!(db.owners().await, ["2"], "in every index of the table, and only of this scope");
    let refused = db.try_add(&store, &emails, "1", "ada@example.org").await.unwrap_err();
    assert!(refused.is_shredded(), "{refused:?}");
    db.add(&store, &emails, "3", "ada@example.org").await;
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("3"), "the value is free again");
}

async fn i5_a_sweep_and_a_list_of_shreds_take_entries_away<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    for id in ["1", "2", "3"] {
        db.add(&store, &emails, id, &format!("{id}@example.org")).await;
    }
    let due = OffsetDateTime::now_utc() + Duration::from_millis(300);
    let mut transaction = db.begin().await.unwrap();
    let (tx, scope) = (db.tx(&mut transaction), customer_scope("1"));
    store.keys().schedule_shred(tx, &scope, due, ShredMode::KeepWorking, "leaving").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.owners().await, ["1", "2", "3"], "a schedule takes nothing away yet");
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let deadline = Deadline::of("for a scheduled shred");
    while db.owners().await.contains(&"1".to_owned()) {
        deadline.check();
        store.keys().sweep(connection, &SweepOptions::default(), &mut |_| {}).await.unwrap();
    }
    let requests = [ShredRequest { scope: customer_scope("2"), reason: "request".into() }];
    store.keys().shred_many(connection, &requests, &mut |_| {}).await.unwrap();
    assert_eq!(db.owners().await, ["3"]);
}

/// A shred that no consumer saw, such as one by the command, leaves entries in the table.
async fn i5_entries_that_outlived_a_shred_are_not_found<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let mut transaction = db.begin().await.unwrap();
    // More than one page of scopes.
    for id in 0..1_100 {
        let (scope, value) = (customer_scope(&format!("{id:04}")), format!("{id}@example.org"));
        store.lookup(&emails).add(db.tx(&mut transaction), &scope, &value).await.unwrap();
    }
    db.commit(transaction).await.unwrap();
    let command = db.process(schemas());
    for id in ["0000", "0007", "1099"] {
        db.shred(&command, id).await;
    }
    assert!(db.owners().await.contains(&"0007".to_owned()), "the consumer did not see it");
    assert_eq!(db.find(&store, &emails, "7@example.org").await, None, "it is not found all the same");
    assert_eq!(db.find(&store, &emails, "8@example.org").await.as_deref(), Some("0008"));
    db.add(&store, &emails, "new", "7@example.org").await;
    assert_eq!(db.find(&store, &emails, "7@example.org").await.as_deref(), Some("new"), "it is in nobody's way");
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    assert_eq!(store.lookup(&emails).drop_shredded(connection).await.unwrap(), 2, "0007 went with the new owner");
    assert_eq!(store.lookup(&emails).drop_shredded(connection).await.unwrap(), 0);
    assert_eq!(db.owners().await.first().map(String::as_str), Some("0001"));
    assert_eq!(db.find(&store, &emails, "1098@example.org").await.as_deref(), Some("1098"));
}

async fn i5_a_reopened_owner_keeps_new_entries<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    for value in ["ada@example.org", "old@example.org", "other@example.org"] {
        db.add(&store, &emails, "1", value).await;
    }
    // The consumer sees none of this.
    let command = db.process(schemas());
    db.shred(&command, "1").await;
    db.reopen(&command, "1").await;
    assert_eq!(db.owners().await, ["1"]);
    assert_eq!(db.find(&store, &emails, "ada@example.org").await, None, "what was erased stays erased");
    db.add(&store, &emails, "2", "other@example.org").await;
    assert_eq!(db.find(&store, &emails, "other@example.org").await.as_deref(), Some("2"), "it is in nobody's way");
    db.add(&store, &emails, "1", "ada@example.org").await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    assert_eq!(store.lookup(&emails).drop_shredded(connection).await.unwrap(), 1, "the old address");
    assert_eq!(store.lookup(&emails).drop_shredded(connection).await.unwrap(), 0);
    assert_eq!(db.find(&store, &emails, "old@example.org").await, None);
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"));
}

async fn i4_a_scope_that_is_out_of_use_is_told_from_none<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let shared = BlindLookup::shared(B::Table::default(), BlindIndex::new("surname"));
    for id in ["1", "2"] {
        db.add(&store, &emails, id, &format!("{id}@example.org")).await;
        db.add(&store, &shared, id, "Lovelace").await;
    }
    db.disable(&store, "1").await;
    let refused = db.try_find(&store, &emails, "1@example.org").await;
    assert!(matches!(refused, Err(Error::Disabled { .. })), "{refused:?}");
    let refused = db.try_add(&store, &emails, "1", "other@example.org").await;
    assert!(matches!(refused, Err(Error::Disabled { .. })), "{refused:?}");
    let mut connection = db.connect().await.unwrap();
    let found = store.lookup(&shared).find_all(db.connection(&mut connection), "Lovelace", 9).await.unwrap();
    assert_eq!(found, [customer_scope("2")], "one disabled owner does not stop a list");
    drop(connection);
    db.enable(&store, "1").await;
    assert_eq!(db.find(&store, &emails, "1@example.org").await.as_deref(), Some("1"));
    let due = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
    let mut transaction = db.begin().await.unwrap();
    let (tx, scope) = (db.tx(&mut transaction), customer_scope("1"));
    store.keys().schedule_shred(tx, &scope, due, ShredMode::Redact, "leaving").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.find(&store, &emails, "1@example.org").await, None, "withheld, as its values are");
    let taken = db.try_add(&store, &emails, "3", "1@example.org").await;
    assert!(taken.is_err_and(|error| error.is_conflict()), "it is not erased, so the value is not free");
    let mut transaction = db.begin().await.unwrap();
    store.keys().cancel(db.tx(&mut transaction), &scope, "stays").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.find(&store, &emails, "1@example.org").await.as_deref(), Some("1"));
}

async fn the_key_can_not_be_destroyed_or_put_out_of_use<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    let (keys, scope) = (store.keys(), KeyScope::index());
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let due = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
    for refused in [
        keys.shred(tx, &scope, "r").await.map(drop),
        keys.disable(tx, &scope, "r").await,
        keys.enable(tx, &scope, "r").await,
        keys.reopen(tx, &scope, "r").await.map(drop),
        keys.hold(tx, &scope, "r", None).await.map(drop),
        keys.schedule_shred(tx, &scope, due, ShredMode::Redact, "r").await.map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Keys(KeyFault::ScopeState { .. }))), "{refused:?}");
    }
    let listed = keys.scopes(tx, &ScopeQuery::default()).await.unwrap().scopes;
    assert_eq!(listed.iter().map(|listed| listed.scope.id()).collect::<Vec<_>>(), ["1"], "it is no subject");
    assert_eq!(keys.similar_scopes(tx, &KeyScope::new("Index", "INDEX")).await.unwrap(), []);
    db.roll_back(transaction).await;
}

/// `verify` opens the index key too, and a store with an index is as clean as one without.
async fn an_index_confuses_no_report<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    db.add(&store, &emails, "2", "kim@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_index_key(db.tx(&mut transaction)).await.unwrap();
    db.commit(transaction).await.unwrap();
    for (id, value) in [("1", "ada@example.org"), ("2", "kim@example.org")] {
        db.add(&store, &emails, id, value).await;
    }
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    store.lookup(&emails).finish_rotation(connection).await.unwrap();
    db.shred(&store, "2").await;
    let verified = store.verify(connection, &[], &VerifyOptions::default(), &mut |_| {}).await.unwrap();
    assert!(verified.is_clean(), "{:?}", verified.findings);
    // Two customers; one key of a customer, the integrity key and the index key; a customer's key and an old index key.
    assert_eq!((verified.scopes, verified.live_keys, verified.destroyed_keys), (2, 3, 2));
    let census = db.census(&store, &eventseal::maintenance::CensusOptions::default()).await;
    assert_eq!(census.rows.len(), 0);
}
