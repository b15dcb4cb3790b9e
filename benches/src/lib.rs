//! The benchmarks of eventseal. `./scripts/bench` runs them, and writes `docs/performance.md`.
//!
//! - [`bench`](mod@bench): how a piece of work is measured: rounds in which all ways to do it take turns.
//! - [`measured`]: what came of it: a row with its ratio, its goal, and whether the goal was met.
//! - [`subjects`]: what is measured, one module for each subject. To add one, write a module with a function that takes
//!   the [`Bench`], and name it in [`subjects::SUBJECTS`].
//! - [`results`], [`document`] and [`plot`]: the file of results, and the page and the pictures that are made of it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::must_use_candidate,
    clippy::cast_precision_loss,
    reason = "for benchmarks alone"
)]

pub mod bench;
#[allow(dead_code, unreachable_pub, missing_docs, reason = "tests use the rest")]
#[path = "../../tests/support/cluster.rs"]
mod cluster;
pub mod command;
pub mod database;
pub mod document;
pub mod environment;
pub mod fixture;
pub mod measured;
pub mod plot;
pub mod results;
pub mod subjects;

pub use bench::{Bench, Scale};
pub use command::run;
pub use measured::{Measured, Report};
pub use subjects::Subject;
