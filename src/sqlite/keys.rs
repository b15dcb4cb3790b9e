//! Keys in SQLite.

mod keks;
mod restored;
mod statements;

use crate::error::{Error, KeyFault, Result, SetUpFault, no_effect};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, KekRecord, KekState, KekUsage, KeyHistory, KeyInfo, KeyStore, NewDataKey, Retirement, RewrapBatch,
    RewrappedBatch, Rewrapper, ScopeAction, ScopeChange, ScopeLock, ScopeRecord, ScopeState,
};
use crate::kms::WrappedKek;
use crate::sql::{SqlRow, check_name, in_transaction, key_database as database, migrations, own_transaction};
use crate::sqlite::own_transaction::check_durable;
use crate::sqlite::{column, to_text};
use async_trait::async_trait;
use keks::kek;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use statements::Statements;
use std::sync::Arc;
use time::OffsetDateTime;

/// The key tables in a SQLite database: `key_namespace`, `key_encryption_keys`, `key_scopes`, `data_keys`
/// and `key_scope_changes`, behind a prefix if one is chosen.
///
/// SQLite's write lock takes the place of row locks: an append or a shred takes it with its first
/// statement and holds it until the transaction ends. Connections that write keys are switched to
/// `PRAGMA secure_delete` and stay so, so that bytes of destroyed keys do not stay in the file. What
/// `SqliteStore` says about transactions that ended below the driver is true here too.
///
/// # Durability
/// A shred must outlast a loss of power. SQLite sets that for a connection, with `PRAGMA synchronous`, and does not let
/// a transaction change it. Changes of scopes are therefore refused on a connection below `FULL`, which is the default
/// of SQLite and of sqlx, with [`TransactionFault::NotDurable`](crate::error::TransactionFault::NotDurable); appends
/// and reads are not. What commits on its own sets it meanwhile.
#[derive(Clone, Debug)]
pub struct SqliteKeys {
    prefix: String,
    sql: Arc<Statements>,
}

const MIGRATIONS: [(&str, &str); SqliteKeys::NEWEST_MIGRATION as usize] = [
    ("keys", include_str!("../../migrations/sqlite/keys/0001_keys.sql")),
    ("rewrap", include_str!("../../migrations/sqlite/keys/0002_rewrap.sql")),
    ("actor", include_str!("../../migrations/sqlite/keys/0003_actor.sql")),
    ("keks", include_str!("../../migrations/sqlite/keys/0004_keks.sql")),
];

impl Default for SqliteKeys {
    fn default() -> Self {
        Self::over("")
    }
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
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`.
    pub fn with_prefix(prefix: &str) -> Result<Self> {
        check_name("the prefix of the key tables", prefix)?;
        Ok(Self::over(prefix))
    }

    /// The prefix was checked.
    fn over(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), sql: Arc::new(Statements::new(prefix)) }
    }

    /// Makes the key tables, or brings them up to date, and names the key database. Idempotent.
    ///
    /// The namespace is chosen here, once, and never changes. The bookkeeping is in a table of its own.
    ///
    /// # Errors
    /// [`SetUpFault::NamespaceMismatch`] if the tables exist under another namespace, [`SetUpFault::NewerTables`] if
    /// this version can't work with what a newer one has made of them (other newer migrations are left as they are),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection, namespace: &Namespace) -> Result<()> {
        migrations::run(connection, None, &self.bookkeeping(), &MIGRATIONS, |sql| self.fill(sql)).await?;
        const OPERATION: &str = "naming the key database";
        own_transaction::run(connection, OPERATION, async |tx| {
            let set = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.set_namespace)))
                .bind(namespace.as_str())
                .bind(to_text(OffsetDateTime::now_utc()));
            set.execute(tx).await.map(drop).map_err(database(OPERATION))
        })
        .await?;
        match self.namespace(connection).await? {
            Some(found) if found == *namespace => Ok(()),
            Some(found) => Err(Error::SetUp(SetUpFault::NamespaceMismatch { configured: namespace.clone(), found })),
            None => Err(no_effect(OPERATION, "key_namespace")),
        }
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own. It makes the
    /// tables and names the key database. Besides, switch the file to write-ahead logging (`PRAGMA journal_mode =
    /// WAL`), once and outside of a transaction.
    #[must_use]
    pub fn migration_sql(&self, namespace: &Namespace) -> String {
        let name = format!(
            "\nINSERT INTO \"{}key_namespace\" (only_row, namespace, created_at) VALUES (1, '{}', \
             strftime('%Y-%m-%dT%H:%M:%fZ'));\n",
            self.prefix,
            namespace.as_str().replace('\'', "''")
        );
        MIGRATIONS.iter().map(|(_, sql)| self.fill(sql)).collect::<Vec<_>>().join("\n") + &name
    }

    /// The number of the newest migration that this version of the crate has.
    pub const NEWEST_MIGRATION: u32 = 4;

    /// The number of the newest migration that [`migrate`](Self::migrate) has run. `None` if it never ran: there are
    /// no key tables, or somebody made them from [`migration_sql`](Self::migration_sql).
    ///
    /// # Errors
    /// [`SetUpFault::NewerTables`], [`Error::Database`].
    pub async fn applied_migration(&self, connection: &mut SqliteConnection) -> Result<Option<u32>> {
        migrations::applied(connection, None, &self.bookkeeping(), Self::NEWEST_MIGRATION).await
    }

    fn bookkeeping(&self) -> String {
        format!("_{}keys_migrations", self.prefix)
    }

    /// A SQL text with the names filled in.
    fn fill(&self, sql: &str) -> String {
        let mut sql = sql.replace("{namespace}", &format!("{}key_namespace", self.prefix));
        for table in ["key_encryption_keys", "key_scopes", "data_keys", "key_scope_changes"] {
            sql = sql.replace(&format!("{{{table}}}"), &format!("{}{table}", self.prefix));
        }
        sql
    }

    async fn insert(&self, tx: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        const OPERATION: &str = "inserting data keys";
        let key_id = key.key_id.0.hyphenated().to_string();
        let inserted = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.insert_key)))
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
        if inserted.rows_affected() == 0 {
            // Retired meanwhile, never there, or kept away.
            return Err(match self.keks(tx, &[key.kek_id]).await?.pop() {
                Some(kek) if kek.state == KekState::Retired => Error::Collision { source: None },
                Some(_) => no_effect(OPERATION, "data_keys"),
                None => Error::Keys(KeyFault::MissingKek { kek_id: key.kek_id }),
            });
        }
        let activated = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.activate_key)))
            .bind(&key_id)
            .bind(key.scope.kind())
            .bind(key.scope.id())
            .execute(&mut *tx)
            .await
            .map_err(database("activating a data key"))?;
        if activated.rows_affected() != 1 {
            return match self.look(tx, &key.scope).await? {
                Some(record) if record.state == ScopeState::Live => Err(no_effect(OPERATION, "key_scopes")),
                Some(_) => Err(Error::Keys(KeyFault::ScopeState {
                    scope: key.scope.clone(),
                    problem: "is not live, so it can't be given a key",
                })),
                None => Err(Error::Keys(KeyFault::ScopeState {
                    scope: key.scope.clone(),
                    problem: "is not there, so it can't be given a key",
                })),
            };
        }
        // SQLite counts a row that a trigger has put back.
        match self.look(tx, &key.scope).await?.and_then(|record| record.active) {
            Some(active) if active.key_id == key.key_id && active.wrapped_key.as_ref() == Some(&key.wrapped_key) => {
                Ok(())
            }
            _ => Err(no_effect(OPERATION, "data_keys or key_scopes")),
        }
    }

    async fn look(&self, tx: &mut SqliteConnection, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        Ok(self.scopes(tx, std::slice::from_ref(scope), ScopeLock::None).await?.pop())
    }
}

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
        let found =
            sqlx::query_scalar::<_, String>(AssertSqlSafe(Arc::clone(&self.sql.namespace))).fetch_optional(tx).await;
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
        const OPERATION: &str = "preparing keys";
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.install_in(tx, kek).await
        })
        .await
    }

    async fn kek_usage(&self, tx: &mut SqliteConnection) -> Result<Vec<KekUsage>> {
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.kek_usage)))
            .fetch_all(tx)
            .await
            .map_err(database("counting data keys"))?;
        let usage = rows.iter().map(|row| {
            Ok(KekUsage {
                kek: kek(row)?,
                live_keys: column::<i64>(row, 8)?.unsigned_abs(),
                oldest_wrap: row.optional_time(9, "data_keys.wrapped_at")?,
            })
        });
        usage.collect()
    }

    async fn replace_kek(&self, connection: &mut SqliteConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        const OPERATION: &str = "rotating a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.replace_in(tx, replaced, kek).await
        })
        .await
    }

    async fn move_kek(
        &self,
        connection: &mut SqliteConnection,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        const OPERATION: &str = "moving a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.move_in(tx, old, provider, wrapped, at).await
        })
        .await
    }

    async fn retire_kek(&self, connection: &mut SqliteConnection, kek_id: KekId) -> Result<Retirement> {
        const OPERATION: &str = "retiring a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.retire_in(tx, kek_id).await
        })
        .await
    }

    async fn rewrap_batch(
        &self,
        connection: &mut SqliteConnection,
        batch: &RewrapBatch,
        by: &dyn Rewrapper,
    ) -> Result<RewrappedBatch> {
        const OPERATION: &str = "rewrapping data keys";
        // The write lock stands in for locks on rows: another runner waits, and finds other rows.
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.rewrap_in(tx, batch, by).await
        })
        .await
    }

    async fn install_key(&self, connection: &mut SqliteConnection, key: &NewDataKey) -> Result<()> {
        const OPERATION: &str = "preparing keys";
        own_transaction::run(connection, OPERATION, async |tx| {
            overwrite_freed(tx).await?;
            self.install_key_in(tx, key).await
        })
        .await
    }

    async fn scopes(
        &self,
        tx: &mut SqliteConnection,
        scopes: &[KeyScope],
        lock: ScopeLock,
    ) -> Result<Vec<ScopeRecord>> {
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
        let ids: Vec<String> = key_ids.iter().map(|key_id| key_id.0.hyphenated().to_string()).collect();
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.data_keys)))
            .bind(json(&ids)?)
            .fetch_all(tx)
            .await
            .map_err(database("reading data keys"))?;
        rows.iter().map(|row| data_key(row, ScopeState::parse(column(row, 8)?)?)).collect()
    }

    async fn change_scope(&self, tx: &mut SqliteConnection, change: &ScopeChange) -> Result<()> {
        const OPERATION: &str = "changing a key scope";
        in_transaction(tx, OPERATION)?;
        check_durable(tx, OPERATION).await?;
        let changed = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.change_scope)))
            .bind(change.scope.kind())
            .bind(change.scope.id())
            .bind(change.state.as_str())
            .bind(change.generation)
            .execute(&mut *tx)
            .await
            .map_err(database(OPERATION))?;
        let recorded = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.add_change)))
            .bind(change.scope.kind())
            .bind(change.scope.id())
            .bind(change.action.as_str())
            .bind(change.state.as_str())
            .bind(change.generation)
            .bind(&change.reason)
            .bind(to_text(change.at))
            .bind(change.actor.as_deref())
            .execute(tx)
            .await
            .map_err(database("recording a change of a key scope"))?;
        match (changed.rows_affected(), recorded.rows_affected()) {
            (1, 1) => Ok(()),
            (1, _) => Err(no_effect(OPERATION, "key_scope_changes")),
            _ => Err(no_effect(OPERATION, "key_scopes")),
        }
    }

    async fn destroy_keys(
        &self,
        tx: &mut SqliteConnection,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<KeyId>> {
        const OPERATION: &str = "destroying data keys";
        in_transaction(tx, OPERATION)?;
        let failed = || database(OPERATION);
        check_durable(tx, OPERATION).await?;
        overwrite_freed(tx).await?;
        let destroyed = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.destroy_keys)))
            .bind(scope.kind())
            .bind(scope.id())
            .bind(to_text(at))
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let left = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.any_key_of_scope)))
            .bind(scope.kind())
            .bind(scope.id())
            .fetch_optional(tx)
            .await
            .map_err(failed())?;
        if left.is_some() {
            return Err(no_effect(OPERATION, "data_keys"));
        }
        let destroyed = destroyed.iter().map(|row| Ok((row.number(1)?, KeyId(row.id(0)?))));
        let mut destroyed = destroyed.collect::<Result<Vec<_>>>()?;
        destroyed.sort_unstable();
        Ok(destroyed.into_iter().map(|(_, key_id)| key_id).collect())
    }

    async fn scopes_with_ids(&self, tx: &mut SqliteConnection, ids: &[String]) -> Result<Vec<KeyScope>> {
        let rows = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql.scopes_with_ids)))
            .bind(json(&ids)?)
            .fetch_all(tx)
            .await
            .map_err(database("looking for key scopes"))?;
        rows.iter().map(|row| Ok(KeyScope::new(column::<&str>(row, 0)?, column::<&str>(row, 1)?))).collect()
    }

    async fn history(&self, tx: &mut SqliteConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let Some(record) = self.scopes(tx, std::slice::from_ref(scope), ScopeLock::None).await?.pop() else {
            return Ok(None);
        };
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
                actor: column(row, 5)?,
                at: row.time(4, "changed_at")?,
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

/// Lets SQLite overwrite bytes that it frees, instead of leaving them in the file's pages: those of
/// destroyed keys, and copies that stay behind when rows move to another page.
async fn overwrite_freed(tx: &mut SqliteConnection) -> Result<()> {
    sqlx::query("PRAGMA secure_delete = ON").execute(tx).await.map_err(database("switching secure deletion on"))?;
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::database("writing a list", source))
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
        last_version: row.optional_small_number(12, "data_keys.version")?.unwrap_or(0),
        active: if has_key { Some(data_key(row, state)?) } else { None },
    })
}

fn data_key(row: &SqliteRow, scope_state: ScopeState) -> Result<DataKeyRecord> {
    Ok(DataKeyRecord {
        key_id: KeyId(row.id(0)?),
        scope: KeyScope::new(column::<&str>(row, 1)?, column::<&str>(row, 2)?),
        version: column(row, 3)?,
        kek_id: KekId(row.id(4)?),
        wrapped_key: column(row, 5)?,
        created_at: row.time(6, "data_keys.created_at")?,
        shredded_at: row.optional_time(7, "data_keys.shredded_at")?,
        scope_state,
    })
}
