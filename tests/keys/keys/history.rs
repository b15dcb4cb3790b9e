//! The history of a scope is read while others change the scope.

use super::{placed, schemas};
use eventseal::keys::KeyStore;
use std::cell::Cell;
use support::backend::Backend;
use support::{customer_scope, on_every_database};

on_every_database! {
    a_history_is_of_one_state_of_the_database,
}

async fn a_history_is_of_one_state_of_the_database<B: Backend>() {
    const ROUNDS: usize = 40;
    let db = B::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &[placed()]).await;
    let done = Cell::new(false);
    let changes = async {
        for _ in 0..ROUNDS {
            db.disable(&store, "42").await;
            db.enable(&store, "42").await;
        }
        done.set(true);
    };
    let reads = async {
        let (keys, mut connection) = (B::Keys::default(), db.connect().await.unwrap());
        let mut last = 0;
        while !done.get() || last < 2 * ROUNDS {
            let history = keys.history(db.connection(&mut connection), &customer_scope("42")).await.unwrap().unwrap();
            assert_eq!((history.keys.len(), history.active_key), (1, Some(history.keys[0].key_id)));
            assert!(history.entries.len() >= last);
            last = history.entries.len();
            if let Some(entry) = history.entries.last() {
                assert_eq!((history.state, entry.scope_seq as usize), (entry.state, last), "parts of two states");
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(changes, reads);
}
