//! The pace of maintenance, and its retries.

use crate::error::{Error, Result};
use std::num::NonZeroU32;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How often a batch is tried if other transactions get in its way.
pub(super) const ATTEMPTS: u32 = 20;

/// How many bytes of payloads a batch may have. It bounds memory and the size of statements. A batch has at least one
/// event, whatever its size.
pub(crate) const PAGE_BYTES: u64 = 64 << 20;

/// Spreads the work on events over time.
pub(super) struct Pace {
    per_second: Option<NonZeroU32>,
    began: Instant,
    done: u64,
}

impl Pace {
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { per_second, began: Instant::now(), done: 0 }
    }

    /// How many events to take at a time: at most those of one second, so that the database gets no bursts.
    pub(super) fn batch(&self, wanted: u32) -> u32 {
        self.per_second.map_or(wanted, |limit| wanted.min(limit.get())).max(1)
    }

    /// Waits until `events` more events may be done.
    pub(super) async fn keep(&mut self, events: usize) -> Result<()> {
        let Some(limit) = self.per_second else { return Ok(()) };
        self.done += events as u64;
        let due = Duration::from_secs(self.done / u64::from(limit.get()))
            + Duration::from_secs(self.done % u64::from(limit.get())) / limit.get();
        match due.checked_sub(self.began.elapsed()) {
            Some(wait) if !wait.is_zero() => pause(wait).await,
            _ => Ok(()),
        }
    }
}

/// Says whether to try again after this error, and waits a little first, longer each time.
pub(super) async fn may_retry(error: &Error, attempt: u32) -> Result<bool> {
    if !matches!(error, Error::Collision { .. }) || attempt >= ATTEMPTS {
        return Ok(false);
    }
    pause(Duration::from_millis(u64::from(attempt) * 5)).await?;
    Ok(true)
}

/// Waits on a thread of its own, so that it works on any async runtime: a timer of one runtime would panic on another.
/// The thread ends with the wait, or as soon as the future is dropped.
async fn pause(wait: Duration) -> Result<()> {
    let (done, waiting) = tokio::sync::oneshot::channel();
    let (_ends_with_the_future, gone) = channel::<()>();
    let timer = std::thread::Builder::new().name("eventseal-pause".to_owned()).spawn(move || {
        if gone.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            // The waiting future may just have been dropped.
            let _ = done.send(());
        }
    });
    timer.map_err(|source| Error::Database {
        operation: "waiting: no thread could be started",
        source: source.into(),
    })?;
    drop(waiting.await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept() {
        let began = Instant::now();
        futures::executor::block_on(async {
            let mut pace = Pace::new(NonZeroU32::new(100));
            assert_eq!((pace.batch(500), pace.batch(7), pace.batch(0)), (100, 7, 1));
            for _ in 0..4 {
                pace.keep(5).await.unwrap();
            }
            Pace::new(None).keep(usize::MAX).await.unwrap();
        });
        assert!(began.elapsed() >= Duration::from_millis(200), "20 events at 100 a second took {:?}", began.elapsed());
    }
}
