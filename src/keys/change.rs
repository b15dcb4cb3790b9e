//! Changes of scopes: what all of them do before and after their own work.
//!
//! A change opens the integrity key before it locks anything. Then it locks the row of the scope, reads and checks the
//! scope's entries, and adds one.

use crate::crypto::primitives::LogKey;
use crate::error::{Error, KeyFault, Result, StepError, no_effect};
use crate::event::now;
use crate::keys::ahead::Pinned;
use crate::keys::log::{Fold, LogKeys, mac};
use crate::keys::manager::{KeyManager, PARTITION, check_and_take, no_active_kek, without_keys};
use crate::keys::material::key_of;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::operator::Cause;
use crate::keys::{
    DestroyedKey, EntryMac, KeyHistory, KeyInfo, KeyStore, LogEntry, ScopeAction, ScopeLock, ScopeRecord, ScopeState,
};
use std::collections::HashSet;
use time::OffsetDateTime;
use uuid::Uuid;

/// A scope that is locked, and what its entries come to.
pub(crate) struct Changing {
    pub(crate) record: ScopeRecord,
    pub(crate) fold: Fold,
    /// The keys that the scope had when it was locked.
    pub(crate) keys: Vec<KeyInfo>,
    namespace: Namespace,
    key_id: KeyId,
    key: LogKey,
}

/// What a change adds to the entries of its scope.
pub(crate) struct Decision {
    pub(crate) action: ScopeAction,
    pub(crate) state: ScopeState,
    pub(crate) generation: u32,
    pub(crate) keys: Vec<DestroyedKey>,
    pub(crate) until: Option<OffsetDateTime>,
    pub(crate) about: Option<Uuid>,
}

impl Changing {
    /// A decision that leaves the scope in its state.
    pub(crate) fn decide(&self, action: ScopeAction) -> Decision {
        let (state, generation) = (self.record.state, self.record.generation);
        Decision { action, state, generation, keys: Vec::new(), until: None, about: None }
    }

    /// Checks that the row of the scope is as its entries say. Only a shred goes on if it is not: a new entry would
    /// vouch for a row that nothing authenticates.
    pub(crate) fn check_agreement(&self) -> Result<()> {
        let (row, fold) = (&self.record, &self.fold);
        if (row.state, row.generation, row.due) == (fold.state, fold.generation, fold.due()) {
            return Ok(());
        }
        Err(Error::Keys(KeyFault::ScopeState {
            scope: self.record.scope.clone(),
            problem: "has a row that is not as its entries in the shred log say: look for a restore of a part of the \
                      key tables, and replay the log",
        }))
    }

    /// The entry of a decision, authenticated.
    pub(crate) fn entry(&self, decision: Decision, cause: Cause<'_>, at: OffsetDateTime) -> Result<LogEntry> {
        let Decision { action, state, generation, keys, until, about } = decision;
        let next = self.fold.entries.checked_add(1).ok_or(Error::Keys(KeyFault::Cryptography))?;
        let mut entry = LogEntry {
            entry_id: Uuid::now_v7(),
            scope: self.record.scope.clone(),
            scope_seq: next,
            at,
            action,
            state,
            generation,
            keys,
            until,
            about,
            reason: cause.reason.to_owned(),
            actor: cause.actor.map(str::to_owned),
            mac: Some(EntryMac { key_id: self.key_id, mac: [0; 32] }),
        };
        let mac = mac(&self.namespace, &self.key, &entry, self.fold.last.as_ref());
        entry.mac = Some(EntryMac { key_id: self.key_id, mac });
        Ok(entry)
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Opens the integrity key, which authenticates entries. Call it before anything is locked.
    ///
    /// Where a copy of the log is required, it fails while the key table does not agree with it: what a restore lost
    /// may be a hold, or the end of a schedule.
    pub(crate) async fn open_log_ahead(&self, tx: &mut Tx) -> Result<Pinned> {
        self.check_log(tx).await?;
        let integrity = KeyScope::integrity();
        let missed = self.has_missed(&integrity);
        let mut pinned = self.open_ahead(tx, &[integrity]).await?;
        if missed {
            // Older entries may be authenticated under an older integrity key, which an earlier call has missed.
            self.open_missed(&mut pinned).await?;
        }
        Ok(pinned)
    }

    /// Locks a scope for a change, and reads its entries. `pinned` holds what was opened before.
    pub(crate) async fn begin_change(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        create: bool,
        pinned: &Pinned,
    ) -> Result<Changing> {
        self.store.announce_writing(tx).await?;
        let namespace = self.check_namespace(tx).await?;
        let wanted = std::slice::from_ref(scope);
        let mut locked = self.store.scopes(tx, wanted, ScopeLock::Update).await?;
        if locked.is_empty() && create {
            self.store.create_scopes(tx, wanted).await?;
            locked = self.store.scopes(tx, wanted, ScopeLock::Update).await?;
        }
        let record = match locked.pop() {
            Some(record) => record,
            None if create => return Err(no_effect("creating a key scope", "key_scopes")),
            None => return Err(without_keys(scope)),
        };
        let history = self.store.history(tx, scope).await?;
        let (entries, infos) = history.map(|history| (history.entries, history.keys)).unwrap_or_default();
        let (mut keys, key_id) = self.log_keys(tx, &namespace, &entries, Some(pinned)).await?;
        let fold = Fold::of(&namespace, &keys, scope, &entries)?;
        let key = keys.remove(&key_id).ok_or_else(|| no_active_kek(PARTITION))?;
        Ok(Changing { record, fold, keys: infos, namespace, key_id, key })
    }

    /// The keys that authenticate these entries, and the id of the one for new entries, which is among them.
    pub(crate) async fn log_keys(
        &self,
        tx: &mut Tx,
        namespace: &Namespace,
        entries: &[LogEntry],
        pinned: Option<&Pinned>,
    ) -> Result<(LogKeys, KeyId)> {
        let integrity = KeyScope::integrity();
        let record = self.store.scopes(tx, std::slice::from_ref(&integrity), ScopeLock::None).await?.pop();
        let (_, active) = record.map(check_and_take).transpose()?.flatten().ok_or_else(|| no_active_kek(PARTITION))?;
        let others: HashSet<KeyId> = entries
            .iter()
            .filter_map(|entry| entry.mac.map(|mac| mac.key_id))
            .filter(|key_id| *key_id != active.key_id)
            .collect();
        let active_id = active.key_id;
        let mut records = vec![active];
        if !others.is_empty() {
            let others: Vec<KeyId> = others.into_iter().collect();
            let rows = self.store.data_keys(tx, &others).await?;
            // Another scope's key authenticates nothing: whoever may shred it would know it.
            records.extend(rows.into_iter().filter(|row| row.scope == integrity && row.wrapped_key.is_some()));
        }
        let opened = self.open_all(tx, namespace, &records, None, pinned).await?;
        self.cache.keys.activate(&integrity, active_id);
        let mut keys = LogKeys::with_capacity(records.len());
        for record in &records {
            keys.insert(record.key_id, key_of(&opened, record.key_id)?.log_key()?);
        }
        Ok((keys, active_id))
    }

    /// What the entries of a scope come to, checked. `None` if there is no such scope. It is for calls that hold no
    /// locks: the KMS may be asked.
    pub(crate) async fn fold_of(&self, tx: &mut Tx, scope: &KeyScope) -> Result<Option<(KeyHistory, Fold)>> {
        let namespace = self.check_namespace(tx).await?;
        let Some(history) = self.store.history(tx, scope).await? else { return Ok(None) };
        let (keys, _) = self.log_keys(tx, &namespace, &history.entries, None).await?;
        let fold = Fold::of(&namespace, &keys, scope, &history.entries)?;
        Ok(Some((history, fold)))
    }

    /// Records a decision about a locked scope, looks whether it was recorded, and tells the consumers.
    pub(crate) async fn decide(
        &self,
        tx: &mut Tx,
        changing: &Changing,
        decision: Decision,
        cause: Cause<'_>,
        operation: &'static str,
    ) -> Result<LogEntry> {
        let entry = changing.entry(decision, cause, now())?;
        self.store.change_scope(tx, &entry).await?;
        self.look_at_change(tx, &entry, operation).await?;
        self.tell_consumers(tx, &entry).await?;
        Ok(entry)
    }

    /// Calls the consumers of erasures.
    pub(crate) async fn tell_consumers(&self, tx: &mut Tx, entry: &LogEntry) -> Result<()> {
        for consumer in &self.consumers {
            consumer.handle(tx, entry).await.map_err(|source| {
                Error::Keys(KeyFault::Consumer {
                    consumer: consumer.name().to_owned(),
                    scope: entry.scope.clone(),
                    source: StepError::new(source),
                })
            })?;
        }
        Ok(())
    }
}
