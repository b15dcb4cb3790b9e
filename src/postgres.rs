//! What the PostgreSQL adapters share: errors, names, migrations.

mod events;
mod keys;
pub(crate) mod own_transaction;

pub use events::{PostgresStore, PostgresTables};
pub use keys::PostgresKeys;

use crate::error::{BoxError, Error, Failure, Result};
use crate::sql::{database, newest, newest_migrations, not_beyond, say_if_newer};
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgDatabaseError, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{AssertSqlSafe, Decode, PgConnection, Postgres, Row, SqlSafeStr, Type};
use std::borrow::Cow;
use time::OffsetDateTime;

/// `unique_violation`
pub(crate) const UNIQUE_VIOLATION: &str = "23505";
/// `invalid_column_reference`: among others, ON CONFLICT names columns that no unique constraint has.
pub(crate) const NO_SUCH_CONSTRAINT: &str = "42P10";
/// `undefined_table`
pub(crate) const UNDEFINED_TABLE: &str = "42P01";
/// `duplicate_table`
const DUPLICATE_TABLE: &str = "42P07";
/// `restrict_violation`: what the triggers of this crate raise, and PostgreSQL itself does not.
const RESTRICT_VIOLATION: &str = "23001";

/// What an SQLSTATE means.
pub(crate) fn failure(state: &str) -> Failure {
    match state {
        // serialization_failure, deadlock_detected, lock_not_available: the transaction can be run again.
        "40001" | "40P01" | "55P03" => Failure::Collision,
        // read_only_sql_transaction: the server is a standby now.
        "25006"
        // The server ended a session that was idle: a transaction of it is rolled back.
        | "25P03" | "57P05"
        // disk_full, out_of_memory, too_many_connections
        | "53100" | "53200" | "53300"
        // admin_shutdown, crash_shutdown, cannot_connect_now
        | "57P01" | "57P02" | "57P03"
        // io_error
        | "58030" => Failure::Outage,
        // insufficient_privilege, row-level security too
        "42501" => Failure::Permission,
        // undefined_table, invalid_schema_name
        UNDEFINED_TABLE | "3F000" => Failure::MissingTable,
        // undefined_column
        "42703" => Failure::MissingColumn,
        // invalid_sql_statement_name, duplicate_prepared_statement
        "26000" | "42P05" => Failure::LostStatement,
        // Connection exceptions. PgBouncer says 08P01 when it can't reach the server or lets nobody in.
        state if state.starts_with("08") => Failure::Outage,
        _ => Failure::Other,
    }
}

/// A message, without the values that some of them quote. Details, which quote rows, are left out altogether.
pub(crate) fn shown(error: &PgDatabaseError) -> String {
    let (state, message) = (error.code(), error.message());
    if error.routine() == Some("exec_stmt_raise") && state != RESTRICT_VIOLATION {
        // Somebody's trigger or function says what it likes, rows too.
        return "a function of the database raised an error".to_owned();
    }
    if state.starts_with("22") {
        // Data exceptions quote the data.
        let values = message.find(['"', ':', '\'', '«', '„', '“', '‘']).unwrap_or(message.len());
        return if values < message.len() { format!("{}…", &message[..values]) } else { message.to_owned() };
    }
    message.to_owned()
}

pub(crate) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

/// The columns of the unique constraint that was violated, separated by commas. The constraint's name may be any, and
/// the transaction is aborted, so that nothing can be looked up. The columns stand in the first parentheses of the
/// detail, in whatever language the rest of it is; their values, which may hold any text, come after them. `None` where
/// the server tells no detail, which it does not to those who may not read the columns.
pub(crate) fn violated_columns(error: &sqlx::Error) -> Option<&str> {
    columns_in(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.detail()?)
}

fn columns_in(detail: &str) -> Option<&str> {
    let (_, columns) = detail.split_once('(')?;
    columns.split_once(")=(").map(|(columns, _)| columns)
}

pub(crate) fn column<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, index: usize) -> Result<T> {
    row.try_get(index).map_err(database("reading a column"))
}

/// A time. PostgreSQL has later ones than `time` has, and `infinity`, which its decoder would panic at.
struct Timestamp(Option<OffsetDateTime>);

impl Timestamp {
    fn get(self, what: &'static str) -> Result<OffsetDateTime> {
        self.0.ok_or(Error::InvalidRow { what, problem: "is out of range" })
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        const EPOCH: OffsetDateTime = time::macros::datetime!(2000-01-01 00:00 UTC);
        if value.format() == PgValueFormat::Text {
            return <OffsetDateTime as Decode<'r, Postgres>>::decode(value).map(|at| Self(Some(at)));
        }
        let microseconds: [u8; 8] = value.as_bytes()?.try_into()?;
        Ok(Self(EPOCH.checked_add(time::Duration::microseconds(i64::from_be_bytes(microseconds)))))
    }
}

pub(crate) fn timestamp(row: &PgRow, index: usize, what: &'static str) -> Result<OffsetDateTime> {
    column::<Timestamp>(row, index)?.get(what)
}

pub(crate) fn optional_timestamp(row: &PgRow, index: usize, what: &'static str) -> Result<Option<OffsetDateTime>> {
    column::<Option<Timestamp>>(row, index)?.map(|at| at.get(what)).transpose()
}

/// A count or version that this crate keeps in 32 bits and PostgreSQL, which has no unsigned integers, in 64.
pub(crate) fn small(row: &PgRow, index: usize, what: &'static str) -> Result<u32> {
    u32::try_from(column::<i64>(row, index)?)
        .map_err(|_| Error::InvalidRow { what, problem: "is negative or too large" })
}

/// A name in its schema, quoted. Both were checked.
pub(crate) fn qualified(schema: Option<&str>, name: &str) -> String {
    schema.map_or_else(|| format!(r#""{name}""#), |schema| format!(r#""{schema}"."{name}""#))
}

/// A migration file with its names filled in.
pub(crate) fn migration(version: i64, description: &'static str, sql: String) -> Migration {
    Migration::new(version, Cow::Borrowed(description), MigrationType::Simple, AssertSqlSafe(sql).into_sql_str(), false)
}

/// Runs migrations under a bookkeeping table of their own, each in a transaction. Idempotent; processes that
/// come at the same time wait for one another.
pub(crate) async fn migrate(
    connection: &mut PgConnection,
    schema: Option<&str>,
    bookkeeping: &str,
    migrations: Vec<Migration>,
) -> Result<()> {
    const OPERATION: &str = "migrating";
    own_transaction::outside(connection, OPERATION).await?;
    if let Some(schema) = schema {
        // Looked up first: CREATE SCHEMA IF NOT EXISTS needs a privilege even where the schema exists.
        let missing: bool =
            sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)")
                .bind(schema)
                .fetch_one(&mut *connection)
                .await
                .map_err(database(OPERATION))?;
        if missing {
            let create = AssertSqlSafe(format!(r#"CREATE SCHEMA IF NOT EXISTS "{schema}""#));
            sqlx::query(create).execute(&mut *connection).await.map_err(database(OPERATION))?;
        }
    }
    let bookkeeping = qualified(schema, bookkeeping);
    let known = newest(&migrations);
    let applied = applied_migration(connection, &bookkeeping, known).await?;
    say_if_newer(applied, known);
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(bookkeeping);
    // Migrations add, so that older code goes on during a deployment. Those that don't are marked, see above.
    migrator.set_ignore_missing(true);
    let done = run_all(&migrator, connection).await;
    if done.is_err() {
        // The driver keeps its advisory lock after an error, and with it everybody else's migrations.
        let _ = connection.unlock().await;
    }
    done.map_err(|error| match error {
        MigrateError::ExecuteMigration(source, _) if sql_state(&source) == Some(DUPLICATE_TABLE) => {
            Error::TablesExist { source: source.into() }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => database(OPERATION)(source),
        other => Error::database(OPERATION, BoxError::from(other)),
    })
}

/// The newest migration that was run; `None` if there is no bookkeeping. The connection must not be in a transaction,
/// which a table that is missing would abort.
pub(crate) async fn applied_migration(
    connection: &mut PgConnection,
    bookkeeping: &str,
    known: u32,
) -> Result<Option<u32>> {
    let sql = AssertSqlSafe(newest_migrations(bookkeeping));
    let found = sqlx::query_as::<_, (Option<i64>, Option<i64>)>(sql).fetch_one(connection).await;
    match found {
        Ok((newest, breaking)) => not_beyond(newest, breaking, known),
        Err(error) if Failure::from(&error) == Failure::MissingTable => Ok(None),
        Err(error) => Err(database("reading which migrations were run")(error)),
    }
}

async fn run_all<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<(), MigrateError> {
    migrator.run_direct(None, connection, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_from_values() {
        for (detail, columns) in [
            ("Key (global_position)=(5) already exists.", Some("global_position")),
            ("Schlüssel »(global_position)=(5)« existiert bereits.", Some("global_position")),
            ("La clé « (stream_type, \"Id\")=((global_position)=(, 1) » existe déjà.", Some("stream_type, \"Id\"")),
            ("Key (lower(correlation_id))=((global_position)=(7)) already exists.", Some("lower(correlation_id)")),
            ("Duplicate keys exist.", None),
        ] {
            assert_eq!(columns_in(detail), columns, "{detail}");
        }
    }
}
