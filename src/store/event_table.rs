//! The port to the rows of an event store, for maintenance.

use crate::error::{Error, InputFault, MaintenanceFault, Result};
use crate::event::{EventType, EventVersion, GlobalPosition, PersistedEvent};
use crate::store::seal_index::SealIndex;
use async_trait::async_trait;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use time::OffsetDateTime;
use uuid::Uuid;

/// The stored events as rows, which are counted, read as they are stored, replaced in place, and inserted with the
/// positions that they have. For [`Census`](crate::maintenance::Census), [`backfill`](crate::SealedStore::backfill) and
/// [`rewrite`](crate::SealedStore::rewrite); applications use [`EventStore`](crate::EventStore).
///
/// Nothing is opened, upcast or checked against schemas here, and no notification is sent.
///
/// `conformance::event_table` (feature `conformance`) checks an implementation against this contract.
///
/// # Errors
/// Every method fails with [`Error::Database`](crate::Error::Database) if the database does, with
/// [`StorageFault::InvalidRow`](crate::error::StorageFault::InvalidRow) for a row that it can't read, and with the
/// retryable [`Error::Collision`](crate::Error::Collision) if another transaction is in the way.
#[async_trait]
pub trait EventTable: Send + Sync {
    /// A connection, which is in a transaction if a method says so. It is the type that the event store on the same
    /// database has.
    type Tx: Send + 'static;

    /// Does some work in a transaction of its own, and commits it if the work succeeds. If the work fails, or if the
    /// future is dropped, nothing of it remains. The transaction may write from its start on. Each of its statements
    /// sees everything that was committed before the statement began.
    ///
    /// A connection in a transaction is refused with
    /// [`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction).
    async fn in_transaction(&self, connection: &mut Self::Tx, work: &mut dyn TableWork<Self::Tx>) -> Result<()>;

    /// The position of the last event that is visible; [`GlobalPosition::START`] if there is none.
    async fn last_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition>;

    /// Counts the events of each stored type and version, with and without a header, in one scan. The result is in any
    /// order.
    async fn count_events(&self, tx: &mut Self::Tx, range: PositionRange) -> Result<Vec<StoredCount>>;

    /// Reads events as they are stored, in ascending order of position. It may return fewer than the query's limit.
    /// Only an empty result means that the end was reached.
    async fn stored_events(&self, tx: &mut Self::Tx, query: &StoredQuery) -> Result<Vec<PersistedEvent>>;

    /// Reads the events at these positions as they are stored, in ascending order of position. Positions without an
    /// event are left out.
    async fn stored_events_at(&self, tx: &mut Self::Tx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>>;

    /// Replaces payloads and metadata, and returns the positions of the events in which that was done. It is done only
    /// if the payload, and the metadata that is replaced, have not changed since they were read. Rows are locked in
    /// ascending order of position. Nothing else of a row changes.
    ///
    /// Refuses a connection that is not in a transaction with
    /// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
    async fn replace_payloads(
        &self,
        tx: &mut Self::Tx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>>;

    /// Inserts events with the ids, positions, versions and times that they have, under their stored type and version.
    /// The events must be in ascending order of position, and after all that are in the table. Otherwise nothing is
    /// inserted, and the error is [`InputFault::OutOfRange`]. If the table has an event with the same id, the error is
    /// [`Error::DuplicateEventId`](crate::Error::DuplicateEventId).
    ///
    /// Afterwards, each aggregate is at the version of its last event, and the next append gets a higher position.
    ///
    /// Refuses a connection that is not in a transaction with
    /// [`TransactionFault::NotInTransaction`](crate::error::TransactionFault::NotInTransaction).
    async fn insert_events(&self, tx: &mut Self::Tx, events: &[PersistedEvent]) -> Result<()>;

    /// The position up to which everything is committed: no further event will ever appear at this position or before
    /// it.
    ///
    /// If positions come from a sequence, this waits for the transactions that have appended and not yet ended. New
    /// appends wait meanwhile. It does not wait for long: then it fails with
    /// [`Error::Collision`](crate::Error::Collision). It takes a connection that is not in a transaction
    /// ([`TransactionFault::InTransaction`](crate::error::TransactionFault::InTransaction)).
    async fn settled_position(&self, connection: &mut Self::Tx) -> Result<GlobalPosition>;

    /// Where the table is. A rewrite compares the locations of its source and its target. This takes no locks, and the
    /// connection need not be in a transaction. `None` (the default) if the location can't be told.
    async fn location(&self, connection: &mut Self::Tx) -> Result<Option<TableLocation>> {
        let _ = connection;
        Ok(None)
    }

    /// The index of seals beside this table, whether it was made or not. `None` (the default) if this kind of table
    /// can't have one: then every search reads all events.
    ///
    /// Whoever [replaces payloads](Self::replace_payloads) [adds](SealIndex::add) the keys of the new ones to it in the
    /// same transaction, after they were replaced. Otherwise a search may miss these events. A table that wraps another
    /// one gives out the index of that one.
    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = Self::Tx>> {
        None
    }
}

/// Where a table of events is: see [`EventTable::location`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableLocation {
    /// In a database that many connections can write to at the same time. The text is equal exactly if two connections
    /// reach the same table.
    Table(String),
    /// In a database to which one connection can write at a time: the files that a transaction of this connection
    /// locks.
    Files(Vec<String>),
}

/// Refuses a target that is the source, or that can't be written to while the source is locked.
pub(crate) fn check_apart(source: Option<&TableLocation>, target: Option<&TableLocation>) -> Result<()> {
    match (source, target) {
        (Some(TableLocation::Table(source)), Some(TableLocation::Table(target))) if source == target => {
            Err(Error::Maintenance(MaintenanceFault::TargetIsSource))
        }
        (Some(TableLocation::Files(source)), Some(TableLocation::Files(target)))
            if source.iter().any(|file| target.contains(file)) =>
        {
            Err(Error::Maintenance(MaintenanceFault::TargetInSameFile))
        }
        _ => Ok(()),
    }
}

/// Work that is done in a transaction: see [`EventTable::in_transaction`].
#[async_trait]
pub trait TableWork<Tx: Send>: Send {
    /// Does the work. It never begins, commits or rolls back a transaction. The same work may be passed to another
    /// transaction after one that failed.
    async fn run(&mut self, tx: &mut Tx) -> Result<()>;
}

/// A part of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionRange {
    /// The range begins after this position.
    pub after: GlobalPosition,
    /// The range ends with this position; `None` for the end of the log.
    pub up_to: Option<GlobalPosition>,
}

impl PositionRange {
    /// Is the position in the range?
    #[must_use]
    pub fn contains(self, position: GlobalPosition) -> bool {
        position > self.after && self.up_to.is_none_or(|up_to| position <= up_to)
    }

    /// The last position as a number, for statements.
    #[allow(dead_code, reason = "used by the SQL adapters only")]
    pub(crate) fn end(self) -> i64 {
        self.up_to.map_or(i64::MAX, GlobalPosition::get)
    }
}

/// Which stored events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredQuery {
    /// The part of the log.
    pub range: PositionRange,
    /// The largest number of events.
    pub limit: u32,
    /// The largest sum of the sizes of their payloads, in bytes. The result ends before the event that would exceed it.
    /// The first event is returned whatever its size.
    pub max_bytes: u64,
    /// Only of these stored types and versions; all if empty.
    pub versions: Vec<(EventType, EventVersion)>,
    /// Only those whose payload does not [start with a header](starts_with_header).
    pub without_header: bool,
}

impl Default for StoredQuery {
    /// The first 500, or 64 MiB of them.
    fn default() -> Self {
        Self {
            range: PositionRange::default(),
            limit: 500,
            max_bytes: 64 << 20,
            versions: Vec::new(),
            without_header: false,
        }
    }
}

/// How many stored events have a type and version, and do or do not start with a header.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredCount {
    /// The type as stored.
    pub event_type: EventType,
    /// The version as stored.
    pub event_version: EventVersion,
    /// Do their payloads [start with a header](starts_with_header)?
    pub with_header: bool,
    /// How many.
    pub events: u64,
    /// The position of the first and of the last.
    pub positions: (GlobalPosition, GlobalPosition),
    /// The earliest and the latest time.
    pub created_at: (OffsetDateTime, OffsetDateTime),
}

impl StoredCount {
    /// The count of one event, to which [`add`](Self::add) adds others. For implementers without a database that counts
    /// for them.
    #[must_use]
    pub fn of(event: &PersistedEvent) -> Self {
        Self {
            event_type: event.stored_type.clone(),
            event_version: event.stored_version,
            with_header: starts_with_header(&event.payload),
            events: 1,
            positions: (event.global_position, event.global_position),
            created_at: (event.created_at, event.created_at),
        }
    }

    /// Adds the count of another range of the same type and version.
    pub fn add(&mut self, other: &Self) {
        self.events = self.events.saturating_add(other.events);
        self.positions = (self.positions.0.min(other.positions.0), self.positions.1.max(other.positions.1));
        self.created_at = (self.created_at.0.min(other.created_at.0), self.created_at.1.max(other.created_at.1));
    }
}

/// A payload, and the payload that is to replace it. It may replace the event's metadata too.
#[derive(Clone, PartialEq, Eq)]
pub struct PayloadReplacement {
    /// The event's position.
    pub position: GlobalPosition,
    /// The event's id.
    pub event_id: Uuid,
    /// The payload that was read.
    pub old: Vec<u8>,
    /// The payload that is to replace it.
    pub new: Vec<u8>,
    /// The metadata, if they are replaced.
    pub metadata: Option<MetadataReplacement>,
}

/// Metadata, and the metadata that are to replace them.
#[derive(Clone, PartialEq, Eq)]
pub struct MetadataReplacement {
    /// The metadata that were read. A store that keeps them as JSON compares them as JSON.
    pub old: Vec<u8>,
    /// The metadata that are to replace them.
    pub new: Vec<u8>,
}

/// Shows sizes, and no contents.
impl std::fmt::Debug for MetadataReplacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetadataReplacement")
            .field("old", &format_args!("{} bytes", self.old.len()))
            .field("new", &format_args!("{} bytes", self.new.len()))
            .finish()
    }
}

/// Shows sizes, and no contents.
impl std::fmt::Debug for PayloadReplacement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PayloadReplacement")
            .field("position", &self.position.get())
            .field("event_id", &self.event_id)
            .field("old", &format_args!("{} bytes", self.old.len()))
            .field("new", &format_args!("{} bytes", self.new.len()))
            .field("metadata", &self.metadata)
            .finish()
    }
}

/// The tokens that every sealed payload begins with, because the header is written first. A store that prints JSON anew
/// may put white space between them.
pub(crate) const HEADER_START: [&str; 4] = ["{", "\"$seal\"", ":", "\""];
/// The number of bytes in which the start of a header is looked for, so that no database has to fetch more.
pub(crate) const HEADER_WITHIN: usize = 64;

/// Does a payload begin with a header, as far as its first 64 bytes say? White space between the tokens does not
/// matter: a column of type JSONB puts some behind the colon.
///
/// A header is the first member of the root, so no value inside the payload can be taken for one. This misses a sealed
/// payload that begins with much white space, or whose members were put into another order: maintenance then examines
/// it like plaintext, and finds that it is sealed. This says nothing about which values the header covers.
///
/// **A store that prints JSON anew** keeps members in an order of its own (JSONB: shorter names first). Its
/// [`EventTable`] asks whether the root *has* the member, at any place: `jsonb_typeof(payload -> '$seal') = 'string'`
/// in PostgreSQL, or [`holds_header`] if the database can't be asked. (`payload ? '$seal'` is also true of an array
/// with that string in it.)
#[must_use]
pub fn starts_with_header(payload: &[u8]) -> bool {
    let mut rest = payload.get(..HEADER_WITHIN).unwrap_or(payload);
    HEADER_START.iter().all(|token| {
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        rest = &rest[blank..];
        let found = rest.strip_prefix(token.as_bytes());
        rest = found.unwrap_or_default();
        found.is_some()
    })
}

/// Does the root of a payload have a member `$seal` whose value is a string, at any place? It is for tables whose store
/// prints JSON anew, and reads all of the payload. `false` if the payload is not JSON.
#[must_use]
pub fn holds_header(payload: &[u8]) -> bool {
    let root = serde_json::from_slice::<HashMap<Cow<'_, str>, &RawValue>>(payload);
    root.is_ok_and(|root| root.get("$seal").is_some_and(|value| value.get().starts_with('"')))
}

/// The checks that every table makes before it inserts events with the positions that they have.
pub(crate) fn check_insert(last: GlobalPosition, events: &[PersistedEvent]) -> Result<()> {
    let mut last = last;
    let mut ids = HashSet::with_capacity(events.len());
    for event in events {
        if event.global_position <= last {
            return Err(Error::Input(InputFault::OutOfRange {
                what: "global position",
                value: event.global_position.get(),
                hint: "events are inserted in ascending order of position, after all that are in the table",
            }));
        }
        last = event.global_position;
        if !ids.insert(event.event_id) {
            return Err(Error::DuplicateEventId { event_id: event.event_id });
        }
    }
    Ok(())
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: EventTable + ?Sized> EventTable for Arc<T> {
    type Tx = T::Tx;

    async fn in_transaction(&self, connection: &mut Self::Tx, work: &mut dyn TableWork<Self::Tx>) -> Result<()> {
        (**self).in_transaction(connection, work).await
    }

    async fn last_position(&self, tx: &mut Self::Tx) -> Result<GlobalPosition> {
        (**self).last_position(tx).await
    }

    async fn count_events(&self, tx: &mut Self::Tx, range: PositionRange) -> Result<Vec<StoredCount>> {
        (**self).count_events(tx, range).await
    }

    async fn stored_events(&self, tx: &mut Self::Tx, query: &StoredQuery) -> Result<Vec<PersistedEvent>> {
        (**self).stored_events(tx, query).await
    }

    async fn stored_events_at(&self, tx: &mut Self::Tx, positions: &[GlobalPosition]) -> Result<Vec<PersistedEvent>> {
        (**self).stored_events_at(tx, positions).await
    }

    async fn replace_payloads(
        &self,
        tx: &mut Self::Tx,
        replacements: &[PayloadReplacement],
    ) -> Result<Vec<GlobalPosition>> {
        (**self).replace_payloads(tx, replacements).await
    }

    async fn insert_events(&self, tx: &mut Self::Tx, events: &[PersistedEvent]) -> Result<()> {
        (**self).insert_events(tx, events).await
    }

    async fn settled_position(&self, connection: &mut Self::Tx) -> Result<GlobalPosition> {
        (**self).settled_position(connection).await
    }

    async fn location(&self, connection: &mut Self::Tx) -> Result<Option<TableLocation>> {
        (**self).location(connection).await
    }

    fn seal_index(&self) -> Option<&dyn SealIndex<Tx = Self::Tx>> {
        (**self).seal_index()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_found_wherever_jsonb_puts_it() {
        for (payload, expected) in [
            (&br#"{"a": 1, "$seal": "AQ"}"#[..], true),
            (br#"{"a": {"$seal": "AQ"}}"#, false),
            (br#"{"$seal": {"a": 1}}"#, false),
            (br#"{"a": 1, "\u0024seal": "AQ"}"#, true),
            (br#"{"$seal": "AQ""#, false),
            (b"[]", false),
        ] {
            assert_eq!(holds_header(payload), expected, "{}", String::from_utf8_lossy(payload));
        }
    }

    #[test]
    fn a_header_is_at_the_start_or_not_taken_for_one() {
        for (payload, expected) in [
            (&br#"{"$seal":"AQ","a":1}"#[..], true),
            (b" \r\n\t{\"$seal\":\"AQ\"}", true),
            (br#"{"a":{"$seal":"AQEA"}}"#, false),
            (br#"{"a":1,"$seal":"AQEA"}"#, false),
            (br#"["$seal"]"#, false),
            (b"", false),
            (&[b" ".repeat(60), br#"{"$seal":"AQ"}"#.to_vec()].concat(), false),
            (b"{\"$seal\": \"AQ\", \"a\": 1}", true),
            (b"{\n  \"$seal\"\t:\r\"AQ\"}", true),
            (b"{ \"$ seal\": \"AQ\"}", false),
            (b"{\"$seal\": 1}", false),
            (b"\x0c{\"$seal\": \"AQ\"}", false),
            (b"{\"$sealed\": \"AQ\"}", false),
        ] {
            assert_eq!(starts_with_header(payload), expected, "{}", String::from_utf8_lossy(payload));
            assert!(holds_header(payload) || !expected);
        }
    }
}
