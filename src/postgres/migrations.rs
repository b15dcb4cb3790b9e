//! The parts of [migrations](crate::sql::migrations) that are PostgreSQL's own.

use crate::error::Result;
use crate::sql::database;
use crate::sql::errors::postgres::{DUPLICATE_TABLE, sql_state};
use crate::sql::migrations::Migrating;
use async_trait::async_trait;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};

#[async_trait]
impl Migrating for Postgres {
    async fn prepare(connection: &mut PgConnection, schema: Option<&str>) -> Result<()> {
        let Some(schema) = schema else { return Ok(()) };
        // The schema is looked up first, because CREATE SCHEMA IF NOT EXISTS needs a privilege even if the schema
        // exists.
        let missing: bool =
            sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)")
                .bind(schema)
                .fetch_one(&mut *connection)
                .await
                .map_err(database("migrating"))?;
        if missing {
            let create = AssertSqlSafe(format!(r#"CREATE SCHEMA IF NOT EXISTS "{schema}""#));
            sqlx::query(create).execute(connection).await.map_err(database("migrating"))?;
        }
        Ok(())
    }

    fn table_exists(error: &sqlx::Error) -> bool {
        sql_state(error) == Some(DUPLICATE_TABLE)
    }

    async fn two_numbers(connection: &mut PgConnection, sql: String) -> sqlx::Result<(Option<i64>, Option<i64>)> {
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(connection).await
    }
}
