//! A database in memory and a keyring, with the operations that tests run on them.

use eventseal::ExpectedVersion::Any;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore, MemoryTx};
use eventseal::schema::EventSchema;
use eventseal::{
    EventStore, EventStoreExt, JsonPointer, KeyScope, Keyring, Namespace, NewEvent, PersistedEvent, Result, Schemas,
    SealedStore, aggregate,
};
use serde_json::Value;
use std::sync::Arc;

pub struct World {
    pub db: MemoryDb,
    pub keyring: Arc<Keyring>,
}

impl World {
    pub fn new() -> Self {
        Self {
            db: MemoryDb::new(Namespace::new("test").unwrap()),
            keyring: Arc::new(Keyring::generate("main").unwrap()),
        }
    }

    pub async fn store(&self, schemas: Schemas) -> SealedStore<MemoryStore> {
        let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Arc::clone(&self.keyring), schemas);
        store.keys().prepare(&mut self.db.begin()).await.unwrap();
        store
    }

    pub async fn append<S: EventStore<Tx = MemoryTx>>(
        &self,
        store: &S,
        id: &str,
        events: &[NewEvent],
    ) -> Vec<PersistedEvent> {
        self.try_append(store, id, events).await.unwrap()
    }

    pub async fn try_append<S: EventStore<Tx = MemoryTx>>(
        &self,
        store: &S,
        id: &str,
        events: &[NewEvent],
    ) -> Result<Vec<PersistedEvent>> {
        let mut tx = self.db.begin();
        let appended = store.append(&mut tx, &aggregate("Order", id), Any, events).await?;
        tx.commit()?;
        Ok(appended.events)
    }

    pub async fn read(&self, store: &SealedStore<MemoryStore>, id: &str) -> Result<Vec<PersistedEvent>> {
        Ok(store.read_stream(&mut self.db.begin(), &aggregate("Order", id)).await?.events)
    }

    pub async fn shred(&self, store: &SealedStore<MemoryStore>, id: &str) {
        self.shred_scope(store, "Customer", id).await;
    }

    pub async fn shred_scope(&self, store: &SealedStore<MemoryStore>, kind: &str, id: &str) {
        let mut tx = self.db.begin();
        store.keys().shred(&mut tx, &KeyScope::new(kind, id), "request").await.unwrap();
        tx.commit().unwrap();
    }

    /// Appends a payload under `old`, shreds scopes, and returns what readers see under `new`.
    pub async fn after(
        old: EventSchema,
        payload: &str,
        shredded: &[(&str, &str)],
        new: Vec<EventSchema>,
    ) -> Vec<PersistedEvent> {
        let world = Self::new();
        let writer = world.store(Schemas::new([old]).unwrap()).await;
        world.append(&writer, "1", &[NewEvent::raw("Met", 1, payload)]).await;
        for (kind, id) in shredded {
            world.shred_scope(&writer, kind, id).await;
        }
        let reader = world.store(Schemas::new(new).unwrap()).await;
        world.read(&reader, "1").await.unwrap()
    }
}

pub fn json_of(event: &PersistedEvent) -> Value {
    serde_json::from_slice(&event.payload).unwrap()
}

pub fn pointers(event: &PersistedEvent) -> Vec<&str> {
    event.redacted.iter().map(JsonPointer::as_str).collect()
}
