//! The life of key-encryption keys: the key manager creates, rotates, retires and lists them. None of this touches
//! events.

use crate::crypto::random;
use crate::error::{Error, KeyFault, Result, StorageFault};
use crate::event::now;
use crate::keys::KeyTable;
use crate::keys::kek::{KekRecord, KekState, KekUsage};
use crate::keys::kek_changes::{Retirement, install_kek, replace_kek, retire_kek};
use crate::keys::manager::{KeyManager, no_active_kek};
use crate::keys::names::{KekId, Namespace};
use crate::keys::restored::RestoredScopes;
use crate::kms::KekContext;
use crate::telemetry;

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Creates the first key-encryption key of a partition if there is none, and returns the active one.
    ///
    /// For partitions of your own: see
    /// [`KeyManagerBuilder::kek_partition`](crate::keys::KeyManagerBuilder::kek_partition). [`prepare`](Self::prepare)
    /// creates that of the default partition. This takes a connection that is not in a transaction, and is committed
    /// when it returns.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText), [`Error::Collision`] (retryable) if another
    /// transaction is in the way, [`Error::Database`]; errors of the KMS.
    pub async fn create_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        telemetry::create_kek(self.known_namespace(), partition).run(|| self.first_kek(connection, partition)).await
    }

    pub(crate) async fn first_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        crate::event::check_text("the partition", partition)?;
        let namespace = self.check_namespace(connection).await?;
        if let Some(kek) = self.store.active_kek(connection, partition).await? {
            return Ok(kek);
        }
        let kek = self.new_kek(&namespace, partition).await?;
        install_kek(&*self.store, connection, &kek).await?;
        // If another process was faster, its key is the active one.
        let made = kek.kek_id;
        let kek = self.store.active_kek(connection, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        if kek.kek_id == made {
            telemetry::kek_created();
        }
        tracing::info!(kek_id = %kek.kek_id, %namespace, partition, "a partition's first key-encryption key is in \
            place");
        Ok(kek)
    }

    /// Gives a partition a new active key-encryption key. The old one still opens the data keys that it wrapped. Call
    /// [`rewrap`](Self::rewrap) to move these to the new one, and then [`retire_kek`](Self::retire_kek).
    ///
    /// Takes a connection that is not in a transaction, and is committed when it returns.
    ///
    /// # Errors
    /// [`KeyFault::NoActiveKek`] if the partition has none yet, [`KmsFault::Refused`](crate::error::KmsFault::Refused)
    /// if the one that it has does not open here, [`Error::Collision`] (retryable) if another process rotated it at the
    /// same time, and those of [`create_kek`](Self::create_kek).
    pub async fn rotate_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        let call = telemetry::rotate_kek(self.known_namespace(), partition);
        call.run(|| self.replace_active_kek(connection, partition)).await
    }

    async fn replace_active_kek(&self, connection: &mut Tx, partition: &str) -> Result<KekRecord> {
        let namespace = self.check_namespace(connection).await?;
        let old = self.store.active_kek(connection, partition).await?.ok_or_else(|| no_active_kek(partition))?;
        if old.partition != partition {
            let problem = "is not the partition that was asked for";
            let what = "key_encryption_keys.partition";
            return Err(Error::Storage(StorageFault::InvalidRow { what, problem }));
        }
        let kek = self.new_kek(&namespace, partition).await?;
        // The applications must be able to open the new active key. If the old one does not open here, this may be
        // another KMS than theirs.
        self.kek(&old).await?;
        self.kek(&kek).await?;
        match replace_kek(&*self.store, connection, old.kek_id, &kek).await {
            Ok(true) => self.expect_active(&kek),
            other => {
                self.cache.keks.remove(kek.kek_id);
                return Err(other.err().unwrap_or(Error::Collision { source: None }));
            }
        }
        telemetry::kek_created();
        let (kek_id, old_kek_id) = (&kek.kek_id, &old.kek_id);
        tracing::info!(%kek_id, %old_kek_id, partition, "the key-encryption key was rotated");
        Ok(kek)
    }

    /// Retires a key-encryption key that no longer wraps a live data key.
    ///
    /// This takes a connection that is not in a transaction, and is committed when it returns. The row stays.
    ///
    /// # Errors
    /// [`KeyFault::KekInUse`] if it wraps a live data key, is the active one of its partition, or is unknown;
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), [`Error::Collision`]
    /// (retryable), [`Error::Database`].
    pub async fn retire_kek(&self, connection: &mut Tx, kek_id: KekId) -> Result<()> {
        telemetry::retire_kek(self.known_namespace(), kek_id).run(|| self.retire_unused_kek(connection, kek_id)).await
    }

    async fn retire_unused_kek(&self, connection: &mut Tx, kek_id: KekId) -> Result<()> {
        self.check_namespace(connection).await?;
        match retire_kek(&*self.store, connection, kek_id).await? {
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

    /// All key-encryption keys, oldest first, with the number of live data keys that each wraps. This counts every live
    /// data key.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn kek_usage(&self, tx: &mut Tx) -> Result<Vec<KekUsage>> {
        self.store.kek_usage(tx).await
    }

    /// Finds scopes that have live keys although the last change in their history is a shred. Returns how many there
    /// are, and the first `limit` of them, at least one. The tables are read from end to end.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn restored_scopes(&self, tx: &mut Tx, limit: u32) -> Result<RestoredScopes> {
        self.store.restored_scopes(tx, limit).await
    }

    /// A new key that is not in the key table yet.
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
