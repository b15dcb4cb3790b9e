//! Is there a pooler between this command and PostgreSQL that gives transactions to different sessions, and are
//! prepared statements safe behind it? Both are tried: a pooler does not say that it is one.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

/// How often each thing is tried. What others do through the same pooler decides which session is given.
const TRIES: u32 = 5;

/// What is between this command and the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sessions {
    /// Each connection has a session of its own.
    Own,
    /// They share sessions, and statements are found again.
    Shared,
    /// They share sessions, and statements are lost.
    SharedWithLosses,
}

/// Tries it with two connections.
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

/// Do two connections meet in one session, or does one of them change sessions?
async fn are_shared(first: &mut PgConnection, second: &mut PgConnection) -> Result<bool, sqlx::Error> {
    for _ in 0..TRIES {
        let before = session(first).await?;
        // The second one is given the session that the first one has just left, and keeps it until its transaction
        // ends.
        let mut tx = second.begin().await?;
        let other = session(&mut tx).await?;
        tx.rollback().await?;
        if before == other || before != session(first).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Not prepared, so that the question itself works behind everything.
async fn session(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    connection.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}

/// Do prepared statements of two connections, which the driver names alike, stay apart?
async fn keep_statements(first: &mut PgConnection, second: &mut PgConnection) -> bool {
    for _ in 0..TRIES {
        for (connection, sql, answer) in [(&mut *first, "SELECT 1", 1), (&mut *second, "SELECT 2", 2)] {
            // A wrong answer is the other connection's statement.
            if !matches!(sqlx::query_scalar::<_, i32>(sql).fetch_one(connection).await, Ok(found) if found == answer) {
                return false;
            }
        }
    }
    true
}
