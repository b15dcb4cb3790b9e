//! Does the work of a large page on several threads, without keeping the runtime from its other tasks.
//!
//! The work is a pure function of the parts of a page. They lie in one queue. The task that reads the page takes parts
//! from it, and yields to its runtime after each. Helpers on the runtime's threads for blocking work take parts too.
//! The task waits for what a helper has begun, and never for a helper to begin. So it comes to its end even if no
//! thread is ever free, and without a runtime there are no helpers.
//!
//! A helper holds nothing of a page but a weak reference until it takes a part. If the page is done, or its reader was
//! dropped, a helper that comes late finds nothing to do. So keys and plaintext live no longer than on one thread.

use crate::event::PersistedEvent;
use crate::schema::Schemas;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::yield_now;
use tracing::{Dispatch, Span, dispatcher};

/// What an event weighs beside its bytes: deriving its keys takes as long as opening so many bytes more.
const EVENT: usize = 1_024;
/// A page that weighs less is opened by its reader alone: the helpers would come too late.
const LARGE: usize = 256 * 1_024;
/// What a part of a page weighs. Its reader does not yield while it opens one.
const PART: usize = 32 * 1_024;
/// The most threads, if the user sets no limit.
const MOST: usize = 8;

/// The threads on which the pages of a sealer are opened.
pub(super) struct Threads {
    /// The user's limit.
    limit: Option<usize>,
    /// A permit for each helper. There are none before the first large page.
    helpers: OnceLock<Arc<Semaphore>>,
}

impl Threads {
    /// With a limit, or as many threads as there are cores.
    pub(super) const fn new(limit: Option<usize>) -> Self {
        Self { limit, helpers: OnceLock::new() }
    }

    /// Does it pay to open these events on several threads, and can it be done?
    pub(super) fn pay<E: Borrow<PersistedEvent>>(&self, schemas: &Schemas, events: &[E]) -> bool {
        let are_large = |weighs: &dyn Fn(&PersistedEvent) -> usize| {
            let mut left = LARGE;
            events.iter().any(|event| {
                left = left.saturating_sub(weighs(event.borrow()));
                left == 0
            })
        };
        let expected = |event: &PersistedEvent| if schemas.expects_work(event) { weight(event) } else { 0 };
        events.len() > 1
            && are_large(&weight)
            && are_large(&expected)
            && self.limit() > 1
            && Handle::try_current().is_ok()
    }

    /// Cuts a page into parts, each of consecutive events.
    pub(super) fn cut(events: Vec<PersistedEvent>) -> Vec<Vec<PersistedEvent>> {
        let mut parts: Vec<Vec<PersistedEvent>> = Vec::new();
        let mut left = 0;
        for event in events {
            let weight = weight(&event);
            match parts.last_mut().filter(|_| left > 0) {
                Some(part) => part.push(event),
                None => {
                    parts.push(vec![event]);
                    left = PART;
                }
            }
            left = left.saturating_sub(weight);
        }
        parts
    }

    /// Does this work for each part. The results are in the order of the parts. If the work panics, so does this call,
    /// with the panic of the first such part.
    pub(super) async fn spread<T, R>(&self, parts: Vec<T>, work: impl Fn(T) -> R + Send + Sync + 'static) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let helpers = self.helpers(parts.len().saturating_sub(1));
        let (parts, results): (VecDeque<_>, Vec<_>) = parts
            .into_iter()
            .map(|part| {
                let (done, result) = oneshot::channel();
                ((part, done), result)
            })
            .unzip();
        let queue = Queue { parts, work: Some(Arc::new(work)), surroundings: Surroundings::here() };
        let queue = Arc::new(Mutex::new(queue));
        for permit in helpers {
            let queue = Arc::downgrade(&queue);
            let help = move || {
                while let Some(task) = queue.upgrade().and_then(|queue| take(&queue)) {
                    task.run(false);
                }
                drop(permit);
            };
            if !start(help) {
                break;
            }
        }
        while let Some(task) = take(&queue) {
            task.run(true);
            yield_now().await;
        }
        drop(queue);
        let mut done = Vec::with_capacity(results.len());
        for result in results {
            done.push(match result.await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => resume_unwind(panic),
                // Whoever takes a part sends its result, whatever happens.
                Err(_) => resume_unwind(Box::new("a part of a page was lost: this is a bug, please report it")),
            });
        }
        done
    }

    fn limit(&self) -> usize {
        static CORES: OnceLock<usize> = OnceLock::new();
        let cores = || thread::available_parallelism().map_or(1, usize::from).min(MOST);
        self.limit.unwrap_or_else(|| *CORES.get_or_init(cores))
    }

    /// Permits for at most so many helpers. All pages that are opened at the same time share them.
    fn helpers(&self, most: usize) -> Vec<OwnedSemaphorePermit> {
        let permits = || Arc::new(Semaphore::new(self.limit().saturating_sub(1).min(Semaphore::MAX_PERMITS)));
        let helpers = self.helpers.get_or_init(permits);
        (0..most).map_while(|_| Arc::clone(helpers).try_acquire_owned().ok()).collect()
    }
}

fn weight(event: &PersistedEvent) -> usize {
    EVENT + event.payload.len() + event.metadata.as_ref().map_or(0, Vec::len)
}

/// Has a thread for blocking work do this, if the runtime has one or gets one.
fn start(help: impl FnOnce() + Send + 'static) -> bool {
    let Ok(runtime) = Handle::try_current() else { return false };
    // It panics if the system has no thread left. Opening goes on without helpers then.
    catch_unwind(AssertUnwindSafe(|| drop(runtime.spawn_blocking(help)))).is_ok()
}

/// The parts of a page that nobody has taken yet.
struct Queue<T, R, F> {
    parts: VecDeque<(T, Sender<R>)>,
    /// Gone with the last part.
    work: Option<Arc<F>>,
    surroundings: Surroundings,
}

type Sender<R> = oneshot::Sender<thread::Result<R>>;

/// A part that somebody took.
struct Task<T, R, F> {
    part: T,
    done: Sender<R>,
    work: Arc<F>,
    surroundings: Surroundings,
}

fn take<T, R, F>(queue: &Mutex<Queue<T, R, F>>) -> Option<Task<T, R, F>> {
    // Nothing that can panic is done under the lock.
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let (part, done) = queue.parts.pop_front()?;
    let work = if queue.parts.is_empty() { queue.work.take()? } else { Arc::clone(queue.work.as_ref()?) };
    Some(Task { part, done, work, surroundings: queue.surroundings.clone() })
}

impl<T, R, F: Fn(T) -> R> Task<T, R, F> {
    /// Does the work. `is_here` says that this is the thread of the reader.
    fn run(self, is_here: bool) {
        let Self { part, done, work, surroundings } = self;
        let caught = || catch_unwind(AssertUnwindSafe(|| work(part)));
        let result = if is_here { caught() } else { surroundings.enter(caught) };
        // The reader goes on with the last result, so nothing of the page may be left here by then.
        drop((work, surroundings));
        drop(done.send(result));
    }
}

/// Where what is logged belongs.
#[derive(Clone)]
struct Surroundings {
    subscriber: Dispatch,
    span: Span,
}

impl Surroundings {
    fn here() -> Self {
        Self { subscriber: dispatcher::get_default(Dispatch::clone), span: Span::current() }
    }

    fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        dispatcher::with_default(&self.subscriber, || self.span.in_scope(work))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::Any;
    use tokio::runtime::{Builder, Runtime};

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn the_panic_of_the_first_part_goes_on_in_the_reader() {
        let (runtime, threads) = (runtime(), Threads::new(Some(3)));
        for _ in 0..100 {
            let work = |part: usize| if part == 3 || part == 17 { resume_unwind(Box::new(part)) } else { part };
            let spread = threads.spread((0..20).collect(), work);
            let panic: Box<dyn Any> = catch_unwind(AssertUnwindSafe(|| runtime.block_on(spread))).unwrap_err();
            assert_eq!(panic.downcast_ref::<usize>(), Some(&3));
        }
        let whole = runtime.block_on(threads.spread((0..20).collect(), |part: usize| part * part));
        assert_eq!(whole, (0..20).map(|part| part * part).collect::<Vec<_>>());
    }

    /// The work holds the keys.
    #[test]
    fn nothing_of_a_page_that_is_done_is_left_on_a_thread() {
        let (runtime, threads, reader) = (runtime(), Threads::new(Some(2)), thread::current().id());
        let mut by_helpers = 0;
        for _ in 0..100_000 {
            let keys = Arc::new(());
            let held = Arc::clone(&keys);
            let work = move |_: usize| {
                (0..20).for_each(|_| thread::yield_now());
                (Arc::strong_count(&held), thread::current().id())
            };
            let done = runtime.block_on(threads.spread((0..8).collect(), work));
            assert_eq!(Arc::strong_count(&keys), 1);
            by_helpers += usize::from(done.last().is_some_and(|(_, thread)| *thread != reader));
            if by_helpers == 500 {
                return;
            }
        }
        panic!("helpers did the last part {by_helpers} times");
    }
}
