//! The `eventseal` command as operators and scripts use it: what it does, how it ends, and what it prints.
//!
//! In every test, all output is searched for secrets (invariant I9). Help and tables are snapshots: after an intended
//! change, run `INSTA_UPDATE=always cargo test -p eventseal-cli`, and look at the diff.

#[macro_use]
mod command;
mod census;
mod doctor;
mod doubts;
mod events;
mod grants;
mod json;
mod keyrings;
mod poolers;
mod rewrap_process;
mod terminal;

use command::{Database, OTHER_SECRET, PASSWORD, SECRET, World, eventseal, run};
use eventseal::postgres::PostgresKeys;
use eventseal::{Keyring, Namespace};
use serde_json::Value;
use std::process::{Command, Stdio};

const COMMANDS: [&[&str]; 18] = [
    &[],
    &["migrate"],
    &["prepare"],
    &["status"],
    &["census"],
    &["doctor"],
    &["keys"],
    &["keys", "show"],
    &["shred"],
    &["reopen"],
    &["disable"],
    &["enable"],
    &["rotate-data-key"],
    &["rotate-kek"],
    &["rewrap"],
    &["retire-kek"],
    &["move-master-key"],
    &["completions"],
];

on_both! {
    a_database_is_set_up,
    a_scope_is_shown_shredded_and_reopened,
    the_history_names_who_did_it,
    keys_are_put_out_of_use_and_back,
    keys_are_rotated_rewrapped_and_retired,
    a_key_that_does_not_open_is_named,
    keys_move_to_another_master_key,
    partitions_are_kept,
    printed_migrations_make_the_same_tables,
    tables_have_the_names_that_were_chosen,
    doctor_finds_what_is_wrong,
    newer_migrations_stop_nobody_unless_they_are_marked,
    nothing_in_the_database_moves_the_cursor,
    a_lock_that_others_hold_is_not_waited_for_for_ever,
    nothing_secret_is_printed,
    what_is_about_to_change_is_named_first,
}

/// An id, as a regular expression, and what a snapshot shows instead.
const ID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

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

async fn a_scope_is_shown_shredded_and_reopened(world: World) {
    let world = world.with_keys(0..3).await;
    let scope = ["Customer", "cust_1"];
    let key = world.json(&[&["keys", "show"], &scope[..]].concat())["keys"][0]["key"].clone();
    world.run(&["keys", "show", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");

    // Nobody can be asked to confirm, so nothing is done.
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118"]).ended(4);
    world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--json"]).refused(4, "not_confirmed");
    // A misspelled id must not look like an erasure.
    world
        .run(&["shred", "Customer", "cust_99", "--reason", "request 118", "--yes", "--json"])
        .refused(4, "unknown_scope");
    world
        .run(&["shred", "$eventseal", "integrity", "--reason", "why not", "--yes", "--json"])
        .refused(4, "scope_state");
    world.run(&["shred", "Customer", "cust_1", "--reason", "", "--yes", "--json"]).refused(2, "invalid_text");
    world
        .run(&["shred", "Customer", "cust_1", "--reason", "r", "--actor", "", "--yes", "--json"])
        .refused(2, "invalid_text");
    world.run(&["shred", "Customer", "cust_1", "--yes", "--json"]).refused(2, "usage");
    assert_eq!(world.read().await, (3, 0), "nothing was shredded so far");

    world.run(&["rotate-data-key", "Customer", "cust_1"]).ended(0);
    // There is no master key: an erasure must not depend on the KMS.
    let shredded = run(world
        .command(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes", "--actor", "clerk 7"])
        .env_remove("EVENTSEAL_KEYRING_FILE"));
    snapshot!(world, "shred", shredded.ended(0));
    assert_eq!(world.read().await, (2, 1));
    let again = world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    assert_eq!((&again["destroyed"], &again["was_shredded"]), (&Value::Array(Vec::new()), &true.into()));
    assert_eq!((&again["destroyed_before"], &again["namespace"]), (&2.into(), &"shop".into()));
    let again = world.run(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]).ended(0);
    assert!(
        again.out.starts_with(
            "Nothing was left to do: Customer cust_1 was shredded before. 2 data keys were destroyed then."
        ),
        "{again:?}"
    );
    assert!(again.err.starts_with("Shredding Customer cust_1 for good in namespace shop ("), "{again:?}");

    let reopened =
        world.json(&["reopen", "Customer", "cust_1", "--reason", "came back\nwith\u{1b}[2J", "--actor", "clerk\n8"]);
    assert_eq!(reopened["key"]["version"], 3);
    world.run(&["reopen", "Customer", "cust_1", "--reason", "again", "--json"]).refused(4, "scope_state");
    world.run(&["reopen", "Customer", "cust_99", "--reason", "again", "--json"]).refused(4, "unknown_scope");
    world.append(1..2).await.unwrap();
    assert_eq!(world.read().await, (3, 1), "what was shredded stays shredded");
    let shown = world.run(&["keys", "show", "Customer", "cust_1"]).ended(0);
    assert!(!shown.out.contains('\u{1b}'), "reasons and ids are somebody else's words");
    snapshot!(world, "keys_show", shown);
    let history = world.json(&["keys", "show", "Customer", "cust_1"]);
    assert_eq!(history["keys"][0]["key"], key);
    assert_eq!(
        history["changes"].as_array().unwrap().iter().map(|change| change["action"].clone()).collect::<Vec<_>>(),
        ["shred", "reopen"]
    );
    assert!(history["keys"].as_array().unwrap()[..2].iter().all(|key| key["shredded_at"].is_string()));

    let tombstone =
        world.json(&["shred", "Customer", "cust_99", "--reason", "request 119", "--yes", "--allow-unknown"]);
    assert_eq!(tombstone["destroyed"], Value::Array(Vec::new()));
    let unknown =
        world.run(&["shred", "Customer", "cust_98", "--reason", "request 120", "--yes", "--allow-unknown"]).ended(0);
    assert!(unknown.out.contains("Nothing was ever sealed for it, and nothing will be."), "{unknown:?}");
    let once_more = world.run(&["shred", "Customer", "cust_98", "--reason", "request 120", "--yes"]).ended(0);
    assert!(
        once_more.out.contains("Nothing was left to do") && once_more.out.contains("never had a key"),
        "{once_more:?}"
    );
    assert!(world.append(99..100).await.unwrap_err().is_shredded());
}

async fn the_history_names_who_did_it(world: World) {
    let world = world.with_keys(0..2).await;
    let user = run(Command::new("id").arg("-un").stdin(Stdio::null())).out.trim_end().to_owned();
    // The user of the operating system, whatever the environment says.
    let disable = ["disable", "Customer", "cust_0", "--reason", "incident 3"];
    run(world.command(&disable).env("USER", "somebody").env("LOGNAME", "somebody")).ended(0);
    run(world.command(&["enable", "Customer", "cust_0", "--reason", "over"]).env("SUDO_USER", "ada")).ended(0);
    let shredded = world.json(&["shred", "Customer", "cust_0", "--reason", "request 1", "--yes", "--actor", "clerk 7"]);
    assert_eq!(shredded["actor"], "clerk 7");
    // An older version of eventseal still writes changes without an actor.
    let now = if world.is_postgres() { "now()" } else { "'2026-01-02T03:04:05.000000Z'" };
    let older = "INSERT INTO key_scope_changes (scope_kind, scope_id, action, state, generation, reason, changed_at)";
    world.execute(format!("{older} VALUES ('Customer', 'cust_0', 'reopen', 'live', 2, 'from before', {now})")).await;
    let history = world.json(&["keys", "show", "Customer", "cust_0"]);
    let actors: Vec<Value> =
        history["changes"].as_array().unwrap().iter().map(|change| change["actor"].clone()).collect();
    let with_sudo = if user == "root" { "ada (as root)".to_owned() } else { user.clone() };
    assert_eq!(actors, [Value::from(user), with_sudo.into(), "clerk 7".into(), Value::Null]);
    world.run(&["keys", "show", "Customer", "cust_0"]).ended(0);
}

async fn keys_are_put_out_of_use_and_back(world: World) {
    let world = world.with_keys(0..2).await;
    world.run(&["enable", "Customer", "cust_0", "--reason", "why not", "--json"]).refused(4, "scope_state");
    let disabled = run(world
        .command(&["disable", "Customer", "cust_0", "--reason", "incident 3"])
        .env_remove("EVENTSEAL_KEYRING_FILE"));
    assert_eq!(disabled.ended(0).out.lines().count(), 1);
    world.run(&["disable", "Customer", "cust_0", "--reason", "incident 3", "--json"]).refused(4, "scope_state");
    world.run(&["rotate-data-key", "Customer", "cust_0", "--json"]).refused(4, "disabled");
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_0"])["state"], "disabled");
    assert_eq!(world.json(&["enable", "Customer", "cust_0", "--reason", "over"])["state"], "live");
    assert_eq!(world.json(&["rotate-data-key", "Customer", "cust_0"])["key"]["version"], 2);
    world.run(&["rotate-data-key", "Customer", "cust_99", "--json"]).refused(4, "unknown_scope");
    assert_eq!(world.read().await, (2, 0));
}

async fn keys_are_rotated_rewrapped_and_retired(world: World) {
    let world = world.with_keys(0..1_199).await;
    let old = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    world.run(&["retire-kek", &old, "--json"]).refused(4, "kek_in_use");
    assert_eq!(world.json(&["rewrap", "--dry-run"])["would_rewrap"], 0);

    let rotated = world.json(&["rotate-kek"]);
    assert_eq!(rotated["replaced"], old.as_str());
    snapshot!(world, "status_unfinished", world.run(&["status"]).ended(0));
    world.run(&["status", "--check"]).ended(5);
    world.run(&["retire-kek", &old, "--json"]).refused(4, "kek_in_use");
    let dry = run(world.command(&["rewrap", "--dry-run", "--json"]).env_remove("EVENTSEAL_KEYRING_FILE"));
    assert_eq!(dry.ended(0).json()["would_rewrap"], 1_200);
    world.run(&["rewrap", "--partition", "elsewhere", "--json"]).refused(1, "no_active_kek");
    assert_eq!(world.keks()[0]["live_keys"], 1_200);

    let done = world.run(&["rewrap", "--batch", "100"]).ended(0);
    assert_eq!(done.err, "", "no progress bar without a terminal");
    snapshot!(world, "rewrap", done);
    assert_eq!(world.json(&["rewrap"])["rewrapped"], 0);
    assert_eq!(world.read().await, (1_199, 0));
    let unfinished = world.json(&["status"])["unfinished"].clone();
    assert!(unfinished[0]["remedy"].as_str().unwrap().ends_with(&format!("retire-kek {old}")), "{unfinished}");

    let retired = run(world.command(&["retire-kek", &old, "--json"]).env_remove("EVENTSEAL_KEYRING_FILE"));
    assert_eq!(retired.ended(0).json()["state"], "retired");
    world.run(&["retire-kek", "01234567-89ab-cdef-0123-456789abcdef", "--json"]).refused(4, "kek_in_use");
    world.run(&["retire-kek", "no-id", "--json"]).refused(2, "usage");
    world.run(&["status", "--check"]).ended(0);
    world.run(&["status", "--check", "--max-age", "0"]).ended(5);
    snapshot!(world, "status_due", world.run(&["status", "--max-age", "0"]).ended(0));
    assert_eq!(world.read().await, (1_199, 0));
}

async fn a_key_that_does_not_open_is_named(world: World) {
    let world = world.with_keys(0..40).await;
    let key = world.json(&["keys", "show", "Customer", "cust_7"])["keys"][0]["key"].as_str().unwrap().to_owned();
    let random = if world.is_postgres() { "decode(repeat('01', 65), 'hex')" } else { "randomblob(65)" };
    world.execute(format!("UPDATE data_keys SET wrapped_key = {random} WHERE scope_id = 'cust_7'")).await;
    world.run(&["rotate-kek"]).ended(0);
    let done = world.run(&["rewrap", "--json"]).ended(1).json();
    assert_eq!(
        (&done["rewrapped"], &done["remaining"], &done["bad"]),
        (&40.into(), &1.into(), &vec![key.clone()].into())
    );
    assert!(world.run(&["rewrap"]).ended(1).out.contains(&key));
    world.run(&["shred", "Customer", "cust_7", "--reason", "lost anyway", "--yes"]).ended(0);
    assert_eq!(world.run(&["rewrap", "--json"]).ended(0).json()["remaining"], 0);
}

async fn keys_move_to_another_master_key(world: World) {
    let world = world.with_keys(0..3).await;
    world.run(&["rotate-kek"]).ended(0);
    let both = world.keyring("both", &format!("next:{OTHER_SECRET}\nmain:{SECRET}\n"));
    let both = ["--keyring", both.to_str().unwrap()];
    let moving = [&["move-master-key"], &both[..]].concat();
    let dry = world.json(&[&moving[..], &["--dry-run"]].concat());
    assert_eq!((dry["would_move"].as_array().unwrap().len(), &dry["master_key"]), (2, &"next".into()));
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "main"), "a dry run changes nothing");

    // A keyring without the entry that wrapped the keys moves nothing.
    let alone = world.keyring("alone", &format!("next:{OTHER_SECRET}\n"));
    let alone = alone.to_str().unwrap();
    world.run(&["move-master-key", "--keyring", alone, "--json"]).refused(1, "kms_refused");
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "main"));

    let moved = world.run(&moving).ended(0);
    snapshot!(world, "move_master_key", moved);
    assert!(world.keks().iter().all(|kek| kek["master_key"] == "next"));
    assert_eq!(world.json(&moving)["moved"], Value::Array(Vec::new()), "idempotent");
    assert_eq!(world.json(&["doctor", "--keyring", alone])["ok"], true, "the old master key can go");
    assert_eq!(world.run(&["doctor", "--json"]).ended(5).json()["ok"], false, "with the old one alone nothing opens");

    let from = ["move-master-key", "--from-keyring", both[1], "--keyring", alone, "--json"];
    assert!(
        world.run(&from).refused(2, "usage").error()["message"].as_str().unwrap().contains("one, the new one first")
    );

    // If another provider wrapped the keys, the command must be told which.
    world.execute("UPDATE key_encryption_keys SET provider = 'elsewhere'").await;
    world.run(&[&moving[..], &["--json"]].concat()).refused(1, "kms_refused");
    world.run(&[&moving[..], &["--dry-run", "--json"]].concat()).refused(4, "other_provider");
    world.execute("UPDATE key_encryption_keys SET provider = 'keyring'").await;
    assert_eq!(world.json(&["status"])["unfinished"].as_array().unwrap().len(), 1);
}

async fn partitions_are_kept(world: World) {
    let world = world.with_keys(0..2).await;
    let tenant = world.json(&["prepare", "--partition", "tenant_7"])["kek"].clone();
    world.run(&["shred", "Customer", "cust_0", "--reason", "request 1", "--yes"]).ended(0);
    let key = world.json(&["reopen", "Customer", "cust_0", "--reason", "moved", "--partition", "tenant_7"]);
    assert_eq!(key["key"]["kek"], tenant);
    // From now on the scope's own rows tell its partition.
    assert_eq!(world.json(&["rotate-data-key", "Customer", "cust_0"])["key"]["kek"], tenant);
    assert_ne!(world.json(&["rotate-data-key", "Customer", "cust_1"])["key"]["kek"], tenant);
    world.run(&["rotate-data-key", "Customer", "cust_1", "--partition", "none", "--json"]).refused(1, "no_active_kek");
    world.json(&["rotate-kek", "--partition", "tenant_7"]);
    assert_eq!(world.json(&["rewrap", "--partition", "tenant_7"])["rewrapped"], 2);
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
    assert_eq!(problems(&[]), ["erasures"]);
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

async fn a_lock_that_others_hold_is_not_waited_for_for_ever(world: World) {
    let world = world.with_keys(0..2).await;
    let shred = ["shred", "Customer", "cust_0", "--reason", "request 1", "--yes", "--lock-timeout", "1", "--json"];
    match &world.database {
        Database::Sqlite(db) => {
            let tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            world.run(&shred).refused(3, "collision");
            tx.rollback().await.unwrap();
        }
        Database::Postgres(db) => {
            let mut tx = db.pool.begin().await.unwrap();
            sqlx::query("SELECT FROM key_scopes FOR SHARE").execute(&mut *tx).await.unwrap();
            world.run(&shred).refused(3, "collision");
            tx.rollback().await.unwrap();
        }
    }
    assert_eq!(world.json(&shred[..8])["destroyed"].as_array().unwrap().len(), 1);
}

/// An operator with the wrong database in his environment can see that. The password in the URL is not shown.
async fn what_is_about_to_change_is_named_first(world: World) {
    let world = world.with_keys(0..2).await;
    let place = match &world.database {
        Database::Sqlite(db) => format!("(SQLite, {}", db.folder.path().display()),
        Database::Postgres(db) => format!("(PostgreSQL, {} on ", db.options.get_database().unwrap()),
    };
    let old = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    let commands: [&[&str]; 9] = [
        &["rotate-kek"],
        &["rewrap"],
        &["retire-kek", &old],
        &["move-master-key"],
        &["rotate-data-key", "Customer", "cust_1"],
        &["disable", "Customer", "cust_1", "--reason", "r"],
        &["enable", "Customer", "cust_1", "--reason", "r"],
        &["shred", "Customer", "cust_1", "--reason", "r", "--yes"],
        &["reopen", "Customer", "cust_1", "--reason", "r"],
    ];
    for arguments in commands {
        let said = match &world.database {
            Database::Postgres(_) => run(world.command(arguments).env("DATABASE_URL", with_password(&world.url()))),
            Database::Sqlite(_) => world.run(arguments),
        };
        let said = said.ended(0);
        // A rewrap is not announced, because nothing is lost by it.
        let named = said.err.contains("in namespace shop ") && said.err.contains(&place);
        assert!(named || arguments == ["rewrap"], "{arguments:?}: {said:?}");
    }
    let disabled = world.json(&["disable", "Customer", "cust_0", "--reason", "r"]);
    assert_eq!(disabled["namespace"], "shop");
    assert!(disabled["database"].as_str().unwrap().starts_with(&place[1..]), "{disabled}");
}

/// Adds a password to a URL. The server of the tests does not ask for one.
fn with_password(url: &str) -> String {
    let with = url.replacen("postgres@", &format!("postgres:{PASSWORD}@"), 1);
    assert_ne!(with, url);
    with
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

#[test]
fn passwords_and_keys_are_refused_on_the_command_line() {
    let url = format!("postgres://me:{PASSWORD}@127.0.0.1:1/shop");
    // `run` searches the output for the secrets that are passed here.
    run(&mut eventseal(&["status", "--database", &url, "--json"])).refused(2, "usage");
    run(&mut eventseal(&["status", "--database", &format!("postgres://127.0.0.1:1/shop?password={PASSWORD}")]))
        .ended(2);
    run(&mut eventseal(&["doctor", "--database", &url])).ended(2);
    run(&mut eventseal(&["status", &url])).ended(2);
    run(&mut eventseal(&["status", &url, "--json"])).refused(2, "usage");
    // A password in the environment is accepted, and never shown: neither in an error nor in the help.
    run(eventseal(&["status", "--json"]).env("DATABASE_URL", &url)).refused(3, "database_unavailable");
    run(eventseal(&["doctor"]).env("DATABASE_URL", &url)).ended(5);
    run(eventseal(&["status", "--help"]).env("DATABASE_URL", &url)).ended(0);
    run(eventseal(&["status"]).env("DATABASE_URL", format!("postgres://me:{PASSWORD}@[::/shop"))).ended(2);
    run(eventseal(&["status"]).env("DATABASE_URL", format!("mysql://me:{PASSWORD}@host/shop"))).ended(2);

    let ring = format!("main:{SECRET}");
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}?mode=rwc", folder.path().join("a.db").display());
    // A key was passed instead of the name of its file. It is not repeated, even if it is no valid keyring.
    for misplaced in [SECRET.to_owned(), format!("old:{SECRET},new:abc")] {
        let arguments = ["prepare", "--database", &database, "--keyring", &misplaced];
        run(&mut eventseal(&arguments)).ended(2);
        run(eventseal(&arguments[..3]).env("EVENTSEAL_KEYRING_FILE", &misplaced)).ended(2);
    }
    let command = |arguments: &[&str]| {
        let mut command = eventseal(&[&["rotate-kek", "--json"], arguments].concat());
        command.env("DATABASE_URL", &database);
        command
    };
    run(&mut command(&["--keyring", &ring])).refused(2, "usage");
    run(command(&[]).env("EVENTSEAL_KEYRING_FILE", &ring)).refused(2, "usage");
    run(command(&[]).env("EVENTSEAL_KEYRING", "/etc/ring")).refused(1, "keyring");
    run(command(&[]).env("EVENTSEAL_KEYRING", format!("{SECRET}:main"))).refused(1, "keyring");
    run(command(&[]).env("EVENTSEAL_KEYRING", &ring)).refused(1, "not_migrated");
    run(command(&[]).env("EVENTSEAL_KEYRING", &ring).env("EVENTSEAL_KEYRING_FILE", "/etc/ring")).refused(2, "usage");
    run(&mut command(&[])).refused(2, "usage");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let no_database = run(&mut eventseal(&["status"])).ended(2);
    assert!(no_database.err.contains("DATABASE_URL") && no_database.out.is_empty());
    run(&mut eventseal(&["frobnicate"])).ended(2);
    run(&mut eventseal(&["frobnicate", "--json"])).refused(2, "usage");
    run(&mut eventseal(&["rewrap", "--batch", "0", "--json"])).refused(2, "usage");
    run(&mut eventseal(&["status", "--database", "sqlite:///no/such/folder/a.db", "--json"])).refused(1, "no_database");
    run(&mut eventseal(&[])).ended(2);
    run(&mut eventseal(&["--version"])).ended(0);
    #[cfg(not(feature = "aws-kms"))]
    for flag in ["--aws-kms-key", "--from-aws-kms-key"] {
        let refused =
            run(&mut eventseal(&["move-master-key", flag, "alias/eventseal", "--database", "sqlite://a.db", "--json"]));
        assert!(refused.refused(2, "usage").error()["message"].as_str().unwrap().contains("default features"));
    }
}

/// Moves keys from a keyring to AWS KMS, to another key there, and back, as `docs/operations.md` describes it.
#[cfg(feature = "aws-kms")]
#[tokio::test]
async fn keys_move_to_aws_and_back() {
    let moto = support::moto::Moto::shared();
    let (first, second) = (moto.key().await, moto.key().await);
    let world = World::sqlite().await.with_keys(0..3).await;
    let ring = world.folder.path().join("ring");
    let ring = ring.to_str().unwrap();
    let aws = |arguments: &[&str]| {
        let mut command = world.command(&[arguments, &["--json"]].concat());
        command.env_remove("EVENTSEAL_KEYRING_FILE").env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", moto.port));
        command
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", PASSWORD);
        run(&mut command)
    };
    aws(&["move-master-key", "--aws-kms-key", &first, "--dry-run"]).refused(4, "other_provider");
    let there = ["move-master-key", "--from-keyring", ring, "--aws-kms-key", &first];
    assert_eq!(aws(&[&there[..], &["--dry-run"]].concat()).ended(0).json()["would_move"].as_array().unwrap().len(), 1);
    assert_eq!(aws(&there).ended(0).json()["moved"].as_array().unwrap().len(), 1);
    assert_eq!(world.keks()[0]["master_key"], first.as_str());
    assert_eq!(aws(&["doctor", "--aws-kms-key", &first]).ended(0).json()["ok"], true);
    assert_eq!(world.run(&["doctor", "--json"]).ended(5).json()["ok"], false, "the keyring alone opens nothing now");
    aws(&["rotate-kek", "--aws-kms-key", &first]).ended(0);
    assert_eq!(aws(&["rewrap", "--aws-kms-key", &first]).ended(0).json()["rewrapped"], 4);

    // A flag wins over an environment variable that names another provider.
    let elsewhere = ["move-master-key", "--aws-kms-key", &second];
    let unnamed = aws(&elsewhere).refused(1, "kms_refused");
    assert!(
        unnamed.error()["message"].as_str().unwrap().contains("--from-aws-kms-key"),
        "what a row names is not opened unasked"
    );
    let named = aws(&[&elsewhere[..], &["--from-aws-kms-key", &first]].concat());
    assert_eq!(named.ended(0).json()["moved"].as_array().unwrap().len(), 2);
    let missing = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555";
    aws(&["rotate-kek", "--aws-kms-key", missing]).refused(1, "kms_refused");
    let back = aws(&["move-master-key", "--from-aws-kms-key", &second, "--keyring", ring]);
    assert_eq!(back.ended(0).json()["moved"].as_array().unwrap().len(), 2);
    assert_eq!(world.read().await, (3, 0));

    // An outage is retryable, and is not a refusal.
    let away = run(world
        .command(&["rotate-kek", "--aws-kms-key", &second, "--json"])
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", PASSWORD)
        .env("AWS_MAX_ATTEMPTS", "1"));
    away.refused(3, "kms_unavailable");
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

#[test]
fn every_help_has_examples_and_stays_as_it_is() {
    for command in COMMANDS {
        let help = run(&mut eventseal(&[command, &["--help"]].concat())).ended(0);
        assert!(command == ["keys"] || help.out.contains("Examples:\n  eventseal "), "{command:?}");
        let name = std::iter::once("help").chain(command.iter().copied()).collect::<Vec<_>>().join("_");
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, help.out)
        });
    }
}

#[test]
fn completions_and_the_man_page_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&mut eventseal(&["completions", shell])).ended(0).out;
        assert!(script.contains("move-master-key") && script.contains("lock-timeout"), "{shell}");
    }
    let bash = run(&mut eventseal(&["completions", "bash"])).out;
    assert!(Command::new("bash").args(["-n", "-c", &bash]).status().unwrap().success());
    let page = run(&mut eventseal(&["man"])).ended(0).out;
    assert!(page.contains(".TH eventseal 1") && page.contains("Exit codes"));
    let folder = tempfile::tempdir().unwrap();
    run(&mut eventseal(&["man", "--directory", folder.path().to_str().unwrap()])).ended(0);
    assert!(folder.path().join("eventseal-rewrap.1").exists());
    run(&mut eventseal(&["man", "--directory", "/no/such/folder", "--json"])).refused(1, "io");
}

/// The secrets of these tests are valid keys. Otherwise the search for them would prove nothing.
#[test]
fn the_canaries_are_real_keys() {
    assert!(Keyring::parse(&format!("next:{OTHER_SECRET}\nmain:{SECRET}")).is_ok());
    assert!(Namespace::new("o'hara").is_ok());
}
