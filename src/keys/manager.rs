//! The key manager: creates, looks up, caches, rotates and shreds data keys.
//!
//! It is the only place where wrapped keys are opened. What it caches is unwrapped material alone; what
//! may be done with it is read from the key table in the caller's transaction every time ("strict"), so
//! a committed shred holds for every statement that starts after it (invariant I5).

use crate::error::{Error, Result};
use crate::event::{check_text, now};
use crate::key::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{
    DataKeyRecord, KekRecord, KeyHistory, KeyInfo, KeyStore, NewDataKey, ScopeAction, ScopeChange, ScopeLock, ScopeRecord, ScopeState,
};
use crate::kms::{KekContext, Kms};
use crate::random;
use crate::seal::crypto::DataKey;
use crate::seal::opening::{KeyStatus, Keys};
use crate::secret::SecretKey;
use crate::wrap::{unwrap_key, wrap_key};
use lru::LruCache;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use time::OffsetDateTime;
use tokio::sync::OnceCell;

const PARTITION: &str = "default";
const CACHED_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The keys of a store: what operators call. Application code meets it as
/// [`SealedStore::keys`](crate::SealedStore::keys).
///
/// Everything but [`prepare`](Self::prepare) runs in the caller's transaction and takes effect when the
/// caller commits.
pub struct KeyManager<Tx> {
    store: Arc<dyn KeyStore<Tx = Tx>>,
    kms: Arc<dyn Kms>,
    configured: Option<Namespace>,
    namespace: OnceLock<Namespace>,
    keks: Mutex<HashMap<KekId, Arc<OnceCell<Arc<SecretKey>>>>>,
    keys: Mutex<LruCache<KeyId, Cached>>,
}

/// An unwrapped key, and the row it was unwrapped from: another row means another look.
struct Cached {
    row: DataKeyRecord,
    key: Arc<DataKey>,
}

impl Cached {
    /// Is this the row that the key was unwrapped from, in all that the wrapping is bound to?
    fn is_from(&self, row: &DataKeyRecord) -> bool {
        let bound = |row: &DataKeyRecord| (row.version, row.kek_id);
        self.row.wrapped_key == row.wrapped_key && self.row.scope == row.scope && bound(&self.row) == bound(row)
    }
}

/// What a shred destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shredding {
    /// Whose keys.
    pub scope: KeyScope,
    /// The keys that were destroyed just now: none if the scope had none, or was shredded before.
    pub destroyed: Vec<KeyId>,
    /// When.
    pub at: OffsetDateTime,
}

/// The keys for sealing, in the order of the scopes asked for.
pub(crate) struct SealingKeys {
    pub(crate) namespace: Namespace,
    pub(crate) keys: Vec<(KeyId, Arc<DataKey>)>,
    pub(crate) integrity: (KeyId, Arc<DataKey>),
}

impl<Tx: Send + 'static> KeyManager<Tx> {
    pub(crate) fn new(store: Arc<dyn KeyStore<Tx = Tx>>, kms: Arc<dyn Kms>) -> Self {
        Self {
            store,
            kms,
            configured: None,
            namespace: OnceLock::new(),
            keks: Mutex::default(),
            keys: Mutex::new(LruCache::new(CACHED_KEYS)),
        }
    }

    pub(crate) fn expect_namespace(&mut self, namespace: Namespace) {
        self.configured = Some(namespace);
    }

    /// Makes the keys usable: call it once at startup, on a connection that is *not* in a transaction.
    ///
    /// Checks that the tables are migrated and belong to the configured namespace, makes the first
    /// key-encryption key and the integrity key if there are none, and opens both, which shows that the
    /// KMS answers. Idempotent; several processes may call it at once.
    ///
    /// # Errors
    /// [`Error::NotMigrated`], [`Error::NamespaceMismatch`], [`Error::InTransaction`],
    /// [`Error::KmsUnavailable`], [`Error::KmsRefused`], [`Error::Database`].
    pub async fn prepare(&self, connection: &mut Tx) -> Result<()> {
        let namespace = self.namespace(connection).await?;
        let kek = match self.store.active_kek(connection, PARTITION).await? {
            Some(kek) => kek,
            None => {
                let kek_id = KekId(random::uuid()?);
                let (_, wrapped) = self.kms.generate_kek(&KekContext { namespace: namespace.clone(), kek_id }).await?;
                let kek = KekRecord {
                    kek_id,
                    partition: PARTITION.to_owned(),
                    provider: self.kms.provider().to_owned(),
                    wrapped,
                    created_at: now(),
                };
                self.store.install_kek(connection, &kek).await?;
                // Another process may have been faster: its key is the active one then.
                let kek = self.store.active_kek(connection, PARTITION).await?.ok_or_else(no_active_kek)?;
                tracing::info!(kek_id = %kek.kek_id, %namespace, "the first key-encryption key is in place");
                kek
            }
        };
        let secret = self.kek(&kek).await?;
        let scope = KeyScope::integrity();
        if self.store.scopes(connection, std::slice::from_ref(&scope), ScopeLock::None).await?.is_empty() {
            let key = self.make_key(&namespace, &scope, 1, kek.kek_id, &secret)?;
            self.store.install_key(connection, &key).await?;
        }
        let record = self.store.scopes(connection, std::slice::from_ref(&scope), ScopeLock::None).await?.pop();
        let key = record.and_then(|record| record.active).ok_or_else(no_active_kek)?;
        self.open_all(connection, &namespace, std::slice::from_ref(&key)).await?;
        Ok(())
    }

    /// Destroys every data key of a scope for good, and leaves a tombstone.
    ///
    /// Needs no KMS. Works on scopes that were never seen (nothing can be sealed for them from then on)
    /// and on disabled ones; a second time it destroys nothing. From the commit on, every statement sees
    /// the scope's fields redacted. Backups of the key table still hold the keys: let them expire.
    ///
    /// `reason` is kept for good in the scope's history: name the request, not the person.
    ///
    /// # Errors
    /// [`Error::NotInTransaction`], [`Error::InvalidText`], [`Error::ScopeState`] for this crate's own
    /// scopes, [`Error::Collision`] (retryable), [`Error::Database`].
    pub async fn shred(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<Shredding> {
        check_change(scope, reason)?;
        self.store.create_scopes(tx, std::slice::from_ref(scope)).await?;
        let record = self.lock(tx, scope).await?;
        let at = now();
        if record.state != ScopeState::Shredded {
            let change = ScopeChange {
                scope: scope.clone(),
                action: ScopeAction::Shred,
                state: ScopeState::Shredded,
                generation: record.generation,
                reason: reason.to_owned(),
                at,
            };
            self.store.change_scope(tx, &change).await?;
        }
        let destroyed = self.store.destroy_keys(tx, scope, at).await?;
        let mut cache = lock(&self.keys);
        for key_id in &destroyed {
            cache.pop(key_id);
        }
        tracing::info!(kind = scope.kind(), id = scope.id(), destroyed = destroyed.len(), "shredded, once committed");
        Ok(Shredding { scope: scope.clone(), destroyed, at })
    }

    /// Begins a new generation of keys for a shredded scope. What was shredded stays shredded.
    ///
    /// # Errors
    /// [`Error::ScopeState`] if the scope is not shredded, and as [`shred`](Self::shred); errors of the KMS.
    pub async fn reopen(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<KeyInfo> {
        check_change(scope, reason)?;
        self.announce_writing(tx).await?;
        let (namespace, kek, secret) = self.active_kek(tx).await?;
        let record = self.lock(tx, scope).await?;
        if record.state != ScopeState::Shredded {
            return Err(Error::ScopeState { scope: scope.clone(), problem: "is not shredded, so there is nothing to reopen" });
        }
        let change = ScopeChange {
            scope: scope.clone(),
            action: ScopeAction::Reopen,
            state: ScopeState::Live,
            generation: record.generation + 1,
            reason: reason.to_owned(),
            at: now(),
        };
        self.store.change_scope(tx, &change).await?;
        self.add_key(tx, &namespace, &record, &kek, &secret).await
    }

    /// Gives a scope a new active data key. Its older keys go on opening what they sealed.
    ///
    /// # Errors
    /// [`Error::Shredded`], [`Error::Disabled`], [`Error::ScopeState`] if the scope has no keys yet,
    /// [`Error::NotInTransaction`], [`Error::Collision`] (retryable), [`Error::Database`]; errors of the KMS.
    pub async fn rotate_data_key(&self, tx: &mut Tx, scope: &KeyScope) -> Result<KeyInfo> {
        scope.check()?;
        self.announce_writing(tx).await?;
        let (namespace, kek, secret) = self.active_kek(tx).await?;
        let record = self.lock(tx, scope).await?;
        check_usable(&record)?;
        self.add_key(tx, &namespace, &record, &kek, &secret).await
    }

    /// Puts a scope's keys out of use: an emergency stop that [`enable`](Self::enable) reverses.
    /// Reads and appends fail with [`Error::Disabled`]; nothing is redacted.
    ///
    /// # Errors
    /// [`Error::ScopeState`] if the scope is not live, and as [`shred`](Self::shred).
    pub async fn disable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.switch(
            tx,
            scope,
            reason,
            (ScopeState::Live, ScopeState::Disabled),
            ScopeAction::Disable,
            "is not live, so it can't be disabled",
        )
        .await
    }

    /// Puts a disabled scope's keys into use again.
    ///
    /// # Errors
    /// [`Error::ScopeState`] if the scope is not disabled, and as [`shred`](Self::shred).
    pub async fn enable(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<()> {
        self.switch(tx, scope, reason, (ScopeState::Disabled, ScopeState::Live), ScopeAction::Enable, "is not disabled").await
    }

    /// Everything the key table knows of a scope: its keys, when they were made and destroyed, and what
    /// was done to it for which reason. `None` if it was never seen. Never key material.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn key_history(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Option<KeyHistory>> {
        self.store.history(tx, scope).await
    }

    async fn switch(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        reason: &str,
        (from, to): (ScopeState, ScopeState),
        action: ScopeAction,
        problem: &'static str,
    ) -> Result<()> {
        check_change(scope, reason)?;
        let record = self.lock(tx, scope).await?;
        if record.state != from {
            return Err(Error::ScopeState { scope: scope.clone(), problem });
        }
        let change =
            ScopeChange { scope: scope.clone(), action, state: to, generation: record.generation, reason: reason.to_owned(), at: now() };
        self.store.change_scope(tx, &change).await
    }

    /// Before the first look in a transaction that is going to write: a database that can't turn a
    /// reader into a writer must know. Locks no scopes.
    async fn announce_writing(&self, tx: &mut Tx) -> Result<()> {
        self.store.scopes(tx, &[], ScopeLock::Share).await.map(drop)
    }

    async fn lock(&self, tx: &mut Tx, scope: &KeyScope) -> Result<ScopeRecord> {
        let record = self.store.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await?.pop();
        record.ok_or_else(|| Error::ScopeState { scope: scope.clone(), problem: "has no keys: nothing was ever sealed for it" })
    }

    async fn add_key(
        &self,
        tx: &mut Tx,
        namespace: &Namespace,
        record: &ScopeRecord,
        kek: &KekRecord,
        secret: &SecretKey,
    ) -> Result<KeyInfo> {
        let key = self.make_key(namespace, &record.scope, record.last_version + 1, kek.kek_id, secret)?;
        self.store.insert_keys(tx, std::slice::from_ref(&key)).await?;
        Ok(KeyInfo { key_id: key.key_id, version: key.version, kek_id: key.kek_id, created_at: key.created_at, shredded_at: None })
    }

    // ---- for sealing and opening

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
        if !lock(&self.keks).values().any(|cell| cell.initialized()) {
            // Nothing was opened yet. Ask the KMS now, while no scopes are locked.
            self.announce_writing(tx).await?;
            self.active_kek(tx).await?;
        }
        let namespace = self.namespace(tx).await?;
        let mut wanted = scopes.to_vec();
        wanted.push(KeyScope::integrity());
        wanted.sort_unstable();
        let records = self.store.scopes(tx, &wanted, ScopeLock::Share).await?;
        let mut active: HashMap<KeyScope, DataKeyRecord> =
            records.into_iter().map(check_and_take).filter_map(Result::transpose).collect::<Result<_>>()?;
        if !active.contains_key(&KeyScope::integrity()) {
            return Err(no_active_kek());
        }
        let missing: Vec<KeyScope> = wanted.into_iter().filter(|scope| !active.contains_key(scope)).collect();
        if !missing.is_empty() {
            for (scope, key) in self.create_first_keys(tx, &missing).await? {
                active.insert(scope, key);
            }
        }
        let records: Vec<DataKeyRecord> = active.values().cloned().collect();
        let opened = self.open_all(tx, &namespace, &records).await?;
        let key_of = |scope: &KeyScope| {
            let record = active.get(scope).ok_or_else(no_active_kek)?;
            let key = opened.get(&record.key_id).ok_or_else(no_active_kek)?;
            Ok::<_, Error>((record.key_id, Arc::clone(key)))
        };
        let keys = scopes.iter().map(key_of).collect::<Result<_>>()?;
        let integrity = key_of(&KeyScope::integrity())?;
        Ok(SealingKeys { namespace, keys, integrity })
    }

    /// Scopes first, then the locking read again: whoever inserted a scope first makes its key.
    async fn create_first_keys(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<Vec<(KeyScope, DataKeyRecord)>> {
        self.store.create_scopes(tx, scopes).await?;
        let records = self.store.scopes(tx, scopes, ScopeLock::Share).await?;
        let (namespace, kek, secret) = self.active_kek(tx).await?;
        let mut active = Vec::with_capacity(scopes.len());
        let mut new = Vec::new();
        for record in records {
            let last_version = record.last_version;
            let scope = record.scope.clone();
            match check_and_take(record)? {
                Some(found) => active.push(found),
                None => new.push(self.make_key(&namespace, &scope, last_version + 1, kek.kek_id, &secret)?),
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
        let mut key_ids: Vec<KeyId> = key_ids.iter().copied().collect();
        key_ids.sort_unstable();
        let records = self.store.data_keys(tx, &key_ids).await?;
        let (live, others): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.wrapped_key.is_some() && record.scope_state != ScopeState::Disabled);
        let mut keys = Keys::with_capacity(key_ids.len());
        for record in others {
            let scope = record.scope;
            keys.insert(
                record.key_id,
                if record.wrapped_key.is_none() { KeyStatus::Shredded { scope } } else { KeyStatus::Disabled { scope } },
            );
        }
        {
            let mut cache = lock(&self.keys);
            for key_id in keys.keys() {
                cache.pop(key_id);
            }
        }
        let mut opened = self.open_all(tx, &namespace, &live).await?;
        for record in live {
            if let Some(key) = opened.remove(&record.key_id) {
                keys.insert(record.key_id, KeyStatus::Live { scope: record.scope, key });
            }
        }
        Ok((namespace, keys))
    }

    /// Unwraps these keys, or finds them in the cache.
    async fn open_all(&self, tx: &mut Tx, namespace: &Namespace, records: &[DataKeyRecord]) -> Result<HashMap<KeyId, Arc<DataKey>>> {
        let mut opened = HashMap::with_capacity(records.len());
        let mut closed = Vec::new();
        {
            let mut cache = lock(&self.keys);
            for record in records {
                match cache.get(&record.key_id) {
                    Some(cached) if cached.is_from(record) => {
                        opened.insert(record.key_id, Arc::clone(&cached.key));
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
            let wrong = || Error::WrongKey { key_id: record.key_id, kek_id: record.kek_id };
            let kek = keks.get(&record.kek_id).ok_or(Error::MissingKek { kek_id: record.kek_id })?;
            let wrapped = record.wrapped_key.as_ref().ok_or_else(wrong)?;
            let bound = BoundKey { namespace, key_id: record.key_id, scope: &record.scope, version: record.version, kek_id: record.kek_id };
            let secret = bound.with(|associated_data| unwrap_key(kek, associated_data, wrapped)).ok_or_else(wrong)?;
            let key = Arc::new(DataKey::new(secret.expose())?);
            lock(&self.keys).put(record.key_id, Cached { row: record.clone(), key: Arc::clone(&key) });
            opened.insert(record.key_id, key);
        }
        Ok(opened)
    }

    /// The key-encryption keys of these data keys. The KMS is asked once per key and process.
    async fn keks_of(&self, tx: &mut Tx, records: &[&DataKeyRecord]) -> Result<HashMap<KekId, Arc<SecretKey>>> {
        let wanted: HashSet<KekId> = records.iter().map(|record| record.kek_id).collect();
        let mut keks: HashMap<KekId, Arc<SecretKey>> = HashMap::with_capacity(wanted.len());
        let mut unknown = Vec::new();
        for kek_id in wanted {
            match lock(&self.keks).get(&kek_id).and_then(|cell| cell.get().cloned()) {
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
    async fn kek(&self, record: &KekRecord) -> Result<Arc<SecretKey>> {
        let cell = Arc::clone(lock(&self.keks).entry(record.kek_id).or_default());
        let unwrap = async {
            if record.provider != self.kms.provider() {
                let problem = format!(
                    "it was wrapped by provider {:?}, this process uses {:?}: configure the provider that wrapped it",
                    record.provider,
                    self.kms.provider()
                );
                return Err(Error::KmsRefused { kek_id: record.kek_id, problem });
            }
            let namespace = self.namespace.get().cloned().ok_or(Error::NotMigrated)?;
            self.kms.unwrap_kek(&record.wrapped, &KekContext { namespace, kek_id: record.kek_id }).await.map(Arc::new)
        };
        cell.get_or_try_init(|| unwrap).await.cloned()
    }

    async fn active_kek(&self, tx: &mut Tx) -> Result<(Namespace, KekRecord, Arc<SecretKey>)> {
        let namespace = self.namespace(tx).await?;
        let kek = self.store.active_kek(tx, PARTITION).await?.ok_or_else(no_active_kek)?;
        let secret = self.kek(&kek).await?;
        Ok((namespace, kek, secret))
    }

    #[allow(clippy::unused_self, reason = "keys are made by the key manager")]
    fn make_key(&self, namespace: &Namespace, scope: &KeyScope, version: u32, kek_id: KekId, kek: &SecretKey) -> Result<NewDataKey> {
        let key_id = KeyId(random::uuid()?);
        let secret = SecretKey::new(*random::key()?);
        let bound = BoundKey { namespace, key_id, scope, version, kek_id };
        let wrapped_key = bound.with(|associated_data| wrap_key(kek, associated_data, &secret))?;
        Ok(NewDataKey { key_id, scope: scope.clone(), version, kek_id, wrapped_key, created_at: now() })
    }

    /// The database's namespace, checked against the configured one. It never changes, so it is read once.
    async fn namespace(&self, tx: &mut Tx) -> Result<Namespace> {
        if let Some(namespace) = self.namespace.get() {
            return Ok(namespace.clone());
        }
        let found = self.store.namespace(tx).await?.ok_or(Error::NotMigrated)?;
        match &self.configured {
            Some(configured) if *configured != found => Err(Error::NamespaceMismatch { configured: configured.clone(), found }),
            _ => Ok(self.namespace.get_or_init(|| found).clone()),
        }
    }
}

/// What a wrapped data key is bound to: rows can't be swapped.
pub(crate) struct BoundKey<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) key_id: KeyId,
    pub(crate) scope: &'a KeyScope,
    pub(crate) version: u32,
    pub(crate) kek_id: KekId,
}

impl BoundKey<'_> {
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&[&[u8]]) -> T) -> T {
        use_it(&[
            b"eventseal/v1/dek",
            self.namespace.as_str().as_bytes(),
            self.key_id.0.as_bytes(),
            self.scope.kind().as_bytes(),
            self.scope.id().as_bytes(),
            &self.version.to_be_bytes(),
            self.kek_id.0.as_bytes(),
        ])
    }
}

/// The active key of a scope that may be used; `None` if it has none yet.
fn check_and_take(record: ScopeRecord) -> Result<Option<(KeyScope, DataKeyRecord)>> {
    check_usable(&record)?;
    Ok(record.active.map(|key| (record.scope, key)))
}

fn check_usable(record: &ScopeRecord) -> Result<()> {
    let scope = record.scope.clone();
    match record.state {
        ScopeState::Live => Ok(()),
        ScopeState::Disabled => Err(Error::Disabled { scope }),
        ScopeState::Shredded => Err(Error::Shredded { scope }),
    }
}

fn check_change(scope: &KeyScope, reason: &str) -> Result<()> {
    scope.check()?;
    check_text("the reason", reason)?;
    if scope.is_reserved() {
        return Err(Error::ScopeState {
            scope: scope.clone(),
            problem: "belongs to eventseal itself: without it no redaction could be verified",
        });
    }
    Ok(())
}

fn no_active_kek() -> Error {
    Error::NoActiveKek { partition: PARTITION.to_owned() }
}

/// A panic while one of these locks is held leaves nothing half done behind it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows how much is cached, never what.
impl<Tx> fmt::Debug for KeyManager<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("namespace", &self.namespace.get())
            .field("provider", &self.kms.provider())
            .finish_non_exhaustive()
    }
}
