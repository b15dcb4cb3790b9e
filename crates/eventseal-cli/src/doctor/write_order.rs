//! Checks that the tables of events on PostgreSQL have the constraints and indexes that appends need. Appends write
//! either events or the head row first, and the order decides what is needed.
//!
//! The order in which *other* programs write can't be seen in a database.

use super::checks::Checks;
use crate::args::Doctor;
use crate::connect::Db;
use eventseal::Error;
use sqlx::postgres::PgConnection;

const NAME: &str = "write order";

/// What was found out about the table of events and the table of heads.
struct Found {
    partitioned: bool,
    /// Are the columns named `stream_*`?
    streams: bool,
    unique_versions: bool,
    id_index: bool,
    heads: bool,
    unique_heads: bool,
}

/// `$1` is the table of events. `$2` and `$3` are the possible tables of heads: `$2` if the columns are named
/// `stream_*`, and `$3` if they are named `aggregate_*`.
const LOOK: &str = "
    WITH events AS (
        SELECT c.oid, c.relkind = 'p' AS partitioned, EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS a
            WHERE a.attrelid = c.oid AND a.attname = 'stream_version' AND NOT a.attisdropped
        ) AS streams
        FROM pg_catalog.pg_class AS c WHERE c.oid = to_regclass($1)
    ), found AS (
        SELECT *, CASE WHEN streams THEN 'stream' ELSE 'aggregate' END AS prefix,
            to_regclass(CASE WHEN streams THEN $2 ELSE $3 END)::oid AS heads
        FROM events
    ), indexes AS (
        SELECT i.indrelid, i.indisunique AND i.indimmediate AS is_unique,
            (SELECT array_agg(a.attname::text ORDER BY k.at)
             FROM UNNEST(i.indkey::int2[]) WITH ORDINALITY AS k (number, at)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE k.at <= i.indnkeyatts) AS columns
        FROM pg_catalog.pg_index AS i
        WHERE i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    )
    SELECT partitioned, streams,
        EXISTS (SELECT FROM indexes WHERE indrelid = found.oid AND is_unique AND cardinality(columns) = 3
            AND columns @> ARRAY[prefix || '_type', prefix || '_id', prefix || '_version']) AS unique_versions,
        EXISTS (SELECT FROM indexes WHERE indrelid = found.oid AND columns[1] = 'event_id') AS id_index,
        heads IS NOT NULL AS heads,
        EXISTS (SELECT FROM indexes WHERE indrelid = found.heads AND is_unique AND cardinality(columns) = 2
            AND columns @> ARRAY[prefix || '_type', prefix || '_id']) AS unique_heads
    FROM found";

/// Reports nothing if there is no table of events, because the keys may be in a database of their own.
pub(super) async fn postgres(db: &mut Db<PgConnection>, args: &Doctor, checks: &mut Checks) {
    let quoted = |name: &str| {
        let name = format!("\"{}\"", name.replace('"', "\"\""));
        args.database
            .schema
            .as_ref()
            .map_or_else(|| name.clone(), |schema| format!("\"{}\".{name}", schema.replace('"', "\"\"")))
    };
    let events = args.events_table.as_deref().unwrap_or("events");
    let heads = |usual| quoted(args.heads_table.as_deref().unwrap_or(usual));
    let looked = sqlx::query_as::<_, (bool, bool, bool, bool, bool, bool)>(LOOK)
        .bind(quoted(events))
        .bind(heads("stream_heads"))
        .bind(heads("aggregate_heads"));
    match looked.fetch_optional(&mut db.connection).await {
        Ok(Some((partitioned, streams, unique_versions, id_index, heads, unique_heads))) => {
            let found = Found { partitioned, streams, unique_versions, id_index, heads, unique_heads };
            judge(&found, args.heads_first, checks);
        }
        Ok(None) if args.events_table.is_none() => {}
        Ok(None) => {
            checks.problem(NAME, format!("there is no table {events:?}"), "correct --events-table, or --schema");
        }
        Err(source) => {
            let error = Error::database("looking at the tables of events", source);
            checks.failed(NAME, &error, "let this user read the catalog");
        }
    }
}

fn judge(found: &Found, heads_first: bool, checks: &mut Checks) {
    let heads_first = heads_first || found.streams;
    let kind = if found.partitioned { "events are partitioned" } else { "events are one table" };
    if !found.heads {
        checks.problem(
            NAME,
            "the table of heads is missing",
            "correct --heads-table; or make the tables: eventseal migrate --namespace NAME --events",
        );
    } else if !found.unique_heads {
        let remedy = "add a primary key on its type and id: every append needs it";
        checks.problem(NAME, "the heads have no unique constraint on type and id", remedy);
    } else if !heads_first && !found.unique_versions {
        let found = format!(
            "{kind}, without a unique constraint on type, id and version: appends that write events first fail"
        );
        let remedy = "if every writer takes the head row first, configure heads_first of PostgresTables in the \
            application, and pass --heads-first here; otherwise add the constraint";
        checks.problem(NAME, found, remedy);
    } else if !found.id_index {
        let found = format!("{kind}, without an index on event_id: each append reads all of it to look for known ids");
        checks.problem(
            NAME,
            found,
            "CREATE INDEX ON the table of events (event_id), on each partition first if it is large",
        );
    } else if heads_first {
        checks.good(NAME, format!("heads first, as eventsalsa from 0.1 on; {kind}"));
    } else {
        checks.good(NAME, format!("events first, as eventsalsa 0.0; {kind}"));
    }
}
