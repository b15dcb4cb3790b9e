//! Guards for your own CI: tests of a few lines that fail before a change of your schemas does harm.
//!
//! Feature `testing`, for `[dev-dependencies]`. Each guard takes the registry that your service builds at startup:
//!
//! - [`GoldenCorpus`]: stored events in a folder, sealed ones included, still open and upcast to what was recorded,
//!   and stand being redacted.
//! - [`TaintCheck`]: no step copies a protected value to a place that its target version does not protect.
//! - [`SchemaLock`]: no (type, version) changes its shape or its protection without a new version.
//!
//! What a guard compares with is in files that are committed. A test writes none of them, unless an environment variable
//! says so: [`GoldenCorpus`] and [`SchemaLock`] name theirs. A failure lists everything at once, with what to do.

mod error;
mod files;
mod golden;
mod json;
mod lock;
mod taint;

pub use crate::shape::Shape;
pub use error::GuardError;
pub use golden::{Checked, Difference, GoldenCorpus, Mismatch, Run};
pub use lock::{ChangeKind, Locked, SchemaChange, SchemaLock};
pub use taint::{TaintCheck, TaintFinding, TaintProblem, Tainted};

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Whether a guard may write its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// No.
    Check,
    /// What is new.
    Record,
    /// What is new, and what changed.
    Accept,
}

impl Mode {
    /// What the environment asks for. Not said in code, so that no CI writes anything by accident.
    fn from_env(variable: &'static str) -> Result<Self, GuardError> {
        match std::env::var_os(variable) {
            None => Ok(Self::Check),
            Some(value) if value.is_empty() => Ok(Self::Check),
            Some(value) if value == "record" => Ok(Self::Record),
            Some(value) if value == "accept" => Ok(Self::Accept),
            Some(value) => Err(GuardError::Variable { variable, value: value.to_string_lossy().into_owned() }),
        }
    }
}

/// Runs a future that waits for nothing but memory, so that guards fit into plain `#[test]` functions.
fn block_on<T>(future: impl Future<Output = T>) -> T {
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
