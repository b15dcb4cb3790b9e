//! Snapshots: the states of aggregates, kept so that not all events have to be read and folded again.
//!
//! A snapshot holds the data of everybody whose events were folded into it. So it is sealed under the keys of **all**
//! of them, and without any one of these keys nothing of it can be read. A shred of one owner makes it unreadable for
//! ever; its row stays until the next [`save`](SealedSnapshots::save) or [`delete`](SealedSnapshots::delete).
//! [`SealedSnapshots`] finds out by itself whose data it is, from the seals of the payloads and the metadata that it
//! folds.
//!
//! A snapshot is a cache. One that does not open is discarded, and the state is folded from all events instead.
//! [`Rebuilt::discarded`] says why, and so does the log. Only an outage is an error: then nothing is known of the
//! snapshot.
//!
//! ```
//! use eventseal::error::BoxError;
//! use eventseal::memory::{MemoryDb, MemoryKeys, MemorySnapshots, MemoryStore};
//! use eventseal::snapshots::{AggregateState, SealedSnapshots};
//! use eventseal::{
//!     EventStore, Keyring, Namespace, NewEvent, PersistedEvent, Schemas, SealedStore, Sensitive, aggregate, event,
//!     subject,
//! };
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Order { email: Sensitive<String>, lines: u32 }
//!
//! #[derive(Deserialize)]
//! struct Placed { email: Sensitive<String> }
//!
//! impl AggregateState for Order {
//!     const NAME: &'static str = "order";
//!     const VERSION: u32 = 1;
//!
//!     fn apply(&mut self, event: &PersistedEvent) -> Result<(), BoxError> {
//!         match event.event_type.as_str() {
//!             "OrderPlaced" => self.email = event.decode::<Placed>()?.email,
//!             "LineAdded" => self.lines += 1,
//!             _ => {}
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let schemas = Schemas::new([
//! #     event("OrderPlaced").version(1).protect(&["/email"], subject("Customer", "/customer")),
//! #     event("LineAdded").version(1),
//! # ])?;
//! # let db = MemoryDb::new(Namespace::new("shop")?);
//! # let keyring = Keyring::generate("main")?;
//! let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), keyring, schemas);
//! let snapshots = SealedSnapshots::new(MemorySnapshots::new()); // or SqliteSnapshots, PostgresSnapshots
//! # store.keys().prepare(&mut db.begin()).await?;
//!
//! let order = aggregate("Order", "ord_123");
//! for _ in 0..3 {
//!     let mut tx = db.begin();
//!     // The snapshot, if there is one that can be used, and the events after it.
//!     let rebuilt = snapshots.load::<Order>(&mut tx, &store, &order).await?;
//!     let new = match rebuilt.version() {
//!         None => NewEvent::raw("OrderPlaced", 1, r#"{"customer":"cust_42","email":"ada@example.org"}"#),
//!         Some(_) => NewEvent::raw("LineAdded", 1, "{}"),
//!     };
//!     store.append(&mut tx, &order, rebuilt.expected_version(), &[new]).await?;
//!     // A snapshot of what was loaded, if a hundred events were folded since the last one.
//!     snapshots.save_every(&mut tx, &store, &rebuilt, 100).await?;
//!     tx.commit()?;
//! }
//! let rebuilt = snapshots.load::<Order>(&mut db.begin(), &store, &order).await?;
//! assert_eq!((rebuilt.state().lines, rebuilt.folded()), (2, 3));
//! # Ok(())
//! # }
//! ```
//!
//! # What a snapshot is bound to
//! - To the namespace, the aggregate, the version and the id of the last event that was folded. If the stream has
//!   another event there, or none, one of the two was restored from a backup, and the snapshot is discarded.
//! - To the keys: each one that sealed something in the folded events. All must be usable. A key whose values were
//!   redacted when the events were folded must still be destroyed.
//! - To the code: the schemas with their steps, the [name](AggregateState::NAME) and the
//!   [version](AggregateState::VERSION) of the state, and the name of its Rust type. **Functions and fields can't be
//!   compared.** So if `apply` or a field of the state changes, or a step that is a function, increase `VERSION`: else
//!   an old snapshot is used. With [`code_version`](SealedSnapshots::code_version), each release of the application
//!   begins with new snapshots. Pass something that changes with each release, such as the id of a commit.
//!
//! An event that somebody rewrites in place (not by a backfill, which only seals) is not noticed. Delete the snapshots
//! of its aggregate.
//!
//! # What is not kept
//! [`save`](SealedSnapshots::save) locks the owners' scopes as an append does, and looks at the keys again. If one was
//! shredded, disabled or withheld since the events were read, nothing is saved, even if the scope was reopened. The
//! [`SaveOutcome`] says so, and it is no error.
//!
//! An aggregate whose events hold protected values in the clear gets no snapshot: no key says whose these values are.
//! They were stored before the store was sealed, or at a version that did not protect them yet. A backfill or a rewrite
//! seals them.
//!
//! If an owner is disabled or withheld, no new snapshot is made as long as that lasts. An aggregate whose owner was
//! shredded goes on: it is folded once, and the snapshot holds the redactions.
//!
//! A state in which nothing is protected is sealed too, under the integrity key of the namespace. So no snapshot is
//! ever in the clear.
//!
//! # What a change of protection needs
//! A snapshot that was made while the schemas did not protect a value does not need the key of the value's owner. New
//! schemas discard it, but its row stays. So once schemas that protect more are in use everywhere, delete the snapshots
//! of before: `DELETE FROM snapshots`, or [`delete`](SealedSnapshots::delete) for each aggregate. Backups of the table
//! keep them, as they keep the events in the clear.
//!
//! # Where it is saved
//! In any transaction on the database of the events. If that transaction also appends, save after the append: both lock
//! scopes. On SQLite, begin a transaction that loads and saves with `BEGIN IMMEDIATE`. A transaction of its own, after
//! the commit, delays nobody.
//!
//! Certificates, a census and an export do not count snapshots: these die with their keys, and hold nothing that the
//! events do not hold.

pub(crate) mod outcome;
mod state;

pub use outcome::{Discarded, SaveOutcome};
pub use state::{AggregateState, Rebuilt};

use crate::crypto::primitives::Transcript;
use crate::error::{Error, InputFault, Result, SetUpFault, StorageFault};
use crate::event::{AggregateRef, PersistedEvent, check_text, now};
use crate::keys::KeyStore;
use crate::schema::Schemas;
use crate::seal::snapshot::SnapshotBinding;
use crate::sealed_store::SealedStore;
use crate::sealer::UsedKeys;
use crate::store::{EventStore, SnapshotStore, StoredSnapshot};
use crate::telemetry::{self, Call};
use state::RowId;
use std::fmt;

/// The longest name of a state, in bytes. With the names of an aggregate it is the key of a table.
const MAX_NAME: usize = 255;

/// Seals snapshots, keeps them in a [`SnapshotStore`], and rebuilds the states of aggregates with them. See the
/// [module](self) for an example.
#[derive(Clone)]
pub struct SealedSnapshots<P> {
    inner: P,
    code_version: String,
}

impl<P: SnapshotStore> SealedSnapshots<P> {
    /// Wraps a store of snapshots. Reads and writes nothing.
    #[must_use]
    pub fn new(inner: P) -> Self {
        Self { inner, code_version: String::new() }
    }

    /// Snapshots of another version of the code are discarded. Pass what changes with every release, such as
    /// `env!("CARGO_PKG_VERSION")` or the id of a commit. Then a change of a function that nobody thought of makes no
    /// stale state.
    ///
    /// While two releases run side by side, each discards the snapshots of the other.
    #[must_use]
    pub fn code_version(mut self, version: impl Into<String>) -> Self {
        self.code_version = version.into();
        self
    }

    /// The wrapped store, which holds and returns sealed snapshots.
    #[must_use]
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Rebuilds the state of an aggregate: from its snapshot and the events after it, or from all events if there is no
    /// snapshot that can be used.
    ///
    /// The rows of the snapshot's keys are read now, also where reads of events [may
    /// lag](crate::keys::KeyManagerBuilder::reads_may_lag). Nothing is locked or written.
    ///
    /// # Errors
    /// Those of [`EventStore::read_aggregate_stream`] of the `SealedStore`; [`Error::Consumer`] with the name of the
    /// state if it can't [apply](AggregateState::apply) an event; outages of the database and of the KMS;
    /// [`SetUpFault::NoSnapshotTable`]; [`InputFault::InvalidText`] for a name. A snapshot that does not open is none.
    pub async fn load<A: AggregateState>(
        &self,
        tx: &mut P::Tx,
        store: &SealedStore<impl EventStore<Tx = P::Tx>, impl KeyStore<Tx = P::Tx> + ?Sized>,
        aggregate: &AggregateRef,
    ) -> Result<Rebuilt<A>> {
        check_name(A::NAME)?;
        let call = telemetry::load_snapshot(store.keys().known_namespace(), aggregate, A::NAME);
        call.run(|| self.rebuild(tx, store, aggregate, &call)).await
    }

    async fn rebuild<A: AggregateState>(
        &self,
        tx: &mut P::Tx,
        store: &SealedStore<impl EventStore<Tx = P::Tx>, impl KeyStore<Tx = P::Tx> + ?Sized>,
        aggregate: &AggregateRef,
        call: &Call,
    ) -> Result<Rebuilt<A>> {
        let mut rebuilt = Rebuilt {
            aggregate: aggregate.clone(),
            state: A::default(),
            last: None,
            folded: 0,
            used: UsedKeys::default(),
            namespace: store.keys().namespace(tx).await?,
            fingerprint: self.fingerprint::<A>(store.schemas())?,
            snapshot: None,
            discarded: None,
            discarded_row: None,
        };
        let mut after = None;
        match self.find(tx, aggregate, A::NAME).await? {
            Ok(None) => {}
            Ok(Some(stored)) => match resume(tx, store, &mut rebuilt, &stored).await? {
                Ok(events) => after = Some(events),
                Err(why) => rebuilt.discard(Some(&stored), why),
            },
            Err(damaged) => rebuilt.discard(None, damaged),
        }
        let events = match after {
            Some(events) => events,
            None => store.inner().read_aggregate_stream(tx, aggregate, (..).into()).await?.events,
        };
        if let Some(last) = events.last() {
            rebuilt.last = Some((last.aggregate_version, last.event_id));
        }
        rebuilt.folded = events.len() as u64;
        let events = store.sealer().open_noting(tx, events, &mut rebuilt.used, call).await?;
        rebuilt.apply(&events)?;
        Ok(rebuilt)
    }

    /// Saves a snapshot if at least so many events were folded since the last one. See [`save`](Self::save).
    ///
    /// # Errors
    /// Those of [`save`](Self::save).
    pub async fn save_every<A: AggregateState>(
        &self,
        tx: &mut P::Tx,
        store: &SealedStore<impl EventStore<Tx = P::Tx>, impl KeyStore<Tx = P::Tx> + ?Sized>,
        rebuilt: &Rebuilt<A>,
        events: u64,
    ) -> Result<SaveOutcome> {
        if rebuilt.folded < events {
            return Ok(SaveOutcome::NotDue);
        }
        self.save(tx, store, rebuilt).await
    }

    /// Saves a snapshot of a state, as it was loaded. Events that were appended since are not in it, and will be folded
    /// by the next [`load`](Self::load).
    ///
    /// Like an append, this locks the scopes of all owners whose data is in the state against a shred, until the
    /// transaction ends. It creates no key. If one of the keys is not as it was when the events were read, nothing is
    /// saved, and the [`SaveOutcome`] says so. A state without events is not saved.
    ///
    /// # Errors
    /// [`Error::Collision`] (retryable); outages of the database and of the KMS;
    /// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction);
    /// [`SetUpFault::NoSnapshotTable`]; [`SetUpFault::NamespaceMismatch`] if the state was loaded from a database of
    /// another namespace.
    pub async fn save<A: AggregateState>(
        &self,
        tx: &mut P::Tx,
        store: &SealedStore<impl EventStore<Tx = P::Tx>, impl KeyStore<Tx = P::Tx> + ?Sized>,
        rebuilt: &Rebuilt<A>,
    ) -> Result<SaveOutcome> {
        let call = telemetry::save_snapshot(store.keys().known_namespace(), &rebuilt.aggregate, A::NAME);
        call.run(|| self.save_rebuilt(tx, store, rebuilt)).await
    }

    async fn save_rebuilt<A: AggregateState>(
        &self,
        tx: &mut P::Tx,
        store: &SealedStore<impl EventStore<Tx = P::Tx>, impl KeyStore<Tx = P::Tx> + ?Sized>,
        rebuilt: &Rebuilt<A>,
    ) -> Result<SaveOutcome> {
        let Some((version, last_event)) = rebuilt.last else { return Ok(SaveOutcome::NotDue) };
        let (aggregate, fingerprint) = (&rebuilt.aggregate, &rebuilt.fingerprint);
        let found = store.keys().namespace(tx).await?;
        if found != rebuilt.namespace {
            let configured = rebuilt.namespace.clone();
            return Err(Error::SetUp(SetUpFault::NamespaceMismatch { configured, found }));
        }
        let written = match state::write(&rebuilt.state) {
            Ok(written) => written,
            Err(error) => {
                let (aggregate_type, aggregate_id) = (aggregate.aggregate_type(), aggregate.aggregate_id());
                tracing::warn!(aggregate_type, aggregate_id, state = A::NAME, %error, "a state can't be saved as a \
                    snapshot");
                return Ok(SaveOutcome::Unwritable);
            }
        };
        let binding = SnapshotBinding { aggregate, version, last_event, state: A::NAME, fingerprint };
        let sealed = match store.sealer().seal_snapshot(tx, &binding, &rebuilt.used, &written).await? {
            Ok(sealed) => sealed,
            Err(why) => {
                let (aggregate_type, aggregate_id) = (aggregate.aggregate_type(), aggregate.aggregate_id());
                tracing::debug!(aggregate_type, aggregate_id, state = A::NAME, reason = ?why, "no snapshot was saved");
                return Ok(why);
            }
        };
        let snapshot = StoredSnapshot {
            aggregate: aggregate.clone(),
            state: A::NAME.to_owned(),
            version,
            last_event,
            fingerprint: *fingerprint,
            sealed,
            created_at: now(),
        };
        let is_saved = self.inner.save(tx, &snapshot).await?
            || rebuilt.discarded.is_some() && self.replace_discarded(tx, rebuilt.discarded_row, &snapshot).await?;
        Ok(if is_saved { SaveOutcome::Saved } else { SaveOutcome::Outdated })
    }

    /// Saves a snapshot in place of the newer one that was discarded, if that is still the one that is stored. It may
    /// be of a version that the stream does not have any more, and then nothing else would ever replace it.
    ///
    /// The caller has tried to save this snapshot. So the stored row is locked until the transaction ends, and can't be
    /// replaced between the look at it and the deletion.
    async fn replace_discarded(
        &self,
        tx: &mut P::Tx,
        discarded: Option<RowId>,
        snapshot: &StoredSnapshot,
    ) -> Result<bool> {
        let (aggregate, state) = (&snapshot.aggregate, &snapshot.state);
        if let Ok(Some(stored)) = self.find(tx, aggregate, state).await?
            && discarded != Some(row_id(&stored))
        {
            return Ok(false);
        }
        self.inner.delete(tx, aggregate, Some(state)).await?;
        self.inner.save(tx, snapshot).await
    }

    /// The stored snapshot, or why its row is none.
    async fn find(
        &self,
        tx: &mut P::Tx,
        aggregate: &AggregateRef,
        state: &str,
    ) -> Result<Result<Option<StoredSnapshot>, Discarded>> {
        match self.inner.load(tx, aggregate, state).await {
            Ok(found) => Ok(Ok(found)),
            Err(Error::Storage(StorageFault::InvalidRow { problem, .. })) => Ok(Err(Discarded::Altered { problem })),
            Err(error) => Err(error),
        }
    }

    /// Deletes all snapshots of an aggregate. The next [`load`](Self::load) folds all events. Returns how many there
    /// were.
    ///
    /// A shred needs no such call: it destroys the keys.
    ///
    /// # Errors
    /// Those of the wrapped store.
    pub async fn delete(&self, tx: &mut P::Tx, aggregate: &AggregateRef) -> Result<u64> {
        self.inner.delete(tx, aggregate, None).await
    }

    /// Stands for the code that folds events into this state.
    fn fingerprint<A: AggregateState>(&self, schemas: &Schemas) -> Result<[u8; 32]> {
        let code = Transcript::of(&[
            b"eventseal/snapshot-code",
            &schemas.fingerprint()?,
            std::any::type_name::<A>().as_bytes(),
            &A::VERSION.to_be_bytes(),
            self.code_version.as_bytes(),
        ]);
        Ok(*code.as_bytes())
    }
}

/// Begins with a stored snapshot. Returns the stored events after it, or why it can't be used.
async fn resume<Tx: Send + 'static, A: AggregateState>(
    tx: &mut Tx,
    store: &SealedStore<impl EventStore<Tx = Tx>, impl KeyStore<Tx = Tx> + ?Sized>,
    rebuilt: &mut Rebuilt<A>,
    stored: &StoredSnapshot,
) -> Result<Result<Vec<PersistedEvent>, Discarded>> {
    if stored.fingerprint != rebuilt.fingerprint {
        return Ok(Err(Discarded::OtherCode));
    }
    // The event of the snapshot's own version is read too: only if it is still there, the snapshot is of this stream.
    let range = (stored.version.get()..).into();
    let mut events = store.inner().read_aggregate_stream(tx, &rebuilt.aggregate, range).await?.events;
    let at = |event: &PersistedEvent| (event.aggregate_version, event.event_id);
    if events.first().map(at) != Some((stored.version, stored.last_event)) {
        return Ok(Err(Discarded::NotInStream));
    }
    let after = events.split_off(1);
    let binding = SnapshotBinding {
        aggregate: &rebuilt.aggregate,
        version: stored.version,
        last_event: stored.last_event,
        state: A::NAME,
        fingerprint: &rebuilt.fingerprint,
    };
    let (written, used) = match store.sealer().open_snapshot(tx, &binding, &stored.sealed).await? {
        Ok(opened) => opened,
        Err(why) => return Ok(Err(why)),
    };
    let Some(state) = state::read(&written) else { return Ok(Err(Discarded::Undecodable)) };
    (rebuilt.state, rebuilt.used) = (state, used);
    rebuilt.last = Some((stored.version, stored.last_event));
    rebuilt.snapshot = Some(stored.version);
    Ok(Ok(after))
}

impl<A: AggregateState> Rebuilt<A> {
    /// Notes that the stored snapshot is not used, and logs why. Most reasons are everyday, such as a deployment, after
    /// which every snapshot is discarded once. Somebody should hear of the others.
    fn discard(&mut self, stored: Option<&StoredSnapshot>, why: Discarded) {
        let (aggregate_type, aggregate_id) = (self.aggregate.aggregate_type(), self.aggregate.aggregate_id());
        let (aggregate_version, state, reason) = (stored.map(|stored| stored.version.get()), A::NAME, &why);
        match why {
            Discarded::Altered { .. } | Discarded::Undecodable => {
                tracing::warn!(aggregate_type, aggregate_id, aggregate_version, state, %reason, "a snapshot was \
                    discarded");
            }
            _ => tracing::debug!(aggregate_type, aggregate_id, aggregate_version, state, %reason, "a snapshot was \
                discarded"),
        }
        self.discarded_row = stored.map(row_id);
        self.discarded = Some(why);
    }
}

fn row_id(stored: &StoredSnapshot) -> RowId {
    (stored.version, stored.last_event, stored.fingerprint)
}

fn check_name(name: &str) -> Result<()> {
    let what = "the name of a state";
    check_text(what, name)?;
    if name.len() > MAX_NAME {
        return Err(Error::Input(InputFault::InvalidText { what, problem: "is longer than 255 bytes: shorten it" }));
    }
    Ok(())
}

impl<P> fmt::Debug for SealedSnapshots<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSnapshots").field("code_version", &self.code_version).finish_non_exhaustive()
    }
}
