//! Guards for your own CI: tests of a few lines that fail before a change of your schemas does harm.
//!
//! For `[dev-dependencies]`. Each guard takes the registry that your service builds at startup:
//!
//! - [`GoldenCorpus`]: stored events in a folder, sealed ones included, still open and upcast to what was recorded,
//!   and stand being redacted.
//! - [`TaintCheck`]: no step copies a protected value to a place that its target version does not protect.
//! - [`SchemaLock`]: no (type, version) changes its shape or its protection without a new version.
//!
//! What a guard compares with is in files that are committed. A test writes none of them, unless an environment
//! variable says so: [`GoldenCorpus`] and [`SchemaLock`] name theirs. A failure lists everything at once, with what to
//! do.

// What tests may do, and the library may not.
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

/// Runs a future that waits for nothing but memory, so that guards fit into plain `#[test]` functions.
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
