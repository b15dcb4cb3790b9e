//! Keys for many scopes at once, some of which may not be usable. Maintenance needs this, because the state of one
//! subject must not stop all others.

use crate::crypto::primitives::DataKey;
use crate::error::{Error, InputFault, KeyFault, Result, StorageFault};
use crate::keys::ahead::Pinned;
use crate::keys::manager::{KeyManager, PARTITION, check_and_take};
use crate::keys::material::with_integrity;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{KeyStore, ScopeLock};
use crate::seal::opening::KeyStatus;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The keys for sealing, and the errors of scopes that can't be sealed for.
pub(crate) struct UsableKeys {
    pub(crate) namespace: Namespace,
    pub(crate) integrity: (KeyId, Arc<DataKey>),
    keys: HashMap<KeyScope, (KeyId, Arc<DataKey>)>,
    unusable: HashMap<KeyScope, Error>,
}

/// Scopes that are locked.
struct Locked {
    usable: Vec<KeyScope>,
    unusable: HashMap<KeyScope, Error>,
    /// The usable scopes that have no key yet.
    missing: Vec<KeyScope>,
}

impl UsableKeys {
    /// The key for sealing for a requested scope, or the reason why there is none.
    pub(crate) fn key(&self, scope: &KeyScope) -> Result<&(KeyId, Arc<DataKey>)> {
        match (self.keys.get(scope), self.unusable.get(scope)) {
            (Some(key), _) => Ok(key),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(Error::Keys(KeyFault::ScopeState {
                scope: scope.clone(),
                problem: "was not locked: this is a bug, please report it",
            })),
        }
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Checks the namespace, and has the KMS open the active key of the default partition if it is not cached. Call it
    /// while nothing is locked.
    pub(crate) async fn warm_up(&self, connection: &mut Tx) -> Result<()> {
        self.check_namespace(connection).await?;
        if !self.has_active_at_hand(PARTITION) {
            self.active_kek(connection, PARTITION).await?;
        }
        Ok(())
    }

    /// The active keys of these scopes, which are created if they do not exist yet. The scopes are locked as an append
    /// locks them. A fault of one scope does not concern the others.
    ///
    /// The KMS is not asked. If a key-encryption key is neither pinned nor cached, the call fails with
    /// [`Error::Collision`], and [`open_missed`](Self::open_missed) opens it before the next try.
    pub(crate) async fn usable_keys(&self, tx: &mut Tx, scopes: &[KeyScope], pinned: &Pinned) -> Result<UsableKeys> {
        let Locked { usable, unusable, .. } = self.lock_scopes(tx, scopes, pinned).await?;
        self.keys_of(tx, usable, unusable, pinned).await
    }

    /// The active keys of these scopes, locked as by [`usable_keys`](Self::usable_keys), but none is created. If keys
    /// are missing, the scopes that lack them are returned instead.
    pub(crate) async fn existing_keys(
        &self,
        tx: &mut Tx,
        scopes: &[KeyScope],
        pinned: &Pinned,
    ) -> Result<Result<UsableKeys, Vec<KeyScope>>> {
        let Locked { usable, unusable, missing } = self.lock_scopes(tx, scopes, pinned).await?;
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        self.keys_of(tx, usable, unusable, pinned).await.map(Ok)
    }

    async fn keys_of(
        &self,
        tx: &mut Tx,
        usable: Vec<KeyScope>,
        unusable: HashMap<KeyScope, Error>,
        pinned: &Pinned,
    ) -> Result<UsableKeys> {
        let keys =
            self.locked_keys(tx, &usable, with_integrity(&usable), pinned).await.map_err(|error| match error {
                // The scope was created after the first read, and shredded before it could be locked here.
                Error::Shredded { .. } | Error::Disabled { .. } => Error::Collision { source: None },
                error => error,
            })?;
        let keys = keys.keys;
        let by_scope = usable.into_iter().zip(keys.keys).collect();
        Ok(UsableKeys { namespace: keys.namespace, integrity: keys.integrity, keys: by_scope, unusable })
    }

    async fn lock_scopes(&self, tx: &mut Tx, scopes: &[KeyScope], pinned: &Pinned) -> Result<Locked> {
        self.check_log(tx).await?;
        let (mut usable, mut unusable) = (Vec::with_capacity(scopes.len()), HashMap::new());
        for scope in scopes {
            match check_name(scope) {
                Ok(()) => usable.push(scope.clone()),
                Err(error) => drop(unusable.insert(scope.clone(), about_one_scope(error)?)),
            }
        }
        usable.sort_unstable();
        usable.dedup();
        let namespace = self.namespace(tx).await?;
        let mut active = Vec::with_capacity(usable.len());
        for record in self.store.scopes(tx, &usable, ScopeLock::Share).await? {
            let scope = record.scope.clone();
            match check_and_take(record) {
                Ok(key) => active.extend(key.map(|(_, key)| key)),
                Err(error) => drop(unusable.insert(scope, about_one_scope(error)?)),
            }
        }
        let has_key: HashSet<KeyScope> = active.iter().map(|key| key.scope.clone()).collect();
        let opened = self.open_all(tx, &namespace, &active, None, Some(pinned)).await?;
        for key in active {
            if let Some(Err(error)) = opened.get(&key.key_id) {
                unusable.insert(key.scope, error.clone());
            }
        }
        usable.retain(|scope| !unusable.contains_key(scope));
        let missing = usable.iter().filter(|scope| !has_key.contains(scope)).cloned().collect();
        Ok(Locked { usable, unusable, missing })
    }

    /// Are all of these keys still live, so that they open the values that they sealed?
    pub(crate) async fn are_live(&self, tx: &mut Tx, key_ids: &HashSet<KeyId>, pinned: &Pinned) -> Result<bool> {
        if key_ids.is_empty() {
            return Ok(true);
        }
        let (_, keys) = self.opening_keys_now(tx, key_ids, Some(pinned)).await?;
        Ok(key_ids.iter().all(|key_id| matches!(keys.get(key_id), Some(KeyStatus::Live { .. }))))
    }

    /// The errors of those scopes for which nothing could be sealed now. This locks and creates nothing.
    pub(crate) async fn look_at_scopes(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<HashMap<KeyScope, Error>> {
        let (mut wanted, mut found) = (Vec::with_capacity(scopes.len()), HashMap::new());
        for scope in scopes {
            match check_name(scope) {
                Ok(()) => wanted.push(scope.clone()),
                Err(error) => drop(found.insert(scope.clone(), error)),
            }
        }
        for record in self.store.scopes(tx, &wanted, ScopeLock::None).await? {
            let scope = record.scope.clone();
            if let Err(error) = check_and_take(record) {
                found.insert(scope, error);
            }
        }
        Ok(found)
    }

    /// The last key of a scope that was destroyed.
    pub(crate) async fn destroyed_key(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Option<KeyId>> {
        let history = self.store.history(tx, scope).await?;
        let keys = history.into_iter().flat_map(|history| history.keys);
        Ok(keys.filter(|key| key.shredded_at.is_some()).max_by_key(|key| key.version).map(|key| key.key_id))
    }
}

/// The error, if it is about one scope only. Any other error fails the call.
fn about_one_scope(error: Error) -> Result<Error> {
    match &error {
        Error::Shredded { .. }
        | Error::Disabled { .. }
        | Error::Input(InputFault::InvalidText { .. })
        | Error::Storage(StorageFault::InvalidRow { .. }) => Ok(error),
        _ => Err(error),
    }
}

fn check_name(scope: &KeyScope) -> Result<()> {
    scope.check()?;
    if scope.is_reserved() {
        return Err(Error::Input(InputFault::InvalidText {
            what: "the scope kind",
            problem: "starts with '$', which is reserved",
        }));
    }
    Ok(())
}
