//! What is protected in the metadata of events: what holds for payloads holds there too (I17).

mod guards;
mod maintenance;
mod places;
mod schemas;
mod sealing;
mod snapshots;

use eventseal::{NewEvent, Owner, PersistedEvent, Schemas, event, metadata, subject};
use serde_json::Value;
use support::backend::Backend;
use support::contains;

const IP: &str = "192.0.2.77";
const AGENT: &str = "Mozilla/5.0 of Ada";

fn actor() -> Owner {
    metadata("Customer", "/actor/id")
}

/// A login whose metadata belong to an actor, and whose payload belongs to a customer.
fn schema() -> eventseal::schema::EventSchema {
    event("LoggedIn")
        .version(1)
        .protect(&["/name"], subject("Customer", "/customer"))
        .protect_metadata(&["/ip", "/seen/*/agent"], actor())
        .redact_metadata_as("/ip", "unknown")
}

fn schemas() -> Schemas {
    Schemas::new([schema()]).unwrap()
}

/// A login of a customer, with metadata of an actor.
fn login(customer: &str, actor: &str) -> NewEvent {
    NewEvent::raw("LoggedIn", 1, format!(r#"{{ "customer":"{customer}","name" : "Ada" }}"#))
        .with_metadata(metadata_of(actor))
}

fn metadata_of(actor: &str) -> String {
    format!(r#"{{"seen":[{{"agent":"{AGENT}","n":1}},{{"n":2}}],"ip" :"{IP}", "actor":{{"id":"{actor}"}}}}"#)
}

/// The metadata as JSON, and the places that are redacted in it.
fn seen(event: &PersistedEvent) -> (Value, Vec<&str>) {
    let metadata = event.metadata.as_ref().map(|stored| serde_json::from_slice(stored).unwrap()).unwrap_or_default();
    // A column of JSONB has an order of its own.
    let mut redacted: Vec<&str> = event.redacted_metadata.iter().map(eventseal::JsonPointer::as_str).collect();
    redacted.sort_unstable();
    (metadata, redacted)
}

/// Is nothing of the protected metadata in the store?
async fn is_hidden<B: Backend>(db: &B) -> bool {
    let stored = db.stored().await;
    let shows = |event: &PersistedEvent| {
        let metadata = event.metadata.as_deref().unwrap_or_default();
        contains(metadata, IP) || contains(metadata, AGENT)
    };
    !stored.iter().any(shows)
}
