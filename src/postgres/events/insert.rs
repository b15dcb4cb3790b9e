//! Inserts events that are stored elsewhere, with the positions that they have.

use super::batch::Batch;
use super::{PostgresStore, Written};
use crate::error::{Error, Result, SetUpFault, StorageFault};
use crate::event::PersistedEvent;
use crate::sql::errors::postgres::{UNIQUE_VIOLATION, sql_state};
use crate::sql::{check_stored, event_database as database, in_transaction, query};
use crate::store::event_table::{EventTable, check_insert};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use std::collections::HashSet;

const OPERATION: &str = "inserting stored events";

const VERSION_TAKEN: Error = Error::Storage(StorageFault::InvalidRow {
    what: "the aggregate version of an event to be inserted",
    problem: "is in the table already",
});

pub(super) const INSERT: &str = "
    INSERT INTO {events} (global_position, {aggregate_type}, {aggregate_id}, {aggregate_version}, {written})
    SELECT e.position, e.aggregate_type, e.aggregate_id, e.aggregate_version, {values}
    FROM UNNEST($13::bigint[], $1::text[], $2::text[], $3::bigint[], {arrays})
        AS e (position, aggregate_type, aggregate_id, aggregate_version, {written})
    ORDER BY e.position";

pub(super) const MOVE_HEADS: &str = "
    INSERT INTO {heads} AS h ({aggregate_type}, {aggregate_id}, {aggregate_version}, updated_at)
    SELECT e.aggregate_type, e.aggregate_id, max(e.aggregate_version), now()
    FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS e (aggregate_type, aggregate_id, aggregate_version)
    GROUP BY e.aggregate_type, e.aggregate_id ORDER BY e.aggregate_type, e.aggregate_id
    ON CONFLICT ({aggregate_type}, {aggregate_id}) DO UPDATE
    SET {aggregate_version} = greatest(h.{aggregate_version}, excluded.{aggregate_version}),
        updated_at = excluded.updated_at";

const SEQUENCE: &str = "
    SELECT s.oid::regclass::text FROM pg_catalog.pg_attribute AS a
    JOIN pg_catalog.pg_class AS s ON s.relkind = 'S'
    LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = to_regclass($1) AND a.attname = 'global_position' AND EXISTS (
        SELECT FROM pg_catalog.pg_depend AS p
        WHERE p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
                AND p.refclassid = 'pg_class'::regclass AND p.refobjid = s.oid
            OR a.attidentity <> '' AND p.classid = 'pg_class'::regclass AND p.objid = s.oid AND p.deptype = 'i'
                AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
    )";

/// The places of the events in their streams, as one array for each column.
struct Places<'e> {
    aggregate_types: Vec<&'e str>,
    aggregate_ids: Vec<&'e str>,
    versions: Vec<i64>,
}

impl<'e> Places<'e> {
    fn new(events: &'e [PersistedEvent]) -> Self {
        Self {
            aggregate_types: events.iter().map(|event| event.aggregate.aggregate_type()).collect(),
            aggregate_ids: events.iter().map(|event| event.aggregate.aggregate_id()).collect(),
            versions: events.iter().map(|event| event.aggregate_version.get()).collect(),
        }
    }

    fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query.bind(&self.aggregate_types).bind(&self.aggregate_ids).bind(&self.versions)
    }

    fn are_unique(&self) -> bool {
        let places = self.aggregate_types.iter().zip(&self.aggregate_ids).zip(&self.versions);
        places.collect::<HashSet<_>>().len() == self.versions.len()
    }
}

impl PostgresStore {
    pub(super) async fn insert(&self, tx: &mut PgConnection, events: &[PersistedEvent]) -> Result<()> {
        in_transaction(tx, OPERATION)?;
        if events.is_empty() {
            return Ok(());
        }
        // An INSERT draws its positions while it holds a lock on the table that conflicts with this lock. So no
        // position is in flight, and moving the sequence does not repeat one. If writers take the heads first, that
        // table is locked too, because the heads are changed below.
        let tables = if self.tables.heads_first { "{heads}, {events}" } else { "{events}" };
        self.lock_out(tx, tables, "SHARE ROW EXCLUSIVE", OPERATION).await?;
        check_insert(self.last_position(tx).await?, events)?;
        let sequence = self.sequence(tx).await?;
        let (batch, places) = (Batch::new(events.iter().map(Written::stored))?, Places::new(events));
        self.check_unknown(tx, &batch, &places).await?;
        let inserted = batch.bind(places.bind(query(&self.sql.insert)));
        let positions: Vec<i64> = events.iter().map(|event| event.global_position.get()).collect();
        let inserted = inserted.bind(positions).execute(&mut *tx).await.map_err(|source| match sql_state(&source) {
            Some(UNIQUE_VIOLATION) => VERSION_TAKEN,
            _ => database(OPERATION)(source),
        })?;
        check_stored(usize::try_from(inserted.rows_affected()).unwrap_or(usize::MAX), events.len(), OPERATION)?;
        places.bind(query(&self.sql.move_heads)).execute(&mut *tx).await.map_err(database(OPERATION))?;
        self.move_sequence(tx, sequence).await
    }

    /// Refuses ids and versions that the table has. The table is locked, and may have no constraint that would refuse
    /// them.
    async fn check_unknown(&self, tx: &mut PgConnection, batch: &Batch<'_>, places: &Places<'_>) -> Result<()> {
        if let Some(event_id) = self.known_id(tx, &batch.event_ids).await? {
            return Err(Error::DuplicateEventId { event_id });
        }
        let known = places.bind(query(&self.sql.known_version));
        let known = known.fetch_optional(tx).await.map_err(database(OPERATION))?;
        if known.is_none() && places.are_unique() { Ok(()) } else { Err(VERSION_TAKEN) }
    }

    /// The sequence from which positions come, quoted. It is that of an identity column, or the one that the default of
    /// the column uses, whoever owns it. It is looked up before anything is inserted: without it, a later append would
    /// get a position that is taken.
    async fn sequence(&self, tx: &mut PgConnection) -> Result<String> {
        let found: Vec<String> =
            sqlx::query_scalar(SEQUENCE).bind(self.table()).fetch_all(tx).await.map_err(database(OPERATION))?;
        match <[String; 1]>::try_from(found) {
            Ok([sequence]) => Ok(sequence),
            // The default names the sequence as text, a trigger sets the position, or there are several sequences.
            Err(_) => Err(Error::SetUp(SetUpFault::NoSequence { table: self.table() })),
        }
    }

    /// Moves the sequence of positions beyond the last position in the table. It never moves it back.
    async fn move_sequence(&self, tx: &mut PgConnection, sequence: String) -> Result<()> {
        // The catalog returns the name quoted.
        let sql = format!(
            "SELECT setval($1::regclass, greatest((SELECT max(global_position) FROM {{events}}), (SELECT last_value \
             FROM {sequence})))"
        );
        sqlx::query(AssertSqlSafe(self.tables.fill(&sql)))
            .bind(sequence)
            .execute(tx)
            .await
            .map_err(database(OPERATION))?;
        Ok(())
    }
}
