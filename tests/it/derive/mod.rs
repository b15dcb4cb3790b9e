//! What types declare by their derives: places, owners, steps, and what is wrong with them.

mod hidden;
mod oracle;
mod problems;
mod together;

use eventseal::schema::{SchemaErrors, SchemasBuilder};
use eventseal::{Events, Owner, Schemas, Scope};
use std::collections::BTreeMap;

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Scope)]
#[scope("Courier")]
struct Courier;

#[derive(Scope)]
#[scope("Guest")]
struct Guest;

/// The protected pointers of a version, each with its owner as text.
fn protected(schemas: &Schemas, event_type: &str, version: u32) -> BTreeMap<String, Owner> {
    let versions = schemas.versions();
    let found =
        versions.iter().find(|known| known.event_type.as_str() == event_type && known.event_version.get() == version);
    let places = &found.expect("the version is registered").protected;
    places.iter().map(|place| (place.pointer.clone(), place.owner.clone())).collect()
}

fn of<E: Events>() -> Schemas {
    Schemas::of::<E>().build().unwrap()
}

fn problems(schemas: SchemasBuilder) -> Vec<String> {
    match schemas.build() {
        Ok(_) => Vec::new(),
        Err(SchemaErrors { errors }) => errors.iter().map(ToString::to_string).collect(),
    }
}
