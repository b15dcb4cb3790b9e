//! The search for the events of a scope, on every database: it finds every event that a key of the scope seals.

use eventseal::error::KeyFault;
use eventseal::keys::KeyId;
use eventseal::maintenance::{EventOf, EventsOf, EventsOfOptions, EventsOfPage};
use eventseal::store::{EventTable, PayloadReplacement};
use eventseal::{Error, GlobalPosition, KeyScope, NewEvent, Owner, PersistedEvent, Schemas, event, subject};
use std::collections::{BTreeMap, BTreeSet};
use support::backend::Backend;
use support::{customer, customer_scope, fault, on_every_database};

on_every_database! {
    every_event_that_a_key_of_the_scope_seals_is_found,
    pages_and_parts_of_the_log_find_the_same,
    a_header_is_found_wherever_it_is_and_a_broken_one_is_reported,
    values_that_were_erased_before_they_were_sealed_are_found,
    scopes_that_cannot_be_searched_for_are_refused,
    what_is_found_is_what_was_sealed_for_the_scope,
}

pub(crate) fn schemas() -> Schemas {
    Schemas::builder([
        event("Placed")
            .version(1)
            .protect(&["/name"], customer())
            .protect(&["/gift/note"], subject("Friend", "/friend")),
        event("Lines").version(1).protect(&["/lines/*/name"], subject("Customer", "/lines/*/id")),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("Plain").version(1),
    ])
    .accept_plaintext("Placed")
    .build()
    .unwrap()
}

pub(crate) fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"Name of {customer}"}}"#))
}

fn gift(customer: &str, friend: &str) -> NewEvent {
    let payload = format!(r#"{{"customer":"{customer}","name":"N","friend":"{friend}","gift":{{"note":"G"}}}}"#);
    NewEvent::raw("Placed", 1, payload)
}

fn with(change: impl FnOnce(&mut EventsOfOptions)) -> EventsOfOptions {
    let mut options = EventsOfOptions::default();
    change(&mut options);
    options
}

/// All pages of a search.
async fn pages<B: Backend>(db: &B, scope: &KeyScope, options: &EventsOfOptions) -> Vec<EventsOfPage> {
    let (store, mut connection) = (db.process(schemas()), db.connect().await.unwrap());
    let mut search = store.events_of(db.connection(&mut connection), scope, options).await.unwrap();
    let mut pages = Vec::new();
    while let Some(page) = search.next(db.connection(&mut connection)).await.unwrap() {
        pages.push(page);
    }
    let (told, counted) = (search.progress(), pages.iter().map(|page| page.events.len() as u64).sum::<u64>());
    assert_eq!((told.position, told.found), (told.last, counted));
    assert!(search.next(db.connection(&mut connection)).await.unwrap().is_none(), "the end stays the end");
    pages
}

async fn found<B: Backend>(db: &B, scope: &KeyScope) -> Vec<EventOf> {
    let pages = pages(db, scope, &EventsOfOptions::default()).await;
    assert!(pages.iter().all(|page| page.unreadable.is_empty()));
    pages.into_iter().flat_map(|page| page.events).collect()
}

fn positions(found: &[EventOf]) -> Vec<i64> {
    found.iter().map(|found| found.event.global_position.get()).collect()
}

fn places(found: &EventOf) -> Vec<(&str, bool)> {
    found.places.iter().map(|place| (place.pointer.as_str(), place.is_void)).collect()
}

async fn every_event_that_a_key_of_the_scope_seals_is_found<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let lines = r#"{"lines":[{"id":"eve","name":"E"},{"id":"ada","name":"A"},{"id":"ada","name":"A2"}]}"#;
    db.append(&store, "1", &[placed("ada"), placed("eve"), NewEvent::raw("Plain", 1, "{}")]).await;
    db.append(&store, "2", &[gift("eve", "ada"), gift("ada", "eve"), NewEvent::raw("Lines", 1, lines)]).await;
    db.append_bare("3", &[placed("ada")]).await;
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("ada")).await.unwrap();
    db.commit(transaction).await.unwrap();
    db.append(&store, "1", &[placed("ada"), NewEvent::raw("Whole", 1, "any bytes")]).await;

    let before = found(&db, &customer_scope("ada")).await;
    assert_eq!(positions(&before), [1, 5, 6, 8], "position 7 is in the clear");
    assert_eq!(places(&before[2]), [("/lines/1/name", false), ("/lines/2/name", false)], "not those of others");
    assert_eq!(
        before.iter().flat_map(|found| &found.places).map(|place| place.key_id).collect::<BTreeSet<_>>().len(),
        2
    );
    assert_eq!(positions(&found(&db, &KeyScope::new("Friend", "ada")).await), [4]);
    let whole = found(&db, &KeyScope::new("Order", "1")).await;
    assert_eq!((positions(&whole), places(&whole[0])), (vec![9], vec![("", false)]));
    assert!(whole[0].event == db.stored().await[8], "as it is stored");

    // Neither a shred nor a new generation hides anything.
    db.disable(&store, "ada").await;
    assert_eq!(positions(&found(&db, &customer_scope("ada")).await), [1, 5, 6, 8]);
    db.shred(&store, "ada").await;
    assert_eq!(positions(&found(&db, &customer_scope("ada")).await), [1, 5, 6, 8]);
    db.reopen(&store, "ada").await;
    db.append(&store, "4", &[placed("ada")]).await;
    assert_eq!(positions(&found(&db, &customer_scope("ada")).await), [1, 5, 6, 8, 10]);

    // A key whose scope nobody knows any more is found by its id.
    let (key, mut connection) = (before[0].places[0].key_id, db.connect().await.unwrap());
    let table = B::Store::default();
    let options = EventsOfOptions::default();
    let mut search = EventsOf::of_keys(&table, db.connection(&mut connection), [key], &options).await.unwrap();
    let page = search.next(db.connection(&mut connection)).await.unwrap().unwrap();
    assert_eq!((positions(&page.events), search.keys().collect::<Vec<_>>()), (vec![1, 5, 6], vec![key]));
}

async fn pages_and_parts_of_the_log_find_the_same<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for round in 0..7 {
        db.append(&store, "1", &[placed("eve"), placed("ada"), gift("eve", &format!("friend {round}"))]).await;
    }
    let ada = customer_scope("ada");
    let whole = positions(&found(&db, &ada).await);
    assert_eq!(whole, (0..7).map(|round| round * 3 + 2).collect::<Vec<_>>());
    for batch in [0, 1, 2, 3, 20, 21, 22] {
        let pages = pages(&db, &ada, &with(|options| options.batch = batch)).await;
        assert_eq!(positions(&pages.iter().flat_map(|page| page.events.clone()).collect::<Vec<_>>()), whole);
        assert!(pages.is_sorted_by_key(|page| (page.progress.position, page.progress.found)));
        assert_eq!(pages.last().unwrap().progress.looked_at, 21);
        assert!(pages.len() >= 21 / batch.max(1) as usize);
    }

    // A search that was ended goes on where it was, and one of a part of the log stays in it.
    let mut connection = db.connect().await.unwrap();
    let mut search =
        store.events_of(db.connection(&mut connection), &ada, &with(|options| options.batch = 4)).await.unwrap();
    let first = search.next(db.connection(&mut connection)).await.unwrap().unwrap();
    drop(search);
    let rest = pages(&db, &ada, &with(|options| options.range.after = first.progress.position)).await;
    let both: Vec<EventOf> = first.events.into_iter().chain(rest.into_iter().flat_map(|page| page.events)).collect();
    assert_eq!(positions(&both), whole);
    let part = with(|options| {
        (options.range.after, options.range.up_to) = (2.try_into().unwrap(), Some(8.try_into().unwrap()));
    });
    let part = pages(&db, &ada, &part).await;
    assert_eq!(positions(&part[0].events), [5, 8]);
    let beyond = with(|options| options.range.after = 1_000.try_into().unwrap());
    assert!(pages(&db, &ada, &beyond).await.is_empty());

    // What is committed while the search goes on is not looked for.
    let mut search =
        store.events_of(db.connection(&mut connection), &ada, &with(|options| options.batch = 4)).await.unwrap();
    search.next(db.connection(&mut connection)).await.unwrap().unwrap();
    db.append(&store, "2", &[placed("ada")]).await;
    while search.next(db.connection(&mut connection)).await.unwrap().is_some() {}
    assert_eq!((search.progress().found, search.progress().last.get()), (7, 21));
}

/// Puts other bytes in the place of a stored payload.
async fn replace<B: Backend>(db: &B, event: &PersistedEvent, new: Vec<u8>) {
    let mut transaction = db.begin().await.unwrap();
    let (position, event_id, old) = (event.global_position, event.event_id, event.payload.clone());
    let replacement = PayloadReplacement { position, event_id, old, new, metadata: None };
    let table = B::Store::default();
    assert_eq!(table.replace_payloads(db.tx(&mut transaction), &[replacement]).await.unwrap(), [position]);
    db.commit(transaction).await.unwrap();
}

async fn a_header_is_found_wherever_it_is_and_a_broken_one_is_reported<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let events: Vec<NewEvent> = (0..9).map(|_| placed("ada")).collect();
    db.append(&store, "1", &events).await;
    let stored = db.stored().await;
    let text = String::from_utf8(stored[0].payload.clone()).unwrap();
    let (header, rest) = text.strip_prefix(r#"{"$seal":""#).unwrap().split_once("\",").unwrap();
    let rest = rest.strip_suffix('}').unwrap();
    let respelled = [
        format!(r#"{{{rest},"$seal":"{header}"}}"#),
        format!("  {{ {rest} ,\n\t\"$seal\" : \"{header}\" }}"),
        format!(r#"{{{rest},"\u0024s\u0065al":"{header}"}}"#),
        format!(r#"{{"$seal":"{header}",{rest},"note":"$seal"}}"#),
        format!(r#"{{"$seal":"{header}",{rest}"#),
    ];
    let broken = [
        (format!(r#"{{"$seal":"{}",{rest}}}"#, &header[..header.len() - 4]), "Tampered"),
        (format!(r#"{{"$seal":"Ag{}",{rest}}}"#, &header[2..]), "Unsupported"),
        (format!(r#"{{"$seal":"{header}","$seal":"{header}",{rest}}}"#), "Tampered"),
    ];
    for (event, payload) in stored.iter().zip(respelled.iter().chain(broken.iter().map(|(payload, _)| payload))) {
        replace(&db, event, payload.clone().into_bytes()).await;
    }
    for scope in ["ada", "eve"] {
        if scope == "eve" {
            db.append(&store, "2", &[placed("eve")]).await;
        }
        let pages = pages(&db, &customer_scope(scope), &with(|options| options.batch = 4)).await;
        let events: Vec<EventOf> = pages.iter().flat_map(|page| page.events.clone()).collect();
        let expected: &[i64] = if scope == "ada" { &[1, 2, 3, 4, 5, 9] } else { &[10] };
        assert_eq!(positions(&events), expected);
        assert!(events.iter().all(|found| places(found) == [("/name", false)]));
        let unreadable: Vec<_> = pages.iter().flat_map(|page| page.unreadable.clone()).collect();
        assert_eq!(pages.last().unwrap().progress.unreadable, 3);
        for (unreadable, (event, (_, expected))) in unreadable.iter().zip(stored[5..].iter().zip(&broken)) {
            assert_eq!(unreadable.global_position, event.global_position, "named, whoever is asked for");
            assert_eq!(unreadable.event_id, event.event_id);
            assert!(fault(&unreadable.error).starts_with(expected), "{unreadable:?}");
        }
        assert_eq!(unreadable.len(), 3);
    }
}

async fn values_that_were_erased_before_they_were_sealed_are_found<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada")]).await;
    db.append_bare("2", &[gift("ada", "eve")]).await;
    db.shred(&store, "ada").await;
    assert_eq!(positions(&found(&db, &customer_scope("ada")).await), [1]);
    let mut erasing = eventseal::maintenance::BackfillOptions::default();
    erasing.erase_shredded = true;
    assert_eq!(db.backfill(&store, &erasing).await.unwrap().erased, 1);
    let found = found(&db, &customer_scope("ada")).await;
    assert_eq!((positions(&found), places(&found[1])), (vec![1, 2], vec![("/name", true)]));
}

async fn scopes_that_cannot_be_searched_for_are_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada")]).await;
    let mut connection = db.connect().await.unwrap();
    for (scope, problem) in [
        (customer_scope("Ada"), "has no keys"),
        (KeyScope::integrity(), "belongs to eventseal itself"),
        (customer_scope(""), "InvalidText"),
    ] {
        let refused = store.events_of(db.connection(&mut connection), &scope, &EventsOfOptions::default()).await;
        let Err(error) = refused else { panic!("{scope} was searched for") };
        let text = if let Error::Keys(KeyFault::ScopeState { .. }) = error { error.to_string() } else { fault(&error) };
        assert!(text.contains(problem), "{text}");
    }
    drop(connection);
    // A scope that was shredded before it had a key has no events.
    db.shred(&store, "nobody").await;
    assert!(found(&db, &customer_scope("nobody")).await.is_empty());
}

/// Against a search of another kind: what the sealer says of each event before it is appended.
async fn what_is_found_is_what_was_sealed_for_the_scope<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let sealer = eventseal::Sealer::with_keys(db.keys().build(), schemas());
    let names = ["ada", "eve", "kim"];
    let mut expected: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    for (order, (one, other)) in names.iter().flat_map(|one| names.map(|other| (one, other))).enumerate() {
        let lines = format!(r#"{{"lines":[{{"id":"{one}","name":1}},{{"id":"{other}","name":2}},{{"id":"x"}}]}}"#);
        let events = [
            placed(one),
            gift(one, other),
            NewEvent::raw("Whole", 1, "x"),
            NewEvent::raw("Plain", 1, r#"{"note":"$seal"}"#),
            NewEvent::raw("Lines", 1, lines),
        ];
        let order = (order % 4).to_string();
        for (event, appended) in events.iter().zip(db.append(&store, &order, &events).await) {
            for scope in sealer.scopes_of(&appended.aggregate, event).unwrap() {
                let of_scope = expected.entry((scope.kind().to_owned(), scope.id().to_owned())).or_default();
                of_scope.push(appended.global_position.get());
            }
        }
    }
    assert_eq!(expected.len(), 3 + 3 + 4, "customers, friends, orders");
    for ((kind, id), expected) in expected {
        let scope = KeyScope::new(kind, id);
        assert_eq!(positions(&found(&db, &scope).await), expected, "{scope}");
    }
    let none: [KeyId; 0] = [];
    let (table, mut connection) = (B::Store::default(), db.connect().await.unwrap());
    let connection = db.connection(&mut connection);
    let mut search = EventsOf::of_keys(&table, connection, none, &EventsOfOptions::default()).await.unwrap();
    assert!(search.next(connection).await.unwrap().unwrap().events.is_empty());
    assert!(search.progress().last > GlobalPosition::START);
}
