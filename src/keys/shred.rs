//! The shred: destroys the keys of a scope, in the caller's transaction.

use crate::error::{Result, no_effect};
use crate::event::now;
use crate::keys::manager::{KeyManager, check_change};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::operator::Cause;
use crate::keys::{KeyStore, ScopeAction, ScopeChange, ScopeLock, ScopeState};
use time::OffsetDateTime;

/// The result of a shred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shredding {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The keys that this shred destroyed. Empty if the scope had none, or was shredded before.
    pub destroyed: Vec<KeyId>,
    /// The keys that had been destroyed before.
    pub already: Vec<KeyId>,
    /// Was the scope shredded before? If so, keys in [`destroyed`](Self::destroyed) had come back, for instance with a
    /// restore of a part of the tables.
    pub was_shredded: bool,
    /// When the keys were destroyed.
    pub at: OffsetDateTime,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Destroys every data key of a scope for good, and leaves a tombstone.
    ///
    /// It needs no KMS. It also works on disabled scopes, and on scopes that do not exist: nothing can be sealed for
    /// them afterwards. A second shred destroys nothing. From the commit on, every statement sees the scope's fields
    /// redacted. Backups of the key table still hold the keys: let them expire.
    ///
    /// `reason` stays in the scope's history for good: name the request, not the person. Use
    /// [`acting_as`](Self::acting_as) to name who does it.
    ///
    /// If this future is dropped before it is done, for instance by a time-out, roll the transaction back, or shred the
    /// scope again. A shred that is committed halfway makes appends for the scope fail.
    ///
    /// Before it returns, it checks that the keys are gone, that the scope is shredded, and that the shred is in the
    /// history.
    ///
    /// # Errors
    /// - [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction) without a
    ///   transaction;
    /// - [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the reason is empty or too long;
    /// - [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState) for this crate's own scopes;
    /// - [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect) if keys are left: roll back then;
    /// - [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch) in another database;
    /// - [`Error::Collision`](crate::Error::Collision) (retryable) and [`Error::Database`](crate::Error::Database).
    pub async fn shred(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<Shredding> {
        self.shred_because(tx, scope, Cause::of(reason)).await
    }

    pub(crate) async fn shred_because(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<Shredding> {
        check_change(scope, cause)?;
        self.begin_change(tx).await?;
        self.store.create_scopes(tx, std::slice::from_ref(scope)).await?;
        let record = self.store.scopes(tx, std::slice::from_ref(scope), ScopeLock::Update).await?.pop();
        let record = record.ok_or_else(|| no_effect("shredding", "key_scopes"))?;
        let at = now();
        // The keys are destroyed first. If this future is dropped halfway and the transaction is committed all the
        // same, no row claims that keys are destroyed that are not.
        let destroyed = self.store.destroy_keys(tx, scope, at).await?;
        // The change is recorded whenever keys were destroyed, even if the scope was shredded before and they had come
        // back.
        let change = (record.state != ScopeState::Shredded || !destroyed.is_empty()).then(|| ScopeChange {
            scope: scope.clone(),
            action: ScopeAction::Shred,
            state: ScopeState::Shredded,
            generation: record.generation,
            reason: cause.reason.to_owned(),
            actor: cause.actor.map(str::to_owned),
            at,
        });
        if let Some(change) = &change {
            self.store.change_scope(tx, change).await?;
        }
        let mut already = self.look_at_shred(tx, scope, change.as_ref()).await?;
        already.retain(|key_id| !destroyed.contains(key_id));
        // Only reads that may lag use a key without a look at its row. They must not do so for this scope.
        self.cache.keys.change(scope, true, self.read_lag);
        tracing::info!(kind = scope.kind(), id = scope.id(), destroyed = destroyed.len(), "shredded, once committed");
        let was_shredded = record.state == ScopeState::Shredded;
        Ok(Shredding { scope: scope.clone(), destroyed, already, was_shredded, at })
    }
}
