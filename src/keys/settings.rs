//! The settings of a key manager. They are given in one place, before any key is used: what has no setter can't be
//! changed under the keys that it applies to.

use crate::keys::KeyStore;
use crate::keys::ahead::Hints;
use crate::keys::manager::{KeyManager, PartitionOf};
use crate::keys::names::{KeyScope, Namespace};
use crate::keys::sweeper::Caches;
use crate::kms::Kms;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const KEK_CACHE_PERIOD: Duration = Duration::from_secs(3_600);

/// The settings of a [`KeyManager`], which [`build`](Self::build) makes. Each has a default, and the defaults are the
/// strict ones.
///
/// | setting | default |
/// |---|---|
/// | [`for_namespace`](Self::for_namespace) | the namespace of the first database that is used, and no other |
/// | [`kek_partition`](Self::kek_partition) | one key-encryption key for all scopes |
/// | [`kek_cache_period`](Self::kek_cache_period) | an hour |
/// | [`reads_may_lag`](Self::reads_may_lag) | reads do not lag: a committed shred holds for the next read |
///
/// ```
/// # use eventseal::{Keyring, Namespace, Owner, SealedStore, Schemas, event};
/// # use eventseal::keys::KeyManager;
/// # use eventseal::memory::{MemoryKeys, MemoryStore};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// let keys = KeyManager::builder(MemoryKeys::new(), Keyring::generate("main")?)
///     .for_namespace(Namespace::new("shop")?)
///     .kek_cache_period(Duration::from_secs(600))
///     .build();
/// let store = SealedStore::with_keys(MemoryStore::new(), keys, schemas);
/// # Ok(())
/// # }
/// ```
#[must_use = "settings alone do nothing: call `build`"]
pub struct KeyManagerBuilder<Tx> {
    store: Arc<dyn KeyStore<Tx = Tx>>,
    kms: Arc<dyn Kms>,
    namespace: Option<Namespace>,
    partition_of: Option<PartitionOf>,
    kek_cache_period: Duration,
    read_lag: Option<Duration>,
}

impl<Tx: Send + 'static> KeyManagerBuilder<Tx> {
    pub(crate) fn new(store: impl KeyStore<Tx = Tx> + 'static, kms: impl Kms + 'static) -> Self {
        Self {
            store: Arc::new(store),
            kms: Arc::new(kms),
            namespace: None,
            partition_of: None,
            kek_cache_period: KEK_CACHE_PERIOD,
            read_lag: None,
        }
    }

    /// Refuses to work on a key database of another namespace than this: a guard against connecting to the wrong one.
    /// Give it wherever a process may meet more than one database.
    ///
    /// Without it, the first database that the keys are used on decides, and every other namespace is refused from
    /// then on. So a process that is connected to the wrong database from its start is not found.
    pub fn for_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Lets each part of the scopes have a key-encryption key of its own: for each tenant, each region, each shard. The
    /// function names the partition of a scope, always the same one; [`KeyManager::create_kek`] makes its first key. An
    /// append to a partition without one fails with [`KeyFault::NoActiveKek`](crate::error::KeyFault::NoActiveKek).
    pub fn kek_partition(mut self, partition_of: impl Fn(&KeyScope) -> String + Send + Sync + 'static) -> Self {
        self.partition_of = Some(Arc::new(partition_of));
        self
    }

    /// Keeps opened key-encryption keys, and the data keys that they opened, for this long, or up to a tenth less,
    /// before the KMS is asked again. An hour by default.
    ///
    /// When this has passed, the keys are wiped from memory, also in a process that does nothing any more. So what is
    /// taken from the master key's permissions takes effect then; so does an outage of the KMS. A call that is under
    /// way keeps what it has until it returns. With zero, nothing is kept: every call asks the KMS.
    ///
    /// A failure of the KMS is remembered for a second. Those who need the same key meanwhile get it at once, instead
    /// of waiting for a time-out each.
    pub fn kek_cache_period(mut self, period: Duration) -> Self {
        self.kek_cache_period = period;
        self
    }

    /// Lets reads open events under keys whose rows were looked at no longer ago than this, instead of looking every
    /// time: it saves a round trip for each page whose keys are at hand.
    ///
    /// **A read may then show what another process shredded or stopped, if it begins within this time after that was
    /// committed**; so take seconds, and only where the law and your users allow it. The time is counted from before
    /// the look at the rows. Only looks on a connection that is not in a transaction count, because a transaction may
    /// see what was there when it began. A `BEGIN` that the driver does not know of is not seen as one.
    ///
    /// What this process shreds or stops itself, by this same key manager, is looked at every time from that call on,
    /// until it was seen to be committed, and for this long after that.
    ///
    /// Two things this can't know of. On a standby, all reads lag behind by what the standby lags, with or without this
    /// setting: this time comes on top of it, also for reads on the primary in a process that reads on both. And time
    /// is that of this machine's monotonic clock, which may stand still while the machine is suspended.
    ///
    /// Appends are not affected: they always look. Without this setting, or with zero, a committed shred holds for
    /// every read that starts after it.
    pub fn reads_may_lag(mut self, lag: Duration) -> Self {
        self.read_lag = Some(lag);
        self
    }

    /// The key manager with these settings.
    #[must_use]
    pub fn build(self) -> KeyManager<Tx> {
        KeyManager {
            store: self.store,
            kms: self.kms,
            configured: self.namespace,
            namespace: OnceLock::new(),
            cache: Arc::new(Caches::new(self.kek_cache_period)),
            hints: Mutex::new(Hints::new()),
            partition_of: self.partition_of,
            read_lag: self.read_lag,
        }
    }
}

impl<Tx> fmt::Debug for KeyManagerBuilder<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManagerBuilder")
            .field("namespace", &self.namespace)
            .field("provider", &self.kms.provider())
            .field("kek_cache_period", &self.kek_cache_period)
            .field("reads_may_lag", &self.read_lag)
            .finish_non_exhaustive()
    }
}
