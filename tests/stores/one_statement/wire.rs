//! Round trips, counted on the wire.

use super::{database, layouts, placed, schemas};
use eventseal::ExpectedVersion::Any;
use eventseal::keys::KeyManager;
use eventseal::postgres::{PostgresKeys, PostgresStore};
use eventseal::{EventStore, NewEvent, SealedStore, VersionRange, aggregate};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;
use support::two_steps::TwoSteps;
use support::wire::Wire;
use support::{KEYRING, Postgres, customer_scope};

type Bare = PostgresStore;

/// A connection whose round trips are counted.
struct Line {
    wire: Wire,
    connection: PgConnection,
}

impl Line {
    async fn to(db: &Postgres) -> Self {
        let wire = Wire::before(&db.options);
        let connection = PgConnection::connect_with(&wire.options(&db.options)).await.unwrap();
        Self { wire, connection }
    }

    /// The round trips of an append in a transaction that has begun. It is the second on this connection, so the
    /// statements are prepared.
    async fn append<S: EventStore<Tx = PgConnection>>(&mut self, store: &S, id: &str, events: &[&str]) -> usize {
        let mut counted = 0;
        for _ in 0..2 {
            let events: Vec<NewEvent> = placed(events);
            let mut tx = self.connection.begin().await.unwrap();
            self.wire.take();
            store.append(&mut tx, &aggregate("Order", id), Any, &events).await.unwrap();
            counted = self.wire.take();
            tx.commit().await.unwrap();
        }
        counted
    }

    /// The round trips of a read of a stream: in a transaction, and outside of one, which must be equal.
    async fn read<S: EventStore<Tx = PgConnection>>(&mut self, store: &S, id: &str, range: VersionRange) -> usize {
        let (order, mut counted) = (aggregate("Order", id), Vec::new());
        for _ in 0..2 {
            self.wire.take();
            store.read_aggregate_stream(&mut self.connection, &order, range).await.unwrap();
            counted.push(self.wire.take());
            let mut tx = self.connection.begin().await.unwrap();
            self.wire.take();
            store.read_aggregate_stream(&mut tx, &order, range).await.unwrap();
            counted.push(self.wire.take());
            tx.commit().await.unwrap();
        }
        assert_eq!(counted[2], counted[3], "a transaction makes no difference");
        counted[3]
    }
}

/// A sealed store with warm keys of these customers.
async fn warm(db: &Postgres, store: SealedStore<Bare>) -> SealedStore<Bare> {
    let mut connection = db.pool.acquire().await.unwrap();
    store.keys().prepare(&mut connection).await.unwrap();
    let mut tx = connection.begin().await.unwrap();
    store.append(&mut tx, &aggregate("Order", "warm"), Any, &placed(&["1", "2", "3"])).await.unwrap();
    tx.commit().await.unwrap();
    store
}

fn keys(keys: PostgresKeys) -> eventseal::keys::KeyManagerBuilder<PgConnection> {
    KeyManager::builder(keys, Arc::clone(&KEYRING))
}

#[tokio::test]
async fn a_warm_append_and_read_cost_the_round_trips_of_the_bare_store() {
    for tables in layouts() {
        let (db, bare, table) = database(tables).await;
        let sealed = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
        let two_steps = SealedStore::new(bare.clone(), TwoSteps::over(table.clone()), Arc::clone(&KEYRING), schemas());
        let two_steps = warm(&db, two_steps).await;
        let lags = keys(table).reads_may_lag(Duration::from_secs(3_600)).build();
        let lags = warm(&db, SealedStore::with_keys(bare.clone(), lags, schemas())).await;
        let mut line = Line::to(&db).await;
        for events in [&["1"][..], &["1", "2"], &["1", "2", "3", "1"]] {
            assert_eq!(line.append(&bare, "bare", events).await, 1, "{events:?}");
            assert_eq!(line.append(&sealed, "sealed", events).await, 1, "{events:?}");
            assert_eq!(line.append(&two_steps, "two", events).await, 2, "{events:?}");
        }
        for range in [(..).into(), (2..=3).into()] {
            assert_eq!(line.read(&bare, "sealed", range).await, 1, "{range:?}");
            assert_eq!(line.read(&sealed, "sealed", range).await, 1, "{range:?}");
            assert_eq!(line.read(&two_steps, "sealed", range).await, 2, "{range:?}");
            assert_eq!(line.read(&lags, "sealed", range).await, 1, "{range:?}");
        }
    }
}

/// What was not expected costs one more, once.
#[tokio::test]
async fn what_is_not_expected_costs_one_round_trip_more() {
    let (db, bare, table) = database(layouts()[0].clone()).await;
    let sealed = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
    let other = warm(&db, SealedStore::with_keys(bare.clone(), keys(table).build(), schemas())).await;
    let mut line = Line::to(&db).await;
    assert_eq!(line.append(&sealed, "1", &["1"]).await, 1);
    assert_eq!(line.read(&sealed, "1", (..).into()).await, 1);
    // Another process uses a key that this one does not expect in the stream.
    assert_eq!(line.append(&other, "1", &["2"]).await, 1);
    let mut reads = Vec::new();
    for _ in 0..3 {
        line.wire.take();
        let stream = sealed.read_aggregate_stream(&mut line.connection, &aggregate("Order", "1"), (..).into()).await;
        reads.push((line.wire.take(), stream.unwrap().events.iter().all(|event| event.redacted.is_empty())));
    }
    assert_eq!(reads, [(2, true), (1, true), (1, true)]);
    // Another process rotates. This one finds out by itself, and goes the other way once.
    let scope = customer_scope("1");
    let mut tx = db.pool.begin().await.unwrap();
    other.keys().rotate_data_key(&mut tx, &scope).await.unwrap();
    tx.commit().await.unwrap();
    let mut appends = Vec::new();
    for _ in 0..3 {
        let mut tx = line.connection.begin().await.unwrap();
        line.wire.take();
        sealed.append(&mut tx, &aggregate("Order", "1"), Any, &placed(&["1"])).await.unwrap();
        appends.push(line.wire.take());
        tx.commit().await.unwrap();
    }
    assert_eq!(appends.pop(), Some(1), "{appends:?}");
    assert!(appends[0] > 1 && appends[1] == 1, "{appends:?}");
}

/// The first events of owners cost one round trip more than those of the bare store, whatever their number is.
#[tokio::test]
async fn first_events_of_new_owners_cost_one_round_trip_more() {
    for tables in layouts() {
        let (db, bare, table) = database(tables).await;
        let sealed = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
        let mut line = Line::to(&db).await;
        let mut round_trips = Vec::new();
        for round in 0..3 {
            let owners: Vec<String> = (0..=round).map(|number| format!("new {round} {number}")).collect();
            let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
            let order = aggregate("Order", format!("of {round}"));
            let mut tx = line.connection.begin().await.unwrap();
            line.wire.take();
            sealed.append(&mut tx, &order, Any, &placed(&owners)).await.unwrap();
            round_trips.push(line.wire.take());
            tx.commit().await.unwrap();
            // Another process opens what was sealed.
            let other = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
            let read = other.read_aggregate_stream(&mut line.connection, &order, (..).into()).await.unwrap();
            let opened = |(event, owner): (&eventseal::PersistedEvent, &&str)| {
                support::contains(&event.payload, &format!("Ada of {owner}"))
            };
            assert!(read.events.iter().zip(&owners).all(opened), "{read:?}");
        }
        assert_eq!(round_trips[2], 2, "{round_trips:?}");
    }
}

/// A process that does not know the keys of an owner takes as many as one that takes two steps.
#[tokio::test]
async fn owners_that_are_not_cached_cost_what_they_cost_in_two_steps() {
    let (db, bare, table) = database(layouts()[0].clone()).await;
    let writer = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
    let mut tx = db.pool.begin().await.unwrap();
    let owners: Vec<String> = (10..40).map(|number| number.to_string()).collect();
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    writer.append(&mut tx, &aggregate("Order", "first"), Any, &placed(&owners)).await.unwrap();
    tx.commit().await.unwrap();
    let one = warm(&db, SealedStore::with_keys(bare.clone(), keys(table.clone()).build(), schemas())).await;
    let two = SealedStore::new(bare, TwoSteps::over(table), Arc::clone(&KEYRING), schemas());
    let two = warm(&db, two).await;
    let mut line = Line::to(&db).await;
    let (mut in_one, mut in_two) = (Vec::new(), Vec::new());
    for owner in &owners {
        for (store, counted) in [(&one, &mut in_one), (&two, &mut in_two)] {
            let mut tx = line.connection.begin().await.unwrap();
            line.wire.take();
            store.append(&mut tx, &aggregate("Order", "later"), Any, &placed(&[owner])).await.unwrap();
            counted.push(line.wire.take());
            tx.commit().await.unwrap();
        }
    }
    assert_eq!((in_one.pop(), in_two.pop()), (Some(3), Some(3)), "{in_one:?} {in_two:?}");
}

/// One for each lock, change and look. The number of keys makes no difference.
#[tokio::test]
async fn a_shred_costs_ten_round_trips() {
    let (db, bare, table) = database(layouts()[0].clone()).await;
    let sealed = warm(&db, SealedStore::with_keys(bare.clone(), keys(table).build(), schemas())).await;
    let mut line = Line::to(&db).await;
    let mut tx = line.connection.begin().await.unwrap();
    for _ in 0..5 {
        sealed.keys().rotate_data_key(&mut tx, &customer_scope("3")).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut round_trips = Vec::new();
    for (owner, keys) in [("1", 1), ("2", 1), ("3", 6)] {
        let mut tx = line.connection.begin().await.unwrap();
        line.wire.take();
        let shredding = sealed.keys().shred(&mut tx, &customer_scope(owner), "request 1").await.unwrap();
        round_trips.push(line.wire.take());
        assert_eq!(shredding.destroyed.len(), keys);
        tx.commit().await.unwrap();
    }
    // The first one prepares the statements.
    assert_eq!(round_trips[1..], [10, 10], "{round_trips:?}");
}
