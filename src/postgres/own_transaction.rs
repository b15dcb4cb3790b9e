//! The steps of a [transaction of its own](crate::sql::own_transaction) in PostgreSQL.

use crate::error::{Error, Result, TransactionFault};
use crate::sql::database;
use crate::sql::errors::postgres::sql_state;
use crate::sql::own_transaction::OwnTransaction;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};

/// `in_failed_sql_transaction`
const FAILED_TRANSACTION: &str = "25P02";
/// Replaces the two weaker settings, and keeps stronger ones. With `off`, a crash of the server can lose commits. With
/// `local`, a fail-over to a standby can.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

#[async_trait]
impl OwnTransaction for Postgres {
    type Before = ();

    /// The transaction's id, if it has written anything.
    type Mark = Option<u64>;

    /// Makes a setting for the rest of the transaction. If there is no transaction, the setting is gone in the next
    /// statement.
    async fn probe(connection: &mut PgConnection) -> sqlx::Result<bool> {
        sqlx::raw_sql("SELECT set_config('eventseal.in_transaction', 'yes', true)").execute(&mut *connection).await?;
        let left = sqlx::raw_sql("SELECT coalesce(current_setting('eventseal.in_transaction', true), '') = 'yes'");
        left.fetch_one(connection).await?.try_get(0)
    }

    fn is_within(error: &sqlx::Error) -> bool {
        sql_state(error) == Some(FAILED_TRANSACTION)
    }

    async fn make_durable(_: &mut PgConnection, _: &'static str) -> Result<()> {
        Ok(())
    }

    /// The isolation level is set, whatever the database's default is: after a wait for a lock, the next statement must
    /// see what was committed meanwhile.
    async fn begin(connection: &mut PgConnection) -> sqlx::Result<Transaction<'_, Postgres>> {
        connection.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Makes the commit of this transaction outlast a crash of the server, whatever its settings are.
    async fn commit_durably(tx: &mut PgConnection) -> Result<()> {
        sqlx::raw_sql(DURABLE).execute(tx).await.map_err(database("setting synchronous_commit"))?;
        Ok(())
    }

    async fn mark(tx: &mut PgConnection, operation: &'static str) -> Result<Option<u64>> {
        let id = sqlx::raw_sql("SELECT pg_current_xact_id_if_assigned()::text").fetch_one(tx).await;
        let id: Option<String> = id.and_then(|row| row.try_get(0)).map_err(database(operation))?;
        // There is no transaction 0, so an id that can't be read counts as not committed.
        Ok(id.map(|id| id.parse().unwrap_or(0)))
    }

    async fn check_committed(connection: &mut PgConnection, mark: Option<u64>, operation: &'static str) -> Result<()> {
        let Some(id) = mark else { return Ok(()) };
        let status = AssertSqlSafe(format!("SELECT pg_xact_status('{id}'::xid8)"));
        let status = sqlx::raw_sql(status).fetch_one(connection).await;
        let status: Option<String> = status.and_then(|row| row.try_get(0)).map_err(|source| {
            // The commit was answered, so even a time-out of this statement says nothing against it.
            TransactionFault::OutcomeUnknown { operation, source: source.into() }
        })?;
        if status.as_deref() == Some("committed") {
            Ok(())
        } else {
            Err(Error::Transaction(TransactionFault::NotCommitted { operation }))
        }
    }

    async fn restore(_: &mut PgConnection, (): (), _: &'static str) -> Result<()> {
        Ok(())
    }
}
