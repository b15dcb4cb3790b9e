//! I2 and I9: appends that are refused, their errors, and the absence of protected values in all that gets out.
//!
//! The inner store of these tests keeps everything that it is given, also in transactions that are
//! rolled back. No canary of a protected value may ever be in it, nor in any error.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "helpers of tests")]

mod below;
mod events;
mod payloads;

use async_trait::async_trait;
use eventseal::ExpectedVersion::{Any, NoStream};
use eventseal::error::KmsFault;
use eventseal::keys::KeyHistory;
use eventseal::keys::KeyStore;
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::schema::{SchemasBuilder, StepContext};
use eventseal::{
    AggregateRef, Appended, Error, EventFilter, EventStore, ExpectedVersion, GlobalPosition, KeyScope, Keyring,
    Namespace, NewEvent, Owner, Result, Schemas, SealedStore, aggregate, event, subject,
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use support::faults::{Faulty, KeyFaults, KmsFaults, StoreFaults};
use support::sealing::holds_canary;
use support::whole;

/// A wrapped store that keeps everything that it was given, even if it was rolled back.
#[derive(Clone, Default)]
struct Recorder {
    inner: MemoryStore,
    given: Arc<Mutex<Vec<NewEvent>>>,
    fails: Arc<AtomicBool>,
}

impl Recorder {
    fn assert_clean(&self, context: &str) {
        for event in &*self.given.lock().unwrap() {
            let texts = [&event.trace_id, &event.correlation_id, &event.causation_id]
                .into_iter()
                .flatten()
                .map(String::as_bytes);
            let parts =
                [event.payload(), event.metadata.as_deref().unwrap_or_default(), event.event_type.as_str().as_bytes()];
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
        if self.budget.spend() {
            Ok(())
        } else {
            Err(Error::Database { operation: call, source: "the connection is gone".into() })
        }
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
            Err(Error::Kms(KmsFault::Unavailable {
                failure: KmsFailure::Unreachable,
                source: "no route to host".into(),
            }))
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
    async fn append(
        &self,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
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
        for (kind, id) in [
            ("Customer", "cust-1"),
            ("Customer", "cust-new"),
            ("Recipient", "rec-1"),
            ("Order", "ord-1"),
            ("Order", "ord-new"),
        ] {
            histories.push(MemoryKeys::new().history(&mut self.db.begin(), &KeyScope::new(kind, id)).await.unwrap());
        }
        histories
    }

    /// The append is refused, and there is no trace of it anywhere.
    async fn refuses(
        &self,
        what: &str,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Error {
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
        // The bad event is appended alone, after a good one, and before a good one.
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
