//! Checks that the key tables can be read, and that the keys that every application needs are there.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use crate::output::count;
use eventseal::keys::{KekState, KekUsage, KeyStore, KeyTable, ScopeLock};
use eventseal::{Error, KeyScope, Namespace};

pub(super) const MIGRATE: &str = "eventseal migrate --namespace NAME; and look whether --schema and --prefix are right";

pub(super) async fn namespace<C: Backend>(db: &mut Db<C>, checks: &mut Checks) -> Option<Namespace> {
    match db.keys.namespace(&mut db.connection).await {
        Ok(Some(namespace)) => {
            checks.good("namespace", namespace.as_str());
            return Some(namespace);
        }
        Ok(None) => checks.problem("namespace", "there are no key tables, or they have no name", MIGRATE),
        Err(error) => checks.failed("namespace", &error, "let this user read the key tables"),
    }
    None
}

/// Reads the key-encryption keys.
pub(super) async fn reading<C: Backend>(db: &mut Db<C>, checks: &mut Checks) -> Option<Vec<KekUsage>> {
    match db.keys.kek_usage(&mut db.connection).await {
        Ok(usage) => {
            let live = usage.iter().map(|usage| usage.live_keys).sum();
            let found =
                format!("{} under {}", count(live, "data key"), count(usage.len() as u64, "key-encryption key"));
            checks.good("reading", found);
            Some(usage)
        }
        Err(error) => {
            checks.failed(
                "reading",
                &error,
                format!("let this user read the key tables; if a column is missing: {MIGRATE}"),
            );
            None
        }
    }
}

pub(super) async fn in_place<C: Backend>(db: &mut Db<C>, usage: &[KekUsage], checks: &mut Checks) {
    let active = usage.iter().any(|usage| usage.kek.state == KekState::Active && usage.kek.partition == "default");
    match (active, integrity(db).await) {
        (true, Ok(true)) => checks.good("keys", "the active key-encryption key and the integrity key are there"),
        (false, _) => {
            checks.problem("keys", "no active key-encryption key in the default partition", "eventseal prepare");
        }
        (true, Ok(false)) => checks.problem("keys", "no integrity key: nothing could be redacted", "eventseal prepare"),
        (true, Err(error)) => checks.failed("keys", &error, "restore its row from a backup"),
    }
}

/// Is there an active integrity key?
pub(super) async fn integrity<C: Backend>(db: &mut Db<C>) -> Result<bool, Error> {
    let scopes = db.keys.scopes(&mut db.connection, &[KeyScope::integrity()], ScopeLock::None).await?;
    Ok(scopes.iter().any(|record| record.active.is_some()))
}
