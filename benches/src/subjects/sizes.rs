//! How large tables and indexes become: bytes a row, with few rows and with many, and what a thousand times as many
//! would come to.

use super::Subject;
use crate::bench::{Bench, Way, time, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::keys::{KeyId, KeyStore, ShredRequest};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    EventFilter, EventStore, ExpectedVersion, GlobalPosition, KeyScope, SealedStore, VersionRange, aggregate,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use uuid::Uuid;

pub(super) const SUBJECT: Subject = Subject {
    name: "sizes",
    title: "Sizes",
    about: "Events of 1 KiB with three protected strings, in streams of ten, and as many keys, each of a scope of its \
        own. Ids of streams and scopes are UUIDs as text. The rows below do the same with many rows in the tables and \
        with a tenth of them. The tables are in memory then: a disk adds its own time for each page that is not.",
    run,
};

/// The events of a stream.
const STREAM: usize = 10;
const EVENTS: &str = "sizes_events";
const PAGE: i64 = 8_192;

/// What the sizes are reckoned up for.
const MANY_EVENTS: f64 = 1e9;
const MANY_KEYS: f64 = 1e8;
/// Of all scopes, one in this many is shredded.
const ONE_SHREDDED_IN: f64 = 10.0;

fn run(bench: &Bench) -> Report {
    let many = bench.pick(400, 1_000_000, 1_000_000);
    let [few, many] = [many / 10, many].map(|rows| {
        bench.say("filling the tables");
        Tables::with(rows, bench.pick(5, 1_000, 1_000))
    });
    // Before anything is looked up: an append would change them.
    let sizes = [few.sizes(), many.sizes()];
    let rows = look_ups(bench, &few, &many);
    let notes = vec![per_row(&few, &many, &sizes), reckoned(&sizes[1]), heights(&many)];
    Report { rows, notes, ..Report::default() }
}

/// A table, what has a row in it, and how many of these there would be.
struct Kind {
    table: &'static str,
    of: &'static str,
    reckoned: f64,
}

const KINDS: [Kind; 7] = [
    Kind { table: EVENTS, of: "event", reckoned: MANY_EVENTS },
    Kind { table: "sizes_heads", of: "stream", reckoned: MANY_EVENTS / STREAM as f64 },
    Kind { table: "sealed_events", of: "event, if there is an index of seals", reckoned: MANY_EVENTS },
    Kind { table: "key_scopes", of: "scope", reckoned: MANY_KEYS },
    Kind { table: "data_keys", of: "key", reckoned: MANY_KEYS },
    Kind { table: "shred_entries", of: "shred", reckoned: MANY_KEYS / ONE_SHREDDED_IN },
    Kind { table: "shred_log", of: "shred", reckoned: MANY_KEYS / ONE_SHREDDED_IN },
];

/// Bytes a row: of the table, and of all its indexes.
struct Size {
    table: f64,
    indexes: f64,
}

struct Tables {
    db: Postgres,
    store: SealedStore<PostgresStore>,
    rows: usize,
    shreds: usize,
    keys: Vec<KeyId>,
    connection: RefCell<PgConnection>,
    next: Cell<usize>,
}

impl Tables {
    fn with(rows: usize, shreds: usize) -> Self {
        let db = Postgres::new(&format!("sizes_{rows}"));
        let store = db.sealed(db.tables("sizes").index_seals(), fixture::schemas());
        let mut connection = db.connection();
        let keys = db.block_on(fill(&store, &mut connection, rows, shreds));
        Self { db, store, rows, shreds, keys, connection: RefCell::new(connection), next: Cell::new(1) }
    }

    fn sizes(&self) -> Vec<Size> {
        let mut connection = self.connection.borrow_mut();
        KINDS
            .iter()
            .map(|kind| {
                let sql = format!(
                    "SELECT pg_table_size('{0}')::float8 / count(*), pg_indexes_size('{0}')::float8 / count(*)
                     FROM {0}",
                    kind.table
                );
                let asked = sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut *connection);
                let (table, indexes) = self.db.block_on(asked).unwrap();
                Size { table, indexes }
            })
            .collect()
    }

    /// Rows on a page of an index, when all of it is counted.
    fn rows_on_a_page(&self, index: &str) -> f64 {
        let pages = sqlx::query_scalar("SELECT pg_relation_size($1::regclass) / $2").bind(index).bind(PAGE);
        let pages: i64 = self.db.block_on(pages.fetch_one(&mut *self.connection.borrow_mut())).unwrap();
        self.rows as f64 / pages as f64
    }

    /// The number of another stream, event or key, in no order.
    fn any(&self) -> usize {
        // A step that has no factor in common with a power of ten.
        self.next.set((self.next.get() + 7_654_321) % self.rows);
        self.next.get()
    }
}

/// Appends one event and shreds some scopes, and copies the rest. Returns some of the keys, in no order.
async fn fill(
    store: &SealedStore<PostgresStore>,
    connection: &mut PgConnection,
    rows: usize,
    shreds: usize,
) -> Vec<KeyId> {
    let mut tx = connection.begin().await.unwrap();
    for number in 0..=shreds {
        let events = fixture::events(&fixture::customer(number), 1);
        let order = aggregate("Order", number.to_string());
        store.append(&mut tx, &order, ExpectedVersion::NoStream, &events).await.unwrap();
    }
    tx.commit().await.unwrap();
    let requests: Vec<_> = (1..=shreds)
        .map(|number| {
            let scope = KeyScope::new("Customer", fixture::customer(number));
            ShredRequest { scope, reason: "request 118".to_owned() }
        })
        .collect();
    store.keys().shred_many(connection, &requests, &mut |_| {}).await.unwrap();
    store.keys().seal_log(connection).await.unwrap();
    for sql in COPIES {
        let sql = sql.replace("{rows}", &rows.to_string()).replace("{stream}", &STREAM.to_string());
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    connection.execute("VACUUM ANALYZE").await.unwrap();
    let keys = "SELECT key_id FROM data_keys WHERE wrapped_key IS NOT NULL ORDER BY md5(key_id::text) LIMIT 20000";
    sqlx::query_scalar::<_, Uuid>(keys).fetch_all(connection).await.unwrap().into_iter().map(KeyId).collect()
}

/// Copies of the first event and of its key. Event ids grow with time, as those of the library do. Others are random.
const COPIES: [&str; 5] = [
    "CREATE TEMPORARY TABLE copies AS SELECT n, md5((n / {stream})::text)::uuid AS stream, gen_random_uuid() AS key_id,
         (lpad(to_hex(1750000000000 + n), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
             || substr(md5(n::text), 4, 15))::uuid AS event_id
     FROM generate_series(0, {rows} - 1) AS n",
    "INSERT INTO sizes_events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version,
         payload, created_at)
     SELECT 'Order', c.stream, c.n % {stream} + 1, c.event_id, e.event_type, e.event_version, e.payload, e.created_at
     FROM copies AS c, (SELECT * FROM sizes_events ORDER BY global_position LIMIT 1) AS e ORDER BY c.n",
    "INSERT INTO sizes_heads (aggregate_type, aggregate_id, aggregate_version)
     SELECT 'Order', stream, {stream} FROM copies WHERE n % {stream} = 0 ORDER BY n",
    "INSERT INTO sealed_events (global_position, key_id)
     SELECT 10000 + n, key_id FROM copies ORDER BY n",
    "WITH k AS (SELECT * FROM data_keys WHERE wrapped_key IS NOT NULL AND scope_kind = 'Customer' LIMIT 1),
         scopes AS (INSERT INTO key_scopes (scope_kind, scope_id, state, generation, active_key_id)
             SELECT 'Customer', md5('scope' || n)::uuid, 'live', 1, key_id FROM copies ORDER BY n)
     INSERT INTO data_keys (key_id, scope_kind, scope_id, version, wrapped_key, kek_id, state, created_at)
     SELECT c.key_id, 'Customer', md5('scope' || c.n)::uuid, 1, k.wrapped_key, k.kek_id, 'live', k.created_at
     FROM copies AS c, k ORDER BY c.n",
];

/// The same with few rows and with many.
fn look_ups(bench: &Bench, few: &Tables, many: &Tables) -> Vec<Measured> {
    type LookUp = fn(&Tables, usize) -> Way<'_>;
    let what: [(&str, LookUp); 4] = [
        ("look up the row of 1 key", look_up_key),
        ("read a stream of 10 stored events", read_stream),
        ("read a page of 500 stored events", read_page),
        ("append 1 event, before the commit", append),
    ];
    let times = bench.pick(1, 40, 40);
    let rows = what.map(|(what, work)| {
        let [many_took, few_took] =
            bench.compare(what, bench.pick(1, 40, 100), times, [work(many, times), work(few, times)]);
        let what = format!("{what}, {} rows", grouped(many.rows));
        Measured::time(what, &many_took, format!("{} rows", grouped(few.rows)), &few_took)
    });
    rows.into()
}

fn look_up_key(tables: &Tables, times: usize) -> Way<'_> {
    way(move || {
        let (mut connection, keys) = (tables.connection.borrow_mut(), PostgresKeys::new());
        let ids: Vec<KeyId> = (0..times).map(|_| tables.keys[tables.any() % tables.keys.len()]).collect();
        time(|| {
            tables.db.block_on(async {
                for id in &ids {
                    assert_eq!(keys.data_keys(&mut connection, &[*id]).await.unwrap().len(), 1);
                }
            });
        })
    })
}

fn read_stream(tables: &Tables, times: usize) -> Way<'_> {
    way(move || {
        let mut connection = tables.connection.borrow_mut();
        let streams: Vec<String> = tables.db.block_on(async {
            let numbers: Vec<i64> = (0..times).map(|_| (tables.any() / STREAM) as i64).collect();
            let ids = "SELECT md5(n::text)::uuid::text FROM UNNEST($1::bigint[]) AS n";
            sqlx::query_scalar(ids).bind(numbers).fetch_all(&mut *connection).await.unwrap()
        });
        let inner = tables.store.inner();
        time(|| {
            tables.db.block_on(async {
                for id in &streams {
                    let order = aggregate("Order", id.as_str());
                    let all = VersionRange::default();
                    let read = inner.read_aggregate_stream(&mut connection, &order, all).await.unwrap();
                    assert_eq!(read.events.len(), STREAM);
                }
            });
        })
    })
}

fn read_page(tables: &Tables, times: usize) -> Way<'_> {
    way(move || {
        let mut connection = tables.connection.borrow_mut();
        let starts: Vec<i64> = (0..times).map(|_| (tables.any() / 2) as i64).collect();
        let inner = tables.store.inner();
        time(|| {
            tables.db.block_on(async {
                for start in &starts {
                    let (after, all) = (GlobalPosition::try_from(*start).unwrap(), EventFilter::default());
                    let page = inner.read_events(&mut connection, after, 500, &all).await.unwrap();
                    assert!(page.scanned > 0);
                }
            });
        })
    })
}

/// Appends that are rolled back, so that the tables stay as they are.
fn append(tables: &Tables, times: usize) -> Way<'_> {
    way(move || {
        let mut connection = tables.connection.borrow_mut();
        let events = fixture::events(&fixture::customer(0), times);
        tables.db.block_on(async {
            let mut tx = connection.begin().await.unwrap();
            let took = {
                let start = std::time::Instant::now();
                for event in &events {
                    let order = aggregate("Order", event.event_id.to_string());
                    let event = std::slice::from_ref(event);
                    tables.store.append(&mut tx, &order, ExpectedVersion::NoStream, event).await.unwrap();
                }
                start.elapsed()
            };
            tx.rollback().await.unwrap();
            took
        })
    })
}

fn per_row(few: &Tables, many: &Tables, sizes: &[Vec<Size>; 2]) -> String {
    let (fewer, more) = (grouped(few.rows), grouped(many.rows));
    let mut text = format!(
        "Bytes a row, with the tables' own overhead, at {fewer} and at {more} rows (and {} shreds):\n\n\
         | table | a row for each | table | its indexes | all, with {fewer} rows | all, with {more} rows |\n\
         |---|---|---|---|---|---|\n",
        many.shreds
    );
    for (kind, (few, many)) in KINDS.iter().zip(sizes[0].iter().zip(&sizes[1])) {
        let [table, indexes, before, all] =
            [many.table, many.indexes, few.table + few.indexes, many.table + many.indexes].map(f64::round);
        let name = kind.table.trim_start_matches("sizes_");
        writeln!(text, "| {name} | {} | {table} | {indexes} | {before} | {all} |", kind.of).expect("a string");
    }
    text.trim_end().to_owned()
}

fn reckoned(sizes: &[Size]) -> String {
    let mut text = format!(
        "Reckoned up from these for {} events in streams of {STREAM}, {} scopes with a key each, and one scope in {} \
         shredded:\n\n| table | rows | table | its indexes | all |\n|---|---|---|---|---|\n",
        grouped(MANY_EVENTS as usize),
        grouped(MANY_KEYS as usize),
        ONE_SHREDDED_IN
    );
    let (mut tables, mut indexes) = (0.0, 0.0);
    for (kind, size) in KINDS.iter().zip(sizes) {
        let [table, index] = [size.table * kind.reckoned, size.indexes * kind.reckoned];
        tables += table;
        indexes += index;
        let (name, rows) = (kind.table.trim_start_matches("sizes_"), grouped(kind.reckoned as usize));
        writeln!(text, "| {name} | {rows} | {} | {} | {} |", gib(table), gib(index), gib(table + index))
            .expect("a string");
    }
    writeln!(text, "| all | | {} | {} | {} |", gib(tables), gib(indexes), gib(tables + indexes)).expect("a string");
    text.trim_end().to_owned()
}

/// How high the indexes are, by their rows on a page. Each level is a page to read.
fn heights(many: &Tables) -> String {
    let mut text = format!(
        "Levels of indexes, from the rows on a page of them (a page has {PAGE} bytes):\n\n\
         | index | rows on a page | levels at {} rows | rows reckoned up | levels then |\n|---|---|---|---|---|\n",
        grouped(many.rows)
    );
    for (index, rows) in [
        ("sizes_events_pkey", MANY_EVENTS),
        ("sizes_events_aggregate_type_aggregate_id_aggregate_version_key", MANY_EVENTS),
        ("sizes_events_event_id_key", MANY_EVENTS),
        ("idx_sealed_events_key", MANY_EVENTS),
        ("key_scopes_pkey", MANY_KEYS),
        ("data_keys_pkey", MANY_KEYS),
    ] {
        let on_a_page = many.rows_on_a_page(index);
        let levels = |rows: f64| rows.log(on_a_page.max(2.0)).ceil().max(1.0);
        let (name, now, then) = (index.trim_start_matches("sizes_"), levels(many.rows as f64), levels(rows));
        let rows = grouped(rows as usize);
        writeln!(text, "| {name} | {} | {now} | {rows} | {then} |", on_a_page.round()).expect("a string");
    }
    text.trim_end().to_owned()
}

fn gib(bytes: f64) -> String {
    let gib = bytes / f64::from(1 << 30);
    if gib < 9.95 { format!("{gib:.1} GiB") } else { format!("{gib:.0} GiB") }
}

/// A number with a comma after every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_shown_in_a_unit_that_fits() {
        assert_eq!([0, 999, 1_000, 1_000_000].map(grouped), ["0", "999", "1,000", "1,000,000"]);
        assert_eq!([1_073_741_824.0, 107_374_182_400.0].map(gib), ["1.0 GiB", "100 GiB"]);
    }
}
