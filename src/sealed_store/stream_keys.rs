//! The keys that streams needed when they were last read. The next read of a stream asks for their rows together with
//! its events.
//!
//! This is a guess, and decides nothing. A key that was not expected is looked up in a second statement.

use crate::event::AggregateRef;
use crate::keys::names::KeyId;
use lru::LruCache;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const STREAMS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// A stream that needs more keys is not remembered, so that the memory is bounded.
const KEYS: usize = 256;

type Remembered = LruCache<AggregateRef, Arc<[KeyId]>>;

pub(super) struct StreamKeys(Mutex<Remembered>);

impl StreamKeys {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(STREAMS)))
    }

    /// The keys that the stream needed last; `None` if that is not known, or it needed none.
    pub(super) fn expected(&self, aggregate: &AggregateRef) -> Option<Arc<[KeyId]>> {
        self.remembered().get(aggregate).cloned()
    }

    pub(super) fn note(&self, aggregate: &AggregateRef, expected: Option<&[KeyId]>, needed: &HashSet<KeyId>) {
        let is_noted = |known: &[KeyId]| known.len() == needed.len() && known.iter().all(|key| needed.contains(key));
        if expected.is_some_and(is_noted) {
            return;
        }
        let mut streams = self.remembered();
        if needed.is_empty() || needed.len() > KEYS {
            streams.pop(aggregate);
        } else {
            streams.put(aggregate.clone(), needed.iter().copied().collect());
        }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
