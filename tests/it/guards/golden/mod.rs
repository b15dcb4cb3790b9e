//! The golden corpus: what it lets pass, and the mistakes that it catches.

mod steps;
mod stored;

use eventseal::error::BoxError;
use eventseal::schema::StepContext;
use eventseal::{AggregateRef, EventVersion, NewEvent, Result, Schemas, aggregate, event, subject};
use eventseal_testing::{Checked, Difference, GoldenCorpus, GuardError, Mismatch};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;

/// `OrderPlaced` v1 to v2, as the step says.
fn order_schemas<E: Into<BoxError> + 'static>(step: fn(Value, &StepContext<'_>) -> Result<Value, E>) -> Schemas {
    let customer = || subject("Customer", "/customer_id");
    let order = event("OrderPlaced")
        .version(1)
        .protect(&["/email"], customer())
        .protect(&["/guests/*/name"], subject("Guest", "/guests/*/id"))
        .version(2)
        .protect(&["/contact/email"], customer())
        .protect(&["/guests/*/name"], subject("Guest", "/guests/*/id"))
        .upcast_with(1, step);
    Schemas::new([order]).unwrap()
}

#[allow(clippy::unnecessary_wraps, reason = "a step")]
fn right_step(mut order: Value, _: &StepContext<'_>) -> Result<Value, Infallible> {
    order["contact"] = json!({ "email": order["email"].take() });
    order.as_object_mut().unwrap().remove("email");
    Ok(order)
}

fn order() -> AggregateRef {
    aggregate("Order", "ord_1")
}

fn placed() -> NewEvent {
    let payload = r#"{"customer_id":"cust_42","email":"ada@example.org","total":990,
        "guests":[{"id":"g1","name":"Grace Hopper"},{"id":"g2","name":"Alan Turing"}]}"#;
    NewEvent::raw("OrderPlaced", 1, payload).with_metadata(r#"{"source":"web"}"#)
}

fn corpus(folder: &Path, schemas: Schemas) -> GoldenCorpus {
    GoldenCorpus::open(folder, schemas).unwrap().case("placed_v1", &order(), placed())
}

/// A folder in which the order is recorded with the right step.
fn recorded() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let checked = corpus(folder.path(), order_schemas(right_step)).record().unwrap();
    assert_eq!(checked.written, ["placed_v1"]);
    folder
}

fn differences(result: Result<Checked, GuardError>) -> Vec<Difference> {
    match result {
        Err(GuardError::Golden { differences }) => differences,
        other => panic!("{other:?}"),
    }
}

fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_recorded_is_sealed_and_comes_out_the_same() {
    let folder = recorded();
    let before = files(folder.path());
    let names: Vec<_> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["placed_v1.json", "test-keys.json"]);
    let case: Value = serde_json::from_str(&before[0].1).unwrap();
    let stored = case["stored"]["payload"].as_str().unwrap();
    assert!(stored.contains("$seal") && !stored.contains("ada@") && !stored.contains("Grace"), "{stored}");
    assert_eq!(case["expected"]["live"][0]["payload"]["contact"]["email"], "ada@example.org");
    assert_eq!(case["expected"]["live"][0]["version"], 2);
    assert_eq!(case["expected"]["redacted"][0]["payload"]["contact"]["email"], Value::Null);
    assert_eq!(
        case["expected"]["redacted"][0]["redacted"],
        json!(["/contact/email", "/guests/0/name", "/guests/1/name"])
    );
    assert!(before[1].1.contains("Test keys"));

    for result in [
        corpus(folder.path(), order_schemas(right_step)).check(),
        corpus(folder.path(), order_schemas(right_step)).record(),
    ] {
        let checked = result.unwrap();
        assert_eq!((checked.cases, checked.written.len()), (1, 0));
        assert_eq!(checked.uncovered, [("OrderPlaced".into(), EventVersion::new(2))]);
    }
    assert_eq!(before, files(folder.path()), "nothing is written anew");
}

#[test]
fn nothing_is_recorded_unless_asked() {
    let folder = tempfile::tempdir().unwrap();
    let found = differences(corpus(folder.path(), order_schemas(right_step)).check());
    assert_eq!(found.iter().map(|difference| &difference.mismatch).collect::<Vec<_>>(), [&Mismatch::NotRecorded]);
    assert!(files(folder.path()).is_empty());
    let empty =
        GoldenCorpus::open(folder.path().join("nowhere"), order_schemas(right_step)).unwrap().check().unwrap_err();
    assert!(empty.to_string().contains("holds no cases, and the test names none: add .case(…)"), "{empty}");
}

/// What a test does in the environment that this one gives it.
#[test]
#[ignore = "run by the next one"]
fn check_in_the_folder_of_the_environment() {
    let folder = std::env::var("GOLDEN_FOLDER").unwrap();
    corpus(Path::new(&folder), order_schemas(right_step)).check().unwrap();
}

#[test]
fn the_environment_says_whether_to_record() {
    let folder = tempfile::tempdir().unwrap();
    let run = |variable: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "guards::golden::check_in_the_folder_of_the_environment"]);
        command.env("GOLDEN_FOLDER", folder.path()).env_remove("EVENTSEAL_GOLDEN");
        command.envs(variable.map(|value| ("EVENTSEAL_GOLDEN", value)));
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (passed, report) = run(None);
    assert!(!passed && report.contains("run with EVENTSEAL_GOLDEN=record"), "{report}");
    let (passed, report) = run(Some("yes"));
    assert!(!passed && report.contains("set it to `record`"), "{report}");
    assert!(files(folder.path()).is_empty());
    assert!(run(Some("record")).0);
    assert!(!files(folder.path()).is_empty() && run(None).0 && run(Some("")).0);

    let case = folder.path().join("placed_v1.json");
    let changed = std::fs::read_to_string(&case).unwrap().replace("990", "991");
    std::fs::write(&case, &changed).unwrap();
    assert!(!run(None).0 && !run(Some("record")).0);
    assert_eq!(std::fs::read_to_string(&case).unwrap(), changed);
    assert!(run(Some("accept")).0 && run(None).0);
}
