//! The rows of PostgreSQL's events, for maintenance.

use super::{KNOWN_ID, PostgresStore, metadata_as_jsonb};
use crate::error::{Error, InputFault, Result, SetUpFault, StorageFault};
use crate::event::{GlobalPosition, PersistedEvent};
use crate::sql::errors::postgres::{UNDEFINED_TABLE, UNIQUE_VIOLATION, sql_state};
use crate::sql::own_transaction::{self, OwnTransaction as _};
use crate::sql::{SqlRow, check_stored, event_database as database, events, in_transaction, qualified};
use crate::store::event_table::{
    EventTable, HEADER_START, HEADER_WITHIN, PayloadReplacement, PositionRange, StoredCount, StoredQuery,
    TableLocation, TableWork, check_insert,
};
use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, query::Query};
use std::collections::HashSet;
use std::fmt::Write as _;
use time::OffsetDateTime;
use uuid::Uuid;

/// How long appends may be kept waiting for the sake of maintenance.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";
const VERSION_TAKEN: Error = Error::Storage(StorageFault::InvalidRow {
    what: "the aggregate version of an event to be inserted",
    problem: "is in the table already",
});

impl PostgresStore {
    /// Does a payload start with a header? As [`starts_with_header`](crate::store::starts_with_header) says. Only the
    /// first bytes are fetched of a payload that is stored out of line.
    fn with_header() -> String {
        let trim = |text: String| format!(r"ltrim({text}, '\x20090a0d'::bytea)");
        let mut rest = format!("substring(payload FROM 1 FOR {HEADER_WITHIN})");
        let tests = HEADER_START.map(|token| {
            let start = trim(std::mem::take(&mut rest));
            rest = format!("substring({start} FROM {})", token.len() + 1);
            let hex = token.bytes().fold(String::new(), |mut hex, byte| {
                // Writing to a string does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            format!(r"substring({start} FROM 1 FOR {}) = '\x{hex}'::bytea", token.len())
        });
        format!("({})", tests.join(" AND "))
    }

    fn maintain(&self, sql: &str) -> Query<'static, Postgres, PgArguments> {
        let sql = sql.replace("{columns}", events::COLUMNS).replace("{with_header}", &Self::with_header());
        sqlx::query(AssertSqlSafe(self.tables.fill(&sql)))
    }

    /// Keeps everybody else from inserting until the transaction ends. Partitions are locked with their table.
    async fn lock_out(&self, tx: &mut PgConnection, tables: &str, mode: &str, operation: &'static str) -> Result<()> {
        let before: String = sqlx::query_scalar("SELECT current_setting('lock_timeout')")
            .fetch_one(&mut *tx)
            .await
            .map_err(database(operation))?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *tx).await.map_err(database(operation))?;
        self.maintain(&format!("LOCK TABLE {tables} IN {mode} MODE"))
            .execute(&mut *tx)
            .await
            .map_err(self.failed(operation))?;
        // The caller's own statements wait as it wants them to.
        sqlx::query("SELECT set_config('lock_timeout', $1, true)")
            .bind(before)
            .execute(tx)
            .await
            .map_err(database(operation))?;
        Ok(())
    }
}

#[async_trait]
impl EventTable for PostgresStore {
    type Tx = PgConnection;

    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        work: &mut dyn TableWork<PgConnection>,
    ) -> Result<()> {
        const OPERATION: &str = "maintenance";
        own_transaction::run(connection, OPERATION, async |tx| work.run(tx).await).await
    }

    async fn last_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        let row = self.maintain("SELECT coalesce(max(global_position), 0) FROM {events}").fetch_one(tx).await;
        row.map_err(self.failed("reading the last position"))?.number(0)?.try_into()
    }

    async fn count_events(&self, tx: &mut PgConnection, range: PositionRange) -> Result<Vec<StoredCount>> {
        let sql = "SELECT event_type, event_version, with_header, count(*), min(global_position), max(global_position),
                 min(created_at), max(created_at)
             FROM (SELECT event_type, coalesce(event_version, 0) AS event_version, global_position, created_at, {with_header} AS with_header
                 FROM {events} WHERE global_position > $1 AND global_position <= $2) AS stored
             GROUP BY 1, 2, 3";
        let rows = self.maintain(sql).bind(range.after.get()).bind(range.end()).fetch_all(tx).await;
        rows.map_err(database("counting events"))?.iter().map(events::stored_count).collect()
    }

    async fn stored_events(&self, tx: &mut PgConnection, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let (types, versions): (Vec<&str>, Vec<i64>) =
            query.versions.iter().map(|(name, version)| (name.as_str(), i64::from(version.get()))).unzip();
        // A payload's length is known without fetching it.
        let sql = "SELECT {columns}, {aggregate_type}, {aggregate_id}
             FROM (SELECT *, sum(octet_length(payload)) OVER (ORDER BY global_position) AS page_bytes_so_far
             FROM (SELECT * FROM {events} WHERE global_position > $1 AND global_position <= $2
             AND (cardinality($3::text[]) = 0 OR (event_type, coalesce(event_version, 0)::bigint) IN (SELECT * FROM UNNEST($3::text[], $4::bigint[])))
             AND NOT ($5::boolean AND {with_header})
             ORDER BY global_position LIMIT $6) AS page) AS page
             WHERE page_bytes_so_far <= $7 OR page_bytes_so_far = octet_length(payload) ORDER BY global_position";
        let rows = self
            .maintain(sql)
            .bind(query.range.after.get())
            .bind(query.range.end())
            .bind(types)
            .bind(versions)
            .bind(query.without_header)
            .bind(i64::from(query.limit))
            .bind(i64::try_from(query.max_bytes).unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn stored_events_at(
        &self,
        tx: &mut PgConnection,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        let positions: Vec<i64> = positions.iter().map(|position| position.get()).collect();
        let sql = "SELECT {columns}, {aggregate_type}, {aggregate_id} FROM {events} WHERE global_position = ANY ($1) \
            ORDER BY global_position";
        let rows = self.maintain(sql).bind(positions).fetch_all(tx).await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn replace_payloads(
        &self,
        tx: &mut PgConnection,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        const OPERATION: &str = "replacing payloads";
        in_transaction(tx, OPERATION)?;
        // Locked in order first, so that two of these do not lock each other out. Who waited looks at the row anew.
        let sql = "WITH new AS (
                 SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::bytea[], $4::bytea[]) AS new (position, event_id, old, payload)
             ), locked AS (
                 SELECT e.global_position FROM {events} AS e WHERE e.global_position = ANY ($1) ORDER BY e.global_position FOR NO KEY UPDATE
             )
             UPDATE {events} AS e SET payload = new.payload FROM new, locked
             WHERE e.global_position = new.position AND locked.global_position = new.position
                 AND e.event_id = new.event_id AND e.payload = new.old
             RETURNING e.global_position";
        let rows = self
            .maintain(sql)
            .bind(replacements.iter().map(|replacement| replacement.position.get()).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.event_id).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.old.clone()).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.new.clone()).collect::<Vec<_>>())
            .fetch_all(tx)
            .await;
        rows.map_err(database(OPERATION))?.iter().map(|row| row.number(0)?.try_into()).collect()
    }

    async fn insert_events(&self, tx: &mut PgConnection, events: &[PersistedEvent]) -> Result<()> {
        const OPERATION: &str = "inserting stored events";
        in_transaction(tx, OPERATION)?;
        if events.is_empty() {
            return Ok(());
        }
        // Positions are given out within an INSERT, which holds a lock on the table that this one excludes: so none is
        // on its way, and moving the sequence takes none back. Heads are moved below: a writer that takes them first
        // must not be met half way.
        let tables = if self.tables.heads_first { "{heads}, {events}" } else { "{events}" };
        self.lock_out(tx, tables, "SHARE ROW EXCLUSIVE", OPERATION).await?;
        check_insert(self.last_position(tx).await?, events)?;
        let sequence = self.sequence(tx, OPERATION).await?;
        let batch = Batch::new(events)?;
        self.check_unknown(tx, &batch, OPERATION).await?;
        let sql = "INSERT INTO {events} (global_position, {aggregate_type}, {aggregate_id}, {aggregate_version}, event_id, event_type,
                 event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at)
             SELECT e.position, e.aggregate_type, e.aggregate_id, e.aggregate_version, e.event_id, e.event_type,
                 e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id, e.metadata::jsonb, e.created_at
             FROM UNNEST($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::text[], $7::int[], $8::bytea[],
                 $9::text[], $10::text[], $11::text[], $12::text[], $13::timestamptz[])
                 AS e (position, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version, payload,
                     trace_id, correlation_id, causation_id, metadata, created_at)
             ORDER BY e.position";
        let inserted = self
            .maintain(sql)
            .bind(batch.positions)
            .bind(&batch.aggregate_types)
            .bind(&batch.aggregate_ids)
            .bind(&batch.aggregate_versions)
            .bind(&batch.event_ids)
            .bind(batch.event_types)
            .bind(batch.event_versions)
            .bind(batch.payloads)
            .bind(batch.trace_ids)
            .bind(batch.correlation_ids)
            .bind(batch.causation_ids)
            .bind(batch.metadata)
            .bind(batch.created_at)
            .execute(&mut *tx)
            .await
            .map_err(|source| match sql_state(&source) {
                Some(UNIQUE_VIOLATION) => VERSION_TAKEN,
                _ => database(OPERATION)(source),
            })?;
        check_stored(usize::try_from(inserted.rows_affected()).unwrap_or(usize::MAX), events.len(), OPERATION)?;
        let heads = "INSERT INTO {heads} AS h ({aggregate_type}, {aggregate_id}, {aggregate_version}, updated_at)
             SELECT e.aggregate_type, e.aggregate_id, max(e.aggregate_version), now()
             FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS e (aggregate_type, aggregate_id, aggregate_version)
             GROUP BY e.aggregate_type, e.aggregate_id ORDER BY e.aggregate_type, e.aggregate_id
             ON CONFLICT ({aggregate_type}, {aggregate_id}) DO UPDATE
             SET {aggregate_version} = greatest(h.{aggregate_version}, excluded.{aggregate_version}), updated_at = excluded.updated_at";
        let heads =
            self.maintain(heads).bind(batch.aggregate_types).bind(batch.aggregate_ids).bind(batch.aggregate_versions);
        heads.execute(&mut *tx).await.map_err(database(OPERATION))?;
        self.move_sequence(tx, sequence, OPERATION).await
    }

    /// Every append inserts, and so holds a lock on the table until its transaction ends, from before it is given a
    /// position. When a lock that excludes these is had, no position is on its way.
    async fn settled_position(&self, connection: &mut PgConnection) -> Result<GlobalPosition> {
        const OPERATION: &str = "looking for the settled position";
        own_transaction::outside(connection, OPERATION).await?;
        let mut tx = Postgres::begin(connection).await.map_err(database(OPERATION))?;
        let settled = match self.lock_out(&mut tx, "{events}", "SHARE", OPERATION).await {
            // A statement of its own: its snapshot is newer than the lock.
            Ok(()) => self.last_position(&mut tx).await,
            Err(error) => Err(error),
        };
        tx.rollback().await.map_err(database(OPERATION))?;
        settled
    }

    /// The numbers of database and table are those of one server, which is told from others by the moment of its start.
    async fn location(&self, connection: &mut PgConnection) -> Result<Option<TableLocation>> {
        let sql = "SELECT concat_ws(' ', 'postgres', extract(epoch FROM pg_postmaster_start_time()), d.oid, to_regclass($1)::oid), to_regclass($1) IS NULL
             FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()";
        let row = sqlx::query(sql)
            .bind(self.table())
            .fetch_one(connection)
            .await
            .map_err(database("looking where the events are"))?;
        Ok(if row.flag(1)? { None } else { Some(TableLocation::Table(row.text(0)?.to_owned())) })
    }
}

impl PostgresStore {
    /// As `database` says, or that the table is not there.
    fn failed(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
        move |source| match sql_state(&source) {
            Some(UNDEFINED_TABLE) => Error::SetUp(SetUpFault::NoEventTables { of: "database", table: self.table() }),
            _ => database(operation)(source),
        }
    }

    /// The table of events, in its schema and quoted.
    fn table(&self) -> String {
        qualified(self.tables.schema.as_deref(), &self.tables.events)
    }

    /// Refuses ids and versions that the table has. It is locked, and may have no constraint that would refuse them.
    async fn check_unknown(&self, tx: &mut PgConnection, batch: &Batch, operation: &'static str) -> Result<()> {
        let known = self
            .maintain(KNOWN_ID)
            .bind(&batch.event_ids)
            .fetch_optional(&mut *tx)
            .await
            .map_err(database(operation))?;
        if let Some(row) = known {
            return Err(Error::DuplicateEventId { event_id: row.id(0)? });
        }
        let sql = "SELECT FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS new (type, id, version),
                 LATERAL (SELECT FROM {events} AS e WHERE e.{aggregate_type} = new.type AND e.{aggregate_id} = new.id
                     AND e.{aggregate_version} = new.version OFFSET 0) AS known LIMIT 1";
        let taken =
            self.maintain(sql).bind(&batch.aggregate_types).bind(&batch.aggregate_ids).bind(&batch.aggregate_versions);
        let taken = taken.fetch_optional(tx).await.map_err(database(operation))?;
        let versions = batch.aggregate_types.iter().zip(&batch.aggregate_ids).zip(&batch.aggregate_versions);
        let unique = versions.collect::<HashSet<_>>().len() == batch.event_ids.len();
        if taken.is_none() && unique { Ok(()) } else { Err(VERSION_TAKEN) }
    }

    /// The sequence that positions come from, quoted: an identity's, or the one that the default of the column uses,
    /// whoever owns it. It is looked for before anything is inserted: an append after that would be given a position
    /// that is taken.
    async fn sequence(&self, tx: &mut PgConnection, operation: &'static str) -> Result<String> {
        let sql = "SELECT s.oid::regclass::text FROM pg_catalog.pg_attribute AS a
             JOIN pg_catalog.pg_class AS s ON s.relkind = 'S'
             LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = to_regclass($1) AND a.attname = 'global_position' AND EXISTS (
                 SELECT FROM pg_catalog.pg_depend AS p
                 WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass AND p.refobjid = s.oid
                     OR a.attidentity <> '' AND p.classid = 'pg_class'::regclass AND p.objid = s.oid AND p.deptype = 'i'
                         AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum)";
        let found: Vec<String> =
            sqlx::query_scalar(sql).bind(self.table()).fetch_all(tx).await.map_err(database(operation))?;
        match <[String; 1]>::try_from(found) {
            Ok([sequence]) => Ok(sequence),
            // A default that names it as text, a trigger, or several of them.
            Err(_) => Err(Error::SetUp(SetUpFault::NoSequence { table: self.table() })),
        }
    }

    /// Moves the sequence of positions beyond the last one that is in the table. Never back.
    async fn move_sequence(&self, tx: &mut PgConnection, sequence: String, operation: &'static str) -> Result<()> {
        // The name comes quoted from the catalog.
        let sql = format!(
            "SELECT setval($1::regclass, greatest((SELECT max(global_position) FROM {{events}}), (SELECT last_value \
             FROM {sequence})))"
        );
        self.maintain(&sql).bind(sequence).execute(tx).await.map_err(database(operation))?;
        Ok(())
    }
}

/// The events as one array for each column.
struct Batch {
    positions: Vec<i64>,
    aggregate_types: Vec<String>,
    aggregate_ids: Vec<String>,
    aggregate_versions: Vec<i64>,
    event_ids: Vec<Uuid>,
    event_types: Vec<String>,
    event_versions: Vec<i32>,
    payloads: Vec<Vec<u8>>,
    trace_ids: Vec<Option<String>>,
    correlation_ids: Vec<Option<String>>,
    causation_ids: Vec<Option<String>>,
    metadata: Vec<Option<String>>,
    created_at: Vec<OffsetDateTime>,
}

impl Batch {
    fn new(events: &[PersistedEvent]) -> Result<Self> {
        let metadata = |event: &PersistedEvent| {
            Ok(metadata_as_jsonb(event.event_id, event.metadata.as_deref())?.map(str::to_owned))
        };
        let version = |event: &PersistedEvent| {
            i32::try_from(event.stored_version.get()).map_err(|_| {
                Error::Input(InputFault::OutOfRange {
                    what: "event version",
                    value: event.stored_version.get().into(),
                    hint: "event versions are at most 2147483647",
                })
            })
        };
        Ok(Self {
            positions: events.iter().map(|event| event.global_position.get()).collect(),
            aggregate_types: events.iter().map(|event| event.aggregate.aggregate_type().to_owned()).collect(),
            aggregate_ids: events.iter().map(|event| event.aggregate.aggregate_id().to_owned()).collect(),
            aggregate_versions: events.iter().map(|event| event.aggregate_version.get()).collect(),
            event_ids: events.iter().map(|event| event.event_id).collect(),
            event_types: events.iter().map(|event| event.stored_type.as_str().to_owned()).collect(),
            event_versions: events.iter().map(version).collect::<Result<_>>()?,
            payloads: events.iter().map(|event| event.payload.clone()).collect(),
            trace_ids: events.iter().map(|event| event.trace_id.clone()).collect(),
            correlation_ids: events.iter().map(|event| event.correlation_id.clone()).collect(),
            causation_ids: events.iter().map(|event| event.causation_id.clone()).collect(),
            metadata: events.iter().map(metadata).collect::<Result<_>>()?,
            created_at: events.iter().map(|event| event.created_at).collect(),
        })
    }
}
