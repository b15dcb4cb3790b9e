//! `eventseal census`: what it counts, what it says about steps, and how it ends. Tables are snapshots: after an
//! intended change, run `INSTA_UPDATE=always cargo test -p eventseal-cli`, and look at the diff.

use crate::command::{Database, Output, World, eventseal, run};
use eventseal::ExpectedVersion::Any;
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Changes, EventStore, Keyring, NewEvent, Owner, Schemas, SealedStore, aggregate, event, subject};
use eventseal_testing::SchemaLock;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use time::macros::datetime;

on_both! {
    a_table_says_what_is_stored,
    ranges_add_up,
    steps_are_needed_or_can_go,
    an_event_without_a_version_is_of_the_one_that_it_is_read_as,
    a_table_without_anything_registered_is_no_proof,
    what_the_schemas_do_not_know_is_named,
    payloads_are_looked_into,
    metadata_are_looked_into,
    tables_have_the_names_that_were_chosen,
    a_table_that_is_not_there_is_not_counted_as_empty,
}

macro_rules! snapshot {
    ($world:expr, $name:expr, $output:expr) => {{
        let text = match &$world.database {
            Database::Sqlite(db) => $output.out.replace(&db.folder.path().display().to_string(), "FOLDER"),
            Database::Postgres(_) => $output.out.clone(),
        };
        insta::with_settings!({
            filters => vec![
                (super::ID, super::NO_ID),
                (r"PostgreSQL, \S+ on \S+", "PostgreSQL, NAME on HOST"),
            ],
            omit_expression => true,
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($world.snapshot_of($name), text) });
    }};
}

fn new(event_type: &str, version: u32, payload: &str) -> NewEvent {
    NewEvent::raw(event_type, version, payload).with_created_at(datetime!(2026-01-02 03:04:05 UTC))
}

/// Appends events as an application that knows nothing of sealing.
async fn append_bare(world: &World, events: &[NewEvent]) {
    let order = aggregate("Order", "1");
    match &world.database {
        Database::Sqlite(db) => {
            let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            SqliteStore::new().append(&mut tx, &order, Any, events).await.unwrap();
            tx.commit().await.unwrap();
        }
        Database::Postgres(_) => append_to(&PostgresStore::new(), world, events).await,
    }
}

async fn append_to(store: &PostgresStore, world: &World, events: &[NewEvent]) {
    let Database::Postgres(db) = &world.database else { panic!("this is of PostgreSQL") };
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "1"), Any, events).await.unwrap();
    tx.commit().await.unwrap();
}

/// Appends events as an application whose `OrderPlaced` protects `/email` in versions 1 and 2.
async fn append_sealed(world: &World, events: &[NewEvent]) {
    let schemas = || {
        let placed = event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer_id"));
        let placed = placed.version(2).protect_same_as(1).upcast(1, |old: Value| Ok::<_, Infallible>(old));
        Schemas::builder([placed]).allow_older_appends().build().unwrap()
    };
    let keyring = Keyring::from_file(world.folder.path().join("ring")).unwrap();
    let order = aggregate("Order", "2");
    match &world.database {
        Database::Sqlite(db) => {
            let store = SealedStore::new(SqliteStore::new(), SqliteKeys::new(), keyring, schemas());
            let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            store.append(&mut tx, &order, Any, events).await.unwrap();
            tx.commit().await.unwrap();
        }
        Database::Postgres(db) => {
            let store = SealedStore::new(PostgresStore::new(), PostgresKeys::new(), keyring, schemas());
            let mut tx = db.pool.begin().await.unwrap();
            store.append(&mut tx, &order, Any, events).await.unwrap();
            tx.commit().await.unwrap();
        }
    }
}

const PLACED: &str = r#"{"customer_id":"a","email":"canary@example.org"}"#;

/// A shop with plaintext events from before its store was wrapped, and sealed events since then.
async fn shop(world: World) -> World {
    let world = world.with_keys(0..0).await;
    let plain: Vec<NewEvent> = (0..12).map(|_| new("OrderPlaced", 1, PLACED)).collect();
    append_bare(&world, &plain).await;
    // One event with nothing to protect in it, and one with another shape than the schema's.
    append_bare(&world, &[new("OrderPlaced", 1, r#"{"email":null}"#), new("OrderPlaced", 1, r#"["canary"]"#)]).await;
    append_bare(&world, &[new("Checkout", 1, "{}"), new("Tracked\u{1b}[2J", 7, "{}")]).await;
    let sealed: Vec<NewEvent> = (0..20).map(|number| new("OrderPlaced", 1 + number % 2, PLACED)).collect();
    append_sealed(&world, &sealed).await;
    world
}

fn version(protected: Value, step: Value) -> Value {
    json!({ "protected": protected, "step": step, "shape": { "what": "ignored" } })
}

fn step(kind: &str, to: &[(&str, u32)]) -> Value {
    let to: Vec<Value> = to.iter().map(|(name, version)| json!({ "type": name, "version": version })).collect();
    json!({ "kind": kind, "to": to })
}

/// The schema lock of that shop.
fn lock() -> Value {
    let email = || json!({ "/email": "Customer at /customer_id" });
    let none = || json!({});
    json!({ "eventseal_schemas": 1, "made_by": "a later version", "types": {
        "OrderPlaced": { "versions": {
            "1": version(email(), step("typed", &[("OrderPlaced", 2)])),
            "2": version(email(), step("value", &[("OrderPlaced", 3)])),
            "3": version(email(), Value::Null),
        } },
        "Checkout": { "versions": {
            "1": version(none(), step("split", &[("Paid", 1), ("Purchase", 1)])),
        } },
        "Purchase": { "versions": { "1": version(none(), step("declarative", &[("Paid", 2)])) } },
        "Paid": {
            "versions": { "1": version(none(), step("typed", &[("Paid", 2)])), "2": version(none(), Value::Null) },
        },
        "Visited": { "versions": {
            "1": version(none(), step("declarative", &[("Visited", 2)])),
            "2": version(none(), step("drop", &[])),
        } },
    } })
}

fn lock_file(world: &World, lock: &Value) -> PathBuf {
    let path = world.folder.path().join("schemas.json");
    std::fs::write(&path, lock.to_string()).unwrap();
    path
}

impl World {
    /// Runs the census with this lock, which must end with this exit code. No payload may be in its output.
    #[track_caller]
    fn census(&self, lock: &Value, arguments: &[&str], code: i32) -> Output {
        let path = lock_file(self, lock);
        // There is no master key, because nothing is opened.
        let mut command = self.command(&[&["census", "--schemas", path.to_str().unwrap()], arguments].concat());
        let output = run(command.env_remove("EVENTSEAL_KEYRING_FILE")).ended(code);
        assert!(!output.out.contains("canary") && !output.err.contains("canary"), "I9: {output:?}");
        assert!(!output.out.contains('\u{1b}'), "types are somebody else's words");
        output
    }

    #[track_caller]
    fn census_json(&self, lock: &Value, arguments: &[&str]) -> Value {
        self.census(lock, &[arguments, &["--json"]].concat(), 0).json()
    }
}

/// The wanted members of a list, as texts such as `OrderPlaced 1`.
fn names(list: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<String> {
    let name = |item: &Value| format!("{} {}", item["type"].as_str().unwrap(), item["version"]);
    list.as_array().unwrap().iter().filter(|item| wanted(item)).map(name).collect()
}

fn row<'j>(census: &'j Value, event_type: &str, version: u32) -> &'j Value {
    let rows = census["types"].as_array().unwrap();
    rows.iter()
        .find(|row| row["type"] == event_type && row["version"] == version)
        .unwrap_or_else(|| panic!("{census:#}"))
}

async fn a_table_says_what_is_stored(world: World) {
    let world = shop(world).await;
    let census = run(world.command(&["census"]).env_remove("EVENTSEAL_KEYRING_FILE")).ended(0);
    assert_eq!(census.err, "", "no progress bar without a terminal");
    snapshot!(world, "census", census);
    let census = world.json(&["census"]);
    assert_eq!((&census["events"], &census["after"], &census["up_to"]), (&36.into(), &0.into(), &36.into()));
    let placed = row(&census, "OrderPlaced", 1);
    assert_eq!((&placed["events"], &placed["sealed"], &placed["without_header"]), (&24.into(), &10.into(), &14.into()));
    assert_eq!((&placed["first"]["position"], &placed["last"]["position"]), (&1.into(), &35.into()));
    assert_eq!(placed["first"]["created_at"], "2026-01-02T03:04:05Z");
    assert_eq!(row(&census, "Tracked\u{1b}[2J", 7)["events"], 1, "programs get it as it is");
    assert!(census["steps"].is_null(), "nothing is said of steps that nobody named");
}

async fn ranges_add_up(world: World) {
    let world = shop(world).await;
    let whole = world.json(&["census"]);
    for batch in ["1", "7", "36", "1000"] {
        assert_eq!(world.json(&["census", "--batch", batch]), whole, "{batch} at a time");
    }
    let part = world.json(&["census", "--after", "10", "--up-to", "20"]);
    assert_eq!((&part["events"], &part["after"], &part["up_to"]), (&10.into(), &10.into(), &20.into()));
    assert_eq!(world.json(&["census", "--after", "36"])["types"], json!([]));
    assert_eq!(world.json(&["census", "--after", "100", "--up-to", "90"])["events"], 0);
    let part = world.census(&lock(), &["--after", "16"], 0).out;
    assert!(part.contains("20 events after position 16, up to 36"), "{part}");
    assert!(part.contains("Steps that no stored event needs: unknown, the census is of a part of the log"), "{part}");
    assert_eq!(names(&world.census_json(&lock(), &["--after", "16"])["steps"], |step| step["can_go"] == true), [""; 0]);
    for refused in [["--batch", "0"], ["--after", "-1"], ["--up-to", "x"]] {
        world.run(&[&["census", "--json"], &refused[..]].concat()).refused(2, "usage");
    }
}

async fn steps_are_needed_or_can_go(world: World) {
    let world = shop(world).await;
    snapshot!(world, "census_schemas", world.census(&lock(), &[], 0));
    let census = world.census_json(&lock(), &[]);
    let steps = &census["steps"];
    assert_eq!(names(steps, |step| step["can_go"] == true), ["Visited 1", "Visited 2"]);
    assert_eq!(
        names(steps, |step| step["can_go"] == false),
        ["Checkout 1", "OrderPlaced 1", "OrderPlaced 2", "Paid 1", "Purchase 1"]
    );
    let counts: Vec<u64> = steps.as_array().unwrap().iter().map(|step| step["events"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 24, 34, 1, 1, 0, 0]);
    assert_eq!(names(&row(&census, "Checkout", 1)["needs_steps"], |_| true), ["Checkout 1", "Paid 1", "Purchase 1"]);
    assert_eq!(steps[0]["to"], json!([{ "type": "Paid", "version": 1 }, { "type": "Purchase", "version": 1 }]));

    // Without events of its version a step can go. The steps after it can only go if nothing else needs them.
    world.execute("DELETE FROM events WHERE event_type = 'OrderPlaced' AND event_version = 1").await;
    let steps = world.census_json(&lock(), &[])["steps"].clone();
    assert_eq!(names(&steps, |step| step["can_go"] == true), ["OrderPlaced 1", "Visited 1", "Visited 2"]);
    world.execute("DELETE FROM events WHERE event_type = 'Checkout'").await;
    let steps = world.census_json(&lock(), &[])["steps"].clone();
    assert_eq!(names(&steps, |step| step["can_go"] == false), ["OrderPlaced 2"]);
}

async fn an_event_without_a_version_is_of_the_one_that_it_is_read_as(world: World) {
    let world = shop(world).await;
    world.execute("UPDATE events SET event_version = 2 WHERE event_type = 'OrderPlaced'").await;
    let can_go = |lock: &Value| names(&world.census_json(lock, &[])["steps"], |step| step["can_go"] == true);
    assert_eq!(can_go(&lock()), ["OrderPlaced 1", "Visited 1", "Visited 2"]);
    world.execute("UPDATE events SET event_version = 0 WHERE global_position = 1").await;
    for (version, steps) in [(1, vec!["Visited 1", "Visited 2"]), (3, vec!["OrderPlaced 1", "Visited 1", "Visited 2"])]
    {
        let mut lock = lock();
        lock["types"]["OrderPlaced"]["legacy_version"] = version.into();
        let census = world.census(&lock, &["--check"], 0);
        let expected = format!("Stored without a version\n  OrderPlaced v0: 1 event, read as v{version}\n");
        assert!(census.out.contains(&expected), "{}", census.out);
        assert!(census.out.contains("Protected, but without a header\n  OrderPlaced v0: 1 event\n"), "{}", census.out);
        assert_eq!(can_go(&lock), steps);
    }

    // If the lock does not say which version that is, the answer is not known.
    let census = world.census(&lock(), &["--check"], 5);
    let expected = "OrderPlaced v0: 1 event, and the schema lock does not say which version that is\n";
    assert!(census.out.contains(expected), "{}", census.out);
    assert_eq!(can_go(&lock()), [""; 0]);
    let all = world.census_json(&lock(), &["--payloads=all"]);
    assert_ne!(all["may_refuse_plaintext"]["OrderPlaced"], true);
}

async fn a_table_without_anything_registered_is_no_proof(world: World) {
    let world = shop(world).await;
    let other = json!({ "eventseal_schemas": 1, "types": { "Elsewhere": { "versions": {
        "1": version(json!({ "/email": "the aggregate" }), step("typed", &[("Elsewhere", 2)])),
        "2": version(json!({}), Value::Null),
    } } } });
    let text = world.census(&other, &["--payloads=all"], 0).out;
    assert!(
        text.contains("\nWarning: no events of registered types are stored here: is this the right table?\n"),
        "{text}"
    );
    let because = "unknown, no events of registered types are stored here";
    assert!(text.contains(&format!("Steps that no stored event needs: {because}\n")), "{text}");
    assert!(text.contains(&format!("Types that need no accept_plaintext: {because}\n")), "{text}");
    let known = world.census(&lock(), &[], 0).out;
    assert!(!known.contains("Warning"), "{known}");
}

async fn what_the_schemas_do_not_know_is_named(world: World) {
    let world = shop(world).await;
    world.census(&lock(), &["--check"], 0);
    let mut older = lock();
    older["types"]["OrderPlaced"]["versions"] = json!({ "2": version(json!({}), Value::Null) });
    older["types"]["Checkout"]["versions"] = json!({ "3": version(json!({}), Value::Null) });
    world.execute("UPDATE events SET event_version = 9 WHERE global_position = 36").await;
    let unknown = world.census(&older, &["--check"], 5);
    snapshot!(world, "census_unknown", unknown);
    world.census(&older, &[], 0);
    let census = world.census(&older, &["--check", "--json"], 5).json();
    let standings: Vec<&str> =
        census["types"].as_array().unwrap().iter().map(|row| row["registration"].as_str().unwrap()).collect();
    assert_eq!(standings, ["missing", "missing", "current", "newer", "unknown_type"]);
    // This lock does not know which steps those events need.
    assert_eq!(names(&census["steps"], |step| !step["can_go"].is_null()), [""; 0]);
}

async fn payloads_are_looked_into(world: World) {
    let world = shop(world).await;
    let look = |arguments: &[&str], code| world.census(&lock(), arguments, code);
    let counted = look(&[], 0).out;
    assert!(counted.contains("Protected, but without a header\n  OrderPlaced v1: 14 events\n"), "{counted}");
    let found = look(&["--payloads"], 0);
    snapshot!(world, "census_payloads", found);
    look(&["--payloads", "--check"], 5);
    let census = look(&["--payloads", "--json"], 0).json();
    let found = &row(&census, "OrderPlaced", 1)["protection"];
    assert_eq!(
        (&found["sealed"], &found["plaintext"], &found["nothing_to_protect"]),
        (&10.into(), &12.into(), &1.into())
    );
    assert_eq!((&found["unreadable"], &found["partly_sealed"]), (&1.into(), &0.into()));
    assert_eq!(found["first_open"]["position"], 1);
    assert_eq!(census["may_refuse_plaintext"], json!({ "OrderPlaced": false }));

    // A header that does not cover all protected values is only found if all payloads are looked into.
    world.execute("DELETE FROM events WHERE global_position <= 14").await;
    look(&["--payloads", "--check"], 0);
    assert_eq!(look(&["--payloads", "--json"], 0).json()["may_refuse_plaintext"], json!({ "OrderPlaced": null }));
    let all = look(&["--payloads=all", "--check"], 0).out;
    assert!(all.contains("Types that need no accept_plaintext\n  OrderPlaced\n"), "{all}");
    let mut more = lock();
    more["types"]["OrderPlaced"]["versions"]["1"]["protected"]["/customer_id"] = "the aggregate".into();
    world.census(&more, &["--payloads", "--check"], 0);
    let partly = world.census(&more, &["--payloads=all", "--check", "--json"], 5).json();
    assert_eq!(row(&partly, "OrderPlaced", 1)["protection"]["partly_sealed"], 10);
    assert_eq!(partly["may_refuse_plaintext"], json!({ "OrderPlaced": false }));
    world.run(&["census", "--payloads", "--json"]).refused(2, "usage");
    world.run(&["census", "--check", "--json"]).refused(2, "usage");
}

/// A header in the payload says nothing about the metadata.
async fn metadata_are_looked_into(world: World) {
    let world = shop(world).await;
    let mut of_metadata = lock();
    of_metadata["types"]["OrderPlaced"]["versions"]["1"]["metadata"] =
        json!({ "protected": { "/ip": "the aggregate" } });
    let seen = new("OrderPlaced", 1, r#"{"customer_id":"1"}"#).with_metadata(r#"{"ip":"192.0.2.77"}"#);
    append_bare(&world, &[seen]).await;
    let plaintext = |lock: &Value| {
        let census = world.census(lock, &["--payloads", "--json"], 0).json();
        row(&census, "OrderPlaced", 1)["protection"]["plaintext"].as_u64().unwrap()
    };
    assert_eq!(plaintext(&of_metadata), plaintext(&lock()) + 1);
    // Of a version that protects metadata only, no payload has a header.
    of_metadata["types"]["OrderPlaced"]["versions"]["1"]["protected"] = json!({});
    let counted = world.census(&of_metadata, &[], 0).out;
    assert!(!counted.contains("OrderPlaced v1: "), "{counted}");
    assert_eq!(plaintext(&of_metadata), 1);
}

async fn tables_have_the_names_that_were_chosen(world: World) {
    let names = ["--events", "--events-table", "log", "--heads-table", "log_heads"];
    world.run(&[&["migrate", "--namespace", "shop"], &names[..]].concat()).ended(0);
    assert_eq!(world.json(&["census", "--events-table", "log"])["events"], 0);
    assert!(world.run(&["census", "--events-table", "log"]).ended(0).out.ends_with("\n0 events\n"));
    let refused = world.run(&["census", "--json"]).refused(1, "no_events");
    let message = refused.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("events") && message.contains("eventseal migrate --namespace NAME --events"), "{message}");
    world.run(&["census", "--events-table", "a\"b", "--json"]).refused(2, "invalid_text");
    let in_schema = ["--schema", "safe", "--streams"];
    if world.is_postgres() {
        world.run(&[&["migrate", "--namespace", "shop", "--events"], &in_schema[..]].concat()).ended(0);
        let store = PostgresStore::with_tables(PostgresTables::streams().in_schema("safe")).unwrap();
        append_to(&store, &world, &[new("OrderPlaced", 1, PLACED)]).await;
        let census = world.census_json(&lock(), &[&["--payloads"], &in_schema[..]].concat());
        assert_eq!(row(&census, "OrderPlaced", 1)["protection"]["plaintext"], 1);
        world.census(&lock(), &["--payloads", "--schema", "safe", "--json"], 1).refused(1, "no_events");
        world.run(&["census", "--schema", "elsewhere", "--json"]).refused(1, "no_events");
    } else {
        world.run(&[&["census", "--json"], &in_schema[1..]].concat()).refused(2, "usage");
    }
}

async fn a_table_that_is_not_there_is_not_counted_as_empty(world: World) {
    world.run(&["census", "--json"]).refused(1, "no_events");
    // The key tables are not needed.
    match &world.database {
        Database::Sqlite(db) => SqliteStore::new().migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap(),
        Database::Postgres(db) => PostgresStore::new().migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap(),
    }
    append_bare(&world, &[new("OrderPlaced", 1, PLACED)]).await;
    assert_eq!(world.json(&["census"])["events"], 1);
    assert_eq!(world.census_json(&lock(), &["--payloads"])["events"], 1);
}

#[tokio::test]
async fn a_lock_that_makes_no_sense_is_refused() {
    let world = World::sqlite().await.with_keys(0..0).await;
    let refused = |text: &str, expected: &str| {
        let path = world.folder.path().join("bad.json");
        std::fs::write(&path, text).unwrap();
        let output = world.run(&["census", "--json", "--schemas", path.to_str().unwrap()]).refused(1, "schemas");
        let message = output.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("bad.json") && message.contains(expected), "{message}");
    };
    refused("", "bad.json is no schema lock: it has no member \"eventseal_schemas\"");
    refused("[]", "bad.json is no schema lock: it has no member \"eventseal_schemas\"");
    refused(r#"{"types":{}}"#, "bad.json is no schema lock: it has no member \"eventseal_schemas\"");
    refused(r#"{"eventseal_schemas":2}"#, "has format 2, not 1: use a newer eventseal");
    refused(r#"{"eventseal_schemas":1}"#, "is damaged: missing field `types`");
    refused(r#"{"eventseal_schemas":1,"types":{"A":{"versions":{"x":{}}}}}"#, "is damaged");
    refused(r#"{"eventseal_schemas":1,"types":{"A":{"versions":{"1":{"protected":["/a"]}}}}}"#, "is damaged");
    let gap = json!({ "eventseal_schemas": 1, "types": { "A": { "versions": { "1": {}, "3": {} } } } });
    refused(&gap.to_string(), "contradicts itself: the schemas have");
    let versions = json!({ "1": { "step": step("split", &[("B", 1)]) } });
    let nowhere = json!({ "eventseal_schemas": 1, "types": { "A": { "versions": versions } } });
    refused(&nowhere.to_string(), "leads to B version 1, which is not declared");
    let missing = world.run(&["census", "--json", "--schemas", "/no/such/file"]).refused(1, "schemas");
    assert!(missing.error()["message"].as_str().unwrap().contains("can't be read"));
}

#[tokio::test]
async fn an_outage_is_not_an_empty_store() {
    run(&mut eventseal(&["census", "--json", "--database", "postgres://nobody@127.0.0.1:1/none"]))
        .refused(3, "database_unavailable");
    run(&mut eventseal(&["census", "--json", "--database", "sqlite:///no/such/a.db"])).refused(1, "no_database");
}

#[tokio::test]
async fn progress_is_shown_on_a_terminal() {
    let world = shop(World::sqlite().await).await;
    let path = lock_file(&world, &lock());
    let command =
        format!("'{}' census --batch 1 --schemas '{}' --payloads", env!("CARGO_BIN_EXE_eventseal"), path.display());
    let mut script = Command::new("script");
    script
        .args(["-qec", &command, "/dev/null"])
        .env("DATABASE_URL", world.url())
        .env("TERM", "xterm")
        .stdin(Stdio::null());
    let output =
        script.output().expect("script (of util-linux) is needed: install it, such as: sudo apt-get install bsdutils");
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("36 positions") && shown.contains("36 events"), "{shown}");
}

/// The command can read the file that `SchemaLock` writes in the tests of an application.
#[tokio::test]
async fn the_lock_that_the_tests_of_an_application_write_is_understood() {
    let schemas = Schemas::new([
        event("OrderPlaced")
            .version(1)
            .protect(&["/email"], subject("Customer", "/customer_id"))
            .version(2)
            .protect(&["/email"], Owner::Aggregate)
            .upcast(1, |old: Value| Ok::<_, Infallible>(old))
            .split(2, &[("Noted", 1), ("Paid", 2)], |_: Value, _| Ok::<_, Infallible>(Vec::new())),
        event("Noted").version(1).protect_whole(Owner::Aggregate).drop_from(1),
        event("Bought").version(1).change(1, Changes::new().rename_type("Paid", 2)),
        event("Paid").version(2),
    ])
    .unwrap();
    let world = shop(World::sqlite().await).await;
    let path = world.folder.path().join("written.json");
    SchemaLock::new(&path, &schemas).record().unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let census = world.census_json(&written, &["--payloads=all"]);
    assert_eq!(names(&census["steps"], |step| step["can_go"] == false), ["Noted 1", "OrderPlaced 1", "OrderPlaced 2"]);
    assert_eq!(names(&census["steps"], |step| step["can_go"] == true), ["Bought 1"]);
    let protected = &row(&census, "OrderPlaced", 1)["protection"];
    assert_eq!((&protected["sealed"], &protected["plaintext"]), (&10.into(), &12.into()));
}

/// An event without a version counts as plaintext if the version as which it is read is protected, also if that is the
/// newest one.
#[tokio::test]
async fn i2_what_is_stored_without_a_version_is_not_called_sealed() {
    let world = World::sqlite().await.with_keys(0..0).await;
    append_bare(&world, &[new("Placed", 2, PLACED)]).await;
    world.execute("UPDATE events SET event_version = 0").await;
    let placed = || {
        let v1 = event("Placed").version(1).unprotected("held no e-mail address");
        v1.version(2).protect(&["/email"], Owner::Aggregate).upcast(1, |old: Value| Ok::<_, Infallible>(old))
    };
    let path = world.folder.path().join("written.json");
    let of_type = Schemas::new([placed().legacy_version(2)]).unwrap();
    let of_all = Schemas::builder([placed()]).legacy_version(2).build().unwrap();
    for schemas in [of_type, of_all] {
        SchemaLock::new(&path, &schemas).record().unwrap();
        let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        world.census(&written, &["--payloads=all", "--check"], 5);
        let census = world.census_json(&written, &["--payloads=all"]);
        assert_eq!(census["may_refuse_plaintext"], json!({ "Placed": false }));
        assert_eq!(
            (&census["types"][0]["protected"], &census["types"][0]["protection"]["plaintext"]),
            (&true.into(), &1.into())
        );
        assert_eq!(names(&census["steps"], |step| step["can_go"] == true), ["Placed 1"]);
    }
}
