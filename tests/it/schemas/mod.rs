//! The registry: what it refuses to be built from, and how events come up to date.

mod consumers;
mod declared;
mod redacted;
mod refused;
mod sealed;
mod splits;
mod steps;
mod whole;

use eventseal::schema::{SplitPart, StepContext};
use eventseal::{PersistedEvent, Schemas, Sensitive, event};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::convert::Infallible;
use support::customer;
use support::world::{json_of, pointers};

fn same(value: Value) -> Result<Value, Infallible> {
    Ok(value)
}

fn no_parts(_: Value, _: &StepContext<'_>) -> Result<Vec<SplitPart>, Infallible> {
    Ok(vec![])
}

fn v1_schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name", "/email"], customer())]).unwrap()
}

const V1: &str = r#"{"customer":"42","name":"Ada Lovelace","email":"ada@x"}"#;

#[derive(Serialize, Deserialize)]
struct PlacedV1 {
    customer: String,
    name: Sensitive<String>,
    email: Sensitive<String>,
}

/// Payload and redactions of the one event that is left.
fn seen(events: &[PersistedEvent]) -> (Value, Vec<&str>) {
    assert_eq!(events.len(), 1);
    (json_of(&events[0]), pointers(&events[0]))
}
