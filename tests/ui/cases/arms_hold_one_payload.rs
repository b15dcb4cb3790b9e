//! `events!` says what it takes.
eventseal::events! {
    enum OrderEvent { Placed { email: String } }
}

eventseal::events! {
    enum Early { _ => Other }
}

fn main() {}
