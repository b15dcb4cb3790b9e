//! Stand-ins that a named function computes from what is stored in the clear: the same on every way to an erased event.

use super::IP;
use super::stand_in_guards::{Address, Log, Registered};
use eventseal::maintenance::{BackfillOptions, RewriteOptions};
use eventseal::schema::{EventSchema, InTheClear};
use eventseal::{
    Changes, KeyScope, NewEvent, Owner, PersistedEvent, Schemas, SealedStore, Sealer, Sensitive, event, metadata,
};
use serde_json::{Value, json};
use std::sync::Arc;
use support::backend::Backend;
use support::world::{json_of, pointers};
use support::{KEYRING, customer, on_every_database};

on_every_database! {
    i4_a_function_sees_what_is_in_the_clear_and_nothing_else,
    i5_a_stand_in_is_the_same_after_a_step_and_after_a_rewrite,
    i5_a_stand_in_is_the_same_after_an_erasing_backfill,
    i4_an_event_whose_stand_in_cannot_be_computed_stays_readable,
    i4_a_stand_in_that_looks_like_a_value_decodes_as_redacted,
}

/// All that a function sees, so that the stand-in shows it.
fn all(event: &InTheClear<'_>) -> Value {
    json!({ "of": event.aggregate().aggregate_id(), "metadata": event.metadata(), "payload": event.payload() })
}

fn registered() -> EventSchema {
    event("Registered")
        .version(1)
        .protect(&["/name", "/lines/*/text"], customer())
        .redact_with("/name", "all-v1", all)
        .redact_with("/lines/*/text", "count-v1", |event| event.payload()["lines"].as_array().map(Vec::len).into())
        .protect(&["/note"], Owner::Aggregate)
        .protect_metadata(&["/ip"], metadata("Customer", "/actor"))
        .redact_metadata_with("/ip", "all-v1", all)
}

fn accepting(event: EventSchema) -> Schemas {
    Schemas::builder([event]).accept_plaintext("Registered").allow_older_appends().build().unwrap()
}

const PAYLOAD: &str = r#"{"customer":"1","name":"Ada","n":2,"lines":[{"text":"Ada"},{"text":"Ada","n":1},{}],
    "note":"Ada of the order","extra":{"secret":"Ada"}}"#;

fn ada() -> NewEvent {
    let metadata = json!({ "actor": "eve", "ip": IP, "trace": { "secret": "Ada" } }).to_string();
    NewEvent::raw("Registered", 1, PAYLOAD).with_metadata(metadata)
}

/// What the function sees of this event.
fn clear() -> Value {
    json!({
        "of": "1",
        "metadata": { "actor": "eve", "trace": { "secret": "Ada" } },
        "payload": { "customer": "1", "n": 2, "lines": [{}, { "n": 1 }, {}], "extra": { "secret": "Ada" } },
    })
}

fn text(event: &PersistedEvent) -> String {
    String::from_utf8(event.payload.clone()).unwrap()
}

fn metadata_of(event: &PersistedEvent) -> Value {
    serde_json::from_slice(event.metadata.as_ref().unwrap()).unwrap()
}

/// The payload and the metadata as readers see them, with the redacted places.
fn seen(events: &[PersistedEvent]) -> Vec<(Value, Value, Vec<&str>)> {
    let places = |event| {
        let mut places = pointers(event);
        places.sort_unstable();
        places
    };
    events.iter().map(|event| (json_of(event), metadata_of(event), places(event))).collect()
}

async fn i4_a_function_sees_what_is_in_the_clear_and_nothing_else<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(Schemas::new([registered()]).unwrap()).await;
    // An earlier schema protected more. Neither the values nor their ciphertexts are seen.
    let more = registered().protect(&["/extra/secret"], Owner::Aggregate);
    let more = more.protect_metadata(&["/trace/secret"], Owner::Aggregate);
    db.append(&store, "1", &[ada()]).await;
    db.append(&db.process(Schemas::new([more]).unwrap()), "1", &[ada()]).await;
    let live = db.read(&store, "1").await.unwrap();
    assert_eq!(live[1].payload, PAYLOAD.as_bytes(), "I1");
    db.shred(&store, "1").await;
    let mut sealed = clear();
    sealed["payload"]["extra"] = json!({});
    sealed["metadata"]["trace"] = json!({});
    let read = db.read(&store, "1").await.unwrap();
    for (event, clear) in read.iter().zip([&clear(), &sealed]) {
        let payload = json_of(event);
        assert_eq!(payload["name"], *clear);
        assert_eq!(payload["lines"], json!([{ "text": 3 }, { "text": 3, "n": 1 }, {}]));
        assert_eq!((&payload["note"], &payload["extra"]), (&json!("Ada of the order"), &json!({ "secret": "Ada" })));
        assert_eq!(pointers(event), ["/name", "/lines/0/text", "/lines/1/text"]);
        assert_eq!(metadata_of(event)["ip"], IP, "the actor's keys are live");
    }
    // Whatever else is erased, the stand-in does not change.
    db.shred(&store, "eve").await;
    let mut transaction = db.begin().await.unwrap();
    let order = KeyScope::new("Order", "1");
    store.keys().shred(db.tx(&mut transaction), &order, "request").await.unwrap();
    db.commit(transaction).await.unwrap();
    let read = db.read(&store, "1").await.unwrap();
    for (event, clear) in read.iter().zip([&clear(), &sealed]) {
        assert_eq!(json_of(event)["name"], *clear);
        assert_eq!((json_of(event)["note"].is_null(), &metadata_of(event)["ip"]), (true, clear));
    }
}

/// A step moves the name, and another one makes metadata anew. What is in the clear changes with them.
fn moved() -> EventSchema {
    let moves = Changes::new().move_value("/name", "/person/name").move_value("/n", "/person/n");
    registered()
        .version(2)
        .protect(&["/person/name", "/lines/*/text"], customer())
        .redact_with("/person/name", "all-v2", all)
        .protect(&["/note"], Owner::Aggregate)
        .redact_as("/note", "gone")
        .protect_metadata(&["/ip"], metadata("Customer", "/actor"))
        .redact_metadata_with("/ip", "all-v1", all)
        .change(1, moves)
}

async fn i5_a_stand_in_is_the_same_after_a_step_and_after_a_rewrite<B: Backend>() {
    let db = B::make().await;
    let first = db.prepared(accepting(registered())).await;
    let named = NewEvent::raw("Registered", 1, PAYLOAD.replace(r#""1""#, r#""2""#));
    db.append(&first, "1", &[ada(), named.with_metadata(ada().metadata.unwrap())]).await;
    db.shred(&first, "1").await;
    let store = db.process(accepting(moved()));
    let mut expected = clear();
    expected["payload"].as_object_mut().unwrap().remove("n");
    expected["payload"]["person"] = json!({ "n": 2 });
    let read = db.read(&store, "1").await.unwrap();
    assert_eq!(json_of(&read[0])["person"], json!({ "name": expected, "n": 2 }));
    assert_eq!(json_of(&read[1])["person"], json!({ "name": "Ada", "n": 2 }));
    let copy = B::make().await;
    assert_eq!(rewritten(&db, &store, &copy).await, (2, 1));
    let sealer = Sealer::new(B::Keys::default(), Arc::clone(&KEYRING), accepting(moved()));
    let stored = copy.stored().await;
    assert!(stored.iter().all(|event| event.stored_version.get() == 2));
    let mut transaction = db.begin().await.unwrap();
    let copied = sealer.open(db.tx(&mut transaction), stored).await.unwrap();
    db.roll_back(transaction).await;
    assert_eq!(seen(&copied), seen(&read), "the copy reads the same");
}

/// How many events were written anew, and how many of these with voids.
async fn rewritten<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: &B) -> (u64, u64) {
    let mut connections = (db.connect().await.unwrap(), copy.connect().await.unwrap());
    let (from, to) = (db.connection(&mut connections.0), copy.connection(&mut connections.1));
    let options = RewriteOptions::default();
    let done = store.rewrite(from, &B::Store::default(), to, &options, &mut |_| {}).await.unwrap();
    assert!(done.kept.is_empty(), "{done:?}");
    (done.rewritten, done.with_voids)
}

async fn i5_a_stand_in_is_the_same_after_an_erasing_backfill<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(accepting(registered())).await;
    db.append(&store, "1", &[ada()]).await;
    db.shred(&store, "1").await;
    db.shred(&store, "eve").await;
    db.append_bare("1", &[ada()]).await;
    let mut options = BackfillOptions::default();
    options.erase_shredded = true;
    let done = db.backfill(&store, &options).await.unwrap();
    assert_eq!((done.sealed, done.erased, done.skipped), (1, 1, 0), "{done:?}");
    let read = db.read(&store, "1").await.unwrap();
    let all = seen(&read);
    assert_eq!(all[0], all[1]);
    assert_eq!((&all[0].0["name"], &all[0].1["ip"]), (&clear(), &clear()));
}

async fn i4_an_event_whose_stand_in_cannot_be_computed_stays_readable<B: Backend>() {
    let ten = |event: &InTheClear<'_>| event.payload()["n"].as_u64().map(|n| 10 / n).into();
    let odd = || event("Registered").version(1).protect(&["/name"], customer()).redact_with("/name", "ten-v1", ten);
    let next = odd().version(2).protect_same_as(1).change(1, Changes::new().set_default("/c", 1));
    let db = B::make().await;
    let store = db.prepared(Schemas::new([odd()]).unwrap()).await;
    let with = |n: &str| NewEvent::raw("Registered", 1, format!(r#"{{"customer":"1","name":"Ada","n":{n}}}"#));
    db.append(&store, "1", &[with("2"), with("0"), with("1e400")]).await;
    db.shred(&store, "1").await;
    for (store, more) in [(store, ""), (db.process(Schemas::new([next]).unwrap()), r#","c":1"#)] {
        let log = Log::default();
        let read = {
            let _guard = log.listen();
            db.read(&store, "1").await.unwrap()
        };
        let expected = [("2", "5"), ("0", "null"), ("1e400", "null")];
        let expected = expected.map(|(n, name)| format!(r#"{{"customer":"1","name":{name},"n":{n}{more}}}"#));
        assert_eq!(read.iter().map(text).collect::<Vec<_>>(), expected);
        assert!(read.iter().all(|event| pointers(event) == ["/name"]));
        let logged = log.text();
        assert!(logged.contains("panicked") && logged.contains("serde_json") && logged.contains("ten-v1"), "{logged}");
        assert!(!logged.contains("Ada"), "I9: {logged}");
    }
}

async fn i4_a_stand_in_that_looks_like_a_value_decodes_as_redacted<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(Schemas::of::<Registered>().build().unwrap()).await;
    let event = |customer: &str| {
        let sensitive = |text: &str| Sensitive::Present(text.to_owned());
        let address = Address { street: sensitive("a street") };
        let (name, note) = (sensitive("Customer 7"), sensitive("gone"));
        NewEvent::of(&Registered { customer: customer.to_owned(), name, note, address, n: 7 }).unwrap()
    };
    db.append(&store, "1", &[event("1"), event("2")]).await;
    db.shred(&store, "1").await;
    let read = db.read(&store, "1").await.unwrap();
    let decoded: Vec<Registered> = read.iter().map(|event| event.decode().unwrap()).collect();
    assert_eq!(text(&read[0]).replace(r#""1""#, r#""2""#), text(&read[1]), "they look the same");
    for (registered, is_redacted) in decoded.iter().zip([true, false]) {
        let values = [&registered.name, &registered.note, &registered.address.street];
        assert_eq!(values.map(|value| *value == Sensitive::Redacted), [is_redacted; 3]);
    }
}
