//! What is counted of large pages, whose parts are opened on several threads. The recorders here hear the thread of the
//! reader alone, so what another thread counted by itself would be missing.

use super::*;
use eventseal::ExpectedVersion::Any;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
use eventseal::{
    AggregateRef, EventFilter, EventStore, EventStoreExt, GlobalPosition, Namespace, PageSize, SealedStore, aggregate,
};
use futures::TryStreamExt;
use futures::executor::block_on;
use serde_json::Value;
use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread::{self, ThreadId};
use support::deadline::Deadline;
use support::{KEYRING, customer_scope};
use tokio::runtime::{Builder, Runtime};

/// A page of so many events is cut into more than twenty parts.
const MANY: u64 = 240;

/// Customers, the second of whom is erased, and the third is disabled.
const LIVE: (&str, &str) = ("42", "fine");
const ERASED: (&str, &str) = ("43", "fine");
const DISABLED: (&str, &str) = ("44", "fine");
/// Its step fails.
const FAILS: (&str, &str) = ("42", "a failure");
/// Nothing of it is protected.
const PLAIN: (&str, &str) = ("", "");

/// What the step has seen.
#[derive(Default)]
struct Watch {
    threads: Mutex<HashSet<ThreadId>>,
    calls: AtomicU64,
}

impl Watch {
    fn step(&self, old: Value) -> Result<Value, &'static str> {
        self.threads.lock().unwrap().insert(thread::current().id());
        self.calls.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        if old["is"] == "a failure" { Err("it is one") } else { Ok(old) }
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// A store of a later deployment, which opens on so many threads. Its step is watched.
    fn store(self: &Arc<Self>, threads: usize) -> SealedStore<MemoryStore> {
        let watch = Arc::clone(self);
        let placed = event("Placed").version(1).protect(&["/name"], customer());
        let placed = placed.version(2).protect(&["/name"], customer()).upcast(1, move |old: Value| watch.step(old));
        store(Schemas::new([placed, event("Noted").version(1)]).unwrap()).open_on_threads(threads)
    }
}

fn store(schemas: Schemas) -> SealedStore<MemoryStore> {
    SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&KEYRING), schemas)
}

fn order() -> AggregateRef {
    aggregate("Order", "1")
}

/// A database with many events, which are of these kinds in turn.
fn filled(kinds: &[(&str, &str)]) -> MemoryDb {
    let filler = "filler ".repeat(700);
    let events = (0..MANY).zip(kinds.iter().cycle()).map(|(_, (customer, is))| match *customer {
        "" => noted(),
        customer => {
            let payload = format!(r#"{{"customer":"{customer}","name":"{NAME}","is":"{is}","filler":"{filler}"}}"#);
            NewEvent::raw("Placed", 1, payload)
        }
    });
    let (db, writer) = (MemoryDb::new(Namespace::new("test").unwrap()), store(old_schemas()));
    block_on(async {
        writer.keys().prepare(&mut db.begin()).await.unwrap();
        let mut tx = db.begin();
        writer.append(&mut tx, &order(), Any, &events.collect::<Vec<_>>()).await.unwrap();
        if kinds.contains(&ERASED) {
            writer.keys().shred(&mut tx, &customer_scope("43"), "request").await.unwrap();
        }
        if kinds.contains(&DISABLED) {
            writer.keys().disable(&mut tx, &customer_scope("44"), "stop").await.unwrap();
        }
        tx.commit().unwrap();
    });
    db
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Opened, redacted, plain; unreadable, by the kinds of these tests; steps.
fn counts(recorded: &Recorded) -> [u64; 6] {
    let count = |name: &str, labels: &[(&str, &str)]| recorded.count(&format!("eventseal_{name}_total"), labels);
    [
        count("events_opened", &[]),
        count("events_redacted", &[]),
        count("events_plain", &[("operation", "read")]),
        count("events_unreadable", &[("error_kind", "disabled")]),
        count("events_unreadable", &[("error_kind", "application")]),
        count("upcast_steps", &[]),
    ]
}

/// Reads on one thread, and on several until another one than the reader's has helped.
fn on_any_number_of_threads(read: impl Fn(&Runtime, &SealedStore<MemoryStore>, &Recorded, &Seen)) {
    let runtime = one_thread();
    for threads in [1, 3] {
        let deadline = Deadline::of("for a second thread");
        loop {
            let (recorded, seen, watch) = (Recorded::default(), Seen::default(), Arc::<Watch>::default());
            let (_recording, _listening) = (recorded.listen(), seen.listen());
            read(&runtime, &watch.store(threads), &recorded, &seen);
            if watch.threads.lock().unwrap().len() >= threads.min(2) {
                break;
            }
            deadline.check();
        }
    }
}

#[test]
fn the_events_of_a_large_page_are_counted_once_and_for_its_reader() {
    let db = filled(&[LIVE, ERASED, DISABLED, FAILS, PLAIN]);
    let fifth = MANY / 5;
    on_any_number_of_threads(|runtime, store, recorded, seen| {
        let (mut tx, all) = (db.begin(), EventFilter::default());
        let page = store.read_events_each(&mut tx, GlobalPosition::START, 1_000, &all);
        assert_eq!(runtime.block_on(page).unwrap().events.len() as u64, MANY);
        assert_eq!(counts(recorded), [2 * fifth, fifth, fifth, fifth, fifth, 3 * fifth]);
        assert_eq!(recorded.count("eventseal_errors_total", &[]), 0);
        let span = seen.span("eventseal.read_page");
        let fields = ["events", "redacted", "unreadable"].map(|name| span.field(name).unwrap().to_owned());
        assert_eq!(fields, [MANY, fifth, fifth].map(|count| count.to_string()));
    });
}

/// Steps fail in all parts. Those after the first may have been taken or not.
#[test]
fn the_step_that_fails_a_large_page_is_counted_once() {
    let db = filled(&[LIVE, FAILS]);
    on_any_number_of_threads(|runtime, store, recorded, seen| {
        runtime.block_on(store.read_stream(&mut db.begin(), &order())).unwrap_err();
        let [opened, redacted, plain, disabled, application, _] = counts(recorded);
        assert_eq!([opened, redacted, plain, disabled, application], [MANY, 0, 0, 0, 1]);
        assert_eq!(recorded.count("eventseal_errors_total", &[]), 1);
        let span = seen.span("eventseal.read_stream");
        assert_eq!((span.field("events"), span.field("error_kind")), (Some("240"), Some("application")));
    });
}

/// Each page is a call, and the last one finds nothing.
#[test]
fn the_events_of_a_stream_are_counted_once() {
    let db = filled(&[LIVE, ERASED, PLAIN]);
    let third = MANY / 3;
    on_any_number_of_threads(|runtime, store, recorded, seen| {
        let (mut tx, size) = (db.begin(), PageSize::try_from(100).unwrap());
        let events = store.aggregate_events(&mut tx, &order(), (..).into(), size).try_collect::<Vec<_>>();
        assert_eq!(runtime.block_on(events).unwrap().len() as u64, MANY);
        assert_eq!(counts(recorded), [third, third, third, 0, 0, 2 * third]);
        let spans = seen.spans("eventseal.read_stream");
        let read = spans.iter().map(|span| span.field("events").unwrap().parse::<u64>().unwrap());
        assert_eq!(read.collect::<Vec<_>>(), [100, 100, 40, 0]);
    });
}

/// The reader is dropped after it has opened a part of its page, and nobody helps it.
#[test]
fn what_a_dropped_reader_has_opened_is_counted() {
    let runtime = Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let other = runtime.spawn_blocking(move || ended.recv());
    let db = filled(&[LIVE]);
    let (recorded, seen, watch) = (Recorded::default(), Seen::default(), Arc::<Watch>::default());
    let (_recording, _listening) = (recorded.listen(), seen.listen());
    let store = watch.store(3);
    runtime.block_on(async {
        let (mut tx, order) = (db.begin(), order());
        let mut reading = pin!(store.read_stream(&mut tx, &order));
        while watch.calls() == 0 {
            assert!(poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending())).await);
        }
    });
    let done = watch.calls();
    assert!((1..MANY).contains(&done));
    assert_eq!(counts(&recorded), [done, 0, 0, 0, 0, done]);
    assert_eq!(seen.span("eventseal.read_stream").field("events"), Some(&*done.to_string()));
    drop(end);
    runtime.block_on(other).unwrap().unwrap_err();
}
