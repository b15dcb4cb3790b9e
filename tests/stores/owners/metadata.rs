//! Owners that the stored metadata names.

use super::{IP, live, login, refusal};
use eventseal::error::EventFault;
use eventseal::maintenance::{BackfillOptions, KeptBecause, RewriteOptions};
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::schema::{LockFile, SchemaProblem, StepContext};
use eventseal::{
    Changes, Error, EventFilter, EventStore, GlobalPosition, NewEvent, Normalize, Owner, Schemas, Sealer, aggregate,
    event, metadata,
};
use eventseal_testing::{GoldenCorpus, TaintCheck};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use support::backend::{Backend, payloads};
use support::world::{World, json_of, pointers};
use support::{KEYRING, contains, on_every_database};

on_every_database! {
    i1_i2_the_stored_metadata_names_the_owner,
    what_names_no_owner_is_not_appended,
    i5_backfill_comes_to_the_owner_of_the_append,
    i2_a_rewrite_keeps_the_owner_or_the_event,
}

fn actor() -> Owner {
    metadata("Customer", "/actor/id")
}

fn schemas() -> Schemas {
    Schemas::builder([
        event("LoggedIn").version(1).protect(&["/ip", "/more/*/ip"], actor()),
        event("Whole").version(1).protect_whole(actor()),
    ])
    .accept_plaintext("LoggedIn")
    .accept_plaintext("Whole")
    .build()
    .unwrap()
}

async fn i1_i2_the_stored_metadata_names_the_owner<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let events = [
        login("LoggedIn").with_metadata(r#"{ "actor" : {"x":1, "\u0069d":"a\u0064a"} }"#),
        login("LoggedIn").with_metadata(r#"{"actor":{"id":42}}"#),
        NewEvent::raw("LoggedIn", 1, r#"{"ip":"192.0.2.77","more":[{"ip":"a"},{"ip":"b"}]}"#)
            .with_metadata(r#"{"actor":{"id":"42"}}"#),
        NewEvent::raw("Whole", 1, "no JSON").with_metadata(r#"{"actor":{"id":"eve"}}"#),
        // Nothing in it is protected, so it needs no owner.
        NewEvent::raw("LoggedIn", 1, r#"{"ip":null}"#),
    ];
    db.append(&store, "1", &events).await;
    let mut scopes = live(&db, &store).await;
    scopes.sort();
    assert_eq!(scopes, ["Customer 42", "Customer ada", "Customer eve"]);
    assert!(db.stored().await.iter().all(|event| !contains(&event.payload, IP)), "I2");
    let read = db.read(&store, "1").await.unwrap();
    assert!(read.iter().zip(&events).all(|(read, appended)| read.payload == appended.payload()), "I1");
    db.shred(&store, "42").await;
    let read = db.read(&store, "1").await.unwrap();
    let redacted: Vec<Vec<&str>> = read.iter().map(pointers).collect();
    assert_eq!(redacted, [vec![], vec!["/ip"], vec!["/ip", "/more/0/ip", "/more/1/ip"], vec![], vec![]]);
    let refused = db.try_append(&store, "2", &[login("LoggedIn").with_metadata(r#"{"actor":{"id":42}}"#)]).await;
    assert!(matches!(refused, Err(Error::Shredded { .. })));
}

async fn what_names_no_owner_is_not_appended<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let at = "/actor/id in the metadata";
    for given in [None, Some("{}"), Some("null"), Some(r#"{"actor":"ada"}"#), Some(r#"{"actor":{"id":null}}"#)] {
        for name in ["LoggedIn", "Whole"] {
            let event = given.into_iter().fold(login(name), NewEvent::with_metadata);
            let (fault, said) = refusal(db.try_append(&store, "1", &[event]).await);
            assert!(matches!(fault, EventFault::MissingScopeId { pointer, .. } if pointer == at), "{given:?}: {said}");
            assert!(said.contains(at) && !said.contains(IP), "I9: {said}");
        }
    }
    for id in [r#""""#, "1.5", "1e2", "true", "[]", r#"{"id":1}"#] {
        let event = login("LoggedIn").with_metadata(format!(r#"{{"actor":{{"id":{id}}}}}"#));
        let (fault, said) = refusal(db.try_append(&store, "1", &[event]).await);
        assert!(matches!(fault, EventFault::InvalidScopeId { pointer, .. } if pointer == at), "{id}: {said}");
        assert!(said.contains(at), "{said}");
    }
    // A column of JSONB would keep the last one, and so name another owner than the append.
    for twice in [
        r#"{"actor":{"id":"a","id":"b"}}"#,
        r#"{"actor":{"id":"a"},"\u0061ctor":{"id":"b"}}"#,
        r#"{"actor":{"id":"a"},"actor":{}}"#,
    ] {
        let (fault, _) = refusal(db.try_append(&store, "1", &[login("LoggedIn").with_metadata(twice)]).await);
        assert!(matches!(fault, EventFault::InvalidMetadata { problem } if problem.contains("twice")), "{twice}");
    }
    let deep = format!(r#"{{"actor":{{"id":"a"}},"x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let (fault, _) = refusal(db.try_append(&store, "1", &[login("LoggedIn").with_metadata(deep)]).await);
    assert!(matches!(fault, EventFault::LimitExceeded { what, .. } if what.contains("metadata")));
    assert_eq!((db.stored().await, live(&db, &store).await), (vec![], Vec::<String>::new()), "I2: nothing was written");
}

async fn i5_backfill_comes_to_the_owner_of_the_append<B: Backend>() {
    let db = B::make().await;
    let named = |id: &str| format!(r#"{{"z":1,"actor":{{"id":{id}}},"a":[1.0]}}"#);
    let huge = "123456789012345678901234567890";
    let ids = ["\"ada\"", "42", huge, "\"\\u00e9 ~/\""];
    let plain: Vec<NewEvent> = ids.iter().map(|id| login("LoggedIn").with_metadata(named(id))).collect();
    db.append_bare("1", &plain).await;
    db.append_bare("1", &[login("LoggedIn").with_metadata("{}")]).await;
    let store = db.prepared(schemas()).await;
    let done = db.backfill(&store, &BackfillOptions::default()).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (4, 1), "nobody owns the last one");
    let mut backfilled = live(&db, &store).await;
    backfilled.sort();
    // The same events, appended through the store.
    let other = B::make().await;
    let appending = other.prepared(schemas()).await;
    other.append(&appending, "1", &plain).await;
    let mut appended = live(&other, &appending).await;
    appended.sort();
    assert_eq!(backfilled, appended);
    assert!(backfilled.contains(&format!("Customer {huge}")));
    db.shred(&store, huge).await;
    assert_eq!(pointers(&db.read(&store, "1").await.unwrap()[2]), ["/ip"]);
}

async fn i2_a_rewrite_keeps_the_owner_or_the_event<B: Backend>() {
    let old = |name: &str| event(name).version(1).protect(&["/ip"], actor());
    let next = |name: &str, owner| old(name).version(2).protect(&["/address"], owner);
    let moved = || Changes::new().move_value("/ip", "/address");
    let renamed = |old: Option<Value>, _: &StepContext<'_>| {
        Ok::<_, Infallible>(old.map(|old| json!({ "who": old["actor"]["id"], "other": { "id": "eve" } })))
    };
    let schemas = || {
        let schemas = Schemas::builder([
            next("Same", actor()).change(1, moved()),
            next("Moved", metadata("Customer", "/who")).change(1, moved()).upcast_metadata(1, renamed),
            next("Other", metadata("Customer", "/other/id")).change(1, moved()).upcast_metadata(1, renamed),
            next("Lost", actor()).change(1, moved()).upcast_metadata(1, renamed),
        ]);
        schemas.allow_older_appends().build().unwrap()
    };
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let names = ["Same", "Moved", "Other", "Lost"];
    let events = names.map(|name| login(name).with_metadata(r#"{"actor":{"id":"ada"}}"#));
    db.append(&store, "1", &events).await;
    let before = payloads(&db.read(&store, "1").await.unwrap());
    let target = B::Store::default();
    let copy = B::make().await;
    let mut connections = (db.connect().await.unwrap(), copy.connect().await.unwrap());
    let (from, to) = (db.connection(&mut connections.0), copy.connection(&mut connections.1));
    let done = store.rewrite(from, &target, to, &RewriteOptions::default(), &mut |_| {}).await;
    let done = done.unwrap();
    drop(connections);
    let kept: Vec<(KeptBecause, u64)> = done.kept.clone().into_iter().collect();
    assert_eq!((done.rewritten, kept.len()), (2, 2), "{done:?}");
    assert_eq!(done.kept[&KeptBecause::OtherOwner], 1);
    assert_eq!(done.kept[&KeptBecause::NotAppendable], 1);
    let stored = copy.stored().await;
    assert!(stored.iter().all(|event| !contains(&event.payload, IP)), "I2");
    let versions: Vec<u32> = stored.iter().map(|event| event.stored_version.get()).collect();
    assert_eq!(versions, [2, 2, 1, 1], "an owner that the copy does not name keeps the event as it is stored");
    let sealer = Sealer::new(B::Keys::default(), Arc::clone(&KEYRING), schemas());
    let mut transaction = db.begin().await.unwrap();
    let read = sealer.open(db.tx(&mut transaction), stored).await.unwrap();
    db.roll_back(transaction).await;
    assert_eq!(payloads(&read), before, "the copy reads the same");
}

#[tokio::test]
async fn i4_redactions_after_a_step_over_values_follow_the_stored_metadata() {
    let old = || event("Met").version(1).protect(&["/ip"], actor());
    let step = |mut old: Value| Ok::<_, Infallible>(json!({ "address": old["ip"].take(), "note": null }));
    let new = || {
        old()
            .version(2)
            .protect(&["/address"], actor())
            .protect(&["/note"], metadata("Customer", "/by"))
            .upcast(1, step)
            .upcast_metadata(1, |_, _: &StepContext<'_>| Ok::<_, Infallible>(Some(json!({ "by": "ada" }))))
    };
    let world = World::new();
    let writer = world.store(Schemas::new([old()]).unwrap()).await;
    let met = NewEvent::raw("Met", 1, r#"{"ip":"x"}"#).with_metadata(r#"{"actor":{"id":"ada"},"by":"eve"}"#);
    world.append(&writer, "1", &[met]).await;
    world.shred(&writer, "ada").await;
    let reader = world.store(Schemas::new([new()]).unwrap()).await;
    let read = world.read(&reader, "1").await.unwrap();
    assert_eq!(json_of(&read[0]), json!({ "address": null, "note": null }));
    assert_eq!(pointers(&read[0]), ["/address"], "what the step makes of the metadata names nobody");
}

#[test]
fn pointers_into_the_metadata_are_checked() {
    for (pointer, problem) in [
        ("actor", "must start with '/'"),
        ("", "all of the metadata"),
        ("/actors/*/id", "has a '*'"),
        ("/$seal/id", "header"),
        ("/a~x", "'~'"),
    ] {
        let refused = Schemas::new([event("Met").version(1).protect(&["/ip"], metadata("Customer", pointer))]);
        let problems = refused.unwrap_err().errors;
        assert!(
            problems.iter().any(|found| matches!(&found.problem, SchemaProblem::ScopePointer(at, said)
            if at.ends_with("in the metadata") && said.contains(problem))),
            "{pointer}: {problems:?}"
        );
    }
    let similar = event("Met")
        .version(1)
        .protect(&["/ip"], metadata("customer", "/id"))
        .protect(&["/name"], Owner::Aggregate.scope_kind("Customer"));
    let problems = Schemas::new([similar]).unwrap_err().errors;
    assert!(matches!(problems[0].problem, SchemaProblem::SimilarKinds { .. }));
    let in_two_ways = event("Met")
        .version(1)
        .protect(&["/ip"], metadata("Customer", "/id").normalize(Normalize::LowerCase))
        .protect(&["/name"], metadata("Customer", "/id"));
    let problems = Schemas::new([in_two_ways]).unwrap_err().errors;
    assert!(matches!(problems[0].problem, SchemaProblem::NormalizedOtherwise { .. }));
}

#[test]
fn the_lock_says_that_it_is_the_metadata() {
    let owner = actor().normalize(Normalize::LowerCase);
    let lock = LockFile::of(&Schemas::new([event("Met").version(1).protect(&["/ip"], owner.clone())]).unwrap());
    let version = &lock.types["Met"].versions[&1];
    assert_eq!(version.protected["/ip"], "Customer at /actor/id in the metadata");
    assert_eq!(version.normalized["/ip"], "lower_case");
    let schemas = Schemas::new([event("Met").version(1).protect(&["/ip"], owner.clone())]).unwrap();
    assert_eq!(schemas.versions()[0].protected[0].owner, owner);
    assert_eq!(schemas.scope_kinds(), ["Customer"]);
}

#[test]
fn guards_know_owners_in_the_metadata() {
    let schemas = || {
        let old = event("Met").version(1).protect(&["/ip"], actor());
        let new = old.version(2).protect(&["/address"], actor());
        Schemas::new([new.change(1, Changes::new().move_value("/ip", "/address"))]).unwrap()
    };
    TaintCheck::new(&schemas()).check().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let met = || NewEvent::raw("Met", 1, r#"{"ip":"192.0.2.77"}"#).with_metadata(r#"{"actor":{"id":"ada"}}"#);
    let corpus = |schemas| GoldenCorpus::open(folder.path(), schemas).unwrap();
    let of = aggregate("Order", "1");
    corpus(schemas()).case("met_v1", &of, met()).record().unwrap();
    corpus(schemas()).case("met_v1", &of, met()).check().unwrap();
    let case = std::fs::read_to_string(folder.path().join("met_v1.json")).unwrap();
    assert!(case.contains(r#""ada""#) && case.contains("/address"), "{case}");
}

#[tokio::test]
async fn what_was_sealed_opens_whatever_the_metadata_says_now() {
    let world = World::new();
    let store = world.store(schemas()).await;
    let met = login("LoggedIn").with_metadata(r#"{"actor":{"id":"ada"}}"#);
    world.append(&store, "1", std::slice::from_ref(&met)).await;
    let mut tx = world.db.begin();
    let page = MemoryStore::new().read_events(&mut tx, GlobalPosition::START, 10, &EventFilter::default()).await;
    let mut stored = page.unwrap().events;
    stored[0].metadata = Some(br#"{"actor":{"id":"eve"}}"#.to_vec());
    let sealer = Sealer::new(MemoryKeys::new(), Arc::clone(&world.keyring), schemas());
    let opened = sealer.open(&mut tx, stored).await.unwrap();
    assert_eq!(opened[0].payload, met.payload(), "on open, the owner comes from the key row");
}
