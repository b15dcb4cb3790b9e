//! Large pages are opened on several threads. Nobody can tell by the result, and nobody waits for a thread.

mod equality;
mod readers;
mod runtimes;
mod threads;

use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::schema::{EventSchema, SplitPart};
use eventseal::{
    AggregateVersion, Changes, GlobalPosition, Keyring, Namespace, NewEvent, PersistedEvent, Schemas, Sealer,
    aggregate, event, metadata,
};
use futures::executor::block_on;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use support::{customer, customer_scope};

/// A page of so many of these events is large, by far.
const MANY: usize = 300;

/// What makes the events as large as they are.
fn filler() -> String {
    "filler ".repeat(700)
}

/// A step that fails or panics if the payload tells it to, and tells others on which thread it runs.
#[derive(Default)]
struct Watch {
    threads: Mutex<HashSet<ThreadId>>,
    calls: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    /// How many calls wait a little for each other, so that they meet if they can.
    meet: AtomicUsize,
}

impl Watch {
    fn step(&self, mut old: Value) -> Result<Value, &'static str> {
        self.threads.lock().unwrap().insert(thread::current().id());
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        for _ in 0..100 {
            if self.now.load(Ordering::SeqCst) < self.meet.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        assert_ne!(old["is"], "a panic");
        if old["is"] == "a failure" {
            return Err("it is one");
        }
        old["contact"] = old["email"].take();
        Ok(old)
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn threads(&self) -> HashSet<ThreadId> {
        self.threads.lock().unwrap().clone()
    }
}

/// Every kind of event that readers meet. The steps are watched.
fn events(watch: &Arc<Watch>) -> Vec<EventSchema> {
    let watch = Arc::clone(watch);
    let part = |of: &Value| SplitPart::new("Registered", 1, of.clone());
    vec![
        event("Placed")
            .version(1)
            .protect(&["/email"], customer())
            .protect_metadata(&["/ip"], metadata("Customer", "/actor"))
            .version(2)
            .protect(&["/contact"], customer())
            .protect_metadata(&["/ip"], metadata("Customer", "/actor"))
            .upcast(1, move |old: Value| watch.step(old)),
        event("Registered").version(1).protect(&["/email"], customer()).redact_as("/email", "gone"),
        event("Joined")
            .version(1)
            .protect(&["/email"], customer())
            .split(1, &[("Registered", 1)], move |old, _| Ok::<_, &str>(vec![part(&old), part(&old)])),
        event("Moved")
            .version(1)
            .protect(&["/email"], customer())
            .version(2)
            .protect(&["/mail"], customer())
            .change(1, Changes::new().move_value("/email", "/mail")),
        event("Dropped").version(1).protect(&["/email"], customer()).drop_from(1),
        event("Plain").version(1),
    ]
}

fn schemas(watch: &Arc<Watch>) -> Schemas {
    Schemas::new(events(watch)).unwrap().with_older_appends()
}

/// An event of a customer.
fn new(event_type: &str, customer: &str, is: &str) -> NewEvent {
    let filler = filler();
    let payload = format!(r#"{{"customer":"{customer}","email":"{customer}@x","is":"{is}","filler":"{filler}"}}"#);
    let event = NewEvent::raw(event_type, 1, payload);
    match event_type {
        "Placed" => event.with_metadata(format!(r#"{{"actor":"{customer}","ip":"192.0.2.7"}}"#)),
        _ => event,
    }
}

/// A page of stored events, and the keys that open it.
struct Page {
    db: MemoryDb,
    keyring: Arc<Keyring>,
    stored: Vec<PersistedEvent>,
}

impl Page {
    fn of(new: &[NewEvent]) -> Self {
        let (db, keyring) = (MemoryDb::new(Namespace::new("test").unwrap()), Keyring::generate("main").unwrap());
        let mut page = Self { db, keyring: Arc::new(keyring), stored: Vec::new() };
        let writer = page.sealer(&Arc::default(), 1);
        let order = aggregate("Order", "1");
        let sealed = block_on(async {
            writer.keys().prepare(&mut page.db.begin()).await.unwrap();
            let mut tx = page.db.begin();
            let sealed = writer.seal(&mut tx, &order, new).await.unwrap().into_owned();
            tx.commit().unwrap();
            sealed
        });
        let stored = (1_i64..).zip(sealed).map(|(position, event)| {
            PersistedEvent::from_new(
                order.clone(),
                AggregateVersion::FIRST,
                GlobalPosition::try_from(position).unwrap(),
                event,
            )
        });
        page.stored = stored.collect();
        page
    }

    /// A page of events with a step.
    fn of_steps() -> Self {
        Self::of(&(0..MANY).map(|number| new("Placed", &(number % 3).to_string(), "fine")).collect::<Vec<_>>())
    }

    fn sealer(&self, watch: &Arc<Watch>, threads: usize) -> Sealer<MemoryTx> {
        Sealer::new(MemoryKeys::new(), Arc::clone(&self.keyring), schemas(watch)).open_on_threads(threads)
    }

    async fn open(&self, sealer: &Sealer<MemoryTx>) -> eventseal::Result<Vec<PersistedEvent>> {
        sealer.open(&mut self.db.begin(), self.stored.clone()).await
    }

    fn shred(&self, customer: &str) {
        let mut tx = self.db.begin();
        let writer = self.sealer(&Arc::default(), 1);
        block_on(writer.keys().shred(&mut tx, &customer_scope(customer), "request")).unwrap();
        tx.commit().unwrap();
    }

    fn disable(&self, customer: &str) {
        let mut tx = self.db.begin();
        let writer = self.sealer(&Arc::default(), 1);
        block_on(writer.keys().disable(&mut tx, &customer_scope(customer), "stop")).unwrap();
        tx.commit().unwrap();
    }
}
