//! Keys in SQLite.

use crate::error::{Error, Result};
use crate::key::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, KekRecord, KekState, KekUsage, KeyHistory, KeyInfo, KeyStore, NewDataKey, Retirement, RewrapBatch, RewrappedBatch,
    Rewrapper, ScopeAction, ScopeChange, ScopeLock, ScopeRecord, ScopeState,
};
use crate::kms::WrappedKek;
use crate::sql::{check_name, in_transaction, not_in_transaction};
use crate::sqlite::{column, database, from_text, migrate, migration, to_text, uuid};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction};
use std::sync::Arc;
use time::OffsetDateTime;

/// The key tables in a SQLite database: `key_namespace`, `key_encryption_keys`, `key_scopes`, `data_keys`
/// and `key_scope_changes`, behind a prefix if one is chosen.
///
/// SQLite's write lock takes the place of row locks: an append or a shred takes it with its first
/// statement and holds it until the transaction ends. Connections that write keys are switched to
/// `PRAGMA secure_delete` and stay so, so that bytes of destroyed keys do not stay in the file. What
/// `SqliteStore` says about transactions that ended below the driver is true here too.
#[derive(Clone, Debug)]
pub struct SqliteKeys {
    prefix: String,
    sql: Arc<Statements>,
}

impl Default for SqliteKeys {
    fn default() -> Self {
        Self::over("")
    }
}

#[derive(Debug)]
struct Statements {
    namespace: Arc<str>,
    set_namespace: Arc<str>,
    take_write_lock: Arc<str>,
    active_kek: Arc<str>,
    keks: Arc<str>,
    install_kek: Arc<str>,
    kek_usage: Arc<str>,
    demote_kek: Arc<str>,
    promote_kek: Arc<str>,
    move_kek: Arc<str>,
    kek_state: Arc<str>,
    retire_kek: Arc<str>,
    rewrap_next: Arc<str>,
    rewrap_key: Arc<str>,
    scopes: Arc<str>,
    create_scopes: Arc<str>,
    insert_key: Arc<str>,
    activate_key: Arc<str>,
    data_keys: Arc<str>,
    change_scope: Arc<str>,
    add_change: Arc<str>,
    destroy_keys: Arc<str>,
    history_keys: Arc<str>,
    history_changes: Arc<str>,
}

impl SqliteKeys {
    /// The key tables without a prefix.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The key tables behind a prefix, such as `eventseal_`.
    ///
    /// # Errors
    /// [`Error::InvalidText`] if it is not made of letters, digits and `_`.
    pub fn with_prefix(prefix: &str) -> Result<Self> {
        check_name("the prefix of the key tables", prefix)?;
        Ok(Self::over(prefix))
    }

    /// The prefix was checked.
    fn over(p: &str) -> Self {
        const KEY: &str = "k.key_id, k.scope_kind, k.scope_id, k.version, k.kek_id, k.wrapped_key, k.created_at, k.shredded_at";
        const KEK: &str =
            r#"kek_id, "partition", provider, master_key_id, wrapped_kek, state, created_at, coalesce(wrapped_at, created_at)"#;
        const NEW_KEK: &str = r#"kek_id, "partition", provider, master_key_id, wrapped_kek, created_at, wrapped_at, state"#;
        let sql = Statements {
            namespace: format!(r#"SELECT namespace FROM "{p}key_namespace""#).into(),
            // Not with ON CONFLICT, nor where scopes are created: the triggers that guard against REPLACE come first.
            set_namespace: format!(
                r#"INSERT INTO "{p}key_namespace" (only_row, namespace, created_at)
                   SELECT 1, ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM "{p}key_namespace")"#
            )
            .into(),
            // Changes no row, but a statement that could write takes the write lock when it starts.
            take_write_lock: format!(r#"UPDATE "{p}key_scopes" SET state = state WHERE scope_kind IS NULL"#).into(),
            active_kek: format!(r#"SELECT {KEK} FROM "{p}key_encryption_keys" WHERE "partition" = ?1 AND state = 'active'"#).into(),
            keks: format!(r#"SELECT {KEK} FROM "{p}key_encryption_keys" WHERE kek_id IN (SELECT value FROM json_each(?1))"#).into(),
            install_kek: format!(
                r#"INSERT INTO "{p}key_encryption_keys" ({NEW_KEK}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active'
                   WHERE NOT EXISTS (SELECT 1 FROM "{p}key_encryption_keys" WHERE "partition" = ?2 AND state = 'active')"#
            )
            .into(),
            kek_usage: format!(
                r#"SELECT {KEK},
                       (SELECT count(*) FROM "{p}data_keys" AS k WHERE k.kek_id = e.kek_id AND k.state = 'live'),
                       (SELECT min(coalesce(k.wrapped_at, k.created_at)) FROM "{p}data_keys" AS k
                        WHERE k.kek_id = e.kek_id AND k.state = 'live')
                   FROM "{p}key_encryption_keys" AS e ORDER BY created_at, kek_id"#
            )
            .into(),
            demote_kek: format!(
                r#"UPDATE "{p}key_encryption_keys" SET state = 'decrypt_only' WHERE kek_id = ?1 AND "partition" = ?2 AND state = 'active'"#
            )
            .into(),
            promote_kek: format!(r#"INSERT INTO "{p}key_encryption_keys" ({NEW_KEK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'active')"#)
                .into(),
            move_kek: format!(
                r#"UPDATE "{p}key_encryption_keys" SET provider = ?4, master_key_id = ?5, wrapped_kek = ?6, wrapped_at = ?7
                   WHERE kek_id = ?1 AND master_key_id = ?2 AND wrapped_kek = ?3"#
            )
            .into(),
            kek_state: format!(
                r#"SELECT state, (SELECT count(*) FROM "{p}data_keys" AS k WHERE k.kek_id = e.kek_id AND k.state = 'live')
                   FROM "{p}key_encryption_keys" AS e WHERE kek_id = ?1"#
            )
            .into(),
            retire_kek: format!(r#"UPDATE "{p}key_encryption_keys" SET state = 'retired' WHERE kek_id = ?1"#).into(),
            rewrap_next: format!(
                r#"SELECT {KEY}, s.state FROM "{p}data_keys" AS k JOIN "{p}key_scopes" AS s USING (scope_kind, scope_id)
                   WHERE k.state = 'live' AND k.kek_id IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR k.key_id > ?2)
                   ORDER BY k.key_id LIMIT ?3"#
            )
            .into(),
            rewrap_key: format!(
                r#"UPDATE "{p}data_keys" SET wrapped_key = ?4, kek_id = ?5, wrapped_at = ?6
                   WHERE key_id = ?1 AND kek_id = ?2 AND wrapped_key = ?3 AND state = 'live' RETURNING wrapped_key"#
            )
            .into(),
            scopes: format!(
                r#"SELECT {KEY}, s.scope_kind, s.scope_id, s.state, s.generation,
                       (SELECT max(version) FROM "{p}data_keys" AS d WHERE d.scope_kind = s.scope_kind AND d.scope_id = s.scope_id)
                   FROM json_each(?1) AS w
                   CROSS JOIN "{p}key_scopes" AS s ON s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1
                   LEFT JOIN "{p}data_keys" AS k ON k.key_id = s.active_key_id"#
            )
            .into(),
            create_scopes: format!(
                r#"INSERT INTO "{p}key_scopes" (scope_kind, scope_id, state, generation)
                   SELECT DISTINCT w.value ->> 0, w.value ->> 1, 'live', 1 FROM json_each(?1) AS w WHERE NOT EXISTS
                       (SELECT 1 FROM "{p}key_scopes" AS s WHERE s.scope_kind = w.value ->> 0 AND s.scope_id = w.value ->> 1)"#
            )
            .into(),
            insert_key: format!(
                r#"INSERT INTO "{p}data_keys" (key_id, scope_kind, scope_id, version, kek_id, wrapped_key, created_at, state)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'live')"#
            )
            .into(),
            activate_key: format!(
                r#"UPDATE "{p}key_scopes" SET active_key_id = ?1 WHERE scope_kind = ?2 AND scope_id = ?3 AND state = 'live'"#
            )
            .into(),
            data_keys: format!(
                r#"SELECT {KEY}, s.state FROM "{p}data_keys" AS k JOIN "{p}key_scopes" AS s USING (scope_kind, scope_id)
                   WHERE k.key_id IN (SELECT value FROM json_each(?1))"#
            )
            .into(),
            change_scope: format!(
                r#"UPDATE "{p}key_scopes" SET state = ?3, generation = ?4,
                       active_key_id = CASE WHEN ?3 = 'shredded' THEN NULL ELSE active_key_id END
                   WHERE scope_kind = ?1 AND scope_id = ?2"#
            )
            .into(),
            add_change: format!(
                r#"INSERT INTO "{p}key_scope_changes" (scope_kind, scope_id, action, state, generation, reason, changed_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"#
            )
            .into(),
            destroy_keys: format!(
                r#"UPDATE "{p}data_keys" SET wrapped_key = NULL, state = 'shredded', shredded_at = ?3
                   WHERE scope_kind = ?1 AND scope_id = ?2 AND state = 'live' RETURNING key_id, version"#
            )
            .into(),
            history_keys: format!(r#"SELECT {KEY} FROM "{p}data_keys" AS k WHERE scope_kind = ?1 AND scope_id = ?2 ORDER BY version"#)
                .into(),
            history_changes: format!(
                r#"SELECT action, state, generation, reason, changed_at FROM "{p}key_scope_changes"
                   WHERE scope_kind = ?1 AND scope_id = ?2 ORDER BY change_id"#
            )
            .into(),
        };
        Self { prefix: p.to_owned(), sql: Arc::new(sql) }
    }

    /// Makes the key tables, or brings them up to date, and names the key database. Idempotent.
    ///
    /// The namespace is chosen here, once, and never changes. The bookkeeping is in a table of its own.
    ///
    /// # Errors
    /// [`Error::NamespaceMismatch`] if the tables exist under another namespace,
    /// [`Error::InTransaction`], [`Error::Collision`] (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection, namespace: &Namespace) -> Result<()> {
        let fill = |sql: &str| {
            let mut sql = sql.replace("{namespace}", &format!("{}key_namespace", self.prefix));
            for table in ["key_encryption_keys", "key_scopes", "data_keys", "key_scope_changes"] {
                sql = sql.replace(&format!("{{{table}}}"), &format!("{}{table}", self.prefix));
            }
            sql
        };
        let migrations = vec![
            migration(1, "keys", fill(include_str!("../../migrations/sqlite/keys/0001_keys.sql"))),
            migration(2, "rewrap", fill(include_str!("../../migrations/sqlite/keys/0002_rewrap.sql"))),
        ];
        migrate(connection, format!("_{}keys_migrations", self.prefix), migrations).await?;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.set_namespace)))
            .bind(namespace.as_str())
            .bind(to_text(OffsetDateTime::now_utc()))
            .execute(&mut *connection)
            .await
            .map_err(database("naming the key database"))?;
        match self.namespace(connection).await? {
            Some(found) if found != *namespace => Err(Error::NamespaceMismatch { configured: namespace.clone(), found }),
            _ => Ok(()),
        }
    }

    async fn insert(&self, tx: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        let key_id = key.key_id.0.hyphenated().to_string();
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.insert_key)))
            .bind(&key_id)
            .bind(key.scope.kind())
            .bind(key.scope.id())
            .bind(key.version)
            .bind(key.kek_id.0.hyphenated().to_string())
            .bind(&key.wrapped_key)
            .bind(to_text(key.created_at))
            .execute(&mut *tx)
            .await
            .map_err(database("inserting a data key"))?;
        let activated = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.activate_key)))
            .bind(&key_id)
            .bind(key.scope.kind())
            .bind(key.scope.id())
            .execute(tx)
            .await
            .map_err(database("activating a data key"))?;
        if activated.rows_affected() == 1 {
            Ok(())
        } else {
            Err(Error::ScopeState { scope: key.scope.clone(), problem: "is not live, so it can't be given a key" })
        }
    }

    async fn replace_in(&self, tx: &mut SqliteConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        let demoted = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.demote_kek)))
            .bind(replaced.0.hyphenated().to_string())
            .bind(&kek.partition)
            .execute(&mut *tx)
            .await
            .map_err(database("rotating a key-encryption key"))?;
        if demoted.rows_affected() == 0 {
            return Ok(false);
        }
        insert_kek(tx, &self.sql.promote_kek, kek).await?;
        Ok(true)
    }

    async fn retire_in(&self, tx: &mut SqliteConnection, kek_id: KekId) -> Result<Retirement> {
        let failed = || database("retiring a key-encryption key");
        let id = kek_id.0.hyphenated().to_string();
        let row = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.kek_state))).bind(&id).fetch_optional(&mut *tx).await.map_err(failed())?;
        let Some(row) = row else { return Ok(Retirement::Unknown) };
        let live = column::<i64>(&row, 1)?.unsigned_abs();
        if KekState::parse(column(&row, 0)?)? == KekState::Active {
            return Ok(Retirement::Active);
        }
        if live > 0 {
            return Ok(Retirement::InUse(live));
        }
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.retire_kek))).bind(&id).execute(tx).await.map_err(failed())?;
        Ok(Retirement::Done)
    }

    async fn rewrap_in(&self, tx: &mut SqliteConnection, batch: &RewrapBatch, by: &dyn Rewrapper) -> Result<RewrappedBatch> {
        let failed = || database("rewrapping data keys");
        let from: Vec<String> = batch.from.iter().map(|kek_id| kek_id.0.hyphenated().to_string()).collect();
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.rewrap_next)))
            .bind(json(&from)?)
            .bind(batch.after.map(|key_id| key_id.0.hyphenated().to_string()))
            .bind(i64::from(batch.limit))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let keys = rows.iter().map(|row| data_key(row, ScopeState::parse(column(row, 8)?)?)).collect::<Result<Vec<_>>>()?;
        let found = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let mut outcome = RewrappedBatch { found, last: keys.last().map(|key| key.key_id), ..Default::default() };
        for key in keys {
            let Some(wrapped) = by.rewrap(&key)? else {
                outcome.bad.push(key.key_id);
                continue;
            };
            let written: Option<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(Arc::clone(&self.sql.rewrap_key)))
                .bind(key.key_id.0.hyphenated().to_string())
                .bind(key.kek_id.0.hyphenated().to_string())
                .bind(&key.wrapped_key)
                .bind(&wrapped)
                .bind(batch.to.0.hyphenated().to_string())
                .bind(to_text(batch.at))
                .fetch_optional(&mut *tx)
                .await
                .map_err(failed())?;
            match written {
                Some(written) if by.opens(key.key_id, &written) => outcome.rewrapped += 1,
                Some(_) => return Err(Error::WrongKey { key_id: key.key_id, kek_id: batch.to }),
                None => {}
            }
        }
        Ok(outcome)
    }
}

#[async_trait]
impl KeyStore for SqliteKeys {
    type Tx = SqliteConnection;

    async fn namespace(&self, tx: &mut SqliteConnection) -> Result<Option<Namespace>> {
        let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(Arc::clone(&self.sql.namespace))).fetch_optional(tx).await;
        match found {
            Ok(name) => name.map(Namespace::new).transpose(),
            // SQLITE_ERROR while preparing a statement this simple: there is no such table.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("1") => Ok(None),
            Err(error) => Err(database("reading the namespace")(error)),
        }
    }

    async fn active_kek(&self, tx: &mut SqliteConnection, partition: &str) -> Result<Option<KekRecord>> {
        let row = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.active_kek)))
            .bind(partition)
            .fetch_optional(tx)
            .await
            .map_err(database("reading the active key-encryption key"))?;
        row.as_ref().map(kek).transpose()
    }

    async fn keks(&self, tx: &mut SqliteConnection, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        let ids: Vec<String> = kek_ids.iter().map(|kek_id| kek_id.0.hyphenated().to_string()).collect();
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.keks)))
            .bind(json(&ids)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading key-encryption keys"))?;
        rows.iter().map(kek).collect()
    }

    async fn install_kek(&self, connection: &mut SqliteConnection, kek: &KekRecord) -> Result<()> {
        not_in_transaction(connection, "preparing keys")?;
        insert_kek(connection, &self.sql.install_kek, kek).await
    }

    async fn kek_usage(&self, tx: &mut SqliteConnection) -> Result<Vec<KekUsage>> {
        let rows =
            sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.kek_usage))).fetch_all(tx).await.map_err(database("counting data keys"))?;
        let usage = rows.iter().map(|row| {
            let oldest = column::<Option<&str>>(row, 9)?;
            Ok(KekUsage {
                kek: kek(row)?,
                live_keys: column::<i64>(row, 8)?.unsigned_abs(),
                oldest_wrap: oldest.map(|at| from_text(at, "data_keys.wrapped_at")).transpose()?,
            })
        });
        usage.collect()
    }

    async fn replace_kek(&self, connection: &mut SqliteConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        let mut tx = begin(connection, "rotating a key-encryption key").await?;
        let done = self.replace_in(&mut tx, replaced, kek).await;
        end(tx, done, "rotating a key-encryption key").await
    }

    async fn move_kek(
        &self,
        connection: &mut SqliteConnection,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        not_in_transaction(connection, "moving a key-encryption key")?;
        overwrite_freed(connection).await?;
        let moved = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.move_kek)))
            .bind(old.kek_id.0.hyphenated().to_string())
            .bind(&old.wrapped.master_key_id)
            .bind(&old.wrapped.ciphertext)
            .bind(provider)
            .bind(&wrapped.master_key_id)
            .bind(&wrapped.ciphertext)
            .bind(to_text(at))
            .execute(connection)
            .await
            .map_err(database("moving a key-encryption key"))?;
        Ok(moved.rows_affected() == 1)
    }

    async fn retire_kek(&self, connection: &mut SqliteConnection, kek_id: KekId) -> Result<Retirement> {
        let mut tx = begin(connection, "retiring a key-encryption key").await?;
        let done = self.retire_in(&mut tx, kek_id).await;
        end(tx, done, "retiring a key-encryption key").await
    }

    async fn rewrap_batch(&self, connection: &mut SqliteConnection, batch: &RewrapBatch, by: &dyn Rewrapper) -> Result<RewrappedBatch> {
        // The write lock stands in for locks on rows: another runner waits, and finds other rows.
        let mut tx = begin(connection, "rewrapping data keys").await?;
        let done = self.rewrap_in(&mut tx, batch, by).await;
        end(tx, done, "rewrapping data keys").await
    }

    async fn install_key(&self, connection: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        not_in_transaction(connection, "preparing keys")?;
        let failed = || database("inserting the integrity key");
        let mut tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed())?;
        let known = self.scopes(&mut tx, std::slice::from_ref(&key.scope), ScopeLock::None).await?;
        if known.is_empty() {
            self.create_scopes(&mut tx, std::slice::from_ref(&key.scope)).await?;
            self.insert(&mut tx, key).await?;
        }
        tx.commit().await.map_err(failed())
    }

    async fn scopes(&self, tx: &mut SqliteConnection, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        if lock != ScopeLock::None {
            in_transaction(tx, "locking key scopes")?;
            sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.take_write_lock)))
                .execute(&mut *tx)
                .await
                .map_err(database("locking key scopes"))?;
        }
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.scopes)))
            .bind(scope_list(scopes)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading key scopes"))?;
        rows.iter().map(scope_record).collect()
    }

    async fn create_scopes(&self, tx: &mut SqliteConnection, scopes: &[KeyScope]) -> Result<()> {
        in_transaction(tx, "creating key scopes")?;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.create_scopes)))
            .bind(scope_list(scopes)?)
            .execute(tx)
            .await
            .map_err(database("creating key scopes"))?;
        Ok(())
    }

    async fn insert_keys(&self, tx: &mut SqliteConnection, keys: &[NewDataKey]) -> Result<()> {
        in_transaction(tx, "inserting data keys")?;
        overwrite_freed(tx).await?;
        let mut kek_ids: Vec<KekId> = keys.iter().map(|key| key.kek_id).collect();
        kek_ids.dedup();
        if self.keks(tx, &kek_ids).await?.iter().any(|kek| kek.state == KekState::Retired) {
            return Err(Error::Collision { source: None });
        }
        for key in keys {
            self.insert(tx, key).await?;
        }
        Ok(())
    }

    async fn data_keys(&self, tx: &mut SqliteConnection, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        let ids: Vec<String> = key_ids.iter().map(|key_id| key_id.0.hyphenated().to_string()).collect();
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.data_keys)))
            .bind(json(&ids)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading data keys"))?;
        rows.iter().map(|row| data_key(row, ScopeState::parse(column(row, 8)?)?)).collect()
    }

    async fn change_scope(&self, tx: &mut SqliteConnection, change: &ScopeChange) -> Result<()> {
        in_transaction(tx, "changing a key scope")?;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.change_scope)))
            .bind(change.scope.kind())
            .bind(change.scope.id())
            .bind(change.state.as_str())
            .bind(change.generation)
            .execute(&mut *tx)
            .await
            .map_err(database("changing a key scope"))?;
        sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.add_change)))
            .bind(change.scope.kind())
            .bind(change.scope.id())
            .bind(change.action.as_str())
            .bind(change.state.as_str())
            .bind(change.generation)
            .bind(&change.reason)
            .bind(to_text(change.at))
            .execute(tx)
            .await
            .map_err(database("recording a change of a key scope"))?;
        Ok(())
    }

    async fn destroy_keys(&self, tx: &mut SqliteConnection, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>> {
        in_transaction(tx, "destroying data keys")?;
        let failed = || database("destroying data keys");
        overwrite_freed(tx).await?;
        let mut destroyed = sqlx::query_as::<_, (String, u32)>(AssertSqlSafe(Arc::clone(&self.sql.destroy_keys)))
            .bind(scope.kind())
            .bind(scope.id())
            .bind(to_text(at))
            .fetch_all(tx)
            .await
            .map_err(failed())?;
        destroyed.sort_unstable_by_key(|(_, version)| *version);
        destroyed.iter().map(|(key_id, _)| uuid(key_id).map(KeyId)).collect()
    }

    async fn history(&self, tx: &mut SqliteConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let Some(record) = self.scopes(tx, std::slice::from_ref(scope), ScopeLock::None).await?.pop() else { return Ok(None) };
        let failed = || database("reading a key history");
        let keys = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.history_keys)))
            .bind(scope.kind())
            .bind(scope.id())
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let changes = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.history_changes)))
            .bind(scope.kind())
            .bind(scope.id())
            .fetch_all(tx)
            .await
            .map_err(failed())?;
        let keys = keys.iter().map(|row| {
            let key = data_key(row, record.state)?;
            Ok(KeyInfo {
                key_id: key.key_id,
                version: key.version,
                kek_id: key.kek_id,
                created_at: key.created_at,
                shredded_at: key.shredded_at,
            })
        });
        let changes = changes.iter().map(|row| {
            Ok(ScopeChange {
                scope: scope.clone(),
                action: ScopeAction::parse(column(row, 0)?)?,
                state: ScopeState::parse(column(row, 1)?)?,
                generation: column(row, 2)?,
                reason: column(row, 3)?,
                at: from_text(column(row, 4)?, "changed_at")?,
            })
        });
        Ok(Some(KeyHistory {
            scope: scope.clone(),
            state: record.state,
            generation: record.generation,
            active_key: record.active.map(|key| key.key_id),
            keys: keys.collect::<Result<_>>()?,
            changes: changes.collect::<Result<_>>()?,
        }))
    }
}

/// Begins a transaction that writes keys.
async fn begin<'c>(connection: &'c mut SqliteConnection, operation: &'static str) -> Result<Transaction<'c, Sqlite>> {
    not_in_transaction(connection, operation)?;
    overwrite_freed(connection).await?;
    connection.begin_with("BEGIN IMMEDIATE").await.map_err(database(operation))
}

/// Commits what went well, and rolls the rest back, so that the connection can be used again.
async fn end<T>(tx: Transaction<'_, Sqlite>, done: Result<T>, operation: &'static str) -> Result<T> {
    match done {
        Ok(_) => tx.commit().await,
        Err(_) => tx.rollback().await,
    }
    .map_err(database(operation))?;
    done
}

/// Lets SQLite overwrite bytes that it frees, instead of leaving them in the file's pages: those of
/// destroyed keys, and copies that stay behind when rows move to another page.
async fn overwrite_freed(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query("PRAGMA secure_delete = ON").execute(tx).await.map_err(database("switching secure deletion on"))?;
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::Database { operation: "writing a list", source: source.into() })
}

fn scope_list(scopes: &[KeyScope]) -> Result<String> {
    json(&scopes.iter().map(|scope| (scope.kind(), scope.id())).collect::<Vec<_>>())
}

fn scope_record(row: &SqliteRow) -> Result<ScopeRecord> {
    let state = ScopeState::parse(column(row, 10)?)?;
    let has_key = column::<Option<&str>>(row, 0)?.is_some();
    Ok(ScopeRecord {
        scope: KeyScope::new(column::<&str>(row, 8)?, column::<&str>(row, 9)?),
        state,
        generation: column(row, 11)?,
        last_version: column::<Option<u32>>(row, 12)?.unwrap_or(0),
        active: if has_key { Some(data_key(row, state)?) } else { None },
    })
}

fn data_key(row: &SqliteRow, scope_state: ScopeState) -> Result<DataKeyRecord> {
    Ok(DataKeyRecord {
        key_id: KeyId(uuid(column(row, 0)?)?),
        scope: KeyScope::new(column::<&str>(row, 1)?, column::<&str>(row, 2)?),
        version: column(row, 3)?,
        kek_id: KekId(uuid(column(row, 4)?)?),
        wrapped_key: column(row, 5)?,
        created_at: from_text(column(row, 6)?, "data_keys.created_at")?,
        shredded_at: column::<Option<&str>>(row, 7)?.map(|at| from_text(at, "data_keys.shredded_at")).transpose()?,
        scope_state,
    })
}

async fn insert_kek(connection: &mut SqliteConnection, sql: &Arc<str>, kek: &KekRecord) -> Result<()> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
        .bind(kek.kek_id.0.hyphenated().to_string())
        .bind(&kek.partition)
        .bind(&kek.provider)
        .bind(&kek.wrapped.master_key_id)
        .bind(&kek.wrapped.ciphertext)
        .bind(to_text(kek.created_at))
        .bind(to_text(kek.wrapped_at))
        .execute(connection)
        .await
        .map_err(database("inserting a key-encryption key"))?;
    Ok(())
}

fn kek(row: &SqliteRow) -> Result<KekRecord> {
    Ok(KekRecord {
        kek_id: KekId(uuid(column(row, 0)?)?),
        partition: column(row, 1)?,
        provider: column(row, 2)?,
        wrapped: WrappedKek { master_key_id: column(row, 3)?, ciphertext: column(row, 4)? },
        state: KekState::parse(column(row, 5)?)?,
        created_at: from_text(column(row, 6)?, "key_encryption_keys.created_at")?,
        wrapped_at: from_text(column(row, 7)?, "key_encryption_keys.wrapped_at")?,
    })
}
