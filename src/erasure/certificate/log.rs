//! What the chain of the shred log, and copies of it, say about the entries of a scope.

use super::{CertificateProgress, LogStanding};
use crate::error::{Error, KeyFault, Result};
use crate::keys::log::{Digest, digest, problem_of_row};
use crate::keys::names::{KeyScope, Namespace};
use crate::keys::seal_log::LogSealer;
use crate::keys::shred_log::{Chain, CopyReport, CopyState, LogFinding, LookedCopy, ShredLogCopy};
use crate::keys::{KeyHistory, KeyManager, KeyTable, LogEntry, LogRow};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What was seen of the chain and of the copies.
pub(super) struct Log {
    /// The number and the hash of the chain's last row.
    pub(super) end: (u64, Digest),
    /// How much is wrong with the chain, and what was found first.
    pub(super) wrong: u64,
    pub(super) first: Option<String>,
    /// How many copies were given.
    pub(super) given: usize,
    /// What those hold that could be checked.
    pub(super) copies: Vec<CopyReport>,
    /// Why the copies prove nothing.
    pub(super) copy_problems: Vec<String>,
    /// An entry of the scope that the named copy has and the log does not have.
    pub(super) only_in_copy: Option<(String, LogEntry)>,
    /// Are there entries that the chain does not have?
    unsealed: bool,
    /// The rows of the scope's entries, and what is wrong with each.
    rows: HashMap<Uuid, (LogRow, Option<&'static str>)>,
    in_copy: HashSet<Uuid>,
}

/// Gives all entries their numbers, as far as that is possible. Returns what is wrong with an entry that got none.
///
/// An entry without a number is certified as that. So a reader of a standby, or somebody who may not write, gets a
/// certificate too.
pub(super) async fn seal<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized>(
    manager: &KeyManager<Tx, K>,
    connection: &mut Tx,
) -> Result<Option<LogFinding>> {
    if manager.store.is_in_transaction(connection) {
        return Ok(None);
    }
    match manager.seal_log(connection).await {
        Ok(_) => Ok(None),
        Err(Error::Keys(KeyFault::LogAltered { scope, entry, problem })) => {
            Ok(Some(LogFinding::Unsealed { scope, entry, problem }))
        }
        Err(error) if error.is_retryable() && !error.is_read_only() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the shred log was not sealed");
            Ok(None)
        }
    }
}

/// A look at the chain and the copies, which certificates of several scopes share.
pub(super) struct Look<'c> {
    by: LogSealer,
    chain: Chain,
    wrong: u64,
    first: Option<String>,
    given: usize,
    copies: Vec<LookedCopy<'c>>,
    copy_problems: Vec<String>,
    only_in_copy: HashMap<KeyScope, (String, LogEntry)>,
}

impl<'c> Look<'c> {
    /// Reads and checks the chain and the copies. `fault` is what sealing found.
    pub(super) async fn at<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized>(
        manager: &KeyManager<Tx, K>,
        connection: &mut Tx,
        known: &HashMap<KeyScope, HashSet<Uuid>>,
        copies: &[&'c dyn ShredLogCopy],
        fault: Option<LogFinding>,
        progress: &mut (dyn FnMut(CertificateProgress) + Send),
    ) -> Result<Self> {
        let by = manager.log_sealer(connection).await?;
        let (mut wrong, mut first, mut copy_problems) = (0, None, Vec::new());
        let mut found = |finding: LogFinding| {
            wrong += 1;
            first.get_or_insert_with(|| finding.to_string());
        };
        fault.into_iter().for_each(&mut found);
        let wanted: HashSet<Uuid> = known.values().flatten().copied().collect();
        let mut tell = |copy| progress(CertificateProgress::Copy(copy));
        let given = copies.len();
        let copies = manager.check_copies(connection, &by, copies, &mut tell).await?;
        let mut tell = |log| progress(CertificateProgress::Log(log));
        let chain = manager.look_at_chain(connection, &by, &wanted, &mut found, &mut tell).await?;
        let mut found = |finding: LogFinding| copy_problems.push(finding.to_string());
        let looked = chain.compare(copies, &mut found);
        let mut only_in_copy = HashMap::new();
        for copy in &looked {
            let name = &copy.report.name;
            match copy.report.state {
                CopyState::Ahead | CopyState::Forked => {
                    for (scope, entry) in manager.only_in_copy(copy, known).await? {
                        only_in_copy.entry(scope).or_insert((name.clone(), entry));
                    }
                }
                CopyState::Replayed => {
                    let problem = "was replayed, and the log went on in another way: begin a new one";
                    copy_problems.push(format!("the copy {name} {problem}"));
                }
                _ => {}
            }
        }
        Ok(Self { by, chain, wrong, first, given, copies: looked, copy_problems, only_in_copy })
    }

    /// What it found about a scope.
    pub(super) fn of(&self, history: &KeyHistory) -> Log {
        let digests = digests(&self.by.namespace, &history.entries);
        let rows = history.entries.iter().zip(&digests).filter_map(|(entry, digest)| {
            let row = *self.chain.rows.get(&entry.entry_id)?;
            // The links between rows are the chain's; this is about the entry.
            let end = (row.seq.saturating_sub(1), row.previous_hash);
            let problem = problem_of_row(&self.by.namespace, &self.by.keys, &row, end, digest);
            Some((entry.entry_id, (row, problem)))
        });
        let rows: HashMap<_, _> = rows.collect();
        let is_in_copy = |row: &LogRow| self.copies.iter().any(|copy| copy.has(row));
        let in_copy = rows.iter().filter(|(_, (row, problem))| problem.is_none() && is_in_copy(row));
        Log {
            end: self.chain.end,
            wrong: self.wrong,
            first: self.first.clone(),
            given: self.given,
            copies: self.copies.iter().map(|copy| copy.report.clone()).collect(),
            copy_problems: self.copy_problems.clone(),
            only_in_copy: self.only_in_copy.get(&history.scope).cloned(),
            unsealed: self.chain.unsealed,
            in_copy: in_copy.map(|(entry_id, _)| *entry_id).collect(),
            rows,
        }
    }
}

impl Log {
    /// Is nothing wrong with the chain, nor with any copy?
    pub(super) fn is_sound(&self) -> bool {
        self.wrong == 0 && self.copy_problems.is_empty()
    }

    pub(super) fn standing(&self, entry_id: Uuid) -> LogStanding {
        match self.rows.get(&entry_id) {
            None => LogStanding::Unsealed,
            Some((row, Some(_))) => LogStanding::Altered { seq: row.seq },
            Some((row, None)) if self.in_copy.contains(&entry_id) => {
                LogStanding::InCopy { seq: row.seq, hash: row.hash }
            }
            Some((row, None)) => LogStanding::Sealed { seq: row.seq, hash: row.hash },
        }
    }

    /// How the chain contradicts an entry.
    pub(super) fn contradicts(&self, entry: &LogEntry) -> Option<String> {
        let number = entry.scope_seq;
        match self.rows.get(&entry.entry_id) {
            Some((row, problem)) => problem.map(|problem| {
                format!("Entry {number} of the scope is number {} of the chain, and that row {problem}.", row.seq)
            }),
            None if self.unsealed => None,
            None => Some(format!(
                "Entry {number} of the scope is not in the chain, which lacks no entry: it was taken out."
            )),
        }
    }
}

/// The digests of the entries of a scope.
pub(super) fn digests(namespace: &Namespace, entries: &[LogEntry]) -> Vec<Digest> {
    let mut last = None;
    let digests = entries.iter().map(|entry| {
        let digest = digest(namespace, entry, last.as_ref());
        last = Some(digest);
        digest
    });
    digests.collect()
}
