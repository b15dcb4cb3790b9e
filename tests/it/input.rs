//! I2 and I9: what an append refuses, how it says so, and what gets out meanwhile.
//!
//! The inner store of these tests keeps everything that it is given, also in transactions that are
//! rolled back. No canary of a protected value may ever be in it, nor in any error.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, Exact, NoStream};
use eventseal::*;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::faults::{Faulty, KeyFaults, KmsFaults, StoreFaults};
use support::sealing::{CANARY, holds_canary};
use support::whole;

// ---- a store that keeps everything, and parts that fail

/// Everything that was handed to the wrapped store, whatever became of it.
#[derive(Clone, Default)]
struct Recorder {
    inner: MemoryStore,
    given: Arc<Mutex<Vec<NewEvent>>>,
    fails: Arc<AtomicBool>,
}

impl Recorder {
    fn assert_clean(&self, context: &str) {
        for event in &*self.given.lock().unwrap() {
            let texts = [&event.trace_id, &event.correlation_id, &event.causation_id].into_iter().flatten().map(String::as_bytes);
            let parts = [&event.payload[..], event.metadata.as_deref().unwrap_or_default(), event.event_type.as_str().as_bytes()];
            for part in parts.into_iter().chain(texts) {
                assert!(!holds_canary(part), "{context}: {}", String::from_utf8_lossy(part));
            }
        }
    }
}

#[async_trait]
impl StoreFaults for Recorder {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.inner
    }

    async fn append(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        self.given.lock().unwrap().extend(events.iter().cloned());
        if self.fails.load(Ordering::Relaxed) {
            return Err(Error::Database { operation: "inserting events", source: "the disk is full".into() });
        }
        self.inner.append(tx, aggregate, expected, events).await
    }
}

/// Fails once the budget of calls is used up.
#[derive(Clone)]
struct Budget(Arc<AtomicUsize>);

impl Budget {
    fn unlimited() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

struct FailingKeys {
    inner: MemoryKeys,
    budget: Budget,
}

impl KeyFaults for FailingKeys {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.inner
    }

    fn before(&self, call: &'static str) -> Result<()> {
        if self.budget.spend() { Ok(()) } else { Err(Error::Database { operation: call, source: "the connection is gone".into() }) }
    }
}

struct FailingKms {
    inner: Keyring,
    budget: Budget,
}

impl FailingKms {
    fn call(&self) -> Result<&Keyring> {
        if self.budget.spend() {
            Ok(&self.inner)
        } else {
            Err(Error::KmsUnavailable { failure: KmsFailure::Unreachable, source: "no route to host".into() })
        }
    }
}

#[async_trait]
impl KmsFaults for FailingKms {
    fn inner(&self) -> &dyn Kms {
        &self.inner
    }

    async fn master_key_id(&self) -> Result<String> {
        self.call()?.master_key_id().await
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        self.call()?.generate_kek(context).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        self.call()?.unwrap_kek(wrapped, context).await
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        self.call()?.wrap_kek(kek, context).await
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        self.call()?.rewrap_kek(wrapped, context).await
    }
}

// ---- the shop

const KEYRING: &str = "main:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

struct Shop {
    db: MemoryDb,
    store: SealedStore<Faulty<Recorder>>,
    recorder: Recorder,
    keys: Budget,
    kms: Budget,
}

fn declared() -> SchemasBuilder {
    strict().allow_unknown_types()
}

fn strict() -> SchemasBuilder {
    Schemas::builder([
        event("Placed").version(1).protect(&["/email", "/customer/name"], subject("Customer", "/customer_id")),
        event("Gifts").version(1).protect(&["/lines/*/note"], subject("Recipient", "/lines/*/to")),
        event("Noted").version(1).protect(&["/text", "/pages/0"], Owner::Aggregate),
        event("Whole").version(1).protect_whole(Owner::Aggregate),
        event("WholeOfSubject").version(1).protect_whole(subject("Customer", "/customer_id")),
        event("Evolved")
            .version(2)
            .protect(&["/email"], Owner::Aggregate)
            .version(3)
            .protect_same_as(2)
            .upcast_with(2, |payload: serde_json::Value, _: &StepContext<'_>| Ok::<_, Infallible>(payload)),
        event("Open").version(1),
    ])
}

impl Shop {
    async fn new(schemas: SchemasBuilder) -> Self {
        Self::over(MemoryDb::new(Namespace::new("test").unwrap()), schemas).await
    }

    /// Another process on the same database, with cold caches if it is not prepared.
    fn unprepared(db: MemoryDb, schemas: SchemasBuilder) -> Self {
        let (recorder, keys, kms) = (Recorder::default(), Budget::unlimited(), Budget::unlimited());
        let store = SealedStore::new(
            Faulty(recorder.clone()),
            Faulty(FailingKeys { inner: MemoryKeys::new(), budget: keys.clone() }),
            Faulty(FailingKms { inner: Keyring::parse(KEYRING).unwrap(), budget: kms.clone() }),
            schemas.build().unwrap(),
        );
        Self { db, store, recorder, keys, kms }
    }

    async fn over(db: MemoryDb, schemas: SchemasBuilder) -> Self {
        let shop = Self::unprepared(db, schemas);
        shop.store.keys().prepare(&mut shop.db.begin()).await.unwrap();
        shop
    }

    /// Commits even after an error: what was written would show.
    async fn append(&self, aggregate: &AggregateRef, expected: ExpectedVersion, events: &[NewEvent]) -> Result<Appended> {
        let mut tx = self.db.begin();
        let result = self.store.append(&mut tx, aggregate, expected, events).await;
        tx.commit().unwrap();
        result
    }

    async fn number_of_events(&self) -> usize {
        MemoryStore::new()
            .read_events(&mut self.db.begin(), GlobalPosition::START, u32::MAX, &EventFilter::default())
            .await
            .unwrap()
            .events
            .len()
    }

    /// All that is known of every scope that these tests could touch.
    async fn histories(&self) -> Vec<Option<KeyHistory>> {
        let mut histories = Vec::new();
        for (kind, id) in
            [("Customer", "cust-1"), ("Customer", "cust-new"), ("Recipient", "rec-1"), ("Order", "ord-1"), ("Order", "ord-new")]
        {
            histories.push(MemoryKeys::new().history(&mut self.db.begin(), &KeyScope::new(kind, id)).await.unwrap());
        }
        histories
    }

    /// The append is refused, and there is no trace of it anywhere.
    async fn refuses(&self, what: &str, aggregate: &AggregateRef, expected: ExpectedVersion, events: &[NewEvent]) -> Error {
        let before = (self.number_of_events().await, self.histories().await);
        let Err(error) = self.append(aggregate, expected, events).await else { panic!("{what}: it was appended") };
        assert_eq!((self.number_of_events().await, self.histories().await), before, "{what}: something was written");
        self.recorder.assert_clean(what);
        assert_silent(what, &error);
        assert!(!error.is_retryable() && !error.is_shredded() && !error.is_tampered(), "{what}: {error:?}");
        error
    }
}

/// I9: neither the error nor anything that caused it repeats a payload.
fn assert_silent(what: &str, error: &Error) {
    let text = whole(error);
    assert!(!holds_canary(text.as_bytes()), "{what}: {text}");
}

fn order() -> AggregateRef {
    aggregate("Order", "ord-1")
}

fn placed(payload: impl Into<Vec<u8>>) -> NewEvent {
    NewEvent::raw("Placed", 1, payload)
}

fn good() -> NewEvent {
    placed(r#"{"customer_id":"cust-new","email":"c4n4ry-ada@example.org"}"#)
}

/// An event type, a payload, whether the error is the right one, and what its message must advise.
type Case = (&'static str, Vec<u8>, fn(&Error) -> bool, &'static str);

fn case(event_type: &'static str, payload: impl Into<Vec<u8>>, is: fn(&Error) -> bool, advice: &'static str) -> Case {
    (event_type, payload.into(), is, advice)
}

async fn all_are_refused(cases: Vec<Case>) {
    let shop = Shop::new(declared()).await;
    shop.append(&order(), NoStream, &[placed(r#"{"customer_id":"cust-1","email":"c4n4ry"}"#)]).await.unwrap();
    for (event_type, payload, is_right, advice) in cases {
        let what = format!("{event_type} {}", String::from_utf8_lossy(&payload[..payload.len().min(200)]));
        let bad = NewEvent::raw(event_type, 1, payload);
        let id = bad.event_id;
        // Alone, and behind and before one that could be sealed.
        for events in [vec![bad.clone()], vec![good(), bad.clone()], vec![bad.clone(), good()]] {
            let error = shop.refuses(&what, &order(), Any, &events).await;
            assert!(is_right(&error), "{what}: {error:?}");
            let message = error.to_string();
            assert!(message.contains(advice), "{what}: {message}");
            assert!(message.contains(&id.to_string()), "{what}: which event? {message}");
        }
    }
    assert_eq!(shop.recorder.given.lock().unwrap().len(), 1, "nothing bad ever reached the inner store");
}

// ---- payloads

#[tokio::test]
async fn i2_i9_what_is_no_json_is_refused() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::InvalidPayload { .. });
    let advice = "protect_whole() takes any bytes";
    let mut cases = vec![case("Placed", &b"{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\xff\"}"[..], is, advice)];
    for payload in [
        "",
        " ",
        "c4n4ry",
        "{",
        r#"{"customer_id":"cust-new","email":"c4n4ry""#,
        r#"{"customer_id":"cust-new","email":"c4n4ry"}}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry"} {}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry",}"#,
        r#"{"customer_id":"cust-new" "email":"c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":'c4n4ry'}"#,
        r#"{"customer_id":"cust-new",email:"c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":01}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":1.}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":.5}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":+1}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":1e}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":-}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":NaN}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":True}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry","n":nul}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\x41"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\u00g0"}"#,
        r#"{"customer_id":"cust-new","email":"c4n4ry\u00"#,
        r#"{"customer_id":"cust-new","email":["c4n4ry"}"#,
        r#"{"customer_id":"cust-new","email":{"c4n4ry"}}"#,
        r#"{"customer_id":"cust-new","email":{"c4n4ry":1,}}"#,
        "{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\n\"}",
        "{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\u{0}\"}",
        "\u{feff}{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\"}",
        "{\"customer_id\":\"cust-new\",\u{a0}\"email\":\"c4n4ry\"}",
        r#"{"customer_id":"cust-new","email":"c4n4ry"} // comment"#,
    ] {
        cases.push(case("Placed", payload, is, advice));
    }
    // A subject has to be read out of the whole payload.
    cases.push(case("WholeOfSubject", "c4n4ry", is, advice));
    all_are_refused(cases).await;
}

#[tokio::test]
async fn i2_i9_the_reserved_member_is_refused_in_every_type_and_spelling() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::ReservedMember { .. });
    let advice = "rename it, or look whether the payload is sealed already";
    let mut cases = Vec::new();
    for event_type in ["Placed", "Noted", "Whole", "WholeOfSubject", "Open", "Unknown"] {
        for payload in [
            r#"{"$seal":"x","customer_id":"cust-new","x":"c4n4ry"}"#,
            r#"{"customer_id":"cust-new","x":"c4n4ry","\u0024seal":null}"#,
            r#"{"customer_id":"cust-new","x":"c4n4ry" , "$s\u0065al" : 1 }"#,
            r#" {"customer_id":"cust-new","\u0024\u0073\u0065\u0061\u006c":{},"x":"c4n4ry"}"#,
            r#"{"$seal":1,"customer_id":"cust-new","x":"c4n4ry","$seal":2}"#,
            r#"{"$seal":1,"\u0024seal":2,"customer_id":"cust-new","x":"c4n4ry"}"#,
        ] {
            cases.push(case(event_type, payload, is, advice));
        }
    }
    all_are_refused(cases).await;
    // Elsewhere the name is free.
    let shop = Shop::new(declared()).await;
    for event_type in ["Open", "Unknown", "Placed", "Whole"] {
        for payload in [r#"{"a":{"$seal":1},"b":["$seal"]}"#, r#"{"$Seal":1,"seal":2,"$seal ":3,"\u0024\u0024seal":4}"#] {
            shop.append(&order(), Any, &[NewEvent::raw(event_type, 1, payload)]).await.unwrap();
            let read = shop.store.read_stream(&mut shop.db.begin(), &order()).await.unwrap();
            assert_eq!(read.events.last().unwrap().payload, payload.as_bytes());
        }
    }
}

#[tokio::test]
async fn i2_i9_members_on_protected_paths_are_written_once() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::DuplicateMember { .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","email":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","\u0065mail":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","email":null,"em\u0061il":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":{"name":"c4n4ry","name":1}}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":{"name":"c4n4ry"},"customer":null}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":null,"\u0063ustomer":{"name":"c4n4ry"}}"#),
        // Who is meant, if two are named?
        ("Placed", r#"{"customer_id":"cust-new","email":"c4n4ry","customer_id":"cust-1"}"#),
        ("Gifts", r#"{"lines":[{"to":"rec-1","note":"c4n4ry"},{"to":"rec-1","note":"c4n4ry","n\u006fte":1}]}"#),
        ("Gifts", r#"{"lines":[{"to":"rec-1","note":"c4n4ry"}],"lines":[]}"#),
    ] {
        cases.push(case(event_type, payload, is, "write it once"));
    }
    all_are_refused(cases).await;
    let shop = Shop::new(declared()).await;
    let twice = NewEvent::raw("Gifts", 1, r#"{"lines":[null,{"to":1,"note":"c4n4ry","note":1}]}"#);
    let error = shop.refuses("a place", &order(), Any, &[twice]).await;
    assert!(error.to_string().contains("/lines/1/note"), "{error}");
}

#[tokio::test]
async fn i2_i9_values_on_the_way_to_protected_places_have_the_right_shape() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::ShapeMismatch { .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"customer_id":"cust-new","customer":"Bob, c4n4ry@example.org"}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":27182818284590452353}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":true}"#),
        ("Placed", r#"{"customer_id":"cust-new","customer":[{"name":"c4n4ry"}]}"#),
        ("Placed", r#"[{"customer_id":"cust-new","email":"c4n4ry"}]"#),
        ("Placed", r#""c4n4ry""#),
        ("Placed", "27182818284590452353"),
        ("Placed", "true"),
        ("Gifts", r#"{"lines":{"to":"rec-1","note":"c4n4ry"}}"#),
        ("Gifts", r#"{"lines":"c4n4ry"}"#),
        ("Gifts", r#"{"lines":["c4n4ry"]}"#),
        ("Gifts", r#"{"lines":[[{"to":"rec-1","note":"c4n4ry"}]]}"#),
        ("Noted", r#"{"pages":"c4n4ry"}"#),
    ] {
        cases.push(case(event_type, payload, is, "correct the payload or the schema"));
    }
    all_are_refused(cases).await;
}

#[tokio::test]
async fn i2_i9_a_protected_value_needs_an_owner() {
    let missing: fn(&Error) -> bool = |error| matches!(error, Error::MissingScopeId { .. });
    let invalid: fn(&Error) -> bool = |error| matches!(error, Error::InvalidScopeId { .. });
    let mut cases = Vec::new();
    for (event_type, payload) in [
        ("Placed", r#"{"email":"c4n4ry"}"#),
        ("Placed", r#"{"customer_id":null,"email":"c4n4ry"}"#),
        ("Placed", r#"{"customer":{"customer_id":"cust-new","name":"c4n4ry"}}"#),
        ("Gifts", r#"{"lines":[{"note":"c4n4ry"}]}"#),
        ("Gifts", r#"{"lines":[{"to":null,"note":"c4n4ry"}]}"#),
        // Another element's subject is not this one's.
        ("Gifts", r#"{"lines":[{"to":"rec-1"},{"note":"c4n4ry"}]}"#),
        ("WholeOfSubject", r#"{"x":"c4n4ry"}"#),
        ("WholeOfSubject", r#"["c4n4ry"]"#),
    ] {
        cases.push(case(event_type, payload, missing, "set it, or leave the field out"));
    }
    let long = format!("\"{}\"", "i".repeat(1_025));
    for id in [
        "true",
        "false",
        "1.0",
        "1e3",
        "-0",
        "0.5",
        "1E2",
        "\"\"",
        "\"a\\u0000b\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        "[\"c4n4ry\"]",
        "{\"id\":\"c4n4ry\"}",
        &long,
    ] {
        let advice = "scope ids are non-empty strings without NUL, or integers";
        cases.push(case("Placed", format!("{{\"customer_id\":{id},\"email\":\"c4n4ry\"}}"), invalid, advice));
        cases.push(case("WholeOfSubject", format!("{{\"customer_id\":{id},\"email\":\"c4n4ry\"}}"), invalid, advice));
    }
    // What is refused as an id is not repeated either.
    cases.push(case("Placed", r#"{"customer_id":27182818284590452353.5,"email":"c4n4ry"}"#, invalid, "integers"));
    cases.push(case("Placed", format!("{{\"customer_id\":\"{}\",\"email\":1}}", CANARY.repeat(200)), invalid, "integers"));
    all_are_refused(cases).await;
    // The longest that is allowed.
    let shop = Shop::new(declared()).await;
    let longest = placed(format!("{{\"customer_id\":\"{}\",\"email\":\"c4n4ry\"}}", "i".repeat(1_024)));
    shop.append(&order(), Any, &[longest]).await.unwrap();
}

#[tokio::test]
async fn i2_i9_payloads_have_limits() {
    let is: fn(&Error) -> bool = |error| matches!(error, Error::LimitExceeded { .. });
    let advice = "make the payload smaller";
    let nested =
        |depth: usize| format!("{{\"customer_id\":\"cust-new\",\"email\":\"c4n4ry\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let inside = |depth: usize| format!("{{\"customer_id\":\"cust-new\",\"email\":{}\"c4n4ry\"{}}}", "[".repeat(depth), "]".repeat(depth));
    let notes = |count: usize| {
        let lines: Vec<String> = (0..count).map(|_| r#"{"to":"rec-1","note":"c4n4ry"}"#.to_owned()).collect();
        format!("{{\"lines\":[{}]}}", lines.join(","))
    };
    let subjects = |count: usize| {
        let lines: Vec<String> = (0..count).map(|line| format!("{{\"to\":{line},\"note\":\"c4n4ry\"}}")).collect();
        format!("{{\"lines\":[{}]}}", lines.join(","))
    };
    all_are_refused(vec![
        case("Placed", nested(128), is, advice),
        case("Placed", nested(100_000), is, advice),
        case("Placed", inside(128), is, advice),
        case("Placed", "{\"x\":".repeat(200), is, advice),
        // Too deep to be told from a sealed payload.
        case("Open", format!("{{\"$seal\":{}{}}}", "[".repeat(128), "]".repeat(128)), is, advice),
        case("Unknown", format!("{{\"\\u0024seal\":{}{}}}", "[".repeat(128), "]".repeat(128)), is, advice),
        case("Gifts", format!("{{\"lines\":[{}null]}}", "{\"note\":null},".repeat(4_097)), is, advice),
        case("Gifts", notes(4_097), is, advice),
        case("Gifts", subjects(1_025), is, advice),
    ])
    .await;
    // One less of each is no problem.
    let shop = Shop::new(declared()).await;
    for event in
        [placed(nested(127)), placed(inside(127)), NewEvent::raw("Gifts", 1, notes(4_096)), NewEvent::raw("Gifts", 1, subjects(1_024))]
    {
        let payload = event.payload.clone();
        shop.append(&order(), Any, &[event]).await.unwrap();
        let read = shop.store.read_stream(&mut shop.db.begin(), &order()).await.unwrap();
        assert!(read.events.last().unwrap().payload == payload);
    }
    shop.recorder.assert_clean("at the limits");
}

#[tokio::test]
async fn i2_i9_a_payload_of_more_than_64_mebibytes_is_refused() {
    let shop = Shop::new(declared()).await;
    for event_type in ["Placed", "Whole"] {
        let mut payload = br#"{"customer_id":"cust-new","email":"c4n4ry"}"#.to_vec();
        payload.resize((64 << 20) + 1, b' ');
        let error = shop.refuses(event_type, &order(), Any, &[NewEvent::raw(event_type, 1, payload)]).await;
        assert!(matches!(error, Error::LimitExceeded { limit, .. } if limit == 64 << 20), "{error:?}");
        assert!(error.to_string().contains("make the payload smaller"), "{error}");
    }
}

// ---- types and versions

/// Many small values that are padded to a lot would store many times what was passed.
#[tokio::test]
async fn i2_i9_padding_has_a_limit_for_the_event_as_a_whole() {
    let padded = event("Padded").version(1).protect(&["/values/*"], Owner::Aggregate).pad_to("/values/*", 65_536);
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), Schemas::new([padded]).unwrap());
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    sealer.keys().prepare(&mut db.begin()).await.unwrap();
    let values = |count: usize| NewEvent::raw("Padded", 1, format!(r#"{{"values":["{CANARY}"{}]}}"#, ",1".repeat(count - 1)));
    let mut tx = db.begin();
    let event = values(256);
    let sealed = sealer.seal(&mut tx, &order(), std::slice::from_ref(&event)).await.unwrap().into_owned().remove(0);
    let stored = PersistedEvent::from_new(order(), AggregateVersion::FIRST, GlobalPosition::START, sealed);
    assert_eq!(sealer.open(&mut tx, vec![stored]).await.unwrap()[0].payload, event.payload);
    let error = sealer.seal(&mut tx, &order(), &[values(257)]).await.unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { limit, .. } if limit == 16 << 20), "{error:?}");
    assert_silent("padding", &error);
}

#[tokio::test]
async fn i2_i9_only_declared_current_versions_are_appended() {
    let payload = r#"{"customer_id":"cust-new","email":"c4n4ry"}"#;
    let shop = Shop::new(declared()).await;
    for (event_type, version, advice) in [
        ("Placed", 2, "declare this one, or append version 1"),
        ("Evolved", 1, "declare this one, or append version 3"),
        ("Evolved", 2, "allow_older_appends()"),
        ("Evolved", 4, "versions 2 to 3 are declared"),
        ("Open", 2, "declare this one, or append version 1"),
    ] {
        let what = format!("{event_type} {version}");
        let error = shop.refuses(&what, &order(), Any, &[good(), NewEvent::raw(event_type, version, payload)]).await;
        assert!(matches!(&error, Error::UndeclaredVersion { event_version, .. } if event_version.get() == version), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
    }
    // Version 0 and those beyond the column's type don't exist at all.
    for version in [0, 1 << 31, u32::MAX] {
        for event_type in ["Placed", "Open", "Unknown"] {
            let error = shop.refuses("no version", &order(), Any, &[good(), NewEvent::raw(event_type, version, payload)]).await;
            assert!(matches!(error, Error::OutOfRange { what: "event version", value, .. } if value == i64::from(version)), "{error:?}");
            assert!(error.to_string().contains("event versions are 1 to 2147483647"), "{error}");
        }
    }
    let older = Shop::new(declared().allow_older_appends()).await;
    older.append(&order(), Any, &[NewEvent::raw("Evolved", 2, payload)]).await.unwrap();
    let error = older.refuses("undeclared", &order(), Any, &[NewEvent::raw("Evolved", 1, payload)]).await;
    assert!(matches!(error, Error::UndeclaredVersion { .. }), "{error:?}");
    older.recorder.assert_clean("an older version is sealed too");

    let shop = Shop::new(strict()).await;
    let error = shop.refuses("unknown", &order(), Any, &[good(), NewEvent::raw("Unknown", 1, payload)]).await;
    assert!(matches!(error, Error::UnknownType { .. }), "{error:?}");
    assert!(error.to_string().contains("add event(\"Unknown\") to the schemas"), "{error}");
}

/// The sealer has no store below it that would check, so it has to be safe by itself.
#[tokio::test]
async fn i2_the_sealer_alone_refuses_what_it_can_not_protect() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), declared().build().unwrap());
    sealer.keys().prepare(&mut db.begin()).await.unwrap();
    let payload = r#"{"text":"c4n4ry","email":"c4n4ry"}"#;
    for (version, exists) in [(0, false), (2, true), (u32::MAX, false)] {
        let events = [NewEvent::raw("Noted", version, payload)];
        let error = sealer.seal(&mut db.begin(), &order(), &events).await.unwrap_err();
        assert!(
            if exists { matches!(error, Error::UndeclaredVersion { .. }) } else { matches!(error, Error::OutOfRange { .. }) },
            "{error:?}"
        );
    }
    for bad in [aggregate("Order", ""), aggregate("", "ord-1"), aggregate("Order", "a\0"), aggregate("$eventseal", "integrity")] {
        let events = [NewEvent::raw("Noted", 1, payload)];
        let result = sealer.seal(&mut db.begin(), &bad, &events).await;
        assert!(matches!(result, Err(Error::InvalidText { .. })), "{bad}: {result:?}");
        assert_silent("sealer", &result.unwrap_err());
    }
}

// ---- names, ids, metadata, versions of aggregates

#[tokio::test]
async fn i2_i9_names_and_ids_are_text() {
    let shop = Shop::new(declared()).await;
    let long = "n".repeat(1_025);
    for (what, name, advice) in [("empty", "", "name it"), ("NUL", "a\0c", "remove it"), ("long", long.as_str(), "shorten it")] {
        for bad in [aggregate(name, "ord-1"), aggregate("Order", name)] {
            let error = shop.refuses(what, &bad, Any, &[good()]).await;
            assert!(matches!(&error, Error::InvalidText { what, .. } if what.starts_with("the aggregate")), "{error:?}");
            assert!(error.to_string().contains(advice), "{error}");
        }
        let error = shop.refuses(what, &order(), Any, &[good(), NewEvent::raw(name, 1, r#"{"x":"c4n4ry"}"#)]).await;
        assert!(matches!(error, Error::InvalidText { what: "the event type", .. }), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
    }
    for (what, event) in [
        ("the trace id", good().with_trace_id("a\0")),
        ("the correlation id", good().with_correlation_id("a\0")),
        ("the causation id", good().with_causation_id("a\0")),
    ] {
        let error = shop.refuses(what, &order(), Any, &[event]).await;
        assert!(matches!(error, Error::InvalidText { what: found, .. } if found == what), "{error:?}");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
    // A scope of this crate's own can't be had by naming an aggregate like it.
    let reserved = aggregate("$eventseal", "integrity");
    let error = shop.refuses("reserved", &reserved, Any, &[NewEvent::raw("Noted", 1, r#"{"text":"c4n4ry"}"#)]).await;
    assert!(matches!(error, Error::InvalidText { .. }), "{error:?}");
    assert!(error.to_string().contains("scope_kind()"), "{error}");
}

#[tokio::test]
async fn i2_i9_batches_have_events_of_different_ids_and_json_metadata() {
    let shop = Shop::new(declared()).await;
    let error = shop.refuses("empty", &order(), Any, &[]).await;
    assert!(matches!(error, Error::EmptyAppend), "{error:?}");
    assert!(error.to_string().contains("pass at least one"), "{error}");
    let first = good();
    let error = shop.refuses("twice", &order(), Any, &[first.clone(), good(), good().with_id(first.event_id)]).await;
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == first.event_id), "{error:?}");
    assert!(error.is_conflict() && error.to_string().contains("an id of its own"), "{error}");
    for metadata in ["", "c4n4ry", "{\"x\":\"c4n4ry\"", "{\"x\":\"c4n4ry\"} 1", "\u{feff}{}"] {
        let error = shop.refuses(metadata, &order(), Any, &[good(), good().with_metadata(metadata)]).await;
        assert!(matches!(error, Error::InvalidMetadata { .. }), "{error:?}");
        assert!(error.to_string().contains("pass a valid JSON document"), "{error}");
    }
    assert!(shop.recorder.given.lock().unwrap().is_empty(), "all of it is found before the inner store is asked");
}

#[tokio::test]
async fn i2_i9_a_wrong_expected_version_writes_no_event() {
    for number in [0, -1, i64::MIN] {
        let error = AggregateVersion::try_from(number).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { what: "aggregate version", value, .. } if value == number), "{error:?}");
        assert!(error.to_string().contains("ExpectedVersion::NoStream"), "{error}");
    }
    let version = |number: i64| AggregateVersion::try_from(number).unwrap();
    let shop = Shop::new(declared()).await;
    let known = placed(r#"{"customer_id":"cust-1","email":"c4n4ry"}"#);
    let again = || placed(r#"{"customer_id":"cust-1","email":"c4n4ry-again"}"#);
    shop.append(&order(), NoStream, &[known.clone(), again()]).await.unwrap();
    for expected in [NoStream, Exact(version(1)), Exact(version(3))] {
        let error = shop.refuses("wrong version", &order(), expected, &[again()]).await;
        assert!(matches!(&error, Error::VersionConflict { actual, .. } if *actual == Some(version(2))), "{error:?}");
        assert!(error.is_conflict() && error.to_string().contains("read it again and decide anew"), "{error}");
    }
    let error = shop.refuses("stored id", &order(), Any, &[again(), again().with_id(known.event_id)]).await;
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == known.event_id), "{error:?}");
    // A key that was made before the conflict showed is harmless; the event is what must not be there.
    let before = shop.number_of_events().await;
    let error = shop.append(&order(), NoStream, &[good()]).await.unwrap_err();
    assert!(error.is_conflict());
    assert_silent("conflict", &error);
    assert_eq!(shop.number_of_events().await, before);
    shop.recorder.assert_clean("conflicts");
    // And the right version still goes through.
    shop.append(&order(), Exact(version(2)), &[good()]).await.unwrap();
    shop.recorder.assert_clean("success");
}

// ---- keys and everything below

#[tokio::test]
async fn i2_i9_shredded_and_disabled_scopes_take_nothing() {
    let shop = Shop::new(declared()).await;
    let scope = KeyScope::new("Customer", "cust-1");
    let placed = || placed(r#"{"customer_id":"cust-1","email":"c4n4ry"}"#);
    shop.append(&order(), Any, &[placed()]).await.unwrap();
    let mut tx = shop.db.begin();
    shop.store.keys().disable(&mut tx, &scope, "incident 1").await.unwrap();
    tx.commit().unwrap();
    let refused = async |what: &str| {
        let before = (shop.number_of_events().await, shop.histories().await);
        for events in [vec![placed()], vec![placed(), good()], vec![good(), placed()]] {
            let error = shop.append(&order(), Any, &events).await.unwrap_err();
            assert_silent(what, &error);
            assert_eq!((shop.number_of_events().await, shop.histories().await), before, "{what}");
            let right = match what {
                "disabled" => matches!(&error, Error::Disabled { scope: found } if *found == scope),
                _ => matches!(&error, Error::Shredded { scope: found } if *found == scope) && error.is_shredded(),
            };
            assert!(right && error.to_string().contains(if what == "disabled" { "enable()" } else { "reopen()" }), "{what}: {error:?}");
        }
        shop.recorder.assert_clean(what);
    };
    refused("disabled").await;
    let mut tx = shop.db.begin();
    shop.store.keys().shred(&mut tx, &scope, "request 1").await.unwrap();
    tx.commit().unwrap();
    refused("shredded").await;
    assert_eq!(shop.recorder.given.lock().unwrap().len(), 1);
}

/// I2 and I6: whichever call fails, no plaintext and no event gets out.
#[tokio::test]
async fn i2_i6_i9_no_failure_below_lets_plaintext_out() {
    let events = || {
        vec![
            good(),
            NewEvent::raw("Gifts", 1, r#"{"lines":[{"to":"rec-1","note":"c4n4ry"},{"to":"rec-2","note":"c4n4ry"}]}"#),
            NewEvent::raw("Noted", 1, r#"{"text":"c4n4ry"}"#),
            NewEvent::raw("Whole", 1, "c4n4ry"),
        ]
    };
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    Shop::over(db.clone(), declared()).await;
    let mut failures = 0;
    for budget in 0.. {
        // A new process with cold caches, whose key table fails at the n-th call.
        let shop = Shop::unprepared(db.clone(), declared());
        shop.keys.0.store(budget, Ordering::Relaxed);
        let mut tx = db.begin();
        let result = shop.store.append(&mut tx, &order(), Any, &events()).await;
        shop.recorder.assert_clean("a failing key table");
        let Err(error) = result else { break };
        tx.rollback();
        assert_silent("a failing key table", &error);
        assert!(matches!(error, Error::Database { .. }), "{error:?}");
        assert!(shop.recorder.given.lock().unwrap().is_empty());
        failures += 1;
    }
    assert!(failures >= 5, "the key table was to fail in every place: {failures}");
    assert_eq!(Shop::unprepared(db.clone(), declared()).number_of_events().await, 0);

    // The KMS does not answer, or there is no key-encryption key yet.
    let shop = Shop::unprepared(db.clone(), declared());
    shop.kms.0.store(0, Ordering::Relaxed);
    let error = shop.append(&order(), Any, &events()).await.unwrap_err();
    assert!(matches!(error, Error::KmsUnavailable { .. }) && error.is_retryable(), "{error:?}");
    assert_silent("KMS", &error);
    let fresh = Shop::unprepared(MemoryDb::new(Namespace::new("test").unwrap()), declared());
    let error = fresh.append(&order(), Any, &events()).await.unwrap_err();
    assert!(matches!(error, Error::NoActiveKek { .. }) && error.to_string().contains("prepare()"), "{error:?}");
    for shop in [&shop, &fresh] {
        assert!(shop.recorder.given.lock().unwrap().is_empty());
        assert_eq!(shop.number_of_events().await, 0);
        assert!(shop.histories().await.iter().all(Option::is_none));
    }

    // The inner store fails: what it was given was sealed all the same.
    let shop = Shop::over(db.clone(), declared()).await;
    shop.recorder.fails.store(true, Ordering::Relaxed);
    let mut tx = db.begin();
    let error = shop.store.append(&mut tx, &order(), Any, &events()).await.unwrap_err();
    tx.rollback();
    assert!(matches!(error, Error::Database { .. }), "{error:?}");
    assert_silent("inner store", &error);
    assert_eq!(shop.recorder.given.lock().unwrap().len(), 4);
    shop.recorder.assert_clean("a failing store");

    // A repeated append is sealed anew.
    shop.recorder.fails.store(false, Ordering::Relaxed);
    let again = events();
    shop.append(&order(), Any, &again).await.unwrap();
    shop.recorder.assert_clean("a repeated append");
    let read = shop.store.read_stream(&mut db.begin(), &order()).await.unwrap();
    assert!(read.events.iter().zip(&again).all(|(read, event)| read.payload == event.payload));
}

/// The same append twice: nothing that the store sees tells that the values were equal.
#[tokio::test]
async fn i2_a_retry_is_sealed_under_fresh_salts() {
    let shop = Shop::new(declared()).await;
    let event = good();
    // The key is there already: nothing but the salt can make a difference.
    shop.append(&order(), Any, &[good()]).await.unwrap();
    shop.recorder.given.lock().unwrap().clear();
    for _ in 0..3 {
        let mut tx = shop.db.begin();
        shop.store.append(&mut tx, &order(), Any, std::slice::from_ref(&event)).await.unwrap();
        tx.rollback();
    }
    let given = shop.recorder.given.lock().unwrap();
    assert_eq!(given.len(), 3);
    assert!(given[0].payload != given[1].payload && given[1].payload != given[2].payload && given[0].payload != given[2].payload);
}

/// Sealing what is sealed already would bury one seal in another.
#[tokio::test]
async fn i2_two_layers_over_one_event_are_refused() {
    let db = MemoryDb::new(Namespace::new("test").unwrap());
    let shop = Shop::over(db.clone(), declared()).await;
    let sealed = SealedStore::new(
        shop.store,
        MemoryKeys::new(),
        Keyring::parse(KEYRING).unwrap(),
        Schemas::new([event("Placed").version(1).protect(&["/total"], Owner::Aggregate)]).unwrap(),
    );
    sealed.keys().prepare(&mut db.begin()).await.unwrap();
    let placed = placed(r#"{"customer_id":"cust-1","email":"c4n4ry","total":"c4n4ry"}"#);
    let error = sealed.append(&mut db.begin(), &order(), Any, &[placed]).await.unwrap_err();
    assert!(matches!(error, Error::ReservedMember { .. }), "{error:?}");
    assert_silent("two layers", &error);
    shop.recorder.assert_clean("two layers");
}
