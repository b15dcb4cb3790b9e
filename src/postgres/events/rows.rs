//! The rows of PostgreSQL's events, for maintenance.

use super::PostgresStore;
use crate::error::{Error, Result, SetUpFault};
use crate::event::{GlobalPosition, PersistedEvent};
use crate::sql::errors::postgres::{UNDEFINED_TABLE, sql_state};
use crate::sql::own_transaction::{self, OwnTransaction as _};
use crate::sql::{SqlRow, event_database as database, events, in_transaction, qualified, query};
use crate::store::event_table::{
    EventTable, MetadataReplacement, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableLocation,
    TableWork,
};
use crate::store::seal_index::SealIndex;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

/// Sets how long maintenance may wait for its lock, and so keep later appends waiting.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

impl PostgresStore {
    /// Keeps all other transactions from inserting until this one ends. Partitions are locked with their table.
    pub(super) async fn lock_out(
        &self,
        tx: &mut PgConnection,
        tables: &str,
        mode: &str,
        operation: &'static str,
    ) -> Result<()> {
        let before: String = sqlx::query_scalar("SELECT current_setting('lock_timeout')")
            .fetch_one(&mut *tx)
            .await
            .map_err(database(operation))?;
        sqlx::query(LOCK_TIMEOUT).execute(&mut *tx).await.map_err(database(operation))?;
        let lock = self.tables.fill(&format!("LOCK TABLE {tables} IN {mode} MODE"));
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *tx).await.map_err(self.failed(operation))?;
        // The caller's setting is restored for the statements that follow.
        sqlx::query("SELECT set_config('lock_timeout', $1, true)")
            .bind(before)
            .execute(tx)
            .await
            .map_err(database(operation))?;
        Ok(())
    }
}

#[async_trait]
impl EventTable for PostgresStore {
    type Tx = PgConnection;

    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        work: &mut dyn TableWork<PgConnection>,
    ) -> Result<()> {
        const OPERATION: &str = "maintenance";
        own_transaction::run(connection, OPERATION, async |tx| work.run(tx).await).await
    }

    async fn last_position(&self, tx: &mut PgConnection) -> Result<GlobalPosition> {
        let row = query(&self.sql.last_position).fetch_one(tx).await;
        row.map_err(self.failed("reading the last position"))?.number(0)?.try_into()
    }

    async fn count_events(&self, tx: &mut PgConnection, range: PositionRange) -> Result<Vec<StoredCount>> {
        events::count(&self.sql.count_events, tx, range).await
    }

    async fn stored_events(&self, tx: &mut PgConnection, asked: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let (types, versions): (Vec<&str>, Vec<i64>) =
            asked.versions.iter().map(|(name, version)| (name.as_str(), i64::from(version.get()))).unzip();
        let rows = query(&self.sql.stored_events)
            .bind(asked.range.after.get())
            .bind(asked.range.end())
            .bind(types)
            .bind(versions)
            .bind(asked.without_header)
            .bind(i64::from(asked.limit))
            .bind(i64::try_from(asked.max_bytes).unwrap_or(i64::MAX))
            .fetch_all(tx)
            .await;
        events::events(&rows.map_err(database("reading stored events"))?)
    }

    async fn stored_events_at(
        &self,
        tx: &mut PgConnection,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        events::read_at(&self.sql.stored_events_at, tx, positions).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut PgConnection,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        const OPERATION: &str = "replacing payloads";
        in_transaction(tx, OPERATION)?;
        let metadata = |text: fn(&MetadataReplacement) -> &Vec<u8>| -> Vec<Option<String>> {
            let replaced = replacements.iter().map(|replacement| replacement.metadata.as_ref());
            replaced.map(|metadata| Some(String::from_utf8_lossy(text(metadata?)).into_owned())).collect()
        };
        // A batch of payloads alone does not touch the column of the metadata, whatever its type.
        let with_metadata = replacements.iter().any(|replacement| replacement.metadata.is_some());
        let sql = if with_metadata { &self.sql.replace_documents } else { &self.sql.replace_payloads };
        let statement = query(sql)
            .bind(replacements.iter().map(|replacement| replacement.position.get()).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.event_id).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.old.clone()).collect::<Vec<_>>())
            .bind(replacements.iter().map(|replacement| replacement.new.clone()).collect::<Vec<_>>());
        let statement = match with_metadata {
            true => statement.bind(metadata(|metadata| &metadata.old)).bind(metadata(|metadata| &metadata.new)),
            false => statement,
        };
        let rows = statement.fetch_all(tx).await;
        rows.map_err(database(OPERATION))?.iter().map(|row| row.number(0)?.try_into()).collect()
    }

    async fn insert_events(&self, tx: &mut PgConnection, events: &[PersistedEvent]) -> Result<()> {
        self.insert(tx, events).await
    }

    /// An append holds a lock on the table from before it draws a position until its transaction ends. So once a
    /// conflicting lock is granted, no position is in flight.
    async fn settled_position(&self, connection: &mut PgConnection) -> Result<GlobalPosition> {
        const OPERATION: &str = "looking for the settled position";
        own_transaction::outside(connection, OPERATION).await?;
        let mut tx = Postgres::begin(connection).await.map_err(database(OPERATION))?;
        let settled = match self.lock_out(&mut tx, "{events}", "SHARE", OPERATION).await {
            // This is a statement of its own, so that its snapshot is newer than the lock.
            Ok(()) => self.last_position(&mut tx).await,
            Err(error) => Err(error),
        };
        tx.rollback().await.map_err(database(OPERATION))?;
        settled
    }

    /// The location is the object ids of the database and the table, and the time at which the server started, which
    /// tells it from other servers.
    async fn location(&self, connection: &mut PgConnection) -> Result<Option<TableLocation>> {
        let sql = "
            SELECT concat_ws(' ', 'postgres', extract(epoch FROM pg_postmaster_start_time()), d.oid,
                    to_regclass($1)::oid),
                to_regclass($1) IS NULL
            FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()";
        let row = sqlx::query(sql)
            .bind(self.table())
            .fetch_one(connection)
            .await
            .map_err(database("looking where the events are"))?;
        Ok(if row.flag(1)? { None } else { Some(TableLocation::Table(row.text(0)?.to_owned())) })
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = PgConnection>> {
        Some(self)
    }
}

impl PostgresStore {
    /// Turns an error into that of [`database`], or into one that says that the table does not exist.
    fn failed(&self, operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
        move |source| match sql_state(&source) {
            Some(UNDEFINED_TABLE) => Error::SetUp(SetUpFault::NoEventTables { of: "database", table: self.table() }),
            _ => database(operation)(source),
        }
    }

    /// The table of events with its schema, quoted.
    pub(super) fn table(&self) -> String {
        qualified(self.tables.schema.as_deref(), &self.tables.events)
    }
}
