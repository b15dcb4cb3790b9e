//! The life of key-encryption keys: made, rotated, moved from one master key to another, retired; and the data keys
//! that follow them. No event is touched by any of it.

use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{BoundKey, unwrap_key, wrap_key};
use crate::error::{Error, KeyFault, KmsFault, Result};
use crate::event::now;
use crate::keys::DataKeyRecord;
use crate::keys::kek::{KekRecord, KekState, KekUsage, Retirement, RewrapBatch, Rewrapper};
use crate::keys::kek_cache::Kek;
use crate::keys::manager::{KeyManager, lock, no_active_kek};
use crate::keys::names::{KekId, KeyId, Namespace};
use crate::kms::{KekContext, Kms, KmsFailure};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use subtle::ConstantTimeEq;

/// How [`KeyManager::rewrap`] goes about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RewrapOptions {
    /// How many data keys are read, wrapped and committed at a time. 500 by default.
    pub batch: u32,
    /// Of which partition; of all if `None`.
    pub partition: Option<String>,
    /// Only says how many there are.
    pub dry_run: bool,
}

impl Default for RewrapOptions {
    fn default() -> Self {
        Self { batch: 500, partition: None, dry_run: false }
    }
}

/// Where a rewrap is, after each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewrapProgress {
    /// How many data keys there were to do when it began.
    pub total: u64,
    /// How many this call has wrapped anew so far.
    pub rewrapped: u64,
    /// How many do not open, and were left as they are.
    pub bad: u64,
}

/// What a rewrap did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrapped {
    /// How many data keys this call wrapped anew; on a dry run, how many it would.
    pub rewrapped: u64,
    /// The data keys that do not open under their key-encryption key, and were left as they are.
    pub bad: Vec<KeyId>,
    /// How many live data keys old key-encryption keys still wrap: bad ones, and those that somebody else held.
    pub remaining: u64,
}

/// What a move to another master key did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekMoves {
    /// The key-encryption keys that the new master key holds now.
    pub moved: Vec<KekId>,
    /// Those that it held before, and opens.
    pub already: Vec<KekId>,
    /// Retired keys that wrap nothing and that nothing opens. They stay as they are.
    pub dead: Vec<KekId>,
}

impl<Tx: Send + 'static> KeyManager<Tx> {
    /// Makes the first key-encryption key of a partition, unless there is one, and returns the active one.
    ///
    /// For partitions of your own: see
    /// [`KeyManagerBuilder::kek_partition`](crate::keys::KeyManagerBuilder::kek_partition). The default one is made by
    /// [`prepare`](Self::prepare). Takes a connection that is not in a transaction, and is committed when it returns.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText), [`Error::Database`]; errors of the KMS.
    pub async fn create_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        crate::event::check_text("the partition", partition)?;
        let namespace = self.check_namespace(connection).await?;
        if let Some(kek) = self.store.active_kek(connection, partition).await? {
            return Ok(kek);
        }
        let kek = self.new_kek(&namespace, partition).await?;
        self.store.install_kek(connection, &kek).await?;
        // Another process may have been faster: its key is the active one then.
        let kek = self.store.active_kek(connection, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        tracing::info!(kek_id = %kek.kek_id, %namespace, partition, "a partition's first key-encryption key is in \
            place");
        Ok(kek)
    }

    /// Gives a partition a new active key-encryption key. The old one goes on opening what it wrapped, until
    /// [`rewrap`](Self::rewrap) has moved all of that, and [`retire_kek`](Self::retire_kek) ends it.
    ///
    /// Takes a connection that is not in a transaction, and is committed when it returns.
    ///
    /// # Errors
    /// [`KeyFault::NoActiveKek`] if the partition has none yet, [`KmsFault::Refused`] if the one it has does not open
    /// here, [`Error::Collision`] (retryable) if another process rotated it at the same time, and as
    /// [`create_kek`](Self::create_kek).
    pub async fn rotate_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        let namespace = self.check_namespace(connection).await?;
        let old = self.store.active_kek(connection, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        let kek = self.new_kek(&namespace, partition).await?;
        // A key that the applications can't open must not become the active one: neither because it does not open, nor
        // because this is another KMS than theirs.
        self.kek(&old).await?;
        self.kek(&kek).await?;
        match self.store.replace_kek(connection, old.kek_id, &kek).await {
            Ok(true) => self.expect_active(&kek),
            other => {
                self.cache.keks.remove(kek.kek_id);
                return Err(other.err().unwrap_or(Error::Collision { source: None }));
            }
        }
        tracing::info!(from = %old.kek_id, to = %kek.kek_id, partition, "the key-encryption key was rotated");
        Ok(kek)
    }

    /// Wraps all live data keys of old key-encryption keys by the active one of their partition.
    ///
    /// In batches, each in a transaction of its own, on a connection that is not in one. Several processes may do it
    /// at once: each key is wrapped once. A call that ended early, however it did, has left nothing half done: call
    /// it again. A data key that does not open is reported and left as it is. Appends, reads and shreds go on
    /// meanwhile. The KMS is asked once for each key-encryption key.
    ///
    /// `progress` is told after each batch.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`KeyFault::NoActiveKek`],
    /// [`KeyFault::WrongKey`] if a key that was just written does not open, [`Error::Collision`] (retryable),
    /// [`Error::Database`]; errors of the KMS. Batches that were committed before stay.
    pub async fn rewrap(
        &self,
        connection: &mut Tx,
        options: &RewrapOptions,
        progress: &mut (dyn FnMut(RewrapProgress) + Send),
    ) -> Result<Rewrapped> {
        let namespace = self.check_namespace(connection).await?;
        let usage = self.store.kek_usage(connection).await?;
        if let Some(partition) =
            options.partition.as_ref().filter(|wanted| !usage.iter().any(|usage| usage.kek.partition == **wanted))
        {
            return Err(no_active_kek(partition));
        }
        let total = outdated(&usage, options).map(|usage| usage.live_keys).sum();
        let mut done = Rewrapped::default();
        if options.dry_run {
            return Ok(Rewrapped { rewrapped: total, remaining: total, ..done });
        }
        let mut report = |done: &Rewrapped| {
            progress(RewrapProgress { total, rewrapped: done.rewrapped, bad: done.bad.len() as u64 })
        };
        report(&done);
        let mut partitions: Vec<&str> = outdated(&usage, options).map(|usage| usage.kek.partition.as_str()).collect();
        partitions.dedup();
        for partition in partitions {
            let of_partition = || usage.iter().map(|usage| &usage.kek).filter(|kek| kek.partition == partition);
            let to =
                of_partition().find(|kek| kek.state == KekState::Active).ok_or_else(|| no_active_kek(partition))?;
            let mut by =
                Rewrapping { namespace: &namespace, to: to.kek_id, keks: HashMap::new(), written: Mutex::default() };
            by.keks.insert(to.kek_id, self.kek(to).await?);
            let with_keys = outdated(&usage, options).map(|usage| &usage.kek).filter(|kek| kek.partition == partition);
            for kek in with_keys {
                by.keks.insert(kek.kek_id, self.kek(kek).await?);
            }
            let from = by.keks.keys().copied().filter(|kek_id| *kek_id != to.kek_id).collect();
            let mut batch = RewrapBatch { from, to: to.kek_id, after: None, limit: options.batch.max(1), at: now() };
            loop {
                batch.at = now();
                let outcome = self.store.rewrap_batch(connection, &batch, &by).await?;
                lock(&by.written).clear();
                done.rewrapped += u64::from(outcome.rewrapped);
                for key_id in outcome.bad {
                    if !done.bad.contains(&key_id) {
                        tracing::warn!(%key_id, "a data key does not open, and was not rewrapped");
                        done.bad.push(key_id);
                    }
                }
                report(&done);
                if outcome.found < batch.limit {
                    break;
                }
                batch.after = outcome.last;
            }
        }
        let usage = self.store.kek_usage(connection).await?;
        done.remaining = outdated(&usage, options).map(|usage| usage.live_keys).sum();
        tracing::info!(
            rewrapped = done.rewrapped,
            bad = done.bad.len(),
            remaining = done.remaining,
            "data keys were rewrapped"
        );
        Ok(done)
    }

    /// Retires a key-encryption key that wraps nothing any more.
    ///
    /// Takes a connection that is not in a transaction, and is committed when it returns. The row stays.
    ///
    /// # Errors
    /// [`KeyFault::KekInUse`] while a live data key needs it, it is the active one of its partition, or unknown;
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    pub async fn retire_kek(&self, connection: &mut Tx, kek_id: KekId) -> Result<()> {
        self.check_namespace(connection).await?;
        match self.store.retire_kek(connection, kek_id).await? {
            Retirement::Done => {
                self.cache.keks.remove(kek_id);
                tracing::info!(%kek_id, "the key-encryption key is retired");
                Ok(())
            }
            Retirement::InUse(keys) => Err(Error::Keys(KeyFault::KekInUse {
                kek_id,
                problem: format!("still wraps {keys} live data keys: rewrap them first"),
            })),
            Retirement::Active => Err(Error::Keys(KeyFault::KekInUse {
                kek_id,
                problem: "is the active one of its partition: rotate it first".to_owned(),
            })),
            Retirement::Unknown => Err(Error::Keys(KeyFault::KekInUse {
                kek_id,
                problem: "is not in the key table: kek_usage() lists those that are".to_owned(),
            })),
        }
    }

    /// Moves every key-encryption key to the active master key of this manager's KMS: inside the KMS, if the same
    /// provider wrapped it, else through `from`, the provider that did.
    ///
    /// Each is opened by the new master key before its row is exchanged, active ones first; those that were moved
    /// before are opened, and otherwise left alone. One that is refused does not keep the others from their turn. A
    /// call that ended early has left every key usable: call it again. The old master key can go when this has
    /// returned, no process has it configured as the active one any more, and no backup needs it.
    ///
    /// # Errors
    /// When all others were moved: [`KmsFault::Refused`] if a key that is in use does not open, is of another provider
    /// than this one and `from`, or the master keys do not allow it. At once: [`KmsFault::Unavailable`] (retryable),
    /// [`Error::Collision`] (retryable) if a row changed meanwhile;
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch), [`Error::Database`].
    pub async fn move_master_key(
        &self,
        connection: &mut Tx,
        from: Option<&dyn Kms>,
        progress: &mut (dyn FnMut(&KekMoves) + Send),
    ) -> Result<KekMoves> {
        let namespace = self.check_namespace(connection).await?;
        let target = self.kms.master_key_id().await?;
        let (mut moves, mut seen, mut refusal) = (KekMoves::default(), HashSet::new(), None);
        loop {
            let mut usage = self.store.kek_usage(connection).await?;
            usage.retain(|usage| !seen.contains(&usage.kek.kek_id));
            // Nothing is left, nor was anything made meanwhile.
            if usage.is_empty() {
                return refusal.map_or(Ok(moves), Err);
            }
            usage.sort_by_key(|usage| usage.kek.state != KekState::Active);
            for KekUsage { kek, live_keys, .. } in usage {
                seen.insert(kek.kek_id);
                let context = KekContext { namespace: namespace.clone(), kek_id: kek.kek_id };
                match self.move_kek(connection, &kek, &context, &target, from).await {
                    Ok(true) => {
                        moves.moved.push(kek.kek_id);
                        progress(&moves);
                    }
                    Ok(false) => moves.already.push(kek.kek_id),
                    Err(Error::Kms(KmsFault::Refused { .. })) if kek.state == KekState::Retired && live_keys == 0 => {
                        moves.dead.push(kek.kek_id)
                    }
                    Err(error @ Error::Kms(KmsFault::Refused { .. })) => {
                        tracing::warn!(kek_id = %kek.kek_id, %error, "not moved to another master key");
                        refusal.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Moves one key to the active master key. `false` if it is there, and opens.
    async fn move_kek(
        &self,
        connection: &mut Tx,
        kek: &KekRecord,
        context: &KekContext,
        target: &str,
        from: Option<&dyn Kms>,
    ) -> Result<bool> {
        let same_provider = kek.provider == self.kms.provider();
        if same_provider && kek.wrapped.master_key_id == target {
            // Another key may have been given the same id.
            return self.kms.unwrap_kek(&kek.wrapped, context).await.map(|_| false);
        }
        let (wrapped, expected) = match from.filter(|from| from.provider() == kek.provider && !same_provider) {
            Some(from) => {
                let secret = from.unwrap_kek(&kek.wrapped, context).await?;
                (self.kms.wrap_kek(&secret, context).await?, Some(secret))
            }
            None if same_provider => (self.kms.rewrap_kek(&kek.wrapped, context).await?, None),
            None => {
                let problem = format!("provider {:?} wrapped it: name that one as where it comes from", kek.provider);
                return Err(Error::Kms(KmsFault::Refused {
                    kek_id: kek.kek_id,
                    failure: KmsFailure::WrongKey,
                    problem,
                }));
            }
        };
        let opened = self.kms.unwrap_kek(&wrapped, context).await?;
        let same = |secret: &SecretKey| bool::from(secret.expose().ct_eq(opened.expose()));
        // What this process has cached was opened by the old master key, and is another proof.
        let cached = self.cache.keks.get(kek.kek_id);
        if !expected.as_ref().is_none_or(same) || !cached.as_ref().is_none_or(|kek| same(&kek.secret)) {
            let problem =
                "it opens to another key than before under the new master key: nothing was changed".to_owned();
            return Err(Error::Kms(KmsFault::Refused {
                kek_id: kek.kek_id,
                failure: KmsFailure::WrongContext,
                problem,
            }));
        }
        if !self.store.move_kek(connection, kek, self.kms.provider(), &wrapped, now()).await? {
            return Err(Error::Collision { source: None });
        }
        let (from, to) = (&kek.wrapped.master_key_id, &wrapped.master_key_id);
        tracing::info!(kek_id = %kek.kek_id, from, to, "moved to another master key");
        Ok(true)
    }

    /// All key-encryption keys, oldest first, with what they wrap. Counts every live data key.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn kek_usage(&self, tx: &mut Tx) -> Result<Vec<KekUsage>> {
        self.store.kek_usage(tx).await
    }

    /// A new key, which is nobody's active one yet.
    async fn new_kek(&self, namespace: &Namespace, partition: &str) -> Result<KekRecord> {
        let (kek_id, at) = (KekId(random::uuid()?), now());
        let wrapped = self.kms.generate_kek(&KekContext { namespace: namespace.clone(), kek_id }).await?;
        Ok(KekRecord {
            kek_id,
            partition: partition.to_owned(),
            provider: self.kms.provider().to_owned(),
            wrapped,
            state: KekState::Active,
            created_at: at,
            wrapped_at: at,
        })
    }
}

/// The keys that wrap what the active ones should, and do wrap something.
fn outdated<'u>(usage: &'u [KekUsage], options: &'u RewrapOptions) -> impl Iterator<Item = &'u KekUsage> {
    usage.iter().filter(|usage| {
        let wanted = options.partition.as_ref().is_none_or(|partition| *partition == usage.kek.partition);
        wanted && usage.kek.state != KekState::Active && usage.live_keys > 0
    })
}

/// Opens data keys under the keys they were wrapped by, and wraps them by another.
struct Rewrapping<'a> {
    namespace: &'a Namespace,
    to: KekId,
    keks: HashMap<KekId, Arc<Kek>>,
    /// What was wrapped and is not known to be committed, to compare with.
    written: Mutex<HashMap<KeyId, (DataKeyRecord, SecretKey)>>,
}

impl Rewrapping<'_> {
    fn bound<'k>(&'k self, key: &'k DataKeyRecord, kek_id: KekId) -> BoundKey<'k> {
        BoundKey { namespace: self.namespace, key_id: key.key_id, scope: &key.scope, version: key.version, kek_id }
    }
}

impl Rewrapper for Rewrapping<'_> {
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>> {
        let (Some(old), Some(new)) = (self.keks.get(&key.kek_id), self.keks.get(&self.to)) else { return Ok(None) };
        let Some(wrapped) = &key.wrapped_key else { return Ok(None) };
        let Some(secret) = self.bound(key, key.kek_id).with(|bound| unwrap_key(&old.secret, bound, wrapped)) else {
            return Ok(None);
        };
        let rewrapped = self.bound(key, self.to).with(|bound| wrap_key(&new.secret, bound, &secret))?;
        lock(&self.written).insert(key.key_id, (key.clone(), secret));
        Ok(Some(rewrapped))
    }

    fn opens(&self, key_id: KeyId, wrapped: &[u8]) -> bool {
        let written = lock(&self.written);
        let (Some((key, secret)), Some(kek)) = (written.get(&key_id), self.keks.get(&self.to)) else { return false };
        let opened = self.bound(key, self.to).with(|bound| unwrap_key(&kek.secret, bound, wrapped));
        opened.is_some_and(|opened| opened.expose().ct_eq(secret.expose()).into())
    }
}
