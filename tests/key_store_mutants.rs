//! The contract of key stores is one: a store that breaks a rule is caught, by a message that names the rule.

mod common;

use async_trait::async_trait;
use common::Memory;
use eventseal::conformance;
use eventseal::*;
use time::OffsetDateTime;

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    DestroysNothing,
    DestroysNothingAndSaysOtherwise,
    ChangesNoScope,
    ForgetsTheHistory,
    TakesTheActiveKeyForTheNewest,
    SaysThatItInstalled,
    RetiresNothing,
    FindsOneKind,
}

#[derive(Clone, Copy)]
struct Mutant(MemoryKeys, Fault);

#[async_trait]
impl KeyStore for Mutant {
    type Tx = MemoryTx;

    async fn namespace(&self, tx: &mut MemoryTx) -> Result<Option<Namespace>> {
        self.0.namespace(tx).await
    }
    async fn active_kek(&self, tx: &mut MemoryTx, partition: &str) -> Result<Option<KekRecord>> {
        self.0.active_kek(tx, partition).await
    }
    async fn keks(&self, tx: &mut MemoryTx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        self.0.keks(tx, kek_ids).await
    }
    async fn install_kek(&self, tx: &mut MemoryTx, kek: &KekRecord) -> Result<()> {
        if self.1 == Fault::SaysThatItInstalled { Ok(()) } else { self.0.install_kek(tx, kek).await }
    }
    async fn kek_usage(&self, tx: &mut MemoryTx) -> Result<Vec<KekUsage>> {
        self.0.kek_usage(tx).await
    }
    async fn replace_kek(&self, tx: &mut MemoryTx, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        self.0.replace_kek(tx, replaced, kek).await
    }
    async fn move_kek(&self, tx: &mut MemoryTx, old: &KekRecord, provider: &str, wrapped: &WrappedKek, at: OffsetDateTime) -> Result<bool> {
        self.0.move_kek(tx, old, provider, wrapped, at).await
    }
    async fn retire_kek(&self, tx: &mut MemoryTx, kek_id: KekId) -> Result<Retirement> {
        let usage = self.0.kek_usage(tx).await?;
        let idle = usage.iter().any(|usage| usage.kek.kek_id == kek_id && usage.live_keys == 0 && usage.kek.state != KekState::Active);
        if self.1 == Fault::RetiresNothing && idle { Ok(Retirement::Done) } else { self.0.retire_kek(tx, kek_id).await }
    }
    async fn rewrap_batch(&self, tx: &mut MemoryTx, batch: &RewrapBatch, by: &dyn Rewrapper) -> Result<RewrappedBatch> {
        self.0.rewrap_batch(tx, batch, by).await
    }
    async fn install_key(&self, tx: &mut MemoryTx, key: &NewDataKey) -> Result<()> {
        self.0.install_key(tx, key).await
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
    async fn create_scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope]) -> Result<()> {
        self.0.create_scopes(tx, scopes).await
    }
    async fn insert_keys(&self, tx: &mut MemoryTx, keys: &[NewDataKey]) -> Result<()> {
        self.0.insert_keys(tx, keys).await
    }
    async fn commit_durably(&self, tx: &mut MemoryTx) -> Result<()> {
        self.0.commit_durably(tx).await
    }
    async fn data_keys(&self, tx: &mut MemoryTx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        self.0.data_keys(tx, key_ids).await
    }
    async fn change_scope(&self, tx: &mut MemoryTx, change: &ScopeChange) -> Result<()> {
        if self.1 == Fault::ChangesNoScope { Ok(()) } else { self.0.change_scope(tx, change).await }
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
        (Fault::TakesTheActiveKeyForTheNewest, "last_version must be the highest version"),
        (Fault::SaysThatItInstalled, "not committed"),
        (Fault::RetiresNothing, "Retired"),
        (Fault::FindsOneKind, "scopes_with_ids finds the scopes of every kind"),
    ] {
        let suite = async move { conformance::key_store(&Memory::new(), &Mutant(MemoryKeys::new(), fault)).await };
        let Err(caught) = tokio::spawn(suite).await else {
            assert_eq!(fault, Fault::None, "not caught");
            continue;
        };
        let panic = caught.into_panic();
        let message = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap();
        assert!(fault != Fault::None && message.contains(rule), "{fault:?}: {message}");
    }
}

/// The manager does not trust a store either: a shred that it reports has happened.
#[tokio::test]
async fn i5_a_shred_that_a_store_does_not_make_is_not_reported() {
    for fault in [Fault::DestroysNothing, Fault::DestroysNothingAndSaysOtherwise, Fault::ChangesNoScope, Fault::ForgetsTheHistory] {
        let db = MemoryDb::new(Namespace::new("mutants").unwrap());
        let schemas = Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer"))]).unwrap();
        let store = SealedStore::new(MemoryStore::new(), Mutant(MemoryKeys::new(), fault), Keyring::generate("main").unwrap(), schemas);
        store.keys().prepare(&mut db.begin()).await.unwrap();
        let mut tx = db.begin();
        let placed = NewEvent::raw("Placed", 1, r#"{"customer":"42","name":"Ada"}"#);
        store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::Any, &[placed]).await.unwrap();
        let refused = store.keys().shred(&mut tx, &KeyScope::new("Customer", "42"), "r").await;
        assert!(matches!(refused, Err(Error::NoEffect { .. })), "{fault:?}: {refused:?}");
    }
}
