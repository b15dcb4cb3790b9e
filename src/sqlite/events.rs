//! Events in SQLite.

mod filtered;
mod rows;

use crate::error::{Error, EventFault, Result};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NOT_JSON,
    NewEvent, Stream, VersionRange, check_append,
};
use crate::sql::errors::sqlite::is_unique_violation;
use crate::sql::{SqlRow, check_name, event_database as database, events, in_transaction, migrations};
use crate::sqlite::{id_text, to_text};
use crate::store::EventStore;
use async_trait::async_trait;
use filtered::{ReadLog, is_missing_index};
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::sync::Arc;

const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("../../migrations/sqlite/events/0001_events.sql")),
    ("indexes", include_str!("../../migrations/sqlite/events/0002_indexes.sql")),
];

/// One statement, whatever the size of the batch. SQLite collects the SELECT's rows before it inserts any, because the
/// table has a trigger.
const APPEND: &str = r#"
    INSERT INTO "{events}" (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version,
        payload, trace_id, correlation_id, causation_id, metadata, created_at)
    SELECT ?1, ?2, head.version + 1 + e.key, e.value ->> 0, e.value ->> 1, e.value ->> 2,
        coalesce(substr(?4, 1 + (e.value ->> 3), e.value ->> 4), x''),
        e.value ->> 5, e.value ->> 6, e.value ->> 7, e.value ->> 8, e.value ->> 9
    FROM (SELECT coalesce(max(aggregate_version), 0) AS version FROM "{heads}"
          WHERE aggregate_type = ?1 AND aggregate_id = ?2) AS head
    CROSS JOIN json_each(?3) AS e
    WHERE ?5 IS NULL OR head.version = ?5
    ORDER BY e.key
    RETURNING global_position, aggregate_version"#;

const LAST_POSITION: &str = r#"SELECT coalesce(max(global_position), 0) FROM "{events}""#;

/// Events in a SQLite database, in the tables of eventsalsa/store.
///
/// SQLite lets one transaction write at a time. An append's first statement writes, so a transaction that
/// starts with it waits its turn; one that has read before should be begun with
/// `begin_with("BEGIN IMMEDIATE")`, or it fails with a retryable [`Error::Collision`] when another one
/// wrote in between.
///
/// A transaction must be ended by the driver's `commit()` or `rollback()`. One that ended below it, by a
/// `ROLLBACK` sent as SQL or by SQLite itself after an error such as a full disk, looks as if it went on, and
/// can't be told from it here: each statement would then be committed by itself, an event perhaps without
/// what belongs to it. So send no `COMMIT` or `ROLLBACK` as SQL, and roll back after every
/// [`Error::Database`].
#[derive(Clone, Debug)]
pub struct SqliteStore {
    events: String,
    heads: String,
    append: Arc<str>,
    head: Arc<str>,
    known_id: Arc<str>,
    read_stream: Arc<str>,
    read_log: ReadLog,
    last_position: Arc<str>,
}

impl Default for SqliteStore {
    fn default() -> Self {
        Self::over("events", "aggregate_heads")
    }
}

impl SqliteStore {
    /// The store over the tables `events` and `aggregate_heads`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store over tables of these names.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if a name is not made of letters, digits and
    /// `_`.
    pub fn with_tables(events: &str, heads: &str) -> Result<Self> {
        check_name("the table name", events)?;
        check_name("the table name", heads)?;
        Ok(Self::over(events, heads))
    }

    /// The names were checked.
    fn over(events: &str, heads: &str) -> Self {
        let fill = |sql: &str| Arc::<str>::from(fill(sql, events, heads));
        Self {
            append: fill(APPEND),
            head: fill(
                r#"SELECT max(aggregate_version) FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2"#,
            ),
            known_id: fill(
                r#"SELECT event_id FROM "{events}" WHERE event_id IN (SELECT value ->> 0 FROM json_each(?1)) LIMIT 1"#,
            ),
            read_stream: fill(
                r#"SELECT {columns} FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2
                   AND aggregate_version >= ?3 AND aggregate_version <= ?4 ORDER BY aggregate_version"#,
            ),
            read_log: ReadLog::new(fill),
            last_position: fill(LAST_POSITION),
            events: events.to_owned(),
            heads: heads.to_owned(),
        }
    }

    /// Makes the event tables, or brings them up to date, and switches the database to write-ahead
    /// logging. Idempotent. The bookkeeping is in a table named after the events table.
    ///
    /// # Errors
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.events);
        migrations::run(connection, None, &bookkeeping, &MIGRATIONS, |sql| self.fill(sql)).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.fill(&migrations::text(&MIGRATIONS))
    }

    fn fill(&self, sql: &str) -> String {
        fill(sql, &self.events, &self.heads)
    }

    async fn head(&self, tx: &mut SqliteConnection, aggregate: &AggregateRef) -> Result<Option<AggregateVersion>> {
        let head: Option<i64> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.head)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .fetch_one(tx)
            .await
            .map_err(database("looking up an aggregate's version"))?;
        head.map(AggregateVersion::try_from).transpose()
    }

    /// Which of the two unique constraints an append violated.
    async fn explain_violation(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        batch: &str,
    ) -> Result<Error> {
        let known = sqlx::query(AssertSqlSafe(Arc::clone(&self.known_id)))
            .bind(batch)
            .fetch_optional(&mut *tx)
            .await
            .map_err(database("looking up an event id"))?;
        Ok(match known {
            Some(row) => Error::DuplicateEventId { event_id: row.id(0)? },
            None => Error::VersionConflict {
                aggregate: aggregate.clone(),
                expected,
                actual: self.head(tx, aggregate).await?,
            },
        })
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    type Tx = SqliteConnection;

    async fn append(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        const OPERATION: &str = "appending events";
        check_append(aggregate, events)?;
        in_transaction(tx, "appending")?;
        let (batch, payloads) = batch(events)?;
        let rows = sqlx::query_as::<_, (i64, i64)>(AssertSqlSafe(Arc::clone(&self.append)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(&batch)
            .bind(payloads)
            .bind(events::expected_head(expected))
            .fetch_all(&mut *tx)
            .await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) if is_unique_violation(&error) => {
                return Err(self.explain_violation(tx, aggregate, expected, &batch).await?);
            }
            Err(error) => return Err(database(OPERATION)(error)),
        };
        if rows.is_empty() {
            events::check_version(aggregate, expected, self.head(tx, aggregate).await?)?;
        }
        events::appended(rows, aggregate, events, OPERATION)
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.read_stream)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(range.from.unwrap_or(0))
            .bind(range.to.unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await
            .map_err(database("reading a stream"))?;
        events::stream(&rows, aggregate)
    }

    async fn read_events(
        &self,
        tx: &mut SqliteConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let walk = || self.read_log.walk(filter, after.get(), limit);
        let rows = match self.read_log.indexed(filter, after.get(), limit) {
            Some(read) => match read.fetch_all(&mut *tx).await {
                Err(error) if is_missing_index(&error) => walk().fetch_all(tx).await,
                rows => rows,
            },
            None => walk().fetch_all(tx).await,
        };
        events::page(&rows.map_err(database("reading the log"))?, after, limit)
    }

    async fn latest_global_position(&self, tx: &mut SqliteConnection) -> Result<GlobalPosition> {
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.last_position)))
            .fetch_one(tx)
            .await
            .map_err(database("reading the last position"))?;
        last.try_into()
    }
}

/// A SQL text with the names filled in.
fn fill(sql: &str, events: &str, heads: &str) -> String {
    sql.replace("{columns}", events::COLUMNS)
        .replace("{aggregate_version}", "aggregate_version")
        .replace("{metadata}", "metadata")
        .replace("{events}", events)
        .replace("{heads}", heads)
}

/// The events as one JSON text, and their payloads as one blob that it points into.
fn batch(events: &[NewEvent]) -> Result<(String, Vec<u8>)> {
    let mut payloads = Vec::with_capacity(events.iter().map(|event| event.payload.len()).sum());
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let metadata = event.metadata.as_ref().map(|metadata| std::str::from_utf8(metadata));
        rows.push((
            id_text(event.event_id),
            event.event_type.as_str(),
            event.event_version.get(),
            payloads.len(),
            event.payload.len(),
            &event.trace_id,
            &event.correlation_id,
            &event.causation_id,
            metadata.transpose().map_err(|_| Error::Event {
                event_id: event.event_id,
                fault: EventFault::InvalidMetadata { problem: NOT_JSON },
            })?,
            to_text(event.created_at),
        ));
        payloads.extend_from_slice(&event.payload);
    }
    let rows = serde_json::to_string(&rows)
        .map_err(|source| Error::Database { operation: "writing a batch", source: source.into() })?;
    Ok((rows, payloads))
}
