//! [`MemoryKeys`]: the keys of a [`MemoryDb`](crate::memory::MemoryDb).

mod log;
mod rows;

use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, DestroyedKey, KekRecord, KekState, KeyHistory, KeyInfo, KeyStore, LogEntry, NewDataKey, ScopeAction,
    ScopeLock, ScopeRecord, ScopeState,
};
use crate::memory::{DataKeyRow, MemoryTx, ScopeRow, Tables};
use async_trait::async_trait;
use std::sync::Arc;
use time::OffsetDateTime;

/// The key tables of a [`MemoryDb`](crate::memory::MemoryDb).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MemoryKeys;

impl MemoryKeys {
    /// Makes the key store. It has no state of its own: the keys are in the database that the transaction belongs to.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl KeyStore for MemoryKeys {
    type Tx = MemoryTx;

    fn is_in_transaction(&self, tx: &MemoryTx) -> bool {
        tx.is_writing()
    }

    async fn sees_newest_state(&self, _: &mut MemoryTx) -> Result<bool> {
        // A transaction that writes in an old state finds nothing: its reads are collisions.
        Ok(true)
    }

    async fn namespace(&self, tx: &mut MemoryTx) -> Result<Option<Namespace>> {
        Ok(Some(tx.read()?.namespace.clone()))
    }

    async fn active_kek(&self, tx: &mut MemoryTx, partition: &str) -> Result<Option<KekRecord>> {
        Ok(active(&*tx.read()?, partition).cloned())
    }

    async fn keks(&self, tx: &mut MemoryTx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        let tables = tx.read()?;
        Ok(kek_ids.iter().filter_map(|kek_id| tables.keks.get(kek_id).cloned()).collect())
    }

    async fn announce_writing(&self, tx: &mut MemoryTx) -> Result<()> {
        tx.lock()
    }

    async fn scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        if lock != ScopeLock::None {
            tx.lock()?;
        }
        let tables = tx.read()?;
        Ok(scopes.iter().filter_map(|scope| scope_record(&tables, scope)).collect())
    }

    async fn create_scopes(&self, tx: &mut MemoryTx, scopes: &[KeyScope]) -> Result<()> {
        let tables = tx.write()?;
        for scope in scopes {
            tables.scopes.entry(scope.clone()).or_insert_with(new_scope);
        }
        Ok(())
    }

    async fn insert_keys(&self, tx: &mut MemoryTx, keys: &[NewDataKey]) -> Result<()> {
        let tables = tx.write()?;
        if keys.iter().any(|key| tables.keks.get(&key.kek_id).is_some_and(|kek| kek.state == KekState::Retired)) {
            return Err(Error::Collision { source: None });
        }
        keys.iter().try_for_each(|key| insert(tables, key))
    }

    async fn commit_durably(&self, _: &mut MemoryTx) -> Result<()> {
        Ok(())
    }

    async fn data_keys(&self, tx: &mut MemoryTx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let tables = tx.read()?;
        Ok(key_ids.iter().filter_map(|key_id| key_record(&tables, *key_id)).collect())
    }

    async fn change_scope(&self, tx: &mut MemoryTx, entry: &LogEntry) -> Result<()> {
        const OPERATION: &str = "changing a key scope";
        let row = tx.write()?.scopes.get_mut(&entry.scope).ok_or_else(|| no_effect(OPERATION, "key_scopes"))?;
        if row.entries.iter().any(|known| known.scope_seq == entry.scope_seq) {
            return Err(no_effect(OPERATION, "shred_entries"));
        }
        row.state = entry.state;
        row.generation = entry.generation;
        if entry.state == ScopeState::Shredded {
            row.active = None;
        }
        match entry.action {
            ScopeAction::Schedule => row.due = entry.until,
            ScopeAction::Cancel | ScopeAction::Shred | ScopeAction::Reopen => row.due = None,
            _ => {}
        }
        row.entries.push(entry.clone());
        Ok(())
    }

    async fn destroy_keys(&self, tx: &mut MemoryTx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>> {
        let tables = tx.write()?;
        let keys = tables.scopes.get(scope).map(|row| row.keys.clone()).unwrap_or_default();
        let mut destroyed = Vec::new();
        for key_id in keys {
            if let Some(row) = tables.data_keys.get_mut(&key_id)
                && row.wrapped_key.is_some()
            {
                let row = Arc::make_mut(row);
                row.wrapped_key = None;
                row.info.shredded_at = Some(at);
                let KeyInfo { key_id, version, kek_id, created_at, .. } = row.info;
                destroyed.push(DestroyedKey { key_id, version, kek_id, created_at });
            }
        }
        Ok(destroyed)
    }

    async fn history(&self, tx: &mut MemoryTx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let tables = tx.read()?;
        Ok(tables.scopes.get(scope).map(|row| KeyHistory {
            scope: scope.clone(),
            state: row.state,
            generation: row.generation,
            due: row.due,
            active_key: row.active,
            keys: row
                .keys
                .iter()
                .filter_map(|key_id| tables.data_keys.get(key_id))
                .map(|key| key.info.clone())
                .collect(),
            entries: row.entries.clone(),
        }))
    }
}

fn active<'t>(tables: &'t Tables, partition: &str) -> Option<&'t KekRecord> {
    tables.keks.values().find(|kek| kek.partition == partition && kek.state == KekState::Active)
}

fn new_scope() -> ScopeRow {
    ScopeRow { state: ScopeState::Live, generation: 1, active: None, keys: Vec::new(), due: None, entries: Vec::new() }
}

fn insert(tables: &mut Tables, key: &NewDataKey) -> Result<()> {
    let refused = |problem| Error::Keys(KeyFault::ScopeState { scope: key.scope.clone(), problem });
    let row = tables.scopes.get_mut(&key.scope).ok_or_else(|| refused("is not there, so it can't be given a key"))?;
    if row.state != ScopeState::Live {
        return Err(refused("is not live, so it can't be given a key"));
    }
    row.active = Some(key.key_id);
    row.keys.push(key.key_id);
    row.keys.sort_by_key(|key_id| tables.data_keys.get(key_id).map_or(key.version, |row| row.info.version));
    let info = KeyInfo {
        key_id: key.key_id,
        version: key.version,
        kek_id: key.kek_id,
        created_at: key.created_at,
        shredded_at: None,
    };
    let row = DataKeyRow {
        scope: key.scope.clone(),
        info,
        wrapped_key: Some(key.wrapped_key.clone()),
        wrapped_at: key.created_at,
    };
    tables.data_keys.insert(key.key_id, Arc::new(row));
    Ok(())
}

fn scope_record(tables: &Tables, scope: &KeyScope) -> Option<ScopeRecord> {
    let row = tables.scopes.get(scope)?;
    let last = row.keys.last().and_then(|key_id| tables.data_keys.get(key_id));
    Some(ScopeRecord {
        scope: scope.clone(),
        state: row.state,
        generation: row.generation,
        last_version: last.map(|key| key.info.version),
        due: row.due,
        active: row.active.and_then(|key_id| key_record(tables, key_id)),
    })
}

fn key_record(tables: &Tables, key_id: KeyId) -> Option<DataKeyRecord> {
    let row = tables.data_keys.get(&key_id)?;
    Some(DataKeyRecord {
        key_id,
        scope: row.scope.clone(),
        version: row.info.version,
        kek_id: row.info.kek_id,
        wrapped_key: row.wrapped_key.clone(),
        created_at: row.info.created_at,
        shredded_at: row.info.shredded_at,
        scope_state: tables.scopes.get(&row.scope)?.state,
    })
}
