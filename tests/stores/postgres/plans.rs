//! Prepared statements and their plans.

use super::{placed, store};
use eventseal::ExpectedVersion::{Exact, NoStream};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{AggregateVersion, EventStore, EventStoreExt, aggregate, internals};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor};
use support::Postgres;
use uuid::Uuid;

#[tokio::test]
async fn statements_are_prepared_once() {
    let db = Postgres::new().await;
    let store = store(&db).await;
    let mut connection = db.pool.acquire().await.unwrap();
    let mut counts = Vec::new();
    for round in 0..30 {
        let mut tx = connection.begin().await.unwrap();
        let order = aggregate("Order", "1");
        let expected = if round == 0 { NoStream } else { Exact(AggregateVersion::try_from(round).unwrap()) };
        store.append(&mut tx, &order, expected, &[placed("42")]).await.unwrap();
        store.read_stream(&mut tx, &order).await.unwrap();
        tx.commit().await.unwrap();
        counts.push(
            sqlx::query_scalar::<_, i64>("SELECT count(*) FROM pg_prepared_statements")
                .fetch_one(&mut *connection)
                .await
                .unwrap(),
        );
    }
    assert_eq!(counts[1], counts[29], "{counts:?}");
    let planned_anew: i64 =
        sqlx::query_scalar("SELECT max(custom_plans) FROM pg_prepared_statements WHERE statement LIKE '%UNNEST%'")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    assert!(planned_anew <= 5, "a statement is planned anew each time");
}

/// Every look into a key table of a million rows goes through an index, whether PostgreSQL plans for these values or
/// for any.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a list of statements")]
async fn statements_on_a_million_keys_use_indexes() {
    const ROWS: i64 = 1_000_000;
    let db = Postgres::new().await;
    let mut connection = db.pool.acquire().await.unwrap();
    // Filling an index row by row costs more than building it from a table.
    let tables = "('key_scopes'::regclass, 'data_keys'::regclass, 'shred_entries'::regclass)";
    connection
        .execute(AssertSqlSafe(format!(
            "BEGIN;
             UPDATE pg_index SET indisready = false, indisvalid = false WHERE indrelid IN {tables};
             INSERT INTO key_encryption_keys
                 VALUES (md5('kek')::uuid, 'default', 'local', 'main', '\\x00', 'active', now());
             ALTER TABLE data_keys DISABLE TRIGGER ALL;
             ALTER TABLE shred_entries DISABLE TRIGGER ALL;
             INSERT INTO key_scopes
                 SELECT 'Customer', 'c' || i, 'live', 1, md5(i::text)::uuid FROM generate_series(1, {ROWS}) AS i;
             INSERT INTO data_keys SELECT md5(i::text)::uuid, 'Customer', 'c' || i, 1,
                 decode(repeat('ab', 65), 'hex'), md5('kek')::uuid,
                 'live', now() FROM generate_series(1, {ROWS}) AS i;
             INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, action, state, generation, reason,
                     decided_at)
                 SELECT md5(i::text)::uuid, 'Customer', 'c' || i, 1, 'disable', 'disabled', 1, 'plan', now()
                     FROM generate_series(1, {ROWS}) AS i;
             ALTER TABLE shred_log DISABLE TRIGGER ALL;
             INSERT INTO shred_log
                 SELECT i, md5(i::text)::uuid, '\\x00', '\\x00', md5(i::text)::uuid, '\\x00'
                     FROM generate_series(1, 100000) AS i;
             ALTER TABLE shred_log ENABLE TRIGGER ALL;
             ALTER TABLE data_keys ENABLE TRIGGER ALL;
             ALTER TABLE shred_entries ENABLE TRIGGER ALL;
             REINDEX TABLE key_scopes;
             REINDEX TABLE data_keys;
             REINDEX TABLE shred_entries;
             COMMIT;
             ANALYZE;"
        )))
        .await
        .unwrap();
    let unusable = "SELECT count(*) FROM pg_index WHERE NOT (indisready AND indisvalid)";
    assert_eq!(sqlx::query_scalar::<_, i64>(unusable).fetch_one(&mut *connection).await.unwrap(), 0);
    let ids: Vec<Uuid> =
        sqlx::query_scalar("SELECT key_id FROM data_keys LIMIT 100").fetch_all(&mut *connection).await.unwrap();
    let list = |count: usize, of: &dyn Fn(usize) -> String| {
        format!("'{{{}}}'", (0..count).map(of).collect::<Vec<_>>().join(","))
    };
    let statements = internals::statements_of(&PostgresKeys::new());
    assert!(statements.len() >= 15);
    // Reports for operators, which count every row.
    let counts = ["kek_usage", "count_keys_of_kek", "log_disagreements", "restored_scopes"];
    for (name, sql) in statements.into_iter().filter(|(name, _)| !counts.contains(name)) {
        connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).await.unwrap();
        let types: Vec<String> =
            sqlx::query_scalar("SELECT unnest(parameter_types)::text FROM pg_prepared_statements WHERE name = $1")
                .bind(name)
                .fetch_all(&mut *connection)
                .await
                .unwrap();
        for (mode, count) in [("force_generic_plan", 1), ("force_custom_plan", 1), ("force_custom_plan", 100)] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            let kinds = list(count, &|_| "Customer".to_owned());
            let scopes = list(count, &|index| format!("c{}", 1 + index * 997));
            let mut texts = [&kinds, &scopes].into_iter().cycle();
            let mut words = ["'Customer'", "'c77'", "'shred'", "'shredded'", "'reason'", "'actor'"].into_iter().cycle();
            let values = types.iter().map(|kind| match kind.as_str() {
                "text[]" => texts.next().unwrap().clone(),
                "uuid[]" => list(count, &|index| ids[index].to_string()),
                "text" => words.next().unwrap().to_owned(),
                "bigint[]" => list(count, &|_| "2".to_owned()),
                "bytea[]" => list(count, &|_| r"\\x00".to_owned()),
                "timestamp with time zone[]" => list(count, &|_| "2026-01-01".to_owned()),
                "bigint" => "2".to_owned(),
                "uuid" => format!("'{}'", ids[0]),
                "bytea" => r"'\x00'".to_owned(),
                "timestamp with time zone" => "'2026-01-01'".to_owned(),
                other => panic!("{name} has a parameter of type {other}"),
            });
            let values = values.collect::<Vec<_>>().join(", ");
            let arguments = if values.is_empty() { String::new() } else { format!("({values})") };
            let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {name}{arguments}"));
            let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
            let mut scans = Vec::new();
            collect_scans(&plan, &mut scans);
            for (node, relation) in &scans {
                // These have a handful of rows.
                let small = ["key_namespace", "key_encryption_keys", "shred_log_head"].contains(&relation.as_str());
                assert!(small || node.contains("Index"), "{name} ({mode}): {node} on {relation}\n{plan:#}");
            }
            let writes_only =
                ["set_namespace", "insert_kek", "create_scopes", "add_entry", "add_log_rows", "add_tombstone"];
            assert!(!scans.is_empty() || writes_only.contains(&name), "{name}: the plan was not understood\n{plan:#}");
        }
    }
}

/// Each look into the index of seals goes through one of its indexes, also with a plan that was made while the tables
/// were empty, and an append that keeps it reads no table.
#[tokio::test]
async fn the_index_of_seals_is_not_read_from_end_to_end() {
    let db = Postgres::new().await;
    let keeping = PostgresStore::with_tables(PostgresTables::new().index_seals()).unwrap();
    let mut connection = db.pool.acquire().await.unwrap();
    keeping.migrate(&mut connection).await.unwrap();
    let names = ["append", "seal_add", "seal_positions", "events_without_seal"];
    let statements: Vec<_> = internals::event_statements_of(&keeping);
    let statements: Vec<_> = statements.into_iter().filter(|(name, _)| names.contains(name)).collect();
    assert_eq!(statements.len(), names.len());
    let explain = async |connection: &mut sqlx::PgConnection, name: &str| {
        let values = match name {
            "append" => {
                "'Order', '7', NULL, ARRAY[gen_random_uuid()], '{Placed}', '{1}', ARRAY[''::bytea], '{NULL}', '{NULL}',
                 '{NULL}', '{NULL}', '{2026-01-01}', '{1}', ARRAY[gen_random_uuid()]"
            }
            "seal_add" => "'{7}', ARRAY[gen_random_uuid()]",
            "seal_positions" => "ARRAY[md5('77')::uuid, md5('78')::uuid], 0, 9223372036854775807, 100",
            _ => "400000, 9223372036854775807, 100, 1000000",
        };
        let sql = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE {name} ({values})"));
        sqlx::query_scalar::<_, Value>(sql).fetch_one(&mut *connection).await.unwrap()
    };
    // Plans for any values are made while the tables are empty, and are kept.
    connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
    for (name, sql) in &statements {
        connection.execute(AssertSqlSafe(format!("PREPARE {name} AS {sql}"))).await.unwrap();
        explain(&mut connection, name).await;
    }
    for is_full in [false, true] {
        if is_full {
            let fill =
                "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload)
                 SELECT 'Order', i::text, 1, md5(i::text)::uuid, 'Placed', '' FROM generate_series(1, 200000) AS i;
                 INSERT INTO sealed_events SELECT i, md5((i / 10)::text)::uuid FROM generate_series(1, 199000) AS i;
                 ANALYZE events; ANALYZE sealed_events";
            connection.execute(fill).await.unwrap();
        }
        for mode in ["force_generic_plan", "force_custom_plan"] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            for (name, _) in &statements {
                let plan = explain(&mut connection, name).await;
                let mut scans = Vec::new();
                collect_scans(&plan, &mut scans);
                for (node, relation) in &scans {
                    let by_index = node.contains("Index") || node == "Bitmap Heap Scan";
                    assert!(by_index, "{name} ({mode}, full: {is_full}): {node} on {relation}\n{plan:#}");
                }
                assert!(!scans.is_empty() || name == &"seal_add", "{name}: the plan was not understood\n{plan:#}");
                let text = plan.to_string();
                let expected = match *name {
                    "seal_positions" => Some("idx_sealed_events_key"),
                    "events_without_seal" => Some("sealed_events_pkey"),
                    _ => None,
                };
                assert!(expected.is_none_or(|index| text.contains(index)), "{name} ({mode})\n{plan:#}");
            }
        }
    }
}

/// The nodes of a plan that read a table.
fn collect_scans(plan: &Value, scans: &mut Vec<(String, String)>) {
    match plan {
        Value::Array(plans) => plans.iter().for_each(|plan| collect_scans(plan, scans)),
        Value::Object(members) => {
            if let (Some(node), Some(relation)) = (members.get("Node Type"), members.get("Relation Name"))
                && node != "ModifyTable"
            {
                scans.push((node.as_str().unwrap().to_owned(), relation.as_str().unwrap().to_owned()));
            }
            members.values().for_each(|member| collect_scans(member, scans));
        }
        _ => {}
    }
}
