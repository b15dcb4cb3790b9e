//! Runs statements whose work is the same in each database, although their SQL differs.

use crate::sql::SqlRow;
use async_trait::async_trait;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Database};
use std::sync::Arc;

/// A statement and its values so far.
pub(crate) type Statement<D> = Query<'static, D, <D as Database>::Arguments>;

/// A statement of this crate, whose text was made when the store was created.
pub(crate) fn query<D: Database>(sql: &Arc<str>) -> Statement<D> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

/// Binds values to statements of a database. The driver needs a trait bound for each type of value, which a generic
/// function can't pass on.
#[async_trait]
pub(crate) trait Dialect: Database<Row: SqlRow> {
    fn text(statement: Statement<Self>, text: &str) -> Statement<Self>;
    fn number(statement: Statement<Self>, number: i64) -> Statement<Self>;
    /// Binds a list of numbers, in the form in which the database takes lists.
    fn numbers(statement: Statement<Self>, numbers: &[i64]) -> Statement<Self>;
    /// Binds a list of texts.
    fn texts(statement: Statement<Self>, texts: &[String]) -> Statement<Self>;
    async fn rows(statement: Statement<Self>, connection: &mut Self::Connection) -> sqlx::Result<Vec<Self::Row>>;
}
