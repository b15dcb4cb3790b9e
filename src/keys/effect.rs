//! Reads rows again after a change, in the transaction that made it. A database may accept a change and not make it,
//! without an error, because of a row-level policy, a trigger or a rule. Without this check, a shred that left keys in
//! place would be reported as an erasure.

use crate::error::{Result, no_effect};
use crate::keys::manager::KeyManager;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyHistory, KeyStore, LogEntry, ScopeAction, ScopeState};

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Checks that nothing is left of a shredded scope's keys, and that each of those destroyed now has its tombstone.
    /// Returns the ids of all keys that the scope ever had.
    pub(crate) async fn look_at_shred(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        destroyed: &[KeyId],
        entry: Option<&LogEntry>,
    ) -> Result<Vec<KeyId>> {
        const OPERATION: &str = "shredding";
        let history = self.history_after(tx, scope, OPERATION).await?;
        let key_ids: Vec<KeyId> = history.keys.iter().map(|key| key.key_id).collect();
        let rows = self.store.data_keys(tx, &key_ids).await?;
        let left = rows.iter().any(|key| key.wrapped_key.is_some() || key.shredded_at.is_none());
        let lost = destroyed.iter().any(|key_id| !key_ids.contains(key_id));
        if left || lost || rows.len() != key_ids.len() {
            return Err(no_effect(OPERATION, "data_keys"));
        }
        if history.state != ScopeState::Shredded || history.active_key.is_some() || history.due.is_some() {
            return Err(no_effect(OPERATION, "key_scopes"));
        }
        check_recorded(&history, entry, OPERATION)?;
        Ok(key_ids)
    }

    /// Checks that a scope has the state that a change gave it, and that the change is in its history.
    pub(crate) async fn look_at_change(&self, tx: &mut Tx, entry: &LogEntry, operation: &'static str) -> Result<()> {
        let history = self.history_after(tx, &entry.scope, operation).await?;
        if (history.state, history.generation) != (entry.state, entry.generation) {
            return Err(no_effect(operation, "key_scopes"));
        }
        let due_as_decided = match entry.action {
            // A sweep looks for this time.
            ScopeAction::Schedule => history.due == entry.until,
            ScopeAction::Cancel | ScopeAction::Reopen => history.due.is_none(),
            _ => true,
        };
        if !due_as_decided {
            return Err(no_effect(operation, "key_scopes"));
        }
        check_recorded(&history, Some(entry), operation)
    }

    /// Checks that a new key exists, and is the active one of its scope.
    pub(crate) async fn look_at_new_key(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        key_id: KeyId,
        operation: &'static str,
    ) -> Result<()> {
        let history = self.history_after(tx, scope, operation).await?;
        if !history.keys.iter().any(|key| key.key_id == key_id && key.shredded_at.is_none()) {
            return Err(no_effect(operation, "data_keys"));
        }
        if history.active_key != Some(key_id) {
            return Err(no_effect(operation, "key_scopes"));
        }
        Ok(())
    }

    async fn history_after(&self, tx: &mut Tx, scope: &KeyScope, operation: &'static str) -> Result<KeyHistory> {
        self.store.history(tx, scope).await?.ok_or_else(|| no_effect(operation, "key_scopes"))
    }
}

fn check_recorded(history: &KeyHistory, entry: Option<&LogEntry>, operation: &'static str) -> Result<()> {
    match entry {
        Some(entry) if history.entries.last() != Some(entry) => Err(no_effect(operation, "shred_entries")),
        _ => Ok(()),
    }
}
