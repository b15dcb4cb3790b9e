//! A look-up among a million entries is one look into an index.

use super::{Indexed, shop};
use eventseal::blind_index::BlindLookup;
use eventseal::postgres::PostgresBlindIndex;
use eventseal::sqlite::SqliteBlindIndex;
use eventseal::{SealedStore, internals};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor};
use support::{Postgres, Sqlite};

const ROWS: u32 = 1_000_000;

/// A shop with one address, and the key and the hash of its entry.
async fn one_entry<B: Indexed>() -> (B, SealedStore<B::Store>, BlindLookup<B::Tx>, String, Vec<u8>) {
    let (db, store, emails) = shop::<B>().await;
    db.add(&store, &emails, "42", "ada@example.org").await;
    let mut connection = db.connect().await.unwrap();
    let hashes = store.blind_hashes(db.connection(&mut connection), emails.index(), "ada@example.org").await;
    let hash = hashes.unwrap().remove(0);
    drop(connection);
    (db, store, emails, hash.key_id().to_string(), hash.as_bytes().to_vec())
}

#[tokio::test]
async fn a_look_up_among_a_million_is_one_probe_on_postgres() {
    let (db, store, emails, key, hash) = one_entry::<Postgres>().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let fill = format!(
        "INSERT INTO blind_index (key_id, index_name, hash, slot, scope_kind, scope_id, generation)
         SELECT '{key}', 'customer-email', decode(lpad(to_hex(i), 32, '0'), 'hex'), '', 'Customer', 'c' || i, 1
         FROM generate_series(1, {ROWS}) AS i;
         ANALYZE blind_index"
    );
    connection.execute(AssertSqlSafe(fill)).await.unwrap();
    let sql = internals::statement_of_postgres_look_up(&PostgresBlindIndex::new());
    connection.execute(AssertSqlSafe(format!("PREPARE look_up AS {sql}"))).await.unwrap();
    let hex = hash.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    for mode in ["force_generic_plan", "force_custom_plan"] {
        connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
        let explain = AssertSqlSafe(format!(
            r"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE look_up ('customer-email', '{{{key}}}', '{{\\x{hex}}}', 1)"
        ));
        let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
        let mut scans = Vec::new();
        collect_scans(&plan, &mut scans);
        let [scan] = &scans[..] else { panic!("one look: {plan:#}") };
        assert_eq!(scan["Node Type"], "Index Scan", "{mode}: {plan:#}");
        assert_eq!(scan["Index Name"], "blind_index_pkey", "{mode}: {plan:#}");
        assert_eq!(scan["Actual Loops"].as_f64(), Some(1.0), "{mode}: {plan:#}");
        assert_eq!(scan["Actual Rows"].as_f64(), Some(1.0), "{mode}: {plan:#}");
        let condition = scan["Index Cond"].as_str().unwrap();
        for column in ["key_id", "index_name", "hash"] {
            assert!(condition.contains(column), "{mode}: {condition}");
        }
    }
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("42"));
    assert_eq!(db.find(&store, &emails, "kim@example.org").await, None);
    let explain = "EXPLAIN (FORMAT JSON) DELETE FROM blind_index WHERE scope_kind = 'Customer' AND scope_id = 'c77'";
    let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut *connection).await.unwrap();
    assert!(plan.to_string().contains("idx_blind_index_scope"), "a shred looks into an index too: {plan:#}");
}

/// The nodes of a plan that read a table.
fn collect_scans(plan: &Value, scans: &mut Vec<Value>) {
    match plan {
        Value::Array(plans) => plans.iter().for_each(|plan| collect_scans(plan, scans)),
        Value::Object(members) => {
            if members.contains_key("Relation Name") {
                scans.push(plan.clone());
            }
            members.values().for_each(|member| collect_scans(member, scans));
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_look_up_among_a_million_is_one_probe_on_sqlite() {
    let (db, store, emails, key, hash) = one_entry::<Sqlite>().await;
    let mut connection = db.pool.acquire().await.unwrap();
    let fill = format!(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO blind_index (key_id, index_name, hash, slot, scope_kind, scope_id, generation)
         SELECT '{key}', 'customer-email', CAST(printf('%016d', i) AS BLOB), x'', 'Customer', printf('c%07d', i), 1
         FROM n;
         ANALYZE blind_index"
    );
    connection.execute(AssertSqlSafe(fill)).await.unwrap();
    let sql = internals::statement_of_sqlite_look_up(&SqliteBlindIndex::new());
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
        .bind(&key)
        .bind("customer-email")
        .bind(&hash)
        .bind(1)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    let looks: Vec<&str> = plan.iter().map(|row| row.3.as_str()).filter(|step| !step.starts_with("USE TEMP")).collect();
    let probe = "SEARCH blind_index USING PRIMARY KEY (key_id=? AND index_name=? AND hash=?)";
    assert_eq!(looks, [probe], "{plan:?}");
    assert_eq!(db.find(&store, &emails, "ada@example.org").await.as_deref(), Some("42"));
    assert_eq!(db.find(&store, &emails, "kim@example.org").await, None);
    let explain = "EXPLAIN QUERY PLAN DELETE FROM blind_index WHERE scope_kind = 'Customer' AND scope_id = 'c77'";
    let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(explain).fetch_all(&mut *connection).await.unwrap();
    assert!(plan[0].3.contains("idx_blind_index_scope"), "a shred looks into an index too: {plan:?}");
}
