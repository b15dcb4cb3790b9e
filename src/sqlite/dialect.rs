//! Binds values for SQLite. Lists are bound as JSON.

use crate::sql::{Dialect, Statement};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, SqliteConnection};

#[async_trait]
impl Dialect for Sqlite {
    fn text(statement: Statement<Self>, text: &str) -> Statement<Self> {
        statement.bind(text)
    }

    fn number(statement: Statement<Self>, number: i64) -> Statement<Self> {
        statement.bind(number)
    }

    fn numbers(statement: Statement<Self>, numbers: &[i64]) -> Statement<Self> {
        statement.bind(serde_json::json!(numbers).to_string())
    }

    fn texts(statement: Statement<Self>, texts: &[String]) -> Statement<Self> {
        statement.bind(serde_json::json!(texts).to_string())
    }

    async fn rows(statement: Statement<Self>, connection: &mut SqliteConnection) -> sqlx::Result<Vec<SqliteRow>> {
        statement.fetch_all(connection).await
    }
}
