//! Waiting that ends: a test of broken code fails, and does not hang.

use std::time::{Duration, Instant};

/// The limit of all waits. It is far longer than any wait of a test takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(1);

/// For a loop that asks until something is so.
pub struct Deadline {
    what: &'static str,
    began: Instant,
}

impl Deadline {
    /// `what` completes "waited in vain".
    pub fn of(what: &'static str) -> Self {
        Self { what, began: Instant::now() }
    }

    /// Call this in each round of a loop that waits: it lets a moment pass. A test that asks all the time takes a core
    /// from what it waits for, and from the other tests.
    pub async fn look_again(&self) {
        self.look_again_after(PAUSE).await;
    }

    /// As [`look_again`](Self::look_again), for looks that take long themselves.
    pub async fn look_again_after(&self, pause: Duration) {
        self.check();
        rest(pause).await;
    }

    /// Call this in each round of a loop that has something to do.
    pub fn check(&self) {
        assert!(self.began.elapsed() < PATIENCE, "waited in vain {}", self.what);
    }
}

/// Waits until this time has passed by the clock that the library reads.
pub async fn passed(time: time::OffsetDateTime) {
    while let Ok(left) = Duration::try_from(time - time::OffsetDateTime::now_utc()) {
        rest(left + PAUSE).await;
    }
}

#[allow(clippy::disallowed_methods, reason = "between two looks at what is waited for")]
async fn rest(time: Duration) {
    tokio::time::sleep(time).await;
}

/// For a call that may never return.
pub async fn in_time<T>(what: &'static str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| panic!("waited in vain {what}"))
}
