//! The contract of a key table about scopes that are held, and shreds that are scheduled.

use crate::conformance::key_store::{entry, fresh};
use crate::conformance::{Database, must};
use crate::event::now;
use crate::keys::names::KeyScope;
use crate::keys::{DueScope, KeyTable, LogEntry, ScopeAction, ScopeState};
use std::time::Duration;

/// Checks that scopes are found whose shred is scheduled, and those that were put on hold: all of them, in order, in
/// pages, and no others.
pub async fn holds_and_schedules_are_found<D: Database, K: KeyTable<Tx = D::Tx>>(db: &D, keys: &K) {
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let none = must(keys.due_scopes(tx, None, None, 5).await, "due_scopes");
    assert!(none.is_empty(), "nothing was scheduled: {none:?}");
    // In SQLite, a transaction that has read does not wait until an older one, which was dropped, has rolled back.
    must(db.commit(transaction).await, "commit");
    let mut transaction = must(db.begin().await, "begin");
    let tx = db.tx(&mut transaction);
    let [soon, later, also_later, cancelled, shredded, reopened, held] =
        ["soon", "later", "also later", "cancelled", "shredded", "reopened", "held"].map(fresh);
    let all = [&soon, &later, &also_later, &cancelled, &shredded, &reopened, &held].map(Clone::clone);
    must(keys.create_scopes(tx, &all).await, "create_scopes");
    let (first, second) = (now(), now() + Duration::from_millis(1));
    for (scope, due) in [(&soon, first), (&later, second), (&also_later, second), (&cancelled, first)] {
        schedule(keys, tx, scope, due).await;
    }
    for (scope, action, state) in [
        (&cancelled, ScopeAction::Cancel, ScopeState::Live),
        (&shredded, ScopeAction::Shred, ScopeState::Shredded),
        (&reopened, ScopeAction::Reopen, ScopeState::Live),
    ] {
        if scope != &cancelled {
            schedule(keys, tx, scope, first).await;
        }
        must(keys.change_scope(tx, &entry(scope, 2, action, state)).await, "change_scope");
    }
    for (scope, number) in [(&held, 1), (&held, 2), (&soon, 2)] {
        must(keys.change_scope(tx, &entry(scope, number, ScopeAction::Hold, ScopeState::Live)).await, "change_scope");
    }
    let mut expected = [(first, &soon), (second, &later), (second, &also_later)]
        .map(|(due, scope)| DueScope { due, scope: scope.clone() });
    expected.sort_unstable();
    let found = must(keys.due_scopes(tx, None, None, 5).await, "due_scopes");
    assert_eq!(found, expected, "due_scopes must find every scheduled shred that is outstanding, in their order");
    let found = must(keys.due_scopes(tx, Some(first), None, 5).await, "due_scopes");
    assert_eq!(found, expected[..1], "due_scopes must find what is due at this very time, and nothing later");
    let first_page = must(keys.due_scopes(tx, None, None, 2).await, "due_scopes");
    let next_page = must(keys.due_scopes(tx, None, first_page.last(), 2).await, "due_scopes");
    assert_eq!([first_page, next_page].concat(), expected, "due_scopes must go on after the last of a page");
    let mut expected = [held, soon];
    expected.sort_unstable();
    let found = must(keys.held_scopes(tx, None, 5).await, "held_scopes");
    assert_eq!(found, expected, "held_scopes must find each scope that was put on hold once, in their order");
    let first_page = must(keys.held_scopes(tx, None, 1).await, "held_scopes");
    let next_page = must(keys.held_scopes(tx, first_page.last(), 1).await, "held_scopes");
    assert_eq!([first_page, next_page].concat(), expected, "held_scopes must go on after the last of a page");
}

async fn schedule<K: KeyTable>(keys: &K, tx: &mut K::Tx, scope: &KeyScope, due: time::OffsetDateTime) {
    let scheduled = LogEntry { until: Some(due), ..entry(scope, 1, ScopeAction::Schedule, ScopeState::Live) };
    must(keys.change_scope(tx, &scheduled).await, "change_scope");
}
