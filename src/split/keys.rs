//! Key tables whose database is not that of the events.

use super::{KeySide, SplitTx};
use crate::error::{Error, Result, TransactionFault};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, DestroyedKey, DueScope, FirstKeys, FirstKeysCreated, KekRecord, KekUsage, KeyHistory, KeyStore,
    KeyTable, KeyTableNames, KeyWork, ListedScope, LogDisagreement, LogEntry, LogHead, NewDataKey, RestoredScopes,
    ScopeLock, ScopeRecord, SealedEntry,
};
use crate::sql::{committing, database};
use crate::store::TableWork;
use async_trait::async_trait;
use sqlx::Database;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use time::OffsetDateTime;

/// Key tables whose transaction is a [`SplitTx`]: in another database than the events.
///
/// A new key that an append makes is committed at once. After a shred, reopening, rotation, disabling or enabling, the
/// same `SplitTx` accepts no more appends ([`TransactionFault::SplitChange`]): commit it, and begin another one.
pub struct SplitKeys<Ks, T, K> {
    inner: Arc<Ks>,
    tx: PhantomData<fn(T, K)>,
}

impl<Ks, T, K> SplitKeys<Ks, T, K> {
    /// Wraps the tables that hold the keys.
    pub fn new(keys: Ks) -> Self {
        Self { inner: Arc::new(keys), tx: PhantomData }
    }
}

impl<Ks, T, K> Clone for SplitKeys<Ks, T, K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), tx: PhantomData }
    }
}

impl<Ks: fmt::Debug, T, K> fmt::Debug for SplitKeys<Ks, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SplitKeys").field(&self.inner).finish()
    }
}

impl<Ks, T, K> SplitKeys<Ks, T, K>
where
    Ks: KeyStore<Tx = K::Connection> + 'static,
    T: Send + 'static,
    K: Database,
{
    /// Commits the keys that an append made, before the events that need them, and takes the locks again.
    async fn insert_and_commit(&self, side: &mut KeySide<K>, keys: &[NewDataKey]) -> Result<()> {
        if side.changed {
            return Err(Error::Transaction(TransactionFault::SplitChange));
        }
        let held = side.hold().await?;
        // The keys must be as durable as the events, or a crash could lose the keys and keep the events.
        self.inner.commit_durably(held).await?;
        self.inner.insert_keys(held, keys).await?;
        if let Some(held) = side.held.take() {
            held.commit().await.map_err(database("committing new keys"))?;
        }
        for key in keys {
            side.shared.insert(key.scope.clone(), Some(key.key_id));
        }
        // For a moment nothing was locked. Check that the keys of this transaction did not change meanwhile.
        let scopes: Vec<KeyScope> = side.shared.keys().cloned().collect();
        let records = self.inner.scopes(side.hold().await?, &scopes, ScopeLock::Share).await?;
        if side.are_unchanged(&records) { Ok(()) } else { Err(Error::Collision { source: None }) }
    }
}

/// Runs a call that reads. If there is a transaction on the keys, the call runs in it and sees its changes. Otherwise
/// it runs on a connection of its own, and sees what is committed when it starts.
macro_rules! read {
    ($tx:ident, |$connection:ident| $call:expr) => {
        match &mut $tx.keys.held {
            Some(held) => {
                let $connection: &mut K::Connection = &mut *held;
                $call.await
            }
            None => {
                let mut own = $tx.keys.connect().await?;
                let $connection: &mut K::Connection = &mut own;
                $call.await
            }
        }
    };
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Ks, T, K> KeyStore for SplitKeys<Ks, T, K>
where
    Ks: KeyStore<Tx = K::Connection> + 'static,
    T: Send + 'static,
    K: Database,
{
    type Tx = SplitTx<T, K>;

    fn can_look_first(&self) -> bool {
        self.inner.can_look_first()
    }

    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        tx.keys.held.is_some()
    }

    async fn sees_newest_state(&self, tx: &mut Self::Tx) -> Result<bool> {
        read!(tx, |connection| self.inner.sees_newest_state(connection))
    }

    /// The events are in another database.
    fn table_names(&self) -> Option<&KeyTableNames> {
        None
    }

    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>> {
        read!(tx, |connection| self.inner.namespace(connection))
    }

    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>> {
        read!(tx, |connection| self.inner.active_kek(connection, partition))
    }

    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        read!(tx, |connection| self.inner.keks(connection, kek_ids))
    }

    async fn announce_writing(&self, tx: &mut Self::Tx) -> Result<()> {
        self.inner.announce_writing(tx.keys.hold().await?).await
    }

    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        let side = &mut tx.keys;
        match lock {
            ScopeLock::None => return read!(tx, |connection| self.inner.scopes(connection, scopes, lock)),
            // The events are committed before these changes, so they must not depend on them.
            ScopeLock::Share if side.changed => return Err(Error::Transaction(TransactionFault::SplitChange)),
            _ => {}
        }
        let records = self.inner.scopes(side.hold().await?, scopes, lock).await?;
        if lock == ScopeLock::Share {
            let tables: Arc<dyn KeyStore<Tx = K::Connection>> = Arc::<Ks>::clone(&self.inner);
            side.tables = Some(tables);
            let shared = records.iter().filter(|record| !record.scope.is_integrity());
            side.shared
                .extend(shared.map(|record| (record.scope.clone(), record.active.as_ref().map(|key| key.key_id))));
        } else {
            side.updated.extend(scopes.iter().cloned());
        }
        Ok(records)
    }

    /// An append to another database takes the usual steps.
    fn creates_at_once(&self) -> bool {
        false
    }

    async fn create_if_new(&self, tx: &mut Self::Tx, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        let known = self.scopes(tx, first.scopes, ScopeLock::None).await?;
        Ok(FirstKeysCreated { created: false, locked: false, known })
    }

    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()> {
        self.inner.create_scopes(tx.keys.hold().await?, scopes).await
    }

    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()> {
        let side = &mut tx.keys;
        if keys.iter().any(|key| side.shared.contains_key(&key.scope) && !side.updated.contains(&key.scope)) {
            return self.insert_and_commit(side, keys).await;
        }
        side.changed = true;
        self.inner.insert_keys(side.hold().await?, keys).await
    }

    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()> {
        self.inner.commit_durably(tx.keys.hold().await?).await
    }

    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        read!(tx, |connection| self.inner.data_keys(connection, key_ids))
    }

    async fn change_scope(&self, tx: &mut Self::Tx, entry: &LogEntry) -> Result<()> {
        tx.keys.changed = true;
        self.inner.change_scope(tx.keys.hold().await?, entry).await
    }

    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>> {
        tx.keys.changed = true;
        self.inner.destroy_keys(tx.keys.hold().await?, scope, at).await
    }

    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        read!(tx, |connection| self.inner.history(connection, scope))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<Ks, T, K> KeyTable for SplitKeys<Ks, T, K>
where
    Ks: KeyTable<Tx = K::Connection> + 'static,
    T: Send + 'static,
    K: Database,
{
    async fn in_transaction(&self, tx: &mut Self::Tx, operation: &'static str, work: &mut dyn KeyWork) -> Result<()> {
        read!(tx, |connection| self.inner.in_transaction(connection, operation, work))
    }

    async fn transact(
        &self,
        tx: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn TableWork<Self::Tx>,
    ) -> Result<()> {
        if tx.keys.held.is_some() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation }));
        }
        let own = Own(tx);
        self.inner.commit_durably(own.0.keys.hold().await?).await?;
        work.run(own.0).await?;
        match own.0.keys.held.take() {
            Some(held) => held.commit().await.map_err(committing(operation)),
            None => Ok(()),
        }
    }

    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>> {
        read!(tx, |connection| self.inner.kek_usage(connection))
    }

    async fn scopes_from(&self, tx: &mut Self::Tx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        read!(tx, |connection| self.inner.scopes_from(connection, from, limit))
    }

    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes> {
        read!(tx, |connection| self.inner.restored_scopes(connection, limit))
    }

    async fn due_scopes(
        &self,
        tx: &mut Self::Tx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        read!(tx, |connection| self.inner.due_scopes(connection, by, after, limit))
    }

    async fn held_scopes(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        read!(tx, |connection| self.inner.held_scopes(connection, after, limit))
    }

    async fn log_head(&self, tx: &mut Self::Tx) -> Result<LogHead> {
        read!(tx, |connection| self.inner.log_head(connection))
    }

    async fn log_entries(&self, tx: &mut Self::Tx, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        read!(tx, |connection| self.inner.log_entries(connection, after, limit))
    }

    async fn log_disagreements(&self, tx: &mut Self::Tx, limit: u32) -> Result<Vec<LogDisagreement>> {
        read!(tx, |connection| self.inner.log_disagreements(connection, limit))
    }
}

/// A transaction on the keys that a call began itself. Whatever is left of it is rolled back when the call ends,
/// also if its future is dropped.
struct Own<'t, T, K: Database>(&'t mut SplitTx<T, K>);

impl<T, K: Database> Drop for Own<'_, T, K> {
    fn drop(&mut self) {
        let side = &mut self.0.keys;
        (side.held, side.tables, side.changed) = (None, None, false);
        side.shared.clear();
        side.updated.clear();
    }
}
