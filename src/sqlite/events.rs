//! Events in SQLite.

mod filtered;
mod rows;

use crate::error::{Error, Result};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, EventType, EventVersion, ExpectedVersion,
    GlobalPosition, NOT_JSON, NewEvent, Part, PersistedEvent, Stream, VersionRange, aggregate, check_append,
};
use crate::sql::{check_name, check_stored, event_database as database, in_transaction};
use crate::sqlite::{column, from_text, is_unique_violation, migrate, migration, to_text, uuid};
use crate::store::EventStore;
use async_trait::async_trait;
use filtered::{ReadLog, is_missing_index};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, SqliteConnection};
use std::sync::Arc;

const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("../../migrations/sqlite/events/0001_events.sql")),
    ("indexes", include_str!("../../migrations/sqlite/events/0002_indexes.sql")),
];

/// What [`persisted`] reads.
const COLUMNS: &str = "global_position, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, \
    event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at";

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
    /// [`Error::InvalidText`] if a name is not made of letters, digits and `_`.
    pub fn with_tables(events: &str, heads: &str) -> Result<Self> {
        check_name("the table name", events)?;
        check_name("the table name", heads)?;
        Ok(Self::over(events, heads))
    }

    /// The names were checked.
    fn over(events: &str, heads: &str) -> Self {
        let fill = |sql: &str| Arc::<str>::from(sql.replace("{columns}", COLUMNS).replace("{events}", events));
        Self {
            // One statement, whatever the size of the batch. SQLite collects the SELECT's rows before it
            // inserts any, because the table has a trigger.
            append: format!(
                r#"INSERT INTO "{events}" (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version,
                       payload, trace_id, correlation_id, causation_id, metadata, created_at)
                   SELECT ?1, ?2, head.version + 1 + e.key, e.value ->> 0, e.value ->> 1, e.value ->> 2,
                       coalesce(substr(?4, 1 + (e.value ->> 3), e.value ->> 4), x''),
                       e.value ->> 5, e.value ->> 6, e.value ->> 7, e.value ->> 8, e.value ->> 9
                   FROM (SELECT coalesce(max(aggregate_version), 0) AS version FROM "{heads}"
                         WHERE aggregate_type = ?1 AND aggregate_id = ?2) AS head
                   CROSS JOIN json_each(?3) AS e
                   WHERE ?5 IS NULL OR head.version = ?5
                   ORDER BY e.key
                   RETURNING global_position, aggregate_version"#
            )
            .into(),
            head: format!(r#"SELECT max(aggregate_version) FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2"#).into(),
            known_id: format!(r#"SELECT event_id FROM "{events}" WHERE event_id IN (SELECT value ->> 0 FROM json_each(?1)) LIMIT 1"#)
                .into(),
            read_stream: format!(
                r#"SELECT {COLUMNS} FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2
                   AND aggregate_version >= ?3 AND aggregate_version <= ?4 ORDER BY aggregate_version"#
            )
            .into(),
            read_log: ReadLog::new(fill),
            last_position: format!(r#"SELECT coalesce(max(global_position), 0) FROM "{events}""#).into(),
            events: events.to_owned(),
            heads: heads.to_owned(),
        }
    }

    /// Makes the event tables, or brings them up to date, and switches the database to write-ahead
    /// logging. Idempotent. The bookkeeping is in a table named after the events table.
    ///
    /// # Errors
    /// [`Error::InTransaction`], [`Error::Collision`] (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection) -> Result<()> {
        let migrations = (1..).zip(MIGRATIONS).map(|(number, (name, sql))| migration(number, name, self.fill(sql)));
        migrate(connection, format!("_{}_migrations", self.events), migrations.collect()).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.fill(&MIGRATIONS.map(|(_, sql)| sql).join("\n"))
    }

    /// A SQL text with the names filled in.
    fn fill(&self, sql: &str) -> String {
        sql.replace("{events}", &self.events).replace("{heads}", &self.heads)
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
        let known: Option<String> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.known_id)))
            .bind(batch)
            .fetch_optional(&mut *tx)
            .await
            .map_err(database("looking up an event id"))?;
        Ok(match known {
            Some(event_id) => Error::DuplicateEventId { event_id: uuid(&event_id)? },
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
        check_append(aggregate, events)?;
        in_transaction(tx, "appending")?;
        let (batch, payloads) = batch(events)?;
        let expected_head = match expected {
            ExpectedVersion::Any => None,
            ExpectedVersion::NoStream => Some(0),
            ExpectedVersion::Exact(version) => Some(version.get()),
        };
        let rows = sqlx::query_as::<_, (i64, i64)>(AssertSqlSafe(Arc::clone(&self.append)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(&batch)
            .bind(payloads)
            .bind(expected_head)
            .fetch_all(&mut *tx)
            .await;
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) if is_unique_violation(&error) => {
                return Err(self.explain_violation(tx, aggregate, expected, &batch).await?);
            }
            Err(error) => return Err(database("appending events")(error)),
        };
        if rows.is_empty() {
            let actual = self.head(tx, aggregate).await?;
            if !expected.accepts(actual) {
                return Err(Error::VersionConflict { aggregate: aggregate.clone(), expected, actual });
            }
        }
        check_stored(rows.len(), events.len(), "appending events")?;
        // RETURNING promises no order.
        rows.sort_unstable_by_key(|(_, version)| *version);
        let appended = rows.into_iter().zip(events).map(|((position, version), event)| {
            Ok(PersistedEvent::from_new(aggregate.clone(), version.try_into()?, position.try_into()?, event.clone()))
        });
        Ok(Appended { events: appended.collect::<Result<_>>()? })
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
        let events = rows.iter().map(|row| persisted(row, aggregate.clone())).collect::<Result<Vec<_>>>()?;
        let last_version = events.last().map(|event| event.aggregate_version);
        Ok(Stream { aggregate: aggregate.clone(), events, last_version })
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
        let rows = rows.map_err(database("reading the log"))?;
        let events = log(&rows)?;
        let next = events.last().map_or(after, |event| event.global_position);
        let scanned = u32::try_from(events.len()).unwrap_or(limit);
        Ok(EventPage { events, scanned, next })
    }

    async fn latest_global_position(&self, tx: &mut SqliteConnection) -> Result<GlobalPosition> {
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.last_position)))
            .fetch_one(tx)
            .await
            .map_err(database("reading the last position"))?;
        last.try_into()
    }
}

/// The events as one JSON text, and their payloads as one blob that it points into.
fn batch(events: &[NewEvent]) -> Result<(String, Vec<u8>)> {
    let mut payloads = Vec::with_capacity(events.iter().map(|event| event.payload.len()).sum());
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let metadata = event.metadata.as_ref().map(|metadata| std::str::from_utf8(metadata));
        rows.push((
            event.event_id.hyphenated().to_string(),
            event.event_type.as_str(),
            event.event_version.get(),
            payloads.len(),
            event.payload.len(),
            &event.trace_id,
            &event.correlation_id,
            &event.causation_id,
            metadata.transpose().map_err(|_| Error::InvalidMetadata { event_id: event.event_id, problem: NOT_JSON })?,
            to_text(event.created_at),
        ));
        payloads.extend_from_slice(&event.payload);
    }
    let rows = serde_json::to_string(&rows)
        .map_err(|source| Error::Database { operation: "writing a batch", source: source.into() })?;
    Ok((rows, payloads))
}

/// Rows of any aggregates.
fn log(rows: &[SqliteRow]) -> Result<Vec<PersistedEvent>> {
    let mut events: Vec<PersistedEvent> = Vec::with_capacity(rows.len());
    for row in rows {
        let (aggregate_type, aggregate_id): (&str, &str) = (column(row, 1)?, column(row, 2)?);
        let same = events
            .last()
            .map(|last| &last.aggregate)
            .filter(|last| last.aggregate_type() == aggregate_type && last.aggregate_id() == aggregate_id);
        let aggregate = same.cloned().unwrap_or_else(|| aggregate(aggregate_type, aggregate_id));
        events.push(persisted(row, aggregate)?);
    }
    Ok(events)
}

fn persisted(row: &SqliteRow, aggregate: AggregateRef) -> Result<PersistedEvent> {
    let event_type = EventType::from(column::<&str>(row, 5)?);
    let position = GlobalPosition::try_from(column::<i64>(row, 0)?)?;
    let event_version = u32::try_from(column::<Option<i64>>(row, 6)?.unwrap_or(0))
        .map_err(|_| Error::InvalidEvent { position, what: "event_version", problem: "is negative or too large" })?;
    Ok(PersistedEvent {
        aggregate,
        aggregate_version: column::<i64>(row, 3)?.try_into()?,
        global_position: position,
        event_id: uuid(column(row, 4)?)?,
        stored_type: event_type.clone(),
        event_type,
        stored_version: EventVersion::new(event_version),
        event_version: EventVersion::new(event_version),
        payload: column(row, 7)?,
        trace_id: column(row, 8)?,
        correlation_id: column(row, 9)?,
        causation_id: column(row, 10)?,
        metadata: column::<Option<&str>>(row, 11)?.map(|metadata| metadata.as_bytes().to_vec()),
        created_at: from_text(column(row, 12)?, "created_at")?,
        part: Part::WHOLE,
        redacted: Vec::new(),
    })
}
