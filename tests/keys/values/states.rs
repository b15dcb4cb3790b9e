//! The states of keys, as readers of values see them: erased, disabled, withheld, missing, behind an outage.

use super::{EMAIL, exposed, open, placed, schemas, seal};
use async_trait::async_trait;
use eventseal::erasure::ShredMode;
use eventseal::error::{KmsFault, ValueFault};
use eventseal::kms::{KekContext, Kms, KmsFailure, SecretKey, WrappedKek};
use eventseal::values::{SealedValue, StoredValue};
use eventseal::{Error, Keyring, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::backend::Backend;
use support::faults::{Faulty, KmsFaults};
use support::{Deadline, KEYRING, customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    i4_only_a_shred_redacts_a_value,
    i4_an_outage_is_no_erasure_of_a_value,
    i5_a_committed_shred_holds_for_every_statement_after_it,
    i5_nothing_is_sealed_for_a_shredded_scope,
    a_withheld_value_is_redacted_until_the_schedule_is_cancelled,
    one_bad_value_does_not_fail_a_page,
}

async fn i4_only_a_shred_redacts_a_value<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let value = seal(&db, &store, "1", b"Ada").await.unwrap();
    db.append(&store, "1", &[placed("1")]).await;
    db.disable(&store, "1").await;
    let refused = open(&db, &store, "1", &value).await;
    assert!(matches!(&refused, Err(Error::Disabled { scope }) if *scope == customer_scope("1")), "{refused:?}");
    assert!(matches!(seal(&db, &store, "1", b"b").await, Err(Error::Disabled { .. })));
    db.enable(&store, "1").await;
    assert_eq!(exposed(&db, &store, "1", &value).await, b"Ada");
    assert_eq!(db.shred(&store, "1").await.destroyed.len(), 1, "one key for the events and the values of a scope");
    for process in [&store, &db.process(schemas())] {
        assert!(open(&db, process, "1", &value).await.unwrap().is_redacted());
    }
    assert!(db.read(&store, "1").await.unwrap()[0].is_redacted());
    // A reader that can't check the tag sees no redaction either.
    let foreign = db.process_with(B::Keys::default(), Keyring::generate("main").unwrap(), schemas());
    let refused = open(&db, &foreign, "1", &value).await;
    assert!(matches!(refused, Err(Error::Kms(KmsFault::Refused { .. }))), "{refused:?}");
}

/// A KMS that can be down.
struct Down(Arc<AtomicBool>);

#[async_trait]
impl KmsFaults for Down {
    fn inner(&self) -> &dyn Kms {
        &*KEYRING
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        if self.0.load(Ordering::SeqCst) {
            return Err(Error::Kms(KmsFault::Unavailable { failure: KmsFailure::Unreachable, source: "down".into() }));
        }
        KEYRING.unwrap_kek(wrapped, context).await
    }
}

async fn i4_an_outage_is_no_erasure_of_a_value<B: Backend>() {
    let db = B::make().await;
    let value = seal(&db, &db.prepared(schemas()).await, "1", b"Ada").await.unwrap();
    let down = Arc::new(AtomicBool::new(true));
    let cold = db.process_with(B::Keys::default(), Faulty(Down(Arc::clone(&down))), schemas());
    for error in [open(&db, &cold, "1", &value).await.unwrap_err(), seal(&db, &cold, "1", b"a").await.unwrap_err()] {
        assert!(error.is_retryable() && error.is_outage() && !error.is_tampered(), "{error:?}");
    }
    down.store(false, Ordering::SeqCst);
    let deadline = Deadline::of("for the recovery from an outage");
    let opened = loop {
        deadline.look_again().await;
        match open(&db, &cold, "1", &value).await {
            Ok(opened) => break opened,
            Err(error) => assert!(error.is_outage(), "{error:?}"),
        }
    };
    assert_eq!(opened.into_exposed().as_deref(), Some(&b"Ada"[..]));
}

async fn i5_a_committed_shred_holds_for_every_statement_after_it<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let other = db.process(schemas());
    let value = seal(&db, &store, "1", b"Ada").await.unwrap();
    let of_another = seal(&db, &store, "2", b"Grace").await.unwrap();
    assert_eq!(exposed(&db, &other, "1", &value).await, b"Ada", "the other process has the key cached");
    let mut transaction = db.begin().await.unwrap();
    store.keys().shred(db.tx(&mut transaction), &customer_scope("1"), "request").await.unwrap();
    let within = store.open_value(db.tx(&mut transaction), &customer_scope("1"), EMAIL, &value).await.unwrap();
    assert!(within.is_redacted(), "the transaction itself sees it");
    db.roll_back(transaction).await;
    assert_eq!(exposed(&db, &store, "1", &value).await, b"Ada", "rolled back");
    db.shred(&store, "1").await;
    for process in [&store, &other] {
        assert!(open(&db, process, "1", &value).await.unwrap().is_redacted());
        assert_eq!(exposed(&db, process, "2", &of_another).await, b"Grace", "another customer's values stay");
    }
}

async fn i5_nothing_is_sealed_for_a_shredded_scope<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let other = db.process(schemas());
    let old = seal(&db, &store, "1", b"old").await.unwrap();
    assert!(seal(&db, &other, "1", b"a").await.is_ok(), "the other process has the key cached");
    db.shred(&store, "1").await;
    db.shred(&store, "never seen").await;
    for process in [&store, &other] {
        for id in ["1", "never seen"] {
            let refused = seal(&db, process, id, b"new").await;
            assert!(refused.as_ref().is_err_and(Error::is_shredded), "{refused:?}");
        }
    }
    db.reopen(&store, "1").await;
    let new = seal(&db, &other, "1", b"new").await.unwrap();
    assert_eq!(exposed(&db, &store, "1", &new).await, b"new");
    assert!(open(&db, &store, "1", &old).await.unwrap().is_redacted(), "what was erased stays erased");
}

async fn a_withheld_value_is_redacted_until_the_schedule_is_cancelled<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let value = seal(&db, &store, "1", b"Ada").await.unwrap();
    let due = OffsetDateTime::now_utc() + Duration::from_secs(86_400);
    let mut transaction = db.begin().await.unwrap();
    let scheduled = store
        .keys()
        .schedule_shred(db.tx(&mut transaction), &customer_scope("1"), due, ShredMode::Redact, "request")
        .await;
    db.end(transaction, scheduled).await.unwrap();
    assert!(open(&db, &store, "1", &value).await.unwrap().is_redacted());
    assert!(matches!(seal(&db, &store, "1", b"b").await, Err(Error::Disabled { .. })));
    let mut transaction = db.begin().await.unwrap();
    let cancelled = store.keys().cancel(db.tx(&mut transaction), &customer_scope("1"), "withdrawn").await;
    db.end(transaction, cancelled).await.unwrap();
    assert_eq!(exposed(&db, &store, "1", &value).await, b"Ada");
}

async fn one_bad_value_does_not_fail_a_page<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let ids = ["live", "shredded", "disabled", "tampered", "lost", "another"];
    let mut values: Vec<SealedValue> = Vec::new();
    for id in ids {
        values.push(seal(&db, &store, id, id.as_bytes()).await.unwrap());
    }
    db.shred(&store, "shredded").await;
    db.disable(&store, "disabled").await;
    let mut bytes = values[3].as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    values[3] = SealedValue::from_bytes(bytes);
    values[4] = SealedValue::from_bytes(b"");
    let mut stored: Vec<_> =
        ids.iter().zip(&values).map(|(id, value)| StoredValue::new(&customer_scope(id), EMAIL, value)).collect();
    stored[5] = StoredValue::new(&customer_scope("live"), EMAIL, &values[5]);
    let mut transaction = db.begin().await.unwrap();
    let opened = store.open_values(db.tx(&mut transaction), &stored).await.unwrap();
    db.roll_back(transaction).await;
    let [live, shredded, disabled, tampered, lost, another] = &opened[..] else { panic!("not one for each") };
    assert_eq!(live.as_ref().unwrap().expose().map(Vec::as_slice), Some(&b"live"[..]));
    assert!(shredded.as_ref().unwrap().is_redacted());
    assert!(matches!(disabled, Err(Error::Disabled { .. })));
    for (value, id) in [(tampered, "tampered"), (lost, "lost"), (another, "another")] {
        let error = value.as_ref().unwrap_err();
        assert!(error.is_tampered() && error.to_string().contains("customers/email/row 7"), "{id}: {error:?}");
    }
    assert!(matches!(another, Err(Error::Value { fault: ValueFault::OtherOwner, .. })));
}
