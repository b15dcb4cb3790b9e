//! Key material: looked up, unwrapped, cached and made. What [`KeyManager`] does for sealing and opening.

use crate::error::{Error, Result};
use crate::event::now;
use crate::key::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::manager::{KeyManager, PARTITION, check_and_take, lock, next, no_active_kek};
use crate::keys::{DataKeyRecord, KekRecord, NewDataKey, ScopeLock, ScopeState};
use crate::kms::{KekContext, KmsFailure};
use crate::random;
use crate::seal::crypto::DataKey;
use crate::seal::opening::{KeyFault, KeyStatus, Keys};
use crate::secret::SecretKey;
use crate::wrap::{BoundKey, unwrap_key, wrap_key};
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

/// An unwrapped key, and the row it was unwrapped from: another row means another look.
pub(super) struct Cached {
    pub(super) row: DataKeyRecord,
    key: Arc<DataKey>,
    /// When the row was last read, and was this one.
    seen: Instant,
}

impl Cached {
    /// Is this the row that the key was unwrapped from, in all that the wrapping is bound to?
    fn is_from(&self, row: &DataKeyRecord) -> bool {
        let bound = |row: &DataKeyRecord| (row.version, row.kek_id);
        self.row.wrapped_key == row.wrapped_key && self.row.scope == row.scope && bound(&self.row) == bound(row)
    }
}

/// Unwrapped keys, and those that could not be.
pub(super) type OpenedKeys = HashMap<KeyId, Result<Arc<DataKey>, KeyFault>>;

pub(super) fn key_of(opened: &OpenedKeys, key_id: KeyId) -> Result<Arc<DataKey>> {
    match opened.get(&key_id) {
        Some(Ok(key)) => Ok(Arc::clone(key)),
        Some(Err(fault)) => Err(fault.error(key_id)),
        None => Err(no_active_kek(PARTITION)),
    }
}

/// What a row says of a key that is not to be unwrapped. Only a row that says twice that its key was
/// destroyed is a tombstone: a blob that was lost is no erasure. And no key opens anything whose scope was
/// shredded.
fn status_without_key(row: &DataKeyRecord) -> Option<KeyStatus> {
    let scope = row.scope.clone();
    let fault = |problem| Some(KeyStatus::Faulty(KeyFault::InvalidRow { problem }));
    match (&row.wrapped_key, row.shredded_at, row.scope_state) {
        (None, Some(_), _) => Some(KeyStatus::Shredded { scope }),
        (None, None, _) => fault("is missing, though the key was not shredded"),
        (Some(_), Some(_), _) => fault("is there, though the key was shredded"),
        (Some(_), None, ScopeState::Shredded) => fault("is there, though its scope was shredded: if a shred was cut short, shred it again"),
        (Some(_), None, ScopeState::Disabled) => Some(KeyStatus::Disabled { scope }),
        (Some(_), None, ScopeState::Live) => None,
    }
}

impl<Tx: Send + 'static> KeyManager<Tx> {
    /// The active keys of these scopes, made if they do not exist yet, and locked until the caller's
    /// transaction ends.
    pub(crate) async fn sealing_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<SealingKeys> {
        for scope in scopes {
            scope.check()?;
            if scope.is_reserved() {
                return Err(Error::InvalidText {
                    what: "the scope kind",
                    problem: "starts with '$', which is reserved: name another with scope_kind()",
                });
            }
        }
        if !self.is_warm() {
            // Nothing was opened yet. Ask the KMS now, while nothing is locked.
            self.active_kek(tx, PARTITION).await?;
        }
        let namespace = self.namespace(tx).await?;
        let mut wanted = scopes.to_vec();
        wanted.push(KeyScope::integrity());
        wanted.sort_unstable();
        let records = self.store.scopes(tx, &wanted, ScopeLock::Share).await?;
        let mut active: HashMap<KeyScope, DataKeyRecord> =
            records.into_iter().map(check_and_take).filter_map(Result::transpose).collect::<Result<_>>()?;
        if !active.contains_key(&KeyScope::integrity()) {
            return Err(no_active_kek(PARTITION));
        }
        let missing: Vec<KeyScope> = wanted.into_iter().filter(|scope| !active.contains_key(scope)).collect();
        if !missing.is_empty() {
            for (scope, key) in self.create_first_keys(tx, &missing).await? {
                active.insert(scope, key);
            }
        }
        let records: Vec<DataKeyRecord> = active.values().cloned().collect();
        let opened = self.open_all(tx, &namespace, &records).await?;
        let key_of_scope = |scope: &KeyScope| {
            let record = active.get(scope).ok_or_else(|| no_active_kek(PARTITION))?;
            Ok::<_, Error>((record.key_id, key_of(&opened, record.key_id)?))
        };
        let keys = scopes.iter().map(key_of_scope).collect::<Result<_>>()?;
        let integrity = key_of_scope(&KeyScope::integrity())?;
        Ok(SealingKeys { namespace, keys, integrity })
    }

    /// Scopes first, then the locking read again: whoever inserted a scope first makes its key.
    async fn create_first_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<Vec<(KeyScope, DataKeyRecord)>> {
        self.store.create_scopes(tx, scopes).await?;
        let records = self.store.scopes(tx, scopes, ScopeLock::Share).await?;
        let mut keks = HashMap::new();
        let mut active = Vec::with_capacity(scopes.len());
        let mut new = Vec::new();
        for record in records {
            let last_version = record.last_version;
            let scope = record.scope.clone();
            match check_and_take(record)? {
                Some(found) => active.push(found),
                None => {
                    let version = next(last_version, "data_keys.version")?;
                    let partition = self.partition_of(&scope);
                    let (namespace, kek, secret) = match keks.entry(partition) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(unknown) => {
                            let kek = self.active_kek(tx, unknown.key()).await?;
                            unknown.insert(kek)
                        }
                    };
                    new.push(self.make_key(namespace, &scope, version, kek.kek_id, secret)?);
                }
            }
        }
        if !new.is_empty() {
            self.store.insert_keys(tx, &new).await?;
        }
        active.extend(new.into_iter().map(|key| {
            let record = DataKeyRecord {
                key_id: key.key_id,
                scope: key.scope.clone(),
                version: key.version,
                kek_id: key.kek_id,
                wrapped_key: Some(key.wrapped_key),
                created_at: key.created_at,
                shredded_at: None,
                scope_state: ScopeState::Live,
            };
            (key.scope, record)
        }));
        Ok(active)
    }

    /// What the key table says of these keys, in one query.
    pub(crate) async fn opening_keys(&self, tx: &mut Tx, key_ids: &HashSet<KeyId>) -> Result<(Namespace, Keys)> {
        let namespace = self.namespace(tx).await?;
        if let Some(keys) = self.seen_lately(key_ids) {
            return Ok((namespace, keys));
        }
        self.opening_keys_now(tx, key_ids).await
    }

    /// The same, for those who must not lag.
    pub(crate) async fn opening_keys_now(&self, tx: &mut Tx, key_ids: &HashSet<KeyId>) -> Result<(Namespace, Keys)> {
        let namespace = self.namespace(tx).await?;
        let mut key_ids: Vec<KeyId> = key_ids.iter().copied().collect();
        key_ids.sort_unstable();
        let records = self.store.data_keys(tx, &key_ids).await?;
        let mut keys = Keys::with_capacity(key_ids.len());
        let mut live = Vec::with_capacity(records.len());
        for record in records {
            match status_without_key(&record) {
                Some(status) => {
                    keys.insert(record.key_id, status);
                }
                None => live.push(record),
            }
        }
        {
            let mut cache = lock(&self.keys);
            for key_id in keys.keys() {
                cache.pop(key_id);
            }
        }
        let mut opened = self.open_all(tx, &namespace, &live).await?;
        for record in live {
            match opened.remove(&record.key_id) {
                Some(Ok(key)) => keys.insert(record.key_id, KeyStatus::Live { scope: record.scope, key }),
                Some(Err(fault)) => keys.insert(record.key_id, KeyStatus::Faulty(fault)),
                None => None,
            };
        }
        Ok((namespace, keys))
    }

    /// All of these keys as they were when their rows were last read, if the reader accepts that.
    fn seen_lately(&self, key_ids: &HashSet<KeyId>) -> Option<Keys> {
        let lag = self.read_lag?;
        let mut cache = lock(&self.keys);
        let seen = key_ids.iter().map(|key_id| {
            let cached = cache.get(key_id).filter(|cached| cached.seen.elapsed() < lag)?;
            Some((*key_id, KeyStatus::Live { scope: cached.row.scope.clone(), key: Arc::clone(&cached.key) }))
        });
        seen.collect()
    }

    /// Unwraps these keys, or finds them in the cache. A row that does not open is a matter of that key alone;
    /// a KMS that does not answer is one of all.
    pub(super) async fn open_all(&self, tx: &mut Tx, namespace: &Namespace, records: &[DataKeyRecord]) -> Result<OpenedKeys> {
        let mut opened = HashMap::with_capacity(records.len());
        let mut closed = Vec::new();
        {
            let mut cache = lock(&self.keys);
            for record in records {
                match cache.get_mut(&record.key_id) {
                    Some(cached) if cached.is_from(record) => {
                        cached.seen = Instant::now();
                        opened.insert(record.key_id, Ok(Arc::clone(&cached.key)));
                    }
                    _ => closed.push(record),
                }
            }
        }
        if closed.is_empty() {
            return Ok(opened);
        }
        let keks = self.keks_of(tx, &closed).await?;
        for record in closed {
            let Some(kek) = keks.get(&record.kek_id) else {
                opened.insert(record.key_id, Err(KeyFault::MissingKek { kek_id: record.kek_id }));
                continue;
            };
            let bound = BoundKey { namespace, key_id: record.key_id, scope: &record.scope, version: record.version, kek_id: record.kek_id };
            let wrapped = record.wrapped_key.as_deref().unwrap_or_default();
            let Some(secret) = bound.with(|associated_data| unwrap_key(kek, associated_data, wrapped)) else {
                opened.insert(record.key_id, Err(KeyFault::WrongKey { kek_id: record.kek_id }));
                continue;
            };
            let key = Arc::new(DataKey::new(secret.expose())?);
            lock(&self.keys).put(record.key_id, Cached { row: record.clone(), key: Arc::clone(&key), seen: Instant::now() });
            opened.insert(record.key_id, Ok(key));
        }
        Ok(opened)
    }

    /// The key-encryption keys of these data keys. The KMS is asked once per key and process.
    async fn keks_of(&self, tx: &mut Tx, records: &[&DataKeyRecord]) -> Result<HashMap<KekId, Arc<SecretKey>>> {
        let wanted: HashSet<KekId> = records.iter().map(|record| record.kek_id).collect();
        let mut keks: HashMap<KekId, Arc<SecretKey>> = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for kek_id in wanted {
            match self.keks.get(kek_id) {
                Some(kek) => {
                    keks.insert(kek_id, kek);
                }
                None => unknown.push(kek_id),
            }
        }
        if !unknown.is_empty() {
            for record in self.store.keks(tx, &unknown).await? {
                keks.insert(record.kek_id, self.kek(&record).await?);
            }
        }
        Ok(keks)
    }

    /// Opens a key-encryption key; callers that come at the same time share one call to the KMS.
    pub(super) async fn kek(&self, record: &KekRecord) -> Result<Arc<SecretKey>> {
        self.keks.get_or_open(record.kek_id, self.unwrap_kek(record)).await
    }

    /// Asks the KMS.
    pub(super) async fn unwrap_kek(&self, record: &KekRecord) -> Result<SecretKey> {
        if record.provider != self.kms.provider() {
            let problem = format!(
                "it was wrapped by provider {:?}, this process uses {:?}: configure the provider that wrapped it",
                record.provider,
                self.kms.provider()
            );
            return Err(Error::KmsRefused { kek_id: record.kek_id, failure: KmsFailure::WrongKey, problem });
        }
        let namespace = self.namespace.get().cloned().ok_or(Error::NotMigrated)?;
        self.kms.unwrap_kek(&record.wrapped, &KekContext { namespace, kek_id: record.kek_id }).await
    }

    /// Is a key-encryption key at hand, so that the KMS will not have to be asked?
    pub(super) fn is_warm(&self) -> bool {
        self.keks.is_warm()
    }

    /// For making keys. What is wrapped for another namespace than the database's would never open again.
    pub(super) async fn active_kek(&self, tx: &mut Tx, partition: &str) -> Result<(Namespace, KekRecord, Arc<SecretKey>)> {
        let namespace = self.check_namespace(tx).await?;
        let kek = self.store.active_kek(tx, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        let secret = self.kek(&kek).await?;
        Ok((namespace, kek, secret))
    }

    #[allow(clippy::unused_self, reason = "keys are made by the key manager")]
    pub(super) fn make_key(
        &self,
        namespace: &Namespace,
        scope: &KeyScope,
        version: u32,
        kek_id: KekId,
        kek: &SecretKey,
    ) -> Result<NewDataKey> {
        let key_id = KeyId(random::uuid()?);
        let secret = random::key()?;
        let bound = BoundKey { namespace, key_id, scope, version, kek_id };
        let wrapped_key = bound.with(|associated_data| wrap_key(kek, associated_data, &secret))?;
        Ok(NewDataKey { key_id, scope: scope.clone(), version, kek_id, wrapped_key, created_at: now() })
    }

    /// The database's namespace. It never changes, so it is read once: with another database, what is read
    /// with it does not open.
    pub(super) async fn namespace(&self, tx: &mut Tx) -> Result<Namespace> {
        match self.namespace.get() {
            Some(namespace) => Ok(namespace.clone()),
            None => self.check_namespace(tx).await,
        }
    }

    /// Reads the database's namespace, and compares it with the configured one and with the one that was read
    /// first.
    pub(super) async fn check_namespace(&self, tx: &mut Tx) -> Result<Namespace> {
        let found = self.store.namespace(tx).await?.ok_or(Error::NotMigrated)?;
        let expected = self.configured.as_ref().unwrap_or_else(|| self.namespace.get_or_init(|| found.clone()));
        if *expected != found {
            return Err(Error::NamespaceMismatch { configured: expected.clone(), found });
        }
        Ok(self.namespace.get_or_init(|| found).clone())
    }
}
