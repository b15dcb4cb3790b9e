//! A copy of the shred log in a table: what both databases do alike. A row is a line, numbered from 1 without gaps.

use crate::error::{BoxError, Error, Result, SetUpFault};
use crate::keys::shred_log::check_copied_lines;
use crate::sql::migrations::{self, Migrating, Migrations};
use crate::sql::{Dialect, SqlRow, key_database, own_transaction, qualified, query};
use async_trait::async_trait;
use sqlx::{Database, Pool};
use std::fmt;
use std::sync::Arc;

const READING: &str = "reading the copy of the shred log";
const ADDING: &str = "adding to the copy of the shred log";
/// The table if no other one is named.
pub(crate) const TABLE: &str = "shred_log_copy";

const LAST: &str = "SELECT c.line, c.text FROM {table} AS c ORDER BY c.line DESC LIMIT 1";
const LINES: &str = "SELECT c.line, c.text FROM {table} AS c WHERE c.line > $1 ORDER BY c.line LIMIT $2";

/// The parts of a copy that differ between databases.
#[async_trait]
pub(crate) trait CopyDialect: Migrating + Dialect {
    /// Adds texts as rows after the one with this number, and returns the rows that were added.
    const ADD: &'static str;
    const MIGRATIONS: &'static Migrations;

    /// Where the database of this pool is, as a URL without a password.
    fn place(pool: &Pool<Self>) -> String;
}

/// The table of a copy, and the connections to it.
pub(crate) struct CopyTable<D: Database> {
    pool: Pool<D>,
    schema: Option<String>,
    table: String,
    last: Arc<str>,
    lines: Arc<str>,
    add: Arc<str>,
}

impl<D: CopyDialect> CopyTable<D> {
    /// A table whose names were checked.
    pub(crate) fn new(pool: Pool<D>, schema: Option<String>, table: String) -> Self {
        let filled = |sql: &str| Arc::from(fill(sql, schema.as_deref(), &table));
        Self { last: filled(LAST), lines: filled(LINES), add: filled(D::ADD), pool, schema, table }
    }

    /// The same table, in this schema.
    #[cfg(feature = "postgres")]
    pub(crate) fn in_schema(self, schema: String) -> Self {
        Self::new(self.pool, Some(schema), self.table)
    }

    /// Another table in the same schema.
    pub(crate) fn table(self, table: String) -> Self {
        Self::new(self.pool, self.schema, table)
    }

    pub(crate) fn migration_sql(&self) -> String {
        fill(&migrations::text(D::MIGRATIONS), self.schema.as_deref(), &self.table)
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        let mut connection = self.connect(ADDING).await?;
        self.migrate_on(&mut connection).await
    }

    async fn migrate_on(&self, connection: &mut D::Connection) -> Result<()> {
        let (schema, bookkeeping) = (self.schema.as_deref(), format!("_{}_migrations", self.table));
        migrations::run(connection, schema, &bookkeeping, D::MIGRATIONS, |sql| fill(sql, schema, &self.table)).await
    }

    async fn connect(&self, operation: &'static str) -> Result<sqlx::pool::PoolConnection<D>> {
        self.pool.acquire().await.map_err(|error| Error::database(operation, error))
    }

    pub(crate) fn name(&self) -> String {
        let mut name = D::place(&self.pool);
        if let Some(schema) = &self.schema {
            name += &format!("#{schema}.{}", self.table);
        } else if self.table != TABLE {
            name += &format!("#{}", self.table);
        }
        name
    }

    pub(crate) async fn last(&self) -> Result<Option<String>, BoxError> {
        let mut connection = self.connect(READING).await?;
        Ok(if_migrated(self.end(&mut connection).await, None)?.map(|(_, text)| text))
    }

    pub(crate) async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        let mut connection = self.connect(READING).await?;
        let from = i64::try_from(from).unwrap_or(i64::MAX);
        let statement = D::number(D::number(query::<D>(&self.lines), from), i64::from(limit));
        let rows = D::rows(statement, &mut *connection).await.map_err(key_database(READING));
        let rows = if_migrated(rows, Vec::new())?;
        let mut lines = Vec::with_capacity(rows.len());
        for (row, number) in rows.iter().zip(from.saturating_add(1)..=i64::MAX) {
            // A page begins at a count of lines. With a gap, it would begin at other lines than it says.
            if row.number(0)? != number {
                let table = &self.table;
                return Err(format!(
                    "row {number} of the table {table} is missing, whose rows are numbered without gaps: find out who \
                     can write to it, and begin a new copy"
                )
                .into());
            }
            lines.push(row.text(1)?.to_owned());
        }
        Ok(lines)
    }

    pub(crate) async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        let mut connection = self.connect(ADDING).await?;
        let mut added = self.add(&mut connection, last, lines).await;
        if let Err(Error::SetUp(SetUpFault::NotMigrated)) = added {
            self.migrate_on(&mut connection).await?;
            added = self.add(&mut connection, last, lines).await;
        }
        added?
    }

    /// Adds lines in a transaction of its own. The inner error says why they must not be added.
    async fn add(
        &self,
        connection: &mut D::Connection,
        last: Option<&str>,
        lines: &[String],
    ) -> Result<Result<(), BoxError>> {
        own_transaction::run(connection, ADDING, async |tx| {
            let end = self.end(tx).await?;
            let found = end.as_ref().map(|(_, text)| text.as_str());
            if let Err(refused) = check_copied_lines(found, last, lines) {
                return Ok(Err(refused));
            }
            let at = end.map_or(0, |(line, _)| line);
            if at > i64::MAX - i64::try_from(lines.len()).unwrap_or(i64::MAX) {
                return Ok(Err("its last row has a number that is too high for a row behind it".into()));
            }
            let statement = D::texts(D::number(query::<D>(&self.add), at), lines);
            let added = D::rows(statement, tx).await.map_err(key_database(ADDING))?;
            // Somebody else has added lines since the end was read, so none of these may stay.
            if added.len() == lines.len() { Ok(Ok(())) } else { Err(Error::Collision { source: None }) }
        })
        .await
    }

    /// The last row.
    async fn end(&self, connection: &mut D::Connection) -> Result<Option<(i64, String)>> {
        let rows = D::rows(query::<D>(&self.last), connection).await.map_err(key_database(READING))?;
        rows.first().map(|row| Ok((row.number(0)?, row.text(1)?.to_owned()))).transpose()
    }
}

/// What was found, or this where there is no table.
fn if_migrated<T>(found: Result<T>, empty: T) -> Result<T> {
    match found {
        Err(Error::SetUp(SetUpFault::NotMigrated)) => Ok(empty),
        found => found,
    }
}

fn fill(sql: &str, schema: Option<&str>, table: &str) -> String {
    sql.replace("{table}", &qualified(schema, table))
        .replace("{refuse}", &qualified(schema, &format!("{table}_refuse")))
        .replace("{follow}", &qualified(schema, &format!("{table}_follow")))
        .replace("{name}", table)
}

/// A text as a part of a URL.
pub(crate) fn in_url(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url += &format!("%{byte:02X}");
        }
        url
    })
}

impl<D: Database> Clone for CopyTable<D> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            schema: self.schema.clone(),
            table: self.table.clone(),
            last: Arc::clone(&self.last),
            lines: Arc::clone(&self.lines),
            add: Arc::clone(&self.add),
        }
    }
}

impl<D: Database> fmt::Debug for CopyTable<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyTable").field("schema", &self.schema).field("table", &self.table).finish_non_exhaustive()
    }
}
