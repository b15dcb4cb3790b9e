//! Copies in a file, in SQLite and in PostgreSQL: each keeps the same contract, and meets the same faults.

use super::places::{InPostgres, InSqlite, Place, with_every_copy, with_tables};
use super::restores::{RESTORE_ALL, SAVE, prepare};
use super::{Intruder, export, hold, placed, replay, schemas, shop, verify_all};
use async_trait::async_trait;
use eventseal::erasure::{CopyState, ReplayOptions, ShredLogCopy};
use eventseal::error::{BoxError, KeyFault};
use eventseal::keys::KeyManager;
use eventseal::memory::{MemoryDb, MemoryKeys};
use eventseal::postgres::PostgresCopy;
use eventseal::sqlite::SqliteCopy;
use eventseal::{Error, Namespace, Result, SealedStore, conformance};
use sqlx::Executor;
use std::sync::Arc;
use std::time::Duration;
use support::backend::Backend;
use support::{KEYRING, contains, customer_scope, whole};

#[expect(clippy::extra_unused_type_parameters, reason = "tests of copies name a database of keys too")]
async fn every_copy_keeps_the_contract<B, P: Place>() {
    let place = P::make().await;
    conformance::shred_log_copy(&place.copy().await, &place.copy().await).await;
}

/// A log of five entries, and a copy of it.
async fn logged<B: Backend, P: Place>() -> (B, SealedStore<B::Store>, P) {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    db.shred(&store, "3").await;
    db.disable(&store, "1").await;
    db.reopen(&store, "3").await;
    db.enable(&store, "1").await;
    super::seal(&db, &store).await.unwrap();
    hold(&db, &store, "2").await;
    let place = P::make().await;
    let exported = export(&db, &store, &place.copy().await).await.unwrap();
    assert_eq!((exported.added, exported.seq, exported.began), (5, 5, true));
    (db, store, place)
}

/// The line of the copy that an error names.
fn line_of<T: std::fmt::Debug>(result: &Result<T>) -> Option<u64> {
    match result {
        Err(Error::Keys(KeyFault::LogCopy { line, .. })) => *line,
        other => panic!("the copy was not refused: {other:?}"),
    }
}

/// Lines of a copy that somebody has changed, and the line that an error must name.
fn changed(lines: &[String]) -> Vec<(&'static str, Vec<String>, u64)> {
    let altered = |index: usize, from: &str, to: &str| {
        assert!(lines[index].contains(from));
        let mut lines = lines.to_vec();
        lines[index] = lines[index].replacen(from, to, 1);
        (lines, index as u64 + 1)
    };
    let mut cases = Vec::new();
    for (what, (lines, line)) in [
        ("a reason", altered(3, "request", "another")),
        ("an id", altered(1, r#""id":"1""#, r#""id":"2""#)),
        ("a number", altered(3, r#""seq":3"#, r#""seq":4"#)),
        ("a namespace", altered(4, "conformance", "elsewhere")),
        ("no JSON", altered(4, "{", "")),
        ("another wrapped key", altered(0, "wrapped_key\":\"", "wrapped_key\":\"AAAA")),
        ("a newer format", altered(5, "\"shred_log\":1", "\"shred_log\":9")),
    ] {
        cases.push((what, lines, line));
    }
    for missing in 1..5 {
        let mut left = lines.to_vec();
        left.remove(missing);
        cases.push(("a missing line", left, missing as u64 + 1));
    }
    let mut swapped = lines.to_vec();
    swapped.swap(1, 2);
    cases.push(("exchanged lines", swapped, 2));
    let mut repeated = lines.to_vec();
    repeated.insert(4, altered(2, "go on", "another").0[2].clone());
    cases.push(("a line that was repeated and altered", repeated, 5));
    cases
}

async fn i14_whatever_is_changed_in_a_copy_is_found<B: Backend, P: Place>() {
    let (db, store, place) = logged::<B, P>().await;
    let lines = place.copy().await.lines(0, 100).await.unwrap();
    assert_eq!(lines.len(), 6, "the keys, and five entries");
    for (what, changed, line) in changed(&lines) {
        place.write(&changed).await;
        let copy = place.copy().await;
        let found = verify_all(&db, &store, &[&copy]).await;
        assert!(!found.is_sound() && found.copies.is_empty(), "{what}: {found:?}");
        let refused = replay(&db, &store, &[&copy]).await;
        assert_eq!(line_of(&refused), Some(line), "{what}: {refused:?}");
        assert!(refused.unwrap_err().to_string().contains(&copy.name()), "an error names the copy");
    }
    // Lines that come twice are no fault.
    let twice: Vec<String> = [0, 1, 1, 2, 1, 2, 3, 4, 5].map(|index: usize| lines[index].clone()).to_vec();
    place.write(&twice).await;
    let found = verify_all(&db, &store, &[&place.copy().await]).await;
    assert_eq!((found.is_sound(), found.copies[0].state), (true, CopyState::Complete));
    // The end is missing: so it looks after a restore of the copy, or before an export.
    place.write(&lines[..4]).await;
    let found = verify_all(&db, &store, &[&place.copy().await]).await;
    assert_eq!((found.is_sound(), found.copies[0].state), (true, CopyState::Behind));
    let exported = export(&db, &store, &place.copy().await).await.unwrap();
    assert_eq!((exported.added, exported.began), (2, false));
    assert_eq!(place.copy().await.lines(0, 100).await.unwrap(), lines, "it is as it was");
    // An export does not go on from an end that somebody altered.
    for last in ["no line".to_owned(), lines[5].replacen("\"seq\":5", "\"seq\":4", 1)] {
        place.write(&[&lines[..5], &[last]].concat()).await;
        assert!(export(&db, &store, &place.copy().await).await.is_err());
    }
}

async fn a_copy_of_another_namespace_is_refused<B: Backend, P: Place>() {
    let (_, _, place) = logged::<B, P>().await;
    let copy = place.copy().await;
    let before = copy.lines(0, 100).await.unwrap();
    let db = MemoryDb::new(Namespace::new("other").unwrap());
    let keys = KeyManager::new(MemoryKeys::new(), Arc::clone(&KEYRING));
    keys.prepare(&mut db.begin()).await.unwrap();
    let mut tx = db.begin();
    keys.shred(&mut tx, &customer_scope("1"), "request").await.unwrap();
    tx.commit().unwrap();
    let exported = keys.export_log(&mut db.begin(), &copy, &mut |_| {}).await;
    assert_eq!(line_of(&exported), None, "{exported:?}");
    let options = ReplayOptions::default();
    let replayed = keys.replay_log(&mut db.begin(), &[&copy], &options, &mut |_| {}).await;
    assert_eq!(line_of(&replayed), Some(1));
    assert!(format!("{}", replayed.unwrap_err()).contains("namespace"));
    assert!(!keys.verify_log(&mut db.begin(), &[&copy], &mut |_| {}).await.unwrap().is_sound());
    assert_eq!(copy.lines(0, 100).await.unwrap(), before);
}

/// Each of them succeeds, and the copy has every entry once.
async fn exporters_at_once_lose_and_repeat_nothing<B: Backend, P: Place>() {
    let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (db, store) = shop::<B>(&ids).await;
    let place = P::make().await;
    export(&db, &store, &place.copy().await).await.unwrap();
    let (db, store, place) = (Arc::new(db), Arc::new(store), Arc::new(place));
    let tasks: Vec<_> = (0..4_usize)
        .map(|task| {
            let (db, store, place) = (Arc::clone(&db), Arc::clone(&store), Arc::clone(&place));
            tokio::spawn(async move {
                let copy = place.copy().await;
                for id in 0..3 {
                    let id = (task * 3 + id).to_string();
                    retried(|| db.try_shred(&store, &id)).await;
                    retried(|| export(&*db, &store, &copy)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let copy = place.copy().await;
    let found = verify_all(&*db, &store, &[&copy]).await;
    assert_eq!((found.is_sound(), found.seq, found.copies[0].state), (true, 12, CopyState::Complete), "{found:?}");
    assert_eq!(copy.lines(0, 100).await.unwrap().len(), 13, "the keys, and each entry once");
}

/// A copy whose answers are lost: lines are added, and the caller is told that they were not.
struct Lossy<C>(C);

#[async_trait]
impl<C: ShredLogCopy> ShredLogCopy for Lossy<C> {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> std::result::Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> std::result::Result<Vec<String>, BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> std::result::Result<(), BoxError> {
        self.0.append(last, lines).await?;
        Err("the answer was lost".into())
    }
}

/// An export looks at what became of an append that failed, and adds nothing twice.
async fn an_answer_that_is_lost_is_no_loss<B: Backend, P: Place>() {
    let (db, store, place) = logged::<B, P>().await;
    db.shred(&store, "1").await;
    let exported = export(&db, &store, &Lossy(place.copy().await)).await.unwrap();
    assert_eq!(exported.seq, 6);
    assert_eq!(place.copy().await.lines(0, 100).await.unwrap().len(), 7, "the keys, and each entry once");
    let found = verify_all(&db, &store, &[&place.copy().await]).await;
    assert_eq!((found.is_sound(), found.copies[0].state), (true, CopyState::Complete));
}

/// Runs a call again that collided with others at the key table.
async fn retried<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
    let deadline = support::deadline::Deadline::of("for a call that collides");
    loop {
        match call().await {
            Err(Error::Collision { .. }) => deadline.check(),
            done => return done.unwrap(),
        }
    }
}

/// Nothing of a page is left, and a later export adds all of it.
async fn a_disk_that_is_full_leaves_the_copy_as_it_was<B: Backend, P: Place>() {
    let (db, store, place) = logged::<B, P>().await;
    let before = place.copy().await.lines(0, 100).await.unwrap();
    for id in 0..40 {
        let mut transaction = db.begin().await.unwrap();
        let (scope, reason) = (customer_scope(&format!("new {id}")), "r".repeat(1_000));
        store.keys().shred(db.tx(&mut transaction), &scope, &reason).await.unwrap();
        db.commit(transaction).await.unwrap();
    }
    place.fill_up().await;
    let full = export(&db, &store, &place.copy().await).await.unwrap_err();
    assert!(matches!(full, Error::Keys(KeyFault::LogCopy { .. })), "{full:?}");
    assert!(full.to_string().contains("nothing was added to it"), "{full}");
    assert_eq!(place.copy().await.lines(0, 100).await.unwrap(), before, "nothing is half written");
    place.make_room().await;
    assert_eq!(export(&db, &store, &place.copy().await).await.unwrap().added, 40);
    let found = verify_all(&db, &store, &[&place.copy().await]).await;
    assert_eq!((found.is_sound(), found.copies[0].state), (true, CopyState::Complete));
}

/// The drill: a restore to before a shred and to before a reopening, where the copy is required.
async fn i13_what_a_restore_brings_back_opens_nothing<B: Intruder, P: Place>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    super::seal(&db, &store).await.unwrap();
    db.write(SAVE).await;
    db.shred(&store, "1").await;
    db.shred(&store, "2").await;
    db.reopen(&store, "2").await;
    let place = P::make().await;
    export(&db, &store, &place.copy().await).await.unwrap();
    let copy = place.copy().await;
    let requiring = || db.process_over(db.keys().require_shred_log(copy.clone(), Duration::ZERO), schemas());
    let running = requiring();
    prepare(&db, &running).await.unwrap();
    db.write(RESTORE_ALL).await;
    assert!(contains(&db.read(&store, "1").await.unwrap()[0].payload, "Ada"), "this is what has to be prevented");
    for process in [running, requiring()] {
        for id in ["1", "2", "3"] {
            let refused = db.read(&process, id).await;
            assert!(
                matches!(&refused, Err(Error::Keys(KeyFault::ShredLogBehind { copy: named, .. }))
                    if *named == copy.name()),
                "{refused:?}"
            );
        }
    }
    let done = replay(&db, &store, &[&copy]).await.unwrap();
    assert_eq!((done.missing, done.destroyed, done.forked, &done.copy), (3, 2, false, &copy.name()), "{done:?}");
    let again = requiring();
    assert!(!contains(&db.read(&again, "1").await.unwrap()[0].payload, "Ada"));
    assert!(!contains(&db.read(&again, "2").await.unwrap()[0].payload, "Ada"));
    assert!(contains(&db.read(&again, "3").await.unwrap()[0].payload, "Ada"));
    db.append(&again, "2", &[placed("2")]).await;
    assert!(verify_all(&db, &store, &[&copy]).await.is_sound());
}

/// A place that holds nothing is no copy, whether there is a table or not.
async fn an_empty_copy_is_refused<B: Backend, P: Place>() {
    let (db, store) = shop::<B>(&["1"]).await;
    let place = P::make().await;
    let copy = place.copy().await;
    let process = db.process_over(db.keys().require_shred_log(copy.clone(), Duration::ZERO), schemas());
    for refused in [prepare(&db, &process).await, replay(&db, &store, &[&copy]).await.map(drop)] {
        let refused = refused.unwrap_err();
        assert!(refused.to_string().contains(&format!("{} is empty", copy.name())), "{refused}");
    }
    assert_eq!(verify_all(&db, &store, &[&copy]).await.copies[0].state, CopyState::Empty);
    export(&db, &store, &copy).await.unwrap();
    prepare(&db, &process).await.unwrap();
}

/// Somebody who may write to the table can add lines, and change none.
#[tokio::test]
async fn rows_of_a_copy_never_change() {
    let (_, _, place) = logged::<support::Memory, InPostgres>().await;
    for sql in ["UPDATE shred_log_copy SET text = ''", "DELETE FROM shred_log_copy", "TRUNCATE shred_log_copy"] {
        let refused = place.0.pool.execute(sql).await.unwrap_err();
        assert!(refused.to_string().contains("only ever added"), "{sql}: {refused}");
    }
    let (_, _, place) = logged::<support::Memory, InSqlite>().await;
    for sql in [
        "UPDATE shred_log_copy SET text = ''",
        "DELETE FROM shred_log_copy",
        "REPLACE INTO shred_log_copy (line, text) VALUES (2, '')",
    ] {
        let refused = place.0.pool.execute(sql).await.unwrap_err();
        assert!(refused.to_string().contains("only ever added"), "{sql}: {refused}");
    }
}

/// A role that may only read and add exports. The table is its owner's.
#[tokio::test]
async fn a_role_that_may_only_add_exports() {
    let (db, store) = shop::<support::Memory>(&["1"]).await;
    let place = InPostgres::make().await;
    let role = format!("copier_{}", uuid::Uuid::now_v7().simple());
    place.copy().await.in_schema("logs").unwrap().table("shop").unwrap().migrate().await.unwrap();
    let page = std::fs::read_to_string(support::sources::repository().join("docs/operations.md")).unwrap();
    let grant = page.lines().find(|line| line.starts_with("GRANT SELECT, INSERT ON shred_log_copy")).unwrap();
    let grant = grant.replace("shred_log_copy", "logs.shop").replace("copier", &role);
    let grants = format!("CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA logs TO {role}; {grant}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(grants)).execute(&place.0.pool).await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new().connect_lazy_with(place.0.options.clone().username(&role));
    let copy = PostgresCopy::new(pool).in_schema("logs").unwrap().table("shop").unwrap();
    assert!(copy.name().ends_with("#logs.shop") && copy.name().contains(&role), "{}", copy.name());
    export(&db, &store, &copy).await.unwrap();
    db.shred(&store, "1").await;
    assert_eq!(export(&db, &store, &copy).await.unwrap().added, 1);
    let found = verify_all(&db, &store, &[&copy]).await;
    assert_eq!((found.is_sound(), found.copies[0].state), (true, CopyState::Complete));
    drop(copy);
    let drop_role = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop_role)).execute(&place.0.pool).await.unwrap();
}

/// Two key databases in one place have a table each.
#[tokio::test]
async fn tables_have_names_of_their_own() {
    let place = InSqlite::make().await;
    let options = place.0.pool.connect_options();
    let named = |table: &str| {
        let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        SqliteCopy::new(pool.connect_lazy_with((*options).clone())).table(table).unwrap()
    };
    conformance::shred_log_copy(&named("shop"), &named("shop")).await;
    conformance::shred_log_copy(&named("bank"), &named("bank")).await;
    assert!(place.copy().await.last().await.unwrap().is_none());
    assert!(place.copy().await.table("no; table").is_err());
    let sql = named("made_by_hand").migration_sql();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&place.0.pool).await.unwrap();
    conformance::shred_log_copy(&named("made_by_hand"), &named("made_by_hand")).await;
}

/// Neither the name of a copy nor an error shows the password.
#[tokio::test]
async fn a_database_that_is_away_is_an_error_without_its_password() {
    let (db, store) = shop::<support::Memory>(&["1"]).await;
    let pool = sqlx::postgres::PgPoolOptions::new().acquire_timeout(Duration::from_millis(200));
    let copy = PostgresCopy::new(pool.connect_lazy("postgres://copier:S3CRET@127.0.0.1:1/logs").unwrap());
    assert_eq!(copy.name(), "postgres://copier@127.0.0.1:1/logs");
    let away = export(&db, &store, &copy).await.unwrap_err();
    assert!(matches!(away, Error::Keys(KeyFault::LogCopy { .. })), "{away:?}");
    assert!(!whole(&away).contains("S3CRET") && !format!("{copy:?}").contains("S3CRET"), "{}", whole(&away));
}

with_every_copy! {
    every_copy_keeps_the_contract,
    i14_whatever_is_changed_in_a_copy_is_found,
    a_copy_of_another_namespace_is_refused,
    exporters_at_once_lose_and_repeat_nothing,
    an_answer_that_is_lost_is_no_loss,
    an_empty_copy_is_refused,
}

mod of_tables {
    use super::{a_disk_that_is_full_leaves_the_copy_as_it_was, i13_what_a_restore_brings_back_opens_nothing};

    super::with_tables! {
        a_disk_that_is_full_leaves_the_copy_as_it_was,
        i13_what_a_restore_brings_back_opens_nothing,
    }
}
