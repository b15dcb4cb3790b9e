//! What the registry is to check knows its event types.
use eventseal::Schemas;

#[allow(dead_code)]
enum OrderEvent {
    Placed,
}

fn main() {
    let _ = Schemas::builder([]).decodes::<OrderEvent>();
}
