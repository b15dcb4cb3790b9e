//! Guards for the CI of your service: each is a test of a few lines, which fails before a change of your schemas does
//! harm.
//!
//! Add this crate to `[dev-dependencies]`. Each guard takes the registry of schemas that your service builds at
//! startup:
//!
//! - [`GoldenCorpus`]: stored events in a folder, sealed ones included, still open and upcast to the recorded results,
//!   live and after an erasure.
//! - [`TaintCheck`]: no step copies a protected value to a place that its target version does not protect.
//! - [`SchemaLock`]: the shape and the protection of a registered version never change; a change needs a new version.
//!
//! The guards compare with files, which you commit. A test writes none of them unless an environment variable says so:
//! see [`GoldenCorpus`] and [`SchemaLock`]. A failed guard lists everything at once, and says what to do.

// Stricter lints for the library. Tests need not keep them.
#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::needless_pass_by_value
)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

mod error;
mod files;
mod golden;
mod json;
mod lock;
mod number;
mod pattern;
mod shape;
mod taint;

pub use error::GuardError;
pub use golden::{Checked, Difference, GoldenCorpus, Mismatch, Run};
pub use lock::{ChangeKind, Locked, SchemaChange, SchemaLock};
pub use shape::Shape;
pub use taint::{TaintCheck, TaintFinding, TaintProblem, Tainted};

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Runs a future to its end on this thread, so that guards need no async runtime. The future may not wait for I/O.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The code of the page on evolution, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/evolution.md")]
struct Evolution;

/// The code of the crate's own page.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
