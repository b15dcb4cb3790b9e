//! The life of a scope and of its keys.

use super::{ERASED, append, placed, read, shop, shred};
use eventseal::ExpectedVersion::Any;
use eventseal::NewEvent;
use eventseal::error::{InputFault, KeyFault};
use eventseal::keys::{ScopeAction, ScopeState};
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::{Error, EventStore, KeyScope, Keyring, Owner, Schemas, SealedStore, aggregate, event};
use support::customer_scope;

#[tokio::test]
async fn a_reopened_scope_seals_anew_and_keeps_its_old_events_redacted() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let mut tx = db.begin();
    let not_shredded = store.keys().reopen(&mut tx, &customer_scope("42"), "by mistake").await.unwrap_err();
    assert!(matches!(not_shredded, Error::Keys(KeyFault::ScopeState { .. })));
    drop(tx);
    shred(&db, &store).await;
    let mut tx = db.begin();
    let key = store.keys().reopen(&mut tx, &customer_scope("42"), "signed up again").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(key.version, 2);
    append(&db, &store, placed()).await.unwrap();
    let events = read(&db, &store).await.unwrap();
    assert_eq!(events.iter().map(|event| &event.payload[..]).collect::<Vec<_>>(), [ERASED, placed().payload()]);
    let history = store.keys().key_history(&mut db.begin(), &customer_scope("42")).await.unwrap().unwrap();
    assert_eq!((history.state, history.generation, history.active_key), (ScopeState::Live, 2, Some(key.key_id)));
    let changes: Vec<_> = history.entries.iter().map(|change| (change.action, change.reason.as_str())).collect();
    assert_eq!(changes, [(ScopeAction::Shred, "request 1"), (ScopeAction::Reopen, "signed up again")]);
    assert!(history.entries.iter().all(|change| change.actor.is_none()), "nobody said who");
    shred(&db, &store).await;
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
}

#[tokio::test]
async fn the_history_names_who_did_what() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let clerk = store.keys().acting_as("clerk 7");
    let mut tx = db.begin();
    clerk.disable(&mut tx, &customer_scope("42"), "incident 3").await.unwrap();
    clerk.enable(&mut tx, &customer_scope("42"), "it is over").await.unwrap();
    store.keys().acting_as(String::from("billing")).shred(&mut tx, &customer_scope("42"), "request 1").await.unwrap();
    clerk.reopen(&mut tx, &customer_scope("42"), "signed up again").await.unwrap();
    store.keys().disable(&mut tx, &customer_scope("42"), "nobody says").await.unwrap();
    for nobody in [String::new(), "a\0b".to_owned(), "x".repeat(1_025)] {
        let keys = store.keys().acting_as(nobody);
        let refused = [
            keys.shred(&mut tx, &customer_scope("42"), "r").await.map(drop),
            keys.reopen(&mut tx, &customer_scope("42"), "r").await.map(drop),
            keys.disable(&mut tx, &customer_scope("42"), "r").await,
            keys.enable(&mut tx, &customer_scope("42"), "r").await,
        ];
        for refused in refused {
            assert!(
                matches!(refused, Err(Error::Input(InputFault::InvalidText { what: "the actor", .. }))),
                "{refused:?}"
            );
        }
    }
    let history = store.keys().key_history(&mut tx, &customer_scope("42")).await.unwrap().unwrap();
    let actors: Vec<_> =
        history.entries.iter().map(|change| (change.action.as_str(), change.actor.as_deref())).collect();
    let clerk = Some("clerk 7");
    let expected =
        [("disable", clerk), ("enable", clerk), ("shred", Some("billing")), ("reopen", clerk), ("disable", None)];
    assert_eq!(actors, expected);
}

#[tokio::test]
async fn i4_a_disabled_scope_is_an_error_of_its_own_and_comes_back() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    let mut tx = db.begin();
    store.keys().disable(&mut tx, &customer_scope("42"), "key may have leaked").await.unwrap();
    tx.commit().unwrap();
    for result in [read(&db, &store).await.map(|_| ()), append(&db, &store, placed()).await] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Disabled { .. }) && !error.is_shredded() && !error.is_retryable(), "{error:?}");
    }
    let mut tx = db.begin();
    assert!(matches!(store.keys().rotate_data_key(&mut tx, &customer_scope("42")).await, Err(Error::Disabled { .. })));
    assert!(matches!(
        store.keys().disable(&mut tx, &customer_scope("42"), "again").await,
        Err(Error::Keys(KeyFault::ScopeState { .. }))
    ));
    store.keys().enable(&mut tx, &customer_scope("42"), "false alarm").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, placed().payload());
    let mut tx = db.begin();
    assert!(matches!(
        store.keys().enable(&mut tx, &customer_scope("42"), "twice").await,
        Err(Error::Keys(KeyFault::ScopeState { .. }))
    ));
    store.keys().disable(&mut tx, &customer_scope("42"), "again").await.unwrap();
    store.keys().shred(&mut tx, &customer_scope("42"), "a disabled scope can be shredded").await.unwrap();
    tx.commit().unwrap();
    assert_eq!(read(&db, &store).await.unwrap()[0].payload, ERASED);
}

#[tokio::test]
async fn a_rotated_data_key_leaves_old_events_readable() {
    let (db, store) = shop().await;
    append(&db, &store, placed()).await.unwrap();
    for version in 2..4 {
        let mut tx = db.begin();
        assert_eq!(store.keys().rotate_data_key(&mut tx, &customer_scope("42")).await.unwrap().version, version);
        tx.commit().unwrap();
        append(&db, &store, placed()).await.unwrap();
    }
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == placed().payload()));
    assert_eq!(shred(&db, &store).await.destroyed.len(), 3);
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
    let mut tx = db.begin();
    assert!(matches!(store.keys().rotate_data_key(&mut tx, &customer_scope("42")).await, Err(Error::Shredded { .. })));
    assert!(matches!(
        store.keys().rotate_data_key(&mut tx, &KeyScope::new("Customer", "new")).await,
        Err(Error::Keys(KeyFault::ScopeState { .. }))
    ));
    // The key that authenticates headers can be rotated too; old redactions are still verified.
    store.keys().rotate_data_key(&mut tx, &KeyScope::integrity()).await.unwrap();
    tx.commit().unwrap();
    assert!(read(&db, &store).await.unwrap().iter().all(|event| event.payload == ERASED));
}

#[tokio::test]
async fn a_scope_that_was_never_seen_can_be_shredded() {
    let (db, store) = shop().await;
    assert_eq!(shred(&db, &store).await.destroyed, []);
    assert!(append(&db, &store, placed()).await.unwrap_err().is_shredded());
}

#[tokio::test]
async fn the_integrity_key_can_not_be_destroyed_or_put_out_of_use() {
    let (db, store) = shop().await;
    let mut tx = db.begin();
    let (keys, scope) = (store.keys(), KeyScope::integrity());
    assert!(matches!(keys.shred(&mut tx, &scope, "r").await, Err(Error::Keys(KeyFault::ScopeState { .. }))));
    assert!(matches!(keys.disable(&mut tx, &scope, "r").await, Err(Error::Keys(KeyFault::ScopeState { .. }))));
    assert!(matches!(keys.reopen(&mut tx, &scope, "r").await, Err(Error::Keys(KeyFault::ScopeState { .. }))));
    let reserved = NewEvent::raw("Registered", 1, r#"{"name":"n"}"#);
    let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)]).unwrap();
    let other = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("main").unwrap(), schemas);
    let refused = other.append(&mut tx, &aggregate("$eventseal", "integrity"), Any, &[reserved]).await;
    assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{refused:?}");
}

#[tokio::test]
async fn bad_scopes_and_reasons_are_refused() {
    let (db, store) = shop().await;
    let mut tx = db.begin();
    for (kind, id, reason) in [("", "1", "r"), ("K", "", "r"), ("K", "a\0", "r"), ("K", "1", ""), ("K", "1", "a\0")] {
        let refused = store.keys().shred(&mut tx, &KeyScope::new(kind, id), reason).await;
        assert!(matches!(refused, Err(Error::Input(InputFault::InvalidText { .. }))), "{kind} {id} {reason}");
    }
}
