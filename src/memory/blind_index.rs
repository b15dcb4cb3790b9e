//! Blind indexes in memory.

use crate::blind_index::{BlindEntry, BlindIndexTable};
use crate::error::Result;
use crate::keys::names::{KeyId, KeyScope};
use crate::memory::{MemoryTx, Tables};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};

/// The [blind indexes](crate::blind_index) of a [`MemoryDb`](crate::memory::MemoryDb).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MemoryBlindIndex;

impl MemoryBlindIndex {
    /// Makes the table. It has no state of its own: the entries are in the database that the transaction belongs to.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Tables {
    /// The entries of an index with this hash, in ascending order of scope.
    fn entries_with<'t>(&'t self, index: &str, key_id: KeyId, hash: &[u8]) -> impl Iterator<Item = &'t BlindEntry> {
        let scope = KeyScope::new("", "");
        let first =
            BlindEntry { index: index.into(), key_id, hash: hash.to_vec(), scope, unique: false, generation: 0 };
        let rows = self.blind_entries.range(first.clone()..);
        rows.take_while(move |row| row.index == first.index && row.key_id == key_id && row.hash == first.hash)
    }

    /// The entry at the place of this one.
    fn entry_at(&self, entry: &BlindEntry) -> Option<&BlindEntry> {
        let is_there = |row: &&BlindEntry| row.unique == entry.unique && (entry.unique || row.scope == entry.scope);
        self.entries_with(&entry.index, entry.key_id, &entry.hash).find(is_there)
    }
}

#[async_trait]
impl BlindIndexTable for MemoryBlindIndex {
    type Tx = MemoryTx;

    async fn add(&self, tx: &mut MemoryTx, entries: &[BlindEntry]) -> Result<Vec<BlindEntry>> {
        let tables = tx.write()?;
        for entry in entries {
            if tables.entry_at(entry).is_none() {
                tables.blind_entries.insert(entry.clone());
            }
        }
        Ok(entries.iter().filter_map(|entry| tables.entry_at(entry).cloned()).collect())
    }

    async fn find(
        &self,
        tx: &mut MemoryTx,
        index: &str,
        hashes: &[(KeyId, Vec<u8>)],
        limit: u32,
    ) -> Result<Vec<BlindEntry>> {
        let tables = tx.read()?;
        let of = |(key_id, hash): &(KeyId, Vec<u8>)| {
            tables.entries_with(index, *key_id, hash).take(limit as usize).cloned().collect::<Vec<_>>()
        };
        Ok(hashes.iter().flat_map(of).collect())
    }

    async fn remove(&self, tx: &mut MemoryTx, entries: &[BlindEntry]) -> Result<()> {
        let tables = tx.write()?;
        for entry in entries {
            tables.blind_entries.remove(entry);
        }
        Ok(())
    }

    async fn keep_only(
        &self,
        tx: &mut MemoryTx,
        index: &str,
        scope: &KeyScope,
        hashes: &[(KeyId, Vec<u8>)],
    ) -> Result<()> {
        let is_kept = |row: &BlindEntry| hashes.iter().any(|(key_id, hash)| row.key_id == *key_id && row.hash == *hash);
        tx.write()?.blind_entries.retain(|row| *row.index != *index || row.scope != *scope || is_kept(row));
        Ok(())
    }

    async fn drop_scope(&self, tx: &mut MemoryTx, scope: &KeyScope, before: Option<u32>) -> Result<u64> {
        let rows = &mut tx.write()?.blind_entries;
        let there = rows.len();
        rows.retain(|row| row.scope != *scope || before.is_some_and(|before| row.generation >= before));
        Ok((there - rows.len()) as u64)
    }

    async fn scopes_after(&self, tx: &mut MemoryTx, after: Option<&KeyScope>, limit: u32) -> Result<Vec<KeyScope>> {
        let tables = tx.read()?;
        let scopes: BTreeSet<&KeyScope> = tables.blind_entries.iter().map(|row| &row.scope).collect();
        let wanted = scopes.into_iter().filter(|scope| after.is_none_or(|after| *scope > after));
        Ok(wanted.take(limit as usize).cloned().collect())
    }

    async fn unfinished(
        &self,
        tx: &mut MemoryTx,
        active: KeyId,
        older: &[KeyId],
    ) -> Result<Option<(String, KeyScope)>> {
        let tables = tx.read()?;
        let mut counts: BTreeMap<(&str, &KeyScope, KeyId), u64> = BTreeMap::new();
        for row in &tables.blind_entries {
            *counts.entry((&row.index, &row.scope, row.key_id)).or_default() += 1;
        }
        let is_unfinished = |((index, scope, key_id), count): &(&(&str, &KeyScope, KeyId), &u64)| {
            older.contains(key_id) && **count > counts.get(&(index, scope, active)).copied().unwrap_or(0)
        };
        Ok(counts.iter().find(is_unfinished).map(|((index, scope, _), _)| ((*index).to_owned(), (*scope).clone())))
    }

    async fn drop_keys(&self, tx: &mut MemoryTx, keys: &[KeyId], limit: u32) -> Result<u64> {
        let rows = &mut tx.write()?.blind_entries;
        let gone: Vec<BlindEntry> =
            rows.iter().filter(|row| keys.contains(&row.key_id)).take(limit as usize).cloned().collect();
        for row in &gone {
            rows.remove(row);
        }
        Ok(gone.len() as u64)
    }
}
