//! The key of the blind indexes is rotated while it is used (I11): both versions are written and asked, and nothing is
//! lost before the old one is destroyed.

use super::{Indexed, emails, schemas, shop};
use eventseal::blind_index::{BlindIndex, BlindLookup};
use eventseal::error::BlindIndexFault;
use eventseal::keys::{KeyHistory, KeyInfo, RewrapOptions};
use eventseal::{Error, KeyScope, Result, SealedStore};
use support::{Memory, Postgres, customer_scope, on_every_database, on_sqlite_and_postgres};

on_every_database! {
    i11_both_versions_are_written_and_asked_until_one_is_retired,
    i11_a_unique_value_stays_unique_while_the_key_is_rotated,
    i11_a_rotation_is_not_finished_before_every_value_is_added,
    i11_the_key_follows_a_rotated_key_encryption_key,
    hashes_before_and_after_a_rotation_have_nothing_in_common,
}

mod snapshots {
    use super::i11_a_transaction_that_read_before_a_rotation_adds_under_both_versions_or_not_at_all;

    super::on_sqlite_and_postgres! {
        i11_a_transaction_that_read_before_a_rotation_adds_under_both_versions_or_not_at_all,
    }
}

async fn rotate<B: Indexed>(db: &B, store: &SealedStore<B::Store>) -> KeyInfo {
    let mut transaction = db.begin().await.unwrap();
    let rotated = store.keys().rotate_index_key(db.tx(&mut transaction)).await;
    db.end(transaction, rotated).await.unwrap()
}

async fn finish<B: Indexed>(
    db: &B,
    store: &SealedStore<B::Store>,
    lookup: &BlindLookup<B::Tx>,
) -> Result<(usize, u64)> {
    let mut connection = db.connect().await.unwrap();
    let finished = store.lookup(lookup).finish_rotation(db.connection(&mut connection)).await?;
    Ok((finished.retired.len(), finished.removed))
}

async fn index_history<B: Indexed>(db: &B, store: &SealedStore<B::Store>) -> KeyHistory {
    let mut connection = db.connect().await.unwrap();
    store.keys().key_history(db.connection(&mut connection), &KeyScope::index()).await.unwrap().unwrap()
}

/// The versions under which a value would be looked for.
async fn versions<B: Indexed>(db: &B, store: &SealedStore<B::Store>) -> Vec<u32> {
    let mut connection = db.connect().await.unwrap();
    let hashes = store.blind_hashes(db.connection(&mut connection), &emails(), "ada@example.org").await.unwrap();
    hashes.iter().map(eventseal::blind_index::BlindHash::version).collect()
}

async fn i11_both_versions_are_written_and_asked_until_one_is_retired<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let other = db.process(schemas());
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (0, 0), "there is no key");
    db.add(&store, &emails, "1", "ada@example.org").await;
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (0, 0), "there is one key");
    let rotated = rotate(&db, &store).await;
    assert_eq!(rotated.version, 2);
    for process in [&store, &other, &db.process(schemas())] {
        assert_eq!(versions(&db, process).await, [2, 1], "the active one first");
        assert_eq!(db.find(process, &emails, "ada@example.org").await.as_deref(), Some("1"), "under the old version");
    }
    db.add(&other, &emails, "2", "kim@example.org").await;
    db.add(&store, &emails, "1", "ADA@example.org").await;
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (1, 2));
    for process in [&store, &other, &db.process(schemas())] {
        assert_eq!(versions(&db, process).await, [2]);
        for (value, owner) in [("ada@example.org", Some("1")), ("kim@example.org", Some("2")), ("eve@x", None)] {
            assert_eq!(db.find(process, &emails, value).await.as_deref(), owner, "{value}");
        }
    }
    let history = index_history(&db, &store).await;
    assert_eq!(history.active_key, Some(rotated.key_id));
    assert_eq!(history.keys.iter().map(|key| key.shredded_at.is_some()).collect::<Vec<_>>(), [true, false]);
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (0, 0), "finishing again does nothing");
    rotate(&db, &other).await;
    assert_eq!(versions(&db, &store).await, [3, 2], "a second rotation");
}

async fn i11_a_unique_value_stays_unique_while_the_key_is_rotated<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    rotate(&db, &store).await;
    let is_taken = |added: Result<()>| added.is_err_and(|error| error.is_conflict());
    assert!(is_taken(db.try_add(&store, &emails, "2", "ada@example.org").await), "by an entry of the old version");
    db.add(&store, &emails, "3", "kim@example.org").await;
    assert!(is_taken(db.try_add(&store, &emails, "2", "kim@example.org").await), "by an entry of both");
    assert_eq!(db.owners().await, ["1", "3"], "what was refused left nothing under the new version");
    db.add(&store, &emails, "1", "ada@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    store.lookup(&emails).remove(db.tx(&mut transaction), &customer_scope("1"), "ada@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.owners().await, ["3"], "both entries of a value are removed");
    db.add(&store, &emails, "2", "ada@example.org").await;
    let mut transaction = db.begin().await.unwrap();
    store.lookup(&emails).replace(db.tx(&mut transaction), &customer_scope("2"), "eve@example.org").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.find(&store, &emails, "ada@example.org").await, None);
    db.shred(&store, "2").await;
    assert_eq!(db.owners().await, ["3"], "a shred takes the entries of every version");
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (1, 1));
    assert_eq!(db.find(&store, &emails, "kim@example.org").await.as_deref(), Some("3"));
}

async fn i11_a_rotation_is_not_finished_before_every_value_is_added<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    let shared = BlindLookup::shared(B::Table::default(), BlindIndex::new("phone"));
    db.add(&store, &emails, "1", "ada@example.org").await;
    for phone in ["0815", "4711"] {
        db.add(&store, &shared, "1", phone).await;
    }
    rotate(&db, &store).await;
    db.add(&store, &shared, "1", "0815").await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    let refused = finish(&db, &store, &emails).await.unwrap_err();
    let Error::BlindIndex { index, fault: BlindIndexFault::RotationUnfinished { scope } } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!((&**index, scope), ("phone", &customer_scope("1")), "one of two values in another index of the table");
    assert_eq!(versions(&db, &store).await, [2, 1], "nothing was destroyed");
    let stale = index_history(&db, &store).await.keys[0].key_id;
    let mut connection = db.connect().await.unwrap();
    let refused = store.keys().retire_index_keys(db.connection(&mut connection), stale).await.unwrap_err();
    assert!(matches!(refused, Error::Collision { .. }), "what is complete under a key that is not active: {refused:?}");
    drop(connection);
    db.add(&store, &shared, "1", "4711").await;
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (1, 3));
    let mut connection = db.connect().await.unwrap();
    let found = store.lookup(&shared).find_all(db.connection(&mut connection), "4711", 9).await.unwrap();
    assert_eq!(found, [customer_scope("1")]);
}

async fn i11_the_key_follows_a_rotated_key_encryption_key<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    rotate(&db, &store).await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let old = store.keys().kek_usage(connection).await.unwrap().remove(0).kek;
    let new = store.keys().rotate_kek(connection, "default").await.unwrap();
    // A process that has opened no key yet, while the versions are wrapped by an old key and new keys by a new one.
    db.add(&db.process(schemas()), &emails, "2", "kim@example.org").await;
    store.keys().rewrap(connection, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
    store.keys().retire_kek(connection, old.kek_id).await.unwrap();
    let history = index_history(&db, &store).await;
    assert!(history.keys.iter().all(|key| key.kek_id == new.kek_id), "{history:?}");
    for process in [&store, &db.process(schemas())] {
        for (value, owner) in [("ada@example.org", "1"), ("kim@example.org", "2")] {
            assert_eq!(db.find(process, &emails, value).await.as_deref(), Some(owner));
        }
    }
}

async fn hashes_before_and_after_a_rotation_have_nothing_in_common<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    rotate(&db, &store).await;
    let mut connection = db.connect().await.unwrap();
    let hashes = store.blind_hashes(db.connection(&mut connection), emails.index(), "ada@example.org").await.unwrap();
    assert_ne!(hashes[0].as_bytes(), hashes[1].as_bytes());
    assert_ne!(hashes[0].key_id(), hashes[1].key_id());
}

async fn i11_a_transaction_that_read_before_a_rotation_adds_under_both_versions_or_not_at_all<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    let mut transaction = db.begin_snapshot().await;
    let found = store.lookup(&emails).find(db.tx(&mut transaction), "ada@example.org").await.unwrap();
    assert!(found.is_some());
    rotate(&db, &store).await;
    let added = store.lookup(&emails).add(db.tx(&mut transaction), &customer_scope("2"), "kim@example.org").await;
    let added = db.end(transaction, added).await;
    assert!(matches!(added, Err(Error::Collision { .. })), "it sees the keys of before: {added:?}");
    db.add(&store, &emails, "1", "ada@example.org").await;
    assert_eq!(finish(&db, &store, &emails).await.unwrap(), (1, 1));
}

/// The key of a rotation that was rolled back is not used, though this process has seen it.
#[tokio::test]
async fn a_rotation_that_is_rolled_back_leaves_nothing() {
    for postgres in [false, true] {
        if postgres { rolled_back::<Postgres>().await } else { rolled_back::<Memory>().await }
    }
}

async fn rolled_back<B: Indexed>() {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "1", "ada@example.org").await;
    for _ in 0..2 {
        let mut transaction = db.begin().await.unwrap();
        let tx = db.tx(&mut transaction);
        store.keys().rotate_index_key(tx).await.unwrap();
        store.keys().rotate_index_key(tx).await.unwrap();
        assert_eq!(store.blind_hashes(tx, emails.index(), "ada@example.org").await.unwrap().len(), 3);
        db.roll_back(transaction).await;
        assert_eq!(versions(&db, &store).await, [1]);
    }
    rotate(&db, &store).await;
    assert_eq!(versions(&db, &store).await, [2, 1]);
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("1"));
}
