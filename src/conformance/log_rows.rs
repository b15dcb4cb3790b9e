//! The contract of the rows of a shred log.

use crate::conformance::key_store::{entry, fresh, key};
use crate::conformance::{Database, must};
use crate::error::{Error, Result, StorageFault};
use crate::event::now;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{
    DestroyedKey, EntryMac, KeyRows, KeyTable, KeyWork, LogDisagreement, LogEntry, LogHead, LogProblem, LogRow,
    ScopeAction, ScopeSetting, ScopeState,
};
use async_trait::async_trait;
use uuid::Uuid;

/// Entries of two scopes, one of them without a MAC.
struct Entries {
    scope: KeyScope,
    first: LogEntry,
    second: LogEntry,
    older: LogEntry,
    sealed: Vec<LogRow>,
}

fn row_after(head: &LogHead, seq: u64, entry: &LogEntry) -> LogRow {
    let byte = u8::try_from(seq % 251).unwrap_or_default();
    LogRow {
        seq,
        entry_id: entry.entry_id,
        previous_hash: head.hash,
        hash: [byte; 32],
        mac: EntryMac { key_id: KeyId(Uuid::now_v7()), mac: [9; 32] },
    }
}

#[async_trait]
impl KeyWork for Entries {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let scopes = [self.older.scope.clone(), self.scope.clone()];
        let records = rows.lock_scopes(&scopes).await?;
        assert_eq!(records.len(), 2, "lock_scopes must create the scopes that are missing, and return every row");
        rows.insert_entries(&[self.first.clone(), self.second.clone(), self.older.clone()]).await?;
        let all = rows.entries_of(&scopes).await?;
        let expected = [self.first.clone(), self.second.clone(), self.older.clone()];
        assert_eq!(all, expected, "entries_of must return every entry of these scopes, by scope and number");

        let found = rows.unsealed_entries(Some((&self.scope, 0)), 2).await?;
        assert_eq!(found, expected[..2], "unsealed_entries must return what the chain does not have, in order");
        let found = rows.unsealed_entries(Some((&self.scope, 1)), 1).await?;
        assert_eq!(found, expected[1..2], "unsealed_entries must go on after the last entry that was read");
        let found = rows.unsealed_entries(Some((&self.older.scope, 0)), 1).await?;
        assert_eq!(found, expected[2..], "unsealed_entries must return entries without a MAC as well");

        let head = rows.lock_log_head().await?;
        assert!(head.unsealed, "lock_log_head must say whether there are entries that the chain does not have");
        let first = row_after(&head, head.seq + 1, &self.first);
        let after = LogHead { hash: first.hash, ..head };
        let second = row_after(&after, head.seq + 2, &self.second);
        self.sealed = vec![first, second];
        assert!(rows.seal_entries(&head, &self.sealed).await?, "seal_entries must add rows to the chain");
        let end = rows.lock_log_head().await?;
        assert_eq!((end.seq, end.hash), (second.seq, second.hash), "seal_entries must move the end of the chain");
        let left = rows.unsealed_entries(Some((&self.scope, 0)), 1_000).await?;
        assert!(left.iter().all(|entry| entry.scope != self.scope), "seal_entries must mark the entries");
        Ok(())
    }
}

/// Adds to an end of the chain that is not the end any more.
struct Late(LogHead, LogEntry);

#[async_trait]
impl KeyWork for Late {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        rows.lock_scopes(std::slice::from_ref(&self.1.scope)).await?;
        rows.insert_entries(std::slice::from_ref(&self.1)).await?;
        let late = LogHead { hash: [1; 32], ..self.0 };
        let row = row_after(&late, self.0.seq + 1, &self.1);
        assert!(!rows.seal_entries(&late, &[row]).await?, "seal_entries must not move the end from where it is not");
        Err(Error::Storage(StorageFault::InvalidRow { what: "the work", problem: "fails" }))
    }
}

/// Checks the rows of the shred log: entries are inserted and found, and get their numbers.
pub async fn the_shred_log_is_what_it_is_said_to_be<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let (scope, other) = (fresh("log 1"), fresh("log 2"));
    let older = LogEntry {
        mac: None,
        keys: Vec::new(),
        until: None,
        about: None,
        ..entry(&other, 1, ScopeAction::Disable, ScopeState::Disabled)
    };
    let mut work = Entries {
        first: entry(&scope, 1, ScopeAction::Disable, ScopeState::Disabled),
        second: entry(&scope, 2, ScopeAction::Shred, ScopeState::Shredded),
        scope,
        older,
        sealed: Vec::new(),
    };
    let before = must(keys.log_head(conn).await, "log_head");
    must(keys.in_transaction(conn, "sealing", &mut work).await, "in_transaction");
    let head = must(keys.log_head(conn).await, "log_head");
    assert_eq!((head.seq, head.hash), (before.seq + 2, work.sealed[1].hash), "log_head must be the end of the chain");
    let found = must(keys.log_entries(conn, before.seq, 10).await, "log_entries");
    let found: Vec<_> = found.into_iter().map(|sealed| (sealed.row, sealed.entry)).collect();
    let expected = [(work.sealed[0], work.first), (work.sealed[1], work.second)];
    assert_eq!(found, expected, "log_entries must return rows of the chain with their entries");
    assert_eq!(must(keys.log_entries(conn, before.seq, 1).await, "log_entries").len(), 1, "log_entries has a limit");

    let mut late = Late(head, entry(&fresh("late"), 1, ScopeAction::Disable, ScopeState::Disabled));
    assert!(keys.in_transaction(conn, "sealing", &mut late).await.is_err());
    assert_eq!(must(keys.log_head(conn).await, "log_head").seq, head.seq, "work that failed left a row");
    the_shred_log_is_compared(db, keys).await;
}

/// Scopes that disagree with their entries, each in its own way.
struct Restored {
    came_back: KeyScope,
    no_tombstone: KeyScope,
    state: KeyScope,
    /// A key of this one was not there when it was shredded, so no entry names it.
    hidden: KeyScope,
    sound: KeyScope,
}

#[async_trait]
impl KeyWork for Restored {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let Some(kek) = rows.active_kek("default").await? else { panic!("the suite needs a key-encryption key") };
        let shred_of = |scope: &KeyScope, keys: Vec<DestroyedKey>| LogEntry {
            keys,
            ..entry(scope, 1, ScopeAction::Shred, ScopeState::Shredded)
        };
        for scope in [&self.came_back, &self.no_tombstone, &self.state, &self.hidden, &self.sound] {
            let new = key(scope, 1, kek.kek_id);
            assert!(rows.insert_first_key(&new).await?);
            rows.lock_scopes(std::slice::from_ref(scope)).await?;
            let named = DestroyedKey { key_id: new.key_id, version: 1, kek_id: kek.kek_id, created_at: new.created_at };
            let second = DestroyedKey { key_id: KeyId(Uuid::now_v7()), version: 2, ..named.clone() };
            let first = (*scope != self.hidden).then(|| named.clone());
            let keys = first.into_iter().chain([second.clone()]).collect();
            rows.insert_entries(&[shred_of(scope, keys)]).await?;
            let state = if *scope == self.state { ScopeState::Disabled } else { ScopeState::Shredded };
            let setting = ScopeSetting { scope, state, generation: 1, due: Some(now()), active: None };
            assert!(rows.set_scope(&setting).await?, "set_scope must set a scope that is there, and say so");
            if ![&self.came_back, &self.hidden].contains(&scope) {
                let at = now();
                assert_eq!(rows.destroy_by_id(&[new.key_id], at).await?, 1, "destroy_by_id must destroy a live key");
                assert_eq!(rows.destroy_by_id(&[new.key_id], at).await?, 0, "a key is destroyed once");
            }
            if *scope != self.no_tombstone {
                rows.insert_tombstone(scope, &second, now()).await?;
            }
            let left = rows.data_keys_of(scope).await?;
            let live: Vec<bool> = left.iter().map(|key| key.wrapped_key.is_some()).collect();
            let expected = match scope {
                scope if [&self.came_back, &self.hidden].contains(&scope) => vec![true, false],
                scope if *scope == self.no_tombstone => vec![false],
                _ => vec![false, false],
            };
            assert_eq!(live, expected, "destroy_by_id and insert_tombstone must leave tombstones, by version");
            let record = rows.scope(scope).await?;
            let set = record.map(|record| (record.state, record.active.is_some()));
            assert_eq!(set, Some((state, false)), "set_scope must set the state and the active key");
        }
        let unknown = fresh("unknown");
        let setting = ScopeSetting { scope: &unknown, state: ScopeState::Live, generation: 2, due: None, active: None };
        assert!(!rows.set_scope(&setting).await?, "set_scope must say that there is no such scope");
        Ok(())
    }
}

async fn the_shred_log_is_compared<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut connection = must(db.connect().await, "connect");
    let conn = db.connection(&mut connection);
    let mut work = Restored {
        came_back: fresh("came back"),
        no_tombstone: fresh("no tombstone"),
        state: fresh("state"),
        hidden: fresh("hidden"),
        sound: fresh("sound"),
    };
    must(keys.in_transaction(conn, "restoring", &mut work).await, "in_transaction");
    let found = must(keys.log_disagreements(conn, 100_000).await, "log_disagreements");
    for (scope, problem) in [
        (&work.came_back, LogProblem::KeyCameBack),
        (&work.no_tombstone, LogProblem::NoTombstone),
        (&work.state, LogProblem::State),
        (&work.hidden, LogProblem::KeyCameBack),
    ] {
        let of_scope: Vec<&LogDisagreement> = found.iter().filter(|found| found.scope == *scope).collect();
        let expected = LogDisagreement { scope: scope.clone(), problem };
        let rule = if *scope == work.hidden {
            "log_disagreements must find a key of a shredded scope that no entry names"
        } else {
            "log_disagreements must find what a restore brings back"
        };
        assert_eq!(of_scope, [&expected], "{rule}");
    }
    assert!(
        found.iter().all(|found| found.scope != work.sound),
        "log_disagreements must leave alone what agrees: {found:?}"
    );
    assert_eq!(must(keys.log_disagreements(conn, 1).await, "log_disagreements").len(), 1, "it has a limit");
}
