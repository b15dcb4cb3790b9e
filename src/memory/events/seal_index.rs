//! The index of seals in memory.

use super::{MemoryStore, from};
use crate::error::{Error, Result, TransactionFault};
use crate::event::{GlobalPosition, PersistedEvent};
use crate::keys::names::KeyId;
use crate::memory::MemoryTx;
use crate::store::event_table::{PositionRange, StoredQuery};
use crate::store::seal_index::{IndexedSeal, SealIndex, SealIndexState};
use async_trait::async_trait;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The rows of the index, in both orders, and its mark.
#[derive(Clone)]
pub(crate) struct Seals {
    state: SealIndexState,
    by_key: BTreeSet<(KeyId, GlobalPosition)>,
    positions: BTreeSet<GlobalPosition>,
}

impl Seals {
    pub(crate) fn new() -> Self {
        let state = SealIndexState { id: Uuid::now_v7(), complete_up_to: GlobalPosition::START, last_event: None };
        Self { state, by_key: BTreeSet::new(), positions: BTreeSet::new() }
    }

    pub(crate) fn add(&mut self, position: GlobalPosition, keys: &[KeyId]) {
        self.by_key.extend(keys.iter().map(|key| (*key, position)));
        if !keys.is_empty() {
            self.positions.insert(position);
        }
    }
}

#[async_trait]
impl SealIndex for MemoryStore {
    type Tx = MemoryTx;

    async fn state(&self, connection: &mut MemoryTx) -> Result<Option<SealIndexState>> {
        Ok(connection.read()?.seals.as_ref().map(|seals| seals.state))
    }

    async fn make(&self, connection: &mut MemoryTx) -> Result<()> {
        if connection.is_writing() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation: "migrating" }));
        }
        let mut tx = connection.begin_another();
        tx.write()?.seals.get_or_insert_with(Seals::new);
        tx.commit()
    }

    async fn empty(&self, tx: &mut MemoryTx) -> Result<()> {
        if let Some(seals) = &mut tx.write()?.seals {
            *seals = Seals::new();
        }
        Ok(())
    }

    async fn add(&self, tx: &mut MemoryTx, seals: &[IndexedSeal]) -> Result<()> {
        if let Some(index) = &mut tx.write()?.seals {
            for seal in seals {
                index.add(seal.position, &seal.keys);
            }
        }
        Ok(())
    }

    async fn complete(&self, tx: &mut MemoryTx, id: Uuid, up_to: GlobalPosition, last_event: Uuid) -> Result<bool> {
        match &mut tx.write()?.seals {
            Some(Seals { state, .. }) if state.id == id && state.complete_up_to <= up_to => {
                (state.complete_up_to, state.last_event) = (up_to, Some(last_event));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn positions(
        &self,
        tx: &mut MemoryTx,
        keys: &[KeyId],
        range: PositionRange,
        limit: u32,
    ) -> Result<Vec<GlobalPosition>> {
        let tables = tx.read()?;
        let Some(seals) = &tables.seals else { return Ok(Vec::new()) };
        let of_key = |key: KeyId| {
            let rows = seals.by_key.range((key, range.after)..);
            rows.take_while(move |(of, _)| *of == key).map(|(_, position)| *position)
        };
        let found: BTreeSet<GlobalPosition> =
            keys.iter().copied().flat_map(of_key).filter(|at| range.contains(*at)).collect();
        Ok(found.into_iter().take(limit as usize).collect())
    }

    async fn events_without(&self, tx: &mut MemoryTx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let tables = tx.read()?;
        let has_row = |at| tables.seals.as_ref().is_some_and(|seals| seals.positions.contains(at));
        let events = from(&tables.events, query.range.after).iter();
        let events = events
            .take_while(|event| query.range.contains(event.global_position))
            .filter(|event| !has_row(&event.global_position));
        let mut bytes = 0;
        let page = events.take(query.limit as usize).take_while(|event| {
            let is_first = bytes == 0;
            bytes += event.payload.len() as u64;
            is_first || bytes <= query.max_bytes
        });
        Ok(page.map(|event| PersistedEvent::clone(event)).collect())
    }
}
