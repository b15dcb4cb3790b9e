//! What the log says of replays of a copy into a log that had gone on without it (a fork).
//!
//! Such a replay notes its beginning before the first entry of the copy gets a new number, and its end once the log has
//! every entry of the copy. Between the two, what was shredded may still be open. So no new copy is begun then, and
//! nothing is opened where a copy is required.

use super::verify::CheckedCopy;
use crate::keys::log::Digest;
use crate::keys::names::KeyScope;
use crate::keys::{LogEntry, ScopeAction};
use std::collections::HashSet;
use std::fmt::Write as _;
use uuid::Uuid;

/// The notes of such replays.
#[derive(Default)]
pub(crate) struct Forks {
    /// The entries that note a beginning, and what they say.
    begun: Vec<(Uuid, String)>,
    /// The beginnings to which there is an end.
    ended: HashSet<Uuid>,
}

impl Forks {
    /// The notes among the entries of the log itself.
    pub(super) fn of(entries: &[LogEntry]) -> Self {
        let mut forks = Self::default();
        entries.iter().for_each(|entry| forks.add(entry));
        forks
    }

    pub(super) fn add(&mut self, entry: &LogEntry) {
        if entry.action != ScopeAction::Fork || entry.scope != KeyScope::integrity() {
            return;
        }
        match entry.about {
            Some(begun) => drop(self.ended.insert(begun)),
            None if entry.reason.starts_with(BEGAN) => self.begun.push((entry.entry_id, entry.reason.clone())),
            None => {}
        }
    }

    /// What the beginnings say to which there is no end.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &str> {
        self.begun.iter().filter(|(id, _)| !self.ended.contains(id)).map(|(_, reason)| reason.as_str())
    }

    /// Did a replay of the copy with this end come to its own end? `None` if there was no such replay.
    pub(super) fn has_ended(&self, end: (u64, Digest)) -> Option<bool> {
        let reason = beginning(end);
        let mut of_copy = self.begun.iter().filter(|(_, begun)| *begun == reason).peekable();
        of_copy.peek()?;
        Some(of_copy.all(|(id, _)| self.ended.contains(id)))
    }
}

/// What the log has, of what a copy has.
pub(super) fn has_all(ids: &HashSet<Uuid>, copy: &CheckedCopy) -> bool {
    copy.ids.iter().all(|id| ids.contains(id))
}

const BEGAN: &str = "the replay of a copy began";

/// What an entry says that notes the beginning of a replay.
pub(super) fn beginning(end: (u64, Digest)) -> String {
    of_copy(BEGAN, end)
}

/// What an entry says that notes the end of a replay. It is about the entry that notes its beginning.
pub(super) fn ending(end: (u64, Digest)) -> String {
    of_copy("the replay of a copy is complete", end)
}

fn of_copy(what: &str, (seq, hash): (u64, Digest)) -> String {
    let mut text = format!("{what} that ends at entry {seq} with hash ");
    for byte in hash {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
