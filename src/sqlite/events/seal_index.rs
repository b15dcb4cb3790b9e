//! The index of seals beside SQLite's events.

use super::batch::json;
use super::{SEAL_INDEX, SqliteStore};
use crate::error::Result;
use crate::event::{GlobalPosition, PersistedEvent};
use crate::keys::names::KeyId;
use crate::sql::{SqlRow, event_database as database, events, in_transaction, migrations, query};
use crate::sqlite::id_text;
use crate::store::event_table::{PositionRange, StoredQuery};
use crate::store::seal_index::{IndexedSeal, SealIndex, SealIndexState};
use async_trait::async_trait;
use sqlx::SqliteConnection;
use uuid::Uuid;

pub(super) const STATE: &str = r#"SELECT index_id, complete_up_to, last_event FROM "{sealed_events}_mark""#;

/// A row may be left over from an event that is gone, so a row that exists is no error.
pub(super) const ADD: &str = r#"
    INSERT OR IGNORE INTO "{sealed_events}" (global_position, key_id)
    SELECT value ->> 0, value ->> 1 FROM json_each(?1)"#;

pub(super) const COMPLETE: &str = r#"
    UPDATE "{sealed_events}_mark" SET complete_up_to = ?2, last_event = ?3
    WHERE index_id = ?1 AND complete_up_to <= ?2"#;

pub(super) const NEW_MARK: &str =
    r#"UPDATE "{sealed_events}_mark" SET index_id = ?1, complete_up_to = 0, last_event = NULL"#;

pub(super) const EMPTY: &str = r#"DELETE FROM "{sealed_events}""#;

/// Selects the positions of these keys (?1) in a range, up to a limit (?4).
pub(super) const POSITIONS: &str = r#"
    SELECT DISTINCT s.global_position FROM json_each(?1) AS key
    CROSS JOIN "{sealed_events}" AS s INDEXED BY "idx_{sealed_events}_key"
        ON s.key_id = key.value AND s.global_position > ?2 AND s.global_position <= ?3
    ORDER BY s.global_position LIMIT ?4"#;

/// Reads the page of events without a row.
pub(super) const EVENTS_WITHOUT: &str = r#"
    SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position IN (
        SELECT global_position FROM (
            SELECT global_position, bytes, sum(bytes) OVER (ORDER BY global_position) AS so_far FROM (
                SELECT e.global_position, length(e.payload) AS bytes FROM "{events}" AS e
                WHERE e.global_position > ?1 AND e.global_position <= ?2
                AND NOT EXISTS (SELECT 1 FROM "{sealed_events}" AS s WHERE s.global_position = e.global_position)
                ORDER BY e.global_position LIMIT ?3
            )
        ) WHERE so_far <= ?4 OR so_far = bytes
    )
    ORDER BY global_position"#;

impl SqliteStore {
    async fn has_seal_index(&self, connection: &mut SqliteConnection) -> Result<bool> {
        let found = sqlx::query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")
            .bind(format!("{}_mark", self.names.sealed_events))
            .fetch_optional(connection)
            .await;
        Ok(found.map_err(database("looking for the index of seals"))?.is_some())
    }

    /// Adds rows to an index that must be there.
    pub(super) async fn write_seals(&self, tx: &mut SqliteConnection, seals: &[IndexedSeal]) -> Result<()> {
        let row = |position: i64| move |key: &KeyId| (position, id_text(key.0));
        let rows: Vec<_> = seals.iter().flat_map(|seal| seal.keys.iter().map(row(seal.position.get()))).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let added = query(&self.sql.seals.add).bind(json(&rows)?).execute(tx).await;
        added.map(drop).map_err(database("adding to the index of seals"))
    }
}

#[async_trait]
impl SealIndex for SqliteStore {
    type Tx = SqliteConnection;

    async fn state(&self, connection: &mut SqliteConnection) -> Result<Option<SealIndexState>> {
        if !self.has_seal_index(connection).await? {
            return Ok(None);
        }
        let row = query(&self.sql.seals.state).fetch_optional(connection).await;
        let row = row.map_err(database("reading the mark of the index of seals"))?;
        row.map(|row| {
            let (complete_up_to, last_event) = (row.number(1)?.try_into()?, row.optional_id(2)?);
            Ok(SealIndexState { id: row.id(0)?, complete_up_to, last_event })
        })
        .transpose()
    }

    async fn make(&self, connection: &mut SqliteConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.names.sealed_events);
        migrations::run(connection, None, &bookkeeping, &SEAL_INDEX, |sql| self.names.fill(sql)).await
    }

    async fn empty(&self, tx: &mut SqliteConnection) -> Result<()> {
        const OPERATION: &str = "emptying the index of seals";
        in_transaction(tx, OPERATION)?;
        let marked = query(&self.sql.seals.new_mark).bind(id_text(Uuid::now_v7())).execute(&mut *tx).await;
        marked.map_err(database(OPERATION))?;
        query(&self.sql.seals.empty).execute(tx).await.map(drop).map_err(database(OPERATION))
    }

    async fn add(&self, tx: &mut SqliteConnection, seals: &[IndexedSeal]) -> Result<()> {
        in_transaction(tx, "adding to the index of seals")?;
        if seals.is_empty() || !self.has_seal_index(tx).await? {
            return Ok(());
        }
        self.write_seals(tx, seals).await
    }

    async fn complete(
        &self,
        tx: &mut SqliteConnection,
        id: Uuid,
        up_to: GlobalPosition,
        last_event: Uuid,
    ) -> Result<bool> {
        const OPERATION: &str = "moving the mark of the index of seals";
        in_transaction(tx, OPERATION)?;
        let moved = query(&self.sql.seals.complete)
            .bind(id_text(id))
            .bind(up_to.get())
            .bind(id_text(last_event))
            .execute(tx)
            .await;
        Ok(moved.map_err(database(OPERATION))?.rows_affected() == 1)
    }

    async fn positions(
        &self,
        tx: &mut SqliteConnection,
        keys: &[KeyId],
        range: PositionRange,
        limit: u32,
    ) -> Result<Vec<GlobalPosition>> {
        let rows = query(&self.sql.seals.positions)
            .bind(json(&keys.iter().map(|key| id_text(key.0)).collect::<Vec<_>>())?)
            .bind(range.after.get())
            .bind(range.end())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await;
        rows.map_err(database("reading the index of seals"))?.iter().map(|row| row.number(0)?.try_into()).collect()
    }

    async fn events_without(&self, tx: &mut SqliteConnection, asked: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let rows = query(&self.sql.seals.events_without)
            .bind(asked.range.after.get())
            .bind(asked.range.end())
            .bind(i64::from(asked.limit))
            .bind(i64::try_from(asked.max_bytes).unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await;
        events::events(&rows.map_err(database("reading events that are not in the index of seals"))?)
    }
}
