//! Keys in PostgreSQL.

mod log;
mod rows;
mod statements;
mod store;

use crate::error::{Error, Result, SetUpFault, no_effect};
use crate::keys::names::Namespace;
use crate::keys::{KeyStore, KeyTableNames};
use crate::sql::{check_name, key_database as database, migrations, not_in_transaction, own_transaction};
use sqlx::PgConnection;
use statements::{Names, Statements};
use std::sync::Arc;
use std::time::Duration;
use store::query;
use time::OffsetDateTime;

/// The key tables in a PostgreSQL database (15 or newer): `key_namespace`, `key_encryption_keys`, `key_scopes`,
/// `data_keys`, `shred_entries`, `shred_log` and `shred_log_head`, in a schema and behind a prefix if they are chosen.
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
/// reopen, rotate, disable and enable wait for the appends of that scope that are in flight, and later appends wait for
/// them. PostgreSQL lets a steady stream of overlapping appends to one scope keep a shred waiting, so keep transactions
/// short, and set a [`lock_timeout`](Self::lock_timeout): the shred then fails with the retryable [`Error::Collision`]
/// instead of queueing.
///
/// # Durability
/// A transaction that changes a scope is committed with `synchronous_commit = on`, whatever the default is: a shred
/// that was reported must outlast a crash. A stronger setting is kept. Appends that create a key are as durable as the
/// caller's transaction.
///
/// # Isolation levels
/// Under `READ COMMITTED` every statement sees what was committed before it. Under `REPEATABLE READ` and
/// `SERIALIZABLE` a transaction goes on seeing what it saw first: reads in a transaction that began before a shred
/// still open the event, while an append in it fails with [`Error::Collision`]. No event is ever committed under a
/// destroyed key, whatever the level.
#[derive(Clone, Debug)]
pub struct PostgresKeys {
    names: Names,
    tables: KeyTableNames,
    sql: Arc<Statements>,
    lock_timeout: Option<Duration>,
}

const MIGRATIONS: [(&str, &str); PostgresKeys::NEWEST_MIGRATION as usize] = [
    ("keys", include_str!("../../migrations/postgres/keys/0001_keys.sql")),
    ("rewrap", include_str!("../../migrations/postgres/keys/0002_rewrap.sql")),
    ("actor", include_str!("../../migrations/postgres/keys/0003_actor.sql")),
    ("keks", include_str!("../../migrations/postgres/keys/0004_keks.sql")),
    ("breaking shred log", include_str!("../../migrations/postgres/keys/0005_breaking_shred_log.sql")),
];

impl Default for PostgresKeys {
    fn default() -> Self {
        Self::over(Names::default())
    }
}

impl PostgresKeys {
    /// The key tables without a prefix, in the schema to which the connection's `search_path` leads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Uses the key tables in this schema.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn in_schema(self, schema: &str) -> Result<Self> {
        check_name("the schema name", schema)?;
        let names = Names { schema: Some(schema.to_owned()), ..self.names };
        Ok(Self { lock_timeout: self.lock_timeout, ..Self::over(names) })
    }

    /// Uses the key tables behind a prefix, such as `eventseal_`.
    ///
    /// # Errors
    /// Those of [`in_schema`](Self::in_schema).
    pub fn with_prefix(self, prefix: &str) -> Result<Self> {
        check_name("the prefix of the key tables", prefix)?;
        let names = Names { prefix: prefix.to_owned(), ..self.names };
        Ok(Self { lock_timeout: self.lock_timeout, ..Self::over(names) })
    }

    /// Sets how long shred, reopen, rotate, disable and enable wait for a lock before they fail with
    /// [`Error::Collision`]. It also holds for the first append of a scope, if another transaction is creating the
    /// scope's key. The time is rounded up to milliseconds, and is at most 24 days; [`Duration::ZERO`] waits for ever.
    /// The transaction's own `lock_timeout` holds for all other statements, and is restored afterwards.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    fn over(names: Names) -> Self {
        let tables = KeyTableNames::new(names.table("key_scopes"), names.table("data_keys"));
        Self { sql: Arc::new(Statements::new(|sql| names.fill(sql))), names, tables, lock_timeout: None }
    }

    /// Creates the key tables or brings them up to date, and names the key database. It is idempotent.
    ///
    /// The namespace is chosen here, once, and never changes. A configured schema is created if it is missing. There is
    /// a bookkeeping table. This takes an advisory lock of the session, so pass a direct connection, not one through
    /// PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::NamespaceMismatch`] if the tables exist under another namespace, [`SetUpFault::TablesExist`],
    /// [`SetUpFault::NewerTables`] if a newer version has changed the tables so that this version can't work with them
    /// (other newer migrations are ignored),
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

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own. It creates the
    /// tables and names the key database.
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
    pub const NEWEST_MIGRATION: u32 = 5;

    /// The number of the newest migration that [`migrate`](Self::migrate) has run. `None` if it never ran: there are no
    /// key tables, or they were created from [`migration_sql`](Self::migration_sql).
    ///
    /// # Errors
    /// [`SetUpFault::NewerTables`], [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`].
    pub async fn applied_migration(&self, connection: &mut PgConnection) -> Result<Option<u32>> {
        const OPERATION: &str = "reading which migrations were run";
        // A missing table would abort the caller's transaction.
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
}
