//! What a restore of a part of PostgreSQL's key tables leaves.

use super::PostgresKeys;
use crate::error::Result;
use crate::keys::names::KeyScope;
use crate::keys::restored::{RESTORED, RestoredScopes};
use crate::postgres::column;
use crate::sql::key_database as database;
use sqlx::{AssertSqlSafe, PgConnection};

impl PostgresKeys {
    /// The scopes that have live keys, though the last thing that is recorded of them is that these were destroyed: how
    /// many there are, and the first `limit` of them. For operators: the tables are read from end to end.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn restored_scopes(&self, connection: &mut PgConnection, limit: u32) -> Result<RestoredScopes> {
        let sql = AssertSqlSafe(self.names.fill(RESTORED));
        let rows = sqlx::query(sql).bind(i64::from(limit.max(1))).fetch_all(connection).await;
        let mut restored = RestoredScopes::default();
        for row in rows.map_err(database("looking for restored keys"))? {
            restored.count = column::<i64>(&row, 2)?.unsigned_abs();
            restored.first.push(KeyScope::new(column::<&str>(&row, 0)?, column::<&str>(&row, 1)?));
        }
        Ok(restored)
    }
}
