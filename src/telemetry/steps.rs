//! Counts the steps that bring stored events up to date.
//!
//! A step only adds to a number. Whoever reads a page reports these numbers once, when the page is read.

#[cfg(feature = "metrics")]
use super::counters;
#[cfg(feature = "metrics")]
use metrics::Key;
#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How often one step was taken since that was last reported.
#[derive(Default)]
pub(crate) struct StepTaken {
    #[cfg(feature = "metrics")]
    key: Option<Key>,
    #[cfg(feature = "metrics")]
    times: AtomicU64,
}

/// Was any step of a registry taken since they were last reported?
#[derive(Default)]
pub(crate) struct StepsTaken {
    #[cfg(feature = "metrics")]
    any: AtomicBool,
}

#[cfg(feature = "metrics")]
impl StepTaken {
    /// The step from this version of a registered type.
    pub(crate) fn from(event_type: &str, version: u32) -> Self {
        let version = version.to_string();
        let key = counters::key(counters::STEPS, &[("event_type", event_type), ("from_version", &version)]);
        Self { key: Some(key), times: AtomicU64::new(0) }
    }
}

#[cfg(feature = "metrics")]
impl StepsTaken {
    pub(crate) fn add(&self, step: &StepTaken) {
        step.times.fetch_add(1, Ordering::Relaxed);
        self.any.store(true, Ordering::Release);
    }

    /// Reports all steps that were taken.
    pub(crate) fn report<'s>(&self, steps: impl Iterator<Item = &'s StepTaken>) {
        if !self.any.swap(false, Ordering::Acquire) {
            return;
        }
        for step in steps {
            let times = step.times.swap(0, Ordering::Relaxed);
            if let Some(key) = step.key.as_ref().filter(|_| times > 0) {
                counters::add(key, times);
            }
        }
    }
}

#[cfg(not(feature = "metrics"))]
impl StepTaken {
    pub(crate) fn from(_: &str, _: u32) -> Self {
        Self {}
    }
}

#[cfg(not(feature = "metrics"))]
#[allow(clippy::unused_self, reason = "nobody counts")]
impl StepsTaken {
    pub(crate) fn add(&self, _: &StepTaken) {}

    pub(crate) fn report<'s>(&self, _: impl Iterator<Item = &'s StepTaken>) {}
}
