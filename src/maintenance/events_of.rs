//! Finds the stored events that the keys of a scope seal.

use crate::error::{Error, KeyFault, Result};
use crate::event::{GlobalPosition, PersistedEvent, Unreadable};
use crate::json::pointer::JsonPointer;
use crate::keys::KeyStore;
use crate::keys::names::{KeyId, KeyScope};
use crate::maintenance::index_seals::{belongs, cannot_be_read, keys_of};
use crate::maintenance::pace::PAGE_BYTES;
use crate::seal::format::EntryKind;
use crate::seal::named::find_headers;
use crate::sealed_store::SealedStore;
use crate::store::{EventStore, EventTable, PositionRange, SealIndex, SealIndexState, StoredQuery, UNREADABLE_SEAL};
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fmt;
use uuid::Uuid;

/// The options of a search for the events of a scope: see [`EventsOf`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventsOfOptions {
    /// The part of the log that is searched; all of it by default. To go on with a search that was ended, begin
    /// [after](PositionRange::after) the [position](EventsOfProgress::position) of its last page.
    pub range: PositionRange,
    /// How many stored events are looked at for a page; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// Uses the [index of seals](crate::store::SealIndex) if there is one; `true` by default. Without it, every event
    /// is read, which is the check of what the index says.
    pub use_index: bool,
}

impl Default for EventsOfOptions {
    fn default() -> Self {
        Self { range: PositionRange::default(), batch: 500, use_index: true }
    }
}

/// A search for the stored events that some keys seal, page by page.
///
/// [`SealedStore::events_of`] begins one for the keys of a scope, and [`of_keys`](Self::of_keys) one for any keys. The
/// search is complete by construction: every seal names the ids of its keys, and the search reads the header of every
/// stored event. With an [index of seals](crate::store::SealIndex), it reads those events to which the index leads, and
/// those that the index does not cover. It opens nothing, so it needs neither live keys nor a KMS. It takes no locks.
/// Between two pages, the caller may use the connection for other things. To end the search, ask for no more pages.
///
/// # What is found
/// - Every event that was committed when the search began, and whose seal names one of the keys. It does not matter
///   whether the key is live, disabled or destroyed, where in the payload the header stands, how it is spelled, or
///   whether the entry is void, which means that the value was erased when the event was sealed.
/// - After a shred of the scope was committed, no event can be added to its keys. So a search that begins after a shred
///   finds all events that these keys ever sealed, as long as nobody deletes events.
/// - An event with a header that can't be read is reported as [unreadable](EventsOfPage::unreadable), whoever's it is,
///   because nobody knows which keys it names. Until such an event is restored, the answer is not complete.
///
/// # What is not found
/// - With an index, events before its mark that somebody changed past this crate: see
///   [`index_seals`](crate::maintenance::index_seals).
/// - Events that were stored in the clear: no seal names their owner. See [`Census`](crate::maintenance::Census).
/// - Events whose key has no row in the key table any more. A key is found by its scope through that row, so
///   [`SealedStore::events_of`] knows nothing of it. If another source names its id, such as an old
///   [history](crate::keys::KeyHistory), pass the id to [`of_keys`](Self::of_keys).
///
/// ```
/// # use eventseal::{EventStore, ExpectedVersion, KeyScope, Keyring, Namespace, NewEvent, Owner, Result, Schemas};
/// # use eventseal::{SealedStore, aggregate, event};
/// # use eventseal::maintenance::EventsOfOptions;
/// # use eventseal::memory::{MemoryDb, MemoryKeys, MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let db = MemoryDb::new(Namespace::new("demo")?);
/// # let schemas = Schemas::new([event("Registered").version(1).protect(&["/name"], Owner::Aggregate)])?;
/// # let store = SealedStore::new(MemoryStore::new(), MemoryKeys::new(), Keyring::generate("demo")?, schemas);
/// # store.keys().prepare(&mut db.begin()).await?;
/// # let mut tx = db.begin();
/// # let new = NewEvent::raw("Registered", 1, r#"{"name":"Ada"}"#);
/// # store.append(&mut tx, &aggregate("Customer", "42"), ExpectedVersion::NoStream, &[new]).await?;
/// # tx.commit()?;
/// let mut connection = db.begin();
/// let scope = KeyScope::new("Customer", "42");
/// let mut search = store.events_of(&mut connection, &scope, &EventsOfOptions::default()).await?;
/// while let Some(page) = search.next(&mut connection).await? {
///     for found in &page.events {
///         println!("{} {}", found.event.global_position, found.places[0].pointer);
///     }
///     assert!(page.unreadable.is_empty());
/// }
/// assert_eq!(search.progress().found, 1);
/// # Ok(())
/// # }
/// ```
pub struct EventsOf<'t, T: ?Sized> {
    table: &'t T,
    keys: HashSet<KeyId>,
    /// What is read next: of the log or, with an index, of the events that it does not cover.
    query: StoredQuery,
    progress: EventsOfProgress,
    way: Way,
    uses_index: bool,
    /// The events of the last page that name other keys, if they are wanted.
    others: Option<Vec<OtherKeys>>,
}

/// The keys that an event names and that are not searched for.
pub(crate) struct OtherKeys {
    pub(crate) position: GlobalPosition,
    pub(crate) event_id: Uuid,
    pub(crate) keys: Vec<KeyId>,
}

/// How the events are found.
enum Way {
    /// By reading all events of the query.
    Scan,
    /// First by reading those events of the query that have no row in the index, and then from the index. In the other
    /// order, an event would be missed that gets its rows in between.
    Uncovered { index: SealIndexState, found: BTreeSet<GlobalPosition>, reported: HashSet<GlobalPosition> },
    /// By reading the events at these positions.
    Positions { left: VecDeque<GlobalPosition>, reported: HashSet<GlobalPosition> },
    /// All are found.
    Done,
}

/// How many positions are read from the index at a time.
const POSITIONS: u32 = 10_000;

/// How many events that the index leads to are read at a time, at most. Their sizes are not known beforehand.
const AT_ONCE: usize = 100;

/// The progress of a search, after each page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventsOfProgress {
    /// The position up to which the log was searched. With an index, this begins to grow when the events that it does
    /// not cover were read.
    pub position: GlobalPosition,
    /// The position at which the search ends: the last one of the store when it began, or the end of its range.
    pub last: GlobalPosition,
    /// How many stored events were read. With an index, those that are found although it does not cover them are read
    /// twice.
    pub looked_at: u64,
    /// How many of them are sealed by the keys.
    pub found: u64,
    /// How many have a header that can't be read.
    pub unreadable: u64,
}

/// A page of a search.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventsOfPage {
    /// The events of this page that are sealed by the keys, in ascending order of position. Often there are none.
    pub events: Vec<EventOf>,
    /// The events of this page with a header that can't be read, so that nobody knows which keys it names. They may or
    /// may not be events of the scope.
    pub unreadable: Vec<Unreadable>,
    /// The progress of the search, this page included.
    pub progress: EventsOfProgress,
}

/// A stored event that is sealed by keys that were searched for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventOf {
    /// The event as it is stored: its payload is sealed.
    pub event: PersistedEvent,
    /// The places in the payload that these keys seal, in the order of the header; at least one. What the header says
    /// is not authenticated here: opening the event does that.
    pub places: Vec<PlaceOf>,
}

/// A place in the stored payload or metadata of an [`EventOf`] that a key of the search seals. An event that was read
/// has [`SealedPlace`](crate::SealedPlace)s instead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaceOf {
    /// The place. The root means that the payload is sealed as a whole.
    pub pointer: JsonPointer,
    /// Is it in the metadata, and not in the payload?
    pub in_metadata: bool,
    /// The key.
    pub key_id: KeyId,
    /// Is there no ciphertext, because the key was already destroyed when the event was sealed? A
    /// [backfill](SealedStore::backfill) that erases, and a [rewrite](SealedStore::rewrite), write such places.
    pub is_void: bool,
}

impl<'t, T: EventTable + ?Sized> EventsOf<'t, T> {
    /// Begins a search for the events that these keys seal.
    ///
    /// # Errors
    /// Those of the [table](EventTable).
    pub async fn of_keys(
        table: &'t T,
        connection: &mut T::Tx,
        keys: impl IntoIterator<Item = KeyId> + Send,
        options: &EventsOfOptions,
    ) -> Result<Self> {
        let keys = keys.into_iter().collect();
        let index = if options.use_index { usable_index(table, connection).await? } else { None };
        let last = table.last_position(connection).await?;
        let last = options.range.up_to.map_or(last, |up_to| up_to.min(last)).max(options.range.after);
        let covered = index.map_or(GlobalPosition::START, |index| index.complete_up_to);
        let query = StoredQuery {
            range: PositionRange { after: options.range.after.max(covered), up_to: Some(last) },
            limit: options.batch.max(1),
            max_bytes: PAGE_BYTES,
            ..StoredQuery::default()
        };
        let progress = EventsOfProgress { position: options.range.after, last, ..EventsOfProgress::default() };
        let way =
            index.map_or(Way::Scan, |index| Way::Uncovered { index, found: BTreeSet::new(), reported: HashSet::new() });
        Ok(Self { table, keys, query, progress, way, uses_index: index.is_some(), others: None })
    }

    /// Also notes the other keys that events name, for [`take_others`](Self::take_others). With an index, only the
    /// events of the keys that are searched for are read, so nothing is noted.
    pub(crate) fn noting_others(self) -> Self {
        Self { others: (!self.uses_index).then(Vec::new), ..self }
    }

    /// The events that were looked at since the last call, and that name keys which are not searched for.
    pub(crate) fn take_others(&mut self) -> Vec<OtherKeys> {
        self.others.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The next page; `None` at the end. A page that failed can be asked for again.
    ///
    /// # Errors
    /// Those of the [table](EventTable). [`Error::Collision`] if somebody emptied the index meanwhile: begin again.
    pub async fn next(&mut self, connection: &mut T::Tx) -> Result<Option<EventsOfPage>> {
        loop {
            let page = match &self.way {
                Way::Scan => self.scan(connection).await?,
                Way::Uncovered { .. } => self.read_uncovered(connection).await?,
                Way::Positions { .. } => self.read_positions(connection).await?,
                Way::Done => return Ok(None),
            };
            if page.is_some() {
                return Ok(page);
            }
        }
    }

    /// Reads a page of all events. At the end, `None`.
    async fn scan(&mut self, connection: &mut T::Tx) -> Result<Option<EventsOfPage>> {
        let stored = match self.query.range.after < self.progress.last {
            true => self.table.stored_events(connection, &self.query).await?,
            false => Vec::new(),
        };
        let Some(last) = stored.last() else { return Ok(self.end()) };
        self.query.range.after = last.global_position;
        self.progress.position = last.global_position;
        let (events, unreadable) = self.look_through(stored);
        Ok(Some(self.page(events, unreadable)))
    }

    /// Reads a page of the events that the index does not cover, and notes which of them are found. At the end, asks
    /// the index, and returns `None`.
    async fn read_uncovered(&mut self, connection: &mut T::Tx) -> Result<Option<EventsOfPage>> {
        let (Some(rows), Way::Uncovered { index, found, .. }) = (self.table.seal_index(), &self.way) else {
            return Ok(self.end());
        };
        let stored = match self.query.range.after < self.progress.last {
            true => rows.events_without(connection, &self.query).await?,
            false => Vec::new(),
        };
        let Some(last) = stored.last().map(|event| event.global_position) else {
            let range = PositionRange { after: self.progress.position, up_to: Some(self.progress.last) };
            let keys: Vec<KeyId> = self.keys.iter().copied().chain([UNREADABLE_SEAL]).collect();
            let indexed = positions(rows, connection, &keys, range, index.id).await?;
            let left = indexed.union(found).copied().collect();
            let reported = match &mut self.way {
                Way::Uncovered { reported, .. } => std::mem::take(reported),
                _ => HashSet::new(),
            };
            self.way = Way::Positions { left, reported };
            return Ok(None);
        };
        self.query.range.after = last;
        let (events, unreadable) = self.look_through(stored);
        if let Way::Uncovered { found, reported, .. } = &mut self.way {
            found.extend(events.iter().map(|found| found.event.global_position));
            reported.extend(unreadable.iter().map(|event| event.global_position));
        }
        Ok(Some(self.page(Vec::new(), unreadable)))
    }

    /// Reads events at the positions that are left. At the end, `None`.
    async fn read_positions(&mut self, connection: &mut T::Tx) -> Result<Option<EventsOfPage>> {
        let Way::Positions { left, .. } = &self.way else { return Ok(self.end()) };
        let count = left.len().min(AT_ONCE).min(self.query.limit as usize);
        let next: Vec<GlobalPosition> = left.iter().take(count).copied().collect();
        let Some(last) = next.last() else { return Ok(self.end()) };
        let stored = self.table.stored_events_at(connection, &next).await?;
        self.progress.position = *last;
        let (events, mut unreadable) = self.look_through(stored);
        if let Way::Positions { left, reported } = &mut self.way {
            left.drain(..count);
            unreadable.retain(|event| !reported.contains(&event.global_position));
        }
        Ok(Some(self.page(events, unreadable)))
    }

    fn end(&mut self) -> Option<EventsOfPage> {
        self.progress.position = self.progress.last;
        self.way = Way::Done;
        None
    }

    fn page(&mut self, events: Vec<EventOf>, unreadable: Vec<Unreadable>) -> EventsOfPage {
        self.progress.found += events.len() as u64;
        self.progress.unreadable += unreadable.len() as u64;
        EventsOfPage { events, unreadable, progress: self.progress }
    }

    /// The events that the keys seal, and those whose header can't be read.
    fn look_through(&mut self, stored: Vec<PersistedEvent>) -> (Vec<EventOf>, Vec<Unreadable>) {
        let (mut events, mut unreadable) = (Vec::new(), Vec::new());
        self.progress.looked_at += stored.len() as u64;
        for event in stored {
            match self.places_in(&event) {
                Ok(places) if places.is_empty() => {}
                Ok(places) => events.push(EventOf { event, places }),
                Err(error) => unreadable.push(cannot_be_read(&event, error)),
            }
        }
        (events, unreadable)
    }

    /// Does the search use an index of seals? Not if there is none, or if it belongs to other events.
    #[must_use]
    pub fn uses_index(&self) -> bool {
        self.uses_index
    }

    /// The progress so far.
    #[must_use]
    pub fn progress(&self) -> EventsOfProgress {
        self.progress
    }

    /// The keys that are searched for, in any order.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().copied()
    }

    /// The places of an event that the keys seal.
    fn places_in(&mut self, event: &PersistedEvent) -> Result<Vec<PlaceOf>> {
        let headers = find_headers(event)?;
        let [payload, metadata] = &headers;
        let both = payload.iter().map(|header| (header, false)).chain(metadata.iter().map(|header| (header, true)));
        let wanted = &self.keys;
        let places = both.flat_map(|(header, in_metadata)| {
            header.entries.iter().filter_map(move |entry| {
                let key_id = header.keys[usize::from(entry.key)];
                let pointer = || JsonPointer::new_unchecked(header.pointer(*entry));
                let is_void = entry.kind == EntryKind::Void;
                wanted.contains(&key_id).then(|| PlaceOf { pointer: pointer(), in_metadata, key_id, is_void })
            })
        });
        let places = places.collect();
        if let Some(others) = &mut self.others {
            let keys: Vec<KeyId> = keys_of(headers).into_iter().filter(|key| !self.keys.contains(key)).collect();
            if !keys.is_empty() {
                others.push(OtherKeys { position: event.global_position, event_id: event.event_id, keys });
            }
        }
        Ok(places)
    }
}

/// The index of seals, if there is one that belongs to the events.
async fn usable_index<T: EventTable + ?Sized>(table: &T, connection: &mut T::Tx) -> Result<Option<SealIndexState>> {
    let Some(index) = table.seal_index() else { return Ok(None) };
    let Some(state) = index.state(connection).await? else { return Ok(None) };
    if belongs(table, connection, &state).await? {
        return Ok(Some(state));
    }
    let position = state.complete_up_to;
    tracing::warn!(%position, "the index of seals does not belong to these events, and is not used");
    Ok(None)
}

/// All positions of these keys. Afterwards, the index must still be the one that the search began with.
async fn positions<Tx: Send + 'static>(
    index: &dyn SealIndex<Tx = Tx>,
    connection: &mut Tx,
    keys: &[KeyId],
    mut range: PositionRange,
    id: Uuid,
) -> Result<BTreeSet<GlobalPosition>> {
    let mut found = BTreeSet::new();
    loop {
        let page = index.positions(connection, keys, range, POSITIONS).await?;
        let is_last = page.len() < POSITIONS as usize;
        range.after = page.last().copied().unwrap_or(range.after);
        found.extend(page);
        if is_last {
            break;
        }
    }
    match index.state(connection).await? {
        Some(state) if state.id == id => Ok(found),
        _ => Err(Error::Collision { source: None }),
    }
}

impl<T: ?Sized> fmt::Debug for EventsOf<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsOf").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl<S, K> SealedStore<S, K>
where
    S: EventStore + EventTable<Tx = <S as EventStore>::Tx>,
    K: KeyStore<Tx = <S as EventStore>::Tx> + ?Sized,
{
    /// Begins a search for the stored events that the keys of a scope seal: all keys that it ever had, the destroyed
    /// ones included. See [`EventsOf`] for what is found, and what is not.
    ///
    /// `connection` need not be in a transaction.
    ///
    /// # Errors
    /// [`KeyFault::ScopeState`] if the key table does not know the scope, or if it is one of this crate's own; errors
    /// of the key table and of the [table of events](EventTable).
    pub async fn events_of(
        &self,
        connection: &mut <S as EventStore>::Tx,
        scope: &KeyScope,
        options: &EventsOfOptions,
    ) -> Result<EventsOf<'_, S>> {
        scope.check()?;
        let refused = |problem| Error::Keys(KeyFault::ScopeState { scope: scope.clone(), problem });
        if scope.is_reserved() {
            return Err(refused("belongs to eventseal itself: it authenticates every seal, and seals no value"));
        }
        let history = self.keys().key_history(connection, scope).await?;
        let history = history.ok_or_else(|| refused("has no keys: nothing was ever sealed for it"))?;
        let keys = history.keys.into_iter().map(|key| key.key_id);
        EventsOf::of_keys(self.inner(), connection, keys, options).await
    }
}
