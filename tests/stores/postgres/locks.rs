//! Locks, isolation levels and time-outs.

use super::{append, has_done, pid, placed, store, waits, with_keys};
use eventseal::ExpectedVersion::Any;
use eventseal::error::KeyFault;
use eventseal::keys::KeyStore;
use eventseal::keys::{RewrapOptions, ScopeLock};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, EventStore, EventStoreExt, KeyScope, aggregate};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use std::time::Duration;
use support::Postgres;
use support::customer_scope;

#[tokio::test]
async fn i5_what_a_transaction_sees_of_a_shred_depends_on_its_isolation_level_but_never_what_it_may_append() {
    for (level, sees_it) in [("READ COMMITTED", true), ("REPEATABLE READ", false), ("SERIALIZABLE", false)] {
        let db = Postgres::new().await;
        let store = store(&db).await;
        append(&db, &store, "1", placed("42")).await.unwrap();
        let mut open = db.pool.begin_with(AssertSqlSafe(format!("BEGIN ISOLATION LEVEL {level}"))).await.unwrap();
        let before = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
        assert_eq!(before.events[0].payload, placed("42").payload());
        let mut tx = db.pool.begin().await.unwrap();
        store.keys().shred(&mut tx, &customer_scope("42"), "request").await.unwrap();
        tx.commit().await.unwrap();
        let after = store.read_stream(&mut open, &aggregate("Order", "1")).await.unwrap();
        assert_eq!(after.events[0].is_redacted(), sees_it, "{level}");
        let refused = store.append(&mut open, &aggregate("Order", "2"), Any, &[placed("42")]).await.unwrap_err();
        assert_eq!((refused.is_shredded(), refused.is_retryable()), (sees_it, !sees_it), "{level}: {refused:?}");
        drop(open);
        let mut connection = db.pool.acquire().await.unwrap();
        assert!(store.read_stream(&mut connection, &aggregate("Order", "1")).await.unwrap().events[0].is_redacted());
    }
}

/// The statement that locks a scope sees its row as another transaction has just committed it, but not yet the key
/// that this one made.
#[tokio::test]
async fn i5_an_append_that_waited_for_a_rotation_uses_the_new_key() {
    let db = Arc::new(Postgres::new().await);
    let store = store(&db).await;
    append(&db, &store, "1", placed("42")).await.unwrap();
    let mut rotating = db.pool.begin().await.unwrap();
    let rotated = store.keys().rotate_data_key(&mut rotating, &customer_scope("42")).await.unwrap();
    let waiting = tokio::spawn({
        let db = Arc::clone(&db);
        async move {
            let mut tx = db.pool.begin().await.unwrap();
            PostgresKeys::new().scopes(&mut tx, &[customer_scope("42")], ScopeLock::Share).await.unwrap().remove(0)
        }
    });
    waits(&db).await;
    rotating.commit().await.unwrap();
    let record = waiting.await.unwrap();
    assert_eq!((record.last_version, record.active.map(|key| key.key_id)), (Some(2), Some(rotated.key_id)));
}

#[tokio::test]
async fn i5_a_scope_that_appears_between_lock_and_look_is_locked_too() {
    let (db, keys) = (Postgres::new().await, PostgresKeys::new());
    let scope = [customer_scope("42")];
    let mut locking = db.pool.begin().await.unwrap();
    // Its look at the keys waits for this lock. What locks the scopes reads no keys.
    let mut blocking = db.pool.begin().await.unwrap();
    blocking.execute("LOCK TABLE data_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let meanwhile = async {
        waits(&db).await;
        let mut other = db.pool.begin().await.unwrap();
        keys.create_scopes(&mut other, &scope).await.unwrap();
        other.commit().await.unwrap();
        blocking.rollback().await.unwrap();
    };
    let (records, ()) = tokio::join!(keys.scopes(&mut locking, &scope, ScopeLock::Update), meanwhile);
    let records = records.unwrap();
    assert_eq!(records.len(), 1);
    let mut third = db.pool.begin().await.unwrap();
    third.execute("SET LOCAL lock_timeout = '100ms'").await.unwrap();
    assert!(
        keys.scopes(&mut third, &scope, ScopeLock::Update).await.is_err(),
        "a record was returned that nobody has locked"
    );
}

#[tokio::test]
async fn i5_an_append_sees_no_scope_that_it_has_not_locked() {
    let db = Postgres::new().await;
    let (store, keys) = (store(&db).await, PostgresKeys::new());
    append(&db, &store, "1", placed("42")).await.unwrap();
    let scopes = [customer_scope("42"), KeyScope::new("Customer", "43")];
    // The same connection twice, so that the statement is prepared, and sent when the call is first polled.
    let mut connection = db.pool.acquire().await.unwrap();
    let mut preparing = connection.begin().await.unwrap();
    keys.scopes(&mut preparing, &scopes, ScopeLock::Share).await.unwrap();
    preparing.rollback().await.unwrap();
    let mut appending = connection.begin().await.unwrap();
    let pid = pid(&mut appending).await;
    let mut rotating = db.pool.begin().await.unwrap();
    store.keys().rotate_data_key(&mut rotating, &customer_scope("42")).await.unwrap();
    let mut call = Box::pin(keys.scopes(&mut appending, &scopes, ScopeLock::Share));
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    waits(&db).await;
    rotating.commit().await.unwrap();
    has_done(&db, pid, "FOR SHARE").await;
    append(&db, &store, "2", placed("43")).await.unwrap();
    let records = call.await.unwrap();
    assert!(
        records.iter().all(|record| record.scope == customer_scope("42")),
        "a scope that nobody has locked: {records:?}"
    );
    assert_eq!(records[0].last_version, Some(2), "the key that was waited for");
}

/// Whatever the database's default isolation level is.
#[tokio::test]
async fn i11_a_key_that_came_into_use_while_it_was_to_be_retired_is_not() {
    for level in ["read committed", "repeatable read", "serializable"] {
        let db = Arc::new(Postgres::new().await);
        let store = Arc::new(store(&db).await);
        let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&db.pool).await.unwrap();
        db.pool
            .execute(AssertSqlSafe(format!("ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")))
            .await
            .unwrap();
        let mut operator = PgConnection::connect_with(&db.options).await.unwrap();
        let old = store.keys().kek_usage(&mut operator).await.unwrap().remove(0).kek;
        // An append that has looked up the key before it was rotated, and has not committed.
        let mut appending = db.pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
        store.append(&mut appending, &aggregate("Order", "1"), Any, &[placed("42")]).await.unwrap();
        store.keys().rotate_kek(&mut operator, "default").await.unwrap();
        store.keys().rewrap(&mut operator, &RewrapOptions::default(), &mut |_| {}).await.unwrap();
        let retiring = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.keys().retire_kek(&mut operator, old.kek_id).await }
        });
        waits(&db).await;
        appending.commit().await.unwrap();
        let refused = retiring.await.unwrap().unwrap_err();
        assert!(matches!(refused, Error::Keys(KeyFault::KekInUse { .. })), "{level}: {refused:?}");
    }
}

#[tokio::test]
async fn a_shred_does_not_wait_longer_than_its_timeout() {
    let db = Postgres::new().await;
    let patient = store(&db).await;
    let impatient = with_keys(&db, PostgresKeys::new().lock_timeout(Duration::from_millis(30))).await;
    append(&db, &patient, "1", placed("42")).await.unwrap();
    // An existing scope, and one whose first key is being made.
    for customer in ["42", "43"] {
        let scope = KeyScope::new("Customer", customer);
        let mut appending = db.pool.begin().await.unwrap();
        patient.append(&mut appending, &aggregate("Order", "2"), Any, &[placed(customer)]).await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        let refused = impatient.keys().shred(&mut tx, &scope, "request").await.unwrap_err();
        assert!(refused.is_retryable(), "{refused:?}");
        drop(tx);
        appending.commit().await.unwrap();
        let mut tx = db.pool.begin().await.unwrap();
        tx.execute("SET LOCAL lock_timeout = '7s'").await.unwrap();
        assert_eq!(impatient.keys().shred(&mut tx, &scope, "request").await.unwrap().destroyed.len(), 1);
        let timeout: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(timeout, "7s", "the caller's setting is put back");
        tx.commit().await.unwrap();
    }
    let mut connection = db.pool.acquire().await.unwrap();
    let timeout: String = sqlx::query_scalar("SHOW lock_timeout").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(timeout, "0", "a setting of the transaction alone");
}

#[tokio::test]
async fn an_event_id_that_another_transaction_is_about_to_commit_is_a_collision_and_then_a_duplicate() {
    let db = Arc::new(Postgres::new().await);
    let event = placed("42");
    let mut first = db.pool.begin().await.unwrap();
    PostgresStore::new().append(&mut first, &aggregate("Order", "1"), Any, std::slice::from_ref(&event)).await.unwrap();
    let second = tokio::spawn({
        let (db, event) = (Arc::clone(&db), event.clone());
        async move { append(&db, &PostgresStore::new(), "2", event).await }
    });
    waits(&db).await;
    first.commit().await.unwrap();
    assert!(second.await.unwrap().unwrap_err().is_retryable());
    let error = append(&db, &PostgresStore::new(), "2", event.clone()).await.unwrap_err();
    assert!(matches!(error, Error::DuplicateEventId { event_id } if event_id == event.event_id), "{error:?}");
}
