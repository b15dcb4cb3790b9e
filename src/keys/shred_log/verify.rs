//! The check of the whole shred log: its chain, its entries, the rows that it speaks of, and a copy.

use super::chain::ChainCheck;
use super::copy::{ShredLogCopy, UNREADABLE, failed, wrong};
use super::lines::{CopiedKeys, Line, parse};
use super::{LogProgress, PAGE};
use crate::crypto::primitives::{DataKey, Transcript};
use crate::crypto::wrap::{BoundKey, unwrap_key};
use crate::error::{Error, KeyFault, KmsFault, Result};
use crate::keys::log::{Digest, LogKeys};
use crate::keys::manager::KeyManager;
use crate::keys::names::{KeyScope, Namespace};
use crate::keys::{KeyStore, KeyTable, LogDisagreement, SealedEntry};
use crate::telemetry;
use std::collections::HashSet;
use std::fmt;
use uuid::Uuid;

/// How many lines a short copy may have more than once. A long one may have half of them.
const MAX_REPEATS: usize = 1_000;
/// How many findings a report lists.
const LISTED: usize = 100;

/// The report of [`KeyManager::verify_log`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// The number of the last entry of the chain.
    pub seq: u64,
    /// The hash of its row.
    pub hash: [u8; 32],
    /// How many entries have no MAC, because they were recorded before there was a log. They were
    /// [adopted](KeyManager::adopt_entries).
    pub carried: u64,
    /// What each copy holds that was given and could be checked.
    pub copies: Vec<CopyReport>,
    /// How many things are wrong.
    pub count: u64,
    /// The first of them.
    pub findings: Vec<LogFinding>,
}

impl LogReport {
    /// Is everything as it was written?
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, finding: LogFinding) {
        self.count += 1;
        if self.findings.len() < LISTED {
            self.findings.push(finding);
        }
    }
}

/// A copy of the shred log that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The copy, as it names itself.
    pub name: String,
    /// The number of its last entry.
    pub seq: u64,
    /// The hash of its last entry's row.
    pub hash: [u8; 32],
    /// What it is to the log.
    pub state: CopyState,
}

/// What a copy is to the shred log of the key table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyState {
    /// It holds nothing.
    Empty,
    /// It holds every entry that the chain has.
    Complete,
    /// The log has gone on since the last export.
    Behind,
    /// The copy has entries that the log does not have: replay it.
    Ahead,
    /// The copy and the log went on in two ways: replay the copy.
    Forked,
    /// The same, and the copy was replayed to its end: the log has every entry of the copy. Begin a new one.
    Replayed,
}

impl CopyState {
    /// The word for it, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Complete => "complete",
            Self::Behind => "behind",
            Self::Ahead => "ahead",
            Self::Forked => "forked",
            Self::Replayed => "replayed",
        }
    }
}

/// Something that is wrong with the shred log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFinding {
    /// An entry of the chain is not what was written.
    Entry {
        /// Its number in the chain.
        seq: u64,
        /// The scope that it is about.
        scope: KeyScope,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry that the chain does not have is not what was written.
    Unsealed {
        /// The scope that it is about.
        scope: KeyScope,
        /// Its number among those of the scope.
        entry: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// The chain ends before its own end.
    CutOff {
        /// The last entry that was found.
        seq: u64,
        /// The end that the table names.
        end: u64,
    },
    /// The rows of a scope say something else than its entries.
    Disagreement(LogDisagreement),
    /// A copy can't be used, or was not replayed to its end.
    Copy {
        /// What is wrong with it.
        problem: String,
    },
}

impl fmt::Display for LogFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { seq, scope, problem } => write!(f, "entry {seq} of the log, about {scope}, {problem}"),
            Self::Unsealed { scope, entry, problem } => write!(f, "entry {entry} of {scope} {problem}"),
            Self::CutOff { seq, end } => {
                write!(f, "the log ends at entry {seq}, and its own end says {end}: entries were dropped")
            }
            Self::Disagreement(disagreement) => disagreement.fmt(f),
            Self::Copy { problem } => f.write_str(problem),
        }
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Checks the whole shred log, and changes nothing but that it seals entries that have no number yet.
    ///
    /// It checks that no row of the chain was altered, dropped, moved or invented; that every entry is authentic, and
    /// the next one of its scope; that every key that a shred destroyed is a tombstone, and every scope in the state
    /// that its last entry says; and of each copy that is given, that it is whole, the beginning of this log, and the
    /// beginning of the longest of the copies. What only a copy can show is that the last entries were dropped, or
    /// everything was restored.
    ///
    /// It reads all entries, on a connection that is not in a transaction. What it finds is in the report, and no
    /// error.
    ///
    /// # Errors
    /// [`KeyFault::NoActiveKek`], [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`Error::Collision`] (retryable), [`Error::Database`]; [`KeyFault::LogCopy`] if the copy can't be read; errors
    /// of the KMS.
    pub async fn verify_log(
        &self,
        connection: &mut Tx,
        copies: &[&dyn ShredLogCopy],
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<LogReport> {
        let call = telemetry::verify_log(self.known_namespace());
        call.run(|| self.verify_chain_and_copies(connection, copies, progress)).await
    }

    async fn verify_chain_and_copies(
        &self,
        connection: &mut Tx,
        copies: &[&dyn ShredLogCopy],
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<LogReport> {
        let (seq, hash, findings) = (0, [0; 32], Vec::new());
        let mut report = LogReport { seq, hash, carried: 0, copies: Vec::new(), count: 0, findings };
        let mut found = |finding| report.add(finding);
        match self.seal_log(connection).await {
            Ok(_) => {}
            Err(Error::Keys(KeyFault::LogAltered { scope, entry, problem })) => {
                found(LogFinding::Unsealed { scope, entry, problem });
            }
            Err(error) => return Err(error),
        }
        let by = self.log_sealer(connection).await?;
        let copies = self.check_copies(connection, &by, copies, &mut |_| {}).await?;
        let chain = self.look_at_chain(connection, &by, &HashSet::new(), &mut found, progress).await?;
        let limit = u32::try_from(LISTED).unwrap_or(u32::MAX);
        for disagreement in self.store.log_disagreements(connection, limit).await? {
            found(LogFinding::Disagreement(disagreement));
        }
        let copies = chain.compare(copies, &mut found);
        report.copies = copies.into_iter().map(|looked| looked.report).collect();
        (report.seq, report.hash) = chain.end;
        report.carried = chain.carried;
        Ok(report)
    }
}

/// A copy whose lines were all checked.
#[derive(Default)]
pub(super) struct CheckedCopy {
    /// The hashes of its rows, in order.
    pub(super) hashes: Vec<Digest>,
    /// The ids of its entries, in order.
    pub(super) ids: Vec<Uuid>,
    /// Digests of its lines, by number, to recognise lines that come twice, or that changed since.
    texts: Vec<[u8; 16]>,
    pub(super) lines: u64,
}

impl CheckedCopy {
    pub(super) fn end(&self) -> (u64, Digest) {
        (self.hashes.len() as u64, self.hashes.last().copied().unwrap_or_default())
    }

    /// The entry of a line, if it is the first one with its number. The line must be as it was when it was checked.
    pub(super) fn entry(&self, after: u64, text: &str) -> Result<Option<SealedEntry>, &'static str> {
        match parse(text) {
            Ok(Line::Keys(..)) => Ok(None),
            Ok(Line::Entry(stamp, _)) if stamp.seq <= after => Ok(None),
            Ok(Line::Entry(stamp, sealed)) => {
                let known = stamp.seq.checked_sub(1).and_then(|index| self.texts.get(usize::try_from(index).ok()?));
                if known == Some(&digest_of(text)) { Ok(Some(*sealed)) } else { Err("was changed meanwhile") }
            }
            Err(_) => Err("was changed meanwhile"),
        }
    }
}

/// How often lines were read again that were read before. A copy has a line twice if an answer was lost. One that never
/// ends has them for ever.
#[derive(Default)]
struct Repeats {
    lines: HashSet<[u8; 16]>,
    count: usize,
}

impl Repeats {
    fn next(&mut self, text: &str) -> Result<(), &'static str> {
        self.count += usize::from(!self.lines.insert(digest_of(text)));
        if self.count > MAX_REPEATS.max(self.lines.len()) {
            return Err("is one more that the copy has already, and most of its lines are: begin a new copy");
        }
        Ok(())
    }
}

fn digest_of(text: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&Transcript::of(&[text.as_bytes()]).as_bytes()[..16]);
    digest
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Checks every line of a copy: its namespace, its chain, and its MACs. `tell` gets how many lines are checked.
    pub(super) async fn verify_copy(
        &self,
        copy: &dyn ShredLogCopy,
        namespace: &Namespace,
        known: &LogKeys,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<CheckedCopy> {
        let keys = self.keys_for(copy, namespace, known).await?;
        let (mut checked, mut check) = (CheckedCopy::default(), ChainCheck::new(namespace, &keys));
        let mut repeats = Repeats::default();
        loop {
            let page = copy.lines(checked.lines, PAGE).await.map_err(failed(copy, UNREADABLE))?;
            if page.is_empty() {
                return Ok(checked);
            }
            for text in page {
                checked.lines += 1;
                repeats.next(&text).map_err(|problem| wrong(copy, Some(checked.lines), problem))?;
                let refused = |problem: &str| wrong(copy, Some(checked.lines), problem);
                let line = parse(&text).map_err(|problem| refused(&problem))?;
                if line.stamp().namespace != namespace.as_str() {
                    let other = &line.stamp().namespace;
                    return Err(refused(&format!("is of namespace {other:?}: use the copy of this key database")));
                }
                let (digest, stamp) = (digest_of(&text), line.stamp().clone());
                let Line::Entry(_, sealed) = line else {
                    if (stamp.seq, stamp.hash) != check.end {
                        return Err(refused("is not where it was written: a line before it is missing, or was moved"));
                    }
                    continue;
                };
                if stamp.seq <= check.end.0 {
                    let index = stamp.seq.checked_sub(1).and_then(|index| usize::try_from(index).ok());
                    if index.and_then(|index| checked.texts.get(index)) == Some(&digest) {
                        continue;
                    }
                    return Err(refused("has a number that an earlier line has, and says something else"));
                }
                if let Some(problem) = check.next(&sealed) {
                    return Err(refused(&format!("holds entry {}, which {problem}", stamp.seq)));
                }
                checked.hashes.push(sealed.row.hash);
                checked.ids.push(sealed.entry.entry_id);
                checked.texts.push(digest);
            }
            tell(checked.lines);
        }
    }

    /// The keys with which a copy is checked: those that are known, and those that the copy itself brings.
    async fn keys_for(&self, copy: &dyn ShredLogCopy, namespace: &Namespace, known: &LogKeys) -> Result<LogKeys> {
        let (mut keys, mut from, mut repeats) = (known.clone(), 0, Repeats::default());
        loop {
            let page = copy.lines(from, PAGE).await.map_err(failed(copy, UNREADABLE))?;
            if page.is_empty() {
                return Ok(keys);
            }
            for text in &page {
                from += 1;
                repeats.next(text).map_err(|problem| wrong(copy, Some(from), problem))?;
                // Whatever is wrong with a line is said when it is checked.
                if text.contains("\"copied_keys\"")
                    && let Ok(Line::Keys(stamp, copied)) = parse(text)
                    && stamp.namespace == namespace.as_str()
                {
                    self.open_copied(namespace, &copied, &mut keys).await?;
                }
            }
        }
    }

    async fn open_copied(&self, namespace: &Namespace, copied: &CopiedKeys, keys: &mut LogKeys) -> Result<()> {
        for key in copied.keys.iter().filter(|key| key.scope == KeyScope::integrity()) {
            if keys.contains_key(&key.key_id) {
                continue;
            }
            let Some(kek) = copied.keks.iter().find(|kek| kek.kek_id == key.kek_id) else { continue };
            let kek = match self.kek(kek).await {
                Ok(kek) => kek,
                // What these keys authenticate is then not authentic.
                Err(Error::Kms(KmsFault::Refused { .. })) => continue,
                Err(error) => return Err(error),
            };
            let (key_id, kek_id, version) = (key.key_id, key.kek_id, key.version);
            let bound = BoundKey { namespace, key_id, scope: &key.scope, version, kek_id };
            let wrapped = key.wrapped_key.as_deref().unwrap_or_default();
            if let Some(secret) = bound.with(|bound| unwrap_key(&kek.secret, bound, wrapped)) {
                keys.insert(key_id, DataKey::new(secret.expose())?.log_key()?);
            }
        }
        Ok(())
    }
}
