//! These tests alone.
#[path = "../sources.rs"]
#[allow(dead_code)]
mod sources;
#[path = "mod.rs"]
mod telemetry;
