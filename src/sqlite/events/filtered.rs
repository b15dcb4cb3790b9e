//! Reads of the log that are filtered by types.

use crate::event::EventFilter;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, query::Query};
use std::sync::Arc;

/// The statements, for the tables of one store. In all of them ?1 is the position to begin after, and ?2 the limit.
#[derive(Clone, Debug)]
pub(crate) struct ReadLog {
    walk: Arc<str>,
    event_types: Arc<str>,
    aggregate_types: Arc<str>,
    both_types: Arc<str>,
}

type Read<'q> = Query<'q, Sqlite, SqliteArguments>;

impl ReadLog {
    /// `fill` fills names in.
    pub(crate) fn new(fill: impl Fn(&str) -> Arc<str>) -> Self {
        let walk = r#"SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position > ?1
            AND (?3 IS NULL OR aggregate_type IN (SELECT value FROM json_each(?3)))
            AND (?4 IS NULL OR event_type IN (SELECT value FROM json_each(?4)))
            ORDER BY global_position LIMIT ?2"#;
        let also = "AND +e.aggregate_type IN (SELECT value FROM json_each(?4))";
        Self {
            walk: fill(walk),
            event_types: fill(&by("event_type", "event_type", "")),
            aggregate_types: fill(&by("aggregate_type", "type_position", "")),
            both_types: fill(&by("event_type", "event_type", also)),
        }
    }

    /// Through an index. `None` if there is nothing to look for in it.
    pub(crate) fn indexed(&self, filter: &EventFilter, after: i64, limit: u32) -> Option<Read<'static>> {
        let (sql, driving, also) = match (filter.event_types.as_slice(), filter.aggregate_types.as_slice()) {
            ([], []) => return None,
            (events, []) => (&self.event_types, events, None),
            ([], aggregates) => (&self.aggregate_types, aggregates, None),
            (events, aggregates) => (&self.both_types, events, Some(aggregates)),
        };
        let query = read(sql, after, limit).bind(list(driving));
        Some(also.into_iter().fold(query, |query, names| query.bind(list(names))))
    }

    /// Through the table itself.
    pub(crate) fn walk(&self, filter: &EventFilter, after: i64, limit: u32) -> Read<'static> {
        let some = |names: &[String]| (!names.is_empty()).then(|| list(names));
        read(&self.walk, after, limit).bind(some(&filter.aggregate_types)).bind(some(&filter.event_types))
    }
}

/// Are the tables without the index, because their last migration was not run? Nothing was done then.
pub(crate) fn is_missing_index(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.message().starts_with("no such index"))
}

/// The log of these types (?3).
///
/// Each type is a range of the index on the column and the position, so that a page costs as much as it holds and not
/// as much as the log has of other types. The index is named: after an `ANALYZE` that found a few frequent types,
/// SQLite would walk the log. SQLite has no `LATERAL`, but a table-valued function may take what stands before it: the
/// positions of each type pass through a list. Rows are fetched last, by position.
fn by(column: &str, index: &str, and: &str) -> String {
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
    sqlx::query(AssertSqlSafe(Arc::clone(sql))).bind(after).bind(i64::from(limit))
}

fn list(names: &[String]) -> String {
    serde_json::json!(names).to_string()
}
