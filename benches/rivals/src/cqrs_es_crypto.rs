//! `cqrs-es-crypto`: it seals events of the framework `cqrs-es`, which are values of `serde_json`.

use ::cqrs_es_crypto::{
    CryptoShreddingEventRepository, DecryptedPartition, EncryptedPayload, FieldCipher, InMemoryKeyStore, KeyMaterial,
    PiiCodecError, PiiEventCodec, SecretPartition,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError, ReplayStream, SerializedEvent, SerializedSnapshot};
use cqrs_es::{Aggregate, DomainEvent};
use eventseal::internals::Engine;
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{AggregateVersion, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Sealer, aggregate};
use eventseal_bench::bench::{time, way};
use eventseal_bench::fixture::{self, TYPE};
use eventseal_bench::{Bench, Measured, Report, Subject};
use futures::executor::block_on;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

pub(crate) const SUBJECT: Subject = Subject {
    name: "rivals",
    title: "Beside cqrs-es-crypto",
    about: "The same event of 1 KiB with three protected strings of one person. `cqrs-es-crypto` works on values of \
        `serde_json`, so parsing and printing belongs to what it takes to get from the stored bytes to the bytes that \
        are used, and back. The first rows are of its codec and its cipher beside our engine, with keys at hand. The \
        last rows are of its repository beside `Sealer`: a hundred events at once, all keys in memory.",
    run,
};

/// The person of the event: it wants a UUID.
const PERSON: Uuid = Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0042);
const FIELDS: [&str; 3] = ["name", "email", "address"];
const EVENTS: usize = 100;

fn run(bench: &Bench) -> Report {
    let mut rows = engines(bench).to_vec();
    rows.extend(repositories(bench));
    Report::of(rows)
}

/// Our payload, and the same one as it wants it: within an object named after the type.
fn payloads() -> (String, String) {
    let payload = fixture::order_of(&PERSON.to_string());
    let enveloped = format!("{{\"{TYPE}\":{payload}}}");
    (payload, enveloped)
}

fn engines(bench: &Bench) -> [Measured; 2] {
    let (payload, enveloped) = payloads();
    let new = NewEvent::raw(TYPE, 1, payload.clone());
    let engine = Engine::new(fixture::placed(), aggregate("Order", "ord_123"), new).unwrap();
    let sealed = engine.seal().unwrap();
    let key = FieldCipher::generate_dek();
    let theirs = seal(&key, enveloped.as_bytes());
    let opened: Value = serde_json::from_slice(&open(&key, &theirs)).unwrap();
    assert_eq!(opened, serde_json::from_str::<Value>(&enveloped).unwrap());
    let [their_seal, our_seal, their_open, our_open] = bench.compare_short(
        "engines",
        bench.pick(1, 201, 501),
        [
            &|| drop(black_box(seal(&key, black_box(enveloped.as_bytes())))),
            &|| drop(black_box(engine.seal().unwrap())),
            &|| drop(black_box(open(&key, black_box(&theirs)))),
            &|| drop(black_box(engine.open(black_box(&sealed)).unwrap())),
        ],
    );
    [
        Measured::speed("seal an event", &our_seal, "its codec and cipher", &their_seal).reach(3.0),
        Measured::speed("open an event", &our_open, "its codec and cipher", &their_open).reach(3.0),
    ]
}

fn serialized(payload: &[u8], sequence: usize) -> SerializedEvent {
    SerializedEvent {
        aggregate_id: "ord_123".to_owned(),
        sequence,
        aggregate_type: Order::TYPE.to_owned(),
        event_type: TYPE.to_owned(),
        event_version: "1".to_owned(),
        payload: serde_json::from_slice(payload).unwrap(),
        metadata: json!({}),
    }
}

/// What its repository does to an event on the way to the store, without the look-up of keys.
fn seal(key: &KeyMaterial, payload: &[u8]) -> Vec<u8> {
    let mut event = serialized(payload, 1);
    let mut sealed = Vec::new();
    for part in Codec.extract_partitions(&mut event).unwrap() {
        let bound_to = format!("{}:{}:{}:{}", event.aggregate_id, event.sequence, part.subject_id, part.label);
        let encrypted = FieldCipher::new().encrypt(key, &part.payload, bound_to.as_bytes());
        sealed.push(json!({
            "subject_id": part.subject_id.to_string(),
            "label": part.label,
            "nonce": BASE64.encode(&encrypted.nonce),
            "ciphertext": BASE64.encode(&encrypted.ciphertext),
        }));
    }
    let inner = event.payload[TYPE].as_object_mut().unwrap();
    inner.insert("subjects".to_owned(), json!([PERSON.to_string()]));
    inner.insert("encrypted_partitions".to_owned(), Value::Array(sealed));
    serde_json::to_vec(&event.payload).unwrap()
}

/// What its repository does to an event on the way from the store, without the look-up of keys.
fn open(key: &KeyMaterial, payload: &[u8]) -> Vec<u8> {
    let mut event = serialized(payload, 1);
    let inner = event.payload[TYPE].as_object_mut().unwrap();
    let Some(Value::Array(sealed)) = inner.remove("encrypted_partitions") else { panic!("it is sealed") };
    inner.remove("subjects");
    let open = |part: &Value| {
        let text = |name: &str| part[name].as_str().unwrap();
        let (subject_id, label) = (Uuid::parse_str(text("subject_id")).unwrap(), text("label").to_owned());
        let encrypted = EncryptedPayload {
            nonce: BASE64.decode(text("nonce")).unwrap(),
            ciphertext: BASE64.decode(text("ciphertext")).unwrap(),
        };
        let bound_to = format!("{}:{}:{subject_id}:{label}", event.aggregate_id, event.sequence);
        let payload = FieldCipher::new().decrypt(key, &encrypted, bound_to.as_bytes()).unwrap();
        DecryptedPartition { subject_id, label, payload }
    };
    let opened = sealed.iter().map(open).collect();
    Codec.reconstruct(&mut event, opened).unwrap();
    serde_json::to_vec(&event.payload).unwrap()
}

fn repositories(bench: &Bench) -> [Measured; 2] {
    let (payload, enveloped) = payloads();
    let repository = CryptoShreddingEventRepository::new(
        Stored::default(),
        Arc::new(InMemoryKeyStore::new()),
        FieldCipher::new(),
        Arc::new(Codec),
    );
    let write = || {
        let events: Vec<_> = (0..EVENTS).map(|sequence| serialized(enveloped.as_bytes(), sequence)).collect();
        block_on(repository.persist::<Order>(&events, None)).unwrap();
    };
    let read = || {
        let events = block_on(repository.get_events::<Order>("ord_123")).unwrap();
        let print = |event: &SerializedEvent| serde_json::to_vec(&event.payload).unwrap();
        drop(black_box(events.iter().map(print).collect::<Vec<_>>()));
    };
    write();

    let order = aggregate("Order", "ord_123");
    let db = MemoryDb::new(Namespace::new("bench").unwrap());
    let sealer = Sealer::new(MemoryKeys::new(), Keyring::generate("main").unwrap(), fixture::schemas());
    block_on(sealer.keys().prepare(&mut db.begin())).unwrap();
    let events: Vec<NewEvent> = (0..EVENTS).map(|_| NewEvent::raw(TYPE, 1, payload.clone())).collect();
    let mut tx = db.begin();
    let sealed = block_on(sealer.seal(&mut tx, &order, &events)).unwrap().into_owned();
    tx.commit().unwrap();
    let persisted =
        |event| PersistedEvent::from_new(order.clone(), AggregateVersion::FIRST, GlobalPosition::START, event);
    let stored: Vec<PersistedEvent> = sealed.into_iter().map(persisted).collect();
    let mut tx = db.begin();
    let [their_seal, our_seal, their_open, our_open] = bench.compare(
        "repositories",
        bench.pick(1, 201, 501),
        EVENTS,
        [
            way(|| time(write)),
            way(|| time(|| drop(black_box(block_on(sealer.seal(&mut tx, &order, &events)).unwrap())))),
            way(|| time(read)),
            way(|| {
                let (events, mut tx) = (stored.clone(), db.begin());
                time(|| drop(black_box(block_on(sealer.open(&mut tx, events)).unwrap())))
            }),
        ],
    );
    [
        Measured::speed("seal 100 events with Sealer", &our_seal, "its repository", &their_seal),
        Measured::speed("open 100 events with Sealer", &our_open, "its repository", &their_open),
    ]
}

/// Says what is sensitive in an event, as a user of the crate does.
struct Codec;

impl PiiEventCodec for Codec {
    fn extract_partitions(&self, event: &mut SerializedEvent) -> Result<Vec<SecretPartition>, PiiCodecError> {
        let Some(inner) = event.payload[TYPE].as_object_mut() else { return Ok(Vec::new()) };
        let secret: serde_json::Map<String, Value> =
            FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), inner.remove(*field)?))).collect();
        let payload = serde_json::to_vec(&secret)?;
        Ok(vec![SecretPartition { subject_id: PERSON, label: "default".to_owned(), payload }])
    }

    fn reconstruct(
        &self,
        event: &mut SerializedEvent,
        partitions: Vec<DecryptedPartition>,
    ) -> Result<(), PiiCodecError> {
        let Some(inner) = event.payload[TYPE].as_object_mut() else { return Ok(()) };
        for part in partitions {
            inner.extend(serde_json::from_slice::<serde_json::Map<String, Value>>(&part.payload)?);
        }
        Ok(())
    }

    fn redact_partitions(&self, event: &mut SerializedEvent, _: &[String]) -> Result<(), PiiCodecError> {
        let Some(inner) = event.payload[TYPE].as_object_mut() else { return Ok(()) };
        inner.extend(FIELDS.map(|field| (field.to_owned(), Value::Null)));
        Ok(())
    }
}

/// A store that holds what was written last as bytes, as a database does.
#[derive(Default)]
struct Stored(Mutex<Vec<Vec<u8>>>);

impl PersistedEventRepository for Stored {
    async fn get_events<A: Aggregate>(&self, _: &str) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let stored = self.0.lock().unwrap();
        Ok(stored.iter().enumerate().map(|(sequence, payload)| serialized(payload, sequence)).collect())
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        _: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        *self.0.lock().unwrap() = events.iter().map(|event| serde_json::to_vec(&event.payload).unwrap()).collect();
        Ok(())
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        id: &str,
        _: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.get_events::<A>(id).await
    }

    async fn get_snapshot<A: Aggregate>(&self, _: &str) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        Ok(None)
    }

    async fn stream_events<A: Aggregate>(&self, _: &str) -> Result<ReplayStream, PersistenceError> {
        Ok(ReplayStream::new(1).1)
    }

    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        Ok(ReplayStream::new(1).1)
    }
}

/// An aggregate that nothing here loads: the framework asks for its type.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Order;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Placed;

impl DomainEvent for Placed {
    fn event_type(&self) -> String {
        TYPE.to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Order {
    type Command = ();
    type Event = Placed;
    type Error = std::convert::Infallible;
    type Services = ();
    const TYPE: &'static str = "Order";

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _: Placed) {}
}
