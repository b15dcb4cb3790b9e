//! The changes of key-encryption keys, and of the data keys that they wrap.
//!
//! Each change is a transaction of its own. It locks and reads rows, decides, writes, and reads again before the
//! commit, because a database may accept a change and not make it. A [`KeyTable`] reads and writes the rows. This
//! module alone decides what may be done to them.

use crate::error::{Error, KeyFault, Result, no_effect};
use crate::keys::kek::{KekRecord, KekState};
use crate::keys::names::{KekId, KeyId};
use crate::keys::{DataKeyRecord, KeyRewrap, KeyRows, KeyTable, KeyWork, KeyWrapping, NewDataKey};
use crate::kms::WrappedKek;
use async_trait::async_trait;
use std::collections::HashMap;
use time::OffsetDateTime;

const PREPARING: &str = "preparing keys";
const ROTATING: &str = "rotating a key-encryption key";
const MOVING: &str = "moving a key-encryption key";
const RETIRING: &str = "retiring a key-encryption key";
const REWRAPPING: &str = "rewrapping data keys";
const KEKS: &str = "key_encryption_keys";

/// Makes `kek` the active key of its partition. Nothing happens if the partition has one.
pub(crate) async fn install_kek<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    kek: &KekRecord,
) -> Result<()> {
    table.in_transaction(connection, PREPARING, &mut InstallKek { kek }).await
}

struct InstallKek<'a> {
    kek: &'a KekRecord,
}

#[async_trait]
impl KeyWork for InstallKek<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let inserted = rows.insert_kek(self.kek).await?;
        match rows.active_kek(&self.kek.partition).await? {
            Some(active) if !inserted || active == *self.kek => Ok(()),
            _ => Err(no_effect(PREPARING, KEKS)),
        }
    }
}

/// Inserts the first key of a scope and makes it active. Nothing happens if the scope exists.
pub(crate) async fn install_key<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    key: &NewDataKey,
) -> Result<()> {
    table.in_transaction(connection, PREPARING, &mut InstallKey { key }).await
}

struct InstallKey<'a> {
    key: &'a NewDataKey,
}

#[async_trait]
impl KeyWork for InstallKey<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let inserted = rows.insert_first_key(self.key).await?;
        let Some(record) = rows.scope(&self.key.scope).await? else {
            return Err(no_effect(PREPARING, "key_scopes"));
        };
        let is_there = record.active.is_some_and(|active| {
            active.key_id == self.key.key_id && active.wrapped_key.as_ref() == Some(&self.key.wrapped_key)
        });
        if !inserted || is_there { Ok(()) } else { Err(no_effect(PREPARING, "data_keys or key_scopes")) }
    }
}

/// Makes `kek` the active key of its partition in place of `replaced`, which only opens from then on. `false` if
/// `replaced` is not the active one.
pub(crate) async fn replace_kek<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    replaced: KekId,
    kek: &KekRecord,
) -> Result<bool> {
    let mut work = ReplaceKek { replaced, kek, done: false };
    table.in_transaction(connection, ROTATING, &mut work).await?;
    Ok(work.done)
}

struct ReplaceKek<'a> {
    replaced: KekId,
    kek: &'a KekRecord,
    done: bool,
}

#[async_trait]
impl KeyWork for ReplaceKek<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.done = false;
        let is_replaced = |active: &KekRecord| active.kek_id == self.replaced;
        if !rows.change_kek_state(self.replaced, KekState::Active, KekState::DecryptOnly).await? {
            let active = rows.active_kek(&self.kek.partition).await?;
            return if active.as_ref().is_some_and(is_replaced) { Err(no_effect(ROTATING, KEKS)) } else { Ok(()) };
        }
        let inserted = rows.insert_kek(self.kek).await?;
        match rows.active_kek(&self.kek.partition).await? {
            Some(active) if active == *self.kek => self.done = true,
            // Another process changed the partition's active key meanwhile.
            Some(active) if !inserted && !is_replaced(&active) => return Err(Error::Collision { source: None }),
            _ => return Err(no_effect(ROTATING, KEKS)),
        }
        Ok(())
    }
}

/// Replaces the wrapping of a key-encryption key, and its provider. `false` if it is not wrapped as in `old`.
pub(crate) async fn move_kek<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    old: &KekRecord,
    provider: &str,
    wrapped: &WrappedKek,
    at: OffsetDateTime,
) -> Result<bool> {
    let mut work = MoveKek { old, provider, wrapped, at, done: false };
    table.in_transaction(connection, MOVING, &mut work).await?;
    Ok(work.done)
}

struct MoveKek<'a> {
    old: &'a KekRecord,
    provider: &'a str,
    wrapped: &'a WrappedKek,
    at: OffsetDateTime,
    done: bool,
}

#[async_trait]
impl KeyWork for MoveKek<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.done = false;
        let moved = rows.change_kek_wrapping(self.old, self.provider, self.wrapped, self.at).await?;
        let Some(row) = rows.kek(self.old.kek_id).await? else { return Ok(()) };
        let is_moved = (row.provider.as_str(), &row.wrapped, row.wrapped_at) == (self.provider, self.wrapped, self.at);
        match (moved, is_moved, row.wrapped == self.old.wrapped) {
            (true, true, _) => self.done = true,
            // Somebody else has changed it.
            (false, _, false) => {}
            _ => return Err(no_effect(MOVING, KEKS)),
        }
        Ok(())
    }
}

/// The result of retiring a key-encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retirement {
    /// It is retired.
    Done,
    /// It still wraps this number of live data keys.
    InUse(u64),
    /// It is the active one of its partition.
    Active,
    /// There is no such key.
    Unknown,
}

/// Retires a key-encryption key, unless it is active or wraps a live data key. Afterwards, no data key can be inserted
/// under it.
pub(crate) async fn retire_kek<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    kek_id: KekId,
) -> Result<Retirement> {
    let mut work = RetireKek { kek_id, outcome: None };
    table.in_transaction(connection, RETIRING, &mut work).await?;
    work.outcome.ok_or_else(|| no_effect(RETIRING, KEKS))
}

struct RetireKek {
    kek_id: KekId,
    outcome: Option<Retirement>,
}

#[async_trait]
impl KeyWork for RetireKek {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.outcome = Some(self.retire(rows).await?);
        Ok(())
    }
}

impl RetireKek {
    async fn retire(&self, rows: &mut dyn KeyRows) -> Result<Retirement> {
        let Some(kek) = rows.lock_kek(self.kek_id).await? else {
            // Either there is no such key, or it can be read but not locked.
            let known = rows.kek(self.kek_id).await?.is_some();
            return if known { Err(no_effect(RETIRING, KEKS)) } else { Ok(Retirement::Unknown) };
        };
        if kek.state == KekState::Active {
            return Ok(Retirement::Active);
        }
        // This statement comes after the lock, so it sees the keys that earlier holders of the lock inserted.
        let live = rows.count_live_keys(self.kek_id).await?;
        if live > 0 {
            return Ok(Retirement::InUse(live));
        }
        rows.change_kek_state(self.kek_id, kek.state, KekState::Retired).await?;
        match rows.kek(self.kek_id).await? {
            Some(kek) if kek.state == KekState::Retired => Ok(Retirement::Done),
            _ => Err(no_effect(RETIRING, KEKS)),
        }
    }
}

/// A batch of data keys that are to be wrapped anew.
#[derive(Clone, Debug)]
pub(crate) struct RewrapBatch {
    /// Data keys that these key-encryption keys wrap.
    pub(crate) from: Vec<KekId>,
    /// The key-encryption key that is to wrap them.
    pub(crate) to: KekId,
    /// Only data keys with a higher id than this one; all if `None`.
    pub(crate) after: Option<KeyId>,
    /// The largest number of data keys in the batch.
    pub(crate) limit: u32,
    /// The current time.
    pub(crate) at: OffsetDateTime,
}

/// The result of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RewrappedBatch {
    /// How many data keys were found, at most as many as the limit. 0 means that there are none behind `after`, or that
    /// others hold them all.
    pub(crate) found: u32,
    /// The last of them. Pass it as `after` for the next batch.
    pub(crate) last: Option<KeyId>,
    /// How many were wrapped anew.
    pub(crate) rewrapped: u32,
    /// The data keys that do not open, and were left as they are.
    pub(crate) bad: Vec<KeyId>,
}

/// Wraps data keys anew. It holds the key-encryption keys, so that a batch need not know them.
pub(crate) trait Rewrapper: Send + Sync {
    /// The key's new wrapping; `None` if it does not open.
    fn rewrap(&self, key: &DataKeyRecord) -> Result<Option<Vec<u8>>>;

    /// Does the written wrapping open to the same key? `wrapped` is what the database holds now.
    fn opens(&self, key_id: KeyId, wrapped: &[u8]) -> bool;
}

/// Wraps a batch of live data keys anew, in ascending order of id. Data keys that others hold are left out, and so are
/// those that have changed since they were read. Scopes are not touched. If the batch fails, nothing of it is written.
pub(crate) async fn rewrap_batch<K: KeyTable + ?Sized>(
    table: &K,
    connection: &mut K::Tx,
    batch: &RewrapBatch,
    by: &dyn Rewrapper,
) -> Result<RewrappedBatch> {
    let mut work = RewrapWork { batch, by, outcome: None };
    table.in_transaction(connection, REWRAPPING, &mut work).await?;
    work.outcome.ok_or_else(|| no_effect(REWRAPPING, "data_keys"))
}

struct RewrapWork<'a> {
    batch: &'a RewrapBatch,
    by: &'a dyn Rewrapper,
    outcome: Option<RewrappedBatch>,
}

#[async_trait]
impl KeyWork for RewrapWork<'_> {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        let RewrapBatch { from, to, after, limit, at } = self.batch;
        let found = rows.lock_live_keys(from, *after, *limit).await?;
        let mut outcome = RewrappedBatch {
            found: u32::try_from(found.len()).unwrap_or(u32::MAX),
            last: found.last().map(|key| key.key_id),
            ..Default::default()
        };
        let mut keys = Vec::with_capacity(found.len());
        for key in found {
            match self.by.rewrap(&key)? {
                Some(wrapped_key) => {
                    let new = KeyWrapping { key_id: key.key_id, wrapped_key };
                    keys.push(KeyRewrap { key, new });
                }
                None => outcome.bad.push(key.key_id),
            }
        }
        if !keys.is_empty() {
            let written = rows.rewrap_keys(&keys, *to, *at).await?;
            self.check_written(rows, &keys, written).await?;
            outcome.rewrapped = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        }
        self.outcome = Some(outcome);
        Ok(())
    }
}

impl RewrapWork<'_> {
    /// Checks that every key was written, and that each opens.
    async fn check_written(&self, rows: &mut dyn KeyRows, keys: &[KeyRewrap], written: Vec<KeyWrapping>) -> Result<()> {
        let to = self.batch.to;
        let written: HashMap<KeyId, Vec<u8>> =
            written.into_iter().map(|wrapping| (wrapping.key_id, wrapping.wrapped_key)).collect();
        for KeyRewrap { new: KeyWrapping { key_id, .. }, .. } in keys {
            let Some(wrapped) = written.get(key_id) else {
                // The row is locked. So either the key-encryption key was retired meanwhile, or a trigger, rule or
                // policy prevents the change.
                let retired = rows.kek(to).await?.is_none_or(|kek| kek.state == KekState::Retired);
                return Err(if retired {
                    Error::Collision { source: None }
                } else {
                    no_effect(REWRAPPING, "data_keys")
                });
            };
            if !self.by.opens(*key_id, wrapped) {
                return Err(Error::Keys(KeyFault::WrongKey { key_id: *key_id, kek_id: to }));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
