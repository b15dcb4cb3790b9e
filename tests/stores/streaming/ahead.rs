//! What a stream asks for, and when: a page when its first event is asked for, its keys with one query.

use super::{pages_of, placed, schemas};
use async_trait::async_trait;
use eventseal::error::StorageFault;
use eventseal::keys::KeyTable;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{
    AggregateRef, Error, EventFilter, EventPage, EventStore, EventStoreExt, GlobalPosition, PersistedEvent, Result,
    SealedStore, Stream, VersionRange, aggregate,
};
use futures::{StreamExt, TryStreamExt};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::backend::Backend;
use support::faults::{Faulty, KeyFaults, StoreFaults, StoreTx};
use support::wire::Wire;
use support::{KEYRING, Postgres, on_every_database};

on_every_database! {
    i10_no_page_is_read_before_it_is_asked_for_and_each_costs_one_key_query,
    a_store_that_stands_still_is_an_error,
}

/// Counts reads, and may stand still: then it gives out what is before the place it was asked for.
#[derive(Clone)]
struct Watched<S> {
    inner: S,
    reads: Arc<AtomicUsize>,
    stands_still: bool,
}

impl<S> Watched<S> {
    fn over(inner: S, stands_still: bool) -> Self {
        Self { inner, reads: Arc::default(), stands_still }
    }
}

#[async_trait]
impl<S: EventStore> StoreFaults for Watched<S> {
    type Inner = S;

    fn inner(&self) -> &S {
        &self.inner
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut StoreTx<Self>,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let range = if self.stands_still { (1..=2).into() } else { range };
        self.inner.read_aggregate_stream(tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut StoreTx<Self>,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let from = if self.stands_still { GlobalPosition::START } else { after };
        self.inner.read_events(tx, from, limit, filter).await
    }
}

/// Counts the queries for data keys.
#[derive(Clone)]
struct KeyQueries<K>(K, Arc<AtomicUsize>);

impl<K: KeyTable> KeyFaults for KeyQueries<K> {
    type Inner = K;

    fn inner(&self) -> &K {
        &self.0
    }

    fn before(&self, call: &'static str) -> Result<()> {
        if call == "data_keys" {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

async fn i10_no_page_is_read_before_it_is_asked_for_and_each_costs_one_key_query<B: Backend>() {
    const EVENTS: usize = 7;
    let db = B::make().await;
    let watched = Watched::over(B::Store::default(), false);
    let keys = KeyQueries(B::Keys::default(), Arc::default());
    let (reads, queries) = (Arc::clone(&watched.reads), Arc::clone(&keys.1));
    let store = SealedStore::new(Faulty(watched), Faulty(keys), Arc::clone(&KEYRING), schemas());
    store.keys().prepare(db.connection(&mut db.connect().await.unwrap())).await.unwrap();
    db.append(&store, "1", &(1..=EVENTS).map(placed).collect::<Vec<_>>()).await;
    let counts = || (reads.load(Ordering::SeqCst), queries.load(Ordering::SeqCst));
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    for size in [1, 2, 3, 7, 500] {
        for of_log in [false, true] {
            let (reads_before, queries_before) = counts();
            let since = || {
                let (reads, queries) = counts();
                (reads - reads_before, queries - queries_before)
            };
            let mut events = match of_log {
                true => store.log_events(tx, GlobalPosition::START, pages_of(size), &EventFilter::default()),
                false => store.aggregate_events(tx, &aggregate("Order", "1"), (..).into(), pages_of(size)),
            };
            assert_eq!(since(), (0, 0), "a stream that nobody asked read something");
            for given in 1..=EVENTS {
                assert!(events.try_next().await.unwrap().is_some());
                let pages = given.div_ceil(size as usize);
                assert_eq!(since(), (pages, pages), "{given} events in pages of {size}: a page was read ahead");
            }
            assert!(events.try_next().await.unwrap().is_none());
            let pages = EVENTS.div_ceil(size as usize);
            let is_full = EVENTS.is_multiple_of(size as usize);
            let to_see_the_end = match (of_log, is_full) {
                (true, false) => 0,  // the last page was not full
                (true, true) => 1,   // the next page is empty
                (false, false) => 1, // nothing is left
                (false, true) => 2,  // the next page is empty, and nothing is left
            };
            assert_eq!(since(), (pages + to_see_the_end, pages), "pages of {size}, of the log: {of_log}");
        }
    }
    // A range with an end needs no look beyond it.
    let before = counts().0;
    let order = aggregate("Order", "1");
    let events: Vec<PersistedEvent> =
        store.aggregate_events(tx, &order, (2..=5).into(), pages_of(2)).try_collect().await.unwrap();
    assert_eq!((events.len(), counts().0 - before), (4, 2));
}

async fn a_store_that_stands_still_is_an_error<B: Backend>() {
    let db = B::make().await;
    let store = Faulty(Watched::over(B::Store::default(), true));
    db.append(&store, "1", &(1..=3).map(placed).collect::<Vec<_>>()).await;
    let mut connection = db.connect().await.unwrap();
    let tx = db.connection(&mut connection);
    for of_log in [false, true] {
        let events = match of_log {
            true => store.log_events(tx, GlobalPosition::START, pages_of(2), &EventFilter::default()),
            false => store.aggregate_events(tx, &aggregate("Order", "1"), (..).into(), pages_of(2)),
        };
        let ended = events.take(100).try_collect::<Vec<_>>().await;
        assert!(matches!(ended, Err(Error::Storage(StorageFault::Contract { .. }))), "{ended:?}");
    }
}

/// Where the keys that a stream needed are remembered, a page costs one round trip, and the empty read at the end of
/// the stream does not make the next read forget them.
#[tokio::test]
async fn a_page_of_a_warm_stream_is_one_round_trip() {
    let db = Postgres::make().await;
    let store = db.prepared(schemas()).await;
    db.append(&store, "1", &(1..=5).map(placed).collect::<Vec<_>>()).await;
    let wire = Wire::before(&db.options);
    let mut connection = PgConnection::connect_with(&wire.options(&db.options)).await.unwrap();
    let order = aggregate("Order", "1");
    let mut cost = async |store: &SealedStore<PostgresStore>| {
        let mut trips = Vec::new();
        let mut pages = store.aggregate_pages(&mut connection, &order, (..).into(), pages_of(2));
        loop {
            wire.take();
            let page = pages.try_next().await.unwrap();
            trips.push(wire.take());
            if page.is_none() {
                return trips;
            }
        }
    };
    cost(&store).await; // prepares the statements
    assert_eq!(cost(&store).await, [1, 1, 1, 1], "three pages, and the end");
    assert_eq!(cost(&store).await, [1, 1, 1, 1], "the end made it forget the keys");
    let two_steps = support::two_steps::TwoSteps::over(PostgresKeys::new());
    let two_steps = SealedStore::new(PostgresStore::new(), two_steps, Arc::clone(&KEYRING), schemas());
    cost(&two_steps).await;
    assert_eq!(cost(&two_steps).await, [2, 2, 2, 1]);
}
