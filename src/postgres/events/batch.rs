//! The events of a statement: one value for each column, or one array for each, so that the SQL is the same for any
//! number of events.

use super::jsonb;
use crate::error::{Error, EventFault, InputFault, Result};
use crate::event::{NOT_JSON, NewEvent, is_json};
use crate::sql::events::Written;
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use time::OffsetDateTime;
use uuid::Uuid;

/// The arrays that [`Batch::bind`] binds after three other values. Each is wrapped in a SELECT, so that a plan does not
/// depend on the lengths of the arrays.
pub(super) const ARRAYS: &str = "(SELECT $4::uuid[]), (SELECT $5::text[]), (SELECT $6::int[]), (SELECT $7::bytea[]),
    (SELECT $8::text[]), (SELECT $9::text[]), (SELECT $10::text[]), (SELECT $11::text[]), (SELECT $12::timestamptz[])";

/// The event that [`One::bind`] binds after three other values.
pub(super) const ONE: &str = "$4::uuid, $5::text, $6::int, $7::bytea, $8::text, $9::text, $10::text, $11::text::jsonb,
    $12::timestamptz";

/// The first event of these arrays.
pub(super) const FIRST: &str = "($4::uuid[])[1], ($5::text[])[1], ($6::int[])[1], ($7::bytea[])[1],
    ($8::text[])[1], ($9::text[])[1], ($10::text[])[1], ($11::text[])[1]::jsonb, ($12::timestamptz[])[1]";

/// An event of these arrays, unnested as `e` with the names of the columns.
pub(super) const VALUES: &str = "e.event_id, e.event_type, e.event_version, e.payload,
    e.trace_id, e.correlation_id, e.causation_id, e.metadata::jsonb, e.created_at";

/// The events of an append.
pub(super) enum Events<'e> {
    One(One<'e>),
    Many(Batch<'e>),
}

impl<'e> Events<'e> {
    pub(super) fn new(events: &'e [NewEvent]) -> Result<Self> {
        match events {
            [event] => One::new(Written::new(event)?).map(Self::One),
            events => Self::many(events),
        }
    }

    /// As arrays, even if there is one event only.
    pub(super) fn many(events: &'e [NewEvent]) -> Result<Self> {
        Batch::new(events.iter().map(Written::new)).map(Self::Many)
    }

    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    /// Binds the events in the order of the columns.
    pub(super) fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        match self {
            Self::One(one) => one.bind(query),
            Self::Many(batch) => batch.bind(query),
        }
    }

    pub(super) fn ids(&self) -> &[Uuid] {
        match self {
            Self::One(one) => std::slice::from_ref(&one.event.event_id),
            Self::Many(batch) => &batch.event_ids,
        }
    }
}

/// A single event.
pub(super) struct One<'e> {
    event: Written<'e>,
    version: i32,
    metadata: Option<&'e str>,
}

impl<'e> One<'e> {
    fn new(event: Written<'e>) -> Result<Self> {
        Ok(Self { version: version(event.event_version)?, metadata: metadata(&event)?, event })
    }

    fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(self.event.event_id)
            .bind(self.event.event_type)
            .bind(self.version)
            .bind(self.event.payload)
            .bind(self.event.trace_id)
            .bind(self.event.correlation_id)
            .bind(self.event.causation_id)
            .bind(self.metadata)
            .bind(self.event.created_at)
    }
}

pub(super) struct Batch<'e> {
    pub(super) event_ids: Vec<Uuid>,
    event_types: Vec<&'e str>,
    event_versions: Vec<i32>,
    payloads: Vec<&'e [u8]>,
    trace_ids: Vec<Option<&'e str>>,
    correlation_ids: Vec<Option<&'e str>>,
    causation_ids: Vec<Option<&'e str>>,
    metadata: Vec<Option<&'e str>>,
    created_at: Vec<OffsetDateTime>,
}

impl<'e> Batch<'e> {
    pub(super) fn new(events: impl Iterator<Item = Result<Written<'e>>>) -> Result<Self> {
        let events: Vec<Written<'e>> = events.collect::<Result<_>>()?;
        Ok(Self {
            event_ids: events.iter().map(|event| event.event_id).collect(),
            event_types: events.iter().map(|event| event.event_type).collect(),
            event_versions: events.iter().map(|event| version(event.event_version)).collect::<Result<_>>()?,
            payloads: events.iter().map(|event| event.payload).collect(),
            trace_ids: events.iter().map(|event| event.trace_id).collect(),
            correlation_ids: events.iter().map(|event| event.correlation_id).collect(),
            causation_ids: events.iter().map(|event| event.causation_id).collect(),
            metadata: events.iter().map(metadata).collect::<Result<_>>()?,
            created_at: events.iter().map(|event| event.created_at).collect(),
        })
    }

    /// Binds the arrays in the order of the columns.
    pub(super) fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(&self.event_ids)
            .bind(&self.event_types)
            .bind(&self.event_versions)
            .bind(&self.payloads)
            .bind(&self.trace_ids)
            .bind(&self.correlation_ids)
            .bind(&self.causation_ids)
            .bind(&self.metadata)
            .bind(&self.created_at)
    }
}

fn version(version: u32) -> Result<i32> {
    i32::try_from(version).map_err(|_| {
        Error::Input(InputFault::OutOfRange {
            what: "event version",
            value: version.into(),
            hint: "event versions are at most 2147483647",
        })
    })
}

/// The metadata as text. It is checked here, because an error of the database would abort the caller's transaction.
fn metadata<'e>(event: &Written<'e>) -> Result<Option<&'e str>> {
    let Some(text) = event.metadata else { return Ok(None) };
    let problem = if is_json(text) { jsonb::problem(text) } else { Some(NOT_JSON) };
    problem.map_or(Ok(Some(text)), |problem| {
        Err(Error::Event { event_id: event.event_id, fault: EventFault::InvalidMetadata { problem } })
    })
}
