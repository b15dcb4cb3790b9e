//! Indexes of seals that break one rule each: the conformance suite finds every one of them.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::keys::KeyId;
use eventseal::memory::{MemoryDb, MemoryStore, MemoryTx};
use eventseal::store::{EventTable, IndexedSeal, PositionRange, SealIndex, SealIndexState, StoredQuery};
use eventseal::{GlobalPosition, PersistedEvent, Result};
use support::faults::{Faulty, StoreFaults, TableFaults};
use support::{Memory, caught};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    IsNeverMade,
    IsMadeAnew,
    AddsAtOnce,
    AddsOneKeyOnly,
    RefusesRowsThatExist,
    FindsBackwards,
    FindsTwice,
    IgnoresTheLimit,
    IgnoresTheRange,
    ReadsEventsWithRows,
    IgnoresTheSizes,
    MovesAnyMark,
    MovesBack,
    ForgetsTheEvent,
    KeepsItsId,
    KeepsItsRows,
}

#[derive(Clone)]
struct Mutant(Wrong, MemoryDb, MemoryStore);

fn mutant(wrong: Wrong, memory: &Memory) -> Faulty<Mutant> {
    Faulty(Mutant(wrong, memory.0.clone(), MemoryStore::new()))
}

impl Mutant {
    fn index(&self) -> &dyn SealIndex<Tx = MemoryTx> {
        self.2.seal_index().unwrap()
    }
}

#[async_trait]
impl StoreFaults for Mutant {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.2
    }
}

#[async_trait]
impl TableFaults for Mutant {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.2
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = MemoryTx>> {
        Some(self)
    }
}

#[async_trait]
impl SealIndex for Mutant {
    type Tx = MemoryTx;

    async fn state(&self, connection: &mut MemoryTx) -> Result<Option<SealIndexState>> {
        let mut state = self.index().state(connection).await?;
        match (self.0, &mut state) {
            (Wrong::IsNeverMade, _) => state = None,
            (Wrong::ForgetsTheEvent, Some(state)) => state.last_event = None,
            (Wrong::KeepsItsId, Some(state)) => state.id = Uuid::nil(),
            _ => {}
        }
        Ok(state)
    }

    async fn make(&self, connection: &mut MemoryTx) -> Result<()> {
        self.index().make(connection).await?;
        if self.0 == Wrong::IsMadeAnew {
            let mut tx = self.1.begin();
            self.index().empty(&mut tx).await?;
            tx.commit()?;
        }
        Ok(())
    }

    async fn empty(&self, tx: &mut MemoryTx) -> Result<()> {
        let keeps = self.0 == Wrong::KeepsItsRows;
        let all = PositionRange::default();
        let query = StoredQuery::default();
        let before = self.2.stored_events(tx, &query).await?;
        let without = self.index().events_without(tx, &query).await?;
        self.index().empty(tx).await?;
        let had_row = |event: &&PersistedEvent| !without.iter().any(|other| other.event_id == event.event_id);
        if keeps {
            let rows: Vec<IndexedSeal> = before
                .iter()
                .filter(had_row)
                .map(|event| IndexedSeal { position: event.global_position, keys: KEPT.lock().unwrap().clone() })
                .collect();
            self.index().add(tx, &rows).await?;
        }
        self.index().positions(tx, &[], all, 1).await.map(drop)
    }

    async fn add(&self, tx: &mut MemoryTx, seals: &[IndexedSeal]) -> Result<()> {
        KEPT.lock().unwrap().extend(seals.iter().flat_map(|seal| seal.keys.clone()));
        match self.0 {
            Wrong::AddsAtOnce => {
                let mut at_once = self.1.begin();
                self.index().add(&mut at_once, seals).await?;
                at_once.commit()
            }
            Wrong::AddsOneKeyOnly => {
                let first = |seal: &IndexedSeal| IndexedSeal { position: seal.position, keys: seal.keys[..1].to_vec() };
                self.index().add(tx, &seals.iter().map(first).collect::<Vec<_>>()).await
            }
            Wrong::RefusesRowsThatExist => {
                for seal in seals {
                    let found = self.index().positions(tx, &seal.keys, PositionRange::default(), 100).await?;
                    if found.contains(&seal.position) {
                        return Err(eventseal::Error::Collision { source: None });
                    }
                }
                self.index().add(tx, seals).await
            }
            _ => self.index().add(tx, seals).await,
        }
    }

    async fn complete(&self, tx: &mut MemoryTx, id: Uuid, up_to: GlobalPosition, last_event: Uuid) -> Result<bool> {
        let state = self.index().state(tx).await?.unwrap();
        let id = match self.0 {
            Wrong::MovesAnyMark => state.id,
            // The suite was told another id.
            Wrong::KeepsItsId if id.is_nil() => state.id,
            _ => id,
        };
        if self.0 == Wrong::MovesBack && up_to < state.complete_up_to {
            return Ok(true);
        }
        self.index().complete(tx, id, up_to, last_event).await
    }

    async fn positions(
        &self,
        tx: &mut MemoryTx,
        keys: &[KeyId],
        range: PositionRange,
        limit: u32,
    ) -> Result<Vec<GlobalPosition>> {
        let range = if self.0 == Wrong::IgnoresTheRange { PositionRange::default() } else { range };
        let limit = if self.0 == Wrong::IgnoresTheLimit { 1_000 } else { limit };
        let mut found = self.index().positions(tx, keys, range, limit).await?;
        match self.0 {
            Wrong::FindsBackwards => found.reverse(),
            Wrong::FindsTwice => found = found.iter().flat_map(|at| [*at, *at]).collect(),
            _ => {}
        }
        Ok(found)
    }

    async fn events_without(&self, tx: &mut MemoryTx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        match self.0 {
            Wrong::ReadsEventsWithRows => self.2.stored_events(tx, query).await,
            Wrong::IgnoresTheSizes => {
                let query = StoredQuery { max_bytes: u64::MAX, ..query.clone() };
                self.index().events_without(tx, &query).await
            }
            _ => self.index().events_without(tx, query).await,
        }
    }
}

/// The keys of all rows that were added in this process.
static KEPT: std::sync::Mutex<Vec<KeyId>> = std::sync::Mutex::new(Vec::new());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rule_of_an_index_is_checked() {
    let memory = Memory::new();
    conformance::event_table(&memory, &mutant(Wrong::Nothing, &memory)).await;
    for (wrong, rule) in [
        (Wrong::IsNeverMade, "an index that was made has a state"),
        (Wrong::IsMadeAnew, "making an index again changes nothing"),
        (Wrong::AddsAtOnce, "rows of a transaction that failed are forgotten"),
        (Wrong::AddsOneKeyOnly, "every key of an event has a row"),
        (Wrong::RefusesRowsThatExist, "adding rows that exist"),
        (Wrong::FindsBackwards, "positions of a key are found in ascending order"),
        (Wrong::FindsTwice, "positions of a key are found in ascending order"),
        (Wrong::IgnoresTheLimit, "the first positions are found, up to the limit"),
        (Wrong::IgnoresTheRange, "positions of the range are found alone"),
        (Wrong::ReadsEventsWithRows, "events without a row are read in ascending order"),
        (Wrong::IgnoresTheSizes, "the first event without a row is read whatever its size"),
        (Wrong::MovesAnyMark, "the mark of another index is not moved"),
        (Wrong::MovesBack, "the mark is not moved back"),
        (Wrong::ForgetsTheEvent, "the mark is where it was moved to"),
        (Wrong::KeepsItsId, "an index that was emptied has another id"),
        (Wrong::KeepsItsRows, "an index that was emptied has no rows"),
    ] {
        let memory = Memory::new();
        let store = mutant(wrong, &memory);
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_table(&memory, &store).await }).await;
    }
}
