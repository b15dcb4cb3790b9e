//! `shred --from` and `shred --partition`: many scopes in one command.

use super::*;
use crate::rewrap_process::reached;
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Child;

on_both! {
    a_file_is_shredded,
    a_mistake_in_a_file_is_named_before_anything_is_done,
    a_partition_is_shredded,
    i11_a_shred_of_many_that_is_killed_is_completed_by_the_next,
}

fn file(world: &World, lines: &[Value]) -> PathBuf {
    let path = world.folder.path().join("requests.jsonl");
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    path
}

fn line(customer: usize) -> Value {
    json!({ "kind": "Customer", "id": format!("cust_{customer}") })
}

/// Puts a customer on hold, as a clerk's application does.
pub(crate) async fn hold(world: &World, customer: &str) {
    use eventseal::keys::KeyManager;
    let scope = eventseal::KeyScope::new("Customer", customer);
    let kms = std::sync::Arc::new(Keyring::from_file(world.folder.path().join("ring")).unwrap());
    match &world.database {
        Database::Sqlite(db) => {
            let keys = KeyManager::new(eventseal::sqlite::SqliteKeys::new(), kms);
            let mut tx = db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            keys.hold(&mut tx, &scope, "case 12", None).await.unwrap();
            tx.commit().await.unwrap();
        }
        Database::Postgres(db) => {
            let keys = KeyManager::new(PostgresKeys::new(), kms);
            let mut tx = db.pool.begin().await.unwrap();
            keys.hold(&mut tx, &scope, "case 12", None).await.unwrap();
            tx.commit().await.unwrap();
        }
    }
}

async fn a_file_is_shredded(world: World) {
    let world = world.with_keys(0..5).await;
    world.run(&["shred", "Customer", "cust_3", "--reason", "request 1", "--yes"]).ended(0);
    hold(&world, "cust_4").await;
    let mut own = line(1);
    own["reason"] = "request 7".into();
    let path = file(&world, &[line(0), own, line(3), line(4)]);
    let from = ["shred", "--from", path.to_str().unwrap(), "--reason", "erasures of May", "--actor", "clerk 7"];
    // Nobody can be asked to confirm, so nothing is done.
    world.run(&[&from[..], &["--json"]].concat()).refused(4, "not_confirmed");
    assert_eq!(world.read().await, (4, 1));

    let done = world.run(&[&from[..], &["--yes"]].concat()).ended(5);
    assert!(done.err.starts_with("Shredding 4 scopes for good in namespace shop ("), "{done:?}");
    let expected = "Shredded 2 scopes: 2 data keys destroyed in ";
    assert!(done.out.starts_with(expected), "{done:?}");
    assert!(done.out.contains(
        "1 scope was shredded before.\n\n1 scope was NOT shredded:\n  Customer cust_4: Customer cust_4 is held"
    ));
    assert_eq!(world.read().await, (2, 3), "I12: what is held is kept");
    let reason = |id: &str| {
        let history = world.json(&["keys", "show", "Customer", id]);
        let last = history["changes"].as_array().unwrap().last().unwrap().clone();
        (last["reason"].clone(), last["actor"].clone())
    };
    assert_eq!(reason("cust_0"), ("erasures of May".into(), "clerk 7".into()));
    assert_eq!(reason("cust_1"), ("request 7".into(), "clerk 7".into()));
    assert_eq!(reason("cust_3").0, "request 1");

    // Again, from standard input: nothing is done twice.
    let mut child = world
        .command(&["shred", "--from", "-", "--reason", "erasures of May", "--yes", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(&path).unwrap()).unwrap();
    let again = child.wait_with_output().unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["shredded"], &again["already"], &again["complete"]), (&0.into(), &3.into(), &true.into()));
    let skipped = &again["skipped"];
    assert_eq!(
        (skipped.as_array().unwrap().len(), &skipped[0]["id"], &skipped[0]["error"]),
        (1, &"cust_4".into(), &"held".into())
    );
}

async fn a_mistake_in_a_file_is_named_before_anything_is_done(world: World) {
    let world = world.with_keys(0..2).await;
    let path = file(&world, &[line(0), line(1), json!({ "kind": "Customer", "ID": "cust_1" })]);
    let name = path.to_str().unwrap();
    let refused = world.run(&["shred", "--from", name, "--reason", "r", "--yes", "--json"]).refused(2, "usage").error();
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("line 3 of ")
            && message.contains("unknown field `ID`")
            && message.contains("nothing was shredded")
    );
    file(&world, &[line(0), line(77), line(78)]);
    let refused = world.run(&["shred", "--from", name, "--reason", "r", "--yes", "--json"]).refused(4, "unknown_scope");
    assert!(refused.error()["message"].as_str().unwrap().contains("for 2 of these, such as Customer cust_77"));
    file(&world, &[line(0)]);
    let refused = world.run(&["shred", "--from", name, "--yes", "--json"]).refused(2, "usage").error();
    assert!(
        refused["message"].as_str().unwrap().contains("line 1 of")
            && refused["message"].as_str().unwrap().contains("--reason")
    );
    file(&world, &[]);
    world.run(&["shred", "--from", name, "--reason", "r", "--yes", "--json"]).refused(2, "usage");
    world.run(&["shred", "--from", "/no/such/file", "--reason", "r", "--yes", "--json"]).refused(1, "io");
    for wrong in [
        &["shred", "--reason", "r"][..],
        &["shred", "Customer", "--reason", "r"],
        &["shred", "Customer", "cust_0", "--from", name],
        &["shred", "Customer", "cust_0", "--partition", "default", "--reason", "r"],
        &["shred", "--partition", "default", "--from", name, "--reason", "r"],
        &["shred", "--partition", "default"],
    ] {
        world.run(&[wrong, &["--yes", "--json"]].concat()).refused(2, "usage");
    }
    assert_eq!(world.read().await, (2, 0), "nothing was shredded");

    // A tombstone for somebody who was never there.
    file(&world, &[line(0), line(77)]);
    let done = world.json(&["shred", "--from", name, "--reason", "r", "--yes", "--allow-unknown"]);
    assert_eq!((&done["shredded"], &done["destroyed"]), (&2.into(), &1.into()));
    assert!(world.append(77..78).await.unwrap_err().is_shredded());
}

async fn a_partition_is_shredded(world: World) {
    let world = world.with_keys(0..2).await;
    world.run(&["prepare", "--partition", "tenant_7"]).ended(0);
    for id in ["cust_7", "cust_8", "cust_9"] {
        world.run(&["shred", "Customer", id, "--reason", "made", "--yes", "--allow-unknown"]).ended(0);
        world.run(&["reopen", "Customer", id, "--reason", "made", "--partition", "tenant_7"]).ended(0);
    }
    world.run(&["shred", "Customer", "cust_9", "--reason", "request 9", "--yes"]).ended(0);
    let misspelt = ["shred", "--partition", "tenant_8", "--reason", "r", "--yes", "--json"];
    world.run(&misspelt).refused(1, "no_active_kek");
    let leaves = ["shred", "--partition", "tenant_7", "--reason", "contract 12 ended", "--yes"];
    let done = world.run(&leaves).ended(0);
    assert!(done.err.starts_with("Shredding 2 scopes of partition tenant_7 for good in namespace shop ("), "{done:?}");
    assert!(done.out.starts_with("Shredded 2 scopes: 2 data keys destroyed in "), "{done:?}");
    let states = world.json(&["keys", "list"]);
    let states: Vec<&str> =
        states["scopes"].as_array().unwrap().iter().map(|scope| scope["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["live", "live", "shredded", "shredded", "shredded"]);
    let again = world.json(&leaves);
    assert_eq!((&again["shredded"], &again["already"], &again["skipped"]), (&0.into(), &0.into(), &json!([])));
}

const SHREDDED: &str = "SELECT CAST(count(*) AS TEXT) FROM key_scopes WHERE state = 'shredded'";
const ENTRIES: &str = "SELECT CAST(count(*) AS TEXT) FROM shred_entries WHERE action = 'shred'";

fn start(world: &World, path: &str) -> Child {
    let arguments = ["shred", "--from", path, "--reason", "r", "--yes", "--progress-every", "0"];
    world.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

async fn i11_a_shred_of_many_that_is_killed_is_completed_by_the_next(world: World) {
    const MANY: usize = 2_000;
    let world = world.with_keys(0..0).await;
    for begin in (0..MANY).step_by(500) {
        world.append(begin..begin + 500).await.unwrap();
    }
    let path = file(&world, &(0..MANY).map(line).collect::<Vec<_>>());
    let count = async |sql| world.column(sql).await[0].parse::<usize>().unwrap();
    for point in [1, 200, 900] {
        let mut child = start(&world, path.to_str().unwrap());
        reached(&world, &mut child, SHREDDED, point).await;
        // SIGKILL
        child.kill().unwrap();
        child.wait().unwrap();
        let shredded = count(SHREDDED).await;
        assert!((point..MANY).contains(&shredded), "killed in the middle, at {point}: {shredded}");
        assert_eq!(count(ENTRIES).await, shredded, "I11: each is done as a whole or not at all");
        assert_eq!(world.read().await, (MANY - shredded, shredded));
    }
    let before = count(SHREDDED).await as u64;
    let last = world.json(&["shred", "--from", path.to_str().unwrap(), "--reason", "r", "--yes"]);
    assert_eq!(last["shredded"].as_u64().unwrap() + last["already"].as_u64().unwrap(), MANY as u64);
    assert!(last["already"].as_u64().unwrap() >= before);
    assert_eq!((count(SHREDDED).await, count(ENTRIES).await), (MANY, MANY), "none twice");
    assert_eq!(world.read().await, (0, MANY));
}
