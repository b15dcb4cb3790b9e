//! Blind indexes in PostgreSQL.

use crate::blind_index::{BlindEntry, BlindIndexTable};
use crate::error::{Result, no_effect};
use crate::keys::names::{KeyId, KeyScope};
use crate::sql::blind_index::{TABLE, by_index, entry, fill, slot};
use crate::sql::migrations::{self, Migrations};
use crate::sql::{SqlRow, blind_index_database as database, check_name, in_transaction, query};
use async_trait::async_trait;
use sqlx::PgConnection;
use std::sync::Arc;
use uuid::Uuid;

// Statements use LATERAL and arrays as those of the key tables do, and for the same reasons.

const ADD: &str = "INSERT INTO {blind_index} (index_name, key_id, hash, slot, scope_kind, scope_id, generation)
    SELECT $1, w.key_id, w.hash, w.slot, w.kind, w.id, w.generation FROM UNNEST(
        (SELECT $2::uuid[]), (SELECT $3::bytea[]), (SELECT $4::bytea[]), (SELECT $5::text[]), (SELECT $6::text[]),
        (SELECT $7::bigint[])
    ) WITH ORDINALITY AS w (key_id, hash, slot, kind, id, generation, number)
    ORDER BY w.number ON CONFLICT DO NOTHING";

/// The rows at these places.
const AT: &str = "SELECT b.key_id, b.hash, b.slot, b.scope_kind, b.scope_id, b.generation
    FROM UNNEST((SELECT $2::uuid[]), (SELECT $3::bytea[]), (SELECT $4::bytea[])) AS w (key_id, hash, slot)
    CROSS JOIN LATERAL (
        SELECT * FROM {blind_index} AS b
        WHERE b.key_id = w.key_id AND b.index_name = $1 AND b.hash = w.hash AND b.slot = w.slot OFFSET 0
    ) AS b";

const FIND: &str = "SELECT b.key_id, b.hash, b.slot, b.scope_kind, b.scope_id, b.generation
    FROM UNNEST((SELECT $2::uuid[]), (SELECT $3::bytea[])) AS w (key_id, hash)
    CROSS JOIN LATERAL (
        SELECT * FROM {blind_index} AS b WHERE b.key_id = w.key_id AND b.index_name = $1 AND b.hash = w.hash
        ORDER BY b.scope_kind, b.scope_id LIMIT $4
    ) AS b";

const REMOVE: &str = "DELETE FROM {blind_index} AS b USING UNNEST(
        (SELECT $2::uuid[]), (SELECT $3::bytea[]), (SELECT $4::bytea[]), (SELECT $5::text[]), (SELECT $6::text[]),
        (SELECT $7::bigint[])
    ) AS w (key_id, hash, slot, kind, id, generation)
    WHERE b.key_id = w.key_id AND b.index_name = $1 AND b.hash = w.hash AND b.slot = w.slot
        AND b.scope_kind = w.kind AND b.scope_id = w.id AND b.generation = w.generation";

const KEEP_ONLY: &str = "DELETE FROM {blind_index} AS b
    WHERE b.scope_kind = $2 AND b.scope_id = $3 AND b.index_name = $1
        AND NOT EXISTS (
            SELECT FROM UNNEST($4::uuid[], $5::bytea[]) AS w (key_id, hash)
            WHERE w.key_id = b.key_id AND w.hash = b.hash
        )";

const OF_SCOPE_IN: &str =
    "SELECT b.key_id, b.hash, b.slot, b.scope_kind, b.scope_id, b.generation FROM {blind_index} AS b
    WHERE b.scope_kind = $2 AND b.scope_id = $3 AND b.index_name = $1";

const DROP_SCOPE: &str = "DELETE FROM {blind_index} AS b
    WHERE b.scope_kind = $1 AND b.scope_id = $2 AND b.generation < $3";

const ANY_OF_SCOPE: &str = "SELECT 1 FROM {blind_index} AS b 
    WHERE b.scope_kind = $1 AND b.scope_id = $2 AND b.generation < $3 LIMIT 1";

const SCOPES_AFTER: &str = "SELECT DISTINCT b.scope_kind, b.scope_id FROM {blind_index} AS b
    WHERE (b.scope_kind, b.scope_id) > ($1, $2) ORDER BY b.scope_kind, b.scope_id LIMIT $3";

const UNFINISHED: &str = "SELECT o.index_name, o.scope_kind, o.scope_id FROM {blind_index} AS o
    WHERE o.key_id = ANY ($2) GROUP BY o.key_id, o.index_name, o.scope_kind, o.scope_id
    HAVING count(*) > (
        SELECT count(*) FROM {blind_index} AS a
        WHERE a.scope_kind = o.scope_kind AND a.scope_id = o.scope_id AND a.index_name = o.index_name
            AND a.key_id = $1
    ) LIMIT 1";

const DROP_KEYS: &str = "DELETE FROM {blind_index} AS b USING (
        SELECT g.key_id, g.index_name, g.hash, g.slot FROM {blind_index} AS g WHERE g.key_id = ANY ($1) LIMIT $2
    ) AS g
    WHERE b.key_id = g.key_id AND b.index_name = g.index_name AND b.hash = g.hash AND b.slot = g.slot";

/// The table of [blind indexes](crate::blind_index) in a PostgreSQL database (15 or newer): `blind_index`, if no other
/// name is chosen. It belongs in the database of the keys.
///
/// A role that adds and removes entries needs `SELECT`, `INSERT` and `DELETE`. So does one that shreds, where a
/// [`BlindLookup`](crate::blind_index::BlindLookup) is a consumer of erasures.
///
/// Deleted rows stay in the table's pages until `VACUUM` has run, and in the write-ahead log and backups until those
/// expire.
#[derive(Clone, Debug)]
pub struct PostgresBlindIndex {
    schema: Option<String>,
    table: String,
    sql: Arc<Sql>,
}

#[derive(Debug)]
struct Sql {
    add: Arc<str>,
    at: Arc<str>,
    find: Arc<str>,
    remove: Arc<str>,
    keep_only: Arc<str>,
    of_scope_in: Arc<str>,
    drop_scope: Arc<str>,
    any_of_scope: Arc<str>,
    scopes_after: Arc<str>,
    unfinished: Arc<str>,
    drop_keys: Arc<str>,
}

const MIGRATIONS: &Migrations =
    &[("blind index", include_str!("../../migrations/postgres/blind_index/0001_blind_index.sql"))];

impl Default for PostgresBlindIndex {
    fn default() -> Self {
        Self::over(None, TABLE.to_owned())
    }
}

impl PostgresBlindIndex {
    /// The table `blind_index`, in the schema to which the connection's `search_path` leads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the table in this schema.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn in_schema(self, schema: &str) -> Result<Self> {
        check_name("the schema name", schema)?;
        Ok(Self::over(Some(schema.to_owned()), self.table))
    }

    /// Uses a table of this name.
    ///
    /// # Errors
    /// Those of [`in_schema`](Self::in_schema).
    pub fn table(self, table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        Ok(Self::over(self.schema, table.to_owned()))
    }

    fn over(schema: Option<String>, table: String) -> Self {
        let filled = |sql: &str| Arc::from(fill(sql, schema.as_deref(), &table));
        let sql = Sql {
            add: filled(ADD),
            at: filled(AT),
            find: filled(FIND),
            remove: filled(REMOVE),
            keep_only: filled(KEEP_ONLY),
            of_scope_in: filled(OF_SCOPE_IN),
            drop_scope: filled(DROP_SCOPE),
            any_of_scope: filled(ANY_OF_SCOPE),
            scopes_after: filled(SCOPES_AFTER),
            unfinished: filled(UNFINISHED),
            drop_keys: filled(DROP_KEYS),
        };
        Self { sql: Arc::new(sql), schema, table }
    }

    /// Creates the table, and a configured schema if it is missing. It is idempotent. There is a bookkeeping table.
    /// This takes an advisory lock of the session, so pass a direct connection, not one through PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::TablesExist`](crate::error::SetUpFault::TablesExist),
    /// [`SetUpFault::NewerTables`](crate::error::SetUpFault::NewerTables),
    /// [`SetUpFault::PermissionDenied`](crate::error::SetUpFault::PermissionDenied),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self, connection: &mut PgConnection) -> Result<()> {
        let (schema, bookkeeping) = (self.schema.as_deref(), format!("_{}_migrations", self.table));
        migrations::run(connection, schema, &bookkeeping, MIGRATIONS, |sql| fill(sql, schema, &self.table)).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        fill(&migrations::text(MIGRATIONS), self.schema.as_deref(), &self.table)
    }

    /// The statement of [`find`](BlindIndexTable::find), for tests of its plan.
    #[cfg(feature = "internals")]
    pub(crate) fn statement_of_find(&self) -> Arc<str> {
        Arc::clone(&self.sql.find)
    }

    /// The entries that are at the places of these.
    async fn at(&self, tx: &mut PgConnection, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        let mut found = Vec::with_capacity(entries.len());
        for (index, entries) in by_index(entries) {
            let columns = Columns::of(&entries);
            let rows = query(&self.sql.at)
                .bind(&*index)
                .bind(columns.keys)
                .bind(columns.hashes)
                .bind(columns.slots)
                .fetch_all(&mut *tx)
                .await
                .map_err(database("reading a blind index"))?;
            for row in &rows {
                found.push(entry(&index, row)?);
            }
        }
        Ok(found)
    }
}

/// Entries as columns.
struct Columns {
    keys: Vec<Uuid>,
    hashes: Vec<Vec<u8>>,
    slots: Vec<Vec<u8>>,
    kinds: Vec<String>,
    ids: Vec<String>,
    generations: Vec<i64>,
}

impl Columns {
    fn of(entries: &[&BlindEntry]) -> Self {
        Self {
            keys: entries.iter().map(|entry| entry.key_id.0).collect(),
            hashes: entries.iter().map(|entry| entry.hash.clone()).collect(),
            slots: entries.iter().map(|entry| slot(entry)).collect(),
            kinds: entries.iter().map(|entry| entry.scope.kind().to_owned()).collect(),
            ids: entries.iter().map(|entry| entry.scope.id().to_owned()).collect(),
            generations: entries.iter().map(|entry| i64::from(entry.generation)).collect(),
        }
    }
}

fn columns(hashes: &[(KeyId, Vec<u8>)]) -> (Vec<Uuid>, Vec<Vec<u8>>) {
    hashes.iter().map(|(key_id, hash)| (key_id.0, hash.clone())).unzip()
}

#[async_trait]
impl BlindIndexTable for PostgresBlindIndex {
    type Tx = PgConnection;

    async fn add(&self, tx: &mut PgConnection, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        const OPERATION: &str = "adding to a blind index";
        in_transaction(tx, OPERATION)?;
        for (index, entries) in by_index(entries) {
            let columns = Columns::of(&entries);
            query(&self.sql.add)
                .bind(&*index)
                .bind(columns.keys)
                .bind(columns.hashes)
                .bind(columns.slots)
                .bind(columns.kinds)
                .bind(columns.ids)
                .bind(columns.generations)
                .execute(&mut *tx)
                .await
                .map_err(database(OPERATION))?;
        }
        // This is a statement of its own, so that it sees what another transaction has added meanwhile.
        self.at(tx, entries).await
    }

    async fn find(
        &self,
        tx: &mut PgConnection,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        let ((keys, hashes), index) = (columns(hashes), Arc::from(index));
        let rows = query(&self.sql.find).bind(&*index).bind(keys).bind(hashes).bind(i64::from(limit)).fetch_all(tx);
        rows.await.map_err(database("reading a blind index"))?.iter().map(|row| entry(&index, row)).collect()
    }

    async fn remove(&self, tx: &mut PgConnection, entries: &[BlindEntry]) -> Result<()> {
        const OPERATION: &str = "removing from a blind index";
        in_transaction(tx, OPERATION)?;
        for (index, entries) in by_index(entries) {
            let columns = Columns::of(&entries);
            query(&self.sql.remove)
                .bind(&*index)
                .bind(columns.keys)
                .bind(columns.hashes)
                .bind(columns.slots)
                .bind(columns.kinds)
                .bind(columns.ids)
                .bind(columns.generations)
                .execute(&mut *tx)
                .await
                .map_err(database(OPERATION))?;
        }
        let left = self.at(tx, entries).await?.iter().any(|there| entries.contains(there));
        if left { Err(no_effect(OPERATION, "blind_index")) } else { Ok(()) }
    }

    async fn keep_only(
        &self,
        tx: &mut PgConnection,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        const OPERATION: &str = "removing from a blind index";
        in_transaction(tx, OPERATION)?;
        let (keys, kept) = columns(hashes);
        let removing = query(&self.sql.keep_only).bind(index).bind(scope.kind()).bind(scope.id()).bind(keys).bind(kept);
        removing.execute(&mut *tx).await.map_err(database(OPERATION))?;
        let index = Arc::from(index);
        let rows = query(&self.sql.of_scope_in).bind(&*index).bind(scope.kind()).bind(scope.id()).fetch_all(tx).await;
        for row in &rows.map_err(database(OPERATION))? {
            let there = entry(&index, row)?;
            if !hashes.iter().any(|(key_id, hash)| there.key_id == *key_id && there.hash == *hash) {
                return Err(no_effect(OPERATION, "blind_index"));
            }
        }
        Ok(())
    }

    async fn drop_scope(&self, tx: &mut PgConnection, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        const OPERATION: &str = "dropping the entries of a scope";
        in_transaction(tx, OPERATION)?;
        let before = before.map_or(i64::MAX, i64::from);
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

    async fn scopes_after(&self, tx: &mut PgConnection, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        let (kind, id) = after.map_or(("", ""), |after| (after.kind(), after.id()));
        let rows = query(&self.sql.scopes_after).bind(kind).bind(id).bind(i64::from(limit)).fetch_all(tx).await;
        let rows = rows.map_err(database("listing the scopes of a blind index"))?;
        rows.iter().map(|row| Ok(KeyScope::new(row.text(0)?, row.text(1)?))).collect()
    }

    async fn unfinished(
        &self,
        tx: &mut PgConnection,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        let older: Vec<Uuid> = older.iter().map(|key_id| key_id.0).collect();
        let row = query(&self.sql.unfinished).bind(active.0).bind(older).fetch_optional(tx).await;
        let row = row.map_err(database("comparing the keys of a blind index"))?;
        row.map(|row| Ok((row.text(0)?.to_owned(), KeyScope::new(row.text(1)?, row.text(2)?)))).transpose()
    }

    async fn drop_keys(&self, tx: &mut PgConnection, keys: &[KeyId], limit: u32) -> Result<u64> {
        const OPERATION: &str = "removing entries under destroyed keys";
        in_transaction(tx, OPERATION)?;
        let keys: Vec<Uuid> = keys.iter().map(|key_id| key_id.0).collect();
        let dropped = query(&self.sql.drop_keys).bind(keys).bind(i64::from(limit)).execute(tx).await;
        Ok(dropped.map_err(database(OPERATION))?.rows_affected())
    }
}
