//! A required copy of the shred log: nothing is opened or sealed while the key table does not agree with it.

use super::copy::{ShredLogCopy, UNREADABLE, failed, wrong};
use super::export::{compare_end, last_line};
use super::lines::parse;
use crate::error::{Error, KeyFault, Result};
use crate::keys::KeyTable;
use crate::keys::manager::lock;
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Compares a key table with the required copy of its shred log.
#[async_trait]
pub(crate) trait LogGate<Tx>: Send + Sync {
    /// Compares, if it has to be done now.
    async fn check(&self, tx: &mut Tx) -> Result<()>;

    /// Has it to be done now?
    fn is_due(&self) -> bool;

    /// Makes the next check due.
    fn forget(&self);
}

/// The copy that a key manager requires.
pub(crate) struct Required<K: ?Sized> {
    pub(crate) table: Arc<K>,
    pub(crate) copy: Arc<dyn ShredLogCopy>,
    pub(crate) period: Duration,
    /// When the last check began that found nothing.
    pub(crate) checked: Mutex<Option<Instant>>,
}

#[async_trait]
impl<K: KeyTable + ?Sized> LogGate<K::Tx> for Required<K> {
    async fn check(&self, tx: &mut K::Tx) -> Result<()> {
        if !self.is_due() {
            return Ok(());
        }
        let began = Instant::now();
        self.compare(tx).await?;
        *lock(&self.checked) = Some(began);
        Ok(())
    }

    fn is_due(&self) -> bool {
        lock(&self.checked).is_none_or(|checked| checked.elapsed() >= self.period)
    }

    fn forget(&self) {
        *lock(&self.checked) = None;
    }
}

impl<K: KeyTable + ?Sized> Required<K> {
    async fn compare(&self, tx: &mut K::Tx) -> Result<()> {
        let copy = &*self.copy;
        // The copy is read first: it never has an entry that the table does not have yet.
        let last = copy.last().await.map_err(failed(copy, UNREADABLE))?;
        let Some(last) = last else {
            let problem = format!(
                "is empty, and it is required: look whether that is the right one; if there was no copy before, begin \
                 it: eventseal shred-log export --append {}",
                copy.name()
            );
            return Err(wrong(copy, None, problem));
        };
        let line = parse(&last).map_err(|problem| wrong(copy, None, last_line(&problem)))?;
        let head = self.table.log_head(tx).await?;
        if let Some(problem) = compare_end(&*self.table, tx, line.stamp(), &head).await? {
            return Err(problem.into_error(copy));
        }
        if let Some(disagreement) = self.table.log_disagreements(tx, 1).await?.pop() {
            let problem = disagreement.to_string();
            return Err(Error::Keys(KeyFault::ShredLogBehind { copy: copy.name(), problem }));
        }
        Ok(())
    }
}
