//! The metrics: their names, what they say, and how they are recorded. Without the feature `metrics` nothing is
//! recorded.
//!
//! Counters without labels, or with labels that are known here, have their keys made when this is compiled. So they
//! cost no allocation, whether anybody records or not. The others are for what is rare.

#[cfg(feature = "metrics")]
use crate::error::ErrorKind;
#[cfg(feature = "metrics")]
use metrics::{Key, Label, Level, Metadata, Unit, with_recorder};

#[cfg(feature = "metrics")]
static METADATA: Metadata<'_> = Metadata::new("eventseal", Level::INFO, None);

/// A counter, or one series of a counter that has labels.
pub(super) struct Counter {
    #[cfg(feature = "metrics")]
    key: Key,
    #[cfg(feature = "metrics")]
    about: &'static str,
}

impl Counter {
    #[cfg(feature = "metrics")]
    pub(super) fn add(&self, count: u64) {
        if count > 0 {
            with_recorder(|recorder| recorder.register_counter(&self.key, &METADATA)).increment(count);
        }
    }

    #[cfg(not(feature = "metrics"))]
    #[allow(clippy::unused_self, reason = "nobody counts")]
    pub(super) fn add(&self, _: u64) {}
}

macro_rules! counters {
    ($($counter:ident = $name:literal $({ $label:literal: $value:literal })?, $about:literal;)*) => {
        $(
            pub(super) static $counter: Counter = Counter {
                #[cfg(feature = "metrics")]
                key: {
                    const LABELS: &[Label] = &[$(Label::from_static_parts($label, $value))?];
                    Key::from_static_parts($name, LABELS)
                },
                #[cfg(feature = "metrics")]
                about: $about,
            };
        )*

        #[cfg(feature = "metrics")]
        static ALL: &[&Counter] = &[$(&$counter),*];
    };
}

counters! {
    APPENDS_PLAIN = "eventseal_appends_total" { "path": "plain" }, "Appends of a sealed store, by how they were done.";
    APPENDS_ONE_STATEMENT = "eventseal_appends_total" { "path": "one_statement" },
        "Appends of a sealed store, by how they were done.";
    APPENDS_TWO_STEPS = "eventseal_appends_total" { "path": "two_steps" },
        "Appends of a sealed store, by how they were done.";
    APPENDS_FELL_BACK = "eventseal_appends_total" { "path": "fell_back" },
        "Appends of a sealed store, by how they were done.";
    EVENTS_SEALED = "eventseal_events_sealed_total", "Events appended of which something was sealed.";
    EVENTS_OPENED = "eventseal_events_opened_total", "Stored events read whose seals were all opened.";
    EVENTS_REDACTED = "eventseal_events_redacted_total", "Stored events read of which something is redacted.";
    EVENTS_PLAIN_APPENDED = "eventseal_events_plain_total" { "operation": "append" },
        "Events appended or read of which nothing is sealed.";
    EVENTS_PLAIN_READ = "eventseal_events_plain_total" { "operation": "read" },
        "Events appended or read of which nothing is sealed.";
    VALUES_SEALED = "eventseal_values_sealed_total", "Values outside of events that were sealed.";
    VALUES_OPENED = "eventseal_values_opened_total", "Values outside of events that were opened.";
    VALUES_REDACTED = "eventseal_values_redacted_total", "Values outside of events that were read and are redacted.";
    DATA_KEY_HITS = "eventseal_data_key_cache_hits_total", "Data keys needed that were unwrapped in the cache.";
    DATA_KEY_MISSES = "eventseal_data_key_cache_misses_total", "Data keys needed that had to be unwrapped.";
    KEK_HITS = "eventseal_kek_cache_hits_total", "Key-encryption keys needed that were open in the cache.";
    KEK_MISSES = "eventseal_kek_cache_misses_total", "Key-encryption keys needed that were not open.";
    DATA_KEYS_CREATED = "eventseal_data_keys_created_total", "Data keys created.";
    DATA_KEYS_SHREDDED = "eventseal_data_keys_shredded_total", "Data keys destroyed by shreds.";
    SCOPES_SHREDDED = "eventseal_scopes_shredded_total", "Shreds of a key scope.";
    KEKS_CREATED = "eventseal_keks_created_total", "Key-encryption keys created.";
}

/// A counter whose labels are known only when it is counted.
#[derive(Clone, Copy)]
pub(super) enum Labelled {
    Errors,
    Unreadable,
    KmsRequests,
}

#[cfg(feature = "metrics")]
impl Labelled {
    const ALL: [Self; 3] = [Self::Errors, Self::Unreadable, Self::KmsRequests];

    const fn name(self) -> &'static str {
        match self {
            Self::Errors => "eventseal_errors_total",
            Self::Unreadable => "eventseal_events_unreadable_total",
            Self::KmsRequests => "eventseal_kms_requests_total",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Errors => "Calls that failed, by the kind of their error.",
            Self::Unreadable => "Stored events that a read met and that can't be read, by the kind of the error.",
            Self::KmsRequests => "Requests to the KMS, by their outcome.",
        }
    }
}

#[cfg(feature = "metrics")]
pub(super) const STEPS: &str = "eventseal_upcast_steps_total";
#[cfg(feature = "metrics")]
const KMS_DURATION: &str = "eventseal_kms_request_duration_seconds";

#[cfg(feature = "metrics")]
pub(super) fn add_labelled(counter: Labelled, labels: &[(&'static str, &str)], count: u64) {
    add(&key(counter.name(), labels), count);
}

#[cfg(not(feature = "metrics"))]
pub(super) fn add_labelled(_: Labelled, _: &[(&'static str, &str)], _: u64) {}

/// Counts under a key that was made before.
#[cfg(feature = "metrics")]
pub(super) fn add(key: &Key, count: u64) {
    with_recorder(|recorder| recorder.register_counter(key, &METADATA)).increment(count);
}

/// Records how long a request to the KMS took.
#[cfg(feature = "metrics")]
pub(super) fn took(labels: &[(&'static str, &str)], seconds: f64) {
    let key = key(KMS_DURATION, labels);
    with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)).record(seconds);
}

#[cfg(feature = "metrics")]
pub(super) fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

/// Tells the recorder what the metrics are, and creates all series whose labels are known: a counter that appears with
/// its first error would not be seen to rise. May be called again.
#[cfg(feature = "metrics")]
pub(crate) fn describe() {
    with_recorder(|recorder| {
        for counter in ALL {
            recorder.describe_counter(counter.key.name_shared(), Some(Unit::Count), counter.about.into());
            recorder.register_counter(&counter.key, &METADATA).increment(0);
        }
        for counter in Labelled::ALL {
            recorder.describe_counter(counter.name().into(), Some(Unit::Count), counter.about().into());
        }
        for counter in [Labelled::Errors, Labelled::Unreadable] {
            for kind in ErrorKind::ALL {
                let key = key(counter.name(), &[("error_kind", kind.as_str())]);
                recorder.register_counter(&key, &METADATA).increment(0);
            }
        }
        let about = "Steps that brought stored events up to date, by the type and version that they lead from.";
        recorder.describe_counter(STEPS.into(), Some(Unit::Count), about.into());
        let about = "How long requests to the KMS took.";
        recorder.describe_histogram(KMS_DURATION.into(), Some(Unit::Seconds), about.into());
    });
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn describe() {}
