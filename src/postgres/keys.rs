//! Keys in PostgreSQL.
//!
//! What each statement locks, and in which order, decides whether a shred can be lost. The rules:
//! - the row of the scope is locked first, and `data_keys` changes in a later statement, whose snapshot is newer
//!   than the lock;
//! - rows are locked in ascending order of scope;
//! - an append shares its lock with other appends (`FOR SHARE`), whoever changes a scope does not (`FOR UPDATE`).

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
use crate::postgres::column;
use crate::sql::errors::postgres::{UNDEFINED_TABLE, sql_state};
use crate::sql::own_transaction::{self, OwnTransaction as _};
use crate::sql::{SqlRow, check_name, in_transaction, key_database as database, migrations, not_in_transaction};
use async_trait::async_trait;
use keks::kek;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres};
use statements::{Names, Statements};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// The key tables in a PostgreSQL database (15 or newer): `key_namespace`, `key_encryption_keys`, `key_scopes`,
/// `data_keys` and `key_scope_changes`, in a schema and behind a prefix if they are chosen.
///
/// ```
/// # use eventseal::Result;
/// # use eventseal::postgres::PostgresKeys;
/// # use std::time::Duration;
/// # fn main() -> Result<()> {
/// let keys = PostgresKeys::new().in_schema("keys")?.with_prefix("shop_")?.lock_timeout(Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
///
/// # Locks
/// An append holds a shared lock on the rows of its key scopes until its transaction ends; reads hold none. Shred,
/// reopen, rotate, disable and enable wait for the appends of that scope that are in flight, and appends that come
/// later wait for them. PostgreSQL lets a steady stream of overlapping appends to one scope keep a shred waiting,
/// so keep transactions short, and set a [`lock_timeout`](Self::lock_timeout): the shred then fails with the
/// retryable [`Error::Collision`] instead of queueing.
///
/// # Durability
/// A transaction that changes a scope is committed with `synchronous_commit = on`, whatever the default is: a shred
/// that was reported must outlast a crash. What is stronger stays. Appends that make a key are as durable as the
/// transaction was.
///
/// # Isolation levels
/// Under `READ COMMITTED` every statement sees what was committed before it. Under `REPEATABLE READ` and
/// `SERIALIZABLE` a transaction goes on seeing what it saw first: reads in a transaction that began before a shred
/// still open the event, while an append in it fails with [`Error::Collision`]. No event is ever committed under a
/// destroyed key, whatever the level.
#[derive(Clone, Debug)]
pub struct PostgresKeys {
    names: Names,
    sql: Arc<Statements>,
    lock_timeout: Option<Duration>,
}

const MIGRATIONS: [(&str, &str); PostgresKeys::NEWEST_MIGRATION as usize] = [
    ("keys", include_str!("../../migrations/postgres/keys/0001_keys.sql")),
    ("rewrap", include_str!("../../migrations/postgres/keys/0002_rewrap.sql")),
    ("actor", include_str!("../../migrations/postgres/keys/0003_actor.sql")),
    ("keks", include_str!("../../migrations/postgres/keys/0004_keks.sql")),
];

impl Default for PostgresKeys {
    fn default() -> Self {
        Self::over(Names::default())
    }
}

impl PostgresKeys {
    /// The key tables without a prefix, where the connection's `search_path` leads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// In this schema.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn in_schema(self, schema: &str) -> Result<Self> {
        check_name("the schema name", schema)?;
        let names = Names { schema: Some(schema.to_owned()), ..self.names };
        Ok(Self { lock_timeout: self.lock_timeout, ..Self::over(names) })
    }

    /// Behind a prefix, such as `eventseal_`.
    ///
    /// # Errors
    /// As [`in_schema`](Self::in_schema).
    pub fn with_prefix(self, prefix: &str) -> Result<Self> {
        check_name("the prefix of the key tables", prefix)?;
        let names = Names { prefix: prefix.to_owned(), ..self.names };
        Ok(Self { lock_timeout: self.lock_timeout, ..Self::over(names) })
    }

    /// Makes shred, reopen, rotate, disable and enable give up with [`Error::Collision`] when they have waited this
    /// long for a lock, and the first append of a scope when another one is making its key. Rounded up to milliseconds,
    /// and at most 24 days; [`Duration::ZERO`] waits for ever. The transaction's own `lock_timeout`, which holds
    /// otherwise, is put back afterwards.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    fn over(names: Names) -> Self {
        Self { sql: Arc::new(Statements::new(&names)), names, lock_timeout: None }
    }

    /// Makes the key tables, or brings them up to date, and names the key database. Idempotent.
    ///
    /// The namespace is chosen here, once, and never changes. A configured schema is made if it is missing. The
    /// bookkeeping is in a table of its own. Takes an advisory lock of the session, so give it a direct
    /// connection, not one through PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::NamespaceMismatch`] if the tables exist under another namespace, [`SetUpFault::TablesExist`],
    /// [`SetUpFault::NewerTables`] if this version can't work with what a newer one has made of them (other newer
    /// migrations are left as they are),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`SetUpFault::PermissionDenied`], [`Error::Database`].
    pub async fn migrate(&self, connection: &mut PgConnection, namespace: &Namespace) -> Result<()> {
        let (schema, bookkeeping) = (self.names.schema.as_deref(), self.bookkeeping());
        migrations::run(connection, schema, &bookkeeping, &MIGRATIONS, |sql| self.names.fill(sql)).await?;
        const OPERATION: &str = "naming the key database";
        own_transaction::run(connection, OPERATION, async |tx| {
            let set = query(&self.sql.set_namespace).bind(namespace.as_str()).bind(OffsetDateTime::now_utc());
            set.execute(tx).await.map(drop).map_err(database(OPERATION))
        })
        .await?;
        match self.namespace(connection).await? {
            Some(found) if found == *namespace => Ok(()),
            Some(found) => Err(Error::SetUp(SetUpFault::NamespaceMismatch { configured: namespace.clone(), found })),
            None => Err(no_effect(OPERATION, "key_namespace")),
        }
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own. It makes
    /// the tables and names the key database.
    #[must_use]
    pub fn migration_sql(&self, namespace: &Namespace) -> String {
        let name = format!(
            "\nINSERT INTO {} (only_row, namespace, created_at) VALUES (1, '{}', now());\n",
            self.names.table("key_namespace"),
            namespace.as_str().replace('\'', "''")
        );
        MIGRATIONS.iter().map(|(_, sql)| self.names.fill(sql)).collect::<Vec<_>>().join("\n") + &name
    }

    /// The number of the newest migration that this version of the crate has.
    pub const NEWEST_MIGRATION: u32 = 4;

    /// The number of the newest migration that [`migrate`](Self::migrate) has run. `None` if it never ran: there are
    /// no key tables, or somebody made them from [`migration_sql`](Self::migration_sql).
    ///
    /// # Errors
    /// [`SetUpFault::NewerTables`], [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`].
    pub async fn applied_migration(&self, connection: &mut PgConnection) -> Result<Option<u32>> {
        const OPERATION: &str = "reading which migrations were run";
        // A table that is missing would abort the caller's transaction.
        not_in_transaction(connection, OPERATION)?;
        let (schema, bookkeeping) = (self.names.schema.as_deref(), self.bookkeeping());
        migrations::applied(connection, schema, &bookkeeping, Self::NEWEST_MIGRATION).await
    }

    fn bookkeeping(&self) -> String {
        format!("_{}keys_migrations", self.names.prefix)
    }

    /// Every statement, for tests of their plans.
    #[cfg(feature = "internals")]
    pub(crate) fn statements(&self) -> Vec<(&'static str, Arc<str>)> {
        self.sql.all()
    }

    /// Sets the configured timeout for statements that may wait for a lock. Returns what to put back: after an error
    /// there is nothing to, since the transaction is aborted, and its settings with it.
    async fn begin_waiting(&self, tx: &mut PgConnection) -> Result<Option<String>> {
        let Some(timeout) = self.lock_timeout else { return Ok(None) };
        let failed = || database("setting lock_timeout");
        let before: String =
            sqlx::query_scalar("SELECT current_setting('lock_timeout')").fetch_one(&mut *tx).await.map_err(failed())?;
        set_lock_timeout(tx, format!("{}ms", milliseconds(timeout))).await?;
        Ok(Some(before))
    }

    async fn end_waiting(&self, tx: &mut PgConnection, before: Option<String>) -> Result<()> {
        match before {
            Some(before) => set_lock_timeout(tx, before).await,
            None => Ok(()),
        }
    }

    async fn look(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        let (kinds, ids) = columns(scopes);
        let rows = query(&self.sql.scopes)
            .bind(kinds)
            .bind(ids)
            .fetch_all(tx)
            .await
            .map_err(database("reading key scopes"))?;
        rows.iter().map(scope_record).collect()
    }

    async fn share(&self, tx: &mut PgConnection, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        let (reserved, others): (Vec<KeyScope>, Vec<KeyScope>) =
            scopes.iter().cloned().partition(KeyScope::is_reserved);
        let ((kinds, ids), (reserved_kinds, reserved_ids)) = (columns(&others), columns(&reserved));
        let rows = query(&self.sql.share_scopes)
            .bind(kinds)
            .bind(ids)
            .bind(reserved_kinds)
            .bind(reserved_ids)
            .fetch_all(&mut *tx)
            .await
            .map_err(database("locking key scopes"))?;
        let locked = rows.iter().map(scope_record).collect::<Result<Vec<_>>>()?;
        let mut changed = false;
        for row in &rows {
            // The lock was waited for, and the row is newer than the statement's snapshot, in which its active
            // key does not exist. Now that it is locked, another look sees both.
            changed |= column::<Option<Uuid>>(row, 13)?.is_some() && column::<Option<Uuid>>(row, 0)?.is_none();
        }
        if !changed {
            return Ok(locked);
        }
        // Scopes that were committed in between are not locked, and so are left out.
        let locked: Vec<KeyScope> = locked.into_iter().map(|record| record.scope).collect();
        self.look(tx, &locked).await
    }

    async fn insert(&self, tx: &mut PgConnection, keys: &[NewDataKey]) -> Result<()> {
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
        let inserted = inserted.iter().map(|row| column(row, 0)).collect::<Result<Vec<Uuid>>>()?;
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
        match self.look(tx, std::slice::from_ref(&refused.scope)).await?.pop() {
            Some(record) if record.state == ScopeState::Live => {
                Err(no_effect("inserting data keys", "data_keys or key_scopes"))
            }
            Some(_) => Err(Error::Keys(KeyFault::ScopeState {
                scope: refused.scope.clone(),
                problem: "is not live, so it can't be given a key",
            })),
            None => Err(Error::Keys(KeyFault::ScopeState {
                scope: refused.scope.clone(),
                problem: "is not there, so it can't be given a key",
            })),
        }
    }
}

#[async_trait]
impl KeyStore for PostgresKeys {
    type Tx = PgConnection;

    fn is_in_transaction(&self, tx: &PgConnection) -> bool {
        tx.is_in_transaction()
    }

    async fn namespace(&self, tx: &mut PgConnection) -> Result<Option<Namespace>> {
        match query(&self.sql.namespace).fetch_optional(tx).await {
            Ok(row) => row.map(|row| Namespace::new(column::<String>(&row, 0)?)).transpose(),
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

    async fn install_kek(&self, connection: &mut PgConnection, kek: &KekRecord) -> Result<()> {
        const OPERATION: &str = "preparing keys";
        own_transaction::run(connection, OPERATION, async |tx| self.install_in(tx, kek).await).await
    }

    async fn kek_usage(&self, tx: &mut PgConnection) -> Result<Vec<KekUsage>> {
        let rows = query(&self.sql.kek_usage).fetch_all(tx).await.map_err(database("counting data keys"))?;
        let usage = rows.iter().map(|row| {
            Ok(KekUsage {
                kek: kek(row)?,
                live_keys: column::<i64>(row, 8)?.unsigned_abs(),
                oldest_wrap: row.optional_time(9, "data_keys.wrapped_at")?,
            })
        });
        usage.collect()
    }

    async fn replace_kek(&self, connection: &mut PgConnection, replaced: KekId, kek: &KekRecord) -> Result<bool> {
        const OPERATION: &str = "rotating a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| self.replace_in(tx, replaced, kek).await).await
    }

    async fn move_kek(
        &self,
        connection: &mut PgConnection,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        const OPERATION: &str = "moving a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| self.move_in(tx, old, provider, wrapped, at).await).await
    }

    async fn retire_kek(&self, connection: &mut PgConnection, kek_id: KekId) -> Result<Retirement> {
        const OPERATION: &str = "retiring a key-encryption key";
        own_transaction::run(connection, OPERATION, async |tx| self.retire_in(tx, kek_id).await).await
    }

    async fn rewrap_batch(
        &self,
        connection: &mut PgConnection,
        batch: &RewrapBatch,
        by: &dyn Rewrapper,
    ) -> Result<RewrappedBatch> {
        const OPERATION: &str = "rewrapping data keys";
        own_transaction::run(connection, OPERATION, async |tx| self.rewrap_in(tx, batch, by).await).await
    }

    async fn install_key(&self, connection: &mut PgConnection, key: &NewDataKey) -> Result<()> {
        const OPERATION: &str = "preparing keys";
        own_transaction::run(connection, OPERATION, async |tx| self.install_key_in(tx, key).await).await
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
                // Each scope can appear but once between the two statements.
                for _ in 0..=scopes.len() {
                    let before = self.begin_waiting(tx).await?;
                    let (kinds, ids) = columns(scopes);
                    let locked = query(&self.sql.lock_scopes).bind(kinds).bind(ids).execute(&mut *tx).await;
                    let locked = locked.map_err(database("locking key scopes"))?.rows_affected();
                    self.end_waiting(tx, before).await?;
                    // A statement of its own: its snapshot is newer than the lock.
                    let records = self.look(tx, scopes).await?;
                    if records.len() as u64 <= locked {
                        return Ok(records);
                    }
                    // A scope was committed between the two: it is there, and not locked yet.
                }
                // It can be read, but not locked.
                Err(no_effect("locking key scopes", "key_scopes"))
            }
        }
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
        rows.iter().map(|row| data_key(row, ScopeState::parse(column(row, 8)?)?)).collect()
    }

    async fn change_scope(&self, tx: &mut PgConnection, change: &ScopeChange) -> Result<()> {
        const OPERATION: &str = "changing a key scope";
        in_transaction(tx, OPERATION)?;
        Postgres::commit_durably(tx).await?;
        let recorded = query(&self.sql.change_scope)
            .bind(change.scope.kind())
            .bind(change.scope.id())
            .bind(change.action.as_str())
            .bind(change.state.as_str())
            .bind(i64::from(change.generation))
            .bind(&change.reason)
            .bind(change.at)
            .bind(change.actor.as_deref())
            .execute(tx)
            .await
            .map_err(database(OPERATION))?;
        if recorded.rows_affected() == 1 {
            Ok(())
        } else {
            Err(no_effect(OPERATION, "key_scopes or key_scope_changes"))
        }
    }

    async fn destroy_keys(&self, tx: &mut PgConnection, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<KeyId>> {
        const OPERATION: &str = "destroying data keys";
        in_transaction(tx, OPERATION)?;
        Postgres::commit_durably(tx).await?;
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
        let destroyed = rows.iter().map(|row| Ok((column::<i64>(row, 1)?, KeyId(column(row, 0)?))));
        let mut destroyed = destroyed.collect::<Result<Vec<(i64, KeyId)>>>()?;
        destroyed.sort_unstable_by_key(|(version, _)| *version);
        Ok(destroyed.into_iter().map(|(_, key_id)| key_id).collect())
    }

    async fn scopes_with_ids(&self, tx: &mut PgConnection, ids: &[String]) -> Result<Vec<KeyScope>> {
        let rows = query(&self.sql.scopes_with_ids)
            .bind(ids.to_vec())
            .fetch_all(tx)
            .await
            .map_err(database("looking for key scopes"))?;
        rows.iter().map(|row| Ok(KeyScope::new(column::<&str>(row, 0)?, column::<&str>(row, 1)?))).collect()
    }

    async fn history(&self, tx: &mut PgConnection, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        let Some(record) = self.look(tx, std::slice::from_ref(scope)).await?.pop() else { return Ok(None) };
        let failed = || database("reading a key history");
        let keys = query(&self.sql.history_keys)
            .bind(scope.kind())
            .bind(scope.id())
            .fetch_all(&mut *tx)
            .await
            .map_err(failed())?;
        let changes = query(&self.sql.history_changes)
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
                generation: row.small_number(2, "key_scope_changes.generation")?,
                reason: column(row, 3)?,
                actor: column(row, 5)?,
                at: row.time(4, "key_scope_changes.at")?,
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

fn query(sql: &Arc<str>) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

/// What PostgreSQL takes, for which 0 means no time-out: so nothing but 0 becomes 0.
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

/// In ascending order, byte by byte: the order in which rows are locked and inserted.
fn columns(scopes: &[KeyScope]) -> (Vec<String>, Vec<String>) {
    let mut scopes: Vec<&KeyScope> = scopes.iter().collect();
    scopes.sort_unstable();
    scopes.into_iter().map(|scope| (scope.kind().to_owned(), scope.id().to_owned())).unzip()
}

fn scope_record(row: &PgRow) -> Result<ScopeRecord> {
    let state = ScopeState::parse(column(row, 10)?)?;
    let has_key = column::<Option<Uuid>>(row, 0)?.is_some();
    Ok(ScopeRecord {
        scope: KeyScope::new(column::<&str>(row, 8)?, column::<&str>(row, 9)?),
        state,
        generation: row.small_number(11, "key_scopes.generation")?,
        last_version: row.optional_small_number(12, "data_keys.version")?.unwrap_or(0),
        active: if has_key { Some(data_key(row, state)?) } else { None },
    })
}

fn data_key(row: &PgRow, scope_state: ScopeState) -> Result<DataKeyRecord> {
    Ok(DataKeyRecord {
        key_id: KeyId(column(row, 0)?),
        scope: KeyScope::new(column::<&str>(row, 1)?, column::<&str>(row, 2)?),
        version: row.small_number(3, "data_keys.version")?,
        kek_id: KekId(column(row, 4)?),
        wrapped_key: column(row, 5)?,
        created_at: row.time(6, "data_keys.created_at")?,
        shredded_at: row.optional_time(7, "data_keys.shredded_at")?,
        scope_state,
    })
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
