//! The texts of errors, which quote no values.

use super::{order, placed, postgres};
use eventseal::ExpectedVersion::Any;
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{AggregateRef, Error, EventStore, KeyScope, NewEvent, Schemas, SealedStore, aggregate, event, subject};
use sqlx::Executor;
use std::sync::Arc;
use std::time::Duration;
use support::{KEYRING, whole};

#[tokio::test]
async fn i9_no_row_and_no_value_is_shown_of_a_database_error() {
    let (db, store) = postgres().await;
    db.pool
        .execute(
            "ALTER TABLE data_keys ADD CONSTRAINT no_x CHECK (scope_id <> 'x');
             ALTER TABLE events ADD CONSTRAINT no_big CHECK (length(payload) < 1000);
             CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'row of %', NEW.trace_id USING DETAIL = NEW.trace_id, HINT = NEW.trace_id; END $$;
             CREATE TRIGGER tell BEFORE INSERT ON events FOR EACH ROW
                 WHEN (NEW.trace_id IS NOT NULL) EXECUTE FUNCTION tell();
             CREATE FUNCTION convert() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM NEW.correlation_id::int; RETURN NEW; END $$;
             CREATE TRIGGER convert BEFORE INSERT ON events FOR EACH ROW
                 WHEN (NEW.correlation_id IS NOT NULL) EXECUTE FUNCTION convert();",
        )
        .await
        .unwrap();
    let secret = "SECRET\u{1b}[2J";
    let big = NewEvent::raw("Other", 1, format!(r#"{{"a":"{}"}}"#, "SECRET".repeat(500)));
    for event in [placed("x"), big, placed("42").with_trace_id(secret), placed("42").with_correlation_id(secret)] {
        let mut tx = db.pool.begin().await.unwrap();
        let error = on_postgres_with_unknown_types().append(&mut tx, &order(), Any, &[event]).await.unwrap_err();
        let text = whole(&error);
        assert!(
            !text.contains("\\\\x") && !text.contains("SECRET") && !text.contains("534543") && !text.contains('\u{1b}'),
            "{text}"
        );
        let Error::Database { source, .. } = &error else { panic!("{error:?}") };
        assert!(source.driver().is::<sqlx::Error>() && source.code().is_some(), "whoever asks for it gets it");
    }
    let mut tx = db.pool.begin().await.unwrap();
    let error = store.append(&mut tx, &order(), Any, &[placed("x")]).await.unwrap_err();
    let Error::Database { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!((source.code(), source.table(), source.constraint()), (Some("23514"), Some("data_keys"), Some("no_x")));
    assert!(source.to_string().contains("violates check constraint"), "{source}");
}

fn on_postgres_with_unknown_types() -> SealedStore<PostgresStore> {
    let other = event("Other").version(1).unprotected("for a test");
    let schemas =
        Schemas::new([event("Placed").version(1).protect(&["/name"], subject("Customer", "/customer")), other])
            .unwrap();
    SealedStore::new(PostgresStore::new(), PostgresKeys::new(), Arc::clone(&KEYRING), schemas)
}

#[tokio::test]
async fn a_lock_timeout_below_a_millisecond_is_one() {
    let (db, store) = postgres().await;
    let scope = KeyScope::new("Customer", "42");
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[placed("42")]).await.unwrap();
    for timeout in [Duration::from_nanos(1), Duration::from_micros(999)] {
        let keys = KeyManager::new(PostgresKeys::new().lock_timeout(timeout), KEYRING.clone());
        let mut other = db.pool.begin().await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(20), keys.shred(&mut other, &scope, "request")).await;
        assert!(matches!(waited, Ok(Err(Error::Collision { .. }))), "{timeout:?}: {waited:?}");
    }
    tx.commit().await.unwrap();
    let keys = KeyManager::new(PostgresKeys::new().lock_timeout(Duration::MAX), KEYRING.clone());
    keys.shred(&mut db.pool.begin().await.unwrap(), &scope, "request").await.unwrap();
}

/// The values that a detail quotes can be any text. A value must not pass for the name of a column.
#[tokio::test]
async fn what_a_constraint_is_about_is_not_read_from_values() {
    let (db, store) = postgres().await;
    let (text, append) =
        ("(global_position)=(1)", async |store: &SealedStore<PostgresStore>, order: &AggregateRef, event: NewEvent| {
            let mut tx = db.pool.begin().await.unwrap();
            store.append(&mut tx, order, Any, &[event, placed("43")]).await.map(|_| drop(tx)).unwrap_err()
        });
    // The second version of a stream is there, and nobody has the first: its rows quote the stream's id.
    let insert = "INSERT INTO events (aggregate_type, aggregate_id, aggregate_version, event_id, event_type, payload)
        VALUES ('Order', '(global_position)=(1)', 2, gen_random_uuid(), 'Noted', '')";
    db.pool.execute(insert).await.unwrap();
    let error = append(&store, &aggregate("Order", text), placed("42")).await;
    assert!(matches!(error, Error::Collision { source: Some(_) }), "{error:?}");
    // A violation of a constraint that is not this crate's is not worth another attempt.
    db.pool.execute("CREATE UNIQUE INDEX once ON events (event_type, (trace_id))").await.unwrap();
    let traced = || placed("42").with_trace_id(text);
    let mut tx = db.pool.begin().await.unwrap();
    store.append(&mut tx, &order(), Any, &[traced()]).await.unwrap();
    tx.commit().await.unwrap();
    let error = append(&store, &order(), traced()).await;
    assert!(matches!(error, Error::Database { .. }) && !error.is_retryable(), "{error:?}");
    assert!(!format!("{error:?}").contains(text), "{error:?}");
}
