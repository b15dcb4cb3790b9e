//! What points to what after a replay.

use super::restores::{RESTORE_ALL, SAVE};
use super::{Intruder, copy_in, export, replay, schemas, shop};
use support::customer_scope;

/// The scope keeps a key that no shred names, and so is left to somebody. Its active key was destroyed again.
async fn i13_no_scope_points_to_a_key_that_a_replay_destroyed<B: Intruder>() {
    let (db, store) = shop::<B>(&["1"]).await;
    let scope = customer_scope("1");
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write(RESTORE_ALL).await;
    let store = db.process(schemas());
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &scope).await.unwrap();
    db.commit(transaction).await.unwrap();
    let to_the_older = "UPDATE key_scopes SET active_key_id =
        (SELECT k.key_id FROM data_keys AS k WHERE k.scope_id = '1' AND k.version = 1) WHERE scope_id = '1'";
    db.write(to_the_older).await;
    let done = replay(&db, &store, &[&copy]).await.unwrap();
    assert_eq!((done.destroyed, &done.undecided[..]), (1, &[scope][..]), "{done:?}");
    // It fails if there is a scope that points to a tombstone.
    let none = "CREATE TABLE none_points (number INTEGER CHECK (number = 0)); INSERT INTO none_points SELECT count(*)
        FROM key_scopes AS s JOIN data_keys AS k ON k.key_id = s.active_key_id WHERE k.state <> 'live'";
    db.write(none).await;
}

support::on_sqlite_and_postgres! {
    i13_no_scope_points_to_a_key_that_a_replay_destroyed,
}
