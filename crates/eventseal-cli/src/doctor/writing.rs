//! Checks that the key tables can be written to. The write is tried and rolled back.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use eventseal::keys::{KeyStore, LogEntry, ScopeAction, ScopeLock, ScopeState};
use eventseal::{Error, KeyScope};
use time::OffsetDateTime;
use uuid::Uuid;

/// Returns whether the key tables can be written to.
pub(super) async fn writing<C: Backend>(db: &mut Db<C>, checks: &mut Checks) -> bool {
    match write(db).await {
        Ok(()) => {
            checks.good("writing", "allowed (tried, and rolled back)");
            return true;
        }
        Err(Error::Collision { .. }) => checks.problem("writing", "others held a lock all the time", "run it again"),
        Err(error) => checks.failed("writing", &error, "let this user insert into and update the key tables"),
    }
    false
}

/// Writes to every table that operations write to, and rolls it back.
async fn write<C: Backend>(db: &mut Db<C>) -> Result<(), Error> {
    let failed = |source: sqlx::Error| Error::database("beginning a transaction", source);
    let keys = db.keys.clone();
    let mut tx = db.connection.begin_with(C::BEGIN).await.map_err(failed)?;
    let done = try_writing(&keys, &mut *tx).await;
    tx.rollback().await.map_err(failed)?;
    done
}

async fn try_writing<C: Backend>(keys: &C::Keys, tx: &mut C) -> Result<(), Error> {
    let scope = KeyScope::new("$eventseal", "doctor");
    keys.create_scopes(tx, std::slice::from_ref(&scope)).await?;
    keys.scopes(tx, std::slice::from_ref(&scope), ScopeLock::Update).await?;
    keys.destroy_keys(tx, &scope, OffsetDateTime::now_utc()).await?;
    let entry = LogEntry {
        entry_id: Uuid::now_v7(),
        scope,
        scope_seq: 1,
        action: ScopeAction::Shred,
        state: ScopeState::Shredded,
        generation: 1,
        reason: "tried by eventseal doctor, and rolled back".to_owned(),
        actor: Some("eventseal doctor".to_owned()),
        at: OffsetDateTime::now_utc(),
        keys: Vec::new(),
        until: None,
        about: None,
        mac: None,
    };
    keys.change_scope(tx, &entry).await
}
