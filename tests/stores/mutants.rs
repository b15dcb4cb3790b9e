//! Stores that break one rule of a port each. The suite finds each of them, and says which rule it is.
//!
//! A mutant is a thin wrapper around an adapter in memory. One that the suite passes is a rule that nobody checks.
//! Rules that take a real database (transactions that are missing or aborted, appends at the same time) have their
//! mutants in `jsonb.rs`.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::error::KmsFault;
use eventseal::keys::KekId;
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::memory::{MemoryDb, MemoryStore, MemoryTx};
use eventseal::{
    AggregateRef, Appended, Error, EventFilter, EventPage, EventStore, ExpectedVersion, GlobalPosition, Keyring,
    Namespace, NewEvent, PersistedEvent, Result, Stream, VersionRange,
};
use serde_json::Value;
use std::sync::Mutex;
use support::{Memory, caught};

/// The rule that a mutant of a store breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    RespellsPayloads,
    SortsMembers,
    CommitsAtOnce,
    ReadsCommittedOnly,
    ReturnsAnotherOrder,
    ReturnsAnotherPayload,
    LeavesAGap,
    GivesDescendingPositions,
    IgnoresNoStream,
    IgnoresExact,
    RefusesAny,
    WritesBeforeItRefuses,
    TakesKnownIds,
    TakesNoEvents,
    LosesMetadata,
    LosesIds,
    RoundsTimes,
    ChangesEventIds,
    ReadsBackwards,
    ExcludesTheFirst,
    ExcludesTheLast,
    BeginsAtThePosition,
    IgnoresEventTypes,
    IgnoresAggregateTypes,
    StandsStill,
    MiscountsScanned,
    IgnoresTheLimit,
    ForgetsTheLatest,
}

#[derive(Clone)]
struct Mutant {
    wrong: Wrong,
    db: MemoryDb,
}

impl Mutant {
    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }

    /// Damages an event in the table.
    fn spoil(&self, event: &mut PersistedEvent) {
        match self.wrong {
            Wrong::RespellsPayloads | Wrong::SortsMembers => {
                if let Ok(value) = serde_json::from_slice::<Value>(&event.payload) {
                    let compact = self.is(Wrong::SortsMembers);
                    event.payload = if compact { value.to_string() } else { format!("{value:#}") }.into_bytes();
                }
            }
            Wrong::LosesMetadata => event.metadata = None,
            Wrong::LosesIds => event.correlation_id = None,
            Wrong::RoundsTimes => event.created_at = event.created_at.replace_microsecond(0).unwrap(),
            Wrong::ChangesEventIds => event.event_id = uuid::Uuid::nil(),
            _ => {}
        }
    }
}

#[async_trait]
impl EventStore for Mutant {
    type Tx = MemoryTx;

    async fn append(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        if self.is(Wrong::TakesNoEvents) && events.is_empty() {
            return Ok(Appended { events: Vec::new() });
        }
        let events = events.to_vec();
        let expected = match (self.wrong, expected) {
            (Wrong::IgnoresNoStream, ExpectedVersion::NoStream) | (Wrong::IgnoresExact, ExpectedVersion::Exact(_)) => {
                ExpectedVersion::Any
            }
            (Wrong::RefusesAny, ExpectedVersion::Any) => ExpectedVersion::NoStream,
            (_, expected) => expected,
        };
        if self.is(Wrong::CommitsAtOnce) {
            let mut own = self.db.begin();
            let appended = MemoryStore::new().append(&mut own, aggregate, expected, &events).await?;
            own.commit()?;
            return Ok(appended);
        }
        let appended = MemoryStore::new().append(tx, aggregate, expected, &events).await;
        if self.is(Wrong::WritesBeforeItRefuses) && matches!(appended, Err(Error::VersionConflict { .. })) {
            MemoryStore::new().append(tx, aggregate, ExpectedVersion::Any, &events[..1]).await?;
        }
        if self.is(Wrong::TakesKnownIds) && matches!(appended, Err(Error::DuplicateEventId { .. })) {
            let events: Vec<_> = events.into_iter().map(|event| event.with_id(uuid::Uuid::now_v7())).collect();
            return MemoryStore::new().append(tx, aggregate, expected, &events).await;
        }
        let mut appended = appended?;
        match self.wrong {
            Wrong::ReturnsAnotherOrder => appended.events.reverse(),
            Wrong::ReturnsAnotherPayload => appended.events.iter_mut().for_each(|event| event.payload = b"{}".to_vec()),
            Wrong::LeavesAGap => {
                for event in &mut appended.events {
                    event.aggregate_version = (event.aggregate_version.get() * 2).try_into()?;
                }
            }
            Wrong::GivesDescendingPositions => {
                for event in &mut appended.events {
                    event.global_position = (1_000_000 - event.global_position.get()).try_into()?;
                }
            }
            _ => {}
        }
        Ok(appended)
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut MemoryTx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        let mut range = range;
        match self.wrong {
            Wrong::ExcludesTheFirst => range.from = range.from.map(|from| from + 1),
            Wrong::ExcludesTheLast => range.to = range.to.map(|to| to - 1),
            _ => {}
        }
        let mut stream = if self.is(Wrong::ReadsCommittedOnly) {
            MemoryStore::new().read_aggregate_stream(&mut self.db.begin(), aggregate, range).await?
        } else {
            MemoryStore::new().read_aggregate_stream(tx, aggregate, range).await?
        };
        if self.is(Wrong::ReadsBackwards) {
            stream.events.reverse();
        }
        stream.events.iter_mut().for_each(|event| self.spoil(event));
        Ok(stream)
    }

    async fn read_events(
        &self,
        tx: &mut MemoryTx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        let mut filter = filter.clone();
        let (mut from, mut limit) = (after, limit);
        match self.wrong {
            Wrong::IgnoresEventTypes => filter.event_types.clear(),
            Wrong::IgnoresAggregateTypes => filter.aggregate_types.clear(),
            Wrong::BeginsAtThePosition => from = (after.get() - 1).max(0).try_into()?,
            Wrong::IgnoresTheLimit => limit = limit.saturating_add(5),
            _ => {}
        }
        let mut page = MemoryStore::new().read_events(tx, from, limit, &filter).await?;
        match self.wrong {
            Wrong::StandsStill => page.next = after,
            Wrong::MiscountsScanned => page.scanned += 1,
            _ => {}
        }
        page.events.iter_mut().for_each(|event| self.spoil(event));
        Ok(page)
    }

    async fn latest_global_position(&self, tx: &mut MemoryTx) -> Result<GlobalPosition> {
        let latest = MemoryStore::new().latest_global_position(tx).await?;
        Ok(if self.is(Wrong::ForgetsTheLatest) { GlobalPosition::START } else { latest })
    }
}

async fn store_is_caught(wrong: Wrong, rule: &str) {
    let memory = Memory::new();
    let mutant = Mutant { wrong, db: memory.0.clone() };
    caught(&format!("{wrong:?}"), rule, async move { conformance::event_store(&memory, &mutant).await }).await;
}

#[tokio::test]
async fn a_mutant_that_does_nothing_wrong_passes() {
    let memory = Memory::new();
    let mutant = Mutant { wrong: Wrong::Nothing, db: memory.0.clone() };
    conformance::event_store(&memory, &mutant).await;
}

#[tokio::test]
async fn every_rule_of_an_event_store_is_checked() {
    for (wrong, rule) in [
        (Wrong::RespellsPayloads, "payloads are kept byte for byte"),
        (Wrong::SortsMembers, "payloads are kept byte for byte"),
        (Wrong::CommitsAtOnce, "visible to others once the caller commits, and not before"),
        (Wrong::ReadsCommittedOnly, "a transaction sees what it appended"),
        (Wrong::ReturnsAnotherOrder, "in the order in which they were passed"),
        (Wrong::ReturnsAnotherPayload, "payloads as they were passed"),
        (Wrong::LeavesAGap, "versions are consecutive, from 1 on"),
        (Wrong::GivesDescendingPositions, "positions ascend"),
        (Wrong::IgnoresNoStream, "the expected version is checked"),
        (Wrong::IgnoresExact, "the expected version is checked"),
        (Wrong::RefusesAny, "append at any version failed"),
        (Wrong::WritesBeforeItRefuses, "append after a conflict, which writes nothing"),
        (Wrong::TakesKnownIds, "what must be refused is refused: expected DuplicateEventId"),
        (Wrong::TakesNoEvents, "what must be refused is refused: expected EmptyAppend"),
        (Wrong::LosesMetadata, "metadata is kept as JSON"),
        (Wrong::LosesIds, "trace, correlation and causation ids are kept"),
        (Wrong::RoundsTimes, "times are kept in microseconds"),
        (Wrong::ChangesEventIds, "event ids are kept"),
        (Wrong::ReadsBackwards, "versions ascend"),
        (Wrong::ExcludesTheFirst, "bounds are inclusive"),
        (Wrong::ExcludesTheLast, "bounds are inclusive"),
        (Wrong::BeginsAtThePosition, "begins after the position it was asked for"),
        (Wrong::IgnoresEventTypes, "a filter lets its types through"),
        (Wrong::IgnoresAggregateTypes, "a filter lets its types through"),
        (Wrong::StandsStill, "ends at `next`"),
        (Wrong::MiscountsScanned, "`scanned`"),
        (Wrong::IgnoresTheLimit, "a page holds no more than its limit"),
        (Wrong::ForgetsTheLatest, "the latest position"),
    ] {
        store_is_caught(wrong, rule).await;
    }
}

// ---- KMS

#[derive(Clone, Copy, Debug, PartialEq)]
enum WrongKms {
    Nothing,
    MakesNoKeys,
    MovesToAnotherMasterKey,
    WrapsAlike,
    OpensNothing,
    RewrapsUnderAnyMasterKey,
    IgnoresTheNamespace,
    IgnoresTheKekId,
    OpensWhatWasAltered,
    OpensUnderAnyMasterKey,
    HandsOutOneKey,
    RewrapsToAnotherKey,
    KeepsTheKeyInTheClear,
    SaysAnotherMasterKey,
    CallsARefusalAnOutage,
    HasNoName,
}

struct MutantKms {
    wrong: WrongKms,
    keyring: Keyring,
    always: KekContext,
    last: Mutex<Option<WrappedKek>>,
}

impl MutantKms {
    fn context(&self, context: &KekContext) -> KekContext {
        match self.wrong {
            WrongKms::IgnoresTheNamespace => KekContext { namespace: self.always.namespace.clone(), ..context.clone() },
            WrongKms::IgnoresTheKekId => KekContext { kek_id: self.always.kek_id, ..context.clone() },
            _ => context.clone(),
        }
    }

    fn failed<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::Kms(KmsFault::Refused { .. })) if self.wrong == WrongKms::CallsARefusalAnOutage => {
                Err(Error::Collision { source: None })
            }
            result => result,
        }
    }
}

#[async_trait]
impl Kms for MutantKms {
    fn provider(&self) -> &str {
        if self.wrong == WrongKms::HasNoName { "" } else { "mutant" }
    }

    async fn master_key_id(&self) -> Result<String> {
        if self.wrong == WrongKms::SaysAnotherMasterKey {
            Ok("other".to_owned())
        } else {
            self.keyring.master_key_id().await
        }
    }

    async fn generate_kek(&self, context: &KekContext) -> Result<WrappedKek> {
        let known = self.last.lock().unwrap().clone();
        if let (WrongKms::HandsOutOneKey, Some(known)) = (self.wrong, known) {
            let key = self.keyring.unwrap_kek(&known, context).await?;
            return self.keyring.wrap_kek(&key, context).await;
        }
        let wrapped = self.keyring.generate_kek(&self.context(context)).await?;
        self.last.lock().unwrap().get_or_insert_with(|| wrapped.clone());
        if self.wrong == WrongKms::KeepsTheKeyInTheClear {
            let key = self.keyring.unwrap_kek(&wrapped, context).await?;
            return Ok(WrappedKek { ciphertext: [&wrapped.ciphertext[..], key.expose()].concat(), ..wrapped });
        }
        Ok(wrapped)
    }

    fn makes_keys_under(&self, _: &str) -> bool {
        self.wrong != WrongKms::MakesNoKeys
    }

    async fn wrap_kek(&self, kek: &SecretKey, context: &KekContext) -> Result<WrappedKek> {
        let last = self.last.lock().unwrap().clone();
        if let (WrongKms::WrapsAlike, Some(last)) = (self.wrong, last) {
            return Ok(last);
        }
        self.keyring.wrap_kek(kek, &self.context(context)).await
    }

    async fn unwrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<SecretKey> {
        let mut wrapped = wrapped.clone();
        let length = wrapped.ciphertext.len();
        match self.wrong {
            WrongKms::KeepsTheKeyInTheClear if length > 32 => wrapped.ciphertext.truncate(length - 32),
            WrongKms::OpensUnderAnyMasterKey => wrapped.master_key_id = self.keyring.master_key_id().await?,
            _ => {}
        }
        let last = self.last.lock().unwrap().clone();
        if let (WrongKms::OpensNothing, 0, Some(last)) = (self.wrong, length, &last) {
            return self.keyring.unwrap_kek(last, context).await;
        }
        let opened = self.keyring.unwrap_kek(&wrapped, &self.context(context)).await;
        if let (WrongKms::OpensWhatWasAltered, Err(_), Some(last)) = (self.wrong, &opened, last)
            && last.ciphertext.len() == length
            && let Ok(key) = self.keyring.unwrap_kek(&last, context).await
        {
            return Ok(key);
        }
        self.failed(opened)
    }

    async fn rewrap_kek(&self, wrapped: &WrappedKek, context: &KekContext) -> Result<WrappedKek> {
        let mut wrapped = wrapped.clone();
        if self.wrong == WrongKms::RewrapsUnderAnyMasterKey {
            wrapped.master_key_id = self.keyring.master_key_id().await?;
        }
        let key = self.unwrap_kek(&wrapped, context).await?;
        if self.wrong == WrongKms::MovesToAnotherMasterKey {
            return Ok(WrappedKek { master_key_id: "other".to_owned(), ..self.wrap_kek(&key, context).await? });
        }
        if self.wrong == WrongKms::RewrapsToAnotherKey {
            return self.keyring.generate_kek(context).await;
        }
        self.wrap_kek(&key, context).await
    }
}

#[tokio::test]
async fn every_rule_of_a_kms_is_checked() {
    let mutant = |wrong| MutantKms {
        wrong,
        keyring: Keyring::generate("main").unwrap(),
        always: KekContext { namespace: Namespace::new("always").unwrap(), kek_id: KekId(uuid::Uuid::nil()) },
        last: Mutex::default(),
    };
    conformance::kms(&mutant(WrongKms::Nothing)).await;
    for (wrong, rule) in [
        (WrongKms::MakesNoKeys, "the active master key makes data keys"),
        (WrongKms::MovesToAnotherMasterKey, "to the active master key"),
        (WrongKms::WrapsAlike, "no two wrappings are alike"),
        (WrongKms::OpensNothing, "an empty ciphertext was accepted"),
        (WrongKms::RewrapsUnderAnyMasterKey, "another master key was accepted"),
        (WrongKms::IgnoresTheNamespace, "another namespace was accepted"),
        (WrongKms::IgnoresTheKekId, "another key id was accepted"),
        (WrongKms::OpensWhatWasAltered, "an altered ciphertext was accepted"),
        (WrongKms::OpensUnderAnyMasterKey, "another master key was accepted"),
        (WrongKms::HandsOutOneKey, "every key is new"),
        (WrongKms::RewrapsToAnotherKey, "a key-encryption key stays what it is"),
        (WrongKms::KeepsTheKeyInTheClear, "the key is in its own ciphertext"),
        (WrongKms::SaysAnotherMasterKey, "a move would not know what it has moved"),
        (WrongKms::CallsARefusalAnOutage, "must be refused with KmsRefused"),
        (WrongKms::HasNoName, "a provider has a name"),
    ] {
        let mutant = mutant(wrong);
        caught(&format!("{wrong:?}"), rule, async move { conformance::kms(&mutant).await }).await;
    }
}
