//! How many threads work at a page, and where what they log belongs.

use super::{MANY, Page, Watch, new};
use eventseal::schema::{SplitPart, StepContext};
use eventseal::{Schemas, Sealer, event};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use support::customer;
use support::deadline::Deadline;
use tokio::runtime::Builder;
use tracing::field::{Field, Visit};
use tracing::{Event, Instrument, Subscriber, info_span};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

#[test]
fn the_limit_is_kept_and_reached() {
    let page = Page::of_steps();
    for limit in [0, 1, 2, 3] {
        let most = limit.max(1);
        let runtime = Builder::new_current_thread().build().unwrap();
        let watch = Arc::<Watch>::default();
        watch.meet.store(most, Ordering::SeqCst);
        let sealer = page.sealer(&watch, limit);
        let deadline = Deadline::of("for as many threads as may be");
        while watch.most.load(Ordering::SeqCst) < most {
            runtime.block_on(page.open(&sealer)).unwrap();
            deadline.check();
        }
        // Once more, so that more of them could meet.
        watch.meet.store(most + 1, Ordering::SeqCst);
        runtime.block_on(page.open(&sealer)).unwrap();
        assert_eq!(watch.most.load(Ordering::SeqCst), most, "limit {limit}");
        if limit < 2 {
            assert_eq!(watch.threads(), HashSet::from([thread::current().id()]));
        }
    }
}

thread_local! {
    static IS_READER: Cell<bool> = const { Cell::new(false) };
}

/// Many readers at once have no more helpers than one.
#[test]
fn readers_share_their_helpers() {
    const LIMIT: usize = 3;
    let page = Page::of(&(0..MANY).map(|_| new("Placed", "a", "fine")).collect::<Vec<_>>());
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&now), Arc::clone(&most));
    let split = move |old: Value, _: &StepContext<'_>| {
        if !IS_READER.get() {
            let (now, most) = &counted;
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::yield_now();
            now.fetch_sub(1, Ordering::SeqCst);
        }
        Ok::<_, &str>(vec![SplitPart::new("Parted", 1, old)])
    };
    let placed = event("Placed").version(1).protect(&["/email"], customer()).split(1, &[("Parted", 1)], split);
    let schemas = Schemas::new([placed, event("Parted").version(1).protect(&["/email"], customer())]).unwrap();
    let keys = eventseal::memory::MemoryKeys::new();
    let sealer = Sealer::new(keys, Arc::clone(&page.keyring), schemas).open_on_threads(LIMIT);
    let deadline = Deadline::of("for helpers");
    while most.load(Ordering::SeqCst) < LIMIT - 1 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    IS_READER.set(true);
                    let runtime = Builder::new_current_thread().build().unwrap();
                    assert_eq!(runtime.block_on(page.open(&sealer)).unwrap().len(), MANY);
                });
            }
        });
        deadline.check();
    }
    assert_eq!(most.load(Ordering::SeqCst), LIMIT - 1);
}

/// A page that is not worth it, however many threads may be.
#[test]
fn a_small_page_is_opened_by_its_reader() {
    let runtime = Builder::new_current_thread().build().unwrap();
    // Each of several parts, if it were cut.
    let small = Page::of(&(0..30).map(|_| new("Placed", "a", "fine")).collect::<Vec<_>>());
    // It has many bytes, and only one event.
    let mut long = new("Placed", "a", "fine");
    let payload = String::from_utf8(long.payload().to_vec()).unwrap().replace("filler ", &"filler ".repeat(500));
    long = eventseal::NewEvent::raw("Placed", 1, payload);
    let single = Page::of(&[long]);
    assert!(single.stored[0].payload.len() > 1_000_000);
    for page in [small, single] {
        let watch = Arc::<Watch>::default();
        watch.meet.store(2, Ordering::SeqCst);
        let sealer = page.sealer(&watch, 8);
        for _ in 0..20 {
            runtime.block_on(page.open(&sealer)).unwrap();
        }
        assert_eq!(watch.threads(), HashSet::from([thread::current().id()]));
    }
}

/// What was logged, with the spans in which it was logged from the innermost on, and the thread.
type Line = (String, Vec<&'static str>, ThreadId);

#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<Line>>>);

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Logged {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let spans = context.event_scope(event).into_iter().flatten().map(|span| span.name()).collect();
        self.0.lock().unwrap().push((message.0, spans, thread::current().id()));
    }
}

#[test]
fn what_helpers_log_belongs_to_the_span_of_the_reader() {
    let logged = Logged::default();
    // If there is one subscriber only, the first thread that comes by a place decides whether that is logged.
    let _second = tracing::Dispatch::new(Registry::default());
    let _guard = tracing::subscriber::set_default(Registry::default().with(logged.clone()));
    let page = Page::of_steps();
    let runtime = Builder::new_current_thread().build().unwrap();
    let placed = event("Placed").version(1).protect(&["/email"], customer()).version(2).protect_same_as(1).upcast(
        1,
        |old: Value| {
            tracing::info!("a step");
            thread::yield_now();
            Ok::<_, &str>(old)
        },
    );
    let schemas = Schemas::new([placed]).unwrap();
    let keys = eventseal::memory::MemoryKeys::new();
    let sealer = Sealer::new(keys, Arc::clone(&page.keyring), schemas).open_on_threads(2);
    let deadline = Deadline::of("for a second thread");
    let mut pages = 0;
    loop {
        runtime.block_on(page.open(&sealer).instrument(info_span!("reader"))).unwrap();
        pages += 1;
        let logged = logged.0.lock().unwrap();
        let steps: Vec<_> = logged.iter().filter(|(message, _, _)| message == "a step").collect();
        assert_eq!(steps.len(), pages * MANY, "nothing is lost");
        assert!(steps.iter().all(|(_, spans, _)| *spans == ["eventseal.open", "reader"]));
        if steps.iter().map(|(_, _, thread)| thread).collect::<HashSet<_>>().len() > 1 {
            break;
        }
        deadline.check();
    }
}
