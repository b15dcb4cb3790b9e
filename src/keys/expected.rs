//! Keys that a process expects to need, from its cache. They may be used only by a statement that compares them with
//! their rows.

use crate::crypto::primitives::DataKey;
use crate::error::Result;
use crate::keys::ahead::Pinned;
use crate::keys::manager::KeyManager;
use crate::keys::material::{SealingKeys, check_scopes, with_integrity};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{DataKeyRecord, KeyStore};
use crate::telemetry;
use std::collections::HashMap;
use std::sync::Arc;

/// Keys that are cached, and were not compared with their rows yet.
pub(crate) struct ExpectedKeys {
    pub(crate) keys: SealingKeys,
    /// The rows from which they were unwrapped, in ascending order of scope. That of the integrity key is among them.
    pub(crate) rows: Vec<Arc<DataKeyRecord>>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The keys under which these scopes sealed when they were last looked at: `None` if one of them is not cached.
    /// They may be used only by a statement that compares them with their rows. This locks nothing.
    ///
    /// `None` too if an earlier call missed a key of one of them: it must be opened before anything is locked.
    pub(crate) async fn expected_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<Option<ExpectedKeys>> {
        check_scopes(scopes)?;
        let (Some(namespace), wanted) = (self.namespace.get(), with_integrity(scopes)) else { return Ok(None) };
        if wanted.iter().any(|scope| self.has_missed(scope)) {
            return Ok(None);
        }
        let Some(active) = self.cache.keys.active(&wanted) else { return Ok(None) };
        self.check_log(tx).await?;
        let by_scope: HashMap<&KeyScope, (KeyId, &Arc<DataKey>)> =
            active.iter().map(|(row, key)| (&row.scope, (row.key_id, key))).collect();
        let key_of = |scope: &KeyScope| by_scope.get(scope).map(|(key_id, key)| (*key_id, Arc::clone(key)));
        let keys = scopes.iter().map(key_of).collect::<Option<Vec<_>>>();
        let Some((keys, integrity)) = keys.zip(key_of(&KeyScope::integrity())) else { return Ok(None) };
        telemetry::data_keys_needed(active.len(), 0);
        let keys = SealingKeys { namespace: namespace.clone(), keys, integrity };
        Ok(Some(ExpectedKeys { keys, rows: active.into_iter().map(|(row, _)| row).collect() }))
    }

    /// The active keys of these scopes, after a statement found that those that were expected are not. It has locked
    /// the scopes, so the KMS is not asked: if a key must be opened first, this fails with
    /// [`Error::Collision`](crate::Error::Collision), and the next call opens it.
    pub(crate) async fn unexpected_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<SealingKeys> {
        self.cache.keys.deactivate(scopes);
        Ok(self.locked_keys(tx, scopes, with_integrity(scopes), &Pinned::default()).await?.keys)
    }

    /// May a read that lags take these keys from the cache, so that their rows need not be read?
    pub(crate) fn are_seen(&self, key_ids: &[KeyId]) -> bool {
        let seen = |lag| self.cache.keys.seen_within(lag, &key_ids.iter().copied().collect());
        self.read_lag.and_then(seen).is_some()
    }
}
