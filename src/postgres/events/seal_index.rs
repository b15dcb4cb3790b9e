//! The index of seals beside PostgreSQL's events.

use super::{PostgresStore, SEAL_INDEX};
use crate::error::Result;
use crate::event::{GlobalPosition, NewEvent, PersistedEvent};
use crate::keys::names::KeyId;
use crate::sql::{SqlRow, event_database as database, events, in_transaction, migrations, query};
use crate::store::event_table::{PositionRange, StoredQuery};
use crate::store::seal_index::{IndexedSeal, SealIndex, SealIndexState};
use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

/// The part of an append that writes the rows of its events. The number of an event in the batch ($13) and a key of it
/// ($14) are one row. A row may be left over from an event that is gone, so a row that exists is no error.
pub(super) const INDEXED: &str = ", indexed AS (
        INSERT INTO {sealed_events} (global_position, key_id)
        SELECT a.global_position, s.key_id
        FROM UNNEST((SELECT $13::bigint[]), (SELECT $14::uuid[])) AS s (number, key_id)
        JOIN (SELECT global_position, version - min(version) OVER () + 1 AS number FROM appended) AS a USING (number)
        ON CONFLICT DO NOTHING
    )";

pub(super) const STATE: &str = "SELECT index_id, complete_up_to, last_event FROM {sealed_events_mark}";

pub(super) const ADD: &str = "
    INSERT INTO {sealed_events} (global_position, key_id)
    SELECT s.position, s.key_id FROM UNNEST($1::bigint[], $2::uuid[]) AS s (position, key_id)
    ORDER BY s.position, s.key_id ON CONFLICT DO NOTHING";

pub(super) const COMPLETE: &str = "
    UPDATE {sealed_events_mark} SET complete_up_to = $2, last_event = $3
    WHERE index_id = $1 AND complete_up_to <= $2";

/// The mark is moved first: the row is locked, so that two such transactions run one after the other.
pub(super) const NEW_MARK: &str =
    "UPDATE {sealed_events_mark} SET index_id = gen_random_uuid(), complete_up_to = 0, last_event = NULL";

pub(super) const EMPTY: &str = "DELETE FROM {sealed_events}";

/// Selects the positions of these keys ($1) in a range, up to a limit ($4). Each key is a range of its index, which is
/// a comparison of rows, so that no other index can answer it: see [`filtered::by`](super::filtered::by).
pub(super) const POSITIONS: &str = "
    SELECT DISTINCT one.at FROM UNNEST($1::uuid[]) AS key (id)
    CROSS JOIN LATERAL (
        SELECT s.global_position AS at FROM {sealed_events} AS s
        WHERE (s.key_id, s.global_position) > (key.id, $2) AND (s.key_id, s.global_position) <= (key.id, $3)
        ORDER BY s.key_id, s.global_position LIMIT $4
    ) AS one
    ORDER BY one.at LIMIT $4";

/// Reads the page of events without a row. A row is looked for by the event's position, one by one: the OFFSET keeps
/// PostgreSQL from a join, for which it would have to know how many rows there are.
pub(super) const EVENTS_WITHOUT: &str = "
    SELECT {columns}, {aggregate_type}, {aggregate_id} FROM (
        SELECT *, sum(octet_length(payload)) OVER (ORDER BY global_position) AS page_bytes_so_far FROM (
            SELECT * FROM {events} AS e WHERE global_position > $1 AND global_position <= $2
            AND NOT EXISTS (
                SELECT FROM {sealed_events} AS s WHERE s.global_position = e.global_position
                ORDER BY s.global_position, s.key_id OFFSET 0)
            ORDER BY global_position LIMIT $3
        ) AS page
    ) AS page
    WHERE page_bytes_so_far <= $4 OR page_bytes_so_far = octet_length(payload) ORDER BY global_position";

/// Binds the keys of the events of an append, as [`INDEXED`] needs them.
pub(super) fn bind<'q>(
    append: Query<'q, Postgres, PgArguments>,
    events: &[NewEvent],
) -> Query<'q, Postgres, PgArguments> {
    let rows =
        (1_i64..).zip(events).flat_map(|(number, event)| event.sealed_under().iter().map(move |key| (number, key.0)));
    let (numbers, keys): (Vec<i64>, Vec<Uuid>) = rows.unzip();
    append.bind(numbers).bind(keys)
}

impl PostgresStore {
    /// Was the index made? Asking for a table that does not exist would abort the transaction.
    async fn has_seal_index(&self, connection: &mut PgConnection) -> Result<bool> {
        let row = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
            .bind(self.tables.sealed_events_mark())
            .fetch_one(connection)
            .await
            .map_err(database("looking for the index of seals"))?;
        row.flag(0)
    }
}

#[async_trait]
impl SealIndex for PostgresStore {
    type Tx = PgConnection;

    async fn state(&self, connection: &mut PgConnection) -> Result<Option<SealIndexState>> {
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

    async fn make(&self, connection: &mut PgConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.tables.sealed_events);
        let fill = |sql: &str| self.tables.fill(sql);
        migrations::run(connection, self.tables.schema.as_deref(), &bookkeeping, &SEAL_INDEX, fill).await
    }

    async fn empty(&self, tx: &mut PgConnection) -> Result<()> {
        const OPERATION: &str = "emptying the index of seals";
        in_transaction(tx, OPERATION)?;
        for sql in [&self.sql.seals.new_mark, &self.sql.seals.empty] {
            query(sql).execute(&mut *tx).await.map_err(database(OPERATION))?;
        }
        Ok(())
    }

    async fn add(&self, tx: &mut PgConnection, seals: &[IndexedSeal]) -> Result<()> {
        const OPERATION: &str = "adding to the index of seals";
        in_transaction(tx, OPERATION)?;
        if seals.is_empty() || !self.has_seal_index(tx).await? {
            return Ok(());
        }
        let rows = seals.iter().flat_map(|seal| seal.keys.iter().map(|key| (seal.position.get(), key.0)));
        let (positions, keys): (Vec<i64>, Vec<Uuid>) = rows.unzip();
        let added = query(&self.sql.seals.add).bind(positions).bind(keys).execute(tx).await;
        added.map(drop).map_err(database(OPERATION))
    }

    async fn complete(&self, tx: &mut PgConnection, id: Uuid, up_to: GlobalPosition, last_event: Uuid) -> Result<bool> {
        const OPERATION: &str = "moving the mark of the index of seals";
        in_transaction(tx, OPERATION)?;
        let moved = query(&self.sql.seals.complete).bind(id).bind(up_to.get()).bind(last_event).execute(tx).await;
        Ok(moved.map_err(database(OPERATION))?.rows_affected() == 1)
    }

    async fn positions(
        &self,
        tx: &mut PgConnection,
        keys: &[KeyId],
        range: PositionRange,
        limit: u32,
    ) -> Result<Vec<GlobalPosition>> {
        let rows = query(&self.sql.seals.positions)
            .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
            .bind(range.after.get())
            .bind(range.end())
            .bind(i64::from(limit))
            .fetch_all(tx)
            .await;
        rows.map_err(database("reading the index of seals"))?.iter().map(|row| row.number(0)?.try_into()).collect()
    }

    async fn events_without(&self, tx: &mut PgConnection, asked: &StoredQuery) -> Result<Vec<PersistedEvent>> {
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
