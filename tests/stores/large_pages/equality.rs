//! What readers get does not depend on the number of threads: neither the events, nor the error, nor which one comes
//! first.

use super::{MANY, Page, Watch, new};
use eventseal::error::EventFault;
use eventseal::memory::MemoryTx;
use eventseal::{Error, PersistedEvent, Result, Sealer};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::deadline::Deadline;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

/// Everything that a reader can find out of events.
fn shown(events: &[PersistedEvent]) -> Vec<String> {
    let shown = events.iter().map(|event| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (payload, metadata) = (text(&event.payload), event.metadata.as_deref().map(text));
        let places = (event.sealed_places(), event.sealed_metadata_places());
        format!("{event:?} {payload} {metadata:?} {:?} {places:?}", event.created_at)
    });
    shown.collect()
}

fn outcome(opened: Result<Vec<PersistedEvent>>) -> Result<Vec<String>, String> {
    opened.map(|events| shown(&events)).map_err(|error| format!("{error} {error:?}"))
}

/// What every way to open a page comes to.
async fn all_ways(page: &Page, sealer: &Sealer<MemoryTx>) -> [Result<Vec<String>, String>; 3] {
    let (mut tx, events) = (page.db.begin(), || page.stored.clone());
    let each = sealer.open_each(&mut tx, events()).await.unwrap().into_iter().map(|opened| match opened {
        Ok(events) => shown(&events).join(" and "),
        Err(unreadable) => format!("{unreadable:?}"),
    });
    let each = Ok(each.collect());
    [each, outcome(sealer.open(&mut tx, events()).await), outcome(sealer.open_as_stored(&mut tx, events()).await)]
}

/// What is wrong with a stored event.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Nothing,
    Tampered,
    Unsealed,
    UnknownType,
    NoJson,
    Panics,
    Fails,
}

fn stored_event() -> impl Strategy<Value = (&'static str, &'static str, Wrong)> {
    let types = prop::sample::select(vec!["Placed", "Placed", "Registered", "Joined", "Moved", "Dropped", "Plain"]);
    let customers = prop::sample::select(vec!["a", "b", "c", "shredded"]);
    // Most pages have something wrong in them, and some have nothing.
    let wrong = prop_oneof![
        2_000 => Just(Wrong::Nothing),
        1 => Just(Wrong::Tampered),
        1 => Just(Wrong::Unsealed),
        1 => Just(Wrong::UnknownType),
        1 => Just(Wrong::NoJson),
        1 => Just(Wrong::Panics),
        1 => Just(Wrong::Fails),
    ];
    (types, customers, wrong)
}

fn spoil(event: &mut PersistedEvent, wrong: Wrong) {
    let payload = String::from_utf8(event.payload.clone()).unwrap();
    match wrong {
        Wrong::Nothing | Wrong::Panics | Wrong::Fails => {}
        Wrong::Tampered => event.payload = payload.replace(r#""email":""#, r#""email":"AAAA"#).into_bytes(),
        Wrong::Unsealed => event.payload = br#"{"customer":"a","email":"a@x"}"#.to_vec(),
        Wrong::UnknownType => event.stored_type = "Unknown".into(),
        Wrong::NoJson => event.payload = payload.as_bytes()[..payload.len() - 1].to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// On any page.
    #[test]
    fn a_page_comes_to_the_same_on_any_number_of_threads(
        kinds in prop::collection::vec(stored_event(), MANY..2 * MANY),
        disabled in prop::option::weighted(0.1, Just("c")),
        threads in 2_usize..6,
    ) {
        let is = |wrong| match wrong { Wrong::Panics => "a panic", Wrong::Fails => "a failure", _ => "fine" };
        let events: Vec<_> =
            kinds.iter().map(|(event_type, customer, wrong)| new(event_type, customer, is(*wrong))).collect();
        let mut page = Page::of(&events);
        for (event, (_, _, wrong)) in page.stored.iter_mut().zip(&kinds) {
            spoil(event, *wrong);
        }
        page.shred("shredded");
        disabled.into_iter().for_each(|customer| page.disable(customer));
        let runtime = runtime();
        let alone = runtime.block_on(all_ways(&page, &page.sealer(&Arc::default(), 1)));
        let together = runtime.block_on(all_ways(&page, &page.sealer(&Arc::default(), threads)));
        prop_assert_eq!(alone, together);
    }
}

/// However long the part takes that has it, and although a later part is done before.
#[test]
fn the_first_event_that_can_not_be_read_is_the_error() {
    let runtime = runtime();
    for (first, last) in [(0, MANY - 1), (MANY / 2 - 1, MANY / 2), (7, 8)] {
        let is = |number| match number {
            _ if number == first => "a panic",
            _ if number == last => "a failure",
            _ => "fine",
        };
        let page = Page::of(&(0..MANY).map(|number| new("Placed", "a", is(number))).collect::<Vec<_>>());
        for threads in [1, 2, 4] {
            let error = runtime.block_on(page.open(&page.sealer(&Arc::default(), threads))).unwrap_err();
            let Error::Event { event_id, fault: EventFault::Upcast { problem, .. } } = error else {
                panic!("{error:?}")
            };
            assert_eq!((event_id, &*problem), (page.stored[first].event_id, "it panicked"), "{threads} threads");
        }
    }
}

/// I10: a large page costs one look at the keys, and what it holds is opened once.
#[test]
fn every_event_is_upcast_once() {
    let (runtime, page) = (runtime(), Page::of_steps());
    let watch = Arc::<Watch>::default();
    watch.meet.store(2, Ordering::SeqCst);
    let sealer = page.sealer(&watch, 2);
    let deadline = Deadline::of("for a second thread");
    for pages in 1.. {
        runtime.block_on(page.open(&sealer)).unwrap();
        assert_eq!(watch.calls(), pages * MANY);
        if watch.threads().len() > 1 {
            break;
        }
        deadline.check();
    }
}
