//! Attributes of the derives, and of serde, that are refused.
use eventseal::{Event, EventPart, Scope, Sensitive};
use serde::{Deserialize, Serialize};

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Event)]
struct Nameless;

#[derive(Event)]
#[event(type = "A", version = 0)]
struct Zeroth;

#[derive(Event)]
#[event(type = "A", version = 1, owner = "Customer")]
struct Quoted { email: Sensitive<String> }

#[derive(Event)]
#[event(type = "A", version = 1, owner = Customer)]
struct NoField { email: Sensitive<String> }

#[derive(Event)]
#[event(type = "A", version = 1, subject = Customer(id))]
struct Misspelt { email: Sensitive<String> }

#[derive(Event)]
#[event(type = "A", version = 1)]
struct Generic<T> { email: Sensitive<T> }

#[derive(EventPart)]
struct Plain { #[event(plain)] email: Sensitive<String> }

#[derive(EventPart)]
struct PlainOwner { #[event(plain, owner = aggregate)] email: String }

#[derive(EventPart)]
struct Padded { #[event(pad_to = 33)] email: Sensitive<String> }

#[derive(EventPart)]
enum OnVariant { #[event(owner = aggregate)] A { email: Sensitive<String> } }

#[derive(Deserialize, EventPart)]
struct TwoNames { #[serde(rename(serialize = "out", deserialize = "in"))] email: Sensitive<String> }

#[derive(EventPart)]
struct Unknown { #[serde(encrypt)] email: Sensitive<String> }

#[derive(Serialize, EventPart)]
#[serde(remote = "String")]
struct Remote { email: Sensitive<String> }

#[derive(Serialize, EventPart)]
struct Shifted(#[serde(skip_serializing)] u8, Sensitive<String>);

#[derive(EventPart)]
#[event(owner = Customer(id))]
#[serde(into = "Padded", from = "Padded")]
struct Elsewhere { id: u8 }

#[derive(EventPart)]
#[event(owner = Customer(idd))]
enum NoSuchField { A { id: u8, email: Sensitive<String> } }

#[derive(EventPart)]
struct SerdeAs { #[serde_as(as = "X")] email: Sensitive<String> }

#[derive(EventPart)]
struct Recursive { #[serde(with = "x")] again: Option<Box<Recursive>> }

fn main() {}
