//! Whether `eventseal doctor` finds out that appends in the configured order can work, on PostgreSQL.

use crate::command::{Database, World};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};

async fn sql(world: &World, sql: &str) {
    let Database::Postgres(db) = &world.database else { unreachable!() };
    db.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// The check `write order`, if doctor made it.
fn order(world: &World, arguments: &[&str], code: i32) -> Option<Value> {
    let found = world.run(&[&["doctor", "--json"], arguments].concat()).ended(code).json();
    found["checks"].as_array().unwrap().iter().find(|check| check["check"] == "write order").cloned()
}

#[track_caller]
fn problem(world: &World, arguments: &[&str], found: &str, remedy: &str) {
    let check = order(world, arguments, 5).unwrap();
    assert!(
        check["found"].as_str().unwrap().contains(found) && check["remedy"].as_str().unwrap().contains(remedy),
        "{check}"
    );
}

#[track_caller]
fn good(world: &World, arguments: &[&str], found: &str) {
    let check = order(world, arguments, 0).unwrap();
    assert!(check["ok"] == true && check["found"].as_str().unwrap().contains(found), "{check}");
}

#[tokio::test]
async fn doctor_looks_whether_events_can_be_written_in_the_configured_order() {
    let world = World::postgres().await.with_keys(0..1).await;
    good(&world, &[], "events first");
    good(&world, &["--heads-first"], "heads first");
    sql(&world, "ALTER TABLE events DROP CONSTRAINT events_aggregate_type_aggregate_id_aggregate_version_key").await;
    problem(&world, &[], "without a unique constraint on type, id and version", "heads_first");
    good(&world, &["--heads-first"], "heads first");
    // ON CONFLICT can't use a deferrable constraint.
    let deferrable = "ALTER TABLE events ADD UNIQUE (aggregate_type, aggregate_id, aggregate_version) DEFERRABLE";
    sql(&world, deferrable).await;
    problem(&world, &[], "without a unique constraint on type, id and version", "heads_first");
    sql(&world, "ALTER TABLE aggregate_heads DROP CONSTRAINT aggregate_heads_pkey").await;
    problem(&world, &["--heads-first"], "the heads have no unique constraint", "primary key");
    sql(&world, "DROP TABLE aggregate_heads").await;
    problem(&world, &[], "the table of heads is missing", "--heads-table");
    sql(&world, "DROP TABLE events").await;
    assert_eq!(order(&world, &[], 0), None, "keys may have a database of their own");
    problem(&world, &["--events-table", "events"], "there is no table", "--events-table");
}

#[tokio::test]
async fn doctor_looks_at_partitions() {
    let world = World::postgres().await;
    world.run(&["migrate", "--namespace", "shop"]).ended(0);
    world.run(&["prepare"]).ended(0);
    let Database::Postgres(db) = &world.database else { unreachable!() };
    db.partitioned(&[(1, 10)]).await;
    good(&world, &[], "heads first, as eventsalsa from 0.1 on; events are partitioned");
    sql(&world, "DROP INDEX idx_events_event_id").await;
    problem(&world, &[], "events are partitioned, without an index on event_id", "CREATE INDEX");
    sql(&world, "CREATE INDEX ON events (event_id)").await;
    good(&world, &[], "heads first, as eventsalsa from 0.1 on; events are partitioned");
    // Columns of eventsalsa 0.0 on partitions: appends in the order of 0.0 can't work.
    for column in ["type", "id", "version"] {
        for table in ["events", "stream_heads"] {
            sql(&world, &format!("ALTER TABLE {table} RENAME COLUMN stream_{column} TO aggregate_{column}")).await;
        }
    }
    problem(&world, &["--heads-table", "stream_heads"], "appends that write events first fail", "heads_first");
    good(&world, &["--heads-table", "stream_heads", "--heads-first"], "heads first");
}
