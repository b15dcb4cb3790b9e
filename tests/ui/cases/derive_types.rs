//! Types that say nothing, kinds and fields that do not exist, and what names no owner.
use eventseal::{Event, EventPart, Scope, Sensitive};
use serde::{Deserialize, Serialize};

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Serialize, Deserialize)]
struct Contact { email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1)]
struct Forgotten { customer_id: String, contacts: Vec<Contact> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(courier.idd))]
struct NoSuchField { courier: Courier, email: Sensitive<String> }

#[derive(Serialize, Deserialize, EventPart)]
struct Courier { id: u8 }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(id))]
struct NoId { id: Sensitive<String>, email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(id))]
struct MaybeId { id: Option<String>, email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(id?))]
struct NoOption { id: String, email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = String(id))]
struct NoKind { id: String, email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 2, previous = Courier)]
struct NoEvent { id: String }

fn main() {}
