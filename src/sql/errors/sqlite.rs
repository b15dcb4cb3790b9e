//! Finds out what SQLite's errors mean, and which parts of them may be shown.

use crate::error::Failure;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;

/// The meaning of an error's result code.
pub(crate) fn failure(error: &SqliteError) -> Failure {
    let code: Option<u32> = error.code().and_then(|code| code.parse().ok());
    // The low byte is the primary code.
    match code.map(|code| code & 0xff) {
        // SQLITE_BUSY (517 is its BUSY_SNAPSHOT), SQLITE_LOCKED
        Some(5 | 6) => Failure::Collision,
        // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN
        Some(10 | 13 | 14) => Failure::Outage,
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_AUTH
        Some(3 | 8 | 23) => Failure::Permission,
        // SQLITE_ERROR stands for everything that can be wrong with a statement. Only the message says what, and it is
        // never translated.
        Some(1) if error.message().starts_with("no such table") => Failure::MissingTable,
        Some(1)
            if error.message().starts_with("no such column") || error.message().contains(" has no column named ") =>
        {
            Failure::MissingColumn
        }
        _ => Failure::Other,
    }
}

/// The message of an error, without the values that a trigger that is not this crate's may quote.
pub(crate) fn shown(error: &SqliteError) -> String {
    const OWN_TRIGGERS: &[&str] = &[
        include_str!("../../../migrations/sqlite/events/0001_events.sql"),
        include_str!("../../../migrations/sqlite/keys/0001_keys.sql"),
        include_str!("../../../migrations/sqlite/keys/0002_rewrap.sql"),
        include_str!("../../../migrations/sqlite/keys/0003_actor.sql"),
        include_str!("../../../migrations/sqlite/keys/0004_keks.sql"),
        include_str!("../../../migrations/sqlite/keys/0005_breaking_shred_log.sql"),
        include_str!("../../../migrations/sqlite/shred_log_copy/0001_shred_log_copy.sql"),
    ];
    // SQLITE_CONSTRAINT_TRIGGER
    let raised = error.code().as_deref() == Some("1811");
    if raised && !OWN_TRIGGERS.iter().any(|sql| sql.contains(&format!("'{}'", error.message()))) {
        return "a trigger of the database raised an error".to_owned();
    }
    error.message().to_owned()
}

/// SQLite's extended result code.
pub(crate) fn result_code(error: &sqlx::Error) -> Option<u32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// `SQLITE_CONSTRAINT_UNIQUE`
pub(crate) fn is_unique_violation(error: &sqlx::Error) -> bool {
    result_code(error) == Some(2067)
}
