//! An arm holds a payload that knows which event type it is of.
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {}

#[derive(eventseal::Events)]
enum OrderEvent { Placed(OrderPlaced) }

fn main() {}
