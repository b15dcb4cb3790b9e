//! Scheduled shreds: what happens until they come due.

use super::{commit, in_a_year, is_scope_state, placed, reads, schemas, soon, sweep, until};
use eventseal::erasure::ShredMode;
use eventseal::error::{ErrorKind, InputFault};
use eventseal::keys::ScopeState;
use eventseal::maintenance::RewriteOptions;
use eventseal::{Changes, Error, Schemas, event};
use support::backend::Backend;
use support::{customer, customer_scope, on_every_database};
use time::OffsetDateTime;

on_every_database! {
    appends_and_reads_go_on_or_not_as_the_schedule_says,
    a_cancelled_schedule_leaves_no_trace_but_the_history,
    what_a_schedule_stops_is_not_enabled,
    schedules_that_make_no_sense_are_refused,
    maintenance_destroys_nothing_that_is_only_withheld,
}

async fn appends_and_reads_go_on_or_not_as_the_schedule_says<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for id in ["1", "2", "3"] {
        db.append(&store, id, &[placed(id)]).await;
    }
    let due = soon();
    for (id, mode) in [("1", ShredMode::KeepWorking), ("2", ShredMode::Disable), ("3", ShredMode::Redact)] {
        let schedule = commit!(db, store, schedule_shred(&customer_scope(id), due, mode, "request")).unwrap();
        assert_eq!((schedule.mode, schedule.reason.as_str()), (mode, "request"));
        let mut transaction = db.begin().await.unwrap();
        let found = store.keys().schedule_of(db.tx(&mut transaction), &customer_scope(id)).await.unwrap();
        db.roll_back(transaction).await;
        assert_eq!(found, Some(schedule));
    }
    // A process with a warm cache, and one with a cold one.
    for process in [&store, &db.process(schemas())] {
        assert_eq!(reads(&db, process, "1").await.unwrap(), "values");
        assert!(matches!(reads(&db, process, "2").await, Err(Error::Disabled { .. })));
        assert_eq!(reads(&db, process, "3").await.unwrap(), "stand-ins");
        db.append(process, "1", &[placed("1")]).await;
        for id in ["2", "3"] {
            let refused = db.try_append(process, id, &[placed(id)]).await.map(drop);
            assert!(matches!(refused, Err(Error::Disabled { .. })), "{refused:?}");
        }
    }
    let states = async |store| {
        let mut states = Vec::new();
        for id in ["1", "2", "3"] {
            states.push(db.history(store, id).await.unwrap().state);
        }
        states
    };
    assert_eq!(states(&store).await, [ScopeState::Live, ScopeState::Disabled, ScopeState::Withheld]);
    until(due).await;
    assert_eq!(reads(&db, &store, "1").await.unwrap(), "values", "nothing is done before a sweep");
    assert_eq!(sweep(&db, &store).await.unwrap().shredded, 3);
    assert_eq!(states(&store).await, [ScopeState::Shredded; 3]);
    for id in ["1", "2", "3"] {
        assert_eq!(reads(&db, &store, id).await.unwrap(), "stand-ins");
        let history = db.history(&store, id).await.unwrap();
        assert!(history.due.is_none() && history.keys.iter().all(|key| key.shredded_at.is_some()));
        let [schedule, shred] = &history.entries[..] else { panic!("{:?}", history.entries) };
        assert_eq!((shred.about, shred.reason.as_str()), (Some(schedule.entry_id), "request"));
        assert_eq!(shred.keys.len(), history.keys.len());
    }
}

async fn a_cancelled_schedule_leaves_no_trace_but_the_history<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    let due = in_a_year();
    for (id, mode) in [("1", ShredMode::KeepWorking), ("2", ShredMode::Disable), ("3", ShredMode::Redact)] {
        let scope = customer_scope(id);
        db.append(&store, id, &[placed(id)]).await;
        commit!(db, store, schedule_shred(&scope, due, mode, "request")).unwrap();
        commit!(db, store, cancel(&scope, "withdrawn")).unwrap();
        assert_eq!(reads(&db, &store, id).await.unwrap(), "values");
        db.append(&store, id, &[placed(id)]).await;
        assert!(is_scope_state(commit!(db, store, cancel(&scope, "twice"))));
    }
    // What was disabled before stays so, and so does what somebody changed meanwhile.
    for (id, disable_first) in [("4", true), ("5", false)] {
        let scope = customer_scope(id);
        db.append(&store, id, &[placed(id)]).await;
        if disable_first {
            db.disable(&store, id).await;
        }
        commit!(db, store, schedule_shred(&scope, due, ShredMode::KeepWorking, "request")).unwrap();
        if !disable_first {
            db.disable(&store, id).await;
        }
        commit!(db, store, cancel(&scope, "withdrawn")).unwrap();
        assert_eq!(db.history(&store, id).await.unwrap().state, ScopeState::Disabled);
    }
    // One that was disabled and enabled again keeps its schedule.
    db.append(&store, "6", &[placed("6")]).await;
    let due = soon();
    commit!(db, store, schedule_shred(&customer_scope("6"), due, ShredMode::KeepWorking, "request")).unwrap();
    db.disable(&store, "6").await;
    db.enable(&store, "6").await;
    assert_eq!(reads(&db, &store, "6").await.unwrap(), "values");
    until(due).await;
    let swept = sweep(&db, &store).await.unwrap();
    assert_eq!((swept.shredded, swept.failed.len()), (1, 0), "the cancelled ones are not due");
    assert_eq!(reads(&db, &store, "6").await.unwrap(), "stand-ins");
}

/// Whom a schedule keeps from readers comes back with the end of the schedule only.
async fn what_a_schedule_stops_is_not_enabled<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    for (id, mode) in [("1", ShredMode::Disable), ("2", ShredMode::Redact)] {
        let scope = customer_scope(id);
        db.append(&store, id, &[placed(id)]).await;
        commit!(db, store, schedule_shred(&scope, in_a_year(), mode, "request")).unwrap();
        let state = db.history(&store, id).await.unwrap().state;
        let refused = commit!(db, store, enable(&scope, "r"));
        assert!(refused.as_ref().unwrap_err().to_string().contains("cancel that"), "{refused:?}");
        assert!(is_scope_state(refused));
        assert_eq!(db.history(&store, id).await.unwrap().state, state);
        let said = db.try_append(&store, id, &[placed(id)]).await.map(drop).unwrap_err();
        assert!(said.to_string().contains("or cancel() if a shred is scheduled"), "{said}");
        commit!(db, store, cancel(&scope, "withdrawn")).unwrap();
        assert_eq!(reads(&db, &store, id).await.unwrap(), "values");
    }
}

async fn schedules_that_make_no_sense_are_refused<B: Backend>() {
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed("1"), placed("2"), placed("3")]).await;
    let (one, two, three) = (customer_scope("1"), customer_scope("2"), customer_scope("3"));
    let keep = ShredMode::KeepWorking;
    let refused = commit!(db, store, schedule_shred(&one, OffsetDateTime::UNIX_EPOCH, keep, "r"));
    assert!(matches!(refused, Err(Error::Input(InputFault::Time { .. }))), "{refused:?}");
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("is 1970-01-01T00:00:00Z, which has passed: "), "{said}");
    let unknown = commit!(db, store, schedule_shred(&customer_scope("unknown"), in_a_year(), keep, "r"));
    assert!(is_scope_state(unknown), "a misspelled id must not look like a schedule");
    commit!(db, store, schedule_shred(&one, in_a_year(), keep, "r")).unwrap();
    assert!(is_scope_state(commit!(db, store, schedule_shred(&one, in_a_year(), keep, "again"))));
    db.disable(&store, "2").await;
    for mode in [ShredMode::Disable, ShredMode::Redact] {
        assert!(is_scope_state(commit!(db, store, schedule_shred(&two, in_a_year(), mode, "r"))));
    }
    db.shred(&store, "3").await;
    assert!(is_scope_state(commit!(db, store, schedule_shred(&three, in_a_year(), keep, "r"))));
    // A shred at once takes the schedule away, and a reopening does not bring it back.
    db.shred(&store, "1").await;
    db.reopen(&store, "1").await;
    let mut connection = db.connect().await.unwrap();
    let connection = db.connection(&mut connection);
    assert_eq!(store.keys().schedule_of(connection, &one).await.unwrap(), None);
    let page = store.keys().schedules(connection, None, 10).await.unwrap();
    assert!(page.schedules.is_empty() && page.failed.is_empty() && page.next.is_none(), "{page:?}");
}

/// A rewrite that took a withheld value for an erased one would lose it for good.
async fn maintenance_destroys_nothing_that_is_only_withheld<B: Backend>() {
    let moved = |current: bool| {
        let placed = event("Placed").version(1).protect(&["/name"], customer());
        let moved = Changes::new().move_value("/name", "/contact");
        let placed =
            if current { placed.version(2).protect(&["/contact"], customer()).change(1, moved) } else { placed };
        Schemas::new([placed]).unwrap()
    };
    let db = B::make().await;
    let old = db.prepared(moved(false)).await;
    db.append(&old, "1", &[placed("1")]).await;
    commit!(db, old, schedule_shred(&customer_scope("1"), in_a_year(), ShredMode::Redact, "request")).unwrap();
    let store = db.process(moved(true));
    assert_eq!(reads(&db, &store, "1").await.unwrap(), "stand-ins");
    let target = B::make().await;
    let (mut from, mut to) = (db.connect().await.unwrap(), target.connect().await.unwrap());
    let (from, to) = (db.connection(&mut from), target.connection(&mut to));
    let mut options = RewriteOptions::default();
    options.dry_run = false;
    let refused = store.rewrite(from, &B::Store::default(), to, &options, &mut |_| {}).await;
    assert!(matches!(&refused, Err(error) if error.kind() == ErrorKind::Disabled), "{refused:?}");
    options.copy_unreadable = true;
    let done = store.rewrite(from, &B::Store::default(), to, &options, &mut |_| {}).await.unwrap();
    assert_eq!((done.rewritten, done.with_voids), (0, 0), "{done:?}");
    assert_eq!(target.stored().await[0].payload, db.stored().await[0].payload);
}
