//! The invariants of the design, on every database: memory, SQLite and PostgreSQL. Every invariant must hold on all of
//! them. The details are tested elsewhere (`roundtrip`, `tamper`, `input`, `keys`, `schemas`).

mod lag;

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::error::KmsFault;
use eventseal::keys::KeyTable;
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::schema::SplitPart;
use eventseal::{
    Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, JsonPointer, KeyScope, Keyring, NewEvent, Owner,
    PersistedEvent, Result, Schemas, aggregate, event,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use support::Deadline;
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults, KmsFaults};
use support::sealing::CANARY;
use support::{KEYRING, customer, on_every_database, whole};

on_every_database! {
    i1_what_was_appended_is_read_byte_for_byte,
    i2_no_protected_value_reaches_the_store,
    i3_what_was_moved_is_refused,
    i4_only_a_shred_redacts,
    i5_a_committed_shred_holds_for_every_statement_after_it,
    i6_an_event_and_its_keys_are_committed_together,
    i7_upcasters_see_values_or_redactions,
    i8_a_follower_sees_everything_once,
    i9_errors_show_no_values,
    i10_a_page_costs_one_key_query,
}

fn schemas() -> Schemas {
    Schemas::new([
        event("Placed").version(1).protect(&["/name", "/lines/*/text"], customer()),
        event("Note").version(1).protect_whole(Owner::Aggregate),
        event("Counted").version(1),
    ])
    .unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"{CANARY}"}}"#))
}

async fn i1_what_was_appended_is_read_byte_for_byte<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let values = [
        "1.0",
        "-0",
        "1e400",
        "1234567890123456789012345",
        "true",
        "null",
        r#""\ud800""#,
        r#""é \u00e9 \/ \u0000""#,
        "[]",
        "{}",
        "[[[1, 2] , 3]]",
        r#"{ "a" : 1, "a" : 2 }"#,
        r#"{"":{"~/*":[]}}"#,
        r#""""#,
        "\"\u{1f600}\u{0}\"".trim_end_matches('\0'),
    ];
    let mut events = Vec::new();
    for value in values {
        if serde_json::from_str::<&serde_json::value::RawValue>(value).is_err() {
            continue;
        }
        events.push(NewEvent::raw(
            "Placed",
            1,
            format!("\t{{ \"customer\":\"7\" , \"n\\u0061me\" : {value},\"x\":{value}}}\r\n"),
        ));
        events.push(NewEvent::raw(
            "Placed",
            1,
            format!(r#"{{"lines":[{{"text":{value}}},{{}},{{"text":1}}],"customer":-7}}"#),
        ));
        events.push(NewEvent::raw("Note", 1, value));
    }
    events.push(NewEvent::raw("Note", 1, (0..=255).collect::<Vec<u8>>()));
    events.push(NewEvent::raw("Counted", 1, vec![0, 159, 146, 150]));
    assert!(events.len() > 40);
    db.append(&store, "1", &events).await;
    for process in [&store, &db.process(schemas())] {
        let read = db.read(process, "1").await.unwrap();
        assert!(
            read.iter().zip(&events).all(|(read, new)| read.payload == new.payload() && read.event_id == new.event_id)
        );
        assert_eq!(read.len(), events.len());
    }
}

async fn i2_no_protected_value_reaches_the_store<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1"), NewEvent::raw("Note", 1, CANARY), NewEvent::raw("Counted", 1, "{}")]).await;
    db.shred(&store, "2").await;
    // Each fails after a good event of the same batch, and the transaction is committed all the same.
    let bad = [
        format!(r#"{{"name":"{CANARY}"}}"#),
        format!(r#"{{"customer":[],"name":"{CANARY}"}}"#),
        format!(r#"{{"customer":"1","lines":"{CANARY}"}}"#),
        format!(r#"{{"customer":"1","name":"{CANARY}","name":"{CANARY}"}}"#),
        format!(r#"{{"$seal":"x","customer":"1","name":"{CANARY}"}}"#),
        format!(r#"{{"customer":"2","name":"{CANARY}"}}"#),
        CANARY.to_owned(),
    ];
    for payload in bad {
        let mut transaction = db.begin().await.unwrap();
        let events = [placed("1"), NewEvent::raw("Placed", 1, payload)];
        let error = store.append(db.tx(&mut transaction), &aggregate("Order", "1"), Any, &events).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "I9");
        db.commit(transaction).await.unwrap();
    }
    let stored = db.stored().await;
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|event| !String::from_utf8_lossy(&event.payload).contains(CANARY)));
}

async fn i3_what_was_moved_is_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1"), placed("1"), placed("2")]).await;
    let sealed = db.stored().await;
    let text = |event: &PersistedEvent| serde_json::from_slice::<Value>(&event.payload).unwrap();
    let with = |event: &PersistedEvent, name: &str, value: &Value| {
        let mut payload = text(event);
        payload[name] = value.clone();
        NewEvent::raw("Placed", 1, payload.to_string())
    };
    let cases = [
        ("a whole payload under another event id", NewEvent::raw("Placed", 1, sealed[0].payload.clone())),
        ("a value of another event", with(&sealed[0], "name", &text(&sealed[1])["name"]).with_id(uuid::Uuid::now_v7())),
        ("a header of another event", with(&sealed[0], "$seal", &text(&sealed[2])["$seal"])),
        ("plaintext for a sealed value", with(&sealed[0], "name", &json!("Eve"))),
        (
            "a sealed value without its header",
            NewEvent::raw("Placed", 1, json!({"customer": "1", "name": text(&sealed[0])["name"]}).to_string()),
        ),
    ];
    for (index, (what, event)) in cases.into_iter().enumerate() {
        let id = format!("moved-{index}");
        db.append(&B::Store::default(), &id, &[event]).await;
        for shredded in [false, true] {
            if shredded && index == 4 {
                db.shred(&store, "1").await;
                db.shred(&store, "2").await;
            }
            let error = db.read(&store, &id).await.unwrap_err();
            assert!(error.is_tampered(), "{what}: {error:?}");
        }
    }
    for index in 0..5 {
        assert!(db.read(&store, &format!("moved-{index}")).await.unwrap_err().is_tampered(), "not even after a shred");
    }
}

/// A KMS that can be down, counts its calls, and takes its time.
struct Flaky(Arc<AtomicBool>, Arc<AtomicUsize>, Duration);

#[async_trait]
impl KmsFaults for Flaky {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.1.fetch_add(1, Ordering::SeqCst);
        #[allow(clippy::disallowed_methods, reason = "it plays a slow KMS, and waits for nothing")]
        tokio::time::sleep(self.2).await;
        if self.0.load(Ordering::SeqCst) {
            Err(Error::Kms(KmsFault::Unavailable { failure: KmsFailure::Unreachable, source: "down".into() }))
        } else {
            KEYRING.unwrap_kek(wrapped, context).await
        }
    }
}

async fn i4_only_a_shred_redacts<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let down = Arc::new(AtomicBool::new(true));
    let cold = db.process_with(
        B::Keys::default(),
        Faulty(Flaky(Arc::clone(&down), Arc::default(), Duration::ZERO)),
        schemas(),
    );
    let error = db.read(&cold, "1").await.unwrap_err();
    assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. })) && error.is_retryable(), "{error:?}");
    assert!(db.try_append(&cold, "1", &[placed("1")]).await.unwrap_err().is_retryable());
    down.store(false, Ordering::SeqCst);
    // It recovers without a restart, when the failure is forgotten.
    let deadline = Deadline::of("for the recovery from an outage");
    let events = loop {
        deadline.look_again().await;
        match db.read(&cold, "1").await {
            Ok(events) => break events,
            Err(error) => assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. }))),
        }
    };
    assert_eq!(events[0].payload, placed("1").payload());
    let foreign = db.process_with(B::Keys::default(), Keyring::generate("main").unwrap(), schemas());
    assert!(matches!(db.read(&foreign, "1").await, Err(Error::Kms(KmsFault::Refused { .. }))));
    let scope = KeyScope::new("Customer", "1");
    let mut transaction = db.begin().await.unwrap();
    store.keys().disable(db.tx(&mut transaction), &scope, "stop").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert!(matches!(db.read(&store, "1").await, Err(Error::Disabled { .. })));
    assert!(matches!(db.try_append(&store, "1", &[placed("1")]).await, Err(Error::Disabled { .. })));
    let mut transaction = db.begin().await.unwrap();
    store.keys().enable(db.tx(&mut transaction), &scope, "go").await.unwrap();
    db.commit(transaction).await.unwrap();
    assert_eq!(db.read(&store, "1").await.unwrap()[0].payload, placed("1").payload());
    db.shred(&store, "1").await;
    let erased = db.read(&store, "1").await.unwrap().remove(0);
    assert_eq!((&*erased.payload, erased.redacted.len()), (&br#"{"customer":"1","name":null}"#[..], 1));
    // A reader that can't check the tag sees no redaction either.
    assert!(matches!(db.read(&foreign, "1").await, Err(Error::Kms(KmsFault::Refused { .. }))));
}

async fn i5_a_committed_shred_holds_for_every_statement_after_it<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let other = db.process(schemas());
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    assert_eq!(db.read(&other, "1").await.unwrap().len(), 2, "the other process has the keys cached");
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &KeyScope::new("Customer", "1"), "request").await.unwrap();
    let within = store.read_stream(db.tx(&mut transaction), &aggregate("Order", "1")).await.unwrap();
    assert!(within.events[0].is_redacted(), "the transaction itself sees it");
    drop(transaction);
    assert!(!db.read(&store, "1").await.unwrap()[0].is_redacted(), "rolled back");
    assert_eq!(db.shred(&store, "1").await.destroyed.len(), 1);
    for process in [&store, &other] {
        let read = db.read(process, "1").await.unwrap();
        assert!(read[0].is_redacted() && !String::from_utf8_lossy(&read[0].payload).contains(CANARY));
        assert_eq!(read[1].payload, placed("2").payload(), "another customer's events stay");
        assert!(db.try_append(process, "1", &[placed("1")]).await.unwrap_err().is_shredded());
    }
    let mut transaction = db.begin().await.unwrap();
    store.keys().reopen(db.tx(&mut transaction), &KeyScope::new("Customer", "1"), "came back").await.unwrap();
    db.commit(transaction).await.unwrap();
    db.append(&other, "1", &[placed("1")]).await;
    let read = db.read(&store, "1").await.unwrap();
    assert!(read[0].is_redacted() && !read[2].is_redacted(), "what was shredded stays shredded");
    assert_eq!(db.shred(&store, "stranger").await.destroyed, []);
    assert!(db.try_append(&store, "1", &[placed("stranger")]).await.unwrap_err().is_shredded());
}

async fn i6_an_event_and_its_keys_are_committed_together<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let mut transaction = db.begin().await.unwrap();
    store
        .append(db.tx(&mut transaction), &aggregate("Order", "1"), NoStream, &[placed("1"), placed("2")])
        .await
        .unwrap();
    drop(transaction);
    assert!(db.history(&store, "1").await.is_none() && db.stored().await.is_empty());
    // The key of the transaction that was rolled back is cached, and must not be used.
    db.append(&store, "1", &[placed("1"), placed("2")]).await;
    let cold = db.process(schemas());
    assert_eq!(db.read(&cold, "1").await.unwrap()[1].payload, placed("2").payload());
    assert_eq!(db.history(&store, "1").await.unwrap().keys.len(), 1);
    let mut transaction = db.begin().await.unwrap();
    let conflict =
        store.append(db.tx(&mut transaction), &aggregate("Order", "1"), NoStream, &[placed("3")]).await.unwrap_err();
    assert!(conflict.is_conflict());
    store
        .append(db.tx(&mut transaction), &aggregate("Order", "1"), Any, &[placed("3")])
        .await
        .expect("the transaction goes on");
    db.commit(transaction).await.unwrap();
    assert_eq!(db.read(&cold, "1").await.unwrap()[2].payload, placed("3").payload());
}

async fn i7_upcasters_see_values_or_redactions<B: Backend>() {
    fn seen(value: &Value) -> bool {
        value.is_null() || value == CANARY
    }
    let db = B::make().await;
    let v1 = db.prepared(Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()).await;
    db.append(&v1, "1", &[placed("1"), placed("2")]).await;
    let v2 = event("Placed")
        .version(1)
        .protect(&["/name"], customer())
        .version(2)
        .protect(&["/person/name"], customer())
        .upcast(1, |old: Value| {
            assert!(seen(&old["name"]) && old.get("$seal").is_none());
            Ok::<_, Infallible>(json!({ "customer": old["customer"], "person": { "name": old["name"] } }))
        });
    let store = db.process(Schemas::new([v2]).unwrap());
    db.shred(&v1, "1").await;
    let read = db.read(&store, "1").await.unwrap();
    assert_eq!(read[0].redacted, [JsonPointer::parse("/person/name").unwrap()]);
    assert!(read[1].redacted.is_empty() && String::from_utf8_lossy(&read[1].payload).contains(CANARY));
    assert_eq!((read[0].event_version.get(), read[0].stored_version.get()), (2, 1));
}

async fn i8_a_follower_sees_everything_once<B: Backend>() {
    let db = B::make().await;
    let written = db.prepared(schemas()).await;
    for number in 0..6 {
        let counted = NewEvent::raw("Counted", 1, format!(r#"{{"number":{number}}}"#));
        db.append(&written, &format!("{}", number % 2), &[placed("1"), counted]).await;
    }
    let number = |value: &Value| value["number"].as_u64().unwrap();
    let split_or_drop = event("Counted").version(1).version(2).split(1, &[("Counted", 2)], move |old: Value, _| {
        let parts = number(&old) % 3;
        Ok::<_, Infallible>(
            (0..parts)
                .map(|part| SplitPart::new("Counted", 2, json!({ "number": number(&old) * 10 + part })))
                .collect::<Vec<_>>(),
        )
    });
    let schemas =
        Schemas::new([event("Placed").version(1).protect(&["/name", "/lines/*/text"], customer()), split_or_drop])
            .unwrap();
    let reader = db.process(schemas);
    let mut all = Vec::new();
    for limit in [1, 2, 3, 5, 100] {
        let (mut after, mut seen) = (GlobalPosition::START, Vec::new());
        loop {
            let mut transaction = db.begin().await.unwrap();
            let page =
                reader.read_events(db.tx(&mut transaction), after, limit, &EventFilter::default()).await.unwrap();
            seen.extend(
                page.events.iter().map(|event| (event.global_position, event.part.index, event.payload.clone())),
            );
            after = page.next;
            if page.scanned < limit {
                break;
            }
        }
        assert!(seen.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)), "twice, or out of order");
        assert_eq!(seen.len(), 6 + 2 * 3, "of six counted, two have no part, two one and two two");
        all.push(seen);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

async fn i9_errors_show_no_values<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1")]).await;
    let sealed = String::from_utf8(db.stored().await.remove(0).payload).unwrap();
    db.append(&B::Store::default(), "2", &[NewEvent::raw("Placed", 1, placed("1").payload())]).await;
    db.append(&B::Store::default(), "3", &[NewEvent::raw("Placed", 1, format!("{{\"name\":\"{CANARY}"))]).await;
    db.append(
        &B::Store::default(),
        "4",
        &[NewEvent::raw("Placed", 1, sealed.replace("\"name\":\"", "\"name\":\"AAAA"))],
    )
    .await;
    for id in ["2", "3", "4"] {
        let error = db.read(&store, id).await.unwrap_err();
        let text = whole(&error);
        assert!(!text.contains(CANARY) && !text.contains("AAAA"), "{text}");
    }
    let event = db.read(&store, "1").await.unwrap().remove(0);
    assert!(!format!("{event:?} {store:?} {:?}", placed("1")).contains(CANARY));
}

/// Counts what is asked of the key table.
#[derive(Clone)]
struct Counting<Ks>(Ks, Arc<[AtomicUsize; 3]>);

impl<Ks> Counting<Ks> {
    fn count(&self, what: usize) {
        self.1[what].fetch_add(1, Ordering::SeqCst);
    }
}

impl<Ks: KeyTable> KeyFaults for Counting<Ks> {
    type Inner = Ks;

    fn inner(&self) -> &Ks {
        &self.0
    }

    fn before(&self, call: &'static str) -> Result<()> {
        match call {
            "data_keys" => self.count(0),
            "scopes" => self.count(1),
            "namespace" | "active_kek" | "keks" | "create_scopes" | "insert_keys" => self.count(2),
            _ => {}
        }
        Ok(())
    }
}

async fn i10_a_page_costs_one_key_query<B: Backend>() {
    let db = B::make().await;
    let (counts, calls) = (Arc::<[AtomicUsize; 3]>::default(), Arc::<AtomicUsize>::default());
    let keys = Faulty(Counting(B::Keys::default(), Arc::clone(&counts)));
    let store = db.process_with(keys, Faulty(Flaky(Arc::default(), Arc::clone(&calls), Duration::ZERO)), schemas());
    store.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    let events = || (0..50).map(|customer| placed(&customer.to_string())).collect::<Vec<_>>();
    db.append(&store, "1", &events()).await;
    let take = || [0, 1, 2].map(|what| counts[what].swap(0, Ordering::SeqCst));
    take();
    db.append(&store, "1", &events()).await;
    assert_eq!(take(), [0, 1, 0], "an append of 50 scopes is one locking query");
    db.append(&store, "1", &[NewEvent::raw("Counted", 1, "{}")]).await;
    assert_eq!(take(), [0, 0, 0], "what is not protected costs nothing");
    assert_eq!(db.read(&store, "1").await.unwrap().len(), 101);
    assert_eq!(take(), [1, 0, 0], "a stream of 50 keys is one query");
    assert_eq!(calls.load(Ordering::SeqCst), 1, "one call to the KMS for each key-encryption key");
}
