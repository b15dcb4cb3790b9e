//! A database in memory, with real transactions: for tests, demonstrations and ephemeral services.

mod blind_index;
mod events;
mod keys;
mod snapshots;

pub use blind_index::MemoryBlindIndex;
pub use events::MemoryStore;
pub use keys::MemoryKeys;
pub use snapshots::MemorySnapshots;

use crate::blind_index::BlindEntry;
use crate::error::{Error, Result};
use crate::event::{AggregateRef, PersistedEvent};
use crate::keys::names::{KekId, KeyId, KeyScope, Namespace};
use crate::keys::{KekRecord, KeyInfo, LogEntry, LogRow, ScopeState};
use crate::memory::events::Seals;
use crate::store::StoredSnapshot;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use time::OffsetDateTime;
use uuid::Uuid;

/// A database in memory, for [`MemoryStore`] and [`MemoryKeys`]. A clone is another handle to the same database.
///
/// A statement sees what was committed before it starts, and what its own transaction wrote. Only one of several
/// transactions that write, or lock key scopes, can commit. If another one commits first, the others fail with a
/// retryable [`Error::Collision`], at their next statement or at their commit.
///
/// ```
/// # use eventseal::Namespace;
/// # use eventseal::memory::MemoryDb;
/// # fn main() -> eventseal::Result<()> {
/// let db = MemoryDb::new(Namespace::new("example")?);
/// let tx = db.begin();
/// // … append events …
/// tx.commit()?; // dropping it instead rolls it back
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryDb {
    committed: Arc<Mutex<Committed>>,
}

struct Committed {
    revision: u64,
    tables: Arc<Tables>,
}

/// A transaction of a [`MemoryDb`]. Dropping it rolls it back.
///
/// It contains the tables of its [`MemoryDb`] only. A store of your own may use it for the keys and keep its events
/// elsewhere. But a rollback does not reach those events.
pub struct MemoryTx {
    db: MemoryDb,
    /// The tables with the changes of this transaction. `None` before its first write or lock.
    staged: Option<Staged>,
}

struct Staged {
    /// The revision of the committed tables from which these were copied.
    base: u64,
    tables: Arc<Tables>,
}

/// The tables. The first write of a transaction copies them. Events and rows are shared by all copies.
#[derive(Clone)]
pub(crate) struct Tables {
    /// All events, by ascending position.
    pub(crate) events: Vec<Arc<PersistedEvent>>,
    pub(crate) event_ids: HashSet<Uuid>,
    /// The events of each aggregate, as indexes into `events`.
    pub(crate) streams: HashMap<AggregateRef, Vec<usize>>,
    /// The index of seals, if one was made.
    pub(crate) seals: Option<Seals>,
    pub(crate) namespace: Namespace,
    pub(crate) keks: BTreeMap<KekId, KekRecord>,
    pub(crate) scopes: BTreeMap<KeyScope, ScopeRow>,
    pub(crate) data_keys: HashMap<KeyId, Arc<DataKeyRow>>,
    /// The entries of blind indexes.
    pub(crate) blind_entries: BTreeSet<BlindEntry>,
    /// The chain of the shred log.
    pub(crate) log: Vec<LogRow>,
    /// The snapshots, by aggregate and name of the state.
    pub(crate) snapshots: BTreeMap<(AggregateRef, String), Arc<StoredSnapshot>>,
}

#[derive(Clone)]
pub(crate) struct ScopeRow {
    pub(crate) state: ScopeState,
    pub(crate) generation: u32,
    pub(crate) active: Option<KeyId>,
    /// The data keys, by ascending version.
    pub(crate) keys: Vec<KeyId>,
    /// When a scheduled shred comes due.
    pub(crate) due: Option<OffsetDateTime>,
    pub(crate) entries: Vec<LogEntry>,
}

#[derive(Clone)]
pub(crate) struct DataKeyRow {
    pub(crate) scope: KeyScope,
    pub(crate) info: KeyInfo,
    pub(crate) wrapped_key: Option<Vec<u8>>,
    pub(crate) wrapped_at: OffsetDateTime,
}

impl MemoryDb {
    /// An empty database whose keys belong to `namespace`.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        let tables = Tables {
            events: Vec::new(),
            event_ids: HashSet::new(),
            streams: HashMap::new(),
            seals: None,
            namespace,
            keks: BTreeMap::new(),
            scopes: BTreeMap::new(),
            data_keys: HashMap::new(),
            blind_entries: BTreeSet::new(),
            log: Vec::new(),
            snapshots: BTreeMap::new(),
        };
        Self { committed: Arc::new(Mutex::new(Committed { revision: 0, tables: Arc::new(tables) })) }
    }

    /// Begins a transaction.
    #[must_use]
    pub fn begin(&self) -> MemoryTx {
        MemoryTx { db: self.clone(), staged: None }
    }

    fn with_committed<T>(&self, use_it: impl FnOnce(&mut Committed) -> T) -> T {
        use_it(&mut self.committed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MemoryTx {
    /// Commits: all changes become visible to others, or none.
    ///
    /// # Errors
    /// [`Error::Collision`] if another transaction committed since this one first wrote or locked.
    pub fn commit(self) -> Result<()> {
        let Some(staged) = self.staged else { return Ok(()) };
        self.db.with_committed(|committed| {
            if committed.revision != staged.base {
                return Err(Error::Collision { source: None });
            }
            committed.revision += 1;
            committed.tables = staged.tables;
            Ok(())
        })
    }

    /// Rolls back: all changes are dropped.
    pub fn rollback(self) {}

    /// Another transaction on the same database.
    pub(crate) fn begin_another(&self) -> Self {
        self.db.begin()
    }

    /// An address that identifies the database, as long as it exists.
    pub(crate) fn database(&self) -> *const () {
        Arc::as_ptr(&self.db.committed).cast()
    }

    /// Has this transaction written or locked anything?
    pub(crate) fn is_writing(&self) -> bool {
        self.staged.is_some()
    }

    /// The tables as a statement sees them.
    pub(crate) fn read(&self) -> Result<Arc<Tables>> {
        let (revision, committed) =
            self.db.with_committed(|committed| (committed.revision, Arc::clone(&committed.tables)));
        match &self.staged {
            None => Ok(committed),
            Some(staged) if staged.base == revision => Ok(Arc::clone(&staged.tables)),
            Some(_) => Err(Error::Collision { source: None }),
        }
    }

    /// The tables for a statement that writes or locks.
    pub(crate) fn write(&mut self) -> Result<&mut Tables> {
        let (revision, committed) =
            self.db.with_committed(|committed| (committed.revision, Arc::clone(&committed.tables)));
        let staged = self.staged.get_or_insert(Staged { base: revision, tables: committed });
        if staged.base != revision {
            return Err(Error::Collision { source: None });
        }
        Ok(Arc::make_mut(&mut staged.tables))
    }

    /// Takes a lock without copying the tables. Nobody waits: the transaction that commits first wins.
    pub(crate) fn lock(&mut self) -> Result<()> {
        let (revision, committed) =
            self.db.with_committed(|committed| (committed.revision, Arc::clone(&committed.tables)));
        let staged = self.staged.get_or_insert(Staged { base: revision, tables: committed });
        if staged.base == revision { Ok(()) } else { Err(Error::Collision { source: None }) }
    }
}

impl fmt::Debug for MemoryDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDb").finish_non_exhaustive()
    }
}

impl fmt::Debug for MemoryTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTx").field("writing", &self.is_writing()).finish_non_exhaustive()
    }
}
