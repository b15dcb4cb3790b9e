//! Binds values for PostgreSQL. Lists are bound as arrays.

use crate::sql::{Dialect, Statement};
use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres};

#[async_trait]
impl Dialect for Postgres {
    fn text(statement: Statement<Self>, text: &str) -> Statement<Self> {
        statement.bind(text)
    }

    fn number(statement: Statement<Self>, number: i64) -> Statement<Self> {
        statement.bind(number)
    }

    fn numbers(statement: Statement<Self>, numbers: &[i64]) -> Statement<Self> {
        statement.bind(numbers)
    }

    fn texts(statement: Statement<Self>, texts: &[String]) -> Statement<Self> {
        statement.bind(texts)
    }

    async fn rows(statement: Statement<Self>, connection: &mut PgConnection) -> sqlx::Result<Vec<PgRow>> {
        statement.fetch_all(connection).await
    }
}
