//! [`MemorySnapshots`]: the snapshots of a [`MemoryDb`](crate::memory::MemoryDb).

use crate::error::Result;
use crate::event::AggregateRef;
use crate::memory::MemoryTx;
use crate::store::{SnapshotStore, StoredSnapshot};
use async_trait::async_trait;
use std::sync::Arc;

/// Snapshots in a [`MemoryDb`](crate::memory::MemoryDb).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MemorySnapshots {}

impl MemorySnapshots {
    /// Makes the store. It has no state of its own: the snapshots are in the database that the transaction belongs to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl SnapshotStore for MemorySnapshots {
    type Tx = MemoryTx;

    async fn save(&self, tx: &mut MemoryTx, snapshot: &StoredSnapshot) -> Result<bool> {
        let key = (snapshot.aggregate.clone(), snapshot.state.clone());
        tx.lock()?;
        if tx.read()?.snapshots.get(&key).is_some_and(|known| known.version > snapshot.version) {
            return Ok(false);
        }
        tx.write()?.snapshots.insert(key, Arc::new(snapshot.clone()));
        Ok(true)
    }

    async fn load(&self, tx: &mut MemoryTx, aggregate: &AggregateRef, state: &str) -> Result<Option<StoredSnapshot>> {
        let tables = tx.read()?;
        let found = tables.snapshots.get(&(aggregate.clone(), state.to_owned()));
        Ok(found.map(|snapshot| StoredSnapshot::clone(snapshot)))
    }

    async fn delete(&self, tx: &mut MemoryTx, aggregate: &AggregateRef, state: Option<&str>) -> Result<u64> {
        let snapshots = &mut tx.write()?.snapshots;
        let before = snapshots.len();
        snapshots.retain(|(of, name), _| of != aggregate || state.is_some_and(|state| state != name));
        Ok((before - snapshots.len()) as u64)
    }
}
