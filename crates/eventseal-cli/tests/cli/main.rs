//! The `eventseal` command as operators and scripts use it: what it does, how it ends, and what it prints.
//!
//! In every test, all output is searched for secrets (invariant I9). Help and tables are snapshots: after an intended
//! change, run `INSTA_UPDATE=always cargo test -p eventseal-cli`, and look at the diff.

/// Compares an output with its snapshot. Ids, times and places differ from run to run. They are replaced by texts of
/// the same width.
macro_rules! snapshot {
    ($world:expr, $name:expr, $output:expr) => {{
        let folder = match &$world.database {
            Database::Sqlite(db) => db.folder.path().display().to_string(),
            Database::Postgres(_) => "no folder".to_owned(),
        };
        let text = $output.out.replace(&folder, "FOLDER");
        insta::with_settings!({
            filters => vec![
                (ID, NO_ID),
                (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-01-02T03:04:05Z"),
                (r"\d{4}-\d\d-\d\d,", "2026-01-02,"),
                (r"in [0-9.]+ s \([0-9,]+/s\)", "in 0.1 s (100/s)"),
                (r"version \d[^\n]*", "version 1.2"),
                (r"[0-9.]+ s apart", "0.0 s apart"),
                (r"PostgreSQL, \S+ on \S+", "PostgreSQL, NAME on HOST"),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($world.snapshot_of($name), text) });
    }};
}

#[macro_use]
mod command;
mod appended;
mod census;
mod certificate;
mod doctor;
mod doubts;
mod drill;
mod epochs;
mod events;
mod export;
mod grants;
mod help;
mod holds;
mod json;
mod keyrings;
mod list;
mod log_output;
mod page;
mod poolers;
mod replay_process;
mod rewrap_process;
mod rotation;
mod scopes;
mod seals;
mod shred_log;
mod shred_many;
mod terminal;
mod verify;

use command::{Database, OTHER_SECRET, PASSWORD, SECRET, World, eventseal, run};
use eventseal::postgres::PostgresKeys;
use eventseal::{Keyring, Namespace};
use serde_json::Value;
use std::process::{Command, Stdio};

on_both! {
    a_database_is_set_up,
    printed_migrations_make_the_same_tables,
    tables_have_the_names_that_were_chosen,
    doctor_finds_what_is_wrong,
    newer_migrations_stop_nobody_unless_they_are_marked,
    nothing_in_the_database_moves_the_cursor,
    nothing_secret_is_printed,
}

/// An id, as a regular expression, and what a snapshot shows instead.
const ID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

async fn a_database_is_set_up(world: World) {
    world.run(&["status", "--json"]).refused(1, "not_migrated");
    snapshot!(world, "migrate", world.run(&["migrate", "--namespace", "shop"]).ended(0));
    assert_eq!(
        world.json(&["migrate", "--namespace", "shop"])["migration"],
        PostgresKeys::NEWEST_MIGRATION,
        "idempotent"
    );
    world.run(&["migrate", "--namespace", "other", "--json"]).refused(4, "namespace_mismatch");
    snapshot!(world, "status_empty", world.run(&["status"]).ended(0));
    world.run(&["rotate-kek", "--json"]).refused(1, "no_active_kek");
    assert_eq!(world.run(&["doctor", "--json"]).ended(5).json()["ok"], false);
    let made = world.json(&["prepare"]);
    assert_eq!(
        (&made["partition"], &made["state"], &made["provider"]),
        (&"default".into(), &"active".into(), &"keyring".into())
    );
    assert_eq!(world.json(&["prepare"])["kek"], made["kek"], "idempotent");
    snapshot!(world, "doctor", world.run(&["doctor"]).ended(0));
    assert_eq!(world.json(&["doctor"])["ok"], true);
    world.run(&["migrate", "--namespace", "shop", "--events"]).ended(0);
    world.append(0..3).await.unwrap();
    let status = world.json(&["status"]);
    assert_eq!((&status["namespace"], &status["keks"][0]["live_keys"]), (&"shop".into(), &4.into()));
}

async fn printed_migrations_make_the_same_tables(world: World) {
    let kind = if world.is_postgres() { "postgres" } else { "sqlite" };
    let print = format!("--print={kind}");
    let printed = run(&mut eventseal(&["migrate", "--namespace", "o'hara", &print, "--events"])).ended(0);
    assert_eq!(
        world.run(&["migrate", "--namespace", "o'hara", "--print", "--events"]).out,
        printed.out,
        "the kind of DATABASE_URL"
    );
    if !world.is_postgres() {
        assert!(printed.out.starts_with("-- Once, and not in a transaction: PRAGMA journal_mode = WAL;"));
        world.execute("PRAGMA journal_mode = WAL").await;
    }
    world.execute(printed.out).await;
    world.run(&["prepare"]).ended(0);
    let doctor = world.json(&["doctor"]);
    assert_eq!(doctor["ok"], true, "{doctor}");
    assert_eq!(world.json(&["status"])["namespace"], "o'hara");
    world.append(0..3).await.unwrap();
    assert_eq!(world.read().await, (3, 0));
    let missing = if world.is_postgres() { "tables_exist" } else { "database" };
    let failed = world.run(&["migrate", "--namespace", "o'hara", "--json"]);
    assert_eq!(failed.error()["kind"], missing);
}

async fn tables_have_the_names_that_were_chosen(world: World) {
    let names = ["--events", "--events-table", "log", "--heads-table", "log_heads", "--prefix", "shop_"];
    world.run(&[&["migrate", "--namespace", "shop"], &names[..]].concat()).ended(0);
    world.run(&["prepare", "--prefix", "shop_"]).ended(0);
    assert_eq!(world.json(&["doctor", "--prefix", "shop_"])["ok"], true);
    world.run(&["status", "--json"]).refused(1, "not_migrated");
    world.run(&["status", "--prefix", "a b", "--json"]).refused(2, "invalid_text");
    assert_eq!(
        world.column("SELECT 'x' FROM log").await.len() + world.column("SELECT 'x' FROM log_heads").await.len(),
        0
    );
    let in_schema = ["migrate", "--namespace", "shop", "--schema", "safe", "--events", "--streams"];
    if world.is_postgres() {
        world.run(&in_schema).ended(0);
        world.run(&["prepare", "--schema", "safe"]).ended(0);
        assert_eq!(world.json(&["doctor", "--schema", "safe"])["ok"], true);
        assert_eq!(world.column("SELECT stream_id FROM safe.stream_heads").await.len(), 0);
    } else {
        world.run(&[&in_schema[..], &["--json"]].concat()).refused(2, "usage");
    }
}

async fn newer_migrations_stop_nobody_unless_they_are_marked(world: World) {
    world.run(&["migrate", "--namespace", "shop", "--events"]).ended(0);
    world
        .execute(
            "INSERT INTO _keys_migrations (version, description, installed_on, success, checksum, execution_time)
             SELECT 90, 'additive', installed_on, success, checksum, execution_time FROM _keys_migrations
             WHERE version = 1",
        )
        .await;
    let said = world.run(&["migrate", "--namespace", "shop"]).ended(0);
    assert!(said.out.contains("migration 90 of a newer version"), "{said:?}");
    assert_eq!(world.json(&["migrate", "--namespace", "shop"])["migration"], 90);
    world.run(&["prepare"]).ended(0);
    assert_eq!(world.json(&["doctor"])["ok"], true);
    world.execute("UPDATE _keys_migrations SET description = 'breaking: another state' WHERE version = 90").await;
    for command in [&["migrate", "--namespace", "shop", "--json"][..], &["prepare", "--json"], &["status", "--json"]] {
        world.run(command).refused(1, "newer_tables");
    }
    let doctor = world.run(&["doctor", "--json"]).ended(5).json();
    assert!(doctor.to_string().contains("deploy the newer code"), "{doctor}");
}

async fn nothing_in_the_database_moves_the_cursor(world: World) {
    let world = world.with_keys(0..1).await;
    let forged = "a' || char(27) || '[2J' || char(10) || 'forged' || char(155) || '";
    let forged = if world.is_postgres() { forged.replace("char(", "chr(") } else { forged.to_owned() };
    // To do that, the guard in the database must be dropped first.
    let guard =
        if world.is_postgres() { "stays_itself ON key_encryption_keys" } else { "key_encryption_keys_stay_themselves" };
    world.execute(format!("DROP TRIGGER {guard}")).await;
    world.execute(format!("UPDATE key_encryption_keys SET \"partition\" = '{forged}', provider = '{forged}'")).await;
    let keyring = world.keyring("other.keyring", &format!("other:{OTHER_SECRET}"));
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--max-age", "0"],
        &["status", "--max-age", "0", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["move-master-key", "--keyring", keyring.to_str().unwrap()],
        &["move-master-key", "--keyring", keyring.to_str().unwrap(), "--json"],
    ] {
        let output = world.run(arguments);
        let text = format!("{}{}", output.out, output.err);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{arguments:?}: {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("forged")), "{arguments:?}: {text}");
    }
}

async fn doctor_finds_what_is_wrong(world: World) {
    let problems = |arguments: &[&str]| -> Vec<String> {
        let found = world.run(&[&["doctor", "--json"], arguments].concat()).ended(5).json();
        let checks = found["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
        checks
            .map(|check| {
                assert!(check["remedy"].is_string(), "{check}");
                check["check"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(problems(&[]), ["namespace"]);
    world.run(&["migrate", "--namespace", "shop"]).ended(0);
    assert_eq!(problems(&[]), ["keys"]);
    world.run(&["prepare"]).ended(0);

    assert_eq!(problems(&["--keyring", "/no/such/file"]), ["master key"]);
    let other = world.keyring("other", &format!("main:{OTHER_SECRET}\n"));
    assert_eq!(problems(&["--keyring", other.to_str().unwrap()]), ["master key"]);
    let without = run(world.command(&["doctor", "--json"]).env_remove("EVENTSEAL_KEYRING_FILE")).ended(5).json();
    assert!(without.to_string().contains("no master key"), "{without}");

    let bytes = if world.is_postgres() { "decode(repeat('01', 65), 'hex')" } else { "randomblob(65)" };
    world
        .execute(format!(
            "CREATE TABLE before AS SELECT wrapped_key FROM data_keys; UPDATE data_keys SET wrapped_key = {bytes}"
        ))
        .await;
    assert_eq!(problems(&[]), ["data keys"]);
    world.execute("UPDATE data_keys SET wrapped_key = (SELECT wrapped_key FROM before)").await;
    world.execute("UPDATE key_scopes SET state = 'shredded' WHERE scope_kind = 'Customer'").await;
    world.run(&["doctor"]).ended(0);
    world.run(&["migrate", "--namespace", "shop", "--events"]).ended(0);
    world.append(0..7).await.unwrap();
    // A restore that went wrong: there are live keys of shredded scopes.
    world.execute("UPDATE key_scopes SET state = 'shredded' WHERE scope_kind = 'Customer'").await;
    assert_eq!(problems(&[]), ["erasures", "shred log"]);
    let found = world.run(&["doctor"]).ended(5).out;
    assert!(found.contains("7 scopes shredded, and have keys again: Customer cust_0, Customer cust_1"), "{found}");
    world.execute("UPDATE key_scopes SET state = 'live'").await;
    world.run(&["doctor"]).ended(0);

    match &world.database {
        Database::Sqlite(db) => {
            let read_only = format!("sqlite://{}?mode=ro", db.folder.path().join("test.db").display());
            assert_eq!(problems(&["--database", &read_only]), ["writing"]);
        }
        Database::Postgres(db) => {
            assert_eq!(problems(&["--database", "postgres://nobody@127.0.0.1:1/none"]), ["database"]);
            let role = format!("reader_{}", uuid::Uuid::now_v7().simple());
            world
                .execute(format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"))
                .await;
            let url = sqlx::ConnectOptions::to_url_lossy(&db.options.clone().username(&role)).to_string();
            assert_eq!(problems(&["--database", &url]), ["writing"]);
            world.execute(format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
        }
    }
}

async fn nothing_secret_is_printed(world: World) {
    let world = world.with_keys(0..20).await;
    let kek = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    let mut printed = String::new();
    let commands: [&[&str]; 12] = [
        &["status"],
        &["doctor"],
        &["keys", "show", "Customer", "cust_0"],
        &["keys", "show", "$eventseal", "integrity"],
        &["rotate-data-key", "Customer", "cust_0"],
        &["rotate-kek"],
        &["rewrap"],
        &["retire-kek", &kek],
        &["move-master-key"],
        &["disable", "Customer", "cust_1", "--reason", "r"],
        &["shred", "Customer", "cust_1", "--reason", "r", "--yes"],
        &["reopen", "Customer", "cust_1", "--reason", "r"],
    ];
    let mut wrapped = world.wrapped().await;
    for arguments in commands {
        for json in [&["--json"][..], &[]] {
            let output = world.run(&[arguments, json].concat());
            printed = printed + &output.out + &output.err;
            wrapped.extend(world.wrapped().await);
        }
    }
    assert!(wrapped.len() > 100 && printed.len() > 2_000);
    assert!(!wrapped.iter().any(|wrapped| printed.contains(wrapped)), "I9: a wrapped key was printed");
}

/// A remote PostgreSQL is reached over TLS, so the command must have a TLS stack.
#[tokio::test]
async fn tls_is_built_in() {
    let world = World::postgres().await;
    let separator = if world.url().contains('?') { '&' } else { '?' };
    let refused =
        run(eventseal(&["status", "--json"]).env("DATABASE_URL", format!("{}{separator}sslmode=require", world.url())));
    assert!(!refused.err.contains("without TLS support"), "{refused:?}");
}

/// The secrets of these tests are valid keys. Otherwise the search for them would prove nothing.
#[test]
fn the_canaries_are_real_keys() {
    assert!(Keyring::parse(&format!("next:{OTHER_SECRET}\nmain:{SECRET}")).is_ok());
    assert!(Namespace::new("o'hara").is_ok());
}
