//! Counts the crates that are built before the first example runs: a newcomer waits for them.

use std::collections::BTreeSet;
use std::process::Command;
use support::sources::repository;

/// It may shrink. If it has to grow, see first whether a feature can be left out, or a test moved to this crate.
const AT_MOST: usize = 152;

#[test]
fn an_example_builds_few_crates() {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["tree", "--offline", "--locked", "--package", "eventseal"]);
    let output = cargo.args(["--edges", "normal,build,dev", "--prefix", "none"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<String> =
        text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    let heavy = ["aws-sdk-kms", "clap", "insta", "proptest", "sqlx-macros", "sqlx-postgres", "trybuild"];
    for name in heavy {
        assert!(!crates.iter().any(|found| found.starts_with(&format!("{name} "))), "{name} is built for the examples");
    }
    assert!(crates.len() <= AT_MOST, "{} crates are built for the examples, not {AT_MOST}:\n{crates:#?}", crates.len());
}
