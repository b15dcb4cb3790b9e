//! Checks the server or the file: its version, its clock and its settings.

use super::checks::Checks;
use crate::connect::Db;
use eventseal::Error;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use time::{Duration, OffsetDateTime};

/// The largest difference between the clocks of this machine and of the database that is not reported.
const MAX_DRIFT: Duration = Duration::seconds(5);

pub(super) async fn sqlite(db: &mut Db<SqliteConnection>, checks: &mut Checks) {
    let version = sqlx::query_scalar::<_, String>("SELECT sqlite_version()").fetch_one(&mut db.connection).await;
    match version {
        Ok(version) => checks.good("database", format!("{}, version {version}", db.place)),
        Err(source) => checks.failed("database", &reading(source), "look whether the file is a SQLite database"),
    }
}

pub(super) async fn postgres(db: &mut Db<PgConnection>, checks: &mut Checks) {
    let row = sqlx::query_as::<_, (String, i32, String, OffsetDateTime)>(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,
             current_setting('default_transaction_isolation'), clock_timestamp()",
    );
    let (version, number, isolation, clock) = match row.fetch_one(&mut db.connection).await {
        Ok(row) => row,
        Err(source) => return checks.failed("database", &reading(source), "look at the server's log"),
    };
    let found = format!("{}, version {version}", db.place);
    if number >= 150_000 {
        checks.good("database", found);
    } else {
        checks.problem("database", found, "upgrade to PostgreSQL 15 or newer");
    }
    let drift = (OffsetDateTime::now_utc() - clock).abs();
    let found = format!("{:.1} s apart from the database's", drift.as_seconds_f64());
    if drift <= MAX_DRIFT {
        checks.good("clock", found);
    } else {
        checks.problem("clock", found, "let NTP set both clocks: times in the key history come from this machine");
    }
    if isolation == "read committed" {
        checks.good("isolation", isolation);
    } else {
        let remedy = "fine if it is meant: transactions see a shred only once they begin anew, and more of them must \
            be repeated";
        checks.good("isolation", format!("{isolation}: {remedy}"));
    }
}

/// Checks the settings of a SQLite file after keys were written to it. A connection that writes keys must overwrite
/// freed bytes (`secure_delete`).
pub(super) async fn file(db: &mut Db<SqliteConnection>, checks: &mut Checks) {
    match sqlx::query_scalar::<_, String>("PRAGMA journal_mode").fetch_one(&mut db.connection).await {
        Ok(mode) if mode == "wal" => {
            checks.good("journal", "write-ahead log: readers and the writer do not block one another");
        }
        Ok(mode) => checks.problem(
            "journal",
            format!("mode {mode}"),
            "run PRAGMA journal_mode = WAL once, outside of a transaction; eventseal migrate does it too",
        ),
        Err(source) => checks.failed("journal", &reading(source), "look whether the file is a SQLite database"),
    }
    match sqlx::query_scalar::<_, i64>("PRAGMA secure_delete").fetch_one(&mut db.connection).await {
        Ok(1) => checks.good("deletion", "bytes of destroyed keys are overwritten (secure_delete)"),
        Ok(_) => checks.problem(
            "deletion",
            "secure_delete is off",
            "see whether keys can be written; if so, please report this",
        ),
        Err(source) => checks.failed("deletion", &reading(source), "look whether the file is a SQLite database"),
    }
}

/// Is this the primary server? A standby is noted, and is not a problem.
pub(super) async fn is_primary(db: &mut Db<PgConnection>, checks: &mut Checks) -> bool {
    let row = sqlx::query_as::<_, (bool, Option<f64>)>(
        "SELECT pg_is_in_recovery(), CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
             ELSE EXTRACT(EPOCH FROM now() - pg_last_xact_replay_timestamp()) END::float8",
    );
    match row.fetch_one(&mut db.connection).await {
        Ok((false, _)) => true,
        Ok((true, behind)) => {
            let behind = behind.map_or_else(String::new, |seconds| format!(", {seconds:.0} s behind"));
            checks
                .good("standby", format!("this is a standby{behind}: it can be read; keys are changed on the primary"));
            false
        }
        Err(source) => {
            checks.failed("standby", &reading(source), "look at the server's log");
            true
        }
    }
}

fn reading(source: sqlx::Error) -> Error {
    Error::database("looking at its settings", source)
}
