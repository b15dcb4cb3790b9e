//! The transactions of a replay. Each locks the end of the chain or the scopes that it changes, in ascending order, and
//! decides from what it reads then.

use super::adopt::entry_about;
use super::replay::REPLAYING;
use crate::error::{Error, KeyFault, Result, no_effect};
use crate::event::now;
use crate::keys::log::{Fold, LogKeys, mac};
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::operator::Cause;
use crate::keys::seal_log::LogSealer;
use crate::keys::{
    DataKeyRecord, DestroyedKey, EntryMac, KeyRows, KeyWork, LogEntry, LogHead, ScopeAction, ScopeRecord, ScopeSetting,
    ScopeState, SealedEntry,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use uuid::Uuid;

fn integrity_kek(rows: &ScopeRecord) -> Option<KekId> {
    rows.active.as_ref().map(|key| key.kek_id)
}

/// Gives an entry its number in its scope, and authenticates it anew.
pub(super) fn authenticated(by: &LogSealer, fold: &Fold, mut entry: LogEntry) -> Result<LogEntry> {
    let key = by.keys.get(&by.active).ok_or(Error::Keys(KeyFault::Cryptography))?;
    entry.scope_seq = fold.entries.checked_add(1).ok_or(Error::Keys(KeyFault::Cryptography))?;
    entry.mac = Some(EntryMac { key_id: by.active, mac: [0; 32] });
    let mac = mac(&by.namespace, key, &entry, fold.last.as_ref());
    entry.mac = Some(EntryMac { key_id: by.active, mac });
    Ok(entry)
}

fn of_scope(entries: Vec<LogEntry>) -> BTreeMap<KeyScope, Vec<LogEntry>> {
    let mut by_scope: BTreeMap<KeyScope, Vec<LogEntry>> = BTreeMap::new();
    for entry in entries {
        by_scope.entry(entry.scope.clone()).or_default().push(entry);
    }
    by_scope
}

/// Records something about the log itself, once.
pub(super) struct Note<'a, F> {
    pub(super) by: &'a LogSealer,
    pub(super) action: ScopeAction,
    pub(super) cause: Cause<'a>,
    /// The entry that it is about.
    pub(super) about: Option<Uuid>,
    /// Is this the entry that says it already?
    pub(super) is_said: F,
    /// The entry that says it.
    pub(super) said: Option<Uuid>,
}

#[async_trait]
impl<F: Fn(&LogEntry) -> bool + Send + Sync> KeyWork for Note<'_, F> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        // The end of the chain is locked in place of the scope, which every append reads.
        rows.lock_log_head().await?;
        let scope = KeyScope::integrity();
        let entries = rows.entries_of(std::slice::from_ref(&scope)).await?;
        let fold = Fold::of(&self.by.namespace, &self.by.keys, &scope, &entries)?;
        self.said = entries.iter().find(|entry| (self.is_said)(entry)).map(|entry| entry.entry_id);
        if self.said.is_some() {
            return Ok(());
        }
        let entry = LogEntry { about: self.about, ..entry_about(&scope, self.action, self.cause) };
        self.said = Some(entry.entry_id);
        rows.insert_entries(&[authenticated(self.by, &fold, entry)?]).await
    }
}

/// Puts in those entries of a batch that the log does not have.
pub(super) struct Append<'a> {
    by: &'a LogSealer,
    batch: &'a [SealedEntry],
    /// The ids of all entries of the copy. Other entries are of the table's own branch.
    copied: &'a HashSet<Uuid>,
    skipped: &'a BTreeSet<KeyScope>,
    forked: bool,
    /// A scope has other entries than the copy, so the batch was not put in: record a fork first.
    pub(super) conflict: bool,
    pub(super) missing: u64,
    /// Scopes that are held in the table's own branch.
    pub(super) held: BTreeSet<KeyScope>,
}

impl<'a> Append<'a> {
    pub(super) fn new(
        by: &'a LogSealer,
        batch: &'a [SealedEntry],
        copied: &'a HashSet<Uuid>,
        skipped: &'a BTreeSet<KeyScope>,
        forked: bool,
    ) -> Self {
        Self { by, batch, copied, skipped, forked, conflict: false, missing: 0, held: BTreeSet::new() }
    }

    /// Can the rows of the chain be taken over as they are? They can if the chain ends before them, and if every entry
    /// is there already or follows from the scope's last one.
    fn goes_on(&self, head: &LogHead, known: &BTreeMap<KeyScope, Vec<LogEntry>>) -> bool {
        let first = &self.batch[0].row;
        if (head.seq + 1, head.hash) != (first.seq, first.previous_hash) {
            return false;
        }
        let mut lasts: BTreeMap<&KeyScope, u32> = BTreeMap::new();
        self.batch.iter().all(|sealed| {
            let entry = &sealed.entry;
            let of_scope = known.get(&entry.scope).map_or(&[][..], Vec::as_slice);
            let opens = |keys: &LogKeys| entry.mac.is_none_or(|mac| keys.contains_key(&mac.key_id));
            if let Some(known) = of_scope.iter().find(|known| known.entry_id == entry.entry_id) {
                return known == entry;
            }
            let last = lasts.entry(&entry.scope).or_insert(u32::try_from(of_scope.len()).unwrap_or(u32::MAX));
            *last = last.saturating_add(1);
            *last == entry.scope_seq && opens(&self.by.keys) && self.by.keys.contains_key(&sealed.row.mac.key_id)
        })
    }

    async fn take_over(&mut self, rows: &mut dyn KeyRows, head: &LogHead, known: &[Uuid]) -> Result<()> {
        let new = self.batch.iter().map(|sealed| &sealed.entry).filter(|entry| !known.contains(&entry.entry_id));
        let new: Vec<LogEntry> = new.cloned().collect();
        rows.insert_entries(&new).await?;
        let chain: Vec<_> = self.batch.iter().map(|sealed| sealed.row).collect();
        if !rows.seal_entries(head, &chain).await? {
            return Err(no_effect(REPLAYING, "shred_log, shred_log_head or shred_entries"));
        }
        self.missing = new.len() as u64;
        Ok(())
    }

    /// Puts in the missing entries of a scope behind those that it has.
    async fn add(&mut self, rows: &mut dyn KeyRows, scope: &KeyScope, known: Vec<LogEntry>) -> Result<()> {
        let ids: HashSet<Uuid> = known.iter().map(|entry| entry.entry_id).collect();
        let missing: Vec<&LogEntry> = self
            .batch
            .iter()
            .map(|sealed| &sealed.entry)
            .filter(|entry| entry.scope == *scope && !ids.contains(&entry.entry_id))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.missing += missing.len() as u64;
        let mut all = known;
        let mut fold = Fold::of(&self.by.namespace, &self.by.keys, scope, &all)?;
        let is_own = |entry: &LogEntry| !self.copied.contains(&entry.entry_id);
        let held = fold.holds_at(now()).iter().any(|hold| !self.copied.contains(&hold.id));
        if held && missing.iter().any(|entry| entry.action == ScopeAction::Shred || !entry.keys.is_empty()) {
            self.held.insert(scope.clone());
            return Ok(());
        }
        // Whatever the copy says came before: what was shredded since the restore stays shredded.
        let own = all.iter().rfind(|entry| is_own(entry)).map(|entry| entry.state);
        let mut new = Vec::with_capacity(missing.len());
        for entry in missing {
            let mut entry = entry.clone();
            if own == Some(ScopeState::Shredded) {
                entry.state = ScopeState::Shredded;
            }
            entry.generation = entry.generation.max(fold.generation);
            let entry = authenticated(self.by, &fold, entry)?;
            all.push(entry.clone());
            fold = Fold::of(&self.by.namespace, &self.by.keys, scope, &all)?;
            new.push(entry);
        }
        rows.insert_entries(&new).await
    }
}

#[async_trait]
impl KeyWork for Append<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        (self.conflict, self.missing, self.held) = (false, 0, BTreeSet::new());
        let scopes: BTreeSet<KeyScope> = self.batch.iter().map(|sealed| sealed.entry.scope.clone()).collect();
        let wanted: Vec<KeyScope> = scopes.iter().cloned().collect();
        let others: Vec<KeyScope> = wanted.iter().filter(|scope| !scope.is_reserved()).cloned().collect();
        rows.lock_scopes(&others).await?;
        let mut known = of_scope(rows.entries_of(&wanted).await?);
        if !self.forked {
            let head = rows.lock_log_head().await?;
            if !self.goes_on(&head, &known) {
                self.conflict = true;
                return Ok(());
            }
            let ids: Vec<Uuid> = known.values().flatten().map(|entry| entry.entry_id).collect();
            return self.take_over(rows, &head, &ids).await;
        }
        for scope in wanted.iter().filter(|scope| !self.skipped.contains(scope)) {
            let known = known.remove(scope).unwrap_or_default();
            self.add(rows, scope, known).await?;
        }
        Ok(())
    }
}

/// Brings the rows of scopes to what their entries come to.
pub(super) struct Repair<'a> {
    by: &'a LogSealer,
    scopes: Vec<KeyScope>,
    pub(super) repaired: u64,
    pub(super) destroyed: u64,
    pub(super) tombstones: u64,
    pub(super) undecided: Vec<KeyScope>,
}

impl<'a> Repair<'a> {
    pub(super) fn new(by: &'a LogSealer, scopes: Vec<KeyScope>) -> Self {
        Self { by, scopes, repaired: 0, destroyed: 0, tombstones: 0, undecided: Vec::new() }
    }

    async fn scope(&mut self, rows: &mut dyn KeyRows, record: &ScopeRecord, fold: &Fold, kek: KekId) -> Result<()> {
        let scope = &record.scope;
        let keys = rows.data_keys_of(scope).await?;
        let named: HashSet<KeyId> = fold.destroyed.iter().map(|key| key.key_id).collect();
        let back: Vec<KeyId> =
            keys.iter().filter(|key| is_live(key) && named.contains(&key.key_id)).map(|key| key.key_id).collect();
        let at = now();
        if rows.destroy_by_id(&back, at).await? != back.len() as u64 {
            return Err(no_effect(REPLAYING, "data_keys"));
        }
        let made = self.add_tombstones(rows, scope, fold, &keys, kek).await?;
        let keys = rows.data_keys_of(scope).await?;
        if keys.iter().any(|key| is_live(key) && named.contains(&key.key_id)) {
            return Err(no_effect(REPLAYING, "data_keys"));
        }
        (self.destroyed, self.tombstones) = (self.destroyed + back.len() as u64, self.tombstones + made);
        let newest = keys.iter().map(|key| key.version).max();
        let is_usable = |key: &&DataKeyRecord| is_live(key) && Some(key.version) == newest && key.scope == *scope;
        let active = keys.iter().filter(is_usable).map(|key| key.key_id).next();
        let was_active = record.active.as_ref().map(|key| key.key_id);
        // A key of another generation is not used again: it may have been made before a shred that the log only now
        // has.
        let active = active.filter(|key_id| Some(*key_id) == was_active && record.generation == fold.generation);
        let live = keys.iter().any(is_live);
        if fold.state == ScopeState::Shredded && live {
            self.undecided.push(scope.clone());
            self.repaired += u64::from(!back.is_empty() || made > 0);
            // The scope stays as it is. But nothing points to a key that was destroyed.
            if was_active.is_some_and(|active| back.contains(&active)) {
                let (state, generation, due) = (record.state, record.generation, record.due);
                let setting = ScopeSetting { scope, state, generation, due, active: None };
                if !rows.set_scope(&setting).await? {
                    return Err(no_effect(REPLAYING, "key_scopes"));
                }
            }
            return Ok(());
        }
        let due = fold.schedule.as_ref().map(|schedule| schedule.due);
        let active = active.filter(|_| fold.state != ScopeState::Shredded);
        let as_it_is = (record.state, record.generation, was_active) == (fold.state, fold.generation, active);
        // It is set in any case, because the time of a scheduled shred is not read.
        let setting = ScopeSetting { scope, state: fold.state, generation: fold.generation, due, active };
        if !rows.set_scope(&setting).await? {
            return Err(no_effect(REPLAYING, "key_scopes"));
        }
        let now = rows.scope(scope).await?.map(|record| (record.state, record.generation));
        if now != Some((fold.state, fold.generation)) {
            return Err(no_effect(REPLAYING, "key_scopes"));
        }
        self.repaired += u64::from(!as_it_is || !back.is_empty() || made > 0);
        Ok(())
    }

    /// Makes tombstones of the keys that the table does not have, so that their values are redacted.
    async fn add_tombstones(
        &self,
        rows: &mut dyn KeyRows,
        scope: &KeyScope,
        fold: &Fold,
        keys: &[DataKeyRecord],
        instead: KekId,
    ) -> Result<u64> {
        let known: HashSet<KeyId> = keys.iter().map(|key| key.key_id).collect();
        let mut versions: BTreeSet<u32> = keys.iter().map(|key| key.version).collect();
        let mut made = HashSet::new();
        for key in fold.destroyed.iter().filter(|key| !known.contains(&key.key_id)) {
            if !made.insert(key.key_id) {
                continue;
            }
            // Since the restore, another key may have taken its version. No value depends on it.
            let free = versions.last().map_or(1, |last| last.saturating_add(1));
            let version = if versions.contains(&key.version) { free } else { key.version };
            versions.insert(version);
            // A tombstone names a key-encryption key that is there. Nothing is opened with it any more.
            let kek_id = if rows.kek(key.kek_id).await?.is_some() { key.kek_id } else { instead };
            let tombstone = DestroyedKey { version, kek_id, ..key.clone() };
            rows.insert_tombstone(scope, &tombstone, now()).await?;
        }
        Ok(made.len() as u64)
    }
}

fn is_live(key: &DataKeyRecord) -> bool {
    key.wrapped_key.is_some()
}

#[async_trait]
impl KeyWork for Repair<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        (self.repaired, self.destroyed, self.tombstones) = (0, 0, 0);
        self.undecided.clear();
        let scopes = self.scopes.clone();
        let records = rows.lock_scopes(&scopes).await?;
        let mut entries = of_scope(rows.entries_of(&scopes).await?);
        let integrity = rows.scope(&KeyScope::integrity()).await?;
        let kek = integrity.as_ref().and_then(integrity_kek).ok_or(Error::Keys(KeyFault::Cryptography))?;
        for record in &records {
            let entries = entries.remove(&record.scope).unwrap_or_default();
            let fold = Fold::of(&self.by.namespace, &self.by.keys, &record.scope, &entries)?;
            self.scope(rows, record, &fold, kek).await?;
        }
        Ok(())
    }
}
