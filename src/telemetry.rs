//! What an operator sees of the calls: spans, and metrics.
//!
//! This is the only module that knows how spans and metrics are called. `docs/operations.md` lists them, and tests
//! compare the two. A call site is one line. Nothing here is ever given a payload value, a key, or the id of an
//! aggregate or of a scope: spans and metrics leave the process for systems that no shred reaches.

mod counters;
mod events;
mod steps;

pub(crate) use counters::describe;
pub(crate) use events::{EventsRead, Reporting, Tally};
pub(crate) use steps::{StepTaken, StepsTaken};

use crate::error::kms::KmsFailure;
use crate::error::{Error, ErrorKind, Result};
use crate::event::AggregateRef;
use crate::keys::names::{KekId, KeyScope, Namespace};
use crate::sensitive::Sensitive;
use counters::{Labelled, add_labelled};
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};

/// Makes a function for each span. Its name is the function's, after `eventseal.`, and its target is a module of the
/// public API. Every span has the fields `namespace` and `error_kind`.
macro_rules! spans {
    ($($level:ident $target:literal $span:ident($($argument:ident: $type:ty),*) { $($fields:tt)* })*) => {
        $(
            pub(crate) fn $span(namespace: Option<&Namespace>, $($argument: $type),*) -> Call {
                Call(tracing::span!(
                    target: $target,
                    Level::$level,
                    concat!("eventseal.", stringify!($span)),
                    namespace = namespace.map(Namespace::as_str),
                    error_kind = Empty,
                    $($fields)*
                ))
            }
        )*
    };
}

// A busy service makes the calls at DEBUG all the time. Those at INFO are decisions, maintenance, and the KMS.
spans! {
    DEBUG "eventseal::store" append(aggregate: &AggregateRef, events: usize) {
        aggregate_type = aggregate.aggregate_type(), events, sealed = Empty
    }
    DEBUG "eventseal::store" read_stream(aggregate: &AggregateRef) {
        aggregate_type = aggregate.aggregate_type(), events = Empty, redacted = Empty, unreadable = Empty
    }
    DEBUG "eventseal::store" read_page(limit: u32) { limit, events = Empty, redacted = Empty, unreadable = Empty }
    DEBUG "eventseal::sealer" seal(aggregate: &AggregateRef, events: usize) {
        aggregate_type = aggregate.aggregate_type(), events, sealed = Empty
    }
    DEBUG "eventseal::sealer" open() { events = Empty, redacted = Empty, unreadable = Empty }
    DEBUG "eventseal::values" seal_values(values: usize) { values }
    DEBUG "eventseal::values" open_values(values: usize) { values, redacted = Empty, unreadable = Empty }
    DEBUG "eventseal::snapshots" load_snapshot(aggregate: &AggregateRef, state: &str) {
        aggregate_type = aggregate.aggregate_type(), state, events = Empty, redacted = Empty, unreadable = Empty
    }
    DEBUG "eventseal::snapshots" save_snapshot(aggregate: &AggregateRef, state: &str) {
        aggregate_type = aggregate.aggregate_type(), state
    }
    DEBUG "eventseal::blind_index" look_up(index: &str) { index }
    DEBUG "eventseal::blind_index" change_index(index: &str) { index }

    INFO "eventseal::blind_index" drop_shredded() {}
    INFO "eventseal::blind_index" finish_rotation() {}

    INFO "eventseal::keys" prepare() {}
    INFO "eventseal::keys" open_keys() {}
    INFO "eventseal::keys" shred(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" shred_many(scopes: usize) { scopes }
    INFO "eventseal::keys" shred_partition(partition: &str) { partition }
    INFO "eventseal::keys" sweep() {}
    INFO "eventseal::keys" reopen(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" disable(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" enable(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" hold(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" release(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" schedule_shred(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" cancel(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" rotate_data_key(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::keys" create_kek(partition: &str) { partition }
    INFO "eventseal::keys" rotate_kek(partition: &str) { partition }
    INFO "eventseal::keys" retire_kek(kek_id: KekId) { %kek_id }
    INFO "eventseal::keys" rewrap(partition: Option<&str>, dry_run: bool) { partition, dry_run }
    INFO "eventseal::keys" move_master_key() {}
    INFO "eventseal::keys" export_log() {}
    INFO "eventseal::keys" copy_log() {}
    INFO "eventseal::keys" verify_log() {}
    INFO "eventseal::keys" replay_log(dry_run: bool) { dry_run }
    INFO "eventseal::keys" adopt_entries() {}
    INFO "eventseal::kms" kms(provider: &str, operation: &str, kek_id: Option<KekId>) {
        provider, operation, kek_id = kek_id.map(tracing::field::display), outcome = Empty, failure = Empty
    }
    INFO "eventseal::maintenance" backfill(dry_run: bool) { dry_run }
    INFO "eventseal::maintenance" rewrite(dry_run: bool) { dry_run }
    INFO "eventseal::maintenance" census() {}
    INFO "eventseal::maintenance" index_seals() {}
    INFO "eventseal::erasure" verify() {}
    INFO "eventseal::erasure" export(scope: &KeyScope) { scope_kind = scope.kind() }
    INFO "eventseal::erasure" certificates(scopes: usize) { scopes }
}

/// A call of the public API, with its span.
#[must_use = "run the call's work in it"]
pub(crate) struct Call(Span);

impl Call {
    /// Does the work of the call in its span. An error is counted, and its kind is noted in the span.
    ///
    /// The work is a closure, so that its future is not moved once it exists. One call must not run in another: their
    /// error would be counted twice.
    pub(crate) async fn run<T, F: Future<Output = Result<T>>>(&self, work: impl FnOnce() -> F) -> Result<T> {
        let result = work().instrument(self.0.clone()).await;
        if let Err(error) = &result {
            self.failed(error);
        }
        result
    }

    /// Kept apart, because it is generic in nothing, and hardly ever called.
    #[cold]
    fn failed(&self, error: &Error) {
        let kind = error.kind().as_str();
        self.0.record("error_kind", kind);
        add_labelled(Labelled::Errors, &[("error_kind", kind)], 1);
    }

    /// Notes how many of the events of an append are sealed. They may not be committed yet.
    pub(crate) fn sealed(&self, sealed: usize, events: usize) {
        self.0.record("sealed", sealed);
        counters::EVENTS_SEALED.add(sealed as u64);
        counters::EVENTS_PLAIN_APPENDED.add(events.saturating_sub(sealed) as u64);
    }

    /// Notes what became of the stored events of a page.
    fn read(&self, read: &EventsRead) {
        let EventsRead { opened, redacted, plain, unreadable, errors } = read;
        self.0.record("events", opened + redacted + plain + unreadable);
        self.0.record("redacted", redacted);
        self.0.record("unreadable", unreadable);
        counters::EVENTS_OPENED.add(*opened);
        counters::EVENTS_REDACTED.add(*redacted);
        counters::EVENTS_PLAIN_READ.add(*plain);
        errors.iter().for_each(|kind| unreadable_because(*kind));
    }

    /// Notes what became of values outside of events.
    pub(crate) fn values_read<T>(&self, read: &[Result<Sensitive<T>>]) {
        let redacted = read.iter().flatten().filter(|value| value.is_redacted()).count() as u64;
        let opened = read.iter().flatten().count() as u64 - redacted;
        self.0.record("redacted", redacted);
        self.0.record("unreadable", read.len() as u64 - opened - redacted);
        counters::VALUES_OPENED.add(opened);
        counters::VALUES_REDACTED.add(redacted);
    }
}

/// How an append was done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendPath {
    /// Nothing was sealed.
    Plain,
    /// The statement that appends also compared the keys.
    OneStatement,
    /// The keys were read and locked first.
    TwoSteps,
    /// One statement was tried, and found other keys than those that were cached.
    FellBack,
}

/// Counts an append of a sealed store.
pub(crate) fn appended(path: AppendPath) {
    let counter = match path {
        AppendPath::Plain => &counters::APPENDS_PLAIN,
        AppendPath::OneStatement => &counters::APPENDS_ONE_STATEMENT,
        AppendPath::TwoSteps => &counters::APPENDS_TWO_STEPS,
        AppendPath::FellBack => &counters::APPENDS_FELL_BACK,
    };
    counter.add(1);
}

/// Counts a stored event that was opened, and whose step failed the page.
pub(crate) fn step_failed(error: &Error) {
    unreadable_because(error.kind());
}

/// Counts a stored event that a read met and that can't be read.
fn unreadable_because(kind: ErrorKind) {
    add_labelled(Labelled::Unreadable, &[("error_kind", kind.as_str())], 1);
}

pub(crate) fn values_sealed(values: usize) {
    counters::VALUES_SEALED.add(values as u64);
}

/// Counts data keys that a call needed. It found some unwrapped in the cache, and had to unwrap the others.
pub(crate) fn data_keys_needed(cached: usize, unwrapped: usize) {
    counters::DATA_KEY_HITS.add(cached as u64);
    counters::DATA_KEY_MISSES.add(unwrapped as u64);
}

/// Counts key-encryption keys that a call needed and found open.
pub(crate) fn keks_at_hand(keks: usize) {
    counters::KEK_HITS.add(keks as u64);
}

/// Counts a key-encryption key that a call needed.
pub(crate) fn kek_needed(is_open: bool) {
    let counter = if is_open { &counters::KEK_HITS } else { &counters::KEK_MISSES };
    counter.add(1);
}

pub(crate) fn data_keys_created(keys: usize) {
    counters::DATA_KEYS_CREATED.add(keys as u64);
}

pub(crate) fn kek_created() {
    counters::KEKS_CREATED.add(1);
}

/// Counts a shred of a scope, and the data keys that it destroyed.
pub(crate) fn shredded(keys: usize) {
    counters::SCOPES_SHREDDED.add(1);
    counters::DATA_KEYS_SHREDDED.add(keys as u64);
}

/// A request to a KMS. If its future is dropped before there is an answer, as by a time-out, that is an outcome too.
pub(crate) struct KmsRequest<'p> {
    call: Call,
    provider: &'p str,
    operation: &'static str,
    is_answered: bool,
    #[cfg(feature = "metrics")]
    since: std::time::Instant,
}

impl<'p> KmsRequest<'p> {
    pub(crate) fn new(
        namespace: Option<&Namespace>,
        provider: &'p str,
        operation: &'static str,
        kek_id: Option<KekId>,
    ) -> Self {
        Self {
            call: kms(namespace, provider, operation, kek_id),
            provider,
            operation,
            is_answered: false,
            #[cfg(feature = "metrics")]
            since: std::time::Instant::now(),
        }
    }

    /// Asks, and counts the answer.
    pub(crate) async fn ask<T>(mut self, question: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = question.instrument(self.call.0.clone()).await;
        self.is_answered = true;
        match &answer {
            Ok(_) => self.ended("ok", "none"),
            Err(error) => {
                let kind = error.kind().as_str();
                let failure = if let Error::Kms(fault) = error { fault.failure() } else { None };
                self.call.0.record("error_kind", kind);
                self.ended(kind, failure.map_or("none", KmsFailure::as_str));
            }
        }
        answer
    }

    fn ended(&self, outcome: &'static str, failure: &'static str) {
        self.call.0.record("outcome", outcome);
        self.call.0.record("failure", failure);
        let (provider, operation) = (self.provider, self.operation);
        add_labelled(
            Labelled::KmsRequests,
            &[("provider", provider), ("operation", operation), ("outcome", outcome), ("failure", failure)],
            1,
        );
        #[cfg(feature = "metrics")]
        counters::took(
            &[("provider", provider), ("operation", operation), ("outcome", outcome)],
            self.since.elapsed().as_secs_f64(),
        );
    }
}

impl Drop for KmsRequest<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.ended("dropped", "none");
        }
    }
}
