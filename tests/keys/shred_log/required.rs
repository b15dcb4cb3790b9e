//! What the checks of required copies find, by which check, and what they cost.

use super::places::{Place, with_every_copy};
use super::restores::{RESTORE_ALL, RESTORE_ROWS, SAVE, prepare};
use super::{Intruder, copy_in, export, hold, placed, schemas, seal, shop};
use async_trait::async_trait;
use eventseal::erasure::{CopyState, FileCopy, Hold, ShredLogCopy as _, ShredMode, SweepOptions};
use eventseal::error::KeyFault;
use eventseal::keys::{KeyId, KeyManager, RewrapOptions, ShredRequest};
use eventseal::memory::{MemoryKeys, MemoryStore};
use eventseal::{Error, Result, SealedStore};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::backend::Backend;
use support::deadline::Deadline;
use support::faults::{Faulty, KeyFaults};
use support::sources::async_methods;
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
            Err(Error::Collision { .. }) => deadline.look_again().await,
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
    /// When the shred of scope 2 is due.
    due: OffsetDateTime,
    copy: FileCopy,
    _folder: TempDir,
}

/// A database that is restored to before a hold on scope 1, and to before the shred of scope 2, due then, was
/// cancelled.
async fn restored_to_before_a_hold<B: Intruder>(due_in: Duration) -> Restored<B> {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    let scheduled = customer_scope("2");
    let mut tx = db.begin().await.unwrap();
    let due = OffsetDateTime::now_utc() + due_in;
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
    Restored { db, store, process, held, due, copy, _folder }
}

/// Calls that decide nothing about a scope, so they need not agree with a copy.
const DECIDE_NOTHING: [&str; 20] = [
    // They look for themselves.
    "prepare",
    "open",
    // They read.
    "holds",
    "holds_of",
    "kek_usage",
    "key_history",
    "restored_scopes",
    "schedule_of",
    "schedules",
    "scopes",
    "similar_scopes",
    // They repair, or say what is to be repaired.
    "copy_log",
    "export_log",
    "replay_log",
    "seal_log",
    "verify_log",
    // They are about key-encryption keys.
    "create_kek",
    "move_master_key",
    "retire_kek",
    "rotate_kek",
];

/// The public calls of key managers, and of those that name an actor, by the names of the variables in the test.
fn public_calls() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    for (of, called) in [("KeyManager", "keys"), ("KeyOperator", "clerk")] {
        let methods = async_methods(of);
        assert!(methods.contains("shred"), "{methods:?}");
        let deciding = methods.iter().filter(|name| !DECIDE_NOTHING.contains(&name.as_str()));
        calls.extend(deciding.map(|name| format!("{called}.{name}")));
    }
    calls
}

/// Makes calls that must be refused, and notes their names.
macro_rules! are_refused {
    ($db:ident, $noted:ident, $begin:ident, $open:ident: $($keys:ident.$verb:ident($($argument:expr),*);)*) => {$(
        let call = async || {
            let mut opened = $db.$begin().await?;
            $keys.$verb($db.$open(&mut opened), $($argument),*).await.map(drop)
        };
        is_behind(call, "its copy").await;
        $noted.insert(concat!(stringify!($keys), ".", stringify!($verb)).to_owned());
    )*};
}

/// What a restore has lost may be a hold, or the end of a schedule, or of adoption. So no path changes a scope before
/// the replay.
async fn i12_i13_nothing_is_decided_while_a_copy_disagrees<B: Intruder>() {
    let (scope, scheduled) = (customer_scope("1"), customer_scope("2"));
    let soon = Duration::from_secs(2);
    let Restored { db, store, process, held, due, copy, _folder } = restored_to_before_a_hold::<B>(soon).await;
    let mut refused = BTreeSet::new();
    let (keys, clerk) = (process.keys(), process.keys().acting_as("clerk 7"));
    are_refused! { db, refused, begin, tx:
        keys.shred(&scope, "request");
        clerk.shred(&scope, "request");
        keys.hold(&scope, "case 8", None);
        clerk.hold(&scope, "case 8", None);
        keys.release(&held, "over");
        clerk.release(&held, "over");
        keys.schedule_shred(&scope, due + LONG, ShredMode::Redact, "leaving");
        clerk.schedule_shred(&scope, due + LONG, ShredMode::Redact, "leaving");
        keys.cancel(&scheduled, "stays");
        clerk.cancel(&scheduled, "stays");
        keys.disable(&scope, "incident");
        clerk.disable(&scope, "incident");
        keys.enable(&scope, "over");
        clerk.enable(&scope, "over");
        keys.reopen(&scope, "back");
        clerk.reopen(&scope, "back");
        keys.rotate_data_key(&scope);
        keys.rotate_index_key();
    }
    support::deadline::passed(due).await;
    let requests = [ShredRequest { scope: scope.clone(), reason: "request".into() }];
    are_refused! { db, refused, connect, connection:
        keys.sweep(&SweepOptions::default(), &mut |_| {});
        clerk.sweep(&SweepOptions::default(), &mut |_| {});
        keys.shred_many(&requests, &mut |_| {});
        clerk.shred_many(&requests, &mut |_| {});
        keys.shred_partition("default", "leaves", &mut |_| {});
        clerk.shred_partition("default", "leaves", &mut |_| {});
        keys.adopt_entries("the upgrade");
        clerk.adopt_entries("the upgrade");
        keys.rewrap(&RewrapOptions::default(), &mut |_| {});
        keys.retire_index_keys(KeyId(uuid::Uuid::nil()));
    }
    assert_eq!(refused, public_calls(), "each call is made here, or in DECIDE_NOTHING with a reason");
    nothing_was_decided(&db, &store).await;

    // The replay brings both back.
    super::replay(&db, &store, &[&copy]).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let shred = process.keys().shred(db.tx(&mut tx), &scope, "request").await;
    assert!(matches!(shred, Err(Error::Keys(KeyFault::Held { .. }))), "{shred:?}");
    assert_eq!(store.keys().schedule_of(db.tx(&mut tx), &scheduled).await.unwrap(), None);
}

/// The calls that look, repair and begin a copy work while the copy that their own key manager requires does not agree.
async fn i13_a_restore_is_repaired_where_the_copy_is_required<B: Intruder>() {
    let Restored { db, store, process, copy, _folder, .. } = restored_to_before_a_hold::<B>(LONG).await;
    is_behind(async || prepare(&db, &process).await, "its copy").await;
    // The log goes on in another way, so it needs a new copy after the replay.
    db.disable(&store, "1").await;
    seal(&db, &process).await.unwrap();
    let found = super::verify(&db, &process, Some(&copy)).await;
    assert!(!found.is_sound() && found.copies[0].state == CopyState::Forked, "{found:?}");
    let behind = export(&db, &process, &copy).await;
    assert!(matches!(behind, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{behind:?}");
    let (evidence, _evidence) = copy_in();
    assert!(export(&db, &process, &evidence).await.unwrap().began, "what there is can be kept as evidence");
    is_behind(async || db.read(&process, "1").await, "its copy").await;

    let replayed = super::replay(&db, &process, &[&copy]).await.unwrap();
    assert!(replayed.forked && replayed.is_complete(), "{replayed:?}");
    let found = super::verify(&db, &process, Some(&copy)).await;
    assert!(found.is_sound() && found.copies[0].state == CopyState::Replayed, "{found:?}");
    let (new, _new) = copy_in();
    export(&db, &process, &new).await.unwrap();
    let process = requiring(&db, &new, LONG);
    prepare(&db, &process).await.unwrap();
    let keys = process.keys();
    let mut tx = db.begin().await.unwrap();
    let shred = keys.shred(db.tx(&mut tx), &customer_scope("1"), "request").await;
    assert!(matches!(shred, Err(Error::Keys(KeyFault::Held { .. }))), "{shred:?}");
}

/// Neither a key nor the log has changed since the restore to before the hold.
async fn nothing_was_decided<B: Backend>(db: &B, store: &SealedStore<B::Store>) {
    let mut connection = db.connect().await.unwrap();
    for (id, entries) in [("1", 0), ("2", 1)] {
        let history = store.keys().key_history(db.connection(&mut connection), &customer_scope(id)).await.unwrap();
        let history = history.unwrap();
        assert!(history.keys.iter().all(|key| key.shredded_at.is_none()), "{id}");
        assert_eq!(history.entries.len(), entries, "{id}");
    }
    assert_eq!(super::chain(db).await.len(), 1, "only the schedule is in the log");
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
        deadline.look_again().await;
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
        i12_i13_nothing_is_decided_while_a_copy_disagrees, i13_a_restore_is_repaired_where_the_copy_is_required,
        i13_a_short_check_finds_new_shreds_that_were_undone, i13_a_short_check_finds_that_the_log_is_behind_its_copy,
        i13_a_short_check_finds_that_the_log_went_back, i13_a_whole_check_finds_rows_that_were_restored_alone,
        i14_a_short_check_finds_a_chain_that_does_not_go_on,
    };

    support::on_sqlite_and_postgres! {
        i13_a_short_check_finds_that_the_log_is_behind_its_copy,
        i12_i13_nothing_is_decided_while_a_copy_disagrees,
        i13_a_restore_is_repaired_where_the_copy_is_required,
        i13_a_short_check_finds_that_the_log_went_back,
        i13_a_short_check_finds_new_shreds_that_were_undone,
        i13_a_whole_check_finds_rows_that_were_restored_alone,
        i14_a_short_check_finds_a_chain_that_does_not_go_on,
    }
}
