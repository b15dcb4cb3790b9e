//! Looks whether there is an index of seals, and up to where it is complete.

use super::checks::Checks;
use crate::connect::{Backend, Db};
use crate::output::count;
use eventseal::store::{EventTable, SealIndexState};
use eventseal::{Error, GlobalPosition};

const NAME: &str = "seal index";

/// Checks the index beside a table of events that can be read.
pub(super) async fn state<C: Backend, S: EventTable<Tx = C>>(db: &mut Db<C>, store: &S, checks: &mut Checks) {
    match look(db, store).await {
        Ok(None) => checks.good(NAME, "there is none, so searches for a scope's events read the whole log"),
        Ok(Some((state, true, last))) => {
            let behind = last.get().saturating_sub(state.complete_up_to.get()).unsigned_abs();
            let behind = if behind == 0 { String::new() } else { format!(", {} behind", count(behind, "position")) };
            checks.good(NAME, format!("complete up to position {}{behind}", state.complete_up_to));
        }
        Ok(Some((state, false, _))) => {
            let found = format!("at position {}, it knows another event: it is not used", state.complete_up_to);
            checks.problem(NAME, found, "eventseal index-seals --anew");
        }
        Err(error) => checks.failed(NAME, &error, "let this user read the tables of the index"),
    }
}

/// The state of the index, whether it belongs to these events, and the last position; `None` if there is no index.
async fn look<C: Backend, S: EventTable<Tx = C>>(
    db: &mut Db<C>,
    store: &S,
) -> Result<Option<(SealIndexState, bool, GlobalPosition)>, Error> {
    let Some(index) = store.seal_index() else { return Ok(None) };
    let Some(state) = index.state(&mut db.connection).await? else { return Ok(None) };
    let at_mark = store.stored_events_at(&mut db.connection, &[state.complete_up_to]).await?.pop();
    let belongs = at_mark.map(|event| event.event_id) == state.last_event;
    Ok(Some((state, belongs, store.last_position(&mut db.connection).await?)))
}
