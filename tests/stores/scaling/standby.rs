//! Reads and writes on a hot standby, and what a shred on the primary means there (invariants I5 and I13).

use super::page;
use super::servers::{Pair, is};
use super::{append, process, schemas, shows, shred};
use eventseal::erasure::{CertificateOptions, FileCopy, VerifyOptions};
use eventseal::error::KeyFault;
use eventseal::keys::KeyManager;
use eventseal::maintenance::{CensusOptions, EventsOfOptions};
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::store::EventTable;
use eventseal::{
    Error, EventFilter, EventStore, EventStoreExt, GlobalPosition, Namespace, Result, SealedStore, aggregate,
};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::sync::Arc;
use std::time::Duration;
use support::{KEYRING, contains, customer_scope};

#[tokio::test]
async fn i5_a_standby_shows_a_shred_when_it_has_replayed_it_and_not_before() {
    let (pair, store) = Pair::prepared().await;
    let (mut primary, mut standby) = (pair.primary().await, pair.standby().await);
    append(&mut primary, &store, "1").await.unwrap();
    pair.replayed().await;
    // A process that only reads there, before and after its caches are warm, in two statements and in one.
    let reader = process();
    reader.keys().prepare(&mut standby).await.unwrap();
    for _ in 0..3 {
        assert!(shows(&mut standby, &reader, "1").await.unwrap());
    }
    let mut old = pair.standby().await;
    let mut old = old.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    assert!(shows(&mut old, &reader, "1").await.unwrap());

    pair.pause().await;
    shred(&mut primary, &store, "1").await.unwrap();
    let at = pair.position().await;
    let arrived = page::sql("SELECT pg_last_wal_replay_lsn()").replace("0/3000148", &at);
    let arrived = || sqlx::query_scalar::<_, bool>(AssertSqlSafe(arrived.clone()));
    assert!(!shows(&mut primary, &store, "1").await.unwrap());
    assert!(!arrived().fetch_one(&mut standby).await.unwrap());
    let cold = process();
    cold.keys().open(&mut standby).await.unwrap();
    for reader in [&reader, &cold] {
        assert!(shows(&mut standby, reader, "1").await.unwrap(), "the standby has not replayed the shred");
        let page = reader.read_events(&mut standby, GlobalPosition::START, 9, &EventFilter::default()).await.unwrap();
        assert!(contains(&page.events[0].payload, "Ada"));
    }
    // A process that reads on both servers shows on each what that server has: what it cached is no answer.
    assert!(shows(&mut standby, &store, "1").await.unwrap() && !shows(&mut primary, &store, "1").await.unwrap());

    pair.replay().await;
    pair.replayed().await;
    assert!(arrived().fetch_one(&mut standby).await.unwrap());
    for reader in [&reader, &cold, &store, &process()] {
        assert!(!shows(&mut standby, reader, "1").await.unwrap(), "I5: from the replay on");
        let page = reader.read_events(&mut standby, GlobalPosition::START, 9, &EventFilter::default()).await.unwrap();
        assert!(page.events[0].is_redacted() && !contains(&page.events[0].payload, "Ada"));
    }
    assert!(shows(&mut old, &reader, "1").await.unwrap(), "an old snapshot stays until its transaction ends");
    old.rollback().await.unwrap();
}

#[tokio::test]
async fn what_reads_works_on_a_standby() {
    let (pair, store) = Pair::prepared().await;
    let mut primary = pair.primary().await;
    for id in ["1", "2"] {
        append(&mut primary, &store, id).await.unwrap();
    }
    let mut tx = primary.begin().await.unwrap();
    let value = store.seal_value(&mut tx, &customer_scope("1"), ["phone"], "555").await.unwrap();
    tx.commit().await.unwrap();
    shred(&mut primary, &store, "2").await.unwrap();
    pair.replayed().await;
    let (mut standby, reader) = (pair.standby().await, process());
    // The entry of the shred has no number yet. `prepare` leaves it to somebody who can write.
    reader.keys().prepare(&mut standby).await.unwrap();
    assert_eq!(reader.latest_global_position(&mut standby).await.unwrap().get(), 2);
    assert!(shows(&mut standby, &reader, "1").await.unwrap() && !shows(&mut standby, &reader, "2").await.unwrap());
    let opened = reader.open_value(&mut standby, &customer_scope("1"), ["phone"], &value).await.unwrap();
    assert_eq!(opened.expose().map(Vec::as_slice), Some(&b"555"[..]));
    assert!(reader.keys().key_history(&mut standby, &customer_scope("2")).await.unwrap().is_some());
    let census = reader.census(&mut standby, &CensusOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(census.rows[0].events, 2);
    assert_eq!(reader.keys().kek_usage(&mut standby).await.unwrap()[0].live_keys, 2);
    let options = EventsOfOptions::default();
    let mut search = reader.events_of(&mut standby, &customer_scope("2"), &options).await.unwrap();
    assert_eq!(search.next(&mut standby).await.unwrap().unwrap().events.len(), 1);
    let verified = reader.verify(&mut standby, &[], &VerifyOptions::default(), &mut |_| {}).await.unwrap();
    assert_eq!(verified.events, 2);
    let options = CertificateOptions::default();
    let scope = customer_scope("2");
    let certificate = reader.certificate(&mut standby, &scope, &[], &options, &mut |_| {}).await.unwrap();
    assert!(certificate.erased && !certificate.proved, "the chain does not have its entry");
    refused("seal the shred log", reader.keys().seal_log(&mut standby).await);
    refused("verify the shred log", reader.keys().verify_log(&mut standby, &[], &mut |_| {}).await);
    // A follower pages there, up to what was replayed.
    pair.pause().await;
    append(&mut primary, &store, "3").await.unwrap();
    let all = EventFilter::default();
    let page = reader.read_events(&mut standby, GlobalPosition::START, 9, &all).await.unwrap();
    assert_eq!((page.scanned, page.next.get()), (2, 2));
    pair.replay().await;
    pair.replayed().await;
    let page = reader.read_events(&mut standby, page.next, 9, &all).await.unwrap();
    assert_eq!((page.scanned, page.next.get()), (1, 3));
}

/// The call was refused because the server takes no writes, and the error says where to go.
fn refused<T: std::fmt::Debug>(what: &str, result: Result<T>) {
    let error = result.expect_err(what);
    let Error::Database { source, .. } = &error else { panic!("{what}: {error:?}") };
    assert_eq!(source.code(), Some("25006"), "{what}: {error:?}");
    assert!(error.is_outage() && error.is_retryable() && !error.is_conflict(), "{what}: {error:?}");
    assert!(error.to_string().contains("it is a standby"), "{what}: {error}");
    assert!(error.to_string().ends_with("run the transaction again on the primary"), "{what}: {error}");
}

#[tokio::test]
async fn what_writes_is_refused_on_a_standby_and_says_where_to_go() {
    let (pair, store) = Pair::prepared().await;
    append(&mut pair.primary().await, &store, "1").await.unwrap();
    pair.replayed().await;
    let mut standby = pair.standby().await;
    let cold = process();
    let (order, scope) = (aggregate("Order", "1"), customer_scope("1"));
    // One process knows the key of the customer, and appends in one statement. The other locks first. The last customer
    // is new.
    for (what, store, id) in [("warm", &store, "1"), ("cold", &cold, "1"), ("new", &store, "9"), ("new", &cold, "9")] {
        refused(what, append(&mut standby, store, id).await);
    }
    refused("the bare store", append(&mut standby, &PostgresStore::new(), "1").await);
    let keys = store.keys();
    let mut tx = standby.begin().await.unwrap();
    refused("shred", keys.shred(&mut tx, &scope, "r").await);
    tx.rollback().await.unwrap();
    let mut tx = standby.begin().await.unwrap();
    refused("disable", keys.disable(&mut tx, &scope, "r").await);
    tx.rollback().await.unwrap();
    let mut tx = standby.begin().await.unwrap();
    refused("rotate", keys.rotate_data_key(&mut tx, &scope).await);
    tx.rollback().await.unwrap();
    let mut tx = standby.begin().await.unwrap();
    refused("seal a value", store.seal_value(&mut tx, &customer_scope("9"), ["phone"], "555").await);
    tx.rollback().await.unwrap();
    refused("rotate a KEK", keys.rotate_kek(&mut standby, "default").await);
    refused("the settled position", PostgresStore::new().settled_position(&mut standby).await);
    // Where every entry has its number, there is nothing to write.
    assert!(keys.verify_log(&mut standby, &[], &mut |_| {}).await.unwrap().is_sound());
    refused("migrate", PostgresStore::new().migrate(&mut standby).await);
    let namespace = Namespace::new("scaling").unwrap();
    PostgresKeys::new().migrate(&mut standby, &namespace).await.expect_err("it names the namespace");
    let listens = standby.execute("LISTEN shop_events").await.unwrap_err();
    assert_eq!(listens.as_database_error().unwrap().code().unwrap(), "25006");
    // The connection is as before, and nothing was written.
    assert!(shows(&mut standby, &store, "1").await.unwrap());
    assert_eq!(store.read_stream(&mut pair.primary().await, &order).await.unwrap().events.len(), 1);
    let serializable = standby.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap_err();
    assert_eq!(serializable.as_database_error().unwrap().code().unwrap(), "0A000");
    // A transaction that says of itself that it only reads is refused in the same way, on the primary too.
    let mut primary = pair.primary().await;
    primary.execute("SET default_transaction_read_only = on").await.unwrap();
    refused("read-only", append(&mut primary, &store, "1").await);
}

#[tokio::test]
async fn keys_are_prepared_on_the_primary_first() {
    let pair = Pair::migrated().await;
    let mut standby = pair.standby().await;
    refused("prepare", process().keys().prepare(&mut standby).await);
    let opened = process().keys().open(&mut standby).await;
    assert!(matches!(opened, Err(Error::Keys(KeyFault::NoActiveKek { .. }))), "{opened:?}");
}

/// The lag of reads comes on top of that of the standby. One process that reads on both servers carries it back to the
/// primary.
#[tokio::test]
async fn i5_reads_that_may_lag_lag_behind_the_standby_too() {
    let (pair, writer) = Pair::prepared().await;
    let (mut primary, mut standby) = (pair.primary().await, pair.standby().await);
    append(&mut primary, &writer, "1").await.unwrap();
    pair.replayed().await;
    let lag = Duration::from_secs(3_600);
    let lagging = |lag| {
        let keys = KeyManager::builder(PostgresKeys::new(), Arc::clone(&KEYRING)).reads_may_lag(lag).build();
        SealedStore::with_keys(PostgresStore::new(), keys, schemas())
    };
    let (of_the_standby, of_both) = (lagging(lag), lagging(lag));
    pair.pause().await;
    shred(&mut primary, &writer, "1").await.unwrap();
    for reader in [&of_the_standby, &of_both] {
        assert!(shows(&mut standby, reader, "1").await.unwrap());
    }
    assert!(shows(&mut primary, &of_both, "1").await.unwrap(), "within the lag after a look on the standby");
    pair.replay().await;
    pair.replayed().await;
    assert!(shows(&mut standby, &of_the_standby, "1").await.unwrap(), "the lag begins with the last look");
    assert!(!shows(&mut standby, &lagging(Duration::ZERO), "1").await.unwrap());
}

/// Where a copy of the shred log is required, a standby that lags behind the copy opens nothing.
#[tokio::test]
async fn i13_a_standby_that_lags_behind_a_required_copy_opens_nothing() {
    let (pair, store) = Pair::prepared().await;
    let (mut primary, mut standby) = (pair.primary().await, pair.standby().await);
    for id in ["1", "2"] {
        append(&mut primary, &store, id).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let copy = || FileCopy::new(folder.path().join("log"));
    store.keys().export_log(&mut primary, &copy(), &mut |_| {}).await.unwrap();
    pair.replayed().await;
    let keys = KeyManager::builder(PostgresKeys::new(), Arc::clone(&KEYRING))
        .require_shred_log(copy(), Duration::ZERO)
        .compare_whole_log_every(Duration::from_secs(3_600))
        .build();
    let reader = SealedStore::with_keys(PostgresStore::new(), keys, schemas());
    reader.keys().open(&mut standby).await.unwrap();
    assert!(shows(&mut standby, &reader, "1").await.unwrap());
    pair.pause().await;
    shred(&mut primary, &store, "1").await.unwrap();
    store.keys().export_log(&mut primary, &copy(), &mut |_| {}).await.unwrap();
    for id in ["1", "2"] {
        let read = shows(&mut standby, &reader, id).await;
        assert!(matches!(read, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{id}: {read:?}");
    }
    assert!(shows(&mut standby, &process(), "1").await.unwrap(), "this is what it prevents");
    pair.replay().await;
    pair.replayed().await;
    assert!(!shows(&mut standby, &reader, "1").await.unwrap() && shows(&mut standby, &reader, "2").await.unwrap());
    assert!(is(&mut standby, "pg_is_in_recovery()").await);
    // What one process saw on the primary looks on a standby that lags as if the database had been restored.
    pair.pause().await;
    shred(&mut primary, &store, "2").await.unwrap();
    store.keys().seal_log(&mut primary).await.unwrap();
    assert!(shows(&mut standby, &reader, "2").await.unwrap(), "the copy does not have it yet");
    assert!(!shows(&mut primary, &reader, "2").await.unwrap());
    let read = shows(&mut standby, &reader, "2").await;
    assert!(matches!(read, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{read:?}");
    pair.replay().await;
}
