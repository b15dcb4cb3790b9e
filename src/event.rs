//! Events, in the words of event sourcing.
//!
//! Nothing here knows of keys, schemas or databases.

mod names;
mod new_event;
mod pages;
mod payload_type;
mod sealed_place;

pub use names::{
    AggregateRef, AggregateVersion, EventType, EventVersion, ExpectedVersion, GlobalPosition, VersionRange, aggregate,
};
pub use new_event::NewEvent;
pub use pages::{Appended, EventFilter, EventPage, OpenedPage, PageSize, Stream, Unreadable};
pub use payload_type::{Answers, Asked, Given, Parts, PayloadType, Question, Refusal};
pub use sealed_place::SealedPlace;
pub(crate) use sealed_place::{Sealed, Seals};

use crate::error::{Error, EventFault, InputFault, Result};
use crate::json::pointer::JsonPointer;
use crate::seal::detect::is_sealed;
use crate::sensitive::{self, Undecodable};
use serde::de::DeserializeOwned;
use std::fmt;
use time::OffsetDateTime;
use uuid::Uuid;

/// One of the two documents of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum EventDocument {
    #[default]
    Payload,
    Metadata,
}

impl EventDocument {
    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Payload => Self::Metadata,
            Self::Metadata => Self::Payload,
        }
    }
}

/// A document of an event as it is stored, or is to be stored, with what a seal of it is bound to.
#[derive(Clone, Copy)]
pub(crate) struct EventRef<'a> {
    pub(crate) aggregate: &'a AggregateRef,
    pub(crate) event_id: Uuid,
    /// The stored type, not the one that readers see.
    pub(crate) event_type: &'a EventType,
    /// The stored version, not the one that readers see.
    pub(crate) event_version: EventVersion,
    /// Which document it is.
    pub(crate) document: EventDocument,
    /// The document.
    pub(crate) text: &'a [u8],
    /// The other document, which may name owners: the metadata beside the payload, the payload beside the metadata.
    pub(crate) beside: Option<&'a [u8]>,
}

impl<'a> EventRef<'a> {
    /// The other document, if there is one.
    pub(crate) fn other(self) -> Option<Self> {
        Some(Self { document: self.document.other(), text: self.beside?, beside: Some(self.text), ..self })
    }

    /// This document with another text.
    pub(crate) fn with_text(self, text: &'a [u8]) -> Self {
        Self { text, ..self }
    }
}

/// The number of an event among those that an upcaster made of one stored event: `0 of 1` unless it was split.
///
/// Parts share the stored event's id, version and position. To tell them apart, for instance when a projection
/// remembers the events that it has handled, use `(aggregate_version, part.index)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// How many parts there are.
    pub count: u32,
}

impl Part {
    /// The only part of an event that was not split.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// An event as a reader sees it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "documented below where it needs more than its name")]
pub struct PersistedEvent {
    pub aggregate: AggregateRef,
    pub aggregate_version: AggregateVersion,
    pub global_position: GlobalPosition,
    pub event_id: Uuid,
    /// The type of `payload`, after upcasting.
    pub event_type: EventType,
    /// The version of `payload`, after upcasting.
    pub event_version: EventVersion,
    /// The type under which the event lies in the store.
    pub stored_type: EventType,
    /// The version under which the event lies in the store.
    pub stored_version: EventVersion,
    pub payload: Vec<u8>,
    /// Equal to what was appended as a JSON value; a database may re-space or re-order it.
    pub metadata: Option<Vec<u8>>,
    pub trace_id: Option<String>,
    pub correlation_id: Option<String>,
    pub causation_id: Option<String>,
    /// In microseconds.
    pub created_at: OffsetDateTime,
    pub part: Part,
    /// The places in `payload` whose keys were shredded, and that hold a stand-in.
    pub redacted: Vec<JsonPointer>,
    /// The places in `metadata` whose keys were shredded, and that hold a stand-in.
    pub redacted_metadata: Vec<JsonPointer>,
    pub(crate) sealed: Sealed,
    pub(crate) sealed_metadata: Sealed,
}

impl PersistedEvent {
    /// An event as it was appended, with the version and the position that the store assigned. For implementers of
    /// stores.
    #[must_use]
    pub fn from_new(
        aggregate: AggregateRef,
        version: AggregateVersion,
        position: GlobalPosition,
        event: NewEvent,
    ) -> Self {
        Self {
            aggregate,
            aggregate_version: version,
            global_position: position,
            event_id: event.event_id,
            stored_type: event.event_type.clone(),
            event_type: event.event_type,
            stored_version: event.event_version,
            event_version: event.event_version,
            payload: event.payload,
            metadata: event.metadata,
            trace_id: event.trace_id,
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            created_at: microseconds(event.created_at),
            part: Part::WHOLE,
            redacted: Vec::new(),
            redacted_metadata: Vec::new(),
            sealed: Sealed::default(),
            sealed_metadata: Sealed::default(),
        }
    }

    /// The payload of this event as it is stored.
    pub(crate) fn as_stored(&self) -> EventRef<'_> {
        EventRef {
            aggregate: &self.aggregate,
            event_id: self.event_id,
            event_type: &self.stored_type,
            event_version: self.stored_version,
            document: EventDocument::Payload,
            text: &self.payload,
            beside: self.metadata.as_deref(),
        }
    }

    /// The metadata of this event as it is stored, if there is any.
    pub(crate) fn stored_metadata(&self) -> Option<EventRef<'_>> {
        let text = self.metadata.as_deref()?;
        Some(EventRef { document: EventDocument::Metadata, text, beside: Some(&self.payload), ..self.as_stored() })
    }

    /// Reads the payload into a Rust type.
    ///
    /// A [`Sensitive`](crate::Sensitive) field is redacted exactly if its place is in [`redacted`](Self::redacted),
    /// whatever its stand-in is. If an object has a member twice, the last one is read.
    ///
    /// # Errors
    /// [`EventFault::Decode`] if the payload does not fit the type. It names the place, never a value.
    /// [`EventFault::PrivateMember`] if a member, at any depth, has a name that serde_json keeps for itself.
    /// [`EventFault::StillSealed`] if the event was not read through the [`SealedStore`](crate::SealedStore), so that
    /// its payload is ciphertext.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        if self.is_sealed() {
            return Err(Error::Event {
                event_id: self.event_id,
                fault: EventFault::StillSealed { event_type: self.event_type.clone() },
            });
        }
        self.decoded(&self.payload, &self.redacted)
    }

    fn decoded<T: DeserializeOwned>(&self, document: &[u8], redacted: &[JsonPointer]) -> Result<T> {
        sensitive::decode(document, redacted).map_err(|error| match error {
            Undecodable::Private(pointer) => {
                Error::Event { event_id: self.event_id, fault: EventFault::PrivateMember { pointer } }
            }
            error => Error::Event {
                event_id: self.event_id,
                fault: EventFault::Decode {
                    event_type: self.event_type.clone(),
                    event_version: self.event_version,
                    target: std::any::type_name::<T>(),
                    problem: error.describe(document) + &say_what_is_redacted(redacted),
                },
            },
        })
    }

    /// Is the payload ciphertext, or could it be? It is if the event was read from the wrapped store and not through
    /// the [`SealedStore`](crate::SealedStore).
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        // A payload that is nested too deep to be checked counts as sealed, so that nobody takes it for plaintext.
        !matches!(is_sealed(&self.payload), Ok(false))
    }

    /// As [`is_sealed`](Self::is_sealed), of the metadata: is it ciphertext, or could it be?
    #[must_use]
    pub fn has_sealed_metadata(&self) -> bool {
        self.metadata.as_deref().is_some_and(|metadata| !matches!(is_sealed(metadata), Ok(false)))
    }

    /// Reads the metadata into a Rust type; `None` if there is none. A [`Sensitive`](crate::Sensitive) field is
    /// redacted exactly if its place is in [`redacted_metadata`](Self::redacted_metadata).
    ///
    /// ```
    /// # use eventseal::{AggregateVersion, GlobalPosition, NewEvent, PersistedEvent, Result, Sensitive, aggregate};
    /// #[derive(serde::Deserialize)]
    /// struct Metadata { actor: String, ip: Option<Sensitive<String>> }
    ///
    /// # fn main() -> Result<()> {
    /// # let new = NewEvent::raw("LoggedIn", 1, "{}").with_metadata(r#"{"actor":"cust_42","ip":"192.0.2.7"}"#);
    /// # let session = aggregate("Session", "s1");
    /// # let event = PersistedEvent::from_new(session, AggregateVersion::FIRST, GlobalPosition::START, new);
    /// let Some(metadata) = event.decode_metadata::<Metadata>()? else { return Ok(()) };
    /// assert_eq!(metadata.actor, "cust_42");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode), in an [`EventFault::InMetadata`].
    pub fn decode_metadata<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(metadata) = self.metadata.as_deref() else { return Ok(None) };
        if self.has_sealed_metadata() {
            let fault = EventFault::StillSealed { event_type: self.event_type.clone() }.in_metadata();
            return Err(Error::Event { event_id: self.event_id, fault });
        }
        self.decoded(metadata, &self.redacted_metadata).map(Some).map_err(Error::in_metadata)
    }

    /// Is anything in the payload redacted?
    #[must_use]
    pub fn is_redacted(&self) -> bool {
        !self.redacted.is_empty()
    }
}

/// Names the redacted places. A redaction is the most frequent reason why a payload that used to fit does not fit
/// any more.
fn say_what_is_redacted(redacted: &[JsonPointer]) -> String {
    match redacted {
        [] => String::new(),
        [first, others @ ..] => {
            let others = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
            format!("; {first}{others} is redacted in it: read what can be erased as a Sensitive<T>")
        }
    }
}

/// Shows where the event is, and no contents: a payload may hold values that must not be logged.
impl fmt::Debug for PersistedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistedEvent")
            .field("aggregate", &self.aggregate)
            .field("aggregate_version", &self.aggregate_version.get())
            .field("global_position", &self.global_position.get())
            .field("event_id", &self.event_id)
            .field("event_type", &self.event_type)
            .field("event_version", &self.event_version.get())
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("part", &format_args!("{} of {}", self.part.index, self.part.count))
            .field("redacted", &self.redacted)
            .field("redacted_metadata", &self.redacted_metadata)
            .finish_non_exhaustive()
    }
}

/// The checks that every store makes before it appends anything. For implementers of stores.
///
/// # Errors
/// [`InputFault::EmptyAppend`], [`InputFault::InvalidText`] (a name or id is empty or holds NUL),
/// [`InputFault::OutOfRange`] (event version 0 or over 2³¹-1, a year that no database keeps),
/// [`Error::DuplicateEventId`] (within the batch), [`EventFault::InvalidMetadata`], [`EventFault::SubjectNotWritten`].
pub fn check_append(aggregate: &AggregateRef, events: &[NewEvent]) -> Result<()> {
    check_new(aggregate, events)?;
    match events.iter().find(|event| !event.subjects().is_empty()) {
        Some(NewEvent { event_id, .. }) => {
            Err(Error::Event { event_id: *event_id, fault: EventFault::SubjectNotWritten })
        }
        None => Ok(()),
    }
}

/// The checks of [`check_append`] that do not ask whether subjects are written down.
pub(crate) fn check_new(aggregate: &AggregateRef, events: &[NewEvent]) -> Result<()> {
    aggregate.check()?;
    if events.is_empty() {
        return Err(Error::Input(InputFault::EmptyAppend));
    }
    for event in events {
        check_text("the event type", event.event_type.as_str())?;
        if i32::try_from(event.event_version.get()).is_err() || event.event_version.get() == 0 {
            return Err(Error::Input(InputFault::OutOfRange {
                what: "event version",
                value: event.event_version.get().into(),
                hint: "event versions are 1 to 2147483647",
            }));
        }
        let ids = [
            ("the trace id", &event.trace_id),
            ("the correlation id", &event.correlation_id),
            ("the causation id", &event.causation_id),
        ];
        for (what, id) in ids {
            if id.as_ref().is_some_and(|id| id.contains('\0')) {
                return Err(Error::Input(InputFault::InvalidText {
                    what,
                    problem: "holds a NUL character: remove it",
                }));
            }
        }
        let year = event.created_at.checked_to_offset(time::UtcOffset::UTC).map(OffsetDateTime::year);
        if !year.is_some_and(|year| (1..=9999).contains(&year)) {
            return Err(Error::Input(InputFault::OutOfRange {
                what: "the year of created_at",
                value: event.created_at.year().into(),
                hint: "years are 1 to 9999 in UTC",
            }));
        }
        if let Some(metadata) = &event.metadata
            && !std::str::from_utf8(metadata).is_ok_and(is_json)
        {
            return Err(Error::Event {
                event_id: event.event_id,
                fault: EventFault::InvalidMetadata { problem: NOT_JSON },
            });
        }
    }
    if events.len() > 1 {
        let mut seen = std::collections::HashSet::with_capacity(events.len());
        if let Some(twice) = events.iter().find(|event| !seen.insert(event.event_id)) {
            return Err(Error::DuplicateEventId { event_id: twice.event_id });
        }
    }
    Ok(())
}

/// The problem of metadata that is not JSON.
pub(crate) const NOT_JSON: &str = "is not JSON: pass a valid JSON document, or None";

/// Is this valid JSON by its grammar? Numbers of any size and any depth of nesting are.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Checks a name or id: not empty, no NUL, at most 1,024 bytes.
pub(crate) fn check_text(what: &'static str, text: &str) -> Result<()> {
    let problem = if text.is_empty() {
        "is empty: name it"
    } else if text.contains('\0') {
        "holds a NUL character: remove it"
    } else if text.len() > MAX_TEXT {
        "is longer than 1,024 bytes: shorten it"
    } else {
        return Ok(());
    };
    Err(Error::Input(InputFault::InvalidText { what, problem }))
}

/// The longest name, in bytes. In every supported database, a key of a B-tree can hold two names of this length.
pub(crate) const MAX_TEXT: usize = 1_024;

pub(crate) fn now() -> OffsetDateTime {
    microseconds(OffsetDateTime::now_utc())
}

/// The time in whole microseconds, which is all that databases keep.
pub(crate) fn microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(at.nanosecond() / 1_000 * 1_000).unwrap_or(at)
}
