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
    /// Was there an entry with a MAC?
    authenticated: bool,
    pub(super) carried: u64,
}

impl<'k> ChainCheck<'k> {
    pub(super) fn new(namespace: &'k Namespace, keys: &'k LogKeys) -> Self {
        let scopes = HashMap::new();
        Self { namespace, keys, end: (0, [0; 32]), scopes, authenticated: false, carried: 0 }
    }

    /// Checks the next entry. Returns what is wrong with it, and goes on as if it were right.
    pub(super) fn next(&mut self, sealed: &SealedEntry) -> Option<&'static str> {
        let SealedEntry { row, entry } = sealed;
        let checked = self.scopes.entry(entry.scope.clone()).or_default();
        let mut problem = checked.next(self.namespace, self.keys, entry);
        if problem.is_some() {
            checked.accept(self.namespace, entry);
        }
        if entry.mac.is_none() {
            self.carried += 1;
            if self.authenticated {
                problem = problem.or(Some("has no MAC: it was altered or invented"));
            }
        }
        self.authenticated |= entry.mac.is_some();
        let digest = checked.last.unwrap_or_default();
        let of_row = problem_of_row(self.namespace, self.keys, row, self.end, &digest);
        self.end = (row.seq, row.hash);
        problem.or(of_row)
    }
}
