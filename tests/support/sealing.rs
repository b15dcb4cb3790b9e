//! One sealer over one database in memory, for tests of stored events.

use eventseal::keys::{KeyHistory, KeyTable};
use eventseal::kms::Kms;
use eventseal::memory::{MemoryDb, MemoryKeys, MemoryTx};
use eventseal::{
    AggregateRef, AggregateVersion, GlobalPosition, KeyScope, Keyring, Namespace, NewEvent, PersistedEvent, Result,
    Schemas, Sealer,
};
use futures::executor::block_on;

/// Every protected value that can hold this text holds it, and nothing else does. If it shows up anywhere, plaintext
/// has leaked.
pub const CANARY: &str = "c4n4ry";

/// The digits that protected numbers hold, as a canary.
pub const DIGITS: &str = "27182818284590452353";

pub fn holds_canary(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.contains(CANARY) || text.contains(DIGITS)
}

/// The event as somebody altered it in the store.
pub fn with_payload(event: &PersistedEvent, payload: impl Into<Vec<u8>>) -> PersistedEvent {
    let mut event = event.clone();
    event.payload = payload.into();
    event
}

/// Nothing in memory ever waits, so tests that aren't async themselves can block.
pub struct SealerWorld {
    pub db: MemoryDb,
    pub sealer: Sealer<MemoryTx>,
}

impl SealerWorld {
    pub fn new(schemas: Schemas) -> Self {
        Self::with_keyring(Keyring::generate("main").unwrap(), schemas)
    }

    pub fn with_keyring(keyring: Keyring, schemas: Schemas) -> Self {
        Self::over(MemoryDb::new(Namespace::new("test").unwrap()), MemoryKeys::new(), keyring, schemas)
    }

    pub fn over(
        db: MemoryDb,
        keys: impl KeyTable<Tx = MemoryTx> + 'static,
        kms: impl Kms + 'static,
        schemas: Schemas,
    ) -> Self {
        let sealer = Sealer::new(keys, kms, schemas);
        block_on(sealer.keys().prepare(&mut db.begin())).unwrap();
        Self { db, sealer }
    }

    /// Seals an event, and returns it as it would be stored.
    pub fn seal(&self, aggregate: &AggregateRef, event: NewEvent) -> Result<PersistedEvent> {
        let mut tx = self.db.begin();
        let sealed = block_on(self.sealer.seal(&mut tx, aggregate, &[event]))?.into_owned().remove(0);
        tx.commit()?;
        Ok(PersistedEvent::from_new(aggregate.clone(), AggregateVersion::FIRST, GlobalPosition::START, sealed))
    }

    /// Opens a stored event, and returns what a reader gets, if that is one event.
    pub fn open(&self, stored: &PersistedEvent) -> Result<PersistedEvent> {
        let mut opened = block_on(self.sealer.open(&mut self.db.begin(), vec![stored.clone()]))?;
        assert_eq!(opened.len(), 1);
        Ok(opened.remove(0))
    }

    pub fn shred(&self, kind: &str, id: &str) {
        let mut tx = self.db.begin();
        block_on(self.sealer.keys().shred(&mut tx, &KeyScope::new(kind, id), "request 1")).unwrap();
        tx.commit().unwrap();
    }

    pub fn disable(&self, kind: &str, id: &str) {
        let mut tx = self.db.begin();
        block_on(self.sealer.keys().disable(&mut tx, &KeyScope::new(kind, id), "incident 1")).unwrap();
        tx.commit().unwrap();
    }

    pub fn enable(&self, kind: &str, id: &str) {
        let mut tx = self.db.begin();
        block_on(self.sealer.keys().enable(&mut tx, &KeyScope::new(kind, id), "incident 1 is over")).unwrap();
        tx.commit().unwrap();
    }

    pub fn history(&self, kind: &str, id: &str) -> Option<KeyHistory> {
        block_on(self.sealer.keys().key_history(&mut self.db.begin(), &KeyScope::new(kind, id))).unwrap()
    }
}
