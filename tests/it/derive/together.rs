//! Owners, steps and declarations by hand, together.

use super::{Courier, Customer, Guest, of, problems, protected};
use eventseal::ExpectedVersion::NoStream;
use eventseal::schema::LockFile;
use eventseal::{
    Changes, Event, EventPart, EventStore, EventStoreExt, Events, KeyScope, NewEvent, Normalize, Owner, PersistedEvent,
    Schemas, Scope, Sensitive, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use support::world::*;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(type = "OrderPlaced", version = 2, owner = Customer(customer_id), previous = OrderPlacedV1)]
#[serde(rename_all = "camelCase")]
struct OrderPlaced {
    customer_id: CustomerId,
    contact: Contact,
    #[event(redact_as = "unknown", pad_to = 64)]
    name: Sensitive<String>,
    courier: Option<CourierInfo>,
    #[event(owner = Courier(courier?.id))]
    courier_phone: Option<Sensitive<String>>,
    guests: Vec<GuestInfo>,
    #[event(owner = aggregate, redact_as = json!({ "erased": true }))]
    note: Sensitive<String>,
    #[event(owner = Guest(best.1.0))]
    best_name: Sensitive<String>,
    best: (u8, (u64, u8)),
}

#[derive(Debug, Clone, Serialize, Deserialize, EventPart)]
#[serde(transparent)]
struct CustomerId(String);

#[derive(Debug, Clone, Serialize, Deserialize, EventPart)]
struct Contact {
    email: Sensitive<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, EventPart)]
struct CourierInfo {
    id: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, EventPart)]
#[event(owner = Guest(id))]
struct GuestInfo {
    id: u64,
    name: Sensitive<String>,
    #[event(owner = aggregate(Customer))]
    invited_by: Sensitive<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(type = "OrderPlaced", version = 1, owner = Customer(customer_id))]
struct OrderPlacedV1 {
    customer_id: String,
    email: Sensitive<String>,
}

impl From<OrderPlacedV1> for OrderPlaced {
    fn from(old: OrderPlacedV1) -> Self {
        Self {
            customer_id: CustomerId(old.customer_id),
            contact: Contact { email: old.email },
            name: "".to_owned().into(),
            courier: None,
            courier_phone: None,
            guests: Vec::new(),
            note: "".to_owned().into(),
            best_name: "".to_owned().into(),
            best: (0, (0, 0)),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(type = "OrderShipped", version = 1)]
struct OrderShipped {
    carrier: String,
}

#[derive(Debug, Events)]
enum OrderEvent {
    Placed(OrderPlaced),
    Shipped(OrderShipped),
    #[event(other)]
    Other(Box<PersistedEvent>),
}

#[test]
fn owners_are_those_that_stand_innermost() {
    let schemas = of::<OrderEvent>();
    let customer = Customer::at("/customerId");
    let expected: BTreeMap<String, Owner> = [
        ("/contact/email", customer.clone()),
        ("/name", customer),
        ("/courierPhone", Courier::at("/courier/id")),
        ("/guests/*/name", Guest::at("/guests/*/id")),
        ("/guests/*/invited_by", Customer::aggregate()),
        ("/note", Owner::Aggregate),
        ("/bestName", Guest::at("/best/1/0")),
    ]
    .map(|(pointer, owner)| (pointer.to_owned(), owner))
    .into();
    assert_eq!(protected(&schemas, "OrderPlaced", 2), expected);
    assert_eq!(
        protected(&schemas, "OrderPlaced", 1),
        BTreeMap::from([("/email".to_owned(), Customer::at("/customer_id"))])
    );
    assert!(protected(&schemas, "OrderShipped", 1).is_empty());
    let versions = schemas.versions();
    let stand_in =
        |pointer: &str| versions[1].protected.iter().find(|place| place.pointer == pointer).unwrap().stand_in.clone();
    assert_eq!((stand_in("/name"), stand_in("/note")), (json!("unknown"), json!({ "erased": true })));
    assert_eq!(versions[1].decoded_into.len(), 1, "the enum decodes the current version");
}

/// Everything that is not declared here (guards, census, backfill, rewrite, export) works on the registry alone.
#[test]
fn the_registry_is_that_of_the_same_declarations_by_hand() {
    let customer = || Customer::at("/customerId");
    let by_hand = Schemas::new([
        event("OrderPlaced")
            .version(1)
            .protect(&["/email"], Customer::at("/customer_id"))
            .version(2)
            .protect(&["/contact/email", "/name"], customer())
            .redact_as("/name", "unknown")
            .pad_to("/name", 64)
            .protect(&["/courierPhone"], Courier::at("/courier/id"))
            .protect(&["/guests/*/name"], Guest::at("/guests/*/id"))
            .protect(&["/guests/*/invited_by"], Customer::aggregate())
            .protect(&["/note"], Owner::Aggregate)
            .redact_as("/note", json!({ "erased": true }))
            .protect(&["/bestName"], Guest::at("/best/1/0"))
            .upcast(1, |old: OrderPlacedV1| Ok::<_, std::convert::Infallible>(OrderPlaced::from(old))),
        event("OrderShipped").version(1),
    ]);
    let sorted = |schemas: &Schemas| {
        let mut versions = schemas.versions();
        for version in &mut versions {
            version.protected.sort_by(|a, b| a.pointer.cmp(&b.pointer));
            version.decoded_into.clear();
        }
        versions
    };
    let (derived, by_hand) = (of::<OrderEvent>(), by_hand.unwrap());
    assert_eq!(sorted(&derived), sorted(&by_hand));
    assert_eq!(LockFile::of(&derived), LockFile::of(&by_hand));
}

#[tokio::test]
async fn what_a_type_declares_is_sealed_shredded_and_upcast() {
    let world = World::new();
    let store = world.store(of::<OrderEvent>()).await;
    let order = aggregate("Order", "1");
    let placed = OrderPlaced {
        customer_id: CustomerId("cust_42".into()),
        contact: Contact { email: "ada@example.org".to_owned().into() },
        name: "Ada".to_owned().into(),
        courier: Some(CourierInfo { id: 9 }),
        courier_phone: Some("555".to_owned().into()),
        guests: vec![GuestInfo { id: 7, name: "Bob".to_owned().into(), invited_by: "Ada".to_owned().into() }],
        note: "ring twice".to_owned().into(),
        best_name: "Bob".to_owned().into(),
        best: (0, (7, 0)),
    };
    let mut tx = world.db.begin();
    store.append(&mut tx, &order, NoStream, &[NewEvent::of(&placed).unwrap()]).await.unwrap();
    for scope in [Customer::scope("cust_42"), Guest::scope(7)] {
        store.keys().shred(&mut tx, &scope, "asked").await.unwrap();
    }
    let read = store.read_stream(&mut tx, &order).await.unwrap().decode::<OrderEvent>().unwrap();
    let OrderEvent::Placed(read) = &read[0] else { panic!("{read:?}") };
    assert!(read.contact.email.is_redacted() && read.name.is_redacted() && read.best_name.is_redacted());
    assert!(read.guests[0].name.is_redacted() && !read.guests[0].invited_by.is_redacted());
    assert_eq!(read.courier_phone.as_ref().unwrap().expose().unwrap(), "555");
    assert_eq!(read.note.expose().unwrap(), "ring twice");

    let old = OrderPlacedV1 { customer_id: "cust_43".into(), email: "eve@example.org".to_owned().into() };
    let world = World::new();
    let old_store = world.store(of::<OrderPlacedV1>()).await;
    let mut tx = world.db.begin();
    old_store.append(&mut tx, &order, NoStream, &[NewEvent::of(&old).unwrap()]).await.unwrap();
    let store = world.store(of::<OrderEvent>()).await;
    let read = store.read_stream(&mut tx, &order).await.unwrap().decode::<OrderEvent>().unwrap();
    let OrderEvent::Placed(read) = &read[0] else { panic!("{read:?}") };
    assert_eq!(read.contact.email.expose().unwrap(), "eve@example.org");
}

#[test]
fn declarations_by_hand_join_those_of_types() {
    // Steps and older versions by hand.
    let by_hand = || event("OrderShipped").version(1).version(2).change(1, Changes::new());
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "OrderShipped", version = 2)]
    struct Shipped2 {
        carrier: String,
    }
    let schemas = Schemas::of::<Shipped2>().and([by_hand(), event("Pinged").version(1)]).build().unwrap();
    assert_eq!(schemas.versions().len(), 3);

    // The same version, said twice in one way.
    let same = event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer_id"));
    assert_eq!(problems(Schemas::of::<OrderPlacedV1>().and([same])), [""; 0]);
    // Both enums hold the type.
    #[derive(Events)]
    enum Reader {
        Placed(OrderPlaced),
    }
    assert_eq!(problems(Schemas::of::<OrderEvent>().and_of::<Reader>()), [""; 0]);
}

#[tokio::test]
async fn owners_may_stand_outside_of_the_payload() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "LoggedIn", version = 1, owner = caller(Customer))]
    struct LoggedIn {
        device: Sensitive<String>,
        #[event(owner = metadata(Courier, "/actor/id"))]
        ip: Sensitive<String>,
        #[event(owner = caller(Guest, "/guest"))]
        host: Option<Sensitive<String>>,
        #[event(owner = key(Guest))]
        by_guest: BTreeMap<String, Vec<Contact>>,
        nested: BTreeMap<u8, BTreeMap<u8, Sensitive<String>>>,
        #[event(owner = aggregate)]
        own: BTreeMap<u8, Sensitive<String>>,
    }
    let schemas = of::<LoggedIn>();
    let expected: BTreeMap<String, Owner> = [
        ("/device", Customer::caller()),
        ("/ip", Courier::metadata("/actor/id")),
        ("/host", Guest::caller_at("/guest")),
        ("/by_guest/{member}/*/email", Guest::at("{member}")),
        ("/nested/{member}/{member2}", Customer::caller()),
        ("/own/{member}", Owner::Aggregate),
    ]
    .map(|(pointer, owner)| (pointer.to_owned(), owner))
    .into();
    assert_eq!(protected(&schemas, "LoggedIn", 1), expected);

    let world = World::new();
    let store = world.store(schemas).await;
    let secret = |text: &str| Sensitive::from(text.to_owned());
    let logged_in = LoggedIn {
        device: secret("phone"),
        ip: secret("192.0.2.7"),
        host: None,
        by_guest: BTreeMap::from([
            ("g1".to_owned(), vec![Contact { email: secret("one") }]),
            ("g2".to_owned(), vec![Contact { email: secret("two") }]),
        ]),
        nested: BTreeMap::from([(1, BTreeMap::from([(2, secret("deep"))]))]),
        own: BTreeMap::from([(1, secret("own"))]),
    };
    let mut event = NewEvent::of(&logged_in).unwrap().for_subject(Customer::scope("cust_42"));
    event.metadata = Some(br#"{"actor":{"id":9}}"#.to_vec());
    let login = aggregate("Login", "1");
    let mut tx = world.db.begin();
    store.append(&mut tx, &login, NoStream, &[event]).await.unwrap();
    for scope in [Customer::scope("cust_42"), Guest::scope("g1")] {
        store.keys().shred(&mut tx, &scope, "asked").await.unwrap();
    }
    let read: LoggedIn = store.read_stream(&mut tx, &login).await.unwrap().events[0].decode().unwrap();
    assert!(read.device.is_redacted() && read.nested[&1][&2].is_redacted());
    assert!(read.by_guest["g1"][0].email.is_redacted());
    assert_eq!(read.by_guest["g2"][0].email.expose().unwrap(), "two");
    assert_eq!((read.ip.expose().unwrap().as_str(), read.own[&1].expose().unwrap().as_str()), ("192.0.2.7", "own"));
}

#[test]
fn old_events_may_fail_to_be_new_ones() {
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Counted", version = 1)]
    struct Counted1 {
        count: String,
    }
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Counted", version = 2, try_previous = Counted1)]
    struct Counted {
        count: u64,
    }
    impl TryFrom<Counted1> for Counted {
        type Error = std::num::ParseIntError;
        fn try_from(old: Counted1) -> Result<Self, Self::Error> {
            Ok(Self { count: old.count.parse()? })
        }
    }
    let schemas = of::<Counted>();
    assert_eq!(schemas.versions().len(), 2);
}

#[test]
fn a_kind_may_be_normalized() {
    #[derive(Scope)]
    #[scope("Device", normalize = Normalize::by("letters", |id| id.trim_matches('-').to_owned()))]
    struct Device;
    #[derive(Serialize, Deserialize, Event)]
    #[event(type = "Seen", version = 1, owner = Device(id))]
    struct Seen {
        id: String,
        at: Sensitive<String>,
    }
    assert_eq!(of::<Seen>().scope_for("Device", "-d7-").unwrap(), KeyScope::new("Device", "d7"));
    assert_eq!(Device::scope("-d7-"), KeyScope::new("Device", "d7"));
    assert_eq!((Guest::KIND, Device::KIND), ("Guest", "Device"));
}
