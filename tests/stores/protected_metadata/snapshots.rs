//! A state that is folded from metadata is sealed under the keys of these metadata.

use super::{IP, login, schema, schemas, seen};
use eventseal::error::BoxError;
use eventseal::memory::MemorySnapshots;
use eventseal::snapshots::{AggregateState, Discarded, SaveOutcome, SealedSnapshots};
use eventseal::{PersistedEvent, Schemas, aggregate};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::world::World;

/// The addresses of logins.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Addresses(Vec<Value>);

impl AggregateState for Addresses {
    const NAME: &'static str = "addresses";
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
        self.0.push(seen(event).0["ip"].clone());
        Ok(())
    }
}

#[tokio::test]
async fn i5_i17_a_snapshot_dies_with_an_owner_of_metadata() {
    let world = World::new();
    let store = world.store(schemas()).await;
    world.append(&store, "1", &[login("1", "ada"), login("1", "eve")]).await;
    let snapshots = SealedSnapshots::new(MemorySnapshots::new());
    let order = aggregate("Order", "1");
    let mut tx = world.db.begin();
    let rebuilt = snapshots.load::<Addresses>(&mut tx, &store, &order).await.unwrap();
    assert_eq!(snapshots.save(&mut tx, &store, &rebuilt).await.unwrap(), SaveOutcome::Saved);
    tx.commit().unwrap();
    let again = snapshots.load::<Addresses>(&mut world.db.begin(), &store, &order).await.unwrap();
    assert_eq!((again.folded(), again.state().0[0].as_str()), (0, Some(IP)));
    world.shred(&store, "ada").await;
    let after = snapshots.load::<Addresses>(&mut world.db.begin(), &store, &order).await.unwrap();
    assert!(matches!(after.discarded(), Some(Discarded::KeyChanged { .. })), "{:?}", after.discarded());
    assert_eq!(after.state().0, ["unknown", IP]);
}

#[tokio::test]
async fn i17_metadata_in_the_clear_are_in_no_snapshot() {
    let world = World::new();
    let plain = Schemas::new([eventseal::event("LoggedIn").version(1)]).unwrap();
    let plain = world.store(plain).await;
    world.append(&plain, "1", &[login("1", "ada")]).await;
    let accepting = Schemas::builder([schema()]).accept_plaintext("LoggedIn").build().unwrap();
    let store = world.store(accepting).await;
    let snapshots = SealedSnapshots::new(MemorySnapshots::new());
    let mut tx = world.db.begin();
    let rebuilt = snapshots.load::<Addresses>(&mut tx, &store, &aggregate("Order", "1")).await.unwrap();
    assert_eq!(snapshots.save(&mut tx, &store, &rebuilt).await.unwrap(), SaveOutcome::InTheClear);
}
