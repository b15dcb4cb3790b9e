//! Owners that are named outside of the payload.

mod caller;
mod functions;
mod members;
mod metadata;
mod stand_in_guards;
mod stand_ins;

use eventseal::error::EventFault;
use eventseal::keys::{ScopeQuery, ScopeState};
use eventseal::{Error, NewEvent, Result, SealedStore};
use support::backend::Backend;

const IP: &str = "192.0.2.77";

/// A login from an address.
fn login(event_type: &str) -> NewEvent {
    NewEvent::raw(event_type, 1, format!(r#"{{"ip" : "{IP}","n":1.50}}"#))
}

/// The live scopes of the key table, as `Customer 42`.
async fn live<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Vec<String> {
    let mut connection = db.connect().await.unwrap();
    let page = store.keys().scopes(db.connection(&mut connection), &ScopeQuery::default()).await.unwrap();
    page.scopes.iter().filter(|info| info.state == ScopeState::Live).map(|info| info.scope.to_string()).collect()
}

/// The fault of an event that was refused, and what its error says.
fn refusal<T: std::fmt::Debug>(result: Result<T>) -> (EventFault, String) {
    match result {
        Err(error) => {
            let said = error.to_string();
            match error {
                Error::Event { fault, .. } => (fault, said),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}
