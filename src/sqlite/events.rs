//! Events in SQLite.

mod batch;
mod filtered;
mod rows;
mod seal_index;
mod statements;

use crate::error::{Error, Result};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent,
    Stream, VersionRange, check_append,
};
use crate::sql::errors::sqlite::is_unique_violation;
use crate::sql::events::{self, Written};
use crate::sql::{SqlRow, check_name, event_database as database, fill, in_transaction, migrations, query};
use crate::store::{EventStore, IndexedSeal, SealIndex};
use async_trait::async_trait;
use batch::Batch;
use filtered::is_missing_index;
use sqlx::{AssertSqlSafe, SqliteConnection};
use statements::Statements;
use std::sync::Arc;

const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("../../migrations/sqlite/events/0001_events.sql")),
    ("indexes", include_str!("../../migrations/sqlite/events/0002_indexes.sql")),
];

/// The migrations of the index of seals, which is optional. Their bookkeeping table is named after its table.
const SEAL_INDEX: [(&str, &str); 1] =
    [("seal index", include_str!("../../migrations/sqlite/seal_index/0001_seal_index.sql"))];

/// Events in a SQLite database, in the tables of eventsalsa/store.
///
/// SQLite lets one transaction write at a time. An append's first statement writes, so a transaction that starts with
/// an append waits for its turn. Begin a transaction that reads first with `begin_with("BEGIN IMMEDIATE")`. Otherwise
/// its append fails with a retryable [`Error::Collision`] if another transaction wrote in between.
///
/// End a transaction with the driver's `commit()` or `rollback()`. A transaction can also end without the driver: by a
/// `ROLLBACK` that is sent as SQL, or by SQLite itself after an error such as a full disk. To this crate, such a
/// transaction looks as if it went on. Each further statement would then be committed by itself, perhaps an event
/// without the rows that belong to it. So send no `COMMIT` or `ROLLBACK` as SQL, and roll back after every
/// [`Error::Database`].
#[derive(Clone, Debug)]
pub struct SqliteStore {
    names: Names,
    index_seals: bool,
    sql: Arc<Statements>,
}

/// The names of the tables.
#[derive(Clone, Debug)]
struct Names {
    events: String,
    heads: String,
    sealed_events: String,
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

    /// A store over tables whose names were checked.
    fn over(events: &str, heads: &str) -> Self {
        let names =
            Names { events: events.to_owned(), heads: heads.to_owned(), sealed_events: "sealed_events".to_owned() };
        Self { sql: Arc::new(Statements::new(|sql| names.fill(sql).into())), names, index_seals: false }
    }

    /// Appends keep the [index of seals](crate::store::SealIndex): they write its rows in the same transaction. It is
    /// not kept by default, because it makes appends a little slower.
    ///
    /// [`migrate`](Self::migrate) then makes its tables too. An append fails while they are missing.
    #[must_use]
    pub fn index_seals(mut self) -> Self {
        self.index_seals = true;
        self
    }

    /// Sets the name of the table of the [index of seals](crate::store::SealIndex): `sealed_events` by default. Another
    /// table, with `_mark` behind this name, says up to where the index is complete. All processes must use one name,
    /// also those whose appends do not keep the index.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the name is not made of letters, digits
    /// and `_`.
    pub fn sealed_events(mut self, table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        table.clone_into(&mut self.names.sealed_events);
        self.sql = Arc::new(Statements::new(|sql| self.names.fill(sql).into()));
        Ok(self)
    }

    /// Creates the event tables or brings them up to date, and switches the database to write-ahead logging. It is
    /// idempotent. The bookkeeping table is named after the events table. If the store keeps an
    /// [index of seals](crate::store::SealIndex), its tables are made too.
    ///
    /// # Errors
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.names.events);
        migrations::run(connection, None, &bookkeeping, &MIGRATIONS, |sql| self.names.fill(sql)).await?;
        if self.index_seals { self.make(connection).await } else { Ok(()) }
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        let sql = self.names.fill(&migrations::text(&MIGRATIONS));
        if self.index_seals { format!("{sql}\n{}", self.seal_index_sql()) } else { sql }
    }

    /// The SQL that makes the [index of seals](crate::store::SealIndex) alone.
    #[must_use]
    pub fn seal_index_sql(&self) -> String {
        self.names.fill(&migrations::text(&SEAL_INDEX))
    }

    async fn head(&self, tx: &mut SqliteConnection, aggregate: &AggregateRef) -> Result<Option<AggregateVersion>> {
        let head: Option<i64> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.head)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .fetch_one(tx)
            .await
            .map_err(database("looking up an aggregate's version"))?;
        head.map(AggregateVersion::try_from).transpose()
    }

    /// Finds out which of the two unique constraints an append violated.
    async fn explain_violation(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        batch: &Batch<'_>,
    ) -> Result<Error> {
        let known = query(&self.sql.known_id)
            .bind(batch.json()?)
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
        let batch = Batch::new(events.iter().map(Written::new))?;
        let rows = sqlx::query_as::<_, (i64, i64)>(AssertSqlSafe(Arc::clone(&self.sql.append)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(batch.json()?)
            .bind(&batch.payloads)
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
        let appended = events::appended(rows, aggregate, events, OPERATION)?;
        if self.index_seals {
            let seals = events.iter().zip(&appended.events).filter(|(event, _)| !event.sealed_under().is_empty());
            let seals: Vec<IndexedSeal> = seals
                .map(|(event, stored)| IndexedSeal {
                    position: stored.global_position,
                    keys: event.sealed_under().to_vec(),
                })
                .collect();
            self.write_seals(tx, &seals).await?;
        }
        Ok(appended)
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        events::read_stream(&self.sql.read_stream, tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut SqliteConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let (log, after_position) = (&self.sql.log, after.get());
        let rows = match filtered::indexed(log, filter, after_position, limit) {
            Some(read) => match read.fetch_all(&mut *tx).await {
                Err(error) if is_missing_index(&error) => {
                    filtered::walk(log, filter, after_position, limit).fetch_all(tx).await
                }
                rows => rows,
            },
            None => filtered::walk(log, filter, after_position, limit).fetch_all(tx).await,
        };
        events::page(&rows.map_err(database("reading the log"))?, after, limit)
    }

    async fn latest_global_position(&self, tx: &mut SqliteConnection) -> Result<GlobalPosition> {
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.last_position)))
            .fetch_one(tx)
            .await
            .map_err(database("reading the last position"))?;
        last.try_into()
    }
}

impl Names {
    /// Fills the names into a SQL text.
    fn fill(&self, sql: &str) -> String {
        fill(sql, &|name| {
            let value = match name {
                "columns" => events::COLUMNS,
                "written" => events::WRITTEN,
                "aggregate_version" => "aggregate_version",
                "metadata" => "metadata",
                "events" => &self.events,
                "heads" => &self.heads,
                "sealed_events" => &self.sealed_events,
                _ => return None,
            };
            Some(value.to_owned())
        })
    }
}
