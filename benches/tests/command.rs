//! The command as a program. `scripts/test` runs all of it once, with `--quick`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eventseal-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_help_is_that_of_the_script() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scripts").join("bench");
    let script = Command::new(script).arg("--help").output().unwrap();
    let output = bench(&["--help"]);
    assert!(script.status.success() && output.status.success(), "{script:?} {output:?}");
    assert_eq!(text(&output.stdout).trim(), text(&script.stdout).trim());
}

#[test]
fn a_subject_that_is_not_there_is_refused() {
    let output = bench(&["--only", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no subject `nothing`"));
    let listed = text(&bench(&["--list"]).stdout);
    assert!(listed.lines().count() >= 14 && listed.contains("Sealing and opening"), "{listed}");
}

#[test]
fn a_run_writes_its_subject_and_keeps_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let page = || fs::read_to_string(folder.path().join("performance.md")).unwrap();
    let run = |subject: &str, note: &str| {
        let output = bench(&["--quick", "--only", subject, "--out", out, "--note", note]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    run("value", "nothing");
    let written = page().replace("## What limits it\n", "## What limits it\n\nThe scan of the payload.\n");
    fs::write(folder.path().join("performance.md"), written).unwrap();
    run("upcast", "a build");
    let page = page();
    for kept in ["The scan of the payload.", "| beside the run | nothing |", "performance/value.svg", "parse, edit"] {
        assert!(page.contains(kept), "{kept} is gone:\n{page}");
    }
    for new in ["| beside the run | a build |", "performance/upcast.svg", "10 declarative steps", "≤ 0.9"] {
        assert!(page.contains(new), "{new} is missing:\n{page}");
    }
    assert!(bench(&["--page", "--out", out]).status.success());
    assert_eq!(fs::read_to_string(folder.path().join("performance.md")).unwrap(), page, "nothing was measured");
    for plot in ["value", "upcast"] {
        let svg = fs::read_to_string(folder.path().join(format!("performance/{plot}.svg"))).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn a_page_without_marks_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("performance.md"), "My own page.\n").unwrap();
    let output = bench(&["--quick", "--only", "value", "--out", folder.path().to_str().unwrap()]);
    assert!(!output.status.success() && text(&output.stderr).contains("lacks the line"));
    assert_eq!(fs::read_to_string(folder.path().join("performance.md")).unwrap(), "My own page.\n");
}
