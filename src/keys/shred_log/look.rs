//! A look at the shred log as it is: its chain from the beginning on, and what copies are to it. Nothing is changed.

use super::chain::ChainCheck;
use super::copy::ShredLogCopy;
use super::forks::{Forks, beginning, has_all};
use super::replay::Lines;
use super::several::longest;
use super::verify::{CheckedCopy, CopyReport, CopyState, LogFinding};
use super::{LogProgress, PAGE};
use crate::error::{Error, KeyFault, Result};
use crate::keys::log::Digest;
use crate::keys::manager::KeyManager;
use crate::keys::names::KeyScope;
use crate::keys::seal_log::LogSealer;
use crate::keys::{KeyStore, KeyTable, LogEntry, LogRow};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Gets what is wrong with the log.
pub(crate) type Found<'f> = &'f mut (dyn FnMut(LogFinding) + Send);

/// The chain of the key table, as it was read.
pub(crate) struct Chain {
    /// The number and the hash of the last row.
    pub(crate) end: (u64, Digest),
    /// How many entries have no MAC.
    pub(crate) carried: u64,
    /// Are there entries that the chain does not have?
    pub(crate) unsealed: bool,
    /// The rows of the entries that were asked for.
    pub(crate) rows: HashMap<Uuid, LogRow>,
    /// The ids of all entries that are authentic.
    pub(super) ids: HashSet<Uuid>,
    /// The hashes of all rows, in order.
    hashes: Vec<Digest>,
    /// What authentic entries say of replays.
    forks: Forks,
}

/// Copies that were read and checked, each by itself.
pub(crate) struct CheckedCopies<'c> {
    /// Those that are whole, in the order in which they were given.
    whole: Vec<(&'c dyn ShredLogCopy, CheckedCopy)>,
    /// What is wrong with the others.
    wrong: Vec<LogFinding>,
}

/// A copy that was looked at.
pub(crate) struct LookedCopy<'c> {
    copy: &'c dyn ShredLogCopy,
    checked: CheckedCopy,
    pub(crate) report: CopyReport,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Reads the chain from its first row to its last, and checks each row with its entry. It keeps the rows of the
    /// entries that are `wanted`.
    pub(crate) async fn look_at_chain(
        &self,
        connection: &mut Tx,
        by: &LogSealer,
        wanted: &HashSet<Uuid>,
        found: Found<'_>,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<Chain> {
        let mut check = ChainCheck::new(&by.namespace, &by.keys);
        let (mut hashes, mut rows): (Vec<Digest>, _) = (Vec::new(), HashMap::new());
        let (mut ids, mut forks) = (HashSet::new(), Forks::default());
        let head = loop {
            let page = self.store.log_entries(connection, check.end.0, PAGE).await?;
            for sealed in &page {
                if let Some(problem) = check.next(sealed) {
                    let (seq, scope) = (sealed.row.seq, sealed.entry.scope.clone());
                    found(LogFinding::Entry { seq, scope, problem });
                } else {
                    ids.insert(sealed.entry.entry_id);
                    forks.add(&sealed.entry);
                }
                hashes.push(sealed.row.hash);
                if wanted.contains(&sealed.entry.entry_id) {
                    rows.insert(sealed.entry.entry_id, sealed.row);
                }
            }
            let head = self.store.log_head(connection).await?;
            progress(LogProgress { total: head.seq, done: check.end.0 });
            if !page.is_empty() {
                continue;
            }
            // Others may have sealed between the two looks.
            if (head.seq, head.hash) == check.end {
                break head;
            }
            if self.store.log_entries(connection, check.end.0, 1).await?.is_empty() {
                found(LogFinding::CutOff { seq: check.end.0, end: head.seq });
                break head;
            }
        };
        let (end, carried) = (check.end, check.carried);
        Ok(Chain { end, carried, unsealed: head.unsealed, rows, ids, hashes, forks })
    }

    /// Reads and checks copies, each by itself. Those that are no copies of this log, or were altered, are left out.
    ///
    /// Copies are read before the chain that they are [compared](Chain::compare) with: others may decide and export
    /// meanwhile, and a copy must not seem to have what the log lacks.
    pub(crate) async fn check_copies<'c>(
        &self,
        connection: &mut Tx,
        by: &LogSealer,
        copies: &[&'c dyn ShredLogCopy],
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<CheckedCopies<'c>> {
        let (mut whole, mut wrong) = (Vec::with_capacity(copies.len()), Vec::new());
        // A copy has about as many lines as the log has entries.
        let entries = if copies.is_empty() { 0 } else { self.store.log_head(connection).await?.seq };
        for copy in copies {
            let mut tell = |done: u64| progress(LogProgress { total: entries.max(done), done });
            match self.verify_copy(*copy, &by.namespace, &by.keys, &mut tell).await {
                Ok(checked) => whole.push((*copy, checked)),
                Err(error @ Error::Keys(KeyFault::LogCopy { source: None, .. })) => {
                    wrong.push(LogFinding::Copy { problem: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(CheckedCopies { whole, wrong })
    }
}

impl Chain {
    /// Compares copies with one another and with the chain. A replay that has not come to its end is found without its
    /// copy too.
    pub(crate) fn compare<'c>(&self, copies: CheckedCopies<'c>, found: Found<'_>) -> Vec<LookedCopy<'c>> {
        let sound = copies.whole;
        copies.wrong.into_iter().for_each(&mut *found);
        if let Err(error) = longest(&sound) {
            found(LogFinding::Copy { problem: error.to_string() });
        }
        let ends: HashSet<String> = sound.iter().map(|(_, checked)| beginning(checked.end())).collect();
        for begun in self.forks.unfinished().filter(|begun| !ends.contains(*begun)) {
            let problem = format!("{begun}, and has not come to its end: replay that copy again");
            found(LogFinding::Copy { problem });
        }
        let mut looked = Vec::with_capacity(sound.len());
        for (copy, checked) in sound {
            let state = self.state_of(&checked);
            let problem = match (state, self.forks.has_ended(checked.end())) {
                (CopyState::Ahead, _) => Some("has entries that the log does not have: replay it"),
                (CopyState::Forked, None) => Some("and the log went on in two ways: replay the copy"),
                (CopyState::Forked, Some(_)) => Some(
                    "was not replayed to its end: replay it again, after you released the holds that kept scopes from \
                     it, if there are any",
                ),
                _ => None,
            };
            if let Some(problem) = problem {
                found(LogFinding::Copy { problem: format!("the copy {} {problem}", copy.name()) });
            }
            let (name, (seq, hash)) = (copy.name(), checked.end());
            looked.push(LookedCopy { copy, checked, report: CopyReport { name, seq, hash, state } });
        }
        looked
    }

    /// What a copy is to this chain.
    pub(super) fn state_of(&self, copy: &CheckedCopy) -> CopyState {
        if copy.lines == 0 {
            return CopyState::Empty;
        }
        let common = copy.hashes.iter().zip(&self.hashes).take_while(|(copy, log)| copy == log).count();
        if common < copy.hashes.len() && common < self.hashes.len() {
            // Whatever a note says: it is the entries that keep shredded what was shredded.
            let is_whole = has_all(&self.ids, copy) && self.forks.has_ended(copy.end()) != Some(false);
            return if is_whole { CopyState::Replayed } else { CopyState::Forked };
        }
        match copy.hashes.len().cmp(&self.hashes.len()) {
            std::cmp::Ordering::Less => CopyState::Behind,
            std::cmp::Ordering::Equal => CopyState::Complete,
            std::cmp::Ordering::Greater => CopyState::Ahead,
        }
    }
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Of each of these scopes, the first entry that a copy has and that is not among those that are known of it.
    pub(crate) async fn only_in_copy(
        &self,
        LookedCopy { copy, checked, .. }: &LookedCopy<'_>,
        known: &HashMap<KeyScope, HashSet<Uuid>>,
    ) -> Result<HashMap<KeyScope, LogEntry>> {
        let (mut lines, mut found) = (Lines::new(0), HashMap::new());
        loop {
            let batch = lines.next(*copy, checked, PAGE).await?;
            if batch.is_empty() {
                return Ok(found);
            }
            for entry in batch.into_iter().map(|sealed| sealed.entry) {
                if known.get(&entry.scope).is_some_and(|known| !known.contains(&entry.entry_id)) {
                    found.entry(entry.scope.clone()).or_insert(entry);
                }
            }
        }
    }
}

impl LookedCopy<'_> {
    /// Does the copy have this very row, and with it its entry and everything before it?
    pub(crate) fn has(&self, row: &LogRow) -> bool {
        let index = row.seq.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.checked.hashes.get(index)) == Some(&row.hash)
    }
}
