//! Ids of owners that are spelled in several ways are one key scope, if the schemas say how to spell them.

use eventseal::ExpectedVersion::Any;
use eventseal::error::{EventFault, InputFault};
use eventseal::keys::{ScopeQuery, ScopeState};
use eventseal::maintenance::{BackfillOptions, RewriteOptions};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::schema::{EventSchema, LockFile, SchemaProblem};
use eventseal::{
    Changes, Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, KeyScope, Namespace, NewEvent, Normalize,
    Owner, PersistedEvent, Schemas, SealedStore, Sealer, aggregate, event, subject,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use support::backend::{Backend, payloads};
use support::on_every_database;
use support::world::{World, json_of, pointers};

on_every_database! {
    every_spelling_is_one_scope,
    what_can_not_be_normalized_is_not_appended,
    events_from_before_stay_readable_and_are_sealed_anew_for_one_owner,
}

const UUID: &str = "0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11";
const SPELLINGS: [&str; 4] = [
    UUID,
    "0B9F6A9E-7D0C-4D3E-9F0E-3C1F3F0A7B11",
    "{0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11}",
    " urn:uuid:0b9f6a9e-7d0c-4d3e-9f0e-3c1f3f0a7b11",
];

fn placed(customer: &str, name: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer" : "{customer}","name":"{name}"}}"#))
}

fn schemas(how: Normalize) -> Schemas {
    let customer = subject("Customer", "/customer").normalize(how);
    Schemas::builder([
        event("Placed").version(1).protect(&["/name"], customer),
        event("Registered").version(1).protect(&["/name"], Owner::Aggregate),
    ])
    .accept_plaintext("Placed")
    .build()
    .unwrap()
}

/// All scopes of the key table.
async fn scopes<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Vec<(String, String, ScopeState)> {
    let mut connection = db.connect().await.unwrap();
    let page = store.keys().scopes(db.connection(&mut connection), &ScopeQuery::default()).await.unwrap();
    let named = |scope: &KeyScope| (scope.kind().to_owned(), scope.id().to_owned());
    page.scopes.iter().map(|info| (named(&info.scope).0, named(&info.scope).1, info.state)).collect()
}

async fn every_spelling_is_one_scope<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas(Normalize::Uuid)).await;
    let events: Vec<NewEvent> = SPELLINGS.iter().map(|spelled| placed(spelled, "Ada")).collect();
    db.append(&store, "1", &events).await;
    // The aggregate itself is a customer.
    let mut transaction = db.begin().await.unwrap();
    let customer = aggregate("Customer", SPELLINGS[1]);
    let registered = [NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#)];
    store.append(db.tx(&mut transaction), &customer, Any, &registered).await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(scopes(&db, &store).await, [("Customer".to_owned(), UUID.to_owned(), ScopeState::Live)]);

    let read = db.read(&store, "1").await.unwrap();
    for (event, appended) in read.iter().zip(&events) {
        assert_eq!(event.payload, appended.payload(), "I1: the payload keeps its spelling");
    }
    let scope = store.schemas().scope_for("Customer", SPELLINGS[3]).unwrap();
    let mut transaction = db.begin().await.unwrap();
    let shredding = store.keys().shred(db.tx(&mut transaction), &scope, "request 118").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(shredding.destroyed.len(), 1);
    for event in db.read(&store, "1").await.unwrap() {
        assert_eq!((json_of(&event)["name"].clone(), pointers(&event)), (Value::Null, vec!["/name"]));
    }
    let mut transaction = db.begin().await.unwrap();
    let stream = store.read_stream(db.tx(&mut transaction), &customer).await.unwrap();
    assert_eq!(pointers(&stream.events[0]), ["/name"]);
    drop(transaction);
    for spelled in SPELLINGS {
        let refused = db.try_append(&store, "2", &[placed(spelled, "Ada")]).await;
        assert!(matches!(refused, Err(Error::Shredded { .. })), "{spelled}: {refused:?}");
    }
}

async fn what_can_not_be_normalized_is_not_appended<B: Backend>() {
    let db = B::make().await;
    let function = |id: &str| match id {
        "empty" => String::new(),
        "nul" => "a\0".to_owned(),
        "long" => "a".repeat(1_025),
        "panics" => panic!("on purpose"),
        other => format!("{other}!"),
    };
    let store = db.prepared(schemas(Normalize::by("mine", function))).await;
    for (id, expected) in [
        ("empty", "the result is empty"),
        ("nul", "NUL"),
        ("long", "longer than 1,024"),
        ("panics", "panicked"),
        ("42", "changed again"),
    ] {
        let refused = db.try_append(&store, "1", &[placed(id, "Ada")]).await.unwrap_err();
        let is_expected = matches!(&refused, Error::Event { fault: EventFault::NotNormalized { kind, by, .. }, .. }
            if kind == "Customer" && by == "function mine");
        assert!(is_expected, "{id}: {refused:?}");
        let named = store.schemas().scope_for("Customer", id);
        assert!(matches!(named, Err(Error::Input(InputFault::InvalidText { .. }))), "{id}: {named:?}");
        let said = refused.to_string();
        assert!(said.contains(expected) && !said.contains("Ada"), "{id}: {said}");
    }
    assert_eq!((db.stored().await, scopes(&db, &store).await), (vec![], vec![]), "I2: nothing was written");
    for (kind, id) in [("", "7"), ("Customer", ""), ("Guest", "a\0")] {
        assert!(matches!(store.schemas().scope_for(kind, id), Err(Error::Input(InputFault::InvalidText { .. }))));
    }
}

/// Two places of one customer. The second was not protected in the first days.
fn grown(first_days: bool, how: Option<Normalize>) -> Schemas {
    let customer = || match &how {
        Some(how) => subject("Customer", "/customer").normalize(how.clone()),
        None => subject("Customer", "/customer"),
    };
    let places: &[&str] = if first_days { &["/name"] } else { &["/name", "/mail"] };
    let next =
        event("Placed").version(1).protect(places, customer()).version(2).protect(&["/name", "/mail"], customer());
    Schemas::builder([next.upcast(1, Ok::<Value, Infallible>)])
        .accept_plaintext("Placed")
        .allow_older_appends()
        .build()
        .unwrap()
}

async fn events_from_before_stay_readable_and_are_sealed_anew_for_one_owner<B: Backend>() {
    let db = B::make().await;
    let before = db.prepared(grown(true, None)).await;
    let event = |id: &str| NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{id}","name":"Ada","mail":"ada@x"}}"#));
    db.append(&before, "1", &[event("CUST_42"), event("cust_42"), event("CUST_7")]).await;
    db.shred(&before, "CUST_7").await;
    let named = |id: &str, state| ("Customer".to_owned(), id.to_owned(), state);
    let (live, shredded) = (ScopeState::Live, ScopeState::Shredded);
    let as_sealed = [named("CUST_42", live), named("CUST_7", shredded), named("cust_42", live)];
    assert_eq!(scopes(&db, &before).await, as_sealed);

    let now = db.process(grown(false, Some(Normalize::LowerCase)));
    let read = db.read(&now, "1").await.unwrap();
    assert_eq!(payloads(&read), payloads(&db.read(&before, "1").await.unwrap()), "keys are found by their rows");
    assert_eq!(pointers(&read[2]), ["/name"]);

    // The rest of each event is sealed for the owner under its one name, and what was sealed for the other spelling is
    // no other owner's.
    let mut options = BackfillOptions::default();
    options.every_payload = true;
    let done = db.backfill(&now, &options).await.unwrap();
    assert_eq!((done.sealed, done.skipped), (3, 0), "{done:?}");
    assert_eq!(payloads(&db.read(&now, "1").await.unwrap()), payloads(&read));
    let mut after = as_sealed.to_vec();
    after.insert(2, named("cust_42", live));
    after.remove(3);
    after.push(named("cust_7", live));
    assert_eq!(scopes(&db, &now).await, after);
    db.shred(&now, "cust_42").await;
    for event in &db.read(&now, "1").await.unwrap()[..2] {
        assert_eq!(pointers(event).len(), 2, "one shred reaches both");
    }
}

fn v1() -> EventSchema {
    event("Met").version(1).protect(&["/name"], customer())
}

fn customer() -> Owner {
    subject("Customer", "/customer").normalize(Normalize::LowerCase)
}

/// Steps over values follow a redaction by its owner, whose id the payload spells in its own way.
#[tokio::test]
async fn redactions_are_followed_by_the_normalized_owner() {
    let moved = || {
        v1().version(2).protect(&["/contact"], customer()).upcast(1, |mut old: Value| {
            old["contact"] = old["name"].take();
            // A step may bring ids to one spelling, too.
            old["customer"] = json!(old["customer"].as_str().unwrap_or_default().to_lowercase());
            Ok::<_, Infallible>(old)
        })
    };
    let payload = r#"{"customer":"CUST_42","name":"Ada"}"#;
    let read = World::after(v1(), payload, &[("Customer", "cust_42")], vec![moved()]).await;
    assert_eq!((json_of(&read[0])["contact"].clone(), pointers(&read[0])), (Value::Null, vec!["/contact"]));
    // A live null that stays where it was is not taken for it.
    let v2 = v1().version(2).protect(&["/name", "/note"], customer()).upcast(1, |mut old: Value| {
        old["customer"] = json!("cust_42");
        Ok::<_, Infallible>(old)
    });
    let payload = r#"{"customer":"CUST_42","name":"Ada","note":null}"#;
    let read = World::after(v1(), payload, &[("Customer", "cust_42")], vec![v2]).await;
    assert_eq!(pointers(&read[0]), ["/name"]);
}

/// A copy is sealed for the one owner, and a copy of a redaction stays one.
#[tokio::test]
async fn a_rewrite_takes_two_spellings_for_one_owner() {
    let world = World::new();
    let old = event("Met").version(1).protect(&["/name", "/mail"], subject("Customer", "/customer"));
    let before = world.store(Schemas::new([old]).unwrap()).await;
    let met = |id: &str| NewEvent::raw("Met", 1, format!(r#"{{"customer":"{id}","name":"Ada","mail":"ada@x"}}"#));
    world.append(&before, "1", &[met("CUST_42"), met("CUST_7")]).await;
    world.shred(&before, "CUST_7").await;
    let new = || {
        let v1 = event("Met").version(1).protect(&["/name", "/mail"], customer());
        Schemas::new([v1
            .version(2)
            .protect(&["/contact", "/mail"], customer())
            .change(1, Changes::new().move_value("/name", "/contact"))])
        .unwrap()
    };
    let now = world.store(new()).await;
    let seen = |mut events: Vec<PersistedEvent>| {
        events.iter_mut().for_each(|event| event.redacted.sort_unstable());
        payloads(&events)
    };
    let expected = seen(world.read(&now, "1").await.unwrap());
    let target = MemoryDb::new(Namespace::new("test").unwrap());
    let (mut connection, mut other) = (world.db.begin(), target.begin());
    let (copying, options) = (MemoryStore::new(), RewriteOptions::default());
    let done = now.rewrite(&mut connection, &copying, &mut other, &options, &mut |_| {}).await.unwrap();
    assert!(done.kept.is_empty(), "{:?}", done.kept);
    assert_eq!((done.rewritten, done.with_voids), (2, 1));

    let copy = async || {
        let all = EventFilter::default();
        let stored =
            MemoryStore::new().read_events(&mut target.begin(), GlobalPosition::START, 10, &all).await.unwrap();
        let sealer: Sealer<MemoryTx> = Sealer::new(MemoryKeys::new(), Arc::clone(&world.keyring), new());
        sealer.open(&mut world.db.begin(), stored.events).await.unwrap()
    };
    assert_eq!(seen(copy().await), expected);
    world.shred(&now, "cust_42").await;
    assert_eq!(pointers(&copy().await[0]).len(), 2, "the copy is sealed for the one owner");
    assert!(pointers(&world.read(&now, "1").await.unwrap()[0]).is_empty(), "the original is not: see similar_scopes");
}

#[test]
fn declarations_of_a_kind_agree() {
    let of = |name: &str, owner: Owner| event(name).version(1).protect(&["/a"], owner);
    let subject = || subject("Customer", "/id");
    let refused = |events: [EventSchema; 2]| -> Vec<String> {
        let errors = Schemas::new(events).expect_err("they contradict each other").errors;
        assert!(matches!(errors[0].problem, SchemaProblem::NormalizedOtherwise { .. }), "{errors:?}");
        errors.iter().map(ToString::to_string).collect()
    };
    let found = refused([of("A", subject().normalize(Normalize::Uuid)), of("B", subject())]);
    let expected = "B version 1: its \"Customer\" ids are normalized by nothing, and in A version 1 by uuid: one of \
        them would name two key scopes; say the same .normalize(…) in every declaration of the kind";
    assert_eq!(found, [expected]);
    let by = |name: &str| Normalize::by(name, str::to_owned);
    refused([
        of("A", subject().normalize(by("x"))),
        of("B", Owner::Aggregate.scope_kind("Customer").normalize(by("y"))),
    ]);
    let twice = of("A", subject())
        .version(2)
        .protect(&["/a", "/b"], subject().normalize(by("x")))
        .upcast(1, Ok::<Value, Infallible>);
    assert_eq!(refused([twice, of("B", subject())]).len(), 1, "each contradiction once");

    let agree = Schemas::new([
        of("A", subject().normalize(by("x"))),
        of("B", Owner::Aggregate.normalize(by("x")).scope_kind("Customer")),
        of("C", Owner::Aggregate),
        of("D", eventseal::subject("Guest", "/id").scope_kind("Visitor")),
    ])
    .unwrap();
    let lock = serde_json::to_value(LockFile::of(&agree)).unwrap();
    let normalized = |name: &str| lock["types"][name]["versions"]["1"]["normalized"]["/a"].clone();
    assert_eq!(
        ["A", "B", "C", "D"].map(normalized),
        [json!("function x"), json!("function x"), Value::Null, Value::Null]
    );
    let owner = &agree.versions()[1].protected[0].owner;
    assert_eq!(*owner, Owner::Aggregate.scope_kind("Customer").normalize(by("x")));
}
