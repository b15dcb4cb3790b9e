//! Stand-ins that functions compute: how they are declared, what steps let them see, and what the guards say of them.

use eventseal::schema::{EventSchema, InTheClear, LockFile, SchemaProblem, StepContext};
use eventseal::{
    Changes, Event, EventPart, NewEvent, Owner, Schemas, Scope, Sensitive, aggregate, event, metadata, subject,
};
use eventseal_testing::{ChangeKind, GoldenCorpus, GuardError, SchemaLock, TaintCheck};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use support::world::{World, json_of, pointers};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// What is logged on this thread.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(tracing_subscriber::fmt().with_ansi(false).with_writer(self.clone()).finish())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(type = "Registered", version = 1, owner = Customer(customer), redact_as = "gone")]
pub(super) struct Registered {
    pub(super) customer: String,
    #[event(redact_with = numbered)]
    pub(super) name: Sensitive<String>,
    pub(super) note: Sensitive<String>,
    pub(super) address: Address,
    pub(super) n: u8,
}

#[derive(Debug, Serialize, Deserialize, EventPart)]
#[event(redact_with = inner::constant)]
pub(super) struct Address {
    pub(super) street: Sensitive<String>,
}

fn numbered(event: &InTheClear<'_>) -> Value {
    format!("Customer {}", event.payload()["n"]).into()
}

mod inner {
    pub(super) fn constant(_: &eventseal::schema::InTheClear<'_>) -> serde_json::Value {
        "a street".into()
    }
}

#[test]
fn a_type_names_functions_and_agrees_with_a_declaration_by_hand() {
    let customer = || subject("Customer", "/customer");
    let hand = |name: &'static str, stand_in: &str| {
        let all = event("Registered").version(1).protect(&["/name", "/note", "/address/street"], customer());
        let all = all.redact_as("/note", stand_in).redact_with("/name", name, numbered);
        all.redact_with("/address/street", "inner::constant", inner::constant)
    };
    let schemas = Schemas::of::<Registered>().and([hand("numbered", "gone")]).build().unwrap();
    let lock = LockFile::of(&schemas).types["Registered"].versions[&1].clone();
    let functions = json!({ "/name": "numbered", "/address/street": "inner::constant" });
    assert_eq!(serde_json::to_value(&lock.redact_with).unwrap(), functions);
    assert_eq!(serde_json::to_value(&lock.redact_as).unwrap(), json!({ "/note": "gone" }));
    for other in [hand("other", "gone"), hand("numbered", "other")] {
        let problems = Schemas::of::<Registered>().and([other]).build().unwrap_err().to_string();
        assert!(problems.contains("has two stand-ins"), "{problems}");
    }
}

#[test]
fn declarations_that_are_wrong() {
    let problems = |schema: EventSchema| {
        let errors = Schemas::new([schema]).unwrap_err().errors;
        errors.into_iter().map(|error| error.problem).collect::<Vec<_>>()
    };
    let named = || event("Met").version(1).protect(&["/a"], Owner::Aggregate);
    let whole = event("Met").version(1).protect_whole(Owner::Aggregate).redact_with("", "f", numbered);
    assert_eq!(problems(whole), [SchemaProblem::ComputedWhole]);
    let both = named().redact_as("/a", "x").redact_with("/a", "f", numbered);
    assert_eq!(problems(both), [SchemaProblem::StandInTwice("/a".into())]);
    let two = named().redact_with("/a", "f", numbered).redact_with("/a", "g", numbered);
    assert_eq!(problems(two), [SchemaProblem::StandInTwice("/a".into())]);
    let elsewhere = named().redact_with("/b", "f", numbered);
    assert_eq!(problems(elsewhere), [SchemaProblem::NotProtected("/b".into())]);
    let found = problems(named().redact_with("/a", "", numbered));
    assert!(matches!(found[..], [SchemaProblem::FunctionName(_)]), "{found:?}");
    let same = named().redact_with("/a", "f", numbered).redact_with("/a", "f", inner::constant);
    Schemas::new([same]).expect("functions are equal by name");
}

/// What a function sees of a payload and of metadata.
fn all(event: &InTheClear<'_>) -> Value {
    json!([event.payload(), event.metadata()])
}

/// A step can put anything anywhere. What was sealed before it is not seen, as far as this is known.
#[tokio::test]
async fn i4_a_function_does_not_see_what_was_sealed_before_a_step() {
    let owner = || metadata("Customer", "/by");
    let old = || {
        let old = event("Met").version(1).protect(&["/a"], owner()).protect(&["/b"], Owner::Aggregate);
        old.protect_metadata(&["/ip"], Owner::Aggregate)
    };
    let new = || {
        let open = |schema: EventSchema| schema.protect(&["/a"], owner()).metadata_in_the_clear("nobody looked");
        let new = open(open(old().version(2)).version(3)).redact_with("/a", "all", all);
        new.upcast_with(1, |old: Value, _: &StepContext<'_>| Ok::<_, Infallible>(old)).change(2, Changes::new())
    };
    let moves = |metadata: Option<Value>, _: &StepContext<'_>| {
        let mut metadata = metadata.unwrap();
        metadata["address"] = metadata["ip"].take();
        Ok::<_, Infallible>(Some(metadata))
    };
    let world = World::new();
    let store = world.store(Schemas::new([old()]).unwrap()).await;
    let met = NewEvent::raw("Met", 1, r#"{"a":"Ada","b":"secret","c":1}"#);
    world.append(&store, "1", &[met.with_metadata(r#"{"by":"1","ip":"192.0.2.1"}"#)]).await;
    world.shred(&store, "1").await;
    for b in [json!("secret"), Value::Null] {
        for (schema, expected) in
            [(new(), json!([{ "c": 1 }, { "by": "1" }])), (new().upcast_metadata(1, moves), json!([{ "c": 1 }, null]))]
        {
            let reader = world.store(Schemas::new([schema]).unwrap()).await;
            let event = world.read(&reader, "1").await.unwrap().remove(0);
            assert_eq!(json_of(&event), json!({ "a": expected, "b": b, "c": 1 }));
            assert_eq!(pointers(&event), ["/a"]);
        }
        world.shred_scope(&store, "Order", "1").await;
    }
}

/// Metadata in which nothing is sealed are seen as the steps have made them.
#[tokio::test]
async fn a_function_sees_the_metadata_of_its_version() {
    let renames = |old: Option<Value>, _: &StepContext<'_>| Ok::<_, Infallible>(old.map(|old| json!({ "old": old })));
    let met = || event("Met").version(1).protect(&["/a"], Owner::Aggregate).redact_with("/a", "all", all);
    let new = met().version(2).protect_same_as(1).change(1, Changes::new()).upcast_metadata(1, renames);
    let world = World::new();
    let store = world.store(Schemas::new([met()]).unwrap()).await;
    world.append(&store, "1", &[NewEvent::raw("Met", 1, r#"{"a":"Ada"}"#).with_metadata(r#"{"n":1}"#)]).await;
    world.shred_scope(&store, "Order", "1").await;
    let reader = world.store(Schemas::new([new]).unwrap()).await;
    for (store, metadata) in [(store, json!({ "n": 1 })), (reader, json!({ "old": { "n": 1 } }))] {
        assert_eq!(json_of(&world.read(&store, "1").await.unwrap()[0]), json!({ "a": [{}, metadata] }));
    }
}

/// A redaction that a step over values moves is found by `null` and by the stand-in before the step.
#[tokio::test]
async fn i7_redactions_follow_computed_stand_ins_that_a_closure_moves() {
    let old = || event("Met").version(1).protect(&["/name"], subject("Customer", "/id")).redact_with("/name", "f", all);
    let moves = |old: Value| Ok::<_, Infallible>(json!({ "id": old["id"], "called": old["name"], "n": 2 }));
    let new = || {
        let new = old().version(2).protect(&["/called"], subject("Customer", "/id"));
        new.redact_with("/called", "g", all).upcast(1, moves)
    };
    let events = World::after(old(), r#"{"id":"7","name":"Ada"}"#, &[("Customer", "7")], vec![new()]).await;
    assert_eq!(pointers(&events[0]), ["/called"]);
    assert_eq!(json_of(&events[0]), json!({ "id": "7", "called": [{ "id": "7", "n": 2 }, null], "n": 2 }));
    let sample = json!({ "id": "7", "name": "Ada L" });
    TaintCheck::new(&Schemas::new([new()]).unwrap()).sample("Met", 1, sample).check().unwrap();
}

/// A type that could not read a `null`, and a number that is computed.
#[derive(Deserialize)]
#[allow(dead_code, reason = "the lock reads its shape")]
struct Counted {
    n: u64,
}

#[test]
fn the_lock_tells_of_another_function() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let counted = || event("Counted").version(1).protect(&["/n"], Owner::Aggregate);
    let check = |schema: EventSchema| {
        let schemas = Schemas::new([schema]).unwrap();
        let lock = SchemaLock::new(&path, &schemas).shape_of::<Counted>("Counted", 1);
        if path.exists() { lock.check() } else { lock.record() }
    };
    let by = |name: &'static str| counted().redact_with("/n", name, |_| 0.into());
    check(by("zero-v1")).expect("what a function computes may fit the type");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("redact_with") && text.contains("zero-v1"), "{text}");
    check(by("zero-v1")).unwrap();
    for (schema, is) in [(by("zero-v2"), Some("zero-v2")), (counted().redact_as("/n", 0), None)] {
        let Err(GuardError::Schema { changes }) = check(schema) else { panic!("it changed") };
        let (was, is) = (Some("zero-v1".to_owned()), is.map(str::to_owned));
        let expected = ChangeKind::StandInBy { pointer: "/n".into(), was, is };
        assert_eq!(changes.iter().map(|found| &found.change).collect::<Vec<_>>(), [&expected]);
        let said = changes[0].to_string();
        assert!(said.contains(r#"for "/n" once it is erased was computed by zero-v1, is"#), "{said}");
    }
    let metadata = |name: &'static str| {
        let events = Schemas::builder([event("Met").version(1)]).protect_metadata(&["/ip"], Owner::Aggregate);
        LockFile::of(&events.redact_metadata_with("/ip", name, all).build().unwrap())
    };
    let text = serde_json::to_string(&metadata("all-v1")).unwrap();
    assert!(
        text.contains(r#""metadata":{"protected":{"/ip":"the aggregate"},"redact_with":{"/ip":"all-v1"}}"#),
        "{text}"
    );
}

#[test]
fn the_corpus_tells_of_a_function_that_computes_something_else() {
    let schemas = |says: &'static str| {
        let old = event("Met").version(1).protect(&["/name"], Owner::Aggregate);
        let new = old.version(2).protect(&["/person/name"], Owner::Aggregate);
        let new = new.redact_with("/person/name", "says", move |event| json!([says, event.payload()["person"]]));
        Schemas::new([new.change(1, Changes::new().move_value("/name", "/person/name"))]).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let corpus = |says| {
        let met = NewEvent::raw("Met", 1, r#"{"name":"Ada Lovelace","person":{"n":1}}"#);
        GoldenCorpus::open(folder.path(), schemas(says)).unwrap().case("met", &aggregate("Person", "1"), met)
    };
    corpus("somebody").record().unwrap();
    let recorded = std::fs::read_to_string(folder.path().join("met.json")).unwrap();
    assert!(recorded.contains("somebody"), "{recorded}");
    corpus("somebody").check().unwrap();
    let Err(GuardError::Golden { differences }) = corpus("another").check() else { panic!("it changed") };
    assert!(!differences.is_empty() && !format!("{differences:?}").contains("Lovelace"), "{differences:?}");
}
