//! The contract of key stores is one: a store that breaks a rule is caught, by a message that names the rule.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::error::{KeyFault, StorageFault};
use eventseal::keys::{
    DataKeyRecord, KekId, KekRecord, KekState, KeyHistory, KeyId, KeyStore, NewDataKey, Retirement, RewrapBatch,
    RewrappedBatch, Rewrapper, ScopeAction, ScopeChange, ScopeLock, ScopeRecord, ScopeState,
};
use eventseal::kms::WrappedKek;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::{
    Error, EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Result, Schemas, SealedStore,
    aggregate, event, subject,
};
use std::sync::Mutex;
use support::Memory;
use support::faults::{Faulty, KeyFaults};
use time::OffsetDateTime;

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    DestroysNothing,
    DestroysNothingAndSaysOtherwise,
    ChangesNoScope,
    ForgetsTheHistory,
    RecordsTheStateOnly,
    InsertsNoSecondKey,
    TakesTheActiveKeyForTheNewest,
    SaysThatItInstalled,
    RetiresNothing,
    FindsOneKind,
    ForgetsTheActor,
    ReplacesNothing,
    ReplacesNothingAndSaysOtherwise,
    ReplacesWhatIsNotActive,
    LeavesTheOldOneActive,
    MovesNothingAndSaysOtherwise,
    MovesWithoutTheTime,
    MovesWhatWasMoved,
    RewrapsNothingAndSaysOtherwise,
    RewrapsWithoutLooking,
    RewrapsWhatDoesNotOpen,
    LeavesOutRewraps,
}

/// Has nothing written, and keeps what would be said.
struct Pretending<'a> {
    by: &'a dyn Rewrapper,
    said: Mutex<Vec<(KeyId, bool)>>,
}

impl Rewrapper for Pretending<'_> {
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>> {
        if let Some(wrapped) = self.by.rewrap(key)? {
            self.said.lock().unwrap().push((key.key_id, self.by.opens(key.key_id, &wrapped)));
        }
        Ok(None)
    }

    fn opens(&self, _: KeyId, _: &[u8]) -> bool {
        true
    }
}

/// Does not look at what was written, or writes what does not open.
struct Blind<'a>(&'a dyn Rewrapper, Fault);

impl Rewrapper for Blind<'_> {
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>> {
        let wrapped = self.0.rewrap(key)?;
        Ok(if self.1 == Fault::RewrapsWhatDoesNotOpen { wrapped.or_else(|| key.wrapped_key.clone()) } else { wrapped })
    }

    fn opens(&self, key_id: KeyId, wrapped: &[u8]) -> bool {
        self.1 == Fault::RewrapsWithoutLooking || wrapped.first() == Some(&255) || self.0.opens(key_id, wrapped)
    }
}

#[derive(Clone, Copy)]
struct Mutant(MemoryKeys, Fault);

#[async_trait]
impl KeyFaults for Mutant {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.0
    }

    async fn install_kek(&self, tx: &mut MemoryTx, kek: &KekRecord) -> Result<()> {
        if self.1 == Fault::SaysThatItInstalled { Ok(()) } else { self.0.install_kek(tx, kek).await }
    }

    async fn replace_kek(&self, tx: &mut MemoryTx, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        let is_active = self.0.active_kek(tx, &kek.partition).await?.is_some_and(|active| active.kek_id == replaced);
        match self.1 {
            Fault::ReplacesNothing => Ok(false),
            Fault::ReplacesNothingAndSaysOtherwise => Ok(is_active),
            Fault::ReplacesWhatIsNotActive => match self.0.active_kek(tx, &kek.partition).await? {
                Some(active) => self.0.replace_kek(tx, active.kek_id, kek).await,
                None => Ok(false),
            },
            // The new key is there, in a place where nobody looks for it.
            Fault::LeavesTheOldOneActive if is_active => {
                let hidden = KekRecord { partition: format!("{} hidden", kek.partition), ..kek.clone() };
                self.0.install_kek(tx, &hidden).await.map(|()| true)
            }
            _ => self.0.replace_kek(tx, replaced, kek).await,
        }
    }

    async fn move_kek(
        &self,
        tx: &mut MemoryTx,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        let current = self.0.keks(tx, &[old.kek_id]).await?.pop();
        let unchanged = current.as_ref().is_some_and(|row| row.wrapped == old.wrapped);
        match (self.1, current) {
            (Fault::MovesNothingAndSaysOtherwise, _) => Ok(unchanged),
            (Fault::MovesWithoutTheTime, _) => self.0.move_kek(tx, old, provider, wrapped, old.wrapped_at).await,
            (Fault::MovesWhatWasMoved, Some(row)) => self.0.move_kek(tx, &row, provider, wrapped, at).await,
            _ => self.0.move_kek(tx, old, provider, wrapped, at).await,
        }
    }

    async fn retire_kek(&self, tx: &mut MemoryTx, kek_id: KekId) -> Result<Retirement> {
        let usage = self.0.kek_usage(tx).await?;
        let idle = usage
            .iter()
            .any(|usage| usage.kek.kek_id == kek_id && usage.live_keys == 0 && usage.kek.state != KekState::Active);
        if self.1 == Fault::RetiresNothing && idle { Ok(Retirement::Done) } else { self.0.retire_kek(tx, kek_id).await }
    }

    async fn rewrap_batch(&self, tx: &mut MemoryTx, batch: &RewrapBatch, by: &dyn Rewrapper) -> Result<RewrappedBatch> {
        match self.1 {
            Fault::RewrapsNothingAndSaysOtherwise => {
                let pretending = Pretending { by, said: Mutex::default() };
                let mut outcome = self.0.rewrap_batch(tx, batch, &pretending).await?;
                let said = pretending.said.into_inner().unwrap();
                if let Some((key_id, _)) = said.iter().find(|(_, opens)| !opens) {
                    return Err(Error::Keys(KeyFault::WrongKey { key_id: *key_id, kek_id: batch.to }));
                }
                outcome.bad.retain(|key_id| !said.iter().any(|(said, _)| said == key_id));
                outcome.rewrapped = u32::try_from(said.len()).unwrap();
                Ok(outcome)
            }
            Fault::RewrapsWithoutLooking | Fault::RewrapsWhatDoesNotOpen => {
                self.0.rewrap_batch(tx, batch, &Blind(by, self.1)).await
            }
            Fault::LeavesOutRewraps => {
                let half = RewrapBatch { limit: batch.limit - 1, ..batch.clone() };
                let outcome = self.0.rewrap_batch(tx, &half, by).await?;
                Ok(RewrappedBatch { found: outcome.found + 1, rewrapped: outcome.rewrapped + 1, ..outcome })
            }
            _ => self.0.rewrap_batch(tx, batch, by).await,
        }
    }

    async fn scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        let mut records = self.0.scopes(tx, scopes, lock).await?;
        if self.1 == Fault::TakesTheActiveKeyForTheNewest {
            for record in &mut records {
                record.last_version = record.active.as_ref().map_or(record.last_version, |key| key.version);
            }
        }
        Ok(records)
    }

    async fn insert_keys(&self, tx: &mut MemoryTx, keys: &[NewDataKey]) -> Result<()> {
        let kept_away = self.1 == Fault::InsertsNoSecondKey && keys.iter().all(|key| key.version > 1);
        if kept_away { Ok(()) } else { self.0.insert_keys(tx, keys).await }
    }

    async fn change_scope(&self, tx: &mut MemoryTx, change: &ScopeChange) -> Result<()> {
        match self.1 {
            Fault::ChangesNoScope => Ok(()),
            Fault::RecordsTheStateOnly => {
                self.0.change_scope(tx, &ScopeChange { state: ScopeState::Live, ..change.clone() }).await
            }
            Fault::ForgetsTheActor => self.0.change_scope(tx, &ScopeChange { actor: None, ..change.clone() }).await,
            _ => self.0.change_scope(tx, change).await,
        }
    }

    async fn destroy_keys(&self, tx: &mut MemoryTx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>> {
        match self.1 {
            Fault::DestroysNothing => Ok(Vec::new()),
            Fault::DestroysNothingAndSaysOtherwise => {
                let keys = self.0.history(tx, scope).await?.map(|history| history.keys).unwrap_or_default();
                Ok(keys.into_iter().filter(|key| key.shredded_at.is_none()).map(|key| key.key_id).collect())
            }
            _ => self.0.destroy_keys(tx, scope, at).await,
        }
    }

    async fn scopes_with_ids(&self, tx: &mut MemoryTx, ids: &[String]) -> Result<Vec<KeyScope>> {
        let mut found = self.0.scopes_with_ids(tx, ids).await?;
        if self.1 == Fault::FindsOneKind {
            let kind = found.first().map(|scope| scope.kind().to_owned());
            found.retain(|scope| Some(scope.kind()) == kind.as_deref());
        }
        Ok(found)
    }

    async fn history(&self, tx: &mut MemoryTx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let mut history = self.0.history(tx, scope).await?;
        if self.1 == Fault::RecordsTheStateOnly {
            for change in history.iter_mut().flat_map(|history| &mut history.changes) {
                change.state = match change.action {
                    ScopeAction::Shred => ScopeState::Shredded,
                    ScopeAction::Disable => ScopeState::Disabled,
                    ScopeAction::Reopen | ScopeAction::Enable => ScopeState::Live,
                };
            }
        }
        if self.1 == Fault::ForgetsTheHistory {
            history.iter_mut().for_each(|history| history.changes.clear());
        }
        Ok(history)
    }
}

#[tokio::test]
async fn a_store_that_breaks_a_rule_is_caught_by_name() {
    for (fault, rule) in [
        (Fault::None, ""),
        (Fault::DestroysNothing, "destroy_keys must destroy every key"),
        (Fault::DestroysNothingAndSaysOtherwise, "destroying again"),
        (Fault::ChangesNoScope, "change_scope said that it changed a scope that is not there"),
        (Fault::ForgetsTheHistory, "change_scope did not record the change"),
        (Fault::RecordsTheStateOnly, "change_scope did not set the state that it was given"),
        (Fault::InsertsNoSecondKey, "insert_keys must insert every key, the last one as the active one"),
        (Fault::TakesTheActiveKeyForTheNewest, "last_version must be the highest version"),
        (Fault::SaysThatItInstalled, "not committed"),
        (Fault::RetiresNothing, "Retired"),
        (Fault::FindsOneKind, "scopes_with_ids finds the scopes of every kind"),
        (Fault::ForgetsTheActor, "the history says who did it"),
        (Fault::ReplacesNothing, "replace_kek must replace the active key-encryption key"),
        (Fault::ReplacesNothingAndSaysOtherwise, "replace_kek must make the new key-encryption key the active one"),
        (Fault::ReplacesWhatIsNotActive, "replace_kek replaces nothing but the active key-encryption key"),
        (Fault::LeavesTheOldOneActive, "replace_kek must make the new key-encryption key the active one"),
        (Fault::MovesNothingAndSaysOtherwise, "move_kek must exchange provider, wrapping and time"),
        (Fault::MovesWithoutTheTime, "move_kek must exchange provider, wrapping and time"),
        (Fault::MovesWhatWasMoved, "move_kek must leave a row alone that was changed meanwhile"),
        (Fault::RewrapsNothingAndSaysOtherwise, "rewrap_batch must write what it says that it wrapped anew"),
        (Fault::RewrapsWithoutLooking, "rewrap_batch must look at what was written"),
        (Fault::RewrapsWhatDoesNotOpen, "rewrap_batch must leave alone, and name, what does not open"),
        (Fault::LeavesOutRewraps, "rewrap_batch must count"),
    ] {
        let suite =
            async move { conformance::key_store(&Memory::new(), &Faulty(Mutant(MemoryKeys::new(), fault))).await };
        let Err(caught) = tokio::spawn(suite).await else {
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
