//! Help, completions, and what the command line may not hold.

use super::*;

pub(super) const COMMANDS: [&[&str]; 36] = [
    &[],
    &["migrate"],
    &["prepare"],
    &["status"],
    &["census"],
    &["events-of"],
    &["index-seals"],
    &["doctor"],
    &["verify"],
    &["keys"],
    &["keys", "show"],
    &["keys", "list"],
    &["export"],
    &["shred"],
    &["certificate"],
    &["hold"],
    &["release"],
    &["holds"],
    &["schedule-shred"],
    &["cancel-shred"],
    &["schedules"],
    &["sweep"],
    &["shred-log"],
    &["shred-log", "export"],
    &["shred-log", "verify"],
    &["shred-log", "replay"],
    &["shred-log", "adopt"],
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

/// Adds a password to a URL. The server of the tests does not ask for one.
pub(super) fn with_password(url: &str) -> String {
    let with = url.replacen("postgres@", &format!("postgres:{PASSWORD}@"), 1);
    assert_ne!(with, url);
    with
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

#[test]
fn every_help_has_examples_and_stays_as_it_is() {
    for command in COMMANDS {
        let help = run(&mut eventseal(&[command, &["--help"]].concat())).ended(0);
        assert!(
            command == ["keys"] || command == ["shred-log"] || help.out.contains("Examples:\n  eventseal "),
            "{command:?}"
        );
        let name = std::iter::once("help").chain(command.iter().copied()).collect::<Vec<_>>().join("_");
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, help.out);
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
