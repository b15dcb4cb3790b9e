//! The check of entries that the chain has, before a copy gets them: a copy only grows, so one that is not authentic
//! would spoil it for good.

use crate::error::Result;
use crate::keys::log::{Checked, Digest, NOT_ADOPTED, problem_of_row};
use crate::keys::names::KeyScope;
use crate::keys::seal_log::LogSealer;
use crate::keys::{KeyRows, KeyWork, LogEntry, SealedEntry};
use async_trait::async_trait;
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// All entries of the scopes of a page.
pub(super) struct OfScopes {
    scopes: Vec<KeyScope>,
    entries: Vec<LogEntry>,
}

impl OfScopes {
    pub(super) fn of(page: &[SealedEntry]) -> Self {
        let scopes: BTreeSet<KeyScope> = page.iter().map(|sealed| sealed.entry.scope.clone()).collect();
        Self { scopes: scopes.into_iter().collect(), entries: Vec::new() }
    }

    /// How many entries of a page follow from `end` and are authentic, from the first on, and what is wrong with the
    /// next one.
    pub(super) fn check(
        &self,
        by: &LogSealer,
        mut end: (u64, Digest),
        page: &[SealedEntry],
    ) -> (usize, Option<(u64, &'static str)>) {
        let known = self.digests(by);
        for (index, SealedEntry { row, entry }) in page.iter().enumerate() {
            let problem = match known.get(&entry.entry_id) {
                Some((known, Ok(digest))) if *known == entry => {
                    problem_of_row(&by.namespace, &by.keys, row, end, digest)
                }
                Some((_, Err(problem))) => Some(*problem),
                _ => Some("is not the same when it is read again: it is being altered"),
            };
            if let Some(problem) = problem {
                return (index, Some((row.seq, problem)));
            }
            end = (row.seq, row.hash);
        }
        (page.len(), None)
    }

    /// The entries, with the digest of each, or what is wrong with it or with one before it.
    fn digests(&self, by: &LogSealer) -> HashMap<Uuid, (&LogEntry, Result<Digest, &'static str>)> {
        let mut digests = HashMap::with_capacity(self.entries.len());
        for of_scope in self.entries.chunk_by(|one, next| one.scope == next.scope) {
            let (mut checked, mut problem) = (Checked::default(), None);
            let mut of_this = Vec::with_capacity(of_scope.len());
            for entry in of_scope {
                problem = problem.or_else(|| checked.next(&by.namespace, &by.keys, entry));
                let digest = problem.map_or_else(|| Ok(checked.last.unwrap_or_default()), Err);
                of_this.push((entry.entry_id, (entry, digest)));
            }
            if !checked.is_authentic() {
                of_this.iter_mut().for_each(|(_, (_, digest))| *digest = Err(NOT_ADOPTED));
            }
            digests.extend(of_this);
        }
        digests
    }
}

#[async_trait]
impl KeyWork for OfScopes {
    async fn run(&mut self, rows: &mut dyn KeyRows) -> Result<()> {
        self.entries = rows.entries_of(&self.scopes).await?;
        Ok(())
    }
}
