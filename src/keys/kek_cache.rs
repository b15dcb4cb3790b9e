//! Opened key-encryption keys: each is asked for once, by whoever comes first, and kept for a while.

use crate::error::Result;
use crate::key::KekId;
use crate::keys::manager::lock;
use crate::random;
use crate::secret::SecretKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

pub(super) struct KekCache {
    period: Duration,
    entries: Mutex<HashMap<KekId, Arc<OnceCell<Opened>>>>,
}

struct Opened {
    secret: Arc<SecretKey>,
    until: Option<Instant>,
}

impl Opened {
    fn is_fresh(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() < until)
    }
}

impl KekCache {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, entries: Mutex::default() }
    }

    pub(super) fn get(&self, kek_id: KekId) -> Option<Arc<SecretKey>> {
        let entries = lock(&self.entries);
        let opened = entries.get(&kek_id)?.get()?;
        opened.is_fresh().then(|| Arc::clone(&opened.secret))
    }

    /// The key, opened by `open` if it is not at hand. Those who come meanwhile wait for the one who asks.
    pub(super) async fn get_or_open(&self, kek_id: KekId, open: impl Future<Output = Result<SecretKey>>) -> Result<Arc<SecretKey>> {
        let cell = {
            let mut entries = lock(&self.entries);
            // Keys are not kept longer than they may be used.
            entries.retain(|_, cell| cell.get().is_none_or(Opened::is_fresh));
            Arc::clone(entries.entry(kek_id).or_default())
        };
        let open = async {
            let secret = Arc::new(open.await?);
            Ok(Opened { secret, until: Instant::now().checked_add(self.jittered()) })
        };
        cell.get_or_try_init(|| open).await.map(|opened| Arc::clone(&opened.secret))
    }

    pub(super) fn remove(&self, kek_id: KekId) {
        lock(&self.entries).remove(&kek_id);
    }

    /// Is any key at hand, so that the KMS will probably not have to be asked?
    pub(super) fn is_warm(&self) -> bool {
        lock(&self.entries).values().any(|cell| cell.get().is_some_and(Opened::is_fresh))
    }

    /// Up to a tenth less than the period, so that processes that started together do not ask together for ever.
    fn jittered(&self) -> Duration {
        let mut byte = [0];
        let less = if random::fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 0 };
        self.period - self.period / 2_560 * less
    }
}
