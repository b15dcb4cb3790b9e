//! The rows of SQLite's events, for maintenance.

use super::{LAST_POSITION, SqliteStore};
use crate::error::{Error, EventFault, Result, SetUpFault};
use crate::event::{GlobalPosition, NOT_JSON, PersistedEvent};
use crate::sql::{
    SqlRow, check_stored, event_database as database, events, in_transaction, not_in_transaction, own_transaction,
};
use crate::sqlite::{id_text, to_text};
use crate::store::event_table::{
    EventTable, HEADER_START, HEADER_WITHIN, PayloadReplacement, PositionRange, StoredCount, StoredQuery,
    TableLocation, TableWork, check_insert,
};
use async_trait::async_trait;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, query::Query};

impl SqliteStore {
    /// Does a payload start with a header? As [`starts_with_header`](crate::store::starts_with_header) says. Of an
    /// empty one, SQLite would say neither yes nor no.
    fn with_header() -> String {
        let mut rest = format!("CAST(substr(payload, 1, {HEADER_WITHIN}) AS TEXT)");
        let tests = HEADER_START.map(|token| {
            let start = format!("ltrim({}, char(32, 9, 10, 13))", std::mem::take(&mut rest));
            rest = format!("substr({start}, {})", token.len() + 1);
            format!("substr({start}, 1, {}) = '{token}'", token.len())
        });
        format!("coalesce({}, false)", tests.join(" AND "))
    }

    fn maintain(&self, sql: &str) -> Query<'static, Sqlite, SqliteArguments> {
        sqlx::query(AssertSqlSafe(self.fill(&sql.replace("{with_header}", &Self::with_header()))))
    }
}

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
        let row = self.maintain(LAST_POSITION).fetch_one(tx).await;
        let row = row.map_err(|source| match source.as_database_error() {
            Some(error) if error.message().starts_with("no such table") => {
                Error::SetUp(SetUpFault::NoEventTables { of: "database", table: self.events.clone() })
            }
            _ => database("reading the last position")(source),
        })?;
        row.number(0)?.try_into()
    }

    async fn count_events(&self, tx: &mut SqliteConnection, range: PositionRange) -> Result<Vec<StoredCount>> {
        let sql = r#"SELECT event_type, coalesce(event_version, 0) AS event_version, {with_header} AS with_header, count(*), min(global_position), max(global_position),
                   min(created_at), max(created_at)
               FROM "{events}" WHERE global_position > ?1 AND global_position <= ?2 GROUP BY 1, 2, 3"#;
        let rows = self.maintain(sql).bind(range.after.get()).bind(range.end()).fetch_all(tx).await;
        rows.map_err(database("counting events"))?.iter().map(events::stored_count).collect()
    }

    async fn stored_events(&self, tx: &mut SqliteConnection, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let versions = query.versions.iter().map(|(name, version)| (name.as_str(), version.get())).collect::<Vec<_>>();
        // A payload's length is known without fetching it.
        let sql = r#"SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position IN (
               SELECT global_position FROM (
               SELECT global_position, bytes, sum(bytes) OVER (ORDER BY global_position) AS so_far FROM (
               SELECT global_position, length(payload) AS bytes FROM "{events}" WHERE global_position > ?1 AND global_position <= ?2
               AND (?3 IS NULL OR EXISTS (SELECT 1 FROM json_each(?3) AS v WHERE v.value ->> 0 = event_type AND v.value ->> 1 = coalesce(event_version, 0)))
               AND NOT (?4 AND {with_header})
               ORDER BY global_position LIMIT ?5)) WHERE so_far <= ?6 OR so_far = bytes)
               ORDER BY global_position"#;
        let rows = self
            .maintain(sql)
            .bind(query.range.after.get())
            .bind(query.range.end())
            .bind((!versions.is_empty()).then(|| json(&versions)).transpose()?)
            .bind(query.without_header)
            .bind(i64::from(query.limit))
            .bind(i64::try_from(query.max_bytes).unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn stored_events_at(
        &self,
        tx: &mut SqliteConnection,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        let positions = json(&positions.iter().map(|position| position.get()).collect::<Vec<_>>())?;
        let sql = r#"SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position IN (SELECT value FROM json_each(?1)) ORDER BY global_position"#;
        let rows = self.maintain(sql).bind(positions).fetch_all(tx).await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn replace_payloads(
        &self,
        tx: &mut SqliteConnection,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        const OPERATION: &str = "replacing payloads";
        in_transaction(tx, OPERATION)?;
        // What is replaced is plaintext. Copies that were left behind before can only be vacuumed away.
        sqlx::query("PRAGMA secure_delete = ON")
            .execute(&mut *tx)
            .await
            .map_err(database("switching secure deletion on"))?;
        let mut replaced = Vec::with_capacity(replacements.len());
        for replacement in replacements {
            let sql =
                r#"UPDATE "{events}" SET payload = ?1 WHERE global_position = ?2 AND event_id = ?3 AND payload = ?4"#;
            let done = self
                .maintain(sql)
                .bind(replacement.new.clone())
                .bind(replacement.position.get())
                .bind(id_text(replacement.event_id))
                .bind(replacement.old.clone())
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
        let (batch, payloads) = batch(events)?;
        let known = self.maintain(
            r#"SELECT event_id FROM "{events}" WHERE event_id IN (SELECT value ->> 4 FROM json_each(?1)) LIMIT 1"#,
        );
        if let Some(row) = known.bind(&batch).fetch_optional(&mut *tx).await.map_err(database(OPERATION))? {
            return Err(Error::DuplicateEventId { event_id: row.id(0)? });
        }
        let sql = r#"INSERT INTO "{events}" (global_position, aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
                   event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at)
               SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4, e.value ->> 5, e.value ->> 6,
                   coalesce(substr(?2, 1 + (e.value ->> 7), e.value ->> 8), x''),
                   e.value ->> 9, e.value ->> 10, e.value ->> 11, e.value ->> 12, e.value ->> 13
               FROM json_each(?1) AS e ORDER BY e.key"#;
        let inserted =
            self.maintain(sql).bind(&batch).bind(payloads).execute(&mut *tx).await.map_err(database(OPERATION))?;
        check_stored(usize::try_from(inserted.rows_affected()).unwrap_or(usize::MAX), events.len(), OPERATION)?;
        // The trigger took the last one inserted. Where positions do not ascend with versions, that is another one.
        let heads = r#"UPDATE "{heads}" AS h SET aggregate_version = (
                   SELECT max(e.aggregate_version) FROM "{events}" AS e WHERE (e.aggregate_type, e.aggregate_id) = (h.aggregate_type, h.aggregate_id))
               WHERE (aggregate_type, aggregate_id) IN (SELECT value ->> 1, value ->> 2 FROM json_each(?1))"#;
        self.maintain(heads).bind(batch).execute(tx).await.map_err(database(OPERATION))?;
        Ok(())
    }

    /// Who writes gets its positions after all that are committed, because nobody else writes meanwhile.
    async fn settled_position(&self, connection: &mut SqliteConnection) -> Result<GlobalPosition> {
        not_in_transaction(connection, "looking for the settled position")?;
        self.last_position(connection).await
    }

    /// A transaction that may write locks every file that the connection has open. Databases in memory have no names,
    /// and connections may share one: they are all taken for the same.
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
                // Attached in memory, or of this connection alone.
                None => {}
            }
        }
        Ok(Some(TableLocation::Files(files)))
    }
}

/// What a file is known by, whatever links lead to it. What is no file of this system is known by its name.
fn identity(file: String) -> String {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(&file) {
        use std::os::unix::fs::MetadataExt;
        return format!("device {} file {}", metadata.dev(), metadata.ino());
    }
    std::fs::canonicalize(&file).map_or(file, |path| path.to_string_lossy().into_owned())
}

/// The events as one JSON text, and their payloads as one blob that it points into.
fn batch(events: &[PersistedEvent]) -> Result<(String, Vec<u8>)> {
    let mut payloads = Vec::with_capacity(events.iter().map(|event| event.payload.len()).sum());
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let metadata = event.metadata.as_ref().map(|metadata| std::str::from_utf8(metadata));
        let metadata = metadata.transpose().map_err(|_| Error::Event {
            event_id: event.event_id,
            fault: EventFault::InvalidMetadata { problem: NOT_JSON },
        })?;
        rows.push(serde_json::json!([
            event.global_position.get(),
            event.aggregate.aggregate_type(),
            event.aggregate.aggregate_id(),
            event.aggregate_version.get(),
            id_text(event.event_id),
            event.stored_type.as_str(),
            event.stored_version.get(),
            payloads.len(),
            event.payload.len(),
            event.trace_id,
            event.correlation_id,
            event.causation_id,
            metadata,
            to_text(event.created_at),
        ]));
        payloads.extend_from_slice(&event.payload);
    }
    Ok((json(&rows)?, payloads))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::database("writing a list", source))
}
