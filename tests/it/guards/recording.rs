//! Recording: what is written does not depend on which guard comes first, and nobody reads half of it.

use eventseal::{AggregateVersion, GlobalPosition};
use eventseal::{NewEvent, Owner, PersistedEvent, Schemas, aggregate, event};
use eventseal_testing::{GoldenCorpus, GuardError, SchemaLock};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn schemas() -> Schemas {
    let registered = event("Registered")
        .version(1)
        .protect(&["/name"], Owner::Aggregate)
        .version(2)
        .protect(&["/person"], Owner::Aggregate);
    let registered =
        registered.upcast(1, |mut old: Value| Ok::<_, Infallible>(json!({ "person": old["name"].take() })));
    Schemas::new([registered, event("Noted").version(1)]).unwrap()
}

/// One case that is sealed, and one as it lies in a store.
fn corpus(folder: &Path) -> Result<GoldenCorpus, GuardError> {
    let new = |event_type: &str, version: u32, payload: &str| NewEvent::raw(event_type, version, payload);
    let customer = aggregate("Customer", "1");
    let noted = new("Noted", 1, r#"{"text":"a note"}"#);
    let noted = PersistedEvent::from_new(customer.clone(), AggregateVersion::FIRST, GlobalPosition::START, noted);
    Ok(GoldenCorpus::open(folder.join("golden"), schemas())?
        .case("registered_v1", &customer, new("Registered", 1, r#"{"name":"Ada Lovelace"}"#))
        .case("registered_v2", &customer, new("Registered", 2, r#"{"person":"Ada Lovelace"}"#))
        .stored_case("noted", noted))
}

#[test]
fn a_lock_and_a_corpus_are_recorded_in_either_order() {
    let written = [true, false].map(|lock_first| {
        let folder = tempfile::tempdir().unwrap();
        let (path, schemas) = (folder.path().join("schemas.json"), schemas());
        let lock = || SchemaLock::new(&path, &schemas).samples_of(&corpus(folder.path()).unwrap()).deny_not_traced();
        if lock_first {
            lock().record().unwrap();
        }
        assert_eq!(corpus(folder.path()).unwrap().record().unwrap().written.len(), 3);
        if !lock_first {
            lock().record().unwrap();
        }
        assert!(
            !lock().check().unwrap().written && corpus(folder.path()).unwrap().check().unwrap().uncovered.is_empty()
        );
        std::fs::read_to_string(&path).unwrap()
    });
    assert!(written[0].contains(r#""name": "string""#) && written[0].contains(r#""text": "string""#), "{}", written[0]);
    assert_eq!(written[0], written[1]);
}

/// Tests of one binary run at the same time: one records the corpus, and others read it.
#[test]
fn a_corpus_can_be_read_while_it_is_recorded() {
    const MORE: usize = 25;
    let large = |folder: &Path| {
        let noted = || NewEvent::raw("Noted", 1, format!(r#"{{"text":"{}"}}"#, "a note ".repeat(300)));
        let more =
            |corpus: GoldenCorpus, number| corpus.case(&format!("more_{number}"), &aggregate("Customer", "1"), noted());
        (0..MORE).fold(corpus(folder).unwrap(), more)
    };
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_done.load(Ordering::Relaxed) {
                        drop(corpus(folder.path()).unwrap());
                    }
                });
            }
            let recorded = large(folder.path()).record();
            is_done.store(true, Ordering::Relaxed);
            recorded.unwrap();
        });
        assert_eq!(large(folder.path()).check().unwrap().cases, MORE + 3);
        let left = std::fs::read_dir(folder.path().join("golden")).unwrap().count();
        assert_eq!(left, MORE + 4, "nothing is left beside the files");
    }
}
