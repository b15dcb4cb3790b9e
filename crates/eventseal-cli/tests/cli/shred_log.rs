//! The shred log and its copy, by command.

use super::*;
use std::path::Path;

on_both! {
    a_log_is_exported_verified_and_replayed,
    a_copy_that_was_altered_is_refused,
}

async fn a_log_is_exported_verified_and_replayed(world: World) {
    let world = world.with_keys(0..3).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let file = file.to_str().unwrap();
    world.json(&["shred", "Customer", "cust_1", "--reason", "request 118", "--yes"]);
    let begun = world.run(&["shred-log", "export", "--append", file]).ended(0);
    assert!(begun.out.starts_with("Begun: 1 entry added to "), "{begun:?}");
    world.json(&["disable", "Customer", "cust_2", "--reason", "incident 3"]);
    let verified = world.run(&["shred-log", "verify", file]).ended(0);
    assert!(verified.out.contains("the log has gone on since: export again"), "{verified:?}");
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
