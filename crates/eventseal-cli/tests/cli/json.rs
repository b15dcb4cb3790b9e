//! Compares `docs/command-json.md` with the JSON that the command prints: each printed field has a row there, and each
//! row is printed with its type. It is long because every command is run here.
//!
//! A new field needs a row. A new command needs a section, and a run in [`every_result`]. A row whose description
//! begins with "Only" needs a run that prints it. Every other row must be in every result of its section.

use crate::command::{Database, OTHER_SECRET, Output, SECRET, World, eventseal, run};
use crate::help::COMMANDS;
use eventseal::ExpectedVersion::Any;
use eventseal::erasure::ShredMode;
use eventseal::error::ErrorKind;
use eventseal::keys::KeyManager;
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{EventStore, KeyScope, Keyring, NewEvent, aggregate};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const PAGE: &str = include_str!("../../../../docs/command-json.md");

#[derive(Debug)]
struct Row {
    /// The types: `time or null` is two of them.
    types: Vec<&'static str>,
    /// May it be missing?
    only: bool,
    /// The values that a word can have.
    words: BTreeSet<&'static str>,
}

type Section = BTreeMap<&'static str, Row>;

/// The texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of all tables of three columns, by the heading above them.
fn rows() -> Vec<(&'static str, [&'static str; 3])> {
    let mut heading = "";
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(text) = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with("##")) {
            heading = text.trim_matches('`');
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        if let (true, [first, second, third]) = (line.starts_with("| `"), &cells[..]) {
            let third = third.strip_suffix(" |").expect("a row ends with a bar");
            rows.push((heading, [quoted(first).next().expect("a name"), *second, third]));
        }
    }
    rows
}

fn sections() -> BTreeMap<&'static str, Section> {
    let mut sections: BTreeMap<_, Section> = BTreeMap::new();
    for (heading, [path, types, description]) in rows().into_iter().filter(|(heading, _)| *heading != KINDS) {
        let row = Row {
            types: types.split(" or ").collect(),
            only: description.starts_with("Only "),
            words: quoted(description).collect(),
        };
        assert!(sections.entry(heading).or_default().insert(path, row).is_none(), "{heading}: two rows for `{path}`");
    }
    sections
}

const KINDS: &str = "Kinds of failures";
const FAILURE: &str = "A failure";

/// The kinds of failures on the page, with their exit codes.
fn kinds() -> BTreeMap<&'static str, Vec<u64>> {
    let kinds = rows().into_iter().filter(|(heading, _)| *heading == KINDS);
    kinds.map(|(_, [kind, codes, _])| (kind, codes.split(", ").map(|code| code.parse().unwrap()).collect())).collect()
}

/// What the runs of the command printed, and which of it the page does not have.
struct Printed {
    sections: BTreeMap<&'static str, Section>,
    seen: BTreeSet<(String, String, &'static str)>,
    problems: BTreeSet<String>,
}

impl Printed {
    fn result(&mut self, section: &str, output: &Output) {
        assert_eq!(output.err, "", "{section}: a result has standard error for itself");
        self.value(section, "", &output.json());
    }

    fn failure(&mut self, output: &Output) {
        self.value(FAILURE, "", &json!({ "error": output.error() }));
        let error = output.error();
        let (kind, code) = (error["kind"].as_str().unwrap(), error["exit_code"].as_u64().unwrap());
        if !kinds().get(kind).is_some_and(|codes| codes.contains(&code)) {
            self.problems.insert(format!("\"{KINDS}\": add exit code {code} to the row of `{kind}`"));
        }
        assert_eq!(i32::try_from(code), Ok(output.code));
    }

    fn value(&mut self, section: &str, path: &str, value: &Value) {
        if !path.is_empty() {
            self.field(section, path, value);
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.value(section, &format!("{path}[]"), item)),
            Value::Object(members) => {
                let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                let rows = self.sections.get(section);
                let is_map = rows.is_some_and(|rows| rows.contains_key(&child("*")[..]));
                let missing: Vec<String> = rows
                    .into_iter()
                    .flatten()
                    .filter(|(row, about)| !about.only && !row.ends_with(['*', ']']) && parent(row) == path)
                    .filter(|(row, _)| !members.contains_key(row.rsplit('.').next().unwrap()))
                    .map(|(row, _)| {
                        format!(
                            "\"{section}\": `{row}` is not in every result: begin its description with \"Only\", or \
                             print it"
                        )
                    })
                    .collect();
                self.problems.extend(missing);
                for (name, member) in members {
                    self.value(section, &child(if is_map { "*" } else { name }), member);
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, section: &str, path: &str, value: &Value) {
        let Some(row) = self.sections.get(section).and_then(|rows| rows.get(path)) else {
            self.problems
                .insert(format!("\"{section}\": add a row: | `{path}` | {} | what it says. |", kind_of(value)));
            return;
        };
        match row.types.iter().find(|name| is_of(value, name, row)) {
            Some(name) => drop(self.seen.insert((section.to_owned(), path.to_owned(), name))),
            None => {
                let types = row.types.join(" or ");
                self.problems.insert(format!(
                    "\"{section}\": `{path}` is documented as {types}, but was {value}: correct its row"
                ));
            }
        }
    }

    /// The rows of the page that were not printed.
    fn missing(&self) -> impl Iterator<Item = String> {
        let all =
            self.sections.iter().flat_map(|(section, rows)| rows.iter().map(move |(path, row)| (*section, *path, row)));
        all.flat_map(|(section, path, row)| row.types.iter().map(move |name| (section, path, *name)))
            .filter(|(section, path, name)| !self.seen.contains(&((*section).to_owned(), (*path).to_owned(), name)))
            .map(|(section, path, name)| {
                format!(
                    "\"{section}\": `{path}` was never printed as {name}: remove it from the page, or add a run that \
                     prints it"
                )
            })
    }
}

/// The path without its last field: `a[].b` of `a[].b.c`.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "… or null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(text) if is_id(text) => "id",
        Value::String(text) if is_time(text) => "time",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn is_id(text: &str) -> bool {
    uuid::Uuid::parse_str(text).is_ok_and(|id| id.to_string() == text)
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z') && OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

fn is_of(value: &Value, name: &str, row: &Row) -> bool {
    match name {
        "string" => value.is_string(),
        "word" => value.as_str().is_some_and(|text| row.words.contains(text)),
        "id" => value.as_str().is_some_and(is_id),
        "time" => value.as_str().is_some_and(is_time),
        "integer" => value.as_u64().is_some_and(|number| i64::try_from(number).is_ok()),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "list" => value.is_array(),
        "null" => value.is_null(),
        _ => panic!("the page has a type that it does not explain: {name}"),
    }
}

#[tokio::test]
async fn the_page_says_what_is_printed() {
    let mut printed = Printed { sections: sections(), seen: BTreeSet::new(), problems: BTreeSet::new() };
    for command in
        COMMANDS.iter().filter(|command| !command.is_empty() && **command != ["keys"] && **command != ["shred-log"])
    {
        let name = command.join(" ");
        assert!(printed.sections.contains_key(&name[..]), "docs/command-json.md: add a section ### {name}");
    }
    every_result(&mut printed).await;
    every_hold_and_schedule(&mut printed).await;
    failures(&mut printed).await;
    let problems: Vec<String> = printed.problems.iter().cloned().chain(printed.missing()).collect();
    assert!(problems.is_empty(), "docs/command-json.md and the command say different things:\n{}", problems.join("\n"));
}

/// Holds and schedules of customers 20 to 25.
async fn every_hold_and_schedule(printed: &mut Printed) {
    let world = World::sqlite().await.with_keys(20..26).await;
    let mut ended = |section: &str, arguments: &[&str], code: i32| -> Value {
        let output = world.run(&[arguments, &["--json"]].concat()).ended(code);
        printed.result(section, &output);
        output.json()
    };
    let reason = ["--reason", "case 1"];
    let of = |command, customer| [&[command, "Customer", customer][..], &reason].concat();
    ended("hold", &[&of("hold", "cust_20")[..], &["--until", "2999-01-31"]].concat(), 0);
    let hold = ended("hold", &of("hold", "cust_21"), 0)["hold"].as_str().unwrap().to_owned();
    ended("release", &[&["release", "Customer", "cust_21", &hold][..], &reason].concat(), 0);
    let later = ["--in", "30d", "--mode"];
    for (customer, mode) in [("cust_21", "redact"), ("cust_22", "disable"), ("cust_23", "keep-working")] {
        ended("schedule-shred", &[&of("schedule-shred", customer)[..], &later, &[mode]].concat(), 0);
    }
    ended("cancel-shred", &of("cancel-shred", "cust_22"), 0);
    ended("keys show", &["keys", "show", "Customer", "cust_20"], 0);

    // An application that names no actor holds what comes due.
    let Database::Sqlite(db) = &world.database else { unreachable!() };
    let keys = KeyManager::new(SqliteKeys::new(), Keyring::from_file(world.folder.path().join("ring")).unwrap());
    let due = OffsetDateTime::now_utc() + Duration::from_millis(500);
    let scope = |customer: &str| KeyScope::new("Customer", customer);
    let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    keys.hold(&mut tx, &scope("cust_24"), "case 2", None).await.unwrap();
    keys.hold(&mut tx, &scope("cust_20"), "case 2", Some(due + Duration::from_secs(86_400))).await.unwrap();
    for customer in ["cust_20", "cust_24", "cust_25"] {
        keys.schedule_shred(&mut tx, &scope(customer), due, ShredMode::KeepWorking, "case 2").await.unwrap();
    }
    tx.commit().await.unwrap();
    ended("holds", &["holds"], 0);
    ended("schedules", &["schedules"], 0);
    support::deadline::passed(due).await;
    let tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    ended("status", &["status", "--check"], 5);
    ended("sweep", &["sweep", "--lock-timeout", "0"], 3);
    tx.rollback().await.unwrap();
    let swept = ended("sweep", &["sweep"], 5);
    assert_eq!((&swept["shredded"], swept["held"].as_array().unwrap().len()), (&1.into(), 3));
    // Somebody alters an entry.
    world.execute("DROP TRIGGER shred_entries_stay_as_they_are").await;
    world.execute("UPDATE shred_entries SET reason = 'altered' WHERE scope_id = 'cust_24' AND scope_seq = 1").await;
    ended("holds", &["holds"], 1);
    ended("schedules", &["schedules"], 1);
    ended("sweep", &["sweep"], 1);
}

/// Runs each command in so many states that each field is printed in each of its types.
#[expect(clippy::too_many_lines, reason = "a list of commands, one after the other")]
async fn every_result(printed: &mut Printed) {
    let world = World::sqlite().await;
    let mut ended = |section: &str, arguments: &[&str], code: i32| -> Value {
        let output = world.run(&[arguments, &["--json"]].concat()).ended(code);
        printed.result(section, &output);
        output.json()
    };
    ended("migrate", &["migrate", "--namespace", "shop", "--events"], 0);
    ended("migrate --print", &["migrate", "--namespace", "shop", "--print"], 0);
    let old = ended("prepare", &["prepare"], 0)["kek"].as_str().unwrap().to_owned();
    world.append(0..4).await.unwrap();
    ended("doctor", &["doctor"], 0);
    ended("doctor", &["doctor", "--keyring", "/no/such/file"], 5);
    ended("verify", &["verify"], 0);
    let empty = world.folder.path().join("no copy");
    ended("verify", &["verify", "--shred-log", empty.to_str().unwrap()], 0);
    let moved = "UPDATE events SET payload = (SELECT payload FROM events WHERE global_position = 1) \
        WHERE global_position = 2";
    world.execute(format!("CREATE TABLE kept AS SELECT global_position, payload FROM events; {moved}")).await;
    world.execute("UPDATE key_scopes SET generation = 9 WHERE scope_id = 'cust_1'").await;
    ended("verify", &["verify"], 5);
    world.execute("UPDATE key_scopes SET generation = 1 WHERE scope_id = 'cust_1'").await;
    world
        .execute(
            "UPDATE events SET payload = (SELECT payload FROM kept WHERE kept.global_position = \
             events.global_position)",
        )
        .await;

    let (scope, reason) = (["Customer", "cust_1"], ["--reason", "request 1"]);
    let about = |command: &'static [&str]| [command, &scope[..]].concat();
    ended("rotate-data-key", &about(&["rotate-data-key"]), 0);
    ended("disable", &[&about(&["disable"])[..], &reason].concat(), 0);
    ended("enable", &[&about(&["enable"])[..], &reason].concat(), 0);
    ended("shred", &[&about(&["shred"])[..], &reason, &["--yes"]].concat(), 0);
    ended("reopen", &[&about(&["reopen"])[..], &reason].concat(), 0);
    ended("keys show", &about(&["keys", "show"]), 0);
    ended("keys list", &["keys", "list", "--limit", "2"], 0);
    // A change from before actors were recorded.
    let older = "INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, action, state, generation,
        reason, decided_at) VALUES ('0199d5d0-7a3e-7c11-9f3c-1d2e3f405162', 'Customer', 'cust_3', 1, 'enable', 'live',
        1, 'from before', '2026-01-02T03:04:05.000000Z')";
    world.execute(older).await;
    ended("keys show", &["keys", "show", "Customer", "cust_3"], 0);
    world
        .execute(
            "INSERT INTO key_scopes (scope_kind, scope_id, state, generation) VALUES ('Customer', 'old', 'live', 1);
             INSERT INTO shred_entries (entry_id, scope_kind, scope_id, scope_seq, decided_at, action, state,
                 generation, reason)
             VALUES ('00000000-0000-4000-8000-000000000001', 'Customer', 'old', 1, '2026-01-02T03:04:05.000000Z',
                 'disable', 'disabled', 1, 'before the log')",
        )
        .await;
    ended("shred-log adopt", &["shred-log", "adopt", "--reason", "upgrade"], 5);
    world.execute("UPDATE key_scopes SET state = 'disabled' WHERE scope_id = 'old'").await;
    ended("shred-log adopt", &["shred-log", "adopt", "--reason", "upgrade"], 0);

    let list = list_of_what_is_held(&world).await;
    ended("shred --from", &["shred", "--from", &list, "--reason", "many", "--yes"], 5);
    let file = world.folder.path().join("export.jsonl");
    ended("export", &[&about(&["export"])[..], &["--out", file.to_str().unwrap()]].concat(), 0);

    ended("rotate-kek", &["rotate-kek"], 0);
    world.execute("UPDATE data_keys SET wrapped_key = randomblob(65) WHERE scope_id = 'cust_2'").await;
    ended("rewrap --dry-run", &["rewrap", "--dry-run"], 0);
    ended("rewrap", &["rewrap"], 1);
    ended("shred", &["shred", "Customer", "cust_2", "--reason", "lost anyway", "--yes"], 0);
    let owners = world.folder.path().join("owners.json");
    let versions = r#"{"1":{"protected":{"/name":"Customer at /customer"},"normalized":{"/name":"lower_case"}}}"#;
    let lock = format!(r#"{{"eventseal_schemas":1,"types":{{"Placed":{{"versions":{versions}}}}}}}"#);
    std::fs::write(&owners, lock).unwrap();
    let schemas = ["--schemas", owners.to_str().unwrap()];
    let other = ["shred", "customer", "cust_2", "--reason", "spelled otherwise", "--yes", "--allow-unknown"];
    ended("shred", &[&other[..], &schemas].concat(), 0);
    ended("keys show", &[&["keys", "show", "Customer", "cust_2"][..], &schemas].concat(), 0);
    let spelled = ["shred", "Customer", "CUST_2", "--reason", "spelled otherwise", "--yes", "--allow-unknown"];
    ended("shred", &[&spelled[..], &schemas].concat(), 0);
    ended("keys show", &[&["keys", "show", "Customer", "CUST_2"][..], &schemas].concat(), 0);
    ended("keys list", &["keys", "list"], 0);
    ended("status", &["status"], 0);
    ended("retire-kek", &["retire-kek", &old], 0);
    ended("status", &["status", "--max-age", "0", "--check"], 5);
    ended("status", &["status", "--retention", "backups=35d,archives=none,replicas=1h"], 0);

    world.execute("UPDATE key_encryption_keys SET master_key_id = 'gone' WHERE state = 'retired'").await;
    let both = world.keyring("both", &format!("next:{OTHER_SECRET}\nmain:{SECRET}\n"));
    let moving = ["move-master-key", "--keyring", both.to_str().unwrap()];
    let dry = [&moving[..], &["--dry-run"]].concat();
    ended("move-master-key --dry-run", &dry, 0);
    ended("move-master-key", &moving, 0);
    ended("move-master-key", &moving, 0);
    ended("move-master-key --dry-run", &dry, 0);

    every_log(printed).await;
    every_census(&world, printed).await;
    // This damages an event.
    every_search(&world, printed).await;
    every_certificate(printed).await;
}

/// A log, its copy, and a restore after which somebody was sealed for who had been shredded.
async fn every_log(printed: &mut Printed) {
    let world = World::sqlite().await;
    world.run(&["migrate", "--namespace", "shop", "--events", "--json"]).ended(0);
    world.run(&["prepare", "--json"]).ended(0);
    world.append(0..2).await.unwrap();
    world
        .execute(
            "CREATE TABLE saved_keys AS SELECT * FROM data_keys; CREATE TABLE saved_scopes AS SELECT * FROM \
             key_scopes;",
        )
        .await;
    world.append(2..3).await.unwrap();
    let file = world.folder.path().join("log");
    let file = file.to_str().unwrap();
    let mut ended = |section: &str, arguments: &[&str], code: i32| {
        printed.result(section, &world.run(&[arguments, &["--json"]].concat()).ended(code));
    };
    for id in ["cust_1", "cust_2"] {
        world.run(&["shred", "Customer", id, "--reason", "request", "--yes", "--json"]).ended(0);
    }
    ended("shred-log export", &["shred-log", "export", "--append", file], 0);
    ended("shred-log verify", &["shred-log", "verify"], 0);
    ended("shred-log verify", &["shred-log", "verify", file], 0);
    world
        .execute(
            "PRAGMA foreign_keys = OFF;
             DROP TRIGGER data_keys_stay; DROP TRIGGER key_scopes_stay; DROP TRIGGER shred_entries_stay;
             DROP TRIGGER shred_log_stays; DROP TRIGGER shred_log_head_goes_forward;
             DELETE FROM shred_log; DELETE FROM shred_entries; UPDATE shred_log_head SET seq = 0, hash = zeroblob(32);
             DELETE FROM data_keys; DELETE FROM key_scopes;
             INSERT INTO key_scopes SELECT * FROM saved_scopes; INSERT INTO data_keys SELECT * FROM saved_keys;",
        )
        .await;
    // The same customer again.
    world.append(2..3).await.unwrap();
    ended("shred-log verify", &["shred-log", "verify", file], 5);
    ended("shred-log replay", &["shred-log", "replay", file, "--dry-run"], 0);
    ended("shred-log replay", &["shred-log", "replay", file], 5);
}

async fn every_search(world: &World, printed: &mut Printed) {
    let mut ended = |section: &str, arguments: &[&str], code: i32| {
        printed.result(section, &world.run(&[arguments, &["--json"]].concat()).ended(code));
    };
    ended("events-of", &["events-of", "Customer", "cust_1"], 0);
    ended("index-seals --print", &["index-seals", "--print"], 0);
    ended("index-seals", &["index-seals"], 0);
    ended("status", &["status"], 0);
    world.execute(r#"UPDATE events SET payload = CAST('{"$seal":"AQ"}' AS BLOB) WHERE global_position = 1"#).await;
    ended("events-of", &["events-of", "Customer", "cust_1", "--scan"], 5);
    ended("index-seals", &["index-seals", "--anew"], 5);
    every_page(world, printed);
}

fn every_page(world: &World, printed: &mut Printed) {
    let mut ended = |section: &str, arguments: &[&str]| {
        printed.result(section, &world.run(&[arguments, &["--json"]].concat()).ended(0));
    };
    ended("completions", &["completions", "bash"]);
    ended("man", &["man"]);
    ended("man", &["man", "--directory", world.folder.path().to_str().unwrap()]);
}

/// The name of a file that lists a scope on hold.
async fn list_of_what_is_held(world: &World) -> String {
    let path = world.folder.path().join("requests.jsonl");
    std::fs::write(&path, r#"{"kind":"Customer","id":"cust_3"}"#).unwrap();
    crate::shred_many::hold(world, "cust_3").await;
    path.to_str().unwrap().to_owned()
}

async fn every_census(world: &World, printed: &mut Printed) {
    let mut ended = |section: &str, arguments: &[&str], code: i32| {
        printed.result(section, &world.run(&[arguments, &["--json"]].concat()).ended(code));
    };
    let Database::Sqlite(db) = &world.database else { unreachable!() };
    let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let bare = [NewEvent::raw("Placed", 2, r#"{"name":"Ada"}"#), NewEvent::raw("Unknown", 1, "{}")];
    SqliteStore::new().append(&mut tx, &aggregate("Order", "bare"), Any, &bare).await.unwrap();
    tx.commit().await.unwrap();
    let version = |protected: Value, step: Value| json!({ "protected": protected, "step": step });
    let next = |name: &str| json!({ "kind": "typed", "to": [{ "type": name, "version": 2 }] });
    let protected = || json!({ "/name": "Customer at /customer" });
    let lock = json!({ "eventseal_schemas": 1, "types": {
        "Placed": { "versions": { "1": version(protected(), next("Placed")), "2": version(protected(), Value::Null) } },
        "Gone": { "versions": { "1": version(json!({}), next("Gone")), "2": version(json!({}), Value::Null) } },
    } });
    let path = world.folder.path().join("schemas.json");
    std::fs::write(&path, lock.to_string()).unwrap();
    let schemas = ["--schemas", path.to_str().unwrap()];
    ended("census", &["census"], 0);
    ended("census", &[&["census"], &schemas[..]].concat(), 0);
    ended("census", &[&["census"], &schemas[..], &["--payloads=all"]].concat(), 0);
    // A part of the log does not tell whether a step can go.
    ended("census", &[&["census"], &schemas[..], &["--payloads=all", "--up-to", "3"]].concat(), 0);
}

async fn every_certificate(printed: &mut Printed) {
    let world = World::sqlite().await.with_keys(0..6).await;
    let mut certified = |id: &str, more: &[&str], code: i32| {
        let arguments = [&["certificate", "Customer", id, "--json"], more].concat();
        printed.result("certificate", &world.run(&arguments).ended(code));
    };
    let done = |arguments: &[&str]| drop(world.run(arguments).ended(0));
    // Never shredded, with holds and a schedule, of somebody and of nobody.
    let Database::Sqlite(db) = &world.database else { unreachable!() };
    let keys = KeyManager::new(SqliteKeys::new(), world.kms());
    let later = OffsetDateTime::now_utc() + Duration::from_secs(3_600);
    let scope = |id: &str| KeyScope::new("Customer", id);
    let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let clerk = keys.acting_as("clerk 7");
    let hold = clerk.hold(&mut tx, &scope("cust_1"), "case 1", None).await.unwrap();
    clerk.release(&mut tx, &hold, "case 1 closed").await.unwrap();
    keys.hold(&mut tx, &scope("cust_1"), "case 2", Some(later)).await.unwrap();
    clerk.schedule_shred(&mut tx, &scope("cust_1"), later, ShredMode::KeepWorking, "due").await.unwrap();
    keys.schedule_shred(&mut tx, &scope("cust_2"), later, ShredMode::Redact, "due").await.unwrap();
    tx.commit().await.unwrap();
    certified("cust_1", &[], 6);
    certified("cust_2", &[], 6);
    // Erased.
    done(&["shred", "Customer", "cust_3", "--reason", "request 1", "--yes"]);
    certified("cust_3", &[], 0);
    certified("cust_3", &["--retention", "backups=35d,archives=none,replicas=1h"], 0);
    let copy = world.folder.path().join("copy");
    let copy = ["--shred-log", copy.to_str().unwrap()];
    certified("cust_3", &copy, 5);
    done(&["shred-log", "export", "--append", copy[1]]);
    certified("cust_3", &copy, 0);
    // A key was lost; the headers of some events can't be read; there is another scope under the id.
    done(&["rotate-data-key", "Customer", "cust_4"]);
    done(&["shred", "customer", "cust_4", "--reason", "spelled otherwise", "--yes", "--allow-unknown"]);
    let lose = "DROP TRIGGER data_keys_stay; DELETE FROM data_keys WHERE scope_id = 'cust_4' AND version = 1";
    world.execute(lose).await;
    let broken = r#"UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '{"$seal":"', '{"$seal":"_') AS BLOB)
        WHERE global_position = 1"#;
    world.execute(broken).await;
    certified("cust_4", &[], 6);
    let list = world.folder.path().join("list");
    let lines = ["cust_3", "cust_4", "none"].map(|id| json!({ "kind": "Customer", "id": id }).to_string() + "\n");
    std::fs::write(&list, lines.concat()).unwrap();
    let output = world.run(&["certificate", "--from", list.to_str().unwrap(), "--json"]).ended(6);
    let mut result = output.json();
    // Each of them has the fields of a certificate.
    for certificate in result["certificates"].as_array_mut().unwrap() {
        printed.value("certificate", "", &certificate.take());
        *certificate = json!({});
    }
    printed.value("certificate --from", "", &result);
}

async fn failures(printed: &mut Printed) {
    let world = World::sqlite().await;
    printed.failure(&world.run(&["status", "--json"]).refused(1, "not_migrated"));
    printed.failure(&world.run(&["frobnicate", "--json"]).refused(2, "usage"));
    let world = world.with_keys(0..1).await;
    printed.failure(&world.run(&["keys", "show", "Customer", "none", "--json"]).refused(4, "unknown_scope"));
    let kek = world.keks()[0]["kek"].as_str().unwrap().to_owned();
    let refused = world.run(&["retire-kek", &kek, "--json"]).refused(4, "kek_in_use");
    assert!(refused.error()["help"].is_string());
    printed.failure(&refused);
    // A failure that has a cause.
    let no_database = world.folder.path().join("ring");
    let url = format!("sqlite://{}", no_database.display());
    printed.failure(&run(&mut eventseal(&["status", "--database", &url, "--json"])));
}

/// The kinds of failures and the names of checks are read from the library and from the command's sources.
#[test]
fn the_page_has_every_kind_of_failure_and_every_check() {
    let mut checks = BTreeSet::new();
    let mut failures: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let literals = |before: &str| source.split(before).skip(1).map(literal).collect::<Vec<_>>();
            for kind in ["Failure::refused(", "Failure::failed("].map(literals).concat() {
                failures.insert(kind.unwrap_or_else(|| panic!("{}: name the kind in the call", path.display())));
            }
            if path.ends_with("output.rs") {
                let body = source.split("fn kind(&self)").nth(1).unwrap().split("\n    }\n").next().unwrap();
                failures.extend(body.split("=> ").skip(1).filter_map(literal));
            }
            // The name of a check, as a text or as a constant.
            let calls = ["checks.good(", "checks.problem(", "checks.failed(", "const NAME: &str ="];
            checks.extend(calls.map(literals).concat().into_iter().flatten());
        }
    }
    same(KINDS, &kinds().into_keys().collect(), &failures);
    same("doctor", &sections()["doctor"]["checks[].check"].words, &checks);
}

/// The string literal at the begin of this text.
fn literal(rest: &str) -> Option<String> {
    rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned)
}

fn same(section: &str, documented: &BTreeSet<&str>, named: &BTreeSet<String>) {
    let new: Vec<_> = named.iter().filter(|name| !documented.contains(name.as_str())).collect();
    assert!(new.is_empty(), "docs/command-json.md, \"{section}\": add {new:?}");
    let gone: Vec<_> = documented.iter().filter(|name| !named.contains(**name)).collect();
    assert!(gone.is_empty(), "docs/command-json.md, \"{section}\": nothing prints {gone:?} any more");
}
