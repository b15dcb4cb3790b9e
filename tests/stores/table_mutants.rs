//! Tables of events that break one rule each, like the [mutants](mutants.rs) of stores. Mutants that need a real
//! database are in `jsonb.rs`.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::error::{InputFault, TransactionFault};
use eventseal::memory::{MemoryDb, MemoryStore, MemoryTx};
use eventseal::store::{
    EventTable, PayloadReplacement, PositionRange, StoredCount, StoredQuery, TableLocation, TableWork,
};
use eventseal::{
    AggregateRef, Appended, Error, EventStore, ExpectedVersion, GlobalPosition, NewEvent, PersistedEvent, Result,
};
use std::time::Duration;
use support::faults::{Faulty, StoreFaults, TableFaults};
use support::{Memory, caught};

#[derive(Clone, Copy, Debug, PartialEq)]
enum WrongTable {
    Nothing,
    KeepsWhatFailed,
    ForgetsWhatWasDone,
    WorksInATransaction,
    CountsOneTooMany,
    IgnoresWithoutHeader,
    IgnoresMaxBytes,
    IgnoresVersions,
    ReplacesWhatHasChanged,
    InsertsKnownIds,
    MovesAbout,
    ForgetsTheLast,
    SettlesNothing,
    SettlesInATransaction,
    ReadsBackwards,
    IgnoresTheLimit,
    IgnoresTheRange,
    FindsBackwards,
    FindsTwice,
    FindsNone,
    ReplacesAtOnce,
    ReplacesNothing,
    ReplacesMoreThanPayloads,
    InsertsInAnyOrder,
    InsertsElsewhere,
    LeavesThePositions,
}

#[derive(Clone)]
struct MutantTable(WrongTable, MemoryDb, MemoryStore);

fn mutant(wrong: WrongTable, memory: &Memory) -> Faulty<MutantTable> {
    Faulty(MutantTable(wrong, memory.0.clone(), MemoryStore::new()))
}

#[async_trait]
impl StoreFaults for MutantTable {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.2
    }

    async fn append(
        &self,
        tx: &mut MemoryTx,
        of: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        let mut appended = MemoryStore::new().append(tx, of, expected, events).await?;
        if self.0 == WrongTable::LeavesThePositions && events[0].event_type.as_str() == "Inserted" {
            appended.events[0].global_position = GlobalPosition::START;
        }
        Ok(appended)
    }
}

/// Work whose failure is hidden from the code that commits.
struct Swallow<'w>(&'w mut dyn TableWork<MemoryTx>, Option<Error>);

#[async_trait]
impl TableWork<MemoryTx> for Swallow<'_> {
    async fn run(&mut self, tx: &mut MemoryTx) -> Result<()> {
        self.1 = self.0.run(tx).await.err();
        Ok(())
    }
}

#[async_trait]
impl TableFaults for MutantTable {
    type Inner = MemoryStore;

    fn inner(&self) -> &MemoryStore {
        &self.2
    }

    async fn in_transaction(&self, connection: &mut MemoryTx, work: &mut dyn TableWork<MemoryTx>) -> Result<()> {
        match self.0 {
            WrongTable::KeepsWhatFailed => {
                let mut swallow = Swallow(work, None);
                MemoryStore::new().in_transaction(connection, &mut swallow).await?;
                swallow.1.map_or(Ok(()), Err)
            }
            WrongTable::ForgetsWhatWasDone => {
                let mut swallow = Swallow(work, None);
                struct Fails<'a, 'w>(&'a mut Swallow<'w>);
                #[async_trait]
                impl TableWork<MemoryTx> for Fails<'_, '_> {
                    async fn run(&mut self, tx: &mut MemoryTx) -> Result<()> {
                        self.0.run(tx).await?;
                        Err(Error::Input(InputFault::EmptyAppend))
                    }
                }
                let done = MemoryStore::new().in_transaction(connection, &mut Fails(&mut swallow)).await;
                match (done, swallow.1) {
                    (_, Some(error)) => Err(error),
                    (Err(Error::Input(InputFault::EmptyAppend)), None) => Ok(()),
                    (done, None) => done,
                }
            }
            WrongTable::WorksInATransaction => match MemoryStore::new().in_transaction(connection, work).await {
                Err(Error::Transaction(TransactionFault::InTransaction { .. })) => work.run(connection).await,
                done => done,
            },
            _ => MemoryStore::new().in_transaction(connection, work).await,
        }
    }

    async fn last_position(&self, tx: &mut MemoryTx) -> Result<GlobalPosition> {
        if self.0 == WrongTable::ForgetsTheLast {
            return Ok(GlobalPosition::START);
        }
        MemoryStore::new().last_position(tx).await
    }

    async fn count_events(&self, tx: &mut MemoryTx, range: PositionRange) -> Result<Vec<StoredCount>> {
        let mut counts = MemoryStore::new().count_events(tx, range).await?;
        if self.0 == WrongTable::CountsOneTooMany {
            counts.iter_mut().for_each(|count| count.events += 1);
        }
        Ok(counts)
    }

    async fn stored_events(&self, tx: &mut MemoryTx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        let mut query = query.clone();
        match self.0 {
            WrongTable::IgnoresWithoutHeader => query.without_header = false,
            WrongTable::IgnoresMaxBytes => query.max_bytes = u64::MAX,
            WrongTable::IgnoresVersions => query.versions.clear(),
            WrongTable::IgnoresTheLimit => query.limit = u32::MAX,
            WrongTable::IgnoresTheRange => query.range = PositionRange::default(),
            _ => {}
        }
        let mut events = MemoryStore::new().stored_events(tx, &query).await?;
        if self.0 == WrongTable::ReadsBackwards {
            events.reverse();
        }
        Ok(events)
    }

    async fn stored_events_at(&self, tx: &mut MemoryTx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>> {
        let mut events = MemoryStore::new().stored_events_at(tx, positions).await?;
        match self.0 {
            WrongTable::FindsBackwards => events.reverse(),
            WrongTable::FindsTwice => events.extend(events.last().cloned()),
            WrongTable::FindsNone => events.clear(),
            // As if a trigger had written the time of the change.
            WrongTable::ReplacesMoreThanPayloads => events.iter_mut().for_each(|event| {
                if event.payload.is_empty() && event.event_type.as_str() == "Swap" {
                    event.created_at += Duration::from_secs(1);
                }
            }),
            _ => {}
        }
        Ok(events)
    }

    async fn replace_payloads(
        &self,
        tx: &mut MemoryTx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        let mut replacements = replacements.to_vec();
        if self.0 == WrongTable::ReplacesNothing {
            return Ok(replacements.iter().map(|replacement| replacement.position).collect());
        }
        if self.0 == WrongTable::ReplacesAtOnce {
            let mut own = self.1.begin();
            let replaced = MemoryStore::new().replace_payloads(&mut own, &replacements).await?;
            own.commit()?;
            return Ok(replaced);
        }
        if self.0 == WrongTable::ReplacesWhatHasChanged {
            for replacement in &mut replacements {
                for event in MemoryStore::new().stored_events_at(tx, &[replacement.position]).await? {
                    replacement.old = event.payload;
                }
            }
        }
        MemoryStore::new().replace_payloads(tx, &replacements).await
    }

    async fn insert_events(&self, tx: &mut MemoryTx, events: &[PersistedEvent]) -> Result<()> {
        let mut events = events.to_vec();
        if self.0 == WrongTable::InsertsElsewhere {
            for event in &mut events {
                event.global_position = (event.global_position.get() + 1).try_into()?;
            }
        }
        let inserted = MemoryStore::new().insert_events(tx, &events).await;
        match inserted {
            Err(Error::Input(InputFault::OutOfRange { .. })) if self.0 == WrongTable::InsertsInAnyOrder => Ok(()),
            Err(Error::DuplicateEventId { .. }) if self.0 == WrongTable::InsertsKnownIds => Ok(()),
            inserted => inserted,
        }
    }

    async fn settled_position(&self, connection: &mut MemoryTx) -> Result<GlobalPosition> {
        match (self.0, MemoryStore::new().settled_position(connection).await) {
            (WrongTable::SettlesNothing, Ok(_)) => Ok(GlobalPosition::START),
            (WrongTable::SettlesInATransaction, Err(Error::Transaction(TransactionFault::InTransaction { .. }))) => {
                self.last_position(connection).await
            }
            (_, settled) => settled,
        }
    }

    async fn location(&self, connection: &mut MemoryTx) -> Result<Option<TableLocation>> {
        if self.0 == WrongTable::MovesAbout {
            return Ok(Some(TableLocation::Table(uuid::Uuid::now_v7().to_string())));
        }
        MemoryStore::new().location(connection).await
    }
}

#[tokio::test]
async fn rules_of_an_event_table_are_checked() {
    let memory = Memory::new();
    conformance::event_table(&memory, &mutant(WrongTable::Nothing, &memory)).await;
    for (wrong, rule) in [
        (WrongTable::KeepsWhatFailed, "what failed left something"),
        (WrongTable::ForgetsWhatWasDone, "what succeeds is committed"),
        (WrongTable::WorksInATransaction, "a connection in a transaction is refused"),
        (WrongTable::CountsOneTooMany, "events are counted by type, version and header"),
        (WrongTable::IgnoresWithoutHeader, "a query gives what it asks for"),
        (WrongTable::IgnoresMaxBytes, "a query gives what it asks for"),
        (WrongTable::IgnoresVersions, "a query gives what it asks for"),
        (WrongTable::ReplacesWhatHasChanged, "a payload is exchanged only while it is what was read"),
        (WrongTable::InsertsKnownIds, "what does not belong is not inserted"),
        (WrongTable::MovesAbout, "the table is in two places"),
        (WrongTable::ForgetsTheLast, "the last position is that of the last event"),
        (WrongTable::SettlesNothing, "all is settled where nothing is in flight"),
        (WrongTable::SettlesInATransaction, "a connection in a transaction is refused"),
        (WrongTable::ReadsBackwards, "in ascending order"),
        (WrongTable::IgnoresTheLimit, "a query gives what it asks for"),
        (WrongTable::IgnoresTheRange, "a query gives what it asks for"),
        (WrongTable::FindsBackwards, "in ascending order, each once"),
        (WrongTable::FindsTwice, "in ascending order, each once"),
        (WrongTable::FindsNone, "in ascending order, each once"),
        (WrongTable::ReplacesAtOnce, "what failed left something"),
        (WrongTable::ReplacesNothing, "what succeeds is committed"),
        (WrongTable::ReplacesMoreThanPayloads, "nothing but the payload and the metadata changes"),
        (WrongTable::InsertsInAnyOrder, "what does not belong is not inserted: expected OutOfRange"),
        (WrongTable::InsertsElsewhere, "events are inserted as they are"),
        (WrongTable::LeavesThePositions, "positions go on after those that were inserted"),
    ] {
        let memory = Memory::new();
        let mutant = mutant(wrong, &memory);
        caught(&format!("{wrong:?}"), rule, async move { conformance::event_table(&memory, &mutant).await }).await;
    }
}
