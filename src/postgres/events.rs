//! Events in PostgreSQL.

mod append;
mod batch;
mod beside_keys;
mod filtered;
mod heads_first;
mod insert;
mod jsonb;
mod rows;
mod seal_index;
mod statements;
mod tables;

pub use tables::PostgresTables;

use crate::error::{Error, Result, SetUpFault, StorageFault};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NewEvent,
    Stream, VersionRange,
};
use crate::sql::errors::postgres::violated_columns;
use crate::sql::events::{self, Filtered, Written};
use crate::sql::{event_database as database, migrations, query};
use crate::store::{BesideKeys, EventStore, SealIndex};
use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection};
use statements::Statements;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// How often an append without an expected version tries again when others append to its stream, before it reports a
/// collision.
const ATTEMPTS: u32 = 100;

const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("../../migrations/postgres/events/0001_events.sql")),
    ("indexes", include_str!("../../migrations/postgres/events/0002_indexes.sql")),
];

/// The migrations of the index of seals, which is optional. Their bookkeeping table is named after its table.
const SEAL_INDEX: [(&str, &str); 1] =
    [("seal index", include_str!("../../migrations/postgres/seal_index/0001_seal_index.sql"))];

/// Events in a PostgreSQL database (15 or newer), in the tables of eventsalsa/store, so that an existing database can
/// be wrapped as it is. If other programs write to the same tables, configure the order in which they write:
/// [`PostgresTables::heads_first`].
///
/// An append is one statement. A conflict of versions does not abort the caller's transaction. Under `REPEATABLE READ`
/// and `SERIALIZABLE`, PostgreSQL reports some conflicts as serialization failures instead. These are
/// [`Error::Collision`]: try again in a new transaction.
///
/// Positions come from a sequence: see [`EventStore::read_events`] for the rule that readers of the log must follow.
/// Statements are prepared once per connection. Behind PgBouncer in transaction mode, let it track them
/// (`max_prepared_statements`, PgBouncer 1.21). `PgConnectOptions::statement_cache_capacity(0)` alone does not help:
/// the driver still names every statement. If a statement was lost, the error is [`SetUpFault::PooledStatements`].
/// `docs/operations.md` describes other set-ups that work.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    tables: Arc<PostgresTables>,
    sql: Arc<Statements>,
    /// The statements that also check or read keys.
    beside: beside_keys::Made,
}

impl Default for PostgresStore {
    fn default() -> Self {
        Self::over(PostgresTables::default())
    }
}

impl PostgresStore {
    /// The store over the tables `events` and `aggregate_heads`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store over tables of these names.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if a name is not made of letters, digits and
    /// `_`, is longer than 32 bytes, or is used twice.
    pub fn with_tables(tables: PostgresTables) -> Result<Self> {
        tables.check()?;
        Ok(Self::over(tables))
    }

    /// A store over tables whose names were checked.
    fn over(tables: PostgresTables) -> Self {
        Self { sql: Arc::new(Statements::new(&tables)), tables: Arc::new(tables), beside: Arc::default() }
    }

    /// Creates the event tables or brings them up to date. It also creates their schema if one is configured and
    /// missing, and the [index of seals](crate::store::SealIndex) if the store keeps one. It is idempotent.
    ///
    /// It is for a new store only: a database of eventsalsa/store has event tables, and needs the key tables only. The
    /// bookkeeping table is named after the events table. This takes an advisory lock of the session, so pass a direct
    /// connection, not one through PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::TablesExist`], [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`].
    pub async fn migrate(&self, connection: &mut PgConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.tables.events);
        let fill = |sql: &str| self.tables.fill(sql);
        migrations::run(connection, self.tables.schema.as_deref(), &bookkeeping, &MIGRATIONS, fill).await?;
        if self.tables.index_seals { self.make(connection).await } else { Ok(()) }
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        let sql = self.tables.fill(&migrations::text(&MIGRATIONS));
        if self.tables.index_seals { format!("{sql}\n{}", self.seal_index_sql()) } else { sql }
    }

    /// The SQL that makes the [index of seals](crate::store::SealIndex) alone, for stores whose tables were not made by
    /// [`migrate`](Self::migrate), and for teams that have a migration tool of their own.
    #[must_use]
    pub fn seal_index_sql(&self) -> String {
        self.tables.fill(&migrations::text(&SEAL_INDEX))
    }

    /// The statements by name, so that their plans can be read.
    #[cfg(feature = "internals")]
    pub(crate) fn statements(&self) -> Vec<(&'static str, Arc<str>)> {
        self.sql.all()
    }

    /// The aggregate's last version.
    async fn head(&self, tx: &mut PgConnection, aggregate: &AggregateRef) -> Result<Option<AggregateVersion>> {
        let (head, last): (i64, i64) = sqlx::query_as(AssertSqlSafe(Arc::clone(&self.sql.head)))
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .fetch_one(tx)
            .await
            .map_err(database("looking up an aggregate's version"))?;
        if last > head {
            return Err(Error::Storage(StorageFault::InvalidRow {
                what: "the head of an aggregate",
                problem: "is behind its last event",
            }));
        }
        (head > 0).then(|| head.try_into()).transpose()
    }

    /// The error of an append that a unique constraint refused.
    fn violation(&self, source: sqlx::Error) -> Error {
        let versions = [&self.tables.aggregate_type, &self.tables.aggregate_id, &self.tables.aggregate_version];
        // PostgreSQL quotes names that are not in lower case.
        let own = |column: &str| column == "event_id" || versions.iter().any(|own| *own == column.trim_matches('"'));
        match violated_columns(&source) {
            Some("global_position") => Error::SetUp(SetUpFault::PositionTaken { source: source.into() }),
            // Another transaction appended an event of the same id, or the same version, at the same time. The next
            // attempt will see it.
            None => Error::Collision { source: Some(source.into()) },
            Some(columns) if columns.split(", ").any(own) => Error::Collision { source: Some(source.into()) },
            // The constraint is not this crate's, so trying again would not help.
            Some(_) => database("appending events")(source),
        }
    }

    async fn known_id(&self, tx: &mut PgConnection, ids: &[Uuid]) -> Result<Option<Uuid>> {
        sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.known_id)))
            .bind(ids)
            .fetch_optional(tx)
            .await
            .map_err(database("looking up an event id"))
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    type Tx = PgConnection;

    async fn append(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        let appended = self.append_if(tx, aggregate, expected, events, None).await?;
        appended.ok_or(Error::Collision { source: None })
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        events::read_stream(&self.sql.read_stream, tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut PgConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let filtered = self.sql.log.filtered(filter);
        let sql = filtered.as_ref().map_or(&self.sql.log.all, |filtered| filtered.sql);
        let mut read = query(sql).bind(after.get()).bind(i64::from(limit));
        if let Some(Filtered { types, and, .. }) = filtered {
            // Each name is looked for once, even if the filter repeats it.
            read = read.bind(types.iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
            read = and.into_iter().fold(read, Query::bind);
        }
        let rows = read.fetch_all(tx).await.map_err(database("reading the log"))?;
        events::page(&rows, after, limit)
    }

    async fn latest_global_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.last_position)))
            .fetch_one(tx)
            .await
            .map_err(database("reading the last position"))?;
        last.try_into()
    }

    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = PgConnection>> {
        Some(self)
    }
}
