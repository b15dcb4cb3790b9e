//! Two arms can't be of one event type: which one would an event be?
use eventseal::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {}

impl Event for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 2;
}

#[derive(Serialize, Deserialize)]
struct OrderPlacedV1 {}

impl Event for OrderPlacedV1 {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 1;
}

#[derive(eventseal::Events)]
enum OrderEvent { Placed(OrderPlaced), PlacedOnce(OrderPlacedV1) }

fn main() {}
