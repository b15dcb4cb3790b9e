//! Rows of events as records, and the checks and results of appends.

mod read;
mod written;

pub(crate) use read::{count, read_at, read_stream};
pub(crate) use written::{WRITTEN, Written};

use crate::error::{Error, Result, StorageFault};
use crate::event::{
    AggregateRef, AggregateVersion, Appended, EventFilter, EventPage, EventType, EventVersion, ExpectedVersion,
    GlobalPosition, NewEvent, Part, PersistedEvent, Sealed, Stream, aggregate,
};
use crate::sql::{SqlRow, check_stored};
use crate::store::event_table::StoredCount;
use std::sync::Arc;
#[cfg(feature = "postgres")]
use time::OffsetDateTime;
#[cfg(feature = "postgres")]
use uuid::Uuid;

/// The columns of an event within its aggregate, as [`event`] reads them. Each adapter fills in its name of
/// `{aggregate_version}`, and an expression that selects `{metadata}` as text. If events of any aggregate are read, the
/// aggregate's type and id follow: see [`events`].
pub(crate) const COLUMNS: &str = "global_position, {aggregate_version}, event_id, event_type, event_version, \
    payload, trace_id, correlation_id, causation_id, {metadata}, created_at";

/// Reads rows of any aggregates, whose type and id follow the other columns.
pub(crate) fn events(rows: &[impl SqlRow]) -> Result<Vec<PersistedEvent>> {
    let mut events: Vec<PersistedEvent> = Vec::with_capacity(rows.len());
    for row in rows {
        let (aggregate_type, aggregate_id) = (row.text(11)?, row.text(12)?);
        let same = events
            .last()
            .map(|last| &last.aggregate)
            .filter(|last| last.aggregate_type() == aggregate_type && last.aggregate_id() == aggregate_id);
        let aggregate = same.cloned().unwrap_or_else(|| aggregate(aggregate_type, aggregate_id));
        events.push(event(row, aggregate)?);
    }
    Ok(events)
}

fn event(row: &impl SqlRow, aggregate: AggregateRef) -> Result<PersistedEvent> {
    let position = GlobalPosition::try_from(row.number(0)?)?;
    let stored_type = EventType::from(row.text(3)?);
    let stored_version = event_version(row.optional_number(4)?.unwrap_or(0), position)?;
    Ok(PersistedEvent {
        aggregate,
        aggregate_version: row.number(1)?.try_into()?,
        global_position: position,
        event_id: row.id(2)?,
        event_type: stored_type.clone(),
        stored_type,
        event_version: stored_version,
        stored_version,
        payload: row.bytes(5)?,
        trace_id: row.optional_text(6)?.map(str::to_owned),
        correlation_id: row.optional_text(7)?.map(str::to_owned),
        causation_id: row.optional_text(8)?.map(str::to_owned),
        metadata: row.optional_text(9)?.map(|metadata| metadata.as_bytes().to_vec()),
        created_at: row.time(10, CREATED_AT).map_err(|error| match error {
            Error::Storage(StorageFault::InvalidRow { problem, .. }) => {
                Error::Storage(StorageFault::InvalidEvent { position, what: "created_at", problem })
            }
            error => error,
        })?,
        part: Part::WHOLE,
        redacted: Vec::new(),
        redacted_metadata: Vec::new(),
        sealed: Sealed::default(),
        sealed_metadata: Sealed::default(),
    })
}

const CREATED_AT: &str = "events.created_at";

fn event_version(number: i64, position: GlobalPosition) -> Result<EventVersion> {
    let version = u32::try_from(number).map_err(|_| {
        Error::Storage(StorageFault::InvalidEvent {
            position,
            what: "event_version",
            problem: "is negative or too large",
        })
    })?;
    Ok(EventVersion::new(version))
}

/// A row of a data key that comes in the columns of an event ([`COLUMNS`]), followed by two more. It is read as
/// [`data_key_of_scope`](crate::sql::keys::data_key_of_scope) reads a row that is its own.
#[cfg(feature = "postgres")]
pub(crate) struct KeyInEvent<'r, R>(pub(crate) &'r R);

#[cfg(feature = "postgres")]
impl<R> KeyInEvent<'_, R> {
    /// The columns in which the key's id, scope kind, scope id, version, key-encryption key, wrapped key, times of
    /// creation and destruction, and the state of its scope come.
    const COLUMNS: [usize; 9] = [2, 3, 6, 1, 11, 5, 10, 12, 7];

    fn column(index: usize) -> usize {
        Self::COLUMNS.get(index).copied().unwrap_or(usize::MAX)
    }
}

#[cfg(feature = "postgres")]
impl<R: SqlRow> SqlRow for KeyInEvent<'_, R> {
    fn text(&self, index: usize) -> Result<&str> {
        self.0.text(Self::column(index))
    }

    fn optional_text(&self, index: usize) -> Result<Option<&str>> {
        self.0.optional_text(Self::column(index))
    }

    fn optional_bytes(&self, index: usize) -> Result<Option<Vec<u8>>> {
        self.0.optional_bytes(Self::column(index))
    }

    fn flag(&self, index: usize) -> Result<bool> {
        self.0.flag(Self::column(index))
    }

    fn optional_number(&self, index: usize) -> Result<Option<i64>> {
        self.0.optional_number(Self::column(index))
    }

    fn optional_id(&self, index: usize) -> Result<Option<Uuid>> {
        self.0.optional_id(Self::column(index))
    }

    fn optional_time(&self, index: usize, what: &'static str) -> Result<Option<OffsetDateTime>> {
        self.0.optional_time(Self::column(index), what)
    }
}

/// Reads the rows of one aggregate, which are in order of version.
pub(crate) fn stream(rows: &[impl SqlRow], aggregate: &AggregateRef) -> Result<Stream> {
    let events = rows.iter().map(|row| event(row, aggregate.clone())).collect::<Result<Vec<_>>>()?;
    let last_version = events.last().map(|event| event.aggregate_version);
    Ok(Stream { aggregate: aggregate.clone(), events, last_version })
}

/// Reads the rows of the log after a position, of which at most `limit` were requested.
pub(crate) fn page(rows: &[impl SqlRow], after: GlobalPosition, limit: u32) -> Result<EventPage> {
    let events = events(rows)?;
    let next = events.last().map_or(after, |event| event.global_position);
    let scanned = u32::try_from(events.len()).unwrap_or(limit);
    Ok(EventPage { events, scanned, next })
}

/// Reads a row of a count. Its columns are the event type, the event version (0 if the rows have none), whether there
/// is a header, the number of events, their first and last position, and their first and last time.
fn stored_count(row: &impl SqlRow) -> Result<StoredCount> {
    let positions = (GlobalPosition::try_from(row.number(4)?)?, row.number(5)?.try_into()?);
    Ok(StoredCount {
        event_type: row.text(0)?.into(),
        event_version: event_version(row.number(1)?, positions.0)?,
        with_header: row.flag(2)?,
        events: row.number(3)?.unsigned_abs(),
        positions,
        created_at: (row.time(6, CREATED_AT)?, row.time(7, CREATED_AT)?),
    })
}

/// The version that the aggregate must be at, 0 if it must have no events, or `None` if it may be at any.
pub(crate) fn expected_head(expected: ExpectedVersion) -> Option<i64> {
    match expected {
        ExpectedVersion::Any => None,
        ExpectedVersion::NoStream => Some(0),
        ExpectedVersion::Exact(version) => Some(version.get()),
    }
}

/// The events of an append, with the positions and versions that the database assigned.
pub(crate) fn appended(
    mut rows: Vec<(i64, i64)>,
    aggregate: &AggregateRef,
    events: &[NewEvent],
    operation: &'static str,
) -> Result<Appended> {
    check_stored(rows.len(), events.len(), operation)?;
    // RETURNING guarantees no order.
    rows.sort_unstable_by_key(|(_, version)| *version);
    let appended = rows.into_iter().zip(events).map(|((position, version), event)| {
        Ok(PersistedEvent::from_new(aggregate.clone(), version.try_into()?, position.try_into()?, event.clone()))
    });
    Ok(Appended { events: appended.collect::<Result<_>>()? })
}

/// Refuses an append if the aggregate is not at the expected version.
pub(crate) fn check_version(
    aggregate: &AggregateRef,
    expected: ExpectedVersion,
    actual: Option<AggregateVersion>,
) -> Result<()> {
    if expected.accepts(actual) {
        Ok(())
    } else {
        Err(Error::VersionConflict { aggregate: aggregate.clone(), expected, actual })
    }
}

/// The statements that read the log, by the parts of a filter.
#[derive(Clone, Debug)]
pub(crate) struct LogReads {
    pub(crate) all: Arc<str>,
    pub(crate) event_types: Arc<str>,
    pub(crate) aggregate_types: Arc<str>,
    pub(crate) both_types: Arc<str>,
}

/// A filtered read of the log.
pub(crate) struct Filtered<'r> {
    pub(crate) sql: &'r Arc<str>,
    /// The types that are looked for in an index.
    pub(crate) types: &'r [String],
    /// The aggregate types that the found events must have, if event types were looked for and the filter names
    /// aggregate types too.
    pub(crate) and: Option<&'r [String]>,
}

impl LogReads {
    /// The filtered read for a filter; `None` if the filter names no types, so that no index helps.
    pub(crate) fn filtered<'r>(&'r self, filter: &'r EventFilter) -> Option<Filtered<'r>> {
        let (sql, types, and) = match (filter.event_types.as_slice(), filter.aggregate_types.as_slice()) {
            ([], []) => return None,
            (events, []) => (&self.event_types, events, None),
            ([], aggregates) => (&self.aggregate_types, aggregates, None),
            (events, aggregates) => (&self.both_types, events, Some(aggregates)),
        };
        Some(Filtered { sql, types, and })
    }
}
