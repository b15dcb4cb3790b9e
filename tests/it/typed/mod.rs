//! Typed events: decoding, and the mistakes that are refused at startup and on reading.

use eventseal::schema::EventSchema;
use eventseal::{
    AggregateVersion, GlobalPosition, NewEvent, Owner, PersistedEvent, Sensitive, aggregate, event, subject,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderPlaced {
    customer_id: String,
    contact: Contact,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gift_note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Contact {
    email: Sensitive<String>,
    /// `null` is a value here: never given.
    phone: Sensitive<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct OrderPlacedV1 {
    #[serde(rename = "customerId")]
    customer_id: String,
    email: Sensitive<String>,
}

impl From<OrderPlacedV1> for OrderPlaced {
    fn from(old: OrderPlacedV1) -> Self {
        Self {
            customer_id: old.customer_id,
            contact: Contact { email: old.email, phone: Sensitive::Present(None) },
            gift_note: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OrderShipped {
    carrier: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how")]
enum OrderPaid {
    Card { last_digits: u16 },
    Cash,
}

macro_rules! payload {
    ($($payload:ty: $name:literal version $version:literal;)+) => {
        $(impl eventseal::Event for $payload {
            const TYPE: &'static str = $name;
            const VERSION: u32 = $version;
        })+
    };
}

payload! {
    OrderPlaced: "OrderPlaced" version 2;
    OrderShipped: "OrderShipped" version 1;
    OrderPaid: "OrderPaid" version 1;
}

/// What happens to an order.
#[derive(Clone, Debug, PartialEq, eventseal::Events)]
enum OrderEvent {
    /// Somebody ordered.
    Placed(OrderPlaced),
    #[allow(clippy::doc_markdown)]
    Shipped(OrderShipped),
    Paid(OrderPaid),
}

#[derive(Clone, Debug, PartialEq, eventseal::Events)]
enum Shipping {
    Shipped(OrderShipped),
    #[event(other)]
    Other(Box<PersistedEvent>),
}

fn customer() -> Owner {
    subject("Customer", "/customerId")
}

fn schemas() -> [EventSchema; 4] {
    [
        event("OrderPlaced")
            .version(1)
            .protect(&["/email"], customer())
            .version(2)
            .protect(&["/contact/email", "/contact/phone"], customer())
            .upcast(1, |old: OrderPlacedV1| Ok::<_, Infallible>(OrderPlaced::from(old))),
        event("OrderShipped").version(1),
        event("OrderPaid").version(1),
        event("Forgotten").version(1).drop_from(1),
    ]
}

fn placed(customer: &str) -> OrderPlaced {
    let contact = Contact { email: "ada@example.org".into(), phone: Sensitive::Present(None) };
    OrderPlaced { customer_id: customer.into(), contact, gift_note: Some("for you".into()) }
}

fn shipped() -> OrderShipped {
    OrderShipped { carrier: "by bike".into() }
}

/// An event as a store without schemas returns it.
fn stored(event_type: &str, version: u32, payload: impl Into<Vec<u8>>) -> PersistedEvent {
    let new = NewEvent::raw(event_type, version, payload);
    PersistedEvent::from_new(aggregate("Order", "1"), AggregateVersion::FIRST, GlobalPosition::START, new)
}

// After the macro that they use.
mod appending;
mod macros;
mod reading;
mod startup;
