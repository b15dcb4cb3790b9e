//! Spans and metrics: what an operator sees of the calls, and what nobody sees (I9).

mod cache;
mod counts;
mod kms;
mod page;
mod recorder;
mod seen;
mod spans;
mod threads;

use eventseal::{Changes, NewEvent, Schemas, event};
use recorder::Recorded;
use seen::Seen;
use support::customer;

/// The schemas with which the first events are appended.
fn old_schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer()), event("Noted").version(1)]).unwrap()
}

/// The schemas of a later deployment.
fn schemas() -> Schemas {
    let moved = Changes::new().move_value("/name", "/contact");
    let placed = event("Placed").version(1).protect(&["/name"], customer()).change(1, moved);
    Schemas::new([placed.version(2).protect(&["/contact"], customer()), event("Noted").version(1)]).unwrap()
}

/// A name that is protected.
const NAME: &str = "Ada c4n4ry";

fn placed(customer: &str) -> NewEvent {
    NewEvent::raw("Placed", 1, format!(r#"{{"customer":"{customer}","name":"{NAME}"}}"#))
}

fn noted() -> NewEvent {
    NewEvent::raw("Noted", 1, "{}")
}
