//! The frozen vectors of format version 1, through the engine: `tests/vectors/v1_pass.json` and
//! `tests/vectors/v1_fail.json`, and the cases that were added later, in `v1_pass_2.json` and `v1_fail_2.json`.
//! Copies of the shred log are in `v1_log_pass.json` and `v1_log_fail.json`, values outside of events in
//! `v1_value_pass.json` and `v1_value_fail.json`, snapshots in `v1_snapshot_pass.json` and `v1_snapshot_fail.json`,
//! metadata in `v1_metadata_pass.json` and `v1_metadata_fail.json`, blind indexes in `v1_index_pass.json` and
//! `v1_index_fail.json`.
//!
//! The files are the format's own proof, shared with every other implementation (`decrypt.py` beside them is one), so
//! no change may edit them. [`write`](mod@write) declares their cases, and can create files that are missing. Later
//! cases go into files of another name. `docs/format.md` describes their members.

mod case;
mod index;
mod log;
mod snapshot;
mod value;
mod write;

use case::{Bytes, CHECKS, Case, Vectors, hex_of};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn path(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "vectors", file].iter().collect()
}

fn read(file: &str) -> Vectors {
    let text = std::fs::read_to_string(path(file)).unwrap_or_else(|error| {
        panic!("{file}: {error}. Restore it from version control; only a new format has new vectors.");
    });
    serde_json::from_str(&text).unwrap()
}

fn cases_of(files: [&str; 3]) -> Vec<Case> {
    let cases = files.map(|file| {
        let vectors = read(file);
        assert_eq!((vectors.format, vectors.cases.is_empty()), (1, false), "{file}");
        vectors.cases
    });
    cases.concat()
}

/// All backends come to the same bytes. So nothing but this fails if a build has another one than it asked for.
#[test]
fn the_vectors_run_on_the_backend_that_was_asked_for() {
    let asked = if cfg!(feature = "aws-lc-rs") { "AWS-LC" } else { "RustCrypto" };
    assert_eq!(eventseal::internals::backend(), asked);
}

/// I1, I4: what the files promise about payloads that hold.
#[test]
fn i1_the_pass_vectors_seal_and_open_to_their_bytes() {
    for case in &cases_of(["v1_pass.json", "v1_pass_2.json", "v1_metadata_pass.json"]) {
        let name = &case.name;
        if let Some(sealed) = &case.sealed {
            assert_eq!(Bytes::from(case.seal()), *sealed, "{name}: sealed");
            let (opened, redacted) = case.open_live(&sealed.bytes()).unwrap();
            assert_eq!(Some(Bytes::from(opened)), case.plaintext, "{name}: sealed and opened again");
            assert!(redacted.is_empty(), "{name}");
        }
        let (opened, redacted) = case.open().unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(Some(Bytes::from(opened)), case.opened, "{name}: opened");
        assert_eq!(Some(redacted), case.redacted, "{name}: redacted");
        assert!(case.error.is_none(), "{name}");
    }
}

/// I3, I4: what the files promise about payloads that do not hold, down to the check that refuses them.
#[test]
fn i3_the_fail_vectors_fail_for_their_reasons() {
    let mut checks = BTreeSet::new();
    for case in &cases_of(["v1_fail.json", "v1_fail_2.json", "v1_metadata_fail.json"]) {
        let name = &case.name;
        let Err((error, detail)) = case.open() else { panic!("{name}: it opened") };
        assert_eq!((Some(&error), Some(&detail)), (case.error.as_ref(), case.detail.as_ref()), "{name}");
        assert!(case.opened.is_none() && case.redacted.is_none(), "{name}");
        checks.insert(detail);
    }
    for (_, check) in CHECKS {
        assert!(checks.contains(check), "no vector fails for {check}");
    }
}

#[test]
fn i3_wrapped_keys_open_to_what_the_vectors_say() {
    for (file, opens) in [("v1_pass.json", true), ("v1_fail.json", false)] {
        let vectors = read(file);
        assert!(!vectors.wrapped_keys.is_empty(), "{file}");
        for wrapped in &vectors.wrapped_keys {
            let key = wrapped.open().map(|key| hex_of(&key));
            assert_eq!(key, wrapped.key, "{}", wrapped.name);
            assert_eq!(key.is_some(), opens, "{}", wrapped.name);
        }
    }
}

/// The writer goes on making the files that were frozen. Where they are missing (a format of its own
/// has files of its own), `EVENTSEAL_WRITE_VECTORS=1` writes them; it never overwrites one.
#[test]
fn the_files_are_what_the_writer_writes() {
    for (file, text) in [
        ("v1_pass.json", serde_json::to_string_pretty(&write::pass())),
        ("v1_fail.json", serde_json::to_string_pretty(&write::fail())),
        ("v1_pass_2.json", serde_json::to_string_pretty(&write::later::pass())),
        ("v1_fail_2.json", serde_json::to_string_pretty(&write::later::fail())),
        ("v1_metadata_pass.json", serde_json::to_string_pretty(&write::metadata::pass())),
        ("v1_metadata_fail.json", serde_json::to_string_pretty(&write::metadata::fail())),
        ("v1_log_pass.json", serde_json::to_string_pretty(&write::log::pass())),
        ("v1_log_fail.json", serde_json::to_string_pretty(&write::log::fail())),
        ("v1_value_pass.json", serde_json::to_string_pretty(&write::values_outside::pass())),
        ("v1_value_fail.json", serde_json::to_string_pretty(&write::values_outside::fail())),
        ("v1_snapshot_pass.json", serde_json::to_string_pretty(&write::snapshots::pass())),
        ("v1_snapshot_fail.json", serde_json::to_string_pretty(&write::snapshots::fail())),
        ("v1_index_pass.json", serde_json::to_string_pretty(&write::indexes::pass())),
        ("v1_index_fail.json", serde_json::to_string_pretty(&write::indexes::fail())),
    ] {
        let text = text.unwrap() + "\n";
        if !path(file).exists() && std::env::var("EVENTSEAL_WRITE_VECTORS").is_ok_and(|value| value == "1") {
            let mut new =
                std::fs::OpenOptions::new().write(true).create_new(true).open(path(file)).unwrap_or_else(|error| {
                    panic!("{file}: {error}. Vectors are frozen: new cases go into a new file.");
                });
            std::io::Write::write_all(&mut new, text.as_bytes()).unwrap();
        }
        assert!(
            std::fs::read_to_string(path(file)).is_ok_and(|frozen| frozen == text),
            "{file} differs from what the engine writes"
        );
    }
}
