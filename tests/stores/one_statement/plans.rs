//! The plans of the statements that also check or read keys.

use super::{database, layouts};
use eventseal::internals;
use sqlx::{AssertSqlSafe, Executor};

/// A million rows would show no more: each is reached through an index.
const FILL: &str = "
    INSERT INTO shop_key_encryption_keys
        (kek_id, \"partition\", provider, master_key_id, wrapped_kek, created_at, wrapped_at, state)
        VALUES (md5('kek')::uuid, 'default', 'keyring', 'main', 'x', now(), now(), 'active');
    INSERT INTO shop_key_scopes (scope_kind, scope_id, state, generation)
        SELECT 'Customer', 'c' || i, 'live', 1 FROM generate_series(1, 50000) AS i;
    INSERT INTO shop_data_keys (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
        SELECT md5(i::text)::uuid, 'Customer', 'c' || i, 1, md5('kek')::uuid, 'x', now(), 'live'
        FROM generate_series(1, 50000) AS i;
    UPDATE shop_key_scopes SET active_key_id = md5(substr(scope_id, 2))::uuid;
    INSERT INTO events ({name}_type, {name}_id, {name}_version, event_id, event_type, payload)
        SELECT 'Order', 'o' || i / 10, i % 10 + 1, md5(i::text)::uuid, 'Placed', '{}'
        FROM generate_series(1, 50000) AS i;
    INSERT INTO {heads} ({name}_type, {name}_id, {name}_version, updated_at)
        SELECT 'Order', 'o' || i, 10, now() FROM generate_series(1, 5000) AS i;
    ANALYZE";

/// The arguments of a statement, the last of which are those of the check or the read.
fn arguments(statement: &str, index_seals: bool) -> String {
    let indexed = if index_seals { ", '{1}', ARRAY[md5('7')::uuid]" } else { "" };
    let integrity = "md5('i')::uuid, 1, md5('kek')::uuid, 'x'::bytea";
    match statement {
        "append_one" => format!(
            "'Order', 'new', NULL, md5('n')::uuid, 'Placed', 1, 'x'::bytea, NULL, NULL, NULL, NULL, now(){indexed}, \
             'Customer', 'c7', md5('7')::uuid, 1, md5('kek')::uuid, 'x'::bytea, {integrity}"
        ),
        "append" => format!(
            "'Order', 'new', NULL, ARRAY[md5('n')::uuid], '{{Placed}}', '{{1}}', ARRAY['x'::bytea], '{{NULL}}', \
             '{{NULL}}', '{{NULL}}', '{{NULL}}', ARRAY[now()]{indexed}, '{{Customer,Customer}}', '{{c7,c8}}', \
             ARRAY[md5('7'), md5('8')]::uuid[], '{{1,1}}', ARRAY[md5('kek'), md5('kek')]::uuid[], \
             ARRAY['x', 'x']::bytea[], {integrity}"
        ),
        "read_stream" => "'Order', 'o7', 0, 100, ARRAY[md5('7'), md5('8')]::uuid[]".to_owned(),
        other => panic!("{other} is not looked at"),
    }
}

#[tokio::test]
async fn keys_are_reached_through_indexes_whatever_the_tables_held_when_a_plan_was_made() {
    for tables in layouts() {
        let (db, store, keys) = database(tables.clone()).await;
        let (name, heads) = match tables.clone().events_first() == tables {
            true => ("aggregate", "aggregate_heads"),
            false => ("stream", "stream_heads"),
        };
        let index_seals = tables.clone().index_seals() == tables;
        let mut connection = db.pool.acquire().await.unwrap();
        let mut executes = Vec::new();
        connection.execute("SET plan_cache_mode = force_generic_plan").await.unwrap();
        for (statement, sql) in internals::statements_beside(&store, &keys) {
            connection.execute(AssertSqlSafe(format!("PREPARE {statement} AS {sql}"))).await.unwrap();
            let execute = format!("EXECUTE {statement} ({})", arguments(statement, index_seals));
            connection.execute(AssertSqlSafe(format!("BEGIN; {execute}; ROLLBACK"))).await.unwrap();
            executes.push(execute);
        }
        connection.execute(AssertSqlSafe(FILL.replace("{name}", name).replace("{heads}", heads))).await.unwrap();
        for mode in ["force_generic_plan", "force_custom_plan"] {
            connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
            for execute in &executes {
                connection.execute("BEGIN").await.unwrap();
                let explain = AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {execute}"));
                let plan: serde_json::Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
                connection.execute("ROLLBACK").await.unwrap();
                assert!(!plan.to_string().contains("Seq Scan"), "{execute} ({mode}): {plan:#}");
                let plan = &plan[0]["Plan"];
                let pages = |member: &str| plan[member].as_u64().unwrap();
                let read = pages("Shared Hit Blocks") + pages("Shared Read Blocks");
                assert!(read < 200, "{execute} ({mode}) reads {read} pages: {plan:#}");
            }
        }
    }
}
