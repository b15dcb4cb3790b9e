//! Subjects that the caller of an append names, and that the append writes into the metadata.

use super::{IP, live, login, refusal};
use eventseal::error::{EventFault, InputFault};
use eventseal::maintenance::BackfillOptions;
use eventseal::schema::{LockFile, SchemaProblem};
use eventseal::{
    Error, KeyScope, NewEvent, Normalize, Owner, PersistedEvent, Schemas, Scope, caller, caller_at, event, metadata,
};
use support::backend::Backend;
use support::world::pointers;
use support::{contains, on_every_database};

on_every_database! {
    i1_i2_i5_the_subject_is_written_down_and_owns_from_then_on,
    i2_a_subject_that_can_not_be_written_down_is_refused,
}

struct Customer;
impl Scope for Customer {
    const KIND: &'static str = "Customer";
    fn normalize() -> Option<Normalize> {
        Some(Normalize::LowerCase)
    }
}

fn schemas() -> Schemas {
    Schemas::builder([
        event("LoggedIn").version(1).protect(&["/ip"], Customer::caller()),
        event("Shared")
            .version(1)
            .protect(&["/ip"], Customer::caller_at("/who/customer"))
            .protect(&["/note"], caller_at("Guest", "/who/guest")),
        event("Whole").version(1).protect_whole(Customer::caller()),
        event("Own").version(1).protect(&["/ip"], Owner::Aggregate),
        event("Named").version(1).protect(&["/ip"], Customer::metadata("/subject")),
    ])
    .accept_plaintext("LoggedIn")
    .allow_unknown_types()
    .build()
    .unwrap()
}

fn metadata_of(event: &PersistedEvent) -> serde_json::Value {
    serde_json::from_slice(event.metadata.as_ref().unwrap()).unwrap()
}

async fn i1_i2_i5_the_subject_is_written_down_and_owns_from_then_on<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let ada = || Customer::scope("ada");
    let events = [
        login("LoggedIn").for_subject(ada()),
        // What is there already is kept, as it is spelled.
        login("LoggedIn").with_metadata(r#"{"subject":"ADA"}"#).for_subject(ada()),
        login("LoggedIn").with_metadata(r#"{"subject":null,"n":[1.50]}"#).for_subject(ada()),
        login("LoggedIn").with_metadata(r#"{"subject":42}"#).for_subject(KeyScope::new("Customer", "42")),
        NewEvent::raw("Shared", 1, r#"{"ip":"x","note":"y"}"#)
            .for_subject(KeyScope::new("Guest", "g\"\\~/1"))
            .for_subject(ada()),
        NewEvent::raw("Whole", 1, "no JSON").for_subject(ada()),
        // Without for_subject, it is an owner that the metadata names.
        login("LoggedIn").with_metadata(r#"{"subject":"eve"}"#),
        // Nothing in it is protected. The subject is written down all the same.
        NewEvent::raw("LoggedIn", 1, "{}").for_subject(ada()),
    ];
    let appended = db.append(&store, "1", &events).await;
    let written: Vec<String> = appended.iter().map(|event| metadata_of(event).to_string()).collect();
    assert_eq!(written[0], r#"{"subject":"ada"}"#);
    assert_eq!(written[1], r#"{"subject":"ADA"}"#);
    assert_eq!(metadata_of(&appended[2])["subject"], "ada");
    assert_eq!(metadata_of(&appended[4])["who"]["guest"], "g\"\\~/1");
    assert_eq!(metadata_of(&appended[7])["subject"], "ada");
    let mut scopes = live(&db, &store).await;
    scopes.sort();
    assert_eq!(scopes, ["Customer 42", "Customer ada", "Customer eve", "Guest g\"\\~/1"]);
    let read = db.read(&store, "1").await.unwrap();
    assert!(read.iter().zip(&events).all(|(read, appended)| read.payload == appended.payload()), "I1");
    assert!(read.iter().zip(&appended).all(|(read, appended)| metadata_of(read) == metadata_of(appended)));
    assert!(db.stored().await.iter().all(|event| !contains(&event.payload, IP)), "I2");

    // An event that was stored in the clear, and now names the subject as an append would have written it.
    db.append_bare("2", &[login("LoggedIn").with_metadata(r#"{"subject":"Ada"}"#)]).await;
    assert_eq!(db.backfill(&store, &BackfillOptions::default()).await.unwrap().sealed, 1);
    db.shred(&store, "ada").await;
    let read = db.read(&store, "1").await.unwrap();
    let redacted: Vec<Vec<&str>> = read.iter().map(pointers).collect();
    assert_eq!(redacted, [vec!["/ip"], vec!["/ip"], vec!["/ip"], vec![], vec!["/ip"], vec![""], vec![], vec![]]);
    assert_eq!(pointers(&db.read(&store, "2").await.unwrap()[0]), ["/ip"]);
    let refused = db.try_append(&store, "3", &[login("LoggedIn").for_subject(ada())]).await;
    assert!(matches!(refused, Err(Error::Shredded { .. })), "I5");
}

async fn i2_a_subject_that_can_not_be_written_down_is_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let ada = || Customer::scope("ada");
    // A type that takes nobody from the caller, or not this kind; one that is not registered.
    for (name, subject) in [
        ("Own", ada()),
        ("Named", ada()),
        ("LoggedIn", KeyScope::new("Guest", "1")),
        ("LoggedIn", KeyScope::new("customer", "ada")),
        ("Stranger", ada()),
    ] {
        let event = login(name).with_metadata(r#"{"subject":"ada"}"#).for_subject(subject.clone());
        let (fault, said) = refusal(db.try_append(&store, "1", &[event]).await);
        assert!(
            matches!(&fault, EventFault::NotFromCaller { kind, .. } if kind == subject.kind()),
            "{name}: {fault:?}"
        );
        assert!(said.contains("for_subject") && !said.contains(IP), "{said}");
    }
    // Something else is there, or on the way.
    for (name, given) in [
        ("LoggedIn", r#"{"subject":"zoe"}"#),
        ("LoggedIn", r#"{"subject":{"id":"ada"}}"#),
        ("LoggedIn", r#"{"subject":""}"#),
        ("LoggedIn", "[]"),
        ("LoggedIn", "1"),
        ("Shared", r#"{"who":"ada"}"#),
        ("Shared", r#"{"who":[{}]}"#),
    ] {
        let event = login(name).with_metadata(given).for_subject(ada());
        let (fault, said) = refusal(db.try_append(&store, "1", &[event]).await);
        assert!(matches!(fault, EventFault::OtherSubject { .. }), "{given}: {fault:?}");
        assert!(!said.contains("zoe"), "I9: {said}");
    }
    let (fault, _) = refusal(
        db.try_append(&store, "1", &[login("LoggedIn").for_subject(ada()).for_subject(Customer::scope("eve"))]).await,
    );
    assert!(matches!(fault, EventFault::OtherSubject { .. }), "two customers: {fault:?}");
    let empty = db.try_append(&store, "1", &[login("LoggedIn").for_subject(Customer::scope(""))]).await;
    assert!(matches!(empty, Err(Error::Input(InputFault::InvalidText { .. }))));
    let twice = login("LoggedIn").with_metadata(r#"{"subject":"ada","subject":"ada"}"#).for_subject(ada());
    let (fault, _) = refusal(db.try_append(&store, "1", &[twice]).await);
    assert!(matches!(fault, EventFault::InvalidMetadata { .. }));
    // Nobody names the owner; and a store without schemas can't write it down.
    let (fault, _) = refusal(db.try_append(&store, "1", &[login("LoggedIn")]).await);
    assert!(matches!(fault, EventFault::MissingScopeId { .. }));
    let (fault, _) = refusal(db.try_append(&B::Store::default(), "1", &[login("LoggedIn").for_subject(ada())]).await);
    assert!(matches!(fault, EventFault::SubjectNotWritten));
    assert_eq!((db.stored().await, live(&db, &store).await), (vec![], Vec::<String>::new()), "nothing was written");
}

#[test]
fn one_kind_has_one_place_and_one_place_one_kind() {
    let problem = |a: Owner, b: Owner| {
        let refused = Schemas::new([event("Met").version(1).protect(&["/a"], a).protect(&["/b"], b)]);
        refused.map_err(|errors| errors.errors.into_iter().map(|error| error.problem).collect::<Vec<_>>())
    };
    let two = problem(caller("Customer"), caller_at("Customer", "/who")).unwrap_err();
    assert!(matches!(&two[..], [SchemaProblem::CallerAtTwo(..)]), "{two:?}");
    let one = problem(caller("Customer"), caller("Guest")).unwrap_err();
    assert!(matches!(&one[..], [SchemaProblem::CallersAtOne(..)]), "{one:?}");
    assert!(problem(caller("Customer"), caller("Customer")).is_ok());
    assert!(problem(caller("Customer"), metadata("Guest", "/guest")).is_ok());
}

#[test]
fn the_lock_says_that_it_is_the_caller() {
    let schemas = Schemas::new([event("Met").version(1).protect(&["/ip"], Customer::caller())]).unwrap();
    let lock = LockFile::of(&schemas);
    assert_eq!(lock.types["Met"].versions[&1].protected["/ip"], "Customer by the caller, at /subject in the metadata");
    assert_eq!(schemas.versions()[0].protected[0].owner, Customer::caller());
    assert_ne!(Customer::caller(), Customer::metadata("/subject"));
}

#[test]
fn who_an_event_is_for_is_part_of_it_and_not_in_its_debug_output() {
    let event = login("LoggedIn");
    let for_ada = event.clone().for_subject(Customer::scope("ada"));
    assert!(event != for_ada);
    assert!(!format!("{for_ada:?}").contains("ada"), "I9");
}
