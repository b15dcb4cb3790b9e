//! The contract of a key table, in addition to that of a key store.

use crate::conformance::key_rows::{
    rows_of_data_keys_are_what_they_are_said_to_be, rows_of_key_encryption_keys_are_what_they_are_said_to_be,
};
use crate::conformance::key_store::{entry, fresh, key, shred};
use crate::conformance::log_rows::the_shred_log_is_what_it_is_said_to_be;
use crate::conformance::scheduled::holds_and_schedules_are_found;
use crate::conformance::{Database, must};
use crate::error::{Error, KeyFault, Result, StorageFault, TransactionFault};
use crate::event::now;
use crate::keys::kek_changes::{
    Retirement, RewrapBatch, Rewrapper, install_kek, install_key, move_kek, replace_kek, retire_kek, rewrap_batch,
};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, KekRecord, KekState, KekUsage, KeyRows, KeyTable, KeyWork, ListedScope, LogEntry, ScopeAction,
    ScopeLock, ScopeState,
};
use crate::kms::WrappedKek;
use async_trait::async_trait;
use uuid::Uuid;

/// Runs the whole suite. The tables must be migrated and empty. Afterwards,
/// [`key_store`](crate::conformance::key_store) can run on them.
pub async fn key_table<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    first_keys_are_installed_once(db, keys).await;
    work_is_done_as_a_whole_or_not_at_all(db, keys).await;
    rows_of_key_encryption_keys_are_what_they_are_said_to_be(db, keys).await;
    rows_of_data_keys_are_what_they_are_said_to_be(db, keys).await;
    scopes_are_listed_in_order(db, keys).await;
    restored_keys_are_found(db, keys).await;
    holds_and_schedules_are_found(db, keys).await;
    the_shred_log_is_what_it_is_said_to_be(db, keys).await;
    key_encryption_keys_are_rotated(db, keys).await;
    key_encryption_keys_are_moved(db, keys).await;
    key_encryption_keys_are_retired(db, keys).await;
    data_keys_are_wrapped_anew_in_batches(db, keys).await;
}

pub(super) fn kek(partition: &str) -> KekRecord {
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

/// Checks that the first key-encryption key of a partition and the first key of a scope are installed once, and are
/// committed at once.
pub async fn first_keys_are_installed_once<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    assert!(must(keys.namespace(conn).await, "namespace").is_some(), "migrated tables name their namespace");
    assert!(
        must(keys.active_kek(conn, "default").await, "active_kek").is_none(),
        "the suite needs tables without keys"
    );
    let (first, second, elsewhere) = (kek("default"), kek("default"), kek("elsewhere"));
    for new in [&first, &second, &elsewhere] {
        must(install_kek(keys, conn, new).await, "install_kek");
    }
    let scope = KeyScope::integrity();
    for new in [key(&scope, 1, first.kek_id), key(&scope, 1, first.kek_id)] {
        must(install_key(keys, conn, &new).await, "install_key");
    }
    let mut others = must(db.begin().await, "begin");
    let tx = db.tx(&mut others);
    let Some(active) = must(keys.active_kek(tx, "default").await, "active_kek") else { panic!("it was not committed") };
    assert_eq!((active.kek_id, &active.wrapped, active.created_at), (first.kek_id, &first.wrapped, first.created_at));
    let record = must(keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Share).await, "scopes").remove(0);
    assert_eq!(
        (record.last_version, record.generation, record.active.is_some()),
        (Some(1), 1, true),
        "a first key is installed once"
    );
    drop(others);

    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[fresh("in a transaction")]).await, "create_scopes");
    let refused = install_kek(keys, tx, &kek("default")).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
    drop(transaction);
}

/// Work that writes its rows, and then fails.
struct Failing<'a> {
    kek: &'a KekRecord,
}

#[async_trait]
impl KeyWork for Failing<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        assert!(rows.insert_kek(self.kek).await?, "insert_kek must insert the first key of a partition, and say so");
        Err(Error::Storage(StorageFault::InvalidRow { what: "the work", problem: "fails" }))
    }
}

/// Checks that `in_transaction` has committed the work when it returns, and that nothing remains of work that failed.
pub async fn work_is_done_as_a_whole_or_not_at_all<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let kek = kek(fresh("fails").id());
    let failed = keys.in_transaction(conn, "failing", &mut Failing { kek: &kek }).await;
    assert!(
        matches!(failed, Err(Error::Storage(StorageFault::InvalidRow { .. }))),
        "in_transaction must fail as its work does: {failed:?}"
    );
    let left = must(keys.active_kek(conn, &kek.partition).await, "active_kek");
    assert!(left.is_none(), "in_transaction must leave nothing of work that failed");
    must(install_kek(keys, conn, &kek).await, "install_kek after work that failed");
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[fresh("in a transaction")]).await, "create_scopes");
    let refused = keys.in_transaction(tx, "nesting", &mut Failing { kek: &kek }).await;
    assert!(
        matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { operation: "nesting" }))),
        "in_transaction must refuse a connection in a transaction, and name the operation: {refused:?}"
    );
}

/// A partition's key-encryption key that was replaced, and the one that replaced it.
pub(super) async fn rotated<K: KeyTable>(keys: &K, connection: &mut K::Tx, name: &str) -> (KekRecord, KekRecord) {
    let partition = fresh(name).id().to_owned();
    let (first, second) = (kek(&partition), kek(&partition));
    must(install_kek(keys, connection, &first).await, "install_kek");
    assert!(
        must(replace_kek(keys, connection, first.kek_id, &second).await, "replace_kek"),
        "the active key-encryption key must be replaced"
    );
    (first, second)
}

/// Checks that scopes are listed from any name on, in the order of bytes, each with what its newest key says.
pub async fn scopes_are_listed_in_order<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let (first, second) = (kek(fresh("listed").id()), kek(fresh("listed").id()));
    for kek in [&first, &second] {
        must(install_kek(keys, conn, kek).await, "install_kek");
    }
    let kind = fresh("listed").id().to_owned();
    let mut all: Vec<KeyScope> = ["a", "A", "a ", "aa", "a\u{1}", "\u{e4}", "\u{ffff}", "\u{1f600}", "B"]
        .into_iter()
        .map(|id| KeyScope::new(kind.as_str(), id))
        .collect();
    all.extend([format!("{kind} "), kind.to_uppercase(), format!("{kind}\u{e4}")].map(|kind| KeyScope::new(kind, "A")));
    let with_keys = [all[0].clone(), all[5].clone()];
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &all).await, "create_scopes");
    for (version, kek) in [(1, &first), (2, &second)] {
        let new = with_keys.clone().map(|scope| key(&scope, version, kek.kek_id));
        must(keys.insert_keys(tx, &new).await, "insert_keys");
    }
    must(shred(keys, tx, &with_keys[1], now()).await, "shred");
    all.sort_unstable();
    let listed = all.iter().map(|scope| {
        let has_keys = with_keys.contains(scope);
        ListedScope {
            scope: scope.clone(),
            state: if *scope == with_keys[1] { ScopeState::Shredded } else { ScopeState::Live },
            generation: 1,
            last_version: has_keys.then_some(2),
            kek_id: has_keys.then_some(second.kek_id),
        }
    });
    check_list(keys, tx, &listed.collect::<Vec<_>>()).await;
    drop(transaction);
    let mut transaction = must(db.begin().await, "begin");
    let found = must(keys.scopes_from(db.tx(&mut transaction), &all[0], 10_000).await, "scopes_from");
    assert!(!found.iter().any(|row| all.contains(&row.scope)), "scopes that were rolled back are not listed");
}

/// Lists from everywhere. `all` are the scopes that the test has made, in order; there are others too.
async fn check_list<K: KeyTable>(keys: &K, tx: &mut K::Tx, all: &[ListedScope]) {
    let made = |mut found: Vec<ListedScope>| {
        found.retain(|row| all.iter().any(|made| made.scope == row.scope));
        found
    };
    let everything = must(keys.scopes_from(tx, &KeyScope::new("", ""), 10_000).await, "scopes_from");
    assert!(everything.is_sorted_by_key(|row| row.scope.clone()), "scopes_from must list scopes in the order of bytes");
    assert_eq!(made(everything), all, "scopes_from must list every scope, with what its newest key says");
    for scope in all.iter().map(|row| &row.scope) {
        let behind = KeyScope::new(scope.kind(), format!("{}\u{1}", scope.id()));
        for from in [scope, &behind] {
            let found = must(keys.scopes_from(tx, from, 2).await, "scopes_from");
            assert!(found.len() <= 2, "scopes_from must keep to its limit");
            assert_eq!(
                found.first().is_some_and(|row| row.scope == *from),
                all.iter().any(|row| row.scope == *from),
                "scopes_from must begin with the scope that it is given, if it is there"
            );
            let found = made(found);
            let after = all.iter().filter(|row| row.scope >= *from).take(found.len());
            assert!(found.iter().eq(after), "scopes_from must leave out none: {found:?}");
        }
    }
    let none = must(keys.scopes_from(tx, &all[0].scope, 0).await, "scopes_from");
    assert!(none.is_empty(), "scopes_from must keep to a limit of none");
}

/// Checks that live keys of scopes that were shredded are found, and no others.
pub async fn restored_keys_are_found<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let kek_id = match must(keys.active_kek(tx, "default").await, "active_kek") {
        Some(kek) => kek.kek_id,
        None => panic!("install a key-encryption key first"),
    };
    assert_eq!(must(keys.restored_scopes(tx, 5).await, "restored_scopes").count, 0, "nothing was restored");
    let mut restored = [fresh("restored"), fresh("restored")];
    let (shredded, live) = (fresh("shredded"), fresh("live"));
    let all = [&restored[..], &[shredded.clone(), live]].concat();
    must(keys.create_scopes(tx, &all).await, "create_scopes");
    for scope in &all {
        must(keys.insert_keys(tx, &[key(scope, 1, kek_id)]).await, "insert_keys");
    }
    must(shred(keys, tx, &shredded, now()).await, "shred");
    for scope in &restored {
        let shred = LogEntry { mac: None, ..entry(scope, 1, ScopeAction::Shred, ScopeState::Shredded) };
        must(keys.change_scope(tx, &shred).await, "change_scope");
    }
    restored.sort_unstable();
    for limit in [0, 1, 2, 5] {
        let found = must(keys.restored_scopes(tx, limit).await, "restored_scopes");
        let first = &restored[..restored.len().min(limit.max(1) as usize)];
        assert_eq!(
            (found.count, &found.first[..]),
            (2, first),
            "restored_scopes must count the shredded scopes with live keys, and name the first"
        );
    }
}

/// A rewrap that marks the keys that it wraps, and fails to open keys that are marked as bad.
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

async fn usage_of<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K, kek_id: KekId) -> KekUsage {
    let mut connection = must(db.begin().await, "begin");
    let usage = must(keys.kek_usage(db.tx(&mut connection)).await, "kek_usage");
    match usage.into_iter().find(|usage| usage.kek.kek_id == kek_id) {
        Some(usage) => usage,
        None => panic!("a key-encryption key is not listed"),
    }
}

/// Checks that each partition has one active key-encryption key.
pub async fn key_encryption_keys_are_rotated<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let partition = fresh("partition").id().to_owned();
    let (first, second, stray) = (kek(&partition), kek(&partition), kek(&partition));
    must(install_kek(keys, conn, &first).await, "install_kek");
    assert!(
        !must(replace_kek(keys, conn, stray.kek_id, &second).await, "replace_kek"),
        "nothing but the active key-encryption key is replaced"
    );
    assert!(
        must(replace_kek(keys, conn, first.kek_id, &second).await, "replace_kek"),
        "the active key-encryption key must be replaced"
    );
    let active = must(keys.active_kek(conn, &partition).await, "active_kek");
    assert_eq!(active.as_ref(), Some(&second), "the new key-encryption key must be the active one, as it was given");
    assert!(
        !must(replace_kek(keys, conn, first.kek_id, &stray).await, "replace_kek"),
        "two processes rotated at once: the second must learn it"
    );
    let active = must(keys.active_kek(conn, &partition).await, "active_kek");
    assert_eq!(active.as_ref().map(|kek| (kek.kek_id, kek.state)), Some((second.kek_id, KekState::Active)));
    let old = usage_of(db, keys, first.kek_id).await;
    assert_eq!(
        (old.kek.state, old.live_keys, old.oldest_wrap),
        (KekState::DecryptOnly, 0, None),
        "the old key-encryption key must be left for opening only"
    );
    assert_eq!(
        (&old.kek.wrapped, old.kek.created_at, old.kek.wrapped_at),
        (&first.wrapped, first.created_at, first.wrapped_at)
    );
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, &[fresh("in a transaction")]).await, "create_scopes");
    let refused = replace_kek(keys, tx, second.kek_id, &stray).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
}

/// Checks that a key-encryption key gets a new wrapping only if its wrapping is the one that was read.
pub async fn key_encryption_keys_are_moved<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let (first, _) = rotated(keys, conn, "moved").await;
    let elsewhere = WrappedKek { master_key_id: "another".to_owned(), ciphertext: vec![9, 9] };
    let later = now() + time::Duration::SECOND;
    assert!(
        must(move_kek(keys, conn, &first, "other provider", &elsewhere, later).await, "move_kek"),
        "a row that is as it was must be moved"
    );
    let moved = usage_of(db, keys, first.kek_id).await.kek;
    assert_eq!(
        (moved.provider.as_str(), &moved.wrapped, moved.wrapped_at),
        ("other provider", &elsewhere, later),
        "a move must exchange provider, wrapping and time of the row"
    );
    let third = WrappedKek { master_key_id: "a third".to_owned(), ciphertext: vec![3] };
    let again = must(move_kek(keys, conn, &first, "a third provider", &third, later).await, "move_kek");
    let left = usage_of(db, keys, first.kek_id).await.kek;
    assert!(!again && left == moved, "a move must leave a row alone that was changed meanwhile");
    assert_eq!((moved.state, moved.created_at), (KekState::DecryptOnly, first.created_at));
}

/// Checks that an old key-encryption key can be used until it wraps no data key, and that a retired one stays retired.
pub async fn key_encryption_keys_are_retired<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let (first, second) = rotated(keys, conn, "retired").await;
    let scope = fresh("retired");
    let new = key(&scope, 1, first.kek_id);
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    must(keys.create_scopes(tx, std::slice::from_ref(&scope)).await, "create_scopes");
    must(keys.insert_keys(tx, std::slice::from_ref(&new)).await, "insert_keys");
    must(db.commit(transaction).await, "commit");
    let unknown = KekId(Uuid::now_v7());
    assert_eq!(must(retire_kek(keys, conn, first.kek_id).await, "retire_kek"), Retirement::InUse(1));
    assert_eq!(must(retire_kek(keys, conn, second.kek_id).await, "retire_kek"), Retirement::Active);
    assert_eq!(must(retire_kek(keys, conn, unknown).await, "retire_kek"), Retirement::Unknown);
    let mut transaction = must(db.begin().await, "begin");
    must(shred(keys, db.tx(&mut transaction), &scope, now()).await, "shred");
    must(db.commit(transaction).await, "commit");
    let retired = must(retire_kek(keys, conn, first.kek_id).await, "retire_kek");
    assert_eq!(retired, Retirement::Done, "a tombstone needs no key");
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
    let refused = retire_kek(keys, tx, first.kek_id).await;
    assert!(matches!(refused, Err(Error::Transaction(TransactionFault::InTransaction { .. }))), "{refused:?}");
}

/// Creates seven data keys under one key-encryption key. One does not open, and one was shredded. Returns the live
/// ones.
async fn wrapped_keys<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K, kek_id: KekId) -> (Vec<KeyId>, KeyId) {
    let mut ids = Vec::new();
    for number in 0..7_u8 {
        let scope = fresh("rewrap");
        let mut data_key = key(&scope, 1, kek_id);
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
    (ids, bad)
}

/// Checks that a rewrap visits the live keys of the old key-encryption keys once each, in order, and leaves bad ones
/// and tombstones as they are.
pub async fn data_keys_are_wrapped_anew_in_batches<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let partition = fresh("rewrap").id().to_owned();
    let (old, new) = (kek(&partition), kek(&partition));
    must(install_kek(keys, conn, &old).await, "install_kek");
    let (ids, bad) = wrapped_keys(db, keys, old.kek_id).await;
    assert!(must(replace_kek(keys, conn, old.kek_id, &new).await, "replace_kek"));
    let mut batch = RewrapBatch {
        from: vec![old.kek_id],
        to: new.kek_id,
        after: None,
        limit: 4,
        at: now() + time::Duration::MINUTE,
    };
    let refused = rewrap_batch(keys, conn, &batch, &Marking { written_opens: false }).await;
    assert!(
        matches!(refused, Err(Error::Keys(KeyFault::WrongKey { .. }))),
        "what was written must be looked at: {refused:?}"
    );
    assert_eq!(usage_of(db, keys, new.kek_id).await.live_keys, 0, "a batch that failed was written");
    let by = Marking { written_opens: true };
    let (mut found, mut rewrapped, mut seen_bad) = (0, 0, Vec::new());
    loop {
        let outcome = must(rewrap_batch(keys, conn, &batch, &by).await, "rewrap_batch");
        found += outcome.found;
        rewrapped += outcome.rewrapped;
        seen_bad.extend(outcome.bad);
        if outcome.found < batch.limit {
            break;
        }
        assert!(batch.after < outcome.last, "it would go round in circles");
        batch.after = outcome.last;
    }
    assert_eq!(seen_bad, [bad], "what does not open must be left alone, and named");
    assert_eq!((found, rewrapped), (6, 5), "lock_live_keys must find every live key once, and rewrap_keys write it");
    let again =
        must(rewrap_batch(keys, conn, &RewrapBatch { after: None, ..batch.clone() }, &by).await, "rewrap_batch");
    assert_eq!((again.found, again.rewrapped), (1, 0), "rewrap_keys must write what it says that it wrote");
    let mut transaction = must(db.begin().await, "begin");
    let records = must(keys.data_keys(db.tx(&mut transaction), &ids).await, "data_keys");
    drop(transaction);
    for record in records {
        let expected = if record.key_id == bad { old.kek_id } else { new.kek_id };
        assert_eq!(record.kek_id, expected, "rewrap_keys must write which key-encryption key wraps a data key now");
        let opens = by.opens(record.key_id, record.wrapped_key.as_deref().unwrap_or_default());
        assert!(record.key_id == bad || opens, "rewrap_keys must write the new wrapping");
    }
    no_data_key_is_wrapped_by_a_retired_key(keys, conn, &new).await;
    let (of_old, of_new) = (usage_of(db, keys, old.kek_id).await, usage_of(db, keys, new.kek_id).await);
    assert_eq!((of_old.live_keys, of_new.live_keys, of_new.oldest_wrap), (1, 5, Some(batch.at)));
}

async fn no_data_key_is_wrapped_by_a_retired_key<K: KeyTable>(keys: &K, conn: &mut K::Tx, of: &KekRecord) {
    let newest = kek(&of.partition);
    assert!(must(replace_kek(keys, conn, of.kek_id, &newest).await, "replace_kek"));
    let (unused, _) = rotated(keys, conn, "unused").await;
    assert_eq!(must(retire_kek(keys, conn, unused.kek_id).await, "retire_kek"), Retirement::Done);
    let late = RewrapBatch { from: vec![of.kek_id], to: unused.kek_id, after: None, limit: 4, at: now() };
    match rewrap_batch(keys, conn, &late, &Marking { written_opens: true }).await {
        Err(error) => assert!(error.is_retryable(), "{error:?}"),
        Ok(done) => panic!("data keys were wrapped by a retired key: {done:?}"),
    }
}
