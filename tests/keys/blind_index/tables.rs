//! The contract of tables of blind indexes, on everything that implements it.

use super::Indexed;
use async_trait::async_trait;
use eventseal::blind_index::{BlindEntry, BlindIndexTable};
use eventseal::conformance;
use eventseal::keys::KeyId;
use eventseal::memory::{MemoryBlindIndex, MemoryTx};
use eventseal::postgres::PostgresBlindIndex;
use eventseal::sqlite::SqliteBlindIndex;
use eventseal::{KeyScope, Result};
use sqlx::{Connection, SqliteConnection};
use std::sync::Arc;
use support::backend::Backend;
use support::{Memory, Postgres, Sqlite, caught, on_every_database};

on_every_database! {
    a_table_keeps_the_contract,
}

async fn a_table_keeps_the_contract<B: Indexed>() {
    let db = B::make().await;
    for _ in 0..2 {
        db.migrate_index().await;
    }
    conformance::blind_index_table(&db, &B::Table::default()).await;
    let shared: Arc<dyn BlindIndexTable<Tx = B::Tx>> = Arc::new(B::Table::default());
    conformance::blind_index_table(&db, &shared).await;
}

#[tokio::test]
async fn tables_with_names_of_their_own_keep_the_contract() {
    let db = Postgres::empty().await;
    let table = PostgresBlindIndex::new().in_schema("Keys").unwrap().table("Shop_blind").unwrap();
    table.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::blind_index_table(&db, &table).await;
    let by_hand = PostgresBlindIndex::new().table("by_hand").unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(by_hand.migration_sql())).execute(&db.pool).await.unwrap();
    conformance::blind_index_table(&db, &by_hand).await;
    let db = Sqlite::empty().await;
    let table = SqliteBlindIndex::new().table("Shop_blind").unwrap();
    table.migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    conformance::blind_index_table(&db, &table).await;
}

/// A table in memory that breaks one rule.
#[derive(Clone, Copy)]
enum Broken {
    TakesPlaces,
    ForgetsTheScope,
    ForgetsTheGeneration,
    IgnoresTheIndex,
    DropsOneScopeTooMany,
    KeepsEntries,
    IsAlwaysFinished,
}

/// The entry of another scope at the same place.
fn of(entry: &BlindEntry, id: &str) -> BlindEntry {
    BlindEntry { scope: KeyScope::new("Customer", id), ..entry.clone() }
}

#[async_trait]
impl BlindIndexTable for Broken {
    type Tx = MemoryTx;

    async fn add(&self, tx: &mut MemoryTx, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        if let Self::TakesPlaces = self {
            let others: Vec<_> = entries.iter().flat_map(|entry| ["1", "2"].map(|id| of(entry, id))).collect();
            MemoryBlindIndex::new().remove(tx, &others).await?;
        }
        MemoryBlindIndex::new().add(tx, entries).await
    }

    async fn find(
        &self,
        tx: &mut MemoryTx,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        let index = if let Self::IgnoresTheIndex = self {
            index.trim_end_matches('d').to_lowercase() + "d"
        } else {
            index.into()
        };
        MemoryBlindIndex::new().find(tx, &index, hashes, limit).await
    }

    async fn remove(&self, tx: &mut MemoryTx, entries: &[BlindEntry]) -> Result<()> {
        if let Self::ForgetsTheScope = self {
            let others: Vec<_> = entries.iter().flat_map(|entry| ["1", "2"].map(|id| of(entry, id))).collect();
            return MemoryBlindIndex::new().remove(tx, &others).await;
        }
        if let Self::ForgetsTheGeneration = self {
            let any = (1..=9).flat_map(|generation| entries.iter().map(move |entry| (generation, entry)));
            let any: Vec<_> = any.map(|(generation, entry)| BlindEntry { generation, ..entry.clone() }).collect();
            return MemoryBlindIndex::new().remove(tx, &any).await;
        }
        MemoryBlindIndex::new().remove(tx, entries).await
    }

    async fn keep_only(
        &self,
        tx: &mut MemoryTx,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        if let Self::KeepsEntries = self {
            return Ok(());
        }
        MemoryBlindIndex::new().keep_only(tx, index, scope, hashes).await
    }

    async fn drop_scope(&self, tx: &mut MemoryTx, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        if let Self::DropsOneScopeTooMany = self {
            MemoryBlindIndex::new()
                .drop_scope(tx, &KeyScope::new("Customer", format!("{}1", scope.id())), None)
                .await?;
        }
        MemoryBlindIndex::new().drop_scope(tx, scope, before).await
    }

    async fn scopes_after(&self, tx: &mut MemoryTx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        MemoryBlindIndex::new().scopes_after(tx, after, limit).await
    }

    async fn unfinished(
        &self,
        tx: &mut MemoryTx,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        if let Self::IsAlwaysFinished = self {
            return Ok(None);
        }
        MemoryBlindIndex::new().unfinished(tx, active, older).await
    }

    async fn drop_keys(&self, tx: &mut MemoryTx, keys: &[KeyId], limit: u32) -> Result<u64> {
        MemoryBlindIndex::new().drop_keys(tx, keys, limit).await
    }
}

#[tokio::test]
async fn broken_tables_are_caught() {
    for (broken, rule) in [
        (Broken::TakesPlaces, "a unique place holds one entry"),
        (Broken::ForgetsTheScope, "an entry is removed if its scope is the same"),
        (Broken::ForgetsTheGeneration, "an entry is removed if its generation is the same"),
        (Broken::IgnoresTheIndex, "index, key and hash must be the same"),
        (Broken::DropsOneScopeTooMany, "entries of other scopes are kept"),
        (Broken::KeepsEntries, "those with one of the hashes are kept"),
        (Broken::IsAlwaysFinished, "an entry in another index does not count"),
    ] {
        let suite = async move { conformance::blind_index_table(&Memory::make().await, &broken).await };
        caught("a broken table", rule, suite).await;
    }
}

/// A table that makes one of its changes outside of a transaction too: it begins one of its own.
struct Autocommits(&'static str);

/// Calls the table, in a transaction of its own if this is the broken call and there is none.
macro_rules! call {
    ($self:ident, $tx:ident, $call:ident ( $($argument:expr),* )) => {{
        if $tx.is_in_transaction() || $self.0 != stringify!($call) {
            return SqliteBlindIndex::new().$call($tx, $($argument),*).await;
        }
        let mut own = $tx.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let done = SqliteBlindIndex::new().$call(&mut own, $($argument),*).await;
        own.commit().await.unwrap();
        done
    }};
}

#[async_trait]
impl BlindIndexTable for Autocommits {
    type Tx = SqliteConnection;

    async fn add(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        call!(self, tx, add(entries))
    }

    async fn find(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        SqliteBlindIndex::new().find(tx, index, hashes, limit).await
    }

    async fn remove(&self, tx: &mut Self::Tx, entries: &[BlindEntry]) -> Result<()> {
        call!(self, tx, remove(entries))
    }

    async fn keep_only(
        &self,
        tx: &mut Self::Tx,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        call!(self, tx, keep_only(index, scope, hashes))
    }

    async fn drop_scope(&self, tx: &mut Self::Tx, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        call!(self, tx, drop_scope(scope, before))
    }

    async fn scopes_after(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        SqliteBlindIndex::new().scopes_after(tx, after, limit).await
    }

    async fn unfinished(
        &self,
        tx: &mut Self::Tx,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        SqliteBlindIndex::new().unfinished(tx, active, older).await
    }

    async fn drop_keys(&self, tx: &mut Self::Tx, keys: &[KeyId], limit: u32) -> Result<u64> {
        call!(self, tx, drop_keys(keys, limit))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_write_outside_of_transactions_are_caught() {
    for broken in ["add", "remove", "keep_only", "drop_scope", "drop_keys"] {
        let suite = async move {
            let db = Sqlite::make().await;
            SqliteBlindIndex::new().migrate(&mut db.pool.acquire().await.unwrap()).await.unwrap();
            conformance::blind_index_table(&db, &Autocommits(broken)).await;
        };
        caught(broken, "entries are changed in a transaction only", suite).await;
    }
}
