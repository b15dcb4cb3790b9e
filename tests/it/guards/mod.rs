//! Guards for the user's CI: each must let right schemas pass and catch real mistakes.

mod golden;
mod lock;
mod protection;
mod recording;
mod registry;
mod shape;
mod taint;
