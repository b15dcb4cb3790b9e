//! Removes expired keys from memory, even in a process that no longer uses any key.
//!
//! There is one thread for the whole process, and only while something is cached. It sleeps until the next key expires,
//! and has it dropped, which wipes it. It ends when there is nothing left to wait for. Caches also drop expired keys
//! whenever they are used, so only keys that are never used again depend on the thread.

use crate::keys::kek_cache::KekCache;
use crate::keys::key_cache::KeyCache;
use crate::keys::manager::lock;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// All keys that a key manager has opened.
pub(crate) struct Caches {
    pub(crate) keks: KekCache,
    pub(crate) keys: KeyCache,
}

impl Caches {
    pub(crate) fn new(period: Duration) -> Self {
        Self { keks: KekCache::new(period), keys: KeyCache::new() }
    }

    /// Drops expired keys, and returns when the next key expires.
    fn sweep(&self) -> Option<Instant> {
        let now = Instant::now();
        [self.keys.sweep(now), self.keks.sweep(now)].into_iter().flatten().min()
    }
}

struct Watched {
    caches: Vec<(Instant, Weak<Caches>)>,
    /// Is the thread running?
    running: bool,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched { caches: Vec::new(), running: false });
static CHANGED: Condvar = Condvar::new();

/// Arranges that caches are swept at this time.
pub(crate) fn sweep_at(caches: &Arc<Caches>, at: Instant) {
    let mut watched = lock(&WATCHED);
    watched.add(Arc::downgrade(caches), at);
    if !watched.running {
        let thread = std::thread::Builder::new().name("eventseal-sweeper".to_owned()).spawn(run);
        match thread {
            Ok(_) => watched.running = true,
            Err(error) => {
                tracing::warn!(%error, "no thread to drop expired keys: they are dropped when keys are used next");
            }
        }
    }
    CHANGED.notify_all();
}

impl Watched {
    /// Adds a cache. Each cache is in the list once, with its earliest time.
    fn add(&mut self, cache: Weak<Caches>, at: Instant) {
        match self.caches.iter_mut().find(|(_, known)| known.ptr_eq(&cache)) {
            Some((known, _)) => *known = at.min(*known),
            None => self.caches.push((at, cache)),
        }
    }
}

fn run() {
    let mut watched = lock(&WATCHED);
    loop {
        watched.caches.retain(|(_, cache)| cache.strong_count() > 0);
        let Some(next) = watched.caches.iter().map(|(at, _)| *at).min() else {
            watched.running = false;
            return;
        };
        let wait = next.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            watched = CHANGED.wait_timeout(watched, wait).unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        let now = Instant::now();
        let (due, later) = std::mem::take(&mut watched.caches).into_iter().partition(|(at, _)| *at <= now);
        watched.caches = later;
        drop(watched);
        // The lock is released, so that calls that fill a cache meanwhile do not wait for this.
        let due: Vec<(Instant, Weak<Caches>)> = due;
        let again: Vec<_> = due.into_iter().filter_map(|(_, cache)| Some((cache.upgrade()?.sweep()?, cache))).collect();
        watched = lock(&WATCHED);
        for (at, cache) in again {
            watched.add(cache, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::primitives::DataKey;
    use crate::crypto::random;
    use crate::crypto::secret::SecretKey;
    use crate::error::KmsFault;
    use crate::keys::kek::{KekRecord, KekState};
    use crate::keys::names::{KekId, KeyId, KeyScope};
    use crate::keys::{DataKeyRecord, ScopeState};
    use crate::kms::WrappedKek;
    use uuid::Uuid;

    fn record(kek_id: KekId) -> KekRecord {
        let at = crate::event::now();
        let wrapped = WrappedKek { master_key_id: "main".to_owned(), ciphertext: vec![1] };
        let (partition, provider) = ("default".to_owned(), "keyring".to_owned());
        KekRecord { kek_id, partition, provider, wrapped, state: KekState::Active, created_at: at, wrapped_at: at }
    }

    fn data_key(kek_id: KekId) -> DataKeyRecord {
        DataKeyRecord {
            key_id: KeyId(Uuid::now_v7()),
            scope: KeyScope::new("Customer", "1"),
            version: 1,
            kek_id,
            wrapped_key: Some(vec![1]),
            created_at: crate::event::now(),
            shredded_at: None,
            scope_state: ScopeState::Live,
        }
    }

    fn opened() -> Arc<DataKey> {
        Arc::new(DataKey::new(SecretKey::new([1; 32]).expose()).unwrap())
    }

    /// Waits until a key is dropped. Returns `false` if it stays.
    async fn is_dropped<T>(key: Weak<T>) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while key.strong_count() > 0 && Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        key.strong_count() == 0
    }

    async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }

    /// No call uses the keys any more, but they are dropped all the same, which wipes them.
    #[tokio::test]
    async fn expired_keys_leave_the_memory_of_an_idle_process() {
        let caches = Arc::new(Caches::new(Duration::from_millis(100)));
        // This runs several times, because the thread ends when it has nothing to wait for, and another one begins.
        for _ in 0..5 {
            let kek_id = KekId(Uuid::now_v7());
            let kek = caches.keks.get_or_open(&record(kek_id), async { random::key() }).await.unwrap();
            sweep_at(&caches, kek.until.unwrap());
            let (row, key) = (data_key(kek_id), opened());
            caches.keys.put(row, Arc::clone(&key), kek.until, None);
            let (kek, key) = ((Arc::downgrade(&kek), drop(kek)).0, (Arc::downgrade(&key), drop(key)).0);
            assert!(is_dropped(kek).await && is_dropped(key).await, "an expired key stays in memory");
        }
        // A dropped cache is forgotten, and the thread ends with the last one.
        drop(caches);
    }

    #[tokio::test]
    async fn a_key_that_was_opened_by_an_expired_one_is_not_kept() {
        let caches = Arc::new(Caches::new(Duration::ZERO));
        let kek_id = KekId(Uuid::now_v7());
        let kek = caches.keks.get_or_open(&record(kek_id), async { random::key() }).await.unwrap();
        assert!(caches.keks.get(kek_id).is_none());
        let (row, key) = (data_key(kek_id), opened());
        caches.keys.put(row, Arc::clone(&key), kek.until, None);
        let (kek, key) = ((Arc::downgrade(&kek), drop(kek)).0, (Arc::downgrade(&key), drop(key)).0);
        assert_eq!((kek.strong_count(), key.strong_count()), (0, 0), "nothing is kept");
        // Later calls do not take it for open either.
        for _ in 0..2 {
            let asked = std::cell::Cell::new(false);
            let open = async {
                asked.set(true);
                random::key()
            };
            caches.keks.get_or_open(&record(kek_id), open).await.unwrap();
            assert!(asked.get(), "an expired key was used");
        }
    }

    /// A retired key-encryption key leaves the cache. The data keys that it opened leave when it would have expired.
    #[tokio::test]
    async fn expired_data_keys_leave_memory_where_nothing_else_is_waited_for() {
        let caches = Arc::new(Caches::new(Duration::from_millis(50)));
        let others = caches.keks.get_or_open(&record(KekId(Uuid::now_v7())), async { random::key() }).await.unwrap();
        let (first, key) = (others.until.unwrap(), opened());
        caches.keys.put(
            data_key(KekId(Uuid::now_v7())),
            Arc::clone(&key),
            Some(first + Duration::from_millis(100)),
            None,
        );
        sweep_at(&caches, first);
        assert!(
            is_dropped((Arc::downgrade(&key), drop(key)).0).await,
            "a data key outlives its key-encryption key in memory"
        );
    }

    /// The earliest time counts, whatever the order in which times are given.
    #[tokio::test]
    async fn a_later_time_does_not_put_off_an_earlier_one() {
        let (caches, key) = (Arc::new(Caches::new(Duration::from_secs(3_600))), opened());
        let soon = Instant::now() + Duration::from_millis(50);
        caches.keys.put(data_key(KekId(Uuid::now_v7())), Arc::clone(&key), Some(soon), None);
        sweep_at(&caches, soon);
        sweep_at(&caches, soon + Duration::from_secs(3_600));
        assert!(is_dropped((Arc::downgrade(&key), drop(key)).0).await, "a key that expired waits for another one");
    }

    /// A call that comes after a row was replaced does not get the answer for the old row.
    #[tokio::test]
    async fn a_failure_is_the_answer_for_the_same_row_only() {
        let caches = Arc::new(Caches::new(Duration::from_secs(60)));
        let old = record(KekId(Uuid::now_v7()));
        let refusal = || {
            crate::Error::Kms(KmsFault::Refused {
                kek_id: old.kek_id,
                failure: crate::kms::KmsFailure::KeyDisabled,
                problem: String::new(),
            })
        };
        assert!(caches.keks.get_or_open(&old, async { Err(refusal()) }).await.is_err());
        assert!(caches.keks.get_or_open(&old, async { random::key() }).await.is_err(), "it is remembered");
        let wrapped = WrappedKek { master_key_id: "new".to_owned(), ciphertext: vec![2] };
        let moved = KekRecord { wrapped, ..old.clone() };
        assert!(caches.keks.get_or_open(&moved, async { random::key() }).await.is_ok());
        assert!(
            caches.keks.get_or_open(&old, async { Err(refusal()) }).await.is_ok(),
            "an open key is that key, however it is wrapped"
        );
    }

    /// If a call is dropped while it waits for the KMS, the next call asks.
    #[tokio::test]
    async fn a_call_that_was_dropped_leaves_nobody_waiting() {
        let caches = Arc::new(Caches::new(Duration::from_secs(60)));
        let record = record(KekId(Uuid::now_v7()));
        let mut hangs = Box::pin(caches.keks.get_or_open(&record, std::future::pending()));
        assert!(is_pending(&mut hangs).await);
        let mut next = Box::pin(caches.keks.get_or_open(&record, async { random::key() }));
        assert!(is_pending(&mut next).await);
        drop(hangs);
        next.await.unwrap();
    }
}
