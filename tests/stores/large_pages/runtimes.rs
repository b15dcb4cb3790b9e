//! A page is opened on any runtime and on none, and never waits for a thread that does not come.

use super::{MANY, Page, Watch};
use eventseal::PersistedEvent;
use futures::executor::block_on;
use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use support::deadline::{Deadline, in_time};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{spawn_blocking, yield_now};

fn one_thread() -> Builder {
    let mut builder = Builder::new_current_thread();
    builder.enable_time();
    builder
}

fn is_whole(events: &[PersistedEvent]) {
    assert_eq!(events.len(), MANY);
    assert!(events.iter().all(|event| event.payload.windows(9).any(|part| part == b"\"contact\"")));
}

/// Opens the page until more than the reader's thread has worked at it.
fn until_helped(runtime: &Runtime, page: &Page) {
    let watch = Arc::<Watch>::default();
    watch.meet.store(2, Ordering::SeqCst);
    let sealer = page.sealer(&watch, 2);
    let deadline = Deadline::of("for a second thread");
    while watch.threads().len() < 2 {
        is_whole(&runtime.block_on(in_time("for a page", page.open(&sealer))).unwrap());
        deadline.check();
    }
    assert!(watch.threads().contains(&thread::current().id()), "the reader takes part");
}

#[test]
fn a_runtime_of_one_thread_opens_on_several() {
    until_helped(&one_thread().build().unwrap(), &Page::of_steps());
}

#[test]
fn a_runtime_of_several_threads_opens_on_several() {
    until_helped(&Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap(), &Page::of_steps());
}

#[test]
fn without_a_runtime_the_reader_opens_alone() {
    let (page, watch) = (Page::of_steps(), Arc::<Watch>::default());
    is_whole(&block_on(page.open(&page.sealer(&watch, 4))).unwrap());
    assert_eq!(watch.threads(), HashSet::from([thread::current().id()]));
}

/// Something else keeps the only thread for blocking work.
#[test]
fn a_full_pool_is_not_waited_for() {
    let runtime = one_thread().max_blocking_threads(1).build().unwrap();
    let (page, watch) = (Page::of_steps(), Arc::<Watch>::default());
    let sealer = page.sealer(&watch, 4);
    let (end, ended) = mpsc::channel::<()>();
    let other = runtime.spawn_blocking(move || ended.recv());
    for _ in 0..3 {
        is_whole(&runtime.block_on(in_time("for a page", page.open(&sealer))).unwrap());
    }
    assert_eq!(watch.threads(), HashSet::from([thread::current().id()]));
    drop(end);
    runtime.block_on(other).unwrap().unwrap_err();
}

/// The reader itself keeps the only thread for blocking work.
#[test]
fn a_reader_on_the_only_blocking_thread_does_not_wait_for_itself() {
    for mut builder in [one_thread(), Builder::new_multi_thread()] {
        let runtime = builder.enable_time().max_blocking_threads(1).build().unwrap();
        let page = Arc::new(Page::of_steps());
        let read = async {
            let runtime = Handle::current();
            let read = move || {
                let sealer = page.sealer(&Arc::default(), 4);
                is_whole(&runtime.block_on(page.open(&sealer)).unwrap());
            };
            in_time("for a page", spawn_blocking(read)).await.unwrap();
        };
        runtime.block_on(read);
    }
}

/// The system gives the runtime no more threads. Tokio's panic is in the log of the test, and nowhere else.
#[test]
fn no_thread_left_is_no_error() {
    let runtime = one_thread().thread_stack_size(1 << 60).build().unwrap();
    let (page, watch) = (Page::of_steps(), Arc::<Watch>::default());
    is_whole(&runtime.block_on(in_time("for a page", page.open(&page.sealer(&watch, 4)))).unwrap());
    assert_eq!(watch.threads(), HashSet::from([thread::current().id()]));
}

/// Other tasks of the reader's thread go on meanwhile, even if no helper comes.
#[test]
fn other_tasks_go_on_meanwhile() {
    let runtime = one_thread().max_blocking_threads(1).build().unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let _other = runtime.spawn_blocking(move || ended.recv());
    let page = Page::of_steps();
    let beside = |threads| {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        runtime.block_on(async {
            let other = tokio::spawn(async move {
                loop {
                    counted.fetch_add(1, Ordering::SeqCst);
                    yield_now().await;
                }
            });
            is_whole(&page.open(&page.sealer(&Arc::default(), threads)).await.unwrap());
            let turns = turns.load(Ordering::SeqCst);
            other.abort();
            turns
        })
    };
    assert_eq!(beside(1), 0, "on one thread, the page is opened in one go");
    assert!(beside(2) > 2 * 3, "the reader yields after each part");
    drop(end);
}

/// A reader that goes away leaves no key and no plaintext behind, even if helpers have not begun yet.
#[test]
fn a_reader_that_is_dropped_leaves_nothing_behind() {
    let runtime = one_thread().max_blocking_threads(1).build().unwrap();
    let (end, ended) = mpsc::channel::<()>();
    let _other = runtime.spawn_blocking(move || ended.recv());
    let page = Page::of_steps();
    for is_looked_up in [false, true] {
        let watch = Arc::<Watch>::default();
        let sealer = page.sealer(&watch, 4);
        runtime.block_on(async {
            let mut reading = pin!(page.open(&sealer));
            assert!(poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending())).await);
            // The keys were looked up, and a part was opened.
            while is_looked_up && watch.calls() == 0 {
                assert!(poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending())).await);
            }
            assert!(watch.calls() < MANY && is_looked_up == (watch.calls() > 0));
        });
        // The step belongs to the schemas, which the work holds with the keys.
        drop(sealer);
        assert_eq!(Arc::strong_count(&watch), 1);
    }
    drop(end);
}

/// A helper that is at work when its reader goes away comes to its end.
#[test]
fn a_helper_of_a_reader_that_is_dropped_ends() {
    let runtime = one_thread().build().unwrap();
    let (page, watch) = (Page::of_steps(), Arc::<Watch>::default());
    watch.meet.store(2, Ordering::SeqCst);
    let deadline = Deadline::of("for a helper to end");
    while watch.threads().len() < 2 {
        let sealer = page.sealer(&watch, 2);
        runtime.block_on(async {
            let mut reading = pin!(page.open(&sealer));
            let calls = watch.calls();
            while watch.calls() == calls {
                assert!(poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending())).await);
            }
        });
        drop(sealer);
        while Arc::strong_count(&watch) > 1 {
            deadline.check();
            thread::yield_now();
        }
    }
    assert!(watch.calls() < MANY * watch.threads().len());
}
