//! Hashes values for blind indexes, and finds the owners of entries.

use crate::blind_index::{BlindEntry, BlindHash, BlindIndex, BlindLookup, Lookup};
use crate::error::{BlindIndexFault, Error, KeyFault, Result};
use crate::keys::names::KeyScope;
use crate::keys::{IndexKeyVersion, KeyStore, ScopeLock, ScopeRecord, ScopeState};
use crate::seal::opening::KeyStatus;
use crate::sealer::Sealer;
use std::collections::{BTreeSet, HashMap};

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> Sealer<Tx, K> {
    /// The entries of a [blind index](crate::blind_index): add, find and remove them through this.
    #[must_use]
    pub fn lookup<'s>(&'s self, lookup: &'s BlindLookup<Tx>) -> Lookup<'s, Tx, K> {
        Lookup::new(self, lookup)
    }

    /// The hashes of a value, to look for it in a table of your own: one for each key under which it may be stored, the
    /// active one first. Empty if nothing was ever stored. Nothing is locked or created. An entry can be stored under
    /// any of these keys, so look for all of them.
    ///
    /// # Errors
    /// For what the caller passed: [`Error::BlindIndex`] ([`InvalidValue`](BlindIndexFault::InvalidValue),
    /// [`InvalidBits`](BlindIndexFault::InvalidBits)),
    /// [`InputFault::InvalidText`](crate::error::InputFault::InvalidText) for the name of the index. For
    /// the keys and the database: those of [`open`](Self::open).
    pub async fn blind_hashes(&self, tx: &mut Tx, index: &BlindIndex, value: &str) -> Result<Vec<BlindHash>> {
        let spelled = index.spell(value, false)?;
        hashes(index, &self.keys.index_keys(tx).await?, &spelled)
    }

    /// The hashes of a value, to store it for this owner in a table of your own: one for each key, the active one
    /// first. Store all of them, in the same transaction, and delete them when the scope is shredded.
    ///
    /// Like an append, this locks the owner's keys against a shred until the transaction ends, and creates the keys
    /// that are missing. It also locks the keys of the blind indexes against a rotation. The id of the scope is
    /// [normalized](crate::Owner::normalize) as the schemas say: store it as
    /// [`scope_for`](crate::Schemas::scope_for) returns it.
    ///
    /// # Errors
    /// Those of [`blind_hashes`](Self::blind_hashes), [`BlindIndexFault::SimilarKind`], and those of
    /// [`seal_values`](Self::seal_values) for the keys, such as [`Error::Shredded`].
    pub async fn blind_hashes_to_store(
        &self,
        tx: &mut Tx,
        scope: &KeyScope,
        index: &BlindIndex,
        value: &str,
    ) -> Result<Vec<BlindHash>> {
        let spelled = index.spell(value, false)?;
        let owner = self.owner_of_entry(scope, index)?;
        hashes(index, &self.keys.index_keys_to_store(tx, &owner).await?.0, &spelled)
    }

    /// The scope for which an entry is stored.
    pub(crate) fn owner_of_entry(&self, scope: &KeyScope, index: &BlindIndex) -> Result<KeyScope> {
        if let Some(declared) = self.schemas.similar_kind(scope.kind()) {
            let (kind, declared) = (scope.kind().to_owned(), declared.to_owned());
            return Err(index.fault(BlindIndexFault::SimilarKind { kind, declared }));
        }
        self.schemas.scope_for(scope.kind(), scope.id())
    }

    /// The owners of these entries that may be shown to a reader, with an error for one that is disabled. An owner is
    /// left out who was shredded since, even if the scope was reopened, and so is one whom a scheduled shred
    /// withholds.
    pub(crate) async fn shown_owners(
        &self,
        tx: &mut Tx,
        entries: Vec<BlindEntry>,
    ) -> Result<Vec<(KeyScope, Result<()>)>> {
        let entries: BTreeSet<(KeyScope, u32)> =
            entries.into_iter().map(|entry| (entry.scope, entry.generation)).collect();
        let scopes: BTreeSet<&KeyScope> = entries.iter().map(|(scope, _)| scope).collect();
        if scopes.is_empty() {
            return Ok(Vec::new());
        }
        let scopes: Vec<KeyScope> = scopes.into_iter().cloned().collect();
        let records = self.keys.store.scopes(tx, &scopes, ScopeLock::None).await?;
        let records: HashMap<&KeyScope, &ScopeRecord> = records.iter().map(|record| (&record.scope, record)).collect();
        let mut shown = Vec::with_capacity(entries.len());
        for (scope, generation) in entries {
            let Some(record) = records.get(&scope) else {
                let problem = "has an entry in a blind index, but no row in the key table: look for a restore of one \
                               without the other";
                return Err(Error::Keys(KeyFault::ScopeState { scope, problem }));
            };
            if generation > record.generation {
                let problem = "has an entry in a blind index of a later generation than its row in the key table: look \
                               for a restore of one without the other";
                return Err(Error::Keys(KeyFault::ScopeState { scope, problem }));
            }
            match record.state {
                // The scope was reopened since.
                _ if generation < record.generation => {}
                ScopeState::Live => shown.push((scope, Ok(()))),
                ScopeState::Shredded => {}
                ScopeState::Disabled => {
                    let disabled = Err(Error::Disabled { scope: scope.clone() });
                    shown.push((scope, disabled));
                }
                ScopeState::Withheld => {
                    // A row alone must not hide anybody: the shred log has to say so too.
                    if let KeyStatus::Faulty(error) = self.keys.withheld(tx, scope).await? {
                        return Err(error);
                    }
                }
            }
        }
        Ok(shown)
    }
}

/// The hashes of a value that was spelled.
pub(crate) fn hashes(index: &BlindIndex, keys: &[IndexKeyVersion], spelled: &str) -> Result<Vec<BlindHash>> {
    let hash = |key: &IndexKeyVersion| {
        let bytes = key.key.index_key()?.hash(index.name(), spelled, index.size());
        Ok(BlindHash { key_id: key.key_id, version: key.version, bytes })
    };
    keys.iter().map(hash).collect()
}
