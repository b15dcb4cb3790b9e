//! What comes before a shred, on every database: holds, scheduled shreds and the sweep (invariants I12 and I14).

mod entries;
mod paths;
mod races;
mod schedules;
mod sweeps;

use eventseal::erasure::{ErasureConsumer, SweepOptions, Swept};
use eventseal::keys::{LogEntry, ScopeAction};
use eventseal::{Error, KeyScope, NewEvent, Result, Schemas, SealedStore, event};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::backend::Backend;
use support::sealing::CANARY;
use support::{customer, customer_scope};
use time::OffsetDateTime;

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"{CANARY}"}}"#))
}

/// A time that passes while a test waits for it, and not before, even on a busy machine.
fn soon() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(2)
}

fn in_a_year() -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::from_secs(365 * 86_400)
}

async fn until(time: OffsetDateTime) {
    support::deadline::passed(time).await;
}

/// What a reader sees of a customer's order.
async fn reads<B: Backend>(db: &B, store: &SealedStore<B::Store>, id: &str) -> Result<&'static str> {
    let events = db.read(store, id).await?;
    Ok(match events.iter().filter(|event| event.is_redacted()).count() {
        0 => "values",
        all if all == events.len() => "stand-ins",
        _ => "both",
    })
}

async fn sweep<B: Backend>(db: &B, store: &SealedStore<B::Store>) -> Result<Swept> {
    let mut connection = db.connect().await.unwrap();
    store.keys().sweep(db.connection(&mut connection), &SweepOptions::default(), &mut |_| {}).await
}

/// A change in a transaction of its own, which is committed unless the change fails.
macro_rules! commit {
    ($db:expr, $store:expr, $call:ident($($argument:expr),*)) => {{
        let mut transaction = $db.begin().await.unwrap();
        let done = $store.keys().$call($db.tx(&mut transaction), $($argument),*).await;
        $db.end(transaction, done).await
    }};
}
use commit;

/// Notes what it is told, and fails at one customer.
#[derive(Clone, Default)]
struct Noting {
    told: Arc<Mutex<Vec<(ScopeAction, String)>>>,
    fails_at: Option<&'static str>,
}

impl Noting {
    fn told(&self, action: ScopeAction) -> Vec<String> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|(of, _)| *of == action).map(|(_, id)| id.clone()).collect()
    }
}

#[async_trait::async_trait]
impl<Tx: Send + 'static> ErasureConsumer<Tx> for Noting {
    fn name(&self) -> &str {
        "noting"
    }

    async fn handle(&self, _: &mut Tx, entry: &LogEntry) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.fails_at == Some(entry.scope.id()) && entry.action == ScopeAction::Shred {
            return Err("the projection is not there".into());
        }
        self.told.lock().unwrap().push((entry.action, entry.scope.id().to_owned()));
        Ok(())
    }
}

fn is_scope_state<T: std::fmt::Debug>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Keys(eventseal::error::KeyFault::ScopeState { .. })))
}

fn scopes(ids: &[&str]) -> Vec<KeyScope> {
    ids.iter().map(|id| customer_scope(id)).collect()
}
