//! Checks that a commit outlasts a crash. Otherwise a crash could undo an erasure that was reported as done.

use super::checks::Checks;
use crate::connect::Db;
use eventseal::Error;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;

const NAME: &str = "durability";

pub(super) async fn postgres(db: &mut Db<PgConnection>, checks: &mut Checks) {
    let settings =
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')";
    let (fsync, pages, commit) =
        match sqlx::query_as::<_, (String, String, String)>(settings).fetch_one(&mut db.connection).await {
            Ok(settings) => settings,
            Err(source) => return checks.failed(NAME, &reading(source), "look at the server's log"),
        };
    let off: Vec<&str> = [("fsync", fsync), ("full_page_writes", pages)]
        .into_iter()
        .filter(|(_, value)| value == "off")
        .map(|(name, _)| name)
        .collect();
    if !off.is_empty() {
        let found = format!(
            "{} off: a crash of the server can destroy keys, and bring back those that were shredded",
            off.join(" and ")
        );
        checks.problem(NAME, found, format!("set {} = on in the server's configuration", off.join(" and ")));
    }
    let found = format!("synchronous_commit is {commit}");
    match commit.as_str() {
        "off" | "local" => {
            let fine = "fine for events that may be lost in a crash; changes of keys are committed as if it were on";
            checks.good(NAME, format!("{found}: {fine}"));
        }
        _ if off.is_empty() => checks.good(NAME, found),
        _ => {}
    }
}

/// The setting belongs to the connection. A connection with a weaker setting is refused when it shreds.
pub(super) async fn sqlite(db: &mut Db<SqliteConnection>, checks: &mut Checks) {
    match sqlx::query_scalar::<_, i64>("PRAGMA synchronous").fetch_one(&mut db.connection).await {
        Ok(2..) => checks.good(NAME, "commits outlast a loss of power (synchronous is FULL)"),
        Ok(_) => checks.problem(
            NAME,
            "this SQLite does not make commits durable by default",
            "set PRAGMA synchronous = FULL on the connections that shred; others are refused",
        ),
        Err(source) => checks.failed(NAME, &reading(source), "look whether the file is a SQLite database"),
    }
}

fn reading(source: sqlx::Error) -> Error {
    Error::Database { operation: "looking at its settings", source: source.into() }
}
