//! Replay: puts the entries of a copy of the shred log back into a key table that was restored, and destroys again what
//! they say was destroyed.

use super::copy::{ShredLogCopy, UNREADABLE, failed, wrong};
use super::forks::{beginning, ending, has_all};
use super::replay_batch::{Append, Note, Repair};
use super::verify::CheckedCopy;
use super::{LogProgress, PAGE};
use crate::error::{Result, no_effect};
use crate::event::now;
use crate::keys::log::Fold;
use crate::keys::manager::KeyManager;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::operator::Cause;
use crate::keys::seal_log::LogSealer;
use crate::keys::{KeyInfo, KeyTable, LogEntry, ScopeAction, ScopeState, SealedEntry};
use crate::telemetry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use uuid::Uuid;

pub(super) const REPLAYING: &str = "replaying the shred log";

/// The options of [`KeyManager::replay_log`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplayOptions {
    /// How many entries are replayed in a transaction. 100 by default.
    pub batch: u32,
    /// Changes nothing, and reports what is missing.
    pub dry_run: bool,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { batch: 100, dry_run: false }
    }
}

/// The report of a replay: what it did or, on a dry run, what it would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// The copy that was replayed, as it names itself: the longest.
    pub copy: String,
    /// How many entries the copy has.
    pub entries: u64,
    /// How many of them the log did not have. This call put them in, except those of [`held`](Self::held) scopes.
    pub missing: u64,
    /// How many scopes disagreed with their entries. On a dry run those are counted that disagree before the missing
    /// entries are there.
    pub disagreed: u64,
    /// How many keys were destroyed again.
    pub destroyed: u64,
    /// How many tombstones were made of keys that the table never had.
    pub tombstones: u64,
    /// Had the log gone on in another way than the copy? Then missing entries got new numbers, and a new copy must be
    /// begun: the old one stays as evidence.
    pub forked: bool,
    /// Scopes that the copy says were shredded, and that were put on hold after the restore. They are left as they are.
    /// Until the hold is released and the copy replayed again, the copy does not count as replayed: no new one is
    /// begun, and nothing is opened where a copy is required.
    pub held: Vec<KeyScope>,
    /// Shredded scopes with a key that no shred names: something was sealed for them after the restore. Their old keys
    /// are destroyed. Shred them again if that is right for what is new as well.
    pub undecided: Vec<KeyScope>,
    /// A dry run only: what the replay would make of each scope that lacks entries of the copy, or whose rows disagree
    /// with its entries.
    pub planned: Vec<PlannedScope>,
}

/// What a replay would make of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedScope {
    /// The scope.
    pub scope: KeyScope,
    /// Its state afterwards.
    pub state: ScopeState,
    /// Was it put on hold since the restore, so that it would be left as it is?
    pub is_held: bool,
    /// Would it be shredded, but has a key that no shred names? Its old keys would be destroyed, and its state would be
    /// left: see [`Replayed::undecided`].
    pub is_undecided: bool,
}

impl Replayed {
    /// Is nothing left for somebody to decide?
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.held.is_empty() && self.undecided.is_empty()
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Replays a copy of the shred log into a key table that was restored from a backup, or into which key rows were
    /// restored alone.
    ///
    /// It checks every copy as a whole first, and changes nothing if a line is wrong. Of several, each must be the
    /// beginning of the longest, which is replayed. Then it puts the missing entries in, destroys exactly the keys
    /// that shreds name, makes tombstones of those that the table does not have, and sets every scope to what its
    /// entries come to. Keys that were made since a reopening stay.
    ///
    /// If the service has written since the restore, the log has forked: see [`Replayed::forked`]. Holds that were
    /// placed since the restore are respected. The log notes the beginning and the end of such a replay. Between the
    /// two, [`export_log`](Self::export_log) begins no new copy, and nothing is opened where a copy is required.
    ///
    /// It works in batches, each in a transaction of its own, on a connection that is not in one. A call that ended
    /// early for any reason is completed by another one. A second call does nothing.
    ///
    /// # Errors
    /// [`KeyFault::LogCopy`](crate::error::KeyFault::LogCopy) with the line, if the copy is empty, altered, incomplete
    /// or of another namespace, [`KeyFault::CopiesDiffer`](crate::error::KeyFault::CopiesDiffer) if one copy is not the
    /// beginning of another, [`KeyFault::LogAltered`](crate::error::KeyFault::LogAltered) if an entry of the table is
    /// not what was written; those of [`seal_log`](Self::seal_log).
    pub async fn replay_log(
        &self,
        connection: &mut Tx,
        copies: &[&dyn ShredLogCopy],
        options: &ReplayOptions,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<Replayed> {
        let call = telemetry::replay_log(self.known_namespace(), options.dry_run);
        call.run(|| self.replay_longest(connection, copies, options, progress)).await
    }

    async fn replay_longest(
        &self,
        connection: &mut Tx,
        copies: &[&dyn ShredLogCopy],
        options: &ReplayOptions,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<Replayed> {
        let by = self.log_sealer(connection).await?;
        let (copy, checked) = self.longest_copy(copies, &by).await?;
        let table = self.table_log(connection, &checked).await?;
        let (entries, forked) = (checked.end().0, table.forked(&checked));
        let done = Replayed { copy: copy.name(), entries, forked, ..Replayed::default() };
        let mut run = Run { by: &by, copy, checked: &checked, table, options, progress, fork: None, done };
        if options.dry_run {
            let missing = run.count().await?;
            let found = self.store.log_disagreements(connection, u32::MAX).await?;
            let disagreed: BTreeSet<KeyScope> = found.into_iter().map(|disagreement| disagreement.scope).collect();
            run.done.disagreed = disagreed.len() as u64;
            run.done.planned = self.plan(connection, &run, &missing, disagreed).await?;
            return Ok(run.done);
        }
        self.append_missing(connection, &mut run).await?;
        self.repair(connection, &mut run).await?;
        if run.done.forked {
            self.end_fork(connection, &run).await?;
        }
        if let Some(gate) = &self.gate {
            gate.forget();
        }
        let done = run.done;
        tracing::info!(
            missing = done.missing,
            keys = done.destroyed,
            forked = done.forked,
            held = done.held.len(),
            undecided = done.undecided.len(),
            "the shred log was replayed"
        );
        Ok(done)
    }

    /// What would become of the scopes of missing entries, and of those that disagree.
    async fn plan(
        &self,
        connection: &mut Tx,
        run: &Run<'_>,
        missing: &BTreeMap<KeyScope, Missing>,
        disagreed: BTreeSet<KeyScope>,
    ) -> Result<Vec<PlannedScope>> {
        let copied: HashSet<Uuid> = run.checked.ids.iter().copied().collect();
        let scopes: BTreeSet<KeyScope> = disagreed.into_iter().chain(missing.keys().cloned()).collect();
        let mut planned = Vec::with_capacity(scopes.len());
        for scope in scopes.into_iter().filter(|scope| !scope.is_reserved()) {
            let history = self.store.history(connection, &scope).await?;
            let (as_it_is, keys, entries) = match history {
                Some(history) => (history.state, history.keys, history.entries),
                None => (ScopeState::Live, Vec::new(), Vec::new()),
            };
            let fold = Fold::of(&run.by.namespace, &run.by.keys, &scope, &entries)?;
            let is_own = |id: &Uuid| !copied.contains(id);
            let own = entries.iter().rfind(|entry| is_own(&entry.entry_id)).map(|entry| entry.state);
            let missing = missing.get(&scope);
            let is_held = missing.is_some_and(|missing| missing.destroys)
                && fold.holds_at(now()).iter().any(|hold| is_own(&hold.id));
            let state = match missing {
                _ if is_held || own == Some(ScopeState::Shredded) => fold.state,
                Some(missing) => missing.state,
                None => fold.state,
            };
            let named = fold.destroyed.iter().map(|key| key.key_id);
            let named: HashSet<KeyId> = named.chain(missing.iter().flat_map(|missing| missing.keys.clone())).collect();
            let is_other = |key: &KeyInfo| key.shredded_at.is_none() && !named.contains(&key.key_id);
            let is_undecided = !is_held && state == ScopeState::Shredded && keys.iter().any(is_other);
            let state = if is_undecided { as_it_is } else { state };
            planned.push(PlannedScope { scope, state, is_held, is_undecided });
        }
        Ok(planned)
    }

    /// Compares the chain of the table with the copy.
    async fn table_log(&self, connection: &mut Tx, checked: &CheckedCopy) -> Result<TableLog> {
        let mut log = TableLog::default();
        let mut after = 0;
        loop {
            let page = self.store.log_entries(connection, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(log) };
            after = last.row.seq;
            for sealed in page {
                let same = checked.hashes.get(log.common) == Some(&sealed.row.hash);
                if same && sealed.row.seq == log.common as u64 + 1 && log.rows == log.common {
                    log.common += 1;
                }
                log.rows += 1;
                log.ids.insert(sealed.entry.entry_id);
            }
        }
    }

    /// Puts in the entries that the log does not have.
    async fn append_missing(&self, connection: &mut Tx, run: &mut Run<'_>) -> Result<()> {
        let (total, mut forked) = (run.checked.end().0, run.done.forked);
        let copied: HashSet<Uuid> = run.checked.ids.iter().copied().collect();
        let mut skipped: BTreeSet<KeyScope> = BTreeSet::new();
        if forked {
            self.begin_fork(connection, run).await?;
        }
        let mut lines = Lines::new(run.table.common as u64);
        loop {
            let batch = lines.next(run.copy, run.checked, run.options.batch).await?;
            if batch.is_empty() {
                break;
            }
            let mut work = Append::new(run.by, &batch, &copied, &skipped, forked);
            self.store.in_transaction(connection, REPLAYING, &mut work).await?;
            if work.conflict {
                // A scope went on in another way since the restore, though the chain did not.
                forked = true;
                self.begin_fork(connection, run).await?;
                work = Append::new(run.by, &batch, &copied, &skipped, forked);
                self.store.in_transaction(connection, REPLAYING, &mut work).await?;
            }
            run.done.missing += work.missing;
            skipped.extend(work.held);
            (run.progress)(LogProgress { total, done: lines.after });
        }
        run.done.forked = forked;
        run.done.held = skipped.into_iter().collect();
        self.seal_log(connection).await.map(drop)
    }

    /// Notes that the log went on without the copy, before the first entry of the copy gets a new number.
    async fn begin_fork(&self, connection: &mut Tx, run: &mut Run<'_>) -> Result<()> {
        let reason = beginning(run.checked.end());
        let begins = reason.as_str();
        let is_said = |entry: &LogEntry| is_note(entry) && entry.about.is_none() && entry.reason == begins;
        run.fork = self.note(connection, run.by, &reason, None, is_said).await?;
        self.seal_log(connection).await.map(drop)
    }

    /// Notes that the log has every entry of the copy. It does not if scopes are held.
    async fn end_fork(&self, connection: &mut Tx, run: &Run<'_>) -> Result<()> {
        let chain = self.look_at_chain(connection, run.by, &HashSet::new(), &mut |_| {}, &mut |_| {}).await?;
        match (has_all(&chain.ids, run.checked), run.done.held.is_empty(), run.fork) {
            (true, true, Some(begun)) => {
                let is_said = |entry: &LogEntry| is_note(entry) && entry.about == Some(begun);
                self.note(connection, run.by, &ending(run.checked.end()), Some(begun), is_said).await?;
                self.seal_log(connection).await.map(drop)
            }
            (_, false, _) => Ok(()),
            _ => Err(no_effect(REPLAYING, "shred_log, shred_log_head or shred_entries")),
        }
    }

    /// Records a note about the fork, once. Returns the entry that says it.
    async fn note(
        &self,
        connection: &mut Tx,
        by: &LogSealer,
        reason: &str,
        about: Option<Uuid>,
        is_said: impl Fn(&LogEntry) -> bool + Send + Sync,
    ) -> Result<Option<Uuid>> {
        let (action, cause) = (ScopeAction::Fork, Cause::of(reason));
        let mut note = Note { by, action, cause, about, is_said, said: None };
        self.store.in_transaction(connection, REPLAYING, &mut note).await?;
        Ok(note.said)
    }

    /// Brings every scope that has entries to what they come to.
    async fn repair(&self, connection: &mut Tx, run: &mut Run<'_>) -> Result<()> {
        let (mut after, mut seen) = (0, HashSet::new());
        loop {
            let page = self.store.log_entries(connection, after, run.options.batch.max(1)).await?;
            let Some(last) = page.last() else { break };
            after = last.row.seq;
            let mut scopes: Vec<KeyScope> = page.into_iter().map(|sealed| sealed.entry.scope).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes.retain(|scope| !scope.is_reserved() && seen.insert(scope.clone()));
            if scopes.is_empty() {
                continue;
            }
            let mut work = Repair::new(run.by, scopes);
            self.store.in_transaction(connection, REPLAYING, &mut work).await?;
            run.done.disagreed += work.repaired;
            run.done.destroyed += work.destroyed;
            run.done.tombstones += work.tombstones;
            run.done.undecided.extend(work.undecided);
        }
        run.done.undecided.sort_unstable();
        Ok(())
    }
}

/// What the missing entries of a scope say.
struct Missing {
    /// The state after the last of them.
    state: ScopeState,
    /// Does one of them destroy keys?
    destroys: bool,
    /// The keys that they destroy.
    keys: HashSet<KeyId>,
}

/// The chain of the key table, beside a copy.
#[derive(Default)]
struct TableLog {
    /// How many rows it has in common with the copy, from the first on.
    common: usize,
    rows: usize,
    ids: HashSet<Uuid>,
}

impl TableLog {
    fn forked(&self, copy: &CheckedCopy) -> bool {
        self.common < self.rows && self.common < copy.hashes.len()
    }
}

struct Run<'a> {
    by: &'a LogSealer,
    copy: &'a dyn ShredLogCopy,
    checked: &'a CheckedCopy,
    table: TableLog,
    options: &'a ReplayOptions,
    progress: &'a mut (dyn FnMut(LogProgress) + Send),
    /// The entry that notes the beginning of a replay into a fork.
    fork: Option<Uuid>,
    done: Replayed,
}

impl Run<'_> {
    /// Counts the entries that the log does not have, and returns what they say of their scopes.
    async fn count(&mut self) -> Result<BTreeMap<KeyScope, Missing>> {
        let (mut lines, mut scopes) = (Lines::new(0), BTreeMap::new());
        loop {
            let batch = lines.next(self.copy, self.checked, PAGE).await?;
            if batch.is_empty() {
                return Ok(scopes);
            }
            let entries = batch.into_iter().map(|sealed| sealed.entry);
            for entry in entries.filter(|entry| !self.table.ids.contains(&entry.entry_id)) {
                self.done.missing += 1;
                let destroys = entry.action == ScopeAction::Shred || !entry.keys.is_empty();
                let none = Missing { state: entry.state, destroys, keys: HashSet::new() };
                let of_scope = scopes.entry(entry.scope).or_insert(none);
                (of_scope.state, of_scope.destroys) = (entry.state, of_scope.destroys || destroys);
                of_scope.keys.extend(entry.keys.iter().map(|key| key.key_id));
            }
        }
    }
}

fn is_note(entry: &LogEntry) -> bool {
    entry.action == ScopeAction::Fork
}

/// Reads the entries of a copy in order, each once.
pub(super) struct Lines {
    line: u64,
    /// The number of the last entry that was read, or is not wanted.
    after: u64,
}

impl Lines {
    pub(super) fn new(after: u64) -> Self {
        Self { line: 0, after }
    }

    pub(super) async fn next(
        &mut self,
        copy: &dyn ShredLogCopy,
        checked: &CheckedCopy,
        limit: u32,
    ) -> Result<Vec<SealedEntry>> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let page = copy.lines(self.line, limit.max(1)).await.map_err(failed(copy, UNREADABLE))?;
            if page.is_empty() {
                break;
            }
            for text in page {
                self.line += 1;
                let entry =
                    checked.entry(self.after, &text).map_err(|problem| wrong(copy, Some(self.line), problem))?;
                if let Some(sealed) = entry {
                    self.after = sealed.row.seq;
                    batch.push(sealed);
                }
            }
        }
        Ok(batch)
    }
}
