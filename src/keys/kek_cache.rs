//! The cache of opened key-encryption keys. The first call that needs a key asks the KMS for it, and the key is kept
//! for a while. A failure of the KMS is kept for a moment, too.

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

/// How long a failure of the KMS is the answer for later calls. It is long enough that many calls do not each wait for
/// a time-out, one after the other. It is short enough that nobody notices it once the KMS is back.
pub(crate) const FAILURES_ARE_KEPT: Duration = Duration::from_secs(1);

pub(crate) struct KekCache {
    period: Duration,
    entries: Mutex<HashMap<KekId, Entry>>,
}

/// An opened key-encryption key.
pub(crate) struct Kek {
    pub(crate) secret: SecretKey,
    /// The time until which it may be kept, and the data keys that it opened with it; `None` for ever.
    pub(crate) until: Option<Instant>,
}

struct Entry {
    /// The row for which the KMS is asked. If the row was replaced, that is another question.
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

    /// The key, and the row for which the KMS was asked.
    pub(crate) fn opened(&self, kek_id: KekId) -> Option<(KekRecord, Arc<Kek>)> {
        let entries = lock(&self.entries);
        let entry = entries.get(&kek_id)?;
        let answer = entry.answer.get().filter(|answer| answer.is_fresh(Instant::now()))?;
        Some((entry.asked.clone(), Arc::clone(answer.kek.as_ref().ok()?)))
    }

    /// The answer that is known without asking the KMS: the key, or a failure of a moment ago.
    pub(crate) fn answer(&self, kek_id: KekId) -> Option<Result<Arc<Kek>>> {
        let mut entries = lock(&self.entries);
        let answer = entries.get(&kek_id)?.answer.get()?;
        if !answer.is_fresh(Instant::now()) {
            // An expired key is dropped, so that it is not kept longer than it may be used.
            entries.remove(&kek_id);
            return None;
        }
        Some(answer.kek.as_ref().map(Arc::clone).map_err(|fault| fault.clone().into()))
    }

    /// The key. `open` opens it if it is not cached. Calls that come meanwhile wait for the one that asks, and get the
    /// same answer, even if it is that the KMS does not answer.
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

    /// Drops expired keys, and returns when the next key expires.
    pub(crate) fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| entry.answer.get().is_none_or(|answer| answer.is_fresh(now)));
        entries.values().filter_map(|entry| entry.answer.get()?.until).min()
    }

    pub(crate) fn remove(&self, kek_id: KekId) {
        lock(&self.entries).remove(&kek_id);
    }

    /// The period, shortened by up to a tenth, so that processes that started together do not always ask at the same
    /// time.
    fn jittered(&self) -> Duration {
        let mut byte = [0];
        let less = if random::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 0 };
        self.period - self.period / 2_560 * less
    }
}

/// The answer of the KMS, if this is one, for all calls that wait for it. Any other error belongs to the call that
/// asked, and the next call asks again.
fn said(error: Error) -> Result<KmsFault> {
    match error {
        Error::Kms(fault @ (KmsFault::Unavailable { .. } | KmsFault::Refused { .. })) => Ok(fault),
        error => Err(error),
    }
}
