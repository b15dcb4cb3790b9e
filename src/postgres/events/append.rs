//! The statement that appends. Its text is composed of parts: the order of the writes, one event or several, and the
//! check of keys, if the statement makes one.

use super::batch::Events;
use super::beside_keys::Guard;
use super::{ATTEMPTS, PostgresStore, PostgresTables, heads_first, seal_index};
use crate::error::{Error, Result, SetUpFault, StorageFault};
use crate::event::{AggregateRef, Appended, ExpectedVersion, NewEvent, check_append};
use crate::sql::errors::postgres::{NO_SUCH_CONSTRAINT, UNIQUE_VIOLATION, sql_state};
use crate::sql::{SqlRow, event_database as database, events, in_transaction, query};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

const OPERATION: &str = "appending events";

/// The append that inserts events first, as eventsalsa/store 0.0 does.
///
/// The first event decides. If another transaction has taken its version, or is about to commit it, the first event is
/// not inserted, and no error is raised. The rest of the statement selects from the inserted row, so it does nothing
/// either. Events are written before the head, as eventsalsa 0.0 does. The other order would deadlock with it.
const EVENTS_FIRST: &str = r"
    head AS (
        SELECT coalesce((SELECT h.{aggregate_version} FROM {heads} AS h
                         WHERE h.{aggregate_type} = $1 AND h.{aggregate_id} = $2), 0) AS version
    ), [decides] AS (
        INSERT INTO {events} ({aggregate_type}, {aggregate_id}, {aggregate_version}, {written})
        SELECT $1, $2, head.version + 1, [first]
        FROM [guarded] head
        WHERE [held] ($3::bigint IS NULL OR head.version = $3) AND NOT EXISTS ([known])
        ON CONFLICT ({aggregate_type}, {aggregate_id}, {aggregate_version}) DO NOTHING
        RETURNING global_position, {aggregate_version} AS version
    ), [others] moved AS (
        INSERT INTO {heads} AS h ({aggregate_type}, {aggregate_id}, {aggregate_version}, updated_at)
        SELECT $1, $2, version + [count] - 1, now() FROM [decides]
        ON CONFLICT ({aggregate_type}, {aggregate_id}) DO UPDATE
        SET {aggregate_version} = excluded.{aggregate_version}, updated_at = excluded.updated_at
    )[all]";

/// The events behind the first one.
const OTHERS: &str = "others AS (
        INSERT INTO {events} ({aggregate_type}, {aggregate_id}, {aggregate_version}, {written})
        SELECT $1, $2, first.version + e.number - 1, {values}
        FROM first, UNNEST({arrays}) WITH ORDINALITY AS e ({written}, number)
        WHERE e.number > 1
        ORDER BY e.number
        RETURNING global_position, {aggregate_version} AS version
    ),";

/// The parts that differ between one event and several. What starts an executor node for an array costs more than what
/// the node does for one event.
struct Parts {
    /// The event that decides: the values of its columns, and the name of its row.
    first: &'static str,
    decides: &'static str,
    known: &'static str,
    count: &'static str,
    others: &'static str,
    /// All rows, if the one that decides is not all.
    all: &'static str,
    /// All events, from the version that the head had `before`.
    rows: &'static str,
}

/// The events are arrays.
const MANY: Parts = Parts {
    first: "{first}",
    decides: "first",
    known: "SELECT FROM UNNEST((SELECT $4::uuid[])) AS new (id),
                LATERAL (SELECT FROM {events} AS e WHERE e.event_id = new.id OFFSET 0) AS known",
    count: "cardinality($4::uuid[])",
    others: OTHERS,
    all: ", appended AS (
        SELECT global_position, version FROM first UNION ALL SELECT global_position, version FROM others
    )",
    rows: "SELECT $1, $2, moved.before + e.number, {values}
        FROM moved, UNNEST({arrays}) WITH ORDINALITY AS e ({written}, number)
        ORDER BY e.number",
};

/// The event is one value for each column.
const ONE: Parts = Parts {
    first: "{one}",
    decides: "appended",
    known: "SELECT FROM {events} AS e WHERE e.event_id = $4::uuid",
    count: "1",
    others: "",
    all: "",
    rows: "SELECT $1, $2, moved.before + 1, {one} FROM moved",
};

/// The append of one event, or of several. It returns for each event the position, the version, and a column that sends
/// the notification. With a `guard`, a common table expression with one row that says whether the keys are `held`, it
/// appends if they are, and returns two more columns: whether they are, and whether anything was written. Then it
/// returns at least one row.
pub(super) fn append(tables: &PostgresTables, one: bool, guard: Option<&str>) -> String {
    let parts = if one { ONE } else { MANY };
    let order = if tables.heads_first { heads_first::APPEND } else { EVENTS_FIRST };
    let mut append = format!("WITH {}{order}", guard.map(|guard| format!("{guard}, ")).unwrap_or_default());
    for (name, part) in [
        ("[others]", parts.others),
        ("[all]", parts.all),
        ("[rows]", parts.rows),
        ("[first]", parts.first),
        ("[decides]", parts.decides),
        ("[known]", parts.known),
        ("[count]", parts.count),
        ("[guarded]", if guard.is_some() { "guard CROSS JOIN" } else { "" }),
        ("[held]", if guard.is_some() { "guard.held AND" } else { "" }),
    ] {
        append = append.replace(name, part);
    }
    if tables.index_seals {
        append += seal_index::INDEXED;
    }
    // If the head is written first, it may have moved although no event was stored. A row of NULLs tells that from a
    // conflict.
    let (rows, wrote): (&[&str], _) = match tables.heads_first {
        true => (&["moved", "appended"], "moved.before IS NOT NULL"),
        false => (&["appended"], "appended.version IS NOT NULL"),
    };
    let mut from: Vec<&str> = guard.iter().map(|_| "guard").chain(rows.iter().copied()).collect();
    let mut told = "false";
    if let Some(channel) = &tables.channel {
        // PostgreSQL does not run a CTE that nothing refers to.
        append += &format!(
            ", told AS MATERIALIZED (
                SELECT pg_notify('{channel}', max(global_position)::text) AS told FROM appended HAVING count(*) > 0
            )"
        );
        told = "told.told IS NULL";
        from.push("told");
    }
    let checked = if guard.is_some() { format!(", guard.held, {wrote}") } else { String::new() };
    let from =
        from.join(" ON true LEFT JOIN ").replacen(" ON true", "", 1) + if from.len() > 1 { " ON true" } else { "" };
    format!("{append} SELECT appended.global_position, appended.version, {told}{checked} FROM {from}")
}

/// What became of a statement that appends.
enum Outcome {
    /// The position and the version of each event that was stored.
    Appended(Vec<(i64, i64)>),
    /// The aggregate is at another version, an event is known, or another transaction was faster.
    Nothing,
    KeysDiffer,
}

impl PostgresStore {
    /// Appends events. With a guard, it appends them if the keys are the active ones, and returns `None` if not.
    pub(super) async fn append_if(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
        guard: Option<&Guard<'_>>,
    ) -> Result<Option<Appended>> {
        check_append(aggregate, events)?;
        in_transaction(tx, "appending")?;
        let batch = match guard {
            Some(guard) if !guard.is_one() => Events::many(events)?,
            _ => Events::new(events)?,
        };
        let mut before = None;
        for _ in 0..ATTEMPTS {
            match self.try_append(tx, aggregate, expected, events, &batch, guard).await? {
                Outcome::KeysDiffer => return Ok(None),
                Outcome::Appended(rows) => return events::appended(rows, aggregate, events, OPERATION).map(Some),
                Outcome::Nothing => {}
            }
            let actual = self.head(tx, aggregate).await?;
            events::check_version(aggregate, expected, actual)?;
            if let Some(event_id) = self.known_id(tx, batch.ids()).await? {
                return Err(Error::DuplicateEventId { event_id });
            }
            // Another transaction took the version and has committed since, so the next statement sees its events. If
            // the stream has not moved since the last try, no other transaction is the reason.
            if before.replace(actual) == Some(actual) {
                return Err(Error::Storage(StorageFault::NoEffect {
                    operation: OPERATION,
                    table: if self.tables.heads_first { "heads" } else { "events" },
                }));
            }
        }
        Err(Error::Collision { source: None })
    }

    async fn try_append(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
        batch: &Events<'_>,
        guard: Option<&Guard<'_>>,
    ) -> Result<Outcome> {
        let sql = match guard {
            Some(guard) => guard.append(batch.is_one()),
            None if batch.is_one() => &self.sql.append_one,
            None => &self.sql.append,
        };
        let append = query(sql)
            .bind(aggregate.aggregate_type())
            .bind(aggregate.aggregate_id())
            .bind(events::expected_head(expected));
        let append = batch.bind(append);
        let append = if self.tables.index_seals { seal_index::bind(append, events) } else { append };
        let append = match guard {
            Some(guard) => guard.bind(append, batch.is_one()),
            None => append,
        };
        let rows = append.fetch_all(&mut *tx).await.map_err(|source| match sql_state(&source) {
            Some(UNIQUE_VIOLATION) => self.violation(source),
            Some(NO_SUCH_CONSTRAINT) => {
                let table = self.tables.events.clone();
                Error::SetUp(SetUpFault::NoUniqueVersion { table, source: source.into() })
            }
            _ => database(OPERATION)(source),
        })?;
        let wrote = match (rows.first(), guard) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(row), Some(_)) if !row.flag(3)? => return Ok(Outcome::KeysDiffer),
            (Some(row), Some(_)) => row.flag(4)?,
        };
        if !wrote {
            return Ok(Outcome::Nothing);
        }
        // If the head moved but no event was inserted, there is one row of NULLs.
        let given = |row: &PgRow| Ok(row.optional_number(0)?.zip(row.optional_number(1)?));
        let rows = rows.iter().filter_map(|row| given(row).transpose()).collect::<Result<_>>()?;
        Ok(Outcome::Appended(rows))
    }
}
