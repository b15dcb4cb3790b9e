//! Copies of the shred log that break one rule each: the conformance suite finds every one of them.

use async_trait::async_trait;
use eventseal::conformance;
use eventseal::erasure::{ShredLogCopy, check_copied_lines};
use eventseal::error::BoxError;
use std::sync::{Arc, Mutex};
use support::caught;

/// What a stranger's copy does wrongly.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Nothing,
    HasNoName,
    HasLinesFromTheBeginning,
    ForgetsTheLast,
    FindsTheFirstForTheLast,
    CountsFromOne,
    IgnoresTheLimit,
    ReadsBackwards,
    TrimsLines,
    CutsLongLines,
    ReplacesOddText,
    KeepsItsOwnLines,
    GoesOnFromAnything,
    GoesOnFromNothing,
    ChecksOneLineOnly,
    ChecksNothing,
    AddsBeforeItChecks,
    AddsHalf,
    LooksBeforeItWaits,
    RefusesNoLines,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A stranger's copy, in memory.
struct Mine(Wrong, Lines);

impl Mine {
    fn stored(&self, line: &str) -> String {
        match self.0 {
            Wrong::TrimsLines => line.replace(" with white space ", "with white space"),
            Wrong::CutsLongLines => line.chars().take(65_535).collect(),
            Wrong::ReplacesOddText => line.replace('\u{1F512}', "?"),
            _ => line.to_owned(),
        }
    }

    fn checked(&self, found: Option<&str>, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        match self.0 {
            Wrong::ChecksNothing => Ok(()),
            Wrong::GoesOnFromAnything => check_copied_lines(found, found, lines),
            Wrong::GoesOnFromNothing if last.is_none() => check_copied_lines(found, found, lines),
            Wrong::ChecksOneLineOnly => check_copied_lines(found, last, &lines[..lines.len().min(1)]),
            Wrong::RefusesNoLines if lines.is_empty() => Err("there are no lines".into()),
            _ => check_copied_lines(found, last, lines),
        }
    }
}

#[async_trait]
impl ShredLogCopy for Mine {
    fn name(&self) -> String {
        if self.0 == Wrong::HasNoName { String::new() } else { "mine".to_owned() }
    }

    async fn last(&self) -> Result<Option<String>, BoxError> {
        let lines = self.1.lock().unwrap();
        Ok(match self.0 {
            Wrong::ForgetsTheLast => None,
            Wrong::FindsTheFirstForTheLast => lines.first().cloned(),
            _ => lines.last().cloned(),
        })
    }

    async fn lines(&self, from: u64, limit: u32) -> Result<Vec<String>, BoxError> {
        let (mut from, mut limit) = (usize::try_from(from)?, limit as usize);
        match self.0 {
            Wrong::CountsFromOne => from = from.saturating_sub(1),
            Wrong::IgnoresTheLimit => limit = usize::MAX,
            Wrong::HasLinesFromTheBeginning => from = 0,
            _ => {}
        }
        let mut found: Vec<String> = self.1.lock().unwrap().iter().skip(from).take(limit).cloned().collect();
        if self.0 == Wrong::ReadsBackwards {
            found.reverse();
        }
        Ok(found)
    }

    async fn append(&self, last: Option<&str>, lines: &[String]) -> Result<(), BoxError> {
        let new: Vec<String> = lines.iter().map(|line| self.stored(line)).collect();
        match self.0 {
            Wrong::LooksBeforeItWaits => {
                let found = self.1.lock().unwrap().last().cloned();
                tokio::task::yield_now().await;
                self.checked(found.as_deref(), last, lines)?;
                self.1.lock().unwrap().extend(new);
            }
            Wrong::AddsBeforeItChecks => {
                let mut all = self.1.lock().unwrap();
                let found = all.last().cloned();
                all.extend(new);
                self.checked(found.as_deref(), last, lines)?;
            }
            Wrong::AddsHalf => {
                let mut all = self.1.lock().unwrap();
                for (index, line) in lines.iter().enumerate() {
                    let found = all.last().cloned();
                    let last = if index == 0 { last } else { found.as_deref() };
                    self.checked(found.as_deref(), last, std::slice::from_ref(line))?;
                    all.push(line.clone());
                }
            }
            _ => {
                let mut all = self.1.lock().unwrap();
                self.checked(all.last().map(String::as_str), last, lines)?;
                all.extend(new);
            }
        }
        Ok(())
    }
}

async fn suite(wrong: Wrong) {
    let lines = Lines::default();
    let other = if wrong == Wrong::KeepsItsOwnLines { Lines::default() } else { Arc::clone(&lines) };
    conformance::shred_log_copy(&Mine(wrong, lines), &Mine(wrong, other)).await;
}

#[tokio::test]
async fn the_suite_finds_every_broken_rule() {
    suite(Wrong::Nothing).await;
    let kept = "lines must be those that were added";
    for (wrong, rule) in [
        (Wrong::HasNoName, "name must say which copy it is"),
        (Wrong::HasLinesFromTheBeginning, kept),
        (Wrong::ForgetsTheLast, "last must be the last line"),
        (Wrong::FindsTheFirstForTheLast, "last must be the last line"),
        (Wrong::CountsFromOne, kept),
        (Wrong::IgnoresTheLimit, kept),
        (Wrong::ReadsBackwards, kept),
        (Wrong::TrimsLines, "last must be the last line"),
        (Wrong::CutsLongLines, kept),
        (Wrong::ReplacesOddText, kept),
        (Wrong::KeepsItsOwnLines, "last must be the last line"),
        (Wrong::GoesOnFromAnything, "append must refuse lines that go on from no line"),
        (Wrong::GoesOnFromNothing, "append must refuse lines that go on from no line"),
        (Wrong::ChecksOneLineOnly, "append must refuse lines that leave one out after one that is right"),
        (Wrong::ChecksNothing, "append must refuse lines that go on from no line"),
        (Wrong::AddsBeforeItChecks, "last must be the last line that was added, when lines that go on from no line"),
        (Wrong::AddsHalf, "last must be the last line that was added, when lines that leave one out after one"),
        (Wrong::LooksBeforeItWaits, "append must let one do so"),
        (Wrong::RefusesNoLines, "append of no lines failed"),
    ] {
        caught(&format!("{wrong:?}"), rule, suite(wrong)).await;
    }
}
