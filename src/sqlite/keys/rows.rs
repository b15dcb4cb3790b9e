//! The rows of SQLite's key tables that operators change.
//!
//! Such a transaction holds the write lock from its start on, which takes the place of locks on rows.

use super::SqliteKeys;
use super::store::{json, overwrite_freed, query};
use crate::error::Result;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DueScope, KekRecord, KekState, KekUsage, KeyRewrap, KeyRows, KeyStore, KeyTable, KeyWork,
    KeyWrapping, ListedScope, LogDisagreement, LogHead, NewDataKey, RestoredScopes, ScopeRecord, SealedEntry,
};
use crate::kms::WrappedKek;
use crate::sql::keys::{data_key_of_scope, due_scope, kek_usage, listed_scope, restored, scope_name};
use crate::sql::{SqlRow, key_database as database, own_transaction};
use crate::sqlite::{id_text, to_text};
use crate::store::TableWork;
use async_trait::async_trait;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

#[async_trait]
impl KeyTable for SqliteKeys {
    async fn in_transaction(
        &self,
        connection: &mut SqliteConnection,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()> {
        own_transaction::run(connection, operation, async |tx| {
            overwrite_freed(tx).await?;
            work.run(&mut Rows { keys: self, tx }).await
        })
        .await
    }

    async fn transact(
        &self,
        connection: &mut SqliteConnection,
        operation: &'static str,
        work: &mut dyn TableWork<SqliteConnection>,
    ) -> Result<()> {
        own_transaction::run(connection, operation, async |tx| {
            overwrite_freed(tx).await?;
            work.run(tx).await
        })
        .await
    }

    async fn kek_usage(&self, tx: &mut SqliteConnection) -> Result<Vec<KekUsage>> {
        let rows = query(&self.sql.kek_usage).fetch_all(tx).await.map_err(database("counting data keys"))?;
        rows.iter().map(kek_usage).collect()
    }

    async fn scopes_from(&self, tx: &mut SqliteConnection, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        let rows = query(&self.sql.scopes_from)
            .bind(from.kind())
            .bind(from.id())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await
            .map_err(database("listing key scopes"))?;
        rows.iter().map(listed_scope).collect()
    }

    async fn restored_scopes(&self, tx: &mut SqliteConnection, limit: u32) -> Result<RestoredScopes> {
        let rows = query(&self.sql.restored_scopes).bind(i64::from(limit.max(1))).fetch_all(tx).await;
        restored(&rows.map_err(database("looking for restored keys"))?)
    }

    async fn due_scopes(
        &self,
        tx: &mut SqliteConnection,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        let rows = query(&self.sql.due_scopes)
            .bind(by.map(to_text))
            .bind(after.map(|after| after.due).map(to_text))
            .bind(after.map(|after| after.scope.kind()))
            .bind(after.map(|after| after.scope.id()))
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await
            .map_err(database("looking for scheduled shreds"))?;
        rows.iter().map(due_scope).collect()
    }

    async fn held_scopes(
        &self,
        tx: &mut SqliteConnection,
        after: Option<&KeyScope>,
        limit: u32,
    ) -> Result<Vec<KeyScope>> {
        let rows = query(&self.sql.held_scopes)
            .bind(after.map(KeyScope::kind))
            .bind(after.map(KeyScope::id))
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await
            .map_err(database("looking for holds"))?;
        rows.iter().map(scope_name).collect()
    }

    async fn log_head(&self, tx: &mut SqliteConnection) -> Result<LogHead> {
        self.read_log_head(tx).await
    }

    async fn log_entries(&self, tx: &mut SqliteConnection, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        self.read_log_entries(tx, after, limit).await
    }

    async fn log_disagreements(&self, tx: &mut SqliteConnection, limit: u32) -> Result<Vec<LogDisagreement>> {
        self.read_log_disagreements(tx, limit).await
    }
}

/// The rows within a transaction.
pub(super) struct Rows<'t> {
    pub(super) keys: &'t SqliteKeys,
    pub(super) tx: &'t mut SqliteConnection,
}

#[async_trait]
impl KeyRows for Rows<'_> {
    async fn active_kek(&mut self, partition: &str) -> Result<Option<KekRecord>> {
        self.keys.active_kek(self.tx, partition).await
    }

    async fn kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        Ok(self.keys.keks(self.tx, &[kek_id]).await?.pop())
    }

    async fn lock_kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        self.kek(kek_id).await
    }

    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool> {
        let inserted = query(&self.keys.sql.insert_kek)
            .bind(id_text(kek.kek_id.0))
            .bind(&kek.partition)
            .bind(&kek.provider)
            .bind(&kek.wrapped.master_key_id)
            .bind(&kek.wrapped.ciphertext)
            .bind(to_text(kek.created_at))
            .bind(to_text(kek.wrapped_at))
            .execute(&mut *self.tx)
            .await
            .map_err(database("inserting a key-encryption key"))?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool> {
        let changed = query(&self.keys.sql.change_kek_state)
            .bind(id_text(kek_id.0))
            .bind(from.as_str())
            .bind(to.as_str())
            .execute(&mut *self.tx)
            .await
            .map_err(database("changing the state of a key-encryption key"))?;
        Ok(changed.rows_affected() == 1)
    }

    async fn change_kek_wrapping(
        &mut self,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        let changed = query(&self.keys.sql.change_kek_wrapping)
            .bind(id_text(old.kek_id.0))
            .bind(&old.wrapped.master_key_id)
            .bind(&old.wrapped.ciphertext)
            .bind(provider)
            .bind(&wrapped.master_key_id)
            .bind(&wrapped.ciphertext)
            .bind(to_text(at))
            .execute(&mut *self.tx)
            .await
            .map_err(database("moving a key-encryption key"))?;
        Ok(changed.rows_affected() == 1)
    }

    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64> {
        let count = query(&self.keys.sql.count_keys_of_kek).bind(id_text(kek_id.0)).fetch_one(&mut *self.tx).await;
        Ok(count.map_err(database("counting data keys"))?.number(0)?.unsigned_abs())
    }

    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        let kek_ids: Vec<String> = kek_ids.iter().map(|kek_id| id_text(kek_id.0)).collect();
        let rows = query(&self.keys.sql.lock_live_keys)
            .bind(json(&kek_ids)?)
            .bind(after.map(|key_id| id_text(key_id.0)))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await
            .map_err(database("reading data keys"))?;
        rows.iter().map(data_key_of_scope).collect()
    }

    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>> {
        let mut written = Vec::with_capacity(keys.len());
        for KeyRewrap { key, new } in keys {
            let row = query(&self.keys.sql.rewrap_key)
                .bind(id_text(key.key_id.0))
                .bind(id_text(key.kek_id.0))
                .bind(key.wrapped_key.as_deref())
                .bind(new.wrapped_key.as_slice())
                .bind(id_text(to.0))
                .bind(to_text(at))
                .fetch_optional(&mut *self.tx)
                .await
                .map_err(database("rewrapping data keys"))?;
            match row {
                Some(row) => written.push(KeyWrapping { key_id: key.key_id, wrapped_key: row.bytes(0)? }),
                // No other transaction can write now, so trying the other keys would not help.
                None => break,
            }
        }
        Ok(written)
    }

    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool> {
        if self.keys.look(self.tx, &key.scope).await?.is_some() {
            return Ok(false);
        }
        self.keys.create_scopes(self.tx, std::slice::from_ref(&key.scope)).await?;
        self.keys.insert(self.tx, key).await.map(|()| true)
    }

    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        self.keys.look(self.tx, scope).await
    }
}
