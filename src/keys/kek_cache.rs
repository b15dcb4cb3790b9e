//! Opened key-encryption keys: each is asked for once, by whoever comes first, and kept for a while. So is the answer
//! that there is none, for a moment.

use crate::crypto::random;
use crate::crypto::secret::SecretKey;
use crate::error::{Error, KmsFault, Result};
use crate::keys::kek::KekRecord;
use crate::keys::manager::lock;
use crate::keys::names::KekId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// How long a failure of the KMS is the answer for those who come after it. Long enough that a crowd does not wait in
/// turn for one time-out after the other, short enough that nobody notices when the KMS is back.
pub(crate) const FAILURES_ARE_KEPT: Duration = Duration::from_secs(1);

pub(crate) struct KekCache {
    period: Duration,
    entries: Mutex<HashMap<KekId, Entry>>,
}

/// An opened key-encryption key.
pub(crate) struct Kek {
    pub(crate) secret: SecretKey,
    /// Until when it may be kept, and what it opened with it; `None` is for ever.
    pub(crate) until: Option<Instant>,
}

struct Entry {
    /// What is asked: a row that was exchanged is another question.
    asked: KekRecord,
    answer: Arc<OnceCell<Answer>>,
}

struct Answer {
    kek: Result<Arc<Kek>, KmsFault>,
    until: Option<Instant>,
}

impl Answer {
    fn is_fresh(&self, now: Instant) -> bool {
        is_fresh(self.until, now)
    }
}

pub(crate) fn is_fresh(until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| now < until)
}

impl KekCache {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, entries: Mutex::default() }
    }

    pub(crate) fn get(&self, kek_id: KekId) -> Option<Arc<Kek>> {
        self.answer(kek_id)?.ok()
    }

    /// What is known of a key without asking: it, or why it was not to be had a moment ago.
    pub(crate) fn answer(&self, kek_id: KekId) -> Option<Result<Arc<Kek>>> {
        let mut entries = lock(&self.entries);
        let answer = entries.get(&kek_id)?.answer.get()?;
        if !answer.is_fresh(Instant::now()) {
            // Keys are not kept longer than they may be used.
            entries.remove(&kek_id);
            return None;
        }
        Some(answer.kek.as_ref().map(Arc::clone).map_err(|fault| fault.clone().into()))
    }

    /// The key, opened by `open` if it is not at hand. Those who come meanwhile wait for the one who asks, and get what
    /// he gets, be it that the KMS does not answer.
    pub(crate) async fn get_or_open(
        &self,
        asked: &KekRecord,
        open: impl Future<Output = Result<SecretKey>>,
    ) -> Result<Arc<Kek>> {
        let cell = {
            let mut entries = lock(&self.entries);
            let now = Instant::now();
            entries.retain(|_, entry| entry.answer.get().is_none_or(|answer| answer.is_fresh(now)));
            let same = |entry: &Entry| {
                entry.answer.get().is_some_and(|answer| answer.kek.is_ok()) || entry.asked.wrapped == asked.wrapped
            };
            if entries.get(&asked.kek_id).is_some_and(|entry| !same(entry)) {
                entries.remove(&asked.kek_id);
            }
            let new = || Entry { asked: asked.clone(), answer: Arc::default() };
            Arc::clone(&entries.entry(asked.kek_id).or_insert_with(new).answer)
        };
        let open = async {
            let (kek, period) = match open.await {
                Ok(secret) => (Ok(secret), self.jittered()),
                Err(error) => (Err(said(error)?), FAILURES_ARE_KEPT),
            };
            let until = Instant::now().checked_add(period);
            Ok::<_, Error>(Answer { kek: kek.map(|secret| Arc::new(Kek { secret, until })), until })
        };
        let answer = cell.get_or_try_init(|| open).await?;
        answer.kek.as_ref().map(Arc::clone).map_err(|fault| fault.clone().into())
    }

    /// Drops what has expired, and says when something will.
    pub(crate) fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| entry.answer.get().is_none_or(|answer| answer.is_fresh(now)));
        entries.values().filter_map(|entry| entry.answer.get()?.until).min()
    }

    pub(crate) fn remove(&self, kek_id: KekId) {
        lock(&self.entries).remove(&kek_id);
    }

    /// Up to a tenth less than the period, so that processes that started together do not ask together for ever.
    fn jittered(&self) -> Duration {
        let mut byte = [0];
        let less = if random::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 0 };
        self.period - self.period / 2_560 * less
    }
}

/// What the KMS said, for all who wait for it. Any other error is of the one who asked, and the next one asks again.
fn said(error: Error) -> Result<KmsFault> {
    match error {
        Error::Kms(fault @ (KmsFault::Unavailable { .. } | KmsFault::Refused { .. })) => Ok(fault),
        error => Err(error),
    }
}
