//! A failover to a standby that never got a shred: what finds it, and what repeats it (invariant I13).

use super::servers::{Pair, is};
use super::{Store, append, process, schemas, shows, shred};
use eventseal::erasure::{FileCopy, ReplayOptions};
use eventseal::error::KeyFault;
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{Error, Result, SealedStore};
use sqlx::Executor;
use std::sync::Arc;
use std::time::Duration;
use support::{Deadline, KEYRING};

fn requiring(copy: FileCopy) -> Store {
    let keys = KeyManager::builder(PostgresKeys::new(), Arc::clone(&KEYRING));
    let keys = keys.require_shred_log(copy, Duration::from_secs(3_600)).build();
    SealedStore::with_keys(PostgresStore::new(), keys, schemas())
}

fn is_behind<T: std::fmt::Debug>(result: &Result<T>) {
    assert!(matches!(result, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{result:?}");
}

#[tokio::test]
async fn i13_a_shred_that_a_failover_lost_is_found_by_the_copy_and_repeated() {
    let (pair, _) = Pair::prepared().await;
    let mut primary = pair.primary().await;
    let folder = tempfile::tempdir().unwrap();
    let copy = || FileCopy::new(folder.path().join("log"));
    let keys = KeyManager::builder(PostgresKeys::new(), Arc::clone(&KEYRING)).copy_shred_log(copy()).build();
    let store = SealedStore::with_keys(PostgresStore::new(), keys, schemas());
    for id in ["kept", "lost", "other"] {
        append(&mut primary, &store, id).await.unwrap();
    }
    store.keys().export_log(&mut primary, &copy(), &mut |_| {}).await.unwrap();
    shred(&mut primary, &store, "kept").await.unwrap();
    store.keys().copy_log(&mut primary).await.unwrap();
    // A standby that has all of this, and from now on gets nothing more.
    let standby = pair.both().primary.standby();
    let mut promoted = pair.on(&standby).await;
    promoted.execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
    promoted.execute("SELECT pg_reload_conf()").await.unwrap();
    let deadline = Deadline::of("for the standby to be cut off");
    while is(&mut promoted, "count(*) > 0 FROM pg_stat_wal_receiver").await {
        deadline.look_again().await;
    }
    shred(&mut primary, &store, "lost").await.unwrap();
    store.keys().copy_log(&mut primary).await.unwrap();
    assert!(!shows(&mut primary, &store, "lost").await.unwrap());

    // The primary ends, and the standby takes over.
    pair.both().primary.crash();
    assert!(is(&mut promoted, "pg_promote()").await);
    assert!(!shows(&mut promoted, &process(), "kept").await.unwrap());
    assert!(shows(&mut promoted, &process(), "lost").await.unwrap(), "this is what has to be prevented");
    let service = requiring(copy());
    is_behind(&service.keys().prepare(&mut promoted).await);
    for id in ["kept", "lost", "other"] {
        is_behind(&shows(&mut promoted, &service, id).await);
        is_behind(&append(&mut promoted, &service, id).await);
    }
    // A process that reads on while the servers change below it asks again after its period, and in every transaction
    // that writes. `eventseal shred-log replay` is this call.
    let (clerk, options) = (process(), ReplayOptions::default());
    let replayed = clerk.keys().replay_log(&mut promoted, &[&copy()], &options, &mut |_| {}).await.unwrap();
    assert_eq!((replayed.missing, replayed.destroyed, replayed.forked), (1, 1, false), "{replayed:?}");
    assert!(replayed.is_complete());
    service.keys().prepare(&mut promoted).await.unwrap();
    for (id, shown) in [("kept", false), ("lost", false), ("other", true)] {
        assert_eq!(shows(&mut promoted, &service, id).await.unwrap(), shown, "{id}");
    }
    assert!(append(&mut promoted, &service, "lost").await.unwrap_err().is_shredded());
    let report = process().keys().verify_log(&mut promoted, &[&copy()], &mut |_| {}).await.unwrap();
    assert!(report.is_sound());

    // The old primary comes back, and knows nothing of what the new one decides. Nobody may use it.
    shred(&mut promoted, &service, "other").await.unwrap();
    assert!(shows(&mut pair.primary().await, &process(), "other").await.unwrap());
}
