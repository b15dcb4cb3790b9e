//! Typed events: what decodes into what, and what is refused, at startup and on reading.

use allocation_counter::measure;
use async_trait::async_trait;
use eventseal::ExpectedVersion::Any;
use eventseal::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderPlaced {
    customer_id: String,
    contact: Contact,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gift_note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Contact {
    email: Sensitive<String>,
    /// `null` is a value here: never given.
    phone: Sensitive<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct OrderPlacedV1 {
    #[serde(rename = "customerId")]
    customer_id: String,
    email: Sensitive<String>,
}

impl From<OrderPlacedV1> for OrderPlaced {
    fn from(old: OrderPlacedV1) -> Self {
        Self { customer_id: old.customer_id, contact: Contact { email: old.email, phone: Sensitive::Present(None) }, gift_note: None }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderShipped {
    carrier: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how")]
enum OrderPaid {
    Card { last_digits: u16 },
    Cash,
}

macro_rules! payload {
    ($($payload:ty: $name:literal version $version:literal;)+) => {
        $(impl EventPayload for $payload {
            const TYPE: &'static str = $name;
            const VERSION: u32 = $version;
        })+
    };
}

payload! {
    OrderPlaced: "OrderPlaced" version 2;
    OrderShipped: "OrderShipped" version 1;
    OrderPaid: "OrderPaid" version 1;
}

events! {
    /// What happens to an order.
    #[derive(Clone, Debug, PartialEq)]
    enum OrderEvent {
        /// Somebody ordered.
        Placed(OrderPlaced),
        #[allow(clippy::doc_markdown)]
        Shipped(OrderShipped),
        Paid(OrderPaid)
    }
}

events! {
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) enum Shipping { Shipped(OrderShipped), _ => Other }
}

fn customer() -> Owner {
    subject("Customer", "/customerId")
}

fn schemas() -> [EventSchema; 4] {
    [
        event("OrderPlaced")
            .version(1)
            .protect(&["/email"], customer())
            .version(2)
            .protect(&["/contact/email", "/contact/phone"], customer())
            .upcast(1, |old: OrderPlacedV1| Ok::<_, Infallible>(OrderPlaced::from(old))),
        event("OrderShipped").version(1),
        event("OrderPaid").version(1),
        event("Forgotten").version(1).drop_from(1),
    ]
}

fn placed(customer: &str) -> OrderPlaced {
    let contact = Contact { email: "ada@example.org".into(), phone: Sensitive::Present(None) };
    OrderPlaced { customer_id: customer.into(), contact, gift_note: Some("for you".into()) }
}

fn shipped() -> OrderShipped {
    OrderShipped { carrier: "by bike".into() }
}

/// As a store without schemas hands it out.
fn stored(event_type: &str, version: u32, payload: impl Into<Vec<u8>>) -> PersistedEvent {
    let new = NewEvent::raw(event_type, version, payload);
    PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, new)
}

// ---- from append to read

/// The store as last year's code had it, and as today's has it, on the same keys.
struct Stores<S: EventStore> {
    last_year: SealedStore<S>,
    today: SealedStore<S>,
}

impl<S: EventStore + Clone> Stores<S> {
    async fn new(inner: S, keys: impl KeyStore<Tx = S::Tx> + Clone + 'static, connection: &mut S::Tx) -> Self {
        let keyring = Arc::new(Keyring::generate("main").unwrap());
        let old = event("OrderPlaced").version(1).protect(&["/email"], customer());
        let today = Schemas::builder(schemas()).decodes::<OrderEvent>().decodes::<Shipping>().decodes::<OrderPlaced>();
        let last_year = SealedStore::new(inner.clone(), keys.clone(), Arc::clone(&keyring), Schemas::new([old]).unwrap());
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
        let erased =
            |order: OrderPlaced, phone| OrderEvent::Placed(OrderPlaced { contact: Contact { email: Sensitive::Redacted, phone }, ..order });
        let page = self.today.read_events(tx, GlobalPosition::START, 100, &EventFilter::default()).await.unwrap();
        let expected = [&[erased(was, Sensitive::Present(None)), erased(placed("a"), Sensitive::Redacted)], &rest[..]].concat();
        assert_eq!(page.decode::<OrderEvent>().unwrap(), expected, "a written null is a value, one that stands in is a redaction");

        let shipping = page.decode::<Shipping>().unwrap();
        assert_eq!(shipping.len(), page.events.len());
        for (shipping, event) in shipping.into_iter().zip(page.events) {
            match shipping {
                Shipping::Shipped(payload) => assert_eq!((event.event_type.as_str(), payload), ("OrderShipped", shipped())),
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
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas.decodes::<OrderEvent>().build().unwrap());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let events =
        vec![stored("Checkout", 1, r#"{"carrier":"by bike"}"#), stored("Forgotten", 1, "{}"), stored("OrderPaid", 1, r#"{"how":"Cash"}"#)];
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
    MemoryStore::new().append_and_consume(&mut db.begin(), &aggregate("Order", "1"), Any, &new, &[&carriers]).await.unwrap();
    assert_eq!(*carriers.0.lock().unwrap(), ["by bike"]);
}

// ---- the payload is read once

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

// ---- what is refused on reading

/// Every error of typed events says where and which, and nothing of the payload.
#[track_caller]
fn refused<E: TypedEvent>(event: &PersistedEvent, target: &str, advice: &str) -> Error {
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
    let error = refused::<OrderEvent>(&refund, "it::typed::OrderEvent", "give it an arm");
    assert!(matches!(error, Error::UnexpectedType { event_id, .. } if event_id == refund.event_id));
    assert!(matches!(refused::<OrderShipped>(&refund, "it::typed::OrderShipped", "give it an arm"), Error::UnexpectedType { .. }));
    assert_eq!(Shipping::decode(&refund).unwrap(), Shipping::Other(Box::new(refund.clone())));
    // What decodes is asked of the type, not of the payload.
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
            assert!(matches!(error, Error::UnexpectedVersion { expected, .. } if expected.get() == 1), "{error}");
        }
    }
    // The policies that let such events through to a reader.
    let schemas = Schemas::builder(schemas()).decodes::<Shipping>().pass_through_newer().build().unwrap();
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let newer = sealer.open(&mut db.begin(), vec![stored("OrderShipped", 2, fits)]).await.unwrap().remove(0);
    assert!(matches!(Shipping::decode(&newer), Err(Error::UnexpectedVersion { .. })));
}

#[test]
fn a_payload_that_does_not_fit_says_where() {
    for payload in [r#"{"carrier":17,"note":"SECRET"}"#, r#"[["SECRET"]]"#, r#"{"note":"SECRET"}"#, "SECRET", ""] {
        let event = stored("OrderShipped", 1, payload);
        let error = refused::<OrderEvent>(&event, "it::typed::OrderShipped", "does not decode into");
        assert!(matches!(error, Error::Decode { .. }));
    }
    // The attributes of serde hold.
    let unknown = stored("OrderPlaced", 2, r#"{"customerId":"a","contact":{"email":"x","phone":null},"SECRET":1}"#);
    refused::<OrderEvent>(&unknown, "it::typed::OrderPlaced", "unknown field");
    let snake = stored("OrderPlaced", 2, r#"{"customer_id":"a","contact":{"email":"SECRET","phone":null}}"#);
    refused::<OrderEvent>(&snake, "it::typed::OrderPlaced", "unknown field");
}

// ---- appending

#[test]
fn what_is_encoded_has_the_type_version_and_json_of_its_payload() {
    let event = NewEvent::of(&OrderEvent::from(placed("a"))).unwrap();
    assert_eq!((event.event_type.as_str(), event.event_version.get()), ("OrderPlaced", 2));
    let text = r#"{"customerId":"a","contact":{"email":"ada@example.org","phone":null},"giftNote":"for you"}"#;
    assert_eq!(String::from_utf8(event.payload.clone()).unwrap(), text);
    let again = placed("a").encode().unwrap();
    assert_eq!((&again.event_type, again.event_version, &again.payload), (&event.event_type, event.event_version, &event.payload));
    assert_ne!(again.event_id, event.event_id);
}

#[test]
fn a_catch_all_is_not_appended_again() {
    let refund = stored("OrderRefunded", 1, r#"{"iban":"SECRET"}"#);
    let error = NewEvent::of(&Shipping::decode(&refund).unwrap()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::CatchAll { event_id, .. } if event_id == refund.event_id));
    assert!(text.contains("it::typed::Shipping has no arm for OrderRefunded") && !text.contains("SECRET"), "{text}");
}

#[test]
fn what_is_no_json_is_not_encoded() {
    #[derive(Serialize, Deserialize)]
    struct Odd(#[serde(skip_deserializing)] std::collections::BTreeMap<(u8, u8), u8>);
    payload! { Odd: "Odd" version 1; }
    events! { enum OddEvent { Odd(Odd) } }
    let error = NewEvent::of(&OddEvent::from(Odd([((1, 2), 3)].into()))).unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
}

// ---- what is refused at startup

/// A hand-written implementation, which the compiler does not look into.
struct Twice;

impl TypedEvent for Twice {
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
    let message = "OrderShipped version 1: it::typed::Shipping decodes this version, but the current one is 2: \
                   change the VERSION of its payload type, or the schema";
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
    let message = "OrderShipped: it::typed::Shipping decodes it, but it is not registered: add event(…) for it, or take it out of there";
    assert_eq!(problems(Schemas::builder([]).decodes::<Shipping>()), [message]);
}

#[test]
fn two_arms_of_one_type_are_found_at_startup_where_the_compiler_can_not_see_them() {
    assert_eq!(
        problems(Schemas::builder([event("OrderPaid").version(1)]).decodes::<Twice>()),
        ["OrderPaid: it::typed::Twice decodes it twice: keep one"]
    );
}

#[test]
fn arms_for_what_readers_never_see_are_found_at_startup() {
    let no_parts = |_: Value, _: &StepContext<'_>| Ok::<_, Infallible>(vec![]);
    let message = "OrderShipped version 1: it::typed::Shipping decodes it, but readers never see it, because its last step leads elsewhere: \
                   decode what it leads to";
    for shipped in [event("OrderShipped").version(1).drop_from(1), event("OrderShipped").version(1).split(1, &[("Sent", 1)], no_parts)] {
        assert_eq!(problems(Schemas::builder([shipped, event("Sent").version(1)]).decodes::<Shipping>()), [message]);
    }
}

events! { enum Sent { Shipped(OrderShipped) } }

#[tokio::test]
async fn a_split_that_an_erasure_stops_needs_a_catch_all() {
    let split = |to: &'static str| move |old: Value, _: &StepContext<'_>| Ok::<_, Infallible>(vec![SplitPart::new(to, 1, old)]);
    // Protected whole under an older version or another name, and split by way of another type: found all the same.
    let parcel = || event("Parcel").version(1).protect_whole(Owner::Aggregate);
    let schemas = |box_is_whole: bool| {
        let old = if box_is_whole {
            event("Box").version(1).protect_whole(Owner::Aggregate)
        } else {
            event("Box").version(1).protect(&["/to"], Owner::Aggregate)
        };
        let parcel = if box_is_whole { event("Parcel").version(1).protect(&["/to"], Owner::Aggregate) } else { parcel() };
        Schemas::builder([
            old.change(1, Changes::new().rename_type("Parcel", 1)),
            parcel.version(2).protect(&["/to"], Owner::Aggregate).upcast(1, |old: Value| Ok::<_, Infallible>(old)).split(
                2,
                &[("Letter", 1)],
                split("Letter"),
            ),
            event("Letter").version(1).split(1, &[("OrderShipped", 1)], split("OrderShipped")),
            event("OrderShipped").version(1),
        ])
    };
    let message = "Parcel version 2: it::typed::Sent decodes what it is split into, but a redacted event that was protected whole can't be \
                   split, and comes as it is: add a catch-all (`_ => Other`)";
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

    // What it is about.
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let keyring = Arc::new(Keyring::generate("main").unwrap());
    let writer = Schemas::new([parcel()]).unwrap();
    let writer = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&keyring), writer);
    writer.keys().prepare(&mut db.begin()).await.unwrap();
    let (mut tx, parcel) = (db.begin(), aggregate("Parcel", "1"));
    writer.append(&mut tx, &parcel, Any, &[NewEvent::raw("Parcel", 1, r#"{"to":"Ada","carrier":"by bike"}"#)]).await.unwrap();
    let reader = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), keyring, schemas(false).build().unwrap());
    assert!(matches!(reader.read_stream(&mut tx, &parcel).await.unwrap().decode::<Sent>().as_deref(), Ok([Sent::Shipped(_)])));
    reader.keys().shred(&mut tx, &KeyScope::new("Parcel", "1"), "request").await.unwrap();
    let erased = reader.read_stream(&mut tx, &parcel).await.unwrap();
    assert!(matches!(erased.decode::<Sent>(), Err(Error::UnexpectedType { .. })));
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
            let fields: Fields = serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
            Ok(Self { carrier: fields.carrier })
        }
    }
    payload! { Kept: "OrderShipped" version 1; }
    let whole = event("OrderShipped").version(1).protect_whole(Owner::Aggregate).redact_as("", json!({ "carrier": "erased" }));
    let found = problems(Schemas::builder([whole]).decodes::<Kept>());
    assert!(found.len() == 1 && found[0].contains("Kept can't be decoded from {\"carrier\":\"erased\"}"), "{found:?}");
}

/// The same wherever in the type such a buffer is. Of single fields nobody can say before there is a payload: then it is not decoded.
#[test]
fn i4_what_can_not_be_decided_in_an_enum_or_below_flatten_is_found_at_startup_or_not_decoded() {
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
            let fields: Fields = serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?;
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
    fn check<T: EventPayload + std::fmt::Debug>(is_known_whole: bool) {
        let schema = || event("OrderShipped").version(1);
        let whole = |stand_in: Value| Schemas::builder([schema().protect_whole(Owner::Aggregate).redact_as("", stand_in)]).decodes::<T>();
        let erased = json!({ "kind": "Kept", "carrier": "erased" });
        if is_known_whole {
            whole(erased.clone()).build().unwrap();
            let event = NewEvent::raw("OrderShipped", 1, erased.to_string());
            let mut event = PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
            event.redacted = vec![JsonPointer::parse("").unwrap()];
            let decoded = format!("{:?}", event.decode::<T>().unwrap());
            assert!(decoded.contains("Sensitive(redacted)"), "{decoded}");
        } else {
            let found = problems(whole(erased));
            assert!(
                found.len() == 1 && found[0].contains("can't be decoded from {") && found[0].contains("\"carrier\":\"erased\""),
                "{found:?}"
            );
        }
        whole(json!({ "kind": "Kept", "carrier": null })).build().unwrap();
        let fields = schema().protect(&["/carrier"], Owner::Aggregate).redact_as("/carrier", "erased");
        Schemas::builder([fields]).decodes::<T>().build().unwrap();
        let event = NewEvent::raw("OrderShipped", 1, r#"{"kind":"Kept","carrier":"erased"}"#);
        let mut event = PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
        assert!(event.decode::<T>().is_ok(), "it is live");
        event.redacted = vec![JsonPointer::parse("/carrier").unwrap()];
        let decoded = event.decode::<T>();
        assert!(matches!(&decoded, Err(Error::Decode { problem, .. }) if problem.contains("went through a buffer")), "{decoded:?}");
    }
    check::<Tagged>(false);
    check::<Untagged>(false);
    // What is read as a map is known to be erased before it gets into a buffer.
    check::<Flat>(true);
}

/// Of an event that was protected whole, erasure leaves what stands in for it.
#[tokio::test]
async fn types_that_can_not_be_decoded_once_they_are_erased_are_found_at_startup() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Whole(Sensitive<OrderShipped>);
    payload! { Whole: "OrderShipped" version 1; }

    let whole = || event("OrderShipped").version(1).protect_whole(Owner::Aggregate);
    let message = |stand_in: &str| {
        format!(
            "OrderShipped version 1: it::typed::OrderShipped can't be decoded from {stand_in}, which is what comes once an event that was"
        )
    };
    let found = problems(Schemas::builder([whole()]).decodes::<OrderShipped>().decodes::<Whole>());
    assert!(found.len() == 1 && found[0].starts_with(&message("null")), "{found:?}");
    let found = problems(Schemas::builder([whole().redact_as("", "erased")]).decodes::<OrderShipped>());
    assert!(found.len() == 1 && found[0].starts_with(&message("\"erased\"")), "{found:?}");
    let fits = json!({ "carrier": "nobody" });
    Schemas::builder([whole().redact_as("", fits.clone())]).decodes::<OrderShipped>().decodes::<Whole>().build().unwrap();
    // A catch-all is for other types. Single fields are what the payload type says of them.
    let found = problems(Schemas::builder([whole(), event("OrderPaid").version(1)]).decodes::<Shipping>());
    assert!(found.iter().any(|found| found.contains("it::typed::Shipping can't be decoded from null")), "{found:?}");
    let fields = event("OrderShipped").version(1).protect(&["/carrier"], Owner::Aggregate);
    Schemas::builder([fields]).decodes::<OrderShipped>().build().unwrap();
    // Under another name, and by way of a version that has a stand-in of its own, or none.
    let by_name = |to: EventSchema, stand_in: Value| {
        let old = event("Old").version(1).protect_whole(Owner::Aggregate).redact_as("", stand_in);
        problems(Schemas::builder([old.change(1, Changes::new().rename_type("OrderShipped", 1)), to]).decodes::<OrderShipped>())
    };
    assert!(by_name(whole(), fits.clone())[0].starts_with(&message("null")));
    assert!(
        by_name(event("OrderShipped").version(1).protect(&["/carrier"], Owner::Aggregate), json!("old"))
            .last()
            .unwrap()
            .starts_with(&message("\"old\""))
    );

    // What it is about.
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let schemas = Schemas::builder([whole()]).decodes::<Whole>().build().unwrap();
    let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    store.keys().prepare(&mut db.begin()).await.unwrap();
    let (mut tx, order) = (db.begin(), aggregate("Order", "1"));
    store.append(&mut tx, &order, Any, &[NewEvent::of(&shipped()).unwrap()]).await.unwrap();
    store.keys().shred(&mut tx, &KeyScope::new("Order", "1"), "request").await.unwrap();
    let erased = store.read_stream(&mut tx, &order).await.unwrap();
    assert!(matches!(erased.decode::<Whole>().as_deref(), Ok([Whole(Sensitive::Redacted)])));
    assert!(matches!(erased.decode::<OrderShipped>(), Err(Error::Decode { .. })));
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
        "OrderPaid: it::typed::Twice decodes it twice",
        "OrderPaid version 1: there is no step to the next version",
        "OrderPaid version 1: it::typed::OrderEvent decodes this version, but the current one is 2",
        "OrderPaid version 1: it::typed::Twice decodes this version, but the current one is 2",
        "OrderPlaced version 1: its step leads to OrderPlaced version 2, which is not declared",
        "OrderPlaced version 2: it::typed::OrderEvent decodes this version, but the current one is 1",
        "OrderShipped: it has no version",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}

// ---- the macro

mod elsewhere {
    //! The macro needs nothing in scope, and what the caller names otherwise is not mistaken for its own.
    #![allow(dead_code)]

    use super::{OrderPaid, OrderShipped};

    type Result = ();
    struct Box;
    struct Ok;
    trait TypedEvent {}

    eventseal::events! { pub enum Event { Paid(OrderPaid), Shipped(OrderShipped), _ => Unknown, } }
    eventseal::events! { pub(super) enum Other { Paid(OrderPaid) } }
}

#[test]
fn attributes_and_names_are_the_callers() {
    use elsewhere::{Event, Other};
    assert_eq!(Event::DECODES, [("OrderPaid", 1), ("OrderShipped", 1)]);
    assert!((Event::HAS_CATCH_ALL, Other::HAS_CATCH_ALL) == (true, false));
    assert!(matches!(Event::decode(&stored("X", 1, "{}")), Ok(Event::Unknown(_))));
    assert_eq!(OrderEvent::from(shipped()).clone(), OrderEvent::Shipped(shipped()));
    assert_eq!(format!("{:?}", OrderEvent::from(placed("a"))).matches("Sensitive(***)").count(), 2, "I9");
    let other = format!("{:?}", Shipping::decode(&stored("X", 1, "SECRET")).unwrap());
    assert!(other.contains("6 bytes") && !other.contains("SECRET"), "I9: {other}");
}

/// Payload types may have the names that macros like to use for themselves.
#[allow(non_camel_case_types, reason = "that is the point")]
mod names_of_macros {
    use eventseal::EventPayload;
    use serde::{Deserialize, Serialize};

    macro_rules! payloads {
        ($($name:ident)+) => {
            $(
                #[derive(Serialize, Deserialize)]
                pub(super) struct $name(u8);
                impl EventPayload for $name {
                    const TYPE: &'static str = stringify!($name);
                    const VERSION: u32 = 1;
                }
            )+
        };
    }
    // The derives of serde write `Ok(…)` and `Err(…)` as they are.
    payloads! { V E T S Event Payload TypedEvent Box Clone From Result Error PersistedEvent event payload visitor }

    eventseal::events! {
        pub(super) enum Events {
            A(V), B(E), C(T), D(S), F(Event), G(Payload), H(TypedEvent), I(Box), J(Clone), K(From), L(Result), M(Error),
            N(PersistedEvent), O(event), P(payload), Q(visitor),
            _ => Other,
        }
    }

    pub(super) fn first() -> Events {
        V(7).into()
    }
}

#[test]
fn a_payload_type_may_have_any_name() {
    let encoded = NewEvent::of(&names_of_macros::first()).unwrap();
    assert_eq!((encoded.event_type.as_str(), encoded.payload.as_slice()), ("V", b"7".as_slice()));
    assert_eq!(names_of_macros::Events::DECODES.len(), 16);
}
