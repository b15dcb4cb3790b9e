//! Runs statements that are the same work in each database, whatever its SQL is.

use crate::sql::SqlRow;
use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Database};
use std::sync::Arc;

/// A statement and its values so far.
pub(crate) type Statement<D> = Query<'static, D, <D as Database>::Arguments>;

/// A statement of this crate's, whose text was made when the store was.
pub(crate) fn query<D: Database>(sql: &Arc<str>) -> Statement<D> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

/// How a database is given values. The driver says it by a bound for each type of a value, which no trait can hand on.
#[async_trait]
pub(crate) trait Dialect: Database<Row: SqlRow> {
    fn text(statement: Statement<Self>, text: &str) -> Statement<Self>;
    fn number(statement: Statement<Self>, number: i64) -> Statement<Self>;
    /// A list, as the database takes lists.
    fn numbers(statement: Statement<Self>, numbers: &[i64]) -> Statement<Self>;
    async fn rows(statement: Statement<Self>, connection: &mut Self::Connection) -> sqlx::Result<Vec<Self::Row>>;
}
