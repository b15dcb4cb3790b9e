//! Key-encryption keys that move from one master key to another.

use super::{Counting, NEW, OLD, Rotated, keyring};
use async_trait::async_trait;
use eventseal::error::KmsFault;
use eventseal::keys::{KekRecord, KekUsage, KeyTable, RewrapOptions};
use eventseal::kms::{Kms, WrappedKek};
use eventseal::{Error, Keyring};
use std::sync::Arc;
use support::faults::{Faulty, KmsFaults};
use support::on_every_database;
use support::rows::{self, Change};

on_every_database! {
    i11_keys_move_from_one_master_key_to_another_and_back,
    i11_a_move_that_stopped_halfway_is_completed_by_the_next,
    i11_a_key_that_does_not_open_is_neither_moved_nor_in_the_way,
}

/// A keyring under another provider's name.
struct Elsewhere(Keyring);

#[async_trait]
impl KmsFaults for Elsewhere {
    fn inner(&self) -> &dyn Kms {
        &self.0
    }

    fn provider(&self) -> &'static str {
        "elsewhere"
    }
}

async fn i11_keys_move_from_one_master_key_to_another_and_back<B: Rotated>() {
    let db = B::make().await;
    let store = db.prepared_with(keyring(OLD)).await;
    db.place(&store, "1", 0..3).await.unwrap();
    db.rotate(&store).await;
    let mut connection = db.connect().await.unwrap();
    let conn = db.connection(&mut connection);
    // Within the provider: the new key first, the old one for opening.
    let both = db.with_kms(keyring(&format!("{NEW}\n{OLD}")));
    let moves = both.keys().move_master_key(conn, None, &mut |_| {}).await.unwrap();
    assert_eq!((moves.moved.len(), moves.already.len()), (2, 0));
    let again = both.keys().move_master_key(conn, None, &mut |_| {}).await.unwrap();
    assert_eq!((again.moved.len(), again.already.len()), (0, 2), "none is wrapped twice");
    assert_eq!(db.read(&db.with_kms(keyring(NEW)), "1").await.unwrap().len(), 3, "the old master key can go");
    assert!(
        matches!(db.read(&db.with_kms(keyring(OLD)), "1").await, Err(Error::Kms(KmsFault::Refused { .. }))),
        "and is not needed any more"
    );
    // To another provider, and back.
    let there = db.with_kms(Faulty(Elsewhere(keyring(OLD))));
    let refused = there.keys().move_master_key(conn, None, &mut |_| {}).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Kms(KmsFault::Refused { problem, .. }) if problem.contains("keyring")),
        "{refused:?}"
    );
    let wrong = there.keys().move_master_key(conn, Some(&keyring(OLD)), &mut |_| {}).await.unwrap_err();
    assert!(matches!(wrong, Error::Kms(KmsFault::Refused { .. })) && !wrong.is_retryable(), "{wrong:?}");
    assert_eq!(there.keys().move_master_key(conn, Some(&keyring(NEW)), &mut |_| {}).await.unwrap().moved.len(), 2);
    assert_eq!(db.read(&there, "1").await.unwrap().len(), 3);
    assert!(
        matches!(db.read(&db.with_kms(keyring(NEW)), "1").await, Err(Error::Kms(KmsFault::Refused { .. }))),
        "that provider has none any more"
    );
    let back = db.with_kms(keyring(OLD));
    assert_eq!(
        back.keys()
            .move_master_key(conn, Some(&Faulty(Elsewhere(keyring(OLD)))), &mut |_| {})
            .await
            .unwrap()
            .moved
            .len(),
        2
    );
    assert_eq!(db.read(&db.with_kms(keyring(OLD)), "1").await.unwrap().len(), 3);
    assert_eq!(db.read(&store, "1").await.unwrap().len(), 3, "a running process did not notice");
}

async fn i11_a_move_that_stopped_halfway_is_completed_by_the_next<B: Rotated>() {
    for answers in 0.. {
        let db = B::make().await;
        let store = db.prepared_with(keyring(OLD)).await;
        db.place(&store, "1", 0..2).await.unwrap();
        db.rotate(&store).await;
        db.place(&store, "1", 2..4).await.unwrap();
        let kms = Counting::new(&format!("{NEW},{OLD}"));
        *kms.answers.lock().unwrap() = Some(answers);
        let mover = db.with_kms(Arc::clone(&kms));
        let mut connection = db.connect().await.unwrap();
        let stopped = mover.keys().move_master_key(db.connection(&mut connection), None, &mut |_| {}).await;
        drop(connection);
        let both = db.with_kms(keyring(&format!("{NEW},{OLD}")));
        assert_eq!(db.read(&both, "1").await.unwrap().len(), 4, "every key opens");
        *kms.answers.lock().unwrap() = None;
        let mut connection = db.connect().await.unwrap();
        let rest = mover.keys().move_master_key(db.connection(&mut connection), None, &mut |_| {}).await.unwrap();
        drop(connection);
        assert_eq!(rest.moved.len() + rest.already.len(), 2);
        assert_eq!(db.read(&db.with_kms(keyring(NEW)), "1").await.unwrap().len(), 4);
        if stopped.is_ok() {
            assert!(answers >= 4, "it was stopped at every call");
            break;
        }
    }
}

async fn i11_a_key_that_does_not_open_is_neither_moved_nor_in_the_way<B: Rotated>() {
    let db = B::make().await;
    let store = db.prepared_with(keyring(OLD)).await;
    db.place(&store, "1", 0..2).await.unwrap();
    let first = db.usage(&store).await.remove(0).kek;
    // Another master key of the same name is another one, for rotating as for moving.
    let impostor = keyring(&NEW.replace("new:", "old:"));
    let wrong = db.with_kms(impostor);
    let mut connection = db.connect().await.unwrap();
    let conn = db.connection(&mut connection);
    let refused = wrong.keys().rotate_kek(conn, "default").await.unwrap_err();
    assert!(matches!(refused, Error::Kms(KmsFault::Refused { .. })), "{refused:?}");
    let refused = wrong.keys().move_master_key(conn, None, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, Error::Kms(KmsFault::Refused { .. })), "nothing of it is there already: {refused:?}");
    drop(connection);
    assert_eq!(db.usage(&store).await.len(), 1, "an active key that no application can open");

    // One of three is lost. While it wraps something, the move says so, and moves the others all the same.
    db.rotate(&store).await;
    db.place(&store, "1", 2..4).await.unwrap();
    let lost = Counting::new(NEW);
    let mut connection = db.connect().await.unwrap();
    let conn = db.connection(&mut connection);
    let broken = WrappedKek { master_key_id: "lost".to_owned(), ciphertext: vec![1; 65] };
    let keys = B::Keys::default();
    let provider = lost.provider().to_owned();
    let as_in = KekRecord { provider, wrapped: broken, wrapped_at: first.created_at, ..first.clone() };
    rows::change(&keys, conn, Change::Wrap { kek: &first, as_in: &as_in }).await.unwrap();
    let both = db.with_kms(keyring(&format!("{NEW}\n{OLD}")));
    let refused = both.keys().move_master_key(conn, None, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, Error::Kms(KmsFault::Refused { kek_id, .. }) if kek_id == first.kek_id), "{refused:?}");
    let there = |usage: &[KekUsage]| usage.iter().filter(|usage| usage.kek.wrapped.master_key_id == "new").count();
    assert_eq!(there(&keys.kek_usage(conn).await.unwrap()), 1, "the other one was moved");
    // Its data keys are moved by the process that has it open still; then nobody needs it.
    store.keys().rewrap(conn, &RewrapOptions::default(), &mut |_| {}).await.unwrap_or_default();
    drop(connection);
    let usage = db.usage(&store).await;
    if usage.iter().any(|usage| usage.kek.kek_id == first.kek_id && usage.live_keys == 0) {
        db.retire(&store, first.kek_id).await.unwrap();
        let mut connection = db.connect().await.unwrap();
        let moves = both.keys().move_master_key(db.connection(&mut connection), None, &mut |_| {}).await.unwrap();
        assert_eq!((moves.moved.len(), moves.already.len(), moves.dead), (0, 1, vec![first.kek_id]));
    } else {
        panic!("the process that had the key open could not rewrap: {usage:?}");
    }
}
