//! Statements that read the log filtered by types.

use crate::event::EventFilter;
use crate::sql::events::LogReads;
use crate::sql::query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Sqlite, query::Query};
use std::sync::Arc;

type Read<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Reads the log. In this statement and in those of [`by`], ?1 is the position to begin after, and ?2 the limit.
pub(super) const WALK: &str = r#"
    SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position > ?1
    AND (?3 IS NULL OR aggregate_type IN (SELECT value FROM json_each(?3)))
    AND (?4 IS NULL OR event_type IN (SELECT value FROM json_each(?4)))
    ORDER BY global_position LIMIT ?2"#;

/// The condition for aggregate types (?4).
pub(super) const ALSO: &str = "AND +e.aggregate_type IN (SELECT value FROM json_each(?4))";

/// A read through an index. `None` if the filter names no types, so that no index helps.
pub(super) fn indexed(log: &LogReads, filter: &EventFilter, after: i64, limit: u32) -> Option<Read<'static>> {
    let filtered = log.filtered(filter)?;
    let query = read(filtered.sql, after, limit).bind(list(filtered.types));
    Some(filtered.and.into_iter().fold(query, |query, names| query.bind(list(names))))
}

/// A read through the table itself.
pub(super) fn walk(log: &LogReads, filter: &EventFilter, after: i64, limit: u32) -> Read<'static> {
    let some = |names: &[String]| (!names.is_empty()).then(|| list(names));
    read(&log.all, after, limit).bind(some(&filter.aggregate_types)).bind(some(&filter.event_types))
}

/// Does this error say that the tables lack the index, because their last migration was not run? The statement did
/// nothing then.
pub(super) fn is_missing_index(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().starts_with("no such index"))
}

/// Reads the log of these types (?3).
///
/// Each type is a range of the index on the column and the position. So the cost of a page depends on its size, and not
/// on the number of events of other types. The index is named, because SQLite would otherwise walk the log after an
/// `ANALYZE` that found a few frequent types. SQLite has no `LATERAL`, but a table-valued function may use columns of
/// the tables before it, so the positions of each type are passed as a list. Rows are fetched last, by position.
pub(super) fn by(column: &str, index: &str, and: &str) -> String {
    r#"SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position IN (
           SELECT one.value FROM (SELECT DISTINCT value AS name FROM json_each(?3)) AS type
           CROSS JOIN json_each((
               SELECT json_group_array(at) FROM (
                   SELECT e.global_position AS at FROM "{events}" AS e INDEXED BY "idx_{events}_{index}"
                   WHERE e.{column} = type.name AND e.global_position > ?1 {and}
                   ORDER BY e.global_position LIMIT ?2
               )
           )) AS one
           ORDER BY one.value LIMIT ?2
       )
       ORDER BY global_position"#
        .replace("{column}", column)
        .replace("{index}", index)
        .replace("{and}", and)
}

fn read(sql: &Arc<str>, after: i64, limit: u32) -> Read<'static> {
    query(sql).bind(after).bind(i64::from(limit))
}

fn list(names: &[String]) -> String {
    serde_json::json!(names).to_string()
}
