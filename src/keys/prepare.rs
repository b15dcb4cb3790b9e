//! Creates the first keys if there are none, and opens them at startup.

use crate::error::Result;
use crate::keys::ahead::ActiveKek;
use crate::keys::kek_changes::install_key;
use crate::keys::manager::{KeyManager, PARTITION, check_and_take, no_active_kek};
use crate::keys::material::key_of;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{KeyStore, KeyTable, ScopeLock};
use crate::telemetry;

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Makes the keys usable: call it once at startup, on a connection that is *not* in a transaction.
    ///
    /// It checks that the tables are migrated and belong to the configured namespace. It creates the first
    /// key-encryption key and the integrity key if there are none, and opens both, which shows that the KMS answers. It
    /// is idempotent, and several processes may call it at once. It also [seals](Self::seal_log) the shred log if it
    /// can, and compares it with the copy if one is [required](crate::keys::KeyManagerBuilder::require_shred_log).
    /// If it meets an entry that is not authentic, it fails where a copy is required. Elsewhere it logs a warning, and
    /// only changes of that scope fail; [`verify_log`](crate::keys::KeyManager::verify_log) finds it too. Then it
    /// [copies](Self::copy_log) what an earlier process has left, and warns if it can't.
    ///
    /// A process that was not prepared asks the KMS in its first append, before anything is locked. On SQLite, that
    /// append may fail with the retryable [`Error::Collision`](crate::Error::Collision) if another transaction wrote
    /// meanwhile. The same can happen to the first append after another process rotated a key-encryption key.
    ///
    /// # Errors
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`KmsFault::Unavailable`](crate::error::KmsFault::Unavailable),
    /// [`KmsFault::Refused`](crate::error::KmsFault::Refused),
    /// [`KeyFault::WrongKey`](crate::error::KeyFault::WrongKey), [`Error::Database`](crate::Error::Database);
    /// [`Error::Collision`](crate::Error::Collision) (retryable) if another transaction is in the way: call it again;
    /// [`KeyFault::ShredLogBehind`](crate::error::KeyFault::ShredLogBehind),
    /// [`KeyFault::LogCopy`](crate::error::KeyFault::LogCopy) or
    /// [`KeyFault::LogAltered`](crate::error::KeyFault::LogAltered) if a copy of the shred log is required;
    /// [`StorageFault::InvalidRow`](crate::error::StorageFault::InvalidRow) or
    /// [`Error::Disabled`](crate::Error::Disabled) if somebody changed the row of the integrity key.
    pub async fn prepare(&self, connection: &mut Tx) -> Result<()> {
        telemetry::describe();
        telemetry::prepare(self.known_namespace()).run(|| self.make_usable(connection)).await
    }

    async fn make_usable(&self, connection: &mut Tx) -> Result<()> {
        let kek = self.first_kek(connection, PARTITION).await?;
        let namespace = self.check_namespace(connection).await?;
        let active = ActiveKek { namespace: namespace.clone(), kek_id: kek.kek_id, kek: self.kek(&kek).await? };
        self.expect_active(&kek);
        let (scope, mut made) = (KeyScope::integrity(), None);
        if self.store.scopes(connection, std::slice::from_ref(&scope), ScopeLock::None).await?.is_empty() {
            self.check_held(&kek)?;
            let key = self.make_key(&scope, 1, &active)?;
            install_key(&*self.store, connection, &key).await?;
            made = Some(key.key_id);
        }
        let integrity = self.open_integrity_key(connection, &namespace).await?;
        // If another process was faster, its key is the active one.
        telemetry::data_keys_created(usize::from(made == Some(integrity)));
        self.seal_log_if_possible(connection).await?;
        self.check_log_now(connection).await?;
        // Not before: after a restore, the copies must stay as they are.
        self.copy_at_start(connection).await;
        Ok(())
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Opens the keys that every append needs, and creates none. Call it instead of [`prepare`](KeyManager::prepare) in
    /// a process that must not create keys, or whose keys are no [`KeyTable`]. The connection must *not* be in a
    /// transaction.
    ///
    /// It checks that the tables are migrated and belong to the configured namespace. It opens the active
    /// key-encryption key of the default partition and the integrity key, which shows that the KMS answers.
    ///
    /// # Errors
    /// [`KeyFault::NoActiveKek`](crate::error::KeyFault::NoActiveKek) if there are none yet;
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch),
    /// [`KmsFault::Unavailable`](crate::error::KmsFault::Unavailable),
    /// [`KmsFault::Refused`](crate::error::KmsFault::Refused),
    /// [`KeyFault::WrongKey`](crate::error::KeyFault::WrongKey), [`Error::Database`](crate::Error::Database);
    /// [`StorageFault::InvalidRow`](crate::error::StorageFault::InvalidRow) or
    /// [`Error::Disabled`](crate::Error::Disabled) if somebody changed the row of the integrity key.
    pub async fn open(&self, connection: &mut Tx) -> Result<()> {
        telemetry::describe();
        telemetry::open_keys(self.known_namespace()).run(|| self.open_existing(connection)).await
    }

    async fn open_existing(&self, connection: &mut Tx) -> Result<()> {
        let namespace = self.check_namespace(connection).await?;
        let kek = self.store.active_kek(connection, PARTITION).await?.ok_or_else(|| no_active_kek(PARTITION))?;
        self.kek(&kek).await?;
        self.expect_active(&kek);
        self.open_integrity_key(connection, &namespace).await?;
        self.check_log_now(connection).await
    }

    async fn check_log_now(&self, connection: &mut Tx) -> Result<()> {
        if let Some(gate) = &self.gate {
            gate.forget();
        }
        self.check_log(connection).await
    }

    async fn open_integrity_key(&self, connection: &mut Tx, namespace: &Namespace) -> Result<KeyId> {
        let scope = KeyScope::integrity();
        let record = self.store.scopes(connection, std::slice::from_ref(&scope), ScopeLock::None).await?.pop();
        let (_, key) = record.map(check_and_take).transpose()?.flatten().ok_or_else(|| no_active_kek(PARTITION))?;
        let opened = self.open_all(connection, namespace, std::slice::from_ref(&key), None, None).await?;
        self.cache.keys.activate(&key.scope, key.key_id);
        key_of(&opened, key.key_id).map(|_| key.key_id)
    }
}
