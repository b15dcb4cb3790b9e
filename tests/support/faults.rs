//! Parts that do what another part does, except where a test says otherwise: key stores, event stores, event tables and
//! KMSs. The file is long because it forwards every call of every port.
//!
//! A test implements [`KeyFaults`], [`StoreFaults`], [`TableFaults`] or [`KmsFaults`] for a type of its own and writes
//! only the calls that it changes. [`Faulty`] makes the port out of it.

mod kms;

use async_trait::async_trait;
use eventseal::erasure::DueScope;
use eventseal::keys::{
    DataKeyRecord, DestroyedKey, FirstKeys, FirstKeysCreated, KekId, KekRecord, KekState, KekUsage, KeyHistory, KeyId,
    KeyRewrap, KeyRows, KeyStore, KeyTable, KeyTableNames, KeyWork, KeyWrapping, ListedScope, LogDisagreement,
    LogEntry, LogHead, LogRow, LogRows, NewDataKey, RestoredScopes, ScopeLock, ScopeRecord, ScopeSetting, SealedEntry,
};
use eventseal::kms::{KekContext, Kms, SecretKey, WrappedKek};
use eventseal::store::{
    BesideKeys, EventTable, PayloadReplacement, PositionRange, SealIndex, StoredCount, StoredQuery, TableLocation,
    TableWork,
};
use eventseal::{
    AggregateRef, Appended, EventFilter, EventPage, EventStore, ExpectedVersion, GlobalPosition, KeyScope, Namespace,
    NewEvent, PersistedEvent, Result, Stream, VersionRange,
};
pub use kms::KmsFaults;
use time::OffsetDateTime;

/// A port with the faults of `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faulty<T>(pub T);

impl<T> std::ops::Deref for Faulty<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a faulty key table does. Each call goes to the inner key table, unless a test writes its own.
#[async_trait]
pub trait KeyFaults: Send + Sync {
    type Inner: KeyTable;

    fn inner(&self) -> &Self::Inner;

    /// Runs before each call that takes a connection, and gets the call's name. An error takes the place of the call.
    fn before(&self, call: &'static str) -> Result<()> {
        let _ = call;
        Ok(())
    }

    fn can_look_first(&self) -> bool {
        self.inner().can_look_first()
    }

    fn is_in_transaction(&self, tx: &KeyTx<Self>) -> bool {
        self.inner().is_in_transaction(tx)
    }

    async fn sees_newest_state(&self, tx: &mut KeyTx<Self>) -> Result<bool> {
        self.inner().sees_newest_state(tx).await
    }

    async fn namespace(&self, tx: &mut KeyTx<Self>) -> Result<Option<Namespace>> {
        self.inner().namespace(tx).await
    }

    async fn active_kek(&self, tx: &mut KeyTx<Self>, partition: &str) -> Result<Option<KekRecord>> {
        self.inner().active_kek(tx, partition).await
    }

    async fn keks(&self, tx: &mut KeyTx<Self>, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        self.inner().keks(tx, kek_ids).await
    }

    async fn announce_writing(&self, tx: &mut KeyTx<Self>) -> Result<()> {
        self.inner().announce_writing(tx).await
    }

    async fn scopes(&self, tx: &mut KeyTx<Self>, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        self.inner().scopes(tx, scopes, lock).await
    }

    async fn create_scopes(&self, tx: &mut KeyTx<Self>, scopes: &[KeyScope]) -> Result<()> {
        self.inner().create_scopes(tx, scopes).await
    }

    async fn insert_keys(&self, tx: &mut KeyTx<Self>, keys: &[NewDataKey]) -> Result<()> {
        self.inner().insert_keys(tx, keys).await
    }

    async fn commit_durably(&self, tx: &mut KeyTx<Self>) -> Result<()> {
        self.inner().commit_durably(tx).await
    }

    async fn data_keys(&self, tx: &mut KeyTx<Self>, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        self.inner().data_keys(tx, key_ids).await
    }

    async fn change_scope(&self, tx: &mut KeyTx<Self>, entry: &LogEntry) -> Result<()> {
        self.inner().change_scope(tx, entry).await
    }

    async fn destroy_keys(
        &self,
        tx: &mut KeyTx<Self>,
        scope: &KeyScope,
        at: OffsetDateTime,
    ) -> Result<Vec<DestroyedKey>> {
        self.inner().destroy_keys(tx, scope, at).await
    }

    async fn history(&self, tx: &mut KeyTx<Self>, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        self.inner().history(tx, scope).await
    }

    async fn kek_usage(&self, tx: &mut KeyTx<Self>) -> Result<Vec<KekUsage>> {
        self.inner().kek_usage(tx).await
    }

    async fn scopes_from(&self, tx: &mut KeyTx<Self>, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        self.inner().scopes_from(tx, from, limit).await
    }

    async fn restored_scopes(&self, tx: &mut KeyTx<Self>, limit: u32) -> Result<RestoredScopes> {
        self.inner().restored_scopes(tx, limit).await
    }

    async fn due_scopes(
        &self,
        tx: &mut KeyTx<Self>,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        self.inner().due_scopes(tx, by, after, limit).await
    }

    async fn held_scopes(&self, tx: &mut KeyTx<Self>, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        self.inner().held_scopes(tx, after, limit).await
    }

    async fn log_head(&self, tx: &mut KeyTx<Self>) -> Result<LogHead> {
        self.inner().log_head(tx).await
    }

    async fn log_entries(&self, tx: &mut KeyTx<Self>, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        self.inner().log_entries(tx, after, limit).await
    }

    async fn log_disagreements(&self, tx: &mut KeyTx<Self>, limit: u32) -> Result<Vec<LogDisagreement>> {
        self.inner().log_disagreements(tx, limit).await
    }

    async fn insert_kek(&self, rows: &mut dyn KeyRows, kek: &KekRecord) -> Result<bool> {
        rows.insert_kek(kek).await
    }

    async fn change_kek_state(
        &self,
        rows: &mut dyn KeyRows,
        kek_id: KekId,
        from: KekState,
        to: KekState,
    ) -> Result<bool> {
        rows.change_kek_state(kek_id, from, to).await
    }

    async fn change_kek_wrapping(
        &self,
        rows: &mut dyn KeyRows,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        rows.change_kek_wrapping(old, provider, wrapped, at).await
    }

    async fn lock_live_keys(
        &self,
        rows: &mut dyn KeyRows,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        rows.lock_live_keys(kek_ids, after, limit).await
    }

    async fn rewrap_keys(
        &self,
        rows: &mut dyn KeyRows,
        keys: &[KeyRewrap],
        to: KekId,
        at: OffsetDateTime,
    ) -> Result<Vec<KeyWrapping>> {
        rows.rewrap_keys(keys, to, at).await
    }

    async fn insert_first_key(&self, rows: &mut dyn KeyRows, key: &NewDataKey) -> Result<bool> {
        rows.insert_first_key(key).await
    }

    async fn lock_log_head(&self, rows: &mut dyn KeyRows) -> Result<LogHead> {
        rows.lock_log_head().await
    }

    async fn unsealed_entries(
        &self,
        rows: &mut dyn KeyRows,
        after: Option<(&KeyScope, u32)>,
        limit: u32,
    ) -> Result<Vec<LogEntry>> {
        rows.unsealed_entries(after, limit).await
    }

    async fn seal_entries(&self, rows: &mut dyn KeyRows, from: &LogHead, sealed: &[LogRow]) -> Result<bool> {
        rows.seal_entries(from, sealed).await
    }

    async fn destroy_by_id(&self, rows: &mut dyn KeyRows, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        rows.destroy_by_id(key_ids, at).await
    }

    async fn set_scope(&self, rows: &mut dyn KeyRows, to: &ScopeSetting<'_>) -> Result<bool> {
        rows.set_scope(to).await
    }
}

/// The transaction of the key store inside.
pub type KeyTx<T> = <<T as KeyFaults>::Inner as KeyStore>::Tx;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: KeyFaults> KeyStore for Faulty<T> {
    type Tx = KeyTx<T>;

    fn can_look_first(&self) -> bool {
        self.0.can_look_first()
    }

    fn is_in_transaction(&self, tx: &Self::Tx) -> bool {
        self.0.is_in_transaction(tx)
    }

    /// A test sees every call.
    fn table_names(&self) -> Option<&KeyTableNames> {
        None
    }

    async fn sees_newest_state(&self, tx: &mut Self::Tx) -> Result<bool> {
        self.0.before("sees_newest_state")?;
        self.0.sees_newest_state(tx).await
    }

    async fn namespace(&self, tx: &mut Self::Tx) -> Result<Option<Namespace>> {
        self.0.before("namespace")?;
        self.0.namespace(tx).await
    }

    async fn active_kek(&self, tx: &mut Self::Tx, partition: &str) -> Result<Option<KekRecord>> {
        self.0.before("active_kek")?;
        self.0.active_kek(tx, partition).await
    }

    async fn keks(&self, tx: &mut Self::Tx, kek_ids: &[KekId]) -> Result<Vec<KekRecord>> {
        self.0.before("keks")?;
        self.0.keks(tx, kek_ids).await
    }

    async fn announce_writing(&self, tx: &mut Self::Tx) -> Result<()> {
        self.0.before("announce_writing")?;
        self.0.announce_writing(tx).await
    }

    async fn scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope], lock: ScopeLock) -> Result<Vec<ScopeRecord>> {
        self.0.before("scopes")?;
        self.0.scopes(tx, scopes, lock).await
    }

    /// A test sees every call.
    fn creates_at_once(&self) -> bool {
        false
    }

    async fn create_if_new(&self, tx: &mut Self::Tx, first: &FirstKeys<'_>) -> Result<FirstKeysCreated> {
        self.0.before("create_if_new")?;
        self.0.inner().create_if_new(tx, first).await
    }

    async fn create_scopes(&self, tx: &mut Self::Tx, scopes: &[KeyScope]) -> Result<()> {
        self.0.before("create_scopes")?;
        self.0.create_scopes(tx, scopes).await
    }

    async fn insert_keys(&self, tx: &mut Self::Tx, keys: &[NewDataKey]) -> Result<()> {
        self.0.before("insert_keys")?;
        self.0.insert_keys(tx, keys).await
    }

    async fn commit_durably(&self, tx: &mut Self::Tx) -> Result<()> {
        self.0.before("commit_durably")?;
        self.0.commit_durably(tx).await
    }

    async fn data_keys(&self, tx: &mut Self::Tx, key_ids: &[KeyId]) -> Result<Vec<DataKeyRecord>> {
        self.0.before("data_keys")?;
        self.0.data_keys(tx, key_ids).await
    }

    async fn change_scope(&self, tx: &mut Self::Tx, entry: &LogEntry) -> Result<()> {
        self.0.before("change_scope")?;
        self.0.change_scope(tx, entry).await
    }

    async fn destroy_keys(&self, tx: &mut Self::Tx, scope: &KeyScope, at: OffsetDateTime) -> Result<Vec<DestroyedKey>> {
        self.0.before("destroy_keys")?;
        self.0.destroy_keys(tx, scope, at).await
    }

    async fn history(&self, tx: &mut Self::Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        self.0.before("history")?;
        self.0.history(tx, scope).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: KeyFaults> KeyTable for Faulty<T> {
    async fn in_transaction(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn KeyWork,
    ) -> Result<()> {
        self.0.before("in_transaction")?;
        self.0.inner().in_transaction(connection, operation, &mut FaultyWork { faults: &self.0, work }).await
    }

    async fn transact(
        &self,
        connection: &mut Self::Tx,
        operation: &'static str,
        work: &mut dyn TableWork<Self::Tx>,
    ) -> Result<()> {
        self.0.before("transact")?;
        self.0.inner().transact(connection, operation, work).await
    }

    async fn kek_usage(&self, tx: &mut Self::Tx) -> Result<Vec<KekUsage>> {
        self.0.before("kek_usage")?;
        self.0.kek_usage(tx).await
    }

    async fn scopes_from(&self, tx: &mut Self::Tx, from: &KeyScope, limit: u32) -> Result<Vec<ListedScope>> {
        self.0.before("scopes_from")?;
        self.0.scopes_from(tx, from, limit).await
    }

    async fn restored_scopes(&self, tx: &mut Self::Tx, limit: u32) -> Result<RestoredScopes> {
        self.0.before("restored_scopes")?;
        self.0.restored_scopes(tx, limit).await
    }

    async fn due_scopes(
        &self,
        tx: &mut Self::Tx,
        by: Option<OffsetDateTime>,
        after: Option<&DueScope>,
        limit: u32,
    ) -> Result<Vec<DueScope>> {
        self.0.before("due_scopes")?;
        self.0.due_scopes(tx, by, after, limit).await
    }

    async fn held_scopes(&self, tx: &mut Self::Tx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        self.0.before("held_scopes")?;
        self.0.held_scopes(tx, after, limit).await
    }

    async fn log_head(&self, tx: &mut Self::Tx) -> Result<LogHead> {
        self.0.before("log_head")?;
        self.0.log_head(tx).await
    }

    async fn log_entries(&self, tx: &mut Self::Tx, after: u64, limit: u32) -> Result<Vec<SealedEntry>> {
        self.0.before("log_entries")?;
        self.0.log_entries(tx, after, limit).await
    }

    async fn log_disagreements(&self, tx: &mut Self::Tx, limit: u32) -> Result<Vec<LogDisagreement>> {
        self.0.before("log_disagreements")?;
        self.0.log_disagreements(tx, limit).await
    }
}

/// Work on rows with the faults of `T`.
struct FaultyWork<'a, T> {
    faults: &'a T,
    work: &'a mut dyn KeyWork,
}

#[async_trait]
impl<T: KeyFaults> KeyWork for FaultyWork<'_, T> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.work.run(&mut FaultyRows { faults: self.faults, rows }).await
    }
}

struct FaultyRows<'a, T> {
    faults: &'a T,
    rows: &'a mut dyn KeyRows,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: KeyFaults> KeyRows for FaultyRows<'_, T> {
    async fn active_kek(&mut self, partition: &str) -> Result<Option<KekRecord>> {
        self.rows.active_kek(partition).await
    }

    async fn kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        self.rows.kek(kek_id).await
    }

    async fn lock_kek(&mut self, kek_id: KekId) -> Result<Option<KekRecord>> {
        self.rows.lock_kek(kek_id).await
    }

    async fn insert_kek(&mut self, kek: &KekRecord) -> Result<bool> {
        self.faults.before("insert_kek")?;
        self.faults.insert_kek(self.rows, kek).await
    }

    async fn change_kek_state(&mut self, kek_id: KekId, from: KekState, to: KekState) -> Result<bool> {
        self.faults.before("change_kek_state")?;
        self.faults.change_kek_state(self.rows, kek_id, from, to).await
    }

    async fn change_kek_wrapping(
        &mut self,
        old: &KekRecord,
        provider: &str,
        wrapped: &WrappedKek,
        at: OffsetDateTime,
    ) -> Result<bool> {
        self.faults.before("change_kek_wrapping")?;
        self.faults.change_kek_wrapping(self.rows, old, provider, wrapped, at).await
    }

    async fn count_live_keys(&mut self, kek_id: KekId) -> Result<u64> {
        self.rows.count_live_keys(kek_id).await
    }

    async fn lock_live_keys(
        &mut self,
        kek_ids: &[KekId],
        after: Option<KeyId>,
        limit: u32,
    ) -> Result<Vec<DataKeyRecord>> {
        self.faults.before("lock_live_keys")?;
        self.faults.lock_live_keys(self.rows, kek_ids, after, limit).await
    }

    async fn rewrap_keys(&mut self, keys: &[KeyRewrap], to: KekId, at: OffsetDateTime) -> Result<Vec<KeyWrapping>> {
        self.faults.before("rewrap_keys")?;
        self.faults.rewrap_keys(self.rows, keys, to, at).await
    }

    async fn insert_first_key(&mut self, key: &NewDataKey) -> Result<bool> {
        self.faults.before("insert_first_key")?;
        self.faults.insert_first_key(self.rows, key).await
    }

    async fn scope(&mut self, scope: &KeyScope) -> Result<Option<ScopeRecord>> {
        self.rows.scope(scope).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: KeyFaults> LogRows for FaultyRows<'_, T> {
    async fn lock_log_head(&mut self) -> Result<LogHead> {
        self.faults.before("lock_log_head")?;
        self.faults.lock_log_head(self.rows).await
    }

    async fn unsealed_entries(&mut self, after: Option<(&KeyScope, u32)>, limit: u32) -> Result<Vec<LogEntry>> {
        self.faults.before("unsealed_entries")?;
        self.faults.unsealed_entries(self.rows, after, limit).await
    }

    async fn entries_of(&mut self, scopes: &[KeyScope]) -> Result<Vec<LogEntry>> {
        self.rows.entries_of(scopes).await
    }

    async fn seal_entries(&mut self, from: &LogHead, sealed: &[LogRow]) -> Result<bool> {
        self.faults.before("seal_entries")?;
        self.faults.seal_entries(self.rows, from, sealed).await
    }

    async fn insert_entries(&mut self, entries: &[LogEntry]) -> Result<()> {
        self.faults.before("insert_entries")?;
        self.rows.insert_entries(entries).await
    }

    async fn lock_scopes(&mut self, scopes: &[KeyScope]) -> Result<Vec<ScopeRecord>> {
        self.rows.lock_scopes(scopes).await
    }

    async fn data_keys_of(&mut self, scope: &KeyScope) -> Result<Vec<DataKeyRecord>> {
        self.rows.data_keys_of(scope).await
    }

    async fn destroy_by_id(&mut self, key_ids: &[KeyId], at: OffsetDateTime) -> Result<u64> {
        self.faults.before("destroy_by_id")?;
        self.faults.destroy_by_id(self.rows, key_ids, at).await
    }

    async fn insert_tombstone(&mut self, scope: &KeyScope, key: &DestroyedKey, at: OffsetDateTime) -> Result<()> {
        self.rows.insert_tombstone(scope, key, at).await
    }

    async fn set_scope(&mut self, to: &ScopeSetting<'_>) -> Result<bool> {
        self.faults.before("set_scope")?;
        self.faults.set_scope(self.rows, to).await
    }
}

/// What a faulty event store does. Each call goes to the inner store, unless a test writes its own.
#[async_trait]
pub trait StoreFaults: Send + Sync {
    type Inner: EventStore;

    fn inner(&self) -> &Self::Inner;

    async fn append(
        &self,
        tx: &mut StoreTx<Self>,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        self.inner().append(tx, aggregate, expected, events).await
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut StoreTx<Self>,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        self.inner().read_aggregate_stream(tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut StoreTx<Self>,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        self.inner().read_events(tx, after, limit, filter).await
    }

    async fn latest_global_position(&self, tx: &mut StoreTx<Self>) -> Result<GlobalPosition> {
        self.inner().latest_global_position(tx).await
    }
}

/// The transaction of the event store inside.
pub type StoreTx<T> = <<T as StoreFaults>::Inner as EventStore>::Tx;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: StoreFaults> EventStore for Faulty<T> {
    type Tx = StoreTx<T>;

    async fn append(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Appended> {
        self.0.append(tx, aggregate, expected, events).await
    }

    async fn read_aggregate_stream(
        &self,
        tx: &mut Self::Tx,
        aggregate: &AggregateRef,
        range: VersionRange,
    ) -> Result<Stream> {
        self.0.read_aggregate_stream(tx, aggregate, range).await
    }

    async fn read_events(
        &self,
        tx: &mut Self::Tx,
        after: GlobalPosition,
        limit: u32,
        filter: &EventFilter,
    ) -> Result<EventPage> {
        self.0.read_events(tx, after, limit, filter).await
    }

    async fn latest_global_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        self.0.latest_global_position(tx).await
    }

    /// A test sees every call.
    fn beside_keys(&self) -> Option<&dyn BesideKeys<Tx = Self::Tx>> {
        None
    }
}

/// What a faulty event table does. Each call goes to the inner table, unless a test writes its own.
#[async_trait]
pub trait TableFaults: Send + Sync {
    type Inner: EventTable;

    fn inner(&self) -> &Self::Inner;

    async fn in_transaction(
        &self,
        connection: &mut TableTx<Self>,
        work: &mut dyn TableWork<TableTx<Self>>,
    ) -> Result<()> {
        self.inner().in_transaction(connection, work).await
    }

    async fn last_position(&self, tx: &mut TableTx<Self>) -> Result<GlobalPosition> {
        self.inner().last_position(tx).await
    }

    async fn count_events(&self, tx: &mut TableTx<Self>, range: PositionRange) -> Result<Vec<StoredCount>> {
        self.inner().count_events(tx, range).await
    }

    async fn stored_events(&self, tx: &mut TableTx<Self>, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        self.inner().stored_events(tx, query).await
    }

    async fn stored_events_at(
        &self,
        tx: &mut TableTx<Self>,
        positions: &[GlobalPosition],
    ) -> Result<Vec<PersistedEvent>> {
        self.inner().stored_events_at(tx, positions).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut TableTx<Self>,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        self.inner().replace_payloads(tx, replacements).await
    }

    async fn insert_events(&self, tx: &mut TableTx<Self>, events: &[PersistedEvent]) -> Result<()> {
        self.inner().insert_events(tx, events).await
    }

    async fn settled_position(&self, connection: &mut TableTx<Self>) -> Result<GlobalPosition> {
        self.inner().settled_position(connection).await
    }

    async fn location(&self, connection: &mut TableTx<Self>) -> Result<Option<TableLocation>> {
        self.inner().location(connection).await
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = TableTx<Self>>> {
        self.inner().seal_index()
    }
}

/// The transaction of the event table inside.
pub type TableTx<T> = <<T as TableFaults>::Inner as EventTable>::Tx;

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: TableFaults> EventTable for Faulty<T> {
    type Tx = TableTx<T>;

    async fn in_transaction(&self, connection: &mut Self::Tx, work: &mut dyn TableWork<Self::Tx>) -> Result<()> {
        self.0.in_transaction(connection, work).await
    }

    async fn last_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        self.0.last_position(tx).await
    }

    async fn count_events(&self, tx: &mut Self::Tx, range: PositionRange) -> Result<Vec<StoredCount>> {
        self.0.count_events(tx, range).await
    }

    async fn stored_events(&self, tx: &mut Self::Tx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        self.0.stored_events(tx, query).await
    }

    async fn stored_events_at(&self, tx: &mut Self::Tx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>> {
        self.0.stored_events_at(tx, positions).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut Self::Tx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        self.0.replace_payloads(tx, replacements).await
    }

    async fn insert_events(&self, tx: &mut Self::Tx, events: &[PersistedEvent]) -> Result<()> {
        self.0.insert_events(tx, events).await
    }

    async fn settled_position(&self, connection: &mut Self::Tx) -> Result<GlobalPosition> {
        self.0.settled_position(connection).await
    }

    async fn location(&self, connection: &mut Self::Tx) -> Result<Option<TableLocation>> {
        self.0.location(connection).await
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = Self::Tx>> {
        self.0.seal_index()
    }
}
