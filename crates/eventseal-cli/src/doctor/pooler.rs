//! Checks whether there is a pooler in front of the database, and whether eventseal works behind it.

use super::checks::Checks;
use crate::args;
use crate::connect::{Target, target};
use crate::pooler::{Sessions, sessions};
use eventseal::Error;

pub(super) async fn statements(args: &args::Database, checks: &mut Checks) {
    const NAME: &str = "pooler";
    let Ok(Target::Postgres(options, _)) = target(args) else { return };
    match sessions(&options).await {
        Ok(Sessions::Own) => checks.good(NAME, "none that shares sessions"),
        Ok(Sessions::Shared) => {
            checks
                .good(NAME, "shares sessions, and keeps prepared statements apart; migrate needs a direct connection");
        }
        Ok(Sessions::SharedWithLosses) => checks.problem(
            NAME,
            "gives transactions to different sessions, and loses prepared statements",
            "PgBouncer 1.21 or newer: set max_prepared_statements. Before: server_reset_query = DEALLOCATE ALL and \
             server_reset_query_always = 1, statement_cache_capacity(0) in the application, and every call in a \
             transaction. For this command: let --database name the database itself",
        ),
        Err(source) => {
            let error = Error::database("looking for a pooler with a second and a third connection", source);
            checks.failed(NAME, &error, "let this user have three connections");
        }
    }
}
