//! What the checks of required copies find, by which check, and what they cost.

use super::places::{Place, with_every_copy};
use super::restores::{RESTORE_ALL, RESTORE_ROWS, SAVE, prepare};
use super::{Intruder, copy_in, export, hold, placed, schemas, seal, shop};
use async_trait::async_trait;
use eventseal::erasure::{FileCopy, Hold, ShredLogCopy as _, ShredMode, SweepOptions};
use eventseal::error::KeyFault;
use eventseal::keys::{KeyManager, RewrapOptions, ShredRequest};
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::{Error, Result, SealedStore};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::backend::Backend;
use support::deadline::Deadline;
use support::faults::{Faulty, KeyFaults};
use support::{KEYRING, Memory, contains, customer_scope};
use tempfile::TempDir;
use time::OffsetDateTime;

const LONG: Duration = Duration::from_secs(3_600);

/// A process that requires the copy and checks at each call, with whole checks this far apart.
fn requiring<B: Backend>(db: &B, copy: &FileCopy, whole: Duration) -> SealedStore<B::Store> {
    let keys = db.keys().require_shred_log(FileCopy::new(copy.path()), Duration::ZERO).compare_whole_log_every(whole);
    db.process_over(keys, schemas())
}

/// Looks whether a call is refused, and says this. On SQLite, a call with a check may collide with the one before.
async fn is_behind<T: std::fmt::Debug>(call: impl AsyncFn() -> Result<T>, says: &str) {
    let deadline = Deadline::of("for a refusal");
    loop {
        match call().await {
            Err(Error::Collision { .. }) => deadline.check(),
            Err(Error::Keys(KeyFault::ShredLogBehind { problem, .. })) if problem.contains(says) => return,
            other => panic!("{says}: {other:?}"),
        }
    }
}

/// The tables are restored while the process runs, to before what the copy has: a short check compares the ends.
async fn i13_a_short_check_finds_that_the_log_is_behind_its_copy<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let process = requiring(&db, &copy, LONG);
    prepare(&db, &process).await.unwrap();
    db.read(&process, "2").await.unwrap();
    db.write(RESTORE_ALL).await;
    is_behind(async || db.read(&process, "1").await, "its copy at 1").await;
    is_behind(async || db.read(&process, "2").await, "its copy at 1").await;
}

/// What there is after a restore.
struct Restored<B: Backend> {
    db: B,
    /// Requires nothing.
    store: SealedStore<B::Store>,
    /// Requires the copy, and has run since before the restore.
    process: SealedStore<B::Store>,
    held: Hold,
    copy: FileCopy,
    _folder: TempDir,
}

/// A database that is restored to before a hold on scope 1, and to before the shred of scope 2, due then, was
/// cancelled.
async fn restored_to_before_a_hold<B: Intruder>(due: OffsetDateTime) -> Restored<B> {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    let scheduled = customer_scope("2");
    let mut tx = db.begin().await.unwrap();
    store.keys().schedule_shred(db.tx(&mut tx), &scheduled, due, ShredMode::KeepWorking, "leaving").await.unwrap();
    db.commit(tx).await.unwrap();
    seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    let held = hold(&db, &store, "1").await;
    let mut tx = db.begin().await.unwrap();
    store.keys().cancel(db.tx(&mut tx), &scheduled, "stays").await.unwrap();
    db.commit(tx).await.unwrap();
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let process = requiring(&db, &copy, LONG);
    prepare(&db, &process).await.unwrap();
    db.write(RESTORE_ALL).await;
    Restored { db, store, process, held, copy, _folder }
}

/// What a restore has lost may be a hold, or the end of a schedule. So no path changes a scope before the replay.
async fn i12_i13_nothing_is_decided_while_a_copy_disagrees<B: Intruder>() {
    let (scope, scheduled) = (customer_scope("1"), customer_scope("2"));
    let due = OffsetDateTime::now_utc() + Duration::from_secs(1);
    let Restored { db, store, process, held, copy, _folder } = restored_to_before_a_hold::<B>(due).await;

    let keys = process.keys();
    macro_rules! is_refused {
        ($tx:ident => $call:expr) => {
            is_behind(
                async || {
                    let mut transaction = db.begin().await?;
                    let $tx = db.tx(&mut transaction);
                    $call.await.map(drop)
                },
                "its copy",
            )
            .await
        };
    }
    is_refused!(tx => keys.shred(tx, &scope, "request"));
    is_refused!(tx => keys.hold(tx, &scope, "case 8", None));
    is_refused!(tx => keys.release(tx, &held, "over"));
    is_refused!(tx => keys.schedule_shred(tx, &scope, due + LONG, ShredMode::Redact, "leaving"));
    is_refused!(tx => keys.cancel(tx, &scheduled, "stays"));
    is_refused!(tx => keys.disable(tx, &scope, "incident"));
    is_refused!(tx => keys.enable(tx, &scope, "over"));
    is_refused!(tx => keys.reopen(tx, &scope, "back"));
    is_refused!(tx => keys.rotate_data_key(tx, &scope));
    macro_rules! ends {
        ($connection:ident => $call:expr) => {
            is_behind(
                async || {
                    let mut connection = db.connect().await?;
                    let $connection = db.connection(&mut connection);
                    $call.await.map(drop)
                },
                "its copy",
            )
            .await
        };
    }
    while OffsetDateTime::now_utc() <= due {
        tokio::task::yield_now().await;
    }
    let requests = [ShredRequest { scope: scope.clone(), reason: "request".into() }];
    ends!(connection => keys.sweep(connection, &SweepOptions::default(), &mut |_| {}));
    ends!(connection => keys.shred_many(connection, &requests, &mut |_| {}));
    ends!(connection => keys.shred_partition(connection, "default", "leaves", &mut |_| {}));
    ends!(connection => keys.rewrap(connection, &RewrapOptions::default(), &mut |_| {}));
    let mut connection = db.connect().await.unwrap();
    for id in ["1", "2"] {
        let history = store.keys().key_history(db.connection(&mut connection), &customer_scope(id)).await.unwrap();
        assert!(history.unwrap().keys.iter().all(|key| key.shredded_at.is_none()), "{id}");
    }
    drop(connection);

    // The replay brings both back.
    super::replay(&db, &store, &[&copy]).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let shred = process.keys().shred(db.tx(&mut tx), &scope, "request").await;
    assert!(matches!(shred, Err(Error::Keys(KeyFault::Held { .. }))), "{shred:?}");
    assert_eq!(store.keys().schedule_of(db.tx(&mut tx), &scheduled).await.unwrap(), None);
}

/// The tables are restored while the process runs, and the copy is older than the backup: only the process itself knows
/// that the log has ended later. Even a log that has grown again, in another way, is another one.
async fn i13_a_short_check_finds_that_the_log_went_back<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.disable(&store, "3").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    seal(&db, &store).await.unwrap();
    let process = requiring(&db, &copy, LONG);
    prepare(&db, &process).await.unwrap();
    db.write(RESTORE_ALL).await;
    is_behind(async || db.read(&process, "1").await, "when this process looked last").await;
    db.shred(&store, "2").await;
    seal(&db, &store).await.unwrap();
    is_behind(async || db.read(&process, "1").await, "is another one than when this process looked last").await;
    // A process that starts can't know: only a later copy would say it.
    let fresh = requiring(&db, &copy, LONG);
    prepare(&db, &fresh).await.unwrap();
    assert!(contains(&db.read(&fresh, "1").await.unwrap()[0].payload, "Ada"));
}

/// A key that a new shred has destroyed is there again, with the log untouched.
async fn i13_a_short_check_finds_new_shreds_that_were_undone<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    db.write(SAVE).await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let process = requiring(&db, &copy, LONG);
    prepare(&db, &process).await.unwrap();
    db.shred(&store, "1").await;
    seal(&db, &store).await.unwrap();
    db.write(RESTORE_ROWS).await;
    is_behind(async || db.read(&process, "1").await, "was shredded is there again").await;
}

/// Key rows of a shred that was checked before come back alone. A whole check finds it: the first one of a process, and
/// one after every ten periods.
async fn i13_a_whole_check_finds_rows_that_were_restored_alone<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let short = requiring(&db, &copy, LONG);
    let strict = db.process_over(db.keys().require_shred_log(FileCopy::new(copy.path()), Duration::ZERO), schemas());
    let usual = db.keys().require_shred_log(FileCopy::new(copy.path()), Duration::from_millis(30));
    let usual = db.process_over(usual, schemas());
    for process in [&short, &strict, &usual] {
        prepare(&db, process).await.unwrap();
    }
    db.write(RESTORE_ROWS).await;
    let read = db.read(&short, "1").await.unwrap();
    assert!(contains(&read[0].payload, "Ada"), "this is what a short check leaves open");
    is_behind(async || db.read(&strict, "1").await, "was shredded is there again").await;
    let deadline = Deadline::of("for a whole check");
    while matches!(db.read(&usual, "1").await, Ok(_) | Err(Error::Collision { .. })) {
        deadline.check();
    }
    is_behind(async || db.read(&usual, "1").await, "was shredded is there again").await;
    is_behind(async || prepare(&db, &short).await, "was shredded is there again").await;
    is_behind(async || db.read(&short, "1").await, "was shredded is there again").await;
    // A scope whose state was put back, by its row alone.
    super::replay(&db, &store, &[&copy]).await.unwrap();
    prepare(&db, &short).await.unwrap();
    db.write("UPDATE key_scopes SET state = 'live' WHERE scope_id = '1'").await;
    is_behind(async || prepare(&db, &short).await, "is not in the state").await;
}

/// The chain of the table was tampered with behind the end that was known.
async fn i14_a_short_check_finds_a_chain_that_does_not_go_on<B: Intruder>() {
    for (how, says) in [
        ("UPDATE shred_log SET previous_hash = hash WHERE seq = 2", "does not follow"),
        ("DELETE FROM shred_log WHERE seq = 2", "does not follow"),
        ("DELETE FROM shred_log WHERE seq = 3", "its own end says 3"),
        ("UPDATE shred_log SET hash = previous_hash WHERE seq = 3", "own end is not that of its entry"),
    ] {
        let (db, store) = shop::<B>(&["1", "2", "3"]).await;
        let (copy, _folder) = copy_in();
        db.shred(&store, "1").await;
        export(&db, &store, &copy).await.unwrap();
        let process = requiring(&db, &copy, LONG);
        prepare(&db, &process).await.unwrap();
        db.shred(&store, "2").await;
        db.shred(&store, "3").await;
        seal(&db, &store).await.unwrap();
        db.write(how).await;
        is_behind(async || db.read(&process, "1").await, says).await;
    }
}

/// Each required copy must be there, and agree.
async fn i13_several_copies_are_required<B: Backend, P: Place>() {
    let (db, store) = shop::<B>(&["1"]).await;
    let (file, _folder) = copy_in();
    let place = P::make().await;
    let other = place.copy().await;
    let requiring = || {
        let keys = db.keys().require_shred_log(FileCopy::new(file.path()), LONG);
        db.process_over(keys.require_shred_log(other.clone(), Duration::ZERO), schemas())
    };
    let process = requiring();
    export(&db, &store, &other).await.unwrap();
    let refused = prepare(&db, &process).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("{} is empty", file.name())), "{refused}");
    export(&db, &store, &file).await.unwrap();
    prepare(&db, &process).await.unwrap();
    db.append(&process, "1", &[placed("1")]).await;
    // The shorter period holds: what becomes of either of them is found at once.
    std::fs::write(file.path(), "").unwrap();
    assert!(db.read(&process, "1").await.unwrap_err().to_string().contains("is empty"));
}

/// Counts the calls of the key table.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<BTreeMap<&'static str, u32>>>, MemoryKeys);

#[async_trait]
impl KeyFaults for Counted {
    type Inner = MemoryKeys;

    fn inner(&self) -> &MemoryKeys {
        &self.1
    }

    fn before(&self, call: &'static str) -> Result<()> {
        *self.0.lock().unwrap().entry(call).or_default() += 1;
        Ok(())
    }
}

/// However long the log is, a check at which nothing has happened reads its end, and one row for the end of the copy
/// and one for the end that was known.
#[tokio::test]
async fn a_check_costs_the_same_however_long_the_log_is() {
    let mut costs = Vec::new();
    for entries in [1, 600] {
        let db = Memory::new();
        let counted = Counted::default();
        let (copy, _folder) = copy_in();
        let keys = KeyManager::builder(Faulty(counted.clone()), Arc::clone(&KEYRING))
            .require_shred_log(FileCopy::new(copy.path()), Duration::ZERO)
            .compare_whole_log_every(LONG);
        let store = SealedStore::with_keys(MemoryStore::new(), keys.build(), schemas());
        let unguarded = db.process(schemas());
        db.prepare(&unguarded).await;
        db.append(&unguarded, "kept", &[placed("kept")]).await;
        for id in 0..entries {
            db.shred(&unguarded, &id.to_string()).await;
        }
        export(&db, &unguarded, &copy).await.unwrap();
        db.prepare(&store).await;
        db.read(&store, "kept").await.unwrap();
        counted.0.lock().unwrap().clear();
        db.read(&store, "kept").await.unwrap();
        let calls = counted.0.lock().unwrap().clone();
        assert_eq!(calls["log_entries"], 2 * calls["log_head"], "{calls:?}");
        assert!(!calls.contains_key("log_disagreements") && !calls.contains_key("scopes"), "{calls:?}");
        // What was decided since then is compared once.
        db.shred(&unguarded, "another").await;
        seal(&db, &unguarded).await.unwrap();
        counted.0.lock().unwrap().clear();
        db.read(&store, "kept").await.unwrap();
        let once = counted.0.lock().unwrap().clone();
        assert!(once["scopes"] == 1 && !once.contains_key("log_disagreements"), "{once:?}");
        counted.0.lock().unwrap().clear();
        db.read(&store, "kept").await.unwrap();
        assert_eq!(*counted.0.lock().unwrap(), calls);
        costs.push(calls);
    }
    assert_eq!(costs[0], costs[1]);
}

with_every_copy! {
    i13_several_copies_are_required,
}

mod of_tables {
    use super::{
        i12_i13_nothing_is_decided_while_a_copy_disagrees, i13_a_short_check_finds_new_shreds_that_were_undone,
        i13_a_short_check_finds_that_the_log_is_behind_its_copy, i13_a_short_check_finds_that_the_log_went_back,
        i13_a_whole_check_finds_rows_that_were_restored_alone, i14_a_short_check_finds_a_chain_that_does_not_go_on,
    };

    support::on_sqlite_and_postgres! {
        i13_a_short_check_finds_that_the_log_is_behind_its_copy,
        i12_i13_nothing_is_decided_while_a_copy_disagrees,
        i13_a_short_check_finds_that_the_log_went_back,
        i13_a_short_check_finds_new_shreds_that_were_undone,
        i13_a_whole_check_finds_rows_that_were_restored_alone,
        i14_a_short_check_finds_a_chain_that_does_not_go_on,
    }
}
