//! Typed events from append to read.

use super::{
    Contact, OrderEvent, OrderPaid, OrderPlaced, OrderPlacedV1, OrderShipped, Shipping, customer, placed, schemas,
    shipped, stored,
};
use allocation_counter::measure;
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::consumer::Consumer;
use eventseal::error::{BoxError, EventFault};
use eventseal::keys::KeyTable;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
#[cfg(feature = "databases")]
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::schema::SplitPart;
#[cfg(feature = "databases")]
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{
    Error, EventFilter, EventPage, EventStore, EventStoreExt, Events, GlobalPosition, KeyScope, Keyring, Namespace,
    NewEvent, PersistedEvent, Result, Schemas, SealedStore, Sealer, Sensitive, Stream, aggregate, event,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// The store as last year's code had it, and as today's has it, on the same keys.
struct Stores<S: EventStore> {
    last_year: SealedStore<S>,
    today: SealedStore<S>,
}

impl<S: EventStore + Clone> Stores<S> {
    async fn new(inner: S, keys: impl KeyTable<Tx = S::Tx> + Clone + 'static, connection: &mut S::Tx) -> Self {
        let keyring = Arc::new(Keyring::generate("main").unwrap());
        let old = event("OrderPlaced").version(1).protect(&["/email"], customer());
        let today = Schemas::builder(schemas()).decodes::<OrderEvent>().decodes::<Shipping>().decodes::<OrderPlaced>();
        let last_year =
            SealedStore::new(inner.clone(), keys.clone(), Arc::clone(&keyring), Schemas::new([old]).unwrap());
        let today = SealedStore::new(inner, keys, keyring, today.build().unwrap());
        today.keys().prepare(connection).await.unwrap();
        Self { last_year, today }
    }

    /// An order's life, read as an enum before and after its customer is erased.
    async fn read_as_an_enum(&self, tx: &mut S::Tx) {
        let order = aggregate("Order", "1");
        let v1 = OrderPlacedV1 { customer_id: "a".into(), email: "old@example.org".into() };
        self.last_year.append(tx, &order, Any, &[NewEvent::json("OrderPlaced", 1, &v1).unwrap()]).await.unwrap();
        let card = OrderPaid::Card { last_digits: 42 };
        let new: Vec<OrderEvent> = vec![placed("a").into(), card.clone().into(), shipped().into(), placed("b").into()];
        let new: Vec<NewEvent> = new.iter().map(|event| NewEvent::of(event).unwrap()).collect();
        let appended = self.today.append(tx, &order, Any, &new).await.unwrap();
        assert_eq!(OrderEvent::decode(&appended.events[1]).unwrap(), OrderEvent::Paid(card.clone()));

        let was = OrderPlaced::from(v1);
        let rest = [OrderEvent::Paid(card), OrderEvent::Shipped(shipped()), OrderEvent::Placed(placed("b"))];
        let live = self.today.read_stream(tx, &order).await.unwrap();
        let expected = [&[OrderEvent::Placed(was.clone()), OrderEvent::Placed(placed("a"))], &rest[..]].concat();
        assert_eq!(live.decode::<OrderEvent>().unwrap(), expected);

        self.today.keys().shred(tx, &KeyScope::new("Customer", "a"), "request").await.unwrap();
        let erased = |order: OrderPlaced, phone| {
            OrderEvent::Placed(OrderPlaced { contact: Contact { email: Sensitive::Redacted, phone }, ..order })
        };
        let page = self.today.read_events(tx, GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
        let expected =
            [&[erased(was, Sensitive::Present(None)), erased(placed("a"), Sensitive::Redacted)], &rest[..]].concat();
        assert_eq!(
            page.decode::<OrderEvent>().unwrap(),
            expected,
            "a written null is a value, one that stands in is a redaction"
        );

        let shipping = page.decode::<Shipping>().unwrap();
        assert_eq!(shipping.len(), page.events.len());
        for (shipping, event) in shipping.into_iter().zip(page.events) {
            match shipping {
                Shipping::Shipped(payload) => {
                    assert_eq!((event.event_type.as_str(), payload), ("OrderShipped", shipped()));
                }
                Shipping::Other(other) => assert_eq!(*other, event),
            }
        }
    }
}

#[tokio::test]
async fn a_stream_reads_as_an_enum_in_memory() {
    let db = MemoryDb::new(Namespace::new("conformance").unwrap());
    let stores = Stores::new(MemoryStore::new(), MemoryKeys::new(), &mut db.begin()).await;
    stores.read_as_an_enum(&mut db.begin()).await;
}

#[cfg(feature = "databases")]
#[tokio::test]
async fn a_stream_reads_as_an_enum_in_sqlite() {
    let db = support::Sqlite::new().await;
    let stores = Stores::new(SqliteStore::new(), SqliteKeys::new(), &mut *db.pool.acquire().await.unwrap()).await;
    stores.read_as_an_enum(&mut db.pool.begin_with("BEGIN IMMEDIATE").await.unwrap()).await;
}

#[cfg(feature = "databases")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_reads_as_an_enum_in_postgres() {
    let db = support::Postgres::new().await;
    let stores = Stores::new(PostgresStore::new(), PostgresKeys::new(), &mut *db.pool.acquire().await.unwrap()).await;
    stores.read_as_an_enum(&mut *db.pool.begin().await.unwrap()).await;
}

#[tokio::test]
async fn parts_decode_one_by_one_and_what_is_dropped_is_not_there() {
    let schemas = Schemas::builder([
        event("Checkout").version(1).split(1, &[("OrderPaid", 1), ("OrderShipped", 1)], |old: Value, _| {
            Ok::<_, Infallible>(vec![
                SplitPart::new("OrderPaid", 1, json!({ "how": "Cash" })),
                SplitPart::new("OrderShipped", 1, json!({ "carrier": old["carrier"] })),
            ])
        }),
        event("OrderPaid").version(1),
        event("OrderShipped").version(1),
        event("Forgotten").version(1).drop_from(1),
        event("OrderPlaced").version(2),
    ]);
    let sealer = Sealer::new(
        MemoryKeys::new(),
        Keyring::generate("main").unwrap(),
        schemas.decodes::<OrderEvent>().build().unwrap(),
    );
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let events = vec![
        stored("Checkout", 1, r#"{"carrier":"by bike"}"#),
        stored("Forgotten", 1, "{}"),
        stored("OrderPaid", 1, r#"{"how":"Cash"}"#),
    ];
    let events = sealer.open(&mut db.begin(), events).await.unwrap();
    let stream = Stream { aggregate: aggregate("Order", "1"), events, last_version: None };
    let cash = || OrderEvent::Paid(OrderPaid::Cash);
    assert_eq!(stream.decode::<OrderEvent>().unwrap(), [cash(), shipped().into(), cash()]);
    assert_eq!(stream.decode::<Shipping>().unwrap()[1], shipped().into());
}

#[tokio::test]
async fn a_consumer_decodes_what_it_is_shown() {
    #[derive(Default)]
    struct Carriers(Mutex<Vec<String>>);

    #[async_trait]
    impl Consumer<MemoryTx> for Carriers {
        fn name(&self) -> &str {
            "carriers_v1"
        }

        async fn handle(&self, _: &mut MemoryTx, event: &PersistedEvent) -> Result<(), BoxError> {
            match Shipping::decode(event)? {
                Shipping::Shipped(shipped) => self.0.lock().unwrap().push(shipped.carrier),
                Shipping::Other(_) => {}
            }
            Ok(())
        }
    }

    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let carriers = Carriers::default();
    let new = [NewEvent::of(&OrderPaid::Cash).unwrap(), NewEvent::of(&shipped()).unwrap()];
    MemoryStore::new()
        .append_and_consume(&mut db.begin(), &aggregate("Order", "1"), Any, &new, &[&carriers])
        .await
        .unwrap();
    assert_eq!(*carriers.0.lock().unwrap(), ["by bike"]);
}

#[tokio::test]
async fn what_is_neither_opened_nor_upcast_is_decoded_from_the_stored_bytes_in_one_pass() {
    let schemas = Schemas::builder(schemas()).decodes::<OrderEvent>().build().unwrap();
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let event = stored("OrderShipped", 1, format!(r#"{{"ignored":{},"carrier":"by bike"}}"#, json!(vec!["x"; 10_000])));
    let bytes = (event.payload.as_ptr(), event.payload.len());
    let event = sealer.open(&mut db.begin(), vec![event]).await.unwrap().remove(0);
    assert_eq!((event.payload.as_ptr(), event.payload.len()), bytes, "the very bytes, not a copy");
    let mut decoded = None;
    let cost = measure(|| decoded = Some(OrderEvent::decode(&event)));
    assert_eq!(decoded.unwrap().unwrap(), OrderEvent::Shipped(shipped()));
    assert_eq!((cost.count_total, cost.bytes_total), (1, 7), "the carrier's name, and nothing in between");
}

/// Every error of typed events says where and which, and nothing of the payload.
#[track_caller]
fn refused<E: Events>(event: &PersistedEvent, target: &str, advice: &str) -> Error {
    let Err(error) = E::decode(event) else { panic!("{event:?} is decoded") };
    let text = error.to_string();
    for part in [&*event.event_id.to_string(), event.event_type.as_str(), target, advice] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(!format!("{text} {error:?}").contains("SECRET"), "I9: {text} {error:?}");
    let stream = Stream { aggregate: aggregate("Order", "1"), events: vec![event.clone()], last_version: None };
    assert_eq!(stream.decode::<E>().err().unwrap().to_string(), text);
    let page = EventPage { events: vec![event.clone()], scanned: 1, next: GlobalPosition::START };
    assert_eq!(page.decode::<E>().err().unwrap().to_string(), text);
    error
}

#[test]
fn an_event_without_an_arm_is_an_error_unless_there_is_a_catch_all() {
    let refund = stored("OrderRefunded", 1, r#"{"iban":"SECRET"}"#);
    let error = refused::<OrderEvent>(&refund, "it::typed::OrderEvent", "give it a variant");
    assert!(matches!(
        error,
        Error::Event { event_id, fault: EventFault::UnexpectedType { .. } }
            if event_id == refund.event_id
    ));
    assert!(matches!(
        refused::<OrderShipped>(&refund, "it::typed::OrderShipped", "give it a variant"),
        Error::Event { fault: EventFault::UnexpectedType { .. }, .. }
    ));
    assert_eq!(Shipping::decode(&refund).unwrap(), Shipping::Other(Box::new(refund.clone())));
    // The event type decides what is decoded, and not the payload.
    let alike = stored("OrderSent", 1, r#"{"carrier":"by bike"}"#);
    refused::<OrderEvent>(&alike, "it::typed::OrderEvent", "catch-all");
    assert_eq!(Shipping::decode(&alike).unwrap(), Shipping::Other(Box::new(alike.clone())));
}

#[tokio::test]
async fn another_version_than_the_arms_is_an_error_catch_all_or_not() {
    let fits = r#"{"carrier":"SECRET"}"#;
    for version in [0, 2, u32::MAX] {
        let event = stored("OrderShipped", version, fits);
        for error in [
            refused::<OrderEvent>(&event, "it::typed::OrderShipped", "of version 1"),
            refused::<Shipping>(&event, "it::typed::OrderShipped", &format!("version {version} ")),
            refused::<OrderShipped>(&event, "it::typed::OrderShipped", "deploy the code"),
        ] {
            assert!(
                matches!(
                    error,
                    Error::Event { fault: EventFault::UnexpectedVersion { expected, .. }, .. }
                        if expected.get() == 1
                ),
                "{error}"
            );
        }
    }
    // The policies that let such events through to a reader.
    let schemas = Schemas::builder(schemas()).decodes::<Shipping>().pass_through_newer().build().unwrap();
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let newer = sealer.open(&mut db.begin(), vec![stored("OrderShipped", 2, fits)]).await.unwrap().remove(0);
    assert!(matches!(Shipping::decode(&newer), Err(Error::Event { fault: EventFault::UnexpectedVersion { .. }, .. })));
}

#[test]
fn a_payload_that_does_not_fit_says_where() {
    for payload in [r#"{"carrier":17,"note":"SECRET"}"#, r#"[["SECRET"]]"#, r#"{"note":"SECRET"}"#, "SECRET", ""] {
        let event = stored("OrderShipped", 1, payload);
        let error = refused::<OrderEvent>(&event, "it::typed::OrderShipped", "does not decode into");
        assert!(matches!(error, Error::Event { fault: EventFault::Decode { .. }, .. }));
    }
    // The attributes of serde hold.
    let unknown = stored("OrderPlaced", 2, r#"{"customerId":"a","contact":{"email":"x","phone":null},"SECRET":1}"#);
    refused::<OrderEvent>(&unknown, "it::typed::OrderPlaced", "unknown field");
    let snake = stored("OrderPlaced", 2, r#"{"customer_id":"a","contact":{"email":"SECRET","phone":null}}"#);
    refused::<OrderEvent>(&snake, "it::typed::OrderPlaced", "unknown field");
}
