//! Exactness: readers get exactly what was appended, or the append is refused. Tested with Rust values, odd JSON, and
//! erasures in any type.

mod binary;
mod in_the_clear;
mod odd_json;
mod through_buffers;
mod written;

use eventseal::ExpectedVersion::Any;
use eventseal::error::InputFault;
use eventseal::memory::MemoryStore;
use eventseal::{
    AggregateVersion, Error, EventStore, GlobalPosition, JsonPointer, NewEvent, Owner, PersistedEvent, Result,
    SealedStore, aggregate, subject,
};
use serde::Serialize;
use std::collections::BTreeMap;
use support::world::*;

fn customer() -> Owner {
    subject("Customer", "/customer_id")
}

async fn try_append(world: &World, store: &SealedStore<MemoryStore>, id: &str, event: NewEvent) -> Result<()> {
    let mut tx = world.db.begin();
    store.append(&mut tx, &aggregate("Order", id), Any, &[event]).await?;
    tx.commit()
}

fn problem<T: Serialize>(value: &T) -> String {
    match NewEvent::json("Met", 1, value) {
        Err(Error::Input(InputFault::Encode { problem, .. })) => problem,
        other => panic!("{other:?}"),
    }
}

/// An object of one member.
fn object<T>(name: &str, value: T) -> BTreeMap<String, T> {
    BTreeMap::from([(name.to_owned(), value)])
}

/// An event as a reader gets it, with these places redacted.
fn redacted(payload: &str, places: &[&str]) -> PersistedEvent {
    let event = NewEvent::raw("Paid", 1, payload);
    let mut event =
        PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, event);
    event.redacted = places.iter().map(|place| JsonPointer::parse(place).unwrap()).collect();
    event
}
