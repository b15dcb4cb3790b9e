//! The shred log and its copy, by command.

use super::*;
use crate::command::Output;
use sqlx::ConnectOptions;
use std::path::Path;

on_both! {
    a_log_is_exported_verified_and_replayed,
    a_copy_that_was_altered_is_refused,
    a_url_names_a_copy_in_a_database,
    copies_that_differ_are_refused,
    a_dry_run_names_what_a_replay_does,
    nothing_is_decided_while_a_required_copy_disagrees,
    a_restore_is_repaired_where_a_copy_is_required,
    a_variable_without_a_copy_is_refused,
}

/// Another database of the kind, and the URL that names a copy in it.
async fn elsewhere(world: &World) -> (Database, String) {
    if world.is_postgres() {
        let db = support::Postgres::empty().await;
        let url = db.options.to_url_lossy().to_string();
        (Database::Postgres(Box::new(db)), url)
    } else {
        let db = support::Sqlite::empty().await;
        let url = format!("sqlite://{}", db.folder.path().join("copies.db").display());
        (Database::Sqlite(db), url)
    }
}

/// Everything that a file can do. The command understands the name that it prints itself.
async fn a_url_names_a_copy_in_a_database(world: World) {
    let world = world.with_keys(0..3).await;
    let (_elsewhere, url) = elsewhere(&world).await;
    let url = format!("{url}#shop");
    world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    if !world.is_postgres() {
        let missing = world.run(&["shred-log", "verify", &url, "--json"]);
        missing.refused(1, "log_copy");
    }
    let begun = world.json(&["shred-log", "export", "--append", &url]);
    assert_eq!((&begun["began"], &begun["added"]), (&true.into(), &1.into()), "{begun}");
    let name = begun["copy"].as_str().unwrap();
    assert!(name.ends_with("#shop"), "{name}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log").display().to_string();
    world.json(&["shred-log", "export", "--append", &file]);
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    assert_eq!(world.json(&["shred-log", "export", "--append", name])["added"], 1);
    let verified = world.run(&["shred-log", "verify", name, &file, "--json"]).ended(5).json();
    let states: Vec<&str> =
        verified["copies"].as_array().unwrap().iter().map(|copy| copy["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["complete", "behind"], "{verified}");
    let replayed = world.json(&["shred-log", "replay", &file, name]);
    assert_eq!((&replayed["copy"], &replayed["entries"]), (&name.into(), &2.into()), "{replayed}");
    #[cfg(unix)]
    if let Database::Sqlite(db) = &_elsewhere {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(db.folder.path().join("copies.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it names scopes, so it is its owner's alone");
    }
    for (url, problem) in [
        ("postgres://copier:canary-password@elsewhere/logs", "has a password in it"),
        ("postgres://copier@elsewhere/logs?password=canary-password", "has a password in it"),
        ("postgres://copier@[/logs", "can't be read"),
    ] {
        let usage = world.run(&["shred-log", "verify", url]).ended(2);
        assert!(usage.err.contains("the URL of a copy") && usage.err.contains(problem), "{usage:?}");
    }
    let refused = world.run(&["shred-log", "verify", &format!("{url}; DROP"), "--json"]);
    refused.refused(2, "invalid_text");
}

/// What a dry run says is what the replay does then. What is left to somebody has an exit code of its own.
async fn a_dry_run_names_what_a_replay_does(world: World) {
    let mut world = world.with_keys(0..5).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log").display().to_string();
    world.json(&["disable", "Customer", "cust_4", "--reason", "incident 2"]);
    world.json(&["shred-log", "export", "--append", &file]);
    world.back_up().await;
    for id in ["cust_1", "cust_3", "cust_4"] {
        world.json(&["shred", "Customer", id, "--reason", "request 118", "--yes"]);
    }
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    world.json(&["reopen", "Customer", "cust_4", "--reason", "came back"]);
    world.json(&["shred-log", "export", "--append", &file]);
    world.restore().await;
    world.json(&["hold", "Customer", "cust_3", "--reason", "case 7"]);
    let dry = world.json(&["shred-log", "replay", &file, "--dry-run"]);
    let planned: Vec<_> = dry["planned"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let expected = [("cust_1", "shredded", false), ("cust_2", "disabled", false), ("cust_3", "live", true)];
    let of = |(id, state, held): (&str, &str, bool)| {
        serde_json::json!({ "kind": "Customer", "id": id, "state": state, "held": held, "undecided": false })
            .to_string()
    };
    assert_eq!(planned, expected.into_iter().chain([("cust_4", "live", false)]).map(of).collect::<Vec<_>>(), "{dry}");
    let text = world.run(&["shred-log", "replay", &file, "--dry-run"]).ended(0).out;
    for line in ["  Customer cust_1 would be shredded\n", "  Customer cust_3 was put on hold since the restore"] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(world.json(&["shred-log", "replay", &file, "--dry-run"]), dry, "nothing was changed");

    let replayed = world.run(&["shred-log", "replay", &file, "--json"]).ended(5).json();
    assert_eq!((&replayed["left"][0]["why"], &replayed["planned"]), (&"held".into(), &serde_json::json!([])));
    for (id, state, _) in expected {
        assert_eq!(world.json(&["keys", "show", "Customer", id])["state"], state, "{id}");
    }
    assert_eq!(world.json(&["keys", "show", "Customer", "cust_4"])["state"], "live");
}

/// Two copies that went on in two ways are named, with the first entry at which they differ. Nothing is replayed.
async fn copies_that_differ_are_refused(world: World) {
    let mut world = world.with_keys(0..3).await;
    let (_elsewhere, url) = elsewhere(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log").display().to_string();
    world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    world.json(&["shred-log", "export", "--append", &file]);
    let name = world.json(&["shred-log", "export", "--append", &url])["copy"].as_str().unwrap().to_owned();
    world.back_up().await;
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    world.json(&["shred-log", "export", "--append", &file]);
    world.restore().await;
    world.json(&["disable", "Customer", "cust_0", "--reason", "incident 4"]);
    world.json(&["shred-log", "export", "--append", &url]);
    let refused = world.run(&["shred-log", "replay", &file, &url, "--json"]).refused(1, "copies_differ");
    let message = refused.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&file) && message.contains(&name) && message.contains("entry 2"), "{message}");
    let found = world.run(&["shred-log", "verify", &file, &url]).ended(5);
    assert!(found.out.contains("differ at entry 2"), "{found:?}");
}

async fn a_log_is_exported_verified_and_replayed(world: World) {
    let world = world.with_keys(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let file = file.to_str().unwrap();
    world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    let begun = world.run(&["shred-log", "export", "--append", file]).ended(0);
    assert!(begun.out.starts_with("A NEW COPY WAS BEGUN: ") && begun.out.contains("\n1 entry added to "), "{begun:?}");
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    let verified = world.run(&["shred-log", "verify", file]).ended(5);
    assert!(verified.out.contains("the log has gone on since: export again"), "{verified:?}");
    let other = folder.path().join("nothere.shredlog");
    for made in [false, true] {
        if made {
            std::fs::write(&other, "").unwrap();
        }
        let verified = world.run(&["shred-log", "verify", other.to_str().unwrap()]).ended(5);
        assert!(verified.out.contains("it does not exist, or is empty"), "{verified:?}");
        let verified = world.run(&["shred-log", "verify", other.to_str().unwrap(), "--json"]).ended(5).json();
        assert_eq!((&verified["ok"], &verified["copies"][0]["state"]), (&false.into(), &"empty".into()), "{verified}");
    }
    assert_eq!(world.json(&["shred-log", "export", "--append", file])["added"], 1);
    let again = world.json(&["shred-log", "export", "--append", file]);
    assert_eq!((&again["added"], &again["seq"]), (&0.into(), &2.into()));
    let verified = world.run(&["shred-log", "verify", file]).ended(0);
    assert!(
        verified.out.contains("it has every entry") && verified.out.contains("Nothing was altered"),
        "{verified:?}"
    );
    let dry = world.run(&["shred-log", "replay", file, "--dry-run"]).ended(0);
    assert!(dry.out.starts_with("0 of the copy's 2 entries are missing, and 0 scopes disagree"), "{dry:?}");
    let replayed = world.run(&["shred-log", "replay", file]).ended(0);
    assert!(replayed.out.starts_with("0 entries put back, 0 scopes set right"), "{replayed:?}");
    assert!(replayed.err.starts_with("Replaying "), "{replayed:?}");
    world.run(&["shred-log", "replay", "/no/such/file", "--json"]).refused(1, "log_copy");
}

async fn a_copy_that_was_altered_is_refused(world: World) {
    let world = world.with_keys(0..2).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = path.to_str().unwrap();
    world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    world.json(&["shred-log", "export", "--append", file]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("request 118", "request 119")).unwrap();
    let found = world.run(&["shred-log", "verify", file]).ended(5);
    assert!(found.out.contains("line 2") && found.out.contains("is not authentic"), "{found:?}");
    let refused = world.run(&["shred-log", "replay", file]).ended(1);
    assert!(refused.err.contains("line 2"), "{refused:?}");
    std::fs::write(&path, "").unwrap();
    world.run(&["shred-log", "replay", file, "--json"]).refused(1, "log_copy");
}

/// A disk that is full takes a part of what is written. The file is as it was then, and a later export completes it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_leaves_the_copy_as_it_was() {
    let world = World::sqlite().await.with_keys(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let file = path.to_str().unwrap();
    world.json(&["shred", "Customer", "cust_0", "--reason", "request 1", "--yes"]);
    world.json(&["shred-log", "export", "--append", file]);
    let before = std::fs::read(&path).unwrap();
    let reason = "r".repeat(200);
    for id in ["cust_1", "cust_2"] {
        world.json(&["shred", "Customer", id, "--reason", &reason, "--yes"]);
    }
    let export = world.command(&["shred-log", "export", "--append", file, "--json"]);
    // The limit is in blocks of 1,024 bytes. Without the signal, a write beyond it fails as on a full disk.
    let blocks = before.len() / 1024 + 1;
    let mut limited = Command::new("bash");
    let shell = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    limited.args(["-c", &shell]).arg(export.get_program()).args(export.get_args());
    for (name, value) in export.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let full = limited.output().unwrap();
    assert_eq!(full.status.code(), Some(1), "{full:?}");
    assert!(String::from_utf8_lossy(&full.stderr).contains("nothing was added to it"), "{full:?}");
    assert_eq!(std::fs::read(Path::new(file)).unwrap(), before, "nothing is half written");
    assert_eq!(world.json(&["shred-log", "export", "--append", file])["added"], 2);
    world.run(&["shred-log", "verify", file]).ended(0);
}

/// A timer that sweeps after a restore must not carry out what was cancelled since the backup.
async fn nothing_is_decided_while_a_required_copy_disagrees(world: World) {
    let mut world = world.with_keys(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("log").display().to_string();
    let required = ["--require-shred-log", &*copy, "--json"];
    let shred = ["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"];
    world.run(&[&shred, &required[..]].concat()).refused(1, "log_copy");
    world.json(&["shred-log", "export", "--append", &copy]);
    world.json(&[
        "schedule-shred",
        "Customer",
        "cust_1",
        "--in",
        "1m",
        "--mode",
        "keep-working",
        "--reason",
        "leaving",
    ]);
    world.back_up().await;
    world.json(&["cancel-shred", "Customer", "cust_1", "--reason", "stays"]);
    world.json(&["hold", "Customer", "cust_2", "--reason", "case 7"]);
    world.json(&["shred-log", "export", "--append", &copy]);
    world.restore().await;
    for changes in [
        &shred[..],
        &["shred", "Customer", "cust_2", "--reason", "request 119", "--yes"],
        &["hold", "Customer", "cust_2", "--reason", "case 8"],
        &["disable", "Customer", "cust_2", "--reason", "incident"],
        &["export", "Customer", "cust_2"],
    ] {
        world.run(&[changes, &required[..]].concat()).refused(1, "shred_log_behind");
    }
    // The variable serves every command of a host.
    let mut doctor = world.command(&["doctor", "--json"]);
    let told = run(doctor.env("EVENTSEAL_REQUIRE_SHRED_LOG", &copy)).ended(5);
    assert!(told.out.contains("shred-log replay"), "{told:?}");
    world.json(&["shred-log", "replay", &copy]);
    world
        .run(&[&["shred", "Customer", "cust_2", "--reason", "request 119", "--yes"], &required[..]].concat())
        .refused(4, "held");
    world.run(&[&shred, &required[..]].concat()).ended(0);
}

/// Runs a command where a copy is required of every command.
#[track_caller]
fn requiring(world: &World, copy: &str, arguments: &[&str]) -> Output {
    run(world.command(&[arguments, &["--json"]].concat()).env("EVENTSEAL_REQUIRE_SHRED_LOG", copy))
}

/// The commands that begin a copy, find what is wrong and repair it work while the required copy does not agree.
async fn a_restore_is_repaired_where_a_copy_is_required(world: World) {
    let mut world = world.with_keys(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let [copy, other] = ["log", "other"].map(|name| folder.path().join(name).display().to_string());
    let shred = |id| ["shred", "Customer", id, "--reason", "request 118", "--yes"];
    requiring(&world, &copy, &shred("cust_1")).refused(1, "log_copy");
    requiring(&world, &copy, &["shred-log", "verify", &copy]).ended(5);
    assert_eq!(requiring(&world, &copy, &["shred-log", "export", "--append", &copy]).ended(0).json()["began"], true);
    world.back_up().await;
    requiring(&world, &copy, &shred("cust_1")).ended(0);
    requiring(&world, &copy, &["shred-log", "export", "--append", &copy]).ended(0);
    for went_on in [false, true] {
        world.restore().await;
        if went_on {
            world.json(&["disable", "Customer", "cust_2", "--reason", "incident"]);
        }
        requiring(&world, &copy, &shred("cust_0")).refused(1, "shred_log_behind");
        let found = requiring(&world, &copy, &["shred-log", "verify", &copy]).ended(5).json();
        let state = found["copies"][0]["state"].as_str();
        assert_eq!(state, Some(if went_on { "forked" } else { "ahead" }), "{found}");
        requiring(&world, &copy, &["shred-log", "export", "--append", &copy]).refused(1, "shred_log_behind");
        let evidence = folder.path().join(format!("evidence {went_on}")).display().to_string();
        requiring(&world, &copy, &["shred-log", "export", "--append", &evidence]).ended(0);
        let dry = requiring(&world, &copy, &["shred-log", "replay", &copy, "--dry-run"]).ended(0).json();
        assert_eq!((&dry["missing"], &dry["forked"]), (&1.into(), &went_on.into()), "{dry}");
        let replayed = requiring(&world, &copy, &["shred-log", "replay", &copy]).ended(0).json();
        assert_eq!(replayed["missing"], 1, "{replayed}");
    }
    // The log has gone on in another way than the copy. The new one is begun under the old variable.
    requiring(&world, &copy, &shred("cust_0")).refused(1, "log_copy");
    requiring(&world, &copy, &["shred-log", "verify", &copy]).ended(0);
    requiring(&world, &copy, &["shred-log", "export", "--append", &other]).ended(0);
    requiring(&world, &other, &shred("cust_0")).ended(0);
    requiring(&world, &other, &["enable", "Customer", "cust_2", "--reason", "over"]).ended(0);
    assert_eq!(world.read().await, (1, 2));
}

/// A variable that is empty by mistake requires nothing, and must not look as if it did.
async fn a_variable_without_a_copy_is_refused(world: World) {
    let world = world.with_keys(0..1).await;
    for blank in ["", "  "] {
        let refused = requiring(&world, blank, &["shred-log", "verify"]).refused(2, "usage");
        let message = refused.error()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("unset EVENTSEAL_REQUIRE_SHRED_LOG if none is required"), "{message}");
        world.run(&["shred-log", "verify", blank, "--json"]).refused(2, "usage");
        world.run(&["shred-log", "export", "--append", blank, "--json"]).refused(2, "usage");
    }
}
