//! The shred log: its chain, its copies, and what a restore brings back.

mod at_once;
mod carried;
mod certificates;
mod copies;
mod cut_off;
mod faults;
mod gaps;
mod invented;
mod locks;
mod many;
mod meanwhile;
mod old_states;
mod order;
pub(crate) mod places;
mod required;
mod restores;
mod sealing;
mod several;
mod values;
mod verify;

use async_trait::async_trait;
use eventseal::erasure::{
    ExportedLog, FileCopy, Hold, LogReport, ReplayOptions, Replayed, ShredLogCopy, Verified, VerifyOptions,
};
use eventseal::keys::{KeyTable, LogHead, SealedEntry};
use eventseal::{NewEvent, Result, Schemas, SealedStore, event};
use sqlx::{AssertSqlSafe, Executor};
use support::backend::Backend;
use support::{Postgres, Sqlite, customer, customer_scope};
use tempfile::TempDir;

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

fn placed(id: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{id}","name":"Ada"}}"#))
}

/// A shop with an order of each of these customers.
async fn shop<B: Backend>(ids: &[&str]) -> (B, SealedStore<B::Store>) {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for id in ids {
        db.append(&store, id, &[placed(id)]).await;
    }
    (db, store)
}

async fn seal<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<LogHead> {
    store.keys().seal_log(db.connection(&mut db.connect().await?)).await
}

async fn chain<B: Backend>(db: &B) -> Vec<SealedEntry> {
    let mut connection = db.connect().await.unwrap();
    B::Keys::default().log_entries(db.connection(&mut connection), 0, 100_000).await.unwrap()
}

async fn hold<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) -> Hold {
    let mut transaction = db.begin().await.unwrap();
    let hold = store.keys().hold(db.tx(&mut transaction), &customer_scope(id), "case 7", None).await.unwrap();
    db.commit(transaction).await.unwrap();
    hold
}

/// A copy that is empty. The folder must outlive it.
fn copy_in() -> (FileCopy, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (FileCopy::new(folder.path().join("log")), folder)
}

async fn export<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: &dyn ShredLogCopy) -> Result<ExportedLog> {
    store.keys().export_log(db.connection(&mut db.connect().await?), copy, &mut |_| {}).await
}

async fn verify<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: Option<&FileCopy>) -> LogReport {
    verify_all(db, store, &ports(copy)).await
}

async fn verify_all<B: Backend>(db: &B, store: &SealedStore<B::Store>, copies: &[&dyn ShredLogCopy]) -> LogReport {
    let mut connection = db.connect().await.unwrap();
    store.keys().verify_log(db.connection(&mut connection), copies, &mut |_| {}).await.unwrap()
}

async fn replay<B: Backend>(db: &B, store: &SealedStore<B::Store>, copies: &[&dyn ShredLogCopy]) -> Result<Replayed> {
    let options = ReplayOptions::default();
    let mut connection = db.connect().await.unwrap();
    store.keys().replay_log(db.connection(&mut connection), copies, &options, &mut |_| {}).await
}

/// A verification of everything that is stored.
async fn verify_store<B: Backend>(db: &B, store: &SealedStore<B::Store>, copy: Option<&FileCopy>) -> Verified {
    let (mut connection, options) = (db.connect().await.unwrap(), VerifyOptions::default());
    store.verify(db.connection(&mut connection), &ports(copy), &options, &mut |_| {}).await.unwrap()
}

fn ports(copy: Option<&FileCopy>) -> Vec<&dyn ShredLogCopy> {
    copy.into_iter().map(|copy| -> &dyn ShredLogCopy { copy }).collect()
}

/// Somebody who can write to the tables, and switches their triggers and foreign keys off.
#[async_trait]
trait Intruder: Backend {
    async fn write(&self, sql: &str);
}

#[async_trait]
impl Intruder for Postgres {
    async fn write(&self, sql: &str) {
        let sql = format!("BEGIN; SET LOCAL session_replication_role = replica; {sql}; COMMIT");
        self.pool.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

#[async_trait]
impl Intruder for Sqlite {
    async fn write(&self, sql: &str) {
        let mut connection = self.pool.acquire().await.unwrap();
        let of_keys = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN
            ('data_keys', 'key_scopes', 'key_encryption_keys', 'shred_entries', 'shred_log', 'shred_log_head')";
        let triggers: Vec<String> = sqlx::query_scalar(of_keys).fetch_all(&mut *connection).await.unwrap();
        let drops: String = triggers.iter().map(|name| format!("DROP TRIGGER \"{name}\";")).collect();
        let sql = format!("PRAGMA foreign_keys = OFF; {drops} {sql}; PRAGMA foreign_keys = ON");
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}
