//! Required copies of the shred log: nothing is opened or sealed while the key table does not agree with them.
//!
//! Most checks are short. They compare ends: that of each copy with the log, and that of the log with the end that the
//! last check found. Then they compare the entries in between with the keys. The first check, and one after each longer
//! period, compares all entries with the keys.

use super::PAGE;
use super::copy::{ShredLogCopy, UNREADABLE, failed, wrong};
use super::export::{compare_end, empty, forks_in, last_line, not_ended};
use super::lines::{Digest, Stamp, parse};
use crate::error::{Error, KeyFault, Result};
use crate::keys::manager::lock;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyTable, LogHead, ScopeAction, ScopeLock, ScopeRecord, ScopeState, SealedEntry};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many periods short checks follow a whole one, if nothing else is set.
const WHOLE: u32 = 10;
/// How many new entries a short check compares. With more it is a whole one.
const SHORT: u64 = PAGE as u64 - 1;

/// Compares a key table with the required copies of its shred log.
#[async_trait]
pub(crate) trait LogGate<Tx>: Send + Sync {
    /// Requires one more copy. The shortest of the periods holds.
    fn require(&mut self, copy: Arc<dyn ShredLogCopy>, period: Duration);

    /// Sets how long short checks follow a whole one.
    fn set_whole_period(&mut self, period: Duration);

    /// Has a check to be done now?
    fn is_due(&self) -> bool;

    /// Looks at the ends of the copies. The key table is read afterwards: a copy never has an entry that the table does
    /// not have yet.
    async fn ends(&self) -> Result<Ends>;

    /// Compares the key table with the ends of the copies. What was found is kept for other calls only if it
    /// `is_newest`: a transaction with an old snapshot does not see a restore.
    async fn check(&self, tx: &mut Tx, ends: Ends, is_newest: bool) -> Result<()>;

    /// Makes the next check due, and a whole one.
    fn forget(&self);
}

/// The copies that a key manager requires.
pub(crate) struct Required<K: ?Sized> {
    table: Arc<K>,
    copies: Vec<Arc<dyn ShredLogCopy>>,
    period: Duration,
    /// Ten periods if it is not set.
    whole_period: Option<Duration>,
    known: Mutex<Known>,
}

/// What a check compares the key table with.
pub(crate) struct Ends {
    began: Instant,
    /// What was known then.
    known: Known,
    /// What the last line of each copy says.
    copies: Vec<Stamp>,
}

/// What the checks that found nothing have left.
#[derive(Clone, Copy, Default)]
struct Known {
    /// When the last one began.
    checked: Option<Instant>,
    /// The end of the log that it found.
    end: Option<(u64, Digest)>,
    /// When the last whole one began.
    was_whole: Option<Instant>,
}

impl<K: ?Sized> Required<K> {
    pub(crate) fn new(table: Arc<K>) -> Self {
        let known = Mutex::new(Known::default());
        Self { table, copies: Vec::new(), period: Duration::MAX, whole_period: None, known }
    }
}

#[async_trait]
impl<K: KeyTable + ?Sized> LogGate<K::Tx> for Required<K> {
    fn require(&mut self, copy: Arc<dyn ShredLogCopy>, period: Duration) {
        self.copies.push(copy);
        self.period = self.period.min(period);
    }

    fn set_whole_period(&mut self, period: Duration) {
        self.whole_period = Some(period);
    }

    async fn ends(&self) -> Result<Ends> {
        let (began, known) = (Instant::now(), *lock(&self.known));
        let mut copies = Vec::with_capacity(self.copies.len());
        for copy in &self.copies {
            copies.push(end_of(&**copy).await?);
        }
        Ok(Ends { began, known, copies })
    }

    async fn check(&self, tx: &mut K::Tx, ends: Ends, is_newest: bool) -> Result<()> {
        let Ends { began, known, copies } = ends;
        let (end, was_whole) = self.compare(tx, &copies, &known).await?;
        if !is_newest {
            return Ok(());
        }
        let mut now = lock(&self.known);
        // Another check may have come further meanwhile.
        if now.end.is_none_or(|(seq, _)| seq <= end.0) {
            now.end = Some(end);
        }
        if was_whole {
            now.was_whole = Some(began);
        }
        now.checked = Some(began);
        Ok(())
    }

    fn is_due(&self) -> bool {
        lock(&self.known).checked.is_none_or(|checked| checked.elapsed() >= self.period)
    }

    fn forget(&self) {
        *lock(&self.known) = Known::default();
    }
}

impl<K: KeyTable + ?Sized> Required<K> {
    /// Compares, and returns the end of the log and whether all entries were compared.
    async fn compare(&self, tx: &mut K::Tx, ends: &[Stamp], known: &Known) -> Result<((u64, Digest), bool)> {
        let head = self.table.log_head(tx).await?;
        for (copy, end) in self.copies.iter().zip(ends) {
            if let Some(problem) = compare_end(&*self.table, tx, end, &head).await? {
                return Err(problem.into_error(&**copy));
            }
        }
        let from = known.end.unwrap_or_else(|| (head.seq.saturating_sub(1), [0; 32]));
        let new = self.entries_since(tx, from, known.end.is_some(), &head).await?;
        let whole_period = self.whole_period.unwrap_or(self.period.saturating_mul(WHOLE));
        let is_short = known.was_whole.is_some_and(|whole| whole.elapsed() < whole_period)
            && known.end.is_some()
            && head.seq.saturating_sub(from.0) <= SHORT;
        if !is_short || new.iter().any(|sealed| sealed.entry.action == ScopeAction::Fork) {
            let forks = forks_in(&*self.table, tx).await?;
            if let Some(begun) = forks.unfinished().next() {
                return Err(self.behind(not_ended(begun)));
            }
        }
        // A change that has no number yet, or is committed between two statements, looks like a disagreement. One
        // statement compares all.
        if is_short && self.agrees(tx, &new).await? {
            return Ok(((head.seq, head.hash), false));
        }
        match self.table.log_disagreements(tx, 1).await?.pop() {
            Some(disagreement) => Err(self.behind(disagreement.to_string())),
            None => Ok(((head.seq, head.hash), true)),
        }
    }

    /// The entries after the end that was known, up to a page of them, after a look at the rows at both ends: the log
    /// only grows.
    async fn entries_since(
        &self,
        tx: &mut K::Tx,
        from: (u64, Digest),
        is_known: bool,
        head: &LogHead,
    ) -> Result<Vec<SealedEntry>> {
        if head.seq < from.0 {
            return Err(self.behind(format!(
                "the log ends at entry {}, and ended at entry {} when this process looked last, so it was restored; if \
                 no copy has the entries in between, replay what there is, and start this process again",
                head.seq, from.0
            )));
        }
        let mut entries = self.table.log_entries(tx, from.0.saturating_sub(1), PAGE).await?;
        if is_known && from.0 > 0 {
            let is_there = entries.first().is_some_and(|first| (first.row.seq, first.row.hash) == from);
            if !is_there {
                return Err(self.behind(format!(
                    "entry {} of the log is another one than when this process looked last, so it was restored; \
                     replay the copy, and start this process again",
                    from.0
                )));
            }
        }
        let is_last_page = entries.len() < PAGE as usize;
        entries.retain(|sealed| sealed.row.seq > from.0);
        let mut end = from;
        for sealed in &entries {
            let row = &sealed.row;
            let follows = row.previous_hash == end.1 || (!is_known && end.0 == from.0);
            if row.seq != end.0 + 1 || !follows {
                return Err(self.behind(format!("entry {} of the log does not follow from the row before", row.seq)));
            }
            end = (row.seq, row.hash);
            if row.seq == head.seq && row.hash != head.hash {
                return Err(self.behind(format!("the log's own end is not that of its entry {}", head.seq)));
            }
        }
        if end.0 < head.seq && is_last_page {
            let end = end.0;
            return Err(self.behind(format!("the log ends at entry {end}, and its own end says {}", head.seq)));
        }
        Ok(entries)
    }

    /// Are the keys that these entries destroyed tombstones, and their scopes in the state that the last of them says?
    async fn agrees(&self, tx: &mut K::Tx, new: &[SealedEntry]) -> Result<bool> {
        let destroyed: HashSet<KeyId> =
            new.iter().flat_map(|sealed| &sealed.entry.keys).map(|key| key.key_id).collect();
        if !destroyed.is_empty() {
            let destroyed: Vec<KeyId> = destroyed.into_iter().collect();
            let rows = self.table.data_keys(tx, &destroyed).await?;
            if rows.len() != destroyed.len() || rows.iter().any(|row| row.wrapped_key.is_some()) {
                return Ok(false);
            }
        }
        let mut last: BTreeMap<&KeyScope, (ScopeState, u32)> = BTreeMap::new();
        for SealedEntry { entry, .. } in new.iter().filter(|sealed| !sealed.entry.scope.is_reserved()) {
            last.insert(&entry.scope, (entry.state, entry.generation));
        }
        let scopes: Vec<KeyScope> = last.keys().map(|scope| (*scope).clone()).collect();
        if scopes.is_empty() {
            return Ok(true);
        }
        let rows = self.table.scopes(tx, &scopes, ScopeLock::None).await?;
        let agree = |row: &ScopeRecord| last.get(&row.scope) == Some(&(row.state, row.generation));
        Ok(rows.len() == scopes.len() && rows.iter().all(agree))
    }

    fn behind(&self, problem: String) -> Error {
        let names: Vec<String> = self.copies.iter().map(ShredLogCopy::name).collect();
        Error::Keys(KeyFault::ShredLogBehind { copy: names.join(" "), problem })
    }
}

/// What the last line of a copy says.
async fn end_of(copy: &dyn ShredLogCopy) -> Result<Stamp> {
    let last = copy.last().await.map_err(failed(copy, UNREADABLE))?;
    let last = last.ok_or_else(|| wrong(copy, None, empty(copy)))?;
    let line = parse(&last).map_err(|problem| wrong(copy, None, last_line(&problem)))?;
    Ok(line.stamp().clone())
}
