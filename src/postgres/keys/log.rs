//! The shred log in PostgreSQL.

use super::PostgresKeys;
use super::rows::Rows;
use super::store::{columns, query};
use crate::error::{Result, no_effect};
use crate::keys::entry::keys_to_text;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{
    DataKeyRecord, DestroyedKey, KeyStore, LogDisagreement, LogEntry, LogHead, LogRow, LogRows, ScopeLock, ScopeRecord,
    ScopeSetting, ScopeState, SealedEntry,
};
use crate::sql::key_database as database;
use crate::sql::keys::log::{disagreement, head, number, sealed};
use crate::sql::keys::{data_key, entry};
use async_trait::async_trait;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

const READING: &str = "reading the shred log";
const SEALING: &str = "sealing the shred log";
const REPLAYING: &str = "replaying the shred log";

impl PostgresKeys {
    pub(super) async fn read_log_head(&self, tx: &mut PgConnection) -> Result<LogHead> {
        head(query(&self.sql.log_head).fetch_optional(tx).await.map_err(database(READING))?.as_ref())
    }

    pub(super) async fn read_log_entries(
        &self,
        tx: &mut PgConnection,
        after: u64,
        limit: u32,
    ) -> Result<Vec<SealedEntry>> {
        let rows = query(&self.sql.log_entries).bind(number(after)).bind(i64::from(limit)).fetch_all(tx).await;
        rows.map_err(database(READING))?.iter().map(sealed).collect()
    }

    pub(super) async fn read_log_disagreements(
        &self,
        tx: &mut PgConnection,
        limit: u32,
    ) -> Result<Vec<LogDisagreement>> {
        let rows = query(&self.sql.log_disagreements).bind(i64::from(limit.max(1))).fetch_all(tx).await;
        rows.map_err(database("comparing keys with the shred log"))?.iter().map(disagreement).collect()
    }
}

#[async_trait]
impl LogRows for Rows<'_> {
    async fn lock_log_head(&mut self) -> Result<LogHead> {
        let before = self.keys.begin_waiting(self.tx).await?;
        let locked = query(&self.keys.sql.lock_log_head).fetch_optional(&mut *self.tx).await;
        locked.map_err(database("locking the end of the shred log"))?;
        self.keys.end_waiting(self.tx, before).await?;
        self.keys.read_log_head(self.tx).await
    }

    async fn unsealed_entries(&mut self, after: Option<(&KeyScope, u32)>, limit: u32) -> Result<Vec<LogEntry>> {
        let (kind, id, seq) = after.map_or(("", "", 0), |(scope, seq)| (scope.kind(), scope.id(), seq));
        let rows = query(&self.keys.sql.unsealed_entries)
            .bind(kind.to_owned())
            .bind(id.to_owned())
            .bind(i64::from(seq))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await;
        rows.map_err(database(READING))?.iter().map(entry).collect()
    }

    async fn entries_of(&mut self, scopes: &[KeyScope]) -> Result<Vec<LogEntry>> {
        let (kinds, ids) = columns(scopes);
        let rows = query(&self.keys.sql.entries_of).bind(kinds).bind(ids).fetch_all(&mut *self.tx).await;
        rows.map_err(database(READING))?.iter().map(entry).collect()
    }

    async fn seal_entries(&mut self, from: &LogHead, rows: &[LogRow]) -> Result<bool> {
        let Some(last) = rows.last() else { return Ok(true) };
        let count = rows.len() as u64;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.entry_id).collect();
        let marked = query(&self.keys.sql.mark_sealed).bind(ids.clone()).execute(&mut *self.tx).await;
        let added = query(&self.keys.sql.add_log_rows)
            .bind(rows.iter().map(|row| number(row.seq)).collect::<Vec<_>>())
            .bind(ids)
            .bind(rows.iter().map(|row| row.previous_hash.to_vec()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.hash.to_vec()).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.mac.key_id.0).collect::<Vec<_>>())
            .bind(rows.iter().map(|row| row.mac.mac.to_vec()).collect::<Vec<_>>());
        let marked = marked.map_err(database(SEALING))?.rows_affected();
        let added = added.execute(&mut *self.tx).await.map_err(database(SEALING))?.rows_affected();
        let moved = query(&self.keys.sql.move_log_head)
            .bind(number(from.seq))
            .bind(from.hash.to_vec())
            .bind(number(last.seq))
            .bind(last.hash.to_vec())
            .execute(&mut *self.tx)
            .await;
        let moved = moved.map_err(database(SEALING))?.rows_affected();
        Ok((marked, added, moved) == (count, count, 1))
    }

    async fn insert_entries(&mut self, entries: &[LogEntry]) -> Result<()> {
        for entry in entries {
            let inserted = query(&self.keys.sql.add_entry)
                .bind(entry.entry_id)
                .bind(entry.scope.kind().to_owned())
                .bind(entry.scope.id().to_owned())
                .bind(i64::from(entry.scope_seq))
                .bind(entry.at)
                .bind(entry.action.as_str())
                .bind(entry.state.as_str())
                .bind(i64::from(entry.generation))
                .bind(keys_to_text(&entry.keys))
                .bind(entry.until)
                .bind(entry.about)
                .bind(entry.reason.clone())
                .bind(entry.actor.clone())
                .bind(entry.mac.map(|mac| mac.key_id.0))
                .bind(entry.mac.map(|mac| mac.mac.to_vec()))
                .execute(&mut *self.tx)
                .await;
            if inserted.map_err(database(REPLAYING))?.rows_affected() != 1 {
                return Err(no_effect(REPLAYING, "shred_entries"));
            }
        }
        Ok(())
    }

    async fn lock_scopes(&mut self, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        self.keys.create_scopes(self.tx, scopes).await?;
        self.keys.scopes(self.tx, scopes, ScopeLock::Update).await
    }

    async fn data_keys_of(&mut self, scope: &KeyScope) -> Result<Vec<DataKeyRecord>> {
        let rows = query(&self.keys.sql.keys_of_scope)
            .bind(scope.kind().to_owned())
            .bind(scope.id().to_owned())
            .fetch_all(&mut *self.tx)
            .await
            .map_err(database("reading data keys"))?;
        // The state of the scope is not read here.
        rows.iter().map(|row| data_key(row, ScopeState::Live)).collect()
    }

    async fn destroy_by_id(&mut self, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
        let destroyed = query(&self.keys.sql.destroy_by_id).bind(ids).bind(at).execute(&mut *self.tx).await;
        Ok(destroyed.map_err(database("destroying data keys"))?.rows_affected())
    }

    async fn insert_tombstone(&mut self, scope: &KeyScope, key: &DestroyedKey, at: OffsetDateTime) -> Result<()> {
        let inserted = query(&self.keys.sql.add_tombstone)
            .bind(key.key_id.0)
            .bind(scope.kind().to_owned())
            .bind(scope.id().to_owned())
            .bind(i64::from(key.version))
            .bind(key.kek_id.0)
            .bind(key.created_at)
            .bind(at)
            .execute(&mut *self.tx)
            .await;
        match inserted.map_err(database(REPLAYING))?.rows_affected() {
            1 => Ok(()),
            _ => Err(no_effect(REPLAYING, "data_keys")),
        }
    }

    async fn set_scope(&mut self, to: &ScopeSetting<'_>) -> Result<bool> {
        let set = query(&self.keys.sql.set_scope)
            .bind(to.scope.kind().to_owned())
            .bind(to.scope.id().to_owned())
            .bind(to.state.as_str())
            .bind(i64::from(to.generation))
            .bind(to.due)
            .bind(to.active.map(|key_id| key_id.0))
            .execute(&mut *self.tx)
            .await;
        Ok(set.map_err(database(REPLAYING))?.rows_affected() == 1)
    }
}
