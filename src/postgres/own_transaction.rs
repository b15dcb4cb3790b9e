//! Transactions that a call begins and commits itself, for calls that promise to be committed when they return.
//!
//! The driver counts the transactions that it has begun. It does not know of one that it began for a future that was
//! dropped, nor of a raw `BEGIN`; what is written then is committed by nobody. So the server is asked before, and again
//! after the commit.

use super::sql_state;
use crate::error::{Error, Result};
use crate::sql::{committing, database, not_in_transaction};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};

/// Whatever the database's default is: after a lock was waited for, the next statement must see what was committed.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
/// `in_failed_sql_transaction`
const FAILED_TRANSACTION: &str = "25P02";
/// Stronger settings stay. `off` loses what was committed in a crash of the server, `local` in one of its standby.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// Lets the commit of this transaction outlast a crash of the server, whatever its settings are.
pub(crate) async fn commit_durably(tx: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql(DURABLE).execute(tx).await.map_err(database("setting synchronous_commit"))?;
    Ok(())
}

/// Refuses a connection that is in a transaction, as the server sees it: a setting that is made for the rest of a
/// transaction is gone in the next statement if there is none.
pub(crate) async fn outside(connection: &mut PgConnection, operation: &'static str) -> Result<()> {
    not_in_transaction(connection, operation)?;
    match probe(connection).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::InTransaction { operation }),
        Err(error) if sql_state(&error) == Some(FAILED_TRANSACTION) => Err(Error::InTransaction { operation }),
        Err(error) => Err(database(operation)(error)),
    }
}

async fn probe(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::raw_sql("SELECT set_config('eventseal.in_transaction', 'yes', true)").execute(&mut *connection).await?;
    let left = sqlx::raw_sql("SELECT coalesce(current_setting('eventseal.in_transaction', true), '') = 'yes'");
    left.fetch_one(connection).await?.try_get(0)
}

/// Begins a transaction of its own, whose commit will be durable.
pub(crate) async fn begin<'c>(
    connection: &'c mut PgConnection,
    operation: &'static str,
) -> Result<Transaction<'c, Postgres>> {
    outside(connection, operation).await?;
    let mut tx = connection.begin_with(BEGIN).await.map_err(database(operation))?;
    commit_durably(&mut tx).await?;
    Ok(tx)
}

/// What was committed, and has to be looked at.
#[must_use = "only a look shows that it is committed"]
pub(crate) struct Committed<T> {
    done: T,
    /// The transaction's id, if it has written anything.
    transaction: Option<u64>,
}

/// Commits what went well, and rolls the rest back, so that the connection can be used again.
pub(crate) async fn end<T>(
    mut tx: Transaction<'_, Postgres>,
    done: Result<T>,
    operation: &'static str,
) -> Result<Committed<T>> {
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            // What failed is what matters; a connection that broke takes its transaction with it.
            drop(tx.rollback().await);
            return Err(error);
        }
    };
    let id = sqlx::raw_sql("SELECT pg_current_xact_id_if_assigned()::text")
        .fetch_one(&mut *tx)
        .await
        .map_err(database(operation))?;
    let id: Option<String> = id.try_get(0).map_err(database(operation))?;
    tx.commit().await.map_err(committing(operation))?;
    // There is no transaction 0: what can't be read is not known to be committed.
    Ok(Committed { done, transaction: id.map(|id| id.parse().unwrap_or(0)) })
}

impl<T> Committed<T> {
    /// Asks the server whether the transaction was committed, from outside of it. An outage here comes after the
    /// commit, so that it must not be tried again.
    pub(crate) async fn look(self, connection: &mut PgConnection, operation: &'static str) -> Result<T> {
        let Some(id) = self.transaction else { return Ok(self.done) };
        let status = AssertSqlSafe(format!("SELECT pg_xact_status('{id}'::xid8)"));
        let status = sqlx::raw_sql(status).fetch_one(connection).await.map_err(committing(operation))?;
        let status: Option<String> = status.try_get(0).map_err(committing(operation))?;
        if status.as_deref() == Some("committed") { Ok(self.done) } else { Err(Error::NotCommitted { operation }) }
    }
}
