//! Snapshots in PostgreSQL.

use crate::error::Result;
use crate::event::AggregateRef;
use crate::sql::migrations::Migrations;
use crate::sql::snapshots::{SnapshotTable, TABLE};
use crate::sql::{check_name, in_transaction, query};
use crate::store::{SnapshotStore, StoredSnapshot};
use async_trait::async_trait;
use sqlx::{PgConnection, Postgres};

const MIGRATIONS: &Migrations =
    &[("snapshots", include_str!("../../migrations/postgres/snapshots/0001_snapshots.sql"))];

/// [Snapshots](crate::snapshots) in a PostgreSQL database (15 or newer), in the table `snapshots` if no other one is
/// named. A role that loads and saves needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on it.
#[derive(Clone, Debug)]
pub struct PostgresSnapshots(SnapshotTable);

impl Default for PostgresSnapshots {
    fn default() -> Self {
        Self(SnapshotTable::new(None, TABLE.to_owned()))
    }
}

impl PostgresSnapshots {
    /// The store over the table `snapshots`, in the schema to which the `search_path` leads.
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

    /// Uses the table in this schema.
    ///
    /// # Errors
    /// Those of [`with_table`](Self::with_table).
    pub fn in_schema(self, schema: &str) -> Result<Self> {
        check_name("the schema name", schema)?;
        Ok(Self(self.0.in_schema(schema.to_owned())))
    }

    /// Creates the table, and a configured schema if it is missing. It is idempotent. The bookkeeping table is named
    /// after the table. This takes an advisory lock of the session, so pass a direct connection, not one through
    /// PgBouncer.
    ///
    /// # Errors
    /// [`SetUpFault::TablesExist`](crate::error::SetUpFault::TablesExist),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Database`](crate::Error::Database).
    pub async fn migrate(&self, connection: &mut PgConnection) -> Result<()> {
        self.0.migrate(connection, MIGRATIONS).await
    }

    /// The SQL that [`migrate`](Self::migrate) runs, for teams that have a migration tool of their own.
    #[must_use]
    pub fn migration_sql(&self) -> String {
        self.0.migration_sql(MIGRATIONS)
    }
}

#[async_trait]
impl SnapshotStore for PostgresSnapshots {
    type Tx = PgConnection;

    async fn save(&self, tx: &mut PgConnection, snapshot: &StoredSnapshot) -> Result<bool> {
        const OPERATION: &str = "saving a snapshot";
        in_transaction(tx, OPERATION)?;
        let saved = query::<Postgres>(&self.0.save)
            .bind(snapshot.aggregate.aggregate_type())
            .bind(snapshot.aggregate.aggregate_id())
            .bind(&snapshot.state)
            .bind(snapshot.version.get())
            .bind(snapshot.last_event)
            .bind(&snapshot.fingerprint[..])
            .bind(&snapshot.sealed)
            .bind(snapshot.created_at)
            .execute(tx)
            .await;
        Ok(saved.map_err(self.0.failed(OPERATION))?.rows_affected() == 1)
    }

    async fn load(
        &self,
        tx: &mut PgConnection,
        aggregate: &AggregateRef,
        state: &str,
    ) -> Result<Option<StoredSnapshot>> {
        self.0.load::<Postgres>(tx, aggregate, state).await
    }

    async fn delete(&self, tx: &mut PgConnection, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64> {
        const OPERATION: &str = "deleting snapshots";
        in_transaction(tx, OPERATION)?;
        let (kind, id) = (aggregate.aggregate_type(), aggregate.aggregate_id());
        let delete = match state {
            Some(state) => query::<Postgres>(&self.0.delete).bind(kind).bind(id).bind(state),
            None => query::<Postgres>(&self.0.delete_all).bind(kind).bind(id),
        };
        Ok(delete.execute(tx).await.map_err(self.0.failed(OPERATION))?.rows_affected())
    }
}
