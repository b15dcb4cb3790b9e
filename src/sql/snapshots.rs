//! Snapshots in a table: what both databases do alike.

use crate::error::{Error, Failure, Result, SetUpFault, StorageFault};
use crate::event::AggregateRef;
use crate::sql::migrations::{self, Migrating, Migrations};
use crate::sql::{Dialect, SqlRow, qualified, query};
use crate::store::StoredSnapshot;
use sqlx::Connection;
use sqlx::migrate::Migrate;
use std::sync::Arc;

/// The table if no other one is named.
pub(crate) const TABLE: &str = "snapshots";

const SAVE: &str = "
    INSERT INTO {table} AS s (aggregate_type, aggregate_id, state_name, aggregate_version, last_event_id, fingerprint,
        sealed, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (aggregate_type, aggregate_id, state_name) DO UPDATE SET
        aggregate_version = excluded.aggregate_version, last_event_id = excluded.last_event_id,
        fingerprint = excluded.fingerprint, sealed = excluded.sealed, created_at = excluded.created_at
    WHERE s.aggregate_version <= excluded.aggregate_version";

const LOAD: &str = "
    SELECT aggregate_version, last_event_id, fingerprint, sealed, created_at FROM {table}
    WHERE aggregate_type = $1 AND aggregate_id = $2 AND state_name = $3";

const DELETE: &str = "
    DELETE FROM {table} WHERE aggregate_type = $1 AND aggregate_id = $2 AND state_name = $3";

const DELETE_ALL: &str = "
    DELETE FROM {table} WHERE aggregate_type = $1 AND aggregate_id = $2";

/// The table, and the statements on it.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotTable {
    schema: Option<String>,
    table: String,
    pub(crate) save: Arc<str>,
    load: Arc<str>,
    pub(crate) delete: Arc<str>,
    pub(crate) delete_all: Arc<str>,
}

impl SnapshotTable {
    /// A table whose names were checked.
    pub(crate) fn new(schema: Option<String>, table: String) -> Self {
        let filled = |sql: &str| Arc::from(fill(sql, schema.as_deref(), &table));
        let (save, load) = (filled(SAVE), filled(LOAD));
        Self { save, load, delete: filled(DELETE), delete_all: filled(DELETE_ALL), schema, table }
    }

    /// The same table, in this schema.
    #[cfg(feature = "postgres")]
    pub(crate) fn in_schema(self, schema: String) -> Self {
        Self::new(Some(schema), self.table)
    }

    pub(crate) fn migration_sql(&self, migrations: &Migrations) -> String {
        fill(&migrations::text(migrations), self.schema.as_deref(), &self.table)
    }

    pub(crate) async fn migrate<C>(&self, connection: &mut C, migrations: &Migrations) -> Result<()>
    where
        C: Migrate + Connection<Database: Migrating>,
    {
        let (schema, bookkeeping) = (self.schema.as_deref(), format!("_{}_migrations", self.table));
        migrations::run(connection, schema, &bookkeeping, migrations, |sql| fill(sql, schema, &self.table)).await
    }

    pub(crate) async fn load<D: Dialect>(
        &self,
        connection: &mut D::Connection,
        aggregate: &AggregateRef,
        state: &str,
    ) -> Result<Option<StoredSnapshot>> {
        let statement = D::text(D::text(query::<D>(&self.load), aggregate.aggregate_type()), aggregate.aggregate_id());
        let rows = D::rows(D::text(statement, state), connection).await;
        let rows = rows.map_err(self.failed("reading a snapshot"))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let fingerprint = row.bytes(2)?.try_into().map_err(|_| {
            Error::Storage(StorageFault::InvalidRow { what: "snapshots.fingerprint", problem: "has not 32 bytes" })
        })?;
        Ok(Some(StoredSnapshot {
            aggregate: aggregate.clone(),
            state: state.to_owned(),
            version: row.number(0)?.try_into()?,
            last_event: row.id(1)?,
            fingerprint,
            sealed: row.bytes(3)?,
            created_at: row.time(4, "snapshots.created_at")?,
        }))
    }

    /// An error of a statement on the table.
    pub(crate) fn failed(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
        move |source| match Failure::from(&source) {
            Failure::MissingTable => Error::SetUp(SetUpFault::NoSnapshotTable { table: self.table.clone() }),
            _ => Error::database(operation, source),
        }
    }
}

fn fill(sql: &str, schema: Option<&str>, table: &str) -> String {
    sql.replace("{table}", &qualified(schema, table))
}
