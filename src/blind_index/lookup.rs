//! Keeps the entries of a blind index in a table, and drops those of scopes that are shredded.

use super::{BlindEntry, BlindHash, BlindIndex, BlindIndexTable};
use crate::error::{BlindIndexFault, BoxError, Error, Result, no_effect};
use crate::keys::erasure_consumer::ErasureConsumer;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::{KeyStore, KeyTable, LogEntry, ScopeAction, ScopeLock, ScopeRecord, ScopeState};
use crate::sealer::{Sealer, hashes};
use crate::store::TableWork;
use crate::telemetry::{self, Call};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

/// How many scopes are looked at in one transaction, and how many entries are removed in one.
const BATCH: u32 = 500;

/// A blind index and the table that has its entries: see the [module](super).
///
/// It is cheap to clone. Pass a clone to
/// [`KeyManagerBuilder::erasure_consumer`](crate::keys::KeyManagerBuilder::erasure_consumer): it drops the entries of a
/// scope that is shredded, in *every* index of the table. So one of several lookups over one table is enough.
pub struct BlindLookup<Tx> {
    table: Arc<dyn BlindIndexTable<Tx = Tx>>,
    index: BlindIndex,
    unique: bool,
}

impl<Tx: Send + 'static> BlindLookup<Tx> {
    /// An index in which a value has one owner, such as an e-mail address. Its hashes need at least 96 bits.
    pub fn unique(table: impl BlindIndexTable<Tx = Tx> + 'static, index: BlindIndex) -> Self {
        Self { table: Arc::new(table), index, unique: true }
    }

    /// An index in which a value can have several owners, such as a surname. It shows how often each value occurs: see
    /// [what equality leaks](super#what-equality-leaks).
    pub fn shared(table: impl BlindIndexTable<Tx = Tx> + 'static, index: BlindIndex) -> Self {
        Self { table: Arc::new(table), index, unique: false }
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &BlindIndex {
        &self.index
    }

    fn entries(&self, owner: &KeyScope, generation: u32, hashes: Vec<BlindHash>) -> Vec<BlindEntry> {
        let index: Arc<str> = self.index.name().into();
        let entry = |hash: BlindHash| BlindEntry {
            index: Arc::clone(&index),
            key_id: hash.key_id,
            hash: hash.bytes,
            scope: owner.clone(),
            unique: self.unique,
            generation,
        };
        hashes.into_iter().map(entry).collect()
    }
}

/// The entries of a [`BlindLookup`] in a store: [`SealedStore::lookup`](crate::SealedStore::lookup) and
/// [`Sealer::lookup`] make it.
///
/// Calls that take a `tx` run in the caller's transaction, and take effect when the caller commits.
pub struct Lookup<'s, Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    sealer: &'s Sealer<Tx, K>,
    of: &'s BlindLookup<Tx>,
}

/// The outcome of [`Lookup::finish_rotation`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FinishedRotation {
    /// The keys that were destroyed. Empty if only one was in use.
    pub retired: Vec<KeyId>,
    /// How many entries under destroyed keys were removed.
    pub removed: u64,
}

/// Owners of a value, in ascending order, with an error for one that is disabled.
struct Found {
    owners: Vec<(KeyScope, Result<()>)>,
    /// Were all entries of the value looked at? If not, the limit was reached.
    is_all: bool,
}

impl<'s, Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Lookup<'s, Tx, K> {
    pub(crate) fn new(sealer: &'s Sealer<Tx, K>, of: &'s BlindLookup<Tx>) -> Self {
        Self { sealer, of }
    }

    /// Adds the entry of a value of this owner. Does nothing if it is there already. An owner may have several values
    /// in an index.
    ///
    /// Like an append, this locks the owner's keys against a shred until the transaction ends, and creates the keys
    /// that are missing. During a [rotation](super#how-its-key-is-rotated) it adds one entry for each key. In a unique
    /// index it waits for another transaction that is adding the same value. Entries of an owner whose keys were
    /// shredded are in nobody's way: they are dropped.
    ///
    /// # Errors
    /// [`BlindIndexFault::Taken`] if the index is unique and another owner has the value: then nothing was added.
    /// Roll back what the transaction did for this value before. Those of [`Sealer::blind_hashes_to_store`], such as
    /// [`Error::Shredded`]. Those of the table: see [`BlindIndexTable`].
    /// [`StorageFault::NoEffect`](crate::error::StorageFault::NoEffect).
    pub async fn add(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        self.changing().run(|| self.add_entries(tx, scope, value)).await
    }

    async fn add_entries(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        let (_, entries) = self.locked(tx, scope, value).await?;
        self.place(tx, &entries).await
    }

    /// Makes a value the only one of this owner in the index: adds its entry, and removes those of the owner's other
    /// values.
    ///
    /// # Errors
    /// Those of [`add`](Self::add). If the value is taken, the owner's other entries are still there.
    pub async fn replace(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        self.changing().run(|| self.replace_entries(tx, scope, value)).await
    }

    async fn replace_entries(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        let (owner, entries) = self.locked(tx, scope, value).await?;
        self.place(tx, &entries).await?;
        let kept: Vec<_> = entries.into_iter().map(|entry| (entry.key_id, entry.hash)).collect();
        self.of.table.keep_only(tx, self.of.index.name(), &owner, &kept).await
    }

    /// Removes the entry of a value of this owner. Does nothing if there is none. It also drops the entries of this
    /// owner that an earlier shred has left, in every index of the table.
    ///
    /// This locks the owner's keys against a shred, and the keys of the blind indexes against a rotation, until the
    /// transaction ends.
    ///
    /// # Errors
    /// Those of [`Sealer::blind_hashes`], and those of the table.
    pub async fn remove(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        self.changing().run(|| self.remove_entries(tx, scope, value)).await
    }

    async fn remove_entries(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<()> {
        let spelled = self.of.index.spell(value, self.of.unique)?;
        let owner = self.sealer.owner_of_entry(scope, &self.of.index)?;
        let (keys, record) = self.sealer.keys().index_keys_to_remove(tx, &owner).await?;
        let generation = record.map_or(1, |record| record.generation);
        let entries = self.of.entries(&owner, generation, hashes(&self.of.index, &keys, &spelled)?);
        self.of.table.remove(tx, &entries).await?;
        // An entry of the value may be of an earlier generation. The owner's other entries of that time are erased too.
        self.of.table.drop_scope(tx, &owner, Some(generation)).await.map(drop)
    }

    /// Removes all entries of this owner in the index, under every key.
    ///
    /// # Errors
    /// [`BlindIndexFault::SimilarKind`], [`InputFault::InvalidText`](crate::error::InputFault::InvalidText), and those
    /// of the table.
    pub async fn clear(&self, tx: &mut Tx, scope: &KeyScope) -> Result<()> {
        self.changing().run(|| self.clear_entries(tx, scope)).await
    }

    async fn clear_entries(&self, tx: &mut Tx, scope: &KeyScope) -> Result<()> {
        self.of.index.check_name()?;
        let owner = self.sealer.owner_of_entry(scope, &self.of.index)?;
        self.of.table.keep_only(tx, self.of.index.name(), &owner, &[]).await
    }

    /// The owner of a value in a unique index; in another one, the first of its owners who can be shown. `None` if
    /// nobody has the value, or if the keys of all its owners were shredded or are withheld by a scheduled shred.
    ///
    /// With short [hashes](BlindIndex::bits), open the value and compare: the owner may have another one.
    ///
    /// # Errors
    /// [`Error::Disabled`] if the owner's scope is disabled, and no other owner can be shown. Those of
    /// [`find_all`](Self::find_all).
    pub async fn find(&self, tx: &mut Tx, value: &str) -> Result<Option<KeyScope>> {
        self.looking_up().run(|| self.find_one(tx, value)).await
    }

    async fn find_one(&self, tx: &mut Tx, value: &str) -> Result<Option<KeyScope>> {
        let mut limit = 1;
        loop {
            let found = self.found(tx, value, limit).await?;
            let (mut shown, out_of_use): (Vec<_>, Vec<_>) =
                found.owners.into_iter().partition(|(_, state)| state.is_ok());
            if !shown.is_empty() {
                return Ok(Some(shown.swap_remove(0).0));
            }
            if found.is_all {
                return out_of_use.into_iter().next().map(|(owner, state)| state.map(|()| owner)).transpose();
            }
            // All owners so far were shredded or are out of use. Others may follow.
            limit = limit.saturating_mul(16);
        }
    }

    /// The owners of a value: for each key in use the first `limit`, in ascending order. Owners are left out whose keys
    /// were shredded, whom a scheduled shred withholds, or whose scope is disabled, so fewer than `limit` don't mean
    /// that there are no others.
    ///
    /// # Errors
    /// Those of [`Sealer::blind_hashes`], those of the table, and
    /// [`KeyFault::ScopeState`](crate::error::KeyFault::ScopeState) for an entry whose owner has no row in the key
    /// table, or one of an earlier generation.
    pub async fn find_all(&self, tx: &mut Tx, value: &str, limit: u32) -> Result<Vec<KeyScope>> {
        let found = self.looking_up().run(|| self.found(tx, value, limit)).await?;
        Ok(found.owners.into_iter().filter(|(_, state)| state.is_ok()).map(|(owner, _)| owner).collect())
    }

    fn changing(&self) -> Call {
        telemetry::change_index(self.sealer.keys().known_namespace(), self.of.index.name())
    }

    fn looking_up(&self) -> Call {
        telemetry::look_up(self.sealer.keys().known_namespace(), self.of.index.name())
    }

    async fn found(&self, tx: &mut Tx, value: &str, limit: u32) -> Result<Found> {
        let spelled = self.of.index.spell(value, self.of.unique)?;
        let hashes = hashes(&self.of.index, &self.sealer.keys().index_keys(tx).await?, &spelled)?;
        if hashes.is_empty() {
            return Ok(Found { owners: Vec::new(), is_all: true });
        }
        let hashes: Vec<_> = hashes.into_iter().map(|hash| (hash.key_id, hash.bytes)).collect();
        let found = self.of.table.find(tx, self.of.index.name(), &hashes, limit).await?;
        let under = |key_id: KeyId| found.iter().filter(|entry| entry.key_id == key_id).count();
        let is_all = limit == u32::MAX || hashes.iter().all(|(key_id, _)| under(*key_id) < limit as usize);
        Ok(Found { owners: self.sealer.shown_owners(tx, found).await?, is_all })
    }

    /// The entries of a value, whose owner and keys are locked.
    async fn locked(&self, tx: &mut Tx, scope: &KeyScope, value: &str) -> Result<(KeyScope, Vec<BlindEntry>)> {
        let spelled = self.of.index.spell(value, self.of.unique)?;
        let owner = self.sealer.owner_of_entry(scope, &self.of.index)?;
        let (keys, generation) = self.sealer.keys().index_keys_to_store(tx, &owner).await?;
        let entries = self.of.entries(&owner, generation, hashes(&self.of.index, &keys, &spelled)?);
        Ok((owner, entries))
    }

    /// Adds entries, and looks who has their places then.
    async fn place(&self, tx: &mut Tx, entries: &[BlindEntry]) -> Result<()> {
        let mut last = no_effect("adding to a blind index", "blind_index");
        // The second round is for places that were freed: by this call, or by somebody else in the middle of the first.
        for _ in 0..2 {
            let there = self.of.table.add(tx, entries).await?;
            if entries.iter().all(|entry| there.contains(entry)) {
                return Ok(());
            }
            let (own, others): (Vec<_>, Vec<_>) = there.into_iter().partition(|there| entries.contains(there));
            if others.is_empty() {
                continue;
            }
            // Either all entries of a value are there, or none is.
            self.of.table.remove(tx, &own).await?;
            last = self.of.index.fault(BlindIndexFault::Taken);
            if !self.dropped_as_erased(tx, others).await? {
                break;
            }
        }
        Err(last)
    }

    /// Drops these entries if all of them were erased: their scope is shredded, or was reopened. The scopes are
    /// locked, so that none of them is reopened from here on. One may have been reopened since the entries were read,
    /// and have a new entry at the same place. That one is of another generation, and it stays.
    async fn dropped_as_erased(&self, tx: &mut Tx, entries: Vec<BlindEntry>) -> Result<bool> {
        let mut scopes: Vec<KeyScope> = entries.iter().map(|entry| entry.scope.clone()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let records = self.sealer.keys().store.scopes(tx, &scopes, ScopeLock::Share).await?;
        let is_erased = |entry: &BlindEntry| {
            let record = records.iter().find(|record| record.scope == entry.scope);
            record.is_some_and(|record| record.state == ScopeState::Shredded || record.generation > entry.generation)
        };
        if !entries.iter().all(is_erased) {
            return Ok(false);
        }
        self.of.table.remove(tx, &entries).await?;
        Ok(true)
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> Lookup<'_, Tx, K> {
    /// Drops the entries of all scopes that are shredded, in every index of the table. Returns how many were dropped.
    ///
    /// A registered [`BlindLookup`] does this at each shred of its process. This is for the shreds that it did not see,
    /// and for a table that was restored: see [the module](super#erasure). The connection must *not* be in a
    /// transaction: this works in short transactions of its own, and can be run again if it was interrupted.
    ///
    /// # Errors
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction), and those of the table.
    pub async fn drop_shredded(&self, connection: &mut Tx) -> Result<u64> {
        let call = telemetry::drop_shredded(self.sealer.keys().known_namespace());
        call.run(|| self.drop_entries_of_shredded(connection)).await
    }

    async fn drop_entries_of_shredded(&self, connection: &mut Tx) -> Result<u64> {
        let (mut after, mut dropped) = (None, 0);
        loop {
            let mut page = DropShredded { of: self, after: after.take(), last: None, dropped: 0 };
            self.sealer.keys().store.transact(connection, "dropping entries of shredded scopes", &mut page).await?;
            dropped += page.dropped;
            after = page.last;
            if after.is_none() {
                return Ok(dropped);
            }
        }
    }

    /// Ends a [rotation](super#how-its-key-is-rotated): destroys the older keys of the blind indexes, and removes the
    /// entries under them, in every index of the table. The connection must *not* be in a transaction.
    ///
    /// All blind indexes of a key database share the keys. If you have several tables, finish only when all of them are
    /// complete: this looks at the table of this lookup alone. It can be run again if it was interrupted.
    ///
    /// # Errors
    /// [`BlindIndexFault::RotationUnfinished`] if an owner has fewer entries in an index under the newest key than
    /// under an older one: nothing was changed then. Either a value was not added again, or the owner was shredded (run
    /// [`drop_shredded`](Self::drop_shredded) first), or it is disabled (enable it, or [`clear`](Self::clear) its
    /// entries), or two of its values have [the same short hash](super#how-its-key-is-rotated).
    /// Those of [`KeyManager::retire_index_keys`](crate::keys::KeyManager::retire_index_keys), and those of the table.
    pub async fn finish_rotation(&self, connection: &mut Tx) -> Result<FinishedRotation> {
        let call = telemetry::finish_rotation(self.sealer.keys().known_namespace());
        call.run(|| self.end_rotation(connection)).await
    }

    async fn end_rotation(&self, connection: &mut Tx) -> Result<FinishedRotation> {
        let (keys, table) = (self.sealer.keys(), &self.of.table);
        let in_use = keys.index_keys(connection).await?;
        let Some((active, older)) = in_use.split_first() else { return Ok(FinishedRotation::default()) };
        let older: Vec<KeyId> = older.iter().map(|key| key.key_id).collect();
        // Who adds an entry since the rotation adds it under the active key too. So what is complete stays complete.
        if let Some((index, scope)) = table.unfinished(connection, active.key_id, &older).await? {
            return Err(Error::BlindIndex {
                index: index.into(),
                fault: BlindIndexFault::RotationUnfinished { scope },
            });
        }
        let retired = match older.is_empty() {
            true => Vec::new(),
            false => keys.retire_index_keys(connection, active.key_id).await?,
        };
        // An earlier call may have been interrupted after it destroyed keys.
        let history = keys.key_history(connection, &KeyScope::index()).await?;
        let gone = history.into_iter().flat_map(|history| history.keys).filter(|key| key.shredded_at.is_some());
        let gone: Vec<KeyId> = gone.map(|key| key.key_id).collect();
        let mut removed = 0;
        while !gone.is_empty() {
            let mut batch = DropKeys { table, keys: &gone, removed: 0 };
            keys.store.transact(connection, "removing entries under destroyed keys", &mut batch).await?;
            removed += batch.removed;
            if batch.removed == 0 {
                break;
            }
        }
        Ok(FinishedRotation { retired, removed })
    }
}

/// One page of [`Lookup::drop_shredded`].
struct DropShredded<'p, 's, Tx, K: ?Sized> {
    of: &'p Lookup<'s, Tx, K>,
    after: Option<KeyScope>,
    /// The last scope of the page; `None` if the page was the last one.
    last: Option<KeyScope>,
    dropped: u64,
}

#[async_trait]
impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> TableWork<Tx> for DropShredded<'_, '_, Tx, K> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        let (store, table) = (&self.of.sealer.keys().store, &self.of.of.table);
        (self.last, self.dropped) = (None, 0);
        let scopes = table.scopes_after(tx, self.after.as_ref(), BATCH).await?;
        // What is left of an earlier generation is dropped too.
        let erased = |record: &ScopeRecord| record.state == ScopeState::Shredded || record.generation > 1;
        let records = store.scopes(tx, &scopes, ScopeLock::None).await?;
        let mut wanted: Vec<KeyScope> = records.into_iter().filter(erased).map(|record| record.scope).collect();
        wanted.sort_unstable();
        if !wanted.is_empty() {
            // They are looked at again under the lock: one of them may have been reopened, and have a new entry.
            let locked = store.scopes(tx, &wanted, ScopeLock::Share).await?;
            for record in locked.into_iter().filter(erased) {
                let before = (record.state != ScopeState::Shredded).then_some(record.generation);
                self.dropped += table.drop_scope(tx, &record.scope, before).await?;
            }
        }
        self.last = scopes.into_iter().nth(BATCH as usize - 1);
        Ok(())
    }
}

/// One batch of [`Lookup::finish_rotation`].
struct DropKeys<'p, Tx> {
    table: &'p Arc<dyn BlindIndexTable<Tx = Tx>>,
    keys: &'p [KeyId],
    removed: u64,
}

#[async_trait]
impl<Tx: Send + 'static> TableWork<Tx> for DropKeys<'_, Tx> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        self.removed = self.table.drop_keys(tx, self.keys, BATCH).await?;
        Ok(())
    }
}

/// Drops the entries of a scope that is shredded.
#[async_trait]
impl<Tx: Send + 'static> ErasureConsumer<Tx> for BlindLookup<Tx> {
    /// `blind_index`
    fn name(&self) -> &'static str {
        "blind_index"
    }

    async fn handle(&self, tx: &mut Tx, entry: &LogEntry) -> Result<(), BoxError> {
        if entry.action == ScopeAction::Shred {
            self.table.drop_scope(tx, &entry.scope, None).await?;
        }
        Ok(())
    }
}

impl<Tx> Clone for BlindLookup<Tx> {
    fn clone(&self) -> Self {
        Self { table: Arc::clone(&self.table), index: self.index.clone(), unique: self.unique }
    }
}

impl<Tx> fmt::Debug for BlindLookup<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlindLookup").field("index", &self.index).field("unique", &self.unique).finish_non_exhaustive()
    }
}

impl<Tx, K: ?Sized> fmt::Debug for Lookup<'_, Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("of", &self.of).finish_non_exhaustive()
    }
}
