//! What a restore brings back, where a copy of the shred log is required.

use super::{Intruder, copy_in, export, hold, placed, schemas, shop, verify};
use eventseal::erasure::{CertificateOptions, CopyState, FileCopy, ReplayOptions, Replayed, ShredMode, SweepOptions};
use eventseal::error::{EventFault, KeyFault};
use eventseal::keys::{KeyTable as _, ShredRequest};
use eventseal::{Error, Result, SealedStore};
use std::time::Duration;
use support::backend::Backend;
use support::deadline::Deadline;
use support::{contains, customer_scope};

/// A process that requires the copy, and has just started.
pub(super) fn requiring<B: Backend>(db: &B, copy: &FileCopy, period: Duration) -> SealedStore<B::Store> {
    db.process_over(db.keys().require_shred_log(FileCopy::new(copy.path()), period), schemas())
}

pub(super) async fn prepare<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<()> {
    store.keys().prepare(db.connection(&mut db.connect().await?)).await
}

pub(super) async fn replay<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: &FileCopy) -> Replayed {
    super::replay(db, store, &[copy]).await.unwrap()
}

/// Looks whether a call is refused. On SQLite, an append with a check reads before it writes, so it may first collide
/// with the rollback of the one before.
pub(super) async fn is_behind<T: std::fmt::Debug>(call: impl AsyncFn() -> Result<T>) {
    let deadline = Deadline::of("for a refusal");
    loop {
        match call().await {
            Err(Error::Collision { .. }) => deadline.look_again().await,
            result => {
                assert!(matches!(result, Err(Error::Keys(KeyFault::ShredLogBehind { .. }))), "{result:?}");
                return;
            }
        }
    }
}

/// Nothing opens and nothing is sealed, whatever the process has done before.
async fn refuses<B: Backend>(db: &B, copy: &FileCopy, running: &SealedStore<B::Store>) {
    let starting = requiring(db, copy, Duration::from_secs(3_600));
    is_behind(async || prepare(db, &starting).await).await;
    for process in [running, &starting] {
        for id in ["1", "3"] {
            is_behind(async || db.read(process, id).await).await;
            is_behind(async || db.try_append(process, id, &[placed(id)]).await).await;
        }
    }
}

/// The events of an order, as a process that requires the copy reads them.
pub(super) async fn read<B: Backend>(db: &B, copy: &FileCopy, id: &str) -> Vec<&'static str> {
    let process = requiring(db, copy, Duration::ZERO);
    let of = |event: &eventseal::PersistedEvent| if contains(&event.payload, "Ada") { "open" } else { "redacted" };
    match db.read(&process, id).await {
        Ok(events) => events.iter().map(of).collect(),
        Err(Error::Event { fault: EventFault::MissingKey { .. }, .. }) => vec!["missing"],
        Err(error) => panic!("{error:?}"),
    }
}

pub(super) const SAVE: &str = "CREATE TABLE saved_keys AS SELECT * FROM data_keys;
    CREATE TABLE saved_scopes AS SELECT * FROM key_scopes; CREATE TABLE saved_entries AS SELECT * FROM shred_entries;
    CREATE TABLE saved_log AS SELECT * FROM shred_log; CREATE TABLE saved_head AS SELECT * FROM shred_log_head";
/// Key rows alone, with the log untouched.
pub(super) const RESTORE_ROWS: &str = "DELETE FROM data_keys WHERE key_id IN (SELECT key_id FROM saved_keys);
    INSERT INTO data_keys SELECT * FROM saved_keys;
    DELETE FROM key_scopes WHERE scope_id IN (SELECT scope_id FROM saved_scopes WHERE scope_id <> '2');
    INSERT INTO key_scopes SELECT * FROM saved_scopes WHERE scope_id <> '2'";
/// All tables.
pub(super) const RESTORE_ALL: &str = "DELETE FROM shred_log; DELETE FROM shred_entries; DELETE FROM shred_log_head;
    DELETE FROM data_keys; DELETE FROM key_scopes; INSERT INTO key_scopes SELECT * FROM saved_scopes;
    INSERT INTO data_keys SELECT * FROM saved_keys; INSERT INTO shred_entries SELECT * FROM saved_entries;
    INSERT INTO shred_log SELECT * FROM saved_log; INSERT INTO shred_log_head SELECT * FROM saved_head";

/// A shop, a backup of its keys, and what came after it: two shreds, a reopening with a new event, and a customer who
/// came and went.
pub(super) async fn after_a_backup<B: Intruder>() -> (B, SealedStore<B::Store>, FileCopy, tempfile::TempDir) {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.disable(&store, "3").await;
    db.enable(&store, "3").await;
    super::seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    db.shred(&store, "2").await;
    db.reopen(&store, "2").await;
    db.append(&store, "2", &[placed("2")]).await;
    db.append(&store, "4", &[placed("4")]).await;
    db.shred(&store, "4").await;
    let (copy, folder) = copy_in();
    assert_eq!(export(&db, &store, &copy).await.unwrap().seq, 6);
    let process = requiring(&db, &copy, Duration::ZERO);
    prepare(&db, &process).await.unwrap();
    (db, process, copy, folder)
}

async fn i13_key_rows_that_were_restored_alone_open_nothing<B: Intruder>() {
    let (db, running, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ROWS).await;
    let unguarded = db.process(schemas());
    assert!(contains(&db.read(&unguarded, "1").await.unwrap()[0].payload, "Ada"), "this is what has to be prevented");
    refuses(&db, &copy, &running).await;
    let done = replay(&db, &unguarded, &copy).await;
    assert_eq!((done.missing, done.destroyed, done.tombstones, done.forked), (0, 2, 0, false), "{done:?}");
    assert!(done.is_complete());
    assert_eq!(read(&db, &copy, "1").await, ["redacted"]);
    assert_eq!(read(&db, &copy, "2").await, ["redacted", "open"], "what came after the reopening stays");
    assert_eq!(read(&db, &copy, "3").await, ["open"]);
    assert!(db.try_append(&running, "1", &[placed("1")]).await.unwrap_err().is_shredded());
    db.append(&running, "2", &[placed("2")]).await;
    let again = replay(&db, &unguarded, &copy).await;
    assert_eq!((again.destroyed, again.disagreed), (0, 0), "a second replay does nothing");
    assert!(verify(&db, &unguarded, Some(&copy)).await.is_sound());
}

async fn i13_a_database_that_was_restored_opens_nothing<B: Intruder>() {
    let (db, running, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    assert!(contains(&db.read(&unguarded, "1").await.unwrap()[0].payload, "Ada"), "this is what has to be prevented");
    refuses(&db, &copy, &running).await;
    let options = {
        let mut options = ReplayOptions::default();
        options.dry_run = true;
        options
    };
    let mut connection = db.connect().await.unwrap();
    let keys = unguarded.keys();
    let found = keys.replay_log(db.connection(&mut connection), &[&copy], &options, &mut |_| {}).await.unwrap();
    assert_eq!((found.entries, found.missing, found.forked), (6, 4, false));
    drop(connection);
    refuses(&db, &copy, &running).await;

    let done = replay(&db, &unguarded, &copy).await;
    assert_eq!((done.missing, done.destroyed, done.tombstones, done.forked), (4, 2, 1, false), "{done:?}");
    assert!(done.is_complete());
    assert_eq!(read(&db, &copy, "1").await, ["redacted"]);
    assert_eq!(read(&db, &copy, "2").await, ["missing"], "a key that came after the backup is lost, and not erased");
    assert_eq!(read(&db, &copy, "3").await, ["open"]);
    assert_eq!(read(&db, &copy, "4").await, ["redacted"], "the table never had this key");
    let report = verify(&db, &unguarded, Some(&copy)).await;
    assert_eq!((report.is_sound(), report.copies.first().map(|copy| copy.state)), (true, Some(CopyState::Complete)));
    for id in ["1", "4"] {
        assert!(db.try_append(&running, id, &[placed(id)]).await.unwrap_err().is_shredded());
    }
    db.append(&running, "2", &[placed("2")]).await;
    assert_eq!(export(&db, &unguarded, &copy).await.unwrap().added, 0);
    assert_eq!(replay(&db, &unguarded, &copy).await.missing, 0);
}

/// A dry run says what the replay leaves for somebody to decide: here a key that was made since the restore.
async fn a_dry_run_foresees_what_is_left<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let store = db.process(schemas());
    let mut transaction = db.begin().await.unwrap();
    store.keys().rotate_data_key(db.tx(&mut transaction), &customer_scope("1")).await.unwrap();
    db.commit(transaction).await.unwrap();
    let mut dry = ReplayOptions::default();
    dry.dry_run = true;
    let mut connection = db.connect().await.unwrap();
    let keys = store.keys();
    let plan = keys.replay_log(db.connection(&mut connection), &[&copy], &dry, &mut |_| {}).await.unwrap().planned;
    drop(connection);
    let done = replay(&db, &store, &copy).await;
    assert_eq!(done.undecided, [customer_scope("1")], "{done:?}");
    for planned in plan {
        let is_left = done.undecided.contains(&planned.scope);
        let state = db.history(&store, planned.scope.id()).await.unwrap().state;
        assert_eq!((planned.is_undecided, planned.state), (is_left, state), "{planned:?}");
    }
}

/// A process that does not require the copy has written since the restore.
async fn i13_a_log_that_went_on_since_the_restore_is_a_fork<B: Intruder>() {
    let (db, running, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    let held = hold(&db, &unguarded, "1").await;
    db.append(&unguarded, "4", &[placed("4")]).await;
    db.disable(&unguarded, "3").await;
    super::seal(&db, &unguarded).await.unwrap();
    refuses(&db, &copy, &running).await;
    let report = verify(&db, &unguarded, Some(&copy)).await;
    assert_eq!((report.is_sound(), report.copies[0].state), (false, CopyState::Forked));

    let done = replay(&db, &unguarded, &copy).await;
    assert!(done.forked && !done.is_complete(), "{done:?}");
    assert_eq!(done.held, [customer_scope("1")], "I12: a held scope is not shredded");
    assert_eq!(done.undecided, [customer_scope("4")], "a key that no shred names");
    let report = verify(&db, &unguarded, Some(&copy)).await;
    assert_eq!((report.is_sound(), report.copies[0].state), (false, CopyState::Forked), "a shred is missing");
    let (early, _folder) = copy_in();
    let refused = export(&db, &unguarded, &early).await.unwrap_err().to_string();
    assert!(refused.contains("release the holds") && refused.contains("replay that copy again"), "{refused}");
    let mut transaction = db.begin().await.unwrap();
    unguarded.keys().release(db.tx(&mut transaction), &held, "over").await.unwrap();
    db.commit(transaction).await.unwrap();
    db.shred(&unguarded, "4").await;
    let done = replay(&db, &unguarded, &copy).await;
    assert!(done.is_complete() && done.missing == 1 && done.forked, "{done:?}");
    let again = replay(&db, &unguarded, &copy).await;
    assert_eq!((again.missing, again.destroyed, again.disagreed), (0, 0, 0), "{again:?}");

    // The old copy stays as evidence, and a new one is begun.
    let refused = export(&db, &unguarded, &copy).await;
    assert!(matches!(refused, Err(Error::Keys(KeyFault::LogCopy { .. }))), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("begin a new copy"));
    let (new, _other) = copy_in();
    export(&db, &unguarded, &new).await.unwrap();
    let report = verify(&db, &unguarded, Some(&new)).await;
    assert_eq!((report.is_sound(), report.copies[0].state), (true, CopyState::Complete));
    let state = verify(&db, &unguarded, Some(&copy)).await.copies[0].state;
    assert_eq!(state, CopyState::Replayed);
    prepare(&db, &requiring(&db, &new, Duration::ZERO)).await.unwrap();
    assert_eq!(read(&db, &new, "1").await, ["redacted"]);
    assert_eq!(read(&db, &new, "4").await, ["redacted", "redacted"]);
    let disabled = db.read(&db.process(schemas()), "3").await;
    assert!(matches!(disabled, Err(Error::Disabled { .. })), "what was decided since the restore holds: {disabled:?}");
}

/// What was shredded since the restore stays shredded, whatever the copy says of the time before.
async fn i13_a_shred_since_the_restore_outlives_a_reopening_in_the_copy<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    db.shred(&unguarded, "2").await;
    let done = replay(&db, &unguarded, &copy).await;
    assert!(done.forked && done.is_complete(), "{done:?}");
    assert!(db.try_append(&unguarded, "2", &[placed("2")]).await.unwrap_err().is_shredded());
    assert!(verify(&db, &unguarded, None).await.is_sound());
}

/// A schedule of the copy does not outlive a shred since the restore.
async fn i14_a_replay_schedules_nothing_that_is_shredded<B: Intruder>() {
    let (db, store) = shop::<B>(&["1"]).await;
    db.disable(&store, "1").await;
    db.enable(&store, "1").await;
    super::seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    let scope = customer_scope("1");
    let due = time::OffsetDateTime::now_utc() + Duration::from_secs(2);
    let mut transaction = db.begin().await.unwrap();
    store.keys().schedule_shred(db.tx(&mut transaction), &scope, due, ShredMode::Redact, "request").await.unwrap();
    db.commit(transaction).await.unwrap();
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write(RESTORE_ALL).await;
    let unguarded = db.process(schemas());
    db.shred(&unguarded, "1").await;
    let done = replay(&db, &unguarded, &copy).await;
    assert!(done.forked && done.missing == 1 && done.is_complete(), "{done:?}");
    support::deadline::passed(due).await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    let swept = unguarded.keys().sweep(connection, &SweepOptions::default(), &mut |_| {}).await.unwrap();
    assert!(swept.failed.is_empty() && swept.shredded == 0, "{swept:?}");
    assert_eq!(unguarded.keys().schedule_of(connection, &scope).await.unwrap(), None);
    let options = CertificateOptions::default();
    let certificate = unguarded.certificate(connection, &scope, &[], &options, &mut |_| {}).await.unwrap();
    assert!(certificate.erased && certificate.schedule.is_none(), "{certificate:?}");
}

/// A backup that was made after a restore, and before the replay, has the keys that the shred destroyed.
async fn a_horizon_begins_anew_at_a_replay<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    let unguarded = db.process(schemas());
    let mut options = CertificateOptions::default();
    let day = Duration::from_secs(86_400);
    (options.retention.backups, options.retention.archives) = (Some(35 * day), Some(Duration::ZERO));
    options.retention.replicas = Some(Duration::ZERO);
    let scope = customer_scope("1");
    let certify = async || {
        let mut connection = db.connect().await.unwrap();
        let connection = db.connection(&mut connection);
        unguarded.certificate(connection, &scope, &[&copy], &options, &mut |_| {}).await.unwrap()
    };
    let first = certify().await;
    let shred = first.last_shred().unwrap().at;
    assert_eq!(first.horizon.as_ref().unwrap().at, Some(shred + 35 * day));
    db.write(RESTORE_ALL).await;
    let before = time::OffsetDateTime::now_utc();
    replay(&db, &unguarded, &copy).await;
    let again = certify().await;
    assert!(again.erased && again.last_shred().unwrap().at == shred, "{again:?}");
    let horizon = again.horizon.as_ref().unwrap();
    assert!(horizon.at.unwrap() > before + 35 * day, "the backup of the time between has the key: {horizon:?}");
    assert!(horizon.assumptions[0].contains("it had come back"), "{horizon:?}");
}

/// A writer hides a key row from a shred and puts it back: no entry names the key.
async fn a_key_that_was_hidden_from_its_shred_is_found<B: Intruder>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    let (copy, _folder) = copy_in();
    db.write("CREATE TABLE hidden AS SELECT key_id FROM data_keys WHERE scope_id = '1'").await;
    db.write("UPDATE key_scopes SET active_key_id = NULL WHERE scope_id = '1'").await;
    let set = |id: &str| {
        format!(
            "UPDATE data_keys SET scope_id = '{id}', version = version + 7
        WHERE key_id IN (SELECT key_id FROM hidden)"
        )
    };
    db.write(&set("2")).await;
    db.shred(&store, "1").await;
    export(&db, &store, &copy).await.unwrap();
    db.write(&set("1")).await;
    let report = verify(&db, &store, Some(&copy)).await;
    let found = format!("{:?}", report.findings);
    assert!(!report.is_sound() && found.contains("KeyCameBack"), "{found}");
    is_behind(async || prepare(&db, &requiring(&db, &copy, Duration::ZERO)).await).await;
}

/// A scope whose row says that it is shredded, and whose entries do not: its shred is a decision like any other.
async fn a_shred_without_a_key_left_is_counted_and_sealed<B: Intruder>() {
    let (db, store) = shop::<B>(&["1"]).await;
    db.write(
        "UPDATE key_scopes SET state = 'shredded', active_key_id = NULL WHERE scope_id = '1';
        UPDATE data_keys SET wrapped_key = NULL, state = 'shredded', shredded_at = created_at WHERE scope_id = '1'",
    )
    .await;
    let requests = [ShredRequest { scope: customer_scope("1"), reason: "request".to_owned() }];
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    for expected in [(1, 0, 0), (0, 0, 1)] {
        let done = store.keys().shred_many(connection, &requests, &mut |_| {}).await.unwrap();
        assert_eq!((done.shredded, done.destroyed, done.already), expected, "{done:?}");
        let head = B::Keys::default().log_head(connection).await.unwrap();
        assert_eq!((head.seq, head.unsealed), (1, false), "its entry is sealed");
    }
}

async fn an_empty_required_copy_is_refused_with_its_own_words<B: Backend>() {
    let (db, unguarded) = shop::<B>(&["1"]).await;
    let (copy, _folder) = copy_in();
    let process = requiring(&db, &copy, Duration::from_secs(3_600));
    let refused = prepare(&db, &process).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::LogCopy { .. })), "{refused:?}");
    assert!(refused.to_string().contains("is empty, and it is required"), "{refused}");
    assert!(db.read(&process, "1").await.is_err());
    // Even an empty log can be begun.
    let exported = export(&db, &unguarded, &copy).await.unwrap();
    assert_eq!((exported.added, exported.began), (0, true));
    prepare(&db, &process).await.unwrap();
    assert_eq!(db.read(&process, "1").await.unwrap().len(), 1);
    db.append(&process, "1", &[placed("1")]).await;
    // The log may be ahead of its copy.
    db.shred(&process, "1").await;
    prepare(&db, &process).await.unwrap();
}

support::on_every_database! {
    an_empty_required_copy_is_refused_with_its_own_words,
}

mod of_tables {
    use super::{
        a_dry_run_foresees_what_is_left, a_horizon_begins_anew_at_a_replay,
        a_key_that_was_hidden_from_its_shred_is_found, a_shred_without_a_key_left_is_counted_and_sealed,
        i13_a_database_that_was_restored_opens_nothing, i13_a_log_that_went_on_since_the_restore_is_a_fork,
        i13_a_shred_since_the_restore_outlives_a_reopening_in_the_copy,
        i13_key_rows_that_were_restored_alone_open_nothing, i14_a_replay_schedules_nothing_that_is_shredded,
    };

    support::on_sqlite_and_postgres! {
        a_dry_run_foresees_what_is_left,
        a_shred_without_a_key_left_is_counted_and_sealed,
        a_horizon_begins_anew_at_a_replay,
        a_key_that_was_hidden_from_its_shred_is_found,
        i14_a_replay_schedules_nothing_that_is_shredded,
        i13_key_rows_that_were_restored_alone_open_nothing,
        i13_a_database_that_was_restored_opens_nothing,
        i13_a_log_that_went_on_since_the_restore_is_a_fork,
        i13_a_shred_since_the_restore_outlives_a_reopening_in_the_copy,
    }
}
