//! The events of a statement as one JSON text, so that the SQL is the same for any number of events.

use crate::error::{Error, Result};
use crate::sql::events::Written;
use crate::sqlite::{id_text, to_text};
use serde::Serialize;

/// A row of the text. Its members are the columns in their order. Instead of the payload, they have the place where it
/// begins among the payloads, and its length.
type Row<'e> =
    (String, &'e str, u32, usize, usize, Option<&'e str>, Option<&'e str>, Option<&'e str>, Option<&'e str>, String);

pub(super) struct Batch<'e> {
    pub(super) rows: Vec<Row<'e>>,
    /// All payloads, one behind the other.
    pub(super) payloads: Vec<u8>,
}

impl<'e> Batch<'e> {
    pub(super) fn new(events: impl Iterator<Item = Result<Written<'e>>>) -> Result<Self> {
        let events: Vec<Written<'e>> = events.collect::<Result<_>>()?;
        let mut payloads = Vec::with_capacity(events.iter().map(|event| event.payload.len()).sum());
        let mut rows = Vec::with_capacity(events.len());
        for event in &events {
            rows.push((
                id_text(event.event_id),
                event.event_type,
                event.event_version,
                payloads.len(),
                event.payload.len(),
                event.trace_id,
                event.correlation_id,
                event.causation_id,
                event.metadata,
                to_text(event.created_at),
            ));
            payloads.extend_from_slice(event.payload);
        }
        Ok(Self { rows, payloads })
    }

    pub(super) fn json(&self) -> Result<String> {
        json(&self.rows)
    }
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::database("writing a list", source))
}
