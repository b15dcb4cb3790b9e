//! Events of types that the registry does not know, and ciphertext that nobody opened: neither is handed out by
//! default.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use eventseal::ExpectedVersion::Any;
use eventseal::error::{EventFault, MaintenanceFault};
use eventseal::maintenance::RewriteOptions;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::schema::{EventSchema, SchemasBuilder};
use eventseal::{
    Error, Event, EventFilter, EventStore, EventStoreExt, EventVersion, Events, GlobalPosition, Namespace, NewEvent,
    Owner, PersistedEvent, Result, Schemas, SealedStore, Sealer, Sensitive, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::convert::Infallible;
use support::world::World;

#[derive(Debug, Serialize, Deserialize)]
struct Met {
    customer_id: String,
    email: Sensitive<String>,
}

impl Event for Met {
    const TYPE: &'static str = "Met";
    const VERSION: u32 = 1;
}

const MET: &str = r#"{"customer_id":"42","email":"ada@example.org"}"#;

fn met() -> EventSchema {
    event("Met").version(1).protect(&["/email"], subject("Customer", "/customer_id"))
}

fn other() -> EventSchema {
    event("Other").version(1)
}

fn is_unknown<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Event { fault: EventFault::UnknownType { .. }, .. }))
}

fn is_still_sealed<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Event { fault: EventFault::StillSealed { .. }, .. }))
}

/// A world in which a `Met` was appended by somebody who knows it.
async fn with_met() -> (World, SealedStore<MemoryStore>) {
    let world = World::new();
    let store = world.store(Schemas::new([met()]).unwrap()).await;
    world.append(&store, "1", &[NewEvent::raw("Met", 1, MET)]).await;
    (world, store)
}

/// The event as it is stored.
async fn stored(world: &World) -> PersistedEvent {
    MemoryStore::new().read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap().events.remove(0)
}

/// Stores an event, and returns what a reader gets.
async fn open(world: &World, schemas: Schemas, event: PersistedEvent) -> Result<PersistedEvent> {
    let sealer = Sealer::new(MemoryKeys::new(), world.keyring.clone(), schemas);
    sealer.open(&mut world.db.begin(), vec![event]).await.map(|mut events| events.remove(0))
}

async fn each(
    world: &World,
    store: &SealedStore<MemoryStore>,
    filter: &EventFilter,
) -> Vec<Result<Vec<PersistedEvent>>> {
    let page = store.read_events_each(&mut world.db.begin(), GlobalPosition::START, 10, filter).await.unwrap();
    page.events.into_iter().map(|result| result.map_err(|unreadable| unreadable.error)).collect()
}

#[tokio::test]
async fn an_unknown_type_is_neither_appended_nor_read_unless_the_builder_allows_it() {
    let world = World::new();
    world.append(&MemoryStore::new(), "1", &[NewEvent::raw("Strange", 1, "{}")]).await;
    let strict = world.store(Schemas::new([met(), other()]).unwrap()).await;
    let appended =
        strict.append(&mut world.db.begin(), &aggregate("Order", "2"), Any, &[NewEvent::raw("Strange", 1, "{}")]).await;
    let error = appended.unwrap_err();
    for remedy in [r#"add event("Strange") to the schemas"#, "EventFilter::event_types", "allow_unknown_types()"] {
        assert!(error.to_string().contains(remedy), "{error}");
    }
    assert!(is_unknown(&world.read(&strict, "1").await));
    let all = EventFilter::default();
    assert!(is_unknown(&strict.read_events(&mut world.db.begin(), GlobalPosition::START, 10, &all).await));
    assert!(is_unknown(&each(&world, &strict, &all).await[0]));

    let lenient = world.store(Schemas::builder([met()]).allow_unknown_types().build().unwrap()).await;
    world.append(&lenient, "1", &[NewEvent::raw("Strange", 7, &b"\xff no JSON"[..])]).await;
    let read = world.read(&lenient, "1").await.unwrap();
    assert_eq!((&read[0].payload[..], &read[1].payload[..]), (&b"{}"[..], &b"\xff no JSON"[..]));
}

#[tokio::test]
async fn a_reader_that_asks_for_types_is_not_disturbed_by_others() {
    let (world, store) = with_met().await;
    world
        .append(&MemoryStore::new(), "1", &[NewEvent::raw("Strange", 1, "{}"), NewEvent::raw("Stranger", 1, "{}")])
        .await;
    world.append(&store, "1", &[NewEvent::raw("Met", 1, MET)]).await;
    let filter = EventFilter { event_types: vec!["Met".into()], ..EventFilter::default() };
    let page = store.read_events(&mut world.db.begin(), GlobalPosition::START, 10, &filter).await.unwrap();
    assert_eq!((page.events.len(), page.scanned, page.next.get()), (2, 2, 4));
    assert_eq!(each(&world, &store, &filter).await.len(), 2);
    // `read_events_each` returns the events that can be read, and an error for each other one.
    let all = each(&world, &store, &EventFilter::default()).await;
    assert_eq!(all.iter().map(is_unknown).collect::<Vec<_>>(), [false, true, true, false]);
}

#[tokio::test]
async fn ciphertext_of_an_unknown_type_is_handed_out_to_nobody_live_or_shredded() {
    let (world, store) = with_met().await;
    let allowing = world.store(Schemas::builder([other()]).allow_unknown_types().build().unwrap()).await;
    for state in ["live", "shredded"] {
        if state == "shredded" {
            world.shred(&store, "42").await;
        }
        let error = world.read(&allowing, "1").await.unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Event { fault: EventFault::StillSealed { event_type }, .. }
                    if event_type.as_str() == "Met"
            ),
            "{state}: {error:?}"
        );
        assert!(!error.is_tampered() && error.to_string().contains("schemas that register Met"), "{error}");
        assert!(error.to_string().contains("pass_through_sealed()"), "{error}");
        let all = EventFilter::default();
        assert!(
            is_still_sealed(&allowing.read_events(&mut world.db.begin(), GlobalPosition::START, 9, &all).await),
            "{state}"
        );
        assert!(is_still_sealed(&each(&world, &allowing, &all).await[0]), "{state}");
        let mut options = RewriteOptions::default();
        options.dry_run = true;
        let copy = MemoryDb::new(Namespace::new("copy").unwrap());
        let rewritten = allowing
            .rewrite(&mut world.db.begin(), &MemoryStore::new(), &mut copy.begin(), &options, &mut |_| {})
            .await;
        assert!(
            matches!(
                rewritten,
                Err(Error::Maintenance(MaintenanceFault::Unreadable(unreadable)))
                    if matches!(unreadable.error, Error::Event { fault: EventFault::StillSealed { .. }, .. })
            ),
            "{state}"
        );
    }
}

#[tokio::test]
async fn a_relay_carries_sealed_events_on_and_takes_none_for_values() {
    let (world, store) = with_met().await;
    let relay = world.store(Schemas::builder([]).pass_through_sealed().build().unwrap()).await;
    world.shred(&store, "42").await;
    let carried = world.read(&relay, "1").await.unwrap().remove(0);
    assert_eq!(carried, stored(&world).await);
    assert!(is_still_sealed(&carried.decode::<Met>()) && is_still_sealed(&carried.decode::<Value>()));
    // A copy is made by whoever may read it, and by nobody else.
    let copying = async |schemas: SchemasBuilder| {
        let (store, copy) =
            (world.store(schemas.build().unwrap()).await, MemoryDb::new(Namespace::new("copy").unwrap()));
        let options = RewriteOptions::default();
        store.rewrite(&mut world.db.begin(), &MemoryStore::new(), &mut copy.begin(), &options, &mut |_| {}).await
    };
    assert_eq!(copying(Schemas::builder([]).pass_through_sealed()).await.unwrap().copied, 1);
    let stopped = copying(Schemas::builder([])).await;
    assert!(matches!(
        stopped,
        Err(Error::Maintenance(MaintenanceFault::Unreadable(unreadable)))
            if matches!(unreadable.error, Error::Event { fault: EventFault::UnknownType { .. }, .. })
    ));
    // A sealed payload that is passed on for somebody else can't be appended as a new event.
    let again = NewEvent::raw("Met", 1, carried.payload.clone());
    let mut tx = world.db.begin();
    assert!(is_unknown(&relay.append(&mut tx, &aggregate("Order", "2"), Any, std::slice::from_ref(&again)).await));
    let allowing = world.store(Schemas::builder([]).pass_through_sealed().allow_unknown_types().build().unwrap()).await;
    let refused = allowing.append(&mut tx, &aggregate("Order", "2"), Any, &[again]).await;
    assert!(matches!(refused, Err(Error::Event { fault: EventFault::ReservedMember, .. })), "{refused:?}");
    assert_eq!(
        open(&world, Schemas::new([met()]).unwrap(), carried).await.unwrap().redacted.len(),
        1,
        "whoever knows the type opens it"
    );
}

#[tokio::test]
async fn what_was_read_past_the_sealed_store_does_not_decode() {
    let (world, _store) = with_met().await;
    let sealed = stored(&world).await;
    assert!(is_still_sealed(&sealed.decode::<Met>()));
    assert!(is_still_sealed(&Events::decode(&sealed).map(|_: Met| ())));
    let stream = MemoryStore::new().read_stream(&mut world.db.begin(), &aggregate("Order", "1")).await.unwrap();
    assert!(is_still_sealed(&stream.decode::<Met>()));
}

#[tokio::test]
async fn i7_a_step_that_is_taken_alone_sees_no_ciphertext_either() {
    let (world, store) = with_met().await;
    let schemas =
        Schemas::new([met().version(2).protect_same_as(1).upcast(1, |old: Value| Ok::<_, Infallible>(old))]).unwrap();
    assert!(is_still_sealed(&schemas.step_once(&stored(&world).await)));
    let opened = world.read(&store, "1").await.unwrap().remove(0);
    assert_eq!(schemas.step_once(&opened).unwrap().unwrap()[0].payload, MET.as_bytes());
}

/// However the payload was written, and whatever a store has made of its spelling since.
#[tokio::test]
async fn the_reserved_member_is_found_however_it_is_spelled_and_nowhere_else() {
    let (world, _store) = with_met().await;
    let sealed = String::from_utf8(stored(&world).await.payload).unwrap();
    let members: serde_json::Map<String, Value> = serde_json::from_str(&sealed).unwrap();
    let (header, email) = (&members["$seal"], &members["email"]);
    let jsonb = format!(r#"{{"email": {email}, "$seal": {header}, "customer_id": "42"}}"#);
    let allowing = || Schemas::builder([other()]).allow_unknown_types().build().unwrap();
    let read = async |payload: &str| {
        let mut event = stored(&world).await;
        event.payload = payload.as_bytes().to_vec();
        let unknown = open(&world, allowing(), event.clone()).await;
        // The header is also found in an event of a registered type that protects nothing.
        event.stored_type = "Other".into();
        (unknown, open(&world, allowing(), event).await)
    };
    for spelled in [
        sealed.clone(),
        jsonb.clone(),
        jsonb.replace("$seal", r"\u0024seal"),
        jsonb.replace("$seal", r"$s\u0065al"),
        sealed.replace("$seal", r"\u0024\u0073\u0065\u0061\u006C"),
        format!("\n\t {sealed}"),
    ] {
        let (unknown, known) = read(&spelled).await;
        assert!(is_still_sealed(&unknown), "{spelled}: {unknown:?}");
        // A header is opened, and found to be of another type.
        assert!(matches!(known, Err(Error::Event { fault: EventFault::Tampered { .. }, .. })), "{spelled}: {known:?}");
    }
    for plain in [
        format!(r#"{{"inner": {sealed}}}"#),
        format!(r#"[{sealed}]"#),
        serde_json::to_string(&sealed).unwrap(),
        r#"{"note":"$seal","\u0024eal":1}"#.to_owned(),
        r#"{"a$seal":1, "b":{"\u0024seal":"AQ"}}"#.to_owned(),
    ] {
        let (unknown, known) = read(&plain).await;
        assert_eq!(
            (unknown.unwrap().payload, known.unwrap().payload),
            (plain.clone().into_bytes(), plain.into_bytes())
        );
    }
}

/// Every policy that lets something through lets no ciphertext through: it is opened, or an error.
#[tokio::test]
async fn no_policy_but_the_one_for_relays_lets_ciphertext_through() {
    let (world, _store) = with_met().await;
    let unprotected = || event("Met").version(1).unprotected("declared so by mistake");
    let same = |value: Value| Ok::<_, Infallible>(value);
    let schemas = |policy: &str| match policy {
        "unknown" => Schemas::builder([]).allow_unknown_types(),
        "unprotected" => Schemas::builder([unprotected()]),
        "stepped" => Schemas::builder([unprotected().version(2).unprotected("it too").upcast(1, same)]),
        "newer" => Schemas::builder([unprotected()]).pass_through_newer(),
        "legacy" => Schemas::builder([unprotected()]).legacy_version(1),
        _ => Schemas::builder([event("Met").version(1).protect(&["/other"], Owner::Aggregate)]).accept_plaintext("Met"),
    };
    for policy in ["unknown", "unprotected", "stepped", "newer", "legacy", "plaintext"] {
        for version in [0, 1, 2] {
            let mut event = stored(&world).await;
            event.stored_version = EventVersion::new(version);
            let sealed = event.payload.clone();
            match open(&world, schemas(policy).build().unwrap(), event).await {
                Ok(opened) => {
                    assert!(version == 1 && opened.payload != sealed, "{policy} {version}");
                    assert_eq!(
                        opened.decode::<Met>().unwrap().email.expose().map(String::as_str),
                        Some("ada@example.org"),
                        "{policy}"
                    );
                }
                Err(error) => assert!(policy == "unknown" || version != 1, "{policy} {version}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn ciphertext_that_is_no_json_any_more_is_not_handed_out_where_nothing_is_protected() {
    let (world, _) = with_met().await;
    let sealed = stored(&world).await;
    let text = String::from_utf8(sealed.payload.clone()).unwrap();
    let open_end = text.strip_suffix('}').unwrap();
    let deep = format!("{open_end},\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let mut no_utf8 = sealed.payload.clone();
    no_utf8.insert(no_utf8.len() - 2, 0xff);
    for payload in [open_end.as_bytes().to_vec(), format!("{text}x").into_bytes(), no_utf8, deep.into_bytes()] {
        let refused = |result: Result<PersistedEvent>| {
            let is_refused = matches!(
                result,
                Err(Error::Event { fault: EventFault::InvalidPayload { .. }, .. }
                    | Error::Event { fault: EventFault::LimitExceeded { .. }, .. })
            );
            assert!(is_refused, "{:?}", result.map(|event| String::from_utf8_lossy(&event.payload).into_owned()));
        };
        let mut damaged = sealed.clone();
        damaged.payload = payload;
        refused(open(&world, Schemas::new([event("Met").version(1)]).unwrap(), damaged.clone()).await);
        damaged.stored_version = EventVersion::new(2);
        refused(open(&world, Schemas::builder([met()]).pass_through_newer().build().unwrap(), damaged).await);
    }
    let mut bytes = sealed;
    bytes.payload = b"\xff no JSON".to_vec();
    assert_eq!(
        open(&world, Schemas::new([event("Met").version(1)]).unwrap(), bytes.clone()).await.unwrap().payload,
        bytes.payload
    );
}
