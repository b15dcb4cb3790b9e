//! Two arms can't be of one event type: which one would an event be?
use eventseal::EventPayload;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {}

impl EventPayload for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 2;
}

#[derive(Serialize, Deserialize)]
struct OrderPlacedV1 {}

impl EventPayload for OrderPlacedV1 {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 1;
}

eventseal::events! {
    enum OrderEvent { Placed(OrderPlaced), PlacedOnce(OrderPlacedV1) }
}

fn main() {}
