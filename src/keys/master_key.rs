//! Moves key-encryption keys from one master key to another. The data keys that they wrap stay as they are.

use crate::crypto::secret::SecretKey;
use crate::error::{Error, KmsFault, Result};
use crate::event::now;
use crate::keys::KeyTable;
use crate::keys::kek::{KekRecord, KekState, KekUsage};
use crate::keys::kek_changes::move_kek;
use crate::keys::manager::KeyManager;
use crate::keys::names::KekId;
use crate::kms::observed::ObservedKms;
use crate::kms::{KekContext, Kms, KmsFailure};
use crate::telemetry;
use std::collections::HashSet;
use subtle::ConstantTimeEq;

/// The report of a move to another master key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KekMoves {
    /// The key-encryption keys that the new master key holds now.
    pub moved: Vec<KekId>,
    /// The key-encryption keys that it held before, and opens.
    pub already: Vec<KekId>,
    /// Retired keys of other master keys, which wrap no data key. They stay as they are: so an old backup of the key
    /// table is of no use once its master key is deleted.
    pub dead: Vec<KekId>,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Moves every key-encryption key to the active master key of this manager's KMS. A key that the same provider
    /// wrapped is moved inside the KMS. Any other key is opened by `from`, the provider that wrapped it.
    ///
    /// Active keys are moved first. Before a row is changed, the new master key must open the key. Keys that were moved
    /// before are opened, and stay as they are. Retired keys that wrap no data key are not moved. A key that is refused
    /// does not stop the others. A call that ended early has left every key usable: call it again. You can delete the
    /// old master key when this has succeeded, no process has it configured as the active one, and no backup needs it.
    ///
    /// # Errors
    /// After all other keys were moved: [`KmsFault::Refused`] if a key that is in use does not open, is of another
    /// provider than this one and `from`, or the master keys do not allow it. At once: [`KmsFault::Unavailable`]
    /// (retryable), [`Error::Collision`] (retryable) if a row changed meanwhile;
    /// [`SetUpFault::NotMigrated`](crate::error::SetUpFault::NotMigrated),
    /// [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch), [`Error::Database`].
    pub async fn move_master_key(
        &self,
        connection: &mut Tx,
        from: Option<&dyn Kms>,
        progress: &mut (dyn FnMut(&KekMoves) + Send),
    ) -> Result<KekMoves> {
        let call = telemetry::move_master_key(self.known_namespace());
        let from = from.map(ObservedKms);
        let from = from.as_ref().map(|from| -> &dyn Kms { from });
        call.run(|| self.move_all_to_master_key(connection, from, progress)).await
    }

    async fn move_all_to_master_key(
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
            // No key is left to move, and none was created meanwhile.
            if usage.is_empty() {
                return refusal.map_or(Ok(moves), Err);
            }
            usage.sort_by_key(|usage| usage.kek.state != KekState::Active);
            for KekUsage { kek, live_keys, .. } in usage {
                seen.insert(kek.kek_id);
                // Nothing needs it but old backups, which shall end with the old master key.
                if kek.state == KekState::Retired && live_keys == 0 {
                    if (kek.provider.as_str(), &kek.wrapped.master_key_id) != (self.kms.provider(), &target) {
                        moves.dead.push(kek.kek_id);
                    }
                    continue;
                }
                let context = KekContext { namespace: namespace.clone(), kek_id: kek.kek_id };
                match self.move_to_master_key(connection, &kek, &context, &target, from).await {
                    Ok(true) => {
                        moves.moved.push(kek.kek_id);
                        progress(&moves);
                    }
                    Ok(false) => moves.already.push(kek.kek_id),
                    Err(error @ Error::Kms(KmsFault::Refused { .. })) => {
                        tracing::warn!(kek_id = %kek.kek_id, %error, "not moved to another master key");
                        refusal.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Moves one key to the active master key. `false` if that holds it already, and opens it.
    async fn move_to_master_key(
        &self,
        connection: &mut Tx,
        kek: &KekRecord,
        context: &KekContext,
        target: &str,
        from: Option<&dyn Kms>,
    ) -> Result<bool> {
        let same_provider = kek.provider == self.kms.provider();
        if same_provider && kek.wrapped.master_key_id == target {
            // Another master key may have been given the same id.
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
        // The key that this process has cached was opened by the old master key, and so is an independent proof.
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
        if !move_kek(&*self.store, connection, kek, self.kms.provider(), &wrapped, now()).await? {
            return Err(Error::Collision { source: None });
        }
        tracing::info!(
            kek_id = %kek.kek_id,
            master_key_id = wrapped.master_key_id,
            old_master_key_id = kek.wrapped.master_key_id,
            "moved to another master key"
        );
        Ok(true)
    }
}
