//! Certificates of several scopes share one look at the log, its copies and the stored events. Each is the one that the
//! scope gets alone.

use super::restores::{RESTORE_ALL, after_a_backup};
use super::{Intruder, copy_in, export, ports, schemas, shop};
use async_trait::async_trait;
use eventseal::erasure::{
    Certificate, CertificateFindingKind as Kind, CertificateOptions, CertificateProgress, Certified, FileCopy,
    ShredLogCopy,
};
use eventseal::error::{BoxError, KeyFault};
use eventseal::maintenance::{IndexSealsOptions, index_seals};
use eventseal::{Error, KeyScope, NewEvent, Schemas, SealedStore, event, subject};
use std::sync::atomic::{AtomicU32, Ordering};
use support::backend::Backend;
use support::{customer, customer_scope};

/// A copy that counts how often its lines are read.
struct Counted(FileCopy, AtomicU32);

#[async_trait]
impl ShredLogCopy for Counted {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}

async fn certify<B: Backend>(
    db: &B,
    store: &SealedStore<B::Store>,
    ids: &[&str],
    copies: &[&dyn ShredLogCopy],
    progress: &mut (dyn FnMut(CertificateProgress) + Send),
) -> Certified {
    let scopes: Vec<KeyScope> = ids.iter().map(|id| customer_scope(id)).collect();
    let (mut connection, options) = (db.connect().await.unwrap(), CertificateOptions::default());
    store.certificates(db.connection(&mut connection), &scopes, copies, &options, progress).await.unwrap()
}

/// The certificates, which differ in the time at which they were issued.
fn without_time(mut certificates: Vec<Certificate>) -> Vec<Certificate> {
    certificates.iter_mut().for_each(|certificate| certificate.issued_at = time::OffsetDateTime::UNIX_EPOCH);
    certificates
}

async fn are_those_of_each_alone<B: Backend>(db: &B, store: &SealedStore<B::Store>, ids: &[&str], copy: &FileCopy) {
    let together = certify(db, store, ids, &ports(Some(copy)), &mut |_| {}).await;
    assert_eq!((together.certificates.len(), together.failed.len()), (ids.len(), 0), "{together:?}");
    let mut alone = Vec::new();
    for id in ids {
        alone.extend(certify(db, store, &[*id], &ports(Some(copy)), &mut |_| {}).await.certificates);
    }
    assert_eq!(without_time(together.certificates), without_time(alone));
}

/// Events of one customer, and of two.
async fn gifts<B: Backend>() -> (B, SealedStore<B::Store>) {
    let gift = event("Gift").version(1);
    let gift = gift.protect(&["/from"], customer()).protect(&["/to"], subject("Customer", "/receiver"));
    let db = B::make().await;
    let store = db.prepared(Schemas::new([gift]).unwrap()).await;
    for (from, to) in [("1", "1"), ("1", "2"), ("2", "3"), ("3", "4"), ("5", "5"), ("4", "1"), ("3", "3")] {
        let gift = format!(r#"{{"customer":"{from}","receiver":"{to}","from":"Ada","to":"Eve"}}"#);
        db.append(&store, "1", &[NewEvent::raw("Gift", 1, gift)]).await;
    }
    for id in ["1", "3", "5"] {
        db.shred(&store, id).await;
    }
    db.reopen(&store, "5").await;
    (db, store)
}

async fn each_certificate_is_the_one_that_its_scope_gets_alone<B: Backend>() {
    let (db, store) = gifts::<B>().await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let ids = ["4", "1", "3", "5", "2"];
    are_those_of_each_alone(&db, &store, &ids, &copy).await;
    let found = certify(&db, &store, &ids, &ports(Some(&copy)), &mut |_| {}).await.certificates;
    let said: Vec<_> = found.iter().map(|of| (of.scope.id(), of.erased, of.proved, of.events.events)).collect();
    let expected = [
        ("4", false, false, 2),
        ("1", true, true, 3),
        ("3", true, true, 3),
        ("5", false, false, 1),
        ("2", false, false, 2),
    ];
    assert_eq!(said, expected);
    let (table, mut connection) = (B::Store::default(), db.connect().await.unwrap());
    let options = IndexSealsOptions::default();
    index_seals(&table, db.connection(&mut connection), &options, &mut |_| {}).await.unwrap();
    drop(connection);
    // With the index, the events of all of them are looked at.
    let found = certify(&db, &store, &ids, &ports(Some(&copy)), &mut |_| {}).await.certificates;
    assert!(found.iter().all(|of| of.scan.index_used && of.scan.looked_at == 7), "{found:?}");
    assert_eq!(found.iter().map(|of| of.events.events).collect::<Vec<_>>(), [2, 3, 3, 1, 2]);
}

/// The log, the copy and the stored events are read once, however many scopes there are. The progress tells of each.
async fn they_share_one_look<B: Backend>() {
    let (db, store) = gifts::<B>().await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    let mut looks = Vec::new();
    for ids in [&["1"][..], &["1", "2", "3", "4", "5"], &["1", "1", "1"]] {
        let counted = Counted(FileCopy::new(copy.path()), AtomicU32::new(0));
        let mut told = Vec::new();
        let mut note = |progress| match progress {
            CertificateProgress::Log(log) => told.push(("log", log.done, log.total)),
            CertificateProgress::Copy(copy) => told.push(("copy", copy.done, copy.total)),
            CertificateProgress::Events(events) => told.push(("events", events.looked_at, 7)),
            other => panic!("{other:?}"),
        };
        let done = certify(&db, &store, ids, &[&counted], &mut note).await;
        assert_eq!(done.certificates.len(), if ids[1..].contains(&"1") { 1 } else { ids.len() });
        looks.push((told, counted.1.into_inner()));
    }
    let (told, reads) = looks[0].clone();
    assert!(looks.iter().all(|look| *look == (told.clone(), reads)), "{looks:?}");
    assert!(told.contains(&("log", 4, 4)) && told.contains(&("copy", 5, 5)), "{told:?}");
    assert_eq!(told.last(), Some(&("events", 7, 7)));
}

async fn a_scope_without_a_certificate_stops_no_other<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2"]).await;
    db.shred(&store, "2").await;
    let scopes = [customer_scope("unknown"), customer_scope("2"), KeyScope::integrity()];
    let (mut connection, options) = (db.connect().await.unwrap(), CertificateOptions::default());
    let connection = db.connection(&mut connection);
    let done = store.certificates(connection, &scopes, &[], &options, &mut |_| {}).await.unwrap();
    assert!(done.certificates.len() == 1 && done.certificates[0].erased, "{done:?}");
    let failed: Vec<_> = done.failed.iter().map(|failed| failed.scope.clone()).collect();
    assert_eq!(failed, [scopes[0].clone(), scopes[2].clone()]);
    assert!(done.failed.iter().all(|of| matches!(of.error, Error::Keys(KeyFault::ScopeState { .. }))), "{done:?}");
    let none = store.certificates(connection, &scopes[..1], &[], &options, &mut |_| panic!("no look")).await.unwrap();
    assert_eq!((none.certificates.len(), none.failed.len()), (0, 1));
    let wrong = [customer_scope("2"), customer_scope("")];
    assert!(matches!(store.certificates(connection, &wrong, &[], &options, &mut |_| {}).await, Err(Error::Input(_))));
}

/// A lost key of one scope is one of which nobody knows whose it was, in the certificates of the others.
async fn keys_without_rows_are_told_apart<B: Intruder>() {
    let (db, store) = gifts::<B>().await;
    let (copy, _folder) = copy_in();
    export(&db, &store, &copy).await.unwrap();
    db.write("DELETE FROM data_keys WHERE scope_id = '3'").await;
    are_those_of_each_alone(&db, &store, &["1", "2", "3", "4"], &copy).await;
    let found = certify(&db, &store, &["1", "3"], &ports(Some(&copy)), &mut |_| {}).await.certificates;
    assert_eq!((found[0].unknown_keys.events, found[1].unknown_keys.events), (3, 0), "{found:?}");
    assert_eq!(found[1].events.lost_fields, 4, "{found:?}");
}

/// After a restore, each is told of its own decisions that only the copy has.
async fn i13_each_is_told_what_a_restore_took_from_it<B: Intruder>() {
    let (db, _, copy, _folder) = after_a_backup::<B>().await;
    db.write(RESTORE_ALL).await;
    let store = db.process(schemas());
    are_those_of_each_alone(&db, &store, &["1", "2", "3"], &copy).await;
    let found = certify(&db, &store, &["1", "3"], &ports(Some(&copy)), &mut |_| {}).await.certificates;
    let told = |of: &Certificate| of.why_not.iter().any(|finding| finding.kind == Kind::CopyDisagrees);
    assert_eq!((told(&found[0]), told(&found[1])), (true, false), "{found:?}");
}

support::on_every_database! {
    each_certificate_is_the_one_that_its_scope_gets_alone,
    they_share_one_look,
    a_scope_without_a_certificate_stops_no_other,
}

mod of_tables {
    use super::{i13_each_is_told_what_a_restore_took_from_it, keys_without_rows_are_told_apart};

    support::on_sqlite_and_postgres! {
        i13_each_is_told_what_a_restore_took_from_it,
        keys_without_rows_are_told_apart,
    }
}
