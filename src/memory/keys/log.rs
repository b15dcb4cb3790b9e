//! The shred log of a [`MemoryDb`](crate::memory::MemoryDb).

use super::rows::Rows;
use super::{key_record, new_scope, scope_record};
use crate::error::{Result, no_effect};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DestroyedKey, KeyInfo, LogDisagreement, LogEntry, LogHead, LogProblem, LogRow, LogRows, ScopeAction,
    ScopeRecord, ScopeSetting, ScopeState, SealedEntry,
};
use crate::memory::{DataKeyRow, ScopeRow, Tables};
use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

fn entries(tables: &Tables) -> impl Iterator<Item = &LogEntry> {
    tables.scopes.values().flat_map(|row| &row.entries)
}

pub(super) fn head(tables: &Tables) -> LogHead {
    let sealed = sealed_ids(tables);
    let unsealed = entries(tables).any(|entry| !sealed.contains(&entry.entry_id));
    let (seq, hash) = tables.log.last().map_or((0, [0; 32]), |last| (last.seq, last.hash));
    LogHead { seq, hash, unsealed }
}

pub(super) fn sealed(tables: &Tables, after: u64, limit: u32) -> Vec<SealedEntry> {
    let known: HashMap<Uuid, &LogEntry> = entries(tables).map(|entry| (entry.entry_id, entry)).collect();
    let rows = tables.log.iter().filter(|row| row.seq > after);
    let with_entry = |row: &LogRow| Some(SealedEntry { row: *row, entry: (*known.get(&row.entry_id)?).clone() });
    rows.filter_map(with_entry).take(limit as usize).collect()
}

pub(super) fn disagreements(tables: &Tables, limit: u32) -> Vec<LogDisagreement> {
    let mut found = BTreeSet::new();
    for (scope, row) in &tables.scopes {
        let mut add = |problem| {
            found.insert(LogDisagreement { scope: scope.clone(), problem });
        };
        let names_keys = |entry: &&LogEntry| matches!(entry.action, ScopeAction::Shred | ScopeAction::Adopt);
        for key in row.entries.iter().filter(names_keys).flat_map(|entry| &entry.keys) {
            match tables.data_keys.get(&key.key_id) {
                Some(row) if row.wrapped_key.is_some() => add(LogProblem::KeyCameBack),
                Some(_) => {}
                None => add(LogProblem::NoTombstone),
            }
        }
        let is_live = |key: &Arc<DataKeyRow>| key.scope == *scope && key.wrapped_key.is_some();
        if row.state == ScopeState::Shredded && tables.data_keys.values().any(is_live) {
            add(LogProblem::KeyCameBack);
        }
        let last = row.entries.last().map_or((ScopeState::Live, 1), |entry| (entry.state, entry.generation));
        if last != (row.state, row.generation) {
            add(LogProblem::State);
        }
    }
    found.into_iter().take(limit.max(1) as usize).collect()
}

/// An entry is sealed if the chain has it.
fn sealed_ids(tables: &Tables) -> HashSet<Uuid> {
    tables.log.iter().map(|row| row.entry_id).collect()
}

#[async_trait]
impl LogRows for Rows<'_> {
    async fn lock_log_head(&mut self) -> Result<LogHead> {
        self.0.lock()?;
        Ok(head(&*self.0.read()?))
    }

    async fn unsealed_entries(&mut self, after: Option<(&KeyScope, u32)>, limit: u32) -> Result<Vec<LogEntry>> {
        let tables = self.0.read()?;
        let sealed = sealed_ids(&tables);
        let unsealed = entries(&tables).filter(|entry| {
            !sealed.contains(&entry.entry_id) && after.is_none_or(|after| (&entry.scope, entry.scope_seq) > after)
        });
        Ok(unsealed.take(limit as usize).cloned().collect())
    }

    async fn entries_of(&mut self, scopes: &[KeyScope]) -> Result<Vec<LogEntry>> {
        let tables = self.0.read()?;
        let wanted: BTreeSet<&KeyScope> = scopes.iter().collect();
        Ok(wanted
            .into_iter()
            .filter_map(|scope| tables.scopes.get(scope))
            .flat_map(|row| row.entries.clone())
            .collect())
    }

    async fn seal_entries(&mut self, from: &LogHead, rows: &[LogRow]) -> Result<bool> {
        let tables = self.0.write()?;
        let (end, sealed) = (head(tables), sealed_ids(tables));
        let known: HashSet<Uuid> = entries(tables).map(|entry| entry.entry_id).collect();
        let is_new = |row: &LogRow| known.contains(&row.entry_id) && !sealed.contains(&row.entry_id);
        if (end.seq, end.hash) != (from.seq, from.hash) || !rows.iter().all(is_new) {
            return Ok(false);
        }
        tables.log.extend_from_slice(rows);
        Ok(true)
    }

    async fn insert_entries(&mut self, new: &[LogEntry]) -> Result<()> {
        let tables = self.0.write()?;
        for entry in new {
            let row = tables
                .scopes
                .get_mut(&entry.scope)
                .ok_or_else(|| no_effect("replaying the shred log", "key_scopes"))?;
            if row.entries.iter().any(|known| known.scope_seq == entry.scope_seq || known.entry_id == entry.entry_id) {
                return Err(no_effect("replaying the shred log", "shred_entries"));
            }
            row.entries.push(entry.clone());
            row.entries.sort_by_key(|entry| entry.scope_seq);
        }
        Ok(())
    }

    async fn lock_scopes(&mut self, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        let tables = self.0.write()?;
        for scope in scopes {
            tables.scopes.entry(scope.clone()).or_insert_with(new_scope);
        }
        let wanted: BTreeSet<&KeyScope> = scopes.iter().collect();
        Ok(wanted.into_iter().filter_map(|scope| scope_record(tables, scope)).collect())
    }

    async fn data_keys_of(&mut self, scope: &KeyScope) -> Result<Vec<DataKeyRecord>> {
        let tables = self.0.read()?;
        let row: Option<&ScopeRow> = tables.scopes.get(scope);
        Ok(row.into_iter().flat_map(|row| &row.keys).filter_map(|key_id| key_record(&tables, *key_id)).collect())
    }

    async fn destroy_by_id(&mut self, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        let tables = self.0.write()?;
        let mut destroyed = 0;
        for key_id in key_ids {
            if let Some(row) = tables.data_keys.get_mut(key_id).filter(|row| row.wrapped_key.is_some()) {
                let row = Arc::make_mut(row);
                (row.wrapped_key, row.info.shredded_at) = (None, Some(at));
                destroyed += 1;
            }
        }
        Ok(destroyed)
    }

    async fn insert_tombstone(&mut self, scope: &KeyScope, key: &DestroyedKey, at: OffsetDateTime) -> Result<()> {
        let tables = self.0.write()?;
        let row = tables.scopes.get_mut(scope).ok_or_else(|| no_effect("replaying the shred log", "key_scopes"))?;
        row.keys.push(key.key_id);
        let info = KeyInfo {
            key_id: key.key_id,
            version: key.version,
            kek_id: key.kek_id,
            created_at: key.created_at,
            shredded_at: Some(at),
        };
        let new = DataKeyRow { scope: scope.clone(), info, wrapped_key: None, wrapped_at: key.created_at };
        tables.data_keys.insert(key.key_id, Arc::new(new));
        let keys = &tables.data_keys;
        row.keys.sort_by_key(|key_id| keys.get(key_id).map(|row| row.info.version));
        Ok(())
    }

    async fn set_scope(&mut self, to: &ScopeSetting<'_>) -> Result<bool> {
        let row = self.0.write()?.scopes.get_mut(to.scope);
        let set = |row: &mut ScopeRow| {
            (row.state, row.generation, row.due, row.active) = (to.state, to.generation, to.due, to.active);
        };
        Ok(row.map(set).is_some())
    }
}
