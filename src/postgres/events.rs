//! Events in PostgreSQL.

mod filtered;
mod heads_first;
mod jsonb;
mod rows;

use crate::error::{Error, EventFault, InputFault, Result, SetUpFault, StorageFault};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, ExpectedVersion, GlobalPosition, NOT_JSON,
    NewEvent, Stream, VersionRange, check_append, is_json,
};
use crate::sql::errors::postgres::{NO_SUCH_CONSTRAINT, UNIQUE_VIOLATION, sql_state, violated_columns};
use crate::sql::{check_name, event_database as database, events, in_transaction, migrations, qualified};
use crate::store::EventStore;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::BTreeSet;
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// How often an append at any version makes way for others before it reports a collision.
const ATTEMPTS: u32 = 100;

const MIGRATIONS: [(&str, &str); 2] = [
    ("events", include_str!("../../migrations/postgres/events/0001_events.sql")),
    ("indexes", include_str!("../../migrations/postgres/events/0002_indexes.sql")),
];

/// One of these ids that the table has. Each is looked for by itself, through an index even where the table was empty
/// when the plan was made.
const KNOWN_ID: &str = "SELECT new.id FROM UNNEST($1::uuid[]) AS new (id),
     LATERAL (SELECT FROM {events} AS e WHERE e.event_id = new.id OFFSET 0) AS known LIMIT 1";

/// What the tables of an event store in PostgreSQL are called.
///
/// ```
/// # use eventseal::Result;
/// # use eventseal::postgres::{PostgresStore, PostgresTables};
/// # fn main() -> Result<()> {
/// let store = PostgresStore::with_tables(PostgresTables::streams().in_schema("shop").notify("shop_events"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresTables {
    schema: Option<String>,
    events: String,
    heads: String,
    aggregate_type: String,
    aggregate_id: String,
    aggregate_version: String,
    channel: Option<String>,
    heads_first: bool,
}

impl Default for PostgresTables {
    fn default() -> Self {
        Self::named("events", "aggregate_heads", ["aggregate_type", "aggregate_id", "aggregate_version"])
    }
}

impl PostgresTables {
    /// The names of eventsalsa/store 0.0.2: `events` and `aggregate_heads`, with `aggregate_type`,
    /// `aggregate_id` and `aggregate_version`. Events are written first, as all 0.0 versions do: see
    /// [`events_first`](Self::events_first).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of eventsalsa/store from 0.1 on: `events` and `stream_heads`, with `stream_type`, `stream_id` and
    /// `stream_version`. The head is written first, as these versions do: see [`heads_first`](Self::heads_first).
    #[must_use]
    pub fn streams() -> Self {
        Self::named("events", "stream_heads", ["stream_type", "stream_id", "stream_version"]).heads_first()
    }

    fn named(events: &str, heads: &str, [aggregate_type, aggregate_id, aggregate_version]: [&str; 3]) -> Self {
        Self {
            schema: None,
            events: events.to_owned(),
            heads: heads.to_owned(),
            aggregate_type: aggregate_type.to_owned(),
            aggregate_id: aggregate_id.to_owned(),
            aggregate_version: aggregate_version.to_owned(),
            channel: None,
            heads_first: false,
        }
    }

    /// In this schema, instead of where the connection's `search_path` leads.
    #[must_use]
    pub fn in_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// With another name for the table of events.
    #[must_use]
    pub fn events(mut self, table: impl Into<String>) -> Self {
        self.events = table.into();
        self
    }

    /// With another name for the table of heads, the last version of each aggregate.
    #[must_use]
    pub fn heads(mut self, table: impl Into<String>) -> Self {
        self.heads = table.into();
        self
    }

    /// With other names for the three columns that identify an event within its aggregate, in both tables.
    #[must_use]
    pub fn columns(
        mut self,
        aggregate_type: impl Into<String>,
        aggregate_id: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        (self.aggregate_type, self.aggregate_id, self.aggregate_version) =
            (aggregate_type.into(), aggregate_id.into(), version.into());
        self
    }

    /// Appends take the head row first, then insert events. eventsalsa/store writes in this order from 0.1 on, and
    /// [`streams`](Self::streams) begins with it.
    ///
    /// All writers of a table must use one order. Two that write to one stream in different orders wait for each other:
    /// PostgreSQL ends one of them as a deadlock ([`Error::Collision`](crate::Error::Collision)).
    ///
    /// In this order the head row decides, and the table of events needs no unique constraint. It may be partitioned by
    /// `global_position`, natively or by pg_partman. Such a table has no constraint that refuses an event id twice:
    /// the append looks for the ids itself. Give the table an index on `event_id`, or each append reads all of it. Two
    /// transactions that append the same id to *different* streams at the same time can both succeed there.
    #[must_use]
    pub const fn heads_first(mut self) -> Self {
        self.heads_first = true;
        self
    }

    /// Appends insert events first, then move the head. eventsalsa/store 0.0 writes in this order, and
    /// [`new`](Self::new) begins with it. See [`heads_first`](Self::heads_first) on mixing the two.
    ///
    /// In this order a unique constraint on type, id and version of the stream decides: without one, an append is
    /// [`SetUpFault::NoUniqueVersion`].
    #[must_use]
    pub const fn events_first(mut self) -> Self {
        self.heads_first = false;
        self
    }

    /// Tells this channel of every append: a `NOTIFY` that carries the last position, delivered when the
    /// transaction commits.
    #[must_use]
    pub fn notify(mut self, channel: impl Into<String>) -> Self {
        self.channel = Some(channel.into());
        self
    }

    fn check(&self) -> Result<()> {
        for table in [&self.events, &self.heads] {
            check_name("the table name", table)?;
        }
        let columns = [&self.aggregate_type, &self.aggregate_id, &self.aggregate_version];
        for column in columns {
            check_name("the column name", column)?;
        }
        if self.events == self.heads || columns[0] == columns[1] || columns[1] == columns[2] || columns[0] == columns[2]
        {
            return Err(Error::Input(InputFault::InvalidText {
                what: "a table or column name",
                problem: "is used twice: tell them apart",
            }));
        }
        self.schema.as_ref().map_or(Ok(()), |schema| check_name("the schema name", schema))?;
        self.channel.as_ref().map_or(Ok(()), |channel| check_name("the channel name", channel))
    }

    /// A SQL text with the names filled in, quoted.
    fn fill(&self, sql: &str) -> String {
        let schema = self.schema.as_deref();
        sql.replace("{events}", &qualified(schema, &self.events))
            .replace("{heads}", &qualified(schema, &self.heads))
            .replace("{events_name}", &self.events)
            .replace("{metadata}", "metadata::text")
            .replace("{aggregate_type}", &qualified(None, &self.aggregate_type))
            .replace("{aggregate_id}", &qualified(None, &self.aggregate_id))
            .replace("{aggregate_version}", &qualified(None, &self.aggregate_version))
    }
}

/// Events in a PostgreSQL database (15 or newer), in the tables of eventsalsa/store, so that an existing
/// database can be wrapped as it is. Where other programs write to the same tables, configure the order in which they
/// write: [`PostgresTables::heads_first`].
///
/// An append is one statement. A conflict of versions does not abort the caller's transaction. Under
/// `REPEATABLE READ` and `SERIALIZABLE`, PostgreSQL reports some conflicts as serialization failures instead:
/// [`Error::Collision`], to be tried again in a new transaction.
///
/// Positions come from a sequence: see [`EventStore::read_events`] on what a follower of the log must not do.
/// Statements are prepared once per connection. Behind PgBouncer in transaction mode, let it track them
/// (`max_prepared_statements`, PgBouncer 1.21). `PgConnectOptions::statement_cache_capacity(0)` alone does not help:
/// the driver still names every statement. [`SetUpFault::PooledStatements`] says when one was lost;
/// `docs/operations.md` has what else works.
#[derive(Clone, Debug)]
pub struct PostgresStore {
    tables: Arc<PostgresTables>,
    sql: Arc<Statements>,
}

#[derive(Debug)]
struct Statements {
    append: Arc<str>,
    head: Arc<str>,
    known_id: Arc<str>,
    read_stream: Arc<str>,
    read_log: Arc<str>,
    read_event_types: Arc<str>,
    read_aggregate_types: Arc<str>,
    read_both_types: Arc<str>,
    last_position: Arc<str>,
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
    /// [`InputFault::InvalidText`] if a name is not made of letters, digits and `_`, is longer than 32 bytes, or is
    /// used twice.
    pub fn with_tables(tables: PostgresTables) -> Result<Self> {
        tables.check()?;
        Ok(Self::over(tables))
    }

    /// The names were checked.
    fn over(tables: PostgresTables) -> Self {
        let fill = |sql: &str| Arc::<str>::from(tables.fill(&sql.replace("{columns}", events::COLUMNS)));
        // The first event decides: if another transaction has its version, or is about to commit it, nothing
        // is inserted, nothing raises an error, and the rest, which select from it, do nothing either.
        // Events come before the head, as eventsalsa 0.0 writes them: the other way round deadlocks with it.
        let events_first = r"
            WITH head AS (
                SELECT coalesce((SELECT h.{aggregate_version} FROM {heads} AS h
                                 WHERE h.{aggregate_type} = $1 AND h.{aggregate_id} = $2), 0) AS version
            ), first AS (
                INSERT INTO {events} ({aggregate_type}, {aggregate_id}, {aggregate_version}, event_id, event_type, event_version,
                    payload, trace_id, correlation_id, causation_id, metadata, created_at)
                SELECT $1, $2, head.version + 1, ($4::uuid[])[1], ($5::text[])[1], ($6::int[])[1], ($7::bytea[])[1],
                    ($8::text[])[1], ($9::text[])[1], ($10::text[])[1], ($11::text[])[1]::jsonb, ($12::timestamptz[])[1]
                FROM head
                WHERE ($3::bigint IS NULL OR head.version = $3)
                    AND NOT EXISTS (SELECT FROM UNNEST((SELECT $4::uuid[])) AS new (id),
                        LATERAL (SELECT FROM {events} AS e WHERE e.event_id = new.id OFFSET 0) AS known)
                ON CONFLICT ({aggregate_type}, {aggregate_id}, {aggregate_version}) DO NOTHING
                RETURNING global_position, {aggregate_version} AS version
            ), others AS (
                INSERT INTO {events} ({aggregate_type}, {aggregate_id}, {aggregate_version}, event_id, event_type, event_version,
                    payload, trace_id, correlation_id, causation_id, metadata, created_at)
                SELECT $1, $2, first.version + e.number - 1, e.event_id, e.event_type, e.event_version,
                    e.payload, e.trace_id, e.correlation_id, e.causation_id, e.metadata::jsonb, e.created_at
                FROM first, UNNEST((SELECT $4::uuid[]), (SELECT $5::text[]), (SELECT $6::int[]), (SELECT $7::bytea[]), (SELECT $8::text[]), (SELECT $9::text[]), (SELECT $10::text[]), (SELECT $11::text[]), (SELECT $12::timestamptz[])) WITH ORDINALITY
                    AS e (event_id, event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, number)
                WHERE e.number > 1
                ORDER BY e.number
                RETURNING global_position, {aggregate_version} AS version
            ), moved AS (
                INSERT INTO {heads} AS h ({aggregate_type}, {aggregate_id}, {aggregate_version}, updated_at)
                SELECT $1, $2, first.version + cardinality($4) - 1, now() FROM first
                ON CONFLICT ({aggregate_type}, {aggregate_id}) DO UPDATE
                SET {aggregate_version} = excluded.{aggregate_version}, updated_at = excluded.updated_at
            ), appended AS (
                SELECT global_position, version FROM first UNION ALL SELECT global_position, version FROM others
            )";
        let mut append = if tables.heads_first { heads_first::APPEND } else { events_first }.to_owned();
        // Where the head comes first, it may have moved though no event was stored: a row of nothing tells that from a
        // conflict.
        let from = if tables.heads_first { "moved LEFT JOIN appended ON true" } else { "appended" };
        append += &match &tables.channel {
            None => format!("SELECT global_position, version, false FROM {from}"),
            // A CTE that nothing refers to would not be run.
            Some(channel) => format!(
                ", told AS MATERIALIZED (
                    SELECT pg_notify('{channel}', max(global_position)::text) AS told FROM appended HAVING count(*) > 0
                ) SELECT global_position, version, told.told IS NULL FROM {from} LEFT JOIN told ON true"
            ),
        };
        let sql = Statements {
            append: fill(&append),
            // By an order, not by max(), for which a plan that is made for an empty table may take any index.
            head: fill(
                "SELECT coalesce((SELECT {aggregate_version} FROM {heads} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2), 0),
                     coalesce((SELECT {aggregate_version} FROM {events} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2
                               ORDER BY {aggregate_version} DESC LIMIT 1), 0)",
            ),
            known_id: fill(KNOWN_ID),
            read_stream: fill(
                "SELECT {columns} FROM {events} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2
                 AND {aggregate_version} >= $3 AND {aggregate_version} <= $4 ORDER BY {aggregate_version}",
            ),
            read_log: fill(
                "SELECT {columns}, {aggregate_type}, {aggregate_id} FROM {events} WHERE global_position > $1
                 ORDER BY global_position LIMIT $2",
            ),
            read_event_types: fill(&filtered::by("event_type", "")),
            read_aggregate_types: fill(&filtered::by("{aggregate_type}", "")),
            read_both_types: fill(&filtered::by("event_type", "AND e.{aggregate_type} = ANY ($4)")),
            last_position: fill("SELECT coalesce(max(global_position), 0) FROM {events}"),
        };
        Self { tables: Arc::new(tables), sql: Arc::new(sql) }
    }

    /// Makes the event tables, and their schema if one is configured and missing, or brings them up to date.
    /// Idempotent.
    ///
    /// For a new store only: a database of eventsalsa/store has its tables, and needs nothing but
    /// those of the keys. The bookkeeping is in a table named after the events table. Takes an advisory lock
    /// of the session, so give it a direct connection, not one through PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::TablesExist`], [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`].
    pub async fn migrate(&self, connection: &mut PgConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.tables.events);
        let fill = |sql: &str| self.tables.fill(sql);
        migrations::run(connection, self.tables.schema.as_deref(), &bookkeeping, &MIGRATIONS, fill).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.tables.fill(&migrations::text(&MIGRATIONS))
    }

    /// The statements by name, so that their plans can be read.
    #[cfg(feature = "internals")]
    pub(crate) fn statements(&self) -> Vec<(&'static str, Arc<str>)> {
        let sql = &*self.sql;
        let all = [
            ("append", &sql.append),
            ("head", &sql.head),
            ("known_id", &sql.known_id),
            ("read_stream", &sql.read_stream),
            ("read_log", &sql.read_log),
            ("read_event_types", &sql.read_event_types),
            ("read_aggregate_types", &sql.read_aggregate_types),
            ("read_both_types", &sql.read_both_types),
            ("last_position", &sql.last_position),
        ];
        all.map(|(name, sql)| (name, Arc::clone(sql))).to_vec()
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

    /// What an append means that a unique constraint refused.
    fn violation(&self, source: sqlx::Error) -> Error {
        let versions = [&self.tables.aggregate_type, &self.tables.aggregate_id, &self.tables.aggregate_version];
        // Names that are not all lower case come quoted.
        let own = |column: &str| column == "event_id" || versions.iter().any(|own| *own == column.trim_matches('"'));
        match violated_columns(&source) {
            Some("global_position") => Error::SetUp(SetUpFault::PositionTaken { source: source.into() }),
            // Another transaction appended an event of the same id, or the same version, at the same time. The next
            // attempt will see it.
            None => Error::Collision { source: Some(source.into()) },
            Some(columns) if columns.split(", ").any(own) => Error::Collision { source: Some(source.into()) },
            // Somebody else's constraint: nothing changes by trying again.
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
        const OPERATION: &str = "appending events";
        check_append(aggregate, events)?;
        in_transaction(tx, "appending")?;
        let batch = Batch::new(events)?;
        let expected_head = events::expected_head(expected);
        let mut before = None;
        for _ in 0..ATTEMPTS {
            let rows =
                sqlx::query_as::<_, (Option<i64>, Option<i64>, bool)>(AssertSqlSafe(Arc::clone(&self.sql.append)))
                    .bind(aggregate.aggregate_type())
                    .bind(aggregate.aggregate_id())
                    .bind(expected_head)
                    .bind(&batch.event_ids)
                    .bind(&batch.event_types)
                    .bind(&batch.event_versions)
                    .bind(&batch.payloads)
                    .bind(&batch.trace_ids)
                    .bind(&batch.correlation_ids)
                    .bind(&batch.causation_ids)
                    .bind(&batch.metadata)
                    .bind(&batch.created_at)
                    .fetch_all(&mut *tx)
                    .await;
            let rows = rows.map_err(|source| match sql_state(&source) {
                Some(UNIQUE_VIOLATION) => self.violation(source),
                Some(NO_SUCH_CONSTRAINT) => Error::SetUp(SetUpFault::NoUniqueVersion {
                    table: self.tables.events.clone(),
                    source: source.into(),
                }),
                _ => database(OPERATION)(source),
            })?;
            if !rows.is_empty() {
                // A head that moved without any event is a row too, of nothing.
                let rows = rows.into_iter().filter_map(|(position, version, _)| position.zip(version)).collect();
                return events::appended(rows, aggregate, events, OPERATION);
            }
            let actual = self.head(tx, aggregate).await?;
            events::check_version(aggregate, expected, actual)?;
            if let Some(event_id) = self.known_id(tx, &batch.event_ids).await? {
                return Err(Error::DuplicateEventId { event_id });
            }
            // Another transaction took the version and has committed since: the next statement sees its events. If that
            // one began where the stream still ends, nobody took the version from it.
            if before.replace(actual) == Some(actual) {
                return Err(Error::Storage(StorageFault::NoEffect {
                    operation: OPERATION,
                    table: if self.tables.heads_first { "heads" } else { "events" },
                }));
            }
        }
        Err(Error::Collision { source: None })
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.read_stream)))
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
        tx: &mut PgConnection,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let (sql, driving, also) = match (filter.event_types.as_slice(), filter.aggregate_types.as_slice()) {
            ([], []) => (&self.sql.read_log, None, None),
            (events, []) => (&self.sql.read_event_types, Some(events), None),
            ([], aggregates) => (&self.sql.read_aggregate_types, Some(aggregates), None),
            (events, aggregates) => (&self.sql.read_both_types, Some(events), Some(aggregates)),
        };
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(sql))).bind(after.get()).bind(i64::from(limit));
        if let Some(names) = driving {
            // Each name is looked for once.
            query = query.bind(names.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>());
        }
        if let Some(names) = also {
            query = query.bind(names);
        }
        let rows = query.fetch_all(tx).await.map_err(database("reading the log"))?;
        events::page(&rows, after, limit)
    }

    async fn latest_global_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        let last: i64 = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.last_position)))
            .fetch_one(tx)
            .await
            .map_err(database("reading the last position"))?;
        last.try_into()
    }
}

/// The events as one array for each column.
struct Batch<'e> {
    event_ids: Vec<Uuid>,
    event_types: Vec<&'e str>,
    event_versions: Vec<i32>,
    payloads: Vec<&'e [u8]>,
    trace_ids: Vec<Option<&'e str>>,
    correlation_ids: Vec<Option<&'e str>>,
    causation_ids: Vec<Option<&'e str>>,
    metadata: Vec<Option<&'e str>>,
    created_at: Vec<OffsetDateTime>,
}

impl<'e> Batch<'e> {
    fn new(events: &'e [NewEvent]) -> Result<Self> {
        let id = |id: &'e Option<String>| id.as_deref();
        Ok(Self {
            event_ids: events.iter().map(|event| event.event_id).collect(),
            event_types: events.iter().map(|event| event.event_type.as_str()).collect(),
            // check_append saw that it fits.
            event_versions: events
                .iter()
                .map(|event| i32::try_from(event.event_version.get()).unwrap_or(i32::MAX))
                .collect(),
            payloads: events.iter().map(|event| event.payload.as_slice()).collect(),
            trace_ids: events.iter().map(|event| id(&event.trace_id)).collect(),
            correlation_ids: events.iter().map(|event| id(&event.correlation_id)).collect(),
            causation_ids: events.iter().map(|event| id(&event.causation_id)).collect(),
            metadata: events
                .iter()
                .map(|event| metadata_as_jsonb(event.event_id, event.metadata.as_deref()))
                .collect::<Result<_>>()?,
            created_at: events.iter().map(|event| event.created_at).collect(),
        })
    }
}

/// An error of the database would abort the caller's transaction.
fn metadata_as_jsonb(event_id: Uuid, metadata: Option<&[u8]>) -> Result<Option<&str>> {
    let Some(metadata) = metadata else { return Ok(None) };
    let refused = |problem| Error::Event { event_id, fault: EventFault::InvalidMetadata { problem } };
    let text = std::str::from_utf8(metadata).ok().filter(|text| is_json(text)).ok_or(refused(NOT_JSON))?;
    jsonb::problem(text).map_or(Ok(Some(text)), |problem| Err(refused(problem)))
}
