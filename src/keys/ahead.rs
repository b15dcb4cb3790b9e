//! Opens key-encryption keys before anything is locked.
//!
//! A KMS may take long to answer, and locks keep others waiting: appends for the same subjects, and shreds. So a call
//! first reads the rows without locks, and has the KMS open the keys that they need. Then it reads the rows again with
//! locks. This read may find another key than the first, because somebody rotated keys meanwhile. The call does not ask
//! the KMS for that key. It fails with a retryable [`Error::Collision`], and notes which key was missing, so that the
//! next call opens it first.

use crate::error::{Error, KmsFault, Result};
use crate::keys::kek_cache::Kek;
use crate::keys::manager::{KeyManager, lock, no_active_kek};
use crate::keys::names::{KekId, KeyScope, Namespace};
use crate::keys::{DataKeyRecord, KekRecord, KeyStore, ScopeLock, ScopeRecord, ScopeState};
use crate::kms::KmsFailure;
use crate::telemetry;
use lru::LruCache;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// The keys that a call has opened ahead. It lasts as long as the call, so that no key can expire between the first
/// read and the lock.
#[derive(Default)]
pub(crate) struct Pinned {
    pub(crate) keks: HashMap<KekId, Arc<Kek>>,
    pub(crate) active: HashMap<String, ActiveKek>,
    /// No scope had a row, so there is nothing to lock before the scopes are created.
    pub(crate) all_new: bool,
}

impl Pinned {
    /// Adds what was opened for another reason.
    pub(crate) fn extend(&mut self, other: Self) {
        self.keks.extend(other.keks);
        self.active.extend(other.active);
    }
}

/// The opened key-encryption key that wraps new keys of a partition.
#[derive(Clone)]
pub(crate) struct ActiveKek {
    pub(crate) namespace: Namespace,
    pub(crate) kek_id: KekId,
    pub(crate) kek: Arc<Kek>,
}

const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
const REMEMBERED_KEKS: NonZeroUsize = NonZeroUsize::new(100).unwrap();

/// Findings of earlier calls, from which later calls guess which keys they will need. The rows decide, whatever was
/// guessed.
pub(crate) struct Hints {
    /// The key-encryption key that wraps each partition's new keys.
    partitions: LruCache<String, KekId>,
    /// The scopes that needed a key that was not open when a call held its locks.
    missed: LruCache<KeyScope, ()>,
    /// The keys that were not open. A call that opens them ahead empties this. It is bounded, because in many processes
    /// no call does.
    missed_keks: LruCache<KekId, KekRecord>,
}

impl Hints {
    pub(crate) fn new() -> Self {
        Self {
            partitions: LruCache::new(REMEMBERED),
            missed: LruCache::new(REMEMBERED),
            missed_keks: LruCache::new(REMEMBERED_KEKS),
        }
    }

    fn note_missed<'s>(&mut self, record: &KekRecord, scopes: impl IntoIterator<Item = &'s KeyScope>) {
        for scope in scopes {
            self.missed.put(scope.clone(), ());
        }
        self.missed_keks.put(record.kek_id, record.clone());
    }

    /// The key-encryption key that wrapped a partition's new keys when it was last looked at.
    pub(crate) fn active_of(&self, partition: &str) -> Option<KekId> {
        self.partitions.peek(partition).copied()
    }

    fn take_missed(&mut self) -> Vec<KekRecord> {
        std::iter::from_fn(|| self.missed_keks.pop_lru()).map(|(_, record)| record).collect()
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Opens the keys that an append for these scopes will need, before it locks the scopes. This crate's own scopes
    /// are among them.
    pub(crate) async fn open_ahead(&self, tx: &mut Tx, scopes: &[KeyScope]) -> Result<Pinned> {
        self.open_ahead_of(tx, scopes, None).await
    }

    /// As [`open_ahead`](Self::open_ahead), for scopes that were looked at before.
    pub(crate) async fn open_ahead_of(
        &self,
        tx: &mut Tx,
        scopes: &[KeyScope],
        known: Option<Vec<ScopeRecord>>,
    ) -> Result<Pinned> {
        let mut pinned = Pinned::default();
        if self.has_all_at_hand(scopes) {
            return Ok(pinned);
        }
        self.namespace(tx).await?;
        let records = match known {
            Some(records) => records,
            None => self.store.scopes(tx, scopes, ScopeLock::None).await?,
        };
        let known: HashSet<&KeyScope> = records.iter().map(|record| &record.scope).collect();
        let unknown = scopes.iter().filter(|scope| !scope.is_integrity() && !known.contains(scope));
        pinned.all_new = known.len() == 1 && known.contains(&KeyScope::integrity()) && scopes.len() > 1;
        let without_key = records.iter().filter(|record| record.state == ScopeState::Live && record.active.is_none());
        let partitions: HashSet<String> =
            unknown.chain(without_key.map(|record| &record.scope)).map(|scope| self.partition_of(scope)).collect();
        let sealing = records
            .iter()
            .filter(|record| record.state == ScopeState::Live)
            .filter_map(|record| record.active.as_ref());
        let closed: Vec<&DataKeyRecord> =
            sealing.filter(|key| key.wrapped_key.is_some() && self.cache.keys.get(key, None).is_none()).collect();
        pinned.keks = self.keks_of(tx, &closed, None).await?;
        for partition in partitions {
            let active = self.active_kek(tx, &partition).await?;
            pinned.keks.insert(active.kek_id, Arc::clone(&active.kek));
            pinned.active.insert(partition, active);
        }
        let mut hints = lock(&self.hints);
        for scope in scopes {
            hints.missed.pop(scope);
        }
        Ok(pinned)
    }

    /// Opens the keys that a change will need that creates a further key for a scope.
    pub(crate) async fn open_partition_ahead(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Pinned> {
        let (mut pinned, partition) = (Pinned::default(), self.partition_of(scope));
        let missed = lock(&self.hints).missed.pop(scope).is_some();
        if missed || self.store.can_look_first() || !self.has_active_at_hand(&partition) {
            let active = self.active_kek(tx, &partition).await?;
            pinned.active.insert(partition, active);
        }
        Ok(pinned)
    }

    /// Has an earlier call missed a key of this scope?
    pub(crate) fn has_missed(&self, scope: &KeyScope) -> bool {
        lock(&self.hints).missed.contains(scope)
    }

    /// Opens the keys that earlier calls missed, on a connection that holds no locks. It is for callers that repeat a
    /// transaction.
    pub(crate) async fn open_missed(&self, pinned: &mut Pinned) -> Result<()> {
        let missed = lock(&self.hints).take_missed();
        for record in missed {
            pinned.keks.insert(record.kek_id, self.kek(&record).await?);
        }
        Ok(())
    }

    /// Will the locked rows probably need no key that the KMS has to open? If the store can look first, a query makes
    /// sure of that. In a store where a transaction that has read may not be able to write, what earlier calls found
    /// has to do.
    fn has_all_at_hand(&self, scopes: &[KeyScope]) -> bool {
        let missed = {
            let hints = lock(&self.hints);
            scopes.iter().any(|scope| hints.missed.contains(scope))
        };
        let sure = !self.store.can_look_first();
        let at_hand = |scope: &KeyScope| {
            self.cache.keys.is_at_hand(scope)
                || (sure && !scope.is_reserved() && self.has_active_at_hand(&self.partition_of(scope)))
        };
        !missed && scopes.iter().all(at_hand)
    }

    pub(crate) fn has_active_at_hand(&self, partition: &str) -> bool {
        let kek_id = lock(&self.hints).active_of(partition);
        kek_id.is_some_and(|kek_id| self.cache.keks.get(kek_id).is_some())
    }

    /// Notes the key-encryption key that wraps a partition's new keys.
    pub(crate) fn expect_active(&self, record: &KekRecord) {
        lock(&self.hints).partitions.put(record.partition.clone(), record.kek_id);
    }

    /// The key-encryption key that wraps new keys, for a call that holds no locks and may ask the KMS.
    pub(crate) async fn active_kek(&self, tx: &mut Tx, partition: &str) -> Result<ActiveKek> {
        let (namespace, record) = self.active_record(tx, partition).await?;
        let kek = self.kek(&record).await?;
        self.check_held(&record)?;
        self.expect_active(&record);
        Ok(ActiveKek { namespace, kek_id: record.kek_id, kek })
    }

    /// The key-encryption key that wraps new keys, for a call that holds locks and must not ask the KMS.
    pub(crate) async fn active_kek_at_hand(&self, tx: &mut Tx, scope: &KeyScope, pinned: &Pinned) -> Result<ActiveKek> {
        let partition = self.partition_of(scope);
        if let Some(active) = pinned.active.get(&partition) {
            return Ok(active.clone());
        }
        let (namespace, record) = self.active_record(tx, &partition).await?;
        let kek = match pinned.keks.get(&record.kek_id) {
            Some(kek) => Arc::clone(kek),
            None => match self.cache.keks.answer(record.kek_id) {
                Some(answer) => {
                    let kek = answer?;
                    telemetry::kek_needed(true);
                    kek
                }
                None => return Err(self.missed(&record, [scope])),
            },
        };
        self.check_held(&record)?;
        self.expect_active(&record);
        Ok(ActiveKek { namespace, kek_id: record.kek_id, kek })
    }

    /// The namespace is checked here, because a key that is wrapped for another namespace than the database's would
    /// never open again.
    async fn active_record(&self, tx: &mut Tx, partition: &str) -> Result<(Namespace, KekRecord)> {
        let namespace = self.check_namespace(tx).await?;
        let record = self.store.active_kek(tx, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        Ok((namespace, record))
    }

    /// Checks that the KMS of this process creates keys under the master key that wraps this key. Otherwise, somebody
    /// who can write to the key table could have new data keys wrapped under a key that he knows.
    pub(crate) fn check_held(&self, record: &KekRecord) -> Result<()> {
        if self.kms.makes_keys_under(&record.wrapped.master_key_id) {
            return Ok(());
        }
        let problem = format!(
            "it is the active one, but master key {:?} holds it, under which this process only opens: move it to the \
             one that is configured with move_master_key(), or find out who made it active",
            record.wrapped.master_key_id
        );
        Err(Error::Kms(KmsFault::Refused { kek_id: record.kek_id, failure: KmsFailure::WrongKey, problem }))
    }

    /// The error of a call that holds locks and needs a key that is not open. It notes the key for the next call.
    pub(crate) fn missed<'s>(&self, record: &KekRecord, scopes: impl IntoIterator<Item = &'s KeyScope>) -> Error {
        lock(&self.hints).note_missed(record, scopes);
        telemetry::kek_needed(false);
        tracing::debug!(kek_id = %record.kek_id, "a key-encryption key was not open when its scopes were locked: the \
            next try opens it first");
        Error::Collision {
            source: Some(
                "a key-encryption key was rotated meanwhile, and is not open yet: the next try opens it first".into(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KekState;
    use crate::kms::WrappedKek;
    use uuid::Uuid;

    /// A process that never does maintenance never takes the missed keys.
    #[test]
    fn what_was_missed_is_remembered_within_bounds() {
        let mut hints = Hints::new();
        let at = crate::event::now();
        let record = || KekRecord {
            kek_id: KekId(Uuid::now_v7()),
            partition: "default".to_owned(),
            provider: "keyring".to_owned(),
            wrapped: WrappedKek { master_key_id: "main".to_owned(), ciphertext: vec![1] },
            state: KekState::Active,
            created_at: at,
            wrapped_at: at,
        };
        let last = record();
        for missed in std::iter::repeat_with(record).take(1_000).chain([last.clone()]) {
            hints.note_missed(&missed, [&KeyScope::new("Customer", "1")]);
        }
        let taken = hints.take_missed();
        assert_eq!(taken.len(), REMEMBERED_KEKS.get(), "what nobody takes grows for ever");
        assert_eq!(taken.last(), Some(&last));
        assert!(hints.take_missed().is_empty());
    }
}
