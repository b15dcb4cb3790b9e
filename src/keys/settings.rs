//! The settings of a key manager. They are set once, before any key is used, and can't be changed afterwards.

use crate::keys::ahead::Hints;
use crate::keys::erasure_consumer::ErasureConsumer;
use crate::keys::manager::{KeyManager, PartitionOf};
use crate::keys::names::{KeyScope, Namespace};
use crate::keys::shred_log::ShredLogCopy;
use crate::keys::shred_log::required::{LogGate, Required};
use crate::keys::sweeper::Caches;
use crate::keys::{KeyStore, KeyTable};
use crate::kms::Kms;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const KEK_CACHE_PERIOD: Duration = Duration::from_secs(3_600);

/// The settings of a [`KeyManager`]. [`build`](Self::build) makes the key manager. Each setting has a default, and the
/// defaults are the strict ones.
///
/// | setting | default |
/// |---|---|
/// | [`for_namespace`](Self::for_namespace) | the namespace of the first database that is used, and no other |
/// | [`kek_partition`](Self::kek_partition) | one key-encryption key for all scopes |
/// | [`kek_cache_period`](Self::kek_cache_period) | an hour |
/// | [`erasure_consumer`](Self::erasure_consumer) | none |
/// | [`require_shred_log`](Self::require_shred_log) | no copy of the shred log is required |
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
pub struct KeyManagerBuilder<Tx, K: ?Sized = dyn KeyTable<Tx = Tx>> {
    store: Arc<K>,
    tx: PhantomData<fn(Tx)>,
    kms: Arc<dyn Kms>,
    namespace: Option<Namespace>,
    partition_of: Option<PartitionOf>,
    kek_cache_period: Duration,
    read_lag: Option<Duration>,
    consumers: Vec<Arc<dyn ErasureConsumer<Tx>>>,
    gate: Option<Arc<dyn LogGate<Tx>>>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManagerBuilder<Tx, K> {
    pub(crate) fn new(store: Arc<K>, kms: impl Kms + 'static) -> Self {
        Self {
            store,
            tx: PhantomData,
            kms: Arc::new(kms),
            namespace: None,
            partition_of: None,
            kek_cache_period: KEK_CACHE_PERIOD,
            read_lag: None,
            consumers: Vec::new(),
            gate: None,
        }
    }

    /// Refuses to work on a key database of another namespace. This protects against a connection to the wrong
    /// database. Set it if a process may use more than one database.
    ///
    /// Without it, the first database on which the keys are used decides the namespace, and every other namespace is
    /// refused from then on. So a process that is connected to the wrong database from its start is not noticed.
    pub fn for_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Gives each partition of the key scopes a key-encryption key of its own, for example each tenant, region or
    /// shard.
    ///
    /// The function returns the partition of a scope. It must always return the same one. [`KeyManager::create_kek`]
    /// makes the first key of a partition. An append to a partition without a key fails with
    /// [`KeyFault::NoActiveKek`](crate::error::KeyFault::NoActiveKek).
    pub fn kek_partition(mut self, partition_of: impl Fn(&KeyScope) -> String + Send + Sync + 'static) -> Self {
        self.partition_of = Some(Arc::new(partition_of));
        self
    }

    /// How long opened key-encryption keys, and the data keys that they opened, are kept before the KMS is asked again.
    /// The actual time is up to a tenth shorter. The default is an hour.
    ///
    /// After this time the keys are wiped from memory, also in a process that is idle. So a permission that was taken
    /// away in the KMS, and an outage of the KMS, take effect after this time at the latest. A call that is running
    /// keeps its keys until it returns. With zero, no key is kept, and every call asks the KMS.
    ///
    /// A failure of the KMS is remembered for a second. Other calls that need the same key in that second fail at once,
    /// instead of waiting for a time-out each.
    pub fn kek_cache_period(mut self, period: Duration) -> Self {
        self.kek_cache_period = period;
        self
    }

    /// Lets a read use a data key without looking at its row, if the row was looked at no longer ago than `lag`. This
    /// saves a round trip for each page whose keys are all cached.
    ///
    /// **A read may then show values that another process has shredded or stopped, if the read begins within `lag`
    /// after that was committed.** So set a few seconds, and only if the law and your users allow it.
    ///
    /// - The time counts from before the row was looked at. Only a look on a connection that is not in a transaction
    ///   counts, because a transaction may see an old state. A raw `BEGIN` that the driver does not know of is not
    ///   recognised as a transaction.
    /// - If this process itself shreds or stops a scope, by this same key manager, its rows are looked at for every
    ///   read from that call on, until the commit was seen and `lag` has passed since then.
    ///
    /// Two things can't be taken into account. On a standby, all reads lag behind the primary anyway. `lag` comes on
    /// top of that, also for reads on the primary in a process that reads on both. And the time is that of this
    /// machine's monotonic clock, which may stand still while the machine is suspended.
    ///
    /// Appends are not affected: they always look at the rows. Without this setting, or with zero, a committed shred
    /// holds for every read that starts after it.
    pub fn reads_may_lag(mut self, lag: Duration) -> Self {
        self.read_lag = Some(lag);
        self
    }

    /// Has a consumer called for every decision about a scope, in the transaction of the decision and after those that
    /// were registered before it. So a projection in the same database loses its copies together with the keys.
    pub fn erasure_consumer(mut self, consumer: impl ErasureConsumer<Tx> + 'static) -> Self {
        self.consumers.push(Arc::new(consumer));
        self
    }

    /// The key manager with these settings.
    #[must_use]
    pub fn build(self) -> KeyManager<Tx, K> {
        KeyManager {
            store: self.store,
            tx: self.tx,
            kms: self.kms,
            configured: self.namespace,
            namespace: OnceLock::new(),
            cache: Arc::new(Caches::new(self.kek_cache_period)),
            hints: Mutex::new(Hints::new()),
            partition_of: self.partition_of,
            read_lag: self.read_lag,
            consumers: self.consumers,
            gate: self.gate,
        }
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized + 'static> KeyManagerBuilder<Tx, K> {
    /// Opens and seals nothing while the key table does not agree with a copy of its shred log. So a restore of the key
    /// database, or of a part of it, brings nothing back that was shredded.
    ///
    /// [`prepare`](KeyManager::prepare), [`open`](KeyManager::open), and the first call that opens or seals after each
    /// `period` compare the end of the copy with the log, and the log with the tombstones. If they disagree, they fail
    /// with [`KeyFault::ShredLogBehind`](crate::error::KeyFault::ShredLogBehind), and so does every later call, until
    /// [`replay_log`](KeyManager::replay_log) has repaired it. The same holds if the copy can't be read, and if it is
    /// empty: [`export_log`](KeyManager::export_log) begins it. Shreds and other changes of scopes go on.
    ///
    /// Two things are left open. What was shredded since the last export may come back: export after every shred, or
    /// often. And a process that runs while the tables are restored under it may open for one more `period`. The check
    /// reads the shred log and the rows of the scopes from end to end, so a period of minutes suits most.
    ///
    /// In a transaction that sees an old state (`REPEATABLE READ`, `SERIALIZABLE`) the check may fail if the copy has
    /// grown since: such a transaction must be begun again. On SQLite, an append that checks reads before it writes, so
    /// it may fail with the retryable [`Error::Collision`](crate::Error::Collision) if another transaction wrote
    /// meanwhile.
    pub fn require_shred_log(mut self, copy: impl ShredLogCopy + 'static, period: Duration) -> Self {
        let (table, copy) = (Arc::clone(&self.store), Arc::new(copy));
        self.gate = Some(Arc::new(Required { table, copy, period, checked: Mutex::new(None) }));
        self
    }
}

impl<Tx, K: ?Sized> fmt::Debug for KeyManagerBuilder<Tx, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManagerBuilder")
            .field("namespace", &self.namespace)
            .field("provider", &self.kms.provider())
            .field("kek_cache_period", &self.kek_cache_period)
            .field("reads_may_lag", &self.read_lag)
            .finish_non_exhaustive()
    }
}
