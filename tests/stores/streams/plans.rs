//! The plans of the statements on events, on one table and on partitions.

use super::*;

/// The arguments of each statement of a store. Statements of maintenance get 20 rows.
fn arguments(statement: &str) -> String {
    let each = |of: fn(u32) -> String| (1_000..1_020).map(of).collect::<Vec<_>>().join(", ");
    let positions = format!("ARRAY[{}]", each(|row| row.to_string()));
    let new_ids = format!("ARRAY[{}]", each(|row| format!("md5('n{row}')::uuid")));
    let versions = format!(
        "array_fill('Order'::text, ARRAY[20]), ARRAY[{}], array_fill(77::bigint, ARRAY[20])",
        each(|row| format!("'o{row}'"))
    );
    let replacements = format!(
        "{positions}, ARRAY[{}], array_fill('{{}}'::bytea, ARRAY[20]), array_fill('x'::bytea, ARRAY[20])",
        each(|row| format!("md5('{row}')::uuid"))
    );
    let documents =
        format!("{replacements}, array_fill('{{}}'::text, ARRAY[20]), array_fill('{{\"a\":1}}'::text, ARRAY[20])");
    match statement {
        "append" => {
            "'Order', 'o7', NULL, ARRAY[md5('n')::uuid], '{Placed}', '{1}', ARRAY['x'::bytea], '{NULL}', '{NULL}', \
             '{NULL}', '{NULL}', ARRAY[now()]"
        }
        "append_one" => "'Order', 'o7', NULL, md5('n')::uuid, 'Placed', 1, 'x'::bytea, NULL, NULL, NULL, NULL, now()",
        "head" => "'Order', 'o7'",
        "known_id" => &new_ids,
        "known_version" => &versions,
        "read_stream" => "'Order', 'o7', 0, 100",
        "read_log" => "1, 100",
        "read_event_types" => "1, 100, '{Seldom,None}'",
        "read_aggregate_types" => "1, 100, '{Rare,None}'",
        "read_both_types" => "1, 100, '{Seldom,None}', '{Rare,None}'",
        "last_position" => "",
        "count_events" => "1000, 2000",
        "stored_events" => "1000, 200000, '{Placed}', '{1}', true, 100, 100000",
        "stored_events_at" => &positions,
        "replace_payloads" => &replacements,
        "replace_documents" => &documents,
        "insert" => {
            "'{Order}', '{o7}', '{77}', ARRAY[md5('n')::uuid], '{Placed}', '{1}', ARRAY['x'::bytea], '{NULL}', \
             '{NULL}', '{NULL}', '{NULL}', ARRAY[now()], '{199000}'"
        }
        "move_heads" => "'{Order}', '{o7}', '{77}'",
        other => panic!("{other} is not looked at"),
    }
    .to_owned()
}

/// The statements on events. Those of the index of seals have a test of their own, in `postgres/plans.rs`.
fn of_events(store: &PostgresStore) -> Vec<(&'static str, Arc<str>)> {
    let mut statements = internals::event_statements_of(store);
    statements.retain(|(statement, _)| !statement.contains("seal"));
    statements
}

/// A page of the log costs what it holds, however much the log has of other types, whether PostgreSQL plans for these
/// values or for any; on one table, and on partitions.
#[tokio::test]
async fn filtered_reads_and_appends_use_indexes() {
    for tables in [PostgresTables::new(), PostgresTables::streams()] {
        let db = Postgres::empty().await;
        let store = PostgresStore::with_tables(tables.clone()).unwrap();
        let mut connection = db.pool.acquire().await.unwrap();
        let name = if tables == PostgresTables::new() {
            store.migrate(&mut connection).await.unwrap();
            "aggregate"
        } else {
            db.partitioned(&[(1, 50_000), (50_000, 100_000)]).await;
            "stream"
        };
        let fill = format!(
            "INSERT INTO events ({name}_type, {name}_id, {name}_version, event_id, event_type, payload)
             SELECT CASE WHEN i % 50000 = 0 THEN 'Rare' ELSE 'Order' END, 'o' || i / 10, i % 10 + 1, md5(i::text)::uuid,
                     CASE WHEN i % 30000 = 0 THEN 'Seldom' ELSE 'Placed' END, '{{}}'
             FROM generate_series(1, 120000) AS i"
        );
        connection.execute(AssertSqlSafe(fill)).await.unwrap();
        connection.execute("VACUUM ANALYZE events").await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let filter = |aggregates: &[&str], events: &[&str]| EventFilter {
            aggregate_types: aggregates.iter().map(ToString::to_string).collect(),
            event_types: events.iter().map(ToString::to_string).collect(),
        };
        for (filter, expected) in [
            (filter(&[], &["Seldom"]), vec![30_000, 60_000, 90_000]),
            (filter(&["Rare", "Rare", "None"], &[]), vec![50_000, 100_000]),
            (filter(&["Order"], &["Seldom", "None"]), vec![30_000, 60_000, 90_000]),
            (filter(&["Rare", "Order"], &["Placed", "Seldom"]), vec![2, 3, 4]),
        ] {
            let page = store.read_events(&mut tx, 1.try_into().unwrap(), 3, &filter).await.unwrap();
            let found: Vec<_> = page.events.iter().map(|event| event.global_position.get()).collect();
            assert_eq!((found, page.scanned as usize), (expected.clone(), expected.len()), "{filter:?}");
        }
        drop(tx);
        for (statement, sql) in of_events(&store) {
            let arguments = arguments(statement);
            let statement = format!("{statement}_{name}");
            connection.execute(AssertSqlSafe(format!("PREPARE {statement} AS {sql}"))).await.unwrap();
            for mode in ["force_generic_plan", "force_custom_plan"] {
                connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
                let execute =
                    if arguments.is_empty() { statement.clone() } else { format!("{statement}({arguments})") };
                // Run, not only planned: what counts is what is read.
                connection.execute("BEGIN").await.unwrap();
                let explain = AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {execute}"));
                let plan: serde_json::Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
                connection.execute("ROLLBACK").await.unwrap();
                let text = plan.to_string();
                // Of an empty partition, all is read by a scan.
                assert!(
                    !text.contains("Seq Scan") || text.contains("events_default"),
                    "{statement} ({mode}): {plan:#}"
                );
                let plan = &plan[0]["Plan"];
                let pages = |member: &str| plan[member].as_u64().unwrap();
                let read = pages("Shared Hit Blocks") + pages("Shared Read Blocks");
                // A row that is written again is written into every index.
                let most = if statement.starts_with("replace_") { 800 } else { 400 };
                assert!(read < most, "{statement} ({mode}) reads {read} pages: {plan:#}");
            }
        }
    }
}

/// Partitions are made before anything is in them, and connections live for long: a plan that was made then is still
/// the one when they are full.
#[tokio::test]
async fn plans_that_were_made_for_empty_tables_are_good_for_full_ones() {
    for (tables, name) in [(PostgresTables::new(), "aggregate"), (PostgresTables::streams(), "stream")] {
        let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(tables).unwrap());
        let mut connection = db.pool.acquire().await.unwrap();
        match name {
            "aggregate" => store.migrate(&mut connection).await.unwrap(),
            _ => db.partitioned(&[(1, 50_000), (50_000, 200_000)]).await,
        }
        connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
        let mut executes = Vec::new();
        // Payloads are replaced where there are events already: its plan is made then.
        let statements = of_events(&store).into_iter();
        for (statement, sql) in statements.filter(|(statement, _)| !statement.starts_with("replace_")) {
            connection.execute(AssertSqlSafe(format!("PREPARE {statement} AS {sql}"))).await.unwrap();
            let arguments = Some(arguments(statement)).filter(|arguments| !arguments.is_empty());
            let execute = format!(
                "EXECUTE {statement} {}",
                arguments.map_or_else(String::new, |arguments| format!("({arguments})"))
            );
            connection.execute(AssertSqlSafe(format!("BEGIN; {execute}; ROLLBACK"))).await.unwrap();
            executes.push(execute);
        }
        let fill = format!(
            "INSERT INTO events ({name}_type, {name}_id, {name}_version, event_id, event_type, payload)
             SELECT 'Order', 'o' || i / 10, i % 10 + 1, md5(i::text)::uuid,
                 CASE WHEN i % 30000 = 0 THEN 'Seldom' ELSE 'Placed' END, '{{}}'
             FROM generate_series(100, 120000) AS i"
        );
        db.pool.execute(AssertSqlSafe(fill)).await.unwrap();
        for execute in executes {
            connection.execute("BEGIN").await.unwrap();
            let explain = AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}"));
            let plan: serde_json::Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
            connection.execute("ROLLBACK").await.unwrap();
            let pages = |member: &str| plan[0]["Plan"][member].as_u64().unwrap();
            let read = pages("Shared Hit Blocks") + pages("Shared Read Blocks");
            assert!(read < 600, "{execute} of {name} reads {read} pages: {plan:#}");
        }
    }
}
