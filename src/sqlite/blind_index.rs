//! Blind indexes in SQLite.

use super::keys::store::{json, overwrite_freed};
use crate::blind_index::{BlindEntry, BlindIndexTable};
use crate::error::{Result, no_effect};
use crate::keys::names::{KeyId, KeyScope};
use crate::sql::blind_index::{TABLE, by_index, entry, fill, slot};
use crate::sql::migrations::{self, Migrations};
use crate::sql::{SqlRow, blind_index_database as database, check_name, in_transaction, query};
use crate::sqlite::id_text;
use async_trait::async_trait;
use sqlx::SqliteConnection;
use std::sync::Arc;

const ADD: &str =
    "INSERT OR IGNORE INTO {blind_index} (key_id, index_name, hash, slot, scope_kind, scope_id, generation)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

const AT: &str = "SELECT key_id, hash, slot, scope_kind, scope_id, generation FROM {blind_index}
    WHERE key_id = ?1 AND index_name = ?2 AND hash = ?3 AND slot = ?4";

const FIND: &str = "SELECT key_id, hash, slot, scope_kind, scope_id, generation FROM {blind_index}
    WHERE key_id = ?1 AND index_name = ?2 AND hash = ?3 ORDER BY scope_kind, scope_id LIMIT ?4";

const REMOVE: &str = "DELETE FROM {blind_index}
    WHERE key_id = ?1 AND index_name = ?2 AND hash = ?3 AND slot = ?4 AND scope_kind = ?5 AND scope_id = ?6
        AND generation = ?7";

const OF_SCOPE_IN: &str = "SELECT key_id, hash, slot, scope_kind, scope_id, generation FROM {blind_index}
    WHERE scope_kind = ?2 AND scope_id = ?3 AND index_name = ?1";

const DROP_SCOPE: &str = "DELETE FROM {blind_index} 
    WHERE scope_kind = ?1 AND scope_id = ?2 AND generation < ?3";

const ANY_OF_SCOPE: &str = "SELECT 1 FROM {blind_index} 
    WHERE scope_kind = ?1 AND scope_id = ?2 AND generation < ?3 LIMIT 1";

const SCOPES_AFTER: &str = "SELECT DISTINCT scope_kind, scope_id FROM {blind_index}
    WHERE (scope_kind, scope_id) > (?1, ?2) ORDER BY scope_kind, scope_id LIMIT ?3";

const UNFINISHED: &str = "SELECT o.index_name, o.scope_kind, o.scope_id FROM {blind_index} AS o
    WHERE o.key_id IN (SELECT value FROM json_each(?2)) GROUP BY o.key_id, o.index_name, o.scope_kind, o.scope_id
    HAVING count(*) > (
        SELECT count(*) FROM {blind_index} AS a
        WHERE a.scope_kind = o.scope_kind AND a.scope_id = o.scope_id AND a.index_name = o.index_name
            AND a.key_id = ?1
    ) LIMIT 1";

const DROP_KEYS: &str = "DELETE FROM {blind_index} WHERE (key_id, index_name, hash, slot) IN (
        SELECT key_id, index_name, hash, slot FROM {blind_index}
        WHERE key_id IN (SELECT value FROM json_each(?1)) LIMIT ?2
    )";

/// The table of [blind indexes](crate::blind_index) in a SQLite database: `blind_index`, if no other name is chosen. It
/// belongs in the database of the keys.
///
/// Connections that add or remove entries are switched to `PRAGMA secure_delete` for good, so that the bytes of removed
/// entries do not stay in the file. Adding is included because SQLite moves rows from page to page as a table grows.
#[derive(Clone, Debug)]
pub struct SqliteBlindIndex {
    table: String,
    sql: Arc<Sql>,
}

#[derive(Debug)]
struct Sql {
    add: Arc<str>,
    at: Arc<str>,
    find: Arc<str>,
    remove: Arc<str>,
    of_scope_in: Arc<str>,
    drop_scope: Arc<str>,
    any_of_scope: Arc<str>,
    scopes_after: Arc<str>,
    unfinished: Arc<str>,
    drop_keys: Arc<str>,
}

const MIGRATIONS: &Migrations =
    &[("blind index", include_str!("../../migrations/sqlite/blind_index/0001_blind_index.sql"))];

impl Default for SqliteBlindIndex {
    fn default() -> Self {
        Self::over(TABLE.to_owned())
    }
}

impl SqliteBlindIndex {
    /// The table `blind_index`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses a table of this name.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn table(self, table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        Ok(Self::over(table.to_owned()))
    }

    fn over(table: String) -> Self {
        let filled = |sql: &str| Arc::from(fill(sql, None, &table));
        let sql = Sql {
            add: filled(ADD),
            at: filled(AT),
            find: filled(FIND),
            remove: filled(REMOVE),
            of_scope_in: filled(OF_SCOPE_IN),
            drop_scope: filled(DROP_SCOPE),
            any_of_scope: filled(ANY_OF_SCOPE),
            scopes_after: filled(SCOPES_AFTER),
            unfinished: filled(UNFINISHED),
            drop_keys: filled(DROP_KEYS),
        };
        Self { sql: Arc::new(sql), table }
    }

    /// Creates the table. It is idempotent. There is a bookkeeping table.
    ///
    /// # Errors
    /// [`SetUpFault::NewerTables`](crate::error::SetUpFault::NewerTables),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Collision`](crate::Error::Collision) (retryable), [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self, connection: &mut SqliteConnection) -> Result<()> {
        let bookkeeping = format!("_{}_migrations", self.table);
        migrations::run(connection, None, &bookkeeping, MIGRATIONS, |sql| fill(sql, None, &self.table)).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        fill(&migrations::text(MIGRATIONS), None, &self.table)
    }

    /// The statement of [`find`](BlindIndexTable::find), for tests of its plan.
    #[cfg(feature = "internals")]
    pub(crate) fn statement_of_find(&self) -> Arc<str> {
        Arc::clone(&self.sql.find)
    }

    /// The entries that are at the places of these.
    async fn at(&self, tx: &mut SqliteConnection, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        let mut found = Vec::with_capacity(entries.len());
        for wanted in entries {
            let row = query(&self.sql.at)
                .bind(id_text(wanted.key_id.0))
                .bind(&*wanted.index)
                .bind(&wanted.hash)
                .bind(slot(wanted))
                .fetch_optional(&mut *tx)
                .await
                .map_err(database("reading a blind index"))?;
            found.extend(row.map(|row| entry(&wanted.index, &row)).transpose()?);
        }
        Ok(found)
    }

    async fn remove_all(&self, tx: &mut SqliteConnection, entries: &[BlindEntry]) -> Result<()> {
        const OPERATION: &str = "removing from a blind index";
        overwrite_freed(tx).await?;
        for entry in entries {
            query(&self.sql.remove)
                .bind(id_text(entry.key_id.0))
                .bind(&*entry.index)
                .bind(&entry.hash)
                .bind(slot(entry))
                .bind(entry.scope.kind())
                .bind(entry.scope.id())
                .bind(i64::from(entry.generation))
                .execute(&mut *tx)
                .await
                .map_err(database(OPERATION))?;
        }
        let left = self.at(tx, entries).await?.iter().any(|there| entries.contains(there));
        if left { Err(no_effect(OPERATION, "blind_index")) } else { Ok(()) }
    }
}

#[async_trait]
impl BlindIndexTable for SqliteBlindIndex {
    type Tx = SqliteConnection;

    async fn add(&self, tx: &mut SqliteConnection, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        const OPERATION: &str = "adding to a blind index";
        in_transaction(tx, OPERATION)?;
        // A page that gets too full is split. Copies of the rows that move would stay in its free bytes.
        overwrite_freed(tx).await?;
        for (index, entries) in by_index(entries) {
            for entry in entries {
                query(&self.sql.add)
                    .bind(id_text(entry.key_id.0))
                    .bind(&*index)
                    .bind(&entry.hash)
                    .bind(slot(entry))
                    .bind(entry.scope.kind())
                    .bind(entry.scope.id())
                    .bind(i64::from(entry.generation))
                    .execute(&mut *tx)
                    .await
                    .map_err(database(OPERATION))?;
            }
        }
        self.at(tx, entries).await
    }

    async fn find(
        &self,
        tx: &mut SqliteConnection,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        let (index, mut found): (Arc<str>, _) = (index.into(), Vec::new());
        for (key_id, hash) in hashes {
            let rows = query(&self.sql.find)
                .bind(id_text(key_id.0))
                .bind(&*index)
                .bind(hash)
                .bind(i64::from(limit))
                .fetch_all(&mut *tx)
                .await
                .map_err(database("reading a blind index"))?;
            for row in &rows {
                found.push(entry(&index, row)?);
            }
        }
        Ok(found)
    }

    async fn remove(&self, tx: &mut SqliteConnection, entries: &[BlindEntry]) -> Result<()> {
        in_transaction(tx, "removing from a blind index")?;
        self.remove_all(tx, entries).await
    }

    async fn keep_only(
        &self,
        tx: &mut SqliteConnection,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        in_transaction(tx, "removing from a blind index")?;
        let index: Arc<str> = index.into();
        let rows = query(&self.sql.of_scope_in).bind(&*index).bind(scope.kind()).bind(scope.id()).fetch_all(&mut *tx);
        let mut gone = Vec::new();
        for row in &rows.await.map_err(database("removing from a blind index"))? {
            let there = entry(&index, row)?;
            if !hashes.iter().any(|(key_id, hash)| there.key_id == *key_id && there.hash == *hash) {
                gone.push(there);
            }
        }
        self.remove_all(tx, &gone).await
    }

    async fn drop_scope(&self, tx: &mut SqliteConnection, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        const OPERATION: &str = "dropping the entries of a scope";
        in_transaction(tx, OPERATION)?;
        let before = before.map_or(i64::MAX, i64::from);
        overwrite_freed(tx).await?;
        let dropped =
            query(&self.sql.drop_scope).bind(scope.kind()).bind(scope.id()).bind(before).execute(&mut *tx).await;
        let dropped = dropped.map_err(database(OPERATION))?.rows_affected();
        let left =
            query(&self.sql.any_of_scope).bind(scope.kind()).bind(scope.id()).bind(before).fetch_optional(tx).await;
        if left.map_err(database(OPERATION))?.is_some() {
            return Err(no_effect(OPERATION, "blind_index"));
        }
        Ok(dropped)
    }

    async fn scopes_after(
        &self,
        tx: &mut SqliteConnection,
        after: Option<&KeyScope>,
        limit: u32,
    ) -> Result<Vec<KeyScope>> {
        let (kind, id) = after.map_or(("", ""), |after| (after.kind(), after.id()));
        let rows = query(&self.sql.scopes_after).bind(kind).bind(id).bind(i64::from(limit)).fetch_all(tx).await;
        let rows = rows.map_err(database("listing the scopes of a blind index"))?;
        rows.iter().map(|row| Ok(KeyScope::new(row.text(0)?, row.text(1)?))).collect()
    }

    async fn unfinished(
        &self,
        tx: &mut SqliteConnection,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        let older = json(&older.iter().map(|key_id| id_text(key_id.0)).collect::<Vec<_>>())?;
        let row = query(&self.sql.unfinished).bind(id_text(active.0)).bind(older).fetch_optional(tx).await;
        let row = row.map_err(database("comparing the keys of a blind index"))?;
        row.map(|row| Ok((row.text(0)?.to_owned(), KeyScope::new(row.text(1)?, row.text(2)?)))).transpose()
    }

    async fn drop_keys(&self, tx: &mut SqliteConnection, keys: &[KeyId], limit: u32) -> Result<u64> {
        const OPERATION: &str = "removing entries under destroyed keys";
        in_transaction(tx, OPERATION)?;
        overwrite_freed(tx).await?;
        let keys = json(&keys.iter().map(|key_id| id_text(key_id.0)).collect::<Vec<_>>())?;
        let dropped = query(&self.sql.drop_keys).bind(keys).bind(i64::from(limit)).execute(tx).await;
        Ok(dropped.map_err(database(OPERATION))?.rows_affected())
    }
}
