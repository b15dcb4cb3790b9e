//! Declarations that schemas refuse at startup, and the protection that they declare.

use super::{no_parts, same};
use eventseal::schema::{EventSchema, SchemaProblem};
use eventseal::{Error, EventStoreExt, NewEvent, Normalize, Owner, Schemas, aggregate, event, subject};
use serde_json::json;
use support::customer;
use support::world::World;

/// The problems of these schemas, as `Type vN: Problem`.
fn problems(events: impl IntoIterator<Item = EventSchema>) -> Vec<String> {
    let errors = Schemas::new(events).expect_err("these schemas have problems").errors;
    let kind = |problem: &SchemaProblem| format!("{problem:?}").split(['(', ' ']).next().unwrap().to_owned();
    errors
        .iter()
        .map(|error| format!("{} v{}: {}", error.event_type, error.version.unwrap_or(0), kind(&error.problem)))
        .collect()
}

#[test]
fn every_contradiction_is_reported_on_its_own() {
    let e = || event("E").version(1);
    for (event, expected) in [
        (event(""), vec!["Name", "NoVersion"]),
        (event("E"), vec!["NoVersion"]),
        (event("E").protect(&["/a"], Owner::Aggregate).version(1), vec!["BeforeVersion"]),
        (event("E").version(0).upcast(0, same).version(1), vec!["VersionNumber"]),
        (event("E").version(u32::MAX), vec!["VersionNumber"]),
        (e().version(1), vec!["VersionTwice"]),
        (e().upcast(1, same).version(3), vec!["VersionMissing"]),
        (e().version(2), vec!["StepMissing"]),
        (e().version(2).upcast(1, same).upcast(1, same), vec!["StepTwice"]),
        (e().upcast(7, same), vec!["StepFromUnknown"]),
        (e().upcast(1, same), vec!["UnknownTarget"]),
        (e().split(1, &[("F", 1)], no_parts), vec!["UnknownTarget"]),
        (e().split(1, &[("E", 1)], no_parts), vec!["Cycle"]),
        (e().protect(&["/a"], Owner::Aggregate).version(2).upcast(1, same), vec!["Undeclared"]),
        (e().protect(&["/a"], Owner::Aggregate).unprotected("why"), vec!["ProtectedAndNot"]),
        (e().protect(&["/a"], Owner::Aggregate).protect_whole(Owner::Aggregate), vec!["FieldsAndWhole"]),
        (e().protect_same_as(2), vec!["SameAsUnknown"]),
        (e().protect(&["a"], Owner::Aggregate), vec!["Pointer"]),
        (e().protect(&[""], Owner::Aggregate), vec!["Pointer"]),
        (e().protect(&["/a~4"], Owner::Aggregate), vec!["Pointer"]),
        (e().protect(&["/$seal"], Owner::Aggregate), vec!["Pointer"]),
        (e().protect(&["/*"], Owner::Aggregate), vec!["NeverSeals"]),
        (e().protect(&["/*/email"], subject("K", "/*/id")), vec!["NeverSeals"]),
        (e().protect(&[&"/a".repeat(129)], Owner::Aggregate), vec!["NeverSeals"]),
        (e().protect(&[&format!("/{}", "a".repeat(4_096))], Owner::Aggregate), vec!["NeverSeals"]),
        (e().protect(&[], Owner::Aggregate), vec!["NamesNothing"]),
        (e().protect_whole(Owner::Aggregate).protect_whole(customer()), vec!["WholeTwice"]),
        (e().protect(&["/a"], subject("K", "/$seal")), vec!["ScopePointer"]),
        (e().protect(&["/a"], subject("K", "/b".repeat(129))), vec!["ScopePointer"]),
        (e().protect(&["/a", "/a/b"], Owner::Aggregate), vec!["Overlap"]),
        (e().protect(&["/a"], Owner::Aggregate).protect(&["/a"], customer()), vec!["Overlap"]),
        (e().protect(&["/a/*/b", "/a/0"], Owner::Aggregate), vec!["Overlap", "Pointer"]),
        (e().protect(&["/a/*/b"], subject("K", "/a/0/id")), vec!["Pointer"]),
        (e().protect(&["/a"], subject("", "/id")), vec!["ScopeKind"]),
        (e().protect(&["/a"], Owner::Aggregate.normalize(Normalize::Uuid)), vec!["NormalizesNoKind"]),
        (e().protect(&["/a"], subject("$eventseal", "/id")), vec!["ScopeKind"]),
        (e().protect(&["/a"], Owner::Aggregate.scope_kind("\0")), vec!["ScopeKind"]),
        (e().protect(&["/a"], subject("K", "id")), vec!["ScopePointer"]),
        (e().protect(&["/a"], subject("K", "/b/*/id")), vec!["ScopePointer"]),
        (e().protect(&["/a/*/b"], subject("K", "/c/*/id")), vec!["ScopePointer"]),
        (e().protect_whole(subject("K", "/a/*/id")), vec!["ScopePointer"]),
        (e().protect(&["/a"], Owner::Aggregate).redact_as("/b", "x"), vec!["NotProtected"]),
        (e().protect(&["/a"], Owner::Aggregate).pad_to("/b", 64), vec!["NotProtected"]),
        (e().protect(&["/a"], Owner::Aggregate).pad_to("/a", 33), vec!["Pad"]),
        (
            e().protect(&["/a"], Owner::Aggregate).redact_as("/a", "x").redact_as("/a", "y").redact_as("/a", "x"),
            vec!["StandInTwice"],
        ),
        (e().protect(&["/a"], Owner::Aggregate).pad_to("/a", 64).pad_to("/a", 96), vec!["PadTwice"]),
        (
            e().protect_whole(Owner::Aggregate)
                .redact_as("", "x")
                .redact_as("", json!(null))
                .pad_to("", 64)
                .pad_to("", 32),
            vec!["PadTwice", "StandInTwice"],
        ),
        (e().protect(&["/a"], Owner::Aggregate).pad_to("/a", 1 << 20), vec!["Pad"]),
    ] {
        let described = format!("{event:?}");
        let mut found: Vec<String> =
            problems([event]).iter().map(|problem| problem.split(": ").nth(1).unwrap().to_owned()).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{described}");
    }
}

/// A version that protects the same as several others protects what all of them do, not only the last one.
#[test]
fn i2_a_version_protects_what_every_version_named_protects() {
    let schemas = Schemas::new([event("E")
        .version(1)
        .protect(&["/a"], Owner::Aggregate)
        .version(2)
        .protect(&["/b"], Owner::Aggregate)
        .version(3)
        .protect_same_as(1)
        .protect_same_as(2)
        .upcast(1, same)
        .upcast(2, same)]);
    let versions = schemas.unwrap().versions();
    let mut protected: Vec<&str> = versions[2].protected.iter().map(|place| place.pointer.as_str()).collect();
    protected.sort_unstable();
    assert_eq!(protected, ["/a", "/b"]);
    let whole = |owner| event("E").version(1).protect_whole(owner);
    let twice = whole(Owner::Aggregate).version(2).protect_same_as(1).protect_whole(customer()).upcast(1, same);
    assert_eq!(problems([twice]), ["E v2: WholeTwice"]);
}

/// The longest and the deepest pointers that can seal.
#[tokio::test]
async fn i1_pointers_at_their_limits_seal() {
    for (pointer, payload) in [
        (format!("/{}", "a".repeat(4_095)), format!(r#"{{"{}":"Ada"}}"#, "a".repeat(4_095))),
        ("/a".repeat(128), format!("{}\"Ada\"{}", "{\"a\":".repeat(128), "}".repeat(128))),
    ] {
        let world = World::new();
        let store =
            world.store(Schemas::new([event("E").version(1).protect(&[&pointer], Owner::Aggregate)]).unwrap()).await;
        world.append(&store, "1", &[NewEvent::raw("E", 1, payload.clone())]).await;
        let stored =
            store.inner().read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap().events.remove(0);
        assert!(!String::from_utf8(stored.payload).unwrap().contains("Ada"));
        assert_eq!(world.read(&store, "1").await.unwrap()[0].payload, payload.as_bytes());
    }
}

#[test]
fn all_contradictions_are_reported_at_once() {
    let events = [
        event("A").version(1).version(2),
        event("B").version(1).protect(&["/x", "/x/y"], Owner::Aggregate),
        event("C").version(1).split(1, &[("D", 1)], no_parts),
        event("D").version(1).split(1, &[("C", 1), ("Gone", 3)], no_parts),
        event("D").version(1),
    ];
    let errors = Schemas::builder(events).accept_plaintext("A").accept_plaintext("Unknown").build().unwrap_err();
    let text = errors.to_string();
    assert!(
        text.starts_with("the schemas have 5 problems:") || text.starts_with("the schemas have 6 problems:"),
        "{text}"
    );
    for part in [
        "A version 1: there is no step",
        "B version 1: pointers \"/x\" and \"/x/y\" overlap",
        "D: it is declared twice",
        "A: accept_plaintext",
        "Unknown: accept_plaintext",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(matches!(Error::from(errors), Error::Schemas(_)));
    assert_eq!(
        problems([
            event("C").version(1).split(1, &[("D", 1)], no_parts),
            event("D").version(1).split(1, &[("C", 1), ("Gone", 3)], no_parts),
        ]),
        ["C v1: Cycle", "D v1: UnknownTarget", "D v1: Cycle"]
    );
}
