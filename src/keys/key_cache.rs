//! Unwrapped data keys, and what this process knows without looking.
//!
//! Nothing here decides what may be done with a key: rows do, in the caller's transaction. Only a reader that accepts
//! to lag uses a key on the strength of an earlier look.

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
    /// What this process changed, and others may not have seen yet: readers that lag look at it every time, until they
    /// have seen the change, and for the lag from then on.
    changed: LruCache<KeyScope, Option<Instant>>,
}

/// An unwrapped key, and the row it was unwrapped from: another row means another look.
struct CachedKey {
    row: DataKeyRecord,
    key: Arc<DataKey>,
    /// As long as the key-encryption key that opened it; `None` is for ever.
    until: Option<Instant>,
    /// Before which look the row was this one; `None` if nothing but old snapshots has shown it yet.
    seen: Option<Instant>,
}

impl CachedKey {
    /// Is this the row that the key was unwrapped from, in all that the wrapping is bound to?
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

    /// The key that this row says, if it was unwrapped before. `seen` is a time before the row was read, by a statement
    /// that sees all that was committed when it starts.
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
        // Under the lock: what is put after the sweep would stay.
        if is_fresh(until, Instant::now()) {
            cached.keys.put(row.key_id, CachedKey { row, key, until, seen });
        }
    }

    /// All of these keys, with their scopes, if each was looked at no longer ago than this.
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

    /// A row says that its key is not to be used. `seen` as with [`get`](Self::get).
    pub(crate) fn remove(&self, key_id: KeyId, scope: &KeyScope, seen: Option<Instant>, lag: Option<Duration>) {
        let mut cached = lock(&self.0);
        cached.keys.pop(&key_id);
        // Those who looked before this and are slow may put the key back, as it was then: for so long it is not
        // believed.
        if seen.is_some() && cached.changed.peek(scope) == Some(&None) {
            let until = Instant::now().checked_add(lag.unwrap_or_default());
            cached.changed.put(scope.clone(), until);
        }
    }

    /// This process changes what may be done with a scope's keys, in a transaction that is not committed yet. From here
    /// on no reader lags for that scope: until the change was seen, or, if it is none that takes something away, for
    /// the lag.
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

    /// Notes under which key a scope seals.
    pub(crate) fn activate(&self, scope: &KeyScope, key_id: KeyId) {
        let mut cached = lock(&self.0);
        if cached.active.get(scope) != Some(&key_id) {
            cached.active.put(scope.clone(), key_id);
        }
    }

    /// Is the key at hand under which the scope sealed when it was last looked at?
    pub(crate) fn is_at_hand(&self, scope: &KeyScope) -> bool {
        let cached = lock(&self.0);
        let key = cached.active.peek(scope).and_then(|key_id| cached.keys.peek(key_id));
        key.is_some_and(|key| is_fresh(key.until, Instant::now()))
    }

    /// Drops what has expired, and says when something will. Keys are kept as long as the key-encryption key that
    /// opened them, and that one may have left before: retired, or opened ahead of a lock and not cached any more.
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

    /// Those who use keys do not rely on those who sweep them away: the sweeper may be late, or not there at all.
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
