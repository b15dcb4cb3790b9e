//! Key material: [`KeyManager`] looks keys up, unwraps, caches and creates them, for sealing and opening.

use crate::crypto::primitives::DataKey;
use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{BoundKey, unwrap_key, wrap_key};
use crate::error::{Error, InputFault, KeyFault, KmsFault, Result, SetUpFault, StorageFault, no_effect};
use crate::event::now;
use crate::keys::ahead::{ActiveKek, Pinned};
use crate::keys::first_keys::FirstAttempt;
use crate::keys::kek_cache::Kek;
use crate::keys::manager::{KeyManager, PARTITION, check_and_take, check_usable, next_version, no_active_kek};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::sweeper::sweep_at;
use crate::keys::{DataKeyRecord, KekRecord, KeyStore, NewDataKey, ScopeLock, ScopeRecord, ScopeState};
use crate::kms::{KekContext, KmsFailure};
use crate::seal::opening::{KeyStatus, Keys};
use crate::telemetry;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// The keys for sealing, in the order of the scopes asked for.
pub(crate) struct SealingKeys {
    pub(crate) namespace: Namespace,
    pub(crate) keys: Vec<(KeyId, Arc<DataKey>)>,
    pub(crate) integrity: (KeyId, Arc<DataKey>),
}

/// The keys of scopes that are locked.
pub(crate) struct LockedKeys {
    pub(crate) keys: SealingKeys,
    /// The generation of each locked scope.
    pub(crate) generations: HashMap<KeyScope, u32>,
}

/// Rows of data keys that were read in the same statement as the events.
pub(crate) struct ReadKeys {
    /// The keys that were asked for. Those without a row have none.
    pub(crate) asked: Arc<[KeyId]>,
    pub(crate) rows: Vec<DataKeyRecord>,
    /// A time before the rows were read, if they show the committed state.
    pub(crate) seen: Option<Instant>,
}

/// Unwrapped keys, and the errors of those that could not be unwrapped.
pub(crate) type OpenedKeys = HashMap<KeyId, Result<Arc<DataKey>>>;

pub(crate) fn key_of(opened: &OpenedKeys, key_id: KeyId) -> Result<Arc<DataKey>> {
    match opened.get(&key_id) {
        Some(Ok(key)) => Ok(Arc::clone(key)),
        Some(Err(error)) => Err(error.clone()),
        None => Err(no_active_kek(PARTITION)),
    }
}

/// The status of a key that must not be unwrapped. Only a row that has a time of destruction and no wrapped key is a
/// tombstone: a wrapped key that was lost is no erasure. If the scope was shredded, none of its keys opens anything.
pub(crate) fn status_without_key(row: &DataKeyRecord) -> Option<KeyStatus> {
    let scope = row.scope.clone();
    let fault = |problem| {
        Some(KeyStatus::Faulty(Error::Storage(StorageFault::InvalidRow { what: "data_keys.wrapped_key", problem })))
    };
    match (&row.wrapped_key, row.shredded_at, row.scope_state) {
        (None, Some(_), _) => Some(KeyStatus::Shredded { scope }),
        (None, None, _) => fault("is missing, though the key was not shredded"),
        (Some(_), Some(_), _) => fault("is there, though the key was shredded"),
        (Some(_), None, ScopeState::Shredded) => {
            fault("is there, though its scope was shredded: if a shred was cut short, shred it again")
        }
        // Whether it is really to be withheld is read from the log: see `withheld`.
        (Some(_), None, ScopeState::Disabled | ScopeState::Withheld) => Some(KeyStatus::Disabled { scope }),
        (Some(_), None, ScopeState::Live) => None,
    }
}

/// These scopes and the scope of the integrity key, in the order in which they are locked.
pub(crate) fn with_integrity(scopes: &[KeyScope]) -> Vec<KeyScope> {
    let mut wanted = scopes.to_vec();
    wanted.push(KeyScope::integrity());
    wanted.sort_unstable();
    wanted
}

pub(crate) fn check_scopes(scopes: &[KeyScope]) -> Result<()> {
    for scope in scopes {
        scope.check()?;
        if scope.is_reserved() {
            return Err(Error::Input(InputFault::InvalidText {
                what: "the scope kind",
                problem: "starts with '$', which is reserved: name another with scope_kind()",
            }));
        }
    }
    Ok(())
}

/// What a key of a scope that is [withheld](ScopeState::Withheld) counts as.
#[derive(Clone, Copy)]
enum Withheld {
    AsShredded,
    AsDisabled,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// The active keys of these scopes, which are created if they do not exist yet. The scopes are locked until the
    /// caller's transaction ends.
    pub(crate) async fn sealing_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<SealingKeys> {
        check_scopes(scopes)?;
        let wanted = with_integrity(scopes);
        self.check_log(tx).await?;
        let looked_at = match self.create_at_once(tx, scopes, &wanted).await? {
            FirstAttempt::Created(keys) => return Ok(keys),
            FirstAttempt::Locked(pinned) => return Ok(self.locked_keys(tx, scopes, wanted, &pinned).await?.keys),
            FirstAttempt::Not(looked_at) => looked_at,
        };
        let pinned = self.open_ahead_of(tx, &wanted, looked_at).await?;
        Ok(self.locked_keys(tx, scopes, wanted, &pinned).await?.keys)
    }

    /// The active keys of these scopes, locked and created as by [`sealing_keys`](Self::sealing_keys). It uses the
    /// key-encryption keys that were opened ahead, and does not ask the KMS.
    pub(crate) async fn locked_keys(
        &self,
        tx: &mut Tx,
        scopes: &[KeyScope],
        wanted: Vec<KeyScope>,
        pinned: &Pinned,
    ) -> Result<LockedKeys> {
        let namespace = self.namespace(tx).await?;
        if pinned.all_new {
            let new: Vec<KeyScope> = wanted.iter().filter(|scope| !scope.is_integrity()).cloned().collect();
            self.store.create_scopes(tx, &new).await?;
        }
        let mut records = self.store.scopes(tx, &wanted, ScopeLock::Share).await?;
        if !records.iter().any(|record| record.scope == KeyScope::integrity() && record.active.is_some()) {
            return Err(no_active_kek(PARTITION));
        }
        let known: HashSet<&KeyScope> = records.iter().map(|record| &record.scope).collect();
        let unknown: Vec<KeyScope> = wanted.into_iter().filter(|scope| !known.contains(scope)).collect();
        for record in &records {
            check_usable(record)?;
        }
        if !unknown.is_empty() {
            // The scopes are inserted first, and then read again with locks: the transaction that inserted a scope
            // first creates its key.
            self.store.create_scopes(tx, &unknown).await?;
            let created = self.store.scopes(tx, &unknown, ScopeLock::Share).await?;
            if created.len() < unknown.len() {
                return Err(no_effect("creating key scopes", "key_scopes"));
            }
            records.extend(created);
        }
        let generations = records.iter().map(|record| (record.scope.clone(), record.generation)).collect();
        let active = self.active_or_new(tx, records, pinned).await?;
        let records: Vec<DataKeyRecord> = active.values().cloned().collect();
        let opened = self.open_all(tx, &namespace, &records, None, Some(pinned)).await?;
        for record in &records {
            self.cache.keys.activate(&record.scope, record.key_id);
        }
        let key_of_scope = |scope: &KeyScope| {
            let record = active.get(scope).ok_or_else(|| no_active_kek(PARTITION))?;
            Ok::<_, Error>((record.key_id, key_of(&opened, record.key_id)?))
        };
        let keys = scopes.iter().map(key_of_scope).collect::<Result<_>>()?;
        let integrity = key_of_scope(&KeyScope::integrity())?;
        Ok(LockedKeys { keys: SealingKeys { namespace, keys, integrity }, generations })
    }

    /// The active keys of locked scopes. Keys are created for scopes that have none.
    async fn active_or_new(
        &self,
        tx: &mut Tx,
        records: Vec<ScopeRecord>,
        pinned: &Pinned,
    ) -> Result<HashMap<KeyScope, DataKeyRecord>> {
        let mut keks = HashMap::new();
        let mut active = HashMap::with_capacity(records.len());
        let mut new = Vec::new();
        for record in records {
            let last_version = record.last_version;
            let scope = record.scope.clone();
            match check_and_take(record)? {
                Some((scope, key)) => drop(active.insert(scope, key)),
                None => {
                    let version = next_version(last_version)?;
                    let partition = self.partition_of(&scope);
                    let active = match keks.entry(partition) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(unknown) => unknown.insert(self.active_kek_at_hand(tx, &scope, pinned).await?),
                    };
                    new.push(self.make_key(&scope, version, active)?);
                }
            }
        }
        if !new.is_empty() {
            self.store.insert_keys(tx, &new).await?;
            telemetry::data_keys_created(new.len());
        }
        active.extend(new.into_iter().map(|key| (key.scope.clone(), key.into())));
        Ok(active)
    }

    /// The statuses of these keys, read from the key table in one query. Rows that were read with the events are not
    /// read again.
    pub(crate) async fn opening_keys(
        &self,
        tx: &mut Tx,
        key_ids: &HashSet<KeyId>,
        read: Option<&ReadKeys>,
    ) -> Result<(Namespace, Keys)> {
        self.check_log_to_read(tx).await?;
        let namespace = self.namespace(tx).await?;
        if let Some(seen) = self.read_lag.and_then(|lag| self.cache.keys.seen_within(lag, key_ids)) {
            telemetry::data_keys_needed(seen.len(), 0);
            let keys = seen.into_iter().map(|(key_id, scope, key)| (key_id, KeyStatus::Live { scope, key }));
            return Ok((namespace, keys.collect()));
        }
        let Some(read) = read else { return self.look_up(tx, key_ids, None, Withheld::AsShredded, None).await };
        let known = read.rows.iter().filter(|row| key_ids.contains(&row.key_id)).cloned().collect();
        let (_, mut keys) = self.statuses(tx, known, read.seen, None, Withheld::AsShredded, None).await?;
        let unasked: HashSet<KeyId> = key_ids.iter().filter(|key_id| !read.asked.contains(key_id)).copied().collect();
        if !unasked.is_empty() {
            keys.extend(self.look_up(tx, &unasked, None, Withheld::AsShredded, None).await?.1);
        }
        Ok((namespace, keys))
    }

    /// A time from which on a statement sees the committed state: `None` in a transaction, which may see an old state,
    /// and its own changes that are not committed.
    pub(crate) fn sees_committed(&self, tx: &Tx) -> Option<Instant> {
        if self.store.is_in_transaction(tx) { None } else { Some(Instant::now()) }
    }

    /// The statuses of these keys, for maintenance, which must not lag. With `pinned`, the caller holds locks, so the
    /// KMS is not asked. A scope that is withheld is disabled here: its keys may be used again, so maintenance must not
    /// write stand-ins in place of its values.
    pub(crate) async fn opening_keys_now(
        &self,
        tx: &mut Tx,
        key_ids: &HashSet<KeyId>,
        pinned: Option<&Pinned>,
    ) -> Result<(Namespace, Keys)> {
        self.look_up(tx, key_ids, pinned, Withheld::AsDisabled, None).await
    }

    /// As [`opening_keys_now`](Self::opening_keys_now), for a reader who may see the values of one owner only. The keys
    /// of all others are not opened, and count as shredded, whatever their state is. So do keys that have no row: their
    /// owner is [`KeyScope::unknown`]. What is only withheld from the owner is not erased: its keys count as disabled.
    pub(crate) async fn opening_keys_of(
        &self,
        tx: &mut Tx,
        key_ids: &HashSet<KeyId>,
        owner: &KeyScope,
        integrity: &HashSet<KeyId>,
    ) -> Result<(Namespace, Keys)> {
        let (namespace, mut keys) = self.look_up(tx, key_ids, None, Withheld::AsDisabled, Some(owner)).await?;
        for key_id in key_ids.difference(integrity) {
            keys.entry(*key_id).or_insert_with(|| KeyStatus::Shredded { scope: KeyScope::unknown() });
        }
        Ok((namespace, keys))
    }

    /// The statuses of these keys. With `owner`, the keys of others count as shredded, and are not opened.
    async fn look_up(
        &self,
        tx: &mut Tx,
        key_ids: &HashSet<KeyId>,
        pinned: Option<&Pinned>,
        withheld: Withheld,
        owner: Option<&KeyScope>,
    ) -> Result<(Namespace, Keys)> {
        self.check_log_to_read(tx).await?;
        let mut key_ids: Vec<KeyId> = key_ids.iter().copied().collect();
        key_ids.sort_unstable();
        let seen = self.sees_committed(tx);
        let records = self.store.data_keys(tx, &key_ids).await?;
        self.statuses(tx, records, seen, pinned, withheld, owner).await
    }

    /// The statuses of the keys of these rows. `seen` is a time before they were read, if they show the committed
    /// state.
    async fn statuses(
        &self,
        tx: &mut Tx,
        records: Vec<DataKeyRecord>,
        seen: Option<Instant>,
        pinned: Option<&Pinned>,
        withheld: Withheld,
        owner: Option<&KeyScope>,
    ) -> Result<(Namespace, Keys)> {
        let namespace = self.namespace(tx).await?;
        let mut keys = Keys::with_capacity(records.len());
        let is_wanted =
            |record: &DataKeyRecord| owner.is_none_or(|owner| record.scope == *owner || record.scope.is_reserved());
        let (records, unwanted): (Vec<_>, Vec<_>) = records.into_iter().partition(is_wanted);
        keys.extend(unwanted.into_iter().map(|record| (record.key_id, KeyStatus::Shredded { scope: record.scope })));
        let mut live = Vec::with_capacity(records.len());
        for record in records {
            match status_without_key(&record) {
                Some(status) => {
                    let status = match (status, record.scope_state, withheld) {
                        (KeyStatus::Disabled { scope }, ScopeState::Withheld, Withheld::AsShredded) => {
                            self.withheld(tx, scope).await?
                        }
                        (status, ..) => status,
                    };
                    // If the scope was reopened, an old tombstone does not prove that the latest change was seen.
                    let seen = seen.filter(|_| record.scope_state != ScopeState::Live);
                    self.cache.keys.remove(record.key_id, &record.scope, seen, self.read_lag);
                    keys.insert(record.key_id, status);
                }
                None => live.push(record),
            }
        }
        let mut opened = self.open_all(tx, &namespace, &live, seen, pinned).await?;
        for record in live {
            match opened.remove(&record.key_id) {
                Some(Ok(key)) => keys.insert(record.key_id, KeyStatus::Live { scope: record.scope, key }),
                Some(Err(error)) => keys.insert(record.key_id, KeyStatus::Faulty(error)),
                None => None,
            };
        }
        Ok((namespace, keys))
    }

    /// The status of a key whose scope is withheld. Readers get stand-ins only if an authentic entry of the shred log
    /// says so: a row alone must not redact anything.
    pub(crate) async fn withheld(&self, tx: &mut Tx, scope: KeyScope) -> Result<KeyStatus> {
        let fold = match self.fold_of(tx, &scope).await {
            Ok(found) => found.map(|(_, fold)| fold),
            Err(error @ Error::Keys(KeyFault::LogAltered { .. })) => return Ok(KeyStatus::Faulty(error)),
            Err(error) => return Err(error),
        };
        Ok(match fold {
            Some(fold) if fold.state == ScopeState::Withheld && fold.schedule.is_some() => {
                KeyStatus::Shredded { scope }
            }
            _ => KeyStatus::Faulty(Error::Storage(StorageFault::InvalidRow {
                what: "key_scopes.withheld",
                problem: "is set, though no entry of the shred log withholds the scope's values",
            })),
        })
    }

    /// Unwraps these keys, or finds them in the cache. A row that does not open is an error of that key alone. A KMS
    /// that does not answer fails the call. `seen` is a time before the rows were read, if the rows show the committed
    /// state.
    pub(crate) async fn open_all(
        &self,
        tx: &mut Tx,
        namespace: &Namespace,
        records: &[DataKeyRecord],
        seen: Option<Instant>,
        pinned: Option<&Pinned>,
    ) -> Result<OpenedKeys> {
        let mut opened = HashMap::with_capacity(records.len());
        let mut closed = Vec::new();
        for record in records {
            match self.cache.keys.get(record, seen) {
                Some(key) => drop(opened.insert(record.key_id, Ok(key))),
                None => closed.push(record),
            }
        }
        telemetry::data_keys_needed(opened.len(), closed.len());
        if closed.is_empty() {
            return Ok(opened);
        }
        let keks = self.keks_of(tx, &closed, pinned).await?;
        if let Some(until) = keks.values().filter_map(|kek| kek.until).min() {
            // This includes keys that were pinned and have left the cache since.
            sweep_at(&self.cache, until);
        }
        for record in closed {
            let Some(kek) = keks.get(&record.kek_id) else {
                opened.insert(record.key_id, Err(Error::Keys(KeyFault::MissingKek { kek_id: record.kek_id })));
                continue;
            };
            let bound = BoundKey {
                namespace,
                key_id: record.key_id,
                scope: &record.scope,
                version: record.version,
                kek_id: record.kek_id,
            };
            let wrapped = record.wrapped_key.as_deref().unwrap_or_default();
            let Some(secret) = bound.with(|associated_data| unwrap_key(&kek.secret, associated_data, wrapped)) else {
                opened.insert(
                    record.key_id,
                    Err(Error::Keys(KeyFault::WrongKey { key_id: record.key_id, kek_id: record.kek_id })),
                );
                continue;
            };
            let key = Arc::new(DataKey::new(secret.expose())?);
            // A data key is kept no longer than the key-encryption key that opened it.
            self.cache.keys.put(record.clone(), Arc::clone(&key), kek.until, seen);
            opened.insert(record.key_id, Ok(key));
        }
        Ok(opened)
    }

    /// The key-encryption keys of these data keys. The KMS is asked once for each key and process. A caller that holds
    /// locks does not ask it, and passes the keys that it opened ahead as `pinned`.
    pub(crate) async fn keks_of(
        &self,
        tx: &mut Tx,
        records: &[&DataKeyRecord],
        pinned: Option<&Pinned>,
    ) -> Result<HashMap<KekId, Arc<Kek>>> {
        let wanted: HashSet<KekId> = records.iter().map(|record| record.kek_id).collect();
        let mut keks: HashMap<KekId, Arc<Kek>> = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for kek_id in wanted {
            let kek =
                pinned.and_then(|pinned| pinned.keks.get(&kek_id).cloned()).or_else(|| self.cache.keks.get(kek_id));
            match kek {
                Some(kek) => drop(keks.insert(kek_id, kek)),
                None => unknown.push(kek_id),
            }
        }
        telemetry::keks_at_hand(keks.len());
        if unknown.is_empty() {
            return Ok(keks);
        }
        if pinned.is_some() {
            // If the database were another one, none of its keys would ever open.
            self.check_namespace(tx).await?;
        }
        let mut missed = None;
        for record in self.store.keks(tx, &unknown).await? {
            if pinned.is_none() {
                keks.insert(record.kek_id, self.kek(&record).await?);
            } else if let Some(Err(failure)) = self.cache.keks.answer(record.kek_id) {
                return Err(failure);
            } else {
                let scopes = records.iter().filter(|key| key.kek_id == record.kek_id).map(|key| &key.scope);
                missed = Some(self.missed(&record, scopes));
            }
        }
        missed.map_or(Ok(keks), Err)
    }

    /// Opens a key-encryption key; callers that come at the same time share one call to the KMS.
    pub(crate) async fn kek(&self, record: &KekRecord) -> Result<Arc<Kek>> {
        telemetry::kek_needed(self.cache.keks.get(record.kek_id).is_some());
        let kek = self.cache.keks.get_or_open(record, self.unwrap_kek(record)).await?;
        if let Some(until) = kek.until {
            sweep_at(&self.cache, until);
        }
        Ok(kek)
    }

    /// Asks the KMS to open a key-encryption key.
    pub(crate) async fn unwrap_kek(&self, record: &KekRecord) -> Result<SecretKey> {
        if record.provider != self.kms.provider() {
            let problem = format!(
                "it was wrapped by provider {:?}, this process uses {:?}: configure the provider that wrapped it",
                record.provider,
                self.kms.provider()
            );
            return Err(Error::Kms(KmsFault::Refused {
                kek_id: record.kek_id,
                failure: KmsFailure::WrongKey,
                problem,
            }));
        }
        let namespace = self.namespace.get().cloned().ok_or(Error::SetUp(SetUpFault::NotMigrated))?;
        self.kms.unwrap_kek(&record.wrapped, &KekContext { namespace, kek_id: record.kek_id }).await
    }

    #[allow(clippy::unused_self, reason = "keys are made by the key manager")]
    pub(crate) fn make_key(&self, scope: &KeyScope, version: u32, active: &ActiveKek) -> Result<NewDataKey> {
        let key_id = KeyId(random::uuid()?);
        let secret = random::key()?;
        let bound = BoundKey { namespace: &active.namespace, key_id, scope, version, kek_id: active.kek_id };
        let wrapped_key = bound.with(|associated_data| wrap_key(&active.kek.secret, associated_data, &secret))?;
        Ok(NewDataKey { key_id, scope: scope.clone(), version, kek_id: active.kek_id, wrapped_key, created_at: now() })
    }

    /// The database's namespace. It never changes, so it is read once. If the connection were to another database, its
    /// keys would not open.
    pub(crate) async fn namespace(&self, tx: &mut Tx) -> Result<Namespace> {
        match self.namespace.get() {
            Some(namespace) => Ok(namespace.clone()),
            None => self.check_namespace(tx).await,
        }
    }

    /// Reads the database's namespace, and compares it with the configured one and with the one that was read
    /// first.
    pub(crate) async fn check_namespace(&self, tx: &mut Tx) -> Result<Namespace> {
        let found = self.store.namespace(tx).await?.ok_or(Error::SetUp(SetUpFault::NotMigrated))?;
        let expected = self.configured.as_ref().unwrap_or_else(|| self.namespace.get_or_init(|| found.clone()));
        if *expected != found {
            return Err(Error::SetUp(SetUpFault::NamespaceMismatch { configured: expected.clone(), found }));
        }
        Ok(self.namespace.get_or_init(|| found).clone())
    }
}
