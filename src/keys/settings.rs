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
use crate::kms::observed::ObservedKms;
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
/// | [`copy_shred_log`](Self::copy_shred_log) | no copy of the shred log is written |
/// | [`require_shred_log`](Self::require_shred_log) | no copy of the shred log is required |
/// | [`compare_whole_log_every`](Self::compare_whole_log_every) | after ten periods of `require_shred_log` |
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
    copies: Vec<Arc<dyn ShredLogCopy>>,
    gate: Option<Box<dyn LogGate<Tx>>>,
    whole_log_period: Option<Duration>,
}

impl<Tx: Send + 'static, K: KeyStore<Tx = Tx> + ?Sized> KeyManagerBuilder<Tx, K> {
    pub(crate) fn new(store: Arc<K>, kms: impl Kms + 'static) -> Self {
        Self {
            store,
            tx: PhantomData,
            kms: Arc::new(ObservedKms(Arc::new(kms))),
            namespace: None,
            partition_of: None,
            kek_cache_period: KEK_CACHE_PERIOD,
            read_lag: None,
            consumers: Vec::new(),
            copies: Vec::new(),
            gate: None,
            whole_log_period: None,
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
        let gate = self.gate.map(|mut gate| {
            if let Some(period) = self.whole_log_period {
                gate.set_whole_period(period);
            }
            Arc::from(gate)
        });
        KeyManager {
            store: self.store,
            tx: self.tx,
            kms: self.kms,
            configured: self.namespace,
            namespace: OnceLock::new(),
            cache: Arc::new(Caches::new(self.kek_cache_period)),
            hints: Mutex::new(Hints::new()),
            index_versions: Mutex::new(None),
            partition_of: self.partition_of,
            read_lag: self.read_lag,
            consumers: self.consumers,
            copies: self.copies,
            gate,
        }
    }
}

impl<Tx: Send + 'static, K: KeyTable<Tx = Tx> + ?Sized + 'static> KeyManagerBuilder<Tx, K> {
    /// Writes every decision into a copy of the shred log at once. Call it several times for several copies.
    ///
    /// Calls that commit on their own ([`sweep`](KeyManager::sweep), [`shred_many`](KeyManager::shred_many),
    /// [`shred_partition`](KeyManager::shred_partition)) seal and copy the entry of each scope right after its commit,
    /// and before they report it. They bring the copies up to date first, and begin nothing if they can't. Where the
    /// transaction is yours, call [`copy_log`](KeyManager::copy_log) after your commit.
    ///
    /// If the copy can't be written, the error is [`KeyFault::NotCopied`](crate::error::KeyFault::NotCopied): what was
    /// decided is committed, and stays. Make the copy reachable, and export. Anything that copies later adds what is
    /// missing. A process that ends right between a commit and the copy leaves that one decision open until then.
    ///
    /// The copy is not begun here, because an empty one may be the wrong one: begin it once with
    /// [`export_log`](KeyManager::export_log). A call waits for the copy, so let a copy in a database give up soon.
    pub fn copy_shred_log(mut self, copy: impl ShredLogCopy + 'static) -> Self {
        self.copies.push(Arc::new(copy));
        self
    }

    /// Opens, seals and decides nothing while the key table does not agree with a copy of its shred log. So a restore
    /// of the key database, or of a part of it, brings nothing back that was shredded. No shred is carried out whose
    /// hold or cancellation the restore has lost. Call it several times to require several copies, each of which
    /// must be there and agree. The shortest `period` holds then.
    ///
    /// [`prepare`](KeyManager::prepare), [`open`](KeyManager::open), and the first call that opens, seals or changes
    /// a scope after each `period` compare. If something disagrees, they fail with
    /// [`KeyFault::ShredLogBehind`](crate::error::KeyFault::ShredLogBehind), and so does every later call, until
    /// [`replay_log`](KeyManager::replay_log) has repaired it. The same holds if a copy can't be read, and if it is
    /// empty: [`export_log`](KeyManager::export_log) begins it.
    ///
    /// Each check finds:
    ///
    /// - that the tables were restored, if a copy has a later entry, or that the log forked: it compares the end of
    ///   each copy with the log;
    /// - that the tables were restored while the process runs, whatever the copies have: it compares the end of the log
    ///   with the one that the check before has found;
    /// - keys of new shreds that are there again: it compares the entries since the check before with the keys.
    ///
    /// A [whole](Self::compare_whole_log_every) check finds key rows and scopes that were restored alone, whenever they
    /// were shredded: it compares all entries with all keys and scopes. The first check is one, the first after every
    /// ten periods, and those of `prepare` and `open`.
    ///
    /// A whole check reads the shred log and the rows of the scopes from end to end. The others cost a few look-ups,
    /// however long the log is.
    ///
    /// So three things are left open. What was shredded since the last export may come back:
    /// [copy every shred](Self::copy_shred_log), or export often. A process that runs while the tables are restored
    /// under it may open for one more `period`. And if key rows are restored alone, it may open what they bring back
    /// for ten more. With a period of zero, each check is a whole one.
    ///
    /// In a transaction that sees an old state (`REPEATABLE READ`, `SERIALIZABLE`), and on a standby that lags, the
    /// check may fail if the log has grown since: begin such a transaction again. On SQLite, an append that checks
    /// reads before it writes, so it may fail with the retryable [`Error::Collision`](crate::Error::Collision) if
    /// another transaction wrote meanwhile.
    pub fn require_shred_log(mut self, copy: impl ShredLogCopy + 'static, period: Duration) -> Self {
        let table = Arc::clone(&self.store);
        let gate = self.gate.get_or_insert_with(|| Box::new(Required::new(table)));
        gate.require(Arc::new(copy), period);
        self
    }

    /// How long the checks of required copies may be short after a whole one, which compares all entries of the shred
    /// log with all keys. Ten periods of [`require_shred_log`](Self::require_shred_log) by default. With zero, each
    /// check is a whole one.
    ///
    /// It decides how soon key rows are found that were restored alone, under a process that runs. With a long log, a
    /// short period and a longer one of this kind find a restore of the whole tables sooner, at the same price.
    pub fn compare_whole_log_every(mut self, period: Duration) -> Self {
        self.whole_log_period = Some(period);
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
