//! The key store of append, read and shred, on SQLite's key tables.

use super::SqliteKeys;
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, DestroyedKey, KekRecord, KekState, KeyHistory, KeyStore, LogEntry, NewDataKey, ScopeLock,
    ScopeRecord,
};
use crate::sql::keys::{data_key_of_scope, destroyed, history, kek, refused_key, scope};
use crate::sql::{SqlRow, in_transaction, key_database as database};
use crate::sqlite::own_transaction::check_durable;
use crate::sqlite::{id_text, to_text};
use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection};
use std::sync::Arc;
use time::OffsetDateTime;

#[async_trait]
impl KeyStore for SqliteKeys {
    type Tx = SqliteConnection;

    fn can_look_first(&self) -> bool {
        false
    }

    fn is_in_transaction(&self, tx: &SqliteConnection) -> bool {
        tx.is_in_transaction()
    }

    async fn namespace(&self, tx: &mut SqliteConnection) -> Result<Option<Namespace>> {
        match query(&self.sql.namespace).fetch_optional(tx).await {
            Ok(row) => row.map(|row| Namespace::new(row.text(0)?)).transpose(),
            // SQLITE_ERROR for a statement as simple as this means that the table does not exist.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("1") => Ok(None),
            Err(error) => Err(database("reading the namespace")(error)),
        }
    }

    async fn active_kek(&self, tx: &mut SqliteConnection, partition: &str) -> Result<Option<KekRecord>> {
        let row = query(&self.sql.active_kek)
            .bind(partition)
            .fetch_optional(tx)
            .await
            .map_err(database("reading the active key-encryption key"))?;
        row.as_ref().map(kek).transpose()
    }

    async fn keks(&self, tx: &mut SqliteConnection, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        let ids: Vec<String> = kek_ids.iter().map(|kek_id| id_text(kek_id.0)).collect();
        let rows = query(&self.sql.keks)
            .bind(json(&ids)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading key-encryption keys"))?;
        rows.iter().map(kek).collect()
    }

    async fn announce_writing(&self, tx: &mut SqliteConnection) -> Result<()> {
        self.take_write_lock(tx, "changing keys").await
    }

    async fn scopes(
        &self,
        tx: &mut SqliteConnection,
        scopes: &[KeyScope],
        lock: ScopeLock,
    ) -> Result<Vec<ScopeRecord>> {
        if lock != ScopeLock::None {
            self.take_write_lock(tx, "locking key scopes").await?;
        }
        let rows = query(&self.sql.scopes)
            .bind(scope_list(scopes)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading key scopes"))?;
        rows.iter().map(scope).collect()
    }

    async fn create_scopes(&self, tx: &mut SqliteConnection, scopes: &[KeyScope]) -> Result<()> {
        in_transaction(tx, "creating key scopes")?;
        query(&self.sql.create_scopes)
            .bind(scope_list(scopes)?)
            .execute(tx)
            .await
            .map_err(database("creating key scopes"))?;
        Ok(())
    }

    async fn insert_keys(&self, tx: &mut SqliteConnection, keys: &[NewDataKey]) -> Result<()> {
        in_transaction(tx, "inserting data keys")?;
        overwrite_freed(tx).await?;
        for key in keys {
            self.insert(tx, key).await?;
        }
        Ok(())
    }

    async fn commit_durably(&self, tx: &mut SqliteConnection) -> Result<()> {
        const OPERATION: &str = "committing keys in another database than the events";
        in_transaction(tx, OPERATION)?;
        check_durable(tx, OPERATION).await
    }

    async fn data_keys(&self, tx: &mut SqliteConnection, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let ids: Vec<String> = key_ids.iter().map(|key_id| id_text(key_id.0)).collect();
        let rows =
            query(&self.sql.data_keys).bind(json(&ids)?).fetch_all(tx).await.map_err(database("reading data keys"))?;
        rows.iter().map(data_key_of_scope).collect()
    }

    async fn change_scope(&self, tx: &mut SqliteConnection, entry: &LogEntry) -> Result<()> {
        const OPERATION: &str = "changing a key scope";
        in_transaction(tx, OPERATION)?;
        check_durable(tx, OPERATION).await?;
        let until = entry.until.map(to_text);
        let changed = query(&self.sql.change_scope)
            .bind(entry.scope.kind())
            .bind(entry.scope.id())
            .bind(entry.action.as_str())
            .bind(entry.state.as_str())
            .bind(entry.generation)
            .bind(until.as_deref())
            .execute(&mut *tx)
            .await
            .map_err(database(OPERATION))?;
        let recorded = self.add_entry(tx, entry).await?;
        match (changed.rows_affected(), recorded) {
            (1, 1) => Ok(()),
            (1, _) => Err(no_effect(OPERATION, "shred_entries")),
            _ => Err(no_effect(OPERATION, "key_scopes")),
        }
    }

    async fn destroy_keys(
        &self,
        tx: &mut SqliteConnection,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<DestroyedKey>> {
        const OPERATION: &str = "destroying data keys";
        in_transaction(tx, OPERATION)?;
        let failed = || database(OPERATION);
        check_durable(tx, OPERATION).await?;
        overwrite_freed(tx).await?;
        let rows = query(&self.sql.destroy_keys)
            .bind(scope.kind())
            .bind(scope.id())
            .bind(to_text(at))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let left = query(&self.sql.any_key_of_scope)
            .bind(scope.kind())
            .bind(scope.id())
            .fetch_optional(tx)
            .await
            .map_err(failed())?;
        if left.is_some() {
            return Err(no_effect(OPERATION, "data_keys"));
        }
        destroyed(&rows)
    }

    async fn history(&self, tx: &mut SqliteConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let rows = query(&self.sql.history).bind(scope.kind()).bind(scope.id()).fetch_all(tx).await;
        history(&rows.map_err(database("reading a key history"))?)
    }
}

impl SqliteKeys {
    pub(super) async fn insert(&self, tx: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        const OPERATION: &str = "inserting data keys";
        let key_id = id_text(key.key_id.0);
        let inserted = query(&self.sql.insert_key)
            .bind(&key_id)
            .bind(key.scope.kind())
            .bind(key.scope.id())
            .bind(key.version)
            .bind(id_text(key.kek_id.0))
            .bind(&key.wrapped_key)
            .bind(to_text(key.created_at))
            .execute(&mut *tx)
            .await
            .map_err(database("inserting a data key"))?;
        if inserted.rows_affected() == 0 {
            // The key-encryption key was retired meanwhile or never existed, or something prevented the insert.
            return Err(match self.keks(tx, &[key.kek_id]).await?.pop() {
                Some(kek) if kek.state == KekState::Retired => Error::Collision { source: None },
                Some(_) => no_effect(OPERATION, "data_keys"),
                None => Error::Keys(KeyFault::MissingKek { kek_id: key.kek_id }),
            });
        }
        let activated = query(&self.sql.activate_key)
            .bind(&key_id)
            .bind(key.scope.kind())
            .bind(key.scope.id())
            .execute(&mut *tx)
            .await
            .map_err(database("activating a data key"))?;
        if activated.rows_affected() != 1 {
            return Err(refused_key(&key.scope, self.look(tx, &key.scope).await?.as_ref()));
        }
        // The count of changed rows is no proof: SQLite also counts a row that a trigger has changed back.
        match self.look(tx, &key.scope).await?.and_then(|record| record.active) {
            Some(active) if active.key_id == key.key_id && active.wrapped_key.as_ref() == Some(&key.wrapped_key) => {
                Ok(())
            }
            _ => Err(no_effect(OPERATION, "data_keys or key_scopes")),
        }
    }

    /// Takes SQLite's write lock, which takes the place of locks on rows.
    async fn take_write_lock(&self, tx: &mut SqliteConnection, operation: &'static str) -> Result<()> {
        in_transaction(tx, operation)?;
        let lock = query(&self.sql.take_write_lock);
        lock.execute(tx).await.map(drop).map_err(database(operation))
    }

    pub(super) async fn look(&self, tx: &mut SqliteConnection, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        Ok(self.scopes(tx, std::slice::from_ref(scope), ScopeLock::None).await?.pop())
    }
}

pub(super) fn query(sql: &Arc<str>) -> Query<'static, Sqlite, SqliteArguments> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

/// Makes SQLite overwrite bytes that it frees, instead of leaving them in the file's pages. Such bytes are destroyed
/// keys, and copies of rows that moved to another page.
pub(in crate::sqlite) async fn overwrite_freed(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query("PRAGMA secure_delete = ON").execute(tx).await.map_err(database("switching secure deletion on"))?;
    Ok(())
}

pub(in crate::sqlite) fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::database("writing a list", source))
}

pub(super) fn scope_list(scopes: &[KeyScope]) -> Result<String> {
    json(&scopes.iter().map(|scope| (scope.kind(), scope.id())).collect::<Vec<_>>())
}
