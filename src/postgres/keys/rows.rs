//! The rows of PostgreSQL's key tables that operators change.

use super::PostgresKeys;
use super::store::{columns, query};
use crate::error::Result;
use crate::keys::names::{KekId, KeyId, KeyScope, following};
use crate::keys::{
    DataKeyRecord, DueScope, KekRecord, KekState, KekUsage, KeyRewrap, KeyRows, KeyStore, KeyTable, KeyWork,
    KeyWrapping, ListedScope, LogDisagreement, LogHead, NewDataKey, RestoredScopes, ScopeRecord, ScopeState,
    SealedEntry,
};
use crate::kms::WrappedKek;
use crate::sql::keys::{data_key, due_scope, kek, kek_usage, listed_scope, restored, scope_name};
use crate::sql::{SqlRow, key_database as database, own_transaction};
use crate::store::TableWork;
use async_trait::async_trait;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// How many scopes the statement that lists them returns at most.
const AT_A_TIME: u32 = 1_000;

#[async_trait]
impl KeyTable for PostgresKeys {
    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()> {
        own_transaction::run(connection, operation, async |tx| work.run(&mut Rows { keys: self, tx }).await).await
    }

    async fn transact(
        &self,
        connection: &mut PgConnection,
        operation: &'static str,
        work: &mut dyn TableWork<PgConnection>,
    ) -> Result<()> {
        own_transaction::run(connection, operation, async |tx| work.run(tx).await).await
    }

    async fn kek_usage(&self, tx: &mut PgConnection) -> Result<Vec<KekUsage>> {
        let rows = query(&self.sql.kek_usage).fetch_all(tx).await.map_err(database("counting data keys"))?;
        rows.iter().map(kek_usage).collect()
    }

    async fn scopes_from(&self, tx: &mut PgConnection, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        let (mut from, mut left) = (from.clone(), limit);
        let mut found: Vec<ListedScope> = Vec::new();
        while left > 0 {
            let wanted = left.min(AT_A_TIME);
            let rows = query(&self.sql.scopes_from)
                .bind(from.kind())
                .bind(from.id())
                .bind(i64::from(wanted))
                .fetch_all(&mut *tx)
                .await
                .map_err(database("listing key scopes"))?;
            for row in &rows {
                found.push(listed_scope(row)?);
            }
            left -= wanted;
            match found.last() {
                Some(last) if rows.len() as u64 == u64::from(wanted) => from = following(&last.scope),
                _ => break,
            }
        }
        Ok(found)
    }

    async fn restored_scopes(&self, tx: &mut PgConnection, limit: u32) -> Result<RestoredScopes> {
        let rows = query(&self.sql.restored_scopes).bind(i64::from(limit.max(1))).fetch_all(tx).await;
        restored(&rows.map_err(database("looking for restored keys"))?)
    }

    async fn due_scopes(
        &self,
        tx: &mut PgConnection,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        let rows = query(&self.sql.due_scopes)
            .bind(by)
            .bind(after.map(|after| after.due))
            .bind(after.map(|after| after.scope.kind()))
            .bind(after.map(|after| after.scope.id()))
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await
            .map_err(database("looking for scheduled shreds"))?;
        rows.iter().map(due_scope).collect()
    }

    async fn held_scopes(&self, tx: &mut PgConnection, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        let rows = query(&self.sql.held_scopes)
            .bind(after.map(KeyScope::kind))
            .bind(after.map(KeyScope::id))
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await
            .map_err(database("looking for holds"))?;
        rows.iter().map(scope_name).collect()
    }

    async fn log_head(&self, tx: &mut PgConnection) -> Result<LogHead> {
        self.read_log_head(tx).await
    }

    async fn log_entries(&self, tx: &mut PgConnection, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        self.read_log_entries(tx, after, limit).await
    }

    async fn log_disagreements(&self, tx: &mut PgConnection, limit: u32) -> Result<Vec<LogDisagreement>> {
        self.read_log_disagreements(tx, limit).await
    }
}

/// The rows within a transaction.
pub(super) struct Rows<'t> {
    pub(super) keys: &'t PostgresKeys,
    pub(super) tx: &'t mut PgConnection,
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
        let before = self.keys.begin_waiting(self.tx).await?;
        let row = query(&self.keys.sql.lock_kek)
            .bind(kek_id.0)
            .fetch_optional(&mut *self.tx)
            .await
            .map_err(database("locking a key-encryption key"))?;
        self.keys.end_waiting(self.tx, before).await?;
        row.as_ref().map(kek).transpose()
    }

    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool> {
        let inserted = query(&self.keys.sql.insert_kek)
            .bind(kek.kek_id.0)
            .bind(&kek.partition)
            .bind(&kek.provider)
            .bind(&kek.wrapped.master_key_id)
            .bind(&kek.wrapped.ciphertext)
            .bind(kek.created_at)
            .bind(kek.wrapped_at)
            .execute(&mut *self.tx)
            .await
            .map_err(database("inserting a key-encryption key"))?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool> {
        let changed = query(&self.keys.sql.change_kek_state)
            .bind(kek_id.0)
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
            .bind(old.kek_id.0)
            .bind(&old.wrapped.master_key_id)
            .bind(&old.wrapped.ciphertext)
            .bind(provider)
            .bind(&wrapped.master_key_id)
            .bind(&wrapped.ciphertext)
            .bind(at)
            .execute(&mut *self.tx)
            .await
            .map_err(database("moving a key-encryption key"))?;
        Ok(changed.rows_affected() == 1)
    }

    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64> {
        let failed = || database("counting data keys");
        // This is one look into the index. The count below reads all entries of the key.
        let any = query(&self.keys.sql.any_key_of_kek).bind(kek_id.0).fetch_optional(&mut *self.tx).await;
        if any.map_err(failed())?.is_none() {
            return Ok(0);
        }
        let row = query(&self.keys.sql.count_keys_of_kek).bind(kek_id.0).fetch_one(&mut *self.tx).await;
        Ok(row.map_err(failed())?.number(0)?.unsigned_abs())
    }

    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        // Key-encryption keys are read one after the other, because each is one range of the index.
        let mut keys: Vec<DataKeyRecord> = Vec::new();
        for kek_id in kek_ids {
            let rows = query(&self.keys.sql.lock_live_keys)
                .bind(kek_id.0)
                .bind(after.map_or(Uuid::nil(), |key_id| key_id.0))
                .bind(i64::from(limit))
                .fetch_all(&mut *self.tx)
                .await
                .map_err(database("locking data keys"))?;
            // The state of the scope is not read here.
            keys.extend(rows.iter().map(|row| data_key(row, ScopeState::Live)).collect::<Result<Vec<_>>>()?);
        }
        keys.sort_unstable_by_key(|key| key.key_id);
        keys.truncate(limit as usize);
        Ok(keys)
    }

    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>> {
        let rows = query(&self.keys.sql.rewrap_keys)
            .bind(keys.iter().map(|rewrap| rewrap.key.key_id.0).collect::<Vec<_>>())
            .bind(keys.iter().map(|rewrap| rewrap.key.wrapped_key.as_deref()).collect::<Vec<_>>())
            .bind(keys.iter().map(|rewrap| rewrap.new.wrapped_key.as_slice()).collect::<Vec<_>>())
            .bind(to.0)
            .bind(at)
            .fetch_all(&mut *self.tx)
            .await
            .map_err(database("rewrapping data keys"))?;
        rows.iter().map(|row| Ok(KeyWrapping { key_id: KeyId(row.id(0)?), wrapped_key: row.bytes(1)? })).collect()
    }

    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool> {
        // The transaction that inserts the scope also inserts its key. Others wait for it here, and then insert
        // nothing.
        let (kinds, ids) = columns(std::slice::from_ref(&key.scope));
        let created = query(&self.keys.sql.create_scopes)
            .bind(kinds)
            .bind(ids)
            .execute(&mut *self.tx)
            .await
            .map_err(database("inserting the first key of a scope"))?;
        if created.rows_affected() == 0 {
            return Ok(false);
        }
        self.keys.insert(self.tx, std::slice::from_ref(key)).await.map(|()| true)
    }

    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        Ok(self.keys.look(self.tx, std::slice::from_ref(scope)).await?.pop())
    }
}
