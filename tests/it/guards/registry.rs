//! The public API through which the guards read a registry.

use eventseal::error::EventFault;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::schema::{Answers, Asked, Given, LockFile, PayloadType, Question, Refusal};
use eventseal::{
    AggregateVersion, Changes, Error, Event, GlobalPosition, JsonPointer, Keyring, Namespace, NewEvent, Owner,
    PersistedEvent, Schemas, Sealer, Sensitive, aggregate, event, subject,
};
use eventseal_testing::{SchemaLock, TaintCheck};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    customer_id: String,
    contact: Sensitive<String>,
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 3;
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct OrderPlacedV2 {
    customer_id: String,
    email: Sensitive<String>,
    note: Sensitive<String>,
}

fn schemas() -> Schemas {
    let customer = || subject("Customer", "/customer_id");
    let placed = event("OrderPlaced")
        .version(1)
        .protect(&["/mail"], customer())
        .protect(&["/note"], Owner::Aggregate)
        .version(2)
        .protect(&["/email"], customer())
        .protect(&["/note"], Owner::AggregateAs { kind: "Order".into(), normalize: None })
        .redact_as("/note", json!({ "z": 1, "a": "gone" }))
        .version(3)
        .protect(&["/contact"], customer())
        .change(1, Changes::new().move_value("/mail", "/email"))
        .upcast(2, |old: OrderPlacedV2| {
            Ok::<_, Infallible>(OrderPlaced { customer_id: old.customer_id, contact: old.email })
        })
        .legacy_version(2);
    Schemas::builder([placed, event("Noted").version(1).protect_whole(Owner::Aggregate)])
        .decodes::<OrderPlaced>()
        .build()
        .unwrap()
}

#[test]
fn a_schema_lock_says_what_the_registry_says_and_the_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("schemas.json");
    let schemas = schemas();
    SchemaLock::new(&path, &schemas).record().unwrap();
    let mut written: LockFile = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let shapes = written
        .types
        .values_mut()
        .flat_map(|known| known.versions.values_mut())
        .filter_map(|version| version.shape.take());
    assert_eq!(shapes.count(), 4);
    assert_eq!(written, LockFile::of(&schemas));
    assert_eq!(written.types["OrderPlaced"].legacy_version, Some(2));
    let version = &written.types["OrderPlaced"].versions[&2];
    let protected: Vec<(&str, &str)> =
        version.protected.iter().map(|(pointer, owner)| (&**pointer, &**owner)).collect();
    assert_eq!(protected, [("/email", "Customer at /customer_id"), ("/note", "the aggregate as Order")]);
    assert_eq!(version.step.as_ref().unwrap().to_string(), "typed to OrderPlaced version 3");

    // A lock without shapes is one of which nothing was known.
    std::fs::write(&path, serde_json::to_vec(&LockFile::of(&schemas)).unwrap()).unwrap();
    let unknown = SchemaLock::new(&path, &schemas).check().unwrap_err().to_string();
    assert!(unknown.contains("OrderPlaced version 2: its shape was not known, and now is"), "{unknown}");
    assert!(SchemaLock::new(&path, &schemas).record().unwrap().written);
}

#[test]
fn the_rust_types_of_a_registry_are_known() {
    let versions = schemas().versions();
    let of = |event_type: &str, version: u32| {
        versions.iter().find(|known| known.event_type == event_type && known.event_version.get() == version).unwrap()
    };
    let name = |of: &PayloadType| of.name().rsplit("::").next().unwrap().to_owned();
    assert_eq!(of("OrderPlaced", 1).step.as_ref().unwrap().reads, None);
    let reads = of("OrderPlaced", 2).step.as_ref().unwrap().reads.unwrap();
    assert_eq!(name(&reads), "OrderPlacedV2");
    assert_eq!(of("OrderPlaced", 3).decoded_into.iter().map(name).collect::<Vec<_>>(), ["OrderPlaced"]);
    assert_eq!((of("Noted", 1).decoded_into.len(), reads == PayloadType::of::<OrderPlacedV2>()), (0, true));

    let stored = |payload: &str| {
        let event = NewEvent::raw("OrderPlaced", 2, payload);
        PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event)
    };
    assert!(reads.read(&stored(r#"{"customer_id":"c-1","email":"a","note":"b"}"#)).is_ok());
    assert!(matches!(reads.read(&stored("{}")), Err(Error::Event { fault: EventFault::Decode { .. }, .. })));
}

/// Answers that no deserializer may give are refused, and nothing panics.
#[test]
fn answers_that_make_no_sense_are_refused() {
    struct Odd(usize);
    impl Answers for Odd {
        fn answer(&self, _: &Question, give: &mut dyn FnMut(Given<'_>) -> Result<(), Refusal>) -> Result<(), Refusal> {
            (0..self.0).try_for_each(|_| give(Given::Unit))
        }
    }
    struct Endless;
    impl Answers for Endless {
        fn answer(
            &self,
            question: &Question,
            give: &mut dyn FnMut(Given<'_>) -> Result<(), Refusal>,
        ) -> Result<(), Refusal> {
            match question.asked {
                Asked::Option => give(Given::Variant("Some", &Odd(1))),
                _ => give(Given::Bool(true)),
            }
        }
    }
    assert_eq!(PayloadType::of::<()>().ask(&Odd(0)), Err(Refusal::Other), "nothing is given");
    assert_eq!(PayloadType::of::<()>().ask(&Odd(1)), Ok(()));
    assert_eq!(PayloadType::of::<()>().ask(&Odd(2)), Err(Refusal::Other), "it is given twice");
    assert_eq!(PayloadType::of::<Option<u8>>().ask(&Endless), Err(Refusal::Other));
    assert_eq!(PayloadType::of::<OrderPlaced>().ask(&Endless), Err(Refusal::Other));
    assert_eq!(PayloadType::of::<Sensitive<u8>>().ask(&Odd(1)), Ok(()), "an erased one");
}

#[tokio::test]
async fn an_event_is_opened_as_it_was_appended_and_says_whose_it_is() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let sealer: Sealer<MemoryTx> =
        Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas().with_older_appends());
    sealer.keys().prepare(&mut db.begin()).await.unwrap();
    let (order, mut tx) = (aggregate("Order", "1"), db.begin());
    let payload = r#"{"customer_id":"c-1","mail":"ada@example.org","note":"n"}"#;
    let new = [NewEvent::raw("OrderPlaced", 1, payload)];
    let mut scopes: Vec<String> = sealer.scopes_of(&order, &new[0]).unwrap().iter().map(ToString::to_string).collect();
    scopes.sort();
    assert_eq!(scopes, ["Customer c-1", "Order 1"]);
    assert!(matches!(
        sealer.scopes_of(&order, &NewEvent::raw("Unknown", 1, "{}")),
        Err(Error::Event { fault: EventFault::UnknownType { .. }, .. })
    ));

    let sealed = sealer.seal(&mut tx, &order, &new).await.unwrap()[0].clone();
    let stored = PersistedEvent::from_new(order.clone(), AggregateVersion::FIRST, GlobalPosition::START, sealed);
    assert!(stored.is_sealed());
    let opened = sealer.open_as_stored(&mut tx, vec![stored.clone()]).await.unwrap().remove(0);
    assert_eq!((opened.event_version.get(), String::from_utf8(opened.payload.clone()).unwrap().as_str()), (1, payload));
    assert!(!opened.is_sealed());

    let customer =
        sealer.scopes_of(&order, &new[0]).unwrap().into_iter().find(|scope| scope.kind() == "Customer").unwrap();
    sealer.keys().shred(&mut tx, &customer, "a test").await.unwrap();
    let opened = sealer.open_as_stored(&mut tx, vec![stored]).await.unwrap().remove(0);
    assert_eq!(opened.redacted.iter().map(JsonPointer::as_str).collect::<Vec<_>>(), ["/mail"]);
    let next = sealer.schemas().step_once(&opened).unwrap().unwrap().remove(0);
    assert_eq!((next.event_version.get(), next.redacted[0].as_str()), (2, "/email"));
}

/// The guards read protected places by themselves: as the registry does.
#[test]
fn places_with_escapes_and_stars_are_those_that_are_sealed() {
    let odd = |version: u32| event("Odd").version(version).protect(&["/a~1b/*/~2/~01"], Owner::Aggregate);
    let schemas =
        Schemas::new([odd(1).version(2).protect_same_as(1).upcast(1, |old: Value| Ok::<_, Infallible>(old))]).unwrap();
    let sample = json!({ "a/b": [{ "*": { "~1": "Ada Lovelace" } }] });
    let checked = TaintCheck::new(&schemas).sample("Odd", 1, sample.clone()).check().unwrap();
    assert_eq!((checked.steps, checked.not_tainted.len()), (1, 0));

    let folder = tempfile::tempdir().unwrap();
    let corpus = eventseal_testing::GoldenCorpus::open(folder.path(), schemas).unwrap();
    corpus.case("odd", &aggregate("Odd", "1"), NewEvent::raw("Odd", 1, sample.to_string())).record().unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(folder.path().join("odd.json")).unwrap()).unwrap();
    assert_eq!(written["expected"]["redacted"][0]["redacted"], json!(["/a~1b/0/*/~01"]));
}
