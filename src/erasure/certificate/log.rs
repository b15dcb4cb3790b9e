//! What the chain of the shred log, and copies of it, say about the entries of a scope.

use super::LogStanding;
use crate::error::{Error, KeyFault, Result};
use crate::keys::log::{Digest, digest, problem_of_row};
use crate::keys::names::Namespace;
use crate::keys::shred_log::{CopyReport, CopyState, LogFinding, ShredLogCopy};
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
        Err(error) if error.is_retryable() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "the shred log was not sealed");
            Ok(None)
        }
    }
}

impl Log {
    /// Reads and checks the chain and the copies. `fault` is what sealing found.
    pub(super) async fn read<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized>(
        manager: &KeyManager<Tx, K>,
        connection: &mut Tx,
        history: &KeyHistory,
        copies: &[&dyn ShredLogCopy],
        fault: Option<LogFinding>,
    ) -> Result<Self> {
        let by = manager.log_sealer(connection).await?;
        let ids: HashSet<Uuid> = history.entries.iter().map(|entry| entry.entry_id).collect();
        let (mut wrong, mut first) = (0, None);
        let mut found = |finding: LogFinding| {
            wrong += 1;
            first.get_or_insert_with(|| finding.to_string());
        };
        fault.into_iter().for_each(&mut found);
        let chain = manager.look_at_chain(connection, &by, &ids, &mut found, &mut |_| {}).await?;
        let digests = digests(&by.namespace, &history.entries);
        let rows = history.entries.iter().zip(&digests).filter_map(|(entry, digest)| {
            let row = *chain.rows.get(&entry.entry_id)?;
            // The links between rows are the chain's; this is about the entry.
            let end = (row.seq.saturating_sub(1), row.previous_hash);
            let problem = problem_of_row(&by.namespace, &by.keys, &row, end, digest);
            Some((entry.entry_id, (row, problem)))
        });
        let mut log = Self {
            end: chain.end,
            wrong: 0,
            first: None,
            given: copies.len(),
            copies: Vec::new(),
            copy_problems: Vec::new(),
            only_in_copy: None,
            unsealed: chain.unsealed,
            rows: rows.collect(),
            in_copy: HashSet::new(),
        };
        (log.wrong, log.first) = (wrong, first);
        let mut found = |finding: LogFinding| log.copy_problems.push(finding.to_string());
        for looked in manager.look_at_copies(&by, copies, &chain, &mut found).await? {
            let name = looked.report.name.clone();
            match looked.report.state {
                CopyState::Ahead | CopyState::Forked => {
                    let only = manager.only_in_copy(&looked, &history.scope, &ids).await?;
                    log.only_in_copy = log.only_in_copy.or(only.map(|entry| (name, entry)));
                }
                CopyState::Replayed => {
                    let problem = "was replayed, and the log went on in another way: begin a new one";
                    log.copy_problems.push(format!("the copy {name} {problem}"));
                }
                _ => {}
            }
            let there = log.rows.iter().filter(|(_, (row, problem))| problem.is_none() && looked.has(row));
            log.in_copy.extend(there.map(|(entry_id, _)| *entry_id));
            log.copies.push(looked.report);
        }
        Ok(log)
    }

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
