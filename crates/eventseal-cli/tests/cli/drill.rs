//! The drill after a restore, from the commands of `docs/erasure.md` alone.

use crate::command::{Database, World, schemas};
use eventseal::erasure::FileCopy;
use eventseal::error::KeyFault;
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::sqlite::{SqliteKeys, SqliteStore};
use eventseal::{Error, EventFilter, EventStore, GlobalPosition, Keyring, Result, SealedStore};
use std::fmt::Write as _;
use std::time::Duration;

on_both! {
    i13_after_a_restore_nothing_opens_until_the_log_was_replayed,
}

/// Fifty customers, all of whom are shredded after the backup. One of them comes back.
async fn i13_after_a_restore_nothing_opens_until_the_log_was_replayed(world: World) {
    let mut world = world.with_keys(0..51).await;
    world.section("Keep a copy of the log");
    world.back_up().await;
    let mut requests = String::new();
    for customer in 0..50 {
        writeln!(requests, r#"{{"kind":"Customer","id":"cust_{customer}"}}"#).unwrap();
    }
    let list = world.folder.path().join("requests");
    std::fs::write(&list, requests).unwrap();
    world.run(&["shred", "--from", list.to_str().unwrap(), "--reason", "request 118", "--yes"]).ended(0);
    world.run(&["reopen", "Customer", "cust_7", "--reason", "came back"]).ended(0);
    world.append(7..8).await.unwrap();
    world.section("Keep a copy of the log");
    assert_eq!(read(&world).await.unwrap(), (2, 50), "one was never shredded, and one came back");

    world.restore().await;
    let refused = read(&world).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{refused:?}");
    world.section("Replay the log");
    let again = world.json(&["shred-log", "replay", world.folder.path().join("shop.shredlog").to_str().unwrap()]);
    assert_eq!((&again["missing"], &again["destroyed"]), (&0.into(), &0.into()), "a second replay does nothing");
    assert_eq!(read(&world).await.unwrap(), (1, 50));
    world.append(7..8).await.unwrap();
    let refused = world.append(8..9).await.unwrap_err();
    assert!(refused.is_shredded(), "{refused:?}");
}

/// How many events an application opens, and how many are redacted, if it requires the copy. The backup of the page has
/// the events too, so the new event of the customer who came back is gone.
async fn read(world: &World) -> Result<(usize, usize)> {
    let copy = FileCopy::new(world.folder.path().join("shop.shredlog"));
    let ring = Keyring::from_file(world.folder.path().join("ring"))?;
    let (start, filter) = (GlobalPosition::START, EventFilter::default());
    let page = match &world.database {
        Database::Sqlite(db) => {
            let keys = KeyManager::builder(SqliteKeys::new(), ring).require_shred_log(copy, Duration::ZERO).build();
            let store = SealedStore::with_keys(SqliteStore::new(), keys, schemas());
            store.read_events(&mut *db.pool.acquire().await.unwrap(), start, 1_000, &filter).await?
        }
        Database::Postgres(db) => {
            let keys = KeyManager::builder(PostgresKeys::new(), ring).require_shred_log(copy, Duration::ZERO).build();
            let store = SealedStore::with_keys(PostgresStore::new(), keys, schemas());
            store.read_events(&mut *db.pool.acquire().await.unwrap(), start, 1_000, &filter).await?
        }
    };
    let redacted = page.events.iter().filter(|event| event.is_redacted()).count();
    Ok((page.events.len() - redacted, redacted))
}
