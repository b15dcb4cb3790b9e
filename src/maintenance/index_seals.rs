//! Fills the index of seals, which leads from a key to the events that it seals.

use crate::error::{Error, MaintenanceFault, Result};
use crate::event::{GlobalPosition, PersistedEvent, Unreadable};
use crate::keys::names::KeyId;
use crate::maintenance::pace::{PAGE_BYTES, Pace, may_retry};
use crate::seal::format::Header;
use crate::seal::named::find_headers;
use crate::store::{
    EventTable, IndexedSeal, PositionRange, SealIndex, SealIndexState, StoredQuery, TableWork, UNREADABLE_SEAL,
};
use crate::telemetry;
use async_trait::async_trait;
use std::num::NonZeroU32;
use uuid::Uuid;

/// The options of [`index_seals`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IndexSealsOptions {
    /// How many events are indexed and committed at a time; fewer if they have more than 64 MiB. 500 by default.
    pub batch: u32,
    /// The largest number of events in a second that are looked at; no limit by default.
    pub events_per_second: Option<NonZeroU32>,
    /// Empties the index first. That is needed if somebody replaced, restored or removed events without the index.
    pub anew: bool,
}

impl Default for IndexSealsOptions {
    fn default() -> Self {
        Self { batch: 500, events_per_second: None, anew: false }
    }
}

/// The progress of [`index_seals`], after each batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexSealsProgress {
    /// The position up to which the index is complete.
    pub complete_up_to: GlobalPosition,
    /// The position up to which this call is going to complete it.
    pub last: GlobalPosition,
    /// How many events were looked at. Events that have their rows are not.
    pub looked_at: u64,
}

/// The report of [`index_seals`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SealsIndexed {
    /// How many events were looked at, because they had no row.
    pub looked_at: u64,
    /// How many of them are sealed, and have their rows now.
    pub indexed: u64,
    /// How many of them have a header that can't be read. Every search reads and reports them.
    pub unreadable: u64,
    /// The first 1,000 of these.
    pub first_unreadable: Vec<Unreadable>,
    /// The position up to which the index is complete.
    pub complete_up_to: GlobalPosition,
}

/// How many unreadable events a report holds.
const REPORTED: usize = 1_000;

/// Completes the [index of seals](SealIndex) of a table, so that searches for the [events of a
/// scope](crate::SealedStore::events_of) need not read the log. Makes the index if there is none; on PostgreSQL and
/// SQLite, that takes the permission to create tables.
///
/// It reads every event behind the mark that has no row, adds the rows that are missing, and moves the mark. It opens
/// nothing, so it needs no keys. It works in batches, each in a transaction of its own, on a connection that is not in
/// one. Appends and reads go on meanwhile. Several calls may run at once. A call that ended early for any reason has
/// left an index that searches can use: call it again, and it goes on where it was.
///
/// Call it once for a store that is full, and now and then afterwards, such as once a day. A search reads the events
/// behind the mark that have no row: those of writers that don't keep the index, and those that are not sealed. And for
/// all others behind the mark it looks for a row. So the mark should not be far behind.
///
/// **What it can't know.** Whoever changes payloads before the mark without this crate, inserts events there at
/// positions of his own choosing, or deletes rows of the index, makes it incomplete, and nobody is told. With
/// [`anew`](IndexSealsOptions::anew), it starts from nothing. A search with
/// [`use_index`](crate::maintenance::EventsOfOptions::use_index) switched off reads everything.
///
/// ```
/// # use eventseal::{Namespace, Result};
/// # use eventseal::maintenance::{IndexSealsOptions, index_seals};
/// # use eventseal::memory::{MemoryDb, MemoryStore};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// # let db = MemoryDb::new(Namespace::new("demo")?);
/// let store = MemoryStore::new().index_seals(); // appends keep the index from now on
/// let done = index_seals(&store, &mut db.begin(), &IndexSealsOptions::default(), &mut |_| {}).await?;
/// assert_eq!(done.unreadable, 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`MaintenanceFault::NoSealIndex`] if this kind of table can't have an index, [`MaintenanceFault::ForeignSealIndex`];
/// [`Error::Collision`] (retryable) if transactions that append stay open, or if another process emptied the index;
/// those of [`EventTable`].
pub async fn index_seals<T: EventTable + ?Sized>(
    table: &T,
    connection: &mut T::Tx,
    options: &IndexSealsOptions,
    progress: &mut (dyn FnMut(IndexSealsProgress) + Send),
) -> Result<SealsIndexed> {
    telemetry::index_seals(None).run(|| complete_index(table, connection, options, progress)).await
}

async fn complete_index<T: EventTable + ?Sized>(
    table: &T,
    connection: &mut T::Tx,
    options: &IndexSealsOptions,
    progress: &mut (dyn FnMut(IndexSealsProgress) + Send),
) -> Result<SealsIndexed> {
    let index = table.seal_index().ok_or(Error::Maintenance(MaintenanceFault::NoSealIndex))?;
    if index.state(connection).await?.is_none() {
        index.make(connection).await?;
    }
    if options.anew {
        commit(table, connection, &mut Batch { index, does: Does::Empty }).await?;
    }
    let state = index.state(connection).await?.ok_or(Error::Maintenance(MaintenanceFault::NoSealIndex))?;
    if !belongs(table, connection, &state).await? {
        return Err(Error::Maintenance(MaintenanceFault::ForeignSealIndex { position: state.complete_up_to }));
    }
    // This comes before any event is read: an event that is in flight now may appear at a position that was passed.
    let settled = settled(table, connection).await?;
    let mut done = SealsIndexed { complete_up_to: state.complete_up_to, ..SealsIndexed::default() };
    let mut pace = Pace::new(options.events_per_second);
    while done.complete_up_to < settled {
        let query = StoredQuery {
            range: PositionRange { after: done.complete_up_to, up_to: Some(settled) },
            limit: pace.batch(options.batch),
            max_bytes: PAGE_BYTES,
            ..StoredQuery::default()
        };
        let events = index.events_without(connection, &query).await?;
        let looked_at = events.len();
        let (seals, unreadable) = seals_of(&events);
        let last = match events.last() {
            Some(last) => Some((last.global_position, last.event_id)),
            // All others have their rows.
            None => table.stored_events_at(connection, &[settled]).await?.pop().map(|last| (settled, last.event_id)),
        };
        // Somebody has removed the last event.
        let Some((up_to, last_event)) = last else { break };
        let mut batch =
            Batch { index, does: Does::Complete { id: state.id, seals: &seals, up_to, last_event, is_done: false } };
        commit(table, connection, &mut batch).await?;
        done.complete_up_to = match batch.does {
            Does::Complete { is_done: true, .. } => up_to,
            // Another process is ahead, or has emptied the index.
            _ => ahead(index, connection, state.id).await?,
        };
        done.add(looked_at, &seals, unreadable);
        progress(IndexSealsProgress { complete_up_to: done.complete_up_to, last: settled, looked_at: done.looked_at });
        pace.keep(looked_at).await?;
    }
    tracing::info!(up_to = %done.complete_up_to, indexed = done.indexed, "the index of seals was completed");
    Ok(done)
}

impl SealsIndexed {
    fn add(&mut self, looked_at: usize, seals: &[IndexedSeal], unreadable: Vec<Unreadable>) {
        self.looked_at += looked_at as u64;
        self.indexed += (seals.len() - unreadable.len()) as u64;
        self.unreadable += unreadable.len() as u64;
        let room = REPORTED.saturating_sub(self.first_unreadable.len());
        self.first_unreadable.extend(unreadable.into_iter().take(room));
    }
}

/// Does the index belong to the events of this table, as far as the event at its mark says?
pub(super) async fn belongs<T: EventTable + ?Sized>(
    table: &T,
    connection: &mut T::Tx,
    state: &SealIndexState,
) -> Result<bool> {
    if state.complete_up_to == GlobalPosition::START {
        return Ok(true);
    }
    let last = table.stored_events_at(connection, &[state.complete_up_to]).await?.pop();
    Ok(last.map(|last| last.event_id) == state.last_event)
}

/// The rows of events, and those of them whose header can't be read. Events without a header have no rows.
pub(super) fn seals_of<'e>(
    events: impl IntoIterator<Item = &'e PersistedEvent>,
) -> (Vec<IndexedSeal>, Vec<Unreadable>) {
    let (mut seals, mut unreadable) = (Vec::new(), Vec::new());
    for event in events {
        let position = event.global_position;
        match find_headers(event).map(keys_of) {
            Ok(keys) if keys.is_empty() => {}
            Ok(keys) => seals.push(IndexedSeal { position, keys }),
            Err(error) => {
                seals.push(IndexedSeal { position, keys: vec![UNREADABLE_SEAL] });
                unreadable.push(cannot_be_read(event, error));
            }
        }
    }
    (seals, unreadable)
}

/// The keys that headers name, each once.
pub(super) fn keys_of(headers: [Option<Header>; 2]) -> Vec<KeyId> {
    let mut keys: Vec<KeyId> = Vec::new();
    for header in headers.into_iter().flatten() {
        let new: Vec<KeyId> = header.keys.into_iter().filter(|key| !keys.contains(key)).collect();
        keys.extend(new);
    }
    keys
}

pub(super) fn cannot_be_read(event: &PersistedEvent, error: Error) -> Unreadable {
    Unreadable {
        aggregate: event.aggregate.clone(),
        aggregate_version: event.aggregate_version,
        global_position: event.global_position,
        event_id: event.event_id,
        error,
    }
}

/// The settled position. Tries again, a limited number of times, while transactions that have appended are open.
async fn settled<T: EventTable + ?Sized>(table: &T, connection: &mut T::Tx) -> Result<GlobalPosition> {
    let mut attempt = 0;
    loop {
        match table.settled_position(connection).await {
            Ok(settled) => return Ok(settled),
            Err(error) => {
                attempt += 1;
                if !may_retry(&error, attempt).await? {
                    return Err(error);
                }
            }
        }
    }
}

/// The mark that another process has moved. It is a collision if that process has emptied the index.
async fn ahead<Tx: Send + 'static>(
    index: &dyn SealIndex<Tx = Tx>,
    connection: &mut Tx,
    id: Uuid,
) -> Result<GlobalPosition> {
    let state = index.state(connection).await?.filter(|state| state.id == id);
    state.map(|state| state.complete_up_to).ok_or(Error::Collision { source: None })
}

/// Commits a batch. It tries again, a limited number of times, if others get in the way.
async fn commit<T: EventTable + ?Sized>(table: &T, connection: &mut T::Tx, batch: &mut Batch<'_, T::Tx>) -> Result<()> {
    let mut attempt = 0;
    while let Err(error) = table.in_transaction(connection, batch).await {
        attempt += 1;
        if !may_retry(&error, attempt).await? {
            return Err(error);
        }
    }
    Ok(())
}

struct Batch<'a, Tx> {
    index: &'a dyn SealIndex<Tx = Tx>,
    does: Does<'a>,
}

enum Does<'a> {
    Empty,
    Complete { id: Uuid, seals: &'a [IndexedSeal], up_to: GlobalPosition, last_event: Uuid, is_done: bool },
}

#[async_trait]
impl<Tx: Send + 'static> TableWork<Tx> for Batch<'_, Tx> {
    async fn run(&mut self, tx: &mut Tx) -> Result<()> {
        match &mut self.does {
            Does::Empty => self.index.empty(tx).await,
            Does::Complete { id, seals, up_to, last_event, is_done } => {
                self.index.add(tx, seals).await?;
                *is_done = self.index.complete(tx, *id, *up_to, *last_event).await?;
                Ok(())
            }
        }
    }
}
