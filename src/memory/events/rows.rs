//! Access to the stored rows of events, for maintenance: [`EventTable`] for [`MemoryStore`].

use super::{MemoryStore, from, last_position, push};
use crate::error::{Error, Result, TransactionFault};
use crate::event::{EventType, EventVersion, GlobalPosition, PersistedEvent};
use crate::memory::MemoryTx;
use crate::store::event_table::{
    EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableLocation, TableWork, check_insert,
    starts_with_header,
};
use crate::store::seal_index::SealIndex;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::Arc;

#[async_trait]
impl EventTable for MemoryStore {
    type Tx = MemoryTx;

    async fn in_transaction(&self, connection: &mut MemoryTx, work: &mut dyn TableWork<MemoryTx>) -> Result<()> {
        if connection.is_writing() {
            return Err(Error::Transaction(TransactionFault::InTransaction { operation: "maintenance" }));
        }
        let mut tx = connection.begin_another();
        work.run(&mut tx).await?;
        tx.commit()
    }

    async fn last_position(&self, tx: &mut MemoryTx) -> Result<GlobalPosition> {
        Ok(last_position(&tx.read()?.events))
    }

    async fn count_events(&self, tx: &mut MemoryTx, range: PositionRange) -> Result<Vec<StoredCount>> {
        let mut counts: HashMap<(EventType, EventVersion, bool), StoredCount> = HashMap::new();
        for event in
            from(&tx.read()?.events, range.after).iter().take_while(|event| range.contains(event.global_position))
        {
            let one = StoredCount::of(event);
            let key = (one.event_type.clone(), one.event_version, one.with_header);
            counts.entry(key).and_modify(|count| count.add(&one)).or_insert(one);
        }
        Ok(counts.into_values().collect())
    }

    async fn stored_events(&self, tx: &mut MemoryTx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let wanted = |event: &PersistedEvent| {
            let of_version = |(event_type, version): &(EventType, EventVersion)| {
                *event_type == event.stored_type && *version == event.stored_version
            };
            (query.versions.is_empty() || query.versions.iter().any(of_version))
                && !(query.without_header && starts_with_header(&event.payload))
        };
        let tables = tx.read()?;
        let events = from(&tables.events, query.range.after)
            .iter()
            .take_while(|event| query.range.contains(event.global_position));
        let mut bytes = 0;
        let fits = |event: &&Arc<PersistedEvent>| {
            let is_first = bytes == 0;
            bytes += event.payload.len() as u64;
            is_first || bytes <= query.max_bytes
        };
        let page = events.filter(|event| wanted(event)).take(query.limit as usize).take_while(fits);
        Ok(page.map(|event| PersistedEvent::clone(event)).collect())
    }

    async fn stored_events_at(&self, tx: &mut MemoryTx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>> {
        let tables = tx.read()?;
        let mut positions = positions.to_vec();
        positions.sort_unstable();
        positions.dedup();
        let index = |position: &GlobalPosition| {
            tables.events.binary_search_by_key(position, |event| event.global_position).ok()
        };
        Ok(positions.iter().filter_map(index).map(|index| PersistedEvent::clone(&tables.events[index])).collect())
    }

    async fn replace_payloads(
        &self,
        tx: &mut MemoryTx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        let tables = tx.write()?;
        let mut replaced = Vec::with_capacity(replacements.len());
        for replacement in replacements {
            let Ok(index) = tables.events.binary_search_by_key(&replacement.position, |event| event.global_position)
            else {
                continue;
            };
            let event = &mut tables.events[index];
            let same_metadata = match &replacement.metadata {
                Some(metadata) => event.metadata.as_ref() == Some(&metadata.old),
                None => true,
            };
            if event.event_id == replacement.event_id && event.payload == replacement.old && same_metadata {
                let event = Arc::make_mut(event);
                event.payload.clone_from(&replacement.new);
                if let Some(metadata) = &replacement.metadata {
                    event.metadata = Some(metadata.new.clone());
                }
                replaced.push(replacement.position);
            }
        }
        Ok(replaced)
    }

    async fn insert_events(&self, tx: &mut MemoryTx, events: &[PersistedEvent]) -> Result<()> {
        let tables = tx.write()?;
        check_insert(last_position(&tables.events), events)?;
        if let Some(known) = events.iter().find(|event| tables.event_ids.contains(&event.event_id)) {
            return Err(Error::DuplicateEventId { event_id: known.event_id });
        }
        for event in events {
            push(tables, event.clone());
        }
        Ok(())
    }

    /// Every committed position is settled, because positions become visible in their order.
    async fn settled_position(&self, connection: &mut MemoryTx) -> Result<GlobalPosition> {
        if connection.is_writing() {
            return Err(Error::Transaction(TransactionFault::InTransaction {
                operation: "looking for the settled position",
            }));
        }
        Ok(last_position(&connection.read()?.events))
    }

    async fn location(&self, connection: &mut MemoryTx) -> Result<Option<TableLocation>> {
        Ok(Some(TableLocation::Table(format!("memory {:p}", connection.database()))))
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = MemoryTx>> {
        Some(self)
    }
}
