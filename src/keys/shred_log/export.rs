//! Export: adds the sealed entries that a copy of the shred log does not have.

use super::copy::{ShredLogCopy, UNREADABLE, UNWRITABLE, failed, wrong};
use super::forks::Forks;
use super::lines::{CopiedKeys, Stamp, entry_line, parse};
use super::page::OfScopes;
use super::verify::CopyState;
use super::{LogProgress, PAGE};
use crate::error::{Error, KeyFault, Result};
use crate::keys::log::Fold;
use crate::keys::manager::KeyManager;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{KeyTable, LogHead, SealedEntry};
use crate::telemetry;
use std::collections::HashSet;

const EXPORTING: &str = "exporting the shred log";

/// The report of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportedLog {
    /// How many entries were added.
    pub added: u64,
    /// The number of the last entry that the copy has.
    pub seq: u64,
    /// The hash of its row.
    pub hash: [u8; 32],
    /// Was the copy empty before?
    pub began: bool,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Seals the shred log, and adds to a copy of it what the copy does not have.
    ///
    /// Call it at intervals, or name the copy with
    /// [`copy_shred_log`](crate::keys::KeyManagerBuilder::copy_shred_log) if no shred may be lost: a restore of the key
    /// database brings back what was shredded since the last export, and nothing shows it. It works on a connection
    /// that is not in a transaction. A call that ended early is completed by the next one. Any number of processes may
    /// export to one copy at once.
    ///
    /// # Errors
    /// [`KeyFault::LogCopy`] if the copy can't be read or written, is of another namespace, or was replayed into this
    /// log as a fork, or if it is empty and a [replay](Self::replay_log) of another copy has not come to its end;
    /// [`KeyFault::ShredLogBehind`] if the copy has entries that the log does not have: nothing is added
    /// then. [`KeyFault::LogAltered`] if an entry is not what was written, and has no number; all others are exported
    /// then. [`KeyFault::ChainAltered`] if one that has a number is not what was written; those before it are exported
    /// then. Those of [`seal_log`](Self::seal_log).
    pub async fn export_log(
        &self,
        connection: &mut Tx,
        copy: &dyn ShredLogCopy,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<ExportedLog> {
        telemetry::export_log(self.known_namespace())
            .run(|| async {
                let (exported, altered) = self.export(connection, copy, true, progress).await?;
                altered.map_or(Ok(exported), Err)
            })
            .await
    }

    /// Exports. Where `may_begin` is false, an empty copy is refused: it may be the wrong one. Returns the error of an
    /// entry that got no number too.
    pub(super) async fn export(
        &self,
        connection: &mut Tx,
        copy: &dyn ShredLogCopy,
        may_begin: bool,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<(ExportedLog, Option<Error>)> {
        let altered = match self.seal_log(connection).await {
            Ok(_) => None,
            Err(error @ Error::Keys(KeyFault::LogAltered { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        let namespace = self.check_namespace(connection).await?;
        let keys = self.copied_keys(connection).await?;
        let last = copy.last().await.map_err(failed(copy, UNREADABLE))?;
        let began = last.is_none();
        if began && !may_begin {
            return Err(wrong(copy, None, empty(copy)));
        }
        if began {
            self.check_replays(connection, copy).await?;
        }
        let begin = Stamp { namespace: namespace.as_str().to_owned(), seq: 0, hash: [0; 32], keys: String::new() };
        let mut run = Run { copy, digest: keys.digest(), keys, end: begin, last, added: 0 };
        run.find_end()?;
        let mut total = None;
        loop {
            let head = self.store.log_head(connection).await?;
            self.check_end(connection, copy, &run.end, &head).await?;
            let total = *total.get_or_insert(head.seq.saturating_sub(run.end.seq));
            progress(LogProgress { total: total.max(run.added), done: run.added });
            let mut page = self.store.log_entries(connection, run.end.seq, PAGE).await?;
            let problem = self.cut_to_authentic(connection, &run.end, &mut page).await?;
            let moved = run.add(&page).await?;
            if let Some((seq, problem)) = problem {
                return Err(Error::Keys(KeyFault::ChainAltered { seq, problem }));
            }
            if !moved {
                break;
            }
        }
        let Run { added, end: Stamp { seq, hash, .. }, .. } = run;
        tracing::info!(added, seq, "the shred log was exported");
        Ok((ExportedLog { added, seq, hash, began }, altered))
    }

    /// Checks that the log goes on from the end of a copy.
    pub(super) async fn check_end(
        &self,
        connection: &mut Tx,
        copy: &dyn ShredLogCopy,
        end: &Stamp,
        head: &LogHead,
    ) -> Result<()> {
        match compare_end(&*self.store, connection, end, head).await? {
            None => Ok(()),
            Some(NoContinuation::Replayed { at }) if !self.has_all_of(connection, copy).await? => {
                Err(NoContinuation::Unfinished { at }.into_error(copy))
            }
            Some(problem) => Err(problem.into_error(copy)),
        }
    }

    /// Drops the first entry of a page that is not authentic, and all behind it. Returns what is wrong with it.
    async fn cut_to_authentic(
        &self,
        connection: &mut Tx,
        end: &Stamp,
        page: &mut Vec<SealedEntry>,
    ) -> Result<Option<(u64, &'static str)>> {
        if page.is_empty() {
            return Ok(None);
        }
        let by = self.log_sealer(connection).await?;
        let mut known = OfScopes::of(page);
        self.store.in_transaction(connection, EXPORTING, &mut known).await?;
        let (authentic, problem) = known.check(&by, (end.seq, end.hash), page);
        page.truncate(authentic);
        Ok(problem)
    }

    /// Was a copy replayed to its end, by what the log has?
    async fn has_all_of(&self, connection: &mut Tx, copy: &dyn ShredLogCopy) -> Result<bool> {
        let by = self.log_sealer(connection).await?;
        let checked = self.verify_copy(copy, &by.namespace, &by.keys, &mut |_| {}).await?;
        let chain = self.look_at_chain(connection, &by, &HashSet::new(), &mut |_| {}, &mut |_| {}).await?;
        Ok(chain.state_of(&checked) == CopyState::Replayed)
    }

    /// Refuses to begin a copy while a replay has not come to its end: the log lacks what the copy of that replay has,
    /// and a new copy would vouch for the log as it is.
    async fn check_replays(&self, connection: &mut Tx, copy: &dyn ShredLogCopy) -> Result<()> {
        let scope = KeyScope::integrity();
        let entries = self.store.history(connection, &scope).await?.map(|history| history.entries).unwrap_or_default();
        if entries.is_empty() {
            return Ok(());
        }
        let by = self.log_sealer(connection).await?;
        Fold::of(&by.namespace, &by.keys, &scope, &entries)?;
        let forks = Forks::of(&entries);
        let begun = forks.unfinished().next();
        begun.map_or(Ok(()), |begun| Err(wrong(copy, None, format!("can't be begun: {}", not_ended(begun)))))
    }

    /// The wrapped integrity keys, and the key-encryption keys that wrap them.
    async fn copied_keys(&self, connection: &mut Tx) -> Result<CopiedKeys> {
        let history = self.store.history(connection, &KeyScope::integrity()).await?;
        let key_ids: Vec<KeyId> = history.into_iter().flat_map(|history| history.keys).map(|key| key.key_id).collect();
        let mut keys = self.store.data_keys(connection, &key_ids).await?;
        keys.retain(|key| key.wrapped_key.is_some());
        keys.sort_unstable_by_key(|key| key.version);
        let mut kek_ids: Vec<KekId> = keys.iter().map(|key| key.kek_id).collect();
        kek_ids.sort_unstable();
        kek_ids.dedup();
        let mut keks = self.store.keks(connection, &kek_ids).await?;
        keks.sort_unstable_by_key(|kek| kek.kek_id);
        Ok(CopiedKeys { keys, keks })
    }
}

/// An export to one copy.
struct Run<'a> {
    copy: &'a dyn ShredLogCopy,
    keys: CopiedKeys,
    digest: String,
    /// What the copy's last line says.
    end: Stamp,
    /// The copy's last line.
    last: Option<String>,
    added: u64,
}

impl Run<'_> {
    fn find_end(&mut self) -> Result<()> {
        if let Some(last) = &self.last {
            let line = parse(last).map_err(|problem| wrong(self.copy, None, last_line(&problem)))?;
            self.end = line.stamp().clone();
        }
        Ok(())
    }

    /// Adds the entries of a page, and the keys if they changed. Returns whether the end of the copy has moved.
    async fn add(&mut self, page: &[SealedEntry]) -> Result<bool> {
        let (mut end, mut lines) = (self.end.clone(), Vec::with_capacity(page.len() + 1));
        if end.keys != self.digest {
            end.keys.clone_from(&self.digest);
            lines.push(self.keys.line(&end));
        }
        for sealed in page {
            (end.seq, end.hash) = (sealed.row.seq, sealed.row.hash);
            lines.push(entry_line(&end.namespace, &self.digest, sealed));
        }
        if lines.is_empty() {
            return Ok(false);
        }
        if let Err(error) = self.copy.append(self.last.as_deref(), &lines).await {
            // Somebody else may have exported meanwhile. Or this call has, and the answer was lost.
            let last = self.copy.last().await.map_err(failed(self.copy, UNREADABLE))?;
            let before = self.end.seq;
            if last == self.last {
                return Err(failed(self.copy, UNWRITABLE)(error));
            }
            self.last = last;
            self.find_end()?;
            if self.end.seq < before {
                return Err(failed(self.copy, "has lost lines meanwhile: look who else writes to it")(error));
            }
            return Ok(true);
        }
        (self.end, self.last, self.added) = (end, lines.pop(), self.added + page.len() as u64);
        Ok(true)
    }
}

/// What is wrong with an empty copy, where there has to be one.
pub(super) fn empty(copy: &dyn ShredLogCopy) -> String {
    format!(
        "is empty, and it is required: look whether that is the right one; if there was no copy before, begin it: \
         eventseal shred-log export --append {}",
        copy.name()
    )
}

pub(super) fn last_line(problem: &str) -> String {
    format!("has a last line that {problem}")
}

/// Why a log does not go on from the end of a copy.
pub(super) enum NoContinuation {
    Namespace(String),
    /// The log ends before the copy.
    Behind {
        copy: u64,
        log: u64,
    },
    /// The log has another entry under the copy's last number.
    Forked {
        at: u64,
    },
    /// The same, and a replay of the copy began, and has not come to its end.
    Unfinished {
        at: u64,
    },
    /// The same, and a note says that the copy was replayed to its end.
    Replayed {
        at: u64,
    },
}

impl NoContinuation {
    pub(super) fn into_error(self, copy: &dyn ShredLogCopy) -> Error {
        let behind = |problem| Error::Keys(KeyFault::ShredLogBehind { copy: copy.name(), problem });
        match self {
            Self::Namespace(other) => {
                wrong(copy, None, format!("is of namespace {other:?}: use the copy of this key database"))
            }
            Self::Behind { copy, log } => behind(format!("the log ends at entry {log}, and its copy at {copy}")),
            Self::Forked { at } => behind(format!("entry {at} of the log is another one than in its copy")),
            Self::Unfinished { at } => behind(format!(
                "the log went on in another way than its copy, which ends at entry {at}, and a replay of the copy has \
                 not come to its end; replay it again, after you released the holds that kept scopes from it, if there \
                 are any"
            )),
            Self::Replayed { at } => wrong(
                copy,
                None,
                format!(
                    "ends at entry {at}, after which the log went on in another way; it was replayed, so look that \
                     nothing is left to do (eventseal shred-log verify {}), keep it as evidence, and begin a new copy: \
                     eventseal shred-log export --append NEWFILE",
                    copy.name()
                ),
            ),
        }
    }
}

/// The words for a replay that has not come to its end, from what its beginning says.
pub(super) fn not_ended(begun: &str) -> String {
    format!(
        "{begun}, and has not come to its end, so what was shredded may still be open: release the holds that kept \
         scopes from it, if there are any, and replay that copy again: eventseal shred-log replay COPY"
    )
}

/// What the log of a table says of replays. It is not authenticated.
pub(super) async fn forks_in<K: KeyTable + ?Sized>(table: &K, tx: &mut K::Tx) -> Result<Forks> {
    let history = table.history(tx, &KeyScope::integrity()).await?;
    Ok(history.map(|history| Forks::of(&history.entries)).unwrap_or_default())
}

/// Does the log of the table go on from the end of a copy?
pub(super) async fn compare_end<K: KeyTable + ?Sized>(
    table: &K,
    tx: &mut K::Tx,
    end: &Stamp,
    head: &LogHead,
) -> Result<Option<NoContinuation>> {
    if let Some(namespace) = table.namespace(tx).await?
        && namespace.as_str() != end.namespace
    {
        return Ok(Some(NoContinuation::Namespace(end.namespace.clone())));
    }
    if end.seq > 0 {
        let row = match table.log_entries(tx, end.seq - 1, 1).await?.pop() {
            Some(sealed) if sealed.row.seq == end.seq => Some(sealed.row.hash),
            _ => None,
        };
        if row == Some(end.hash) && end.seq <= head.seq {
            return Ok(None);
        }
        // Nothing is authenticated here. Whatever is found, the log does not go on from the copy.
        let ended = forks_in(table, tx).await?.has_ended((end.seq, end.hash));
        return Ok(Some(match (ended, row) {
            (Some(true), _) => NoContinuation::Replayed { at: end.seq },
            (Some(false), _) => NoContinuation::Unfinished { at: end.seq },
            (None, Some(_)) => NoContinuation::Forked { at: end.seq },
            (None, None) => NoContinuation::Behind { copy: end.seq, log: head.seq.min(end.seq - 1) },
        }));
    }
    Ok(None)
}
