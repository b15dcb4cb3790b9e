//! Blind indexes and erasure (I5): what a shred takes away, in every way in which a scope is shredded.

use super::{Indexed, schemas, shop};
use eventseal::blind_index::{BlindEntry, BlindIndex, BlindIndexTable, BlindLookup};
use eventseal::erasure::{ShredMode, SweepOptions, VerifyOptions};
use eventseal::error::KeyFault;
use eventseal::keys::{ScopeQuery, ShredRequest};
use eventseal::{Error, KeyScope, NewEvent};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use std::collections::HashSet;
use std::time::Duration;
use support::backend::Backend;
use support::{Deadline, Sqlite, customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    i5_a_shred_takes_the_entries_of_its_scope_away,
    i5_a_sweep_and_a_list_of_shreds_take_entries_away,
    i5_entries_that_outlived_a_shred_are_not_found,
    i5_a_reopened_owner_keeps_new_entries,
    an_entry_of_a_later_generation_is_an_error,
    i5_an_entry_of_before_a_shred_is_removed_with_its_value,
    a_shared_value_is_found_behind_owners_that_were_shredded,
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
        deadline.look_again().await;
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

/// An entry that is newer than its owner's row shows that one of the tables was restored. That is no erasure.
async fn an_entry_of_a_later_generation_is_an_error<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let keys = store.blind_hashes(tx, emails.index(), "kim@example.org").await.unwrap();
    let later = BlindEntry {
        index: emails.index().name().into(),
        key_id: keys[0].key_id(),
        hash: keys[0].as_bytes().into(),
        scope: customer_scope("1"),
        unique: true,
        generation: 2,
    };
    B::Table::default().add(tx, &[later]).await.unwrap();
    db.commit(transaction).await.unwrap();
    let refused = db.try_find(&store, &emails, "kim@example.org").await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::ScopeState { .. })), "{refused}");
    assert!(refused.to_string().contains("restore"), "{refused}");
    let taken = db.try_add(&store, &emails, "2", "kim@example.org").await;
    assert!(taken.is_err_and(|error| error.is_conflict()), "it is not erased, so the value is not free");
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"));
}

async fn i5_an_entry_of_before_a_shred_is_removed_with_its_value<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    for value in ["ada@example.org", "old@example.org"] {
        db.add(&store, &emails, "1", value).await;
    }
    db.add(&store, &emails, "2", "kim@example.org").await;
    let command = db.process(schemas());
    db.shred(&command, "1").await;
    db.reopen(&command, "1").await;
    db.add(&store, &emails, "1", "new@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    let scope = customer_scope("1");
    store.lookup(&emails).remove(db.tx(&mut transaction), &scope, "ada@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let left = store.lookup(&emails).drop_shredded(db.connection(&mut connection)).await.unwrap();
    assert_eq!(left, 0, "an entry of before the shred is left");
    assert_eq!(db.find(&store, &emails, "new@example.org").await.as_deref(), Some("1"));
    assert_eq!(db.find(&store, &emails, "kim@example.org").await.as_deref(), Some("2"));
}

async fn a_shared_value_is_found_behind_owners_that_were_shredded<B: Indexed>() {
    let (db, store, _) = shop::<B>().await;
    let surnames = BlindLookup::shared(B::Table::default(), BlindIndex::new("surname"));
    let command = db.process(schemas());
    // More owners than the first two looks into the table find.
    let ids: Vec<String> = (10..32).map(|id| id.to_string()).collect();
    for id in &ids {
        db.add(&store, &surnames, id, "Lovelace").await;
    }
    for id in &ids[..20] {
        db.shred(&command, id).await;
    }
    assert_eq!(db.find(&store, &surnames, "Lovelace").await.as_deref(), Some("30"));
    db.disable(&store, "30").await;
    assert_eq!(db.find(&store, &surnames, "Lovelace").await.as_deref(), Some("31"), "nor does a disabled one hide it");
    db.disable(&store, "31").await;
    let refused = db.try_find(&store, &surnames, "Lovelace").await;
    assert!(matches!(refused, Err(Error::Disabled { .. })), "{refused:?}");
    for id in ["30", "31"] {
        db.enable(&store, id).await;
        db.shred(&command, id).await;
    }
    assert_eq!(db.find(&store, &surnames, "Lovelace").await, None);
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

/// A page of a table that grows is split. SQLite would leave copies of the rows that moved in the file, for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i5_no_hash_stays_in_a_file_of_sqlite() {
    let (db, store, emails) = shop::<Sqlite>().await;
    let file = db.folder.path().join("test.db");
    let ids: Vec<String> = (0..200).map(|number| format!("customer-{number}")).collect();
    let placed = |id: &String| NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{id}","name":"n"}}"#));
    // The index key and the keys of the customers are there before, so that the next connection makes none.
    db.append(&store, "1", &ids.iter().map(placed).collect::<Vec<_>>()).await;
    db.add(&store, &emails, &ids[0], "first@example.org").await;
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await.unwrap();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    for id in &ids {
        for number in 0..5 {
            let value = format!("{number}{id}@example.org");
            store.lookup(&emails).add(&mut tx, &customer_scope(id), &value).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    drop(connection);
    let hashes: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM blind_index").fetch_all(&db.pool).await.unwrap();
    let found = async || {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&db.pool).await.unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let windows: HashSet<&[u8]> = bytes.windows(16).collect();
        hashes.iter().filter(|hash| windows.contains(hash.as_slice())).count()
    };
    assert_eq!(found().await, 1_001);
    for id in &ids {
        db.shred(&store, id).await;
    }
    assert_eq!(db.owners().await, [""; 0]);
    assert_eq!(found().await, 0, "hashes outlived the shreds");
}
