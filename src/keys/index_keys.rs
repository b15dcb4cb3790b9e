//! The keys of the blind indexes. They are the versions of one data key, in a scope of this crate's own.
//!
//! An entry of a blind index depends on these keys as an event depends on its data key. So whoever adds an entry locks
//! the scope of these keys as well as the scope of the owner. A rotation waits for it, and whoever adds an entry after
//! the rotation hashes under the new version too.

use crate::crypto::primitives::DataKey;
use crate::error::{Error, InputFault, KeyFault, Result, StorageFault, no_effect};
use crate::event::now;
use crate::keys::ahead::Pinned;
use crate::keys::manager::{KeyManager, check_and_take, lock};
use crate::keys::material::{key_of, with_integrity};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyInfo, KeyRows, KeyStore, KeyTable, KeyWork, ScopeLock, ScopeRecord};
use crate::seal::opening::KeyStatus;
use async_trait::async_trait;
use std::collections::HashSet;
use std::slice::from_ref;
use std::sync::Arc;

const RETIRING: &str = "retiring keys of the blind indexes";

/// A version of the key of the blind indexes.
pub(crate) struct IndexKeyVersion {
    pub(crate) key_id: KeyId,
    pub(crate) version: u32,
    pub(crate) key: Arc<DataKey>,
}

/// The active key of the blind indexes, and every version that the scope had when that key was made, newest first.
/// These never change: a key id is random, and later versions are made under a lock.
pub(crate) struct IndexVersions {
    active: KeyId,
    all: Arc<[(KeyId, u32)]>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Gives the [blind indexes](crate::blind_index) a new active key. The older ones stay in use beside it until they
    /// are [retired](KeyManager::retire_index_keys): entries are written and looked for under all of them.
    ///
    /// It waits for the transactions that are adding entries, and those that come later wait for it. On PostgreSQL, a
    /// steady stream of overlapping ones can keep it waiting: see `PostgresKeys`. See
    /// [`blind_index`](crate::blind_index#how-its-key-is-rotated) for the whole procedure.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the blind indexes have no key yet, and the other errors of
    /// [`rotate_data_key`](Self::rotate_data_key).
    pub async fn rotate_index_key(&self, tx: &mut Tx) -> Result<KeyInfo> {
        self.rotate_data_key(tx, &KeyScope::index()).await
    }

    /// The keys under which an entry may be stored, the active one first, for a look-up. Nothing is locked or created:
    /// without a key there are no entries.
    pub(crate) async fn index_keys(&self, tx: &mut Tx) -> Result<Vec<IndexKeyVersion>> {
        self.check_log_to_read(tx).await?;
        let record = self.store.scopes(tx, from_ref(&KeyScope::index()), ScopeLock::None).await?.pop();
        self.present_index_keys(tx, record, None).await
    }

    /// The same keys, for a transaction that is going to remove entries of this owner. Nothing is created. The keys are
    /// locked against a rotation, so that no entry is added under a key that this transaction does not know. The owner
    /// is locked against a reopening. Returns the owner's row too, if there is one.
    pub(crate) async fn index_keys_to_remove(
        &self,
        tx: &mut Tx,
        owner: &KeyScope,
    ) -> Result<(Vec<IndexKeyVersion>, Option<ScopeRecord>)> {
        let scope = KeyScope::index();
        self.check_log(tx).await?;
        let pinned = self.open_index_ahead(tx, &with_integrity(from_ref(&scope))).await?;
        self.store.announce_writing(tx).await?;
        let mut wanted = [owner.clone(), scope.clone()];
        wanted.sort_unstable();
        let locked = self.store.scopes(tx, &wanted, ScopeLock::Share).await?;
        let (of_index, of_owner): (Vec<_>, Vec<_>) = locked.into_iter().partition(|record| record.scope == scope);
        let keys = self.present_index_keys(tx, of_index.into_iter().next(), Some(&pinned)).await?;
        Ok((keys, of_owner.into_iter().next()))
    }

    /// The keys that are there. With `pinned`, the caller may hold locks, so the KMS is not asked.
    async fn present_index_keys(
        &self,
        tx: &mut Tx,
        record: Option<ScopeRecord>,
        pinned: Option<&Pinned>,
    ) -> Result<Vec<IndexKeyVersion>> {
        let (namespace, scope) = (self.namespace(tx).await?, KeyScope::index());
        let Some(record) = record else { return Ok(Vec::new()) };
        let Some((_, active)) = check_and_take(record)? else {
            // A row and its first key are committed together. So a row without an active key has lost it.
            let history = self.store.history(tx, &scope).await?;
            if history.is_some_and(|history| !history.keys.is_empty()) {
                let problem = "has keys, but its row in the key table names none as the active one: restore the row";
                return Err(Error::Keys(KeyFault::ScopeState { scope, problem }));
            }
            return Ok(Vec::new());
        };
        let opened = self.open_all(tx, &namespace, from_ref(&active), None, pinned).await?;
        self.cache.keys.activate(&scope, active.key_id);
        self.with_older(tx, (active.key_id, key_of(&opened, active.key_id)?), pinned).await
    }

    /// The same keys, for entries that are to be stored for this owner. The owner is locked against a shred and the
    /// keys against a rotation, until the caller's transaction ends. Keys that are missing are created. Returns the
    /// owner's generation too.
    pub(crate) async fn index_keys_to_store(
        &self,
        tx: &mut Tx,
        owner: &KeyScope,
    ) -> Result<(Vec<IndexKeyVersion>, u32)> {
        owner.check()?;
        if owner.is_reserved() {
            let problem = "starts with '$', which is reserved: no entry is stored for it";
            return Err(Error::Input(InputFault::InvalidText { what: "the scope kind", problem }));
        }
        let scope = KeyScope::index();
        let wanted = with_integrity(&[owner.clone(), scope.clone()]);
        self.check_log(tx).await?;
        let pinned = self.open_index_ahead(tx, &wanted).await?;
        let locked = self.locked_keys(tx, from_ref(&scope), wanted, &pinned).await?;
        let active = locked.keys.keys.into_iter().next().ok_or(Error::Keys(KeyFault::Cryptography))?;
        let generation = locked.generations.get(owner).copied().ok_or(Error::Keys(KeyFault::Cryptography))?;
        Ok((self.with_older(tx, active, Some(&pinned)).await?, generation))
    }

    /// Opens the key-encryption keys that a call will need for these scopes, before it locks anything.
    async fn open_index_ahead(&self, tx: &mut Tx, wanted: &[KeyScope]) -> Result<Pinned> {
        let missed = self.has_missed(&KeyScope::index());
        let mut pinned = self.open_ahead(tx, wanted).await?;
        if missed {
            // An older version may be wrapped by another key than the active one, which an earlier call has missed.
            self.open_missed(&mut pinned).await?;
        }
        Ok(pinned)
    }

    /// Adds the older versions that are not retired.
    async fn with_older(
        &self,
        tx: &mut Tx,
        (active, key): (KeyId, Arc<DataKey>),
        pinned: Option<&Pinned>,
    ) -> Result<Vec<IndexKeyVersion>> {
        let versions = self.versions_of_index_key(tx, active).await?;
        let older: HashSet<KeyId> =
            versions.iter().map(|(key_id, _)| *key_id).filter(|key_id| *key_id != active).collect();
        let mut statuses = match older.is_empty() {
            true => Default::default(),
            false => self.opening_keys_now(tx, &older, pinned).await?.1,
        };
        let mut keys = Vec::with_capacity(versions.len());
        for (key_id, version) in versions.iter().copied() {
            if key_id == active {
                keys.push(IndexKeyVersion { key_id, version, key: Arc::clone(&key) });
                continue;
            }
            match statuses.remove(&key_id) {
                Some(KeyStatus::Live { scope, key }) if scope == KeyScope::index() => {
                    keys.push(IndexKeyVersion { key_id, version, key });
                }
                Some(KeyStatus::Shredded { .. }) => {}
                Some(KeyStatus::Disabled { scope }) => return Err(Error::Disabled { scope }),
                Some(KeyStatus::Faulty(error)) => return Err(error),
                Some(KeyStatus::Live { .. }) | None => return Err(not_its_own()),
            }
        }
        Ok(keys)
    }

    /// The versions that the scope has, newest first. They are read once for each active key.
    async fn versions_of_index_key(&self, tx: &mut Tx, active: KeyId) -> Result<Arc<[(KeyId, u32)]>> {
        if let Some(known) = lock(&self.index_versions).as_ref().filter(|known| known.active == active) {
            return Ok(Arc::clone(&known.all));
        }
        let history = self.store.history(tx, &KeyScope::index()).await?;
        let mut all: Vec<(KeyId, u32)> =
            history.into_iter().flat_map(|history| history.keys).map(|key| (key.key_id, key.version)).collect();
        all.sort_unstable_by_key(|(_, version)| std::cmp::Reverse(*version));
        // The key that is active is the newest, or it would not be used. A later one is not committed, or is newer than
        // what this call has read.
        let newest = all.iter().position(|(key_id, _)| *key_id == active).ok_or_else(not_its_own)?;
        let all: Arc<[(KeyId, u32)]> = all.split_off(newest).into();
        *lock(&self.index_versions) = Some(IndexVersions { active, all: Arc::clone(&all) });
        Ok(all)
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Destroys every key of the [blind indexes](crate::blind_index) but the active one, and leaves tombstones. Returns
    /// their ids. Entries under these keys are never found again.
    ///
    /// [`Lookup::finish_rotation`](crate::blind_index::Lookup::finish_rotation) calls it, once it has made sure that no
    /// entry is lost. Call it yourself if you keep the hashes in a table of your own, and only if each value is stored
    /// under the key `active`. The connection must *not* be in a transaction.
    ///
    /// # Errors
    /// [`Error::Collision`] if another key is the active one, because somebody rotated it;
    /// [`StorageFault::NoEffect`]; [`Error::Database`];
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction).
    pub async fn retire_index_keys(&self, connection: &mut Tx, active: KeyId) -> Result<Vec<KeyId>> {
        self.check_log(connection).await?;
        self.check_namespace(connection).await?;
        let mut work = Retire { active, retired: Vec::new() };
        self.store.in_transaction(connection, RETIRING, &mut work).await?;
        tracing::info!(retired = work.retired.len(), "retired keys of the blind indexes");
        Ok(work.retired)
    }
}

struct Retire {
    active: KeyId,
    retired: Vec<KeyId>,
}

#[async_trait]
impl KeyWork for Retire {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let scope = KeyScope::index();
        self.retired.clear();
        if rows.scope(&scope).await?.is_none() {
            return Err(Error::Collision { source: None });
        }
        let record = rows.lock_scopes(from_ref(&scope)).await?.pop();
        let active = record.map(check_and_take).transpose()?.flatten();
        if active.is_none_or(|(_, key)| key.key_id != self.active) {
            return Err(Error::Collision { source: None });
        }
        let keys = rows.data_keys_of(&scope).await?;
        let older = keys.into_iter().filter(|key| key.wrapped_key.is_some() && key.key_id != self.active);
        self.retired = older.map(|key| key.key_id).collect();
        if rows.destroy_by_id(&self.retired, now()).await? == self.retired.len() as u64 {
            return Ok(());
        }
        Err(no_effect(RETIRING, "data_keys"))
    }
}

fn not_its_own() -> Error {
    let problem = "names a key that is not one of the blind indexes' own";
    Error::Storage(StorageFault::InvalidRow { what: "key_scopes.active_key_id", problem })
}
