//! Copies that have every decision before the call returns in which it was committed.

use super::places::{InSqlite, Place, with_every_copy};
use super::restores::prepare;
use super::{export, schemas, shop};
use async_trait::async_trait;
use eventseal::erasure::{ShredLogCopy, ShredMode, SweepOptions, Swept};
use eventseal::error::{BoxError, ErrorKind, KeyFault};
use eventseal::keys::{ShredRequest, ShreddedMany};
use eventseal::{Error, Result, SealedStore};
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use support::backend::Backend;
use support::{customer_scope, whole};
use time::OffsetDateTime;

/// A copy that can be taken away, and counts what is added.
#[derive(Clone)]
struct Away<C> {
    copy: C,
    is_away: Arc<AtomicBool>,
    appends: Arc<AtomicU32>,
}

impl<C> Away<C> {
    fn new(copy: C) -> Self {
        Self { copy, is_away: Arc::default(), appends: Arc::default() }
    }

    fn set(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn reach(&self) -> std::result::Result<(), BoxError> {
        if self.is_away.load(Ordering::SeqCst) { Err("the cable is out".into()) } else { Ok(()) }
    }
}

#[async_trait]
impl<C: ShredLogCopy> ShredLogCopy for Away<C> {
    fn name(&self) -> String {
        self.copy.name()
    }

    async fn last(&self) -> std::result::Result<Option<String>, BoxError> {
        self.reach()?;
        self.copy.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> std::result::Result<Vec<String>, BoxError> {
        self.reach()?;
        self.copy.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> std::result::Result<(), BoxError> {
        self.reach()?;
        self.copy.append(last, lines).await?;
        self.appends.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A shop whose decisions are copied at once, and the copy, which was begun.
async fn copying<B: Backend, P: Place>(ids: &[&str]) -> (B, SealedStore<B::Store>, Away<P::Copy>, P) {
    let (db, plain) = shop::<B>(ids).await;
    let place = P::make().await;
    let copy = Away::new(place.copy().await);
    export(&db, &plain, &copy).await.unwrap();
    copy.appends.store(0, Ordering::SeqCst);
    let store = db.process_over(db.keys().copy_shred_log(copy.clone()), schemas());
    prepare(&db, &store).await.unwrap();
    (db, store, copy, place)
}

/// The ids of the scopes that the copy has shreds of.
async fn copied(copy: &impl ShredLogCopy) -> Vec<String> {
    let lines = copy.lines(0, 1_000).await.unwrap();
    let lines = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let shreds = lines.filter(|line| line["entry"]["action"] == "shred");
    shreds.map(|line| line["entry"]["id"].as_str().unwrap().to_owned()).collect()
}

async fn shred_many<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    ids: &[&str],
    progress: &mut (dyn FnMut() + Send),
) -> Result<ShreddedMany> {
    let request = |id: &&str| ShredRequest { scope: customer_scope(id), reason: format!("request {id}") };
    let requests: Vec<ShredRequest> = ids.iter().map(request).collect();
    let mut connection = db.connect().await?;
    store.keys().shred_many(db.connection(&mut connection), &requests, &mut |_| progress()).await
}

async fn sweep<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<Swept> {
    let mut connection = db.connect().await?;
    store.keys().sweep(db.connection(&mut connection), &SweepOptions::default(), &mut |_| {}).await
}

/// Schedules a shred, and waits until it is due.
async fn due<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) {
    let at = OffsetDateTime::now_utc() + Duration::from_millis(300);
    let mut transaction = db.begin().await.unwrap();
    let keys = store.keys();
    keys.schedule_shred(db.tx(&mut transaction), &customer_scope(id), at, ShredMode::KeepWorking, "due").await.unwrap();
    db.commit(transaction).await.unwrap();
    support::deadline::passed(at).await;
}

async fn copy_log<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<()> {
    store.keys().copy_log(db.connection(&mut db.connect().await?)).await
}

/// The error says that the shred has happened, which copy does not have it, and what to run.
fn is_not_copied(error: &Error, copy: &impl ShredLogCopy) {
    let is_it = matches!(error, Error::Keys(KeyFault::NotCopied { copy: named, .. }) if *named == copy.name());
    assert!(is_it && error.kind() == ErrorKind::NotCopied && !error.is_retryable(), "{error:?}");
    let command = format!("eventseal shred-log export --append {}", copy.name());
    assert!(error.to_string().contains(&command) && error.to_string().contains("is committed and stays"), "{error}");
    let cause = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert!(matches!(cause, Error::Keys(KeyFault::LogCopy { .. })), "{cause:?}");
    assert!(whole(error).contains("can't be read") || whole(error).contains("can't be written"), "{}", whole(error));
}

async fn what_the_library_commits_is_copied_before_it_is_reported<B: Backend, P: Place>() {
    let (db, store, copy, place) = copying::<B, P>(&["1", "2", "3", "4"]).await;
    let (mut reported, appends) = (0, Arc::clone(&copy.appends));
    let mut progress = || {
        reported += 1;
        assert_eq!(appends.load(Ordering::SeqCst), reported, "each is copied when it is reported");
    };
    shred_many(&db, &store, &["1", "2"], &mut progress).await.unwrap();
    assert_eq!(copied(&place.copy().await).await, ["1", "2"]);
    assert_eq!(shred_many(&db, &store, &["1", "2"], &mut || {}).await.unwrap().already, 2);
    due(&db, &store, "3").await;
    assert_eq!(sweep(&db, &store).await.unwrap().shredded, 1);
    assert_eq!(copied(&place.copy().await).await, ["1", "2", "3"]);
    let mut connection = db.connect().await.unwrap();
    let keys = store.keys();
    keys.shred_partition(db.connection(&mut connection), "default", "over", &mut |_| {}).await.unwrap();
    drop(connection);
    assert_eq!(copied(&place.copy().await).await, ["1", "2", "3", "4"]);
    let found = super::verify_all(&db, &store, &[&place.copy().await]).await;
    assert!(found.is_sound() && found.copies[0].seq == found.seq, "{found:?}");
}

/// The caller commits, and copies after that. What a process that ended in between has left is added by the next one.
async fn what_the_caller_commits_is_copied_by_the_next_call<B: Backend, P: Place>() {
    let (db, store, _, place) = copying::<B, P>(&["1", "2", "3"]).await;
    db.shred(&store, "1").await;
    assert!(copied(&place.copy().await).await.is_empty(), "a process that ends here leaves it open");
    copy_log(&db, &store).await.unwrap();
    assert_eq!(copied(&place.copy().await).await, ["1"]);
    db.shred(&store, "2").await;
    // Another process: its start, or its next decision, adds it.
    let next = db.process_over(db.keys().copy_shred_log(place.copy().await), schemas());
    prepare(&db, &next).await.unwrap();
    assert_eq!(copied(&place.copy().await).await, ["1", "2"]);
    db.shred(&store, "3").await;
    shred_many(&db, &next, &["4"], &mut || {}).await.unwrap();
    assert_eq!(copied(&place.copy().await).await, ["1", "2", "3", "4"]);
}

/// The shred has happened, and nothing after it is begun.
async fn a_copy_that_is_away_is_said_after_the_shred<B: Backend, P: Place>() {
    let (db, store, copy, place) = copying::<B, P>(&["1", "2", "3"]).await;
    db.shred(&store, "1").await;
    copy.set(true);
    let refused = copy_log(&db, &store).await.unwrap_err();
    is_not_copied(&refused, &copy);
    assert!(db.try_append(&store, "1", &[super::placed("1")]).await.unwrap_err().is_shredded(), "it is durable");

    // What the library commits: nothing is begun while the copy is away.
    let refused = shred_many(&db, &store, &["2"], &mut || {}).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::LogCopy { .. })), "{refused:?}");
    let refused = sweep(&db, &store).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::LogCopy { .. })), "{refused:?}");
    db.append(&store, "2", &[super::placed("2")]).await;
    copy.set(false);

    // It goes away in the middle.
    let (appends, going) = (Arc::clone(&copy.appends), copy.clone());
    let before = appends.load(Ordering::SeqCst);
    let refused = shred_many(&db, &store, &["2", "3", "4"], &mut || going.set(true)).await.unwrap_err();
    is_not_copied(&refused, &copy);
    assert!(appends.load(Ordering::SeqCst) > before);
    assert!(db.try_append(&store, "3", &[super::placed("3")]).await.unwrap_err().is_shredded(), "it is durable");
    db.append(&store, "4", &[super::placed("4")]).await;
    copy.set(false);
    assert_eq!(copied(&place.copy().await).await, ["1", "2"]);
    let again = shred_many(&db, &store, &["2", "3", "4"], &mut || {}).await.unwrap();
    assert_eq!((again.already, again.shredded), (2, 1));
    assert_eq!(copied(&place.copy().await).await, ["1", "2", "3", "4"]);
}

/// An empty place may be the wrong one, for instance where a disk is not mounted after a restore. Nothing begins it but
/// an export that somebody asks for.
async fn a_copy_is_never_begun_by_itself<B: Backend, P: Place>() {
    let (db, _) = shop::<B>(&["1"]).await;
    let place = P::make().await;
    let copy = place.copy().await;
    let keys = db.keys().copy_shred_log(copy.clone()).require_shred_log(copy.clone(), Duration::ZERO);
    let store = db.process_over(keys, schemas());
    assert!(prepare(&db, &store).await.unwrap_err().to_string().contains("is empty"));
    let unguarded = db.process(schemas());
    db.shred(&unguarded, "1").await;
    let refused = copy_log(&db, &store).await.unwrap_err();
    assert!(whole(&refused).contains("is empty"), "{}", whole(&refused));
    assert!(shred_many(&db, &store, &["2"], &mut || {}).await.unwrap_err().to_string().contains("is empty"));
    assert!(place.copy().await.last().await.unwrap().is_none());
    export(&db, &store, &copy).await.unwrap();
    prepare(&db, &store).await.unwrap();
    copy_log(&db, &store).await.unwrap();
}

/// If one of several copies is away, the others have the entry all the same.
async fn each_copy_is_written<B: Backend, P: Place>() {
    let (db, _, away, place) = copying::<B, P>(&["1", "2"]).await;
    let other_place = P::make().await;
    let other = other_place.copy().await;
    let store = db.process_over(db.keys().copy_shred_log(away.clone()).copy_shred_log(other.clone()), schemas());
    export(&db, &store, &other).await.unwrap();
    away.set(true);
    db.shred(&store, "1").await;
    is_not_copied(&copy_log(&db, &store).await.unwrap_err(), &away);
    assert_eq!(copied(&other).await, ["1"]);
    away.set(false);
    db.shred(&store, "2").await;
    copy_log(&db, &store).await.unwrap();
    assert_eq!(copied(&other).await, ["1", "2"]);
    assert_eq!(copied(&place.copy().await).await, ["1", "2"]);
}

/// An entry that somebody altered does not hide that a copy lacks what was decided, whichever copy comes first.
async fn i13_an_altered_entry_hides_no_lost_copy<B: super::Intruder>() {
    let (db, plain, away, _place) = copying::<B, InSqlite>(&["1", "2", "3", "4", "5"]).await;
    let other_place = InSqlite::make().await;
    let other = other_place.copy().await;
    export(&db, &plain, &other).await.unwrap();
    let first = db.keys().copy_shred_log(away.clone()).copy_shred_log(other.clone());
    let last = db.keys().copy_shred_log(other.clone()).copy_shred_log(away.clone());
    let stores = [first, last].map(|keys| db.process_over(keys, schemas()));
    let unguarded = db.process(schemas());
    db.disable(&unguarded, "5").await;
    db.write("UPDATE shred_entries SET reason = 'another' WHERE scope_id = '5'").await;
    for (store, ids) in stores.iter().zip([["1", "2"], ["3", "4"]]) {
        away.set(false);
        let lost = shred_many(&db, store, &ids, &mut || away.set(true)).await;
        is_not_copied(&lost.unwrap_err(), &away);
        is_not_copied(&copy_log(&db, store).await.unwrap_err(), &away);
    }
}

mod of_tables {
    support::on_sqlite_and_postgres! {
        i13_an_altered_entry_hides_no_lost_copy,
    }

    use super::i13_an_altered_entry_hides_no_lost_copy;
}

/// After a restore, the copy stays as it is, whatever is decided.
#[tokio::test]
async fn i13_a_copy_is_not_written_after_a_restore() {
    use super::Intruder as _;
    use super::restores::{RESTORE_ALL, SAVE};
    let (db, store, _, place) = copying::<support::Sqlite, InSqlite>(&["1", "2"]).await;
    db.write(SAVE).await;
    shred_many(&db, &store, &["1"], &mut || {}).await.unwrap();
    let before = place.copy().await.lines(0, 100).await.unwrap();
    db.write(RESTORE_ALL).await;
    let again = db.process_over(db.keys().copy_shred_log(place.copy().await), schemas());
    prepare(&db, &again).await.unwrap();
    let refused = shred_many(&db, &again, &["2"], &mut || {}).await.unwrap_err();
    assert!(matches!(refused, Error::Keys(KeyFault::ShredLogBehind { .. })), "{refused:?}");
    db.shred(&again, "2").await;
    let refused = copy_log(&db, &again).await.unwrap_err();
    assert!(whole(&refused).contains("the key table and its shred log are behind"), "{}", whole(&refused));
    assert_eq!(place.copy().await.lines(0, 100).await.unwrap(), before);
}

with_every_copy! {
    what_the_library_commits_is_copied_before_it_is_reported,
    what_the_caller_commits_is_copied_by_the_next_call,
    a_copy_that_is_away_is_said_after_the_shred,
    a_copy_is_never_begun_by_itself,
    each_copy_is_written,
}
