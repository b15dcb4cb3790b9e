//! Look-ups in key tables of several sizes.

use super::Subject;
use crate::bench::{Bench, time, way};
use crate::database::Postgres;
use crate::fixture;
use crate::measured::{Measured, Report};
use eventseal::keys::{KeyId, KeyStore};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{EventStore, ExpectedVersion, SealedStore, aggregate, internals};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::cell::RefCell;
use uuid::Uuid;

pub(super) const SUBJECT: Subject = Subject {
    name: "keys",
    title: "Key table",
    about: "The rows of data keys are looked up by their ids: one, as for a page of one customer, and 500, as for a \
        page of as many customers. The ids change with every look-up. A large table stands beside a small one. The \
        goal of 1.5 is this document's own: the look-up is to grow no faster than the height of an index.",
    run,
};

const SMALL: usize = 1_000;
const PAGE: usize = 500;

fn run(bench: &Bench) -> Report {
    let mut sizes = vec![bench.pick(600, 1_000_000, 1_000_000)];
    sizes.extend((bench.pick(0, 0, 1) == 1).then_some(10_000_000));
    let small = Table::with(bench, SMALL);
    let (mut rows, mut texts) = (Vec::new(), Vec::new());
    for size in sizes {
        let large = Table::with(bench, size);
        let name = if size >= 1_000_000 { format!("{},000,000", size / 1_000_000) } else { size.to_string() };
        for count in [1, PAGE] {
            let times = if count == 1 { bench.pick(1, 200, 200) } else { bench.pick(1, 5, 5) };
            let ways = [&small, &large].map(|table| way(move || table.look_up(count, times)));
            let [few, many] = bench.compare(&format!("{count} of {name}"), bench.pick(1, 60, 150), times, ways);
            let what = format!("look up {count} of {name} rows");
            rows.push(Measured::time(what, &many, "of 1,000 rows", &few).reach(1.5));
        }
        texts.push((format!("The plan of the look-up among {name} rows:"), large.plan()));
    }
    Report { rows, texts, ..Report::default() }
}

struct Table {
    db: Postgres,
    ids: Vec<KeyId>,
    connection: RefCell<PgConnection>,
    next: RefCell<usize>,
}

impl Table {
    fn with(bench: &Bench, rows: usize) -> Self {
        bench.say("filling the key table");
        let db = Postgres::new(&format!("keys_{rows}"));
        let mut connection = db.connection();
        fill(&db, &mut connection, rows);
        let ids = db.block_on(async {
            // A sample of those in the whole table, in no order.
            let ids = "SELECT key_id FROM data_keys WHERE scope_kind = 'Customer' ORDER BY random() LIMIT 100000";
            sqlx::query_scalar::<_, Uuid>(ids).fetch_all(&mut connection).await.unwrap()
        });
        let ids = ids.into_iter().map(KeyId).collect();
        Self { db, ids, connection: RefCell::new(connection), next: RefCell::new(0) }
    }

    /// Looks up this many keys, several times.
    fn look_up(&self, count: usize, times: usize) -> std::time::Duration {
        let mut connection = self.connection.borrow_mut();
        let keys = PostgresKeys::new();
        let pages: Vec<Vec<KeyId>> = (0..times)
            .map(|_| {
                let first = self.next.replace_with(|next| *next + count);
                (first..first + count).map(|at| self.ids[at % self.ids.len()]).collect()
            })
            .collect();
        time(|| {
            self.db.block_on(async {
                for page in &pages {
                    assert_eq!(keys.data_keys(&mut connection, page).await.unwrap().len(), count);
                }
            });
        })
    }

    /// The plan of the look-up, which must be all indexes.
    fn plan(&self) -> String {
        let statements = internals::statements_of(&PostgresKeys::new());
        let (_, sql) = statements.iter().find(|(name, _)| *name == "data_keys").expect("the look-up is a statement");
        let mut connection = self.connection.borrow_mut();
        let ids: Vec<String> = self.ids.iter().take(PAGE).map(|id| id.0.to_string()).collect();
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE look_up('{{{}}}')", ids.join(","));
        let lines: Vec<String> = self.db.block_on(async {
            connection.execute(AssertSqlSafe(format!("PREPARE look_up AS {sql}"))).await.unwrap();
            // The plan for any values, which a prepared statement keeps.
            connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
            sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *connection).await.unwrap()
        });
        assert!(!lines.iter().any(|line| line.contains("Seq Scan")), "a table is read from end to end: {lines:#?}");
        lines.join("\n")
    }
}

/// Fills the key table with this many keys, each of a scope of its own. Returns a store that sealed for the first.
pub(super) fn fill(db: &Postgres, connection: &mut PgConnection, keys: usize) -> SealedStore<PostgresStore> {
    let store = db.sealed(db.tables("wrapped"), fixture::schemas());
    db.block_on(async {
        let mut tx = connection.begin().await.unwrap();
        let events = fixture::events(&fixture::customer(0), 1);
        store.append(&mut tx, &aggregate("Order", "1"), ExpectedVersion::NoStream, &events).await.unwrap();
        tx.commit().await.unwrap();
        copy(connection, "key", keys - 1).await;
        connection.execute("VACUUM ANALYZE key_scopes, data_keys").await.unwrap();
    });
    store
}

/// Adds scopes of this name, with a key each. Nothing here opens these keys, so they are all copies.
pub(super) async fn copy(connection: &mut PgConnection, name: &str, count: usize) {
    let sql = "WITH first AS (SELECT * FROM data_keys WHERE scope_kind = 'Customer' ORDER BY scope_id LIMIT 1),
        fresh AS (SELECT $1 || '-' || n AS scope_id, gen_random_uuid() AS key_id FROM generate_series(1, $2) AS n),
        scopes AS (
            INSERT INTO key_scopes (scope_kind, scope_id, state, generation, active_key_id)
            SELECT 'Customer', scope_id, 'live', 1, key_id FROM fresh)
        INSERT INTO data_keys (key_id, scope_kind, scope_id, version, wrapped_key, kek_id, state, created_at)
        SELECT fresh.key_id, 'Customer', fresh.scope_id, 1, first.wrapped_key, first.kek_id, 'live', first.created_at
        FROM fresh CROSS JOIN first";
    sqlx::query(sql).bind(name).bind(i64::try_from(count).unwrap()).execute(connection).await.unwrap();
}
