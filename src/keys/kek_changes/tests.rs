//! Tests of every refusal, and of every check after a write, on rows that answer as a test says.

use super::*;
use crate::error::StorageFault;
use crate::event::now;
use crate::keys::names::KeyScope;
use crate::keys::{DestroyedKey, LogEntry, LogHead, LogRow, LogRows, ScopeRecord, ScopeSetting, ScopeState};
use uuid::Uuid;

/// Rows that give these answers, whatever is written.
#[derive(Default)]
struct Answers {
    /// Whether an insert or a change has found a row to change, in the order in which they come.
    changed: Vec<bool>,
    active: Option<KekRecord>,
    kek: Option<KekRecord>,
    locked: Option<KekRecord>,
    live: u64,
    keys: Vec<DataKeyRecord>,
    written: Vec<KeyWrapping>,
    scope: Option<ScopeRecord>,
}

#[async_trait]
impl KeyRows for Answers {
    async fn active_kek(&mut self, _: &str) -> Result<Option<KekRecord>> {
        Ok(self.active.clone())
    }

    async fn kek(&mut self, _: KekId) -> Result<Option<KekRecord>> {
        Ok(self.kek.clone())
    }

    async fn lock_kek(&mut self, _: KekId) -> Result<Option<KekRecord>> {
        Ok(self.locked.clone())
    }

    async fn insert_kek(&mut self, _: &KekRecord) -> Result<bool> {
        Ok(self.changed.remove(0))
    }

    async fn change_kek_state(&mut self, _: KekId, _: KekState, _: KekState) -> Result<bool> {
        Ok(self.changed.remove(0))
    }

    async fn change_kek_wrapping(&mut self, _: &KekRecord, _: &str, _: &WrappedKek, _: OffsetDateTime) -> Result<bool> {
        Ok(self.changed.remove(0))
    }

    async fn count_live_keys(&mut self, _: KekId) -> Result<u64> {
        Ok(self.live)
    }

    async fn lock_live_keys(&mut self, _: &[KekId], _: Option<KeyId>, _: u32) -> Result<Vec<DataKeyRecord>> {
        Ok(self.keys.clone())
    }

    async fn rewrap_keys(&mut self, _: &[KeyRewrap], _: KekId, _: OffsetDateTime) -> Result<Vec<KeyWrapping>> {
        Ok(self.written.clone())
    }

    async fn insert_first_key(&mut self, _: &NewDataKey) -> Result<bool> {
        Ok(self.changed.remove(0))
    }

    async fn scope(&mut self, _: &KeyScope) -> Result<Option<ScopeRecord>> {
        Ok(self.scope.clone())
    }
}

/// Changes of key-encryption keys have nothing to do with the shred log.
#[async_trait]
impl LogRows for Answers {
    async fn lock_log_head(&mut self) -> Result<LogHead> {
        unreachable!()
    }

    async fn unsealed_entries(&mut self, _: Option<(&KeyScope, u32)>, _: u32) -> Result<Vec<LogEntry>> {
        unreachable!()
    }

    async fn entries_of(&mut self, _: &[KeyScope]) -> Result<Vec<LogEntry>> {
        unreachable!()
    }

    async fn seal_entries(&mut self, _: &LogHead, _: &[LogRow]) -> Result<bool> {
        unreachable!()
    }

    async fn insert_entries(&mut self, _: &[LogEntry]) -> Result<()> {
        unreachable!()
    }

    async fn lock_scopes(&mut self, _: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        unreachable!()
    }

    async fn data_keys_of(&mut self, _: &KeyScope) -> Result<Vec<DataKeyRecord>> {
        unreachable!()
    }

    async fn destroy_by_id(&mut self, _: &[KeyId], _: OffsetDateTime) -> Result<u64> {
        unreachable!()
    }

    async fn insert_tombstone(&mut self, _: &KeyScope, _: &DestroyedKey, _: OffsetDateTime) -> Result<()> {
        unreachable!()
    }

    async fn set_scope(&mut self, _: &ScopeSetting<'_>) -> Result<bool> {
        unreachable!()
    }
}

fn kek(state: KekState) -> KekRecord {
    KekRecord {
        kek_id: KekId(Uuid::now_v7()),
        partition: "default".to_owned(),
        provider: "keyring".to_owned(),
        wrapped: WrappedKek { master_key_id: "main".to_owned(), ciphertext: vec![1] },
        state,
        created_at: now(),
        wrapped_at: now(),
    }
}

fn kept_away<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Storage(StorageFault::NoEffect { .. })))
}

fn collides<T: std::fmt::Debug>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Collision { .. }))
}

#[tokio::test]
async fn a_first_key_encryption_key_is_there_or_another_one_is() {
    let (new, other) = (kek(KekState::Active), kek(KekState::Active));
    let changed_on_the_way = KekRecord { provider: "another".to_owned(), ..new.clone() };
    for (changed, active, refused) in [
        (true, Some(&new), false),
        (false, Some(&other), false),
        (true, Some(&other), true),
        (true, Some(&changed_on_the_way), true),
        (true, None, true),
        (false, None, true),
    ] {
        let mut rows = Answers { changed: vec![changed], active: active.cloned(), ..Answers::default() };
        let installed = InstallKek { kek: &new }.run(&mut rows).await;
        assert_eq!(kept_away(&installed), refused, "{changed}, {active:?}: {installed:?}");
        assert!(refused || installed.is_ok());
    }
}

fn data_key(kek_id: KekId) -> DataKeyRecord {
    DataKeyRecord {
        key_id: KeyId(Uuid::now_v7()),
        scope: KeyScope::new("Customer", "42"),
        version: 1,
        kek_id,
        wrapped_key: Some(vec![7]),
        created_at: now(),
        shredded_at: None,
        scope_state: ScopeState::Live,
    }
}

#[tokio::test]
async fn a_first_data_key_is_there_or_its_scope_has_another_one() {
    let active = data_key(KekId(Uuid::now_v7()));
    let key = NewDataKey {
        key_id: active.key_id,
        scope: active.scope.clone(),
        version: 1,
        kek_id: active.kek_id,
        wrapped_key: vec![7],
        created_at: now(),
    };
    let scope = |active: Option<&DataKeyRecord>| ScopeRecord {
        scope: key.scope.clone(),
        state: ScopeState::Live,
        generation: 1,
        last_version: active.map(|key| key.version),
        due: None,
        active: active.cloned(),
    };
    let other = data_key(active.kek_id);
    let changed_on_the_way = DataKeyRecord { wrapped_key: Some(vec![8]), ..active.clone() };
    for (changed, scope, refused) in [
        (true, Some(scope(Some(&active))), false),
        (false, Some(scope(Some(&other))), false),
        (false, Some(scope(None)), false),
        (true, Some(scope(Some(&other))), true),
        (true, Some(scope(Some(&changed_on_the_way))), true),
        (true, Some(scope(None)), true),
        (true, None, true),
        (false, None, true),
    ] {
        let mut rows = Answers { changed: vec![changed], scope: scope.clone(), ..Answers::default() };
        let installed = InstallKey { key: &key }.run(&mut rows).await;
        assert_eq!(kept_away(&installed), refused, "{changed}, {scope:?}: {installed:?}");
        assert!(refused || installed.is_ok());
    }
}

/// The result of a change that can be refused, prevented by the database, or in conflict with another change.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done,
    Refused,
    KeptAway,
    Collides,
}

fn outcome(result: Result<()>, done: bool) -> Outcome {
    match result {
        Ok(()) if done => Outcome::Done,
        Ok(()) => Outcome::Refused,
        refused if kept_away(&refused) => Outcome::KeptAway,
        refused if collides(&refused) => Outcome::Collides,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_active_key_is_replaced_as_a_whole_or_not_at_all() {
    let (old, new, other) = (kek(KekState::Active), kek(KekState::Active), kek(KekState::Active));
    for (demoted, inserted, active, expected) in [
        (true, true, Some(&new), Outcome::Done),
        (false, true, Some(&other), Outcome::Refused),
        (false, true, None, Outcome::Refused),
        (false, true, Some(&old), Outcome::KeptAway),
        (true, true, Some(&old), Outcome::KeptAway),
        (true, false, Some(&old), Outcome::KeptAway),
        (true, true, None, Outcome::KeptAway),
        (true, false, None, Outcome::KeptAway),
        (true, false, Some(&other), Outcome::Collides),
    ] {
        let mut rows = Answers { changed: vec![demoted, inserted], active: active.cloned(), ..Answers::default() };
        let mut work = ReplaceKek { replaced: old.kek_id, kek: &new, done: false };
        let result = work.run(&mut rows).await;
        assert_eq!(outcome(result, work.done), expected, "{demoted}, {inserted}, {active:?}");
    }
}

#[tokio::test]
async fn a_key_is_moved_from_where_it_was_or_not_at_all() {
    let old = kek(KekState::Active);
    let (wrapped, at) = (WrappedKek { master_key_id: "new".to_owned(), ciphertext: vec![2] }, now());
    let moved = KekRecord { wrapped: wrapped.clone(), wrapped_at: at, ..old.clone() };
    let half = KekRecord { provider: "another".to_owned(), ..moved.clone() };
    for (changed, row, expected) in [
        (true, Some(&moved), Outcome::Done),
        (false, Some(&half), Outcome::Refused),
        (false, None, Outcome::Refused),
        (true, Some(&old), Outcome::KeptAway),
        (false, Some(&old), Outcome::KeptAway),
        (true, Some(&half), Outcome::KeptAway),
    ] {
        let mut rows = Answers { changed: vec![changed], kek: row.cloned(), ..Answers::default() };
        let mut work = MoveKek { old: &old, provider: "keyring", wrapped: &wrapped, at, done: false };
        let result = work.run(&mut rows).await;
        assert_eq!(outcome(result, work.done), expected, "{changed}, {row:?}");
    }
}

#[tokio::test]
async fn a_key_is_retired_if_it_is_idle_and_can_be_locked() {
    let [active, idle, retired] = [KekState::Active, KekState::DecryptOnly, KekState::Retired].map(kek);
    for (locked, live, row, expected) in [
        (Some(&idle), 0, Some(&retired), Some(Retirement::Done)),
        (Some(&retired), 0, Some(&retired), Some(Retirement::Done)),
        (Some(&idle), 2, Some(&idle), Some(Retirement::InUse(2))),
        (Some(&active), 0, Some(&active), Some(Retirement::Active)),
        (None, 0, None, Some(Retirement::Unknown)),
        (None, 0, Some(&idle), None),
        (Some(&idle), 0, Some(&idle), None),
        (Some(&idle), 0, None, None),
    ] {
        let (locked, row) = (locked.cloned(), row.cloned());
        let mut rows = Answers { changed: vec![true], locked, live, kek: row, ..Answers::default() };
        let mut work = RetireKek { kek_id: idle.kek_id, outcome: None };
        let result = work.run(&mut rows).await;
        assert_eq!(work.outcome, expected, "{result:?}");
        assert_eq!(kept_away(&result), expected.is_none(), "{result:?}");
    }
}

/// Opens wrappings that begin with 1, and wraps them anew with the numbers from 2 on.
struct Numbers;

impl Rewrapper for Numbers {
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>> {
        Ok(key.wrapped_key.as_ref().filter(|wrapped| wrapped[0] == 1).map(|_| vec![2]))
    }

    fn opens(&self, _: KeyId, wrapped: &[u8]) -> bool {
        wrapped == [2]
    }
}

#[tokio::test]
async fn a_batch_is_looked_at_before_it_is_committed() {
    let from = KekId(Uuid::now_v7());
    let [good, bad] = [1, 9].map(|first| DataKeyRecord { wrapped_key: Some(vec![first]), ..data_key(from) });
    let wrapping = |wrapped: u8| KeyWrapping { key_id: good.key_id, wrapped_key: vec![wrapped] };
    let stray = KeyWrapping { key_id: bad.key_id, wrapped_key: vec![2] };
    let batch = RewrapBatch { from: vec![from], to: KekId(Uuid::now_v7()), after: None, limit: 10, at: now() };
    let cases = [
        (vec![wrapping(2)], KekState::Active, "done"),
        (vec![wrapping(3)], KekState::Active, "wrong key"),
        (vec![], KekState::Active, "kept away"),
        (vec![stray], KekState::Active, "kept away"),
        (vec![], KekState::Retired, "collides"),
    ];
    for (written, state, expected) in cases {
        let keys = vec![good.clone(), bad.clone()];
        let mut rows = Answers { keys, written: written.clone(), kek: Some(kek(state)), ..Answers::default() };
        let mut work = RewrapWork { batch: &batch, by: &Numbers, outcome: None };
        let found = match work.run(&mut rows).await {
            Ok(()) => "done",
            Err(Error::Keys(KeyFault::WrongKey { key_id, .. })) if key_id == good.key_id => "wrong key",
            refused if kept_away(&refused) => "kept away",
            refused if collides(&refused) => "collides",
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{written:?}");
        let done = RewrappedBatch { found: 2, last: Some(bad.key_id), rewrapped: 1, bad: vec![bad.key_id] };
        assert_eq!(work.outcome, (expected == "done").then_some(done), "{written:?}");
    }
}

/// An implementation may repeat a transaction that the database rolled back. Meanwhile another process was faster.
#[tokio::test]
async fn an_outcome_is_that_of_the_last_run() {
    let (old, new, other) = (kek(KekState::Active), kek(KekState::Active), kek(KekState::Active));
    let mut work = ReplaceKek { replaced: old.kek_id, kek: &new, done: false };
    let mut rows = Answers { changed: vec![true, true], active: Some(new.clone()), ..Answers::default() };
    work.run(&mut rows).await.unwrap();
    assert!(work.done);
    let mut rows = Answers { changed: vec![false], active: Some(other), ..Answers::default() };
    work.run(&mut rows).await.unwrap();
    assert!(!work.done, "the key-encryption key of the first run is not in the table");

    let wrapped = WrappedKek { master_key_id: "next".to_owned(), ciphertext: vec![2] };
    let moved = KekRecord { wrapped: wrapped.clone(), ..old.clone() };
    let mut work = MoveKek { old: &old, provider: &old.provider, wrapped: &wrapped, at: old.wrapped_at, done: false };
    let mut rows = Answers { changed: vec![true], kek: Some(moved), ..Answers::default() };
    work.run(&mut rows).await.unwrap();
    assert!(work.done);
    let elsewhere = WrappedKek { master_key_id: "third".to_owned(), ciphertext: vec![3] };
    let elsewhere = KekRecord { wrapped: elsewhere, ..old.clone() };
    let mut rows = Answers { changed: vec![false], kek: Some(elsewhere), ..Answers::default() };
    work.run(&mut rows).await.unwrap();
    assert!(!work.done, "another process has moved it, and elsewhere");
}
