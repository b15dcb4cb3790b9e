//! Values that are sealed outside of events, on every database: what holds for payloads (I1 to I10) holds for them.

mod races;
mod rows;
mod states;
mod tamper;

use async_trait::async_trait;
use eventseal::error::{InputFault, ValueFault};
use eventseal::keys::{KeyTable, RewrapOptions};
use eventseal::values::{NewValue, SealedValue, StoredValue, ValueContext};
use eventseal::{
    Error, KeyScope, Keyring, NewEvent, Normalize, Owner, Result, Schemas, SealedStore, Sensitive, event, subject,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults};
use support::sealing::CANARY;
use support::{KEYRING, contains, customer, customer_scope, on_every_database, whole};

on_every_database! {
    i1_a_value_opens_to_its_bytes,
    i2_no_value_is_in_what_is_stored,
    i6_a_value_and_its_key_are_committed_together,
    i9_errors_show_no_values,
    i10_a_page_costs_one_key_query,
    i11_values_stay_readable_through_rotations,
    values_of_every_spelling_belong_to_one_scope,
    what_can_not_be_sealed_is_refused,
}

const EMAIL: [&str; 3] = ["customers", "email", "row 7"];

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"{CANARY}"}}"#))
}

/// Seals a value of a customer in a transaction of its own.
async fn seal<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str, value: &[u8]) -> Result<SealedValue> {
    let mut transaction = db.begin().await?;
    let sealed = store.seal_value(db.tx(&mut transaction), &customer_scope(id), EMAIL, value).await;
    db.end(transaction, sealed).await
}

/// What a reader sees of a value of a customer.
async fn open<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    id: &str,
    value: &SealedValue,
) -> Result<Sensitive<Vec<u8>>> {
    let mut transaction = db.begin().await?;
    let opened = store.open_value(db.tx(&mut transaction), &customer_scope(id), EMAIL, value).await;
    db.roll_back(transaction).await;
    opened
}

/// The value of a customer, which must be there.
async fn exposed<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str, value: &SealedValue) -> Vec<u8> {
    open(db, store, id, value).await.unwrap().into_exposed().expect("it is redacted")
}

async fn i1_a_value_opens_to_its_bytes<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let mut values: Vec<Vec<u8>> = [0, 1, 31, 32, 33, 1_000].map(|length| vec![0x80; length]).to_vec();
    values.extend([b"ada@example.org".to_vec(), (0..=255).collect(), vec![0; 64], vec![7; 100_000]]);
    let new: Vec<NewValue<'_>> =
        values.iter().map(|value| NewValue::new(&customer_scope("1"), EMAIL, value).pad_to(96)).collect();
    let mut transaction = db.begin().await.unwrap();
    let padded = store.seal_values(db.tx(&mut transaction), &new).await.unwrap();
    db.commit(transaction).await.unwrap();
    let other = db.process(schemas());
    for (value, padded) in values.iter().zip(padded) {
        assert_eq!((padded.as_bytes().len() - 125) % 96, 0);
        let sealed = seal(&db, &store, "1", value).await.unwrap();
        assert_eq!(sealed.as_bytes().len(), 109 + (value.len() + 1).next_multiple_of(32) + 16);
        assert_ne!(sealed, seal(&db, &store, "1", value).await.unwrap(), "two seals of one value look alike");
        for sealed in [&sealed, &padded, &sealed.to_string().parse().unwrap()] {
            assert_eq!(exposed(&db, &store, "1", sealed).await, *value);
            assert_eq!(exposed(&db, &other, "1", sealed).await, *value, "another process");
        }
    }
    let mut transaction = db.begin().await.unwrap();
    assert!(store.seal_values(db.tx(&mut transaction), &[]).await.unwrap().is_empty());
    assert!(store.open_values(db.tx(&mut transaction), &[]).await.unwrap().is_empty());
}

async fn i2_no_value_is_in_what_is_stored<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let value = CANARY.repeat(30);
    let sealed = seal(&db, &store, "1", value.as_bytes()).await.unwrap();
    assert!(!contains(sealed.as_bytes(), CANARY) && !contains(sealed.as_bytes(), "customers"));
    assert!(!format!("{sealed:?} {store:?}").contains(CANARY));
    let new = NewValue::new(&customer_scope("1"), EMAIL, &value);
    assert!(!format!("{new:?}").contains(CANARY), "I9: {new:?}");
    assert!(!format!("{:?}", open(&db, &store, "1", &sealed).await.unwrap()).contains(CANARY), "I9");
}

async fn i6_a_value_and_its_key_are_committed_together<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let mut transaction = db.begin().await.unwrap();
    let sealed = store.seal_value(db.tx(&mut transaction), &customer_scope("1"), EMAIL, "a").await.unwrap();
    let within = store.open_value(db.tx(&mut transaction), &customer_scope("1"), EMAIL, &sealed).await.unwrap();
    assert_eq!(within.into_exposed().as_deref(), Some(&b"a"[..]), "its own transaction sees the new key");
    db.roll_back(transaction).await;
    let error = open(&db, &store, "1", &sealed).await.unwrap_err();
    assert!(
        matches!(error, Error::Value { fault: ValueFault::MissingKey { .. }, .. }),
        "a value that was kept though its transaction was rolled back is a loss, and no erasure: {error:?}"
    );
    assert!(!error.is_tampered() && !error.is_shredded());
}

async fn i9_errors_show_no_values<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let sealed = seal(&db, &store, "1", CANARY.as_bytes()).await.unwrap();
    let stored = SealedValue::from_bytes(CANARY.repeat(40));
    let mut errors = vec![
        open(&db, &store, "1", &stored).await.unwrap_err(),
        open(&db, &store, "2", &sealed).await.unwrap_err(),
        format!("{CANARY}!").parse::<SealedValue>().unwrap_err(),
    ];
    db.shred(&store, "1").await;
    errors.push(seal(&db, &store, "1", CANARY.as_bytes()).await.unwrap_err());
    for error in errors {
        assert!(!whole(&error).contains(CANARY), "{error:?}");
    }
    let error = serde_json::from_str::<SealedValue>(&format!(r#""{CANARY}!""#)).unwrap_err();
    assert!(!error.to_string().contains(CANARY), "{error}");
}

/// Counts the queries for data keys and for scopes, and the others.
struct Counting<K>(K, Arc<[AtomicUsize; 3]>);

#[async_trait]
impl<K: KeyTable> KeyFaults for Counting<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.0
    }

    fn before(&self, call: &'static str) -> Result<()> {
        let what = match call {
            "data_keys" => 0,
            "scopes" => 1,
            "namespace" | "active_kek" | "keks" | "create_scopes" | "insert_keys" => 2,
            _ => return Ok(()),
        };
        self.1[what].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn i10_a_page_costs_one_key_query<B: Backend>() {
    let db = B::make().await;
    let counts = Arc::<[AtomicUsize; 3]>::default();
    let keys = Faulty(Counting(B::Keys::default(), Arc::clone(&counts)));
    let store = db.process_with(keys, Arc::clone(&KEYRING), schemas());
    db.prepare(&store).await;
    let ids: Vec<String> = (0..50).map(|id| id.to_string()).collect();
    let context = |id: &String| ["customers".to_owned(), "email".to_owned(), id.clone()];
    let new: Vec<_> = ids.iter().map(|id| NewValue::new(&customer_scope(id), context(id), id)).collect();
    let take = || [0, 1, 2].map(|what| counts[what].swap(0, Ordering::SeqCst));
    let mut transaction = db.begin().await.unwrap();
    store.seal_values(db.tx(&mut transaction), &new).await.unwrap();
    take();
    let sealed = store.seal_values(db.tx(&mut transaction), &new).await.unwrap();
    assert_eq!(take(), [0, 1, 0], "50 values of 50 scopes are one locking query");
    db.commit(transaction).await.unwrap();
    let stored: Vec<_> = ids
        .iter()
        .zip(&sealed)
        .map(|(id, sealed)| StoredValue::new(&customer_scope(id), context(id), sealed))
        .collect();
    let mut transaction = db.begin().await.unwrap();
    let opened = store.open_values(db.tx(&mut transaction), &stored).await.unwrap();
    assert_eq!(take(), [1, 0, 0], "a page of 50 values is one query");
    for (id, opened) in ids.iter().zip(opened) {
        assert_eq!(opened.unwrap().into_exposed().unwrap(), id.as_bytes(), "in the order of the page");
    }
    let malformed = SealedValue::from_bytes([1]);
    let malformed = [StoredValue::new(&customer_scope("1"), EMAIL, &malformed)];
    assert!(store.open_values(db.tx(&mut transaction), &malformed).await.unwrap()[0].is_err());
    assert_eq!(take(), [0, 0, 0], "what names no keys asks for none");
}

async fn i11_values_stay_readable_through_rotations<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let before = seal(&db, &store, "1", b"before").await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("1")).await.unwrap();
    db.commit(transaction).await.unwrap();
    let after = seal(&db, &store, "1", b"after").await.unwrap();
    let mut connection = db.connect().await.unwrap();
    let old = store.keys().kek_usage(db.connection(&mut connection)).await.unwrap().remove(0).kek;
    store.keys().rotate_kek(db.connection(&mut connection), "default").await.unwrap();
    let options = RewrapOptions::default();
    store.keys().rewrap(db.connection(&mut connection), &options, &mut |_| {}).await.unwrap();
    store.keys().retire_kek(db.connection(&mut connection), old.kek_id).await.unwrap();
    drop(connection);
    for process in [&store, &db.process(schemas())] {
        assert_eq!(exposed(&db, process, "1", &before).await, b"before");
        assert_eq!(exposed(&db, process, "1", &after).await, b"after");
    }
    db.shred(&store, "1").await;
    for value in [&before, &after] {
        assert!(open(&db, &store, "1", value).await.unwrap().is_redacted(), "a shred destroys all versions");
    }
}

/// Whatever spelling of its id a caller uses, a value is sealed under the key that a shred of the subject destroys.
async fn values_of_every_spelling_belong_to_one_scope<B: Backend>() {
    let db = B::make().await;
    let plain = db.prepared(schemas()).await;
    let before = seal(&db, &plain, "ADA", b"before").await.unwrap();
    let customer = subject("Customer", "/customer").normalize(Normalize::LowerCase);
    let normalizing = Schemas::new([event("Placed").version(1).protect(&["/name"], customer)]).unwrap();
    let store = db.process(normalizing);
    let mut values = Vec::new();
    for spelled in ["ada", "Ada", "ADA"] {
        values.push(seal(&db, &store, spelled, b"Ada").await.unwrap());
    }
    for (value, spelled) in values.iter().zip(["ADA", "ada", "Ada"]) {
        assert_eq!(exposed(&db, &store, spelled, value).await, b"Ada");
    }
    assert_eq!(exposed(&db, &store, "ada", &before).await, b"before", "from before ids were normalized");
    assert!(matches!(open(&db, &plain, "ada", &before).await, Err(Error::Value { fault: ValueFault::OtherOwner, .. })));
    db.shred(&store, "ada").await;
    for value in &values {
        assert!(open(&db, &store, "ADA", value).await.unwrap().is_redacted());
    }
}

async fn what_can_not_be_sealed_is_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let scope = customer_scope("1");
    let mut transaction = db.begin().await.unwrap();
    let tx = db.tx(&mut transaction);
    let good = NewValue::new(&scope, EMAIL, "a");
    let large = vec![0; (64 << 20) + 1];
    for (value, fault) in [
        (NewValue::new(&scope, ValueContext::new(Vec::<String>::new()), "a"), "InvalidContext"),
        (NewValue::new(&scope, ["i"; 17], "a"), "InvalidContext"),
        (NewValue::new(&scope, ["a", ""], "a"), "InvalidText"),
        (NewValue::new(&scope, ["a\0"], "a"), "InvalidText"),
        (NewValue::new(&scope, ["a".repeat(1_025)], "a"), "InvalidText"),
        (NewValue::new(&scope, EMAIL, "a").pad_to(0), "InvalidPadding"),
        (NewValue::new(&scope, EMAIL, "a").pad_to(33), "InvalidPadding"),
        (NewValue::new(&scope, EMAIL, "a").pad_to(65_568), "InvalidPadding"),
        (NewValue::new(&scope, EMAIL, &large), "LimitExceeded"),
        (NewValue::new(&KeyScope::new("customer", "1"), EMAIL, "a"), "SimilarKind"),
        (NewValue::new(&KeyScope::new("$eventseal", "integrity"), EMAIL, "a"), "InvalidText"),
        (NewValue::new(&KeyScope::new("Customer", ""), EMAIL, "a"), "InvalidText"),
    ] {
        let error = store.seal_values(tx, &[good.clone(), value]).await.unwrap_err();
        assert!(support::fault(&error).starts_with(fault), "{error:?}");
    }
    let sealed = store.seal_value(tx, &scope, EMAIL, "a").await.unwrap();
    for scope in [KeyScope::integrity(), KeyScope::new("Customer", "")] {
        let refused = store.open_value(tx, &scope, EMAIL, &sealed).await;
        assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
    }
    let refused = store.open_value(tx, &scope, ["i"; 17], &sealed).await;
    assert!(matches!(refused, Err(Error::Value { fault: ValueFault::InvalidContext { .. }, .. })), "{refused:?}");
    db.roll_back(transaction).await;
    let unprepared = db.process_with(B::Keys::default(), Keyring::generate("other").unwrap(), schemas());
    let error = seal(&db, &unprepared, "9", b"a").await.unwrap_err();
    assert!(matches!(error, Error::Kms(_)), "a KMS that opens nothing seals nothing: {error:?}");
    let schemas = Schemas::new([event("Placed").version(1).protect(&["/name"], Owner::Aggregate)]).unwrap();
    let sealed = seal(&db, &db.process(schemas), "9", b"a").await;
    assert!(sealed.is_ok(), "a kind need not be one of the schemas: {sealed:?}");
}
