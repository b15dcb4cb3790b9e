//! Counts what becomes of the stored events of a page.
//!
//! Parts of a large page are opened on other threads. There, nothing is reported: a part is only added to the tally of
//! the page. The task that reads the page reports the tally once, to its own span and its own recorder.

use super::Call;
use crate::error::{Error, ErrorKind};
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of stored events that were read. Each is counted once.
#[derive(Default)]
pub(crate) struct EventsRead {
    /// Sealed, and all that was sealed is open.
    pub(crate) opened: u64,
    /// Sealed, and something of it is redacted.
    pub(crate) redacted: u64,
    /// Nothing was sealed.
    pub(crate) plain: u64,
    pub(crate) unreadable: u64,
    /// Why events can't be read. Beside one for each unreadable event, there is one for each event that was opened and
    /// whose step failed, unless its error fails the whole page.
    pub(crate) errors: Vec<ErrorKind>,
}

/// What became of the events of a page so far.
#[derive(Default)]
pub(crate) struct Tally(Mutex<EventsRead>);

impl Tally {
    /// Adds events that were opened, or can't be.
    pub(crate) fn add(&self, read: EventsRead) {
        let mut sum = self.lock();
        sum.opened += read.opened;
        sum.redacted += read.redacted;
        sum.plain += read.plain;
        sum.unreadable += read.unreadable;
        sum.errors.extend(read.errors);
    }

    /// Adds the error of an event that was opened, and whose step failed.
    pub(crate) fn step_failed(&self, error: &Error) {
        self.lock().errors.push(error.kind());
    }

    fn lock(&self) -> MutexGuard<'_, EventsRead> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports a tally when it is dropped. So what was done is counted even if a step panics, or if the reader is dropped
/// before its page is done.
#[must_use = "it reports when it is dropped"]
pub(crate) struct Reporting<'c, T: Deref<Target = Tally>> {
    /// `None` if the events are not counted.
    call: Option<&'c Call>,
    tally: T,
}

impl<'c, T: Deref<Target = Tally>> Reporting<'c, T> {
    pub(crate) fn new(call: Option<&'c Call>, tally: T) -> Self {
        Self { call, tally }
    }
}

impl<T: Deref<Target = Tally>> Drop for Reporting<'_, T> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            call.read(&self.tally.lock());
        }
    }
}
