//! What `Events` and `Scope` take.
use eventseal::{Events, Scope};

#[derive(Events)]
enum OrderEvent { Placed { email: String } }

#[derive(Events)]
enum Early { #[event(other)] Other(Box<eventseal::PersistedEvent>) }

#[derive(Events)]
struct Single;

#[derive(Events)]
enum Generic<T> { Placed(T) }

#[derive(Events)]
enum Renamed { #[event(name = "x")] Placed(String) }

#[derive(Events)]
enum EmptyOther { Placed(String), #[event(other)] Other }

#[derive(Scope)]
struct Customer;

#[derive(Scope)]
#[scope("")]
struct Nobody;

#[derive(Scope)]
#[scope("Guest", normalise = 1)]
struct Guest;

fn main() {}
