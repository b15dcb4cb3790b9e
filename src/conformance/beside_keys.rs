//! The contract of an event store that is beside its keys.

use crate::conformance::event_store::{EVENT_TYPE, EVENT_VERSION};
use crate::conformance::key_store::{active_kek, entry, fresh, key, shred};
use crate::conformance::{Database, must, must_be_refused, until_idle};
use crate::error::Result;
use crate::event::{AggregateRef, Appended, ExpectedVersion, GlobalPosition, NewEvent, VersionRange, aggregate, now};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{DataKeyRecord, KeyStore, KeyTableNames, LogEntry, NewDataKey, ScopeAction, ScopeLock, ScopeState};
use crate::store::{BesideKeys, EventStore};
use std::pin::pin;
use std::sync::Arc;
use uuid::Uuid;

/// Checks that a store appends if the given keys are the active ones, and not otherwise, that it locks their scopes,
/// and that it reads keys as the key store does. The tables must be migrated, and the partition `default` must have an
/// active key-encryption key: run [`key_table`](crate::conformance::key_table) before, or insert one.
pub async fn beside_keys<D, S, K>(db: &D, store: &S, keys: &K)
where
    D: Database,
    S: EventStore<Tx = D::Tx>,
    K: KeyStore<Tx = D::Tx>,
{
    let Some(beside) = store.beside_keys() else { panic!("the store does not say that it is beside its keys") };
    let Some(names) = keys.table_names() else { panic!("the key store does not name its tables") };
    let ctx = Ctx { db, store, beside, keys, names };
    ctx.appends_under_active_keys_are_appends().await;
    ctx.nothing_is_appended_under_other_keys().await;
    ctx.nothing_is_appended_for_a_changed_scope().await;
    ctx.all_scopes_are_locked().await;
    ctx.a_change_under_way_is_awaited().await;
    ctx.keys_are_read_with_the_stream().await;
}

struct Ctx<'c, D: Database, S, K> {
    db: &'c D,
    store: &'c S,
    beside: &'c dyn BesideKeys<Tx = D::Tx>,
    keys: &'c K,
    names: &'c KeyTableNames,
}

fn stream(name: &str) -> AggregateRef {
    aggregate("Conformance", format!("{name}-{}", Uuid::now_v7()))
}

fn events(count: usize) -> Vec<NewEvent> {
    let payload = r#"{"number":1,"owner":"owner-1","text":"text"}"#;
    (0..count).map(|_| NewEvent::raw(EVENT_TYPE, EVENT_VERSION, payload)).collect()
}

impl<D: Database, S: EventStore<Tx = D::Tx>, K: KeyStore<Tx = D::Tx>> Ctx<'_, D, S, K> {
    /// The rows of the active keys of some new scopes, and that of the integrity key.
    async fn active(&self, scopes: usize) -> Vec<Arc<DataKeyRecord>> {
        let kek_id = active_kek(self.db, self.keys).await;
        let mut wanted: Vec<KeyScope> = (0..scopes).map(|number| fresh(&number.to_string())).collect();
        wanted.push(KeyScope::integrity());
        let mut transaction = must(self.db.begin().await, "begin");
        let tx = self.db.tx(&mut transaction);
        must(self.keys.create_scopes(tx, &wanted).await, "create_scopes");
        for record in must(self.keys.scopes(tx, &wanted, ScopeLock::Share).await, "scopes") {
            if record.active.is_none() {
                must(self.keys.insert_keys(tx, &[key(&record.scope, 1, kek_id)]).await, "insert_keys");
            }
        }
        let records = must(self.keys.scopes(tx, &wanted, ScopeLock::None).await, "scopes");
        must(self.db.commit(transaction).await, "commit");
        let mut rows: Vec<_> = records.into_iter().filter_map(|record| record.active).map(Arc::new).collect();
        assert_eq!(rows.len(), wanted.len(), "every scope has an active key");
        rows.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
        rows
    }

    async fn try_append(
        &self,
        active: &[Arc<DataKeyRecord>],
        stream: &AggregateRef,
        expected: ExpectedVersion,
        events: &[NewEvent],
    ) -> Result<Option<Appended>> {
        let mut transaction = must(self.db.begin().await, "begin");
        let tx = self.db.tx(&mut transaction);
        let appended = self.beside.append_under(tx, self.names, active, stream, expected, events).await;
        if appended.is_ok() {
            // What was not written did not end the transaction.
            must(self.db.commit(transaction).await, "commit");
        }
        appended
    }

    async fn last_position(&self) -> GlobalPosition {
        let mut connection = must(self.db.connect().await, "connect");
        must(self.store.latest_global_position(self.db.connection(&mut connection)).await, "latest_global_position")
    }

    /// Checks that nothing is appended under these keys: one event, or several.
    async fn must_differ(&self, active: &[Arc<DataKeyRecord>], what: &str) {
        let (stream, before) = (stream("differs"), self.last_position().await);
        for count in [1, 3] {
            let appended = self.try_append(active, &stream, ExpectedVersion::Any, &events(count)).await;
            assert!(must(appended, what).is_none(), "events were appended, though {what}");
            // The keys are compared first: an error about the version would hide why nothing can be appended.
            let version = ExpectedVersion::Exact(crate::event::AggregateVersion::FIRST);
            let appended = self.try_append(active, &stream, version, &events(count)).await;
            assert!(must(appended, what).is_none(), "the version was compared, though {what}");
        }
        assert_eq!(self.last_position().await, before, "something was stored, though {what}");
        self.must_append(&stream, what).await;
    }

    /// Checks that a stream is still empty, by an append without keys.
    async fn must_append(&self, stream: &AggregateRef, what: &str) {
        let mut transaction = must(self.db.begin().await, "begin");
        let tx = self.db.tx(&mut transaction);
        let appended = self.store.append(tx, stream, ExpectedVersion::NoStream, &events(1)).await;
        must(appended, &format!("an append to a stream to which nothing was appended, because {what},"));
    }

    async fn appends_under_active_keys_are_appends(&self) {
        for (scopes, count) in [(0, 1), (1, 1), (1, 3), (2, 1), (3, 2)] {
            let (active, stream, events) = (self.active(scopes).await, stream("active"), events(count));
            let append = |expected| self.try_append(&active, &stream, expected, &events);
            let Some(appended) = must(append(ExpectedVersion::NoStream).await, "append_under") else {
                panic!("{count} events under the active keys of {scopes} scopes were not appended")
            };
            let ids: Vec<Uuid> = appended.events.iter().map(|event| event.event_id).collect();
            assert_eq!(ids, events.iter().map(|event| event.event_id).collect::<Vec<_>>(), "events keep their order");
            let versions: Vec<i64> = appended.events.iter().map(|event| event.aggregate_version.get()).collect();
            assert_eq!(versions, (1_i64..).take(count).collect::<Vec<_>>(), "versions begin with 1 and have no gaps");
            must_be_refused(append(ExpectedVersion::NoStream).await, "VersionConflict", "the stream is not empty");
            must_be_refused(append(ExpectedVersion::Any).await, "DuplicateEventId", "the events are known");
            let mut connection = must(self.db.connect().await, "connect");
            let connection = self.db.connection(&mut connection);
            let read = must(
                self.store.read_aggregate_stream(connection, &stream, VersionRange::default()).await,
                "read_aggregate_stream",
            );
            assert_eq!(read.events, appended.events, "what was appended is read");
            let outside =
                self.beside.append_under(connection, self.names, &active, &stream, ExpectedVersion::Any, &events);
            must_be_refused(outside.await, "NotInTransaction", "an append needs a transaction");
        }
    }

    async fn nothing_is_appended_under_other_keys(&self) {
        type Change = fn(&mut DataKeyRecord);
        let changes: [(&str, Change); 5] = [
            ("the active key is another one", |key| key.key_id = KeyId(Uuid::now_v7())),
            ("the active key has another version", |key| key.version += 1),
            ("the active key is wrapped by another key", |key| key.kek_id = KekId(Uuid::now_v7())),
            ("the active key is wrapped otherwise", |key| key.wrapped_key = Some(vec![9; 65])),
            ("the active key is that of another scope", |key| key.scope = fresh("unknown")),
        ];
        for scopes in [1, 3] {
            let active = self.active(scopes).await;
            for (what, change) in changes {
                for changed in 0..active.len() {
                    let mut rows: Vec<DataKeyRecord> = active.iter().map(|row| (**row).clone()).collect();
                    if rows[changed].scope == KeyScope::integrity() && what.ends_with("of another scope") {
                        continue;
                    }
                    change(&mut rows[changed]);
                    rows.sort_unstable_by(|a, b| a.scope.cmp(&b.scope));
                    let rows: Vec<_> = rows.into_iter().map(Arc::new).collect();
                    self.must_differ(&rows, what).await;
                }
            }
            let without_integrity: Vec<_> =
                active.iter().filter(|row| row.scope != KeyScope::integrity()).cloned().collect();
            self.must_differ(&without_integrity, "the integrity key was not given").await;
        }
    }

    async fn nothing_is_appended_for_a_changed_scope(&self) {
        for scopes in [1, 3] {
            for state in [ScopeState::Disabled, ScopeState::Withheld, ScopeState::Shredded] {
                let active = self.active(scopes).await;
                let mut transaction = must(self.db.begin().await, "begin");
                self.change(self.db.tx(&mut transaction), own(&active), state).await;
                must(self.db.commit(transaction).await, "commit");
                self.must_differ(&active, &format!("one of {scopes} scopes is {}", state.as_str())).await;
            }
            let active = self.active(scopes).await;
            self.insert(&key(&own(&active).scope, 2, own(&active).kek_id)).await;
            self.must_differ(&active, "a scope has a newer key, which is active").await;
            // Somebody made an older key active again.
            let active = self.active(scopes).await;
            let own = own(&active);
            let older = key(&own.scope, 2, own.kek_id);
            self.insert(&key(&own.scope, 3, own.kek_id)).await;
            self.insert(&older).await;
            let older = Arc::new(DataKeyRecord::from(older));
            let rows: Vec<_> =
                active.iter().map(|row| if row.scope == older.scope { &older } else { row }).cloned().collect();
            self.must_differ(&rows, "the active key is not the scope's newest").await;
        }
    }

    async fn insert(&self, new: &NewDataKey) {
        let mut transaction = must(self.db.begin().await, "begin");
        let tx = self.db.tx(&mut transaction);
        must(self.keys.scopes(tx, std::slice::from_ref(&new.scope), ScopeLock::Update).await, "scopes");
        must(self.keys.insert_keys(tx, std::slice::from_ref(new)).await, "insert_keys");
        must(self.db.commit(transaction).await, "commit");
    }

    async fn change(&self, tx: &mut D::Tx, key: &DataKeyRecord, state: ScopeState) {
        let scope = &key.scope;
        let action = match state {
            ScopeState::Shredded => return drop(must(shred(self.keys, tx, scope, now()).await, "shred")),
            ScopeState::Withheld => ScopeAction::Schedule,
            ScopeState::Disabled | ScopeState::Live => ScopeAction::Disable,
        };
        must(self.keys.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await, "scopes");
        let change = LogEntry { at: now(), ..entry(scope, 1, action, state) };
        must(self.keys.change_scope(tx, &change).await, "change_scope");
    }

    /// Checks that no scope can be changed while the appending transaction is open, and that the integrity key's scope
    /// is not locked.
    async fn all_scopes_are_locked(&self) {
        for scopes in [1, 2] {
            let (active, stream, events) = (self.active(scopes).await, stream("locks"), events(1));
            let mut transaction = must(self.db.begin().await, "begin");
            let tx = self.db.tx(&mut transaction);
            let append = self.beside.append_under(tx, self.names, &active, &stream, ExpectedVersion::Any, &events);
            assert!(must(append.await, "append_under").is_some());
            for row in &active {
                let mut other = must(self.db.begin().await, "begin");
                let (tx, scope) = (self.db.tx(&mut other), std::slice::from_ref(&row.scope));
                let mut locking = pin!(self.keys.scopes(tx, scope, ScopeLock::Update));
                let is_free = until_idle(locking.as_mut()).await.is_some_and(|locked| locked.is_ok());
                let is_integrity = row.scope == KeyScope::integrity();
                assert_eq!(is_free, is_integrity, "may the scope {:?} be changed meanwhile?", row.scope);
            }
            must(self.db.commit(transaction).await, "commit");
        }
    }

    /// Checks that an append waits for a transaction that changes a scope, and compares what it left.
    async fn a_change_under_way_is_awaited(&self) {
        for (scopes, count, commits) in [(1, 1, true), (2, 3, true), (2, 1, false)] {
            let (active, stream, events) = (self.active(scopes).await, stream("waits"), events(count));
            let mut change = must(self.db.begin().await, "begin");
            self.change(self.db.tx(&mut change), own(&active), ScopeState::Shredded).await;
            let mut transaction = must(self.db.begin().await, "begin");
            let tx = self.db.tx(&mut transaction);
            let append = self.beside.append_under(tx, self.names, &active, &stream, ExpectedVersion::Any, &events);
            let mut append = pin!(append);
            let early = until_idle(append.as_mut()).await;
            assert!(early.is_none(), "an append did not wait for a shred of its scope: {early:?}");
            if commits {
                must(self.db.commit(change).await, "commit");
            } else {
                drop(change);
            }
            match append.await {
                // At a level with one snapshot, the transaction must be tried again.
                Err(error) => assert!(commits && error.is_retryable(), "{error}"),
                Ok(appended) => assert_eq!(appended.is_some(), !commits, "an append after a shred of its scope"),
            }
        }
    }

    async fn keys_are_read_with_the_stream(&self) {
        let (active, stream, events) = (self.active(3).await, stream("read"), events(4));
        must(self.try_append(&active, &stream, ExpectedVersion::Any, &events).await, "append_under");
        let mut transaction = must(self.db.begin().await, "begin");
        self.change(self.db.tx(&mut transaction), own(&active), ScopeState::Shredded).await;
        self.change(self.db.tx(&mut transaction), &active[active.len() - 1], ScopeState::Withheld).await;
        must(self.db.commit(transaction).await, "commit");
        let mut connection = must(self.db.connect().await, "connect");
        let tx = self.db.connection(&mut connection);
        let ids: Vec<KeyId> = active.iter().map(|row| row.key_id).chain([KeyId(Uuid::now_v7())]).collect();
        for (from, to) in [(None, None), (Some(2), Some(3)), (Some(9), None)] {
            let range = VersionRange { from, to };
            let read = self.beside.read_stream_and_keys(tx, self.names, &ids, &stream, range).await;
            let (with_keys, mut rows) = must(read, "read_stream_and_keys");
            let alone = must(self.store.read_aggregate_stream(tx, &stream, range).await, "read_aggregate_stream");
            assert_eq!(with_keys.events, alone.events, "a stream is read as without keys");
            assert_eq!(with_keys.last_version, alone.last_version, "a stream ends as without keys");
            let mut expected = must(self.keys.data_keys(tx, &ids).await, "data_keys");
            for rows in [&mut rows, &mut expected] {
                rows.sort_unstable_by_key(|row| row.key_id);
            }
            let all = |row: &DataKeyRecord| format!("{row:?} {:?}", row.wrapped_key);
            let (rows, expected) = (rows.iter().map(all), expected.iter().map(all));
            assert_eq!(rows.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "keys are read as by the key store");
        }
    }
}

/// The first key that is not the integrity key.
fn own(active: &[Arc<DataKeyRecord>]) -> &DataKeyRecord {
    match active.iter().find(|row| row.scope != KeyScope::integrity()) {
        Some(row) => row,
        None => panic!("there is no scope"),
    }
}
