//! What is wrong with a declaration is said when the schemas are built.

use super::{actor, schema};
use eventseal::schema::{EventSchema, LockFile, SchemaProblem};
use eventseal::{
    Changes, Event, Events, KeyScope, NewEvent, Owner, Schemas, Scope, Sensitive, caller, caller_at, event, metadata,
    subject,
};
use serde::{Deserialize, Serialize};
use support::world::World;

fn problems(events: impl IntoIterator<Item = EventSchema>) -> Vec<String> {
    match Schemas::new(events) {
        Ok(_) => Vec::new(),
        Err(refused) => refused.errors.iter().map(|error| error.problem.to_string()).collect(),
    }
}

#[test]
fn what_is_wrong_is_said() {
    let met = || event("Met").version(1);
    let owned = |pointer: &str, owner| met().protect_metadata(&[pointer], owner);
    for (schema, said) in [
        (owned("ip", actor()), "in the metadata: "),
        (owned("/*/ip", actor()), "in the metadata: "),
        (owned("/$seal/x", actor()), "header's own place"),
        (owned("/ip", metadata("Customer", "/ip")), "stays in the clear"),
        (owned("/actor", actor()), "stays in the clear"),
        (owned("/actor/id/x", actor()), "stays in the clear"),
        (owned("/ip", subject("Customer", "/guests/*/id")), "which one's id"),
        (owned("/ip", subject("Customer", "/name")).protect(&["/name"], Owner::Aggregate), "stays in the clear"),
        (owned("/ip", subject("Customer", "/name")).protect_whole(Owner::Aggregate), "stays in the clear"),
        (owned("/ip", Owner::Aggregate).protect(&["/name"], metadata("Customer", "/ip")), "stays in the clear"),
        (owned("/subject/x", Owner::Aggregate).protect(&["/name"], caller("Customer")), "stays in the clear"),
        (owned("/ip", actor()).protect_metadata(&["/ip/v4"], actor()), "in the metadata: "),
        (owned("/ip", actor()).redact_metadata_as("/agent", 1), "in the metadata: "),
        (owned("/ip", actor()).pad_metadata_to("/ip", 33), "in the metadata: "),
        (owned("/ip", actor()).metadata_in_the_clear("why"), "in the metadata: "),
        (met().protect_metadata(&[], actor()), "in the metadata: "),
        (owned("/ip", caller("Customer")).protect(&["/name"], caller_at("Customer", "/who")), "keep one place"),
        (owned("/ip", caller("Customer")).protect(&["/name"], caller("Guest")), "one would be taken for the other"),
        (
            owned("/ip", actor()).version(2).change(1, Changes::new()),
            "metadata of the type is protected, but this version says nothing",
        ),
        (
            owned("/ip", metadata("customer", "/a")).protect(&["/b"], Owner::Aggregate.scope_kind("Customer")),
            "Customer",
        ),
    ] {
        let found = problems([schema]);
        assert!(found.iter().any(|problem| problem.contains(said)), "{said}: {found:?}");
    }
}

/// A problem of what is declared for all events is said once, and not again for every version of every type.
#[test]
fn what_is_wrong_for_all_events_is_said_once() {
    let events = || [event("Met").version(1), event("Seen").version(1).version(2).change(1, Changes::new())];
    for (pointer, owner) in [
        ("ip", actor()),
        ("/actor", actor()),
        ("/ip", metadata("$Customer", "/actor")),
        ("/ip", subject("Customer", "/guests/*/id")),
    ] {
        let refused = Schemas::builder(events()).protect_metadata(&[pointer], owner).build().unwrap_err();
        let [problem] = &refused.errors[..] else { panic!("{refused}") };
        assert!(problem.event_type == "*" && problem.version.is_none(), "{problem}");
        assert!(problem.to_string().starts_with("all events: "), "{problem}");
    }
    // What a version makes of it is still said of that version.
    let seen = event("Seen").version(1).protect_metadata(&["/ip/v4"], actor());
    let refused = Schemas::builder([seen]).protect_metadata(&["/ip"], actor()).build().unwrap_err();
    assert_eq!(refused.errors.len(), 1, "{refused}");
    assert!(refused.to_string().contains("Seen version 1: in the metadata: pointers"), "{refused}");
}

/// A kind that only the metadata of all events has counts as much as one of a registered version: a shred of a kind
/// that is nearly the same would miss it.
#[test]
fn the_kinds_of_the_metadata_of_all_events_are_known() {
    let in_the_clear = || event("Met").version(1).metadata_in_the_clear("nobody's");
    let of_all = |events: Vec<EventSchema>, owner| {
        Schemas::builder(events).allow_unknown_types().protect_metadata(&["/ip"], owner).build()
    };
    for events in [vec![], vec![in_the_clear()]] {
        let schemas = of_all(events, actor()).unwrap();
        assert_eq!(schemas.scope_kinds(), ["Customer"]);
        let places: Vec<String> =
            schemas.protected_metadata().iter().map(|place| format!("{} {}", place.pointer, place.owner)).collect();
        assert_eq!(places, ["/ip Customer at /actor/id in the metadata"]);
        let lock = LockFile::of(&schemas);
        assert_eq!(lock.metadata.as_ref().unwrap().protected["/ip"], "Customer at /actor/id in the metadata");
        assert_eq!(serde_json::from_str::<LockFile>(&serde_json::to_string(&lock).unwrap()).unwrap(), lock);
    }
    let name = || in_the_clear().protect(&["/name"], subject("Customer", "/customer"));
    let refused = of_all(vec![name()], metadata("customer", "/actor/id")).unwrap_err();
    let [problem] = &refused.errors[..] else { panic!("{refused}") };
    assert!(matches!(problem.problem, SchemaProblem::SimilarKinds { .. }), "{problem}");
    assert!(problem.to_string().contains("too similar to \"Customer\" of Met version 1"), "{problem}");
    let lower = metadata("Customer", "/actor/id").normalize(eventseal::Normalize::LowerCase);
    let refused = of_all(vec![name()], lower).unwrap_err();
    assert!(refused.to_string().contains("and in all events by"), "{refused}");
}

#[test]
fn what_is_right_is_built() {
    let next = || schema().version(2).change(1, Changes::new());
    assert_eq!(problems([next().protect_same_as(1)]), Vec::<String>::new());
    let gone = next().protect(&["/name"], subject("Customer", "/customer")).metadata_in_the_clear("not a person's");
    assert_eq!(problems([gone]), Vec::<String>::new());
    let several = schema().protect_metadata(&["/actors/*/ip"], metadata("Guest", "/actors/*/id"));
    assert_eq!(problems([several.pad_metadata_to("/ip", 64)]), Vec::<String>::new());
}

/// Versions that share protection, and declarations that meet, keep all of it.
#[tokio::test]
async fn i2_no_protection_of_metadata_is_lost_where_declarations_meet() {
    let old = || event("Met").version(1).protect_metadata(&["/ip"], actor()).redact_metadata_as("/ip", "unknown");
    let agent = |schema: EventSchema| schema.protect_metadata(&["/agent"], actor());
    let places = |schemas: &Schemas, version: usize| -> Vec<String> {
        let places = schemas.versions().swap_remove(version).protected_metadata;
        let mut places: Vec<String> =
            places.iter().map(|place| format!("{} {}", place.pointer, place.stand_in)).collect();
        places.sort();
        places
    };
    let both = ["/agent null", "/ip \"unknown\""];
    let next = |schema: EventSchema| schema.change(1, Changes::new());
    let same = Schemas::new([next(agent(old().version(2).protect_same_as(1)))]).unwrap();
    assert_eq!(places(&same, 1), both);
    let of_two = agent(old().version(2)).change(1, Changes::new()).version(3).protect_same_as(1).protect_same_as(2);
    assert_eq!(places(&Schemas::new([of_two.change(2, Changes::new())]).unwrap(), 2), both);
    let contradicts = next(old().version(2).protect_same_as(1).metadata_in_the_clear("why"));
    assert!(!problems([contradicts]).is_empty());

    let login = || LoggedIn::schema().unwrap();
    for twice in [
        [login(), login().protect_metadata(&["/ip"], actor())],
        [login().protect_metadata(&["/ip"], actor()), login()],
        [login().protect_metadata(&["/ip"], actor()), login().protect_metadata(&["/ip"], actor())],
    ] {
        let first = LoggedInV1::schema().unwrap().protect_metadata(&["/ip"], actor());
        let schemas = Schemas::new(twice.into_iter().chain([first])).unwrap();
        assert!(schemas.versions().iter().all(|version| version.protected_metadata.len() == 1));
    }
    let differ = [login().protect_metadata(&["/ip"], actor()), login().protect_metadata(&["/agent"], actor())];
    assert!(Schemas::new(differ).is_err());
}

#[test]
fn the_registry_and_the_lock_say_what_is_protected_in_the_metadata() {
    let schemas = Schemas::new([schema().protect_metadata(&["/by"], caller("Customer"))]).unwrap();
    let version = &schemas.versions()[0];
    let places: Vec<String> =
        version.protected_metadata.iter().map(|place| format!("{} {}", place.pointer, place.owner)).collect();
    let expected = [
        "/ip Customer at /actor/id in the metadata",
        "/seen/*/agent Customer at /actor/id in the metadata",
        "/by Customer by the caller, at /subject in the metadata",
    ];
    assert_eq!(places, expected);
    assert_eq!(version.protected.len(), 1);
    let lock = LockFile::of(&schemas);
    let text = serde_json::to_string(&lock).unwrap();
    assert!(text.contains(r#""metadata":{"protected":{"/by":"Customer by the caller"#), "{text}");
    assert!(text.contains(r#""redact_as":{"/ip":"unknown"}"#), "{text}");
    assert_eq!(serde_json::from_str::<LockFile>(&text).unwrap(), lock);
    assert_eq!(schemas.scope_kinds(), ["Customer"]);
    let plain = serde_json::to_string(&LockFile::of(&Schemas::new([event("Met").version(1)]).unwrap())).unwrap();
    assert!(!plain.contains("metadata"), "{plain}");
}

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "LoggedIn", version = 2, owner = Customer(customer), previous = LoggedInV1)]
struct LoggedIn {
    customer: String,
    name: Sensitive<String>,
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "LoggedIn", version = 1, owner = Customer(customer))]
struct LoggedInV1 {
    customer: String,
    name: Sensitive<String>,
}

impl From<LoggedInV1> for LoggedIn {
    fn from(old: LoggedInV1) -> Self {
        Self { customer: old.customer, name: old.name }
    }
}

#[derive(Events)]
enum Login {
    In(LoggedIn),
}

#[tokio::test]
async fn types_with_a_derive_join_what_is_said_of_their_metadata() {
    let of_all = Schemas::of::<Login>().protect_metadata(&["/ip"], actor()).build().unwrap();
    let by_hand = event("LoggedIn").version(1).protect_metadata(&["/ip"], actor());
    let by_hand = || by_hand.version(2).protect_metadata(&["/ip"], actor());
    let joined = Schemas::of::<Login>().and([by_hand()]).build().unwrap();
    assert_eq!(of_all.versions(), joined.versions());
    let differs = event("LoggedIn").version(2).protect(&["/x"], Owner::Aggregate).protect_metadata(&["/ip"], actor());
    let refused = Schemas::of::<Login>().and([differs]).build().unwrap_err().to_string();
    assert!(refused.contains("Sensitive in the type"), "{refused}");
    let world = World::new();
    let store = world.store(joined).await;
    let logged_in = LoggedIn { customer: "1".into(), name: "Ada".to_owned().into() };
    let logged_in = NewEvent::of(&logged_in).unwrap().with_metadata(super::metadata_of("ada"));
    world.append(&store, "1", &[logged_in]).await;
    world.shred_scope(&store, "Customer", KeyScope::new("Customer", "ada").id()).await;
    let read = world.read(&store, "1").await.unwrap();
    assert_eq!(read[0].redacted_metadata[0].as_str(), "/ip");
    assert_eq!(read[0].decode::<LoggedIn>().unwrap().name.expose().unwrap(), "Ada");
    let Ok(Login::In(logged_in)) = Login::decode(&read[0]) else { panic!("it decodes into the enum") };
    assert_eq!(logged_in.customer, "1");
}
