//! Keys in SQLite.

mod log;
mod rows;
mod statements;
pub(super) mod store;

use crate::error::{Error, Result, SetUpFault, no_effect};
use crate::keys::KeyStore;
use crate::keys::names::Namespace;
use crate::sql::keys::TABLES;
use crate::sql::{check_name, fill, key_database as database, migrations, own_transaction, qualified};
use crate::sqlite::to_text;
use sqlx::SqliteConnection;
use statements::Statements;
use std::sync::Arc;
use store::query;
use time::OffsetDateTime;

/// The key tables in a SQLite database: `key_namespace`, `key_encryption_keys`, `key_scopes`, `data_keys`
/// `shred_entries`, `shred_log` and `shred_log_head`, behind a prefix if one is chosen.
///
/// SQLite's write lock takes the place of row locks: an append or a shred takes it with its first statement and holds
/// it until the transaction ends. Connections that write keys are switched to `PRAGMA secure_delete` for good, so that
/// bytes of destroyed keys do not stay in the file. The rules of `SqliteStore` about transactions that end without the
/// driver hold here too.
///
/// # Durability
/// A shred must outlast a loss of power. In SQLite, that is a setting of the connection, `PRAGMA synchronous`, which
/// can't be changed within a transaction. The default of SQLite and of sqlx is `FULL`. On a connection with a lower
/// setting, changes of scopes are refused with
/// [`TransactionFault::NotDurable`](crate::error::TransactionFault::NotDurable). Appends and reads are not refused.
/// Calls that commit on their own raise the setting meanwhile.
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
    ("breaking shred log", include_str!("../../migrations/sqlite/keys/0005_breaking_shred_log.sql")),
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

    /// The key tables behind a prefix that was checked.
    fn over(prefix: &str) -> Self {
        let name = |table: &str| TABLES.contains(&table).then(|| qualified(None, &format!("{prefix}{table}")));
        Self { prefix: prefix.to_owned(), sql: Arc::new(Statements::new(|sql| fill(sql, &name))) }
    }

    /// Creates the key tables or brings them up to date, and names the key database. It is idempotent.
    ///
    /// The namespace is chosen here, once, and never changes. There is a bookkeeping table.
    ///
    /// # Errors
    /// [`SetUpFault::NamespaceMismatch`] if the tables exist under another namespace, [`SetUpFault::NewerTables`] if a
    /// newer version has changed the tables so that this version can't work with them (other newer migrations are
    /// ignored), [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Collision`] (retryable), [`Error::Database`].
    pub async fn migrate(&self, connection: &mut SqliteConnection, namespace: &Namespace) -> Result<()> {
        migrations::run(connection, None, &self.bookkeeping(), &MIGRATIONS, |sql| self.fill(sql)).await?;
        const OPERATION: &str = "naming the key database";
        own_transaction::run(connection, OPERATION, async |tx| {
            let set = query(&self.sql.set_namespace).bind(namespace.as_str()).bind(to_text(OffsetDateTime::now_utc()));
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
    /// tables and names the key database. In addition, switch the file to write-ahead logging
    /// (`PRAGMA journal_mode = WAL`), once and outside of a transaction.
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
    pub const NEWEST_MIGRATION: u32 = 5;

    /// The number of the newest migration that [`migrate`](Self::migrate) has run. `None` if it never ran: there are no
    /// key tables, or they were created from [`migration_sql`](Self::migration_sql).
    ///
    /// # Errors
    /// [`SetUpFault::NewerTables`], [`Error::Database`].
    pub async fn applied_migration(&self, connection: &mut SqliteConnection) -> Result<Option<u32>> {
        migrations::applied(connection, None, &self.bookkeeping(), Self::NEWEST_MIGRATION).await
    }

    fn bookkeeping(&self) -> String {
        format!("_{}keys_migrations", self.prefix)
    }

    /// Fills the names into a SQL text.
    fn fill(&self, sql: &str) -> String {
        let mut sql = sql.replace("{namespace}", &format!("{}key_namespace", self.prefix));
        for table in TABLES {
            sql = sql.replace(&format!("{{{table}}}"), &format!("{}{table}", self.prefix));
        }
        sql
    }
}
