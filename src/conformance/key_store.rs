//! The contract of a key table.

use crate::conformance::{Database, must};
use crate::error::{Error, KeyFault, Result, TransactionFault};
use crate::event::now;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, KekRecord, KekState, KekUsage, KeyStore, NewDataKey, Retirement, RewrapBatch, Rewrapper,
    ScopeAction, ScopeChange, ScopeLock, ScopeState,
};
use crate::kms::WrappedKek;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use time::OffsetDateTime;
use uuid::Uuid;

/// Runs all of the suite. The tables are migrated and hold nothing yet.
pub async fn key_store<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    first_keys_are_installed_once(db, keys).await;
    scopes_and_keys_are_kept(db, keys).await;
    the_newest_key_is_known_whatever_is_active(db, keys).await;
    changes_that_change_nothing_are_errors(db, keys).await;
    scopes_are_found_by_their_ids(db, keys).await;
    shredded_keys_leave_tombstones(db, keys).await;
    no_key_outlives_a_concurrent_shred(db, keys).await;
    key_encryption_keys_are_rotated_moved_and_retired(db, keys).await;
    data_keys_are_wrapped_anew_in_batches(db, keys).await;
}

/// Runs two futures at the same time, in one task.
pub(super) async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut done_a, mut done_b) = (None, None);
    poll_fn(|context| {
        if done_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            done_a = Some(value);
        }
        if done_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            done_b = Some(value);
        }
        match (done_a.take(), done_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (done_a, done_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

fn kek(partition: &str) -> KekRecord {
    KekRecord {
        kek_id: KekId(Uuid::now_v7()),
        partition: partition.to_owned(),
        provider: "conformance".to_owned(),
        wrapped: WrappedKek { master_key_id: "master".to_owned(), ciphertext: vec![0, 1, 2, 255] },
        state: KekState::Active,
        created_at: now(),
        wrapped_at: now(),
    }
}

fn key(scope: &KeyScope, version: u32, kek_id: KekId) -> NewDataKey {
    NewDataKey {
        key_id: KeyId(Uuid::now_v7()),
        scope: scope.clone(),
        version,
        kek_id,
        wrapped_key: vec![version.to_le_bytes()[0]; 65],
        created_at: now(),
    }
}

fn fresh(name: &str) -> KeyScope {
    KeyScope::new("Conformance", format!("{name} {} '\"\\ \u{1f600}", Uuid::now_v7()))
}

async fn active_kek<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) -> KekId {
    let mut connection = must(db.begin().await, "begin");
    match must(keys.active_kek(db.tx(&mut connection), "default").await, "active_kek") {
        Some(kek) => kek.kek_id,
        None => panic!("install a key-encryption key first"),
    }
}

/// A scope with one key, committed.
async fn scope_with_key<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K, name: &str) -> (KeyScope, NewDataKey) {
    let scope = fresh(name);
    let new = key(&scope, 1, active_kek(db, keys).await);
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
    must(keys.insert_keys(tx, std::slice::from_ref(&new)).await, "insert_keys");
    must(db.commit(transaction).await, "commit");
    (scope, new)
}

async fn shred<K: KeyStore>(keys: &K, tx: &mut K::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>> {
    keys.create_scopes(tx, std::slice::from_ref(scope)).await?;
    keys.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await?;
    let change = ScopeChange {
        scope: scope.clone(),
        action: ScopeAction::Shred,
        state: ScopeState::Shredded,
        generation: 1,
        reason: "conformance".to_owned(),
        actor: Some("the suite".to_owned()),
        at,
    };
    let destroyed = keys.destroy_keys(tx, scope, change.at).await?;
    keys.change_scope(tx, &change).await?;
    Ok(destroyed)
}

/// The first key-encryption key and the first key of a scope stay the first, and are committed at once.
pub async fn first_keys_are_installed_once<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    assert!(must(keys.namespace(conn).await, "namespace").is_some(), "migrated tables name their namespace");
    assert!(
        must(keys.active_kek(conn, "default").await, "active_kek").is_none(),
        "the suite needs tables without keys"
    );
    let (first, second, elsewhere) = (kek("default"), kek("default"), kek("elsewhere"));
    for new in [&first, &second, &elsewhere] {
        must(keys.install_kek(conn, new).await, "install_kek");
    }
    let scope = KeyScope::integrity();
    for new in [key(&scope, 1, first.kek_id), key(&scope, 1, first.kek_id)] {
        must(keys.install_key(conn, &new).await, "install_key");
    }
    let mut others = must(db.begin().await, "begin");
    let tx = db.tx(&mut others);
    let Some(active) = must(keys.active_kek(tx, "default").await, "active_kek") else { panic!("it was not committed") };
    assert_eq!((active.kek_id, &active.wrapped, active.created_at), (first.kek_id, &first.wrapped, first.created_at));
    let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Share).await, "scopes").remove(0);
    assert_eq!(
        (record.last_version, record.generation, record.active.is_some()),
        (1, 1, true),
        "a first key is installed once"
    );
    drop(others);

    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[fresh("in a transaction")]).await, "create_scopes");
    let refused = keys.install_kek(tx, &kek("default")).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
    drop(transaction);
}

/// What is written is read, by scope and by key; unknown ones are left out; a rollback forgets.
pub async fn scopes_and_keys_are_kept<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let kek_id = active_kek(db, keys).await;
    let (scope, first) = scope_with_key(db, keys, "kept").await;
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let kek = must(keys.keks(tx, &[kek_id, KekId(Uuid::now_v7())]).await, "keks");
    assert_eq!(kek.len(), 1);
    let unknown = fresh("unknown");
    for lock in [ScopeLock::None, ScopeLock::Share, ScopeLock::Update] {
        let records = must(keys.scopes(tx, &[scope.clone(), unknown.clone()], lock).await, "scopes");
        assert_eq!(records.len(), 1, "unknown scopes are left out");
        let record = &records[0];
        assert_eq!(
            (&record.scope, record.state, record.generation, record.last_version),
            (&scope, ScopeState::Live, 1, 1)
        );
        let active = record.active.as_ref();
        assert_eq!(
            active.map(|key| (key.key_id, key.version, key.kek_id, key.created_at)),
            Some((first.key_id, 1, kek_id, first.created_at))
        );
        assert_eq!(active.and_then(|key| key.wrapped_key.as_ref()), Some(&first.wrapped_key));
    }
    must(
        keys.create_scopes(tx, &[scope.clone(), fresh("new")]).await,
        "creating a known scope again, beside a new one",
    );
    let second = key(&scope, 2, kek_id);
    must(keys.insert_keys(tx, std::slice::from_ref(&second)).await, "insert_keys");
    let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::None).await, "scopes").remove(0);
    assert_eq!(
        (record.last_version, record.active.map(|key| key.key_id)),
        (2, Some(second.key_id)),
        "insert_keys must insert every key, the last one as the active one"
    );
    let ids = [second.key_id, KeyId(Uuid::now_v7()), first.key_id];
    let mut found = must(keys.data_keys(tx, &ids).await, "data_keys");
    found.sort_by_key(|key| key.version);
    assert_eq!(found.iter().map(|key| key.key_id).collect::<Vec<_>>(), [first.key_id, second.key_id]);
    assert!(
        found.iter().all(|key| key.scope == scope && key.scope_state == ScopeState::Live && key.shredded_at.is_none())
    );
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let found = must(keys.data_keys(db.tx(&mut transaction), &ids).await, "data_keys");
    assert_eq!(found.len(), 1, "a rolled-back key is gone");
    assert!(must(keys.history(db.tx(&mut transaction), &unknown).await, "history").is_none());
}

/// The highest version is that of all keys, not that of the active one: whoever writes the table may have made an older
/// key the active one again, and it must be found out.
pub async fn the_newest_key_is_known_whatever_is_active<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let kek_id = active_kek(db, keys).await;
    let (scope, first) = scope_with_key(db, keys, "newest").await;
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await, "scopes");
    let (newest, older) = (key(&scope, 3, kek_id), key(&scope, 2, kek_id));
    must(keys.insert_keys(tx, std::slice::from_ref(&newest)).await, "insert_keys");
    must(keys.insert_keys(tx, std::slice::from_ref(&older)).await, "insert_keys");
    must(db.commit(transaction).await, "commit");
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    for lock in [ScopeLock::None, ScopeLock::Share, ScopeLock::Update] {
        let record = must(keys.scopes(tx, std::slice::from_ref(&scope), lock).await, "scopes").remove(0);
        assert_eq!(
            record.active.map(|key| key.key_id),
            Some(older.key_id),
            "the key that was inserted last is the active one"
        );
        assert_eq!(
            record.last_version, 3,
            "last_version must be the highest version that there is, whichever key is active"
        );
    }
    let Some(history) = must(keys.history(tx, &scope).await, "history") else {
        panic!("a scope with keys has a history")
    };
    let found: Vec<KeyId> = history.keys.iter().map(|key| key.key_id).collect();
    assert_eq!(found, [first.key_id, older.key_id, newest.key_id], "a history is in ascending order of version");
}

/// What is changed is there: a change of something that is not there is an error, and no silence.
pub async fn changes_that_change_nothing_are_errors<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let kek_id = active_kek(db, keys).await;
    let unknown = fresh("not there");
    let change = ScopeChange {
        scope: unknown.clone(),
        action: ScopeAction::Disable,
        state: ScopeState::Disabled,
        generation: 1,
        reason: "conformance".to_owned(),
        actor: None,
        at: now(),
    };
    let mut transaction = must(db.begin().await, "begin");
    let changed = keys.change_scope(db.tx(&mut transaction), &change).await;
    assert!(changed.is_err(), "change_scope said that it changed a scope that is not there");
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let inserted = keys.insert_keys(db.tx(&mut transaction), &[key(&unknown, 1, kek_id)]).await;
    assert!(inserted.is_err(), "insert_keys said that it gave a key to a scope that is not there");
    drop(transaction);
    let (scope, _) = scope_with_key(db, keys, "changed").await;
    for (action, state) in [(ScopeAction::Disable, ScopeState::Disabled), (ScopeAction::Enable, ScopeState::Live)] {
        let mut transaction = must(db.begin().await, "begin");
        let tx = db.tx(&mut transaction);
        must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await, "scopes");
        let change = ScopeChange { scope: scope.clone(), action, state, ..change.clone() };
        must(keys.change_scope(tx, &change).await, "change_scope");
        let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::None).await, "scopes").remove(0);
        assert_eq!(record.state, state, "change_scope did not set the state that it was given");
        let Some(history) = must(keys.history(tx, &scope).await, "history") else {
            panic!("a scope with keys has a history")
        };
        assert_eq!(history.changes.last(), Some(&change), "change_scope did not record the change");
        if state == ScopeState::Disabled {
            let refused = keys.insert_keys(tx, &[key(&scope, 2, kek_id)]).await;
            assert!(refused.is_err(), "insert_keys gave a key to a scope that is not live");
            // A refusal may have ended the transaction.
            drop(transaction);
            let mut transaction = must(db.begin().await, "begin");
            must(keys.change_scope(db.tx(&mut transaction), &change).await, "change_scope");
            must(db.commit(transaction).await, "commit");
        }
    }
}

/// Whoever shreds one scope is told of others under the same id: of whatever kind, byte for byte, and shredded ones
/// too.
pub async fn scopes_are_found_by_their_ids<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let id = fresh("found by its id").id().to_owned();
    let shouted = id.to_uppercase();
    let scope = |kind: &str, id: &str| KeyScope::new(kind, id);
    let kinds = ["A", "Conformance", "conformance", "\u{1f600}"];
    let mut expected: Vec<KeyScope> = kinds.into_iter().map(|kind| scope(kind, &id)).collect();
    expected.push(scope("Conformance", &shouted));
    let others = [scope("Conformance", &format!("{id} ")), scope("Elsewhere", &format!("{id}2"))];
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[&expected[..], &others].concat()).await, "create_scopes");
    must(shred(keys, tx, &expected[0], now()).await, "shred");
    let mut found =
        must(keys.scopes_with_ids(tx, &[shouted, id.clone(), "no such id".to_owned()]).await, "scopes_with_ids");
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "scopes_with_ids finds the scopes of every kind under these ids, and no others");
    assert!(must(keys.scopes_with_ids(tx, &[]).await, "scopes_with_ids").is_empty(), "no ids, no scopes");
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let found = must(keys.scopes_with_ids(db.tx(&mut transaction), &[id]).await, "scopes_with_ids");
    assert!(found.is_empty(), "scopes that were rolled back are not found");
}

/// A shred empties every key row of the scope and keeps all of them; nothing of it can be undone.
pub async fn shredded_keys_leave_tombstones<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let (scope, first) = scope_with_key(db, keys, "shredded").await;
    let (other, other_key) = scope_with_key(db, keys, "other").await;
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.insert_keys(tx, &[key(&scope, 2, first.kek_id)]).await, "insert_keys");
    let destroyed = must(shred(keys, tx, &scope, now()).await, "shred");
    assert_eq!(destroyed.len(), 2, "destroy_keys must destroy every key of the scope, and say which");
    assert_eq!(destroyed[0], first.key_id, "destroy_keys names keys in ascending order of version");
    assert!(must(keys.destroy_keys(tx, &scope, now()).await, "destroying again").is_empty());
    let refused = keys.insert_keys(tx, &[key(&fresh("no such scope"), 1, first.kek_id)]).await;
    drop(refused); // a foreign key may refuse it, or nothing may happen: it must not panic
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.insert_keys(tx, &[key(&scope, 2, first.kek_id)]).await, "insert_keys");
    let at = now();
    must(shred(keys, tx, &scope, at).await, "shred");
    must(db.commit(transaction).await, "commit");
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let Some(history) = must(keys.history(tx, &scope).await, "history") else {
        panic!("a shredded scope has a history")
    };
    let key_ids: Vec<KeyId> = history.keys.iter().map(|key| key.key_id).collect();
    let found = must(keys.data_keys(tx, &key_ids).await, "data_keys");
    assert!(found.len() == 2 && key_ids[0] == first.key_id);
    for key in &found {
        // Readers redact only what says both, so that a lost blob is never taken for an erasure.
        assert!(key.wrapped_key.is_none(), "a destroyed key is still there");
        assert_eq!(key.shredded_at, Some(at), "a destroyed key must say when it was destroyed");
        assert_eq!(key.scope_state, ScopeState::Shredded);
    }
    let found = must(keys.data_keys(tx, &[other_key.key_id]).await, "data_keys");
    assert!(
        found[0].wrapped_key.as_ref() == Some(&other_key.wrapped_key) && found[0].shredded_at.is_none(),
        "a live key must say so twice"
    );
    let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Share).await, "scopes").remove(0);
    assert_eq!((record.state, record.last_version, record.active.is_none()), (ScopeState::Shredded, 2, true));
    assert_eq!(history.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        (history.changes.len(), history.changes[0].reason.as_str(), history.changes[0].action),
        (1, "conformance", ScopeAction::Shred)
    );
    assert_eq!(history.changes[0].actor.as_deref(), Some("the suite"), "the history says who did it");
    let untouched = must(keys.scopes(tx, &[other], ScopeLock::None).await, "scopes").remove(0);
    assert!(untouched.active.is_some_and(|key| key.wrapped_key.is_some()), "another scope was touched");
}

/// Whatever the order in which an append that makes a key and a shred of its scope run, no live key is
/// left under a tombstone.
pub async fn no_key_outlives_a_concurrent_shred<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let kek_id = active_kek(db, keys).await;
    let mut shreds = 0;
    for round in 0..20_u32 {
        let scope = &fresh("race");
        let append = async {
            let mut transaction = db.begin().await?;
            let tx = db.tx(&mut transaction);
            keys.create_scopes(tx, std::slice::from_ref(scope)).await?;
            let record = keys.scopes(tx, std::slice::from_ref(scope), ScopeLock::Share).await?.remove(0);
            if record.state == ScopeState::Live && record.active.is_none() {
                keys.insert_keys(tx, &[key(scope, 1, kek_id)]).await?;
            }
            db.commit(transaction).await
        };
        let erase = async {
            let mut transaction = db.begin().await?;
            shred(keys, db.tx(&mut transaction), scope, now()).await?;
            db.commit(transaction).await
        };
        let (appended, shredded) = if round % 2 == 0 {
            join(append, erase).await
        } else {
            let (shredded, appended) = join(erase, append).await;
            (appended, shredded)
        };
        for lost in [&appended, &shredded].into_iter().filter_map(|result| result.as_ref().err()) {
            assert!(lost.is_retryable(), "{lost:?}");
        }
        let mut transaction = must(db.begin().await, "begin");
        let history = must(keys.history(db.tx(&mut transaction), scope).await, "history");
        if shredded.is_ok() {
            shreds += 1;
            let Some(history) = history else { panic!("a committed shred left no trace") };
            assert_eq!(history.state, ScopeState::Shredded);
            assert!(history.keys.iter().all(|key| key.shredded_at.is_some()), "a key outlived the shred of its scope");
        }
    }
    assert!(shreds > 0, "no shred was ever committed");
}

/// Marks what it wraps; does not open what is marked as bad.
struct Marking {
    written_opens: bool,
}

const BAD: u8 = 255;

impl Rewrapper for Marking {
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>> {
        let wrapped = key.wrapped_key.as_deref().unwrap_or(&[BAD]);
        Ok((wrapped[0] != BAD).then(|| [b"anew", key.key_id.0.as_bytes().as_slice()].concat()))
    }

    fn opens(&self, key_id: KeyId, wrapped: &[u8]) -> bool {
        self.written_opens && wrapped == [b"anew", key_id.0.as_bytes().as_slice()].concat()
    }
}

async fn usage_of<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K, kek_id: KekId) -> KekUsage {
    let mut connection = must(db.begin().await, "begin");
    let usage = must(keys.kek_usage(db.tx(&mut connection)).await, "kek_usage");
    match usage.into_iter().find(|usage| usage.kek.kek_id == kek_id) {
        Some(usage) => usage,
        None => panic!("a key-encryption key is not listed"),
    }
}

/// One key is active in each partition; an old one opens until nothing needs it; none comes back.
pub async fn key_encryption_keys_are_rotated_moved_and_retired<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let partition = fresh("partition").id().to_owned();
    let (first, second, stray) = (kek(&partition), kek(&partition), kek(&partition));
    must(keys.install_kek(conn, &first).await, "install_kek");
    assert!(
        !must(keys.replace_kek(conn, stray.kek_id, &second).await, "replace_kek"),
        "replace_kek replaces nothing but the active key-encryption key"
    );
    assert!(
        must(keys.replace_kek(conn, first.kek_id, &second).await, "replace_kek"),
        "replace_kek must replace the active key-encryption key, and say so"
    );
    let active = must(keys.active_kek(conn, &partition).await, "active_kek");
    assert_eq!(
        active.as_ref(),
        Some(&second),
        "replace_kek must make the new key-encryption key the active one, as it was given"
    );
    assert!(
        !must(keys.replace_kek(conn, first.kek_id, &stray).await, "replace_kek"),
        "two processes rotated at once: the second must learn it"
    );
    let active = must(keys.active_kek(conn, &partition).await, "active_kek");
    assert_eq!(active.as_ref().map(|kek| (kek.kek_id, kek.state)), Some((second.kek_id, KekState::Active)));
    let old = usage_of(db, keys, first.kek_id).await;
    assert_eq!(
        (old.kek.state, old.live_keys, old.oldest_wrap),
        (KekState::DecryptOnly, 0, None),
        "replace_kek must leave the old key-encryption key for opening only"
    );
    assert_eq!(
        (&old.kek.wrapped, old.kek.created_at, old.kek.wrapped_at),
        (&first.wrapped, first.created_at, first.wrapped_at)
    );

    let elsewhere = WrappedKek { master_key_id: "another".to_owned(), ciphertext: vec![9, 9] };
    let later = now() + time::Duration::SECOND;
    assert!(
        must(keys.move_kek(conn, &first, "other provider", &elsewhere, later).await, "move_kek"),
        "move_kek must move a row that is as it was, and say so"
    );
    let moved = usage_of(db, keys, first.kek_id).await.kek;
    assert_eq!(
        (moved.provider.as_str(), &moved.wrapped, moved.wrapped_at),
        ("other provider", &elsewhere, later),
        "move_kek must exchange provider, wrapping and time of the row"
    );
    let third = WrappedKek { master_key_id: "a third".to_owned(), ciphertext: vec![3] };
    let again = must(keys.move_kek(conn, &first, "a third provider", &third, later).await, "move_kek");
    let left = usage_of(db, keys, first.kek_id).await.kek;
    assert!(!again && left == moved, "move_kek must leave a row alone that was changed meanwhile, and say so");
    assert_eq!((moved.state, moved.created_at), (KekState::DecryptOnly, first.created_at));

    let scope = fresh("retired");
    let new = key(&scope, 1, first.kek_id);
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
    must(keys.insert_keys(tx, std::slice::from_ref(&new)).await, "insert_keys");
    must(db.commit(transaction).await, "commit");
    assert_eq!(must(keys.retire_kek(conn, first.kek_id).await, "retire_kek"), Retirement::InUse(1));
    assert_eq!(must(keys.retire_kek(conn, second.kek_id).await, "retire_kek"), Retirement::Active);
    assert_eq!(must(keys.retire_kek(conn, stray.kek_id).await, "retire_kek"), Retirement::Unknown);
    let mut transaction = must(db.begin().await, "begin");
    must(shred(keys, db.tx(&mut transaction), &scope, now()).await, "shred");
    must(db.commit(transaction).await, "commit");
    assert_eq!(
        must(keys.retire_kek(conn, first.kek_id).await, "retire_kek"),
        Retirement::Done,
        "a tombstone needs no key"
    );
    assert_eq!(usage_of(db, keys, first.kek_id).await.kek.state, KekState::Retired);
    let scope = fresh("late");
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
    match keys.insert_keys(tx, &[key(&scope, 1, first.kek_id)]).await {
        Err(error) => assert!(error.is_retryable(), "{error:?}"),
        Ok(()) => panic!("a data key was inserted under a retired key-encryption key"),
    }
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[fresh("in a transaction")]).await, "create_scopes");
    for refused in
        [keys.replace_kek(tx, second.kek_id, &stray).await.map(drop), keys.retire_kek(tx, first.kek_id).await.map(drop)]
    {
        assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
    }
}

/// Live keys of the old key-encryption keys, each once, in order; bad ones and tombstones stay as they are.
pub async fn data_keys_are_wrapped_anew_in_batches<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let partition = fresh("rewrap").id().to_owned();
    let (old, new) = (kek(&partition), kek(&partition));
    must(keys.install_kek(db.connection(&mut connection), &old).await, "install_kek");
    let mut ids = Vec::new();
    for number in 0..7_u8 {
        let scope = fresh("rewrap");
        let mut data_key = key(&scope, 1, old.kek_id);
        if number == 3 {
            data_key.wrapped_key[0] = BAD;
        }
        let mut transaction = must(db.begin().await, "begin");
        let tx = db.tx(&mut transaction);
        must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
        must(keys.insert_keys(tx, std::slice::from_ref(&data_key)).await, "insert_keys");
        if number == 5 {
            must(shred(keys, tx, &scope, now()).await, "shred");
        } else {
            ids.push(data_key.key_id);
        }
        must(db.commit(transaction).await, "commit");
    }
    let bad = ids[3];
    ids.sort_unstable();
    let conn = db.connection(&mut connection);
    assert!(must(keys.replace_kek(conn, old.kek_id, &new).await, "replace_kek"));
    let mut batch = RewrapBatch {
        from: vec![old.kek_id],
        to: new.kek_id,
        after: None,
        limit: 4,
        at: now() + time::Duration::MINUTE,
    };
    let refused = keys.rewrap_batch(conn, &batch, &Marking { written_opens: false }).await;
    assert!(
        matches!(refused, Err(Error::Keys(KeyFault::WrongKey { .. }))),
        "rewrap_batch must look at what was written: {refused:?}"
    );
    assert_eq!(usage_of(db, keys, new.kek_id).await.live_keys, 0, "a batch that failed was written");
    let by = Marking { written_opens: true };
    let (mut found, mut rewrapped, mut seen_bad) = (0, 0, Vec::new());
    loop {
        let outcome = must(keys.rewrap_batch(conn, &batch, &by).await, "rewrap_batch");
        found += outcome.found;
        rewrapped += outcome.rewrapped;
        seen_bad.extend(outcome.bad);
        if outcome.found < batch.limit {
            break;
        }
        assert!(batch.after < outcome.last, "it would go round in circles");
        batch.after = outcome.last;
    }
    assert_eq!(seen_bad, [bad], "rewrap_batch must leave alone, and name, what does not open");
    assert_eq!((found, rewrapped), (6, 5), "rewrap_batch must count what it found and what it wrapped anew");
    let again = must(keys.rewrap_batch(conn, &RewrapBatch { after: None, ..batch.clone() }, &by).await, "rewrap_batch");
    assert_eq!(
        (again.found, again.rewrapped),
        (1, 0),
        "rewrap_batch must write what it says that it wrapped anew, and wrap none twice"
    );
    let mut transaction = must(db.begin().await, "begin");
    let records = must(keys.data_keys(db.tx(&mut transaction), &ids).await, "data_keys");
    drop(transaction);
    for record in records {
        let expected = if record.key_id == bad { old.kek_id } else { new.kek_id };
        assert_eq!(record.kek_id, expected, "rewrap_batch must write which key-encryption key wraps a data key now");
        let opens = by.opens(record.key_id, record.wrapped_key.as_deref().unwrap_or_default());
        assert!(record.key_id == bad || opens, "rewrap_batch must write the new wrapping");
    }
    let newest = kek(&partition);
    assert!(must(keys.replace_kek(conn, new.kek_id, &newest).await, "replace_kek"));
    let unused = kek(fresh("unused").id());
    must(keys.install_kek(conn, &unused).await, "install_kek");
    let successor = kek(&unused.partition);
    assert!(must(keys.replace_kek(conn, unused.kek_id, &successor).await, "replace_kek"));
    assert_eq!(must(keys.retire_kek(conn, unused.kek_id).await, "retire_kek"), Retirement::Done);
    let late = RewrapBatch { from: vec![new.kek_id], to: unused.kek_id, after: None, limit: 4, at: now() };
    match keys.rewrap_batch(conn, &late, &by).await {
        Err(error) => assert!(error.is_retryable(), "{error:?}"),
        Ok(done) => panic!("data keys were wrapped by a retired key: {done:?}"),
    }
    let (of_old, of_new) = (usage_of(db, keys, old.kek_id).await, usage_of(db, keys, new.kek_id).await);
    assert_eq!((of_old.live_keys, of_new.live_keys, of_new.oldest_wrap), (1, 5, Some(batch.at)));
}
