//! A kind is a type, so a misspelt one is found.
use eventseal::{Event, Scope, Sensitive};
use serde::{Deserialize, Serialize};

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Custmer(id))]
struct Misspelt { id: String, email: Sensitive<String> }

fn main() {
    let _ = Custmer::scope("cust_42");
}
