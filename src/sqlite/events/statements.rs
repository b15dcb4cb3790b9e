//! The SQL of events, with the names of the tables filled in.

use super::{filtered, seal_index};
use crate::sql::events::LogReads;
use crate::store::event_table::{HEADER_START, HEADER_WITHIN};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Statements {
    pub(super) append: Arc<str>,
    pub(super) head: Arc<str>,
    pub(super) known_id: Arc<str>,
    pub(super) read_stream: Arc<str>,
    pub(super) log: LogReads,
    pub(super) last_position: Arc<str>,
    pub(super) count_events: Arc<str>,
    pub(super) stored_events: Arc<str>,
    pub(super) stored_events_at: Arc<str>,
    pub(super) replace_payload: Arc<str>,
    pub(super) insert: Arc<str>,
    pub(super) move_heads: Arc<str>,
    pub(super) seals: Seals,
}

/// The statements of the index of seals.
#[derive(Debug)]
pub(super) struct Seals {
    pub(super) state: Arc<str>,
    pub(super) add: Arc<str>,
    pub(super) complete: Arc<str>,
    pub(super) new_mark: Arc<str>,
    pub(super) empty: Arc<str>,
    pub(super) positions: Arc<str>,
    pub(super) events_without: Arc<str>,
}

impl Statements {
    /// `fill` fills the names into a SQL text.
    pub(super) fn new(fill: impl Fn(&str) -> Arc<str>) -> Self {
        let with_header = with_header();
        Self {
            append: fill(APPEND),
            head: fill(
                r#"SELECT max(aggregate_version) FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2"#,
            ),
            known_id: fill(
                r#"SELECT event_id FROM "{events}" WHERE event_id IN (SELECT value ->> 0 FROM json_each(?1)) LIMIT 1"#,
            ),
            read_stream: fill(
                r#"SELECT {columns} FROM "{events}" WHERE aggregate_type = ?1 AND aggregate_id = ?2
                   AND aggregate_version >= ?3 AND aggregate_version <= ?4 ORDER BY aggregate_version"#,
            ),
            log: LogReads {
                all: fill(filtered::WALK),
                event_types: fill(&filtered::by("event_type", "event_type", "")),
                aggregate_types: fill(&filtered::by("aggregate_type", "type_position", "")),
                both_types: fill(&filtered::by("event_type", "event_type", filtered::ALSO)),
            },
            last_position: fill(LAST_POSITION),
            count_events: fill(&COUNT_EVENTS.replace("{with_header}", &with_header)),
            stored_events: fill(&STORED_EVENTS.replace("{with_header}", &with_header)),
            stored_events_at: fill(STORED_EVENTS_AT),
            replace_payload: fill(REPLACE_PAYLOAD),
            insert: fill(INSERT),
            move_heads: fill(MOVE_HEADS),
            seals: Seals {
                state: fill(seal_index::STATE),
                add: fill(seal_index::ADD),
                complete: fill(seal_index::COMPLETE),
                new_mark: fill(seal_index::NEW_MARK),
                empty: fill(seal_index::EMPTY),
                positions: fill(seal_index::POSITIONS),
                events_without: fill(seal_index::EVENTS_WITHOUT),
            },
        }
    }
}

/// An append is one statement, whatever the size of the batch. SQLite collects the rows of the SELECT before it inserts
/// any, because the table has a trigger.
const APPEND: &str = r#"
    INSERT INTO "{events}" (aggregate_type, aggregate_id, aggregate_version, {written})
    SELECT ?1, ?2, head.version + 1 + e.key, e.value ->> 0, e.value ->> 1, e.value ->> 2,
        coalesce(substr(?4, 1 + (e.value ->> 3), e.value ->> 4), x''),
        e.value ->> 5, e.value ->> 6, e.value ->> 7, e.value ->> 8, e.value ->> 9
    FROM (SELECT coalesce(max(aggregate_version), 0) AS version FROM "{heads}"
          WHERE aggregate_type = ?1 AND aggregate_id = ?2) AS head
    CROSS JOIN json_each(?3) AS e
    WHERE ?5 IS NULL OR head.version = ?5
    ORDER BY e.key
    RETURNING global_position, aggregate_version"#;

const LAST_POSITION: &str = r#"SELECT coalesce(max(global_position), 0) FROM "{events}""#;

/// Counts the events between two positions by type and version, with and without a header.
const COUNT_EVENTS: &str = r#"
    SELECT event_type, coalesce(event_version, 0) AS event_version, {with_header} AS with_header,
        count(*), min(global_position), max(global_position), min(created_at), max(created_at)
    FROM "{events}" WHERE global_position > ?1 AND global_position <= ?2 GROUP BY 1, 2, 3"#;

/// Reads the page of events that a stored query asks for. SQLite knows the length of a payload without fetching it.
const STORED_EVENTS: &str = r#"
    SELECT {columns}, aggregate_type, aggregate_id FROM "{events}" WHERE global_position IN (
        SELECT global_position FROM (
            SELECT global_position, bytes, sum(bytes) OVER (ORDER BY global_position) AS so_far FROM (
                SELECT global_position, length(payload) AS bytes FROM "{events}"
                WHERE global_position > ?1 AND global_position <= ?2
                AND (?3 IS NULL OR EXISTS (
                    SELECT 1 FROM json_each(?3) AS v
                    WHERE v.value ->> 0 = event_type AND v.value ->> 1 = coalesce(event_version, 0)))
                AND NOT (?4 AND {with_header})
                ORDER BY global_position LIMIT ?5
            )
        ) WHERE so_far <= ?6 OR so_far = bytes
    )
    ORDER BY global_position"#;

const STORED_EVENTS_AT: &str = r#"
    SELECT {columns}, aggregate_type, aggregate_id FROM "{events}"
    WHERE global_position IN (SELECT value FROM json_each(?1)) ORDER BY global_position"#;

const REPLACE_PAYLOAD: &str = r#"
    UPDATE "{events}" SET payload = ?1, metadata = COALESCE(?5, metadata)
    WHERE global_position = ?2 AND event_id = ?3 AND payload = ?4 AND (?5 IS NULL OR metadata = ?6)"#;

/// Inserts events with the positions that they have. Each member of the list (?1) has the place of an event in its
/// stream, and its row in a batch. The payloads are ?2.
const INSERT: &str = r#"
    INSERT INTO "{events}" (global_position, aggregate_type, aggregate_id, aggregate_version, {written})
    SELECT e.value ->> '$[0][0]', e.value ->> '$[0][1]', e.value ->> '$[0][2]', e.value ->> '$[0][3]',
        e.value ->> '$[1][0]', e.value ->> '$[1][1]', e.value ->> '$[1][2]',
        coalesce(substr(?2, 1 + (e.value ->> '$[1][3]'), e.value ->> '$[1][4]'), x''),
        e.value ->> '$[1][5]', e.value ->> '$[1][6]', e.value ->> '$[1][7]', e.value ->> '$[1][8]',
        e.value ->> '$[1][9]'
    FROM json_each(?1) AS e ORDER BY e.key"#;

/// Corrects the heads. The trigger set each head to the event that was inserted last, which may not be the one with the
/// highest version.
const MOVE_HEADS: &str = r#"
    UPDATE "{heads}" AS h SET aggregate_version = (
        SELECT max(e.aggregate_version) FROM "{events}" AS e
        WHERE (e.aggregate_type, e.aggregate_id) = (h.aggregate_type, h.aggregate_id)
    )
    WHERE (aggregate_type, aggregate_id) IN (SELECT value ->> '$[0][1]', value ->> '$[0][2]' FROM json_each(?1))"#;

/// An expression for "the payload starts with a header", with the meaning of
/// [`starts_with_header`](crate::store::starts_with_header). For an empty payload, SQLite would return NULL.
fn with_header() -> String {
    let mut rest = format!("CAST(substr(payload, 1, {HEADER_WITHIN}) AS TEXT)");
    let tests = HEADER_START.map(|token| {
        let start = format!("ltrim({}, char(32, 9, 10, 13))", std::mem::take(&mut rest));
        rest = format!("substr({start}, {})", token.len() + 1);
        format!("substr({start}, 1, {}) = '{token}'", token.len())
    });
    format!("coalesce({}, false)", tests.join(" AND "))
}
