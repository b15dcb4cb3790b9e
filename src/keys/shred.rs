//! The shred: destroys the keys of a scope, in the caller's transaction.

use crate::error::{Error, KeyFault, Result};
use crate::event::now;
use crate::keys::change::Changing;
use crate::keys::manager::{KeyManager, check_change};
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::operator::Cause;
use crate::keys::{DestroyedKey, KeyInfo, KeyStore, ScopeAction, ScopeState};
use crate::telemetry;
use std::collections::HashSet;
use time::OffsetDateTime;
use uuid::Uuid;

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
    /// The id of the shred's entry in the shred log. `None` if nothing was left to do.
    pub entry: Option<Uuid>,
    /// When the keys were destroyed.
    pub at: OffsetDateTime,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Destroys every data key of a scope for good, and leaves a tombstone.
    ///
    /// It writes an [entry](crate::keys::LogEntry) of the shred log, which the integrity key authenticates. So the KMS
    /// is asked if that key is not cached, before anything is locked. It also works on disabled scopes, and on scopes
    /// that do not exist: nothing can be sealed for them afterwards. A second shred destroys nothing. From the commit
    /// on, every statement sees the scope's fields redacted. Backups of the key table still hold the keys: let them
    /// expire.
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
    /// - [`KeyFault::Held`](crate::error::KeyFault::Held) if the scope is on hold;
    /// - [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState) for this crate's own scopes;
    /// - [`KeyFault::LogAltered`](crate::error::KeyFault::LogAltered) if an entry of the scope is not what was written;
    /// - [`KeyFault::Consumer`](crate::error::KeyFault::Consumer) if a consumer of erasures failed: roll back then;
    /// - [`KeyFault::NoActiveKek`](crate::error::KeyFault::NoActiveKek) if the keys were never prepared;
    /// - [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect) if keys are left: roll back then;
    /// - [`SetUpFault::NamespaceMismatch`](crate::error::SetUpFault::NamespaceMismatch) in another database;
    /// - [`Error::Collision`](crate::Error::Collision) (retryable), [`Error::Database`](crate::Error::Database),
    ///   errors of the KMS.
    pub async fn shred(&self, tx: &mut Tx, scope: &KeyScope, reason: &str) -> Result<Shredding> {
        self.shred_because(tx, scope, Cause::of(reason)).await
    }

    pub(crate) async fn shred_because(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<Shredding> {
        telemetry::shred(self.known_namespace(), scope).run(|| self.shred_scope(tx, scope, cause)).await
    }

    async fn shred_scope(&self, tx: &mut Tx, scope: &KeyScope, cause: Cause<'_>) -> Result<Shredding> {
        check_change(scope, cause)?;
        let pinned = self.open_log_ahead(tx).await?;
        let changing = self.begin_change(tx, scope, true, &pinned).await?;
        self.shred_locked(tx, &changing, cause, None).await
    }

    /// Shreds a scope that is locked. `schedule` is the entry of the schedule that came due, if one did.
    pub(crate) async fn shred_locked(
        &self,
        tx: &mut Tx,
        changing: &Changing,
        cause: Cause<'_>,
        schedule: Option<Uuid>,
    ) -> Result<Shredding> {
        let (record, scope, at) = (&changing.record, &changing.record.scope, now());
        let holds = changing.fold.holds_at(at);
        if !holds.is_empty() {
            return Err(Error::Keys(KeyFault::Held { scope: scope.clone(), holds }));
        }
        // The keys are destroyed first. If this future is dropped halfway and the transaction is committed all the
        // same, no row claims that keys are destroyed that are not.
        let destroyed = self.store.destroy_keys(tx, scope, at).await?;
        let was_shredded = record.state == ScopeState::Shredded;
        // The change is recorded whenever keys were destroyed, even if the scope was shredded before and they had come
        // back.
        let mut entry = None;
        if !was_shredded || changing.fold.state != ScopeState::Shredded || !destroyed.is_empty() {
            let mut decision = changing.decide(ScopeAction::Shred);
            (decision.state, decision.about) = (ScopeState::Shredded, schedule);
            // The row and the entries may disagree, after a restore of one of them. Generations only grow.
            decision.generation = record.generation.max(changing.fold.generation);
            decision.keys = unnamed_keys(changing, &destroyed);
            let new = changing.entry(decision, cause, at)?;
            self.store.change_scope(tx, &new).await?;
            entry = Some(new);
        }
        let destroyed: Vec<KeyId> = destroyed.into_iter().map(|key| key.key_id).collect();
        let mut already = self.look_at_shred(tx, scope, &destroyed, entry.as_ref()).await?;
        already.retain(|key_id| !destroyed.contains(key_id));
        // Only reads that may lag use a key without a look at its row. They must not do so for this scope.
        self.cache.keys.change(scope, true, self.read_lag);
        if let Some(entry) = &entry {
            telemetry::shredded(destroyed.len());
            self.tell_consumers(tx, entry).await?;
        }
        let (scope_kind, scope_id, keys) = (scope.kind(), scope.id(), destroyed.len());
        tracing::info!(scope_kind, scope_id, keys, "shredded, once committed");
        let entry = entry.map(|entry| entry.entry_id);
        Ok(Shredding { scope: scope.clone(), destroyed, already, was_shredded, entry, at })
    }
}

/// What the log says about destroyed keys: about those that were destroyed now, and about those that no entry names
/// yet, because a shred was cut short or is older than the log. After a restore, only keys that the log names are
/// destroyed again.
fn unnamed_keys(changing: &Changing, now: &[DestroyedKey]) -> Vec<DestroyedKey> {
    let named: HashSet<KeyId> = changing.fold.destroyed.iter().map(|key| key.key_id).collect();
    let is_new = |key: &KeyInfo| !named.contains(&key.key_id) && now.iter().all(|new| new.key_id != key.key_id);
    let before = changing.keys.iter().filter(|key| key.shredded_at.is_some() && is_new(key));
    let before = before.map(|key| DestroyedKey {
        key_id: key.key_id,
        version: key.version,
        kek_id: key.kek_id,
        created_at: key.created_at,
    });
    let mut keys: Vec<DestroyedKey> = before.chain(now.iter().cloned()).collect();
    keys.sort_unstable_by_key(|key| key.version);
    keys
}
