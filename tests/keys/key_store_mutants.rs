//! Key stores and key tables that break one rule each. The conformance suite catches each of them, with a message that
//! names the rule.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::erasure::{DueScope, ShredMode};
use eventseal::error::StorageFault;
use eventseal::keys::{
    DataKeyRecord, DestroyedKey, KekId, KekRecord, KekState, KeyHistory, KeyId, KeyInfo, KeyManager, KeyRewrap,
    KeyRows, KeyStore, KeyTable, KeyWrapping, ListedScope, LogDisagreement, LogEntry, LogHead, LogRow, NewDataKey,
    RestoredScopes, ScopeAction, ScopeLock, ScopeRecord, ScopeSetting, ScopeState,
};
use eventseal::kms::WrappedKek;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::{
    Error, EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Result, Schemas, SealedStore,
    aggregate, event, subject,
};
use support::Memory;
use support::faults::{Faulty, KeyFaults};
use time::OffsetDateTime;
use uuid::Uuid;

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    DestroysNothing,
    DestroysNothingAndSaysOtherwise,
    NamesAnotherKekOfDestroyedKeys,
    ChangesNoScope,
    ForgetsTheHistory,
    RecordsTheStateOnly,
    InsertsNoSecondKey,
    TakesTheActiveKeyForTheNewest,
    SaysThatItInstalled,
    RetiresNothing,
    ListsOneKind,
    ListsOneTooMany,
    ListsFromTheNext,
    ListsWithoutCase,
    ListsTheOldestKey,
    ForgetsTheActor,
    ReplacesNothing,
    ReplacesNothingAndSaysOtherwise,
    ReplacesWhatIsNotActive,
    InsertsKeksElsewhere,
    MovesNothingAndSaysOtherwise,
    MovesWithoutTheTime,
    MovesWhatWasMoved,
    RewrapsNothingAndSaysOtherwise,
    RewrapsWhatWasRewrapped,
    SaysWhatItWasTold,
    LeavesOutRewraps,
    FindsNothingRestored,
    FindsNothingAtTheBorder,
    FindsNoSecondPage,
    FindsEachHold,
    ForgetsTheTime,
    SealsNothingAndSaysOtherwise,
    SealsFromAnywhere,
    LeavesOutUnsealed,
    DestroysNothingByIdAndSaysOtherwise,
    SetsNoScopeAndSaysOtherwise,
    FindsNoDisagreement,
    FindsNoHiddenKey,
}

#[derive(Clone, Copy)]
struct Mutant(MemoryKeys, Fault);

#[async_trait]
impl KeyFaults for Mutant {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.0
    }

    async fn insert_kek(&self, rows: &mut dyn KeyRows, kek: &KekRecord) -> Result<bool> {
        match self.1 {
            Fault::SaysThatItInstalled => Ok(true),
            // The new key is there, in a place where nobody looks for it.
            Fault::InsertsKeksElsewhere => {
                let hidden = KekRecord { partition: format!("{} hidden", kek.partition), ..kek.clone() };
                rows.insert_kek(&hidden).await
            }
            _ => rows.insert_kek(kek).await,
        }
    }

    async fn change_kek_state(
        &self,
        rows: &mut dyn KeyRows,
        kek_id: KekId,
        from: KekState,
        to: KekState,
    ) -> Result<bool> {
        let state = rows.kek(kek_id).await?.map(|kek| kek.state);
        match (self.1, state) {
            (Fault::RetiresNothing, Some(_)) if to == KekState::Retired => Ok(state == Some(from)),
            (Fault::ReplacesNothing, _) => Ok(false),
            (Fault::ReplacesNothingAndSaysOtherwise, _) => Ok(state == Some(from)),
            (Fault::ReplacesWhatIsNotActive, Some(state)) => rows.change_kek_state(kek_id, state, to).await,
            _ => rows.change_kek_state(kek_id, from, to).await,
        }
    }

    async fn change_kek_wrapping(
        &self,
        rows: &mut dyn KeyRows,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        let current = rows.kek(old.kek_id).await?;
        let unchanged = current.as_ref().is_some_and(|row| row.wrapped == old.wrapped);
        match (self.1, current) {
            (Fault::MovesNothingAndSaysOtherwise, _) => Ok(unchanged),
            (Fault::MovesWithoutTheTime, _) => rows.change_kek_wrapping(old, provider, wrapped, old.wrapped_at).await,
            (Fault::MovesWhatWasMoved, Some(row)) => rows.change_kek_wrapping(&row, provider, wrapped, at).await,
            _ => rows.change_kek_wrapping(old, provider, wrapped, at).await,
        }
    }

    async fn lock_live_keys(
        &self,
        rows: &mut dyn KeyRows,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        let limit = if self.1 == Fault::LeavesOutRewraps { limit - 1 } else { limit };
        rows.lock_live_keys(kek_ids, after, limit).await
    }

    async fn rewrap_keys(
        &self,
        rows: &mut dyn KeyRows,
        keys: &[KeyRewrap],
        to: KekId,
        at: OffsetDateTime,
    ) -> Result<Vec<KeyWrapping>> {
        let mut keys = keys.to_vec();
        let of: Vec<KekId> = keys.iter().map(|rewrap| rewrap.key.kek_id).collect();
        let current = rows.lock_live_keys(&of, None, 100).await?;
        let as_it_is =
            |rewrap: &KeyRewrap| current.iter().find(|key| key.key_id == rewrap.key.key_id).cloned().unwrap();
        match self.1 {
            Fault::RewrapsNothingAndSaysOtherwise => {
                keys.retain(|rewrap| as_it_is(rewrap).wrapped_key == rewrap.key.wrapped_key);
                Ok(keys.into_iter().map(|rewrap| rewrap.new).collect())
            }
            Fault::RewrapsWhatWasRewrapped => {
                keys.iter_mut().for_each(|rewrap| rewrap.key = as_it_is(rewrap));
                rows.rewrap_keys(&keys, to, at).await
            }
            Fault::SaysWhatItWasTold => {
                let told = keys.clone();
                keys.iter_mut().for_each(|rewrap| rewrap.new.wrapped_key[0] ^= 1);
                let written = rows.rewrap_keys(&keys, to, at).await?;
                let of =
                    |wrapping: KeyWrapping| told.iter().find(|rewrap| rewrap.new.key_id == wrapping.key_id).unwrap();
                Ok(written.into_iter().map(|wrapping| of(wrapping).new.clone()).collect())
            }
            _ => rows.rewrap_keys(&keys, to, at).await,
        }
    }

    async fn restored_scopes(&self, tx: &mut MemoryTx, limit: u32) -> Result<RestoredScopes> {
        let found = self.0.restored_scopes(tx, limit).await?;
        Ok(if self.1 == Fault::FindsNothingRestored { RestoredScopes::default() } else { found })
    }

    async fn due_scopes(
        &self,
        tx: &mut MemoryTx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        let mut found = self.0.due_scopes(tx, by, after, limit).await?;
        match self.1 {
            Fault::FindsNothingAtTheBorder => found.retain(|due| Some(due.due) != by),
            Fault::FindsNoSecondPage if after.is_some() => found.clear(),
            _ => {}
        }
        Ok(found)
    }

    async fn held_scopes(&self, tx: &mut MemoryTx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        let mut found = self.0.held_scopes(tx, after, limit).await?;
        if self.1 == Fault::FindsEachHold {
            found = found.iter().flat_map(|scope| [scope.clone(), scope.clone()]).collect();
        }
        Ok(found)
    }

    async fn log_disagreements(&self, tx: &mut MemoryTx, limit: u32) -> Result<Vec<LogDisagreement>> {
        let mut found = self.0.log_disagreements(tx, limit).await?;
        match self.1 {
            Fault::FindsNoDisagreement => found.clear(),
            Fault::FindsNoHiddenKey => found.retain(|found| !found.scope.id().starts_with("hidden")),
            _ => {}
        }
        Ok(found)
    }

    async fn unsealed_entries(
        &self,
        rows: &mut dyn KeyRows,
        after: Option<(&KeyScope, u32)>,
        limit: u32,
    ) -> Result<Vec<LogEntry>> {
        let limit = if self.1 == Fault::LeavesOutUnsealed { limit - 1 } else { limit };
        rows.unsealed_entries(after, limit).await
    }

    async fn seal_entries(&self, rows: &mut dyn KeyRows, from: &LogHead, sealed: &[LogRow]) -> Result<bool> {
        match self.1 {
            Fault::SealsNothingAndSaysOtherwise => Ok(true),
            Fault::SealsFromAnywhere => {
                let end = rows.lock_log_head().await?;
                rows.seal_entries(&end, sealed).await
            }
            _ => rows.seal_entries(from, sealed).await,
        }
    }

    async fn destroy_by_id(&self, rows: &mut dyn KeyRows, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        match self.1 {
            Fault::DestroysNothingByIdAndSaysOtherwise => Ok(key_ids.len() as u64),
            _ => rows.destroy_by_id(key_ids, at).await,
        }
    }

    async fn set_scope(&self, rows: &mut dyn KeyRows, to: &ScopeSetting<'_>) -> Result<bool> {
        match self.1 {
            Fault::SetsNoScopeAndSaysOtherwise => Ok(rows.scope(to.scope).await?.is_some()),
            _ => rows.set_scope(to).await,
        }
    }

    async fn scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        let mut records = self.0.scopes(tx, scopes, lock).await?;
        if self.1 == Fault::TakesTheActiveKeyForTheNewest {
            for record in &mut records {
                record.last_version = record.active.as_ref().map(|key| key.version);
            }
        }
        Ok(records)
    }

    async fn insert_keys(&self, tx: &mut MemoryTx, keys: &[NewDataKey]) -> Result<()> {
        let kept_away = self.1 == Fault::InsertsNoSecondKey && keys.iter().all(|key| key.version > 1);
        if kept_away { Ok(()) } else { self.0.insert_keys(tx, keys).await }
    }

    async fn change_scope(&self, tx: &mut MemoryTx, change: &LogEntry) -> Result<()> {
        match self.1 {
            Fault::ChangesNoScope => Ok(()),
            Fault::RecordsTheStateOnly => {
                self.0.change_scope(tx, &LogEntry { state: ScopeState::Live, ..change.clone() }).await
            }
            Fault::ForgetsTheTime if change.action == ScopeAction::Schedule => {
                // The entry is as it was given, but the row is not.
                let cancelled = LogEntry { action: ScopeAction::Cancel, ..change.clone() };
                self.0.change_scope(tx, &cancelled).await
            }
            Fault::ForgetsTheActor => self.0.change_scope(tx, &LogEntry { actor: None, ..change.clone() }).await,
            _ => self.0.change_scope(tx, change).await,
        }
    }

    async fn destroy_keys(&self, tx: &mut MemoryTx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>> {
        match self.1 {
            Fault::DestroysNothing => Ok(Vec::new()),
            Fault::DestroysNothingAndSaysOtherwise => {
                let keys = self.0.history(tx, scope).await?.map(|history| history.keys).unwrap_or_default();
                let live = keys.into_iter().filter(|key| key.shredded_at.is_none());
                let destroyed = |KeyInfo { key_id, version, kek_id, created_at, .. }| DestroyedKey {
                    key_id,
                    version,
                    kek_id,
                    created_at,
                };
                Ok(live.map(destroyed).collect())
            }
            Fault::NamesAnotherKekOfDestroyedKeys => {
                let mut destroyed = self.0.destroy_keys(tx, scope, at).await?;
                destroyed.iter_mut().for_each(|key| key.kek_id = KekId(Uuid::now_v7()));
                Ok(destroyed)
            }
            _ => self.0.destroy_keys(tx, scope, at).await,
        }
    }

    async fn scopes_from(&self, tx: &mut MemoryTx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        let list = async |tx: &mut MemoryTx, from: &KeyScope| self.0.scopes_from(tx, from, limit).await;
        match self.1 {
            Fault::ListsOneTooMany => self.0.scopes_from(tx, from, limit.saturating_add(1)).await,
            Fault::ListsFromTheNext => list(tx, &KeyScope::new(from.kind(), format!("{}\u{1}", from.id()))).await,
            Fault::ListsOneKind => {
                let mut found = list(tx, from).await?;
                let kind = found.first().map(|row| row.scope.kind().to_owned());
                found.retain(|row| Some(row.scope.kind()) == kind.as_deref());
                Ok(found)
            }
            Fault::ListsWithoutCase => {
                let mut found = list(tx, from).await?;
                found.sort_by_key(|row| (row.scope.kind().to_lowercase(), row.scope.id().to_lowercase()));
                Ok(found)
            }
            Fault::ListsTheOldestKey => {
                let mut found = list(tx, from).await?;
                for row in &mut found {
                    let history = self.0.history(tx, &row.scope).await?;
                    row.kek_id = history.and_then(|history| history.keys.first().map(|key| key.kek_id));
                }
                Ok(found)
            }
            _ => list(tx, from).await,
        }
    }

    async fn history(&self, tx: &mut MemoryTx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let mut history = self.0.history(tx, scope).await?;
        if self.1 == Fault::RecordsTheStateOnly {
            for change in history.iter_mut().flat_map(|history| &mut history.entries) {
                change.state = match change.action {
                    ScopeAction::Shred => ScopeState::Shredded,
                    ScopeAction::Disable => ScopeState::Disabled,
                    ScopeAction::Schedule => ScopeState::Withheld,
                    _ => ScopeState::Live,
                };
            }
        }
        if self.1 == Fault::ForgetsTheTime {
            for entry in history.iter_mut().flat_map(|history| &mut history.entries) {
                if entry.action == ScopeAction::Cancel && entry.until.is_some() {
                    entry.action = ScopeAction::Schedule;
                }
            }
        }
        if self.1 == Fault::ForgetsTheHistory {
            history.iter_mut().for_each(|history| history.entries.clear());
        }
        Ok(history)
    }
}

/// Each fault, and words of the rule that catches it.
const CAUGHT: [(Fault, &str); 40] = [
    (Fault::None, ""),
    (Fault::DestroysNothing, "destroy_keys must destroy every key"),
    (Fault::DestroysNothingAndSaysOtherwise, "destroying again"),
    (Fault::NamesAnotherKekOfDestroyedKeys, "destroy_keys returns the keys as their rows are"),
    (Fault::ChangesNoScope, "change_scope said that it changed a scope that is not there"),
    (Fault::ForgetsTheHistory, "change_scope did not record the entry as it was given"),
    (Fault::RecordsTheStateOnly, "change_scope did not set the state that it was given"),
    (Fault::InsertsNoSecondKey, "insert_keys must insert every key, the last one as the active one"),
    (Fault::TakesTheActiveKeyForTheNewest, "last_version must be the highest version"),
    (Fault::SaysThatItInstalled, "install_kek failed"),
    (Fault::RetiresNothing, "retire_kek failed"),
    (Fault::ListsOneKind, "scopes_from must list every scope"),
    (Fault::ListsOneTooMany, "scopes_from must keep to its limit"),
    (Fault::ListsFromTheNext, "scopes_from must begin with the scope that it is given"),
    (Fault::ListsWithoutCase, "scopes_from must list scopes in the order of bytes"),
    (Fault::ListsTheOldestKey, "with what its newest key says"),
    (Fault::ForgetsTheActor, "change_scope did not record the entry as it was given"),
    (Fault::ReplacesNothing, "change_kek_state must change a key in the state that it was told"),
    (Fault::ReplacesNothingAndSaysOtherwise, "change_kek_state must change the state"),
    (Fault::ReplacesWhatIsNotActive, "change_kek_state must change nothing but a key in the state"),
    (Fault::InsertsKeksElsewhere, "install_kek failed"),
    (Fault::MovesNothingAndSaysOtherwise, "change_kek_wrapping must exchange provider, wrapping and time"),
    (Fault::MovesWithoutTheTime, "change_kek_wrapping must exchange provider, wrapping and time"),
    (Fault::MovesWhatWasMoved, "change_kek_wrapping must leave a row alone that was changed meanwhile"),
    (Fault::RewrapsNothingAndSaysOtherwise, "rewrap_keys must write which key-encryption key wraps"),
    (Fault::RewrapsWhatWasRewrapped, "rewrap_keys must leave a row alone that was changed since it was read"),
    (Fault::SaysWhatItWasTold, "rewrap_keys must write the new wrapping"),
    (Fault::LeavesOutRewraps, "lock_live_keys must return the first keys"),
    (Fault::FindsNothingRestored, "restored_scopes must count"),
    (Fault::FindsNothingAtTheBorder, "due_scopes must find what is due at this very time"),
    (Fault::FindsNoSecondPage, "due_scopes must go on after the last of a page"),
    (Fault::FindsEachHold, "held_scopes must find each scope that was put on hold once"),
    (Fault::ForgetsTheTime, "due_scopes must find every scheduled shred"),
    (Fault::SealsNothingAndSaysOtherwise, "seal_entries must move the end of the chain"),
    (Fault::SealsFromAnywhere, "seal_entries must not move the end from where it is not"),
    (Fault::LeavesOutUnsealed, "unsealed_entries must return what the chain does not have"),
    (Fault::DestroysNothingByIdAndSaysOtherwise, "a key is destroyed once"),
    (Fault::SetsNoScopeAndSaysOtherwise, "set_scope must set the state"),
    (Fault::FindsNoDisagreement, "log_disagreements must find what a restore brings back"),
    (Fault::FindsNoHiddenKey, "log_disagreements must find a key of a shredded scope that no entry names"),
];

#[tokio::test]
async fn a_store_that_breaks_a_rule_is_caught_by_name() {
    for (fault, rule) in CAUGHT {
        let suites = async move {
            let (mutant, db) = (Faulty(Mutant(MemoryKeys::new(), fault)), Memory::new());
            let sound = Faulty(Mutant(MemoryKeys::new(), Fault::None));
            conformance::first_keys_are_installed_once(&db, &sound).await;
            conformance::key_store(&db, &mutant).await;
            conformance::key_table(&Memory::new(), &mutant).await;
        };
        let Err(caught) = tokio::spawn(suites).await else {
            assert_eq!(fault, Fault::None, "not caught");
            continue;
        };
        let panic = caught.into_panic();
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap();
        assert!(fault != Fault::None && message.contains(rule), "{fault:?}: {message}");
    }
}

/// The manager does not trust a store either: a change that it reports has happened.
#[tokio::test]
async fn i5_a_change_that_a_store_does_not_make_is_not_reported() {
    let of_shreds = [Fault::DestroysNothing, Fault::DestroysNothingAndSaysOtherwise];
    let of_changes = [Fault::ChangesNoScope, Fault::ForgetsTheHistory, Fault::RecordsTheStateOnly];
    for fault in of_shreds.into_iter().chain(of_changes).chain([Fault::InsertsNoSecondKey]) {
        let db = MemoryDb::new(Namespace::new("mutants").unwrap());
        let schemas =
            Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap();
        let store = SealedStore::new(
            MemoryStore::new(),
            Faulty(Mutant(MemoryKeys::new(), fault)),
            Keyring::generate("main").unwrap(),
            schemas,
        );
        store.keys().prepare(&mut db.begin()).await.unwrap();
        let mut tx = db.begin();
        let placed = NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"Ada"}"#);
        store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, &[placed]).await.unwrap();
        let scope = KeyScope::new("Customer", "42");
        let refused = if fault == Fault::InsertsNoSecondKey {
            store.keys().rotate_data_key(&mut tx, &scope).await.map(drop)
        } else {
            if of_changes.contains(&fault) {
                let refused = store.keys().disable(&mut tx, &scope, "r").await;
                assert!(
                    matches!(refused, Err(Error::Storage(StorageFault::NoEffect { .. }))),
                    "{fault:?}: {refused:?}"
                );
            }
            store.keys().shred(&mut tx, &scope, "r").await.map(drop)
        };
        assert!(matches!(refused, Err(Error::Storage(StorageFault::NoEffect { .. }))), "{fault:?}: {refused:?}");
    }
}

/// A sweep looks for the time in the row. So a schedule whose time did not get there is not reported.
#[tokio::test]
async fn i5_a_schedule_that_no_sweep_would_find_is_not_reported() {
    let db = MemoryDb::new(Namespace::new("mutants").unwrap());
    let keys =
        KeyManager::new(Faulty(Mutant(MemoryKeys::new(), Fault::ForgetsTheTime)), Keyring::generate("main").unwrap());
    keys.prepare(&mut db.begin()).await.unwrap();
    let (mut tx, scope) = (db.begin(), KeyScope::new("Customer", "42"));
    keys.hold(&mut tx, &scope, "r", None).await.unwrap();
    let due = OffsetDateTime::now_utc() + std::time::Duration::from_secs(60);
    let refused = keys.schedule_shred(&mut tx, &scope, due, ShredMode::KeepWorking, "r").await;
    assert!(matches!(refused, Err(Error::Storage(StorageFault::NoEffect { table: "key_scopes", .. }))), "{refused:?}");
}
