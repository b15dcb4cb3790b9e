//! Lists scopes in pages.

use crate::error::{Error, Result, StorageFault};
use crate::keys::listed::ListedScope;
use crate::keys::names::{KekId, KeyScope, following};
use crate::keys::{KeyManager, KeyTable, ScopeState};
use std::collections::HashMap;

/// How many rows are read at a time if some of them may be left out.
const WINDOW: usize = 1_000;

/// Which scopes are listed: see [`KeyManager::scopes`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopeQuery {
    /// Only scopes of this kind; of all kinds if `None`.
    pub kind: Option<String>,
    /// Only scopes whose newest data key belongs to this partition.
    pub partition: Option<String>,
    /// Only scopes in this state.
    pub state: Option<ScopeState>,
    /// Only scopes after this one, in ascending order of kind and then id, byte by byte.
    pub after: Option<KeyScope>,
    /// How many scopes a page has, at least one. 100 by default.
    pub limit: u32,
}

impl Default for ScopeQuery {
    fn default() -> Self {
        Self { kind: None, partition: None, state: None, after: None, limit: 100 }
    }
}

/// A page of scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopePage {
    /// The scopes, in ascending order of kind and then id, byte by byte.
    pub scopes: Vec<ScopeInfo>,
    /// What [`ScopeQuery::after`] must be for the next page. `None` if this is the last page.
    pub next: Option<KeyScope>,
}

/// A key scope in a [`ScopePage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeInfo {
    /// The owner of the keys.
    pub scope: KeyScope,
    /// The scope's state now.
    pub state: ScopeState,
    /// 1 at first, and one more after each reopening.
    pub generation: u32,
    /// The version of its newest data key; `None` if it never had one.
    pub last_version: Option<u32>,
    /// The partition of the key-encryption key that wraps its newest data key, or did before that was destroyed. `None`
    /// if the scope never had a data key, or if the key table does not know the key-encryption key.
    pub partition: Option<String>,
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized> KeyManager<Tx, K> {
    /// Lists scopes: those for which something was ever sealed, and those that were shredded before anything was. The
    /// crate's own scopes are left out. This changes and locks nothing, and needs no KMS.
    ///
    /// ```
    /// # use eventseal::Result;
    /// # use eventseal::keys::{KeyManager, ScopeQuery};
    /// # async fn list<C: Send + 'static>(keys: &KeyManager<C>, tx: &mut C) -> Result<()> {
    /// let mut query = ScopeQuery::default();
    /// query.kind = Some("Customer".to_owned());
    /// loop {
    ///     let page = keys.scopes(tx, &query).await?;
    ///     for listed in &page.scopes {
    ///         println!("{} is {}", listed.scope, listed.state.as_str());
    ///     }
    ///     query.after = page.next;
    ///     if query.after.is_none() {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # What it costs
    /// A page costs its own rows, wherever in the table it begins. No index leads to a partition or a state, so with
    /// either of them all scopes (of the kind, if one is named) are read from [`after`](ScopeQuery::after) on, in
    /// statements of 1,000 rows, until the page is full. All pages together read the table at most twice. If scopes are
    /// added meanwhile, they are found if they come after the page that was read last.
    ///
    /// # Errors
    /// [`Error::Database`](crate::Error::Database).
    pub async fn scopes(&self, tx: &mut Tx, query: &ScopeQuery) -> Result<ScopePage> {
        let limit = usize::try_from(query.limit.max(1)).unwrap_or(usize::MAX);
        let mut scopes: Vec<ScopeInfo> = Vec::new();
        let mut partitions: HashMap<KekId, String> = HashMap::new();
        let mut from = query.start();
        // One more than the limit is looked for, to know whether there is another page.
        while let Some(start) = from.take().filter(|_| scopes.len() <= limit) {
            let wanted = limit.saturating_add(1) - scopes.len();
            let window = if query.leaves_out() { wanted.max(WINDOW) } else { wanted };
            let window = u32::try_from(window).unwrap_or(u32::MAX);
            let rows = self.store.scopes_from(tx, &start, window).await?;
            if let Some(last) = rows.last().filter(|_| rows.len() as u64 >= u64::from(window)) {
                from = Some(following(&last.scope));
            }
            if from.as_ref().is_some_and(|next| *next <= start) {
                return Err(disordered());
            }
            self.add_partitions(tx, &rows, &mut partitions).await?;
            for row in rows {
                if query.kind.as_ref().is_some_and(|kind| *kind != row.scope.kind()) {
                    from = None;
                    break;
                }
                let ListedScope { scope, state, generation, last_version, kek_id } = row;
                let partition = kek_id.and_then(|kek_id| partitions.get(&kek_id).cloned());
                let info = ScopeInfo { scope, state, generation, last_version, partition };
                if query.wants(&info) {
                    scopes.push(info);
                }
            }
        }
        let has_more = scopes.len() > limit;
        scopes.truncate(limit);
        let next = scopes.last().filter(|_| has_more).map(|last| last.scope.clone());
        Ok(ScopePage { scopes, next })
    }

    /// Reads the partitions of key-encryption keys that were not read yet.
    async fn add_partitions(
        &self,
        tx: &mut Tx,
        rows: &[ListedScope],
        partitions: &mut HashMap<KekId, String>,
    ) -> Result<()> {
        let mut unknown: Vec<KekId> =
            rows.iter().filter_map(|row| row.kek_id).filter(|kek_id| !partitions.contains_key(kek_id)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            let keks = self.store.keks(tx, &unknown).await?;
            partitions.extend(keks.into_iter().map(|kek| (kek.kek_id, kek.partition)));
        }
        Ok(())
    }
}

impl ScopeQuery {
    /// The first scope that may be listed. `None` if there can't be any.
    fn start(&self) -> Option<KeyScope> {
        match (&self.kind, &self.after) {
            (None, None) => Some(KeyScope::new("", "")),
            (None, Some(after)) => Some(following(after)),
            (Some(kind), Some(after)) if kind == after.kind() => Some(following(after)),
            (Some(kind), Some(after)) if kind.as_str() < after.kind() => None,
            (Some(kind), _) => Some(KeyScope::new(kind.as_str(), "")),
        }
    }

    /// May rows be left out of the page?
    fn leaves_out(&self) -> bool {
        self.partition.is_some() || self.state.is_some()
    }

    fn wants(&self, row: &ScopeInfo) -> bool {
        !row.scope.is_reserved()
            && self.state.is_none_or(|state| state == row.state)
            && (self.partition.is_none() || self.partition == row.partition)
    }
}

/// A key table lists scopes that it was not asked for, so a list would have no end.
pub(crate) fn disordered() -> Error {
    let problem = "are not in ascending order";
    Error::Storage(StorageFault::InvalidRow { what: "the scopes that the key table lists", problem })
}
