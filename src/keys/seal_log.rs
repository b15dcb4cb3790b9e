//! Sealing: numbers the entries of the shred log, in one chain for the namespace.
//!
//! It is apart from the changes that write entries, so that nobody waits for the slowest of them: a batch is a
//! transaction of its own, and locks the end of the chain and nothing else. Any process may do it at any time.

use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::log::{Checked, Digest, LogKeys, NOT_ADOPTED, altered, row};
use crate::keys::manager::{KeyManager, PARTITION, check_and_take, no_active_kek};
use crate::keys::material::key_of;
use crate::keys::names::{KeyId, KeyScope, Namespace};
use crate::keys::{KeyRows, KeyStore, KeyTable, KeyWork, LogEntry, LogHead, ScopeLock};
use async_trait::async_trait;
use std::collections::HashMap;
use uuid::Uuid;

const SEALING: &str = "sealing the shred log";
/// How many entries are sealed in a transaction. Others that seal wait for so many.
const BATCH: u32 = 500;

/// The keys of the log, opened before anything is locked.
pub(crate) struct LogSealer {
    pub(crate) namespace: Namespace,
    pub(crate) keys: LogKeys,
    /// The key for new rows and entries.
    pub(crate) active: KeyId,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Gives every committed entry of the shred log its number in the chain, and returns the end of the chain.
    ///
    /// It works in batches, on a connection that is not in a transaction. Any number of processes may do it at once. A
    /// call that ended early has left nothing half done. [`prepare`](Self::prepare) does it, and so do a
    /// [sweep](Self::sweep), a shred of many, and everything that reads the chain. Call it after the commit of a shred,
    /// so that its entry is numbered, and a copy of the log can have it.
    ///
    /// An entry that is not authentic gets no number. The others are sealed all the same, and then the call fails.
    ///
    /// # Errors
    /// [`KeyFault::LogAltered`] if an entry is not what was written, [`KeyFault::NoActiveKek`] if the keys were never
    /// prepared, [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction),
    /// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect), [`Error::Collision`] (retryable),
    /// [`Error::Database`]; errors of the KMS.
    pub async fn seal_log(&self, connection: &mut Tx) -> Result<LogHead> {
        let head = self.store.log_head(connection).await?;
        if !head.unsealed {
            return Ok(head);
        }
        let by = self.log_sealer(connection).await?;
        let mut fault = None;
        let mut batch = SealBatch { by: &by, after: None, done: Outcome::default() };
        loop {
            self.store.in_transaction(connection, SEALING, &mut batch).await?;
            let done = std::mem::take(&mut batch.done);
            tracing::debug!(sealed = done.sealed, "entries of the shred log were sealed");
            fault = fault.or(done.fault);
            if done.found < BATCH {
                break;
            }
            batch.after = done.last;
        }
        match fault {
            Some(fault) => Err(fault),
            None => self.store.log_head(connection).await,
        }
    }

    /// Seals if something is to be sealed and it is possible. A process that can't, for instance because it may not
    /// write, leaves it to others.
    pub(crate) async fn seal_log_if_possible(&self, connection: &mut Tx) -> Result<()> {
        if self.store.is_in_transaction(connection) {
            return Ok(());
        }
        let sealed = match self.store.log_head(connection).await {
            Ok(head) if head.unsealed => self.seal_log(connection).await.map(drop),
            Ok(_) => Ok(()),
            // Whatever comes next would fail as well.
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => Err(error),
        };
        match sealed {
            // Whoever requires a copy of the log wants to know of an entry that was altered.
            Err(error @ Error::Keys(KeyFault::LogAltered { .. })) if self.gate.is_some() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the shred log was not sealed");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Seals after shreds that are committed. A failure undoes none of them, so it is a warning: whoever seals next
    /// does it.
    pub(crate) async fn seal_log_afterwards(&self, connection: &mut Tx) {
        if let Err(error) = self.seal_log(connection).await {
            tracing::warn!(%error, "the shred log was not sealed");
        }
    }

    /// Opens every key of the log.
    pub(crate) async fn log_sealer(&self, connection: &mut Tx) -> Result<LogSealer> {
        let namespace = self.check_namespace(connection).await?;
        let scope = KeyScope::integrity();
        let record = self.store.scopes(connection, std::slice::from_ref(&scope), ScopeLock::None).await?.pop();
        let (_, active) = record.map(check_and_take).transpose()?.flatten().ok_or_else(|| no_active_kek(PARTITION))?;
        let history = self.store.history(connection, &scope).await?;
        let key_ids: Vec<KeyId> = history.into_iter().flat_map(|history| history.keys).map(|key| key.key_id).collect();
        let mut records = self.store.data_keys(connection, &key_ids).await?;
        records.retain(|record| record.wrapped_key.is_some());
        let opened = self.open_all(connection, &namespace, &records, None, None).await?;
        let mut keys = LogKeys::with_capacity(records.len());
        for record in &records {
            keys.insert(record.key_id, key_of(&opened, record.key_id)?.log_key()?);
        }
        if !keys.contains_key(&active.key_id) {
            return Err(no_active_kek(PARTITION));
        }
        Ok(LogSealer { namespace, keys, active: active.key_id })
    }
}

#[derive(Default)]
struct Outcome {
    found: u32,
    sealed: u32,
    last: Option<(KeyScope, u32)>,
    /// The first entry that is not authentic.
    fault: Option<Error>,
}

struct SealBatch<'a> {
    by: &'a LogSealer,
    after: Option<(KeyScope, u32)>,
    done: Outcome,
}

#[async_trait]
impl KeyWork for SealBatch<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.done = Outcome::default();
        let head = rows.lock_log_head().await?;
        let after = self.after.as_ref().map(|(scope, seq)| (scope, *seq));
        let unsealed = rows.unsealed_entries(after, BATCH).await?;
        self.done.found = u32::try_from(unsealed.len()).unwrap_or(u32::MAX);
        self.done.last = unsealed.last().map(|entry| (entry.scope.clone(), entry.scope_seq));
        if unsealed.is_empty() {
            return Ok(());
        }
        let digests = self.digests(rows, &unsealed).await?;
        let key = self.by.keys.get(&self.by.active).ok_or(Error::Keys(KeyFault::Cryptography))?;
        let (mut end, mut new) = ((head.seq, head.hash), Vec::with_capacity(unsealed.len()));
        for entry in &unsealed {
            let Some(digest) = digests.get(&entry.entry_id) else { continue };
            let row = row(&self.by.namespace, (self.by.active, key), (end.0 + 1, end.1), (entry.entry_id, digest));
            end = (row.seq, row.hash);
            new.push(row);
        }
        if !rows.seal_entries(&head, &new).await? {
            return Err(no_effect(SEALING, "shred_log, shred_log_head or shred_entries"));
        }
        let now = rows.lock_log_head().await?;
        if (now.seq, now.hash) != end {
            return Err(no_effect(SEALING, "shred_log_head"));
        }
        self.done.sealed = u32::try_from(new.len()).unwrap_or(u32::MAX);
        Ok(())
    }
}

impl SealBatch<'_> {
    /// The digests of the entries of these scopes that are authentic, up to the first one of each scope that is not.
    async fn digests(&mut self, rows: &mut dyn KeyRows, unsealed: &[LogEntry]) -> Result<HashMap<Uuid, Digest>> {
        let mut scopes: Vec<KeyScope> = unsealed.iter().map(|entry| entry.scope.clone()).collect();
        scopes.dedup();
        let mut digests = HashMap::with_capacity(unsealed.len());
        let entries = rows.entries_of(&scopes).await?;
        for of_scope in entries.chunk_by(|one, next| one.scope == next.scope) {
            let (mut checked, mut of_this) = (Checked::default(), Vec::with_capacity(of_scope.len()));
            for entry in of_scope {
                if let Some(problem) = checked.next(&self.by.namespace, &self.by.keys, entry) {
                    self.done.fault.get_or_insert_with(|| altered(entry, problem));
                    break;
                }
                of_this.extend(checked.last.map(|digest| (entry.entry_id, digest)));
            }
            // A row of the chain vouches for its entry. So entries without a MAC get one once another covers them.
            if checked.is_authentic() {
                digests.extend(of_this);
            } else {
                self.done.fault.get_or_insert_with(|| altered(&of_scope[0], NOT_ADOPTED));
            }
        }
        Ok(digests)
    }
}
