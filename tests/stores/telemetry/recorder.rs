//! A recorder of metrics for one thread, which a test can ask what was described and counted.

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What was described: the kind of the metric, its unit, and a sentence.
type Described = BTreeMap<String, (&'static str, Option<Unit>, String)>;

#[derive(Default)]
pub(super) struct Recorded {
    described: Mutex<Described>,
    counters: Mutex<BTreeMap<Key, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<Key, Arc<Samples>>>,
}

#[derive(Default)]
pub(super) struct Samples(Mutex<Vec<f64>>);

impl HistogramFn for Samples {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

/// A metric as the documentation lists it: its name, its kind and its labels.
pub(super) type Series = (String, &'static str, BTreeSet<String>);

impl Recorded {
    /// Records what this thread counts, as long as the result lives.
    pub(super) fn listen(&self) -> LocalRecorderGuard<'_> {
        set_default_local_recorder(self)
    }

    /// The sum of all series of a counter that have these labels.
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |key: &Key| {
            let found: BTreeSet<(&str, &str)> = key.labels().map(|label| (label.key(), label.value())).collect();
            key.name() == name && labels.iter().all(|label| found.contains(label))
        };
        let counters = self.counters.lock().unwrap();
        counters.iter().filter(|(key, _)| has(key)).map(|(_, count)| count.load(Ordering::SeqCst)).sum()
    }

    /// The values that a histogram got, and the labels of each series.
    pub(super) fn samples(&self, name: &str) -> Vec<(BTreeMap<String, String>, Vec<f64>)> {
        let histograms = self.histograms.lock().unwrap();
        let of_name = histograms.iter().filter(|(key, _)| key.name() == name);
        let samples = of_name.map(|(key, samples)| (labels_of(key), samples.0.lock().unwrap().clone()));
        samples.collect()
    }

    /// The metrics of which at least one series exists; if `counted`, one that was counted.
    pub(super) fn series(&self, counted: bool) -> BTreeSet<Series> {
        let counters = self.counters.lock().unwrap();
        let counted = counters.iter().filter(|(_, count)| !counted || count.load(Ordering::SeqCst) > 0);
        let counted = counted.map(|(key, _)| series("counter", key));
        let histograms = self.histograms.lock().unwrap();
        counted.chain(histograms.keys().map(|key| series("histogram", key))).collect()
    }

    pub(super) fn described(&self) -> Described {
        self.described.lock().unwrap().clone()
    }

    /// Everything that was recorded, in one text.
    pub(super) fn text(&self) -> String {
        let counters = self.counters.lock().unwrap();
        let histograms = self.histograms.lock().unwrap();
        format!("{:?} {:?} {:?}", self.described(), counters.keys(), histograms.keys())
    }

    fn describe(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        let told = (kind, unit, text.to_string());
        self.described.lock().unwrap().insert(name.as_str().to_owned(), told);
    }
}

fn labels_of(key: &Key) -> BTreeMap<String, String> {
    key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect()
}

fn series(kind: &'static str, key: &Key) -> Series {
    (key.name().to_owned(), kind, key.labels().map(|label| label.key().to_owned()).collect())
}

impl Recorder for Recorded {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe("counter", &key, unit, &description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe("gauge", &key, unit, &description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe("histogram", &key, unit, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.counters.lock().unwrap().entry(key.clone()).or_default()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("{} is a gauge, and the documentation has none", key.name())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(self.histograms.lock().unwrap().entry(key.clone()).or_default()))
    }
}
