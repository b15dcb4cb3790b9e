//! Guards for the user's CI: each must let right schemas pass and catch real mistakes.

#[path = "guards/golden.rs"]
mod golden;
#[path = "guards/lock.rs"]
mod lock;
#[path = "guards/protection.rs"]
mod protection;
#[path = "guards/shape.rs"]
mod shape;
#[path = "guards/taint.rs"]
mod taint;
