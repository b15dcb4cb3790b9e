//! Reads rows of events, with the statements of the adapters.

use super::{events, stored_count, stream};
use crate::error::Result;
use crate::event::{AggregateRef, GlobalPosition, PersistedEvent, Stream, VersionRange};
use crate::sql::{Dialect, event_database as database, query};
use crate::store::event_table::{PositionRange, StoredCount};
use sqlx::Connection;
use std::sync::Arc;

/// Reads events of an aggregate. The statement's parameters are the aggregate's type and id, and the first and last
/// version.
pub(crate) async fn read_stream<C>(
    sql: &Arc<str>,
    tx: &mut C,
    aggregate: &AggregateRef,
    range: VersionRange,
) -> Result<Stream>
where
    C: Connection<Database: Dialect>,
{
    let read = C::Database::text(query(sql), aggregate.aggregate_type());
    let read = C::Database::text(read, aggregate.aggregate_id());
    let read = C::Database::number(read, range.from.unwrap_or(0));
    let read = C::Database::number(read, range.to.unwrap_or(i64::MAX));
    let rows = C::Database::rows(read, tx).await.map_err(database("reading a stream"))?;
    stream(&rows, aggregate)
}

/// Reads events at positions. The statement's parameter is the list of positions.
pub(crate) async fn read_at<C>(sql: &Arc<str>, tx: &mut C, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>>
where
    C: Connection<Database: Dialect>,
{
    let positions: Vec<i64> = positions.iter().map(|position| position.get()).collect();
    let rows = C::Database::rows(C::Database::numbers(query(sql), &positions), tx).await;
    events(&rows.map_err(database("reading stored events"))?)
}

/// Counts stored events. The statement's parameters are the position before the first, and the last position.
pub(crate) async fn count<C>(sql: &Arc<str>, tx: &mut C, range: PositionRange) -> Result<Vec<StoredCount>>
where
    C: Connection<Database: Dialect>,
{
    let count = C::Database::number(C::Database::number(query(sql), range.after.get()), range.end());
    let rows = C::Database::rows(count, tx).await.map_err(database("counting events"))?;
    rows.iter().map(stored_count).collect()
}
