//! Adoption of the entries from before there was a log.
//!
//! The migration that made the log carried older changes of scopes over. It had no key, so they have no MAC, and
//! nothing tells them from entries that somebody invented. So nothing acts on them until an operator has looked at
//! them, and adopts them: an entry behind those of a scope covers them with its MAC. That is done once for a namespace.

use super::PAGE;
use super::replay_batch::{Note, authenticated};
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::event::now;
use crate::keys::log::{Fold, altered};
use crate::keys::manager::{KeyManager, check_cause};
use crate::keys::names::KeyScope;
use crate::keys::operator::Cause;
use crate::keys::seal_log::LogSealer;
use crate::keys::{DestroyedKey, KeyRows, KeyTable, KeyWork, LogEntry, ScopeAction, ScopeRecord, ScopeState};
use crate::telemetry;
use async_trait::async_trait;
use std::collections::BTreeSet;
use uuid::Uuid;

const ADOPTING: &str = "adopting entries of the shred log";
/// How many scopes are adopted in a transaction, and locked meanwhile.
const BATCH: usize = 100;
const INVENTED: &str = "has no MAC, and those from before there was a log were adopted already: it was invented";

/// The report of [`KeyManager::adopt_entries`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptedEntries {
    /// How many entries without a MAC are covered by one now.
    pub entries: u64,
    /// How many scopes they are of.
    pub scopes: u64,
    /// Scopes that were left alone: their rows say something else than their entries, or their entries can't be from
    /// before there was a log.
    pub left: Vec<KeyScope>,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Adopts the entries from before there was a shred log, which have no MAC. Call it once, after the migration of a
    /// key table that had none.
    ///
    /// **Look at them first**: [`verify_log`](Self::verify_log) lists their scopes. Nothing but your look tells them
    /// from entries that somebody invented who can write to the key table. Until they are adopted, their scopes can't
    /// be changed ([`KeyFault::LogAltered`]). Values are sealed and opened all the same, and what was shredded stays
    /// shredded.
    ///
    /// It adds an entry to each of these scopes, which covers the older ones with its MAC and names the keys that were
    /// destroyed. A last entry records that adoption is over, with the reason: from then on, entries without a MAC are
    /// never adopted. On a key table that never had any, that is all it does.
    ///
    /// It works in batches, each in a transaction of its own, on a connection that is not in one. A call that ended
    /// early is completed by another one. [`acting_as`](Self::acting_as) names who does it.
    ///
    /// # Errors
    /// [`KeyFault::LogAltered`] if there are entries without a MAC after adoption was over: they were invented;
    /// [`KeyFault::ShredLogBehind`] while the key table does not agree with a required copy;
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) if the reason is empty or too long; those of
    /// [`seal_log`](Self::seal_log), and of a [sweep](Self::sweep) about copies.
    pub async fn adopt_entries(&self, connection: &mut Tx, reason: &str) -> Result<AdoptedEntries> {
        self.adopt_because(connection, Cause::of(reason)).await
    }

    pub(crate) async fn adopt_because(&self, connection: &mut Tx, cause: Cause<'_>) -> Result<AdoptedEntries> {
        telemetry::adopt_entries(self.known_namespace()).run(|| self.adopt(connection, cause)).await
    }

    async fn adopt(&self, connection: &mut Tx, cause: Cause<'_>) -> Result<AdoptedEntries> {
        check_cause(cause)?;
        // A restore may have lost the entry that says that adoption is over.
        self.check_log(connection).await?;
        self.copy_ahead(connection).await?;
        let by = self.log_sealer(connection).await?;
        let found = self.entries_without_mac(connection).await?;
        let mut done = AdoptedEntries::default();
        let over = self.is_adoption_over(connection).await?;
        let scopes: Vec<KeyScope> = found.iter().cloned().collect();
        for scopes in scopes.chunks(BATCH) {
            self.check_log(connection).await?;
            let mut work = Adopt { by: &by, cause, scopes, over, done: AdoptedEntries::default() };
            self.store.in_transaction(connection, ADOPTING, &mut work).await?;
            done.entries += work.done.entries;
            done.scopes += work.done.scopes;
            done.left.append(&mut work.done.left);
        }
        if !over && done.left.is_empty() {
            self.check_log(connection).await?;
            let (action, is_said) = (ScopeAction::Adopt, is_end_of_adoption);
            let mut note = Note { by: &by, action, cause, about: None, is_said, said: None };
            self.store.in_transaction(connection, ADOPTING, &mut note).await?;
        }
        self.seal_log_afterwards(connection).await;
        self.copy_at_once(connection).await?;
        tracing::info!(entries = done.entries, scopes = done.scopes, left = done.left.len(), "entries were adopted");
        Ok(done)
    }

    /// The scopes with entries without a MAC, whether the chain has these or not.
    async fn entries_without_mac(&self, connection: &mut Tx) -> Result<BTreeSet<KeyScope>> {
        let mut found = BTreeSet::new();
        let mut unsealed = Unsealed::default();
        loop {
            self.store.in_transaction(connection, ADOPTING, &mut unsealed).await?;
            let Some(last) = unsealed.page.last() else { break };
            unsealed.after = Some((last.scope.clone(), last.scope_seq));
            found.extend(unsealed.page.drain(..).filter(|entry| entry.mac.is_none()).map(|entry| entry.scope));
        }
        let mut after = 0;
        loop {
            let page = self.store.log_entries(connection, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.row.seq;
            let carried = page.into_iter().map(|sealed| sealed.entry).filter(|entry| entry.mac.is_none());
            found.extend(carried.map(|entry| entry.scope));
        }
    }

    async fn is_adoption_over(&self, connection: &mut Tx) -> Result<bool> {
        let scope = KeyScope::integrity();
        let folded = self.fold_of(connection, &scope).await?;
        Ok(folded.is_some_and(|(history, _)| history.entries.iter().any(is_end_of_adoption)))
    }
}

fn is_end_of_adoption(entry: &LogEntry) -> bool {
    entry.action == ScopeAction::Adopt
}

/// Reads a page of the entries that the chain does not have.
#[derive(Default)]
struct Unsealed {
    after: Option<(KeyScope, u32)>,
    page: Vec<LogEntry>,
}

#[async_trait]
impl KeyWork for Unsealed {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let after = self.after.as_ref().map(|(scope, seq)| (scope, *seq));
        self.page = rows.unsealed_entries(after, PAGE).await?;
        Ok(())
    }
}

/// Adopts the entries of some scopes.
struct Adopt<'a> {
    by: &'a LogSealer,
    cause: Cause<'a>,
    scopes: &'a [KeyScope],
    /// Was the end of adoption recorded?
    over: bool,
    done: AdoptedEntries,
}

#[async_trait]
impl KeyWork for Adopt<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.done = AdoptedEntries::default();
        let records = rows.lock_scopes(self.scopes).await?;
        let entries = rows.entries_of(self.scopes).await?;
        for of_scope in entries.chunk_by(|one, next| one.scope == next.scope) {
            let Some(record) = records.iter().find(|record| record.scope == of_scope[0].scope) else { continue };
            self.scope(rows, record, of_scope).await?;
        }
        Ok(())
    }
}

impl Adopt<'_> {
    async fn scope(&mut self, rows: &mut dyn KeyRows, record: &ScopeRecord, entries: &[LogEntry]) -> Result<()> {
        let scope = &record.scope;
        let (fold, checked) = match Fold::of_carried(&self.by.namespace, &self.by.keys, scope, entries) {
            Ok(folded) => folded,
            Err(Error::Keys(KeyFault::LogAltered { .. })) => {
                self.done.left.push(scope.clone());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if checked.is_authentic() {
            return Ok(());
        }
        if self.over {
            return Err(altered(&entries[0], INVENTED));
        }
        if scope.is_reserved() || (record.state, record.generation, record.due) != (fold.state, fold.generation, None) {
            self.done.left.push(scope.clone());
            return Ok(());
        }
        let keys = rows.data_keys_of(scope).await?;
        let destroyed = keys.into_iter().filter(|key| key.wrapped_key.is_none()).map(|key| DestroyedKey {
            key_id: key.key_id,
            version: key.version,
            kek_id: key.kek_id,
            created_at: key.created_at,
        });
        let new = LogEntry {
            state: fold.state,
            generation: fold.generation,
            keys: destroyed.collect(),
            ..entry_about(scope, ScopeAction::Adopt, self.cause)
        };
        let new = authenticated(self.by, &fold, new)?;
        rows.insert_entries(std::slice::from_ref(&new)).await?;
        if rows.entries_of(std::slice::from_ref(scope)).await?.last() != Some(&new) {
            return Err(no_effect(ADOPTING, "shred_entries"));
        }
        self.done.entries += entries.len() as u64;
        self.done.scopes += 1;
        Ok(())
    }
}

/// An entry that changes nothing, and is not authenticated yet.
pub(super) fn entry_about(scope: &KeyScope, action: ScopeAction, cause: Cause<'_>) -> LogEntry {
    LogEntry {
        entry_id: Uuid::now_v7(),
        scope: scope.clone(),
        scope_seq: 0,
        at: now(),
        action,
        state: ScopeState::Live,
        generation: 1,
        keys: Vec::new(),
        until: None,
        about: None,
        reason: cause.reason.to_owned(),
        actor: cause.actor.map(str::to_owned),
        mac: None,
    }
}
