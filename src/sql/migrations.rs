//! Runs migrations, and records them in a bookkeeping table.

use crate::error::{BoxError, Error, Failure, Result, SetUpFault};
use crate::sql::own_transaction::{self, OwnTransaction};
use crate::sql::{database, qualified};
use async_trait::async_trait;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Connection, SqlSafeStr};
use std::borrow::Cow;

/// The prefix of the description of a migration after which older code must not use the tables. No migration has it so
/// far: migrations only add, so that the last version of the code works on while the next one is deployed.
const BREAKING: &str = "breaking";

/// The migrations of a set of tables: the description and the SQL text of each. They are numbered from 1.
pub(crate) type Migrations = [(&'static str, &'static str)];

/// The parts of running migrations that differ between databases.
#[async_trait]
pub(crate) trait Migrating: OwnTransaction<Connection: Migrate> {
    /// Prepares the database for all migrations: creates the schema, if one is named, or sets an option of the file.
    async fn prepare(connection: &mut Self::Connection, schema: Option<&str>) -> Result<()>;

    /// Does this error of a migration say that its table exists?
    fn table_exists(error: &sqlx::Error) -> bool;

    /// Runs a statement that selects two numbers.
    async fn two_numbers(connection: &mut Self::Connection, sql: String) -> sqlx::Result<(Option<i64>, Option<i64>)>;
}

/// Runs migrations, each in a transaction, with a bookkeeping table of their own. It is idempotent, and processes that
/// run it at the same time wait for one another. `fill` fills names into the SQL.
pub(crate) async fn run<C>(
    connection: &mut C,
    schema: Option<&str>,
    bookkeeping: &str,
    migrations: &Migrations,
    fill: impl Fn(&str) -> String,
) -> Result<()>
where
    C: Migrate + Connection<Database: Migrating>,
{
    const OPERATION: &str = "migrating";
    own_transaction::outside(connection, OPERATION).await?;
    let known = newest(migrations);
    if let Some(applied) = applied(connection, schema, bookkeeping, known).await?.filter(|applied| *applied > known) {
        tracing::info!(applied, known, "the tables were migrated by a newer version: nothing to do");
    }
    C::Database::prepare(connection, schema).await?;
    let migrations = (1..).zip(migrations).map(|(number, (description, sql))| {
        let sql = AssertSqlSafe(fill(sql)).into_sql_str();
        Migration::new(number, Cow::Borrowed(*description), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(qualified(schema, bookkeeping));
    // Migrations only add, so older code may meet newer ones during a deployment. Those that do more are marked: see
    // `BREAKING`.
    migrator.set_ignore_missing(true);
    let done = migrator.run_direct(None, connection, false).await;
    if done.is_err() {
        // After an error, the driver keeps its lock, which would block the migrations of all other processes.
        let _ = connection.unlock().await;
    }
    done.map_err(|error| match error {
        MigrateError::ExecuteMigration(source, _) if C::Database::table_exists(&source) => {
            Error::SetUp(SetUpFault::TablesExist { source: source.into() })
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => database(OPERATION)(source),
        other => Error::database(OPERATION, BoxError::from(other)),
    })
}

/// The number of the newest migration that was run; `None` if there is no bookkeeping table. On PostgreSQL, the
/// connection must not be in a transaction, because a missing table would abort it.
pub(crate) async fn applied<C>(
    connection: &mut C,
    schema: Option<&str>,
    bookkeeping: &str,
    known: u32,
) -> Result<Option<u32>>
where
    C: Connection<Database: Migrating>,
{
    // The newest migration that was run, and the newest breaking one.
    let sql = format!(
        "SELECT max(version), max(CASE WHEN description LIKE '{BREAKING}%' THEN version END)
         FROM {} WHERE success",
        qualified(schema, bookkeeping)
    );
    match C::Database::two_numbers(connection, sql).await {
        Ok((newest, breaking)) => not_beyond(newest, breaking, known),
        Err(error) if Failure::from(&error) == Failure::MissingTable => Ok(None),
        Err(error) => Err(database("reading which migrations were run")(error)),
    }
}

/// All migrations as one SQL text.
pub(crate) fn text(migrations: &Migrations) -> String {
    migrations.iter().map(|(_, sql)| *sql).collect::<Vec<_>>().join("\n")
}

fn newest(migrations: &Migrations) -> u32 {
    u32::try_from(migrations.len()).unwrap_or(u32::MAX)
}

/// Refuses tables that a newer version has changed in a way that this version must not work with.
fn not_beyond(newest: Option<i64>, breaking: Option<i64>, known: u32) -> Result<Option<u32>> {
    let number = |version: i64| u32::try_from(version).unwrap_or(u32::MAX);
    match breaking.map(number) {
        Some(breaking) if breaking > known => {
            Err(Error::SetUp(SetUpFault::NewerTables { found: newest.map_or(breaking, number), known }))
        }
        _ => Ok(newest.map(number)),
    }
}
