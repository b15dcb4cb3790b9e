//! What the constants of the derives find.
use eventseal::{Event, EventPart, Scope, Sensitive};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

#[derive(Scope)]
#[scope("Customer")]
struct Customer;

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1)]
struct NoOwner { email: Sensitive<String> }

#[derive(Serialize, Deserialize, EventPart)]
struct Contact { email: Sensitive<String> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1)]
struct NoOwnerInside { contacts: Vec<(u8, Contact)> }

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1, owner = Customer(id))]
struct NotSensitive { id: u8, email: String }

#[derive(Serialize, Deserialize, EventPart)]
struct NothingInField { #[event(owner = aggregate)] email: String }

#[derive(Serialize, Deserialize, EventPart)]
#[event(owner = Customer(id))]
struct Owned { id: u8, email: Sensitive<String> }

#[derive(Serialize, Deserialize, EventPart)]
struct TwoOwners { #[event(owner = aggregate)] owned: Owned }

#[derive(Serialize, Deserialize, EventPart)]
#[event(owner = aggregate)]
struct NothingLeft { owned: Owned }

#[derive(Serialize, Deserialize, EventPart)]
struct InNames { names: HashMap<(Sensitive<String>,), u8>, inner: Vec<HashMap<String, HashMap<Sensitive<String>, u8>>> }

#[derive(Serialize, Deserialize, EventPart)]
struct Flattened { #[serde(flatten)] all: Sensitive<HashMap<String, String>> }

#[derive(Serialize, Deserialize, EventPart)]
#[serde(untagged)]
enum Untagged { A { email: Sensitive<String> }, B(u8) }

#[derive(Serialize, Deserialize, EventPart)]
#[serde(tag = "t")]
enum Tagged { A(Sensitive<Contact>), B { x: u8 } }

#[derive(Serialize, Deserialize, EventPart)]
struct With { #[serde(with = "with")] email: Sensitive<String> }

mod with {
    use eventseal::Sensitive;
    pub fn serialize<S: serde::Serializer>(_: &Sensitive<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("in the clear")
    }
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(_: D) -> Result<Sensitive<String>, D::Error> {
        Ok(Sensitive::Redacted)
    }
}

#[derive(Serialize, Deserialize, EventPart)]
#[event(owner = Customer(id))]
enum OneVariant { A { id: u8, email: Sensitive<String> }, B { email: Sensitive<String> } }

#[derive(Serialize, Deserialize, EventPart)]
#[serde(try_from = "String")]
struct OneWay(Sensitive<String>);

impl TryFrom<String> for OneWay {
    type Error = &'static str;
    fn try_from(_: String) -> Result<Self, Self::Error> {
        Err("no")
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 3, previous = First)]
struct Third {}

#[derive(Serialize, Deserialize, Event)]
#[event(type = "A", version = 1)]
struct First {}

impl From<First> for Third {
    fn from(_: First) -> Self {
        Self {}
    }
}

use Sensitive as Secret;

#[derive(Serialize, Deserialize, EventPart)]
struct NotPlain { #[event(plain)] contact: Contact, #[event(plain)] renamed: Secret<String> }

fn main() {}
