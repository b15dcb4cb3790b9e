//! Appends with failures of keys, of the KMS and of the inner store.

use super::{KEYRING, Shop, assert_silent, declared, good, order, placed};
use eventseal::ExpectedVersion::Any;
use eventseal::error::{EventFault, KeyFault, KmsFault};
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::{
    Error, EventStore, EventStoreExt, KeyScope, Keyring, Namespace, NewEvent, Owner, Schemas, SealedStore, event,
};
use std::sync::atomic::Ordering;

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
            assert!(
                right && error.to_string().contains(if what == "disabled" { "enable()" } else { "reopen()" }),
                "{what}: {error:?}"
            );
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
    assert!(matches!(error, Error::Kms(KmsFault::Unavailable { .. })) && error.is_retryable(), "{error:?}");
    assert_silent("KMS", &error);
    let fresh = Shop::unprepared(MemoryDb::new(Namespace::new("test").unwrap()), declared());
    let error = fresh.append(&order(), Any, &events()).await.unwrap_err();
    assert!(
        matches!(error, Error::Keys(KeyFault::NoActiveKek { .. })) && error.to_string().contains("prepare()"),
        "{error:?}"
    );
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
    assert!(read.events.iter().zip(&again).all(|(read, event)| read.payload == event.payload()));
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
    assert!(
        given[0].payload() != given[1].payload()
            && given[1].payload() != given[2].payload()
            && given[0].payload() != given[2].payload()
    );
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
    assert!(matches!(error, Error::Event { fault: EventFault::ReservedMember, .. }), "{error:?}");
    assert_silent("two layers", &error);
    shop.recorder.assert_clean("two layers");
}
