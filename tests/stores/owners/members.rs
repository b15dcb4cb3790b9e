//! The members of an object, protected one by one, with each member's name as the id of its owner.

use super::{live, refusal};
use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::maintenance::{BackfillOptions, RewriteOptions};
use eventseal::schema::{EventSchema, LockFile, SchemaProblem};
use eventseal::{
    Changes, EventStore, KeyScope, NewEvent, Normalize, Owner, Schemas, Sealer, Sensitive, aggregate, event, subject,
};
use eventseal_testing::{SchemaLock, TaintCheck};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use support::backend::{Backend, payloads};
use support::world::{World, json_of, pointers};
use support::{KEYRING, contains, on_every_database};

on_every_database! {
    i1_i2_i3_each_member_is_its_owners,
    i2_what_is_no_object_of_members_is_refused,
    i5_backfill_and_rewrite_come_to_the_same_owners,
}

const CANARY: &str = "Grace Hopper";

fn guest() -> Owner {
    subject("Guest", "{guest}")
}

fn met() -> EventSchema {
    event("Met")
        .version(1)
        .protect(&["/guests/{guest}/name", "/guests/{guest}/phones/*/number"], guest())
        .protect(&["/guests/{guest}/agent"], subject("Agent", "/guests/{guest}/agent_id"))
        .protect(&["/by/{name}"], subject("Guest", "{name}"))
}

fn schemas() -> Schemas {
    let next = event("Old").version(1).protect(&["/guests/{guest}/name"], guest());
    let next = next.version(2).protect(&["/people/{guest}/name"], guest());
    let next = next.change(1, Changes::new().move_value("/guests", "/people"));
    Schemas::builder([met(), next]).accept_plaintext("Met").allow_older_appends().build().unwrap()
}

async fn shred<B: Backend>(db: &B, store: &eventseal::SealedStore<B::Store>, kind: &str, id: &str) {
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &KeyScope::new(kind, id), "request").await.unwrap();
    db.commit(transaction).await.unwrap();
}

async fn i1_i2_i3_each_member_is_its_owners<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let payload = format!(
        r#"{{ "guests":{{"a":{{"name":"{CANARY}","phones":[{{"number":1}},{{"number":2}}]}},
            "\u0062/~{{*":{{"name" : "{CANARY}","agent":"x","agent_id":7}}, "0":{{"name":null}},"none":null}},
            "by":{{"a":"{CANARY}","$seal":1}}, "n":1.50}}"#
    );
    let event = NewEvent::raw("Met", 1, payload);
    db.append(&store, "1", std::slice::from_ref(&event)).await;
    let mut scopes = live(&db, &store).await;
    scopes.sort();
    assert_eq!(scopes, ["Agent 7", "Guest $seal", "Guest 0", "Guest a", "Guest b/~{*"]);
    let stored = db.stored().await.remove(0);
    assert!(!contains(&stored.payload, CANARY), "I2");
    assert!(contains(&stored.payload, r#""\u0062/~{*""#), "names stay in the clear");
    assert_eq!(db.read(&store, "1").await.unwrap()[0].payload, event.payload(), "I1");
    // The header has the concrete places. A member that is renamed is not what was sealed.
    let text = String::from_utf8(stored.payload.clone()).unwrap();
    let mut renamed = stored.clone();
    renamed.payload = text.replace(r#""guests":{"a""#, r#""guests":{"z""#).into_bytes();
    let sealer = Sealer::new(B::Keys::default(), Arc::clone(&KEYRING), schemas());
    let mut transaction = db.begin().await.unwrap();
    let (fault, _) = refusal(sealer.open(db.tx(&mut transaction), vec![renamed]).await);
    db.roll_back(transaction).await;
    assert!(matches!(fault, EventFault::Tampered { .. }), "I3: {fault:?}");

    shred(&db, &store, "Guest", "a").await;
    let read = db.read(&store, "1").await.unwrap().remove(0);
    let expected = ["/guests/a/name", "/guests/a/phones/0/number", "/guests/a/phones/1/number", "/by/a"];
    assert_eq!(pointers(&read), expected);
    shred(&db, &store, "Guest", "b/~{*").await;
    let read = db.read(&store, "1").await.unwrap().remove(0);
    assert!(pointers(&read).contains(&"/guests/b~1~0{*/name"));
    assert!(contains(&read.payload, "\"x\"") && !contains(&read.payload, CANARY), "the agent is somebody else");
}

async fn i2_what_is_no_object_of_members_is_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for (payload, expected) in [
        (r#"{"guests":[{"name":"Grace Hopper"}]}"#, "ShapeMismatch"),
        (r#"{"guests":"Grace Hopper"}"#, "ShapeMismatch"),
        (r#"{"guests":{"a":"Grace Hopper"}}"#, "ShapeMismatch"),
        (r#"{"guests":{"a":{"phones":{"number":"Grace Hopper"}}}}"#, "ShapeMismatch"),
        (r#"{"guests":{"a":{"name":"Grace Hopper"},"a":{}}}"#, "DuplicateMember"),
        (r#"{"guests":{"a":null,"\u0061":{"name":"Grace Hopper"}}}"#, "DuplicateMember"),
        (r#"{"guests":{"other":{},"other":{}}}"#, "DuplicateMember"),
        (r#"{"guests":{"":{"name":"Grace Hopper"}}}"#, "InvalidScopeId"),
        (r#"{"guests":{"a\u0000":{"name":"Grace Hopper"}}}"#, "InvalidScopeId"),
        (r#"{"guests":{"\ud800":{"name":"Grace Hopper"}}}"#, "InvalidPayload"),
        (r#"{"guests":{"a":{"agent":"Grace Hopper"}}}"#, "MissingScopeId"),
    ] {
        let (fault, said) = refusal(db.try_append(&store, "1", &[NewEvent::raw("Met", 1, payload)]).await);
        let fault = format!("{fault:?}");
        assert!(fault.starts_with(expected), "{payload}: {fault}");
        assert!(!said.contains(CANARY), "I9: {said}");
    }
    let long = format!(r#"{{"by":{{"{}":1}}}}"#, "x".repeat(1_025));
    let (fault, said) = refusal(db.try_append(&store, "1", &[NewEvent::raw("Met", 1, long)]).await);
    assert!(matches!(fault, EventFault::InvalidScopeId { .. }) && said.contains("/by/{name}"), "{said}");
    assert_eq!((db.stored().await, live(&db, &store).await), (vec![], Vec::<String>::new()), "nothing was written");
}

async fn i5_backfill_and_rewrite_come_to_the_same_owners<B: Backend>() {
    let db = B::make().await;
    let plain = NewEvent::raw("Met", 1, r#"{"guests":{"b":{"name":"x"},"a":{"name":"y"}},"by":{"c":[1.0]}}"#);
    db.append_bare("1", std::slice::from_ref(&plain)).await;
    let store = db.prepared(schemas()).await;
    assert_eq!(db.backfill(&store, &BackfillOptions::default()).await.unwrap().sealed, 1);
    let mut scopes = live(&db, &store).await;
    scopes.sort();
    assert_eq!(scopes, ["Guest a", "Guest b", "Guest c"]);
    assert_eq!(db.read(&store, "1").await.unwrap()[0].payload, plain.payload());

    let old = NewEvent::raw("Old", 1, r#"{"guests":{"a":{"name":"x"},"b":{"name":"y"}}}"#);
    db.append(&store, "2", &[old]).await;
    shred(&db, &store, "Guest", "a").await;
    let before = payloads(&db.read_log(&store).await.unwrap());
    assert!(before[1].contains("/people/a/name") && before[1].contains(r#"{"name":"y"}"#), "I7: {before:?}");
    let copy = B::make().await;
    let mut connections = (db.connect().await.unwrap(), copy.connect().await.unwrap());
    let (from, to) = (db.connection(&mut connections.0), copy.connection(&mut connections.1));
    let done = store.rewrite(from, &B::Store::default(), to, &RewriteOptions::default(), &mut |_| {}).await.unwrap();
    drop(connections);
    assert_eq!((done.rewritten, done.with_voids, done.kept.len()), (1, 1, 0), "{done:?}");
    let sealer = Sealer::new(B::Keys::default(), Arc::clone(&KEYRING), schemas());
    let stored = copy.stored().await;
    let mut transaction = db.begin().await.unwrap();
    let read = sealer.open(db.tx(&mut transaction), stored).await.unwrap();
    db.roll_back(transaction).await;
    assert_eq!(payloads(&read), before);
}

#[derive(Serialize, Deserialize)]
struct Person {
    name: Sensitive<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct Maps {
    guests: HashMap<String, Person>,
    by: BTreeMap<String, Sensitive<String>>,
}

fn maps() -> Maps {
    let person = |name: Option<&str>| Person { name: Sensitive::from(name.map(str::to_owned)) };
    Maps {
        guests: [("a", Some("Ada")), ("b", None), ("c", Some("Cy"))].map(|(id, name)| (id.into(), person(name))).into(),
        by: ["a", "{b"].map(|id| (id.to_owned(), Sensitive::from(id.repeat(2)))).into(),
    }
}

fn of_maps() -> EventSchema {
    event("Maps")
        .version(1)
        .protect(&["/guests/{guest}/name"], guest().normalize(Normalize::LowerCase))
        .redact_as("/guests/{guest}/name", "[gone]")
        .protect(&["/by/{id}"], subject("Guest", "{id}").normalize(Normalize::LowerCase))
}

#[tokio::test]
async fn i4_sensitives_in_maps_are_exact() {
    let world = World::new();
    let store = world.store(Schemas::new([of_maps()]).unwrap()).await;
    let mut written = maps();
    let upper = written.guests.remove("c").unwrap();
    written.guests.insert("C".into(), upper);
    world.append(&store, "1", &[NewEvent::json("Maps", 1, &written).unwrap()]).await;
    for id in ["a", "c", "{b"] {
        world.shred_scope(&store, "Guest", id).await;
    }
    let read = world.read(&store, "1").await.unwrap().remove(0);
    let maps = read.decode::<Maps>().unwrap();
    assert!(maps.guests["a"].name.is_redacted() && maps.guests["C"].name.is_redacted(), "names are normalized ids");
    assert_eq!(maps.guests["b"].name, Sensitive::Present(None), "a live null is no erasure");
    assert!(maps.by.values().all(Sensitive::is_redacted));
    // What nothing protects is refused when it is written.
    let store = world.store(Schemas::new([event("Maps").version(1).protect(&["/by/{id}"], guest_by())]).unwrap()).await;
    let mut tx = world.db.begin();
    let unprotected = [NewEvent::json("Maps", 1, &maps_of_one()).unwrap()];
    let refused = store.append(&mut tx, &aggregate("Order", "2"), Any, &unprotected).await;
    assert!(matches!(refusal(refused).0, EventFault::SensitiveInTheClear { .. }), "I2");
}

fn guest_by() -> Owner {
    subject("Guest", "{id}").normalize(Normalize::LowerCase)
}

fn maps_of_one() -> Maps {
    let mut maps = maps();
    maps.guests.retain(|id, _| id == "a");
    maps
}

#[tokio::test]
async fn i7_redactions_of_members_follow_steps() {
    let old = || event("Met").version(1).protect(&["/guests/{guest}/name"], guest());
    let list = |pointer| old().version(2).protect(&[pointer], subject("Guest", "/list/*/id"));
    #[derive(Serialize, Deserialize)]
    struct Old {
        guests: BTreeMap<String, Person>,
    }
    #[derive(Serialize, Deserialize)]
    struct InList {
        id: String,
        name: Sensitive<Option<String>>,
    }
    #[derive(Serialize, Deserialize)]
    struct New {
        list: Vec<InList>,
    }
    let typed = list("/list/*/name").upcast(1, |old: Old| {
        let list = old.guests.into_iter().rev().map(|(id, person)| InList { id, name: person.name }).collect();
        Ok::<_, Infallible>(New { list })
    });
    let payload = r#"{"guests":{"a":{"name":"Ada"},"b":{"name":null}}}"#;
    let events = World::after(old(), payload, &[("Guest", "a")], vec![typed]).await;
    assert_eq!(pointers(&events[0]), ["/list/1/name"], "a map became a list, by a typed step");
    let list = events[0].decode::<New>().unwrap().list;
    assert_eq!((list[0].name.clone(), list[1].name.is_redacted()), (Sensitive::Present(None), true));
    // A function over values: the name is evidence of the owner.
    let next = || old().version(2).protect(&["/people/{guest}/name"], guest());
    let moved = next().upcast(1, |mut old: Value| Ok::<_, Infallible>(json!({ "people": old["guests"].take() })));
    let events = World::after(old(), payload, &[("Guest", "a")], vec![moved]).await;
    assert_eq!(pointers(&events[0]), ["/people/a/name"]);
    assert_eq!(json_of(&events[0]), json!({ "people": { "a": { "name": null }, "b": { "name": null } } }));
}

#[test]
fn names_in_braces_are_checked() {
    let problems = |schema: EventSchema| -> Vec<SchemaProblem> {
        Schemas::new([schema]).map_or_else(
            |errors| errors.errors.into_iter().map(|error| error.problem).collect(),
            |_| panic!("a problem was expected"),
        )
    };
    let one = |pointer: &str, owner: Owner| event("Met").version(1).protect(&[pointer], owner);
    for (schema, said) in [
        (one("/{guest}/name", guest()), "put the object into a member"),
        (one("/guests/{guest", guest()), "~3"),
        (one("/guests/{a}/{a}", subject("Guest", "{a}")), "twice"),
        (one("/guests/{other}/name", guest()), "is no name in braces of /guests/{other}/name"),
        (one("/guests/*/name", guest()), "is no name in braces"),
        (one("/guests/{guest}/name", subject("Guest", "/people/{guest}/id")), "does not share"),
        (event("Met").version(1).protect_whole(guest()), "is no name in braces of the whole payload"),
        (one("/guests/{guest}/name", guest()).protect(&["/guests/host/mail"], guest_of_aggregate()), "mixes"),
        (one("/guests/{guest}/name", guest()).protect(&["/guests/*/mail"], guest_of_aggregate()), "an array"),
        (one("/guests/{guest}/name", guest()).protect(&["/guests/{g}"], guest_of_aggregate()), "overlap"),
        (one("/guests/{guest}/name", guest()).protect(&["/x"], subject("Host", "/guests/host")), "mixes"),
        (
            one("/guests/{guest}/name", guest())
                .version(2)
                .protect(&["/guests/{guest}/called"], guest())
                .change(1, Changes::new().move_value("/guests/{guest}/name", "/guests/{guest}/called")),
            "changes can't",
        ),
    ] {
        let found = problems(schema);
        assert!(found.iter().any(|problem| problem.to_string().contains(said)), "{said}: {found:?}");
    }
}

fn guest_of_aggregate() -> Owner {
    Owner::Aggregate
}

#[test]
fn guards_know_members() {
    let schemas = || Schemas::builder([of_maps(), schemas_of_two()]).build().unwrap();
    let lock = LockFile::of(&schemas());
    assert_eq!(lock.types["Maps"].versions[&1].protected["/guests/{guest}/name"], "Guest at {guest}");
    TaintCheck::new(&schemas()).check().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let registry = schemas();
    SchemaLock::new(&path, &registry).record().unwrap();
    SchemaLock::new(&path, &registry).check().unwrap();
    // A step that copies a member's value into the clear.
    let leak = |mut old: Value| {
        old["first"] = old["guests"].as_object().unwrap().values().next().unwrap()["name"].clone();
        Ok::<_, Infallible>(old)
    };
    let leaking = event("Leak").version(1).protect(&["/guests/{g}/name"], subject("Guest", "{g}"));
    let leaking = leaking.version(2).protect(&["/guests/{g}/name"], subject("Guest", "{g}")).upcast(1, leak);
    assert!(TaintCheck::new(&Schemas::new([leaking]).unwrap()).check().is_err());
}

fn schemas_of_two() -> EventSchema {
    let old = event("Two").version(1).protect(&["/guests/{guest}/name"], guest().normalize(Normalize::LowerCase));
    let new = old.version(2).protect(&["/people/{guest}/name"], guest().normalize(Normalize::LowerCase));
    new.change(1, Changes::new().move_value("/guests", "/people"))
}
