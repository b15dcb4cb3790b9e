//! The rows of a [`MemoryDb`](crate::memory::MemoryDb)'s keys that operators change.

use super::log::{disagreements, head, sealed};
use super::{MemoryKeys, active, insert, key_record, new_scope, scope_record};
use crate::error::{Error, Result, TransactionFault};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DueScope, KekRecord, KekState, KekUsage, KeyRewrap, KeyRows, KeyTable, KeyWork, KeyWrapping,
    ListedScope, LogDisagreement, LogHead, NewDataKey, RestoredScopes, ScopeAction, ScopeRecord, ScopeState,
    SealedEntry,
};
use crate::kms::WrappedKek;
use crate::memory::{DataKeyRow, MemoryTx, Tables};
use crate::store::TableWork;
use async_trait::async_trait;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use time::OffsetDateTime;

#[async_trait]
impl KeyTable for MemoryKeys {
    async fn in_transaction(
        &self,
        connection: &mut MemoryTx,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()> {
        if connection.is_writing() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation }));
        }
        let mut tx = connection.begin_another();
        work.run(&mut Rows(&mut tx)).await?;
        tx.commit()
    }

    async fn transact(
        &self,
        connection: &mut MemoryTx,
        operation: &'static str,
        work: &mut dyn TableWork<MemoryTx>,
    ) -> Result<()> {
        if connection.is_writing() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation }));
        }
        let mut tx = connection.begin_another();
        work.run(&mut tx).await?;
        tx.commit()
    }

    async fn kek_usage(&self, tx: &mut MemoryTx) -> Result<Vec<KekUsage>> {
        let tables = tx.read()?;
        let usage_of = |kek: &KekRecord| KekUsage {
            kek: kek.clone(),
            live_keys: live_keys(&tables, kek.kek_id).count() as u64,
            oldest_wrap: live_keys(&tables, kek.kek_id).map(|(_, key)| key.wrapped_at).min(),
        };
        let mut usage: Vec<KekUsage> = tables.keks.values().map(usage_of).collect();
        usage.sort_by_key(|usage| (usage.kek.created_at, usage.kek.kek_id));
        Ok(usage)
    }

    async fn scopes_from(&self, tx: &mut MemoryTx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        let tables = tx.read()?;
        let listed = tables.scopes.range(from.clone()..).take(limit as usize).map(|(scope, row)| {
            let newest = row.keys.last().and_then(|key_id| tables.data_keys.get(key_id)).map(|key| &key.info);
            ListedScope {
                scope: scope.clone(),
                state: row.state,
                generation: row.generation,
                last_version: newest.map(|key| key.version),
                kek_id: newest.map(|key| key.kek_id),
            }
        });
        Ok(listed.collect())
    }

    async fn restored_scopes(&self, tx: &mut MemoryTx, limit: u32) -> Result<RestoredScopes> {
        let tables = tx.read()?;
        let restored = tables.scopes.iter().filter(|(_, row)| {
            let shredded = row.state == ScopeState::Shredded
                || row.entries.last().is_some_and(|entry| entry.state == ScopeState::Shredded);
            let is_live = |key_id: &KeyId| tables.data_keys.get(key_id).is_some_and(|key| key.wrapped_key.is_some());
            shredded && row.keys.iter().any(is_live)
        });
        let mut restored: Vec<KeyScope> = restored.map(|(scope, _)| scope.clone()).collect();
        let count = restored.len() as u64;
        restored.truncate(limit.max(1) as usize);
        Ok(RestoredScopes { count, first: restored })
    }

    async fn due_scopes(
        &self,
        tx: &mut MemoryTx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        let tables = tx.read()?;
        let due =
            tables.scopes.iter().filter_map(|(scope, row)| Some(DueScope { due: row.due?, scope: scope.clone() }));
        let mut due: Vec<DueScope> =
            due.filter(|due| by.is_none_or(|by| due.due <= by) && after.is_none_or(|after| due > after)).collect();
        due.sort_unstable();
        due.truncate(limit as usize);
        Ok(due)
    }

    async fn held_scopes(&self, tx: &mut MemoryTx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        let tables = tx.read()?;
        let held = tables.scopes.iter().filter(|(scope, row)| {
            after.is_none_or(|after| *scope > after)
                && row.entries.iter().any(|entry| entry.action == ScopeAction::Hold)
        });
        let mut held: Vec<KeyScope> = held.map(|(scope, _)| scope.clone()).collect();
        held.sort_unstable();
        held.truncate(limit as usize);
        Ok(held)
    }

    async fn log_head(&self, tx: &mut MemoryTx) -> Result<LogHead> {
        Ok(head(&*tx.read()?))
    }

    async fn log_entries(&self, tx: &mut MemoryTx, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        Ok(sealed(&*tx.read()?, after, limit))
    }

    async fn log_disagreements(&self, tx: &mut MemoryTx, limit: u32) -> Result<Vec<LogDisagreement>> {
        Ok(disagreements(&*tx.read()?, limit))
    }
}

/// The rows within a transaction.
pub(super) struct Rows<'t>(pub(super) &'t mut MemoryTx);

#[async_trait]
impl KeyRows for Rows<'_> {
    async fn active_kek(&mut self, partition: &str) -> Result<Option<KekRecord>> {
        Ok(active(&*self.0.read()?, partition).cloned())
    }

    async fn kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        Ok(self.0.read()?.keks.get(&kek_id).cloned())
    }

    async fn lock_kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        // There is one lock for all.
        self.0.lock()?;
        self.kek(kek_id).await
    }

    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool> {
        let tables = self.0.write()?;
        let vacant = active(tables, &kek.partition).is_none();
        if vacant {
            tables.keks.insert(kek.kek_id, kek.clone());
        }
        Ok(vacant)
    }

    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool> {
        let found = self.0.write()?.keks.get_mut(&kek_id).filter(|kek| kek.state == from);
        Ok(found.map(|kek| kek.state = to).is_some())
    }

    async fn change_kek_wrapping(
        &mut self,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        let found = self.0.write()?.keks.get_mut(&old.kek_id).filter(|kek| kek.wrapped == old.wrapped);
        let change = |kek: &mut KekRecord| {
            (kek.provider, kek.wrapped, kek.wrapped_at) = (provider.to_owned(), wrapped.clone(), at);
        };
        Ok(found.map(change).is_some())
    }

    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64> {
        Ok(live_keys(&*self.0.read()?, kek_id).count() as u64)
    }

    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        self.0.lock()?;
        let tables = self.0.read()?;
        let of_keks = kek_ids.iter().flat_map(|kek_id| live_keys(&tables, *kek_id));
        let mut found: Vec<KeyId> =
            of_keks.map(|(key_id, _)| key_id).filter(|key_id| after.is_none_or(|after| *key_id > after)).collect();
        found.sort_unstable();
        found.truncate(limit as usize);
        Ok(found.into_iter().filter_map(|key_id| key_record(&tables, key_id)).collect())
    }

    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>> {
        let tables = self.0.write()?;
        if tables.keks.get(&to).is_none_or(|kek| kek.state == KekState::Retired) {
            return Ok(Vec::new());
        }
        let mut written = Vec::with_capacity(keys.len());
        for KeyRewrap { key, new } in keys {
            let is_as_read =
                |row: &&mut Arc<DataKeyRow>| row.wrapped_key.is_some() && row.wrapped_key == key.wrapped_key;
            if let Some(row) = tables.data_keys.get_mut(&key.key_id).filter(is_as_read) {
                let row = Arc::make_mut(row);
                (row.wrapped_key, row.info.kek_id, row.wrapped_at) = (Some(new.wrapped_key.clone()), to, at);
                written.push(new.clone());
            }
        }
        Ok(written)
    }

    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool> {
        let tables = self.0.write()?;
        let Entry::Vacant(scope) = tables.scopes.entry(key.scope.clone()) else { return Ok(false) };
        scope.insert(new_scope());
        insert(tables, key).map(|()| true)
    }

    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        Ok(scope_record(&*self.0.read()?, scope))
    }
}

fn live_keys(tables: &Tables, kek_id: KekId) -> impl Iterator<Item = (KeyId, &DataKeyRow)> {
    let keys = tables.data_keys.iter().map(|(key_id, key)| (*key_id, &**key));
    keys.filter(move |(_, key)| key.info.kek_id == kek_id && key.wrapped_key.is_some())
}
