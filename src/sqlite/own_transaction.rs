//! The steps of a [transaction of its own](crate::sql::own_transaction) in SQLite.

use crate::error::{Error, Result, TransactionFault};
use crate::sql::database;
use crate::sql::errors::sqlite::result_code;
use crate::sql::own_transaction::OwnTransaction;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction};

/// `SQLITE_ERROR`. Locks and failures of the file have other codes, so `BEGIN` fails with this one only within a
/// transaction that the driver does not know of.
const WITHIN_A_TRANSACTION: u32 = 1;
/// `PRAGMA synchronous = FULL`. With a lower setting, a loss of power can undo commits.
const FULL: i64 = 2;

#[async_trait]
impl OwnTransaction for Sqlite {
    /// `PRAGMA synchronous`, if it was below [`FULL`].
    type Before = Option<i64>;

    type Mark = ();

    /// Within a transaction, `BEGIN` is refused.
    async fn probe(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
        connection.begin_with("BEGIN").await?.rollback().await?;
        Ok(false)
    }

    fn is_within(error: &sqlx::Error) -> bool {
        result_code(error) == Some(WITHIN_A_TRANSACTION)
    }

    /// This is done before the transaction, because SQLite does not let a transaction change the setting.
    async fn make_durable(connection: &mut SqliteConnection, operation: &'static str) -> Result<Option<i64>> {
        let weaker = Some(synchronous(connection, operation).await?).filter(|setting| *setting < FULL);
        if weaker.is_some() {
            set_synchronous(connection, FULL, operation).await?;
        }
        Ok(weaker)
    }

    async fn begin(connection: &mut SqliteConnection) -> sqlx::Result<Transaction<'_, Sqlite>> {
        connection.begin_with("BEGIN IMMEDIATE").await
    }

    async fn commit_durably(_: &mut SqliteConnection) -> Result<()> {
        Ok(())
    }

    async fn mark(_: &mut SqliteConnection, _: &'static str) -> Result<()> {
        Ok(())
    }

    async fn check_committed(_: &mut SqliteConnection, (): (), _: &'static str) -> Result<()> {
        Ok(())
    }

    async fn restore(connection: &mut SqliteConnection, before: Option<i64>, operation: &'static str) -> Result<()> {
        match before {
            Some(setting) => set_synchronous(connection, setting, operation).await,
            None => Ok(()),
        }
    }
}

/// Refuses a connection on which a loss of power can undo commits: SQLite does not let a transaction change that
/// setting. A database in memory is not refused, because it outlasts nothing anyway.
pub(crate) async fn check_durable(tx: &mut SqliteConnection, operation: &'static str) -> Result<()> {
    if synchronous(tx, operation).await? >= FULL {
        return Ok(());
    }
    let file: String = sqlx::query_scalar("SELECT coalesce(file, '') FROM pragma_database_list WHERE name = 'main'")
        .fetch_one(tx)
        .await
        .map_err(database(operation))?;
    if file.is_empty() { Ok(()) } else { Err(Error::Transaction(TransactionFault::NotDurable { operation })) }
}

async fn synchronous(connection: &mut SqliteConnection, operation: &'static str) -> Result<i64> {
    sqlx::query_scalar("PRAGMA synchronous").fetch_one(connection).await.map_err(database(operation))
}

async fn set_synchronous(connection: &mut SqliteConnection, setting: i64, operation: &'static str) -> Result<()> {
    let set = AssertSqlSafe(format!("PRAGMA synchronous = {setting}"));
    sqlx::query(set).execute(connection).await.map_err(database(operation))?;
    Ok(())
}
