//! Export: adds the sealed entries that a copy of the shred log does not have.

use super::copy::{ShredLogCopy, UNREADABLE, UNWRITABLE, failed, wrong};
use super::lines::{CopiedKeys, Stamp, entry_line, parse};
use super::{LogProgress, PAGE};
use crate::error::{Error, KeyFault, Result};
use crate::keys::log::Digest;
use crate::keys::manager::KeyManager;
use crate::keys::names::{KekId, KeyId, KeyScope};
use crate::keys::{KeyTable, LogHead};

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
    /// Call it at intervals, and after the commit of a shred if none may be lost: a restore of the key database brings
    /// back what was shredded since the last export, and nothing shows it. It works on a connection that is not in a
    /// transaction. A call that ended early is completed by the next one.
    ///
    /// Of several exports to one copy at once, one may fail with [`KeyFault::LogCopy`], and can be run again.
    ///
    /// # Errors
    /// [`KeyFault::LogCopy`] if the copy can't be read or written, is of another namespace, or was replayed into this
    /// log as a fork, [`KeyFault::ShredLogBehind`] if the copy has entries that the log does not have: nothing is added
    /// then. Those of [`seal_log`](Self::seal_log).
    pub async fn export_log(
        &self,
        connection: &mut Tx,
        copy: &dyn ShredLogCopy,
        progress: &mut (dyn FnMut(LogProgress) + Send),
    ) -> Result<ExportedLog> {
        let head = self.seal_log(connection).await?;
        let namespace = self.check_namespace(connection).await?;
        let keys = self.copied_keys(connection).await?;
        let last = copy.last().await.map_err(failed(copy, UNREADABLE))?;
        let begun = last.as_deref().map(parse).transpose().map_err(|problem| wrong(copy, None, last_line(&problem)))?;
        let mut end = match &begun {
            Some(line) => line.stamp().clone(),
            None => Stamp { namespace: namespace.as_str().to_owned(), seq: 0, hash: [0; 32], keys: String::new() },
        };
        self.check_end(connection, copy, &end, &head).await?;
        let (mut added, digest, mut last) = (0, keys.digest(), last);
        let total = head.seq.saturating_sub(end.seq);
        progress(LogProgress { total, done: 0 });
        loop {
            let page = self.store.log_entries(connection, end.seq, PAGE).await?;
            let mut lines = Vec::with_capacity(page.len() + 1);
            if end.keys != digest {
                end.keys.clone_from(&digest);
                lines.push(keys.line(&end));
            }
            for sealed in &page {
                if (sealed.row.seq, sealed.row.previous_hash) != (end.seq + 1, end.hash) {
                    let problem = "does not follow from the row before";
                    return Err(Error::Keys(KeyFault::ChainAltered { seq: sealed.row.seq, problem }));
                }
                (end.seq, end.hash) = (sealed.row.seq, sealed.row.hash);
                lines.push(entry_line(namespace.as_str(), &digest, sealed));
            }
            let Some(new_last) = lines.last().cloned() else { break };
            copy.append(last.as_deref(), &lines).await.map_err(failed(copy, UNWRITABLE))?;
            last = Some(new_last);
            added += page.len() as u64;
            progress(LogProgress { total: total.max(added), done: added });
        }
        tracing::info!(added, seq = end.seq, "the shred log was exported");
        Ok(ExportedLog { added, seq: end.seq, hash: end.hash, began: begun.is_none() })
    }

    /// Checks that the log goes on from the end of a copy.
    pub(super) async fn check_end(
        &self,
        connection: &mut Tx,
        copy: &dyn ShredLogCopy,
        end: &Stamp,
        head: &LogHead,
    ) -> Result<()> {
        let found = compare_end(&*self.store, connection, end, head).await?;
        found.map_or(Ok(()), |problem| Err(problem.into_error(copy)))
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
    /// The same, and the copy was replayed.
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
            Self::Replayed { at } => wrong(
                copy,
                None,
                format!(
                    "ends at entry {at}, after which the log went on in another way; it was replayed, so keep it as \
                     evidence, and begin a new copy: eventseal shred-log export --append NEWFILE"
                ),
            ),
        }
    }
}

/// What an entry says that records that a copy was replayed into a log that had gone on without it.
pub(super) fn fork_reason(seq: u64, hash: &Digest) -> String {
    use std::fmt::Write as _;
    let mut text = format!("a copy that ends at entry {seq} was replayed, with hash ");
    for byte in hash {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
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
        let reason = fork_reason(end.seq, &end.hash);
        let history = table.history(tx, &KeyScope::integrity()).await?;
        if history.is_some_and(|history| history.entries.iter().any(|entry| entry.reason == reason)) {
            return Ok(Some(NoContinuation::Replayed { at: end.seq }));
        }
        return Ok(Some(match row {
            Some(_) => NoContinuation::Forked { at: end.seq },
            None => NoContinuation::Behind { copy: end.seq, log: head.seq.min(end.seq - 1) },
        }));
    }
    Ok(None)
}
