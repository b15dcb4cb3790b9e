//! Finds out whether a pooler between this command and PostgreSQL shares sessions, and whether prepared statements are
//! safe behind it. Both are tried out, because a pooler does not tell that it is one.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

/// How often each thing is tried. The traffic of others decides which session the pooler assigns.
const TRIES: u32 = 5;

/// How connections get their sessions on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each connection has a session of its own.
    Own,
    /// Connections share sessions, and the pooler keeps their prepared statements apart.
    Shared,
    /// Connections share sessions, and prepared statements get lost.
    SharedWithLosses,
}

/// Finds it out with two connections.
pub(crate) async fn sessions(options: &PgConnectOptions) -> Result<Sessions, sqlx::Error> {
    let mut first = options.connect().await?;
    let mut second = options.connect().await?;
    if !are_shared(&mut first, &mut second).await? {
        return Ok(Sessions::Own);
    }
    let found =
        if keep_statements(&mut first, &mut second).await { Sessions::Shared } else { Sessions::SharedWithLosses };
    Ok(found)
}

/// Do two connections use the same session, or does one connection change its session?
async fn are_shared(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for _ in 0..TRIES {
        let before = session(first).await?;
        // A pooler gives the second connection the session that the first one has just left. The transaction keeps it
        // there meanwhile.
        let mut tx = second.begin().await?;
        let other = session(&mut tx).await?;
        tx.rollback().await?;
        if before == other || before != session(first).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server's process id of the session. The query is not prepared, so it works behind every pooler.
async fn session(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}

/// Are the prepared statements of two connections kept apart? The driver gives them the same names.
async fn keep_statements(first: &mut PgConnection, second: &mut PgConnection) -> bool {
    for _ in 0..TRIES {
        for (connection, sql, answer) in [(&mut *first, "SELECT 1", 1), (&mut *second, "SELECT 2", 2)] {
            // A wrong answer means that the other connection's statement was run.
            if !matches!(sqlx::query_scalar::<_, i32>(sql).fetch_one(connection).await, Ok(found) if found == answer) {
                return false;
            }
        }
    }
    true
}
