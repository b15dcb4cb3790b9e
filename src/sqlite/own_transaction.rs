//! Transactions that a call begins and commits itself, for calls that promise to be committed when they return.

use super::result_code;
use crate::error::{Error, Result};
use crate::sql::{committing, database, not_in_transaction};
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction};

/// `SQLITE_ERROR`: all that BEGIN can have against it, apart from locks and failures of the file, is a transaction that
/// the driver does not know of.
const WITHIN_A_TRANSACTION: u32 = 1;
/// `PRAGMA synchronous = FULL`; below it, a loss of power takes commits back.
const FULL: i64 = 2;

/// A transaction of its own, and what the connection's setting was.
pub(crate) struct Own<'c> {
    pub(crate) tx: Transaction<'c, Sqlite>,
    weaker: Option<i64>,
}

/// Begins a transaction that writes, whose commit will be durable.
pub(crate) async fn begin<'c>(connection: &'c mut SqliteConnection, operation: &'static str) -> Result<Own<'c>> {
    outside(connection, operation).await?;
    let weaker = Some(synchronous(connection, operation).await?).filter(|setting| *setting < FULL);
    if weaker.is_some() {
        set_synchronous(connection, FULL, operation).await?;
    }
    let tx = connection.begin_with("BEGIN IMMEDIATE").await.map_err(refused(operation))?;
    Ok(Own { tx, weaker })
}

/// Commits what went well, and rolls the rest back, so that the connection can be used again.
pub(crate) async fn end<T>(own: Own<'_>, done: Result<T>, operation: &'static str) -> Committed<T> {
    let done = match done {
        // Where this fails, the transaction is rolled back when it is dropped.
        Ok(done) => own.tx.commit().await.map_err(committing(operation)).map(|()| done),
        Err(error) => {
            // What failed is what matters; a connection that broke takes its transaction with it.
            drop(own.tx.rollback().await);
            Err(error)
        }
    };
    Committed { done, weaker: own.weaker }
}

/// What has ended. The connection is as it was before once it was [`restored`](Self::restore).
#[must_use = "the connection's setting is to be restored"]
pub(crate) struct Committed<T> {
    done: Result<T>,
    weaker: Option<i64>,
}

impl<T> Committed<T> {
    pub(crate) async fn restore(self, connection: &mut SqliteConnection, operation: &'static str) -> Result<T> {
        if let Some(setting) = self.weaker {
            set_synchronous(connection, setting, operation).await?;
        }
        self.done
    }
}

/// Refuses a connection that is in a transaction, as SQLite sees it.
pub(crate) async fn outside(connection: &mut SqliteConnection, operation: &'static str) -> Result<()> {
    not_in_transaction(connection, operation)?;
    let tx = connection.begin_with("BEGIN").await.map_err(refused(operation))?;
    tx.rollback().await.map_err(database(operation))
}

/// Refuses a connection in whose transactions a commit may be lost with the power, which SQLite does not let a
/// transaction change. A database in memory has nothing to lose.
pub(crate) async fn check_durable(tx: &mut SqliteConnection, operation: &'static str) -> Result<()> {
    if synchronous(tx, operation).await? >= FULL {
        return Ok(());
    }
    let file: String = sqlx::query_scalar("SELECT coalesce(file, '') FROM pragma_database_list WHERE name = 'main'")
        .fetch_one(tx)
        .await
        .map_err(database(operation))?;
    if file.is_empty() { Ok(()) } else { Err(Error::NotDurable { operation }) }
}

async fn synchronous(connection: &mut SqliteConnection, operation: &'static str) -> Result<i64> {
    sqlx::query_scalar("PRAGMA synchronous").fetch_one(connection).await.map_err(database(operation))
}

async fn set_synchronous(connection: &mut SqliteConnection, setting: i64, operation: &'static str) -> Result<()> {
    let set = AssertSqlSafe(format!("PRAGMA synchronous = {setting}"));
    sqlx::query(set).execute(connection).await.map_err(database(operation))?;
    Ok(())
}

fn refused(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| {
        if result_code(&error) == Some(WITHIN_A_TRANSACTION) {
            Error::InTransaction { operation }
        } else {
            database(operation)(error)
        }
    }
}
