//! The key store of append, read and shred, on PostgreSQL's key tables.
//!
//! The locks of each statement, and their order, decide whether a shred can be lost. The rules are:
//! - the row of the scope is locked first, and `data_keys` changes in a later statement, whose snapshot is newer
//!   than the lock;
//! - rows are locked in ascending order of scope;
//! - an append shares its lock with other appends (`FOR SHARE`), and a change of a scope does not (`FOR UPDATE`).

use super::PostgresKeys;
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::entry::keys_to_text;
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, DestroyedKey, FirstKeys, FirstKeysCreated, KekRecord, KekState, KeyHistory, KeyStore, KeyTableNames,
    LogEntry, NewDataKey, ScopeLock, ScopeRecord,
};
use crate::sql::errors::postgres::{UNDEFINED_TABLE, sql_state};
use crate::sql::keys::{active_key_id, data_key_of_scope, destroyed, history, kek, refused_key, scope};
use crate::sql::own_transaction::OwnTransaction as _;
use crate::sql::{SqlRow, in_transaction, key_database as database};
use async_trait::async_trait;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

#[async_trait]
impl KeyStore for PostgresKeys {
    type Tx = PgConnection;

    fn is_in_transaction(&self, tx: &PgConnection) -> bool {
        tx.is_in_transaction()
    }

    async fn sees_newest_state(&self, tx: &mut PgConnection) -> Result<bool> {
        // A statement outside a transaction begins one of its own, at the same time. It has a snapshot of its own at
        // every isolation level.
        let sql = "SELECT current_setting('transaction_isolation') IN ('read committed', 'read uncommitted')
            OR transaction_timestamp() = statement_timestamp()";
        let row = sqlx::raw_sql(sql).fetch_one(tx).await.map_err(database("reading the isolation level"))?;
        row.flag(0)
    }

    fn table_names(&self) -> Option<&KeyTableNames> {
        Some(&self.tables)
    }

    async fn namespace(&self, tx: &mut PgConnection) -> Result<Option<Namespace>> {
        match query(&self.sql.namespace).fetch_optional(tx).await {
            Ok(row) => row.map(|row| Namespace::new(row.text(0)?)).transpose(),
            Err(error) if sql_state(&error) == Some(UNDEFINED_TABLE) => Ok(None),
            Err(error) => Err(database("reading the namespace")(error)),
        }
    }

    async fn active_kek(&self, tx: &mut PgConnection, partition: &str) -> Result<Option<KekRecord>> {
        let row = query(&self.sql.active_kek)
            .bind(partition)
            .fetch_optional(tx)
            .await
            .map_err(database("reading the active key-encryption key"))?;
        row.as_ref().map(kek).transpose()
    }

    async fn keks(&self, tx: &mut PgConnection, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        let ids: Vec<Uuid> = kek_ids.iter().map(|kek_id| kek_id.0).collect();
        let rows =
            query(&self.sql.keks).bind(ids).fetch_all(tx).await.map_err(database("reading key-encryption keys"))?;
        rows.iter().map(kek).collect()
    }

    async fn announce_writing(&self, tx: &mut PgConnection) -> Result<()> {
        in_transaction(tx, "changing keys")
    }

    async fn scopes(&self, tx: &mut PgConnection, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        if lock != ScopeLock::None {
            in_transaction(tx, "locking key scopes")?;
        }
        if scopes.is_empty() {
            return Ok(Vec::new());
        }
        match lock {
            ScopeLock::None => self.look(tx, scopes).await,
            ScopeLock::Share => self.share(tx, scopes).await,
            ScopeLock::Update => {
                // Each scope can appear between the two statements only once, so the loop ends.
                for _ in 0..=scopes.len() {
                    let before = self.begin_waiting(tx).await?;
                    let (kinds, ids) = columns(scopes);
                    let locked = query(&self.sql.lock_scopes).bind(kinds).bind(ids).execute(&mut *tx).await;
                    let locked = locked.map_err(database("locking key scopes"))?.rows_affected();
                    self.end_waiting(tx, before).await?;
                    // This is a statement of its own, so that its snapshot is newer than the lock.
                    let records = self.look(tx, scopes).await?;
                    if records.len() as u64 <= locked {
                        return Ok(records);
                    }
                    // A scope was committed between the two statements: it exists, but is not locked yet.
                }
                // The scope can be read, but not locked.
                Err(no_effect("locking key scopes", "key_scopes"))
            }
        }
    }

    fn creates_at_once(&self) -> bool {
        // A time-out of its own is set and restored in statements of their own.
        self.lock_timeout.is_none()
    }

    async fn create_if_new(&self, tx: &mut PgConnection, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        in_transaction(tx, "creating data keys")?;
        if !self.creates_at_once() {
            return Ok(FirstKeysCreated { created: false, locked: false, known: self.look(tx, first.scopes).await? });
        }
        self.create(tx, first).await
    }

    async fn create_scopes(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<()> {
        in_transaction(tx, "creating key scopes")?;
        let before = self.begin_waiting(tx).await?;
        let (kinds, ids) = columns(scopes);
        query(&self.sql.create_scopes)
            .bind(kinds)
            .bind(ids)
            .execute(&mut *tx)
            .await
            .map_err(database("creating key scopes"))?;
        self.end_waiting(tx, before).await
    }

    async fn insert_keys(&self, tx: &mut PgConnection, keys: &[NewDataKey]) -> Result<()> {
        in_transaction(tx, "inserting data keys")?;
        self.insert(tx, keys).await
    }

    async fn commit_durably(&self, tx: &mut PgConnection) -> Result<()> {
        in_transaction(tx, "making a commit durable")?;
        Postgres::commit_durably(tx).await
    }

    async fn data_keys(&self, tx: &mut PgConnection, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let ids: Vec<Uuid> = key_ids.iter().map(|key_id| key_id.0).collect();
        let rows = query(&self.sql.data_keys).bind(ids).fetch_all(tx).await.map_err(database("reading data keys"))?;
        rows.iter().map(data_key_of_scope).collect()
    }

    async fn change_scope(&self, tx: &mut PgConnection, entry: &LogEntry) -> Result<()> {
        const OPERATION: &str = "changing a key scope";
        in_transaction(tx, OPERATION)?;
        let recorded = query(&self.sql.change_scope)
            .bind(entry.entry_id)
            .bind(entry.scope.kind())
            .bind(entry.scope.id())
            .bind(i64::from(entry.scope_seq))
            .bind(entry.at)
            .bind(entry.action.as_str())
            .bind(entry.state.as_str())
            .bind(i64::from(entry.generation))
            .bind(keys_to_text(&entry.keys))
            .bind(entry.until)
            .bind(entry.about)
            .bind(&entry.reason)
            .bind(entry.actor.as_deref())
            .bind(entry.mac.map(|mac| mac.key_id.0))
            .bind(entry.mac.map(|mac| mac.mac.to_vec()))
            .execute(tx)
            .await
            .map_err(database(OPERATION))?;
        if recorded.rows_affected() == 1 { Ok(()) } else { Err(no_effect(OPERATION, "key_scopes or shred_entries")) }
    }

    async fn destroy_keys(
        &self,
        tx: &mut PgConnection,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<DestroyedKey>> {
        const OPERATION: &str = "destroying data keys";
        in_transaction(tx, OPERATION)?;
        let rows = query(&self.sql.destroy_keys)
            .bind(scope.kind())
            .bind(scope.id())
            .bind(at)
            .fetch_all(&mut *tx)
            .await
            .map_err(database(OPERATION))?;
        let left = query(&self.sql.any_key_of_scope).bind(scope.kind()).bind(scope.id()).fetch_optional(tx).await;
        if left.map_err(database(OPERATION))?.is_some() {
            return Err(no_effect(OPERATION, "data_keys"));
        }
        destroyed(&rows)
    }

    async fn history(&self, tx: &mut PgConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let rows = query(&self.sql.history).bind(scope.kind()).bind(scope.id()).fetch_all(tx).await;
        history(&rows.map_err(database("reading a key history"))?)
    }
}

impl PostgresKeys {
    /// Sets the configured timeout for statements that may wait for a lock. Returns the setting to restore. After an
    /// error nothing has to be restored, because the transaction is aborted, and its settings with it.
    pub(super) async fn begin_waiting(&self, tx: &mut PgConnection) -> Result<Option<String>> {
        let Some(timeout) = self.lock_timeout else { return Ok(None) };
        let failed = || database("setting lock_timeout");
        let before: String =
            sqlx::query_scalar("SELECT current_setting('lock_timeout')").fetch_one(&mut *tx).await.map_err(failed())?;
        set_lock_timeout(tx, format!("{}ms", milliseconds(timeout))).await?;
        Ok(Some(before))
    }

    pub(super) async fn end_waiting(&self, tx: &mut PgConnection, before: Option<String>) -> Result<()> {
        match before {
            Some(before) => set_lock_timeout(tx, before).await,
            None => Ok(()),
        }
    }

    pub(super) async fn look(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        let (kinds, ids) = columns(scopes);
        let rows = query(&self.sql.scopes)
            .bind(kinds)
            .bind(ids)
            .fetch_all(tx)
            .await
            .map_err(database("reading key scopes"))?;
        rows.iter().map(scope).collect()
    }

    async fn share(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        let (read, locked): (Vec<KeyScope>, Vec<KeyScope>) = scopes.iter().cloned().partition(KeyScope::is_integrity);
        let ((kinds, ids), (read_kinds, read_ids)) = (columns(&locked), columns(&read));
        let rows = query(&self.sql.share_scopes)
            .bind(kinds)
            .bind(ids)
            .bind(read_kinds)
            .bind(read_ids)
            .fetch_all(&mut *tx)
            .await
            .map_err(database("locking key scopes"))?;
        let locked = rows.iter().map(scope).collect::<Result<Vec<_>>>()?;
        let mut changed = false;
        for row in &rows {
            // The statement waited for the lock, and the row is newer than its snapshot, in which the row's active key
            // does not exist. The row is locked now, so another read sees both.
            changed |= active_key_id(row)?.is_some() && row.optional_id(0)?.is_none();
        }
        if !changed {
            return Ok(locked);
        }
        // Scopes that were committed in between are not locked, and so are left out.
        let locked: Vec<KeyScope> = locked.into_iter().map(|record| record.scope).collect();
        self.look(tx, &locked).await
    }

    async fn create(&self, tx: &mut PgConnection, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        let ((kinds, ids), keys, keks) = (columns(first.scopes), first.keys, first.keks);
        let rows = query(&self.sql.create_if_new)
            .bind(kinds)
            .bind(ids)
            .bind(keys.iter().map(|key| key.scope.kind()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.scope.id()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.key_id.0).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.kek_id.0).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.wrapped_key.as_slice()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.created_at).collect::<Vec<_>>())
            .bind(first.namespace.as_str())
            .bind(keks.iter().map(|kek| kek.kek_id.0).collect::<Vec<_>>())
            .bind(keks.iter().map(|kek| kek.partition.as_str()).collect::<Vec<_>>())
            .bind(keks.iter().map(|kek| kek.provider.as_str()).collect::<Vec<_>>())
            .bind(keks.iter().map(|kek| kek.wrapped.master_key_id.as_str()).collect::<Vec<_>>())
            .bind(keks.iter().map(|kek| kek.wrapped.ciphertext.as_slice()).collect::<Vec<_>>())
            .fetch_all(tx)
            .await
            .map_err(database("creating data keys"))?;
        let (created, locked) = match rows.first() {
            Some(row) => (usize::try_from(row.number(15)?).ok() == Some(keys.len()), row.number(16)? > 0),
            None => (false, false),
        };
        // Without a known scope, there is one row without a kind.
        let known = rows.iter().map(|row| Ok(row.optional_text(8)?.map(|_| scope(row))));
        let known = known.filter_map(|row: Result<Option<Result<ScopeRecord>>>| row.transpose());
        Ok(FirstKeysCreated { created, locked, known: known.map(|row| row?).collect::<Result<_>>()? })
    }

    pub(super) async fn insert(&self, tx: &mut PgConnection, keys: &[NewDataKey]) -> Result<()> {
        let inserted = query(&self.sql.insert_keys)
            .bind(keys.iter().map(|key| key.key_id.0).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.scope.kind()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.scope.id()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| i64::from(key.version)).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.kek_id.0).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.wrapped_key.as_slice()).collect::<Vec<_>>())
            .bind(keys.iter().map(|key| key.created_at).collect::<Vec<_>>())
            .fetch_all(&mut *tx)
            .await
            .map_err(database("inserting data keys"))?;
        if inserted.len() == keys.len() {
            return Ok(());
        }
        let inserted = inserted.iter().map(|row| row.id(0)).collect::<Result<Vec<Uuid>>>()?;
        let mut kek_ids: Vec<KekId> = keys.iter().map(|key| key.kek_id).collect();
        kek_ids.sort_unstable();
        kek_ids.dedup();
        let keks = self.keks(tx, &kek_ids).await?;
        if keks.iter().any(|kek| kek.state == KekState::Retired) {
            return Err(Error::Collision { source: None });
        }
        if let Some(kek_id) = kek_ids.into_iter().find(|kek_id| !keks.iter().any(|kek| kek.kek_id == *kek_id)) {
            return Err(Error::Keys(KeyFault::MissingKek { kek_id }));
        }
        let Some(refused) = keys.iter().find(|key| !inserted.contains(&key.key_id.0)) else { return Ok(()) };
        let record = self.look(tx, std::slice::from_ref(&refused.scope)).await?.pop();
        Err(refused_key(&refused.scope, record.as_ref()))
    }
}

pub(super) fn query(sql: &Arc<str>) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

/// The time-out in milliseconds. For PostgreSQL, 0 means no time-out, so only zero becomes 0.
fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

async fn set_lock_timeout(tx: &mut PgConnection, value: String) -> Result<()> {
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(value)
        .execute(tx)
        .await
        .map_err(database("setting lock_timeout"))?;
    Ok(())
}

/// The scopes as columns, in ascending order byte by byte, which is the order in which rows are locked and inserted.
pub(super) fn columns(scopes: &[KeyScope]) -> (Vec<String>, Vec<String>) {
    let mut scopes: Vec<&KeyScope> = scopes.iter().collect();
    scopes.sort_unstable();
    scopes.into_iter().map(|scope| (scope.kind().to_owned(), scope.id().to_owned())).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_out_is_rounded_to_none() {
        let times = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(1_001),
            Duration::from_secs(5),
            Duration::MAX,
        ];
        assert_eq!(times.map(milliseconds), [0, 1, 2, 5_000, i32::MAX]);
    }
}
