//! `eventseal export`: what it writes, and what is left if it can't.

use crate::command::{Database, World, run};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

on_both! {
    one_persons_data_is_written_and_nobody_elses,
    a_file_is_complete_or_not_there,
    an_event_that_cannot_be_read_is_named,
    an_index_under_another_name_is_used_unless_the_log_is_asked_for,
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn one_persons_data_is_written_and_nobody_elses(world: World) {
    let world = world.with_keys(0..3).await;
    world.append(1..2).await.unwrap();
    let said = world.run(&["export", "Customer", "cust_1"]).ended(0);
    let written = lines(&said.out);
    assert_eq!((written.len(), &written[0]["namespace"], &written[0]["id"]), (4, &"shop".into(), &"cust_1".into()));
    for line in &written[1..3] {
        assert_eq!(line["stored"]["payload"], serde_json::json!({"customer": "cust_1", "name": "Ada"}));
    }
    assert_eq!((&written[3]["complete"], &written[3]["fields"]), (&true.into(), &2.into()));
    assert!(said.err.contains("2 events with 2 values") && said.err.contains("as they were stored"), "{said:?}");
    // The lines say it, so nothing else is printed.
    let said = world.run(&["export", "Customer", "cust_1", "--json"]).ended(0);
    assert_eq!((lines(&said.out).len(), said.err.as_str()), (4, ""));

    let file = world.folder.path().join("cust_1.jsonl");
    let done = world.json(&["export", "Customer", "cust_1", "--out", file.to_str().unwrap()]);
    assert_eq!((&done["complete"], &done["events"], &done["namespace"]), (&true.into(), &2.into(), &"shop".into()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(lines(&fs::read_to_string(&file).unwrap())[1..3], written[1..3]);
    world.run(&["export", "Customer", "cust_1", "--out", file.to_str().unwrap(), "--json"]).refused(4, "file_exists");

    world.run(&["export", "Customer", "nobody", "--json"]).refused(4, "scope_state");
    world.run(&["disable", "Customer", "cust_2", "--reason", "incident"]).ended(0);
    let refused = world.run(&["export", "Customer", "cust_2", "--json"]).refused(4, "disabled");
    assert_eq!(refused.out, "");
    world.run(&["shred", "Customer", "cust_1", "--reason", "request", "--yes"]).ended(0);
    let said = world.run(&["export", "Customer", "cust_1"]).ended(0);
    assert!(said.err.contains("2 values were erased") && !said.out.contains("Ada"), "{said:?}");
}

async fn a_file_is_complete_or_not_there(world: World) {
    let world = world.with_keys(0..1).await;
    for _ in 0..20 {
        world.append(0..1).await.unwrap();
    }
    let file = world.folder.path().join("out.jsonl");
    let path = file.to_str().unwrap();
    let in_folder = || -> Vec<String> {
        let entries = fs::read_dir(world.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name.starts_with("out"));
        names
    };
    // No file may grow beyond 512 bytes: a write fails in the middle, as on a disk that is full.
    let limited = world.command(&["export", "Customer", "cust_0", "--json", "--out", path]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh"]).arg(limited.get_program());
    shell.args(limited.get_args()).env_clear().stdin(Stdio::null());
    for (name, value) in limited.get_envs() {
        shell.env(name, value.unwrap());
    }
    let output = run(&mut shell);
    // SQLite may need a file of its own, and then fails first.
    assert_eq!((output.code, in_folder().len()), (1, 0), "{output:?}");
    if world.is_postgres() {
        output.refused(1, "io");
    }

    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = world.command(&["export", "Customer", "cust_0"]);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("can't be written") && said.contains("not complete"), "{said}");

    // What an earlier export left behind is not overwritten, and says what it is.
    fs::write(world.folder.path().join("out.jsonl.incomplete"), "half").unwrap();
    world.run(&["export", "Customer", "cust_0", "--json", "--out", path]).refused(1, "io");
    assert_eq!(in_folder(), ["out.jsonl.incomplete"]);
    fs::remove_file(world.folder.path().join("out.jsonl.incomplete")).unwrap();
    world.run(&["export", "Customer", "cust_0", "--out", path]).ended(0);
    assert_eq!(in_folder(), ["out.jsonl"]);
    world.run(&["export", "Customer", "cust_0", "--json", "--out", "/no/such/folder/out"]).refused(1, "io");
}

async fn an_event_that_cannot_be_read_is_named(world: World) {
    let world = world.with_keys(0..3).await;
    let broken = match &world.database {
        Database::Postgres(_) => {
            "UPDATE events SET payload = convert_to(replace(convert_from(payload, 'UTF8'), 'cust_0', 'cust_9'), 'UTF8')
             || '\\x20'::bytea WHERE global_position = 1;
             UPDATE events SET payload = overlay(payload placing '\\x21'::bytea from 12 for 1)
             WHERE global_position = 2"
        }
        Database::Sqlite(_) => {
            "UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), 'cust_0', 'cust_9') AS BLOB)
             WHERE global_position = 1;
             UPDATE events SET payload = CAST(replace(CAST(payload AS TEXT), '\"$seal\":\"', '\"$seal\":\"!') AS BLOB)
             WHERE global_position = 2"
        }
    };
    world.execute(broken).await;
    // The id of an owner is in the clear, and not authenticated: the key says whose the value is.
    let said = world.run(&["export", "Customer", "cust_0"]).ended(1);
    let written = lines(&said.out);
    assert_eq!(written[1]["stored"]["payload"]["name"], "Ada");
    assert!(written[2]["unreadable"].is_string() && written[2]["position"] == 2, "{said:?}");
    assert_eq!((&written[3]["complete"], written.len()), (&false.into(), 4));
    assert!(said.err.contains("not complete") && said.err.contains("1 event can't be read"), "{said:?}");
    let file = world.folder.path().join("part.jsonl");
    let done = world.run(&["export", "Customer", "cust_0", "--json", "--out", file.to_str().unwrap()]).ended(1);
    assert_eq!((&done.json()["complete"], &done.json()["unreadable"]), (&false.into(), &1.into()));
    assert!(fs::read_to_string(file).unwrap().contains("\"complete\":false"));
}

async fn an_index_under_another_name_is_used_unless_the_log_is_asked_for(world: World) {
    let world = world.with_keys(0..3).await;
    let named = ["--seals-table", "our_seals"];
    world.run(&[&["index-seals"], &named[..]].concat()).ended(0);
    // An index that has lost its rows finds nothing, which shows that it is asked.
    world.execute("DELETE FROM our_seals").await;
    let export = |more: &[&str]| {
        let said = world.run(&[&["export", "Customer", "cust_1"], more].concat()).ended(0);
        lines(&said.out).pop().unwrap()["events"].clone()
    };
    assert_eq!(export(&named), 0);
    assert_eq!(export(&[&named[..], &["--scan"]].concat()), 1);
    assert_eq!(export(&[]), 1);
}
