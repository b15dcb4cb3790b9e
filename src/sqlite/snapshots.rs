//! Snapshots in SQLite.

use crate::error::Result;
use crate::event::AggregateRef;
use crate::sql::migrations::Migrations;
use crate::sql::snapshots::{SnapshotTable, TABLE};
use crate::sql::{check_name, in_transaction, query};
use crate::sqlite::{id_text, to_text};
use crate::store::{SnapshotStore, StoredSnapshot};
use async_trait::async_trait;
use sqlx::{Sqlite, SqliteConnection};

const MIGRATIONS: &Migrations = &[("snapshots", include_str!("../../migrations/sqlite/snapshots/0001_snapshots.sql"))];

/// [Snapshots](crate::snapshots) in a SQLite database, in the table `snapshots` if no other one is named.
///
/// Begin a transaction that loads a snapshot and saves another one with `begin_with("BEGIN IMMEDIATE")`: see
/// [`SqliteStore`](crate::sqlite::SqliteStore).
#[derive(Clone, Debug)]
pub struct SqliteSnapshots(SnapshotTable);

impl Default for SqliteSnapshots {
    fn default() -> Self {
        Self(SnapshotTable::new(None, TABLE.to_owned()))
    }
}

impl SqliteSnapshots {
    /// The store over the table `snapshots`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store over a table of this name.
    ///
    /// # Errors
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if it is not made of letters, digits and `_`,
    /// or longer than 32 bytes.
    pub fn with_table(table: &str) -> Result<Self> {
        check_name("the table name", table)?;
        Ok(Self(SnapshotTable::new(None, table.to_owned())))
    }

    /// Creates the table, and switches the database to write-ahead logging. It is idempotent. The bookkeeping table is
    /// named after the table.
    ///
    /// # Errors
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Collision`](crate::Error::Collision) (retryable), [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self, connection: &mut SqliteConnection) -> Result<()> {
        self.0.migrate(connection, MIGRATIONS).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.0.migration_sql(MIGRATIONS)
    }
}

#[async_trait]
impl SnapshotStore for SqliteSnapshots {
    type Tx = SqliteConnection;

    async fn save(&self, tx: &mut SqliteConnection, snapshot: &StoredSnapshot) -> Result<bool> {
        const OPERATION: &str = "saving a snapshot";
        in_transaction(tx, OPERATION)?;
        let saved = query::<Sqlite>(&self.0.save)
            .bind(snapshot.aggregate.aggregate_type())
            .bind(snapshot.aggregate.aggregate_id())
            .bind(&snapshot.state)
            .bind(snapshot.version.get())
            .bind(id_text(snapshot.last_event))
            .bind(&snapshot.fingerprint[..])
            .bind(&snapshot.sealed)
            .bind(to_text(snapshot.created_at))
            .execute(tx)
            .await;
        Ok(saved.map_err(self.0.failed(OPERATION))?.rows_affected() == 1)
    }

    async fn load(
        &self,
        tx: &mut SqliteConnection,
        aggregate: &AggregateRef,
        state: &str,
    ) -> Result<Option<StoredSnapshot>> {
        self.0.load::<Sqlite>(tx, aggregate, state).await
    }

    async fn delete(&self, tx: &mut SqliteConnection, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64> {
        const OPERATION: &str = "deleting snapshots";
        in_transaction(tx, OPERATION)?;
        let (kind, id) = (aggregate.aggregate_type(), aggregate.aggregate_id());
        let delete = match state {
            Some(state) => query::<Sqlite>(&self.0.delete).bind(kind).bind(id).bind(state),
            None => query::<Sqlite>(&self.0.delete_all).bind(kind).bind(id),
        };
        Ok(delete.execute(tx).await.map_err(self.0.failed(OPERATION))?.rows_affected())
    }
}
