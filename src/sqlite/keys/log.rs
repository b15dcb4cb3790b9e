//! The shred log in SQLite.

use super::SqliteKeys;
use super::rows::Rows;
use super::store::{query, scope_list};
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
use crate::sqlite::{id_text, to_text};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

const READING: &str = "reading the shred log";
const SEALING: &str = "sealing the shred log";
const REPLAYING: &str = "replaying the shred log";

impl SqliteKeys {
    pub(super) async fn read_log_head(&self, tx: &mut SqliteConnection) -> Result<LogHead> {
        head(query(&self.sql.log_head).fetch_optional(tx).await.map_err(database(READING))?.as_ref())
    }

    pub(super) async fn read_log_entries(
        &self,
        tx: &mut SqliteConnection,
        after: u64,
        limit: u32,
    ) -> Result<Vec<SealedEntry>> {
        let rows = query(&self.sql.log_entries).bind(number(after)).bind(i64::from(limit)).fetch_all(tx).await;
        rows.map_err(database(READING))?.iter().map(sealed).collect()
    }

    pub(super) async fn read_log_disagreements(
        &self,
        tx: &mut SqliteConnection,
        limit: u32,
    ) -> Result<Vec<LogDisagreement>> {
        let rows = query(&self.sql.log_disagreements).bind(i64::from(limit.max(1))).fetch_all(tx).await;
        rows.map_err(database("comparing keys with the shred log"))?.iter().map(disagreement).collect()
    }

    /// Inserts an entry, and returns how many rows were inserted.
    pub(super) async fn add_entry(&self, tx: &mut SqliteConnection, entry: &LogEntry) -> Result<u64> {
        let recorded = query(&self.sql.add_entry)
            .bind(id_text(entry.entry_id))
            .bind(entry.scope.kind().to_owned())
            .bind(entry.scope.id().to_owned())
            .bind(entry.scope_seq)
            .bind(to_text(entry.at))
            .bind(entry.action.as_str())
            .bind(entry.state.as_str())
            .bind(entry.generation)
            .bind(keys_to_text(&entry.keys))
            .bind(entry.until.map(to_text))
            .bind(entry.about.map(id_text))
            .bind(entry.reason.clone())
            .bind(entry.actor.clone())
            .bind(entry.mac.map(|mac| id_text(mac.key_id.0)))
            .bind(entry.mac.map(|mac| mac.mac.to_vec()))
            .execute(tx)
            .await
            .map_err(database("recording an entry of the shred log"))?;
        Ok(recorded.rows_affected())
    }
}

#[async_trait]
impl LogRows for Rows<'_> {
    /// The transaction holds the write lock.
    async fn lock_log_head(&mut self) -> Result<LogHead> {
        self.keys.read_log_head(self.tx).await
    }

    async fn unsealed_entries(&mut self, after: Option<(&KeyScope, u32)>, limit: u32) -> Result<Vec<LogEntry>> {
        let (kind, id, seq) = after.map_or(("", "", 0), |(scope, seq)| (scope.kind(), scope.id(), seq));
        let rows = query(&self.keys.sql.unsealed_entries)
            .bind(kind.to_owned())
            .bind(id.to_owned())
            .bind(seq)
            .bind(i64::from(limit))
            .fetch_all(&mut *self.tx)
            .await;
        rows.map_err(database(READING))?.iter().map(entry).collect()
    }

    async fn entries_of(&mut self, scopes: &[KeyScope]) -> Result<Vec<LogEntry>> {
        let rows = query(&self.keys.sql.entries_of).bind(scope_list(scopes)?).fetch_all(&mut *self.tx).await;
        rows.map_err(database(READING))?.iter().map(entry).collect()
    }

    async fn seal_entries(&mut self, from: &LogHead, rows: &[LogRow]) -> Result<bool> {
        let Some(last) = rows.last() else { return Ok(true) };
        for row in rows {
            let marked = query(&self.keys.sql.mark_sealed).bind(id_text(row.entry_id)).execute(&mut *self.tx).await;
            let added = query(&self.keys.sql.add_log_row)
                .bind(number(row.seq))
                .bind(id_text(row.entry_id))
                .bind(row.previous_hash.to_vec())
                .bind(row.hash.to_vec())
                .bind(id_text(row.mac.key_id.0))
                .bind(row.mac.mac.to_vec());
            let marked = marked.map_err(database(SEALING))?.rows_affected();
            let added = added.execute(&mut *self.tx).await.map_err(database(SEALING))?.rows_affected();
            if (marked, added) != (1, 1) {
                return Ok(false);
            }
        }
        let moved = query(&self.keys.sql.move_log_head)
            .bind(number(from.seq))
            .bind(from.hash.to_vec())
            .bind(number(last.seq))
            .bind(last.hash.to_vec())
            .execute(&mut *self.tx)
            .await;
        Ok(moved.map_err(database(SEALING))?.rows_affected() == 1)
    }

    async fn insert_entries(&mut self, entries: &[LogEntry]) -> Result<()> {
        for entry in entries {
            if self.keys.add_entry(self.tx, entry).await? != 1 {
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
        let mut count = 0;
        for key_id in key_ids {
            let destroyed = query(&self.keys.sql.destroy_by_id)
                .bind(id_text(key_id.0))
                .bind(to_text(at))
                .execute(&mut *self.tx)
                .await;
            count += destroyed.map_err(database("destroying data keys"))?.rows_affected();
        }
        Ok(count)
    }

    async fn insert_tombstone(&mut self, scope: &KeyScope, key: &DestroyedKey, at: OffsetDateTime) -> Result<()> {
        let inserted = query(&self.keys.sql.add_tombstone)
            .bind(id_text(key.key_id.0))
            .bind(scope.kind().to_owned())
            .bind(scope.id().to_owned())
            .bind(key.version)
            .bind(id_text(key.kek_id.0))
            .bind(to_text(key.created_at))
            .bind(to_text(at))
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
            .bind(to.generation)
            .bind(to.due.map(to_text))
            .bind(to.active.map(|key_id| id_text(key_id.0)))
            .execute(&mut *self.tx)
            .await;
        Ok(set.map_err(database(REPLAYING))?.rows_affected() == 1)
    }
}
