//! A replay over key tables that do not do what they say, and over logs that somebody has written to.

use super::restores::{RESTORE_ALL, RESTORE_ROWS, SAVE, after_a_backup, prepare, requiring};
use super::{Intruder, chain, copy_in, export, placed, replay, schemas, seal, shop, verify};
use async_trait::async_trait;
use eventseal::error::{KeyFault, StorageFault};
use eventseal::keys::{KeyId, KeyRows, KeyTable, ScopeAction, ScopeSetting};
use eventseal::{Error, Result};
use std::time::Duration;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, contains};
use time::OffsetDateTime;

#[derive(Clone, Copy, Debug)]
enum Lie {
    DestroysAndSaysNone,
    DestroysNoneAndSaysAll,
    SetsAndSaysNot,
    SetsNotAndSaysSo,
}

struct Lying<K>(K, Lie);

#[async_trait]
impl<K: KeyTable> KeyFaults for Lying<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.0
    }

    async fn destroy_by_id(&self, rows: &mut dyn KeyRows, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        match self.1 {
            Lie::DestroysAndSaysNone => rows.destroy_by_id(key_ids, at).await.map(|_| 0),
            Lie::DestroysNoneAndSaysAll => Ok(key_ids.len() as u64),
            _ => rows.destroy_by_id(key_ids, at).await,
        }
    }

    async fn set_scope(&self, rows: &mut dyn KeyRows, to: &ScopeSetting<'_>) -> Result<bool> {
        match self.1 {
            Lie::SetsAndSaysNot => rows.set_scope(to).await.map(|_| false),
            Lie::SetsNotAndSaysSo => Ok(true),
            _ => rows.set_scope(to).await,
        }
    }
}

/// A row-level policy or a trigger may keep rows as they are. A replay must not report an erasure then.
async fn i13_a_replay_looks_whether_it_has_done_what_it_says<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    for lie in [Lie::DestroysAndSaysNone, Lie::DestroysNoneAndSaysAll, Lie::SetsAndSaysNot, Lie::SetsNotAndSaysSo] {
        db.write(RESTORE_ROWS).await;
        let lying = db.process_with(Faulty(Lying(B::Keys::default(), lie)), KEYRING.clone(), schemas());
        let refused = replay(&db, &lying, &[&copy]).await;
        assert!(matches!(refused, Err(Error::Storage(StorageFault::NoEffect { .. }))), "{lie:?}: {refused:?}");
        let read = db.read(&db.process(schemas()), "1").await.unwrap();
        assert!(contains(&read[0].payload, "Ada"), "{lie:?}: it was rolled back");
    }
    assert!(replay(&db, &db.process(schemas()), &[&copy]).await.unwrap().is_complete());
}

/// Generations only grow, whatever the copy says of the time before.
async fn a_replay_never_takes_a_generation_back<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let store = db.process(schemas());
    for _ in 0..2 {
        db.shred(&store, "2").await;
        db.reopen(&store, "2").await;
    }
    assert!(replay(&db, &store, &[&copy]).await.unwrap().forked);
    assert_eq!(db.history(&store, "2").await.unwrap().generation, 3);
    for _ in 0..2 {
        replay(&db, &store, &[&copy]).await.unwrap();
    }
    let forks = chain(&db).await.into_iter().filter(|sealed| sealed.entry.action == ScopeAction::Fork).count();
    assert_eq!(forks, 2, "the beginning and the end of a replay into a fork are recorded once");
}

/// The key was made and shredded after the backup, and so was the key-encryption key that wrapped it.
async fn i13_a_key_under_a_key_that_was_lost_gets_a_tombstone<B: Intruder>() {
    let (db, store) = shop::<B>(&["1"]).await;
    db.write(SAVE).await;
    db.write("CREATE TABLE saved_keks AS SELECT * FROM key_encryption_keys").await;
    let mut connection = db.connect().await.unwrap();
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
    drop(connection);
    db.append(&store, "4", &[placed("4")]).await;
    db.shred(&store, "4").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write(RESTORE_ALL).await;
    db.write("DELETE FROM key_encryption_keys; INSERT INTO key_encryption_keys SELECT * FROM saved_keks").await;
    let store = db.process(schemas());
    let done = replay(&db, &store, &[&copy]).await.unwrap();
    assert_eq!((done.missing, done.tombstones), (1, 1), "{done:?}");
    assert!(db.read(&store, "4").await.unwrap()[0].is_redacted());
    assert!(verify(&db, &store, Some(&copy)).await.is_sound());
}

async fn i14_an_export_finds_a_row_that_was_dropped<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    for id in ["1", "2", "3"] {
        db.shred(&store, id).await;
    }
    seal(&db, &store).await.unwrap();
    db.write("DELETE FROM shred_log WHERE seq = 2").await;
    let (copy, _folder) = copy_in();
    let refused = export(&db, &store, &copy).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ChainAltered { seq: 3, .. }))), "{refused:?}");
}

/// The rows of the chain are all there, and its end was put back: the next entry would get a number that is taken.
async fn i14_an_end_that_was_put_back_is_found<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    for id in ["1", "2", "3"] {
        db.shred(&store, id).await;
    }
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write("UPDATE shred_log_head SET seq = 1, hash = (SELECT hash FROM shred_log WHERE seq = 1)").await;
    let refused = prepare(&db, &requiring(&db, &copy, Duration::ZERO)).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{refused:?}");
    let refused = export(&db, &store, &copy).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{refused:?}");
}

support::on_sqlite_and_postgres! {
    i13_a_replay_looks_whether_it_has_done_what_it_says,
    a_replay_never_takes_a_generation_back,
    i13_a_key_under_a_key_that_was_lost_gets_a_tombstone,
    i14_an_export_finds_a_row_that_was_dropped,
    i14_an_end_that_was_put_back_is_found,
}
