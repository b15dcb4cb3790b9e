//! What may be added to a copy of the shred log.

use super::lines::{Digest, Line, parse};
use crate::error::BoxError;

/// Decides whether lines may be added to a copy. Each [`ShredLogCopy`](crate::erasure::ShredLogCopy) calls it in
/// [`append`](crate::erasure::ShredLogCopy::append), while nobody else can add to the copy. `found` is the last line
/// that the copy has, and `last` and `lines` are what `append` was given.
///
/// It refuses lines that go on from another line than the last, that leave an entry out, that repeat one, that are of
/// another namespace, that follow from another entry than the last (a fork), or that are no lines of a shred log. A
/// copy with these rules can only be continued. That a line says what was written is for its MAC to say, when the copy
/// is verified.
///
/// # Errors
/// Why the lines must not be added.
pub fn check_copied_lines(found: Option<&str>, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
    if found != last {
        return Err("it ends in another line than the one to go on from: somebody else has added to it meanwhile, \
                    export again"
            .into());
    }
    let mut end: Option<End> = match found {
        Some(found) => Some(End::of(&parse(found).map_err(|problem| format!("its last line {problem}"))?)),
        None => None,
    };
    for text in lines {
        if text.contains(['\n', '\r']) {
            return Err("a line that is to be added has line breaks in it".into());
        }
        let line = parse(text).map_err(|problem| format!("a line that is to be added {problem}"))?;
        let after = end.take().unwrap_or_else(|| End::before_the_first(line.stamp().namespace.clone()));
        after.goes_on_with(&line)?;
        end = Some(End::of(&line));
    }
    Ok(())
}

/// The end of a copy.
struct End {
    namespace: String,
    seq: u64,
    hash: Digest,
    keys: String,
}

impl End {
    fn before_the_first(namespace: String) -> Self {
        Self { namespace, seq: 0, hash: [0; 32], keys: String::new() }
    }

    fn of(line: &Line) -> Self {
        let stamp = line.stamp();
        Self { namespace: stamp.namespace.clone(), seq: stamp.seq, hash: stamp.hash, keys: stamp.keys.clone() }
    }

    fn goes_on_with(&self, line: &Line) -> Result<(), String> {
        let (stamp, at) = (line.stamp(), self.seq);
        if stamp.namespace != self.namespace {
            let (own, other) = (&self.namespace, &stamp.namespace);
            return Err(format!("it is of namespace {own:?}, and a line that is to be added of {other:?}"));
        }
        let Line::Entry(_, sealed) = line else {
            return if (stamp.seq, stamp.hash) == (at, self.hash) {
                Ok(())
            } else {
                Err(format!("it ends at entry {at}, and keys that are to be added belong elsewhere"))
            };
        };
        if Some(stamp.seq) != at.checked_add(1) {
            let next = stamp.seq;
            return Err(format!("it ends at entry {at}, and entry {next} is to be added, which is not the next one"));
        }
        if sealed.row.previous_hash != self.hash {
            let next = stamp.seq;
            return Err(format!("entry {next} that is to be added follows from another entry than its entry {at}"));
        }
        if stamp.keys != self.keys {
            return Err(format!("entry {} that is to be added names keys that the copy does not have", stamp.seq));
        }
        Ok(())
    }
}

/// Lines for tests: one of keys, and entries.
#[cfg(test)]
pub(super) mod made {
    use crate::event::now;
    use crate::keys::names::{KeyId, KeyScope};
    use crate::keys::shred_log::lines::{CopiedKeys, Stamp, entry_line};
    use crate::keys::{EntryMac, LogEntry, LogRow, ScopeAction, ScopeState, SealedEntry};
    use uuid::Uuid;

    pub(in crate::keys::shred_log) fn lines(count: usize, reason: impl Fn(usize) -> usize) -> Vec<String> {
        let keys = CopiedKeys::default();
        let mut end = Stamp { namespace: "shop".to_owned(), seq: 0, hash: [0; 32], keys: keys.digest() };
        let mut lines = vec![keys.line(&end)];
        for number in 1..count {
            let (previous_hash, mac) = (end.hash, EntryMac { key_id: KeyId(Uuid::nil()), mac: [7; 32] });
            end.seq += 1;
            end.hash[..8].copy_from_slice(&end.seq.to_be_bytes());
            let entry = LogEntry {
                entry_id: Uuid::now_v7(),
                scope: KeyScope::new("Customer", "1"),
                scope_seq: u32::try_from(number).unwrap(),
                at: now(),
                action: ScopeAction::Shred,
                state: ScopeState::Shredded,
                generation: 1,
                keys: Vec::new(),
                until: None,
                about: None,
                reason: "x".repeat(reason(number)),
                actor: None,
                mac: Some(mac),
            };
            let row = LogRow { seq: end.seq, entry_id: entry.entry_id, previous_hash, hash: end.hash, mac };
            lines.push(entry_line(&end.namespace, &end.keys, &SealedEntry { row, entry }));
        }
        lines
    }
}
