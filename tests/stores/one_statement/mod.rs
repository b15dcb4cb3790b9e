//! Appends and reads that take one statement where events and keys are in one PostgreSQL database: they do what two
//! statements do (I5, I6), and cost what a bare store costs.

mod changes;
mod first_keys;
mod plans;
mod wire;

use eventseal::conformance::{self, Database};
use eventseal::postgres::{PostgresKeys, PostgresStore, PostgresTables};
use eventseal::{NewEvent, Schemas, event};
use std::sync::Arc;
use support::two_steps::TwoSteps;
use support::{KEYRING, Postgres, customer};

fn schemas() -> Schemas {
    Schemas::new([event("Placed").version(1).protect(&["/name"], customer())]).unwrap()
}

/// Events for these customers, one for each.
fn placed(customers: &[&str]) -> Vec<NewEvent> {
    let payload = |customer| format!(r#"{{"customer":"{customer}","name":"Ada of {customer}"}}"#);
    customers.iter().map(|customer| NewEvent::raw("Placed", 1, payload(customer))).collect()
}

/// The tables of a store in each order of writes, with and without an index of seals and notifications.
fn layouts() -> [PostgresTables; 4] {
    [
        PostgresTables::new(),
        PostgresTables::new().index_seals().notify("placed"),
        PostgresTables::streams(),
        PostgresTables::streams().index_seals().notify("placed"),
    ]
}

/// A database with the tables of events in a layout, and those of keys behind a prefix.
async fn database(tables: PostgresTables) -> (Postgres, PostgresStore, PostgresKeys) {
    let (db, store) = (Postgres::empty().await, PostgresStore::with_tables(tables).unwrap());
    let keys = PostgresKeys::new().with_prefix("shop_").unwrap();
    let mut connection = db.connect().await.unwrap();
    store.migrate(&mut connection).await.unwrap();
    keys.migrate(&mut connection, &eventseal::Namespace::new("one").unwrap()).await.unwrap();
    drop(connection);
    (db, store, keys)
}

#[tokio::test]
async fn stores_beside_their_keys_keep_the_contract() {
    let kept = layouts().map(|tables| async {
        let (db, store, keys) = database(tables).await;
        conformance::key_table(&db, &keys).await;
        conformance::beside_keys(&db, &store, &keys).await;
    });
    futures::future::join_all(kept).await;
    let db = Postgres::new().await;
    conformance::key_table(&db, &PostgresKeys::new()).await;
    conformance::beside_keys(&db, &Arc::new(PostgresStore::new()), &Arc::new(PostgresKeys::new())).await;
}

/// A layer that hides where the tables are takes two steps: see [`TwoSteps`].
#[test]
fn who_must_see_every_call_does() {
    use eventseal::EventStore as _;
    use eventseal::keys::KeyStore as _;
    let keys = TwoSteps::over(PostgresKeys::new());
    assert!(keys.table_names().is_none());
    let sealed = eventseal::SealedStore::new(PostgresStore::new(), keys, Arc::clone(&KEYRING), schemas());
    assert!(sealed.beside_keys().is_none(), "two sealing layers would not notice each other");
    assert!(sealed.inner().beside_keys().is_some());
}
