//! Runs that stop, fail or are repeated.

use super::{ordered, placed, read_copy, rewrite, schemas, seen, small, with};
use eventseal::error::{EventFault, MaintenanceFault};
use eventseal::keys::KeyStore;
use eventseal::maintenance::{KeptBecause, RewriteProgress, Rewritten};
use eventseal::store::EventTable;
use eventseal::{Error, EventVersion, KeyScope, NewEvent, PersistedEvent};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use support::Deadline;
use support::backend::{Backend, Meddled};
use support::meddler::Trouble;
use support::sealing::CANARY;
use support::{on_every_database, whole};

on_every_database! {
    i4_a_disabled_key_stops_the_run_and_names_the_event,
    a_dry_run_writes_nothing_and_says_the_same,
    i11_nothing_that_does_not_open_is_committed,
    i8_i11_whatever_ends_in_the_middle_is_completed,
    i6_keys_are_committed_before_their_events,
    a_target_that_holds_something_else_is_refused,
}

async fn i4_a_disabled_key_stops_the_run_and_names_the_event<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    let target = B::Store::default();
    db.append(&store, "1", &[placed("ada"), placed("ada"), placed("ada"), placed("eve"), ordered("eve")]).await;
    db.disable(&store, "eve").await;
    let before = db.stored().await;
    for options in [with(small(), |options| options.dry_run = true), small()] {
        let stopped = rewrite(&db, &store, &copy, &target, &options).await.unwrap_err();
        let Error::Maintenance(MaintenanceFault::Unreadable(unreadable)) = &stopped else { panic!("{stopped:?}") };
        assert_eq!(
            (unreadable.event_id, matches!(unreadable.error, Error::Disabled { .. })),
            (before[3].event_id, true)
        );
        assert!(!whole(&stopped).contains(CANARY));
        assert_eq!(copy.stored().await.len(), if options.dry_run { 0 } else { 3 }, "what was done before stays");
    }
    db.enable(&store, "eve").await;
    assert_eq!(rewrite(&db, &store, &copy, &target, &small()).await.unwrap().rewritten, 1);
    assert!(seen(read_copy(&db, &copy).await.unwrap()) == seen(db.read_log(&store).await.unwrap()));

    // Unless it is told to copy what can't be read.
    let copy = B::make().await;
    db.disable(&store, "eve").await;
    db.append(&store, "1", &[NewEvent::raw("Broken", 1, "{}")]).await;
    let done =
        rewrite(&db, &store, &copy, &target, &with(small(), |options| options.copy_unreadable = true)).await.unwrap();
    assert_eq!((done.kept[&KeptBecause::Unreadable], done.rewritten), (3, 3));
    assert!(
        matches!(done.first_kept[0].error, Some(Error::Disabled { .. }))
            && matches!(done.first_kept[2].error, Some(Error::Event { fault: EventFault::Upcast { .. }, .. }))
    );
    db.enable(&store, "eve").await;
    assert!(copy.stored().await[3].payload == before[3].payload, "it can be read again when the stop is over");
    // A value that has to be sealed for somebody who is stopped.
    let copy = B::make().await;
    db.append_bare("2", &[ordered("eve")]).await;
    db.disable(&store, "eve").await;
    let stopped = rewrite(&db, &store, &copy, &target, &small()).await.unwrap_err();
    assert!(matches!(stopped, Error::Maintenance(MaintenanceFault::Unreadable(_))));
}

async fn a_dry_run_writes_nothing_and_says_the_same<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada"), NewEvent::raw("Gone", 1, "{}")]).await;
    db.append_bare("2", &[placed("new"), ordered("eve")]).await;
    db.shred(&store, "eve").await;
    let dry = rewrite(&db, &store, &copy, &B::Store::default(), &with(small(), |options| options.dry_run = true))
        .await
        .unwrap();
    assert!(copy.stored().await.is_empty());
    let mut connection = db.connect().await.unwrap();
    let history =
        store.keys().key_history(db.connection(&mut connection), &KeyScope::new("Customer", "new")).await.unwrap();
    assert!(history.is_none(), "a dry run makes no keys");
    drop(connection);
    let done = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await.unwrap();
    let numbers = |done: &Rewritten| (done.copied, done.rewritten, done.with_voids, done.kept.clone(), done.up_to);
    assert_eq!(numbers(&dry), numbers(&done));
    assert_eq!(done.kept, BTreeMap::from([(KeptBecause::Dropped, 1), (KeptBecause::OwnerShredded, 1)]));
    assert_eq!((done.copied, done.rewritten, done.with_voids), (1, 3, 1));
}

async fn i11_nothing_that_does_not_open_is_committed<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("eve"), ordered("ada")]).await;
    db.shred(&store, "eve").await;
    let target = Meddled::<B>::default();
    type Rows = Box<dyn Fn(&mut Vec<PersistedEvent>) + Send + Sync>;
    let other = |event: &mut PersistedEvent| event.created_at += Duration::from_secs(1);
    let changes: [(&str, Rows); 9] = [
        ("fewer", Box::new(|events| drop(events.pop()))),
        ("plaintext", Box::new(|events| events[0].payload = ordered("ada").into_payload())),
        (
            "another value",
            Box::new(|events| {
                let at = events[0].payload.iter().rposition(|byte| *byte == b'E').unwrap();
                events[0].payload[at] = b'F';
            }),
        ),
        ("another copy", Box::new(|events| events[2].payload.push(b' '))),
        (
            "a value in a void place",
            Box::new(|events| {
                let text = String::from_utf8(events[1].payload.clone()).unwrap();
                events[1].payload = text.replace("null", "1234").into_bytes();
            }),
        ),
        ("another time", Box::new(move |events| other(&mut events[1]))),
        ("another version", Box::new(|events| events[0].stored_version = EventVersion::new(7))),
        ("other metadata", Box::new(|events| events[0].metadata = Some(b"{}".to_vec()))),
        ("another id", Box::new(|events| events[2].event_id = uuid::Uuid::now_v7())),
    ];
    for (what, change) in changes {
        target.inserts(change);
        let refused = rewrite(&db, &store, &copy, &target, &small()).await;
        assert!(
            matches!(refused, Err(Error::Maintenance(MaintenanceFault::NotVerified { .. }))),
            "{what}: {refused:?}"
        );
        assert!(copy.stored().await.is_empty(), "{what}: something was committed");
    }
    target.peace();
    assert_eq!(rewrite(&db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
}

async fn i8_i11_whatever_ends_in_the_middle_is_completed<B: Backend>() {
    let fill = async |db: B| {
        let store = db.prepared(schemas()).await;
        // New ones every time.
        let [ada, eve, kim, new] = ["ada", "eve", "kim", "new"].map(|name| format!("{name}-{}", uuid::Uuid::now_v7()));
        db.append(&store, "1", &[placed(&ada), placed(&eve), ordered(&ada), placed(&kim)]).await;
        db.append_bare("2", &[placed(&new), NewEvent::raw("Gone", 1, "{}")]).await;
        db.shred(&store, &eve).await;
        db
    };
    let (mut db, mut copy) = (fill(B::make().await).await, B::make().await);
    let (calls, target_calls) = {
        let ((store, source), target) = (db.meddling(schemas()), Meddled::<B>::default());
        rewrite(&db, &store, &copy, &target, &small()).await.unwrap();
        (source.calls(), target.calls())
    };
    assert!(calls >= 6 && target_calls >= 8, "{calls} {target_calls}");
    for (in_target, call) in (0..calls).map(|call| (false, call)).chain((0..target_calls).map(|call| (true, call))) {
        for trouble in [Trouble::Fails, Trouble::FailsDone, Trouble::Hangs, Trouble::HangsDone] {
            (db, copy) = (fill(db.again().await).await, copy.again().await);
            let read = seen(db.read_log(&db.process(schemas())).await.unwrap());
            let ((store, source), target) = (db.meddling(schemas()), Meddled::<B>::default());
            if in_target { &target } else { &source }.trouble(call, trouble);
            let what = format!("{} {call} {trouble:?}", if in_target { "target" } else { "source" });
            {
                let (mut connection, mut other) = (db.connect().await.unwrap(), copy.connect().await.unwrap());
                let (options, mut progress) = (small(), |_: RewriteProgress<'_>| {});
                let rewriting = store.rewrite(
                    db.connection(&mut connection),
                    &target,
                    copy.connection(&mut other),
                    &options,
                    &mut progress,
                );
                let mut rewriting = std::pin::pin!(rewriting);
                let deadline = Deadline::of("for a rewrite to end or to hang");
                loop {
                    tokio::select! {
                        result = &mut rewriting => { assert!(result.is_err(), "{what}: it went on"); break }
                        () = deadline.look_again() => if source.hangs() || target.hangs() { break },
                    }
                }
            }
            assert!(
                seen(db.read_log(&db.process(schemas())).await.unwrap()) == read,
                "{what}: the source is what it was"
            );
            let part = seen(read_copy(&db, &copy).await.unwrap());
            assert!(part == read[..part.len()], "{what}: a shorter copy that is complete in itself");
            source.peace();
            target.peace();
            rewrite(&db, &store, &copy, &target, &small()).await.unwrap();
            assert!(seen(read_copy(&db, &copy).await.unwrap()) == read, "{what}: running it again completes it");
        }
    }
}

async fn i6_keys_are_committed_before_their_events<B: Backend + 'static>() {
    let (db, copy) = (std::sync::Arc::new(B::make().await), B::make().await);
    let store = db.prepared(schemas()).await;
    db.append_bare("1", &[placed("new"), placed("newer")]).await;
    let target = Meddled::<B>::default();
    let (looker, looked) = (std::sync::Arc::clone(&db), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let told = std::sync::Arc::clone(&looked);
    *target.state.before_write.lock().await = Some(Box::new(move || {
        let (db, told) = (std::sync::Arc::clone(&looker), std::sync::Arc::clone(&told));
        Box::pin(async move {
            // Somebody else, while the events are being inserted.
            let mut connection = db.connect().await.unwrap();
            for name in ["new", "newer"] {
                let history = B::Keys::default()
                    .history(db.connection(&mut connection), &KeyScope::new("Customer", name))
                    .await
                    .unwrap();
                assert_eq!(history.expect("I6: the key is not committed yet").keys.len(), 1);
            }
            told.store(true, std::sync::atomic::Ordering::SeqCst);
        })
    }));
    assert_eq!(rewrite(&*db, &store, &copy, &target, &small()).await.unwrap().rewritten, 2);
    assert!(looked.load(std::sync::atomic::Ordering::SeqCst));
}

async fn a_target_that_holds_something_else_is_refused<B: Backend>() {
    let (db, copy) = (B::make().await, B::make().await);
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("ada"), placed("ada"), placed("ada"), placed("eve"), ordered("eve")]).await;
    copy.append_bare("other", &[ordered("x")]).await;
    let refused = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await;
    assert!(
        matches!(refused, Err(Error::Maintenance(MaintenanceFault::ForeignTarget { position })) if position.get() == 1),
        "{refused:?}"
    );
    assert_eq!(copy.stored().await.len(), 1);
    // One that lacks an event in the middle.
    let copy = B::make().await;
    let mut stored = db.stored().await;
    stored.truncate(3);
    stored.remove(1);
    let mut transaction = copy.begin().await.unwrap();
    B::Store::default().insert_events(copy.tx(&mut transaction), &stored).await.unwrap();
    copy.commit(transaction).await.unwrap();
    let refused = rewrite(&db, &store, &copy, &B::Store::default(), &small()).await;
    assert!(
        matches!(refused, Err(Error::Maintenance(MaintenanceFault::IncompleteTarget { events: 5, copied: 4, .. }))),
        "{refused:?}"
    );
    let copy = B::make().await;
    let began = Instant::now();
    let options = with(small(), |options| options.events_per_second = NonZeroU32::new(20));
    assert_eq!(rewrite(&db, &store, &copy, &B::Store::default(), &options).await.unwrap().rewritten, 4);
    assert!(began.elapsed() >= Duration::from_millis(250), "it was not held back");
}
