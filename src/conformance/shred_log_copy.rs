//! The contract of a copy of the shred log.

use crate::conformance::key_store::entry;
use crate::erasure::ShredLogCopy;
use crate::error::BoxError;
use crate::keys::names::{KeyId, KeyScope};
use crate::keys::shred_log::lines::{CopiedKeys, Stamp, entry_line};
use crate::keys::{EntryMac, LogRow, ScopeAction, ScopeState, SealedEntry};
use std::pin::{Pin, pin};
use std::task::Poll;
use uuid::Uuid;

/// Makes lines as an export does.
#[derive(Clone)]
struct Lines {
    end: Stamp,
}

impl Lines {
    fn of(namespace: &str) -> Self {
        let keys = CopiedKeys::default().digest();
        Self { end: Stamp { namespace: namespace.to_owned(), seq: 0, hash: [0; 32], keys } }
    }

    fn keys(&self) -> String {
        CopiedKeys::default().line(&self.end)
    }

    /// The next entry. `branch` tells those that go on in two ways.
    fn entry(&mut self, branch: u8, reason: &str) -> String {
        self.end.seq += 1;
        let mut hash = [branch; 32];
        hash[..8].copy_from_slice(&self.end.seq.to_be_bytes());
        let scope = KeyScope::new("Customer", format!("{}", self.end.seq));
        let mut entry = entry(&scope, 1, ScopeAction::Shred, ScopeState::Shredded);
        reason.clone_into(&mut entry.reason);
        let row = LogRow {
            seq: self.end.seq,
            entry_id: entry.entry_id,
            previous_hash: self.end.hash,
            hash,
            mac: EntryMac { key_id: KeyId(Uuid::now_v7()), mac: [7; 32] },
        };
        self.end.hash = hash;
        entry_line(&self.end.namespace, &self.end.keys, &SealedEntry { row, entry })
    }

    fn entries(&mut self, branch: u8, count: usize) -> Vec<String> {
        (0..count).map(|_| self.entry(branch, "request")).collect()
    }
}

fn must<T>(result: Result<T, BoxError>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what} failed: {error}"))
}

/// Asserts that both handles see these lines, in every page.
async fn holds(copies: [&dyn ShredLogCopy; 2], expected: &[String], when: &str) {
    for copy in copies {
        let last = must(copy.last().await, "last");
        // The lines are too long to be shown.
        assert!(last.as_ref() == expected.last(), "last must be the last line that was added, {when}");
        let count = expected.len();
        for (from, limit) in [(0, count + 1), (0, 1), (1, 2), (count.saturating_sub(1), 5), (count, 5), (0, count)] {
            let found = must(copy.lines(from as u64, u32::try_from(limit).unwrap_or(u32::MAX)).await, "lines");
            let page: Vec<&String> = expected.iter().skip(from).take(limit).collect();
            assert!(
                found.iter().eq(page),
                "lines must be those that were added, from the index on and up to the limit, {when}: from {from}, at \
                 most {limit}, and {} came",
                found.len()
            );
        }
    }
}

/// Checks a copy of the shred log: lines are kept as they are and in order, are only ever added, all or none, and by
/// one writer at a time. `copy` must be empty. `other` is the same copy as another process opens it.
///
/// That lines outlast a crash can't be checked here.
pub async fn shred_log_copy<C: ShredLogCopy, O: ShredLogCopy>(copy: &C, other: &O) {
    let both: [&dyn ShredLogCopy; 2] = [copy, other];
    assert!(!copy.name().is_empty() && copy.name() == other.name(), "name must say which copy it is");
    holds(both, &[], "and there are none yet").await;

    let mut made = Lines::of("conformance");
    let mut all = vec![made.keys()];
    all.extend(made.entries(1, 3));
    must(copy.append(None, &all).await, "append to an empty copy");
    holds(both, &all, "after the first ones").await;

    let odd = [
        made.entry(1, "ä \u{1F512} \\ \" ' \u{0} \u{7} {} %s $1 ?"),
        made.entry(1, &"long ".repeat(20_000)),
        made.entry(1, " with white space "),
    ];
    must(other.append(all.last().map(String::as_str), &odd).await, "append of lines with any text");
    all.extend(odd);
    holds(both, &all, "whatever text they have").await;
    must(copy.append(all.last().map(String::as_str), &[]).await, "append of no lines");
    let more = made.entries(1, 40);
    must(copy.append(all.last().map(String::as_str), &more).await, "append");
    all.extend(more);
    holds(both, &all, "after many").await;

    refuses_what_does_not_follow(both, &made, &all).await;
    one_of_many_wins(both, &mut made, &mut all).await;
}

/// Lines that must not be added, and nothing is.
async fn refuses_what_does_not_follow(both: [&dyn ShredLogCopy; 2], made: &Lines, all: &[String]) {
    let last = all.last().map(String::as_str);
    let [.., before, _] = all else { panic!("there are lines") };
    let next = made.clone().entry(1, "next");
    let after = |change: &dyn Fn(&mut Lines)| {
        let mut lines = made.clone();
        change(&mut lines);
        lines.entry(1, "next")
    };
    let good_and = |bad: String| {
        let mut lines = made.clone();
        vec![lines.entry(1, "next"), bad]
    };
    let cases: Vec<(&str, Option<&str>, Vec<String>)> = vec![
        ("that go on from no line, and there are lines", None, vec![next.clone()]),
        ("that go on from another line than the last", Some(before), vec![next.clone()]),
        ("that go on from a line that it never had", Some(&next), vec![next.clone()]),
        ("that leave an entry out", last, vec![after(&|lines| lines.end.seq += 1)]),
        ("that leave one out after one that is right", last, good_and(after(&|lines| lines.end.seq += 2))),
        ("that repeat the last one", last, all.last().cloned().into_iter().collect()),
        ("that repeat one they add", last, good_and(next.clone())),
        ("that follow from another entry (a fork)", last, vec![after(&|lines| lines.end.hash = [9; 32])]),
        ("of another namespace", last, vec![after(&|lines| lines.end.namespace = "another".to_owned())]),
        ("that name other keys than it has", last, vec![after(&|lines| lines.end.keys = "0".repeat(32))]),
        ("of keys that belong elsewhere", last, good_and(Lines::of("conformance").keys())),
        ("that are no lines of a log", last, vec!["no line".to_owned()]),
        ("that are cut off", last, vec![next[..next.len() - 9].to_owned()]),
        ("that hold line breaks", last, vec![next.replacen(',', ",\n", 1)]),
        ("whose second one is no line", last, good_and("no line".to_owned())),
    ];
    for (what, last, lines) in cases {
        for copy in both {
            assert!(copy.append(last, &lines).await.is_err(), "append must refuse lines {what}");
            holds(both, all, &format!("when lines {what} were refused")).await;
        }
    }
}

/// Several writers go on from the same line at once. One of them does, and the others are refused.
async fn one_of_many_wins(both: [&dyn ShredLogCopy; 2], made: &mut Lines, all: &mut Vec<String>) {
    for round in 0..8_u8 {
        let last = all.last().cloned();
        let mut branches: Vec<(Lines, Vec<String>)> = (0..4)
            .map(|branch| {
                let mut lines = made.clone();
                let added = lines.entries(round * 4 + branch + 10, 2);
                (lines, added)
            })
            .collect();
        let writers = branches.iter().enumerate().map(|(index, (_, lines))| {
            let copy = both[index % 2];
            let last = last.as_deref();
            async move { copy.append(last, lines).await.is_ok() }
        });
        let won = at_once(writers).await;
        let winners: Vec<usize> = (0..won.len()).filter(|index| won[*index]).collect();
        assert_eq!(winners.len(), 1, "of several that go on from one line at once, append must let one do so");
        let (lines, added) = branches.swap_remove(winners[0]);
        *made = lines;
        all.extend(added);
        holds(both, all, "when one of several writers has won").await;
    }
}

/// Runs futures side by side, and returns what they come to.
async fn at_once<F: Future<Output = bool>>(futures: impl Iterator<Item = F>) -> Vec<bool> {
    let mut futures: Vec<Pin<Box<F>>> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<bool>> = vec![None; futures.len()];
    let all = std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    });
    pin!(all).await;
    done.into_iter().flatten().collect()
}
