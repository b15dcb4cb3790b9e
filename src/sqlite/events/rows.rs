//! The rows of SQLite's events, for maintenance.

use super::batch::{Batch, json};
use super::{SqliteStore, Written};
use crate::error::{Error, Result, SetUpFault};
use crate::event::{GlobalPosition, PersistedEvent};
use crate::sql::{
    SqlRow, check_stored, event_database as database, events, in_transaction, not_in_transaction, own_transaction,
    query,
};
use crate::sqlite::id_text;
use crate::store::event_table::{
    EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableLocation, TableWork, check_insert,
};
use crate::store::seal_index::SealIndex;
use async_trait::async_trait;
use sqlx::SqliteConnection;

#[async_trait]
impl EventTable for SqliteStore {
    type Tx = SqliteConnection;

    async fn in_transaction(
        &self,
        connection: &mut SqliteConnection,
        work: &mut dyn TableWork<SqliteConnection>,
    ) -> Result<()> {
        const OPERATION: &str = "maintenance";
        own_transaction::run(connection, OPERATION, async |tx| work.run(tx).await).await
    }

    async fn last_position(&self, tx: &mut SqliteConnection) -> Result<GlobalPosition> {
        let row = query(&self.sql.last_position).fetch_one(tx).await;
        let row = row.map_err(|source| match source.as_database_error() {
            Some(error) if error.message().starts_with("no such table") => {
                Error::SetUp(SetUpFault::NoEventTables { of: "database", table: self.names.events.clone() })
            }
            _ => database("reading the last position")(source),
        })?;
        row.number(0)?.try_into()
    }

    async fn count_events(&self, tx: &mut SqliteConnection, range: PositionRange) -> Result<Vec<StoredCount>> {
        events::count(&self.sql.count_events, tx, range).await
    }

    async fn stored_events(&self, tx: &mut SqliteConnection, asked: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let versions = asked.versions.iter().map(|(name, version)| (name.as_str(), version.get())).collect::<Vec<_>>();
        let rows = query(&self.sql.stored_events)
            .bind(asked.range.after.get())
            .bind(asked.range.end())
            .bind((!versions.is_empty()).then(|| json(&versions)).transpose()?)
            .bind(asked.without_header)
            .bind(i64::from(asked.limit))
            .bind(i64::try_from(asked.max_bytes).unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn stored_events_at(
        &self,
        tx: &mut SqliteConnection,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        events::read_at(&self.sql.stored_events_at, tx, positions).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut SqliteConnection,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        const OPERATION: &str = "replacing payloads";
        in_transaction(tx, OPERATION)?;
        // The replaced payloads are plaintext, so SQLite must overwrite them. Older copies in the file go with a VACUUM
        // only.
        sqlx::query("PRAGMA secure_delete = ON")
            .execute(&mut *tx)
            .await
            .map_err(database("switching secure deletion on"))?;
        let mut replaced = Vec::with_capacity(replacements.len());
        for replacement in replacements {
            let done = query(&self.sql.replace_payload)
                .bind(replacement.new.clone())
                .bind(replacement.position.get())
                .bind(id_text(replacement.event_id))
                .bind(replacement.old.clone())
                .bind(replacement.metadata.as_ref().map(|metadata| text_of(&metadata.new)))
                .bind(replacement.metadata.as_ref().map(|metadata| text_of(&metadata.old)))
                .execute(&mut *tx)
                .await;
            if done.map_err(database(OPERATION))?.rows_affected() == 1 {
                replaced.push(replacement.position);
            }
        }
        Ok(replaced)
    }

    async fn insert_events(&self, tx: &mut SqliteConnection, events: &[PersistedEvent]) -> Result<()> {
        const OPERATION: &str = "inserting stored events";
        in_transaction(tx, OPERATION)?;
        check_insert(self.last_position(tx).await?, events)?;
        let batch = Batch::new(events.iter().map(Written::stored))?;
        let known = query(&self.sql.known_id).bind(batch.json()?).fetch_optional(&mut *tx).await;
        if let Some(row) = known.map_err(database(OPERATION))? {
            return Err(Error::DuplicateEventId { event_id: row.id(0)? });
        }
        let places = events.iter().map(|event| {
            let aggregate = &event.aggregate;
            let place = (aggregate.aggregate_type(), aggregate.aggregate_id(), event.aggregate_version.get());
            (event.global_position.get(), place.0, place.1, place.2)
        });
        let rows = json(&places.zip(&batch.rows).collect::<Vec<_>>())?;
        let inserted = query(&self.sql.insert).bind(&rows).bind(batch.payloads).execute(&mut *tx).await;
        let inserted = inserted.map_err(database(OPERATION))?.rows_affected();
        check_stored(usize::try_from(inserted).unwrap_or(usize::MAX), events.len(), OPERATION)?;
        query(&self.sql.move_heads).bind(rows).execute(tx).await.map_err(database(OPERATION))?;
        Ok(())
    }

    /// The last position is settled: one transaction writes at a time, so new positions always come after all committed
    /// ones.
    async fn settled_position(&self, connection: &mut SqliteConnection) -> Result<GlobalPosition> {
        not_in_transaction(connection, "looking for the settled position")?;
        self.last_position(connection).await
    }

    /// The location is every file that the connection has open, because a transaction that may write locks them all.
    /// Databases in memory have no names, and connections may share one, so all of them count as the same.
    async fn location(&self, connection: &mut SqliteConnection) -> Result<Option<TableLocation>> {
        let rows = sqlx::query("PRAGMA database_list")
            .fetch_all(connection)
            .await
            .map_err(database("looking where the events are"))?;
        let mut files = Vec::with_capacity(rows.len());
        for row in &rows {
            match row.optional_text(2)?.filter(|file| !file.is_empty()) {
                Some(file) => files.push(identity(file.to_owned())),
                None if row.text(1)? == "main" => files.push("memory".to_owned()),
                // This database is attached in memory, or is private to this connection.
                None => {}
            }
        }
        Ok(Some(TableLocation::Files(files)))
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = SqliteConnection>> {
        Some(self)
    }
}

/// The identity of a file, which is the same for all links to it. If it is not a file of this system, its name is its
/// identity.
fn identity(file: String) -> String {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(&file) {
        use std::os::unix::fs::MetadataExt;
        return format!("device {} file {}", metadata.dev(), metadata.ino());
    }
    std::fs::canonicalize(&file).map_or(file, |path| path.to_string_lossy().into_owned())
}

/// Metadata as SQLite has them: they are JSON, and so text.
fn text_of(metadata: &[u8]) -> String {
    String::from_utf8_lossy(metadata).into_owned()
}
