//! A copy of the shred log in PostgreSQL.

use crate::error::{BoxError, Result};
use crate::keys::shred_log::ShredLogCopy;
use crate::sql::check_name;
use crate::sql::copy::{CopyDialect, CopyTable, TABLE, in_url};
use crate::sql::migrations::Migrations;
use async_trait::async_trait;
use sqlx::postgres::PgPool;
use sqlx::{Pool, Postgres};

/// A copy of the shred log in a table of a PostgreSQL database (15 or newer), [`shred_log_copy`](Self::table) if no
/// other one is named.
///
/// **Use another server than that of the keys**: one that is not restored together with it. The table holds the copy of
/// one key database. Rows are only ever added, which triggers guard. Any number of processes may export to it at once.
/// An append commits durably, whatever the server's default is.
///
/// The table is made when lines are first added. That needs the privilege to create, so let its owner call
/// [`migrate`](Self::migrate) once. A role that exports needs `SELECT` and `INSERT` then, and one that compares and
/// replays needs `SELECT`. Without a table the copy counts as empty.
///
/// If the database can't be reached, a call waits as long as the pool lets it:
/// [`acquire_timeout`](sqlx::pool::PoolOptions::acquire_timeout).
///
/// ```
/// # use eventseal::keys::{KeyManager, KeyTable};
/// # use eventseal::postgres::{PostgresCopy, PostgresKeys};
/// # use sqlx::postgres::{PgConnection, PgPoolOptions};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # let _entered = runtime.enter();
/// # let kms = eventseal::Keyring::generate("main")?;
/// let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5));
/// let copy = PostgresCopy::new(pool.connect_lazy("postgres://copier@elsewhere.example.org/logs")?);
/// let keys: KeyManager<PgConnection> =
///     KeyManager::builder(PostgresKeys::new(), kms).require_shred_log(copy, Duration::from_secs(60)).build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresCopy(CopyTable<Postgres>);

impl CopyDialect for Postgres {
    const ADD: &'static str = "INSERT INTO {table} (line, text)
        SELECT $1 + w.number, w.text FROM UNNEST((SELECT $2::text[])) WITH ORDINALITY AS w (text, number)
        ORDER BY w.number ON CONFLICT DO NOTHING RETURNING line";
    const MIGRATIONS: &'static Migrations =
        &[("shred log copy", include_str!("../../migrations/postgres/shred_log_copy/0001_shred_log_copy.sql"))];

    fn place(pool: &Pool<Self>) -> String {
        let options = pool.connect_options();
        let (user, port) = (in_url(options.get_username()), options.get_port());
        let host = options.get_socket().map_or_else(
            || options.get_host().to_owned(),
            |socket| in_url(&socket.to_string_lossy()).replace('/', "%2F"),
        );
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        format!("postgres://{user}@{host}:{port}/{}", in_url(database))
    }
}

impl PostgresCopy {
    /// The copy in the table `shred_log_copy`, in the schema to which the `search_path` leads.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self(CopyTable::new(pool, None, TABLE.to_owned()))
    }

    /// Uses the table in this schema.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn in_schema(self, schema: &str) -> Result<Self> {
        check_name("the schema name", schema)?;
        Ok(Self(self.0.in_schema(schema.to_owned())))
    }

    /// Uses a table of this name, such as one for each key database.
    ///
    /// # Errors
    /// Those of [`in_schema`](Self::in_schema).
    pub fn table(self, table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        Ok(Self(self.0.table(table.to_owned())))
    }

    /// Creates the table, and a configured schema if it is missing. It is idempotent. There is a bookkeeping table.
    /// This takes an advisory lock of the session, so let the pool connect directly, not through PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::TablesExist`](crate::error::SetUpFault::TablesExist),
    /// [`SetUpFault::PermissionDenied`](crate::error::SetUpFault::PermissionDenied),
    /// [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self) -> Result<()> {
        self.0.migrate().await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.0.migration_sql()
    }
}

#[async_trait]
impl ShredLogCopy for PostgresCopy {
    /// The URL of the database without its password. After a `#` comes the table, if it is not the usual one.
    fn name(&self) -> String {
        self.0.name()
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        self.0.last().await
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        self.0.lines(from, limit).await
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        self.0.append(last, lines).await
    }
}
