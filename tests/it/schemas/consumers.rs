//! Consumers, and two sealing layers.

use super::{V1, v1_schemas};
use eventseal::ExpectedVersion::Any;
use eventseal::consumer::Consumer;
use eventseal::error::{BoxError, EventFault};
use eventseal::memory::{MemoryKeys, MemoryTx};
use eventseal::{Error, EventStore, EventStoreExt, NewEvent, PersistedEvent, Schemas, SealedStore, aggregate, event};
use std::sync::Arc;
use support::customer;
use support::world::World;

struct Counting(&'static str, Option<&'static [&'static str]>, std::sync::Mutex<Vec<i64>>);

#[async_trait::async_trait]
impl Consumer<MemoryTx> for Counting {
    fn name(&self) -> &str {
        self.0
    }

    fn aggregate_types(&self) -> Option<&[&str]> {
        self.1
    }

    async fn handle(&self, _: &mut MemoryTx, event: &PersistedEvent) -> Result<(), BoxError> {
        if event.payload == b"{\"fail\":true}" {
            return Err("asked to".into());
        }
        self.2.lock().unwrap().push(event.aggregate_version.get());
        Ok(())
    }
}

#[tokio::test]
async fn consumers_run_in_the_append_and_see_what_was_passed() {
    let world = World::new();
    let placed = event("Placed").version(1).protect(&["/name", "/email"], customer());
    let store = world.store(Schemas::new([placed, event("Noted").version(1)]).unwrap()).await;
    let all = Counting("all", None, Default::default());
    let orders = Counting("orders", Some(&["Order"]), Default::default());
    let others = Counting("others", Some(&["Customer"]), Default::default());
    let consumers: [&dyn Consumer<MemoryTx>; 3] = [&all, &orders, &others];
    let mut tx = world.db.begin();
    let events = [NewEvent::raw("Placed", 1, V1), NewEvent::raw("Noted", 1, "{}")];
    let appended = store.append_and_consume(&mut tx, &aggregate("Order", "1"), Any, &events, &consumers).await.unwrap();
    assert_eq!(appended.events[0].payload, V1.as_bytes());
    let seen = |consumer: &Counting| consumer.2.lock().unwrap().clone();
    assert_eq!((seen(&all), seen(&orders), seen(&others)), (vec![1, 2], vec![1, 2], vec![]));
    let failing = [NewEvent::raw("Noted", 1, "{\"fail\":true}")];
    let error =
        store.append_and_consume(&mut tx, &aggregate("Order", "1"), Any, &failing, &consumers).await.unwrap_err();
    assert!(
        matches!(&error, Error::Consumer { consumer, version, .. } if consumer == "all" && version.get() == 3),
        "{error:?}"
    );
    tx.rollback();
    assert!(world.read(&store, "1").await.unwrap().is_empty());
}

#[tokio::test]
async fn two_sealing_layers_over_one_event_are_refused() {
    let world = World::new();
    let twice =
        SealedStore::new(world.store(v1_schemas()).await, MemoryKeys::new(), Arc::clone(&world.keyring), v1_schemas());
    let refused =
        twice.append(&mut world.db.begin(), &aggregate("Order", "1"), Any, &[NewEvent::raw("Placed", 1, V1)]).await;
    assert!(matches!(refused, Err(Error::Event { fault: EventFault::ReservedMember, .. })), "{refused:?}");
}
