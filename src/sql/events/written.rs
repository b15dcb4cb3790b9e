//! The columns that are written for an event.

use crate::error::{Error, EventFault, Result};
use crate::event::{NOT_JSON, NewEvent, PersistedEvent};
use time::OffsetDateTime;
use uuid::Uuid;

/// The columns of a [`Written`] event, in its order.
pub(crate) const WRITTEN: &str =
    "event_id, event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at";

pub(crate) struct Written<'e> {
    pub(crate) event_id: Uuid,
    pub(crate) event_type: &'e str,
    pub(crate) event_version: u32,
    pub(crate) payload: &'e [u8],
    pub(crate) trace_id: Option<&'e str>,
    pub(crate) correlation_id: Option<&'e str>,
    pub(crate) causation_id: Option<&'e str>,
    pub(crate) metadata: Option<&'e str>,
    pub(crate) created_at: OffsetDateTime,
}

/// Fills in the columns of an event of either kind. The two kinds have different names for type and version.
macro_rules! written {
    ($event:expr, $event_type:ident, $event_version:ident, $payload:expr) => {
        Ok(Written {
            event_id: $event.event_id,
            event_type: $event.$event_type.as_str(),
            event_version: $event.$event_version.get(),
            payload: $payload,
            trace_id: $event.trace_id.as_deref(),
            correlation_id: $event.correlation_id.as_deref(),
            causation_id: $event.causation_id.as_deref(),
            metadata: text($event.event_id, $event.metadata.as_deref())?,
            created_at: $event.created_at,
        })
    };
}

impl<'e> Written<'e> {
    /// The columns of an event that is appended.
    pub(crate) fn new(event: &'e NewEvent) -> Result<Self> {
        written!(event, event_type, event_version, event.payload())
    }

    /// The columns of an event that is inserted as it is stored elsewhere.
    pub(crate) fn stored(event: &'e PersistedEvent) -> Result<Self> {
        written!(event, stored_type, stored_version, &event.payload)
    }
}

fn text(event_id: Uuid, metadata: Option<&[u8]>) -> Result<Option<&str>> {
    let text = metadata.map(std::str::from_utf8).transpose();
    text.map_err(|_| Error::Event { event_id, fault: EventFault::InvalidMetadata { problem: NOT_JSON } })
}
