//! The append that takes the head row first, as eventsalsa/store does from 0.1 on.
//!
//! The head row decides, so the table of events needs no unique constraint, and may be partitioned by position.

/// The append is one statement, whose parts are filled in by [`append`](super::append::append). Its order follows from
/// data flow: events are inserted from the rows that moving the head returned.
///
/// The head moves only from the version that this statement's snapshot shows, even if any version is accepted. A
/// transaction that waited for the row would look for known ids in a snapshot that is older than the wait. So it
/// inserts nothing, and the next statement sees what was committed meanwhile. The row stays locked, so one more
/// statement is enough.
///
/// No constraint refuses a version that is used twice, which could happen if a head is behind its events. So the
/// statement looks for later events, and inserts nothing if there are any. It looks for them in an order that only the
/// index on type, id and version has. Without that order, a plan that is made while a partition is empty may use
/// another index, and would read all events of the type once the partition is full.
pub(crate) const APPEND: &str = r"
    head AS MATERIALIZED (
        SELECT coalesce((SELECT h.{aggregate_version} FROM {heads} AS h
                         WHERE h.{aggregate_type} = $1 AND h.{aggregate_id} = $2), 0) AS version
    ), moved AS (
        INSERT INTO {heads} AS h ({aggregate_type}, {aggregate_id}, {aggregate_version}, updated_at)
        SELECT $1, $2, head.version + [count], now()
        FROM [guarded] head
        WHERE [held] ($3::bigint IS NULL OR head.version = $3) AND NOT EXISTS ([known])
            AND NOT EXISTS (SELECT FROM {events} AS e
                WHERE e.{aggregate_type} = $1 AND e.{aggregate_id} = $2 AND e.{aggregate_version} > head.version
                ORDER BY e.{aggregate_version} LIMIT 1 OFFSET 0)
        ON CONFLICT ({aggregate_type}, {aggregate_id}) DO UPDATE
        SET {aggregate_version} = excluded.{aggregate_version}, updated_at = excluded.updated_at
        WHERE h.{aggregate_version} = excluded.{aggregate_version} - [count]
        RETURNING {aggregate_version} - [count] AS before
    ), appended AS (
        INSERT INTO {events} ({aggregate_type}, {aggregate_id}, {aggregate_version}, {written})
        [rows]
        RETURNING global_position, {aggregate_version} AS version
    )";
