//! Mistakes that are refused at startup.

use super::{OrderEvent, OrderPaid, OrderPlaced, OrderShipped, Shipping, shipped};
use eventseal::ExpectedVersion::Any;
use eventseal::error::EventFault;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::schema::SplitPart;
use eventseal::schema::StepContext;
use eventseal::schema::{EventSchema, SchemasBuilder};
use eventseal::{
    AggregateVersion, Changes, Error, Event, EventStore, EventStoreExt, Events, GlobalPosition, JsonPointer, KeyScope,
    Keyring, Namespace, NewEvent, Owner, PersistedEvent, Result, Schemas, SealedStore, Sensitive, aggregate, event,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;

/// A hand-written implementation, which the compiler does not look into.
struct Twice;

impl Events for Twice {
    const DECODES: &'static [(&'static str, u32)] = &[("OrderPaid", 1), ("OrderPaid", 1)];

    fn decode(event: &PersistedEvent) -> Result<Self> {
        event.decode::<OrderPaid>().map(|_| Self)
    }

    fn encode(&self) -> Result<NewEvent> {
        OrderPaid::Cash.encode()
    }
}

/// The problems of a registry, as they are printed.
fn problems(schemas: SchemasBuilder) -> Vec<String> {
    schemas.build().expect_err("these schemas have problems").errors.iter().map(ToString::to_string).collect()
}

#[test]
fn versions_that_are_not_current_are_found_at_startup() {
    let shipped = event("OrderShipped").version(1).version(2).upcast(1, |old: Value| Ok::<_, Infallible>(old));
    let message = "OrderShipped version 1: it::typed::Shipping decodes this version, but the current one is 2: name \
        the type of the current version, which brings those before it with `previous`, or change the schema";
    assert_eq!(problems(Schemas::builder([shipped]).decodes::<Shipping>()), [message]);
    // The code may also be ahead of the schemas.
    let placed = event("OrderPlaced").version(1);
    assert!(
        problems(Schemas::builder([placed]).decodes::<OrderPlaced>())[0]
            .contains("OrderPlaced decodes this version, but the current one is 1")
    );
}

#[test]
fn types_that_are_not_registered_are_found_at_startup() {
    let message = "OrderShipped: it::typed::Shipping decodes it, but it is not registered: add event(…) for it, or \
        take it out of there";
    assert_eq!(problems(Schemas::builder([]).decodes::<Shipping>()), [message]);
}

#[test]
fn two_arms_of_one_type_are_found_at_startup_where_the_compiler_can_not_see_them() {
    assert_eq!(
        problems(Schemas::builder([event("OrderPaid").version(1)]).decodes::<Twice>()),
        ["OrderPaid: it::typed::startup::Twice decodes it twice: keep one"]
    );
}

#[test]
fn arms_for_what_readers_never_see_are_found_at_startup() {
    let no_parts = |_: Value, _: &StepContext<'_>| Ok::<_, Infallible>(vec![]);
    let message = "OrderShipped version 1: it::typed::Shipping decodes it, but readers never see it, because its last \
        step leads elsewhere: decode what it leads to";
    for shipped in [
        event("OrderShipped").version(1).drop_from(1),
        event("OrderShipped").version(1).split(1, &[("Sent", 1)], no_parts),
    ] {
        assert_eq!(problems(Schemas::builder([shipped, event("Sent").version(1)]).decodes::<Shipping>()), [message]);
    }
}

#[derive(eventseal::Events)]
enum Sent {
    Shipped(OrderShipped),
}

#[tokio::test]
async fn a_split_that_an_erasure_stops_needs_a_catch_all() {
    let split =
        |to: &'static str| move |old: Value, _: &StepContext<'_>| Ok::<_, Infallible>(vec![SplitPart::new(to, 1, old)]);
    // Protected whole under an older version or another name, and split by way of another type: found all the same.
    let parcel = || event("Parcel").version(1).protect_whole(Owner::Aggregate);
    let schemas = |box_is_whole: bool| {
        let old = if box_is_whole {
            event("Box").version(1).protect_whole(Owner::Aggregate)
        } else {
            event("Box").version(1).protect(&["/to"], Owner::Aggregate)
        };
        let parcel =
            if box_is_whole { event("Parcel").version(1).protect(&["/to"], Owner::Aggregate) } else { parcel() };
        Schemas::builder([
            old.change(1, Changes::new().rename_type("Parcel", 1)),
            parcel
                .version(2)
                .protect(&["/to"], Owner::Aggregate)
                .upcast(1, |old: Value| Ok::<_, Infallible>(old))
                .split(2, &[("Letter", 1)], split("Letter")),
            event("Letter").version(1).split(1, &[("OrderShipped", 1)], split("OrderShipped")),
            event("OrderShipped").version(1),
        ])
    };
    let message = "Parcel version 2: it::typed::startup::Sent decodes what it is split into, but a redacted event that \
        was protected whole can't be split, and comes as it is: add a catch-all (`#[event(other)] \
        Other(Box<PersistedEvent>)`)";
    for box_is_whole in [true, false] {
        let problems = problems(schemas(box_is_whole).decodes::<Sent>());
        assert_eq!(problems.last().unwrap(), message);
        // That a rename leads out of a protected whole is a problem of its own.
        assert_eq!(problems.len(), 1 + usize::from(box_is_whole), "{problems:?}");
    }
    schemas(false).decodes::<Shipping>().build().unwrap();
    // With single fields redacted, the rest can be split.
    let fields = event("Parcel").version(1).protect(&["/to"], Owner::Aggregate);
    let fields = fields.split(1, &[("OrderShipped", 1)], split("OrderShipped"));
    Schemas::builder([fields, event("OrderShipped").version(1)]).decodes::<Sent>().build().unwrap();

    // The reason for the check: such an event can't be decoded.
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let writer = Schemas::new([parcel()]).unwrap();
    let writer = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&keyring), writer);
    writer.keys().prepare(&mut db.begin()).await.unwrap();
    let (mut tx, parcel) = (db.begin(), aggregate("Parcel", "1"));
    writer
        .append(&mut tx, &parcel, Any, &[NewEvent::raw("Parcel", 1, r#"{"to":"Ada","carrier":"by bike"}"#)])
        .await
        .unwrap();
    let reader = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), keyring, schemas(false).build().unwrap());
    assert!(matches!(
        reader.read_stream(&mut tx, &parcel).await.unwrap().decode::<Sent>().as_deref(),
        Ok([Sent::Shipped(_)])
    ));
    reader.keys().shred(&mut tx, &KeyScope::new("Parcel", "1"), "request").await.unwrap();
    let erased = reader.read_stream(&mut tx, &parcel).await.unwrap();
    assert!(matches!(erased.decode::<Sent>(), Err(Error::Event { fault: EventFault::UnexpectedType { .. }, .. })));
    assert!(matches!(erased.decode::<Shipping>().as_deref(), Ok([Shipping::Other(other)]) if other.is_redacted()));
}

/// A buffer of the application's own hides which values stand in for erased ones.
#[test]
fn i4_a_type_that_can_not_tell_what_is_erased_is_found_at_startup() {
    #[derive(Debug, Serialize)]
    struct Kept {
        carrier: Sensitive<String>,
    }
    impl<'de> Deserialize<'de> for Kept {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            #[derive(Deserialize)]
            struct Fields {
                carrier: Sensitive<String>,
            }
            let fields: Fields =
                serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
            Ok(Self { carrier: fields.carrier })
        }
    }
    payload! { Kept: "OrderShipped" version 1; }
    let whole =
        event("OrderShipped").version(1).protect_whole(Owner::Aggregate).redact_as("", json!({ "carrier": "erased" }));
    let found = problems(Schemas::builder([whole]).decodes::<Kept>());
    assert!(found.len() == 1 && found[0].contains("Kept can't be decoded from {\"carrier\":\"erased\"}"), "{found:?}");
}

#[derive(Debug, Serialize)]
struct Kept {
    carrier: Sensitive<String>,
}
impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            carrier: Sensitive<String>,
        }
        let fields: Fields =
            serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
        Ok(Self { carrier: fields.carrier })
    }
}
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Kept(Kept),
}
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Kept(Kept),
}
#[derive(Debug, Serialize, Deserialize)]
struct Flat {
    kind: String,
    #[serde(flatten)]
    kept: Kept,
}
payload! {
    Tagged: "OrderShipped" version 1;
    Untagged: "OrderShipped" version 1;
    Flat: "OrderShipped" version 1;
}
fn check<T: Event + std::fmt::Debug>(is_known_whole: bool) {
    let schema = || event("OrderShipped").version(1);
    let whole = |stand_in: Value| {
        Schemas::builder([schema().protect_whole(Owner::Aggregate).redact_as("", stand_in)]).decodes::<T>()
    };
    let erased = json!({ "kind": "Kept", "carrier": "erased" });
    if is_known_whole {
        whole(erased.clone()).build().unwrap();
        let event = NewEvent::raw("OrderShipped", 1, erased.to_string());
        let mut event =
            PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
        event.redacted = vec![JsonPointer::parse("").unwrap()];
        let decoded = format!("{:?}", event.decode::<T>().unwrap());
        assert!(decoded.contains("Sensitive(redacted)"), "{decoded}");
    } else {
        let found = problems(whole(erased));
        assert!(
            found.len() == 1
                && found[0].contains("can't be decoded from {")
                && found[0].contains("\"carrier\":\"erased\""),
            "{found:?}"
        );
    }
    whole(json!({ "kind": "Kept", "carrier": null })).build().unwrap();
    let fields = schema().protect(&["/carrier"], Owner::Aggregate).redact_as("/carrier", "erased");
    Schemas::builder([fields]).decodes::<T>().build().unwrap();
    let event = NewEvent::raw("OrderShipped", 1, r#"{"kind":"Kept","carrier":"erased"}"#);
    let mut event =
        PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    assert!(event.decode::<T>().is_ok(), "it is live");
    event.redacted = vec![JsonPointer::parse("/carrier").unwrap()];
    let decoded = event.decode::<T>();
    assert!(
        matches!(
            &decoded,
            Err(Error::Event { fault: EventFault::Decode { problem, .. }, .. })
                if problem.contains("went through a buffer")
        ),
        "{decoded:?}"
    );
}

/// Such a buffer is found anywhere in the type. For single fields, only a payload can show the problem: then it is not
/// decoded.
#[test]
fn i4_what_can_not_be_decided_in_an_enum_or_below_flatten_is_found_at_startup_or_not_decoded() {
    check::<Tagged>(false);
    check::<Untagged>(false);
    // What is read as a map is known to be erased before it gets into a buffer.
    check::<Flat>(true);
}

/// An erasure of an event that was protected whole leaves its stand-in only.
#[tokio::test]
async fn types_that_can_not_be_decoded_once_they_are_erased_are_found_at_startup() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Whole(Sensitive<OrderShipped>);
    payload! { Whole: "OrderShipped" version 1; }

    let whole = || event("OrderShipped").version(1).protect_whole(Owner::Aggregate);
    let message = |stand_in: &str| {
        format!(
            "OrderShipped version 1: it::typed::OrderShipped can't be decoded from {stand_in}, which is what comes \
             once an event that was"
        )
    };
    let found = problems(Schemas::builder([whole()]).decodes::<OrderShipped>().decodes::<Whole>());
    assert!(found.len() == 1 && found[0].starts_with(&message("null")), "{found:?}");
    let found = problems(Schemas::builder([whole().redact_as("", "erased")]).decodes::<OrderShipped>());
    assert!(found.len() == 1 && found[0].starts_with(&message("\"erased\"")), "{found:?}");
    let fits = json!({ "carrier": "nobody" });
    Schemas::builder([whole().redact_as("", fits.clone())])
        .decodes::<OrderShipped>()
        .decodes::<Whole>()
        .build()
        .unwrap();
    // A catch-all is for other types. Single fields are what the payload type says of them.
    let found = problems(Schemas::builder([whole(), event("OrderPaid").version(1)]).decodes::<Shipping>());
    assert!(found.iter().any(|found| found.contains("it::typed::Shipping can't be decoded from null")), "{found:?}");
    let fields = event("OrderShipped").version(1).protect(&["/carrier"], Owner::Aggregate);
    Schemas::builder([fields]).decodes::<OrderShipped>().build().unwrap();
    // Under another name, and by way of a version that has a stand-in of its own, or none.
    let by_name = |to: EventSchema, stand_in: Value| {
        let old = event("Old").version(1).protect_whole(Owner::Aggregate).redact_as("", stand_in);
        problems(
            Schemas::builder([old.change(1, Changes::new().rename_type("OrderShipped", 1)), to])
                .decodes::<OrderShipped>(),
        )
    };
    assert!(by_name(whole(), fits.clone())[0].starts_with(&message("null")));
    assert!(
        by_name(event("OrderShipped").version(1).protect(&["/carrier"], Owner::Aggregate), json!("old"))
            .last()
            .unwrap()
            .starts_with(&message("\"old\""))
    );

    // A type that passes the check decodes such an event.
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let schemas = Schemas::builder([whole()]).decodes::<Whole>().build().unwrap();
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    store.keys().prepare(&mut db.begin()).await.unwrap();
    let (mut tx, order) = (db.begin(), aggregate("Order", "1"));
    store.append(&mut tx, &order, Any, &[NewEvent::of(&shipped()).unwrap()]).await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Order", "1"), "request").await.unwrap();
    let erased = store.read_stream(&mut tx, &order).await.unwrap();
    assert!(matches!(erased.decode::<Whole>().as_deref(), Ok([Whole(Sensitive::Redacted)])));
    assert!(matches!(erased.decode::<OrderShipped>(), Err(Error::Event { fault: EventFault::Decode { .. }, .. })));
}

#[test]
fn all_of_it_is_reported_at_once_and_nothing_twice() {
    let found = problems(
        Schemas::builder([
            event("OrderPaid").version(1).version(2),
            event("OrderPlaced").version(1).upcast(1, |old: Value| Ok::<_, Infallible>(old)),
            event("OrderShipped"),
        ])
        .decodes::<OrderEvent>()
        .decodes::<Twice>(),
    );
    let expected = [
        "OrderPaid: it::typed::startup::Twice decodes it twice",
        "OrderPaid version 1: there is no step to the next version",
        "OrderPaid version 1: it::typed::OrderEvent decodes this version, but the current one is 2",
        "OrderPaid version 1: it::typed::startup::Twice decodes this version, but the current one is 2",
        "OrderPlaced version 1: its step leads to OrderPlaced version 2, which is not declared",
        "OrderPlaced version 2: it::typed::OrderEvent decodes this version, but the current one is 1",
        "OrderShipped: it has no version",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}
