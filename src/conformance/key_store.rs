//! The contract of a key store.

use crate::conformance::{Database, must};
use crate::error::Result;
use crate::event::now;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, DestroyedKey, EntryMac, FirstKeys, KekRecord, KeyStore, LogEntry, NewDataKey, ScopeAction,
    ScopeLock, ScopeRecord, ScopeState,
};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use time::OffsetDateTime;
use uuid::Uuid;

/// Runs the whole suite. The tables must be migrated, and the partition `default` must have an active key-encryption
/// key: run [`key_table`](crate::conformance::key_table) before, or insert one.
pub async fn key_store<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    scopes_and_keys_are_kept(db, keys).await;
    the_newest_key_is_known_whatever_is_active(db, keys).await;
    changes_that_change_nothing_are_errors(db, keys).await;
    shredded_keys_leave_tombstones(db, keys).await;
    no_key_outlives_a_concurrent_shred(db, keys).await;
    first_keys_are_created_if_all_is_as_expected(db, keys).await;
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

pub(super) fn key(scope: &KeyScope, version: u32, kek_id: KekId) -> NewDataKey {
    NewDataKey {
        key_id: KeyId(Uuid::now_v7()),
        scope: scope.clone(),
        version,
        kek_id,
        wrapped_key: vec![version.to_le_bytes()[0]; 65],
        created_at: now(),
    }
}

pub(super) fn fresh(name: &str) -> KeyScope {
    KeyScope::new("Conformance", format!("{name} {} '\"\\ \u{1f600}", Uuid::now_v7()))
}

pub(super) async fn active_kek<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) -> KekId {
    let mut connection = must(db.begin().await, "begin");
    match must(keys.active_kek(db.tx(&mut connection), "default").await, "active_kek") {
        Some(kek) => kek.kek_id,
        None => panic!("install a key-encryption key first"),
    }
}

/// Creates a scope with one key, and commits it.
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

pub(super) async fn shred<K: KeyStore>(
    keys: &K,
    tx: &mut K::Tx,
    scope: &KeyScope,
    at: OffsetDateTime,
) -> Result<Vec<DestroyedKey>> {
    keys.create_scopes(tx, std::slice::from_ref(scope)).await?;
    keys.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await?;
    let destroyed = keys.destroy_keys(tx, scope, at).await?;
    keys.change_scope(tx, &LogEntry { at, ..entry(scope, 1, ScopeAction::Shred, ScopeState::Shredded) }).await?;
    Ok(destroyed)
}

/// An entry with something in every field.
pub(super) fn entry(scope: &KeyScope, scope_seq: u32, action: ScopeAction, state: ScopeState) -> LogEntry {
    let key =
        DestroyedKey { key_id: KeyId(Uuid::now_v7()), version: 3, kek_id: KekId(Uuid::now_v7()), created_at: now() };
    LogEntry {
        entry_id: Uuid::now_v7(),
        scope: scope.clone(),
        scope_seq,
        at: now(),
        action,
        state,
        generation: 1,
        keys: vec![key.clone(), key],
        until: Some(now()),
        about: Some(Uuid::now_v7()),
        reason: "conformance".to_owned(),
        actor: Some("the suite".to_owned()),
        mac: Some(EntryMac { key_id: KeyId(Uuid::now_v7()), mac: [7; 32] }),
    }
}

/// Checks that scopes and keys are read as they were written, by scope and by key, that unknown ones are left out, and
/// that a rollback forgets changes.
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
            (&scope, ScopeState::Live, 1, Some(1))
        );
        let active = record.active.as_ref();
        assert_eq!(
            active.map(|key| (key.key_id, key.version, key.kek_id, key.created_at)),
            Some((first.key_id, 1, kek_id, first.created_at))
        );
        assert_eq!(active.and_then(|key| key.wrapped_key.as_ref()), Some(&first.wrapped_key));
    }
    let new = fresh("new");
    must(keys.create_scopes(tx, &[scope.clone(), new.clone()]).await, "creating a known scope again, beside a new one");
    let record = must(keys.scopes(tx, &[new], ScopeLock::None).await, "scopes").remove(0);
    assert_eq!((record.last_version, record.active.is_none()), (None, true), "a new scope has no keys");
    let second = key(&scope, 2, kek_id);
    must(keys.insert_keys(tx, std::slice::from_ref(&second)).await, "insert_keys");
    let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::None).await, "scopes").remove(0);
    assert_eq!(
        (record.last_version, record.active.map(|key| key.key_id)),
        (Some(2), Some(second.key_id)),
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

/// Checks that the reported last version is the highest of all keys of the scope, even if another key is active.
/// Somebody who can write to the table may have made an older key active again, and that must be noticed.
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
            record.last_version,
            Some(3),
            "last_version must be the highest version that there is, whichever key is active"
        );
    }
    let Some(history) = must(keys.history(tx, &scope).await, "history") else {
        panic!("a scope with keys has a history")
    };
    let found: Vec<KeyId> = history.keys.iter().map(|key| key.key_id).collect();
    assert_eq!(found, [first.key_id, older.key_id, newest.key_id], "a history is in ascending order of version");
}

/// Checks that a change of a scope or key that does not exist is an error.
pub async fn changes_that_change_nothing_are_errors<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let kek_id = active_kek(db, keys).await;
    let unknown = fresh("not there");
    let change = entry(&unknown, 1, ScopeAction::Disable, ScopeState::Disabled);
    let mut transaction = must(db.begin().await, "begin");
    let changed = keys.change_scope(db.tx(&mut transaction), &change).await;
    assert!(changed.is_err(), "change_scope said that it changed a scope that is not there");
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let inserted = keys.insert_keys(db.tx(&mut transaction), &[key(&unknown, 1, kek_id)]).await;
    assert!(inserted.is_err(), "insert_keys said that it gave a key to a scope that is not there");
    drop(transaction);
    let (scope, _) = scope_with_key(db, keys, "changed").await;
    for (number, action, state) in [
        (1, ScopeAction::Disable, ScopeState::Disabled),
        (2, ScopeAction::Enable, ScopeState::Live),
        (3, ScopeAction::Schedule, ScopeState::Withheld),
    ] {
        let mut transaction = must(db.begin().await, "begin");
        let tx = db.tx(&mut transaction);
        must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await, "scopes");
        let full = entry(&scope, number, action, state);
        // What is absent must be read as absent.
        let bare = LogEntry { keys: Vec::new(), until: None, about: None, actor: None, mac: None, ..full.clone() };
        let change = if number == 2 { bare } else { full };
        must(keys.change_scope(tx, &change).await, "change_scope");
        let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::None).await, "scopes").remove(0);
        assert_eq!(record.state, state, "change_scope did not set the state that it was given");
        let Some(history) = must(keys.history(tx, &scope).await, "history") else {
            panic!("a scope with keys has a history")
        };
        assert_eq!(history.entries.last(), Some(&change), "change_scope did not record the entry as it was given");
        assert!(keys.change_scope(tx, &change).await.is_err(), "a scope has two entries of one number");
        // The refusal may have ended the transaction.
        drop(transaction);
        let mut transaction = must(db.begin().await, "begin");
        let tx = db.tx(&mut transaction);
        must(keys.change_scope(tx, &change).await, "change_scope");
        if state != ScopeState::Live {
            let refused = keys.insert_keys(tx, &[key(&scope, 2, kek_id)]).await;
            assert!(refused.is_err(), "insert_keys gave a key to a scope that is not live");
            drop(transaction);
            transaction = must(db.begin().await, "begin");
            must(keys.change_scope(db.tx(&mut transaction), &change).await, "change_scope");
        }
        must(db.commit(transaction).await, "commit");
    }
}

/// Checks that a shred destroys every key of the scope and keeps the rows as tombstones, and that nothing can undo it.
pub async fn shredded_keys_leave_tombstones<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let (scope, first) = scope_with_key(db, keys, "shredded").await;
    let (other, other_key) = scope_with_key(db, keys, "other").await;
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let second = key(&scope, 2, first.kek_id);
    must(keys.insert_keys(tx, std::slice::from_ref(&second)).await, "insert_keys");
    let destroyed = must(shred(keys, tx, &scope, now()).await, "shred");
    assert_eq!(destroyed.len(), 2, "destroy_keys must destroy every key of the scope, and say which");
    let inserted = [(&first, 1), (&second, 2)].map(|(key, version)| DestroyedKey {
        key_id: key.key_id,
        version,
        kek_id: key.kek_id,
        created_at: key.created_at,
    });
    assert_eq!(destroyed, inserted, "destroy_keys returns the keys as their rows are, in ascending order of version");
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
        // Readers redact a value only if its key row is shredded and has no key, so that a lost key is never taken for
        // an erasure.
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
    assert_eq!((record.state, record.last_version, record.active.is_none()), (ScopeState::Shredded, Some(2), true));
    assert_eq!(history.keys.iter().map(|key| key.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        (history.entries.len(), history.entries[0].reason.as_str(), history.entries[0].action),
        (1, "conformance", ScopeAction::Shred)
    );
    assert_eq!(history.entries[0].actor.as_deref(), Some("the suite"), "the history says who did it");
    let untouched = must(keys.scopes(tx, &[other], ScopeLock::None).await, "scopes").remove(0);
    assert!(untouched.active.is_some_and(|key| key.wrapped_key.is_some()), "another scope was touched");
}

/// Checks that no live key is left in a shredded scope, in whatever order a shred and an append that creates a key run.
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

/// Checks that first keys are created for scopes that are not there, under the active key-encryption key, and only
/// then. A store that does not create them at once must say so, and read what it is asked for.
pub async fn first_keys_are_created_if_all_is_as_expected<D: Database, K: KeyStore<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let (namespace, kek) =
        (must(keys.namespace(tx).await, "namespace"), must(keys.active_kek(tx, "default").await, "kek"));
    let Some((namespace, kek)) = namespace.zip(kek) else { panic!("install a key-encryption key first") };
    drop(transaction);
    let (known, _) = scope_with_key(db, keys, "known").await;
    type Change = fn(&mut Namespace, &mut KekRecord);
    let nothing: Change = |_, _| {};
    let cases: [(&str, Change, bool); 6] = [
        ("all is as expected", nothing, true),
        ("the namespace is another one", |namespace, _| *namespace = other_namespace(), false),
        ("the key-encryption key is of another partition", |_, kek| kek.partition = "other".to_owned(), false),
        ("the key-encryption key is of another KMS", |_, kek| kek.provider = "other".to_owned(), false),
        ("another master key is expected", |_, kek| kek.wrapped.master_key_id = "other".to_owned(), false),
        ("the key-encryption key is wrapped otherwise", |_, kek| kek.wrapped.ciphertext.push(1), false),
    ];
    for with_known in [false, true] {
        for (what, change, fits) in cases {
            let mut scopes = vec![fresh("first"), fresh("second")];
            if with_known {
                scopes.push(known.clone());
            }
            let (mut namespace, mut kek) = (namespace.clone(), kek.clone());
            change(&mut namespace, &mut kek);
            let expected = keys.creates_at_once() && fits && !with_known;
            let what = format!("{what} (with a known scope: {with_known})");
            first_keys_are_created(db, keys, &scopes, (&namespace, &kek), expected, &what).await;
        }
    }
}

async fn first_keys_are_created<D: Database, K: KeyStore<Tx = D::Tx>>(
    db: &D,
    keys: &K,
    scopes: &[KeyScope],
    (namespace, kek): (&Namespace, &KekRecord),
    expected: bool,
    what: &str,
) {
    let new: Vec<NewDataKey> = scopes.iter().map(|scope| key(scope, 1, kek.kek_id)).collect();
    let wanted: Vec<KeyScope> = scopes.iter().cloned().chain([KeyScope::integrity()]).collect();
    let first = FirstKeys { namespace, scopes: &wanted, keys: &new, keks: std::slice::from_ref(kek) };
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let before = must(keys.scopes(tx, &wanted, ScopeLock::None).await, "scopes");
    let made = must(keys.create_if_new(tx, &first).await, "create_if_new");
    assert_eq!(made.created, expected, "were keys created, if {what}?");
    let names = |records: &[ScopeRecord]| {
        let mut names: Vec<KeyScope> = records.iter().map(|record| record.scope.clone()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&made.known), names(&before), "the rows of scopes that were there before");
    must(db.commit(transaction).await, "commit");
    let mut transaction = must(db.begin().await, "begin");
    for new in new.iter().filter(|new| !before.iter().any(|record| record.scope == new.scope)) {
        let asked = std::slice::from_ref(&new.scope);
        let found = must(keys.scopes(db.tx(&mut transaction), asked, ScopeLock::None).await, "scopes");
        let active = |key: Option<DataKeyRecord>| key.map(|key| (key.key_id, key.wrapped_key));
        let found: Vec<_> =
            found.into_iter().map(|row| (row.state, row.generation, row.last_version, active(row.active))).collect();
        let row = (ScopeState::Live, 1, Some(1), Some((new.key_id, Some(new.wrapped_key.clone()))));
        assert_eq!(found, if expected { vec![row] } else { Vec::new() }, "if {what}");
    }
}

fn other_namespace() -> Namespace {
    match Namespace::new("another") {
        Ok(namespace) => namespace,
        Err(error) => panic!("{error}"),
    }
}
