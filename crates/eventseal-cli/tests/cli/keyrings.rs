//! Keyrings that shells and platforms pass to the command.

use crate::command::{Output, SECRET, World, run};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// The numbers of the user `nobody` and its group on Debian and most other systems.
const NOBODY: u32 = 65_534;

/// Runs a script in a shell. `$EVENTSEAL` is the command in it.
fn shell(world: &World, script: &str) -> Output {
    let mut command = Command::new("bash");
    command
        .args(["-c", script])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .current_dir(world.folder.path());
    command.env("EVENTSEAL", env!("CARGO_BIN_EXE_eventseal")).env("DATABASE_URL", world.url());
    run(&mut command)
}

#[tokio::test]
async fn a_keyring_may_come_out_of_a_pipe() {
    let world = World::sqlite().await.with_keys(0..1).await;
    for script in [
        "$EVENTSEAL doctor --keyring <(cat ring)",
        "cat ring | $EVENTSEAL doctor --keyring /dev/stdin",
        "$EVENTSEAL doctor --keyring /dev/stdin < ring",
        "EVENTSEAL_KEYRING_FILE=/dev/fd/3 $EVENTSEAL doctor 3< <(cat ring)",
        "EVENTSEAL_KEYRING_FILE=/dev/fd/3 $EVENTSEAL doctor 3< ring",
        "mkfifo -m 600 fifo && (cat ring > fifo & exec $EVENTSEAL doctor --keyring fifo)",
        "EVENTSEAL_KEYRING=\"$(cat ring)\" $EVENTSEAL doctor",
        "$EVENTSEAL move-master-key --from-keyring <(cat ring) --keyring <(cat ring) || test $? = 2",
    ] {
        let said = shell(&world, script).ended(0);
        assert!(!said.err.contains("new keys"), "{script}: {said:?}");
    }
    // Both failures have a message that says what is wrong.
    for (script, problem) in [
        ("$EVENTSEAL prepare --keyring /dev/null", "neither a file nor a pipe"),
        ("$EVENTSEAL prepare --keyring .", "neither a file nor a pipe"),
        ("$EVENTSEAL prepare --keyring <(true)", "it has no entries"),
        (
            "$EVENTSEAL prepare --keyring no/such/keyring",
            "file no/such/keyring, named by --keyring, does not exist: correct it",
        ),
        (
            "$EVENTSEAL prepare --keyring /etc/a-name-that-is-as-long-as-some-keys-in-base64",
            "file, named by --keyring, does not exist: correct it. Only for a new key database: make it with",
        ),
        (
            "EVENTSEAL_KEYRING_FILE=other.ring $EVENTSEAL prepare",
            "file other.ring, named by EVENTSEAL_KEYRING_FILE, does not exist",
        ),
        ("chmod 644 ring; $EVENTSEAL prepare --keyring ring", "chmod 600"),
    ] {
        let said = shell(&world, script);
        assert!([1, 2].contains(&said.code) && said.err.contains(problem), "{script}: {said:?}");
        assert!(!said.err.contains("new keys") || script.contains("chmod"), "{script}: {said:?}");
    }
    for misplaced in [format!("main:{SECRET}"), SECRET.to_owned(), SECRET.trim_end_matches('=').to_owned()] {
        let said = shell(&world, &format!("$EVENTSEAL prepare --keyring '{misplaced}'")).ended(2);
        assert!(said.err.contains("give it new keys"), "{said:?}");
    }
}

/// Kubernetes, systemd and Docker mount files that belong to root, and other users read them.
#[tokio::test]
async fn a_keyring_may_be_mounted_for_another_user() {
    let world = World::sqlite().await.with_keys(0..1).await;
    let crate::Database::Sqlite(db) = &world.database else { unreachable!() };
    let is_root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(world.folder.path()).unwrap()) == 0;
    if !is_root {
        // Only root can do what a platform does. For other users, the unit tests of the keyring check the modes of
        // their own files.
        let said = shell(&world, "chmod 440 ring; $EVENTSEAL doctor --keyring ring").ended(5);
        assert!(said.out.contains("chmod 600"), "{said:?}");
        return;
    }
    // A folder that the user `nobody` may enter, with everything that he needs.
    let command = world.folder.path().join("eventseal");
    std::fs::copy(env!("CARGO_BIN_EXE_eventseal"), &command).unwrap();
    for folder in [world.folder.path(), db.folder.path()] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(db.folder.path()).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(db.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mounted = |mode: u32, group: u32| {
        let path = world.keyring("mounted", &format!("main:{SECRET}\n"));
        chown(&path, Some(0), Some(group)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let as_nobody = |arguments: &str| {
        let nobody = format!("setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups ./eventseal doctor {arguments}");
        shell(&world, &nobody)
    };
    mounted(0o440, NOBODY);
    as_nobody("--keyring mounted").ended(0);
    as_nobody("--keyring /dev/stdin < mounted").ended(0);
    // The pipe belongs to root, and the command runs as another user.
    as_nobody("--keyring /dev/stdin < <(cat ring)").ended(0);
    mounted(0o444, NOBODY);
    let said = as_nobody("--keyring mounted").ended(5);
    let problem = "mounted is open to every user (mode 0444): chmod 600 it, or where a platform mounts it, mount it \
        with mode 0400";
    assert!(said.out.contains(problem) && !said.out.contains("new keys"), "{said:?}");
    for (mode, group) in [(0o400, NOBODY), (0o440, 0)] {
        mounted(mode, group);
        let said = as_nobody("--keyring mounted").ended(5);
        assert!(
            said.out.contains("can't be read: Permission denied") && said.out.contains("0440 for its group"),
            "{said:?}"
        );
    }
    assert!(Path::new("/usr/bin/setpriv").exists() || Path::new("/bin/setpriv").exists());
}
