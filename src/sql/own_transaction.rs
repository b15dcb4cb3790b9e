//! Transactions that a call begins and commits itself, for calls that guarantee to be committed when they return.
//!
//! The driver counts the transactions that it has begun. It does not know of a transaction that it began for a future
//! that was dropped, nor of a raw `BEGIN`. Nobody commits what is written in such a transaction. So the database is
//! asked before, and again after the commit if it can tell.

use crate::error::{Error, Result, TransactionFault};
use crate::sql::{after_commit, committing, database, not_in_transaction};
use async_trait::async_trait;
use sqlx::{Connection, Database, Transaction};

/// The steps of [`run`] that differ between databases, in the order in which they are called.
#[async_trait]
pub(crate) trait OwnTransaction: Database {
    /// The former value of a setting, if one has to be made outside of the transaction.
    type Before: Send;

    /// The mark by which the database knows the transaction after its commit.
    type Mark: Send;

    /// Finds out whether the connection is in a transaction, as the database sees it.
    async fn probe(connection: &mut Self::Connection) -> sqlx::Result<bool>;

    /// Does this error say that the connection is in a transaction?
    fn is_within(error: &sqlx::Error) -> bool;

    /// Makes commits of this connection durable, in a database where this is a setting of the connection.
    async fn make_durable(connection: &mut Self::Connection, operation: &'static str) -> Result<Self::Before>;

    /// Begins a transaction that will write.
    async fn begin(connection: &mut Self::Connection) -> sqlx::Result<Transaction<'_, Self>>;

    /// Makes the commit of this transaction durable, in a database where this is a setting of the transaction.
    async fn commit_durably(tx: &mut Self::Connection) -> Result<()>;

    /// Asks for the transaction's mark, just before its commit.
    async fn mark(tx: &mut Self::Connection, operation: &'static str) -> Result<Self::Mark>;

    /// Asks whether the transaction was committed, from outside of it. An outage here comes after the commit, so the
    /// call must not be repeated.
    async fn check_committed(
        connection: &mut Self::Connection,
        mark: Self::Mark,
        operation: &'static str,
    ) -> Result<()>;

    /// Restores the former setting of the connection.
    async fn restore(connection: &mut Self::Connection, before: Self::Before, operation: &'static str) -> Result<()>;
}

/// Runs `work` in a transaction of its own, whose commit is durable. Commits if the work succeeds, and otherwise rolls
/// back, so that the connection can be used again.
pub(crate) async fn run<C, T>(
    connection: &mut C,
    operation: &'static str,
    work: impl AsyncFnOnce(&mut C) -> Result<T>,
) -> Result<T>
where
    C: Connection<Database: OwnTransaction>,
{
    outside(connection, operation).await?;
    let before = C::Database::make_durable(connection, operation).await?;
    let done = commit(connection, operation, work).await;
    let restored = C::Database::restore(connection, before, operation).await;
    let (done, mark) = done?;
    C::Database::check_committed(connection, mark, operation).await?;
    restored.map_err(after_commit(operation))?;
    Ok(done)
}

async fn commit<C, T>(
    connection: &mut C,
    operation: &'static str,
    work: impl AsyncFnOnce(&mut C) -> Result<T>,
) -> Result<(T, <C::Database as OwnTransaction>::Mark)>
where
    C: Connection<Database: OwnTransaction>,
{
    // A transaction is rolled back when it is dropped, because a statement failed or because the caller's future was
    // dropped.
    let begun = C::Database::begin(connection).await;
    let mut tx = begun.map_err(|error| refused::<C::Database>(error, operation))?;
    C::Database::commit_durably(&mut tx).await?;
    match work(&mut tx).await {
        Ok(done) => {
            let mark = C::Database::mark(&mut tx, operation).await?;
            tx.commit().await.map_err(committing(operation))?;
            Ok((done, mark))
        }
        Err(error) => {
            // The error of the work is returned, not that of the rollback: a broken connection ends its transaction
            // anyway.
            drop(tx.rollback().await);
            Err(error)
        }
    }
}

/// Refuses a connection that is in a transaction, as the database sees it.
pub(crate) async fn outside<C>(connection: &mut C, operation: &'static str) -> Result<()>
where
    C: Connection<Database: OwnTransaction>,
{
    not_in_transaction(connection, operation)?;
    match C::Database::probe(connection).await {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::Transaction(TransactionFault::InTransaction { operation })),
        Err(error) => Err(refused::<C::Database>(error, operation)),
    }
}

fn refused<D: OwnTransaction>(error: sqlx::Error, operation: &'static str) -> Error {
    if D::is_within(&error) {
        Error::Transaction(TransactionFault::InTransaction { operation })
    } else {
        database(operation)(error)
    }
}
