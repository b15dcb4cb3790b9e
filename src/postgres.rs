//! What the PostgreSQL adapters share: errors, names, migrations.

use crate::error::{Error, Result};
use crate::sql::not_in_transaction;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgDatabaseError, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{AssertSqlSafe, Decode, PgConnection, Postgres, Row, SqlSafeStr, Type};
use std::borrow::Cow;
use time::OffsetDateTime;

/// `serialization_failure`, `deadlock_detected`, `lock_not_available`: the transaction can be run again.
const COLLISIONS: [&str; 3] = ["40001", "40P01", "55P03"];
/// `unique_violation`
pub(crate) const UNIQUE_VIOLATION: &str = "23505";
/// `invalid_column_reference`: among others, ON CONFLICT names columns that no unique constraint has.
pub(crate) const NO_SUCH_CONSTRAINT: &str = "42P10";
/// `undefined_table`
pub(crate) const UNDEFINED_TABLE: &str = "42P01";
/// `duplicate_table`
const DUPLICATE_TABLE: &str = "42P07";

/// Tells a collision, which can be tried again, from everything else.
pub(crate) fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| {
        if sql_state(&source).is_some_and(|state| COLLISIONS.contains(&state)) {
            Error::Collision { source: Some(source.into()) }
        } else {
            Error::Database { operation, source: source.into() }
        }
    }
}

pub(crate) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
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
    u32::try_from(column::<i64>(row, index)?).map_err(|_| Error::InvalidRow { what, problem: "is negative or too large" })
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
    not_in_transaction(connection, OPERATION)?;
    if let Some(schema) = schema {
        // Looked up first: CREATE SCHEMA IF NOT EXISTS needs a privilege even where the schema exists.
        let missing: bool = sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *connection)
            .await
            .map_err(database(OPERATION))?;
        if missing {
            let create = AssertSqlSafe(format!(r#"CREATE SCHEMA IF NOT EXISTS "{schema}""#));
            sqlx::query(create).execute(&mut *connection).await.map_err(database(OPERATION))?;
        }
    }
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(qualified(schema, bookkeeping));
    run_all(&migrator, connection).await.map_err(|error| match error {
        MigrateError::ExecuteMigration(source, _) if sql_state(&source) == Some(DUPLICATE_TABLE) => {
            Error::TablesExist { source: source.into() }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => database(OPERATION)(source),
        other => Error::Database { operation: OPERATION, source: other.into() },
    })
}

async fn run_all<C: Migrate>(migrator: &Migrator, connection: &mut C) -> Result<(), MigrateError> {
    migrator.run_direct(None, connection, false).await
}
