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

#[derive(EventPart)]
struct NoPointer { #[event(owner = metadata(Customer))] email: Sensitive<String> }

#[derive(Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(id))]
struct Unwritten { #[serde(skip_serializing)] id: u8, email: Sensitive<String> }

#[derive(Serialize, Deserialize, EventPart)]
struct SkippedNewtype(#[serde(skip)] Sensitive<String>);

#[derive(Serialize, Deserialize, EventPart)]
struct SometimesShifted(#[serde(skip_serializing_if = "Option::is_none")] Option<Sensitive<String>>, u8);

#[derive(Deserialize, EventPart)]
struct ThreeNames { #[serde(rename(serialize = "email", deserialize = "mail", deserialize = "e"))] e: Sensitive<u8> }

#[derive(EventPart)]
#[serde(into = "Padded", from = "Padded")]
struct Unread { #[event(owner = aggregate)] email: Sensitive<String> }

#[derive(EventPart)]
struct NoSegments { #[event(owner = Customer("id"))] email: Sensitive<String> }

#[derive(EventPart)]
struct NoDot { id: u8, #[event(owner = Customer(id id))] email: Sensitive<String> }

#[derive(Deserialize, Event)]
#[event(type = "A", type = "B", version = 1)]
struct TwoTypes { id: u8 }

#[derive(EventPart)]
struct TwoStandIns { #[event(redact_as = "gone", redact_with = gone)] email: Sensitive<String> }

fn main() {}
