//! The key manager: creates, looks up, caches, rotates and shreds data keys.
//!
//! It is the only place where wrapped keys are opened. It caches unwrapped key material only. What may be done with a
//! key is read from the key table in the caller's transaction every time ("strict"), so a committed shred holds for
//! every statement that starts after it (invariant I5).

use crate::error::{Error, InputFault, KeyFault, Result, StorageFault};
use crate::event::check_text;
use crate::keys::ahead::{ActiveKek, Hints};
use crate::keys::erasure_consumer::ErasureConsumer;
use crate::keys::index_keys::IndexVersions;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::operator::{Cause, KeyOperator};
use crate::keys::settings::KeyManagerBuilder;
use crate::keys::shred_log::ShredLogCopy;
use crate::keys::shred_log::required::LogGate;
use crate::keys::sweeper::Caches;
use crate::keys::{
    DataKeyRecord, KeyHistory, KeyInfo, KeyStore, KeyTable, ScopeAction, ScopeLock, ScopeRecord, ScopeState,
};
use crate::kms::Kms;
use crate::telemetry;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) const PARTITION: &str = "default";

/// The keys of a store, and the operations on them. Application code reaches it with
/// [`SealedStore::keys`](crate::SealedStore::keys).
///
/// It belongs to one key database. Every method that creates or changes keys compares the namespace first, and fails
/// with [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch) on a connection to another
/// database.
///
/// Calls that take a `tx` run in the caller's transaction, and take effect when the caller commits. Calls that take a
/// `connection`, such as [`prepare`](Self::prepare), are not in a transaction of the caller.
pub struct KeyManager<Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    pub(crate) store: Arc<K>,
    pub(crate) tx: PhantomData<fn(Tx)>,
    pub(crate) kms: Arc<dyn Kms>,
    pub(crate) configured: Option<Namespace>,
    /// The namespace of the key database, once it was read.
    pub(crate) namespace: OnceLock<Namespace>,
    pub(crate) cache: Arc<Caches>,
    pub(crate) hints: Mutex<Hints>,
    /// The versions of the key of the blind indexes, if they were read.
    pub(crate) index_versions: Mutex<Option<IndexVersions>>,
    pub(crate) partition_of: Option<PartitionOf>,
    /// How old a look at a key's row may be for a read. `None` means that the row is read every time.
    pub(crate) read_lag: Option<Duration>,
    /// Called for every decision about a scope, in its transaction.
    pub(crate) consumers: Vec<Arc<dyn ErasureConsumer<Tx>>>,
    /// Copies of the shred log that have every decision at once.
    pub(crate) copies: Vec<Arc<dyn ShredLogCopy>>,
    /// Compares the key table with the required copies of the shred log.
    pub(crate) gate: Option<Arc<dyn LogGate<Tx>>>,
}

/// Chooses the partition of a scope's keys.
pub(crate) type PartitionOf = Arc<dyn Fn(&KeyScope) -> String + Send + Sync>;

impl<Tx: Send + 'static> KeyManager<Tx> {
    /// The keys in a key table, under the master key of a KMS, with default settings.
    ///
    /// For operators' tools, and for [`SealedStore::with_keys`](crate::SealedStore::with_keys).
    #[must_use]
    pub fn new(table: impl KeyTable<Tx = Tx> + 'static, kms: impl Kms + 'static) -> Self {
        Self::builder(table, kms).build()
    }

    /// The keys in a key table, with settings of your own. The settings are given before any key is used, and can't be
    /// changed afterwards.
    pub fn builder(table: impl KeyTable<Tx = Tx> + 'static, kms: impl Kms + 'static) -> KeyManagerBuilder<Tx> {
        KeyManagerBuilder::new(Arc::new(table), kms)
    }
}

impl<Tx: Send + 'static> KeyManager<Tx, dyn KeyStore<Tx = Tx>> {
    /// The keys in a key store that is no [`KeyTable`], with settings of your own. Sealing and opening work, and so do
    /// shred, disable, enable, reopen and the rotation of data keys. Calls that need a [`KeyTable`] do not compile.
    /// Call [`open`](Self::open) instead of [`prepare`](KeyManager::prepare).
    pub fn over_key_store(
        store: impl KeyStore<Tx = Tx> + 'static,
        kms: impl Kms + 'static,
    ) -> KeyManagerBuilder<Tx, dyn KeyStore<Tx = Tx>> {
        KeyManagerBuilder::new(Arc::new(store), kms)
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Fails while the key table does not agree with the required copy of the shred log. Every call that seals or
    /// decides comes by here, before it locks anything.
    pub(crate) async fn check_log(&self, tx: &mut Tx) -> Result<()> {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.is_due()) else { return Ok(()) };
        // A copy may be far away, so nothing is locked while it answers.
        let ends = gate.ends().await?;
        let is_newest = if self.may_see_old_state(tx) {
            // A transaction that has read may not be able to write any more. One that can write sees the newest state.
            self.store.announce_writing(tx).await?;
            true
        } else {
            self.store.sees_newest_state(tx).await?
        };
        gate.check(tx, ends, is_newest).await
    }

    /// The same for a call that only reads: it locks nothing if all agrees.
    pub(crate) async fn check_log_to_read(&self, tx: &mut Tx) -> Result<()> {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.is_due()) else { return Ok(()) };
        let ends = gate.ends().await?;
        let is_newest = self.store.sees_newest_state(tx).await?;
        match gate.check(tx, ends, is_newest).await {
            Err(behind @ Error::Keys(KeyFault::ShredLogBehind { .. })) if self.may_see_old_state(tx) => {
                // The transaction may have read before the copy got its last entry. One that can write sees the newest
                // state.
                match self.store.announce_writing(tx).await {
                    Err(stale @ Error::Collision { .. }) => Err(stale),
                    _ => Err(behind),
                }
            }
            checked => checked,
        }
    }

    /// The namespace of the key database, if it is known without a look at it.
    pub(crate) fn known_namespace(&self) -> Option<&Namespace> {
        self.namespace.get().or(self.configured.as_ref())
    }

    /// Is this a transaction that sees the state of its first read as long as it does not write?
    fn may_see_old_state(&self, tx: &Tx) -> bool {
        !self.store.can_look_first() && self.store.is_in_transaction(tx)
    }

    /// The partition whose key-encryption key wraps the keys of a scope.
    pub(crate) fn partition_of(&self, scope: &KeyScope) -> String {
        match &self.partition_of {
            Some(partition_of) if !scope.is_reserved() => partition_of(scope),
            _ => PARTITION.to_owned(),
        }
    }

    /// Begins a new generation of keys for a shredded scope. Shredded values stay shredded.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the scope is not shredded, or if a key of it is not destroyed. Those of
    /// [`shred`](Self::shred); errors of the KMS.
    pub async fn reopen(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<KeyInfo> {
        self.reopen_because(tx, scope, Cause::of(reason)).await
    }

    pub(crate) async fn reopen_because(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<KeyInfo> {
        let call = telemetry::reopen(self.known_namespace(), scope);
        call.run(|| self.reopen_scope(tx, scope, cause)).await
    }

    async fn reopen_scope(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<KeyInfo> {
        check_change(scope, cause)?;
        let mut pinned = self.open_log_ahead(tx).await?;
        pinned.extend(self.open_partition_ahead(tx, scope).await?);
        let changing = self.begin_change(tx, scope, false, &pinned).await?;
        let active = self.active_kek_at_hand(tx, scope, &pinned).await?;
        if changing.record.state != ScopeState::Shredded {
            return Err(Error::Keys(KeyFault::ScopeState {
                scope: scope.clone(),
                problem: "is not shredded, so there is nothing to reopen",
            }));
        }
        let generation = next(changing.record.generation, "key_scopes.generation")?;
        self.check_all_destroyed(tx, scope).await?;
        changing.check_agreement()?;
        let mut decision = changing.decide(ScopeAction::Reopen);
        (decision.state, decision.generation) = (ScopeState::Live, generation);
        self.decide(tx, &changing, decision, cause, "reopening").await?;
        self.add_key(tx, &changing.record, &active, "reopening").await
    }

    /// Gives a scope a new active data key. Its older keys still open the values that they sealed.
    ///
    /// This also repairs a scope in which somebody made an older key active again, for which appends fail: the new key
    /// is the newest.
    ///
    /// # Errors
    /// [`Error::Shredded`], [`Error::Disabled`], [`KeyFault::ScopeState`] if the scope has no keys yet,
    /// [`StorageFault::InvalidRow`] if its active key is not its own or is destroyed, [`StorageFault::NoEffect`],
    /// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction),
    /// [`Error::Collision`] (retryable), [`Error::Database`]; errors of the KMS.
    pub async fn rotate_data_key(&self, tx: &mut Tx, scope: &KeyScope) -> Result<KeyInfo> {
        let call = telemetry::rotate_data_key(self.known_namespace(), scope);
        call.run(|| self.replace_data_key(tx, scope)).await
    }

    async fn replace_data_key(&self, tx: &mut Tx, scope: &KeyScope) -> Result<KeyInfo> {
        scope.check()?;
        self.check_log(tx).await?;
        let pinned = self.open_partition_ahead(tx, scope).await?;
        self.store.announce_writing(tx).await?;
        let active = self.active_kek_at_hand(tx, scope, &pinned).await?;
        let record = self.lock(tx, scope).await?;
        check_usable(&record)?;
        check_own(&record)?;
        self.add_key(tx, &record, &active, "rotating a data key").await
    }

    /// Disables a scope's keys: an emergency stop that [`enable`](Self::enable) reverses. Reads and appends fail with
    /// [`Error::Disabled`]; nothing is redacted.
    ///
    /// A page of the log fails as a whole if one of its events needs these keys, so readers of the log stop there. With
    /// [`SealedStore::read_events_each`](crate::SealedStore::read_events_each) they can go on.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the scope is not live, and those of [`shred`](Self::shred).
    pub async fn disable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.switch(tx, scope, Cause::of(reason), ScopeAction::Disable).await
    }

    /// Makes a disabled scope's keys usable again.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the scope is not disabled, or if a scheduled shred disables or withholds it, which
    /// [`cancel`](Self::cancel) ends; those of [`shred`](Self::shred).
    pub async fn enable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.switch(tx, scope, Cause::of(reason), ScopeAction::Enable).await
    }

    /// Everything that the key table says about a scope: its keys, when they were created and destroyed, and its
    /// changes with their reasons. `None` if the scope does not exist. It holds no key material.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_history(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        self.store.history(tx, scope).await
    }

    /// Names the actor of the changes that are made through the result, for the history of the scopes: an operator, or
    /// a service.
    ///
    /// ```
    /// # use eventseal::{KeyScope, Result};
    /// # use eventseal::keys::KeyManager;
    /// # async fn erase<C: Send + 'static>(keys: &KeyManager<C>, tx: &mut C) -> Result<()> {
    /// let customer = KeyScope::new("Customer", "cust_42");
    /// keys.acting_as("clerk 7").shred(tx, &customer, "request 118").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn acting_as(&self, actor: impl Into<String>) -> KeyOperator<'_, Tx, K> {
        KeyOperator { keys: self, actor: actor.into() }
    }

    /// Disables or enables a scope.
    pub(crate) async fn switch(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        cause: Cause<'_>,
        action: ScopeAction,
    ) -> Result<()> {
        let call = match action {
            ScopeAction::Disable => telemetry::disable(self.known_namespace(), scope),
            _ => telemetry::enable(self.known_namespace(), scope),
        };
        call.run(|| self.switch_scope(tx, scope, cause, action)).await
    }

    async fn switch_scope(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>, action: ScopeAction) -> Result<()> {
        check_change(scope, cause)?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, scope, false, &pinned).await?;
        let state = changing.record.state;
        let refused = |problem| Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem });
        let (to, operation) = match (action, state) {
            (ScopeAction::Disable, ScopeState::Live) => (ScopeState::Disabled, "disabling"),
            (ScopeAction::Disable, _) => return Err(refused("is not live, so it can't be disabled")),
            (_, ScopeState::Disabled | ScopeState::Withheld) => (ScopeState::Live, "enabling"),
            _ => return Err(refused("is not disabled")),
        };
        changing.check_agreement()?;
        // Readers must not see again without a word whom a schedule keeps from them.
        if action == ScopeAction::Enable && changing.fold.before_schedule.is_some() {
            return Err(refused(
                "is disabled or withheld by a scheduled shred: cancel that, which makes its keys usable again",
            ));
        }
        let mut decision = changing.decide(action);
        decision.state = to;
        self.decide(tx, &changing, decision, cause, operation).await?;
        self.cache.keys.change(scope, to != ScopeState::Live, self.read_lag);
        Ok(())
    }

    pub(super) async fn lock(&self, tx: &mut Tx, scope: &KeyScope) -> Result<ScopeRecord> {
        let record = self.store.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await?.pop();
        record.ok_or_else(|| without_keys(scope))
    }

    /// Checks that all keys of a shredded scope are destroyed. A key that has come back must not be used again.
    async fn check_all_destroyed(&self, tx: &mut Tx, scope: &KeyScope) -> Result<()> {
        let history = self.store.history(tx, scope).await?;
        let key_ids: Vec<KeyId> = history.into_iter().flat_map(|history| history.keys).map(|key| key.key_id).collect();
        if self.store.data_keys(tx, &key_ids).await?.iter().any(|key| key.wrapped_key.is_some()) {
            let problem = "has a key left, though it was shredded: shred it again, then reopen it";
            return Err(Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem }));
        }
        Ok(())
    }

    async fn add_key(
        &self,
        tx: &mut Tx,
        record: &ScopeRecord,
        active: &ActiveKek,
        operation: &'static str,
    ) -> Result<KeyInfo> {
        let version = next_version(record.last_version)?;
        let key = self.make_key(&record.scope, version, active)?;
        self.store.insert_keys(tx, std::slice::from_ref(&key)).await?;
        self.look_at_new_key(tx, &record.scope, key.key_id, operation).await?;
        telemetry::data_keys_created(1);
        tracing::info!(
            scope_kind = record.scope.kind(),
            scope_id = record.scope.id(),
            key_id = %key.key_id,
            kek_id = %key.kek_id,
            "the scope has a new data key, once committed"
        );
        Ok(KeyInfo {
            key_id: key.key_id,
            version: key.version,
            kek_id: key.kek_id,
            created_at: key.created_at,
            shredded_at: None,
        })
    }
}

/// The active key of a scope that may be used; `None` if it has none yet.
pub(crate) fn check_and_take(record: ScopeRecord) -> Result<Option<(KeyScope, DataKeyRecord)>> {
    check_usable(&record)?;
    check_active(&record)?;
    Ok(record.active.map(|key| (record.scope, key)))
}

/// Checks the active key of a scope. A row that nothing authenticates names it by its id. Under a key of another scope,
/// values would outlive the shred of their owner. Under a destroyed key, they would be lost. Under a key that was
/// rotated away, whoever knows that key could read them.
fn check_active(record: &ScopeRecord) -> Result<()> {
    check_own(record)?;
    match &record.active {
        Some(key) if Some(key.version) != record.last_version => {
            Err(invalid_active_key(record, key, "names a key that is not the scope's newest: rotate its data key"))
        }
        _ => Ok(()),
    }
}

/// The checks of an active key that must hold even if another key is about to replace it.
fn check_own(record: &ScopeRecord) -> Result<()> {
    match &record.active {
        Some(key) if key.scope != record.scope => Err(invalid_active_key(record, key, "names a key of another scope")),
        Some(key) if key.wrapped_key.is_none() || key.shredded_at.is_some() => Err(invalid_active_key(
            record,
            key,
            "names a destroyed key: if a shred was cut short, shred the scope again",
        )),
        _ => Ok(()),
    }
}

fn invalid_active_key(record: &ScopeRecord, key: &DataKeyRecord, problem: &'static str) -> Error {
    let (scope_kind, scope_id) = (record.scope.kind(), record.scope.id());
    tracing::warn!(scope_kind, scope_id, key_id = %key.key_id, "the scope's active key {problem}");
    Error::Storage(StorageFault::InvalidRow { what: "key_scopes.active_key_id", problem })
}

pub(crate) fn check_usable(record: &ScopeRecord) -> Result<()> {
    let scope = record.scope.clone();
    match record.state {
        ScopeState::Live => Ok(()),
        ScopeState::Disabled | ScopeState::Withheld => Err(Error::Disabled { scope }),
        ScopeState::Shredded => Err(Error::Shredded { scope }),
    }
}

pub(crate) fn without_keys(scope: &KeyScope) -> Error {
    Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem: "has no keys: nothing was ever sealed for it" })
}

pub(super) fn check_change(scope: &KeyScope, cause: Cause<'_>) -> Result<()> {
    scope.check()?;
    check_cause(cause)?;
    if scope.is_reserved() {
        let problem = if *scope == KeyScope::index() {
            "belongs to eventseal itself: without it no entry of a blind index could be found"
        } else {
            "belongs to eventseal itself: without it no redaction could be verified"
        };
        return Err(Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem }));
    }
    Ok(())
}

pub(super) fn check_cause(cause: Cause<'_>) -> Result<()> {
    if cause.reason.is_empty() {
        return Err(Error::Input(InputFault::InvalidText {
            what: "the reason",
            problem: "is empty: say why, such as the number of the request",
        }));
    }
    check_text("the reason", cause.reason)?;
    cause.actor.map_or(Ok(()), |actor| check_text("the actor", actor))
}

/// One more than a number that a row holds. It fails if the number is too large.
fn next(number: u32, what: &'static str) -> Result<u32> {
    number.checked_add(1).ok_or(Error::Storage(StorageFault::InvalidRow { what, problem: "can't grow any more" }))
}

/// The version of a scope's next data key.
pub(crate) fn next_version(last: Option<u32>) -> Result<u32> {
    last.map_or(Ok(1), |last| next(last, "data_keys.version"))
}

pub(crate) fn no_active_kek(partition: &str) -> Error {
    Error::Keys(KeyFault::NoActiveKek { partition: partition.to_owned() })
}

/// Locks a mutex, and ignores poisoning: a panic while one of these locks is held leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows how many keys are cached, and no key.
impl<Tx, K: ?Sized> fmt::Debug for KeyManager<Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("namespace", &self.namespace.get())
            .field("provider", &self.kms.provider())
            .finish_non_exhaustive()
    }
}
