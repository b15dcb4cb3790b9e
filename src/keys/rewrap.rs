//! Rewrap: wraps the data keys of old key-encryption keys under the active one.

use crate::crypto::secret::SecretKey;
use crate::crypto::wrap::{BoundKey, unwrap_key, wrap_key};
use crate::error::Result;
use crate::event::now;
use crate::keys::kek::{KekState, KekUsage};
use crate::keys::kek_cache::Kek;
use crate::keys::kek_changes::{RewrapBatch, RewrappedBatch, Rewrapper, rewrap_batch};
use crate::keys::manager::{KeyManager, lock, no_active_kek};
use crate::keys::names::{KekId, KeyId, Namespace};
use crate::keys::{DataKeyRecord, KeyTable};
use crate::telemetry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use subtle::ConstantTimeEq;

/// The options of [`KeyManager::rewrap`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RewrapOptions {
    /// How many data keys are read, wrapped and committed at a time. 500 by default.
    pub batch: u32,
    /// The partition whose data keys are wrapped anew; all if `None`.
    pub partition: Option<String>,
    /// Changes nothing, and reports how many data keys would be wrapped anew.
    pub dry_run: bool,
}

impl Default for RewrapOptions {
    fn default() -> Self {
        Self { batch: 500, partition: None, dry_run: false }
    }
}

/// The progress of a rewrap, after each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewrapProgress {
    /// How many data keys had to be wrapped anew when it began.
    pub total: u64,
    /// How many this call has wrapped anew so far.
    pub rewrapped: u64,
    /// How many do not open, and were left as they are.
    pub bad: u64,
}

/// The report of a rewrap: what it did or, on a dry run, what it would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rewrapped {
    /// How many data keys this call wrapped anew; on a dry run, how many it would.
    pub rewrapped: u64,
    /// The data keys that do not open under their key-encryption key, and were left as they are.
    pub bad: Vec<KeyId>,
    /// How many live data keys old key-encryption keys still wrap: bad ones, and those that another transaction held.
    pub remaining: u64,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Wraps all live data keys of old key-encryption keys under the active one of their partition.
    ///
    /// It works in batches, each in a transaction of its own, on a connection that is not in one. Several processes may
    /// run it at once: each key is wrapped once. A call that ended early for any reason has left nothing half done:
    /// call it again. A data key that does not open is reported and left as it is. Appends, reads and shreds go on
    /// meanwhile. The KMS is asked once for each key-encryption key.
    ///
    /// `progress` is called after each batch.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`KeyFault::NoActiveKek`](crate::error::KeyFault::NoActiveKek),
    /// [`KeyFault::WrongKey`](crate::error::KeyFault::WrongKey) if a key that was just written does not open,
    /// [`Error::Collision`](crate::Error::Collision) (retryable), [`Error::Database`](crate::Error::Database); errors
    /// of the KMS. Batches that were committed before it remain.
    pub async fn rewrap(
        &self,
        connection: &mut Tx,
        options: &RewrapOptions,
        progress: &mut (dyn FnMut(RewrapProgress) + Send),
    ) -> Result<Rewrapped> {
        let call = telemetry::rewrap(self.known_namespace(), options.partition.as_deref(), options.dry_run);
        call.run(|| self.rewrap_outdated(connection, options, progress)).await
    }

    async fn rewrap_outdated(
        &self,
        connection: &mut Tx,
        options: &RewrapOptions,
        progress: &mut (dyn FnMut(RewrapProgress) + Send),
    ) -> Result<Rewrapped> {
        let namespace = self.check_namespace(connection).await?;
        // What a restore brought back must not be carried over to a new key-encryption key.
        self.check_log(connection).await?;
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
            progress(RewrapProgress { total, rewrapped: done.rewrapped, bad: done.bad.len() as u64 });
        };
        report(&done);
        let mut partitions: Vec<&str> = outdated(&usage, options).map(|usage| usage.kek.partition.as_str()).collect();
        partitions.dedup();
        for partition in partitions {
            let by = self.rewrapping(&namespace, partition, &usage, options).await?;
            let from = by.keks.keys().copied().filter(|kek_id| *kek_id != by.to).collect();
            let mut batch = RewrapBatch { from, to: by.to, after: None, limit: options.batch.max(1), at: now() };
            loop {
                batch.at = now();
                let outcome = rewrap_batch(&*self.store, connection, &batch, &by).await?;
                lock(&by.written).clear();
                done.add(&outcome);
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

    /// Opens the active key of a partition, and the old ones whose data keys it takes over. The KMS is asked before
    /// anything is locked.
    async fn rewrapping<'n>(
        &self,
        namespace: &'n Namespace,
        partition: &str,
        usage: &[KekUsage],
        options: &RewrapOptions,
    ) -> Result<Rewrapping<'n>> {
        let of_partition = |usage: &&KekUsage| usage.kek.partition == partition;
        let to = usage.iter().filter(of_partition).find(|usage| usage.kek.state == KekState::Active);
        let to = &to.ok_or_else(|| no_active_kek(partition))?.kek;
        let mut by = Rewrapping { namespace, to: to.kek_id, keks: HashMap::new(), written: Mutex::default() };
        by.keks.insert(to.kek_id, self.kek(to).await?);
        for from in outdated(usage, options).filter(of_partition) {
            by.keks.insert(from.kek.kek_id, self.kek(&from.kek).await?);
        }
        Ok(by)
    }
}

impl Rewrapped {
    fn add(&mut self, batch: &RewrappedBatch) {
        self.rewrapped += u64::from(batch.rewrapped);
        for key_id in &batch.bad {
            if !self.bad.contains(key_id) {
                tracing::warn!(%key_id, "a data key does not open, and was not rewrapped");
                self.bad.push(*key_id);
            }
        }
    }
}

/// The old key-encryption keys that still wrap data keys.
fn outdated<'u>(usage: &'u [KekUsage], options: &'u RewrapOptions) -> impl Iterator<Item = &'u KekUsage> {
    usage.iter().filter(|usage| {
        let wanted = options.partition.as_ref().is_none_or(|partition| *partition == usage.kek.partition);
        wanted && usage.kek.state != KekState::Active && usage.live_keys > 0
    })
}

/// Opens data keys under the keys that wrapped them, and wraps them under another key.
struct Rewrapping<'a> {
    namespace: &'a Namespace,
    to: KekId,
    keks: HashMap<KekId, Arc<Kek>>,
    /// The new wrappings that may not be committed yet, to compare with what the database holds.
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
