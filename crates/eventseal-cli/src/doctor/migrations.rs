//! Checks which migrations of the key tables were run.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use eventseal::Error;
use eventseal::error::SetUpFault;

pub(super) async fn applied<C: Backend>(db: &mut Db<C>, checks: &mut Checks) {
    let newest = C::NEWEST_MIGRATION;
    match C::applied_migration(db).await {
        Ok(Some(applied)) if applied == newest => checks.good("migrations", format!("current ({newest})")),
        Ok(Some(applied)) if applied > newest => {
            // Most migrations only add things. If older code can't work with one, the library returns an error.
            checks.good(
                "migrations",
                format!("{applied}, by a newer version; this command knows {newest}, and works with them"),
            );
        }
        Ok(Some(applied)) => {
            checks.problem("migrations", format!("{applied} of {newest}"), "eventseal migrate --namespace NAME");
        }
        // Tables that were created by hand have no record of migrations. Reading them shows whether they are current.
        Ok(None) => checks.good("migrations", "not run by eventseal"),
        Err(error @ Error::SetUp(SetUpFault::NewerTables { .. })) => {
            checks.failed("migrations", &error, "use a newer eventseal");
        }
        Err(error) => checks.failed("migrations", &error, "let this user read the bookkeeping table"),
    }
}
