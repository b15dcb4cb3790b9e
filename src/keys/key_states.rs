//! The states of data keys by their rows alone: no key is opened, and no KMS is asked.

use crate::error::Result;
use crate::keys::manager::KeyManager;
use crate::keys::material::{status_without_key, with_integrity};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyStore, UsableKeys};
use crate::seal::opening::KeyStatus;
use std::collections::HashMap;

/// What the row of a data key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// It may be used.
    Live,
    /// It was destroyed, and the row is its tombstone.
    Destroyed,
    /// Its scope is disabled or withheld, or the row contradicts itself.
    Unusable,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The active keys of these scopes, locked as an append locks them. None is created: if keys are missing, the
    /// scopes that lack them are returned instead. If the KMS must be asked, it is asked before anything is locked.
    pub(crate) async fn keys_in_use(
        &self,
        tx: &mut Tx,
        scopes: &[KeyScope],
    ) -> Result<Result<UsableKeys, Vec<KeyScope>>> {
        self.check_log(tx).await?;
        let pinned = self.open_ahead(tx, &with_integrity(scopes)).await?;
        self.existing_keys(tx, scopes, &pinned).await
    }

    /// The states of these keys now. Keys without a row are left out.
    pub(crate) async fn key_states(&self, tx: &mut Tx, key_ids: &[KeyId]) -> Result<HashMap<KeyId, KeyState>> {
        if key_ids.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.store.data_keys(tx, key_ids).await?;
        let state = |status: Option<KeyStatus>| match status {
            None => KeyState::Live,
            Some(KeyStatus::Shredded { .. }) => KeyState::Destroyed,
            Some(_) => KeyState::Unusable,
        };
        Ok(rows.iter().map(|row| (row.key_id, state(status_without_key(row)))).collect())
    }
}
