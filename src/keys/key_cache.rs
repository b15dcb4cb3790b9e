//! The cache of unwrapped data keys, and of what this process knows about scopes without reading their rows.
//!
//! Nothing here decides what may be done with a key. The rows decide, in the caller's transaction. Only reads that may
//! lag use a key because of an earlier look at its row.

use crate::crypto::primitives::DataKey;
use crate::keys::DataKeyRecord;
use crate::keys::kek_cache::is_fresh;
use crate::keys::manager::lock;
use crate::keys::names::{KeyId, KeyScope};
use lru::LruCache;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CACHED_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

pub(crate) struct KeyCache(Mutex<Cached>);

struct Cached {
    keys: LruCache<KeyId, CachedKey>,
    /// The key that each scope sealed under when it was last looked at.
    active: LruCache<KeyScope, KeyId>,
    /// The scopes that this process changed. Reads that may lag look at the rows of these scopes every time: until a
    /// read has seen the change, and then until the time stored here.
    changed: LruCache<KeyScope, Option<Instant>>,
}

/// An unwrapped key, and the row from which it was unwrapped. If the row differs, the key is unwrapped again.
struct CachedKey {
    row: Arc<DataKeyRecord>,
    key: Arc<DataKey>,
    /// The time until which it may be kept, like the key-encryption key that opened it; `None` for ever.
    until: Option<Instant>,
    /// The time just before the last look that found this row. `None` if only transactions, which may see an old state,
    /// have found it so far.
    seen: Option<Instant>,
}

impl CachedKey {
    /// Is this the row from which the key was unwrapped, in everything that the wrapping is bound to?
    fn is_from(&self, row: &DataKeyRecord) -> bool {
        let bound = |row: &DataKeyRecord| (row.version, row.kek_id);
        self.row.wrapped_key == row.wrapped_key && self.row.scope == row.scope && bound(&self.row) == bound(row)
    }
}

impl KeyCache {
    pub(crate) fn new() -> Self {
        let [keys, active, changed] = [(); 3].map(|()| CACHED_KEYS);
        Self(Mutex::new(Cached {
            keys: LruCache::new(keys),
            active: LruCache::new(active),
            changed: LruCache::new(changed),
        }))
    }

    /// The unwrapped key of this row, if it is cached. `seen` is a time before the row was read, if the statement that
    /// read it sees everything that was committed when it started.
    pub(crate) fn get(&self, row: &DataKeyRecord, seen: Option<Instant>) -> Option<Arc<DataKey>> {
        let mut cached = lock(&self.0);
        let entry = cached.keys.get_mut(&row.key_id)?;
        if !is_fresh(entry.until, Instant::now()) {
            cached.keys.pop(&row.key_id);
            return None;
        }
        if !entry.is_from(row) {
            return None;
        }
        entry.seen = entry.seen.max(seen);
        Some(Arc::clone(&entry.key))
    }

    pub(crate) fn put(&self, row: DataKeyRecord, key: Arc<DataKey>, until: Option<Instant>, seen: Option<Instant>) {
        let mut cached = lock(&self.0);
        // This is checked under the lock. A key that is put here after the sweep would stay.
        if is_fresh(until, Instant::now()) {
            cached.keys.put(row.key_id, CachedKey { row: Arc::new(row), key, until, seen });
        }
    }

    /// All of these keys with their scopes, if the row of each was looked at no longer ago than `lag`.
    pub(crate) fn seen_within(
        &self,
        lag: Duration,
        key_ids: &HashSet<KeyId>,
    ) -> Option<Vec<(KeyId, KeyScope, Arc<DataKey>)>> {
        let mut cached = lock(&self.0);
        let Cached { keys, changed, .. } = &mut *cached;
        let now = Instant::now();
        let seen = key_ids.iter().map(|key_id| {
            let cached = keys.get(key_id).filter(|cached| is_fresh(cached.until, now))?;
            if now.saturating_duration_since(cached.seen?) >= lag {
                return None;
            }
            let scope = &cached.row.scope;
            if let Some(until) = changed.peek(scope) {
                if is_fresh(*until, now) {
                    return None;
                }
                changed.pop(scope);
            }
            Some((*key_id, scope.clone(), Arc::clone(&cached.key)))
        });
        seen.collect()
    }

    /// Drops a key whose row says that it must not be used. `seen` has the meaning that it has in [`get`](Self::get).
    pub(crate) fn remove(&self, key_id: KeyId, scope: &KeyScope, seen: Option<Instant>, lag: Option<Duration>) {
        let mut cached = lock(&self.0);
        cached.keys.pop(&key_id);
        // A slow read that looked at the row before may still put the old key back. So the cache is not trusted for
        // this scope until `lag` has passed.
        if seen.is_some() && cached.changed.peek(scope) == Some(&None) {
            let until = Instant::now().checked_add(lag.unwrap_or_default());
            cached.changed.put(scope.clone(), until);
        }
    }

    /// Notes that this process changes the state of a scope, in a transaction that is not committed yet. From now on,
    /// no read lags for that scope: until the change was seen, if it takes something away, and otherwise for the lag.
    pub(crate) fn change(&self, scope: &KeyScope, takes_away: bool, lag: Option<Duration>) {
        let mut cached = lock(&self.0);
        let of_scope: Vec<KeyId> =
            cached.keys.iter().filter(|(_, key)| key.row.scope == *scope).map(|(key_id, _)| *key_id).collect();
        for key_id in of_scope {
            cached.keys.pop(&key_id);
        }
        cached.active.pop(scope);
        if let Some(lag) = lag {
            let until = if takes_away { None } else { Instant::now().checked_add(lag) };
            cached.changed.put(scope.clone(), until);
        }
    }

    /// Notes the key under which a scope seals.
    pub(crate) fn activate(&self, scope: &KeyScope, key_id: KeyId) {
        let mut cached = lock(&self.0);
        if cached.active.get(scope) != Some(&key_id) {
            cached.active.put(scope.clone(), key_id);
        }
    }

    /// The keys under which these scopes sealed when they were last looked at, with the rows from which they were
    /// unwrapped. `None` if one of them is not cached.
    pub(crate) fn active<'s>(
        &self,
        scopes: impl IntoIterator<Item = &'s KeyScope>,
    ) -> Option<Vec<(Arc<DataKeyRecord>, Arc<DataKey>)>> {
        let mut cached = lock(&self.0);
        let Cached { keys, active, .. } = &mut *cached;
        let now = Instant::now();
        let active = scopes.into_iter().map(|scope| {
            let key = keys.get(active.get(scope)?).filter(|key| is_fresh(key.until, now) && key.row.scope == *scope)?;
            Some((Arc::clone(&key.row), Arc::clone(&key.key)))
        });
        active.collect()
    }

    /// Forgets under which keys these scopes sealed. One of them is not the active key any more.
    pub(crate) fn deactivate<'s>(&self, scopes: impl IntoIterator<Item = &'s KeyScope>) {
        let mut cached = lock(&self.0);
        for scope in scopes {
            cached.active.pop(scope);
        }
    }

    /// Is the key cached under which the scope sealed when it was last looked at?
    pub(crate) fn is_at_hand(&self, scope: &KeyScope) -> bool {
        let cached = lock(&self.0);
        let key = cached.active.peek(scope).and_then(|key_id| cached.keys.peek(key_id));
        key.is_some_and(|key| is_fresh(key.until, Instant::now()))
    }

    /// Drops expired keys, and returns when the next key expires. A key is kept for the period of the key-encryption
    /// key that opened it. That one may have left its cache earlier, for instance because it was retired.
    pub(crate) fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut cached = lock(&self.0);
        let expired: Vec<KeyId> =
            cached.keys.iter().filter(|(_, key)| !is_fresh(key.until, now)).map(|(key_id, _)| *key_id).collect();
        for key_id in expired {
            cached.keys.pop(&key_id);
        }
        cached.keys.iter().filter_map(|(_, key)| key.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::random;
    use crate::keys::ScopeState;
    use crate::keys::names::KekId;
    use uuid::Uuid;

    /// Uses of keys do not rely on the sweeper: it may be late, or may not run at all.
    #[test]
    fn what_has_expired_is_not_used_whether_it_was_swept_or_not() {
        let cache = KeyCache::new();
        let put = |until: Option<Instant>| {
            let row = DataKeyRecord {
                key_id: KeyId(Uuid::now_v7()),
                scope: KeyScope::new("Customer", Uuid::now_v7().to_string()),
                version: 1,
                kek_id: KekId(Uuid::now_v7()),
                wrapped_key: Some(vec![1]),
                created_at: crate::event::now(),
                shredded_at: None,
                scope_state: ScopeState::Live,
            };
            let key = Arc::new(DataKey::new(random::key().unwrap().expose()).unwrap());
            cache.put(row.clone(), key, until, Some(Instant::now()));
            cache.activate(&row.scope, row.key_id);
            row
        };
        let until = Instant::now() + Duration::from_millis(20);
        let (kept, expired) = (put(None), [put(Some(until)), put(Some(until))]);
        while Instant::now() < until {
            std::thread::yield_now();
        }
        let lag = Duration::from_secs(3_600);
        let seen = |row: &DataKeyRecord| cache.seen_within(lag, &HashSet::from([row.key_id])).is_some();
        assert!(seen(&kept) && cache.is_at_hand(&kept.scope) && cache.get(&kept, None).is_some());
        for row in &expired {
            assert!(!seen(row), "a reader that lags used an expired key");
            assert!(!cache.is_at_hand(&row.scope), "an expired key is not at hand");
        }
        assert!(cache.get(&expired[0], None).is_none(), "an expired key was used");
        assert_eq!(cache.sweep(Instant::now()), None, "nothing is left that expires");
        assert!(cache.get(&kept, None).is_some());
    }
}
