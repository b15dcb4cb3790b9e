//! Checks a chain from its beginning, entry by entry.

use crate::keys::SealedEntry;
use crate::keys::log::{Checked, Digest, LogKeys, problem_of_row};
use crate::keys::names::{KeyScope, Namespace};
use std::collections::HashMap;

/// How far a chain was checked.
pub(super) struct ChainCheck<'k> {
    namespace: &'k Namespace,
    keys: &'k LogKeys,
    /// The number and the hash of the last row.
    pub(super) end: (u64, Digest),
    scopes: HashMap<KeyScope, Checked>,
    /// How many entries have no MAC. Their rows, which have one, were written once the entries were adopted.
    pub(super) carried: u64,
}

impl<'k> ChainCheck<'k> {
    pub(super) fn new(namespace: &'k Namespace, keys: &'k LogKeys) -> Self {
        let scopes = HashMap::new();
        Self { namespace, keys, end: (0, [0; 32]), scopes, carried: 0 }
    }

    /// Checks the next entry. Returns what is wrong with it, and goes on as if it were right.
    pub(super) fn next(&mut self, sealed: &SealedEntry) -> Option<&'static str> {
        let SealedEntry { row, entry } = sealed;
        let checked = self.scopes.entry(entry.scope.clone()).or_default();
        let problem = checked.next(self.namespace, self.keys, entry);
        if problem.is_some() {
            checked.accept(self.namespace, entry);
        }
        self.carried += u64::from(entry.mac.is_none());
        let digest = checked.last.unwrap_or_default();
        let of_row = problem_of_row(self.namespace, self.keys, row, self.end, &digest);
        self.end = (row.seq, row.hash);
        problem.or(of_row)
    }
}
