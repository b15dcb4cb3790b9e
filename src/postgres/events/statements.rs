//! The SQL of events, with the names of the tables filled in.

use super::append::append;
use super::{PostgresTables, filtered, insert, seal_index};
use crate::sql::events::LogReads;
use crate::store::event_table::{HEADER_START, HEADER_WITHIN};
use std::fmt::Write as _;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Statements {
    pub(super) append: Arc<str>,
    pub(super) append_one: Arc<str>,
    pub(super) head: Arc<str>,
    pub(super) known_id: Arc<str>,
    pub(super) known_version: Arc<str>,
    pub(super) read_stream: Arc<str>,
    pub(super) log: LogReads,
    pub(super) last_position: Arc<str>,
    pub(super) count_events: Arc<str>,
    pub(super) stored_events: Arc<str>,
    pub(super) stored_events_at: Arc<str>,
    pub(super) replace_payloads: Arc<str>,
    pub(super) replace_documents: Arc<str>,
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
    /// The statements for tables whose names were checked.
    pub(super) fn new(tables: &PostgresTables) -> Self {
        let fill = |sql: &str| Arc::<str>::from(tables.fill(sql));
        let with_header = with_header();
        Self {
            append: fill(&append(tables, false, None)),
            append_one: fill(&append(tables, true, None)),
            head: fill(HEAD),
            known_id: fill(KNOWN_ID),
            known_version: fill(KNOWN_VERSION),
            read_stream: fill(
                "SELECT {columns} FROM {events} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2
                 AND {aggregate_version} >= $3 AND {aggregate_version} <= $4 ORDER BY {aggregate_version}",
            ),
            log: LogReads {
                all: fill(
                    "SELECT {columns}, {aggregate_type}, {aggregate_id} FROM {events} WHERE global_position > $1
                     ORDER BY global_position LIMIT $2",
                ),
                event_types: fill(&filtered::by("event_type", "")),
                aggregate_types: fill(&filtered::by("{aggregate_type}", "")),
                both_types: fill(&filtered::by("event_type", "AND e.{aggregate_type} = ANY ($4)")),
            },
            last_position: fill(LAST_POSITION),
            count_events: fill(&COUNT_EVENTS.replace("{with_header}", &with_header)),
            stored_events: fill(&STORED_EVENTS.replace("{with_header}", &with_header)),
            stored_events_at: fill(STORED_EVENTS_AT),
            replace_payloads: fill(REPLACE_PAYLOADS),
            replace_documents: fill(REPLACE_DOCUMENTS),
            insert: fill(insert::INSERT),
            move_heads: fill(insert::MOVE_HEADS),
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

    /// All statements by name, so that tests can read their plans.
    #[cfg(feature = "internals")]
    pub(super) fn all(&self) -> Vec<(&'static str, Arc<str>)> {
        let all = [
            ("append", &self.append),
            ("append_one", &self.append_one),
            ("head", &self.head),
            ("known_id", &self.known_id),
            ("known_version", &self.known_version),
            ("read_stream", &self.read_stream),
            ("read_log", &self.log.all),
            ("read_event_types", &self.log.event_types),
            ("read_aggregate_types", &self.log.aggregate_types),
            ("read_both_types", &self.log.both_types),
            ("last_position", &self.last_position),
            ("count_events", &self.count_events),
            ("stored_events", &self.stored_events),
            ("stored_events_at", &self.stored_events_at),
            ("replace_payloads", &self.replace_payloads),
            ("replace_documents", &self.replace_documents),
            ("insert", &self.insert),
            ("move_heads", &self.move_heads),
            ("seal_state", &self.seals.state),
            ("seal_add", &self.seals.add),
            ("seal_complete", &self.seals.complete),
            ("seal_positions", &self.seals.positions),
            ("events_without_seal", &self.seals.events_without),
        ];
        all.map(|(name, sql)| (name, Arc::clone(sql))).to_vec()
    }
}

const LAST_POSITION: &str = "SELECT coalesce(max(global_position), 0) FROM {events}";

/// Selects the last version by an order. With max(), a plan that is made for an empty table may use any index.
const HEAD: &str = "
    SELECT coalesce((SELECT {aggregate_version} FROM {heads} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2), 0),
        coalesce((SELECT {aggregate_version} FROM {events} WHERE {aggregate_type} = $1 AND {aggregate_id} = $2
                  ORDER BY {aggregate_version} DESC LIMIT 1), 0)";

/// Selects one of these ids that the table has. Each id is looked for by itself, through an index even if the table was
/// empty when the plan was made.
const KNOWN_ID: &str = "
    SELECT new.id FROM UNNEST($1::uuid[]) AS new (id),
        LATERAL (SELECT FROM {events} AS e WHERE e.event_id = new.id OFFSET 0) AS known LIMIT 1";

/// Selects whether the table has one of these versions of these aggregates. Each is looked for in an order that only
/// the index on type, id and version has, and by a range, because PostgreSQL drops the order for an equality. With
/// another plan, made while the table was empty, all events of the type would be read for each of them.
const KNOWN_VERSION: &str = "
    SELECT FROM UNNEST($1::text[], $2::text[], $3::bigint[]) AS new (type, id, version),
        LATERAL (SELECT FROM {events} AS e WHERE e.{aggregate_type} = new.type AND e.{aggregate_id} = new.id
            AND e.{aggregate_version} >= new.version AND e.{aggregate_version} <= new.version
            ORDER BY e.{aggregate_version} LIMIT 1) AS known LIMIT 1";

/// Counts the events between two positions by type and version, with and without a header.
const COUNT_EVENTS: &str = "
    SELECT event_type, event_version, with_header, count(*), min(global_position), max(global_position),
        min(created_at), max(created_at)
    FROM (
        SELECT event_type, coalesce(event_version, 0) AS event_version, global_position, created_at,
            {with_header} AS with_header
        FROM {events} WHERE global_position > $1 AND global_position <= $2
    ) AS stored
    GROUP BY 1, 2, 3";

/// Reads the page of events that a stored query asks for. PostgreSQL knows the length of a payload without fetching it.
const STORED_EVENTS: &str = "
    SELECT {columns}, {aggregate_type}, {aggregate_id} FROM (
        SELECT *, sum(octet_length(payload)) OVER (ORDER BY global_position) AS page_bytes_so_far FROM (
            SELECT * FROM {events} WHERE global_position > $1 AND global_position <= $2
            AND (cardinality($3::text[]) = 0 OR (event_type, coalesce(event_version, 0)::bigint)
                IN (SELECT * FROM UNNEST($3::text[], $4::bigint[])))
            AND NOT ($5::boolean AND {with_header})
            ORDER BY global_position LIMIT $6
        ) AS page
    ) AS page
    WHERE page_bytes_so_far <= $7 OR page_bytes_so_far = octet_length(payload) ORDER BY global_position";

/// Reads events at positions. Each position is looked for by itself, as in [`KNOWN_ID`].
const STORED_EVENTS_AT: &str = "
    SELECT e.* FROM (SELECT DISTINCT at FROM UNNEST($1::bigint[]) AS at) AS page
    CROSS JOIN LATERAL (
        SELECT {columns}, {aggregate_type}, {aggregate_id} FROM {events} WHERE global_position = page.at OFFSET 0
    ) AS e
    ORDER BY page.at";

/// Replaces payloads. The rows are locked in order first, so that two such statements do not deadlock. A statement that
/// waited for a row compares the row as it is then.
const REPLACE_PAYLOADS: &str = "
    WITH new AS (
        SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::bytea[], $4::bytea[])
            AS new (position, event_id, old, payload)
    ), locked AS (
        SELECT e.global_position FROM {events} AS e WHERE e.global_position = ANY ($1)
        ORDER BY e.global_position FOR NO KEY UPDATE
    )
    UPDATE {events} AS e SET payload = new.payload FROM new, locked
    WHERE e.global_position = new.position AND locked.global_position = new.position
        AND e.event_id = new.event_id AND e.payload = new.old
    RETURNING e.global_position";

/// As [`REPLACE_PAYLOADS`], for payloads and metadata.
const REPLACE_DOCUMENTS: &str = "
    WITH new AS (
        SELECT * FROM UNNEST($1::bigint[], $2::uuid[], $3::bytea[], $4::bytea[], $5::text[], $6::text[])
            AS new (position, event_id, old, payload, old_metadata, metadata)
    ), locked AS (
        SELECT e.global_position FROM {events} AS e WHERE e.global_position = ANY ($1)
        ORDER BY e.global_position FOR NO KEY UPDATE
    )
    UPDATE {events} AS e
        SET payload = new.payload, metadata = COALESCE(new.metadata::jsonb, e.metadata::jsonb)
    FROM new, locked
    WHERE e.global_position = new.position AND locked.global_position = new.position
        AND e.event_id = new.event_id AND e.payload = new.old
        AND (new.metadata IS NULL OR e.metadata::jsonb = new.old_metadata::jsonb)
    RETURNING e.global_position";

/// An expression for "the payload starts with a header", with the meaning of
/// [`starts_with_header`](crate::store::starts_with_header). It fetches only the first bytes of a payload that is
/// stored out of line.
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
