//! What others do while the log and its copies are looked at.

use super::{copy_in, export, schemas, shop, verify_all};
use async_trait::async_trait;
use eventseal::erasure::{CertificateOptions, CopyState, FileCopy, ShredLogCopy};
use eventseal::error::BoxError;
use std::sync::atomic::{AtomicBool, Ordering};
use support::backend::Backend;
use support::customer_scope;

/// A copy that another process writes to, a moment before it is read.
struct Moving<'a, B: Backend> {
    copy: FileCopy,
    db: &'a B,
    id: &'static str,
    has_moved: AtomicBool,
}

#[async_trait]
impl<B: Backend> ShredLogCopy for Moving<'_, B> {
    fn name(&self) -> String {
        self.copy.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        self.copy.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        if !self.has_moved.swap(true, Ordering::SeqCst) {
            let other = self.db.process(schemas());
            self.db.shred(&other, self.id).await;
            export(self.db, &other, &self.copy).await?;
        }
        self.copy.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.copy.append(last, lines).await
    }
}

/// Others decide and export while a certificate, or a check of the log, looks. Nothing is wrong then.
async fn a_copy_that_moves_on_is_no_restore<B: Backend>() {
    let (db, store) = shop::<B>(&["1", "2", "3"]).await;
    let (copy, _folder) = copy_in();
    db.shred(&store, "1").await;
    export(&db, &store, &copy).await.unwrap();
    let moving = |id| Moving { copy: FileCopy::new(copy.path()), db: &db, id, has_moved: AtomicBool::new(false) };
    let (mut connection, options) = (db.connect().await.unwrap(), CertificateOptions::default());
    let scope = customer_scope("1");
    let tx = db.connection(&mut connection);
    let certificate = store.certificate(tx, &scope, &[&moving("2")], &options, &mut |_| {}).await.unwrap();
    assert!(certificate.proved, "{:?}", certificate.remarks);
    drop(connection);
    let report = verify_all(&db, &store, &[&moving("3")]).await;
    assert!(report.is_sound(), "{report:?}");
    assert!(matches!(report.copies[0].state, CopyState::Complete | CopyState::Behind), "{report:?}");
}

support::on_sqlite_and_postgres! {
    a_copy_that_moves_on_is_no_restore,
}
