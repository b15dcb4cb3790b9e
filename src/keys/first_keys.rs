//! The first keys of scopes: created in one statement, where the key store can do that.
//!
//! An append for owners that the table does not know yet otherwise asks six questions: whether there are scopes, which
//! key-encryption key is active, to create the scopes, to lock them, and to insert their keys. What a process knows
//! from before is enough to try all of it at once. The statement compares it with the rows, and does nothing if it is
//! not so.

use crate::error::{Error, Result};
use crate::keys::ahead::{ActiveKek, Pinned};
use crate::keys::kek_cache::Kek;
use crate::keys::manager::{KeyManager, check_and_take, lock};
use crate::keys::material::{SealingKeys, key_of};
use crate::keys::names::KeyScope;
use crate::keys::{DataKeyRecord, FirstKeys, FirstKeysCreated, KekRecord, KeyStore, NewDataKey, ScopeRecord};
use crate::telemetry;
use std::collections::HashMap;
use std::sync::Arc;

/// What became of the attempt to create the keys of all scopes at once.
pub(crate) enum FirstAttempt {
    /// None of the scopes was there, and now they have these keys. Nobody else sees them before the commit.
    Created(SealingKeys),
    /// Nothing was created or locked. These scopes were there, if the table was asked.
    Not(Option<Vec<ScopeRecord>>),
    /// Not all were created, and rows may be locked. So the KMS must not be asked: these keys are open.
    Locked(Pinned),
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Creates the keys of these scopes if none of them has a row yet, and everything that is needed for that is
    /// cached. The KMS is not asked. `wanted` are the scopes and that of the integrity key.
    pub(crate) async fn create_at_once(
        &self,
        tx: &mut Tx,
        scopes: &[KeyScope],
        wanted: &[KeyScope],
    ) -> Result<FirstAttempt> {
        let may_be_new = !scopes.is_empty() && !scopes.iter().any(|scope| self.cache.keys.is_at_hand(scope));
        // The integrity key must be open, and so must whatever an earlier call missed.
        let is_open = self.cache.keys.is_at_hand(&KeyScope::integrity());
        let is_open = is_open && !wanted.iter().any(|scope| self.has_missed(scope));
        if !may_be_new || !is_open || !self.store.creates_at_once() {
            return Ok(FirstAttempt::Not(None));
        }
        let Some(namespace) = self.namespace.get() else { return Ok(FirstAttempt::Not(None)) };
        let mut keks: HashMap<String, (KekRecord, Arc<Kek>)> = HashMap::new();
        let mut keys: Vec<NewDataKey> = Vec::with_capacity(scopes.len());
        for scope in scopes {
            let partition = self.partition_of(scope);
            let Some((record, kek)) = keks.get(&partition).cloned().or_else(|| self.expected_kek(&partition)) else {
                return Ok(FirstAttempt::Not(None));
            };
            let active = ActiveKek { namespace: namespace.clone(), kek_id: record.kek_id, kek: Arc::clone(&kek) };
            keys.push(self.make_key(scope, 1, &active)?);
            keks.insert(partition, (record, kek));
        }
        let mut expected: Vec<KekRecord> = keks.values().map(|(record, _)| record.clone()).collect();
        expected.sort_unstable_by_key(|record| record.kek_id);
        let first = FirstKeys { namespace, scopes: wanted, keys: &keys, keks: &expected };
        let FirstKeysCreated { created, locked, known } = self.store.create_if_new(tx, &first).await?;
        let pinned = Pinned {
            keks: keks.into_values().map(|(record, kek)| (record.kek_id, kek)).collect(),
            ..Pinned::default()
        };
        if !created {
            return Ok(if locked { FirstAttempt::Locked(pinned) } else { FirstAttempt::Not(Some(known)) });
        }
        telemetry::data_keys_created(keys.len());
        telemetry::keks_at_hand(expected.len());
        let integrity = known.into_iter().find(|record| record.scope.is_integrity());
        let integrity = integrity.map(check_and_take).transpose()?.flatten();
        let Some((_, integrity)) = integrity else { return Ok(FirstAttempt::Locked(pinned)) };
        let ids: Vec<_> = keys.iter().map(|key| key.key_id).collect();
        let integrity_id = integrity.key_id;
        let rows: Vec<DataKeyRecord> = keys.into_iter().map(DataKeyRecord::from).chain([integrity]).collect();
        let opened = self.open_all(tx, namespace, &rows, None, Some(&pinned)).await?;
        for row in &rows {
            self.cache.keys.activate(&row.scope, row.key_id);
        }
        let key = |key_id| Ok::<_, Error>((key_id, key_of(&opened, key_id)?));
        let keys = ids.into_iter().map(key).collect::<Result<_>>()?;
        Ok(FirstAttempt::Created(SealingKeys { namespace: namespace.clone(), keys, integrity: key(integrity_id)? }))
    }

    /// The key-encryption key that probably wraps a partition's new keys, with the row for which it was opened.
    fn expected_kek(&self, partition: &str) -> Option<(KekRecord, Arc<Kek>)> {
        let kek_id = lock(&self.hints).active_of(partition)?;
        let (record, kek) = self.cache.keks.opened(kek_id)?;
        (self.check_held(&record).is_ok() && record.partition == partition).then_some((record, kek))
    }
}
